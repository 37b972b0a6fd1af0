//! Where feeds (lists of ids) and cached objects are: in Redis, or in this process. All of it can be lost at any time: it is made
//! of Postgres' rows, and made anew when it is next needed.

mod memory;
mod redis;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::config::StoreConfig;
use super::{MediaId, UserId};

pub(super) use self::redis::PARTITIONS;
pub use self::redis::RedisStore;
pub use memory::{MemoryLimits, MemoryStore};

/// The store that is configured. One in Redis is not connected to before it is needed.
///
/// # Errors
/// What a node's url can't mean.
pub fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, StoreFault> {
    Ok(match config {
        StoreConfig::Memory(limits) => Arc::new(MemoryStore::new(*limits)),
        StoreConfig::Redis(config) => Arc::new(RedisStore::new(config)?),
    })
}

/// How long a feed that nobody reads is kept: 30 days. One that is being built counts as read when that began.
pub const FEED_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long an object is cached at most.
pub const OBJECT_LIFE: Duration = Duration::from_secs(3600);

/// How long a tombstone is kept.
pub const TOMBSTONE_LIFE: Duration = Duration::from_secs(3600);

/// The oldest that an object read from Postgres may be when it is cached. Well below [`TOMBSTONE_LIFE`]: what was read before the
/// object's deletion still meets the tombstone.
pub const PUT_WITHIN: Duration = Duration::from_secs(60);

/// How long a process that says nothing any more is thought to have its map still.
pub const MAPS_LIFE: Duration = Duration::from_secs(20);

/// What became of a push of one id to some feeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Feeds that have it now and had not before.
    pub new: u64,
    /// Feeds that had it already: a push may be repeated.
    pub duplicate: u64,
    /// Feeds that are not there, or so full of newer ids that it was trimmed at once: nothing to do. Also feeds that could not take it
    /// and were dropped for that.
    pub absent: u64,
}

impl Pushed {
    /// Both together.
    pub fn plus(self, other: Pushed) -> Pushed {
        Pushed {
            new: self.new + other.new,
            duplicate: self.duplicate + other.duplicate,
            absent: self.absent + other.absent,
        }
    }
}

/// Which ids of a feed are asked for, always newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The newest.
    Newest,
    /// The newest of those older than this.
    Before(MediaId),
    /// The oldest of those newer than this.
    After(MediaId),
}

/// Ids of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Newest first.
    pub ids: Vec<MediaId>,
    /// There are more in the direction of the span.
    pub more: bool,
    /// As [`Dump::trimmed`] of the same moment.
    pub trimmed: MediaId,
}

/// The right to fill a feed that [`Store::begin`] created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Building {
    /// Tells one builder's feed from another's.
    pub token: u64,
}

/// A cached object as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cached {
    /// The object.
    Object(Bytes),
    /// It was deleted: there is no need to ask Postgres.
    Tombstone,
    /// Not known here.
    Absent,
}

/// The store could not do it in time, or at all. Nothing is lost by that; a push may have been done in part.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    /// It did not answer within the limit.
    #[error("{node} did not answer within {limit:?}")]
    Late {
        /// Which node.
        node: String,
        /// The limit.
        limit: Duration,
    },
    /// The connection failed, or it is not asked at present.
    #[error("{node}: {why}")]
    Failed {
        /// Which node.
        node: String,
        /// What it said.
        why: String,
    },
    /// It has no room for what the call might add. What takes none is done.
    #[error("{node}: {why}")]
    Full {
        /// Which node.
        node: String,
        /// What it said.
        why: String,
    },
}

/// A feed as the store holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// Complete; otherwise being built.
    pub complete: bool,
    /// All of its ids, newest first.
    pub ids: Vec<MediaId>,
    /// The feed says nothing about ids up to this one: it is or was full, and older ones may have been trimmed. `MediaId::MIN`: it says
    /// all.
    pub trimmed: MediaId,
}

/// How far a walk over all feeds has come; the default is its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// The part of the store that is walked over.
    part: usize,
    /// Where in it.
    at: u64,
}

