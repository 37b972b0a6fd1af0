//! Whether a read may be asked of several shards, their rows one after the other being the answer.

use std::collections::HashMap;

use crate::sql::plan::{Body, Condition, JoinKind, LevelId, Source, Term, Wrap};

use super::bind::Parts;
use super::columns::{ColumnId, Scope};
use super::functions;
use super::known::Knowledge;
use super::tables::TableKind;

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
    let merges = plan.select.is_some() && plan.wrap != Wrap::CopyOut;
    let f = &root.features;
    let clause = [
        (
            root.body != Body::Select,
            "UNION, INTERSECT, EXCEPT or VALUES",
        ),
        (f.window, "a window function"),
        (
            (f.distinct || f.group || f.order || f.limit) && !merges,
            "a SELECT of this form with DISTINCT, GROUP BY, ORDER BY or LIMIT",
        ),
        (f.locking, "FOR UPDATE or FOR SHARE"),
        (
            plan.levels.iter().any(|level| level.features.sample),
            "TABLESAMPLE",
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
    // An aggregate inside a subquery may be one of the outer query, if its arguments are of there: `(SELECT max(u.id))`.
    let aggregate = plan.calls.iter().find(|call| {
        let inner = call.level != root_id && !call.bare;
        functions::is_aggregate(&call.name) && (inner || !merges)
    });
    if let Some(call) = aggregate {
        return Some(format!(
            "{}() over several shards is not supported yet",
            call.name
        ));
    }
    if let Some((_, _, table)) = parts.sharded.iter().find(|(_, _, table)| table.view) {
        return Some(format!("what the view {} reads is not known", table.name));
    }
    if plan.levels.iter().any(|level| level.refs > 0) {
        return Some(
            "a subquery in FROM or WITH over several shards is not supported yet".to_owned(),
        );
    }
    colocated(scope, knowledge, parts, root_id)
}

/// Each row of the level stands by itself: it is not made of several, and none is left out because of others.
pub(super) fn is_row_by_row(scope: &Scope<'_>, level: LevelId) -> bool {
    let f = &scope.plan.levels[level].features;
    let mut calls = scope.plan.calls.iter();
    !(f.distinct || f.group || f.window || f.limit)
        && !calls.any(|call| call.level == level && functions::is_aggregate(&call.name))
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
    let first = parts.sharded.iter().find(|(level, _, _)| *level == root);
    let Some((_, first_item, first_table)) = first else {
        return Some("no sharded table is read outside a subquery".to_owned());
    };
    for (level, item, table) in &parts.sharded {
        if groups.of((*level, *item)) != groups.of((root, *first_item)) {
            return Some(format!(
                "{} and {} are not joined on their keys",
                first_table.name, table.name
            ));
        }
    }
    let of = &scope.plan.levels[root];
    let is_sharded = |item: usize| {
        parts
            .sharded
            .iter()
            .any(|(level, at, _)| *level == root && *at == item)
    };
    for join in &of.joins {
        let kept = match join.kind {
            JoinKind::Inner => [None, None],
            JoinKind::Left => [Some(&join.left), None],
            JoinKind::Right => [None, Some(&join.right)],
            JoinKind::Full => [Some(&join.left), Some(&join.right)],
        };
        if kept
            .into_iter()
            .flatten()
            .any(|side| !side.clone().any(is_sharded))
        {
            return Some(
                "an outer join keeps rows of a table that every shard would give".to_owned(),
            );
        }
    }
    if of
        .items
        .iter()
        .any(|item| matches!(item.source, Source::Level(_)))
    {
        return Some("a subquery in FROM over several shards is not supported yet".to_owned());
    }
    None
}

pub(super) fn is_key(scope: &Scope<'_>, column: ColumnId) -> bool {
    scope
        .table(column.level, column.item)
        .is_some_and(|table| match &table.kind {
            TableKind::Sharded { key: Some(key), .. } => key.index == column.column,
            _ => false,
        })
}

/// Items tied together.
#[derive(Default)]
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
