//! Views of the shards. One whose rows are each made of the rows of one shard, and that gives their key, is as good as a
//! sharded table. Any other is read as the query that it is, in place of its name.

use std::borrow::Cow;
use std::sync::Arc;

use crate::sql::parse::{self, Limits};
use crate::sql::plan::{
    Body, Condition, Const, ConstFrom, Elements, Fact, Gives, Item, Level, Plan, Source, Term, Verb,
};
use crate::sql::shape::Shape;

use super::bind::{Class, classify, parts};
use super::columns::{ColumnId, Scope};
use super::known::Knowledge;
use super::tables::{KeyColumn, Maker, Table, TableKind, Tables};
use super::{functions, gather};

/// The most query levels that a statement may have with its views written out.
const MOST_LEVELS: usize = 1_000;

/// What a view's definition says. Its literals lie in another text than the statement's, so they say nothing.
pub(super) fn read(definition: &str) -> Option<Arc<Plan>> {
    let mut shape = Shape::default();
    shape.scan(definition.as_bytes()).ok()?;
    let mut plan = parse::plan(definition, &shape, &Limits::default()).ok()?;
    if plan.verb != Verb::Select {
        return None;
    }
    for level in &mut plan.levels {
        forget_literals(level);
    }
    plan.objects.clear();
    plan.types.clear();
    plan.schemas.clear();
    Some(Arc::new(plan))
}

fn forget_literals(level: &mut Level) {
    let kept: Vec<Fact> = level.facts.drain(..).filter_map(without_literals).collect();
    level.facts = kept;
    if let Body::Values(rows) = &mut level.body {
        rows.iter_mut().flatten().for_each(forget);
    }
    for output in &mut level.outputs {
        if let crate::sql::plan::Output::Term(_, term) = output {
            forget(term);
        }
    }
    if let Gives::Groups(terms) = &mut level.gives {
        terms.iter_mut().for_each(forget);
    }
    level.items.iter_mut().for_each(forget_elements);
}

fn forget_elements(item: &mut Item) {
    if let Source::Unnest(arrays) = &mut item.source {
        arrays.fill(Elements::Unknown);
    }
}

fn forget(term: &mut Term) {
    if matches!(term, Term::Const(Const { from, .. }) if *from != ConstFrom::Null) {
        *term = Term::Other;
    }
}

fn without_literals(mut fact: Fact) -> Option<Fact> {
    match &mut fact.what {
        Condition::Equal(left, right) => {
            forget(left);
            forget(right);
        }
        Condition::In(term, list) => {
            forget(term);
            list.iter_mut().for_each(forget);
        }
        Condition::Any(..) => return None,
        Condition::Within(term, ..) => forget(term),
    }
    Some(fact)
}

/// Finds the views that are as good as tables. Those that read other views wait for them.
pub(super) fn settle(tables: &mut Tables) {
    loop {
        let found: Vec<(String, TableKind)> = tables
            .list()
            .into_iter()
            .filter_map(|table| Some((table.name.clone(), as_table(table, tables)?)))
            .collect();
        if found.is_empty() {
            return;
        }
        for (name, kind) in found {
            tables.settle(&name, kind);
        }
    }
}

/// The kind of a view that is as good as a sharded table.
fn as_table(view: &Table, tables: &Tables) -> Option<TableKind> {
    let plan = view.reads.as_deref()?;
    let root = plan.root?;
    let f = &plan.levels[root].features;
    let aggregates = || {
        plan.calls
            .iter()
            .any(|call| !call.from && !functions::is_plain(&call.name, tables))
    };
    let repeatable = |call| functions::is_repeatable(call, tables);
    if f.distinct || f.group || f.order || f.limit || aggregates() || !is_understood(plan, tables) {
        return None;
    }
    if !plan.calls.iter().all(repeatable) {
        // Whoever reads it is to see what it calls.
        return None;
    }
    let parts = parts(plan, tables);
    if parts.sharded.is_empty() || parts.is_refused() {
        return None;
    }
    let scope = Scope::new(plan, tables);
    let knowledge = Knowledge::find(&scope);
    if !gather::is_row_by_row(&scope, root)
        || gather::reason(&scope, &knowledge, &parts, None, false).is_some()
        || scope.width(root) != Some(view.columns.len())
    {
        return None;
    }
    let given = |column: usize| {
        let id = scope.given(root, column)?;
        (id.level == root && !scope.is_nullable(root, id.item)).then_some(id)
    };
    let key = (0..view.columns.len()).find_map(|index| {
        let key = key_of(&scope, given(index)?)?;
        Some(KeyColumn {
            name: view.columns[index].name.clone(),
            index,
            key_type: key.key_type,
            // What a view's own defaults are is not known.
            maker: Maker::Nobody,
        })
    })?;
    let ids =
        (0..view.columns.len()).filter(|index| given(*index).is_some_and(|id| is_id(&scope, id)));
    let ids = ids.map(|index| view.columns[index].name.clone()).collect();
    Some(TableKind::Sharded {
        key: Some(key),
        ids,
    })
}

