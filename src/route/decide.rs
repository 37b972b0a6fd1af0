//! Where one execution goes. The usual case, one key in one place, reads one value and asks the map once, and
//! allocates nothing.

use smallvec::SmallVec;

use crate::shardmap::{HostId, KeyType, ShardId, ShardMap};
use crate::sql::hint::Hint;

use super::copies::{Means, Reference};
use super::recipe::{self, Recipe};
use super::refusal::Refusal;
use super::rules::{Binding, Bound, Carries, Check, Equals, Names, Null, Reach, Rule, Sharded};
use super::tables::Maker;
use super::{Make, Route, Target, Values, split, value, words};

type Shards = SmallVec<[ShardId; 8]>;

/// Where a bound statement goes with these values under this map. Pure: the same arguments give the same route.
pub fn decide(
    bound: &Bound,
    values: &Values<'_>,
    map: &ShardMap,
    hint: Option<&Hint>,
) -> Result<Route, Refusal> {
    match hint {
        None => without_hint(bound, values, map),
        Some(Hint::Shard(shard)) if *shard >= map.shards() => {
            Err(words::hint_shard(*shard, map.shards()))
        }
        Some(Hint::Shard(shard)) => with_shard(bound, values, map, ShardId(*shard)),
        Some(Hint::Key(key)) => {
            let key_type = bound.key_type.unwrap_or(KeyType::Int);
            let shard = value::shard_of_text(key, key_type, map);
            let shard = shard.map_err(|fault| words::hint_key(key, &format!("{fault:?}")))?;
            with_shard(bound, values, map, shard)
        }
        Some(Hint::All) => all(bound, values, map),
    }
}

/// How the answers of several shards, to which a statement goes with these values, become one.
///
/// # Errors
/// They can't.
pub fn recipe(bound: &Bound, values: &Values<'_>) -> Result<Recipe, Refusal> {
    match &bound.rule {
        Rule::Sharded(sharded) => match &sharded.spread {
            Some(spread) => recipe::recipe(spread, values),
            None => Ok(Recipe::Concat),
        },
        _ => Ok(Recipe::Concat),
    }
}

/// Where the rows of an INSERT go whose keys ([`Target::Make`]) are these.
///
/// # Errors
/// Other values of the rows say otherwise.
pub fn with_keys(
    bound: &Bound,
    values: &Values<'_>,
    map: &ShardMap,
    keys: &[i64],
) -> Result<Route, Refusal> {
    if let Rule::Sharded(sharded) = &bound.rule
        && let Reach::Rows(rows) = &sharded.reach
    {
        let shards = split::shards(rows, sharded, values, map, keys)?;
        let mut split = split::split(rows, &shards)?;
        split.keys = keys.to_vec();
        return Ok(route(Target::Rows(Box::new(split)), bound.names));
    }
    without_hint(bound, values, map)
}

/// Where the rows of an INSERT go whose keys this shard is to make.
///
/// # Errors
/// Other values of the rows say otherwise.
pub fn made_by_shard(
    bound: &Bound,
    values: &Values<'_>,
    map: &ShardMap,
    shard: ShardId,
) -> Result<Route, Refusal> {
    with_shard(bound, values, map, shard)
}

/// The route to several shards, if their answers can become one.
fn several(
    sharded: &Sharded,
    target: Target,
    names: Names,
    values: &Values<'_>,
) -> Result<Route, Refusal> {
    if let (Some(spread), Target::Shards(_)) = (&sharded.spread, &target) {
        recipe::recipe(spread, values)?;
    }
    Ok(route(target, names))
}

