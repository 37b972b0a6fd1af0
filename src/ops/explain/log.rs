//! Statements out of a Postgres log: what `log_statement`, `log_duration` and `log_min_duration_statement` write, to
//! standard error (whatever `log_line_prefix` is) or as csvlog.

use super::csv::records;
use super::entries::Entry;

/// Begins a message that holds a statement; two blanks, as Postgres writes it.
const LOG: &str = "LOG:  ";
const DETAIL: &str = "DETAIL:  ";

/// Whether a line looks like one of a log.
pub(super) fn is_log_line(line: &str) -> bool {
    [LOG, DETAIL, "STATEMENT:  ", "ERROR:  "]
        .iter()
        .any(|mark| line.contains(mark))
        && !line.starts_with('\t')
}

/// Whether a CSV record looks like one of a csvlog: what stands where the severity is.
pub(super) fn is_csvlog(fields: &[String]) -> bool {
    const SEVERITIES: [&str; 8] = [
        "LOG", "ERROR", "FATAL", "PANIC", "WARNING", "NOTICE", "INFO", "DEBUG",
    ];
    fields.len() >= 23
        && SEVERITIES.contains(&fields[11].trim_end_matches(|c: char| c.is_ascii_digit()))
}

/// The statements of a log written to standard error.
pub(super) fn of_stderr(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    // What the lines that begin with a tab go on with.
    let mut open = Open::Nothing;
    let mut detail = String::new();
    for (n, line) in text.lines().enumerate() {
        if let Some(more) = line.strip_prefix('\t') {
            match (&open, entries.last_mut()) {
                (Open::Statement, Some(entry)) => entry.text.extend(["\n", more]),
                (Open::Detail, _) => detail.extend(["\n", more]),
                _ => {}
            }
            continue;
        }
        finish(&mut entries, &mut detail);
        let before = std::mem::replace(&mut open, Open::Nothing);
        if let Some(at) = line.find(LOG) {
            if let Some(sql) = statement(&line[at + LOG.len()..]) {
                entries.push(Entry::at(n + 1, sql));
                open = Open::Statement;
            }
        } else if let (Open::Statement, Some(at)) = (before, line.find(DETAIL)) {
            detail = line[at + DETAIL.len()..].to_owned();
            open = Open::Detail;
        }
    }
    finish(&mut entries, &mut detail);
    entries
}

/// What a line was of.
enum Open {
    /// Something else, and so is its DETAIL.
    Nothing,
    Statement,
    Detail,
}

/// Gives the last statement the parameters that its DETAIL names.
fn finish(entries: &mut [Entry], detail: &mut String) {
    let detail = std::mem::take(detail);
    if let Some(entry) = entries.last_mut().filter(|e| e.params.is_empty()) {
        entry.params = parameters(&detail);
    }
}

/// The statements of a csvlog.
pub(super) fn of_csv(text: &str) -> Vec<Entry> {
    const SEVERITY: usize = 11;
    const MESSAGE: usize = 13;
    const DETAIL: usize = 14;
    let logged = records(text).filter(|r| r.field(SEVERITY) == "LOG");
    let entry = |r: super::csv::Record| {
        let mut entry = Entry::at(r.line, statement(r.field(MESSAGE))?);
        entry.params = parameters(r.field(DETAIL));
        Some(entry)
    };
    logged.filter_map(entry).collect()
}

/// The statement that a message tells of. Those of `parse` and `bind` are executed by another message.
fn statement(message: &str) -> Option<&str> {
    let message = match message.strip_prefix("duration: ") {
        Some(rest) => rest.split_once(" ms  ")?.1,
        None => message,
    };
    if let Some(sql) = message.strip_prefix("statement: ") {
        return Some(sql);
    }
    let named = message.strip_prefix("execute ")?;
    // A name may be `fetch from S_1`, or `S_1/C_2` with a portal's.
    Some(named.split_once(": ")?.1)
}

/// `parameters: $1 = '42', $2 = NULL` (from Postgres 16 on with a capital P), first `$1`.
fn parameters(detail: &str) -> Vec<Option<String>> {
    let list = detail
        .strip_prefix("parameters: ")
        .or_else(|| detail.strip_prefix("Parameters: "));
    let Some(mut rest) = list else {
        return Vec::new();
    };
    let mut values = Vec::new();
    while let Some((_, value)) = rest
        .split_once(" = ")
        .filter(|(name, _)| name.trim_start_matches(", ").starts_with('$'))
    {
        let Some(quoted) = value.strip_prefix('\'') else {
            values.push(None);
            rest = value.strip_prefix("NULL").unwrap_or("");
            continue;
        };
        let (value, behind) = quoted_value(quoted);
        values.push(Some(value));
        rest = behind;
    }
    values
}

/// The value up to its closing quote, and what is behind it. (One that `log_parameter_max_length` cut ends with dots.)
fn quoted_value(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = quoted;
    loop {
        let end = rest.find('\'').unwrap_or(rest.len());
        value.push_str(&rest[..end]);
        rest = rest.get(end + 1..).unwrap_or("");
        let Some(behind) = rest.strip_prefix('\'') else {
            return (value, rest);
        };
        value.push('\'');
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        assert_eq!(statement("statement: SELECT 1"), Some("SELECT 1"));
        assert_eq!(statement("execute <unnamed>: SELECT 1"), Some("SELECT 1"));
        assert_eq!(
            statement("execute S_1/C_2: SELECT ': '"),
            Some("SELECT ': '")
        );
        assert_eq!(
            statement("duration: 0.121 ms  statement: SELECT 1"),
            Some("SELECT 1")
        );
        assert_eq!(
            statement("duration: 0.121 ms  execute a: SELECT 1"),
            Some("SELECT 1")
        );
        for none in [
            "duration: 0.121 ms",
            "duration: 0.1 ms  parse a: SELECT 1",
            "duration: 0.1 ms  bind a: SELECT 1",
            "checkpoint starting: time",
        ] {
            assert_eq!(statement(none), None, "{none}");
        }
    }

    #[test]
    fn parameters_of_a_detail() {
        let some = |v: &str| Some(v.to_owned());
        assert_eq!(
            parameters("parameters: $1 = '42', $2 = NULL, $3 = 'it''s, $4 = ', $4 = ''"),
            [some("42"), None, some("it's, $4 = "), some("")]
        );
        assert_eq!(parameters("Parameters: $1 = '4...'"), [some("4...")]);
        assert!(parameters("").is_empty());
        assert!(parameters("Key (id)=(1) already exists.").is_empty());
    }
}
