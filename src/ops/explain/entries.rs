//! Statements out of files: SQL, a Postgres log, `pg_stat_statements` as CSV.

use super::csv::records;
use super::{log, script};

/// Some programs begin their files with it.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// SQL, as psql takes it.
    Sql,
    /// A log written to standard error.
    Log,
    /// A log written as CSV (`log_destination = 'csvlog'`).
    Csvlog,
    /// `pg_stat_statements` as CSV with a header: a column `query`, and `calls` if it is there.
    PgStatStatements,
}

impl Format {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Format::Sql => "sql",
            Format::Log => "log",
            Format::Csvlog => "csvlog",
            Format::PgStatStatements => "pg_stat_statements",
        }
    }

    /// What a file seems to be.
    pub fn of(text: &str) -> Format {
        let text = text.trim_start_matches(BYTE_ORDER_MARK);
        let first = records(text).next();
        let fields = first.map(|r| r.fields).unwrap_or_default();
        if fields.iter().any(|f| f.eq_ignore_ascii_case("query")) {
            Format::PgStatStatements
        } else if log::is_csvlog(&fields) {
            Format::Csvlog
        } else if text.lines().take(1000).any(log::is_log_line) {
            Format::Log
        } else {
            Format::Sql
        }
    }
}

/// A text that a file holds: one statement, or several that were sent as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The line that it begins in, counted from 1.
    pub line: usize,
    /// The text.
    pub text: String,
    /// The values of its parameters, `$1` first; empty: not known.
    pub params: Vec<Option<String>>,
    /// How often it was run.
    pub calls: u64,
    /// Parameters stand where constants stood.
    pub normalized: bool,
}

impl Entry {
    pub(super) fn at(line: usize, text: &str) -> Entry {
        Entry {
            line,
            text: text.to_owned(),
            params: Vec::new(),
            calls: 1,
            normalized: false,
        }
    }
}

/// All that a file holds.
///
/// # Errors
/// A CSV file without a column `query`.
pub fn read(text: &str, format: Format) -> Result<Vec<Entry>, String> {
    let text = text.trim_start_matches(BYTE_ORDER_MARK);
    match format {
        Format::Sql => Ok(script::statements(text)),
        Format::Log => Ok(log::of_stderr(text)),
        Format::Csvlog => Ok(log::of_csv(text)),
        Format::PgStatStatements => of_statistics(text),
    }
}

fn of_statistics(text: &str) -> Result<Vec<Entry>, String> {
    let mut rows = records(text);
    let header = rows.next().map(|r| r.fields).unwrap_or_default();
    let column = |name: &str| {
        header
            .iter()
            .position(|f| f.trim().eq_ignore_ascii_case(name))
    };
    let query = column("query").ok_or("no column \"query\" in its first line")?;
    let calls = column("calls");
    let entry = |row: super::csv::Record| {
        let calls = calls.and_then(|n| row.field(n).parse().ok());
        Entry {
            calls: calls.unwrap_or(1),
            normalized: true,
            ..Entry::at(row.line, row.field(query))
        }
    };
    Ok(rows
        .filter(|r| !r.field(query).is_empty())
        .map(entry)
        .collect())
}
