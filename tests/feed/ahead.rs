//! Feeds built ahead of their reading, and anew.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use presplit::feed::UserId;
use presplit::feed::ahead::{Active, Aim, Done};
use presplit::feed::store::Store;

use super::place::{Bench, newest_first, users};

async fn feed(bench: &Bench, user: UserId) -> Option<Vec<i64>> {
    let dump = bench.store.inner.dump(user).await.unwrap();
    dump.filter(|d| d.complete).map(|d| d.ids)
}

#[tokio::test]
async fn feeds_are_built_ahead_and_anew() {
    let bench = Bench::new().await;
    let all = users(12);
    let (readers, authors) = all.split_at(3);
    let mut media = Vec::new();
    for author in authors {
        media.push(bench.post(*author, &[]).await);
    }
    let media = newest_first(media);
    for reader in readers {
        bench.follow(*reader, authors).await;
        assert_eq!(feed(&bench, *reader).await, None);
    }
    let ahead = |users, aim| bench.reader.ahead(users, aim, 4);
    // Nothing is there that could be built anew.
    let done = ahead(readers, Aim::AnewIfThere).await.unwrap();
    assert_eq!(done, Done { built: 0, left: 3 });
    let done = ahead(&readers[..2], Aim::Warm).await.unwrap();
    assert_eq!(done, Done { built: 2, left: 0 });
    let done = ahead(readers, Aim::Warm).await.unwrap();
    assert_eq!(done, Done { built: 1, left: 2 });
    for reader in readers {
        assert_eq!(feed(&bench, *reader).await.as_ref(), Some(&media));
    }
    // What is wrong with a feed is mended.
    for aim in [Aim::Anew, Aim::AnewIfThere] {
        bench
            .store
            .inner
            .remove(readers[0], &media[2..5])
            .await
            .unwrap();
        let done = ahead(readers, aim).await.unwrap();
        assert_eq!(done, Done { built: 3, left: 0 });
        assert_eq!(feed(&bench, readers[0]).await.as_ref(), Some(&media));
    }
    assert!(bench.db.shard_of(17).await.unwrap() == Some(1));
}

async fn users_of(bench: &Bench, since_ms: u64) -> BTreeSet<UserId> {
    let mut users = Active::new(bench.db.clone(), since_ms).await.unwrap();
    let mut found = BTreeSet::new();
    loop {
        let some = users.next().await.unwrap();
        if some.is_empty() {
            return found;
        }
        for user in some {
            assert!(found.insert(user), "{user} comes twice");
        }
    }
}

#[tokio::test]
async fn those_who_were_active_are_found() {
    let bench = Bench::new().await;
    let [posts, follows, followed, nothing] = users(4)[..] else {
        unreachable!()
    };
    bench.post(posts, &[]).await;
    bench.follow(follows, &[followed]).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let at = |seconds: i64| {
        let ms = now.as_millis() as i64 + seconds * 1000;
        users_of(&bench, ms as u64)
    };
    let lately = at(-600).await;
    assert!(lately.contains(&posts) && lately.contains(&follows));
    assert!(!lately.contains(&followed) && !lately.contains(&nothing));
    let later = at(600).await;
    assert!(!later.contains(&posts) && !later.contains(&follows));
    // An old edge of one that has posted lately is one user.
    bench.post(follows, &[]).await;
    assert!(at(-600).await.contains(&follows));
}

#[tokio::test]
async fn a_store_that_fails_is_said() {
    let bench = Bench::new().await;
    let user = users(1)[0];
    for call in ["read", "begin", "complete"] {
        bench.store.set(super::place::Mood::Fails, Some(call));
        let (whose, why) = bench.reader.ahead(&[user], Aim::Warm, 1).await.unwrap_err();
        assert_eq!(whose, user);
        assert!(why.to_string().starts_with("the store"), "{call}: {why}");
        bench.store.set(super::place::Mood::Good, None);
    }
}
