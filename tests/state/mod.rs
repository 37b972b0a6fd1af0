//! Many clients with all kinds of settings over four server connections: each sees its own, and nothing but its own.
//!
//! What a client must see is what Postgres itself shows: each client has a twin, a connection of its own to a plain Postgres,
//! which is sent the same bytes. Every answer is compared message by message, changed parameters (ParameterStatus) included.
//! One thread conducts all clients, so that a seed says exactly what happens in which order.
//!
//! What is known to be different, and is not asked:
//! * A setting of the app's own (`myapp.uid`) that a session has never set is NULL on a fresh connection of Postgres, and the
//!   empty string on one that had it set once. Postgres can't be made to forget such a name.
//! * SET LOCAL in a message of several statements needs BEGIN in front of it; and `default_transaction_read_only` and the
//!   like hold for the statements behind their SET in the same message, for Postgres from the next message on.
//! * `set_config(name, NULL, ...)` of what was set at startup is refused.

mod packets;
mod statements;

use std::collections::VecDeque;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::support::raw::{b, e, p, q, s};
use crate::support::{Cluster, Hosts, Proxy, Raw};
use statements::Talk;

/// What the twin has in public, a host in its shards.
const TWIN: &str = "CREATE TABLE users (id bigint PRIMARY KEY, name text);
    INSERT INTO users SELECT n, 'u' || n FROM generate_series(0, 15) n;";

/// On the twin and on every host.
const EVERYWHERE: &str = "CREATE ROLE state_1; CREATE ROLE state_2;
    CREATE SCHEMA s1; CREATE SCHEMA s2;
    CREATE FUNCTION public.who() RETURNS text LANGUAGE sql AS $$SELECT 'public'$$;
    CREATE FUNCTION s1.who() RETURNS text LANGUAGE sql AS $$SELECT 's1'$$;
    CREATE FUNCTION s2.who() RETURNS text LANGUAGE sql AS $$SELECT 's2'$$;
    DO $$ DECLARE s text; BEGIN
        FOR s IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' LOOP
            EXECUTE format('GRANT USAGE ON SCHEMA %I TO PUBLIC', s);
            EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO PUBLIC', s);
        END LOOP;
    END $$;";

/// Hosts and the Postgres that says what is right.
struct World {
    hosts: Hosts,
    twin: Cluster,
}

impl World {
    async fn new(hosts: usize) -> World {
        let hosts = Hosts::provisioned(hosts, 4).await;
        let twin = Cluster::with(&["max_connections=300"]);
        {
            let proxy = Proxy::start(&hosts);
            let client = proxy.client().await;
            for user in 0..16 {
                let insert = format!("INSERT INTO users (id, name) VALUES ({user}, 'u{user}')");
                client.batch_execute(&insert).await.unwrap();
            }
        }
        for i in 0..hosts.clusters.len() {
            hosts
                .client(i)
                .await
                .batch_execute(EVERYWHERE)
                .await
                .unwrap();
        }
        let client = twin.client().await;
        client.batch_execute(TWIN).await.unwrap();
        client.batch_execute(EVERYWHERE).await.unwrap();
        World { hosts, twin }
    }

    /// A proxy over four server connections.
    fn proxy(&self) -> Proxy {
        let pool = 4 / self.hosts.clusters.len();
        let map = self.hosts.map_text(1, "");
        self.hosts
            .write_map(&map.replace("pool = 10", &format!("pool = {pool}")));
        Proxy::start(&self.hosts)
    }
}

/// A client and its twin.
struct Pair {
    ours: Raw,
    twin: Raw,
    talk: Talk,
    /// The transaction status after the last answer.
    status: char,
    story: VecDeque<String>,
}

/// How many steps of a client are told when it goes wrong.
const STORY: usize = 60;

struct Conductor<'w> {
    world: &'w World,
    proxy: &'w Proxy,
    rng: StdRng,
    pairs: Vec<Pair>,
    /// The latest steps of all.
    latest: VecDeque<String>,
    checks: usize,
    /// How many may be in a block at once.
    blocks: usize,
    logins: usize,
}

