//! Transactions over several hosts whose proxy is gone: prepared by hand as a session prepares them, ended by a proxy that
//! runs, or by `presplit doctor`.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use presplit::ops::demo::SCHEMA;
use presplit::ops::provision::{self, Options};
use presplit::ops::recovery::{self, Hosts as Recovery};
use presplit::shardmap::ShardMap;
use presplit::twophase::{self, Board, Home, Name, Place, ProxyId, Readiness};
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
    assert_eq!(shown(&console, "b", &decided).await, None);
    assert_eq!(
        metric(&console, "presplit_recovered_total", "outcome=committed").await,
        2.0
    );
    assert_eq!(
        metric(&console, "presplit_recovered_total", "outcome=rolled_back").await,
        2.0
    );
    assert_eq!(
        metric(&console, "presplit_transactions_in_doubt", "host=b").await,
        1.0
    );
    assert_eq!(
        metric(&console, "presplit_transactions_in_doubt", "host=a").await,
        0.0
    );
    let oldest = "presplit_transactions_in_doubt_oldest_seconds";
    assert!(metric(&console, oldest, "host=b").await > 0.0);
    assert_eq!(site.state(1, &open).await, "prepared");

    // The one decides now, the other's connection ends.
    let decide = twophase::decide(&open, [site.place(1)].into_iter());
    part.batch_execute(&decide).await.unwrap();
    drop(other);
    site.wait(1, &open, "committed").await;
    site.wait(2, &dropped, "nothing").await;
    wait_until("nothing is in doubt", || async {
        console
            .query("SHOW TRANSACTIONS", &[])
            .await
            .unwrap()
            .is_empty()
    })
    .await;

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
async fn what_a_session_has_or_has_told_its_client() {
    let site = Site::new(2).await;
    let hosts = Recovery::of(&site.map(), None);
    hosts.connect(true).await;
    let (a, b) = (&hosts.all[0], &hosts.all[1]);
    assert_eq!(hosts.readiness(a), Readiness::Ready(site.homes[0]));
    let board = Board::new();
    let none = HashSet::new();
    let look = async || {
        recovery::pass(&hosts, b, &board, &none, true)
            .await
            .unwrap()
    };

    // A session is at work on it: left alone, and not even shown.
    let ticket = board.begin("a", site.homes[0], 1, b"key");
    let name = ticket.name().clone();
    site.prepare(1, &name).await;
    assert!(look().await.in_doubt.is_empty());
    assert_eq!(site.state(1, &name).await, "prepared");
    drop(ticket);
    assert_eq!(look().await.rolled_back, std::slice::from_ref(&name));
    assert_eq!(site.state(1, &name).await, "nothing");

    // A client knows that it is committed: no decision host is asked, and nobody looks at b before it is so.
    let mut told = site.name(0);
    told.home.database += 99;
    site.prepare(1, &told).await;
    assert!(look().await.committed.is_empty());
    board.owe("b", &told);
    board.forget(&told);
    assert!(board.take_done().is_empty());
    let owed = board.owed("b");
    let look = recovery::pass(&hosts, b, &board, &owed, true)
        .await
        .unwrap();
    assert_eq!(look.committed, [told.clone()]);
    assert_eq!(site.state(1, &told).await, "committed");
    assert!(board.is_settled("b"));
    assert_eq!(board.take_done(), [told.clone()]);

    // Rows of what sessions have done are deleted; those of a host that is down are kept for later.
    let done = site.name(0);
    site.decide(0, &done, &[1]).await;
    board.forget(&done);
    recovery::delete_done(&hosts, &board).await;
    assert_eq!(site.rows(0).await, 0);
    assert!(board.take_done().is_empty());
    let mut site = site;
    site.hosts.clusters[0].stop();
    board.forget(&done);
    recovery::delete_done(&hosts, &board).await;
    assert_eq!(board.take_done(), [done]);
}

