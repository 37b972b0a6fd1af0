//! Redis Cluster as the store's engine: real nodes, a node that falls and is replaced, slots that move.

use std::sync::atomic::Ordering;
use std::time::Duration;

use presplit::feed::store::{RedisStore, Span, Store};
use presplit::feed::{FEED_MOST, MediaId, UserId};
use presplit::ops::cluster::free_port;

use super::model::Upset;
use super::store::{Bench, LONG, SHORT, agrees};
use crate::support::{Redis, wait_until};

const SLOTS: u32 = 16384;

/// Some primaries, and as many replicas of them behind.
struct Cluster {
    nodes: Vec<Redis>,
    primaries: usize,
}

impl Cluster {
    async fn new(primaries: usize, replicas: bool) -> Cluster {
        let count = if replicas { 2 * primaries } else { primaries };
        let nodes: Vec<Redis> = (0..count).map(|_| node()).collect();
        let cluster = Cluster { nodes, primaries };
        for (n, node) in cluster.nodes.iter().enumerate() {
            let epoch = (n + 1).to_string();
            node.ask::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
            if n < primaries {
                let share = SLOTS / primaries as u32;
                let first = n as u32 * share;
                let last = if n + 1 == primaries {
                    SLOTS - 1
                } else {
                    first + share - 1
                };
                let range = [first.to_string(), last.to_string()];
                node.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]);
            }
        }
        let first = &cluster.nodes[0];
        for node in &cluster.nodes[1..] {
            let bus: Vec<String> = node.ask(&["CONFIG", "GET", "cluster-port"]);
            let port = node.port().to_string();
            first.ask::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus[1]]);
        }
        for n in 0..count {
            wait_until("all know each other", || async {
                cluster.said(n, "cluster_known_nodes:") == count.to_string()
            })
            .await;
        }
        for n in primaries..count {
            let of = cluster.id(n - primaries);
            cluster.nodes[n].ask::<()>(&["CLUSTER", "REPLICATE", &of]);
        }
        for n in 0..count {
            wait_until("the cluster is well", || async {
                let link: String = cluster.nodes[n].ask(&["INFO", "replication"]);
                cluster.said(n, "cluster_state:") == "ok"
                    && cluster.said(n, "cluster_slots_ok:") == SLOTS.to_string()
                    && (n < primaries || link.contains("master_link_status:up"))
            })
            .await;
        }
        cluster
    }

    fn id(&self, node: usize) -> String {
        self.nodes[node].ask(&["CLUSTER", "MYID"])
    }

    fn said(&self, node: usize, name: &str) -> String {
        let info: String = self.nodes[node].ask(&["CLUSTER", "INFO"]);
        let line = info.lines().find_map(|l| l.strip_prefix(name));
        line.unwrap().trim().to_owned()
    }

    /// It is told of the last primary alone.
    fn store(&self, most: usize) -> RedisStore {
        let mut config = self.nodes[self.primaries - 1].config();
        config.cluster = vec![config.nodes.remove(0).connection];
        config.limit = Duration::from_secs(5);
        config.feed_most = most;
        RedisStore::new(&config).unwrap()
    }

    /// A replica becomes the primary, and the primary its replica.
    async fn take_over(&self, node: usize) {
        let info = || self.nodes[node].ask::<String>(&["INFO", "replication"]);
        wait_until("it is a replica that could", || async {
            info().contains("role:slave") && info().contains("master_link_status:up")
        })
        .await;
        self.nodes[node].tell(&["CLUSTER", "FAILOVER"]);
        let asked = std::time::Instant::now();
        wait_until("it is the primary", || {
            // On a loaded machine the others may not vote in time.
            if asked.elapsed() > Duration::from_secs(6) {
                self.seize(node);
            }
            std::future::ready(info().contains("role:master"))
        })
        .await;
    }

    /// The same without asking anybody, as where the primary is gone.
    fn seize(&self, node: usize) {
        self.nodes[node].tell(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
    }

    fn primaries(&self) -> &[Redis] {
        &self.nodes[..self.primaries]
    }
}

fn node() -> Redis {
    let bus = free_port().unwrap().to_string();
    let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus];
    let quick = [
        "--cluster-node-timeout",
        "2000",
        "--repl-diskless-sync-delay",
        "0",
    ];
    Redis::with(&[cluster, quick].concat())
}

impl Bench for Cluster {
    fn new_store(&self, most: usize) -> Box<dyn Store> {
        self.upset(Upset::Lose);
        Box::new(self.store(most))
    }

    fn upset(&self, upset: Upset) -> bool {
        for node in self.primaries() {
            match upset {
                Upset::Lose => node.ask::<()>(&["FLUSHALL"]),
                Upset::Forget => node.ask::<()>(&["SCRIPT", "FLUSH"]),
            }
        }
        matches!(upset, Upset::Lose)
    }

    fn can_lose(&self) -> bool {
        true
    }
}

