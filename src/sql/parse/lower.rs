//! From syntax tree to query levels.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use sqlparser::ast::{
    self, Distinct, GroupByExpr, GroupByWithModifier, Ident, LimitClause, ObjectName,
    ObjectNamePart, OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind,
    SetExpr, Statement,
};

use super::cut::Raw;
use super::{expr, name};
use crate::sql::plan::{
    Body, Fact, Features, Gives, Item, Level, LevelId, Output, ParamUse, Place, Plan, SchemaRef,
    Source, TableRef, TypedBy,
};
use crate::sql::rewrite::Pos;
use crate::sql::shape::{Hole, HoleKind};

/// Why the statement can't be read.
#[derive(Debug)]
pub(super) struct Stop(pub(super) String);

pub(super) type Read<T> = Result<T, Stop>;

/// A construct that routing does not know.
pub(super) fn stop<T>(what: &str) -> Read<T> {
    Err(Stop(format!("{what} is not understood")))
}

/// The plan in the making.
pub(super) struct Lower<'t> {
    pub(super) text: &'t [u8],
    pub(super) holes: &'t [Hole],
    pub(super) plan: Plan,
    /// Where words begin that have a meaning.
    pub(super) known: HashSet<usize>,
    /// Where parameters begin whose use is noted.
    pub(super) params_seen: HashSet<usize>,
    /// Aliases of USING, by where its first column begins.
    pub(super) join_aliases: HashMap<usize, String>,
    /// Where the parentheses of common table expressions close that have columns which SEARCH and CYCLE add.
    pub(super) widened: HashSet<usize>,
    /// How many FROM items there are.
    pub(super) items: usize,
    /// The levels of the subqueries walked so far, by the address of their syntax tree, which stays in place.
    subqueries: HashMap<usize, LevelId>,
    /// Common table expressions in scope, the innermost last.
    pub(super) ctes: Vec<(String, LevelId)>,
}

impl<'t> Lower<'t> {
    pub(super) fn new(text: &'t [u8], holes: &'t [Hole]) -> Self {
        Lower {
            text,
            holes,
            plan: Plan::default(),
            known: HashSet::new(),
            params_seen: HashSet::new(),
            join_aliases: HashMap::new(),
            widened: HashSet::new(),
            items: 0,
            subqueries: HashMap::new(),
            ctes: Vec::new(),
        }
    }

    /// The plan, with the words of `raws` that were given no meaning and the parameters that were not seen.
    pub(super) fn finish(mut self, raws: &[Raw]) -> Plan {
        for raw in raws {
            if let Some(name) = name(raw).filter(|_| !self.known.contains(&raw.start)) {
                self.plan.words.push(name.to_owned());
            }
            if raw.kind == super::cut::RawKind::Param && !self.params_seen.contains(&raw.start) {
                let text = String::from_utf8_lossy(&self.text[raw.start..raw.end]);
                let param = super::terms::param_number(&text).unwrap_or(0);
                self.plan.params.push(ParamUse {
                    param,
                    with: TypedBy::Unknown,
                });
            }
        }
        self.plan.words.sort_unstable();
        self.plan.words.dedup();
        self.plan
    }

    pub(super) fn level_of(&self, query: &Query) -> Option<LevelId> {
        self.subqueries
            .get(&(std::ptr::from_ref(query) as usize))
            .copied()
    }

    /// Notes the level of a subquery in an expression.
    pub(super) fn subquery(&mut self, query: &Query, level: LevelId) -> Read<LevelId> {
        let id = self.query(query, Some(level))?;
        self.subqueries
            .insert(std::ptr::from_ref(query) as usize, id);
        Ok(id)
    }

    /// The hole that begins at `column` (a byte offset plus one).
    pub(super) fn hole_at(&self, column: u64) -> Option<u32> {
        let start = u32::try_from(column.checked_sub(1)?).ok()?;
        self.holes
            .binary_search_by_key(&start, |h| h.start)
            .ok()
            .map(|at| at as u32)
    }

    pub(super) fn is_number(&self, hole: u32) -> bool {
        self.holes
            .get(hole as usize)
            .is_some_and(|h| h.kind == HoleKind::Number)
    }

    pub(super) fn is_quoted(&self, ident: &Ident) -> bool {
        let start = ident
            .span
            .start
            .column
            .checked_sub(1)
            .map(|c| self.text.get(c as usize));
        start == Some(Some(&b'"'))
    }

