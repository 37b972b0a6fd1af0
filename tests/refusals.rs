//! Every refusal over the wire: its code, what its message names, what its hint says would help; that the session goes on,
//! and that inside a block the block is failed until ROLLBACK.

use std::collections::BTreeSet;

use tokio::sync::OnceCell;

use crate::support::raw::{self, b, bf, d, done, dp, e, p, pbe, pt, q, s};
use crate::support::{Hosts, Proxy, Raw};

/// A statement that is refused.
struct Case {
    /// The function of `route/words.rs` that it comes from; empty: one of the session's own.
    from: &'static str,
    sql: &'static str,
    code: &'static str,
    message: &'static str,
    hint: &'static str,
}

const fn case(
    from: &'static str,
    sql: &'static str,
    code: &'static str,
    message: &'static str,
    hint: &'static str,
) -> Case {
    Case {
        from,
        sql,
        code,
        message,
        hint,
    }
}

const GIVE: &str = "put /* presplit: key=VALUE */ or /* presplit: shard=N */ into the statement";

const CASES: &[Case] = &[
    case(
        "unreadable",
        "SELECT name AS U&\"!0061\" UESCAPE '!' FROM users WHERE id = 3",
        "SR006",
        "can't be read, and names users",
        "in a simpler form",
    ),
    case(
        "utility",
        "SELECT name INTO t FROM users WHERE id = 3",
        "SR001",
        "SELECT INTO does not say in which shard",
        GIVE,
    ),
    case(
        "utility",
        "CREATE ROLE bob",
        "SR001",
        "CREATE ROLE is of a whole host",
        "on each host itself",
    ),
    case(
        "utility",
        "ANALYZE",
        "SR001",
        "ANALYZE does not say of which tables",
        "Name them",
    ),
    case(
        "temporary",
        "CREATE OR REPLACE TEMP VIEW t AS SELECT 1",
        "0A000",
        "only tables",
        "WITH ... AS",
    ),
    case(
        "last_value",
        "SELECT lastval()",
        "0A000",
        "lastval() tells what this session",
        "RETURNING",
    ),
    case(
        "path_of_several",
        "SELECT name::mood FROM users",
        "SR004",
        "names need the shard's search_path",
        "Ask one shard at a time",
    ),
    case(
        "reads_unseen",
        "SELECT query_to_xml('SELECT * FROM users', true, false, '')",
        "SR006",
        "query_to_xml() reads tables",
        "it then reads that shard's",
    ),
    case(
        "unlisted",
        "SELECT * FROM stray",
        "SR003",
        "table stray is in public",
        "[tables] stray =",
    ),
    case(
        "no_key_column",
        "SELECT * FROM notes",
        "SR003",
        "sharded table notes has no key column",
        "[tables] notes = { key",
    ),
    case(
        "no_key_column",
        "INSERT INTO notes VALUES ('x')",
        "SR003",
        "sharded table notes has no key column",
        "[tables] notes = { key",
    ),
    case(
        "unknown",
        "SELECT * FROM nosuch WHERE user_id = 3",
        "SR003",
        "table nosuch is not known",
        "presplit provision",
    ),
    case(
        "unknown",
        "INSERT INTO nosuch VALUES (3)",
        "SR003",
        "table nosuch is not known",
        GIVE,
    ),
    case(
        "other_schema",
        "SELECT * FROM shop.photos WHERE user_id = 3",
        "SR003",
        "shop.photos: the schema",
        "Leave the schema out",
    ),
    case(
        "other_schema",
        "SELECT * FROM shard_0099.photos",
        "SR003",
        "shard_0099.photos: the schema",
        "Leave the schema out",
    ),
    case(
        "function_schema",
        "SELECT shop.f(name) FROM users WHERE id = 3",
        "SR003",
        "function shop.f",
        "Leave the schema out",
    ),
    case(
        "two_hosts",
        "SELECT * FROM invoices i JOIN ledger l ON l.id = i.id",
        "SR002",
        "is on host",
        "one after the other",
    ),
    case(
        "two_schemas",
        "SELECT * FROM shard_0001.users a, shard_0002.users b",
        "SR002",
        "schemas of two shards",
        "one statement for each shard",
    ),
    case(
        "reference_differs",
        "UPDATE countries SET name = now()::text",
        "SR002",
        "reference table countries must get the same rows on all hosts, but now()",
        "Work the value out",
    ),
    case(
        "reference_differs",
        "MERGE INTO countries c USING (SELECT 'at' AS code) n ON n.code = c.code WHEN MATCHED THEN DELETE",
        "SR002",
        "reference table countries",
        "INSERT, UPDATE or DELETE",
    ),
    case(
        "reference_differs",
        "EXPLAIN DELETE FROM countries",
        "SR002",
        "are of one host",
        "of its own",
    ),
    case(
        "sequence_alone",
        "SELECT nextval('photos_id_seq')",
        "SR001",
        "nextval('photos_id_seq') does not say of which shard",
        "table's default",
    ),
    case(
        "unknown_sequence",
        "SELECT nextval('pubseq') FROM users WHERE id = 3",
        "SR003",
        "sequence pubseq",
        "next_id()",
    ),
    case(
        "public_object",
        "SELECT 'public.photos'::regclass FROM users WHERE id = 3",
        "SR003",
        "'public.photos' is not in public",
        "Write 'photos'",
    ),
    case(
        "function_alone",
        "SELECT next_id()",
        "SR001",
        "the call of next_id()",
        GIVE,
    ),
    case(
        "unknown_function_alone",
        "SELECT pubfn()",
        "SR003",
        "what pubfn() reads",
        GIVE,
    ),
    case(
        "temporary",
        "CREATE TEMP VIEW t AS SELECT 1",
        "0A000",
        "only tables",
        "WITH",
    ),
    case(
        "temporary",
        "CREATE TEMPORARY SEQUENCE t",
        "0A000",
        "only tables",
        "CREATE TEMP TABLE",
    ),
    case("utility", "VACUUM", "SR001", "VACUUM does not", GIVE),
    case("utility", "CREATE SCHEMA s", "SR001", "CREATE SCHEMA", GIVE),
    case(
        "utility",
        "DO $$ BEGIN END $$",
        "SR001",
        "DO does not say",
        GIVE,
    ),
    case(
        "copy_without_key",
        "COPY photos (caption) FROM STDIN",
        "SR001",
        "the COPY gives no value for photos.user_id",
        "Give user_id in the column list",
    ),
    case(
        "server_file",
        "COPY photos FROM '/tmp/photos'",
        "0A000",
        "COPY with a file on the database host",
        "\\copy",
    ),
    case(
        "unreadable",
        "COPY photos FROM STDIN (FORMAT xml)",
        "SR006",
        "names photos",
        GIVE,
    ),
    case(
        "insert_without_key",
        "INSERT INTO photos (caption) VALUES ('x')",
        "SR001",
        "no value for photos.user_id",
        "Give user_id",
    ),
    case(
        "insert_without_key",
        "INSERT INTO users DEFAULT VALUES",
        "SR001",
        "no value for users.id",
        "Give id",
    ),
    case(
        "insert_with_expression",
        "INSERT INTO users (id, name) VALUES (1 + 1, 'x')",
        "SR001",
        "users.id is not known before it runs",
        "as a literal or parameter",
    ),
    case(
        "insert_with_expression",
        "INSERT INTO users (id, name) SELECT id + 1, name FROM users WHERE id = 3",
        "SR001",
        "users.id is not known",
        "literal or parameter",
    ),
    case(
        "id_of_unknown_shard",
        "INSERT INTO photos (id, user_id) VALUES (1 + 2, 3)",
        "SR002",
        "photos.id carries the shard",
        "Leave id out",
    ),
    case(
        "changes_key",
        "UPDATE users SET id = id + 8 WHERE id = 3",
        "SR005",
        "sets users.id",
        "Delete the row",
    ),
    case(
        "moves_row",
        "UPDATE users SET id = 4 WHERE id = 3",
        "SR005",
        "users.id to a value of another shard",
        "Delete the row",
    ),
    case(
        "foreign_value",
        "INSERT INTO photos (id, user_id) VALUES (1024, 3)",
        "SR002",
        "photos.id is of shard 1, its row would be in shard 3",
        "Leave id out",
    ),
    case(
        "unbound",
        "UPDATE photos SET caption = ''",
        "SR001",
        "photos.user_id equals",
        "Add photos.user_id = ",
    ),
    case(
        "unbound",
        "DELETE FROM photos p WHERE caption = 'x'",
        "SR001",
        "p.user_id equals",
        "Add p.user_id = ",
    ),
    case(
        "unbound",
        "SELECT * FROM photos p JOIN users u ON u.name = p.caption WHERE u.id = 3",
        "SR001",
        "p.user_id equals",
        "Add p.user_id = ",
    ),
    case(
        "not_mergeable",
        "SELECT random() FROM photos WHERE user_id IN (1, 2)",
        "SR004",
        "keys are of more than one shard",
        "one key at a time",
    ),
    case(
        "hint_all",
        "SELECT random() FROM photos /* presplit: all */",
        "SR004",
        "the hint asks all shards, but",
        "a key or a shard in the hint",
    ),
    case(
        "not_merged",
        "SELECT string_agg(caption, ',') FROM photos",
        "SR004",
        "string_agg() with an order or several arguments",
        "Put the key (one only)",
    ),
    case(
        "not_merged",
        "SELECT * FROM photos ORDER BY 1",
        "SR004",
        "ORDER BY a number behind *",
        "Put the key (one only)",
    ),
    case(
        "not_merged",
        "SELECT * FROM photos LIMIT 1 + 1",
        "SR004",
        "LIMIT and OFFSET",
        "Put the key (one only)",
    ),
    case(
        "not_merged",
        "SELECT DISTINCT ON (caption) caption FROM photos",
        "SR004",
        "DISTINCT ON can be merged only",
        "Put the key (one only)",
    ),
    case(
        "not_merged",
        "SELECT caption FROM photos GROUP BY CUBE (caption)",
        "SR004",
        "GROUPING SETS, CUBE",
        "Put the key (one only)",
    ),
    case(
        "unbound",
        "SELECT row_number() OVER () FROM photos",
        "SR004",
        "window function",
        "Add photos.user_id",
    ),
    case(
        "unbound",
        "SELECT id FROM users UNION SELECT user_id FROM photos ORDER BY 1",
        "SR004",
        "ORDER BY or LIMIT of UNION",
        "= ...",
    ),
    case(
        "unbound",
        "SELECT random() FROM photos",
        "SR004",
        "random() gives each shard another answer",
        "Add photos.user_id",
    ),
    case(
        "unbound",
        "SELECT pubfn() FROM photos",
        "SR001",
        "photos.user_id equals",
        "Add photos.user_id",
    ),
    case(
        "unbound",
        "SELECT * FROM photos TABLESAMPLE SYSTEM (10)",
        "SR004",
        "TABLESAMPLE",
        "Add photos.user_id",
    ),
    case(
        "unbound",
        "SELECT * FROM photos p, users u",
        "SR004",
        "not joined on their keys",
        "= ...",
    ),
    case(
        "unbound",
        "SELECT * FROM countries c LEFT JOIN users u ON u.country = c.code",
        "SR004",
        "outer join keeps rows",
        "Add u.id",
    ),
    case(
        "unbound",
        "SELECT * FROM invoices i, users u WHERE u.id = i.user_id",
        "SR004",
        "invoices is on one host only",
        "Add u.id",
    ),
    case(
        "unbound",
        "SELECT * FROM (SELECT * FROM photos LIMIT 1) x",
        "SR004",
        "LIMIT of a query in FROM",
        "Add photos.user_id",
    ),
    case(
        "unbound",
        "SELECT name FROM countries WHERE EXISTS (SELECT 1 FROM users u)",
        "SR004",
        "outside a subquery",
        "Add u.id",
    ),
    case(
        "unbound",
        "SELECT * FROM users u, pg_class c",
        "SR004",
        "catalog tables differ",
        "Add u.id",
    ),
    case(
        "unbound",
        "EXPLAIN SELECT * FROM photos",
        "SR004",
        "EXPLAIN is of one shard",
        "Add photos.user_id",
    ),
    case(
        "unbound",
        "COPY (SELECT * FROM photos ORDER BY id) TO STDOUT",
        "SR004",
        "DISTINCT, GROUP BY, ORDER BY or LIMIT",
        "Add photos.user_id",
    ),
    case(
        "unbound",
        "DECLARE c CURSOR FOR SELECT * FROM photos",
        "SR004",
        "a cursor is of one shard",
        "Add photos.user_id",
    ),
    case(
        "not_merged",
        "SELECT string_agg(caption, ',') FROM photos WHERE user_id IN (1, 2)",
        "SR004",
        "several shards would have to be asked",
        "Put the key (one only)",
    ),
    case(
        "not_mergeable",
        "EXPLAIN DELETE FROM photos WHERE user_id IN (1, 2)",
        "SR002",
        "writes to more than one shard",
        "one statement for each key",
    ),
    case(
        "not_mergeable",
        "UPDATE photos SET caption = 'x' FROM likes l WHERE photos.user_id IN (1, 2) AND l.user_id IN (1, 2)",
        "SR002",
        "photos and likes are not joined on their keys",
        "one statement for each key",
    ),
    case(
        "order_of_rows",
        "INSERT INTO users (id, name) VALUES (1, ''), (2, ''), (1, '') ON CONFLICT (id) DO UPDATE SET name = 'x' WHERE false RETURNING id",
        "SR002",
        "rows of several shards take turns",
        "Sort the rows by key",
    ),
    case(
        "reference_written_among",
        "INSERT INTO countries SELECT country, name FROM users WHERE id = 1",
        "SR002",
        "reference table countries beside tables of another kind",
        "in a statement of their own",
    ),
    case(
        "different_shards",
        "SELECT * FROM photos p, users u WHERE p.user_id = 3 AND u.id = 4",
        "SR002",
        "bound to shard 3, users.id to shard 4",
        "one key for all tables",
    ),
    case(
        "hint_disagrees",
        "SELECT * FROM photos WHERE user_id = 3 /* presplit: key=4 */",
        "SR002",
        "the hint says shard 4, but photos.user_id is of shard 3",
        "Take the hint away",
    ),
    case(
        "beside",
        "SELECT * FROM invoices i, users u WHERE u.id = 3 AND i.user_id = u.id",
        "SR002",
        "table invoices is on host b, shard 3 on host a",
        "join in the application",
    ),
    case(
        "not_merged",
        "SELECT string_agg(caption, ',') FROM photos /* presplit: all */",
        "SR004",
        "several shards would have to be asked",
        "Put the key (one only)",
    ),
    case(
        "hint_all",
        "SELECT 1 /* presplit: all */",
        "SR004",
        "names no sharded table",
        "a key or a shard in the hint",
    ),
    case(
        "hint_shard",
        "SELECT * FROM photos /* presplit: shard=8 */",
        "SR007",
        "the hint says shard 8, but there are only 8 (0 to 7)",
        "Mend the hint",
    ),
    case(
        "hint_key",
        "SELECT * FROM photos /* presplit: key=abc */",
        "SR007",
        "key \"abc\" has no shard",
        "Mend the hint",
    ),
    case(
        "bad_value",
        "UPDATE users SET id = NULL WHERE id = 3",
        "SR007",
        "users.id is NULL",
        "Give a value",
    ),
    case(
        "bad_value",
        "SELECT * FROM photos WHERE user_id = 1.5",
        "SR007",
        "photos.user_id can't be used: 1.5",
        "without a fraction",
    ),
    case(
        "bad_value",
        "SELECT * FROM photos WHERE user_id = 'abc'",
        "SR007",
        "photos.user_id can't be used",
        "the column's own type",
    ),
    case(
        "bad_value",
        "INSERT INTO users (id, name) VALUES (NULL, 'x')",
        "SR007",
        "users.id is NULL",
        "Give a value",
    ),
    // The session's own.
    case(
        "",
        "PREPARE TRANSACTION 'x'",
        "0A000",
        "two-phase commit",
        "one transaction per user",
    ),
    case(
        "",
        "COMMIT PREPARED 'x'",
        "0A000",
        "two-phase commit",
        "one transaction per user",
    ),
    case(
        "",
        "ROLLBACK PREPARED 'x'",
        "0A000",
        "two-phase commit",
        "one transaction per user",
    ),
    case(
        "",
        "SET TRANSACTION SNAPSHOT 'x'",
        "0A000",
        "belongs to one host",
        "directly to the host",
    ),
    case(
        "",
        "RELOAD",
        "0A000",
        "not for an app's connection",
        "database \"presplit\"",
    ),
    case(
        "",
        "SET standard_conforming_strings = off",
        "0A000",
        "standard_conforming_strings must stay on",
        "E'...'",
    ),
    case(
        "",
        "SET client_encoding TO 'SJIS'",
        "0A000",
        "client_encoding \"SJIS\"",
        "Use UTF8",
    ),
    case(
        "",
        "SET NAMES 'BIG5'",
        "0A000",
        "client_encoding \"BIG5\"",
        "Use UTF8",
    ),
    case(
        "",
        "SET SESSION AUTHORIZATION app",
        "0A000",
        "SESSION AUTHORIZATION",
        "server_user",
    ),
    case(
        "",
        "SELECT set_config(name, 'x', false) FROM users WHERE id = 3",
        "0A000",
        "set_config in this form",
        "with literals or text parameters",
    ),
    case(
        "",
        "SELECT set_config('transaction_isolation', 'serializable', false)",
        "0A000",
        "set_config('transaction_isolation', ...)",
        "SET TRANSACTION",
    ),
    case(
        "",
        "SELECT set_config('a.b', current_user, false)",
        "0A000",
        "set_config in this form",
        "with literals or text parameters",
    ),
    case(
        "",
        "SELECT set_config('a.b', 'x', false) WHERE false",
        "0A000",
        "set_config in this form",
        "alone in its statement",
    ),
    case(
        "",
        "SELECT set_config('standard_conforming_strings', 'off', false)",
        "0A000",
        "must stay on",
        "E'...'",
    ),
    case(
        "",
        "SET presplit.shard = 8",
        "22023",
        "no shard \"8\"",
        "from 0 to 7",
    ),
    case(
        "",
        "SET presplit.nosuch = 8",
        "42704",
        "presplit.nosuch",
        "presplit.key and presplit.shard",
    ),
    case(
        "",
        "SHOW presplit.nosuch",
        "42704",
        "presplit.nosuch",
        "presplit.key and presplit.shard",
    ),
    case(
        "",
        "SELECT 1 /* presplit: nosuch=3 */",
        "42601",
        "",
        "/* presplit: key=42 */",
    ),
    case(
        "",
        "SELECT 1 /* presplit: key= */",
        "42601",
        "",
        "/* presplit: key=42 */",
    ),
];

