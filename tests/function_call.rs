//! FunctionCall, compared with one Postgres; and large objects as libpq keeps them.

use crate::protocol::{Script, compare, step, twins};
use crate::support::raw::{b, e, frame, p, pbe, q, s};
use crate::support::{Proxy, Raw};

/// A call with arguments in one format (0 text, 1 binary).
fn f(function: u32, format: u16, args: &[Option<&[u8]>], result: u16) -> Vec<u8> {
    let mut body = function.to_be_bytes().to_vec();
    body.extend([0, 1]);
    body.extend(format.to_be_bytes());
    body.extend((args.len() as u16).to_be_bytes());
    for arg in args {
        body.extend(arg.map_or(-1, |arg| arg.len() as i32).to_be_bytes());
        body.extend(arg.unwrap_or_default());
    }
    body.extend(result.to_be_bytes());
    frame(b'F', &body)
}

/// int4pl
fn add(a: &str, b: &str) -> Vec<u8> {
    f(177, 0, &[Some(a.as_bytes()), Some(b.as_bytes())], 0)
}

fn scripts() -> Vec<Script> {
    vec![
        (
            "plain",
            vec![
                step(&[add("1", "2")], 1),
                step(
                    &[f(177, 1, &[Some(&[0, 0, 0, 1]), Some(&[0, 0, 0, 2])], 1)],
                    1,
                ),
                step(&[f(177, 0, &[Some(b"1"), None], 0)], 1),
                // int4div
                step(&[f(154, 0, &[Some(b"1"), Some(b"0")], 0)], 1),
                step(&[f(177, 0, &[Some(b"1")], 0)], 1),
                step(&[f(177, 0, &[Some(b"x"), Some(b"2")], 0)], 1),
                step(&[f(4, 0, &[], 0)], 1),
                step(&[f(177, 2, &[Some(b"1"), Some(b"2")], 0)], 1),
                step(&[q("SELECT 1"), add("1", "2"), q("SELECT 2")], 3),
            ],
        ),
        (
            "in blocks",
            vec![
                step(
                    &[
                        q("BEGIN"),
                        add("1", "2"),
                        q("SELECT caption FROM photos WHERE user_id = 5 ORDER BY 1"),
                    ],
                    3,
                ),
                step(&[f(154, 0, &[Some(b"1"), Some(b"0")], 0)], 1),
                step(&[add("1", "2"), q("ROLLBACK"), add("1", "2")], 3),
                step(
                    &[q("BEGIN"), q("SELECT 1/0"), add("1", "2"), q("ROLLBACK")],
                    4,
                ),
            ],
        ),
        (
            "behind messages without a Sync",
            vec![
                step(&[pbe("SELECT 1", &[]), add("1", "2"), s()], 2),
                step(
                    &[
                        pbe(
                            "INSERT INTO photos (user_id, caption) VALUES (1, 'called')",
                            &[],
                        ),
                        add("1", "2"),
                    ],
                    1,
                ),
                step(
                    &[q(
                        "DELETE FROM photos WHERE user_id = 1 AND caption = 'called'",
                    )],
                    1,
                ),
                step(&[pbe("SELECT 1/0", &[]), add("1", "2"), s()], 1),
                step(
                    &[
                        p("", "SELECT 1"),
                        add("1", "2"),
                        b("", "", &[]),
                        e("", 0),
                        s(),
                    ],
                    2,
                ),
            ],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_call_is_answered_as_by_postgres() {
    compare(scripts(), &Proxy::start(&twins().await.hosts)).await;
}

/// The value that a call gave, in binary.
fn value(raw: &mut Raw, call: &[u8]) -> Vec<u8> {
    let answer = raw.ask(call, 1);
    assert!(answer[0].starts_with('V'), "{answer:?}");
    // A length and the bytes.
    answer[0].as_bytes()[6..].to_vec()
}

/// Large objects are on one host, whatever the transaction does on others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_objects_are_kept_on_one_host() {
    let hosts = &twins().await.hosts;
    let proxy = Proxy::start(hosts);
    let mut raw = Raw::connect(proxy.addr());
    raw.query("BEGIN");
    raw.query("SELECT caption FROM photos WHERE user_id = 5");
    // lo_create of a number of our choice, lo_open for reading and writing, lowrite, lo_lseek, loread.
    let number: u32 = 4711;
    let answer = raw.ask(&f(715, 0, &[Some(b"4711")], 0), 1);
    assert!(
        answer[0].ends_with("4711") && answer[1] == "Z T",
        "{answer:?}"
    );
    let answer = raw.ask(&f(952, 0, &[Some(b"4711"), Some(b"393216")], 0), 1);
    assert!(answer[0].ends_with('0'), "{answer:?}");
    raw.ask(&f(955, 0, &[Some(b"0"), Some(b"large")], 0), 1);
    assert_eq!(raw.query("COMMIT"), ["C COMMIT", "Z I"]);
    assert_eq!(value(&mut raw, &f(3458, 0, &[Some(b"4711")], 1)), b"large");
    let kept = "SELECT count(*)::int FROM pg_largeobject_metadata WHERE oid = $1";
    for (host, wanted) in [(0, 1), (1, 0)] {
        let count: i32 = hosts
            .client(host)
            .await
            .query_one(kept, &[&number])
            .await
            .unwrap()
            .get(0);
        assert_eq!(count, wanted, "host {host}");
    }
    // Another client finds it, and can take it away.
    let mut other = Raw::connect(proxy.addr());
    assert!(other.ask(&f(964, 0, &[Some(b"4711")], 0), 1)[0].starts_with('V'));
    let gone = raw.ask(&f(3458, 0, &[Some(b"4711")], 1), 1);
    assert!(gone[0].contains("C42704") && gone[1] == "Z I", "{gone:?}");
}

/// An advisory lock is the session's, and all sessions ask the same host for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn advisory_locks_exclude_each_other() {
    let proxy = Proxy::start(&twins().await.hosts);
    let (mut one, mut other) = (Raw::connect(proxy.addr()), Raw::connect(proxy.addr()));
    let call = |raw: &mut Raw, function| {
        let answer = raw.ask(&f(function, 0, &[Some(b"4712")], 0), 1);
        answer[0].chars().last()
    };
    let (try_lock, unlock) = (2882, 2884);
    assert_eq!(call(&mut one, try_lock), Some('t'));
    assert_eq!(call(&mut other, try_lock), Some('f'));
    assert_eq!(other.query("SELECT pg_try_advisory_lock(4712)")[1], "D f");
    assert_eq!(call(&mut one, unlock), Some('t'));
    assert_eq!(call(&mut other, try_lock), Some('t'));
}

/// Where there is one host, the numbers of the app's own functions are its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_functions_are_called_where_there_is_one_host() {
    let hosts = crate::support::Hosts::provisioned(1, 2).await;
    let direct = hosts.client(0).await;
    let make = "CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2'";
    direct.batch_execute(make).await.unwrap();
    let number: u32 = direct
        .query_one("SELECT 'twice'::regproc::oid", &[])
        .await
        .unwrap()
        .get(0);
    let proxy = Proxy::start(&hosts);
    let mut raw = Raw::connect(proxy.addr());
    let answer = raw.ask(&f(number, 0, &[Some(b"21")], 0), 1);
    assert!(
        answer[0].ends_with("42") && answer[1] == "Z I",
        "{answer:?}"
    );
}
