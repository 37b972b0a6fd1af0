//! The wire, frame by frame: each script is sent to one Postgres and through the proxy, and the replies must be the same,
//! in the same order, down to command tags, error positions and transaction status.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::OnceCell;

use crate::support::raw::{b, bf, cp, cs, d, done, dp, ds, e, fail, frame, h, p, pbe, pt, q, s};
use crate::support::{Cluster, Hosts, Proxy, Raw};

/// Hosts of 8 shards, and one Postgres with the same rows. User 1 and 9 are of shard 1 on host a, user 5 of shard 5 on b.
pub struct Twins {
    pub hosts: Hosts,
    plain: Cluster,
}

pub async fn twins() -> &'static Twins {
    static TWINS: OnceCell<Twins> = OnceCell::const_new();
    TWINS
        .get_or_init(|| async {
            let hosts = Hosts::provisioned(2, 8).await;
            let plain = Cluster::new();
            let direct = plain.client().await;
            direct.batch_execute(presplit::ops::demo::SCHEMA).await.unwrap();
            let countries = "INSERT INTO countries (code, name) VALUES ('at', 'Austria')";
            direct.batch_execute(countries).await.unwrap();
            for i in 0..2 {
                hosts.client(i).await.batch_execute(countries).await.unwrap();
            }
            let proxy = Proxy::start(&hosts);
            let through = proxy.client().await;
            for user in [1i64, 5, 9] {
                for n in 1..=3 {
                    let id = (n << 23) | ((user % 8) << 10) | user;
                    let sql = format!("INSERT INTO photos (id, user_id, caption) VALUES ({id}, {user}, 'u{user}p{n}')");
                    direct.batch_execute(&sql).await.unwrap();
                    through.batch_execute(&sql).await.unwrap();
                }
            }
            Twins { hosts, plain }
        })
        .await
}

impl Twins {
    fn plain(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.plain.port()))
    }
}

/// What is sent at once, and how many ReadyForQuery answer it.
pub type Step = (Vec<u8>, usize);
pub type Script = (&'static str, Vec<Step>);

pub fn step(frames: &[Vec<u8>], ready: usize) -> Step {
    (frames.concat(), ready)
}

fn converse(addr: SocketAddr, steps: &[Step]) -> Vec<String> {
    let run = || {
        let mut raw = Raw::connect(addr);
        let mut lines = Vec::new();
        for (bytes, ready) in steps {
            lines.extend(raw.ask(bytes, *ready));
        }
        raw.assert_silent();
        lines.into_iter().map(anonymous).collect()
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        vec![
            panic
                .downcast_ref::<String>()
                .cloned()
                .unwrap_or_else(|| "panicked".to_owned()),
        ]
    })
}

/// The one message of Postgres in which a server-side statement's own name is seen.
fn anonymous(line: String) -> String {
    match (
        line.find("but prepared statement \""),
        line.find("\" requires"),
    ) {
        (Some(from), Some(to)) => format!("{}{}", &line[..from], &line[to..]),
        _ => line,
    }
}

static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Runs all scripts on both, and shows every difference.
pub async fn compare(scripts: Vec<Script>, proxy: &Proxy) {
    // Scripts of other tests write the same rows.
    let _turn = TURN.lock().await;
    let plain = twins().await.plain();
    let mut faults = Vec::new();
    for (name, steps) in &scripts {
        let (expected, got) = (converse(plain, steps), converse(proxy.addr(), steps));
        if expected != got {
            faults.push(format!(
                "{name}:\n  postgres: {expected:#?}\n  presplit: {got:#?}"
            ));
        }
    }
    assert!(
        faults.is_empty(),
        "{} of {} scripts differ\n{}",
        faults.len(),
        scripts.len(),
        faults.join("\n")
    );
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
}

const ONE: &str = "SELECT caption FROM photos WHERE user_id = 1 ORDER BY caption";
const BY_KEY: &str = "SELECT caption FROM photos WHERE user_id = $1 ORDER BY caption";
const SOME: &str = "SELECT user_id, caption FROM photos WHERE user_id IN (1, 5) ORDER BY caption";
const ALL: &str = "SELECT caption FROM photos WHERE user_id IN (1, 5)";
const NONE: &str = "SELECT count(*) FROM photos WHERE user_id = 1 AND caption = 'written'";
const WRITE: &str = "INSERT INTO photos (user_id, caption) VALUES (1, 'written')";
const CLEAN: &str = "DELETE FROM photos WHERE user_id = 1 AND caption = 'written'";
const FAILS: &str = "SELECT 1 / (user_id - 1) FROM photos WHERE user_id = 1";

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

