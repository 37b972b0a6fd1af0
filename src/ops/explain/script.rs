//! Statements out of a file of SQL, as psql would send them: its own commands and the data of COPY are passed over.

use super::entries::Entry;
use crate::sql::shape::{Shape, ShapeFault};
use crate::sql::token::Tokens;

/// The statements of a file. What does not end (a quote left open) is the last of them, to the end of the file.
pub(super) fn statements(file: &str) -> Vec<Entry> {
    let text = without_psql(file);
    let mut shape = Shape::default();
    let Err(ShapeFault::Unterminated { at }) = shape.scan(text.as_bytes()) else {
        return pieces(&text, &shape);
    };
    let before = &text[..at as usize];
    if shape.scan(before.as_bytes()).is_err() {
        return vec![Entry::at(1, &text)];
    }
    let start = shape.semicolons.last().map_or(0, |s| *s as usize + 1);
    let whole = &text[..start];
    let mut entries = match shape.scan(whole.as_bytes()) {
        Ok(()) => pieces(whole, &shape),
        Err(_) => Vec::new(),
    };
    let rest = text[start..].trim_start();
    let line = text[..text.len() - rest.len()].matches('\n').count() + 1;
    entries.push(Entry::at(line, rest));
    entries
}

fn pieces(text: &str, shape: &Shape) -> Vec<Entry> {
    let (mut line, mut counted) = (1, 0);
    let entry = |piece: std::ops::Range<usize>| {
        // Comments in front are not what the line is of.
        let first = Tokens::within(text.as_bytes(), &shape.holes, piece.clone()).next();
        let start = first.map_or(piece.start, |t| t.span.start);
        line += text[counted..start].matches('\n').count();
        counted = start;
        Entry::at(line, &text[piece])
    };
    shape.pieces(text.as_bytes()).map(entry).collect()
}

/// The file with psql's commands and the rows after `COPY ... FROM stdin` blanked, line for line.
fn without_psql(file: &str) -> String {
    let mut out = String::with_capacity(file.len());
    let mut rows = false;
    for line in file.split_inclusive('\n') {
        let said = line.trim();
        if rows || said.starts_with('\\') {
            rows &= said != "\\.";
            out.push_str(if line.ends_with('\n') { "\n" } else { "" });
            continue;
        }
        rows = begins_rows(said);
        match go(line) {
            Some(at) => out.extend([&line[..at], ";\n"]),
            None => out.push_str(line),
        }
    }
    out
}

/// `COPY ... FROM stdin ...;`, as pg_dump writes it.
fn begins_rows(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    line.starts_with("copy ") && line.contains(" from stdin") && line.ends_with(';')
}

/// Where psql's `\g`, `\gx`, `\gset` ... stands behind a statement: it ends it as a semicolon does.
fn go(line: &str) -> Option<usize> {
    let at = line.rfind("\\g")?;
    let quoted = line[at..].contains(['\'', '"']) || line[..at].matches('\'').count() % 2 == 1;
    (!quoted && line[..at].ends_with([' ', '\t', ')'])).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str) -> Vec<(usize, String)> {
        statements(file)
            .into_iter()
            .map(|e| (e.line, e.text))
            .collect()
    }

    fn row(line: usize, text: &str) -> (usize, String) {
        (line, text.to_owned())
    }

    #[test]
    fn a_script() {
        let file = "\\set ON_ERROR_STOP on\n-- one\nSELECT 1;;\nSELECT\n 'a;\n'; /* two */\n SELECT 3 \\gset\n  \\echo x\nSELECT 4";
        assert_eq!(
            found(file),
            [
                row(3, "-- one\nSELECT 1"),
                row(4, "SELECT\n 'a;\n'"),
                row(7, "/* two */\n SELECT 3"),
                row(9, "SELECT 4"),
            ]
        );
    }

    #[test]
    fn rows_of_copy() {
        let file = "COPY t (a) FROM stdin;\n1;'\n\\N\n\\.\nSELECT 1;";
        assert_eq!(
            found(file),
            [row(1, "COPY t (a) FROM stdin"), row(5, "SELECT 1")]
        );
    }

    #[test]
    fn what_does_not_end() {
        assert_eq!(
            found("SELECT 1;\nSELECT 'x;\nSELECT 2;"),
            [row(1, "SELECT 1"), row(2, "SELECT 'x;\nSELECT 2;")]
        );
        assert_eq!(found("/* x"), [row(1, "/* x")]);
        assert!(found("").is_empty());
        assert!(found("-- nothing\n").is_empty());
    }
}
