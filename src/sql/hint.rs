//! Routing hints in comments: `/* presplit: key=42 */`, `-- presplit: shard=7`, `/* presplit: all */`. A hint that can't
//! be read is a fault, never ignored: a typo must not become another route.

use thiserror::Error;

use super::shape::{HoleKind, Shape};

/// Where a statement shall go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// To the shard of this key value, as text.
    Key(String),
    /// To this logical shard.
    Shard(u32),
    /// To all shards.
    All,
}

/// What is wrong with a hint.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HintFault {
    /// Not one of the known words, or not followed by what it needs.
    #[error(
        "presplit hint {0:?} can't be read: write \"presplit: key=VALUE\", \"presplit: shard=NUMBER\" or \"presplit: all\""
    )]
    Unknown(String),
    /// Two hints of one text that say different things.
    #[error("two presplit hints disagree: {0:?} and {1:?}")]
    Disagree(Hint, Hint),
    /// A hint between the parts of a continued string literal.
    #[error("a presplit hint stands inside a string literal")]
    Misplaced,
}

/// The hint of `text`, whose shape is `shape`. All hints of a text must agree.
pub fn find(text: &[u8], shape: &Shape) -> Result<Option<Hint>, HintFault> {
    if !shape.hinted {
        return Ok(None);
    }
    let mut found: Option<Hint> = None;
    for hole in shape.holes.iter().filter(|h| h.kind == HoleKind::Comment) {
        let mut rest = body(&text[hole.start as usize..hole.end as usize]);
        while let Some(start) = after_word(rest) {
            let (hint, after) = one(&rest[start..]).ok_or_else(|| unknown(&rest[start..]))?;
            rest = after;
            match &found {
                Some(first) if *first != hint => {
                    return Err(HintFault::Disagree(first.clone(), hint));
                }
                _ => found = Some(hint),
            }
        }
    }
    found.map(Some).ok_or(HintFault::Misplaced)
}

/// A comment without its marks.
fn body(comment: &[u8]) -> &[u8] {
    match comment {
        [b'/', b'*', inner @ .., b'*', b'/'] => inner,
        [b'-', b'-', inner @ ..] => inner,
        other => other,
    }
}

/// Where the first hint's text begins: after `presplit`, white space and a colon.
fn after_word(text: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let colon = from + text[from..].iter().position(|b| *b == b':')?;
        let word = text[..colon].trim_ascii_end();
        if word.len() >= 8 && word[word.len() - 8..].eq_ignore_ascii_case(b"presplit") {
            return Some(colon + 1);
        }
        from = colon + 1;
    }
}

fn unknown(text: &[u8]) -> HintFault {
    let shown = &text[..text.len().min(60)];
    HintFault::Unknown(String::from_utf8_lossy(shown).trim().to_string())
}

/// One hint and what stands behind it.
fn one(text: &[u8]) -> Option<(Hint, &[u8])> {
    let text = text.trim_ascii_start();
    let len = text
        .iter()
        .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_')
        .count();
    let (word, rest) = text.split_at(len);
    let (hint, rest) = match word.to_ascii_lowercase().as_slice() {
        b"all" => (Hint::All, rest),
        b"key" => {
            let (value, rest) = value(rest)?;
            (Hint::Key(value), rest)
        }
        b"shard" => {
            let (value, rest) = value(rest)?;
            let digits = value.bytes().all(|b| b.is_ascii_digit());
            (Hint::Shard(value.parse().ok().filter(|_| digits)?), rest)
        }
        _ => return None,
    };
    Some((hint, end(rest)?))
}

/// `= value`, quoted by `'` or `"` (doubled inside) or bare up to white space, `,` or `;`. Never empty.
fn value(text: &[u8]) -> Option<(String, &[u8])> {
    let text = text
        .trim_ascii_start()
        .strip_prefix(b"=")?
        .trim_ascii_start();
    let (value, rest) = match text {
        [quote @ (b'\'' | b'"'), rest @ ..] => quoted(*quote, rest)?,
        _ => {
            let stops =
                |b: &u8| b.is_ascii_whitespace() || matches!(*b, b',' | b';' | b'\'' | b'"');
            let len = text.iter().position(stops).unwrap_or(text.len());
            (text[..len].to_vec(), &text[len..])
        }
    };
    let value = String::from_utf8(value).ok()?;
    (!value.is_empty()).then_some((value, rest))
}

fn quoted(quote: u8, text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut i = 0;
    loop {
        match *text.get(i)? {
            b if b != quote => value.push(b),
            _ if text.get(i + 1) == Some(&quote) => {
                value.push(quote);
                i += 1;
            }
            _ => return Some((value, &text[i + 1..])),
        }
        i += 1;
    }
}

/// A hint ends the comment, or is followed by a comma or semicolon and something that isn't taken for a second part of the
/// hint: another `presplit:`, or the `name='value'` of a sqlcommenter.
fn end(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii_start();
    if text.is_empty() {
        return Some(text);
    }
    if after_word(text).is_some_and(|at| is_just_the_word(&text[..at])) {
        return Some(text);
    }
    let [b',' | b';', rest @ ..] = text else {
        return None;
    };
    let rest = rest.trim_ascii_start();
    let len = rest
        .iter()
        .take_while(|b| b.is_ascii_alphanumeric() || matches!(**b, b'_' | b'-' | b'%' | b'.'))
        .count();
    let name = rest[..len].to_ascii_lowercase();
    let known = matches!(name.as_slice(), b"key" | b"shard" | b"all");
    let fits = rest.is_empty()
        || rest[len..].starts_with(b"='")
        || rest[len..].trim_ascii_start().starts_with(b":");
    (!known && fits).then_some(rest)
}

