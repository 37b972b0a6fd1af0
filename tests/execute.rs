//! Prepared statements by SQL, compared with one Postgres message by message; and where they can't be as there.

use crate::protocol::{Script, Step, compare, step, twins};
use crate::support::raw::{b, bf, dp, ds, e, h, p, pbe, pt, q, s};
use crate::support::{Proxy, Raw};

const BY_KEY: &str =
    "PREPARE by_key AS SELECT caption FROM photos WHERE user_id = $1 ORDER BY caption";

fn queries(name: &'static str, texts: &[&str]) -> Script {
    let steps: Vec<Step> = texts.iter().map(|text| step(&[q(text)], 1)).collect();
    (name, steps)
}

fn simple() -> Vec<Script> {
    vec![
        queries(
            "prepared, executed, deallocated",
            &[
                BY_KEY,
                "EXECUTE by_key(1)",
                "EXECUTE by_key(5)",
                "EXECUTE by_key('9')",
                "execute BY_KEY (1::bigint);",
                "EXECUTE \"by_key\"(CAST(5 AS int)) -- so",
                BY_KEY,
                "DEALLOCATE by_key",
                "EXECUTE by_key(1)",
                "DEALLOCATE by_key",
            ],
        ),
        queries(
            "types by name",
            &[
                "PREPARE a (bigint, text) AS SELECT user_id, caption, $2 FROM photos WHERE user_id = $1 AND caption > $2 ORDER BY 2",
                "EXECUTE a(1, 'u1p1')",
                "EXECUTE a(1, 'u1p' || '2')",
                "EXECUTE a(1, NULL)",
                "EXECUTE a(1, 7)",
                "PREPARE b (int, timestamp with time zone) AS SELECT $1, $2 > '2020-01-01', pg_typeof($1), pg_typeof($2)",
                "EXECUTE b(1, '2024-01-01')",
                "EXECUTE b('1', now())",
                "PREPARE c (varchar(2)) AS SELECT $1",
                "EXECUTE c('abcdef')",
                "PREPARE d (\"char\", int[]) AS SELECT $1, $2",
                "EXECUTE d('x', ARRAY[1, 2])",
                "EXECUTE d('x', '{3}')",
            ],
        ),
        queries(
            "what PREPARE refuses",
            &[
                "PREPARE a AS SELECT nothing FROM photos WHERE user_id = $1",
                "PREPARE a AS SELECT 'ä', nothing FROM photos p WHERE p.user_id = $1 AND x = 1",
                "PREPARE a_longer_name (int)  AS SELECT caption + 1 FROM photos WHERE user_id = $1",
                "PREPARE a (nothing) AS SELECT 1",
                "PREPARE a (int, nothing) AS SELECT $1",
                "PREPARE a AS SELECT $2",
                "PREPARE a AS SELECT 1 FROM photos WHERE AND",
                "PREPARE a AS CREATE TABLE t (i int)",
                "PREPARE a AS",
                "PREPARE",
                "PREPARE a () AS SELECT 1",
                "EXECUTE a",
                "EXECUTE",
                "EXECUTE a (",
                "EXECUTE a ()",
                "EXPLAIN EXECUTE a",
            ],
        ),
        queries(
            "what EXECUTE refuses",
            &[
                BY_KEY,
                "EXECUTE by_key",
                "EXECUTE by_key(1, 2)",
                "PREPARE n (int, date) AS SELECT $1, $2",
                "EXECUTE n(1, true)",
                "EXECUTE n('x', '2024-01-01')",
                "EXECUTE n(1, 'x')",
                "EXECUTE n(1, nothing)",
                "EXECUTE n(1, (SELECT '2024-01-01'::date))",
                "EXECUTE n(99999999999, '2024-01-01')",
                "EXECUTE n(1.4, '2024-01-01')",
                "EXECUTE n($1, '2024-01-01')",
            ],
        ),
        queries(
            "in blocks",
            &[
                "BEGIN",
                BY_KEY,
                "EXECUTE by_key(1)",
                "ROLLBACK",
                "EXECUTE by_key(1)",
                "BEGIN",
                "SELECT 1/0",
                "PREPARE b AS SELECT 1",
                "EXECUTE by_key(1)",
                "DEALLOCATE by_key",
                "ROLLBACK",
                "EXECUTE b",
                "BEGIN",
                "PREPARE b AS SELECT 1",
                "PREPARE b AS SELECT 1",
                "EXECUTE b",
                "COMMIT",
                "EXECUTE b",
                "BEGIN",
                "SAVEPOINT s",
                "PREPARE c AS SELECT nothing",
                "ROLLBACK TO s",
                "EXECUTE by_key(1)",
                "PREPARE d AS SELECT 2",
                "ROLLBACK TO s",
                "EXECUTE d",
                "COMMIT",
            ],
        ),
        queries(
            "writes",
            &[
                "PREPARE w AS INSERT INTO photos (user_id, caption) VALUES ($1, $2) RETURNING caption",
                "EXECUTE w(1, 'written')",
                "BEGIN",
                "EXECUTE w(1, 'written')",
                "ROLLBACK",
                "PREPARE u AS UPDATE photos SET caption = $2 WHERE user_id = $1 AND caption = 'written'",
                "EXECUTE u(1, 'again')",
                "PREPARE x AS DELETE FROM photos WHERE user_id = $1 AND caption = $2",
                "EXECUTE x(1, 'again')",
                "EXECUTE x(1, 'again')",
            ],
        ),
        queries(
            "over several hosts",
            &[
                "PREPARE many (bigint, bigint, text) AS SELECT user_id, caption FROM photos WHERE user_id IN ($1, $2) AND caption <> $3 ORDER BY caption",
                "EXECUTE many(1, 5, 'u1p1')",
                "EXECUTE many('5', -3::bigint, NULL)",
                "EXECUTE many(1, 5, 'u5p1')",
                "PREPARE counted AS SELECT user_id, count(*) FROM photos WHERE user_id = ANY($1) GROUP BY 1 ORDER BY 1",
                "EXECUTE counted('{1,5,9}')",
                "EXECUTE counted('{1}')",
                "PREPARE both AS INSERT INTO photos (user_id, caption) VALUES ($1, $3), ($2, $3) RETURNING user_id, caption",
                "EXECUTE both(1, 5, 'written')",
                "EXECUTE both(1, 9, 'written')",
                "BEGIN",
                "EXECUTE both(5, 1, 'written')",
                "COMMIT",
                "PREPARE change AS UPDATE photos SET caption = $3 WHERE user_id IN ($1, $2) AND caption = 'written'",
                "EXECUTE change(1, 5, 'w''2')",
                "PREPARE clean AS DELETE FROM photos WHERE user_id IN ($1, $2, 9) AND caption IN ('w''2', 'written')",
                "EXECUTE clean(5, 1)",
                "EXECUTE both(1, 5, NULL, 1)",
                "PREPARE bad AS SELECT caption FROM photos WHERE user_id IN ($1, $2) AND 1 / ($3 - 1) = 1",
                "EXECUTE bad(1, 5, 1)",
                "SELECT 1",
            ],
        ),
        queries(
            "in messages of several",
            &[
                "PREPARE a AS SELECT $1::int; EXECUTE a(1); EXECUTE a(2)",
                "EXECUTE a(3); SELECT 1/0; EXECUTE a(4)",
                "PREPARE w AS INSERT INTO photos (user_id, caption) VALUES ($1, 'written'); EXECUTE w(1); EXECUTE w(5)",
                "EXECUTE w(1); SELECT 1/0",
                "PREPARE c AS DELETE FROM photos WHERE user_id = $1 AND caption = 'written'; EXECUTE c(1); EXECUTE c(5); EXECUTE c(1)",
                "SELECT 1; PREPARE d AS SELECT nothing; SELECT 2",
                "SELECT 1; EXECUTE d; SELECT 2",
                "PREPARE e AS SELECT 5; SELECT 1/0",
                "EXECUTE e",
                "DEALLOCATE ALL; EXECUTE e",
                "DISCARD ALL",
                "EXECUTE a(1)",
            ],
        ),
        queries(
            "settings",
            &[
                "PREPARE d AS SELECT $1::date::text",
                "SET DateStyle TO 'German'",
                "EXECUTE d('2024-01-02')",
                "RESET DateStyle",
                "EXECUTE d('2024-01-02')",
                "PREPARE c AS SELECT set_config('application_name', $1, false)",
                "EXECUTE c('new name')",
                "SHOW application_name",
                "BEGIN",
                "EXECUTE c('other')",
                "ROLLBACK",
                "SHOW application_name",
            ],
        ),
        queries(
            "explained",
            &[
                "PREPARE a AS SELECT 1 AS x",
                "EXPLAIN (COSTS off) EXECUTE a",
                "EXPLAIN (COSTS off, FORMAT json) EXECUTE a",
                "EXPLAIN EXECUTE b",
            ],
        ),
    ]
}

