//! Finds where the parts of the outermost SELECT stand. What they are is taken from the syntax tree, where they begin
//! and end from the tokens, for the tree knows its places only by the names in it. Where the two disagree there is no
//! [`SelectText`], and the statement stays with one shard.

use std::ops::{ControlFlow, Range};

use sqlparser::ast::{
    Distinct, DuplicateTreatment, Expr, Function, FunctionArgumentClause, FunctionArguments,
    GroupByExpr, Ident, LimitClause, ObjectNamePart, OrderByExpr, OrderByKind, OrderBySort, Query,
    Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, UnaryOperator, Value, Visit,
    Visitor,
};

use super::cut::{Raw, RawKind, matching};
use super::expr::is_all_fields;
use super::lower::Lower;
use super::names;
use super::terms::strip;
use crate::sql::plan::{Column, Term};
use crate::sql::rewrite::Pos;
use crate::sql::select::{
    CallText, Count, DistinctText, ExprText, OrderText, OutputText, Part, PartKind, SelectText,
    Span, Whole,
};

/// How the SELECT that `query` is, whose tokens are `raws`, is written.
pub(super) fn select_text(lower: &Lower<'_>, query: &Query, raws: &[Raw]) -> Option<SelectText> {
    let SetExpr::Select(select) = &*query.body else {
        return None;
    };
    let reader = Reader { lower, raws };
    let clauses = reader.clauses()?;
    reader.read(query, select, &clauses)
}

/// Where the clauses begin: indexes of tokens.
#[derive(Default)]
struct Clauses {
    select: usize,
    tail: Option<usize>,
    group: Option<usize>,
    having: Option<usize>,
    order: Option<usize>,
    /// LIMIT, OFFSET, FETCH, FOR, or the end.
    rest: usize,
}

impl Clauses {
    fn outputs_end(&self) -> usize {
        self.tail.unwrap_or_else(|| self.tail_end())
    }

    fn tail_end(&self) -> usize {
        self.group.or(self.having).unwrap_or(self.grouping_end())
    }

    fn grouping_end(&self) -> usize {
        self.order.unwrap_or(self.rest)
    }
}

struct Reader<'t, 'l> {
    lower: &'t Lower<'l>,
    raws: &'t [Raw],
}

impl Reader<'_, '_> {
    fn word(&self, at: usize) -> Option<&str> {
        match &self.raws.get(at)?.kind {
            RawKind::Word(word) => Some(word),
            _ => None,
        }
    }

    fn punct(&self, at: usize) -> Option<u8> {
        let raw = self.raws.get(at).filter(|raw| raw.kind == RawKind::Punct)?;
        self.lower.text.get(raw.start).copied()
    }

    /// Indexes of the tokens in `range` that stand in no bracket.
    fn outside(&self, range: Range<usize>) -> Vec<usize> {
        let mut depth = 0usize;
        let mut found = Vec::new();
        for at in range {
            match self.punct(at) {
                Some(b'(' | b'[') => depth += 1,
                Some(b')' | b']') => depth = depth.saturating_sub(1),
                _ if depth == 0 => found.push(at),
                _ => {}
            }
        }
        found
    }

    /// The clauses, if each is there at most once and in its place.
    fn clauses(&self) -> Option<Clauses> {
        let outside = self.outside(0..self.raws.len());
        let select = *outside
            .iter()
            .find(|at| self.word(**at) == Some("select"))?;
        if select > 0 && self.word(0) != Some("with") {
            return None;
        }
        let mut found = Clauses {
            select,
            rest: self.raws.len(),
            ..Clauses::default()
        };
        for at in outside.into_iter().filter(|at| *at > select) {
            // Behind AS and a dot any word is a name.
            if self.word(at - 1) == Some("as") || self.punct(at - 1) == Some(b'.') {
                continue;
            }
            let by = self.word(at + 1) == Some("by");
            match self.word(at) {
                Some("from") if self.word(at - 1) == Some("distinct") => {}
                Some("from" | "where") => drop(found.tail.get_or_insert(at)),
                Some("group") if by => drop(found.group.get_or_insert(at)),
                Some("having") => drop(found.having.get_or_insert(at)),
                Some("order") if by => drop(found.order.get_or_insert(at)),
                Some("limit" | "offset" | "fetch" | "for") => {
                    found.rest = at;
                    break;
                }
                Some("window" | "union" | "intersect" | "except" | "into") => return None,
                _ => {}
            }
        }
        let places = [found.tail, found.group, found.having, found.order];
        let places: Vec<usize> = places.into_iter().flatten().collect();
        places
            .is_sorted_by(|a, b| a < b)
            .then_some(found)
            .filter(|found| places.iter().all(|at| *at < found.rest))
    }