fn is_just_the_word(text: &[u8]) -> bool {
    let word = text.strip_suffix(b":").unwrap_or(text).trim_ascii();
    word.eq_ignore_ascii_case(b"presplit")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(text: &str) -> Result<Option<Hint>, HintFault> {
        let mut shape = Shape::default();
        shape.scan(text.as_bytes()).unwrap();
        find(text.as_bytes(), &shape)
    }

    fn key(value: &str) -> Result<Option<Hint>, HintFault> {
        Ok(Some(Hint::Key(value.into())))
    }

    #[test]
    fn the_forms() {
        assert_eq!(hint("/* presplit: key=42 */ SELECT 1"), key("42"));
        assert_eq!(hint("/*presplit:key=42*/ SELECT 1"), key("42"));
        assert_eq!(hint("SELECT 1 /* PreSplit : KEY = '42' */"), key("42"));
        assert_eq!(hint("SELECT 1 -- presplit: key=42"), key("42"));
        assert_eq!(hint("SELECT 1 -- presplit: key=42\n + 1"), key("42"));
        assert_eq!(hint("/* presplit: key=\"a b\" */ SELECT 1"), key("a b"));
        assert_eq!(hint("/* presplit: key='it''s' */ SELECT 1"), key("it's"));
        assert_eq!(hint("/* presplit: key=-5 */ SELECT 1"), key("-5"));
        assert_eq!(
            hint("/* presplit: key=b2a9-\u{e9} */ SELECT 1"),
            key("b2a9-\u{e9}")
        );
        assert_eq!(
            hint("/* presplit: shard=7 */ SELECT 1"),
            Ok(Some(Hint::Shard(7)))
        );
        assert_eq!(
            hint("/* presplit: shard='07' */ SELECT 1"),
            Ok(Some(Hint::Shard(7)))
        );
        assert_eq!(hint("/* presplit: all */ SELECT 1"), Ok(Some(Hint::All)));
        assert_eq!(hint("/* presplit: All; */ SELECT 1"), Ok(Some(Hint::All)));
    }

    #[test]
    fn what_is_no_hint() {
        assert_eq!(hint("SELECT 1"), Ok(None));
        assert_eq!(
            hint("SELECT 'presplit: key=1', $$/* presplit: key=1 */$$"),
            Ok(None)
        );
        assert_eq!(hint("SELECT \"/* presplit: key=1 */\""), Ok(None));
        assert_eq!(hint("/* sent through presplit */ SELECT 1"), Ok(None));
        assert_eq!(hint("/* note: none */ SELECT 1"), Ok(None));
    }

    #[test]
    fn a_typo_is_a_fault() {
        for text in [
            "/* presplit: kye=42 */",
            "/* presplit: */",
            "/* presplit: key */",
            "/* presplit: key= */",
            "/* presplit: key='' */",
            "/* presplit: key='42 */",
            "/* presplit: key=4'2 */",
            "/* presplit: key=42 43 */",
            "/* presplit: key=42, shard=7 */",
            "/* presplit: key=42, key='43' */",
            "/* presplit: key=42,nonsense */",
            "/* presplit: shard=x */",
            "/* presplit: shard=+7 */",
            "/* presplit: shard=-1 */",
            "/* presplit: shard=99999999999 */",
            "/* presplit: all shards */",
            "/* presplit: all=1 */",
            "/* presplit: allx */",
            "/* presplit: key=42 */ /* presplit: kye=42 */",
        ] {
            assert!(
                matches!(hint(text), Err(HintFault::Unknown(_))),
                "{text}: {:?}",
                hint(text)
            );
        }
        assert_eq!(
            hint("SELECT 'a' -- presplit: key=1\n'b'"),
            Err(HintFault::Misplaced)
        );
    }

    #[test]
    fn several_hints_must_agree() {
        assert_eq!(
            hint("/* presplit: key=42 */ SELECT 1 -- presplit: key='42'"),
            key("42")
        );
        assert_eq!(
            hint("/* presplit: all, presplit: all */ SELECT 1"),
            Ok(Some(Hint::All))
        );
        for text in [
            "/* presplit: key=42 */ SELECT 1 /* presplit: key=43 */",
            "/* presplit: key=42 */ SELECT 1 /* presplit: shard=42 */",
            "/* presplit: key=42 presplit: all */",
            "/* presplit: key=42, presplit: all */",
            "/* presplit: key=42, a='x', presplit: all */",
        ] {
            assert!(
                matches!(hint(text), Err(HintFault::Disagree(..))),
                "{text}: {:?}",
                hint(text)
            );
        }
    }

    #[test]
    fn beside_a_sqlcommenter() {
        let tags = "db_driver='psycopg',traceparent='00-5bd66ef5095369c7-01'";
        assert_eq!(hint(&format!("SELECT 1 /*{tags}*/")), Ok(None));
        assert_eq!(
            hint(&format!("/* presplit: key=42 */ SELECT 1 /*{tags}*/")),
            key("42")
        );
        assert_eq!(
            hint(&format!("SELECT 1 /*{tags},presplit: key=42*/")),
            key("42")
        );
        assert_eq!(
            hint(&format!("SELECT 1 /* presplit: key=42, {tags} */")),
            key("42")
        );
        assert_eq!(hint("SELECT 1 /*route='%2Fpresplit%3A'*/"), Ok(None));
    }

    #[test]
    fn any_bytes_are_answered() {
        let mut shape = Shape::default();
        for text in [
            &b"/* presplit: key=\xff */"[..],
            b"-- presplit:",
            b"/*:presplit:*/",
            b"/*presplit:key=\"*/",
        ] {
            shape.scan(text).unwrap();
            assert!(find(text, &shape).is_err());
        }
    }
}
