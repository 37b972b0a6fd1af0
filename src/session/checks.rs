//! Settings under which statements could not be read, or that can't be followed from one server connection to the next:
//! they are refused.

use super::errors::Fault;

/// Refuses what can't be.
pub(super) fn check_setting(name: &str, value: Option<&str>) -> Result<(), Fault> {
    match name {
        "standard_conforming_strings" if !value.is_some_and(is_on) => Err(Fault::unsupported(
            "standard_conforming_strings must stay on: with it off, where a string ends depends on a setting",
            "Write E'...' for strings with backslash escapes.",
        )),
        "client_encoding" | "names"
            if !value.is_none_or(|v| keeps_ascii(&encoding_name(v.as_bytes()))) =>
        {
            Err(Fault::unsupported(
                format!(
                    "client_encoding {:?} is not supported: parts of its characters look like ASCII",
                    value.unwrap_or_default()
                ),
                "Use UTF8.",
            ))
        }
        "session_authorization" => Err(Fault::unsupported(
            "SET SESSION AUTHORIZATION is not supported under transaction pooling",
            "Use SET ROLE, or give the client its own server_user in [users].",
        )),
        _ => Ok(()),
    }
}

pub(super) fn is_on(value: &str) -> bool {
    ["on", "true", "yes", "1", "t", "y", "tr", "tru", "ye"]
        .contains(&value.to_ascii_lowercase().as_str())
}

/// The name of an encoding as Postgres compares them: letters and digits, lower case (`'utf-8'` in quotes is asyncpg's).
pub(super) fn encoding_name(given: &[u8]) -> String {
    let letters = given.iter().filter(|b| b.is_ascii_alphanumeric());
    letters
        .map(|b| char::from(b.to_ascii_lowercase()))
        .collect()
}

/// Whether a byte below 128 is always a character of its own in the encoding of this name, so that a text can be read byte by byte.
pub(super) fn keeps_ascii(encoding: &str) -> bool {
    const SAFE: &[&str] = &[
        "utf8",
        "unicode",
        "sqlascii",
        "latin",
        "iso8859",
        "win12",
        "win8",
        "windows12",
        "windows8",
        "koi8",
        "euc",
    ];
    SAFE.iter().any(|name| encoding.starts_with(name))
}
