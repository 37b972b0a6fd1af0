//! FROM: items, joins and aliases.

use std::ops::Range;

use sqlparser::ast::{
    JoinConstraint, JoinOperator, ObjectName, TableAlias, TableFactor, TableWithJoins,
};

use super::lower::{Lower, Read, stop};
use crate::sql::plan::{Item, Join, JoinKind, LevelId, Source, Using};

/// The most tables and the like of a statement: what is found out of them takes time that grows with their square.
const MOST_ITEMS: usize = 2_000;

impl Lower<'_> {
    pub(super) fn joined(&mut self, tables: &TableWithJoins, level: LevelId) -> Read<Range<usize>> {
        let start = self.factor(&tables.relation, level)?.start;
        for join in &tables.joins {
            if join.global {
                return stop("GLOBAL JOIN");
            }
            let middle = self.at(level).items.len();
            self.factor(&join.relation, level)?;
            let end = self.at(level).items.len();
            let (left, right) = (start..middle, middle..end);
            let (kind, constraint) = match &join.join_operator {
                JoinOperator::Join(c) | JoinOperator::Inner(c) | JoinOperator::CrossJoin(c) => {
                    (JoinKind::Inner, c)
                }
                JoinOperator::Left(c) | JoinOperator::LeftOuter(c) => (JoinKind::Left, c),
                JoinOperator::Right(c) | JoinOperator::RightOuter(c) => (JoinKind::Right, c),
                JoinOperator::FullOuter(c) => (JoinKind::Full, c),
                _ => return stop("a join of another database"),
            };
            let restricts = match kind {
                JoinKind::Inner => start..end,
                JoinKind::Left => right.clone(),
                JoinKind::Right => left.clone(),
                JoinKind::Full => 0..0,
            };
            let mut alias = None;
            let using = match constraint {
                JoinConstraint::On(expr) => {
                    self.walk(expr, level)?;
                    self.facts(expr, level, restricts);
                    Using::Nothing
                }
                JoinConstraint::Using(names) => {
                    let mut columns = Vec::with_capacity(names.len());
                    for name in names {
                        match self.idents(name)?[..] {
                            [column] => {
                                let start = (column.span.start.column as usize).wrapping_sub(1);
                                alias = alias.or_else(|| self.join_aliases.remove(&start));
                                columns.push(column.value.clone());
                            }
                            _ => return stop("USING"),
                        }
                    }
                    Using::Columns(columns)
                }
                JoinConstraint::Natural => Using::Natural,
                JoinConstraint::None => Using::Nothing,
            };
            self.at(level).joins.push(Join {
                left,
                right,
                kind,
                using,
                alias,
            });
        }
        Ok(start..self.at(level).items.len())
    }

    pub(super) fn factor(&mut self, factor: &TableFactor, level: LevelId) -> Read<Range<usize>> {
        let start = self.at(level).items.len();
        match factor {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                with_ordinality: _,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                if !with_hints.is_empty()
                    || version.is_some()
                    || !partitions.is_empty()
                    || json_path.is_some()
                    || sample.is_some()
                    || !index_hints.is_empty()
                {
                    return stop("a table with a clause of another database");
                }
                match args {
                    Some(args) if args.settings.is_none() => {
                        let function = self.table_function(name, &args.args, level)?;
                        self.item(
                            Source::Function(function.clone()),
                            alias.as_ref(),
                            Some(function),
                            level,
                        )?;
                    }
                    Some(_) => return stop("SETTINGS"),
                    None => self.table(name, alias.as_ref(), level)?,
                }
            }
            TableFactor::Derived {
                lateral,
                subquery,
                alias,
                sample: None,
            } => {
                let parent = if *lateral {
                    Some(level)
                } else {
                    self.at(level).parent
                };
                let inner = self.query(subquery, parent)?;
                self.at(inner).refs += 1;
                self.item(Source::Level(inner), alias.as_ref(), None, level)?;
            }
            TableFactor::Function {
                lateral: _,
                name,
                args,
                with_ordinality: _,
                alias,
            } => {
                let function = self.table_function(name, args, level)?;
                self.item(
                    Source::Function(function.clone()),
                    alias.as_ref(),
                    Some(function),
                    level,
                )?;
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias,
            } => {
                self.joined(table_with_joins, level)?;
                if alias.is_some() {
                    // The alias hides the names inside, and stands for columns that are not told apart here.
                    self.item(Source::Function(String::new()), alias.as_ref(), None, level)?;
                }
            }
            _ => return stop("a FROM item"),
        }
        Ok(start..self.at(level).items.len())
    }

    /// A table or a reference to a common table expression.
    fn table(&mut self, name: &ObjectName, alias: Option<&TableAlias>, level: LevelId) -> Read<()> {
        let table = self.table_ref(name)?;
        let cte = self
            .ctes
            .iter()
            .rev()
            .find(|(cte, _)| table.schema.is_none() && *cte == table.name);
        match cte.map(|(_, slot)| *slot) {
            Some(slot) => {
                self.at(slot).refs += 1;
                self.item(Source::Level(slot), alias, Some(table.name), level)
            }
            None => self.item(Source::Table(table), alias, None, level),
        }
    }

    /// Adds an item; `name` is what it is called if it has no alias and is no table.
    pub(super) fn item(
        &mut self,
        source: Source,
        alias: Option<&TableAlias>,
        name: Option<String>,
        level: LevelId,
    ) -> Read<()> {
        let columns = match alias {
            Some(alias) => self.alias_columns(alias)?,
            None => Vec::new(),
        };
        let alias = match alias {
            Some(alias) => Some(self.ident(&alias.name)?),
            None => name,
        };
        self.at(level).items.push(Item {
            source,
            alias,
            columns,
        });
        self.items += 1;
        if self.items > MOST_ITEMS {
            return stop("a statement of so many tables");
        }
        Ok(())
    }

    pub(super) fn alias_columns(&mut self, alias: &TableAlias) -> Read<Vec<String>> {
        if alias.at.is_some() {
            return stop("an alias with AT");
        }
        let mut columns = Vec::with_capacity(alias.columns.len());
        for column in &alias.columns {
            columns.push(self.ident(&column.name)?);
            if let Some(data_type) = &column.data_type {
                self.data_type(data_type)?;
            }
        }
        Ok(columns)
    }
}
