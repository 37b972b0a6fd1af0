//! What a statement sets by calls of `set_config`, read from its text and parameters.

use super::errors::Fault;
use super::set::check_setting;
use crate::route::{Format, Params};
use crate::sql::literal::literal_value;
use crate::sql::shape::{Hole, Shape};
use crate::sql::token::{Token, TokenKind, tokens};

/// What a `set_config(...)` call sets.
pub(super) struct SetConfig {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) local: bool,
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
        check_setting(&set.name, Some(&set.value))?;
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
            sets.push(SetConfig {
                name: name.to_ascii_lowercase(),
                value,
                local: matches!(local.as_bytes(), [b't' | b'T' | b'1' | 1, ..]),
            });
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

/// One argument of a call, which may be cast, and the comma or parenthesis behind it: whether it is the last.
fn call_argument(
    text: &[u8],
    holes: &[Hole],
    params: Option<&dyn Params>,
    words: &mut impl Iterator<Item = Token>,
) -> Option<(String, bool)> {
    let value = argument(text, holes, params, &words.next()?)?;
    loop {
        let token = words.next()?;
        if token.is_punct(text, b',') || token.is_punct(text, b')') {
            return Some((value, token.is_punct(text, b')')));
        }
        if !token.is_punct(text, b':') && token.kind != TokenKind::Word {
            return None;
        }
    }
}

fn argument(
    text: &[u8],
    holes: &[Hole],
    params: Option<&dyn Params>,
    token: &Token,
) -> Option<String> {
    let bytes = match token.kind {
        TokenKind::Literal(hole) => literal_value(text, holes.get(hole as usize)?)?.into_owned(),
        TokenKind::Word => text[token.span.clone()].to_vec(),
        TokenKind::Param => {
            let n = std::str::from_utf8(&text[token.span.clone()])
                .ok()?
                .strip_prefix('$')?
                .parse()
                .ok()?;
            let param = params?.get(n)?;
            match (param.format, param.value?) {
                (Format::Binary, [1]) => b"true".to_vec(),
                (Format::Binary, [0]) => b"false".to_vec(),
                (_, value) => value.to_vec(),
            }
        }
        _ => return None,
    };
    String::from_utf8(bytes).ok()
}
