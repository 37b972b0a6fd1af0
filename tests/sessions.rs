//! Many sessions over few server connections: each sees its own settings, statements and transactions, whatever the others
//! do and however they end.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::raw::{b, cs, e, p, pbe, q, s};
use crate::support::{Hosts, Proxy, Raw, connect, wait_until};

/// Users 0..16 with a row each. Users of shards 0-3 are on host a, 4-7 on host b.
async fn hosts() -> &'static Hosts {
    static HOSTS: OnceCell<Hosts> = OnceCell::const_new();
    HOSTS
        .get_or_init(|| async {
            let hosts = Hosts::provisioned(2, 8).await;
            let proxy = Proxy::start(&hosts);
            let client = proxy.client().await;
            for user in 0..16 {
                client
                    .batch_execute(&format!(
                        "INSERT INTO users (id, name) VALUES ({user}, 'u{user}')"
                    ))
                    .await
                    .unwrap();
            }
            hosts
        })
        .await
}

/// A proxy over few connections.
async fn proxy_with(pool: u32, proxy: &str) -> (tempfile::TempDir, Proxy) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shardmap.toml");
    let text = hosts()
        .await
        .map_text(1, proxy)
        .replace("pool = 10", &format!("pool = {pool}"));
    std::fs::write(&file, text).unwrap();
    let proxy = Proxy::serve(&file, &[]);
    (dir, proxy)
}

type Values = BTreeMap<&'static str, String>;

const SETTINGS: [(&str, [&str; 3]); 5] = [
    ("TimeZone", ["Europe/Vienna", "Asia/Tokyo", "America/Lima"]),
    ("application_name", ["alpha", "beta", "gamma"]),
    ("statement_timeout", ["11s", "12s", "13s"]),
    ("search_path", ["pg_catalog", "nowhere", "elsewhere"]),
    ("DateStyle", ["SQL, DMY", "German, DMY", "ISO, YMD"]),
];

/// What a session's settings are by Postgres' rules.
#[derive(Clone)]
struct Model {
    startup: Values,
    session: Values,
    local: Values,
    block: Option<Values>,
    savepoints: Vec<(Values, Values)>,
    failed: bool,
}

impl Model {
    fn new(startup: Values) -> Model {
        Model {
            session: startup.clone(),
            startup,
            local: Values::new(),
            block: None,
            savepoints: Vec::new(),
            failed: false,
        }
    }

    fn effective(&self) -> Values {
        let mut all = self.session.clone();
        all.extend(self.local.clone());
        all
    }

    fn end(&mut self, commit: bool) {
        let before = self.block.take().unwrap();
        if !commit || self.failed {
            self.session = before;
        }
        self.local.clear();
        self.savepoints.clear();
        self.failed = false;
    }
}

/// One client that sets, rolls back, fails and leaves at random, and looks again and again whether its settings are its own.
struct Actor {
    name: usize,
    rng: StdRng,
    client: Client,
    model: Model,
    /// What was done, for when it goes wrong.
    story: Vec<String>,
}

impl Actor {
    async fn login(proxy: &Proxy, name: usize, rng: &mut StdRng) -> (Client, Model) {
        let mut config = proxy.config();
        let zone = SETTINGS[0].1.choose(rng).unwrap();
        config
            .application_name(format!("actor {name}"))
            .options(format!("-c TimeZone={zone} -c statement_timeout=20s"));
        let startup = [
            ("TimeZone", (*zone).to_owned()),
            ("application_name", format!("actor {name}")),
            ("statement_timeout", "20s".to_owned()),
            ("search_path", "\"$user\", public".to_owned()),
            ("DateStyle", "ISO, MDY".to_owned()),
        ];
        (connect(&config).await, Model::new(startup.into()))
    }

    async fn run(&mut self, sql: &str) -> Result<Vec<Vec<String>>, String> {
        self.story.push(sql.to_owned());
        let answer = if self.rng.random_bool(0.5) || sql.contains(';') {
            self.client.simple_query(sql).await.map(|messages| {
                let row = |m| match m {
                    SimpleQueryMessage::Row(r) => Some(
                        (0..r.len())
                            .map(|i| r.get(i).unwrap_or("NULL").to_owned())
                            .collect(),
                    ),
                    _ => None,
                };
                messages.into_iter().filter_map(row).collect()
            })
        } else {
            let rows = self.client.query(sql, &[]).await;
            rows.map(|rows| {
                rows.iter()
                    .map(|r| (0..r.len()).map(|i| r.get::<_, String>(i)).collect())
                    .collect()
            })
        };
        answer.map_err(|e| {
            e.code()
                .unwrap_or_else(|| panic!("{}: {e:?}\n{:#?}", self.name, self.story))
                .code()
                .to_owned()
        })
    }