    /// The stretch of these tokens; `None` if there are none.
    fn span(&self, range: Range<usize>) -> Option<Span> {
        let (first, last) = (
            self.raws.get(range.start)?,
            self.raws.get(range.end.checked_sub(1)?)?,
        );
        (range.start < range.end).then(|| Span {
            from: Pos::of(first.start, self.lower.holes),
            to: Pos::of(last.end, self.lower.holes),
        })
    }

    /// Cuts a run of tokens at its commas.
    fn list(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let commas = self.outside(range.clone());
        let commas = commas
            .into_iter()
            .filter(|at| self.punct(*at) == Some(b','));
        let mut items = Vec::new();
        let mut from = range.start;
        for comma in commas {
            items.push(from..comma);
            from = comma + 1;
        }
        items.push(from..range.end);
        items
    }

    fn read(&self, query: &Query, select: &Select, clauses: &Clauses) -> Option<SelectText> {
        let mut first = clauses.select + 1;
        let mut distinct = None;
        match &select.distinct {
            None => {}
            Some(Distinct::All) => first += 1,
            Some(Distinct::Distinct) => {
                distinct = Some(DistinctText {
                    span: self.span(first..first + 1)?,
                    on: None,
                });
                first += 1;
            }
            Some(Distinct::On(exprs)) => {
                let close = matching(self.lower.text, self.raws, first + 2)?;
                distinct = Some(DistinctText {
                    span: self.span(first..close + 1)?,
                    on: Some(self.exprs(exprs, first + 3..close)?),
                });
                first = close + 1;
            }
        }
        let outputs = first..clauses.outputs_end();
        let (groups, sets) = self.groups(&select.group_by, clauses)?;
        let having = match (&select.having, clauses.having) {
            (Some(having), Some(at)) => Some(self.expr(having, at + 1..clauses.grouping_end())),
            (None, None) => None,
            _ => return None,
        };
        let (limit, offset) = self.counts(query)?;
        Some(SelectText {
            with: self.span(0..clauses.select),
            distinct,
            outputs: self.span(outputs.clone())?,
            items: self.items(&select.projection, outputs)?,
            tail: clauses
                .tail
                .and_then(|at| self.span(at..clauses.tail_end())),
            grouping: self.span(clauses.tail_end()..clauses.grouping_end()),
            groups,
            sets,
            having,
            ordering: clauses.order.and_then(|at| self.span(at..clauses.rest)),
            orders: self.orders(query, clauses)?,
            limit,
            offset,
        })
    }

