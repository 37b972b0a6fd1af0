//! What each name is: the map's `[tables]` rules and the catalog put together.

mod read;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::catalog::{self, Collation, Column, Snapshot};
use crate::shardmap::{KeyType, SchemaPattern, ShardId, ShardMap, TableRule};
use crate::sql::plan::Plan;

use self::read::{
    common_collation, common_key_type, public_sequences, public_table, public_tables, public_types,
    rule_is_sharded, sharded_table, unlisted,
};
use super::views;

/// All names that a statement may use, and what they are. Made anew with every map and every catalog snapshot.
#[derive(Clone, Debug)]
pub struct Tables {
    by_name: HashMap<String, Table>,
    sequences: HashSet<String>,
    /// Types of the shards, those of tables' rows left out.
    types: HashSet<String>,
    /// Types in `public` of every host that could be read.
    public_types: HashSet<String>,
    /// Sequences in `public` of one host alone: name and host.
    public_sequences: HashMap<String, String>,
    functions: catalog::Functions,
    hidden_calls: bool,
    schema: SchemaPattern,
    shards: u32,
    key_type: Option<KeyType>,
    /// What `[tables]` says, for tables that are still to be made.
    rules: BTreeMap<String, TableRule>,
    key: String,
    /// The host of the template shard.
    a_host: String,
    /// See [`ShardMap::session_host`].
    session_host: String,
    sharded_others: BTreeMap<String, catalog::Other>,
    public_others: BTreeMap<String, BTreeMap<String, catalog::Other>>,
    collation: Collation,
    nondeterministic: bool,
}

/// A table, view or the like.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Where its rows are.
    pub kind: TableKind,
    /// Its columns in order. For how they are ordered ask [`Tables::collation`].
    pub columns: Vec<Column>,
    /// It is a view: what it reads can't be seen.
    pub view: bool,
    /// It is a temporary table of the session: it hides those of its name.
    pub temporary: bool,
    /// It is sharded and has a key column, but this is why that can't be one.
    pub(super) bad_key: Option<String>,
    /// It is a view of the shards that is no table's equal: what it reads.
    pub(super) reads: Option<Arc<Plan>>,
}

impl Table {
    /// The columns that a COPY without a list is of.
    pub(super) fn copied_columns(&self) -> impl Iterator<Item = &str> {
        let given = self.columns.iter().filter(|column| !column.generated);
        given.map(|column| column.name.as_str())
    }
}

/// Where a table's rows are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// Split by key.
    Sharded {
        /// The column; `None`: it has none that can be used, see the faults of [`Tables::new`].
        key: Option<KeyColumn>,
        /// Columns whose value carries the shard.
        ids: Vec<String>,
    },
    /// The same on every host.
    Reference,
    /// On one host.
    Unsharded {
        /// The host's name.
        host: String,
    },
    /// In `public`, but nothing says what it is.
    Unlisted,
}

/// The column that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its name.
    pub name: String,
    /// Its place among the columns, from 0.
    pub index: usize,
    /// The family of its type.
    pub key_type: KeyType,
    /// Who makes the key of a row that is inserted without one.
    pub maker: Maker,
}

/// Who makes a key that an INSERT does not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// Nobody.
    Nobody,
    /// The column's default, in whatever shard the row is put: an id that carries the shard.
    Shard,
    /// A sequence for all shards together.
    Sequence,
}

impl Tables {
    /// Puts map and catalog together. The faults are in words for the log; a table with a fault is refused when it is
    /// used, the others work.
    pub fn new(map: &ShardMap, snapshot: &Snapshot) -> (Tables, Vec<String>) {
        let mut faults = Vec::new();
        let mut by_name = HashMap::new();
        for (name, hosts) in public_tables(snapshot) {
            let table = public_table(map, name, &hosts, &mut faults);
            by_name.insert(name.to_owned(), table);
        }
        for (name, table) in &snapshot.sharded {
            if by_name.contains_key(name.as_str()) {
                faults.push(format!(
                    "table {name} stands both in the shards and in public: statements that name it are refused until one of the two is dropped or renamed"
                ));
                by_name.insert(name.clone(), unlisted(table));
                continue;
            }
            let table = sharded_table(map, table, &mut faults);
            by_name.insert(name.clone(), table);
        }
        for (name, rule) in &map.tables {
            if rule_is_sharded(rule) && name != "*" && !snapshot.sharded.contains_key(name) {
                faults.push(format!(
                    "[tables] {name}: no such table in the template shard {}",
                    map.keyspace.schema.name(map.template())
                ));
            }
        }
        let mut tables = Tables {
            key_type: common_key_type(&by_name),
            collation: common_collation(snapshot),
            nondeterministic: snapshot.databases.values().any(|d| d.nondeterministic),
            hidden_calls: snapshot.databases.is_empty()
                || snapshot.databases.values().any(|d| d.hidden_calls),
            by_name,
            sequences: snapshot.sharded_sequences.clone(),
            types: snapshot.sharded_types.keys().cloned().collect(),
            public_types: public_types(snapshot),
            public_sequences: public_sequences(map, snapshot),
            functions: snapshot.functions.clone(),
            schema: map.keyspace.schema.clone(),
            shards: map.shards(),
            rules: map.tables.clone(),
            key: map.keyspace.key.clone(),
            a_host: map.host(map.owner(map.template())).name.clone(),
            session_host: map.host(map.session_host()).name.clone(),
            sharded_others: snapshot.sharded_others.clone(),
            public_others: snapshot.public_others.clone(),
        };
        views::settle(&mut tables);
        (tables, faults)
    }

    /// The table, view or the like of this name.
    pub fn get(&self, name: &str) -> Option<&Table> {
        self.by_name.get(name)
    }