    async fn must(&mut self, sql: &str) -> Vec<Vec<String>> {
        match self.run(sql).await {
            Ok(rows) => rows,
            Err(code) => panic!("actor {}: {code}\n{:#?}", self.name, self.story),
        }
    }

    async fn look(&mut self) {
        let user = self.rng.random_range(0..16);
        let list: Vec<_> = SETTINGS
            .iter()
            .map(|(name, _)| format!("current_setting('{name}')"))
            .collect();
        let sql = format!("SELECT {} FROM users WHERE id = {user}", list.join(", "));
        let found = self.must(&sql).await;
        let expected: Vec<String> = SETTINGS
            .iter()
            .map(|(name, _)| self.model.effective()[name].clone())
            .collect();
        assert_eq!(found, [expected], "actor {}\n{:#?}", self.name, self.story);
    }

    async fn act(&mut self, proxy: &Proxy) {
        let (setting, values) = *SETTINGS.choose(&mut self.rng).unwrap();
        let value = (*values.choose(&mut self.rng).unwrap()).to_owned();
        let in_block = self.model.block.is_some();
        if self.model.failed {
            assert_eq!(
                self.run("SELECT 'no'").await.unwrap_err(),
                "25P02",
                "{:#?}",
                self.story
            );
            if !self.model.savepoints.is_empty() && self.rng.random_bool(0.5) {
                return self.rollback_to().await;
            }
            let end = ["ROLLBACK", "COMMIT"].choose(&mut self.rng).unwrap();
            self.must(end).await;
            return self.model.end(false);
        }
        match self.rng.random_range(0..18) {
            0 | 1 => {
                let quoted = if setting == "DateStyle" { value.clone() } else { format!("'{value}'") };
                self.must(&format!("SET {setting} TO {quoted}")).await;
                self.model.session.insert(setting, value);
                self.model.local.remove(setting);
            }
            2 if in_block => {
                let quoted = if setting == "DateStyle" { value.clone() } else { format!("'{value}'") };
                self.must(&format!("SET LOCAL {setting} TO {quoted}")).await;
                self.model.local.insert(setting, value);
            }
            3 => {
                let local = in_block && self.rng.random_bool(0.5);
                self.must(&format!("SELECT set_config('{setting}', '{value}', {local})")).await;
                match local {
                    true => drop(self.model.local.insert(setting, value)),
                    false => {
                        self.model.session.insert(setting, value);
                        self.model.local.remove(setting);
                    }
                }
            }
            4 => {
                self.must(&format!("RESET {setting}")).await;
                self.model.session.insert(setting, self.model.startup[setting].clone());
                self.model.local.remove(setting);
            }
            5 if !in_block => {
                let all = ["RESET ALL", "DISCARD ALL"].choose(&mut self.rng).unwrap();
                self.must(all).await;
                self.model.session = self.model.startup.clone();
            }
            6 | 7 if !in_block => {
                self.must("BEGIN").await;
                self.model.block = Some(self.model.session.clone());
            }
            6 | 7 => {
                let commit = self.rng.random_bool(0.5);
                self.must(if commit { "COMMIT" } else { "ROLLBACK" }).await;
                self.model.end(commit);
            }
            8 if in_block => {
                self.must(&format!("SAVEPOINT s{}", self.model.savepoints.len())).await;
                self.model.savepoints.push((self.model.session.clone(), self.model.local.clone()));
            }
            9 if !self.model.savepoints.is_empty() => self.rollback_to().await,
            10 => {
                let user = self.rng.random_range(0..16);
                assert_eq!(self.run(&format!("SELECT (1 / (id - {user}))::text FROM users WHERE id = {user}")).await.unwrap_err(), "22012");
                self.model.failed = in_block;
            }
            11 => {
                assert_eq!(self.run(&format!("SET {setting} = ''''")).await.is_err(), ["statement_timeout", "TimeZone", "DateStyle"].contains(&setting));
                if ["statement_timeout", "TimeZone", "DateStyle"].contains(&setting) {
                    self.model.failed = in_block;
                } else {
                    // A quote is a name like others.
                    let shown = if setting == "search_path" { "\"'\"" } else { "'" };
                    self.model.session.insert(setting, shown.to_owned());
                    self.model.local.remove(setting);
                }
            }
            12 => drop(self.must("SELECT 'photos'::regclass::text || relname FROM pg_class WHERE relname = 'pg_class'").await),
            13 if !in_block => {
                // Undone with the rest of its message.
                assert_eq!(self.run(&format!("SET {setting} TO DEFAULT; SELECT (1/0)::text")).await.unwrap_err(), "22012");
            }
            14 if self.rng.random_bool(0.3) => {
                // It leaves in the middle of whatever it is doing.
                self.story.push("-- leaves".to_owned());
                (self.client, self.model) = Actor::login(proxy, self.name, &mut self.rng).await;
            }
            _ => self.look().await,
        }
    }

