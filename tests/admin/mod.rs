//! The virtual database `presplit` and HTTP, as an operator uses them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
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
async fn every_command_by_both_protocols() {
    let hosts = Hosts::provisioned(2, 8).await;
    hosts.write_map(&hosts.map_text(1, HTTP));
    let proxy = Proxy::start(&hosts);
    healthy(http_address(&proxy));
    // Login asks host a what it reports, so that its pool has opened one connection.
    let _app = proxy.client().await;
    let client = console(&proxy).await;

    let help = client.query("SHOW HELP", &[]).await.unwrap();
    let commands: Vec<String> = help.iter().map(|row| row.get("command")).collect();
    assert!(commands.len() >= 12);
    for command in commands.iter().filter(|c| c.starts_with("SHOW")) {
        let extended = client
            .query(command.as_str(), &[])
            .await
            .unwrap_or_else(|e| panic!("{command}: {e:?}"));
        let by_text = simple(&client, &format!(" {};", command.to_lowercase())).await;
        assert_eq!(extended.len(), by_text.len(), "{command}");
        if command == "SHOW TRANSACTIONS" {
            assert!(extended.is_empty(), "{extended:?}");
            continue;
        }
        assert!(!extended.is_empty(), "{command}");
        assert_eq!(extended[0].len(), by_text[0].len(), "{command}");
    }

    let version: String = client.query_one("SHOW VERSION", &[]).await.unwrap().get(0);
    assert_eq!(version, format!("presplit {}", env!("CARGO_PKG_VERSION")));

    let items = map_items(&client).await;
    assert_eq!(items["version"], "1");
    assert_eq!(items["load"], "good");
    assert_eq!(items["file"], hosts.map_file().display().to_string());
    assert_eq!((items["0-3"].as_str(), items["4-7"].as_str()), ("a", "b"));

    let shards = client.query("SHOW SHARDS", &[]).await.unwrap();
    assert_eq!(shards.len(), 8);
    let five: (i64, String, String) = (
        shards[5].get("shard"),
        shards[5].get("schema"),
        shards[5].get("host"),
    );
    assert_eq!(five, (5, "shard_0005".into(), "b".into()));

    let host = &client.query("SHOW HOSTS", &[]).await.unwrap()[0];
    assert_eq!(host.get::<_, String>("url"), hosts.clusters[0].url());
    assert_eq!(
        (host.get::<_, i64>("pool"), host.get::<_, i64>("shards")),
        (10, 4)
    );
    assert_eq!(host.get::<_, String>("state"), "up");
    assert_eq!(host.get::<_, Option<String>>("fault"), None);

    let pool = &client.query("SHOW POOLS", &[]).await.unwrap()[0];
    assert_eq!(
        (pool.get::<_, String>("host"), pool.get::<_, String>("user")),
        ("a".into(), "app".into())
    );
    let count = |name: &str| pool.get::<_, i64>(name);
    assert_eq!(
        (
            count("opened"),
            count("failed"),
            count("sv_active"),
            count("cl_waiting")
        ),
        (1, 0, 0, 0)
    );
    assert_eq!((count("sv_idle"), count("maxwait_ms")), (1, 0));
    assert!(count("checkouts") >= 1);

    let clients = client.query("SHOW CLIENTS", &[]).await.unwrap();
    let seen: Vec<(String, String, String)> = clients
        .iter()
        .map(|c| (c.get("database"), c.get("application"), c.get("state")))
        .collect();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(seen[0], ("app".into(), String::new(), "idle".into()));
    assert_eq!(
        seen[1],
        ("presplit".into(), "the operator".into(), "active".into())
    );
    assert!(
        clients[1]
            .get::<_, String>("peer")
            .starts_with("127.0.0.1:")
    );

    let tables = simple(&client, "SHOW TABLES").await;
    let table = |name: &str| {
        let row = tables
            .iter()
            .find(|row| row[0].as_deref() == Some(name))
            .unwrap();
        row[1..]
            .iter()
            .map(|cell| cell.as_deref().unwrap_or("-"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(table("users"), "sharded id - -");
    assert_eq!(table("photos"), "sharded user_id id -");
    assert_eq!(table("countries"), "reference - - -");
    assert_eq!(table("invoices"), "unsharded - - b");

    let stats = client.query("SHOW STATS", &[]).await.unwrap();
    let stat = |name: &str| {
        stats
            .iter()
            .find(|row| row.get::<_, String>(0) == name)
            .unwrap()
            .get::<_, f64>("value")
    };
    assert_eq!(stat("presplit_map_version"), 1.0);
    assert_eq!(stat("presplit_logins_total"), 2.0);

    let config = simple(&client, "SHOW CONFIG").await;
    let setting = |name: &str| {
        config
            .iter()
            .find(|row| row[0].as_deref() == Some(name))
            .unwrap()
            .clone()
    };
    assert_eq!(
        setting("database")[1..3],
        [Some("app".to_owned()), Some("app".to_owned())]
    );
    assert_eq!(setting("limits.clients")[1].as_deref(), Some("10000"));
    assert_eq!(setting("listen")[3].as_deref(), Some("at the next start"));
    assert_eq!(setting("timeouts.connect")[3].as_deref(), Some("at once"));

    let plans = simple(&client, "SHOW PLANS").await;
    assert_eq!(plans.len(), 2);
}

#[tokio::test]
async fn what_is_no_command_is_refused_with_the_list_and_the_connection_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = hostless(directory.path(), "[users.app]");
    let client = console(&proxy).await;
    for statement in [
        "SELECT 1",
        "SHOW",
        "SHOW search_path",
        "DROP TABLE photos",
        "SHOW MAP $1",
    ] {
        for error in [
            client.query(statement, &[]).await.unwrap_err(),
            client.simple_query(statement).await.unwrap_err(),
        ] {
            let error = error.as_db_error().unwrap().clone();
            assert_eq!(error.code().code(), "42601", "{statement}");
            assert!(error.hint().unwrap().contains("SHOW POOLS"), "{error:?}");
        }
    }
    // Several in one message, up to the one that fails.
    let rows = simple(&client, "SHOW VERSION; show version ;").await;
    assert_eq!(rows.len(), 2);
    assert!(
        client
            .simple_query("SHOW VERSION; nonsense; SHOW VERSION")
            .await
            .is_err()
    );
    assert!(simple(&client, "").await.is_empty());
    // Drivers put a transaction around it.
    let rows = simple(&client, "BEGIN; SHOW VERSION; COMMIT").await;
    assert_eq!(rows.len(), 1);
    // A prepared one, more than once.
    let statement = client.prepare("SHOW SHARDS").await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.query(&statement, &[]).await.unwrap().len(), 4);
    }
}

