//! Streams over several hosts that were once answered otherwise than by Postgres, or left other rows, each as small as it could be made.

use super::found::{b, e, p, q, run};
use super::message::Message::{self, *};

/// What it is about, and the messages; `{k}`, `{j}` and `{i}` are on a host each, a row of `{o}` fails when it is committed.
pub(super) fn streams() -> Vec<(&'static str, Vec<Message>)> {
    const READ: &str = "SELECT n, note FROM items WHERE user_id = {j} ORDER BY id";
    const WRITE: &str = "UPDATE items SET n = n + 1 WHERE user_id = {k}";
    const ALL: &str =
        "SELECT user_id, id, n FROM items WHERE user_id IN ({k}, {j}) ORDER BY user_id, id";
    const LATE: &str = "INSERT INTO items (user_id, id, n) VALUES ({o}, 60, 1)";
    let read_and_written = |last: Vec<Message>| [run(WRITE), run(READ), last, vec![Sync]].concat();
    let late = |last: Vec<Message>| [run(LATE), run(READ), last, vec![Sync]].concat();
    vec![
        (
            "a Query that fails undoes a write on another host than it reads",
            read_and_written(vec![q("SELECT 1/0")]),
        ),
        (
            "a Query that can't be read does",
            read_and_written(vec![q("SELECT * FROM nosuch")]),
        ),
        (
            "of several statements, one that fails",
            read_and_written(vec![q("SELECT 1; SELECT 1/0")]),
        ),
        (
            "ROLLBACK behind what one host has read and another written",
            read_and_written(vec![q("ROLLBACK")]),
        ),
        ("the same in the batch", read_and_written(run("ROLLBACK"))),
        (
            "COMMIT AND CHAIN, which fails",
            read_and_written(vec![q("COMMIT AND CHAIN")]),
        ),
        (
            "SET TRANSACTION READ ONLY behind a read of several hosts",
            [
                run(ALL),
                run("SET TRANSACTION READ ONLY"),
                run(WRITE),
                vec![Sync],
            ]
            .concat(),
        ),
        (
            "the same, and a block",
            [
                run(ALL),
                run("SET TRANSACTION READ ONLY"),
                vec![q("BEGIN"), q(WRITE), q("ROLLBACK")],
            ]
            .concat(),
        ),
        (
            "BEGIN and ROLLBACK",
            read_and_written(vec![q("BEGIN"), q("ROLLBACK")]),
        ),
        (
            "BEGIN and ROLLBACK in the batch",
            read_and_written([run("BEGIN"), run("ROLLBACK")].concat()),
        ),
        ("COMMIT that fails", late(vec![q("COMMIT")])),
        ("COMMIT in the batch that fails", late(run("COMMIT"))),
        (
            "BEGIN and COMMIT that fail",
            late(vec![q("BEGIN"), q("COMMIT")]),
        ),
        ("SHOW, and the end fails", late(vec![q("SHOW work_mem")])),
        ("a read, and the end fails", late(vec![q("SELECT 1")])),
        ("nothing, and the end fails", late(vec![q("-- nothing")])),
        (
            "nothing behind a write on several hosts that fails",
            vec![
                p(
                    "",
                    "INSERT INTO items (user_id, id, n) VALUES ({o}, 60, 1), ({i}, 60, 1)",
                ),
                b("", "", &[]),
                e("", 0),
                q("-- nothing"),
                Sync,
            ],
        ),
        (
            "a read of several hosts behind a write",
            [run(WRITE), run(ALL), run("SELECT 1/0"), vec![Sync]].concat(),
        ),
        (
            "a read of several hosts behind a write that stays",
            [run(WRITE), run(ALL), run(WRITE), vec![Sync]].concat(),
        ),
        (
            "a portal's name on another host",
            vec![
                p("", READ),
                b("x", "", &[]),
                p("", "SELECT name FROM users WHERE id = {k}"),
                b("x", "", &[]),
                Sync,
            ],
        ),
        (
            "Bind of a write on several hosts, and no Execute",
            [
                run("DELETE FROM countries WHERE code = 'c{k}'"),
                vec![Sync],
                run("BEGIN"),
                vec![
                    p("", "DELETE FROM countries WHERE code = 'c{k}'"),
                    b("c", "", &[]),
                    Sync,
                ],
            ]
            .concat(),
        ),
        (
            "COPY leaves no unnamed portal",
            vec![
                p("", "BEGIN"),
                b("", "", &[]),
                e("", 0),
                q("COPY items (user_id, id, n, note) FROM STDIN"),
                CopyData(b"{k}\t57\t1\tcopied\n{j}\t58\t1\tcopied\n".to_vec()),
                CopyDone,
                e("", 0),
                Sync,
            ],
        ),
        (
            "SET LOCAL behind a COPY in a block",
            [
                run("BEGIN"),
                run("COPY items (user_id, id, n, note) FROM STDIN"),
                vec![CopyData(b"{j}\t57\t1\tcopied\n".to_vec()), CopyDone],
                run("SET LOCAL application_name = 'local me'"),
                vec![Sync],
            ]
            .concat(),
        ),
        (
            "a syntax error in a Query behind what is bound on two hosts",
            vec![
                p("", WRITE),
                b("", "", &[]),
                p("", "UPDATE items SET n = n + 1 WHERE user_id = {j}"),
                b("", "", &[]),
                q("SELECT 1 FROM items WHERE user_id = {k} AND"),
                q("SELECT 1"),
                Sync,
            ],
        ),
        (
            "a write on several hosts that is executed again in a failed block",
            vec![
                q("BEGIN"),
                p("", "UPDATE items SET n = n + 1 WHERE user_id IN ({k}, {j})"),
                b("y", "", &[]),
                e("y", 0),
                q("SELECT 1/0"),
                e("y", 0),
                Sync,
            ],
        ),
        (
            "a read of several hosts that fails behind a savepoint",
            vec![
                q("BEGIN"),
                q("INSERT INTO items (user_id, id, n) VALUES ({k}, 60, 1), ({i}, 60, 1)"),
                q("SAVEPOINT a"),
                q("UPDATE items SET n = 7 WHERE user_id = {j}"),
                q("SELECT 1 / (id - 3) FROM items WHERE user_id IN ({k}, {j})"),
                q("ROLLBACK TO a"),
                q("UPDATE items SET note = 'kept' WHERE user_id = {j}"),
                q("COMMIT"),
            ],
        ),
        (
            "a portal of a host where nothing has failed is closed in a failed block",
            vec![
                q("BEGIN"),
                p("", READ),
                b("x", "", &[]),
                e("x", 1),
                Sync,
                q("SELECT 1 / (id - 3) FROM items WHERE user_id = {k}"),
                ClosePortal("x".to_owned()),
                Sync,
            ],
        ),
        (
            "a Parse that is refused in a failed block, behind what another host is asked",
            [
                vec![p("", "SELECT"), b("", "", &[]), q("BEGIN")],
                run("DECLARE x SCROLL CURSOR FOR SELECT id FROM items WHERE user_id = {j} ORDER BY id"),
                vec![e("", 0), Sync, e("x", 2), p("", "FETCH ALL FROM c"), Sync],
            ]
            .concat(),
        ),
        (
            "COPY in a message of several leaves no unnamed portal",
            [
                run("BEGIN"),
                vec![
                    q("COPY items (user_id, id, n, note) FROM STDIN; SELECT 'more'"),
                    CopyData(b"{i}\t58\t1\tcopied\n".to_vec()),
                    CopyDone,
                    e("", 0),
                    Sync,
                ],
            ]
            .concat(),
        ),
        (
            "what SET TRANSACTION says of a batch holds on all hosts",
            [
                run("SET TRANSACTION READ ONLY"),
                run("UPDATE items SET n = n + 1 WHERE user_id = {i}"),
                vec![Sync],
            ]
            .concat(),
        ),
        (
            "what is set behind a COPY is told",
            [
                run("BEGIN"),
                vec![
                    q("COPY items (user_id, id, n, note) FROM STDIN"),
                    CopyData(b"{j}\t50\t1\tcopied\n".to_vec()),
                    CopyDone,
                    q("SET IntervalStyle = 'iso_8601'"),
                ],
            ]
            .concat(),
        ),
        (
            "SET LOCAL in a batch that fails at its end is not told",
            [
                run("SET LOCAL application_name = 'local me'"),
                run(LATE),
                run(ALL),
                vec![Sync],
            ]
            .concat(),
        ),
        (
            "a constraint that does not hold on another host than the last",
            vec![
                q("BEGIN"),
                q("SAVEPOINT a"),
                q(LATE),
                q(READ),
                q("SELECT name FROM users WHERE id = {k}"),
                q("SET CONSTRAINTS ALL IMMEDIATE"),
                q("ROLLBACK TO a"),
                q("UPDATE items SET n = 7 WHERE user_id IN ({k}, {j})"),
                q("COMMIT"),
            ],
        ),
        (
            "what a batch sets on the second of its hosts is told",
            [
                run("INSERT INTO items (user_id, id, n) VALUES ({i}, 9, 1)"),
                run(READ),
                run("SET DateStyle = 'German'"),
                vec![q("RESET SESSION AUTHORIZATION"), Sync],
            ]
            .concat(),
        ),
        (
            "a portal of a batch that reads several hosts, too",
            vec![
                p("", READ),
                b("z", "", &[]),
                p("", ALL),
                b("w", "", &[]),
                e("w", 0),
                e("z", 1),
                Sync,
            ],
        ),
        (
            "a portal of a batch that a Query has ended with an error",
            vec![
                p("", READ),
                b("y", "", &[]),
                q("ROLLBACK TO SAVEPOINT b"),
                p("", "SELECT name FROM users WHERE id = {k}"),
                b("y", "", &[]),
                e("y", 0),
                Sync,
            ],
        ),
        (
            "a Query that can't be read behind a write that made a batch one of two hosts",
            [
                run("INSERT INTO items (user_id, id, n) VALUES ({o}, 6, 7)"),
                run("SELECT id, note FROM items WHERE user_id = {j} ORDER BY id"),
                vec![Flush],
                run("SELECT id FROM items WHERE user_id = {k} ORDER BY id FOR UPDATE"),
                vec![q("SELEC 1"), Pause],
            ]
            .concat(),
        ),
        (
            "rows of a COPY for other hosts than that of the session's channels",
            vec![
                q("LISTEN ch"),
                q("BEGIN"),
                q("COPY items (user_id, id, n, note) FROM STDIN"),
                CopyData(b"{j}\t58\t1\tcopied\n{i}\t58\t1\tcopied\n".to_vec()),
                CopyDone,
                q("COMMIT"),
                q("NOTIFY ch"),
            ],
        ),
        (
            "SET CONSTRAINTS in a batch that comes to other hosts behind it",
            [
                run("SET CONSTRAINTS ALL IMMEDIATE"),
                run("UPDATE items SET n = 7 WHERE user_id IN ({k}, {j})"),
                run(LATE),
                vec![Sync],
            ]
            .concat(),
        ),
        (
            "SET LOCAL, SET CONSTRAINTS and SET TRANSACTION behind a write on two hosts are warned of",
            [
                run("UPDATE items SET n = 7 WHERE user_id IN ({k}, {j})"),
                run("SET LOCAL application_name = 'local me'"),
                run("SET CONSTRAINTS ALL DEFERRED"),
                run("SET TRANSACTION READ WRITE"),
                vec![Sync],
            ]
            .concat(),
        ),
        (
            "DECLARE behind a write on two hosts",
            [
                run("UPDATE items SET n = 7 WHERE user_id IN ({k}, {j})"),
                run("DECLARE c CURSOR FOR SELECT 1"),
                vec![Sync],
                run("UPDATE items SET n = 7 WHERE user_id IN ({k}, {j})"),
                vec![q("DECLARE c CURSOR FOR SELECT 1")],
                run("UPDATE items SET n = 7 WHERE user_id IN ({k}, {j})"),
                vec![q("DECLARE c CURSOR FOR SELECT 1; FETCH c")],
            ]
            .concat(),
        ),
        (
            "a write on two hosts that has given its rows is run again",
            vec![
                p(
                    "",
                    "UPDATE items SET n = 7 WHERE user_id IN ({k}, {j}) AND id = 1 RETURNING id",
                ),
                b("", "", &[]),
                e("", 0),
                e("", 0),
                Sync,
            ],
        ),
        (
            "the same outside of a block",
            vec![
                q("LISTEN ch"),
                q("COPY items (user_id, id, n, note) FROM STDIN"),
                CopyData(b"{j}\t58\t1\tcopied\n".to_vec()),
                CopyDone,
                q("NOTIFY ch"),
                q("COPY items (user_id, id, n, note) FROM STDIN"),
                CopyData(b"{j}\tx\t1\tcopied\n".to_vec()),
                CopyDone,
                q("NOTIFY ch"),
            ],
        ),
        (
            "locks of the session and of the transaction on one thing",
            vec![
                q("BEGIN"),
                q("SELECT pg_advisory_xact_lock(470)"),
                q("SELECT pg_advisory_lock(470)"),
                q("UPDATE items SET n = 7 WHERE user_id IN ({j}, {i})"),
                q("COMMIT"),
                q("SELECT pg_advisory_unlock_all()"),
            ],
        ),
        (
            "a cursor that is to outlive a write on several hosts",
            vec![
                q("BEGIN"),
                q("DECLARE h CURSOR WITH HOLD FOR SELECT g FROM generate_series(1, 9) g"),
                q("UPDATE items SET n = 7 WHERE user_id IN ({j}, {i})"),
                q("COMMIT"),
                q("FETCH h"),
                q("CLOSE h"),
            ],
        ),
        (
            "what is read only from the next transaction on is written on two hosts, and not committed",
            [
                run("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
                run("UPDATE items SET n = 7 WHERE user_id = {j}"),
                run("INSERT INTO items (user_id, id, n) VALUES ({i}, 61, 1) RETURNING user_id"),
            ]
            .concat(),
        ),
        (
            "the same, behind a read of several hosts",
            [
                run("SET default_transaction_read_only = on"),
                run(ALL),
                run("DELETE FROM users WHERE id = {j}"),
                run("UPDATE items SET n = 7 WHERE user_id = {i}"),
                vec![Sync, q("ROLLBACK")],
            ]
            .concat(),
        ),
        (
            "the same, committed",
            [
                run("SET default_transaction_read_only = on"),
                run(ALL),
                run("UPDATE items SET n = 7 WHERE user_id IN ({j}, {i})"),
                vec![Sync],
                run("UPDATE items SET n = 8 WHERE user_id IN ({j}, {i})"),
                vec![Sync],
            ]
            .concat(),
        ),
    ]
}
