//! COPY data cut into rows and fields by Postgres' own rules (src/backend/commands/copyfromparse.c): pure code, no I/O,
//! any piece of the data at a time.

mod binary;
mod csv;
mod line;
mod text;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use binary::Binary;
use csv::Csv;
pub use line::LineFault;
use text::Text;

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Tab-separated, backslash escapes.
    #[default]
    Text,
    /// Comma-separated values.
    Csv,
    /// Postgres' own binary form.
    Binary,
}

/// Whether the data begins with a line of column names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Header {
    /// No.
    #[default]
    No,
    /// Yes; a server skips it.
    Skip,
    /// Yes; a server compares it with the columns.
    Match,
}

/// The options of a COPY that say how its data is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// FORMAT.
    pub format: Format,
    /// DELIMITER.
    pub delimiter: Option<Vec<u8>>,
    /// NULL.
    pub null: Option<Vec<u8>>,
    /// HEADER.
    pub header: Header,
    /// QUOTE.
    pub quote: Option<Vec<u8>>,
    /// ESCAPE.
    pub escape: Option<Vec<u8>>,
    /// FORCE_NOT_NULL; `["*"]` are all columns.
    pub force_not_null: Vec<String>,
    /// FORCE_NULL; `["*"]` are all columns.
    pub force_null: Vec<String>,
    /// ENCODING.
    pub encoding: Option<Vec<u8>>,
}

/// A row's place at the front of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Bytes of the row, its line end included.
    pub len: usize,
    /// Bytes without the line end.
    pub body: usize,
    /// By how much the server's line number grows with it: 1, and the line ends inside quotes.
    pub lines: u64,
    /// The same at a server that has seen no line end before, and so does not know which are some.
    pub lines_if_first: u64,
}

/// What stands at the front of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A row.
    Row(Row),
    /// Not enough to say.
    More,
    /// The end: all has been read, or the end marker. What follows does not count.
    End,
    /// This can't be read, and a server would say so.
    Bad(LineFault),
    /// This can't be read: the server that is given it says best what is wrong.
    Broken,
}

/// A field of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// NULL.
    Null,
    /// Its value, quotes and escapes resolved.
    Value(Cow<'a, [u8]>),
    /// The row has no such field, or can't be read up to it.
    Missing,
}

/// Finds rows in data that comes in pieces. Each piece is scanned once, however many it takes to complete a row.
#[derive(Debug)]
pub struct Splitter(Kind);

#[derive(Debug)]
enum Kind {
    Text(Text),
    Csv(Csv),
    Binary(Binary),
}

impl Splitter {
    /// For data written by these options. `None`: by options that Postgres refuses, or that are too odd to be followed.
    /// `csv_marker`: `\.` alone on a line ends csv data, as it does up to Postgres 17.
    pub fn new(options: &Options, csv_marker: bool) -> Option<Splitter> {
        let byte = |given: &Option<Vec<u8>>, default: u8| match given.as_deref() {
            None => Some(default),
            Some([b]) if b.is_ascii() && !matches!(b, b'\n' | b'\r' | 0) => Some(*b),
            Some(_) => None,
        };
        let null = |default: &[u8]| options.null.clone().unwrap_or_else(|| default.to_vec());
        Some(Splitter(match options.format {
            Format::Text => {
                let delimiter = byte(&options.delimiter, b'\t')?;
                if delimiter == b'\\' || delimiter == b'.' || delimiter.is_ascii_alphanumeric() {
                    return None;
                }
                Kind::Text(Text::new(delimiter, null(b"\\N")))
            }
            Format::Csv => {
                let quote = byte(&options.quote, b'"')?;
                let delimiter = byte(&options.delimiter, b',')?;
                if delimiter == quote {
                    return None;
                }
                let escape = byte(&options.escape, quote)?;
                Kind::Csv(Csv::new(delimiter, quote, escape, null(b""), csv_marker))
            }
            Format::Binary => Kind::Binary(Binary::default()),
        }))
    }

    /// What stands at the front of `data`. The same row's bytes must be given again, with more behind them, until it is
    /// whole; a row that was found must be taken off. `whole`: nothing comes behind `data`.
    #[inline]
    pub fn next(&mut self, data: &[u8], whole: bool) -> Step {
        match &mut self.0 {
            Kind::Text(text) => text.next(data, whole),
            Kind::Csv(csv) => csv.next(data, whole),
            Kind::Binary(binary) => binary.next(data, whole),
        }
    }

    /// Gives `found` the fields of these numbers (from 0, rising) of a row without its line end.
    #[inline]
    pub fn fields<'r>(
        &self,
        row: &'r [u8],
        wanted: &[usize],
        found: &mut dyn FnMut(usize, Field<'r>),
    ) {
        match &self.0 {
            Kind::Text(text) => text.fields(row, wanted, found),
            Kind::Csv(csv) => csv.fields(row, wanted, found),
            Kind::Binary(_) => binary::fields(row, wanted, found),
        }
    }

    /// The null marker, which FORCE_NOT_NULL takes as a value.
    pub fn null(&self) -> &[u8] {
        match &self.0 {
            Kind::Text(text) => &text.null,
            Kind::Csv(csv) => &csv.null,
            Kind::Binary(_) => b"",
        }
    }

    /// The length of the head of binary data, which is no row; `Ok(None)`: it is not all there. `Err`: it is none.
    pub fn head(&self, data: &[u8]) -> Result<Option<usize>, NoHead> {
        match &self.0 {
            Kind::Binary(_) => binary::head(data),
            Kind::Text(_) | Kind::Csv(_) => Ok(Some(0)),
        }
    }
}

/// Not the head of binary data that a server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHead;
