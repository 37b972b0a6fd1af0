//! Walks expressions: every name gets its meaning, every subquery its level, every call and parameter is noted.
//!
//! The walk is exhaustive on purpose: a subquery that it passed over would be a table that nobody routes.

use sqlparser::ast::{
    AccessExpr, Array, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArguments, Ident, ObjectName, OrderByExpr, OrderByOptions,
    Subscript, Value, WindowFrameBound, WindowSpec, WindowType,
};

use super::lower::{Lower, Read, parts, stop};
use super::objects::names_object;
use super::terms::{array_cast, cast, param_number, strip, type_name};
use crate::sql::plan::{Call, LevelId, ParamUse, Term, TypeRef, TypedBy};

impl Lower<'_> {
    pub(super) fn walk_all(&mut self, exprs: &[Expr], level: LevelId) -> Read<()> {
        exprs.iter().try_for_each(|expr| self.walk(expr, level))
    }

    /// Walks an expression of which it is known what types a parameter in its place.
    pub(super) fn walk_typed(&mut self, expr: &Expr, level: LevelId, typed: TypedBy) -> Read<()> {
        match strip(expr) {
            Expr::Value(value) => match &value.value {
                Value::Placeholder(name) => self.param(name, value.span.start.column, typed),
                _ => self.walk(expr, level),
            },
            Expr::Array(array) => array
                .elem
                .iter()
                .try_for_each(|e| self.walk_typed(e, level, typed.clone())),
            _ => self.walk(expr, level),
        }
    }

    fn param(&mut self, name: &str, column: u64, with: TypedBy) -> Read<()> {
        let Some(param) = param_number(name) else {
            return stop("a parameter of that name");
        };
        self.params_seen.insert((column - 1) as usize);
        self.plan.params.push(ParamUse { param, with });
        Ok(())
    }

    /// What types a parameter that stands beside `expr`.
    fn typed_by(&self, expr: &Expr, level: LevelId) -> TypedBy {
        match strip(expr) {
            Expr::Cast { data_type, .. } => match cast(data_type).or_else(|| array_cast(data_type))
            {
                Some(cast) => TypedBy::Cast(cast),
                None => TypedBy::Unknown,
            },
            expr => match self.term(expr) {
                Term::Column(column) => TypedBy::Column(level, column),
                _ => TypedBy::Unknown,
            },
        }
    }

    /// Operands that must be of one type.
    fn pair(&mut self, left: &Expr, right: &Expr, level: LevelId) -> Read<()> {
        if let (Expr::Tuple(lefts), Expr::Tuple(rights)) = (strip(left), strip(right))
            && lefts.len() == rights.len()
        {
            return lefts
                .iter()
                .zip(rights)
                .try_for_each(|(left, right)| self.pair(left, right, level));
        }
        let (of_left, of_right) = (self.typed_by(left, level), self.typed_by(right, level));
        self.walk_typed(left, level, of_right)?;
        self.walk_typed(right, level, of_left)
    }

    /// Walks an expression that stands in `level`.
    pub(super) fn walk(&mut self, expr: &Expr, level: LevelId) -> Read<()> {
        let mut expr = expr;
        // The left spine of operator chains is walked without recursion.
        while let Expr::BinaryOp { left, op, right } = expr {
            if compares(op) {
                return self.pair(left, right, level);
            }
            self.walk(right, level)?;
            expr = left;
        }
        match expr {
            Expr::BinaryOp { .. } => Ok(()),
            Expr::Identifier(ident) => self.ident(ident).map(drop),
            Expr::CompoundIdentifier(idents) => self.schema_ref(idents),
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.walk(root, level)?;
                access_chain
                    .iter()
                    .try_for_each(|access| self.access(access, level))
            }
            Expr::IsFalse(e)
            | Expr::IsNotFalse(e)
            | Expr::IsTrue(e)
            | Expr::IsNotTrue(e)
            | Expr::IsNull(e)
            | Expr::IsNotNull(e)
            | Expr::IsUnknown(e)
            | Expr::IsNotUnknown(e)
            | Expr::IsJson { expr: e, .. }
            | Expr::IsNormalized { expr: e, .. }
            | Expr::Nested(e)
            | Expr::UnaryOp { expr: e, .. } => self.walk(e, level),
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.pair(left, right, level)
            }
            Expr::InList { expr, list, .. } => {
                self.walk(expr, level)?;
                list.iter().try_for_each(|e| match (strip(expr), strip(e)) {
                    (Expr::Tuple(columns), Expr::Tuple(values))
                        if columns.len() == values.len() =>
                    {
                        columns.iter().zip(values).try_for_each(|(column, value)| {
                            let typed = self.typed_by(column, level);
                            self.walk_typed(value, level, typed)
                        })
                    }
                    _ => {
                        let typed = self.typed_by(expr, level);
                        self.walk_typed(e, level, typed)
                    }
                })
            }
            Expr::InSubquery { expr, subquery, .. } => {
                self.walk(expr, level)?;
                self.subquery(subquery, level).map(drop)
            }
            Expr::Between {
                expr, low, high, ..
            } => {
                let typed = self.typed_by(expr, level);
                self.walk(expr, level)?;
                self.walk_typed(low, level, typed.clone())?;
                self.walk_typed(high, level, typed)
            }
            Expr::Like {
                any: false,
                expr,
                pattern,
                escape_char,
                ..
            }
            | Expr::ILike {
                any: false,
                expr,
                pattern,
                escape_char,
                ..
            }
            | Expr::SimilarTo {
                expr,
                pattern,
                escape_char,
                ..
            } => {
                self.walk(expr, level)?;
                self.walk(pattern, level)?;
                escape_char.iter().try_for_each(|e| self.walk(e, level))
            }
            Expr::AnyOp { left, right, .. } | Expr::AllOp { left, right, .. } => {
                self.pair(left, right, level)
            }
            Expr::Cast {
                expr, data_type, ..
            } => self.cast(expr, data_type, level),
            Expr::AtTimeZone {
                timestamp,
                time_zone,
            } => {
                self.walk(timestamp, level)?;
                self.walk(time_zone, level)
            }
            Expr::Extract { field, expr, .. } => {
                if let sqlparser::ast::DateTimeField::Custom(field) = field {
                    // A field in quotes has no place among the words.
                    let _ = self.ident(field);
                }
                self.walk(expr, level)
            }
            Expr::Position { expr, r#in } => {
                self.walk(expr, level)?;
                self.walk(r#in, level)
            }
            Expr::Substring {
                expr,
                substring_from,
                substring_for,
                ..
            } => {
                self.walk(expr, level)?;
                substring_from
                    .iter()
                    .chain(substring_for)
                    .try_for_each(|e| self.walk(e, level))
            }
            Expr::Trim {
                trim_what,
                expr,
                trim_characters,
                ..
            } => {
                self.walk(expr, level)?;
                trim_what.iter().try_for_each(|e| self.walk(e, level))?;
                self.walk_all(trim_characters.as_deref().unwrap_or_default(), level)
            }
            Expr::Overlay {
                expr,
                overlay_what,
                overlay_from,
                overlay_for,
            } => {
                for e in [expr, overlay_what, overlay_from]
                    .into_iter()
                    .chain(overlay_for)
                {
                    self.walk(e, level)?;
                }
                Ok(())
            }
            Expr::Collate { expr, collation } => {
                self.idents(collation)?;
                self.walk(expr, level)
            }
            Expr::Value(value) => match &value.value {
                Value::Placeholder(name) => {
                    self.param(name, value.span.start.column, TypedBy::Unknown)
                }
                _ => Ok(()),
            },
            Expr::Function(function) => self.function(function, level),
            Expr::Case {
                operand,
                conditions,
                else_result,
                ..
            } => {
                for e in operand.iter().chain(else_result) {
                    self.walk(e, level)?;
                }
                conditions.iter().try_for_each(|when| {
                    self.walk(&when.condition, level)?;
                    self.walk(&when.result, level)
                })
            }
            Expr::Exists { subquery, .. } | Expr::Subquery(subquery) => {
                self.subquery(subquery, level).map(drop)
            }
            Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                sets.iter().try_for_each(|set| self.walk_all(set, level))
            }
            Expr::Tuple(exprs) => self.walk_all(exprs, level),
            Expr::Array(Array { elem, .. }) => self.walk_all(elem, level),
            Expr::QualifiedWildcard(name, _) => {
                let idents: Vec<Ident> = self.idents(name)?.into_iter().cloned().collect();
                match &idents[..] {
                    [schema, table] => {
                        self.schema_ref(&[schema.clone(), table.clone(), table.clone()])
                    }
                    [_] => Ok(()),
                    _ => stop("a name of four parts"),
                }
            }
            Expr::Wildcard(_) => Ok(()),
            // A bare string as the bound of a window frame.
            Expr::Interval(interval) => self.walk(&interval.value, level),
            Expr::Named { .. }
            | Expr::Like { any: true, .. }
            | Expr::ILike { any: true, .. }
            | Expr::JsonAccess { .. }
            | Expr::InUnnest { .. }
            | Expr::RLike { .. }
            | Expr::Convert { .. }
            | Expr::Ceil { .. }
            | Expr::Floor { .. }
            | Expr::Prefixed { .. }
            | Expr::TypedString(_)
            | Expr::Struct { .. }
            | Expr::Dictionary(_)
            | Expr::Map(_)
            | Expr::MatchAgainst { .. }
            | Expr::OuterJoin(_)
            | Expr::Prior(_)
            | Expr::Lambda(_)
            | Expr::MemberOf(_) => stop("an expression"),
        }
    }

    fn access(&mut self, access: &AccessExpr, level: LevelId) -> Read<()> {
        match access {
            // A field's name, or a function's as in `(x).f`: no table.
            AccessExpr::Dot(Expr::Identifier(field)) => self.ident(field).map(drop),
            AccessExpr::Dot(expr) => self.walk(expr, level),
            AccessExpr::Subscript(Subscript::Index { index }) => self.walk(index, level),
            AccessExpr::Subscript(Subscript::Slice {
                lower_bound,
                upper_bound,
                stride,
            }) => lower_bound
                .iter()
                .chain(upper_bound)
                .chain(stride)
                .try_for_each(|e| self.walk(e, level)),
        }
    }

    fn cast(&mut self, inner: &Expr, data_type: &DataType, level: LevelId) -> Read<()> {
        self.data_type(data_type)?;
        let typed = match cast(data_type).or_else(|| array_cast(data_type)) {
            Some(cast) => TypedBy::Cast(cast),
            None => TypedBy::Unknown,
        };
        self.walk_typed(inner, level, typed)?;
        let last = type_name(data_type)
            .and_then(|(name, _)| parts(name))
            .and_then(|parts| parts.last().copied());
        match last {
            Some(name) if names_object(name) => self.object(name, Some(inner)),
            _ => Ok(()),
        }
    }

    /// Notes the types named in a cast.
    pub(super) fn data_type(&mut self, data_type: &DataType) -> Read<()> {
        use sqlparser::ast::ArrayElemTypeDef;
        match data_type {
            DataType::Custom(name, _) => {
                let idents = self.idents(name)?;
                let (schema, name) = match idents[..] {
                    [name] => (None, name),
                    [schema, name] => (Some((schema.value.clone(), self.place(schema)?)), name),
                    _ => return stop("a type's name of three parts"),
                };
                let type_ref = TypeRef {
                    schema,
                    name: name.value.clone(),
                    place: self.place(name)?,
                };
                if !self.plan.types.contains(&type_ref) {
                    self.plan.types.push(type_ref);
                }
                Ok(())
            }
            DataType::Array(
                ArrayElemTypeDef::AngleBracket(inner)
                | ArrayElemTypeDef::SquareBracket(inner, _)
                | ArrayElemTypeDef::Parenthesis(inner)
                | ArrayElemTypeDef::Qualified(inner, _),
            ) => self.data_type(inner),
            DataType::Array(ArrayElemTypeDef::None) => stop("a type"),
            // The types that take several words: `double precision`, `timestamp with time zone` ...
            _ => Ok(()),
        }
    }

    fn function(&mut self, function: &Function, level: LevelId) -> Read<()> {
        let Function {
            name,
            uses_odbc_syntax,
            parameters,
            args,
            filter,
            null_treatment,
            over,
            within_group,
        } = function;
        if *uses_odbc_syntax || *parameters != FunctionArguments::None || null_treatment.is_some() {
            return stop("a call of another database");
        }
        let bare = match args {
            FunctionArguments::List(list) => list
                .args
                .iter()
                .all(|arg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Wildcard))),
            _ => false,
        };
        self.call(name, over.is_some(), bare, false, level)?;
        match args {
            FunctionArguments::None => {}
            FunctionArguments::Subquery(query) => {
                self.subquery(query, level)?;
            }
            FunctionArguments::List(list) => {
                self.args(&list.args, level)?;
                for clause in &list.clauses {
                    match clause {
                        FunctionArgumentClause::OrderBy(exprs) => self.order_by(exprs, level)?,
                        FunctionArgumentClause::JsonNullClause(_) => {}
                        _ => return stop("a clause inside a call"),
                    }
                }
                self.object_args(name, &list.args)?;
            }
        }
        self.order_by(within_group, level)?;
        filter.iter().try_for_each(|e| self.walk(e, level))?;
        match over {
            None => Ok(()),
            Some(WindowType::NamedWindow(name)) => {
                self.at(level).features.window = true;
                self.ident(name).map(drop)
            }
            Some(WindowType::WindowSpec(spec)) => {
                self.at(level).features.window = true;
                self.window_spec(spec, level)
            }
        }
    }

    /// Notes a call.
    fn call(
        &mut self,
        name: &ObjectName,
        window: bool,
        bare: bool,
        from: bool,
        level: LevelId,
    ) -> Read<String> {
        let idents = self.idents(name)?;
        let (schema, name) = match idents[..] {
            [name] => (None, name.value.clone()),
            [schema, name] => (Some(schema.value.clone()), name.value.clone()),
            _ => return stop("a function's name of three parts"),
        };
        let call = Call {
            level,
            schema,
            name: name.clone(),
            window,
            bare,
            from,
        };
        self.plan.calls.push(call);
        Ok(name)
    }

    /// A function in FROM; gives its name.
    pub(super) fn table_function(
        &mut self,
        name: &ObjectName,
        args: &[FunctionArg],
        level: LevelId,
    ) -> Read<String> {
        let called = self.call(name, false, false, true, level)?;
        self.args(args, level)?;
        self.object_args(name, args)?;
        Ok(called)
    }

    fn args(&mut self, args: &[FunctionArg], level: LevelId) -> Read<()> {
        for arg in args {
            let value = match arg {
                FunctionArg::Unnamed(value) => value,
                FunctionArg::Named { name, arg, .. } => {
                    self.ident(name)?;
                    arg
                }
                FunctionArg::ExprNamed { name, arg, .. } => {
                    self.walk(name, level)?;
                    arg
                }
            };
            match value {
                FunctionArgExpr::Expr(expr) => self.walk(expr, level)?,
                FunctionArgExpr::Wildcard => {}
                FunctionArgExpr::QualifiedWildcard(name) => {
                    self.walk(
                        &Expr::QualifiedWildcard(
                            name.clone(),
                            sqlparser::ast::helpers::attached_token::AttachedToken::empty(),
                        ),
                        level,
                    )?;
                }
                FunctionArgExpr::WildcardWithOptions(_) => return stop("* with options in a call"),
            }
        }
        Ok(())
    }

    pub(super) fn order_by(&mut self, exprs: &[OrderByExpr], level: LevelId) -> Read<()> {
        for OrderByExpr {
            expr,
            options,
            with_fill,
        } in exprs
        {
            if with_fill.is_some() {
                return stop("WITH FILL");
            }
            // The operator of ORDER BY ... USING is no word of the text.
            let OrderByOptions {
                sort: _,
                nulls_first: _,
            } = options;
            self.walk(expr, level)?;
        }
        Ok(())
    }

    pub(super) fn window_spec(&mut self, spec: &WindowSpec, level: LevelId) -> Read<()> {
        let WindowSpec {
            window_name,
            partition_by,
            order_by,
            window_frame,
        } = spec;
        if let Some(name) = window_name {
            self.ident(name)?;
        }
        self.walk_all(partition_by, level)?;
        self.order_by(order_by, level)?;
        let Some(frame) = window_frame else {
            return Ok(());
        };
        for bound in std::iter::once(&frame.start_bound).chain(&frame.end_bound) {
            match bound {
                WindowFrameBound::CurrentRow => {}
                WindowFrameBound::Preceding(value) | WindowFrameBound::Following(value) => {
                    value.iter().try_for_each(|e| self.walk(e, level))?;
                }
            }
        }
        Ok(())
    }
}

/// Operators whose operands are of one type, so that a column types a parameter beside it.
fn compares(op: &sqlparser::ast::BinaryOperator) -> bool {
    use sqlparser::ast::BinaryOperator as Op;
    matches!(
        op,
        Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq
    )
}

/// The name that a SELECT item has without an alias, where it is sure.
pub(super) fn natural_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(ident.value.clone()),
        Expr::CompoundIdentifier(idents) => idents.last().map(|ident| ident.value.clone()),
        Expr::Nested(inner) => natural_name(inner),
        Expr::Cast { expr, .. } => natural_name(expr),
        _ => None,
    }
}

/// `(row).*`
pub(super) fn is_all_fields(expr: &Expr) -> bool {
    match expr {
        Expr::CompoundFieldAccess { access_chain, .. } => access_chain.iter().any(|access| {
            matches!(access, AccessExpr::Dot(Expr::Identifier(field)) if field.value == super::tokens::ALL_FIELDS)
        }),
        _ => false,
    }
}
