//! Rows land in their shard and nowhere else, whatever way the statement says so: looked at on the hosts directly.

mod keys;
pub mod sameness;
mod statements;

use tokio::sync::OnceCell;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::{Hosts, Proxy, column};

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
    let insert = "INSERT INTO photos (user_id, caption) VALUES (4000, 'many in tx')";
    tx.execute(insert, &[]).await.unwrap();
    let found = tx
        .query("SELECT user_id FROM photos WHERE caption LIKE 'many%'", &[])
        .await
        .unwrap();
    assert_eq!(found.len(), 17);
    tx.execute(insert, &[]).await.unwrap();
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
        let extended: Vec<String> = column(&client, &sql).await;
        assert_eq!(simple, extended.join("\n"));
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