impl Conductor<'_> {
    fn login(&mut self, n: usize) -> Pair {
        self.logins += 1;
        let startup = statements::startup(&mut self.rng, n);
        let params: Vec<(&str, &str)> = startup.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let port = self.world.twin.port();
        let mut ours = Raw::with(self.proxy.addr(), &params);
        let mut twin = Raw::with(([127, 0, 0, 1], port).into(), &params);
        let told = |raw: &Raw| {
            let mut told = raw.parameters.clone();
            told.sort();
            told
        };
        assert_eq!(told(&ours), told(&twin), "client {n} at login: {startup:?}");
        (ours.show_parameters, twin.show_parameters) = (true, true);
        Pair {
            ours,
            twin,
            talk: Talk::default(),
            status: 'I',
            story: VecDeque::from([format!("login {startup:?}")]),
        }
    }

    fn run(&mut self, clients: usize, checks: usize) {
        for n in 0..clients {
            self.latest.push_back(format!("{n}: comes"));
            let pair = self.login(n);
            self.pairs.push(pair);
        }
        while self.checks < checks {
            self.step();
        }
        // Whatever has gone on: nobody sees anything of anybody else in the end.
        for n in 0..clients {
            if self.pairs[n].status != 'I' {
                self.ask(n, &[("ROLLBACK", q("ROLLBACK"))]);
            }
            self.look(n);
        }
    }

    fn step(&mut self) {
        let open: Vec<usize> = (0..self.pairs.len())
            .filter(|n| self.pairs[*n].status != 'I')
            .collect();
        // Blocks must not last: others wait for their server connections.
        let n = match open.len() >= self.blocks || !open.is_empty() && self.rng.random_bool(0.4) {
            true if self.rng.random_bool(0.7) => *open.choose(&mut self.rng).unwrap(),
            _ => self.rng.random_range(0..self.pairs.len()),
        };
        let may_begin = open.len() < self.blocks;
        match self.rng.random_range(0..100) {
            0 => self.leave(n),
            1..=40 => self.look(n),
            _ => self.talk(n, may_begin),
        }
    }

    /// One client looks at its settings.
    fn look(&mut self, n: usize) {
        let sql = statements::look(&mut self.rng);
        let messages = self.in_some_protocol(n, &sql);
        self.ask(n, &messages);
        self.checks += 1;
    }

    fn talk(&mut self, n: usize, may_begin: bool) {
        let pair = &mut self.pairs[n];
        let several = self.world.hosts.clusters.len() > 1;
        let said = pair
            .talk
            .next(&mut self.rng, pair.status, may_begin, several);
        let messages = match said {
            statements::Said::Sql(sql) => self.in_some_protocol(n, &sql),
            statements::Said::Query(sql) => vec![("", q(&sql))]
                .into_iter()
                .map(|(_, m)| (sql.clone(), m))
                .map(|(sql, m)| (sql.leak() as &str, m))
                .collect(),
            statements::Said::Batch(statements) => self.batch(n, &statements),
            statements::Said::Frames(what, frames) => vec![(what.leak() as &str, frames)],
        };
        self.ask(n, &messages);
    }

    /// One statement in the simple or the extended protocol, alone, or behind or in front of others.
    fn in_some_protocol(&mut self, n: usize, sql: &str) -> Vec<(&'static str, Vec<u8>)> {
        match self.rng.random_range(0..4) {
            0 | 1 => vec![(sql.to_owned().leak(), q(sql))],
            2 => {
                let name = ["", "named"].choose(&mut self.rng).unwrap();
                let close = match *name {
                    "" => Vec::new(),
                    name => crate::support::raw::cs(name),
                };
                let frames = [close, p(name, sql), b("", name, &[]), e("", 0), s()].concat();
                vec![(format!("PBE {name} {sql}").leak(), frames)]
            }
            _ => self.batch(n, &[sql.to_owned()]),
        }
    }

    /// A pipeline, perhaps with other statements in it.
    fn batch(&mut self, _n: usize, sqls: &[String]) -> Vec<(&'static str, Vec<u8>)> {
        let mut all = sqls.to_vec();
        if self.rng.random_bool(0.4) {
            let more = statements::look(&mut self.rng);
            let at = self.rng.random_range(0..=all.len());
            all.insert(at, more);
        }
        let mut frames = Vec::new();
        for sql in &all {
            frames.extend([p("", sql), b("", "", &[]), e("", 0)].concat());
        }
        frames.extend(s());
        vec![(format!("pipeline {all:?}").leak(), frames)]
    }

    /// Both are sent these messages, each with one ReadyForQuery as its answer.
    fn ask(&mut self, n: usize, messages: &[(&str, Vec<u8>)]) {
        for (what, message) in messages {
            let pair = &mut self.pairs[n];
            pair.ours.send(message);
            pair.twin.send(message);
            pair.story.push_back((*what).to_owned());
            self.latest.push_back(format!("{n}: {what}"));
            if pair.story.len() > STORY {
                pair.story.pop_front();
            }
            if self.latest.len() > STORY {
                self.latest.pop_front();
            }
            let right = essence(pair.twin.until_ready(1));
            let got = essence(pair.ours.until_ready(1));
            if got != right {
                panic!(
                    "client {n} after {} checks\n got: {got:#?}\nright: {right:#?}\n{what}\nits story: {:#?}",
                    self.checks, pair.story
                );
            }
            pair.status = right.last().and_then(|z| z.chars().last()).unwrap();
        }
    }

    /// It goes in the middle of whatever it is doing, and another comes.
    fn leave(&mut self, n: usize) {
        let (_, middle) = last_words().choose(&mut self.rng).unwrap().clone();
        self.pairs[n].ours.send(&middle);
        let middle = String::from_utf8_lossy(&middle).into_owned();
        self.latest.push_back(format!(
            "{n}: leaves in {:?} {middle:?}",
            self.pairs[n].status
        ));
        // What it has is needed for the login of the next.
        drop(self.pairs.remove(n));
        let next = self.login(n);
        self.pairs.insert(n, next);
    }
}

