//! Feeds built ahead of their reading, and anew.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use presplit::feed::UserId;
use presplit::feed::ahead::{Active, Aim, Done};
use presplit::feed::store::{RedisStore, Store};

use super::place::{Bench, Mood, newest_first, place, users};
use crate::support::Redis;

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
        bench.store.set(Mood::Fails, Some(call));
        let (whose, why) = bench.reader.ahead(&[user], Aim::Warm, 1).await.unwrap_err();
        assert_eq!(whose, user);
        assert!(why.to_string().starts_with("the store"), "{call}: {why}");
        bench.store.set(Mood::Good, None);
    }
}

/// `presplit feed`, with this as its standard input: whether it was content, and what it said.
fn feed_command(args: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_presplit"))
        .arg("feed")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that refuses its flags does not read it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let done = child.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    (done.status.success(), said)
}

#[tokio::test]
async fn by_command() {
    let bench = Bench::new().await;
    let [reader, author] = users(2)[..] else {
        unreachable!()
    };
    bench.follow(reader, &[author]).await;
    let id = bench.post(author, &[]).await;
    let redis = Redis::new();
    let dir = tempfile::tempdir().unwrap();
    let map = dir.path().join("feed.toml");
    std::fs::write(
        &map,
        format!("[feed.redis.nodes]\nr1 = \"{}\"\n", redis.url()),
    )
    .unwrap();
    let url = place().await.proxy.url();
    let place = ["--database-url", &url, "--map", map.to_str().unwrap()];
    let run = |args: &[&str], input: &str| feed_command(&[args, &place].concat(), input);
    let store = RedisStore::new(&redis.config()).unwrap();
    let ids = async || {
        store
            .dump(reader)
            .await
            .unwrap()
            .map(|d| (d.complete, d.ids))
    };

    let (good, said) = run(&["warm", "--stdin"], &format!("{reader}\n{author}\n"));
    assert!(good && said.starts_with("2 feeds built, 0 left"), "{said}");
    assert_eq!(ids().await, Some((true, vec![id])));
    let (good, said) = run(&["warm", "--stdin"], "1\nx\n");
    assert!(!good && said.contains("line 2"), "{said}");
    store.push(77, &[reader]).await.unwrap();
    let (good, said) = run(&["rebuild", "--user", &reader.to_string()], "");
    assert!(good && said.starts_with("1 feeds built"), "{said}");
    assert_eq!(ids().await, Some((true, vec![id])));
    store.push(77, &[reader]).await.unwrap();
    let (good, said) = run(&["rebuild", "--all"], "");
    assert!(good && said.contains("feeds built"), "{said}");
    assert_eq!(ids().await, Some((true, vec![id])));
    store.drop_feeds(&[reader]).await.unwrap();
    let (good, said) = run(&["warm", "--days", "1"], "");
    assert!(good, "{said}");
    assert_eq!(ids().await, Some((true, vec![id])));
    let (good, said) = run(&["rebuild"], "");
    assert!(!good && said.contains("--all"), "{said}");
    std::fs::write(&map, "").unwrap();
    let (good, said) = run(&["rebuild", "--all"], "");
    assert!(!good && said.contains("[feed.redis]"), "{said}");
}

#[test]
fn the_plan_says_what_a_load_takes_and_where_that_is_from() {
    let load = [
        "plan",
        "--users",
        "30M",
        "--follows",
        "150",
        "--posts",
        "100",
        "--reads",
        "5k",
    ];
    let (good, said) = feed_command(&load, "");
    assert!(good, "{said}");
    for part in [
        "Feeds in Redis",
        "15.0M of 800 entries",
        "Deliveries a second",
        "Redis nodes",
        "From bench/README.md",
    ] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    let (good, said) = feed_command(&[&load[..], &["--active", "0x"]].concat(), "");
    assert!(!good && said.contains("0 to 100"), "{said}");
}
