//! The store inside this process: for one process that is api and worker at once. Its memory is bounded: feeds that were not
//! read for the longest go first, objects by how often they are asked for.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quick_cache::sync::Cache;

use super::{
    Building, Cached, Dump, FEED_LIFE, Ids, OBJECT_LIFE, PUT_WITHIN, Pushed, Span, Store,
    StoreFault, TOMBSTONE_LIFE, Walk,
};
use crate::feed::{FEED_MOST, MediaId, UserId};

/// Feeds are locked in so many parts.
const PARTS: usize = 64;

/// What a feed takes beside its ids: its place in the map and in the order of reading.
const FEED_BYTES: usize = 144;

/// What an object takes beside its bytes.
const OBJECT_BYTES: u64 = 96;

/// The memory that the store may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// By feeds: a full one takes some 8 kB.
    pub feed_bytes: usize,
    /// By cached objects.
    pub object_bytes: u64,
    /// The most ids of a feed.
    pub feed_most: usize,
}

impl Default for MemoryLimits {
    fn default() -> MemoryLimits {
        MemoryLimits {
            feed_bytes: 256 << 20,
            object_bytes: 128 << 20,
            feed_most: FEED_MOST,
        }
    }
}

/// Feeds and objects in this process.
pub struct MemoryStore {
    began: Instant,
    parts: Box<[Mutex<Part>]>,
    part_bytes: usize,
    feed_most: usize,
    tokens: AtomicU64,
    objects: Cache<MediaId, Object, Weight>,
    tombstones: Mutex<Tombstones>,
}

/// Some of the users.
#[derive(Default)]
struct Part {
    feeds: HashMap<UserId, Feed>,
    /// The same feeds, that which was not read for the longest first.
    by_read: BTreeSet<(Duration, UserId)>,
    bytes: usize,
}

struct Feed {
    complete: bool,
    token: u64,
    /// Of ids up to this one it says nothing.
    trimmed: MediaId,
    /// Oldest first, none twice.
    ids: VecDeque<MediaId>,
    /// When it was last read or begun, since the store began.
    read: Duration,
}

#[derive(Clone)]
struct Object {
    body: Bytes,
    put_at: Instant,
}

#[derive(Clone)]
struct Weight;

impl quick_cache::Weighter<MediaId, Object> for Weight {
    fn weight(&self, _: &MediaId, object: &Object) -> u64 {
        OBJECT_BYTES + object.body.len() as u64
    }
}

/// An object is cached under this lock, and uncached: there is never one beside its tombstone.
#[derive(Default)]
struct Tombstones {
    all: HashMap<MediaId, Instant>,
    /// The same, oldest first; one that was set again stands twice.
    by_age: VecDeque<(Instant, MediaId)>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(limits: MemoryLimits) -> MemoryStore {
        let objects = usize::try_from(limits.object_bytes / (OBJECT_BYTES + 256));
        MemoryStore {
            began: Instant::now(),
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            part_bytes: limits.feed_bytes / PARTS,
            feed_most: limits.feed_most.max(1),
            tokens: AtomicU64::new(1),
            objects: Cache::with_weighter(objects.unwrap_or(0), limits.object_bytes, Weight),
            tombstones: Mutex::default(),
        }
    }

