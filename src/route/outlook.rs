//! Where statements of a shape go before their values are known, for reports on many of them.

use crate::shardmap::ShardMap;
use crate::sql::hint::Hint;
use crate::sql::plan::ConstFrom;

use super::refusal::Refusal;
use super::rules::{Bound, Equals, KeyConst, Reach, Rule, Sharded};
use super::{Format, Names, Param, Params, Route, Target, Values, decide, recipe, words};

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
    /// Reference tables that are written.
    EveryHost,
    /// DDL: wherever its tables are.
    Everywhere,
}

/// Where a bound statement goes. A key that is a parameter without a value counts as one shard, a list or array with one
/// as several. `known`: the literals are what they say; else no value is taken from them.
pub fn outlook(
    bound: &Bound,
    values: &Values<'_>,
    known: bool,
    map: &ShardMap,
    hint: Option<&Hint>,
) -> Result<Outlook, Refusal> {
    let params = Ones(values.params);
    let full = Values {
        params: Some(&params),
        ..*values
    };
    if let Rule::Sharded(sharded) = &bound.rule
        && sharded.unbound.is_none()
        && (!known || lacks(sharded, values))
    {
        match hint {
            None => return without_values(sharded, &full),
            Some(Hint::Key(_) | Hint::Shard(_)) => return Ok(Outlook::OneShard),
            Some(Hint::All) => {}
        }
    }
    let route = decide(bound, &full, map, hint)?.sendable()?;
    if let (Rule::Reference(_), Target::Data(None)) = (&bound.rule, &route.target) {
        return Ok(Outlook::EveryHost);
    }
    Ok(of_target(&route.target, map))
}

/// Gives each parameter without a value a 1, as for LIMIT.
struct Ones<'a>(Option<&'a dyn Params>);

impl Params for Ones<'_> {
    fn get(&self, n: u16) -> Option<Param<'_>> {
        let one = Param {
            format: Format::Text,
            type_oid: 0,
            value: Some(b"1"),
        };
        self.0.and_then(|params| params.get(n)).or(Some(one))
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

fn without_values(sharded: &Sharded, values: &Values<'_>) -> Result<Outlook, Refusal> {
    let single = |equals: &Equals| matches!(equals, Equals::One(_));
    let one = sharded.bindings.iter().all(|b| single(&b.equals));
    match &sharded.one_shard_only {
        _ if sharded.fixed.is_some() => Ok(Outlook::OneShard),
        // Several keys must agree then, or the statement is refused.
        Some(_) if one => Ok(Outlook::OneShard),
        Some(_) if !matches!(sharded.reach, Reach::OneShard) => Ok(Outlook::SeveralShards),
        Some(refusal) => Err(refusal.clone()),
        None if one && sharded.bindings.len() == 1 => Ok(Outlook::OneShard),
        None => {
            if let Some(spread) = &sharded.spread {
                recipe::recipe(spread, values)?;
            }
            Ok(Outlook::SeveralShards)
        }
    }
}

fn of_target(target: &Target, map: &ShardMap) -> Outlook {
    match target {
        Target::Shard(_) | Target::Data(Some(_)) => Outlook::OneShard,
        Target::Shards(shards) if shards.len() == map.shards() as usize => Outlook::AllShards,
        // How many shards the data of a COPY is of is not known before it comes.
        Target::Data(None) => Outlook::SeveralShards,
        Target::Each(shards) if shards.len() == map.shards() as usize => Outlook::AllShards,
        Target::Shards(_) | Target::Each(_) => Outlook::SeveralShards,
        Target::Rows(split) if split.parts.len() == 1 => Outlook::OneShard,
        Target::Rows(_) => Outlook::SeveralShards,
        // A row is of one shard; more of them take turns.
        Target::Make(make) if make.keys == 1 => Outlook::OneShard,
        Target::Make(_) => Outlook::SeveralShards,
        Target::Host(_) => Outlook::Unsharded,
        Target::Any => Outlook::AnyHost,
        Target::Template => Outlook::Catalog,
        Target::Everywhere => Outlook::Everywhere,
        Target::EveryHost => Outlook::EveryHost,
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
