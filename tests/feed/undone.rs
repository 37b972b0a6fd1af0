//! A block that is undone before the other side has heard of it: who followed before has to follow anew, who has followed since stays.

use presplit::feed::UserId;
use presplit::feed::graph::{self, Outcome, Relation, Side, Status};

use super::service::{SHARDS, Service};
use crate::support::wait_until;

/// Users of one shard of host b, who follow user 1 of host a.
const FOLLOWED_BEFORE: UserId = 6;
const FOLLOWS_ANEW: UserId = 14;
const ASKED_BEFORE: UserId = 22;

#[tokio::test(flavor = "multi_thread")]
async fn a_block_undone_before_it_was_settled_cuts_what_was_followed_before() {
    let service = Service::new().await;
    let (db, store) = (&service.db, &*service.store);
    for source in [FOLLOWED_BEFORE, FOLLOWS_ANEW] {
        graph::follow(db, store, source, 1).await.unwrap();
    }
    graph::set_private(db, 1, true).await.unwrap();
    graph::follow(db, store, ASKED_BEFORE, 1).await.unwrap();
    let others = [FOLLOWED_BEFORE, FOLLOWS_ANEW, ASKED_BEFORE];
    let host = service.hosts.client(1).await;
    let shard = format!("shard_{:04}", FOLLOWED_BEFORE % i64::from(SHARDS));
    host.batch_execute(&format!(
        "CREATE FUNCTION {shard}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {shard}.follow_in FOR EACH ROW EXECUTE FUNCTION {shard}.refuse()"
    ))
    .await
    .unwrap();
    for other in others {
        assert_eq!(
            graph::block(db, store, 1, other).await.unwrap(),
            Outcome::ToCome(Status::Blocking)
        );
        assert_eq!(
            graph::unblock(db, store, 1, other).await.unwrap(),
            Outcome::ToCome(Status::Gone)
        );
    }
    host.batch_execute(&format!("DROP TRIGGER refuse ON {shard}.follow_in"))
        .await
        .unwrap();
    graph::set_private(db, 1, false).await.unwrap();
    graph::unfollow(db, store, FOLLOWS_ANEW, 1).await.unwrap();
    graph::follow(db, store, FOLLOWS_ANEW, 1).await.unwrap();
    let due = "/* presplit: all */ UPDATE outbox SET due_at = now() WHERE kind = 'edge'";
    db.ask(due, &[]).await.unwrap();
    let workers = service.workers(Service::work());
    service.quiet().await;
    drop(workers);
    let relation = async |of: UserId| graph::relations(db, of, &[1]).await.unwrap()[0];
    let none = Relation {
        other: 1,
        out: Status::Gone,
        muted: false,
        back: Status::Gone,
    };
    for cut in [FOLLOWED_BEFORE, ASKED_BEFORE] {
        assert_eq!(relation(cut).await, none, "{cut}");
    }
    assert_eq!(relation(FOLLOWS_ANEW).await.out, Status::Following);
    let followers = graph::others(db, 1, Side::Followers, None, 9)
        .await
        .unwrap();
    let followers: Vec<UserId> = followers.iter().map(|f| f.user).collect();
    assert_eq!(followers, [FOLLOWS_ANEW]);
    let counts = graph::counts(db, &[1, FOLLOWED_BEFORE]).await.unwrap();
    assert_eq!((counts[0].followers, counts[1].following), (1, 0));
    // And can follow again.
    let again = graph::follow(db, store, FOLLOWED_BEFORE, 1).await.unwrap();
    assert_eq!(again, Outcome::Now(Status::Following));
}

/// The worker is late; the other side is back by the time of the unblocking.
#[tokio::test(flavor = "multi_thread")]
async fn the_unblocking_itself_cuts_what_the_block_did_not() {
    let service = Service::new().await;
    let (db, store) = (&service.db, &*service.store);
    graph::follow(db, store, 6, 1).await.unwrap();
    let host = service.hosts.client(1).await;
    let held = host.batch_execute("BEGIN; LOCK TABLE shard_0006.follow_in IN EXCLUSIVE MODE");
    held.await.unwrap();
    let blocking = {
        let (db, store) = (db.clone(), service.store.clone());
        tokio::spawn(async move { graph::block(&db, &*store, 1, 6).await })
    };
    wait_until("the block is committed", || async {
        graph::relations(db, 1, &[6]).await.unwrap()[0].out == Status::Blocking
    })
    .await;
    blocking.abort();
    let _ = blocking.await;
    // What was on its way may still be carried out.
    let ends = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE NOT granted AND locktype = 'relation'";
    let watch = service.hosts.client(1).await;
    wait_until("nobody waits for the mirror", || async {
        watch.query_one(ends, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    host.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(
        graph::unblock(db, store, 1, 6).await.unwrap(),
        Outcome::Now(Status::Gone)
    );
    assert_eq!(
        graph::relations(db, 6, &[1]).await.unwrap()[0].out,
        Status::Gone
    );
}
