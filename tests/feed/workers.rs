//! Fan-out: every follower gets every post once, whatever dies; poison and stars stand in nobody's way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use presplit::feed::fanout::WorkSettings;
use presplit::feed::outbox::Wake;
use presplit::feed::post::post;
use presplit::feed::stars::StarSettings;
use presplit::feed::{MediaId, UserId};

use super::service::{Service, Trouble};
use crate::support::wait_until;

async fn say(service: &Service, wake: &Wake, author: UserId) -> MediaId {
    post(&service.db, &*service.store, wake, author, "{}", None)
        .await
        .unwrap()
        .id
}

#[tokio::test(flavor = "multi_thread")]
async fn every_follower_gets_every_post_once_whatever_dies() {
    let service = Service::new().await;
    service.followers(7, 1000..1310).await;
    service.empty_feed(7).await;
    service.store.slow_ms.store(3, Ordering::SeqCst);
    let mut posts = Vec::new();
    for round in 0..10 {
        let workers = service.workers(Service::work());
        // One that the workers know of, and one that they have to find.
        posts.push(say(&service, &workers.wake(), 7).await);
        posts.push(say(&service, &Wake::none(false), 7).await);
        let pushes = service.store.pushes.load(Ordering::SeqCst);
        wait_until("some pages are pushed", || async {
            service.store.pushes.load(Ordering::SeqCst) > pushes + 3 * round
        })
        .await;
        drop(workers);
    }
    assert!(
        service
            .number("SELECT count(*) FROM outbox WHERE done_to IS NOT NULL")
            .await
            > 0,
        "it was cut off in the middle"
    );
    let _workers = service.workers(Service::work());
    service.quiet().await;
    posts.sort_unstable_by(|a, b| b.cmp(a));
    for user in (1000..1310).chain([7]) {
        assert_eq!(service.feed(user).await, posts, "feed {user}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_set_aside_and_comes_back_when_it_is_mended() {
    let service = Service::new().await;
    service.followers(7, 1000..1050).await;
    service.followers(8, 2000..2050).await;
    let settings = WorkSettings {
        attempts: 4,
        revive: Duration::from_secs(3600),
        ..Service::work()
    };
    let workers = service.workers(settings);
    let wake = workers.wake();
    let poison = say(&service, &Wake::none(false), 7).await;
    service.store.poison.lock().unwrap().insert(poison);
    let poison_2 = say(&service, &Wake::none(false), 7).await;
    service.store.poison.lock().unwrap().insert(poison_2);
    // The first may have been quicker than we.
    let mut good = Vec::new();
    wait_until("it is set aside", || async {
        service.number("SELECT count(*) FROM outbox WHERE dead_at IS NOT NULL AND attempts = 4 AND error LIKE '%panicked%'").await >= 1 || {
            let id = say(&service, &wake, 8).await;
            wait_until("others are not held up", || async { service.feed(2049).await.contains(&id) }).await;
            false
        }
    })
    .await;
    for _ in 0..3 {
        good.push(say(&service, &wake, 7).await);
    }
    wait_until("the author's next posts arrive", || async {
        let feed = service.feed(1049).await;
        good.iter().all(|id| feed.contains(id))
    })
    .await;
    drop(workers);
    service.store.poison.lock().unwrap().clear();
    let _workers = service.workers(WorkSettings {
        revive: Duration::from_millis(10),
        ..settings
    });
    service.quiet().await;
    for user in 1000..1050 {
        let feed = service.feed(user).await;
        assert!(feed.contains(&poison) && feed.contains(&poison_2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_blames_no_row_and_is_left_alone() {
    let service = Service::new().await;
    service.followers(7, 1000..1050).await;
    away(&service, |store| &store.away).await;
    // It answers, but as one that is read-only.
    away(&service, |store| &store.refuses).await;
}

async fn away(service: &Service, how: fn(&Trouble) -> &AtomicBool) {
    how(&service.store).store(true, Ordering::SeqCst);
    let workers = service.workers(WorkSettings {
        attempts: 2,
        ..Service::work()
    });
    let mut posts = Vec::new();
    for _ in 0..10 {
        posts.push(say(service, &workers.wake(), 7).await);
    }
    let before = service.store.pushes.load(Ordering::SeqCst);
    wait_until("it is tried some times", || async {
        workers.done().failed.load(Ordering::SeqCst) > 4
    })
    .await;
    let tries = service.store.pushes.load(Ordering::SeqCst) - before;
    // One at a time feels whether it is back, less and less often.
    assert!(tries < 100, "{tries} tries");
    assert_eq!(
        service
            .number("SELECT count(*) FROM outbox WHERE dead_at IS NOT NULL")
            .await,
        0
    );
    how(&service.store).store(false, Ordering::SeqCst);
    service.quiet().await;
    posts.reverse();
    assert_eq!(service.feed(1049).await[..posts.len()], posts);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_authors_do_not_wait_behind_stars() {
    let service = Service::new().await;
    service.followers(7, 1000..1400).await;
    service.followers(8, 2000..2010).await;
    service.store.slow_ms.store(40, Ordering::SeqCst);
    let settings = WorkSettings {
        fast: 2,
        slow: 1,
        page: 10,
        fast_pages: 1,
        lease: Duration::from_secs(5),
        ..Service::work()
    };
    let workers = service.workers(settings);
    for _ in 0..6 {
        say(&service, &workers.wake(), 7).await;
    }
    wait_until("stars are in the slow lane", || async {
        service
            .number("SELECT count(*) FROM outbox WHERE user_id = 7 AND done_to IS NOT NULL")
            .await
            >= 3
    })
    .await;
    for _ in 0..5 {
        let id = say(&service, &workers.wake(), 8).await;
        wait_until("the small author's post arrives", || async {
            service.feed(2009).await.contains(&id)
        })
        .await;
    }
    assert!(
        service
            .number("SELECT count(*) FROM outbox WHERE user_id = 7")
            .await
            >= 5,
        "the stars' rows took no time: nothing is shown"
    );
    service.store.slow_ms.store(0, Ordering::SeqCst);
    service.quiet().await;
    assert_eq!(service.feed(1399).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_found_while_a_host_is_away() {
    let mut service = Service::new().await;
    service.followers(1, 1000..1030).await;
    service.followers(5, 2000..2030).await;
    // Users 0 to 3 of each eight are on host a, the others on b.
    let here = say(&service, &Wake::none(false), 1).await;
    let there = say(&service, &Wake::none(false), 5).await;
    service.hosts.clusters[1].stop();
    let _workers = service.workers(Service::work());
    wait_until("host a's are done", || async {
        service.feed(1029).await.contains(&here)
    })
    .await;
    assert!(!service.feed(2029).await.contains(&there));
    service.hosts.clusters[1].start();
    wait_until("host b's are done", || async {
        service.feed(2029).await.contains(&there)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_star_is_pulled_and_pushed_again_with_no_post_between() {
    let service = Service::new().await;
    service.followers(7, 1000..1030).await;
    service.empty_feed(7).await;
    let settings = WorkSettings {
        page: 10,
        fast_pages: 1,
        review: Duration::from_millis(200),
        ..Service::work()
    };
    let stars = StarSettings {
        threshold: 25,
        lowest: 25,
        ..StarSettings::default()
    };
    let workers = service.workers_with(settings, stars);
    let wake = workers.wake();
    let row = || async {
        let rows = service
            .db
            .ask("SELECT pull_from, pull_to FROM stars WHERE author = 7", &[])
            .await
            .unwrap();
        rows.first()
            .map(|r| (r.get::<_, i64>(0), r.get::<_, Option<i64>>(1)))
    };
    let mut posts = vec![say(&service, &wake, 7).await];
    wait_until("it is a star", || async { row().await.is_some() }).await;
    let (from, none) = row().await.unwrap();
    assert!(none.is_none() && posts[0] < from);
    // Posts all the way through the boundary and back.
    let mut to = None;
    let mut behind = 0;
    while behind < 3 {
        posts.push(say(&service, &wake, 7).await);
        service.quiet().await;
        let last = *posts.last().unwrap();
        if to.is_none() && !service.feed(1000).await.contains(&last) {
            assert!(last >= from);
            if posts.iter().filter(|p| **p >= from).count() > 5 {
                service
                    .db
                    .ask(
                        "UPDATE counters SET value = 3 WHERE user_id = 7 AND name = 'followers'",
                        &[],
                    )
                    .await
                    .unwrap();
                wait_until("it is let go", || async {
                    row().await.unwrap().1.is_some()
                })
                .await;
                to = row().await.unwrap().1;
            }
        }
        behind += usize::from(to.is_some_and(|to| last >= to));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let to = to.unwrap();
    for user in 1000..1030 {
        let feed = service.feed(user).await;
        for post in &posts {
            let pulled = from <= *post && *post < to;
            assert!(
                pulled || feed.contains(post),
                "{post} of {from}..{to} is not in feed {user}"
            );
        }
        assert!(posts.iter().any(|p| !feed.contains(p)), "none was pulled");
    }
    posts.reverse();
    assert_eq!(
        service.feed(7).await,
        posts,
        "the author's own feed has them all"
    );
}
