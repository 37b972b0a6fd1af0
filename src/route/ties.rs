//! Whether the sharded tables of a statement are tied together by equality of their keys.
//!
//! A tie has a direction: `a` is tied to `b` if rows of `a` whose key is not that of `b`'s row do not matter. In
//! `u LEFT JOIN l ON l.k = u.k` the rows of `l` are tied to `u`, those of `u` to nothing; two tables to which a third
//! is tied are not tied to each other by that. A statement is of one shard row by row, if all its tables are tied to
//! one thing.

use std::collections::{HashMap, HashSet};

use crate::sql::plan::{Body, Condition, JoinKind, LevelId, Source, Term};

use super::bind::Parts;
use super::columns::{ColumnId, Scope};
use super::known::Knowledge;
use super::local::{self, is_key};

/// An item of a level.
type Node = (LevelId, usize);

/// The rows that a level gives.
fn rows_of(level: LevelId) -> Node {
    (level, usize::MAX)
}

/// Why the rows that make one row of the answer might be of several shards.
pub(super) fn colocated(
    scope: &Scope<'_>,
    knowledge: &Knowledge<'_, '_>,
    parts: &Parts<'_>,
    root: LevelId,
) -> Option<String> {
    let mut ties = by_conditions(scope, knowledge);
    let by_conditions = ties.clone();
    for level in 0..scope.plan.levels.len() {
        if let Some(why) = in_from(scope, &by_conditions, level, root) {
            return Some(why);
        }
    }
    for level in 0..scope.plan.levels.len() {
        ties.tie_rows(scope, level);
    }
    let mut read = Vec::new();
    local::sharded_in(scope, root, &mut read);
    let Some(first) = read.first().copied() else {
        return Some("no sharded table is read outside a subquery".to_owned());
    };
    let name =
        |(level, item): (LevelId, usize)| scope.table(level, item).map_or("a query", |t| &t.name);
    let loose = |of: &Node| !ties.reach(*of).contains(&rows_of(root));
    let tables = || parts.sharded.iter().map(|(level, item, _)| (*level, *item));
    tables().find(loose)?;
    // The one that is said is one that is not tied to the first, if there is one.
    let from_first = ties.reach(first);
    let other = tables().find(|of| !from_first.contains(of) && *of != first);
    let other = other.or_else(|| tables().find(|of| *of != first && loose(of)));
    Some(format!(
        "{} and {} are not joined on their keys",
        name(first),
        other.map_or("another", name)
    ))
}

/// Ties by ON, USING and WHERE.
fn by_conditions(scope: &Scope<'_>, knowledge: &Knowledge<'_, '_>) -> Ties {
    let mut ties = Ties::default();
    for (level, of) in scope.plan.levels.iter().enumerate() {
        for fact in &of.facts {
            // Only items whose rows the fact restricts are tied: `a LEFT JOIN c ON a.k = b.k` ties nothing to b.
            let is_restricted =
                |column: ColumnId| column.level == level && fact.restricts.contains(&column.item);
            match &fact.what {
                Condition::Equal(Term::Column(left), Term::Column(right)) => {
                    let pair = scope.resolve(level, left).zip(scope.resolve(level, right));
                    if let Some((left, right)) = pair.filter(|pair| are_keys(scope, *pair)) {
                        ties.tie_if(is_restricted(left), left, right);
                        ties.tie_if(is_restricted(right), right, left);
                    }
                }
                Condition::Within(Term::Column(left), inner, column)
                    if knowledge.is_transparent(*inner) =>
                {
                    let given = scope.given(*inner, *column);
                    let pair = scope
                        .resolve(level, left)
                        .zip(given.filter(|c| c.level == *inner));
                    if let Some((left, right)) = pair.filter(|pair| are_keys(scope, *pair)) {
                        ties.tie_if(is_restricted(left), left, right);
                        ties.tie_if(is_restricted(left), right, left);
                    }
                }
                _ => {}
            }
        }
        for (at, join) in of.joins.iter().enumerate() {
            for (left, right) in scope.joined_by_name(level, at) {
                if are_keys(scope, (left, right)) {
                    // A row that FULL keeps has no partner in any shard.
                    ties.tie_if(join.kind != JoinKind::Left, left, right);
                    ties.tie_if(join.kind != JoinKind::Right, right, left);
                }
            }
        }
    }
    ties
}

