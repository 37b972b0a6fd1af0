//! COPY in both directions, with all that may come in its place.

use super::{Script, compare, step, twins};
use crate::support::Proxy;
use crate::support::raw::{b, d, done, e, fail, h, p, q, s};

fn copies() -> Vec<Script> {
    const IN: &str = "COPY likes (user_id, photo_id) FROM STDIN /* presplit: key=1 */";
    const COUNT: &str = "SELECT count(*) FROM likes WHERE user_id = 1";
    const CLEAN: &str = "DELETE FROM likes WHERE user_id = 1";
    const OUT: &str = "COPY (SELECT caption FROM photos WHERE user_id = 1 ORDER BY id) TO STDOUT";
    let x = |sql: &str| [p("", sql), b("", "", &[]), e("", 0)].concat();
    vec![
        ("out", vec![step(&[q(OUT)], 1), step(&[x(OUT), s()], 1)]),
        (
            "out, then more",
            vec![step(
                &[x(OUT), x("SELECT 1"), s(), q(OUT), q("SELECT 1")],
                3,
            )],
        ),
        (
            "in",
            vec![step(
                &[
                    q(IN),
                    d("1\t10\n1\t11\n"),
                    d("1\t12\n"),
                    done(),
                    q(COUNT),
                    q(CLEAN),
                ],
                3,
            )],
        ),
        (
            "in, a line cut in two",
            vec![step(
                &[
                    q(IN),
                    d("1\t1"),
                    d("0\n1\t"),
                    d("11\n"),
                    done(),
                    q(COUNT),
                    q(CLEAN),
                ],
                3,
            )],
        ),
        ("in, nothing", vec![step(&[q(IN), done(), q(COUNT)], 2)]),
        (
            "in, CopyFail",
            vec![step(&[q(IN), d("1\t10\n"), fail("no more"), q(COUNT)], 2)],
        ),
        (
            "in, an error in the data",
            vec![step(
                &[
                    q(IN),
                    d("1\t10\n"),
                    d("x\ty\n"),
                    d("1\t11\n"),
                    done(),
                    q(COUNT),
                ],
                2,
            )],
        ),
        (
            "in, an error at once",
            vec![step(
                &[
                    q("COPY likes (nosuch) FROM STDIN /* presplit: key=1 */"),
                    d("1\n"),
                    done(),
                    q(COUNT),
                ],
                2,
            )],
        ),
        (
            "in, in a block",
            vec![step(
                &[
                    q("BEGIN"),
                    q(IN),
                    d("1\t10\n"),
                    done(),
                    q(COUNT),
                    q("ROLLBACK"),
                    q(COUNT),
                ],
                5,
            )],
        ),
        (
            "in, fails in a block",
            vec![step(
                &[
                    q("BEGIN"),
                    q(IN),
                    fail("x"),
                    q(COUNT),
                    q("ROLLBACK"),
                    q(COUNT),
                ],
                5,
            )],
        ),
        (
            "in, extended, Sync at once",
            vec![step(
                &[x(IN), s(), d("1\t10\n"), done(), s(), q(COUNT), q(CLEAN)],
                3,
            )],
        ),
        (
            "in, extended, Flush first",
            vec![step(
                &[x(IN), h(), d("1\t10\n"), done(), s(), q(COUNT), q(CLEAN)],
                3,
            )],
        ),
        (
            "in, extended, no Sync at first",
            vec![step(
                &[x(IN), d("1\t10\n"), done(), s(), q(COUNT), q(CLEAN)],
                3,
            )],
        ),
        (
            "in, extended, CopyFail",
            vec![step(
                &[x(IN), s(), d("1\t10\n"), fail("no"), s(), q(COUNT)],
                2,
            )],
        ),
        (
            "in, extended, an error in the data",
            vec![step(
                &[x(IN), s(), d("x\n"), d("1\t10\n"), done(), s(), q(COUNT)],
                2,
            )],
        ),
        (
            "in, extended, then more",
            vec![step(
                &[x(IN), d("1\t10\n"), done(), x(COUNT), s(), q(CLEAN)],
                2,
            )],
        ),
        (
            "CopyData out of place",
            vec![step(&[d("1\n"), done(), fail("x"), q("SELECT 1")], 1)],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_is_that_of_postgres() {
    compare(copies(), &Proxy::start(&twins().await.hosts)).await;
}
