//! `presplit explain`: where statements would go, without a proxy, and with `--schema` without a database.

mod csv;
mod entries;
mod log;
mod print;
mod report;
mod script;

use crate::catalog::{self, Collation, Column, HostSource, Snapshot, Table};
use crate::ops::connect;
use crate::route::{self, Format, Param, Params, Tables};
use crate::shardmap::{HostId, Kind, ShardMap};
use crate::sql::parse::{self, ddl};
use crate::sql::shape::Shape;

pub use entries::{Entry, Format as FileFormat, read};
pub use report::{Count, Offender, Outcome, Report, report};

/// What the parser may spend on one statement.
const LIMITS: parse::Limits = parse::Limits {
    text: 1 << 20,
    tokens: 100_000,
    depth: 100,
};

/// Parameter values as text, `$1` first.
pub struct Given(pub Vec<String>);

impl Params for Given {
    fn get(&self, n: u16) -> Option<Param<'_>> {
        let value = self.0.get(usize::from(n).checked_sub(1)?)?;
        Some(Param {
            format: Format::Text,
            type_oid: 0,
            value: Some(value.as_bytes()),
        })
    }
}

/// The tables of a file of DDL, as provisioning would place them.
pub fn tables_of_file(map: &ShardMap, sql: &str) -> (Tables, Vec<String>) {
    let mut shape = Shape::default();
    let _ = shape.scan(sql.as_bytes());
    let mut snapshot = Snapshot::default();
    for piece in shape.pieces(sql.as_bytes()) {
        let Some(table) = sql.get(piece).and_then(ddl::created_table) else {
            continue;
        };
        let rule = map.tables.get(&table.name);
        let kind = rule.and_then(|r| r.kind);
        let hosts: Vec<&str> = match (kind, rule.and_then(|r| r.host.as_deref())) {
            (Some(Kind::Unsharded), Some(host)) => vec![host],
            (Some(Kind::Reference), _) => map.hosts.iter().map(|h| h.name.as_str()).collect(),
            _ => Vec::new(),
        };
        let made = Table {
            name: table.name.clone(),
            relkind: 'r',
            definition: None,
            columns: table
                .columns
                .iter()
                .map(|(name, kind, has_default)| Column {
                    name: name.clone(),
                    type_oid: oid(kind),
                    has_default: *has_default,
                    not_null: false,
                    generated: false,
                    default: has_default.then(|| "next_id()".to_owned()),
                    collation: match oid(kind) {
                        25 | 1042 | 1043 => Collation::Database,
                        _ => Collation::None,
                    },
                })
                .collect(),
        };
        if hosts.is_empty() {
            snapshot.sharded.insert(table.name, made);
            continue;
        }
        for host in hosts {
            snapshot
                .public
                .entry(host.to_owned())
                .or_default()
                .insert(table.name.clone(), made.clone());
        }
    }
    snapshot.functions = catalog::Functions::postgres();
    Tables::new(map, &snapshot)
}

/// The tables as they stand on the hosts.
pub async fn tables_of_hosts(map: &ShardMap) -> (Tables, Vec<String>) {
    let sources: Vec<_> = map
        .hosts
        .iter()
        .map(|host| HostSource {
            name: host.name.clone(),
            config: connect::config(&host.url, "presplit explain"),
        })
        .collect();
    let named = |shard| {
        (
            map.host(map.owner(shard)).name.clone(),
            map.keyspace.schema.name(shard),
        )
    };
    let lowest = (0..map.hosts.len()).filter_map(|h| map.shards_of(HostId(h as u16)).next());
    let templates: Vec<_> = std::iter::once(map.template())
        .chain(lowest)
        .map(named)
        .collect();
    let (snapshot, mut faults) = catalog::read(&sources, &templates).await;
    let (tables, more) = Tables::new(map, &snapshot);
    faults.extend(more);
    (tables, faults)
}

/// Explains one statement in lines; `false`: it would be refused.
pub fn explain(
    map: &ShardMap,
    tables: &Tables,
    sql: &str,
    params: Vec<String>,
) -> (Vec<String>, bool) {
    let given = Given(params);
    let params: Option<&dyn Params> = if given.0.is_empty() {
        None
    } else {
        Some(&given)
    };
    match route::explain(sql, tables, map, &LIMITS, params, None) {
        Ok(explanation) => (explanation.lines(map), true),
        Err(refusal) => (refusal.lines(), false),
    }
}

/// The OID of a type as DDL writes it; of those that matter for keys (src/include/catalog/pg_type.dat). 0: any other.
fn oid(kind: &str) -> u32 {
    let bare = kind.split('(').next().unwrap_or(kind).trim();
    match bare {
        "bigint" | "int8" | "bigserial" | "serial8" => 20,
        "integer" | "int" | "int4" | "serial" | "serial4" => 23,
        "smallint" | "int2" | "smallserial" | "serial2" => 21,
        "numeric" | "decimal" => 1700,
        "text" => 25,
        "character varying" | "varchar" => 1043,
        "uuid" => 2950,
        "char" | "character" => 1042,
        _ => 0,
    }
}
