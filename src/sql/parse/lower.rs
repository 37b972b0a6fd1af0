//! From syntax tree to query levels.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use sqlparser::ast::{
    self, AssignmentTarget, ConflictTarget, Distinct, FromTable, GroupByExpr, GroupByWithModifier, Ident,
    JoinConstraint, JoinOperator, LimitClause, MergeAction, MergeClauseKind, MergeInsertKind, MergeUpdateKind,
    ObjectName, ObjectNamePart, OnConflictAction, OnInsert, OrderByKind, OutputClause, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, Statement, TableAlias, TableFactor, TableObject, TableWithJoins,
    UpdateTableFromKind,
};

use super::tokens::Raw;
use super::{expr, name};
use crate::sql::plan::{
    Body, Fact, Features, Item, Join, JoinKind, Level, LevelId, Output, ParamUse, Place, Plan, SchemaRef, Set,
    Source, TableRef, Term, TypedBy, Using,
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
    /// The levels of the subqueries walked so far, by the address of their syntax tree, which stays in place.
    subqueries: HashMap<usize, LevelId>,
    /// Common table expressions in scope, the innermost last.
    ctes: Vec<(String, LevelId)>,
}

impl<'t> Lower<'t> {
    pub(super) fn new(text: &'t [u8], holes: &'t [Hole]) -> Self {
        Lower {
            text,
            holes,
            plan: Plan::default(),
            known: HashSet::new(),
            params_seen: HashSet::new(),
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
            if raw.kind == super::tokens::RawKind::Param && !self.params_seen.contains(&raw.start) {
                let text = String::from_utf8_lossy(&self.text[raw.start..raw.end]);
                let param = super::terms::param_number(&text).unwrap_or(0);
                self.plan.params.push(ParamUse { param, with: TypedBy::Unknown });
            }
        }
        self.plan.words.sort_unstable();
        self.plan.words.dedup();
        self.plan
    }

    pub(super) fn level_of(&self, query: &Query) -> Option<LevelId> {
        self.subqueries.get(&(std::ptr::from_ref(query) as usize)).copied()
    }

    /// Notes the level of a subquery in an expression.
    pub(super) fn subquery(&mut self, query: &Query, level: LevelId) -> Read<LevelId> {
        let id = self.query(query, Some(level))?;
        self.subqueries.insert(std::ptr::from_ref(query) as usize, id);
        Ok(id)
    }

    /// The hole that begins at `column` (a byte offset plus one).
    pub(super) fn hole_at(&self, column: u64) -> Option<u32> {
        let start = u32::try_from(column.checked_sub(1)?).ok()?;
        self.holes.binary_search_by_key(&start, |h| h.start).ok().map(|at| at as u32)
    }

    pub(super) fn is_number(&self, hole: u32) -> bool {
        self.holes.get(hole as usize).is_some_and(|h| h.kind == HoleKind::Number)
    }

    pub(super) fn is_quoted(&self, ident: &Ident) -> bool {
        let start = ident.span.start.column.checked_sub(1).map(|c| self.text.get(c as usize));
        start == Some(Some(&b'"'))
    }

    /// Gives a name of the text its meaning.
    pub(super) fn ident(&mut self, ident: &Ident) -> Read<String> {
        self.place(ident)?;
        Ok(ident.value.clone())
    }

