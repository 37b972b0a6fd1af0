//! A cursor over a statement's tokens, with the grammar's small building blocks (`ColId`, `Sconst`, `SignedIconst` ...).
//! A method that returns `None` or `false` has taken nothing, unless said otherwise.

use std::ops::Range;

use crate::sql::literal::literal_value;
use crate::sql::shape::{Hole, HoleKind, Shape, is_ident_start};
use crate::sql::token::{Token, TokenKind, Tokens, ident_value};

/// Reserved words of Postgres 15 (`pg_get_keywords()`, catcode R): no name without quotes. Sorted.
const RESERVED: [&str; 77] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "create",
    "current_catalog",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "from",
    "grant",
    "group",
    "having",
    "in",
    "initially",
    "intersect",
    "into",
    "lateral",
    "leading",
    "limit",
    "localtime",
    "localtimestamp",
    "not",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "placing",
    "primary",
    "references",
    "returning",
    "select",
    "session_user",
    "some",
    "symmetric",
    "table",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "when",
    "where",
    "window",
    "with",
];

/// Words that may name a type or function, but nothing else (catcode T). Sorted.
const TYPE_FUNC: [&str; 23] = [
    "authorization",
    "binary",
    "collation",
    "concurrently",
    "cross",
    "current_schema",
    "freeze",
    "full",
    "ilike",
    "inner",
    "is",
    "isnull",
    "join",
    "left",
    "like",
    "natural",
    "notnull",
    "outer",
    "overlaps",
    "right",
    "similar",
    "tablesample",
    "verbose",
];

