//! Streams that were once answered otherwise than by Postgres, about what an error, a rollback or the end of a transaction leaves
//! of portals, settings and options.

use super::found::{b, e, p, q, run};
use super::message::Message::{self, *};

fn dp(portal: &str) -> Message {
    DescribePortal(portal.to_owned())
}

fn ds(statement: &str) -> Message {
    DescribeStatement(statement.to_owned())
}

/// As [`super::found::streams`].
pub fn streams() -> Vec<(&'static str, Vec<Message>)> {
    const ITEMS: &str = "SELECT id, note FROM items WHERE user_id = {k} ORDER BY id";
    const FAILS: &str = "SELECT 1/0";
    vec![
        (
            "what the session does itself has a snapshot, too",
            vec![
                q("DEALLOCATE ALL; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"),
                q("DISCARD PLANS; BEGIN ISOLATION LEVEL SERIALIZABLE"),
                q("ROLLBACK"),
                q("BEGIN"),
                q("DISCARD TEMP"),
                q("SET TRANSACTION READ ONLY"),
                q("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"),
                q("SET TRANSACTION READ WRITE"),
                q("ROLLBACK"),
                q("BEGIN"),
                q("CLOSE ALL"),
                q("BEGIN DEFERRABLE"),
                q("ROLLBACK AND CHAIN"),
                q("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
                q("ROLLBACK"),
            ],
        ),
        (
            "a Query of ours that ends a batch which can't be committed",
            [
                run("DELETE FROM users WHERE id = {j}"),
                vec![q("SET CONSTRAINTS ALL DEFERRED")],
                run("DELETE FROM users WHERE id = {j}"),
                vec![q("SET work_mem = '7MB'"), q("SHOW work_mem")],
                run("DELETE FROM users WHERE id = {j}"),
                vec![q("COMMIT")],
            ]
            .concat(),
        ),
        (
            "what SET TRANSACTION has said without a block",
            [
                run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"),
                vec![p("", ITEMS)],
                run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"),
                run("BEGIN ISOLATION LEVEL REPEATABLE READ"),
                run("SHOW transaction_isolation"),
                vec![
                    Sync,
                    q("ROLLBACK AND CHAIN"),
                    q("SHOW transaction_isolation"),
                ],
                vec![
                    q("ROLLBACK"),
                    q("BEGIN"),
                    q("SHOW transaction_isolation"),
                    q("ROLLBACK"),
                ],
            ]
            .concat(),
        ),
        (
            "a Query behind a Parse that can't be read is skipped",
            vec![
                p("c d", "SHOW app.user"),
                q("SET TimeZone = 'Europe/Vienna'"),
                Sync,
                p("a", "SET LOCAL app.user = '43'"),
                q("UNLISTEN *"),
                Sync,
                b("", "a", &[]),
                Sync,
                p("a", "SELEC"),
                b("", "nosuch", &[]),
                Sync,
            ],
        ),
        (
            "RESET SESSION AUTHORIZATION takes the role back",
            [
                vec![q("SET ROLE other"), q("RESET SESSION AUTHORIZATION")],
                // What is undone is brought about anew.
                vec![q("BEGIN"), q("SET ROLE NONE"), q("ROLLBACK")],
                vec![q("SHOW is_superuser"), q("SHOW role"), q(ITEMS)],
                vec![
                    q("SET ROLE other"),
                    q("BEGIN"),
                    q("RESET SESSION AUTHORIZATION"),
                    q("SELECT current_user = 'other'"),
                ],
                vec![
                    q("ROLLBACK"),
                    q("SELECT current_user = 'other'"),
                    q("RESET ROLE"),
                ],
            ]
            .concat(),
        ),
        (
            "a Parse behind a write of which not all rows were fetched",
            [
                vec![
                    p(
                        "i",
                        "SELECT id FROM items WHERE user_id = {k} ORDER BY id FOR UPDATE",
                    ),
                    Sync,
                ],
                vec![p(
                    "",
                    "SELECT id FROM items WHERE user_id = {k} ORDER BY id FOR UPDATE",
                )],
                vec![b("c", "", &[]), e("c", 2), Sync],
                vec![p(
                    "",
                    "UPDATE items SET n = n + 1 WHERE user_id = {k} AND id IN (2, 3) RETURNING id",
                )],
                vec![b("x", "", &[]), e("x", 1)],
                vec![p(
                    "",
                    "SELECT id FROM items WHERE user_id = {k} ORDER BY id FOR UPDATE",
                )],
                vec![b("c", "", &[]), e("c", 2), Sync],
                vec![p(
                    "",
                    "UPDATE items SET n = n + 1 WHERE user_id = {k} AND id IN (2, 3) RETURNING id",
                )],
                vec![
                    b("x", "", &[]),
                    e("x", 1),
                    b("c", "i", &[]),
                    e("c", 2),
                    Sync,
                ],
            ]
            .concat(),
        ),
        (
            "several statements behind what was executed without a Sync",
            [
                run("UPDATE items SET n = 77 WHERE user_id = {k} AND id = 1"),
                vec![q("SELECT 1; SELECT 1/0"), q(ITEMS)],
                run("UPDATE items SET n = 77 WHERE user_id = {k} AND id = 1"),
                vec![
                    q("SET LOCAL work_mem = '9MB'; DEALLOCATE nosuch"),
                    q("SELECT n FROM items WHERE user_id = {k} AND id = 1"),
                ],
                run("UPDATE items SET n = 77 WHERE user_id = {k} AND id = 1"),
                vec![
                    q("SELECT 1; COMMIT; SELECT 1/0"),
                    q("SELECT n FROM items WHERE user_id = {k} AND id = 1"),
                ],
                run("UPDATE items SET n = 78 WHERE user_id = {k} AND id = 1"),
                vec![
                    q("SELECT 2; SELECT 3"),
                    q("SELECT n FROM items WHERE user_id = {k} AND id = 1"),
                ],
                run("DELETE FROM users WHERE id = {j}"),
                vec![q("SELECT 4; BEGIN; SELECT 5"), q("SELECT 6"), q("ROLLBACK")],
            ]
            .concat(),
        ),
        (
            "an EXECUTE that no server knows yet, too",
            [
                vec![q(
                    "PREPARE e AS SELECT 100 / (n - 77) FROM items WHERE user_id = {k} AND id = 1",
                )],
                vec![
                    q("PREPARE f AS SELECT 'f' || 1"),
                    q("PREPARE g AS SELECT 'g' || 1"),
                    q("EXECUTE f"),
                    q("EXECUTE g"),
                ],
                run("UPDATE items SET n = 77 WHERE user_id = {k} AND id = 1"),
                vec![
                    q("EXECUTE e"),
                    q("SELECT n FROM items WHERE user_id = {k} AND id = 1"),
                ],
                run("UPDATE items SET n = 78 WHERE user_id = {k} AND id = 1"),
                vec![q("PREPARE e AS SELECT 1"), q("EXECUTE f"), q("EXECUTE e")],
            ]
            .concat(),
        ),
        (
            "a ROLLBACK AND CHAIN goes back behind savepoints",
            vec![
                q("BEGIN ISOLATION LEVEL REPEATABLE READ"),
                q("SAVEPOINT a"),
                q("SET TRANSACTION READ ONLY"),
                q("SAVEPOINT b"),
                q("ROLLBACK AND CHAIN"),
                q("SHOW transaction_read_only"),
                q("SHOW transaction_isolation"),
                q("SAVEPOINT a"),
                q("SET TRANSACTION READ ONLY"),
                q("SELECT 1/0"),
                q("COMMIT AND CHAIN"),
                q("SHOW transaction_read_only"),
                q("SAVEPOINT a"),
                q("SET TRANSACTION READ ONLY"),
                q("COMMIT AND CHAIN"),
                q("SHOW transaction_read_only"),
                q("ROLLBACK"),
            ],
        ),
        (
            "a FunctionCall, too",
            [
                run("UPDATE items SET n = 77 WHERE user_id = {k} AND id = 1"),
                vec![FunctionCall(154, vec!["1".to_owned(), "0".to_owned()])],
                vec![q("SELECT n FROM items WHERE user_id = {k} AND id = 1")],
                run("DELETE FROM users WHERE id = {j}"),
                vec![FunctionCall(177, vec!["1".to_owned(), "2".to_owned()])],
                vec![q("SELECT n FROM items WHERE user_id = {k} AND id = 1")],
                run("UPDATE items SET n = 77 WHERE user_id = {k} AND id = 1"),
                vec![FunctionCall(177, vec!["1".to_owned(), "2".to_owned()])],
                vec![q("SELECT n FROM items WHERE user_id = {k} AND id = 1")],
            ]
            .concat(),
        ),
        (
            "a Query without a Sync ends portals",
            vec![
                p("", ";"),
                b("y", "", &[]),
                q("SELECT 1"),
                p("", "SELECT 2"),
                b("y", "", &[]),
                e("y", 0),
                Sync,
            ],
        ),
        (
            "in a savepoint",
            vec![
                q("BEGIN READ ONLY"),
                q("SAVEPOINT a"),
                q("DISCARD PLANS"),
                q("SET TRANSACTION DEFERRABLE"),
                q("ROLLBACK TO a"),
                q("SET TRANSACTION READ WRITE"),
                q("ROLLBACK TO a"),
                q("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
                q("ROLLBACK"),
            ],
        ),
        (
            "and a Parse in a block that no server has seen",
            vec![
                p("", "SELECT 'parsed before'"),
                Sync,
                q("BEGIN"),
                p("", "SELECT 'parsed before'"),
                Sync,
                q("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"),
                q("ROLLBACK"),
                p("", "SELECT 'parsed before'"),
                q("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"),
            ],
        ),
        (
            "a portal bound since the savepoint that is gone",
            [
                vec![q("BEGIN")],
                run("SAVEPOINT a"),
                run("ROLLBACK TO a"),
                vec![e("", 0), Sync, q("ROLLBACK TO a")],
                vec![
                    p("s", "SAVEPOINT a"),
                    p("r", "ROLLBACK TO a"),
                    b("x", "r", &[]),
                ],
                vec![
                    b("y", "s", &[]),
                    e("y", 0),
                    b("z", "s", &[]),
                    e("x", 0),
                    e("z", 0),
                    Sync,
                ],
                vec![
                    q("ROLLBACK TO a"),
                    e("y", 0),
                    Sync,
                    q("ROLLBACK TO a"),
                    e("x", 0),
                    Sync,
                ],
                vec![q("ROLLBACK")],
            ]
            .concat(),
        ),
        (
            "a statement that was never described, in a failed block",
            [
                vec![p(
                    "a",
                    "INSERT INTO users (id, name) VALUES ({j}, 'not described')",
                )],
                vec![
                    p(
                        "b",
                        "UPDATE items SET n = $2, note = $3 WHERE user_id = $1 AND n = -7",
                    ),
                    Sync,
                ],
                run("BEGIN"),
                run("SET work_mem = '7MB'"),
                vec![
                    q(FAILS),
                    ds("a"),
                    ds("b"),
                    Sync,
                    dp(""),
                    Sync,
                    ds("b"),
                    Sync,
                ],
                vec![q("ROLLBACK TO nosuch"), q("ROLLBACK"), q("SHOW work_mem")],
                vec![
                    q("BEGIN"),
                    q("SET work_mem = '8MB'"),
                    q("SAVEPOINT a"),
                    q(FAILS),
                ],
                vec![p("", "ROLLBACK TO a"), ds("a"), Sync, q("ROLLBACK TO a")],
                vec![
                    q("SHOW work_mem"),
                    ds("a"),
                    Sync,
                    q("COMMIT"),
                    q("SHOW work_mem"),
                ],
            ]
            .concat(),
        ),
        (
            "a statement that is read otherwise since, in a failed block",
            [
                vec![
                    p(
                        "a",
                        "INSERT INTO users (id, name) VALUES ({j}, 'read otherwise')",
                    ),
                    Sync,
                ],
                run("BEGIN"),
                run("SET standard_conforming_strings = on"),
                vec![
                    e("", 0),
                    Sync,
                    ds("a"),
                    Sync,
                    q("ROLLBACK"),
                    b("", "a", &[]),
                    Sync,
                ],
            ]
            .concat(),
        ),
        (
            "portals bound and closed behind an error",
            [
                vec![q("BEGIN"), p("i", ITEMS), p("r", "ROLLBACK"), p("f", FAILS)],
                vec![b("x", "i", &[]), b("y", "r", &[]), b("", "i", &[]), Sync],
                vec![b("", "f", &[]), e("", 0)],
                vec![
                    ClosePortal("x".to_owned()),
                    b("", "r", &[]),
                    b("z", "i", &[]),
                    Sync,
                ],
                vec![
                    e("x", 0),
                    Sync,
                    e("y", 0),
                    Sync,
                    e("", 0),
                    Sync,
                    e("z", 0),
                    Sync,
                ],
                vec![dp("x"), Sync, dp("y"), Sync, dp(""), Sync, dp("z"), Sync],
                vec![b("y2", "r", &[]), e("y2", 0), Sync],
            ]
            .concat(),
        ),
        (
            "a portal whose own Bind failed",
            [
                vec![
                    q("BEGIN"),
                    p("n", "SELECT $1::int"),
                    b("x", "n", &["x"]),
                    Sync,
                ],
                vec![
                    e("x", 0),
                    Sync,
                    dp("x"),
                    Sync,
                    e("x", 0),
                    Sync,
                    q("ROLLBACK"),
                    q("BEGIN"),
                ],
                vec![
                    b("", "n", &["1"]),
                    b("", "n", &["x"]),
                    Sync,
                    e("", 0),
                    dp(""),
                    Sync,
                ],
                vec![q("ROLLBACK")],
            ]
            .concat(),
        ),
        (
            "set_config of nothing",
            vec![
                q("SELECT set_config(NULL, 'x', false)"),
                p("", "SELECT set_config($1, $2, false)"),
                Bind {
                    portal: String::new(),
                    statement: String::new(),
                    formats: Vec::new(),
                    params: vec![None, Some(b"x".to_vec())],
                    results: Vec::new(),
                },
                e("", 0),
                Sync,
            ],
        ),
        (
            "DISCARD ALL stands, whatever fails behind it",
            [
                vec![q("SELECT set_config('application_name', 'set', false)")],
                run("DISCARD ALL"),
                vec![e("", 0), Sync, q("SHOW application_name")],
            ]
            .concat(),
        ),
        (
            "DISCARD ALL behind what is no part of a pipeline",
            [run(";"), run("DISCARD ALL"), run("DISCARD ALL"), vec![Sync]].concat(),
        ),
    ]
}
