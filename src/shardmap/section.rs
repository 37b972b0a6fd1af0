//! Reads one table of the TOML file key by key, and notes every wrong type, unknown key and unset variable with its place.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::Faults;
use super::nearest::nearest;

/// The value of `${VAR}`.
pub(crate) type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Something that stands at a byte offset of the text.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) at: usize,
    pub(crate) value: T,
}

/// One `key = value` with the section's name, for messages.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'t> {
    pub(crate) key: &'t str,
    pub(crate) key_at: usize,
    pub(crate) value: &'t Spanned<DeValue<'t>>,
}

impl Entry<'_> {
    pub(crate) fn at(&self) -> usize {
        self.value.span().start
    }
}

/// A table being read. Ask for each key that may be there, then [`Section::finish`].
pub(crate) struct Section<'s, 't> {
    /// As written between the brackets: `hosts.a`; empty for the top level.
    name: String,
    /// Where its header or key stands.
    pub(crate) at: usize,
    /// `None`: the section is not in the file, or is not a table, which has been said.
    table: Option<&'t DeTable<'t>>,
    asked: Vec<&'static str>,
    pub(crate) faults: &'s mut Faults<'t>,
    pub(crate) env: Env<'s>,
}

impl<'s, 't> Section<'s, 't> {
    /// The whole file.
    pub(crate) fn top(
        table: &'t DeTable<'t>,
        faults: &'s mut Faults<'t>,
        env: Env<'s>,
    ) -> Section<'s, 't> {
        Section {
            name: String::new(),
            at: 0,
            table: Some(table),
            asked: Vec::new(),
            faults,
            env,
        }
    }

    /// The table at `key`. One that is absent reads as empty.
    pub(crate) fn section(&mut self, key: &'static str) -> Section<'_, 't> {
        match self.find(key) {
            Some(entry) => self.enter(entry),
            None => {
                let (name, at) = (self.path(key), self.at);
                Section {
                    name,
                    at,
                    table: None,
                    asked: Vec::new(),
                    faults: self.faults,
                    env: self.env,
                }
            }
        }
    }

