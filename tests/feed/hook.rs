//! The webhook: a real HTTP server hears of every post, deletion and edge at least once, however it fails, hangs and restarts, whoever
//! is killed; and nobody waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use presplit::feed::config;
use presplit::feed::db::{Db, DbSettings};
use presplit::feed::fanout::WorkSettings;
use presplit::feed::graph;
use presplit::feed::hook;
use presplit::feed::outbox::Wake;
use presplit::feed::post::{delete, post};
use presplit::feed::{MediaId, UserId};
use prometheus::{Registry, TextEncoder};
use serde_json::Value;
use tokio::task::JoinSet;

use super::http::call;
use super::service::Service;
use crate::support::wait_until;

const SECRET: &str = "a long random string";

/// What the server does with an event.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Says(u16),
    /// Reads it, and says nothing for as long as the other side waits.
    Hangs,
    /// Reads it, and closes the connection.
    Closes,
}

type Mood = Box<dyn Fn(&Value) -> Does + Send>;

/// An HTTP server of a test's own.
pub struct Webhook {
    at: SocketAddr,
    shared: Arc<Shared>,
    stopped: Arc<AtomicBool>,
}

struct Shared {
    mood: Mutex<Mood>,
    /// What was said to it and taken, by id, each with how often.
    heard: Mutex<BTreeMap<String, (Value, u32)>>,
    /// What was said to it in any case.
    tried: Mutex<Vec<Value>>,
    connections: Mutex<Vec<TcpStream>>,
}

impl Webhook {
    pub fn start() -> Webhook {
        let shared = Arc::new(Shared {
            mood: Mutex::new(Box::new(|_| Does::Says(204))),
            heard: Mutex::default(),
            tried: Mutex::default(),
            connections: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let mut hook = Webhook {
            at,
            shared,
            stopped: Arc::default(),
        };
        hook.serve(listener);
        hook
    }

    fn serve(&mut self, listener: TcpListener) {
        let (shared, stopped) = (self.shared.clone(), Arc::new(AtomicBool::new(false)));
        self.stopped = stopped.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let mut connections = shared.connections.lock().unwrap();
                connections.push(stream.try_clone().unwrap());
                let shared = shared.clone();
                std::thread::spawn(move || while shared.answer(&stream).is_some() {});
            }
        });
    }

    /// What the map says of it.
    pub fn section(&self) -> String {
        format!(
            "[feed.hook]\nurl = \"http://{}/hooks?from=feed\"\nsecret = \"{SECRET}\"\ntimeout = \"200ms\"\nat_once = 4\n",
            self.at
        )
    }

    /// From now on it takes three of four events, and fails with the others in many ways.
    pub fn be_unreliable(&self) {
        let said = AtomicU64::new(0);
        self.mood(move |_| match said.fetch_add(1, Ordering::SeqCst) % 20 {
            3 => Does::Says(500),
            7 => Does::Closes,
            11 => Does::Says(422),
            15 => Does::Hangs,
            19 => Does::Says(429),
            _ => Does::Says(204),
        });
    }

    /// How many it has taken, and how many of them more than once.
    pub fn taken(&self) -> (usize, usize) {
        let heard = self.shared.heard.lock().unwrap();
        (heard.len(), heard.values().filter(|(_, n)| *n > 1).count())
    }

    /// Nobody answers any more, and what was under way is cut.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.at));
        for stream in self.shared.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// At the same address.
    pub fn restart(&mut self) {
        // The thread of before may have to let go of the port first.
        let began = Instant::now();
        let listener = loop {
            match TcpListener::bind(self.at) {
                Ok(listener) => break listener,
                Err(why) => assert!(began.elapsed() < Duration::from_secs(20), "{why}"),
            }
            std::thread::yield_now();
        };
        self.serve(listener);
    }

    fn mood(&self, mood: impl Fn(&Value) -> Does + Send + 'static) {
        *self.shared.mood.lock().unwrap() = Box::new(mood);
    }

    fn tried(&self) -> usize {
        self.shared.tried.lock().unwrap().len()
    }

    /// Objects of this kind that it has taken.
    pub fn heard(&self, kind: &str) -> BTreeSet<i64> {
        let heard = self.shared.heard.lock().unwrap();
        let of_kind = heard.values().filter(|(e, _)| e["kind"] == kind);
        of_kind
            .map(|(e, _)| e["object"].as_str().unwrap().parse().unwrap())
            .collect()
    }

    fn event(&self, kind: &str, object: i64) -> Value {
        let heard = self.shared.heard.lock().unwrap();
        let found = heard
            .values()
            .find(|(e, _)| e["kind"] == kind && e["object"] == object.to_string().as_str());
        found
            .unwrap_or_else(|| panic!("no {kind} {object}"))
            .0
            .clone()
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// One request; none if there is no other.
    fn answer(&self, mut stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let header = |name: &str| {
            let of = |line: &String| {
                let (n, value) = line.split_once(": ")?;
                n.eq_ignore_ascii_case(name).then(|| value.to_owned())
            };
            head.iter()
                .find_map(of)
                .unwrap_or_else(|| panic!("no {name}: {head:?}"))
        };
        assert_eq!(head[0], "POST /hooks?from=feed HTTP/1.1");
        let mut body = vec![0; header("content-length").parse().unwrap()];
        reader.read_exact(&mut body).ok()?;
        signed(&header("presplit-signature"), &body);
        let event: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(event["kind"], header("presplit-event").as_str());
        self.tried.lock().unwrap().push(event.clone());
        let does = (self.mood.lock().unwrap())(&event);
        match does {
            Does::Says(status) => {
                if (200..300).contains(&status) {
                    let mut heard = self.heard.lock().unwrap();
                    let id = event["id"].as_str().unwrap().to_owned();
                    heard.entry(id).or_insert((event, 0)).1 += 1;
                }
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}");
                stream.write_all(answer.as_bytes()).ok()
            }
            Does::Hangs => {
                let _ = reader.read(&mut [0]);
                None
            }
            Does::Closes => {
                let _ = stream.shutdown(std::net::Shutdown::Both);
                None
            }
        }
    }
}

