//! The refusals in words: what is wrong, with the table and column that it is about, and what would make it work.

use crate::sql::plan::{CopyEnd, LevelId, Plan};

use super::refusal::{Code, Refusal};
use super::tables::{Table, TableKind};
use super::value::Fault;

const GIVE_HINT: &str =
    "put /* presplit: key=VALUE */ or /* presplit: shard=N */ into the statement";

fn key_of(table: &Table) -> &str {
    match &table.kind {
        TableKind::Sharded { key: Some(key), .. } => &key.name,
        _ => "its key",
    }
}

pub(super) fn unreadable(word: &str, why: &str) -> Refusal {
    let hint =
        format!("Write the statement in a simpler form, or {GIVE_HINT} to say where it goes.");
    Refusal::new(
        Code::Unreadable,
        format!("the statement can't be read, and names {word}"),
        hint,
    )
    .detail(why)
}

pub(super) fn path_of_several() -> Refusal {
    Refusal::new(
        Code::NotMergeable,
        "a statement whose names need the shard's search_path can't be asked of several shards",
        "Ask one shard at a time: put /* presplit: key=VALUE */ or /* presplit: shard=N */ into the statement.",
    )
}

pub(super) fn unlisted(table: &str) -> Refusal {
    let hint = format!(
        "List it in shardmap.toml: [tables] {table} = {{ host = \"...\" }} if it is on one host, {{ kind = \"reference\" }} if every host has the same rows; or create it in the shards."
    );
    Refusal::new(
        Code::UnknownTable,
        format!("table {table} is in public, and [tables] does not say what it is"),
        hint,
    )
}

pub(super) fn no_key_column(table: &Table) -> Refusal {
    let name = &table.name;
    if let Some(why) = &table.bad_key {
        let hint = format!("Mend the column, name another in [tables], or {GIVE_HINT}.");
        return Refusal::new(
            Code::UnknownTable,
            format!("sharded table {name} has no key that can be used: {why}"),
            hint,
        );
    }
    let hint = format!(
        "Name its key column in shardmap.toml: [tables] {name} = {{ key = \"...\" }}, or {GIVE_HINT}."
    );
    Refusal::new(
        Code::UnknownTable,
        format!("sharded table {name} has no key column that can be used"),
        hint,
    )
}

pub(super) fn unknown(table: &str) -> Refusal {
    let hint =
        format!("Create it in all shards (presplit provision) or in public, or {GIVE_HINT}.");
    Refusal::new(
        Code::UnknownTable,
        format!("table {table} is not known"),
        hint,
    )
}

pub(super) fn other_schema(schema: &str, table: &str) -> Refusal {
    let hint = format!("Leave the schema out, or {GIVE_HINT}.");
    let message = format!(
        "{schema}.{table}: the schema is neither public nor that of a shard with such a table"
    );
    Refusal::new(Code::UnknownTable, message, hint)
}

pub(super) fn function_schema(schema: &str, function: &str) -> Refusal {
    let hint = format!("Leave the schema out, or {GIVE_HINT}.");
    Refusal::new(
        Code::UnknownTable,
        format!("function {schema}.{function}: the schema is not known"),
        hint,
    )
}

pub(super) fn two_hosts(one: (&str, &str), other: (&str, &str)) -> Refusal {
    let message = format!(
        "{} is on host {}, {} on host {}",
        one.1, one.0, other.1, other.0
    );
    Refusal::new(
        Code::ManyShards,
        message,
        "Read them one after the other, or move them to the same host.",
    )
}

pub(super) fn two_schemas() -> Refusal {
    Refusal::new(
        Code::ManyShards,
        "the statement names the schemas of two shards",
        "Write one statement for each shard.",
    )
}

pub(super) fn reference_differs(table: &str, why: &str, hint: &str) -> Refusal {
    let message = format!("reference table {table} must get the same rows on all hosts, but {why}");
    Refusal::new(Code::ManyShards, message, hint)
}

pub(super) fn reference_written_among(table: &str) -> Refusal {
    let message =
        format!("the statement writes reference table {table} beside tables of another kind");
    Refusal::new(
        Code::ManyShards,
        message,
        "Read the rows first, and write them in a statement of their own.",
    )
}

