//! Posting and deleting: one transaction on the author's shard, once for each key.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use presplit::feed::db::Fault;
use presplit::feed::graph;
use presplit::feed::outbox::Wake;
use presplit::feed::post::{Deleted, delete, post};
use presplit::feed::store::{Cached, Store};
use presplit::shardmap::id;

use super::service::{SHARDS, Service};
use crate::support::wait_until;

#[tokio::test(flavor = "multi_thread")]
async fn posts_and_deletions() {
    let service = Service::new().await;
    one_transaction_on_one_shard(&service).await;
    the_same_key_gives_the_same_media(&service).await;
    values_that_cant_be_stored(&service).await;
    deletions(&service).await;
    without_a_store(&service).await;
}

/// Media, outbox row and count bear the same transaction's number, on the author's shard and nowhere else.
async fn one_transaction_on_one_shard(service: &Service) {
    let author = 42;
    let posted = post(
        &service.db,
        &*service.store,
        &Wake::none(false),
        author,
        r#"{"x": 1}"#,
        None,
    )
    .await
    .unwrap();
    assert!(posted.fresh && !posted.deleted);
    let shard = author as u32 % SHARDS;
    assert_eq!(id::shard(posted.id).unwrap().0, shard);
    let host = service.hosts.client(service.hosts.owner(shard)).await;
    let sql = format!(
        "SELECT m.xmin::text = o.xmin::text AND m.xmin::text = c.xmin::text AND o.kind = 'post' AND c.value = 1 AND m.body = '{{\"x\": 1}}' \
         FROM shard_{shard:04}.media m, shard_{shard:04}.outbox o, shard_{shard:04}.counters c \
         WHERE m.id = {} AND m.user_id = 42 AND o.object = m.id AND o.user_id = 42 AND c.user_id = 42 AND c.name = 'posts'",
        posted.id
    );
    let rows = host.query(&sql, &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert!(rows[0].get::<_, bool>(0));
    assert_eq!(service.number("SELECT count(*) FROM media").await, 1);
    let commits = service.number("SELECT count(*) FROM outbox").await;
    assert_eq!(commits, 1);
}

/// What Postgres can't store is the caller's fault, and nothing is left of it.
async fn values_that_cant_be_stored(service: &Service) {
    for body in ["{", r#"{"x": "\u0000"}"#, "{\"x\": \"\0\"}"] {
        let fault = post(
            &service.db,
            &*service.store,
            &Wake::none(false),
            80,
            body,
            None,
        )
        .await;
        assert!(matches!(fault, Err(Fault::Value(_))), "{body}: {fault:?}");
    }
    let rows = "SELECT count(*) FROM outbox WHERE user_id = 80";
    assert_eq!(service.number(rows).await, 0);
}

async fn the_same_key_gives_the_same_media(service: &Service) {
    let author = 43;
    let wake = Wake::none(false);
    let all = join_all((0..24).map(|i| {
        let (service, wake) = (&service, &wake);
        async move {
            let body = format!("{{\"try\": {i}}}");
            post(
                &service.db,
                &*service.store,
                wake,
                author,
                &body,
                Some("key 1"),
            )
            .await
        }
    }))
    .await;
    let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
    assert!(all.iter().all(|p| p.id == all[0].id));
    assert_eq!(all.iter().filter(|p| p.fresh).count(), 1);
    let rows = "SELECT (SELECT count(*) FROM media WHERE user_id = 43) * 10 + (SELECT count(*) FROM outbox WHERE user_id = 43)";
    assert_eq!(service.number(rows).await, 11);
    assert_eq!(graph::counts(&service.db, &[43]).await.unwrap()[0].posts, 1);
    // Another author's key is another key.
    let other = post(&service.db, &*service.store, &wake, 51, "{}", Some("key 1"))
        .await
        .unwrap();
    assert!(other.fresh);
    // Deleted is not posted again.
    assert_eq!(
        delete(&service.db, &*service.store, &wake, author, all[0].id)
            .await
            .unwrap(),
        Deleted::Now
    );
    let again = post(
        &service.db,
        &*service.store,
        &wake,
        author,
        "{}",
        Some("key 1"),
    )
    .await
    .unwrap();
    assert!(again.deleted && !again.fresh && again.id == all[0].id);
}

async fn deletions(service: &Service) {
    let (db, store, wake) = (&service.db, &*service.store, &Wake::none(false));
    let (mine, others) = (
        post(db, store, wake, 60, "{}", None).await.unwrap().id,
        post(db, store, wake, 61, "{}", None).await.unwrap().id,
    );
    assert_eq!(
        delete(db, store, wake, 60, others).await.unwrap(),
        Deleted::Nothing
    );
    assert_eq!(store.objects(&[others]).await.unwrap(), [Cached::Absent]);
    assert_eq!(
        delete(db, store, wake, 60, mine).await.unwrap(),
        Deleted::Now
    );
    assert_eq!(store.objects(&[mine]).await.unwrap(), [Cached::Tombstone]);
    assert_eq!(
        delete(db, store, wake, 60, mine).await.unwrap(),
        Deleted::Now
    );
    assert_eq!(
        graph::counts(db, &[60, 61, 62]).await.unwrap().map_posts(),
        [0, 1, 0]
    );
    assert_eq!(
        service
            .number("SELECT count(*) FROM outbox WHERE user_id = 60 AND kind = 'delete'")
            .await,
        1
    );
}

async fn without_a_store(service: &Service) {
    let (db, store, wake) = (&service.db, &*service.store, &Wake::none(false));
    store.away.store(true, Ordering::SeqCst);
    let id = post(db, store, wake, 70, "{}", None).await.unwrap().id;
    assert_eq!(
        delete(db, store, wake, 70, id).await.unwrap(),
        Deleted::ToCome
    );
    store.away.store(false, Ordering::SeqCst);
    let workers = service.workers(Service::work());
    service.quiet().await;
    assert_eq!(store.objects(&[id]).await.unwrap(), [Cached::Tombstone]);
    // What the webhook has yet to hear of stays, and nobody works on it again.
    let id = post(db, store, &Wake::none(true), 70, "{}", None)
        .await
        .unwrap()
        .id;
    wait_until("only the webhook is left", || async {
        let left =
            "SELECT coalesce(max(object), 0) FROM outbox WHERE hook_at IS NOT NULL AND due_at = 'infinity'";
        service.number(left).await == id
    })
    .await;
    drop(workers);
}

trait MapPosts {
    fn map_posts(&self) -> Vec<i64>;
}

impl MapPosts for Vec<graph::Counts> {
    fn map_posts(&self) -> Vec<i64> {
        self.iter().map(|c| c.posts).collect()
    }
}
