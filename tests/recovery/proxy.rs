//! What a proxy that runs makes of the transactions of one that is gone.

use std::time::Instant;

use presplit::twophase::{self, Name};

use super::{
    GONE, Site, console, home, metric, none_shown, prepare, shop, shown, state, wait_metric,
    wait_shown, wait_two_phase,
};
use crate::support::{Hosts, Proxy, wait_until};

#[tokio::test]
async fn what_is_decided_is_committed_what_is_not_is_rolled_back_and_the_rest_is_left_alone() {
    let site = Site::new(3).await;
    site.make_table(0).await;
    let (decided, undecided, open, dropped) =
        (site.name(0), site.name(0), site.name(0), site.name(0));
    for i in [1, 2] {
        site.prepare(i, &decided).await;
        site.prepare(i, &undecided).await;
    }
    site.decide(0, &decided, &[1, 2]).await;
    // Its row tells no database.
    let bare = site.name(0);
    let part = site.begin(0, &bare).await;
    let decide = twophase::decide(&bare, ["b"].into_iter());
    part.batch_execute(&decide).await.unwrap();
    // Two more whose parts on the decision host are still open.
    let part = site.begin(0, &open).await;
    site.prepare(1, &open).await;
    let other = site.begin(0, &dropped).await;
    site.prepare(2, &dropped).await;
    // Of others: one in another form, one of another database of the cluster, one that is nearly ours.
    let b = site.client(1).await;
    let nearly = format!("{undecided}\\");
    for gid in ["theirs", &nearly] {
        let sql =
            format!("BEGIN; INSERT INTO side.t VALUES ('{gid}'); PREPARE TRANSACTION '{gid}'");
        b.batch_execute(&sql).await.unwrap();
    }
    let elsewhere = site.name(0);
    let app = site.hosts.client(1).await;
    let sql = format!(
        "BEGIN; CREATE TABLE x (); {}",
        twophase::prepare(&elsewhere)
    );
    app.batch_execute(&sql).await.unwrap();

    let proxy = Proxy::start(&site.hosts);
    let console = console(&proxy).await;
    for i in [1, 2] {
        site.wait(i, &decided, "committed").await;
        site.wait(i, &undecided, "nothing").await;
    }
    wait_shown(
        &console,
        "b",
        &open,
        &["\"open\"", "host a", "may yet decide"],
    )
    .await;
    wait_shown(&console, "c", &dropped, &["\"open\""]).await;
    // The hosts know it before the proxy has noted it.
    for (name, labels, value) in [
        ("presplit_recovered_total", "outcome=committed", 2.0),
        ("presplit_recovered_total", "outcome=rolled_back", 2.0),
        ("presplit_transactions_in_doubt", "host=b", 1.0),
        ("presplit_transactions_in_doubt", "host=a", 0.0),
    ] {
        wait_metric(&console, name, labels, value).await;
    }
    assert_eq!(shown(&console, "b", &decided).await, None);
    let oldest = "presplit_transactions_in_doubt_oldest_seconds";
    assert!(metric(&console, oldest, "host=b").await > 0.0);
    assert_eq!(site.state(1, &open).await, "prepared");

    // The one decides now, the other's connection ends.
    let decide = twophase::decide(&open, [site.place(1)].into_iter());
    part.batch_execute(&decide).await.unwrap();
    drop(other);
    site.wait(1, &open, "committed").await;
    site.wait(2, &dropped, "nothing").await;
    none_shown(&console).await;

    let foreign = "SELECT count(*) FROM pg_prepared_xacts";
    assert_eq!(b.query_one(foreign, &[]).await.unwrap().get::<_, i64>(0), 3);
    assert_eq!(shown(&console, "b", &elsewhere).await, None);
    // The first sweep comes soon after the start. Of what was prepared where is not certain, the row stays.
    let a = site.client(0).await;
    let rows = "SELECT name FROM presplit.decision WHERE name = ANY($1) ORDER BY 1";
    let both = vec![decided.to_string(), bare.to_string()];
    wait_until("the row of no more use is swept", || async {
        a.query(rows, &[&both]).await.unwrap().len() == 1
    })
    .await;
    let left: String = a.query_one(rows, &[&both]).await.unwrap().get(0);
    assert_eq!(left, bare.to_string());
}

