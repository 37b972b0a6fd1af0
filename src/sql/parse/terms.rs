//! What an expression is to routing: a term, and the conditions that must hold where it stands as a condition.

use smallvec::SmallVec;
use sqlparser::ast::{BinaryOperator, CastKind, DataType, Expr, ObjectName, UnaryOperator, Value};

use super::lower::{Lower, parts};
use crate::sql::plan::{Cast, Column, Condition, Const, ConstFrom, Term};

impl Lower<'_> {
    /// What `expr` is, seen from where it stands. Its subqueries must have been walked.
    pub(super) fn term(&self, expr: &Expr) -> Term {
        match expr {
            Expr::Nested(inner) => self.term(inner),
            Expr::Identifier(ident) if ident.value == "default" && !self.is_quoted(ident) => {
                Term::Default
            }
            Expr::Identifier(ident) => Term::Column(Column {
                schema: None,
                table: None,
                name: ident.value.clone(),
            }),
            Expr::CompoundIdentifier(idents) => match &idents[..] {
                [table, name] => Term::Column(Column {
                    schema: None,
                    table: Some(table.value.clone()),
                    name: name.value.clone(),
                }),
                [schema, table, name] => Term::Column(Column {
                    schema: Some(schema.value.clone()),
                    table: Some(table.value.clone()),
                    name: name.value.clone(),
                }),
                _ => Term::Other,
            },
            Expr::Subquery(query) => self
                .level_of(query)
                .map_or(Term::Other, |level| Term::Output(level, 0)),
            Expr::Function(_) => Term::Call,
            // Between whole numbers a cast changes nothing, and nothing else is the key of an integer column.
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr,
                data_type,
                format: None,
            } if matches!(
                strip(expr),
                Expr::Identifier(_) | Expr::CompoundIdentifier(_)
            ) && matches!(
                cast(data_type),
                Some(Cast::Int2 | Cast::Int4 | Cast::Int8 | Cast::Numeric)
            ) =>
            {
                self.term(expr)
            }
            _ => self.constant(expr).map_or(Term::Other, Term::Const),
        }
    }

    /// A literal or parameter, under casts that keep its value.
    fn constant(&self, expr: &Expr) -> Option<Const> {
        match expr {
            Expr::Nested(inner) => self.constant(inner),
            Expr::Value(value) => {
                let from = match &value.value {
                    Value::Number(..) | Value::SingleQuotedString(_) => {
                        ConstFrom::Hole(self.hole_at(value.span.start.column)?)
                    }
                    Value::Placeholder(name) => ConstFrom::Param(param_number(name)?),
                    Value::Null => ConstFrom::Null,
                    _ => return None,
                };
                Some(Const {
                    from,
                    negative: false,
                    casts: SmallVec::new(),
                })
            }
            Expr::UnaryOp { op, expr } => {
                let mut constant = self.constant(expr)?;
                let number = matches!(constant.from, ConstFrom::Hole(hole) if self.is_number(hole));
                let numeric = |cast: &Cast| !matches!(cast, Cast::Text | Cast::Uuid);
                if !number || !constant.casts.iter().all(numeric) {
                    return None;
                }
                match op {
                    UnaryOperator::Plus => {}
                    UnaryOperator::Minus => constant.negative = !constant.negative,
                    _ => return None,
                }
                Some(constant)
            }
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr,
                data_type,
                format: None,
            } => {
                let mut constant = self.constant(expr)?;
                // The minus of `- 42::text` stands outside the cast, that of `(-42)::text` inside: only for numbers
                // does that not matter.
                let cast = cast(data_type)?;
                if constant.negative && matches!(cast, Cast::Text | Cast::Uuid) {
                    return None;
                }
                constant.casts.push(cast);
                Some(constant)
            }
            _ => None,
        }
    }

    /// An array that is a literal or parameter.
    fn array(&self, expr: &Expr) -> Option<Const> {
        match expr {
            Expr::Nested(inner) => self.array(inner),
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr,
                data_type,
                format: None,
            } => {
                let mut constant = self.array(expr)?;
                constant.casts.push(array_cast(data_type)?);
                Some(constant)
            }
            Expr::Value(_) => self.constant(expr),
            _ => None,
        }
    }

    /// The elements of `ARRAY[...]`.
    fn elements(&self, expr: &Expr) -> Option<Vec<Const>> {
        match expr {
            Expr::Nested(inner) => self.elements(inner),
            Expr::Array(array) => array.elem.iter().map(|e| self.constant(e)).collect(),
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr,
                data_type,
                format: None,
            } => {
                let mut elements = self.elements(expr)?;
                let cast = array_cast(data_type)?;
                for element in &mut elements {
                    element.casts.push(cast);
                }
                Some(elements)
            }
            _ => None,
        }
    }

    /// The conditions without which `expr` is not true.
    pub(super) fn conditions(&self, expr: &Expr) -> Vec<Condition> {
        let mut found = Vec::new();
        let mut open = vec![expr];
        while let Some(expr) = open.pop() {
            match expr {
                Expr::BinaryOp {
                    left,
                    op: BinaryOperator::And,
                    right,
                } => open.extend([&**right, &**left]),
                Expr::Nested(inner) | Expr::IsTrue(inner) => open.push(inner),
                _ => self.one_condition(expr, &mut found),
            }
        }
        found
    }

    fn one_condition(&self, expr: &Expr, found: &mut Vec<Condition>) {
        match expr {
            Expr::BinaryOp {
                op: BinaryOperator::Or,
                ..
            } => found.extend(self.alternatives(expr)),
            Expr::BinaryOp {
                left,
                op: BinaryOperator::Eq,
                right,
            } => self.equal(left, right, found),
            Expr::IsNotDistinctFrom(left, right) => {
                let (left, right) = (self.term(left), self.term(right));
                let strict = |t: &Term| matches!(t, Term::Const(c) if c.from != ConstFrom::Null);
                if strict(&left) || strict(&right) {
                    found.push(Condition::Equal(left, right));
                }
            }
            Expr::AnyOp {
                left,
                compare_op: BinaryOperator::Eq,
                right,
                ..
            } => match strip(right) {
                Expr::Subquery(query) => {
                    if let Some(level) = self.level_of(query) {
                        self.in_level(left, level, found);
                    }
                }
                right => {
                    if let Some(elements) = self.elements(right) {
                        let elements = elements.into_iter().map(Term::Const).collect();
                        push_in(self.term(left), elements, found);
                    } else if let Some(array) = self.array(right) {
                        found.push(Condition::Any(self.term(left), array));
                    }
                }
            },
            Expr::InList {
                expr,
                list,
                negated: false,
            } => self.in_list(expr, list, found),
            Expr::InSubquery {
                expr,
                subquery,
                negated: false,
            } => {
                if let Some(level) = self.level_of(subquery) {
                    self.in_level(expr, level, found);
                }
            }
            _ => {}
        }
    }

    fn equal(&self, left: &Expr, right: &Expr, found: &mut Vec<Condition>) {
        match (strip(left), strip(right)) {
            (Expr::Tuple(lefts), Expr::Tuple(rights)) => {
                if lefts.len() == rights.len() {
                    for (left, right) in lefts.iter().zip(rights) {
                        self.equal(left, right, found);
                    }
                }
            }
            (left, right) => found.push(Condition::Equal(self.term(left), self.term(right))),
        }
    }

    fn in_list(&self, expr: &Expr, list: &[Expr], found: &mut Vec<Condition>) {
        let Expr::Tuple(columns) = strip(expr) else {
            let terms = list.iter().map(|e| self.term(e)).collect();
            push_in(self.term(expr), terms, found);
            return;
        };
        for (at, column) in columns.iter().enumerate() {
            let row = |row: &Expr| match strip(row) {
                Expr::Tuple(values) if values.len() == columns.len() => {
                    Some(self.term(&values[at]))
                }
                _ => None,
            };
            if let Some(terms) = list.iter().map(row).collect() {
                push_in(self.term(column), terms, found);
            }
        }
    }

    fn in_level(&self, expr: &Expr, level: usize, found: &mut Vec<Condition>) {
        match strip(expr) {
            Expr::Tuple(columns) => {
                for (at, column) in columns.iter().enumerate() {
                    found.push(Condition::Within(self.term(column), level, at));
                }
            }
            expr => found.push(Condition::Within(self.term(expr), level, 0)),
        }
    }

    /// `a = 1 OR a = 2 OR (a = 3 AND ...)`: a column that every alternative ties to constants equals one of them. What
    /// ties two columns in every alternative does so in all.
    fn alternatives(&self, expr: &Expr) -> Vec<Condition> {
        let mut open = vec![expr];
        let mut common: Option<Vec<(Column, Vec<Term>)>> = None;
        let mut shared: Option<Vec<Condition>> = None;
        while let Some(expr) = open.pop() {
            match expr {
                Expr::BinaryOp {
                    left,
                    op: BinaryOperator::Or,
                    right,
                } => open.extend([&**right, &**left]),
                Expr::Nested(inner) | Expr::IsTrue(inner) => open.push(inner),
                _ => {
                    let conditions = self.conditions(expr);
                    let shared = shared.get_or_insert_with(|| conditions.clone());
                    shared.retain(|one| ties_columns(one) && conditions.contains(one));
                    let none_shared = shared.is_empty();
                    let here: Vec<(Column, Vec<Term>)> =
                        conditions.into_iter().filter_map(to_constants).collect();
                    common = Some(match common {
                        None => here,
                        Some(before) => both(before, &here),
                    });
                    if none_shared && common.as_ref().is_some_and(Vec::is_empty) {
                        return Vec::new();
                    }
                }
            }
        }
        let common = common.unwrap_or_default().into_iter();
        common
            .map(|(column, terms)| Condition::In(Term::Column(column), terms))
            .chain(shared.unwrap_or_default())
            .collect()
    }
}

