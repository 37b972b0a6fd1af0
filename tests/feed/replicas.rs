//! Replicas of Redis: read while they are in step, and at no other time.

use std::time::{Duration, Instant};

use bytes::Bytes;
use presplit::feed::store::{Cached, RedisStore, Span, Store};
use presplit::feed::{MediaId, UserId};
use redis::IntoConnectionInfo as _;

use crate::support::{Redis, wait_until};

/// As long as a replica may lag, in the store.
const STALE_MOST: Duration = Duration::from_millis(700);

struct Pair {
    primary: Redis,
    replica: Redis,
    store: RedisStore,
}

impl Pair {
    async fn new() -> Pair {
        let primary = Redis::with(&["--repl-diskless-sync-delay", "0"]);
        let port = primary.port().to_string();
        let replica = Redis::with(&["--replicaof", "127.0.0.1", &port]);
        let mut config = primary.config();
        config.limit = Duration::from_millis(500);
        let at = replica.url().into_connection_info().unwrap();
        config.nodes[0].replicas = vec![at];
        let store = RedisStore::new(&config).unwrap();
        wait_until("the replica is one", || async {
            let said: String = replica.ask(&["INFO", "replication"]);
            said.contains("master_link_status:up")
        })
        .await;
        let pair = Pair {
            primary,
            replica,
            store,
        };
        pair.fill(1, &[1]).await;
        pair.in_step().await;
        pair
    }

    async fn fill(&self, user: UserId, ids: &[MediaId]) {
        let building = self.store.begin(user).await.unwrap();
        assert!(self.store.complete(user, &building, ids).await.unwrap());
    }

    async fn read(&self, user: UserId) -> Option<Vec<MediaId>> {
        let read = self.store.read(user, Span::Newest, 100).await.unwrap();
        read.map(|ids| ids.ids)
    }

    /// Reads that a server has answered: calls of scripts and of MGET.
    fn reads(&self, of: &Redis) -> u64 {
        let said: String = of.ask(&["INFO", "commandstats"]);
        let calls = |command: &str| {
            let found = said
                .lines()
                .find_map(|l| l.strip_prefix(command)?.strip_prefix(":calls="));
            found.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
        };
        calls("cmdstat_evalsha") + calls("cmdstat_mget")
    }

    async fn in_step(&self) {
        wait_until("the replica is read", || async {
            let before = self.reads(&self.replica);
            self.read(1).await;
            self.reads(&self.replica) > before
        })
        .await;
    }

    /// From now on the replica hears of nothing, and has what it has.
    fn cut(&self) -> Instant {
        self.replica.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
        Instant::now()
    }
}

#[tokio::test]
async fn reads_go_to_a_replica_in_step_and_writes_to_the_primary() {
    let pair = Pair::new().await;
    for user in 10..60 {
        pair.fill(user, &[1, 2, 3]).await;
        pair.store.push(user + 100, &[user, 9999]).await.unwrap();
    }
    let bodies: Vec<_> = (1..=30)
        .map(|id| (id, Bytes::from(vec![b'x'; id as usize])))
        .collect();
    let ids: Vec<MediaId> = (1..=30).collect();
    pair.store.objects(&ids).await.unwrap();
    pair.store
        .put_objects(&bodies, Instant::now())
        .await
        .unwrap();
    pair.store.tombstone(30).await.unwrap();
    let offset = |of: &Redis, name: &str| {
        let said: String = of.ask(&["INFO", "replication"]);
        let found = said.lines().find_map(|l| l.strip_prefix(name));
        found.unwrap().trim().parse::<u64>().unwrap()
    };
    let written = offset(&pair.primary, "master_repl_offset:");
    wait_until("the replica has it all", || async {
        offset(&pair.replica, "slave_repl_offset:") >= written
    })
    .await;
    pair.in_step().await;
    let (before, primary_before) = (pair.reads(&pair.replica), pair.reads(&pair.primary));
    for user in 10..60 {
        assert_eq!(pair.read(user).await, Some(vec![user + 100, 3, 2, 1]));
        let span = Span::Before(3);
        let older = pair.store.read(user, span, 1).await.unwrap().unwrap();
        assert_eq!((older.ids, older.more), (vec![2], true));
    }
    let found = pair.store.objects(&ids).await.unwrap();
    assert_eq!(found[29], Cached::Tombstone);
    assert_eq!(found[4], Cached::Object(bodies[4].1.clone()));
    // On a machine so loaded that it falls out of step now and then it is not all of them.
    let by_replica = pair.reads(&pair.replica) - before;
    let by_primary = pair.reads(&pair.primary) - primary_before;
    assert!(by_replica > by_primary, "{by_replica} {by_primary}");
    // What it does not have the primary is asked for.
    assert_eq!(pair.read(77).await, None);
    pair.fill(78, &[5]).await;
    assert_eq!(pair.read(78).await, Some(vec![5]));
}

#[tokio::test]
async fn a_replica_that_is_cut_off_is_not_read_for_long() {
    let pair = Pair::new().await;
    pair.fill(7, &[1, 2]).await;
    let five = (5, Bytes::from_static(b"five"));
    pair.store.objects(&[5, 6]).await.unwrap();
    pair.store
        .put_objects(&[five], Instant::now())
        .await
        .unwrap();
    pair.in_step().await;
    let cut = pair.cut();
    pair.store.push(3, &[7]).await.unwrap();
    pair.store.tombstone(5).await.unwrap();
    // Its author asks for a single one: that is gone at once.
    assert_eq!(pair.store.objects(&[5]).await.unwrap(), [Cached::Tombstone]);
    tokio::time::sleep_until((cut + STALE_MOST).into()).await;
    assert_eq!(pair.read(7).await, Some(vec![3, 2, 1]));
    let found = pair.store.objects(&[5, 6]).await.unwrap();
    assert_eq!(found, [Cached::Tombstone, Cached::Absent]);
}

#[tokio::test]
async fn a_replica_that_hangs_or_falls_costs_little_and_a_primary_that_falls_makes_nothing_stale() {
    let mut pair = Pair::new().await;
    pair.fill(7, &[1, 2]).await;
    pair.in_step().await;
    pair.replica.freeze();
    let began = Instant::now();
    assert_eq!(pair.read(7).await, Some(vec![2, 1]));
    tokio::time::sleep_until((began + STALE_MOST).into()).await;
    for _ in 0..20 {
        assert_eq!(pair.read(7).await, Some(vec![2, 1]));
    }
    pair.replica.thaw();
    pair.in_step().await;
    pair.primary.kill();
    let fell = Instant::now();
    tokio::time::sleep_until((fell + STALE_MOST).into()).await;
    // The page comes from Postgres then.
    assert!(pair.store.read(7, Span::Newest, 100).await.is_err());
    pair.primary.start();
    // It has lost all, whatever the replica still shows.
    wait_until("it is absent", || async {
        let read = pair.store.read(7, Span::Newest, 100).await;
        read.is_ok_and(|found| found.is_none())
    })
    .await;
    pair.fill(7, &[3]).await;
    assert_eq!(pair.read(7).await, Some(vec![3]));
    pair.replica.kill();
    assert_eq!(pair.read(7).await, Some(vec![3]));
}
