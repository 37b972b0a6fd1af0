//! What can be watched: metrics, statsd over a real socket, requests that take too long in a real file.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use presplit::feed::api::{self, App, Connections, Shared};
use presplit::feed::config;
use presplit::feed::metrics::Metrics;
use presplit::feed::outbox::Wake;
use presplit::feed::post::post;
use presplit::feed::read::Reader;
use presplit::feed::service::{Service as Process, Settings, Watch};
use presplit::feed::shed::Shed;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::http::call;
use super::service::Service;
use crate::support::wait_until;

/// The last value that statsd was told of a gauge or a time, the sum of a counter.
#[derive(Default)]
struct Heard(HashMap<String, f64>);

impl Heard {
    fn listen(&mut self, socket: &UdpSocket) {
        let mut packet = [0; 65536];
        while let Ok(size) = socket.recv(&mut packet) {
            assert!(size <= 1432, "a packet of {size}");
            for line in std::str::from_utf8(&packet[..size]).unwrap().lines() {
                let (name, rest) = line.split_once(':').unwrap_or_else(|| panic!("{line:?}"));
                let (value, kind) = rest.split_once('|').unwrap();
                let value: f64 = value.parse().unwrap();
                let known = self.0.entry(name.to_owned()).or_default();
                match kind {
                    "c" => *known += value,
                    "g" | "ms|@0.5" => *known = value,
                    _ => panic!("{line:?}"),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_statsd_and_slow_requests_say_what_goes_on() {
    let service = Service::new().await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let slow = service.hosts.dir().join("slow.jsonl");
    let text = format!(
        "[feed.statsd]\naddress = \"{}\"\nprefix = \"t\"\nevery = \"50ms\"\nsample = 2\n[feed.slow]\nfile = \"{}\"\nover = \"1ms\"",
        socket.local_addr().unwrap(),
        slow.display()
    );
    let config = config::parse("f", &text, &|_| None).unwrap();
    let settings = Settings {
        work: Service::work(),
        watch: Watch {
            statsd: config.statsd,
            slow: config.slow,
        },
        ..Settings::new(service.url(), service.store.clone())
    };
    let stop = CancellationToken::new();
    let process = Process::start(settings, stop.clone()).await.unwrap();
    let at = process.address().unwrap();
    let running = tokio::spawn(process.run());
    let ask = async |method: &'static str, path: &'static str, body: Option<&'static str>| {
        let called = tokio::task::spawn_blocking(move || call(at, method, path, &[], body));
        called.await.unwrap()
    };
    service.followers(7, 100..110).await;
    // The first: so many lines are written within a second, and no more.
    assert_eq!(ask("GET", "/v1/users/12/home", None).await.status, 200);
    for _ in 0..20 {
        let posted = ask("POST", "/v1/media", Some(r#"{"user_id": "7", "body": {}}"#)).await;
        assert_eq!(posted.status, 201);
    }
    service.quiet().await;
    let set = ask("PUT", "/v1/shed", Some(r#"{"level": 2}"#)).await;
    assert_eq!(set.status, 200);
    assert_eq!(
        ask("GET", "/v1/users/12/home", None)
            .await
            .header("presplit-shed"),
        Some("2")
    );

    let metrics = Arc::new(tokio::sync::Mutex::new(String::new()));
    wait_until("all is counted", || async {
        let said = ask("GET", "/metrics", None).await.body;
        let lines = [
            "presplit_feed_lag_seconds_count{class=\"small\"} 20",
            "presplit_feed_outbox_depth{state=\"dead\"} 0",
            "presplit_feed_outbox_depth{state=\"fast\"} 0",
            "presplit_feed_outbox_oldest_seconds{state=\"hook\"} 0",
            "presplit_feed_outbox_overdue_seconds 0",
            "presplit_feed_shed_level 2",
        ];
        let all = lines.iter().all(|line| said.lines().any(|l| l == *line));
        *metrics.lock().await = said;
        all
    })
    .await;

    let mut heard = Heard::default();
    let limit = std::time::Instant::now() + Duration::from_secs(30);
    let counted = [
        ("t.posts", 20.0),
        ("t.requests.post.201", 20.0),
        ("t.deliveries.new", 200.0),
        ("t.shed_level", 2.0),
        ("t.outbox_depth.slow", 0.0),
    ];
    while !counted
        .iter()
        .all(|(name, value)| heard.0.get(*name) == Some(value))
    {
        assert!(std::time::Instant::now() < limit, "{:?}", heard.0);
        heard.listen(&socket);
    }
    // One of two, of twenty: that none of them is told does not happen.
    assert!(heard.0["t.request.post"] > 0.0 && heard.0["t.lag.small"] > 0.0);

    let lines = || {
        let text = std::fs::read_to_string(&slow).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap());
        lines.collect::<Vec<_>>()
    };
    let of = |operation: &str| lines().into_iter().find(|l| l["operation"] == operation);
    // Again and again: there are not more than 20 lines in a second.
    wait_until("slow requests are written", || async {
        ask("GET", "/v1/users/12/home", None).await;
        of("home").is_some() && of("post").is_some()
    })
    .await;
    let (home, post) = (of("home").unwrap(), of("post").unwrap());
    assert_eq!(
        (&home["user"], &home["status"]),
        (&"12".into(), &200.into())
    );
    assert_eq!((&post["user"], &post["status"]), (&"7".into(), &201.into()));
    let waited = |line: &Value, what: &str, name: &str| {
        let waits = line["waited"].as_array().unwrap();
        waits.iter().any(|w| {
            w["for"] == what
                && w["what"].as_str().unwrap().contains(name)
                && w["ms"].as_f64() >= Some(0.0)
        })
    };
    assert!(waited(&home, "store", "read"), "{home}");
    assert!(waited(&home, "postgres", "FROM follow_out"), "{home}");
    assert!(
        waited(&post, "postgres", "INSERT INTO media") && waited(&post, "store", "push"),
        "{post}"
    );
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_pages_get_shorter_and_say_so() {
    let service = Service::new().await;
    let metrics = Arc::new(Metrics::new().unwrap());
    let (db, store) = (service.db.clone(), service.store.clone());
    let stop = CancellationToken::new();
    let app = App::new(Shared {
        reader: Reader::new(db.clone(), store.clone(), metrics.clone()),
        health: db.clone(),
        db,
        store,
        wake: Wake::none(false),
        metrics,
        shed: Shed::new(4),
        tokens: Vec::new(),
        stop: stop.clone(),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let second = Duration::from_secs(1);
    let serving = tokio::spawn({
        let app = app.clone();
        let router = api::router(app.clone());
        async move { api::serve(router, &app, listener, Connections::default(), second).await }
    });
    for _ in 0..20 {
        let posted = post(
            &service.db,
            &*service.store,
            &Wake::none(false),
            7,
            "{}",
            None,
        )
        .await;
        posted.unwrap();
    }
    let home = async || {
        let path = "/v1/users/7/home?limit=20";
        let called = tokio::task::spawn_blocking(move || call(at, "GET", path, &[], None));
        let answer = called.await.unwrap();
        let media = answer.json()["media"].as_array().map_or(0, Vec::len);
        let shed = answer.header("presplit-shed").unwrap().to_owned();
        (answer.status, media, shed)
    };
    assert_eq!(home().await, (200, 20, "0".to_owned()));
    // With the call itself it is two of four.
    let one = app.shed.begin();
    assert_eq!(home().await, (200, 10, "1".to_owned()));
    let two = [app.shed.begin(), app.shed.begin()];
    assert_eq!(home().await, (200, 10, "3".to_owned()));
    let three = app.shed.begin();
    let (status, _, shed) = home().await;
    assert_eq!((status, shed.as_str()), (503, "3"));
    drop((one, two, three));
    assert_eq!(home().await, (200, 20, "0".to_owned()));
    stop.cancel();
    serving.await.unwrap();
}
