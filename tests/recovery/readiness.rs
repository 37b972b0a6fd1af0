//! What makes a host unable to take part, and that it is said what to do.

use presplit::ops::recovery::Hosts as Recovery;
use presplit::shardmap::ShardMap;
use presplit::twophase::{self, Readiness};

use super::{Site, console, prepare, wait_metric, wait_shown, wait_two_phase};
use crate::support::{self, Cluster, Hosts, Proxy};

#[tokio::test]
async fn one_database_or_one_cluster_twice() {
    let site = Site::new(2).await;
    let c = site.hosts.clusters[0].url();
    let with = |c_url: &str| {
        site.write_map(1, |text| {
            text.replace(
                "[hosts.b]",
                &format!("[hosts.a2]\nurl = \"{c_url}\"\n[hosts.b]"),
            )
        });
        site.map()
    };
    let said = async |map: &ShardMap| {
        let hosts = Recovery::of(map, None);
        hosts.connect(true).await;
        let said = |host| match hosts.readiness(host) {
            Readiness::Unable { why, .. } => why,
            Readiness::Ready(_) => "ready".to_owned(),
            Readiness::Unknown(why) => panic!("{why}"),
        };
        hosts.all.iter().map(|host| said(host)).collect::<Vec<_>>()
    };
    let same = said(&with(&site.url(0).replace("127.0.0.1", "localhost"))).await;
    assert_eq!(same[0], "ready");
    assert!(same[1].contains("the same database as host a"), "{same:?}");
    assert_eq!(same[2], "ready");
    let cluster = said(&with(&c)).await;
    assert!(
        cluster[1].contains("the same cluster as host a"),
        "{cluster:?}"
    );
    // Two databases of one cluster and no third host: one decides, the other is prepared.
    site.write_map(1, |text| text.replace(&site.url(1), &c));
    assert_eq!(said(&site.map()).await, ["ready", "ready"]);
}

#[tokio::test]
async fn a_host_without_prepared_transactions_is_unable_until_it_is_mended() {
    let mut hosts = Hosts::bare(2, 8);
    hosts.clusters[1] = Cluster::with(&["max_prepared_transactions=0"]);
    let mut site = Site::of(hosts).await;
    let proxy = Proxy::start(&site.hosts);
    let console = console(&proxy).await;
    wait_two_phase(&console, "a", &["ready"]).await;
    let words = [
        "max_prepared_transactions is 0",
        "set max_prepared_transactions = 10 ",
    ];
    wait_two_phase(&console, "b", &words).await;
    wait_metric(&console, "presplit_two_phase_ready", "host=b", 0.0).await;
    let (well, said) = site.doctor(&[]);
    assert!(
        !well && words.iter().all(|word| said.contains(word)),
        "{said}"
    );
    assert!(said.contains("one thing to do"), "{said}");
    site.hosts.clusters[1].stop();
    site.hosts.clusters[1].set("max_prepared_transactions=5");
    site.hosts.clusters[1].start();
    wait_two_phase(&console, "b", &["ready"]).await;
    wait_metric(&console, "presplit_two_phase_ready", "host=b", 1.0).await;
    let (well, said) = site.doctor(&[]);
    assert!(well, "{said}");
    assert!(
        said.contains("note: the pool of this map is 10") && said.contains("all well"),
        "{said}"
    );
    // With "refuse" it does not matter.
    site.hosts.clusters[1].stop();
    site.hosts.clusters[1].set("max_prepared_transactions=0");
    site.hosts.clusters[1].start();
    site.write_map(1, |text| {
        text.replace("[proxy]\n", "[proxy]\ncross_host = \"refuse\"\n")
    });
    let (well, said) = site.doctor(&[]);
    assert!(
        well && said.contains("which this map does not need"),
        "{said}"
    );
}

#[tokio::test]
async fn roles_that_may_not_do_everything() {
    let site = Site::new(2).await;
    let clients = [site.client(0).await, site.client(1).await];
    for client in &clients {
        let sql = "CREATE ROLE keeper LOGIN; CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN";
        client.batch_execute(sql).await.unwrap();
    }
    let as_keeper = |text: String| text.replace("app@", "keeper@");
    site.write_map(1, as_keeper);
    let proxy = Proxy::start(&site.hosts);
    let console = console(&proxy).await;
    for host in ["a", "b"] {
        wait_two_phase(
            &console,
            host,
            &[
                "no table presplit.decision",
                "permission denied",
                "presplit provision",
            ],
        )
        .await;
    }
    for (client, mend) in clients
        .iter()
        .zip(["", "GRANT SELECT, DELETE ON presplit.decision TO keeper"])
    {
        let sql = format!(
            "{}; GRANT SELECT ON presplit.decision TO keeper; {mend}",
            twophase::TABLE
        );
        client.batch_execute(&sql).await.unwrap();
    }
    wait_two_phase(&console, "b", &["ready"]).await;
    wait_two_phase(
        &console,
        "a",
        &[
            "may not read",
            "GRANT SELECT, DELETE ON presplit.decision TO \"keeper\"",
        ],
    )
    .await;
    clients[0]
        .batch_execute("GRANT DELETE ON presplit.decision TO keeper")
        .await
        .unwrap();
    wait_two_phase(&console, "a", &["ready"]).await;

    // Prepared in a role that the proxy's may not take: told, and done once it may.
    let prepared_by = async |role: &str| {
        let name = site.name(0);
        let client =
            support::connect(site.hosts.clusters[1].config().dbname("shop").user(role)).await;
        prepare(&client, &name).await;
        name
    };
    let name = prepared_by("alice").await;
    wait_shown(
        &console,
        "b",
        &name,
        &[
            "stuck",
            "rolled back",
            "GRANT \\\"alice\\\" TO \\\"keeper\\\"",
        ],
    )
    .await;
    assert_eq!(site.state(1, &name).await, "prepared");
    clients[1]
        .batch_execute("GRANT alice TO keeper")
        .await
        .unwrap();
    site.wait(1, &name, "nothing").await;
    // Or as a role that the map has the login of.
    let name = prepared_by("bob").await;
    wait_shown(&console, "b", &name, &["stuck"]).await;
    site.write_map(1, |text| {
        as_keeper(text).replace(
            "[users.app]",
            "[users.app]\n[users.bob]\nserver_user = \"bob\"\n",
        )
    });
    site.wait(1, &name, "nothing").await;
}
