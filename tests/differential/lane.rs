//! A lane: one plain Postgres database with all rows, and the same rows in shards behind a proxy.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

use presplit::ops::provision::{self, Options};
use presplit::shardmap::{KeyValue, ShardId, ShardMap};
use tempfile::TempDir;

use crate::support::wire::{Part, Wire};
use crate::support::{Cluster, Hosts, Proxy};

use super::compare::shown;
use super::generator::{Gen, Row};
use super::tables::{Kind, SCHEMA, TABLES, Table, rules};
use super::values::{Value, quote};

/// How many shards on how many hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    pub shards: u32,
    pub hosts: usize,
    pub function: &'static str,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let function = if self.function == "modulo" {
            ""
        } else {
            self.function
        };
        write!(f, "{}x{}{function}", self.shards, self.hosts)
    }
}

pub struct Lane {
    pub split: Split,
    pub map: ShardMap,
    pub proxy: Proxy,
    pub plain: Wire,
    pub ours: Wire,
    /// To the hosts, past the proxy.
    direct: Vec<Wire>,
    plain_addr: SocketAddr,
    plain_name: String,
    _dir: TempDir,
}

impl Lane {
    /// Databases of its own in these clusters, provisioned, without rows.
    pub async fn new(clusters: &[Cluster], split: Split) -> Lane {
        let clusters = &clusters[..split.hosts];
        let (database, plain_name) = (format!("shards_{split}"), format!("plain_{split}"));
        for cluster in clusters {
            let create = format!("CREATE DATABASE {database}");
            cluster.client().await.batch_execute(&create).await.unwrap();
        }
        let create = format!("CREATE DATABASE {plain_name}");
        clusters[0]
            .client()
            .await
            .batch_execute(&create)
            .await
            .unwrap();

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shardmap.toml");
        std::fs::write(&file, map_text(clusters, split, &database)).unwrap();
        let map = ShardMap::load(&file).unwrap_or_else(|faults| panic!("{faults:#?}"));
        let report = provision::run(&map, SCHEMA, Options::default())
            .await
            .unwrap_or_else(|e| panic!("{e:#?}"));
        assert!(report.is_complete(), "{report}");

        let plain_addr = clusters[0].addr();
        let mut plain = Wire::connect(plain_addr, &plain_name);
        plain.run(SCHEMA);
        let proxy = Proxy::serve(&file, &[]);
        Lane {
            split,
            map,
            plain,
            ours: Wire::connect(proxy.addr(), "app"),
            direct: clusters
                .iter()
                .map(|c| Wire::connect(c.addr(), &database))
                .collect(),
            proxy,
            plain_addr,
            plain_name,
            _dir: dir,
        }
    }

    /// New connections, whatever became of the old.
    pub fn reconnect(&mut self) {
        self.plain = Wire::connect(self.plain_addr, &self.plain_name);
        self.ours = Wire::connect(self.proxy.addr(), "app");
    }

    /// The rows of the start, on both sides.
    pub fn reset(&mut self, g: &mut Gen<'_>) {
        let rows = g.first_rows();
        let mut plain = String::new();
        for table in TABLES.iter().rev() {
            plain.push_str(&format!("DELETE FROM {};\n", table.name));
        }
        let mut hosts: Vec<String> = vec![String::new(); self.direct.len()];
        for (host, id) in self.hosts() {
            for shard in self.map.shards_of(id) {
                for table in TABLES.iter().rev().filter(|t| t.kind == Kind::Sharded) {
                    hosts[host].push_str(&format!(
                        "DELETE FROM {}.{};\n",
                        self.map.schema(shard),
                        table.name
                    ));
                }
            }
            hosts[host].push_str("DELETE FROM public.countries;\n");
        }
        hosts
            .last_mut()
            .unwrap()
            .push_str("DELETE FROM public.invoices;\n");
        for row in &rows {
            plain.push_str(&insert("public", row));
            match row.table.kind {
                Kind::Reference => hosts
                    .iter_mut()
                    .for_each(|sql| sql.push_str(&insert("public", row))),
                Kind::Unsharded => hosts.last_mut().unwrap().push_str(&insert("public", row)),
                Kind::Sharded => {
                    let shard = self.shard(row.key);
                    let host = usize::from(self.map.owner(shard).0);
                    hosts[host].push_str(&insert(self.map.schema(shard), row));
                }
            }
        }
        self.plain.run(&plain);
        for (wire, sql) in self.direct.iter_mut().zip(&hosts) {
            wire.run(sql);
        }
    }

    fn hosts(&self) -> Vec<(usize, presplit::shardmap::HostId)> {
        let name = |i| self.map.host_named(&Hosts::name(i)).unwrap();
        (0..self.direct.len()).map(|i| (i, name(i))).collect()
    }

    fn shard(&self, key: i64) -> ShardId {
        self.map.shard_of_key(&KeyValue::Int(key)).unwrap()
    }

