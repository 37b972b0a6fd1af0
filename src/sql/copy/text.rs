//! The text format: lines, a delimiter, backslash escapes.

use std::borrow::Cow;

use memchr::{memchr2, memchr3};

use super::line::{Ends, Eol, Marker};
use super::{Field, Row, Step};

/// Cuts text data. See `CopyReadLineText` and `CopyReadAttributesText`.
#[derive(Debug)]
pub(super) struct Text {
    delimiter: u8,
    pub(super) null: Vec<u8>,
    eol: Eol,
    /// How far the row at the front is scanned.
    at: usize,
    /// The end marker has been seen.
    ended: bool,
}

impl Text {
    pub(super) fn new(delimiter: u8, null: Vec<u8>) -> Text {
        Text {
            delimiter,
            null,
            eol: Eol::Unknown,
            at: 0,
            ended: false,
        }
    }

    #[inline]
    pub(super) fn next(&mut self, data: &[u8], whole: bool) -> Step {
        if self.ended {
            return Step::End;
        }
        loop {
            let Some(found) = memchr3(b'\n', b'\r', b'\\', &data[self.at..]) else {
                self.at = data.len();
                return self.rest(data, whole);
            };
            let at = self.at + found;
            self.at = at;
            if data[at] != b'\\' {
                return match self.eol.end(data, at, whole, false) {
                    Ends::With(end) => self.row(at, at + end),
                    Ends::More => Step::More,
                    Ends::Bad(fault) => Step::Bad(fault),
                };
            }
            match data.get(at + 1) {
                None => return self.rest(data, whole),
                Some(b'.') => return self.marker(data, whole),
                // Whatever follows a backslash is no line end.
                Some(_) => self.at = at + 2,
            }
        }
    }

    fn row(&mut self, body: usize, len: usize) -> Step {
        self.at = 0;
        Step::Row(Row {
            len,
            body,
            lines: 1,
            lines_if_first: 1,
        })
    }

    /// No line end comes in `data`: a last line needs none.
    fn rest(&mut self, data: &[u8], whole: bool) -> Step {
        match (whole, data.len()) {
            (false, _) => Step::More,
            (true, 0) => Step::End,
            (true, len) => self.row(len, len),
        }
    }

    /// `\.` at `self.at`. What stands before it on its line is a row.
    fn marker(&mut self, data: &[u8], whole: bool) -> Step {
        let at = self.at;
        match self.eol.marker(data, at + 2, whole) {
            Marker::More => Step::More,
            Marker::Bad(fault) | Marker::Not(fault) => Step::Bad(fault),
            Marker::End => {
                self.ended = true;
                match at {
                    0 => Step::End,
                    at => self.row(at, at),
                }
            }
        }
    }

    #[inline]
    pub(super) fn fields<'r>(
        &self,
        row: &'r [u8],
        wanted: &[usize],
        found: &mut dyn FnMut(usize, Field<'r>),
    ) {
        let (mut field, mut start) = (0, 0);
        for &want in wanted {
            loop {
                let (end, escaped) = self.field_end(row, start);
                if field == want {
                    found(want, self.field(&row[start..end], escaped));
                    break;
                }
                if end == row.len() {
                    found(want, Field::Missing);
                    break;
                }
                field += 1;
                start = end + 1;
            }
        }
    }

    /// Where the field that begins at `start` ends, and whether there is a backslash in it.
    #[inline]
    fn field_end(&self, row: &[u8], start: usize) -> (usize, bool) {
        let (mut at, mut escaped) = (start, false);
        loop {
            let Some(found) = memchr2(self.delimiter, b'\\', &row[at.min(row.len())..]) else {
                return (row.len(), escaped);
            };
            at += found;
            if row[at] == self.delimiter {
                return (at, escaped);
            }
            escaped = true;
            at += 2;
        }
    }

    fn field<'r>(&self, raw: &'r [u8], escaped: bool) -> Field<'r> {
        if raw == self.null {
            Field::Null
        } else if escaped {
            Field::Value(Cow::Owned(unescaped(raw)))
        } else {
            Field::Value(Cow::Borrowed(raw))
        }
    }
}

/// A field without its escapes.
fn unescaped(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        // A lone backslash at the end stands for nothing.
        let Some(byte) = rest.next() else { break };
        out.push(match byte {
            b'0'..=b'7' => digits(byte - b'0', 8, 2, &mut rest),
            b'x' => match rest.peek() {
                Some(digit) if digit.is_ascii_hexdigit() => digits(0, 16, 2, &mut rest),
                _ => b'x',
            },
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            other => other,
        });
    }
    out
}

/// Up to `most` more digits of a number that begins with `first`; what does not fit a byte is cut off.
fn digits(
    first: u8,
    radix: u8,
    most: usize,
    rest: &mut std::iter::Peekable<impl Iterator<Item = u8>>,
) -> u8 {
    let mut value = first;
    for _ in 0..most {
        let digit = rest
            .peek()
            .and_then(|b| char::from(*b).to_digit(radix.into()));
        let Some(digit) = digit else { break };
        value = value.wrapping_mul(radix).wrapping_add(digit as u8);
        rest.next();
    }
    value
}
