//! What becomes of a session when the server processes that work for it are lost, with their host or alone: the statement fails
//! with an error that names the host, what it did is undone, and the session goes on.

use tokio_postgres::Client;

use crate::support::raw::{d, done, pbe, q, s};
use crate::support::{Hosts, Proxy, Raw, wait_until};

/// Server processes that work for the scripts.
const AT_WORK: &str =
    "pid <> pg_backend_pid() AND (wait_event_type = 'Lock' OR query LIKE 'COPY%')";

type Script = (&'static str, Vec<Vec<u8>>, Option<Vec<u8>>);

/// What is sent before host b goes, and what after. Each waits for a row of shard 5 that is locked.
fn scripts() -> [Script; 7] {
    let pipeline = |sql| vec![pbe(sql, &[]), s()];
    [
        (
            "a write",
            vec![q("UPDATE users SET name = 'lost' WHERE id = 5")],
            None,
        ),
        ("a gather", vec![q("SELECT name FROM users")], None),
        (
            "a gather in the extended protocol",
            pipeline("SELECT name FROM users"),
            None,
        ),
        (
            "a merge",
            vec![q("SELECT name FROM users ORDER BY id")],
            None,
        ),
        (
            "a merge in the extended protocol",
            pipeline("SELECT count(*) FROM users"),
            None,
        ),
        (
            "a batch",
            vec![
                pbe("UPDATE users SET name = 'lost' WHERE id = 1", &[]),
                pbe("SELECT name FROM users WHERE id = 5", &[]),
                s(),
            ],
            None,
        ),
        (
            "a COPY",
            vec![
                q("COPY likes (user_id, photo_id) FROM STDIN /* presplit: key=5 */"),
                d("5\t1\n"),
            ],
            Some(done()),
        ),
    ]
}

/// The scripts' sessions, all of them at work on host b while the client holds its lock.
async fn sessions_at_work(hosts: &Hosts, proxy: &Proxy) -> (Vec<Raw>, Client) {
    let client = proxy.client().await;
    for user in ["(1, 'a')", "(5, 'b')"] {
        let sql = format!("INSERT INTO users (id, name) VALUES {user} ON CONFLICT DO NOTHING");
        client.batch_execute(&sql).await.unwrap();
    }
    let locker = hosts.client(1).await;
    locker
        .batch_execute("BEGIN; LOCK TABLE shard_0005.users")
        .await
        .unwrap();
    let scripts = scripts();
    let mut raws: Vec<Raw> = scripts.iter().map(|_| Raw::connect(proxy.addr())).collect();
    for (raw, (_, frames, _)) in raws.iter_mut().zip(&scripts) {
        raw.send(&frames.concat());
    }
    let direct = hosts.client(1).await;
    wait_until("all of it is under way", || async {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE {AT_WORK}");
        let waiting = direct.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0);
        waiting == scripts.len() as i64
    })
    .await;
    (raws, locker)
}

