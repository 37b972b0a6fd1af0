//! Blocks, batches and messages of several statements over several hosts, beside one Postgres.

use super::{A, B, C, Twins, follow, user};
use crate::support::raw;

#[tokio::test(flavor = "multi_thread")]
async fn blocks_over_several_hosts_are_as_on_one_postgres() {
    let twins = Twins::new("").await;
    let (mut ours, mut plain) = twins.clients();
    let (u, f) = (user, follow);
    let begin = || "BEGIN".to_owned();
    let commit = || "COMMIT".to_owned();
    let to = str::to_owned;
    let count = || to("SELECT count(*) FROM users");
    let blocks: Vec<Vec<String>> = vec![
        vec![begin(), u(A, "a"), u(B, "b"), commit(), count()],
        vec![
            begin(),
            u(C, "c"),
            u(A + 9, "a"),
            u(B + 9, "b"),
            commit(),
            count(),
        ],
        vec![
            begin(),
            u(A + 18, "x"),
            u(B + 18, "x"),
            to("ROLLBACK"),
            count(),
        ],
        // A statement fails on one host: the block has failed on all.
        vec![
            begin(),
            u(A + 27, "x"),
            u(B, "twice"),
            count(),
            commit(),
            count(),
        ],
        // Savepoints: on hosts enlisted before and after.
        vec![
            begin(),
            u(A + 36, "kept"),
            to("SAVEPOINT s"),
            u(B + 36, "undone"),
            to("ROLLBACK TO s"),
            u(C + 36, "kept"),
            commit(),
            count(),
        ],
        vec![
            begin(),
            to("SELECT 1 FROM users WHERE id = 9003"),
            u(A + 45, "kept"),
            to("SAVEPOINT s"),
            u(B + 45, "undone"),
            to("SAVEPOINT t"),
            u(C + 45, "undone"),
            to("ROLLBACK TO s"),
            u(B + 45, "kept"),
            to("RELEASE s"),
            commit(),
            count(),
        ],
        vec![
            begin(),
            to("SAVEPOINT s"),
            u(A + 54, "x"),
            u(B, "fails"),
            to("ROLLBACK TO s"),
            u(B + 54, "kept"),
            u(C + 54, "kept"),
            commit(),
            count(),
        ],
        // Constraints that are looked at last: on a host that is prepared, and on the one that decides.
        vec![
            begin(),
            f(A, 1),
            f(A, 1),
            f(B, 2),
            commit(),
            to("SELECT count(*) FROM follows"),
        ],
        vec![
            begin(),
            f(A, 3),
            f(B, 4),
            f(B + 9, 4),
            f(C, 5),
            commit(),
            to("SELECT count(*) FROM follows"),
        ],
        vec![
            begin(),
            f(B, 6),
            to("SET CONSTRAINTS ALL IMMEDIATE"),
            f(A, 7),
            commit(),
            to("SELECT count(*) FROM follows"),
        ],
        // What is set goes with the transaction.
        vec![
            begin(),
            to("SET application_name = 'kept'"),
            u(A + 63, "a"),
            to("SET LOCAL work_mem = '5MB'"),
            u(B + 63, "b"),
            to("SHOW work_mem"),
            commit(),
            to("SHOW application_name"),
            to("SHOW work_mem"),
        ],
        vec![
            begin(),
            u(A + 72, "a"),
            to("SET application_name = 'undone'"),
            u(B + 72, "b"),
            to("ROLLBACK"),
            to("SHOW application_name"),
        ],
        vec![
            begin(),
            u(A + 81, "a"),
            u(B + 81, "b"),
            to("COMMIT AND CHAIN"),
            u(C + 81, "c"),
            u(A + 90, "a"),
            to("ROLLBACK AND CHAIN"),
            u(B + 90, "b"),
            u(A + 90, "a"),
            commit(),
            count(),
        ],
        vec![
            to("BEGIN ISOLATION LEVEL READ COMMITTED"),
            u(A + 99, "a"),
            u(B + 99, "b"),
            to("SELECT name FROM users WHERE id IN (9099, 9102) ORDER BY id"),
            commit(),
        ],
        // NOTIFY can't be prepared: its host decides.
        vec![
            begin(),
            u(A + 108, "a"),
            to("NOTIFY n"),
            u(B + 108, "b"),
            commit(),
            count(),
        ],
        vec![
            begin(),
            to("NOTIFY n"),
            u(C + 108, "a"),
            u(B + 117, "b"),
            u(A + 117, "a"),
            commit(),
            count(),
        ],
        vec![
            begin(),
            u(C + 117, "a"),
            u(B + 126, "b"),
            to("NOTIFY n"),
            commit(),
            count(),
        ],
        vec![
            begin(),
            to("SELECT pg_notify('n', 'p')"),
            u(A + 144, "a"),
            u(B + 144, "b"),
            u(C + 144, "c"),
            to("SELECT pg_notify('n', 'q')"),
            commit(),
            count(),
        ],
        vec![
            begin(),
            u(A + 135, "a"),
            to("DELETE FROM users WHERE id = 9003"),
            to("UPDATE users SET name = 'new' WHERE id = 9006"),
            commit(),
            to("SELECT name FROM users ORDER BY id"),
        ],
    ];
    for block in &blocks {
        for text in block {
            let expected = plain.query(text);
            assert_eq!(ours.query(text), expected, "{text} of {block:#?}");
        }
        let (ours, plain) = twins.rows().await;
        assert_eq!(ours, plain, "after {block:#?}");
    }
    twins.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_over_several_hosts_are_as_on_one_postgres() {
    let twins = Twins::new("").await;
    let (mut ours, mut plain) = twins.clients();
    let insert = "INSERT INTO users (id, name) VALUES ($1, $2)";
    let put = |id: i64, name: &str| raw::pbe(insert, &[&id.to_string(), name]);
    let count = || raw::pbe("SELECT count(*) FROM users", &[]);
    let batches: Vec<(&str, Vec<u8>)> = vec![
        ("two hosts", [put(A, "a"), put(B, "b"), raw::s()].concat()),
        (
            "three hosts, then one looks",
            [put(C, "c"), put(A + 9, "a"), put(B + 9, "b"), raw::s()].concat(),
        ),
        (
            "the second fails",
            [
                put(A + 18, "a"),
                put(B, "twice"),
                put(C + 18, "c"),
                raw::s(),
            ]
            .concat(),
        ),
        (
            "the first fails",
            [put(A, "twice"), put(B + 18, "b"), raw::s()].concat(),
        ),
        (
            "flush between",
            [
                put(A + 27, "a"),
                raw::h(),
                put(B + 27, "b"),
                raw::h(),
                raw::s(),
            ]
            .concat(),
        ),
        (
            "a block begins in the middle",
            [
                put(A + 36, "a"),
                put(B + 36, "b"),
                raw::pbe("BEGIN", &[]),
                put(C + 36, "c"),
                raw::s(),
            ]
            .concat(),
        ),
        (
            "and is rolled back",
            [put(A + 45, "a"), raw::pbe("ROLLBACK", &[]), raw::s()].concat(),
        ),
        (
            "a block within",
            [
                raw::pbe("BEGIN", &[]),
                put(A + 54, "a"),
                put(B + 54, "b"),
                raw::pbe("COMMIT", &[]),
                raw::s(),
            ]
            .concat(),
        ),
        (
            "a constraint that is looked at last",
            [
                raw::pbe(&follow(A, 1), &[]),
                raw::pbe(&follow(A, 1), &[]),
                raw::pbe(&follow(B, 2), &[]),
                raw::s(),
            ]
            .concat(),
        ),
        (
            "reads beside",
            [
                put(A + 63, "a"),
                raw::pbe("SELECT name FROM users WHERE id = 9006", &[]),
                put(B + 63, "b"),
                raw::s(),
            ]
            .concat(),
        ),
        (
            "a block begins behind reads of several hosts",
            [count(), raw::pbe("BEGIN", &[]), raw::s()].concat(),
        ),
        ("and goes on", [put(A + 72, "a"), raw::s()].concat()),
        (
            "and is undone",
            [raw::pbe("ROLLBACK", &[]), raw::s()].concat(),
        ),
        ("a look", [count(), raw::s()].concat()),
    ];
    for (what, batch) in &batches {
        let expected = plain.ask(batch, 1);
        assert_eq!(ours.ask(batch, 1), expected, "{what}");
        let (ours, plain) = twins.rows().await;
        assert_eq!(ours, plain, "after {what}");
    }
    // A Query comes before the Sync.
    let mixed = [
        put(A + 99, "a"),
        put(B + 99, "b"),
        raw::q("SELECT count(*) FROM users"),
        raw::s(),
    ]
    .concat();
    let expected = plain.ask(&mixed, 2);
    assert_eq!(ours.ask(&mixed, 2), expected);
    twins.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_several_statements_are_as_on_one_postgres() {
    let twins = Twins::new("").await;
    let (mut ours, mut plain) = twins.clients();
    let (u, join) = (user, |texts: &[String]| texts.join("; "));
    let texts = [
        join(&[u(A, "a"), u(B, "b")]),
        join(&[u(C, "c"), u(A + 9, "a"), u(B, "twice"), u(C + 9, "c")]),
        join(&[
            "BEGIN".into(),
            u(A + 18, "a"),
            u(B + 18, "b"),
            "COMMIT".into(),
        ]),
        join(&[
            "BEGIN".into(),
            u(A + 27, "a"),
            u(B, "twice"),
            "COMMIT".into(),
        ]),
        "ROLLBACK".into(),
        join(&[
            u(A + 36, "a"),
            "SELECT count(*) FROM users".into(),
            u(B + 36, "b"),
        ]),
        join(&["BEGIN".into(), u(A + 45, "a"), u(B + 45, "b")]),
        join(&[u(C + 45, "c"), "COMMIT".into()]),
        join(&[follow(A, 1), follow(A, 1), follow(B, 2)]),
        // A block begins behind reads.
        join(&[
            "SELECT 1 FROM users WHERE id = 9000".into(),
            "SELECT 1 FROM users WHERE id = 9003".into(),
            "BEGIN".into(),
        ]),
        u(A + 54, "undone"),
        "ROLLBACK".into(),
        join(&[
            "BEGIN READ ONLY".into(),
            "SELECT 1 FROM users WHERE id = 9000".into(),
        ]),
        u(B + 54, "refused"),
        "ROLLBACK".into(),
        join(&["BEGIN".into(), "SAVEPOINT s".into(), u(A + 63, "undone")]),
        join(&["ROLLBACK TO s".into(), u(B + 63, "b"), "COMMIT".into()]),
        // What is set in front of a ROLLBACK or COMMIT of the same message.
        "SET application_name = 'undone'; ROLLBACK".into(),
        "SHOW application_name".into(),
        "SET application_name = 'kept'; COMMIT; SELECT nope".into(),
        "SHOW application_name".into(),
        // What is chained to nothing.
        join(&[u(A + 72, "a"), u(B + 72, "b"), "COMMIT AND CHAIN".into()]),
        // Options of a block that has begun.
        "BEGIN READ ONLY".into(),
        "BEGIN READ WRITE".into(),
        u(A + 81, "a"),
        u(B + 81, "b"),
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED".into(),
        "COMMIT AND CHAIN".into(),
        "BEGIN READ ONLY".into(),
        u(C + 81, "refused"),
        "ROLLBACK AND CHAIN".into(),
        u(C + 81, "c"),
        "COMMIT".into(),
        "SELECT id, name FROM users ORDER BY id".into(),
    ];
    for text in &texts {
        let expected = plain.query(text);
        assert_eq!(ours.query(text), expected, "{text}");
        let (ours, plain) = twins.rows().await;
        assert_eq!(ours, plain, "after {text}");
    }
    twins.assert_clean().await;
}
