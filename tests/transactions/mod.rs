//! Transactions that write on several hosts do what they do on one Postgres: the same answers message by message, the same
//! rows afterwards, nothing prepared left behind.

use std::net::SocketAddr;

use crate::support::raw::{self, Raw};
use crate::support::{Cluster, Hosts, Proxy, wait_until};

pub const SHARDS: u32 = 9;

/// Three hosts behind a proxy and one Postgres, with the same tables.
pub struct Twins {
    pub proxy: Proxy,
    pub hosts: Hosts,
    pub plain: Cluster,
}

impl Twins {
    pub async fn new(settings: &str) -> Twins {
        let hosts = Hosts::provisioned(3, SHARDS).await;
        hosts.write_map(&hosts.map_text(1, settings));
        let plain = Cluster::new();
        let schema = presplit::ops::demo::SCHEMA;
        plain.client().await.batch_execute(schema).await.unwrap();
        // A constraint that is looked at when the transaction ends.
        let late = "ALTER TABLE follows ADD CONSTRAINT late UNIQUE (target_id) DEFERRABLE INITIALLY DEFERRED";
        plain.client().await.batch_execute(late).await.unwrap();
        for shard in 0..SHARDS {
            let client = hosts.client(hosts.owner(shard)).await;
            let path = format!("SET search_path = shard_{shard:04}; {late}");
            client.batch_execute(&path).await.unwrap();
        }
        let proxy = Proxy::start(&hosts);
        Twins {
            proxy,
            hosts,
            plain,
        }
    }

    pub fn clients(&self) -> (Raw, Raw) {
        let plain = SocketAddr::from(([127, 0, 0, 1], self.plain.port()));
        (Raw::connect(self.proxy.addr()), Raw::connect(plain))
    }

    async fn rows(&self) -> (Vec<String>, Vec<String>) {
        let mut found = Vec::new();
        for shard in 0..SHARDS {
            let client = self.hosts.client(self.hosts.owner(shard)).await;
            for (table, key) in [("users", "id"), ("follows", "source_id")] {
                let sql = format!(
                    "SELECT '{table} ' || {key} || ' ' || to_jsonb(x) - 'created_at' FROM shard_{shard:04}.{table} x WHERE {key} % {SHARDS} = {shard}"
                );
                for row in client.query(&sql, &[]).await.unwrap() {
                    found.push(row.get::<_, String>(0));
                }
            }
        }
        found.sort();
        let client = self.plain.client().await;
        let sql = "SELECT 'users ' || id || ' ' || to_jsonb(x) - 'created_at' FROM users x UNION ALL
            SELECT 'follows ' || source_id || ' ' || to_jsonb(x) - 'created_at' FROM follows x ORDER BY 1";
        let plain = client.query(sql, &[]).await.unwrap();
        let mut plain: Vec<String> = plain.iter().map(|row| row.get(0)).collect();
        plain.sort();
        (found, plain)
    }

    /// No transaction is left open or prepared on any host, no lock of ours held, and decisions are forgotten in the end.
    pub async fn assert_clean(&self) {
        for i in 0..3 {
            let client = self.hosts.client(i).await;
            wait_until("nothing is left", || async {
                let sql = "SELECT (SELECT count(*) FROM pg_prepared_xacts)
                    + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint >> 16 = 28787)
                    + (SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%')";
                client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
            })
            .await;
        }
    }
}

/// Users of the hosts a, b and c.
const A: i64 = 9000;
const B: i64 = 9003;
const C: i64 = 9006;

fn user(id: i64, name: &str) -> String {
    format!("INSERT INTO users (id, name) VALUES ({id}, '{name}')")
}