/// Feeds and cached objects. Every method may be repeated after a failure.
///
/// A feed is *absent*, *building* or *complete*. Pushes reach feeds that are building or complete; reads only complete ones. Any
/// feed may become absent at any time; none ever lacks a part of itself: of the ids pushed or merged since it was begun it has all
/// that are newer than [`Dump::trimmed`], but for those that were removed.
#[async_trait::async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Other processes see the same feeds.
    fn is_shared(&self) -> bool {
        true
    }

    /// Adds the id to these feeds, each at its place, unless it is there; trims each to [`super::FEED_MOST`]. An id that is older than
    /// all of a feed that is or was full is not added: there may have been newer ones that were trimmed, and it would have a gap. Feeds
    /// that are there and can't take it (no memory is left) are dropped: without the id they would be wrong.
    async fn push(&self, id: MediaId, feeds: &[UserId]) -> Result<Pushed, StoreFault>;

    /// Up to `most` ids of a complete feed; `None`: it is absent or being built.
    async fn read(&self, feed: UserId, span: Span, most: usize) -> Result<Option<Ids>, StoreFault>;

    /// Creates the feed empty and building; one that someone else is building becomes ours, what was pushed to it stays. One that
    /// is complete stays as it is (a reader may be faster): then [`Store::complete`] merges into it.
    async fn begin(&self, feed: UserId) -> Result<Building, StoreFault>;

    /// Merges these ids (any order, read from Postgres behind [`Store::begin`]) into the feed that was begun, keeps the newest
    /// [`super::FEED_MOST`] and makes it complete. `false`: it is another's now, or was dropped or lost since: nothing was done.
    async fn complete(
        &self,
        feed: UserId,
        building: &Building,
        ids: &[MediaId],
    ) -> Result<bool, StoreFault>;

    /// Makes the feeds absent, also those that are being built.
    async fn drop_feeds(&self, feeds: &[UserId]) -> Result<(), StoreFault>;

    /// Takes ids out of a feed, complete or building (they are gone, or too old).
    async fn remove(&self, feed: UserId, ids: &[MediaId]) -> Result<(), StoreFault>;

    /// Cached objects, in the order asked for.
    async fn objects(&self, ids: &[MediaId]) -> Result<Vec<Cached>, StoreFault>;

    /// Caches objects for a while, but for those that have a tombstone. They were read from Postgres by statements sent at `read_at`
    /// or later. It is not an error if they are not cached: so it is where a tombstone may have been lost since `read_at` (the store
    /// lost everything, or [`PUT_WITHIN`] is over).
    async fn put_objects(
        &self,
        objects: &[(MediaId, Bytes)],
        read_at: Instant,
    ) -> Result<(), StoreFault>;

    /// The object is gone: whoever asks is told so, or that it is not known here, and whoever has read it before can't put it back. To
    /// be called when the deletion is committed. Lasts for [`TOMBSTONE_LIFE`].
    async fn tombstone(&self, id: MediaId) -> Result<(), StoreFault>;

    /// For `feed verify`: a feed, complete or building. `None`: absent.
    async fn dump(&self, feed: UserId) -> Result<Option<Dump>, StoreFault>;

    /// For `feed verify`: some feeds, maybe none, and where the walk goes on; `None`: it is over. A feed that is there from its
    /// beginning to its end comes up at least once, others may.
    async fn walk(&self, from: Walk) -> Result<(Vec<UserId>, Option<Walk>), StoreFault>;

    /// Tells a worker, of whatever process, of an outbox row of this user that is due. It may be lost on the way.
    async fn wake(&self, _user: UserId, _row: i64) -> Result<(), StoreFault> {
        Ok(())
    }

    /// Says which map of partitions this process has, and how many different ones processes have that share this store. More than one is
    /// wrong: what one pushes to a node another reads from another.
    async fn maps(&self) -> Result<u64, StoreFault> {
        Ok(1)
    }

    /// Rows of [`Store::wake`] that nobody else has heard of.
    async fn woken(&self, _most: usize) -> Result<Vec<(UserId, i64)>, StoreFault> {
        Ok(Vec::new())
    }
}
