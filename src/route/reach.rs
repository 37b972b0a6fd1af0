//! Whether a write may go to several shards, so that all of them together do what one Postgres would have done.

use crate::sql::plan::{Body, Features, Wrap};

use super::bind::Parts;
use super::keys::Keys;
use super::rules::{Carries, MadeAt, Reach, Rows};
use super::tables::{Maker, TableKind};

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
        Body::Insert { source, .. } => {
            if others().any(|(id, level)| Some(id) != *source && level.refs > 0) {
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

/// INSERT of given rows: each goes to its shard.
fn rows(keys: &Keys<'_, '_>, parts: &Parts<'_>, root: usize) -> Result<Reach, String> {
    let given = || "its rows are not given one by one".to_owned();
    let [(level, 0, table)] = parts.sharded[..] else {
        return Err("it reads sharded tables, too".to_owned());
    };
    let insert = &keys.plan.levels[root];
    let Body::Insert {
        columns, source, ..
    } = &insert.body
    else {
        return Err(given());
    };
    let plain = |source: &usize| keys.plan.levels[*source].features == Features::default();
    let text = keys.plan.insert.as_deref();
    let text = text.filter(|_| level == root && source.as_ref().is_none_or(plain));
    let (text, of_rows) = text.zip(keys.row_keys(root, table)).ok_or_else(given)?;
    let TableKind::Sharded { key: Some(key), .. } = &table.kind else {
        return Err(given());
    };
    if of_rows.len() != text.rows.len().max(1) {
        return Err(given());
    }
    let made_at = match (columns, source) {
        (_, None) => MadeAt::Whole,
        (None, _) => MadeAt::Column(key.index as u32),
        (Some(columns), _) => match columns.iter().position(|column| *column == key.name) {
            Some(at) => MadeAt::Column(at as u32),
            None => MadeAt::End,
        },
    };
    let rows = Rows {
        table: table.name.clone(),
        column: key.name.clone(),
        carries: Carries::Key(key.key_type),
        keys: of_rows,
        maker: key.maker,
        made_at,
        text: text.clone(),
        returning: !insert.outputs.is_empty(),
    };
    let (made, all) = (rows.to_make(), rows.keys.len());
    match key.maker {
        Maker::Nobody if made > 0 => Err("some rows have no key".to_owned()),
        Maker::Shard if made > 0 && made < all => {
            Err("some rows have a key and some leave it to the database".to_owned())
        }
        _ if all == 1 && made == 0 => Ok(Reach::OneShard),
        _ => Ok(Reach::Rows(Box::new(rows))),
    }
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
