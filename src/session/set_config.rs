//! Calls of `set_config`: they set as SET does, and can be followed from one server connection to the next where all of
//! their arguments are seen.

use std::ops::Range;

use super::Session;
use super::checks::check_setting;
use super::context::Prepared;
use super::date_style::date_style;
use super::errors::Fault;
use crate::pool::{Set, set_config};
use crate::route::{Format, Params};
use crate::sql::literal::literal_value;
use crate::sql::shape::{Hole, Shape};
use crate::sql::token::{Token, TokenKind, tokens};

/// What a `set_config(...)` call sets.
pub(super) struct SetConfig {
    name: String,
    /// `None`: to its default.
    value: Option<String>,
    local: bool,
}

impl Session {
    /// What a statement of the simple protocol sets by `set_config`, if that is what it does.
    pub(super) fn set_config_of(
        &self,
        prepared: &Prepared,
        text: &Range<usize>,
    ) -> Result<Vec<SetConfig>, Fault> {
        if !prepared.sets_config() {
            return Ok(Vec::new());
        }
        let sets = set_config_in(&self.client.inbox[text.clone()])?;
        self.check_default(&sets)?;
        Ok(sets)
    }

    /// NULL sets to the default, which to the server is another than what the client asked for at startup, and the
    /// function returns it.
    pub(super) fn check_default(&self, sets: &[SetConfig]) -> Result<(), Fault> {
        for set in sets {
            if set.value.is_none() && self.startup.get(&set.name).is_some() {
                return Err(Fault::unsupported(
                    format!(
                        "set_config('{}', NULL, ...) is not supported: it was set at startup",
                        set.name
                    ),
                    "Use RESET.",
                ));
            }
        }
        Ok(())
    }

    /// These `set_config` calls have succeeded on the active link.
    pub(super) async fn note_set_config(&mut self, sets: Vec<SetConfig>) -> Result<(), Fault> {
        for SetConfig { name, value, local } in sets {
            let set = value.map(|value| match &*name {
                "datestyle" => date_style(self.in_force(&name), &value),
                _ => Set::from(set_config(&name, &value)),
            });
            self.set_elsewhere(&name, set, local).await?;
        }
        Ok(())
    }
}

/// What a text of the simple protocol sets by `set_config`.
pub(super) fn set_config_in(text: &[u8]) -> Result<Vec<SetConfig>, Fault> {
    let mut shape = Shape::default();
    // It was scanned before.
    let _ = shape.scan(text);
    read_set_config(text, &shape.holes, None)
}

/// Reads `SELECT [pg_catalog.]set_config(name, value, is_local) [[AS] column], ...` with literals or text parameters as
/// arguments; `current_setting(name)` may stand beside it.
///
/// # Errors
/// Any other form: what it sets could not be followed from one server connection to the next.
pub(super) fn read_set_config(
    text: &[u8],
    holes: &[Hole],
    params: Option<&dyn Params>,
) -> Result<Vec<SetConfig>, Fault> {
    let sets = plain_set_config(text, holes, params).ok_or_else(|| {
        Fault::unsupported(
            "set_config in this form is not supported: which setting it changes can't be seen",
            "Write SELECT set_config('name', 'value', false) with literals or text parameters, alone in its statement.",
        )
    })?;
    for set in &sets {
        if set.name.starts_with("transaction_") {
            return Err(Fault::unsupported(
                format!("set_config('{}', ...) is not supported", set.name),
                "Use SET TRANSACTION, or say it in BEGIN.",
            ));
        }
        check_setting(&set.name, set.value.as_deref())?;
    }
    Ok(sets)
}

fn plain_set_config(
    text: &[u8],
    holes: &[Hole],
    params: Option<&dyn Params>,
) -> Option<Vec<SetConfig>> {
    let mut words = tokens(text, holes).peekable();
    let mut sets = Vec::new();
    if !words.next()?.is_word(text, "select") {
        return None;
    }
    loop {
        let mut word = words.next()?;
        if word.is_word(text, "pg_catalog") && words.next()?.is_punct(text, b'.') {
            word = words.next()?;
        }
        if !words.next()?.is_punct(text, b'(') {
            return None;
        }
        if word.is_word(text, "current_setting") {
            // Its name, and maybe whether it may be missing.
            while !call_argument(text, holes, params, &mut words)?.1 {}
        } else if word.is_word(text, "set_config") {
            let args = [(); 3].map(|()| call_argument(text, holes, params, &mut words));
            let [
                Some((name, false)),
                Some((value, false)),
                Some((local, true)),
            ] = args
            else {
                return None;
            };
            let local = match local {
                Some(local) => read_bool(&local)?,
                None => false,
            };
            // A name that is NULL Postgres refuses.
            sets.extend(name.map(|name| SetConfig {
                name: name.to_ascii_lowercase(),
                value,
                local,
            }));
        } else {
            return None;
        }
        // A name for the column.
        if words.next_if(|t| t.is_word(text, "as")).is_some()
            || words.peek().is_some_and(|t| t.kind == TokenKind::Word)
        {
            words.next_if(|t| t.kind == TokenKind::Word)?;
        }
        match words.next() {
            Some(next) if next.is_punct(text, b',') => {}
            Some(next) if !next.is_punct(text, b';') => return None,
            _ => return Some(sets),
        }
    }
}