    /// The table that `entry` of this section holds.
    pub(crate) fn enter(&mut self, entry: Entry<'t>) -> Section<'_, 't> {
        let table = match entry.value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => {
                self.wrong_type(entry, "a table");
                None
            }
        };
        let name = self.path(&bare_or_quoted(entry.key));
        Section {
            name,
            at: entry.key_at,
            table,
            asked: Vec::new(),
            faults: self.faults,
            env: self.env,
        }
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.into()
        } else {
            format!("{}.{key}", self.name)
        }
    }

    /// How messages name a key of this section: `[map] "0-3"`.
    pub(crate) fn key(&self, key: &str) -> String {
        let key = bare_or_quoted(key);
        if self.name.is_empty() {
            key
        } else {
            format!("[{}] {key}", self.name)
        }
    }

    /// All entries in the order of the file, for sections whose keys are names.
    pub(crate) fn entries(&self) -> Vec<Entry<'t>> {
        let mut entries: Vec<Entry<'t>> = self.table.into_iter().flatten().map(entry).collect();
        entries.sort_by_key(|e| e.key_at);
        entries
    }

    pub(crate) fn find(&mut self, key: &'static str) -> Option<Entry<'t>> {
        self.asked.push(key);
        self.table?.get_key_value(key).map(entry)
    }

    /// As `find`; an absent key is a fault unless the section itself is absent. `example` is a line that would be right.
    pub(crate) fn need(&mut self, key: &'static str, example: &str) -> Option<Entry<'t>> {
        let found = self.find(key);
        if found.is_none() && self.table.is_some() {
            let name = self.key(key);
            self.faults
                .add(self.at, name, "is missing", format!("add {example}"));
        }
        found
    }

    /// Says which keys nobody asked for.
    pub(crate) fn finish(self) {
        for Entry { key, key_at, .. } in self.entries() {
            if self.asked.contains(&key) {
                continue;
            }
            let mend = match nearest(key, self.asked.iter().copied()) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("the keys here are {}", self.asked.join(", ")),
            };
            self.faults.add(key_at, self.key(key), "unknown key", mend);
        }
    }

    /// A fault about the value of an entry.
    pub(crate) fn bad(
        &mut self,
        entry: Entry<'t>,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.faults.add(entry.at(), self.key(entry.key), what, mend);
    }

    fn wrong_type(&mut self, entry: Entry<'t>, wanted: &str) {
        let found = entry.value.get_ref().type_str();
        self.bad(
            entry,
            format!("is of type {found}"),
            format!("write {wanted}"),
        );
    }

    /// The string as it is written, variables and all.
    pub(crate) fn raw(&mut self, entry: Entry<'t>, wanted: &str) -> Option<&'t str> {
        let text = entry.value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(entry, wanted);
        }
        text
    }

    /// A string with its variables replaced.
    pub(crate) fn string(&mut self, entry: Entry<'t>) -> Option<At<String>> {
        let text = self.raw(entry, "a string in quotes")?;
        match expand(text, self.env, |literal| Ok(literal.into())) {
            Ok(value) => Some(At {
                at: entry.at(),
                value,
            }),
            Err((what, mend)) => {
                self.bad(entry, what, mend);
                None
            }
        }
    }

    /// A name that Postgres can store: 1..=63 bytes.
    pub(crate) fn identifier(&mut self, entry: Entry<'t>) -> Option<At<String>> {
        let name = self.string(entry)?;
        if let Err((what, mend)) = identifier(&name.value) {
            self.bad(entry, what, mend);
            return None;
        }
        Some(name)
    }

    /// The entries of an array, each named by the array's key.
    pub(crate) fn array(&mut self, entry: Entry<'t>, wanted: &str) -> Vec<Entry<'t>> {
        match entry.value.get_ref() {
            DeValue::Array(items) => items.iter().map(|value| Entry { value, ..entry }).collect(),
            _ => {
                self.wrong_type(entry, wanted);
                Vec::new()
            }
        }
    }

    /// A whole number within `range`.
    pub(crate) fn integer(
        &mut self,
        entry: Entry<'t>,
        range: RangeInclusive<u64>,
    ) -> Option<At<u64>> {
        let DeValue::Integer(written) = entry.value.get_ref() else {
            self.wrong_type(entry, "a whole number without quotes");
            return None;
        };
        let value = u64::from_str_radix(written.as_str(), written.radix())
            .ok()
            .filter(|n| range.contains(n));
        if value.is_none() {
            self.bad(entry, format!("{written} is out of range"), between(&range));
        }
        Some(At {
            at: entry.at(),
            value: value?,
        })
    }

    /// A count with a default.
    pub(crate) fn count(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u32>,
        default: u32,
    ) -> u32 {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        let found = self.find(key).and_then(|entry| self.integer(entry, range));
        found
            .and_then(|n| u32::try_from(n.value).ok())
            .unwrap_or(default)
    }

    /// Bytes: a number, or a string with one of Postgres' units (`kB`, `MB`, `GB`, powers of 1024).
    pub(crate) fn bytes(
        &mut self,
        key: &'static str,
        range: RangeInclusive<usize>,
        default: usize,
    ) -> usize {
        let Some(entry) = self.find(key) else {
            return default;
        };
        let range = *range.start() as u64..=*range.end() as u64;
        let DeValue::String(text) = entry.value.get_ref() else {
            return self
                .integer(entry, range)
                .map_or(default, |n| n.value as usize);
        };
        match parse_bytes(text) {
            Some(bytes) if range.contains(&bytes) => return bytes as usize,
            Some(_) => self.bad(entry, format!("{text} is out of range"), between(&range)),
            None => self.bad(
                entry,
                format!("{text:?} is no size"),
                "write a number of bytes, or as \"64kB\", \"1MB\"",
            ),
        }
        default
    }

    /// A duration such as `"5s"`, at least 1 ms.
    pub(crate) fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        match self.duration_or_off(key, Some(default)) {
            Some(duration) => duration,
            None => {
                // Found, and `off`.
                if let Some(entry) = self.find(key) {
                    self.bad(entry, "can't be off", "write a duration such as \"1h\"");
                }
                default
            }
        }
    }

    /// A duration, or `None` for `"off"`.
    pub(crate) fn duration_or_off(
        &mut self,
        key: &'static str,
        default: Option<Duration>,
    ) -> Option<Duration> {
        let Some(entry) = self.find(key) else {
            return default;
        };
        let Some(text) = self.raw(entry, "a string with a unit, such as \"5s\"") else {
            return default;
        };
        match parse_duration(text) {
            Some(found) => found,
            None => {
                let what = format!("{text:?} is no duration");
                self.bad(
                    entry,
                    what,
                    "write as \"250ms\", \"5s\", \"10min\", \"1h\" (up to 365 days)",
                );
                default
            }
        }
    }

    /// `ip:port`, `localhost:port` or `*:port`.
    pub(crate) fn address(&mut self, key: &'static str) -> Option<At<SocketAddr>> {
        let entry = self.find(key)?;
        let text = self.string(entry)?;
        let address = match text.value.rsplit_once(':') {
            Some(("localhost", port)) => port
                .parse()
                .ok()
                .map(|port| (Ipv4Addr::LOCALHOST, port).into()),
            Some(("*", port)) => port
                .parse()
                .ok()
                .map(|port| (Ipv4Addr::UNSPECIFIED, port).into()),
            _ => text.value.parse().ok(),
        };
        if address.is_none() {
            self.bad(
                entry,
                format!("{:?} is no address", text.value),
                "write IP:PORT, such as \"127.0.0.1:6432\"",
            );
        }
        Some(At {
            at: entry.at(),
            value: address?,
        })
    }
}