#[test]
fn the_store_in_a_cluster_does_as_the_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = runtime.block_on(Cluster::new(3, false));
    agrees(&cluster, SHORT, 40);
    agrees(&cluster, LONG, 4);
    // And all of them had a part in it.
    for node in cluster.primaries() {
        let said: String = node.ask(&["INFO", "commandstats"]);
        assert!(said.contains("cmdstat_evalsha"), "{said}");
    }
}

async fn fill(store: &dyn Store, user: UserId, ids: &[MediaId]) {
    let building = store.begin(user).await.unwrap();
    assert!(store.complete(user, &building, ids).await.unwrap());
}

#[tokio::test]
async fn what_a_node_got_of_another_is_not_believed() {
    let mut cluster = Cluster::new(3, true).await;
    let store = cluster.store(FEED_MOST);
    let users: Vec<UserId> = (0..300).collect();
    for user in &users {
        fill(&store, *user, &[1]).await;
    }
    let pushed = store.push(2, &users).await.unwrap();
    assert_eq!((pushed.new, pushed.absent), (300, 0));
    let held: i64 = cluster.nodes[0].ask(&["DBSIZE"]);
    assert!(held > 50, "{held}");
    wait_until("the replica has it, too", || async {
        cluster.nodes[3].ask::<i64>(&["DBSIZE"]) == held
    })
    .await;
    cluster.nodes[0].kill();
    // As the replica does by itself, seconds later. Until then some fail; what the node had that fell is made anew.
    cluster.seize(3);
    assert_eq!(absent_behind(&store, &users, 3).await, held);
    for user in &users {
        fill(&store, *user, &[3, 2, 1]).await;
    }
    // The one that fell comes back empty-handed and as a replica.
    cluster.nodes[0].start();
    wait_until("it is a replica", || async {
        let said: String = cluster.nodes[0].ask(&["INFO", "replication"]);
        said.contains("role:slave") && said.contains("master_link_status:up")
    })
    .await;
    store.push(4, &users).await.unwrap();
    // And takes over again.
    cluster.take_over(0).await;
    assert_eq!(absent_behind(&store, &users, 5).await, held);
    for user in &users {
        fill(&store, *user, &[5, 4, 3, 2, 1]).await;
    }
    // Then the other, and it once more, without a restart: what it has kept from before, and nobody has touched since, may lack what
    // came between.
    cluster.take_over(3).await;
    // One of the feeds is asked for, so that the store sees it.
    let next = std::sync::atomic::AtomicUsize::new(0);
    wait_until("that is seen", || async {
        let user = users[next.fetch_add(1, Ordering::Relaxed) % users.len()];
        let read = store.read(user, Span::Newest, 10).await;
        read.is_ok_and(|found| found.is_none())
    })
    .await;
    cluster.take_over(0).await;
    assert_eq!(absent_behind(&store, &users, 6).await, held);
}

/// Pushes this id to all, as soon as that can be done: feeds that are there have all up to it. How many are not.
async fn absent_behind(store: &RedisStore, users: &[UserId], id: MediaId) -> i64 {
    wait_until("all is answered again", || async {
        store.push(id, users).await.is_ok()
    })
    .await;
    let mut absent = 0;
    for user in users {
        match store.read(*user, Span::Newest, 10).await.unwrap() {
            Some(found) => assert_eq!(found.ids, Vec::from_iter((1..=id).rev()), "{user}"),
            None => absent += 1,
        }
    }
    absent
}

#[tokio::test]
async fn slots_that_move_are_followed() {
    let cluster = Cluster::new(2, false).await;
    let store = cluster.store(FEED_MOST);
    let users: Vec<UserId> = (0..200).collect();
    for user in &users {
        fill(&store, *user, &[1]).await;
    }
    // The slot of some feed of the first node, with all that is in it.
    let [from, to] = [0, 1].map(|n| (&cluster.nodes[n], cluster.id(n)));
    let keys: Vec<String> = from.0.ask(&["KEYS", "f{*"]);
    let slot: i64 = from.0.ask(&["CLUSTER", "KEYSLOT", &keys[0]]);
    let slot = slot.to_string();
    let moved: Vec<String> = from.0.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "1000"]);
    assert!(moved.contains(&keys[0]));
    to.0.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from.1]);
    from.0
        .ask::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to.1]);
    let port = to.0.port().to_string();
    let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
    migrate.extend(moved.iter().map(String::as_str));
    from.0.ask::<String>(&migrate);
    for node in [to.0, from.0] {
        node.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &to.1]);
    }
    wait_until("it is followed", || async {
        store.push(2, &users).await.is_ok()
    })
    .await;
    let mut absent = 0;
    for user in &users {
        match store.read(*user, Span::Newest, 10).await.unwrap() {
            Some(found) => assert_eq!(found.ids, [2, 1], "{user}"),
            None => absent += 1,
        }
    }
    let feeds = moved.iter().filter(|key| key.starts_with("f{")).count();
    assert_eq!(absent, feeds);
}
