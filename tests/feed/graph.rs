//! Edges: what calls make of them, mirrors and counters after any interleaving, what is mended, and that a follow misses no post.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use presplit::feed::graph::{self, Outcome, Relation, Side, Status};
use presplit::feed::post::post;
use presplit::feed::reconcile::Reconciler;
use presplit::feed::store::{Span, Store};
use presplit::feed::{MediaId, UserId};
use rand::Rng;

use super::service::{SHARDS, Service};

/// `(source, target)`.
type Edges = HashMap<(UserId, UserId), (String, i64)>;

async fn edges(service: &Service, sql: &str) -> Edges {
    let rows = service.db.ask(sql, &[]).await.unwrap();
    rows.iter()
        .map(|r| ((r.get(0), r.get(1)), (r.get(2), r.get(3))))
        .collect()
}

/// Mirrors say what edges say, and counters what the rows say.
async fn check(service: &Service) {
    let truth = edges(
        service,
        "SELECT user_id, target, status, rev FROM follow_out",
    )
    .await;
    let mirrors = edges(
        service,
        "SELECT source, user_id, status, rev FROM follow_in",
    )
    .await;
    assert_eq!(truth, mirrors);
    let mut users: Vec<UserId> = truth.keys().flat_map(|(s, t)| [*s, *t]).collect();
    users.sort_unstable();
    users.dedup();
    let counts = graph::counts(&service.db, &users).await.unwrap();
    let following = |e: &(&(UserId, UserId), &(String, i64))| e.1.0 == "following";
    for (user, counts) in users.iter().zip(counts) {
        let out = truth
            .iter()
            .filter(following)
            .filter(|((s, _), _)| s == user)
            .count();
        let back = truth
            .iter()
            .filter(following)
            .filter(|((_, t), _)| t == user)
            .count();
        assert_eq!(
            (counts.following, counts.followers),
            (out as i64, back as i64),
            "user {user}"
        );
    }
}

