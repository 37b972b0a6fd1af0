//! Constructs that the parser does not know, made into ones that it does, or left out where routing does not need them.

use sqlparser::tokenizer::Token;

use super::super::cut::RawKind;
use super::super::keywords::is_interval_field;
use super::{Feeder, ident, keyword, literal};
use crate::sql::shape::HoleKind;

impl Feeder<'_> {
    /// Constructs that the parser does not know. True: it is done.
    pub(super) fn rewritten(&mut self, word: &str) -> Result<bool, String> {
        match word {
            // After a string it is left out with it: this one stands after an identifier, whose letters it decides.
            "uescape" => return Err("UESCAPE".to_owned()),
            "table" if !self.back_is(&["as"]) => {
                for token in [keyword("select"), Token::Mul, keyword("from")] {
                    self.emit(token);
                }
                self.at += 1;
            }
            "only" if !self.back_is(&["row", "rows"]) => {
                self.at += 1;
                self.unwrap_parens();
            }
            "values" if self.at > 1 && self.is_punct_back(b'(') && self.any_before(self.at - 2) => {
                // `= ANY (VALUES ...)`
                self.close.extend(self.matching(self.at - 1));
                for token in [
                    keyword("select"),
                    Token::Mul,
                    keyword("from"),
                    Token::LParen,
                    keyword("values"),
                ] {
                    self.emit(token);
                }
                self.at += 1;
            }
            "variadic" | "symmetric" | "asymmetric" => self.at += 1,
            "isnull" => self.emit_all(&["is", "null"]),
            "notnull" => self.emit_all(&["is", "not", "null"]),
            "for" if self.ahead_is(&["no", "key", "update"]) => {
                self.emit(keyword("for"));
                self.at += 3;
                self.lock();
            }
            "for" if self.ahead_is(&["key", "share"]) => {
                self.emit(keyword("for"));
                self.at += 2;
                self.lock();
            }
            "for" if self.ahead_is(&["read", "only"]) => self.at += 3,
            "all" | "distinct"
                if self.back_is(&["by"])
                    && self.at > 1
                    && self.word_at(self.at - 2) == Some("group") =>
            {
                self.at += 1;
            }
            "not" if self.likes_any(1) => {
                self.emit(Token::Neq);
                self.at += 2;
            }
            "like" | "ilike" if self.likes_any(0) => {
                self.emit(Token::Neq);
                self.at += 1;
            }
            "is" if self.is_of_another_kind().is_some() => {
                let words = self.is_of_another_kind().unwrap_or(1);
                self.emit(keyword("is"));
                if self.ahead_is(&["not"]) {
                    self.emit(keyword("not"));
                }
                self.emit(keyword("null"));
                self.at += words;
            }
            "collation" if self.ahead_is(&["for"]) && self.is_punct(2, b'(') => {
                self.emit(ident("pg_collation_for"));
                self.known(self.at);
                self.at += 2;
            }
            "default" if self.ahead_is(&["values"]) && self.back_is(&["insert"]) => {
                for token in [
                    keyword("values"),
                    Token::LParen,
                    keyword("default"),
                    Token::RParen,
                ] {
                    self.emit(token);
                }
                self.at += 2;
            }
            "for" if self.ahead_is(&["update"]) || self.ahead_is(&["share"]) => {
                self.emit(keyword("for"));
                self.at += 1;
                self.lock();
            }
            "overriding"
                if self.ahead_is(&["system", "value"]) || self.ahead_is(&["user", "value"]) =>
            {
                self.at += 3
            }
            "exclude" if self.ahead_is(&["current", "row"]) || self.ahead_is(&["no", "others"]) => {
                self.at += 3
            }
            "exclude" if self.ahead_is(&["group"]) || self.ahead_is(&["ties"]) => self.at += 2,
            "current" if self.ahead_is(&["of"]) && self.back_is(&["where"]) => {
                self.emit(keyword("true"));
                self.known(self.at + 2);
                self.at += 3;
            }
            "tablesample" => return self.skip_sample().map(|()| true),
            "rows"
                if self.ahead_is(&["from"])
                    && self.is_punct(2, b'(')
                    && (self.back_is(&["from", "join", "lateral"]) || self.in_from_list()) =>
            {
                self.emit(ident("rows_from"));
                self.at += 2;
            }
            "timestamp" | "time"
                if (self.ahead_is(&["with", "time", "zone"])
                    || self.ahead_is(&["without", "time", "zone"]))
                    && self.is_string(4) =>
            {
                let kind = self.raws[self.at + 4].kind.clone();
                if let RawKind::Literal(_, kind) = kind {
                    self.emit_at(literal(kind), self.at + 4);
                    self.emit(Token::DoubleColon);
                    self.emit(ident("timestamptz"));
                }
                self.at += 5;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `type 'value'` becomes `'value'::type`; the fields of an interval are left out.
    pub(super) fn typed_literal(&mut self, name: String) {
        let interval = name == "interval";
        if let RawKind::Literal(_, kind) = self.raws[self.at + 1].kind {
            self.emit_at(literal(kind), self.at + 1);
        }
        self.emit(Token::DoubleColon);
        self.emit(ident(&name));
        self.at += 2;
        while interval && self.word_at(self.at).is_some_and(is_interval_field) {
            self.at += 1;
            if self.is_punct(0, b'(')
                && let Some(close) = self.matching(self.at)
            {
                self.at = close + 1;
            }
            if self.word_at(self.at) == Some("to") {
                self.at += 1;
            }
        }
    }

    /// At UPDATE or SHARE of a locking clause: emits it and leaves out its OF list.
    pub(super) fn lock(&mut self) {
        let word = self.word_at(self.at).unwrap_or("update").to_owned();
        self.emit(keyword(&word));
        self.at += 1;
        if self.word_at(self.at) != Some("of") {
            return;
        }
        self.at += 1;
        loop {
            self.known(self.at);
            self.at += 1;
            if !self.is_punct(0, b',') && !self.is_punct(0, b'.') {
                return;
            }
            self.at += 1;
        }
    }

    /// `(c) WHERE predicate` before DO: which rows conflict is the shard's own business.
    pub(super) fn skip_conflict_target(&mut self) {
        let from = self.at;
        if self.is_punct(0, b'(') {
            match self.matching(self.at) {
                Some(close) => self.at = close + 1,
                None => return,
            }
        }
        if self.at > from && self.word_at(self.at) == Some("where") {
            let mut depth = 0usize;
            while let Some(raw) = self.raws.get(self.at) {
                match raw.kind {
                    RawKind::Word(ref word) if depth == 0 && word == "do" => break,
                    RawKind::Punct if self.text[raw.start] == b'(' => depth += 1,
                    RawKind::Punct if self.text[raw.start] == b')' => {
                        depth = depth.saturating_sub(1)
                    }
                    _ => {}
                }
                self.at += 1;
            }
        }
        for at in from..self.at {
            self.known(at);
        }
    }

    /// `TABLESAMPLE method (...) REPEATABLE (...)`
    pub(super) fn skip_sample(&mut self) -> Result<(), String> {
        self.out.sampled = true;
        self.at += 2;
        let close = self.matching(self.at).ok_or("TABLESAMPLE")?;
        self.at = close + 1;
        if self.word_at(self.at) == Some("repeatable") {
            let close = self.matching(self.at + 1).ok_or("REPEATABLE")?;
            self.at = close + 1;
        }
        Ok(())
    }

    /// `ONLY (t)`: leaves the parentheses out.
    pub(super) fn unwrap_parens(&mut self) {
        if !self.is_punct(0, b'(') {
            return;
        }
        let Some(close) = self.matching(self.at) else {
            return;
        };
        self.at += 1;
        while self.at < close {
            let raw = &self.raws[self.at];
            match &raw.kind {
                RawKind::Word(name) | RawKind::Quoted(name) => self.emit(ident(name)),
                RawKind::Punct if self.text[raw.start] == b'.' => self.emit(Token::Period),
                // Not a name: the parser will say so.
                _ => self.emit(Token::RParen),
            }
            self.at += 1;
        }
        self.at = close + 1;
    }

    /// `LIKE ANY (`: with its list of patterns it ties nothing.
    fn likes_any(&self, ahead: usize) -> bool {
        let at = self.at + ahead;
        matches!(self.word_at(at), Some("like" | "ilike"))
            && matches!(self.word_at(at + 1), Some("any" | "all" | "some"))
            && self.is_punct_at(at + 2, b'(')
    }

    /// `IS [NOT] [NFC] NORMALIZED`, `IS [NOT] DOCUMENT`: how many words it is.
    fn is_of_another_kind(&self) -> Option<usize> {
        let mut words = 1;
        if self.word_at(self.at + words) == Some("not") {
            words += 1;
        }
        if matches!(
            self.word_at(self.at + words),
            Some("nfc" | "nfd" | "nfkc" | "nfkd")
        ) {
            words += 1;
        }
        matches!(
            self.word_at(self.at + words),
            Some("normalized" | "document")
        )
        .then_some(words + 1)
    }

    /// A word after a comma stands in a FROM list, by the nearest keyword before it that opens a clause.
    fn in_from_list(&self) -> bool {
        let mut depth = 0usize;
        for at in (0..self.at).rev() {
            if self.is_punct_at(at, b')') {
                depth += 1;
            } else if self.is_punct_at(at, b'(') {
                match depth.checked_sub(1) {
                    Some(outer) => depth = outer,
                    None => return false,
                }
            }
            match self.word_at(at).filter(|_| depth == 0) {
                Some("from" | "join") => return true,
                Some(
                    "select" | "where" | "by" | "set" | "returning" | "having" | "values" | "on",
                ) => return false,
                _ => {}
            }
        }
        false
    }

    /// `IN ((SELECT ...), ...)`
    pub(super) fn opens_list_with_subquery(&self) -> bool {
        let close = || self.matching(self.at + 1);
        self.back_is(&["in"])
            && self.is_punct(1, b'(')
            && matches!(
                self.word_at(self.at + 2),
                Some("select" | "with" | "values" | "table")
            )
            && close().is_some_and(|close| self.is_punct_at(close + 1, b','))
    }

    /// A string with an escape character of its own: what it says is not read.
    pub(super) fn escaped(&mut self, kind: HoleKind) {
        let at = self.at;
        for token in [
            Token::LParen,
            literal(kind),
            Token::StringConcat,
            literal(kind),
            Token::RParen,
        ] {
            self.emit_at(token, at);
        }
        self.at += 3;
    }

    /// At a closing parenthesis: `USING (...) AS alias`, and SEARCH and CYCLE after a common table expression. True: it
    /// and what follows is done.
    pub(super) fn after_parenthesis(&mut self) -> Result<bool, String> {
        if self.ahead_is(&["as"]) && self.closes_using() {
            let name = match self.raws.get(self.at + 2).map(|raw| &raw.kind) {
                Some(RawKind::Word(name) | RawKind::Quoted(name)) => name.clone(),
                _ => return Ok(false),
            };
            let open = self.opening(self.at).unwrap_or(0);
            self.out
                .join_aliases
                .insert(self.raws[open + 1].start, name);
            self.emit(Token::RParen);
            self.known(self.at + 2);
            self.at += 3;
            return Ok(true);
        }
        let search = self.ahead_is(&["search", "depth", "first", "by"])
            || self.ahead_is(&["search", "breadth", "first", "by"]);
        if search || (self.ahead_is(&["cycle"]) && self.cycles()) {
            self.out.widened.insert(self.raws[self.at].start);
            self.emit(Token::RParen);
            self.at += 1;
            if search {
                self.skip_to("set")?;
                self.skip_name();
            }
            if self.word_at(self.at) == Some("cycle") {
                self.skip_to("using")?;
                self.skip_name();
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn cycles(&self) -> bool {
        (self.at + 2..self.raws.len()).any(|at| self.word_at(at) == Some("set"))
    }

    /// Leaves all out until a word, that word included.
    fn skip_to(&mut self, end: &str) -> Result<(), String> {
        while self.word_at(self.at) != Some(end) {
            if self.at >= self.raws.len() || self.is_punct(0, b'(') {
                return Err(format!("{end} is missing"));
            }
            self.known(self.at);
            self.at += 1;
        }
        self.at += 1;
        Ok(())
    }

    fn skip_name(&mut self) {
        self.known(self.at);
        self.at += 1;
    }

    /// A list of names, nothing else: MERGE and DELETE have USING too.
    fn closes_using(&self) -> bool {
        let Some(open) = self.opening(self.at).filter(|open| *open > 0) else {
            return false;
        };
        let name_or_comma = |at: usize| {
            self.is_punct_at(at, b',')
                || matches!(self.raws[at].kind, RawKind::Word(_) | RawKind::Quoted(_))
        };
        self.word_at(open - 1) == Some("using") && (open + 1..self.at).all(name_or_comma)
    }

    /// The bracket that the one at `close` closes.
    fn opening(&self, close: usize) -> Option<usize> {
        let mut depth = 0usize;
        for at in (0..=close).rev() {
            if self.is_punct_at(at, b')') || self.is_punct_at(at, b']') {
                depth += 1;
            } else if self.is_punct_at(at, b'(') || self.is_punct_at(at, b'[') {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        None
    }
}
