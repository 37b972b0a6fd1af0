//! The service as several processes while Redis is emptied again and again under load, and while it is frozen: no read fails, none
//! lacks a media, none waits for long.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use presplit::feed::{MediaId, UserId};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::clients::{self, App, Book, media_of};
use super::world::{Edges, USERS, Way, World};
use crate::feed::http::call;
use crate::support::wait_until;

const READERS: usize = 4;
/// The machine may be loaded; what a read waits for a frozen Redis is 100 ms.
const LATEST: Duration = Duration::from_secs(5);

/// What was there before the load began, newest first, by user.
type Known = HashMap<UserId, Vec<MediaId>>;

/// Reads homes until it is over. Each read must be answered, and have all that was there before.
fn read(app: &mut App<'_>, known: &Known, took: &mut Vec<Duration>) {
    while !app.book.is_over() {
        let user = app.rng.random_range(1..=USERS);
        let at = app.addrs.lock().unwrap()[app.rng.random_range(0..2)].unwrap();
        let began = Instant::now();
        let answer = call(
            at,
            "GET",
            &format!("/v1/users/{user}/home?limit=200"),
            &[],
            None,
        );
        took.push(began.elapsed());
        if answer.status != 200 {
            app.book.fault(format!("home of {user}: {answer:?}"));
            return;
        }
        let source = answer
            .header("presplit-source")
            .unwrap_or("none")
            .to_owned();
        app.book.count(&format!("home {source}"));
        let page: Vec<MediaId> = media_of(&answer.json()).iter().map(|(id, _)| *id).collect();
        let known = &known[&user];
        let newest = known.first().copied().unwrap_or(0);
        let old: Vec<MediaId> = page.iter().copied().filter(|id| *id <= newest).collect();
        let room = 200 - (page.len() - old.len());
        if !page.is_sorted_by(|a, b| a > b) || old != known[..known.len().min(room)] {
            let lacks: Vec<_> = known.iter().filter(|id| !old.contains(id)).collect();
            app.book.fault(format!(
                "home of {user}, {source}, lacks {lacks:?}: {page:?}"
            ));
        }
    }
}

/// Posts until it is over; each must be taken.
fn post(app: &mut App<'_>) {
    while !app.book.is_over() {
        let author = app.rng.random_range(1..=USERS);
        app.post(author);
        std::thread::sleep(Duration::from_millis(app.rng.random_range(50..200)));
    }
}

struct Load<'a> {
    world: &'a World,
    edges: &'a Edges,
    runtime: &'a tokio::runtime::Runtime,
    book: Book,
}

impl Load<'_> {
    /// While this goes on, with what was posted so far known. How long the reads took, sorted.
    fn during(&self, seed: u64, trouble: impl FnOnce()) -> Vec<Duration> {
        let users = 1..=USERS;
        let known: Known = users
            .map(|u| (u, clients::expected(&self.book, self.edges, u)))
            .collect();
        self.book.stop.store(false, Ordering::Relaxed);
        let mut took: Vec<Duration> = std::thread::scope(|scope| {
            let app = |n: usize| App::new(&self.book, &self.world.addrs, seed + n as u64);
            let known = &known;
            let readers: Vec<_> = (0..READERS)
                .map(|n| {
                    let mut app = app(n);
                    scope.spawn(move || {
                        let mut took = Vec::new();
                        read(&mut app, known, &mut took);
                        took
                    })
                })
                .collect();
            let mut poster = app(READERS);
            scope.spawn(move || post(&mut poster));
            trouble();
            self.book.stop.store(true, Ordering::Relaxed);
            readers
                .into_iter()
                .flat_map(|r| r.join().unwrap_or_default())
                .collect()
        });
        took.sort_unstable();
        let faults = self.book.faults.lock().unwrap().clone();
        assert!(
            faults.is_empty(),
            "{faults:#?}\n{}",
            self.world.last_words()
        );
        self.runtime.block_on(super::quiet(self.world));
        took
    }

    fn count(&self, what: &str) -> u64 {
        let counts = self.book.counts.lock().unwrap();
        counts.get(what).copied().unwrap_or(0)
    }

    fn until_count(&self, what: &str, more: u64) {
        let wanted = self.count(what) + more;
        let holds = || async { self.count(what) >= wanted || self.book.is_over() };
        self.runtime.block_on(wait_until(what, holds));
    }
}

#[test]
fn reads_go_on_while_redis_is_emptied_and_while_it_is_frozen() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let mut world = runtime.block_on(World::new(Way::Apart, false));
    let edges = runtime.block_on(world.fill(100, &mut rng));
    world.start_all();
    let load = Load {
        world: &world,
        edges: &edges,
        runtime: &runtime,
        book: Book::default(),
    };
    let quiet = load.during(100, || load.until_count("home list", 300));

    let emptied = load.during(200, || {
        for _ in 0..40 {
            world.redis.ask::<()>(&["FLUSHALL"]);
            load.until_count("home built", 10);
        }
    });

    let before = load.count("home degraded");
    let mut degraded = 0;
    let frozen = load.during(300, || {
        world.redis.freeze();
        load.until_count("home degraded", 200);
        load.until_count("posted 201", 5);
        degraded = load.count("home degraded") - before;
        world.redis.thaw();
        load.until_count("home list", 50);
    });
    assert!(degraded >= 200);
    for (what, took) in [
        ("quiet", &quiet),
        ("emptied", &emptied),
        ("frozen", &frozen),
    ] {
        let at = |share: usize| took[(took.len() - 1) * share / 100];
        eprintln!(
            "{what}: {} reads, p50 {:?}, p99 {:?}, longest {:?}",
            took.len(),
            at(50),
            at(99),
            at(100)
        );
        assert!(at(100) < LATEST, "{what}: a read took {:?}", at(100));
    }
    let mut app = App::new(&load.book, &world.addrs, 400);
    let users: Vec<UserId> = (1..=USERS).collect();
    let mut faults: Vec<String> = super::verify(&world, &[]).into_iter().collect();
    faults.extend(super::homes(&mut app, &edges, &users));
    drop(load);
    faults.extend(world.faults());
    assert!(faults.is_empty(), "{faults:#?}");
}
