//! `presplit provision` on real hosts.

use std::collections::HashSet;
use std::time::Duration;

use presplit::ops::demo::SCHEMA;
use presplit::ops::provision::{self, Options, Report};
use presplit::shardmap::{ShardId, id};

use crate::support::{Hosts, column};

async fn run(hosts: &Hosts, sql: &str) -> Result<Report, Vec<String>> {
    provision::run(&hosts.map(), sql, Options::default()).await
}

async fn count(client: &tokio_postgres::Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

const SHARD_SCHEMAS: &str = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'shard\\_%'";

#[tokio::test]
async fn the_demo_schema_lands_where_the_map_says_and_a_second_run_finds_it_there() {
    let hosts = Hosts::bare(2, 8);
    let dry = provision::run(
        &hosts.map(),
        SCHEMA,
        Options {
            dry_run: true,
            ..Options::default()
        },
    )
    .await
    .unwrap();
    assert_eq!(
        dry.hosts.iter().map(|h| h.shards_made).collect::<Vec<_>>(),
        [4, 4],
        "{dry}"
    );
    let b = hosts.client(1).await;
    assert_eq!(count(&b, SHARD_SCHEMAS).await, 0, "a dry run makes nothing");

    let made = run(&hosts, SCHEMA).await.unwrap();
    assert!(made.is_complete(), "{made}");
    assert_eq!(
        made.hosts
            .iter()
            .map(|h| (h.shards_made, h.shards_there))
            .collect::<Vec<_>>(),
        [(4, 0), (4, 0)]
    );
    assert_eq!(made.hosts[0].public_made, ["table countries"]);
    assert_eq!(
        made.hosts[1].public_made,
        ["table countries", "table invoices"]
    );

    let tables = "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('public', 'shard_0007', 'presplit') ORDER BY 1";
    let tables: Vec<String> = column(&b, tables).await;
    assert_eq!(
        tables,
        [
            "presplit.decision",
            "presplit.shard",
            "public.countries",
            "public.invoices",
            "shard_0007.follows",
            "shard_0007.likes",
            "shard_0007.photos",
            "shard_0007.users"
        ]
    );
    // The bigserial of photos became next_id(), and its sequence is gone; that of invoices stayed.
    let photo: i64 = count(
        &b,
        "INSERT INTO shard_0007.photos (user_id) VALUES (7) RETURNING id",
    )
    .await;
    assert_eq!(id::shard(photo), Some(ShardId(7)));
    assert_eq!(
        count(
            &b,
            "SELECT count(*) FROM pg_class WHERE relname = 'photos_id_seq'"
        )
        .await,
        0
    );
    assert_eq!(
        count(
            &b,
            "INSERT INTO invoices (user_id, cents) VALUES (7, 1) RETURNING id"
        )
        .await,
        1
    );
    assert_eq!(
        count(
            &b,
            "SELECT sum(shard) FROM presplit.shard WHERE epoch = 1 AND state = 'open'"
        )
        .await,
        4 + 5 + 6 + 7
    );

    let again = run(&hosts, SCHEMA).await.unwrap();
    assert_eq!(
        again
            .hosts
            .iter()
            .map(|h| (h.shards_made, h.shards_completed, h.shards_there))
            .collect::<Vec<_>>(),
        [(0, 0, 4), (0, 0, 4)]
    );
    assert_eq!(
        again.hosts[1].public_there,
        ["table countries", "table invoices"]
    );
    assert_eq!(
        count(&b, "SELECT count(*) FROM shard_0007.photos").await,
        1,
        "what was there stays"
    );
}

#[tokio::test]
async fn a_longer_file_completes_the_shards_and_touches_nothing_else() {
    let hosts = Hosts::bare(1, 4);
    run(&hosts, SCHEMA).await.unwrap();
    let a = hosts.client(0).await;
    a.batch_execute("ALTER TABLE shard_0001.likes ADD weight int; CREATE INDEX new_one ON shard_0002.likes (photo_id)").await.unwrap();
    let longer = format!(
        "{SCHEMA};
         CREATE TYPE mood AS ENUM ('good', 'bad');
         ALTER TABLE likes ADD weight int;
         CREATE INDEX new_one ON likes (photo_id);
         CREATE INDEX ON likes (created_at);
         COMMENT ON TABLE likes IS 'never said again of a table that was there';
         CREATE TABLE comments (id bigint DEFAULT next_id(), user_id bigint, mood mood);
         COMMENT ON TABLE comments IS 'said'; -- ends in a comment"
    );
    let report = run(&hosts, &longer).await.unwrap();
    assert!(report.is_complete(), "{report}");
    assert_eq!(
        (
            report.hosts[0].shards_made,
            report.hosts[0].shards_completed
        ),
        (0, 4),
        "{report}"
    );
    assert_eq!(report.hosts[0].public_made, ["type mood"]);
    for (object, times) in [("new_one", 4), ("likes_created_at_idx", 4), ("comments", 4)] {
        assert_eq!(
            count(
                &a,
                &format!("SELECT count(*) FROM pg_class WHERE relname = '{object}'")
            )
            .await,
            times,
            "{object}"
        );
    }
    let said = "SELECT count(*) FROM pg_description d JOIN pg_class c ON c.oid = d.objoid AND c.relname = ";
    assert_eq!(count(&a, &format!("{said} 'comments'")).await, 4);
    assert_eq!(count(&a, &format!("{said} 'likes'")).await, 0);
    let made: i64 = count(
        &a,
        "INSERT INTO shard_0003.comments (user_id, mood) VALUES (3, 'good') RETURNING id",
    )
    .await;
    assert_eq!(id::shard(made), Some(ShardId(3)));
    assert_eq!(run(&hosts, &longer).await.unwrap().hosts[0].shards_there, 4);
}

#[tokio::test]
async fn every_way_to_write_an_id_column_becomes_next_id() {
    let hosts = Hosts::bare(1, 2);
    let text = hosts.map_text(1, "").replace(
        "photos = { ids = [\"id\"] }",
        "photos = { ids = [\"id\"] }\nident = { ids = [\"id\"] }\n\"Dumped\" = { ids = [\"Id\"] }\nrefs = { ids = [\"photo_id\"] }",
    );
    hosts.write_map(&text);
    let sql = r#"CREATE TABLE ident (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id bigint);
        CREATE TABLE "Dumped" ("Id" bigint NOT NULL, user_id bigint);
        CREATE SEQUENCE "Dumped_Id_seq" START WITH 1;
        ALTER SEQUENCE "Dumped_Id_seq" OWNED BY "Dumped"."Id";
        ALTER TABLE ONLY "Dumped" ALTER COLUMN "Id" SET DEFAULT nextval('"Dumped_Id_seq"'::regclass);
        CREATE TABLE refs (photo_id bigint, user_id bigint);"#;
    for expected in [(2, 0), (0, 2)] {
        let report = run(&hosts, sql).await.unwrap();
        assert!(report.is_complete(), "{report}");
        assert_eq!(
            (report.hosts[0].shards_made, report.hosts[0].shards_there),
            expected
        );
    }
    let a = hosts.client(0).await;
    for table in ["ident", "\"Dumped\""] {
        let made = a
            .query_one(
                &format!("INSERT INTO shard_0001.{table} (user_id) VALUES (1) RETURNING *"),
                &[],
            )
            .await
            .unwrap();
        assert_eq!(id::shard(made.get(0)), Some(ShardId(1)), "{table}");
    }
    // A column that refers to a photo carries its shard, and is not for us to fill.
    let refers = a
        .query_one(
            "INSERT INTO shard_0001.refs (user_id) VALUES (1) RETURNING photo_id",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(refers.get::<_, Option<i64>>(0), None);
}

#[tokio::test]
async fn functions_of_a_shard_find_its_tables_from_anywhere() {
    let hosts = Hosts::bare(1, 2);
    let sql = format!(
        "{SCHEMA};
         CREATE FUNCTION photos_of(u bigint) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM photos WHERE user_id = u';
         CREATE FUNCTION last_photo() RETURNS photos LANGUAGE sql AS 'SELECT * FROM photos ORDER BY id DESC LIMIT 1';
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.caption := NEW.caption || '!'; RETURN NEW; END $$;
         CREATE TRIGGER noted BEFORE INSERT ON photos FOR EACH ROW EXECUTE FUNCTION note();"
    );
    let report = run(&hosts, &sql).await.unwrap();
    assert!(report.is_complete(), "{report}");
    let a = hosts.client(0).await;
    a.batch_execute("SET search_path = pg_catalog; INSERT INTO shard_0001.photos (user_id, caption) VALUES (1, 'x')").await.unwrap();
    assert_eq!(count(&a, "SELECT shard_0001.photos_of(1)").await, 1);
    assert_eq!(count(&a, "SELECT shard_0000.photos_of(1)").await, 0);
    assert_eq!(
        a.query_one("SELECT (shard_0001.last_photo()).caption", &[])
            .await
            .unwrap()
            .get::<_, &str>(0),
        "x!"
    );
}

#[tokio::test]
async fn faults_are_told_before_anything_is_made() {
    let hosts = Hosts::bare(2, 8);
    let a = hosts.client(0).await;
    let told = async |sql: &str, words: &[&str]| {
        let faults = run(&hosts, sql).await.unwrap_err().join("\n");
        for word in words {
            assert!(faults.contains(word), "{word:?} is not in: {faults}");
        }
    };
    told(
        "CREATE TABLE photos (user_id bigint);\n\nCREATE INDEX ON photos (nothing)",
        &[
            "line 3",
            "index on photos",
            "\"nothing\" does not exist",
            "42703",
        ],
    )
    .await;
    told(
        "CREATE TABLE notes (id bigint)",
        &["table notes has no column \"user_id\"", "[tables]"],
    )
    .await;
    told(
        "CREATE TABLE photos (id serial, user_id bigint)",
        &["photos.id is integer", "bigint"],
    )
    .await;
    told(
        "CREATE TABLE photos (no bigint, user_id bigint)",
        &["ids names \"id\""],
    )
    .await;
    a.batch_execute("CREATE TABLE public.likes (x int)")
        .await
        .unwrap();
    told(
        SCHEMA,
        &["host a: likes would be in every shard and is in public too"],
    )
    .await;
    assert_eq!(
        count(
            &a,
            "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^(shard_|presplit)'"
        )
        .await,
        0
    );
}

#[tokio::test]
async fn a_shard_that_is_open_on_another_host_is_not_made_again() {
    let hosts = Hosts::bare(2, 8);
    run(&hosts, SCHEMA).await.unwrap();
    let moved = hosts
        .map_text(2, "")
        .replace("\"0-3\" = \"a\"", "\"0-2\" = \"a\"")
        .replace("\"4-7\" = \"b\"", "\"3-7\" = \"b\"");
    hosts.write_map(&moved);
    let faults = run(&hosts, SCHEMA).await.unwrap_err();
    assert!(
        faults[0].contains("shard 3 to b") && faults[0].contains("open on host a"),
        "{faults:?}"
    );
    assert_eq!(count(&hosts.client(1).await, SHARD_SCHEMAS).await, 4);
}

#[tokio::test]
async fn a_host_that_is_down_stops_the_run_before_it_begins() {
    let mut hosts = Hosts::bare(2, 4);
    hosts.clusters[1].stop();
    let faults = run(&hosts, SCHEMA).await.unwrap_err();
    assert!(
        faults[0].starts_with("host b: ") && faults[1].contains("nothing was changed"),
        "{faults:?}"
    );
    assert_eq!(count(&hosts.client(0).await, SHARD_SCHEMAS).await, 0);
}

#[tokio::test]
async fn a_shard_that_fails_is_left_as_it_was_and_named_with_its_statement() {
    let hosts = Hosts::bare(1, 4);
    let a = hosts.client(0).await;
    // A view in the way of a table: the trial in a schema of its own can't see it.
    a.batch_execute("CREATE SCHEMA shard_0002; CREATE TYPE shard_0002.follows AS (x int)")
        .await
        .unwrap();
    let report = provision::run(
        &hosts.map(),
        SCHEMA,
        Options {
            jobs: 1,
            ..Options::default()
        },
    )
    .await
    .unwrap();
    assert!(!report.is_complete());
    let host = &report.hosts[0];
    assert_eq!(
        (host.shards_made, host.shards_not_tried, host.failures.len()),
        (2, 1, 1),
        "{report}"
    );
    let failure = &host.failures[0];
    assert_eq!(failure.place, "shard_0002");
    assert!(
        failure.sql.contains("CREATE TABLE follows") && failure.error.contains("already exists"),
        "{report}"
    );
    assert_eq!(
        count(
            &a,
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'shard_0002'"
        )
        .await,
        0,
        "a whole shard or nothing"
    );

    a.batch_execute("DROP TYPE shard_0002.follows")
        .await
        .unwrap();
    let mended = run(&hosts, SCHEMA).await.unwrap();
    assert_eq!(
        (mended.hosts[0].shards_made, mended.hosts[0].shards_there),
        (2, 2),
        "{mended}"
    );
}

#[tokio::test]
async fn a_run_that_is_killed_leaves_whole_shards_and_the_next_one_goes_on() {
    let hosts = Hosts::bare(1, 120);
    let a = hosts.client(0).await;
    let file = hosts.dir().join("app.sql");
    std::fs::write(&file, SCHEMA).unwrap();
    let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_presplit"))
        .args(["provision", "--jobs", "3", "--map"])
        .arg(hosts.map_file())
        .arg("--schema")
        .arg(&file)
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while count(&a, SHARD_SCHEMAS).await < 10 {
        assert!(
            process.try_wait().unwrap().is_none(),
            "it ended before it could be killed"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    process.kill().unwrap();
    process.wait().unwrap();

    let report = run(&hosts, SCHEMA).await.unwrap();
    let host = &report.hosts[0];
    assert!(report.is_complete(), "{report}");
    assert!(host.shards_there >= 10 && host.shards_made > 0, "{report}");
    assert_eq!(
        (host.shards_there + host.shards_made, host.shards_completed),
        (120, 0),
        "no shard was half made: {report}"
    );
    assert_eq!(
        count(
            &a,
            "SELECT count(*) FROM pg_tables WHERE schemaname LIKE 'shard\\_%'"
        )
        .await,
        120 * 4
    );
    assert_eq!(count(&a, "SELECT count(*) FROM presplit.shard").await, 120);
}

#[tokio::test]
async fn next_id_never_repeats_from_many_connections_at_once() {
    let hosts = Hosts::provisioned(1, 2).await;
    let before = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64;
    let mut tasks = Vec::new();
    for number in 0..24_i64 {
        let client = hosts.client(0).await;
        // Some take many at once (beyond 1024 a millisecond together), some one by one with the clock going on.
        let (rounds, each) = if number % 2 == 0 {
            (8, 1500_i64)
        } else {
            (150, 1)
        };
        tasks.push(tokio::spawn(async move {
            let mut ids: Vec<i64> = Vec::new();
            for _ in 0..rounds {
                let rows = client
                    .query(
                        "SELECT shard_0001.next_id() FROM generate_series(1, $1::bigint)",
                        &[&each],
                    )
                    .await
                    .unwrap();
                ids.extend(rows.iter().map(|row| row.get::<_, i64>(0)));
            }
            assert!(
                ids.is_sorted_by(|a, b| a < b),
                "the ids of one session go up"
            );
            ids
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    assert_eq!(all.len(), 12 * 8 * 1500 + 12 * 150);
    assert_eq!(
        all.iter().collect::<HashSet<_>>().len(),
        all.len(),
        "an id was given twice"
    );
    let parts: Vec<_> = all.iter().map(|made| id::split(*made).unwrap()).collect();
    assert!(parts.iter().all(|part| part.shard == ShardId(1)));
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64;
    let (first, last) = (
        parts.iter().map(|p| p.unix_ms).min().unwrap(),
        parts.iter().map(|p| p.unix_ms).max().unwrap(),
    );
    assert!(first + 300 >= before, "{first} {before}");
    assert!(
        last <= now + 1000,
        "ids run ahead of the clock only by what was asked beyond 512 a millisecond: {last} {now}"
    );
}

#[tokio::test]
async fn next_id_goes_on_upwards_when_the_clock_went_back() {
    let hosts = Hosts::provisioned(1, 1).await;
    let a = hosts.client(0).await;
    // As if the ids so far had been made an hour ahead of now.
    let ahead: i64 = count(&a, "SELECT setval('shard_0000.presplit_next_id', (shard_0000.next_id() >> 23 << 10) + (3600000::bigint << 10))").await;
    let ids = "SELECT shard_0000.next_id() FROM generate_series(1, 20000)";
    let ids: Vec<i64> = column(&a, ids).await;
    assert!(ids.is_sorted_by(|x, y| x < y));
    assert!(ids[0] >> 23 >= ahead >> 10, "not behind what was given out");
    // 4096 of each 8 ms: 20,000 ids fill five such spans.
    assert!(
        (ids[19999] >> 23) - (ahead >> 10) <= 48,
        "{}",
        (ids[19999] >> 23) - (ahead >> 10)
    );
}

#[tokio::test]
async fn an_error_or_cancel_in_the_middle_leaves_no_lock() {
    let hosts = Hosts::provisioned(1, 1).await;
    let a = hosts.client(0).await;
    let b = hosts.client(0).await;
    a.batch_execute("BEGIN; SELECT shard_0000.next_id() FROM generate_series(1, 20000)")
        .await
        .unwrap();
    assert_eq!(
        count(
            &b,
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        )
        .await,
        0,
        "the open transaction holds no lock"
    );
    let refused = b
        .batch_execute("BEGIN READ ONLY; SELECT shard_0000.next_id()")
        .await
        .unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "25006");
    b.batch_execute("ROLLBACK; SET lock_timeout = '1s'; SELECT shard_0000.next_id() FROM generate_series(1, 20000)").await.unwrap();
}
