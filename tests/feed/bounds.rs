//! What one call may cost, and how many may wait: large objects, readers of a page that Postgres is slow with, connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use presplit::feed::MediaId;
use presplit::feed::db::{Db, DbSettings};
use presplit::feed::metrics::Metrics;
use presplit::feed::read::Reader;
use presplit::feed::store::{Cached, RedisStore, Span, Store};

use super::http::{self, metric, try_call};
use super::place::place;
use super::service::Service;
use crate::support::{Redis, wait_until};

#[tokio::test]
async fn many_large_objects_come_in_several_answers() {
    let redis = Redis::new();
    let store = RedisStore::new(&redis.config()).unwrap();
    let body = |id: MediaId| Bytes::from(vec![id as u8; 200_000]);
    let ids: Vec<MediaId> = (1..=130).collect();
    let objects: Vec<(MediaId, Bytes)> = ids.iter().map(|id| (*id, body(*id))).collect();
    store.objects(&ids).await.unwrap();
    store.put_objects(&objects, Instant::now()).await.unwrap();
    redis.ask::<()>(&["CONFIG", "RESETSTAT"]);
    let found = store.objects(&ids).await.unwrap();
    for (id, found) in ids.iter().zip(found) {
        assert!(found == Cached::Object(body(*id)), "object {id}");
    }
    let said: String = redis.ask(&["INFO", "commandstats"]);
    let calls = said
        .lines()
        .find_map(|l| l.strip_prefix("cmdstat_mget:calls="));
    let calls = calls.unwrap().split(',').next().unwrap();
    assert_eq!(calls, "5", "at most 32 in each");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_the_public_page_wait_for_one_reading_together() {
    let service = Service::new().await;
    let limit = Duration::from_secs(1);
    let db = Db::new(&DbSettings {
        url: service.url(),
        statement: limit,
        ..DbSettings::default()
    });
    let metrics = Arc::new(Metrics::new().unwrap());
    let reader = Reader::new(db.unwrap(), service.store.clone(), metrics);
    reader.public(Span::Newest, 10).await.unwrap();
    let host = service.hosts.client(0).await;
    let lock = host.batch_execute("BEGIN; LOCK TABLE shard_0001.media IN ACCESS EXCLUSIVE MODE");
    lock.await.unwrap();
    wait_until("what was read before is too old", || async {
        reader.public(Span::Newest, 10).await.is_err()
    })
    .await;
    let began = Instant::now();
    let pages = join_all((0..6).map(|_| reader.public(Span::Newest, 10))).await;
    assert!(pages.iter().all(Result::is_err));
    assert!(began.elapsed() < 3 * limit, "{:?}", began.elapsed());
    host.batch_execute("ROLLBACK").await.unwrap();
    wait_until("it can be read again", || async {
        reader.public(Span::Newest, 10).await.is_ok()
    })
    .await;
}

/// What comes back on a connection until it is closed; asserts that it is.
fn rest(mut stream: TcpStream) -> String {
    let mut said = String::new();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream.read_to_string(&mut said).unwrap();
    said
}

#[test]
fn connections_are_bounded_and_do_not_stay_without_a_request() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = runtime.block_on(async { place().await.proxy.url() });
    let dir = tempfile::tempdir().unwrap();
    let map = dir.path().join("feed.toml");
    std::fs::write(&map, "[feed]\nconnections = 3\nidle = \"2s\"").unwrap();
    let map = map.to_str().unwrap();
    let service = http::Service::start(&["--map", map, "--database-url", &url]);
    let connect = |at: SocketAddr| TcpStream::connect(at).unwrap();
    // Says nothing; says half of a head, a byte from time to time; is answered, and says nothing more.
    let began = Instant::now();
    let silent = connect(service.at);
    let mut slow = connect(service.at);
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: ")
        .unwrap();
    let mut kept = connect(service.at);
    kept.write_all(b"GET /favicon.ico HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let mut head = [0; 12];
    kept.read_exact(&mut head).unwrap();
    assert!(head.starts_with(b"HTTP/1.1 20"), "{head:?}");
    let refused = rest(connect(service.at));
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("\"code\":\"overloaded\""), "{refused}");
    let dripping = std::thread::spawn(move || {
        while slow.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    assert_eq!(rest(silent), "");
    rest(kept);
    dripping.join().unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2));
    // There is room again, as soon as the service has seen that they are gone.
    let healthy = || try_call(service.at, "GET", "/healthz", &[], None);
    runtime.block_on(wait_until("there is room again", || async {
        healthy().is_ok_and(|answer| answer.status == 200)
    }));
    assert_ne!(metric(service.at, "connections_refused_total"), "0");
}
