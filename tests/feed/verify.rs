//! `feed verify`: whatever is wrong with a feed is found, and nothing else is taken for wrong.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use presplit::feed::store::{MemoryLimits, MemoryStore, RedisStore, Span, Store, Walk};
use presplit::feed::verify::{Difference, Sampler, Verdict, Verifier};
use presplit::feed::{MediaId, UserId, graph};
use serde_json::json;

use super::http::{Service, call};
use super::place::{Bench, Mood, db, place, users};
use crate::support::{Redis, wait_until};

/// What a worker would have done is done.
async fn settled(bench: &Bench, authors: &[UserId]) {
    let sql = "DELETE FROM outbox WHERE user_id = ANY ($1::bigint[])";
    bench.db.ask(sql, &[&authors]).await.unwrap();
}

fn missing(ids: &[MediaId]) -> Verdict {
    Verdict::Differs(Difference {
        missing: ids.to_vec(),
        ..Difference::default()
    })
}

#[tokio::test]
async fn a_feed_is_equal_or_what_is_wrong_with_it_is_said() {
    let bench = Bench::new().await;
    let verifier = Verifier::new(bench.db.clone(), bench.store.clone());
    let [reader, author, other, stranger, star] = users(5)[..] else {
        unreachable!()
    };
    let look = || async { verifier.look(reader).await.unwrap() };
    assert_eq!(look().await, Verdict::Absent);
    bench.follow(reader, &[author, other]).await;
    let first = bench.post(author, &[]).await;
    bench.home(reader, Span::Newest, 10).await;
    assert_eq!(look().await, Verdict::Equal);

    // Not pushed yet, as its row says; pushed and not pushed, as no row is there.
    let second = bench.post(author, &[]).await;
    assert_eq!(look().await, Verdict::Equal);
    settled(&bench, &[author]).await;
    assert_eq!(look().await, missing(&[second]));
    bench.store.push(second, &[reader]).await.unwrap();
    assert_eq!(look().await, Verdict::Equal);
    bench.store.remove(reader, &[first]).await.unwrap();
    assert_eq!(look().await, missing(&[first]));
    bench.store.push(first, &[reader]).await.unwrap();

    // Of the reader itself, too.
    let own = bench.post(reader, &[]).await;
    settled(&bench, &[reader]).await;
    bench.store.remove(reader, &[own]).await.unwrap();
    assert_eq!(look().await, missing(&[own]));
    bench.store.push(own, &[reader]).await.unwrap();

    // What it may hold: gone, muted, no more followed.
    bench.delete(author, first).await;
    let third = bench.post(other, &[reader]).await;
    settled(&bench, &[author, other]).await;
    assert_eq!(look().await, Verdict::Equal);
    graph::mute(&bench.db, reader, author, true).await.unwrap();
    assert_eq!(look().await, Verdict::Equal);
    bench.store.remove(reader, &[second]).await.unwrap();
    assert_eq!(look().await, missing(&[second]), "muted ones are pushed");
    bench.store.push(second, &[reader]).await.unwrap();
    for who in [author, other] {
        graph::unfollow(&bench.db, &*bench.store, reader, who)
            .await
            .unwrap();
    }
    assert_eq!(look().await, Verdict::Equal);

    // An edge that is not settled.
    let sql = "UPDATE follow_out SET status = 'following', rev = rev + 1 WHERE user_id = $1 AND target = $2";
    bench.store.remove(reader, &[third]).await.unwrap();
    bench.db.ask(sql, &[&reader, &other]).await.unwrap();
    let pending = "INSERT INTO outbox (user_id, kind, object, due_at) VALUES ($1, 'edge', $2, now() + interval '1 hour')";
    bench.db.ask(pending, &[&reader, &other]).await.unwrap();
    assert_eq!(look().await, Verdict::Equal);
    settled(&bench, &[reader]).await;
    assert_eq!(look().await, missing(&[third]));
    bench.store.push(third, &[reader]).await.unwrap();

    // A star's are pulled.
    bench.follow(reader, &[star]).await;
    bench.home(reader, Span::Newest, 10).await;
    let pulled = bench.post(star, &[]).await;
    settled(&bench, &[star]).await;
    assert_eq!(look().await, missing(&[pulled]));
    let from = "INSERT INTO stars (author, pull_from) VALUES ($1, $2)";
    bench.db.ask(from, &[&star, &pulled]).await.unwrap();
    assert_eq!(look().await, Verdict::Equal);
    bench
        .db
        .ask("DELETE FROM stars WHERE author = $1", &[&star])
        .await
        .unwrap();

    // What has no reason to be there.
    let strange = bench.post(stranger, &[reader]).await;
    settled(&bench, &[stranger]).await;
    bench.store.push(pulled, &[reader]).await.unwrap();
    let none = strange + 1;
    bench.store.push(none, &[reader]).await.unwrap();
    // Readers take that out.
    bench.store.push(12345, &[reader]).await.unwrap();
    assert_eq!(
        look().await,
        Verdict::Differs(Difference {
            surplus: vec![none, strange],
            ..Difference::default()
        })
    );

    bench.store.set(Mood::Fails, None);
    assert!(verifier.look(reader).await.is_err());
}

