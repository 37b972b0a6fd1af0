//! Strings that name a table or sequence: `'photos'::regclass`, `nextval('photos_id_seq')`.

use sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, ObjectName, Value};

use super::lower::{Lower, Read, parts};
use super::terms::{cast, strip, type_name};
use crate::sql::literal::literal_value;
use crate::sql::plan::ObjectLiteral;
use crate::sql::shape::{HoleKind, Shape};
use crate::sql::token::{TokenKind, ident_value, tokens};

impl Lower<'_> {
    /// Notes a value that names a table, sequence or the like.
    pub(super) fn object(&mut self, to: &str, value: Option<&Expr>) -> Read<()> {
        let mut value = value.map(strip);
        while let Some(Expr::Cast {
            expr, data_type, ..
        }) = value
        {
            let known = cast(data_type).is_some()
                || type_name(data_type).is_some_and(|(name, _)| {
                    parts(name)
                        .and_then(|parts| parts.last().copied())
                        .is_some_and(names_object)
                });
            value = if known { Some(strip(expr)) } else { None };
        }
        let hole = match value {
            Some(Expr::Value(literal)) if matches!(literal.value, Value::SingleQuotedString(_)) => {
                self.hole_at(literal.span.start.column)
            }
            // An OID.
            Some(Expr::Value(literal)) if matches!(literal.value, Value::Number(..)) => {
                return Ok(());
            }
            _ => None,
        };
        let mut object = ObjectLiteral {
            to: to.to_owned(),
            hole,
            parts: Vec::new(),
        };
        if let Some(at) = hole {
            self.plan.per_text = true;
            let hole = self.holes[at as usize];
            match literal_value(self.text, &hole).map(|value| name_parts(&value)) {
                Some(parts) if hole.kind != HoleKind::OtherString => object.parts = parts,
                _ => object.hole = None,
            }
        }
        if !self.plan.objects.contains(&object) {
            self.plan.objects.push(object);
        }
        Ok(())
    }

    /// Functions that take the name of a table or sequence.
    pub(super) fn object_args(&mut self, name: &ObjectName, args: &[FunctionArg]) -> Read<()> {
        let Some(name) = parts(name).and_then(|parts| parts.last().copied()) else {
            return Ok(());
        };
        if !takes_object(name) {
            return Ok(());
        }
        match args.first() {
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) => {
                self.object(name, Some(first))
            }
            _ => self.object(name, None),
        }
    }
}

/// Types whose input is the name of a table, sequence, type or function.
pub(super) fn names_object(name: &str) -> bool {
    matches!(name, "regclass" | "regtype" | "regproc" | "regprocedure")
}

/// Functions whose first argument is the name of a table or sequence.
fn takes_object(name: &str) -> bool {
    matches!(
        name,
        "nextval"
            | "currval"
            | "setval"
            | "to_regclass"
            | "to_regtype"
            | "pg_get_serial_sequence"
            | "pg_sequence_last_value"
            | "pg_relation_size"
            | "pg_total_relation_size"
            | "pg_table_size"
            | "pg_indexes_size"
            | "pg_relation_filepath"
            | "pg_relation_filenode"
            | "table_to_xml"
    )
}

/// The parts of a name inside a string, as `stringToQualifiedNameList` reads it; empty if it is none.
fn name_parts(value: &[u8]) -> Vec<String> {
    let mut shape = Shape::default();
    if shape.scan(value).is_err() || !shape.holes.is_empty() {
        return Vec::new();
    }
    let mut parts = Vec::new();
    let mut wants_name = true;
    for token in tokens(value, &[]) {
        match token.kind {
            TokenKind::Word | TokenKind::QuotedIdent if wants_name => {
                parts.push(ident_value(value, token.span).into_owned());
                wants_name = false;
            }
            TokenKind::Punct if !wants_name && value[token.span.start] == b'.' => wants_name = true,
            _ => return Vec::new(),
        }
    }
    parts
}