fn key_of<'t>(scope: &Scope<'t>, column: ColumnId) -> Option<&'t KeyColumn> {
    match &scope.table(column.level, column.item)?.kind {
        TableKind::Sharded { key: Some(key), .. } if key.index == column.column => Some(key),
        _ => None,
    }
}

fn is_id(scope: &Scope<'_>, column: ColumnId) -> bool {
    let table = scope.table(column.level, column.item);
    table.is_some_and(|table| match &table.kind {
        TableKind::Sharded { ids, .. } => table
            .columns
            .get(column.column)
            .is_some_and(|column| ids.contains(&column.name)),
        _ => false,
    })
}

/// No word is left that might be a table which was passed over.
fn is_understood(plan: &Plan, tables: &Tables) -> bool {
    !plan.words.iter().any(|word| tables.knows_relation(word))
}

/// The plan with the queries of views in place of their names. A view that is written to stays what it is.
pub(super) fn expand<'p>(plan: &'p Plan, tables: &Tables) -> Cow<'p, Plan> {
    let mut plan = Cow::Borrowed(plan);
    let mut level = 0;
    while level < plan.levels.len() && plan.levels.len() < MOST_LEVELS {
        for item in 0..plan.levels[level].items.len() {
            if item == 0 && plan.levels[level].writes() {
                continue;
            }
            let Source::Table(named) = &plan.levels[level].items[item].source else {
                continue;
            };
            if let Class::Sharded(view) = classify(named, tables)
                && let Some(reads) = view.reads.clone()
                && is_understood(&reads, tables)
            {
                insert(plan.to_mut(), level, item, view, &reads);
            }
        }
        level += 1;
    }
    plan
}

/// Puts a view's levels behind the plan's own and makes the item refer to them.
fn insert(plan: &mut Plan, level: usize, item: usize, view: &Table, reads: &Plan) {
    let Some(root) = reads.root else { return };
    let by = plan.levels.len();
    for inner in &reads.levels {
        plan.levels.push(moved(inner.clone(), by));
    }
    plan.levels[by + root].refs += 1;
    for call in &reads.calls {
        let mut call = call.clone();
        call.level += by;
        plan.calls.push(call);
    }
    let Item {
        source,
        alias,
        columns,
    } = &mut plan.levels[level].items[item];
    *source = Source::Level(by + root);
    alias.get_or_insert_with(|| view.name.clone());
    let named = columns.len();
    columns.extend(
        view.columns
            .iter()
            .skip(named)
            .map(|column| column.name.clone()),
    );
}

/// The level with all numbers of levels counted from `by` on.
fn moved(mut level: Level, by: usize) -> Level {
    let term = |term: &mut Term| {
        if let Term::Output(level, _) = term {
            *level += by;
        }
    };
    level.parent = level.parent.map(|parent| parent + by);
    match &mut level.body {
        Body::SetOp(left, right) => {
            *left += by;
            *right += by;
        }
        Body::Values(rows) => rows.iter_mut().flatten().for_each(term),
        _ => {}
    }
    for item in &mut level.items {
        if let Source::Level(level) = &mut item.source {
            *level += by;
        }
    }
    for fact in &mut level.facts {
        match &mut fact.what {
            Condition::Equal(left, right) => [left, right].into_iter().for_each(term),
            Condition::In(left, list) => std::iter::once(left).chain(list).for_each(term),
            Condition::Any(left, _) => term(left),
            Condition::Within(left, level, _) => {
                term(left);
                *level += by;
            }
        }
    }
    for output in &mut level.outputs {
        if let crate::sql::plan::Output::Term(_, output) = output {
            term(output);
        }
    }
    if let Gives::Groups(terms) = &mut level.gives {
        terms.iter_mut().for_each(term);
    }
    level
}