async fn page(service: &Service, user: UserId, side: Side) -> Vec<UserId> {
    let others = graph::others(&service.db, user, side, None, 100)
        .await
        .unwrap();
    others.iter().map(|o| o.user).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_and_their_mirrors() {
    let service = Service::new().await;
    what_calls_make_of_edges(&service).await;
    hot_counters(&service).await;
    many_at_once(&service).await;
    side_by_side(&service).await;
    mirrors_are_mended(&service).await;
}

async fn what_calls_make_of_edges(service: &Service) {
    let (db, store) = (&service.db, &*service.store);
    let following = Outcome::Now(Status::Following);
    service.empty_feed(1).await;
    assert_eq!(graph::follow(db, store, 1, 2).await.unwrap(), following);
    assert!(
        store.dump(1).await.unwrap().is_none(),
        "the reader's list is dropped"
    );
    assert_eq!(graph::follow(db, store, 1, 2).await.unwrap(), following);
    assert_eq!(
        graph::follow(db, store, 1, 1).await.unwrap(),
        Outcome::Nothing
    );
    assert_eq!(graph::follow(db, store, 4, 2).await.unwrap(), following);
    assert_eq!(
        (
            page(service, 1, Side::Following).await,
            page(service, 2, Side::Followers).await
        ),
        (vec![2], vec![1, 4])
    );
    let after = graph::others(db, 2, Side::Followers, Some(1), 1)
        .await
        .unwrap();
    assert_eq!(after.iter().map(|o| o.user).collect::<Vec<_>>(), [4]);

    // Muted is still followed.
    assert_eq!(graph::mute(db, 1, 2, true).await.unwrap(), following);
    assert!(
        graph::others(db, 1, Side::Following, None, 9)
            .await
            .unwrap()[0]
            .muted
    );
    assert_eq!(graph::mute(db, 1, 3, true).await.unwrap(), Outcome::Nothing);
    let relations = graph::relations(db, 2, &[9, 1]).await.unwrap();
    let none = Relation {
        other: 9,
        out: Status::Gone,
        muted: false,
        back: Status::Gone,
    };
    assert_eq!(
        relations,
        [
            none,
            Relation {
                other: 1,
                back: Status::Following,
                ..none
            }
        ]
    );
    assert!(graph::relations(db, 1, &[2]).await.unwrap()[0].muted);

    // Gone, and no longer muted when it comes back.
    assert_eq!(
        graph::unfollow(db, store, 1, 2).await.unwrap(),
        Outcome::Now(Status::Gone)
    );
    assert_eq!(
        graph::unfollow(db, store, 1, 2).await.unwrap(),
        Outcome::Now(Status::Gone)
    );
    assert_eq!(
        graph::unfollow(db, store, 1, 77).await.unwrap(),
        Outcome::Nothing
    );
    assert_eq!(graph::follow(db, store, 1, 2).await.unwrap(), following);
    assert!(!graph::relations(db, 1, &[2]).await.unwrap()[0].muted);

    // Private: asked for, accepted or declined.
    graph::set_private(db, 3, true).await.unwrap();
    for source in [1, 4, 5] {
        assert_eq!(
            graph::follow(db, store, source, 3).await.unwrap(),
            Outcome::Now(Status::Requested)
        );
    }
    assert_eq!(
        (
            page(service, 3, Side::Requests).await,
            page(service, 3, Side::Followers).await
        ),
        (vec![1, 4, 5], vec![])
    );
    assert_eq!(graph::accept(db, store, 3, 1).await.unwrap(), following);
    assert_eq!(graph::accept(db, store, 3, 1).await.unwrap(), following);
    assert_eq!(
        graph::decline(db, store, 3, 4).await.unwrap(),
        Outcome::Now(Status::Gone)
    );
    assert_eq!(
        graph::accept(db, store, 3, 4).await.unwrap(),
        Outcome::Nothing
    );
    assert_eq!(graph::follow(db, store, 1, 3).await.unwrap(), following);
    graph::set_private(db, 3, false).await.unwrap();
    assert_eq!(graph::follow(db, store, 5, 3).await.unwrap(), following);
    assert_eq!(page(service, 3, Side::Followers).await, [1, 5]);
    check(service).await;

    // A block ends both directions, and keeps them ended.
    assert_eq!(graph::follow(db, store, 2, 1).await.unwrap(), following);
    assert_eq!(
        graph::block(db, store, 2, 1).await.unwrap(),
        Outcome::Now(Status::Blocking)
    );
    assert_eq!(
        graph::follow(db, store, 1, 2).await.unwrap(),
        Outcome::Blocked
    );
    assert_eq!(
        graph::follow(db, store, 2, 1).await.unwrap(),
        Outcome::Blocked
    );
    let relation = graph::relations(db, 1, &[2]).await.unwrap()[0];
    assert_eq!(
        (relation.out, relation.back),
        (Status::Gone, Status::Blocking)
    );
    assert_eq!(page(service, 2, Side::Blocked).await, [1]);
    assert_eq!(
        graph::unblock(db, store, 2, 1).await.unwrap(),
        Outcome::Now(Status::Gone)
    );
    assert_eq!(graph::follow(db, store, 1, 2).await.unwrap(), following);
    check(service).await;
    assert_eq!(
        service.number("SELECT count(*) FROM outbox").await,
        0,
        "nothing is left to settle"
    );
}

/// Who has very many followers counts in several rows.
async fn hot_counters(service: &Service) {
    let (db, store) = (&service.db, &*service.store);
    graph::follow(db, store, 400, 95).await.unwrap();
    let rows = |sql: &'static str| async move { service.number(sql).await };
    let slot_0 =
        "SELECT value FROM counters WHERE user_id = 95 AND name = 'followers' AND slot = 0";
    db.ask(
        "UPDATE counters SET value = value + 5000 WHERE user_id = 95 AND name = 'followers'",
        &[],
    )
    .await
    .unwrap();
    for source in 401..440 {
        graph::follow(db, store, source, 95).await.unwrap();
    }
    graph::unfollow(db, store, 400, 95).await.unwrap();
    assert_eq!(rows(slot_0).await, 5001);
    assert_eq!(
        rows("SELECT count(*) FROM counters WHERE user_id = 95 AND name = 'followers'").await,
        17
    );
    assert_eq!(graph::counts(db, &[95]).await.unwrap()[0].followers, 5039);
    db.ask("UPDATE counters SET value = value - 5000 WHERE user_id = 95 AND name = 'followers' AND slot = 0", &[])
        .await
        .unwrap();
    check(service).await;
}

async fn many_at_once(service: &Service) {
    let (db, store) = (&service.db, &*service.store);
    graph::set_private(db, 10_007, true).await.unwrap();
    let targets: Vec<UserId> = (10_000..10_600).rev().collect();
    let outcomes = graph::follow_all(db, store, 9000, &targets).await.unwrap();
    assert_eq!(outcomes.len(), 600);
    for (target, outcome) in outcomes {
        let status = if target == 10_007 {
            Status::Requested
        } else {
            Status::Following
        };
        assert_eq!(outcome, Outcome::Now(status), "{target}");
    }
    assert_eq!(graph::counts(db, &[9000]).await.unwrap()[0].following, 599);
    let relations = graph::relations(db, 9000, &targets[..500]).await.unwrap();
    assert!(relations.iter().all(|r| r.out == Status::Following));
    let mut after = None;
    let mut seen = Vec::new();
    loop {
        let page = graph::others(db, 9000, Side::Following, after, 250)
            .await
            .unwrap();
        seen.extend(page.iter().map(|o| o.user));
        let Some(last) = page.last() else { break };
        after = Some(last.user);
    }
    assert_eq!(seen.len(), 599);
    assert!(
        graph::follow_all(db, store, 9000, &vec![1; 1001])
            .await
            .is_err()
    );
    check(service).await;
}

/// Calls of all kinds on few users at once: afterwards mirrors and counters are right, and nobody follows who is blocked.
async fn side_by_side(service: &Service) {
    let (db, store) = (&service.db, &*service.store);
    graph::set_private(db, 203, true).await.unwrap();
    join_all((0..12).map(|_| async {
        for _ in 0..40 {
            let (what, a, b) = {
                let mut rng = rand::rng();
                (
                    rng.random_range(0..10),
                    rng.random_range(200..205),
                    rng.random_range(200..205),
                )
            };
            if a == b {
                continue;
            }
            let done = match what {
                0..=3 => graph::follow(db, store, a, b).await,
                4 => graph::unfollow(db, store, a, b).await,
                5 => graph::block(db, store, a, b).await,
                6 | 7 => graph::unblock(db, store, a, b).await,
                8 => graph::accept(db, store, a, b).await,
                _ => graph::follow_all(db, store, a, &[200, 201, 202, 203, 204])
                    .await
                    .map(|_| Outcome::Nothing),
            };
            done.unwrap_or_else(|e| panic!("{what} of {a} and {b}: {e:?}"));
        }
    }))
    .await;
    let workers = service.workers(Service::work());
    service.quiet().await;
    drop(workers);
    check(service).await;
    let truth = edges(
        service,
        "SELECT user_id, target, status, rev FROM follow_out",
    )
    .await;
    for ((source, target), (status, _)) in &truth {
        if status == "blocking" {
            let back = truth.get(&(*target, *source)).map(|(s, _)| s.as_str());
            assert!(
                !matches!(back, Some("following" | "requested")),
                "{target} -> {source} is {back:?} though blocked"
            );
        }
    }
}

async fn mirrors_are_mended(service: &Service) {
    let (db, store) = (&service.db, &*service.store);
    for target in 300..320 {
        graph::follow(db, store, 299, target).await.unwrap();
    }
    let lose = [
        "/* presplit: all */ DELETE FROM follow_in WHERE source = 299 AND user_id < 305",
        "/* presplit: all */ UPDATE follow_in SET status = 'gone' WHERE source = 299 AND user_id = 306",
        "/* presplit: all */ UPDATE follow_in SET status = 'requested', rev = rev - 1 WHERE source = 299 AND user_id = 307",
        "/* presplit: all */ UPDATE follow_in SET status = 'requested', rev = rev + 5 WHERE source = 299 AND user_id = 308",
        "/* presplit: all */ DELETE FROM follow_out WHERE user_id = 299 AND target = 309",
    ];
    for sql in lose {
        db.ask(sql, &[]).await.unwrap();
    }
    // What was posted meanwhile was not pushed to it.
    service.empty_feed(299).await;
    let mut reconciler = Reconciler::new(db.clone(), service.store.clone(), 7);
    for mended in [9, 0] {
        let mut sum = 0;
        loop {
            let slice = reconciler.slice().await.unwrap();
            sum += slice.mended;
            if slice.round {
                break;
            }
        }
        assert_eq!(sum, mended);
        let there = store.dump(299).await.unwrap().is_some();
        assert_eq!(there, mended == 0, "a feed that lacks posts is dropped");
        service.empty_feed(299).await;
    }
    let truth = edges(
        service,
        "SELECT user_id, target, status, rev FROM follow_out WHERE user_id = 299",
    )
    .await;
    let mirrors = edges(
        service,
        "SELECT source, user_id, status, rev FROM follow_in WHERE source = 299",
    )
    .await;
    assert_eq!(truth, mirrors);
    for target in 300..320 {
        let status = if target == 309 { "gone" } else { "following" };
        assert_eq!(truth[&(299, target)].0, status, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_could_not_be_written_comes_later() {
    let service = Service::new().await;
    let (db, store) = (&service.db, &*service.store);
    // User 6's shard is on host b.
    let host = service.hosts.client(1).await;
    let shard = format!("shard_{:04}", 6 % SHARDS);
    host.batch_execute(&format!(
        "CREATE FUNCTION {shard}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {shard}.follow_in FOR EACH ROW EXECUTE FUNCTION {shard}.refuse()"
    ))
    .await
    .unwrap();
    assert_eq!(
        graph::follow(db, store, 1, 6).await.unwrap(),
        Outcome::ToCome(Status::Following)
    );
    assert_eq!(
        graph::block(db, store, 2, 6).await.unwrap(),
        Outcome::ToCome(Status::Blocking)
    );
    assert_eq!(
        page(&service, 1, Side::Following).await,
        [6],
        "it holds for the source at once"
    );
    assert_eq!(
        page(&service, 6, Side::Followers).await,
        Vec::<UserId>::new()
    );
    service.empty_feed(1).await;
    db.ask(
        "/* presplit: all */ UPDATE outbox SET due_at = now() WHERE kind = 'edge'",
        &[],
    )
    .await
    .unwrap();
    let workers = service.workers(Service::work());
    crate::support::wait_until("it is tried", || async {
        service
            .number("SELECT min(attempts)::bigint FROM outbox")
            .await
            >= 2
    })
    .await;
    host.batch_execute(&format!("DROP TRIGGER refuse ON {shard}.follow_in"))
        .await
        .unwrap();
    service.quiet().await;
    drop(workers);
    assert_eq!(page(&service, 6, Side::Followers).await, [1]);
    assert!(
        store.dump(1).await.unwrap().is_none(),
        "the reader's list is dropped behind the mirror"
    );
    assert_eq!(
        graph::follow(db, store, 6, 2).await.unwrap(),
        Outcome::Blocked
    );
    check(&service).await;
}

/// As a reader does: the list, or one built of what Postgres has.
async fn home(service: &Service, reader: UserId) -> Vec<MediaId> {
    for _ in 0..20 {
        if let Some(ids) = service.store.read(reader, Span::Newest, 100).await.unwrap() {
            return ids.ids;
        }
        let building = service.store.begin(reader).await.unwrap();
        let followees = page(service, reader, Side::Following).await;
        let sql = "SELECT id FROM media WHERE user_id = ANY ($1) AND deleted_at IS NULL";
        let rows = match followees.is_empty() {
            true => Vec::new(),
            false => service.db.ask(sql, &[&followees]).await.unwrap(),
        };
        let ids: Vec<MediaId> = rows.iter().map(|r| r.get(0)).collect();
        service
            .store
            .complete(reader, &building, &ids)
            .await
            .unwrap();
    }
    panic!("feed {reader} is dropped again and again");
}

/// Readers begin to follow while the author posts and while they read: what they see in the end is all of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_follow_that_races_with_posts_misses_none() {
    let service = Service::new().await;
    let workers = service.workers(Service::work());
    for round in 0..12 {
        let author = 500 + round;
        let readers = 5000 + round * 100..5000 + round * 100 + 10;
        let pause = || Duration::from_micros(rand::rng().random_range(0..8000));
        let posting = async {
            let mut posts = Vec::new();
            for _ in 0..8 {
                tokio::time::sleep(pause()).await;
                let wake = workers.wake();
                posts.push(
                    post(&service.db, &*service.store, &wake, author, "{}", None)
                        .await
                        .unwrap()
                        .id,
                );
            }
            posts
        };
        let reading = join_all(readers.clone().map(|reader| {
            let service = &service;
            async move {
                home(service, reader).await;
                tokio::time::sleep(pause() * 4).await;
                let (followed, ()) = tokio::join!(
                    graph::follow(&service.db, &*service.store, reader, author),
                    async {
                        for _ in 0..6 {
                            home(service, reader).await;
                            tokio::time::sleep(pause()).await;
                        }
                    }
                );
                assert_eq!(followed.unwrap(), Outcome::Now(Status::Following));
            }
        }));
        let (mut posts, _) = tokio::join!(posting, reading);
        service.quiet().await;
        posts.reverse();
        for reader in readers {
            assert_eq!(
                home(&service, reader).await,
                posts,
                "round {round}, reader {reader}"
            );
        }
    }
}
