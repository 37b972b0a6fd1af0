//! What a session has in one server process beyond its transactions: advisory locks, channels, temporary tables, cursors WITH
//! HOLD. It keeps its server connection while it has any of them, and not longer.

use tokio::sync::OnceCell;

use crate::support::raw::{b, cp, d, done, dp, e, p, q, s};
use crate::support::{Hosts, Proxy, Raw, connect, wait_until};

/// Users 0..8, one in each shard: 0-3 on host a, which is the session host, 4-7 on host b.
async fn hosts() -> &'static Hosts {
    static HOSTS: OnceCell<Hosts> = OnceCell::const_new();
    HOSTS.get_or_init(Hosts::of_eight_users).await
}

struct World {
    proxy: Proxy,
    file: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

/// A proxy with this inside of `[proxy]`, and this many server connections to each host.
async fn world(pool: u32, settings: &str) -> World {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shardmap.toml");
    let text = hosts().await.map_text(1, settings);
    std::fs::write(&file, text.replace("pool = 10", &format!("pool = {pool}"))).unwrap();
    World {
        proxy: Proxy::serve(&file, &[]),
        file,
        _dir: dir,
    }
}

impl World {
    fn raw(&self) -> Raw {
        Raw::connect(self.proxy.addr())
    }

    /// Waits until the clients have just this. (It is asked of the server behind the answer to the client.)
    async fn wait_pinned(&self, wanted: &[&str]) {
        wait_until(&format!("{wanted:?} is pinned"), || async {
            self.pinned().await == wanted
        })
        .await;
    }