fn without_hint(bound: &Bound, values: &Values<'_>, map: &ShardMap) -> Result<Route, Refusal> {
    match &bound.rule {
        Rule::Sharded(sharded) => {
            if let Reach::Rows(rows) = &sharded.reach {
                if let keys @ 1.. = rows.to_make() {
                    let make = Make {
                        table: rows.table.clone(),
                        keys,
                        maker: rows.maker,
                    };
                    return Ok(route(Target::Make(Box::new(make)), bound.names));
                }
                let shards = split::shards(rows, sharded, values, map, &[])?;
                let one = shards.iter().all(|shard| *shard == shards[0]);
                let target = match one {
                    true => Target::Shard(shards[0]),
                    false => Target::Rows(Box::new(split::split(rows, &shards)?)),
                };
                return Ok(route(target, bound.names));
            }
            let shards = match &sharded.unbound {
                Some(refusal) if sharded.one_shard_only.is_some() => return Err(refusal.clone()),
                Some(_) => return several(sharded, every_shard(map), bound.names, values),
                None => sharded_shards(sharded, values, map)?,
            };
            if let [shard] = shards[..] {
                check(sharded, values, map, shard)?;
                return Ok(Route {
                    target: Target::Shard(shard),
                    names: bound.names,
                });
            }
            if let Reach::Each = sharded.reach {
                return each(sharded, values, map, shards, bound.names);
            }
            several(sharded, Target::Shards(shards), bound.names, values)
        }
        Rule::Data(copy) => Ok(route(Target::Data(copy.fixed), bound.names)),
        Rule::Reference(reference) => everywhere(reference, map),
        Rule::Any => Ok(route(Target::Any, Names::Qualified)),
        Rule::Template => Ok(route(Target::Template, Names::SearchPath)),
        Rule::Temporary => Ok(on_session_host(map)),
        Rule::Host { host, table } => {
            let host = map
                .host_named(host)
                .ok_or_else(|| words::unknown_host(table, host))?;
            Ok(route(Target::Host(host), Names::Qualified))
        }
        Rule::Ddl(_) => Ok(route(Target::Everywhere, Names::SearchPath)),
        Rule::Refuse { refusal, .. } => Err(refusal.clone()),
    }
}

/// Where a statement can be parsed and described without values: its parameters and columns are the same on all shards.
/// `any` is a shard that suits the caller. `hinted`: a standing hint will say the shard, so a missing key is no fault.
pub fn anywhere(
    bound: &Bound,
    map: &ShardMap,
    any: ShardId,
    hinted: bool,
) -> Result<Route, Refusal> {
    let at = |shard, names| {
        Ok(Route {
            target: Target::Shard(shard),
            names,
        })
    };
    match &bound.rule {
        Rule::Sharded(sharded) => {
            if let (Some(refusal), Some(_), false) =
                (&sharded.unbound, &sharded.one_shard_only, hinted)
            {
                return Err(refusal.clone());
            }
            let beside = sharded
                .beside
                .as_ref()
                .and_then(|(host, _)| map.shards_of(map.host_named(host)?).next());
            at(sharded.fixed.or(beside).unwrap_or(any), bound.names)
        }
        Rule::Data(copy) => at(copy.fixed.unwrap_or(any), bound.names),
        Rule::Refuse { refusal, hintable } if !hinted || !hintable => Err(refusal.clone()),
        Rule::Ddl(_) => at(any, Names::SearchPath),
        Rule::Refuse { .. } => at(any, Names::SearchPath),
        Rule::Reference(_) => Ok(route(Target::Any, Names::Qualified)),
        Rule::Any => Ok(route(Target::Any, Names::Qualified)),
        Rule::Template => Ok(route(Target::Template, Names::SearchPath)),
        Rule::Temporary => Ok(on_session_host(map)),
        Rule::Host { host, table } => {
            let host = map
                .host_named(host)
                .ok_or_else(|| words::unknown_host(table, host))?;
            Ok(route(Target::Host(host), Names::Qualified))
        }
    }
}

/// On the session host, with the names of a shard there: `LIKE photos` is the same in each.
fn on_session_host(map: &ShardMap) -> Route {
    let host = map.session_host();
    match map.shards_of(host).next() {
        Some(shard) => route(Target::Shard(shard), Names::SearchPath),
        None => route(Target::Host(host), Names::Qualified),
    }
}

fn route(target: Target, names: Names) -> Route {
    Route { target, names }
}

fn every_shard(map: &ShardMap) -> Target {
    match map.shards() {
        1 => Target::Shard(ShardId(0)),
        shards => Target::Shards((0..shards).map(ShardId).collect()),
    }
}

/// Several shards that are written to by the same text.
fn each(
    sharded: &Sharded,
    values: &Values<'_>,
    map: &ShardMap,
    shards: Shards,
    names: Names,
) -> Result<Route, Refusal> {
    for shard in &shards {
        check(sharded, values, map, *shard)?;
    }
    let target = match shards[..] {
        [shard] => Target::Shard(shard),
        _ => Target::Each(shards),
    };
    Ok(route(target, names))
}

/// A reference table is written on every host.
fn everywhere(reference: &Reference, map: &ShardMap) -> Result<Route, Refusal> {
    let target = match (map.hosts.len(), &reference.means) {
        (1, _) => Target::Host(HostId(0)),
        (_, Means::Refused(refusal)) => return Err(refusal.clone()),
        (_, Means::Statement(_)) => Target::EveryHost,
        (_, Means::Data(_)) => Target::Data(None),
    };
    Ok(route(target, Names::Qualified))
}

