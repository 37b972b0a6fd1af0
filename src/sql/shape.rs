//! The shape of a statement: its text with literals and comments cut out, found in one pass by Postgres' lexical
//! rules (src/backend/parser/scan.l). Two texts of one shape differ only in the values of their literals and in comments.

mod again;
mod pieces;

pub use again::Earlier;

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

/// What a byte outside literals can begin.
#[derive(Clone, Copy)]
enum Class {
    Plain,
    Ident,
    Digit,
    Quote,
    DoubleQuote,
    Dollar,
    Minus,
    Slash,
    Dot,
    Semicolon,
    Open,
    Close,
    Marker,
}

const CLASS: [Class; 256] = classes();
const IDENT_CONT: [bool; 256] = ident_conts();

const fn classes() -> [Class; 256] {
    let mut table = [Class::Plain; 256];
    let mut b = 0;
    while b < 256 {
        table[b] = match b as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => Class::Ident,
            b'0'..=b'9' => Class::Digit,
            b'\'' => Class::Quote,
            b'"' => Class::DoubleQuote,
            b'$' => Class::Dollar,
            b'-' => Class::Minus,
            b'/' => Class::Slash,
            b'.' => Class::Dot,
            b';' => Class::Semicolon,
            b'(' => Class::Open,
            b')' => Class::Close,
            1..=6 => Class::Marker,
            _ => Class::Plain,
        };
        b += 1;
    }
    table
}

const fn ident_conts() -> [bool; 256] {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        table[b] =
            matches!(b as u8, b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'0'..=b'9' | b'$' | 0x80..=0xff);
        b += 1;
    }
    table
}

/// scan.l's `{ident_start}`.
pub(super) fn is_ident_start(b: u8) -> bool {
    matches!(CLASS[b as usize], Class::Ident)
}

/// scan.l's `{ident_cont}`.
pub(super) fn is_ident_cont(b: u8) -> bool {
    IDENT_CONT[b as usize]
}

/// scan.l's `{space}`; `\v` is one from Postgres 17 on and a syntax error before.
pub(super) fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// One past the last `{ident_cont}` byte from `at` on.
pub(super) fn ident_end(text: &[u8], at: usize) -> usize {
    let mut i = at;
    while i < text.len() && IDENT_CONT[text[i] as usize] {
        i += 1;
    }
    i
}

/// One past the closing `"` of the quoted identifier that opens at `open`.
pub(super) fn quoted_ident_end(text: &[u8], open: usize) -> Option<usize> {
    let mut i = open + 1;
    loop {
        if *text.get(i)? == b'"' {
            if text.get(i + 1) != Some(&b'"') {
                return Some(i + 1);
            }
            i += 1;
        }
        i += 1;
    }
}

/// How the inside of a `'...'` is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoting {
    /// `B''`, `X''`: the first quote ends it.
    Bare,
    /// `''` and `U&''`: a doubled quote is one quote.
    Doubled,
    /// `E''`: doubled quotes, and a backslash takes the next byte with it.
    Escapes,
}

impl Shape {
    /// Refills this shape from `text`: the text of a `Query` or `Parse` message without its closing NUL. Reads it as
    /// Postgres does with `standard_conforming_strings` on, in one pass, and allocates only to grow its buffers.
    /// After a fault the contents mean nothing.
    pub fn scan(&mut self, text: &[u8]) -> Result<(), ShapeFault> {
        self.key.clear();
        self.key.reserve(text.len());
        self.holes.clear();
        self.semicolons.clear();
        self.opaque = false;
        self.hinted = false;
        // A message is shorter than 2 GiB, so offsets fit; anything else is refused rather than wrapped.
        if u32::try_from(text.len()).is_err() {
            return Err(ShapeFault::Unterminated { at: 0 });
        }
        let mut scan = Scan {
            text,
            copied: 0,
            shape: self,
        };
        scan.run()?;
        self.join_atomic_bodies(text);
        Ok(())
    }
}

/// One pass. `copied` is how far the text has gone into the key.
struct Scan<'a> {
    text: &'a [u8],
    copied: usize,
    shape: &'a mut Shape,
}

