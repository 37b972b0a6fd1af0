//! Writes to reference tables: the answers of one Postgres, and the very same rows on every host, or none on any.

use tokio_postgres::Client;

use crate::support::raw::{self, Raw};
use crate::support::{Cluster, Hosts, Proxy, column};

const SHARDS: u32 = 9;
/// On every host, and in the one Postgres.
const TABLES: &str = "
CREATE TABLE kinds (id serial PRIMARY KEY, app text NOT NULL, model text NOT NULL, weight float8,
    made timestamptz DEFAULT clock_timestamp(), twice int GENERATED ALWAYS AS (length(app) * 2) STORED, UNIQUE (app, model));
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE perms (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind int NOT NULL REFERENCES kinds DEFERRABLE INITIALLY DEFERRED, code text CHECK (code <> 'bad'), moods mood[]);
";

struct Twins {
    proxy: Proxy,
    /// Past the proxy: to each host, and to the one Postgres.
    direct: Vec<Client>,
    one: Client,
    // They run as long as this lives.
    _hosts: Hosts,
    plain: Cluster,
}

impl Twins {
    async fn new() -> Twins {
        let hosts = Hosts::provisioned(3, SHARDS).await;
        let kinds =
            "kinds = { kind = \"reference\" }\nperms = { kind = \"reference\" }\ncountries =";
        let map = hosts.map_text(1, "").replace("countries =", kinds);
        hosts.write_map(&map);
        let plain = Cluster::new();
        let schema = presplit::ops::demo::SCHEMA;
        plain.client().await.batch_execute(schema).await.unwrap();
        plain.client().await.batch_execute(TABLES).await.unwrap();
        for i in 0..3 {
            hosts.client(i).await.batch_execute(TABLES).await.unwrap();
        }
        Twins {
            proxy: Proxy::start(&hosts),
            direct: hosts.clients().await,
            one: plain.client().await,
            _hosts: hosts,
            plain,
        }
    }

    fn clients(&self) -> (Raw, Raw) {
        let plain = Raw::connect(self.plain.addr());
        (Raw::connect(self.proxy.addr()), plain)
    }

    /// All hosts hold the same rows, and but for the time when they were made those of the one Postgres.
    async fn assert_same(&self, what: &str) {
        for table in ["kinds", "perms", "countries"] {
            let all = format!("SELECT to_jsonb(t)::text FROM public.{table} t ORDER BY 1");
            let plain =
                format!("SELECT (to_jsonb(t) - 'made')::text FROM public.{table} t ORDER BY 1");
            let mut found = Vec::new();
            for client in &self.direct {
                let all: Vec<String> = column(client, &all).await;
                found.push((all, column::<String>(client, &plain).await));
            }
            let wanted: Vec<String> = column(&self.one, &plain).await;
            for of_host in &found {
                assert_eq!(of_host.0, found[0].0, "{table} after {what}");
                assert_eq!(of_host.1, wanted, "{table} after {what}");
            }
        }
        for client in &self.direct {
            let sql = "SELECT count(*) FROM pg_prepared_xacts";
            let row = client.query_one(sql, &[]).await;
            assert_eq!(row.unwrap().get::<_, i64>(0), 0, "{what}");
        }
    }
}

