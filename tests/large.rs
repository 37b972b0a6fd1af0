//! What is too large to be held: rows, answers that nobody reads, data that nobody takes, pipelines; and clients that
//! leave in the middle of it. The proxy's memory stays as it is, and its server connections are free again.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::raw::{d, done, e, frame, p, pbe, q, s, startup};
use crate::support::{Hosts, Proxy, Raw, wait_until};

/// The most by which the proxy may grow, in kB.
const GROWTH: u64 = 40_000;

/// The most memory that the process has ever had, in kB.
fn peak(proxy: &Proxy) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn assert_flat(proxy: &Proxy, before: u64) {
    let grown = peak(proxy).saturating_sub(before);
    assert!(grown < GROWTH, "it grew by {grown} kB");
}

/// A connection that is logged in, and nothing more.
fn connect(proxy: &Proxy) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.addr()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let hello = startup(0, &[("user", "app"), ("database", "app")]);
    stream.write_all(&hello).unwrap();
    while next(&mut stream).0 != b'Z' {}
    stream
}

/// The next message's tag and length; its body is thrown away.
fn next(stream: &mut TcpStream) -> (u8, u64) {
    let mut header = [0; 5];
    stream.read_exact(&mut header).unwrap();
    let len = u64::from(u32::from_be_bytes(header[1..].try_into().unwrap())) - 4;
    let thrown = std::io::copy(&mut stream.take(len), &mut std::io::sink()).unwrap();
    assert_eq!(
        thrown, len,
        "the connection ended in the middle of a message"
    );
    (header[0], len)
}

/// Messages by their tags, up to so many ReadyForQuery.
fn read(stream: &mut TcpStream, ready: usize) -> Vec<(u8, u64)> {
    let mut messages = Vec::new();
    let mut seen = 0;
    while seen < ready {
        let message = next(stream);
        seen += usize::from(message.0 == b'Z');
        messages.push(message);
    }
    messages
}

