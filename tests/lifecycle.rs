//! The proxy's life under load: maps replaced, hosts killed and back, cancels, draining, abandoned transactions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio_postgres::error::SqlState;

use crate::support::{Hosts, Proxy, wait_until};

/// Clients that read and write their own users' rows until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Result<(), String>>>,
}

impl Load {
    async fn start(proxy: &Proxy, clients: i64) -> Load {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let mut tasks = Vec::new();
        for user in 0..clients {
            let mut client = proxy.client().await;
            let (stop, done) = (stop.clone(), done.clone());
            tasks.push(tokio::spawn(async move {
                let fault = |e: tokio_postgres::Error| format!("user {user}: {e:?}");
                let mut n = 0i64;
                while !stop.load(Ordering::Relaxed) {
                    let caption = format!("{user}:{n}");
                    client
                        .execute(
                            "INSERT INTO photos (user_id, caption) VALUES ($1, $2)",
                            &[&user, &caption],
                        )
                        .await
                        .map_err(fault)?;
                    let tx = client.transaction().await.map_err(fault)?;
                    let row = tx
                        .query_one("SELECT count(*) FROM photos WHERE user_id = $1", &[&user])
                        .await
                        .map_err(fault)?;
                    n += 1;
                    if row.get::<_, i64>(0) != n {
                        return Err(format!(
                            "user {user} has {} photos, not {n}",
                            row.get::<_, i64>(0)
                        ));
                    }
                    tx.commit().await.map_err(fault)?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
        Load { stop, done, tasks }
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until `n` more rounds are through.
    async fn more(&self, n: u64) {
        let target = self.done() + n;
        wait_until("the load goes on", || async {
            self.done() >= target || self.tasks.iter().any(|t| t.is_finished())
        })
        .await;
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap().unwrap();
        }
        self.done.load(Ordering::Relaxed)
    }
}

/// Faults of different kinds, and a word of what each must be reported with.
fn faulty(good: &str, n: usize) -> (String, &'static str) {
    match n % 6 {
        0 => (good.replace("[map]", "[map"), "TOML"),
        1 => (good.replace("\"0-3\"", "\"0-2\""), "3"),
        2 => (good.replace("\"4-7\"", "\"4-9\""), "4-9"),
        3 => (good.replacen("shards = 8", "shards = 16", 1), "shards"),
        4 => (good.replace("user_id", "user_id\nkeyy = \"x\""), "line"),
        _ => (good.replace("= \"b\"", "= \"nobody\""), "nobody"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_maps_under_load_and_no_client_notices() {
    let hosts = Hosts::provisioned(2, 8).await;
    let mut proxy = Proxy::start(&hosts);
    let load = Load::start(&proxy, 16).await;
    load.more(50).await;
    let mut version = 1;
    for n in 0..100 {
        let mark = proxy.log_mark();
        if n % 10 < 3 {
            let (text, _) = faulty(&hosts.map_text(version + 1, ""), n);
            hosts.write_map(&text);
            proxy.reload();
            let said = proxy.wait_log(mark, &["shardmap.toml:"]);
            assert!(
                said.lines()
                    .any(|l| l.split("shardmap.toml:").nth(1).is_some_and(|at| {
                        let mut at = at.split(':');
                        at.next()
                            .is_some_and(|line| line.parse::<u32>().is_ok_and(|n| n > 0))
                            && at
                                .next()
                                .is_some_and(|column| column.parse::<u32>().is_ok_and(|n| n > 0))
                    })),
                "line and column: {said}"
            );
        } else {
            version += 1;
            hosts.write_map(&hosts.map_text(
                version,
                &format!("[proxy.limits]\nstatements_per_session = {}\n", 1000 + n),
            ));
            proxy.reload();
            proxy.wait_log(mark, &["statements_per_session"]);
        }
        load.more(5).await;
    }
    assert!(load.end().await > 500);
    // The final map is in force: it says how many statements a session may hold.
    hosts.write_map(&hosts.map_text(version + 1, "[proxy.limits]\nstatements_per_session = 2\n"));
    let mark = proxy.log_mark();
    proxy.reload();
    proxy.wait_log(mark, &["statements_per_session"]);
    let client = proxy.client().await;
    let _held = (
        client.prepare("SELECT 1").await.unwrap(),
        client.prepare("SELECT 2").await.unwrap(),
    );
    assert_eq!(
        client.prepare("SELECT 3").await.unwrap_err().code(),
        Some(&SqlState::PROGRAM_LIMIT_EXCEEDED)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_host_fails_fast_and_comes_back_by_itself() {
    let mut hosts = Hosts::provisioned(2, 8).await;
    let proxy = Proxy::start(&hosts);
    let a = Load::start(&proxy, 4).await; // users 0..4 are on host a
    let client = proxy.client().await;
    let on_b = "INSERT INTO photos (user_id, caption) VALUES (5, 'b')";
    client.batch_execute(on_b).await.unwrap();
    a.more(20).await;

    hosts.clusters[1].crash();
    let error = client.batch_execute(on_b).await.unwrap_err();
    assert!(!client.is_closed(), "the client's session goes on");
    let db = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
    assert!(
        db.code().code().starts_with("08") || db.code().code().starts_with("57P"),
        "{db:?}"
    );
    assert!(db.message().contains("\"b\""), "it names the host: {db:?}");
    assert!(db.hint().is_some());
    // At once, that is with the refusal of the connection, not with that of a wait that was too long.
    for _ in 0..20 {
        let error = client.batch_execute(on_b).await.unwrap_err();
        assert_eq!(
            error.code(),
            Some(&SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
            "{error:?}"
        );
    }
    // The other host's statements never stopped, also on the very same session.
    client
        .batch_execute("INSERT INTO photos (user_id, caption) VALUES (9, 'a')")
        .await
        .unwrap();
    a.more(20).await;

    hosts.clusters[1].start();
    wait_until("host b is served again", || async {
        client.batch_execute(on_b).await.is_ok()
    })
    .await;
    a.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_host_fails_the_transaction_that_was_on_it() {
    let mut hosts = Hosts::provisioned(2, 8).await;
    let proxy = Proxy::start(&hosts);
    let client = proxy.client().await;
    client.batch_execute("BEGIN").await.unwrap();
    client
        .batch_execute("INSERT INTO photos (user_id, caption) VALUES (5, 'lost')")
        .await
        .unwrap();
    hosts.clusters[1].crash();
    client
        .batch_execute("SELECT * FROM photos WHERE user_id = 5")
        .await
        .unwrap_err();
    let error = client
        .batch_execute("SELECT * FROM photos WHERE user_id = 1")
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
    client.batch_execute("COMMIT").await.unwrap(); // answered with ROLLBACK
    hosts.clusters[1].start();
    wait_until("host b is back", || async {
        client
            .batch_execute("SELECT * FROM photos WHERE user_id = 5")
            .await
            .is_ok()
    })
    .await;
    assert!(
        client
            .query("SELECT * FROM photos WHERE user_id = 5", &[])
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_hits_the_query_of_its_session_and_no_other() {
    let hosts = Hosts::provisioned(2, 8).await;
    let proxy = Proxy::start(&hosts);
    let (one, other) = (proxy.client().await, proxy.client().await);
    let token = one.cancel_token();
    one.batch_execute("INSERT INTO users (id, name) VALUES (5, 'slow')")
        .await
        .unwrap();
    let slow = tokio::spawn(async move {
        let error = one
            .query("SELECT pg_sleep(60), * FROM users WHERE id = 5", &[])
            .await;
        (one, error)
    });
    let quiet =
        tokio::spawn(async move { other.query("SELECT pg_sleep(2)", &[]).await.map(|_| other) });
    let direct = hosts.client(1).await;
    wait_until("the query runs", || async {
        // Once the row is there the query sleeps.
        let row = direct
            .query_one("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60), *%' AND state = 'active' AND pid <> pg_backend_pid()", &[])
            .await
            .unwrap();
        row.get::<_, i64>(0) > 0
    })
    .await;
    token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    let (one, error) = slow.await.unwrap();
    assert_eq!(error.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    one.batch_execute("SELECT 1").await.unwrap();
    quiet.await.unwrap().unwrap();
    // A cancel while nothing runs hits nothing, neither now nor later.
    one.cancel_token()
        .cancel_query(tokio_postgres::NoTls)
        .await
        .unwrap();
    one.batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_transactions_end_and_takes_no_new_clients() {
    let hosts = Hosts::provisioned(1, 4).await;
    let mut proxy = Proxy::start(&hosts);
    let (busy, idle) = (proxy.client().await, proxy.client().await);
    busy.batch_execute("BEGIN; INSERT INTO photos (user_id, caption) VALUES (1, 'kept')")
        .await
        .unwrap();
    let mark = proxy.log_mark();
    proxy.signal("TERM");
    proxy.wait_log(mark, &["draining"]);
    wait_until("the idle client is told to go", || async {
        idle.is_closed()
    })
    .await;
    assert!(
        proxy.config().connect(tokio_postgres::NoTls).await.is_err(),
        "no new clients"
    );
    busy.batch_execute("INSERT INTO photos (user_id, caption) VALUES (1, 'kept too')")
        .await
        .unwrap();
    busy.batch_execute("COMMIT").await.unwrap();
    assert!(proxy.wait().success());
    let n = hosts
        .client(0)
        .await
        .query_one("SELECT count(*) FROM shard_0001.photos", &[])
        .await
        .unwrap();
    assert_eq!(n.get::<_, i64>(0), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_transaction_is_rolled_back() {
    let hosts = Hosts::provisioned(1, 4).await;
    let proxy = Proxy::start(&hosts);
    for _ in 0..30 {
        // More often than the pool has connections.
        let client = proxy.client().await;
        client
            .batch_execute("BEGIN; INSERT INTO photos (user_id, caption) VALUES (1, 'gone')")
            .await
            .unwrap();
    }
    let client = proxy.client().await;
    wait_until("all are gone", || async {
        let rows = client
            .query("SELECT 1 FROM photos WHERE user_id = 1", &[])
            .await
            .unwrap();
        rows.is_empty()
    })
    .await;
    let direct = hosts.client(0).await;
    wait_until("nothing stays open", || async {
        let open = direct
            .query_one(
                "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'",
                &[],
            )
            .await
            .unwrap();
        open.get::<_, i64>(0) == 0
    })
    .await;
}