    /// Whether the hosts hold the rows of the plain database, each in its shard; else what is wrong.
    pub fn compare_rows(&mut self) -> Option<String> {
        TABLES.iter().find_map(|table| match table.kind {
            Kind::Sharded => self.compare_sharded(table),
            Kind::Reference => {
                (0..self.direct.len()).find_map(|host| self.compare_public(table, host))
            }
            Kind::Unsharded => self.compare_public(table, self.direct.len() - 1),
        })
    }

    fn compare_public(&mut self, table: &Table, host: usize) -> Option<String> {
        let sql = format!("SELECT * FROM public.{}", table.name);
        let (plain, ours) = (
            rows(self.plain.run(&sql)),
            rows(self.direct[host].run(&sql)),
        );
        unequal(table, &format!("host {}", Hosts::name(host)), plain, ours)
    }

    fn compare_sharded(&mut self, table: &Table) -> Option<String> {
        let plain = rows(self.plain.run(&format!("SELECT * FROM {}", table.name)));
        let mut ours = Vec::new();
        for (host, id) in self.hosts() {
            let of_shard = |shard: ShardId| {
                format!(
                    "SELECT {key} AS key, {} AS shard, t.* FROM {}.{} t",
                    shard.0,
                    self.map.schema(shard),
                    table.name,
                    key = table.key
                )
            };
            let selects: Vec<String> = self.map.shards_of(id).map(of_shard).collect();
            for mut row in rows(self.direct[host].run(&selects.join(" UNION ALL "))) {
                let number = |at: usize| -> i64 {
                    let text = row[at].as_ref().expect("a key is never NULL");
                    std::str::from_utf8(text).unwrap().parse().unwrap()
                };
                let (key, shard) = (number(0), number(1));
                if i64::from(self.shard(key).0) != shard {
                    return Some(format!(
                        "{} has a row of {key} in shard {shard}: {}",
                        table.name,
                        shown(&row)
                    ));
                }
                ours.push(row.split_off(2));
            }
        }
        unequal(table, "the shards", plain, ours)
    }
}

type Values = Vec<Option<Vec<u8>>>;

fn rows(parts: Vec<Part>) -> Vec<Values> {
    let mut rows: Vec<Values> = parts
        .into_iter()
        .filter_map(|part| match part {
            Part::Row(row) => Some(row),
            _ => None,
        })
        .collect();
    rows.sort();
    rows
}

fn unequal(
    table: &Table,
    place: &str,
    plain: Vec<Values>,
    mut ours: Vec<Values>,
) -> Option<String> {
    ours.sort();
    if plain == ours {
        return None;
    }
    let mut counts: HashMap<&Values, i32> = HashMap::new();
    plain
        .iter()
        .for_each(|row| *counts.entry(row).or_default() += 1);
    ours.iter()
        .for_each(|row| *counts.entry(row).or_default() -= 1);
    let of = |sign: i32| -> Vec<String> {
        counts
            .iter()
            .filter(|(_, n)| **n * sign > 0)
            .map(|(row, _)| shown(row))
            .take(4)
            .collect()
    };
    Some(format!(
        "the rows of {} differ: {} plain, {} in {place}\n  only plain: {:#?}\n  only in {place}: {:#?}",
        table.name,
        plain.len(),
        ours.len(),
        of(1),
        of(-1)
    ))
}

fn insert(schema: &str, row: &Row) -> String {
    let value = |v: &Value| {
        v.text().map_or("NULL".to_owned(), |text| {
            format!("{}::{}", quote(&text), v.of.sql())
        })
    };
    let values: Vec<String> = row.values.iter().map(value).collect();
    let names: Vec<&str> = row.table.columns().iter().map(|c| c.name).collect();
    format!(
        "INSERT INTO {schema}.{} ({}) VALUES ({});\n",
        row.table.name,
        names.join(", "),
        values.join(", ")
    )
}

fn map_text(clusters: &[Cluster], split: Split, database: &str) -> String {
    let mut text = format!(
        "version = 1\n[keyspace]\nshards = {}\nkey = \"user_id\"\nfunction = \"{}\"\nschema = \"shard_{{:04}}\"\n",
        split.shards, split.function
    );
    for (i, cluster) in clusters.iter().enumerate() {
        let port = cluster.port();
        text.push_str(&format!(
            "[hosts.{}]\nurl = \"postgres://app@127.0.0.1:{port}/{database}\"\npool = 10\n",
            Hosts::name(i)
        ));
    }
    text.push_str("[map]\n");
    // Neighbouring shards are on different hosts, so that a wrong shard is a wrong host too.
    for shard in 0..split.shards {
        let host = Hosts::name(shard as usize % clusters.len());
        text.push_str(&format!("\"{shard}-{shard}\" = \"{host}\"\n"));
    }
    let billing = Hosts::name(clusters.len() - 1);
    text.push_str(&format!(
        "[tables]\n{}[users.app]\n[proxy]\nlisten = \"127.0.0.1:0\"\ndatabase = \"app\"\n",
        rules(&billing)
    ));
    text
}
