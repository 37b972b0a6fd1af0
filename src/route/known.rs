//! What columns are known to equal: constants carried along equalities, through derived tables and into them, until
//! nothing new is found.
//!
//! "Column c of item i equals v" means: rows of i whose c is not v have no influence on the result. (A row that an
//! outer join fills with nulls is no row of i.)

use std::collections::HashMap;
use std::ops::Range;

use crate::sql::plan::{Body, Condition, Const, Gives, JoinKind, LevelId, Plan, Source, Term};

use super::columns::{ColumnId, Origin, Scope};

/// What a column equals.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Known<'p> {
    /// One value.
    One(&'p Const),
    /// One of some values.
    Many(Vec<&'p Const>),
    /// An element of an array.
    Array(&'p Const),
}

/// How often all facts are looked at. Each round carries values one step further along a chain of equalities that is
/// written in the unlucky order; a longer chain stays unknown, which is refused and never wrong.
const ROUNDS: usize = 32;

/// The longest list that is put together of the arms of set operations.
const MOST_VALUES: usize = 1_000;

/// Finds what is known.
pub(super) struct Knowledge<'s, 'p> {
    scope: &'s Scope<'p>,
    known: HashMap<ColumnId, Known<'p>>,
    /// By level: it calls an aggregate, or what may be one.
    aggregates: Vec<bool>,
    changed: bool,
}

impl<'s, 'p> Knowledge<'s, 'p> {
    pub(super) fn find(scope: &'s Scope<'p>) -> Self {
        let mut aggregates = vec![false; scope.plan.levels.len()];
        for call in scope.plan.calls.iter().filter(|call| !call.from) {
            aggregates[call.level] |= !super::functions::is_plain(&call.name, scope.tables);
        }
        let mut knowledge = Knowledge {
            scope,
            known: HashMap::new(),
            aggregates,
            changed: true,
        };
        for _ in 0..ROUNDS {
            if !std::mem::take(&mut knowledge.changed) {
                break;
            }
            for level in 0..scope.plan.levels.len() {
                knowledge.level(level);
            }
        }
        knowledge
    }

    fn plan(&self) -> &'p Plan {
        self.scope.plan
    }

    pub(super) fn get(&self, column: ColumnId) -> Option<&Known<'p>> {
        self.known.get(&column)
    }

    fn learn(&mut self, column: ColumnId, known: Known<'p>) {
        if self.scope.tables.nondeterministic() && !self.scope.equal_is_same(column) {
            return;
        }
        let better = match self.known.get(&column) {
            None => true,
            // One value says more than a choice.
            Some(Known::Many(_) | Known::Array(_)) => matches!(known, Known::One(_)),
            Some(Known::One(_)) => false,
        };
        if better {
            self.known.insert(column, known);
            self.changed = true;
        }
    }

    fn level(&mut self, level: LevelId) {
        let of = &self.plan().levels[level];
        for fact in &of.facts {
            self.fact(level, &fact.what, fact.restricts.clone());
        }
        for (at, join) in of.joins.iter().enumerate() {
            let restricts = match join.kind {
                JoinKind::Inner => join.left.start..join.right.end,
                JoinKind::Left => join.right.clone(),
                JoinKind::Right => join.left.clone(),
                JoinKind::Full => 0..0,
            };
            for (left, right) in self.scope.joined_by_name(level, at) {
                for (one, other) in [(left, right), (right, left)] {
                    if restricts.contains(&one.item)
                        && let Some(known) = self.known.get(&other).cloned()
                    {
                        self.learn(one, known);
                    }
                }
            }
        }
        for (item, of) in of.items.iter().enumerate() {
            match of.source {
                Source::Level(inner) => self.through(level, item, inner),
                Source::Table(_) | Source::Function(_) | Source::Excluded => {}
            }
        }
        if let Body::Insert { .. } = of.body {
            self.inserted(level);
        }
    }

    fn fact(&mut self, level: LevelId, fact: &'p Condition, restricts: Range<usize>) {
        match fact {
            Condition::Equal(left, right) => {
                self.equals(level, left, right, &restricts);
                self.equals(level, right, left, &restricts);
            }
            Condition::In(term, list) => {
                let constant = |term: &'p Term| match term {
                    Term::Const(value) => Some(value),
                    _ => None,
                };
                let values: Option<Vec<&Const>> = list.iter().map(constant).collect();
                if let (Some(column), Some(values)) =
                    (self.restricted(level, term, &restricts), values)
                {
                    self.learn(column, Known::Many(values));
                }
            }
            Condition::Any(term, array) => {
                if let Some(column) = self.restricted(level, term, &restricts) {
                    self.learn(column, Known::Array(array));
                }
            }
            Condition::Within(term, inner, column) => {
                if let (Some(outer), Some(known)) = (
                    self.restricted(level, term, &restricts),
                    self.of_level(*inner, *column),
                ) {
                    self.learn(outer, known);
                }
                // Only rows equal to the term matter inside.
                if let Some(known) = self.of_term(level, term) {
                    self.into(*inner, *column, known);
                }
            }
        }
    }

    fn equals(&mut self, level: LevelId, term: &Term, value: &'p Term, restricts: &Range<usize>) {
        if let Some(column) = self.restricted(level, term, restricts)
            && let Some(known) = self.of_term(level, value)
        {
            self.learn(column, known);
        }
    }

    /// The column that a term is, if it is one whose rows a fact of this level restricts.
    fn restricted(
        &self,
        level: LevelId,
        term: &Term,
        restricts: &Range<usize>,
    ) -> Option<ColumnId> {
        let Term::Column(column) = term else {
            return None;
        };
        self.scope
            .resolve(level, column)
            .filter(|c| c.level == level && restricts.contains(&c.item))
    }

    /// What a term equals, seen from a level.
    pub(super) fn of_term(&self, level: LevelId, term: &'p Term) -> Option<Known<'p>> {
        match term {
            Term::Const(value) => Some(Known::One(value)),
            Term::Column(column) => self.known.get(&self.scope.resolve(level, column)?).cloned(),
            Term::Output(inner, column) => self.of_level(*inner, *column),
            Term::Default | Term::Call | Term::Other => None,
        }
    }

    /// What a column that a level gives equals (or is null, where an outer join inside fills it).
    pub(super) fn of_level(&self, level: LevelId, column: usize) -> Option<Known<'p>> {
        match &self.plan().levels[level].body {
            Body::SetOp(left, right) => {
                let left = self.of_level(*left, column)?;
                either(left, self.of_level(*right, column)?)
            }
            Body::Values(rows) => {
                let value = |row: &'p Vec<Term>| match row.get(column)? {
                    Term::Const(value) => Some(value),
                    _ => None,
                };
                let values: Vec<&Const> = rows.iter().map(value).collect::<Option<_>>()?;
                match &values[..] {
                    [] => None,
                    [first, rest @ ..] if rest.iter().all(|value| value == first) => {
                        Some(Known::One(first))
                    }
                    _ => Some(Known::Many(values)),
                }
            }
            _ => match self.scope.origin(level, column)? {
                Origin::Term(term) => self.of_output(level, term),
                Origin::Item(item, column) => {
                    let column = ColumnId {
                        level,
                        item,
                        column,
                    };
                    if self.is_set(column) {
                        None
                    } else {
                        self.known.get(&column).cloned()
                    }
                }
            },
        }
    }

    fn of_output(&self, level: LevelId, term: &'p Term) -> Option<Known<'p>> {
        if let Term::Column(column) = term
            && self
                .scope
                .resolve(level, column)
                .is_some_and(|column| self.is_set(column))
        {
            return None;
        }
        self.of_term(level, term)
    }

    /// The statement of the column's level gives it another value, which RETURNING shows.
    fn is_set(&self, column: ColumnId) -> bool {
        let of = &self.plan().levels[column.level];
        let sets = match &of.body {
            Body::Insert { sets, .. } | Body::Update(sets) | Body::Merge { sets, .. } => sets,
            _ => return false,
        };
        if column.item != 0 || sets.is_empty() {
            return false;
        }
        let table = self.scope.table(column.level, 0);
        let name = table
            .and_then(|t| t.columns.get(column.column))
            .map(|column| &column.name);
        name.is_none_or(|name| sets.iter().any(|set| set.column == *name))
    }

    /// Carries what is known out of a derived table and into it.
    fn through(&mut self, level: LevelId, item: usize, inner: LevelId) {
        let Some(width) = self.scope.width(inner) else {
            return;
        };
        for column in 0..width {
            let outside = ColumnId {
                level,
                item,
                column,
            };
            if let Some(known) = self.of_level(inner, column) {
                self.learn(outside, known);
            }
            if let Some(known) = self.known.get(&outside).cloned() {
                self.into(inner, column, known);
            }
        }
    }

    /// Of the rows that a level gives, only those matter whose column equals a value.
    fn into(&mut self, level: LevelId, column: usize, known: Known<'p>) {
        let of = &self.plan().levels[level];
        if of.refs > 1 || !self.lets_conditions_in(level) {
            return;
        }
        if let Body::SetOp(left, right) = of.body {
            self.into(left, column, known.clone());
            self.into(right, column, known);
            return;
        }
        let inside = match self.scope.origin(level, column) {
            Some(Origin::Item(item, column)) => Some(ColumnId {
                level,
                item,
                column,
            }),
            Some(Origin::Term(Term::Column(column))) => self
                .scope
                .resolve(level, column)
                .filter(|c| c.level == level),
            _ => None,
        };
        if let Some(inside) = inside.filter(|inside| self.is_grouped_by(level, *inside)) {
            self.learn(inside, known);
        }
    }

    /// A condition on some column that the level gives can as well stand inside it.
    fn lets_conditions_in(&self, level: LevelId) -> bool {
        let of = &self.plan().levels[level];
        let f = &of.features;
        if f.window || f.limit || f.locking || f.sample || of.gives == Gives::Other {
            return false;
        }
        match of.body {
            Body::SetOp(..) => true,
            Body::Select => f.group || !self.aggregates[level],
            _ => false,
        }
    }

    /// The rows that a condition on this column takes away make rows of their own.
    fn is_grouped_by(&self, level: LevelId, column: ColumnId) -> bool {
        let Gives::Groups(terms) = &self.plan().levels[level].gives else {
            return true;
        };
        let is = |term: &Term| match term {
            Term::Column(name) => self.scope.resolve(level, name) == Some(column),
            _ => false,
        };
        terms.iter().any(is)
    }

    /// A condition on a column that the level gives can as well stand inside it.
    pub(super) fn is_transparent(&self, level: LevelId) -> bool {
        let of = &self.plan().levels[level];
        let plain = matches!(of.body, Body::Select | Body::SetOp(..));
        let f = &of.features;
        plain
            && !(f.distinct || f.group || f.window || f.limit || f.locking || f.sample)
            && !self.aggregates[level]
    }

    /// The row that is inserted: what its columns equal, for RETURNING and ON CONFLICT.
    fn inserted(&mut self, level: LevelId) {
        let Some(table) = self.scope.table(level, 0) else {
            return;
        };
        for column in 0..table.columns.len() {
            if let Some((source, at)) =
                insert_source(self.plan(), level, &table.columns[column].name, column)
                && let Some(known) = self.of_level(source, at)
            {
                self.learn(
                    ColumnId {
                        level,
                        item: 0,
                        column,
                    },
                    known,
                );
            }
        }
    }
}

/// What is known of a value that comes from one of two places.
fn either<'p>(left: Known<'p>, right: Known<'p>) -> Option<Known<'p>> {
    if left == right {
        return Some(left);
    }
    let values = |known| match known {
        Known::One(value) => Some(vec![value]),
        Known::Many(values) => Some(values),
        Known::Array(_) => None,
    };
    let mut all = values(left)?;
    all.extend(values(right)?);
    (all.len() <= MOST_VALUES).then_some(Known::Many(all))
}

/// Which column of which level gives the value of a column of the table that `level` inserts into.
pub(super) fn insert_source(
    plan: &Plan,
    level: LevelId,
    name: &str,
    index: usize,
) -> Option<(LevelId, usize)> {
    let Body::Insert {
        columns, source, ..
    } = &plan.levels[level].body
    else {
        return None;
    };
    let at = match columns {
        Some(columns) => columns.iter().position(|c| c == name)?,
        None => index,
    };
    Some(((*source)?, at))
}
