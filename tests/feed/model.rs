//! What a store must do, as a plain model: every step is done to both, and everything that can be seen is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use presplit::feed::store::{Building, Cached, Dump, Ids, PUT_WITHIN, Pushed, Span, Store};
use presplit::feed::{MediaId, UserId};
use proptest::prelude::*;

/// One step. Users and ids are few, so that steps meet.
#[derive(Clone, Debug)]
pub enum Step {
    Push(MediaId, Vec<UserId>),
    /// One after the other, so many.
    PushRun(MediaId, i64, UserId),
    Read(UserId, Span, usize),
    Begin(UserId),
    /// Ends what the nth of all the begins has begun.
    Complete(usize, Vec<MediaId>),
    Drop(Vec<UserId>),
    Remove(UserId, Vec<MediaId>),
    /// All objects are asked for.
    Look,
    /// As read from Postgres at the nth of the moments between steps, or too long ago.
    Put(Vec<MediaId>, u8, When),
    Bury(MediaId),
    Upset(Upset),
}

#[derive(Clone, Copy, Debug)]
pub enum When {
    Now,
    Step(usize),
    TooLongAgo,
}

/// What may happen to a store at any time.
#[derive(Clone, Copy, Debug)]
pub enum Upset {
    /// All that it holds is lost.
    Lose,
    /// What it keeps to be faster is lost.
    Forget,
}

/// Domains of the steps.
#[derive(Clone, Copy, Debug)]
pub struct Domain {
    pub most: usize,
    pub ids: i64,
    pub steps: usize,
}

const USERS: i64 = 4;
const OBJECTS: i64 = 12;

pub fn steps(domain: Domain) -> impl Strategy<Value = Vec<Step>> {
    let Domain { most, ids, steps } = domain;
    let id = 1..=ids;
    let user = 0..USERS;
    let users = prop::collection::vec(user.clone(), 0..6);
    let some_ids = prop::collection::vec(id.clone(), 0..most * 2);
    let object = 1..=OBJECTS;
    let objects = prop::collection::vec(object.clone(), 1..6);
    let span = prop_oneof![
        Just(Span::Newest),
        (0..=ids + 1).prop_map(Span::Before),
        (0..=ids + 1).prop_map(Span::After),
    ];
    let when = prop_oneof![
        3 => Just(When::Now),
        2 => (0..steps).prop_map(When::Step),
        1 => Just(When::TooLongAgo),
    ];
    let upset = prop_oneof![Just(Upset::Lose), Just(Upset::Forget)];
    let step = prop_oneof![
        8 => (id.clone(), users.clone()).prop_map(|(id, users)| Step::Push(id, users)),
        2 => (id.clone(), 1..most as i64 * 2, user.clone()).prop_map(|(id, n, user)| Step::PushRun(id, n, user)),
        6 => (user.clone(), span, 0..most * 2).prop_map(|(user, span, n)| Step::Read(user, span, n)),
        5 => user.clone().prop_map(Step::Begin),
        5 => (any::<prop::sample::Index>(), some_ids.clone()).prop_map(|(nth, ids)| Step::Complete(nth.index(8), ids)),
        1 => users.prop_map(Step::Drop),
        2 => (user, some_ids).prop_map(|(user, ids)| Step::Remove(user, ids)),
        3 => Just(Step::Look),
        4 => (objects, any::<u8>(), when).prop_map(|(ids, body, when)| Step::Put(ids, body, when)),
        1 => object.prop_map(Step::Bury),
        1 => upset.prop_map(Step::Upset),
    ];
    prop::collection::vec(step, 1..steps)
}

/// A feed that is building or complete.
struct Feed {
    complete: bool,
    building: Building,
    trimmed: MediaId,
    ids: BTreeSet<MediaId>,
}

