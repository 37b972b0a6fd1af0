//! The shard map as it is meant: validated, immutable, and quick to ask.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::fault::{Fault, Place};
use super::key::{Function, KeyFault, KeyValue};
use super::schema::SchemaPattern;
use super::settings::ProxySettings;
use super::url::{HostUrl, Secret};
use super::{HostId, ShardId, id};

/// The most shards that a map can have: what the 13 shard bits of an id can say.
pub const MAX_SHARDS: u32 = 1 << id::SHARD_BITS;

/// How keys are split into shards. Fixed for the life of the data, except `key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyspace {
    /// How many logical shards, 1..=[`MAX_SHARDS`].
    pub shards: u32,
    /// The column by which a sharded table is split unless its rule in [`ShardMap::tables`] says otherwise.
    pub key: String,
    /// From key value to shard.
    pub function: Function,
    /// From shard to schema.
    pub schema: SchemaPattern,
    /// The host that counts the keys that the database is to make; `None`: that of the template shard.
    pub key_host: Option<String>,
    /// How many such keys the proxy takes at once; 0: it makes none. Default 100.
    pub key_block: u32,
    /// The host of what belongs to no shard and to no table: see [`ShardMap::session_host`]. `None`: the first by name.
    pub session_host: Option<String>,
}

/// A physical host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name in the file: `a` for `[hosts.a]`.
    pub name: String,
    /// The primary.
    pub url: HostUrl,
    /// Its replicas, perhaps none.
    pub replicas: Vec<HostUrl>,
    /// The most server connections to this host, at least 1, whatever the clients do.
    pub pool: u32,
}

/// Where a table's rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rows split by the key over the shards.
    Sharded,
    /// The same rows on every host.
    Reference,
    /// The whole table on one host.
    Unsharded,
}

/// What the file says of a table that can't be seen in the catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableRule {
    /// The key column, if it is not [`Keyspace::key`].
    pub key: Option<String>,
    /// Columns whose value carries the shard in its id bits.
    pub ids: Vec<String>,
    /// What it must be; `None`: what the catalog says. A rule with `key` or `ids` is `Sharded`, one with `host` `Unsharded`.
    pub kind: Option<Kind>,
    /// `Unsharded` only, and then always there: the name of its host, which exists.
    pub host: Option<String>,
}

/// How a client proves who it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// It need not. Only allowed while the proxy listens on loopback.
    Trust,
    /// A verifier as in `pg_authid.rolpassword`: `SCRAM-SHA-256$4096:salt$stored:server`, its form checked.
    Scram(String),
}

/// A user that clients may log in as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// How it logs in to us.
    pub password: Password,
    /// The role that we log in as at the hosts for it; `None`: the one in the host's url.
    pub server_user: Option<String>,
    /// That role's password; only with `server_user`.
    pub server_password: Option<Secret>,
}

/// Where the things stand that a running proxy may refuse.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    pub(super) file: String,
    pub(super) version: Place,
    pub(super) shards: Place,
    pub(super) function: Place,
    pub(super) schema: Place,
    pub(super) users: BTreeMap<String, Place>,
}

/// What `shardmap.toml` means. Every shard has exactly one owner, and every host that is named exists.
#[derive(Clone, Debug)]
pub struct ShardMap {
    /// Goes up with every change to `[map]`.
    pub version: u64,
    /// How keys are split.
    pub keyspace: Keyspace,
    /// All hosts, sorted by name, at least one. A [`HostId`] is an index into it.
    pub hosts: Vec<Host>,
    /// Rules by table name as in the catalog. `"*"` is the rule for tables of `public` that are not listed.
    pub tables: BTreeMap<String, TableRule>,
    /// Who may log in, by name.
    pub users: BTreeMap<String, User>,
    /// The proxy's own settings.
    pub proxy: ProxySettings,
    /// By shard; as long as `keyspace.shards`.
    pub(super) owners: Box<[HostId]>,
    /// By shard; quoted where they must be.
    pub(super) schemas: Box<[Box<str>]>,
    /// Takes no part in equality.
    pub(super) places: Places,
}

