//! What the map's rules make of each table of the catalog, and what is wrong with it.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::catalog::{self, Collation, Column, Snapshot};
use crate::route::views;
use crate::shardmap::{Function, KeyType, Kind, ShardMap, TableRule};

use super::{KeyColumn, Maker, Table, TableKind};

/// The family of a key column's type. `char(n)` is left out: its trailing blanks come and go.
fn key_type(oid: u32) -> Option<KeyType> {
    match oid {
        20 | 21 | 23 => Some(KeyType::Int),
        25 | 1043 => Some(KeyType::Text),
        2950 => Some(KeyType::Uuid),
        _ => None,
    }
}

/// The tables of `public` by name, with the hosts that have them.
pub(super) fn public_tables(snapshot: &Snapshot) -> BTreeMap<&str, Vec<(&str, &catalog::Table)>> {
    let mut tables: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for (host, of_host) in &snapshot.public {
        for (name, table) in of_host {
            tables.entry(name).or_default().push((host.as_str(), table));
        }
    }
    tables
}

pub(super) fn public_types(snapshot: &Snapshot) -> HashSet<String> {
    let mut hosts = snapshot.public_types.values();
    let Some(first) = hosts.next() else {
        return HashSet::new();
    };
    let rest: Vec<_> = hosts.collect();
    let everywhere = first
        .keys()
        .filter(|name| rest.iter().all(|host| host.contains_key(*name)));
    everywhere.cloned().collect()
}

/// None while some host is not known: it may have a sequence of the same name.
pub(super) fn public_sequences(map: &ShardMap, snapshot: &Snapshot) -> HashMap<String, String> {
    let unknown = |host: &str| !snapshot.public_sequences.contains_key(host);
    if map.hosts.iter().any(|host| unknown(&host.name)) {
        return HashMap::new();
    }
    let mut owners: HashMap<&String, Vec<&String>> = HashMap::new();
    for (host, names) in &snapshot.public_sequences {
        for name in names {
            owners.entry(name).or_default().push(host);
        }
    }
    let alone = owners.into_iter().filter(|(_, hosts)| hosts.len() == 1);
    alone
        .map(|(name, hosts)| (name.clone(), hosts[0].clone()))
        .collect()
}

pub(super) fn rule_is_sharded(rule: &TableRule) -> bool {
    rule.key.is_some() || !rule.ids.is_empty() || rule.kind == Some(Kind::Sharded)
}

fn is_view(table: &catalog::Table) -> bool {
    matches!(table.relkind, 'v' | 'm' | 'f')
}

pub(super) fn unlisted(table: &catalog::Table) -> Table {
    Table {
        name: table.name.clone(),
        kind: TableKind::Unlisted,
        columns: table.columns.clone(),
        view: is_view(table),
        temporary: false,
        bad_key: None,
        reads: None,
    }
}

pub(super) fn public_table(
    map: &ShardMap,
    name: &str,
    hosts: &[(&str, &catalog::Table)],
    faults: &mut Vec<String>,
) -> Table {
    let own = map.tables.get(name);
    let rule = own.or_else(|| map.tables.get("*"));
    let on = |host: &str| {
        hosts
            .iter()
            .find(|(h, _)| *h == host)
            .map(|(_, table)| *table)
    };
    let mut found = hosts[0].1;
    let kind = match rule {
        Some(TableRule {
            host: Some(host), ..
        }) => {
            match on(host) {
                Some(table) => found = table,
                None if own.is_some() => faults.push(format!(
                    "[tables] {name}: host {host} has no table public.{name}"
                )),
                None => {}
            }
            TableKind::Unsharded { host: host.clone() }
        }
        Some(rule) if rule.kind == Some(Kind::Reference) => TableKind::Reference,
        Some(rule) if rule_is_sharded(rule) => {
            faults.push(format!(
                "[tables] {name}: it is to be sharded, but stands in public and not in the shards"
            ));
            TableKind::Unlisted
        }
        _ => TableKind::Unlisted,
    };
    Table {
        name: name.to_owned(),
        kind,
        columns: found.columns.clone(),
        view: is_view(found),
        temporary: false,
        bad_key: None,
        reads: None,
    }
}

