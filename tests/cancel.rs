//! Cancel requests that reach another proxy than the one that gave the key, and the keys of protocol 3.2.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::raw::{q, startup};
use crate::support::{Hosts, Proxy, Raw};

const LOGIN: &[(&str, &str)] = &[("user", "app"), ("database", "app")];

fn request(key: &[u8]) -> Vec<u8> {
    let len = (key.len() as u32 + 8).to_be_bytes();
    [&len[..], &80_877_102u32.to_be_bytes(), key].concat()
}

/// Sends a cancel request and waits until it is dealt with.
fn cancel(addr: SocketAddr, key: &[u8]) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(&request(key)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty(), "{answer:?}");
}

/// A client that speaks this minor version.
fn client(addr: SocketAddr, minor: u16) -> Raw {
    let mut raw = Raw::open(addr, &startup(minor, LOGIN));
    raw.welcome = raw.until_ready(1);
    assert_eq!(
        raw.welcome.last().map(String::as_str),
        Some("Z I"),
        "{:?}",
        raw.welcome
    );
    raw
}

/// Writes a map file of its own.
fn write(hosts: &Hosts, name: &str, proxy: &str) -> PathBuf {
    let (file, new) = (hosts.dir().join(name), hosts.dir().join("new"));
    std::fs::write(&new, hosts.map_text(1, proxy)).unwrap();
    std::fs::rename(&new, &file).unwrap();
    file
}

/// Has a client of `own` sleep, and sends the cancel to `other`.
async fn ends_by(hosts: &Hosts, own: &Proxy, other: &Proxy, minor: u16) {
    let mut raw = client(own.addr(), minor);
    assert_eq!(raw.key.len(), if minor >= 2 { 36 } else { 8 });
    raw.send(&q("SELECT pg_sleep(600) FROM (SELECT 1) AS x"));
    let direct = hosts.client(0).await;
    let sleeps =
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'PgSleep'";
    let sleeping = || async {
        direct
            .query_one(sleeps, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 1
    };
    crate::support::wait_until("it sleeps", sleeping).await;
    cancel(other.addr(), &raw.key.clone());
    let answer = raw.until_ready(1);
    assert!(answer.iter().any(|l| l.contains("C57014")), "{answer:?}");
    assert_eq!(raw.query("SELECT 1")[1], "D 1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_finds_its_proxy() {
    let hosts = Hosts::provisioned(1, 2).await;
    let mut one = Proxy::serve(&write(&hosts, "one.toml", "id = 1"), &[]);
    let peers = format!(
        "id = 2\n[proxy.peers]\n1 = \"{}\"\n2 = \"127.0.0.1:1\"",
        one.addr()
    );
    let two = Proxy::serve(&write(&hosts, "two.toml", &peers), &[]);
    for minor in [0, 2] {
        ends_by(&hosts, &one, &one, minor).await;
        ends_by(&hosts, &one, &two, minor).await;
    }
    // The first learns of the second while it runs.
    let mark = one.log_mark();
    let peers = format!(
        "id = 1\n[proxy.peers]\n2 = \"localhost:{}\"",
        two.addr().port()
    );
    write(&hosts, "one.toml", &peers);
    one.wait_log(mark, &["peers: none -> 2 = \"localhost:"]);
    for minor in [2, 0] {
        ends_by(&hosts, &two, &one, minor).await;
    }
    // Keys of nobody: nothing is said, and nothing happens.
    for key in [
        [0x11, 1, 0, 0, 9, 9, 9, 9],
        [0x11, 2, 0, 0, 9, 9, 9, 9],
        [0x11, 3, 0, 0, 9, 9, 9, 9],
        [0x51, 2, 0, 0, 9, 9, 9, 9],
    ] {
        cancel(one.addr(), &key);
        cancel(two.addr(), &key);
    }
    for proxy in [&one, &two] {
        assert!(
            !proxy.log().contains("could not be passed on"),
            "{}",
            proxy.log()
        );
    }
}

/// No longer than this for what is to come.
const PATIENCE: Duration = Duration::from_secs(20);
/// So long for what is not to come.
const MOMENT: Duration = Duration::from_millis(300);

/// What comes in within a limit, or `None`.
fn accepted(listener: &TcpListener, limit: Duration) -> Option<TcpStream> {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        match listener.accept() {
            Ok((stream, _)) => return Some(stream),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_is_passed_on_once_and_not_by_too_many() {
    let hosts = Hosts::provisioned(1, 2).await;
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    peer.set_nonblocking(true).unwrap();
    let settings = format!(
        "id = 1\n[proxy.peers]\n9 = \"{}\"",
        peer.local_addr().unwrap()
    );
    let mut proxy = Proxy::serve(&write(&hosts, "map.toml", &settings), &[]);
    let send = |key: &[u8]| {
        let mut stream = TcpStream::connect(proxy.addr()).unwrap();
        stream.write_all(&request(key)).unwrap();
        stream
    };
    let key = [0x2a, 9, 1, 2, 3, 4, 5, 6];
    let asking = send(&key);
    let mut passed_on = accepted(&peer, PATIENCE).expect("it is passed on");
    passed_on.set_nonblocking(false).unwrap();
    let mut packet = [0; 16];
    passed_on.read_exact(&mut packet).unwrap();
    assert_eq!(packet[..], request(&[0x6a, 9, 1, 2, 3, 4, 5, 6]));
    // The client is let go when the peer has dealt with it.
    drop(passed_on);
    let mut rest = Vec::new();
    (&asking).read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    // One that was passed on stays here.
    send(&packet[8..]).read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty() && accepted(&peer, MOMENT).is_none());
    // A peer that does not answer is not asked by any number at once, and not for ever.
    let asking: Vec<_> = (0..80).map(|_| send(&key)).collect();
    let held: Vec<_> = (0..64).map_while(|_| accepted(&peer, PATIENCE)).collect();
    assert_eq!(held.len(), 64);
    assert!(accepted(&peer, MOMENT).is_none());
    proxy.wait_log(0, &["could not be passed on: no answer within 5s"]);
    for mut stream in asking {
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_protocol_version_is_negotiated_as_by_postgres_18() {
    let hosts = Hosts::provisioned(1, 2).await;
    let proxy = Proxy::start(&hosts);
    let said = |minor, more: &[(&str, &str)]| {
        let params = [LOGIN, more].concat();
        let mut raw = Raw::open(proxy.addr(), &startup(minor, &params));
        raw.welcome = raw.until_ready(1);
        let negotiated = raw.welcome.iter().find(|l| l.starts_with('v')).cloned();
        (
            negotiated.is_some(),
            raw.key.len(),
            negotiated.unwrap_or_default(),
        )
    };
    assert_eq!(said(0, &[]), (false, 8, String::new()));
    assert_eq!(said(2, &[]), (false, 36, String::new()));
    // Newer ones get 3.2.
    let (negotiated, key, what) = said(3, &[]);
    assert!(
        negotiated && key == 36 && what == "v \0\u{3}\0\u{2}",
        "{what:?}"
    );
    assert!(said(9999, &[]).0);
    let (negotiated, key, what) = said(2, &[("_pq_.new", "1"), ("_pq_.newer", "2")]);
    assert!(
        negotiated && key == 36 && what.ends_with("_pq_.new\0_pq_.newer"),
        "{what:?}"
    );
    let (negotiated, key, _) = said(0, &[("_pq_.new", "1")]);
    assert!(negotiated && key == 8);
}
