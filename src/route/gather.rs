//! Whether a read may be asked of several shards, their rows one after the other being the answer.

use std::collections::HashMap;

use crate::sql::plan::{Body, Call, Condition, LevelId, Source, Term, Wrap};

use super::bind::Parts;
use super::columns::{ColumnId, Scope};
use super::functions;
use super::known::Knowledge;
use super::local::{self, is_key};

/// Why not; `None`: it may.
///
/// It may if each row of the answer is made of rows of one shard alone: the sharded tables are joined on their keys,
/// every outer join keeps rows of a sharded table, and nothing looks at more than one row of the answer.
pub(super) fn reason(
    scope: &Scope<'_>,
    knowledge: &Knowledge<'_, '_>,
    parts: &Parts<'_>,
    app_function: Option<&String>,
    writes: bool,
) -> Option<String> {
    let plan = scope.plan;
    let root_id = plan.root?;
    let root = &plan.levels[root_id];
    let wrap = match plan.wrap {
        Wrap::Bare => None,
        Wrap::Explain => Some("EXPLAIN"),
        Wrap::Cursor => Some("a cursor"),
        // Data behind data is data; what is said once for all of it is seen to when it is gathered.
        Wrap::CopyOut if plan.copy_options.is_ok() => None,
        Wrap::CopyOut => Some("a COPY with an option that is not understood"),
    };
    if let Some(wrap) = wrap {
        return Some(format!("{wrap} is of one shard"));
    }
    if writes {
        return Some("it writes".to_owned());
    }
    if let Some((_, table)) = parts.unsharded.first() {
        return Some(format!("{table} is on one host only"));
    }
    if parts.catalog {
        return Some("catalog tables differ from host to host".to_owned());
    }
    // The data of a COPY is not read: it can only be put one behind the other.
    let can_merge = plan.select.is_some() && plan.wrap != Wrap::CopyOut;
    let f = &root.features;
    let set = matches!(root.body, Body::SetOp(..));
    let merges = f.distinct || f.group || f.order || f.limit;
    let clause = [
        (root.body != Body::Select && !set, "VALUES"),
        (
            set && (f.order || f.limit),
            "ORDER BY or LIMIT of UNION, INTERSECT or EXCEPT",
        ),
        (
            !local::windows_by_key(scope, root_id),
            "a window function that is not PARTITION BY the key",
        ),
        (
            merges && plan.wrap == Wrap::CopyOut,
            "a COPY of a SELECT with DISTINCT, GROUP BY, ORDER BY or LIMIT",
        ),
        (
            merges && !can_merge,
            "a SELECT of this form with DISTINCT, GROUP BY, ORDER BY or LIMIT",
        ),
        (f.locking, "FOR UPDATE or FOR SHARE"),
        (
            plan.levels.iter().any(|level| level.features.sample),
            "TABLESAMPLE",
        ),
        (
            plan.levels.iter().any(|level| level.recursive),
            "WITH RECURSIVE",
        ),
    ];
    if let Some((_, clause)) = clause.iter().find(|(has, _)| *has) {
        return Some(format!("{clause} over several shards is not supported yet"));
    }
    if let Some(function) = app_function {
        return Some(format!("{function}() might do anything"));
    }
    if let Some(call) = plan
        .calls
        .iter()
        .find(|call| functions::is_volatile(&call.name))
    {
        return Some(format!("{}() gives each shard another answer", call.name));
    }
    // An aggregate inside a subquery is one of the outer query, if all its columns are: `(SELECT max(u.id))`.
    let aggregate = plan.calls.iter().find(|call| {
        functions::is_aggregate(&call.name)
            && match call.level == root_id {
                true => !can_merge && !call.window,
                false => !is_of_its_level(scope, call),
            }
    });
    if let Some(call) = aggregate {
        if plan.wrap == Wrap::CopyOut && call.level == root_id {
            let of = format!("a COPY of {}()", call.name);
            return Some(format!("{of} over several shards is not supported yet"));
        }
        return Some(format!("it is not sure what {}() counts", call.name));
    }
    if let Some((_, _, table)) = parts.sharded.iter().find(|(_, _, table)| table.view) {
        return Some(format!("what the view {} reads is not known", table.name));
    }
    colocated(scope, knowledge, parts, root_id)
}

/// An aggregate belongs to the query that it stands in: it has a column of it, or none at all (SQL:2003 6.9, and
/// parse_agg.c, check_agg_arguments).
fn is_of_its_level(scope: &Scope<'_>, call: &Call) -> bool {
    let Some(columns) = &call.columns else {
        return call.bare;
    };
    let mut own = columns.iter().map(|c| scope.resolve(call.level, c));
    columns.is_empty() || own.any(|id| id.is_some_and(|id| id.level == call.level))
}

/// Each row of the level stands by itself: it is not made of several, and none is left out because of others.
pub(super) fn is_row_by_row(scope: &Scope<'_>, level: LevelId) -> bool {
    let f = &scope.plan.levels[level].features;
    !(f.distinct || f.group || f.window || f.limit || local::aggregates(scope, level))
}