impl Drop for Conductor<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("what was said last: {:#?}", self.latest);
            let mut console = Raw::with(self.proxy.addr(), &[("database", "presplit")]);
            for show in ["SHOW CLIENTS", "SHOW POOLS"] {
                println!("{:#?}", console.query(show));
            }
            for cluster in &self.world.hosts.clusters {
                let mut host = Raw::connect(cluster.addr());
                println!("{:#?}", host.query("SELECT pid, state, query FROM pg_stat_activity WHERE backend_type = 'client backend'"));
            }
        }
    }
}

/// Errors by code, as their words may name a host; what says that the twin is another server. Parameters that change together are
/// told in the order in which the server happens to have them on its list (guc.c, `guc_report_list`).
fn essence(answer: Vec<String>) -> Vec<String> {
    let code = |line: String| match line.starts_with("E ") || line.starts_with("N ") {
        true => {
            let fields = line.split(" | ").filter(|f| f.starts_with('C'));
            format!("{} {}", &line[..1], fields.collect::<Vec<_>>().join(" "))
        }
        false => line,
    };
    let mut answer: Vec<String> = answer.into_iter().map(code).collect();
    for told in answer.chunk_by_mut(|a, b| a.starts_with("S ") && b.starts_with("S ")) {
        told.sort();
    }
    answer
}

