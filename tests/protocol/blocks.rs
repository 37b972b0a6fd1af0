//! Transaction blocks, and several statements in one Query.

use super::{CLEAN, FAILS, NONE, Script, Step, WRITE, compare, step, twins};
use crate::support::Proxy;
use crate::support::raw::{b, dp, e, p, q, s};

fn transactions() -> Vec<Script> {
    let both = |sql: &'static [&'static str]| {
        let simple: Vec<Step> = sql.iter().map(|sql| step(&[q(sql)], 1)).collect();
        let extended: Vec<Step> = sql
            .iter()
            .map(|sql| step(&[p("", sql), b("", "", &[]), dp(""), e("", 0), s()], 1))
            .collect();
        [simple, extended].concat()
    };
    vec![
        (
            "commit",
            both(&["BEGIN", WRITE, NONE, "COMMIT", NONE, CLEAN]),
        ),
        ("rollback", both(&["BEGIN", WRITE, NONE, "ROLLBACK", NONE])),
        (
            "other spellings",
            both(&[
                "START TRANSACTION",
                "END",
                "BEGIN WORK",
                "ABORT",
                "BEGIN TRANSACTION",
                "COMMIT WORK",
                "begin;",
                "commit ;",
            ]),
        ),
        (
            "warnings",
            both(&[
                "COMMIT",
                "ROLLBACK",
                "BEGIN",
                "BEGIN",
                "COMMIT",
                "SET LOCAL work_mem = '1MB'",
                "SET TRANSACTION READ ONLY",
            ]),
        ),
        (
            "errors outside",
            both(&[
                "SAVEPOINT a",
                "ROLLBACK TO a",
                "RELEASE a",
                "COMMIT AND CHAIN",
                "ROLLBACK AND CHAIN",
            ]),
        ),
        (
            "a failed one",
            both(&[
                "BEGIN",
                WRITE,
                FAILS,
                NONE,
                "SAVEPOINT a",
                "SET work_mem = '1MB'",
                "SHOW work_mem",
                "BEGIN",
                "COMMIT",
                NONE,
            ]),
        ),
        (
            "any statement in a failed one",
            vec![step(
                &[
                    q("BEGIN"),
                    q(FAILS),
                    q("SELECT * FROM pg_nosuch"),
                    q("ROLLBACK"),
                ],
                4,
            )],
        ),
        (
            "a failed one that is empty",
            both(&["BEGIN", "SELECT 1/0", "COMMIT"]),
        ),
        (
            "savepoints",
            both(&[
                "BEGIN",
                WRITE,
                "SAVEPOINT a",
                WRITE,
                "SAVEPOINT b",
                WRITE,
                NONE,
                "ROLLBACK TO b",
                NONE,
                "ROLLBACK TO SAVEPOINT a",
                NONE,
                "RELEASE a",
                "RELEASE b",
                "ROLLBACK",
            ]),
        ),
        (
            "a failed one goes on from a savepoint",
            both(&[
                "BEGIN",
                WRITE,
                "SAVEPOINT a",
                FAILS,
                "RELEASE a",
                "ROLLBACK TO b",
                "ROLLBACK TO a",
                NONE,
                "COMMIT",
                NONE,
                CLEAN,
            ]),
        ),
        (
            "savepoints before any statement",
            both(&[
                "BEGIN",
                "SAVEPOINT a",
                "SAVEPOINT a",
                WRITE,
                "ROLLBACK TO a",
                NONE,
                "RELEASE a",
                "ROLLBACK TO a",
                NONE,
                "RELEASE a",
                "RELEASE a",
                "ROLLBACK",
            ]),
        ),
        (
            "savepoint names",
            both(&[
                "BEGIN",
                "SAVEPOINT \"A b\"",
                "SAVEPOINT X",
                WRITE,
                "ROLLBACK TO x",
                "ROLLBACK TO \"A b\"",
                "ROLLBACK TO \"X\"",
                "ROLLBACK",
            ]),
        ),
        (
            "chains",
            both(&[
                "BEGIN",
                WRITE,
                "COMMIT AND CHAIN",
                NONE,
                CLEAN,
                "ROLLBACK AND CHAIN",
                NONE,
                CLEAN,
                "COMMIT AND NO CHAIN",
            ]),
        ),
        (
            "read only",
            both(&[
                "BEGIN READ ONLY",
                NONE,
                WRITE,
                "ROLLBACK",
                "BEGIN",
                "SET TRANSACTION READ ONLY",
                WRITE,
                "ROLLBACK",
            ]),
        ),
        (
            "isolation",
            both(&[
                "BEGIN ISOLATION LEVEL SERIALIZABLE",
                NONE,
                "SHOW transaction_isolation",
                "COMMIT",
                "SHOW transaction_isolation",
            ]),
        ),
        (
            "isolation too late",
            both(&[
                "BEGIN",
                NONE,
                "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
                "ROLLBACK",
            ]),
        ),
        (
            "SET LOCAL",
            both(&[
                "BEGIN",
                "SET LOCAL work_mem = '7MB'",
                "SHOW work_mem",
                NONE,
                "SHOW work_mem",
                "COMMIT",
                "SHOW work_mem",
            ]),
        ),
        (
            "SET in a transaction",
            both(&[
                "BEGIN",
                "SET work_mem = '7MB'",
                NONE,
                "ROLLBACK",
                "SHOW work_mem",
                "BEGIN",
                "SET work_mem = '6MB'",
                "COMMIT",
                "SHOW work_mem",
                "RESET work_mem",
            ]),
        ),
        (
            "SET and savepoints",
            both(&[
                "BEGIN",
                "SET work_mem = '7MB'",
                "SAVEPOINT a",
                "SET work_mem = '8MB'",
                NONE,
                "ROLLBACK TO a",
                "SHOW work_mem",
                "COMMIT",
                "SHOW work_mem",
                "RESET ALL",
                "SHOW work_mem",
            ]),
        ),
        (
            "a wrong SET in a transaction",
            both(&["BEGIN", "SET work_mem = 'x'", NONE, "ROLLBACK"]),
        ),
        (
            "two hosts",
            both(&[
                "BEGIN",
                WRITE,
                "SELECT caption FROM photos WHERE user_id = 5 ORDER BY id",
                "SAVEPOINT a",
                "SELECT 1 / (user_id - 5) FROM photos WHERE user_id = 5",
                "SELECT 1",
                "ROLLBACK TO a",
                "SELECT caption FROM photos WHERE user_id = 5 ORDER BY id",
                NONE,
                "COMMIT",
                NONE,
                CLEAN,
            ]),
        ),
        (
            "an error at COMMIT",
            vec![step(
                &[q("BEGIN"), q("DECLARE c CURSOR FOR SELECT 1"), q("COMMIT")],
                3,
            )],
        ),
    ]
}

