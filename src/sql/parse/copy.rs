//! COPY: table, columns, which way, and the options in both of the forms that Postgres knows.

use super::cut::{RawKind, matching};
use super::name;
use super::statement::Statement;
use crate::sql::copy::{Format, Header, Options};
use crate::sql::literal::literal_value;
use crate::sql::plan::{CopyEnd, CopyTable, Plan, Verb, Wrap};
use crate::sql::rewrite::Pos;

impl Statement<'_> {
    /// `COPY (query) TO ...`, `COPY table [(columns)] FROM|TO ...`.
    pub(super) fn copy(&self) -> Result<Plan, String> {
        if self.is_punct(1, b'(') {
            let close = matching(self.text, self.raws, 1).ok_or("unbalanced parentheses")?;
            let mut plan = self.query(2, close, Wrap::CopyOut)?;
            let mut tail = Tail::new(self, close + 2);
            plan.copy_end = tail.end();
            plan.copy_options = tail.options();
            plan.per_text |= tail.literal;
            return Ok(plan);
        }
        let binary = self.word(1) == Some("binary") && self.name_at(2).is_some();
        let mut at = if binary { 2 } else { 1 };
        let mut parts = vec![at];
        while self.is_punct(at + 1, b'.') {
            at += 2;
            parts.push(at);
        }
        let table = self.table(&parts)?;
        let name_end = Pos::of(self.raws[at].end, &self.shape.holes);
        at += 1;
        let mut known = parts;
        let mut columns = None;
        if self.is_punct(at, b'(') {
            let close = matching(self.text, self.raws, at).ok_or("unbalanced parentheses")?;
            known.extend(at..close);
            columns = Some(self.names(at + 1, close)?);
            at = close + 1;
        }
        let verb = match self.word(at) {
            Some("from") => Verb::CopyFrom,
            Some("to") => Verb::CopyTo,
            _ => return Err("COPY without FROM or TO".to_owned()),
        };
        let mut tail = Tail::new(self, at + 1);
        let copy_end = tail.end();
        let mut options = tail.options();
        if let (true, Ok(options)) = (binary, &mut options) {
            options.format = Format::Binary;
        }
        let filter = tail.at;
        let rest = (0..self.raws.len()).filter(|at| !known.contains(at));
        Ok(Plan {
            verb,
            words: self.words(rest),
            copy: Some(CopyTable {
                table,
                name_end,
                columns,
                filter: self.words(filter..self.raws.len()),
            }),
            copy_end,
            copy_options: options,
            per_text: tail.literal,
            ..Plan::default()
        })
    }

    fn name_at(&self, at: usize) -> Option<&str> {
        self.raws.get(at).and_then(name).filter(|_| {
            // `COPY binary FROM ...` is a table of that name.
            !matches!(self.word(at), Some("from" | "to"))
        })
    }

    fn words(&self, of: impl Iterator<Item = usize>) -> Vec<String> {
        of.filter_map(|at| name(&self.raws[at]))
            .map(str::to_owned)
            .collect()
    }

    /// Names with commas between them.
    fn names(&self, from: usize, to: usize) -> Result<Vec<String>, String> {
        (from..to)
            .step_by(2)
            .map(|at| {
                let comma = at + 1 == to || self.is_punct(at + 1, b',');
                let name = name(&self.raws[at]).filter(|_| comma);
                name.map(str::to_owned)
                    .ok_or_else(|| "a list of names that can't be read".to_owned())
            })
            .collect()
    }
}

/// What stands behind FROM or TO.
struct Tail<'s, 't> {
    statement: &'s Statement<'t>,
    at: usize,
    /// The value of a literal has been read.
    literal: bool,
}

/// The value of an option of the form with parentheses.
enum Given {
    Nothing,
    Text(Vec<u8>),
    Names(Vec<String>),
}

impl<'s, 't> Tail<'s, 't> {
    fn new(statement: &'s Statement<'t>, at: usize) -> Self {
        Tail {
            statement,
            at,
            literal: false,
        }
    }

    fn word(&self) -> Option<&str> {
        self.statement.word(self.at)
    }

    /// Steps over a word if it stands here.
    fn take(&mut self, word: &str) -> bool {
        let is = self.word() == Some(word);
        self.at += usize::from(is);
        is
    }

    fn end(&mut self) -> CopyEnd {
        if self.take("stdin") || self.take("stdout") {
            CopyEnd::Client
        } else {
            let program = self.take("program");
            self.at += 1;
            if program {
                CopyEnd::Program
            } else {
                CopyEnd::File
            }
        }
    }

    fn options(&mut self) -> Result<Options, String> {
        let mut options = Options::default();
        let old_delimiter = self.word() == Some("using") || self.word() == Some("delimiters");
        if old_delimiter {
            self.take("using");
            self.take("delimiters");
            options.delimiter = Some(self.string()?);
        }
        self.take("with");
        if self.statement.is_punct(self.at, b'(') {
            self.listed(&mut options)?;
        } else {
            while self.at < self.statement.raws.len() && self.word() != Some("where") {
                self.bare(&mut options)?;
            }
        }
        match self.word() {
            None if self.at >= self.statement.raws.len() => Ok(options),
            Some("where") => Ok(options),
            _ => Err("a COPY option that is not understood".to_owned()),
        }
    }

