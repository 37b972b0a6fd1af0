//! The processes that are killed, and whom they serve: some users who follow each other, one author with very many followers, one who
//! is a star for a while.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use presplit::feed::db::{Db, DbSettings};
use presplit::feed::stars::{StarSettings, Stars};
use presplit::feed::{SCHEMA, UserId};
use presplit::ops::cluster::free_port;
use presplit::ops::provision::{self, Options};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::index;

use crate::feed::hook::Webhook;
use crate::feed::http::{Service, call};
use crate::feed::place::map_text;
use crate::support::{Hosts, Proxy, Redis};

pub const HOSTS: usize = 2;
pub const SHARDS: u32 = 16;
/// Users 1 to this.
pub const USERS: UserId = 200;
/// Whom each of them follows at first, besides both authors.
const FOLLOWEES: usize = 100;
/// The author with very many followers, to whom everything is pushed.
pub const BIG: UserId = 1001;
/// Becomes a star: the counter says so, the followers are as many as it takes for a worker to look at it.
pub const STAR: UserId = 1002;
/// The first of those who follow [`BIG`] and nobody else; they have never posted.
pub const CROWD: UserId = 1_000_000;
const STARS_CROWD: UserId = 500_000;
const STARS_FOLLOWERS: i64 = 11_000;
/// From so many followers on an author is a star here.
const THRESHOLD: i64 = 5_000_000;

const APIS: usize = 2;
pub const WORKERS: usize = 2;

/// How a user stands to a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    pub following: bool,
    pub muted: bool,
}

/// Of each user, by target. Who is in it has been followed at some time.
pub type Edges = HashMap<UserId, HashMap<UserId, Edge>>;

/// How the service is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Api processes and workers, feeds in Redis.
    Apart,
    /// One process, feeds in its memory: what a newcomer has.
    Together,
}

/// What the service has or tells beside: a replica of Redis, which is read, and a webhook, which fails often.
pub struct Beside {
    pub replica: Redis,
    pub hook: Webhook,
}

pub struct World {
    pub way: Way,
    pub hosts: Hosts,
    pub redis: Redis,
    pub beside: Option<Beside>,
    pub proxy: Option<Proxy>,
    proxy_port: u16,
    apis: Vec<Option<Service>>,
    workers: Vec<Option<Service>>,
    /// What the logs of those that were killed say of faults.
    faults: Vec<String>,
    /// What the workers that were killed had delivered.
    delivered: HashMap<String, u64>,
    /// Where the api processes answer now.
    pub addrs: Arc<Mutex<Vec<Option<SocketAddr>>>>,
}

impl World {
    /// Nothing in it but the tables.
    pub async fn new(way: Way, with_others: bool) -> World {
        let mut hosts = Hosts::bare(HOSTS, SHARDS);
        for host in &mut hosts.clusters {
            // What is committed outlives kill -9.
            host.set("synchronous_commit=on");
            host.set("shared_buffers=256MB");
            host.stop();
            host.start();
        }
        let redis = Redis::with(&["--repl-diskless-sync-delay", "0"]);
        let port = redis.port().to_string();
        let beside = with_others.then(|| Beside {
            replica: Redis::with(&["--replicaof", "127.0.0.1", &port]),
            hook: Webhook::start(),
        });
        let proxy_port = free_port().unwrap();
        let text = map_text(&hosts).replace(
            "listen = \"127.0.0.1:0\"",
            &format!("listen = \"127.0.0.1:{proxy_port}\""),
        );
        let url = redis.url();
        let store = match (way, &beside) {
            (Way::Apart, None) => format!("[feed.redis.nodes]\nr1 = \"{url}\"\n"),
            (Way::Apart, Some(Beside { replica, hook })) => {
                hook.be_unreliable();
                let (replica, hook) = (replica.url(), hook.section());
                format!(
                    "{hook}[feed.redis.nodes]\nr1 = {{ url = \"{url}\", replicas = [\"{replica}\"] }}\n"
                )
            }
            (Way::Together, _) => String::new(),
        };
        hosts.write_map(&format!(
            "{text}\n[feed.stars]\nfollowers = {THRESHOLD}\nlowest = {THRESHOLD}\n{store}"
        ));
        let made = provision::run(&hosts.map(), SCHEMA, Options::default()).await;
        let made = made.unwrap_or_else(|e| panic!("{e:#?}"));
        assert!(made.is_complete(), "{made}");
        let none = |n| (0..n).map(|_| None).collect();
        World {
            way,
            hosts,
            redis,
            beside,
            proxy: None,
            proxy_port,
            apis: none(APIS),
            workers: none(WORKERS),
            faults: Vec::new(),
            delivered: HashMap::new(),
            addrs: Arc::new(Mutex::new(vec![None; APIS])),
        }
    }

