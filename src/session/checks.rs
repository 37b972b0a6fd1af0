//! Settings under which statements could not be read, or that can't be followed from one server connection to the next:
//! they are refused.

use super::errors::Fault;

/// Encodings in which no byte of a multi-byte character looks like ASCII, so that a text can be read byte by byte.
const SAFE_ENCODINGS: &[&str] = &[
    "utf8",
    "unicode",
    "utf-8",
    "sql_ascii",
    "sqlascii",
    "latin1",
    "latin2",
    "latin3",
    "latin4",
    "latin5",
    "latin6",
    "latin7",
    "latin8",
    "latin9",
    "latin10",
    "iso88591",
    "iso-8859-1",
    "iso_8859_1",
    "iso885915",
    "win1250",
    "win1251",
    "win1252",
    "win1253",
    "win1254",
    "win1257",
    "euc_jp",
    "euc_cn",
    "euc_kr",
    "euc_tw",
    "koi8r",
    "koi8",
    "koi8u",
];

/// Refuses what can't be.
pub(super) fn check_setting(name: &str, value: Option<&str>) -> Result<(), Fault> {
    match name {
        "standard_conforming_strings" if !value.is_some_and(is_on) => Err(Fault::unsupported(
            "standard_conforming_strings must stay on: with it off, where a string ends depends on a setting",
            "Write E'...' for strings with backslash escapes.",
        )),
        "client_encoding" | "names" if !value.is_none_or(is_safe_encoding) => {
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

fn is_safe_encoding(value: &str) -> bool {
    SAFE_ENCODINGS.contains(&value.to_ascii_lowercase().as_str())
}