/// Two maps are equal if they mean the same: where things stand in the file does not matter.
impl PartialEq for ShardMap {
    fn eq(&self, other: &Self) -> bool {
        // `schemas` follows from `keyspace`.
        self.version == other.version
            && self.keyspace == other.keyspace
            && self.hosts == other.hosts
            && self.tables == other.tables
            && self.users == other.users
            && self.proxy == other.proxy
            && self.owners == other.owners
    }
}

impl ShardMap {
    /// Reads and validates a map. `env` gives the value of `${VAR}`. All faults are found at once, in the order of the file.
    pub fn parse(toml: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<ShardMap, Vec<Fault>> {
        super::validate::map("shardmap.toml", toml, env)
    }

    /// As [`ShardMap::parse`], from a file and this process' environment.
    pub fn load(path: &Path) -> Result<ShardMap, Vec<Fault>> {
        let file = path.display().to_string();
        let text = super::reload::read(path).map_err(|fault| vec![fault])?;
        super::validate::map(&file, &text, &|name| std::env::var(name).ok())
    }

    /// The host that owns `s`. `s` must be below [`ShardMap::shards`], as are all that this map gives out.
    pub fn owner(&self, s: ShardId) -> HostId {
        self.owners[s.0 as usize]
    }

    /// `h` must come from this map.
    pub fn host(&self, h: HostId) -> &Host {
        &self.hosts[usize::from(h.0)]
    }

    /// How many logical shards.
    pub fn shards(&self) -> u32 {
        self.keyspace.shards
    }

    /// The template shard: the lowest.
    pub fn template(&self) -> ShardId {
        ShardId(0)
    }

    /// The shard's schema as it must stand in a statement, quoted if it has to be. `s` must be below [`ShardMap::shards`].
    /// The bare name is `keyspace.schema.name(s)`.
    pub fn schema(&self, s: ShardId) -> &str {
        &self.schemas[s.0 as usize]
    }

    /// The host that counts the keys that the database is to make.
    pub fn key_host(&self) -> HostId {
        let named = self.keyspace.key_host.as_deref();
        named
            .and_then(|name| self.host_named(name))
            .unwrap_or_else(|| self.owner(self.template()))
    }

    /// The host of what belongs to no shard and to no table, the same for all sessions of all proxies: advisory locks, LISTEN and
    /// NOTIFY, temporary tables, large objects.
    pub fn session_host(&self) -> HostId {
        let named = self.keyspace.session_host.as_deref();
        named
            .and_then(|name| self.host_named(name))
            .unwrap_or(HostId(0))
    }

    /// The shard of a key value, by `keyspace.function`.
    pub fn shard_of_key(&self, key: &KeyValue<'_>) -> Result<ShardId, KeyFault> {
        self.keyspace.function.shard(key, self.keyspace.shards)
    }

    /// The shard that an id carries. `None` if this map has no such shard or `id` is negative and so is no id.
    pub fn shard_of_id(&self, id: i64) -> Option<ShardId> {
        id::shard(id).filter(|s| s.0 < self.keyspace.shards)
    }

    /// The shards that `h` owns, lowest first.
    pub fn shards_of(&self, h: HostId) -> impl Iterator<Item = ShardId> {
        (0..)
            .zip(&self.owners)
            .filter(move |(_, owner)| **owner == h)
            .map(|(s, _)| ShardId(s))
    }

    /// The host of this name.
    pub fn host_named(&self, name: &str) -> Option<HostId> {
        // Sorted by name; at most u16::MAX hosts, which validation sees to.
        self.hosts
            .binary_search_by(|h| h.name.as_str().cmp(name))
            .ok()
            .map(|i| HostId(i as u16))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Password::Trust => "Trust",
            Password::Scram(_) => "Scram(***)",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Sharded => "sharded",
            Kind::Reference => "reference",
            Kind::Unsharded => "unsharded",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shardmap::ProxySettings;

    /// The example that people copy.
    const EXAMPLE: &str = include_str!("../../shardmap.toml");

    fn parse(toml: &str) -> ShardMap {
        let env = |name: &str| {
            (name == "APP_PASSWORD" || name == "A_PASSWORD").then(|| "p@ss".to_owned())
        };
        ShardMap::parse(toml, &env)
            .unwrap_or_else(|faults| panic!("{}", crate::shardmap::render_faults("", &faults)))
    }

    #[test]
    fn the_example_is_good() {
        let map = parse(EXAMPLE);
        assert_eq!(
            (map.version, map.shards(), map.template()),
            (1, 8, ShardId(0))
        );
        assert_eq!(map.keyspace.key, "user_id");
        let owners: Vec<&str> = (0..8)
            .map(|s| map.host(map.owner(ShardId(s))).name.as_str())
            .collect();
        assert_eq!(owners, ["a", "a", "a", "a", "b", "b", "b", "b"]);
        assert_eq!(map.schema(ShardId(5)), "shard_0005");
        assert_eq!(map.tables["users"].key.as_deref(), Some("id"));
        assert_eq!(map.tables["photos"].ids, ["id"]);
        assert_eq!(map.tables["likes"].kind, Some(Kind::Sharded));
        assert_eq!(map.tables["countries"].kind, Some(Kind::Reference));
        let invoices = &map.tables["invoices"];
        assert_eq!(
            (invoices.kind, invoices.host.as_deref()),
            (Some(Kind::Unsharded), Some("b"))
        );
        assert_eq!(map.users["app"].password, Password::Trust);
        assert_eq!(map.proxy.database, "app");
    }

    /// What is commented out in the example by `#key =` must be what holds without it.
    #[test]
    fn the_example_shows_every_setting_with_its_default() {
        let mut shown = String::new();
        let mut urls = 0;
        for line in EXAMPLE.lines() {
            let setting = line
                .strip_prefix('#')
                .filter(|l| l.starts_with(|c: char| c.is_ascii_lowercase() || c == '"'));
            match setting {
                // Other ways to write what is there.
                Some(line) if line.starts_with("url") => {
                    urls += usize::from(
                        !parse(
                            &EXAMPLE.replace("url = \"postgres://app@127.0.0.1:6441/app\"", line),
                        )
                        .hosts
                        .is_empty(),
                    )
                }
                Some(line) => shown += line,
                None => shown += line,
            }
            shown.push('\n');
        }
        assert_eq!(urls, 3);
        let map = parse(&shown);
        let defaults = parse(
            "version = 1\n[keyspace]\nshards = 1\n[hosts.a]\nurl = \"postgres://app@h/app\"\n[map]\n0 = \"a\"",
        );
        assert_eq!(
            (map.keyspace.key, map.keyspace.schema),
            (defaults.keyspace.key, defaults.keyspace.schema)
        );
        assert_eq!(map.hosts[0].pool, defaults.hosts[0].pool);
        assert_eq!(
            defaults.proxy,
            ProxySettings {
                database: "app".into(),
                ..ProxySettings::default()
            }
        );
        let example = map.proxy.list();
        for ((name, shown), (_, default)) in example.into_iter().zip(defaults.proxy.list()) {
            let key = name.rsplit('.').next().expect("one part");
            assert!(
                name == "peers" && EXAMPLE.contains("\n[proxy.peers]")
                    || ["", "#"]
                        .iter()
                        .any(|c| EXAMPLE.contains(&format!("\n{c}{key} = "))),
                "{name} is not in the example"
            );
            assert!(
                shown == default || name == "http" || name == "id",
                "{name}: the example says {shown}, the default is {default}"
            );
        }
        assert!(matches!(map.users["app"].password, Password::Scram(_)));
        assert_eq!(map.users["app"].server_password, Some(Secret::new("p@ss")));
        assert_eq!(map.tables["*"].host.as_deref(), Some("a"));
    }

    /// Every shard has one owner, and `shards_of` splits the shards among the hosts, however the ranges are cut.
    #[test]
    fn every_shard_has_exactly_one_owner() {
        use rand::{Rng, SeedableRng, seq::SliceRandom};
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        for _ in 0..200 {
            let shards = rng.random_range(1..=300_u32);
            let mut toml = format!("version = 1\n[keyspace]\nshards = {shards}\n");
            for host in ["a", "b", "c"] {
                toml += &format!("[hosts.{host}]\nurl = \"postgres://app@{host}/app\"\n");
            }
            let (mut lines, mut wanted, mut from) = (Vec::new(), Vec::new(), 0);
            while from < shards {
                let to = rng.random_range(from..shards.min(from + 40));
                let host = rng.random_range(0..3_u16);
                wanted.extend((from..=to).map(|_| HostId(host)));
                let name = ["a", "b", "c"][usize::from(host)];
                let one = from == to && rng.random();
                lines.push(if one {
                    format!("\"{from}\" = \"{name}\"\n")
                } else {
                    format!("\"{from}-{to}\" = \"{name}\"\n")
                });
                from = to + 1;
            }
            lines.shuffle(&mut rng);
            let map = parse(&(toml + "[map]\n" + &lines.concat()));
            let owners: Vec<HostId> = (0..shards).map(|s| map.owner(ShardId(s))).collect();
            assert_eq!(owners, wanted);
            let mut all: Vec<ShardId> = (0..3).flat_map(|h| map.shards_of(HostId(h))).collect();
            assert!((0..3).all(|h| map.shards_of(HostId(h)).is_sorted()));
            all.sort();
            assert_eq!(all, (0..shards).map(ShardId).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_most_shards_there_can_be() {
        let map = parse(
            "version = 1\n[keyspace]\nshards = 8192\nschema = \"S{}\"\n[hosts.a]\nurl = \"postgres://app@h/app\"\n[map]\n0-8191 = \"a\"",
        );
        assert_eq!(map.shards_of(HostId(0)).count(), 8192);
        assert_eq!(map.schema(ShardId(8191)), "\"S8191\"");
        assert_eq!(map.keyspace.schema.name(ShardId(8191)), "S8191");
    }

    #[test]
    fn keys_and_ids_find_their_shard() {
        let map = parse(EXAMPLE);
        assert_eq!(map.shard_of_key(&KeyValue::Int(42)), Ok(ShardId(2)));
        assert_eq!(map.shard_of_key(&KeyValue::Int(-1)), Ok(ShardId(7)));
        assert!(map.shard_of_key(&KeyValue::Text("42")).is_err());
        let id = |shard| {
            id::make(id::Parts {
                unix_ms: id::EPOCH_MS + 99,
                shard: ShardId(shard),
                sequence: 3,
            })
            .expect("fits")
        };
        assert_eq!(map.shard_of_id(id(7)), Some(ShardId(7)));
        assert_eq!(map.shard_of_id(id(8)), None);
        assert_eq!(map.shard_of_id(-id(7)), None);
    }

    #[test]
    fn hosts_are_found_by_name() {
        let map = parse(EXAMPLE);
        assert_eq!(map.host_named("b"), Some(HostId(1)));
        assert_eq!(map.host(HostId(1)).name, "b");
        assert_eq!(map.host_named("c"), None);
    }

    #[test]
    fn no_secret_shows_in_debug() {
        let toml = EXAMPLE
            .replace(
                "postgres://app@127.0.0.1:6441",
                "postgres://app:hunter2@127.0.0.1:6441",
            )
            .replace("#password = ", "password = ")
            .replace("#server_user", "server_user")
            .replace(
                "#server_password = \"${APP_PASSWORD}\"",
                "server_password = \"hunter2\"",
            );
        let map = parse(&toml);
        assert!(map.hosts[0].url.password.is_some() && map.users["app"].server_password.is_some());
        let debug = format!("{map:?}");
        assert!(
            !debug.contains("hunter2") && !debug.contains("SCRAM-SHA"),
            "{debug}"
        );
    }

    #[test]
    fn the_place_of_things_does_not_make_maps_differ() {
        assert!(parse(EXAMPLE) == parse(&format!("\n\n{EXAMPLE}")));
        assert!(parse(EXAMPLE) != parse(&EXAMPLE.replace("version = 1", "version = 2")));
    }
}