    /// All edges, straight into the shards. `crowd` users follow [`BIG`], and those of `Edges` do, too.
    pub async fn fill(&self, crowd: i64, rng: &mut StdRng) -> Edges {
        let mut edges = Edges::new();
        for user in 1..=USERS {
            let others: Vec<UserId> = (1..=USERS).filter(|u| *u != user).collect();
            let some = index::sample(rng, others.len(), FOLLOWEES).into_iter();
            let targets = some.map(|i| others[i]).chain([BIG, STAR]);
            let edge = Edge {
                following: true,
                muted: false,
            };
            edges.insert(user, targets.map(|t| (t, edge)).collect());
        }
        for host in 0..HOSTS {
            let client = self.hosts.client(host).await;
            for shard in (0..SHARDS).filter(|s| self.hosts.owner(*s) == host) {
                client
                    .batch_execute(&fill_shard(shard, crowd, &edges))
                    .await
                    .unwrap();
            }
            // A crash has little to make good.
            client.batch_execute("ANALYZE; CHECKPOINT").await.unwrap();
        }
        edges
    }

    pub fn start_all(&mut self) {
        self.start_proxy();
        for n in 0..self.apis() {
            self.start_api(n);
        }
        if self.way == Way::Apart {
            (0..WORKERS).for_each(|n| self.start_worker(n));
        }
    }

    pub fn start_proxy(&mut self) {
        self.proxy = Some(Proxy::start(&self.hosts));
    }

    /// Processes that answer calls.
    pub fn apis(&self) -> usize {
        match self.way {
            Way::Apart => APIS,
            Way::Together => 1,
        }
    }

    pub fn start_api(&mut self, n: usize) {
        let role = match self.way {
            Way::Apart => "api",
            Way::Together => "all",
        };
        let service = self.service(role);
        self.addrs.lock().unwrap()[n] = Some(service.at);
        self.apis[n] = Some(service);
    }

    pub fn start_worker(&mut self, n: usize) {
        self.workers[n] = Some(self.service("worker"));
    }

    fn service(&self, role: &str) -> Service {
        let map = self.hosts.map_file();
        let url = self.url();
        Service::start(&[
            "--role",
            role,
            "--map",
            map.to_str().unwrap(),
            "--database-url",
            &url,
        ])
    }

    /// The proxy's, also while it is away.
    pub fn url(&self) -> String {
        format!("postgres://app@127.0.0.1:{}/app", self.proxy_port)
    }

    pub fn kill_api(&mut self, n: usize) {
        self.addrs.lock().unwrap()[n] = None;
        if let Some(service) = self.apis[n].take() {
            if self.way == Way::Together {
                self.note(&service);
            }
            self.read_log(&service.kill());
        }
    }

    pub fn kill_worker(&mut self, n: usize) {
        self.thaw_worker(n);
        if let Some(service) = self.workers[n].take() {
            self.note(&service);
            self.read_log(&service.kill());
        }
    }

    pub fn kill_proxy(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            self.read_log(&proxy.kill());
        }
    }

    pub fn signal_api(&self, n: usize, signal: &str) {
        if let Some(service) = &self.apis[n] {
            service.signal(signal);
        }
    }

    /// Until it is thawed, or killed.
    pub fn freeze_worker(&self, n: usize) {
        if let Some(service) = &self.workers[n] {
            service.signal("STOP");
        }
    }

    /// No-op if it is not frozen.
    pub fn thaw_worker(&self, n: usize) {
        if let Some(service) = &self.workers[n] {
            service.signal("CONT");
        }
    }

    /// Adds up what a worker has delivered.
    fn note(&mut self, worker: &Service) {
        for (outcome, n) in counted(worker, "presplit_feed_deliveries_total") {
            *self.delivered.entry(outcome).or_default() += n;
        }
        for (outcome, n) in counted(worker, "presplit_feed_verified_total") {
            *self
                .delivered
                .entry(format!("verified {outcome}"))
                .or_default() += n;
        }
    }

    /// What all workers have delivered so far, by outcome, and what they have verified.
    pub fn delivered(&mut self) -> HashMap<String, u64> {
        let before = self.delivered.clone();
        let workers = std::mem::take(&mut self.workers);
        workers.iter().flatten().for_each(|w| self.note(w));
        self.workers = workers;
        if self.way == Way::Together {
            let apis = std::mem::take(&mut self.apis);
            apis.iter().flatten().for_each(|a| self.note(a));
            self.apis = apis;
        }
        std::mem::replace(&mut self.delivered, before)
    }

    /// What the processes have said so far of panics, and of feeds that differ.
    pub fn faults(&mut self) -> Vec<String> {
        let services = self.apis.iter().chain(&self.workers).flatten();
        let mut logs: Vec<String> = services.map(|s| s.log.lock().unwrap().clone()).collect();
        logs.extend(self.proxy.as_ref().map(Proxy::log));
        logs.iter().for_each(|log| self.read_log(log));
        self.faults.clone()
    }

    fn read_log(&mut self, log: &str) {
        let is_bad = |l: &&str| l.contains("panicked at") || l.contains("is not what it should be");
        self.faults
            .extend(log.lines().filter(is_bad).map(str::to_owned));
    }

    /// What the workers have said last, for whoever looks for a fault.
    pub fn last_words(&self) -> String {
        let mut words = String::new();
        for service in self.workers.iter().chain(&self.apis).flatten() {
            let log = service.log.lock().unwrap();
            let lines: Vec<&str> = log.lines().collect();
            words += &lines[lines.len().saturating_sub(30)..].join("\n");
            words += "\n--\n";
        }
        words
    }

    /// One number over all shards, past the proxy.
    pub async fn number(&self, of_shard: impl Fn(&str) -> String) -> i64 {
        let mut sum = 0;
        for host in 0..HOSTS {
            let client = self.hosts.client(host).await;
            for shard in (0..SHARDS).filter(|s| self.hosts.owner(*s) == host) {
                let row = client
                    .query_one(&of_shard(&format!("shard_{shard:04}")), &[])
                    .await;
                sum += row.unwrap().get::<_, i64>(0);
            }
        }
        sum
    }

    /// Whether posts of [`STAR`] are pulled from some time on.
    pub async fn has_star(&self) -> bool {
        let sql = format!("SELECT count(*) FROM stars WHERE author = {STAR} AND pull_to IS NULL");
        let row = self.hosts.client(0).await.query_one(&sql, &[]).await;
        row.unwrap().get::<_, i64>(0) == 1
    }

    /// Says that [`STAR`] has hardly a follower, and looks at stars again as workers do that live for longer.
    pub async fn end_star(&self) {
        self.count_star(1).await;
        let settings = DbSettings {
            url: self.url(),
            ..DbSettings::default()
        };
        let stars = StarSettings {
            threshold: THRESHOLD as u64,
            ..StarSettings::default()
        };
        let stars = Stars::new(Db::new(&settings).unwrap(), stars);
        assert_eq!(stars.review().await.unwrap(), 1);
        assert!(!self.has_star().await);
    }

    /// Says how many followers the star has, in the counter that workers go by.
    pub async fn count_star(&self, followers: i64) {
        let shard = (STAR % i64::from(SHARDS)) as u32;
        let client = self.hosts.client(self.hosts.owner(shard)).await;
        let sql = format!(
            "UPDATE shard_{shard:04}.counters SET value = {followers} WHERE user_id = {STAR} AND name = 'followers'"
        );
        client.batch_execute(&sql).await.unwrap();
    }
}

