//! The tokens of a scanned text, for the readers that need no syntax tree. White space and comments are skipped; what
//! a literal holds is [`super::literal`]'s matter.

use std::borrow::Cow;
use std::ops::Range;

use super::shape::{Hole, HoleKind, ident_end, is_ident_start, is_space, quoted_ident_end};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A keyword or an unquoted identifier.
    Word,
    /// `"..."` or `U&"..."`, prefix and quotes included.
    QuotedIdent,
    /// `$1`.
    Param,
    /// The hole of this number: a number or string.
    Literal(u32),
    /// One byte of punctuation. Operators of several bytes come byte by byte.
    Punct,
}

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Its bytes in the text.
    pub span: Range<usize>,
}

impl Token {
    /// An unquoted word that equals `keyword` (lower case), whatever its case.
    pub fn is_word(&self, text: &[u8], keyword: &str) -> bool {
        self.kind == TokenKind::Word
            && text[self.span.clone()].eq_ignore_ascii_case(keyword.as_bytes())
    }

    /// This byte of punctuation.
    pub fn is_punct(&self, text: &[u8], byte: u8) -> bool {
        self.kind == TokenKind::Punct && text[self.span.start] == byte
    }
}

/// The tokens of `text`, whose holes are `holes`.
pub fn tokens<'t>(text: &'t [u8], holes: &'t [Hole]) -> Tokens<'t> {
    Tokens::new(text, holes)
}

/// An iterator over tokens.
#[derive(Clone, Debug)]
pub struct Tokens<'t> {
    text: &'t [u8],
    holes: &'t [Hole],
    next_hole: usize,
    at: usize,
    end: usize,
}

impl<'t> Tokens<'t> {
    /// All tokens of `text`.
    pub fn new(text: &'t [u8], holes: &'t [Hole]) -> Self {
        Tokens {
            text,
            holes,
            next_hole: 0,
            at: 0,
            end: text.len(),
        }
    }

    /// The tokens that begin in `range`, which must begin and end outside tokens. Spans and hole numbers stay those
    /// of the whole text.
    pub fn within(text: &'t [u8], holes: &'t [Hole], range: Range<usize>) -> Self {
        let next_hole = holes.partition_point(|h| (h.start as usize) < range.start);
        Tokens {
            text,
            holes,
            next_hole,
            at: range.start,
            end: range.end.min(text.len()),
        }
    }

    /// One past the last byte of the token at `at` that is no hole, and what it is.
    fn outside_hole(&self, at: usize) -> (TokenKind, usize) {
        let text = self.text;
        match text[at] {
            b'"' => (
                TokenKind::QuotedIdent,
                quoted_ident_end(text, at).unwrap_or(text.len()),
            ),
            b'u' | b'U' if text[at + 1..].starts_with(b"&\"") => (
                TokenKind::QuotedIdent,
                quoted_ident_end(text, at + 2).unwrap_or(text.len()),
            ),
            b if is_ident_start(b) => (TokenKind::Word, ident_end(text, at)),
            b'$' => {
                let digits = text[at + 1..]
                    .iter()
                    .take_while(|b| b.is_ascii_digit())
                    .count();
                let kind = if digits > 0 {
                    TokenKind::Param
                } else {
                    TokenKind::Punct
                };
                (kind, at + 1 + digits)
            }
            _ => (TokenKind::Punct, at + 1),
        }
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        while self.at < self.end {
            let at = self.at;
            if let Some(hole) = self
                .holes
                .get(self.next_hole)
                .filter(|h| h.start as usize == at)
            {
                let number = self.next_hole as u32;
                self.next_hole += 1;
                self.at = hole.end as usize;
                if hole.kind != HoleKind::Comment {
                    return Some(Token {
                        kind: TokenKind::Literal(number),
                        span: at..self.at,
                    });
                }
            } else if is_space(self.text[at]) {
                self.at += 1;
            } else {
                let (kind, end) = self.outside_hole(at);
                self.at = end;
                return Some(Token {
                    kind,
                    span: at..end,
                });
            }
        }
        None
    }
}

