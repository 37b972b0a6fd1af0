//! A plan bound to the catalog: what [`super::decide()`] needs for each execution, and no more.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::shardmap::{KeyType, ShardId};
use crate::sql::copy::Options;
use crate::sql::plan::{Const, InsertText};
use crate::sql::rewrite::Edit;

use super::copies::{Copies, Means, Reference};
use super::copy::CopyIn;
use super::ddl::Work;
use super::refusal::Refusal;
use super::spread::Spread;
use super::tables::Maker;

/// What must hold of the search_path of the server connection that runs the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Nothing: all names of the shard's tables are qualified by [`Bound::edits`].
    Qualified,
    /// It must be the shard's own: some name can't be qualified.
    SearchPath,
}

/// What a statement does to what its session has in one server process beyond the transaction: advisory locks, temporary
/// tables, cursors WITH HOLD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SessionState {
    /// Nothing.
    #[default]
    Same,
    /// It may take something away.
    Gives,
    /// It may add something.
    Takes,
    /// It makes, changes or drops a temporary table.
    Temporary,
}

/// A plan bound to the catalog.
#[derive(Clone, Debug)]
pub struct Bound {
    /// Where the schema of the shard goes into the text. To be applied if the target is a shard (or shards), each
    /// with its own schema; never for the other targets.
    pub edits: Vec<Edit>,
    /// It holds for this very text only, not for others of its shape.
    pub per_text: bool,
    /// It may change rows, sequences or locks.
    pub writes: bool,
    /// It is a SELECT that changes nothing and calls nothing that has an effect: run twice it does no more than once.
    pub repeatable: bool,
    /// Nothing in it could be read.
    pub unread: bool,
    /// Its answer has rows (SELECT, RETURNING, EXPLAIN, ...).
    pub returns_rows: bool,
    /// Of a COPY TO STDOUT: how its data is written.
    pub copy_out: Option<Box<Options>>,
    /// What it does to what its session has in one server process.
    pub session_state: SessionState,
    /// It works on temporary tables: its transaction can't be prepared (xact.c, `PrepareTransaction`).
    pub temporary: bool,
    pub(super) names: Names,
    pub(super) rule: Rule,
    /// Of a key in a hint.
    pub(super) key_type: Option<KeyType>,
}

impl Bound {
    /// The COPY whose data is cut into rows ([`super::Target::Data`]).
    pub fn copy_in(&self) -> Option<&Arc<CopyIn>> {
        match &self.rule {
            Rule::Data(copy) => Some(copy),
            Rule::Reference(reference) => match &reference.means {
                Means::Data(copy) => Some(copy),
                _ => None,
            },
            _ => None,
        }
    }

    /// What is written on every host ([`super::Target::EveryHost`]).
    pub fn copies(&self) -> Option<&Arc<Copies>> {
        match &self.rule {
            Rule::Reference(reference) => match &reference.means {
                Means::Statement(copies) => Some(copies),
                _ => None,
            },
            _ => None,
        }
    }

    /// What is to be run in several places, if that is what the statement is.
    pub fn work(&self) -> Option<&Work> {
        match &self.rule {
            Rule::Ddl(work) => Some(work),
            _ => None,
        }
    }
}

/// What decides.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    /// No table, or reference tables: any host.
    Any,
    /// Catalog tables: the template shard.
    Template,
    /// A temporary table is made, with nothing of the shards but perhaps the columns of their tables.
    Temporary,
    /// Unsharded tables, all of one host.
    Host { host: String, table: String },
    /// Reference tables that are written: every host.
    Reference(Box<Reference>),
    /// Sharded tables.
    Sharded(Box<Sharded>),
    /// The rows of a COPY, each by its own key.
    Data(Arc<CopyIn>),
    /// DDL that is run in several places.
    Ddl(Box<Work>),
    /// Not without a hint; `hintable`: with one it goes to the hint's shard.
    Refuse { refusal: Refusal, hintable: bool },
}

