//! Sessions that are in each other's way over several hosts by more than rows' locks: by the server connections that they keep, by the
//! locks that reads leave in a block. One side gets 40P01, and the others go on.

use std::time::{Duration, Instant};

use crate::deadlock::{A, B, C, add, code, done, ended, name, waiting};
use crate::support::raw::{Raw, q};
use crate::support::{self, Hosts, Proxy, wait_until};

/// Three hosts with a user each, and so many server connections to each.
async fn world(pool: usize, settings: &str) -> (Hosts, Proxy) {
    let hosts = Hosts::provisioned(3, 9).await;
    let text = hosts.map_text(1, settings);
    hosts.write_map(&text.replace("pool = 10", &format!("pool = {pool}")));
    let proxy = Proxy::start(&hosts);
    let mut client = Raw::connect(proxy.addr());
    for user in [A, B, B + 9, C] {
        let sql = format!("INSERT INTO users (id, name) VALUES ({user}, '')");
        done(&client.query(&sql));
    }
    (hosts, proxy)
}

/// How many sessions wait for a server connection of the host.
async fn waiters(proxy: &Proxy, host: &str) -> i64 {
    let console = support::connect(proxy.config().dbname("presplit")).await;
    let rows = console.query("SHOW POOLS", &[]).await.unwrap();
    let of_host = rows.iter().filter(|row| row.get::<_, &str>("host") == host);
    of_host.map(|row| row.get::<_, i64>("cl_waiting")).sum()
}

/// Waits until `n` sessions wait for a server connection of the host.
async fn queued(proxy: &Proxy, host: &str, n: i64) {
    wait_until("they wait for a connection", || async {
        waiters(proxy, host).await == n
    })
    .await;
}

/// The proxy says that it has ended one deadlock: it counts a moment after the client has its error.
async fn one_is_counted(proxy: &Proxy) {
    wait_until("it is counted", || async {
        ended(proxy).await == (1.0, 0.0)
    })
    .await;
}

fn begin_with(clients: &mut [(&mut Raw, String)]) {
    for (client, sql) in clients {
        done(&client.query("BEGIN"));
        done(&client.query(sql));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn for_each_others_connections() {
    let (hosts, proxy) = world(1, "").await;
    let mut all: Vec<Raw> = (0..3).map(|_| Raw::connect(proxy.addr())).collect();
    let [one, two, three] = &mut all[..] else {
        unreachable!()
    };
    begin_with(&mut [(one, add(A, "1")), (two, add(B, "2")), (three, add(C, "3"))]);
    one.send(&q(&add(B, "1")));
    queued(&proxy, "b", 1).await;
    two.send(&q(&add(C, "2")));
    queued(&proxy, "c", 1).await;
    // It closes the ring: nobody need wait for it to be seen.
    let began = Instant::now();
    let answer = three.query(&add(A, "3"));
    assert!(began.elapsed() < Duration::from_secs(1), "{began:?}");
    assert_eq!(code(&answer), Some("40P01"), "{answer:?}");
    for words in ["host \"c\"", "host \"a\"", "Raise `pool` of [hosts.a]"] {
        assert!(
            format!("{answer:?}").contains(&words.replace('"', "\\\"")),
            "{answer:?}"
        );
    }
    assert_eq!(answer.last().unwrap(), "Z E");
    done(&three.query("ROLLBACK"));
    done(&two.until_ready(1));
    done(&two.query("COMMIT"));
    done(&one.until_ready(1));
    done(&one.query("COMMIT"));
    assert_eq!(name(&hosts, A).await, "1");
    assert_eq!(name(&hosts, B).await, "12");
    assert_eq!(name(&hosts, C).await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn for_locks_and_connections() {
    let (hosts, proxy) = world(2, "[proxy.timeouts]\ncheckout_wait = \"60s\"").await;
    let mut all: Vec<Raw> = (0..3).map(|_| Raw::connect(proxy.addr())).collect();
    let [one, two, three] = &mut all[..] else {
        unreachable!()
    };
    begin_with(&mut [
        (one, add(A, "1")),
        (two, add(B, "2")),
        (three, add(B + 9, "3")),
    ]);
    two.send(&q(&add(A, "2")));
    waiting(&hosts, 0, 1).await;
    // All of b's are with those who wait for the row or for a connection of a.
    three.send(&q(&add(A, "3")));
    queued(&proxy, "a", 1).await;
    one.send(&q(&add(B, "1")));
    one_is_counted(&proxy).await;
    let answer = one.until_ready(1);
    assert_eq!(code(&answer), Some("40P01"), "{answer:?}");
    assert_eq!(waiters(&proxy, "b").await, 0, "it does not wait any more");
    done(&one.query("ROLLBACK"));
    // Who of them gets the row first is not said.
    std::thread::scope(|scope| {
        for client in [two, three] {
            scope.spawn(|| {
                done(&client.until_ready(1));
                done(&client.query("COMMIT"));
            });
        }
    });
    let name = name(&hosts, A).await;
    assert!(name == "23" || name == "32", "{name}");
}

/// A block that only reads keeps its tables from being altered on each host that it has read on.
#[tokio::test(flavor = "multi_thread")]
async fn for_what_a_block_has_read() {
    let (hosts, proxy) = world(10, "").await;
    let mut reader = Raw::connect(proxy.addr());
    let mut ddl = Raw::connect(proxy.addr());
    let read = |user: i64| format!("SELECT name FROM users WHERE id = {user}");
    done(&reader.query("BEGIN"));
    done(&reader.query(&read(B)));
    // It has a's tables, and waits for the reader on b.
    ddl.send(&q("ALTER TABLE users ADD COLUMN x int"));
    waiting(&hosts, 1, 1).await;
    let began = Instant::now();
    let answer = reader.query(&read(A));
    assert!(began.elapsed() < Duration::from_secs(8), "{began:?}");
    assert_eq!(code(&answer), Some("40P01"), "{answer:?}");
    done(&reader.query("ROLLBACK"));
    done(&ddl.until_ready(1));
    one_is_counted(&proxy).await;
}

/// A lock of the session is on a connection that it keeps beside its transaction.
#[tokio::test(flavor = "multi_thread")]
async fn for_locks_of_a_session() {
    let (hosts, proxy) = world(10, "").await;
    let mut keeper = Raw::connect(proxy.addr());
    let mut other = Raw::connect(proxy.addr());
    done(&keeper.query("SELECT pg_advisory_lock(7)"));
    begin_with(&mut [(&mut other, add(C, "2"))]);
    begin_with(&mut [(&mut keeper, add(B, "1"))]);
    other.send(&q("SELECT pg_advisory_lock(7)"));
    waiting(&hosts, 0, 1).await;
    let began = Instant::now();
    keeper.send(&q(&add(C, "1")));
    let answers = [keeper.until_ready(1), other.until_ready(1)];
    assert!(began.elapsed() < Duration::from_secs(8), "{began:?}");
    let mut codes = answers.each_ref().map(|answer| code(answer));
    codes.sort_unstable();
    assert_eq!(codes, [None, Some("40P01")], "{answers:?}");
    one_is_counted(&proxy).await;
}
