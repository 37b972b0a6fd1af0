//! Real drivers, unmodified: each program runs against one plain Postgres first, which proves the program, and then
//! against the proxy. Afterwards the hosts are asked, past the proxy, where the rows are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use futures_util::future::join_all;
use presplit::ops::demo::SCHEMA;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::{Cluster, Hosts, Proxy};

const SHARDS: u32 = 8;

/// What a program says it leaves behind of its own users, `first..first + 1000`.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    users: i64,
    photos: i64,
}

/// Where the drivers are: made by `tests/drivers/setup.sh`, which does nothing when they are there.
pub fn drivers() -> &'static Path {
    static DRIVERS: OnceLock<PathBuf> = OnceLock::new();
    DRIVERS.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let drivers = root.join("target/drivers");
        let made = Command::new(root.join("tests/drivers/setup.sh"))
            .arg(&drivers)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "tests/drivers/setup.sh:\n{}{}",
            String::from_utf8_lossy(&made.stdout),
            String::from_utf8_lossy(&made.stderr)
        );
        drivers
    })
}

/// Runs a program of `tests/drivers` to its end; what it says last is what it leaves.
async fn run(program: &str, url: &str) -> Left {
    let drivers = drivers();
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/drivers")
        .join(program);
    let interpreter = match program.ends_with(".py") {
        true => drivers.join("venv/bin/python"),
        false => PathBuf::from("node"),
    };
    let output = tokio::process::Command::new(interpreter)
        .arg(source)
        .env("DATABASE_URL", url)
        .env("NODE_PATH", drivers.join("node/node_modules"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{program} at {url}: {}\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let count = |word: &str| -> i64 {
        let (_, rest) = said.rsplit_once(word).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    Left {
        users: count("left users="),
        photos: count(" photos="),
    }
}

const GERMANY: &str = "INSERT INTO countries (code, name) VALUES ('de', 'Germany')";

/// One Postgres with the same tables.
async fn plain() -> Cluster {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    client.batch_execute(GERMANY).await.unwrap();
    cluster
}

/// Two hosts of four shards.
async fn hosts() -> Hosts {
    let hosts = Hosts::provisioned(2, SHARDS).await;
    for i in 0..2 {
        hosts.client(i).await.batch_execute(GERMANY).await.unwrap();
    }
    hosts
}

async fn count(client: &Client, sql: &str) -> i64 {
    client
        .query_one(sql, &[])
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"))
        .get(0)
}

/// The rows of users `first..first + 1000` in one schema.
async fn rows_in(client: &Client, schema: &str, first: i64) -> Left {
    let last = first + 999;
    Left {
        users: count(
            client,
            &format!("SELECT count(*) FROM {schema}.users WHERE id BETWEEN {first} AND {last}"),
        )
        .await,
        photos: count(
            client,
            &format!(
                "SELECT count(*) FROM {schema}.photos WHERE user_id BETWEEN {first} AND {last}"
            ),
        )
        .await,
    }
}

/// Looks at every table of these names on the hosts: each row is in the schema of its user's shard, on the host that
/// owns the shard, an id carries the shard that it is in, and all together are as many as the program left.
async fn assert_in_place(hosts: &Hosts, first: i64, left: &Left) {
    let mut found = Left {
        users: 0,
        photos: 0,
    };
    for i in 0..hosts.clusters.len() {
        let client = hosts.client(i).await;
        let schemas = client
            .query("SELECT DISTINCT schemaname FROM pg_tables WHERE tablename IN ('users', 'photos') ORDER BY 1", &[])
            .await
            .unwrap();
        let schemas: Vec<String> = schemas.iter().map(|row| row.get(0)).collect();
        let owned: Vec<String> = (0..hosts.shards)
            .filter(|s| hosts.owner(*s) == i)
            .map(|s| format!("shard_{s:04}"))
            .collect();
        assert_eq!(schemas, owned, "host {}", Hosts::name(i));
        for shard in (0..hosts.shards).filter(|s| hosts.owner(*s) == i) {
            let schema = format!("shard_{shard:04}");
            let shards = hosts.shards;
            let foreign = format!(
                "SELECT (SELECT count(*) FROM {schema}.users WHERE id % {shards} <> {shard})
                      + (SELECT count(*) FROM {schema}.photos WHERE user_id % {shards} <> {shard} OR (id >> 10) & 8191 <> {shard})"
            );
            assert_eq!(
                count(&client, &foreign).await,
                0,
                "rows of other shards in {schema}"
            );
            let here = rows_in(&client, &schema, first).await;
            assert!(
                here.users > 0 && here.photos > 0,
                "nothing in {schema}: the program did not reach it"
            );
            found = Left {
                users: found.users + here.users,
                photos: found.photos + here.photos,
            };
        }
    }
    assert_eq!(found, *left);
}

/// The program against one Postgres, then twice through the proxy: the second time finds rows of the first.
async fn prove(program: &str, first: i64) {
    let plain = plain().await;
    let expected = run(program, &plain.url()).await;
    assert_eq!(
        rows_in(&plain.client().await, "public", first).await,
        expected
    );
    drop(plain);

    let hosts = hosts().await;
    let mut proxy = Proxy::start(&hosts);
    proxy.wait_log(0, &["the tables are known"]);
    for _ in 0..2 {
        let left = run(program, &proxy.url()).await;
        assert_eq!(
            left, expected,
            "{program} leaves something else behind than with one Postgres"
        );
        assert_in_place(&hosts, first, &left).await;
    }
    assert!(proxy.stop().success());
}

#[tokio::test]
async fn psycopg_3() {
    prove("psycopg3.py", 1000).await;
}

#[tokio::test]
async fn django() {
    prove("django_app.py", 2000).await;
}

#[tokio::test]
async fn node_postgres() {
    prove("node_pg.js", 3000).await;
}

#[tokio::test]
async fn tokio_postgres_with_named_statements() {
    let plain = plain().await;
    let expected = rust_app(&plain.config()).await;
    assert_eq!(
        rows_in(&plain.client().await, "public", 4000).await,
        expected
    );
    drop(plain);

    let hosts = hosts().await;
    let mut proxy = Proxy::start(&hosts);
    proxy.wait_log(0, &["the tables are known"]);
    for _ in 0..2 {
        assert_eq!(rust_app(&proxy.config()).await, expected);
        assert_in_place(&hosts, 4000, &expected).await;
    }
    assert!(proxy.stop().success());
}

const USERS: std::ops::Range<i64> = 4000..4016;

/// What an app does with tokio-postgres, which prepares everything under names and sends parameters in binary.
async fn rust_app(config: &tokio_postgres::Config) -> Left {
    let mut client = crate::support::connect(config).await;
    for user in USERS {
        client
            .execute("DELETE FROM photos WHERE user_id = $1", &[&user])
            .await
            .unwrap();
        client
            .execute("DELETE FROM users WHERE id = $1", &[&user])
            .await
            .unwrap();
    }
    named_statements(&client).await;
    pipelined(&client).await;
    in_transactions(&mut client).await;
    portals(&mut client).await;
    errors(&client).await;
    simple(&client).await;
    sessions_that_share_names(config).await;
    Left {
        users: 16,
        photos: 16 * 3,
    }
}

async fn named_statements(client: &Client) {
    let new_user = client
        .prepare("INSERT INTO users (id, name) VALUES ($1, $2)")
        .await
        .unwrap();
    let new_photo = client
        .prepare("INSERT INTO photos (user_id, caption) VALUES ($1, $2) RETURNING id")
        .await
        .unwrap();
    let by_id = client
        .prepare("SELECT user_id, caption FROM photos WHERE id = $1")
        .await
        .unwrap();
    let by_user = client
        .prepare("SELECT id FROM photos WHERE user_id = $1 AND caption = $2")
        .await
        .unwrap();
    assert_eq!(new_photo.columns()[0].name(), "id");
    assert_eq!(
        by_user.params(),
        [
            tokio_postgres::types::Type::INT8,
            tokio_postgres::types::Type::TEXT
        ]
    );
    for user in USERS {
        let name = format!("näme {user}");
        assert_eq!(client.execute(&new_user, &[&user, &name]).await.unwrap(), 1);
        let photo: i64 = client
            .query_one(&new_photo, &[&user, &"first"])
            .await
            .unwrap()
            .get(0);
        let row = client.query_one(&by_id, &[&photo]).await.unwrap();
        assert_eq!(
            (row.get::<_, i64>(0), row.get::<_, &str>(1)),
            (user, "first")
        );
        assert_eq!(
            client
                .query_one(&by_user, &[&user, &"first"])
                .await
                .unwrap()
                .get::<_, i64>(0),
            photo
        );
        let typed = client
            .query_one("SELECT $1::int8 = id FROM users WHERE id = $1", &[&user])
            .await
            .unwrap();
        assert!(typed.get::<_, bool>(0));
        let country: &str = "de";
        let row = client
            .query_one("SELECT name FROM countries WHERE code = $1", &[&country])
            .await
            .unwrap();
        assert_eq!(row.get::<_, &str>(0), "Germany");
    }
    drop(by_user);
    assert_eq!(client.query(&by_id, &[&0_i64]).await.unwrap().len(), 0);
}

/// Requests of one connection that don't wait for each other; tokio-postgres ends each with a Sync.
async fn pipelined(client: &Client) {
    let insert = client
        .prepare("INSERT INTO photos (user_id, caption) VALUES ($1, 'pipelined')")
        .await
        .unwrap();
    let params: Vec<i64> = USERS.collect();
    for made in join_all(
        params
            .iter()
            .map(|user| client.execute_raw(&insert, [*user])),
    )
    .await
    {
        assert_eq!(made.unwrap(), 1);
    }
    let select = client.prepare("SELECT name, (SELECT count(*) FROM photos WHERE user_id = $1) FROM users WHERE id = $1").await.unwrap();
    let asked: Vec<_> = USERS.cycle().take(200).collect();
    let mut answers = Vec::new();
    for user in &asked {
        answers.push(async { client.query_one(&select, &[user]).await });
    }
    for (user, row) in asked.iter().zip(join_all(answers).await) {
        let row = row.unwrap();
        assert_eq!(
            (row.get::<_, String>(0), row.get::<_, i64>(1)),
            (format!("näme {user}"), 2)
        );
    }
}

async fn in_transactions(client: &mut Client) {
    let rename = client
        .prepare("UPDATE users SET name = $2 WHERE id = $1")
        .await
        .unwrap();
    for user in USERS {
        let mut transaction = client.transaction().await.unwrap();
        assert_eq!(
            transaction
                .execute(&rename, &[&user, &"inside"])
                .await
                .unwrap(),
            1
        );
        transaction
            .execute(
                "INSERT INTO photos (user_id, caption) VALUES ($1, 'kept')",
                &[&user],
            )
            .await
            .unwrap();
        let savepoint = transaction.savepoint("sp").await.unwrap();
        savepoint
            .execute("DELETE FROM photos WHERE user_id = $1", &[&user])
            .await
            .unwrap();
        let twice = savepoint
            .execute(
                "INSERT INTO users (id, name) VALUES ($1, 'twice')",
                &[&user],
            )
            .await
            .unwrap_err();
        assert_eq!(twice.code(), Some(&SqlState::UNIQUE_VIOLATION));
        savepoint.rollback().await.unwrap();
        let row = transaction
            .query_one("SELECT count(*) FROM photos WHERE user_id = $1", &[&user])
            .await
            .unwrap();
        assert_eq!(row.get::<_, i64>(0), 3);
        transaction.commit().await.unwrap();

        let transaction = client.transaction().await.unwrap();
        transaction
            .execute("DELETE FROM photos WHERE user_id = $1", &[&user])
            .await
            .unwrap();
        drop(transaction);
        let row = client.query_one("SELECT name, (SELECT count(*) FROM photos WHERE user_id = $1) FROM users WHERE id = $1", &[&user]).await.unwrap();
        assert_eq!((row.get::<_, &str>(0), row.get::<_, i64>(1)), ("inside", 3));
    }
}

async fn portals(client: &mut Client) {
    let transaction = client.transaction().await.unwrap();
    let user = 4005_i64;
    let portal = transaction
        .bind(
            "SELECT caption FROM photos WHERE user_id = $1 ORDER BY id",
            &[&user],
        )
        .await
        .unwrap();
    let mut captions = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 2).await.unwrap();
        captions.extend(rows.iter().map(|row| row.get::<_, String>(0)));
        if rows.len() < 2 {
            break;
        }
    }
    assert_eq!(captions, ["first", "pipelined", "kept"]);
    transaction.commit().await.unwrap();
}

async fn errors(client: &Client) {
    let user = 4001_i64;
    let fault = client
        .query("SELECT nothing FROM photos WHERE user_id = $1", &[&user])
        .await
        .unwrap_err();
    assert_eq!(fault.code(), Some(&SqlState::UNDEFINED_COLUMN));
    let select = client
        .prepare("SELECT 1 / (id - id) FROM users WHERE id = $1")
        .await
        .unwrap();
    let fault = client.query(&select, &[&user]).await.unwrap_err();
    assert_eq!(fault.code(), Some(&SqlState::DIVISION_BY_ZERO));
    let row = client
        .query_one("SELECT id FROM users WHERE id = $1", &[&user])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), user);
}

