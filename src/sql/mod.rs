//! SQL text: its lexical shape, what it says (a [`plan::Plan`]), and how a schema is written into it.
//! Knows nothing of shards, maps or connections.

pub mod cache;
pub mod control;
pub mod copy;
pub mod ddl;
pub mod hint;
pub mod literal;
#[cfg(test)]
pub(crate) mod mutate;
pub mod parse;
pub mod plan;
#[cfg(test)]
mod properties;
pub mod rewrite;
pub mod select;
pub mod shape;
pub mod token;
