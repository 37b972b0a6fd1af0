//! One host of two is frozen, or takes no writes: what is on the other goes on.

use std::time::{Duration, Instant};

use presplit::feed::db::{Db, DbSettings, Fault};
use presplit::feed::fanout::WorkSettings;
use presplit::feed::outbox::Wake;
use presplit::feed::post::post;
use presplit::feed::{MediaId, UserId};

use super::hook::{Relay, Webhook};
use super::service::Service;
use crate::support::{connect, wait_until};

// Users 0 to 3 of each eight are on host a, the others on b.
const HERE: UserId = 1;
const THERE: UserId = 5;

async fn say(service: &Service, wake: &Wake) -> MediaId {
    let posted = post(&service.db, &*service.store, wake, HERE, "{}", None).await;
    posted.unwrap().id
}

/// Asks the host of a user.
async fn rows_of(db: &Db, user: UserId) -> Result<Vec<tokio_postgres::Row>, Fault> {
    let sql = "SELECT id FROM outbox WHERE user_id = $1";
    db.ask(sql, &[&user]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_host_is_waited_for_once_and_health_does_not_hang_on_it() {
    let service = Service::new().await;
    let limit = Duration::from_secs(3);
    let db = Db::new(&DbSettings {
        url: service.url(),
        connections: 1,
        statement: limit,
        ..DbSettings::default()
    })
    .unwrap();
    let ask = async |user| rows_of(&db, user).await;
    ask(THERE).await.unwrap();
    service.hosts.clusters[1].freeze();
    let began = Instant::now();
    let fault = ask(THERE).await.unwrap_err();
    assert!(fault.to_string().contains("no answer within"), "{fault}");
    let took = began.elapsed();
    assert!(took >= limit && took < 2 * limit, "{took:?}");
    ask(HERE).await.unwrap();
    db.ping().await.unwrap();
    service.hosts.clusters[0].freeze();
    db.ping().await.unwrap();
    for host in &service.hosts.clusters {
        host.thaw();
    }
    wait_until("it is there again", || async { ask(THERE).await.is_ok() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_do_not_wait_behind_edges_that_a_host_does_not_take() {
    let service = Service::new().await;
    service.followers(HERE, 1000..1030).await;
    // All of them are on shard 5. What is written there waits for as long as a statement may take, each.
    let host = service.hosts.client(1).await;
    let held = "BEGIN; LOCK TABLE shard_0005.follow_in IN EXCLUSIVE MODE";
    host.batch_execute(held).await.unwrap();
    for sql in [
        "INSERT INTO follow_out (user_id, target, status, rev) SELECT $1, 8 * g + 5, 'following', 1 FROM generate_series(1, 40) AS g",
        "INSERT INTO outbox (user_id, kind, object) SELECT $1, 'edge', 8 * g + 5 FROM generate_series(1, 40) AS g",
    ] {
        service.db.once(sql, &[&HERE]).await.unwrap();
    }
    let workers = service.workers(WorkSettings {
        fast: 2,
        slow: 1,
        lease: Duration::from_secs(60),
        ..Service::work()
    });
    let edges = async |which: &str| {
        let sql =
            format!("SELECT count(*) FROM outbox WHERE user_id = {HERE} AND kind = 'edge' {which}");
        service.number(&sql).await
    };
    wait_until("edges are taken", || async {
        edges("AND due_at > now()").await >= 3
    })
    .await;
    let watch = service.hosts.client(1).await;
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'shard_0005.follow_in'::regclass";
    wait_until("an edge waits for the host", || async {
        watch
            .query_one(waiting, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            > 0
    })
    .await;
    for _ in 0..3 {
        let id = say(&service, &workers.wake()).await;
        wait_until("a post arrives", || async {
            service.feed(1029).await.contains(&id)
        })
        .await;
    }
    assert_eq!(edges("").await, 40, "no edge was settled meanwhile");
    host.batch_execute("ROLLBACK").await.unwrap();
    service.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_do_not_wait_behind_those_to_a_frozen_host() {
    let service = Service::new().await;
    let db = Db::new(&DbSettings {
        url: service.url(),
        connections: 4,
        ..DbSettings::default()
    })
    .unwrap();
    let ask = async |user| rows_of(&db, user).await;
    ask(THERE).await.unwrap();
    service.hosts.clusters[1].freeze();
    let there = futures_util::future::join_all((0..8).map(|_| ask(THERE)));
    let here = async {
        // Behind all of those, which have a place or wait for one since they were first polled.
        for _ in 0..100 {
            ask(HERE).await.unwrap();
        }
    };
    let began = Instant::now();
    let (there, ()) = tokio::join!(there, async {
        here.await;
        assert!(
            began.elapsed() < Duration::from_secs(9),
            "{:?}",
            began.elapsed()
        );
    });
    assert!(there.iter().all(Result::is_err));
    service.hosts.clusters[1].thaw();
    wait_until("it is there again", || async { ask(THERE).await.is_ok() }).await;
}

/// From now on the host of [`THERE`] can be read only, or written to again.
async fn read_only(service: &Service, on: bool) {
    let host = connect(&service.hosts.clusters[1].config()).await;
    let sql = format!("ALTER SYSTEM SET default_transaction_read_only = {on}");
    host.batch_execute(&sql).await.unwrap();
    let reload = "SELECT pg_reload_conf()";
    host.batch_execute(reload).await.unwrap();
    wait_until("it is heeded", || async {
        let sql = "UPDATE outbox SET attempts = attempts WHERE user_id = $1";
        service.db.once(sql, &[&THERE]).await.is_err() == on
    })
    .await;
}

/// Rows that are due, for longer than any others.
async fn rows_there(service: &Service, count: i64, due_at: &str, hook_at: &str) {
    let sql = format!(
        "INSERT INTO outbox (user_id, kind, object, due_at, hook_at) SELECT $1, 'post', g, {due_at}, {hook_at} FROM generate_series(1, $2::bigint) AS g"
    );
    service.db.once(&sql, &[&THERE, &count]).await.unwrap();
}

const LONG_AGO: &str = "now() - interval '1 hour'";

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_can_not_be_taken_hide_no_others() {
    let service = Service::new().await;
    service.followers(HERE, 1000..1030).await;
    rows_there(&service, 20, LONG_AGO, "NULL").await;
    let here = say(&service, &Wake::none(false)).await;
    read_only(&service, true).await;
    let _workers = service.workers(WorkSettings {
        sweep_rows: 10,
        ..Service::work()
    });
    wait_until("the others are found", || async {
        service.feed(1029).await.contains(&here)
    })
    .await;
    read_only(&service, false).await;
    service.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_can_not_be_taken_hide_no_others() {
    let service = Service::new().await;
    let hook = Webhook::start();
    rows_there(&service, 520, "'infinity'", LONG_AGO).await;
    let here = say(&service, &Wake::none(true)).await;
    read_only(&service, true).await;
    let _workers = service.workers(Service::work());
    let _relay = Relay::start(&service, &hook, Service::work());
    wait_until("the others are told", || async {
        hook.heard("post").contains(&here)
    })
    .await;
    read_only(&service, false).await;
    service.quiet().await;
}
