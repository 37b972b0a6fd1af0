//! Hosts for transactions over several of them: commits wait for the log, a proxy finds each host directly or through a
//! relay, and what is left on the hosts can be asked past any proxy.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use presplit::ops::provision::{self, Options};
use presplit::shardmap::ShardMap;
use tempfile::TempDir;

use super::wire::{Part, Wire};
use super::{Cluster, Relay};

/// Hosts that own equal runs of the shards, each with a relay before it.
pub struct Several {
    pub clusters: Vec<Cluster>,
    pub relays: Vec<Relay>,
    shards: i64,
    dir: TempDir,
}

/// How a proxy gets at the hosts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Direct,
    Relayed,
}

impl Several {
    /// With these tables in every shard.
    pub fn provisioned(hosts: usize, shards: i64, schema: &str) -> Several {
        let cluster = |host| Cluster::numbered(host, &["synchronous_commit=on"]);
        Several::of((0..hosts).map(cluster).collect(), shards, schema)
    }

    /// As after a move by replicas that were promoted: they have one system identifier.
    pub fn copies(hosts: usize, shards: i64, schema: &str) -> Several {
        let cluster = |_| Cluster::with(&["synchronous_commit=on"]);
        Several::of((0..hosts).map(cluster).collect(), shards, schema)
    }

    fn of(clusters: Vec<Cluster>, shards: i64, schema: &str) -> Several {
        let relays = clusters.iter().map(|c| Relay::to(c.port())).collect();
        let several = Several {
            clusters,
            relays,
            shards,
            dir: tempfile::tempdir().unwrap(),
        };
        let file = several.write_map("provision", 0, Way::Direct, "");
        let map = ShardMap::load(&file).unwrap_or_else(|faults| panic!("{faults:#?}"));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let report = runtime.block_on(provision::run(&map, schema, Options::default()));
        let report = report.unwrap_or_else(|e| panic!("{e:#?}"));
        assert!(report.is_complete(), "{report}");
        several
    }

    /// Writes a map file in a directory of its own. Two proxies may call the hosts by other names: the first is the letter
    /// number `first`. `proxy` is the inside of `[proxy]`.
    pub fn write_map(&self, name: &str, first: usize, path: Way, proxy: &str) -> PathBuf {
        let mut text = format!(
            "version = 1\n[keyspace]\nshards = {}\nkey = \"user_id\"\nfunction = \"modulo\"\nschema = \"shard_{{:04}}\"\n",
            self.shards
        );
        let letter = |host: usize| char::from(b'a' + (first + host) as u8);
        for (host, cluster) in self.clusters.iter().enumerate() {
            let port = match path {
                Way::Direct => cluster.port(),
                Way::Relayed => self.relays[host].port(),
            };
            text.push_str(&format!(
                "[hosts.{}]\nurl = \"postgres://app@127.0.0.1:{port}/app\"\npool = 20\n",
                letter(host)
            ));
        }
        text.push_str("[map]\n");
        for host in 0..self.clusters.len() {
            let shards = self.shards_of(host);
            text.push_str(&format!(
                "\"{}-{}\" = \"{}\"\n",
                shards.start,
                shards.end - 1,
                letter(host)
            ));
        }
        text.push_str(&format!(
            "[tables]\n[users.app]\n[proxy]\nlisten = \"127.0.0.1:0\"\ndatabase = \"app\"\n{proxy}\n"
        ));
        let dir = self.dir.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("shardmap.toml");
        fs::write(&file, text).unwrap();
        file
    }

    /// The shards of a host.
    pub fn shards_of(&self, host: usize) -> std::ops::Range<i64> {
        let each = self.shards / self.clusters.len() as i64;
        let first = each * host as i64;
        let last = host + 1 == self.clusters.len();
        first..if last { self.shards } else { first + each }
    }

    /// The number of a user's host.
    pub fn host_of(&self, user: i64) -> usize {
        let shard = user % self.shards;
        let owns = |host: &usize| self.shards_of(*host).contains(&shard);
        (0..self.clusters.len()).find(owns).unwrap()
    }

    /// A connection past any proxy.
    pub fn direct(&self, host: usize) -> Wire {
        self.try_direct(host).unwrap()
    }

    pub fn try_direct(&self, host: usize) -> Result<Wire, String> {
        let addr = SocketAddr::from(([127, 0, 0, 1], self.clusters[host].port()));
        Wire::try_connect(addr, "app")
    }

    /// The names of all prepared transactions, of all hosts.
    pub fn prepared(&self) -> Vec<String> {
        self.everywhere("SELECT gid FROM pg_prepared_xacts")
    }

    /// The names of all decisions that stand, of all hosts.
    pub fn decisions(&self) -> Vec<String> {
        self.everywhere("SELECT name FROM presplit.decision")
    }

    /// The first column of what all hosts answer.
    pub fn everywhere(&self, sql: &str) -> Vec<String> {
        let of = |host| {
            texts(&self.direct(host).run(sql))
                .into_iter()
                .map(|mut row| row.remove(0))
        };
        (0..self.clusters.len()).flat_map(of).collect()
    }

    /// Waits until no prepared transaction is left and no lock of ours, and returns how long it took.
    pub fn no_part_left(&self, limit: Duration) -> Result<Duration, String> {
        let began = Instant::now();
        loop {
            let left = [self.prepared(), self.everywhere(MARKS)].concat();
            if left.is_empty() {
                return Ok(began.elapsed());
            }
            if began.elapsed() > limit {
                return Err(format!("after {limit:?} there is left: {left:?}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until all decisions are swept.
    pub fn no_decision_left(&self, limit: Duration) -> Result<Duration, String> {
        let began = Instant::now();
        loop {
            let left = self.decisions();
            if left.is_empty() {
                return Ok(began.elapsed());
            }
            if began.elapsed() > limit {
                return Err(format!("after {limit:?} there stand decisions: {left:?}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The advisory locks that mark transactions over several hosts (`presplit::twophase::KEY_CLASS`).
const MARKS: &str = "SELECT 'lock ' || classid || ' ' || objid FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint >> 16 = x'7073'::int";

/// The rows of an answer, as text.
pub fn texts(parts: &[Part]) -> Vec<Vec<String>> {
    let text = |value: &Option<Vec<u8>>| match value {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => "NULL".to_owned(),
    };
    let row = |part: &Part| match part {
        Part::Row(row) => Some(row.iter().map(text).collect()),
        _ => None,
    };
    parts.iter().filter_map(row).collect()
}

/// Where a proxy stops a commit between two steps (src/twophase/seam.rs).
pub struct Seam {
    dir: TempDir,
}

impl Seam {
    pub fn new() -> Seam {
        Seam {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The next commit that comes to this step waits there.
    pub fn stop_at(&self, step: &str) {
        // Left by a proxy that was killed there.
        let _ = fs::remove_file(self.reached(step));
        fs::write(self.dir.path().join(step), "").unwrap();
    }

    /// Whether one waits there, within a limit.
    pub fn is_reached(&self, step: &str, limit: Duration) -> bool {
        let began = Instant::now();
        while !self.reached(step).exists() {
            if began.elapsed() > limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }

    fn reached(&self, step: &str) -> PathBuf {
        self.dir.path().join(format!("{step}.reached"))
    }

    /// No step stops any more; who waits goes on.
    pub fn open(&self) {
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none() {
                fs::remove_file(path).unwrap();
            }
        }
    }
}
