//! The commands of the console, by both protocols and from psql.

use super::{HTTP, console, healthy, hostless, http_address, map_items, psql, simple, text};
use crate::support::{Hosts, Proxy};

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