async fn conduct(hosts: usize, clients: usize, checks: usize, seed: u64) {
    let world = World::new(hosts).await;
    let proxy = world.proxy();
    let began = Instant::now();
    tokio::task::block_in_place(|| {
        let mut conductor = Conductor {
            world: &world,
            proxy: &proxy,
            rng: StdRng::seed_from_u64(seed),
            pairs: Vec::new(),
            latest: VecDeque::new(),
            checks: 0,
            blocks: if hosts == 1 { 3 } else { 1 },
            logins: 0,
        };
        conductor.run(clients, checks);
        println!(
            "{clients} clients ({} logins) over {hosts} hosts, seed {seed}: {} checks, no leak, {:.0?}",
            conductor.logins,
            conductor.checks,
            began.elapsed()
        );
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_clients_over_four_connections_of_one_host_see_their_own() {
    conduct(1, 40, 1500, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_clients_over_four_connections_of_two_hosts_see_their_own() {
    conduct(2, 40, 1500, 2).await;
}

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |n| n.parse().unwrap())
}

/// `make state`; with `STATE_HOSTS=2` the second half alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn two_hundred_clients_see_their_own() {
    let checks = number("STATE_CHECKS", 100_000) as usize;
    let seed = number("STATE_SEED", 1);
    let only = number("STATE_HOSTS", 0);
    for hosts in [1, 2].into_iter().filter(|n| only == 0 || *n == only) {
        conduct(hosts as usize, 200, checks / 2, seed + hosts - 1).await;
    }
}

/// A statement of one client runs into its own limit, not into another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_runs_into_its_own_limit_only() {
    let world = World::new(1).await;
    let proxy = world.proxy();
    tokio::task::block_in_place(|| {
        let addr = proxy.addr();
        let short = || Raw::with(addr, &[("options", "-c statement_timeout=300ms")]);
        let mut hasty: Vec<Raw> = (0..4).map(|_| short()).collect();
        let mut patient: Vec<Raw> = (0..4).map(|_| Raw::connect(addr)).collect();
        for round in 0..2 {
            for raw in &mut hasty {
                raw.send(&q("SELECT pg_sleep(30)"));
            }
            for raw in &mut hasty {
                let answer = raw.until_ready(1);
                assert!(answer.iter().any(|l| l.contains("C57014")), "{answer:?}");
            }
            // On the very same server connections.
            for raw in &mut patient {
                raw.send(&match round {
                    0 => q("SELECT pg_sleep(0.6)"),
                    _ => [p("", "SELECT pg_sleep(0.6)"), b("", "", &[]), e("", 0), s()].concat(),
                });
            }
            for raw in &mut patient {
                let answer = raw.until_ready(1);
                assert!(!answer.iter().any(|l| l.starts_with('E')), "{answer:?}");
            }
        }
    });
}

/// What a client sends before it goes, whatever answer it leaves unread.
fn last_words() -> Vec<(&'static str, Vec<u8>)> {
    let pbe = |sql: &str| [p("", sql), b("", "", &[]), e("", 0)].concat();
    vec![
        ("a SET without Sync", pbe("SET TimeZone TO 'Asia/Kolkata'")),
        (
            "SET in a message of several",
            q("SET application_name TO 'gone'; SELECT pg_sleep(0.01)"),
        ),
        (
            "the beginning of a block",
            [pbe("BEGIN"), p("", "SET work_mem TO '3MB'")].concat(),
        ),
        (
            "SET LOCAL in a batch",
            [pbe("SET LOCAL TimeZone TO 'Asia/Kolkata'"), pbe("SELECT 1")].concat(),
        ),
        (
            "DDL in a block",
            q("BEGIN; SET LOCAL work_mem TO '3MB'; SET application_name TO 'gone'"),
        ),
        ("nothing", Vec::new()),
    ]
}

/// Nothing of a client that goes in the middle stays, and its server connections are free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_leaves_nothing_behind() {
    let world = World::new(1).await;
    let proxy = world.proxy();
    tokio::task::block_in_place(|| {
        let shown = "SELECT current_setting('TimeZone'), current_setting('work_mem'), current_setting('application_name')";
        let right = Raw::connect(proxy.addr()).query(shown);
        for (what, words) in last_words() {
            // More often than there are server connections.
            for begin in [false, true, false, true, false] {
                let mut raw = Raw::with(proxy.addr(), &[("application_name", "it")]);
                if begin {
                    raw.query("BEGIN");
                    raw.query("SELECT name FROM users WHERE id = 1");
                }
                raw.send(&words);
                drop(raw);
            }
            for _ in 0..4 {
                let found = Raw::connect(proxy.addr()).query(shown);
                assert_eq!(found, right, "after {what}");
            }
        }
    });
}
