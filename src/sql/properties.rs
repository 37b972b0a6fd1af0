//! What must hold for any text: seeded random statements out of pieces of SQL, and random bytes.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::control;
use super::hint;
use super::literal::literal_value;
use super::rewrite::{Edit, Pos, position_back, splice, spliced_len};
use super::shape::{Hole, HoleKind, Shape};
use super::token::{TokenKind, ident_value, tokens};

const PIECES: [&str; 76] = [
    "SELECT",
    "photos",
    "\"Photos\"",
    "\"a\"\"b\"",
    "U&\"d\\0061t\"",
    "'x'",
    "'it''s'",
    "''",
    "'a'\n'b'",
    "'a' -- c\n 'b'",
    "E'\\''",
    "e'a\\\\'",
    "N'x'",
    "n",
    "B'101'",
    "x'1F'",
    "U&'d\\0061'",
    "$$",
    "$t$",
    "$t$x$t$",
    "$$y$$",
    "$1",
    "$",
    "42",
    "1.5",
    "1.",
    ".5",
    "1e5",
    "1e",
    "0x1F",
    "1_000",
    "..",
    ".",
    "::",
    ":",
    "=",
    "-",
    "--",
    "-- c\n",
    "/*",
    "*/",
    "/* c */",
    "/* /* n */ */",
    "/",
    "*",
    "+",
    "@",
    "(",
    ")",
    "[",
    "]",
    ",",
    ";",
    " ",
    "\n",
    "\t",
    "'",
    "\"",
    "\\",
    "e",
    "E",
    "u&",
    "U&",
    "b",
    "a$b$",
    "\u{e9}",
    "_",
    "BEGIN",
    "ATOMIC",
    "END",
    "CREATE FUNCTION",
    "/* presplit: key=42 */",
    "presplit:",
    "SET",
    "\u{b}",
    "\r",
];

fn statement(random: &mut StdRng) -> Vec<u8> {
    let mut text = Vec::new();
    for _ in 0..random.random_range(0..20) {
        text.extend_from_slice(PIECES.choose(random).unwrap().as_bytes());
        if random.random_bool(0.4) {
            text.push(b' ');
        }
    }
    text
}

fn noise(random: &mut StdRng) -> Vec<u8> {
    let common = b"'\"$;-/*\\eEuU&bBxXnN01.() \n\xe9\x01";
    let len = random.random_range(0..40);
    (0..len)
        .map(|_| match random.random_bool(0.8) {
            true => *common.choose(random).unwrap(),
            false => random.random_range(1..=255),
        })
        .collect()
}

fn scan(text: &[u8]) -> Option<Shape> {
    let mut shape = Shape::default();
    shape.scan(text).ok().map(|()| shape)
}

/// Calls `check` with each of many random texts that have a shape; tells how many there were.
fn each(
    seed: u64,
    rounds: usize,
    make: fn(&mut StdRng) -> Vec<u8>,
    mut check: impl FnMut(&[u8], &Shape, &mut StdRng),
) -> usize {
    let mut random = StdRng::seed_from_u64(seed);
    let mut count = 0;
    for _ in 0..rounds {
        let text = make(&mut random);
        if let Some(shape) = scan(&text) {
            count += 1;
            check(&text, &shape, &mut random);
        }
    }
    count
}

fn holds(text: &[u8], shape: &Shape) {
    let mut rebuilt = Vec::new();
    let mut key = shape.key.iter();
    let mut at = 0;
    for hole in &shape.holes {
        assert!(
            at <= hole.start as usize && hole.start < hole.end && hole.end as usize <= text.len()
        );
        for b in &text[at..hole.start as usize] {
            assert_eq!(key.next(), Some(b));
            rebuilt.push(*b);
        }
        assert!(matches!(key.next(), Some(1..=6)));
        rebuilt.extend_from_slice(&text[hole.start as usize..hole.end as usize]);
        at = hole.end as usize;
    }
    assert_eq!(key.as_slice(), &text[at..]);
    rebuilt.extend_from_slice(key.as_slice());
    assert_eq!(rebuilt, text);

    for semicolon in &shape.semicolons {
        assert_eq!(text[*semicolon as usize], b';');
        assert!(
            shape
                .holes
                .iter()
                .all(|h| !(h.start..h.end).contains(semicolon))
        );
    }
    let mut at = 0;
    for piece in shape.pieces(text) {
        assert!(at <= piece.start && piece.start < piece.end && piece.end <= text.len());
        at = piece.end;
    }
    let mut at = 0;
    for token in tokens(text, &shape.holes) {
        assert!(
            at <= token.span.start
                && token.span.start < token.span.end
                && token.span.end <= text.len()
        );
        at = token.span.end;
        if let TokenKind::Word | TokenKind::QuotedIdent = token.kind {
            ident_value(text, token.span);
        }
    }
    for hole in &shape.holes {
        literal_value(text, hole);
    }
    let _ = hint::find(text, shape);
    let _ = control::parse(text, shape);
}

#[test]
fn a_shape_is_the_text_without_its_holes() {
    let good = each(1, 60_000, statement, |text, shape, _| holds(text, shape));
    assert!(good > 10_000, "{good}");
    let good = each(2, 60_000, noise, |text, shape, _| holds(text, shape));
    assert!(good > 10_000, "{good}");
}

#[test]
fn a_used_shape_is_as_good_as_a_new_one() {
    let mut used = Shape::default();
    each(3, 10_000, statement, |text, shape, _| {
        let _ = used.scan(b"SELECT \x01 'a; /* presplit: all */ ' -- presplit: all\n; x 'open");
        used.scan(text).unwrap();
        assert_eq!(format!("{used:?}"), format!("{shape:?}"));
    });
}

