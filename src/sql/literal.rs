//! What a literal of the text stands for: its value as Postgres reads it, before any cast.

use std::borrow::Cow;

use super::shape::{Hole, HoleKind, continuation, dollar_tag_end, is_space};
use super::token::{hex, push_utf16, unicode_unescape};

/// The value of a literal: a string unescaped, a number without underscores and in decimal. `None` if it has none
/// (a comment, a bit string), if Postgres would refuse it (a faulty escape), or if its value can't be told for sure
/// (`U&'...' UESCAPE`, `N'... '`, `E'\v'`).
pub fn literal_value<'t>(text: &'t [u8], hole: &Hole) -> Option<Cow<'t, [u8]>> {
    let raw = text.get(hole.start as usize..hole.end as usize)?;
    match hole.kind {
        HoleKind::Number => number_value(raw),
        HoleKind::String => plain_value(raw),
        HoleKind::EscapeString => escape_value(raw).map(Cow::Owned),
        HoleKind::DollarString => {
            let tag = dollar_tag_end(raw, 0)?;
            raw.get(tag..raw.len().checked_sub(tag)?).map(Cow::Borrowed)
        }
        HoleKind::OtherString => unicode_value(raw, &text[hole.end as usize..]).map(Cow::Owned),
        HoleKind::Comment => None,
    }
}

fn number_value(raw: &[u8]) -> Option<Cow<'_, [u8]>> {
    let radix = match raw {
        [b'0', b'x' | b'X', ..] => 16,
        [b'0', b'o' | b'O', ..] => 8,
        [b'0', b'b' | b'B', ..] => 2,
        _ if !raw.contains(&b'_') => return Some(Cow::Borrowed(raw)),
        _ => 10,
    };
    let plain: Vec<u8> = raw.iter().copied().filter(|b| *b != b'_').collect();
    if radix == 10 {
        return Some(Cow::Owned(plain));
    }
    let digits = std::str::from_utf8(&plain[2..]).ok()?;
    let value = u128::from_str_radix(digits, radix).ok()?;
    Some(Cow::Owned(value.to_string().into_bytes()))
}

/// `'...'` and `N'...'`. The latter is of type `bpchar`, whose trailing blanks come and go with casts.
fn plain_value(raw: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (national, quoted) = match raw {
        [b'n' | b'N', rest @ ..] => (true, rest),
        _ => (false, raw),
    };
    let value = match quoted {
        [b'\'', inner @ .., b'\''] if !inner.contains(&b'\'') => Cow::Borrowed(inner),
        _ => Cow::Owned(joined(quoted)),
    };
    let sure = !(national && value.ends_with(b" "));
    sure.then_some(value)
}

/// The inside of `'..''..' \n '..'`: doubled quotes made one, continued strings joined.
fn joined(quoted: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(quoted.len());
    let mut i = 1;
    while let Some(b) = quoted.get(i) {
        if *b != b'\'' {
            out.push(*b);
        } else if quoted.get(i + 1) == Some(&b'\'') {
            out.push(b'\'');
            i += 1;
        } else {
            match continuation(quoted, i + 1) {
                Some(open) => i = open,
                None => break,
            }
        }
        i += 1;
    }
    out
}

/// `U&'...'`: only without a `UESCAPE` behind it, and behind a comment that isn't looked for.
fn unicode_value(raw: &[u8], after: &[u8]) -> Option<Vec<u8>> {
    let quoted = match raw {
        [b'u' | b'U', b'&', quoted @ ..] => quoted,
        _ => return None,
    };
    let next = after
        .iter()
        .position(|b| !is_space(*b))
        .map_or(&b""[..], |n| &after[n..]);
    let escaped = next
        .get(..7)
        .is_some_and(|word| word.eq_ignore_ascii_case(b"uescape"));
    if escaped || next.starts_with(b"--") || next.starts_with(b"/*") {
        return None;
    }
    let inner = String::from_utf8(joined(quoted)).ok()?;
    unicode_unescape(&inner).map(String::into_bytes)
}

/// `E'...'` (scan.l's `<xe>`).
fn escape_value(raw: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(raw.len());
    let mut high = None;
    let mut i = 2;
    loop {
        match *raw.get(i)? {
            b'\\' => {
                i = escape(raw, i + 1, &mut out, &mut high)?;
                continue;
            }
            _ if high.is_some() => return None,
            b'\'' if raw.get(i + 1) == Some(&b'\'') => {
                out.push(b'\'');
                i += 1;
            }
            b'\'' => match continuation(raw, i + 1) {
                Some(open) => i = open,
                None => return Some(out),
            },
            b => out.push(b),
        }
        i += 1;
    }
}

