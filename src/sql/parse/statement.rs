//! What kind of statement a text is, by its first words; the query inside EXPLAIN and DECLARE is found here.

use super::cut::{Raw, RawKind, matching};
use super::{Limits, name, query};
use crate::sql::plan::{Place, Plan, TableRef, Verb, Wrap};
use crate::sql::rewrite::Pos;
use crate::sql::shape::Shape;

/// Reads one statement, whose tokens are `raws` (without a semicolon at the end).
pub(super) fn read(
    text: &[u8],
    shape: &Shape,
    raws: &[Raw],
    limits: &Limits,
) -> Result<Plan, String> {
    let statement = Statement {
        text,
        shape,
        raws,
        limits,
    };
    match statement.word(0) {
        None if raws.is_empty() => Ok(Plan::default()),
        None => statement.query(0, raws.len(), Wrap::Bare),
        Some("select" | "with" | "values" | "table" | "insert" | "update" | "delete" | "merge") => {
            statement.query(0, raws.len(), Wrap::Bare)
        }
        Some("explain") => statement.explain(),
        Some("declare") => statement.declare(),
        Some("copy") => statement.copy(),
        Some("create") => match statement.temporary_table_as() {
            Some((from, to)) => {
                let plan = statement.query(from, to, Wrap::Bare)?;
                Ok(Plan {
                    temporary: true,
                    ..plan
                })
            }
            None => Ok(statement.utility()),
        },
        Some(_) => Ok(statement.utility()),
    }
}

pub(super) struct Statement<'t> {
    pub(super) text: &'t [u8],
    pub(super) shape: &'t Shape,
    pub(super) raws: &'t [Raw],
    limits: &'t Limits,
}