#[tokio::test]
async fn copies_of_one_cluster_are_told_apart() {
    // All clusters of tests are copies of one, with the same database in it.
    let hosts = Hosts::bare(3, 8);
    let clients = [
        hosts.client(0).await,
        hosts.client(1).await,
        hosts.client(2).await,
    ];
    let mut homes = Vec::new();
    for client in &clients {
        let sql = format!(
            "CREATE SCHEMA side; CREATE TABLE side.t (x text); {}",
            twophase::TABLE
        );
        client.batch_execute(&sql).await.unwrap();
        homes.push(home(client).await);
    }
    assert!(homes.iter().all(|home| *home == homes[0]));
    let name = |number, host: &str| Name {
        home: homes[0],
        proxy: GONE,
        number,
        host: host.to_owned(),
    };
    // Decided on b: a says that it knows nothing of it. The other one is open on b, and its host is called otherwise by now.
    let (decided, open, undecided) = (name(1, "b"), name(2, "once"), name(3, "b"));
    for name in [&decided, &open, &undecided] {
        prepare(&clients[2], name).await;
    }
    let decide = twophase::decide(&decided, ["c"].into_iter());
    let sql = format!("BEGIN; {}; {decide}", twophase::mark(&decided));
    clients[1].batch_execute(&sql).await.unwrap();
    let sql = format!("BEGIN; {}", twophase::mark(&open));
    clients[1].batch_execute(&sql).await.unwrap();
    let proxy = Proxy::start(&hosts);
    let console = console(&proxy).await;
    for host in ["a", "b", "c"] {
        wait_two_phase(&console, host, &["ready"]).await;
    }
    let c = &clients[2];
    wait_until("it is committed", || async {
        state(c, &decided).await == "committed"
    })
    .await;
    wait_until("it is rolled back", || async {
        state(c, &undecided).await == "nothing"
    })
    .await;
    wait_shown(&console, "c", &open, &["\"open\""]).await;
    assert_eq!(state(c, &open).await, "prepared");
    clients[1].batch_execute("ROLLBACK").await.unwrap();
    wait_until("it is rolled back", || async {
        state(c, &open).await == "nothing"
    })
    .await;
}

#[tokio::test]
async fn a_decision_host_that_is_down_or_frozen_keeps_its_own_transactions_waiting_and_no_others() {
    let mut site = Site::new(3).await;
    for i in [0, 2] {
        site.make_table(i).await;
    }
    let (waiting, undecided) = (site.name(0), site.name(0));
    for name in [&waiting, &undecided] {
        site.prepare(1, name).await;
    }
    site.decide(0, &waiting, &[1]).await;
    let quick = site.name(2);
    site.prepare(1, &quick).await;
    site.decide(2, &quick, &[1]).await;
    // The proxy has never reached it, and so does not know what it is but by its name.
    site.hosts.clusters[0].stop();
    let proxy = Proxy::start(&site.hosts);
    let console = console(&proxy).await;
    site.wait(1, &quick, "committed").await;
    for name in [&waiting, &undecided] {
        wait_shown(
            &console,
            "b",
            name,
            &["decision host down", "host a:", "bring that host back"],
        )
        .await;
        assert_eq!(site.state(1, name).await, "prepared");
    }
    wait_two_phase(&console, "a", &["not reached"]).await;
    site.hosts.clusters[0].start();
    site.wait(1, &waiting, "committed").await;
    site.wait(1, &undecided, "nothing").await;
    wait_two_phase(&console, "a", &["ready"]).await;

    // It accepts connections and answers nothing.
    let (waiting, quick) = (site.name(0), site.name(2));
    site.prepare(1, &waiting).await;
    site.hosts.clusters[0].freeze();
    let began = Instant::now();
    site.prepare(1, &quick).await;
    site.decide(2, &quick, &[1]).await;
    site.wait(1, &quick, "committed").await;
    // The time of the longest quiet and of one step, and what tests take beside each other.
    assert!(began.elapsed().as_secs() < 25, "{:?}", began.elapsed());
    wait_shown(
        &console,
        "b",
        &waiting,
        &["decision host down", "host a: it does not answer"],
    )
    .await;
    wait_two_phase(&console, "a", &["not reached", "does not answer"]).await;
    site.hosts.clusters[0].thaw();
    site.wait(1, &waiting, "nothing").await;

    // The host where it is prepared goes and comes back.
    let name = site.name(0);
    site.prepare(1, &name).await;
    site.hosts.clusters[1].kill();
    site.hosts.clusters[1].start();
    site.wait(1, &name, "nothing").await;
}

