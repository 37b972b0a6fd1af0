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
            // Another word, as a rule.
            match text[start..].iter().find(|b| !is_space(**b)) {
                None => return false,
                Some(b) if b.is_ascii_alphabetic() && !b.eq_ignore_ascii_case(&b'c') => {
                    return false;
                }
                Some(_) => {}
            }
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

/// Watches one statement after another for `routine_body` (gram.y): `BEGIN ATOMIC`, statements that each end with a
/// semicolon, `END`. So the `END` that closes it stands behind a semicolon or `ATOMIC`, as no other one does.
#[derive(Default)]
struct Routine {
    head: Head,
    /// Open parentheses.
    parens: u32,
    last: Last,
}

#[derive(Default, PartialEq)]
enum Head {
    #[default]
    Start,
    Create,
    CreateOr,
    CreateOrReplace,
    /// In the clauses of `CREATE FUNCTION` or `PROCEDURE`.
    Routine,
    Body,
    Other,
}

/// The token before, outside parentheses.
#[derive(Default, PartialEq)]
enum Last {
    #[default]
    Any,
    Begin,
    /// A statement of the body, or its end, begins.
    Boundary,
}

impl Routine {
    /// Takes the next token; whether it is a semicolon between statements.
    fn ends_statement(&mut self, text: &[u8], token: &Token) -> bool {
        let last = std::mem::take(&mut self.last);
        match token.kind {
            TokenKind::Word => self.word(&text[token.span.clone()], last),
            TokenKind::Punct => return self.punct(text[token.span.start]),
            _ => self.no_word(),
        }
        false
    }

    fn word(&mut self, word: &[u8], last: Last) {
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword.as_bytes());
        self.head = match std::mem::take(&mut self.head) {
            Head::Start if is("create") => Head::Create,
            Head::Create if is("or") => Head::CreateOr,
            Head::CreateOr if is("replace") => Head::CreateOrReplace,
            Head::Create | Head::CreateOrReplace if is("function") || is("procedure") => {
                Head::Routine
            }
            Head::Routine if last == Last::Begin && is("atomic") => {
                self.last = Last::Boundary;
                Head::Body
            }
            Head::Routine => {
                if self.parens == 0 && is("begin") {
                    self.last = Last::Begin;
                }
                Head::Routine
            }
            Head::Body if !(last == Last::Boundary && is("end")) => Head::Body,
            _ => Head::Other,
        };
    }

    fn no_word(&mut self) {
        if !matches!(self.head, Head::Routine | Head::Body) {
            self.head = Head::Other;
        }
    }

    fn punct(&mut self, byte: u8) -> bool {
        match byte {
            b'(' => self.parens += 1,
            b')' => self.parens = self.parens.saturating_sub(1),
            b';' if self.parens > 0 => {}
            b';' if self.head == Head::Body => self.last = Last::Boundary,
            b';' => {
                *self = Routine::default();
                return true;
            }
            _ => {}
        }
        self.no_word();
        false
    }
}