    /// The form of Postgres before 9.0: words and strings one after the other.
    fn bare(&mut self, options: &mut Options) -> Result<(), String> {
        let word = self.word().unwrap_or_default().to_owned();
        self.at += 1;
        match &*word {
            "binary" => options.format = Format::Binary,
            "csv" => options.format = Format::Csv,
            "header" => options.header = Header::Skip,
            "freeze" => {}
            "delimiter" => options.delimiter = Some(self.string()?),
            "null" => options.null = Some(self.string()?),
            "quote" => options.quote = Some(self.string()?),
            "escape" => options.escape = Some(self.string()?),
            "encoding" => options.encoding = Some(self.string()?),
            "force" if self.take("quote") => drop(self.columns()?),
            "force" if self.take("null") => options.force_null = self.columns()?,
            "force" if self.take("not") && self.take("null") => {
                options.force_not_null = self.columns()?;
            }
            _ => return Err(format!("the COPY option {word:?} is not understood")),
        }
        Ok(())
    }

    fn string(&mut self) -> Result<Vec<u8>, String> {
        self.take("as");
        let value = self.literal_here().ok_or("a string is missing in COPY")?;
        self.at += 1;
        Ok(value)
    }

    fn literal_here(&mut self) -> Option<Vec<u8>> {
        let Statement {
            text, shape, raws, ..
        } = self.statement;
        let RawKind::Literal(hole, _) = raws.get(self.at)?.kind else {
            return None;
        };
        self.literal = true;
        Some(literal_value(text, &shape.holes[hole as usize])?.into_owned())
    }

    /// Names with commas between them, as far as they go, or `*`.
    fn columns(&mut self) -> Result<Vec<String>, String> {
        if self.is_star() {
            self.at += 1;
            return Ok(vec!["*".to_owned()]);
        }
        let from = self.at;
        while self.statement.is_punct(self.at + 1, b',') {
            self.at += 2;
        }
        self.at += 1;
        let to = self.at.min(self.statement.raws.len());
        self.statement.names(from, to)
    }

    fn is_star(&self) -> bool {
        let raw = self.statement.raws.get(self.at);
        raw.is_some_and(|raw| &self.statement.text[raw.start..raw.end] == b"*")
    }

    /// `(name [value], ...)`
    fn listed(&mut self, options: &mut Options) -> Result<(), String> {
        let statement = self.statement;
        let close = matching(statement.text, statement.raws, self.at);
        let close = close.ok_or("unbalanced parentheses")?;
        self.at += 1;
        while self.at < close {
            let name = name(&statement.raws[self.at]).ok_or("a COPY option without a name")?;
            self.at += 1;
            let given = self.given(close)?;
            set(options, name, given)?;
            if self.at < close && !statement.is_punct(self.at, b',') {
                return Err(format!(
                    "the value of the COPY option {name:?} is not understood"
                ));
            }
            self.at += 1;
        }
        self.at = close + 1;
        Ok(())
    }

    fn given(&mut self, close: usize) -> Result<Given, String> {
        let statement = self.statement;
        if self.at == close || statement.is_punct(self.at, b',') {
            return Ok(Given::Nothing);
        }
        if statement.is_punct(self.at, b'(') {
            let end = matching(statement.text, statement.raws, self.at);
            let end = end.ok_or("unbalanced parentheses")?;
            let names = statement.names(self.at + 1, end)?;
            self.at = end + 1;
            return Ok(Given::Names(names));
        }
        let given = if self.is_star() {
            Given::Names(vec!["*".to_owned()])
        } else if let Some(word) = name(&statement.raws[self.at]) {
            Given::Text(word.as_bytes().to_vec())
        } else {
            Given::Text(self.literal_here().ok_or("a COPY option's value")?)
        };
        self.at += 1;
        Ok(given)
    }
}

fn set(options: &mut Options, name: &str, given: Given) -> Result<(), String> {
    let fault = || format!("the COPY option {name:?} is not understood");
    match (name, given) {
        ("format", Given::Text(format)) => {
            options.format = match &*format {
                b"text" => Format::Text,
                b"csv" => Format::Csv,
                b"binary" => Format::Binary,
                _ => return Err(fault()),
            }
        }
        ("header", Given::Nothing) => options.header = Header::Skip,
        ("header", Given::Text(value)) => {
            options.header = match &*value.to_ascii_lowercase() {
                b"match" => Header::Match,
                b"true" | b"on" | b"1" => Header::Skip,
                b"false" | b"off" | b"0" => Header::No,
                _ => return Err(fault()),
            }
        }
        ("freeze", Given::Nothing | Given::Text(_)) | ("force_quote", Given::Names(_)) => {}
        ("delimiter", Given::Text(value)) => options.delimiter = Some(value),
        ("null", Given::Text(value)) => options.null = Some(value),
        ("quote", Given::Text(value)) => options.quote = Some(value),
        ("escape", Given::Text(value)) => options.escape = Some(value),
        ("encoding", Given::Text(value)) => options.encoding = Some(value),
        ("force_not_null", Given::Names(names)) => options.force_not_null = names,
        ("force_null", Given::Names(names)) => options.force_null = names,
        _ => return Err(fault()),
    }
    Ok(())
}
