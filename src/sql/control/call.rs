//! `EXECUTE name (arguments)` read as far as it can be: which of its arguments are plain values, and of which types Postgres
//! would make the same value of the parameter's own type out of their text.

use std::borrow::Cow;
use std::ops::Range;

use super::reader::Reader;
use super::statement::{explain_options, optional_list};
use crate::sql::literal::literal_value;
use crate::sql::shape::{HoleKind, Shape};
use crate::sql::token::{Token, TokenKind};

/// Type OIDs of Postgres' catalog (pg_type.dat).
mod oid {
    pub(super) const BOOL: u32 = 16;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const INT4: u32 = 23;
    pub(super) const TEXT: u32 = 25;
    pub(super) const FLOAT4: u32 = 700;
    pub(super) const FLOAT8: u32 = 701;
    pub(super) const VARCHAR: u32 = 1043;
    pub(super) const NUMERIC: u32 = 1700;
}

/// Names of types that an argument may be cast to, without a modifier (which would cut or round it).
const TYPES: &[(&[&str], u32)] = &[
    (&["bool"], oid::BOOL),
    (&["boolean"], oid::BOOL),
    (&["int8"], oid::INT8),
    (&["bigint"], oid::INT8),
    (&["int2"], oid::INT2),
    (&["smallint"], oid::INT2),
    (&["int4"], oid::INT4),
    (&["int"], oid::INT4),
    (&["integer"], oid::INT4),
    (&["text"], oid::TEXT),
    (&["float4"], oid::FLOAT4),
    (&["real"], oid::FLOAT4),
    (&["float8"], oid::FLOAT8),
    (&["double", "precision"], oid::FLOAT8),
    (&["varchar"], oid::VARCHAR),
    (&["character", "varying"], oid::VARCHAR),
    (&["numeric"], oid::NUMERIC),
    (&["decimal"], oid::NUMERIC),
    (&["date"], 1082),
    (&["timestamp"], 1114),
    (&["timestamp", "without", "time", "zone"], 1114),
    (&["timestamptz"], 1184),
    (&["timestamp", "with", "time", "zone"], 1184),
    (&["interval"], 1186),
    (&["uuid"], 2950),
    (&["json"], 114),
    (&["jsonb"], 3802),
    (&["bytea"], 17),
];

/// What an `EXECUTE` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<'t> {
    /// The bytes of the prepared statement's name.
    pub name: Range<usize>,
    /// Its arguments in order.
    pub args: Vec<Argument<'t>>,
    /// An argument calls a function, or names an object, that could mean something else than on one Postgres.
    pub calls: Option<String>,
}

/// An argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument<'t> {
    /// `NULL`.
    Null,
    /// A literal.
    Value {
        /// What it stands for; of numbers with their sign.
        text: Cow<'t, [u8]>,
        /// What kind of literal it is.
        kind: Kind,
        /// The type that it is cast to.
        cast: Option<u32>,
    },
    /// Anything else.
    Expression,
}

/// What kind of literal an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Digits only.
    Integer,
    /// A number with a fraction or exponent.
    Decimal,
    /// A string, of no type yet.
    String,
    /// `true`, `false`.
    Bool,
}

/// Reads a text that [`super::parse`] takes for a [`super::Control::Execute`].
pub fn call<'t>(text: &'t [u8], shape: &'t Shape) -> Option<Call<'t>> {
    let mut r = Reader::new(text, shape);
    let first = r.first_word()?;
    if first.eq_ignore_ascii_case(b"explain") {
        explain_options(&mut r)?;
        r.word("execute").then_some(())?;
    }
    let name = r.peek()?.span;
    r.col_id()?;
    let list = optional_list(&mut r)?;
    let items: Vec<Vec<Token>> = list.map(|list| r.items(list).collect()).unwrap_or_default();
    let calls = items.iter().find_map(|item| function(text, item));
    let read = |item: &Vec<Token>| argument(text, shape, item).unwrap_or(Argument::Expression);
    Some(Call {
        name,
        args: items.iter().map(read).collect(),
        calls,
    })
}

/// Words before a parenthesis that are no functions, or functions that depend on nothing and change nothing.
const HARMLESS: &[&str] = &[
    "abs",
    "and",
    "array",
    "cast",
    "char",
    "character",
    "coalesce",
    "concat",
    "decimal",
    "greatest",
    "in",
    "interval",
    "least",
    "length",
    "lower",
    "md5",
    "not",
    "now",
    "nullif",
    "numeric",
    "or",
    "random",
    "row",
    "time",
    "timestamp",
    "timestamptz",
    "trim",
    "upper",
    "varchar",
    "varying",
];

