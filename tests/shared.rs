//! Short reads of many clients over one server connection (`[proxy] shared_connections`): who shares, and that nobody notices.

mod effects;

use tokio::sync::{Mutex, MutexGuard, OnceCell};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::raw::{b, dp, e, frame, p, q, s};
use crate::support::{Hosts, Proxy, Raw, connect, wait_until};

/// Users 0..8, one in each shard: 0-3 on host a, 4-7 on host b.
async fn hosts() -> &'static Hosts {
    static HOSTS: OnceCell<Hosts> = OnceCell::const_new();
    HOSTS.get_or_init(Hosts::of_eight_users).await
}

/// So often is tried what only happens if answers come as fast as usual.
const ATTEMPTS: usize = 30;

/// Tests that hold tables would be in each other's way.
static ALONE: Mutex<()> = Mutex::const_new(());

struct World {
    _alone: MutexGuard<'static, ()>,
    proxy: Proxy,
    console: Client,
    file: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

/// What SHOW POOLS says of host a.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Counts {
    sv_active: u64,
    sv_shared: u64,
    shared: u64,
    displaced: u64,
}

async fn world(settings: &str) -> World {
    world_by(&hosts().await.map_text(1, settings)).await
}

async fn world_by(map: &str) -> World {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shardmap.toml");
    std::fs::write(&file, map).unwrap();
    let proxy = Proxy::serve(&file, &[]);
    let mut config = proxy.config();
    config.dbname("presplit");
    World {
        _alone,
        console: connect(&config).await,
        proxy,
        file,
        _dir: dir,
    }
}

/// One connection of each host is shared, and there already.
async fn warm() -> World {
    let world = world("shared_connections = 1").await;
    world.warm(&mut world.raw()).await;
    world
}

impl World {
    fn follow(&self, map: &str) {
        std::fs::write(self.file.with_extension("new"), map).unwrap();
        std::fs::rename(self.file.with_extension("new"), &self.file).unwrap();
    }

    fn raw(&self) -> Raw {
        Raw::connect(self.proxy.addr())
    }

    async fn counts(&self) -> Counts {
        let rows = self.console.simple_query("SHOW POOLS").await.unwrap();
        let row = rows.iter().find_map(|row| match row {
            SimpleQueryMessage::Row(row) if row.get("host") == Some("a") => Some(row),
            _ => None,
        });
        let count = |name| row.unwrap().get(name).unwrap().parse().unwrap();
        Counts {
            sv_active: count("sv_active"),
            sv_shared: count("sv_shared"),
            shared: count("shared"),
            displaced: count("displaced"),
        }
    }

    /// Reads until reads are shared.
    async fn warm(&self, raw: &mut Raw) {
        let raw = std::sync::Mutex::new(raw);
        wait_until("short reads are shared", || async {
            let before = self.counts().await.shared;
            assert_eq!(name_of(&mut raw.lock().unwrap(), 0), "u0");
            self.counts().await.shared > before
        })
        .await;
    }

    /// Whether this went over a shared connection.
    async fn is_shared(&self, raw: &mut Raw, messages: &[u8]) -> bool {
        let before = self.counts().await;
        let answer = raw.ask(messages, 1);
        assert!(
            !answer.iter().any(|line| line.starts_with('E')),
            "{answer:?}"
        );
        let after = self.counts().await;
        assert_eq!(after.displaced, before.displaced);
        after.shared > before.shared
    }
}

fn by_query(user: u32) -> Vec<u8> {
    q(&format!("SELECT name FROM users WHERE id = {user}"))
}

/// A prepared statement of one parameter, run.
fn run(statement: &str, user: &str) -> Vec<u8> {
    [b("", statement, &[user]), dp(""), e("", 0), s()].concat()
}

fn by_name(user: u32) -> Vec<u8> {
    run("st", &user.to_string())
}

fn unnamed(user: u32) -> Vec<u8> {
    let parse = p("", "SELECT name FROM users WHERE id = $1");
    [parse, run("", &user.to_string())].concat()
}

/// The one row of an answer.
fn row(answer: &[String]) -> String {
    let rows: Vec<&String> = answer
        .iter()
        .filter(|line| line.starts_with("D "))
        .collect();
    assert_eq!(rows.len(), 1, "{answer:?}");
    rows[0][2..].to_owned()
}