fn follow(source: i64, target: i64) -> String {
    format!("INSERT INTO follows (source_id, target_id) VALUES ({source}, {target})")
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_over_several_hosts_are_as_on_one_postgres() {
    let twins = Twins::new("").await;
    let (mut ours, mut plain) = twins.clients();
    let (u, f) = (user, follow);
    let begin = || "BEGIN".to_owned();
    let commit = || "COMMIT".to_owned();
    let to = str::to_owned;
    let count = || to("SELECT count(*) FROM users");
    let blocks: Vec<Vec<String>> = vec![
        vec![begin(), u(A, "a"), u(B, "b"), commit(), count()],
        vec![
            begin(),
            u(C, "c"),
            u(A + 9, "a"),
            u(B + 9, "b"),
            commit(),
            count(),
        ],
        vec![
            begin(),
            u(A + 18, "x"),
            u(B + 18, "x"),
            to("ROLLBACK"),
            count(),
        ],
        // A statement fails on one host: the block has failed on all.
        vec![
            begin(),
            u(A + 27, "x"),
            u(B, "twice"),
            count(),
            commit(),
            count(),
        ],
        // Savepoints: on hosts enlisted before and after.
        vec![
            begin(),
            u(A + 36, "kept"),
            to("SAVEPOINT s"),
            u(B + 36, "undone"),
            to("ROLLBACK TO s"),
            u(C + 36, "kept"),
            commit(),
            count(),
        ],
        vec![
            begin(),
            to("SELECT 1 FROM users WHERE id = 9003"),
            u(A + 45, "kept"),
            to("SAVEPOINT s"),
            u(B + 45, "undone"),
            to("SAVEPOINT t"),
            u(C + 45, "undone"),
            to("ROLLBACK TO s"),
            u(B + 45, "kept"),
            to("RELEASE s"),
            commit(),
            count(),
        ],
        vec![
            begin(),
            to("SAVEPOINT s"),
            u(A + 54, "x"),
            u(B, "fails"),
            to("ROLLBACK TO s"),
            u(B + 54, "kept"),
            u(C + 54, "kept"),
            commit(),
            count(),
        ],
        // Constraints that are looked at last: on a host that is prepared, and on the one that decides.
        vec![
            begin(),
            f(A, 1),
            f(A, 1),
            f(B, 2),
            commit(),
            to("SELECT count(*) FROM follows"),
        ],
        vec![
            begin(),
            f(A, 3),
            f(B, 4),
            f(B + 9, 4),
            f(C, 5),
            commit(),
            to("SELECT count(*) FROM follows"),
        ],
        vec![
            begin(),
            f(B, 6),
            to("SET CONSTRAINTS ALL IMMEDIATE"),
            f(A, 7),
            commit(),
            to("SELECT count(*) FROM follows"),
        ],
        // What is set goes with the transaction.
        vec![
            begin(),
            to("SET application_name = 'kept'"),
            u(A + 63, "a"),
            to("SET LOCAL work_mem = '5MB'"),
            u(B + 63, "b"),
            to("SHOW work_mem"),
            commit(),
            to("SHOW application_name"),
            to("SHOW work_mem"),
        ],
        vec![
            begin(),
            u(A + 72, "a"),
            to("SET application_name = 'undone'"),
            u(B + 72, "b"),
            to("ROLLBACK"),
            to("SHOW application_name"),
        ],
        vec![
            begin(),
            u(A + 81, "a"),
            u(B + 81, "b"),
            to("COMMIT AND CHAIN"),
            u(C + 81, "c"),
            u(A + 90, "a"),
            to("ROLLBACK AND CHAIN"),
            u(B + 90, "b"),
            u(A + 90, "a"),
            commit(),
            count(),
        ],
        vec![
            to("BEGIN ISOLATION LEVEL READ COMMITTED"),
            u(A + 99, "a"),
            u(B + 99, "b"),
            to("SELECT name FROM users WHERE id IN (9099, 9102) ORDER BY id"),
            commit(),
        ],
        // NOTIFY can't be prepared: its host decides.
        vec![
            begin(),
            u(A + 108, "a"),
            to("NOTIFY n"),
            u(B + 108, "b"),
            commit(),
            count(),
        ],
        vec![
            begin(),
            to("NOTIFY n"),
            u(C + 108, "a"),
            u(B + 117, "b"),
            u(A + 117, "a"),
            commit(),
            count(),
        ],
        vec![
            begin(),
            u(C + 117, "a"),
            u(B + 126, "b"),
            to("NOTIFY n"),
            commit(),
            count(),
        ],
        vec![
            begin(),
            to("SELECT pg_notify('n', 'p')"),
            u(A + 144, "a"),
            u(B + 144, "b"),
            u(C + 144, "c"),
            to("SELECT pg_notify('n', 'q')"),
            commit(),
            count(),
        ],
        vec![
            begin(),
            u(A + 135, "a"),
            to("DELETE FROM users WHERE id = 9003"),
            to("UPDATE users SET name = 'new' WHERE id = 9006"),
            commit(),
            to("SELECT name FROM users ORDER BY id"),
        ],
    ];
    for block in &blocks {
        for text in block {
            let expected = plain.query(text);
            assert_eq!(ours.query(text), expected, "{text} of {block:#?}");
        }
        let (ours, plain) = twins.rows().await;
        assert_eq!(ours, plain, "after {block:#?}");
    }
    twins.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_over_several_hosts_are_as_on_one_postgres() {
    let twins = Twins::new("").await;
    let (mut ours, mut plain) = twins.clients();
    let insert = "INSERT INTO users (id, name) VALUES ($1, $2)";
    let put = |id: i64, name: &str| raw::pbe(insert, &[&id.to_string(), name]);
    let count = || raw::pbe("SELECT count(*) FROM users", &[]);
    let batches: Vec<(&str, Vec<u8>)> = vec![
        ("two hosts", [put(A, "a"), put(B, "b"), raw::s()].concat()),
        (
            "three hosts, then one looks",
            [put(C, "c"), put(A + 9, "a"), put(B + 9, "b"), raw::s()].concat(),
        ),
        (
            "the second fails",
            [
                put(A + 18, "a"),
                put(B, "twice"),
                put(C + 18, "c"),
                raw::s(),
            ]
            .concat(),
        ),
        (
            "the first fails",
            [put(A, "twice"), put(B + 18, "b"), raw::s()].concat(),
        ),
        (
            "flush between",
            [
                put(A + 27, "a"),
                raw::h(),
                put(B + 27, "b"),
                raw::h(),
                raw::s(),
            ]
            .concat(),
        ),
        (
            "a block begins in the middle",
            [
                put(A + 36, "a"),
                put(B + 36, "b"),
                raw::pbe("BEGIN", &[]),
                put(C + 36, "c"),
                raw::s(),
            ]
            .concat(),
        ),
        (
            "and is rolled back",
            [put(A + 45, "a"), raw::pbe("ROLLBACK", &[]), raw::s()].concat(),
        ),
        (
            "a block within",
            [
                raw::pbe("BEGIN", &[]),
                put(A + 54, "a"),
                put(B + 54, "b"),
                raw::pbe("COMMIT", &[]),
                raw::s(),
            ]
            .concat(),
        ),
        (
            "a constraint that is looked at last",
            [
                raw::pbe(&follow(A, 1), &[]),
                raw::pbe(&follow(A, 1), &[]),
                raw::pbe(&follow(B, 2), &[]),
                raw::s(),
            ]
            .concat(),
        ),
        (
            "reads beside",
            [
                put(A + 63, "a"),
                raw::pbe("SELECT name FROM users WHERE id = 9006", &[]),
                put(B + 63, "b"),
                raw::s(),
            ]
            .concat(),
        ),
        (
            "a block begins behind reads of several hosts",
            [count(), raw::pbe("BEGIN", &[]), raw::s()].concat(),
        ),
        ("and goes on", [put(A + 72, "a"), raw::s()].concat()),
        (
            "and is undone",
            [raw::pbe("ROLLBACK", &[]), raw::s()].concat(),
        ),
        ("a look", [count(), raw::s()].concat()),
    ];
    for (what, batch) in &batches {
        let expected = plain.ask(batch, 1);
        assert_eq!(ours.ask(batch, 1), expected, "{what}");
        let (ours, plain) = twins.rows().await;
        assert_eq!(ours, plain, "after {what}");
    }
    // A Query comes before the Sync.
    let mixed = [
        put(A + 99, "a"),
        put(B + 99, "b"),
        raw::q("SELECT count(*) FROM users"),
        raw::s(),
    ]
    .concat();
    let expected = plain.ask(&mixed, 2);
    assert_eq!(ours.ask(&mixed, 2), expected);
    twins.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_several_statements_are_as_on_one_postgres() {
    let twins = Twins::new("").await;
    let (mut ours, mut plain) = twins.clients();
    let (u, join) = (user, |texts: &[String]| texts.join("; "));
    let texts = [
        join(&[u(A, "a"), u(B, "b")]),
        join(&[u(C, "c"), u(A + 9, "a"), u(B, "twice"), u(C + 9, "c")]),
        join(&[
            "BEGIN".into(),
            u(A + 18, "a"),
            u(B + 18, "b"),
            "COMMIT".into(),
        ]),
        join(&[
            "BEGIN".into(),
            u(A + 27, "a"),
            u(B, "twice"),
            "COMMIT".into(),
        ]),
        "ROLLBACK".into(),
        join(&[
            u(A + 36, "a"),
            "SELECT count(*) FROM users".into(),
            u(B + 36, "b"),
        ]),
        join(&["BEGIN".into(), u(A + 45, "a"), u(B + 45, "b")]),
        join(&[u(C + 45, "c"), "COMMIT".into()]),
        join(&[follow(A, 1), follow(A, 1), follow(B, 2)]),
        // A block begins behind reads.
        join(&[
            "SELECT 1 FROM users WHERE id = 9000".into(),
            "SELECT 1 FROM users WHERE id = 9003".into(),
            "BEGIN".into(),
        ]),
        u(A + 54, "undone"),
        "ROLLBACK".into(),
        join(&[
            "BEGIN READ ONLY".into(),
            "SELECT 1 FROM users WHERE id = 9000".into(),
        ]),
        u(B + 54, "refused"),
        "ROLLBACK".into(),
        join(&["BEGIN".into(), "SAVEPOINT s".into(), u(A + 63, "undone")]),
        join(&["ROLLBACK TO s".into(), u(B + 63, "b"), "COMMIT".into()]),
        // What is set in front of a ROLLBACK or COMMIT of the same message.
        "SET application_name = 'undone'; ROLLBACK".into(),
        "SHOW application_name".into(),
        "SET application_name = 'kept'; COMMIT; SELECT nope".into(),
        "SHOW application_name".into(),
        // What is chained to nothing.
        join(&[u(A + 72, "a"), u(B + 72, "b"), "COMMIT AND CHAIN".into()]),
        // Options of a block that has begun.
        "BEGIN READ ONLY".into(),
        "BEGIN READ WRITE".into(),
        u(A + 81, "a"),
        u(B + 81, "b"),
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED".into(),
        "COMMIT AND CHAIN".into(),
        "BEGIN READ ONLY".into(),
        u(C + 81, "refused"),
        "ROLLBACK AND CHAIN".into(),
        u(C + 81, "c"),
        "COMMIT".into(),
        "SELECT id, name FROM users ORDER BY id".into(),
    ];
    for text in &texts {
        let expected = plain.query(text);
        assert_eq!(ours.query(text), expected, "{text}");
        let (ours, plain) = twins.rows().await;
        assert_eq!(ours, plain, "after {text}");
    }
    twins.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_down_can_be_gone_round_by_a_savepoint() {
    let mut twins = Twins::new("").await;
    let (mut ours, _) = twins.clients();
    // All hosts are known to the proxy.
    for (text, answer) in [
        ("BEGIN", "C BEGIN"),
        (&*user(A, "a"), "C INSERT 0 1"),
        (&*user(B, "b"), "C INSERT 0 1"),
        ("COMMIT", "C COMMIT"),
    ] {
        assert_eq!(ours.query(text)[0], answer, "{text}");
    }
    twins.hosts.clusters[1].stop();
    for text in ["BEGIN", &user(A + 9, "a"), "SAVEPOINT s"] {
        assert!(ours.query(text)[0].starts_with('C'), "{text}");
    }
    let refused = ours.query(&user(B + 9, "b"));
    assert!(
        refused[0].starts_with('E') && refused[1] == "Z E",
        "{refused:?}"
    );
    for text in ["ROLLBACK TO s", &user(C + 9, "c"), "COMMIT"] {
        assert!(ours.query(text)[0].starts_with('C'), "{text}");
    }
    twins.hosts.clusters[1].start();
    let (found, _) = twins.rows().await;
    let ids: Vec<&str> = found.iter().map(|row| &row[..10]).collect();
    assert_eq!(
        ids,
        ["users 9000", "users 9003", "users 9009", "users 9015"]
    );
    twins.assert_clean().await;
}

/// Single statements over several hosts, in each protocol; what fails on one host, also at the end, leaves nothing on any.
#[tokio::test(flavor = "multi_thread")]
async fn statements_over_several_hosts_are_as_on_one_postgres() {
    let twins = Twins::new("").await;
    let (mut ours, mut plain) = twins.clients();
    let users = |n: i64, name: &str| {
        let row = |id: i64| format!("({}, '{name}')", id + n);
        let rows = [A, B, C, A + 1].map(row).join(", ");
        format!("INSERT INTO users (id, name) VALUES {rows}")
    };
    let follows = |rows: &[(i64, i64)]| {
        let rows: Vec<String> = rows.iter().map(|(s, t)| format!("({s}, {t})")).collect();
        let rows = rows.join(", ");
        format!(
            "INSERT INTO follows (source_id, target_id) VALUES {rows} RETURNING source_id, target_id"
        )
    };
    let (begin, commit, savepoint) = (
        "BEGIN".to_owned(),
        "COMMIT".to_owned(),
        "SAVEPOINT s".to_owned(),
    );
    for n in 0..3 {
        let m = n * 9 * 100;
        let late = 10_000 * (n + 1);
        let statements = [
            users(m, "first"),
            // A key is there on the second host; on the first; on the third.
            format!(
                "INSERT INTO users (id, name) VALUES ({}, 'x'), ({}, 'x'), ({}, 'x')",
                A + m + 2,
                B + m,
                C + m + 2
            ),
            format!(
                "INSERT INTO users (id, name) VALUES ({}, 'x'), ({}, 'x'), ({}, 'x')",
                C + m + 2,
                B + m + 2,
                A + m
            ),
            format!(
                "INSERT INTO users (id, name) VALUES ({}, 'x'), ({}, NULL)",
                A + m + 2,
                C + m + 2
            ),
            follows(&[
                (C + m, late),
                (A + m, late + 1),
                (B + m, late + 2),
                (B + m + 9, late + 7),
            ]),
            // Looked at when the transaction ends: twice the same target, of one user on the first, second, third host.
            follows(&[
                (A + m, late + 3),
                (B + m, late + 4),
                (C + m, late + 5),
                (A + m + 9, late + 1),
            ]),
            follows(&[
                (A + m, late + 3),
                (B + m, late + 4),
                (B + m + 9, late + 2),
                (C + m, late + 5),
            ]),
            follows(&[
                (A + m, late + 3),
                (C + m, late + 5),
                (C + m + 9, late),
                (B + m, late + 4),
            ]),
            format!(
                "UPDATE follows SET target_id = target_id + 50 WHERE source_id IN ({}, {})",
                A + m,
                C + m
            ),
            format!(
                "UPDATE follows SET target_id = {late} + 70 WHERE source_id IN ({}, {}, {})",
                A + m,
                B + m,
                B + m + 9
            ),
            format!("DELETE FROM users WHERE id IN ({}, {}, 1)", B + m, C + m),
            begin.clone(),
            users(m + 18, "in a block"),
            savepoint.clone(),
            users(m + 27, "undone"),
            users(m, "fails"),
            "SELECT 1".into(),
            "ROLLBACK TO s".into(),
            format!(
                "UPDATE users SET name = name || '!' WHERE id IN ({}, {})",
                A + m + 18,
                C + m + 18
            ),
            commit.clone(),
            begin.clone(),
            follows(&[(A + m, late + 6), (A + m + 9, late + 51), (B + m, late + 4)]),
            commit.clone(),
            format!(
                "{}; {}",
                users(m + 36, "with others"),
                users(m + 45, "with others")
            ),
            format!(
                "{}; {}",
                users(m + 54, "with others"),
                follows(&[(B + m, late + 8), (B + m + 9, late + 2), (C + m, late + 9)])
            ),
            "SELECT count(*) FROM users".into(),
            "SELECT count(*) FROM follows".into(),
        ];
        for text in &statements {
            let bytes = match n {
                0 => raw::q(text),
                _ if text.contains(';') => raw::q(text),
                1 => [
                    raw::p("", text),
                    raw::b("", "", &[]),
                    raw::dp(""),
                    raw::e("", 0),
                    raw::s(),
                ]
                .concat(),
                _ => [raw::pbe(text, &[]), raw::h(), raw::s()].concat(),
            };
            let words = |answer: Vec<String>| {
                // What is wrong is said by another host, or of another row first.
                let mut answer: Vec<String> = answer
                    .into_iter()
                    .map(|l| {
                        if l.starts_with("E ") {
                            l.chars().take(20).collect()
                        } else {
                            l
                        }
                    })
                    .collect();
                answer.sort();
                answer
            };
            let (got, expected) = (ours.ask(&bytes, 1), plain.ask(&bytes, 1));
            assert_eq!(words(got.clone()), words(expected), "{text}: {got:?}");
            let (ours, plain) = twins.rows().await;
            assert!(
                ours == plain,
                "after {text}: {} and {} rows",
                ours.len(),
                plain.len()
            );
        }
    }
    twins.assert_clean().await;
}

/// Many at once, in all orders of their rows, and all of it adds up: no two wait for each other for ever.
#[tokio::test(flavor = "multi_thread")]
async fn statements_over_the_same_hosts_take_turns() {
    let twins = Twins::new("").await;
    let addr = twins.proxy.addr();
    let rows = format!("({A}, '0'), ({B}, '0'), ({C}, '0')");
    let put = format!("INSERT INTO users (id, name) VALUES {rows}");
    assert_eq!(Raw::connect(addr).query(&put)[0], "C INSERT 0 3");
    let country = "INSERT INTO countries (code, name) VALUES ('xx', '0')";
    assert_eq!(Raw::connect(addr).query(country)[0], "C INSERT 0 1");
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let ids = [[A, B, C], [C, B, A], [B, A, C], [C, A, B]][n].map(|id| id.to_string());
            std::thread::spawn(move || {
                let mut client = Raw::connect(addr);
                let update = format!(
                    "UPDATE users SET name = name::int + 1 WHERE id IN ({})",
                    ids.join(", ")
                );
                let country = "UPDATE countries SET name = name::int + 1 WHERE code = 'xx'";
                for _ in 0..10 {
                    assert_eq!(client.query(&update), ["C UPDATE 3", "Z I"]);
                    assert_eq!(client.query(country), ["C UPDATE 1", "Z I"]);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let found = Raw::connect(addr).query("SELECT name FROM users");
    assert_eq!(
        found.iter().filter(|l| *l == "D 40").count(),
        3,
        "{found:?}"
    );
    for i in 0..3 {
        let sql = "SELECT name FROM countries WHERE code = 'xx'";
        let row = twins.hosts.client(i).await.query_one(sql, &[]).await;
        assert_eq!(row.unwrap().get::<_, String>(0), "40");
    }
    twins.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_host_has_written_is_not_left_out_of_a_commit() {
    let twins = Twins::new("").await;
    let (mut ours, _) = twins.clients();
    for (text, answer) in [
        ("BEGIN", "C BEGIN"),
        (&*user(A, "a"), "C INSERT 0 1"),
        ("SAVEPOINT s", "C SAVEPOINT"),
    ] {
        assert_eq!(ours.query(text)[0], answer, "{text}");
    }
    let client = twins.hosts.client(0).await;
    let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE state = 'idle in transaction'";
    assert_eq!(client.query(end, &[]).await.unwrap().len(), 1);
    // Found out while the transaction becomes one of several hosts.
    let lost = ours.query(&user(B, "b"));
    assert!(lost[0].starts_with('E') && lost[1] == "Z E", "{lost:?}");
    let back = ours.query("ROLLBACK TO s");
    assert!(back[0].contains("C25P02"), "{back:?}");
    assert!(ours.query(&user(B, "b"))[0].contains("C25P02"));
    assert_eq!(ours.query("COMMIT"), ["C ROLLBACK", "Z I"]);
    assert_eq!(twins.rows().await.0, [""; 0]);
    twins.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_at_commit_may_be_another_than_that_of_the_login() {
    let twins = Twins::new("").await;
    let make = "CREATE ROLE other; GRANT other TO app";
    for cluster in twins.hosts.clusters.iter().chain([&twins.plain]) {
        cluster.client().await.batch_execute(make).await.unwrap();
    }
    for shard in 0..SHARDS {
        let client = twins.hosts.client(twins.hosts.owner(shard)).await;
        let grant = format!(
            "GRANT USAGE ON SCHEMA shard_{shard:04} TO other; GRANT ALL ON ALL TABLES IN SCHEMA shard_{shard:04} TO other"
        );
        client.batch_execute(&grant).await.unwrap();
    }
    let grant = "GRANT ALL ON ALL TABLES IN SCHEMA public TO other";
    twins
        .plain
        .client()
        .await
        .batch_execute(grant)
        .await
        .unwrap();
    let (mut ours, mut plain) = twins.clients();
    for text in [
        "BEGIN",
        "SET LOCAL ROLE other",
        &user(A, "a"),
        &user(B, "b"),
        &user(C, "c"),
        "COMMIT",
        "SHOW role",
        "BEGIN",
        &user(A + 9, "a"),
        "SET ROLE other",
        &user(B + 9, "b"),
        "COMMIT",
        "SHOW role",
        "BEGIN",
        &user(A + 18, "a"),
        &user(B + 18, "b"),
        "RESET ROLE",
        "COMMIT",
        "SELECT id, name FROM users ORDER BY id",
    ] {
        assert_eq!(ours.query(text), plain.query(text), "{text}");
    }
    let (ours, plain) = twins.rows().await;
    assert_eq!(ours, plain);
    twins.assert_clean().await;
}

fn all_done(client: &mut Raw, texts: &[&str]) {
    for text in texts {
        let answer = client.query(text);
        assert!(answer[0].starts_with('C'), "{text}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_say_what_becomes_of_a_second_host() {
    let twins = Twins::new("cross_host_snapshots = \"separate\"\n").await;
    let (mut ours, _) = twins.clients();
    let (mut id, begin) = (0, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    let mut next = || {
        id += 9;
        [A, B, C].map(|host| user(host + id, "x"))
    };
    let [a, b, c] = next();
    all_done(&mut ours, &[begin, &a, &b, &c, "COMMIT"]);
    // A transaction keeps the map that it began with; the next one goes by the new one.
    let [a, b, c] = next();
    all_done(&mut ours, &["BEGIN", &a]);
    let refuse = twins.hosts.map_text(1, "cross_host = \"refuse\"\n");
    twins.hosts.write_map(&refuse);
    wait_until("the map is read", || async {
        twins.proxy.log().contains("cross_host: 2pc -> refuse")
    })
    .await;
    all_done(&mut ours, &[&b, &c, "COMMIT"]);
    let [a, b, _] = next();
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
        all_done(&mut ours, &[begin, &a]);
        let refused = ours.query(&b);
        assert!(
            refused[0].contains("CSR002") && refused[1] == "Z E",
            "{refused:?}"
        );
        assert_eq!(ours.query("COMMIT"), ["C ROLLBACK", "Z I"]);
    }
    let (found, _) = twins.rows().await;
    assert_eq!(found.len(), 6, "{found:#?}");
    twins.assert_clean().await;
}

/// lib/pq and tokio-postgres describe a statement before they bind the key: it is described on any host.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_described_on_another_host_is_no_second_snapshot() {
    let twins = Twins::new("").await;
    let users: String = [A, B, C].map(|u| user(u, "x") + ";").concat();
    let client = twins.proxy.client().await;
    client.batch_execute(&users).await.unwrap();
    for (first, other) in [(A, B), (B, A), (C, A), (B, C)] {
        let client = twins.proxy.client().await;
        let begin = "BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY";
        client.batch_execute(begin).await.unwrap();
        let text = format!("SELECT id FROM users WHERE id = $1 AND id > -{first}{other}");
        let by_id = client.prepare(&text).await.unwrap();
        for _ in 0..2 {
            let row = client.query_one(&by_id, &[&first]).await.unwrap();
            assert_eq!(row.get::<_, i64>(0), first);
        }
        // Another statement is described on the host that it is on.
        let name = "SELECT name FROM users WHERE id = $1";
        client.query_one(name, &[&first]).await.unwrap();
        let refused = client.query(&by_id, &[&other]).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "SR002");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    twins.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_connection_for_each_host_is_enough() {
    let twins = Twins::new("").await;
    let map = twins.hosts.map_text(1, "").replace("pool = 10", "pool = 1");
    twins.hosts.write_map(&map);
    wait_until("the map is read", || async {
        twins.proxy.log().contains("pool of c: 10 -> 1")
    })
    .await;
    let (one, _) = twins.clients();
    let (two, _) = twins.clients();
    let play = |mut client: Raw, first: i64| {
        std::thread::spawn(move || {
            for n in (first..first + 20).map(|n| n * 9) {
                let [a, b] = [A, B].map(|host| user(host + n, "x"));
                all_done(&mut client, &["BEGIN", &a, &b, "COMMIT"]);
            }
        })
    };
    for client in [play(one, 1), play(two, 100)] {
        client.join().unwrap();
    }
    let (found, _) = twins.rows().await;
    assert_eq!(found.len(), 80);
    twins.assert_clean().await;
}
