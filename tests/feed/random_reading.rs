//! Random calls against a plain model: every home page is exactly what the edges and media say at that moment, whatever the store
//! has lost or refuses to say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use presplit::feed::graph;
use presplit::feed::store::{RedisStore, Span};
use presplit::feed::{MediaId, UserId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::place::{Bench, Mood, ids, users};
use crate::support::Redis;

/// What must be.
#[derive(Default)]
struct Model {
    media: BTreeMap<MediaId, UserId>,
    follows: BTreeSet<(UserId, UserId)>,
    muted: BTreeSet<(UserId, UserId)>,
    blocks: BTreeSet<(UserId, UserId)>,
}

impl Model {
    fn blocked(&self, a: UserId, b: UserId) -> bool {
        self.blocks.contains(&(a, b)) || self.blocks.contains(&(b, a))
    }

    fn cut(&mut self, a: UserId, b: UserId) {
        self.follows.remove(&(a, b));
        self.muted.remove(&(a, b));
    }

    /// A page, newest first, and whether there are more in its direction.
    fn home(&self, reader: UserId, span: Span, most: usize) -> (Vec<MediaId>, bool) {
        let shown = |author: &UserId| {
            let edge = (reader, *author);
            *author == reader || self.follows.contains(&edge) && !self.muted.contains(&edge)
        };
        let within = |id: &MediaId| match span {
            Span::Newest => true,
            Span::Before(at) => *id < at,
            Span::After(at) => *id > at,
        };
        let mut all: Vec<MediaId> = self
            .media
            .iter()
            .filter(|(id, a)| within(id) && shown(a))
            .map(|(id, _)| *id)
            .collect();
        if !matches!(span, Span::After(_)) {
            all.reverse();
        }
        let more = all.len() > most;
        all.truncate(most);
        all.sort_unstable_by(|a, b| b.cmp(a));
        (all, more)
    }
}

#[tokio::test]
async fn every_page_is_as_edges_and_media_say() {
    pages(Bench::new().await, &|| {}).await;
}

/// Over a Redis that loses everything now and then.
#[tokio::test]
async fn every_page_is_as_edges_and_media_say_over_redis() {
    let redis = Redis::new();
    let store = Arc::new(RedisStore::new(&redis.config()).unwrap());
    pages(Bench::over(store).await, &|| redis.tell(&["FLUSHALL"])).await;
}

async fn pages(bench: Bench, lose_all: &dyn Fn()) {
    let seed = std::env::var("FEED_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(6);
    let mut random = StdRng::seed_from_u64(seed);
    let all = users(6);
    let star = all[5];
    bench
        .db
        .once(
            "INSERT INTO stars (author, pull_from) VALUES ($1, 0)",
            &[&star],
        )
        .await
        .unwrap();
    let (db, store) = (&bench.db, &*bench.store);
    let mut model = Model::default();
    for step in 0..600 {
        let a = all[random.random_range(0..all.len())];
        let b = all[random.random_range(0..all.len())];
        let edge = (a, b);
        match random.random_range(0..20) {
            0..4 => {
                let feeds: Vec<UserId> = match a == star {
                    true => Vec::new(),
                    false => model
                        .follows
                        .iter()
                        .filter(|(_, t)| *t == a)
                        .map(|(s, _)| *s)
                        .collect(),
                };
                model.media.insert(bench.post(a, &feeds).await, a);
            }
            4 => {
                let of_a: Vec<MediaId> = model
                    .media
                    .iter()
                    .filter(|(_, u)| **u == a)
                    .map(|(id, _)| *id)
                    .collect();
                if let Some(id) = of_a.get(random.random_range(0..of_a.len().max(1))) {
                    bench.delete(a, *id).await;
                    model.media.remove(id);
                }
            }
            5..8 if a != b => {
                graph::follow(db, store, a, b).await.unwrap();
                if !model.blocked(a, b) {
                    model.follows.insert(edge);
                }
            }
            8 => {
                graph::unfollow(db, store, a, b).await.unwrap();
                model.cut(a, b);
            }
            9 => {
                let muted = random.random();
                graph::mute(db, a, b, muted).await.unwrap();
                match muted && model.follows.contains(&edge) {
                    true => drop(model.muted.insert(edge)),
                    false => drop(model.muted.remove(&edge)),
                }
            }
            10 if a != b => {
                if random.random() {
                    graph::block(db, store, a, b).await.unwrap();
                    model.blocks.insert(edge);
                    model.cut(a, b);
                    model.cut(b, a);
                } else {
                    graph::unblock(db, store, a, b).await.unwrap();
                    model.blocks.remove(&edge);
                }
            }
            11 if random.random_ratio(1, 4) => lose_all(),
            11 => bench.store.inner.drop_feeds(&[a]).await.unwrap(),
            _ => {
                let most = random.random_range(1..12);
                // Any id will do as a cursor: of others' media, of deleted ones, of none.
                let known: Vec<MediaId> = model.media.keys().copied().collect();
                let at = known
                    .get(random.random_range(0..known.len().max(1)))
                    .map_or(0, |id| id + random.random_range(-1..=1));
                let span =
                    [Span::Newest, Span::Before(at), Span::After(at)][random.random_range(0..3)];
                let calls = [
                    None,
                    Some("read"),
                    Some("begin"),
                    Some("complete"),
                    Some("objects"),
                    Some("put_objects"),
                    Some("remove"),
                ];
                let mood = match random.random_range(0..4) {
                    0 => Mood::Fails,
                    _ => Mood::Good,
                };
                bench
                    .store
                    .set(mood, calls[random.random_range(0..calls.len())]);
                let page = bench.home(a, span, most).await;
                bench.store.set(Mood::Good, None);
                let want = model.home(a, span, most);
                assert_eq!(
                    (ids(&page), page.more),
                    want,
                    "seed {seed}, step {step}: home of {a}, {span:?}, {most}, {:?}",
                    page.source
                );
            }
        }
    }
    bench
        .db
        .once("DELETE FROM stars WHERE author = $1", &[&star])
        .await
        .unwrap();
}
