//! The virtual database `presplit` and HTTP, as an operator uses them.

mod bytes;
mod commands;
mod reload;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::{self, Hosts, Proxy};

const HTTP: &str = "http = \"127.0.0.1:0\"";

async fn console(proxy: &Proxy) -> Client {
    support::connect(
        proxy
            .config()
            .dbname("presplit")
            .application_name("the operator"),
    )
    .await
}

/// Rows as text, by the simple protocol.
async fn simple(client: &Client, command: &str) -> Vec<Vec<Option<String>>> {
    let messages = client
        .simple_query(command)
        .await
        .unwrap_or_else(|e| panic!("{command}: {e:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|n| row.get(n).map(str::to_owned))
                .collect(),
        ),
        _ => None,
    });
    rows.collect()
}

/// The rows of SHOW MAP that are not about shards; of equal items the last.
async fn map_items(client: &Client) -> BTreeMap<String, String> {
    let rows = client.query("SHOW MAP", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn psql(proxy: &Proxy, args: &[&str]) -> Output {
    Command::new("psql")
        .args([
            "-X",
            "-h",
            "127.0.0.1",
            "-p",
            &proxy.addr().port().to_string(),
            "-U",
            "app",
            "-d",
            "presplit",
        ])
        .args(args)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn http_address(proxy: &Proxy) -> SocketAddr {
    let log = proxy.log();
    let (_, rest) = log.split_once("http on ").unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

/// Status and body of a GET.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "waited for {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn healthy(address: SocketAddr) {
    wait_for("health", || {
        (get(address, "/healthz").0 == 200).then_some(())
    });
}

fn presplit(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_presplit"))
        .args(args)
        .output()
        .unwrap()
}

/// A proxy whose one host is not there: the console must work then, too.
fn hostless(directory: &Path, users: &str) -> Proxy {
    let file = directory.join("shardmap.toml");
    let map = format!(
        "version = 1\n[keyspace]\nshards = 4\n[hosts.a]\nurl = \"postgres://app:hunter2@127.0.0.1:1/app\"\n[map]\n\"0-3\" = \"a\"\n\
         {users}\n[proxy]\nlisten = \"127.0.0.1:0\"\n{HTTP}\n"
    );
    std::fs::write(&file, map).unwrap();
    Proxy::serve(&file, &[])
}

#[tokio::test]
async fn http_tells_health_with_the_reason_and_metrics_of_all() {
    let mut hosts = Hosts::provisioned(1, 2).await;
    hosts.write_map(&hosts.map_text(1, HTTP));
    hosts.clusters[0].stop();
    let mut proxy = Proxy::start(&hosts);
    let http = http_address(&proxy);
    let url = format!("http://{http}");
    let why = wait_for("the reason", || {
        let (status, why) = get(http, "/healthz");
        assert_eq!(status, 503);
        why.contains("refused").then_some(why)
    });
    assert!(
        why.starts_with("the app's tables are not known yet: "),
        "{why}"
    );
    assert_eq!(get(http, "/readyz").0, 503);
    let sick = presplit(&["health", "--url", &url]);
    assert_eq!(sick.status.code(), Some(1));
    assert!(
        text(&sick.stderr).contains("503 the app's tables are not known yet"),
        "{sick:?}"
    );
    assert!(get(http, "/metrics").1.contains("\npresplit_tables 0\n"));

    hosts.clusters[0].start();
    healthy(http);
    assert_eq!(get(http, "/readyz"), (200, "ok\n".to_owned()));
    for url in [url.clone(), format!("{url}/"), format!("{url}/readyz")] {
        let well = presplit(&["health", "--url", &url]);
        assert!(well.status.success(), "{well:?}");
    }
    let _app = proxy.client().await;
    let _operator = console(&proxy).await;
    let (status, metrics) = get(http, "/metrics");
    assert_eq!(status, 200);
    for line in [
        "presplit_build_info{version=\"0.1.0\"} 1",
        "presplit_map_version 1",
        "presplit_map_good 1",
        "presplit_map_bad_since_seconds 0",
        "presplit_map_loads_total{result=\"bad\"} 0",
        "presplit_shards{host=\"a\"} 2",
        "presplit_tables 6",
        "presplit_catalog_faults 0",
        "presplit_clients{database=\"app\",state=\"idle\"} 1",
        "presplit_clients{database=\"console\",state=\"idle\"} 1",
        "presplit_pool_sv_idle{host=\"a\",user=\"app\"} 1",
        "presplit_pool_opened_total{host=\"a\",user=\"app\"} 1",
        "presplit_pool_cl_waiting{host=\"a\",user=\"app\"} 0",
        "presplit_pool_down{host=\"a\",user=\"app\"} 0",
        "presplit_plan_cache_entries{cache=\"plans\"} 0",
        "presplit_statements_total{shards=\"one\"} 0",
        "presplit_logins_total 2",
        "presplit_logins_refused_total 0",
    ] {
        assert!(
            metrics.lines().any(|l| l == line),
            "no {line} in\n{metrics}"
        );
    }
    let (status, page) = get(http, "/");
    assert_eq!(status, 200);
    for words in [
        "/metrics",
        "/healthz   ok",
        "map        version 1, 2 shards",
        "host a",
        "up",
    ] {
        assert!(page.contains(words), "no {words} in\n{page}");
    }
    assert_eq!(get(http, "/nothing").0, 404);

    // An operator who stays keeps no proxy from ending.
    assert!(proxy.stop().success());
    let gone = presplit(&["health", "--url", &url]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains("refused"), "{gone:?}");
}

#[tokio::test]
async fn the_console_asks_for_the_same_password() {
    let directory = tempfile::tempdir().unwrap();
    let verifier = postgres_protocol::password::scram_sha_256(b"s3cret");
    let proxy = hostless(
        directory.path(),
        &format!("[users.app]\npassword = \"{verifier}\""),
    );
    let mut config = proxy.config();
    config.dbname("presplit").password("s3cret");
    let client = support::connect(&config).await;
    assert_eq!(simple(&client, "SHOW VERSION").await.len(), 1);
    for (user, password) in [("app", "wrong"), ("nobody", "s3cret"), ("presplit", "")] {
        let error = config
            .user(user)
            .password(password)
            .connect(tokio_postgres::NoTls)
            .await
            .err()
            .unwrap();
        assert_eq!(error.code().unwrap().code(), "28P01", "{user}");
    }
    let refused = simple(&client, "SHOW STATS").await;
    let refused = refused
        .iter()
        .find(|row| row[0].as_deref() == Some("presplit_logins_refused_total"))
        .unwrap();
    assert_eq!(refused[2].as_deref(), Some("3"));
}
