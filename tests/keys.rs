//! Keys that the database is to make: users are created as on one Postgres, each in the shard of its key, by however many
//! proxies.

use std::collections::HashSet;

use presplit::ops::provision::{self, Options};
use presplit::shardmap::id;

use crate::support::raw::{self, Raw};
use crate::support::{Hosts, Proxy};

const SHARDS: u32 = 8;
const SCHEMA: &str = "
    CREATE TABLE countries (code char(2) PRIMARY KEY, name text NOT NULL);
    CREATE TABLE users (id bigserial PRIMARY KEY, name text NOT NULL DEFAULT 'nobody', age int);
    CREATE TABLE photos (id bigserial PRIMARY KEY, user_id bigint NOT NULL, caption text NOT NULL DEFAULT '');
    CREATE TABLE invoices (id bigserial PRIMARY KEY, user_id bigint NOT NULL, cents bigint NOT NULL);
    CREATE TABLE follows (source_id bigint NOT NULL DEFAULT 7, target_id bigint NOT NULL);
";

async fn hosts(hosts: usize, function: &str) -> Hosts {
    let hosts = Hosts::bare(hosts, SHARDS);
    let text = hosts
        .map_text(1, "")
        .replace("\"modulo\"", &format!("{function:?}"));
    hosts.write_map(&text);
    provision(&hosts).await;
    hosts
}

async fn provision(hosts: &Hosts) {
    let report = provision::run(&hosts.map(), SCHEMA, Options::default()).await;
    let report = report.unwrap_or_else(|e| panic!("{e:#?}"));
    assert!(report.is_complete(), "{report}");
}

/// The ids and names of all users, each looked for in its shard by what `shard_of` says of its id.
async fn users(hosts: &Hosts) -> Vec<(i64, String)> {
    let map = hosts.map();
    let mut found = Vec::new();
    for shard in 0..SHARDS {
        let client = hosts.client(hosts.owner(shard)).await;
        let sql = format!("SELECT id, name FROM shard_{shard:04}.users");
        for row in client.query(&sql, &[]).await.unwrap() {
            let key = presplit::shardmap::KeyValue::Int(row.get(0));
            assert_eq!(map.shard_of_key(&key).unwrap().0, shard);
            found.push((row.get(0), row.get(1)));
        }
    }
    found.sort();
    found
}

/// The ids that RETURNING gave.
fn ids(answer: &[String]) -> Vec<i64> {
    let id = |line: &String| line.strip_prefix("D ")?.split('|').next()?.parse().ok();
    answer.iter().filter_map(id).collect()
}

