//! What binds a sharded table to a shard, and what a write may put into the columns that decide it.

mod typed;

use std::cell::OnceCell;
use std::collections::HashMap;

use crate::sql::plan::{
    Body, Column, Condition, Const, JoinKind, LevelId, Plan, Set, Source, Term,
};

use super::columns::{ColumnId, Origin, Scope};
use super::families::Family;
use super::known::{Knowledge, Known, insert_source};
use super::refusal::Refusal;
use super::rules::{Binding, Carries, Check, Equals, KeyConst, Null};
use super::tables::{KeyColumn, Table, TableKind, Tables};
use super::words;

/// Level and item: the rows of the first that matter are in the shards of the second's.
type Tie = ((LevelId, usize), (LevelId, usize));

/// Finds bindings.
pub(super) struct Keys<'a, 'p> {
    pub(super) plan: &'p Plan,
    pub(super) scope: &'a Scope<'p>,
    pub(super) knowledge: &'a Knowledge<'a, 'p>,
    /// What type each parameter gets, if all its uses agree.
    families: OnceCell<HashMap<u16, Option<Family>>>,
}

/// A column of a sharded table that decides the shard.
struct Deciding<'t> {
    name: &'t str,
    index: usize,
    carries: Carries,
}

/// The key and the id columns of a table. `Err`: it has no key that can be used.
fn deciding(table: &Table) -> Result<(Deciding<'_>, Vec<Deciding<'_>>), Refusal> {
    let TableKind::Sharded { key, ids } = &table.kind else {
        return Err(words::unlisted(&table.name));
    };
    let Some(KeyColumn {
        name,
        index,
        key_type,
        ..
    }) = key
    else {
        return Err(words::no_key_column(table));
    };
    let id = |id: &'_ String| table.columns.iter().position(|column| column.name == *id);
    let ids = ids.iter().filter_map(|name| {
        Some(Deciding {
            name,
            index: id(name)?,
            carries: Carries::Id,
        })
    });
    Ok((
        Deciding {
            name,
            index: *index,
            carries: Carries::Key(*key_type),
        },
        ids.collect(),
    ))
}

impl<'a, 'p> Keys<'a, 'p> {
    pub(super) fn new(scope: &'a Scope<'p>, knowledge: &'a Knowledge<'a, 'p>) -> Self {
        Keys {
            plan: scope.plan,
            scope,
            knowledge,
            families: OnceCell::new(),
        }
    }

    /// What binds an item that is a sharded table; `None`: nothing.
    pub(super) fn binding(
        &self,
        level: LevelId,
        item: usize,
        table: &Table,
    ) -> Result<Option<Binding>, Refusal> {
        let (key, ids) = deciding(table)?;
        let inserted = item == 0 && matches!(self.plan.levels[level].body, Body::Insert { .. });
        if inserted {
            let known = self.inserted_key(level, &key, table)?;
            return Ok(Some(self.make(table, &key, known, Null::IsWritten)));
        }
        for column in std::iter::once(&key).chain(&ids) {
            let id = ColumnId {
                level,
                item,
                column: column.index,
            };
            if let Some(known) = self.knowledge.get(id) {
                return Ok(Some(self.make(
                    table,
                    column,
                    known.clone(),
                    Null::FindsNothing,
                )));
            }
        }
        Ok(None)
    }

    fn make(&self, table: &Table, column: &Deciding<'_>, known: Known<'p>, null: Null) -> Binding {
        let key_type = column.carries.key_type();
        let equals = match known {
            Known::One(value) => Equals::One(self.key_const(value, key_type)),
            Known::Many(values) => Equals::Many(
                values
                    .into_iter()
                    .map(|v| self.key_const(v, key_type))
                    .collect(),
            ),
            Known::Array(array) => Equals::Array(self.key_const(array, key_type)),
        };
        Binding {
            table: table.name.clone(),
            column: column.name.to_owned(),
            carries: column.carries,
            equals,
            null,
        }
    }