#[derive(Clone)]
pub(super) struct Reader<'t> {
    text: &'t [u8],
    shape: &'t Shape,
    tokens: Tokens<'t>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t [u8], shape: &'t Shape) -> Self {
        Reader {
            text,
            shape,
            tokens: Tokens::new(text, &shape.holes),
        }
    }

    pub(super) fn peek(&self) -> Option<Token> {
        self.tokens.clone().next()
    }

    /// Takes the next token if `wanted` says so.
    fn take(&mut self, wanted: impl FnOnce(&Token) -> bool) -> Option<Token> {
        let mut ahead = self.tokens.clone();
        let token = ahead.next().filter(wanted)?;
        self.tokens = ahead;
        Some(token)
    }

    /// The first word, past empty statements. Anything else is taken too.
    pub(super) fn first_word(&mut self) -> Option<&'t [u8]> {
        while self.punct(b';') {}
        let token = self.tokens.next().filter(|t| t.kind == TokenKind::Word)?;
        Some(&self.text[token.span])
    }

    pub(super) fn word(&mut self, keyword: &str) -> bool {
        let text = self.text;
        self.take(|t| t.is_word(text, keyword)).is_some()
    }

    pub(super) fn punct(&mut self, byte: u8) -> bool {
        let text = self.text;
        self.take(|t| t.is_punct(text, byte)).is_some()
    }

    /// All of these keywords, or none.
    pub(super) fn words(&mut self, keywords: &[&str]) -> bool {
        let mut ahead = self.clone();
        let all = keywords.iter().all(|k| ahead.word(k));
        if all {
            *self = ahead;
        }
        all
    }

    /// The number of the first of these keywords that comes next.
    pub(super) fn one_of(&mut self, keywords: &[&str]) -> Option<usize> {
        keywords.iter().position(|k| self.word(k))
    }

    /// Nothing is left but semicolons.
    pub(super) fn at_end(&mut self) -> bool {
        while self.punct(b';') {}
        self.peek().is_none()
    }

    /// This alternative of the grammar, if it reads to the end of the statement; takes all or nothing.
    pub(super) fn whole<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let mut ahead = self.clone();
        let value = read(&mut ahead)?;
        ahead.at_end().then(|| {
            *self = ahead;
            value
        })
    }

    /// `ColId`.
    pub(super) fn col_id(&mut self) -> Option<String> {
        self.name(|word| !is_one_of(&RESERVED, word) && !is_one_of(&TYPE_FUNC, word))
    }

    /// `NonReservedWord`.
    pub(super) fn non_reserved_word(&mut self) -> Option<String> {
        self.name(|word| !is_one_of(&RESERVED, word))
    }

    /// `ColLabel`.
    pub(super) fn col_label(&mut self) -> Option<String> {
        self.name(|_| true)
    }

    /// `IDENT`: no keyword of any kind. Only those that can be told from the tables here, and those that begin another
    /// value of a time zone, are known; Postgres refuses the others.
    pub(super) fn plain_ident(&mut self) -> Option<String> {
        self.col_id()
    }

    pub(super) fn is_open(&self, token: &Token) -> bool {
        token.is_punct(self.text, b'(')
    }

    fn name(&mut self, allowed: impl Fn(&str) -> bool) -> Option<String> {
        let mut ahead = self.tokens.clone();
        let token = ahead.next()?;
        let value = ident_value(self.text, token.span);
        let fits = match token.kind {
            TokenKind::Word => allowed(&value),
            // An empty one is an error to Postgres.
            TokenKind::QuotedIdent => !value.is_empty(),
            _ => false,
        };
        fits.then(|| {
            self.tokens = ahead;
            value.into_owned()
        })
    }

    /// `Sconst`: a string of any spelling whose value is known.
    pub(super) fn sconst(&mut self) -> Option<String> {
        let mut ahead = self.tokens.clone();
        let TokenKind::Literal(hole) = ahead.next()?.kind else {
            return None;
        };
        let hole = &self.shape.holes[hole as usize];
        // `N'...'` is a cast, no Sconst.
        let national = matches!(self.text[hole.start as usize], b'n' | b'N');
        if hole.kind == HoleKind::Number || national {
            return None;
        }
        let value = String::from_utf8(literal_value(self.text, hole)?.into_owned()).ok()?;
        self.tokens = ahead;
        Some(value)
    }

    /// A string whose value concerns nobody. Bits and the like are Postgres' to refuse.
    pub(super) fn any_string(&mut self) -> Option<()> {
        let holes = &self.shape.holes;
        let string = |t: &Token| matches!(t.kind, TokenKind::Literal(hole) if holes[hole as usize].kind != HoleKind::Number);
        self.take(string).map(|_| ())
    }

    /// `NumericOnly`: its text without white space between sign and number.
    pub(super) fn numeric(&mut self) -> Option<String> {
        let mut ahead = self.clone();
        let minus = ahead.punct(b'-');
        if !minus {
            ahead.punct(b'+');
        }
        let hole = ahead.number()?;
        let digits = String::from_utf8(literal_value(self.text, hole)?.into_owned()).ok()?;
        *self = ahead;
        Some(if minus { format!("-{digits}") } else { digits })
    }

    /// A number without its sign. Anything may be taken on `None`.
    fn number(&mut self) -> Option<&'t Hole> {
        let TokenKind::Literal(hole) = self.tokens.next()?.kind else {
            return None;
        };
        let hole = &self.shape.holes[hole as usize];
        let next = self.text.get(hole.end as usize);
        let junk = next.is_some_and(|b| is_ident_start(*b));
        (hole.kind == HoleKind::Number && !junk).then_some(hole)
    }

    /// `SignedIconst`; the number itself concerns nobody. One that is no integer is Postgres' to refuse: what a text is must
    /// not hang on the values of its literals, for another text of its shape is taken for the same.
    pub(super) fn signed_iconst(&mut self) -> Option<()> {
        let mut ahead = self.clone();
        if !ahead.punct(b'-') {
            ahead.punct(b'+');
        }
        ahead.number()?;
        *self = ahead;
        Some(())
    }

    /// What stands between parentheses that match, bytes and whether there is any token. Anything may be taken on `None`.
    pub(super) fn parenthesized(&mut self) -> Option<Range<usize>> {
        let open = self.tokens.next().filter(|t| t.is_punct(self.text, b'('))?;
        let mut depth = 1u32;
        let mut any = false;
        loop {
            let token = self.tokens.next()?;
            if token.is_punct(self.text, b'(') {
                depth += 1;
            } else if token.is_punct(self.text, b')') {
                depth -= 1;
            }
            if depth == 0 {
                return any.then_some(open.span.end..token.span.start);
            }
            any = true;
        }
    }

    /// The items of a list, `bytes` as [`Reader::parenthesized`] gives them: what stands between its commas.
    pub(super) fn items(&self, bytes: Range<usize>) -> impl Iterator<Item = Vec<Token>> + use<'t> {
        let text = self.text;
        let mut tokens = Tokens::within(text, &self.shape.holes, bytes);
        let mut more = true;
        std::iter::from_fn(move || {
            let (mut item, mut depth) = (Vec::new(), 0i32);
            if !std::mem::replace(&mut more, false) {
                return None;
            }
            for token in tokens.by_ref() {
                if token.is_punct(text, b'(') || token.is_punct(text, b'[') {
                    depth += 1;
                } else if token.is_punct(text, b')') || token.is_punct(text, b']') {
                    depth -= 1;
                } else if depth == 0 && token.is_punct(text, b',') {
                    more = true;
                    break;
                }
                item.push(token);
            }
            Some(item)
        })
    }

    /// As [`Reader::rest`], with comments behind the last token: a hint may stand there.
    pub(super) fn rest_with_comments(&mut self) -> Option<Range<usize>> {
        let rest = self.rest()?;
        let end = self
            .shape
            .semicolons
            .iter()
            .find(|s| **s as usize >= rest.end);
        let end = end.map_or(self.text.len(), |s| *s as usize);
        let blanks = self.text[..end].trim_ascii_end().len();
        Some(rest.start..blanks.max(rest.end))
    }

    /// The bytes from the next token to the end of the statement, which must be the last one. Takes all of them.
    pub(super) fn rest(&mut self) -> Option<Range<usize>> {
        let start = self.peek()?.span.start;
        let stop = |s: &&u32| **s as usize >= start;
        let end = self
            .shape
            .semicolons
            .iter()
            .find(stop)
            .map_or(self.text.len(), |s| *s as usize);
        let mut last = start;
        for token in Tokens::within(self.text, &self.shape.holes, start..end) {
            last = token.span.end;
        }
        self.tokens = Tokens::within(self.text, &self.shape.holes, end..self.text.len());
        (last > start).then_some(start..last)
    }

    /// Where the next token begins (the text's end if there is none).
    pub(super) fn next_start(&self) -> usize {
        self.peek().map_or(self.text.len(), |t| t.span.start)
    }

    /// The bytes from `start` to the last token before this place.
    pub(super) fn since(&self, start: usize) -> Range<usize> {
        let here = self.next_start();
        let tokens = Tokens::within(self.text, &self.shape.holes, start..here);
        start..tokens.last().map_or(start, |t| t.span.end)
    }
}

fn is_one_of(sorted: &[&str], word: &str) -> bool {
    sorted.binary_search(&word).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_can_be_searched() {
        assert!(RESERVED.is_sorted() && TYPE_FUNC.is_sorted());
    }
}