fn are_keys(scope: &Scope<'_>, (left, right): (ColumnId, ColumnId)) -> bool {
    is_key(scope, left) && is_key(scope, right)
}

/// Queries in FROM, WITH and set operations: each shard must be able to answer them by itself.
fn in_from(scope: &Scope<'_>, ties: &Ties, level: LevelId, root: LevelId) -> Option<String> {
    let of = &scope.plan.levels[level];
    let mut inside = Vec::new();
    local::sharded_in(scope, level, &mut inside);
    if inside.is_empty() {
        return None;
    }
    let in_from = level == root || of.refs > 0;
    if in_from && local::keeps_rows_of_all(scope, level) {
        return Some("an outer join keeps rows of a table that every shard would give".to_owned());
    }
    if of.refs > 1 {
        return Some("a query of WITH is read twice".to_owned());
    }
    // What the root does to its rows, the gather does over again; but not so a set operation.
    if in_from && (level != root || matches!(of.body, Body::SetOp(..))) {
        return local::reason(scope, level)
            .filter(|_| !is_tied_outside(scope, ties, level, &inside));
    }
    None
}

/// All sharded tables of a LATERAL query are joined on the key with one outside of it: each row there has a query of its
/// own, in its own shard.
fn is_tied_outside(scope: &Scope<'_>, ties: &Ties, level: LevelId, inside: &[Node]) -> bool {
    let Some(parent) = scope.plan.levels[level].parent else {
        return false;
    };
    let items = &scope.plan.levels[parent].items;
    let mut outside = (0..items.len()).filter(|item| {
        matches!(items[*item].source, Source::Table(_)) && local::is_sharded(scope, parent, *item)
    });
    outside.any(|item| {
        inside
            .iter()
            .all(|t| ties.reach(*t).contains(&(parent, item)))
    })
}

/// What is tied to what.
#[derive(Clone, Default)]
struct Ties(HashMap<Node, Vec<Node>>);

impl Ties {
    fn tie(&mut self, from: Node, to: Node) {
        self.0.entry(from).or_default().push(to);
    }

    fn tie_if(&mut self, really: bool, from: ColumnId, to: ColumnId) {
        if really {
            self.tie((from.level, from.item), (to.level, to.item));
        }
    }

    /// All that it is tied to, by whatever steps, itself too.
    fn reach(&self, from: Node) -> HashSet<Node> {
        let mut found = HashSet::from([from]);
        let mut open = vec![from];
        while let Some(node) = open.pop() {
            for to in self.0.get(&node).into_iter().flatten() {
                if found.insert(*to) {
                    open.push(*to);
                }
            }
        }
        found
    }

    /// What all of these are tied to.
    fn common(&self, of: &[Node]) -> HashSet<Node> {
        let mut all = of.iter().map(|node| self.reach(*node));
        let first = all.next().unwrap_or_default();
        all.fold(first, |both, next| &both & &next)
    }

    /// Ties the rows of a level to its tables, and the tables that all others are tied to to its rows.
    fn tie_rows(&mut self, scope: &Scope<'_>, level: LevelId) {
        let rows = rows_of(level);
        if self.0.contains_key(&rows) {
            return;
        }
        let of = &scope.plan.levels[level];
        if let Body::SetOp(left, right) = of.body {
            self.tie_rows(scope, left);
            self.tie_rows(scope, right);
            // A row is of one side: only what both are tied to, it is tied to.
            let sides = [rows_of(left), rows_of(right)];
            let common = self.common(&sides);
            sides.iter().for_each(|side| self.tie(*side, rows));
            self.0.insert(rows, common.into_iter().collect());
            return;
        }
        for (item, source) in of.items.iter().enumerate() {
            if let Source::Level(inner) = source.source {
                self.tie_rows(scope, inner);
                self.tie((level, item), rows_of(inner));
                self.tie(rows_of(inner), (level, item));
            }
        }
        let mut inside = Vec::new();
        local::sharded_in(scope, level, &mut inside);
        let common = self.common(&inside);
        for table in inside.iter().filter(|table| common.contains(table)) {
            self.tie(*table, rows);
        }
        self.0.entry(rows).or_default().extend(common);
    }
}
