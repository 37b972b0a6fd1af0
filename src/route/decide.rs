//! stub
use super::*;
use crate::shardmap::ShardMap;
use crate::sql::hint::Hint;
/// stub
pub fn decide(_bound: &Bound, _values: &Values<'_>, _map: &ShardMap, _hint: Option<&Hint>) -> Result<Route, Refusal> { unreachable!() }
pub fn describe(_bound: &Bound, _map: &ShardMap, _any: crate::shardmap::ShardId) -> Result<Route, Refusal> { unreachable!() }
