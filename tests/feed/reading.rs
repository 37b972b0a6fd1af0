//! Home pages: both ways, under deletes and trims, right on the next read, built without a loss, whatever the store does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use presplit::feed::graph::{self, Outcome, Status};
use presplit::feed::page::Source;
use presplit::feed::read::ReadFault;
use presplit::feed::store::{MemoryLimits, MemoryStore, Span};

use super::place::{Bench, Mood, ids, newest_first, users};

#[tokio::test]
async fn pages_go_both_ways_while_media_come_and_go() {
    let bench = Bench::new().await;
    let [reader, a, b, c] = users(4)[..] else {
        unreachable!()
    };
    bench.follow(reader, &[a, b, c]).await;
    assert!(bench.walk(reader, 5).await.is_empty());
    let mut authors = HashMap::new();
    for n in 0..45 {
        let author = [a, b, c, reader][n % 4];
        authors.insert(bench.post(author, &[reader]).await, author);
    }
    let all = newest_first(authors.keys().copied().collect());
    for most in [1, 7, 45, 46, 200] {
        assert_eq!(bench.walk(reader, most).await, all, "{most}");
    }
    // The cursor's own media is deleted, and so are some on either side; the feed loses others.
    let page = bench.home(reader, Span::Newest, 10).await;
    assert_eq!((ids(&page).as_slice(), page.more), (&all[..10], true));
    let mut left = all.clone();
    for at in [11, 9, 3] {
        let id = left.remove(at);
        bench.delete(authors[&id], id).await;
    }
    let page = bench.home(reader, Span::Before(all[9]), 10).await;
    assert_eq!(ids(&page), left[8..18]);
    let page = bench.home(reader, Span::After(all[9]), 100).await;
    assert_eq!(ids(&page), left[..8]);
    // What is gone is taken out of the feed by whoever comes upon it.
    assert_eq!(ids(&bench.home(reader, Span::Newest, 45).await), left);
    let gone = || async {
        let dump = bench.store.inner.dump(reader).await.unwrap().unwrap();
        dump.ids.iter().all(|id| left.contains(id))
    };
    crate::support::wait_until("the feed has lost what is gone", gone).await;
    // A feed that is lost is built anew; what a cursor says stays true.
    bench.store.inner.drop_feeds(&[reader]).await.unwrap();
    let page = bench.home(reader, Span::Before(all[20]), 200).await;
    assert_eq!(page.source, Source::Built);
    assert_eq!(
        ids(&page),
        left.iter()
            .copied()
            .filter(|id| *id < all[20])
            .collect::<Vec<_>>()
    );
    assert_eq!(bench.walk(reader, 7).await, left);
    assert_eq!(
        bench.home(reader, Span::Newest, 7).await.source,
        Source::List
    );
}

#[tokio::test]
async fn unfollow_block_and_mute_hold_on_the_next_read() {
    let bench = Bench::new().await;
    let [reader, a, b, c, d] = users(5)[..] else {
        unreachable!()
    };
    bench.follow(reader, &[a, b, c, d]).await;
    assert!(bench.home(reader, Span::Newest, 9).await.media.is_empty());
    let mut media = Vec::new();
    for author in [a, b, c, d, reader] {
        media.push(bench.post(author, &[reader]).await);
    }
    let seen = || async { ids(&bench.home(reader, Span::Newest, 9).await) };
    let of = |some: &[usize]| newest_first(some.iter().map(|n| media[*n]).collect());
    assert_eq!(seen().await, of(&[0, 1, 2, 3, 4]));
    let (db, store) = (&bench.db, &*bench.store);
    assert_eq!(
        graph::unfollow(db, store, reader, a).await.unwrap(),
        Outcome::Now(Status::Gone)
    );
    assert_eq!(seen().await, of(&[1, 2, 3, 4]));
    graph::block(db, store, reader, b).await.unwrap();
    assert_eq!(seen().await, of(&[2, 3, 4]));
    graph::mute(db, reader, c, true).await.unwrap();
    assert_eq!(seen().await, of(&[3, 4]));
    // Who blocks the reader is not shown either.
    graph::block(db, store, d, reader).await.unwrap();
    assert_eq!(seen().await, of(&[4]));
    for mood in [Mood::Fails, Mood::Good] {
        bench.store.set(mood, None);
        assert_eq!(seen().await, of(&[4]), "{mood:?}");
    }
    graph::mute(db, reader, c, false).await.unwrap();
    bench.follow(reader, &[a]).await;
    assert_eq!(seen().await, of(&[0, 2, 4]));
}