/// The function that an argument calls, or the type of object names that it is cast to.
fn function(text: &[u8], item: &[Token]) -> Option<String> {
    let word = |t: &Token| String::from_utf8_lossy(&text[t.span.clone()]).to_lowercase();
    let is_name = |t: &Token| matches!(t.kind, TokenKind::Word | TokenKind::QuotedIdent);
    item.iter().enumerate().find_map(|(at, token)| {
        let name = Some(word(token)).filter(|_| is_name(token))?;
        let is_call = item.get(at + 1).is_some_and(|t| t.is_punct(text, b'('));
        let of_object = name.trim_matches('"').starts_with("reg");
        (of_object || is_call && !HARMLESS.contains(&&*name)).then_some(name)
    })
}

/// A literal with its sign and casts; `None`: it is something else.
fn argument<'t>(text: &'t [u8], shape: &'t Shape, item: &[Token]) -> Option<Argument<'t>> {
    let (mut rest, mut cast) = (item, None);
    // `CAST (value AS type)`
    if let [first, open, inner @ .., close] = item
        && first.is_word(text, "cast")
        && open.is_punct(text, b'(')
        && close.is_punct(text, b')')
    {
        let at = inner.iter().position(|t| t.is_word(text, "as"))?;
        cast = Some(type_named(text, &inner[at + 1..])?);
        rest = &inner[..at];
    } else if let [of_type @ .., value] = item
        && let Some(named) = type_named(text, of_type)
        && matches!(value.kind, TokenKind::Literal(hole) if shape.holes[hole as usize].kind != HoleKind::Number)
    {
        // `type 'value'`
        cast = Some(named);
        rest = std::slice::from_ref(value);
    } else if let Some(at) = item
        .windows(2)
        .position(|two| two.iter().all(|t| t.is_punct(text, b':')))
    {
        // `value::type`; of two casts the value may change in between.
        cast = Some(type_named(text, &item[at + 2..])?);
        rest = &item[..at];
    }
    let (mut minus, mut signed) = (false, false);
    while let [sign, more @ ..] = rest
        && (sign.is_punct(text, b'-') || sign.is_punct(text, b'+'))
    {
        minus ^= sign.is_punct(text, b'-');
        signed = true;
        rest = more;
    }
    let [token] = rest else { return None };
    if token.kind == TokenKind::Word && !signed {
        if token.is_word(text, "null") {
            return Some(Argument::Null);
        }
        let value = ["true", "false"]
            .into_iter()
            .find(|v| token.is_word(text, v))?;
        return Some(Argument::Value {
            text: value.as_bytes().into(),
            kind: Kind::Bool,
            cast,
        });
    }
    let TokenKind::Literal(hole) = token.kind else {
        return None;
    };
    let hole = &shape.holes[hole as usize];
    let value = literal_value(text, hole)?;
    if hole.kind != HoleKind::Number {
        // `N'...'` is of type bpchar; a sign makes a number of a string in its own way.
        let national = matches!(text[hole.start as usize], b'n' | b'N');
        return (!signed && !national).then_some(Argument::Value {
            text: value,
            kind: Kind::String,
            cast,
        });
    }
    let digits = value.iter().all(u8::is_ascii_digit);
    let mut number = match digits {
        // As Postgres says it again.
        true => {
            let zeros = value.iter().take_while(|b| **b == b'0').count();
            value[zeros.min(value.len() - 1)..].to_vec()
        }
        false => value.into_owned(),
    };
    if minus && number != b"0" {
        number.insert(0, b'-');
    }
    Some(Argument::Value {
        text: number.into(),
        kind: if digits { Kind::Integer } else { Kind::Decimal },
        cast,
    })
}

/// The OID of a type by these words.
fn type_named(text: &[u8], words: &[Token]) -> Option<u32> {
    let is = |name: &&(&[&str], u32)| {
        name.0.len() == words.len()
            && words
                .iter()
                .zip(name.0)
                .all(|(t, word)| t.is_word(text, word))
    };
    TYPES.iter().find(is).map(|(_, oid)| *oid)
}

