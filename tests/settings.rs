//! Sessions with different settings over the same server connections: each sees its own.

use tokio_postgres::Client;

use crate::support::raw::{pbe, s};
use crate::support::{Hosts, Proxy, Raw, connect};

async fn date(client: &Client) -> String {
    let sql = "SELECT to_char('01/02/2024'::date, 'YYYY-MM-DD') FROM users WHERE id = $1";
    let statement = client
        .prepare_typed(sql, &[tokio_postgres::types::Type::INT8])
        .await
        .unwrap();
    client.query_one(&statement, &[&1i64]).await.unwrap().get(0)
}

/// A literal's meaning is settled when Postgres parses the text: a server-side statement that was parsed under one
/// DateStyle must not serve a session that has another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_read_by_the_settings_of_its_own_session() {
    let hosts = Hosts::provisioned(1, 2).await;
    hosts.write_map(&hosts.map_text(1, "").replace("pool = 10", "pool = 1"));
    let proxy = Proxy::start(&hosts);
    let (month_first, day_first) = (proxy.client().await, proxy.client().await);
    month_first
        .batch_execute("INSERT INTO users (id, name) VALUES (1, 'x')")
        .await
        .unwrap();
    month_first
        .batch_execute("SET DateStyle = 'ISO, MDY'")
        .await
        .unwrap();
    day_first
        .batch_execute("SET DateStyle = 'ISO, DMY'")
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!(date(&month_first).await, "2024-01-02");
        assert_eq!(date(&day_first).await, "2024-02-01");
    }
    // Also where the setting lasts for a transaction only.
    month_first.batch_execute("BEGIN").await.unwrap();
    month_first
        .batch_execute("SET LOCAL DateStyle = 'ISO, DMY'")
        .await
        .unwrap();
    assert_eq!(date(&month_first).await, "2024-02-01");
    month_first.batch_execute("COMMIT").await.unwrap();
    assert_eq!(date(&month_first).await, "2024-01-02");
}

/// `RESET ALL` passes over what stands at its default, even if that is so for the transaction only (guc.c): as on one Postgres.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_all_behind_a_local_default() {
    let hosts = Hosts::provisioned(1, 2).await;
    hosts.write_map(&hosts.map_text(1, "").replace("pool = 10", "pool = 1"));
    let proxy = Proxy::start(&hosts);
    let options = "-c IntervalStyle=iso_8601 -c DateStyle=SQL";
    let (ours, plain) = (proxy.config(), hosts.clusters[0].config());
    let mut clients = Vec::new();
    for mut config in [ours, plain] {
        clients.push(connect(config.options(options)).await);
    }
    let (ours, plain) = (clients.remove(0), clients.remove(0));
    for client in [&ours, &plain] {
        let sql = "SET myapp.x = 'mine'; SET work_mem = '7MB'; SET statement_timeout = '9s'; SET IntervalStyle = 'postgres_verbose'; SET DateStyle = 'German'";
        client.batch_execute(sql).await.unwrap();
        for sql in [
            "BEGIN",
            "SET LOCAL myapp.x = DEFAULT",
            "SET LOCAL work_mem TO DEFAULT",
            "SET LOCAL IntervalStyle TO DEFAULT",
            "SET LOCAL DateStyle TO DEFAULT",
        ] {
            client.batch_execute(sql).await.unwrap();
        }
        client.batch_execute("RESET ALL").await.unwrap();
    }
    let all = "SELECT concat_ws(' ', current_setting('myapp.x'), current_setting('work_mem'), current_setting('statement_timeout'), current_setting('IntervalStyle'), current_setting('DateStyle'))";
    for end in ["SELECT 1", "COMMIT", "SELECT 2"] {
        let mut seen = Vec::new();
        for client in [&ours, &plain] {
            client.batch_execute(end).await.unwrap();
            seen.push(
                client
                    .query_one(all, &[])
                    .await
                    .unwrap()
                    .get::<_, String>(0),
            );
        }
        assert_eq!(seen[0], seen[1], "after {end}");
        if end == "COMMIT" {
            // Another session in between, on the same server connection.
            let other = proxy.client().await;
            other.batch_execute("SELECT 3").await.unwrap();
        }
    }
}

/// What the transaction shows of its characteristics behind each statement.
async fn characteristics(client: &Client, statements: &[&str]) -> Vec<String> {
    let shown = "SELECT concat_ws(' ', current_setting('transaction_read_only'), current_setting('transaction_isolation'), current_setting('transaction_deferrable'))";
    let mut seen = Vec::new();
    for sql in statements {
        client.batch_execute(sql).await.unwrap();
        seen.push(client.query_one(shown, &[]).await.unwrap().get(0));
    }
    seen
}

/// A chained transaction is as the one before it, whatever the default has become (xact.c, `SaveTransactionCharacteristics`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chained_transaction_takes_no_new_default() {
    let hosts = Hosts::provisioned(1, 2).await;
    let proxy = Proxy::start(&hosts);
    let (ours, plain) = (proxy.client().await, hosts.client(0).await);
    for setting in [
        "read_only = on",
        "isolation = 'serializable'",
        "deferrable = on",
    ] {
        let set = format!("SET default_transaction_{setting}");
        let mut seen = Vec::new();
        for client in [&ours, &plain] {
            let chain = [
                "COMMIT AND CHAIN",
                "COMMIT AND CHAIN",
                "COMMIT",
                "RESET ALL",
            ];
            let mut of_client = characteristics(client, &["BEGIN", &set]).await;
            of_client.extend(characteristics(client, &chain).await);
            // The default is set before, and an error comes in between.
            client.batch_execute(&set).await.unwrap();
            client.batch_execute("BEGIN").await.unwrap();
            client.batch_execute("CLOSE nosuch").await.unwrap_err();
            let chain = [
                "ROLLBACK AND CHAIN",
                "COMMIT AND CHAIN",
                "COMMIT",
                "RESET ALL",
            ];
            of_client.extend(characteristics(client, &chain).await);
            seen.push(of_client);
        }
        assert_eq!(seen[0], seen[1], "{setting}");
    }
}