#[tokio::test]
async fn a_build_loses_no_post_that_comes_meanwhile() {
    let bench = Bench::new().await;
    let [reader, a, b] = users(3)[..] else {
        unreachable!()
    };
    bench.follow(reader, &[a, b]).await;
    let mut all = vec![bench.post(a, &[reader]).await];
    // Before Postgres is read, and behind it, before the feed is complete.
    for call in ["begin", "complete"] {
        bench.store.inner.drop_feeds(&[reader]).await.unwrap();
        let gate = bench.store.gate(call);
        let task = bench.reader.clone();
        let read = tokio::spawn(async move { task.home(reader, Span::Newest, 50).await });
        gate.reached.acquire().await.unwrap().forget();
        // Shorter than the patience with the store: two statements.
        all.push(bench.post(b, &[reader]).await);
        gate.open.add_permits(1);
        let page = read.await.unwrap().unwrap();
        assert!(ids(&page).contains(&all[0]));
        assert_eq!(
            bench.walk(reader, 50).await,
            newest_first(all.clone()),
            "{call}"
        );
    }
    // Many readers at once: one build.
    bench.store.inner.drop_feeds(&[reader]).await.unwrap();
    let before = bench.counted("presplit_feed_builds_total{outcome=\"complete\"}");
    let reads = (0..20).map(|_| {
        let task = bench.reader.clone();
        tokio::spawn(async move { task.home(reader, Span::Newest, 50).await })
    });
    for read in reads.collect::<Vec<_>>() {
        assert_eq!(
            ids(&read.await.unwrap().unwrap()),
            newest_first(all.clone())
        );
    }
    let built = bench.counted("presplit_feed_builds_total{outcome=\"complete\"}") - before;
    assert_eq!(built, 1);
}

#[tokio::test]
async fn no_read_fails_for_the_store() {
    let bench = Bench::patient(Duration::from_millis(50)).await;
    let [reader, a, b] = users(3)[..] else {
        unreachable!()
    };
    bench.follow(reader, &[a, b]).await;
    let mut all = Vec::new();
    for n in 0..30 {
        all.push(bench.post([a, b, reader][n % 3], &[reader]).await);
    }
    let all = newest_first(all);
    for mood in [Mood::Fails, Mood::Hangs] {
        for call in [
            None,
            Some("read"),
            Some("begin"),
            Some("complete"),
            Some("objects"),
            Some("put_objects"),
        ] {
            // Half of them with a feed that has to be built.
            for absent in [true, false] {
                if absent {
                    bench.store.inner.drop_feeds(&[reader]).await.unwrap();
                }
                bench.store.set(mood, call);
                let page = bench.home(reader, Span::Newest, 8).await;
                assert_eq!(
                    (ids(&page).as_slice(), page.more),
                    (&all[..8], true),
                    "{mood:?} {call:?}"
                );
                if matches!(call, None | Some("read" | "objects")) {
                    assert_eq!(page.source, Source::Degraded, "{mood:?} {call:?}");
                }
                let page = bench.home(reader, Span::Before(all[7]), 8).await;
                assert_eq!(ids(&page), all[8..16], "{mood:?} {call:?}");
                let page = bench.home(reader, Span::After(all[20]), 8).await;
                assert_eq!(
                    (ids(&page).as_slice(), page.more),
                    (&all[12..20], true),
                    "{mood:?} {call:?}"
                );
                bench.store.set(Mood::Good, None);
                assert_eq!(bench.walk(reader, 11).await, all, "{mood:?} {call:?}");
            }
        }
    }
}

#[tokio::test]
async fn who_catches_up_from_below_the_end_of_a_feed_misses_nothing() {
    let limits = MemoryLimits {
        feed_most: 10,
        ..MemoryLimits::default()
    };
    let bench = Bench::over(Arc::new(MemoryStore::new(limits))).await;
    let [reader, a, b, star, muted] = users(5)[..] else {
        unreachable!()
    };
    bench.follow(reader, &[a, b, star, muted]).await;
    graph::mute(&bench.db, reader, muted, true).await.unwrap();
    assert!(bench.walk(reader, 5).await.is_empty());
    let sql = "INSERT INTO stars (author, pull_from) VALUES ($1, 0)";
    bench.db.once(sql, &[&star]).await.unwrap();
    let mut all = Vec::new();
    for n in 0..60 {
        let author = [a, b, reader, star, muted][n % 5];
        let feeds = if author == star { vec![] } else { vec![reader] };
        let id = bench.post(author, &feeds).await;
        if author != muted {
            all.push(id);
        }
    }
    let all = newest_first(all);
    for most in [1, 3, 7, 48, 100] {
        let mut at = all[47] - 1;
        let mut seen = Vec::new();
        loop {
            let page = bench.home(reader, Span::After(at), most).await;
            let mut found = ids(&page);
            at = found.first().copied().unwrap_or(at);
            found.extend(seen);
            seen = found;
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, all, "{most}");
    }
    // Where nothing is behind the feed's end it is not asked for.
    let page = bench.home(reader, Span::After(all[5]), 100).await;
    assert_eq!((ids(&page), page.source), (all[..5].to_vec(), Source::List));
    let sql = "DELETE FROM stars WHERE author = $1";
    bench.db.once(sql, &[&star]).await.unwrap();
}

