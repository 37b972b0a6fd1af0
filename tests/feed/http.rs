//! HTTP as a program without a library speaks it, the real binary that answers, and what its OpenAPI description says of an answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// One call on a connection of its own. `body` is sent as JSON.
pub fn call(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> Answer {
    try_call(at, method, path, headers, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
}

/// What `/metrics` of a service says of one that has no labels.
pub fn metric(at: SocketAddr, name: &str) -> String {
    let said = call(at, "GET", "/metrics", &[], None).body;
    let line = format!("presplit_feed_{name} ");
    let found = said.lines().find_map(|l| l.strip_prefix(&line));
    found
        .unwrap_or_else(|| panic!("no {name} in\n{said}"))
        .to_owned()
}

/// [`call`] of a service that may be gone, or go away in the middle.
pub fn try_call(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        if !headers
            .iter()
            .any(|(n, _)| n.eq_ignore_ascii_case("content-type"))
        {
            head.push_str("Content-Type: application/json\r\n");
        }
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    // A body that is too large need not be read to its end by the server.
    let _ = stream.write_all(body.unwrap_or_default().as_bytes());
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let cut_off = || io::Error::other(format!("no whole answer: {text:?}"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(cut_off)?;
    let mut lines = head.lines();
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let answer = Answer {
        status,
        headers,
        body: body.to_owned(),
    };
    if let Some(length) = answer.header("content-length")
        && length.parse() != Ok(body.len())
    {
        return Err(cut_off());
    }
    Ok(answer)
}

/// A real `presplit feed` process.
pub struct Service {
    child: Child,
    pub at: SocketAddr,
    pub log: Arc<Mutex<String>>,
}

impl Service {
    /// With these flags, and any free port. Waits until it says where it listens.
    pub fn start(flags: &[&str]) -> Service {
        let mut child = Command::new(env!("CARGO_BIN_EXE_presplit"))
            .args(["feed", "--listen", "127.0.0.1:0"])
            .args(flags)
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (to, from) = (log.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                to.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let at = line
            .strip_prefix("listening on ")
            .and_then(|l| l.split(',').next());
        let at = at.unwrap_or_else(|| panic!("it said {line:?} and {}", log.lock().unwrap()));
        Service {
            child,
            at: at.parse().unwrap(),
            log,
        }
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args([format!("-{name}"), pid])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Kills it with -9 and returns all that it has said.
    pub fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.log.lock().unwrap().clone()
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- the service said:\n{}----", self.log.lock().unwrap());
        }
    }
}

/// The description of the API, and whether answers are as it says.
pub struct Described(pub Value);

impl Described {
    /// Panics if there is no such operation, or the answer is not as its description says.
    pub fn check(&self, method: &str, path: &str, answer: &Answer) {
        let path = path.split('?').next().unwrap();
        let paths = self.0["paths"].as_object().unwrap();
        let fits = |template: &str| {
            let (t, p): (Vec<_>, Vec<_>) =
                (template.split('/').collect(), path.split('/').collect());
            t.len() == p.len() && t.iter().zip(&p).all(|(t, p)| t.starts_with('{') || t == p)
        };
        let item = paths
            .iter()
            .find(|(template, item)| fits(template) && !item[method.to_lowercase()].is_null());
        let Some((template, item)) = item else {
            panic!("{method} {path} is not described");
        };
        let responses = &item[method.to_lowercase()]["responses"];
        let status = answer.status.to_string();
        let response = match &responses[&status] {
            Value::Null => &responses["default"],
            response => response,
        };
        let what = format!("{method} {template} {status}");
        assert!(
            !response.is_null(),
            "{what} is not described: {}",
            answer.body
        );
        let Some(content) = response["content"].as_object() else {
            assert!(answer.body.is_empty(), "{what} has a body: {}", answer.body);
            return;
        };
        let (kind, content) = content.iter().next().unwrap();
        let said = answer.header("content-type").unwrap_or_default();
        assert!(
            said.starts_with(kind.as_str()),
            "{what}: {kind} is described, {said} said"
        );
        if kind.ends_with("json") {
            self.fits(&content["schema"], &answer.json(), &what);
        }
    }

    /// What of JSON schema the description makes use of; anything else panics.
    fn fits(&self, schema: &Value, value: &Value, at: &str) {
        for (word, says) in schema.as_object().unwrap() {
            match word.as_str() {
                "$ref" => {
                    let name = says.as_str().unwrap().rsplit('/').next().unwrap();
                    let schema = &self.0["components"]["schemas"][name];
                    assert!(schema.is_object(), "{at}: no schema {name}");
                    self.fits(schema, value, at);
                }
                "type" => {
                    let is = |t: &Value| match t.as_str().unwrap() {
                        "object" => value.is_object(),
                        "array" => value.is_array(),
                        "string" => value.is_string(),
                        "integer" => value.is_i64() || value.is_u64(),
                        "boolean" => value.is_boolean(),
                        "null" => value.is_null(),
                        other => panic!("{at}: type {other}"),
                    };
                    let good = match says {
                        Value::Array(types) => types.iter().any(is),
                        one => is(one),
                    };
                    assert!(good, "{at}: {value} is no {says}");
                }
                "properties" => {
                    let Some(fields) = value.as_object() else {
                        continue;
                    };
                    for (name, value) in fields {
                        let schema = says
                            .get(name)
                            .unwrap_or_else(|| panic!("{at}: {name} is not described"));
                        self.fits(schema, value, &format!("{at} {name}"));
                    }
                }
                "required" => {
                    for name in says.as_array().unwrap() {
                        assert!(
                            value.get(name.as_str().unwrap()).is_some(),
                            "{at}: no {name}"
                        );
                    }
                }
                "items" => {
                    for value in value.as_array().into_iter().flatten() {
                        self.fits(says, value, &format!("{at} []"));
                    }
                }
                "enum" => assert!(
                    says.as_array().unwrap().contains(value),
                    "{at}: {value} is none of {says}"
                ),
                "minimum" => assert!(value.as_i64() >= says.as_i64(), "{at}: {value}"),
                "maximum" => assert!(value.as_i64() <= says.as_i64(), "{at}: {value}"),
                "oneOf" => {
                    let fits = |schema: &&Value| {
                        let fits = || self.fits(schema, value, at);
                        std::panic::catch_unwind(std::panic::AssertUnwindSafe(fits)).is_ok()
                    };
                    assert!(
                        says.as_array().unwrap().iter().any(|s| fits(&s)),
                        "{at}: {value} is none of {says}"
                    );
                }
                // Fields that are not described are found above in any case.
                "additionalProperties" => assert_eq!(says, &Value::Bool(false), "{at}"),
                "description" | "examples" | "format" | "title" | "default" => {}
                other => panic!("{at}: the test does not know {other}"),
            }
        }
    }
}