/// How the shard of a statement over sharded tables is found.
#[derive(Clone, Debug)]
pub(super) struct Sharded {
    /// What the tables' keys equal. Each must lead to the same shard, unless `spread` allows several.
    pub(super) bindings: SmallVec<[Binding; 1]>,
    /// Values that are written and must belong to the shard.
    pub(super) checks: Vec<Check>,
    /// The shard whose schema the text names itself.
    pub(super) fixed: Option<ShardId>,
    /// An unsharded table that takes part: its host and its name.
    pub(super) beside: Option<(String, String)>,
    /// Why it can't be asked of several shards; `None`: it can, and the rows one after the other are the answer.
    pub(super) one_shard_only: Option<Refusal>,
    /// How the answers of several shards become one, if more is needed than one after the other.
    pub(super) spread: Option<Box<Spread>>,
    /// Some table's key is not bound: to all shards if it may be spread, else this is why not.
    pub(super) unbound: Option<Refusal>,
    /// How far a write may reach.
    pub(super) reach: Reach,
}

/// Which shards a statement that writes may go to.
#[derive(Clone, Debug)]
pub(super) enum Reach {
    /// One.
    OneShard,
    /// Several, with the same text: every row that it reads or writes is of the shard that it is in.
    Each,
    /// Several, each with its rows.
    Rows(Box<Rows>),
}

/// The rows of an INSERT, and what decides where each of them goes.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    pub(super) table: String,
    pub(super) column: String,
    pub(super) carries: Carries,
    /// Of each row; `None`: it is to be made.
    pub(super) keys: Vec<Option<KeyConst>>,
    /// Who makes keys.
    pub(super) maker: Maker,
    /// Where in its row a key stands that is to be made.
    pub(super) made_at: MadeAt,
    pub(super) text: InsertText,
    pub(super) returning: bool,
}

impl Sharded {
    /// Nothing but a shard that the text names.
    pub(super) fn fixed(shard: ShardId) -> Sharded {
        let only = Refusal::new(
            super::Code::NotMergeable,
            "the statement names a shard's schema",
            "Leave the schema out.",
        );
        Sharded {
            bindings: SmallVec::new(),
            checks: Vec::new(),
            fixed: Some(shard),
            beside: None,
            one_shard_only: Some(only),
            spread: None,
            unbound: None,
            reach: Reach::OneShard,
        }
    }

    /// Adds a binding, unless another table is bound by the same value already.
    pub(super) fn push(&mut self, binding: Binding) {
        let same = |b: &Binding| {
            b.carries == binding.carries && b.equals == binding.equals && b.null == binding.null
        };
        if !self.bindings.iter().any(same) {
            self.bindings.push(binding);
        }
    }
}

/// Where keys that are made go into the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MadeAt {
    /// At the end of each row: the column is not named.
    End,
    /// In place of the DEFAULT in this column of the rows.
    Column(u32),
    /// In place of DEFAULT VALUES.
    Whole,
}

impl Rows {
    /// How many keys are to be made.
    pub(super) fn to_make(&self) -> usize {
        self.keys.iter().filter(|key| key.is_none()).count()
    }
}

/// What a table's key equals.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    pub(super) table: String,
    pub(super) column: String,
    pub(super) carries: Carries,
    pub(super) equals: Equals,
    pub(super) null: Null,
}

/// What a NULL for the key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Null {
    /// It is compared with, which finds no row: any shard gives the right answer.
    FindsNothing,
    /// It is the key of a new row.
    IsWritten,
}

/// What a column's value says of the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    /// It is the key.
    Key(KeyType),
    /// Its id bits are the shard.
    Id,
}

impl Carries {
    pub(super) fn key_type(self) -> KeyType {
        match self {
            Carries::Key(key_type) => key_type,
            Carries::Id => KeyType::Int,
        }
    }
}

/// What a column equals.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Equals {
    /// One value.
    One(KeyConst),
    /// One of some values.
    Many(Vec<KeyConst>),
    /// An element of an array.
    Array(KeyConst),
}

/// A literal or parameter that is a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct KeyConst {
    pub(super) at: Const,
    /// If it is a parameter: what is known of its type where Parse states none.
    pub(super) typed: Typed,
}

/// What is known of a parameter's type without being told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// Every use is with a column of the key's family, or under a cast of it: the server makes it of that family too.
    Family,
    /// The server may make it of another type, which is read otherwise in binary.
    Unsure,
}

/// A value that is written to a column that decides the shard.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) table: String,
    pub(super) column: String,
    pub(super) carries: Carries,
    pub(super) value: KeyConst,
    /// It changes rows that are there (UPDATE), rather than being part of a new one.
    pub(super) changes: bool,
    /// It is of this row of an INSERT alone.
    pub(super) row: Option<usize>,
}
