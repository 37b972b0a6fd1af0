//! Describe of statements from what is known: without a server, and never with columns that the rows do not have.

use tokio_postgres::Client;

use crate::protocol::{compare, step, twins};
use crate::support::raw::{b, bf, cs, ds, e, p, pt, q, s};
use crate::support::{Hosts, Proxy, Raw, Relay};

const KEYED: &str = "SELECT * FROM users WHERE id = $1";

/// One host behind a relay, with two users in each of its two shards.
async fn relayed() -> (Hosts, Relay) {
    let hosts = Hosts::provisioned(1, 2).await;
    let direct = hosts.client(0).await;
    for shard in 0..2 {
        let rows = format!(
            "INSERT INTO shard_000{shard}.users (id, name) VALUES ({0}, 'u{0}'), ({1}, 'u{1}')",
            shard,
            shard + 2
        );
        direct.batch_execute(&rows).await.unwrap();
    }
    let relay = Relay::to(hosts.clusters[0].port());
    let port = format!(":{}/", hosts.clusters[0].port());
    let map = hosts
        .map_text(1, "")
        .replace(&port, &format!(":{}/", relay.port()));
    assert!(map.contains(&relay.port().to_string()), "{map}");
    hosts.write_map(&map);
    (hosts, relay)
}

async fn in_all_shards(direct: &Client, change: &str) {
    for shard in 0..2 {
        direct
            .batch_execute(&change.replace("users", &format!("shard_000{shard}.users")))
            .await
            .unwrap();
    }
}

