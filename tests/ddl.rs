//! DDL through the wire: it is in every shard or in none, the proxy knows it at once, other clients go on working.

use tokio_postgres::Client;

use crate::support::raw::{b, ds, e, p, pbe, s};
use crate::support::{Hosts, Proxy, Raw};

const SHARDS: u32 = 16;

/// What every shard answers to a query, in which `$S` is the shard's schema. All the same, or it panics.
async fn everywhere(hosts: &Hosts, sql: &str) -> String {
    let mut answers = Vec::new();
    for shard in 0..hosts.shards {
        let client = hosts.client(hosts.owner(shard)).await;
        let schema = format!("shard_{shard:04}");
        let rows = client
            .query(&sql.replace("$S", &schema), &[])
            .await
            .unwrap_or_else(|e| panic!("{schema}: {sql}: {e:?}"));
        let row = |row: &tokio_postgres::Row| {
            let value: Option<String> = row.get(0);
            value.unwrap_or_default().replace(&schema, "S")
        };
        answers.push(rows.iter().map(row).collect::<Vec<_>>().join("\n"));
    }
    for (shard, answer) in answers.iter().enumerate() {
        assert_eq!(*answer, answers[0], "shard {shard}: {sql}");
    }
    answers.swap_remove(0)
}

/// All that a schema holds, as text.
const CATALOG: &str = "
SELECT * FROM (
  SELECT 'column ' || c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull || ' '
         || coalesce(pg_get_expr(d.adbin, d.adrelid), '') || a.attidentity::text AS line
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
  WHERE c.relnamespace = '$S'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'v', 'm', 'S')
  UNION ALL SELECT 'index ' || pg_get_indexdef(i.indexrelid) || i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
            WHERE c.relnamespace = '$S'::regnamespace
  UNION ALL SELECT 'constraint ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = '$S'::regnamespace
  UNION ALL SELECT 'view ' || relname || pg_get_viewdef(oid) FROM pg_class WHERE relnamespace = '$S'::regnamespace AND relkind IN ('v', 'm')
  UNION ALL SELECT 'function ' || pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = '$S'::regnamespace AND proname <> 'next_id'
  UNION ALL SELECT 'trigger ' || pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
            WHERE c.relnamespace = '$S'::regnamespace AND NOT tgisinternal
  UNION ALL SELECT 'acl ' || relname || ' ' || relacl::text FROM pg_class WHERE relnamespace = '$S'::regnamespace AND relacl IS NOT NULL
  UNION ALL SELECT 'comment ' || c.relname || ' ' || d.description FROM pg_description d JOIN pg_class c ON c.oid = d.objoid
            WHERE c.relnamespace = '$S'::regnamespace
) x ORDER BY 1";

async fn catalog(hosts: &Hosts) -> String {
    everywhere(hosts, CATALOG).await
}

async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|e| {
        panic!(
            "{sql}: {:?}",
            e.as_db_error()
                .map_or(format!("{e:?}"), |e| format!("{e:?}"))
        )
    });
}

