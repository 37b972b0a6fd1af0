//! Which column a name means: Postgres' rules of scope over the levels of a plan, with the catalog's columns.

use std::cell::RefCell;
use std::rc::Rc;

use crate::catalog::Collation;
use crate::sql::plan::{Body, Column, Join, JoinKind, LevelId, Output, Plan, Source, Term, Using};

use super::tables::{Table, Tables};

/// A column of an item: level, item, number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ColumnId {
    pub(super) level: LevelId,
    pub(super) item: usize,
    pub(super) column: usize,
}

/// The columns of an item or level.
#[derive(Debug, Default)]
pub(super) struct Columns {
    /// Their names in order; `None`: a name that can't be told.
    pub(super) names: Vec<Option<String>>,
    /// There are no others.
    pub(super) complete: bool,
}

/// Where a column of a level comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin<'p> {
    /// An expression.
    Term(&'p Term),
    /// Column `.1` of item `.0`.
    Item(usize, usize),
}

/// Looks names up. Results are kept, for each may be asked for often.
pub(super) struct Scope<'p> {
    pub(super) plan: &'p Plan,
    pub(super) tables: &'p Tables,
    levels: Vec<RefCell<Kept<'p>>>,
}

/// The columns of a level, once they are found.
enum Kept<'p> {
    NotYet,
    /// They are being looked for: a query that names itself asks again.
    Open,
    Found(Rc<LevelColumns<'p>>),
}

#[derive(Default)]
struct LevelColumns<'p> {
    columns: Columns,
    origins: Vec<Origin<'p>>,
}

/// Whether an item has a column of a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Has {
    Yes(usize),
    No,
    Maybe,
}

impl<'p> Scope<'p> {
    pub(super) fn new(plan: &'p Plan, tables: &'p Tables) -> Self {
        let levels = plan
            .levels
            .iter()
            .map(|_| RefCell::new(Kept::NotYet))
            .collect();
        Scope {
            plan,
            tables,
            levels,
        }
    }