#[tokio::test]
async fn rows_come_in_pieces_when_asked_so() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = hostless(directory.path(), "[users.app]");
    let mut client = console(&proxy).await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SHOW SHARDS", &[]).await.unwrap();
    let mut got = Vec::new();
    for expected in [3, 1, 0] {
        let rows = transaction.query_portal(&portal, 3).await.unwrap();
        assert_eq!(rows.len(), expected);
        got.extend(rows.iter().map(|row| row.get::<_, i64>(0)));
    }
    assert_eq!(got, [0, 1, 2, 3]);
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn psql_shows_tables_and_notices_and_its_own_queries_get_a_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = hostless(directory.path(), "[users.app]");
    let map = psql(&proxy, &["-At", "-c", "show map"]);
    assert!(map.status.success(), "{}", text(&map.stderr));
    let lines = text(&map.stdout);
    assert!(
        lines.contains("version|1\n") && lines.contains("load|good\n") && lines.contains("0-3|a\n"),
        "{lines}"
    );
    for args in [
        &["-c", "\\d"][..],
        &["-c", "\\d photos"],
        &["-c", "\\l"],
        &["-l"],
        &["-c", "\\df+"],
    ] {
        let refused = psql(&proxy, args);
        let said = text(&refused.stderr);
        assert!(!refused.status.success());
        assert!(
            said.contains("not a command of the proxy: ") && said.contains("SHOW HELP"),
            "{args:?}: {said}"
        );
    }
    let reload = psql(&proxy, &["-c", "RELOAD;"]);
    assert!(
        text(&reload.stderr).contains("NOTICE:  nothing is different: version 1 is in force"),
        "{reload:?}"
    );
    assert!(text(&reload.stdout).contains("RELOAD"));
    // No host is there: the fault, not the password.
    let app = proxy.config().connect(tokio_postgres::NoTls).await;
    assert!(app.is_err());
    let hosts = text(&psql(&proxy, &["-At", "-c", "SHOW HOSTS"]).stdout);
    assert!(
        hosts.starts_with("a|postgres://app@127.0.0.1:1/app|20|4|down|"),
        "{hosts}"
    );
    assert!(
        hosts.contains("refused") && !hosts.contains("hunter2"),
        "{hosts}"
    );
    let tables = psql(&proxy, &["-c", "SHOW TABLES"]);
    assert!(
        text(&tables.stderr).contains("WARNING:  the app's tables are not known yet"),
        "{tables:?}"
    );
}