fn entry<'t>(
    (key, value): (
        &'t Spanned<toml::de::DeString<'t>>,
        &'t Spanned<DeValue<'t>>,
    ),
) -> Entry<'t> {
    Entry {
        key: key.get_ref(),
        key_at: key.span().start,
        value,
    }
}

fn between(range: &RangeInclusive<u64>) -> String {
    match *range.end() {
        u64::MAX => format!("write a number from {} up", range.start()),
        end => format!("write a number from {} to {end}", range.start()),
    }
}

fn bare_or_quoted(key: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    // A range such as 0-3 may stand bare in TOML, yet reads better in quotes.
    match key.as_bytes() {
        [first, rest @ ..]
            if bare(*first)
                && rest
                    .iter()
                    .all(|b| bare(*b) || b.is_ascii_digit() || *b == b'-') =>
        {
            key.into()
        }
        _ => format!("{key:?}"),
    }
}

/// What is wrong, and the mend.
pub(crate) type Wrong = (String, String);

/// Whether Postgres could store `name` as an identifier.
pub(crate) fn identifier(name: &str) -> Result<(), Wrong> {
    let most = super::schema::MAX_IDENTIFIER;
    match name {
        "" => Err(("is empty".into(), "write a name".into())),
        _ if name.contains('\0') => Err(("has a NUL byte".into(), "remove it".into())),
        _ if name.len() > most => Err((
            format!("has {} bytes; Postgres cuts names at {most}", name.len()),
            "shorten it".into(),
        )),
        _ => Ok(()),
    }
}

