//! Portals and cursors, read in parts.

use super::{ALL, BY_KEY, ONE, SOME, Script, WRITE, compare, step, twins};
use crate::support::raw::{b, cp, dp, ds, e, p, pbe, q, s};
use crate::support::{Proxy, Raw};

fn portals() -> Vec<Script> {
    vec![
        (
            "row limits in a transaction",
            vec![
                step(&[q("BEGIN")], 1),
                step(&[p("", ONE), b("c", "", &[]), e("c", 1), s()], 1),
                step(&[e("c", 1), e("c", 0), e("c", 0), s()], 1),
                step(&[dp("c"), cp("c"), e("c", 1), s()], 1),
                step(&[q("COMMIT")], 1),
            ],
        ),
        (
            "row limits without one",
            vec![
                step(&[p("", ONE), b("", "", &[]), e("", 2), e("", 2), s()], 1),
                step(&[e("", 2), s()], 1),
            ],
        ),
        (
            "row limits over several shards",
            vec![
                step(
                    &[
                        p("", SOME),
                        b("", "", &[]),
                        dp(""),
                        e("", 2),
                        e("", 3),
                        e("", 5),
                        e("", 5),
                        e("", 0),
                        s(),
                    ],
                    1,
                ),
                step(&[e("", 2), s()], 1),
                step(&[p("", SOME), b("", "", &[]), e("", 6), e("", 1), s()], 1),
                step(&[p("", SOME), b("", "", &[]), e("", 7), e("", 7), s()], 1),
                step(
                    &[
                        p("", SOME),
                        b("", "", &[]),
                        e("", 0),
                        e("", 0),
                        e("", 1),
                        s(),
                    ],
                    1,
                ),
                step(&[p("", SOME), b("", "", &[]), e("", u32::MAX), s()], 1),
                step(
                    &[
                        p("", "SELECT caption FROM photos WHERE false"),
                        b("", "", &[]),
                        e("", 1),
                        s(),
                    ],
                    1,
                ),
                step(&[p("", ALL), b("", "", &[]), e("", 4), e("", 0), s()], 1),
                step(
                    &[
                        p("", "SELECT count(*) FROM photos WHERE user_id IN (1, 5)"),
                        b("", "", &[]),
                        e("", 1),
                        e("", 1),
                        s(),
                    ],
                    1,
                ),
            ],
        ),
        (
            "row limits over several shards in a transaction",
            vec![
                step(&[q("BEGIN")], 1),
                step(
                    &[
                        p("a", SOME),
                        b("c", "a", &[]),
                        b("d", "a", &[]),
                        e("c", 1),
                        s(),
                    ],
                    1,
                ),
                step(&[e("d", 4), e("c", 1), s()], 1),
                step(&[q(WRITE), e("c", 1), dp("c"), e("d", 1), s()], 2),
                step(&[b("c", "a", &[]), s()], 1),
                step(&[e("c", 0), s()], 1),
                step(&[q("ROLLBACK")], 1),
                step(
                    &[
                        q("BEGIN"),
                        b("c", "a", &[]),
                        e("c", 1),
                        cp("c"),
                        e("c", 1),
                        s(),
                    ],
                    2,
                ),
                step(&[q("ROLLBACK")], 1),
                step(&[q("BEGIN"), b("c", "a", &[]), e("c", 1), s()], 2),
                step(&[q("COMMIT"), e("c", 1), s()], 2),
            ],
        ),
        (
            "a failure while portals over several shards are read in parts",
            vec![
                step(
                    &[q("BEGIN"), p("a", SOME), b("c", "a", &[]), e("c", 1), s()],
                    2,
                ),
                step(&[q("SELECT 1 / 0"), e("c", 1), s()], 2),
                step(&[q("ROLLBACK")], 1),
                step(
                    &[
                        p(
                            "",
                            "SELECT 1 / (user_id - 5) FROM photos WHERE user_id IN (1, 5) ORDER BY user_id DESC",
                        ),
                        b("", "", &[]),
                        e("", 2),
                        e("", 2),
                        s(),
                    ],
                    1,
                ),
                step(
                    &[p("", SOME), b("", "", &[]), e("", 2), s(), q("SELECT 1")],
                    2,
                ),
            ],
        ),
        (
            "two portals on two hosts",
            vec![
                step(&[q("BEGIN")], 1),
                step(
                    &[
                        p("a", BY_KEY),
                        b("x", "a", &["1"]),
                        b("y", "a", &["5"]),
                        e("x", 1),
                        e("y", 1),
                        e("x", 1),
                        e("y", 1),
                        s(),
                    ],
                    1,
                ),
                step(&[e("y", 0), e("x", 0), s()], 1),
                step(&[q("COMMIT")], 1),
                step(&[e("y", 0), s()], 1),
            ],
        ),
        (
            "a portal's name twice, one of them ours",
            vec![
                step(&[q("BEGIN")], 1),
                step(
                    &[
                        p("a", BY_KEY),
                        b("x", "a", &["1"]),
                        p("", "SHOW work_mem"),
                        p("c", "SAVEPOINT a"),
                        b("x", "c", &[]),
                        s(),
                    ],
                    1,
                ),
                step(&[q("ROLLBACK"), q("BEGIN")], 2),
                step(
                    &[
                        p("d", "SAVEPOINT a"),
                        b("x", "d", &[]),
                        b("x", "a", &["9"]),
                        s(),
                    ],
                    1,
                ),
                step(&[q("ROLLBACK")], 1),
            ],
        ),
        (
            "parameters for what has none",
            vec![step(&[p("", "BEGIN"), b("", "", &["1"]), e("", 0), s()], 1)],
        ),
        (
            "a portal's name twice",
            vec![
                step(&[q("BEGIN")], 1),
                step(
                    &[
                        p("a", BY_KEY),
                        b("x", "a", &["1"]),
                        b("x", "a", &["9"]),
                        s(),
                    ],
                    1,
                ),
                step(&[q("ROLLBACK")], 1),
            ],
        ),
        (
            "a portal across Sync outside a transaction",
            vec![step(&[p("", ONE), b("x", "", &[]), s(), e("x", 0), s()], 2)],
        ),
        (
            "describe of portals",
            vec![step(
                &[
                    p("", ONE),
                    b("x", "", &[]),
                    dp("x"),
                    b("", "", &[]),
                    dp(""),
                    e("x", 0),
                    e("", 0),
                    s(),
                ],
                1,
            )],
        ),
        (
            "INSERT with a row limit",
            vec![
                step(
                    &[
                        p(
                            "",
                            "INSERT INTO likes (user_id, photo_id) VALUES (1, 1), (1, 2) RETURNING photo_id",
                        ),
                        b("", "", &[]),
                        e("", 1),
                        s(),
                    ],
                    1,
                ),
                step(&[q("DELETE FROM likes WHERE user_id = 1")], 1),
            ],
        ),
        (
            "DECLARE, FETCH, CLOSE",
            vec![
                step(
                    &[q(
                        "DECLARE c CURSOR FOR SELECT caption FROM photos WHERE user_id = 5 ORDER BY id",
                    )],
                    1,
                ),
                step(
                    &[
                        q("BEGIN"),
                        q(
                            "DECLARE c CURSOR FOR SELECT caption FROM photos WHERE user_id = 5 ORDER BY id",
                        ),
                    ],
                    2,
                ),
                step(
                    &[
                        q(ONE),
                        q("FETCH 1 FROM c"),
                        q("FETCH NEXT FROM c"),
                        q("MOVE c"),
                        q("FETCH ALL c"),
                        q("CLOSE c"),
                        q("FETCH c"),
                    ],
                    7,
                ),
                step(&[q("ROLLBACK")], 1),
            ],
        ),
        (
            "DECLARE, FETCH, CLOSE in the extended protocol",
            vec![
                step(&[q("BEGIN")], 1),
                step(
                    &[
                        pbe(
                            "DECLARE c CURSOR FOR SELECT caption FROM photos WHERE user_id = $1 ORDER BY id",
                            &["5"],
                        ),
                        s(),
                    ],
                    1,
                ),
                step(&[pbe(ONE, &[]), s()], 1),
                step(&[pbe("FETCH 1 FROM c", &[]), s()], 1),
                step(
                    &[
                        p("", "FETCH FORWARD 1 FROM c"),
                        ds(""),
                        b("", "", &[]),
                        dp(""),
                        e("", 0),
                        s(),
                    ],
                    1,
                ),
                step(&[pbe("CLOSE c", &[]), pbe("CLOSE ALL", &[]), s()], 1),
                step(&[q("COMMIT")], 1),
            ],
        ),
        (
            "a cursor in one Query",
            vec![step(
                &[
                    q(
                        "BEGIN; DECLARE c CURSOR FOR SELECT caption FROM photos WHERE user_id = 5 ORDER BY id; FETCH 2 FROM c",
                    ),
                    q("FETCH c"),
                    q("CLOSE c; COMMIT"),
                ],
                3,
            )],
        ),
    ]
}

