//! Transactions over several hosts whose proxy is gone: prepared by hand as a session prepares them, ended by a proxy that
//! runs, or by `presplit doctor`.

mod doctor;
mod passes;
mod proxy;
mod readiness;

use std::collections::HashSet;
use std::path::Path;
use std::process::{Command, Output};

use presplit::shardmap::ShardMap;
use presplit::twophase::{self, Home, Name, Place, ProxyId};
use tokio_postgres::Client;

use crate::support::{self, Cluster, Hosts, Proxy, wait_until};

/// Hosts whose databases are different, as those of real clusters are: clusters of tests are copies of one, so that only
/// another OID tells them apart.
struct Site {
    hosts: Hosts,
    /// Of each host.
    homes: Vec<Home>,
    numbers: std::cell::Cell<u64>,
}

/// A run of a proxy that is no more.
const GONE: ProxyId = ProxyId {
    proxy: 0xdead,
    epoch: 1_700_000_000,
};

impl Site {
    async fn new(count: usize) -> Site {
        Site::of(Hosts::bare(count, 8)).await
    }

    async fn of(hosts: Hosts) -> Site {
        let mut homes = Vec::new();
        for (i, cluster) in hosts.clusters.iter().enumerate() {
            let app = cluster.client().await;
            for other in 0..i {
                let sql = format!("CREATE DATABASE other{other}");
                app.batch_execute(&sql).await.unwrap();
            }
            app.batch_execute("CREATE DATABASE shop").await.unwrap();
            let client = shop(cluster).await;
            let sql = "CREATE SCHEMA side; CREATE TABLE side.t (x text); GRANT USAGE ON SCHEMA side TO PUBLIC; GRANT ALL ON side.t TO PUBLIC";
            client.batch_execute(sql).await.unwrap();
            homes.push(home(&client).await);
        }
        let different: HashSet<&Home> = homes.iter().collect();
        assert_eq!(different.len(), homes.len());
        let site = Site {
            hosts,
            homes,
            numbers: std::cell::Cell::new(1),
        };
        site.write_map(1, |text| text);
        site
    }

    /// The map of the hosts, changed.
    fn write_map(&self, version: u32, change: impl FnOnce(String) -> String) {
        let text = self.hosts.map_text(version, "http = \"127.0.0.1:0\"");
        self.hosts
            .write_map(&change(text.replace("/app\"", "/shop\"")));
    }

    fn map(&self) -> ShardMap {
        self.hosts.map()
    }

    fn url(&self, i: usize) -> String {
        format!(
            "postgres://app@127.0.0.1:{}/shop",
            self.hosts.clusters[i].port()
        )
    }

    async fn client(&self, i: usize) -> Client {
        shop(&self.hosts.clusters[i]).await
    }

    /// A new transaction that is decided on host `i`.
    fn name(&self, i: usize) -> Name {
        let number = self.numbers.replace(self.numbers.get() + 1);
        Name {
            home: self.homes[i],
            proxy: GONE,
            number,
            host: Hosts::name(i),
        }
    }

    /// Host `i`, as a decision's row names it.
    fn place(&self, i: usize) -> String {
        let (host, home) = (&Hosts::name(i), self.homes[i]);
        Place { host, home }.to_string()
    }

    /// Prepares a part on host `i`, which writes a row.
    async fn prepare(&self, i: usize, name: &Name) {
        prepare(&self.client(i).await, name).await;
    }

    /// The decision host's part, begun as a session begins it: marked, and a row written.
    async fn begin(&self, i: usize, name: &Name) -> Client {
        let client = self.client(i).await;
        let begin = format!("BEGIN; {}; {}", twophase::mark(name), write(name));
        client.batch_execute(&begin).await.unwrap();
        client
    }

    /// Decides on host `i`, with parts on the hosts `on`.
    async fn decide(&self, i: usize, name: &Name, on: &[usize]) {
        let client = self.begin(i, name).await;
        let places = on.iter().map(|i| self.place(*i));
        let decide = twophase::decide(name, places);
        client.batch_execute(&decide).await.unwrap();
    }

    async fn make_table(&self, i: usize) {
        let client = self.client(i).await;
        client.batch_execute(twophase::TABLE).await.unwrap();
    }

