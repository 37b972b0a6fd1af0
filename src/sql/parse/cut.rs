//! Cuts a text into tokens by Postgres' lexical rules (src/backend/parser/scan.l).

use crate::sql::shape::{Hole, HoleKind};
use crate::sql::token::{TokenKind, ident_value, tokens};

/// A token by Postgres' rules.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Raw {
    pub(super) kind: RawKind,
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum RawKind {
    /// An unquoted word, folded.
    Word(String),
    /// A quoted identifier, its value.
    Quoted(String),
    /// `$n`
    Param,
    /// The hole of this number.
    Literal(u32, HoleKind),
    /// An operator: a run of operator characters as Postgres cuts it.
    Operator,
    /// `( ) [ ] , . ; : :: :=`
    Punct,
}

/// Bytes that operators are made of (scan.l's `{op_chars}`).
const OPERATOR: &[u8] = b"~!@#^&|`?+-*/%<>=";

/// Cuts the text into tokens. `Err`: a byte that begins no token.
pub(super) fn cut(text: &[u8], holes: &[Hole]) -> Result<Vec<Raw>, String> {
    let mut raws: Vec<Raw> = Vec::new();
    let mut run: Option<Raw> = None;
    for token in tokens(text, holes) {
        let (start, end) = (token.span.start, token.span.end);
        if token.kind == TokenKind::Punct && OPERATOR.contains(&text[start]) {
            if run.is_none() && assigns(text, start, &raws) {
                raws.push(Raw {
                    kind: RawKind::Operator,
                    start,
                    end,
                });
                continue;
            }
            match &mut run {
                Some(run) if run.end == start => run.end = end,
                _ => {
                    finish(&mut run, text, &mut raws);
                    run = Some(Raw {
                        kind: RawKind::Operator,
                        start,
                        end,
                    });
                }
            }
            continue;
        }
        finish(&mut run, text, &mut raws);
        let kind = match token.kind {
            TokenKind::Word => RawKind::Word(ident_value(text, start..end).into_owned()),
            TokenKind::QuotedIdent => RawKind::Quoted(ident_value(text, start..end).into_owned()),
            TokenKind::Param => RawKind::Param,
            TokenKind::Literal(hole) => RawKind::Literal(hole, holes[hole as usize].kind),
            TokenKind::Punct if b"()[],.;:".contains(&text[start]) => RawKind::Punct,
            TokenKind::Punct => return Err(format!("unexpected {:?}", char::from(text[start]))),
        };
        raws.push(Raw { kind, start, end });
    }
    finish(&mut run, text, &mut raws);
    Ok(raws)
}

/// Whether the `=` at `at` is that of `:=`, which ends with it; `::=` is `::` and an operator.
fn assigns(text: &[u8], at: usize, raws: &[Raw]) -> bool {
    if text[at] != b'=' || raws.last().is_none_or(|last| last.end != at) {
        return false;
    }
    let colons = text[..at].iter().rev().take_while(|b| **b == b':').count();
    colons % 2 == 1
}

/// Ends a run of operator bytes: a `+` or `-` at its end is an operator of its own, unless one of the bytes that may
/// precede it stands in the run (scan.l, `{operator}`).
fn finish(run: &mut Option<Raw>, text: &[u8], raws: &mut Vec<Raw>) {
    let Some(whole) = run.take() else { return };
    let bytes = &text[whole.start..whole.end];
    let mut len = bytes.len();
    if !bytes.iter().any(|b| b"~!@#^&|`?%".contains(b)) {
        while len > 1 && matches!(bytes[len - 1], b'+' | b'-') {
            len -= 1;
        }
    }
    let cut = whole.start + len;
    raws.push(Raw {
        kind: RawKind::Operator,
        start: whole.start,
        end: cut,
    });
    if cut < whole.end {
        let mut rest = Some(Raw {
            start: cut,
            ..whole
        });
        finish(&mut rest, text, raws);
    }
}

/// The bracket that closes the one at `open`.
pub(super) fn matching(text: &[u8], raws: &[Raw], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, raw) in raws.iter().enumerate().skip(open) {
        if raw.kind != RawKind::Punct {
            continue;
        }
        match text[raw.start] {
            b'(' | b'[' => depth += 1,
            b')' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::shape::Shape;

    fn pieces(text: &str) -> Vec<&str> {
        let mut shape = Shape::default();
        shape.scan(text.as_bytes()).expect("a shape");
        let raws = cut(text.as_bytes(), &shape.holes).expect("tokens");
        raws.iter().map(|raw| &text[raw.start..raw.end]).collect()
    }

    #[test]
    fn operators_as_postgres_cuts_them() {
        assert_eq!(pieces("a=-1"), ["a", "=", "-", "1"]);
        assert_eq!(pieces("a<--1\n"), ["a", "<"]);
        assert_eq!(pieces("a@-1"), ["a", "@-", "1"]);
        assert_eq!(pieces("a=@1"), ["a", "=@", "1"]);
        assert_eq!(pieces("a*-+-b"), ["a", "*", "-", "+", "-", "b"]);
        assert_eq!(pieces("a=/*x*/-1"), ["a", "=", "-", "1"]);
        assert_eq!(pieces("a->>'b'"), ["a", "->>", "'b'"]);
        assert_eq!(
            pieces("x::int[1:2]"),
            ["x", ":", ":", "int", "[", "1", ":", "2", "]"]
        );
        assert_eq!(pieces("f(a:=@b)"), ["f", "(", "a", ":", "=", "@", "b", ")"]);
        assert_eq!(pieces("a::=@b"), ["a", ":", ":", "=@", "b"]);
        assert_eq!(pieces("count(*)"), ["count", "(", "*", ")"]);
    }

    #[test]
    fn bytes_that_begin_no_token() {
        let mut shape = Shape::default();
        for text in ["SELECT {1}", "SELECT \\", "SELECT $"] {
            shape.scan(text.as_bytes()).expect("a shape");
            assert!(cut(text.as_bytes(), &shape.holes).is_err(), "{text}");
        }
    }
}
