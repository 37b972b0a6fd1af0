//! What Postgres' catalog says of the app's tables: a snapshot, read from the template shard and from `public` of each host.

mod read;

pub use read::{HostSource, read};

use std::collections::{BTreeMap, HashSet};

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name as stored in `pg_attribute` (no quotes).
    pub name: String,
    /// Type OID (`pg_type.oid`), domains resolved to their base type.
    pub type_oid: u32,
    /// The column has a default, is an identity or is generated.
    pub has_default: bool,
    /// Its value is worked out from other columns and never given.
    pub generated: bool,
}

/// A table, view, materialized view, partitioned table or foreign table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Name as stored in `pg_class` (no quotes).
    pub name: String,
    /// `pg_class.relkind`: r, p, v, m, f.
    pub relkind: char,
    /// In `attnum` order, dropped ones left out.
    pub columns: Vec<Column>,
}

/// The functions that a statement may call by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Functions {
    /// Names in `pg_catalog`, and those that an extension owns in any schema: they touch no table of the app.
    pub builtin: HashSet<String>,
    /// Names in the template shard's schema.
    pub sharded: HashSet<String>,
    /// Names in `public` that no extension owns.
    pub public: HashSet<String>,
}

/// All that is read from the hosts at one moment. Immutable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Tables (of every relkind) in the template shard's schema, by name.
    pub sharded: BTreeMap<String, Table>,
    /// Sequences in the template shard's schema.
    pub sharded_sequences: HashSet<String>,
    /// Tables in `public`, by host name, then by table name. A host that could not be read is absent.
    pub public: BTreeMap<String, BTreeMap<String, Table>>,
    /// Functions, from the template shard's host.
    pub functions: Functions,
}

impl Functions {
    /// Those that Postgres 15 has in `pg_catalog`, for when no host can be asked.
    pub fn postgres() -> Functions {
        let names = include_str!("functions.txt").split_whitespace();
        Functions {
            builtin: names.map(str::to_owned).collect(),
            ..Functions::default()
        }
    }
}
