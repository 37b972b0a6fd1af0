//! A feed service of a test's own: two hosts, eight shards, a real proxy, a store in this process that can be made to fail.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use presplit::feed::db::{Db, DbSettings};
use presplit::feed::fanout::{WorkSettings, Workers};
use presplit::feed::stars::{StarSettings, Stars};
use presplit::feed::store::{
    Building, Cached, Dump, Ids, MemoryLimits, MemoryStore, Pushed, Span, Store, StoreFault, Walk,
};
use presplit::feed::{MediaId, SCHEMA, UserId};
use presplit::ops::provision::{self, Options};

use super::place::map_text;
use crate::support::{Hosts, Proxy, wait_until};

pub const SHARDS: u32 = 8;

pub struct Service {
    pub hosts: Hosts,
    proxy: Proxy,
    pub db: Db,
    pub store: Arc<Trouble>,
}

impl Service {
    pub async fn new() -> Service {
        let hosts = Hosts::bare(2, SHARDS);
        hosts.write_map(&map_text(&hosts));
        let report = provision::run(&hosts.map(), SCHEMA, Options::default())
            .await
            .unwrap_or_else(|e| panic!("{e:#?}"));
        assert!(report.is_complete(), "{report}");
        let proxy = Proxy::start(&hosts);
        let db = Db::new(&DbSettings {
            url: proxy.url(),
            ..DbSettings::default()
        })
        .unwrap();
        let store = Arc::new(Trouble::new());
        Service {
            hosts,
            proxy,
            db,
            store,
        }
    }

    /// Where the proxy is.
    pub fn url(&self) -> String {
        self.proxy.url()
    }

    /// Workers that look often and give up soon.
    pub fn work() -> WorkSettings {
        WorkSettings {
            page: 20,
            lease: Duration::from_millis(500),
            sweep: Duration::from_millis(30),
            back_off: Duration::from_millis(20),
            ..WorkSettings::default()
        }
    }

    pub fn workers(&self, settings: WorkSettings) -> Workers {
        self.workers_with(settings, StarSettings::default())
    }

    pub fn workers_with(&self, settings: WorkSettings, stars: StarSettings) -> Workers {
        let stars = Arc::new(Stars::new(self.db.clone(), stars));
        Workers::start(self.db.clone(), self.store.clone(), stars, settings)
    }

    /// One number over all shards.
    pub async fn number(&self, sql: &str) -> i64 {
        let rows = self
            .db
            .ask(sql, &[])
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        rows[0].get(0)
    }

    /// Nothing is left to be done.
    pub async fn quiet(&self) {
        wait_until("the outbox is empty", || async {
            self.number("SELECT count(*) FROM outbox").await == 0
        })
        .await;
    }

    /// Followers by their bare mirror, with feeds that are there and empty.
    pub async fn followers(&self, author: UserId, followers: std::ops::Range<UserId>) {
        let sql = "INSERT INTO follow_in (user_id, source, status, rev) \
             SELECT $1, g, 'following', 1 FROM generate_series($2::bigint, $3::bigint) AS g";
        self.db
            .ask(sql, &[&author, &followers.start, &(followers.end - 1)])
            .await
            .unwrap();
        let count = "INSERT INTO counters (user_id, name, value) VALUES ($1, 'followers', $2)";
        self.db
            .ask(count, &[&author, &(followers.end - followers.start)])
            .await
            .unwrap();
        for follower in followers {
            self.empty_feed(follower).await;
        }
    }

    pub async fn empty_feed(&self, user: UserId) {
        let building = self.store.begin(user).await.unwrap();
        assert!(self.store.complete(user, &building, &[]).await.unwrap());
    }

    /// All ids of a feed that is there.
    pub async fn feed(&self, user: UserId) -> Vec<MediaId> {
        self.store
            .dump(user)
            .await
            .unwrap()
            .map_or(Vec::new(), |d| d.ids)
    }
}

/// A store that can be made to fail.
#[derive(Debug)]
pub struct Trouble {
    inner: MemoryStore,
    /// Media at which it panics.
    pub poison: Mutex<HashSet<MediaId>>,
    /// It is away.
    pub away: AtomicBool,
    /// It takes no pushes, all else it does.
    pub refuses: AtomicBool,
    /// What a push of many takes, in milliseconds.
    pub slow_ms: AtomicU64,
    /// Pushes, failed or not.
    pub pushes: AtomicU64,
}

impl Trouble {
    fn new() -> Trouble {
        Trouble {
            inner: MemoryStore::new(MemoryLimits::default()),
            poison: Mutex::default(),
            away: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            slow_ms: AtomicU64::new(0),
            pushes: AtomicU64::new(0),
        }
    }

    fn check(&self) -> Result<(), StoreFault> {
        match self.away.load(Ordering::SeqCst) {
            true => Err(StoreFault::Failed {
                node: "here".to_owned(),
                why: "away".to_owned(),
            }),
            false => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl Store for Trouble {
    async fn push(&self, id: MediaId, feeds: &[UserId]) -> Result<Pushed, StoreFault> {
        self.pushes.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        let ms = self.slow_ms.load(Ordering::SeqCst);
        if ms > 0 && feeds.len() > 1 {
            // Part of it is done when the rest is cut off.
            self.inner.push(id, &feeds[..feeds.len() / 2]).await?;
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        if self.poison.lock().unwrap().contains(&id) {
            panic!("poison");
        }
        if self.refuses.load(Ordering::SeqCst) {
            return Err(StoreFault::Failed {
                node: "here".to_owned(),
                why: "READONLY".to_owned(),
            });
        }
        self.inner.push(id, feeds).await
    }

    async fn read(&self, feed: UserId, span: Span, most: usize) -> Result<Option<Ids>, StoreFault> {
        self.inner.read(feed, span, most).await
    }

    async fn begin(&self, feed: UserId) -> Result<Building, StoreFault> {
        self.inner.begin(feed).await
    }

    async fn complete(
        &self,
        feed: UserId,
        building: &Building,
        ids: &[MediaId],
    ) -> Result<bool, StoreFault> {
        self.inner.complete(feed, building, ids).await
    }

    async fn drop_feeds(&self, feeds: &[UserId]) -> Result<(), StoreFault> {
        self.check()?;
        self.inner.drop_feeds(feeds).await
    }

    async fn remove(&self, feed: UserId, ids: &[MediaId]) -> Result<(), StoreFault> {
        self.check()?;
        self.inner.remove(feed, ids).await
    }

    async fn objects(&self, ids: &[MediaId]) -> Result<Vec<Cached>, StoreFault> {
        self.inner.objects(ids).await
    }

    async fn put_objects(
        &self,
        objects: &[(MediaId, Bytes)],
        read_at: Instant,
    ) -> Result<(), StoreFault> {
        self.inner.put_objects(objects, read_at).await
    }

    async fn tombstone(&self, id: MediaId) -> Result<(), StoreFault> {
        self.check()?;
        self.inner.tombstone(id).await
    }

    async fn walk(&self, from: Walk) -> Result<(Vec<UserId>, Option<Walk>), StoreFault> {
        self.inner.walk(from).await
    }

    async fn dump(&self, feed: UserId) -> Result<Option<Dump>, StoreFault> {
        self.inner.dump(feed).await
    }
}
