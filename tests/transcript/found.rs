//! Streams that were once answered otherwise than by Postgres, each as small as it could be made.

use super::message::Message::{self, *};

pub(super) fn q(sql: &str) -> Message {
    Query(sql.to_owned())
}

pub(super) fn p(name: &str, sql: &str) -> Message {
    Parse {
        name: name.to_owned(),
        sql: sql.to_owned(),
        types: Vec::new(),
    }
}

/// Bind with text parameters.
pub(super) fn b(portal: &str, statement: &str, params: &[&str]) -> Message {
    Bind {
        portal: portal.to_owned(),
        statement: statement.to_owned(),
        formats: Vec::new(),
        params: params.iter().map(|p| Some(p.as_bytes().to_vec())).collect(),
        results: Vec::new(),
    }
}

pub(super) fn e(portal: &str, rows: u32) -> Message {
    Execute(portal.to_owned(), rows)
}

/// Parse, Bind and Execute.
pub(super) fn run(sql: &str) -> Vec<Message> {
    vec![p("", sql), b("", "", &[]), e("", 0)]
}

/// What it is about, and the messages; `{k}` and `{j}` are the stream's users.
pub fn streams() -> Vec<(&'static str, Vec<Message>)> {
    const ITEMS: &str = "SELECT id, note FROM items WHERE user_id = {k} ORDER BY id";
    let one = |sql: &str| [run(sql), vec![Sync]].concat();
    vec![
        (
            "what is set is told before ReadyForQuery",
            vec![q(
                "BEGIN; SET TimeZone = 'Asia/Tokyo'; SHOW TimeZone; ROLLBACK",
            )],
        ),
        (
            "RESET goes back to what the client began with",
            one("RESET ALL"),
        ),
        (
            "RESET, of one",
            vec![
                q("SET DateStyle = 'German'"),
                q("RESET DateStyle"),
                q("SHOW DateStyle"),
            ],
        ),
        (
            "what a failed message has set is not told",
            vec![q("SET DateStyle = 'German'; SELECT 1; DEALLOCATE nosuch")],
        ),
        (
            "too few parameters",
            vec![
                p("", "SELECT n FROM items WHERE id = $1 AND user_id = $2"),
                b("", "", &["1"]),
                e("", 0),
                Sync,
            ],
        ),
        (
            "no parameters",
            vec![p("", "SELECT $1::text"), b("", "", &[]), e("", 0), Sync],
        ),
        (
            "a wrong Parse in front of another",
            vec![
                p("a", "SELECT nosuch FROM items WHERE user_id = {k}"),
                p("b", "SELECT 1"),
                Sync,
            ],
        ),
        (
            "a wrong Parse in front of a refusal",
            vec![
                p("", "SELECT nosuch FROM items WHERE user_id = {k}"),
                b("", "nosuch", &[]),
                Sync,
            ],
        ),
        (
            "a syntax error under a name that is taken",
            vec![p("a", ITEMS), p("a", "SELEC"), Sync, p("a", ITEMS), Sync],
        ),
        (
            "a syntax error behind others in a batch",
            vec![
                p("", ITEMS),
                DescribeStatement(String::new()),
                p("", "SELECT 1 FROM items WHERE user_id = {k} AND"),
                Sync,
            ],
        ),
        (
            "a syntax error in a failed block",
            vec![
                q("BEGIN"),
                q("SELECT 1/0"),
                q("SELEC"),
                q("SELECT 1"),
                p("", "SELEC"),
                Sync,
            ],
        ),
        (
            "a syntax error in one of several",
            vec![
                q("SHOW work_mem; BEGIN; SELEC 1; ROLLBACK"),
                q("SET work_mem = '7MB'; SELECT 1 FROM items WHERE user_id = {k} AND; SELECT 2"),
                q("SHOW work_mem"),
            ],
        ),
        (
            "a portal that has run",
            [run("BEGIN"), vec![e("", 0), Sync]].concat(),
        ),
        (
            "BEGIN with options behind a write",
            vec![
                q(
                    "UPDATE items SET n = 1 WHERE user_id = {k}; BEGIN ISOLATION LEVEL SERIALIZABLE; END",
                ),
                q(ITEMS),
            ],
        ),
        (
            "BEGIN with options in a savepoint",
            vec![
                q("BEGIN"),
                q("SAVEPOINT a"),
                q("BEGIN ISOLATION LEVEL REPEATABLE READ"),
            ],
        ),
        (
            "a block that can't be chained",
            vec![
                q("BEGIN"),
                q("DELETE FROM users WHERE id = {j}"),
                q("COMMIT AND CHAIN"),
            ],
        ),
        (
            "a client that wants no warnings",
            vec![q("SET client_min_messages = 'error'"), q("COMMIT")],
        ),
        (
            "a Query goes on with the batch",
            [
                run("UPDATE items SET n = 7 WHERE user_id = {k}"),
                vec![q("SELECT 1/0"), q(ITEMS)],
            ]
            .concat(),
        ),
        (
            "a Query that can't be read, too",
            [
                run("UPDATE items SET n = 7 WHERE user_id = {k}"),
                vec![q("RESET app.user"), q(ITEMS)],
            ]
            .concat(),
        ),
        (
            "SET LOCAL and SET CONSTRAINTS of a message",
            vec![
                q(
                    "SELECT 1; SET LOCAL work_mem = '9MB'; SHOW work_mem; SET CONSTRAINTS ALL DEFERRED",
                ),
                q("SHOW work_mem"),
            ],
        ),
        (
            "a cursor of a message",
            vec![q(
                "SHOW work_mem; DECLARE c CURSOR FOR SELECT 1; SET work_mem = '9MB'; FETCH c",
            )],
        ),
        (
            "DISCARD ALL among others",
            [
                vec![q("SHOW work_mem; DISCARD ALL")],
                run("SELECT 1"),
                one("DISCARD ALL"),
            ]
            .concat(),
        ),
        (
            "an error of ours in a block frees and undoes",
            vec![
                q("BEGIN"),
                q("SET LOCAL TIME ZONE 'Asia/Tokyo'"),
                DescribeStatement("nosuch".to_owned()),
                Sync,
            ],
        ),
        (
            "portals of a failed block",
            vec![
                q("BEGIN"),
                p("", ITEMS),
                b("x", "", &[]),
                e("y", 0),
                Sync,
                DescribePortal("x".to_owned()),
                Sync,
                e("x", 1),
                Sync,
            ],
        ),
        (
            "wrong rows before CopyFail",
            vec![
                q("COPY items (user_id, id, n) FROM STDIN (FORMAT csv) /* presplit: key={k} */"),
                CopyData(b"{k},8,1,more\n{k},9,1\n".to_vec()),
                CopyFail("no more".to_owned()),
            ],
        ),
        (
            "the columns of FETCH are its cursor's",
            vec![
                q("BEGIN"),
                q("DECLARE c CURSOR FOR SELECT 1 AS a"),
                p("", "FETCH c"),
                DescribeStatement(String::new()),
                Sync,
                q("CLOSE c"),
                q("DECLARE c CURSOR FOR SELECT 'x' AS b, 2"),
                p("", "FETCH c"),
                DescribeStatement(String::new()),
                Sync,
                q("ROLLBACK"),
                p("", "FETCH c"),
                DescribeStatement(String::new()),
                Sync,
            ],
        ),
        (
            "search_path is the client's, whatever a statement needs",
            vec![q(
                "SHOW search_path; SELECT speak('x') /* presplit: key={k} */",
            )],
        ),
        (
            "what is said in front of a long statement comes at once",
            [
                run("CLOSE nosuch"),
                vec![Sync, q("SELECT slow() /* presplit: key={k} */"), Cancel],
            ]
            .concat(),
        ),
        (
            "also in the batch",
            [
                run("SET work_mem = '7MB'"),
                vec![q("SELECT 1; SELECT slow() /* presplit: key={k} */"), Cancel],
            ]
            .concat(),
        ),
        (
            "also behind a Describe",
            vec![
                p("", "SELECT slow() /* presplit: key={k} */"),
                DescribeStatement(String::new()),
                b("", "", &[]),
                e("", 0),
                Sync,
                Cancel,
            ],
        ),
        (
            "an unnamed Parse that was skipped, and one that failed",
            vec![
                p("", "SELECT 'former'"),
                Sync,
                p("a", "SELECT 1/0"),
                b("", "a", &[]),
                e("", 0),
                p("", "SELECT 'skipped'"),
                Sync,
                b("", "", &[]),
                e("", 0),
                Sync,
                p("", "SELECT nosuch FROM items WHERE user_id = {k}"),
                Sync,
                b("", "", &[]),
                e("", 0),
                Sync,
                p("", "SELECT 'former'"),
                Sync,
                p("", "SELEC"),
                Sync,
                b("", "", &[]),
                e("", 0),
                Sync,
            ],
        ),
        (
            "a Query that was skipped leaves the unnamed statement",
            vec![
                p("a", "SELECT 1/0"),
                p("", "SELECT 'former'"),
                Sync,
                b("", "a", &[]),
                e("", 0),
                q("SELECT 2"),
                Sync,
                b("", "", &[]),
                e("", 0),
                Sync,
            ],
        ),
        (
            "DISCARD ALL as a Query behind what was executed",
            [
                run("SELECT 1"),
                vec![q("DISCARD ALL"), Sync],
                run("DISCARD TEMP"),
                vec![Flush, q("DISCARD ALL"), Sync],
                run("DISCARD TEMP"),
                vec![q("SELECT 1"), q("DISCARD ALL")],
                one("DISCARD ALL"),
            ]
            .concat(),
        ),
        (
            "BEGIN with options as a Query behind a Parse",
            vec![
                p("", ITEMS),
                Sync,
                p("", ITEMS),
                q("BEGIN ISOLATION LEVEL SERIALIZABLE"),
                q("ROLLBACK"),
                p("", ITEMS),
                q("SELECT 1"),
                q("BEGIN ISOLATION LEVEL SERIALIZABLE"),
            ],
        ),
        (
            "a portal of ours whose Bind was skipped",
            [
                run("BEGIN READ ONLY"),
                run("DELETE FROM users WHERE id = {j}"),
                vec![p("", "COMMIT"), b("", "", &[]), Sync, e("", 0), Sync],
            ]
            .concat(),
        ),
        (
            "the portal of what makes a temporary table is described in a block",
            [
                vec![q("BEGIN"), p("", "CREATE TEMP TABLE s AS SELECT 1 AS a")],
                vec![
                    b("", "", &[]),
                    DescribePortal(String::new()),
                    e("", 0),
                    Sync,
                ],
                vec![q("SELECT a FROM s"), q("COMMIT"), q("SELECT a FROM s")],
            ]
            .concat(),
        ),
        (
            "DISCARD ALL closes what is held, also where it resets settings on the way",
            [
                vec![
                    q("SET work_mem = '7MB'"),
                    q("DECLARE h CURSOR WITH HOLD FOR SELECT 1"),
                    q("FETCH h"),
                ],
                one("DISCARD ALL"),
                vec![q("FETCH h"), q("SHOW work_mem")],
            ]
            .concat(),
        ),
        (
            "a Query that is refused behind what a pinned session was not done with",
            [
                vec![
                    q("SET work_mem = '7MB'"),
                    q("SELECT pg_advisory_lock(7000)"),
                    p("", "SHOW application_name"),
                    b("", "", &[]),
                    q("DEALLOCATE nosuch"),
                ],
                run("INSERT INTO items VALUES ({k}, 77, 7)"),
                vec![q("DISCARD ALL"), Sync],
                run("SET application_name = 'undone'"),
                vec![
                    q("SAVEPOINT a"),
                    q("SHOW application_name"),
                    q("SHOW work_mem"),
                ],
                vec![q(
                    "SELECT count(*) FROM items WHERE user_id = {k} AND id = 77",
                )],
                vec![q("SELECT pg_advisory_unlock(7000)")],
                run("LISTEN ch"),
                vec![q("SAVEPOINT a"), q("NOTIFY ch")],
            ]
            .concat(),
        ),
        (
            "DISCARD ALL lets locks go before it is answered",
            (0..20)
                .flat_map(|_| {
                    [
                        q("SELECT pg_try_advisory_lock(7001)"),
                        q("SELECT pg_try_advisory_lock(7, 7002)"),
                        q("DISCARD ALL"),
                    ]
                })
                .collect(),
        ),
        (
            "a Parse between Bind and Execute of what makes a temporary table",
            vec![
                q("BEGIN"),
                p("", "CREATE TEMP TABLE s AS SELECT 1 AS a"),
                b("", "", &[]),
                p("later", "SELECT 1"),
                e("", 0),
                p("", "SELECT a FROM s"),
                b("", "", &[]),
                e("", 0),
                Sync,
                q("ROLLBACK"),
            ],
        ),
        (
            "another portal is executed between Bind and Execute of what makes a temporary table",
            vec![
                q("BEGIN"),
                p("make", "CREATE TEMP TABLE s AS SELECT 1 AS a"),
                p("one", "SELECT 1"),
                b("x", "make", &[]),
                b("y", "one", &[]),
                e("y", 0),
                p("later", "SELECT 2"),
                e("x", 0),
                p("", "SELECT a FROM s"),
                b("", "", &[]),
                e("", 0),
                Sync,
                q("ROLLBACK"),
            ],
        ),
        (
            "DISCARD TEMP in a batch",
            [
                one("CREATE TEMP TABLE s AS SELECT 1 AS a"),
                run("DISCARD TEMP"),
                run("CREATE TEMP TABLE s AS SELECT 2 AS b"),
                run("SELECT b FROM s"),
                vec![Sync],
                one("DISCARD ALL"),
            ]
            .concat(),
        ),
        (
            "a temporary table in a batch, in front of one of the same name",
            [
                run("CREATE TEMP TABLE t (a int, b text)"),
                run("INSERT INTO t VALUES (1, 'x')"),
                vec![p("", "SELECT a, b FROM t"), b("", "", &[])],
                vec![
                    DescribePortal(String::new()),
                    e("", 0),
                    Sync,
                    q("SELECT a FROM t"),
                ],
                run("INSERT INTO items VALUES ({k}, 78, 7)"),
                run("CREATE TEMP TABLE s (a int)"),
                run("INSERT INTO s VALUES (2)"),
                run("SELECT a FROM s"),
                vec![
                    q("SELECT a, id FROM s, items WHERE user_id = {k} AND id = 78"),
                    Sync,
                ],
                run("INSERT INTO items VALUES ({k}, 79, 7)"),
                run("CREATE TEMP TABLE gone AS SELECT 1 AS a"),
                run("SELECT a FROM gone"),
                one("SELECT 1/0"),
                vec![q("CREATE TEMP TABLE gone (a int)"), q("SELECT a FROM gone")],
                vec![q("SELECT id FROM items WHERE user_id = {k} AND id > 77")],
                one("DROP TABLE s"),
                one("DISCARD ALL"),
            ]
            .concat(),
        ),
        (
            "what names no table, behind a temporary table in a batch",
            [
                run("CREATE TEMP TABLE t (a int, b text)"),
                vec![q("SET LOCAL work_mem = '9MB'"), q("SELECT b FROM t")],
                run("CREATE TEMP TABLE s (a int)"),
                run("SET CONSTRAINTS ALL DEFERRED"),
                run("SELECT a FROM s"),
                vec![Sync, q("SHOW work_mem")],
                run("CREATE TEMP TABLE u (a int)"),
                vec![q("DECLARE c CURSOR FOR SELECT 1 AS a"), Sync],
                run("CREATE TEMP TABLE v (a int)"),
                vec![q("BEGIN"), q("SELECT a FROM v"), q("COMMIT")],
                one("DISCARD ALL"),
            ]
            .concat(),
        ),
        (
            "a named statement that can't be read, behind others of its batch",
            [vec![
                p("a", "SELECT * FROM users WHERE id = {k}"),
                b("", "a", &[]),
                DescribePortal(String::new()),
                e("", 0),
                b("", "a", &[]),
                e("", 0),
                p("b", "SELECT 1 AS a, 'x'::text AS b, NULL AS c"),
                b("", "b", &[]),
                e("", 0),
                CloseStatement("c d".to_owned()),
                p("c d", "SHOW app.user"),
                q("DISCARD PLANS"),
                Sync,
                q("SELECT 1"),
            ]]
            .concat(),
        ),
    ]
}
