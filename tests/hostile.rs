//! What a stranger can send: random bytes, truncated frames, frames that lie about their length, at every state of a
//! connection. Each must end in whole backend messages and a close, never in a panic, a hang or growth.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::support::{Hosts, Proxy};

/// Messages sent after login, over all connections.
const AFTER_LOGIN: usize = 80_000;
/// Connections that send garbage instead of a startup packet.
const BEFORE_STARTUP: usize = 17_000;
/// Connections that send garbage instead of a SCRAM message.
const DURING_AUTH: usize = 3_000;

const SEED: u64 = 20_150_101;
const HANG: Duration = Duration::from_secs(20);

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend((body.len() as u32 + 4).to_be_bytes());
    out.extend(body);
    out
}

fn startup(user: &str) -> Vec<u8> {
    let body = [
        &196_608u32.to_be_bytes()[..],
        b"user\0",
        user.as_bytes(),
        b"\0database\0app\0\0",
    ]
    .concat();
    [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

/// Valid messages of every kind, to be spoilt.
fn templates() -> Vec<Vec<u8>> {
    let bind = |portal: &[u8], statement: &[u8], value: &[u8]| {
        let mut body = [portal, b"\0", statement, b"\0", &[0, 1, 0, 1, 0, 1]].concat();
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(value);
        body.extend([0, 1, 0, 1]);
        frame(b'B', &body)
    };
    vec![
        frame(b'Q', b"SELECT 1\0"),
        frame(b'Q', b"SELECT * FROM photos WHERE user_id = 42\0"),
        frame(b'Q', b"BEGIN\0"),
        frame(b'Q', b"ROLLBACK\0"),
        frame(b'Q', b"SELECT 1; SELECT 2\0"),
        frame(b'Q', b"SET work_mem = '1MB'\0"),
        frame(b'Q', b"SELECT '\xff\xfe' /* presplit: key=1 */\0"),
        frame(b'Q', b"SAVEPOINT a\0"),
        frame(
            b'P',
            b"\0SELECT * FROM photos WHERE user_id = $1\0\0\x01\0\0\0\x14",
        ),
        frame(b'P', b"named\0SELECT $1::text\0\0\0"),
        bind(b"", b"", &42i64.to_be_bytes()),
        bind(b"portal", b"named", b"text"),
        frame(b'D', b"S\0"),
        frame(b'D', b"Pportal\0"),
        frame(b'E', b"\0\0\0\0\0"),
        frame(b'E', b"portal\0\0\0\0\x05"),
        frame(b'C', b"Snamed\0"),
        frame(b'C', b"P\0"),
        frame(b'H', b""),
        frame(b'S', b""),
        frame(b'F', b"\0\0\0\x01\0\0\0\0\0\0"),
        frame(b'd', b"1\t2\n"),
        frame(b'c', b""),
        frame(b'f', b"no\0"),
        frame(b'p', b"secret\0"),
    ]
}

/// A template, most of the time spoilt: bytes flipped, cut, the length lying, the tag another, or noise altogether.
fn message(rng: &mut StdRng, templates: &[Vec<u8>]) -> Vec<u8> {
    let mut m = templates.choose(rng).unwrap().clone();
    match rng.random_range(0..10) {
        0..4 => {}
        4 | 5 => {
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..m.len());
                m[at] = rng.random();
            }
        }
        6 => m.truncate(rng.random_range(0..m.len())),
        7 => {
            let lie: u32 = *[
                0,
                1,
                3,
                4,
                5,
                6,
                100,
                9_999,
                10_001,
                70_000,
                0x3fff_ffff,
                0x7fff_ffff,
                u32::MAX,
            ]
            .choose(rng)
            .unwrap();
            m[1..5].copy_from_slice(&lie.to_be_bytes());
        }
        8 => m[0] = rng.random(),
        _ => m = (0..rng.random_range(0..40)).map(|_| rng.random()).collect(),
    }
    m
}