    fn part(&self, feed: UserId) -> MutexGuard<'_, Part> {
        // Users of one shard are often multiples of something: the product's high bits are of all bits.
        let mixed = (feed as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        lock(&self.parts[mixed as usize % PARTS])
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics between two changes that belong together.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Part {
    /// Changes a feed that is there, and keeps count of its memory.
    fn change<T>(&mut self, feed: UserId, change: impl FnOnce(&mut Feed) -> T) -> Option<T> {
        let found = self.feeds.get_mut(&feed)?;
        let before = found.bytes();
        let done = change(found);
        self.bytes = self.bytes - before + found.bytes();
        Some(done)
    }

    fn insert(&mut self, user: UserId, feed: Feed) {
        self.bytes += feed.bytes();
        self.by_read.insert((feed.read, user));
        self.feeds.insert(user, feed);
    }

    fn touch(&mut self, feed: UserId, now: Duration) {
        if let Some(found) = self.feeds.get_mut(&feed) {
            self.by_read.remove(&(found.read, feed));
            found.read = now;
            self.by_read.insert((now, feed));
        }
    }

    fn drop_feed(&mut self, feed: UserId) {
        if let Some(dropped) = self.feeds.remove(&feed) {
            self.bytes -= dropped.bytes();
            self.by_read.remove(&(dropped.read, feed));
        }
    }

    /// Drops feeds that were not read for [`FEED_LIFE`], and then more until the rest takes at most so much. The one read last
    /// stays, whatever it takes.
    fn sweep(&mut self, now: Duration, most: usize) {
        while let Some((read, feed)) = self.by_read.first().copied() {
            let old = now.saturating_sub(read) >= FEED_LIFE;
            if !old && (self.bytes <= most || self.feeds.len() == 1) {
                break;
            }
            self.drop_feed(feed);
        }
    }
}

enum Added {
    New,
    Duplicate,
    Trimmed,
}

impl Feed {
    fn bytes(&self) -> usize {
        FEED_BYTES + self.ids.capacity() * size_of::<MediaId>()
    }

    fn add(&mut self, id: MediaId, most: usize) -> Added {
        if id <= self.trimmed {
            return Added::Trimmed;
        }
        let mut at = self.newer_than(id);
        if at > 0 && self.ids.get(at - 1) == Some(&id) {
            return Added::Duplicate;
        }
        if self.ids.len() >= most {
            // It is newer than the oldest, or it had been found above not to be.
            self.ids.pop_front();
            at = at.saturating_sub(1);
        }
        if self.ids.len() == self.ids.capacity() {
            let room = self.ids.len().max(8);
            self.ids.reserve_exact(room.min(most - self.ids.len()));
        }
        self.ids.insert(at, id);
        if self.ids.len() >= most
            && let Some(oldest) = self.ids.front()
        {
            self.trimmed = self.trimmed.max(oldest.saturating_sub(1));
        }
        Added::New
    }

    /// Where those begin that are newer than the id.
    fn newer_than(&self, id: MediaId) -> usize {
        self.ids.partition_point(|held| *held <= id)
    }

    fn read(&self, span: Span, most: usize) -> Ids {
        let len = self.ids.len();
        let (from, to) = match span {
            Span::Newest => (len.saturating_sub(most), len),
            Span::Before(id) => {
                let to = self.ids.partition_point(|held| *held < id);
                (to.saturating_sub(most), to)
            }
            Span::After(id) => {
                let from = self.newer_than(id);
                (from, from.saturating_add(most).min(len))
            }
        };
        Ids {
            ids: self.ids.range(from..to).rev().copied().collect(),
            more: match span {
                Span::After(_) => to < len,
                Span::Newest | Span::Before(_) => from > 0,
            },
            trimmed: self.trimmed,
        }
    }

    fn merge(&mut self, ids: &[MediaId], most: usize) {
        let given: BTreeSet<MediaId> = ids.iter().copied().collect();
        // Newest first, so that each one that is too old is found to be so at once.
        for id in given.into_iter().rev() {
            self.add(id, most);
        }
    }
}

impl Tombstones {
    fn there(&self, id: MediaId) -> bool {
        let set_at = self.all.get(&id);
        set_at.is_some_and(|at| at.elapsed() < TOMBSTONE_LIFE)
    }

    fn set(&mut self, id: MediaId) {
        let now = Instant::now();
        self.all.insert(id, now);
        self.by_age.push_back((now, id));
        while let Some((at, old)) = self.by_age.front().copied() {
            if now.duration_since(at) < TOMBSTONE_LIFE {
                break;
            }
            self.by_age.pop_front();
            if self.all.get(&old) == Some(&at) {
                self.all.remove(&old);
            }
        }
    }
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    fn is_shared(&self) -> bool {
        false
    }

    async fn push(&self, id: MediaId, feeds: &[UserId]) -> Result<Pushed, StoreFault> {
        let now = self.now();
        let mut pushed = Pushed::default();
        for feed in feeds {
            let mut part = self.part(*feed);
            part.sweep(now, self.part_bytes);
            match part.change(*feed, |feed| feed.add(id, self.feed_most)) {
                Some(Added::New) => pushed.new += 1,
                Some(Added::Duplicate) => pushed.duplicate += 1,
                Some(Added::Trimmed) | None => pushed.absent += 1,
            }
        }
        Ok(pushed)
    }

    async fn read(&self, feed: UserId, span: Span, most: usize) -> Result<Option<Ids>, StoreFault> {
        let now = self.now();
        let mut part = self.part(feed);
        part.sweep(now, self.part_bytes);
        let Some(found) = part.feeds.get(&feed).filter(|feed| feed.complete) else {
            return Ok(None);
        };
        let ids = found.read(span, most);
        part.touch(feed, now);
        Ok(Some(ids))
    }

    async fn begin(&self, feed: UserId) -> Result<Building, StoreFault> {
        let now = self.now();
        let mut part = self.part(feed);
        let mut token = self.tokens.fetch_add(1, Ordering::Relaxed);
        match part.feeds.get_mut(&feed) {
            // All who begin while it is complete share its token: each may merge into it.
            Some(found) if found.complete => token = found.token,
            Some(found) => found.token = token,
            None => part.insert(
                feed,
                Feed {
                    complete: false,
                    token,
                    trimmed: MediaId::MIN,
                    ids: VecDeque::new(),
                    read: now,
                },
            ),
        }
        part.touch(feed, now);
        part.sweep(now, self.part_bytes);
        Ok(Building { token })
    }

    async fn complete(
        &self,
        feed: UserId,
        building: &Building,
        ids: &[MediaId],
    ) -> Result<bool, StoreFault> {
        let now = self.now();
        let mut part = self.part(feed);
        let merged = part.change(feed, |feed| {
            let ours = feed.token == building.token;
            if ours {
                feed.merge(ids, self.feed_most);
                feed.complete = true;
            }
            ours
        });
        part.touch(feed, now);
        part.sweep(now, self.part_bytes);
        Ok(merged.unwrap_or(false))
    }

    async fn drop_feeds(&self, feeds: &[UserId]) -> Result<(), StoreFault> {
        for feed in feeds {
            self.part(*feed).drop_feed(*feed);
        }
        Ok(())
    }

    async fn remove(&self, feed: UserId, ids: &[MediaId]) -> Result<(), StoreFault> {
        self.part(feed).change(feed, |feed| {
            for id in ids {
                if let Ok(at) = feed.ids.binary_search(id) {
                    feed.ids.remove(at);
                }
            }
        });
        Ok(())
    }

    async fn objects(&self, ids: &[MediaId]) -> Result<Vec<Cached>, StoreFault> {
        let found = ids.iter().map(|id| match self.objects.get(id) {
            Some(object) if object.put_at.elapsed() < OBJECT_LIFE => Cached::Object(object.body),
            _ if lock(&self.tombstones).there(*id) => Cached::Tombstone,
            _ => Cached::Absent,
        });
        Ok(found.collect())
    }

    async fn put_objects(
        &self,
        objects: &[(MediaId, Bytes)],
        read_at: Instant,
    ) -> Result<(), StoreFault> {
        for (id, body) in objects {
            let tombstones = lock(&self.tombstones);
            // Looked at under the lock: what waited for it may have become too old.
            let put_at = Instant::now();
            if put_at.duration_since(read_at) >= PUT_WITHIN {
                break;
            }
            if !tombstones.there(*id) {
                // A copy: the body may be a small part of a large buffer, which it would keep alive.
                let body = Bytes::copy_from_slice(body);
                self.objects.insert(*id, Object { body, put_at });
            }
        }
        Ok(())
    }

    async fn tombstone(&self, id: MediaId) -> Result<(), StoreFault> {
        let mut tombstones = lock(&self.tombstones);
        tombstones.set(id);
        self.objects.remove(&id);
        Ok(())
    }

    async fn dump(&self, feed: UserId) -> Result<Option<Dump>, StoreFault> {
        let part = self.part(feed);
        Ok(part.feeds.get(&feed).map(|feed| Dump {
            complete: feed.complete,
            ids: feed.ids.iter().rev().copied().collect(),
            trimmed: feed.trimmed,
        }))
    }

    async fn walk(&self, from: Walk) -> Result<(Vec<UserId>, Option<Walk>), StoreFault> {
        let users = match self.parts.get(from.part) {
            Some(part) => lock(part).feeds.keys().copied().collect(),
            None => Vec::new(),
        };
        let part = from.part + 1;
        let next = (part < self.parts.len()).then_some(Walk { part, at: 0 });
        Ok((users, next))
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let feeds = self.parts.iter().map(|part| lock(part).feeds.len());
        f.debug_struct("MemoryStore")
            .field("feeds", &feeds.sum::<usize>())
            .field("objects", &self.objects.len())
            .finish_non_exhaustive()
    }
}
