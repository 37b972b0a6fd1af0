//! Writes to several shards do what they do on one Postgres that holds all rows: tags, rows, their order, errors and what
//! is left afterwards; or they are refused before anything is written.

use tokio_postgres::Client;

use crate::support::raw::{self, Raw};
use crate::support::{Cluster, Hosts, Proxy, column};

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
        let countries =
            "INSERT INTO countries (code, name) VALUES ('at', 'Austria'), ('ke', 'Kenya')";
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
        let separate = "cross_host_snapshots = \"separate\"";
        hosts.write_map(&hosts.map_text(1, separate));
        let proxy = Proxy::start(&hosts);
        Twins {
            proxy,
            hosts,
            plain,
        }
    }

    fn clients(&self) -> (Raw, Raw) {
        let plain = Raw::connect(self.plain.addr());
        (Raw::connect(self.proxy.addr()), plain)
    }

    /// All rows of a table that the shards hold, each checked to be in its own; sorted.
    async fn rows(&self, direct: &[Client], table: &str) -> Vec<String> {
        let key = match table {
            "users" => "id",
            "follows" => "source_id",
            _ => "user_id",
        };
        let mut found = Vec::new();
        for shard in 0..SHARDS {
            let client = &direct[self.hosts.owner(shard)];
            let sql = format!("SELECT x::text, {key} FROM shard_{shard:04}.{table} x");
            for row in client.query(&sql, &[]).await.unwrap() {
                let key: i64 = row.get(1);
                assert_eq!(
                    key.rem_euclid(i64::from(SHARDS)),
                    i64::from(shard),
                    "{table}"
                );
                found.push(row.get(0));
            }
        }
        found.sort();
        found
    }

    async fn assert_same_rows(&self) {
        let (direct, one) = (self.hosts.clients().await, self.plain.client().await);
        for table in TABLES {
            let sql = format!("SELECT x::text FROM {table} x");
            let mut plain: Vec<String> = column(&one, &sql).await;
            plain.sort();
            assert_eq!(self.rows(&direct, table).await, plain, "{table}");
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
    raw::essence(answer, sort)
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
    "INSERT INTO users (id, name) OVERRIDING SYSTEM VALUE VALUES (92, 'a'), (93, 'b');",
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
    writes_are_those_of_one_postgres(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_to_shards_of_several_hosts_are_those_of_one_postgres() {
    writes_are_those_of_one_postgres(3).await;
}

async fn writes_are_those_of_one_postgres(hosts: usize) {
    let twins = Twins::new(hosts).await;
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

/// Bind with parameters each in its own format, results in `results`.
fn bind(params: &[(u16, Option<Vec<u8>>)], results: u16) -> Vec<u8> {
    let mut body = b"\0\0".to_vec();
    body.extend((params.len() as u16).to_be_bytes());
    body.extend(params.iter().flat_map(|(format, _)| format.to_be_bytes()));
    body.extend((params.len() as u16).to_be_bytes());
    for (_, value) in params {
        let len = value.as_ref().map_or(-1, |value| value.len() as i32);
        body.extend(len.to_be_bytes());
        body.extend(value.iter().flatten());
    }
    body.extend(1u16.to_be_bytes());
    body.extend(results.to_be_bytes());
    raw::frame(b'B', &body)
}

fn text(value: &str) -> (u16, Option<Vec<u8>>) {
    (0, Some(value.as_bytes().to_vec()))
}

fn int8(value: i64) -> (u16, Option<Vec<u8>>) {
    (1, Some(value.to_be_bytes().to_vec()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_go_with_their_rows() {
    for hosts in [1, 3] {
        parameters_go_with_rows_on(hosts).await;
    }
}

async fn parameters_go_with_rows_on(hosts: usize) {
    let twins = Twins::new(hosts).await;
    let (mut through, mut direct) = twins.clients();
    let mut same = |bytes: Vec<u8>, what: &str| {
        let (got, wanted) = (through.ask(&bytes, 1), direct.ask(&bytes, 1));
        assert_eq!(
            essence(got.clone(), false),
            essence(wanted, false),
            "{what}: {got:?}"
        );
        got
    };
    // The last parameter is of every part, the first of one; they stand in any order; one is of two rows.
    let sql = "INSERT INTO users (name, id, country) VALUES ($1, $2, $8), ($4, $3, $8), ($5 || $1, $6, NULL), ($7, 17, $8) \
               ON CONFLICT (id) DO UPDATE SET name = excluded.name || $9 RETURNING id, name, $9 AS nine, country";
    let none = (0, None);
    for (types, results) in [
        (&[][..], 0),
        (&[25, 20][..], 1),
        (&[25, 20, 20, 25, 25, 20][..], 0),
    ] {
        for n in 0..2i64 {
            let keys = [100 + n, 101 + n, 108 + n];
            let values = |key: fn(i64) -> (u16, Option<Vec<u8>>)| {
                [
                    text("one"),
                    key(keys[0]),
                    key(keys[1]),
                    text("four"),
                    text("five"),
                    key(keys[2]),
                    text("seven"),
                    if n == 0 { text("at") } else { none.clone() },
                    text("nine"),
                ]
            };
            for params in [values(|key| text(&key.to_string())), values(int8)] {
                let bytes = [
                    raw::pt("", sql, types),
                    raw::ds(""),
                    bind(&params, results),
                    raw::dp(""),
                    raw::e("", 0),
                    raw::s(),
                ];
                let got = same(bytes.concat(), "insert");
                assert!(got.contains(&"C INSERT 0 4".to_owned()), "{got:?}");
            }
        }
    }
    // A named statement, again and again, and in one pipeline with others.
    let sql = "INSERT INTO likes (user_id, photo_id) VALUES ($1, $2), ($3, $4)";
    let run = |a: i64, b: i64| {
        let params = [int8(a), text("5"), text(&b.to_string()), int8(6)];
        let mut message = bind(&params, 0);
        // The statement's name stands behind the portal's.
        message.insert(6, b'l');
        let len = (message.len() as u32 - 1).to_be_bytes();
        message[1..5].copy_from_slice(&len);
        [message, raw::e("", 0)].concat()
    };
    same([raw::p("l", sql), run(1, 2), raw::s()].concat(), "first");
    same(
        [
            run(3, 4),
            run(5, 5),
            raw::pbe("SELECT 1", &[]),
            run(6, 7),
            raw::s(),
        ]
        .concat(),
        "pipeline",
    );
    same(
        [run(9, 10), run(11, 2), run(12, 13), raw::s()].concat(),
        "the second fails: nothing stays",
    );
    same(
        [run(9, 10), raw::e("", 0), raw::s()].concat(),
        "a portal runs once",
    );
    same([run(10, 11), raw::h(), raw::s()].concat(), "flush");
    let sql = "UPDATE users SET name = $2 WHERE id = ANY ($1)";
    let got = same(
        [
            raw::p("", sql),
            raw::b("", "", &["{101,100,108}", "set"]),
            raw::e("", 0),
            raw::s(),
        ]
        .concat(),
        "any",
    );
    assert!(got.contains(&"C UPDATE 3".to_owned()), "{got:?}");
    let delete = "DELETE FROM likes WHERE user_id IN ($1, $2, $3)";
    let three = raw::bf(
        "",
        "d",
        1,
        &[Some(&1i64.to_be_bytes()), Some(&2i64.to_be_bytes()), None],
    );
    for _ in 0..2 {
        let close = raw::cs("d");
        same(
            [
                close,
                raw::p("d", delete),
                three.clone(),
                raw::e("", 0),
                raw::s(),
            ]
            .concat(),
            "delete",
        );
    }
    let missing = [
        raw::p("", "INSERT INTO likes VALUES ($1, 1), ($2, 1)"),
        raw::b("", "", &["1", "2", "3"]),
    ];
    same(
        [missing.concat(), raw::e("", 0), raw::s()].concat(),
        "too many parameters",
    );
    let types =
        "INSERT INTO likes (user_id, photo_id, created_at) VALUES ($1, 1, $3), ($2, $3, now())";
    let bytes = [
        raw::p("", types),
        raw::b("", "", &["1", "2", "3"]),
        raw::e("", 0),
        raw::s(),
    ];
    same(bytes.concat(), "a parameter of two types");
    twins.assert_same_rows().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_holds_them_together() {
    for hosts in [1, 3] {
        a_block_holds_together_writes_on(hosts).await;
    }
}

async fn a_block_holds_together_writes_on(hosts: usize) {
    let twins = Twins::new(hosts).await;
    let (mut through, mut direct) = twins.clients();
    let likes = |a: i64, b: i64| {
        format!("INSERT INTO likes (user_id, photo_id) VALUES ({a}, 1), ({b}, 1) RETURNING user_id")
    };
    let script = [
        "BEGIN".to_owned(),
        likes(1, 2),
        "SAVEPOINT a".to_owned(),
        likes(3, 4),
        likes(5, 1),
        likes(5, 6),
        "ROLLBACK TO a".to_owned(),
        likes(5, 6),
        "UPDATE users SET name = 'x' WHERE id IN (1, 2)".to_owned(),
        "COMMIT".to_owned(),
        "BEGIN".to_owned(),
        likes(7, 8),
        "ROLLBACK".to_owned(),
        "BEGIN".to_owned(),
        likes(7, 7),
        "COMMIT".to_owned(),
        // All in one message.
        format!("BEGIN; {}; COMMIT", "SELECT 1"),
        "BEGIN ISOLATION LEVEL REPEATABLE READ".to_owned(),
        likes(10, 11),
        "SELECT count(*) FROM likes WHERE user_id = 10".to_owned(),
        "COMMIT".to_owned(),
    ];
    for sent in [Sent::Simple, Sent::Extended] {
        for sql in &script {
            if sent == Sent::Extended && sql.contains(';') {
                continue;
            }
            let bytes = message(sent, sql);
            let (got, wanted) = (through.ask(&bytes, 1), direct.ask(&bytes, 1));
            assert_eq!(
                essence(got.clone(), false),
                essence(wanted, false),
                "{sent:?} {sql}: {got:?}"
            );
        }
        twins.assert_same_rows().await;
        let bytes = raw::q("/* presplit: all */ DELETE FROM likes");
        assert_eq!(through.ask(&bytes, 1), direct.ask(&bytes, 1));
    }
    // Several statements in one message inside a block.
    for sql in [
        "BEGIN",
        "SELECT 1; INSERT INTO likes VALUES (1, 1), (2, 2); SELECT 2",
        "COMMIT",
    ] {
        let bytes = raw::q(sql);
        assert_eq!(through.ask(&bytes, 1), direct.ask(&bytes, 1), "{sql}");
    }
    // Outside a block such a message is a transaction.
    for sql in [
        "SELECT 1; INSERT INTO likes VALUES (3, 1), (4, 2); SELECT 2",
        "SELECT 1; INSERT INTO likes VALUES (5, 1), (4, 3)",
        "INSERT INTO likes VALUES (6, 9), (7, 9); INSERT INTO likes VALUES (5, 1), (4, 9)",
    ] {
        let bytes = raw::q(sql);
        let (got, wanted) = (through.ask(&bytes, 1), direct.ask(&bytes, 1));
        assert_eq!(essence(got, false), essence(wanted, false), "{sql}");
    }
    twins.assert_same_rows().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rows_come_back_in_order() {
    for hosts in [1, 3] {
        many_rows_come_back_in_order_from(hosts).await;
    }
}

async fn many_rows_come_back_in_order_from(hosts: usize) {
    let twins = Twins::new(hosts).await;
    let (mut through, mut direct) = twins.clients();
    let name = "n".repeat(300);
    // More than one window of text and of rows.
    let rows = |from: i64| {
        (0..3000)
            .map(|n| format!("({}, '{name}')", from + n * 7919 % 3000))
            .collect::<Vec<_>>()
            .join(", ")
    };
    for (sent, from, end) in [
        (Sent::Simple, 0, "RETURNING id, name"),
        (Sent::Extended, 3000, "RETURNING id, name"),
        (Sent::Simple, 6000, ""),
        (Sent::Simple, 0, "ON CONFLICT DO NOTHING RETURNING id"),
        (Sent::Extended, 8500, "ON CONFLICT DO NOTHING RETURNING id"),
        // The error comes when much has been sent.
        (Sent::Simple, 11000, "RETURNING id, name"),
        (Sent::Extended, 11000, "RETURNING id, name"),
    ] {
        let sql = format!("INSERT INTO users (id, name) VALUES {} {end}", rows(from));
        let bytes = message(sent, &sql);
        let (got, wanted) = (
            essence(through.ask(&bytes, 1), false),
            essence(direct.ask(&bytes, 1), false),
        );
        assert!(
            got == wanted,
            "{sent:?} {from} {end}: {:?} {:?}",
            got.last_chunk::<3>(),
            wanted.last_chunk::<3>()
        );
        let next = raw::q("SELECT 1");
        assert_eq!(through.ask(&next, 1), direct.ask(&next, 1));
    }
    let params: Vec<String> = (0..2000i64)
        .flat_map(|n| [(20_000 + n * 37 % 2000).to_string(), format!("p{n}")])
        .collect();
    let params: Vec<&str> = params.iter().map(String::as_str).collect();
    let places: Vec<String> = (0..2000)
        .map(|n| format!("(${}, ${})", 2 * n + 1, 2 * n + 2))
        .collect();
    let sql = format!(
        "INSERT INTO users (id, name) VALUES {} RETURNING id, name",
        places.join(",")
    );
    let bytes = [
        raw::p("", &sql),
        raw::b("", "", &params),
        raw::dp(""),
        raw::e("", 0),
        raw::s(),
    ]
    .concat();
    let (got, wanted) = (through.ask(&bytes, 1), direct.ask(&bytes, 1));
    assert!(
        got == wanted,
        "{:?} {:?}",
        got.last_chunk::<3>(),
        wanted.last_chunk::<3>()
    );
    twins.assert_same_rows().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_are_kept_apart_where_the_map_says_so() {
    let mut twins = Twins::new(2).await;
    let refuse = "cross_host = \"refuse\"";
    twins.hosts.write_map(&twins.hosts.map_text(2, refuse));
    twins.proxy = Proxy::start(&twins.hosts);
    let (mut through, mut direct) = twins.clients();
    // Shards 0 to 3 are on a, 4 to 7 on b.
    let refused = [
        "INSERT INTO likes (user_id, photo_id) VALUES (1, 1), (2, 1), (5, 1)",
        "UPDATE users SET name = 'x' WHERE id IN (1, 5)",
        "DELETE FROM users WHERE id = 3 OR id = 4",
        "/* presplit: all */ DELETE FROM likes",
        "INSERT INTO countries (code, name) VALUES ('fr', 'France')",
    ];
    let alike = [
        "INSERT INTO likes (user_id, photo_id) VALUES (1, 1), (2, 1), (3, 1), (9, 1) RETURNING user_id",
        "INSERT INTO likes (user_id, photo_id) VALUES (6, 1), (5, 1), (14, 1) RETURNING user_id",
        "INSERT INTO likes (user_id, photo_id) VALUES (7, 1), (6, 1), (4, 1)",
        "DELETE FROM likes WHERE user_id IN (1, 2)",
    ];
    for sent in [Sent::Simple, Sent::Extended] {
        for sql in refused {
            let answer = through.ask(&message(sent, sql), 1);
            let hint = |line: &String| line.contains("CSR002") && line.contains(" | H");
            assert!(answer.iter().any(hint), "{sql}: {answer:?}");
        }
        for sql in alike {
            let bytes = message(sent, sql);
            let (got, wanted) = (through.ask(&bytes, 1), direct.ask(&bytes, 1));
            assert_eq!(
                essence(got.clone(), false),
                essence(wanted, false),
                "{sent:?} {sql}: {got:?}"
            );
        }
        twins.assert_same_rows().await;
        for keys in ["3, 9", "5, 6, 14"] {
            let bytes = raw::q(&format!("DELETE FROM likes WHERE user_id IN ({keys})"));
            assert_eq!(through.ask(&bytes, 1), direct.ask(&bytes, 1));
        }
        for sql in ["BEGIN", alike[0], "ROLLBACK"] {
            let bytes = message(sent, sql);
            assert_eq!(through.ask(&bytes, 1), direct.ask(&bytes, 1));
        }
    }
    // In a block a second host is refused before it is written to.
    for sql in ["BEGIN", alike[0]] {
        through.query(sql);
    }
    assert!(through.query(alike[1])[0].contains("CSR002"));
    through.query("ROLLBACK");
    twins.assert_same_rows().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reference_tables_of_one_host_are_written() {
    let twins = Twins::new(1).await;
    let (mut through, mut direct) = twins.clients();
    for sent in [Sent::Simple, Sent::Extended] {
        for sql in [
            "INSERT INTO countries (code, name) VALUES ('fr', 'France'), ('it', 'Italy') RETURNING code",
            "UPDATE countries SET name = upper(name) WHERE code = 'fr'",
            "DELETE FROM countries WHERE code = 'it' RETURNING *",
            "SELECT * FROM countries ORDER BY code",
            "DELETE FROM countries WHERE code = 'fr'",
        ] {
            let bytes = message(sent, sql);
            assert_eq!(through.ask(&bytes, 1), direct.ask(&bytes, 1), "{sql}");
        }
    }
}