impl Scan<'_> {
    fn run(&mut self) -> Result<(), ShapeFault> {
        let text = self.text;
        let mut depth = 0u32;
        let mut i = 0;
        while i < text.len() {
            i = match CLASS[text[i] as usize] {
                Class::Plain => i + 1,
                Class::Ident => match ident_end(text, i + 1) {
                    end if end == i + 1 => self.single_letter(i)?,
                    end => end,
                },
                Class::Digit => self.hole(i, Some(number_end(text, i)), HoleKind::Number)?,
                Class::Dot => self.dot(i)?,
                Class::Quote => self.string(i, i, Quoting::Doubled, HoleKind::String)?,
                Class::DoubleQuote => self.quoted_ident(i, i)?,
                Class::Dollar => self.dollar(i)?,
                Class::Minus if text.get(i + 1) == Some(&b'-') => {
                    self.comment(i, line_comment_end(text, i))?
                }
                Class::Slash if text.get(i + 1) == Some(&b'*') => {
                    self.comment(i, block_comment_end(text, i))?
                }
                Class::Minus | Class::Slash => i + 1,
                Class::Open => {
                    depth += 1;
                    i + 1
                }
                Class::Close => {
                    depth = depth.saturating_sub(1);
                    i + 1
                }
                Class::Semicolon => {
                    if depth == 0 {
                        self.shape.semicolons.push(i as u32);
                    }
                    i + 1
                }
                Class::Marker => {
                    self.shape.opaque = true;
                    i + 1
                }
            };
        }
        self.shape.key.extend_from_slice(&text[self.copied..]);
        Ok(())
    }

    /// Cuts `start..end` out of the key; `None` is a piece without end.
    fn hole(
        &mut self,
        start: usize,
        end: Option<usize>,
        kind: HoleKind,
    ) -> Result<usize, ShapeFault> {
        let Some(end) = end else {
            return Err(ShapeFault::Unterminated { at: start as u32 });
        };
        self.shape
            .key
            .extend_from_slice(&self.text[self.copied..start]);
        self.shape.key.push(kind.marker());
        self.shape.holes.push(Hole {
            start: start as u32,
            end: end as u32,
            kind,
        });
        self.copied = end;
        Ok(end)
    }

    /// An identifier of one byte at `i`, unless it is the prefix of a string: scan.l prefers the longer match.
    fn single_letter(&mut self, i: usize) -> Result<usize, ShapeFault> {
        let (next, after) = (self.text.get(i + 1), self.text.get(i + 2));
        match (self.text[i], next, after) {
            (b'e' | b'E', Some(b'\''), _) => {
                self.string(i, i + 1, Quoting::Escapes, HoleKind::EscapeString)
            }
            (b'n' | b'N', Some(b'\''), _) => {
                self.string(i, i + 1, Quoting::Doubled, HoleKind::String)
            }
            (b'b' | b'B' | b'x' | b'X', Some(b'\''), _) => {
                self.string(i, i + 1, Quoting::Bare, HoleKind::OtherString)
            }
            (b'u' | b'U', Some(b'&'), Some(b'\'')) => {
                self.string(i, i + 2, Quoting::Doubled, HoleKind::OtherString)
            }
            (b'u' | b'U', Some(b'&'), Some(b'"')) => self.quoted_ident(i, i + 2),
            _ => Ok(i + 1),
        }
    }

    /// A string whose token begins at `start` and whose first quote is at `open`; scan.l's `<xq>`, `<xe>`, `<xqs>`.
    fn string(
        &mut self,
        start: usize,
        open: usize,
        how: Quoting,
        kind: HoleKind,
    ) -> Result<usize, ShapeFault> {
        let end = string_end(self.text, open, how, &mut self.shape.hinted);
        self.hole(start, end, kind)
    }

    /// Quoted identifiers stay in the key.
    fn quoted_ident(&mut self, start: usize, open: usize) -> Result<usize, ShapeFault> {
        let Some(end) = quoted_ident_end(self.text, open) else {
            return Err(ShapeFault::Unterminated { at: start as u32 });
        };
        self.shape.opaque |= self.text[open..end].iter().any(|b| (1..=6).contains(b));
        Ok(end)
    }

    /// `.5` is a number even after an identifier; `..` is one token, so `1..2` holds two integers.
    fn dot(&mut self, i: usize) -> Result<usize, ShapeFault> {
        match self.text.get(i + 1) {
            Some(b'.') => Ok(i + 2),
            Some(b'0'..=b'9') => self.hole(i, Some(number_end(self.text, i)), HoleKind::Number),
            _ => Ok(i + 1),
        }
    }

    /// `$1`, `$tag$...$tag$` or a lone `$`.
    fn dollar(&mut self, i: usize) -> Result<usize, ShapeFault> {
        let text = self.text;
        let Some(tag_end) = dollar_tag_end(text, i) else {
            let mut end = i + 1;
            while text.get(end).is_some_and(u8::is_ascii_digit) {
                end += 1;
            }
            return Ok(end);
        };
        let end = dollar_string_end(text, &text[i..tag_end], tag_end);
        self.hole(i, end, HoleKind::DollarString)
    }

    fn comment(&mut self, i: usize, end: Option<usize>) -> Result<usize, ShapeFault> {
        let end = self.hole(i, end, HoleKind::Comment)?;
        self.shape.hinted |= mentions_hint(&self.text[i..end]);
        Ok(end)
    }
}

/// One past the end of the string whose first quote is at `open`, with those that continue it. `hinted` becomes true if a
/// comment between them holds a hint.
fn string_end(text: &[u8], open: usize, how: Quoting, hinted: &mut bool) -> Option<usize> {
    let mut i = open + 1;
    loop {
        match *text.get(i)? {
            b'\'' => {
                i += 1;
                if how != Quoting::Bare && text.get(i) == Some(&b'\'') {
                    i += 1;
                    continue;
                }
                let Some(next) = continuation(text, i) else {
                    return Some(i);
                };
                *hinted |= mentions_hint(&text[i..next]);
                i = next + 1;
            }
            b'\\' if how == Quoting::Escapes => i += 2,
            _ => i += 1,
        }
    }
}

