//! Values of every type: as literal, as text and as binary parameter.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::tables::{CODES, KEYS};

/// What a column holds. `Key` and `Id` are int8 with a meaning, `Stars` int2 with few values, `Country` char(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Key,
    Id,
    Int2,
    Stars,
    Int4,
    Int8,
    Numeric,
    Float8,
    Text,
    Country,
    Bool,
    Date,
    Timestamptz,
    Uuid,
    Bytea,
    Jsonb,
    Texts,
    Int8s,
}

/// A value, as Postgres writes its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    Null,
    Scalar(String),
    Array(Vec<Option<String>>),
}

/// A value that stands in a statement, as literal or parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub of: Type,
    pub form: Form,
}

const WORDS: [&str; 14] = [
    "",
    "sea",
    "home",
    "Home",
    "it's",
    "50%",
    "a_b",
    "back\\slash",
    "zoë",
    "日本",
    "new york",
    "x",
    "-- no",
    "$1 ?",
];

/// 2000-01-01 as a count of days since 1970-01-01.
const DAY_2000: i64 = 10_957;

impl Type {
    pub fn sql(self) -> &'static str {
        match self {
            Type::Key | Type::Id | Type::Int8 => "bigint",
            Type::Int2 | Type::Stars => "smallint",
            Type::Int4 => "integer",
            Type::Numeric => "numeric",
            Type::Float8 => "double precision",
            Type::Text => "text",
            Type::Country => "char(2)",
            Type::Bool => "boolean",
            Type::Date => "date",
            Type::Timestamptz => "timestamptz",
            Type::Uuid => "uuid",
            Type::Bytea => "bytea",
            Type::Jsonb => "jsonb",
            Type::Texts => "text[]",
            Type::Int8s => "bigint[]",
        }
    }

    pub fn oid(self) -> u32 {
        match self {
            Type::Key | Type::Id | Type::Int8 => 20,
            Type::Int2 | Type::Stars => 21,
            Type::Int4 => 23,
            Type::Numeric => 1700,
            Type::Float8 => 701,
            Type::Text => 25,
            Type::Country => 1042,
            Type::Bool => 16,
            Type::Date => 1082,
            Type::Timestamptz => 1184,
            Type::Uuid => 2950,
            Type::Bytea => 17,
            Type::Jsonb => 3802,
            Type::Texts => 1009,
            Type::Int8s => 1016,
        }
    }

    pub fn is_number(self) -> bool {
        matches!(
            self,
            Type::Int2 | Type::Stars | Type::Int4 | Type::Int8 | Type::Numeric | Type::Float8
        )
    }

    fn element(self) -> Type {
        match self {
            Type::Texts => Type::Text,
            Type::Int8s => Type::Int8,
            other => other,
        }
    }

    /// A value, never NULL. Few different ones, so that comparisons find rows; an `Id` is the caller's to make.
    pub fn random(self, rng: &mut StdRng) -> Value {
        let text = match self {
            Type::Key => KEYS.choose(rng).unwrap().to_string(),
            Type::Id | Type::Int8 => rng.random_range(-3..30i64).to_string(),
            Type::Int2 => (rng.random_range(0..12) * 10).to_string(),
            Type::Stars => rng.random_range(0..6).to_string(),
            Type::Int4 => rng.random_range(-5..40).to_string(),
            Type::Numeric => format!(
                "{}.{:02}",
                rng.random_range(-9..60),
                rng.random_range(0..4) * 25
            ),
            Type::Float8 => (f64::from(rng.random_range(-40..400)) / 8.0).to_string(),
            Type::Text => (*WORDS.choose(rng).unwrap()).to_owned(),
            Type::Country => (*CODES[..5].choose(rng).unwrap()).to_owned(),
            Type::Bool => rng.random_bool(0.5).to_string(),
            Type::Date => date(rng),
            Type::Timestamptz => format!("{} {:02}:30:15+00", date(rng), rng.random_range(0..24)),
            Type::Uuid => format!(
                "00000000-0000-4000-8000-0000000000{:02x}",
                rng.random_range(0..40)
            ),
            Type::Bytea => {
                let bytes: Vec<String> = (0..rng.random_range(0..4))
                    .map(|i| format!("{:02x}", i * 77))
                    .collect();
                format!("\\x{}", bytes.concat())
            }
            Type::Jsonb => match rng.random_range(0..5) {
                0 => "{}".to_owned(),
                1 => format!("{{\"a\": {}}}", rng.random_range(0..5)),
                2 => format!("{{\"a\": {}, \"b\": \"it's\"}}", rng.random_range(0..5)),
                3 => format!("[1, {}, null]", rng.random_range(0..5)),
                _ => format!("{{\"a\": {{\"c\": {}}}}}", rng.random_bool(0.5)),
            },
            Type::Texts | Type::Int8s => {
                let n = rng.random_range(0..4);
                let one = |rng: &mut StdRng| match self.element().random(rng).form {
                    Form::Scalar(text) if rng.random_bool(0.9) => Some(text),
                    _ => None,
                };
                return Value {
                    of: self,
                    form: Form::Array((0..n).map(|_| one(rng)).collect()),
                };
            }
        };
        Value::new(self, text)
    }
}

