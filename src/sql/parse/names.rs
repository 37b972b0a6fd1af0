//! What Postgres calls an output that has no AS (parse_target.c, FigureColname).

use super::terms;
use sqlparser::ast::{AccessExpr, DataType, Expr, ObjectNamePart, SelectItem, SetExpr};

/// Its name; `None`: not known here.
pub(super) fn of_output(expr: &Expr) -> Option<String> {
    match name(expr) {
        Name::Of(name) | Name::Weak(name) => Some(name),
        Name::Nothing => Some("?column?".to_owned()),
        Name::Unsure => None,
    }
}

enum Name {
    /// It has a name.
    Of(String),
    /// One that gives way to others.
    Weak(String),
    Nothing,
    Unsure,
}

/// What Postgres calls a type (gram.y, SystemTypeName).
fn type_name(data_type: &DataType) -> Option<String> {
    let (name, _) = terms::type_name(data_type)?;
    let name = &name.0.last()?.as_ident()?.value;
    let own = match name.as_str() {
        "int" | "integer" => "int4",
        "smallint" => "int2",
        "bigint" => "int8",
        "real" => "float4",
        "dec" | "decimal" => "numeric",
        "boolean" => "bool",
        "text" | "numeric" | "date" | "uuid" | "jsonb" | "json" | "int4" | "int2" | "int8"
        | "float4" | "float8" | "bool" | "bytea" => name,
        // Of several words, or perhaps so.
        _ => return None,
    };
    Some(own.to_owned())
}

fn of(name: &str) -> Name {
    Name::Of(name.to_owned())
}

fn name(expr: &Expr) -> Name {
    match expr {
        Expr::Identifier(ident) => of(&ident.value),
        Expr::CompoundIdentifier(idents) => idents.last().map_or(Name::Unsure, |i| of(&i.value)),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => name(inner),
        Expr::Cast {
            expr, data_type, ..
        } => match name(expr) {
            Name::Of(name) => Name::Of(name),
            Name::Unsure => Name::Unsure,
            Name::Weak(_) | Name::Nothing => type_name(data_type).map_or(Name::Unsure, Name::Weak),
        },
        Expr::Function(function) => match function.name.0.last().map(ObjectNamePart::as_ident) {
            Some(Some(ident)) => of(&ident.value),
            _ => Name::Unsure,
        },
        Expr::Case { else_result, .. } => match else_result.as_deref().map(name) {
            Some(Name::Of(name)) => Name::Of(name),
            Some(Name::Unsure) => Name::Unsure,
            _ => Name::Weak("case".to_owned()),
        },
        Expr::Subquery(query) => match &*query.body {
            SetExpr::Select(select) => match select.projection.first() {
                Some(SelectItem::ExprWithAlias { alias, .. }) => of(&alias.value),
                Some(SelectItem::UnnamedExpr(expr)) => {
                    of_output(expr).map_or(Name::Unsure, Name::Of)
                }
                _ => Name::Unsure,
            },
            _ => Name::Unsure,
        },
        Expr::CompoundFieldAccess { root, access_chain } => {
            let mut fields = access_chain.iter();
            match fields.all(|access| matches!(access, AccessExpr::Subscript(_))) {
                true => name(root),
                false => Name::Unsure,
            }
        }
        Expr::Extract { .. } => of("extract"),
        Expr::Position { .. } => of("position"),
        Expr::Substring { .. } => of("substring"),
        Expr::Exists { .. } => of("exists"),
        Expr::BinaryOp { .. }
        | Expr::UnaryOp { .. }
        | Expr::Value(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsDistinctFrom(..)
        | Expr::IsNotDistinctFrom(..)
        | Expr::InList { .. }
        | Expr::Between { .. }
        | Expr::Like { .. }
        | Expr::ILike { .. } => Name::Nothing,
        _ => Name::Unsure,
    }
}
