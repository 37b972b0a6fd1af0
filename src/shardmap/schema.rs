//! The names of the shards' schemas: `shard_{:04}` with a shard's number put in.

use std::fmt;

use super::ShardId;

/// Postgres cuts identifiers at this many bytes (`NAMEDATALEN - 1`).
pub(super) const MAX_IDENTIFIER: usize = 63;

/// A schema name with one place for the shard's number: `{}`, or `{:04}` for four digits with leading zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaPattern {
    before: String,
    after: String,
    /// Least number of digits; 0 pads nothing.
    width: usize,
}

impl SchemaPattern {
    /// Reads a pattern. The error says what is wrong, in words for the person who wrote it.
    pub fn parse(text: &str) -> Result<SchemaPattern, String> {
        let (before, rest) = text
            .split_once('{')
            .ok_or("has no placeholder for the shard's number")?;
        let (inside, after) = rest.split_once('}').ok_or("has a { without }")?;
        if before.contains('}') || after.contains(['{', '}']) {
            return Err("must have exactly one placeholder".into());
        }
        let width = match inside.strip_prefix(":0") {
            None if inside.is_empty() => 0,
            Some(digits) if matches!(digits.as_bytes(), [b'1'..=b'9']) => {
                usize::from(digits.as_bytes()[0] - b'0')
            }
            _ => {
                return Err(format!(
                    "has the placeholder {{{inside}}}, which is neither {{}} nor of the form {{:04}}"
                ));
            }
        };
        if text.contains('\0') {
            return Err("has a NUL byte".into());
        }
        if before.starts_with("pg_") {
            return Err("begins with pg_, which Postgres keeps for itself".into());
        }
        Ok(SchemaPattern {
            before: before.into(),
            after: after.into(),
            width,
        })
    }

    /// The schema's name as Postgres stores it, without quotes.
    pub fn name(&self, shard: ShardId) -> String {
        format!(
            "{}{:0width$}{}",
            self.before,
            shard.0,
            self.after,
            width = self.width
        )
    }

    /// What LIKE takes for the names of all shards' schemas.
    pub fn like(&self) -> String {
        let escaped = |text: &str| {
            let mut escaped = String::new();
            for c in text.chars() {
                if matches!(c, '%' | '_' | '\\') {
                    escaped.push('\\');
                }
                escaped.push(c);
            }
            escaped
        };
        format!("{}%{}", escaped(&self.before), escaped(&self.after))
    }
}

/// `shard_{:04}`.
impl Default for SchemaPattern {
    fn default() -> Self {
        SchemaPattern {
            before: "shard_".into(),
            after: String::new(),
            width: 4,
        }
    }
}

/// The pattern as it is written.
impl fmt::Display for SchemaPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.width {
            0 => write!(f, "{}{{}}{}", self.before, self.after),
            width => write!(f, "{}{{:0{width}}}{}", self.before, self.after),
        }
    }
}

/// `name` as it must stand in a statement: bare where Postgres reads it back unchanged, quoted otherwise. A name with a
/// digit, as every schema of a shard has, is never a key word.
pub(super) fn quoted(name: &str) -> String {
    let bare = name
        .bytes()
        .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        && !name.as_bytes().first().is_none_or(u8::is_ascii_digit);
    if bare {
        name.into()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_each_shard() {
        let padded = SchemaPattern::parse("shard_{:04}").expect("good");
        assert_eq!(padded.name(ShardId(7)), "shard_0007");
        assert_eq!(padded.name(ShardId(12345)), "shard_12345");
        assert_eq!(padded.to_string(), "shard_{:04}");
        let plain = SchemaPattern::parse("s{}_data").expect("good");
        assert_eq!(plain.name(ShardId(7)), "s7_data");
        assert_eq!(plain.to_string(), "s{}_data");
    }

    #[test]
    fn a_bad_pattern_says_what_is_wrong() {
        for (pattern, says) in [
            ("shard", "no placeholder"),
            ("shard_{", "without }"),
            ("shard_{}{}", "exactly one"),
            ("sh}ard_{}", "exactly one"),
            ("shard_{:4}", "{:4}"),
            ("shard_{:0}", "{:0}"),
            ("shard_{:0x}", "{:0x}"),
            ("shard_{n}", "{n}"),
            ("pg_{}", "pg_"),
            ("a\0{}", "NUL"),
        ] {
            let fault = SchemaPattern::parse(pattern).expect_err(pattern);
            assert!(fault.contains(says), "{pattern:?}: {fault}");
        }
    }

    #[test]
    fn names_are_quoted_only_where_they_must_be() {
        assert_eq!(quoted("shard_0042"), "shard_0042");
        assert_eq!(quoted("_1"), "_1");
        assert_eq!(quoted("Shard_1"), "\"Shard_1\"");
        assert_eq!(quoted("1st"), "\"1st\"");
        assert_eq!(quoted("a b1"), "\"a b1\"");
        assert_eq!(quoted("a\"1"), "\"a\"\"1\"");
        assert_eq!(quoted("schön1"), "\"schön1\"");
    }
}
