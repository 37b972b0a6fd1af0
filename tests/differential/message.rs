//! One statement as messages, in one of three ways.

use std::collections::HashMap;

use rand::Rng;
use rand::rngs::StdRng;

use crate::support::raw::{cs, ds, e, frame, pt, q, s};

use super::generator::{Effect, Order, Statement};
use super::values::Value;

/// How a statement is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Simple,
    Text,
    Binary,
}

pub const WAYS: [Way; 3] = [Way::Simple, Way::Text, Way::Binary];

/// Messages that end with one that ReadyForQuery answers.
pub struct Sent {
    pub bytes: Vec<u8>,
    /// The statement as it is sent, and its parameters.
    pub shown: String,
}

impl Sent {
    /// The statement in this way. What is left open (which values are parameters, named or not) is `rng`'s choice.
    pub fn new(statement: &Statement, way: Way, rng: &mut StdRng) -> Sent {
        let mut text = String::new();
        let mut written: HashMap<usize, String> = HashMap::new();
        let mut params: Vec<&Value> = Vec::new();
        for (n, piece) in statement.text.split('\u{1}').enumerate() {
            if n % 2 == 0 {
                text.push_str(piece);
                continue;
            }
            let at: usize = piece.parse().unwrap();
            // The same value is written in the same way: GROUP BY compares expressions.
            let form = written.entry(at).or_insert_with(|| {
                let value = &statement.values[at];
                if way == Way::Simple || rng.random_bool(0.12) {
                    return value.literal(rng);
                }
                params.push(value);
                let cast = if rng.random_bool(0.05) {
                    format!("::{}", value.of.sql())
                } else {
                    String::new()
                };
                format!("${}{cast}", params.len())
            });
            text.push_str(form);
        }
        match way {
            Way::Simple => Sent {
                bytes: q(&text),
                shown: format!("Query: {text}"),
            },
            Way::Text | Way::Binary => extended(statement, &text, &params, way, rng),
        }
    }
}

fn extended(
    statement: &Statement,
    text: &str,
    params: &[&Value],
    way: Way,
    rng: &mut StdRng,
) -> Sent {
    let name = if rng.random_bool(0.25) { "named" } else { "" };
    // Of a binary value the type must be known, and it may be another than would be inferred.
    let types: Vec<u32> = match way {
        Way::Binary => params.iter().map(|p| p.of.oid()).collect(),
        _ if rng.random_bool(0.3) => params.iter().map(|p| p.of.oid()).collect(),
        _ => Vec::new(),
    };
    let mut bytes = Vec::new();
    if name == "named" {
        bytes.extend(cs(name));
    }
    bytes.extend(pt(name, text, &types));
    if rng.random_bool(0.3) {
        bytes.extend(ds(name));
    }
    let limited = statement.order == Order::Total
        && statement.effect == Effect::Read
        && rng.random_bool(0.04);
    let twice = statement.effect == Effect::Read && rng.random_bool(0.1);
    for _ in 0..=usize::from(twice) {
        bytes.extend(bind(name, params, way));
        bytes.extend(frame(b'D', b"P\0"));
        if limited {
            bytes.extend(e("", 2));
        }
        bytes.extend(e("", 0));
    }
    bytes.extend(s());
    let shown: Vec<String> = params
        .iter()
        .enumerate()
        .map(|(n, p)| {
            format!(
                "${} {} = {}",
                n + 1,
                p.of.sql(),
                p.text().unwrap_or("NULL".to_owned())
            )
        })
        .collect();
    let how = format!(
        "{way:?}{}{}{}",
        if name.is_empty() { "" } else { ", named" },
        if limited { ", two rows first" } else { "" },
        if twice { ", twice" } else { "" }
    );
    let typed = if types.is_empty() {
        ""
    } else {
        ", types given"
    };
    Sent {
        bytes,
        shown: format!("{how}{typed}: {text}\n    {}", shown.join(", ")),
    }
}

fn bind(name: &str, params: &[&Value], way: Way) -> Vec<u8> {
    let format = i16::from(way == Way::Binary);
    let mut body = format!("\0{name}\0").into_bytes();
    body.extend(1i16.to_be_bytes());
    body.extend(format.to_be_bytes());
    body.extend((params.len() as u16).to_be_bytes());
    for param in params {
        let value = match way {
            Way::Binary => param.binary(),
            _ => param.text().map(String::into_bytes),
        };
        match value {
            None => body.extend((-1i32).to_be_bytes()),
            Some(value) => {
                body.extend((value.len() as i32).to_be_bytes());
                body.extend(value);
            }
        }
    }
    body.extend(1i16.to_be_bytes());
    body.extend(format.to_be_bytes());
    frame(b'B', &body)
}