/// A feed that is full says nothing of what is older than it.
#[tokio::test]
async fn what_was_trimmed_is_not_missing() {
    let bench = Bench::new().await;
    let store = Arc::new(MemoryStore::new(MemoryLimits {
        feed_most: 3,
        ..MemoryLimits::default()
    }));
    let verifier = Verifier::new(bench.db.clone(), store.clone());
    let [reader, author] = users(2)[..] else {
        unreachable!()
    };
    bench.follow(reader, &[author]).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(bench.post(author, &[]).await);
    }
    settled(&bench, &[author]).await;
    let building = store.begin(reader).await.unwrap();
    assert_eq!(verifier.look(reader).await.unwrap(), Verdict::Absent);
    assert!(store.complete(reader, &building, &ids).await.unwrap());
    assert_eq!(verifier.look(reader).await.unwrap(), Verdict::Equal);
    store.remove(reader, &[ids[3]]).await.unwrap();
    assert_eq!(verifier.look(reader).await.unwrap(), missing(&[ids[3]]));
}

/// All feeds come up in a walk, and a worker looks at them all in time.
#[tokio::test]
async fn workers_look_at_feeds_all_the_time() {
    let bench = Bench::new().await;
    let redis = Redis::new();
    let in_redis: Arc<dyn Store> = Arc::new(RedisStore::new(&redis.config()).unwrap());
    for store in [bench.store.clone() as Arc<dyn Store>, in_redis] {
        let some = users(300);
        let (bad, author) = (some[7], some[299]);
        bench.follow(bad, &[author]).await;
        for user in &some[..299] {
            let building = store.begin(*user).await.unwrap();
            assert!(store.complete(*user, &building, &[]).await.unwrap());
        }
        let mut found = BTreeSet::new();
        let mut at = Some(Walk::default());
        while let Some(from) = at {
            let (users, next) = store.walk(from).await.unwrap();
            found.extend(users);
            at = next;
        }
        assert_eq!(found, some[..299].iter().copied().collect());

        // Pushed to nobody.
        bench.post(author, &[]).await;
        settled(&bench, &[author]).await;
        let sampler = Sampler::new(Verifier::new(bench.db.clone(), store.clone())).unwrap();
        let seen = sampler.seen();
        let sampling = tokio::spawn(sampler.run(Duration::from_micros(100)));
        wait_until("the feed is found", || async {
            seen.with_label_values(&["differs"]).get() == 1
        })
        .await;
        wait_until("it is dropped", || async {
            store.dump(bad).await.unwrap().is_none()
        })
        .await;
        assert!(seen.with_label_values(&["equal"]).get() > 0);
        sampling.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_command_and_by_call() {
    let redis = Redis::new();
    let dir = tempfile::tempdir().unwrap();
    let map = dir.path().join("feed.toml");
    // A loaded machine is not a fault.
    let text = format!(
        "[feed.redis]\nlimit = \"20s\"\n[feed.redis.nodes]\nr1 = \"{}\"\n",
        redis.url()
    );
    std::fs::write(&map, &text).unwrap();
    let url = place().await.proxy.url();
    let verify = |more: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_presplit"))
            .args(["feed", "verify", "--database-url", &url, "--map"])
            .arg(&map)
            .args(more)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned()
            + &String::from_utf8_lossy(&done.stderr);
        (done.status.code(), said)
    };
    let [reader, author] = users(2)[..] else {
        unreachable!()
    };
    let store = RedisStore::new(&redis.config()).unwrap();
    let building = store.begin(reader).await.unwrap();
    store.complete(reader, &building, &[]).await.unwrap();
    let (code, said) = verify(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.starts_with("1 feeds: 1 equal, 0 differ, 0 absent"),
        "{said}"
    );
    let db = db().await;
    let media = "INSERT INTO media (user_id, body) VALUES ($1, '{}') RETURNING id";
    let id: MediaId = db.ask(media, &[&reader]).await.unwrap()[0].get(0);
    let none = id + 1;
    store.push(none, &[reader]).await.unwrap();
    for which in [
        vec![],
        vec!["--sample", "5"],
        vec!["--user", &reader.to_string()],
    ] {
        let (code, said) = verify(&which);
        assert_eq!(code, Some(1), "{said}");
        let line =
            format!("{reader}: 1 missing: {id}; 1 surplus: {none}\n1 feeds: 0 equal, 1 differ");
        assert!(said.starts_with(&line), "{said}");
    }
    let (code, said) = verify(&["--user", &author.to_string()]);
    assert_eq!((code, said.contains("1 absent")), (Some(0), true), "{said}");
    std::fs::write(&map, "").unwrap();
    let (code, said) = verify(&[]);
    assert!(code == Some(1) && said.contains("/v1/verify"), "{said}");

    std::fs::write(&map, &text).unwrap();
    let flags = [
        "--role",
        "api",
        "--database-url",
        &url,
        "--map",
        map.to_str().unwrap(),
    ];
    let service = Service::start(&flags);
    let ask = |body: serde_json::Value| {
        let body = body.to_string();
        call(service.at, "POST", "/v1/verify", &[], Some(&body))
    };
    let found = json!({ "equal": 0, "absent": 1, "differ": [{
        "user_id": reader.to_string(), "missing": [id.to_string()], "surplus": [none.to_string()], "misplaced": [], "too_long": false
    }]});
    let both = json!({ "users": [reader.to_string(), author.to_string()] });
    assert_eq!(ask(both).json(), found);
    let answer = ask(json!({ "sample": 3 })).json();
    assert_eq!(answer["differ"], found["differ"]);
    for bad in [
        json!({}),
        json!({ "sample": 1000 }),
        json!({ "sample": 1, "users": [] }),
    ] {
        assert_eq!(ask(bad).json()["code"], "bad_request");
    }
    redis.freeze();
    let answer = ask(json!({ "sample": 3 }));
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (503, &json!("store_unavailable"))
    );
    redis.thaw();
}
