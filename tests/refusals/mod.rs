//! Every refusal over the wire: its code, what its message names, what its hint says would help; that the session goes on,
//! and that inside a block the block is failed until ROLLBACK.

mod cases;
mod messages;

use std::collections::BTreeSet;

use tokio::sync::OnceCell;

use self::cases::{CASES, NEVER};
use crate::support::raw::{b, dp, e, p, pbe, s};
use crate::support::{Hosts, Proxy, Raw};

async fn hosts() -> &'static Hosts {
    static HOSTS: OnceCell<Hosts> = OnceCell::const_new();
    HOSTS
        .get_or_init(|| async {
            let hosts = Hosts::provisioned(2, 8).await;
            for i in 0..2 {
                let client = hosts.client(i).await;
                let sql = "CREATE TABLE stray (id int); CREATE SEQUENCE pubseq;
                    CREATE FUNCTION pubfn() RETURNS int LANGUAGE sql AS 'SELECT 1'";
                client.batch_execute(sql).await.unwrap();
                for shard in (0..8).filter(|s| hosts.owner(*s) == i) {
                    client
                        .batch_execute(&format!("CREATE TABLE shard_{shard:04}.notes (a text)"))
                        .await
                        .unwrap();
                }
                if i == 0 {
                    client
                        .batch_execute("CREATE TABLE ledger (id int)")
                        .await
                        .unwrap();
                }
            }
            hosts.write_map(&map(&hosts, ""));
            hosts
        })
        .await
}

fn map(hosts: &Hosts, proxy: &str) -> String {
    hosts
        .map_text(1, proxy)
        .replace("\ninvoices =", "\nledger = { host = \"a\" }\ninvoices =")
}

