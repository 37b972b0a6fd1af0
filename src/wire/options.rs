//! The startup parameter `options`: settings in the form of command-line arguments, as `PGOPTIONS` has them
//! (src/backend/utils/init/postinit.c, `pg_split_opts`; src/backend/tcop/postgres.c, `process_postgres_switches`).

use super::error::{ErrorFields, SqlState};

/// The settings in `-c name=value`, `-cname=value` and `--name=value`, in order. Other switches are refused: they
/// would have to be given to a server process of one's own.
pub fn settings(options: &str) -> Result<Vec<(String, String)>, Box<ErrorFields>> {
    let mut words = split(options).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = if let Some(long) = word.strip_prefix("--") {
            long.to_owned()
        } else if word == "-c" {
            words.next().ok_or_else(|| invalid(&word))?
        } else if let Some(attached) = word.strip_prefix("-c") {
            attached.to_owned()
        } else {
            return Err(invalid(&word));
        };
        settings.push(name_and_value(&setting, &word)?);
    }
    Ok(settings)
}

/// A hyphen in a name stands for an underscore, which some shells' users prefer.
fn name_and_value(setting: &str, word: &str) -> Result<(String, String), Box<ErrorFields>> {
    match setting.split_once('=') {
        Some(("", _)) => Err(invalid(word)),
        Some((name, value)) => Ok((name.replace('-', "_"), value.to_owned())),
        None => {
            let dashes = if word.starts_with("--") { "--" } else { "-c " };
            let message = format!("{dashes}{setting} requires a value");
            Err(Box::new(ErrorFields::fatal(
                SqlState::SYNTAX_ERROR,
                message,
            )))
        }
    }
}

fn invalid(word: &str) -> Box<ErrorFields> {
    let message = format!("invalid command-line argument for server process: {word}");
    let hint = "Settings are given as \"-c name=value\" or \"--name=value\".";
    Box::new(ErrorFields::fatal(SqlState::SYNTAX_ERROR, message).hint(hint))
}

/// Words between white space; a backslash takes the next character as it is.
fn split(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(chars.next()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &str) -> Vec<(String, String)> {
        settings(options).unwrap()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn all_three_forms() {
        assert_eq!(
            read("  -c geqo=off --work-mem=3MB\t-cfoo.bar=a\\ b\\\\ "),
            [
                pair("geqo", "off"),
                pair("work_mem", "3MB"),
                pair("foo.bar", "a b\\"),
            ]
        );
        assert_eq!(read(""), []);
        assert_eq!(read(" \n"), []);
        assert_eq!(read("-c search_path=a,b=c"), [pair("search_path", "a,b=c")]);
        assert_eq!(read("--x="), [pair("x", "")]);
        assert_eq!(read("--x=\\"), [pair("x", "")]);
    }

    #[test]
    fn refusals() {
        for (options, message) in [
            ("-c", "invalid command-line argument for server process: -c"),
            ("-c geqo", "-c geqo requires a value"),
            ("--geqo", "--geqo requires a value"),
            (
                "-S 4000",
                "invalid command-line argument for server process: -S",
            ),
            (
                "geqo=off",
                "invalid command-line argument for server process: geqo=off",
            ),
            (
                "--=x",
                "invalid command-line argument for server process: --=x",
            ),
        ] {
            let fault = settings(options).unwrap_err();
            assert_eq!(fault.message, message);
            assert_eq!(fault.code, SqlState::SYNTAX_ERROR);
        }
    }
}
