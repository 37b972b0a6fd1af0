//! DDL over several hosts is a transaction as on one Postgres: in blocks, batches and messages with other statements; beside
//! other sessions; where it can't be prepared; and where a host is lost in the middle.

use std::time::Duration;

use presplit::ops::demo::SCHEMA;
use presplit::ops::provision::{self, Options};
use tokio_postgres::error::SqlState;

use crate::support::raw::{Raw, h, pbe, s};
use crate::support::{Cluster, Hosts, Proxy, Seam, wait_until};

/// Users of the hosts a and b, of 8 shards.
const A: i64 = 8001;
const B: i64 = 8005;

/// What a message says, without what only several hosts have to say.
fn bare(lines: Vec<String>) -> Vec<String> {
    let bare = |line: String| match line.starts_with('E') {
        // Of an error its message and code.
        true => line
            .split(" | ")
            .filter(|field| field.starts_with(['C', 'M']))
            .collect::<Vec<_>>()
            .join(" | "),
        false => line,
    };
    lines.into_iter().map(bare).collect()
}

/// Nothing is prepared on any host, and no transaction is open.
async fn assert_clean(hosts: &Hosts) {
    for i in 0..hosts.clusters.len() {
        let client = hosts.client(i).await;
        wait_until("nothing is left", || async {
            let sql = "SELECT (SELECT count(*) FROM pg_prepared_xacts)
                + (SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%')";
            client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
    }
}

/// Columns and indexes of all shards and of `public`, host by host, and how many rows the demo's tables have.
async fn everything(hosts: &Hosts) -> Vec<String> {
    let mut all = Vec::new();
    for i in 0..hosts.clusters.len() {
        let client = hosts.client(i).await;
        let sql = "SELECT n.nspname || '.' || c.relname || ' ' || coalesce(string_agg(a.attname || ' ' || a.atttypid::regtype, ', ' ORDER BY attnum), '')
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped
            WHERE n.nspname = 'public' OR n.nspname LIKE 'shard\\_%' GROUP BY n.nspname, c.relname ORDER BY 1";
        for row in client.query(sql, &[]).await.unwrap() {
            all.push(format!("{i} {}", row.get::<_, String>(0)));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_among_other_statements_is_as_on_one_postgres() {
    let hosts = Hosts::provisioned(2, 8).await;
    hosts.write_map(
        &hosts
            .map_text(1, "")
            .replace("[tables]\n", "[tables]\nsettings = { host = \"a\" }\n"),
    );
    let proxy = Proxy::start(&hosts);
    let one = Cluster::new();
    one.client().await.batch_execute(SCHEMA).await.unwrap();
    let mut plain = Raw::connect(one.addr());
    let mut ours = Raw::connect(proxy.addr());
    let columns = "SELECT DISTINCT table_name, column_name FROM information_schema.columns WHERE table_name IN ('albums', 'settings') ORDER BY 1, 2";
    let new = format!("INSERT INTO albums (user_id, n) VALUES ({A}, 1)");
    let newer = format!("INSERT INTO albums (user_id, n) VALUES ({B}, 2)");
    let count = "SELECT count(*), sum(n) FROM albums";
    let blocks: [&[&str]; 12] = [
        // What a block makes it sees on all hosts, and what it undoes is undone on all.
        &[
            "BEGIN",
            "CREATE TABLE albums (user_id bigint, n int)",
            &new,
            &newer,
            count,
            "SAVEPOINT s",
            "ALTER TABLE albums ADD COLUMN x int DEFAULT 7",
            "SELECT sum(x) FROM albums",
            "ROLLBACK TO s",
            "SELECT x FROM albums WHERE user_id = 8001",
            "ROLLBACK TO s",
            "DROP TABLE likes",
            "ROLLBACK TO s",
            "INSERT INTO likes (user_id, photo_id) VALUES (8001, 1)",
            "CREATE INDEX albums_n ON albums (n)",
            "COMMIT",
            count,
        ],
        &["BEGIN", "DROP TABLE albums", "ROLLBACK", count],
        // After writes on one host, and on the other.
        &[
            "BEGIN",
            "UPDATE albums SET n = 3 WHERE user_id = 8005",
            "ALTER TABLE albums RENAME COLUMN n TO m",
            "UPDATE albums SET m = 4 WHERE user_id = 8001",
            "ALTER TABLE albums RENAME COLUMN m TO n",
            "COMMIT",
            count,
        ],
        // One that fails.
        &[
            "BEGIN",
            "ALTER TABLE albums ADD COLUMN y int",
            "ALTER TABLE albums ADD COLUMN y int",
            "SELECT 1",
            "COMMIT",
            "ALTER TABLE albums ADD COLUMN y int",
        ],
        // In one message.
        &[
            "ALTER TABLE albums ADD COLUMN z int; UPDATE albums SET z = 1 WHERE user_id = 8001; UPDATE albums SET z = 2 WHERE user_id = 8005",
            "SELECT sum(z) FROM albums",
            "ALTER TABLE albums DROP COLUMN z; SELECT z FROM albums WHERE user_id = 8001",
            "SELECT sum(z) FROM albums",
            "BEGIN; ALTER TABLE albums DROP COLUMN z; COMMIT",
            "BEGIN; ALTER TABLE albums ADD COLUMN z int; ROLLBACK",
            "SELECT z FROM albums WHERE user_id = 8001",
            "CREATE INDEX CONCURRENTLY ON albums (y); SELECT 1",
        ],
        // A constraint that is looked at in the end takes the DDL with it.
        &[
            "ALTER TABLE albums ADD CONSTRAINT late UNIQUE (user_id) DEFERRABLE INITIALLY DEFERRED",
            "BEGIN",
            "ALTER TABLE albums ADD COLUMN w int",
            &newer,
            "COMMIT",
            "SELECT w FROM albums WHERE user_id = 8001",
            "BEGIN",
            "ALTER TABLE albums ADD COLUMN w int",
            &new,
            "COMMIT",
            "SELECT w FROM albums WHERE user_id = 8001",
        ],
        &[
            "BEGIN",
            &new,
            "SAVEPOINT s",
            "SET CONSTRAINTS late IMMEDIATE",
            "ROLLBACK TO s",
            "SET CONSTRAINTS \"Late\" IMMEDIATE",
            "ROLLBACK TO s",
            "DELETE FROM albums WHERE user_id = 8001",
            "SET CONSTRAINTS public.late, late IMMEDIATE",
            "UPDATE albums SET n = 9 WHERE user_id = 8005",
            &newer,
            "COMMIT",
            count,
        ],
        // On a host that comes later.
        &[
            "BEGIN",
            "SET CONSTRAINTS late IMMEDIATE",
            "SELECT 1",
            &newer,
            "ROLLBACK",
        ],
        &[
            "SET CONSTRAINTS ALL IMMEDIATE",
            "BEGIN",
            "SET CONSTRAINTS ALL IMMEDIATE",
            &newer,
            "ROLLBACK",
        ],
        // Tables of one host, and of all, in one block.
        &[
            "BEGIN",
            "ALTER TABLE invoices ADD COLUMN paid boolean",
            "ALTER TABLE countries ADD COLUMN population bigint",
            "ALTER TABLE albums ADD COLUMN country char(2) REFERENCES countries (code)",
            "LOCK TABLE photos IN SHARE MODE",
            "TRUNCATE likes",
            "CREATE TABLE settings (name text PRIMARY KEY)",
            &newer,
            "DELETE FROM albums WHERE user_id = 8005",
            columns,
            "COMMIT",
            columns,
            "SELECT population FROM countries",
            "SELECT paid FROM invoices",
            "SELECT country FROM albums WHERE user_id = 8001",
        ],
        // What was done first can't be prepared: its host decides.
        &[
            "BEGIN",
            "NOTIFY channel, 'x'",
            "DECLARE c CURSOR FOR SELECT 1",
            "FETCH c",
            "CREATE VIEW of_one AS SELECT * FROM albums WHERE user_id = 8001",
            "SELECT n FROM of_one",
            "COMMIT",
            "DROP VIEW of_one",
        ],
        &["DROP TABLE albums"],
    ];
    for block in blocks {
        for text in block {
            let expected = bare(plain.query(text));
            assert_eq!(bare(ours.query(text)), expected, "{text} of {block:#?}");
        }
    }
    assert_clean(&hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_of_a_batch_is_committed_at_its_sync() {
    let hosts = Hosts::provisioned(2, 8).await;
    let proxy = Proxy::start(&hosts);
    let one = Cluster::new();
    one.client().await.batch_execute(SCHEMA).await.unwrap();
    let mut plain = Raw::connect(one.addr());
    let mut ours = Raw::connect(proxy.addr());
    let new = |user: i64| {
        pbe(
            "INSERT INTO albums (user_id) VALUES ($1)",
            &[&user.to_string()],
        )
    };
    let user = |id: i64| {
        pbe(
            "INSERT INTO users (id, name) VALUES ($1, 'x')",
            &[&id.to_string()],
        )
    };
    let ddl = |text: &str| pbe(text, &[]);
    let count = || pbe("SELECT count(*) FROM albums", &[]);
    let batches = [
        [
            user(A),
            ddl("CREATE TABLE albums (user_id bigint)"),
            h(),
            new(A),
            new(B),
            count(),
            s(),
        ]
        .concat(),
        [count(), s()].concat(),
        // What fails behind it undoes it.
        [
            ddl("ALTER TABLE albums ADD COLUMN x int"),
            new(A),
            user(A),
            new(B),
            s(),
        ]
        .concat(),
        [pbe("SELECT x FROM albums WHERE user_id = 1", &[]), s()].concat(),
        [
            ddl("ALTER TABLE albums ADD COLUMN x int"),
            ddl("ALTER TABLE albums ADD COLUMN x int"),
            s(),
        ]
        .concat(),
        [pbe("SELECT x FROM albums WHERE user_id = 1", &[]), s()].concat(),
        [
            ddl("BEGIN"),
            ddl("ALTER TABLE albums ADD COLUMN x int"),
            s(),
            ddl("COMMIT"),
            s(),
        ]
        .concat(),
        [pbe("SELECT x FROM albums WHERE user_id = 8005", &[]), s()].concat(),
        [ddl("DROP TABLE albums"), s()].concat(),
    ];
    for (n, batch) in batches.iter().enumerate() {
        let syncs = batch.windows(5).filter(|w| w == b"S\0\0\0\x04").count();
        let expected = bare(plain.ask(batch, syncs));
        assert_eq!(bare(ours.ask(batch, syncs)), expected, "batch {n}");
    }
    // Until the Sync nobody else sees it.
    ours.send(&[ddl("CREATE TABLE albums (user_id bigint)"), h()].concat());
    ours.until(|line| line.starts_with("C "));
    let client = proxy.client().await;
    let made = "SELECT to_regclass('shard_0005.albums') IS NOT NULL";
    let direct = hosts.client(1).await;
    assert!(!direct.query_one(made, &[]).await.unwrap().get::<_, bool>(0));
    assert_eq!(ours.ask(&s(), 1), ["Z I"]);
    assert!(direct.query_one(made, &[]).await.unwrap().get::<_, bool>(0));
    let rows = client.query("SELECT * FROM albums", &[]).await.unwrap();
    assert!(rows.is_empty());
    assert_clean(&hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_whose_ddl_is_in_each_others_way() {
    let hosts = Hosts::provisioned(2, 8).await;
    let proxy = Proxy::start(&hosts);
    // All at once, of the same tables: none is in a deadlock.
    let mut running = Vec::new();
    for n in 0..4 {
        let client = proxy.client().await;
        running.push(tokio::spawn(async move {
            for i in 0..4 {
                let sql = match n {
                    0 => format!("ALTER TABLE photos ALTER caption SET DEFAULT '{i}'"),
                    1 => format!("CREATE INDEX i{n}_{i} ON photos (caption)"),
                    2 => format!("BEGIN; ALTER TABLE photos ADD x{i} int; ALTER TABLE photos DROP x{i}; COMMIT"),
                    _ => format!("ALTER TABLE likes ADD CONSTRAINT fk{i} FOREIGN KEY (user_id) REFERENCES users (id)"),
                };
                client.batch_execute(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
            }
        }));
    }
    for one in running {
        one.await.unwrap();
    }
    // A block that idles holds up those in its way, and no others.
    let (first, second) = (proxy.client().await, proxy.client().await);
    first.batch_execute("BEGIN").await.unwrap();
    first
        .batch_execute("ALTER TABLE photos ADD y int")
        .await
        .unwrap();
    second
        .batch_execute("ALTER TABLE likes ADD y int")
        .await
        .unwrap();
    let waiting = tokio::spawn(async move {
        second
            .batch_execute("ALTER TABLE photos ADD z int")
            .await
            .map(|()| second)
    });
    let direct = hosts.client(0).await;
    wait_until("the other waits", || async {
        let sql = "SELECT coalesce(string_agg(query, '; '), '') FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        let waits: String = direct.query_one(sql, &[]).await.unwrap().get(0);
        assert!(!waits.contains("relname"), "a look at the catalog waits: {waits}");
        waits.contains("ADD z")
    })
    .await;
    // It waits in the first place, and has nothing anywhere.
    first
        .batch_execute("ALTER TABLE photos DROP y")
        .await
        .unwrap();
    first.batch_execute("COMMIT").await.unwrap();
    let second = waiting.await.unwrap().unwrap();
    // A deadlock is seen by the first host, as by one Postgres.
    for (client, table) in [(&first, "photos"), (&second, "likes")] {
        client.batch_execute("BEGIN").await.unwrap();
        client
            .batch_execute(&format!("ALTER TABLE {table} ADD d int"))
            .await
            .unwrap();
    }
    let (one, other) = tokio::join!(first.batch_execute("ALTER TABLE likes ADD e int"), async {
        let done = second.batch_execute("ALTER TABLE photos ADD e int").await;
        second.batch_execute("ROLLBACK").await.unwrap();
        done
    });
    first.batch_execute("ROLLBACK").await.unwrap();
    assert_one_gives_way([one, other]);
    assert_clean(&hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_of_ddl_and_writes_over_two_hosts_is_ended() {
    let hosts = Hosts::provisioned(2, 8).await;
    let proxy = Proxy::start(&hosts);
    let (writer, ddl) = (proxy.client().await, proxy.client().await);
    let new = |id: i64| format!("INSERT INTO users (id, name) VALUES ({id}, 'x')");
    writer.batch_execute("BEGIN").await.unwrap();
    writer.batch_execute(&new(B)).await.unwrap();
    // It has all shards of a, and waits on b.
    let altering = tokio::spawn(async move {
        ddl.batch_execute("ALTER TABLE users ADD COLUMN x int")
            .await
    });
    let direct = [hosts.client(0).await, hosts.client(1).await];
    wait_until("a is done, and b waited for", || async {
        let sql = "SELECT (SELECT count(*) FROM pg_locks WHERE relation = 'shard_0003.users'::regclass AND mode = 'AccessExclusiveLock' AND granted),
            (SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock')";
        let on_a = direct[0].query_one(sql, &[]).await;
        let on_b = direct[1].query_one(&sql.replace("0003", "0005"), &[]).await;
        on_a.unwrap().get::<_, i64>(0) == 1 && on_b.unwrap().get::<_, i64>(1) == 1
    })
    .await;
    let written = writer.batch_execute(&new(A)).await;
    let ended = if written.is_ok() {
        "COMMIT"
    } else {
        "ROLLBACK"
    };
    writer.batch_execute(ended).await.unwrap();
    let altered = altering.await.unwrap();
    assert_one_gives_way([written, altered]);
    assert_clean(&hosts).await;
}

/// Exactly one of two that wait for each other is refused, and as a deadlock.
fn assert_one_gives_way(ended: [Result<(), tokio_postgres::Error>; 2]) {
    let codes: Vec<_> = ended
        .into_iter()
        .filter_map(Result::err)
        .map(|e| e.code().cloned())
        .collect();
    assert_eq!(codes, [Some(SqlState::T_R_DEADLOCK_DETECTED)]);
}

async fn provisioned(clusters: Vec<Cluster>, shards: u32, settings: &str) -> Hosts {
    let mut hosts = Hosts::bare(clusters.len(), shards);
    hosts.clusters = clusters;
    hosts.write_map(&hosts.map_text(1, settings));
    let report = provision::run(&hosts.map(), SCHEMA, Options::default())
        .await
        .unwrap();
    assert!(report.is_complete(), "{report}");
    hosts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_committed_everywhere_is_refused_before_anything_is_done() {
    let unable = || Cluster::with(&["max_prepared_transactions=0"]);
    let cases = [
        (
            vec![Cluster::new(), unable()],
            "",
            "max_prepared_transactions",
        ),
        (
            vec![unable(), Cluster::new()],
            "",
            "max_prepared_transactions",
        ),
        (
            vec![Cluster::new(), Cluster::new()],
            "cross_host = \"refuse\"",
            "cross_host = \"2pc\"",
        ),
    ];
    for (clusters, settings, mend) in cases {
        let hosts = provisioned(clusters, 4, settings).await;
        let proxy = Proxy::start(&hosts);
        let client = proxy.client().await;
        let before = everything(&hosts).await;
        for sql in [
            "ALTER TABLE photos ADD x int",
            "BEGIN; ALTER TABLE photos ADD x int",
        ] {
            let error = client.batch_execute(sql).await.unwrap_err();
            let error = error.as_db_error().unwrap();
            assert_eq!(error.code().code(), "SR002", "{error:?}");
            assert_eq!(
                error.message(),
                "DDL on 2 hosts needs two-phase commit: it must be on all of them or on none"
            );
            assert!(error.hint().unwrap().contains(mend), "{error:?}");
            client.batch_execute("ROLLBACK").await.unwrap();
        }
        assert_eq!(everything(&hosts).await, before);
        // What is on one host needs none of it, and neither does what can be in no transaction.
        client
            .batch_execute("ALTER TABLE invoices ADD x int")
            .await
            .unwrap();
        client
            .batch_execute("CREATE INDEX CONCURRENTLY i ON photos (caption)")
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_locks_than_there_is_room_for() {
    let small = || {
        Cluster::with(&[
            "max_locks_per_transaction=10",
            "max_connections=30",
            "max_prepared_transactions=4",
        ])
    };
    let hosts = provisioned(vec![small(), small()], 128, "").await;
    let proxy = Proxy::start(&hosts);
    let client = proxy.client().await;
    let before = everything(&hosts).await;
    let table = "CREATE TABLE albums (id bigint PRIMARY KEY, user_id bigint, t text)";
    let error = client.batch_execute(table).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "53400", "{error:?}");
    assert!(
        error
            .message()
            .contains("locks would be held, and the host has room for 340"),
        "{error:?}"
    );
    assert!(
        error
            .hint()
            .unwrap()
            .contains("Raise max_locks_per_transaction"),
        "{error:?}"
    );
    assert_eq!(everything(&hosts).await, before);
    // Those of a block add up.
    client.batch_execute("BEGIN").await.unwrap();
    client
        .batch_execute("ALTER TABLE photos ALTER caption SET DEFAULT 'x'")
        .await
        .unwrap();
    client
        .batch_execute("ALTER TABLE users ALTER name SET DEFAULT 'x'")
        .await
        .unwrap();
    let mut codes = Vec::new();
    for table in ["likes", "follows"] {
        let sql = format!("ALTER TABLE {table} ALTER created_at SET DEFAULT NULL");
        if let Err(error) = client.batch_execute(&sql).await {
            codes.push(error.code().unwrap().code().to_owned());
        }
    }
    assert_eq!(
        codes.first().map(String::as_str),
        Some("53400"),
        "{codes:?}"
    );
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_clean(&hosts).await;
}

/// Stops the COMMIT of DDL at a step, kills a host there, lets it go on; then the host comes back.
async fn struck(step: &str, victim: usize) -> (Result<(), String>, Vec<String>, Vec<String>) {
    let mut hosts = Hosts::provisioned(2, 4).await;
    let seam = Seam::new();
    hosts.write_map(&hosts.map_text(
        1,
        "[proxy.timeouts]\ncross_host_step = \"2s\"\nconnect = \"2s\"",
    ));
    let proxy = Proxy::with_seam(&hosts.map_file(), &seam);
    let client = proxy.client().await;
    client
        .batch_execute("SELECT 1 FROM users WHERE id = 1")
        .await
        .unwrap();
    let before = everything(&hosts).await;
    seam.stop_at(step);
    let committing = tokio::spawn(async move {
        client
            .batch_execute("CREATE TABLE albums (user_id bigint, t text)")
            .await
            .map_err(|e| {
                e.as_db_error().map_or(e.to_string(), |e| {
                    format!("{} {}", e.code().code(), e.message())
                })
            })
    });
    assert!(
        seam.is_reached(step, Duration::from_secs(20)),
        "{step} was not reached"
    );
    hosts.clusters[victim].kill();
    seam.open();
    let heard = committing.await.unwrap();
    hosts.clusters[victim].start();
    assert_clean(&hosts).await;
    let after = everything(&hosts).await;
    // The proxy knows how it has ended, too.
    let client = proxy.client().await;
    let there = after.iter().any(|line| line.contains(".albums "));
    wait_until("the proxy knows the tables as they are", || async {
        client
            .simple_query("SELECT 1 FROM albums WHERE user_id = 3")
            .await
            .is_ok()
            == there
    })
    .await;
    (heard, before, after)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_lost_between_prepare_and_commit() {
    // b decides: without it nothing is committed, and nothing stays.
    let (heard, before, after) = struck("prepared", 1).await;
    assert!(heard.is_err(), "{heard:?}");
    assert_eq!(after, before);
    // a has prepared: it is told when it is back.
    for step in ["prepared", "decided"] {
        let (heard, _, after) = struck(step, 0).await;
        assert_eq!(heard, Ok(()), "{step}");
        let albums = after
            .iter()
            .filter(|line| line.contains(".albums "))
            .count();
        assert_eq!(albums, 4, "{step}: {after:#?}");
    }
}
