//! Several messages at once: what is answered, in which order, and what an error leaves out.

use super::{BY_KEY, FAILS, ONE, Script, compare, step, twins};
use crate::support::Proxy;
use crate::support::raw::{b, bf, cp, cs, dp, ds, e, frame, h, p, pbe, pt, q, s};

fn pipelines() -> Vec<Script> {
    vec![
        (
            "parse, describe, sync; bind, execute, sync",
            vec![
                step(&[p("", BY_KEY), ds(""), s()], 1),
                step(&[b("", "", &["1"]), e("", 0), s()], 1),
                step(&[b("", "", &["5"]), dp(""), e("", 0), s()], 1),
            ],
        ),
        (
            "all at once",
            vec![step(
                &[
                    p("", BY_KEY),
                    ds(""),
                    b("", "", &["1"]),
                    dp(""),
                    e("", 0),
                    s(),
                ],
                1,
            )],
        ),
        (
            "several executes in one batch",
            vec![step(
                &[
                    pbe(ONE, &[]),
                    pbe(BY_KEY, &["5"]),
                    pbe("SELECT 1", &[]),
                    s(),
                ],
                1,
            )],
        ),
        (
            "several batches at once",
            vec![step(
                &[
                    pbe(ONE, &[]),
                    s(),
                    pbe(BY_KEY, &["5"]),
                    s(),
                    s(),
                    pbe("SELECT 1", &[]),
                    s(),
                ],
                4,
            )],
        ),
        (
            "binary parameters",
            vec![step(
                &[
                    pt("", BY_KEY, &[20]),
                    bf("", "", 1, &[Some(&1i64.to_be_bytes())]),
                    e("", 0),
                    s(),
                ],
                1,
            )],
        ),
        (
            "an error in the middle",
            vec![
                step(&[pbe(ONE, &[]), pbe(FAILS, &[]), pbe(ONE, &[]), s()], 1),
                step(&[q("SELECT 1")], 1),
            ],
        ),
        (
            "an error at the end",
            vec![step(&[pbe(ONE, &[]), pbe(FAILS, &[]), s()], 1)],
        ),
        (
            "an error, then the next batch",
            vec![step(&[pbe(FAILS, &[]), s(), pbe(ONE, &[]), s()], 2)],
        ),
        (
            "an error on one host, the next on another",
            vec![
                step(&[pbe(FAILS, &[]), pbe(BY_KEY, &["5"]), s()], 1),
                step(&[pbe(BY_KEY, &["5"]), s()], 1),
            ],
        ),
        (
            "an error on one host, after reading from another",
            vec![
                step(
                    &[
                        pbe(BY_KEY, &["5"]),
                        pbe(FAILS, &[]),
                        pbe(BY_KEY, &["5"]),
                        s(),
                    ],
                    1,
                ),
                step(&[pbe(BY_KEY, &["5"]), s()], 1),
            ],
        ),
        (
            "a Query before the Sync",
            vec![step(&[pbe(ONE, &[]), q("SELECT 1"), s()], 2)],
        ),
        (
            "a Query behind replies that no server owes",
            vec![
                step(&[cs("nosuch"), q("SELECT 1"), s()], 2),
                step(&[p("", ONE), b("", "", &[]), e("", 0), s()], 1),
                step(&[p("", ONE), cp("x"), q("BEGIN"), s(), q("ROLLBACK")], 3),
            ],
        ),
        (
            "a Query ends the portals of the batch before it, ours too",
            vec![step(
                &[
                    p("r", "ROLLBACK"),
                    b("x", "r", &[]),
                    e("x", 0),
                    h(),
                    q("SELECT 1"),
                    e("x", 1),
                    s(),
                ],
                2,
            )],
        ),
        (
            "what a failed block says first of a Parse",
            vec![
                step(&[p("a", ONE), q("BEGIN"), q(FAILS)], 2),
                step(
                    &[
                        p("a", "SELECT 1"),
                        s(),
                        p("", ""),
                        s(),
                        p("", ""),
                        b("", "", &[]),
                        s(),
                    ],
                    3,
                ),
                step(&[q("ROLLBACK")], 1),
            ],
        ),
        (
            "a Query after an error and before the Sync is ignored",
            vec![step(&[pbe(FAILS, &[]), q("SELECT 1"), s()], 1)],
        ),
        (
            "Flush",
            vec![step(
                &[
                    p("", ONE),
                    h(),
                    b("", "", &[]),
                    h(),
                    dp(""),
                    h(),
                    e("", 0),
                    h(),
                    s(),
                ],
                1,
            )],
        ),
        (
            "Flush after an error",
            vec![step(&[pbe(FAILS, &[]), h(), pbe(ONE, &[]), h(), s()], 1)],
        ),
        ("nothing but Sync", vec![step(&[s(), s()], 2)]),
        (
            "nothing but Parse",
            vec![
                step(&[p("a", ONE), s()], 1),
                step(&[b("", "a", &[]), e("", 0), s()], 1),
            ],
        ),
        (
            "empty query",
            vec![
                step(&[q(""), q("  "), q(";"), q("-- comment"), q(";;")], 5),
                step(&[pbe("", &[]), pbe(" ; ", &[]), s()], 1),
                step(
                    &[p("", ""), ds(""), b("", "", &[]), dp(""), e("", 0), s()],
                    1,
                ),
            ],
        ),
        (
            "several statements in a Parse",
            vec![
                step(&[pbe("SELECT 1; SELECT 2", &[]), s()], 1),
                step(&[q("SELECT 1")], 1),
            ],
        ),
        (
            "syntax error in a Parse",
            vec![step(&[pbe("SELECT 1 FROM", &[]), s()], 1)],
        ),
        (
            "error positions of Parse",
            vec![
                step(
                    &[p("", "SELECT nosuch FROM photos WHERE user_id = 1"), s()],
                    1,
                ),
                step(
                    &[
                        p(
                            "",
                            "SELECT caption FROM photos p WHERE user_id = $1 AND p.nosuch = 2",
                        ),
                        s(),
                    ],
                    1,
                ),
                step(
                    &[
                        p(
                            "",
                            "SELECT 'ä', photos.caption, likes.nosuch FROM photos JOIN likes USING (user_id) WHERE user_id = 1",
                        ),
                        s(),
                    ],
                    1,
                ),
            ],
        ),
        (
            "a wrong number of parameters",
            vec![
                step(&[p("", BY_KEY), b("", "", &["1", "2"]), e("", 0), s()], 1),
                step(&[q("SELECT 1")], 1),
            ],
        ),
        (
            "a parameter of the wrong form",
            vec![step(
                &[
                    p(
                        "",
                        "SELECT caption FROM photos WHERE user_id = 1 AND id = $1::int8 + 0",
                    ),
                    b("", "", &["x"]),
                    e("", 0),
                    s(),
                ],
                1,
            )],
        ),
        (
            "two parses in a row",
            vec![step(
                &[
                    p("a", ONE),
                    p("b", BY_KEY),
                    b("", "b", &["1"]),
                    e("", 0),
                    b("", "a", &[]),
                    e("", 0),
                    s(),
                ],
                1,
            )],
        ),
        (
            "a Parse between a portal's Bind and its Execute",
            vec![
                step(
                    &[
                        p("", ONE),
                        b("", "", &[]),
                        p(
                            "x1",
                            "SELECT 'x1', caption FROM photos WHERE user_id = 1 ORDER BY id",
                        ),
                        dp(""),
                        e("", 0),
                        b("", "x1", &[]),
                        e("", 0),
                        s(),
                    ],
                    1,
                ),
                step(
                    &[
                        p("", ONE),
                        b("", "", &[]),
                        p(
                            "x2",
                            "SELECT 'x2', caption FROM photos WHERE user_id = 1 ORDER BY id",
                        ),
                        e("", 0),
                        s(),
                    ],
                    1,
                ),
            ],
        ),
        (
            "a Parse between Bind and Execute of BEGIN",
            vec![
                step(
                    &[
                        p("", "BEGIN"),
                        b("", "", &[]),
                        p(
                            "x3",
                            "SELECT 'x3', caption FROM photos WHERE user_id = 1 ORDER BY id",
                        ),
                        e("", 0),
                        s(),
                    ],
                    1,
                ),
                step(&[q("ROLLBACK")], 1),
            ],
        ),
        (
            "a Close of nothing",
            vec![step(&[cs("nosuch"), cp("nosuch"), cs(""), cp(""), s()], 1)],
        ),
        (
            "a message that is too short",
            vec![
                step(&[frame(b'B', b"\0"), s()], 1),
                step(&[q("SELECT 1")], 1),
            ],
        ),
        (
            "a row of an empty SELECT",
            vec![step(&[pbe("SELECT", &[]), s()], 1), step(&[q("SELECT")], 1)],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelines_are_answered_as_by_postgres() {
    compare(pipelines(), &Proxy::start(&twins().await.hosts)).await;
}
