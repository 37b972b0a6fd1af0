//! One statement as messages, in one of three ways, and its answer.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use crate::support::raw::{cs, ds, e, frame, pt, q, s, startup};

use super::generator::{Effect, Order, Statement};
use super::values::Value;

/// No answer takes longer, unless something hangs.
const HANG: Duration = Duration::from_secs(20);

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

/// Part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Name, type, type size, modifier, format, column number, whether it is of a table.
    Columns(Vec<(String, u32, i16, i32, i16, i16, bool)>),
    Row(Vec<Option<Vec<u8>>>),
    Tag(String),
    Error {
        code: String,
        message: String,
        has_hint: bool,
    },
    Ready(char),
    Other(char, Vec<u8>),
}

/// A connection.
pub struct Wire {
    stream: TcpStream,
    inbox: Vec<u8>,
    at: usize,
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
        && rng.random_bool(0.08);
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

impl Wire {
    pub fn connect(addr: SocketAddr, database: &str) -> Wire {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut wire = Wire {
            stream,
            inbox: Vec::new(),
            at: 0,
        };
        let hello = startup(0, &[("user", "app"), ("database", database)]);
        let welcome = wire.ask(&hello).unwrap();
        assert_eq!(welcome.last(), Some(&Part::Ready('I')), "{welcome:?}");
        wire
    }

    /// Sends, and reads until ReadyForQuery. An error is said in words.
    pub fn ask(&mut self, bytes: &[u8]) -> Result<Vec<Part>, String> {
        self.stream.write_all(bytes).map_err(|e| e.to_string())?;
        let mut parts = Vec::new();
        loop {
            let (tag, body) = match self.message() {
                Ok(message) => message,
                Err(why) => return Err(format!("{why}, after {parts:?}")),
            };
            match tag {
                b'S' | b'N' | b'K' | b'R' => {}
                _ => parts.push(part(tag, &body)),
            }
            if tag == b'Z' {
                return Ok(parts);
            }
        }
    }

    /// A statement without parameters that must not fail.
    pub fn run(&mut self, sql: &str) -> Vec<Part> {
        let parts = self.ask(&q(sql)).unwrap();
        if let Some(fault) = parts.iter().find(|p| matches!(p, Part::Error { .. })) {
            panic!("{fault:?}\n{sql}");
        }
        parts
    }

    fn message(&mut self) -> Result<(u8, Vec<u8>), String> {
        loop {
            let waiting = &self.inbox[self.at..];
            if waiting.len() >= 5 {
                let len = u32::from_be_bytes(waiting[1..5].try_into().unwrap()) as usize + 1;
                if waiting.len() >= len {
                    let message = (waiting[0], waiting[5..len].to_vec());
                    self.at += len;
                    return Ok(message);
                }
            }
            self.inbox.drain(..self.at);
            self.at = 0;
            let mut buf = [0; 65536];
            match self.stream.read(&mut buf) {
                Ok(0) => return Err("the connection was closed".to_owned()),
                Ok(n) => self.inbox.extend(&buf[..n]),
                Err(e) => return Err(format!("no answer ({e})")),
            }
        }
    }
}

fn part(tag: u8, body: &[u8]) -> Part {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match tag {
        b'T' => Part::Columns(columns(body)),
        b'D' => {
            let (mut values, mut at) = (Vec::new(), 2);
            while at < body.len() {
                let len = i32::from_be_bytes(body[at..at + 4].try_into().unwrap());
                at += 4;
                let value = usize::try_from(len)
                    .ok()
                    .map(|len| body[at..at + len].to_vec());
                at += value.as_ref().map_or(0, Vec::len);
                values.push(value);
            }
            Part::Row(values)
        }
        b'C' => Part::Tag(text(body.strip_suffix(b"\0").unwrap())),
        b'E' => {
            let field = |tag: u8| {
                let mut fields = body.split(|b| *b == 0).filter(|f| f.first() == Some(&tag));
                fields.next().map(|f| text(&f[1..]))
            };
            Part::Error {
                code: field(b'C').unwrap_or_default(),
                message: field(b'M').unwrap_or_default(),
                has_hint: field(b'H').is_some_and(|hint| !hint.is_empty()),
            }
        }
        b'Z' => Part::Ready(char::from(body[0])),
        _ => Part::Other(char::from(tag), body.to_vec()),
    }
}

fn columns(body: &[u8]) -> Vec<(String, u32, i16, i32, i16, i16, bool)> {
    let (mut columns, mut at) = (Vec::new(), 2);
    while at < body.len() {
        let end = at + body[at..].iter().position(|b| *b == 0).unwrap();
        let f = &body[end + 1..end + 19];
        let long = |at: usize| u32::from_be_bytes(f[at..at + 4].try_into().unwrap());
        let short = |at: usize| i16::from_be_bytes(f[at..at + 2].try_into().unwrap());
        // Types of our own have other numbers on every server.
        let of = long(6).min(16384);
        let name = String::from_utf8_lossy(&body[at..end]).into_owned();
        columns.push((
            name,
            of,
            short(10),
            long(12) as i32,
            short(16),
            short(4),
            long(0) != 0,
        ));
        at = end + 19;
    }
    columns
}
