//! What is done beside all else: mirrors are mended, what was deleted long ago is taken away; and who has feeds in its memory beside
//! another says so.

use std::sync::Arc;
use std::time::Duration;

use presplit::feed::graph;
use presplit::feed::keep::{KeepSettings, Keeper};
use presplit::feed::outbox::Wake;
use presplit::feed::post::{delete, post};
use presplit::feed::service::{Service as Process, Settings};
use presplit::feed::store::{MemoryLimits, MemoryStore};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use super::http::metric;
use super::service::Service;
use crate::support::wait_until;

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_mended_and_what_is_long_gone_is_swept() {
    let service = Service::new().await;
    let (db, store) = (&service.db, &*service.store);
    let all = async |sql: &str| {
        let sql = format!("/* presplit: all */ {sql}");
        db.unprepared(&sql).await.unwrap();
    };
    // 1 to 20 follow others on all shards; 1 to 5 stop that, long ago; 6 and 7 stop it now.
    for source in 1..=20 {
        graph::follow(db, store, source, 100 + source)
            .await
            .unwrap();
        if source <= 7 {
            graph::unfollow(db, store, source, 100 + source)
                .await
                .unwrap();
        }
    }
    all(
        "UPDATE follow_out SET changed_at = now() - interval '31 days' WHERE user_id NOT IN (6, 7)",
    )
    .await;
    // What the unfollow of 5 had to say to the other side is lost, and one mirror.
    all("UPDATE follow_in SET status = 'following', rev = rev - 1 WHERE source = 5").await;
    all("DELETE FROM follow_in WHERE source = 20").await;
    let wake = Wake::none(false);
    for author in 1..=10 {
        let id = post(db, store, &wake, author, "{}", None).await.unwrap().id;
        if author <= 6 {
            delete(db, store, &wake, author, id).await.unwrap();
        }
    }
    all("UPDATE media SET deleted_at = now() - interval '31 days' WHERE deleted_at IS NOT NULL AND user_id <> 6").await;
    let settings = KeepSettings {
        pause: Duration::from_millis(1),
        ..KeepSettings::default()
    };
    let registry = Registry::new();
    let keeper = Keeper::new(db.clone(), service.store.clone(), settings, &registry).unwrap();
    let keeping = tokio::spawn(keeper.run());
    let count = async |from: &str| {
        service
            .number(&format!("SELECT count(*) FROM {from}"))
            .await
    };
    wait_until("all is in order", || async {
        count("follow_out WHERE user_id <= 5").await == 0
            && count("follow_in WHERE source <= 5").await == 0
            && count("follow_in WHERE source = 20 AND status = 'following'").await == 1
            && count("media").await == 5
    })
    .await;
    keeping.abort();
    assert_eq!(count("follow_out WHERE status = 'gone'").await, 2);
    assert_eq!(count("follow_in WHERE status = 'gone'").await, 2);
    assert_eq!(count("follow_out WHERE status = 'following'").await, 13);
    assert_eq!(count("media WHERE deleted_at IS NOT NULL").await, 1);
    let said = prometheus::TextEncoder::new();
    let said = said.encode_to_string(&registry.gather()).unwrap();
    assert!(said.contains("presplit_feed_swept_total 10"), "{said}");
    // An edge begins anew as any does.
    graph::follow(db, store, 1, 101).await.unwrap();
    assert_eq!(
        count("follow_in WHERE source = 1 AND status = 'following'").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_with_feeds_in_their_memory_are_told_of() {
    let service = Service::new().await;
    let start = async || {
        let store = Arc::new(MemoryStore::new(MemoryLimits::default()));
        let settings = Settings {
            work: Service::work(),
            ..Settings::new(service.url(), store)
        };
        let stop = CancellationToken::new();
        let process = Process::start(settings, stop.clone()).await.unwrap();
        let at = process.address().unwrap();
        (at, stop, tokio::spawn(process.run()))
    };
    let not_alone = async |at| {
        let said = tokio::task::spawn_blocking(move || metric(at, "not_alone"));
        said.await.unwrap()
    };
    let (first, stop, running) = start().await;
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    wait_until("the first has the lock", || async {
        let mut held = 0;
        for host in 0..2 {
            let client = service.hosts.client(host).await;
            held += client.query_one(locks, &[]).await.unwrap().get::<_, i64>(0);
        }
        held > 0
    })
    .await;
    let (second, ..) = start().await;
    wait_until("the second says so", || async {
        not_alone(second).await == "1"
    })
    .await;
    assert_eq!(not_alone(first).await, "0");
    stop.cancel();
    running.await.unwrap();
    wait_until("it is alone", || async { not_alone(second).await == "0" }).await;
}