/// As a webhook would check it.
fn signed(header: &str, body: &[u8]) {
    let (t, v1) = header.split_once(",v1=").unwrap();
    let t = t.strip_prefix("t=").unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    assert!(now.unwrap().as_secs().abs_diff(t.parse().unwrap()) < 60);
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(&[t.as_bytes(), b".", body].concat());
    let hex: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(v1, hex);
}

/// The relay of one worker process, until it is dropped, which is as if it were killed.
pub struct Relay {
    registry: Registry,
    _tasks: JoinSet<()>,
}

impl Relay {
    pub fn start(service: &Service, hook: &Webhook, work: WorkSettings) -> Relay {
        let text = hook.section();
        let config = config::parse("f", &text, &|_| None).unwrap().hook.unwrap();
        let (registry, mut tasks) = (Registry::new(), JoinSet::new());
        hook::start(config, service.db.clone(), work, &registry, &mut tasks).unwrap();
        Relay {
            registry,
            _tasks: tasks,
        }
    }

    fn counted(&self, outcome: &str) -> u64 {
        let text = TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap();
        let line = format!("presplit_feed_hook_events_total{{outcome=\"{outcome}\"}} ");
        let found = text.lines().find_map(|l| l.strip_prefix(&line));
        found.map_or(0, |n| n.parse().unwrap())
    }
}

async fn say(service: &Service, author: UserId, body: &str) -> MediaId {
    let wake = Wake::none(true);
    let posted = post(&service.db, &*service.store, &wake, author, body, None).await;
    posted.unwrap().id
}