fn several_in_one_query() -> Vec<Script> {
    let of =
        |sql: &'static [&'static str]| sql.iter().map(|sql| step(&[q(sql)], 1)).collect::<Vec<_>>();
    vec![
        (
            "reads",
            of(&[
                "SELECT 1; SELECT 2",
                "SELECT caption FROM photos WHERE user_id = 1 ORDER BY id; SELECT caption FROM photos WHERE user_id = 9 ORDER BY id; ",
            ]),
        ),
        (
            "reads of two hosts",
            of(&[
                "SELECT caption FROM photos WHERE user_id = 1 ORDER BY id; SELECT caption FROM photos WHERE user_id = 5 ORDER BY id",
            ]),
        ),
        (
            "writes, then an error",
            of(&[
                "INSERT INTO photos (user_id, caption) VALUES (1, 'written'); SELECT 1/0; SELECT 3",
                NONE,
            ]),
        ),
        (
            "an error first",
            of(&[
                "SELECT 1/0; INSERT INTO photos (user_id, caption) VALUES (1, 'written')",
                NONE,
            ]),
        ),
        (
            "with BEGIN and COMMIT",
            of(&[
                "BEGIN; INSERT INTO photos (user_id, caption) VALUES (1, 'written'); COMMIT",
                NONE,
                CLEAN,
            ]),
        ),
        (
            "with BEGIN alone",
            of(&[
                "BEGIN; INSERT INTO photos (user_id, caption) VALUES (1, 'written')",
                NONE,
                "ROLLBACK",
                NONE,
            ]),
        ),
        (
            "with BEGIN and an error",
            of(&["BEGIN; SELECT 1/0; COMMIT", "SELECT 1", "ROLLBACK"]),
        ),
        (
            "COMMIT in the middle",
            of(&[
                "INSERT INTO photos (user_id, caption) VALUES (1, 'written'); COMMIT; SELECT 1/0",
                NONE,
                CLEAN,
            ]),
        ),
        (
            "ROLLBACK in the middle",
            of(&[
                "INSERT INTO photos (user_id, caption) VALUES (1, 'written'); ROLLBACK; SELECT 1",
                NONE,
            ]),
        ),
        (
            "in a block",
            of(&[
                "BEGIN",
                "INSERT INTO photos (user_id, caption) VALUES (1, 'written'); SELECT 1",
                NONE,
                "SELECT 1; SELECT 1/0",
                "ROLLBACK; SELECT 1",
                NONE,
            ]),
        ),
        (
            "COMMIT at the end of a block",
            of(&[
                "BEGIN",
                "INSERT INTO photos (user_id, caption) VALUES (1, 'written'); COMMIT",
                NONE,
                CLEAN,
            ]),
        ),
        (
            "the end of a failed block",
            of(&["BEGIN", "SELECT 1/0", "ROLLBACK; BEGIN; SELECT 1", "COMMIT"]),
        ),
        (
            "SET and a read",
            of(&[
                "SET work_mem = '7MB'; SELECT caption FROM photos WHERE user_id = 1 ORDER BY id",
                "SHOW work_mem",
            ]),
        ),
        (
            "SET is undone with the rest",
            of(&["SET work_mem = '7MB'; SELECT 1/0", "SHOW work_mem"]),
        ),
        (
            "SET in a transaction of its own",
            of(&[
                "BEGIN; SET LOCAL work_mem = '7MB'; SELECT 1; COMMIT",
                "SHOW work_mem",
            ]),
        ),
        (
            "savepoints",
            of(&[
                "BEGIN; SAVEPOINT a; SELECT 1; RELEASE a; COMMIT",
                "SAVEPOINT a; SELECT 1",
            ]),
        ),
        (
            "error positions",
            of(&[
                "SELECT nosuch FROM photos WHERE user_id = 1",
                "SELECT 'ä€😀', nosuch FROM photos WHERE user_id = 1",
                "  SELECT p.caption FROM photos p JOIN likes l USING (user_id) WHERE user_id = 1 AND nosuch",
                "SELECT caption FROM photos WHERE user_id = 1; SELECT caption FROM photos WHERE user_id = 1 AND nosuch",
                "SELECT caption FROM photos WHERE user_id = 1 ;  /* x */  SELECT caption FROM photos WHERE user_id = 1 AND nosuch",
                "SELECT caption FROM photos WHERE user_id = 1; SELECT caption FROM photos WHERE user_id = 5 AND nosuch",
                "SET work_mem = '7MB'; SELECT caption FROM photos WHERE user_id = 1 AND nosuch",
                "SELECT 1; SELEC",
                "INSERT INTO photos (user_id, nosuch) VALUES (1, 2)",
                "UPDATE photos SET nosuch = 1 WHERE user_id = 1",
            ]),
        ),
        (
            "empty ones between",
            of(&["SELECT 1;;SELECT 2;", ";SELECT 1"]),
        ),
        (
            "warnings in between",
            of(&["COMMIT; SELECT 1", "BEGIN; BEGIN; SELECT 1; COMMIT"]),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_are_those_of_postgres() {
    compare(transactions(), &Proxy::start(&twins().await.hosts)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_statements_in_one_query_are_those_of_postgres() {
    compare(several_in_one_query(), &Proxy::start(&twins().await.hosts)).await;
}
