//! The tokens that sqlparser is given. They are cut by Postgres' lexical rules, not by its own; words are keywords only
//! where the grammar of Postgres' queries wants one; constructs that it does not know are made into ones that it does.
//! A token's column is its byte offset in the text plus one, so a name that it hands back can be found again.

use std::collections::{HashMap, HashSet};

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Word};

use super::cut::{Raw, RawKind, matching};
use super::keywords::{ends_operand, keeps, takes_string};
use crate::sql::shape::HoleKind;

mod calls;
mod constructs;

/// The name that `*` goes by in `(row).*`.
pub(super) const ALL_FIELDS: &str = "*";

/// What the parser is given.
pub(super) struct Feed {
    pub(super) tokens: Vec<TokenWithSpan>,
    /// Where words begin that are left out, but have a known meaning.
    pub(super) known: Vec<usize>,
    /// A TABLESAMPLE was left out.
    pub(super) sampled: bool,
    /// Aliases that were left out: of `USING (...) AS alias`, by where the first column of the list begins.
    pub(super) join_aliases: HashMap<usize, String>,
    /// SEARCH and CYCLE that were left out: where the parenthesis begins that they stand after.
    pub(super) widened: HashSet<usize>,
}

/// Makes the parser's tokens from a run of ours.
pub(super) fn feed(text: &[u8], raws: &[Raw]) -> Result<Feed, String> {
    let mut feeder = Feeder {
        text,
        raws,
        at: 0,
        set: Vec::new(),
        close: Vec::new(),
        instead: HashMap::new(),
        depth: 0,
        out: Feed {
            tokens: Vec::with_capacity(raws.len()),
            known: Vec::new(),
            sampled: false,
            join_aliases: HashMap::new(),
            widened: HashSet::new(),
        },
    };
    while feeder.at < raws.len() {
        feeder.next()?;
    }
    Ok(feeder.out)
}

struct Feeder<'t> {
    text: &'t [u8],
    raws: &'t [Raw],
    at: usize,
    depth: usize,
    /// Depths at which a SET list is open.
    set: Vec<usize>,
    /// Closing parentheses before which one more must stand.
    close: Vec<usize>,
    /// What a token becomes that belongs to a call in a form of its own: `substring(a from 1)`.
    instead: HashMap<usize, Instead>,
    out: Feed,
}

