//! Deadlocks over several hosts: one side gets 40P01 and the others go on; a wait that is none is left alone until
//! `cross_host_lock`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::raw::{self, Raw, pbe, q, s};
use crate::support::{self, Hosts, Proxy, wait_until};

/// Users of the hosts a, b and c.
pub const A: i64 = 9000;
pub const B: i64 = 9003;
pub const C: i64 = 9006;
const USERS: [i64; 3] = [A, B, C];

/// Three hosts with a user each.
pub async fn world(settings: &str) -> (Hosts, Proxy) {
    let hosts = Hosts::provisioned(3, 9).await;
    hosts.write_map(&hosts.map_text(1, settings));
    let proxy = Proxy::start(&hosts);
    let mut client = Raw::connect(proxy.addr());
    for user in USERS {
        let sql = format!("INSERT INTO users (id, name) VALUES ({user}, '')");
        done(&client.query(&sql));
    }
    (hosts, proxy)
}

/// Adds a letter to the user's name.
pub fn add(user: i64, letter: &str) -> String {
    format!("UPDATE users SET name = name || '{letter}' WHERE id = {user}")
}

/// The SQLSTATE of an answer's error.
pub fn code(answer: &[String]) -> Option<&str> {
    let error = answer.iter().find(|line| line.starts_with("E "))?;
    error.split(" | ").find_map(|field| field.strip_prefix('C'))
}

pub fn done(answer: &[String]) {
    assert_eq!(code(answer), None, "{answer:#?}");
}

/// The answer that has failed with 40P01, of all; the others have not failed.
fn victim(answers: &[Vec<String>]) -> usize {
    let failed = |n: &usize| code(&answers[*n]).is_some();
    let failed: Vec<usize> = (0..answers.len()).filter(failed).collect();
    assert_eq!(failed.len(), 1, "{answers:#?}");
    assert_eq!(code(&answers[failed[0]]), Some("40P01"), "{answers:#?}");
    failed[0]
}

/// Waits until `n` server processes of a host wait for locks.
pub async fn waiting(hosts: &Hosts, host: usize, n: i64) {
    let client = hosts.client(host).await;
    wait_until("they wait", || async {
        let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == n
    })
    .await;
}

/// The user's name on the host itself, its letters in alphabetical order.
pub async fn name(hosts: &Hosts, user: i64) -> String {
    let shard = (user % 9) as u32;
    let client = hosts.client(hosts.owner(shard)).await;
    let sql = format!("SELECT name FROM shard_{shard:04}.users WHERE id = {user}");
    let name: String = client.query_one(&sql, &[]).await.unwrap().get(0);
    let mut letters: Vec<char> = name.chars().collect();
    letters.sort_unstable();
    letters.into_iter().collect()
}

/// How many waits the proxy says it has ended: deadlocks, and those that lasted too long.
pub async fn ended(proxy: &Proxy) -> (f64, f64) {
    let console = support::connect(proxy.config().dbname("presplit")).await;
    let rows = console.query("SHOW STATS", &[]).await.unwrap();
    let of = |why: &str| {
        let is_it = |row: &&tokio_postgres::Row| {
            let (name, labels): (String, Option<String>) = (row.get(0), row.get(1));
            name == "presplit_cross_host_waits_ended_total"
                && labels.is_some_and(|labels| labels.contains(why))
        };
        rows.iter().find(is_it).unwrap().get("value")
    };
    (of("deadlock"), of("cross_host_lock"))
}