/// The shards that the keys lead to, lowest first: one, or several if the statement may be spread.
fn sharded_shards(
    sharded: &Sharded,
    values: &Values<'_>,
    map: &ShardMap,
) -> Result<Shards, Refusal> {
    let mut found: Option<(Shards, &Binding)> = None;
    for binding in &sharded.bindings {
        let shards = binding_shards(binding, values, map)?;
        // No element: no row, whatever the shard.
        if shards.is_empty() {
            continue;
        }
        match &mut found {
            None => found = Some((shards, binding)),
            Some((before, first)) if *before != shards => {
                if let ([one], [other], true) =
                    (&before[..], &shards[..], sharded.one_shard_only.is_some())
                {
                    let (one, other) = ((describe(first), one.0), (describe(binding), other.0));
                    return Err(words::different_shards(
                        (&one.0, one.1),
                        (&other.0, other.1),
                    ));
                }
                before.extend(shards);
            }
            Some(_) => {}
        }
    }
    let mut shards = found.map(|(shards, _)| shards).unwrap_or_default();
    if shards.len() > 1 {
        shards.sort_unstable();
        shards.dedup();
    }
    if let Some(fixed) = sharded.fixed {
        if let Some(other) = shards.iter().find(|shard| **shard != fixed) {
            let schema = "the schema in the statement";
            return Err(words::different_shards(
                (schema, fixed.0),
                ("the key", other.0),
            ));
        }
        return Ok(SmallVec::from_slice(&[fixed]));
    }
    match (&shards[..], &sharded.one_shard_only, &sharded.reach) {
        ([], ..) => Ok(SmallVec::from_slice(&[map.template()])),
        ([_], ..) | (_, None, _) | (_, _, Reach::Each) => Ok(shards),
        (_, Some(refusal), _) => Err(refusal.clone()),
    }
}

fn describe(binding: &Binding) -> String {
    format!("{}.{}", binding.table, binding.column)
}

/// The shards of the values that a key may have, in no order; empty if there are no values.
fn binding_shards(
    binding: &Binding,
    values: &Values<'_>,
    map: &ShardMap,
) -> Result<Shards, Refusal> {
    let fault = |fault| words::bad_value(&binding.table, &binding.column, fault);
    match &binding.equals {
        Equals::One(key) => {
            match value::shard(key, binding.carries, values, map) {
                Ok(shard) => Ok(SmallVec::from_slice(&[shard])),
                // No row has it, so any shard gives the right answer: none.
                Err(value::Fault::NoSuchId(_)) => Ok(Shards::new()),
                Err(value::Fault::Null) if binding.null == Null::FindsNothing => Ok(Shards::new()),
                Err(other) => Err(fault(other)),
            }
        }
        Equals::Many(keys) => {
            let mut shards = Shards::new();
            for key in keys {
                match value::shard(key, binding.carries, values, map) {
                    Ok(shard) => push(&mut shards, shard),
                    // NULL in a list equals nothing.
                    Err(value::Fault::Null) if binding.null == Null::FindsNothing => {}
                    Err(value::Fault::NoSuchId(_)) => {}
                    Err(other) => return Err(fault(other)),
                }
            }
            shards.sort_unstable();
            Ok(shards)
        }
        Equals::Array(array) => {
            let mut shards = Shards::new();
            let read = value::shards_of_array(array, binding.carries, values, map, |shard| {
                push(&mut shards, shard)
            });
            match read {
                Ok(()) | Err(value::Fault::Null) => {}
                Err(other) => return Err(fault(other)),
            }
            shards.sort_unstable();
            shards.dedup();
            Ok(shards)
        }
    }
}

/// Adds a shard, without growing for the same few over and over.
fn push(shards: &mut Shards, shard: ShardId) {
    if shards.len() > 64 || !shards.contains(&shard) {
        shards.push(shard);
    }
    if shards.len() > 4096 {
        shards.sort_unstable();
        shards.dedup();
    }
}

/// What each row holds belongs to its shard, and what may be written to all of them to all their shards.
pub(super) fn check_rows(
    sharded: &Sharded,
    values: &Values<'_>,
    map: &ShardMap,
    shards: &[ShardId],
) -> Result<(), Refusal> {
    for check in &sharded.checks {
        match check.row {
            Some(row) => check_value(check, values, map, shards[row])?,
            None => {
                let mut last = None;
                for shard in shards
                    .iter()
                    .filter(|shard| last.replace(**shard) != Some(**shard))
                {
                    check_value(check, values, map, *shard)?;
                }
            }
        }
    }
    Ok(())
}