    /// Where an identifier stands, checked against the text.
    fn place(&mut self, ident: &Ident) -> Read<Place> {
        let start = ident.span.start.column.checked_sub(1).filter(|_| ident.span.start.line == 1);
        let Some(start) = start.map(|s| s as usize).filter(|s| *s < self.text.len()) else {
            return stop("a name without a place");
        };
        self.known.insert(start);
        let end = crate::sql::token::tokens(&self.text[start..], &[]).next().map_or(start, |t| start + t.span.end);
        Ok(Place { pos: Pos::of(start, self.holes), len: (end - start) as u32 })
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

    fn table_ref(&mut self, name: &ObjectName) -> Read<TableRef> {
        let idents = self.idents(name)?;
        match idents[..] {
            [table] => Ok(TableRef { schema: None, name: table.value.clone(), place: self.place(table)? }),
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
        self.plan.schemas.push(SchemaRef { schema: schema.value.clone(), place, table: table.value.clone() });
        Ok(())
    }

    fn new_level(&mut self, parent: Option<LevelId>, body: Body) -> LevelId {
        self.plan.levels.push(Level {
            parent,
            body,
            items: Vec::new(),
            joins: Vec::new(),
            facts: Vec::new(),
            outputs: Vec::new(),
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
        let Query { with, body, order_by, limit_clause, fetch, locks, for_clause, settings, format_clause, pipe_operators } =
            query;
        if for_clause.is_some() || settings.is_some() || format_clause.is_some() || !pipe_operators.is_empty() {
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
                LimitClause::LimitOffset { limit, offset, limit_by } if limit_by.is_empty() => {
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
            let level = self.at(slot);
            level.items.push(Item { source: Source::Level(inner), alias: None, columns });
            level.outputs.push(Output::Star(None));
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
            Some(Distinct::Distinct) => self.at(level).features.distinct = true,
            Some(Distinct::On(exprs)) => {
                self.walk_all(exprs, level)?;
                self.at(level).features.distinct = true;
            }
        }
        self.group_by(group_by, level)?;
        if let Some(having) = having {
            self.walk(having, level)?;
            self.at(level).features.group = true;
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
            self.at(level).features.group = true;
        }
        Ok(())
    }

    /// WHERE: restricts all items of the level.
    fn condition(&mut self, selection: Option<&ast::Expr>, level: LevelId) -> Read<()> {
        let Some(selection) = selection else { return Ok(()) };
        self.walk(selection, level)?;
        let all = 0..self.at(level).items.len();
        self.facts(selection, level, all);
        Ok(())
    }

    fn facts(&mut self, expr: &ast::Expr, level: LevelId, restricts: Range<usize>) {
        for what in self.conditions(expr) {
            self.plan.levels[level].facts.push(Fact { restricts: restricts.clone(), what });
        }
    }

    fn outputs(&mut self, items: &[SelectItem], level: LevelId) -> Read<()> {
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
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options)
                    if is_plain(options) =>
                {
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

    fn joined(&mut self, tables: &TableWithJoins, level: LevelId) -> Read<Range<usize>> {
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
                JoinOperator::Join(c) | JoinOperator::Inner(c) | JoinOperator::CrossJoin(c) => (JoinKind::Inner, c),
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
                            [column] => columns.push(column.value.clone()),
                            _ => return stop("USING"),
                        }
                    }
                    Using::Columns(columns)
                }
                JoinConstraint::Natural => Using::Natural,
                JoinConstraint::None => Using::Nothing,
            };
            self.at(level).joins.push(Join { left, right, kind, using });
        }
        Ok(start..self.at(level).items.len())
    }

    fn factor(&mut self, factor: &TableFactor, level: LevelId) -> Read<Range<usize>> {
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
                        let function = self.from_function(name, &args.args, level)?;
                        self.item(Source::Function(function.clone()), alias.as_ref(), Some(function), level)?;
                    }
                    Some(_) => return stop("SETTINGS"),
                    None => self.table(name, alias.as_ref(), level)?,
                }
            }
            TableFactor::Derived { lateral, subquery, alias, sample: None } => {
                let parent = if *lateral { Some(level) } else { self.at(level).parent };
                let inner = self.query(subquery, parent)?;
                self.at(inner).refs += 1;
                self.item(Source::Level(inner), alias.as_ref(), None, level)?;
            }
            TableFactor::Function { lateral: _, name, args, with_ordinality: _, alias } => {
                let function = self.from_function(name, args, level)?;
                self.item(Source::Function(function.clone()), alias.as_ref(), Some(function), level)?;
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
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
        let cte = self.ctes.iter().rev().find(|(cte, _)| table.schema.is_none() && *cte == table.name);
        match cte.map(|(_, slot)| *slot) {
            Some(slot) => {
                self.at(slot).refs += 1;
                self.item(Source::Level(slot), alias, Some(table.name), level)
            }
            None => self.item(Source::Table(table), alias, None, level),
        }
    }

    /// Adds an item; `name` is what it is called if it has no alias and is no table.
    fn item(&mut self, source: Source, alias: Option<&TableAlias>, name: Option<String>, level: LevelId) -> Read<()> {
        let columns = match alias {
            Some(alias) => self.alias_columns(alias)?,
            None => Vec::new(),
        };
        let alias = match alias {
            Some(alias) => Some(self.ident(&alias.name)?),
            None => name,
        };
        self.at(level).items.push(Item { source, alias, columns });
        Ok(())
    }

    fn alias_columns(&mut self, alias: &TableAlias) -> Read<Vec<String>> {
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

    fn insert(&mut self, insert: &ast::Insert, parent: Option<LevelId>) -> Read<LevelId> {
        let ast::Insert {
            insert_token: _,
            optimizer_hints,
            or: None,
            ignore: false,
            into: true,
            table: TableObject::TableName(table),
            table_alias,
            columns,
            overwrite: false,
            source,
            assignments,
            partitioned: None,
            after_columns,
            has_table_keyword: false,
            on,
            returning,
            output: None,
            replace_into: false,
            priority: None,
            insert_alias: None,
            settings: None,
            format_clause: None,
            multi_table_insert_type: None,
            multi_table_into_clauses,
            multi_table_when_clauses,
            multi_table_else_clause: None,
        } = insert
        else {
            return stop("INSERT with a clause of another database");
        };
        if !optimizer_hints.is_empty()
            || !assignments.is_empty()
            || !after_columns.is_empty()
            || !multi_table_into_clauses.is_empty()
            || !multi_table_when_clauses.is_empty()
        {
            return stop("INSERT with a clause of another database");
        }
        let level = self.new_level(parent, Body::Delete);
        let table = self.table_ref(table)?;
        let alias = match table_alias {
            Some(alias) => Some(self.ident(&alias.alias)?),
            None => None,
        };
        self.at(level).items.push(Item { source: Source::Table(table), alias, columns: Vec::new() });
        let named = self.columns(columns)?;
        let columns = if named.is_empty() { None } else { Some(named) };
        let source = match source {
            Some(source) => {
                let source = self.query(source, parent)?;
                self.at(source).refs += 1;
                Some(source)
            }
            None => None,
        };
        let sets = self.on_conflict(on.as_ref(), level)?;
        self.at(level).body = Body::Insert { columns, source, sets };
        self.outputs(returning.as_deref().unwrap_or_default(), level)?;
        Ok(level)
    }

    fn on_conflict(&mut self, on: Option<&OnInsert>, level: LevelId) -> Read<Vec<Set>> {
        let conflict = match on {
            None => return Ok(Vec::new()),
            Some(OnInsert::OnConflict(conflict)) => conflict,
            Some(_) => return stop("ON DUPLICATE KEY"),
        };
        match &conflict.conflict_target {
            None => {}
            Some(ConflictTarget::OnConstraint(name)) => drop(self.idents(name)?),
            Some(ConflictTarget::Columns(columns)) => {
                for column in columns {
                    self.ident(column)?;
                }
            }
        }
        let OnConflictAction::DoUpdate(update) = &conflict.action else { return Ok(Vec::new()) };
        let excluded = Item { source: Source::Excluded, alias: Some("excluded".to_owned()), columns: Vec::new() };
        self.at(level).items.push(excluded);
        let sets = self.sets(&update.assignments, level)?;
        if let Some(selection) = &update.selection {
            self.walk(selection, level)?;
        }
        Ok(sets)
    }

    fn update(&mut self, update: &ast::Update, parent: Option<LevelId>) -> Read<LevelId> {
        let ast::Update {
            update_token: _,
            optimizer_hints,
            table,
            assignments,
            from,
            selection,
            returning,
            output: None,
            or: None,
            order_by,
            limit: None,
        } = update
        else {
            return stop("UPDATE with a clause of another database");
        };
        if !optimizer_hints.is_empty() || !order_by.is_empty() {
            return stop("UPDATE with a clause of another database");
        }
        let level = self.new_level(parent, Body::Delete);
        self.target(table, level)?;
        match from {
            None => {}
            Some(UpdateTableFromKind::AfterSet(tables)) => {
                for tables in tables {
                    self.joined(tables, level)?;
                }
            }
            Some(UpdateTableFromKind::BeforeSet(_)) => return stop("UPDATE ... FROM ... SET"),
        }
        let sets = self.sets(assignments, level)?;
        self.at(level).body = Body::Update(sets);
        self.condition(selection.as_ref(), level)?;
        self.outputs(returning.as_deref().unwrap_or_default(), level)?;
        Ok(level)
    }

    /// The one table that is written.
    fn target(&mut self, table: &TableWithJoins, level: LevelId) -> Read<()> {
        let TableFactor::Table { name, alias, args: None, .. } = &table.relation else {
            return stop("what is written is no table");
        };
        if !table.joins.is_empty() {
            return stop("a join is written");
        }
        self.write_target(name, alias.as_ref(), level)
    }

    /// A common table expression can't be written: the name is a table's.
    fn write_target(&mut self, name: &ObjectName, alias: Option<&TableAlias>, level: LevelId) -> Read<()> {
        let table = self.table_ref(name)?;
        self.item(Source::Table(table), alias, None, level)
    }

    fn delete(&mut self, delete: &ast::Delete, parent: Option<LevelId>) -> Read<LevelId> {
        let ast::Delete {
            delete_token: _,
            optimizer_hints,
            tables,
            from: FromTable::WithFromKeyword(from),
            using,
            selection,
            returning,
            output: None,
            order_by,
            limit: None,
        } = delete
        else {
            return stop("DELETE with a clause of another database");
        };
        let ([], [], [], [from]) = (&optimizer_hints[..], &tables[..], &order_by[..], &from[..]) else {
            return stop("DELETE with a clause of another database");
        };
        let level = self.new_level(parent, Body::Delete);
        self.target(from, level)?;
        for tables in using.iter().flatten() {
            self.joined(tables, level)?;
        }
        self.condition(selection.as_ref(), level)?;
        self.outputs(returning.as_deref().unwrap_or_default(), level)?;
        Ok(level)
    }

    fn merge(&mut self, merge: &ast::Merge, parent: Option<LevelId>) -> Read<LevelId> {
        let ast::Merge { merge_token: _, optimizer_hints, into: true, table, source, on, clauses, output } = merge else {
            return stop("MERGE without INTO");
        };
        let TableFactor::Table { name, alias, args: None, .. } = table else {
            return stop("what is written is no table");
        };
        if !optimizer_hints.is_empty() {
            return stop("MERGE with a clause of another database");
        }
        let level = self.new_level(parent, Body::Delete);
        self.write_target(name, alias.as_ref(), level)?;
        self.factor(source, level)?;
        self.walk(on, level)?;
        let (mut inserts, mut all_sets, mut by_source) = (Vec::new(), Vec::new(), false);
        for clause in clauses {
            if let Some(predicate) = &clause.predicate {
                self.walk(predicate, level)?;
            }
            by_source |= clause.clause_kind == MergeClauseKind::NotMatchedBySource;
            match &clause.action {
                MergeAction::Delete { .. } | MergeAction::DoNothing { .. } => {}
                MergeAction::Update(update) => {
                    let MergeUpdateKind::Set(sets) = &update.kind else { return stop("UPDATE SET *") };
                    if update.update_predicate.is_some() || update.delete_predicate.is_some() {
                        return stop("WHERE in MERGE");
                    }
                    all_sets.extend(self.sets(sets, level)?);
                }
                MergeAction::Insert(insert) => {
                    let named = self.columns(&insert.columns)?;
                    let MergeInsertKind::Values(values) = &insert.kind else { return stop("INSERT ROW in MERGE") };
                    let ([row], None) = (&values.rows[..], &insert.insert_predicate) else {
                        return stop("INSERT of several rows in MERGE");
                    };
                    self.walk_all(&row.content, level)?;
                    let row = row.content.iter().map(|value| self.term(value)).collect();
                    inserts.push((if named.is_empty() { None } else { Some(named) }, row));
                }
            }
        }
        // The target is the nullable side; both are preserved if rows of the target that match nothing are acted on.
        if !by_source {
            self.facts(on, level, 0..1);
        }
        self.at(level).body = Body::Merge { inserts, sets: all_sets, by_source };
        match output {
            None => {}
            Some(OutputClause::Returning { select_items, .. }) => self.outputs(select_items, level)?,
            Some(OutputClause::Output { .. }) => return stop("OUTPUT"),
        }
        Ok(level)
    }

    /// Column names: the first part of each, for what follows is a field inside.
    fn columns(&mut self, names: &[ObjectName]) -> Read<Vec<String>> {
        let mut columns = Vec::with_capacity(names.len());
        for name in names {
            match self.idents(name)?.first() {
                Some(first) => columns.push(first.value.clone()),
                None => return stop("a column without a name"),
            }
        }
        Ok(columns)
    }

    fn sets(&mut self, assignments: &[ast::Assignment], level: LevelId) -> Read<Vec<Set>> {
        let mut sets = Vec::with_capacity(assignments.len());
        for ast::Assignment { target, value } in assignments {
            match target {
                AssignmentTarget::ColumnName(name) => {
                    let [column] = &self.columns(std::slice::from_ref(name))?[..] else { return stop("SET") };
                    let whole = name.0.len() == 1;
                    self.walk_typed(value, level, TypedBy::Target(level, column.clone()))?;
                    let value = if whole { self.term(value) } else { Term::Other };
                    sets.push(Set { column: column.clone(), value });
                }
                AssignmentTarget::Tuple(names) => {
                    let columns = self.columns(names)?;
                    self.walk(value, level)?;
                    let values = match super::terms::strip(value) {
                        ast::Expr::Tuple(values) if values.len() == columns.len() => Some(values),
                        _ => None,
                    };
                    for (at, column) in columns.into_iter().enumerate() {
                        let value = values.map_or(Term::Other, |values| self.term(&values[at]));
                        sets.push(Set { column, value });
                    }
                }
            }
        }
        Ok(sets)
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
    let part = |part| match part {
        &ObjectNamePart::Identifier(ref ident) => Some(ident.value.as_str()),
        ObjectNamePart::Function(_) => None,
    };
    name.0.iter().map(part).collect()
}
