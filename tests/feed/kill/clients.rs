//! Apps: they post, delete, follow, mute and read over HTTP while all goes down around them, repeat what failed, and know what they
//! were told.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use presplit::feed::{MediaId, UserId};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use super::world::{BIG, CROWD, Edge, Edges, STAR, USERS};
use crate::feed::http::{Answer, try_call};

/// A call is repeated for so long; nothing is away for longer than that.
const PATIENCE: Duration = Duration::from_secs(120);
/// Media of a page of the newest.
const NEWEST: usize = 40;
/// Threads that act for users; each for its own, so that each knows what its users have done.
pub const ACTORS: usize = 6;

/// A media that was answered with 201 or 200.
#[derive(Clone, Debug)]
pub struct Post {
    pub id: MediaId,
    pub author: UserId,
    pub key: String,
}

/// What all apps have been told.
#[derive(Default)]
pub struct Book {
    pub stop: AtomicBool,
    pub posts: Mutex<Vec<Post>>,
    pub deleted: Mutex<HashSet<MediaId>>,
    pub faults: Mutex<Vec<String>>,
    pub counts: Mutex<BTreeMap<String, u64>>,
    next: AtomicU64,
}

impl Book {
    pub fn count(&self, what: &str) {
        *self
            .counts
            .lock()
            .unwrap()
            .entry(what.to_owned())
            .or_default() += 1;
    }