#[tokio::test(flavor = "multi_thread")]
async fn it_hears_of_posts_deletions_and_edges() {
    let service = Service::new().await;
    let hook = Webhook::start();
    let _workers = service.workers(Service::work());
    let relay = Relay::start(&service, &hook, Service::work());
    // A number that no f64 holds comes as the app wrote it.
    let body = r#"{"at": [52.5, 13.4], "n": 12345678901234567890}"#;
    let id = say(&service, 7, body).await;
    wait_until("the post is heard of", || async {
        hook.heard("post").contains(&id)
    })
    .await;
    let event = hook.event("post", id);
    assert_eq!(
        (&event["user"], &event["deleted"]),
        (&"7".into(), &false.into())
    );
    assert_eq!(event["body"], serde_json::from_str::<Value>(body).unwrap());
    assert!(
        event["created_at"].as_str().unwrap().ends_with('Z'),
        "{event}"
    );
    let deleted = delete(&service.db, &*service.store, &Wake::none(true), 7, id).await;
    deleted.unwrap();
    wait_until("so is the deletion", || async {
        hook.heard("delete").contains(&id)
    })
    .await;
    assert!(hook.event("delete", id).get("body").is_none());
    // Edges are the calls' own writes: what they say is in the settings of their Postgres.
    let telling = Db::new(&DbSettings {
        url: service.url(),
        tells_edges: true,
        ..DbSettings::default()
    });
    let telling = telling.unwrap();
    graph::follow(&telling, &*service.store, 7, 8)
        .await
        .unwrap();
    graph::block(&telling, &*service.store, 8, 9).await.unwrap();
    wait_until("edges are heard of", || async {
        hook.heard("edge") == [8, 9].into()
    })
    .await;
    assert_eq!(hook.event("edge", 8)["status"], "following");
    assert_eq!(hook.event("edge", 9)["user"], "8");
    graph::follow(&service.db, &*service.store, 7, 10)
        .await
        .unwrap();
    service.quiet().await;
    assert!(
        !hook.heard("edge").contains(&10),
        "nobody said that the webhook is to hear of it"
    );
    assert_eq!(relay.counted("failed"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_whatever_fails_and_nobody_waits_for_it() {
    let service = Service::new().await;
    let mut hook = Webhook::start();
    service.empty_feed(7).await;
    let mut posts = BTreeSet::new();
    let trouble = [
        Does::Says(500),
        Does::Hangs,
        Does::Closes,
        Does::Says(429),
        Does::Says(301),
    ];
    let workers = service.workers(Service::work());
    for (round, does) in trouble.into_iter().enumerate() {
        let relay = Relay::start(&service, &hook, Service::work());
        // One in three is taken and answered: the others have to come again.
        let n = std::sync::atomic::AtomicUsize::new(0);
        hook.mood(move |_| match n.fetch_add(1, Ordering::SeqCst) % 3 {
            2 => Does::Says(200),
            _ => does,
        });
        let tried = hook.tried();
        for _ in 0..6 {
            posts.insert(say(&service, 7, "{}").await);
        }
        wait_until("some are tried", || async { hook.tried() > tried + 3 }).await;
        // The worker dies in the middle; in the next round the webhook does, too.
        drop(relay);
        if round % 2 == 0 {
            hook.stop();
            let _relay = Relay::start(&service, &hook, Service::work());
            posts.insert(say(&service, 7, "{}").await);
            let fan_out = || async { service.feed(7).await.len() == posts.len() };
            wait_until("fan-out does not wait for it", fan_out).await;
            hook.restart();
        }
    }
    hook.mood(|_| Does::Says(200));
    let relay = Relay::start(&service, &hook, Service::work());
    service.quiet().await;
    assert_eq!(hook.heard("post"), posts);
    assert!(relay.counted("told") > 0);
    drop(workers);
    // A row that a worker is not done with stays when the webhook has heard of it.
    let id = say(&service, 7, "{}").await;
    wait_until("it is heard of", || async {
        hook.heard("post").contains(&id)
    })
    .await;
    wait_until("the worker's part is left", || async {
        service
            .number("SELECT count(*) FROM outbox WHERE hook_at IS NULL AND due_at < 'infinity'")
            .await
            == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_not_taken_stands_in_nobodys_way() {
    let service = Service::new().await;
    let hook = Webhook::start();
    let _workers = service.workers(Service::work());
    let work = WorkSettings {
        attempts: 3,
        ..Service::work()
    };
    hook.mood(|event| match event["body"]["bad"].as_u64() {
        Some(status) => Does::Says(status as u16),
        None => Does::Says(200),
    });
    let gone = say(&service, 7, r#"{"bad": 410}"#).await;
    let refused = say(&service, 7, r#"{"bad": 422}"#).await;
    let breaks = say(&service, 7, r#"{"bad": 500}"#).await;
    let mut good = BTreeSet::new();
    let relay = Relay::start(&service, &hook, work);
    // While others are told, even a 500 is the event's own fault.
    let dead = "SELECT count(*) FROM outbox WHERE hook_tries >= 3 AND hook_at > now() + interval '10 minutes'";
    let both_are = async || {
        let id = say(&service, 8, "{}").await;
        good.insert(id);
        wait_until("others are told", || async {
            hook.heard("post").contains(&id)
        })
        .await;
        service.number(dead).await == 2
    };
    wait_until_mut("both are set aside", both_are).await;
    assert!(relay.counted("dead") >= 2 && relay.counted("unwanted") == 1);
    assert_eq!(hook.heard("post"), good);
    assert!(good.is_disjoint(&[gone, refused, breaks].into()));
    drop(relay);
    // When the other side is mended they come.
    hook.mood(|_| Does::Says(200));
    let again = "/* presplit: all */ UPDATE outbox SET hook_at = now() WHERE hook_tries >= 3";
    service.db.unprepared(again).await.unwrap();
    let _relay = Relay::start(&service, &hook, work);
    service.quiet().await;
    let heard = hook.heard("post");
    assert!(heard.contains(&refused) && heard.contains(&breaks) && !heard.contains(&gone));
}

/// [`wait_until`] for a condition that changes something.
async fn wait_until_mut(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let limit = tokio::time::Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(
            tokio::time::Instant::now() < limit,
            "waited in vain: {what}"
        );
    }
}

/// The binary, killed while an event is on its way: the next process says it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_leaves_its_events_to_the_next() {
    let service = Service::new().await;
    let hook = Webhook::start();
    hook.mood(|_| Does::Hangs);
    let map = service.hosts.dir().join("feed.toml");
    let text = format!(
        "[feed.hook]\nurl = \"http://{}/hooks?from=feed\"\nsecret = \"{SECRET}\"\ntimeout = \"1s\"",
        hook.at
    );
    std::fs::write(&map, text).unwrap();
    let url = service.url();
    let flags = ["--map", map.to_str().unwrap(), "--database-url", &url];
    let first = super::http::Service::start(&flags);
    let at = first.at;
    let told = tokio::task::spawn_blocking(move || {
        let follow = call(at, "PUT", "/v1/users/9/following/7", &[], None);
        let post = r#"{"user_id": "7", "body": {"text": "hello"}}"#;
        let posted = call(at, "POST", "/v1/media", &[], Some(post));
        assert_eq!((follow.status, posted.status), (200, 201));
        posted.json()["id"]
            .as_str()
            .unwrap()
            .parse::<i64>()
            .unwrap()
    });
    let id = told.await.unwrap();
    wait_until("it is on its way", || async { hook.tried() > 0 }).await;
    first.signal("KILL");
    drop(first);
    assert!(hook.heard("post").is_empty());
    hook.mood(|_| Does::Says(200));
    let _second = super::http::Service::start(&flags);
    service.quiet().await;
    assert_eq!(hook.event("post", id)["body"]["text"], "hello");
    assert_eq!(hook.event("edge", 7)["status"], "following");
}

/// A server with a certificate of its own, which is believed only if the settings say so.
#[tokio::test(flavor = "multi_thread")]
async fn https_is_spoken_with_those_who_are_believed() {
    let service = Service::new().await;
    let hook = Webhook::start();
    let dir = service.hosts.dir();
    let [key, cert] = ["key.pem", "cert.pem"].map(|name| dir.join(name));
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args(["-nodes", "-subj", "/CN=hook", "-days", "2", "-keyout"])
        .args([&key, std::path::Path::new("-out"), &cert])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let tls = tls_in_front_of(hook.at, &cert, &key).await;
    let config = |more: &str| {
        let text = format!(
            "[feed.hook]\nurl = \"https://localhost:{}/hooks?from=feed\"\nsecret = \"{SECRET}\"\n{more}",
            tls.port()
        );
        config::parse("f", &text, &|_| None).unwrap().hook.unwrap()
    };
    let id = say(&service, 7, "{}").await;
    let start = |config, registry: &Registry, tasks: &mut JoinSet<()>| {
        hook::start(config, service.db.clone(), Service::work(), registry, tasks)
    };
    let _workers = service.workers(Service::work());
    let (registry, mut tasks) = (Registry::new(), JoinSet::new());
    start(config(""), &registry, &mut tasks).unwrap();
    let unknown = "SELECT count(*) FROM outbox WHERE hook_error LIKE '%certificate%'";
    wait_until("the stranger is not told", || async {
        service.number(unknown).await == 1
    })
    .await;
    assert_eq!(hook.tried(), 0);
    drop(tasks);
    let (registry, mut tasks) = (Registry::new(), JoinSet::new());
    let ca = format!("ca = \"{}\"", cert.display());
    start(config(&ca), &registry, &mut tasks).unwrap();
    service.quiet().await;
    assert_eq!(hook.heard("post"), [id].into());
    let nothing = config(&format!("ca = \"{}\"", key.display()));
    let refused = start(nothing, &Registry::new(), &mut tasks).unwrap_err();
    assert!(refused.contains("key.pem"), "{refused}");
}

async fn tls_in_front_of(
    behind: SocketAddr,
    cert: &std::path::Path,
    key: &std::path::Path,
) -> SocketAddr {
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certs = vec![CertificateDer::from_pem_file(cert).unwrap()];
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certs, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.ok()?;
                let mut behind = tokio::net::TcpStream::connect(behind).await.ok()?;
                tokio::io::copy_bidirectional(&mut stream, &mut behind)
                    .await
                    .ok()
            });
        }
    });
    at
}
