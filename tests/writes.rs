//! Writes to several shards do what they do on one Postgres that holds all rows: tags, rows, their order, errors and what
//! is left afterwards; or they are refused before anything is written.

use std::net::SocketAddr;

use crate::support::raw::{self, Raw};
use crate::support::{Cluster, Hosts, Proxy};

const SHARDS: u32 = 8;
const TABLES: [&str; 4] = ["users", "photos", "follows", "likes"];

/// The same tables behind the proxy and on one Postgres.
struct Twins {
    proxy: Proxy,
    hosts: Hosts,
    plain: Cluster,
}

impl Twins {
    async fn new(hosts: usize) -> Twins {
        let hosts = Hosts::provisioned(hosts, SHARDS).await;
        let plain = Cluster::new();
        let client = plain.client().await;
        let schema = presplit::ops::demo::SCHEMA;
        client.batch_execute(schema).await.unwrap();
        let defaults = |schema: &str| {
            let of = |table: &&str| {
                format!("ALTER TABLE {schema}.{table} ALTER created_at SET DEFAULT '2020-02-02';")
            };
            TABLES.iter().map(of).collect::<String>()
        };
        let countries = "INSERT INTO countries (code, name) VALUES ('at', 'Austria'), ('ke', 'Kenya')";
        client.batch_execute(&defaults("public")).await.unwrap();
        client.batch_execute(countries).await.unwrap();
        for i in 0..hosts.clusters.len() {
            let client = hosts.client(i).await;
            client.batch_execute(countries).await.unwrap();
            for shard in (0..SHARDS).filter(|s| hosts.owner(*s) == i) {
                let sql = defaults(&format!("shard_{shard:04}"));
                client.batch_execute(&sql).await.unwrap();
            }
        }
        let proxy = Proxy::start(&hosts);
        Twins {
            proxy,
            hosts,
            plain,
        }
    }

    fn clients(&self) -> (Raw, Raw) {
        let plain = SocketAddr::from(([127, 0, 0, 1], self.plain.port()));
        (Raw::connect(self.proxy.addr()), Raw::connect(plain))
    }

    /// All rows of a table that the shards hold, each checked to be in its own; sorted.
    async fn rows(&self, table: &str) -> Vec<String> {
        let key = match table {
            "users" => "id",
            "follows" => "source_id",
            _ => "user_id",
        };
        let mut found = Vec::new();
        for shard in 0..SHARDS {
            let client = self.hosts.client(self.hosts.owner(shard)).await;
            let sql = format!("SELECT x::text, {key} FROM shard_{shard:04}.{table} x");
            for row in client.query(&sql, &[]).await.unwrap() {
                let key: i64 = row.get(1);
                assert_eq!(key.rem_euclid(i64::from(SHARDS)), i64::from(shard), "{table}");
                found.push(row.get(0));
            }
        }
        found.sort();
        found
    }

    async fn assert_same_rows(&self) {
        for table in TABLES {
            let sql = format!("SELECT x::text FROM {table} x");
            let rows = self.plain.client().await.query(&sql, &[]).await.unwrap();
            let mut plain: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            plain.sort();
            assert_eq!(self.rows(table).await, plain, "{table}");
        }
    }
}

/// How a statement is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sent {
    Simple,
    /// Parse, Bind, Describe, Execute, Sync.
    Extended,
    /// Without Describe.
    Bare,
}

fn message(sent: Sent, sql: &str) -> Vec<u8> {
    match sent {
        Sent::Simple => raw::q(sql),
        Sent::Extended => {
            let bind = raw::b("", "", &[]);
            [raw::p("", sql), bind, raw::dp(""), raw::e("", 0), raw::s()].concat()
        }
        Sent::Bare => [raw::pbe(sql, &[]), raw::s()].concat(),
    }
}

/// Errors without their words, which name constraints and hints of shards; and without the rows of RETURNING before
/// them, which one Postgres sends only when all are written, and the BindComplete of what is wrong in a part.
fn essence(mut answer: Vec<String>, sort: bool) -> Vec<String> {
    if answer.iter().any(|line| line.starts_with("E ")) {
        answer.retain(|line| !line.starts_with("D ") && !["T", "2", "n"].contains(&&line[..1]));
    }
    let code = |line: String| match line.starts_with("E ") {
        true => {
            let fields = line.split(" | ").filter(|f| f.starts_with(['C', 'P', 'c', 't']));
            format!("E {}", fields.collect::<Vec<_>>().join(" "))
        }
        false => line,
    };
    let mut lines: Vec<String> = answer.into_iter().map(code).collect();
    if sort {
        lines.sort();
    }
    lines
}