#[tokio::test]
async fn reload_says_what_is_different_or_what_is_wrong_and_show_map_remembers() {
    let hosts = Hosts::bare(2, 8);
    hosts.write_map(&hosts.map_text(1, HTTP));
    // Through a link out of another directory, which is looked at every two seconds: RELOAD comes first.
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("linked.toml");
    std::os::unix::fs::symlink(hosts.map_file(), &link).unwrap();
    let proxy = Proxy::serve(&link, &[]);
    let http = http_address(&proxy);
    let client = console(&proxy).await;

    let mut version = 1;
    let said = wait_for("a reload before the watch's", || {
        version += 1;
        let text = hosts.map_text(version, HTTP);
        let (to, from) = ("\"0-3\" = \"b\"", "\"0-3\" = \"a\"");
        let text = if version % 2 == 0 {
            text.replace(from, to)
        } else {
            text
        };
        hosts.write_map(&text);
        let said = text_of_reload(&proxy);
        said.contains("4 shards 0-3: ").then_some(said)
    });
    assert!(
        said.contains(&format!("NOTICE:  version {} -> {version}", version - 1)),
        "{said}"
    );
    let items = map_items(&client).await;
    assert_eq!(items["version"], version.to_string());

    let good = hosts.map_text(version, HTTP);
    hosts.write_map(
        &good
            .replace("\"4-7\" = \"b\"", "\"4-6\" = \"c\"")
            .replace("pool = 10", "pol = 10"),
    );
    let error = client.simple_query("RELOAD").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "F0000");
    let detail = error.detail().unwrap();
    assert!(detail.lines().count() >= 3, "all faults at once: {detail}");
    for line in detail.lines() {
        let place = line
            .split("linked.toml:")
            .nth(1)
            .unwrap_or_else(|| panic!("no place: {line}"));
        let (row, rest) = place.split_once(':').unwrap();
        assert!(
            row.parse::<u32>().unwrap() > 0 && rest.as_bytes()[0].is_ascii_digit(),
            "{line}"
        );
    }
    assert!(detail.contains("unknown host"), "{detail}");
    assert!(
        error
            .hint()
            .unwrap()
            .contains(&format!("Version {version} stays in force"))
    );

    let rows = simple(&client, "SHOW MAP").await;
    let item = |name: &str| {
        let of_name = rows.iter().filter(|row| row[0].as_deref() == Some(name));
        of_name
            .map(|row| row[1].clone().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        item("load"),
        [format!("bad: version {version} stays in force")]
    );
    assert!(item("bad since")[0].ends_with(" UTC"));
    assert_eq!(item("fault").join("\n"), detail);
    let run = if version % 2 == 0 { "0-7" } else { "4-7" };
    assert_eq!(item(run), ["b"], "the map in force is shown");
    let metrics = get(http, "/metrics").1;
    assert!(metrics.contains("\npresplit_map_good 0\n"), "{metrics}");
    assert!(!metrics.contains("presplit_map_loads_total{result=\"bad\"} 0\n"));

    hosts.write_map(
        &hosts
            .map_text(version + 1, HTTP)
            .replace("\"4-7\" = \"b\"", "\"4-7\" = \"a\""),
    );
    client.simple_query("RELOAD").await.unwrap();
    let items = map_items(&client).await;
    assert_eq!((items["load"].as_str(), items.get("fault")), ("good", None));
    assert_eq!(items["version"], (version + 1).to_string());
    assert!(get(http, "/metrics").1.contains("\npresplit_map_good 1\n"));
}

