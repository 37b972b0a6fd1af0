//! A connection that reads whole answers, message by message, exactly as they come, and says faults instead of panicking:
//! for tests that compare bytes, and for those that lose connections on purpose.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::raw::{q, startup};

/// No answer takes longer, unless something hangs.
const HANG: Duration = Duration::from_secs(20);

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
    /// BackendKeyData.
    key: Vec<u8>,
}

impl Wire {
    pub fn connect(addr: SocketAddr, database: &str) -> Wire {
        Wire::try_connect(addr, database).unwrap()
    }

    /// Logs in as app without a password; why not, in words.
    pub fn try_connect(addr: SocketAddr, database: &str) -> Result<Wire, String> {
        let stream = TcpStream::connect(addr).map_err(|e| e.to_string())?;
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut wire = Wire {
            stream,
            inbox: Vec::new(),
            at: 0,
            key: Vec::new(),
        };
        let hello = startup(0, &[("user", "app"), ("database", database)]);
        let welcome = wire.ask(&hello)?;
        match welcome.last() {
            Some(Part::Ready('I')) => Ok(wire),
            _ => Err(format!("{welcome:?}")),
        }
    }

    /// Sends, and reads nothing.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(|e| e.to_string())
    }

    /// The request that cancels what this connection is at, to be sent over another.
    pub fn cancel_request(&self) -> Vec<u8> {
        let len = self.key.len() as u32 + 8;
        [
            &len.to_be_bytes()[..],
            &80_877_102u32.to_be_bytes(),
            &self.key,
        ]
        .concat()
    }

    /// Sends, and reads until ReadyForQuery. An error is said in words.
    pub fn ask(&mut self, bytes: &[u8]) -> Result<Vec<Part>, String> {
        self.send(bytes)?;
        self.receive()
    }

    /// Whether something comes (or the connection ends) within a limit.
    pub fn is_answered(&self, limit: Duration) -> bool {
        self.stream.set_read_timeout(Some(limit)).unwrap();
        let came = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(HANG)).unwrap();
        let waits = |e: &std::io::Error| e.kind() == std::io::ErrorKind::WouldBlock;
        !came.as_ref().is_err_and(waits)
    }

    /// Reads until ReadyForQuery.
    pub fn receive(&mut self) -> Result<Vec<Part>, String> {
        let mut parts = Vec::new();
        loop {
            let (tag, body) = match self.message() {
                Ok(message) => message,
                Err(why) => return Err(format!("{why}, after {parts:?}")),
            };
            match tag {
                b'K' => self.key = body,
                b'S' | b'N' | b'R' => {}
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
                // A signal, such as that of a child that was stopped.
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
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