/// The longest name that Postgres keeps: NAMEDATALEN - 1 bytes.
const NAME_MAX: usize = 63;

/// The name that the identifier at `span` stands for: an unquoted one folded to lower case (ASCII letters only), a
/// quoted one without its quotes, both cut to 63 bytes as Postgres does. A `UESCAPE` after it is not looked at.
pub fn ident_value(text: &[u8], span: Range<usize>) -> Cow<'_, str> {
    let raw = &text[span];
    let name = match raw {
        [b'"', inner @ .., b'"'] => unquote(String::from_utf8_lossy(inner)),
        [b'u' | b'U', b'&', b'"', inner @ .., b'"'] => {
            let inner = unquote(String::from_utf8_lossy(inner));
            match unicode_unescape(&inner) {
                Some(plain) => Cow::Owned(plain),
                None => inner,
            }
        }
        _ => {
            let word = String::from_utf8_lossy(raw);
            match word.bytes().any(|b| b.is_ascii_uppercase()) {
                true => Cow::Owned(word.to_ascii_lowercase()),
                false => word,
            }
        }
    };
    truncate(name)
}

fn unquote(inner: Cow<'_, str>) -> Cow<'_, str> {
    match inner.contains('"') {
        true => Cow::Owned(inner.replace("\"\"", "\"")),
        false => inner,
    }
}

fn truncate(name: Cow<'_, str>) -> Cow<'_, str> {
    if name.len() <= NAME_MAX {
        return name;
    }
    let end = (0..=NAME_MAX)
        .rev()
        .find(|at| name.is_char_boundary(*at))
        .unwrap_or(0);
    match name {
        Cow::Borrowed(name) => Cow::Borrowed(&name[..end]),
        Cow::Owned(mut name) => {
            name.truncate(end);
            Cow::Owned(name)
        }
    }
}

/// Resolves `\XXXX`, `\+XXXXXX` and `\\` (parser.c's `str_udeescape` with the default escape character). `None` where
/// Postgres reports an error.
pub(super) fn unicode_unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut high = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let code = match (c, rest.as_bytes()) {
            ('\\', [b'\\', ..]) => {
                rest = &rest[1..];
                None
            }
            ('\\', [b'+', ..]) => Some(take_hex(&mut rest, 1, 6)?),
            ('\\', _) => Some(take_hex(&mut rest, 0, 4)?),
            _ => None,
        };
        match code {
            None if high.is_some() => return None,
            None => out.push(c),
            Some(code) => push_utf16(&mut out, &mut high, code)?,
        }
    }
    high.is_none().then_some(out)
}

/// Takes `skip` bytes and then `len` hexadecimal digits.
fn take_hex(rest: &mut &str, skip: usize, len: usize) -> Option<u32> {
    let digits = rest.get(skip..skip + len)?;
    *rest = &rest[skip + len..];
    hex(digits.as_bytes())
}

/// The number that these hexadecimal digits (at most 8) write; `None` if one of them is none.
pub(super) fn hex(digits: &[u8]) -> Option<u32> {
    digits
        .iter()
        .try_fold(0, |n, b| Some(n << 4 | char::from(*b).to_digit(16)?))
}

