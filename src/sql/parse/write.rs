//! INSERT, UPDATE, DELETE and MERGE.

use sqlparser::ast::{
    self, AssignmentTarget, ConflictTarget, FromTable, MergeAction, MergeClauseKind,
    MergeInsertKind, MergeUpdateKind, ObjectName, OnConflictAction, OnInsert, OutputClause,
    TableAlias, TableFactor, TableObject, TableWithJoins, UpdateTableFromKind,
};

use super::lower::{Lower, Read, stop};
use crate::sql::plan::{Body, Item, LevelId, Set, Source, Term, TypedBy};

impl Lower<'_> {
    pub(super) fn insert(
        &mut self,
        insert: &ast::Insert,
        parent: Option<LevelId>,
    ) -> Read<LevelId> {
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
        self.at(level).items.push(Item {
            source: Source::Table(table),
            alias,
            columns: Vec::new(),
        });
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
        self.at(level).body = Body::Insert {
            columns,
            source,
            sets,
        };
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
        let OnConflictAction::DoUpdate(update) = &conflict.action else {
            return Ok(Vec::new());
        };
        let excluded = Item {
            source: Source::Excluded,
            alias: Some("excluded".to_owned()),
            columns: Vec::new(),
        };
        self.at(level).items.push(excluded);
        let sets = self.sets(&update.assignments, level)?;
        if let Some(selection) = &update.selection {
            self.walk(selection, level)?;
        }
        Ok(sets)
    }

    pub(super) fn update(
        &mut self,
        update: &ast::Update,
        parent: Option<LevelId>,
    ) -> Read<LevelId> {
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
        let TableFactor::Table {
            name,
            alias,
            args: None,
            ..
        } = &table.relation
        else {
            return stop("what is written is no table");
        };
        if !table.joins.is_empty() {
            return stop("a join is written");
        }
        self.write_target(name, alias.as_ref(), level)
    }

    /// A common table expression can't be written: the name is a table's.
    fn write_target(
        &mut self,
        name: &ObjectName,
        alias: Option<&TableAlias>,
        level: LevelId,
    ) -> Read<()> {
        let table = self.table_ref(name)?;
        self.item(Source::Table(table), alias, None, level)
    }

    pub(super) fn delete(
        &mut self,
        delete: &ast::Delete,
        parent: Option<LevelId>,
    ) -> Read<LevelId> {
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
        let ([], [], [], [from]) = (&optimizer_hints[..], &tables[..], &order_by[..], &from[..])
        else {
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

    pub(super) fn merge(&mut self, merge: &ast::Merge, parent: Option<LevelId>) -> Read<LevelId> {
        let ast::Merge {
            merge_token: _,
            optimizer_hints,
            into: true,
            table,
            source,
            on,
            clauses,
            output,
        } = merge
        else {
            return stop("MERGE without INTO");
        };
        let TableFactor::Table {
            name,
            alias,
            args: None,
            ..
        } = table
        else {
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
                    let MergeUpdateKind::Set(sets) = &update.kind else {
                        return stop("UPDATE SET *");
                    };
                    if update.update_predicate.is_some() || update.delete_predicate.is_some() {
                        return stop("WHERE in MERGE");
                    }
                    all_sets.extend(self.sets(sets, level)?);
                }
                MergeAction::Insert(insert) => {
                    let named = self.columns(&insert.columns)?;
                    let MergeInsertKind::Values(values) = &insert.kind else {
                        return stop("INSERT ROW in MERGE");
                    };
                    let ([row], None) = (&values.rows[..], &insert.insert_predicate) else {
                        return stop("INSERT of several rows in MERGE");
                    };
                    self.walk_all(&row.content, level)?;
                    let row = row.content.iter().map(|value| self.term(value)).collect();
                    inserts.push((if named.is_empty() { None } else { Some(named) }, row));
                }
            }
        }
        // A branch for rows that match nothing preserves its side; only the other's rows must fulfil the condition.
        let by_target = clauses.iter().any(|clause| {
            matches!(
                clause.clause_kind,
                MergeClauseKind::NotMatched | MergeClauseKind::NotMatchedByTarget
            )
        });
        let all = self.at(level).items.len();
        let restricts = match (by_source, by_target) {
            (false, false) => 0..all,
            (false, true) => 0..1,
            (true, false) => 1..all,
            (true, true) => 0..0,
        };
        self.facts(on, level, restricts);
        self.at(level).body = Body::Merge {
            inserts,
            sets: all_sets,
            by_source,
        };
        match output {
            None => {}
            Some(OutputClause::Returning { select_items, .. }) => {
                self.outputs(select_items, level)?
            }
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
                    let [column] = &self.columns(std::slice::from_ref(name))?[..] else {
                        return stop("SET");
                    };
                    let whole = name.0.len() == 1;
                    self.walk_typed(value, level, TypedBy::Target(level, column.clone()))?;
                    let value = if whole { self.term(value) } else { Term::Other };
                    sets.push(Set {
                        column: column.clone(),
                        value,
                    });
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
