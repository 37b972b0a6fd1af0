//! Whether a read may be asked of several shards, their rows one after the other being the answer.

use crate::sql::plan::{Body, Call, LevelId, Wrap};

use super::bind::Parts;
use super::columns::Scope;
use super::functions;
use super::known::Knowledge;
use super::local;
use super::ties;

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
        let what = match plan.levels.iter().any(|level| level.writes()) {
            true => "such a write",
            false => "FOR UPDATE or FOR SHARE",
        };
        return Some(format!("{what} is of one shard"));
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
    ties::colocated(scope, knowledge, parts, root_id)
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