pub(super) fn order_of_rows() -> Refusal {
    Refusal::new(
        Code::ManyShards,
        "rows of several shards take turns in the INSERT, and ON CONFLICT DO UPDATE ... WHERE may leave some out of RETURNING, so that their order can't be kept",
        "Sort the rows by key in the statement, or leave out WHERE or RETURNING.",
    )
}

pub(super) fn last_value(function: &str) -> Refusal {
    let message = format!(
        "{function}() tells what this session has last taken from a sequence, but server connections are shared by sessions"
    );
    Refusal::new(Code::NotSupported, message, "Add RETURNING to the INSERT.")
}

pub(super) fn sequence_alone(to: &str, name: &str) -> Refusal {
    let message = format!("{to}('{name}') does not say of which shard");
    let hint = format!("Let the table's default call it in the INSERT, or {GIVE_HINT}.");
    Refusal::new(Code::NoKey, message, hint)
}

pub(super) fn reads_unseen(function: &str) -> Refusal {
    let message = format!("{function}() reads tables that can't be told from the statement");
    let hint =
        format!("Read them in the statement itself, or {GIVE_HINT}: it then reads that shard's.");
    Refusal::new(Code::Unreadable, message, hint)
}

pub(super) fn unknown_sequence(name: &str) -> Refusal {
    let hint = format!("Use a sequence of the shards' schemas, or next_id(); or {GIVE_HINT}.");
    Refusal::new(
        Code::UnknownTable,
        format!("sequence {name} is not of the shards: each host would count by itself"),
        hint,
    )
}

pub(super) fn public_object(name: &str) -> Refusal {
    let hint = format!("Write '{name}' without the schema.");
    Refusal::new(
        Code::UnknownTable,
        format!("'public.{name}' is not in public but in the shards"),
        hint,
    )
}

pub(super) fn function_alone(function: &str) -> Refusal {
    let message =
        format!("no shard key: the call of {function}() names no table whose key would say where");
    Refusal::new(
        Code::NoKey,
        message,
        format!("To say where it runs, {GIVE_HINT}."),
    )
}

pub(super) fn unknown_function_alone(function: &str) -> Refusal {
    let message = format!("what {function}() reads is not known, and no table says where it runs");
    Refusal::new(
        Code::UnknownTable,
        message,
        format!("To say where it runs, {GIVE_HINT}."),
    )
}

pub(super) fn temporary() -> Refusal {
    Refusal::new(
        Code::NotSupported,
        "of what is temporary only tables are supported",
        "Use CREATE TEMP TABLE, with AS and a query if it is to have rows; or WITH ... AS (...) inside the statement that needs them.",
    )
}

pub(super) fn hidden(schema: &str, name: &str) -> Refusal {
    Refusal::new(
        Code::NotSupported,
        format!(
            "this session has a temporary table {name}, so that {schema}.{name} can't be named"
        ),
        "Give the temporary table another name.",
    )
}

pub(super) fn session_command(verb: &str) -> Refusal {
    let hint = "Write it in one of the forms of Postgres' manual.";
    Refusal::new(
        Code::Unreadable,
        format!("{verb} is no statement that is routed, or not of a form that can be read"),
        hint,
    )
}

/// What is of a host or a database as a whole, and so of no shard.
const OF_A_HOST: &[&str] = &[
    "DATABASE",
    "ROLE",
    "USER",
    "GROUP",
    "TABLESPACE",
    "SYSTEM",
    "PUBLICATION",
    "SUBSCRIPTION",
    "SERVER",
];

/// What is of all tables, if it names none.
const OF_ALL_TABLES: &[&str] = &["ANALYZE", "VACUUM", "REINDEX", "CLUSTER"];

pub(super) fn utility(verb: &str) -> Refusal {
    let (message, hint) = if verb.split(' ').any(|word| OF_A_HOST.contains(&word)) {
        (
            format!("{verb} is of a whole host, and a host is not said"),
            format!(
                "Run it on each host itself, past the proxy; or, for the host of one shard, {GIVE_HINT}."
            ),
        )
    } else if OF_ALL_TABLES.contains(&verb) {
        (
            format!("{verb} does not say of which tables"),
            format!("Name them: {verb} users; or, for the host of one shard, {GIVE_HINT}."),
        )
    } else {
        (
            format!("{verb} does not say in which shard"),
            format!(
                "To run it in one, {GIVE_HINT}; for all, run it on the hosts, in each shard's schema."
            ),
        )
    };
    Refusal::new(Code::NoKey, message, hint)
}