/// Each script fails with an error about host b, and its session works on.
fn assert_lost(raws: &mut [Raw]) {
    for (raw, (name, _, end)) in raws.iter_mut().zip(scripts()) {
        if let Some(end) = end {
            raw.send(&end);
        }
        let answer = raw.until_ready(1);
        let error = answer
            .iter()
            .find(|l| l.starts_with("E "))
            .unwrap_or_else(|| panic!("{name}: {answer:?}"));
        assert!(
            error.starts_with("E VERROR") && error.contains("host \"b\""),
            "{name}: the session goes on: {answer:?}"
        );
        assert_eq!(answer.last().unwrap(), "Z I", "{name}");
        // It can write on the other host at once.
        assert_eq!(
            raw.query("UPDATE users SET name = name WHERE id = 1"),
            ["C UPDATE 1", "Z I"],
            "{name}"
        );
        assert_eq!(
            raw.query("SELECT name FROM users WHERE id = 1")[1],
            "D a",
            "{name}: what the batch wrote is undone"
        );
        let pipeline = [
            pbe("UPDATE users SET name = name WHERE id = 1", &[]),
            pbe("SELECT 1", &[]),
            s(),
        ]
        .concat();
        assert_eq!(raw.ask(&pipeline, 1).len(), 8, "{name}");
        raw.assert_silent();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_lost_in_the_middle_of_things() {
    let mut hosts = Hosts::provisioned(2, 8).await;
    let proxy = Proxy::start(&hosts);
    let (mut raws, _locker) = sessions_at_work(&hosts, &proxy).await;
    hosts.clusters[1].crash();
    assert_lost(&mut raws);
    hosts.clusters[1].start();
    let client = proxy.client().await;
    wait_until("host b is back", || async {
        client
            .query("SELECT * FROM users WHERE id = 5", &[])
            .await
            .is_ok()
    })
    .await;
    // A crash may take what was not flushed.
    client
        .batch_execute("INSERT INTO users (id, name) VALUES (5, 'b') ON CONFLICT DO NOTHING")
        .await
        .unwrap();
    for raw in &mut raws {
        assert_eq!(
            raw.query("SELECT name FROM users WHERE id IN (1, 5)").len(),
            5
        );
        raw.assert_silent();
    }
}

/// What the server says last is FATAL; for the client it is an error like others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_processes_that_are_terminated_in_the_middle_of_things() {
    let hosts = Hosts::provisioned(2, 8).await;
    let proxy = Proxy::start(&hosts);
    let (mut raws, locker) = sessions_at_work(&hosts, &proxy).await;
    let direct = hosts.client(1).await;
    // Not the one that holds the lock: what waits for it would come to its end.
    let sql = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {AT_WORK}");
    direct.batch_execute(&sql).await.unwrap();
    assert_lost(&mut raws);
    locker.batch_execute("ROLLBACK").await.unwrap();
    for raw in &mut raws {
        assert_eq!(
            raw.query("SELECT name FROM users WHERE id IN (1, 5)").len(),
            5
        );
        raw.assert_silent();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_host_ends_the_block_that_used_it() {
    let mut hosts = Hosts::provisioned(2, 8).await;
    let proxy = Proxy::start(&hosts);
    let mut raw = Raw::connect(proxy.addr());
    for sql in [
        "BEGIN",
        "INSERT INTO users (id, name) VALUES (1, 'a')",
        "SELECT name FROM users WHERE id = 5",
        "SAVEPOINT s",
    ] {
        raw.query(sql);
    }
    hosts.clusters[1].crash();
    let answer = raw.query("SELECT name FROM users WHERE id = 5");
    assert!(
        answer
            .iter()
            .any(|l| l.starts_with("E VERROR") && l.contains("host \"b\"")),
        "{answer:?}"
    );
    assert_eq!(answer.last().unwrap(), "Z E");
    // What b had done cannot be brought back.
    assert!(raw.query("ROLLBACK TO s")[0].contains("C25P02"));
    assert_eq!(raw.query("COMMIT"), ["C ROLLBACK", "Z I"]);
    assert_eq!(
        raw.query("SELECT count(*) FROM users WHERE id = 1")[1],
        "D 0"
    );
    hosts.clusters[1].start();
}

/// The host of the block's first writes is found to be lost when a statement needs another host, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_host_is_told_of_before_what_its_block_can_do_no_more() {
    let mut hosts = Hosts::provisioned(2, 8).await;
    let proxy = Proxy::start(&hosts);
    let mut raw = Raw::connect(proxy.addr());
    raw.query("BEGIN");
    raw.query("INSERT INTO users (id, name) VALUES (5, 'b')");
    hosts.clusters[1].crash();
    let update = pbe("UPDATE users SET name = 'x' WHERE id = 1", &[]);
    let answer = raw.ask(&[update, s()].concat(), 1);
    let error = answer.iter().find(|l| l.starts_with("E ")).unwrap();
    assert!(
        error.contains("C08006") && error.contains("host \"b\""),
        "{answer:?}"
    );
    assert_eq!(answer.last().unwrap(), "Z E");
    assert_eq!(raw.query("ROLLBACK"), ["C ROLLBACK", "Z I"]);
    hosts.clusters[1].start();
}
