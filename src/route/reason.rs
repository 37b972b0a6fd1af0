//! stub
use super::*;
use crate::shardmap::ShardMap;
use crate::sql::hint::Hint;
/// stub
pub fn why(_bound: &Bound, _values: &Values<'_>, _map: &ShardMap, _hint: Option<&Hint>) -> String { unreachable!() }
