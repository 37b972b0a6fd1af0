//! Who may call the feed service, and what its command makes.

use std::sync::Arc;
use std::time::Duration;

use presplit::feed::service::{Role, Settings};
use presplit::feed::store::{MemoryLimits, MemoryStore};
use presplit::shardmap::Secret;
use tokio_util::sync::CancellationToken;

use super::api::problem;
use super::http::call;
use super::place::{place, users};

#[tokio::test]
async fn whoever_has_no_token_stays_outside() {
    let settings = |listen: &str, tokens: &[&str]| {
        let tokens = tokens.iter().map(|t| Secret::new(*t)).collect();
        let listen = listen.parse().unwrap();
        async move {
            let store = Arc::new(MemoryStore::new(MemoryLimits::default()));
            Settings {
                role: Role::Api,
                listen,
                tokens,
                ..Settings::new(place().await.proxy.url(), store)
            }
        }
    };
    let start = presplit::feed::service::Service::start;
    let stop = CancellationToken::new();
    let refused = start(settings("0.0.0.0:0", &[]).await, stop.clone()).await;
    assert!(refused.unwrap_err().contains("tokens"));
    let service = start(
        settings("127.0.0.1:0", &["secret-1", "secret-2"]).await,
        stop.clone(),
    );
    let service = service.await.unwrap();
    let at = service.address().unwrap();
    let running = tokio::spawn(service.run());
    let user = users(1)[0];
    let asked = tokio::task::spawn_blocking(move || {
        let home = format!("/v1/users/{user}/home");
        for headers in [
            &[][..],
            &[("Authorization", "Bearer secret-3")],
            &[("Authorization", "Bearer ")],
            &[("Authorization", "Basic secret-1")],
        ] {
            let answer = call(at, "GET", &home, headers, None);
            problem("unauthorized", &answer);
            assert_eq!(
                (answer.status, answer.header("www-authenticate")),
                (401, Some("Bearer"))
            );
        }
        for token in ["Bearer secret-1", "bearer secret-2"] {
            assert_eq!(
                call(at, "GET", &home, &[("Authorization", token)], None).status,
                200
            );
        }
        for open in ["/healthz", "/metrics", "/favicon.ico", "/v1/openapi.json"] {
            assert_eq!(call(at, "GET", open, &[], None).status, 200, "{open}");
        }
    });
    asked.await.unwrap();
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(20), running).await;
    ended.unwrap().unwrap();
}

#[tokio::test]
async fn the_command_makes_its_tables() {
    use crate::support::Hosts;
    let run = |args: &[&str]| {
        let done = std::process::Command::new(env!("CARGO_BIN_EXE_presplit"))
            .args(args)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned()
            + &String::from_utf8_lossy(&done.stderr);
        (done.status.success(), said)
    };
    let (good, sql) = run(&["feed", "schema"]);
    assert!(
        good && sql.contains("CREATE TABLE follow_out")
            && sql.contains("media = { ids = [\"id\"] }"),
        "{sql}"
    );
    let hosts = Hosts::bare(1, 2);
    let map = hosts.map_file();
    let provision = ["provision", "--feed", "--map", map.to_str().unwrap()];
    let (good, said) = run(&provision);
    assert!(
        !good && said.contains("stars = { kind = \"reference\" }"),
        "{said}"
    );
    hosts.write_map(&super::place::map_text(&hosts));
    let app = hosts.dir().join("app.sql");
    std::fs::write(&app, "CREATE TABLE likes (user_id bigint, media bigint)").unwrap();
    let (good, said) = run(&[&provision[..], &["--schema", app.to_str().unwrap()]].concat());
    assert!(good, "{said}");
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename IN ('likes', 'media', 'outbox') AND schemaname = 'shard_0001' \
         OR tablename = 'stars' AND schemaname = 'public'";
    let client = hosts.client(0).await;
    assert_eq!(
        client
            .query_one(tables, &[])
            .await
            .unwrap()
            .get::<_, i64>(0),
        4
    );
    let (good, said) = run(&["feed", "--role", "api"]);
    assert!(!good && said.contains("[feed.redis]"), "{said}");
}