impl Feed {
    fn add(&mut self, id: MediaId, most: usize) -> Pushed {
        if id <= self.trimmed {
            return absent();
        }
        if !self.ids.insert(id) {
            return Pushed {
                duplicate: 1,
                ..Pushed::default()
            };
        }
        self.trim(most);
        Pushed {
            new: 1,
            ..Pushed::default()
        }
    }

    /// Of a full feed nobody knows what is older than its oldest, also once it is not full any more.
    fn trim(&mut self, most: usize) {
        while self.ids.len() > most {
            self.ids.pop_first();
        }
        if self.ids.len() == most {
            self.trimmed = self.ids.first().unwrap() - 1;
        }
    }

    fn read(&self, span: Span, most: usize) -> Ids {
        let newest_first = self.ids.iter().rev().copied();
        let mut fit: Vec<MediaId> = match span {
            Span::Newest => newest_first.collect(),
            Span::Before(id) => newest_first.filter(|held| *held < id).collect(),
            Span::After(id) => newest_first.filter(|held| *held > id).collect(),
        };
        let more = fit.len() > most;
        match span {
            Span::After(_) => drop(fit.drain(..fit.len().saturating_sub(most))),
            Span::Newest | Span::Before(_) => fit.truncate(most),
        }
        Ids {
            ids: fit,
            more,
            trimmed: self.trimmed,
        }
    }
}

fn absent() -> Pushed {
    Pushed {
        absent: 1,
        ..Pushed::default()
    }
}

/// A store and what it should hold.
pub struct Twin<'s> {
    store: &'s dyn Store,
    most: usize,
    feeds: BTreeMap<UserId, Feed>,
    begun: Vec<(UserId, Building)>,
    objects: BTreeMap<MediaId, Option<Bytes>>,
    moments: Vec<Instant>,
    /// Since when a put is taken: after a loss, from the next look on. `None`: not yet.
    taken_since: Option<Instant>,
}

