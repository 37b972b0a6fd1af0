//! What a stream is made of: frontend messages, and what the client does between them.

use super::texts;
use crate::support::raw::{self, frame};

/// A message, or something else that the client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Query(String),
    Parse {
        name: String,
        sql: String,
        types: Vec<u32>,
    },
    Bind {
        portal: String,
        statement: String,
        formats: Vec<u16>,
        params: Vec<Option<Vec<u8>>>,
        results: Vec<u16>,
    },
    DescribeStatement(String),
    DescribePortal(String),
    Execute(String, u32),
    CloseStatement(String),
    ClosePortal(String),
    Sync,
    Flush,
    CopyData(Vec<u8>),
    CopyDone,
    CopyFail(String),
    /// A function of Postgres by its number, with arguments as text.
    FunctionCall(u32, Vec<String>),
    /// All that can be answered by now has been, before more is sent.
    Pause,
    /// Once the server is at a long statement (it says so), another connection asks to have it cancelled; then as `Pause`.
    Cancel,
    /// Another connection asks to cancel whatever there is: nothing, as all is answered.
    CancelNothing,
}

impl Message {
    /// As it is sent; nothing for what is no message.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Message::Query(sql) => raw::q(sql),
            Message::Parse { name, sql, types } => raw::pt(name, sql, types),
            Message::Bind {
                portal,
                statement,
                formats,
                params,
                results,
            } => bind(portal, statement, formats, params, results),
            Message::DescribeStatement(name) => raw::ds(name),
            Message::DescribePortal(name) => raw::dp(name),
            Message::Execute(portal, rows) => raw::e(portal, *rows),
            Message::CloseStatement(name) => raw::cs(name),
            Message::ClosePortal(name) => raw::cp(name),
            Message::Sync => raw::s(),
            Message::Flush => raw::h(),
            Message::CopyData(data) => frame(b'd', data),
            Message::CopyDone => raw::done(),
            Message::CopyFail(why) => raw::fail(why),
            Message::FunctionCall(function, args) => call(*function, args),
            Message::Pause | Message::Cancel | Message::CancelNothing => Vec::new(),
        }
    }

    /// With the users in its text.
    pub fn about(self, users: &[i64]) -> Message {
        let fill = |text: String| texts::fill(&text, users);
        match self {
            Message::Query(sql) => Message::Query(fill(sql)),
            Message::Parse { name, sql, types } => Message::Parse {
                name,
                sql: fill(sql),
                types,
            },
            Message::CopyData(data) => match String::from_utf8(data) {
                Ok(data) => Message::CopyData(fill(data).into_bytes()),
                Err(data) => Message::CopyData(data.into_bytes()),
            },
            other => other,
        }
    }

    /// The SQL in it.
    pub fn text(&self) -> Option<&str> {
        match self {
            Message::Query(sql) | Message::Parse { sql, .. } => Some(sql),
            _ => None,
        }
    }

    /// One line for a person.
    pub fn show(&self) -> String {
        let value = |value: &Option<Vec<u8>>| match value {
            None => "NULL".to_owned(),
            Some(bytes) => format!("'{}'", bytes.escape_ascii()),
        };
        match self {
            Message::Query(sql) => format!("Query {sql}"),
            Message::Parse { name, sql, types } => format!("Parse \"{name}\" {types:?} {sql}"),
            Message::Bind {
                portal,
                statement,
                formats,
                params,
                results,
            } => {
                let params: Vec<_> = params.iter().map(value).collect();
                format!(
                    "Bind portal \"{portal}\" statement \"{statement}\" {formats:?} ({}) {results:?}",
                    params.join(", ")
                )
            }
            Message::CopyData(data) => format!("CopyData '{}'", data.escape_ascii()),
            other => format!("{other:?}"),
        }
    }
}

fn call(function: u32, args: &[String]) -> Vec<u8> {
    let mut body = function.to_be_bytes().to_vec();
    body.extend([0, 0]);
    body.extend((args.len() as u16).to_be_bytes());
    for arg in args {
        body.extend((arg.len() as u32).to_be_bytes());
        body.extend(arg.as_bytes());
    }
    body.extend([0, 0]);
    frame(b'F', &body)
}

fn bind(
    portal: &str,
    statement: &str,
    formats: &[u16],
    params: &[Option<Vec<u8>>],
    results: &[u16],
) -> Vec<u8> {
    fn shorts(body: &mut Vec<u8>, values: &[u16]) {
        body.extend((values.len() as u16).to_be_bytes());
        body.extend(values.iter().flat_map(|v| v.to_be_bytes()));
    }
    let mut body = format!("{portal}\0{statement}\0").into_bytes();
    shorts(&mut body, formats);
    body.extend((params.len() as u16).to_be_bytes());
    for param in params {
        match param {
            Some(value) => {
                body.extend((value.len() as u32).to_be_bytes());
                body.extend(value);
            }
            None => body.extend((-1i32).to_be_bytes()),
        }
    }
    shorts(&mut body, results);
    frame(b'B', &body)
}
