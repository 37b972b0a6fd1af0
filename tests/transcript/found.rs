//! Streams that were once answered otherwise than by Postgres, each as small as it could be made.

use super::message::Message::{self, *};

fn q(sql: &str) -> Message {
    Query(sql.to_owned())
}

fn p(name: &str, sql: &str) -> Message {
    Parse {
        name: name.to_owned(),
        sql: sql.to_owned(),
        types: Vec::new(),
    }
}

/// Bind with text parameters.
fn b(portal: &str, statement: &str, params: &[&str]) -> Message {
    Bind {
        portal: portal.to_owned(),
        statement: statement.to_owned(),
        formats: Vec::new(),
        params: params.iter().map(|p| Some(p.as_bytes().to_vec())).collect(),
        results: Vec::new(),
    }
}

fn e(portal: &str, rows: u32) -> Message {
    Execute(portal.to_owned(), rows)
}

/// Parse, Bind and Execute.
fn run(sql: &str) -> Vec<Message> {
    vec![p("", sql), b("", "", &[]), e("", 0)]
}

/// What it is about, and the messages; `{k}` and `{j}` are the stream's users.
pub fn streams() -> Vec<(&'static str, Vec<Message>)> {
    const ITEMS: &str = "SELECT id, note FROM items WHERE user_id = {k} ORDER BY id";
    vec![(
        "a message that fails, then a batch",
        vec![
            q(
                "RESET SESSION AUTHORIZATION; DECLARE x SCROLL CURSOR FOR SELECT id FROM items WHERE user_id = {k} ORDER BY id; SET extra_float_digits = -10; SELECT 1",
            ),
            p("", ITEMS),
            ClosePortal("c".to_owned()),
            b("c", "", &[]),
            e("y", 1),
            Sync,
        ],
    )]
}
