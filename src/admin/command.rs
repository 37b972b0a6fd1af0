//! The commands of the virtual database, from their text.

use crate::wire::error::{ErrorFields, SqlState};

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Nothing: an empty text.
    Empty,
    /// A table.
    Show(View),
    /// Reads the shard map again.
    Reload,
    /// Drivers open a transaction around whatever they are asked to do. Nothing here is transactional, so that all of
    /// it is an agreement about the state that ReadyForQuery tells.
    Transaction(Bracket),
}

/// Words around statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bracket {
    Begin,
    Commit,
    Rollback,
}

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Help,
    Version,
    Map,
    Shards,
    Hosts,
    Pools,
    Clients,
    Transactions,
    Tables,
    Stats,
    Plans,
    Config,
}

/// Every command with what it is for, in the order of SHOW HELP.
pub(super) const COMMANDS: [(&str, Command, &str); 13] = [
    ("SHOW HELP", Command::Show(View::Help), "these commands"),
    (
        "SHOW VERSION",
        Command::Show(View::Version),
        "the proxy's version",
    ),
    (
        "SHOW MAP",
        Command::Show(View::Map),
        "which host owns which shards, and how the last load of shardmap.toml went",
    ),
    (
        "SHOW SHARDS",
        Command::Show(View::Shards),
        "each shard with its schema and host",
    ),
    (
        "SHOW HOSTS",
        Command::Show(View::Hosts),
        "the hosts, whether they are up, and why not",
    ),
    (
        "SHOW POOLS",
        Command::Show(View::Pools),
        "server connections by host and server user, and who waits for them",
    ),
    (
        "SHOW CLIENTS",
        Command::Show(View::Clients),
        "who is connected and doing what",
    ),
    (
        "SHOW TRANSACTIONS",
        Command::Show(View::Transactions),
        "transactions over several hosts: under way here, or prepared and left, with what to do",
    ),
    (
        "SHOW TABLES",
        Command::Show(View::Tables),
        "the app's tables and how each is routed",
    ),
    (
        "SHOW STATS",
        Command::Show(View::Stats),
        "all counters and gauges, as /metrics has them",
    ),
    (
        "SHOW PLANS",
        Command::Show(View::Plans),
        "what the caches of plans and statements hold and have done",
    ),
    (
        "SHOW CONFIG",
        Command::Show(View::Config),
        "the settings of [proxy]",
    ),
    (
        "RELOAD",
        Command::Reload,
        "reads shardmap.toml again and says what is different",
    ),
];

/// The longest piece of an unknown command that its error repeats, in characters.
const REPEATED: usize = 60;

impl Command {
    /// Reads one command: case and blanks don't matter, `;` may end it.
    ///
    /// # Errors
    /// 42601 with all commands as the hint; 22021 for a text that is not UTF-8.
    pub(super) fn parse(text: &[u8]) -> Result<Command, ErrorFields> {
        let text = std::str::from_utf8(text).map_err(|_| {
            ErrorFields::error(
                SqlState::CHARACTER_NOT_IN_REPERTOIRE,
                "invalid byte sequence for encoding \"UTF8\"",
            )
        })?;
        let text = text
            .trim_matches(|c: char| c == ';' || c.is_whitespace())
            .to_owned();
        let words: Vec<String> = text
            .split_whitespace()
            .take(4)
            .map(str::to_ascii_uppercase)
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let known = |(name, command, _): &(&str, Command, &str)| {
            name.split(' ')
                .eq(words.iter().copied())
                .then_some(*command)
        };
        match words.as_slice() {
            [] => Ok(Command::Empty),
            ["BEGIN" | "START", ..] => Ok(Command::Transaction(Bracket::Begin)),
            ["COMMIT" | "END", ..] => Ok(Command::Transaction(Bracket::Commit)),
            ["ROLLBACK" | "ABORT"] | ["ROLLBACK" | "ABORT", "WORK" | "TRANSACTION"] => {
                Ok(Command::Transaction(Bracket::Rollback))
            }
            _ => COMMANDS
                .iter()
                .find_map(known)
                .ok_or_else(|| unknown(&text)),
        }
    }

    /// Several commands of one Query message. None of them can hold a `;`.
    pub(super) fn split(text: &[u8]) -> impl Iterator<Item = &[u8]> {
        text.split(|b| *b == b';')
            .filter(|piece| !piece.trim_ascii().is_empty())
    }

    /// What CommandComplete says. Of a table with this many rows.
    pub(super) fn tag(self) -> &'static str {
        match self {
            Command::Empty => "",
            Command::Show(_) => "SHOW",
            Command::Reload => "RELOAD",
            Command::Transaction(Bracket::Begin) => "BEGIN",
            Command::Transaction(Bracket::Commit) => "COMMIT",
            Command::Transaction(Bracket::Rollback) => "ROLLBACK",
        }
    }
}

fn unknown(text: &str) -> ErrorFields {
    let mut piece: String = text.chars().take(REPEATED).collect();
    if piece.len() < text.len() {
        piece.push_str("...");
    }
    let names: Vec<&str> = COMMANDS.iter().map(|(name, ..)| *name).collect();
    ErrorFields::error(
        SqlState::SYNTAX_ERROR,
        format!("not a command of the proxy: {piece}"),
    )
    .detail("The database \"presplit\" has no tables: it takes the proxy's own commands and nothing else.")
    .hint(format!("Commands: {}.", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_blanks_and_semicolons_do_not_matter() {
        for text in [
            "SHOW MAP",
            "show map;",
            " Show\n\tmAp ; ; ",
            "SHOW MAP;\r\n",
        ] {
            assert_eq!(
                Command::parse(text.as_bytes()),
                Ok(Command::Show(View::Map)),
                "{text:?}"
            );
        }
        for text in ["", " ", ";;", "\n;"] {
            assert_eq!(Command::parse(text.as_bytes()), Ok(Command::Empty));
        }
        assert_eq!(
            Command::parse(b"begin transaction isolation level serializable read only"),
            Ok(Command::Transaction(Bracket::Begin))
        );
    }

    #[test]
    fn every_command_is_read_as_itself() {
        for (name, command, _) in COMMANDS {
            assert_eq!(Command::parse(name.as_bytes()), Ok(command));
        }
    }

    #[test]
    fn all_else_is_refused_with_the_commands() {
        let long = format!("SELECT '{}'", "ä".repeat(5000));
        for text in [
            "SHOW",
            "SHOW MAPS",
            "SHOW MAP x",
            "SHOWMAP",
            "RELOAD NOW",
            "SELECT 1",
            "ROLLBACK TO a",
            "/* SHOW MAP */",
            &long,
        ] {
            let fields = Command::parse(text.as_bytes()).unwrap_err();
            assert_eq!(fields.code, SqlState::SYNTAX_ERROR, "{text}");
            assert!(fields.hint.unwrap().contains("SHOW POOLS, "));
            assert!(fields.message.len() < 200);
        }
        assert_eq!(
            Command::parse(b"SHOW \xff").unwrap_err().code,
            SqlState::CHARACTER_NOT_IN_REPERTOIRE
        );
    }

    #[test]
    fn several_in_one_text() {
        let split = |text: &'static str| Command::split(text.as_bytes()).count();
        assert_eq!(split("SHOW MAP; SHOW HOSTS;"), 2);
        assert_eq!(split(" ; "), 0);
    }
}