impl Argument<'_> {
    /// The text of which the input function of type `of` makes the very value that Postgres gives to a parameter of this
    /// type: inside, `None` for NULL. Outside, `None`: that is not certain.
    pub fn text_for(&self, of: u32) -> Option<Option<&[u8]>> {
        const INTEGERS: [u32; 3] = [oid::INT2, oid::INT4, oid::INT8];
        let (text, kind, cast) = match self {
            Argument::Null => return Some(None),
            Argument::Expression => return None,
            Argument::Value { text, kind, cast } => (&**text, *kind, *cast),
        };
        let fits = |cast: u32| match std::str::from_utf8(text)
            .ok()
            .and_then(|t| t.parse::<i64>().ok())
        {
            Some(n) if cast == oid::INT2 => i16::try_from(n).is_ok(),
            Some(n) if cast == oid::INT4 => i32::try_from(n).is_ok(),
            Some(_) => cast == oid::INT8,
            None => false,
        };
        let sure = match (kind, cast) {
            // Of the parameter's own type from the beginning.
            (Kind::String, None) => true,
            (Kind::String, Some(cast)) if cast == of => true,
            (Kind::Bool, None | Some(oid::BOOL)) => of == oid::BOOL,
            // Digits that are a number of this type: then it makes no difference which integer type it was.
            (Kind::Integer | Kind::String, Some(cast)) if INTEGERS.contains(&cast) => {
                INTEGERS.contains(&of) && fits(cast)
            }
            (Kind::Integer, None) => {
                INTEGERS.contains(&of)
                    || [oid::NUMERIC, oid::FLOAT4, oid::FLOAT8].contains(&of)
                    || [oid::TEXT, oid::VARCHAR].contains(&of)
            }
            (Kind::Integer | Kind::Decimal, Some(oid::NUMERIC)) | (Kind::Decimal, None) => {
                [oid::NUMERIC, oid::FLOAT4, oid::FLOAT8].contains(&of)
            }
            _ => false,
        };
        sure.then_some(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, Vec<Argument<'static>>, Option<String>) {
        let text = text.to_owned().leak().as_bytes();
        let mut shape = Shape::default();
        shape.scan(text).unwrap();
        let shape = Box::leak(Box::new(shape));
        let call = call(text, shape).unwrap();
        let name = String::from_utf8_lossy(&text[call.name]).into_owned();
        (name, call.args, call.calls)
    }

    fn texts(args: &str, of: u32) -> Vec<Option<Option<String>>> {
        let (_, args, _) = read(&format!("EXECUTE x ({args})"));
        let text = |a: &Argument<'_>| {
            let text = a.text_for(of)?;
            Some(text.map(|t| String::from_utf8_lossy(t).into_owned()))
        };
        args.iter().map(text).collect()
    }

    fn some(text: &str) -> Option<Option<String>> {
        Some(Some(text.to_owned()))
    }

    #[test]
    fn names_and_numbers_of_arguments() {
        assert_eq!(read("EXECUTE a").1, []);
        let (name, args, _) =
            read("/* x */ EXPLAIN (ANALYZE, COSTS off) EXECUTE \"A b\" (1, f(2, 3), ARRAY[4, 5]);");
        assert_eq!((name.as_str(), args.len()), ("\"A b\"", 3));
        assert_eq!(args[1], Argument::Expression);
        assert_eq!(read("explain analyze verbose execute q(';')").0, "q");
    }

    #[test]
    fn plain_arguments() {
        assert_eq!(
            texts("1, -2, - - 3, +4, 007, 0x10, -0, 1_0", oid::INT8),
            ["1", "-2", "3", "4", "7", "16", "0", "10"].map(some)
        );
        assert_eq!(
            texts(
                "'5', '5'::int8, 5::bigint, CAST(5 AS int), int8 '5', ' 5 '",
                oid::INT8
            ),
            ["5", "5", "5", "5", "5", " 5 "].map(some)
        );
        assert_eq!(
            texts("NULL, null::int, CAST(NULL AS text)", oid::INT8),
            [Some(None), Some(None), Some(None)]
        );
        assert_eq!(
            texts("true, FALSE, 't'", oid::BOOL),
            ["true", "false", "t"].map(some)
        );
        assert_eq!(
            texts("'a''b', E'\\n', $$x$$, 7", oid::TEXT),
            ["a'b", "\n", "x", "7"].map(some)
        );
        assert_eq!(
            texts("1.50, 1e3, 2", oid::NUMERIC),
            ["1.50", "1e3", "2"].map(some)
        );
        assert_eq!(
            texts("'2024-01-01'::date, date '2024-01-01'", 1082),
            ["2024-01-01", "2024-01-01"].map(some)
        );
        assert_eq!(
            texts("'2024-01-01 1:00'::timestamp with time zone", 1184),
            [some("2024-01-01 1:00")]
        );
    }

    #[test]
    fn what_is_not_certain() {
        let unsure = [
            (
                "1.5, 1e3, 5::text, '5'::text, 70000::int2, '70000'::int2, 5::numeric, 1 + 1, a, $1, '5'::int::int8, true",
                oid::INT8,
            ),
            ("1, '1'::int", oid::BOOL),
            (
                "1.5, true, 5::int8, '5'::varchar, N'x', -'5', 'a' || 'b', 'x'::text::text",
                oid::TEXT,
            ),
            ("'a'::varchar(1), 'x'::own", oid::VARCHAR),
            ("'2024-01-01'::timestamp", 1082),
        ];
        for (args, of) in unsure {
            for (n, text) in texts(args, of).iter().enumerate() {
                assert_eq!(*text, None, "{n} of {args}");
            }
        }
    }

    #[test]
    fn functions_are_seen() {
        for (args, name) in [
            ("1, set_config('a', 'b', false)", Some("set_config")),
            ("x.f(1)", Some("f")),
            ("\"F\"(1)", Some("\"f\"")),
            ("'photos'::regclass", Some("regclass")),
            (
                "now(), coalesce(1, 2), CAST(1 AS int), ARRAY[1], 'f(1)'",
                None,
            ),
        ] {
            let (_, _, calls) = read(&format!("EXECUTE x ({args})"));
            assert_eq!(calls.as_deref(), name, "{args}");
        }
    }
}