/// Every way to leave the key out: how many rows it makes.
const CREATE: &[(&str, usize)] = &[
    ("INSERT INTO users (name) VALUES ('a') RETURNING id", 1),
    (
        "INSERT INTO users (id, name) VALUES (DEFAULT, 'b') RETURNING id",
        1,
    ),
    (
        "INSERT INTO users (name, id) VALUES ('c', DEFAULT) RETURNING id, name",
        1,
    ),
    ("INSERT INTO users VALUES (DEFAULT, 'd') RETURNING id", 1),
    ("INSERT INTO users DEFAULT VALUES RETURNING id", 1),
    (
        "INSERT INTO public.users (name, age) VALUES ('e', 1 /* ) */), ('f', 2), ('g', -3) ON CONFLICT DO NOTHING RETURNING \"users\".id",
        3,
    ),
    (
        "INSERT INTO users AS u (name) VALUES ('h'), ('i'), ('j'), (DEFAULT) RETURNING id;",
        4,
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_created_without_a_key() {
    for (function, count) in [("hash", 1), ("modulo", 2), ("embedded", 2)] {
        let hosts = hosts(count, function).await;
        let proxy = Proxy::start(&hosts);
        let mut client = Raw::connect(proxy.addr());
        let mut all = HashSet::new();
        let mut expected = 0;
        for (sql, rows) in CREATE {
            let simple = raw::q(sql);
            let bind = [
                raw::p("", sql),
                raw::ds(""),
                raw::b("", "", &[]),
                raw::dp(""),
            ];
            let extended = [bind.concat(), raw::e("", 0), raw::s()].concat();
            for bytes in [simple, extended] {
                let answer = client.ask(&bytes, 1);
                let made = ids(&answer);
                assert_eq!(made.len(), *rows, "{function}: {sql}: {answer:?}");
                assert!(
                    answer.contains(&format!("C INSERT 0 {rows}")),
                    "{sql}: {answer:?}"
                );
                assert!(made.iter().all(|id| all.insert(*id)), "{made:?} twice");
                expected += rows;
            }
        }
        // With parameters, as ORMs send it; the statement is kept and used again.
        let sql =
            "INSERT INTO \"users\" (\"name\", \"age\") VALUES ($1, $2) RETURNING \"users\".\"id\"";
        client.ask(
            &[raw::p("create", sql), raw::ds("create"), raw::s()].concat(),
            1,
        );
        for n in 0..300 {
            let name = format!("user {n}");
            let bytes = [raw::b("", "create", &[&name, "7"]), raw::e("", 0), raw::s()].concat();
            let made = ids(&client.ask(&bytes, 1));
            assert!(made.len() == 1 && all.insert(made[0]), "{made:?}");
            expected += 1;
            if n % 50 == 0 {
                let found = client.query(&format!("SELECT name FROM users WHERE id = {}", made[0]));
                assert!(found.contains(&format!("D {name}")), "{found:?}");
            }
        }
        let found = users(&hosts).await;
        assert_eq!(found.len(), expected, "{function}");
        assert!(found.iter().all(|(id, _)| all.contains(id)));
        let shards: HashSet<_> = found
            .iter()
            .map(|(id, _)| {
                hosts
                    .map()
                    .shard_of_key(&presplit::shardmap::KeyValue::Int(*id))
                    .unwrap()
            })
            .collect();
        assert_eq!(
            shards.len(),
            SHARDS as usize,
            "{function}: each shard gets some"
        );
        if function == "embedded" {
            assert!(
                found
                    .iter()
                    .all(|(key, _)| id::split(*key).unwrap().unix_ms > 1_700_000_000_000)
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_block_keys_lead_to_its_host() {
    for function in ["modulo", "embedded"] {
        let hosts = hosts(2, function).await;
        let proxy = Proxy::start(&hosts);
        let mut client = Raw::connect(proxy.addr());
        for _ in 0..20 {
            client.query("BEGIN");
            let mut made = Vec::new();
            for _ in 0..3 {
                let answer = client.query("INSERT INTO users (name) VALUES ('x') RETURNING id");
                made.extend(ids(&answer));
                let photo = format!(
                    "INSERT INTO photos (user_id) VALUES ({})",
                    made.last().unwrap()
                );
                assert_eq!(client.query(&photo), ["C INSERT 0 1", "Z T"]);
            }
            assert_eq!(made.len(), 3);
            assert_eq!(client.query("COMMIT"), ["C COMMIT", "Z I"]);
        }
        assert_eq!(users(&hosts).await.len(), 60);
        client.query("BEGIN");
        client.query("INSERT INTO users (name) VALUES ('undone')");
        client.query("ROLLBACK");
        assert_eq!(users(&hosts).await.len(), 60);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_proxies_never_give_the_same_key() {
    let hosts = hosts(2, "modulo").await;
    let proxies = [Proxy::start(&hosts), Proxy::start(&hosts)];
    let clients = (0..8).map(|n| {
        let addr = proxies[n % 2].addr();
        std::thread::spawn(move || {
            let mut client = Raw::connect(addr);
            let mut made = Vec::new();
            for n in 0..60 {
                let rows = vec!["('x')"; 1 + n % 7].join(", ");
                let answer = client.query(&format!(
                    "INSERT INTO users (name) VALUES {rows} RETURNING id"
                ));
                assert!(
                    answer.iter().any(|line| line.starts_with("C INSERT")),
                    "{answer:?}"
                );
                made.extend(ids(&answer));
            }
            made
        })
    });
    let clients: Vec<_> = clients.collect();
    let made: Vec<i64> = clients
        .into_iter()
        .flat_map(|c| c.join().unwrap())
        .collect();
    let different: HashSet<_> = made.iter().collect();
    assert_eq!(different.len(), made.len());
    assert_eq!(users(&hosts).await.len(), made.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_begin_above_those_that_are_there_and_can_be_turned_off() {
    let hosts = hosts(2, "modulo").await;
    let counter = hosts.client(0).await;
    counter
        .batch_execute("DROP SEQUENCE presplit.key_users")
        .await
        .unwrap();
    let mut proxy = Proxy::start(&hosts);
    let mut client = Raw::connect(proxy.addr());
    let insert = "INSERT INTO users (name) VALUES ('x') RETURNING id";
    let answer = client.query(insert);
    let said = |words: &str| answer[0].contains("CSR001") && answer[0].contains(words);
    assert!(
        said("key_users") && said("Run presplit provision"),
        "{answer:?}"
    );
    assert_eq!(
        client.query("INSERT INTO users (id, name) VALUES (4711, 'there')")[0],
        "C INSERT 0 1"
    );
    provision(&hosts).await;
    assert_eq!(ids(&client.query(insert)), [4712]);
    // A constant is no key that somebody makes, and nor is nothing.
    for sql in [
        "INSERT INTO follows (target_id) VALUES (1)",
        "INSERT INTO photos (caption) VALUES ('')",
        "INSERT INTO users (name, id) VALUES ('x', NULL)",
    ] {
        let answer = client.query(sql);
        assert!(answer[0].contains("CSR00"), "{answer:?}");
    }
    let answer = client.query(&format!("/* presplit: shard=3 */ {insert}"));
    assert!(answer[0].contains("CSR001"), "{answer:?}");
    let mark = proxy.log_mark();
    hosts.write_map(
        &hosts
            .map_text(2, "")
            .replace("[hosts.a]", "key_block = 0\n[hosts.a]"),
    );
    proxy.reload();
    proxy.wait_log(mark, &["version"]);
    let answer = client.query(insert);
    assert!(answer[0].contains("key_block"), "{answer:?}");
}