    /// Gives a name of the text its meaning.
    pub(super) fn ident(&mut self, ident: &Ident) -> Read<String> {
        self.place(ident)?;
        Ok(ident.value.clone())
    }

    /// Where an identifier stands, checked against the text.
    pub(super) fn place(&mut self, ident: &Ident) -> Read<Place> {
        let start = ident
            .span
            .start
            .column
            .checked_sub(1)
            .filter(|_| ident.span.start.line == 1);
        let Some(start) = start.map(|s| s as usize).filter(|s| *s < self.text.len()) else {
            return stop("a name without a place");
        };
        self.known.insert(start);
        let end = crate::sql::token::tokens(&self.text[start..], &[])
            .next()
            .map_or(start, |t| start + t.span.end);
        Ok(Place {
            pos: Pos::of(start, self.holes),
            len: (end - start) as u32,
        })
    }

    pub(super) fn idents<'n>(&mut self, name: &'n ObjectName) -> Read<Vec<&'n Ident>> {
        let mut idents = Vec::with_capacity(name.0.len());
        for part in &name.0 {
            match part {
                ObjectNamePart::Identifier(ident) => {
                    self.place(ident)?;
                    idents.push(ident);
                }
                ObjectNamePart::Function(_) => return stop("a name made by a function"),
            }
        }
        Ok(idents)
    }

    pub(super) fn table_ref(&mut self, name: &ObjectName) -> Read<TableRef> {
        let idents = self.idents(name)?;
        match idents[..] {
            [table] => Ok(TableRef {
                schema: None,
                name: table.value.clone(),
                place: self.place(table)?,
            }),
            [schema, table] => Ok(TableRef {
                schema: Some((schema.value.clone(), self.place(schema)?)),
                name: table.value.clone(),
                place: self.place(table)?,
            }),
            _ => stop("a table's name of three parts"),
        }
    }

    /// Notes `schema.table.column` and `schema.table.*`.
    pub(super) fn schema_ref(&mut self, idents: &[Ident]) -> Read<()> {
        for ident in idents {
            self.place(ident)?;
        }
        let (schema, table) = match idents {
            [schema, table, _] => (schema, table),
            [_, _, _, _, ..] => return stop("a name of four parts"),
            _ => return Ok(()),
        };
        let place = self.place(schema)?;
        self.plan.schemas.push(SchemaRef {
            schema: schema.value.clone(),
            place,
            table: table.value.clone(),
        });
        Ok(())
    }

    pub(super) fn new_level(&mut self, parent: Option<LevelId>, body: Body) -> LevelId {
        self.plan.levels.push(Level {
            parent,
            body,
            items: Vec::new(),
            joins: Vec::new(),
            facts: Vec::new(),
            outputs: Vec::new(),
            gives: Gives::default(),
            features: Features::default(),
            refs: 0,
            recursive: false,
        });
        self.plan.levels.len() - 1
    }

    pub(super) fn at(&mut self, level: LevelId) -> &mut Level {
        &mut self.plan.levels[level]
    }

    /// Reads a query; names that it lacks are looked for in `parent`.
    pub(super) fn query(&mut self, query: &Query, parent: Option<LevelId>) -> Read<LevelId> {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        if for_clause.is_some()
            || settings.is_some()
            || format_clause.is_some()
            || !pipe_operators.is_empty()
        {
            return stop("a clause of another database");
        }
        let scope = self.ctes.len();
        if let Some(with) = with {
            self.with(with, parent)?;
        }
        let level = self.set_expr(body, parent)?;
        if let Some(order_by) = order_by {
            match &order_by.kind {
                OrderByKind::Expressions(exprs) if order_by.interpolate.is_none() => {
                    self.order_by(exprs, level)?;
                }
                _ => return stop("ORDER BY ALL"),
            }
            self.at(level).features.order = true;
        }
        if let Some(limit) = limit_clause {
            match limit {
                LimitClause::LimitOffset {
                    limit,
                    offset,
                    limit_by,
                } if limit_by.is_empty() => {
                    for expr in limit.iter().chain(offset.as_ref().map(|o| &o.value)) {
                        self.walk(expr, level)?;
                    }
                }
                _ => return stop("LIMIT with a comma or BY"),
            }
            self.at(level).features.limit = true;
        }
        if let Some(fetch) = fetch {
            if let Some(quantity) = &fetch.quantity {
                self.walk(quantity, level)?;
            }
            self.at(level).features.limit = true;
        }
        if !locks.is_empty() {
            self.at(level).features.locking = true;
        }
        self.ctes.truncate(scope);
        Ok(level)
    }

    /// Each common table expression is a level of its own that selects all of its query, so that references to it
    /// have a number before it is read (WITH RECURSIVE).
    fn with(&mut self, with: &ast::With, parent: Option<LevelId>) -> Read<()> {
        let mut slots = Vec::with_capacity(with.cte_tables.len());
        for cte in &with.cte_tables {
            if cte.from.is_some() {
                return stop("FROM after a common table expression");
            }
            let slot = self.new_level(parent, Body::Select);
            self.at(slot).recursive = with.recursive;
            let name = self.ident(&cte.alias.name)?;
            if with.recursive {
                self.ctes.push((name.clone(), slot));
            }
            slots.push((name, slot));
        }
        for (cte, (name, slot)) in with.cte_tables.iter().zip(slots) {
            let inner = self.query(&cte.query, parent)?;
            self.at(inner).refs += 1;
            let columns = self.alias_columns(&cte.alias)?;
            let end = cte.closing_paren_token.0.span.start.column as usize;
            let widened = self.widened.contains(&end.wrapping_sub(1));
            let level = self.at(slot);
            level.items.push(Item {
                source: Source::Level(inner),
                alias: None,
                columns,
            });
            level.outputs.push(Output::Star(None));
            if widened {
                level.outputs.push(Output::Star(Some(String::new())));
            }
            if !with.recursive {
                self.ctes.push((name, slot));
            }
        }
        Ok(())
    }

    fn set_expr(&mut self, body: &SetExpr, parent: Option<LevelId>) -> Read<LevelId> {
        match body {
            SetExpr::Select(select) => self.select(select, parent),
            SetExpr::Query(query) => self.query(query, parent),
            SetExpr::SetOperation { left, right, .. } => {
                let left = self.set_expr(left, parent)?;
                let right = self.set_expr(right, parent)?;
                self.at(left).refs += 1;
                self.at(right).refs += 1;
                Ok(self.new_level(parent, Body::SetOp(left, right)))
            }
            SetExpr::Values(values) => {
                let level = self.new_level(parent, Body::Values(Vec::new()));
                let mut rows = Vec::with_capacity(values.rows.len());
                for row in &values.rows {
                    let row = &row.content;
                    for (at, value) in row.iter().enumerate() {
                        self.walk_typed(value, level, TypedBy::Row(level, at))?;
                    }
                    rows.push(row.iter().map(|value| self.term(value)).collect());
                }
                self.at(level).body = Body::Values(rows);
                Ok(level)
            }
            SetExpr::Insert(statement)
            | SetExpr::Update(statement)
            | SetExpr::Delete(statement)
            | SetExpr::Merge(statement) => match statement {
                Statement::Insert(insert) => self.insert(insert, parent),
                Statement::Update(update) => self.update(update, parent),
                Statement::Delete(delete) => self.delete(delete, parent),
                Statement::Merge(merge) => self.merge(merge, parent),
                _ => stop("a statement inside a query"),
            },
            SetExpr::Table(_) => stop("TABLE"),
        }
    }

    fn select(&mut self, select: &Select, parent: Option<LevelId>) -> Read<LevelId> {
        let Select {
            select_token: _,
            optimizer_hints,
            distinct,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        if into.is_some() {
            return stop("SELECT INTO");
        }
        if !optimizer_hints.is_empty()
            || select_modifiers.is_some()
            || top.is_some()
            || exclude.is_some()
            || !lateral_views.is_empty()
            || prewhere.is_some()
            || !connect_by.is_empty()
            || !cluster_by.is_empty()
            || !distribute_by.is_empty()
            || !sort_by.is_empty()
            || qualify.is_some()
            || value_table_mode.is_some()
            || *flavor != ast::SelectFlavor::Standard
        {
            return stop("a clause of another database");
        }
        let level = self.new_level(parent, Body::Select);
        for tables in from {
            self.joined(tables, level)?;
        }
        self.condition(selection.as_ref(), level)?;
        self.outputs(projection, level)?;
        match distinct {
            None | Some(Distinct::All) => {}
            Some(Distinct::Distinct) => {
                self.at(level).features.distinct = true;
                self.at(level).gives = Gives::Alike;
            }
            Some(Distinct::On(exprs)) => {
                self.walk_all(exprs, level)?;
                self.at(level).features.distinct = true;
                self.at(level).gives = Gives::Other;
            }
        }
        self.group_by(group_by, level)?;
        if let Some(having) = having {
            self.walk(having, level)?;
            self.grouped(level, Gives::Groups(Vec::new()));
        }
        for window in named_window {
            self.ident(&window.0)?;
            match &window.1 {
                ast::NamedWindowExpr::NamedWindow(name) => drop(self.ident(name)?),
                ast::NamedWindowExpr::WindowSpec(spec) => self.window_spec(spec, level)?,
            }
            self.at(level).features.window = true;
        }
        Ok(level)
    }

    fn group_by(&mut self, group_by: &GroupByExpr, level: LevelId) -> Read<()> {
        let (exprs, modifiers) = match group_by {
            GroupByExpr::All(_) => return stop("GROUP BY ALL"),
            GroupByExpr::Expressions(exprs, modifiers) => (exprs, modifiers),
        };
        self.walk_all(exprs, level)?;
        for modifier in modifiers {
            match modifier {
                GroupByWithModifier::GroupingSets(sets) => self.walk(sets, level)?,
                _ => return stop("GROUP BY ... WITH"),
            }
        }
        if !exprs.is_empty() || !modifiers.is_empty() {
            let sets = |e: &ast::Expr| {
                use ast::Expr::{Cube, GroupingSets, Rollup};
                matches!(
                    e,
                    GroupingSets(_) | Cube(_) | Rollup(_) | ast::Expr::Tuple(_)
                )
            };
            let gives = match modifiers.is_empty() && !exprs.iter().any(sets) {
                true => Gives::Groups(exprs.iter().map(|expr| self.term(expr)).collect()),
                false => Gives::Other,
            };
            self.grouped(level, gives);
        }
        Ok(())
    }

    /// GROUP BY, or HAVING alone.
    fn grouped(&mut self, level: LevelId, gives: Gives) {
        let level = self.at(level);
        if !level.features.group && level.gives != Gives::Other {
            level.gives = gives;
        }
        level.features.group = true;
    }

    /// WHERE: restricts all items of the level.
    pub(super) fn condition(&mut self, selection: Option<&ast::Expr>, level: LevelId) -> Read<()> {
        let Some(selection) = selection else {
            return Ok(());
        };
        self.walk(selection, level)?;
        let all = 0..self.at(level).items.len();
        self.facts(selection, level, all);
        Ok(())
    }

    pub(super) fn facts(&mut self, expr: &ast::Expr, level: LevelId, restricts: Range<usize>) {
        for what in self.conditions(expr) {
            self.plan.levels[level].facts.push(Fact {
                restricts: restricts.clone(),
                what,
            });
        }
    }

    pub(super) fn outputs(&mut self, items: &[SelectItem], level: LevelId) -> Read<()> {
        for (at, item) in items.iter().enumerate() {
            let output = match item {
                SelectItem::UnnamedExpr(expr) if expr::is_all_fields(expr) => {
                    // The columns of a composite value: how many is not known.
                    self.walk(expr, level)?;
                    Output::Star(Some(String::new()))
                }
                SelectItem::UnnamedExpr(expr) => {
                    self.walk_typed(expr, level, TypedBy::Row(level, at))?;
                    Output::Term(expr::natural_name(expr), self.term(expr))
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    self.walk_typed(expr, level, TypedBy::Row(level, at))?;
                    Output::Term(Some(self.ident(alias)?), self.term(expr))
                }
                SelectItem::Wildcard(options) if is_plain(options) => Output::Star(None),
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(name),
                    options,
                ) if is_plain(options) => {
                    let idents: Vec<Ident> = self.idents(name)?.into_iter().cloned().collect();
                    let last = match &idents[..] {
                        [table] => table.clone(),
                        [schema, table] => {
                            self.schema_ref(&[schema.clone(), table.clone(), table.clone()])?;
                            table.clone()
                        }
                        _ => return stop("a name of four parts"),
                    };
                    Output::Star(Some(last.value))
                }
                _ => return stop("a SELECT item"),
            };
            self.at(level).outputs.push(output);
        }
        Ok(())
    }
}

fn is_plain(options: &ast::WildcardAdditionalOptions) -> bool {
    options.opt_ilike.is_none()
        && options.opt_exclude.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none()
        && options.opt_alias.is_none()
}

/// The parts of a name.
pub(super) fn parts(name: &ObjectName) -> Option<Vec<&str>> {
    let idents = name.0.iter().map(ObjectNamePart::as_ident);
    idents
        .map(|ident| ident.map(|ident| ident.value.as_str()))
        .collect()
}