#[tokio::test]
async fn authors_see_their_own_at_once() {
    let bench = Bench::new().await;
    let [author, other] = users(2)[..] else {
        unreachable!()
    };
    bench.follow(author, &[other]).await;
    let first = bench.post(author, &[author]).await;
    let others = bench.post(other, &[author]).await;
    assert_eq!(
        bench.walk(author, 5).await,
        newest_first(vec![others, first])
    );
    // The store hears neither of the post nor of the deletion.
    bench.store.set(Mood::Fails, None);
    let body = "{\"n\": 2}";
    let wake = presplit::feed::outbox::Wake::none(false);
    let second = presplit::feed::post::post(&bench.db, &*bench.store, &wake, author, body, None);
    let second = second.await.unwrap().id;
    bench.delete(author, first).await;
    bench.store.set(Mood::Good, None);
    // Of several shards: within a millisecond either may be the newer one.
    let left = newest_first(vec![second, others]);
    let page = bench.home(author, Span::Newest, 5).await;
    assert_eq!((page.source, ids(&page)), (Source::List, left.clone()));
    assert_eq!(bench.walk(author, 1).await, left);
}

#[tokio::test]
async fn a_page_is_topped_up_past_what_is_not_shown() {
    let bench = Bench::new().await;
    let [reader, shown, hidden] = users(3)[..] else {
        unreachable!()
    };
    bench.follow(reader, &[shown, hidden]).await;
    assert!(bench.walk(reader, 5).await.is_empty());
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(bench.post(shown, &[reader]).await);
    }
    for _ in 0..60 {
        bench.post(hidden, &[reader]).await;
    }
    all.push(bench.post(shown, &[reader]).await);
    graph::unfollow(&bench.db, &*bench.store, reader, hidden)
        .await
        .unwrap();
    let all = newest_first(all);
    let page = bench.home(reader, Span::Newest, 4).await;
    assert_eq!(
        (ids(&page).as_slice(), page.more, page.source),
        (&all[..4], true, Source::List)
    );
    assert_eq!(bench.walk(reader, 2).await, all);
}