/// However the transaction ends in which a connection is brought to a session's settings: they are in force for that session
/// afterwards, and for no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_are_undone_with_a_transaction_are_brought_about_anew() {
    let hosts = Hosts::provisioned(1, 2).await;
    hosts.write_map(&hosts.map_text(1, "").replace("pool = 10", "pool = 1"));
    let proxy = Proxy::start(&hosts);
    let texts: [&[&str]; 21] = [
        &["BEGIN", "SELECT 1; ROLLBACK; SELECT 2"],
        &["BEGIN", "SELECT 1; ROLLBACK"],
        &["BEGIN", "SELECT 1; COMMIT; SELECT 1/0"],
        &["BEGIN", "SELECT 1", "ROLLBACK"],
        &["BEGIN", "SELECT 1/0", "ROLLBACK"],
        &["BEGIN", "SELECT 1/0", "COMMIT"],
        &["BEGIN", "SELECT 1/0; COMMIT", "COMMIT"],
        &[
            "BEGIN",
            "SAVEPOINT a",
            "SELECT 1/0",
            "ROLLBACK TO a",
            "ROLLBACK",
        ],
        &[
            "BEGIN",
            "CLOSE nosuch",
            "ROLLBACK AND CHAIN",
            "SELECT 1",
            "ROLLBACK",
        ],
        &["BEGIN", "SELECT 1", "ROLLBACK AND CHAIN", "ROLLBACK"],
        &["BEGIN; SELECT 1; ROLLBACK"],
        &["SELECT 1; SELECT 1/0"],
        &["BEGIN; SELECT 1; COMMIT; SELECT 1/0"],
        &["SET work_mem = '9MB'; SELECT 1/0"],
        // A pipeline, in which ROLLBACK ends the transaction of the settings outside of any block.
        &[
            "|SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "|ROLLBACK",
            "",
        ],
        &["|SET LOCAL work_mem = '3MB'", "|ROLLBACK", ""],
        &["|SELECT 1", "|ROLLBACK", ""],
        // No Sync ends it, but a Query.
        &["|SELECT 1", "ROLLBACK"],
        &["|SELECT 1", "ABORT"],
        &[
            "|SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "ROLLBACK",
        ],
        &["|SELECT 1", "SELEC user"],
    ];
    for texts in texts {
        let mut mine = Raw::connect(proxy.addr());
        mine.query(
            "SET TimeZone = 'Asia/Tokyo'; SET work_mem = '7MB'; SET application_name = 'mine'",
        );
        for theirs in [
            "SELECT 1",
            "SET work_mem = '5MB'; SET TimeZone = 'Asia/Kolkata'",
        ] {
            let mut other = Raw::connect(proxy.addr());
            other.query(theirs);
            let see = "SELECT concat_ws(' ', current_setting('work_mem'), current_setting('TimeZone'), current_setting('application_name'))";
            let seen = other.query(see)[1].clone();
            for text in texts {
                match text.strip_prefix('|') {
                    Some(text) => mine.send(&pbe(text, &[])),
                    None if text.is_empty() => drop(mine.ask(&s(), 1)),
                    None => drop(mine.query(text)),
                }
            }
            for _ in 0..2 {
                assert_eq!(mine.query(see)[1], "D 7MB Asia/Tokyo mine", "{texts:?}");
                assert_eq!(other.query(see)[1], seen, "{texts:?}");
            }
        }
    }
    assert!(!proxy.log().contains("not what it should be"));
}

/// What a batch sets for the next transaction is not for its own, also if its connection has been left so by another session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_does_not_begin_with_what_it_sets_for_the_next_transaction() {
    let hosts = Hosts::provisioned(2, 2).await;
    hosts.write_map(&hosts.map_text(1, "").replace("pool = 10", "pool = 1"));
    let proxy = Proxy::start(&hosts);
    for (theirs, mine) in [("on", "on"), ("off", "on"), ("on", "off")] {
        let (mut other, mut me) = (Raw::connect(proxy.addr()), Raw::connect(proxy.addr()));
        let set = |value| format!("SET default_transaction_read_only = {value}");
        me.query(&set(if mine == "on" { "off" } else { "on" }));
        other.query(&set(theirs));
        // The one host has the SET itself, too.
        for user in [0, 1] {
            let see = format!(
                "SELECT current_setting('transaction_read_only'), count(*) FROM users WHERE id = {user}"
            );
            let first = me.query("SHOW default_transaction_read_only")[1].clone();
            other.query(&see);
            let batch = [pbe(&set(mine), &[]), pbe(&see, &[]), s()].concat();
            let answer = me.ask(&batch, 1);
            let before = format!("{first}|0");
            assert!(answer.contains(&before), "{theirs} {mine}: {answer:?}");
            assert_eq!(me.query(&see)[1], format!("D {mine}|0"));
            assert_eq!(other.query(&see)[1], format!("D {theirs}|0"));
            let other_way = if mine == "on" { "off" } else { "on" };
            me.query(&set(other_way));
        }
    }
}