/// Sends, closes our side, and reads all that comes back. Panics if the proxy does not close in time.
fn converse(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream.set_write_timeout(Some(HANG)).unwrap();
    // The proxy may close before it has read all: then the rest cannot be sent, and a reset may take the answer.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => answer,
        Err(e) => panic!("no close after {bytes:?}: {e}; got {answer:?}"),
    }
}

/// The answer is made of whole backend messages.
fn assert_messages(mut answer: &[u8], sent: &[u8]) {
    while !answer.is_empty() {
        let whole = answer.len() >= 5 && {
            let len = u32::from_be_bytes(answer[1..5].try_into().unwrap()) as usize + 1;
            len <= answer.len()
        };
        assert!(whole, "a message is cut: {answer:?} after {sent:?}");
        let len = u32::from_be_bytes(answer[1..5].try_into().unwrap()) as usize + 1;
        assert!(
            b"RSKZEN123TDCnItsGHdcAWV".contains(&answer[0]),
            "no backend message: {answer:?} after {sent:?}"
        );
        answer = &answer[len..];
    }
}

/// Resident memory in kB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_at_every_state_end_in_a_clean_close() {
    let hosts = Hosts::provisioned(1, 2).await;
    let text = hosts.map_text(1, "[proxy.limits]\nclients = 200\n").replace(
        "[users.app]\n",
        // The password is "secret"; the verifier was made by Postgres 15.
        "[users.app]\n\n[users.guarded]\npassword = \"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\"\n",
    );
    hosts.write_map(&text);
    let proxy = Proxy::start(&hosts);
    let (addr, pid) = (proxy.addr(), proxy.pid());
    tokio::task::spawn_blocking(move || {
        let templates = templates();
        let login = startup("app");
        // Warm, so that caches and buffers are there before memory is measured.
        let mut rng = StdRng::seed_from_u64(SEED);
        for _ in 0..200 {
            let bytes = [&login[..], &message(&mut rng, &templates)].concat();
            converse(addr, &bytes);
        }
        let before = resident(pid);
        let threads: Vec<_> = (0..4u64)
            .map(|t| {
                let (templates, login) = (templates.clone(), login.clone());
                std::thread::spawn(move || {
                    let mut rng = StdRng::seed_from_u64(SEED + 1 + t);
                    let mut sent = 0;
                    while sent < AFTER_LOGIN / 4 {
                        let n = rng.random_range(1..40);
                        let mut bytes = login.clone();
                        for _ in 0..n {
                            bytes.extend(message(&mut rng, &templates));
                        }
                        let answer = converse(addr, &bytes);
                        assert_messages(&answer, &bytes);
                        sent += n;
                    }
                    for _ in 0..BEFORE_STARTUP / 4 {
                        let mut bytes = startup("app");
                        for _ in 0..rng.random_range(1..5) {
                            let at = rng.random_range(0..bytes.len());
                            bytes[at] = rng.random();
                        }
                        if rng.random_bool(0.3) {
                            bytes = (0..rng.random_range(0..60)).map(|_| rng.random()).collect();
                        }
                        converse(addr, &bytes);
                    }
                    for _ in 0..DURING_AUTH / 4 {
                        let mut bytes = startup("guarded");
                        let mut body =
                            b"SCRAM-SHA-256\0\0\0\0\x20n,,n=,r=rOprNGfwEbeRWgbNEkqO%hvY".to_vec();
                        let at = rng.random_range(0..body.len());
                        body[at] = rng.random();
                        bytes.extend(frame(b'p', &body));
                        let proof = message(&mut rng, &templates);
                        bytes.extend(proof);
                        let answer = converse(addr, &bytes);
                        assert_messages(&answer, &bytes);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let grown = resident(pid).saturating_sub(before);
        assert!(grown < 64 * 1024, "memory grew by {grown} kB");
    })
    .await
    .unwrap();
    let one = proxy
        .client()
        .await
        .query_one("SELECT 1", &[])
        .await
        .unwrap();
    assert_eq!(one.get::<_, i32>(0), 1, "it still serves");
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
}