pub const MANY: i64 = THRESHOLD + 1;

/// Counters of a process by their label.
fn counted(service: &Service, name: &str) -> Vec<(String, u64)> {
    let answer = call(service.at, "GET", "/metrics", &[], None);
    let lines = answer.body.lines().filter_map(|l| l.strip_prefix(name));
    lines
        .filter_map(|l| {
            let (label, value) = l.split_once("\"} ")?;
            let (_, label) = label.split_once('"')?;
            Some((label.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// What one shard has of the edges.
fn fill_shard(shard: u32, crowd: i64, edges: &Edges) -> String {
    let of = |user: UserId| (user % i64::from(SHARDS)) as u32;
    let mut sql = format!("SET search_path = shard_{shard:04};\n");
    let (mut outs, mut ins) = (Vec::new(), Vec::new());
    for (user, targets) in edges {
        for target in targets.keys() {
            if of(*user) == shard {
                outs.push(format!("({user}, {target}, 'following', 1)"));
            }
            if of(*target) == shard {
                ins.push(format!("({target}, {user}, 'following', 1)"));
            }
        }
    }
    for (table, columns, rows) in [
        ("follow_out", "user_id, target, status, rev", outs),
        ("follow_in", "user_id, source, status, rev", ins),
    ] {
        if !rows.is_empty() {
            sql += &format!(
                "INSERT INTO {table} ({columns}) VALUES {};\n",
                rows.join(", ")
            );
        }
    }
    for (author, first, count) in [(BIG, CROWD, crowd), (STAR, STARS_CROWD, STARS_FOLLOWERS)] {
        let here = first + (i64::from(shard) - first).rem_euclid(i64::from(SHARDS));
        let last = first + count - 1;
        sql += &format!(
            "INSERT INTO follow_out (user_id, target, status, rev) \
             SELECT g, {author}, 'following', 1 FROM generate_series({here}::bigint, {last}, {SHARDS}) g;\n"
        );
        if of(author) == shard {
            sql += &format!(
                "INSERT INTO follow_in (user_id, source, status, rev) \
                 SELECT {author}, g, 'following', 1 FROM generate_series({first}::bigint, {last}) g;\n\
                 INSERT INTO counters (user_id, name, value) VALUES ({author}, 'followers', {count});\n"
            );
        }
    }
    sql
}

/// Some of those who follow [`BIG`] alone, the first and the last of them included.
pub fn some_of_the_crowd(crowd: i64, most: usize, rng: &mut StdRng) -> Vec<UserId> {
    let mut some: Vec<UserId> = (0..most)
        .map(|_| CROWD + rng.random_range(0..crowd))
        .collect();
    some.extend([CROWD, CROWD + crowd - 1]);
    some.sort_unstable();
    some.dedup();
    some
}
