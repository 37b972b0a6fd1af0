//! Everything of the feed service is killed with -9 and started again while apps post, follow and read: api, workers, Redis (which
//! forgets all), a Postgres host, the proxy. What was answered with 201 must be in every follower's feed, once and in order.

mod clients;
mod crowd;
mod emptied;
mod trouble;
mod world;

use std::collections::{HashMap, HashSet};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use presplit::feed::store::RedisStore;
use presplit::feed::{FEED_MOST, MediaId, UserId};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::feed::hook::Webhook;
use crate::feed::http::call;
use clients::{ACTORS, Actor, App, Book};
use crowd::Crowd;
use world::{BIG, CROWD, Edges, MANY, USERS, Way, World};

/// A row of a worker that was killed is free again after 15 seconds; pushing to very many takes its time.
const QUIET_WITHIN: Duration = Duration::from_secs(300);
/// Feeds of the crowd that are read all the time, and looked at in the end.
const LOOKED_AT: usize = 300;
/// By so much a replica of Redis may be behind when it is read, and some more.
const BEHIND: Duration = Duration::from_secs(2);
/// Feeds verified at a time, of all.
const VERIFIED: &str = "5000";

/// All that was to be done is done: how long that took.
async fn quiet(world: &World) -> Duration {
    let began = Instant::now();
    let rows = |more: &'static str| {
        world.number(move |schema| format!("SELECT count(*) FROM {schema}.outbox {more}"))
    };
    while rows("").await > 0 {
        let left = rows("").await;
        assert!(
            began.elapsed() < QUIET_WITHIN && rows("WHERE dead_at IS NOT NULL").await == 0,
            "{left} rows of the outbox are left:\n{}",
            world.last_words()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    began.elapsed()
}

/// Every media that was answered is there once, by its key, and none is there that no key made.
async fn durable(world: &World, book: &Book) -> Vec<String> {
    let mut found: HashMap<String, Vec<MediaId>> = HashMap::new();
    for (host, shard) in (0..world::SHARDS).map(|s| (world.hosts.owner(s), s)) {
        let sql =
            format!("SELECT idem_key, id, deleted_at IS NOT NULL FROM shard_{shard:04}.media");
        for row in world
            .hosts
            .client(host)
            .await
            .query(&sql, &[])
            .await
            .unwrap()
        {
            found.entry(row.get(0)).or_default().push(row.get(1));
        }
    }
    let posts = book.posts.lock().unwrap();
    let mut faults = Vec::new();
    for post in posts.iter() {
        match found.remove(&post.key).as_deref() {
            Some([id]) if *id == post.id => {}
            other => faults.push(format!("{post:?} is in Postgres as {other:?}")),
        }
    }
    // Each call was repeated until it was answered.
    faults.extend(found.iter().map(|f| format!("nobody was told of {f:?}")));
    faults
}

/// The webhook has heard of all that was answered.
fn told(hook: &Webhook, book: &Book) -> Vec<String> {
    let (events, repeated) = hook.taken();
    eprintln!("{events} events were told, {repeated} of them more than once");
    let (posts, deleted) = (hook.heard("post"), hook.heard("delete"));
    let of_posts = book.posts.lock().unwrap();
    let of_posts = of_posts.iter().filter(|post| !posts.contains(&post.id));
    let mut faults: Vec<String> = of_posts
        .map(|post| format!("the webhook has not heard of {post:?}"))
        .collect();
    let of_deleted = book.deleted.lock().unwrap();
    let of_deleted = of_deleted.iter().filter(|id| !deleted.contains(id));
    faults.extend(of_deleted.map(|id| format!("nor that {id} was deleted")));
    if hook.heard("edge").is_empty() {
        faults.push("nor of any edge".to_owned());
    }
    faults
}

/// Homes to their ends are what was posted by those whom the user follows: none missing, none twice, newest first.
fn homes(app: &mut App<'_>, edges: &Edges, users: &[UserId]) -> Vec<String> {
    let mut faults = Vec::new();
    for user in users {
        let Some(home) = app.home(*user) else {
            faults.push(format!("home of {user} can't be read"));
            continue;
        };
        let expected = clients::expected(app.book, edges, *user);
        let least = expected
            .len()
            .min(FEED_MOST.saturating_sub(clients::hidden(app.book, edges, *user)));
        if home.len() < least || expected.get(..home.len()) != Some(home.as_slice()) {
            let (seen, due): (HashSet<_>, HashSet<_>) =
                (home.iter().collect(), expected.iter().collect());
            let last = home.last().copied().unwrap_or(MediaId::MAX);
            let missing: Vec<_> = expected
                .iter()
                .filter(|id| !seen.contains(id) && **id > last)
                .collect();
            let surplus: Vec<_> = home.iter().filter(|id| !due.contains(id)).collect();
            faults.push(format!(
                "home of {user}: {} media, {} expected, at least {least}; missing {missing:?}, surplus {surplus:?}",
                home.len(),
                expected.len()
            ));
        }
    }
    faults
}

struct Scale {
    way: Way,
    /// With a replica of Redis and a webhook.
    with_others: bool,
    rounds: u32,
    time: Duration,
    seed: u64,
    crowd: i64,
    /// Between two posts of the authors with many followers.
    pause: Duration,
}

fn run(scale: &Scale) {
    let began = Instant::now();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut rng = StdRng::seed_from_u64(scale.seed);
    let mut world = runtime.block_on(World::new(scale.way, scale.with_others));
    let mut edges = runtime.block_on(world.fill(scale.crowd, &mut rng));
    eprintln!("filled after {:?}", began.elapsed());
    world.start_all();
    let looked_at = world::some_of_the_crowd(scale.crowd, LOOKED_AT, &mut rng);
    let host_of_big = world.hosts.owner((BIG % i64::from(world::SHARDS)) as u32);
    let crowd = Crowd::new(
        RedisStore::new(&world.redis.config()).unwrap(),
        world.hosts.clusters[host_of_big].config(),
        scale.crowd,
    );
    let users: Vec<UserId> = (1..=USERS).collect();
    let everybody = [users.as_slice(), &looked_at].concat();
    let book = Book::default();
    for round in 0..scale.rounds {
        book.stop.store(false, Ordering::Relaxed);
        // The star is one in every other round.
        match round % 2 {
            0 => runtime.block_on(world.count_star(MANY)),
            _ => runtime.block_on(world.end_star()),
        }
        let seed = scale.seed.wrapping_mul(1000) + u64::from(round) * 100;
        let mut of_actor: Vec<Edges> = vec![Edges::new(); ACTORS];
        for (user, targets) in edges.drain() {
            of_actor[user as usize % ACTORS].insert(user, targets);
        }
        let addrs = world.addrs.clone();
        std::thread::scope(|scope| {
            let app = |n: usize| App::new(&book, &addrs, seed + n as u64);
            let actors: Vec<_> = of_actor
                .into_iter()
                .enumerate()
                .map(|(n, edges)| {
                    let mut actor = Actor::new(app(n), edges);
                    scope.spawn(move || {
                        actor.run();
                        actor.edges
                    })
                })
                .collect();
            let (authors, readers) = (app(ACTORS), app(ACTORS + 1));
            let (pause, looked_at) = (scale.pause, &looked_at);
            scope.spawn(move || clients::authors(authors, pause));
            let behind = if scale.with_others {
                BEHIND
            } else {
                Duration::ZERO
            };
            scope.spawn(move || clients::crowd(readers, looked_at, behind));
            let build = crowd.build(&book, StdRng::seed_from_u64(seed + 50));
            let handle = runtime.handle();
            if scale.way == Way::Apart {
                scope.spawn(move || handle.block_on(build));
            }
            trouble::make(&mut world, &book, scale.time, &mut rng);
            book.stop.store(true, Ordering::Relaxed);
            for actor in actors {
                edges.extend(actor.join().unwrap());
            }
        });
        let faults = book.faults.lock().unwrap().clone();
        assert!(
            faults.is_empty(),
            "seed {}: {faults:#?}\n{}",
            scale.seed,
            world.last_words()
        );
        let took = runtime.block_on(quiet(&world));
        eprintln!(
            "round {round}: quiet after {took:?}, {:?} since it began",
            began.elapsed()
        );
        assert_eq!(runtime.block_on(world.has_star()), round % 2 == 0);
        let mut faults = world.faults();
        if let Some(beside) = &world.beside {
            faults.extend(told(&beside.hook, &book));
            std::thread::sleep(BEHIND);
        }
        faults.extend(runtime.block_on(durable(&world, &book)));
        // First what feeds there are, then those that the reads make.
        let big = clients::expected(&book, &edges, CROWD);
        let (there, wrong) = runtime.block_on(crowd.compare(&big));
        eprintln!("{there} feeds of the crowd with {} media each", big.len());
        faults.extend(wrong);
        faults.extend(verify(&world, &everybody));
        let mut app = App::new(&book, &addrs, seed + 99);
        faults.extend(homes(&mut app, &edges, &users));
        faults.extend(homes(&mut app, &edges, &looked_at));
        faults.extend(verify(&world, &everybody));
        if !faults.is_empty() {
            panic!(
                "seed {}: {} faults: {:#?}\n{}",
                scale.seed,
                faults.len(),
                &faults[..faults.len().min(10)],
                world.last_words()
            );
        }
    }
    for (what, n) in &*book.counts.lock().unwrap() {
        eprintln!("{n:8} {what}");
    }
    for (what, n) in world.delivered() {
        eprintln!("{n:8} delivered {what}");
    }
    eprintln!(
        "{} posts, {:?}",
        book.posts.lock().unwrap().len(),
        began.elapsed()
    );
}

/// `presplit feed verify` over feeds that there are; those of these users where only the process itself can look at them.
fn verify(world: &World, users: &[UserId]) -> Option<String> {
    if world.way == Way::Together {
        return verify_by_call(world, users);
    }
    let done = Command::new(env!("CARGO_BIN_EXE_presplit"))
        .args(["feed", "verify", "--sample", VERIFIED])
        .args(["--database-url", &world.url(), "--map"])
        .arg(world.hosts.map_file())
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    eprint!("verify: {out}");
    (!done.status.success()).then(|| format!("feed verify: {out}{err}"))
}

fn verify_by_call(world: &World, users: &[UserId]) -> Option<String> {
    let at = world.addrs.lock().unwrap()[0].unwrap();
    let mut counts = [0, 0];
    for some in users.chunks(100) {
        let users: Vec<String> = some.iter().map(UserId::to_string).collect();
        let body = serde_json::json!({ "users": users }).to_string();
        let answer = call(at, "POST", "/v1/verify", &[], Some(&body));
        if answer.status != 200 || answer.json()["differ"] != serde_json::json!([]) {
            return Some(format!("{answer:?}"));
        }
        for (count, name) in counts.iter_mut().zip(["equal", "absent"]) {
            *count += answer.json()[name].as_u64().unwrap();
        }
    }
    eprintln!("verified: {counts:?} equal and absent");
    None
}

#[test]
fn nothing_is_lost_when_the_one_process_is_killed() {
    run(&Scale {
        way: Way::Together,
        with_others: false,
        rounds: 1,
        time: Duration::from_secs(10),
        seed: 1,
        crowd: 12_000,
        pause: Duration::from_millis(500),
    });
}

#[test]
fn nothing_is_lost_whatever_is_killed() {
    run(&Scale {
        way: Way::Apart,
        with_others: true,
        rounds: 1,
        time: Duration::from_secs(20),
        seed: 1,
        crowd: 2_000,
        pause: Duration::from_millis(500),
    });
}

/// `FEED_KILL_SECONDS` of trouble in rounds of a minute, `FEED_KILL_SEED`, `FEED_KILL_CROWD` followers of one author;
/// `FEED_KILL_BESIDE=1`: with a replica of Redis and a webhook.
#[test]
#[ignore = "takes minutes: make feedkill"]
fn nothing_is_lost_whatever_is_killed_for_minutes() {
    let number =
        |name: &str, usual: u64| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let seconds = number("FEED_KILL_SECONDS", 180);
    let rounds = seconds.div_ceil(60).max(1);
    run(&Scale {
        way: Way::Apart,
        with_others: number("FEED_KILL_BESIDE", 0) == 1,
        rounds: rounds as u32,
        time: Duration::from_secs(seconds / rounds),
        seed: number("FEED_KILL_SEED", 1),
        crowd: number("FEED_KILL_CROWD", 1_000_000) as i64,
        pause: Duration::from_secs(5),
    });
}