/// All sharded tables are tied together by equality of their keys, and rows without one are not kept.
fn colocated(
    scope: &Scope<'_>,
    knowledge: &Knowledge<'_, '_>,
    parts: &Parts<'_>,
    root: LevelId,
) -> Option<String> {
    let mut groups = Groups::default();
    for (level, of) in scope.plan.levels.iter().enumerate() {
        for fact in &of.facts {
            // One side must be an item whose rows the fact restricts: `a LEFT JOIN c ON a.k = b.k` ties nothing to b.
            let tied =
                |column: ColumnId| column.level == level && fact.restricts.contains(&column.item);
            let pair = match &fact.what {
                Condition::Equal(Term::Column(left), Term::Column(right)) => {
                    let pair = scope.resolve(level, left).zip(scope.resolve(level, right));
                    pair.filter(|(left, right)| tied(*left) || tied(*right))
                }
                Condition::Within(Term::Column(left), inner, column)
                    if knowledge.is_transparent(*inner) =>
                {
                    scope
                        .resolve(level, left)
                        .zip(scope.given(*inner, *column).filter(|c| c.level == *inner))
                }
                _ => None,
            };
            if let Some((left, right)) =
                pair.filter(|(left, right)| is_key(scope, *left) && is_key(scope, *right))
            {
                groups.join((left.level, left.item), (right.level, right.item));
            }
        }
        for join in 0..of.joins.len() {
            for (left, right) in scope.joined_by_name(level, join) {
                if is_key(scope, left) && is_key(scope, right) {
                    groups.join((left.level, left.item), (right.level, right.item));
                }
            }
        }
    }
    if let Some(why) = in_from(scope, &mut groups, root) {
        return Some(why);
    }
    let mut read = Vec::new();
    local::sharded_in(scope, root, &mut read);
    let Some(first) = read.first().copied() else {
        return Some("no sharded table is read outside a subquery".to_owned());
    };
    let name =
        |(level, item): (LevelId, usize)| scope.table(level, item).map_or("a query", |t| &t.name);
    for (level, item, table) in &parts.sharded {
        if groups.of((*level, *item)) != groups.of(first) {
            return Some(format!(
                "{} and {} are not joined on their keys",
                name(first),
                table.name
            ));
        }
    }
    None
}

/// Queries in FROM, WITH and set operations: each shard must be able to answer them by itself. Ties them to the tables
/// in them.
fn in_from(scope: &Scope<'_>, groups: &mut Groups, root: LevelId) -> Option<String> {
    let by_facts = groups.clone();
    for (level, of) in scope.plan.levels.iter().enumerate() {
        let mut inside = Vec::new();
        local::sharded_in(scope, level, &mut inside);
        if inside.is_empty() {
            continue;
        }
        let in_from = level == root || of.refs > 0;
        if in_from && local::keeps_rows_of_all(scope, level) {
            return Some(
                "an outer join keeps rows of a table that every shard would give".to_owned(),
            );
        }
        if of.refs > 1 {
            return Some("a query of WITH is read twice".to_owned());
        }
        // What the root does to its rows, the gather does over again; but not so a set operation.
        let set = matches!(of.body, Body::SetOp(..));
        if in_from && (level != root || set) {
            let tied = || is_tied_outside(scope, &by_facts, level, &inside);
            if let Some(why) = local::reason(scope, level).filter(|_| !tied()) {
                return Some(why);
            }
        }
        if set {
            inside
                .windows(2)
                .for_each(|two| groups.join(two[0], two[1]));
        }
        for (item, source) in of.items.iter().enumerate() {
            if let Source::Level(inner) = source.source {
                let mut inside = Vec::new();
                local::sharded_in(scope, inner, &mut inside);
                inside
                    .iter()
                    .for_each(|table| groups.join((level, item), *table));
            }
        }
    }
    None
}

/// All sharded tables of a LATERAL query are joined on the key with one outside of it: each row there has a query of its
/// own, in its own shard.
fn is_tied_outside(
    scope: &Scope<'_>,
    by_facts: &Groups,
    level: LevelId,
    inside: &[(LevelId, usize)],
) -> bool {
    let Some(parent) = scope.plan.levels[level].parent else {
        return false;
    };
    let outside = 0..scope.plan.levels[parent].items.len();
    let outside = outside.filter(|item| {
        matches!(
            scope.plan.levels[parent].items[*item].source,
            Source::Table(_)
        ) && local::is_sharded(scope, parent, *item)
    });
    let mut outside = outside.map(|item| by_facts.of((parent, item)));
    outside.any(|group| inside.iter().all(|table| by_facts.of(*table) == group))
}

/// Items tied together.
#[derive(Clone, Default)]
struct Groups(HashMap<(LevelId, usize), (LevelId, usize)>);

impl Groups {
    fn of(&self, item: (LevelId, usize)) -> (LevelId, usize) {
        let mut item = item;
        while let Some(next) = self.0.get(&item) {
            item = *next;
        }
        item
    }

    fn join(&mut self, one: (LevelId, usize), other: (LevelId, usize)) {
        let (one, other) = (self.of(one), self.of(other));
        if one != other {
            self.0.insert(one, other);
        }
    }
}
