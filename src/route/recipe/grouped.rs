//! Takes a grouped SELECT apart: what each shard gives of it, and what is made of that.

use super::text::Text;
use super::{Cook, Piece, TextKey, refuse};
use crate::route::functions;
use crate::route::refusal::Refusal;
use crate::sql::select::{CallText, ExprText, PartKind, Span};

/// What a column of a part is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The last statement groups by it.
    Group,
    /// The parts are grouped by it, the last statement takes each value once.
    Distinct,
    /// It is an aggregate.
    Aggregate,
}

pub(super) struct PartColumn {
    pub(super) text: TextKey,
    pub(super) role: Role,
    pub(super) pieces: Vec<Piece>,
}

/// A grouped SELECT being taken apart.
pub(super) struct Grouped<'c, 'a> {
    pub(super) cook: &'c Cook<'a>,
    pub(super) columns: Vec<PartColumn>,
    /// What is grouped by, and its column.
    pub(super) groups: Vec<(&'a ExprText, usize)>,
    /// All that is grouped by are columns.
    pub(super) plain: bool,
}

impl Grouped<'_, '_> {
    pub(super) fn add(&mut self, pieces: Vec<Piece>, text: TextKey, role: Role) -> usize {
        let same = |c: &PartColumn| c.pieces == pieces && c.role == role;
        if let Some(at) = self.columns.iter().position(same) {
            return at;
        }
        self.columns.push(PartColumn { text, role, pieces });
        self.columns.len() - 1
    }

    pub(super) fn by(&self, roles: &[Role]) -> Vec<usize> {
        let columns = 0..self.columns.len();
        columns
            .filter(|at| roles.contains(&self.columns[*at].role))
            .collect()
    }

    pub(super) fn part(&self) -> Vec<Piece> {
        let select = self.cook.select;
        let mut part = Text::default();
        part.copy(&select.with);
        part.list("SELECT ", self.columns.iter().map(|c| c.pieces.clone()));
        part.own(" ").copy(&select.tail);
        let by = self.by(&[Role::Group, Role::Distinct]);
        let by = by
            .into_iter()
            .map(|at| vec![Piece::Own((at + 1).to_string())]);
        part.list(" GROUP BY ", by);
        part.0
    }

    /// An expression over the groups, written over the columns of the parts.
    pub(super) fn rewrite(&mut self, expr: &ExprText) -> Result<Vec<Piece>, Refusal> {
        if let Some(column) = self.group(expr) {
            return Ok(vec![Piece::Compared(column)]);
        }
        if expr.opaque {
            return refuse("a subquery, window function or row over groups can't be merged");
        }
        let mut text = Text::default();
        let mut at = expr.span.from;
        for part in &expr.parts {
            if part.span.from < at {
                continue;
            }
            let pieces = match &part.what {
                PartKind::Call(call) if functions::is_aggregate(&call.name) => {
                    self.aggregate(expr, call)?
                }
                PartKind::Call(_) => continue,
                PartKind::Column(_) => vec![Piece::Compared(self.column(expr, &part.span)?)],
            };
            text.copy(&Some(Span {
                from: at,
                to: part.span.from,
            }));
            text.own(" ").0.extend(pieces);
            text.own(" ");
            at = part.span.to;
        }
        text.copy(&Some(Span {
            from: at,
            to: expr.span.to,
        }));
        Ok(text.0)
    }

    pub(super) fn group(&self, expr: &ExprText) -> Option<usize> {
        let mut groups = self.groups.iter();
        groups
            .find(|(group, _)| self.cook.same(group, expr))
            .map(|(_, column)| *column)
    }

    /// A column outside of aggregates: one that is grouped by, or one that depends on those.
    pub(super) fn column(&mut self, expr: &ExprText, span: &Span) -> Result<usize, Refusal> {
        let spread = self.cook.spread;
        let Some(known) = spread.column(span.from) else {
            return refuse("which column a name in a grouped SELECT means is not sure");
        };
        let group = self.groups.iter().find(|(group, _)| {
            spread
                .whole_column(group)
                .is_some_and(|group| group.id == known.id)
        });
        if let Some((_, column)) = group {
            return Ok(*column);
        }
        // Postgres accepts it only if it is the same in the whole group: then grouping by it too changes nothing. Beside
        // expressions it might be part of one, which is another matter.
        if !self.plain {
            return refuse(
                "GROUP BY expressions can't be merged where a column stands in the SELECT by itself",
            );
        }
        let text = self.cook.text_key(expr, span);
        Ok(self.add(vec![Piece::Copy(*span)], text, Role::Group))
    }

    pub(super) fn aggregate(
        &mut self,
        expr: &ExprText,
        call: &CallText,
    ) -> Result<Vec<Piece>, Refusal> {
        let name = call.name.as_str();
        if call.ordered || call.count > 1 {
            return refuse(&format!(
                "{name}() with an order or several arguments can't be merged"
            ));
        }
        let text = self.cook.text_key(expr, &call.args);
        let own = |s: &str| Piece::Own(s.to_owned());
        match name {
            "count" | "sum" | "avg" if call.distinct => {
                let value = self.add(distinct_value(call), text, Role::Distinct);
                Ok(vec![
                    Piece::Own(format!("{name}(DISTINCT ")),
                    Piece::Column(value),
                    own(")"),
                ])
            }
            "count" => {
                let count = self.partial(name, call, TextKey::Default);
                Ok(vec![
                    own("CAST(coalesce(sum("),
                    Piece::Column(count),
                    own("), 0) AS pg_catalog.int8)"),
                ])
            }
            "sum" => {
                let sum = self.partial(name, call, TextKey::Default);
                let (column, of) = (Piece::Column(sum), Piece::TypeOf(sum));
                Ok(vec![own("CAST(sum("), column, own(") AS "), of, own(")")])
            }
            "avg" => {
                let sum = self.partial("sum", call, TextKey::Default);
                let count = self.partial("count", call, TextKey::Default);
                Ok(vec![Piece::Mean(sum, count)])
            }
            "min" | "max" | "bool_and" | "bool_or" | "every" | "bit_and" | "bit_or" => {
                let part = self.partial(name, call, text);
                Ok(vec![
                    Piece::Own(format!("{name}(")),
                    Piece::Compared(part),
                    own(")"),
                ])
            }
            _ => refuse(&format!("{name}() can't be merged")),
        }
    }

    pub(super) fn partial(&mut self, function: &str, call: &CallText, text: TextKey) -> usize {
        let mut pieces = Text::default();
        pieces
            .own(&format!("{function}("))
            .copy(&Some(call.args))
            .own(")");
        if let Some(filter) = &call.filter {
            pieces.own(" FILTER (WHERE ").copy(&Some(*filter)).own(")");
        }
        self.add(pieces.0, text, Role::Aggregate)
    }
}

/// The argument of `f(DISTINCT x) FILTER (WHERE c)`, null where the filter leaves it out: these aggregates pass nulls over.
pub(super) fn distinct_value(call: &CallText) -> Vec<Piece> {
    let mut pieces = Text::default();
    match &call.filter {
        None => drop(pieces.copy(&Some(call.args))),
        Some(filter) => {
            pieces.own("CASE WHEN ").copy(&Some(*filter));
            pieces.own(" THEN ").copy(&Some(call.args)).own(" END");
        }
    }
    pieces.0
}
