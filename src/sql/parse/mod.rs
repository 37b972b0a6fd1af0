//! From text to plan. Only this module knows sqlparser, and it hands out nothing of it: what comes out is plain data.
//!
//! A text is read by shape: literals are all alike to the parser, so that texts of one shape have one plan. The
//! exceptions (a literal that names a table) are marked in the plan. What is not understood is not guessed at: it is
//! [`Unreadable`], or words remain in [`Plan::words`] by which `route` sees that a table was missed.

mod copy;
mod cut;
pub mod ddl;
mod expr;
mod from;
mod keywords;
mod lower;
mod names;
mod objects;
#[cfg(all(test, feature = "scanner"))]
mod postgres;
mod rows;
mod select;
mod statement;
mod terms;
mod tokens;
mod utility;
mod write;

use std::collections::BTreeSet;

use sqlparser::ast::Query;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use self::cut::{Raw, RawKind};
use self::lower::Lower;
use super::plan::{Plan, Unreadable, Verb, Wrap};
use super::shape::Shape;

/// What the parser may spend on one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest text, in bytes.
    pub text: usize,
    /// The most tokens of a text. The parser's stack grows with them, by 2 KiB each.
    pub tokens: usize,
    /// How deep parentheses and subqueries may go.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            text: 1 << 20,
            tokens: 100_000,
            depth: 100,
        }
    }
}

/// What `text`, a single statement of shape `shape`, says. An empty statement has the plan [`Verb::Empty`].
pub fn plan(text: &str, shape: &Shape, limits: &Limits) -> Result<Plan, Unreadable> {
    if text.len() > limits.text {
        return Err(too_long(
            text,
            shape,
            format!("it is longer than {} bytes", limits.text),
        ));
    }
    let mut raws = match cut::cut(text.as_bytes(), &shape.holes) {
        Ok(raws) => raws,
        Err(why) => return Err(too_long(text, shape, why)),
    };
    while raws
        .last()
        .is_some_and(|r| r.kind == RawKind::Punct && text.as_bytes()[r.start] == b';')
    {
        raws.pop();
    }
    if raws.len() > limits.tokens {
        return Err(unreadable(
            &raws,
            format!("it has more than {} tokens", limits.tokens),
        ));
    }
    if parens(text.as_bytes(), &raws) > limits.depth {
        return Err(unreadable(
            &raws,
            format!("it nests more than {} deep", limits.depth),
        ));
    }
    let stack = stack(raws.len(), limits);
    stacker::maybe_grow(stack, stack, || {
        statement::read(text.as_bytes(), shape, &raws, limits)
    })
    .map_err(|why| unreadable(&raws, why))
}

/// The stack that reading `tokens` tokens may take. Nesting costs the parser much a level, but is limited; a chain of
/// operators makes a tree as deep as it is long, that is walked and dropped recursively. (Measured, with room to spare;
/// a chain that overflows is a test.)
fn stack(tokens: usize, limits: &Limits) -> usize {
    let (nesting, chain) = if cfg!(debug_assertions) {
        (128 << 10, 4 << 10)
    } else {
        (16 << 10, 2 << 10)
    };
    (256 << 10) + tokens.min(limits.depth + NESTING_BESIDES_BRACKETS) * nesting + tokens * chain
}

/// How much deeper than brackets the parser may nest: NOT, CASE, unary minus, and its own functions.
const NESTING_BESIDES_BRACKETS: usize = 50;

/// How deep brackets go.
fn parens(text: &[u8], raws: &[Raw]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    for raw in raws.iter().filter(|r| r.kind == RawKind::Punct) {
        match text[raw.start] {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// What the parser says, without the place: the next text of this shape has it elsewhere.
fn said(error: &str) -> String {
    let what = error.split(" at Line: ").next().unwrap_or(error);
    what.trim_start_matches("sql parser error: ").to_owned()
}

/// Words without cutting the text into our own tokens first.
fn too_long(text: &str, shape: &Shape, why: String) -> Unreadable {
    use super::token::{TokenKind, ident_value, tokens};
    let text = text.as_bytes();
    let names = tokens(text, &shape.holes)
        .filter(|t| matches!(t.kind, TokenKind::Word | TokenKind::QuotedIdent))
        .map(|t| ident_value(text, t.span).into_owned());
    let names: BTreeSet<String> = names.collect();
    Unreadable {
        why,
        words: names.into_iter().collect(),
    }
}

fn unreadable(raws: &[Raw], why: String) -> Unreadable {
    let mut words: Vec<String> = raws.iter().filter_map(name).map(str::to_owned).collect();
    words.sort_unstable();
    words.dedup();
    Unreadable { why, words }
}

/// The word or quoted identifier that this token is.
fn name(raw: &Raw) -> Option<&str> {
    match &raw.kind {
        RawKind::Word(word) | RawKind::Quoted(word) => Some(word),
        _ => None,
    }
}

/// Reads the query that `raws` are.
fn query(
    text: &[u8],
    shape: &Shape,
    raws: &[Raw],
    limits: &Limits,
    wrap: Wrap,
) -> Result<Plan, String> {
    let feed = tokens::feed(text, raws)?;
    let dialect = PostgreSqlDialect {};
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(limits.depth + NESTING_BESIDES_BRACKETS)
        .with_tokens_with_locations(feed.tokens);
    let query: Box<Query> = parser.parse_query().map_err(|e| said(&e.to_string()))?;
    let rest = parser.peek_token();
    if rest.token != sqlparser::tokenizer::Token::EOF {
        return Err(format!("unexpected {}", rest.token));
    }
    let mut lower = Lower::new(text, &shape.holes);
    lower.known.extend(feed.known);
    lower.join_aliases = feed.join_aliases;
    lower.widened = feed.widened;
    let root = lower.query(&query, None).map_err(|stop| stop.0)?;
    let select = select::select_text(&lower, &query, raws);
    let mut plan = lower.finish(raws);
    plan.select = select;
    plan.root = Some(root);
    plan.wrap = wrap;
    if wrap == Wrap::Bare {
        plan.insert = rows::insert_text(text, &shape.holes, raws, &plan).map(Box::new);
    }
    for level in plan.levels.iter_mut().filter(|_| feed.sampled) {
        level.features.sample = true;
    }
    plan.verb = if plan.levels.iter().any(|l| l.writes()) {
        Verb::Write
    } else {
        Verb::Select
    };
    Ok(plan)
}
