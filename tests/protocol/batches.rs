//! Batches between two Syncs as transactions: what an error undoes, what BEGIN, COMMIT, SET and SAVEPOINT in one do.

use super::{BY_KEY, CLEAN, FAILS, NONE, ONE, Script, WRITE, compare, step, twins};
use crate::support::raw::{b, e, h, p, pbe, q, s};
use crate::support::{Proxy, Raw};

const BOTH_OF_ONE_HOST: &str = "SELECT user_id FROM photos WHERE user_id IN (1, 2) ORDER BY id";

const COUNT_OF_ONE_HOST: &str = "SELECT count(*) FROM photos WHERE user_id IN (1, 2)";

fn batches() -> Vec<Script> {
    vec![
        (
            "what was written before an error is undone",
            vec![
                step(&[pbe(WRITE, &[]), pbe(FAILS, &[]), s()], 1),
                step(&[q(NONE)], 1),
            ],
        ),
        (
            "what was written is undone by an error on another host",
            vec![
                step(
                    &[
                        pbe(WRITE, &[]),
                        pbe(
                            "SELECT 1 / (user_id - 5) FROM photos WHERE user_id = 5",
                            &[],
                        ),
                        s(),
                    ],
                    1,
                ),
                step(&[q(NONE)], 1),
            ],
        ),
        (
            "what was written is undone by a wrong Bind",
            vec![
                step(&[pbe(WRITE, &[]), b("", "nosuch", &[]), e("", 0), s()], 1),
                step(&[q(NONE)], 1),
            ],
        ),
        (
            "what was written is undone by a wrong Parse",
            vec![
                step(
                    &[
                        pbe(WRITE, &[]),
                        p("", "SELECT nosuch FROM photos WHERE user_id = 1"),
                        s(),
                    ],
                    1,
                ),
                step(&[q(NONE)], 1),
            ],
        ),
        (
            "written, and then read on another host",
            vec![
                step(&[pbe(WRITE, &[]), pbe(BY_KEY, &["5"]), s()], 1),
                step(&[q(NONE), q(CLEAN)], 2),
            ],
        ),
        (
            "SET TRANSACTION of a batch holds behind a read of several shards",
            vec![
                step(
                    &[
                        pbe("SET TRANSACTION READ ONLY", &[]),
                        pbe(BOTH_OF_ONE_HOST, &[]),
                        pbe(WRITE, &[]),
                        s(),
                    ],
                    1,
                ),
                step(
                    &[
                        pbe("SET TRANSACTION READ ONLY", &[]),
                        pbe(BOTH_OF_ONE_HOST, &[]),
                        pbe("SHOW transaction_read_only", &[]),
                        q(WRITE),
                    ],
                    1,
                ),
                step(
                    &[
                        pbe("SET TRANSACTION READ ONLY", &[]),
                        pbe(COUNT_OF_ONE_HOST, &[]),
                        pbe(WRITE, &[]),
                        s(),
                    ],
                    1,
                ),
                step(
                    &[
                        pbe("SET LOCAL default_transaction_read_only = on", &[]),
                        pbe("SET LOCAL work_mem = '7MB'", &[]),
                        pbe(BOTH_OF_ONE_HOST, &[]),
                        pbe("SHOW work_mem", &[]),
                        s(),
                    ],
                    1,
                ),
                step(&[q(NONE)], 1),
            ],
        ),
        (
            "BEGIN in the batch",
            vec![
                step(
                    &[pbe("BEGIN", &[]), pbe(WRITE, &[]), pbe("COMMIT", &[]), s()],
                    1,
                ),
                step(&[q(NONE), q(CLEAN)], 2),
            ],
        ),
        (
            "BEGIN in the batch, then an error",
            vec![
                step(
                    &[
                        pbe("BEGIN", &[]),
                        pbe(WRITE, &[]),
                        pbe(FAILS, &[]),
                        pbe("COMMIT", &[]),
                        s(),
                    ],
                    1,
                ),
                step(&[pbe("COMMIT", &[]), s()], 1),
                step(&[q(NONE)], 1),
            ],
        ),
        (
            "an error first, COMMIT behind it",
            vec![
                step(&[pbe("BEGIN", &[]), s()], 1),
                step(&[pbe(FAILS, &[]), pbe("COMMIT", &[]), s()], 1),
                step(&[pbe("ROLLBACK", &[]), s()], 1),
            ],
        ),
        (
            "an error, then BEGIN and others behind it",
            vec![
                step(&[pbe(FAILS, &[]), pbe("BEGIN", &[]), pbe(ONE, &[]), s()], 1),
                step(&[q(ONE)], 1),
            ],
        ),
        (
            "an error, then SET behind it",
            vec![
                step(&[pbe(FAILS, &[]), pbe("SET work_mem = '7MB'", &[]), s()], 1),
                step(&[q("SHOW work_mem")], 1),
            ],
        ),
        (
            "an error, then SAVEPOINT behind it",
            vec![
                step(&[q("BEGIN")], 1),
                step(&[pbe(FAILS, &[]), pbe("SAVEPOINT a", &[]), s()], 1),
                step(&[q("ROLLBACK")], 1),
            ],
        ),
        (
            "BEGIN after a write of the same batch",
            vec![
                step(
                    &[pbe(WRITE, &[]), pbe("BEGIN", &[]), pbe(WRITE, &[]), s()],
                    1,
                ),
                step(&[q("ROLLBACK"), q(NONE)], 2),
            ],
        ),
        (
            "BEGIN after reads on two hosts",
            vec![
                step(
                    &[pbe(BY_KEY, &["5"]), pbe(ONE, &[]), pbe("BEGIN", &[]), s()],
                    1,
                ),
                step(
                    &[q(
                        "INSERT INTO photos (user_id, caption) VALUES (5, 'written')",
                    )],
                    1,
                ),
                step(
                    &[
                        q("ROLLBACK"),
                        q("SELECT count(*) FROM photos WHERE user_id = 5"),
                    ],
                    2,
                ),
            ],
        ),
        (
            "ROLLBACK ends the implicit transaction",
            vec![
                step(&[pbe(WRITE, &[]), pbe("ROLLBACK", &[]), s()], 1),
                step(&[q(NONE)], 1),
            ],
        ),
        (
            "COMMIT ends the implicit transaction",
            vec![
                step(
                    &[
                        pbe(WRITE, &[]),
                        pbe("COMMIT", &[]),
                        pbe(WRITE, &[]),
                        pbe(FAILS, &[]),
                        s(),
                    ],
                    1,
                ),
                step(&[q(NONE), q(CLEAN)], 2),
            ],
        ),
        (
            "SET in the middle of a batch does not commit it",
            vec![
                step(
                    &[
                        pbe(WRITE, &[]),
                        pbe("SET work_mem = '7MB'", &[]),
                        pbe(FAILS, &[]),
                        s(),
                    ],
                    1,
                ),
                step(&[q(NONE), q("SHOW work_mem"), q(CLEAN)], 3),
            ],
        ),
        (
            "SET and RESET in a batch",
            vec![
                step(
                    &[
                        pbe("SET work_mem = '7MB'", &[]),
                        pbe("SHOW work_mem", &[]),
                        s(),
                    ],
                    1,
                ),
                step(
                    &[pbe("RESET work_mem", &[]), pbe("SHOW work_mem", &[]), s()],
                    1,
                ),
                step(
                    &[
                        pbe("SET work_mem = '6MB'", &[]),
                        pbe("SELECT 1/0", &[]),
                        s(),
                    ],
                    1,
                ),
                step(&[pbe("SHOW work_mem", &[]), s()], 1),
            ],
        ),
        (
            "set_config in a batch that fails",
            vec![
                step(
                    &[
                        pbe("SELECT set_config('work_mem', '7MB', false)", &[]),
                        pbe(FAILS, &[]),
                        s(),
                    ],
                    1,
                ),
                step(&[q("SHOW work_mem")], 1),
                step(
                    &[
                        pbe("SELECT set_config($1, $2, false)", &["work_mem", "8MB"]),
                        s(),
                    ],
                    1,
                ),
                step(&[q("SHOW work_mem")], 1),
            ],
        ),
        (
            "a wrong SET in a batch",
            vec![
                step(&[pbe("SET work_mem = 'x'", &[]), pbe(WRITE, &[]), s()], 1),
                step(&[q(NONE)], 1),
                step(&[q("BEGIN")], 1),
                step(&[pbe("SET work_mem = 'x'", &[]), pbe(WRITE, &[]), s()], 1),
                step(&[q("COMMIT"), q(NONE)], 2),
            ],
        ),
        (
            "SET in a batch, and BEGIN, and ROLLBACK",
            vec![
                step(
                    &[
                        pbe("SET work_mem = '7MB'", &[]),
                        pbe("BEGIN", &[]),
                        pbe(ONE, &[]),
                        s(),
                    ],
                    1,
                ),
                step(&[q("ROLLBACK"), q("SHOW work_mem")], 2),
            ],
        ),
        (
            "a wrong ROLLBACK TO in a batch",
            vec![
                step(&[q("BEGIN")], 1),
                step(
                    &[
                        pbe(WRITE, &[]),
                        pbe("ROLLBACK TO nosuch", &[]),
                        pbe(WRITE, &[]),
                        s(),
                    ],
                    1,
                ),
                step(&[q("COMMIT"), q(NONE)], 2),
            ],
        ),
        (
            "all of a transaction with savepoints in one batch",
            vec![
                step(
                    &[
                        pbe("BEGIN", &[]),
                        pbe("SAVEPOINT a", &[]),
                        pbe(WRITE, &[]),
                        pbe("ROLLBACK TO a", &[]),
                        pbe(NONE, &[]),
                        pbe("COMMIT", &[]),
                        s(),
                    ],
                    1,
                ),
                step(&[q(NONE)], 1),
            ],
        ),
        (
            "a deferred error at Sync",
            vec![
                step(
                    &[q(
                        "INSERT INTO users (id, name) VALUES (1, 'one') ON CONFLICT DO NOTHING",
                    )],
                    1,
                ),
                step(
                    &[
                        pbe("SET work_mem = '7MB'", &[]),
                        pbe("DECLARE c CURSOR FOR SELECT 1", &[]),
                        s(),
                    ],
                    1,
                ),
                step(&[q("SHOW work_mem")], 1),
            ],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_of_batches_are_those_of_postgres() {
    compare(batches(), &Proxy::start(&twins().await.hosts)).await;
}

/// A batch of a session that wants one snapshot has it, also behind a read of several shards of its host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_keeps_its_snapshot() {
    const LIKES: &str = "SELECT count(*) FROM likes WHERE user_id = 26";
    let proxy = Proxy::start(&twins().await.hosts);
    let (mut reader, mut writer) = (Raw::connect(proxy.addr()), Raw::connect(proxy.addr()));
    reader.query("SET default_transaction_isolation = 'repeatable read'");
    reader.send(&[pbe(LIKES, &[]), pbe(BOTH_OF_ONE_HOST, &[]), h()].concat());
    let mut read = 0;
    reader.until(|line| {
        read += usize::from(line.starts_with("C SELECT"));
        read == 2
    });
    writer.query("INSERT INTO likes (user_id, photo_id) VALUES (26, 1)");
    let answer = reader.ask(&[pbe(LIKES, &[]), s()].concat(), 1);
    writer.query("DELETE FROM likes WHERE user_id = 26");
    assert!(answer.contains(&"D 0".to_owned()), "{answer:?}");
}
