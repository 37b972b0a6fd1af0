//! Which queries in FROM, WITH and set operations each shard can answer by itself: those of which every row is made of
//! rows of one shard alone, so that the rows of all shards together are the rows of the whole.

use crate::sql::plan::{Body, Gives, JoinKind, LevelId, Source, Term};

use super::columns::{ColumnId, Scope};
use super::functions;
use super::tables::TableKind;

/// A sharded table in a query: level and item.
pub(super) type Sharded = (LevelId, usize);

/// The column is a shard key, or is given on from one through queries in FROM. It may be null by an outer join.
pub(super) fn is_key(scope: &Scope<'_>, column: ColumnId) -> bool {
    match &scope.plan.levels[column.level].items[column.item].source {
        Source::Level(inner) => is_key_output(scope, *inner, column.column),
        _ => scope
            .table(column.level, column.item)
            .is_some_and(|table| match &table.kind {
                TableKind::Sharded { key: Some(key), .. } => key.index == column.column,
                _ => false,
            }),
    }
}

/// Column `column` of a query's rows is the key of each row's shard.
fn is_key_output(scope: &Scope<'_>, level: LevelId, column: usize) -> bool {
    match &scope.plan.levels[level].body {
        Body::SetOp(left, right) => {
            is_key_output(scope, *left, column) && is_key_output(scope, *right, column)
        }
        Body::Select => scope.given(level, column).is_some_and(|id| {
            id.level == level && !scope.is_nullable(level, id.item) && is_key(scope, id)
        }),
        _ => false,
    }
}

/// Some output of the query is the key.
pub(super) fn gives_key(scope: &Scope<'_>, level: LevelId) -> bool {
    let width = scope.width(level).unwrap_or(0);
    (0..width).any(|column| is_key_output(scope, level, column))
}

/// The sharded tables of a level: its own and those of its queries in FROM.
pub(super) fn sharded_in(scope: &Scope<'_>, level: LevelId, found: &mut Vec<Sharded>) {
    let of = &scope.plan.levels[level];
    if let Body::SetOp(left, right) = of.body {
        sharded_in(scope, left, found);
        sharded_in(scope, right, found);
    }
    for (item, source) in of.items.iter().enumerate() {
        match &source.source {
            Source::Level(inner) => sharded_in(scope, *inner, found),
            Source::Table(_) => {
                let table = scope.table(level, item);
                if table.is_some_and(|t| matches!(t.kind, TableKind::Sharded { .. })) {
                    found.push((level, item));
                }
            }
            Source::Function(_) | Source::Unnest(_) | Source::Excluded => {}
        }
    }
}

fn has_sharded(scope: &Scope<'_>, level: LevelId) -> bool {
    let mut found = Vec::new();
    sharded_in(scope, level, &mut found);
    !found.is_empty()
}

/// An item of a level is a sharded table, or a query over such.
pub(super) fn is_sharded(scope: &Scope<'_>, level: LevelId, item: usize) -> bool {
    match &scope.plan.levels[level].items[item].source {
        Source::Level(inner) => has_sharded(scope, *inner),
        _ => scope
            .table(level, item)
            .is_some_and(|t| matches!(t.kind, TableKind::Sharded { .. })),
    }
}

/// Why the rows of a query in FROM are not those of each shard by itself; `None`: they are, if its tables are joined on
/// their keys.
pub(super) fn reason(scope: &Scope<'_>, level: LevelId) -> Option<String> {
    let of = &scope.plan.levels[level];
    if of.features.limit {
        return Some(
            "LIMIT of a query in FROM, WITH or UNION looks at the rows of all shards".to_owned(),
        );
    }
    match of.body {
        Body::SetOp(left, right) => {
            if !has_sharded(scope, left) || !has_sharded(scope, right) {
                return Some("a part of the set operation reads no sharded table".to_owned());
            }
            (!of.features.union_all && !gives_key(scope, level)).then(|| {
                "UNION, INTERSECT and EXCEPT can be left to each shard only if both sides give the key".to_owned()
            })
        }
        Body::Select => select_reason(scope, level),
        _ => Some("VALUES in FROM".to_owned()),
    }
}

fn select_reason(scope: &Scope<'_>, level: LevelId) -> Option<String> {
    let of = &scope.plan.levels[level];
    let keyed = |terms: &[Term]| terms.iter().any(|term| is_key_term(scope, level, term));
    if of.gives == Gives::Other {
        return Some("grouping sets or DISTINCT ON in a query in FROM, WITH or UNION".to_owned());
    }
    let by_key = matches!(&of.gives, Gives::Groups(terms) if keyed(terms));
    if (of.features.group || aggregates(scope, level)) && !by_key {
        return Some("a query in FROM, WITH or UNION groups rows of several shards".to_owned());
    }
    if of.features.distinct && !gives_key(scope, level) {
        return Some("DISTINCT in a query in FROM, WITH or UNION without the key".to_owned());
    }
    if !windows_by_key(scope, level) {
        return Some("a window function over rows of several shards".to_owned());
    }
    None
}

/// Every window of the level is of one key.
pub(super) fn windows_by_key(scope: &Scope<'_>, level: LevelId) -> bool {
    let of = &scope.plan.levels[level];
    !of.features.window
        || !of.windows.is_empty()
            && of
                .windows
                .iter()
                .all(|by| by.iter().any(|term| is_key_term(scope, level, term)))
}

fn is_key_term(scope: &Scope<'_>, level: LevelId, term: &Term) -> bool {
    let Term::Column(column) = term else {
        return false;
    };
    scope.resolve(level, column).is_some_and(|id| {
        id.level == level && !scope.is_nullable(level, id.item) && is_key(scope, id)
    })
}

/// The level calls an aggregate (not over a window).
pub(super) fn aggregates(scope: &Scope<'_>, level: LevelId) -> bool {
    let mut calls = scope.plan.calls.iter();
    calls.any(|call| call.level == level && !call.window && functions::is_aggregate(&call.name))
}

/// An outer join of the level keeps rows that every shard would give.
pub(super) fn keeps_rows_of_all(scope: &Scope<'_>, level: LevelId) -> bool {
    let of = &scope.plan.levels[level];
    let mut joins = of.joins.iter();
    joins.any(|join| {
        let kept = match join.kind {
            JoinKind::Inner => [None, None],
            JoinKind::Left => [Some(&join.left), None],
            JoinKind::Right => [None, Some(&join.right)],
            JoinKind::Full => [Some(&join.left), Some(&join.right)],
        };
        kept.into_iter()
            .flatten()
            .any(|side| !side.clone().any(|item| is_sharded(scope, level, item)))
    })
}