/// Appends a code point; a high surrogate waits in `high` for the low one that must follow. `None` where Postgres
/// reports an error (zero, beyond Unicode, a lone surrogate).
pub(super) fn push_utf16(out: &mut String, high: &mut Option<u32>, code: u32) -> Option<()> {
    match (high.take(), code) {
        (None, 0xd800..=0xdbff) => *high = Some(code),
        (Some(first), 0xdc00..=0xdfff) => {
            out.push(char::from_u32(
                0x10000 + ((first & 0x3ff) << 10) + (code & 0x3ff),
            )?);
        }
        (None, 1..) => out.push(char::from_u32(code)?),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::shape::Shape;

    fn shape(text: &str) -> Shape {
        let mut shape = Shape::default();
        shape.scan(text.as_bytes()).unwrap();
        shape
    }

    fn list(text: &str) -> Vec<(&str, TokenKind)> {
        let shape = shape(text);
        tokens(text.as_bytes(), &shape.holes)
            .map(|t| (&text[t.span], t.kind))
            .collect()
    }

    #[test]
    fn every_kind() {
        use TokenKind::*;
        let text = "a.\"B\"\"c\" = $1 /* x */ AND U&\"d\"<>'x' -- y\n, E'z'";
        let wanted = [
            ("a", Word),
            (".", Punct),
            ("\"B\"\"c\"", QuotedIdent),
            ("=", Punct),
            ("$1", Param),
            ("AND", Word),
            ("U&\"d\"", QuotedIdent),
            ("<", Punct),
            (">", Punct),
            ("'x'", Literal(1)),
            (",", Punct),
            ("E'z'", Literal(3)),
        ];
        assert_eq!(list(text), wanted);
        let glued = [
            ("1", Literal(0)),
            ("and", Word),
            ("$", Punct),
            ("x", Word),
            ("u", Word),
            ("&", Punct),
        ];
        assert_eq!(list("1and $x u&"), glued);
        assert_eq!(
            list("a$b$ $1abc"),
            [("a$b$", Word), ("$1", Param), ("abc", Word)]
        );
        assert_eq!(list(" /* x */ -- y"), []);
    }

    #[test]
    fn of_a_part() {
        let text = "SELECT 1; SELECT 'x', 2; b";
        let shape = shape(text);
        let within =
            |range| Tokens::within(text.as_bytes(), &shape.holes, range).collect::<Vec<_>>();
        assert_eq!(
            within(10..23)[1],
            Token {
                kind: TokenKind::Literal(1),
                span: 17..20
            }
        );
        assert_eq!(within(10..23).len(), 4);
        assert_eq!(within(24..500).len(), 1);
        assert_eq!(within(600..700).len(), 0);
    }

    #[test]
    fn names() {
        let name = |text: &str| ident_value(text.as_bytes(), 0..text.len()).into_owned();
        assert_eq!(name("Photos"), "photos");
        assert_eq!(name("photos"), "photos");
        assert_eq!(
            name("\u{c9}T\u{c9}"),
            "\u{c9}t\u{c9}",
            "only ASCII letters are folded"
        );
        assert_eq!(name("\"Photos\""), "Photos");
        assert_eq!(name("\"a\"\"b\""), "a\"b");
        assert_eq!(name(r#"U&"d\0061t\+000061""#), "data");
        assert_eq!(name(r#"u&"a\\b""c""#), r#"a\b"c"#);
        assert_eq!(name(r#"U&"\D83D\DE00""#), "\u{1f600}");
        assert_eq!(name(r#"U&"\00zz""#), r"\00zz", "Postgres refuses it");
        assert!(matches!(ident_value(b"photos", 0..6), Cow::Borrowed(_)));
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let name = |text: &str| ident_value(text.as_bytes(), 0..text.len()).into_owned();
        assert_eq!(name(&"a".repeat(63)).len(), 63);
        assert_eq!(name(&"A".repeat(64)), "a".repeat(63));
        assert_eq!(name(&format!("\"{}\"", "A".repeat(70))), "A".repeat(63));
        assert_eq!(name(&("a".repeat(62) + "\u{e9}")), "a".repeat(62));
        assert_eq!(
            name(&("a".repeat(61) + "\u{e9}\u{e9}")),
            "a".repeat(61) + "\u{e9}"
        );
    }

    #[test]
    fn unicode_escapes_that_postgres_refuses() {
        let refused = [
            r"\",
            r"\12",
            r"\+12345",
            r"\0000",
            r"\D800",
            r"\D800x",
            r"\DC00",
            r"\D800\D800",
            r"\+110000",
            r"\-123",
        ];
        for text in refused {
            assert_eq!(unicode_unescape(text), None, "{text}");
        }
    }
}