/// Code, message and hint of the error among these replies.
fn error(lines: &[String]) -> (String, String, String) {
    let line = lines
        .iter()
        .find(|l| l.starts_with("E "))
        .unwrap_or_else(|| panic!("no error: {lines:?}"));
    let field = |tag: char| {
        line[2..]
            .split(" | ")
            .find_map(|f| f.strip_prefix(tag))
            .unwrap_or_default()
            .to_owned()
    };
    (field('C'), field('M'), field('H'))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_names_its_code_and_its_hint() {
    let proxy = Proxy::start(hosts().await);
    let mut raw = Raw::connect(proxy.addr());
    for case in CASES {
        let simple = raw.query(case.sql);
        case.check(&simple, "simple");
        assert_eq!(simple.last().unwrap(), "Z I", "{}", case.sql);
        let frames = [p("", case.sql), b("", "", &[]), dp(""), e("", 0), s()].concat();
        let extended = raw.ask(&frames, 1);
        case.check(&extended, "extended");
        assert_eq!(extended.last().unwrap(), "Z I", "{}", case.sql);
        assert_eq!(
            raw.query("SELECT 1")[1],
            "D 1",
            "the session goes on after {}",
            case.sql
        );
        raw.assert_silent();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_block_a_refusal_fails_the_block() {
    let proxy = Proxy::start(hosts().await);
    let mut raw = Raw::connect(proxy.addr());
    raw.query("INSERT INTO users (id, name) VALUES (7, 'kept')");
    for (n, case) in CASES.iter().enumerate() {
        // SET outside the block and what is not known of a statement before it is bound behave alike.
        assert_eq!(raw.query("BEGIN"), ["C BEGIN", "Z T"]);
        let written = raw.query("UPDATE users SET name = 'lost' WHERE id = 7");
        assert_eq!(written, ["C UPDATE 1", "Z T"]);
        let refused = match n % 2 {
            0 => raw.query(case.sql),
            _ => raw.ask(&[pbe(case.sql, &[]), pbe("SELECT 2", &[]), s()].concat(), 1),
        };
        case.check(&refused, "in a block");
        assert_eq!(refused.last().unwrap(), "Z E", "{}: {refused:?}", case.sql);
        let (code, ..) = error(&raw.query("SELECT 1"));
        assert_eq!(code, "25P02", "{}", case.sql);
        let (code, ..) = error(&raw.ask(&[pbe("SELECT 1", &[]), s()].concat(), 1));
        assert_eq!(code, "25P02", "{}", case.sql);
        // Refused again, it is first of all a statement in a failed block.
        let again = raw.query(case.sql);
        assert_eq!(again.last().unwrap(), "Z E", "{}: {again:?}", case.sql);
        assert_eq!(raw.query("COMMIT"), ["C ROLLBACK", "Z I"], "{}", case.sql);
        assert_eq!(
            raw.query("SELECT name FROM users WHERE id = 7")[1],
            "D kept",
            "{}",
            case.sql
        );
        raw.assert_silent();
    }
    // From a savepoint the block goes on: the servers have not seen what was refused.
    for sql in [
        "BEGIN",
        "UPDATE users SET name = 'more' WHERE id = 7",
        "SAVEPOINT a",
    ] {
        raw.query(sql);
    }
    assert_eq!(error(&raw.query("SELECT random() FROM photos")).0, "SR004");
    assert_eq!(raw.query("ROLLBACK TO a"), ["C ROLLBACK", "Z T"]);
    assert_eq!(
        raw.query("SELECT name FROM users WHERE id = 7")[1],
        "D more"
    );
    assert_eq!(raw.query("COMMIT"), ["C COMMIT", "Z I"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_in_a_pipeline_undoes_what_the_pipeline_has_done() {
    let proxy = Proxy::start(hosts().await);
    let mut raw = Raw::connect(proxy.addr());
    let write = "INSERT INTO likes (user_id, photo_id) VALUES (11, 1)";
    let count = "SELECT count(*) FROM likes WHERE user_id = 11";
    for sql in [
        "SELECT random() FROM photos",
        "SELECT * FROM nosuch",
        "INSERT INTO photos (user_id) VALUES (NULL)",
        "SET presplit.shard = 8",
        "UPDATE photos SET user_id = 1",
    ] {
        // Written on host a, read on b, refused, and more behind it.
        let frames = [
            pbe(write, &[]),
            pbe("SELECT count(*) FROM likes WHERE user_id = 5", &[]),
            pbe(sql, &[]),
            pbe(write, &[]),
            s(),
        ];
        let answer = raw.ask(&frames.concat(), 1);
        assert_eq!(
            answer[..7],
            ["1", "2", "C INSERT 0 1", "1", "2", "D 0", "C SELECT 1"],
            "{sql}: {answer:?}"
        );
        assert!(
            answer.iter().filter(|l| l.starts_with("E ")).count() == 1,
            "{answer:?}"
        );
        assert!(
            answer[answer.len() - 2].starts_with("E ") && answer[answer.len() - 1] == "Z I",
            "{answer:?}"
        );
        assert_eq!(raw.query(count)[1], "D 0", "{sql}");
        raw.assert_silent();
    }
    let other = "INSERT INTO likes (user_id, photo_id) VALUES (5, 1)";
    // The writer of a failed statement does not stick.
    assert_eq!(raw.query(other), ["C INSERT 0 1", "Z I"]);
    assert_eq!(raw.query(write), ["C INSERT 0 1", "Z I"]);
    raw.query("DELETE FROM likes WHERE user_id = 5");
    raw.query("DELETE FROM likes WHERE user_id = 11");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_statement_outlives_a_refused_bind() {
    let proxy = Proxy::start(hosts().await);
    let mut raw = Raw::connect(proxy.addr());
    let sql = "SELECT id FROM photos WHERE user_id = $1 AND caption <> 'x'";
    let unusable = b("", "s", &["x"]);
    let answer = raw.ask(&[p("s", sql), unusable, e("", 0), s()].concat(), 1);
    assert_eq!(answer[0], "1", "Parse was right: {answer:?}");
    assert_eq!(error(&answer).0, "SR007");
    // Like Postgres, we have it now.
    let answer = raw.ask(&[b("", "s", &["3"]), e("", 0), s()].concat(), 1);
    assert_eq!(answer, ["2", "C SELECT 0", "Z I"]);
    assert_eq!(error(&raw.ask(&[p("s", sql), s()].concat(), 1)).0, "42P05");
    // One that Postgres would not have parsed is not there, whatever comes behind it.
    let wrong = "SELECT nosuch FROM photos WHERE user_id = $1";
    let answer = raw.ask(
        &[p("w", wrong), b("", "w", &["3"]), e("", 0), s()].concat(),
        1,
    );
    assert_eq!(error(&answer).0, "42703");
    assert_eq!(raw.ask(&[p("w", sql), s()].concat(), 1), ["1", "Z I"]);
}

#[test]
fn every_refusal_has_a_case() {
    let words = include_str!("../../src/route/words.rs");
    let all: BTreeSet<&str> = words
        .lines()
        .filter_map(|l| l.strip_prefix("pub(super) fn ")?.split('(').next())
        .collect();
    let mut tested: BTreeSet<&str> = CASES
        .iter()
        .map(|c| c.from)
        .filter(|f| !f.is_empty())
        .collect();
    tested.extend(NEVER.iter().map(|(name, _)| name));
    assert!(all.len() > 30, "{all:?}");
    assert_eq!(all, tested);
}
