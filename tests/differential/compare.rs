//! Whether two answers are equal as far as they must be.

use super::generator::Order;
use crate::support::wire::Part;

/// What presplit said when it would not run a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub code: String,
    pub message: String,
}

/// A refusal: a code of our own, or "not supported", with a hint.
pub fn refusal(answer: &[Part]) -> Result<Option<Refused>, String> {
    let Some((code, message, has_hint)) = answer.iter().find_map(error) else {
        return Ok(None);
    };
    let ours = code.starts_with("SR");
    if ours && !has_hint {
        return Err(format!("refused with {code}, but without a hint"));
    }
    let refused = ours || (code == "0A000" && has_hint);
    Ok(refused.then(|| Refused {
        code: code.to_owned(),
        message: message.to_owned(),
    }))
}

fn error(part: &Part) -> Option<(&str, &str, bool)> {
    match part {
        Part::Error {
            code,
            message,
            has_hint,
        } => Some((code, message, *has_hint)),
        _ => None,
    }
}

/// How they differ, in words; `None`: not at all.
pub fn difference(plain: &[Part], ours: &[Part], order: Order) -> Option<String> {
    let code = |answer: &[Part]| {
        answer
            .iter()
            .find_map(error)
            .map(|(code, ..)| code.to_owned())
    };
    let (one, other) = (code(plain), code(ours));
    // A block that has failed already takes nothing but its end; Postgres looks at the syntax first, even then.
    let in_failed_block = other.as_deref() == Some("25P02") && one.as_deref() == Some("42601");
    if one != other && !in_failed_block {
        return Some(format!(
            "error {} <> {}",
            one.unwrap_or("none".to_owned()),
            other.unwrap_or("none".to_owned())
        ));
    }
    if plain.last() != ours.last() {
        return Some(format!("{:?} <> {:?}", plain.last(), ours.last()));
    }
    // How many rows came before an error is chance.
    if one.is_some() {
        return None;
    }
    let (one, other) = (sections(plain, order), sections(ours, order));
    if one.len() != other.len() {
        return Some(format!(
            "{} messages and runs of rows <> {}",
            one.len(),
            other.len()
        ));
    }
    let unequal = one.iter().zip(&other).find(|(a, b)| a != b)?;
    Some(match unequal {
        (Section::Rows(a), Section::Rows(b)) if sorted(a) == sorted(b) => {
            "the same rows in another order".to_owned()
        }
        (Section::Rows(a), Section::Rows(b)) => {
            let first = a
                .iter()
                .zip(b)
                .position(|(a, b)| a != b)
                .unwrap_or(a.len().min(b.len()));
            format!(
                "{} rows <> {} rows; from number {first} on: {:?} <> {:?}",
                a.len(),
                b.len(),
                a.get(first).map(shown),
                b.get(first).map(shown)
            )
        }
        (a, b) => format!("{a:?} <> {b:?}"),
    })
}

type Values = Vec<Option<Vec<u8>>>;

/// Rows that follow each other, or another message.
#[derive(Debug, PartialEq)]
enum Section {
    Rows(Vec<Values>),
    Count(usize),
    Message(Part),
}

fn sections(answer: &[Part], order: Order) -> Vec<Section> {
    let mut sections = Vec::new();
    for part in answer {
        match (part, sections.last_mut()) {
            (Part::Row(row), Some(Section::Rows(rows))) => rows.push(row.clone()),
            (Part::Row(row), _) => sections.push(Section::Rows(vec![row.clone()])),
            (message, _) => sections.push(Section::Message(message.clone())),
        }
    }
    for section in &mut sections {
        if let Section::Rows(rows) = section {
            match order {
                Order::Total => {}
                Order::Any => rows.sort(),
                Order::Count => *section = Section::Count(rows.len()),
            }
        }
    }
    sections
}

fn sorted(rows: &[Values]) -> Vec<Values> {
    let mut rows = rows.to_vec();
    rows.sort();
    rows
}

/// A row for people.
pub fn shown(row: &Values) -> String {
    let value = |v: &Option<Vec<u8>>| {
        v.as_ref()
            .map_or("NULL".to_owned(), |v| v.escape_ascii().to_string())
    };
    row.iter().map(value).collect::<Vec<_>>().join("|")
}

/// An answer for people, without what would fill the screen.
pub fn answer_shown(answer: &[Part]) -> String {
    let line = |part: &Part| match part {
        Part::Columns(columns) => {
            let names: Vec<String> = columns.iter().map(|c| format!("{}:{}", c.0, c.1)).collect();
            format!("columns {}", names.join(" "))
        }
        Part::Row(row) => format!("row {}", shown(row)),
        Part::Tag(tag) => format!("tag {tag}"),
        Part::Error { code, message, .. } => format!("error {code}: {message}"),
        Part::Ready(status) => format!("ready {status}"),
        Part::Other(tag, body) => format!("{tag} {body:?}"),
    };
    let mut lines: Vec<String> = answer.iter().map(line).collect();
    if lines.len() > 24 {
        let more = lines.len() - 22;
        lines.splice(16..16 + more, [format!("... {more} more ...")]);
    }
    lines.join("\n      ")
}
