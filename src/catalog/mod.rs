//! What Postgres' catalog says of the app's tables: a snapshot, read from the template shard and from `public` of each host.

mod read;

pub use read::{HostSource, Row, SchemaPart, questions, read};

use std::collections::{BTreeMap, HashMap, HashSet};

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
    /// How its values are ordered and compared.
    pub collation: Collation,
}

/// How the values of a column, or of a whole database, are ordered and compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Collation {
    /// The type has none: numbers, times, uuid ...
    #[default]
    None,
    /// The database's own, which may differ from host to host: see [`Database`].
    Database,
    /// `C`, `POSIX` and the like: byte by byte.
    Bytes,
    /// Another one under which only equal bytes are equal.
    Deterministic,
    /// One under which values of different bytes may be equal.
    Nondeterministic,
}

/// What a host's database says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Database {
    /// `pg_database.datcollate`.
    pub collate: String,
    /// `pg_database.datlocprovider`: c (the C library), i (ICU), b (built in).
    pub provider: char,
    /// The ICU or built-in locale, where that is the provider.
    pub locale: Option<String>,
    /// Its encoding, as `pg_encoding_to_char` names it.
    pub encoding: String,
    /// It has a collation that is not deterministic ([`Collation::Nondeterministic`]).
    pub nondeterministic: bool,
}

impl Database {
    /// Whether its default collation is byte by byte ([`Collation::Bytes`]) or another ([`Collation::Deterministic`]).
    pub fn collation(&self) -> Collation {
        match self.provider {
            'c' if matches!(self.collate.as_str(), "C" | "POSIX") => Collation::Bytes,
            'b' => Collation::Bytes,
            _ => Collation::Deterministic,
        }
    }
}

/// A type of the app: those of tables' rows and of arrays are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserType {
    /// Its labels in order.
    Enum(Vec<String>),
    /// CREATE TYPE ... AS (...).
    Composite,
    /// The OID of the type that it stands on, which is no domain.
    Domain(u32),
    /// Ranges, and types that an extension brings.
    Other,
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
    /// Of a view: the query that it is, with the names of its own schema and of `public` unqualified.
    pub definition: Option<String>,
}

/// An index or a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// It is a sequence.
    pub sequence: bool,
    /// The table that it belongs to.
    pub table: Option<String>,
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
    /// Indexes and sequences in the template shard's schema, by name.
    pub sharded_others: BTreeMap<String, Other>,
    /// Indexes and sequences in `public`, by host name.
    pub public_others: BTreeMap<String, BTreeMap<String, Other>>,
    /// Functions in `public` that no extension owns, by host name.
    pub public_functions: BTreeMap<String, HashSet<String>>,
    /// Sequences in `public`, by host name.
    pub public_sequences: BTreeMap<String, HashSet<String>>,
    /// Functions, from the template shard's host.
    pub functions: Functions,
    /// Types in the template shard's schema, by name.
    pub sharded_types: HashMap<String, UserType>,
    /// Types in `public`, by host name, then by name.
    pub public_types: BTreeMap<String, HashMap<String, UserType>>,
    /// What each host's database says of itself, by host name.
    pub databases: BTreeMap<String, Database>,
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
