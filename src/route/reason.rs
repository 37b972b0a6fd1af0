//! The reason of a route in words, for EXPLAIN (ROUTE) and `presplit explain`.

use crate::shardmap::{KeyValue, ShardMap};
use crate::sql::hint::Hint;
use crate::sql::plan::{Const, ConstFrom};

use super::rules::{Binding, Bound, Carries, Equals, KeyConst, Rule, Sharded};
use super::value::with_key;
use super::{Place, Target, Values, decide, value};

/// Why a statement goes where it goes, in one line, such as
/// `photos.user_id = $1 (42) -> 42 mod 4096 = shard 42 -> host a`. A refusal is given as its code, message and hint.
pub fn why(bound: &Bound, values: &Values<'_>, map: &ShardMap, hint: Option<&Hint>) -> String {
    let route = match decide(bound, values, map, hint) {
        Ok(route) => route,
        Err(refusal) => return refusal.to_string(),
    };
    let because = match (hint, &bound.rule) {
        (Some(Hint::Key(key)), _) => format!("hint key={key}"),
        (_, Rule::Temporary) => "temporary tables are on the session host".to_owned(),
        (_, Rule::Host { table, .. }) if table.contains(' ') => {
            format!("{table} is on the session host")
        }
        (Some(Hint::Shard(_)), Rule::Host { table, .. }) => format!("table {table} is unsharded"),
        (Some(Hint::Shard(shard)), _) => format!("hint shard={shard}"),
        (Some(Hint::All), _) => "hint all".to_owned(),
        (None, Rule::Data(copy)) => copy.describe(),
        (None, Rule::Any) => "no sharded table".to_owned(),
        (None, Rule::Template) => "catalog tables".to_owned(),
        (None, Rule::Host { table, .. }) => format!("table {table} is unsharded"),
        (None, Rule::Reference(reference)) => {
            format!("reference table {} is written", reference.table)
        }
        (None, Rule::Ddl(work)) => match &work.place {
            Place::Shards => "DDL of sharded tables".to_owned(),
            Place::Hosts => "DDL of what every host has".to_owned(),
            Place::Host(_) => "DDL of an unsharded table".to_owned(),
        },
        (None, Rule::Refuse { refusal, .. }) => refusal.to_string(),
        (None, Rule::Sharded(sharded)) => bindings(sharded, values, map),
    };
    let to = match &route.target {
        Target::Shard(shard) => format!(
            "shard {} -> host {}",
            shard.0,
            map.host(map.owner(*shard)).name
        ),
        Target::EveryHost => "every host".to_owned(),
        Target::Data(None) if matches!(bound.rule, Rule::Reference(_)) => "every host".to_owned(),
        Target::Data(None) => "the shard of each row".to_owned(),
        Target::Data(Some(only)) => format!(
            "shard {} -> host {}, rows of others are refused",
            only.0,
            map.host(map.owner(*only)).name
        ),
        Target::Shards(shards) => format!("{} shards", shards.len()),
        Target::Each(shards) => format!("{} shards, each by the same text", shards.len()),
        Target::Make(_) => "the shard of a key that is made when it runs".to_owned(),
        Target::Rows(split) => format!(
            "{} parts, each with the rows of one shard",
            split.parts.len()
        ),
        Target::Host(host) => format!("host {}", map.host(*host).name),
        Target::Any => "any host".to_owned(),
        Target::Everywhere => places(bound, map),
        Target::Template => format!(
            "template shard {} -> host {}",
            map.template().0,
            map.host(map.owner(map.template())).name
        ),
    };
    format!("{because} -> {to}")
}

/// Where DDL is run.
pub(super) fn places(bound: &Bound, map: &ShardMap) -> String {
    let hosts = |n: usize| if n == 1 { "host" } else { "hosts" };
    match bound.work().map(|work| &work.place) {
        None | Some(Place::Shards) => format!(
            "all {} shards on {} {}",
            map.shards(),
            map.hosts.len(),
            hosts(map.hosts.len())
        ),
        Some(Place::Hosts) => {
            let n = map.hosts.len();
            format!("public of all {n} {}", hosts(n))
        }
        Some(Place::Host(host)) => format!("public of host {host}"),
    }
}

fn bindings(sharded: &Sharded, values: &Values<'_>, map: &ShardMap) -> String {
    if let Some(fixed) = sharded.fixed {
        return format!("schema of shard {} in the statement", fixed.0);
    }
    match (&sharded.unbound, sharded.bindings.first()) {
        (None, Some(binding)) => describe(binding, values, map),
        _ => "no key: all shards".to_owned(),
    }
}

fn describe(binding: &Binding, values: &Values<'_>, map: &ShardMap) -> String {
    let Binding {
        table,
        column,
        carries,
        equals,
        null: _,
    } = binding;
    match equals {
        Equals::One(key) => {
            let shown = constant(&key.at, values);
            let value = with_key(key, carries.key_type(), values, |value| {
                Ok(key_value(&value))
            });
            let value = value.unwrap_or_default();
            let step = match carries {
                Carries::Id => format!("shard bits of the id {value}"),
                Carries::Key(_) => {
                    format!("{} of {value} by {}", map.keyspace.function, map.shards())
                }
            };
            let given = if shown == value {
                String::new()
            } else {
                format!(" ({value})")
            };
            format!("{table}.{column} = {shown}{given} -> {step}")
        }
        Equals::Many(keys) => {
            let shown: Vec<String> = keys
                .iter()
                .take(8)
                .map(|key: &KeyConst| constant(&key.at, values))
                .collect();
            let more = if keys.len() > 8 { ", ..." } else { "" };
            format!("{table}.{column} in ({}{more})", shown.join(", "))
        }
        Equals::Array(array) => format!("{table}.{column} = any ({})", constant(&array.at, values)),
    }
}

/// A constant as the text has it.
fn constant(at: &Const, values: &Values<'_>) -> String {
    let minus = if at.negative { "-" } else { "" };
    match at.from {
        ConstFrom::Null => "NULL".to_owned(),
        ConstFrom::Param(n) => format!("${n}"),
        ConstFrom::Hole(hole) => match values.holes.get(hole as usize) {
            Some(hole) => format!(
                "{minus}{}",
                value::shown(&values.text[hole.start as usize..hole.end as usize])
            ),
            None => String::new(),
        },
    }
}

fn key_value(value: &KeyValue<'_>) -> String {
    match value {
        KeyValue::Int(n) => n.to_string(),
        KeyValue::Text(text) => format!("'{}'", value::shown(text.as_bytes())),
        KeyValue::Uuid(bytes) => bytes.iter().map(|b| format!("{b:02x}")).collect(),
    }
}
