//! A text cut into its single statements: which semicolons separate, and what lies between them.

use std::ops::Range;

use smallvec::SmallVec;

use super::{Shape, is_space};
use crate::sql::token::{Token, TokenKind, Tokens};

impl Shape {
    /// The single statements of `text` (the text last scanned): byte ranges without the semicolons and the white
    /// space around them, comments kept. Empty statements and those of comments only are left out.
    pub fn pieces<'t>(&'t self, text: &'t [u8]) -> impl Iterator<Item = Range<usize>> + 't {
        let ends = self
            .semicolons
            .iter()
            .map(|s| *s as usize)
            .chain([text.len()]);
        let mut start = 0;
        ends.filter_map(move |end| {
            let piece = trim(text, start..end);
            start = end + 1;
            let said = Tokens::within(text, &self.holes, piece.clone())
                .next()
                .is_some();
            said.then_some(piece)
        })
    }

    /// Takes those semicolons out that stand inside the body of `CREATE FUNCTION ... BEGIN ATOMIC ...; ...; END`.
    pub(super) fn join_atomic_bodies(&mut self, text: &[u8]) {
        let starts = [0]
            .into_iter()
            .chain(self.semicolons.iter().map(|s| *s as usize + 1));
        let creates = |start: usize| {
            let first = Tokens::within(text, &self.holes, start..text.len()).next();
            first.is_some_and(|t| t.is_word(text, "create"))
        };
        if self.semicolons.is_empty() || !{ starts }.any(creates) {
            return;
        }
        let mut routine = Routine::default();
        let mut keep: SmallVec<[u32; 4]> = SmallVec::new();
        for token in Tokens::new(text, &self.holes) {
            if routine.ends_statement(text, &token) {
                keep.push(token.span.start as u32);
            }
        }
        self.semicolons = keep;
    }
}

fn trim(text: &[u8], range: Range<usize>) -> Range<usize> {
    let (mut start, mut end) = (range.start, range.end);
    while start < end && is_space(text[start]) {
        start += 1;
    }
    while end > start && is_space(text[end - 1]) {
        end -= 1;
    }
    start..end
}

/// Watches one statement after another for a `BEGIN ATOMIC` body, as psql does (psqlscan.l), but counts only words
/// that can't be a label.
#[derive(Default)]
struct Routine {
    head: Head,
    /// Open parentheses.
    parens: u32,
    /// Open `BEGIN ATOMIC` and `CASE` of the body.
    body: u32,
    after: After,
}

#[derive(Default, PartialEq)]
enum Head {
    #[default]
    Start,
    Create,
    CreateOr,
    CreateOrReplace,
    Routine,
    Other,
}

#[derive(Default, PartialEq)]
enum After {
    #[default]
    Anything,
    /// `.` or `AS`: the next word is a name.
    Name,
    /// `BEGIN` at the level of the routine's clauses.
    Begin,
}

impl Routine {
    fn ends_statement(&mut self, text: &[u8], token: &Token) -> bool {
        let after = std::mem::take(&mut self.after);
        match token.kind {
            TokenKind::Word => self.word(&text[token.span.clone()], after),
            TokenKind::Punct => match text[token.span.start] {
                b'(' => self.parens += 1,
                b')' => self.parens = self.parens.saturating_sub(1),
                b'.' => self.after = After::Name,
                b';' if self.parens == 0 && self.body == 0 => {
                    *self = Routine::default();
                    return true;
                }
                _ => {}
            },
            _ => {}
        }
        if self.head != Head::Routine && token.kind != TokenKind::Word {
            self.head = Head::Other;
        }
        false
    }

    fn word(&mut self, word: &[u8], after: After) {
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword.as_bytes());
        self.head = match self.head {
            Head::Start if is("create") => Head::Create,
            Head::Create if is("or") => Head::CreateOr,
            Head::CreateOr if is("replace") => Head::CreateOrReplace,
            Head::Create | Head::CreateOrReplace if is("function") || is("procedure") => {
                Head::Routine
            }
            Head::Routine => return self.clause(is, after),
            _ => Head::Other,
        };
    }

    fn clause(&mut self, is: impl Fn(&str) -> bool, after: After) {
        if self.parens > 0 || after == After::Name {
            return;
        }
        if is("as") {
            self.after = After::Name;
        } else if self.body > 0 && is("case") {
            self.body += 1;
        } else if self.body > 0 && is("end") {
            self.body -= 1;
        } else if self.body == 0 && is("begin") {
            self.after = After::Begin;
        } else if after == After::Begin && is("atomic") {
            self.body = 1;
        }
    }
}
