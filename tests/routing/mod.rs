//! Rows land in their shard and nowhere else, whatever way the statement says so: looked at on the hosts directly.
//! And a long list of statements means the same through the proxy as on one Postgres that holds all rows, or is refused.

use tokio::sync::OnceCell;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::raw::{self, Raw};
use crate::support::{Cluster, Hosts, Proxy};

const SHARDS: i64 = 8;

/// The hosts of all tests here. Each test writes rows of its own captions or users.
async fn hosts() -> &'static Hosts {
    static HOSTS: OnceCell<Hosts> = OnceCell::const_new();
    HOSTS
        .get_or_init(|| async {
            let hosts = Hosts::provisioned(2, SHARDS as u32).await;
            for i in 0..2 {
                let sql =
                    "INSERT INTO countries (code, name) VALUES ('at', 'Austria'), ('ke', 'Kenya')";
                hosts.client(i).await.batch_execute(sql).await.unwrap();
            }
            hosts
        })
        .await
}

fn shard_of(key: i64) -> u32 {
    key.rem_euclid(SHARDS) as u32
}

/// Looks at the hosts past the proxy.
struct Eye {
    hosts: &'static Hosts,
    direct: Vec<Client>,
}

impl Eye {
    async fn open() -> Eye {
        let hosts = hosts().await;
        let mut direct = Vec::new();
        for i in 0..hosts.clusters.len() {
            direct.push(hosts.client(i).await);
        }
        Eye { hosts, direct }
    }

    /// The shards in which the table has rows for which `condition` holds, once for each row; `None`: `public`.
    async fn places(&self, table: &str, condition: &str) -> Vec<Option<u32>> {
        let mut found = Vec::new();
        for (host, client) in self.direct.iter().enumerate() {
            let sql = format!(
                "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = '{table}' AND relkind = 'r'"
            );
            for row in client.query(&sql, &[]).await.unwrap() {
                let schema: String = row.get(0);
                let sql = format!("SELECT count(*) FROM {schema}.{table} WHERE {condition}");
                let n: i64 = client.query_one(&sql, &[]).await.unwrap().get(0);
                let shard = schema
                    .strip_prefix("shard_")
                    .map(|n| n.parse::<u32>().unwrap());
                if let Some(shard) = shard {
                    assert!(
                        n == 0 || self.hosts.owner(shard) == host,
                        "{schema} is not of host {host}"
                    );
                }
                found.extend(std::iter::repeat_n(shard, n as usize));
            }
        }
        found.sort();
        found
    }

    async fn assert_only_in(&self, key: i64, table: &str, condition: &str, what: &str) {
        assert_eq!(
            self.places(table, condition).await,
            [Some(shard_of(key))],
            "{what}: {table} WHERE {condition}"
        );
    }
}

/// Keys as literals.
const LITERALS: [(&str, i64); 16] = [
    ("42", 42),
    ("'43'", 43),
    ("44::int", 44),
    ("'45'::bigint", 45),
    ("-5", -5),
    ("- 6", -6),
    ("CAST(46 AS bigint)", 46),
    ("CAST('-7' AS int8)", -7),
    ("(47)", 47),
    ("+48", 48),
    ("int8 '49'", 49),
    ("50::int2", 50),
    ("51::numeric", 51),
    ("E'52'", 52),
    ("$$53$$", 53),
    ("9223372036854775807", i64::MAX),
];

