//! Workers of other processes hear of posts by way of Redis.

use std::sync::Arc;
use std::time::Duration;

use presplit::feed::fanout::{WorkSettings, Workers};
use presplit::feed::outbox::Wake;
use presplit::feed::post;
use presplit::feed::stars::{StarSettings, Stars};
use presplit::feed::store::{RedisStore, Store};
use presplit::feed::{MediaId, UserId};

use super::place::{Bench, db, users};
use crate::support::{Redis, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_pushed_before_anybody_looks_for_its_row() {
    let mut redis = Redis::new();
    let store: Arc<dyn Store> = Arc::new(RedisStore::new(&redis.config()).unwrap());
    let bench = Bench::new().await;
    let [author, reader] = users(2)[..] else {
        unreachable!()
    };
    bench.follow(reader, &[author]).await;
    let settings = WorkSettings {
        sweep: Duration::from_secs(3600),
        ..WorkSettings::default()
    };
    let workers = || async {
        let db = db().await;
        let stars = Arc::new(Stars::new(db.clone(), StarSettings::default()));
        Workers::start(db, store.clone(), stars, settings)
    };
    let _workers = [workers().await, workers().await];
    let begin = || async {
        let building = store.begin(reader).await.unwrap();
        assert!(store.complete(reader, &building, &[]).await.unwrap());
    };
    let reaches = async |id: MediaId| {
        wait_until("the post is in the feed", || async {
            store_of(&store, reader).await.contains(&id)
        })
        .await;
    };
    begin().await;
    // Their first look may find one.
    for n in 0..5 {
        reaches(say(&bench, &*store, author, n).await).await;
    }
    redis.kill();
    redis.start();
    wait_until("Redis is used again", || async {
        store.dump(reader).await.is_ok()
    })
    .await;
    begin().await;
    // A worker asks again after a second, and what was told meanwhile is there still.
    reaches(say(&bench, &*store, author, 9).await).await;
}

async fn store_of(store: &Arc<dyn Store>, user: UserId) -> Vec<MediaId> {
    let feed = store.dump(user).await.unwrap();
    feed.map_or(Vec::new(), |feed| feed.ids)
}

async fn say(bench: &Bench, store: &dyn Store, author: UserId, n: u32) -> MediaId {
    let wake = Wake::none(false);
    let body = n.to_string();
    let posted = post::post(&bench.db, store, &wake, author, &body, None).await;
    posted.unwrap().id
}

/// Each is heard of once, in order; what nobody wants to hear of is forgotten.
#[tokio::test]
async fn rows_are_told_once() {
    let redis = Redis::new();
    let store = RedisStore::new(&redis.config()).unwrap();
    assert_eq!(store.woken(10).await.unwrap(), []);
    for row in [5, -7, i64::MAX] {
        store.wake(row - 1, row).await.unwrap();
    }
    let ttl: i64 = redis.ask(&["TTL", "w{0}:0"]);
    assert!((1..=10).contains(&ttl), "{ttl}");
    assert_eq!(store.woken(2).await.unwrap(), [(4, 5), (-8, -7)]);
    assert_eq!(store.woken(2).await.unwrap(), [(i64::MAX - 1, i64::MAX)]);
    assert_eq!(store.woken(2).await.unwrap(), []);
    redis.ask::<()>(&["RPUSH", "w{0}:0", "nonsense"]);
    assert!(store.woken(2).await.is_err());
    assert_eq!(store.woken(2).await.unwrap(), []);
}
