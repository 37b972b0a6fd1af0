//! Statements that once were answered otherwise than by one Postgres, found by the random ones.

use super::generator::{Effect, Gen, Order, Statement};
use super::lane::Lane;
use super::message::{Sent, WAYS};
use super::report::Tally;
use super::runner::both;
use super::values::{Type, Value};
use super::{Cluster, split};

use rand::SeedableRng;
use rand::rngs::StdRng;

/// The statement, and the keys that stand in it.
const FOUND: [(&str, &[i64]); 4] = [
    // One shard of a host: Postgres takes no second ORDER BY behind `(SELECT ... ORDER BY ...)`.
    (
        "SELECT * FROM photos WHERE user_id IN (K, K) ORDER BY user_id DESC, id DESC LIMIT 12",
        &[3, 17],
    ),
    // Described at a host that is not the first of those asked.
    (
        "SELECT sum(weight), avg(weight), count(*) FROM follows WHERE source_id = K OR source_id = K OR source_id = K",
        &[17, -7, 7],
    ),
    // smallint among what is put together.
    (
        "SELECT width, min(id), sum(price) FROM photos GROUP BY 1 ORDER BY count(*) DESC, width LIMIT 3",
        &[],
    ),
    (
        "SELECT user_id, count(DISTINCT width) FROM photos GROUP BY 1 ORDER BY 1 LIMIT 2",
        &[],
    ),
];

fn statement(text: &str, keys: &[i64]) -> Statement {
    let mut pieces = text.split('K');
    let mut marked = pieces.next().unwrap().to_owned();
    for (n, piece) in pieces.enumerate() {
        marked.push_str(&format!("\u{1}{n}\u{1}{piece}"));
    }
    Statement {
        label: "found".to_owned(),
        effect: Effect::Read,
        text: marked,
        values: keys.iter().map(|key| Value::new(Type::Key, key)).collect(),
        order: Order::Total,
    }
}

#[test]
fn what_was_found_stays_mended() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let clusters: Vec<Cluster> = (0..3).map(|_| Cluster::new()).collect();
    for split in [split(16, 3), split(3, 1)] {
        let mut lane = runtime.block_on(Lane::new(&clusters, split));
        let map = lane.map.clone();
        lane.reset(&mut Gen::new(1, &map));
        for (text, keys) in FOUND {
            let statement = statement(text, keys);
            for way in WAYS {
                let sent = Sent::new(&statement, way, &mut StdRng::seed_from_u64(1));
                let mut tally = Tally::default();
                if let Err(what) = both(&mut lane, &statement, &sent, &mut tally) {
                    panic!("{split}, {}: {what}", sent.shown);
                }
            }
        }
    }
}
