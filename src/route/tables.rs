//! What each name is: the map's `[tables]` rules and the catalog put together.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::catalog::{self, Collation, Column, Snapshot};
use crate::shardmap::{Function, KeyType, Kind, SchemaPattern, ShardId, ShardMap, TableRule};
use crate::sql::plan::Plan;

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

/// The family of a key column's type. `char(n)` is left out: its trailing blanks come and go.
fn key_type(oid: u32) -> Option<KeyType> {
    match oid {
        20 | 21 | 23 => Some(KeyType::Int),
        25 | 1043 => Some(KeyType::Text),
        2950 => Some(KeyType::Uuid),
        _ => None,
    }
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

/// The tables of `public` by name, with the hosts that have them.
fn public_tables(snapshot: &Snapshot) -> BTreeMap<&str, Vec<(&str, &catalog::Table)>> {
    let mut tables: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for (host, of_host) in &snapshot.public {
        for (name, table) in of_host {
            tables.entry(name).or_default().push((host.as_str(), table));
        }
    }
    tables
}

fn public_types(snapshot: &Snapshot) -> HashSet<String> {
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
fn public_sequences(map: &ShardMap, snapshot: &Snapshot) -> HashMap<String, String> {
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

fn rule_is_sharded(rule: &TableRule) -> bool {
    rule.key.is_some() || !rule.ids.is_empty() || rule.kind == Some(Kind::Sharded)
}

fn is_view(table: &catalog::Table) -> bool {
    matches!(table.relkind, 'v' | 'm' | 'f')
}

fn unlisted(table: &catalog::Table) -> Table {
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

fn public_table(
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

fn sharded_table(map: &ShardMap, table: &catalog::Table, faults: &mut Vec<String>) -> Table {
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

fn common_key_type(tables: &HashMap<String, Table>) -> Option<KeyType> {
    let mut types = tables.values().filter_map(|t| match &t.kind {
        TableKind::Sharded { key: Some(key), .. } => Some(key.key_type),
        _ => None,
    });
    let first = types.next()?;
    types.all(|t| t == first).then_some(first)
}

/// The default collation of all hosts' databases: byte by byte only if it is so on each.
fn common_collation(snapshot: &Snapshot) -> Collation {
    let mut all = snapshot.databases.values();
    let bytes = |d: &catalog::Database| d.collation() == Collation::Bytes;
    match all.next() {
        Some(first) if bytes(first) && all.all(bytes) => Collation::Bytes,
        _ => Collation::Deterministic,
    }
}
