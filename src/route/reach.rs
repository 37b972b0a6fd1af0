//! Whether a write may go to several shards, so that all of them together do what one Postgres would have done.

use crate::sql::plan::{Body, Wrap};

use super::bind::Parts;
use super::keys::Keys;
use super::rules::{Reach, Rows};

/// How; `Err`: why not.
pub(super) fn find(
    keys: &Keys<'_, '_>,
    parts: &Parts<'_>,
    app_function: Option<&String>,
) -> Result<Reach, String> {
    let plan = keys.plan;
    let Some(root) = plan.root.filter(|_| plan.wrap == Wrap::Bare) else {
        return Err("EXPLAIN, COPY and cursors are of one shard".to_owned());
    };
    let no = |why: &str| Err(why.to_owned());
    if let Some((_, table)) = parts.unsharded.first() {
        return Err(format!("{table} is on one host only"));
    }
    if parts.catalog {
        return no("catalog tables differ from host to host");
    }
    let others = || plan.levels.iter().enumerate().filter(|(id, _)| *id != root);
    if others().any(|(_, level)| level.writes()) || !plan.levels[root].writes() {
        return no("it writes in a common table expression");
    }
    match &plan.levels[root].body {
        Body::Insert {
            source: Some(source),
            ..
        } => {
            if others().any(|(id, level)| id != *source && level.refs > 0) {
                return no("a common table expression would be worked out for each shard anew");
            }
            rows(keys, parts, root)
        }
        Body::Update(_) | Body::Delete => {
            if let Some(function) = app_function {
                return Err(format!("{function}() might do anything"));
            }
            if others().any(|(_, level)| level.refs > 0) {
                return no(
                    "a subquery in FROM or WITH would be worked out for each shard by itself",
                );
            }
            same(keys, parts, root)
        }
        _ => no("such a statement is of one shard"),
    }
}

/// INSERT ... VALUES: each row goes to its shard.
fn rows(keys: &Keys<'_, '_>, parts: &Parts<'_>, root: usize) -> Result<Reach, String> {
    let [(level, 0, table)] = parts.sharded[..] else {
        return Err("it reads sharded tables, too".to_owned());
    };
    let features = |level: usize| &keys.plan.levels[level].features;
    let Body::Insert {
        source: Some(source),
        ..
    } = keys.plan.levels[root].body
    else {
        return Err("it inserts no given rows".to_owned());
    };
    let text = keys.plan.insert.as_deref();
    let text = text.filter(|_| level == root && *features(source) == Default::default());
    let found = text.zip(keys.row_keys(root, table));
    let Some((text, (column, carries, of_rows))) = found else {
        return Err("its rows are not given one by one".to_owned());
    };
    if of_rows.len() != text.rows.len() {
        return Err("its rows are not given one by one".to_owned());
    }
    if of_rows.len() < 2 {
        return Ok(Reach::OneShard);
    }
    Ok(Reach::Rows(Box::new(Rows {
        table: table.name.clone(),
        column,
        carries,
        keys: of_rows,
        text: text.clone(),
        returning: !keys.plan.levels[root].outputs.is_empty(),
    })))
}

/// UPDATE and DELETE: the rows that they read beside the target's are in the shard of the target's row.
fn same(keys: &Keys<'_, '_>, parts: &Parts<'_>, root: usize) -> Result<Reach, String> {
    let target = |(level, item): (usize, usize)| (level, item) == (root, 0);
    let at = parts.sharded.iter().find(|(l, i, _)| target((*l, *i)));
    let Some((_, _, table)) = at else {
        return Err("what it writes is not sharded".to_owned());
    };
    if let Some((_, _, view)) = parts.sharded.iter().find(|(_, _, table)| table.view) {
        return Err(format!("what the view {} reads is not known", view.name));
    }
    let read = parts.sharded.iter().filter(|(l, i, _)| !target((*l, *i)));
    let untied = keys.untied(&parts.sharded, read.copied().collect());
    match untied.first() {
        None => Ok(Reach::Each),
        Some((_, _, other)) => Err(format!(
            "{} and {} are not joined on their keys",
            table.name, other.name
        )),
    }
}
