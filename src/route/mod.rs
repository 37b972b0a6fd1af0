//! Where to send a statement: pure functions from (plan, values, map) to a route or a refusal.
//!
//! [`bind`] looks a plan's names up in the catalog and finds, for each sharded table, what its key equals. It is done
//! once per shape and catalog. [`decide`] reads the key's value and asks the map; it is done for every execution.

use smallvec::SmallVec;

use crate::shardmap::{HostId, ShardId};
use crate::sql::shape::Hole;

mod array;
mod bind;
mod columns;
mod copies;
mod copy;
mod ddl;
mod ddl_words;
mod decide;
mod explain;
mod families;
mod functions;
mod gather;
mod keys;
mod known;
mod local;
mod needs;
mod order;
mod outlook;
mod reach;
mod reason;
mod recipe;
mod refusal;
mod rules;
mod split;
mod spread;
mod tables;
mod ties;
mod utility;
mod value;
mod views;
mod words;

#[cfg(test)]
mod tests;

pub use bind::{bind, bind_unreadable};
pub use copies::{Copies, How};
pub use copy::{CopyIn, RowFault, RowReader};
pub use ddl::{After, Place, Work};
pub use decide::{anywhere, decide, made_by_shard, recipe, with_keys};
pub use explain::{Explanation, explain};
pub use order::ByteOrder;
pub use outlook::{Outlook, outlook};
pub use reason::why;
pub use recipe::{Final, Piece, Recipe, SortKey, Sorted, TextKey, write_part};
pub use refusal::{Code, Refusal};
pub use rules::{Bound, Names, SessionState};
pub use split::{Part, Split};
pub use tables::{KeyColumn, Maker, Table, TableKind, Tables};

/// The values of one execution.
#[derive(Clone, Copy)]
pub struct Values<'a> {
    /// The statement's text.
    pub text: &'a [u8],
    /// Its holes.
    pub holes: &'a [Hole],
    /// The values of its parameters; `None` for the simple protocol.
    pub params: Option<&'a dyn Params>,
}

/// The parameters of a Bind message.
pub trait Params: Sync {
    /// `$n`, counted from 1. `None`: there is no such parameter.
    fn get(&self, n: u16) -> Option<Param<'_>>;
}

/// How a parameter's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As the type's input function reads it.
    Text,
    /// As the type's receive function reads it.
    Binary,
}

/// One parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// How the value is written.
    pub format: Format,
    /// The type that Parse stated for it; 0: none.
    pub type_oid: u32,
    /// The value; `None`: NULL.
    pub value: Option<&'a [u8]>,
}

/// Where a statement goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One shard.
    Shard(ShardId),
    /// Several shards, lowest first: their rows one after the other are the answer.
    Shards(SmallVec<[ShardId; 8]>),
    /// The shard of each row of the data that the client sends. `.0`: all of them must be of this one.
    Data(Option<ShardId>),
    /// Several shards, lowest first, that are written to: each by the same text.
    Each(SmallVec<[ShardId; 8]>),
    /// The rows of an INSERT, each to its shard.
    Rows(Box<Split>),
    /// Every host, lowest first: the reference table of [`Bound::copies`] is written.
    EveryHost,
    /// Rows whose keys are to be made first.
    Make(Box<Make>),
    /// A host: its unsharded tables, in `public`.
    Host(HostId),
    /// Any host: no table, or reference tables that are read.
    Any,
    /// The template shard, with its search_path: catalog queries.
    Template,
    /// DDL: all the places of [`Bound::work`].
    Everywhere,
}

/// The keys that an INSERT leaves to the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Make {
    /// The table.
    pub table: String,
    /// How many.
    pub keys: usize,
    /// By whom.
    pub maker: Maker,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub target: Target,
    /// What must hold of the connection's search_path.
    pub names: Names,
}
