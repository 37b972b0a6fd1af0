//! The shape of a statement: its text with literals and comments cut out, found in one pass by Postgres' lexical
//! rules (src/backend/parser/scan.l). Two texts of one shape differ only in the values of their literals and in comments.

use smallvec::SmallVec;

/// What was cut out of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoleKind {
    /// A number, without sign: `42`, `1.5e3`, `0x1F`, `1_000`.
    Number,
    /// A plain string `'...'` (also `N'...'`), quotes included in the span.
    String,
    /// `E'...'`, prefix and quotes included.
    EscapeString,
    /// `$tag$...$tag$`, tags included.
    DollarString,
    /// `B'...'`, `X'...'`, `U&'...'`.
    OtherString,
    /// `-- ...` (without the line end) or `/* ... */` (nested).
    Comment,
}

/// A piece of the text that the shape leaves out. Byte offsets into the statement's text; `start < end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
    /// What it is.
    pub kind: HoleKind,
}

/// Why a text has no shape. Postgres would refuse each of these with a syntax error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShapeFault {
    /// A quoted string, quoted identifier, dollar string or comment that does not end.
    Unterminated {
        /// Byte offset of its first byte.
        at: u32,
    },
}

/// One statement's (or one text's) shape. Meant to be reused: [`Shape::scan`] clears and refills it, so that a warm
/// session allocates nothing.
#[derive(Default, Debug)]
pub struct Shape {
    /// The text with each hole replaced by one marker byte (its [`HoleKind`], 0x01..=0x06). Equal keys mean equal shapes.
    pub key: Vec<u8>,
    /// The holes in text order, never overlapping.
    pub holes: Vec<Hole>,
    /// Byte offset of each `;` outside holes, quoted identifiers and parentheses (also the last one, if there is one).
    pub semicolons: SmallVec<[u32; 4]>,
    /// The text has a raw control byte 0x01..=0x06 outside holes, so its key could be mistaken for another's: never cache it.
    pub opaque: bool,
    /// Some comment holds a `presplit:` hint (see [`crate::sql::hint`]).
    pub hinted: bool,
}