#[tokio::test(flavor = "multi_thread")]
async fn opposite_order_over_two_hosts() {
    let (hosts, proxy) = world("").await;
    let simple: fn(&str) -> Vec<u8> = q;
    let extended: fn(&str) -> Vec<u8> = |sql| [pbe(sql, &[]), s()].concat();
    for (n, ask) in [simple, extended].into_iter().enumerate() {
        let mut one = Raw::connect(proxy.addr());
        let mut two = Raw::connect(proxy.addr());
        done(&one.ask(&[ask("BEGIN"), ask(&add(A, "1"))].concat(), 2));
        done(&two.ask(&[ask("BEGIN"), ask(&add(B, "2"))].concat(), 2));
        one.send(&ask(&add(B, "1")));
        waiting(&hosts, 1, 1).await;
        two.send(&ask(&add(A, "2")));
        let began = Instant::now();
        let answers = [one.until_ready(1), two.until_ready(1)];
        assert!(began.elapsed() < Duration::from_secs(6), "{began:?}");
        // The younger one of a proxy gives way.
        assert_eq!(victim(&answers), 1);
        let error = answers[1].iter().find(|line| line.starts_with("E "));
        let error = error.unwrap();
        for words in [
            "Mdeadlock detected | ",
            "on host \"a\" waits for ShareLock on transaction ",
            "on host \"b\" waits for ShareLock on transaction ",
            "blocked by process ",
            "are parts of one transaction.",
            " | HRun the transaction again.",
        ] {
            assert!(error.contains(words), "no {words} in {error}");
        }
        assert_eq!(answers[1].last().unwrap(), "Z E");
        // The block has failed, and ends as any other.
        assert_eq!(code(&two.ask(&ask("SELECT 1"), 1)), Some("25P02"));
        done(&one.ask(&ask("COMMIT"), 1));
        done(&two.ask(&ask("ROLLBACK"), 1));
        assert_eq!(ended(&proxy).await, (n as f64 + 1.0, 0.0));
        let again = ["BEGIN", &add(B, "2"), &add(A, "2"), "COMMIT"].map(ask);
        done(&two.ask(&again.concat(), 4));
    }
    for user in [A, B] {
        assert_eq!(name(&hosts, user).await, "1122");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_of_three() {
    let (hosts, proxy) = world("").await;
    let mut clients: Vec<Raw> = (0..3).map(|_| Raw::connect(proxy.addr())).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        done(&client.query("BEGIN"));
        done(&client.query(&add(USERS[n], "x")));
    }
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&q(&add(USERS[(n + 1) % 3], "y")));
        waiting(&hosts, (n + 1) % 3, 1).await;
    }
    // The youngest gives way, and the one before it goes on at once, as on one Postgres.
    assert_eq!(code(&clients[2].until_ready(1)), Some("40P01"));
    for n in [1, 0] {
        done(&clients[n].until_ready(1));
        done(&clients[n].query("COMMIT"));
    }
    done(&clients[2].query("ROLLBACK"));
    assert_eq!(ended(&proxy).await, (1.0, 0.0));
    assert_eq!(name(&hosts, A).await, "x");
    assert_eq!(name(&hosts, B).await, "xy");
    assert_eq!(name(&hosts, C).await, "y");
}

/// A plain transaction of one host, and one that has been straight to the host, stand between.
#[tokio::test(flavor = "multi_thread")]
async fn through_transactions_of_one_host() {
    let (hosts, proxy) = world("").await;
    let mut one = Raw::connect(proxy.addr());
    let mut two = Raw::connect(proxy.addr());
    let mut plain = Raw::connect(proxy.addr());
    let other = A + 9;
    let sql = format!("INSERT INTO users (id, name) VALUES ({other}, '')");
    done(&one.query(&sql));
    done(&one.query("BEGIN"));
    done(&one.query(&add(B, "1")));
    done(&plain.query("BEGIN"));
    done(&plain.query(&add(A, "p")));
    done(&two.query("BEGIN"));
    done(&two.query(&add(other, "2")));
    // two waits for one on b, one for the plain one on a, and that for two on a.
    two.send(&q(&add(B, "2")));
    waiting(&hosts, 1, 1).await;
    one.send(&q(&add(A, "1")));
    waiting(&hosts, 0, 1).await;
    plain.send(&q(&add(other, "p")));
    assert_eq!(code(&one.until_ready(1)), Some("40P01"));
    done(&two.until_ready(1));
    done(&two.query("COMMIT"));
    done(&plain.until_ready(1));
    done(&plain.query("COMMIT"));
    done(&one.query("ROLLBACK"));
    assert_eq!(ended(&proxy).await, (1.0, 0.0));
    assert_eq!(name(&hosts, A).await, "p");
    assert_eq!(name(&hosts, B).await, "2");
    assert_eq!(name(&hosts, other).await, "2p");
}

