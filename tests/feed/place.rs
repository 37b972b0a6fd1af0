//! What the tests of reading and of the API run on: two hosts with the feed's tables, the proxy in front, users of one test alone, a
//! store that can be made to fail.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use presplit::feed::db::{Db, DbSettings};
use presplit::feed::graph;
use presplit::feed::metrics::Metrics;
use presplit::feed::outbox::Wake;
use presplit::feed::page::Page;
use presplit::feed::post;
use presplit::feed::read::Reader;
use presplit::feed::store::{
    Building, Cached, Dump, Ids, MemoryLimits, MemoryStore, Pushed, Span, Store, StoreFault, Walk,
};
use presplit::feed::{MediaId, SCHEMA, UserId};
use presplit::ops::provision::{self, Options};
use tokio::sync::{OnceCell, Semaphore};

use crate::support::{Hosts, Proxy};

/// Hosts and proxy of all tests of this run.
pub struct Place {
    // Kept for as long as the proxy runs.
    _hosts: Hosts,
    pub proxy: Proxy,
    _ends_with_us: Child,
}

/// The map of some hosts with the feed's tables and no others.
pub fn map_text(hosts: &Hosts) -> String {
    let text = hosts.map_text(1, "");
    let (before, rest) = text.split_once("[tables]").unwrap();
    let (_, after) = rest.split_once("[users.app]").unwrap();
    format!(
        "{before}[tables]\nmedia = {{ ids = [\"id\"] }}\nstars = {{ kind = \"reference\" }}\n\n[users.app]{after}"
    )
}

pub async fn place() -> &'static Place {
    static PLACE: OnceCell<Place> = OnceCell::const_new();
    PLACE
        .get_or_init(|| async {
            let hosts = Hosts::bare(2, 8);
            hosts.write_map(&map_text(&hosts));
            let made = provision::run(&hosts.map(), SCHEMA, Options::default()).await;
            let made = made.unwrap_or_else(|e| panic!("{e:#?}"));
            assert!(made.is_complete(), "{made}");
            let proxy = Proxy::start(&hosts);
            let ends_with_us = end_with_us(proxy.pid());
            Place {
                _hosts: hosts,
                proxy,
                _ends_with_us: ends_with_us,
            }
        })
        .await
}

/// A static is never dropped: a small shell waits for the end of this process (its standard input closes) and stops the other.
fn end_with_us(pid: u32) -> Child {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "cat >/dev/null; kill -9 \"$1\"", "ender"])
        .arg(pid.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().unwrap()
}

/// So many users that no other test knows, one behind the other, so that they are on several shards.
pub fn users(count: i64) -> Vec<UserId> {
    static NEXT: AtomicI64 = AtomicI64::new(10_001);
    let first = NEXT.fetch_add(count, Ordering::Relaxed);
    (first..first + count).collect()
}

pub async fn db() -> Db {
    let settings = DbSettings {
        url: place().await.proxy.url(),
        ..DbSettings::default()
    };
    Db::new(&settings).unwrap()
}

/// What a [`Faulty`] store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    Good,
    Fails,
    Hangs,
}

/// A store, as a rule the one in the process, which fails or hangs when told to: all calls, or one of them; or waits before one of them.
#[derive(Debug)]
pub struct Faulty {
    pub inner: Arc<dyn Store>,
    mood: AtomicU8,
    only: std::sync::Mutex<Option<&'static str>>,
    gate: std::sync::Mutex<Option<(&'static str, Arc<Gate>)>>,
}

/// Where a call of the store waits until it is let through.
#[derive(Debug)]
pub struct Gate {
    pub reached: Semaphore,
    pub open: Semaphore,
}

impl Faulty {
    pub fn over(inner: Arc<dyn Store>) -> Arc<Faulty> {
        Arc::new(Faulty {
            inner,
            mood: AtomicU8::new(Mood::Good as u8),
            only: std::sync::Mutex::default(),
            gate: std::sync::Mutex::default(),
        })
    }