    /// These with the temporary tables of a session. They are on [`ShardMap::session_host`], and hide others of the same name.
    pub fn with_temporary<'t>(
        &self,
        temporary: impl IntoIterator<Item = &'t catalog::Table>,
    ) -> Tables {
        let mut tables = self.clone();
        for table in temporary {
            let kind = TableKind::Unsharded {
                host: self.session_host.clone(),
            };
            let own = Table {
                kind,
                temporary: true,
                ..unlisted(table)
            };
            tables.sequences.remove(&own.name);
            tables.by_name.insert(own.name.clone(), own);
        }
        tables
    }

    /// A view has turned out to be as good as a sharded table.
    pub(super) fn settle(&mut self, view: &str, kind: TableKind) {
        if let Some(table) = self.by_name.get_mut(view) {
            table.kind = kind;
            table.view = false;
            table.bad_key = None;
            table.reads = None;
        }
    }

    /// Every table, view or the like, sorted by name.
    pub fn list(&self) -> Vec<&Table> {
        let mut list: Vec<_> = self.by_name.values().collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// A table, sequence or function of the app has this name.
    pub fn knows(&self, name: &str) -> bool {
        self.knows_relation(name)
            || self.functions.sharded.contains(name)
            || self.functions.public.contains(name)
    }

    pub(super) fn knows_relation(&self, name: &str) -> bool {
        self.by_name.contains_key(name) || self.sequences.contains(name)
    }

    /// A sharded table or sequence has this name.
    pub(super) fn is_sharded(&self, name: &str) -> bool {
        self.sequences.contains(name)
            || self
                .get(name)
                .is_some_and(|t| matches!(t.kind, TableKind::Sharded { .. }))
    }

    /// What `[tables]` says of a name.
    pub(super) fn rule(&self, name: &str) -> Option<&TableRule> {
        self.rules.get(name)
    }

    /// The column by which a table of this name is split, or would be.
    pub(super) fn key_of(&self, name: &str) -> &str {
        let rule = self.rules.get(name);
        rule.and_then(|r| r.key.as_deref()).unwrap_or(&self.key)
    }

    /// A temporary table of the session has this name.
    pub(super) fn is_temporary(&self, name: &str) -> bool {
        self.get(name).is_some_and(|table| table.temporary)
    }

    pub(super) fn session_host(&self) -> &str {
        &self.session_host
    }

    pub(super) fn a_host(&self) -> &str {
        &self.a_host
    }

    /// An index or sequence of the shards has this name.
    pub(super) fn other_in_shards(&self, name: &str) -> bool {
        self.sharded_others.contains_key(name)
    }

    /// The index or sequence of this name in `public`, by host.
    pub(super) fn others_in_public(&self, name: &str) -> Vec<(&str, &catalog::Other)> {
        let hosts = self.public_others.iter();
        hosts
            .filter_map(|(host, others)| Some((host.as_str(), others.get(name)?)))
            .collect()
    }

    /// A type in the shards' schemas has this name: one made by itself, or that of a table's rows.
    pub(super) fn is_sharded_type(&self, name: &str) -> bool {
        let name = name.strip_prefix('_').unwrap_or(name);
        self.types.contains(name)
            || self
                .get(name)
                .is_some_and(|t| matches!(t.kind, TableKind::Sharded { .. }))
    }

    /// A type in `public` of all hosts has this name: one made by itself, or that of a table's rows.
    pub(super) fn is_public_type(&self, name: &str) -> bool {
        self.public_types.contains(name)
            || self
                .get(name)
                .is_some_and(|t| t.kind == TableKind::Reference)
    }

    /// The host that has the unsharded table, or alone has the sequence, of a name; and the name.
    pub(super) fn host_of_object(&self, parts: &[String]) -> Option<(&str, &str)> {
        let name = match parts {
            [name] => name,
            [schema, name] if schema == "public" => name,
            _ => return None,
        };
        match self.get(name) {
            Some(table) => match &table.kind {
                TableKind::Unsharded { host } => Some((host, &table.name)),
                _ => None,
            },
            None if self.sequences.contains(name) => None,
            None => self
                .public_sequences
                .get_key_value(name)
                .map(|(name, host)| (host.as_str(), name.as_str())),
        }
    }

    /// What a SELECT calls may not be seen in it; see [`catalog::Database::hidden_calls`].
    pub(super) fn has_hidden_calls(&self) -> bool {
        self.hidden_calls
    }

    pub(super) fn functions(&self) -> &catalog::Functions {
        &self.functions
    }

    /// How a column's values are ordered; never [`Collation::Database`]: what that means on these hosts is said instead.
    pub fn collation(&self, column: &Column) -> Collation {
        match column.collation {
            Collation::Database => self.collation,
            own => own,
        }
    }

    /// Texts that say nothing else are ordered by their bytes, on all hosts.
    pub fn texts_by_bytes(&self) -> bool {
        self.collation == Collation::Bytes
    }

    /// Some collation of the databases takes values of different bytes for equal.
    pub(super) fn nondeterministic(&self) -> bool {
        self.nondeterministic
    }

    /// The family of all keys, if they agree.
    pub(super) fn key_type(&self) -> Option<KeyType> {
        self.key_type
    }

    /// The shard whose schema has this name.
    pub(super) fn shard_of_schema(&self, schema: &str) -> Option<ShardId> {
        let runs = schema
            .split(|c: char| !c.is_ascii_digit())
            .filter(|run| !run.is_empty());
        runs.filter_map(|run| run.parse().ok().map(ShardId))
            .find(|shard| shard.0 < self.shards && self.schema.name(*shard) == schema)
    }
}