    fn items(&self, items: &[SelectItem], range: Range<usize>) -> Option<Vec<OutputText>> {
        let ranges = self.list(range);
        if ranges.len() != items.len() {
            return None;
        }
        let one = |(item, range): (&SelectItem, Range<usize>)| match item {
            SelectItem::UnnamedExpr(expr) if is_all_fields(expr) => {
                Some(OutputText::Star(Some(String::new())))
            }
            SelectItem::UnnamedExpr(expr) => Some(OutputText::Expr(
                self.expr(expr, range),
                names::of_output(expr),
            )),
            SelectItem::ExprWithAlias { expr, alias } => {
                let mut end = range.end.checked_sub(1)?;
                (self.index(alias)? == end).then_some(())?;
                if self.word(end.checked_sub(1)?) == Some("as") {
                    end -= 1;
                }
                Some(OutputText::Expr(
                    self.expr(expr, range.start..end),
                    Some(alias.value.clone()),
                ))
            }
            SelectItem::Wildcard(_) => Some(OutputText::Star(None)),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                let table = name.0.last().and_then(ObjectNamePart::as_ident)?;
                Some(OutputText::Star(Some(table.value.clone())))
            }
            _ => None,
        };
        items.iter().zip(ranges).map(one).collect()
    }

    fn groups(&self, group_by: &GroupByExpr, clauses: &Clauses) -> Option<(Vec<ExprText>, bool)> {
        let GroupByExpr::Expressions(exprs, modifiers) = group_by else {
            return None;
        };
        let Some(at) = clauses.group else {
            return (exprs.is_empty() && modifiers.is_empty()).then(|| (Vec::new(), false));
        };
        let set = |e: &Expr| {
            matches!(
                e,
                Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) | Expr::Tuple(_)
            )
        };
        if !modifiers.is_empty() || exprs.iter().any(set) {
            return Some((Vec::new(), true));
        }
        let mut from = at + 2;
        if matches!(self.word(from), Some("all" | "distinct")) {
            from += 1;
        }
        let end = clauses.having.unwrap_or(clauses.grouping_end());
        Some((self.exprs(exprs, from..end)?, false))
    }

    fn orders(&self, query: &Query, clauses: &Clauses) -> Option<Vec<OrderText>> {
        let (exprs, at): (&[OrderByExpr], usize) = match (&query.order_by, clauses.order) {
            (None, None) => return Some(Vec::new()),
            (Some(order_by), Some(at)) => match &order_by.kind {
                OrderByKind::Expressions(exprs) => (exprs, at),
                OrderByKind::All(_) => return None,
            },
            _ => return None,
        };
        let ranges = self.list(at + 2..clauses.rest);
        if ranges.len() != exprs.len() {
            return None;
        }
        let one = |(order, mut range): (&OrderByExpr, Range<usize>)| {
            let desc = match order.options.sort {
                None | Some(OrderBySort::Asc) => false,
                Some(OrderBySort::Desc) => true,
                Some(_) => return None,
            };
            if order.options.nulls_first.is_some() {
                range.end = range.end.checked_sub(2)?;
            }
            if order.options.sort.is_some() {
                range.end = range.end.checked_sub(1)?;
            }
            Some(OrderText {
                expr: self.expr(&order.expr, range),
                desc,
                nulls_first: order.options.nulls_first.unwrap_or(desc),
            })
        };
        exprs.iter().zip(ranges).map(one).collect()
    }

    /// LIMIT and OFFSET.
    fn counts(&self, query: &Query) -> Option<(Option<Count>, Option<Count>)> {
        let (mut limit, mut offset) = (None, None);
        match &query.limit_clause {
            None => {}
            Some(LimitClause::LimitOffset {
                limit: l,
                offset: o,
                limit_by,
            }) if limit_by.is_empty() => {
                limit = l.as_ref().map(|l| self.count(l));
                offset = o.as_ref().map(|o| self.count(&o.value));
            }
            Some(_) => return None,
        }
        if let Some(fetch) = &query.fetch {
            limit = Some(match &fetch.quantity {
                Some(quantity) if !fetch.with_ties && !fetch.percent => self.count(quantity),
                _ => Count::Other,
            });
        }
        Some((limit, offset))
    }

    /// A number of rows: a literal or parameter, whatever brackets and casts stand about it.
    fn count(&self, expr: &Expr) -> Count {
        match self.lower.term(expr) {
            Term::Const(value) => Count::Const(value),
            _ => Count::Other,
        }
    }

    fn exprs(&self, exprs: &[Expr], range: Range<usize>) -> Option<Vec<ExprText>> {
        let ranges = self.list(range);
        if ranges.len() != exprs.len() {
            return None;
        }
        let exprs = exprs.iter().zip(ranges);
        Some(exprs.map(|(expr, range)| self.expr(expr, range)).collect())
    }

    fn expr(&self, expr: &Expr, range: Range<usize>) -> ExprText {
        let mut parts = Parts {
            reader: self,
            found: Vec::new(),
            opaque: false,
            collations: Vec::new(),
        };
        let _ = expr.visit(&mut parts);
        let Parts {
            mut found,
            mut opaque,
            collations,
            ..
        } = parts;
        let whole = match strip_signs(expr) {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_)
                if strip(expr) == strip_signs(expr) =>
            {
                Whole::Column
            }
            Expr::Value(value) if matches!(value.value, Value::Number(..)) => {
                match self.lower.hole_at(value.span.start.column) {
                    Some(hole) => Whole::Number(hole),
                    None => Whole::Other,
                }
            }
            _ => Whole::Other,
        };
        let span = self.span(range.clone()).unwrap_or_else(|| {
            opaque = true;
            let at = Pos { hole: 0, offset: 0 };
            Span { from: at, to: at }
        });
        found.sort_by_key(|part| (part.span.from, std::cmp::Reverse(part.span.to)));
        opaque |= found.iter().any(|part| !span.contains(&part.span));
        ExprText {
            span,
            tokens: self.tokens(range),
            whole,
            parts: found,
            opaque,
            collations,
        }
    }

    /// The tokens in a form in which equal expressions are equal bytes: names folded, literals by their number among
    /// the literals of the expression only.
    fn tokens(&self, range: Range<usize>) -> Box<[u8]> {
        let mut bytes = Vec::new();
        for raw in self.raws.get(range).unwrap_or_default() {
            match &raw.kind {
                RawKind::Word(name) | RawKind::Quoted(name) => {
                    bytes.push(b'"');
                    bytes.extend_from_slice(name.as_bytes());
                }
                RawKind::Literal(..) => bytes.push(b'?'),
                _ => bytes.extend_from_slice(&self.lower.text[raw.start..raw.end]),
            }
            bytes.push(0);
        }
        bytes.into()
    }

    /// The token that an identifier is.
    fn index(&self, ident: &Ident) -> Option<usize> {
        let start = (ident.span.start.column as usize).checked_sub(1)?;
        let at = self
            .raws
            .binary_search_by_key(&start, |raw| raw.start)
            .ok()?;
        match &self.raws[at].kind {
            RawKind::Word(name) | RawKind::Quoted(name) if *name == ident.value => Some(at),
            _ => None,
        }
    }
}