    pub fn set(&self, mood: Mood, only: Option<&'static str>) {
        self.mood.store(mood as u8, Ordering::SeqCst);
        *self.only.lock().unwrap() = only;
    }

    /// The next such call waits.
    pub fn gate(&self, call: &'static str) -> Arc<Gate> {
        let gate = Arc::new(Gate {
            reached: Semaphore::new(0),
            open: Semaphore::new(0),
        });
        *self.gate.lock().unwrap() = Some((call, gate.clone()));
        gate
    }

    async fn called(&self, call: &'static str) -> Result<(), StoreFault> {
        let gate = self
            .gate
            .lock()
            .unwrap()
            .take_if(|(c, _)| *c == call)
            .map(|(_, gate)| gate);
        if let Some(gate) = gate {
            gate.reached.add_permits(1);
            gate.open.acquire().await.unwrap().forget();
        }
        let concerned = self.only.lock().unwrap().is_none_or(|only| only == call);
        match self.mood.load(Ordering::SeqCst) {
            1 if concerned => Err(StoreFault::Failed {
                node: "test".to_owned(),
                why: "told to".to_owned(),
            }),
            2 if concerned => std::future::pending().await,
            _ => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl Store for Faulty {
    async fn push(&self, id: MediaId, feeds: &[UserId]) -> Result<Pushed, StoreFault> {
        self.called("push").await?;
        self.inner.push(id, feeds).await
    }
    async fn read(&self, feed: UserId, span: Span, most: usize) -> Result<Option<Ids>, StoreFault> {
        self.called("read").await?;
        self.inner.read(feed, span, most).await
    }
    async fn begin(&self, feed: UserId) -> Result<Building, StoreFault> {
        self.called("begin").await?;
        self.inner.begin(feed).await
    }
    async fn complete(
        &self,
        feed: UserId,
        building: &Building,
        ids: &[MediaId],
    ) -> Result<bool, StoreFault> {
        self.called("complete").await?;
        self.inner.complete(feed, building, ids).await
    }
    async fn drop_feeds(&self, feeds: &[UserId]) -> Result<(), StoreFault> {
        self.called("drop_feeds").await?;
        self.inner.drop_feeds(feeds).await
    }
    async fn remove(&self, feed: UserId, ids: &[MediaId]) -> Result<(), StoreFault> {
        self.called("remove").await?;
        self.inner.remove(feed, ids).await
    }
    async fn objects(&self, ids: &[MediaId]) -> Result<Vec<Cached>, StoreFault> {
        self.called("objects").await?;
        self.inner.objects(ids).await
    }
    async fn put_objects(
        &self,
        objects: &[(MediaId, Bytes)],
        read_at: Instant,
    ) -> Result<(), StoreFault> {
        self.called("put_objects").await?;
        self.inner.put_objects(objects, read_at).await
    }
    async fn tombstone(&self, id: MediaId) -> Result<(), StoreFault> {
        self.called("tombstone").await?;
        self.inner.tombstone(id).await
    }
    async fn walk(&self, from: Walk) -> Result<(Vec<UserId>, Option<Walk>), StoreFault> {
        self.called("walk").await?;
        self.inner.walk(from).await
    }
    async fn dump(&self, feed: UserId) -> Result<Option<Dump>, StoreFault> {
        self.called("dump").await?;
        self.inner.dump(feed).await
    }
}

/// One test's service without HTTP and without workers: what they would push is pushed by hand.
pub struct Bench {
    pub db: Db,
    pub store: Arc<Faulty>,
    pub metrics: Arc<Metrics>,
    pub reader: Arc<Reader>,
}

impl Bench {
    pub async fn new() -> Bench {
        // A loaded machine is not a fault.
        Bench::patient(Duration::from_secs(20)).await
    }

    /// That waits so long for the store.
    pub async fn patient(patience: Duration) -> Bench {
        // Nothing is kept of stars for another page, and so little for one that the older ones have to be asked for.
        Bench::keeping(patience, Duration::ZERO, 8).await
    }

    /// The same over this store.
    pub async fn over(store: Arc<dyn Store>) -> Bench {
        Bench::of(store, Duration::from_secs(20), Duration::ZERO, 8).await
    }

    /// That keeps so many media of stars for so long.
    pub async fn keeping(patience: Duration, stars_for: Duration, newest: usize) -> Bench {
        let store = Arc::new(MemoryStore::new(MemoryLimits::default()));
        Bench::of(store, patience, stars_for, newest).await
    }

    async fn of(
        store: Arc<dyn Store>,
        patience: Duration,
        stars_for: Duration,
        newest: usize,
    ) -> Bench {
        let (db, store) = (db().await, Faulty::over(store));
        let metrics = Arc::new(Metrics::new().unwrap());
        let reader = Reader::new(db.clone(), store.clone(), metrics.clone());
        let reader = Arc::new(reader.patience(patience).keep_stars(stars_for, newest));
        Bench {
            db,
            store,
            metrics,
            reader,
        }
    }

    /// Posts, and pushes to these feeds.
    pub async fn post(&self, author: UserId, feeds: &[UserId]) -> MediaId {
        let body = format!("{{\"by\": {author}}}");
        let wake = Wake::none(false);
        let posted = post::post(&self.db, &*self.store, &wake, author, &body, None);
        let id = posted.await.unwrap().id;
        self.store.inner.push(id, feeds).await.unwrap();
        id
    }

    pub async fn delete(&self, author: UserId, id: MediaId) {
        let deleted = post::delete(&self.db, &*self.store, &Wake::none(false), author, id).await;
        assert_ne!(deleted.unwrap(), post::Deleted::Nothing);
    }

    pub async fn follow(&self, source: UserId, targets: &[UserId]) {
        let done = graph::follow_all(&self.db, &*self.store, source, targets)
            .await
            .unwrap();
        for (target, outcome) in done {
            assert_eq!(
                outcome,
                graph::Outcome::Now(graph::Status::Following),
                "{target}"
            );
        }
    }

    pub async fn home(&self, user: UserId, span: Span, most: usize) -> Page {
        let began = Instant::now();
        let page = self.reader.home(user, span, most).await.unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "a page took {:?}",
            began.elapsed()
        );
        let ids = ids(&page);
        assert!(
            ids.is_sorted_by(|a, b| a > b),
            "newest first, none twice: {ids:?}"
        );
        assert!(ids.len() <= most);
        page
    }

    /// All pages from the newest to the oldest, and back.
    pub async fn walk(&self, user: UserId, most: usize) -> Vec<MediaId> {
        let mut down = Vec::new();
        let mut span = Span::Newest;
        loop {
            let page = self.home(user, span, most).await;
            down.extend(ids(&page));
            if !page.more {
                break;
            }
            assert_eq!(page.media.len(), most, "a page with more behind it is full");
            span = Span::Before(*down.last().unwrap());
        }
        let mut up = Vec::new();
        if let Some(last) = down.last() {
            up.push(*last);
            loop {
                let page = self
                    .home(user, Span::After(*up.last().unwrap()), most)
                    .await;
                up.extend(ids(&page).iter().rev());
                if !page.more {
                    break;
                }
            }
            up.reverse();
        }
        assert_eq!(up, down, "pages upwards and downwards");
        assert_eq!(BTreeSet::from_iter(&down).len(), down.len());
        down
    }

    /// A counter of the metrics, with its labels as `/metrics` prints them.
    pub fn counted(&self, line: &str) -> u64 {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&self.metrics.registry.gather())
            .unwrap();
        let found = text.lines().find_map(|l| l.strip_prefix(line));
        found.map_or(0, |value| value.trim().parse().unwrap())
    }
}

pub fn ids(page: &Page) -> Vec<MediaId> {
    page.media.iter().map(|o| o.id).collect()
}

/// Newest first.
pub fn newest_first(mut ids: Vec<MediaId>) -> Vec<MediaId> {
    ids.sort_unstable_by(|a, b| b.cmp(a));
    ids
}
