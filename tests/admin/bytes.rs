//! Bytes that are no messages, and messages in the wrong place.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{hostless, psql, text};
use crate::support::Proxy;

/// A connection that has logged in, by hand.
fn raw(proxy: &Proxy) -> TcpStream {
    let mut socket = TcpStream::connect(proxy.addr()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let startup = message(0, b"\0\x03\0\0user\0app\0database\0presplit\0\0");
    socket.write_all(&startup[1..]).unwrap();
    loop {
        let mut head = [0; 5];
        socket.read_exact(&mut head).unwrap();
        let mut body = vec![0; u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4];
        socket.read_exact(&mut body).unwrap();
        assert_ne!(head[0], b'E', "{}", text(&body));
        if head[0] == b'Z' {
            return socket;
        }
    }
}

/// The tags of whole messages; nothing may be left.
fn tags(mut bytes: &[u8]) -> Vec<u8> {
    let mut tags = Vec::new();
    while let [tag, a, b, c, d, ..] = bytes {
        tags.push(*tag);
        let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize + 1;
        bytes = &bytes[len..];
    }
    assert!(bytes.is_empty());
    tags
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(body);
    message
}

/// Sends and reads to the end, which must come.
fn exchange(proxy: &Proxy, bytes: &[u8]) -> Vec<u8> {
    let mut socket = raw(proxy);
    // The proxy may close before all is sent.
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => Vec::new(),
        Err(e) => panic!("{e} after {bytes:?}"),
        Ok(_) => answer,
    }
}

#[test]
fn a_broken_batch_is_skipped_up_to_its_sync() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = hostless(directory.path(), "[users.app]");
    let parse = |text: &str| message(b'P', format!("\0{text}\0\0\0").as_bytes());
    let bind = message(b'B', b"\0\0\0\0\0\0\0\0");
    let execute = message(b'E', b"\0\0\0\0\0");
    let sync = message(b'S', b"");
    let batch = [
        parse("SHOW VERSION"),
        bind.clone(),
        message(b'D', b"P\0"),
        execute.clone(),
        sync.clone(),
        parse("nonsense"),
        bind.clone(),
        execute.clone(),
        sync.clone(),
        parse(""),
        bind.clone(),
        message(b'D', b"P\0"),
        execute.clone(),
        message(b'C', b"Sx\0"),
        sync.clone(),
        execute,
        sync.clone(),
        message(b'B', b"\0no such statement\0\0\0\0\0\0\0"),
        sync.clone(),
        message(b'Q', b"SHOW"),
        message(b'F', b"\0\0\0\x01"),
        message(b'S', b"x"),
    ];
    let answer = exchange(&proxy, &batch.concat());
    assert_eq!(text(&tags(&answer)), "12TDCZEZ12nI3ZEZEZEZEZEZ");
    // Too long, and no message at all: told, and over.
    for fatal in [
        &b"Q\0\x10\0\0"[..],
        b"Q\0\0\0\x03",
        b"z\0\0\0\x04",
        b"P\xff\xff\xff\xff",
        b"S\0\0\xff\xff",
    ] {
        let answer = exchange(&proxy, fatal);
        assert!(
            text(&answer).contains("SFATAL\0"),
            "{fatal:?}: {}",
            text(&answer)
        );
    }
}

#[test]
fn random_bytes_end_in_a_clean_error() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = hostless(directory.path(), "[users.app]");
    let mut rng = StdRng::seed_from_u64(11);
    for _ in 0..1500 {
        let mut bytes = Vec::new();
        for _ in 0..rng.random_range(1..8) {
            let tag = b"QPBDECHSFdcfX"[rng.random_range(0..13)];
            let mut body: Vec<u8> = (0..rng.random_range(0..40)).map(|_| rng.random()).collect();
            match rng.random_range(0..6) {
                // Nothing in it is right.
                0 => bytes.extend_from_slice(&body),
                1 => bytes.extend(message(tag, &body)),
                // Fields that are nearly right.
                2 => bytes.extend(message(tag, b"\0SHOW MAP\0\0\0")),
                3 => bytes.extend(message(b'Q', b"show stats;\0")),
                4 => {
                    body.iter_mut().for_each(|b| *b &= 3);
                    bytes.extend(message(tag, &body));
                }
                // The length lies.
                _ => {
                    let mut lying = message(tag, &body);
                    lying[rng.random_range(1..5)] ^= 1 << rng.random_range(0..8);
                    bytes.extend(lying);
                }
            }
        }
        tags(&exchange(&proxy, &bytes));
    }
    assert!(psql(&proxy, &["-c", "SHOW CLIENTS"]).status.success());
}
