//! The shard map: which logical shard a key belongs to and which host owns that shard.
//!
//! `shardmap.toml` is two types: what is written (`config`) and what is meant ([`ShardMap`], validated and immutable).
//! [`MapHandle`] holds the map in force and replaces it while the proxy runs.

mod config;
mod difference;
mod fault;
mod hash;
pub mod id;
mod key;
mod map;
mod nearest;
mod ranges;
mod reload;
mod schema;
mod section;
mod settings;
mod url;
mod validate;
mod verifier;
mod watch;

use std::fmt;

pub use difference::FIXED_AT_START;
pub(crate) use fault::Faults;
pub use fault::{Fault, render_faults};
pub use key::{Function, KeyFault, KeyType, KeyValue};
pub use map::{Host, Keyspace, Kind, MAX_SHARDS, Password, ShardMap, TableRule, User};
pub(crate) use nearest::nearest;
pub use reload::{LastLoad, LoadCounts, MapHandle, ReloadOutcome};
pub use schema::SchemaPattern;
pub(crate) use section::{At, Entry, Section};
pub use settings::{
    CrossHost, CrossHostSnapshots, Limits, Peer, Pinning, PoolMode, ProxySettings, Timeouts,
};
pub use url::{HostAddr, HostUrl, Secret};
pub use watch::watch_file;

/// A logical shard: a fixed slice of the key space, one Postgres schema. Counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u32);

/// A physical host: its index in [`ShardMap::hosts`]. Only meaningful together with the map that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub u16);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