/// A value that is written belongs to the shard.
fn check_value(
    check: &Check,
    values: &Values<'_>,
    map: &ShardMap,
    shard: ShardId,
) -> Result<(), Refusal> {
    let of = match value::shard(&check.value, check.carries, values, map) {
        Ok(of) => of,
        // An id that is to be made, as some drivers ask for it.
        Err(value::Fault::Null) if check.carries == Carries::Id && !check.changes => return Ok(()),
        Err(fault) => return Err(words::bad_value(&check.table, &check.column, fault)),
    };
    if of == shard {
        return Ok(());
    }
    Err(match check.changes {
        true => words::moves_row(&check.table, &check.column),
        false => words::foreign_value(&check.table, &check.column, of.0, shard.0),
    })
}

/// What the statement writes belongs to the shard, and what it joins is on the shard's host.
fn check(
    sharded: &Sharded,
    values: &Values<'_>,
    map: &ShardMap,
    shard: ShardId,
) -> Result<(), Refusal> {
    for check in &sharded.checks {
        check_value(check, values, map, shard)?;
    }
    if let Some((host, table)) = &sharded.beside {
        let owner = map.owner(shard);
        if map.host_named(host) != Some(owner) {
            return Err(words::beside(table, host, shard.0, &map.host(owner).name));
        }
    }
    Ok(())
}

fn with_shard(
    bound: &Bound,
    values: &Values<'_>,
    map: &ShardMap,
    shard: ShardId,
) -> Result<Route, Refusal> {
    let names = match &bound.rule {
        Rule::Sharded(sharded) => {
            let fixed = sharded
                .fixed
                .into_iter()
                .map(|fixed| ("the schema in the statement".to_owned(), fixed));
            let mut other = fixed.into_iter().find(|(_, fixed)| *fixed != shard);
            for binding in &sharded.bindings {
                let shards = binding_shards(binding, values, map)?;
                other = other
                    .or_else(|| Some((describe(binding), *shards.iter().find(|s| **s != shard)?)));
            }
            if let Some((what, other)) = other {
                return Err(words::hint_disagrees(shard.0, &what, other.0));
            }
            if let Reach::Rows(rows) = &sharded.reach
                && rows.to_make() > 0
                && rows.maker != Maker::Shard
            {
                return Err(words::insert_without_key(&rows.table, &rows.column));
            }
            check(sharded, values, map, shard)?;
            bound.names
        }
        Rule::Data(copy) => {
            if let Some(fixed) = copy.fixed.filter(|fixed| *fixed != shard) {
                let what = "the schema in the statement";
                return Err(words::hint_disagrees(shard.0, what, fixed.0));
            }
            return Ok(route(Target::Data(Some(shard)), bound.names));
        }
        Rule::Any => Names::Qualified,
        Rule::Template => Names::SearchPath,
        // The table is where it is, whatever the session's key.
        Rule::Temporary | Rule::Host { .. } | Rule::Reference(_) => {
            return without_hint(bound, values, map);
        }
        Rule::Refuse {
            refusal,
            hintable: false,
        } => return Err(refusal.clone()),
        Rule::Ddl(_) | Rule::Refuse { .. } => Names::SearchPath,
    };
    Ok(Route {
        target: Target::Shard(shard),
        names,
    })
}

/// For reads and writes that may be spread.
fn all(bound: &Bound, values: &Values<'_>, map: &ShardMap) -> Result<Route, Refusal> {
    let refusal = match &bound.rule {
        Rule::Sharded(sharded) if matches!(sharded.reach, Reach::Each) => {
            let shards = (0..map.shards()).map(ShardId).collect();
            return each(sharded, values, map, shards, bound.names);
        }
        Rule::Sharded(sharded) => match (&sharded.one_shard_only, sharded.fixed) {
            (None, None) => return several(sharded, every_shard(map), bound.names, values),
            (Some(refusal), _) => words::hint_all(&refusal.message),
            (None, Some(_)) => words::hint_all("the statement names a shard's schema"),
        },
        Rule::Ddl(_) => return Ok(route(Target::Everywhere, Names::SearchPath)),
        Rule::Any | Rule::Template | Rule::Temporary | Rule::Host { .. } | Rule::Reference(_) => {
            words::hint_all("the statement names no sharded table")
        }
        Rule::Data(_) => words::hint_all("each row of a COPY goes to its own shard"),
        Rule::Refuse { refusal, .. } => words::hint_all(&refusal.message),
    };
    Err(refusal)
}