/// Statements that answer alike; UPDATE and DELETE give their rows in no order.
const ALIKE: &[&str] = &[
    "INSERT INTO users (id, name, country) VALUES (1, 'a', 'at'), (2, 'b', NULL), (3, 'c''s', 'ke'), (9, 'i', DEFAULT)",
    "INSERT INTO users (id, name) VALUES (10, 'x'), (11, 'y'), (18, 'z'), (12, 'w') RETURNING id, name, created_at",
    "INSERT INTO users VALUES (20, 'p', 'at'), (21, 'q', 'at') RETURNING *",
    "INSERT INTO users AS u (name, id) VALUES ('r', 30), ('s', 31), ('t', 38), ('u', 33) RETURNING u.id, upper(u.name)",
    "INSERT INTO \"public\".\"users\" (\"id\", \"name\") VALUES (40, 'r'), (41, 's') RETURNING \"public\".\"users\".\"id\"",
    "INSERT INTO likes (user_id, photo_id) VALUES (1, 1), (2, 1), (1, 2), (2, 2), (9, 1)",
    // One row is there: nothing of the statement stays.
    "INSERT INTO likes (user_id, photo_id) VALUES (5, 1), (6, 1), (2, 2), (7, 1)",
    "INSERT INTO likes (user_id, photo_id) VALUES (5, 1), (5, 1), (6, 1)",
    "INSERT INTO users (id, name, country) VALUES (50, 'a', 'at'), (51, 'b', 'xx') RETURNING id",
    "INSERT INTO users (id, name) VALUES (50, 'a'), (51, NULL) RETURNING id",
    "INSERT INTO likes (user_id, photo_id) VALUES (1, 1), (2, 5), (1, 6) ON CONFLICT DO NOTHING RETURNING *",
    "INSERT INTO likes (user_id, photo_id) VALUES (1, 7), (2, 7), (1, 7) ON CONFLICT (user_id, photo_id) DO NOTHING",
    "INSERT INTO users (id, name) VALUES (1, 'A'), (2, 'B'), (60, 'new') ON CONFLICT (id) DO UPDATE SET name = excluded.name || users.name RETURNING id, name",
    "INSERT INTO users (id, name) VALUES (1, 'A'), (2, 'B'), (1, 'C') ON CONFLICT (id) DO UPDATE SET name = excluded.name RETURNING id, name",
    "INSERT INTO users (id, name) VALUES (1, 'A2'), (2, 'B2'), (3, 'C2') ON CONFLICT (id) DO UPDATE SET name = excluded.name WHERE users.id <> 2 RETURNING id, name",
    "INSERT INTO users (id, name) VALUES (1, 'A3'), (2, 'B3'), (3, 'C3') ON CONFLICT (id) DO UPDATE SET name = excluded.name WHERE users.id <> 2",
    // What is wrong with the whole is said of the whole.
    "INSERT INTO users (id, name) VALUES (70, 'a'), (71)",
    "INSERT INTO users (id, name) VALUES (70, 'a'), (71, 'b', 'c')",
    "INSERT INTO users (id, nam) VALUES (70, 'a'), (71, 'b')",
    "INSERT INTO users (id, name) VALUES (70, 'a'), (71, 'b') RETURNING nothing",
    "INSERT INTO users (id, name) VALUES (70, 1 / 0), (71, 'b')",
    "INSERT INTO likes (user_id, photo_id) VALUES (1, 70), (2, 'x')",
    "INSERT /* a */ INTO users -- b (\n (id, name /* ) */) VALUES -- (\n (80, 'VALUES (1)' /* x, ( */), (81, E'\\')'), (82, $$)$$), (83, (((('d'))))) -- end\n RETURNING id /* , */",
    "INSERT INTO users (id, name) VALUES (90, (SELECT name FROM countries WHERE code = 'at')), (91, (SELECT 'v' || max(code) FROM countries)) RETURNING name",
    "INSERT INTO users (id, name) OVERRIDING USER VALUE VALUES (92, 'a'), (93, 'b');",
    "UPDATE users SET name = name || '!' WHERE id IN (1, 2, 3)",
    "UPDATE users SET name = name || '?' WHERE id IN (1, 2, 3) RETURNING id, name",
    "UPDATE users SET name = 'n' WHERE id = 1 OR id = 10 OR id = 777 RETURNING *",
    "UPDATE users SET name = 'm' WHERE id = ANY ('{1,2,18}')",
    "UPDATE users SET name = NULL WHERE id IN (1, 2)",
    "UPDATE users SET country = 'xx' WHERE id IN (1, 2)",
    "UPDATE users SET nam = 1 WHERE id IN (1, 2)",
    "UPDATE users u SET name = u.name || l.photo_id FROM likes l WHERE l.user_id = u.id AND u.id IN (1, 2) AND l.photo_id = 2 RETURNING u.id, u.name, l.photo_id",
    "UPDATE users u SET name = c.name FROM countries c WHERE c.code = u.country AND u.id IN (1, 3, 20, 21)",
    "UPDATE users u SET name = (SELECT count(*)::text FROM likes l WHERE l.user_id = u.id) WHERE u.id IN (1, 2, 3) RETURNING u.id, u.name",
    "DELETE FROM likes l USING users u WHERE l.user_id = u.id AND l.photo_id = 7 AND u.id IN (1, 2) RETURNING l.user_id, u.name",
    "DELETE FROM likes WHERE (user_id, photo_id) IN ((1, 1), (2, 2), (5, 5))",
    "/* presplit: all */ UPDATE users SET name = name || '.'",
    "/* presplit: all */ UPDATE users SET name = name || '.' RETURNING id, name",
    "/* presplit: all */ DELETE FROM likes WHERE photo_id > 4 RETURNING user_id, photo_id",
    "/* presplit: all */ DELETE FROM likes WHERE EXISTS (SELECT FROM users u WHERE u.id = likes.user_id AND u.country IS NULL)",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_to_several_shards_of_one_host_are_those_of_one_postgres() {
    let twins = Twins::new(1).await;
    for sent in [Sent::Simple, Sent::Extended, Sent::Bare] {
        let (mut through, mut direct) = twins.clients();
        for sql in ALIKE {
            let bytes = message(sent, sql);
            let sort = !sql.starts_with("INSERT");
            let (got, wanted) = (through.ask(&bytes, 1), direct.ask(&bytes, 1));
            assert_eq!(
                essence(got.clone(), sort),
                essence(wanted, sort),
                "{sent:?}: {sql}\n{got:?}"
            );
        }
        twins.assert_same_rows().await;
        // The next round begins with no rows.
        for sql in ["users", "likes"].map(|t| format!("/* presplit: all */ DELETE FROM {t}")) {
            let bytes = raw::q(&sql);
            assert_eq!(through.ask(&bytes, 1), direct.ask(&bytes, 1));
        }
        twins.assert_same_rows().await;
    }
}
