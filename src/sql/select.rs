//! How the outermost SELECT is written: where its parts stand in the text, so that it can be written anew for several
//! shards. Plain data, made by [`super::parse`]; places are by shape, so it serves every text of the plan's shape.

use super::plan::{Column, Const};
use super::rewrite::Pos;
use super::shape::Hole;

/// A stretch of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first byte.
    pub from: Pos,
    /// Behind its last byte.
    pub to: Pos,
}

impl Span {
    /// The bytes of it in a text with these holes.
    pub fn of<'t>(&self, text: &'t [u8], holes: &[Hole]) -> &'t [u8] {
        text.get(self.from.at(holes)..self.to.at(holes))
            .unwrap_or_default()
    }

    /// `other` lies inside.
    pub fn contains(&self, other: &Span) -> bool {
        self.from <= other.from && other.to <= self.to
    }
}

/// A SELECT that is no set operation. Its clauses stand in the order of the fields.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectText {
    /// `WITH ...`, up to the word SELECT.
    pub with: Option<Span>,
    /// From DISTINCT to the first output.
    pub distinct: Option<DistinctText>,
    /// All outputs.
    pub outputs: Span,
    /// Each of them.
    pub items: Vec<OutputText>,
    /// FROM and WHERE.
    pub tail: Option<Span>,
    /// GROUP BY and HAVING, whole.
    pub grouping: Option<Span>,
    /// What stands in GROUP BY.
    pub groups: Vec<ExprText>,
    /// GROUP BY has sets, CUBE or ROLLUP.
    pub sets: bool,
    /// The condition of HAVING.
    pub having: Option<ExprText>,
    /// ORDER BY, whole.
    pub ordering: Option<Span>,
    /// What stands in ORDER BY.
    pub orders: Vec<OrderText>,
    /// LIMIT, or FETCH FIRST.
    pub limit: Option<Count>,
    /// OFFSET.
    pub offset: Option<Count>,
}

/// `DISTINCT`, or `DISTINCT ON (...)`.
#[derive(Clone, Debug, PartialEq)]
pub struct DistinctText {
    /// All of it.
    pub span: Span,
    /// The expressions of ON.
    pub on: Option<Vec<ExprText>>,
}

/// One output.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputText {
    /// `*`, `table.*`, `(row).*`: the table, if it is named.
    Star(Option<String>),
    /// An expression and the name by which ORDER BY may call it; `None`: which that is, is not known.
    Expr(ExprText, Option<String>),
}

/// One of the expressions of ORDER BY.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderText {
    /// What is sorted by.
    pub expr: ExprText,
    /// DESC
    pub desc: bool,
    /// NULLS FIRST, by itself or because of DESC.
    pub nulls_first: bool,
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub struct ExprText {
    /// Where it stands.
    pub span: Span,
    /// Its tokens: two expressions of a text that have the same, literals apart, are the same.
    pub tokens: Box<[u8]>,
    /// What it is as a whole.
    pub whole: Whole,
    /// Columns and calls in it, in the order in which they begin. A call contains those of its arguments.
    pub parts: Vec<Part>,
    /// It has something in it that can't be written anew: a subquery, a row, a window function.
    pub opaque: bool,
    /// Names of collations in it.
    pub collations: Vec<String>,
}

/// What an expression is as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// A number: in ORDER BY and GROUP BY the place of an output.
    Number(u32),
    /// A column's name alone, or a name of an output.
    Column,
    /// An expression.
    Other,
}

/// A column or a call in an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub what: PartKind,
}

/// What a part is.
#[derive(Clone, Debug, PartialEq)]
pub enum PartKind {
    /// A column.
    Column(Column),
    /// A call without OVER.
    Call(CallText),
}

/// A function call.
#[derive(Clone, Debug, PartialEq)]
pub struct CallText {
    /// The function's name.
    pub name: String,
    /// Its arguments, DISTINCT left out.
    pub args: Span,
    /// How many.
    pub count: usize,
    /// `f(DISTINCT ...)`
    pub distinct: bool,
    /// The condition of FILTER.
    pub filter: Option<Span>,
    /// The order of rows matters to it: ORDER BY among the arguments, WITHIN GROUP.
    pub ordered: bool,
}

/// A number of rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Count {
    /// A literal or parameter.
    Const(Const),
    /// Something else.
    Other,
}