/// Refusals that no statement can bring about while the map is valid.
const NEVER: &[(&str, &str)] = &[
    (
        "copy",
        "a COPY of all shards is never refused for want of a key",
    ),
    (
        "copied_null",
        "it is about a row of the data: see tests/copy.rs",
    ),
    (
        "row_of_another_shard",
        "it is about a row of the data: see tests/copy.rs",
    ),
    (
        "unknown_host",
        "a map whose [tables] names an unknown host is not loaded",
    ),
    (
        "session_command",
        "Postgres says first what is wrong with a form that the session cannot read",
    ),
    ("path_of_several", "PLACEHOLDER"),
    ("hidden", "it needs a temporary table: see tests/pins.rs"),
];

async fn hosts() -> &'static Hosts {
    static HOSTS: OnceCell<Hosts> = OnceCell::const_new();
    HOSTS
        .get_or_init(|| async {
            let hosts = Hosts::provisioned(2, 8).await;
            for i in 0..2 {
                let client = hosts.client(i).await;
                let sql = "CREATE TABLE stray (id int); CREATE SEQUENCE pubseq;
                    CREATE FUNCTION pubfn() RETURNS int LANGUAGE sql AS 'SELECT 1'";
                client.batch_execute(sql).await.unwrap();
                for shard in (0..8).filter(|s| hosts.owner(*s) == i) {
                    client
                        .batch_execute(&format!("CREATE TABLE shard_{shard:04}.notes (a text)"))
                        .await
                        .unwrap();
                }
                if i == 0 {
                    client
                        .batch_execute("CREATE TABLE ledger (id int)")
                        .await
                        .unwrap();
                }
            }
            hosts.write_map(&map(&hosts, ""));
            hosts
        })
        .await
}