/// Of the unnamed portal no more is left behind statements that have none to themselves: it is gone, and gives nobody else's rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_unnamed_portal_gives_its_own_rows_or_none() {
    let proxy = Proxy::start(&twins().await.hosts);
    let mut faults = Vec::new();
    for other in [
        SOME,
        "SELECT count(*) FROM photos WHERE user_id IN (1, 5)",
        "COPY photos TO STDOUT",
        "UPDATE photos SET caption = caption WHERE user_id IN (1, 5)",
        "SET work_mem = '7MB'",
        "SAVEPOINT a",
        "SHOW work_mem",
        "SELECT caption FROM photos WHERE user_id = 5",
    ] {
        let bound = [
            p("a", BY_KEY),
            p("other", other),
            b("", "a", &["1"]),
            b("x", "other", &[]),
        ];
        let described = [&bound[..], &[dp("x"), e("", 1), s()]].concat();
        let executed = [&bound[..], &[e("x", 0), e("", 1), s()]].concat();
        for script in [described, executed] {
            for begin in ["BEGIN", "SELECT 1"] {
                let mut raw = Raw::connect(proxy.addr());
                raw.query(begin);
                let answer = raw.ask(&script.concat(), 1);
                let last = &answer[answer.len().saturating_sub(3)..answer.len() - 1];
                let whole = last == ["D u1p1", "s"];
                let gone = last.last().is_some_and(|line| line.contains("C34000"));
                // Outside of a block there is no savepoint.
                let before = last.last().is_some_and(|line| line.contains("C25P01"));
                if !(whole || gone || before) {
                    faults.push(format!("{begin}; {other}: {answer:#?}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn portals_and_cursors_are_those_of_postgres() {
    compare(portals(), &Proxy::start(&twins().await.hosts)).await;
}
