//! What a statement about tables, indexes, views, functions and the like says: plain data, made by [`super::parse`], used
//! by `route`; and the few texts that follow from it.

use super::plan::{SchemaRef, TableRef};

/// A statement of DDL, or one that is about whole tables (TRUNCATE, VACUUM, LOCK ...).
#[derive(Clone, Debug, PartialEq)]
pub struct Ddl {
    /// What it does.
    pub act: Act,
    /// To what kind of object.
    pub kind: ObjectKind,
    /// The objects that it is about, as the text names them; of a trigger, policy, rule, new index: the table.
    pub objects: Vec<TableRef>,
    /// Tables that must be where the object is.
    pub refers: Vec<(Tie, TableRef)>,
    /// The columns that it makes, with CREATE TABLE and ADD COLUMN.
    pub columns: Vec<ColumnDdl>,
    /// What ALTER TABLE does to columns and names that are there.
    pub changes: Vec<Change>,
    /// `public.name`, wherever it stands.
    pub schemas: Vec<SchemaRef>,
    /// How it may be run.
    pub run: Run,
    /// It says IF EXISTS.
    pub if_exists: bool,
    /// The name of the index that it makes.
    pub index: Option<String>,
}

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// CREATE.
    Create,
    /// CREATE TABLE ... AS, whose rows come from a query.
    CreateAs,
    /// ALTER.
    Alter,
    /// DROP.
    Drop,
    /// COMMENT, GRANT, REVOKE.
    Say,
    /// TRUNCATE.
    Truncate,
    /// VACUUM, ANALYZE, CLUSTER, REINDEX, REFRESH MATERIALIZED VIEW.
    Maintain,
    /// LOCK TABLE.
    Lock,
}

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// A table, or what belongs to one (column, trigger, policy, rule).
    Table,
    /// A view or materialized view.
    View,
    /// An index that is there.
    Index,
    /// A sequence.
    Sequence,
    /// A function, procedure or aggregate.
    Routine,
    /// A type, domain, extension, collation: once on every host.
    Type,
}

/// How a table is tied to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// REFERENCES.
    References,
    /// PARTITION OF, INHERITS, LIKE, ATTACH PARTITION, OWNED BY: where the one is, the other is.
    Same,
}

/// A column that a statement makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDdl {
    /// Its name.
    pub name: String,
    /// The first word of its type, in lower case if it is not quoted.
    pub type_name: String,
    /// It counts by itself: serial, or GENERATED ... AS IDENTITY.
    pub counts: bool,
}

/// What ALTER TABLE does to what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// DROP COLUMN.
    Drop(String),
    /// RENAME COLUMN.
    Rename(String, String),
    /// ALTER COLUMN ... TYPE, with the first word of the type.
    Type(String, String),
    /// RENAME TO.
    RenameTo(String),
}

/// How a statement may be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// In one transaction with others.
    Together,
    /// In a transaction if there is one, else better each by itself: its locks would be held for long.
    Each,
    /// Never inside a transaction.
    Alone,
}

impl Ddl {
    /// Names, columns or types may be others afterwards.
    pub fn changes_catalog(&self) -> bool {
        matches!(
            self.act,
            Act::Create | Act::CreateAs | Act::Alter | Act::Drop
        )
    }
}

/// Makes a column that takes its values from a sequence take them from the shard's `next_id()`. The sequence itself stays.
/// Both names as they stand in a statement.
pub fn take_next_id(table: &str, column: &str) -> String {
    format!(
        "ALTER TABLE {table} ALTER COLUMN {column} DROP IDENTITY IF EXISTS;\nALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT next_id()"
    )
}

/// A name as it can stand in any statement.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
