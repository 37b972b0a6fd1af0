//! Seeded mutations of statements, for tests: bytes and tokens deleted, doubled, swapped and put in where a scanner may
//! stumble, and literals exchanged for others.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::shape::{Hole, HoleKind, Shape};

/// What Postgres' lexical rules are particular about.
const PIECES: &[&str] = &[
    "'",
    "''",
    "\"",
    "\"\"",
    "\\",
    "\\'",
    "\\\\",
    "E'",
    "e'\\''",
    "E'\\\\'",
    "E'\\x41'",
    "E'\\101'",
    "E'\\u0041'",
    "E'\\ud83d\\ude00'",
    "E'\\n'",
    "N'x'",
    "n'",
    "B'101'",
    "b'",
    "X'1f'",
    "x'",
    "U&'d\\0061'",
    "u&'",
    "U&\"d\\0061\"",
    "U&\"",
    "U&",
    "UESCAPE '!'",
    "U&'d!0061' UESCAPE '!'",
    "$$",
    "$",
    "$a$",
    "$a$x$a$",
    "$$;$$",
    "$1",
    "$12",
    "$1a",
    "$\u{e9}$",
    "$1$",
    "a$1",
    "$a",
    "--",
    "-- x",
    "-- x\n",
    "--'\n",
    "/*",
    "*/",
    "/**/",
    "/* x */",
    "/*/* x */*/",
    "/*'*/",
    "/*;*/",
    "//",
    "-",
    "- -",
    "-/**/-",
    "+-",
    "<-",
    "*-",
    "@-",
    "@",
    "->>",
    "=-1",
    "=--1\n",
    "*/*",
    "/",
    "1",
    "0",
    "42",
    "1.",
    ".5",
    "1.5",
    "1e5",
    "1e",
    "1e+",
    "1E-3",
    "1.e1",
    "1..2",
    "0x1F",
    "0x",
    "0b11",
    "0o17",
    "0o8",
    "1_000",
    "1__0",
    "1_",
    "_1",
    "0x_1",
    "1a",
    "1.5a",
    "1e5x",
    "00",
    "9223372036854775808",
    "..",
    ".",
    "::",
    ":=",
    "=>",
    ":",
    "(",
    ")",
    "[",
    "]",
    ",",
    ";",
    ";;",
    "; ",
    "<>",
    "!=",
    "||",
    "?",
    "#",
    "^",
    "~",
    "`",
    "%",
    "&",
    "{",
    "}",
    " ",
    "\n",
    "\t",
    "\r",
    "\x0c",
    "\x0b",
    "\u{e9}",
    "\u{a0}",
    "\u{1f600}",
    "\x7f",
    "\x01",
    "\x06",
    "e",
    "E",
    "n",
    "b",
    "x",
    "u",
    "u&",
    "_",
    "a",
    "a1",
    "select",
    "BEGIN ATOMIC",
    "CREATE FUNCTION f()",
    "END",
    "'a'\n'b'",
    "'a' -- c\n 'b'",
    "'a' 'b'",
    "'a'\r'b'",
    "E'a'\n'b\\''",
    "U&'a'\n'b'",
    "B'1'\n'0'",
    "$a$\n$a$",
    "'a'/*\n*/'b'",
];

/// Statements mutated at random, always the same ones for a seed.
pub(crate) struct Mutations<'c> {
    corpus: &'c [String],
    random: StdRng,
}

