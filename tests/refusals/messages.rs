//! Refusals of messages and values: parameters that are no key, what the protocol allows and we do not, every limit.

use super::{error, hosts, map};
use crate::support::raw::{self, b, bf, d, done, e, p, pbe, pt, q, s};
use crate::support::{Proxy, Raw};

/// A proxy with other settings.
async fn proxy_with(settings: &str) -> (tempfile::TempDir, Proxy) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shardmap.toml");
    std::fs::write(&file, map(hosts().await, settings)).unwrap();
    let proxy = Proxy::serve(&file, &[]);
    (dir, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_that_can_not_be_a_key() {
    let proxy = Proxy::start(hosts().await);
    let mut raw = Raw::connect(proxy.addr());
    let sql = "SELECT id FROM photos WHERE user_id = $1";
    let bind = |types: &[u32], format: u16, params: &[Option<&[u8]>]| {
        [
            pt("", sql, types),
            bf("", "", format, params),
            e("", 0),
            s(),
        ]
        .concat()
    };
    let cases = [
        (
            bind(&[], 0, &[Some(b"x")]),
            "SR007",
            "can't be used",
            "the column's own type",
        ),
        (
            bind(&[], 0, &[Some(b"")]),
            "SR007",
            "can't be used",
            "the column's own type",
        ),
        (
            bind(&[20], 1, &[Some(b"abc")]),
            "SR007",
            "can't be used",
            "the column's own type",
        ),
        (
            bind(&[20], 0, &[Some(b"99999999999999999999")]),
            "SR007",
            "can't be used",
            "the column's own type",
        ),
        (
            bind(&[1700], 0, &[Some(b"1.5")]),
            "SR007",
            "can't be used",
            "without a fraction",
        ),
    ];
    for (frames, code, message, hint) in cases {
        let answer = raw.ask(&frames, 1);
        let (c, m, h) = error(&answer);
        assert!(
            c == code && m.contains(message) && h.contains(hint),
            "{answer:?}"
        );
        raw.assert_silent();
    }
    // Of which type the server will make it is not sure: in binary it can't be read.
    let unsure = "SELECT id FROM photos WHERE user_id = $1 AND $1 = 1.5";
    let frames = [
        p("", unsure),
        bf("", "", 1, &[Some(&3i64.to_be_bytes())]),
        e("", 0),
        s(),
    ]
    .concat();
    let (code, message, hint) = error(&raw.ask(&frames, 1));
    assert!(
        code == "SR007"
            && message.contains("type of $1 is not sure")
            && hint.contains("$1::bigint"),
        "{code} {message} {hint}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_protocol_allows_and_we_do_not() {
    let proxy = Proxy::start(hosts().await);
    let mut raw = Raw::connect(proxy.addr());
    let mut check = |frames: &[Vec<u8>], code: &str, message: &str, hint: &str| {
        let answer = raw.ask(&frames.concat(), 1);
        let (c, m, h) = error(&answer);
        assert!(
            c == code && m.contains(message) && h.contains(hint) && !h.is_empty(),
            "{answer:?}"
        );
        assert_eq!(raw.query("SELECT 1")[1], "D 1");
    };
    check(
        &[raw::frame(b'F', &[0, 0, 64, 1, 0, 0, 0, 0, 0, 0])],
        "0A000",
        "on another host this number is another function",
        "SELECT",
    );
    check(
        &[raw::frame(b'F', &[0, 0, 6, 38, 0, 0, 0, 0, 0, 0])],
        "0A000",
        "fast-path call of nextval",
        "SELECT",
    );
    let mut raw = Raw::connect(proxy.addr());
    // Two snapshots.
    raw.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    raw.query("SELECT id FROM photos WHERE user_id = 1");
    let (code, message, hint) = error(&raw.query("SELECT id FROM photos WHERE user_id = 5"));
    assert!(
        code == "SR002" && message.contains("two snapshots") && hint.contains("READ COMMITTED")
    );
    raw.query("ROLLBACK");
    raw.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(
        error(&raw.query("SELECT id FROM photos")).0,
        "SR002",
        "a read of all shards needs both hosts"
    );
    raw.query("ROLLBACK");
    raw.query("BEGIN");
    raw.query("SELECT id FROM photos WHERE user_id = 1");
    raw.query("SELECT id FROM photos WHERE user_id = 5");
    let (code, message, hint) = error(&raw.query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"));
    assert!(
        code == "0A000" && message.contains("several hosts already") && hint.contains("in BEGIN")
    );
    raw.query("ROLLBACK");
    // A message that has no place ends the session, as with Postgres.
    raw.send(&[raw::frame(b'?', b"")].concat());
    let end = raw.until(|_| false);
    assert!(
        end[0].contains("VFATAL | C08P01 | Minvalid frontend message type 63") && end[1] == "EOF",
        "{end:?}"
    );
    // So does CopyData's place being taken by something else.
    let mut raw = Raw::connect(proxy.addr());
    raw.send(
        &[
            q("COPY likes FROM STDIN /* presplit: key=1 */"),
            d("1\t1\n"),
            q("SELECT 1"),
            done(),
        ]
        .concat(),
    );
    let end = raw.until(|_| false);
    assert!(
        end.iter()
            .any(|l| l.contains("C08P01") && l.contains("during COPY from stdin"))
            && end.last().unwrap() == "EOF",
        "{end:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_limit_is_named() {
    let limits = "[proxy.limits]\nframe_held_bytes = 100000\nstatement_text_bytes = 50000\nstatements_per_session = 3\nportals_per_session = 2\nscatter_shards = 4\ngather_bytes = 65536\n";
    let (_dir, proxy) = proxy_with(limits).await;
    let mut raw = Raw::connect(proxy.addr());
    let limit = |lines: &[String], setting: &str| {
        let (code, message, hint) = error(lines);
        assert!(
            code == "54000" && message.contains("more than the limit") && hint.contains(setting),
            "{lines:?}"
        );
    };
    let long = |n: usize| format!("SELECT '{}'", "x".repeat(n));
    limit(&raw.query(&long(60_000)), "statement_text_bytes");
    limit(
        &raw.ask(&[p("", &long(60_000)), s()].concat(), 1),
        "statement_text_bytes",
    );
    // Longer than what is held: it is swallowed as it comes, the session goes on behind it.
    limit(&raw.query(&long(3_000_000)), "frame_held_bytes");
    assert_eq!(raw.query("SELECT 1")[1], "D 1");
    let answer = raw.ask(
        &[
            pbe("SELECT 2", &[]),
            p("", "SELECT $1::text"),
            b("", "", &[&"y".repeat(2_000_000)]),
            e("", 0),
            s(),
        ]
        .concat(),
        1,
    );
    assert_eq!(answer[..4], ["1", "2", "D 2", "C SELECT 1"]);
    limit(&answer, "frame_held_bytes");
    assert_eq!(answer.last().unwrap(), "Z I");
    raw.query("BEGIN");
    limit(&raw.query(&long(3_000_000)), "frame_held_bytes");
    assert_eq!(raw.query("COMMIT"), ["C ROLLBACK", "Z I"]);
    // Rows and CopyData of any length go through.
    let rows = raw.query("SELECT length(repeat('x', 5000000)), repeat('x', 5000000)");
    assert_eq!(rows[1].len(), "D 5000000|".len() + 5_000_000);
    let data = format!("13\t{}\n", "1".repeat(3_000_000));
    let answer = raw.ask(
        &[
            q("COPY likes (user_id, photo_id) FROM STDIN /* presplit: key=13 */"),
            d(&data),
            done(),
        ]
        .concat(),
        1,
    );
    assert_eq!(
        error(&answer).0,
        "22003",
        "Postgres' own: out of range for type bigint: {:.200?}",
        answer
    );
    // Rows of a portal over several shards that is read in parts; all at once they go through.
    raw.query("INSERT INTO likes (user_id, photo_id) VALUES (1, 901), (2, 901)");
    for order in ["", " ORDER BY user_id"] {
        let read = format!(
            "SELECT repeat('x', 40000) FROM likes WHERE user_id IN (1, 2) AND photo_id = 901{order}"
        );
        let ask = |rows| [p("", &read), b("", "", &[]), e("", rows), s()].concat();
        limit(&raw.ask(&ask(1), 1), "gather_bytes");
        assert!(raw.ask(&ask(0), 1).contains(&"C SELECT 2".to_owned()));
    }
    raw.query("DELETE FROM likes WHERE user_id IN (1, 2) AND photo_id = 901");
    // Named statements and portals.
    for name in ["a", "b", "c"] {
        assert_eq!(
            raw.ask(&[p(name, "SELECT 1"), s()].concat(), 1),
            ["1", "Z I"]
        );
    }
    limit(
        &raw.ask(&[p("d", "SELECT 1"), s()].concat(), 1),
        "statements_per_session",
    );
    assert_eq!(
        raw.ask(&[raw::cs("a"), p("d", "SELECT 1"), s()].concat(), 1),
        ["3", "1", "Z I"]
    );
    raw.query("BEGIN");
    let binds = [b("x", "b", &[]), b("y", "b", &[]), b("z", "b", &[]), s()].concat();
    limit(&raw.ask(&binds, 1), "portals_per_session");
    raw.query("ROLLBACK");
    limit(&raw.query("SELECT id FROM photos"), "scatter_shards");
    limit(
        &raw.ask(&[pbe("SELECT id FROM photos", &[]), s()].concat(), 1),
        "scatter_shards",
    );
    assert_eq!(
        raw.query("SELECT id FROM photos WHERE user_id IN (1, 5)")
            .last()
            .unwrap(),
        "Z I"
    );
    raw.assert_silent();
}
