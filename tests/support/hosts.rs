//! Hosts: clusters whose shards are provisioned with the demo's tables, and the map file that says so.

use std::fs;
use std::path::{Path, PathBuf};

use presplit::ops::demo::SCHEMA;
use presplit::ops::provision::{self, Options};
use presplit::shardmap::ShardMap;
use tempfile::TempDir;
use tokio_postgres::Client;

use super::{Cluster, Proxy};

/// Hosts `a`, `b`, ... that own equal runs of the shards, and a `shardmap.toml` in a directory of its own.
pub struct Hosts {
    pub clusters: Vec<Cluster>,
    pub shards: u32,
    dir: TempDir,
}

impl Hosts {
    /// Clusters and map file, nothing in them yet.
    pub fn bare(hosts: usize, shards: u32) -> Hosts {
        let clusters = (0..hosts).map(|_| Cluster::new()).collect();
        let hosts = Hosts {
            clusters,
            shards,
            dir: tempfile::tempdir().unwrap(),
        };
        hosts.write_map(&hosts.map_text(1, ""));
        hosts
    }

    /// With the demo's tables in every shard.
    pub async fn provisioned(hosts: usize, shards: u32) -> Hosts {
        let hosts = Hosts::bare(hosts, shards);
        let report = provision::run(&hosts.map(), SCHEMA, Options::default())
            .await
            .unwrap_or_else(|e| panic!("{e:#?}"));
        assert!(report.is_complete(), "{report}");
        hosts
    }

    /// Two hosts, users 0 to 7, one in each shard: 0-3 on host a, which is the session host, 4-7 on host b.
    pub async fn of_eight_users() -> Hosts {
        let hosts = Hosts::provisioned(2, 8).await;
        let proxy = Proxy::start(&hosts);
        let client = proxy.client().await;
        for user in 0..8 {
            let insert = format!("INSERT INTO users (id, name) VALUES ({user}, 'u{user}')");
            client.batch_execute(&insert).await.unwrap();
        }
        hosts
    }

    /// The name of host number `i`.
    pub fn name(i: usize) -> String {
        char::from(b'a' + i as u8).to_string()
    }

    /// The number of the host that owns a shard under [`Hosts::map_text`].
    pub fn owner(&self, shard: u32) -> usize {
        (shard * self.clusters.len() as u32 / self.shards) as usize
    }

    /// The map as text: the demo's tables, `proxy` as the inside of `[proxy]`. The proxy takes any free port unless
    /// `proxy` says `listen`.
    pub fn map_text(&self, version: u32, proxy: &str) -> String {
        let mut text = format!(
            "version = {version}\n\n[keyspace]\nshards = {}\nkey = \"user_id\"\nfunction = \"modulo\"\nschema = \"shard_{{:04}}\"\n\n",
            self.shards
        );
        for (i, cluster) in self.clusters.iter().enumerate() {
            text.push_str(&format!(
                "[hosts.{}]\nurl = \"{}\"\npool = 10\n",
                Hosts::name(i),
                cluster.url()
            ));
        }
        text.push_str("\n[map]\n");
        for i in 0..self.clusters.len() {
            let of_host: Vec<u32> = (0..self.shards).filter(|s| self.owner(*s) == i).collect();
            if let (Some(first), Some(last)) = (of_host.first(), of_host.last()) {
                text.push_str(&format!("\"{first}-{last}\" = \"{}\"\n", Hosts::name(i)));
            }
        }
        let billing = Hosts::name(self.clusters.len() - 1);
        text.push_str(&format!(
            "\n[tables]\nusers = {{ key = \"id\" }}\nphotos = {{ ids = [\"id\"] }}\nfollows = {{ key = \"source_id\" }}\n\
             countries = {{ kind = \"reference\" }}\ninvoices = {{ host = \"{billing}\" }}\n\n[users.app]\n\n[proxy]\n"
        ));
        if !proxy.contains("listen") {
            text.push_str("listen = \"127.0.0.1:0\"\n");
        }
        text.push_str(proxy);
        text.push('\n');
        text
    }

    /// Where `shardmap.toml` stands.
    pub fn map_file(&self) -> PathBuf {
        self.dir.path().join("shardmap.toml")
    }

    /// A directory of these hosts alone, gone with them.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Replaces the map file as an editor does: a new file is renamed over it.
    pub fn write_map(&self, text: &str) {
        let new = self.dir.path().join("shardmap.toml.new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, self.map_file()).unwrap();
    }

    /// The map file, loaded.
    pub fn map(&self) -> ShardMap {
        ShardMap::load(&self.map_file()).unwrap_or_else(|faults| panic!("{faults:#?}"))
    }

    /// A direct connection to each host, in their order.
    pub async fn clients(&self) -> Vec<Client> {
        let mut clients = Vec::new();
        for cluster in &self.clusters {
            clients.push(cluster.client().await);
        }
        clients
    }

    /// A direct connection to host number `i`.
    pub async fn client(&self, i: usize) -> Client {
        self.clusters[i].client().await
    }
}
