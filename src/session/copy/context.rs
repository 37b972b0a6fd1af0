//! Where in the client's data an error lies: servers count the lines of what they were sent.

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
    pub(super) count: u64,
}

impl Lines {
    /// A row of `lines` lines, the client's first of which is `line`. `true`: it begins a run.
    #[inline]
    pub(super) fn push(&mut self, line: u64, lines: u64) -> bool {
        let at = self.count + 1;
        self.count += lines;
        self.begin(Run { at, line })
    }

    #[inline]
    fn begin(&mut self, run: Run) -> bool {
        let follows = |last: &Run| run.line - last.line == run.at - last.at && run.line >= last.line;
        let begins = !self.runs.last().is_some_and(follows);
        if begins {
            self.runs.push(run);
        }
        begins
    }

    /// Lines behind these.
    pub(super) fn append(&mut self, other: &Lines) {
        for run in &other.runs {
            self.begin(Run {
                at: run.at + self.count,
                line: run.line,
            });
        }
        self.count += other.count;
    }

    pub(super) fn clear(&mut self) {
        *self = Lines::default();
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
    let at: u64 = std::str::from_utf8(&context[digits..end]).ok()?.parse().ok()?;
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

    #[test]
    fn lines_lead_back_to_the_clients() {
        let mut lines = Lines::default();
        // Lines 1, 2 and 5-6 (one row) of the client, then 9.
        assert!(lines.push(1, 1));
        assert!(!lines.push(2, 1));
        assert!(lines.push(5, 2));
        let mut more = Lines::default();
        more.push(7, 1);
        more.push(9, 1);
        lines.append(&more);
        let back: Vec<u64> = (1..=6).map(|at| lines.back(at)).collect();
        assert_eq!(back, [1, 2, 5, 6, 7, 9]);
        assert_eq!((lines.runs.len(), lines.count), (3, 6));
        assert_eq!(Lines::default().back(4), 4);
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