    /// What the clients have, as SHOW CLIENTS says.
    async fn pinned(&self) -> Vec<String> {
        let mut config = self.proxy.config();
        config.dbname("presplit");
        let console = connect(&config).await;
        let rows = console.simple_query("SHOW CLIENTS").await.unwrap();
        let rows = rows.iter().filter_map(|row| match row {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get("pinned"),
            _ => None,
        });
        rows.filter(|pinned| !pinned.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

fn rows(answer: Vec<String>) -> Vec<String> {
    let bad = answer.iter().find(|line| line.starts_with("E "));
    assert!(bad.is_none(), "{answer:?}");
    let rows = answer.into_iter().filter(|line| line.starts_with("D "));
    rows.map(|line| line[2..].to_owned()).collect()
}

fn one(raw: &mut Raw, sql: &str) -> String {
    let mut rows = rows(raw.query(sql));
    assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
    rows.remove(0)
}

fn code(answer: &[String]) -> Option<String> {
    let error = answer.iter().find(|line| line.starts_with("E "))?;
    let code = error
        .split(" | ")
        .find(|f| f.trim_start_matches("E ").starts_with('C'))?;
    Some(
        code.trim_start_matches("E ")[1..]
            .trim_start_matches([' ', '='])
            .to_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_lock_shuts_others_out_and_frees_its_connection_when_given_back() {
    let world = world(3, "").await;
    let (mut one_, mut other) = (world.raw(), world.raw());
    for _ in 0..3 {
        assert_eq!(one(&mut one_, "SELECT pg_try_advisory_lock(42)"), "t");
        // Other statements, and other hosts, in between.
        assert_eq!(one(&mut one_, "SELECT name FROM users WHERE id = 5"), "u5");
        assert_eq!(one(&mut one_, "SELECT name FROM users WHERE id = 1"), "u1");
        assert_eq!(one(&mut other, "SELECT pg_try_advisory_lock(42)"), "f");
        world.wait_pinned(&["a: advisory locks"]).await;
        // A lock of a transaction that is on the other host meets it, too.
        other.query("BEGIN");
        assert_eq!(one(&mut other, "SELECT name FROM users WHERE id = 5"), "u5");
        assert_eq!(one(&mut other, "SELECT pg_try_advisory_xact_lock(42)"), "f");
        assert_eq!(one(&mut other, "SELECT pg_try_advisory_xact_lock(43)"), "t");
        assert_eq!(one(&mut one_, "SELECT pg_try_advisory_lock(43)"), "f");
        other.query("COMMIT");
        assert_eq!(one(&mut one_, "SELECT pg_advisory_unlock(42)"), "t");
        world.wait_pinned(&[]).await;
        assert_eq!(one(&mut other, "SELECT pg_try_advisory_lock(42)"), "t");
        assert_eq!(one(&mut other, "SELECT pg_advisory_unlock(42)"), "t");
    }
    // The extended protocol, in a block that is rolled back: the lock stays, as in Postgres.
    one_.query("BEGIN");
    let batch = [
        p("", "SELECT pg_advisory_lock($1)"),
        b("", "", &["44"]),
        e("", 0),
        s(),
    ]
    .concat();
    one_.ask(&batch, 1);
    one_.query("ROLLBACK");
    assert_eq!(one(&mut other, "SELECT pg_try_advisory_lock(44)"), "f");
    drop(one_);
    wait_until("the lock ends with its session", || async {
        rows(world.raw().query("SELECT pg_try_advisory_xact_lock(44)")) == ["t"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_reach_those_that_listen_while_they_are_idle() {
    let world = world(4, "").await;
    let (mut hears, mut says) = (world.raw(), world.raw());
    assert_eq!(hears.query("LISTEN news"), ["C LISTEN", "Z I"]);
    world.wait_pinned(&["a: channels"]).await;
    says.query("NOTIFY news, 'one'");
    let heard = hears.until(|line| line.starts_with("A "));
    assert!(
        heard[0].ends_with("news two") || heard[0].contains("one"),
        "{heard:?}"
    );
    // From a transaction that writes on the other host, and by function.
    says.query("BEGIN");
    says.query("UPDATE users SET name = 'x' WHERE id = 6");
    says.query("SELECT pg_notify('news', 'two')");
    hears.assert_silent();
    says.query("COMMIT");
    let heard = hears.until(|line| line.starts_with("A "));
    assert!(heard[0].contains("two"), "{heard:?}");
    // On both hosts, and rolled back.
    says.query("BEGIN");
    says.query("UPDATE users SET name = 'y' WHERE id = 0");
    says.query("UPDATE users SET name = 'y' WHERE id = 6");
    says.query("NOTIFY news, 'three'");
    assert_eq!(says.query("COMMIT"), ["C COMMIT", "Z I"]);
    let heard = hears.until(|line| line.starts_with("A "));
    assert!(heard[0].contains("three"), "{heard:?}");
    assert_eq!(hears.query("UNLISTEN news"), ["C UNLISTEN", "Z I"]);
    world.wait_pinned(&[]).await;
    says.query("NOTIFY news, 'four'");
    hears.assert_silent();
    // One that hears itself hears it before the answer is complete, as from Postgres.
    hears.query("LISTEN own");
    let heard = hears.query("NOTIFY own, 'x'");
    assert!(heard.iter().any(|line| line.starts_with("A ")), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_tables_belong_to_their_session() {
    let world = world(3, "").await;
    let (mut own, mut other) = (world.raw(), world.raw());
    assert_eq!(
        own.query("CREATE TEMP TABLE staging (id bigint, name text)"),
        ["C CREATE TABLE", "Z I"]
    );
    world.wait_pinned(&["a: temporary tables"]).await;
    own.query("INSERT INTO staging VALUES (1, 'x'), (2, 'y')");
    own.ask(
        &[q("COPY staging FROM STDIN"), d("3\tz\n"), done()].concat(),
        1,
    );
    assert_eq!(one(&mut own, "SELECT count(*) FROM staging"), "3");
    assert_eq!(one(&mut own, "SELECT name FROM users WHERE id = 5"), "u5");
    assert_eq!(
        one(
            &mut own,
            "SELECT count(*) FROM pg_temp.staging s JOIN countries c ON true"
        ),
        "0"
    );
    assert_eq!(
        code(&other.query("SELECT count(*) FROM staging")).as_deref(),
        Some("SR003")
    );
    // With a query, in a block, together with writes on the other host.
    own.query("BEGIN");
    own.query("CREATE TEMP TABLE more ON COMMIT DROP AS SELECT name FROM users WHERE id = 2");
    assert_eq!(one(&mut own, "SELECT name FROM more"), "u2");
    own.query("INSERT INTO more VALUES ('z')");
    own.query("UPDATE users SET name = 'u7' WHERE id = 7");
    assert_eq!(own.query("COMMIT"), ["C COMMIT", "Z I"]);
    assert_eq!(
        code(&own.query("SELECT * FROM more")).as_deref(),
        Some("SR003")
    );
    assert_eq!(one(&mut own, "SELECT count(*) FROM staging"), "3");
    // Rows of another host can't be taken along, nor those of several shards.
    for sql in [
        "CREATE TEMP TABLE far AS SELECT * FROM users WHERE id = 5",
        "CREATE TEMP TABLE far AS SELECT * FROM users",
        "SELECT * FROM staging JOIN users USING (id)",
        "CREATE TEMP VIEW v AS SELECT 1",
    ] {
        let code = code(&own.query(sql));
        assert!(code.is_some(), "{sql}");
    }
    own.query("TRUNCATE staging");
    assert_eq!(one(&mut own, "SELECT count(*) FROM staging"), "0");
    // It hides a table of its name, as in Postgres.
    own.query("CREATE TEMP TABLE users (LIKE users)");
    assert_eq!(one(&mut own, "SELECT count(*) FROM users"), "0");
    assert_eq!(one(&mut other, "SELECT name FROM users WHERE id = 5"), "u5");
    let hidden = own.query("SELECT count(*) FROM public.users");
    assert!(hidden[0].contains("temporary table users"), "{hidden:?}");
    let hidden = own.query("CREATE TABLE users AS SELECT 1");
    assert!(hidden[0].contains("temporary table users"), "{hidden:?}");
    own.query("DROP TABLE users");
    assert_eq!(one(&mut own, "SELECT name FROM users WHERE id = 5"), "u5");
    own.query("DROP TABLE staging");
    world.wait_pinned(&[]).await;
    // Made and used in one message.
    let all = own.query("CREATE TEMP TABLE t (x int); INSERT INTO t VALUES (7); SELECT x FROM t");
    assert_eq!(rows(all), ["7"]);
    own.query("DISCARD ALL");
    assert!(world.pinned().await.is_empty());
    assert_eq!(
        code(&own.query("SELECT x FROM t")).as_deref(),
        Some("SR003")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_with_hold_outlive_their_transaction() {
    let world = world(3, "").await;
    let mut raw = world.raw();
    raw.query("BEGIN");
    raw.query("DECLARE c CURSOR WITH HOLD FOR SELECT name FROM users WHERE id = 6 UNION ALL SELECT 'more'");
    let answer = raw.query("COMMIT");
    assert_eq!(answer, ["C COMMIT", "Z I"]);
    world.wait_pinned(&["b: cursors"]).await;
    assert_eq!(one(&mut raw, "SELECT name FROM users WHERE id = 1"), "u1");
    assert_eq!(rows(raw.query("FETCH ALL FROM c")).len(), 2);
    assert_eq!(raw.query("CLOSE c"), ["C CLOSE CURSOR", "Z I"]);
    world.wait_pinned(&[]).await;
    raw.query("BEGIN");
    raw.query("DECLARE c CURSOR WITH HOLD FOR SELECT name FROM users WHERE id = 3");
    raw.query("ROLLBACK");
    assert!(world.pinned().await.is_empty());
    raw.query("DECLARE c CURSOR WITH HOLD FOR SELECT id FROM users WHERE id = 3");
    assert_eq!(one(&mut raw, "FETCH c"), "3");
    raw.query("CLOSE ALL");
    world.wait_pinned(&[]).await;
    // A cursor is a portal, too: psycopg describes it.
    for user in [3, 6] {
        raw.query(&format!(
            "DECLARE c CURSOR WITH HOLD FOR SELECT id FROM users WHERE id = {user}"
        ));
        let answer = raw.ask(&[dp("c"), s()].concat(), 1);
        assert!(answer[0].starts_with("T id"), "{answer:?}");
        let answer = raw.ask(&[e("c", 1), s()].concat(), 1);
        assert_eq!(answer[0], format!("D {user}"));
        let answer = raw.ask(&[cp("c"), s()].concat(), 1);
        assert_eq!(answer, ["3", "Z I"]);
        world.wait_pinned(&[]).await;
        let answer = raw.ask(&[dp("c"), s()].concat(), 1);
        assert_eq!(code(&answer).as_deref(), Some("34000"));
    }
}

/// A session's end must leave nothing behind for the next.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_session_is_left_for_the_next() {
    let world = world(2, "").await;
    for _ in 0..5 {
        let mut raw = world.raw();
        raw.query("SELECT pg_advisory_lock(7)");
        raw.query("CREATE TEMP TABLE t (x int)");
        raw.query("LISTEN c");
    }
    world.wait_pinned(&[]).await;
    // A server process takes a moment to end, as it does when its client is no proxy.
    wait_until("the lock is free", || {
        let got = one(&mut world.raw(), "SELECT pg_try_advisory_xact_lock(7)");
        std::future::ready(got == "t")
    })
    .await;
    let mut raw = world.raw();
    assert_eq!(
        one(&mut raw, "SELECT count(*) FROM pg_listening_channels()"),
        "0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_connection_is_nobodys() {
    let world = world(2, "[proxy.timeouts]\ncheckout_wait = \"2s\"").await;
    let (mut first, mut second) = (world.raw(), world.raw());
    assert_eq!(one(&mut first, "SELECT pg_try_advisory_lock(1)"), "t");
    world.wait_pinned(&["a: advisory locks"]).await;
    assert_eq!(
        code(&second.query("SELECT pg_try_advisory_lock(2)")).as_deref(),
        Some("53300")
    );
    assert_eq!(
        one(&mut second, "SELECT name FROM users WHERE id = 1"),
        "u1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pinning_can_be_refused() {
    let world = world(2, "pinning = \"refuse\"").await;
    let mut raw = world.raw();
    for sql in [
        "SELECT pg_advisory_lock(1)",
        "LISTEN x",
        "CREATE TEMP TABLE t (x int)",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    ] {
        assert_eq!(code(&raw.query(sql)).as_deref(), Some("0A000"), "{sql}");
    }
    // What a driver sends to clean up.
    let reset = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;";
    assert_eq!(code(&raw.query(reset)), None);
    assert_eq!(one(&mut raw, "SELECT pg_try_advisory_xact_lock(1)"), "t");
}

/// What it has is gone with the server process, so the session ends as it would on one Postgres.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_server_process_does() {
    let world = world(3, "").await;
    let host = hosts().await.client(0).await;
    let kill =
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 99";
    let mut idle = world.raw();
    assert_eq!(one(&mut idle, "SELECT pg_try_advisory_lock(99)"), "t");
    world.wait_pinned(&["a: advisory locks"]).await;
    host.simple_query(kill).await.unwrap();
    let end = idle.until(|_| false);
    assert!(
        end[0].contains("57P01") && end.last().unwrap() == "EOF",
        "{end:?}"
    );
    // In the middle of a statement.
    let mut busy = world.raw();
    assert_eq!(one(&mut busy, "SELECT pg_try_advisory_lock(99)"), "t");
    busy.send(&q("SELECT pg_sleep(100)"));
    wait_until("it sleeps", || async {
        let sleeps = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(100)%' AND state = 'active' AND pid <> pg_backend_pid()";
        host.query(sleeps, &[]).await.unwrap().len() == 1
    })
    .await;
    host.simple_query(kill).await.unwrap();
    let end = busy.until(|_| false);
    assert_eq!(end.last().unwrap(), "EOF", "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_the_map_moves_its_locks_elsewhere() {
    let mut world = world(3, "").await;
    let (mut locks, mut holds) = (world.raw(), world.raw());
    assert_eq!(one(&mut locks, "SELECT pg_try_advisory_lock(5)"), "t");
    holds.query("DECLARE c CURSOR WITH HOLD FOR SELECT id FROM users WHERE id = 3");
    let text = std::fs::read_to_string(&world.file).unwrap();
    let text = text.replace(
        "key = \"user_id\"\n",
        "key = \"user_id\"\nsession_host = \"b\"\n",
    );
    let mark = world.proxy.log_mark();
    std::fs::write(&world.file, text).unwrap();
    world.proxy.reload();
    world.proxy.wait_log(mark, &["session_host: a -> b"]);
    let end = locks.until(|_| false);
    assert!(end[0].contains("the session host is \"b\" now"), "{end:?}");
    assert_eq!(one(&mut holds, "FETCH c"), "3");
    wait_until("locks are taken on host b", || async {
        rows(
            world
                .raw()
                .query("SELECT pg_try_advisory_xact_lock(5), current_setting('port')"),
        ) == [format!("t|{}", hosts().await.clusters[1].port())]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_session_mode_connections_stay_and_come_back_clean() {
    let world = world(2, "pool_mode = \"session\"").await;
    let pids = |raw: &mut Raw| one(raw, "SELECT pg_backend_pid() FROM users WHERE id = 1");
    let mut first = world.raw();
    let pid = pids(&mut first);
    let mut second = world.raw();
    assert_ne!(pids(&mut second), pid);
    first.query("SET work_mem = '7MB'");
    first.query("CREATE TEMP TABLE t (x int)");
    assert_eq!(pids(&mut first), pid);
    assert_eq!(one(&mut first, "SELECT count(*) FROM t"), "0");
    drop(first);
    let mut third = world.raw();
    assert_eq!(pids(&mut third), pid, "it came back");
    assert_eq!(one(&mut third, "SHOW work_mem"), "4MB");
    assert_eq!(
        code(&third.query("SELECT count(*) FROM t")).as_deref(),
        Some("SR003")
    );
    third.query("CREATE TEMP TABLE t (x int)");
    assert_eq!(one(&mut third, "SELECT count(*) FROM t"), "0");
}

/// Its other server connections are closed, as they may be at it still; the one with the lock is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_outlives_a_failed_read_over_all_shards() {
    let world = world(3, "").await;
    let mut raw = world.raw();
    assert_eq!(one(&mut raw, "SELECT pg_try_advisory_lock(77)"), "t");
    world.wait_pinned(&["a: advisory locks"]).await;
    for sql in [
        "SELECT 1 / (id - 1) FROM users",
        "SELECT 1 / (id - 5) FROM users ORDER BY 1",
        "SELECT sum(1 / (id - 2)) FROM users",
    ] {
        assert_eq!(code(&raw.query(sql)).as_deref(), Some("22012"), "{sql}");
        raw.query("BEGIN");
        assert_eq!(code(&raw.query(sql)).as_deref(), Some("22012"), "{sql}");
        assert_eq!(code(&raw.query("SELECT 1")).as_deref(), Some("25P02"));
        raw.query("ROLLBACK");
        let batch = [p("", sql), b("", "", &[]), e("", 0), s()].concat();
        assert_eq!(code(&raw.ask(&batch, 1)).as_deref(), Some("22012"), "{sql}");
    }
    let mut other = world.raw();
    assert_eq!(one(&mut other, "SELECT pg_try_advisory_lock(77)"), "f");
    assert_eq!(one(&mut raw, "SELECT pg_advisory_unlock(77)"), "t");
}
