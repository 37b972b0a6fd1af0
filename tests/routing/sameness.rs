//! A list of statements means the same through the proxy as on one Postgres that holds all rows, or is refused.

use super::SHARDS;
use crate::support::raw::{self, Raw};
use crate::support::{Cluster, Hosts, Proxy, column};

/// The same tables on one Postgres, nothing sharded.
pub struct Twins {
    pub proxy: Proxy,
    pub hosts: Hosts,
    pub plain: Cluster,
}

const COUNTRIES: &str = "INSERT INTO countries (code, name) VALUES ('at', 'Austria'), ('br', 'Brazil'), ('ke', 'Kenya')";

/// An id of shard `shard`, number `n` of it.
fn id(shard: i64, n: i64) -> i64 {
    (n << 23) | (shard << 10)
}

impl Twins {
    pub async fn new() -> Twins {
        Twins::with("", "").await
    }

    /// With more DDL, which runs in every shard and on the one Postgres, and more of `[tables]`. `MINE(u)` in it is
    /// true for the users of the shard.
    pub async fn with(ddl: &str, rules: &str) -> Twins {
        let hosts = Hosts::provisioned(2, SHARDS as u32).await;
        let plain = Cluster::new();
        let tables = ["users", "photos", "follows", "likes"];
        for i in 0..2 {
            let client = hosts.client(i).await;
            client.batch_execute(COUNTRIES).await.unwrap();
            for shard in (0..SHARDS as u32).filter(|s| hosts.owner(*s) == i) {
                for table in tables {
                    let sql = format!(
                        "ALTER TABLE shard_{shard:04}.{table} ALTER created_at SET DEFAULT '2020-02-02'"
                    );
                    client.batch_execute(&sql).await.unwrap();
                }
                let sql = format!(
                    "SET search_path = shard_{shard:04}, public; {}",
                    ddl.replace("MINE(u)", &format!("u % 8 = {shard}"))
                );
                client.batch_execute(&sql).await.unwrap();
                client.batch_execute("RESET search_path").await.unwrap();
            }
        }
        let client = plain.client().await;
        client
            .batch_execute(presplit::ops::demo::SCHEMA)
            .await
            .unwrap();
        for table in tables {
            client
                .batch_execute(&format!(
                    "ALTER TABLE {table} ALTER created_at SET DEFAULT '2020-02-02'"
                ))
                .await
                .unwrap();
        }
        client.batch_execute(COUNTRIES).await.unwrap();
        client
            .batch_execute(&ddl.replace("MINE(u)", "true"))
            .await
            .unwrap();
        let map = hosts.map_text(1, "");
        hosts.write_map(&map.replacen("\n[users.app]", &format!("{rules}\n[users.app]"), 1));
        let proxy = Proxy::start(&hosts);
        let twins = Twins {
            proxy,
            hosts,
            plain,
        };
        let through = twins.proxy.client().await;
        for user in 0..16i64 {
            let shard = user % SHARDS;
            let country = ["'at'", "'br'", "'ke'", "NULL"][user as usize % 4];
            let mut sql = vec![format!(
                "INSERT INTO users (id, name, country) VALUES ({user}, 'u{user}', {country})"
            )];
            for n in 1..=2 {
                let photo = id(shard, 10 * user + n);
                sql.push(format!(
                    "INSERT INTO photos (id, user_id, caption) VALUES ({photo}, {user}, 'p{n}')"
                ));
                sql.push(format!(
                    "INSERT INTO likes (user_id, photo_id) VALUES ({user}, {photo})"
                ));
                sql.push(format!(
                    "INSERT INTO follows (source_id, target_id) VALUES ({user}, {})",
                    (user + n) % 16
                ));
            }
            sql.push(format!("INSERT INTO invoices (id, user_id, cents, created_at) VALUES ({}, {user}, {}, '2020-02-02')", user + 1000, user * 100));
            for sql in sql {
                through
                    .batch_execute(&sql)
                    .await
                    .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
                client.batch_execute(&sql).await.unwrap();
            }
        }
        twins
    }