    /// The table that an item is, if it is one of ours.
    pub(super) fn table(&self, level: LevelId, item: usize) -> Option<&'p Table> {
        match &self.plan.levels[level].items.get(item)?.source {
            Source::Table(table) => self.tables.get(&table.name),
            Source::Excluded => self.table(level, 0),
            Source::Level(_) | Source::Function(_) | Source::Unnest(_) => None,
        }
    }

    /// The column that a name means, seen from a level.
    pub(super) fn resolve(&self, level: LevelId, column: &Column) -> Option<ColumnId> {
        let mut level = level;
        loop {
            let of = &self.plan.levels[level];
            match self.resolve_here(level, column) {
                // An ON condition and a LATERAL query see only some items of their level; what they do not see is
                // looked for further out. Where both have the name, which one is meant is left open.
                Some(_) if of.items.len() > 1 && self.is_shadowing(of.parent, column) => {
                    return None;
                }
                Some(found) => return found,
                None => level = of.parent?,
            }
        }
    }

    /// No item of the level has a column of this name, nor one of Postgres' own.
    pub(super) fn is_no_column(&self, level: LevelId, column: &Column) -> bool {
        let system = ["tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"];
        !system.contains(&column.name.as_str()) && self.resolve_here(level, column).is_none()
    }

    fn is_shadowing(&self, parent: Option<LevelId>, column: &Column) -> bool {
        let mut outer = parent;
        while let Some(level) = outer {
            if self.resolve_here(level, column).is_some() {
                return true;
            }
            outer = self.plan.levels[level].parent;
        }
        false
    }

    /// `None`: not of this level. `Some(None)`: of this level, but which is not sure.
    fn resolve_here(&self, level: LevelId, column: &Column) -> Option<Option<ColumnId>> {
        let items = &self.plan.levels[level].items;
        if let Some(table) = &column.table {
            if let Some(merged) = self.resolve_joined(level, table, &column.name) {
                return Some(merged);
            }
            let item = (0..items.len())
                .find(|item| self.is_called(level, *item, column.schema.as_deref(), table))?;
            return Some(match self.has(level, item, &column.name) {
                Has::Yes(column) => Some(ColumnId {
                    level,
                    item,
                    column,
                }),
                Has::No | Has::Maybe => None,
            });
        }
        let (mut found, mut maybe, mut several) = (None, false, false);
        let visible = (0..items.len()).filter(|item| items[*item].source != Source::Excluded);
        for item in visible {
            match self.has(level, item, &column.name) {
                Has::Yes(_) if found.is_some() => several = true,
                Has::Yes(column) => {
                    found = Some(ColumnId {
                        level,
                        item,
                        column,
                    })
                }
                Has::Maybe => maybe = true,
                Has::No => {}
            }
        }
        match found {
            Some(_) if several && !self.is_merged(level, &column.name) => Some(None),
            Some(found) => Some(Some(found)),
            None if maybe => Some(None),
            None => None,
        }
    }

    /// A column of what `USING (...) AS alias` calls so.
    fn resolve_joined(&self, level: LevelId, alias: &str, name: &str) -> Option<Option<ColumnId>> {
        let joins = &self.plan.levels[level].joins;
        let at = joins
            .iter()
            .position(|join| join.alias.as_deref() == Some(alias))?;
        let keeps_left = matches!(joins[at].kind, JoinKind::Inner | JoinKind::Left);
        let Using::Columns(columns) = &joins[at].using else {
            return Some(None);
        };
        let column = columns
            .iter()
            .position(|column| column == name)
            .filter(|_| keeps_left);
        let pair = column.and_then(|column| self.joined_by_name(level, at).get(column).copied());
        // Where a column of the list is not sure, the pairs are fewer than the names.
        let sure = self.joined_by_name(level, at).len() == columns.len();
        Some(pair.filter(|_| sure).map(|(left, _)| left))
    }

    /// A name that several items have is one column to Postgres only if USING made it so; it is that of the leftmost
    /// item as long as no join adds rows on the right.
    fn is_merged(&self, level: LevelId, name: &str) -> bool {
        let joins = &self.plan.levels[level].joins;
        let merges = joins.iter().any(|join| match &join.using {
            Using::Nothing => false,
            Using::Columns(columns) => columns.iter().any(|c| c == name),
            Using::Natural => true,
        });
        merges
            && joins
                .iter()
                .all(|join| matches!(join.kind, JoinKind::Inner | JoinKind::Left))
    }

    pub(super) fn is_called(
        &self,
        level: LevelId,
        item: usize,
        schema: Option<&str>,
        name: &str,
    ) -> bool {
        let item = &self.plan.levels[level].items[item];
        match (&item.alias, &item.source) {
            (Some(alias), _) => schema.is_none() && alias == name,
            (None, Source::Table(table)) => {
                let same = |written: &(String, _)| schema.is_none_or(|schema| written.0 == schema);
                table.name == name && table.schema.as_ref().is_none_or(same)
            }
            (None, _) => false,
        }
    }

    fn has(&self, level: LevelId, item: usize, name: &str) -> Has {
        let given = &self.plan.levels[level].items[item].columns;
        if let Some(at) = given.iter().position(|c| c == name) {
            return Has::Yes(at);
        }
        let columns = self.columns(level, item);
        // Names that the alias gave anew are hidden.
        let named = columns.names.iter().enumerate().skip(given.len());
        let mut maybe = !columns.complete;
        for (at, column) in named {
            match column {
                Some(column) if column == name => return Has::Yes(at),
                Some(_) => {}
                None => maybe = true,
            }
        }
        if maybe { Has::Maybe } else { Has::No }
    }

    /// The columns of an item, under the names that they have inside.
    fn columns(&self, level: LevelId, item: usize) -> Columns {
        match &self.plan.levels[level].items[item].source {
            Source::Level(inner) => {
                let found = self.level_columns(*inner);
                Columns {
                    names: found.columns.names.clone(),
                    complete: found.columns.complete,
                }
            }
            Source::Table(_) | Source::Excluded => match self.table(level, item) {
                Some(table) => Columns {
                    names: table
                        .columns
                        .iter()
                        .map(|column| Some(column.name.clone()))
                        .collect(),
                    complete: true,
                },
                None => Columns::default(),
            },
            Source::Unnest(arrays) => {
                // The alias of a function that gives one column names that column too.
                let alias = self.plan.levels[level].items[item].alias.as_deref();
                let name = alias.filter(|_| arrays.len() == 1).unwrap_or("unnest");
                Columns {
                    names: vec![Some(name.to_owned()); arrays.len()],
                    complete: true,
                }
            }
            Source::Function(_) => Columns::default(),
        }
    }

    /// How many columns a level gives, if that is sure.
    pub(super) fn width(&self, level: LevelId) -> Option<usize> {
        let found = self.level_columns(level);
        found.columns.complete.then_some(found.columns.names.len())
    }

    /// Where column `column` of a level comes from. Not for set operations and VALUES.
    pub(super) fn origin(&self, level: LevelId, column: usize) -> Option<Origin<'p>> {
        self.level_columns(level).origins.get(column).copied()
    }

    /// The column of an item that a level gives on as its own column.
    pub(super) fn given(&self, level: LevelId, column: usize) -> Option<ColumnId> {
        match self.origin(level, column)? {
            Origin::Term(Term::Column(column)) => self.resolve(level, column),
            Origin::Item(item, column) => Some(ColumnId {
                level,
                item,
                column,
            }),
            Origin::Term(_) => None,
        }
    }

    /// Values of this column that are equal have the same bytes.
    pub(super) fn equal_is_same(&self, column: ColumnId) -> bool {
        let mut column = column;
        // Deeper nesting is no reason to trust it.
        for _ in 0..32 {
            match self.plan.levels[column.level].items[column.item].source {
                Source::Level(inner) => match self.given(inner, column.column) {
                    Some(given) => column = given,
                    None => return false,
                },
                _ => {
                    let table = self.table(column.level, column.item);
                    return table
                        .and_then(|table| table.columns.get(column.column))
                        .is_some_and(|c| c.collation != Collation::Nondeterministic);
                }
            }
        }
        false
    }

    fn level_columns(&self, level: LevelId) -> Rc<LevelColumns<'p>> {
        match &*self.levels[level].borrow() {
            Kept::Found(found) => return Rc::clone(found),
            Kept::Open => return Rc::default(),
            Kept::NotYet => {}
        }
        *self.levels[level].borrow_mut() = Kept::Open;
        let found = Rc::new(self.find_columns(level));
        *self.levels[level].borrow_mut() = Kept::Found(Rc::clone(&found));
        found
    }

    fn find_columns(&self, level: LevelId) -> LevelColumns<'p> {
        let of = &self.plan.levels[level];
        match &of.body {
            Body::SetOp(left, _) => {
                let left = self.level_columns(*left);
                let columns = Columns {
                    names: left.columns.names.clone(),
                    complete: left.columns.complete,
                };
                LevelColumns {
                    columns,
                    origins: Vec::new(),
                }
            }
            Body::Values(rows) => {
                let width = rows.first().map_or(0, Vec::len);
                let names = (1..=width).map(|n| Some(format!("column{n}"))).collect();
                LevelColumns {
                    columns: Columns {
                        names,
                        complete: true,
                    },
                    origins: Vec::new(),
                }
            }
            _ => self.output_columns(level),
        }
    }

    fn output_columns(&self, level: LevelId) -> LevelColumns<'p> {
        let mut found = LevelColumns::default();
        for output in &self.plan.levels[level].outputs {
            let complete = match output {
                Output::Term(name, term) => {
                    found.columns.names.push(name.clone());
                    found.origins.push(Origin::Term(term));
                    true
                }
                Output::Star(None) => self.star(level, &mut found),
                Output::Star(Some(table)) => {
                    let items = 0..self.plan.levels[level].items.len();
                    let named = items
                        .into_iter()
                        .find(|item| self.is_called(level, *item, None, table));
                    named.is_some_and(|item| self.item_star(level, item, &mut found))
                }
            };
            if !complete {
                return found;
            }
        }
        found.columns.complete = true;
        found
    }

    /// `*`: false if it is not known what columns there are, or in which order.
    fn star(&self, level: LevelId, found: &mut LevelColumns<'p>) -> bool {
        let of = &self.plan.levels[level];
        if of.joins.iter().any(|join| join.using != Using::Nothing) {
            return false;
        }
        let items = (0..of.items.len()).filter(|item| of.items[*item].source != Source::Excluded);
        for item in items {
            if !self.item_star(level, item, found) {
                return false;
            }
        }
        true
    }

    fn item_star(&self, level: LevelId, item: usize, found: &mut LevelColumns<'p>) -> bool {
        let columns = self.columns(level, item);
        let given = &self.plan.levels[level].items[item].columns;
        for (at, name) in columns.names.iter().enumerate() {
            found
                .columns
                .names
                .push(given.get(at).cloned().map_or_else(|| name.clone(), Some));
            found.origins.push(Origin::Item(item, at));
        }
        columns.complete
    }

    /// The columns that a join makes equal by name: pairs of left and right.
    pub(super) fn joined_by_name(&self, level: LevelId, join: usize) -> Vec<(ColumnId, ColumnId)> {
        let join = &self.plan.levels[level].joins[join];
        let names: Vec<String> = match &join.using {
            Using::Nothing => return Vec::new(),
            Using::Columns(names) => names.clone(),
            Using::Natural => {
                let all = |items: std::ops::Range<usize>| -> Option<Vec<String>> {
                    let mut names = Vec::new();
                    for item in items {
                        let columns = self.columns(level, item);
                        let given = &self.plan.levels[level].items[item].columns;
                        if !columns.complete {
                            return None;
                        }
                        names.extend(given.iter().cloned());
                        names.extend(columns.names.into_iter().skip(given.len()).flatten());
                    }
                    Some(names)
                };
                let (Some(left), Some(right)) = (all(join.left.clone()), all(join.right.clone()))
                else {
                    return Vec::new();
                };
                left.into_iter()
                    .filter(|name| right.contains(name))
                    .collect()
            }
        };
        let joins = &self.plan.levels[level].joins;
        let side = |items: &std::ops::Range<usize>, name: &str| {
            let with = items
                .clone()
                .filter_map(|item| match self.has(level, item, name) {
                    Has::Yes(column) => Some(Some(ColumnId {
                        level,
                        item,
                        column,
                    })),
                    Has::Maybe => Some(None),
                    Has::No => None,
                });
            let with: Vec<Option<ColumnId>> = with.collect();
            // Several on one side are merged already; the leftmost stands for them if no join there adds rows.
            let inside =
                |join: &&Join| items.start <= join.left.start && join.right.end <= items.end;
            let keeps_left = |join: &Join| matches!(join.kind, JoinKind::Inner | JoinKind::Left);
            match with[..] {
                [one] => one,
                [first, ..] if joins.iter().filter(inside).all(keeps_left) => first,
                _ => None,
            }
        };
        let pair = |name: &String| Some((side(&join.left, name)?, side(&join.right, name)?));
        names.iter().filter_map(pair).collect()
    }

    /// The item may be null-extended by an outer join of its level.
    pub(super) fn is_nullable(&self, level: LevelId, item: usize) -> bool {
        self.plan.levels[level]
            .joins
            .iter()
            .any(|join| match join.kind {
                JoinKind::Inner => false,
                JoinKind::Left => join.right.contains(&item),
                JoinKind::Right => join.left.contains(&item),
                JoinKind::Full => join.left.contains(&item) || join.right.contains(&item),
            })
    }
}