/// `(c = 1)` and `(c = 2)` are `c IN (1, 2)`; a column of one side alone is not tied.
fn both(
    before: Vec<(Column, Vec<Term>)>,
    here: &[(Column, Vec<Term>)],
) -> Vec<(Column, Vec<Term>)> {
    let with = |(column, mut terms): (Column, Vec<Term>)| {
        let (_, more) = here.iter().find(|(c, _)| *c == column)?;
        terms.extend(more.iter().cloned());
        Some((column, terms))
    };
    before.into_iter().filter_map(with).collect()
}

/// `a.user_id = b.user_id`: holds if every alternative says so.
fn ties_columns(condition: &Condition) -> bool {
    matches!(
        condition,
        Condition::Equal(Term::Column(_), Term::Column(_))
    )
}

fn to_constants(condition: Condition) -> Option<(Column, Vec<Term>)> {
    match condition {
        Condition::Equal(Term::Column(column), value @ Term::Const(_))
        | Condition::Equal(value @ Term::Const(_), Term::Column(column)) => {
            Some((column, vec![value]))
        }
        Condition::In(Term::Column(column), terms)
            if terms.iter().all(|t| matches!(t, Term::Const(_))) =>
        {
            Some((column, terms))
        }
        _ => None,
    }
}

fn push_in(left: Term, mut list: Vec<Term>, found: &mut Vec<Condition>) {
    match list.len() {
        1 => found.extend(list.pop().map(|only| Condition::Equal(left, only))),
        _ => found.push(Condition::In(left, list)),
    }
}