/// Without brackets and minus signs: to Postgres' grammar `- -2` and `(2)` are the number 2 (gram.y, doNegate). What is
/// below zero is no output's place, which Postgres says by itself.
fn strip_signs(expr: &Expr) -> &Expr {
    match strip(expr) {
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => strip_signs(expr),
        expr => expr,
    }
}

/// Collects the parts of an expression.
struct Parts<'r, 't, 'l> {
    reader: &'r Reader<'t, 'l>,
    found: Vec<Part>,
    opaque: bool,
    collations: Vec<String>,
}

impl Parts<'_, '_, '_> {
    fn column(&mut self, idents: &[Ident]) {
        let column = match idents {
            [name] => (None, None, name),
            [table, name] => (None, Some(table.value.clone()), name),
            [schema, table, name] => (Some(schema.value.clone()), Some(table.value.clone()), name),
            _ => {
                self.opaque = true;
                return;
            }
        };
        let (first, last) = (self.reader.index(&idents[0]), self.reader.index(column.2));
        let span = first
            .zip(last)
            .and_then(|(first, last)| self.reader.span(first..last + 1));
        match span {
            Some(span) => self.found.push(Part {
                span,
                what: PartKind::Column(Column {
                    schema: column.0,
                    table: column.1,
                    name: column.2.value.clone(),
                }),
            }),
            None => self.opaque = true,
        }
    }

    /// `None`: it can't be told where it stands.
    fn call(&self, function: &Function) -> Option<Part> {
        let FunctionArguments::List(list) = &function.args else {
            return None;
        };
        let idents: Option<Vec<&Ident>> = function
            .name
            .0
            .iter()
            .map(ObjectNamePart::as_ident)
            .collect();
        let idents = idents?;
        let (first, last) = (
            self.reader.index(idents.first()?)?,
            self.reader.index(idents.last()?)?,
        );
        let open = last + 1;
        (self.reader.punct(open) == Some(b'(')).then_some(())?;
        let mut close = matching(self.reader.lower.text, self.reader.raws, open)?;
        let mut from = open + 1;
        let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
        if list.duplicate_treatment.is_some() {
            from += 1;
        }
        let args = self.reader.span(from..close).or_else(|| {
            // No arguments: an empty stretch.
            let at = self.reader.span(open..open + 1)?.to;
            Some(Span { from: at, to: at })
        })?;
        let mut filter = None;
        if function.filter.is_some() {
            (self.reader.word(close + 1) == Some("filter")).then_some(())?;
            let end = matching(self.reader.lower.text, self.reader.raws, close + 2)?;
            filter = Some(self.reader.span(close + 4..end)?);
            close = end;
        }
        let ordered = !function.within_group.is_empty()
            || list
                .clauses
                .iter()
                .any(|clause| matches!(clause, FunctionArgumentClause::OrderBy(_)))
            || !list.clauses.is_empty();
        Some(Part {
            span: self.reader.span(first..close + 1)?,
            what: PartKind::Call(CallText {
                name: idents.last()?.value.clone(),
                args,
                count: list.args.len(),
                distinct,
                filter,
                ordered,
            }),
        })
    }
}

impl Visitor for Parts<'_, '_, '_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.opaque = true;
        ControlFlow::Break(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) => self.column(std::slice::from_ref(ident)),
            Expr::CompoundIdentifier(idents) => self.column(idents),
            Expr::Collate { collation, .. } => self.collations.push(
                collation
                    .0
                    .last()
                    .and_then(ObjectNamePart::as_ident)
                    .map_or_else(String::new, |ident| ident.value.clone()),
            ),
            Expr::Function(function) if function.over.is_some() => self.opaque = true,
            Expr::Function(function) if function.args != FunctionArguments::None => {
                match self.call(function) {
                    Some(part) => self.found.push(part),
                    None => self.opaque = true,
                }
            }
            // `(row).field`, `row.*`: the names are not all columns.
            Expr::CompoundFieldAccess { .. } | Expr::QualifiedWildcard(..) => self.opaque = true,
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