fn date(rng: &mut StdRng) -> String {
    format!(
        "{}-{:02}-{:02}",
        rng.random_range(1999..2026),
        rng.random_range(1..13),
        rng.random_range(1..29)
    )
}

impl Value {
    pub fn new(of: Type, text: impl ToString) -> Value {
        Value {
            of,
            form: Form::Scalar(text.to_string()),
        }
    }

    pub fn null(of: Type) -> Value {
        Value {
            of,
            form: Form::Null,
        }
    }

    pub fn array(of: Type, elements: impl IntoIterator<Item = i64>) -> Value {
        let elements = elements.into_iter().map(|e| Some(e.to_string())).collect();
        Value {
            of,
            form: Form::Array(elements),
        }
    }

    /// As parameter in text format; `None`: NULL.
    pub fn text(&self) -> Option<String> {
        match &self.form {
            Form::Null => None,
            Form::Scalar(text) => Some(text.clone()),
            Form::Array(elements) => {
                let element = |e: &Option<String>| match e {
                    None => "NULL".to_owned(),
                    Some(e) => format!("\"{}\"", e.replace('\\', "\\\\").replace('"', "\\\"")),
                };
                let elements: Vec<String> = elements.iter().map(element).collect();
                Some(format!("{{{}}}", elements.join(",")))
            }
        }
    }

    /// As parameter in binary format; `None`: NULL.
    pub fn binary(&self) -> Option<Vec<u8>> {
        match &self.form {
            Form::Null => None,
            Form::Scalar(text) => Some(binary(self.of, text)),
            Form::Array(elements) => {
                let mut out = Vec::new();
                let of = self.of.element();
                let has_null = elements.iter().any(Option::is_none);
                out.extend(i32::from(!elements.is_empty()).to_be_bytes());
                out.extend(i32::from(has_null).to_be_bytes());
                out.extend(of.oid().to_be_bytes());
                if !elements.is_empty() {
                    out.extend((elements.len() as i32).to_be_bytes());
                    out.extend(1i32.to_be_bytes());
                }
                for element in elements {
                    match element {
                        None => out.extend((-1i32).to_be_bytes()),
                        Some(text) => {
                            let bytes = binary(of, text);
                            out.extend((bytes.len() as i32).to_be_bytes());
                            out.extend(bytes);
                        }
                    }
                }
                Some(out)
            }
        }
    }