#[tokio::test]
async fn a_row_is_swept_only_when_no_database_can_need_it() {
    let mut site = Site::new(3).await;
    site.make_table(0).await;
    let hosts = Recovery::of(&site.map(), None);
    hosts.connect(true).await;
    let (needed, spent, foreign) = (site.name(0), site.name(0), site.name(0));
    site.prepare(1, &needed).await;
    site.decide(0, &needed, &[1]).await;
    site.decide(0, &spent, &[1, 2]).await;
    let part = site.begin(0, &foreign).await;
    let place = format!("d={:x}.1", site.homes[0].system);
    let decide = twophase::decide(&foreign, [place].into_iter());
    part.batch_execute(&decide).await.unwrap();
    // Copied from another database, and none of ours.
    let copy = Name {
        home: site.homes[1],
        ..site.name(0)
    };
    let a = site.client(0).await;
    let sql = format!("INSERT INTO presplit.decision VALUES ('{copy}', '{{}}'), ('x', '{{}}')");
    a.batch_execute(&sql).await.unwrap();

    let rows = &recovery::rows_of(&hosts).await.unwrap()[0];
    assert_eq!(rows.needed, std::slice::from_ref(&needed));
    assert_eq!(rows.spent, std::slice::from_ref(&spent));
    let unsure: Vec<&str> = rows.unsure.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(unsure.len(), 3, "{rows:?}");
    assert!(unsure.contains(&foreign.to_string().as_str()), "{rows:?}");

    // With a host that does not answer nothing is certain.
    site.hosts.clusters[2].stop();
    assert!(
        recovery::sweep(&hosts)
            .await
            .unwrap_err()
            .contains("host c")
    );
    assert_eq!(site.rows(0).await, 5);
    site.hosts.clusters[2].start();
    hosts.connect(true).await;
    assert_eq!(recovery::sweep(&hosts).await, Ok(1));
    assert_eq!(site.rows(0).await, 4);
    // Nothing is lost of the one that is needed.
    let board = Board::new();
    let look = recovery::pass(&hosts, &hosts.all[1], &board, &HashSet::new(), true).await;
    assert_eq!(look.unwrap().committed, [needed]);
    assert_eq!(recovery::sweep(&hosts).await, Ok(1));
}

/// What a session of a test knows of a transaction when it ends, or is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    Committed,
    /// It was killed before it asked for the decision.
    NotDecided,
    /// It was killed while it waited for an answer.
    Unknown,
}

/// Waits for an answer no longer than a moment. What was asked for goes on.
async fn killed(work: impl Future<Output = bool>) -> bool {
    let wait = Duration::from_micros(rand::random_range(0..2000));
    tokio::time::timeout(wait, work).await.unwrap_or(false)
}

