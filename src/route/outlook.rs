//! Where statements of a shape go before their values are known, for reports on many of them.

use crate::shardmap::ShardMap;
use crate::sql::hint::Hint;
use crate::sql::plan::ConstFrom;

use super::refusal::Refusal;
use super::rules::{Bound, Equals, KeyConst, Rule, Sharded};
use super::{Names, Route, Target, Values, decide, words};

/// Where a statement goes, in kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outlook {
    /// One shard.
    OneShard,
    /// More than one shard, not all.
    SeveralShards,
    /// All shards.
    AllShards,
    /// Catalog tables: the template shard stands for all.
    Catalog,
    /// No table, or reference tables.
    AnyHost,
    /// Unsharded tables of one host.
    Unsharded,
}

/// Where a bound statement goes. A key that is a parameter without a value counts as one shard, a list or array with one
/// as several. `values`: none are known, literals neither.
pub fn outlook(
    bound: &Bound,
    values: Option<&Values<'_>>,
    map: &ShardMap,
    hint: Option<&Hint>,
) -> Result<Outlook, Refusal> {
    const NONE: Values<'_> = Values {
        text: &[],
        holes: &[],
        params: None,
    };
    let lacking = match &bound.rule {
        Rule::Sharded(sharded) => {
            sharded.unbound.is_none() && values.is_none_or(|v| lacks(sharded, v))
        }
        _ => false,
    };
    match (&bound.rule, hint) {
        (Rule::Sharded(sharded), None) if lacking => without_values(sharded),
        (Rule::Sharded(_), Some(Hint::Key(_) | Hint::Shard(_))) if lacking => Ok(Outlook::OneShard),
        _ => {
            let route = decide(bound, values.unwrap_or(&NONE), map, hint)?.sendable()?;
            Ok(of_target(&route.target, map))
        }
    }
}

/// Some value that decides is a parameter that is not given.
fn lacks(sharded: &Sharded, values: &Values<'_>) -> bool {
    let missing = |key: &KeyConst| match key.at.from {
        ConstFrom::Param(n) => values.params.and_then(|p| p.get(n)).is_none(),
        _ => false,
    };
    let in_binding = |equals: &Equals| match equals {
        Equals::One(key) | Equals::Array(key) => missing(key),
        Equals::Many(keys) => keys.iter().any(missing),
    };
    sharded.bindings.iter().any(|b| in_binding(&b.equals))
        || sharded.checks.iter().any(|c| missing(&c.value))
}

fn without_values(sharded: &Sharded) -> Result<Outlook, Refusal> {
    let single = |equals: &Equals| matches!(equals, Equals::One(_));
    let one = sharded.bindings.iter().all(|b| single(&b.equals));
    match &sharded.one_shard_only {
        _ if sharded.fixed.is_some() => Ok(Outlook::OneShard),
        // Several keys must agree then, or the statement is refused.
        Some(_) if one => Ok(Outlook::OneShard),
        Some(refusal) => Err(refusal.clone()),
        None if one && sharded.bindings.len() == 1 => Ok(Outlook::OneShard),
        None => Ok(Outlook::SeveralShards),
    }
}

fn of_target(target: &Target, map: &ShardMap) -> Outlook {
    match target {
        Target::Shard(_) => Outlook::OneShard,
        Target::Shards(shards) if shards.len() == map.shards() as usize => Outlook::AllShards,
        Target::Shards(_) => Outlook::SeveralShards,
        Target::Host(_) => Outlook::Unsharded,
        Target::Any => Outlook::AnyHost,
        Target::Template => Outlook::Catalog,
    }
}

impl Route {
    /// This route, if its statement can be sent there: several shards can't be asked by one search_path.
    pub fn sendable(self) -> Result<Route, Refusal> {
        match (&self.target, self.names) {
            (Target::Shards(_), Names::SearchPath) => Err(words::path_of_several()),
            _ => Ok(self),
        }
    }
}