/// Replaces each `${VAR}` by its value, taken as it is; `literal` turns what stands between them into what is meant.
/// `$${` is a `${` that is none.
pub(crate) fn expand(
    text: &str,
    env: Env<'_>,
    literal: impl Fn(&str) -> Result<String, Wrong>,
) -> Result<String, Wrong> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let before = &rest[..start];
        if let Some(before) = before.strip_suffix('$') {
            out += &literal(before)?;
            out += "${";
            rest = &rest[start + 2..];
            continue;
        }
        out += &literal(before)?;
        let (name, after) = rest[start + 2..].split_once('}').ok_or((
            "has a ${ without }".to_owned(),
            "close it, or write $${ for a ${ that is none".to_owned(),
        ))?;
        let is_name =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name {
            return Err((
                "has a ${...} whose inside is no variable's name".into(),
                "write ${NAME} with letters, digits and _, or $${ for a ${ that is none".into(),
            ));
        }
        out += &env(name).ok_or_else(|| {
            (
                format!("the environment variable {name} is not set"),
                format!("set {name}, or write the value here"),
            )
        })?;
        rest = after;
    }
    out += &literal(rest)?;
    Ok(out)
}

fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text);
    let shift = match unit {
        "B" | "" => 0,
        "kB" | "KB" | "KiB" => 10,
        "MB" | "MiB" => 20,
        "GB" | "GiB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// `Some(None)` for `off`.
fn parse_duration(text: &str) -> Option<Option<Duration>> {
    if text.trim() == "off" {
        return Some(None);
    }
    let (number, unit) = split_unit(text);
    let scale = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let ms = number.parse::<u64>().ok()?.checked_mul(scale)?;
    // Far below what overflows a deadline, and 0 is neither a wait nor `off`.
    (1..=365 * 86_400_000)
        .contains(&ms)
        .then_some(Some(Duration::from_millis(ms)))
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (&text[..digits], text[digits..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let ms = |n| Some(Some(Duration::from_millis(n)));
        assert_eq!(parse_duration("250ms"), ms(250));
        assert_eq!(parse_duration("5s"), ms(5000));
        assert_eq!(parse_duration("10 min"), ms(600_000));
        assert_eq!(parse_duration("10m"), ms(600_000));
        assert_eq!(parse_duration("1h"), ms(3_600_000));
        assert_eq!(parse_duration("365d"), ms(365 * 86_400_000));
        assert_eq!(parse_duration("off"), Some(None));
        for bad in [
            "",
            "5",
            "0s",
            "s",
            "-1s",
            "1.5s",
            "5 parsecs",
            "366d",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn sizes_have_postgres_units() {
        assert_eq!(parse_bytes("10000"), Some(10_000));
        assert_eq!(parse_bytes("64kB"), Some(65_536));
        assert_eq!(parse_bytes("4 MB"), Some(4 << 20));
        assert_eq!(parse_bytes("1GB"), Some(1 << 30));
        for bad in ["", "MB", "1TB", "-1", "18446744073709551615GB"] {
            assert_eq!(parse_bytes(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn variables_are_replaced_once() {
        let env = |name: &str| match name {
            "A" => Some("x${B}".to_owned()),
            "B" => Some("y".to_owned()),
            _ => None,
        };
        let expand = |text| expand(text, &env, |s| Ok(s.into()));
        assert_eq!(
            expand("no variable $5 {x}"),
            Ok("no variable $5 {x}".into())
        );
        assert_eq!(expand("<${A}|${B}>"), Ok("<x${B}|y>".into()));
        assert_eq!(expand("$${A}"), Ok("${A}".into()));
        assert_eq!(
            expand("SCRAM-SHA-256$4096:a$b:c"),
            Ok("SCRAM-SHA-256$4096:a$b:c".into())
        );
        assert!(
            expand("${C}")
                .expect_err("unset")
                .0
                .contains("C is not set")
        );
        assert!(expand("${A").expect_err("open").0.contains("without }"));
        assert!(
            expand("${}")
                .expect_err("empty")
                .0
                .contains("no variable's name")
        );
        assert!(
            expand("${A B}")
                .expect_err("blank")
                .0
                .contains("no variable's name")
        );
    }
}