pub(super) fn sharded_table(
    map: &ShardMap,
    table: &catalog::Table,
    faults: &mut Vec<String>,
) -> Table {
    let rule = map.tables.get(&table.name);
    if let Some(rule) = rule
        && matches!(rule.kind, Some(Kind::Reference | Kind::Unsharded))
    {
        faults.push(format!(
            "[tables] {}: it is not to be sharded, but stands in the shards",
            table.name
        ));
        return unlisted(table);
    }
    if let Some(definition) = &table.definition {
        return sharded_view(table, definition);
    }
    let name = rule
        .and_then(|r| r.key.as_deref())
        .unwrap_or(&map.keyspace.key);
    let (key, bad_key) = match key_column(table, name, map.keyspace.function) {
        Ok(key) => (Some(key), None),
        Err((fault, bad_key)) => {
            faults.push(fault);
            (None, bad_key)
        }
    };
    let ids = rule.map_or(&[][..], |r| &r.ids);
    let ids = ids
        .iter()
        .filter(|id| is_id_column(table, id, faults))
        .cloned()
        .collect();
    let kind = TableKind::Sharded { key, ids };
    Table {
        temporary: false,
        name: table.name.clone(),
        kind,
        columns: table.columns.clone(),
        view: is_view(table),
        bad_key,
        reads: None,
    }
}

/// A view, before it is known what kind of tables it reads.
fn sharded_view(table: &catalog::Table, definition: &str) -> Table {
    let reads = views::read(definition);
    let why = match &reads {
        Some(_) => "it is a view that can't be written to, or not without its key",
        None => "it is a view, and what it reads is not understood",
    };
    Table {
        temporary: false,
        name: table.name.clone(),
        kind: TableKind::Sharded {
            key: None,
            ids: Vec::new(),
        },
        columns: table.columns.clone(),
        view: true,
        bad_key: Some(why.to_owned()),
        reads,
    }
}

/// The key column. `Err`: what is wrong, in words for the log, and if the column is there, why it can't be a key.
fn key_column(
    table: &catalog::Table,
    name: &str,
    function: Function,
) -> Result<KeyColumn, (String, Option<String>)> {
    let Some(index) = table.columns.iter().position(|c| c.name == name) else {
        let fault = format!(
            "sharded table {}: no key column {name}; name its key in [tables] {} = {{ key = \"...\" }}",
            table.name, table.name
        );
        return Err((fault, None));
    };
    let column = &table.columns[index];
    let bad = |why: &str, mend: &str| {
        let fault = format!(
            "sharded table {}: key column {name} {why}; {mend}",
            table.name
        );
        (fault, Some(format!("{name} {why}")))
    };
    let oid = column.type_oid;
    let key_type = key_type(oid).ok_or_else(|| {
        bad(
            &format!("has a type (OID {oid}) that can't be a key"),
            "use smallint, integer, bigint, text, varchar or uuid",
        )
    })?;
    if column.collation == Collation::Nondeterministic {
        return Err(bad(
            "has a collation that is not deterministic, so that equal keys may be of different shards",
            "use a deterministic one",
        ));
    }
    Ok(KeyColumn {
        name: name.to_owned(),
        index,
        key_type,
        maker: maker(column, key_type, function),
    })
}

/// A key that comes from a default must lead to the shard that it is made in: else it is made before the shard is chosen.
fn maker(column: &Column, key_type: KeyType, function: Function) -> Maker {
    let Some(default) = column.default.as_deref() else {
        return Maker::Nobody;
    };
    let by_shard = default == "next_id()" || default.ends_with(".next_id()");
    let counts = default.starts_with("nextval(") || default == "GENERATED BY DEFAULT AS IDENTITY";
    match (function, key_type) {
        (Function::Embedded, _) if by_shard => Maker::Shard,
        (Function::Modulo | Function::Hash, KeyType::Int) if by_shard || counts => Maker::Sequence,
        _ => Maker::Nobody,
    }
}

fn is_id_column(table: &catalog::Table, name: &str, faults: &mut Vec<String>) -> bool {
    let column = table.columns.iter().find(|c| c.name == name);
    let good = column.is_some_and(|c| c.type_oid == 20);
    if !good {
        let what = if column.is_some() {
            "is no bigint"
        } else {
            "does not exist"
        };
        faults.push(format!("[tables] {}: ids column {name} {what}", table.name));
    }
    good
}

pub(super) fn common_key_type(tables: &HashMap<String, Table>) -> Option<KeyType> {
    let mut types = tables.values().filter_map(|t| match &t.kind {
        TableKind::Sharded { key: Some(key), .. } => Some(key.key_type),
        _ => None,
    });
    let first = types.next()?;
    types.all(|t| t == first).then_some(first)
}

/// The default collation of all hosts' databases: byte by byte only if it is so on each.
pub(super) fn common_collation(snapshot: &Snapshot) -> Collation {
    let mut all = snapshot.databases.values();
    let bytes = |d: &catalog::Database| d.collation() == Collation::Bytes;
    match all.next() {
        Some(first) if bytes(first) && all.all(bytes) => Collation::Bytes,
        _ => Collation::Deterministic,
    }
}
