//! Transactions that write on several hosts do what they do on one Postgres: the same answers message by message, the same
//! rows afterwards, nothing prepared left behind.

mod blocks;
mod statements;

use crate::support::raw::Raw;
use crate::support::{Cluster, Hosts, Proxy, column, wait_until};

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
        let plain = Raw::connect(self.plain.addr());
        (Raw::connect(self.proxy.addr()), plain)
    }

    async fn rows(&self) -> (Vec<String>, Vec<String>) {
        let (mut found, direct) = (Vec::new(), self.hosts.clients().await);
        for shard in 0..SHARDS {
            let client = &direct[self.hosts.owner(shard)];
            for (table, key) in [("users", "id"), ("follows", "source_id")] {
                let sql = format!(
                    "SELECT '{table} ' || {key} || ' ' || to_jsonb(x) - 'created_at' FROM shard_{shard:04}.{table} x WHERE {key} % {SHARDS} = {shard}"
                );
                found.extend(column::<String>(client, &sql).await);
            }
        }
        found.sort();
        let client = self.plain.client().await;
        let sql = "SELECT 'users ' || id || ' ' || to_jsonb(x) - 'created_at' FROM users x UNION ALL
            SELECT 'follows ' || source_id || ' ' || to_jsonb(x) - 'created_at' FROM follows x ORDER BY 1";
        let mut plain: Vec<String> = column(&client, sql).await;
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