fn map(hosts: &Hosts, proxy: &str) -> String {
    hosts
        .map_text(1, proxy)
        .replace("\ninvoices =", "\nledger = { host = \"a\" }\ninvoices =")
}

/// A proxy with other settings.
async fn proxy_with(settings: &str) -> (tempfile::TempDir, Proxy) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shardmap.toml");
    std::fs::write(&file, map(hosts().await, settings)).unwrap();
    let proxy = Proxy::serve(&file, &[]);
    (dir, proxy)
}

/// Code, message and hint of the error among these replies.
fn error(lines: &[String]) -> (String, String, String) {
    let line = lines
        .iter()
        .find(|l| l.starts_with("E "))
        .unwrap_or_else(|| panic!("no error: {lines:?}"));
    let field = |tag: char| {
        line[2..]
            .split(" | ")
            .find_map(|f| f.strip_prefix(tag))
            .unwrap_or_default()
            .to_owned()
    };
    (field('C'), field('M'), field('H'))
}

impl Case {
    fn check(&self, lines: &[String], how: &str) {
        let (code, message, hint) = error(lines);
        let right = code == self.code && message.contains(self.message) && hint.contains(self.hint);
        assert!(
            right && !hint.is_empty(),
            "{how}: {}\n  is refused with {code}: {message} -- {hint}",
            self.sql
        );
        assert_eq!(
            lines.iter().filter(|l| l.starts_with("E ")).count(),
            1,
            "{how}: {lines:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_names_its_code_and_its_hint() {
    let proxy = Proxy::start(hosts().await);
    let mut raw = Raw::connect(proxy.addr());
    for case in CASES {
        let simple = raw.query(case.sql);
        case.check(&simple, "simple");
        assert_eq!(simple.last().unwrap(), "Z I", "{}", case.sql);
        let frames = [p("", case.sql), b("", "", &[]), dp(""), e("", 0), s()].concat();
        let extended = raw.ask(&frames, 1);
        case.check(&extended, "extended");
        assert_eq!(extended.last().unwrap(), "Z I", "{}", case.sql);
        assert_eq!(
            raw.query("SELECT 1")[1],
            "D 1",
            "the session goes on after {}",
            case.sql
        );
        raw.assert_silent();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_block_a_refusal_fails_the_block() {
    let proxy = Proxy::start(hosts().await);
    let mut raw = Raw::connect(proxy.addr());
    raw.query("INSERT INTO users (id, name) VALUES (7, 'kept')");
    for (n, case) in CASES.iter().enumerate() {
        // SET outside the block and what is not known of a statement before it is bound behave alike.
        assert_eq!(raw.query("BEGIN"), ["C BEGIN", "Z T"]);
        let written = raw.query("UPDATE users SET name = 'lost' WHERE id = 7");
        assert_eq!(written, ["C UPDATE 1", "Z T"]);
        let refused = match n % 2 {
            0 => raw.query(case.sql),
            _ => raw.ask(&[pbe(case.sql, &[]), pbe("SELECT 2", &[]), s()].concat(), 1),
        };
        case.check(&refused, "in a block");
        assert_eq!(refused.last().unwrap(), "Z E", "{}: {refused:?}", case.sql);
        let (code, ..) = error(&raw.query("SELECT 1"));
        assert_eq!(code, "25P02", "{}", case.sql);
        let (code, ..) = error(&raw.ask(&[pbe("SELECT 1", &[]), s()].concat(), 1));
        assert_eq!(code, "25P02", "{}", case.sql);
        // Refused again, it is first of all a statement in a failed block.
        let again = raw.query(case.sql);
        assert_eq!(again.last().unwrap(), "Z E", "{}: {again:?}", case.sql);
        assert_eq!(raw.query("COMMIT"), ["C ROLLBACK", "Z I"], "{}", case.sql);
        assert_eq!(
            raw.query("SELECT name FROM users WHERE id = 7")[1],
            "D kept",
            "{}",
            case.sql
        );
        raw.assert_silent();
    }
    // From a savepoint the block goes on: the servers have not seen what was refused.
    for sql in [
        "BEGIN",
        "UPDATE users SET name = 'more' WHERE id = 7",
        "SAVEPOINT a",
    ] {
        raw.query(sql);
    }
    assert_eq!(error(&raw.query("SELECT random() FROM photos")).0, "SR004");
    assert_eq!(raw.query("ROLLBACK TO a"), ["C ROLLBACK", "Z T"]);
    assert_eq!(
        raw.query("SELECT name FROM users WHERE id = 7")[1],
        "D more"
    );
    assert_eq!(raw.query("COMMIT"), ["C COMMIT", "Z I"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_in_a_pipeline_undoes_what_the_pipeline_has_done() {
    let proxy = Proxy::start(hosts().await);
    let mut raw = Raw::connect(proxy.addr());
    let write = "INSERT INTO likes (user_id, photo_id) VALUES (11, 1)";
    let count = "SELECT count(*) FROM likes WHERE user_id = 11";
    for sql in [
        "SELECT random() FROM photos",
        "SELECT * FROM nosuch",
        "INSERT INTO photos (user_id) VALUES (NULL)",
        "SET presplit.shard = 8",
        "UPDATE photos SET user_id = 1",
    ] {
        // Written on host a, read on b, refused, and more behind it.
        let frames = [
            pbe(write, &[]),
            pbe("SELECT count(*) FROM likes WHERE user_id = 5", &[]),
            pbe(sql, &[]),
            pbe(write, &[]),
            s(),
        ];
        let answer = raw.ask(&frames.concat(), 1);
        assert_eq!(
            answer[..7],
            ["1", "2", "C INSERT 0 1", "1", "2", "D 0", "C SELECT 1"],
            "{sql}: {answer:?}"
        );
        assert!(
            answer.iter().filter(|l| l.starts_with("E ")).count() == 1,
            "{answer:?}"
        );
        assert!(
            answer[answer.len() - 2].starts_with("E ") && answer[answer.len() - 1] == "Z I",
            "{answer:?}"
        );
        assert_eq!(raw.query(count)[1], "D 0", "{sql}");
        raw.assert_silent();
    }
    let other = "INSERT INTO likes (user_id, photo_id) VALUES (5, 1)";
    // The writer of a failed statement does not stick.
    assert_eq!(raw.query(other), ["C INSERT 0 1", "Z I"]);
    assert_eq!(raw.query(write), ["C INSERT 0 1", "Z I"]);
    raw.query("DELETE FROM likes WHERE user_id = 5");
    raw.query("DELETE FROM likes WHERE user_id = 11");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_statement_outlives_a_refused_bind() {
    let proxy = Proxy::start(hosts().await);
    let mut raw = Raw::connect(proxy.addr());
    let sql = "SELECT id FROM photos WHERE user_id = $1 AND caption <> 'x'";
    let unusable = b("", "s", &["x"]);
    let answer = raw.ask(&[p("s", sql), unusable, e("", 0), s()].concat(), 1);
    assert_eq!(answer[0], "1", "Parse was right: {answer:?}");
    assert_eq!(error(&answer).0, "SR007");
    // Like Postgres, we have it now.
    let answer = raw.ask(&[b("", "s", &["3"]), e("", 0), s()].concat(), 1);
    assert_eq!(answer, ["2", "C SELECT 0", "Z I"]);
    assert_eq!(error(&raw.ask(&[p("s", sql), s()].concat(), 1)).0, "42P05");
    // One that Postgres would not have parsed is not there, whatever comes behind it.
    let wrong = "SELECT nosuch FROM photos WHERE user_id = $1";
    let answer = raw.ask(
        &[p("w", wrong), b("", "w", &["3"]), e("", 0), s()].concat(),
        1,
    );
    assert_eq!(error(&answer).0, "42703");
    assert_eq!(raw.ask(&[p("w", sql), s()].concat(), 1), ["1", "Z I"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_that_can_not_be_a_key() {
    let proxy = Proxy::start(hosts().await);
    let mut raw = Raw::connect(proxy.addr());
    let sql = "SELECT id FROM photos WHERE user_id = $1";
    let bind = |types: &[u32], format: u16, params: &[Option<&[u8]>]| {
        [
            pt("", sql, types),
            bf("", "", format, params),
            e("", 0),
            s(),
        ]
        .concat()
    };
    let cases = [
        (
            bind(&[], 0, &[Some(b"x")]),
            "SR007",
            "can't be used",
            "the column's own type",
        ),
        (
            bind(&[], 0, &[Some(b"")]),
            "SR007",
            "can't be used",
            "the column's own type",
        ),
        (
            bind(&[20], 1, &[Some(b"abc")]),
            "SR007",
            "can't be used",
            "the column's own type",
        ),
        (
            bind(&[20], 0, &[Some(b"99999999999999999999")]),
            "SR007",
            "can't be used",
            "the column's own type",
        ),
        (
            bind(&[1700], 0, &[Some(b"1.5")]),
            "SR007",
            "can't be used",
            "without a fraction",
        ),
    ];
    for (frames, code, message, hint) in cases {
        let answer = raw.ask(&frames, 1);
        let (c, m, h) = error(&answer);
        assert!(
            c == code && m.contains(message) && h.contains(hint),
            "{answer:?}"
        );
        raw.assert_silent();
    }
    // Of which type the server will make it is not sure: in binary it can't be read.
    let unsure = "SELECT id FROM photos WHERE user_id = $1 AND $1 = 1.5";
    let frames = [
        p("", unsure),
        bf("", "", 1, &[Some(&3i64.to_be_bytes())]),
        e("", 0),
        s(),
    ]
    .concat();
    let (code, message, hint) = error(&raw.ask(&frames, 1));
    assert!(
        code == "SR007"
            && message.contains("type of $1 is not sure")
            && hint.contains("$1::bigint"),
        "{code} {message} {hint}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_protocol_allows_and_we_do_not() {
    let proxy = Proxy::start(hosts().await);
    let mut raw = Raw::connect(proxy.addr());
    let mut check = |frames: &[Vec<u8>], code: &str, message: &str, hint: &str| {
        let answer = raw.ask(&frames.concat(), 1);
        let (c, m, h) = error(&answer);
        assert!(
            c == code && m.contains(message) && h.contains(hint) && !h.is_empty(),
            "{answer:?}"
        );
        assert_eq!(raw.query("SELECT 1")[1], "D 1");
    };
    check(
        &[raw::frame(b'F', &[0, 0, 64, 1, 0, 0, 0, 0, 0, 0])],
        "0A000",
        "on another host this number is another function",
        "SELECT",
    );
    check(
        &[raw::frame(b'F', &[0, 0, 6, 38, 0, 0, 0, 0, 0, 0])],
        "0A000",
        "fast-path call of nextval",
        "SELECT",
    );
    let mut raw = Raw::connect(proxy.addr());
    // Two snapshots.
    raw.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    raw.query("SELECT id FROM photos WHERE user_id = 1");
    let (code, message, hint) = error(&raw.query("SELECT id FROM photos WHERE user_id = 5"));
    assert!(
        code == "SR002" && message.contains("two snapshots") && hint.contains("READ COMMITTED")
    );
    raw.query("ROLLBACK");
    raw.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(
        error(&raw.query("SELECT id FROM photos")).0,
        "SR002",
        "a read of all shards needs both hosts"
    );
    raw.query("ROLLBACK");
    raw.query("BEGIN");
    raw.query("SELECT id FROM photos WHERE user_id = 1");
    raw.query("SELECT id FROM photos WHERE user_id = 5");
    let (code, message, hint) = error(&raw.query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"));
    assert!(
        code == "0A000" && message.contains("several hosts already") && hint.contains("in BEGIN")
    );
    raw.query("ROLLBACK");
    // A message that has no place ends the session, as with Postgres.
    raw.send(&[raw::frame(b'?', b"")].concat());
    let end = raw.until(|_| false);
    assert!(
        end[0].contains("VFATAL | C08P01 | Minvalid frontend message type 63") && end[1] == "EOF",
        "{end:?}"
    );
    // So does CopyData's place being taken by something else.
    let mut raw = Raw::connect(proxy.addr());
    raw.send(
        &[
            q("COPY likes FROM STDIN /* presplit: key=1 */"),
            d("1\t1\n"),
            q("SELECT 1"),
            done(),
        ]
        .concat(),
    );
    let end = raw.until(|_| false);
    assert!(
        end.iter()
            .any(|l| l.contains("C08P01") && l.contains("during COPY from stdin"))
            && end.last().unwrap() == "EOF",
        "{end:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_limit_is_named() {
    let limits = "[proxy.limits]\nframe_held_bytes = 100000\nstatement_text_bytes = 50000\nstatements_per_session = 3\nportals_per_session = 2\nscatter_shards = 4\ngather_bytes = 65536\n";
    let (_dir, proxy) = proxy_with(limits).await;
    let mut raw = Raw::connect(proxy.addr());
    let limit = |lines: &[String], setting: &str| {
        let (code, message, hint) = error(lines);
        assert!(
            code == "54000" && message.contains("more than the limit") && hint.contains(setting),
            "{lines:?}"
        );
    };
    let long = |n: usize| format!("SELECT '{}'", "x".repeat(n));
    limit(&raw.query(&long(60_000)), "statement_text_bytes");
    limit(
        &raw.ask(&[p("", &long(60_000)), s()].concat(), 1),
        "statement_text_bytes",
    );
    // Longer than what is held: it is swallowed as it comes, the session goes on behind it.
    limit(&raw.query(&long(3_000_000)), "frame_held_bytes");
    assert_eq!(raw.query("SELECT 1")[1], "D 1");
    let answer = raw.ask(
        &[
            pbe("SELECT 2", &[]),
            p("", "SELECT $1::text"),
            b("", "", &[&"y".repeat(2_000_000)]),
            e("", 0),
            s(),
        ]
        .concat(),
        1,
    );
    assert_eq!(answer[..4], ["1", "2", "D 2", "C SELECT 1"]);
    limit(&answer, "frame_held_bytes");
    assert_eq!(answer.last().unwrap(), "Z I");
    raw.query("BEGIN");
    limit(&raw.query(&long(3_000_000)), "frame_held_bytes");
    assert_eq!(raw.query("COMMIT"), ["C ROLLBACK", "Z I"]);
    // Rows and CopyData of any length go through.
    let rows = raw.query("SELECT length(repeat('x', 5000000)), repeat('x', 5000000)");
    assert_eq!(rows[1].len(), "D 5000000|".len() + 5_000_000);
    let data = format!("13\t{}\n", "1".repeat(3_000_000));
    let answer = raw.ask(
        &[
            q("COPY likes (user_id, photo_id) FROM STDIN /* presplit: key=13 */"),
            d(&data),
            done(),
        ]
        .concat(),
        1,
    );
    assert_eq!(
        error(&answer).0,
        "22003",
        "Postgres' own: out of range for type bigint: {:.200?}",
        answer
    );
    // Rows of a portal over several shards that is read in parts; all at once they go through.
    raw.query("INSERT INTO likes (user_id, photo_id) VALUES (1, 901), (2, 901)");
    for order in ["", " ORDER BY user_id"] {
        let read = format!(
            "SELECT repeat('x', 40000) FROM likes WHERE user_id IN (1, 2) AND photo_id = 901{order}"
        );
        let ask = |rows| [p("", &read), b("", "", &[]), e("", rows), s()].concat();
        limit(&raw.ask(&ask(1), 1), "gather_bytes");
        assert!(raw.ask(&ask(0), 1).contains(&"C SELECT 2".to_owned()));
    }
    raw.query("DELETE FROM likes WHERE user_id IN (1, 2) AND photo_id = 901");
    // Named statements and portals.
    for name in ["a", "b", "c"] {
        assert_eq!(
            raw.ask(&[p(name, "SELECT 1"), s()].concat(), 1),
            ["1", "Z I"]
        );
    }
    limit(
        &raw.ask(&[p("d", "SELECT 1"), s()].concat(), 1),
        "statements_per_session",
    );
    assert_eq!(
        raw.ask(&[raw::cs("a"), p("d", "SELECT 1"), s()].concat(), 1),
        ["3", "1", "Z I"]
    );
    raw.query("BEGIN");
    let binds = [b("x", "b", &[]), b("y", "b", &[]), b("z", "b", &[]), s()].concat();
    limit(&raw.ask(&binds, 1), "portals_per_session");
    raw.query("ROLLBACK");
    limit(&raw.query("SELECT id FROM photos"), "scatter_shards");
    limit(
        &raw.ask(&[pbe("SELECT id FROM photos", &[]), s()].concat(), 1),
        "scatter_shards",
    );
    assert_eq!(
        raw.query("SELECT id FROM photos WHERE user_id IN (1, 5)")
            .last()
            .unwrap(),
        "Z I"
    );
    raw.assert_silent();
}

#[test]
fn every_refusal_has_a_case() {
    let words = include_str!("../src/route/words.rs");
    let all: BTreeSet<&str> = words
        .lines()
        .filter_map(|l| l.strip_prefix("pub(super) fn ")?.split('(').next())
        .collect();
    let mut tested: BTreeSet<&str> = CASES
        .iter()
        .map(|c| c.from)
        .filter(|f| !f.is_empty())
        .collect();
    tested.extend(NEVER.iter().map(|(name, _)| name));
    assert!(all.len() > 30, "{all:?}");
    assert_eq!(all, tested);
}