fn settings() -> Vec<Script> {
    let of =
        |sql: &'static [&'static str]| sql.iter().map(|sql| step(&[q(sql)], 1)).collect::<Vec<_>>();
    vec![
        (
            "SET, SHOW, RESET",
            of(&[
                "SET work_mem TO '7MB'",
                "SHOW work_mem",
                "SET work_mem TO DEFAULT",
                "SHOW work_mem",
                "SET SESSION work_mem = 7000",
                "RESET work_mem",
                "SHOW work_mem",
            ]),
        ),
        (
            "spellings of their own",
            of(&[
                "SET TIME ZONE 'Europe/Vienna'",
                "SHOW timezone",
                "SHOW TIME ZONE",
                "SET TIME ZONE LOCAL",
                "SHOW timezone",
                "SET NAMES 'LATIN1'",
                "SHOW client_encoding",
                "SET client_encoding = 'utf-8'",
                "SHOW client_encoding",
                "SET client_encoding TO \"'iso 8859-15'\"",
                "SHOW client_encoding",
                "SET client_encoding TO 'utf8nothing'",
                "SHOW client_encoding",
                "RESET client_encoding",
                "SHOW client_encoding",
            ]),
        ),
        (
            "lists",
            of(&[
                "SET DateStyle = 'SQL', 'DMY'",
                "SHOW datestyle",
                "SET search_path TO a, b, \"C d\"",
                "SHOW search_path",
                "RESET ALL",
                "SHOW search_path",
            ]),
        ),
        (
            "errors",
            of(&[
                "SET nosuch = 1",
                "SET work_mem = 'x'",
                "SHOW nosuch",
                "RESET nosuch",
                "SET work_mem",
                "SET LOCAL",
            ]),
        ),
        (
            "custom ones",
            of(&[
                "SET app.me = '42'",
                "SHOW app.me",
                "SELECT current_setting('app.me')",
                "RESET app.me",
                "SHOW app.me",
                "SET app.user = 1",
                "SHOW app.nosuch",
            ]),
        ),
        (
            "set_config",
            of(&[
                "SELECT set_config('work_mem', '7MB', false)",
                "SHOW work_mem",
                "BEGIN",
                "SELECT set_config('work_mem', '8MB', true)",
                "SHOW work_mem",
                "COMMIT",
                "SHOW work_mem",
                "SELECT pg_catalog.set_config('search_path', '', false)",
                "SHOW search_path",
            ]),
        ),
        (
            "several set_config at once",
            of(&[
                "SELECT set_config('work_mem', '7MB', false), set_config('app.a', 'x', false)",
                // asyncpg, before it looks types up.
                "SELECT current_setting('work_mem') AS cur, set_config('work_mem', '6MB', false) AS new",
                "SHOW work_mem",
                "SELECT current_setting('app.nothing', true), pg_catalog.set_config('app.a', 'y', false)",
                "SHOW app.a",
                "SHOW work_mem",
                "SHOW app.a",
                "SELECT caption FROM photos WHERE user_id = 5 ORDER BY id",
                "SHOW app.a",
            ]),
        ),
        (
            "characteristics",
            of(&[
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
                "SHOW transaction_read_only",
                WRITE,
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
                "SHOW transaction_read_only",
                "SHOW default_transaction_read_only",
            ]),
        ),
        (
            "role",
            of(&[
                "SET ROLE app",
                "SELECT current_user",
                "SET ROLE NONE",
                "SET ROLE nosuch",
                "RESET ROLE",
                "SELECT current_user",
            ]),
        ),
        (
            "SHOW in the extended protocol",
            vec![step(
                &[
                    p("", "SHOW work_mem"),
                    ds(""),
                    b("", "", &[]),
                    dp(""),
                    e("", 0),
                    s(),
                ],
                1,
            )],
        ),
        (
            "timeouts",
            of(&[
                "SET statement_timeout = 50",
                "SELECT pg_sleep(1)",
                "SELECT 1",
                "SET statement_timeout = 0",
                "SELECT pg_sleep(0.06) IS NULL",
            ]),
        ),
        ("seed", of(&["SET SEED TO 0.5", "SELECT 1", "RESET seed"])),
        (
            "constraints",
            of(&[
                "SET CONSTRAINTS ALL DEFERRED",
                "BEGIN",
                "SET CONSTRAINTS ALL IMMEDIATE",
                "SELECT 1",
                "COMMIT",
            ]),
        ),
        (
            "notices",
            of(&["DO $$ BEGIN RAISE NOTICE 'hello'; END $$ /* presplit: key=1 */"]),
        ),
        (
            "cursors and discards",
            of(&[
                "DISCARD PLANS",
                "DISCARD SEQUENCES",
                "DISCARD TEMP",
                "CLOSE ALL",
                "CLOSE nosuch",
                "UNLISTEN *",
            ]),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelines_are_answered_as_by_postgres() {
    compare(pipelines(), &Proxy::start(&twins().await.hosts)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn named_statements_are_those_of_postgres() {
    compare(named_statements(), &Proxy::start(&twins().await.hosts)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn portals_and_cursors_are_those_of_postgres() {
    compare(portals(), &Proxy::start(&twins().await.hosts)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_are_those_of_postgres() {
    compare(transactions(), &Proxy::start(&twins().await.hosts)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_statements_in_one_query_are_those_of_postgres() {
    compare(several_in_one_query(), &Proxy::start(&twins().await.hosts)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_is_that_of_postgres() {
    compare(copies(), &Proxy::start(&twins().await.hosts)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_those_of_postgres() {
    compare(settings(), &Proxy::start(&twins().await.hosts)).await;
}
