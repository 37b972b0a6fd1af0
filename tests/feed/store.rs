//! Both stores against the model, against each other's tasks, and Redis as it is frozen, killed and emptied.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use presplit::feed::store::{
    Cached, MemoryLimits, MemoryStore, Pushed, RedisStore, Span, Store, StoreFault,
};
use presplit::feed::{FEED_MOST, MediaId, UserId};
use proptest::test_runner::{Config, TestRunner};
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};

use super::model::{Domain, Step, Twin, Upset, steps};
use crate::support::{Redis, wait_until};

/// Feeds so short that everything happens in a few steps, and as long as they are.
pub(super) const SHORT: Domain = Domain {
    most: 5,
    ids: 24,
    steps: 80,
};
pub(super) const LONG: Domain = Domain {
    most: FEED_MOST,
    ids: 3 * FEED_MOST as i64,
    steps: 25,
};

/// A store that is made anew for each case, and what may happen to it.
pub(super) trait Bench {
    fn new_store(&self, most: usize) -> Box<dyn Store>;
    /// Whether it has lost everything.
    fn upset(&self, upset: Upset) -> bool;
    /// It may lose everything, and then needs to be looked at before it caches anything.
    fn can_lose(&self) -> bool;
}

struct InProcess;

impl Bench for InProcess {
    fn new_store(&self, most: usize) -> Box<dyn Store> {
        Box::new(MemoryStore::new(MemoryLimits {
            feed_most: most,
            ..MemoryLimits::default()
        }))
    }

    fn upset(&self, _: Upset) -> bool {
        false
    }

    fn can_lose(&self) -> bool {
        false
    }
}

/// One or more nodes.
struct InRedis(Vec<Redis>);

impl InRedis {
    fn of(nodes: usize) -> InRedis {
        InRedis((0..nodes).map(|_| Redis::new()).collect())
    }

    fn store(&self, most: usize) -> RedisStore {
        store_on(&self.0, most, Duration::from_secs(20))
    }
}

impl Bench for InRedis {
    fn new_store(&self, most: usize) -> Box<dyn Store> {
        self.upset(Upset::Lose);
        Box::new(self.store(most))
    }

    fn upset(&self, upset: Upset) -> bool {
        for node in &self.0 {
            match upset {
                Upset::Lose => node.ask::<()>(&["FLUSHALL"]),
                Upset::Forget => node.ask::<()>(&["SCRIPT", "FLUSH"]),
            }
        }
        matches!(upset, Upset::Lose)
    }

    fn can_lose(&self) -> bool {
        true
    }
}

/// The partitions are dealt out to the nodes in turn.
fn store_on(nodes: &[Redis], most: usize, limit: Duration) -> RedisStore {
    let mut config = nodes[0].config();
    for (number, node) in nodes.iter().enumerate().skip(1) {
        let mut node = node.config().nodes.remove(0);
        node.name = format!("r{}", number + 1);
        config.nodes.push(node);
    }
    for (partition, node) in config.partitions.iter_mut().enumerate() {
        *node = (partition % nodes.len()) as u16;
    }
    config.limit = limit;
    config.feed_most = most;
    RedisStore::new(&config).unwrap()
}

/// Random steps, each done to a store and to the model.
pub(super) fn agrees(bench: &dyn Bench, domain: Domain, cases: u32) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let run = |steps: Vec<Step>| {
        let store = bench.new_store(domain.most);
        runtime.block_on(async {
            let mut twin = Twin::new(store.as_ref(), domain.most);
            if !bench.can_lose() {
                twin = twin.takes_at_once();
            }
            for step in &steps {
                let lost = match step {
                    Step::Upset(upset) => bench.upset(*upset),
                    _ => false,
                };
                twin.step(step, lost).await;
            }
            twin.compare().await;
        });
        Ok(())
    };
    if let Err(fault) = TestRunner::new(config).run(&steps(domain), run) {
        panic!("{fault}");
    }
}

#[test]
fn the_store_in_process_does_as_the_model() {
    agrees(&InProcess, SHORT, 400);
    agrees(&InProcess, LONG, 40);
}

