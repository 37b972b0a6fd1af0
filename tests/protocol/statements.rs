//! Named statements: what Parse, Describe and Close of one say, and what outlives what.

use super::{BY_KEY, FAILS, ONE, Script, compare, step, twins};
use crate::support::Proxy;
use crate::support::raw::{b, cs, dp, ds, e, p, pbe, pt, q, s};

fn named_statements() -> Vec<Script> {
    vec![
        (
            "a name twice",
            vec![
                step(&[p("a", ONE), s(), p("a", BY_KEY), s()], 2),
                step(&[b("", "a", &[]), e("", 0), s()], 1),
            ],
        ),
        (
            "the unnamed one is replaced",
            vec![step(
                &[p("", ONE), p("", "SELECT 2"), b("", "", &[]), e("", 0), s()],
                1,
            )],
        ),
        (
            "Close, then the name is free",
            vec![step(
                &[
                    p("a", ONE),
                    cs("a"),
                    p("a", "SELECT 7"),
                    b("", "a", &[]),
                    e("", 0),
                    s(),
                ],
                1,
            )],
        ),
        (
            "Bind of a closed one",
            vec![step(
                &[
                    p("a", ONE),
                    s(),
                    cs("a"),
                    s(),
                    b("", "a", &[]),
                    e("", 0),
                    s(),
                ],
                3,
            )],
        ),
        (
            "Bind of none",
            vec![step(
                &[
                    b("", "a", &[]),
                    s(),
                    b("", "", &[]),
                    s(),
                    ds("a"),
                    s(),
                    e("x", 0),
                    s(),
                    dp("x"),
                    s(),
                ],
                5,
            )],
        ),
        (
            "a name is free after its Parse has failed",
            vec![
                step(
                    &[p("a", "SELECT nosuch FROM photos WHERE user_id = 1"), s()],
                    1,
                ),
                step(&[p("a", ONE), b("", "a", &[]), e("", 0), s()], 1),
            ],
        ),
        (
            "a name is free after its Parse has failed in a batch",
            vec![
                step(
                    &[
                        p("a", "SELECT nosuch FROM photos WHERE user_id = 1"),
                        b("", "a", &[]),
                        e("", 0),
                        s(),
                    ],
                    1,
                ),
                step(&[p("a", ONE), b("", "a", &[]), e("", 0), s()], 1),
            ],
        ),
        (
            "a Parse behind an error was never made",
            vec![
                step(
                    &[pbe(FAILS, &[]), p("a", ONE), b("", "a", &[]), e("", 0), s()],
                    1,
                ),
                step(&[b("", "a", &[]), e("", 0), s()], 1),
                step(&[p("a", "SELECT 3"), b("", "a", &[]), e("", 0), s()], 1),
            ],
        ),
        (
            "a Close behind an error was never made",
            vec![
                step(&[p("a", ONE), s()], 1),
                step(&[pbe(FAILS, &[]), cs("a"), s()], 1),
                step(&[b("", "a", &[]), e("", 0), s()], 1),
            ],
        ),
        (
            "a Parse before an error stays",
            vec![
                step(&[p("a", ONE), pbe(FAILS, &[]), s()], 1),
                step(&[b("", "a", &[]), e("", 0), s()], 1),
            ],
        ),
        (
            "a Parse and its failing Bind: the statement stays",
            vec![
                step(
                    &[
                        p("a", "SELECT 1 / $1::int FROM photos WHERE user_id = 1"),
                        b("", "a", &["0"]),
                        e("", 0),
                        s(),
                    ],
                    1,
                ),
                step(&[b("", "a", &["1"]), e("", 0), s()], 1),
            ],
        ),
        (
            "prepared in a transaction that is rolled back",
            vec![
                step(&[q("BEGIN")], 1),
                step(&[p("a", ONE), b("", "a", &[]), e("", 0), s()], 1),
                step(&[q("ROLLBACK")], 1),
                step(&[b("", "a", &[]), e("", 0), s()], 1),
            ],
        ),
        (
            "prepared in a failed transaction",
            vec![
                step(&[q("BEGIN"), q(FAILS)], 2),
                step(&[p("a", ONE), s()], 1),
                step(&[p("c", "COMMIT"), b("", "c", &[]), e("", 0), s()], 1),
                step(&[p("a", ONE), b("", "a", &[]), e("", 0), s()], 1),
            ],
        ),
        (
            "DEALLOCATE",
            vec![
                step(&[p("a", ONE), p("B", ONE), s()], 1),
                step(
                    &[
                        q("DEALLOCATE a"),
                        q("DEALLOCATE PREPARE \"B\""),
                        q("DEALLOCATE a"),
                        q("DEALLOCATE ALL"),
                    ],
                    4,
                ),
                step(&[b("", "a", &[]), s()], 1),
            ],
        ),
        (
            "DISCARD ALL",
            vec![
                step(
                    &[
                        p("a", ONE),
                        s(),
                        q("SET work_mem = '7MB'"),
                        q("DISCARD ALL"),
                        q("SHOW work_mem"),
                        b("", "a", &[]),
                        s(),
                    ],
                    5,
                ),
                step(&[q("BEGIN"), q("DISCARD ALL"), q("ROLLBACK")], 3),
            ],
        ),
        (
            "a statement of all kinds of parameters",
            vec![step(
                &[
                    pt(
                        "",
                        "SELECT $1::text, $2::int, caption FROM photos WHERE user_id = $3 ORDER BY id LIMIT $4",
                        &[],
                    ),
                    ds(""),
                    b("", "", &["t", "2", "1", "1"]),
                    dp(""),
                    e("", 0),
                    s(),
                ],
                1,
            )],
        ),
        (
            "described, and used on another shard",
            vec![
                step(&[p("a", BY_KEY), ds("a"), s()], 1),
                step(
                    &[
                        b("", "a", &["5"]),
                        e("", 0),
                        b("", "a", &["9"]),
                        e("", 0),
                        b("", "a", &["1"]),
                        e("", 0),
                        s(),
                    ],
                    1,
                ),
            ],
        ),
        (
            "described INSERT",
            vec![
                step(
                    &[
                        p(
                            "a",
                            "INSERT INTO photos (user_id, caption) VALUES ($1, $2) RETURNING caption",
                        ),
                        ds("a"),
                        s(),
                    ],
                    1,
                ),
                step(
                    &[
                        p("c", "UPDATE photos SET caption = $2 WHERE user_id = $1"),
                        ds("c"),
                        s(),
                    ],
                    1,
                ),
            ],
        ),
        (
            "described without rows",
            vec![
                step(&[p("", "BEGIN"), ds(""), s()], 1),
                step(&[p("", "SET work_mem = '1MB'"), ds(""), s()], 1),
                step(&[p("", "SHOW work_mem"), ds(""), s()], 1),
            ],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn named_statements_are_those_of_postgres() {
    compare(named_statements(), &Proxy::start(&twins().await.hosts)).await;
}