pub(super) fn copy(table: &str) -> Refusal {
    let hint = format!("Read with COPY (SELECT ... WHERE key = ...) TO STDOUT, or {GIVE_HINT}.");
    Refusal::new(
        Code::NoKey,
        format!("COPY {table} does not say in which shard"),
        hint,
    )
}

pub(super) fn copy_without_key(table: &Table) -> Refusal {
    let (table, key) = (&table.name, key_of(table));
    let hint = format!("Give {key} in the column list and the data.");
    Refusal::new(
        Code::NoKey,
        format!("no shard key: the COPY gives no value for {table}.{key}"),
        hint,
    )
}

pub(super) fn copied_null(table: &str, column: &str) -> Refusal {
    Refusal::new(
        Code::BadKey,
        format!("{table}.{column} is NULL, which is the key of no row"),
        "Give a value in every row.",
    )
}

pub(super) fn row_of_another_shard(table: &str, column: &str, of: u32, only: u32) -> Refusal {
    let message = format!(
        "the row's {table}.{column} is of shard {of}, and the statement says that all rows are of shard {only}"
    );
    let hint = "Leave the hint, or the schema, out: each row then goes to its own shard.";
    Refusal::new(Code::ManyShards, message, hint)
}

pub(super) fn server_file(end: CopyEnd) -> Refusal {
    let what = match end {
        CopyEnd::Program => "a program",
        CopyEnd::File | CopyEnd::Client => "a file",
    };
    let message = format!(
        "COPY with {what} on the database host is not supported: it says nothing of which host"
    );
    let hint =
        "Use COPY ... FROM STDIN or TO STDOUT, or psql's \\copy, with a file on the client's side.";
    Refusal::new(Code::NotSupported, message, hint)
}

pub(super) fn insert_without_key(table: &str, key: &str) -> Refusal {
    let hint = format!("Give {key} in the column list and the values.");
    Refusal::new(
        Code::NoKey,
        format!("no shard key: the INSERT gives no value for {table}.{key}"),
        hint,
    )
}

pub(super) fn insert_with_expression(table: &str, key: &str) -> Refusal {
    let hint = format!(
        "Give {key} as a literal or parameter, or select it from rows whose {key} is bound."
    );
    let message = format!(
        "no shard key: the value that the INSERT gives for {table}.{key} is not known before it runs"
    );
    Refusal::new(Code::NoKey, message, hint)
}

pub(super) fn id_of_unknown_shard(table: &str, id: &str) -> Refusal {
    let message = format!(
        "{table}.{id} carries the shard of its row, and the value given for it is not known before it runs"
    );
    let hint = format!(
        "Leave {id} out, so that next_id() makes it, or give it as a literal or parameter."
    );
    Refusal::new(Code::ManyShards, message, hint)
}

pub(super) fn changes_key(table: &str, column: &str) -> Refusal {
    let message = format!("the statement sets {table}.{column}, which decides the row's shard");
    let hint = "Delete the row and insert it anew with its new key.";
    Refusal::new(Code::ChangesKey, message, hint)
        .detail("It may only be set to a literal or parameter of the same shard.")
}

pub(super) fn moves_row(table: &str, column: &str) -> Refusal {
    let message =
        format!("the statement would change {table}.{column} to a value of another shard");
    Refusal::new(
        Code::ChangesKey,
        message,
        "Delete the row and insert it anew with its new key.",
    )
}

pub(super) fn foreign_value(table: &str, column: &str, of: u32, row: u32) -> Refusal {
    let message =
        format!("the value for {table}.{column} is of shard {of}, its row would be in shard {row}");
    Refusal::new(
        Code::ManyShards,
        message,
        format!("Leave {column} out, so that it is made in the row's own shard."),
    )
}

/// A sharded table of which nothing says in which shard its rows are.
pub(super) fn unbound(
    plan: &Plan,
    level: LevelId,
    item: usize,
    table: &Table,
    writes: bool,
    some_bound: bool,
    reason: Option<&str>,
) -> Refusal {
    let key = key_of(table);
    let alias = plan.levels[level].items[item]
        .alias
        .as_deref()
        .unwrap_or(&table.name);
    let hint = format!(
        "Add {alias}.{key} = ... to the condition (or join it to a key that is bound), or {GIVE_HINT}."
    );
    let message = format!("no shard key: nothing says what {alias}.{key} equals");
    match reason.filter(|_| !writes && !some_bound) {
        None => Refusal::new(Code::NoKey, message, hint),
        Some(reason) => {
            let message = format!("all shards would have to be asked, but {reason}");
            Refusal::new(Code::NotMergeable, message, hint)
                .detail(format!("Nothing says what {alias}.{key} equals."))
        }
    }
}