#[test]
fn the_store_in_redis_does_as_the_model() {
    agrees(&InRedis::of(1), SHORT, 80);
    agrees(&InRedis::of(2), SHORT, 40);
    agrees(&InRedis::of(1), LONG, 6);
}

const FEEDS: i64 = 8;

/// What many tasks have done so far: stands for Postgres.
#[derive(Default)]
struct Truth {
    /// Committed: a builder finds them.
    posted: Mutex<BTreeSet<MediaId>>,
    /// Pushed to all feeds.
    pushed: Mutex<BTreeSet<MediaId>>,
    /// Deleted.
    gone: Mutex<BTreeSet<MediaId>>,
}

impl Truth {
    /// No reader may miss any of these.
    fn due(&self) -> BTreeSet<MediaId> {
        let gone = self.gone.lock().unwrap().clone();
        &*self.pushed.lock().unwrap() - &gone
    }

    fn alive(&self) -> BTreeSet<MediaId> {
        &*self.posted.lock().unwrap() - &*self.gone.lock().unwrap()
    }
}

/// Tasks post, build, drop, remove, and lose everything; whatever is complete has no gap and nothing twice, at each moment.
async fn no_gap_at_any_moment(store: Arc<dyn Store>, lose: impl Fn() + Send + Sync + 'static) {
    let truth = Arc::new(Truth::default());
    let next = Arc::new(AtomicI64::new(1));
    let stop = Arc::new(AtomicBool::new(false));
    let mut posters = tokio::task::JoinSet::new();
    let mut others = tokio::task::JoinSet::new();
    for seed in 0..4 {
        let (store, truth, next) = (store.clone(), truth.clone(), next.clone());
        posters.spawn(async move {
            let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
            for _ in 0..40 {
                // Several at a time, in any order: workers overtake each other.
                let mut ids: Vec<MediaId> = (0..5)
                    .map(|_| next.fetch_add(1, Ordering::Relaxed))
                    .collect();
                truth.posted.lock().unwrap().extend(&ids);
                ids.shuffle(&mut rng);
                for id in ids {
                    let mut feeds: Vec<UserId> = (0..FEEDS).collect();
                    feeds.shuffle(&mut rng);
                    for part in feeds.chunks(3) {
                        store.push(id, part).await.unwrap();
                    }
                    // A worker that was killed does it again.
                    store.push(id, &feeds[..2]).await.unwrap();
                    truth.pushed.lock().unwrap().insert(id);
                }
            }
        });
    }
    for seed in 0..4 {
        let (store, truth, stop) = (store.clone(), truth.clone(), stop.clone());
        others.spawn(async move {
            let mut rng = rand::rngs::StdRng::seed_from_u64(100 + seed);
            while !stop.load(Ordering::Relaxed) {
                let feed = rng.random_range(0..FEEDS);
                match rng.random_range(0..100) {
                    0..60 => check(&*store, &truth, feed).await,
                    60..90 => drop(build(&*store, &truth, feed).await),
                    90..95 => store.drop_feeds(&[feed]).await.unwrap(),
                    _ => {
                        let known: Vec<MediaId> = truth.due().into_iter().collect();
                        if let Some(id) = known.choose(&mut rng) {
                            truth.gone.lock().unwrap().insert(*id);
                            store.remove(feed, &[*id]).await.unwrap();
                        }
                    }
                }
                tokio::task::yield_now().await;
            }
        });
    }
    let stopped = stop.clone();
    let loser = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            lose();
            std::thread::sleep(Duration::from_millis(30));
        }
    });
    while let Some(done) = posters.join_next().await {
        done.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(done) = others.join_next().await {
        done.unwrap();
    }
    loser.join().unwrap();
    assert_eq!(truth.posted.lock().unwrap().len(), 800);
    for feed in 0..FEEDS {
        check(&*store, &truth, feed).await;
        store.drop_feeds(&[feed]).await.unwrap();
        while !build(&*store, &truth, feed).await {}
        let newest = truth
            .alive()
            .into_iter()
            .rev()
            .take(MOST)
            .collect::<Vec<_>>();
        let found = store.read(feed, Span::Newest, MOST).await.unwrap().unwrap();
        assert_eq!(found.ids, newest, "feed {feed} after all");
    }
}