async fn refused(client: &Client, sql: &str) -> (String, String) {
    let error = client.batch_execute(sql).await.expect_err(sql);
    let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}"));
    let said = format!(
        "{} | {} | {}",
        error.message(),
        error.detail().unwrap_or_default(),
        error.hint().unwrap_or_default()
    );
    (error.code().code().to_owned(), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_every_kind_are_in_every_shard() {
    let hosts = Hosts::provisioned(2, SHARDS).await;
    let proxy = Proxy::start(&hosts);
    let client = proxy.client().await;
    let before = catalog(&hosts).await;
    run(&client, "CREATE TYPE mood AS ENUM ('sad', 'ok')").await;
    run(&client, "CREATE TABLE albums (id bigserial PRIMARY KEY, user_id bigint NOT NULL REFERENCES users (id), title text, m mood DEFAULT 'ok')").await;
    // The next statement knows it.
    run(
        &client,
        "INSERT INTO albums (user_id, title) SELECT 1, 'x' FROM users WHERE id = 1",
    )
    .await;
    run(
        &client,
        "ALTER TABLE public.albums ADD COLUMN n int NOT NULL DEFAULT 7",
    )
    .await;
    run(
        &client,
        "CREATE UNIQUE INDEX IF NOT EXISTS albums_title ON albums (user_id, title)",
    )
    .await;
    run(
        &client,
        "CREATE INDEX CONCURRENTLY albums_n ON public.albums (n)",
    )
    .await;
    run(
        &client,
        "CREATE VIEW happy AS SELECT * FROM public.albums WHERE m = 'ok'",
    )
    .await;
    run(&client, "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.n := (SELECT count(*) FROM albums); RETURN NEW; END $$").await;
    run(
        &client,
        "CREATE TRIGGER touched BEFORE INSERT ON albums FOR EACH ROW EXECUTE FUNCTION touch()",
    )
    .await;
    run(&client, "CREATE SEQUENCE counter START 5").await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW titles AS SELECT user_id, title FROM albums",
    )
    .await;
    run(&client, "REFRESH MATERIALIZED VIEW titles").await;
    run(&client, "COMMENT ON COLUMN albums.title IS 'it''s a title'").await;
    run(&client, "GRANT SELECT ON albums TO PUBLIC").await;
    run(&client, "ALTER TYPE mood ADD VALUE 'happy'").await;
    run(&client, "VACUUM albums").await;
    run(&client, "ANALYZE albums").await;
    run(&client, "REINDEX TABLE albums").await;
    run(&client, "REINDEX INDEX CONCURRENTLY albums_n").await;
    let there = catalog(&hosts).await;
    for line in [
        "column albums.id bigint true S.next_id()",
        "column albums.n integer true 7",
        "albums_title ON S.albums USING btree (user_id, title)true",
        "albums_n ON S.albums USING btree (n)true",
        "view happy",
        "SET search_path TO 'S', 'public'",
        "BEFORE INSERT ON S.albums FOR EACH ROW EXECUTE FUNCTION S.touch()",
        "column counter.last_value",
        "comment albums it's a title",
        "acl albums",
        "FOREIGN KEY (user_id) REFERENCES S.users(id)",
    ] {
        assert!(there.contains(line), "{line} is missing in\n{there}");
    }
    assert!(!there.contains("albums_id_seq"), "{there}");
    // It works, and rows find their shard.
    run(&client, "INSERT INTO users (id, name) VALUES (3, 'three')").await;
    let row = client
        .query_one(
            "INSERT INTO albums (user_id, title) VALUES (3, 'a') RETURNING id",
            &[],
        )
        .await
        .unwrap();
    let id: i64 = row.get(0);
    assert_eq!((id >> 10) & 0x1fff, 3, "the id carries its shard");
    assert_eq!(
        client
            .query("SELECT * FROM happy WHERE user_id = 3", &[])
            .await
            .unwrap()
            .len(),
        1
    );
    run(&client, "TRUNCATE albums").await;
    assert_eq!(
        client
            .query("SELECT * FROM albums WHERE user_id = 3", &[])
            .await
            .unwrap()
            .len(),
        0
    );
    for sql in [
        "DROP SEQUENCE counter",
        "DROP MATERIALIZED VIEW titles",
        "DROP VIEW public.happy",
        "DROP INDEX CONCURRENTLY albums_n",
        "DROP INDEX albums_title",
        "DROP TRIGGER touched ON albums",
        "DROP FUNCTION touch()",
        "ALTER TABLE albums RENAME COLUMN title TO name",
        "ALTER TABLE albums RENAME TO collections",
        "DROP TABLE collections",
        "DROP TYPE mood",
        "DROP TABLE IF EXISTS nothing",
    ] {
        run(&client, sql).await;
    }
    assert_eq!(catalog(&hosts).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_provisioned() {
    let by_wire = Hosts::provisioned(2, 4).await;
    let by_file = Hosts::bare(2, 4);
    let more = "CREATE TYPE mood AS ENUM ('sad');
        CREATE TABLE comments (id bigint PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, user_id bigint NOT NULL, m mood, body text CHECK (body <> ''));
        CREATE INDEX ON comments (user_id, id DESC);
        CREATE FUNCTION of_user(u bigint) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM comments WHERE user_id = u';
        CREATE VIEW recent AS SELECT * FROM comments ORDER BY id DESC;
        COMMENT ON TABLE comments IS 'said';
        GRANT SELECT ON comments TO PUBLIC;";
    let listed = |hosts: &Hosts| {
        hosts
            .map_text(1, "")
            .replace("[tables]\n", "[tables]\ncomments = { ids = [\"id\"] }\n")
    };
    by_file.write_map(&listed(&by_file));
    by_wire.write_map(&listed(&by_wire));
    let file = format!("{}\n{more}", presplit::ops::demo::SCHEMA);
    let report = presplit::ops::provision::run(&by_file.map(), &file, Default::default())
        .await
        .unwrap();
    assert!(report.is_complete(), "{report}");
    let proxy = Proxy::start(&by_wire);
    // All in one message: one transaction.
    run(&proxy.client().await, more).await;
    assert_eq!(catalog(&by_wire).await, catalog(&by_file).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_fails_leaves_nothing_anywhere() {
    let hosts = Hosts::provisioned(2, SHARDS).await;
    let proxy = Proxy::start(&hosts);
    let client = proxy.client().await;
    // Shard 13, on host b, has already what is to be made.
    let direct = hosts.client(1).await;
    run(&direct, "CREATE TABLE shard_0013.stray (x int); INSERT INTO shard_0013.photos (id, user_id) VALUES (1, 13)").await;
    let (code, said) = refused(&client, "CREATE TABLE stray (id bigint, user_id bigint)").await;
    assert_eq!(code, "42P07");
    assert!(
        said.contains("In shard 13 (schema shard_0013) on host b. Nothing was changed anywhere."),
        "{said}"
    );
    run(&direct, "DROP TABLE shard_0013.stray").await;
    let before = catalog(&hosts).await;
    let (code, said) = refused(&client, "ALTER TABLE photos ADD COLUMN a int; ALTER TABLE photos ADD COLUMN b int CHECK (user_id <> 13)").await;
    assert_eq!(code, "23514", "{said}");
    assert!(said.contains("shard 13"), "{said}");
    assert_eq!(catalog(&hosts).await, before);
    let (code, said) = refused(
        &client,
        "ALTER TABLE photos ADD COLUMN b int, ADD x nonsense",
    )
    .await;
    assert_eq!(code, "42704", "{said}");
    // What can't be in a transaction says where it is done, and how to go on.
    let (code, said) = refused(
        &client,
        "CREATE UNIQUE INDEX CONCURRENTLY once ON photos ((user_id / user_id / (user_id - 13)))",
    )
    .await;
    assert_eq!(code, "22012", "{said}");
    assert!(
        said.contains("In shard 13 (schema shard_0013) on host b. Done in"),
        "{said}"
    );
    assert!(
        said.contains("(shards 0-12") || said.contains("(shards 0"),
        "{said}"
    );
    assert!(
        said.contains("/* presplit: shard=13 */ DROP INDEX IF EXISTS \"once\""),
        "{said}"
    );
    run(
        &client,
        "/* presplit: shard=13 */ DROP INDEX IF EXISTS \"once\"",
    )
    .await;
    run(&direct, "DELETE FROM shard_0013.photos").await;
    run(&client, "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS once ON photos ((user_id / user_id / (user_id - 13)))").await;
    run(&client, "DROP INDEX once").await;
    assert_eq!(catalog(&hosts).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_new_table_becomes() {
    let hosts = Hosts::provisioned(2, 4).await;
    let proxy = Proxy::start(&hosts);
    let client = proxy.client().await;
    let (code, said) = refused(&client, "CREATE TABLE sessions (k text PRIMARY KEY)").await;
    assert_eq!(code, "SR003");
    assert!(
        said.contains("[tables] sessions = { host = \"a\" }")
            && said.contains("\"*\" = { host = \"a\" }"),
        "{said}"
    );
    let mut proxy = proxy;
    let mark = proxy.log_mark();
    hosts.write_map(&hosts.map_text(1, "").replace(
        "[tables]\n",
        "[tables]\n\"*\" = { host = \"a\" }\nplans = { kind = \"reference\" }\n",
    ));
    proxy.reload();
    proxy.wait_log(mark, &["tables"]);
    let mut raw = Raw::connect(proxy.addr());
    let answer = raw.query("CREATE TABLE sessions (k text PRIMARY KEY, id serial)");
    assert!(
        answer[0].contains("has no column \"user_id\": it is made on host a"),
        "{answer:?}"
    );
    assert_eq!(answer[1..], ["C CREATE TABLE", "Z I"]);
    run(
        &client,
        "CREATE INDEX ON sessions (id); COMMENT ON TABLE sessions IS 'x'",
    )
    .await;
    run(&client, "INSERT INTO sessions (k) VALUES ('a')").await;
    assert_eq!(
        client
            .query("SELECT id FROM sessions", &[])
            .await
            .unwrap()
            .len(),
        1
    );
    run(&client, "CREATE TABLE plans (code text PRIMARY KEY)").await;
    for host in 0..2 {
        let direct = hosts.client(host).await;
        let row = direct.query_one("SELECT to_regclass('public.plans') IS NOT NULL, to_regclass('public.sessions') IS NOT NULL", &[]).await.unwrap();
        assert_eq!(
            (row.get::<_, bool>(0), row.get::<_, bool>(1)),
            (true, host == 0)
        );
    }
    let cases = [
        (
            "ALTER TABLE photos ADD COLUMN s text REFERENCES sessions (k)",
            "SR002",
        ),
        (
            "ALTER TABLE sessions ADD COLUMN u bigint REFERENCES users (id)",
            "SR002",
        ),
        ("ALTER TABLE photos DROP COLUMN user_id", "SR005"),
        ("ALTER TABLE photos RENAME COLUMN user_id TO owner", "SR005"),
        ("ALTER TABLE photos ALTER COLUMN user_id TYPE text", "SR005"),
        ("CREATE TABLE copied AS SELECT * FROM photos", "SR004"),
        ("DROP TABLE photos, sessions", "SR002"),
        ("ALTER TABLE photos RENAME TO sessions", "SR003"),
        ("CREATE TABLE shard_0001.x (user_id int)", "SR003"),
        ("LOCK TABLE photos", "25P01"),
        (
            "BEGIN; CREATE INDEX CONCURRENTLY ON photos (id); COMMIT",
            "25001",
        ),
        ("ALTER TABLE nothing ADD x int", "42P01"),
        ("VACUUM", "SR001"),
    ];
    for (sql, code) in cases {
        assert_eq!(refused(&client, sql).await.0, code, "{sql}");
        run(&client, "ROLLBACK").await;
    }
    for sql in [
        "ALTER TABLE photos ADD COLUMN plan text REFERENCES plans (code)",
        "ALTER TABLE sessions ADD COLUMN plan text REFERENCES plans (code)",
        "ALTER TABLE photos ALTER COLUMN user_id TYPE int",
        "DROP TABLE sessions",
        "ALTER TABLE photos DROP COLUMN plan; DROP TABLE plans",
    ] {
        run(&client, sql).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_of_other_clients_survive() {
    let hosts = Hosts::provisioned(2, 4).await;
    let proxy = Proxy::start(&hosts);
    let ddl = proxy.client().await;
    let client = proxy.client().await;
    run(&ddl, "INSERT INTO users (id, name) VALUES (1, 'one')").await;
    run(&ddl, "INSERT INTO users (id, name) VALUES (2, 'two')").await;
    let named = client
        .prepare("SELECT id, name FROM users WHERE id = $1")
        .await
        .unwrap();
    let mut raw = Raw::connect(proxy.addr());
    let ask = |raw: &mut Raw| {
        raw.ask(
            &[pbe("SELECT * FROM users WHERE id = $1", &["1"]), s()].concat(),
            1,
        )
    };
    assert_eq!(ask(&mut raw).len(), 5);
    for column in ["a", "b", "c"] {
        run(
            &ddl,
            &format!("ALTER TABLE users ADD COLUMN {column} int DEFAULT 7"),
        )
        .await;
        for id in [1i64, 2] {
            assert_eq!(client.query(&named, &[&id]).await.unwrap().len(), 1);
        }
        let answer = ask(&mut raw);
        assert!(answer.len() == 5 && answer[2].ends_with("|7"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_the_extended_protocol() {
    let hosts = Hosts::provisioned(2, 4).await;
    let proxy = Proxy::start(&hosts);
    let mut raw = Raw::connect(proxy.addr());
    let answer = raw.ask(
        &[pbe("CREATE TABLE notes (user_id bigint, t text)", &[]), s()].concat(),
        1,
    );
    assert_eq!(answer, ["1", "2", "C CREATE TABLE", "Z I"]);
    // As pgx sends it.
    let answer = raw.ask(
        &[
            p("x", "ALTER TABLE notes ADD COLUMN u text"),
            ds("x"),
            s(),
            b("", "x", &[]),
            e("", 0),
            s(),
        ]
        .concat(),
        2,
    );
    assert_eq!(answer, ["1", "t", "n", "Z I", "2", "C ALTER TABLE", "Z I"]);
    let answer = raw.ask(
        &[pbe("ALTER TABLE notes ADD COLUMN u text", &[]), s()].concat(),
        1,
    );
    assert!(
        answer[2].contains("C42701") && answer[2].contains("Nothing was changed"),
        "{answer:?}"
    );
    assert_eq!(answer[3], "Z I");
    assert!(everywhere(&hosts, CATALOG).await.contains("notes.u text"));
    let client = proxy.client().await;
    client.execute("DROP TABLE notes", &[]).await.unwrap();
    assert!(!everywhere(&hosts, CATALOG).await.contains("notes"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_in_a_block() {
    for hosts in 1..=2 {
        migration_in_a_block(hosts).await;
    }
}

async fn migration_in_a_block(hosts: usize) {
    let hosts = Hosts::provisioned(hosts, 8).await;
    hosts.write_map(&hosts.map_text(1, "").replace(
        "[tables]\n",
        "[tables]\n\"*\" = { host = \"a\" }\napp_user = { key = \"id\" }\n",
    ));
    let proxy = Proxy::start(&hosts);
    let client = proxy.client().await;
    let before = catalog(&hosts).await;
    // As Django sends a migration.
    let migration = [
        "CREATE TABLE \"django_migrations\" (\"id\" bigint NOT NULL PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, \"app\" varchar(255) NOT NULL, \"name\" varchar(255) NOT NULL, \"applied\" timestamp with time zone NOT NULL)",
        "CREATE TABLE \"app_user\" (\"id\" bigint NOT NULL PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, \"name\" varchar(100) NOT NULL UNIQUE)",
        "CREATE TABLE \"app_photo\" (\"id\" bigint NOT NULL PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, \"caption\" text NOT NULL, \"user_id\" bigint NOT NULL)",
        "CREATE INDEX \"app_user_name_like\" ON \"app_user\" (\"name\" varchar_pattern_ops)",
        "ALTER TABLE \"app_photo\" ADD CONSTRAINT \"app_photo_user_id_fk\" FOREIGN KEY (\"user_id\") REFERENCES \"app_user\" (\"id\") DEFERRABLE INITIALLY DEFERRED",
        "CREATE INDEX \"app_photo_user_id\" ON \"app_photo\" (\"user_id\")",
        "INSERT INTO app_user (id, name) VALUES (5, 'five')",
        "INSERT INTO app_user (id, name) VALUES (2, 'two')",
        "INSERT INTO app_photo (caption, user_id) VALUES ('x', 5)",
        "INSERT INTO app_photo (caption, user_id) VALUES ('x', 2)",
        "SAVEPOINT s",
        "ALTER TABLE photos ADD COLUMN gone int",
        "SELECT gone FROM photos WHERE user_id = 5",
        "SELECT gone FROM photos WHERE user_id = 2",
        "SELECT count(gone) FROM photos",
        "ROLLBACK TO SAVEPOINT s",
        "INSERT INTO django_migrations (app, name, applied) VALUES ('app', '0001', now())",
    ];
    for end in ["ROLLBACK", "COMMIT"] {
        run(&client, "BEGIN").await;
        for sql in migration {
            run(&client, sql).await;
        }
        run(&client, end).await;
        if end == "ROLLBACK" {
            assert_eq!(catalog(&hosts).await, before);
            assert_eq!(
                refused(&client, "SELECT * FROM app_user WHERE id = 5")
                    .await
                    .0,
                "SR003"
            );
        }
    }
    assert!(!catalog(&hosts).await.contains("photos.gone"));
    assert_eq!(
        client
            .query("SELECT * FROM app_photo WHERE user_id = 5", &[])
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        client
            .query("SELECT * FROM django_migrations", &[])
            .await
            .unwrap()
            .len(),
        1
    );
    // After it the search_path is nobody's.
    let path = client.query_one("SHOW search_path", &[]).await.unwrap();
    assert_eq!(path.get::<_, &str>(0), "\"$user\", public");
    run(
        &client,
        "BEGIN; LOCK TABLE photos IN SHARE MODE; ALTER TABLE photos ADD COLUMN x int; COMMIT",
    )
    .await;
    assert!(catalog(&hosts).await.contains("photos.x integer"));
    let told = client
        .simple_query("EXPLAIN (ROUTE) DROP TABLE photos")
        .await
        .unwrap();
    assert!(format!("{told:?}").contains("all 8 shards on"), "{told:?}");
}