async fn simple(client: &Client) {
    let messages = client
        .simple_query("SELECT id, caption FROM photos WHERE user_id = 4002 AND caption = 'kept'")
        .await
        .unwrap();
    let rows = messages
        .iter()
        .filter(|m| matches!(m, SimpleQueryMessage::Row(_)))
        .count();
    assert_eq!(rows, 1);
    client
        .batch_execute("BEGIN; UPDATE users SET name = 'batch' WHERE id = 4002; UPDATE users SET name = 'batch' WHERE id = 4003; COMMIT")
        .await
        .unwrap();
    let row = client
        .query_one("SELECT name FROM users WHERE id = 4003", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "batch");
}

/// More sessions than a host has server connections; their statements are all named `s0`, `s1`, ... and differ.
async fn sessions_that_share_names(config: &tokio_postgres::Config) {
    let session = async |n: i64| {
        let client = crate::support::connect(config).await;
        let text = match n % 3 {
            0 => "SELECT id FROM users WHERE id = $1",
            1 => "SELECT user_id FROM photos WHERE user_id = $1 LIMIT 1",
            _ => "SELECT $1::int8 FROM users WHERE id = $1",
        };
        let statement = client.prepare(text).await.unwrap();
        for user in USERS.cycle().skip(n as usize).take(32) {
            let row = client.query_one(&statement, &[&user]).await.unwrap();
            assert_eq!(row.get::<_, i64>(0), user);
        }
    };
    join_all((0..24).map(session)).await;
}