/// Without parentheses.
pub(super) fn strip(mut expr: &Expr) -> &Expr {
    while let Expr::Nested(inner) = expr {
        expr = inner;
    }
    expr
}

/// The number of `$n`.
pub(super) fn param_number(name: &str) -> Option<u16> {
    name.strip_prefix('$')?.parse().ok().filter(|n| *n > 0)
}

/// The name of a type: Postgres' own name where sqlparser has a variant for it.
pub(super) fn type_name(data_type: &DataType) -> Option<(&ObjectName, &[String])> {
    match data_type {
        DataType::Custom(name, modifiers) => Some((name, modifiers)),
        _ => None,
    }
}

/// A cast that keeps a key's value.
pub(super) fn cast(data_type: &DataType) -> Option<Cast> {
    let (name, []) = type_name(data_type)? else {
        return None;
    };
    let mut names = parts(name)?;
    if names.len() == 2 && names[0] == "pg_catalog" {
        names.remove(0);
    }
    match names[..] {
        ["int2" | "smallint"] => Some(Cast::Int2),
        ["int4" | "int" | "integer"] => Some(Cast::Int4),
        ["int8" | "bigint"] => Some(Cast::Int8),
        ["numeric" | "decimal" | "dec"] => Some(Cast::Numeric),
        ["text" | "varchar"] => Some(Cast::Text),
        ["uuid"] => Some(Cast::Uuid),
        _ => None,
    }
}

/// The element cast of an array type.
pub(super) fn array_cast(data_type: &DataType) -> Option<Cast> {
    use sqlparser::ast::ArrayElemTypeDef;
    match data_type {
        DataType::Array(
            ArrayElemTypeDef::SquareBracket(inner, _) | ArrayElemTypeDef::AngleBracket(inner),
        ) => cast(inner),
        _ => None,
    }
}