    /// As literal, in one of the forms that apps and ORMs write. Always of one type, as a constant of the form `1` is.
    pub fn literal(&self, rng: &mut StdRng) -> String {
        let Some(text) = self.text() else {
            return match rng.random_bool(0.7) {
                true => "NULL".to_owned(),
                false => format!("NULL::{}", self.of.sql()),
            };
        };
        match self.of {
            Type::Key | Type::Id | Type::Int2 | Type::Stars | Type::Int4 | Type::Int8 => {
                match rng.random_range(0..24) {
                    0..18 => text,
                    18 => format!("'{text}'"),
                    19 => format!("'{text}'::bigint"),
                    20 => format!("CAST({text} AS bigint)"),
                    21 => format!("({text})"),
                    22 => format!("{text}::bigint"),
                    _ => format!("bigint '{text}'"),
                }
            }
            Type::Numeric => text,
            Type::Float8 => format!("'{text}'::float8"),
            Type::Bool => text,
            Type::Text => match (rng.random_range(0..8), text.contains('\\')) {
                (0, _) => format!("$q${text}$q$"),
                (1, false) => format!("E'{}'", text.replace('\'', "\\'")),
                (2, _) => format!("{}::text", quote(&text)),
                _ => quote(&text),
            },
            Type::Country => quote(&text),
            Type::Texts | Type::Int8s => format!("{}::{}", quote(&text), self.of.sql()),
            Type::Date | Type::Timestamptz | Type::Uuid | Type::Bytea | Type::Jsonb => {
                match rng.random_bool(0.5) {
                    true => quote(&text),
                    false => format!("{}::{}", quote(&text), self.of.sql()),
                }
            }
        }
    }
}

pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn binary(of: Type, text: &str) -> Vec<u8> {
    match of {
        Type::Key | Type::Id | Type::Int8 => text.parse::<i64>().unwrap().to_be_bytes().to_vec(),
        Type::Int2 | Type::Stars => text.parse::<i16>().unwrap().to_be_bytes().to_vec(),
        Type::Int4 => text.parse::<i32>().unwrap().to_be_bytes().to_vec(),
        Type::Float8 => text.parse::<f64>().unwrap().to_be_bytes().to_vec(),
        Type::Numeric => numeric(text),
        Type::Text | Type::Country => text.as_bytes().to_vec(),
        Type::Bool => vec![u8::from(text == "true")],
        Type::Date => ((days(text) - DAY_2000) as i32).to_be_bytes().to_vec(),
        Type::Timestamptz => {
            let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
            let seconds = number(11..13) * 3600 + number(14..16) * 60 + number(17..19);
            (((days(text) - DAY_2000) * 86_400 + seconds) * 1_000_000)
                .to_be_bytes()
                .to_vec()
        }
        Type::Uuid => hex(&text.replace('-', "")),
        Type::Bytea => hex(&text[2..]),
        Type::Jsonb => [b"\x01", text.as_bytes()].concat(),
        Type::Texts | Type::Int8s => unreachable!("an array is made of its elements"),
    }
}

fn hex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Days since 1970-01-01 of a date `YYYY-MM-DD`, in the Gregorian calendar.
fn days(text: &str) -> i64 {
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let (y, m, d) = (number(0..4), number(5..7), number(8..10));
    // Years that begin in March end with the leap day.
    let (y, m) = if m > 2 { (y, m - 3) } else { (y - 1, m + 9) };
    y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + d - 1 - 719_468
}

/// Numerics of two places, or none, below 10000.
fn numeric(text: &str) -> Vec<u8> {
    let negative = text.starts_with('-');
    let (whole, fraction) = text
        .trim_start_matches('-')
        .split_once('.')
        .unwrap_or((text.trim_start_matches('-'), ""));
    let whole: i16 = whole.parse().unwrap();
    let places = fraction.len() as i16;
    let fraction: i16 = format!("{fraction:0<4}").parse().unwrap();
    let mut digits = vec![whole, fraction];
    let mut weight = 0i16;
    if whole == 0 {
        digits.remove(0);
        weight = -1;
    }
    while digits.last() == Some(&0) {
        digits.pop();
    }
    if digits.is_empty() {
        weight = 0;
    }
    let sign: u16 = if negative && !digits.is_empty() {
        0x4000
    } else {
        0
    };
    let mut out = Vec::new();
    out.extend((digits.len() as i16).to_be_bytes());
    out.extend(weight.to_be_bytes());
    out.extend(sign.to_be_bytes());
    out.extend(places.to_be_bytes());
    out.extend(digits.iter().flat_map(|d| d.to_be_bytes()));
    out
}