/// What Postgres takes for a boolean (bool.c).
fn read_bool(text: &str) -> Option<bool> {
    let text = text.trim().to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&*text);
    if begins("true", 1) || begins("yes", 1) || text == "on" || text == "1" {
        return Some(true);
    }
    (begins("false", 1) || begins("no", 1) || begins("off", 2) || text == "0").then_some(false)
}

/// Types that a cast to changes nothing of the text.
const CASTS: &[&str] = &["text", "varchar", "bool", "boolean", "unknown"];

/// One argument of a call, which may be cast, and the comma or parenthesis behind it: its value (`None`: NULL), and whether
/// it is the last.
fn call_argument(
    text: &[u8],
    holes: &[Hole],
    params: Option<&dyn Params>,
    words: &mut impl Iterator<Item = Token>,
) -> Option<(Option<String>, bool)> {
    let value = argument(text, holes, params, &words.next()?)?;
    loop {
        let token = words.next()?;
        if token.is_punct(text, b',') || token.is_punct(text, b')') {
            return Some((value, token.is_punct(text, b')')));
        }
        let cast = CASTS.iter().any(|name| token.is_word(text, name));
        if !token.is_punct(text, b':') && !cast {
            return None;
        }
    }
}

fn argument(
    text: &[u8],
    holes: &[Hole],
    params: Option<&dyn Params>,
    token: &Token,
) -> Option<Option<String>> {
    let bytes = match token.kind {
        TokenKind::Literal(hole) => literal_value(text, holes.get(hole as usize)?)?.into_owned(),
        TokenKind::Word if token.is_word(text, "true") => b"true".to_vec(),
        TokenKind::Word if token.is_word(text, "false") => b"false".to_vec(),
        TokenKind::Word if token.is_word(text, "null") => return Some(None),
        TokenKind::Param => {
            let n = std::str::from_utf8(&text[token.span.clone()])
                .ok()?
                .strip_prefix('$')?
                .parse()
                .ok()?;
            let param = params?.get(n)?;
            match (param.format, param.value) {
                (_, None) => return Some(None),
                (Format::Binary, Some([1])) => b"true".to_vec(),
                (Format::Binary, Some([0])) => b"false".to_vec(),
                (_, Some(value)) => value.to_vec(),
            }
        }
        _ => return None,
    };
    String::from_utf8(bytes).ok().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<(String, Option<String>, bool)>> {
        let sets = set_config_in(text.as_bytes()).ok()?;
        let parts = sets.into_iter().map(|s| (s.name, s.value, s.local));
        Some(parts.collect())
    }

    fn one(
        name: &str,
        value: Option<&str>,
        local: bool,
    ) -> Option<Vec<(String, Option<String>, bool)>> {
        Some(vec![(name.to_owned(), value.map(str::to_owned), local)])
    }

    #[test]
    fn calls_whose_arguments_are_seen() {
        let some = Some("b");
        assert_eq!(
            read("SELECT set_config('A.x', 'b', false)"),
            one("a.x", some, false)
        );
        assert_eq!(
            read("SELECT set_config('a.x', 'b', 'ON') AS c;"),
            one("a.x", some, true)
        );
        assert_eq!(
            read("SELECT set_config('a.x', 'b'::text, 'no')"),
            one("a.x", some, false)
        );
        assert_eq!(
            read("SELECT set_config('a.x', NULL, false)"),
            one("a.x", None, false)
        );
        assert_eq!(
            read("SELECT set_config(NULL, 'b', false)"),
            Some(Vec::new())
        );
        assert_eq!(
            read("SELECT set_config('a.x', 'b', null)"),
            one("a.x", some, false)
        );
    }

    #[test]
    fn others() {
        for text in [
            "SELECT set_config('a.x', current_user, false)",
            "SELECT set_config('a.x', '7'::int::text, false)",
            "SELECT set_config('a.x', 'b', 'maybe')",
            "SELECT set_config('a.x', 'b', false) FROM t",
            "SELECT set_config('a.x', lower('B'), false)",
            "SELECT set_config('transaction_isolation', 'serializable', true)",
        ] {
            assert!(read(text).is_none(), "{text}");
        }
    }
}