    async fn rollback_to(&mut self) {
        let at = self.rng.random_range(0..self.model.savepoints.len());
        self.must(&format!("ROLLBACK TO s{at}")).await;
        (self.model.session, self.model.local) = self.model.savepoints[at].clone();
        self.model.savepoints.truncate(at + 1);
        self.model.failed = false;
    }
}

async fn thirty_actors(proxy: &Proxy, seed: u64, acts: usize) {
    let actors = (0..30).map(|name| async move {
        let mut rng = StdRng::seed_from_u64(seed + name as u64);
        let (client, model) = Actor::login(proxy, name, &mut rng).await;
        let mut actor = Actor {
            name,
            rng,
            client,
            model,
            story: Vec::new(),
        };
        for _ in 0..acts {
            actor.act(proxy).await;
            // A block over both hosts, while others wait for a connection, must not last: there are but few.
            if actor.model.block.is_some() && actor.rng.random_bool(0.25) {
                actor.must("ROLLBACK").await;
                actor.model.end(false);
            }
        }
    });
    futures_util::future::join_all(actors).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_thirty_clients_over_few_connections_stay_their_own() {
    // Blocks that hold one host and want the other can wait for each other: more connections than that can take.
    let (_dir, proxy) = proxy_with(16, "").await;
    thirty_actors(&proxy, 42, 120).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_stay_their_own_over_two_event_loops() {
    let (_dir, proxy) = proxy_with(20, "workers = 2\n").await;
    thirty_actors(&proxy, 4242, 120).await;
}

/// Over two connections, outside blocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_connections_serve_thirty_clients() {
    let (_dir, proxy) = proxy_with(2, "").await;
    let clients = (0..30usize).map(|n| {
        let proxy = &proxy;
        async move {
            let mut config = proxy.config();
            config.application_name(format!("client {n}"));
            let client = connect(&config).await;
            let zone = SETTINGS[0].1[n % 3];
            client.batch_execute(&format!("SET TimeZone = '{zone}'")).await.unwrap();
            for round in 0..20i64 {
                let user = (n as i64 + round) % 16;
                let row = client
                    .query_one("SELECT current_setting('TimeZone'), current_setting('application_name'), name FROM users WHERE id = $1", &[&user])
                    .await
                    .unwrap();
                let found: [String; 3] = [row.get(0), row.get(1), row.get(2)];
                assert_eq!(found, [zone.to_owned(), format!("client {n}"), format!("u{user}")]);
                if round % 5 == 0 {
                    client.simple_query("SELECT 1/0 FROM users WHERE id = 3").await.unwrap_err();
                    client.batch_execute("BEGIN; SELECT name FROM users WHERE id = 6; ROLLBACK").await.unwrap();
                }
            }
        }
    });
    futures_util::future::join_all(clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_of_many_sessions_share_two_places_and_are_never_mixed_up() {
    let (_dir, proxy) = proxy_with(1, "[proxy.limits]\nstatement_cache_per_connection = 2\n").await;
    let sessions = (0..6usize).map(|n| {
        let addr = proxy.addr();
        tokio::task::spawn_blocking(move || {
            let mut raw = Raw::connect(addr);
            // All sessions use the same names for different statements.
            for k in 0..4 {
                let sql = format!("SELECT 's{n}k{k}', name FROM users WHERE id = $1");
                assert_eq!(
                    raw.ask(&[p(&format!("k{k}"), &sql), s()].concat(), 1),
                    ["1", "Z I"]
                );
            }
            let mut rng = StdRng::seed_from_u64(n as u64);
            for _ in 0..150 {
                let mut frames = Vec::new();
                let mut expected = Vec::new();
                let mut failed = false;
                let host = rng.random_range(0..2);
                for _ in 0..rng.random_range(1..5) {
                    // Of one host in a batch: with one connection to each, two batches that want both could wait for each other.
                    let (k, user) = (
                        rng.random_range(0..4),
                        8 * rng.random_range(0..2) + 4 * host + rng.random_range(0..4),
                    );
                    frames.extend([b("", &format!("k{k}"), &[&user.to_string()]), e("", 0)]);
                    if !failed {
                        expected.extend([
                            "2".to_owned(),
                            format!("D s{n}k{k}|u{user}"),
                            "C SELECT 1".to_owned(),
                        ]);
                    }
                    if rng.random_bool(0.1) {
                        let text = format!(
                            "SELECT 1 / (id - {user}) FROM users WHERE id = {user} AND {n} = {n}"
                        );
                        frames.push(pbe(&text, &[]));
                        if !failed {
                            expected.extend(["1", "2", "E"].map(str::to_owned));
                        }
                        failed = true;
                    }
                }
                frames.push(s());
                expected.push("Z I".to_owned());
                let mut answer = raw.ask(&frames.concat(), 1);
                for line in &mut answer {
                    if line.starts_with("E ") {
                        assert!(line.contains("C22012"), "{line}");
                        *line = "E".to_owned();
                    }
                }
                assert_eq!(answer, expected);
            }
        })
    });
    for session in futures_util::future::join_all(sessions).await {
        session.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_table_does_not_spoil_prepared_statements_for_good() {
    let hosts = Hosts::provisioned(1, 2).await;
    let proxy = Proxy::start(&hosts);
    let mut raw = Raw::connect(proxy.addr());
    raw.query("INSERT INTO users (id, name) VALUES (1, 'one')");
    let ask = |raw: &mut Raw| {
        raw.ask(
            &[pbe("SELECT * FROM users WHERE id = $1", &["1"]), s()].concat(),
            1,
        )
    };
    assert_eq!(ask(&mut raw).len(), 5);
    let direct = hosts.client(0).await;
    for shard in 0..2 {
        direct
            .batch_execute(&format!(
                "ALTER TABLE shard_000{shard}.users ADD COLUMN more int DEFAULT 7"
            ))
            .await
            .unwrap();
    }
    // To Postgres each Parse is new: an app that prepares nothing never hears of it.
    let answer = ask(&mut raw);
    assert!(answer.len() == 5 && answer[2].ends_with("|7"), "{answer:?}");
    // A statement that the client keeps is its own affair, as with Postgres; the next Parse is new.
    raw.ask(
        &[
            p("kept", "SELECT * FROM users WHERE id = 1"),
            b("", "kept", &[]),
            e("", 0),
            s(),
        ]
        .concat(),
        1,
    );
    direct.batch_execute("ALTER TABLE shard_0001.users DROP COLUMN more; ALTER TABLE shard_0000.users DROP COLUMN more").await.unwrap();
    let answer = raw.ask(
        &[
            pbe("SELECT * FROM users WHERE id = 1", &[]),
            pbe("SELECT 1 / (id - 1) FROM users WHERE id = 1", &[]),
            s(),
        ]
        .concat(),
        1,
    );
    assert!(
        answer.iter().any(|l| l.contains("C22012"))
            && !answer.iter().any(|l| l.contains("cached plan")),
        "{answer:?}"
    );
    assert_eq!(ask(&mut raw).len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_syncs_is_answered_all_the_same() {
    let (_dir, proxy) = proxy_with(2, "").await;
    let mut raw = Raw::connect(proxy.addr());
    let resident = |pid: u32| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let before = resident(proxy.pid());
    const N: usize = 300_000;
    let chunk = cs("x").repeat(1000);
    let mut answered = 0;
    for _ in 0..N / 1000 {
        raw.send(&chunk);
        if answered < N / 2 {
            // Replies that nobody asked for may wait, but not without bound.
            let lines = raw.until(|line| line == "3");
            answered += lines.len();
        }
    }
    raw.send(&s());
    let lines = raw.until_ready(1);
    assert_eq!(answered + lines.len(), N + 1);
    let grown = resident(proxy.pid()).saturating_sub(before);
    assert!(grown < 40_000, "it grew by {grown} kB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_statements_of_any_length_pass_through_a_gather() {
    let (_dir, proxy) = proxy_with(3, "").await;
    let mut raw = Raw::connect(proxy.addr());
    for _ in 0..3 {
        let answer = raw.query("SELECT repeat(name, 300000) FROM users");
        assert_eq!(answer.len(), 1 + 16 + 2);
        let long: usize = answer[1..17].iter().map(String::len).sum();
        assert_eq!(long, 16 * 2 + 300_000 * (10 * 2 + 6 * 3));
        let answer = raw.ask(
            &[
                pbe(
                    "SELECT repeat(name, 300000) FROM users WHERE $1 <> name",
                    &["x"],
                ),
                s(),
            ]
            .concat(),
            1,
        );
        assert_eq!(answer.len(), 2 + 16 + 2);
        // A client that leaves in the middle.
        let mut leaver = Raw::connect(proxy.addr());
        leaver.send(&q("SELECT repeat(name, 3000000) FROM users"));
        leaver.until(|line| line.starts_with("D "));
    }
    raw.assert_silent();
    let client = proxy.client().await;
    wait_until("the connections are free again", || async {
        tokio::time::timeout(
            Duration::from_secs(1),
            client.query("SELECT name FROM users WHERE id = 3", &[]),
        )
        .await
        .is_ok()
    })
    .await;
}