const MOST: usize = 50;

/// As a reader does that finds no feed.
async fn build(store: &dyn Store, truth: &Truth, feed: UserId) -> bool {
    let building = store.begin(feed).await.unwrap();
    let ids: Vec<MediaId> = truth.alive().into_iter().rev().take(MOST).collect();
    tokio::task::yield_now().await;
    store.complete(feed, &building, &ids).await.unwrap()
}

async fn check(store: &dyn Store, truth: &Truth, feed: UserId) {
    let due = truth.due();
    let Some(found) = store.dump(feed).await.unwrap().filter(|f| f.complete) else {
        return;
    };
    assert!(
        found.ids.is_sorted_by(|a, b| a > b),
        "feed {feed}: {found:?}"
    );
    assert!(found.ids.len() <= MOST);
    let gone = truth.gone.lock().unwrap().clone();
    let held: BTreeSet<MediaId> = found.ids.iter().copied().collect();
    let missing: Vec<_> = due
        .range(found.trimmed + 1..)
        .filter(|id| !held.contains(id) && !gone.contains(id))
        .collect();
    assert!(
        missing.is_empty(),
        "feed {feed} lacks {missing:?}: {found:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_on_the_store_in_process_see_no_gap() {
    no_gap_at_any_moment(Arc::from(InProcess.new_store(MOST)), || ()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_on_the_store_in_redis_see_no_gap() {
    let bench = Arc::new(InRedis::of(2));
    let store = Arc::from(bench.new_store(MOST));
    let turn = AtomicI64::new(0);
    let nodes = bench.clone();
    let lose = move || {
        // Mostly one node alone.
        let node = &nodes.0[turn.fetch_add(1, Ordering::Relaxed) as usize % 2];
        node.ask::<()>(&["FLUSHALL"]);
        node.ask::<()>(&["SCRIPT", "FLUSH"]);
    };
    no_gap_at_any_moment(store, lose).await;
}

/// A complete feed with these ids.
async fn fill(store: &dyn Store, feed: UserId, ids: &[MediaId]) {
    let building = store.begin(feed).await.unwrap();
    assert!(store.complete(feed, &building, ids).await.unwrap());
}

async fn newest(store: &dyn Store, feed: UserId) -> Result<Option<Vec<MediaId>>, StoreFault> {
    let found = store.read(feed, Span::Newest, FEED_MOST).await?;
    Ok(found.map(|found| found.ids))
}

#[tokio::test]
async fn memory_is_bounded_and_those_not_read_go_first() {
    let store = MemoryStore::new(MemoryLimits {
        feed_bytes: 4 << 20,
        object_bytes: 1 << 20,
        feed_most: FEED_MOST,
    });
    let ids: Vec<MediaId> = (1..=FEED_MOST as i64).collect();
    for user in 0..5000 {
        fill(&store, user, &ids).await;
        // This one is read all the time.
        assert!(newest(&store, 0).await.unwrap().is_some(), "after {user}");
        store.push(1000 + user, &[0, 1, 2, 3]).await.unwrap();
    }
    let mut held = 0;
    for user in 0..5000 {
        held += u64::from(store.dump(user).await.unwrap().is_some());
    }
    // 4 MiB / 6.5 kB, less what is left over in 64 parts.
    assert!((450..=650).contains(&held), "{held}");
    assert!(newest(&store, 1).await.unwrap().is_none());
    assert!(newest(&store, 4999).await.unwrap().is_some());

    let kilobyte = Bytes::from(vec![7; 1000]);
    for id in 0..3000 {
        store
            .put_objects(&[(id, kilobyte.clone())], Instant::now())
            .await
            .unwrap();
    }
    let all: Vec<MediaId> = (0..3000).collect();
    let found = store.objects(&all).await.unwrap();
    let held = found
        .iter()
        .filter(|f| matches!(f, Cached::Object(_)))
        .count();
    assert!((500..=960).contains(&held), "{held}");
}

#[tokio::test]
async fn a_frozen_redis_costs_a_bounded_wait() {
    let redis = Redis::new();
    let limit = Duration::from_millis(100);
    let store = Arc::new(store_on(std::slice::from_ref(&redis), FEED_MOST, limit));
    wait_until("the first call is in time", || async {
        store.drop_feeds(&[7]).await.is_ok()
    })
    .await;
    wait_until("a feed is there", || async {
        let Ok(building) = store.begin(7).await else {
            return false;
        };
        store.complete(7, &building, &[1, 2, 3]).await.is_ok()
    })
    .await;

    redis.freeze();
    let began = Instant::now();
    let feeds: Vec<UserId> = (0..5000).collect();
    let reads = async {
        let reads = futures_util::future::join_all((0..50).map(|user| newest(&*store, user)));
        let read = tokio::join!(newest(&*store, 7), store.push(4, &[7]), reads);
        (read.0, read.1, began.elapsed())
    };
    let ((read, own, waited), pushed) = tokio::join!(reads, store.push(4, &feeds));
    assert!(matches!(read, Err(StoreFault::Late { .. })), "{read:?}");
    assert!(own.is_err() && pushed.is_err());
    // Twice the limit would do; the machine may be loaded.
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    // Nobody waits for a worker's push, but it has an end, too.
    assert!(began.elapsed() < Duration::from_secs(8), "{waited:?}");

    // Now it is known: no call waits, but for one a second.
    let began = Instant::now();
    for _ in 0..100 {
        assert!(newest(&*store, 7).await.is_err());
    }
    let waited = began.elapsed();
    assert!(waited < Duration::from_secs(1), "{waited:?}");

    redis.thaw();
    wait_until("it is used again", || async {
        newest(&*store, 7).await.is_ok()
    })
    .await;
    // Nothing was lost, and a push that was sent while it was frozen may have been done.
    let ids = newest(&*store, 7).await.unwrap().unwrap();
    assert!(ids == [3, 2, 1] || ids == [4, 3, 2, 1], "{ids:?}");
}

#[tokio::test]
async fn a_restarted_redis_has_lost_its_feeds() {
    let mut redis = Redis::new();
    let store = redis_store(&redis);
    fill(&store, 7, &[1, 2]).await;
    redis.kill();
    let began = Instant::now();
    assert!(matches!(
        newest(&store, 7).await,
        Err(StoreFault::Failed { .. })
    ));
    assert!(began.elapsed() < Duration::from_secs(5));
    redis.start();
    wait_until("it is used again", || async {
        newest(&store, 7).await.is_ok()
    })
    .await;
    assert_eq!(newest(&store, 7).await.unwrap(), None);
    fill(&store, 7, &[3]).await;
    redis.kill();
    redis.start();
    // No call in between: the closed connection costs this one nothing but a new one.
    assert_eq!(newest(&store, 7).await.unwrap(), None);
}

/// A server that is set to keep snapshots (Debian's is) comes back with what was true some minutes ago.
#[tokio::test]
async fn what_redis_kept_over_a_restart_is_not_believed() {
    let mut redis = Redis::new();
    let store = redis_store(&redis);
    fill(&store, 7, &[1, 2]).await;
    let building = store.begin(8).await.unwrap();
    assert_eq!(
        store.objects(&[5, 6]).await.unwrap(),
        [Cached::Absent, Cached::Absent]
    );
    let body = Bytes::from_static(b"five");
    let read_at = Instant::now();
    store
        .put_objects(&[(5, body.clone())], read_at)
        .await
        .unwrap();
    redis.ask::<()>(&["SAVE"]);
    // Behind the snapshot.
    store.push(3, &[7]).await.unwrap();
    store.tombstone(5).await.unwrap();
    redis.kill();
    redis.start();
    assert!(redis.ask::<i64>(&["DBSIZE"]) >= 4);

    assert_eq!(newest(&store, 7).await.unwrap(), None, "3 is missing in it");
    assert_eq!(store.dump(8).await.unwrap(), None);
    assert!(!store.complete(8, &building, &[1]).await.unwrap());
    assert_eq!(
        store.push(4, &[7, 8]).await.unwrap(),
        Pushed {
            absent: 2,
            ..Pushed::default()
        }
    );
    assert_eq!(
        store.objects(&[5]).await.unwrap(),
        [Cached::Absent],
        "5 is deleted"
    );
    // Whoever has read it from Postgres before can't put it back, who reads it now can.
    store
        .put_objects(&[(5, body.clone())], read_at)
        .await
        .unwrap();
    assert_eq!(store.objects(&[5]).await.unwrap(), [Cached::Absent]);
    store
        .put_objects(&[(5, body.clone())], Instant::now())
        .await
        .unwrap();
    assert_eq!(store.objects(&[5]).await.unwrap(), [Cached::Object(body)]);
    fill(&store, 7, &[3, 2]).await;
    assert_eq!(newest(&store, 7).await.unwrap(), Some(vec![3, 2]));
}

/// A reader has the object from Postgres, then it is deleted, then Redis loses the tombstone, then the reader comes.
#[tokio::test]
async fn a_deleted_object_does_not_come_back_through_a_loss() {
    let redis = Redis::new();
    let [reader, other] = [redis_store(&redis), redis_store(&redis)];
    let body = Bytes::from_static(b"five");
    assert_eq!(reader.objects(&[5]).await.unwrap(), [Cached::Absent]);
    let read_at = Instant::now();
    other.tombstone(5).await.unwrap();
    redis.ask::<()>(&["FLUSHALL"]);
    // Even where another process has looked since.
    assert_eq!(other.objects(&[5]).await.unwrap(), [Cached::Absent]);
    reader
        .put_objects(&[(5, body.clone())], read_at)
        .await
        .unwrap();
    assert_eq!(reader.objects(&[5]).await.unwrap(), [Cached::Absent]);
    reader
        .put_objects(&[(5, body.clone())], read_at)
        .await
        .unwrap();
    assert_eq!(other.objects(&[5]).await.unwrap(), [Cached::Absent]);
    other
        .put_objects(&[(5, body.clone())], Instant::now())
        .await
        .unwrap();
    assert_eq!(reader.objects(&[5]).await.unwrap(), [Cached::Object(body)]);
}

#[tokio::test]
async fn a_node_that_is_down_does_not_stop_the_other() {
    let mut nodes = InRedis::of(2).0;
    let store = store_on(&nodes, FEED_MOST, Duration::from_secs(20));
    let users: Vec<UserId> = (0..200).collect();
    for user in &users {
        fill(&store, *user, &[1]).await;
    }
    let sizes: Vec<i64> = nodes.iter().map(|node| node.ask(&["DBSIZE"])).collect();
    assert!(
        sizes[0] > 50 && sizes[1] > 50 && sizes[0] + sizes[1] == 200,
        "{sizes:?}"
    );
    nodes[1].kill();
    let fault = store.push(2, &users).await.unwrap_err();
    assert!(fault.to_string().starts_with("r2: "), "{fault}");
    let mut found = [0, 0];
    for user in &users {
        match newest(&store, *user).await {
            Ok(ids) => {
                assert_eq!(ids, Some(vec![2, 1]), "{user}");
                found[0] += 1;
            }
            Err(fault) => {
                assert!(fault.to_string().starts_with("r2: "), "{fault}");
                found[1] += 1;
            }
        }
    }
    assert_eq!(found.map(i64::from), sizes[..]);
}

/// Feeds live for 30 days from the last read on, and no key is without an end.
#[tokio::test]
async fn all_that_is_in_redis_expires() {
    const MONTH: i64 = 30 * 24 * 3600;
    let redis = Redis::new();
    let store = redis_store(&redis);
    fill(&store, 7, &[1, 2]).await;
    store.begin(8).await.unwrap();
    let keys: Vec<String> = redis.ask(&["KEYS", "f*:*"]);
    let feeds: Vec<String> = keys
        .into_iter()
        .filter(|key| key.starts_with("f{"))
        .collect();
    assert_eq!(feeds.len(), 2);
    let ttl = |key: &str| redis.ask::<i64>(&["TTL", key]);
    for feed in &feeds {
        assert!((MONTH - 60..=MONTH).contains(&ttl(feed)), "{feed}");
        redis.ask::<()>(&["EXPIRE", feed, "1000000"]);
    }
    // A push is no read.
    store.push(3, &[7, 8]).await.unwrap();
    assert!(feeds.iter().all(|feed| ttl(feed) <= 1_000_000));
    newest(&store, 7).await.unwrap();
    let read = feeds.iter().filter(|feed| ttl(feed) > MONTH - 60).count();
    assert_eq!(read, 1);
    store.objects(&[5]).await.unwrap();
    store
        .put_objects(&[(5, Bytes::from_static(b"five"))], Instant::now())
        .await
        .unwrap();
    store.tombstone(6).await.unwrap();
    let objects: Vec<String> = redis.ask(&["KEYS", "o{*"]);
    assert_eq!(objects.len(), 2);
    assert!(objects.iter().all(|key| (1..=3600).contains(&ttl(key))));
}

/// Feeds that are thrown out go as a whole; where nothing may be thrown out the push fails, and nothing else.
#[tokio::test]
async fn a_full_redis_keeps_or_drops_whole_feeds() {
    let redis = Redis::with(&["--maxmemory", "6mb", "--maxmemory-policy", "allkeys-lru"]);
    let store = redis_store(&redis);
    let ids: Vec<MediaId> = (1..=500).collect();
    let users: Vec<UserId> = (0..1500).collect();
    for user in &users {
        fill(&store, *user, &ids).await;
    }
    let pushed = store.push(501, &users).await.unwrap();
    assert_eq!(pushed.new + pushed.absent, 1500);
    let mut whole = 0;
    for user in &users {
        if let Some(found) = newest(&store, *user).await.unwrap() {
            let from = found.len() as i64;
            assert!(from >= 500, "feed {user} has {from} ids");
            assert!(found.into_iter().eq((1..=from).rev()), "feed {user}");
            whole += 1;
        }
    }
    assert!((10..1490).contains(&whole), "{whole}");

    redis.ask::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1mb"]);
    // A feed that can't take it goes: it would lack it.
    let pushed = store.push(502, &users).await.unwrap();
    assert!(
        pushed.absent > 0 && pushed.new + pushed.absent == 1500,
        "{pushed:?}"
    );
    for user in &users {
        if let Some(found) = newest(&store, *user).await.unwrap() {
            assert_eq!(found[0], 502, "feed {user}");
        }
    }
}

/// A full server takes no tombstone: then the object goes, and who has read it before can't put it back.
#[tokio::test]
async fn what_is_deleted_is_gone_from_a_full_redis() {
    let redis = Redis::new();
    let store = redis_store(&redis);
    let other = redis_store(&redis);
    let put = async |store: &RedisStore, at| {
        let five = [(5, Bytes::from_static(b"five"))];
        store.put_objects(&five, at).await.unwrap();
        store.objects(&[5]).await.unwrap()
    };
    store.objects(&[5]).await.unwrap();
    other.objects(&[5]).await.unwrap();
    let before = Instant::now();
    let [Cached::Object(_)] = put(&store, before).await[..] else {
        panic!("it is not cached")
    };
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    store.tombstone(5).await.unwrap();
    assert_eq!(store.objects(&[5]).await.unwrap(), [Cached::Absent]);
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    // A new epoch begins, and what is read in it can be put.
    for store in [&store, &other, &store] {
        assert_eq!(put(store, before).await, [Cached::Absent]);
    }
    let now = put(&store, Instant::now()).await;
    assert!(matches!(now[..], [Cached::Object(_)]), "{now:?}");
}

#[tokio::test]
async fn a_redis_that_is_read_only_has_failed() {
    let redis = Redis::new();
    let store = redis_store(&redis);
    fill(&store, 7, &[1, 2]).await;
    redis.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    for fault in [
        store.push(3, &[7]).await.unwrap_err(),
        store.tombstone(5).await.unwrap_err(),
    ] {
        assert!(matches!(fault, StoreFault::Failed { .. }), "{fault}");
    }
    redis.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(store.push(3, &[7]).await.unwrap().new, 1);
}

/// An id from the layout of ids, some ms later than the one before.
fn id(n: usize) -> MediaId {
    (400_000_000_000 + n as i64 * 997) << 23 | (n as i64 % 4096) << 10 | 5
}

/// With `MEMORY USAGE`, keys and all that belongs to them counted in.
async fn bytes_per_entry(redis: &Redis, store: &dyn Store, entries: usize) -> f64 {
    let user = 1_000_000_000 + entries as i64;
    let ids: Vec<MediaId> = (0..entries / 2).map(id).collect();
    fill(store, user, &ids).await;
    for n in entries / 2..entries {
        store.push(id(n), &[user]).await.unwrap();
    }
    let keys: Vec<String> = redis.ask(&["KEYS", &format!("f{{*}}:{user}")]);
    let bytes: u64 = redis.ask(&["MEMORY", "USAGE", &keys[0], "SAMPLES", "0"]);
    bytes as f64 / entries as f64
}

#[tokio::test]
async fn an_entry_takes_at_most_12_bytes() {
    let redis = Redis::new();
    let store = redis_store(&redis);
    let found = bytes_per_entry(&redis, &store, FEED_MOST).await;
    assert!(found <= 12.0, "{found}");
}

/// `cargo test --release --test tests -- --ignored --exact --nocapture feed::store::measure`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test"]
async fn measure() {
    let redis = Redis::new();
    let store = Arc::new(redis_store(&redis));
    for entries in [10, 100, 400, FEED_MOST] {
        let bytes = bytes_per_entry(&redis, &*store, entries).await;
        println!("bytes of an entry, feed of {entries}: {bytes:.2}");
    }
    let users: Vec<UserId> = (0..5000).map(|n| 1_000_003 * n).collect();
    let before: u64 = used_memory(&redis);
    let short: Vec<MediaId> = (0..100).map(id).collect();
    for user in &users {
        fill(&*store, *user, &short).await;
    }
    let bytes = (used_memory(&redis) - before) as f64 / users.len() as f64;
    println!("used_memory of a feed of 100: {bytes:.0} bytes");
    let next = AtomicI64::new(100);
    for (what, batches) in [("growing", 100), ("full", 900)] {
        for lanes in [1, 4] {
            let began = Instant::now();
            let cpu = server_cpu(&redis);
            let push = async || {
                for _ in 0..batches / lanes {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    store.push(id(n as usize), &users).await.unwrap();
                }
            };
            futures_util::future::join_all((0..lanes).map(|_| push())).await;
            let pushes = (batches / lanes * lanes * users.len()) as f64;
            let rate = pushes / began.elapsed().as_secs_f64();
            let cpu = (server_cpu(&redis) - cpu) * 1e6 / pushes;
            println!(
                "{what} feeds, {lanes} batches of 5,000 at a time: {rate:.0} pushes/s, {cpu:.2} us of the server's CPU each"
            );
        }
    }
    let bytes = (used_memory(&redis) - before) as f64 / users.len() as f64;
    println!("used_memory of a full feed: {bytes:.0} bytes");
    // Reads beside pushes.
    let stop = AtomicBool::new(false);
    let pushing = async {
        while !stop.load(Ordering::Relaxed) {
            let n = next.fetch_add(1, Ordering::Relaxed);
            store.push(id(n as usize), &users).await.unwrap();
        }
    };
    let reading = async {
        let mut times = Vec::new();
        for user in users.iter().cycle().take(5000) {
            let began = Instant::now();
            store.read(*user, Span::Newest, 100).await.unwrap().unwrap();
            times.push(began.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
        times.sort();
        println!(
            "read of 100 beside pushes: p50 {:?}, p99 {:?}",
            times[2500], times[4950]
        );
    };
    tokio::join!(pushing, reading);
}

fn used_memory(redis: &Redis) -> u64 {
    info(redis, "memory", "used_memory:").parse().unwrap()
}

/// Seconds.
fn server_cpu(redis: &Redis) -> f64 {
    ["used_cpu_user:", "used_cpu_sys:"]
        .map(|name| info(redis, "cpu", name).parse::<f64>().unwrap())
        .iter()
        .sum()
}

fn info(redis: &Redis, section: &str, name: &str) -> String {
    let info: String = redis.ask(&["INFO", section]);
    let line = info.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().to_owned()
}

fn redis_store(redis: &Redis) -> RedisStore {
    RedisStore::new(&redis.config()).unwrap()
}
