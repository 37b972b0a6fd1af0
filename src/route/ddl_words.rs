//! The refusals of DDL in words.

use crate::sql::ddl::Tie;

use super::refusal::{Code, Refusal};

pub(super) fn other_schema(schema: &str, name: &str) -> Refusal {
    let message = format!("{schema}.{name}: DDL of all shards names no schema but public");
    let hint = "Leave the schema out; for one shard, put /* presplit: shard=N */ into the statement and leave it out too.";
    Refusal::new(Code::UnknownTable, message, hint)
}

pub(super) fn mixed(one: (&str, &str), other: (&str, &str)) -> Refusal {
    let message = format!("{} is {}, {} is {}", one.0, one.1, other.0, other.1);
    Refusal::new(
        Code::ManyShards,
        message,
        "Write one statement for each of them.",
    )
}

pub(super) fn create_as(table: &str) -> Refusal {
    let message =
        format!("CREATE TABLE {table} AS: each shard would keep the answer over its own rows");
    Refusal::new(
        Code::NotMergeable,
        message,
        "Create the table with its columns, then fill it with INSERT.",
    )
}

pub(super) fn listed_without_key(table: &str, key: &str) -> Refusal {
    let message = format!("table {table} is to be sharded by {key}, and has no such column");
    let hint = format!(
        "Add the column, or say in shardmap.toml what the table is: [tables] {table} = {{ key = \"...\" }}, {{ host = \"...\" }} or {{ kind = \"reference\" }}."
    );
    Refusal::new(Code::UnknownTable, message, hint)
}

pub(super) fn no_kind(table: &str, key: &str, host: &str) -> Refusal {
    let message =
        format!("table {table} has no column {key} to be split by, and nothing says what it is");
    let hint = format!(
        "Say it in shardmap.toml: [tables] {table} = {{ host = \"{host}\" }} (whole, on one host), {{ kind = \"reference\" }} (the same on every host) or {{ key = \"...\" }}; or for all such tables at once: \"*\" = {{ host = \"{host}\" }}."
    );
    Refusal::new(Code::UnknownTable, message, hint)
}

pub(super) fn tied(one: (&str, &str), other: (&str, &str), tie: Tie) -> Refusal {
    let message = format!("{} is {}, {} is {}", one.0, one.1, other.0, other.1);
    let (detail, hint) = match tie {
        Tie::References => (
            "A foreign key must find the rows that it references in its own shard, or, if they are a reference table's, on its own host.",
            format!(
                "Leave REFERENCES out; or list both tables in [tables] as the same kind, or {} as {{ kind = \"reference\" }}.",
                other.0
            ),
        ),
        Tie::Same => (
            "A partition, child or owned sequence must be where the other table is.",
            "List both in [tables] as the same kind.".to_owned(),
        ),
    };
    Refusal::new(Code::ManyShards, message, hint).detail(detail)
}

pub(super) fn drops_key(table: &str, key: &str) -> Refusal {
    let message = format!("the rows of {table} are split by {key}: it can't be dropped");
    Refusal::new(
        Code::ChangesKey,
        message,
        "Make a new table that is split by another column, and copy the rows.",
    )
}

pub(super) fn renames_key(table: &str, key: &str, to: &str) -> Refusal {
    let message = format!(
        "the rows of {table} are split by {key}: nothing would say that {to} is the key now"
    );
    let hint = format!(
        "First say so in shardmap.toml: [tables] {table} = {{ key = \"{to}\" }}. Until the column is renamed the table is refused."
    );
    Refusal::new(Code::ChangesKey, message, hint)
}

pub(super) fn retypes_key(table: &str, key: &str, type_name: &str) -> Refusal {
    let message = format!(
        "the rows of {table} are split by {key}: as {type_name} its values would mean other shards"
    );
    Refusal::new(
        Code::ChangesKey,
        message,
        "Integers may become other integers, text varchar and back. Else make a new table and copy the rows.",
    )
}

pub(super) fn name_taken(name: &str) -> Refusal {
    let message = format!("there is a table {name} already");
    Refusal::new(
        Code::UnknownTable,
        message,
        "A name is either in the shards or in public, and only once. Take another.",
    )
}
