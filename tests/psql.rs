//! A person in psql: its backslash commands and its tab completion show the template shard as if it were the database.

use std::path::Path;
use std::process::Command;

use crate::support::{Hosts, Proxy};

/// Backslash commands whose output through the proxy must be that of the template shard, letter by letter.
const COMMANDS: [&str; 24] = [
    r"\d",
    r"\dt",
    r"\di",
    r"\d photos",
    r"\d users",
    r"\d countries",
    r"\d photos_of_user",
    r"\d pho*",
    r"\d nothing",
    r"\d+ photos",
    r"\dt+",
    r"\dt *.photos",
    r"\dt shard_0000.*",
    r"\ds",
    r"\dv",
    r"\df",
    r"\sf next_id",
    r"\dn",
    r"\dT",
    r"\dp",
    r"\dx",
    r"\du",
    r"\l",
    r"\dd photos",
];

/// What psql 15 sends when Tab is pressed behind the words in front (as the server logged it).
const COMPLETIONS: [(&str, &str); 10] = [
    (
        "SELECT * FROM pho",
        r"SELECT c.relname, NULL::pg_catalog.text FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'S', 'v', 'm', 'f', 'p') AND (c.relname) LIKE 'pho%' AND pg_catalog.pg_table_is_visible(c.oid) AND c.relnamespace <> (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'pg_catalog')
UNION ALL
SELECT NULL::pg_catalog.text, n.nspname FROM pg_catalog.pg_namespace n WHERE n.nspname LIKE 'pho%' AND n.nspname NOT LIKE E'pg\\_%'
LIMIT 1000",
    ),
    (
        "SELECT * FROM ",
        r"SELECT c.relname, NULL::pg_catalog.text FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'S', 'v', 'm', 'f', 'p') AND (c.relname) LIKE '%' AND pg_catalog.pg_table_is_visible(c.oid) AND c.relnamespace <> (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'pg_catalog')
UNION ALL
SELECT NULL::pg_catalog.text, n.nspname FROM pg_catalog.pg_namespace n WHERE n.nspname LIKE '%' AND n.nspname NOT LIKE E'pg\\_%'
LIMIT 1000",
    ),
    (
        "SELECT * FROM photos WHERE cap",
        r"SELECT a.attname, NULL::pg_catalog.text FROM pg_catalog.pg_attribute a, pg_catalog.pg_class c WHERE c.oid = a.attrelid and a.attnum > 0 and not a.attisdropped AND (a.attname) LIKE 'cap%' AND c.relname = 'photos' AND pg_catalog.pg_table_is_visible(c.oid)
LIMIT 1000",
    ),
    (
        "UPDATE us",
        r"SELECT c.relname, NULL::pg_catalog.text FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'f', 'v', 'p') AND (c.relname) LIKE 'us%' AND pg_catalog.pg_table_is_visible(c.oid) AND c.relnamespace <> (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'pg_catalog')
UNION ALL
SELECT NULL::pg_catalog.text, n.nspname FROM pg_catalog.pg_namespace n WHERE n.nspname LIKE 'us%' AND n.nspname NOT LIKE E'pg\\_%'
LIMIT 1000",
    ),
    (
        "INSERT INTO photos (",
        r"SELECT a.attname, NULL::pg_catalog.text FROM pg_catalog.pg_attribute a, pg_catalog.pg_class c WHERE c.oid = a.attrelid and a.attnum > 0 and not a.attisdropped AND (a.attname) LIKE '%' AND c.relname = 'photos' AND pg_catalog.pg_table_is_visible(c.oid)
LIMIT 1000",
    ),
    (
        r"\d photos_",
        r"SELECT c.relname, NULL::pg_catalog.text FROM pg_catalog.pg_class c WHERE (c.relname) LIKE 'photos\_%' AND pg_catalog.pg_table_is_visible(c.oid) AND c.relnamespace <> (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'pg_catalog')
UNION ALL
SELECT NULL::pg_catalog.text, n.nspname FROM pg_catalog.pg_namespace n WHERE n.nspname LIKE 'photos\_%' AND n.nspname NOT LIKE E'pg\\_%'
LIMIT 1000",
    ),
    (
        "SELECT * FROM public.",
        r"SELECT c.relname, n.nspname FROM pg_catalog.pg_class c, pg_catalog.pg_namespace n WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'S', 'v', 'm', 'f', 'p') AND (c.relname) LIKE '%' AND n.nspname = 'public'
LIMIT 1000",
    ),
    (
        r"\df nex",
        r"SELECT p.proname, NULL::pg_catalog.text FROM pg_catalog.pg_proc p WHERE p.prokind != 'p' AND (p.proname) LIKE 'nex%' AND pg_catalog.pg_function_is_visible(p.oid)
UNION ALL
SELECT NULL::pg_catalog.text, n.nspname FROM pg_catalog.pg_namespace n WHERE n.nspname LIKE 'nex%' AND n.nspname NOT LIKE E'pg\\_%'
LIMIT 1000",
    ),
    (
        "SET search",
        r"SELECT pg_catalog.lower(name) FROM pg_catalog.pg_settings  WHERE context IN ('user', 'superuser')    AND pg_catalog.lower(name) LIKE pg_catalog.lower('search%')
LIMIT 1000",
    ),
    (
        r"\dn p",
        r"SELECT nspname FROM pg_catalog.pg_namespace  WHERE nspname LIKE 'p%'
LIMIT 1000",
    ),
];

