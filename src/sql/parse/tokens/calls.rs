//! Calls that Postgres' grammar gives a form of their own (`substring(a from 1)`, `xmlelement(name a)`, `XMLTABLE`,
//! `JSON_TABLE`): their keywords become commas or nothing, so that the parser sees an ordinary call of the same arguments.

use sqlparser::tokenizer::Token;

use super::{Feeder, Instead, ident, keyword};

impl Feeder<'_> {
    /// At the name of such a call. True: its name is done, and what its other tokens become is noted.
    pub(super) fn call(&mut self, word: &str) -> Result<bool, String> {
        if !self.is_punct(1, b'(') {
            return Ok(false);
        }
        let Some(close) = self.matching(self.at + 1) else {
            return Ok(false);
        };
        let body = self.at + 2..close;
        match word {
            "substring" => {
                self.separate(body, &["from", "for", "similar", "escape"]);
            }
            "trim" => self.trim(body),
            "xmlelement" | "xmlattributes" | "xmlforest" | "xmlparse" | "xmlserialize"
            | "xmlpi" | "xmlroot" | "xmlexists" | "xmltable" | "json_table" | "json_query"
            | "json_value" | "json_exists" | "json_object" | "json_array" | "json_scalar"
            | "json_serialize" | "json_objectagg" | "json_arrayagg" | "xmlnamespaces" => {
                self.labelled(word, body)?
            }
            _ => return Ok(false),
        }
        let name = match word {
            // The function behind the grammar's TRIM.
            "trim" => "btrim",
            // A name for which the parser has no form of its own.
            "xmlparse" => "xmlserialize",
            word => word,
        };
        self.emit(ident(name));
        self.at += 1;
        Ok(true)
    }

    /// The places inside `body` that stand in no further brackets.
    fn top(&self, body: std::ops::Range<usize>) -> Vec<usize> {
        let mut depth = 0usize;
        let mut found = Vec::new();
        for at in body {
            let opens = self.is_punct_at(at, b'(') || self.is_punct_at(at, b'[');
            if self.is_punct_at(at, b')') || self.is_punct_at(at, b']') {
                depth = depth.saturating_sub(1);
            }
            if depth == 0 {
                found.push(at);
            }
            depth += usize::from(opens);
        }
        found
    }

    fn separate(&mut self, body: std::ops::Range<usize>, words: &[&str]) {
        for at in self.top(body) {
            if self.word_at(at).is_some_and(|word| words.contains(&word)) {
                self.instead.insert(at, Instead::Comma);
            }
        }
    }

    /// `trim([LEADING | TRAILING | BOTH] [characters] FROM string)`
    fn trim(&mut self, body: std::ops::Range<usize>) {
        let mut first = body.start;
        if matches!(self.word_at(first), Some("leading" | "trailing" | "both")) {
            self.instead.insert(first, Instead::Nothing);
            first += 1;
        }
        for at in self.top(body) {
            if self.word_at(at) == Some("from") {
                let instead = if at == first {
                    Instead::Nothing
                } else {
                    Instead::Comma
                };
                self.instead.insert(at, instead);
            }
        }
    }

    /// Calls whose arguments carry labels, types and clauses. Those are left out: a subquery among them can't be.
    fn labelled(&mut self, call: &str, body: std::ops::Range<usize>) -> Result<(), String> {
        let (first, end) = (body.start, body.end);
        let mut skip_until = first;
        for at in self.top(body) {
            if at < skip_until {
                continue;
            }
            let word = self.word_at(at).unwrap_or_default();
            let until = match word {
                "name" if at == first && matches!(call, "xmlelement" | "xmlpi") => {
                    at + 2 + usize::from(self.is_punct_at(at + 2, b','))
                }
                "content" | "document" if at == first && !self.ends_argument(at + 1) => at + 1,
                "passing" => {
                    self.instead.insert(at, Instead::Comma);
                    let by = self.word_at(at + 1) == Some("by");
                    skip_until = self.leave_out(at + 1, if by { at + 3 } else { at + 1 })?;
                    continue;
                }
                "version" if self.word_at(at + 1) == Some("no") => {
                    self.instead.insert(at, Instead::Null);
                    skip_until = self.leave_out(at + 1, at + 3)?;
                    continue;
                }
                "version" if !self.ends_argument(at + 1) => at + 1,
                "standalone" if !self.ends_argument(at + 1) => {
                    self.instead.insert(at, Instead::Null);
                    skip_until = self.leave_out(at + 1, end)?;
                    continue;
                }
                "as" => self.argument_end(at, end),
                "preserve" | "strip" if self.word_at(at + 1) == Some("whitespace") => at + 2,
                "columns" | "returning" => end,
                "format" if self.word_at(at + 1) == Some("json") => at + 2,
                "with" | "without" | "keep" | "omit" | "absent" | "error" | "empty" | "default"
                | "null"
                    if at > 0 && self.ends_with_clause(at, end) =>
                {
                    end
                }
                _ if self.is_punct_at(at, b':')
                    && !self.is_punct_at(at + 1, b':')
                    && !self.is_punct_at(at - 1, b':') =>
                {
                    self.instead.insert(at, Instead::Comma);
                    continue;
                }
                "value" if self.top_value(at) => {
                    self.instead.insert(at, Instead::Comma);
                    continue;
                }
                _ => continue,
            };
            skip_until = self.leave_out(at, until)?;
        }
        Ok(())
    }

    /// `ON NULL`, `ON ERROR`, `ON EMPTY`, `UNIQUE`, `WRAPPER`, `QUOTES`: a clause of SQL/JSON, up to the end of the call.
    fn ends_with_clause(&self, at: usize, end: usize) -> bool {
        !self.is_punct_at(at - 1, b'(')
            && !self.is_punct_at(at - 1, b',')
            && (at..end).any(|at| {
                matches!(
                    self.word_at(at),
                    Some("on" | "unique" | "wrapper" | "quotes")
                )
            })
    }

    /// `KEY 'a' VALUE 1`
    fn top_value(&self, at: usize) -> bool {
        !self.ends_argument(at + 1)
            && !self.is_punct_at(at - 1, b'(')
            && !self.is_punct_at(at - 1, b',')
    }

    fn ends_argument(&self, at: usize) -> bool {
        self.is_punct_at(at, b',') || self.is_punct_at(at, b')') || self.is_punct_at(at, b'.')
    }

    /// Where the argument ends that `at` stands in: at a comma, at `end`, or before a clause.
    fn argument_end(&self, at: usize, end: usize) -> usize {
        let of_clause =
            |at: usize| matches!(self.word_at(at), Some("columns" | "passing" | "returning"));
        self.top(at..end)
            .into_iter()
            .find(|at| self.is_punct_at(*at, b',') || of_clause(*at))
            .unwrap_or(end)
    }

    fn leave_out(&mut self, from: usize, to: usize) -> Result<usize, String> {
        for at in from..to {
            if matches!(
                self.word_at(at),
                Some("select" | "table" | "values" | "insert" | "update" | "delete" | "merge")
            ) {
                return Err("a subquery in a clause of a call".to_owned());
            }
            self.known(at);
            self.instead.insert(at, Instead::Nothing);
        }
        Ok(to)
    }

    pub(super) fn instead(&mut self, instead: Instead) {
        match instead {
            Instead::Nothing => {}
            Instead::Comma => self.emit(Token::Comma),
            Instead::Null => self.emit(keyword("null")),
        }
        self.at += 1;
    }
}