impl Feeder<'_> {
    fn next(&mut self) -> Result<(), String> {
        if let Some(instead) = self.instead.remove(&self.at) {
            self.instead(instead);
            return Ok(());
        }
        let raw = &self.raws[self.at];
        match &raw.kind {
            RawKind::Word(word) => self.word(word),
            RawKind::Quoted(name) if self.is_string(1) && !self.is_punct_back(b'.') => {
                self.typed_literal(name.clone());
                Ok(())
            }
            RawKind::Quoted(name) => {
                self.emit(ident(name));
                self.at += 1;
                Ok(())
            }
            RawKind::Param => {
                let name = String::from_utf8_lossy(&self.text[raw.start..raw.end]).into_owned();
                self.emit(Token::Placeholder(name));
                self.at += 1;
                Ok(())
            }
            RawKind::Literal(_, kind) => {
                if *kind != HoleKind::Number && self.is_string_back() {
                    return Err("two strings side by side".to_owned());
                }
                if *kind != HoleKind::Number && self.ahead_is(&["uescape"]) && self.is_string(2) {
                    self.escaped(*kind);
                    return Ok(());
                }
                self.emit(literal(*kind));
                self.at += 1;
                Ok(())
            }
            RawKind::Operator => {
                self.operator();
                Ok(())
            }
            RawKind::Punct => self.punct(),
        }
    }

    fn punct(&mut self) -> Result<(), String> {
        let token = match self.text[self.raws[self.at].start] {
            b'(' => {
                self.depth += 1;
                if self.opens_list_with_subquery() {
                    // Else `((SELECT ...), ...)` would be taken for a subquery; a null changes no list.
                    for token in [Token::LParen, keyword("null"), Token::Comma] {
                        self.emit(token);
                    }
                    self.at += 1;
                    return Ok(());
                }
                Token::LParen
            }
            b')' => {
                self.depth = self.depth.saturating_sub(1);
                while self.set.last().is_some_and(|d| *d > self.depth) {
                    self.set.pop();
                }
                if self.close.last() == Some(&self.at) {
                    self.close.pop();
                    self.emit(Token::RParen);
                    self.emit(ident("values"));
                }
                if self.after_parenthesis()? {
                    return Ok(());
                }
                Token::RParen
            }
            b'[' => Token::LBracket,
            b']' => Token::RBracket,
            b',' => {
                self.emit(Token::Comma);
                self.at += 1;
                if self.set.last() == Some(&self.depth) {
                    self.set_target();
                }
                return Ok(());
            }
            b'.' if self.at > 0 && self.is_punct_back(b')') && self.operator_is(1, b"*") => {
                // `(row).*` reads as a field of that name; see `Lower::outputs`.
                self.emit(Token::Period);
                self.emit(ident(ALL_FIELDS));
                self.at += 2;
                return Ok(());
            }
            b'.' => Token::Period,
            b':' if self.adjacent(b':') => {
                self.emit(Token::DoubleColon);
                self.at += 2;
                return Ok(());
            }
            b':' if self.operator_is(1, b"=")
                && self.raws[self.at].end == self.raws[self.at + 1].start =>
            {
                self.emit(Token::Assignment);
                self.at += 2;
                return Ok(());
            }
            b':' => Token::Colon,
            _ => return Err("more than one statement".to_owned()),
        };
        self.emit(token);
        self.at += 1;
        Ok(())
    }

    /// The next token is this byte and touches the present one.
    fn adjacent(&self, byte: u8) -> bool {
        let next = self.raws.get(self.at + 1);
        next.is_some_and(|n| {
            n.kind == RawKind::Punct
                && self.text[n.start] == byte
                && n.start == self.raws[self.at].end
        })
    }

    /// After SET or a comma of a SET list: `column[subscript] =` loses its subscript, which routing does not need.
    fn set_target(&mut self) {
        if !matches!(
            self.raws.get(self.at).map(|r| &r.kind),
            Some(RawKind::Word(_) | RawKind::Quoted(_))
        ) {
            return;
        }
        let name = self.raws[self.at].clone();
        let mut after = self.at + 1;
        while self.is_punct_at(after, b'[') {
            let Some(close) = self.matching(after) else {
                return;
            };
            after = close + 1;
        }
        if after > self.at + 1 && self.operator_at(after, b"=") {
            let (RawKind::Word(value) | RawKind::Quoted(value)) = &name.kind else {
                return;
            };
            self.emit(ident(value));
            self.at = after;
        }
    }

    fn operator(&mut self) {
        if self.operator_is(0, b"*") && self.ahead_is(&["set"]) {
            // `UPDATE t * SET`: with its children, as without the star.
            self.at += 1;
            return;
        }
        let raw = &self.raws[self.at];
        let bytes = &self.text[raw.start..raw.end];
        let token = match bytes {
            b"=" => Token::Eq,
            b"<" => Token::Lt,
            b">" => Token::Gt,
            b"<=" => Token::LtEq,
            b">=" => Token::GtEq,
            b"<>" | b"!=" => Token::Neq,
            b"+" => Token::Plus,
            b"-" => Token::Minus,
            b"*" => Token::Mul,
            b"/" => Token::Div,
            b"%" => Token::Mod,
            b"^" => Token::Caret,
            b"=>" => Token::RArrow,
            // All other prefix operators look the same to us.
            _ if self.prefix_position() => Token::Tilde,
            b"~" => Token::Tilde,
            b"~*" => Token::TildeAsterisk,
            b"!~" => Token::ExclamationMarkTilde,
            b"!~*" => Token::ExclamationMarkTildeAsterisk,
            b"~~" => Token::DoubleTilde,
            b"~~*" => Token::DoubleTildeAsterisk,
            b"!~~" => Token::ExclamationMarkDoubleTilde,
            b"!~~*" => Token::ExclamationMarkDoubleTildeAsterisk,
            _ => Token::CustomBinaryOperator(String::from_utf8_lossy(bytes).into_owned()),
        };
        self.emit(token);
        self.at += 1;
    }

    /// An operator here has no left operand.
    fn prefix_position(&self) -> bool {
        match self.at.checked_sub(1).map(|back| &self.raws[back]) {
            None => true,
            Some(Raw {
                kind: RawKind::Operator,
                start,
                end,
            }) => &self.text[*start..*end] != b"*",
            Some(Raw {
                kind: RawKind::Punct,
                start,
                ..
            }) => matches!(self.text[*start], b'(' | b'[' | b',' | b':'),
            Some(Raw {
                kind: RawKind::Word(word),
                ..
            }) => keeps(word) && !ends_operand(word),
            Some(_) => false,
        }
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        let name_here = self.is_punct_back(b'.') || self.is_punct(1, b'.');
        if !name_here && (self.rewritten(word)? || self.call(word)?) {
            return Ok(());
        }
        if !name_here && self.is_string(1) && !takes_string(word) {
            self.typed_literal(word.to_owned());
            return Ok(());
        }
        let keyword = !name_here && self.is_keyword(word);
        self.emit(if keyword {
            Token::make_word(word, None)
        } else {
            ident(word)
        });
        self.at += 1;
        if keyword {
            self.after_keyword(word);
        }
        Ok(())
    }

    fn after_keyword(&mut self, word: &str) {
        match word {
            "set" => {
                self.set.push(self.depth);
                self.set_target();
            }
            "where" | "from" | "returning" | "when" if self.set.last() == Some(&self.depth) => {
                self.set.pop();
            }
            "conflict" => self.skip_conflict_target(),
            _ => {}
        }
    }

    /// Whether this word is a keyword here.
    fn is_keyword(&self, word: &str) -> bool {
        let back = |words: &[&str]| self.back_is(words);
        let ahead = |words: &[&str]| words.iter().any(|w| self.ahead_is(&[w]));
        let paren = self.is_punct(1, b'(');
        match word {
            "timestamp" | "time" if ahead(&["with", "without"]) => true,
            "timestamp" | "time" if paren => back(&["as"]) || self.is_punct_back(b':'),
            "time" => back(&["at", "with", "without"]),
            "zone" => back(&["time"]),
            "at" | "without" => ahead(&["time"]),
            "double" => ahead(&["precision"]),
            "precision" => back(&["double"]),
            "character" | "char" | "bit" | "nchar" => ahead(&["varying"]),
            "varying" => back(&["character", "char", "bit", "nchar"]),
            "materialized" => back(&["as", "not"]),
            "not" if back(&["as"]) => ahead(&["materialized"]),
            _ if back(&["as"]) => false,
            "insert" => ahead(&["into"]) || back(&["then"]),
            "over" => self.is_punct_back(b')'),
            "filter" => paren && self.is_punct_back(b')'),
            "within" => ahead(&["group"]),
            "partition" => ahead(&["by"]),
            "range" | "groups" => ahead(&["between", "unbounded", "current"]) || self.is_value(1),
            "row" => !paren,
            "current" => ahead(&["row"]),
            "recursive" => back(&["with"]),
            "nothing" => back(&["do"]),
            "conflict" => back(&["on"]),
            "constraint" => back(&["on", "conflict"]),
            "first" | "last" => back(&["nulls", "fetch"]),
            "next" => back(&["fetch"]),
            "nulls" => ahead(&["first", "last"]),
            "ties" | "ordinality" => back(&["with"]),
            "only" => true,
            "locked" => back(&["skip"]),
            "skip" => ahead(&["locked"]),
            "matched" => back(&["when", "not"]),
            "source" | "target" => back(&["by"]),
            "unknown" => back(&["is", "not"]),
            "sets" => back(&["grouping"]),
            "grouping" => ahead(&["sets"]),
            "to" => back(&["similar"]),
            "left" | "right" | "full" => ahead(&["join", "outer"]),
            "inner" | "cross" => ahead(&["join"]),
            "values" => paren || back(&["default"]),
            "array" => paren || self.is_punct(1, b'['),
            "extract" | "substring" | "trim" | "overlay" | "position" | "cast" | "exists"
            | "some" | "operator" | "rollup" | "cube" => paren,
            _ => keeps(word),
        }
    }

    fn emit(&mut self, token: Token) {
        self.emit_at(token, self.at);
    }

    fn emit_at(&mut self, token: Token, at: usize) {
        let place = |byte: usize| Location {
            line: 1,
            column: byte as u64 + 1,
        };
        let (start, end) = self.raws.get(at).map_or((0, 0), |raw| (raw.start, raw.end));
        self.out.tokens.push(TokenWithSpan {
            token,
            span: Span {
                start: place(start),
                end: place(end),
            },
        });
    }

    fn emit_all(&mut self, words: &[&str]) {
        for word in words {
            self.emit(keyword(word));
        }
        self.at += 1;
    }

    fn known(&mut self, at: usize) {
        if let Some(raw) = self.raws.get(at) {
            self.out.known.push(raw.start);
        }
    }

    fn word_at(&self, at: usize) -> Option<&str> {
        match &self.raws.get(at)?.kind {
            RawKind::Word(word) => Some(word),
            _ => None,
        }
    }

    fn any_before(&self, at: usize) -> bool {
        matches!(self.word_at(at), Some("any" | "all" | "some"))
    }

    fn back_is(&self, words: &[&str]) -> bool {
        let back = self.at.checked_sub(1).and_then(|back| self.word_at(back));
        back.is_some_and(|word| words.contains(&word))
    }

    /// The words after the present one.
    fn ahead_is(&self, words: &[&str]) -> bool {
        words
            .iter()
            .zip(self.at + 1..)
            .all(|(word, at)| self.word_at(at) == Some(word))
    }

    fn is_punct(&self, ahead: usize, byte: u8) -> bool {
        self.is_punct_at(self.at + ahead, byte)
    }

    fn is_punct_at(&self, at: usize, byte: u8) -> bool {
        self.raws
            .get(at)
            .is_some_and(|r| r.kind == RawKind::Punct && self.text[r.start] == byte)
    }

    fn is_punct_back(&self, byte: u8) -> bool {
        self.at > 0 && self.is_punct_at(self.at - 1, byte)
    }

    fn operator_is(&self, ahead: usize, bytes: &[u8]) -> bool {
        self.operator_at(self.at + ahead, bytes)
    }

    fn operator_at(&self, at: usize, bytes: &[u8]) -> bool {
        self.raws
            .get(at)
            .is_some_and(|r| r.kind == RawKind::Operator && &self.text[r.start..r.end] == bytes)
    }

    fn is_string(&self, ahead: usize) -> bool {
        let raw = self.raws.get(self.at + ahead);
        raw.is_some_and(|r| matches!(r.kind, RawKind::Literal(_, kind) if kind != HoleKind::Number))
    }

    fn is_string_back(&self) -> bool {
        let raw = self.at.checked_sub(1).map(|back| &self.raws[back].kind);
        matches!(raw, Some(RawKind::Literal(_, kind)) if *kind != HoleKind::Number)
    }

    fn is_value(&self, ahead: usize) -> bool {
        let raw = self.raws.get(self.at + ahead);
        raw.is_some_and(|r| matches!(r.kind, RawKind::Literal(..) | RawKind::Param))
    }

    /// The bracket that closes the one at `open`.
    fn matching(&self, open: usize) -> Option<usize> {
        matching(self.text, self.raws, open)
    }
}

/// What becomes of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instead {
    Nothing,
    Comma,
    Null,
}

/// All literals of a family look the same to the parser: what it makes of a text follows from the text's shape alone.
fn literal(kind: HoleKind) -> Token {
    match kind {
        HoleKind::Number => Token::Number("1".to_owned(), false),
        _ => Token::SingleQuotedString(String::new()),
    }
}

fn ident(name: &str) -> Token {
    Token::Word(Word {
        value: name.to_owned(),
        quote_style: None,
        keyword: Keyword::NoKeyword,
    })
}

fn keyword(word: &str) -> Token {
    Token::make_word(word, None)
}