/// A read whose answers of several shards can't be made one.
pub(super) fn not_merged(reason: &str) -> Refusal {
    Refusal::new(
        Code::NotMergeable,
        format!("several shards would have to be asked, but {reason}"),
        format!("Put the key (one only) into the condition, or {GIVE_HINT}."),
    )
}

/// Several shards where only one will do.
pub(super) fn not_mergeable(reason: &str, writes: bool) -> Refusal {
    if writes {
        let message = format!(
            "the statement writes to more than one shard, or locks rows there, but {reason}"
        );
        return Refusal::new(
            Code::ManyShards,
            message,
            "Write one statement for each key.",
        );
    }
    let message = format!("the keys are of more than one shard, but {reason}");
    Refusal::new(Code::NotMergeable, message, "Ask for one key at a time.")
}

pub(super) fn different_shards(one: (&str, u32), other: (&str, u32)) -> Refusal {
    let message = format!(
        "{} is bound to shard {}, {} to shard {}",
        one.0, one.1, other.0, other.1
    );
    Refusal::new(
        Code::ManyShards,
        message,
        "Use one key for all tables of the statement, or write one statement for each shard.",
    )
}

pub(super) fn hint_disagrees(hint: u32, bound: &str, shard: u32) -> Refusal {
    let message = format!("the hint says shard {hint}, but {bound} is of shard {shard}");
    Refusal::new(Code::ManyShards, message, "Take the hint away, or mend it.")
}

pub(super) fn beside(table: &str, host: &str, shard: u32, owner: &str) -> Refusal {
    // What is on the session host has no name: "an advisory lock".
    let (what, mend) = match table.contains(' ') {
        true => (table.to_owned(), "Use one statement for each."),
        false => (
            format!("table {table}"),
            "Read them one after the other and join in the application.",
        ),
    };
    let message = format!("{what} is on host {host}, shard {shard} on host {owner}");
    Refusal::new(Code::ManyShards, message, mend)
}

pub(super) fn unknown_host(table: &str, host: &str) -> Refusal {
    let message = format!("the shard map has no host {host}, where table {table} is");
    Refusal::new(
        Code::UnknownTable,
        message,
        "Mend [tables] in shardmap.toml.",
    )
}

pub(super) fn hint_all(what: &str) -> Refusal {
    let hint = "Give a key or a shard in the hint, or leave it out.";
    Refusal::new(
        Code::NotMergeable,
        format!("the hint asks all shards, but {what}"),
        hint,
    )
}

pub(super) fn hint_shard(shard: u32, shards: u32) -> Refusal {
    let message = format!(
        "the hint says shard {shard}, but there are only {shards} (0 to {})",
        shards.saturating_sub(1)
    );
    Refusal::new(Code::BadKey, message, "Mend the hint.")
}

pub(super) fn hint_key(key: &str, why: &str) -> Refusal {
    Refusal::new(
        Code::BadKey,
        format!("the hint's key {key:?} has no shard"),
        "Mend the hint.",
    )
    .detail(why)
}

pub(super) fn bad_value(table: &str, column: &str, fault: Fault) -> Refusal {
    let (message, hint) = match fault {
        Fault::Null => (
            format!("{table}.{column} is NULL, which is the key of no row"),
            "Give a value.".to_owned(),
        ),
        Fault::Missing(n) => (format!("there is no parameter ${n}"), "Bind a value to it.".to_owned()),
        Fault::Untyped(n) => (
            format!("the type of ${n} is not sure, so {table}.{column} can't be read from its binary form"),
            format!("Cast it where it stands (${n}::bigint), or state its type in Parse."),
        ),
        Fault::NoSuchId(id) => (
            format!("{id} is no id: it carries no shard of this map"),
            "Leave the id out, so that the shard makes it, or give one that next_id() of the shard has made."
                .to_owned(),
        ),
        Fault::Unusable(why) => (
            format!("the value for {table}.{column} can't be used: {why}"),
            "Give a value of the column's own type, without a fraction.".to_owned(),
        ),
    };
    Refusal::new(Code::BadKey, message, hint)
}