#[tokio::test]
async fn a_host_is_known_by_its_database_whatever_a_map_calls_it() {
    let site = Site::new(3).await;
    site.make_table(0).await;
    let (decided, undecided) = (site.name(0), site.name(0));
    for name in [&decided, &undecided] {
        site.prepare(1, name).await;
    }
    site.decide(0, &decided, &[1]).await;
    // A map without host a: shards of a belong to b.
    let without_a = |text: String| {
        let (head, rest) = text.split_once("[hosts.a]").unwrap();
        let (_, rest) = rest.split_once("[hosts.b]").unwrap();
        format!("{head}[hosts.b]{}", rest.replace("= \"a\"", "= \"b\""))
    };
    site.write_map(1, without_a);
    let proxy = Proxy::start(&site.hosts);
    let console = console(&proxy).await;
    let system = site.homes[0].system.to_string();
    for name in [&decided, &undecided] {
        wait_shown(
            &console,
            "b",
            name,
            &[
                "decision host unknown",
                &system,
                "called host a",
                "presplit doctor",
            ],
        )
        .await;
        assert_eq!(site.state(1, name).await, "prepared");
    }
    let (well, said) = site.doctor(&[]);
    assert!(!well);
    for words in [
        "decision host unknown",
        "--commit NAME",
        "2 things to do",
        "needs no shards",
    ] {
        assert!(said.contains(words), "no {words} in\n{said}");
    }
    // It comes back into the map under another name, and needs no shards there.
    let url = site.url(0);
    let added = |text: String| {
        without_a(text).replace(
            "[hosts.b]",
            &format!("[hosts.zoo]\nurl = \"{url}\"\n[hosts.b]"),
        )
    };
    site.write_map(1, added);
    site.wait(1, &decided, "committed").await;
    site.wait(1, &undecided, "nothing").await;
    wait_two_phase(&console, "zoo", &["ready"]).await;
}

#[tokio::test]
async fn what_clients_do_is_shown_and_leaves_nothing() {
    let hosts = Hosts::provisioned(2, 8).await;
    let proxy = Proxy::start(&hosts);
    let console = console(&proxy).await;
    for host in ["a", "b"] {
        wait_two_phase(&console, host, &["ready"]).await;
    }
    let client = proxy.client().await;
    for (id, end) in [(800, "COMMIT"), (808, "ROLLBACK")] {
        let write = format!(
            "BEGIN; INSERT INTO users (id, name) VALUES ({id}, 'x'); INSERT INTO users (id, name) VALUES ({}, 'x')",
            id + 4
        );
        client.batch_execute(&write).await.unwrap();
        let shown = console.query("SHOW TRANSACTIONS", &[]).await.unwrap();
        assert_eq!(shown.len(), 1, "{shown:?}");
        let text = |column: &str| shown[0].get::<_, String>(column);
        assert!(text("transaction").parse::<Name>().is_ok());
        let mut on: Vec<_> = text("hosts").split(", ").map(str::to_owned).collect();
        on.sort();
        assert_eq!(
            (on, text("state")),
            (vec!["a".to_owned(), "b".to_owned()], "open".to_owned())
        );
        assert!(shown[0].get::<_, i64>("client") > 0);
        assert_eq!(
            metric(&console, "presplit_transactions_under_way", "").await,
            1.0
        );
        client.batch_execute(end).await.unwrap();
        none_shown(&console).await;
    }
    let committed = "presplit_cross_host_transactions_total";
    wait_metric(&console, committed, "outcome=committed", 1.0).await;
    for i in 0..2 {
        let host = hosts.client(i).await;
        wait_until("its decision row is deleted", || async {
            let sql = "SELECT (SELECT count(*) FROM presplit.decision) + (SELECT count(*) FROM pg_prepared_xacts)";
            host.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
    }
}

#[tokio::test]
async fn a_standby_says_nothing_until_it_is_promoted() {
    let mut site = Site::new(2).await;
    site.make_table(0).await;
    let standby = site.hosts.clusters[0].standby();
    let replica = shop(&standby).await;
    wait_until("the standby follows", || async {
        let sql = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'";
        replica.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    // It has not seen the decision yet, and no lock of the primary's.
    replica
        .batch_execute("SELECT pg_wal_replay_pause()")
        .await
        .unwrap();
    let (decided, open) = (site.name(0), site.name(0));
    site.prepare(1, &decided).await;
    site.decide(0, &decided, &[1]).await;
    site.prepare(1, &open).await;
    let _part = site.begin(0, &open).await;
    let url = format!("127.0.0.1:{}/", standby.port());
    site.write_map(1, |text| {
        text.replace(
            &format!("127.0.0.1:{}/", site.hosts.clusters[0].port()),
            &url,
        )
    });
    let proxy = Proxy::start(&site.hosts);
    let console = console(&proxy).await;
    wait_two_phase(&console, "a", &["it is a standby", "promote it"]).await;
    for name in [&decided, &open] {
        wait_shown(&console, "b", name, &["host a: it is a standby"]).await;
        assert_eq!(site.state(1, name).await, "prepared");
    }
    let (well, said) = site.doctor(&["--resolve"]);
    assert!(!well && said.contains("it is a standby"), "{said}");
    let (done, said) = site.doctor(&["--rollback", &decided.to_string()]);
    assert!(!done && said.contains("nothing was done"), "{said}");
    // It takes over, with all that the primary had.
    replica
        .batch_execute("SELECT pg_wal_replay_resume()")
        .await
        .unwrap();
    site.hosts.clusters[0].stop();
    replica.batch_execute("SELECT pg_promote()").await.unwrap();
    site.wait(1, &decided, "committed").await;
    site.wait(1, &open, "nothing").await;
    wait_two_phase(&console, "a", &["ready"]).await;
}