fn name_of(raw: &mut Raw, user: u32) -> String {
    row(&raw.ask(&by_query(user), 1))
        .trim_matches(['[', ']', '"'])
        .to_owned()
}

fn prepare(raw: &mut Raw) {
    let parse = [p("st", "SELECT name FROM users WHERE id = $1"), s()].concat();
    raw.ask(&parse, 1);
}

/// Holds a table of a user's shard, so that whoever reads it waits.
struct Held(Client);

async fn hold(user: u32) -> Held {
    let client = hosts().await.client((user / 4) as usize).await;
    let lock = format!("BEGIN; LOCK TABLE shard_{user:04}.users IN ACCESS EXCLUSIVE MODE");
    client.batch_execute(&lock).await.unwrap();
    Held(client)
}

impl Held {
    /// Waits until so many wait for it, and tells their processes.
    async fn waiters(&self, count: usize) -> Vec<i32> {
        let waiting = "SELECT pid FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid)) ORDER BY pid";
        wait_until(&format!("{count} wait for the lock"), || async {
            self.0.query(waiting, &[]).await.unwrap().len() == count
        })
        .await;
        let rows = self.0.query(waiting, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn end(self) {
        self.0.batch_execute("COMMIT").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_clients_gets_its_own_rows_over_one_connection() {
    let world = warm().await;
    let before = world.counts().await;
    let mut after = before;
    for attempt in 0..ATTEMPTS {
        // A statement that was slow once is not shared for a while: each attempt has its own.
        let sql = |user: &str| format!("SELECT name AS n{attempt} FROM users WHERE id = {user}");
        std::thread::scope(|scope| {
            for client in 0..24 {
                let world = &world;
                scope.spawn(move || {
                    let mut raw = world.raw();
                    raw.ask(&[p("st", &sql("$1")), s()].concat(), 1);
                    for n in 0..100 {
                        let user = ((client + n) % 8).to_string();
                        let messages = match n % 3 {
                            0 => q(&sql(&user)),
                            1 => run("st", &user),
                            _ => [p("", &sql("$1")), run("", &user)].concat(),
                        };
                        assert!(row(&raw.ask(&messages, 1)).contains(&format!("u{user}")));
                    }
                });
            }
        });
        after = world.counts().await;
        if after.shared - before.shared > 100 {
            break;
        }
    }
    assert_eq!(after.sv_shared, 1);
    assert!(after.shared - before.shared > 100, "{before:?} {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_reads_that_have_no_effect_are_shared() {
    let world = warm().await;
    let mut raw = world.raw();
    prepare(&mut raw);
    for user in [1, 2] {
        raw.ask(&unnamed(user), 1);
    }
    for messages in [
        by_query(1),
        by_name(2),
        unnamed(3),
        q("SELECT count(*) FROM photos WHERE user_id = 1"),
    ] {
        assert!(world.is_shared(&mut raw, &messages).await);
    }
    for sql in [
        "UPDATE users SET name = name WHERE id = 1",
        "SELECT name FROM users WHERE id = 1 FOR UPDATE",
        "SELECT pg_sleep(0) FROM users WHERE id = 1",
        "SELECT pg_advisory_xact_lock(7) FROM users WHERE id = 1",
        "SELECT random() FROM users WHERE id = 1",
        "SELECT name FROM users WHERE id = 1; SELECT name FROM users WHERE id = 1",
        "EXPLAIN SELECT name FROM users WHERE id = 1",
        "SELECT count(*) FROM users",
        "SELECT 1",
        "BEGIN; SELECT name FROM users WHERE id = 1; COMMIT",
        "COPY (SELECT name FROM users WHERE id = 1) TO STDOUT",
    ] {
        assert!(!world.is_shared(&mut raw, &q(sql)).await, "{sql}");
    }
    for messages in [
        [b("", "st", &["1"]), e("", 1), s()].concat(),
        [b("portal", "st", &["1"]), e("portal", 0), s()].concat(),
        [
            b("", "st", &["1"]),
            e("", 0),
            b("", "st", &["1"]),
            e("", 0),
            s(),
        ]
        .concat(),
        [b("", "st", &["1"]), e("", 0), e("", 0), s()].concat(),
        [b("", "st", &["1"]), s()].concat(),
    ] {
        assert!(!world.is_shared(&mut raw, &messages).await);
    }
    // Message by message, as some drivers send them.
    let before = world.counts().await.shared;
    for part in [
        b("", "st", &["1"]),
        frame(b'H', &[]),
        e("", 0),
        frame(b'H', &[]),
    ] {
        raw.send(&part);
    }
    assert!(row(&raw.ask(&s(), 1)).contains("u1"));
    assert_eq!(world.counts().await.shared, before);
    raw.query("BEGIN");
    assert!(!world.is_shared(&mut raw, &by_query(1)).await);
    raw.query("COMMIT");
    assert!(world.is_shared(&mut raw, &by_query(1)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_wait_behind_a_slow_statement_is_run_elsewhere() {
    let world = warm().await;
    let (mut slow, mut others) = (world.raw(), [world.raw(), world.raw(), world.raw()]);
    for raw in &mut others {
        prepare(raw);
        for user in [0, 2, 3] {
            raw.ask(&[by_name(user), unnamed(user)].concat(), 2);
        }
    }
    let users = [0, 2, 3];
    for (kind, messages) in [by_query, by_name, unnamed].into_iter().enumerate() {
        // Where answers have lately come slowly, on a busy machine, nobody gets in line.
        for attempt in 0.. {
            assert!(attempt < ATTEMPTS, "nobody has waited behind it");
            world.warm(&mut others[0]).await;
            let held = hold(1).await;
            let before = world.counts().await;
            // Another text each time: of one that was slow no others wait any more.
            slow.send(&q(&format!(
                "SELECT name AS n{kind}_{attempt} FROM users WHERE id = 1"
            )));
            held.waiters(1).await;
            for (raw, user) in others.iter_mut().zip(users) {
                raw.send(&messages(user));
            }
            for (raw, user) in others.iter_mut().zip(users) {
                assert!(row(&raw.until_ready(1)).contains(&format!("u{user}")));
            }
            let after = world.counts().await;
            // And those that come later do not wait either.
            assert_eq!(name_of(&mut others[1], 2), "u2");
            held.end().await;
            assert!(row(&slow.until_ready(1)).contains("u1"));
            for (raw, user) in others.iter_mut().zip(users) {
                assert!(row(&raw.ask(&messages(user), 1)).contains(&format!("u{user}")));
            }
            if after.displaced > before.displaced {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_was_slow_goes_over_a_connection_of_its_own() {
    let world = warm().await;
    let (mut slow, mut other) = (world.raw(), world.raw());
    let text = q("SELECT name FROM users WHERE id = 1 AND name <> 'slow'");
    assert!(world.is_shared(&mut slow, &text).await);
    let before = world.counts().await.displaced;
    for attempt in 0.. {
        assert!(attempt < ATTEMPTS, "nobody has waited behind it");
        let held = hold(1).await;
        slow.send(&text);
        held.waiters(1).await;
        assert_eq!(name_of(&mut other, 2), "u2");
        held.end().await;
        assert!(row(&slow.until_ready(1)).contains("u1"));
        if world.counts().await.displaced > before {
            break;
        }
    }
    assert!(!world.is_shared(&mut slow, &text).await);
    assert!(world.is_shared(&mut slow, &by_query(1)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_long_is_not_shared_for_long() {
    let world = warm().await;
    let mut raw = world.raw();
    let text = q("SELECT count(*) FROM users, generate_series(1, 500000) WHERE id = 1");
    let mut shared = 0;
    for _ in 0..10 {
        shared += usize::from(world.is_shared(&mut raw, &text).await);
    }
    assert!((1..=5).contains(&shared), "{shared}");
    assert!(world.is_shared(&mut raw, &by_query(1)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_the_statement_that_it_is_for() {
    let world = warm().await;
    let (mut mine, mut other) = (world.proxy.client().await, world.raw());
    let mut reads = 0;
    // The session's own settings may be others than those of the connection that is there.
    while world.counts().await.shared < 20 && reads < 100 {
        mine.simple_query("SELECT name FROM users WHERE id = 0")
            .await
            .unwrap();
        reads += 1;
    }
    let held = hold(1).await;
    let token = mine.cancel_token();
    let waits = tokio::spawn(async move {
        let done = mine
            .simple_query("SELECT name FROM users WHERE id = 1")
            .await;
        (mine, done)
    });
    held.waiters(1).await;
    other.send(&by_query(1));
    held.waiters(2).await;
    token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    let fault;
    (mine, fault) = waits.await.unwrap();
    assert_eq!(fault.unwrap_err().code().unwrap().code(), "57014");
    held.waiters(1).await;
    held.end().await;
    assert!(row(&other.until_ready(1)).contains("u1"));
    mine.simple_query("SELECT name FROM users WHERE id = 1")
        .await
        .unwrap();
    world.warm(&mut other).await;
    assert_eq!(world.counts().await.sv_shared, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_server_process_ends_nobody_else_notices() {
    let world = warm().await;
    let (mut mine, mut other) = (world.raw(), world.raw());
    let held = hold(1).await;
    mine.send(&by_query(1));
    let process = held.waiters(1).await[0];
    other.send(&by_query(2));
    let end = format!("SELECT pg_terminate_backend({process})");
    held.0.batch_execute(&end).await.unwrap();
    assert!(row(&other.until_ready(1)).contains("u2"));
    let told = mine.until_ready(1);
    assert!(told[0].contains("57P01"), "{told:?}");
    held.end().await;
    assert_eq!(name_of(&mut mine, 1), "u1");
    world.warm(&mut other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_nothing_with_it() {
    let world = warm().await;
    let mut other = world.raw();
    for n in 0..3 {
        let mut mine = world.raw();
        world.warm(&mut mine).await;
        let held = hold(1).await;
        mine.send(&q(&format!("SELECT name AS n{n} FROM users WHERE id = 1")));
        held.waiters(1).await;
        other.send(&by_query(2));
        drop(mine);
        assert!(row(&other.until_ready(1)).contains("u2"));
        held.end().await;
        world.warm(&mut other).await;
    }
    wait_until("one connection is in use, the shared one", || async {
        let counts = world.counts().await;
        (counts.sv_active, counts.sv_shared) == (1, 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_nobody_up() {
    let world = warm().await;
    let (mut mine, mut other) = (world.raw(), world.raw());
    let much = "SELECT name, repeat('x', 50000000) FROM users WHERE id = 1";
    let before = world.counts().await.shared;
    mine.send(&q(much));
    for _ in 0..20 {
        assert_eq!(name_of(&mut other, 2), "u2");
    }
    let answer = mine.until_ready(1);
    assert!(answer[1].len() > 50_000_000);
    assert!(world.counts().await.shared > before);
    assert_eq!(name_of(&mut mine, 1), "u1");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_with_other_settings_do_not_share() {
    let world = world("shared_connections = 2").await;
    let zones = ["UTC", "Europe/Vienna", "Asia/Tokyo", "America/Lima"];
    std::thread::scope(|scope| {
        for zone in zones {
            let world = &world;
            scope.spawn(move || {
                let mut raw = Raw::with(world.proxy.addr(), &[("TimeZone", zone)]);
                let mut zone = zone;
                for n in 0..200 {
                    if n % 50 == 49 {
                        zone = zones[n / 50];
                        raw.query(&format!("SET TimeZone = '{zone}'"));
                    }
                    let asked = q("SELECT name, '2026-11-22 12:00:00Z'::timestamptz::text FROM users WHERE id = 1");
                    let hour = match zone {
                        "UTC" => "12:00:00+00",
                        "Europe/Vienna" => "13:00:00+01",
                        "Asia/Tokyo" => "21:00:00+09",
                        _ => "07:00:00-05",
                    };
                    let row = row(&raw.ask(&asked, 1));
                    assert!(row.contains(hour), "{n} {zone}: {row}");
                }
            });
        }
    });
    let counts = world.counts().await;
    assert!(counts.sv_shared <= 2 && counts.shared > 0, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_connection_is_nobodys_and_a_map_may_end_sharing() {
    let world = world("shared_connections = 64\n[proxy.timeouts]\ncheckout_wait = \"20s\"").await;
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let mut raw = world.raw();
                for n in 0..60 {
                    assert_eq!(name_of(&mut raw, n % 4), format!("u{}", n % 4));
                    raw.query("UPDATE users SET name = name WHERE id = 3");
                }
            });
        }
    });
    let counts = world.counts().await;
    assert!((1..10).contains(&counts.sv_shared), "{counts:?}");
    world.follow(&hosts().await.map_text(2, "shared_connections = 0"));
    wait_until("nothing is shared any more", || async {
        world.counts().await.sv_shared == 0
    })
    .await;
    let before = world.counts().await.shared;
    assert_eq!(name_of(&mut world.raw(), 1), "u1");
    assert_eq!(world.counts().await.shared, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_connection_keeps_no_more_statements_than_another() {
    let hosts = Hosts::provisioned(1, 1).await;
    let view = "
        SET search_path = shard_0000, public;
        INSERT INTO users (id, name) VALUES (0, 'u0');
        CREATE VIEW held AS SELECT id, name, (SELECT count(*) FROM pg_prepared_statements) AS n FROM users;";
    hosts.client(0).await.batch_execute(view).await.unwrap();
    let settings = "shared_connections = 1\n[proxy.limits]\nstatement_cache_per_connection = 8";
    let world = world_by(&hosts.map_text(1, settings)).await;
    world.warm(&mut world.raw()).await;
    let mut held = None;
    for attempt in 0..ATTEMPTS {
        let before = world.counts().await.shared;
        std::thread::scope(|scope| {
            for client in 0..12 {
                let world = &world;
                scope.spawn(move || {
                    let mut raw = world.raw();
                    for n in 0..100 {
                        let n = (client + n) % 20;
                        let sql = format!("SELECT name AS n{attempt}_{n} FROM users WHERE id = $1");
                        let answer = raw.ask(&[p("", &sql), run("", "0")].concat(), 1);
                        assert!(row(&answer).contains("u0"));
                    }
                });
            }
        });
        let many = world.counts().await.shared - before > 100;
        let mut raw = world.raw();
        let before = world.counts().await.shared;
        let answer = raw.ask(&q("SELECT n FROM held WHERE id = 0"), 1);
        if many && world.counts().await.shared > before {
            held = row(&answer)
                .trim_matches(['[', ']', '"'])
                .parse::<u32>()
                .ok();
            break;
        }
    }
    // Eight, and one each for the other seats.
    assert!(matches!(held, Some(8..=19)), "{held:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_connection_that_others_could_share() {
    let settings = "shared_connections = 1\n[proxy.timeouts]\ncheckout_wait = \"5s\"";
    let map = hosts().await.map_text(1, settings);
    let map = map.replace("pool = 10", "pool = 2");
    let world = world_by(&map).await;
    // What is free goes to whoever asks, before it is shared.
    let (mut holder, mut other) = (world.raw(), world.raw());
    for sql in ["BEGIN", "SELECT name FROM users WHERE id = 0"] {
        holder.query(sql);
    }
    assert_eq!(name_of(&mut other, 1), "u1");
    holder.query("COMMIT");
    // And what is shared and not used makes room.
    world.warm(&mut other).await;
    for sql in ["BEGIN", "SELECT name FROM users WHERE id = 0"] {
        holder.query(sql);
    }
    let done = other.query("UPDATE users SET name = name WHERE id = 1");
    assert_eq!(done, ["C UPDATE 1", "Z I"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_are_shared_where_the_pool_is_made_smaller() {
    let world = world("shared_connections = 8").await;
    wait_until("several are shared", || async {
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    let mut raw = world.raw();
                    (0..30).for_each(|n| drop(name_of(&mut raw, n % 4)));
                });
            }
        });
        world.counts().await.sv_shared > 2
    })
    .await;
    let settings = "shared_connections = 8\n[proxy.timeouts]\ncheckout_wait = \"5s\"";
    let map = hosts().await.map_text(2, settings);
    world.follow(&map.replace("pool = 10", "pool = 2"));
    wait_until("one is shared", || async {
        world.counts().await.sv_shared <= 1
    })
    .await;
    let done = world
        .raw()
        .query("UPDATE users SET name = name WHERE id = 1");
    assert_eq!(done, ["C UPDATE 1", "Z I"]);
}