    /// All rows of a table that the hosts hold, and all that the one Postgres holds.
    pub async fn contents(&self, table: &str) -> (Vec<String>, Vec<String>) {
        let mut sharded = Vec::new();
        for i in 0..2 {
            let client = self.hosts.client(i).await;
            let sql = format!(
                "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = '{table}' AND relkind = 'r'"
            );
            for schema in column::<String>(&client, &sql).await {
                let sql = format!("SELECT x::text FROM {schema}.{table} x");
                sharded.extend(column::<String>(&client, &sql).await);
            }
        }
        let sql = format!("SELECT x::text FROM {table} x");
        let mut plain: Vec<String> = column(&self.plain.client().await, &sql).await;
        sharded.sort();
        plain.sort();
        (sharded, plain)
    }
}

/// What is to be compared of an answer: rows in order only where the statement orders them, of an error its code.
fn essence(sql: &str, answer: &[String]) -> Vec<String> {
    let upper = sql.to_uppercase();
    let code = |line: &String| {
        line.split(" | ")
            .find_map(|f| f.strip_prefix('C').map(|c| format!("E {c}")))
    };
    let mut kept: Vec<String> = answer
        .iter()
        .filter_map(|l| {
            if l.starts_with("E ") {
                code(l)
            } else {
                Some(l.clone())
            }
        })
        .collect();
    if !upper.contains("ORDER BY") {
        let (mut rows, mut rest): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(|l| l.starts_with("D "));
        rows.sort();
        rest.extend(rows);
        kept = rest;
    }
    kept
}

pub fn is_refusal(answer: &[String]) -> bool {
    answer
        .iter()
        .any(|l| l.contains(" | CSR0") || (l.contains(" | C0A000") && l.contains(" | H")))
}

/// What became of a list of statements.
pub struct Sameness {
    /// How many were answered as Postgres answers them, in each protocol.
    pub equal: usize,
    /// Statement and refusal.
    pub refused: Vec<String>,
}

/// Runs each line of `list` through the proxy and on one Postgres, which must answer alike or not be asked.
pub async fn same_or_refused(twins: &Twins, list: &str) -> Sameness {
    let plain_addr = twins.plain.addr();
    let (mut refused, mut equal, mut errors) = (Vec::new(), 0, 0);
    let mut different = Vec::new();
    for extended in [false, true] {
        let (mut through, mut direct) =
            (Raw::connect(twins.proxy.addr()), Raw::connect(plain_addr));
        for sql in list
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with("--"))
        {
            let bytes = match extended {
                false => raw::q(sql),
                true => [raw::pbde(sql, &[]), raw::s()].concat(),
            };
            let answer = through.ask(&bytes, 1);
            if is_refusal(&answer) {
                refused.push(format!(
                    "{sql}\n      {}",
                    answer.iter().find(|l| l.starts_with("E ")).unwrap()
                ));
                continue;
            }
            let expected = direct.ask(&bytes, 1);
            let (answer, expected) = (essence(sql, &answer), essence(sql, &expected));
            if answer == expected {
                equal += 1;
                errors += usize::from(answer.iter().any(|l| l.starts_with("E ")));
            } else {
                different.push(format!("extended: {extended}: {sql}\n   presplit: {answer:?}\n   postgres: {expected:?}"));
            }
        }
    }
    for table in ["users", "photos", "follows", "likes", "invoices"] {
        let (sharded, plain) = twins.contents(table).await;
        if sharded != plain {
            different.push(format!(
                "{table} differs:\n   presplit: {sharded:?}\n   postgres: {plain:?}"
            ));
        }
    }
    println!(
        "{equal} equal ({errors} of them errors), {} refused, {} different",
        refused.len(),
        different.len()
    );
    println!("refused:\n  {}", refused.join("\n  "));
    assert!(different.is_empty(), "\n{}", different.join("\n"));
    Sameness { equal, refused }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_as_one_postgres_or_refused() {
    let twins = Twins::new().await;
    let list = include_str!("../fixtures/differential.sql");
    let Sameness { equal, .. } = same_or_refused(&twins, list).await;
    assert!(equal > 250, "{equal} equal");
}