#[tokio::test(flavor = "multi_thread")]
async fn between_two_proxies() {
    let (hosts, proxy) = world("").await;
    let proxies = [proxy, Proxy::start(&hosts)];
    for _ in 0..2 {
        let mut clients = proxies.each_ref().map(|proxy| Raw::connect(proxy.addr()));
        for (n, client) in clients.iter_mut().enumerate() {
            done(&client.query("BEGIN"));
            done(&client.query(&add(USERS[n], "x")));
        }
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(&q(&add(USERS[1 - n], "y")));
        }
        let answers = clients.each_mut().map(|client| client.until_ready(1));
        let lost = victim(&answers);
        done(&clients[lost].query("ROLLBACK"));
        done(&clients[1 - lost].query("COMMIT"));
    }
    let counts = [ended(&proxies[0]).await.0, ended(&proxies[1]).await.0];
    assert_eq!(counts[0] + counts[1], 2.0, "{counts:?}");
    // Whose names have the greater keys is settled when the proxies start.
    assert!(counts.contains(&2.0), "{counts:?}");
}

/// One side is prepared on one host and waits in its PREPARE on another, for a constraint that is looked at late.
#[tokio::test(flavor = "multi_thread")]
async fn in_the_middle_of_a_commit() {
    let (hosts, proxy) = world("").await;
    let shard = (B % 9) as u32;
    let sql = format!(
        "ALTER TABLE shard_{shard:04}.follows ADD CONSTRAINT late UNIQUE (target_id) DEFERRABLE INITIALLY DEFERRED"
    );
    hosts.client(1).await.batch_execute(&sql).await.unwrap();
    let follow = format!("INSERT INTO follows (source_id, target_id) VALUES ({B}, 7)");
    let mut one = Raw::connect(proxy.addr());
    let mut two = Raw::connect(proxy.addr());
    done(&two.query("BEGIN"));
    done(&two.query(&follow));
    done(&one.query("BEGIN"));
    done(&one.query(&add(A, "1")));
    done(&one.query(&add(C, "1")));
    done(&one.query(&format!(
        "INSERT INTO follows (source_id, target_id) VALUES ({}, 7)",
        B + 9
    )));
    two.send(&q(&add(A, "2")));
    waiting(&hosts, 0, 1).await;
    one.send(&q("COMMIT"));
    let answer = two.until_ready(1);
    assert_eq!(code(&answer), Some("40P01"), "{answer:#?}");
    let error = format!("{answer:?}");
    assert!(
        error.contains("blocked by a prepared transaction"),
        "{error}"
    );
    done(&one.until_ready(1));
    done(&two.query("ROLLBACK"));
    assert_eq!(name(&hosts, A).await, "1");
    assert_eq!(ended(&proxy).await, (1.0, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_no_deadlock_ends_at_its_limit() {
    let (hosts, proxy) = world("[proxy.timeouts]\ncross_host_lock = \"4s\"").await;
    let mut holder = Raw::connect(proxy.addr());
    let mut plain = Raw::connect(proxy.addr());
    let mut both = Raw::connect(proxy.addr());
    done(&holder.query("BEGIN"));
    done(&holder.query(&add(A, "h")));
    let began = Instant::now();
    plain.send(&q(&add(A, "p")));
    waiting(&hosts, 0, 1).await;
    done(&both.query("BEGIN"));
    done(&both.query(&add(B, "b")));
    both.send(&q(&add(A, "b")));
    let answer = both.until_ready(1);
    assert!(began.elapsed() >= Duration::from_secs(4), "{began:?}");
    assert_eq!(code(&answer), Some("40P01"));
    let error = format!("{answer:?}");
    for words in [
        "for more than 4s",
        "cross_host_lock in [proxy.timeouts]",
        "on host",
    ] {
        assert!(error.contains(words), "no {words} in {error}");
    }
    assert_eq!(ended(&proxy).await, (0.0, 1.0));
    done(&both.query("ROLLBACK"));
    // A transaction of one host waits as long as it likes.
    plain.assert_silent();
    done(&holder.query("COMMIT"));
    done(&plain.until_ready(1));
    assert_eq!(name(&hosts, A).await, "hp");
    assert_eq!(name(&hosts, B).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_off_a_wait_has_no_limit() {
    let (hosts, proxy) = world("[proxy.timeouts]\ncross_host_lock = \"off\"").await;
    let mut holder = Raw::connect(proxy.addr());
    let mut both = Raw::connect(proxy.addr());
    done(&holder.query("BEGIN"));
    done(&holder.query(&add(A, "h")));
    done(&both.query("BEGIN"));
    done(&both.query(&add(B, "b")));
    both.send(&q(&add(A, "b")));
    waiting(&hosts, 0, 1).await;
    // Until the proxy has looked at it several times.
    let client = hosts.client(0).await;
    wait_until("it has waited for 4 s", || async {
        let sql = "SELECT count(*) FROM pg_locks WHERE clock_timestamp() - waitstart > '4s'";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'presplit deadlock'";
    assert_eq!(
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0),
        1
    );
    done(&holder.query("COMMIT"));
    done(&both.until_ready(1));
    done(&both.query("COMMIT"));
    assert_eq!(ended(&proxy).await, (0.0, 0.0));
    // Nothing to look for: nobody looks.
    wait_until("nobody looks", || async {
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_cancels_is_canceled() {
    let (hosts, proxy) = world("").await;
    let mut holder = Raw::connect(proxy.addr());
    let mut both = Raw::connect(proxy.addr());
    done(&holder.query("BEGIN"));
    done(&holder.query(&add(A, "h")));
    done(&both.query("BEGIN"));
    done(&both.query(&add(B, "b")));
    both.send(&q(&add(A, "b")));
    waiting(&hosts, 0, 1).await;
    let len = both.key.len() as u32 + 8;
    let request = [
        &len.to_be_bytes()[..],
        &80_877_102u32.to_be_bytes(),
        &both.key,
    ];
    let mut stream = TcpStream::connect(proxy.addr()).unwrap();
    stream.write_all(&request.concat()).unwrap();
    let _ = stream.read(&mut [0]);
    let answer = both.until_ready(1);
    assert_eq!(code(&answer), Some("57014"), "{answer:#?}");
    // As is what a timeout of the client's own ends.
    done(&both.query("ROLLBACK"));
    done(&both.query("BEGIN"));
    done(&both.query("SET LOCAL statement_timeout = '1500ms'"));
    done(&both.query(&add(B, "b")));
    assert_eq!(code(&both.query(&add(A, "b"))), Some("57014"));
    done(&both.query("ROLLBACK"));
    assert_eq!(ended(&proxy).await, (0.0, 0.0));
}

/// Clients that take their locks in one order wait for each other, and never in a circle.
#[tokio::test(flavor = "multi_thread")]
async fn no_false_alarm_under_load() {
    let (hosts, proxy) = world("").await;
    let stop = Arc::new(AtomicBool::new(false));
    let committed = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|n| {
            let (addr, stop, committed) = (proxy.addr(), stop.clone(), committed.clone());
            std::thread::spawn(move || {
                let mut client = Raw::connect(addr);
                while !stop.load(Ordering::Relaxed) {
                    done(&client.query("BEGIN"));
                    let (first, second) = [(A, B), (B, C), (A, C)][n % 3];
                    done(&client.query(&add(first, "")));
                    if n < 4 {
                        // So that some wait for more than a second, and are looked at.
                        let sql = "SELECT name, pg_sleep(0.7) FROM users WHERE id =";
                        done(&client.query(&format!("{sql} {first}")));
                    }
                    done(&client.query(&add(second, "")));
                    done(&client.query("COMMIT"));
                    committed.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let client = hosts.client(0).await;
    let (began, mut long) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(8) || long < 10 {
        let sql = "SELECT count(*) FROM pg_locks WHERE clock_timestamp() - waitstart > '1s'";
        long += client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    assert!(committed.load(Ordering::Relaxed) > 20);
    assert_eq!(ended(&proxy).await, (0.0, 0.0));
}

/// As on one Postgres, the locks of a failed block are free with the error: all, or those since the last savepoint.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_lets_go_on_all_hosts() {
    let (hosts, proxy) = world("").await;
    let mut client = Raw::connect(proxy.addr());
    let mut other = Raw::connect(proxy.addr());
    let wrong = format!("UPDATE users SET name = (1 / length(name))::text WHERE id = {C}");
    done(&client.query("BEGIN"));
    done(&client.query(&add(A, "1")));
    done(&client.query(&add(B, "1")));
    assert_eq!(code(&client.query(&wrong)), Some("22012"));
    done(&other.query(&add(A, "o")));
    done(&other.query(&add(B, "o")));
    assert_eq!(code(&client.query("SELECT 1")), Some("25P02"));
    assert_eq!(client.query("COMMIT"), ["C ROLLBACK", "Z I"]);

    done(&client.query("BEGIN"));
    done(&client.query(&add(A, "1")));
    done(&client.query("SAVEPOINT \"s\"\"p\""));
    done(&client.query(&add(B, "1")));
    done(&client.query("SAVEPOINT t"));
    done(&client.query(&add(B + 9, "none")));
    done(&client.query("RELEASE t"));
    assert_eq!(code(&client.query(&wrong)), Some("22012"));
    done(&other.query(&add(B, "p")));
    other.send(&q(&add(A, "p")));
    waiting(&hosts, 0, 1).await;
    done(&client.query("ROLLBACK TO \"s\"\"p\""));
    done(&client.query(&add(C, "1")));
    done(&client.query("COMMIT"));
    done(&other.until_ready(1));
    assert_eq!(name(&hosts, A).await, "1op");
    assert_eq!(name(&hosts, B).await, "op");
    assert_eq!(name(&hosts, C).await, "1");
}

/// A rollback to a savepoint takes away the lock by which others see which processes are one transaction.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_rollback_to_a_savepoint() {
    let (hosts, proxy) = world("").await;
    let mut one = Raw::connect(proxy.addr());
    let mut two = Raw::connect(proxy.addr());
    for sql in [
        "BEGIN",
        &add(A, "1"),
        "SAVEPOINT s",
        &add(B + 9, "1"),
        "ROLLBACK TO s",
    ] {
        done(&one.query(sql));
    }
    done(&two.query("BEGIN"));
    done(&two.query(&add(B, "2")));
    one.send(&q(&add(B, "1")));
    waiting(&hosts, 1, 1).await;
    two.send(&q(&add(A, "2")));
    let answers = [one.until_ready(1), two.until_ready(1)];
    assert_eq!(victim(&answers), 1);
    done(&one.query("COMMIT"));
    done(&two.query("ROLLBACK"));
    assert_eq!(name(&hosts, A).await, "1");
    assert_eq!(name(&hosts, B).await, "1");
}

/// Reads of all shards, and rows that are copied, wait for locks too.
#[tokio::test(flavor = "multi_thread")]
async fn other_statements_that_wait() {
    let (hosts, proxy) = world("").await;
    let beside = B + 1;
    let mut two = Raw::connect(proxy.addr());
    done(&two.query(&format!(
        "INSERT INTO users (id, name) VALUES ({beside}, '')"
    )));
    let line = [raw::d(&format!("{}\tnew\n", B + 18)), raw::done()];
    let extended = |sql: &str| [pbe(sql, &[]), s()].concat();
    let asked = [
        q("SELECT id, name FROM users"),
        extended("SELECT id, name FROM users"),
        q("SELECT count(*) FROM users"),
        extended("SELECT id FROM users ORDER BY id"),
        q("COPY users TO STDOUT"),
        [q("COPY users (id, name) FROM STDIN"), line.concat()].concat(),
    ];
    for ask in asked {
        let mut one = Raw::connect(proxy.addr());
        // Each has written on two hosts, and two has a row and its table's shard in the way of what one asks for.
        for sql in ["BEGIN", &add(beside, "2"), &add(C, "2")] {
            done(&two.query(sql));
        }
        for sql in ["BEGIN", &add(A, "1"), &add(C + 9, "1")] {
            done(&one.query(sql));
        }
        let between = hosts.client(1).await;
        if ask.windows(10).any(|part| part == b"FROM STDIN") {
            let sql = format!("INSERT INTO users (id, name) VALUES ({}, '')", B + 18);
            done(&two.query(&sql));
        } else {
            let lock = "BEGIN; LOCK TABLE shard_0003.users";
            between.batch_execute(lock).await.unwrap();
        }
        two.send(&q(&add(A, "2")));
        waiting(&hosts, 0, 1).await;
        let update = format!("UPDATE shard_0004.users SET name = '' WHERE id = {beside}");
        let between = tokio::spawn(async move { between.batch_execute(&update).await });
        waiting(&hosts, 1, 1).await;
        one.send(&ask);
        let answer = one.until_ready(1);
        assert_eq!(code(&answer), Some("40P01"), "{answer:#?}");
        assert_eq!(answer.last().unwrap(), "Z E");
        done(&two.until_ready(1));
        done(&two.query("ROLLBACK"));
        between.await.unwrap().unwrap();
        done(&one.query("ROLLBACK"));
        done(&one.query("SELECT count(*) FROM users"));
    }
    assert_eq!(ended(&proxy).await, (6.0, 0.0));
}
