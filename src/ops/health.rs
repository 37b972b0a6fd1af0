//! `presplit health`: asks a running proxy whether it serves, for a container's health check. Reads no map: a proxy
//! goes on with the map in force while the file has a fault, and must not be killed for that.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// For each step: connecting, asking, being answered.
const PATIENCE: Duration = Duration::from_secs(3);
/// SSLRequest: length 8 and the code 80877103 (src/include/libpq/pqcomm.h). Answered with one byte before any login.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Asks `http://IP:PORT[/path]`, without a path `/healthz`: good is 200.
pub fn ask_url(url: &str) -> Result<(), String> {
    let rest = url
        .strip_prefix("http://")
        .ok_or("a URL begins with http://")?;
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = if path.is_empty() { "healthz" } else { path };
    let at = address
        .parse()
        .map_err(|e| format!("{address}: {e}: write IP:PORT"))?;
    ask_path(at, path).map_err(|why| format!("{url}: {why}"))
}

fn ask_path(at: SocketAddr, path: &str) -> Result<(), String> {
    let mut stream = connect(at)?;
    stream
        .write_all(format!("GET /{path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())
        .map_err(|e| e.to_string())?;
    let mut answer = String::new();
    // A health page is short; what is beyond is not read.
    stream
        .take(4096)
        .read_to_string(&mut answer)
        .map_err(|e| e.to_string())?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    match status {
        "200" => Ok(()),
        "" => Err("no answer".to_owned()),
        _ => {
            let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
            Err(format!("{status} {}", body.trim_end().replace('\n', "; ")))
        }
    }
}

/// Asks the port for clients whether anybody answers there as Postgres does.
pub fn ask_port(at: SocketAddr) -> Result<(), String> {
    let mut stream = connect(at)?;
    let mut answer = [0];
    stream
        .write_all(&SSL_REQUEST)
        .and_then(|()| stream.read_exact(&mut answer))
        .map_err(|e| e.to_string())?;
    match answer {
        [b'N' | b'S'] => Ok(()),
        [other] => Err(format!(
            "answered {:?}, which Postgres does not",
            char::from(other)
        )),
    }
}

fn connect(at: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect_timeout(&at, PATIENCE).map_err(|e| e.to_string())?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
        .map_err(|e| e.to_string())?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that reads a little and answers once.
    fn answering(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 64];
            let _ = stream.read(&mut asked);
            let _ = stream.write_all(answer);
        });
        at
    }

    fn url(at: SocketAddr) -> String {
        format!("http://{at}/healthz")
    }

    #[test]
    fn http_is_good_with_200_only() {
        assert_eq!(
            ask_url(&url(answering(b"HTTP/1.0 200 OK\r\n\r\nok\n"))),
            Ok(())
        );
        let said = ask_url(&url(answering(
            b"HTTP/1.0 503 Unavailable\r\nX: y\r\n\r\ndraining\nsince 3 s\n",
        )));
        assert!(
            said.unwrap_err()
                .ends_with("/healthz: 503 draining; since 3 s")
        );
        assert!(ask_url(&url(answering(b""))).is_err());
    }

    #[test]
    fn the_clients_port_must_answer_as_postgres_does() {
        assert_eq!(ask_port(answering(b"N")), Ok(()));
        assert!(
            ask_port(answering(b"HTTP/1.1 400"))
                .unwrap_err()
                .contains("'H'")
        );
        assert!(ask_port(answering(b"")).is_err());
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        assert!(ask_port(closed).unwrap_err().contains("refused"));
    }
}
