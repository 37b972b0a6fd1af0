//! The shard map as it is meant: validated, immutable, and quick to ask.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::fault::Fault;
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

/// A place in the file: line and column, counted from 1.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// Where the things stand that a running proxy may refuse.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    pub(super) file: String,
    pub(super) version: Place,
    pub(super) shards: Place,
    pub(super) function: Place,
    pub(super) schema: Place,
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