    /// What became of a transaction on a host: `prepared`, `committed`, or `nothing`.
    async fn state(&self, i: usize, name: &Name) -> &'static str {
        state(&self.client(i).await, name).await
    }

    async fn wait(&self, i: usize, name: &Name, wanted: &str) {
        let what = format!("{name} is {wanted} on host {}", Hosts::name(i));
        let client = self.client(i).await;
        wait_until(&what, || async { state(&client, name).await == wanted }).await;
    }

    async fn rows(&self, i: usize) -> i64 {
        let sql = "SELECT count(*) FROM presplit.decision";
        let client = self.client(i).await;
        client.query_one(sql, &[]).await.unwrap().get(0)
    }

    fn doctor(&self, flags: &[&str]) -> (bool, String) {
        doctor(&self.hosts.map_file(), flags)
    }
}

async fn shop(cluster: &Cluster) -> Client {
    support::connect(cluster.config().dbname("shop")).await
}

async fn home(client: &Client) -> Home {
    let sql = "SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()) FROM pg_control_system()";
    let row = client.query_one(sql, &[]).await.unwrap();
    Home {
        system: row.get::<_, i64>(0) as u64,
        database: row.get(1),
    }
}

fn write(name: &Name) -> String {
    format!("INSERT INTO side.t VALUES ('{name}')")
}

async fn prepare(client: &Client, name: &Name) {
    let (mark, write, prepare) = (twophase::mark(name), write(name), twophase::prepare(name));
    let sql = format!("BEGIN; {mark}; {write}; {prepare}");
    client.batch_execute(&sql).await.unwrap();
}

async fn state(client: &Client, name: &Name) -> &'static str {
    let sql = "SELECT (SELECT count(*) FROM pg_prepared_xacts WHERE gid = $1), (SELECT count(*) FROM side.t WHERE x = $1)";
    let row = client.query_one(sql, &[&name.to_string()]).await.unwrap();
    match (row.get::<_, i64>(0), row.get::<_, i64>(1)) {
        (1, 0) => "prepared",
        (0, 1) => "committed",
        (0, 0) => "nothing",
        other => panic!("{name}: {other:?}"),
    }
}

fn doctor(map_file: &Path, flags: &[&str]) -> (bool, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_presplit"))
        .args(["doctor", "--map"])
        .arg(map_file)
        .args(flags)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(matches!(status.code(), Some(0 | 1)), "{}", text(&stderr));
    (status.success(), text(&stdout) + &text(&stderr))
}

async fn console(proxy: &Proxy) -> Client {
    support::connect(proxy.config().dbname("presplit")).await
}

/// SHOW TRANSACTIONS: state, why and what to do of one that is prepared on a host.
async fn shown(console: &Client, host: &str, name: &Name) -> Option<(String, String, String)> {
    let rows = console.query("SHOW TRANSACTIONS", &[]).await.unwrap();
    let row = rows.iter().find(|row| {
        row.get::<_, String>("transaction") == name.to_string()
            && row.get::<_, String>("hosts") == host
    })?;
    assert_eq!(row.get::<_, Option<i64>>("client"), None);
    Some((row.get("state"), row.get("why"), row.get("to_do")))
}

async fn wait_shown(console: &Client, host: &str, name: &Name, words: &[&str]) {
    let what = format!("{name} on {host} is shown with {words:?}");
    wait_until(&what, || async {
        shown(console, host, name).await.is_some_and(|shown| {
            let all = format!("{shown:?}");
            words.iter().all(|word| all.contains(word))
        })
    })
    .await;
}

/// What SHOW HOSTS says of a host's readiness.
async fn two_phase(console: &Client, host: &str) -> String {
    let rows = console.query("SHOW HOSTS", &[]).await.unwrap();
    let row = rows.iter().find(|row| row.get::<_, String>("name") == host);
    row.unwrap().get("two_phase")
}

async fn wait_two_phase(console: &Client, host: &str, words: &[&str]) {
    let what = format!("host {host} is {words:?}");
    wait_until(&what, || async {
        let said = two_phase(console, host).await;
        words.iter().all(|word| said.contains(word))
    })
    .await;
}

async fn metric(console: &Client, name: &str, labels: &str) -> f64 {
    let rows = console.query("SHOW STATS", &[]).await.unwrap();
    let row = rows.iter().find(|row| {
        row.get::<_, String>("name") == name && row.get::<_, String>("labels") == labels
    });
    row.unwrap_or_else(|| panic!("no {name} {labels}"))
        .get("value")
}

async fn wait_metric(console: &Client, name: &str, labels: &str, value: f64) {
    wait_until(&format!("{name} {labels} is {value}"), || async {
        metric(console, name, labels).await == value
    })
    .await;
}

/// Waits until SHOW TRANSACTIONS has no rows.
async fn none_shown(console: &Client) {
    wait_until("nothing is under way or in doubt", || async {
        let shown = console.query("SHOW TRANSACTIONS", &[]).await.unwrap();
        shown.is_empty()
    })
    .await;
}