/// Rows that a Query gave.
async fn rows(client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
    let messages = client
        .simple_query(sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let row = |m: SimpleQueryMessage| match m {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|i| row.get(i).map(str::to_owned))
                .collect(),
        ),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn literals_of_every_form_lead_to_the_shard() {
    let (eye, proxy) = (Eye::open().await, Proxy::start(hosts().await));
    let client = proxy.client().await;
    for (n, (literal, key)) in LITERALS.iter().enumerate() {
        for extended in [false, true] {
            let run = async |sql: String| match extended {
                false => client
                    .batch_execute(&sql)
                    .await
                    .unwrap_or_else(|e| panic!("{sql}: {e:?}")),
                true => drop(
                    client
                        .query(&sql, &[])
                        .await
                        .unwrap_or_else(|e| panic!("{sql}: {e:?}")),
                ),
            };
            let mark = format!("lit {n} {extended}");
            let is = format!("caption = '{mark}'");
            run(format!(
                "INSERT INTO photos (caption, user_id) VALUES ('{mark}', {literal})"
            ))
            .await;
            eye.assert_only_in(*key, "photos", &is, literal).await;
            run(format!("UPDATE photos SET caption = caption || '!' WHERE caption = '{mark}' AND user_id = {literal}")).await;
            let is = format!("caption = '{mark}!'");
            eye.assert_only_in(*key, "photos", &is, literal).await;
            let read = format!(
                "SELECT user_id, caption FROM photos AS p WHERE {literal} = p.user_id AND caption = '{mark}!'"
            );
            assert_eq!(
                rows(&client, &read).await,
                [[Some(key.to_string()), Some(format!("{mark}!"))]],
                "{read}"
            );
            run(format!(
                "DELETE FROM photos WHERE user_id IN ({literal}) AND {is}"
            ))
            .await;
            assert!(eye.places("photos", &is).await.is_empty(), "{literal}");
            // No column list: the key is the first column.
            run(format!("INSERT INTO users VALUES ({literal}, '{mark}')")).await;
            eye.assert_only_in(*key, "users", &format!("name = '{mark}'"), literal)
                .await;
            run(format!("DELETE FROM ONLY users u WHERE u.id = {literal}")).await;
            assert!(
                eye.places("users", &format!("name = '{mark}'"))
                    .await
                    .is_empty(),
                "{literal}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_of_every_type_and_format_lead_to_the_shard() {
    let (eye, proxy) = (Eye::open().await, Proxy::start(hosts().await));
    let mut raw = Raw::connect(proxy.addr());
    let mut client = proxy.client().await;
    client
        .batch_execute("DELETE FROM photos WHERE user_id = 0")
        .await
        .unwrap();
    // As Parse states the types (0: not at all), with what the value then looks like in binary.
    let int2 = |key: i64| (key as i16).to_be_bytes().to_vec();
    let int4 = |key: i64| (key as i32).to_be_bytes().to_vec();
    let int8 = |key: i64| key.to_be_bytes().to_vec();
    type Binary = Box<dyn Fn(i64) -> Vec<u8>>;
    let types: [(u32, Binary); 4] = [
        (0, Box::new(int8)),
        (20, Box::new(int8)),
        (21, Box::new(int2)),
        (23, Box::new(int4)),
    ];
    for (oid, binary) in &types {
        for key in [1i64, 2, -3, 300] {
            for format in [0, 1] {
                let mark = format!("par {oid} {key} {format}");
                let value = if format == 1 {
                    binary(key)
                } else {
                    key.to_string().into_bytes()
                };
                let caption = [Some(&value[..]), Some(mark.as_bytes())];
                let run = |raw: &mut Raw, sql: &str, params: &[Option<&[u8]>]| {
                    let bytes = [
                        raw::pt("", sql, &[*oid]),
                        raw::bf("", "", format, params),
                        raw::e("", 0),
                        raw::s(),
                    ]
                    .concat();
                    let answer = raw.ask(&bytes, 1);
                    assert_eq!(answer[..2], ["1", "2"], "{sql} {answer:?}");
                    answer[2..answer.len() - 1].to_vec()
                };
                let answer = run(
                    &mut raw,
                    "INSERT INTO photos (user_id, caption) VALUES ($1, $2)",
                    &caption,
                );
                assert_eq!(answer, ["C INSERT 0 1"]);
                let is = format!("caption = '{mark}'");
                eye.assert_only_in(key, "photos", &is, &mark).await;
                let answer = run(
                    &mut raw,
                    "SELECT user_id FROM photos WHERE user_id = $1 AND caption = $2",
                    &caption,
                );
                assert_eq!(
                    answer,
                    [format!("D {key}"), "C SELECT 1".to_owned()],
                    "{mark}"
                );
                let answer = run(
                    &mut raw,
                    "DELETE FROM photos WHERE user_id = $1 AND caption = $2",
                    &caption,
                );
                assert_eq!(answer, ["C DELETE 1"], "{mark}");
            }
        }
    }
    // numeric is compared with an int8 column as numeric; a driver sends it in binary as base-10000 digits.
    let numeric = |digits: &[u16]| {
        let mut out = [
            (digits.len() as u16).to_be_bytes(),
            (digits.len() as u16 - 1).to_be_bytes(),
            [0, 0],
            [0, 0],
        ]
        .concat();
        out.extend(digits.iter().flat_map(|d| d.to_be_bytes()));
        out
    };
    client
        .batch_execute("INSERT INTO photos (user_id, caption) VALUES (123456, 'num')")
        .await
        .unwrap();
    for (format, value) in [
        (0, b"123456".to_vec()),
        (0, b"123456.00".to_vec()),
        (1, numeric(&[12, 3456])),
    ] {
        let sql = "SELECT caption FROM photos WHERE user_id = $1";
        let bytes = [
            raw::pt("", sql, &[1700]),
            raw::bf("", "", format, &[Some(&value)]),
            raw::e("", 0),
            raw::s(),
        ]
        .concat();
        assert_eq!(raw.ask(&bytes, 1), ["1", "2", "D num", "C SELECT 1", "Z I"]);
    }
    // text needs a cast, as with Postgres itself.
    let text = [
        raw::pt(
            "",
            "SELECT caption FROM photos WHERE user_id = $1::text::bigint",
            &[25],
        ),
        raw::b("", "", &["123456"]),
        raw::e("", 0),
        raw::s(),
    ];
    let answer = raw.ask(&text.concat(), 1);
    assert!(
        answer == ["1", "2", "D num", "C SELECT 1", "Z I"]
            || answer.iter().any(|l| l.contains("CSR00")),
        "{answer:?}"
    );

    // What tokio-postgres does: types asked for, named statements, typed queries, transactions.
    let (key, name) = (77i64, "typed");
    let insert = client
        .prepare("INSERT INTO users (id, name) VALUES ($1, $2) RETURNING id, name")
        .await
        .unwrap();
    let row = client.query_one(&insert, &[&key, &name]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, &str>(1)), (key, name));
    eye.assert_only_in(key, "users", "name = 'typed'", "prepared")
        .await;
    let found = client
        .query_typed(
            "SELECT name FROM users WHERE id = $1",
            &[(&77i32, Type::INT4)],
        )
        .await
        .unwrap();
    assert_eq!(found[0].get::<_, &str>(0), name);
    let select = client
        .prepare_typed("SELECT name FROM users WHERE id = $1", &[Type::INT4])
        .await
        .unwrap();
    for key in 70..90i32 {
        let found = client.query(&select, &[&key]).await.unwrap();
        assert_eq!(found.len(), usize::from(key == 77), "{key}");
    }
    let tx = client.transaction().await.unwrap();
    for key in [77i64, 85, 93] {
        // Three users of one shard.
        tx.execute(
            "INSERT INTO follows (source_id, target_id) VALUES ($1, 1)",
            &[&key],
        )
        .await
        .unwrap();
    }
    tx.rollback().await.unwrap();
    assert!(
        eye.places("follows", "source_id IN (77, 85, 93)")
            .await
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_of_one_user_go_to_the_user() {
    let (eye, proxy) = (Eye::open().await, Proxy::start(hosts().await));
    let client = proxy.client().await;
    for me in [1003i64, 1006] {
        let shard = shard_of(me);
        let run = async |sql: &str| {
            let sql = sql.replace("ME", &me.to_string());
            client
                .simple_query(&sql)
                .await
                .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        };
        run("INSERT INTO users (id, name, country) VALUES (ME, 'me', 'at')").await;
        run("INSERT INTO follows VALUES (ME, 1), (ME, 2), (ME, 3)").await;
        assert_eq!(
            eye.places("follows", &format!("source_id = {me}")).await,
            vec![Some(shard); 3]
        );
        let made = rows(
            &client,
            &format!("INSERT INTO photos (user_id, caption) VALUES ({me}, 'mine') RETURNING id"),
        )
        .await;
        let id: i64 = made[0][0].as_deref().unwrap().parse().unwrap();
        assert_eq!(
            (id >> 10) & 0x1fff,
            i64::from(shard),
            "the id carries its shard"
        );
        run(&format!("INSERT INTO likes (user_id, photo_id) SELECT user_id, id FROM photos WHERE user_id = ME AND id = {id}")).await;
        eye.assert_only_in(me, "likes", &format!("user_id = {me}"), "INSERT ... SELECT")
            .await;
        let reads = [
            ("SELECT count(*) FROM follows WHERE source_id = ME", "3"),
            (
                "SELECT max(target_id) FROM follows f WHERE f.source_id = ME GROUP BY source_id ORDER BY 1 LIMIT 1",
                "3",
            ),
            (
                "SELECT count(*) FROM users u JOIN follows f ON f.source_id = u.id WHERE u.id = ME",
                "3",
            ),
            (
                "SELECT count(*) FROM users u, photos p, likes l WHERE u.id = p.user_id AND l.user_id = p.user_id AND p.user_id = ME",
                "1",
            ),
            (
                "SELECT count(*) FROM users u LEFT JOIN follows f ON f.source_id = u.id WHERE u.id = ME",
                "3",
            ),
            (
                "SELECT count(*) FROM photos JOIN likes USING (user_id) WHERE user_id = ME",
                "1",
            ),
            (
                "SELECT (SELECT count(*) FROM follows WHERE source_id = u.id) FROM users u WHERE u.id = ME",
                "3",
            ),
            (
                "SELECT count(*) FROM users WHERE id = ME AND EXISTS (SELECT 1 FROM follows WHERE source_id = ME)",
                "1",
            ),
            (
                "WITH f AS (SELECT * FROM follows WHERE source_id = ME) SELECT count(*) FROM f JOIN users u ON u.id = f.source_id",
                "3",
            ),
            (
                "SELECT count(*) FROM (SELECT * FROM follows WHERE source_id = ME UNION ALL SELECT * FROM follows WHERE source_id = ME) x",
                "6",
            ),
            (
                "SELECT c.name FROM users u JOIN countries c ON c.code = u.country WHERE u.id = ME",
                "Austria",
            ),
            ("SELECT caption FROM photos WHERE id = ID", "mine"),
            (
                "SELECT p.caption FROM photos p JOIN likes l ON l.photo_id = p.id AND l.user_id = p.user_id WHERE p.id = ID",
                "mine",
            ),
            (
                "SELECT caption FROM \"photos\" WHERE \"photos\".\"user_id\" = ME",
                "mine",
            ),
            (
                "SELECT \"public\".\"photos\".\"caption\" FROM \"public\".\"photos\" WHERE \"public\".\"photos\".\"user_id\" = ME",
                "mine",
            ),
            ("TABLE countries ORDER BY code LIMIT 1", "at"),
        ];
        for (sql, expected) in reads {
            let sql = sql
                .replace("ME", &me.to_string())
                .replace("ID", &id.to_string());
            assert_eq!(
                rows(&client, &sql).await[0][0].as_deref(),
                Some(expected),
                "{sql}"
            );
            let prepared = client
                .query(&sql, &[])
                .await
                .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
            assert!(!prepared.is_empty(), "{sql}");
        }
        run(&format!(
            "UPDATE photos SET caption = 'by id' WHERE id = {id}"
        ))
        .await;
        eye.assert_only_in(
            me,
            "photos",
            &format!("id = {id} AND caption = 'by id'"),
            "UPDATE by id",
        )
        .await;
        assert_eq!(
            client
                .execute("DELETE FROM photos WHERE id = $1", &[&id])
                .await
                .unwrap(),
            1
        );
        run("WITH gone AS (DELETE FROM follows WHERE source_id = ME RETURNING *) SELECT count(*) FROM gone").await;
        assert!(
            eye.places("follows", &format!("source_id = {me}"))
                .await
                .is_empty()
        );
        run("INSERT INTO users (id, name) VALUES (ME, 'again') ON CONFLICT (id) DO UPDATE SET name = excluded.name").await;
        eye.assert_only_in(
            me,
            "users",
            &format!("id = {me} AND name = 'again'"),
            "upsert",
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsharded_and_reference_tables_and_the_catalog() {
    let (eye, proxy) = (Eye::open().await, Proxy::start(hosts().await));
    let client = proxy.client().await;
    client
        .execute(
            "INSERT INTO invoices (user_id, cents) VALUES ($1, 100)",
            &[&1i64],
        )
        .await
        .unwrap();
    client
        .batch_execute("INSERT INTO public.invoices (user_id, cents) VALUES (2, 200)")
        .await
        .unwrap();
    assert_eq!(
        rows(&client, "SELECT count(*), sum(cents) FROM invoices").await,
        [[Some("2".to_owned()), Some("300".to_owned())]]
    );
    assert_eq!(eye.places("invoices", "true").await, [None, None]);
    let on_b: i64 = eye.direct[1]
        .query_one("SELECT count(*) FROM public.invoices", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(on_b, 2, "on the host that [tables] names");
    // Joined with a shard of its own host.
    client.batch_execute("INSERT INTO users (id, name) VALUES (2005, 'payer'); INSERT INTO invoices (user_id, cents) VALUES (2005, 5)").await.unwrap();
    let joined =
        "SELECT u.name, i.cents FROM users u JOIN invoices i ON i.user_id = u.id WHERE u.id = 2005";
    assert_eq!(
        rows(&client, joined).await,
        [[Some("payer".to_owned()), Some("5".to_owned())]]
    );
    assert_eq!(
        rows(&client, "SELECT name FROM countries ORDER BY 1")
            .await
            .len(),
        2
    );
    assert_eq!(
        client
            .query("SELECT name FROM countries WHERE code = $1", &[&"ke"])
            .await
            .unwrap()
            .len(),
        1
    );
    // The catalog is that of one shard, its tables found by their bare names.
    assert_eq!(
        rows(&client, "SELECT 'photos'::regclass").await,
        [[Some("photos".to_owned())]]
    );
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'photos' AND table_schema = current_schema()";
    assert_eq!(rows(&client, columns).await, [[Some("4".to_owned())]]);
    assert_eq!(
        rows(
            &client,
            "SELECT relname FROM pg_class WHERE oid = 'users'::regclass"
        )
        .await
        .len(),
        1
    );
    // What a catalog query needs does not stay behind for the next statement.
    assert_eq!(
        rows(&client, "SHOW search_path").await,
        [[Some("\"$user\", public".to_owned())]]
    );
    assert_eq!(
        rows(&client, "SELECT 1 + 1").await,
        [[Some("2".to_owned())]]
    );
    let me = rows(&client, "SELECT current_user, current_database()").await;
    assert_eq!(me, [[Some("app".to_owned()), Some("app".to_owned())]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_the_session_and_hints_in_comments() {
    let (eye, proxy) = (Eye::open().await, Proxy::start(hosts().await));
    let client = proxy.client().await;
    let one = async |sql: &str| rows(&client, sql).await[0][0].clone().unwrap();
    let code = async |sql: &str| {
        client
            .batch_execute(sql)
            .await
            .unwrap_err()
            .code()
            .unwrap()
            .code()
            .to_owned()
    };
    for (n, set) in [
        "SET presplit.key = 3001",
        "SET presplit.key TO '3001'",
        "SET presplit.shard = 1",
    ]
    .into_iter()
    .enumerate()
    {
        client.batch_execute(set).await.unwrap();
        // With a key or shard of the session, what names no shard goes there.
        assert_eq!(
            one("SELECT count(*) FROM photos WHERE caption = 'hinted'").await,
            "0",
            "{set}"
        );
        assert_eq!(one("SELECT (next_id() >> 10) & 8191").await, "1", "{set}");
        client
            .batch_execute(&format!(
                "INSERT INTO photos (user_id, caption) VALUES (3001, 'set {n}')"
            ))
            .await
            .unwrap();
        eye.assert_only_in(3001, "photos", &format!("caption = 'set {n}'"), set)
            .await;
        assert_eq!(
            code("SELECT * FROM photos WHERE user_id = 3002").await,
            "SR002",
            "the session and the text disagree"
        );
        client
            .batch_execute("RESET presplit.key; RESET presplit.shard")
            .await
            .unwrap();
        assert_eq!(one("SHOW presplit.key").await, "");
        assert_eq!(code("SELECT random() FROM photos").await, "SR004");
    }
    client
        .batch_execute("SET presplit.key = 3001")
        .await
        .unwrap();
    assert_eq!(one("SHOW presplit.key").await, "3001");
    assert_eq!(one("SHOW presplit.shard").await, "");
    // LOCAL: until the end of the block; it beats what the session has.
    client
        .batch_execute("BEGIN; SET LOCAL presplit.key = 3002")
        .await
        .unwrap();
    assert_eq!(one("SHOW presplit.key").await, "3002");
    assert_eq!(
        one("SELECT count(*) FROM photos WHERE user_id = 3002").await,
        "0"
    );
    assert_eq!(
        code("SELECT count(*) FROM photos WHERE user_id = 3001").await,
        "SR002"
    );
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(one("SHOW presplit.key").await, "3001");
    // As with Postgres' own settings: a rollback undoes SET, a savepoint's rollback undoes what came after it.
    client.batch_execute("BEGIN").await.unwrap();
    client
        .batch_execute("SET presplit.key = 3003")
        .await
        .unwrap();
    client.batch_execute("SAVEPOINT a").await.unwrap();
    client
        .batch_execute("SET LOCAL presplit.key = 3004")
        .await
        .unwrap();
    assert_eq!(one("SHOW presplit.key").await, "3004");
    client.batch_execute("ROLLBACK TO a").await.unwrap();
    assert_eq!(
        one("SHOW presplit.key").await,
        "3003",
        "SET LOCAL behind the savepoint is undone"
    );
    client
        .batch_execute("SET LOCAL presplit.key = 3004")
        .await
        .unwrap();
    client
        .batch_execute("SET presplit.key = 3005")
        .await
        .unwrap();
    assert_eq!(
        one("SHOW presplit.key").await,
        "3005",
        "a later SET beats SET LOCAL"
    );
    client
        .batch_execute("SET LOCAL presplit.key = 3006")
        .await
        .unwrap();
    client.batch_execute("RESET presplit.key").await.unwrap();
    assert_eq!(one("SHOW presplit.key").await, "", "so does RESET");
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(one("SHOW presplit.key").await, "3001");
    client.batch_execute("RESET ALL").await.unwrap();
    assert_eq!(one("SHOW presplit.key").await, "");

    // A hint in a comment is of its statement alone.
    for (hint, key) in [("key=3010", 3010), ("shard=3", 3), ("key='-3011'", -3011)] {
        let text = format!(
            "INSERT INTO photos (user_id, caption) VALUES ({key}, 'c {key}') /* presplit: {hint} */"
        );
        client.batch_execute(&text).await.unwrap();
        eye.assert_only_in(key, "photos", &format!("caption = 'c {key}'"), hint)
            .await;
        let text = format!("/* presplit: {hint} */ SELECT count(*) FROM photos WHERE caption = $1");
        let found = client
            .query_one(&text, &[&format!("c {key}")])
            .await
            .unwrap();
        assert_eq!(found.get::<_, i64>(0), 1);
    }
    assert_eq!(code("SELECT random() FROM photos").await, "SR004");
    assert_eq!(
        code("SELECT * FROM photos WHERE user_id = 1 /* presplit: key=2 */").await,
        "SR002"
    );
    let all = rows(
        &client,
        "SELECT caption FROM photos WHERE caption LIKE 'c %' /* presplit: all */",
    )
    .await;
    assert_eq!(all.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_several_shards_one_after_the_other() {
    let proxy = Proxy::start(hosts().await);
    let client = proxy.client().await;
    for key in 4000..4016i64 {
        client
            .execute(
                "INSERT INTO photos (user_id, caption) VALUES ($1, 'many')",
                &[&key],
            )
            .await
            .unwrap();
    }
    let sorted = |mut keys: Vec<i64>| {
        keys.sort();
        keys
    };
    let simple = async |sql: &str| {
        let keys = rows(&client, sql)
            .await
            .into_iter()
            .map(|r| r[0].as_deref().unwrap().parse().unwrap())
            .collect();
        sorted(keys)
    };
    let everyone: Vec<i64> = (4000..4016).collect();
    assert_eq!(
        simple("SELECT user_id FROM photos WHERE caption = 'many'").await,
        everyone
    );
    assert_eq!(simple("SELECT user_id FROM photos WHERE user_id IN (4000, 4001, 4009, -1) AND caption = 'many'").await, [4000, 4001, 4009]);
    assert_eq!(
        simple(
            "SELECT user_id FROM photos WHERE user_id = ANY('{4002,4007}') AND caption = 'many'"
        )
        .await,
        [4002, 4007]
    );
    assert_eq!(
        simple(
            "SELECT user_id FROM photos WHERE user_id = ANY(ARRAY[4002,4003]) AND caption = 'many'"
        )
        .await,
        [4002, 4003]
    );
    assert_eq!(simple("SELECT user_id FROM photos WHERE (user_id = 4002 OR user_id = 4005) AND caption = 'many'").await, [4002, 4005]);
    assert_eq!(
        simple("SELECT user_id FROM photos WHERE caption = 'many' AND user_id > 4010").await,
        [4011, 4012, 4013, 4014, 4015]
    );
    let extended = async |sql: &str, params: &[&(dyn tokio_postgres::types::ToSql + Sync)]| {
        let rows = client
            .query(sql, params)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        sorted(rows.iter().map(|r| r.get(0)).collect())
    };
    let many = "many";
    for _ in 0..2 {
        assert_eq!(
            extended("SELECT user_id FROM photos WHERE caption = $1", &[&many]).await,
            everyone
        );
        let keys = vec![4001i64, 4003, 4011];
        assert_eq!(
            extended(
                "SELECT user_id FROM photos WHERE user_id = ANY($1) AND caption = $2",
                &[&keys, &many]
            )
            .await,
            keys
        );
        let none: Vec<i64> = Vec::new();
        assert_eq!(
            extended(
                "SELECT user_id FROM photos WHERE user_id = ANY($1)",
                &[&none]
            )
            .await,
            none
        );
        let two = "SELECT user_id FROM photos WHERE user_id IN ($1, $2) AND caption = 'many'";
        assert_eq!(extended(two, &[&4001i64, &4003i64]).await, [4001, 4003]);
        assert_eq!(extended(two, &[&4001i64, &4001i64]).await, [4001]);
        assert_eq!(
            extended(two, &[&4001i64, &4009i64]).await,
            [4001, 4009],
            "one shard"
        );
    }
    // In a transaction the read sees what the transaction has written, and the writes go on after it.
    let mut writer = proxy.client().await;
    let tx = writer.transaction().await.unwrap();
    tx.execute(
        "INSERT INTO photos (user_id, caption) VALUES (4000, 'many in tx')",
        &[],
    )
    .await
    .unwrap();
    let found = tx
        .query("SELECT user_id FROM photos WHERE caption LIKE 'many%'", &[])
        .await
        .unwrap();
    assert_eq!(found.len(), 17);
    tx.execute(
        "INSERT INTO photos (user_id, caption) VALUES (4000, 'many in tx')",
        &[],
    )
    .await
    .unwrap();
    let found = tx
        .simple_query("SELECT user_id FROM photos WHERE caption LIKE 'many%'")
        .await
        .unwrap();
    assert_eq!(
        found
            .iter()
            .filter(|m| matches!(m, SimpleQueryMessage::Row(_)))
            .count(),
        18
    );
    tx.commit().await.unwrap();
    let found = client
        .query(
            "SELECT user_id FROM photos WHERE caption = 'many in tx'",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(found.len(), 2);
    // A shard's error is the statement's, and the session goes on.
    for sql in [
        "SELECT 1 / (user_id - 4003) FROM photos WHERE caption = 'many'",
        "SELECT caption::int FROM photos WHERE caption = 'many'",
    ] {
        assert!(
            ["22012", "22P02"].contains(
                &client
                    .simple_query(sql)
                    .await
                    .unwrap_err()
                    .code()
                    .unwrap()
                    .code()
            )
        );
        assert!(
            ["22012", "22P02"].contains(
                &client
                    .query(sql, &[])
                    .await
                    .unwrap_err()
                    .code()
                    .unwrap()
                    .code()
            )
        );
        assert_eq!(
            extended("SELECT user_id FROM photos WHERE caption = $1", &[&many]).await,
            everyone
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_route_says_where_and_why() {
    let proxy = Proxy::start(hosts().await);
    let client = proxy.client().await;
    let cases = [
        (
            "SELECT * FROM photos WHERE user_id = 42",
            &[
                "Shard: 2 (schema shard_0002)",
                "Host: a (",
                "FROM shard_0002.photos",
                "photos.user_id = 42",
            ][..],
        ),
        (
            "INSERT INTO photos (user_id) VALUES (-1)",
            &["Shard: 7", "Host: b (", "INTO shard_0007.photos"],
        ),
        ("SELECT * FROM photos", &["Shards: 8", "Hosts: a, b"]),
        (
            "SELECT * FROM photos WHERE user_id IN (1, 5)",
            &["Shards: 2", "Hosts: a, b"],
        ),
        (
            "SELECT * FROM invoices",
            &["Host: b (", "invoices is unsharded"],
        ),
        ("SELECT * FROM countries", &["Host: any"]),
        ("SELECT random() FROM photos", &["Refused: SR004", "Hint: "]),
        (
            "SELECT count(*) FROM photos",
            &["Shards: 8, their parts put together"],
        ),
        (
            "UPDATE photos SET caption = ''",
            &["Refused: SR001", "Hint: Add photos.user_id"],
        ),
        ("SELECT * FROM nothing", &["Refused: SR003"]),
        ("SELECT relname FROM pg_class", &["stands for all"]),
        (
            "SELECT * FROM photos /* presplit: key=3 */",
            &["Shard: 3", "hint key=3"],
        ),
        (
            "/* presplit: shard=4 */ SELECT * FROM photos",
            &["Shard: 4", "hint shard=4"],
        ),
        (
            "SELECT * FROM photos -- presplit: key=3",
            &["Shard: 3", "hint key=3"],
        ),
    ];
    for (sql, words) in cases {
        let sql = format!("EXPLAIN (ROUTE) {sql}");
        let simple = rows(&client, &sql)
            .await
            .into_iter()
            .map(|r| r[0].clone().unwrap())
            .collect::<Vec<_>>()
            .join("\n");
        let extended = client.query(&sql, &[]).await.unwrap();
        let extended = extended
            .iter()
            .map(|r| r.get::<_, String>(0))
            .collect::<Vec<_>>()
            .join("\n");
        assert_eq!(simple, extended);
        for word in words {
            assert!(simple.contains(word), "{sql}: no {word:?} in\n{simple}");
        }
    }
    assert!(
        rows(
            &client,
            "SELECT count(*) FROM photos WHERE user_id = 42 AND caption = 'explained'"
        )
        .await[0][0]
            .as_deref()
            == Some("0")
    );
}

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
            for row in client.query(&sql, &[]).await.unwrap() {
                let sql = format!("SELECT x::text FROM {}.{table} x", row.get::<_, &str>(0));
                sharded.extend(
                    client
                        .query(&sql, &[])
                        .await
                        .unwrap()
                        .iter()
                        .map(|r| r.get::<_, String>(0)),
                );
            }
        }
        let sql = format!("SELECT x::text FROM {table} x");
        let client = self.plain.client().await;
        let mut plain: Vec<String> = client
            .query(&sql, &[])
            .await
            .unwrap()
            .iter()
            .map(|r| r.get(0))
            .collect();
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
    let plain_addr = std::net::SocketAddr::from(([127, 0, 0, 1], twins.plain.port()));
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
                true => [
                    raw::p("", sql),
                    raw::b("", "", &[]),
                    raw::dp(""),
                    raw::e("", 0),
                    raw::s(),
                ]
                .concat(),
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