impl<'c> Mutations<'c> {
    pub(crate) fn new(corpus: &'c [String], seed: u64) -> Self {
        Mutations {
            corpus,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// The next text: one statement of the corpus, or two, changed in one to `most` places. Never holds NUL.
    pub(crate) fn text(&mut self, most: usize) -> String {
        let mut text = self.statement().to_owned();
        if self.random.random_bool(0.1) {
            let more = self.statement();
            text = format!("{text};{more}");
        }
        for _ in 0..self.random.random_range(1..=most) {
            self.change(&mut text);
        }
        text
    }

    fn statement(&mut self) -> &'c str {
        self.corpus.choose(&mut self.random).map_or("", |s| s)
    }

    fn change(&mut self, text: &mut String) {
        let (from, to) = (self.place(text), self.place(text));
        // Short pieces mostly: long ones are changed beyond recognition.
        let (from, to) = (from.min(to), from.max(to));
        let to = match self.random.random_bool(0.8) {
            true => ceil(text, to.min(from + 6)),
            false => to,
        };
        match self.random.random_range(0..9) {
            0 => text.replace_range(from..to, ""),
            1 => text.insert_str(to, &text.clone()[from..to]),
            2 => {
                let moved = text[from..to].to_owned();
                text.replace_range(from..to, "");
                let at = self.place(text);
                text.insert_str(at, &moved);
            }
            3 => text.truncate(to),
            _ => {
                let piece = PIECES.choose(&mut self.random).copied().unwrap_or_default();
                text.insert_str(from, piece);
            }
        }
        let end = ceil(text, text.len().min(4000));
        text.truncate(end);
    }

    /// A place in the text, by preference where a token begins or ends.
    fn place(&mut self, text: &str) -> usize {
        let at = ceil(text, self.random.random_range(0..=text.len()));
        if self.random.random_bool(0.5) {
            return at;
        }
        let is_end = |b: u8| !b.is_ascii_alphanumeric() && b < 0x80;
        let next = text.as_bytes()[at..].iter().position(|b| is_end(*b));
        next.map_or(at, |n| at + n)
    }

    /// The text with literals and comments exchanged for others of their kinds, of other values, lengths and quoting.
    /// The result need not have the same shape: that is for the caller to see.
    pub(crate) fn other_literals(&mut self, text: &str, holes: &[Hole]) -> String {
        let mut out = String::new();
        let mut at = 0;
        for hole in holes {
            out.push_str(&text[at..hole.start as usize]);
            at = hole.end as usize;
            let old = &text[hole.start as usize..at];
            match self.random.random_bool(0.7) {
                true => out.push_str(&self.other(old, hole.kind)),
                false => out.push_str(old),
            }
        }
        out.push_str(&text[at..]);
        out
    }

    fn other(&mut self, old: &str, kind: HoleKind) -> String {
        const NUMBERS: &[&str] = &[
            "0",
            "1",
            "2",
            "3",
            "9",
            "17",
            "4096",
            "65536",
            "2147483648",
            "9223372036854775807",
            "9223372036854775808",
            "99999999999999999999999",
            "1.0",
            "1.",
            ".5",
            "2.50",
            "1e3",
            "1E-3",
            "0x1F",
            "0b101",
            "0o17",
            "1_000",
        ];
        const STRINGS: &[&str] = &[
            "",
            " ",
            "1",
            "42",
            " 7 ",
            "x",
            "it''s",
            "--",
            "/*",
            ";",
            "\"",
            "\\",
            "$$",
            "\u{e9}",
            "a\nb",
            "{1,2}",
            "{}",
            "{17}",
            "t",
            "photos",
            "photos_id_seq",
            "public.photos",
            "users",
            "shard_0001.photos",
            "00000000-0000-0000-0000-000000000001",
            "NULL",
            "1 day",
            "2024-01-01",
            "a''b'\n'c",
            "a' -- x\n'b",
            "{\"a\":1}",
            "presplit: key=1",
        ];
        let number = NUMBERS.choose(&mut self.random).copied().unwrap_or("0");
        let string = STRINGS.choose(&mut self.random).copied().unwrap_or("");
        match kind {
            HoleKind::Number => number.to_owned(),
            HoleKind::String if old.starts_with(['n', 'N']) => format!("N'{string}'"),
            HoleKind::String => format!("'{string}'"),
            HoleKind::EscapeString => match self.random.random_range(0..4) {
                0 => format!("E'{}'", string.replace('\\', "\\\\")),
                1 => "e'\\''".to_owned(),
                2 => "E'\\x31\\062'".to_owned(),
                _ => "E'\\u0031\\\\'".to_owned(),
            },
            HoleKind::DollarString => match self.random.random_bool(0.5) {
                true => format!("$q${string}$q$"),
                false => "$$'$$".to_owned(),
            },
            HoleKind::OtherString => {
                let others = ["B'0'", "x'fF'", "U&'d\\0061'", "u&'1'", "U&'photos'", "B''"];
                others
                    .choose(&mut self.random)
                    .copied()
                    .unwrap_or("B''")
                    .to_owned()
            }
            HoleKind::Comment if old.starts_with("--") => {
                format!("--{}", string.replace('\n', " "))
            }
            HoleKind::Comment => format!("/*{}*/", string.replace("/*", "/**/")),
        }
    }
}

/// The next place between characters, from `at` on.
fn ceil(text: &str, at: usize) -> usize {
    (at..).find(|at| text.is_char_boundary(*at)).unwrap_or(at)
}

/// The statements to start from: those of ORMs, with their comments, and some that show what the scanner is for.
pub(crate) fn corpus() -> Vec<String> {
    const MORE: &[&str] = &[
        "SELECT 'a' 'b', E'it\\'s', U&'d\\0061t\\+000061', U&\"d\\0061\" FROM photos WHERE user_id = -1",
        "SELECT $$a'b$$, $q$x$$y$q$, $1, a$b, 1.5e-3, .5, 1., 0x1F, 1_000 FROM photos WHERE user_id=$1::bigint",
        "SELECT /* a /* nested */ comment */ 1 -- and 'one' more\n FROM \"Photo\" p WHERE p.\"userId\"=5--6",
        "SELECT N'x', B'101', X'1F', 'a' -- b\n 'c', e'\\\\' FROM photos WHERE user_id IN (1,-2,+3) AND id<>ALL('{1}')",
        "INSERT INTO photos (user_id, caption) VALUES (5, 'it''s'), (5, E'\\n') ON CONFLICT DO NOTHING; SELECT 1;",
        "CREATE FUNCTION f() RETURNS int LANGUAGE SQL BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT 3",
        "UPDATE photos SET caption = caption || 'x', data = data - 'a' WHERE user_id = 7 AND id = ANY('{1,2}'::bigint[])",
        "SELECT nextval('photos_id_seq'), 'photos'::regclass, currval('users_id_seq') FROM users WHERE id = 3",
        "DELETE FROM photos WHERE user_id = '5' AND caption = 'photos' AND created_at > now() - interval '1 day'",
    ];
    let file = include_str!("../../tests/fixtures/orm.sql");
    let mut shape = Shape::default();
    shape.scan(file.as_bytes()).expect("a fixture that ends");
    let pieces = shape
        .pieces(file.as_bytes())
        .map(|piece| file[piece].to_owned());
    pieces.chain(MORE.iter().map(|s| (*s).to_owned())).collect()
}
