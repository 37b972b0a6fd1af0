//! What is wrong with a `shardmap.toml`: each fault has its place, the key that it is about, and the mend.

use std::fmt::{self, Write as _};

/// One thing that is wrong, in words for the person who edits the file. Never holds a password.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// The file as it was named to us.
    pub file: String,
    /// Counted from 1; 0 when the fault is about the file as a whole.
    pub line: u32,
    /// In characters, counted from 1; 0 when the fault is about the file as a whole.
    pub column: u32,
    /// The key, as `[map] "0-3"`; empty when there is none.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

/// `shardmap.toml:12:5: [map] "0-3": unknown host c -- name one of a, b, or add [hosts.c]`
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {} -- {}", self.what, self.mend)
    }
}

impl std::error::Error for Fault {}

/// A place in the file: line and column, counted from 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// Gathers the faults of one text. Places are given as byte offsets into it.
pub(crate) struct Faults<'t> {
    file: &'t str,
    text: &'t str,
    /// Byte offset of the start of each line.
    lines: Vec<usize>,
    found: Vec<(usize, Fault)>,
}

impl<'t> Faults<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Faults<'t> {
        let after_newlines = text
            .bytes()
            .enumerate()
            .filter(|(_, b)| *b == b'\n')
            .map(|(at, _)| at + 1);
        Faults {
            file,
            text,
            lines: std::iter::once(0).chain(after_newlines).collect(),
            found: Vec::new(),
        }
    }

    pub(crate) fn file(&self) -> &str {
        self.file
    }

    pub(crate) fn add(
        &mut self,
        at: usize,
        key: impl Into<String>,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        let Place { line, column } = self.place(at);
        let (key, what, mend) = (key.into(), what.into(), mend.into());
        self.found.push((
            at,
            Fault {
                file: self.file.into(),
                line,
                column,
                key,
                what,
                mend,
            },
        ));
    }

    pub(crate) fn place(&self, at: usize) -> Place {
        // `lines` begins with 0, so at least one line starts at or before `at`.
        let line = self.lines.partition_point(|start| *start <= at);
        let before = self.text.get(self.lines[line - 1]..at).unwrap_or_default();
        Place {
            line: line as u32,
            column: before.chars().count() as u32 + 1,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// In the order of the file.
    pub(crate) fn into_sorted(mut self) -> Vec<Fault> {
        self.found.sort_by_key(|(at, _)| *at);
        self.found.into_iter().map(|(_, fault)| fault).collect()
    }
}

/// All faults as text for a terminal, one to a line with its mend below, and their number at the end. The lines
/// themselves are not shown: they may hold a password.
pub fn render_faults(file: &str, faults: &[Fault]) -> String {
    let mut text = String::new();
    for fault in faults {
        let place = if fault.line > 0 {
            format!(":{}:{}", fault.line, fault.column)
        } else {
            String::new()
        };
        let key = if fault.key.is_empty() {
            String::new()
        } else {
            format!("{}: ", fault.key)
        };
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "{file}{place}: {key}{}\n    -> {}",
            fault.what, fault.mend
        );
    }
    let _ = match faults.len() {
        0 => writeln!(text, "{file}: no faults"),
        1 => writeln!(text, "{file}: 1 fault"),
        n => writeln!(text, "{file}: {n} faults"),
    };
    text
}