fn text_of_reload(proxy: &Proxy) -> String {
    let reload = psql(proxy, &["-c", "RELOAD"]);
    assert!(reload.status.success(), "{reload:?}");
    text(&reload.stderr)
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

/// A connection that has logged in, by hand.
fn raw(proxy: &Proxy) -> TcpStream {
    let mut socket = TcpStream::connect(proxy.addr()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let startup = message(0, b"\0\x03\0\0user\0app\0database\0presplit\0\0");
    socket.write_all(&startup[1..]).unwrap();
    loop {
        let mut head = [0; 5];
        socket.read_exact(&mut head).unwrap();
        let mut body = vec![0; u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4];
        socket.read_exact(&mut body).unwrap();
        assert_ne!(head[0], b'E', "{}", text(&body));
        if head[0] == b'Z' {
            return socket;
        }
    }
}

/// The tags of whole messages; nothing may be left.
fn tags(mut bytes: &[u8]) -> Vec<u8> {
    let mut tags = Vec::new();
    while let [tag, a, b, c, d, ..] = bytes {
        tags.push(*tag);
        let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize + 1;
        bytes = &bytes[len..];
    }
    assert!(bytes.is_empty());
    tags
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(body);
    message
}

/// Sends and reads to the end, which must come.
fn exchange(proxy: &Proxy, bytes: &[u8]) -> Vec<u8> {
    let mut socket = raw(proxy);
    // The proxy may close before all is sent.
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => Vec::new(),
        Err(e) => panic!("{e} after {bytes:?}"),
        Ok(_) => answer,
    }
}

#[test]
fn a_broken_batch_is_skipped_up_to_its_sync() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = hostless(directory.path(), "[users.app]");
    let parse = |text: &str| message(b'P', format!("\0{text}\0\0\0").as_bytes());
    let bind = message(b'B', b"\0\0\0\0\0\0\0\0");
    let execute = message(b'E', b"\0\0\0\0\0");
    let sync = message(b'S', b"");
    let batch = [
        parse("SHOW VERSION"),
        bind.clone(),
        message(b'D', b"P\0"),
        execute.clone(),
        sync.clone(),
        parse("nonsense"),
        bind.clone(),
        execute.clone(),
        sync.clone(),
        parse(""),
        bind.clone(),
        message(b'D', b"P\0"),
        execute.clone(),
        message(b'C', b"Sx\0"),
        sync.clone(),
        execute,
        sync.clone(),
        message(b'B', b"\0no such statement\0\0\0\0\0\0\0"),
        sync.clone(),
        message(b'Q', b"SHOW"),
        message(b'F', b"\0\0\0\x01"),
        message(b'S', b"x"),
    ];
    let answer = exchange(&proxy, &batch.concat());
    assert_eq!(text(&tags(&answer)), "12TDCZEZ12nI3ZEZEZEZEZEZ");
    // Too long, and no message at all: told, and over.
    for fatal in [
        &b"Q\0\x10\0\0"[..],
        b"Q\0\0\0\x03",
        b"z\0\0\0\x04",
        b"P\xff\xff\xff\xff",
        b"S\0\0\xff\xff",
    ] {
        let answer = exchange(&proxy, fatal);
        assert!(
            text(&answer).contains("SFATAL\0"),
            "{fatal:?}: {}",
            text(&answer)
        );
    }
}

#[test]
fn random_bytes_end_in_a_clean_error() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = hostless(directory.path(), "[users.app]");
    let mut rng = StdRng::seed_from_u64(11);
    for _ in 0..1500 {
        let mut bytes = Vec::new();
        for _ in 0..rng.random_range(1..8) {
            let tag = b"QPBDECHSFdcfX"[rng.random_range(0..13)];
            let mut body: Vec<u8> = (0..rng.random_range(0..40)).map(|_| rng.random()).collect();
            match rng.random_range(0..6) {
                // Nothing in it is right.
                0 => bytes.extend_from_slice(&body),
                1 => bytes.extend(message(tag, &body)),
                // Fields that are nearly right.
                2 => bytes.extend(message(tag, b"\0SHOW MAP\0\0\0")),
                3 => bytes.extend(message(b'Q', b"show stats;\0")),
                4 => {
                    body.iter_mut().for_each(|b| *b &= 3);
                    bytes.extend(message(tag, &body));
                }
                // The length lies.
                _ => {
                    let mut lying = message(tag, &body);
                    lying[rng.random_range(1..5)] ^= 1 << rng.random_range(0..8);
                    bytes.extend(lying);
                }
            }
        }
        tags(&exchange(&proxy, &bytes));
    }
    assert!(psql(&proxy, &["-c", "SHOW CLIENTS"]).status.success());
}
