//! The shard map: which logical shard a key belongs to and which host owns that shard.

use std::fmt;

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
