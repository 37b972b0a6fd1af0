//! `presplit health`: asks a running proxy of this machine whether it serves. For a container's health check.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::shardmap::ProxySettings;

/// For each step: connecting, asking, being answered.
const PATIENCE: Duration = Duration::from_secs(3);
/// SSLRequest: length 8 and the code 80877103 (src/include/libpq/pqcomm.h). Answered with one byte before any login.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Asks `/healthz` if the map names an HTTP address; else whether the proxy answers clients at all.
pub fn ask(proxy: &ProxySettings) -> Result<(), String> {
    match proxy.http {
        Some(http) => ask_http(reachable(http)).map_err(|why| format!("http://{http}/healthz: {why}")),
        None => ask_port(reachable(proxy.listen)).map_err(|why| format!("{}: {why}", proxy.listen)),
    }
}

/// Asks `http://IP:PORT[/path]`, whatever the map says: a map that is being edited must not make a proxy look sick.
pub fn ask_url(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://").ok_or("a URL begins with http://")?;
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = if path.is_empty() { "healthz" } else { path };
    let at = address.parse().map_err(|e| format!("{address}: {e}: write IP:PORT"))?;
    ask_path(at, path).map_err(|why| format!("{url}: {why}"))
}

fn ask_http(at: SocketAddr) -> Result<(), String> {
    ask_path(at, "healthz")
}

fn ask_path(at: SocketAddr, path: &str) -> Result<(), String> {
    let mut stream = connect(at)?;
    stream
        .write_all(format!("GET /{path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())
        .map_err(|e| e.to_string())?;
    let mut answer = String::new();
    // A health page is short; what is beyond is not read.
    stream.take(4096).read_to_string(&mut answer).map_err(|e| e.to_string())?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    match status {
        "200" => Ok(()),
        _ => Err(format!("{status} {}", answer.lines().last().unwrap_or("no answer"))),
    }
}

fn ask_port(at: SocketAddr) -> Result<(), String> {
    let mut stream = connect(at)?;
    let mut answer = [0];
    stream.write_all(&SSL_REQUEST).and_then(|()| stream.read_exact(&mut answer)).map_err(|e| e.to_string())?;
    match answer {
        [b'N' | b'S'] => Ok(()),
        [other] => Err(format!("answered {:?}, which Postgres does not", char::from(other))),
    }
}

fn connect(at: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect_timeout(&at, PATIENCE).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE))).map_err(|e| e.to_string())?;
    Ok(stream)
}

/// A proxy that listens on every address is asked on loopback.
fn reachable(mut at: SocketAddr) -> SocketAddr {
    if at.ip().is_unspecified() {
        at.set_ip(match at.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    at
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

    #[test]
    fn http_is_asked_when_there_is_one_and_only_200_is_good() {
        let settings = |at| ProxySettings { http: Some(at), ..ProxySettings::default() };
        assert_eq!(ask(&settings(answering(b"HTTP/1.0 200 OK\r\n\r\nok\n"))), Ok(()));
        let said = ask(&settings(answering(b"HTTP/1.0 503 Unavailable\r\n\r\ndraining\n"))).unwrap_err();
        assert!(said.ends_with("/healthz: 503 draining"), "{said}");
    }

    #[test]
    fn without_http_the_clients_port_must_answer_as_postgres_does() {
        let settings = |at| ProxySettings { listen: at, ..ProxySettings::default() };
        assert_eq!(ask(&settings(answering(b"N"))), Ok(()));
        assert!(ask(&settings(answering(b"HTTP/1.1 400"))).unwrap_err().contains("'H'"));
        assert!(ask(&settings(answering(b""))).is_err());
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(ask(&settings(closed)).unwrap_err().contains("refused"));
    }

    #[test]
    fn every_address_means_loopback() {
        assert_eq!(reachable("0.0.0.0:6432".parse().unwrap()), "127.0.0.1:6432".parse().unwrap());
        assert_eq!(reachable("[::]:6432".parse().unwrap()), "[::1]:6432".parse().unwrap());
    }
}