#[tokio::test]
async fn the_media_of_stars_are_pulled_and_merged() {
    let bench = Bench::new().await;
    let [reader, plain, star, unknown] = users(4)[..] else {
        unreachable!()
    };
    bench.follow(reader, &[plain, star]).await;
    let mut all = vec![
        bench.post(plain, &[reader]).await,
        bench.post(star, &[reader]).await,
    ];
    assert_eq!(bench.walk(reader, 5).await, newest_first(all.clone()));
    let from = *all.last().unwrap() + 1;
    for author in [star, unknown] {
        let sql = "INSERT INTO stars (author, pull_from) VALUES ($1, $2)";
        bench.db.once(sql, &[&author, &from]).await.unwrap();
    }
    for n in 0..40 {
        match n % 3 {
            0 => all.push(bench.post(plain, &[reader]).await),
            1 => all.push(bench.post(star, &[]).await),
            _ => drop(bench.post(unknown, &[]).await),
        }
    }
    let all = newest_first(all);
    for most in [1, 3, 50] {
        assert_eq!(bench.walk(reader, most).await, all, "{most}");
    }
    // Pushed again: what is behind the boundary is in the feed.
    let sql = "UPDATE stars SET pull_to = $2 WHERE author = $1";
    bench.db.once(sql, &[&star, &(all[0] + 1)]).await.unwrap();
    let newest = bench.post(star, &[reader]).await;
    let page = bench.home(reader, Span::Newest, 3).await;
    assert_eq!(ids(&page), [newest, all[0], all[1]]);
    graph::mute(&bench.db, reader, star, true).await.unwrap();
    let plain_ones = bench.walk(reader, 4).await;
    assert!(plain_ones.len() < all.len() && plain_ones.iter().all(|id| all.contains(id)));
    bench
        .db
        .once("DELETE FROM stars WHERE author = $1", &[&star])
        .await
        .unwrap();
    bench
        .db
        .once("DELETE FROM stars WHERE author = $1", &[&unknown])
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_kept_of_a_star_is_for_all_readers() {
    let kept = Duration::from_secs(3600);
    let bench = Bench::keeping(Duration::from_secs(20), kept, 20).await;
    let [first, second, star] = users(3)[..] else {
        unreachable!()
    };
    let sql = "INSERT INTO stars (author, pull_from) VALUES ($1, 0)";
    bench.db.once(sql, &[&star]).await.unwrap();
    let mut all = Vec::new();
    for reader in [first, second] {
        bench.follow(reader, &[star]).await;
    }
    for _ in 0..30 {
        all.push(bench.post(star, &[]).await);
    }
    let all = newest_first(all);
    for reader in [first, second] {
        let page = bench.home(reader, Span::Newest, 3).await;
        assert_eq!(ids(&page), all[..3]);
    }
    // Not asked for again, whoever reads; what is older than that is.
    let newer = bench.post(star, &[]).await;
    bench.delete(star, all[1]).await;
    let page = bench.home(second, Span::Newest, 3).await;
    assert_eq!(ids(&page), all[..3]);
    let page = bench.home(second, Span::Before(all[3]), 50).await;
    assert_eq!(ids(&page), all[4..]);
    let page = bench.home(second, Span::After(all[25]), 50).await;
    let mut now = vec![newer];
    now.extend(all[..25].iter().filter(|id| **id != all[1]));
    assert_eq!(ids(&page), now);
    let sql = "DELETE FROM stars WHERE author = $1";
    bench.db.once(sql, &[&star]).await.unwrap();
}

#[tokio::test]
async fn readers_of_one_object_ask_postgres_once() {
    let bench = Bench::new().await;
    let [reader, a] = users(2)[..] else {
        unreachable!()
    };
    bench.follow(reader, &[a]).await;
    bench.home(reader, Span::Newest, 5).await;
    let mut all = Vec::new();
    for _ in 0..10 {
        all.push(bench.post(a, &[reader]).await);
    }
    let reads = (0..30).map(|_| {
        let task = bench.reader.clone();
        tokio::spawn(async move { task.home(reader, Span::Newest, 50).await })
    });
    for read in reads.collect::<Vec<_>>() {
        assert_eq!(
            ids(&read.await.unwrap().unwrap()),
            newest_first(all.clone())
        );
    }
    // The first have no company yet and the last may just miss the cache; far from all 300.
    let asked = bench.counted("presplit_feed_objects_total{tier=\"postgres\"}");
    assert!((10..60).contains(&asked), "{asked}");
}

#[tokio::test]
async fn profiles_are_for_whom_they_are() {
    let bench = Bench::new().await;
    let [author, follower, other, blocked] = users(4)[..] else {
        unreachable!()
    };
    bench.follow(follower, &[author]).await;
    let mut all = Vec::new();
    for _ in 0..9 {
        all.push(bench.post(author, &[]).await);
    }
    let all = newest_first(all);
    let profile = |viewer, span| {
        let reader = bench.reader.clone();
        async move { reader.profile(author, viewer, span, 4).await }
    };
    let page = profile(None, Span::Newest).await.unwrap();
    assert_eq!((ids(&page).as_slice(), page.more), (&all[..4], true));
    let page = profile(Some(other), Span::Before(all[3])).await.unwrap();
    assert_eq!(ids(&page), all[4..8]);
    let page = profile(Some(other), Span::After(all[8])).await.unwrap();
    assert_eq!((ids(&page).as_slice(), page.more), (&all[4..8], true));
    let public = bench.reader.public(Span::Newest, 200).await.unwrap();
    assert!(all.iter().all(|id| ids(&public).contains(id)));
    graph::block(&bench.db, &*bench.store, author, blocked)
        .await
        .unwrap();
    assert!(matches!(
        profile(Some(blocked), Span::Newest).await,
        Err(ReadFault::NotFound)
    ));
    assert!(matches!(
        bench.reader.media(all[0], Some(blocked)).await,
        Err(ReadFault::NotFound)
    ));
    graph::set_private(&bench.db, author, true).await.unwrap();
    for viewer in [None, Some(other)] {
        assert!(matches!(
            profile(viewer, Span::Newest).await,
            Err(ReadFault::Private(_))
        ));
        assert!(matches!(
            bench.reader.media(all[0], viewer).await,
            Err(ReadFault::Private(_))
        ));
    }
    for viewer in [author, follower] {
        assert_eq!(
            ids(&profile(Some(viewer), Span::Newest).await.unwrap()),
            all[..4]
        );
        assert_eq!(
            bench
                .reader
                .media(all[0], Some(viewer))
                .await
                .unwrap()
                .author,
            author
        );
    }
    let hidden = || async {
        let public = bench.reader.public(Span::Newest, 200).await.unwrap();
        !ids(&public).contains(&all[0])
    };
    crate::support::wait_until("the private are not public", hidden).await;
}