/// Before every word or quoted identifier, a schema; sometimes its replacement; in every string, a schema.
fn random_edits(text: &[u8], shape: &Shape, random: &mut StdRng) -> Vec<Edit> {
    let mut edits = Vec::new();
    for token in tokens(text, &shape.holes).filter(|_| random.random_bool(0.5)) {
        let pos = Pos::of(token.span.start, &shape.holes);
        assert_eq!(pos.at(&shape.holes), token.span.start);
        match token.kind {
            TokenKind::Word | TokenKind::QuotedIdent => edits.push(match token.span.len() {
                len if len % 2 == 0 => Edit::Replace(pos, len as u32),
                _ => Edit::Qualify(pos),
            }),
            TokenKind::Literal(n) => match shape.holes[n as usize].kind {
                HoleKind::String | HoleKind::EscapeString => edits.push(Edit::IntoString(n)),
                _ => {}
            },
            _ => {}
        }
    }
    edits
}

#[test]
fn spliced_texts_are_as_long_as_foretold_and_their_positions_go_back() {
    let schema = "\"sch\u{e9}'\\ma\"";
    let good = each(4, 40_000, statement, |text, shape, random| {
        let edits = random_edits(text, shape, random);
        let mut out = Vec::new();
        splice(text, &shape.holes, &edits, schema, &mut out);
        assert_eq!(out.len(), spliced_len(text, &shape.holes, &edits, schema));
        let original = String::from_utf8(text.to_vec()).unwrap();
        let spliced = String::from_utf8(out).unwrap();
        // Walking both texts: every position goes back to one that never runs backwards, and the ends meet.
        let mut last = 1;
        for pos in 1..=spliced.chars().count() as u32 + 1 {
            let back = position_back(pos, text, &shape.holes, &edits, schema);
            assert!(last <= back && back <= original.chars().count() as u32 + 1);
            last = back;
        }
        assert_eq!(last, original.chars().count() as u32 + 1);
    });
    assert!(good > 10_000, "{good}");
}

#[test]
fn a_spliced_text_has_the_same_holes() {
    let good = each(5, 40_000, statement, |text, shape, random| {
        // Plans edit names; behind a number or parameter there is none.
        let free = |at: usize| at == 0 || !text[at - 1].is_ascii_digit() && text[at - 1] != b'.';
        let mut edits = random_edits(text, shape, random);
        edits.retain(|edit| match edit {
            Edit::Qualify(pos) => free(pos.at(&shape.holes)),
            Edit::Replace(..) => false,
            Edit::IntoString(_) => true,
        });
        let mut out = Vec::new();
        splice(text, &shape.holes, &edits, "\"it's\\\"", &mut out);
        let again = scan(&out).unwrap();
        assert_eq!(shape.semicolons.len(), again.semicolons.len());
        assert_eq!(shape.holes.len(), again.holes.len());
        let kind = |h: &Hole| h.kind;
        assert!(
            shape
                .holes
                .iter()
                .map(kind)
                .eq(again.holes.iter().map(kind))
        );
        for (n, (before, after)) in shape.holes.iter().zip(&again.holes).enumerate() {
            let (old, new) = (literal_value(text, before), literal_value(&out, after));
            let (Some(old), Some(new)) = (old, new) else {
                continue;
            };
            match edits.contains(&Edit::IntoString(n as u32)) {
                true => assert_eq!(new.as_ref(), [&b"\"it's\\\"."[..], &old].concat()),
                false => assert_eq!(new, old),
            }
        }
    });
    assert!(good > 10_000, "{good}");
}

#[test]
fn texts_of_one_key_cut_at_the_same_places() {
    // Each literal and comment is exchanged for another of its kind: the shape must stay.
    let good = each(6, 40_000, statement, |text, shape, random| {
        let mut out = Vec::new();
        let mut at = 0;
        for hole in &shape.holes {
            out.extend_from_slice(&text[at..hole.start as usize]);
            at = hole.end as usize;
            let old = &text[hole.start as usize..at];
            let line_comment = old.starts_with(b"--");
            let others: &[&str] = match hole.kind {
                HoleKind::Number
                    if text
                        .get(at)
                        .is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.')) =>
                {
                    &[]
                }
                HoleKind::Number if old[0] == b'.' => &[".25"],
                HoleKind::Number => &["7", "0.25", "1e-3"],
                HoleKind::String if old[0] != b'\'' => &["N'q'", "n';'"],
                HoleKind::String => &["'q'", "'--'", "';'"],
                HoleKind::EscapeString => &["E'\\''", "E';'"],
                HoleKind::DollarString => &["$q$'$q$", "$$;$$"],
                HoleKind::OtherString if out.last().is_some_and(u8::is_ascii_alphanumeric) => &[],
                HoleKind::OtherString => &["B'0'", "X'F'"],
                HoleKind::Comment if line_comment => &["-- ;'", "--"],
                HoleKind::Comment => &["/* ' */", "/**/"],
            };
            match others.choose(random) {
                Some(other) => out.extend_from_slice(other.as_bytes()),
                None => out.extend_from_slice(old),
            }
        }
        out.extend_from_slice(&text[at..]);
        let again = scan(&out).unwrap();
        assert_eq!(
            again.key,
            shape.key,
            "{:?} {:?}",
            String::from_utf8_lossy(text),
            String::from_utf8_lossy(&out)
        );
        assert_eq!(again.semicolons.len(), shape.semicolons.len());
    });
    assert!(good > 10_000, "{good}");
}