/// The escape whose backslash stands before `at`; returns where the text goes on.
fn escape(raw: &[u8], at: usize, out: &mut Vec<u8>, high: &mut Option<u32>) -> Option<usize> {
    let letter = *raw.get(at)?;
    if let b'u' | b'U' = letter {
        let end = at + if letter == b'u' { 5 } else { 9 };
        let mut c = String::new();
        push_utf16(&mut c, high, hex(raw.get(at + 1..end)?)?)?;
        out.extend_from_slice(c.as_bytes());
        return Some(end);
    }
    if high.is_some() {
        return None;
    }
    let (byte, end) = match letter {
        b'b' => (0x08, at + 1),
        b'f' => (0x0c, at + 1),
        b'n' => (b'\n', at + 1),
        b'r' => (b'\r', at + 1),
        b't' => (b'\t', at + 1),
        // A vertical tab to newer versions, a `v` to older ones.
        b'v' => return None,
        b'0'..=b'7' => {
            let digits = raw[at..]
                .iter()
                .take(3)
                .take_while(|b| matches!(b, b'0'..=b'7'));
            let (value, len) = digits.fold((0u32, 0), |(n, len), b| {
                (n << 3 | u32::from(b - b'0'), len + 1)
            });
            (value as u8, at + len)
        }
        b'x' => {
            let len = raw[at + 1..]
                .iter()
                .take(2)
                .take_while(|b| b.is_ascii_hexdigit())
                .count();
            match len {
                0 => (b'x', at + 1),
                _ => (hex(&raw[at + 1..at + 1 + len])? as u8, at + 1 + len),
            }
        }
        other => (other, at + 1),
    };
    out.push(byte);
    (byte != 0).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::shape::Shape;

    /// The value of the first literal of `text`; `None` if it has none to tell.
    fn value(text: &str) -> Option<String> {
        let mut shape = Shape::default();
        shape.scan(text.as_bytes()).unwrap();
        let value = literal_value(text.as_bytes(), &shape.holes[0])?;
        Some(String::from_utf8_lossy(&value).into_owned())
    }

    #[track_caller]
    fn is(text: &str, wanted: &str) {
        assert_eq!(value(text).as_deref(), Some(wanted), "{text}");
    }

    #[test]
    fn numbers() {
        is("42", "42");
        is("1.5e3", "1.5e3");
        is(".5", ".5");
        is("1_000", "1000");
        is("0x1F", "31");
        is("0XFF_ff", "65535");
        is("0o17", "15");
        is("0b1_01", "5");
        is("0x7FFFFFFFFFFFFFFF", "9223372036854775807");
        assert_eq!(value(&format!("0x{}", "f".repeat(33))), None);
        is("99999999999999999999999999", "99999999999999999999999999");
    }

    #[test]
    fn plain_strings() {
        is("'a'", "a");
        is("''", "");
        is("'it''s'", "it's");
        is("''''", "'");
        is(r"'a\nb'", r"a\nb");
        is("'a' -- 'x'\n  'b''c'\n'd'", "ab'cd");
        is("''\n''", "");
        is("N'x'", "x");
        assert_eq!(
            value("N'x '"),
            None,
            "of type bpchar, whose blanks come and go"
        );
        is("'x '", "x ");
        let hole = Hole {
            start: 0,
            end: 5,
            kind: HoleKind::String,
        };
        assert!(matches!(
            literal_value(b"'abc'", &hole),
            Some(Cow::Borrowed(b"abc"))
        ));
    }

    #[test]
    fn escape_strings() {
        is(r"E'it\'s ''x'''", "it's 'x'");
        is(r"e'\b\f\n\r\t\q\\'", "\u{8}\u{c}\n\r\tq\\");
        is(r"E'\101\60\7x'", "A0\u{7}x");
        is(r"E'\x41\x4a1\xg'", "AJ1xg");
        is(r"E'\u0041\U0001F600\uD83D\uDE00'", "A\u{1f600}\u{1f600}");
        is("E'a\\\nb'", "a\nb");
        is("E'a\\''\n'b\\''", "a'b'");
        let refused = [
            r"E'\v'",
            r"E'\0'",
            r"E'\x00'",
            r"E'\u00'",
            r"E'\U0001'",
            r"E'\u0000'",
            r"E'\uD800'",
            r"E'\uD800x'",
            r"E'\uD800\n'",
            r"E'\uDC00'",
        ];
        for text in refused {
            assert_eq!(value(text), None, "{text}");
        }
        let hole = Hole {
            start: 0,
            end: 7,
            kind: HoleKind::EscapeString,
        };
        assert_eq!(
            literal_value(br"E'\xff'", &hole).as_deref(),
            Some(&b"\xff"[..])
        );
    }

    #[test]
    fn other_strings() {
        is("$$a'b$$", "a'b");
        is("$t$$$x$t$", "$$x");
        is("$t$$t$", "");
        is(r"U&'d\0061t\+000061 ''x'' \\'", r"data 'x' \");
        is("U&'a' , b", "a");
        is("U&'a'\n'\\0062'", "ab");
        let refused = [
            r"U&'a' UESCAPE '!'",
            "U&'a'\nuescape'!'",
            "U&'a' -- x",
            "U&'a' /* x */",
            r"U&'\00'",
            "B'101'",
            "X'1F'",
            "/* x */",
            "-- x",
        ];
        for text in refused {
            assert_eq!(value(text), None, "{text}");
        }
    }
}
