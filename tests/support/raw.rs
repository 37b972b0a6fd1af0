//! A client that sends exactly the frames that a test says, and shows what comes back as text: what drivers hide
//! (order, command tags, positions, status bytes) is what is to be seen.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// No reply takes longer, unless something hangs.
const HANG: Duration = Duration::from_secs(10);

/// One connection.
pub struct Raw {
    stream: TcpStream,
    inbox: Vec<u8>,
    /// What was said at login.
    pub welcome: Vec<String>,
    /// BackendKeyData: process number and secret.
    pub key: Vec<u8>,
    /// ParameterStatus as it is now.
    pub parameters: Vec<(String, String)>,
    /// Show ParameterStatus messages, too.
    pub show_parameters: bool,
    /// Show the CONTEXT of errors, too.
    pub show_context: bool,
}

/// A message of tag and body.
pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend((body.len() as u32 + 4).to_be_bytes());
    out.extend(body);
    out
}

/// A startup packet; `minor` of protocol 3.
pub fn startup(minor: u16, params: &[(&str, &str)]) -> Vec<u8> {
    let mut body = ((3u32 << 16) + u32::from(minor)).to_be_bytes().to_vec();
    for (name, value) in params {
        body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    body.push(0);
    [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

/// Query.
pub fn q(sql: &str) -> Vec<u8> {
    frame(b'Q', format!("{sql}\0").as_bytes())
}

/// Parse without types.
pub fn p(name: &str, sql: &str) -> Vec<u8> {
    pt(name, sql, &[])
}

/// Parse with types.
pub fn pt(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = format!("{name}\0{sql}\0").into_bytes();
    body.extend((types.len() as u16).to_be_bytes());
    body.extend(types.iter().flat_map(|t| t.to_be_bytes()));
    frame(b'P', &body)
}

/// Bind with text parameters.
pub fn b(portal: &str, statement: &str, params: &[&str]) -> Vec<u8> {
    let params: Vec<_> = params.iter().map(|p| Some(p.as_bytes())).collect();
    bf(portal, statement, 0, &params)
}

/// Bind with parameters in one format (0 text, 1 binary); results as text.
pub fn bf(portal: &str, statement: &str, format: u16, params: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = format!("{portal}\0{statement}\0").into_bytes();
    body.extend([0, 1]);
    body.extend(format.to_be_bytes());
    body.extend((params.len() as u16).to_be_bytes());
    for param in params {
        match param {
            Some(value) => {
                body.extend((value.len() as u32).to_be_bytes());
                body.extend(*value);
            }
            None => body.extend((-1i32).to_be_bytes()),
        }
    }
    body.extend([0, 0]);
    frame(b'B', &body)
}

/// Describe of a statement.
pub fn ds(name: &str) -> Vec<u8> {
    frame(b'D', format!("S{name}\0").as_bytes())
}

/// Describe of a portal.
pub fn dp(name: &str) -> Vec<u8> {
    frame(b'D', format!("P{name}\0").as_bytes())
}

/// Execute, at most `rows` rows (0: all).
pub fn e(portal: &str, rows: u32) -> Vec<u8> {
    let mut body = format!("{portal}\0").into_bytes();
    body.extend(rows.to_be_bytes());
    frame(b'E', &body)
}

/// Close of a statement.
pub fn cs(name: &str) -> Vec<u8> {
    frame(b'C', format!("S{name}\0").as_bytes())
}

/// Close of a portal.
pub fn cp(name: &str) -> Vec<u8> {
    frame(b'C', format!("P{name}\0").as_bytes())
}

/// Sync.
pub fn s() -> Vec<u8> {
    frame(b'S', b"")
}

/// Flush.
pub fn h() -> Vec<u8> {
    frame(b'H', b"")
}

/// CopyData.
pub fn d(data: &str) -> Vec<u8> {
    frame(b'd', data.as_bytes())
}

/// CopyDone.
pub fn done() -> Vec<u8> {
    frame(b'c', b"")
}

/// CopyFail.
pub fn fail(why: &str) -> Vec<u8> {
    frame(b'f', format!("{why}\0").as_bytes())
}

/// Parse, Bind, Execute of the unnamed statement.
pub fn pbe(sql: &str, params: &[&str]) -> Vec<u8> {
    [p("", sql), b("", "", params), e("", 0)].concat()
}

/// The same with a Describe of the portal, as drivers do it.
pub fn pbde(sql: &str, params: &[&str]) -> Vec<u8> {
    [p("", sql), b("", "", params), dp(""), e("", 0)].concat()
}

/// What a conversation came to, or with what it panicked.
pub fn or_panic(converse: impl FnOnce() -> Vec<String>) -> Vec<String> {
    catch_unwind(AssertUnwindSafe(converse)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        vec![said.unwrap_or_else(|| "panicked".to_owned())]
    })
}

/// Both, unless they are the same.
pub fn difference(what: &str, postgres: &[String], presplit: &[String]) -> Option<String> {
    (postgres != presplit)
        .then(|| format!("{what}:\n  postgres: {postgres:#?}\n  presplit: {presplit:#?}"))
}

/// Errors by code and position: their words may name a shard, a host or a hint.
pub fn essence(answer: Vec<String>, sort: bool) -> Vec<String> {
    let code = |line: String| match line.starts_with("E ") {
        true => {
            let fields = line
                .split(" | ")
                .filter(|f| f.starts_with(['C', 'P', 'c', 't']));
            format!("E {}", fields.collect::<Vec<_>>().join(" "))
        }
        false => line,
    };
    let mut lines: Vec<String> = answer.into_iter().map(code).collect();
    if sort {
        lines.sort();
    }
    lines
}

impl Raw {
    /// Logs in as app to the database app, without a password.
    pub fn connect(addr: SocketAddr) -> Raw {
        Raw::with(addr, &[])
    }

    /// With further startup parameters.
    pub fn with(addr: SocketAddr, more: &[(&str, &str)]) -> Raw {
        let mut params = vec![("user", "app"), ("database", "app")];
        params.extend(more);
        let mut raw = Raw::open(addr, &startup(0, &params));
        raw.welcome = raw.until_ready(1);
        assert_eq!(
            raw.welcome.last().map(String::as_str),
            Some("Z I"),
            "{:?}",
            raw.welcome
        );
        raw
    }

    /// Sends these bytes and nothing more.
    pub fn open(addr: SocketAddr, bytes: &[u8]) -> Raw {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_write_timeout(Some(HANG)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut raw = Raw {
            stream,
            inbox: Vec::new(),
            welcome: Vec::new(),
            key: Vec::new(),
            parameters: Vec::new(),
            show_parameters: false,
            show_context: false,
        };
        raw.send(bytes);
        raw
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends, and reads until `n` ReadyForQuery have come.
    pub fn ask(&mut self, bytes: &[u8], n: usize) -> Vec<String> {
        self.send(bytes);
        self.until_ready(n)
    }

    /// The answer to one Query.
    pub fn query(&mut self, sql: &str) -> Vec<String> {
        self.ask(&q(sql), 1)
    }

    /// Reads until `n` ReadyForQuery have come.
    pub fn until_ready(&mut self, n: usize) -> Vec<String> {
        let mut seen = 0;
        self.until(|line| {
            seen += usize::from(line.starts_with("Z "));
            seen == n
        })
    }

    /// Reads until a message that `last` holds for, or the end of the connection (shown as `EOF`).
    pub fn until(&mut self, mut last: impl FnMut(&str) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let Some((tag, body)) = self.message(&lines) else {
                lines.push("EOF".to_owned());
                return lines;
            };
            match tag {
                b'K' => self.key = body,
                b'S' => {
                    let mut parts = body.split(|b| *b == 0).map(text);
                    let (name, value) = (parts.next().unwrap(), parts.next().unwrap());
                    if self.show_parameters {
                        lines.push(format!("S {name}={value}"));
                    }
                    self.parameters.retain(|(n, _)| *n != name);
                    self.parameters.push((name, value));
                }
                _ => {
                    let line = show(tag, &body, self.show_context);
                    let end = last(&line);
                    lines.push(line);
                    if end {
                        return lines;
                    }
                }
            }
        }
    }

    /// What the server last said of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// Nothing more has come, nor comes within a moment.
    pub fn assert_silent(&mut self) {
        assert!(
            self.inbox.is_empty(),
            "more than was asked for: {:?}",
            self.inbox
        );
        self.stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let mut buf = [0; 100];
        let read = self.stream.read(&mut buf);
        self.stream.set_read_timeout(Some(HANG)).unwrap();
        assert!(
            read.is_err(),
            "something came unasked: {:?}",
            &buf[..read.unwrap()]
        );
    }

    fn message(&mut self, so_far: &[String]) -> Option<(u8, Vec<u8>)> {
        loop {
            if self.inbox.len() >= 5 {
                let len = u32::from_be_bytes(self.inbox[1..5].try_into().unwrap()) as usize + 1;
                if self.inbox.len() >= len {
                    let message: Vec<u8> = self.inbox.drain(..len).collect();
                    return Some((message[0], message[5..].to_vec()));
                }
            }
            let mut buf = [0; 65536];
            match self.stream.read(&mut buf) {
                Ok(0) => return None,
                Ok(n) => self.inbox.extend(&buf[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => panic!("HANG: {e}; got so far: {so_far:#?}"),
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A backend message in words. Left out is what differs between two servers with the same data: source lines of errors,
/// OIDs of tables, schemas.
fn show(tag: u8, body: &[u8], context: bool) -> String {
    let shown = match tag {
        b'E' | b'N' => {
            let fields = body.split(|b| *b == 0).filter(|f| !f.is_empty()).map(text);
            let kept: Vec<_> = fields
                .filter(|f| {
                    b"VCMDHPtcn".contains(&f.as_bytes()[0]) || context && f.starts_with('W')
                })
                .collect();
            kept.join(" | ")
        }
        b'T' => {
            let mut columns = Vec::new();
            let mut at = 2;
            while at < body.len() {
                let end = at + body[at..].iter().position(|b| *b == 0).unwrap();
                let rest = &body[end + 1..end + 19];
                let number = |range: std::ops::Range<usize>| {
                    rest[range]
                        .iter()
                        .fold(0i64, |n, b| n * 256 + i64::from(*b))
                };
                let (column, oid, size, format) = (
                    number(4..6),
                    number(6..10),
                    number(10..12) as i16,
                    number(16..18),
                );
                // Types of our own have other numbers on every server.
                let oid = if oid < 16384 {
                    oid.to_string()
                } else {
                    "own".to_owned()
                };
                columns.push(format!(
                    "{}:{oid}/{size}@{column}f{format}",
                    text(&body[at..end])
                ));
                at = end + 19;
            }
            columns.join(" ")
        }
        b'D' => {
            let mut values = Vec::new();
            let mut at = 2;
            while at < body.len() {
                let len = i32::from_be_bytes(body[at..at + 4].try_into().unwrap());
                at += 4;
                if len < 0 {
                    values.push("NULL".to_owned());
                    continue;
                }
                values.push(text(&body[at..at + len as usize]));
                at += len as usize;
            }
            values.join("|")
        }
        b't' => {
            let oids = body[2..]
                .chunks(4)
                .map(|c| u32::from_be_bytes(c.try_into().unwrap()).to_string());
            oids.collect::<Vec<_>>().join(" ")
        }
        b'R' => format!("{:?}", &body[..4.min(body.len())]),
        b'G' | b'H' => format!("{body:?}"),
        _ => text(body).trim_end_matches('\0').to_owned(),
    };
    format!("{} {shown}", char::from(tag)).trim_end().to_owned()
}