    pub fn fault(&self, what: String) {
        eprintln!("fault: {what}");
        self.faults.lock().unwrap().push(what);
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// One of several who call.
pub struct App<'a> {
    pub book: &'a Book,
    pub addrs: &'a Mutex<Vec<Option<SocketAddr>>>,
    pub rng: StdRng,
}

impl<'a> App<'a> {
    pub fn new(book: &'a Book, world: &'a Mutex<Vec<Option<SocketAddr>>>, seed: u64) -> App<'a> {
        App {
            book,
            addrs: world,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// One try: `None` if nobody answered, or the answer is to try again.
    fn once(
        &mut self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: Option<&str>,
    ) -> Option<Answer> {
        let addrs: Vec<SocketAddr> = self
            .addrs
            .lock()
            .unwrap()
            .iter()
            .flatten()
            .copied()
            .collect();
        let at = *addrs.choose(&mut self.rng)?;
        let headers: Vec<(&str, &str)> = key.map(|k| ("Idempotency-Key", k)).into_iter().collect();
        match try_call(at, method, path, &headers, body) {
            Ok(answer) if matches!(answer.status, 503 | 504) => {
                self.book
                    .count(&format!("{method} answered {}", answer.status));
                None
            }
            Ok(answer) => Some(answer),
            Err(_) => {
                self.book.count(&format!("{method} not answered"));
                None
            }
        }
    }

    /// Until there is an answer.
    fn until(
        &mut self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: Option<&str>,
        good: &[u16],
    ) -> Option<Answer> {
        let began = Instant::now();
        loop {
            match self.once(method, path, key, body) {
                Some(answer) if good.contains(&answer.status) => return Some(answer),
                Some(answer) => {
                    self.book
                        .fault(format!("{method} {path} {key:?}: {answer:?}"));
                    return None;
                }
                None if began.elapsed() > PATIENCE => {
                    self.book.fault(format!(
                        "{method} {path} {key:?}: no answer in {PATIENCE:?}"
                    ));
                    return None;
                }
                None => std::thread::sleep(Duration::from_millis(self.rng.random_range(20..200))),
            }
        }
    }

    /// Posts, whatever it takes.
    pub fn post(&mut self, author: UserId) -> Option<MediaId> {
        let n = self.book.next.fetch_add(1, Ordering::Relaxed);
        let key = format!("k{n}");
        let body = format!("{{\"user_id\": \"{author}\", \"body\": {{\"n\": {n}}}}}");
        let answer = self.until("POST", "/v1/media", Some(&key), Some(&body), &[201, 200])?;
        self.book.count(&format!("posted {}", answer.status));
        let id = id_of(&answer.json()["id"]);
        self.book.posts.lock().unwrap().push(Post {
            id,
            author,
            key: key.clone(),
        });
        if self.rng.random_ratio(1, 10)
            && let Some(again) = self.once("POST", "/v1/media", Some(&key), Some(&body))
            && (again.status != 200 || id_of(&again.json()["id"]) != id)
        {
            self.book
                .fault(format!("{key} made {id}, and then {again:?}"));
        }
        Some(id)
    }

    /// The newest of a home, if it can be had at once: `(id, author)`, newest first.
    pub fn newest(&mut self, user: UserId) -> Option<Vec<(MediaId, UserId)>> {
        Some(self.newest_and_source(user)?.0)
    }

    fn newest_and_source(&mut self, user: UserId) -> Option<(Vec<(MediaId, UserId)>, String)> {
        let answer = self.once(
            "GET",
            &format!("/v1/users/{user}/home?limit={NEWEST}"),
            None,
            None,
        )?;
        if answer.status != 200 {
            self.book.fault(format!("home of {user}: {answer:?}"));
            return None;
        }
        let source = answer
            .header("presplit-source")
            .unwrap_or("none")
            .to_owned();
        self.book.count(&format!("home {source}"));
        let page = media_of(&answer.json());
        if !page.is_sorted_by(|a, b| a.0 > b.0) {
            self.book
                .fault(format!("home of {user} is out of order: {page:?}"));
        }
        Some((page, source))
    }

    /// A whole home, when all is up.
    pub fn home(&mut self, user: UserId) -> Option<Vec<MediaId>> {
        let mut ids = Vec::new();
        let mut path = format!("/v1/users/{user}/home");
        loop {
            let answer = self.until("GET", &path, None, None, &[200])?;
            let source = answer.header("presplit-source").unwrap_or("none");
            self.book.count(&format!("at last home {source}"));
            let page = answer.json();
            ids.extend(media_of(&page).into_iter().map(|(id, _)| id));
            let Some(older) = page["older"].as_str() else {
                return Some(ids);
            };
            path = format!("/v1/users/{user}/home?before={older}");
        }
    }
}

fn id_of(value: &Value) -> i64 {
    value.as_str().unwrap().parse().unwrap()
}

pub fn media_of(page: &Value) -> Vec<(MediaId, UserId)> {
    let media = page["media"].as_array().unwrap();
    media
        .iter()
        .map(|m| (id_of(&m["id"]), id_of(&m["user_id"])))
        .collect()
}

/// Users of one thread and what they have done.
pub struct Actor<'a> {
    app: App<'a>,
    users: Vec<UserId>,
    pub edges: Edges,
    /// Of this thread's users, not deleted.
    alive: HashMap<UserId, Vec<MediaId>>,
}

impl<'a> Actor<'a> {
    pub fn new(app: App<'a>, edges: Edges) -> Actor<'a> {
        let mut users: Vec<UserId> = edges.keys().copied().collect();
        users.sort_unstable();
        Actor {
            app,
            users,
            edges,
            alive: HashMap::new(),
        }
    }

    /// Until the book says stop.
    pub fn run(&mut self) {
        while !self.app.book.is_over() {
            let user = *self.users.choose(&mut self.app.rng).unwrap();
            match self.app.rng.random_range(0..100) {
                0..50 => self.post(user),
                50..55 => self.delete(user),
                55..70 => self.turn(user),
                _ => drop(self.app.newest(user)),
            }
            let pause = self.app.rng.random_range(100..600);
            std::thread::sleep(Duration::from_millis(pause));
        }
    }

    fn post(&mut self, user: UserId) {
        let Some(id) = self.app.post(user) else {
            return;
        };
        self.alive.entry(user).or_default().push(id);
        if let Some(page) = self.app.newest(user)
            && page.iter().all(|(i, _)| *i != id)
            // Others' newer ones may fill the page.
            && page.last().is_none_or(|(last, _)| *last < id)
        {
            self.app
                .book
                .fault(format!("{user} does not see its own {id}: {page:?}"));
        }
    }

    fn delete(&mut self, user: UserId) {
        let alive = self.alive.entry(user).or_default();
        if alive.is_empty() {
            return;
        }
        let id = alive.swap_remove(self.app.rng.random_range(0..alive.len()));
        // From now on nobody may rely on it, whatever comes of it.
        self.app.book.deleted.lock().unwrap().insert(id);
        let path = format!("/v1/media/{id}?user_id={user}");
        let Some(answer) = self.app.until("DELETE", &path, None, None, &[204, 202]) else {
            return;
        };
        self.app.book.count(&format!("deleted {}", answer.status));
        if let Some(page) = self.app.newest(user)
            && page.iter().any(|(i, _)| *i == id)
        {
            self.app
                .book
                .fault(format!("{user} sees {id} after its deletion"));
        }
    }

    /// Changes one edge.
    fn turn(&mut self, user: UserId) {
        let target = self.app.rng.random_range(1..=USERS);
        if target == user {
            return;
        }
        let edge = self.edges.get(&user).and_then(|e| e.get(&target)).copied();
        let edge = edge.unwrap_or_default();
        let following = format!("/v1/users/{user}/following/{target}");
        let muted = format!("/v1/users/{user}/muted/{target}");
        let (method, path, edge) = match (edge.following, self.app.rng.random_range(0..3)) {
            (false, _) => {
                let edge = Edge {
                    following: true,
                    muted: false,
                };
                ("PUT", following, edge)
            }
            (true, 0) => {
                let edge = Edge {
                    following: false,
                    ..edge
                };
                ("DELETE", following, edge)
            }
            (true, 1) => {
                let edge = Edge {
                    muted: !edge.muted,
                    ..edge
                };
                (if edge.muted { "PUT" } else { "DELETE" }, muted, edge)
            }
            // As it is already.
            (true, _) => ("PUT", following, edge),
        };
        let Some(answer) = self.app.until(method, &path, None, None, &[200, 202]) else {
            return;
        };
        self.app.book.count(&format!("edge {}", answer.status));
        self.edges.entry(user).or_default().insert(target, edge);
        if (!edge.following || edge.muted)
            && let Some(page) = self.app.newest(user)
            && page.iter().any(|(_, author)| *author == target)
        {
            self.app.book.fault(format!(
                "{user} sees {target}, whom it does not want to see"
            ));
        }
    }
}

/// Posts of the two authors with many followers.
pub fn authors(mut app: App<'_>, pause: Duration) {
    while !app.book.is_over() {
        let author = if app.rng.random() { BIG } else { STAR };
        app.post(author);
        let until = Instant::now() + pause.mul_f64(app.rng.random_range(0.5..1.5));
        while Instant::now() < until && !app.book.is_over() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Reads homes of those in the crowd whose feeds are looked at in the end, so that they are there to be pushed to. What a reader has
/// seen in its feed it sees again, once that was so long ago as replicas may be behind; what Postgres alone has shown may not be in the
/// feed yet.
pub fn crowd(mut app: App<'_>, crowd: &[UserId], behind: Duration) {
    let mut seen: HashMap<UserId, BTreeMap<MediaId, Instant>> = HashMap::new();
    while !app.book.is_over() {
        let user = *crowd.choose(&mut app.rng).unwrap();
        let began = Instant::now();
        if let Some((page, source)) = app.newest_and_source(user) {
            if page.iter().any(|(_, author)| *author != BIG) {
                app.book.fault(format!("{user} sees {page:?}"));
            }
            let ids: BTreeSet<MediaId> = page.iter().map(|(id, _)| *id).collect();
            let seen = seen.entry(user).or_default();
            let from = match page.len() {
                NEWEST => page[NEWEST - 1].0,
                _ => MediaId::MIN,
            };
            let asked = |at: &Instant| began.duration_since(*at) >= behind;
            let lost: Vec<_> = seen
                .range(from..)
                .filter(|(id, at)| !ids.contains(id) && asked(at))
                .map(|(id, _)| *id)
                .collect();
            if !lost.is_empty() {
                app.book
                    .fault(format!("{user} does not see {lost:?} again: {page:?}"));
            }
            if source == "list" {
                let now = Instant::now();
                for id in ids {
                    seen.entry(id).or_insert(now);
                }
            }
        }
        std::thread::sleep(Duration::from_millis(app.rng.random_range(5..60)));
    }
}

/// What a home must be by now, newest first.
pub fn expected(book: &Book, edges: &Edges, user: UserId) -> Vec<MediaId> {
    let deleted = book.deleted.lock().unwrap();
    let shown = |author: UserId| match edges.get(&user) {
        Some(of) => author == user || of.get(&author).is_some_and(|e| e.following && !e.muted),
        None => user >= CROWD && author == BIG,
    };
    let posts = book.posts.lock().unwrap();
    let seen = posts
        .iter()
        .filter(|p| shown(p.author) && !deleted.contains(&p.id));
    let mut ids: Vec<MediaId> = seen.map(|p| p.id).collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    ids
}

/// Ids that may be in the user's feed without being shown.
pub fn hidden(book: &Book, edges: &Edges, user: UserId) -> usize {
    let deleted = book.deleted.lock().unwrap();
    let Some(of) = edges.get(&user) else { return 0 };
    let posts = book.posts.lock().unwrap();
    let hides = |p: &&Post| match of.get(&p.author) {
        Some(e) => !e.following || e.muted || deleted.contains(&p.id),
        None => p.author == user && deleted.contains(&p.id),
    };
    posts.iter().filter(hides).count()
}