/// Commits a transaction over three hosts by the protocol, and is killed at `step`, with what it has asked for under way.
async fn commit(clients: &[Client; 3], name: &Name, places: &[String], step: usize) -> Told {
    let begin = format!("BEGIN; {}; {}", twophase::mark(name), write(name));
    for client in clients {
        client.batch_execute(&begin).await.unwrap();
    }
    let [decision, b, c] = clients;
    let both = async |sql: String| {
        let (b, c) = tokio::join!(b.batch_execute(&sql), c.batch_execute(&sql));
        b.is_ok() && c.is_ok()
    };
    match step {
        0 => return Told::NotDecided,
        1 => {
            killed(both(twophase::prepare(name))).await;
            return Told::NotDecided;
        }
        _ => assert!(both(twophase::prepare(name)).await, "{name}"),
    }
    let decide = twophase::decide(name, places.iter());
    let decided = async || decision.batch_execute(&decide).await.is_ok();
    match step {
        2 => return Told::NotDecided,
        3 => {
            return match killed(decided()).await {
                true => Told::Committed,
                false => Told::Unknown,
            };
        }
        _ => assert!(decided().await, "{name}"),
    }
    let carry_out = both(twophase::commit_prepared(name));
    match step {
        4 => {}
        5 => drop(killed(carry_out).await),
        // Recovery may come first, which is an error here, and as good.
        _ => drop(carry_out.await),
    }
    Told::Committed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_recoveries_beside_many_sessions_that_are_killed() {
    let site = Site::new(3).await;
    for i in 0..3 {
        site.make_table(i).await;
    }
    let places: Vec<String> = (0..3).map(|i| site.place(i)).collect();
    let configs: Vec<_> = (0..3)
        .map(|i| site.hosts.clusters[i].config().dbname("shop").clone())
        .collect();
    let homes = site.homes.clone();
    let stop = Arc::new(AtomicBool::new(false));

    let recoveries: Vec<_> = (0..3)
        .map(|_| {
            let (map, stop) = (site.map(), stop.clone());
            tokio::spawn(async move {
                let hosts = Recovery::of(&map, None);
                hosts.connect(true).await;
                let (board, none) = (Board::new(), HashSet::new());
                let mut ended = 0;
                while !stop.load(Ordering::Relaxed) {
                    for host in &hosts.all {
                        let look = recovery::pass(&hosts, host, &board, &none, true)
                            .await
                            .unwrap();
                        ended += look.committed.len() + look.rolled_back.len();
                    }
                    recovery::sweep(&hosts).await.unwrap();
                }
                ended
            })
        })
        .collect();
    let sessions: Vec<_> = (0..6u64)
        .map(|session| {
            let (configs, places, homes) = (configs.clone(), places.clone(), homes.clone());
            tokio::spawn(async move {
                let mut all = Vec::new();
                let mut held = None;
                for number in 0..100 {
                    let first = rand::random_range(0..3usize);
                    let order = [first, (first + 1) % 3, (first + 2) % 3];
                    let name = Name {
                        home: homes[first],
                        proxy: GONE,
                        number: session << 20 | number,
                        host: Hosts::name(first),
                    };
                    let clients = match held.take() {
                        Some((of, clients)) if of == first => clients,
                        _ => [
                            support::connect(&configs[order[0]]).await,
                            support::connect(&configs[order[1]]).await,
                            support::connect(&configs[order[2]]).await,
                        ],
                    };
                    let step = rand::random_range(0..10);
                    let places = [places[order[1]].clone(), places[order[2]].clone()];
                    let told = commit(&clients, &name, &places, step).await;
                    if step > 5 {
                        held = Some((first, clients));
                    }
                    all.push((name, told));
                }
                all
            })
        })
        .collect();
    let mut all = Vec::new();
    for session in sessions {
        all.extend(session.await.unwrap());
    }
    let clients = [
        site.client(0).await,
        site.client(1).await,
        site.client(2).await,
    ];
    for client in &clients {
        wait_until("nothing is prepared, and no row is left", || async {
            let sql = "SELECT (SELECT count(*) FROM pg_prepared_xacts) + (SELECT count(*) FROM presplit.decision)";
            client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut ended = 0;
    for recovery in recoveries {
        ended += recovery.await.unwrap();
    }
    assert!(ended > 100, "{ended}");
    for (name, told) in &all {
        let states = [
            state(&clients[0], name).await,
            state(&clients[1], name).await,
            state(&clients[2], name).await,
        ];
        assert!(
            states.iter().all(|state| *state == states[0]),
            "{name} {told:?}: {states:?}"
        );
        match told {
            Told::Committed => assert_eq!(states[0], "committed", "{name}"),
            Told::NotDecided => assert_eq!(states[0], "nothing", "{name}"),
            Told::Unknown => {}
        }
    }
}

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
    assert_eq!(
        metric(&console, "presplit_two_phase_ready", "host=b").await,
        0.0
    );
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
    assert_eq!(
        metric(&console, "presplit_two_phase_ready", "host=b").await,
        1.0
    );
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

#[tokio::test]
async fn the_doctor_explains_and_resolves() {
    let mut site = Site::new(3).await;
    let report = provision::run(&site.map(), SCHEMA, Options::default())
        .await
        .unwrap();
    assert!(report.is_complete(), "{report}");
    let (well, said) = site.doctor(&[]);
    assert!(well && said.ends_with("all well\n"), "{said}");
    assert!(
        said.contains("PostgreSQL 1") && said.contains("max_prepared_transactions is 100"),
        "{said}"
    );

    let (decided, undecided, open, spent) =
        (site.name(0), site.name(0), site.name(0), site.name(0));
    for name in [&decided, &undecided, &open] {
        site.prepare(1, name).await;
    }
    site.decide(0, &decided, &[1]).await;
    site.decide(0, &spent, &[1]).await;
    let part = site.begin(0, &open).await;
    let b = site.client(1).await;
    b.batch_execute("BEGIN; INSERT INTO side.t VALUES ('theirs'); PREPARE TRANSACTION 'theirs'")
        .await
        .unwrap();
    let (well, said) = site.doctor(&[]);
    assert!(!well && said.contains("2 things to do"), "{said}");
    for words in [
        &format!("TO DO: {decided}, prepared "),
        "s ago by app: to be committed",
        &format!("TO DO: {undecided}, prepared "),
        "to be rolled back",
        "presplit doctor --resolve",
        &format!("under way: {open}"),
        "never touched by presplit: \"theirs\"",
        "decision rows that are needed: 1",
        "decision rows of no more use: 1",
    ] {
        assert!(said.contains(words), "no {words} in\n{said}");
    }
    for name in [&decided, &undecided, &open] {
        assert_eq!(site.state(1, name).await, "prepared");
    }
    // A person has no say while it is known, or can be.
    let named = decided.to_string();
    let (done, said) = site.doctor(&["--rollback", &named]);
    assert!(
        !done && said.contains("nothing was done") && said.contains("to be committed"),
        "{said}"
    );
    let (done, said) = site.doctor(&["--commit", &open.to_string()]);
    assert!(!done && said.contains("is open"), "{said}");
    let (done, said) = site.doctor(&["--commit", "theirs"]);
    assert!(
        !done && said.contains("not the name of a transaction of presplit"),
        "{said}"
    );
    let (done, said) = site.doctor(&["--commit", &spent.to_string()]);
    assert!(
        !done && said.contains("prepared on no host of the map"),
        "{said}"
    );

    let (well, said) = site.doctor(&["--resolve"]);
    assert!(
        well && said.contains("committed now") && said.contains("rolled back now"),
        "{said}"
    );
    assert_eq!(site.state(1, &decided).await, "committed");
    assert_eq!(site.state(1, &undecided).await, "nothing");
    assert_eq!(site.state(1, &open).await, "prepared");
    assert_eq!(site.rows(0).await, 0);
    let theirs = "SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'theirs'";
    assert_eq!(b.query_one(theirs, &[]).await.unwrap().get::<_, i64>(0), 1);

    // Once it is older than a commit takes, the process that keeps it open is named.
    let pid: i32 = part
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    let file = site.hosts.map_file();
    wait_until("the doctor names who keeps it open", || async {
        let (well, said) = doctor(&file, &[]);
        !well
            && said.contains(&format!("pg_terminate_backend({pid})"))
            && said.contains("idle in transaction")
    })
    .await;
    part.batch_execute("ROLLBACK").await.unwrap();

    site.hosts.clusters[0].stop();
    let (well, said) = site.doctor(&["--resolve"]);
    assert!(
        !well && said.contains("it can't be reached") && said.contains("decision host down"),
        "{said}"
    );
    let (done, said) = site.doctor(&["--rollback", &open.to_string()]);
    assert!(!done && said.contains("host a can't be asked"), "{said}");
    assert_eq!(site.state(1, &open).await, "prepared");
}

#[tokio::test]
async fn by_hand_only_what_nobody_can_know() {
    let site = Site::new(2).await;
    for i in [0, 1] {
        site.make_table(i).await;
    }
    // Their decision host was a database that is no more.
    let lost = || {
        let mut name = site.name(0);
        name.home.database += 99;
        name
    };
    let (commit, roll_back, copied) = (lost(), lost(), lost());
    for name in [&commit, &roll_back, &copied] {
        for i in [0, 1] {
            site.prepare(i, name).await;
        }
    }
    let (well, said) = site.doctor(&["--resolve"]);
    assert!(!well && said.contains("6 things to do"), "{said}");
    assert!(
        said.contains(&format!(
            "pg_try_advisory_xact_lock_shared({})",
            commit.key()
        )),
        "{said}"
    );
    let (done, said) = site.doctor(&["--commit", &commit.to_string()]);
    assert!(
        done && said.contains("host a: committed") && said.contains("host b: committed"),
        "{said}"
    );
    let (done, said) = site.doctor(&["--rollback", &roll_back.to_string()]);
    assert!(done && said.contains("host b: rolled back"), "{said}");
    // A row of it anywhere proves that it is committed.
    let b = site.client(1).await;
    let sql = format!("INSERT INTO presplit.decision VALUES ('{copied}', '{{}}')");
    b.batch_execute(&sql).await.unwrap();
    let (done, said) = site.doctor(&["--rollback", &copied.to_string()]);
    assert!(
        !done && said.contains("host b has its decision row"),
        "{said}"
    );
    for i in [0, 1] {
        assert_eq!(site.state(i, &commit).await, "committed");
        assert_eq!(site.state(i, &roll_back).await, "nothing");
        assert_eq!(site.state(i, &copied).await, "prepared");
    }
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
        assert!(
            console
                .query("SHOW TRANSACTIONS", &[])
                .await
                .unwrap()
                .is_empty()
        );
    }
    assert_eq!(
        metric(
            &console,
            "presplit_cross_host_transactions_total",
            "outcome=committed"
        )
        .await,
        1.0
    );
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