/// Each is asked by itself, once in each protocol, with `#` replaced.
const ALIKE: &[&str] = &[
    "INSERT INTO kinds (app, model) VALUES ('a#', 'x'), ('a#', 'y') RETURNING id",
    "INSERT INTO kinds (app, model) VALUES ('a#', 'x')",
    "INSERT INTO kinds (app, model, weight) VALUES ('a#', 'z', 0.1 + 0.2), ('b#', 'it''s; -- no', 'NaN') -- the end;",
    "INSERT INTO kinds AS k (app, model) VALUES ('a#', 'x'), ('a#', 'new') ON CONFLICT DO NOTHING RETURNING k.id, upper(k.model) AS up, *",
    "INSERT INTO kinds AS k (app, model) VALUES ('a#', 'x') ON CONFLICT DO NOTHING RETURNING id",
    "INSERT INTO kinds (id, app, model) VALUES (10#, 'c', '#') ON CONFLICT (app, model) DO UPDATE SET weight = kinds.weight RETURNING id, weight, twice;",
    "INSERT INTO kinds (id, app, model) VALUES (10#, 'c', '#') ON CONFLICT (app, model) DO UPDATE SET weight = kinds.id * 0.3 RETURNING id, weight, twice",
    "INSERT INTO kinds DEFAULT VALUES",
    "INSERT INTO kinds (app, model) VALUES ('a#', 'up'), ('a#', 'x') ON CONFLICT (app, model) DO UPDATE SET weight = random() * 0 + 5, made = now() RETURNING id, weight",
    "INSERT INTO kinds (app, model) VALUES ('a#', 'up2'), ('a#', 'x') ON CONFLICT ON CONSTRAINT kinds_app_model_key -- the one\n DO UPDATE SET weight = 6 WHERE kinds.weight < 5 RETURNING id, weight",
    "INSERT INTO perms (id, kind) OVERRIDING SYSTEM VALUE SELECT 70 + #, min(id) FROM kinds",
    "INSERT INTO perms (id, kind, code) OVERRIDING SYSTEM VALUE VALUES (70 + #, 1, 'n'), (75 + #, 1, 'n') ON CONFLICT (id) DO UPDATE SET code = 'was ' || perms.kind RETURNING id, code",
    "INSERT INTO kinds (app, model, made) VALUES ('at', '#', 'now'), ('later', '#', now() + interval '1 day')",
    "INSERT INTO kinds (app, modell) VALUES ('a', 'b')",
    "INSERT INTO kinds (app, model) VALUES ('a')",
    "UPDATE kinds SET weight = 0.1 + id WHERE app = 'a#'",
    "UPDATE \"public\".kinds k SET weight = weight / 3, model = model || '!' WHERE k.app = 'a#' AND model = 'y' RETURNING k.id, weight",
    "UPDATE kinds SET app = NULL",
    "UPDATE kinds SET weight = 1 WHERE false RETURNING id",
    "INSERT INTO perms (kind, code, moods) SELECT id, 'c' || id, '{good,bad}' FROM kinds WHERE app = 'a#' RETURNING id, kind, moods",
    "INSERT INTO perms (kind, code) VALUES ((SELECT min(id) FROM kinds), 'bad')",
    "INSERT INTO perms (kind, code) VALUES (999, 'late')",
    "INSERT INTO perms (kind, code) OVERRIDING SYSTEM VALUE VALUES (999, 'late') RETURNING code",
    "DELETE FROM kinds WHERE app = 'a#' AND model = 'z' RETURNING id, app",
    "DELETE FROM perms WHERE kind IN (SELECT id FROM kinds WHERE model = 'new') /* some */ ; ",
    "DELETE FROM kinds WHERE app = 'a#' AND model = 'x'",
    "UPDATE perms SET moods = moods || 'good'::mood WHERE code <> '' RETURNING *",
    "WITH old AS (SELECT id FROM kinds WHERE app = 'later') DELETE FROM kinds WHERE id IN (SELECT id FROM old)",
    "SELECT id, app, model, weight, twice FROM kinds ORDER BY id",
    "SELECT * FROM perms ORDER BY id",
    "INSERT INTO countries VALUES ('#', 'one'), ('##', 'two')",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_host_gets_the_rows_of_one_postgres() {
    let twins = Twins::new().await;
    let (mut ours, mut plain) = twins.clients();
    let mut same = |bytes: &[u8], ready: usize, what: &str| {
        let sort = what.contains("UPDATE") || what.contains("SELECT id, 'c'") || what.contains("*");
        let hide = |answer: Vec<String>| {
            // `made` is of the moment.
            let made = |line: &String| line.starts_with("D ") && line.contains(":");
            let answer = answer
                .into_iter()
                .map(|l| if made(&l) { "D".to_owned() } else { l });
            raw::essence(answer.collect(), sort)
        };
        let (got, wanted) = (ours.ask(bytes, ready), plain.ask(bytes, ready));
        assert_eq!(hide(got.clone()), hide(wanted), "{what}: {got:?}");
    };
    for n in 1..=3 {
        for sql in ALIKE {
            let sql = sql.replace('#', &n.to_string());
            let bytes = match n {
                1 => raw::q(&sql),
                2 => [
                    raw::p("", &sql),
                    raw::ds(""),
                    raw::b("", "", &[]),
                    raw::dp(""),
                    raw::e("", 0),
                    raw::s(),
                ]
                .concat(),
                _ => [raw::pbe(&sql, &[]), raw::s()].concat(),
            };
            same(&bytes, 1, &sql);
            twins.assert_same(&sql).await;
        }
    }
    // With other writes: all of it or nothing.
    let user = |id: i64| format!("INSERT INTO users (id, name) VALUES ({id}, 'u')");
    let kind =
        |app: &str| format!("INSERT INTO kinds (app, model) VALUES ('{app}', 'm') RETURNING id");
    let twice = kind("b1").replace("'m'", "'it''s; -- no'");
    let scripts = [
        vec![
            "BEGIN".into(),
            user(1),
            kind("m1"),
            user(4),
            user(7),
            kind("m2"),
            "COMMIT".into(),
        ],
        vec!["BEGIN".into(), kind("m3"), user(10), "ROLLBACK".into()],
        vec![
            "BEGIN".into(),
            kind("m4"),
            "SAVEPOINT s".into(),
            kind("m4"),
            "SELECT 1".into(),
            "ROLLBACK TO s".into(),
            kind("m5"),
            "COMMIT".into(),
        ],
        vec![
            "BEGIN".into(),
            "SAVEPOINT s".into(),
            kind("m6"),
            "ROLLBACK TO s".into(),
            user(13),
            "COMMIT".into(),
        ],
        vec![
            "BEGIN".into(),
            user(22),
            "INSERT INTO perms (kind, code) VALUES (888, '')".into(),
            "COMMIT".into(),
        ],
        vec![format!("{}; {}; {}", kind("m7"), user(16), user(19))],
        vec![format!("{}; {twice}; {}", kind("m8"), user(20))],
        vec![format!("{}; {}", user(21), kind("m8"))],
        vec![
            "SELECT count(*) FROM users".into(),
            "SELECT id, app FROM kinds ORDER BY 1".into(),
        ],
    ];
    for script in &scripts {
        for sql in script {
            same(&raw::q(sql), 1, sql);
        }
        twins.assert_same(&format!("{script:?}")).await;
    }
    // Parameters, results in both formats, several in a batch, one of which fails.
    let insert = "INSERT INTO kinds (app, model, weight) VALUES ($1, $2, $3), ($1, 'second', $3) RETURNING id, app, weight";
    let put = |app: &str, formats: &[u16]| {
        let mut body = b"\0\0\0\0".to_vec();
        body.extend(3u16.to_be_bytes());
        for value in [app, "first", "1.5"] {
            body.extend((value.len() as u32).to_be_bytes());
            body.extend(value.as_bytes());
        }
        body.extend((formats.len() as u16).to_be_bytes());
        body.extend(formats.iter().flat_map(|f| f.to_be_bytes()));
        [
            raw::p("", insert),
            raw::frame(b'B', &body),
            raw::dp(""),
            raw::e("", 0),
        ]
        .concat()
    };
    let batches = [
        [put("p1", &[]), raw::s()].concat(),
        [put("p2", &[1]), put("p3", &[0, 1, 1]), raw::s()].concat(),
        [
            put("p4", &[0]),
            raw::pbe(&user(31), &[]),
            raw::pbe("UPDATE kinds SET weight = $1 WHERE app = 'p4'", &["7"]),
            raw::s(),
        ]
        .concat(),
        [
            raw::pbe(&user(32), &[]),
            put("p5", &[0]),
            put("p5", &[0]),
            raw::s(),
        ]
        .concat(),
        [
            put("p6", &[0]),
            raw::h(),
            raw::pbe("INSERT INTO perms (kind) VALUES (777)", &[]),
            raw::s(),
        ]
        .concat(),
    ];
    for (n, batch) in batches.iter().enumerate() {
        same(batch, 1, &format!("batch {n}"));
        twins.assert_same(&format!("batch {n}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_fills_every_host() {
    let twins = Twins::new().await;
    let (mut ours, mut plain) = twins.clients();
    let copy = |sql: &str, data: &str| {
        let data: Vec<u8> = data
            .as_bytes()
            .chunks(5)
            .flat_map(|d| raw::frame(b'd', d))
            .collect();
        let pbe = [raw::pbe(sql, &[]), data.clone(), raw::done(), raw::s()].concat();
        [[raw::q(sql), data, raw::done()].concat(), pbe]
    };
    let many: String = (0..3000).map(|n| format!("c{n}\tname {n}\n")).collect();
    for (sql, data) in [
        ("COPY countries FROM STDIN", "fr\tFrance\nit\tItaly\n"),
        (
            "COPY countries (name, code) FROM STDIN (FORMAT csv, HEADER)",
            "n,c\nSpain,es\n\"a,b\",ab\n",
        ),
        ("COPY countries FROM STDIN", "no\tNorway\nfr\tFrance\n"),
        ("COPY countries FROM STDIN", "no\tNorway\textra\n"),
        (
            "COPY kinds (id, app, model, weight, made) FROM STDIN",
            "1\ta\tb\t0.1\t2020-02-02\n2\ta\tc\t\\N\t2021-02-02\n",
        ),
        ("COPY kinds (id, app, modell, weight, made) FROM STDIN", ""),
        (
            "COPY perms (id, kind, code, moods) FROM STDIN",
            "7\t999\tc\t\\N\n",
        ),
        (
            "COPY perms (id, kind, code, moods) FROM STDIN",
            "7\t1\tc\t{good}\n",
        ),
        ("COPY countries FROM STDIN", &many),
    ] {
        for bytes in copy(sql, data) {
            let (got, wanted) = (ours.ask(&bytes, 1), plain.ask(&bytes, 1));
            assert_eq!(
                raw::essence(got.clone(), false),
                raw::essence(wanted, false),
                "{sql}: {got:?}"
            );
            twins.assert_same(sql).await;
            if !data.contains("Italy") && !sql.starts_with("COPY kinds") {
                for table in ["perms", "kinds", "countries"] {
                    let delete = format!("DELETE FROM {table}");
                    assert_eq!(ours.query(&delete), plain.query(&delete));
                }
            }
        }
    }
    // Each host would make other values.
    for (sql, data) in [
        ("COPY kinds (app, model) FROM STDIN", "x\ty\n"),
        (
            "COPY kinds (id, app, model, weight, made) FROM STDIN",
            "50\tx\ty\t1\tnow\n",
        ),
    ] {
        let [bytes, _] = copy(sql, data);
        let answer = ours.ask(&bytes, 1);
        assert!(
            answer
                .iter()
                .any(|l| l.contains("CSR002") && l.contains(" | H")),
            "{sql}: {answer:?}"
        );
        twins.assert_same(sql).await;
    }
    // In a block, with other writes.
    for sql in ["BEGIN", "INSERT INTO users (id, name) VALUES (1, 'u')"] {
        assert_eq!(ours.query(sql), plain.query(sql));
    }
    let [bytes, _] = copy("COPY countries FROM STDIN", "gr\tGreece\n");
    assert_eq!(ours.ask(&bytes, 1), plain.ask(&bytes, 1));
    for sql in [
        "INSERT INTO users (id, name) VALUES (4, 'u')",
        "COMMIT",
        "SELECT * FROM users",
    ] {
        assert_eq!(ours.query(sql).len(), plain.query(sql).len(), "{sql}");
    }
    twins.assert_same("a block").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_differ_leaves_nothing() {
    let twins = Twins::new().await;
    let mut ours = Raw::connect(twins.proxy.addr());
    let insert = "INSERT INTO kinds (app, model) VALUES ('a', 'x'), ('a', 'y')";
    assert_eq!(ours.query(insert)[0], "C INSERT 0 2");
    let rows = || async {
        let mut all = Vec::new();
        for client in &twins.direct {
            let sql = "SELECT t::text FROM kinds t ORDER BY 1";
            all.push(column::<String>(client, sql).await);
        }
        all
    };
    let before = rows().await;
    let refused = |answer: Vec<String>, words: &str| {
        let error = answer
            .iter()
            .find(|l| l.starts_with("E "))
            .cloned()
            .unwrap_or_default();
        assert!(
            error.contains(words) && error.contains(" | H"),
            "{words}: {answer:?}"
        );
    };
    for (sql, words) in [
        ("UPDATE kinds SET made = now()", "now() gives another value"),
        (
            "UPDATE kinds SET weight = random()",
            "random() gives another value",
        ),
        (
            "UPDATE kinds SET made = 'now'",
            "would not be the same on all hosts",
        ),
        (
            "UPDATE kinds SET made = DEFAULT",
            "would not be the same on all hosts",
        ),
        ("DELETE FROM kinds WHERE ctid = '(0,1)'", "ctid differs"),
        (
            "DELETE FROM kinds WHERE id = (SELECT id FROM kinds LIMIT 1)",
            "rows of a subquery",
        ),
        (
            "UPDATE kinds k SET weight = l.id FROM kinds l",
            "which rows of several",
        ),
        (
            "WITH k AS (DELETE FROM kinds RETURNING *) SELECT * FROM k",
            "by the statement itself",
        ),
        ("EXPLAIN DELETE FROM kinds", "of one host"),
        (
            "INSERT INTO kinds (app, model) SELECT name, name FROM users",
            "beside tables of another kind",
        ),
    ] {
        for bytes in [raw::q(sql), [raw::pbe(sql, &[]), raw::s()].concat()] {
            refused(ours.ask(&bytes, 1), words);
            assert_eq!(rows().await, before, "{sql}");
        }
    }
    // Somebody has written past the proxy.
    let client = &twins.direct[2];
    client.batch_execute("DELETE FROM kinds WHERE model = 'y'; INSERT INTO kinds (id, app, model) VALUES (90, 'z', 'z')").await.unwrap();
    let before = rows().await;
    for (sql, words) in [
        (
            "UPDATE kinds SET weight = 2 WHERE app = 'a'",
            "host \"a\" and host \"c\" have different rows",
        ),
        (
            "DELETE FROM kinds WHERE model = 'y'",
            "Host \"a\" has 1 rows here, host \"c\" 0.",
        ),
        (
            "INSERT INTO kinds (app, model) VALUES ('z', 'z')",
            "host \"c\" refuses for reference table kinds what host \"a\" has taken",
        ),
    ] {
        refused(ours.query(sql), words);
        assert_eq!(rows().await, before, "{sql}");
    }
    // In a block, which can go on from a savepoint.
    for sql in ["BEGIN", "SAVEPOINT s"] {
        ours.query(sql);
    }
    refused(
        ours.query("UPDATE kinds SET weight = 2 WHERE app = 'a'"),
        "different rows",
    );
    assert_eq!(ours.query("SELECT 1").last().unwrap(), "Z E");
    for sql in [
        "ROLLBACK TO s",
        "UPDATE kinds SET weight = 3 WHERE model = 'x'",
        "COMMIT",
    ] {
        assert!(ours.query(sql)[0].starts_with("C "), "{sql}");
    }
    for (of_host, before) in rows().await.iter().zip(&before) {
        assert_ne!(of_host, before);
    }
}