/// Waits until so many of the host's sessions wait for this.
async fn wait_for_event(hosts: &Hosts, event: &str) {
    let host = hosts.client(0).await;
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = '{event}' AND state = 'active'"
    );
    wait_until(event, || async {
        host.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
}

/// Waits until no session of the host is in a transaction, but for this test's own.
async fn wait_until_quiet(hosts: &Hosts) {
    let host = hosts.client(0).await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND state <> 'idle'";
    let end = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_until("nothing is left over", || async {
        // As with Postgres, a statement goes on although its client is gone.
        host.batch_execute(end).await.unwrap();
        host.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
}

/// A proxy that has run a statement for the client, and the most memory it has taken so far.
async fn warm() -> (Hosts, Proxy, TcpStream, u64) {
    let hosts = Hosts::provisioned(1, 8).await;
    let proxy = Proxy::start(&hosts);
    let mut stream = connect(&proxy);
    stream.write_all(&q("SELECT 1")).unwrap();
    read(&mut stream, 1);
    let before = peak(&proxy);
    (hosts, proxy, stream, before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_of_300_megabytes_passes_through() {
    let (_hosts, proxy, mut stream, before) = warm().await;
    const LEN: u64 = 300 << 20;
    let sql = format!(
        "SELECT repeat('x', {LEN}) FROM users WHERE id = 1 UNION ALL SELECT repeat('x', {LEN})"
    );
    stream
        .write_all(&[q(&sql), pbe(&sql, &[]), s()].concat())
        .unwrap();
    let rows = read(&mut stream, 2);
    let rows = rows.iter().filter(|(tag, _)| *tag == b'D');
    let rows: Vec<u64> = rows.map(|(_, len)| *len).collect();
    assert_eq!(rows, [LEN + 6; 2]);
    assert_flat(&proxy, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_up_its_own_server_and_nothing_else() {
    let (hosts, proxy, mut stream, before) = warm().await;
    let sql = "SELECT repeat('x', 1000) FROM generate_series(1, 200000)";
    stream
        .write_all(&[q(sql), pbe(sql, &[]), s()].concat())
        .unwrap();
    wait_for_event(&hosts, "ClientWrite").await;
    assert_flat(&proxy, before);
    // Others go on meanwhile.
    assert_eq!(Raw::connect(proxy.addr()).query("SELECT 1")[1], "D 1");
    let rows = read(&mut stream, 2);
    assert_eq!(rows.iter().filter(|(tag, _)| *tag == b'D').count(), 400_000);
    assert_flat(&proxy, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_read_holds_up_its_own_client_and_nothing_else() {
    let (hosts, proxy, mut stream, before) = warm().await;
    let host = hosts.client(0).await;
    host.batch_execute("BEGIN; LOCK TABLE shard_0001.likes")
        .await
        .unwrap();
    for copy in [
        "COPY likes (user_id, photo_id) FROM STDIN",
        "COPY likes (user_id, photo_id) FROM STDIN /* presplit: key=1 */",
    ] {
        const ROWS: usize = 4_000_000;
        let mut writer = stream.try_clone().unwrap();
        let sending = std::thread::spawn(move || {
            writer.write_all(&q(copy)).unwrap();
            for chunk in 0..ROWS / 10_000 {
                let lines = (0..10_000).map(|n| format!("1\t{}\n", chunk * 10_000 + n));
                writer.write_all(&d(&lines.collect::<String>())).unwrap();
            }
            writer.write_all(&done()).unwrap();
        });
        wait_for_event(&hosts, "relation").await;
        assert_eq!(Raw::connect(proxy.addr()).query("SELECT 1")[1], "D 1");
        assert!(!sending.is_finished(), "all of it went somewhere");
        assert_flat(&proxy, before);
        host.batch_execute("COMMIT").await.unwrap();
        let answer = read(&mut stream, 1);
        sending.join().unwrap();
        let tags: Vec<u8> = answer.iter().map(|(tag, _)| *tag).collect();
        assert_eq!(tags, *b"GCZ", "{copy}");
        assert_flat(&proxy, before);
        host.batch_execute("TRUNCATE shard_0001.likes; BEGIN; LOCK TABLE shard_0001.likes")
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_of_100_000_statements_is_answered() {
    let hosts = Hosts::provisioned(1, 8).await;
    let proxy = Proxy::start(&hosts);
    const N: usize = 100_000;
    let by_key = "SELECT name FROM users WHERE id = $1";
    for batch in [
        [pbe(by_key, &["1"]), s()].concat(),
        pbe(by_key, &["2"]),
        [pbe("SELECT 1", &[]), pbe(by_key, &["3"]), s()].concat(),
    ] {
        let mut stream = connect(&proxy);
        let mut writer = stream.try_clone().unwrap();
        let ready = if batch.ends_with(&s()) { N } else { 1 };
        let sending = std::thread::spawn(move || {
            for _ in 0..N / 1000 {
                writer.write_all(&batch.repeat(1000)).unwrap();
            }
            if ready == 1 {
                writer.write_all(&s()).unwrap();
            }
        });
        let answer = read(&mut stream, ready);
        sending.join().unwrap();
        assert!(answer.iter().all(|(tag, _)| b"12DCZ".contains(tag)));
        assert!(answer.iter().filter(|(tag, _)| *tag == b'C').count() >= N);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_leave_in_the_middle_of_everything() {
    let hosts = Hosts::provisioned(1, 8).await;
    hosts.write_map(&hosts.map_text(1, "").replace("pool = 10", "pool = 2"));
    let proxy = Proxy::start(&hosts);
    let write = "INSERT INTO users (id, name) VALUES (1, 'never')";
    let copy = "COPY likes (user_id, photo_id) FROM STDIN";
    let many = "SELECT repeat('x', 1000) FROM generate_series(1, 100000)";
    let bind = frame(b'B', b"a portal\0\0\0\0\0\0\0\0");
    let middles: Vec<Vec<u8>> = vec![
        q("BEGIN"),
        [q("BEGIN"), q(write)].concat(),
        [q("BEGIN"), q(write), q("SELECT 1/0")].concat(),
        q("SELECT pg_sleep(60)"),
        q(many),
        pbe(write, &[]),
        [pbe(write, &[]), pbe("SELECT pg_sleep(60)", &[])].concat(),
        [pbe(many, &[]), s()].concat(),
        p("", write),
        [
            p("", many),
            bind.clone(),
            e("a portal", 10),
            frame(b'H', b""),
        ]
        .concat(),
        q(copy),
        [q(copy), d("1\t1\n")].concat(),
        [q(copy), d("1\t1\n1")].concat(),
        [q("BEGIN"), q(copy), d("1\t1\n"), done()].concat(),
        [
            p("", copy),
            frame(b'B', &[0; 8]),
            e("", 0),
            d("1\t1\n"),
            s(),
        ]
        .concat(),
        q("COPY users TO STDOUT"),
        [
            q("BEGIN"),
            q("DECLARE c CURSOR FOR SELECT name FROM users WHERE id = 1"),
            q("FETCH c"),
        ]
        .concat(),
        [q("SET work_mem = '7MB'"), q("SET nosuch = 1")].concat(),
        b"Q\0\0\x10\0SELECT".to_vec(),
        b"d\0\0\x10\0".to_vec(),
        b"P\0".to_vec(),
    ];
    for middle in &middles {
        for terminate in [true, false] {
            let mut stream = connect(&proxy);
            stream.write_all(middle).unwrap();
            if terminate {
                stream.write_all(&frame(b'X', b"")).unwrap();
            }
            drop(stream);
        }
        // Long statements of clients that are gone are not waited for.
        let host = hosts.client(0).await;
        let end =
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        if middle.windows(8).any(|w| w == b"pg_sleep") {
            wait_until("they are gone", || async {
                host.batch_execute(end).await.unwrap();
                let mut raw = Raw::connect(proxy.addr());
                raw.send(&q("SELECT 'free'"));
                raw.until_ready(1)[1] == "D free"
            })
            .await;
        }
        let answer = Raw::connect(proxy.addr()).query("SELECT count(*) FROM users WHERE id = 1");
        assert_eq!(answer[1], "D 0", "{}", middle.escape_ascii());
    }
    wait_until_quiet(&hosts).await;
    let rows = Raw::connect(proxy.addr()).query("SELECT count(*) FROM likes");
    assert_eq!(rows[1], "D 0");
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
}