impl Statement<'_> {
    pub(super) fn word(&self, at: usize) -> Option<&str> {
        match &self.raws.get(at)?.kind {
            RawKind::Word(word) => Some(word),
            _ => None,
        }
    }

    pub(super) fn is_punct(&self, at: usize, byte: u8) -> bool {
        self.raws
            .get(at)
            .is_some_and(|r| r.kind == RawKind::Punct && self.text[r.start] == byte)
    }

    pub(super) fn query(&self, from: usize, to: usize, wrap: Wrap) -> Result<Plan, String> {
        if from >= to {
            return Err("no query where one is expected".to_owned());
        }
        if let Some(verb) = self.select_into(from, to) {
            return Ok(self.nameless(verb.to_owned()));
        }
        query(
            self.text,
            self.shape,
            &self.raws[from..to],
            self.limits,
            wrap,
        )
    }

    /// Whether it is `CREATE [LOCAL | GLOBAL] TEMP ...` (gram.y, `OptTemp`): where the word behind that stands.
    fn temporary(&self) -> Option<usize> {
        let at = match self.word(1) {
            Some("local" | "global") => 2,
            _ => 1,
        };
        let is_temp = matches!(self.word(at), Some("temp" | "temporary"));
        (self.word(0) == Some("create") && is_temp).then_some(at + 1)
    }

    /// The query of `CREATE TEMP TABLE name ... AS query [WITH [NO] DATA]`.
    fn temporary_table_as(&self) -> Option<(usize, usize)> {
        let table = self.temporary()?;
        if self.word(table) != Some("table") {
            return None;
        }
        let mut depth = 0usize;
        let from = (table + 1..self.raws.len()).find(|at| {
            if self.is_punct(*at, b'(') {
                depth += 1;
            } else if self.is_punct(*at, b')') {
                depth = depth.saturating_sub(1);
            }
            depth == 0 && self.word(*at) == Some("as")
        })? + 1;
        let reads = matches!(
            self.word(from),
            Some("select" | "with" | "values" | "table")
        );
        if !reads && !self.is_punct(from, b'(') {
            return None;
        }
        let end = self.raws.len();
        let ends_with = |words: &[&str]| {
            let start = end.saturating_sub(words.len());
            (start..end)
                .zip(words)
                .all(|(at, word)| self.word(at) == Some(word))
        };
        let to = if ends_with(&["with", "no", "data"]) {
            end - 3
        } else if ends_with(&["with", "data"]) {
            end - 2
        } else {
            end
        };
        Some((from, to))
    }

    /// `SELECT ... INTO table`: makes a table. INTO is reserved: it stands nowhere else but in INSERT and MERGE.
    fn select_into(&self, from: usize, to: usize) -> Option<&'static str> {
        let is_label =
            |at: usize| at > 0 && (self.is_punct(at - 1, b'.') || self.word(at - 1) == Some("as"));
        let at = (from + 1..to).find(|at| {
            self.word(*at) == Some("into")
                && !is_label(*at)
                && !matches!(self.word(at - 1), Some("insert" | "merge"))
        })?;
        match self.word(at + 1) {
            Some("temp" | "temporary" | "local" | "global") => Some("CREATE TEMP"),
            _ => Some("SELECT INTO"),
        }
    }

    /// `EXPLAIN [ANALYZE] [VERBOSE] statement`, `EXPLAIN (options) statement`.
    fn explain(&self) -> Result<Plan, String> {
        let mut at = 1;
        if self.is_punct(1, b'(')
            && !matches!(self.word(2), Some("select" | "with" | "values" | "table"))
        {
            at = matching(self.text, self.raws, 1).ok_or("unbalanced parentheses")? + 1;
        }
        while matches!(self.word(at), Some("analyze" | "analyse" | "verbose")) {
            at += 1;
        }
        match self.word(at) {
            Some(
                "select" | "with" | "values" | "table" | "insert" | "update" | "delete" | "merge",
            )
            | None => self.query(at, self.raws.len(), Wrap::Explain),
            Some(_) => Ok(self.utility()),
        }
    }

    /// `DECLARE name ... CURSOR ... FOR query`.
    fn declare(&self) -> Result<Plan, String> {
        let cursor = (2..self.raws.len()).find(|at| self.word(*at) == Some("cursor"));
        let body = cursor
            .and_then(|from| (from..self.raws.len()).find(|at| self.word(*at) == Some("for")));
        let body = body.ok_or("DECLARE without CURSOR FOR")?;
        self.query(body + 1, self.raws.len(), Wrap::Cursor)
    }

    pub(super) fn table(&self, parts: &[usize]) -> Result<TableRef, String> {
        let part = |at: usize| -> Result<(String, Place), String> {
            let raw = self.raws.get(at).ok_or("a table's name is missing")?;
            let name = name(raw).ok_or("a table's name is missing")?;
            let place = Place {
                pos: Pos::of(raw.start, &self.shape.holes),
                len: (raw.end - raw.start) as u32,
            };
            Ok((name.to_owned(), place))
        };
        let (schema, last) = match parts {
            [last] => (None, *last),
            [schema, last] => (Some(part(*schema)?), *last),
            _ => return Err("a name of three parts".to_owned()),
        };
        let (name, place) = part(last)?;
        Ok(TableRef {
            schema,
            name,
            place,
        })
    }

    /// Any other statement: only its names are known.
    fn utility(&self) -> Plan {
        let temporary = self.temporary().map(|at| self.word(at));
        let verb = match self.word(0) {
            _ if temporary == Some(Some("table")) => return self.temporary_table(),
            _ if temporary.is_some() => "CREATE TEMP".to_owned(),
            Some(first @ ("create" | "alter" | "drop")) => {
                let mut what = (1..self.raws.len()).map_while(|at| self.word(at));
                let skip = [
                    "or",
                    "replace",
                    "unique",
                    "unlogged",
                    "global",
                    "local",
                    "recursive",
                ];
                let what = what.find(|word| !skip.contains(word)).unwrap_or_default();
                format!("{first} {what}").to_uppercase()
            }
            Some(first) => first.to_uppercase(),
            None => String::new(),
        };
        self.nameless(verb)
    }

    /// `CREATE TEMP TABLE name (...)`.
    fn temporary_table(&self) -> Plan {
        Plan {
            verb: Verb::Utility("CREATE TEMP TABLE".to_owned()),
            words: self.all_words(),
            ..Plan::default()
        }
    }

    fn all_words(&self) -> Vec<String> {
        let words = self.raws.iter().skip(1).filter_map(name);
        words.map(str::to_owned).collect()
    }

    fn nameless(&self, verb: String) -> Plan {
        // `CREATE OR REPLACE TEMPORARY VIEW`, `CREATE TABLE pg_temp.t`.
        let temporary = verb == "CREATE TEMPORARY"
            || (verb.starts_with("CREATE ") || verb == "SELECT INTO")
                && self.raws.iter().any(|raw| name(raw) == Some("pg_temp"));
        let verb = if temporary {
            "CREATE TEMP".to_owned()
        } else {
            verb
        };
        Plan {
            verb: Verb::Utility(verb.trim_end().to_owned()),
            ddl: super::utility::read(self.text, &self.shape.holes, self.raws),
            words: self.all_words(),
            ..Plan::default()
        }
    }
}
