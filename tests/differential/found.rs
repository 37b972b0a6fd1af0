//! Statements that once were answered otherwise than by one Postgres, found by the random ones.

use super::generator::{Effect, Gen, Order, Statement};
use super::lane::Lane;
use super::message::{Sent, WAYS};
use super::report::Tally;
use super::runner::both;
use super::values::{Type, Value};

use rand::SeedableRng;
use rand::rngs::StdRng;

/// The statement, and the keys that stand in it.
const FOUND: [(&str, &[i64]); 15] = [
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
    // A third table tied to both of two does not tie them to each other.
    (
        "SELECT count(*) FROM users u CROSS JOIN photos p LEFT JOIN likes l ON l.user_id = p.user_id AND l.user_id = u.id",
        &[],
    ),
    (
        "SELECT u.id, p.id, (SELECT count(*) FROM likes l WHERE l.user_id = u.id AND l.user_id = p.user_id) FROM users u, photos p ORDER BY 1, 2",
        &[],
    ),
    (
        "SELECT u.id, x.n FROM users u, LATERAL (SELECT count(*) AS n FROM photos p LEFT JOIN likes l ON l.user_id = p.user_id AND l.user_id = u.id) x ORDER BY 1",
        &[],
    ),
    // Nor does it tie two tables that one query in FROM reads both.
    (
        "WITH a AS (SELECT p.user_id, u.id FROM photos p, users u) SELECT count(*) FROM a",
        &[],
    ),
    (
        "SELECT user_id FROM (SELECT user_id FROM photos UNION ALL SELECT p.user_id FROM photos p, users v) x ORDER BY 1",
        &[],
    ),
    // Numbers in brackets and behind two signs are places of outputs.
    ("SELECT id, name FROM users ORDER BY (2), id", &[]),
    ("SELECT id, age FROM users ORDER BY - -2, id", &[]),
    // Outputs that have their names from what is inside.
    (
        "SELECT CASE WHEN id < 5 THEN -1 ELSE age END FROM users ORDER BY age, users.id",
        &[],
    ),
    ("SELECT (SELECT -u.id AS id) FROM users u ORDER BY id", &[]),
    // A name in GROUP BY is a column of FROM before it is an output.
    (
        "SELECT public AS g, count(*) FROM photos, generate_series(1, 2) g GROUP BY g, public ORDER BY 1, 2",
        &[],
    ),
    // An output called as a column of our own.
    (
        "SELECT id AS presplit_key1, likes FROM photos ORDER BY likes, id",
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

/// In this lane they are answered as by one Postgres, whichever way they are sent; else the differences.
pub fn differences(lane: &mut Lane) -> Vec<String> {
    let map = lane.map.clone();
    lane.reset(&mut Gen::new(1, &map));
    let mut found = Vec::new();
    for (text, keys) in FOUND {
        let statement = statement(text, keys);
        for way in WAYS {
            let sent = Sent::new(&statement, way, &mut StdRng::seed_from_u64(1));
            if let Err(what) = both(lane, &statement, &sent, &mut Tally::default()) {
                found.push(format!("lane {}, {}: {what}", lane.split, sent.shown));
            }
        }
    }
    found
}