    /// The key of the rows that are inserted.
    fn inserted_key(
        &self,
        level: LevelId,
        key: &Deciding<'_>,
        table: &Table,
    ) -> Result<Known<'p>, Refusal> {
        let missing = || words::insert_without_key(&table.name, key.name);
        let (source, at) =
            insert_source(self.plan, level, key.name, key.index).ok_or_else(missing)?;
        if let Body::Values(rows) = &self.plan.levels[source].body
            && rows
                .iter()
                .any(|row| matches!(row.get(at), None | Some(Term::Default)))
        {
            return Err(missing());
        }
        let known = self
            .knowledge
            .of_level(source, at)
            // A null that comes instead makes the INSERT fail.
            .filter(|_| table.columns[key.index].not_null || self.is_certain(source, at));
        known.ok_or_else(|| words::insert_with_expression(&table.name, key.name))
    }

    /// The key of each row that a level inserts, if it inserts given rows; `None` for one that is left to the database.
    pub(super) fn row_keys(&self, level: LevelId, table: &Table) -> Option<Vec<Option<KeyConst>>> {
        let (key, _) = deciding(table).ok()?;
        let Body::Insert { source, .. } = &self.plan.levels[level].body else {
            return None;
        };
        let Some(source) = source else {
            return Some(vec![None]);
        };
        let Body::Values(rows) = &self.plan.levels[*source].body else {
            return None;
        };
        let Some((_, at)) = insert_source(self.plan, level, key.name, key.index) else {
            return Some(vec![None; rows.len()]);
        };
        let value = |row: &Vec<Term>| match row.get(at)? {
            Term::Const(value) => Some(Some(self.key_const(value, key.carries.key_type()))),
            Term::Default => Some(None),
            _ => None,
        };
        rows.iter().map(value).collect()
    }

    /// Of the tables in `open`, which no value binds, those that are not tied to a bound one either: joined to it by
    /// key (or by id), so that their rows that matter are in the same shard, whatever key that may be.
    pub(super) fn untied<'t>(
        &self,
        all: &[(LevelId, usize, &'t Table)],
        mut open: Vec<(LevelId, usize, &'t Table)>,
    ) -> Vec<(LevelId, usize, &'t Table)> {
        if open.is_empty() || open.len() == all.len() {
            return open;
        }
        let ties = self.ties();
        loop {
            let is_open =
                |at: (LevelId, usize)| open.iter().any(|(level, item, _)| (*level, *item) == at);
            let is_bound =
                |at: (LevelId, usize)| all.iter().any(|(l, i, _)| (*l, *i) == at) && !is_open(at);
            let still = |at: &(LevelId, usize, &Table)| {
                !ties
                    .iter()
                    .any(|(one, other)| *one == (at.0, at.1) && is_bound(*other))
            };
            let rest: Vec<_> = open.iter().filter(|at| still(at)).copied().collect();
            if rest.len() == open.len() {
                return open;
            }
            open = rest;
        }
    }

    /// Pairs of items: the rows of the first that matter are in the shards of the second's.
    fn ties(&self) -> Vec<Tie> {
        let mut ties = Vec::new();
        for (level, of) in self.plan.levels.iter().enumerate() {
            for fact in &of.facts {
                let (left, right) = match &fact.what {
                    Condition::Equal(Term::Column(left), Term::Column(right)) => (
                        self.scope.resolve(level, left),
                        self.scope.resolve(level, right),
                    ),
                    Condition::Within(Term::Column(left), inner, column) => (
                        self.scope.resolve(level, left),
                        self.scope.given(*inner, *column),
                    ),
                    _ => continue,
                };
                let Some((left, right)) = left.zip(right) else {
                    continue;
                };
                for (one, other) in [(left, right), (right, left)] {
                    if one.level == level && fact.restricts.contains(&one.item) {
                        self.tie(one, other, &mut ties);
                    }
                }
                if let Condition::Within(_, inner, _) = &fact.what
                    && self.knowledge.is_transparent(*inner)
                {
                    self.tie(right, left, &mut ties);
                }
            }
            for (at, join) in of.joins.iter().enumerate() {
                for (left, right) in self.scope.joined_by_name(level, at) {
                    if matches!(join.kind, JoinKind::Inner | JoinKind::Right) {
                        self.tie(left, right, &mut ties);
                    }
                    if matches!(join.kind, JoinKind::Inner | JoinKind::Left) {
                        self.tie(right, left, &mut ties);
                    }
                }
            }
        }
        ties
    }

    fn tie(&self, one: ColumnId, other: ColumnId, ties: &mut Vec<Tie>) {
        let (Some(one), Some(other)) = (self.decides(one), self.decides_through(other)) else {
            return;
        };
        if one.1 == other.1 {
            ties.push((one.0, other.0));
        }
    }

    /// The sharded item whose shard a column decides.
    fn decides(&self, column: ColumnId) -> Option<((LevelId, usize), Carries)> {
        let table = self.scope.table(column.level, column.item)?;
        let (key, ids) = deciding(table).ok()?;
        let decides = std::iter::once(&key)
            .chain(&ids)
            .find(|d| d.index == column.column)?;
        Some(((column.level, column.item), decides.carries))
    }

    /// As [`Keys::decides`], also where a derived table gives the column on. (Not for the side that is tied: a
    /// condition on a derived table says nothing of the rows inside it.)
    fn decides_through(&self, column: ColumnId) -> Option<((LevelId, usize), Carries)> {
        let mut column = column;
        for _ in 0..32 {
            match self.plan.levels[column.level].items[column.item].source {
                Source::Level(inner) => column = self.scope.given(inner, column.column)?,
                _ => return self.decides(column),
            }
        }
        None
    }

    /// What a level gives in a column is never null instead of what it is known to equal.
    fn is_certain(&self, level: LevelId, column: usize) -> bool {
        let of = &self.plan.levels[level];
        match &of.body {
            Body::Values(_) => true,
            Body::SetOp(left, right) => {
                self.is_certain(*left, column) && self.is_certain(*right, column)
            }
            _ if of.features.group => false,
            _ => match self.scope.origin(level, column) {
                Some(Origin::Term(Term::Const(_))) => true,
                Some(Origin::Term(Term::Column(column))) => self
                    .scope
                    .resolve(level, column)
                    .is_some_and(|column| self.is_certain_column(column)),
                Some(Origin::Item(item, column)) => self.is_certain_column(ColumnId {
                    level,
                    item,
                    column,
                }),
                _ => false,
            },
        }
    }

    fn is_certain_column(&self, column: ColumnId) -> bool {
        let item = &self.plan.levels[column.level].items[column.item];
        !self.scope.is_nullable(column.level, column.item)
            && match item.source {
                Source::Table(_) => true,
                Source::Level(inner) => self.is_certain(inner, column.column),
                Source::Function(_) | Source::Unnest(_) | Source::Excluded => false,
            }
    }

    /// All values that the statement writes into columns that decide the shard.
    pub(super) fn checks(&self, tables: &Tables) -> Result<Vec<Check>, Refusal> {
        let mut checks = Vec::new();
        for (level, of) in self.plan.levels.iter().enumerate() {
            let table = self
                .scope
                .table(level, 0)
                .filter(|t| matches!(t.kind, TableKind::Sharded { .. }));
            let Some(table) = table.filter(|_| of.writes()) else {
                continue;
            };
            let (key, ids) = deciding(table)?;
            match &of.body {
                Body::Insert { sets, .. } => {
                    self.sets(level, sets, table, &mut checks)?;
                    for id in &ids {
                        self.inserted_id(level, id, table, tables, &mut checks)?;
                    }
                }
                Body::Update(sets) => self.sets(level, sets, table, &mut checks)?,
                Body::Merge { inserts, sets, .. } => {
                    self.sets(level, sets, table, &mut checks)?;
                    for (columns, values) in inserts {
                        for column in std::iter::once(&key).chain(&ids) {
                            self.merged(
                                level,
                                column,
                                columns.as_deref(),
                                values,
                                table,
                                &mut checks,
                            )?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(checks)
    }

    /// SET of a key or id column: to a value of the same shard only.
    fn sets(
        &self,
        level: LevelId,
        sets: &'p [Set],
        table: &Table,
        checks: &mut Vec<Check>,
    ) -> Result<(), Refusal> {
        let (key, ids) = deciding(table)?;
        for set in sets {
            let Some(column) = std::iter::once(&key)
                .chain(&ids)
                .find(|column| column.name == set.column)
            else {
                continue;
            };
            // `SET user_id = user_id`, `SET user_id = excluded.user_id`: the row stays where it is.
            if let Term::Column(value) = &set.value
                && self.is_own(level, value, column.name)
            {
                continue;
            }
            match self.knowledge.of_term(level, &set.value) {
                Some(Known::One(value)) => checks.push(self.check(table, column, value, true)),
                _ => return Err(words::changes_key(&table.name, column.name)),
            }
        }
        Ok(())
    }

    /// The column is that of the row itself, or of the row that was to be inserted into the same shard.
    fn is_own(&self, level: LevelId, value: &Column, name: &str) -> bool {
        if value.name != name {
            return false;
        }
        let items = &self.plan.levels[level].items;
        self.scope.resolve(level, value).is_some_and(|found| {
            found.level == level
                && (found.item == 0 || items[found.item].source == Source::Excluded)
        })
    }

    /// An id that is given with the row must carry the shard of the row's key, or the row is not found by it.
    fn inserted_id(
        &self,
        level: LevelId,
        id: &Deciding<'_>,
        table: &Table,
        tables: &Tables,
        checks: &mut Vec<Check>,
    ) -> Result<(), Refusal> {
        let Some((source, at)) = insert_source(self.plan, level, id.name, id.index) else {
            return Ok(());
        };
        let refusal = || words::id_of_unknown_shard(&table.name, id.name);
        if let Body::Values(rows) = &self.plan.levels[source].body {
            for (n, row) in rows.iter().enumerate() {
                match row.get(at) {
                    None | Some(Term::Default | Term::Call) => {}
                    Some(Term::Const(value)) => checks.push(Check {
                        row: Some(n),
                        ..self.check(table, id, value, false)
                    }),
                    Some(_) => return Err(refusal()),
                }
            }
            return Ok(());
        }
        match self.knowledge.of_level(source, at) {
            Some(Known::One(value)) => {
                checks.push(self.check(table, id, value, false));
                Ok(())
            }
            _ if self.scope.width(source).is_some_and(|width| at >= width) => Ok(()),
            _ if self.is_id(source, at, tables) => Ok(()),
            _ => Err(refusal()),
        }
    }

    /// The column is made by a function, or is an id of a sharded table, all of whose rows that matter are of one shard.
    fn is_id(&self, level: LevelId, column: usize, tables: &Tables) -> bool {
        let found = match self.scope.origin(level, column) {
            Some(Origin::Term(Term::Call)) => return true,
            Some(Origin::Term(Term::Column(column))) => self.scope.resolve(level, column),
            Some(Origin::Item(item, column)) => Some(ColumnId {
                level,
                item,
                column,
            }),
            _ => None,
        };
        let Some(found) = found else { return false };
        match &self.plan.levels[found.level].items[found.item].source {
            Source::Level(inner) => self.is_id(*inner, found.column, tables),
            Source::Table(table) => {
                tables
                    .get(&table.name)
                    .is_some_and(|table| match &table.kind {
                        TableKind::Sharded { ids, .. } => {
                            let name = table.columns.get(found.column).map(|column| &column.name);
                            name.is_some_and(|name| ids.contains(name))
                        }
                        _ => false,
                    })
            }
            Source::Function(_) | Source::Unnest(_) | Source::Excluded => false,
        }
    }

    /// A column of a row that MERGE inserts.
    fn merged(
        &self,
        level: LevelId,
        column: &Deciding<'_>,
        columns: Option<&[String]>,
        values: &'p [Term],
        table: &Table,
        checks: &mut Vec<Check>,
    ) -> Result<(), Refusal> {
        let at = match columns {
            Some(columns) => columns.iter().position(|c| c == column.name),
            None => Some(column.index),
        };
        let is_key = matches!(column.carries, Carries::Key(_));
        match at.and_then(|at| values.get(at)) {
            None | Some(Term::Default) if is_key => {
                Err(words::insert_without_key(&table.name, column.name))
            }
            None | Some(Term::Default) => Ok(()),
            Some(Term::Call) if !is_key => Ok(()),
            Some(term) => {
                let certain = match term {
                    Term::Const(_) => true,
                    Term::Column(name) => self
                        .scope
                        .resolve(level, name)
                        .is_some_and(|found| self.is_certain_column(found)),
                    _ => false,
                };
                match self.knowledge.of_term(level, term) {
                    Some(Known::One(value)) if certain => {
                        checks.push(self.check(table, column, value, false));
                        Ok(())
                    }
                    _ if is_key => Err(words::insert_with_expression(&table.name, column.name)),
                    _ => Err(words::id_of_unknown_shard(&table.name, column.name)),
                }
            }
        }
    }

    fn check(&self, table: &Table, column: &Deciding<'_>, value: &Const, changes: bool) -> Check {
        Check {
            table: table.name.clone(),
            column: column.name.to_owned(),
            carries: column.carries,
            value: self.key_const(value, column.carries.key_type()),
            changes,
            row: None,
        }
    }
}
