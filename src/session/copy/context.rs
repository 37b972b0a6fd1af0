//! Where in the client's data an error lies: servers count the lines of what they were sent.

use crate::sql::copy::Row;
use crate::wire::backend::ErrorView;

/// A run of rows that were sent in the order in which they came: as the server counts, and as the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The server's number of the first line.
    pub(super) at: u64,
    /// The client's.
    pub(super) line: u64,
}

/// The lines of one COPY on a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    runs: Vec<Run>,
    /// How many there are.
    count: u64,
    /// How many more the first row counts for where it is not the first.
    first_is_more_by: i64,
}

impl Lines {
    /// A row whose first line is the client's `line`. `true`: it begins a run.
    #[inline]
    pub(super) fn push(&mut self, line: u64, row: &Row) -> bool {
        if self.count == 0 {
            self.first_is_more_by = row.lines as i64 - row.lines_if_first as i64;
        }
        let at = self.count + 1;
        self.count += row.lines;
        self.begin(Run { at, line })
    }

    #[inline]
    fn begin(&mut self, run: Run) -> bool {
        let follows = |last: &Run| run.line.checked_sub(last.line) == Some(run.at - last.at);
        let begins = !self.runs.last().is_some_and(follows);
        if begins {
            self.runs.push(run);
        }
        begins
    }

    /// Sends lines behind these to the server.
    pub(super) fn append(&mut self, other: &Lines) {
        // The server does not yet know which line ends to count.
        let more = if self.count == 0 {
            other.first_is_more_by
        } else {
            0
        };
        for (n, run) in other.runs.iter().enumerate() {
            let at = run.at + self.count;
            self.begin(match n {
                0 => Run {
                    at,
                    line: run.line.saturating_add_signed(more),
                },
                _ => Run {
                    at: at.saturating_add_signed(-more),
                    line: run.line,
                },
            });
        }
        self.count = (self.count + other.count).saturating_add_signed(-more);
    }

    /// The client's number of the server's line.
    pub(super) fn back(&self, at: u64) -> u64 {
        let run = self.runs.partition_point(|run| run.at <= at);
        match run.checked_sub(1).map(|last| self.runs[last]) {
            Some(run) => run.line + (at - run.at),
            None => at,
        }
    }
}

/// The CONTEXT of an error or notice with the number of the line of the data replaced; `None`: it speaks of none.
pub(super) fn replaced(context: &[u8], table: &str, line: impl Fn(u64) -> u64) -> Option<Vec<u8>> {
    let prefix = format!("COPY {table}, ");
    let found = context
        .split_inclusive(|b| *b == b'\n')
        .scan(0, |at, text| {
            let start = *at;
            *at += text.len();
            Some((start, text))
        })
        .find(|(_, text)| text.starts_with(prefix.as_bytes()))?;
    let from = found.0 + prefix.len();
    // "line" in whatever language.
    let digits = from + context[from..].iter().position(u8::is_ascii_digit)?;
    let end = context[digits..]
        .iter()
        .position(|b| !b.is_ascii_digit())
        .map_or(context.len(), |len| digits + len);
    let at: u64 = std::str::from_utf8(&context[digits..end])
        .ok()?
        .parse()
        .ok()?;
    let number = line(at).to_string();
    Some([&context[..digits], number.as_bytes(), &context[end..]].concat())
}

/// An error or notice with its line number put right, appended to `out`.
pub(super) fn write_back(
    out: &mut Vec<u8>,
    message: &[u8],
    view: &ErrorView<'_>,
    table: &str,
    line: impl Fn(u64) -> u64,
) {
    let context = view.get(b'W').and_then(|w| replaced(w, table, line));
    match context {
        Some(context) => view.with_field_replaced(out, message[0], b'W', &context),
        None => out.extend_from_slice(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(lines: u64) -> Row {
        Row {
            len: 0,
            body: 0,
            lines,
            lines_if_first: 1,
        }
    }

    #[test]
    fn lines_lead_back_to_the_clients() {
        let mut lines = Lines::default();
        // Lines 1, 2 and 5-6 (one row) of the client, then 7 and 9.
        assert!(lines.push(1, &row(1)));
        assert!(!lines.push(2, &row(1)));
        assert!(lines.push(5, &row(2)));
        let mut more = Lines::default();
        more.push(7, &row(1));
        more.push(9, &row(1));
        lines.append(&more);
        let back: Vec<u64> = (1..=6).map(|at| lines.back(at)).collect();
        assert_eq!(back, [1, 2, 5, 6, 7, 9]);
        assert_eq!((lines.runs.len(), lines.count), (3, 6));
        assert_eq!(Lines::default().back(4), 4);
    }

    #[test]
    fn a_server_counts_the_first_rows_lines_otherwise() {
        let mut held = Lines::default();
        // A row of lines 4-6, which the server takes for its line 1; then 7, and 20.
        held.push(4, &row(3));
        held.push(7, &row(1));
        held.push(20, &row(1));
        let mut sent = Lines::default();
        sent.append(&held);
        let back: Vec<u64> = (1..=3).map(|at| sent.back(at)).collect();
        assert_eq!((back, sent.count), (vec![6, 7, 20], 3));
    }

    #[test]
    fn a_line_number_in_a_context() {
        let of = |context: &str| {
            replaced(context.as_bytes(), "photos", |line| line + 100)
                .map(|c| String::from_utf8(c).unwrap())
        };
        assert_eq!(
            of("COPY photos, line 3, column id: \"7\"").unwrap(),
            "COPY photos, line 103, column id: \"7\""
        );
        assert_eq!(of("COPY photos, line 3").unwrap(), "COPY photos, line 103");
        assert_eq!(
            of("PL/pgSQL function f() line 2 at RAISE\nCOPY photos, Zeile 12: »x«").unwrap(),
            "PL/pgSQL function f() line 2 at RAISE\nCOPY photos, Zeile 112: »x«"
        );
        assert_eq!(of("COPY photos_old, line 3"), None);
        assert_eq!(of(""), None);
    }
}