/// psql, reading nobody's settings. Standard output and standard error, and whether it ended well.
fn psql(url: &str, search_path: Option<&str>, args: &[&str]) -> (String, bool) {
    let mut command = Command::new("psql");
    command
        .args(["-X", "-d", url])
        .args(args)
        .env_remove("PGOPTIONS")
        .env("PSQL_PAGER", "");
    if let Some(path) = search_path {
        command.env("PGOPTIONS", format!("-c search_path={path}"));
    }
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), output.status.success())
}

/// The lines of an answer in an order of their own: what a query without ORDER BY returns has none.
fn sorted(said: &str) -> Vec<&str> {
    let mut lines: Vec<_> = said.lines().collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn psql_shows_the_template_shard() {
    let hosts = Hosts::provisioned(2, 8).await;
    let direct = hosts.clusters[0].url();
    let mut proxy = Proxy::start(&hosts);
    proxy.wait_log(0, &["the tables are known"]);
    for command in COMMANDS {
        // `\d nothing` says that there is nothing, on both ways.
        let expected = psql(&direct, Some("shard_0000,public"), &["-c", command]);
        assert_eq!(
            psql(&proxy.url(), None, &["-c", command]),
            expected,
            "{command}"
        );
    }
    let (tables, _) = psql(&proxy.url(), None, &["-At", "-c", r"\dt"]);
    let tables: Vec<_> = tables
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .collect();
    assert_eq!(
        tables,
        ["countries", "follows", "likes", "photos", "users"],
        "each table once, however many shards there are"
    );
    assert!(proxy.stop().success());
}

#[tokio::test]
async fn tab_completion_finds_tables_and_columns() {
    let hosts = Hosts::provisioned(2, 8).await;
    let direct = hosts.clusters[0].url();
    let mut proxy = Proxy::start(&hosts);
    proxy.wait_log(0, &["the tables are known"]);
    for (typed, query) in COMPLETIONS {
        let (expected, good) = psql(&direct, Some("shard_0000,public"), &["-At", "-c", query]);
        assert!(good && !expected.is_empty(), "{typed}: {expected}");
        let (got, good) = psql(&proxy.url(), None, &["-At", "-c", query]);
        assert!(good, "{typed}: {got}");
        assert_eq!(sorted(&got), sorted(&expected), "{typed}");
    }
    assert!(proxy.stop().success());
}

/// A statement file as a person would feed it: settings of psql that ask the server more than what stands there.
#[tokio::test]
async fn psql_runs_a_script_in_one_session() {
    let hosts = Hosts::provisioned(2, 8).await;
    let mut proxy = Proxy::start(&hosts);
    proxy.wait_log(0, &["the tables are known"]);
    let script = hosts.dir().join("script.sql");
    let text = r"\set ON_ERROR_STOP on
INSERT INTO users (id, name) VALUES (42, 'Ada') RETURNING name;
BEGIN;
\set ON_ERROR_ROLLBACK on
INSERT INTO photos (user_id, caption) VALUES (42, 'x');
\set ON_ERROR_STOP off
INSERT INTO users (id, name) VALUES (42, 'twice');
COMMIT;
SELECT caption FROM photos WHERE user_id = 42 \gset
\echo caption is :caption
SELECT name, caption FROM users JOIN photos ON user_id = users.id WHERE users.id = 42 \gx
";
    std::fs::write(&script, text).unwrap();
    let (said, good) = psql(&proxy.url(), None, &["-q", "-At", "-f", path(&script)]);
    assert!(good, "{said}");
    assert!(
        said.contains("Ada\n") && said.contains("caption is x\n") && said.contains("name|Ada\n"),
        "{said}"
    );
    assert!(
        said.contains("duplicate key value violates unique constraint \"users_pkey\""),
        "{said}"
    );
    let row = hosts
        .client(0)
        .await
        .query_one(
            "SELECT count(*) FROM shard_0002.photos WHERE user_id = 42",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 1);
    assert!(proxy.stop().success());
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
