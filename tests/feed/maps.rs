//! Processes that map partitions to the nodes of Redis in different ways: each says so.

use std::path::Path;
use std::time::Duration;

use presplit::feed::store::{RedisStore, Store};

use super::http::{Service, metric};
use super::place::place;
use crate::support::{Redis, wait_until};

#[tokio::test]
async fn maps_that_differ_are_counted_where_they_meet() {
    let (first, second) = (Redis::new(), Redis::new());
    let mut config = first.config();
    let mut node = second.config().nodes.remove(0);
    node.name = "r2".to_owned();
    config.nodes.push(node);
    config.partitions[200] = 1;
    let of_both = RedisStore::new(&config).unwrap();
    assert_eq!(of_both.maps().await.unwrap(), 1);
    // The same map again, and nodes that are named in another order.
    let same = RedisStore::new(&config).unwrap();
    config.nodes.reverse();
    config
        .partitions
        .iter_mut()
        .for_each(|node| *node = 1 - *node);
    let reversed = RedisStore::new(&config).unwrap();
    assert_eq!(
        (same.maps().await.unwrap(), reversed.maps().await.unwrap()),
        (1, 1)
    );
    config.partitions[200] = 1;
    let other = RedisStore::new(&config).unwrap();
    assert_eq!(
        (other.maps().await.unwrap(), of_both.maps().await.unwrap()),
        (2, 2)
    );
    // One node is away: what the other says counts.
    drop(second);
    assert_eq!(of_both.maps().await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_with_different_maps_say_so() {
    let redis = Redis::new();
    let url = place().await.proxy.url();
    let dir = tempfile::tempdir().unwrap();
    let start = |name: &str| {
        let map = dir.path().join(format!("{name}.toml"));
        std::fs::write(
            &map,
            format!("[feed.redis.nodes]\n{name} = \"{}\"", redis.url()),
        )
        .unwrap();
        let map: &Path = &map;
        Service::start(&["--map", map.to_str().unwrap(), "--database-url", &url])
    };
    let differ = async |at| {
        let said = tokio::task::spawn_blocking(move || metric(at, "maps_differ"));
        said.await.unwrap()
    };
    let first = start("r1");
    wait_until("it has said which map it has", || async {
        redis.ask::<u64>(&["EXISTS", "feed:maps"]) == 1
    })
    .await;
    assert_eq!(differ(first.at).await, "0");
    let second = start("other");
    for at in [first.at, second.at] {
        wait_until("it says so", || async { differ(at).await == "1" }).await;
    }
    assert!(first.log.lock().unwrap().contains("2 different maps"));
    let long = Duration::from_secs(60);
    let life: u64 = redis.ask(&["TTL", "feed:maps"]);
    assert!(Duration::from_secs(life) < long);
}