fn columns(answer: &[String]) -> usize {
    let columns = answer.iter().find(|l| l.starts_with("T ")).unwrap();
    columns.split(' ').count() - 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_needs_no_server() {
    let (_hosts, relay) = relayed().await;
    let proxy = Proxy::start(&_hosts);
    let prepare = |name: &str| [p(name, KEYED), ds(name), s()].concat();
    let first = Raw::connect(proxy.addr()).ask(&prepare("a"), 1);
    assert_eq!(columns(&first), 4, "{first:?}");
    // Any session's, by any name. (The proxy asks the host for things of its own now and then.)
    let mut raw = Raw::connect(proxy.addr());
    let packets = relay.packets();
    for n in 0..100 {
        assert_eq!(raw.ask(&prepare(""), 1), first);
        let name = format!("n{n}");
        assert_eq!(raw.ask(&prepare(&name), 1), first);
        assert_eq!(raw.ask(&[ds("n0"), ds(&name), s()].concat(), 1).len(), 5);
    }
    let asked = relay.packets() - packets;
    assert!(asked < 50, "{asked}");
    // Bind is sent with nothing that must be waited for.
    let packets = relay.packets();
    for n in 0..100 {
        let (name, user) = (format!("n{n}"), n % 4);
        let user = user.to_string();
        let answer = raw.ask(&[b("", &name, &[&user]), e("", 0), s()].concat(), 1);
        assert!(
            answer[1].starts_with(&format!("D {user}|u{user}|")),
            "{answer:?}"
        );
    }
    let asked = relay.packets() - packets;
    assert!((100..150).contains(&asked), "{asked}");
    // In a block, too; but a failed one refuses it.
    assert_eq!(raw.ask(&[q("BEGIN"), ds("n1"), s()].concat(), 2).len(), 5);
    raw.query("SELECT 1/0");
    let answer = raw.ask(&[ds("n1"), s()].concat(), 1);
    assert!(
        answer[0].contains("C25P02") && answer[1] == "Z E",
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn described_statements_are_those_of_postgres() {
    let again = |sql: &'static str| {
        let one = [
            p("x", sql),
            ds("x"),
            s(),
            ds("x"),
            cs("x"),
            s(),
            p("", sql),
            ds(""),
            s(),
        ];
        (sql, vec![step(&one, 3), step(&one, 3)])
    };
    let scripts = vec![
        again("SELECT caption, id FROM photos WHERE user_id = $1 AND caption > $2"),
        again("INSERT INTO photos (user_id, caption) VALUES ($1, $2)"),
        again("INSERT INTO photos (user_id, caption) VALUES ($1, $2) RETURNING caption"),
        again("SELECT"),
        again("SELECT $1::int4, $2::text AS \"x y\", NULL"),
        again("SELECT nothing FROM photos WHERE user_id = $1"),
        again("SHOW DateStyle"),
        again(""),
        (
            "other types of parameters are another statement",
            vec![
                step(
                    &[
                        pt("a", "SELECT $1", &[23]),
                        ds("a"),
                        pt("b", "SELECT $1", &[20]),
                        ds("b"),
                        s(),
                    ],
                    1,
                ),
                step(&[ds("a"), ds("b"), ds("c"), s()], 1),
            ],
        ),
        (
            "in a pipeline with errors",
            vec![
                step(&[p("a", "SELECT 1 AS x"), ds("a"), s()], 1),
                step(&[b("", "a", &["1"]), ds("a"), s()], 1),
                step(&[ds("a"), b("", "nothing", &[]), ds("a"), s()], 1),
                step(
                    &[ds("a"), b("", "a", &[]), ds("a"), e("", 0), ds("a"), s()],
                    1,
                ),
                step(
                    &[q("BEGIN"), q("SELECT 1/0"), ds("a"), s(), q("ROLLBACK")],
                    4,
                ),
            ],
        ),
    ];
    compare(scripts, &Proxy::start(&twins().await.hosts)).await;
}

/// DDL through the proxy: a statement that the client keeps is to Postgres the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_statement_is_refused_when_its_columns_change() {
    let (hosts, _relay) = relayed().await;
    let proxy = Proxy::start(&hosts);
    let mut raw = Raw::connect(proxy.addr());
    let write = "UPDATE users SET name = name WHERE id = $1 RETURNING *";
    for (name, sql) in [
        ("kept", KEYED),
        ("write", write),
        ("same", "SELECT name FROM users WHERE id = $1"),
    ] {
        raw.ask(&[p(name, sql), ds(name), s()].concat(), 1);
    }
    raw.query("PREPARE sql AS SELECT * FROM users WHERE id = $1");
    let mut other = Raw::connect(proxy.addr());
    let done = other.query("ALTER TABLE users ADD COLUMN more int");
    assert_eq!(done, ["C ALTER TABLE", "Z I"]);
    let run = |raw: &mut Raw, name| raw.ask(&[b("", name, &["1"]), e("", 0), s()].concat(), 1);
    for name in ["kept", "write"] {
        for _ in 0..2 {
            let answer = run(&mut raw, name);
            assert!(
                answer[0].contains("C0A000 | Mcached plan must not change"),
                "{name}: {answer:?}"
            );
            assert_eq!(answer.len(), 2);
        }
        let answer = raw.ask(&[ds(name), s()].concat(), 1);
        assert!(
            answer[0].contains("Mcached plan must not change"),
            "{name}: {answer:?}"
        );
    }
    let answer = raw.query("EXECUTE sql(1)");
    assert!(
        answer[0].contains("Mcached plan must not change"),
        "{answer:?}"
    );
    assert_eq!(run(&mut raw, "same")[1], "D u1");
    // A new one has the new columns.
    let answer = raw.ask(
        &[
            p("new", KEYED),
            ds("new"),
            b("", "new", &["1"]),
            e("", 0),
            s(),
        ]
        .concat(),
        1,
    );
    assert_eq!(columns(&answer), 5);
    assert!(answer[4].ends_with("|NULL"), "{answer:?}");
}

/// DDL past the proxy: what was told is never followed by rows of another kind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_told_holds_or_is_refused() {
    let (hosts, _relay) = relayed().await;
    hosts.write_map(
        &std::fs::read_to_string(hosts.map_file())
            .unwrap()
            .replace("pool = 10", "pool = 2"),
    );
    let proxy = Proxy::start(&hosts);
    let direct = hosts.client(0).await;
    let prepare = |name: &str| [p(name, KEYED), ds(name), s()].concat();
    let mut raw = Raw::connect(proxy.addr());
    // One server connection has run it, in one shard; the other, and the other shard, have not.
    raw.ask(
        &[p("", KEYED), ds(""), b("", "", &["1"]), e("", 0), s()].concat(),
        1,
    );
    in_all_shards(&direct, "ALTER TABLE users ADD COLUMN more int").await;
    // A number of others keep the first connection busy, so that the second one is used.
    let mut holder = Raw::connect(proxy.addr());
    for hold in [false, true] {
        if hold {
            holder.query("BEGIN");
            holder.query("SELECT name FROM users WHERE id = 1");
        }
        for (name, user) in [("", "1"), ("n", "1"), ("", "2"), ("n", "2")] {
            let mut raw = Raw::connect(proxy.addr());
            let told = columns(&raw.ask(&prepare(name), 1));
            let answer = raw.ask(&[b("", name, &[user]), e("", 0), s()].concat(), 1);
            match answer.iter().find(|l| l.starts_with("D ")) {
                Some(row) => assert_eq!(row.split('|').count(), told, "{answer:?}"),
                None => assert!(
                    answer[0].contains("Mcached plan must not change"),
                    "{answer:?}"
                ),
            }
            assert_eq!(answer.last().map(String::as_str), Some("Z I"));
        }
    }
    holder.query("COMMIT");
    // Before long all is as it is now.
    let again = || async {
        let mut raw = Raw::connect(proxy.addr());
        let told = columns(&raw.ask(&prepare("x"), 1));
        let answer = raw.ask(&[b("", "x", &["1"]), e("", 0), s()].concat(), 1);
        told == 5 && answer[1].split('|').count() == 5
    };
    crate::support::wait_until("the new columns are known", again).await;
    // And back: a connection that has known the old columns all the time is not believed.
    in_all_shards(&direct, "ALTER TABLE users DROP COLUMN more").await;
    for user in ["1", "2", "3", "1", "2"] {
        let mut raw = Raw::connect(proxy.addr());
        let told = columns(&raw.ask(&prepare("y"), 1));
        let binary = bf(
            "",
            "y",
            1,
            &[Some(&user.parse::<i64>().unwrap().to_be_bytes())],
        );
        let answer = raw.ask(&[binary, e("", 0), s()].concat(), 1);
        match answer.iter().find(|l| l.starts_with("D ")) {
            Some(row) => assert_eq!(row.split('|').count(), told, "{answer:?}"),
            None => assert!(
                answer[0].contains("Mcached plan must not change"),
                "{answer:?}"
            ),
        }
    }
}

/// Types of the app's own have other numbers on every host: they are asked of the host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_of_ones_own_are_asked_for() {
    let (hosts, relay) = relayed().await;
    let direct = hosts.client(0).await;
    direct
        .batch_execute("CREATE TYPE mood AS ENUM ('ok')")
        .await
        .unwrap();
    let proxy = Proxy::start(&hosts);
    let mut raw = Raw::connect(proxy.addr());
    let ask = [
        p("", "SELECT 'ok'::mood, name FROM users WHERE id = $1"),
        ds(""),
        s(),
    ]
    .concat();
    let first = raw.ask(&ask, 1);
    let packets = relay.packets();
    assert_eq!(raw.ask(&ask, 1), first);
    assert!(relay.packets() > packets);
}
