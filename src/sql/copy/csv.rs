//! The csv format: quotes, inside which delimiters and line ends are part of the value.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter, memchr2, memchr3};

use super::line::{Ends, Eol, Marker};
use super::{Field, Row, Step};

/// Cuts csv data. See `CopyReadLineText` and `CopyReadAttributesCSV`.
#[derive(Debug)]
pub(super) struct Csv {
    delimiter: u8,
    quote: u8,
    escape: u8,
    pub(super) null: Vec<u8>,
    /// `\.` alone on a line ends the data.
    marker: bool,
    eol: Eol,
    /// How far the row at the front is scanned, and in what state.
    at: usize,
    within: Within,
    /// Newlines and carriage returns inside quotes so far.
    newlines: u64,
    returns: u64,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Bare,
    Quotes,
    /// In quotes, behind an escape that is not the quote.
    Escape,
}

impl Csv {
    pub(super) fn new(delimiter: u8, quote: u8, escape: u8, null: Vec<u8>, marker: bool) -> Csv {
        Csv {
            delimiter,
            quote,
            escape,
            null,
            marker,
            eol: Eol::Unknown,
            at: 0,
            within: Within::Bare,
            newlines: 0,
            returns: 0,
            ended: false,
        }
    }

    #[inline]
    pub(super) fn next(&mut self, data: &[u8], whole: bool) -> Step {
        if self.ended {
            return Step::End;
        }
        if self.at == 0
            && self.marker
            && data.first() == Some(&b'\\')
            && let Some(step) = self.maybe_marker(data, whole)
        {
            return step;
        }
        loop {
            let from = self.at;
            if self.within == Within::Bare {
                let Some(found) = memchr3(self.quote, b'\n', b'\r', &data[from..]) else {
                    self.at = data.len();
                    return self.rest(data, whole);
                };
                let at = from + found;
                self.at = at;
                if data[at] == self.quote {
                    self.within = Within::Quotes;
                    self.at += 1;
                    continue;
                }
                let eol = self.eol;
                return match self.eol.end(data, at, whole, true) {
                    Ends::With(end) => self.row(at, at + end, eol),
                    Ends::More => Step::More,
                    Ends::Bad(fault) => Step::Bad(fault),
                };
            }
            let found = match self.escape == self.quote {
                true => memchr(self.quote, &data[from..]),
                false => memchr2(self.quote, self.escape, &data[from..]),
            };
            let at = found.map_or(data.len(), |found| from + found);
            self.count(&data[from..at]);
            let Some(_) = found else {
                self.at = at;
                return self.rest(data, whole);
            };
            self.special(at - from, data[at]);
            self.at = at + 1;
        }
    }

    /// A quote or escape inside quotes, `gap` bytes behind the one before it.
    #[inline]
    fn special(&mut self, gap: usize, byte: u8) {
        if gap > 0 {
            self.within = Within::Quotes;
        }
        self.within = match (self.within, byte == self.quote) {
            (Within::Escape, _) => Within::Quotes,
            (_, true) => Within::Bare,
            (_, false) => Within::Escape,
        };
    }

    /// Counts what the server takes for line ends inside quotes.
    fn count(&mut self, quoted: &[u8]) {
        if !quoted.is_empty() && self.within == Within::Escape {
            self.within = Within::Quotes;
        }
        self.returns += memchr_iter(b'\r', quoted).count() as u64;
        if self.eol == Eol::Nl {
            self.newlines += memchr_iter(b'\n', quoted).count() as u64;
        }
    }

    /// A row that ends now. `eol`: what was known of line ends while it was scanned.
    fn row(&mut self, body: usize, len: usize, eol: Eol) -> Step {
        let inside = if eol == Eol::Nl {
            self.newlines
        } else {
            self.returns
        };
        let row = Row {
            len,
            body,
            lines: 1 + inside,
            lines_if_first: 1 + self.returns,
        };
        (self.at, self.newlines, self.returns) = (0, 0, 0);
        self.within = Within::Bare;
        Step::Row(row)
    }

    fn rest(&mut self, data: &[u8], whole: bool) -> Step {
        match (whole, data.len()) {
            (false, _) => Step::More,
            (true, 0) => Step::End,
            (true, len) => self.row(len, len, self.eol),
        }
    }

    /// A backslash begins the line; `None`: it is part of a value.
    fn maybe_marker(&mut self, data: &[u8], whole: bool) -> Option<Step> {
        match data.get(1) {
            None if !whole => return Some(Step::More),
            Some(b'.') => {}
            _ => return None,
        }
        match self.eol.marker(data, 2, whole) {
            Marker::More => Some(Step::More),
            Marker::Bad(fault) => Some(Step::Bad(fault)),
            Marker::Not(_) => None,
            Marker::End => {
                self.ended = true;
                Some(Step::End)
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
                // A quote that is never closed: no field of this row can be told from here on.
                let end = self.field_end(row, start);
                if let (Some(end), true) = (end, field == want) {
                    found(want, self.field(&row[start..end]));
                    break;
                }
                let Some(end) = end.filter(|end| *end < row.len()) else {
                    found(want, Field::Missing);
                    break;
                };
                field += 1;
                start = end + 1;
            }
        }
    }

    /// Where the field that begins at `start` ends; `None`: inside quotes.
    #[inline]
    fn field_end(&self, row: &[u8], start: usize) -> Option<usize> {
        let mut at = start;
        loop {
            let Some(found) = memchr2(self.delimiter, self.quote, &row[at..]) else {
                return Some(row.len());
            };
            at += found;
            if row[at] == self.delimiter {
                return Some(at);
            }
            at = self.after_quotes(row, at + 1)?;
        }
    }

    /// Behind the quote that ends what begins at `at`, inside quotes.
    fn after_quotes(&self, row: &[u8], mut at: usize) -> Option<usize> {
        loop {
            at += memchr2(self.quote, self.escape, &row[at..])?;
            if self.escapes(row, at) {
                at += 2;
            } else if row[at] == self.quote {
                return Some(at + 1);
            } else {
                at += 1;
            }
        }
    }

    /// Whether the byte at `at`, inside quotes, makes the next one part of the value.
    fn escapes(&self, row: &[u8], at: usize) -> bool {
        row[at] == self.escape
            && row
                .get(at + 1)
                .is_some_and(|next| *next == self.escape || *next == self.quote)
    }

    fn field<'r>(&self, raw: &'r [u8]) -> Field<'r> {
        if memchr(self.quote, raw).is_none() {
            return match raw == self.null {
                true => Field::Null,
                false => Field::Value(Cow::Borrowed(raw)),
            };
        }
        Field::Value(Cow::Owned(self.unquoted(raw)))
    }

    fn unquoted(&self, raw: &[u8]) -> Vec<u8> {
        let (mut out, mut at, mut quoted) = (Vec::with_capacity(raw.len()), 0, false);
        while at < raw.len() {
            if quoted && self.escapes(raw, at) {
                out.push(raw[at + 1]);
                at += 2;
                continue;
            }
            match raw[at] == self.quote {
                true => quoted = !quoted,
                false => out.push(raw[at]),
            }
            at += 1;
        }
        out
    }
}