impl<'s> Twin<'s> {
    /// The store is empty.
    pub fn new(store: &'s dyn Store, most: usize) -> Twin<'s> {
        Twin {
            store,
            most,
            feeds: BTreeMap::new(),
            begun: Vec::new(),
            objects: BTreeMap::new(),
            moments: vec![Instant::now()],
            taken_since: None,
        }
    }

    /// Does the step to both. Upsets have been done to the store already.
    pub async fn step(&mut self, step: &Step, lost: bool) {
        match step {
            Step::Push(id, feeds) => self.push(*id, feeds).await,
            Step::PushRun(id, n, feed) => {
                for id in *id..*id + n {
                    self.push(id, &[*feed]).await;
                }
            }
            Step::Read(feed, span, most) => {
                let held = self.feeds.get(feed).filter(|feed| feed.complete);
                let wanted = held.map(|feed| feed.read(*span, *most));
                let found = self.store.read(*feed, *span, *most).await.unwrap();
                assert_eq!(found, wanted, "{step:?}");
            }
            Step::Begin(feed) => self.begin(*feed).await,
            Step::Complete(nth, ids) => self.complete(*nth, ids).await,
            Step::Drop(feeds) => {
                self.store.drop_feeds(feeds).await.unwrap();
                self.feeds.retain(|feed, _| !feeds.contains(feed));
            }
            Step::Remove(feed, ids) => {
                self.store.remove(*feed, ids).await.unwrap();
                if let Some(feed) = self.feeds.get_mut(feed) {
                    feed.ids.retain(|id| !ids.contains(id));
                }
            }
            Step::Look => self.look().await,
            Step::Put(ids, body, when) => self.put(ids, *body, *when).await,
            Step::Bury(id) => {
                self.store.tombstone(*id).await.unwrap();
                self.objects.insert(*id, None);
            }
            Step::Upset(_) if lost => {
                self.feeds.clear();
                self.objects.clear();
                self.taken_since = None;
            }
            Step::Upset(_) => {}
        }
        self.moments.push(Instant::now());
    }

    async fn push(&mut self, id: MediaId, feeds: &[UserId]) {
        let mut wanted = Pushed::default();
        for feed in feeds {
            let feed = self.feeds.get_mut(feed);
            wanted = wanted.plus(feed.map_or(absent(), |feed| feed.add(id, self.most)));
        }
        let found = self.store.push(id, feeds).await.unwrap();
        assert_eq!(found, wanted, "{id} to {feeds:?}");
    }

    async fn begin(&mut self, feed: UserId) {
        let building = self.store.begin(feed).await.unwrap();
        self.begun.push((feed, building.clone()));
        let held = self.feeds.entry(feed).or_insert(Feed {
            complete: false,
            building: building.clone(),
            trimmed: MediaId::MIN,
            ids: BTreeSet::new(),
        });
        if held.complete {
            assert_eq!(held.building, building, "it is complete: nobody else's");
        }
        held.building = building;
    }

    async fn complete(&mut self, nth: usize, ids: &[MediaId]) {
        // Rather one of those begun last.
        let Some(at) = self.begun.len().checked_sub(1 + nth % 8) else {
            return;
        };
        let (feed, building) = self.begun[at].clone();
        let done = self.store.complete(feed, &building, ids).await.unwrap();
        let held = self.feeds.get_mut(&feed);
        let held = held.filter(|feed| feed.building == building);
        assert_eq!(done, held.is_some(), "complete {feed} as {building:?}");
        if let Some(held) = held {
            held.complete = true;
            let known = ids.iter().filter(|id| **id > held.trimmed);
            held.ids.extend(known);
            held.trim(self.most);
        }
    }

    async fn look(&mut self) {
        let ids: Vec<MediaId> = (1..=OBJECTS).rev().collect();
        let found = self.store.objects(&ids).await.unwrap();
        let wanted: Vec<Cached> = ids.iter().map(|id| self.cached(*id)).collect();
        assert_eq!(found, wanted);
        self.taken_since.get_or_insert_with(Instant::now);
    }

    fn cached(&self, id: MediaId) -> Cached {
        match self.objects.get(&id) {
            Some(Some(body)) => Cached::Object(body.clone()),
            Some(None) => Cached::Tombstone,
            None => Cached::Absent,
        }
    }

    async fn put(&mut self, ids: &[MediaId], body: u8, when: When) {
        let read_at = match when {
            When::Now => Instant::now(),
            When::Step(nth) => self.moments[nth % self.moments.len()],
            // The machine may have been started a moment ago.
            When::TooLongAgo => {
                let long = PUT_WITHIN + Duration::from_secs(1);
                Instant::now().checked_sub(long).unwrap_or(self.moments[0])
            }
        };
        let object = |id: &MediaId| (*id, Bytes::from(format!("{id} {body}")));
        let objects: Vec<(MediaId, Bytes)> = ids.iter().map(object).collect();
        self.store.put_objects(&objects, read_at).await.unwrap();
        let taken = self.taken_since.is_some_and(|since| since <= read_at);
        if taken && read_at.elapsed() < PUT_WITHIN {
            for (id, body) in objects {
                let held = self.objects.entry(id).or_insert(Some(Bytes::new()));
                if held.is_some() {
                    *held = Some(body);
                }
            }
        }
    }

    /// All that the store holds is as it should be.
    pub async fn compare(&self) {
        for user in 0..USERS {
            let wanted = self.feeds.get(&user).map(|feed| Dump {
                complete: feed.complete,
                ids: feed.ids.iter().rev().copied().collect(),
                trimmed: feed.trimmed,
            });
            assert_eq!(self.store.dump(user).await.unwrap(), wanted, "feed {user}");
        }
    }

    /// For stores that lose nothing by themselves: a put is taken from the first on.
    pub fn takes_at_once(mut self) -> Twin<'s> {
        self.taken_since = Some(self.moments[0]);
        self
    }
}