fn extended() -> Vec<Script> {
    let run = |sql: &str| [p("", sql), b("", "", &[]), dp(""), e("", 0)].concat();
    vec![
        (
            "all by the extended protocol",
            vec![
                step(&[run(BY_KEY), s()], 1),
                step(&[run("EXECUTE by_key(1)"), s()], 1),
                step(&[p("x", "EXECUTE by_key(5)"), ds("x"), s()], 1),
                step(&[b("", "x", &[]), e("", 2), e("", 0), s()], 1),
                step(&[run("EXECUTE by_key(1, 2)"), s()], 1),
                step(&[run("EXECUTE nothing(1)"), s()], 1),
                step(&[p("", "EXECUTE nothing(1)"), ds(""), s()], 1),
                step(&[run("PREPARE by_key AS SELECT 1"), s()], 1),
                step(&[run("PREPARE z AS SELECT nothing"), s()], 1),
                step(&[run("DEALLOCATE by_key"), s()], 1),
                step(&[run("EXECUTE by_key(1)"), s()], 1),
            ],
        ),
        (
            "in one pipeline",
            vec![
                step(
                    &[
                        pbe("SELECT 1", &[]),
                        run(BY_KEY),
                        run("EXECUTE by_key(1)"),
                        run("EXECUTE by_key(5)"),
                        h(),
                        pbe("SELECT 2", &[]),
                        s(),
                    ],
                    1,
                ),
                step(
                    &[
                        run("EXECUTE by_key(1)"),
                        run("PREPARE a AS SELECT 1"),
                        pbe("SELECT 1/0", &[]),
                        run("PREPARE b AS SELECT 1"),
                        s(),
                        run("EXECUTE a"),
                        s(),
                        run("EXECUTE b"),
                        s(),
                    ],
                    3,
                ),
                step(
                    &[
                        run("BEGIN"),
                        run("PREPARE c AS SELECT 3"),
                        run("ROLLBACK"),
                        s(),
                    ],
                    1,
                ),
                step(&[run("EXECUTE c"), s()], 1),
            ],
        ),
        (
            "one name for both",
            vec![
                step(&[q(BY_KEY)], 1),
                step(
                    &[ds("by_key"), b("", "by_key", &["5"]), dp(""), e("", 0), s()],
                    1,
                ),
                step(
                    &[
                        bf("", "by_key", 1, &[Some(&[0, 0, 0, 0, 0, 0, 0, 1])]),
                        e("", 0),
                        s(),
                    ],
                    1,
                ),
                step(&[p("by_key", "SELECT 1"), s()], 1),
                step(
                    &[
                        p(
                            "named",
                            "SELECT caption FROM photos WHERE user_id = $1 AND caption = $2",
                        ),
                        s(),
                    ],
                    1,
                ),
                step(&[q("EXECUTE named(1, 'u1p2')")], 1),
                step(&[q("EXECUTE named(1)")], 1),
                step(&[pt("typed", "SELECT $1 + 1", &[21]), s()], 1),
                step(&[q("EXECUTE typed(7)")], 1),
                step(&[q("PREPARE typed AS SELECT 1")], 1),
                step(
                    &[q("DEALLOCATE named"), b("", "named", &["1", "x"]), s()],
                    2,
                ),
            ],
        ),
        (
            "over several hosts",
            vec![
                step(
                    &[q(
                        "PREPARE many AS SELECT user_id, caption FROM photos WHERE user_id IN ($1, $2) ORDER BY caption",
                    )],
                    1,
                ),
                step(&[run("EXECUTE many(1, 5)"), s()], 1),
                step(&[b("", "many", &["5", "9"]), e("", 0), s()], 1),
                step(
                    &[
                        run(
                            "PREPARE both AS INSERT INTO photos (user_id, caption) VALUES ($1, 'written'), ($2, 'written') RETURNING user_id",
                        ),
                        s(),
                    ],
                    1,
                ),
                step(&[run("EXECUTE both(1, 5)"), s()], 1),
                step(&[run("EXECUTE both(1, 9)"), s()], 1),
                step(
                    &[
                        run(
                            "PREPARE clean AS DELETE FROM photos WHERE user_id = ANY ($1) AND caption = 'written'",
                        ),
                        s(),
                    ],
                    1,
                ),
                step(&[run("EXECUTE clean('{1,5,9}')"), s()], 1),
            ],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_prepare_is_that_of_postgres() {
    compare(simple(), &Proxy::start(&twins().await.hosts)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_prepare_by_the_extended_protocol_is_that_of_postgres() {
    compare(extended(), &Proxy::start(&twins().await.hosts)).await;
}

/// Two clients' statements of one name are two, however few server connections they share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_of_one_session() {
    let proxy = Proxy::start(&twins().await.hosts);
    let (mut one, mut other) = (Raw::connect(proxy.addr()), Raw::connect(proxy.addr()));
    one.query(
        "PREPARE a AS SELECT 'one', caption FROM photos WHERE user_id = $1 AND caption = 'u1p1'",
    );
    other.query(
        "PREPARE a AS SELECT 'other', user_id FROM photos WHERE user_id = $1 AND caption = 'u5p1'",
    );
    for _ in 0..3 {
        assert_eq!(one.query("EXECUTE a(1)")[1], "D one|u1p1");
        assert_eq!(other.query("EXECUTE a(5)")[1], "D other|5");
    }
    other.query("DISCARD ALL");
    assert!(other.query("EXECUTE a(5)")[0].contains("C26000"));
    assert_eq!(one.query("EXECUTE a(1)")[1], "D one|u1p1");
    let other = Raw::connect(proxy.addr()).query("EXECUTE a(1)");
    assert!(other[0].contains("C26000"), "{other:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_executed_says_why() {
    let proxy = Proxy::start(&twins().await.hosts);
    let mut raw = Raw::connect(proxy.addr());
    for sql in [
        "PREPARE k AS SELECT caption FROM photos WHERE user_id = $1 AND caption = $2",
        "PREPARE many AS SELECT caption FROM photos WHERE user_id IN ($1, $2) AND caption = $3",
        "PREPARE w AS UPDATE photos SET caption = $1 WHERE user_id IN (1, 5) AND caption = 'nothing'",
    ] {
        assert_eq!(raw.query(sql), ["C PREPARE", "Z I"], "{sql}");
    }
    for (sql, code, message, hint) in [
        (
            "EXECUTE k(1 + 4, 'x')",
            "SR007",
            "argument 1 is no plain value",
            "EXECUTE name(42)",
        ),
        (
            "EXECUTE k(5.7, 'x')",
            "SR007",
            "argument 1 is no plain value",
            "EXECUTE name(42)",
        ),
        (
            "EXECUTE many(1, 5, 'a' || 'b')",
            "SR007",
            "for several shards",
            "literals",
        ),
        (
            "EXECUTE w('a' || 'b')",
            "SR007",
            "for several shards",
            "literals",
        ),
        (
            "EXECUTE k(1, set_config('work_mem', 'x', false))",
            "0A000",
            "set_config",
            "SELECT",
        ),
        (
            "EXECUTE k(1, nextval('s')::text)",
            "0A000",
            "nextval",
            "SELECT",
        ),
        (
            "EXPLAIN EXECUTE many(1, 5, 'x')",
            "SR004",
            "EXPLAIN EXECUTE",
            "one shard",
        ),
        (
            "PREPARE m AS SELECT nothing FROM nowhere",
            "SR003",
            "nowhere",
            "",
        ),
    ] {
        let answer = raw.query(sql);
        let error = &answer[0];
        assert!(
            error.contains(&format!("C{code}")) && error.contains(message) && error.contains(hint),
            "{sql}: {answer:?}"
        );
        assert_eq!(answer.last().map(String::as_str), Some("Z I"), "{sql}");
    }
    // What a session keeps in a server process it keeps, however it is asked for.
    raw.query("PREPARE l AS SELECT pg_try_advisory_lock($1)");
    assert_eq!(raw.query("EXECUTE l(77)")[1], "D t");
    let mut other = Raw::connect(proxy.addr());
    assert_eq!(other.query("SELECT pg_try_advisory_lock(77)")[1], "D f");
    assert_eq!(raw.query("SELECT pg_advisory_unlock(77)")[1], "D t");
    // The key is plain, the rest Postgres' to work out.
    assert_eq!(raw.query("EXECUTE k(1, 'u1' || lower('P2'))")[1], "D u1p2");
    // A hint decides as for any statement.
    raw.query("PREPARE keyless AS SELECT caption FROM photos WHERE caption = $1");
    assert_eq!(
        raw.query("/* presplit: key=5 */ EXECUTE keyless('u5' || 'p2')")[1],
        "D u5p2"
    );
    assert_eq!(
        raw.query("/* presplit: key=1 */ EXECUTE keyless('u5' || 'p2')")[1],
        "C SELECT 0"
    );
    assert_eq!(raw.query("EXECUTE keyless('u5p2')")[1], "D u5p2");
    assert_eq!(
        raw.query("EXPLAIN (COSTS off) EXECUTE k(1, 'x')")[0]
            .split(':')
            .next(),
        Some("T QUERY PLAN")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_an_execute_goes_is_explained() {
    let proxy = Proxy::start(&twins().await.hosts);
    let mut raw = Raw::connect(proxy.addr());
    raw.query("PREPARE k AS SELECT caption FROM photos WHERE user_id = $1");
    let said = raw.query("EXPLAIN (ROUTE) EXECUTE k(5)").join("\n");
    assert!(
        said.contains("shard 5") && said.contains("shard_0005.photos"),
        "{said}"
    );
    let said = raw.query("EXPLAIN (ROUTE) EXECUTE k(1 + 4)").join("\n");
    assert!(said.contains("SR007"), "{said}");
    let said = raw.query("EXPLAIN (ROUTE) EXECUTE nothing(5)").join("\n");
    assert!(said.contains("C26000"), "{said}");
}

/// What changes tables through the proxy changes what a prepared statement reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_run_again_on_changed_tables() {
    let hosts = crate::support::Hosts::provisioned(2, 8).await;
    let proxy = Proxy::start(&hosts);
    let mut raw = Raw::connect(proxy.addr());
    raw.query("INSERT INTO photos (user_id, caption) VALUES (1, 'one'), (5, 'five')");
    raw.query("PREPARE a AS SELECT caption FROM photos WHERE user_id = $1");
    assert_eq!(raw.query("EXECUTE a(1)")[1], "D one");
    let done = raw.query("ALTER TABLE photos ADD COLUMN stars int");
    assert_eq!(done, ["C ALTER TABLE", "Z I"]);
    assert_eq!(raw.query("EXECUTE a(1)")[1], "D one");
    assert_eq!(raw.query("EXECUTE a(5)")[1], "D five");
    raw.query("ALTER TABLE photos DROP COLUMN caption");
    let answer = raw.query("EXECUTE a(1)");
    assert!(answer[0].contains("C42703"), "{answer:?}");
}
