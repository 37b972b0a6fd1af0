//! Statements that are known by their first words alone: CREATE, ALTER, VACUUM ...

use super::rules::Rule;
use super::words;

/// The first words of Postgres' statements (gram.y, `stmt`), those that are never utilities left out.
const COMMANDS: &[&str] = &[
    "ABORT",
    "ALTER",
    "ANALYZE",
    "ANALYSE",
    "BEGIN",
    "CALL",
    "CHECKPOINT",
    "CLOSE",
    "CLUSTER",
    "COMMENT",
    "COMMIT",
    "COPY",
    "CREATE",
    "DEALLOCATE",
    "DECLARE",
    "DELETE",
    "DISCARD",
    "DO",
    "DROP",
    "END",
    "EXECUTE",
    "EXPLAIN",
    "FETCH",
    "GRANT",
    "IMPORT",
    "INSERT",
    "LISTEN",
    "LOAD",
    "LOCK",
    "MERGE",
    "MOVE",
    "NOTIFY",
    "PREPARE",
    "REASSIGN",
    "REFRESH",
    "REINDEX",
    "RELEASE",
    "RELOAD",
    "RESET",
    "REVOKE",
    "ROLLBACK",
    "SAVEPOINT",
    "SECURITY",
    "SELECT",
    "SET",
    "SHOW",
    "START",
    "TABLE",
    "TRUNCATE",
    "UNLISTEN",
    "UPDATE",
    "VACUUM",
    "VALUES",
    "WITH",
];

/// Whether a statement of Postgres begins so.
pub(super) fn begins_a_command(verb: &str) -> bool {
    let first = verb.split_ascii_whitespace().next().unwrap_or_default();
    COMMANDS
        .iter()
        .any(|command| command.eq_ignore_ascii_case(first))
}

/// What a session acts on by itself, if it can read it. Sent to a server unread, it could leave something behind on a
/// connection that the next client gets.
const SESSION_COMMANDS: &[&str] = &[
    "ABORT",
    "BEGIN",
    "CLOSE",
    "COMMIT",
    "DEALLOCATE",
    "DISCARD",
    "END",
    "EXECUTE",
    "FETCH",
    "LISTEN",
    "MOVE",
    "PREPARE",
    "RELEASE",
    "RESET",
    "ROLLBACK",
    "SAVEPOINT",
    "SET",
    "SHOW",
    "START",
    "UNLISTEN",
];

/// What is no DDL that [`super::ddl`] knows goes nowhere without a hint.
pub(super) fn rule(verb: &str) -> Rule {
    let refusal = match verb {
        "CREATE TEMP TABLE" => return Rule::Temporary,
        "CREATE TEMP" => {
            return Rule::Refuse {
                refusal: words::temporary(),
                hintable: false,
            };
        }
        _ if SESSION_COMMANDS
            .contains(&verb.split_ascii_whitespace().next().unwrap_or_default()) =>
        {
            return Rule::Refuse {
                refusal: words::session_command(verb),
                hintable: false,
            };
        }
        // No statement of Postgres begins so: it runs nowhere, and Postgres itself says best what is wrong with it.
        _ if !begins_a_command(verb) => return Rule::Template,
        _ => words::utility(verb),
    };
    Rule::Refuse {
        refusal,
        hintable: true,
    }
}