impl HoleKind {
    /// The byte that stands for such a hole in a key.
    fn marker(self) -> u8 {
        match self {
            HoleKind::Number => 1,
            HoleKind::String => 2,
            HoleKind::EscapeString => 3,
            HoleKind::DollarString => 4,
            HoleKind::OtherString => 5,
            HoleKind::Comment => 6,
        }
    }
}

/// The opening quote that continues the string which closed right before `i`: Postgres joins strings with white space
/// and `--` comments between them that hold at least one line end (scan.l's `{quotecontinue}`).
pub(super) fn continuation(text: &[u8], mut i: usize) -> Option<usize> {
    let mut newline = false;
    loop {
        match *text.get(i)? {
            b'\n' | b'\r' => newline = true,
            b if is_space(b) => {}
            b'-' if text.get(i + 1) == Some(&b'-') => {
                i = line_comment_end(text, i)?;
                continue;
            }
            b'\'' if newline => return Some(i),
            _ => return None,
        }
        i += 1;
    }
}

/// One past the number at `i`: a digit, or a `.` before a digit. Postgres 16's rules (underscores, `0x`, `0o`, `0b`), which Postgres
/// 15 refuses as trailing junk. What follows without a break (`1and`, `1e`) is the next token's; Postgres 15 and later refuse it.
fn number_end(text: &[u8], i: usize) -> usize {
    let byte = |at: usize| text.get(at).copied().unwrap_or(0);
    if byte(i) == b'0' {
        let digit: fn(u8) -> bool = match byte(i + 1) {
            b'x' | b'X' => |b| b.is_ascii_hexdigit(),
            b'o' | b'O' => |b| matches!(b, b'0'..=b'7'),
            b'b' | b'B' => |b| matches!(b, b'0' | b'1'),
            _ => |_| false,
        };
        let end = digits_end(text, i + 2, digit);
        if end > i + 2 {
            return end;
        }
    }
    let decimal = |b: u8| b.is_ascii_digit();
    let run = |at: usize| {
        if decimal(byte(at)) {
            digits_end(text, at, decimal)
        } else {
            at
        }
    };
    let mut end = run(i);
    if byte(end) == b'.' && byte(end + 1) != b'.' {
        end = run(end + 1);
    }
    if matches!(byte(end), b'e' | b'E') {
        let exponent = end + 1 + usize::from(matches!(byte(end + 1), b'+' | b'-'));
        if decimal(byte(exponent)) {
            end = run(exponent);
        }
    }
    end
}

/// One past a run of digits, with single underscores before digits: `(_?{digit})*`.
fn digits_end(text: &[u8], mut i: usize, digit: impl Fn(u8) -> bool) -> usize {
    let is_digit = |at: usize| text.get(at).is_some_and(|b| digit(*b));
    loop {
        if is_digit(i) {
            i += 1;
        } else if text.get(i) == Some(&b'_') && is_digit(i + 1) {
            i += 2;
        } else {
            return i;
        }
    }
}

/// One past the second `$` of a `{dolqdelim}` at `i`, if there is one.
pub(super) fn dollar_tag_end(text: &[u8], i: usize) -> Option<usize> {
    let mut end = i + 1;
    if is_ident_start(*text.get(end)?) {
        while text
            .get(end)
            .is_some_and(|b| *b != b'$' && IDENT_CONT[*b as usize])
        {
            end += 1;
        }
    }
    (text.get(end) == Some(&b'$')).then_some(end + 1)
}

/// One past the `tag` that closes a dollar string whose body begins at `body`. A tag holds `$` only at its ends, so
/// the first occurrence is the one that scan.l finds.
fn dollar_string_end(text: &[u8], tag: &[u8], body: usize) -> Option<usize> {
    let mut i = body;
    loop {
        i += text.get(i..)?.iter().position(|b| *b == b'$')?;
        if text[i..].starts_with(tag) {
            return Some(i + tag.len());
        }
        i += 1;
    }
}

fn line_comment_end(text: &[u8], i: usize) -> Option<usize> {
    let line = text[i..].iter().position(|b| matches!(b, b'\n' | b'\r'));
    Some(line.map_or(text.len(), |n| i + n))
}

/// Block comments nest.
fn block_comment_end(text: &[u8], i: usize) -> Option<usize> {
    let mut depth = 1u32;
    let mut i = i + 2;
    while depth > 0 {
        match (*text.get(i)?, *text.get(i + 1)?) {
            (b'/', b'*') => {
                depth += 1;
                i += 2;
            }
            (b'*', b'/') => {
                depth -= 1;
                i += 2;
            }
            _ => i += 1,
        }
    }
    Some(i)
}

/// Whether a comment may hold a hint: `presplit`, in any case, then a colon.
pub(super) fn mentions_hint(comment: &[u8]) -> bool {
    let mut rest = comment;
    while let Some(colon) = rest.iter().rposition(|b| *b == b':') {
        rest = &rest[..colon];
        let word = rest.trim_ascii_end();
        if word.len() >= 8 && word[word.len() - 8..].eq_ignore_ascii_case(b"presplit") {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests;
