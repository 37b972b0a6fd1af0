//! What the steps of a statement's way cost, each alone: shape scan, plan look-up, cold plan, decision, splice, header walk.

use std::collections::HashSet;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use presplit::catalog::{self, Column, Snapshot};
use presplit::route::{self, Bound, Format, Param, Params, Tables, Target, Values};
use presplit::shardmap::{ShardId, ShardMap};
use presplit::sql::cache::{Front, Limits, Shared};
use presplit::sql::parse;
use presplit::sql::rewrite;
use presplit::sql::shape::Shape;
use presplit::wire::{backend, frame};

/// Statements of an app, from the shortest to a page of an ORM.
const TEXTS: [(&str, &str); 4] = [
    (
        "point",
        "SELECT balance FROM accounts WHERE user_id = 123456",
    ),
    (
        "insert",
        "INSERT INTO history (user_id, delta) VALUES (123456, -77)",
    ),
    (
        "orm",
        r#"SELECT "photos"."id", "photos"."user_id", "photos"."caption", "photos"."created_at", "users"."id", "users"."name"
           FROM "photos" INNER JOIN "users" ON ("photos"."user_id" = "users"."id")
           WHERE ("photos"."user_id" = 123456 AND "photos"."caption" LIKE 'it''s%' AND NOT ("photos"."id" < 17))
           ORDER BY "photos"."id" DESC LIMIT 21"#,
    ),
    (
        "cte",
        "WITH mine AS (SELECT id, caption FROM photos WHERE user_id = 123456), \
         liked AS (SELECT photo_id FROM likes WHERE user_id = 123456) \
         SELECT m.id, m.caption, count(l.photo_id) FROM mine m LEFT JOIN liked l ON l.photo_id = m.id GROUP BY 1, 2 ORDER BY 1",
    ),
];

const PARAMETERS: &str = "SELECT balance FROM accounts WHERE user_id = $1";

const PARSE: parse::Limits = parse::Limits {
    text: 1 << 20,
    tokens: 200_000,
    depth: 200,
};

fn map() -> ShardMap {
    let toml = r#"
version = 1
[keyspace]
shards = 4096
function = "modulo"
key = "user_id"
[hosts.a]
url = "postgres://app@127.0.0.1:1/app"
[hosts.b]
url = "postgres://app@127.0.0.1:2/app"
[map]
"0-2047" = "a"
"2048-4095" = "b"
[tables]
users = { key = "id" }
photos = { ids = ["id"] }
[users.app]
"#;
    ShardMap::parse(toml, &|_| None).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

fn table(name: &str, columns: &[(&str, u32)]) -> (String, catalog::Table) {
    let columns = columns
        .iter()
        .map(|(name, type_oid)| Column {
            name: (*name).to_owned(),
            type_oid: *type_oid,
            generated: false,
            has_default: false,
            not_null: false,
            default: None,
            collation: catalog::Collation::None,
        })
        .collect();
    (
        name.to_owned(),
        catalog::Table {
            name: name.to_owned(),
            relkind: 'r',
            columns,
            definition: None,
        },
    )
}

fn tables(map: &ShardMap) -> Tables {
    const INT8: u32 = 20;
    const TEXT: u32 = 25;
    let sharded = [
        table("accounts", &[("user_id", INT8), ("balance", 23)]),
        table("history", &[("user_id", INT8), ("delta", 23)]),
        table("users", &[("id", INT8), ("name", TEXT)]),
        table(
            "photos",
            &[
                ("id", INT8),
                ("user_id", INT8),
                ("caption", TEXT),
                ("created_at", 1184),
            ],
        ),
        table("likes", &[("user_id", INT8), ("photo_id", INT8)]),
    ];
    let functions = catalog::Functions {
        builtin: HashSet::from(["count".to_owned()]),
        ..Default::default()
    };
    let snapshot = Snapshot {
        sharded: sharded.into(),
        functions,
        ..Snapshot::default()
    };
    let (tables, faults) = Tables::new(map, &snapshot);
    assert!(faults.is_empty(), "{faults:?}");
    tables
}

fn shape_of(text: &str) -> Shape {
    let mut shape = Shape::default();
    shape.scan(text.as_bytes()).expect("a text that ends");
    shape
}

fn bound(text: &str, shape: &Shape, tables: &Tables) -> Bound {
    let plan = parse::plan(text, shape, &PARSE).unwrap_or_else(|e| panic!("{text}: {}", e.why));
    route::bind(&plan, tables)
}

fn shape_scan(c: &mut Criterion) {
    let mut group = c.benchmark_group("shape scan");
    for (name, text) in TEXTS.into_iter().chain([("parameter", PARAMETERS)]) {
        let mut shape = Shape::default();
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| b.iter(|| shape.scan(black_box(text.as_bytes()))));
    }
}

/// In a cache of a thousand shapes, asked one after the other, as an app does.
fn look_up(c: &mut Criterion) {
    const SHAPES: usize = 1000;
    let shared = Shared::new(Limits {
        entries: 10_000,
        key_bytes: 64 << 20,
        longest_key: 64 << 10,
    });
    let mut front = Front::new(10_000);
    let keys: Vec<Vec<u8>> = (0..SHAPES)
        .map(|n| {
            shape_of(&format!(
                "SELECT a{n} FROM photos WHERE user_id = 1 AND caption = 'x'"
            ))
            .key
        })
        .collect();
    for key in &keys {
        front.get_or_insert_with(&shared, key, || Arc::new(()));
    }
    let mut group = c.benchmark_group("plan look-up");
    let mut next = 0;
    group.bench_function("front", |b| {
        b.iter(|| {
            next = (next + 1) % SHAPES;
            front.get(black_box(&keys[next]))
        });
    });
    group.bench_function("shared", |b| {
        b.iter(|| {
            next = (next + 1) % SHAPES;
            shared.get_or_insert_with(black_box(&keys[next]), || unreachable!("it is there"))
        });
    });
}

/// What a shape costs the first time.
fn cold_plan(c: &mut Criterion) {
    let map = map();
    let tables = tables(&map);
    let mut group = c.benchmark_group("cold plan");
    for (name, text) in TEXTS {
        let shape = shape_of(text);
        group.bench_function(format!("parse {name}"), |b| {
            b.iter(|| parse::plan(black_box(text), &shape, &PARSE))
        });
        let plan =
            parse::plan(text, &shape, &PARSE).unwrap_or_else(|e| panic!("{text}: {}", e.why));
        group.bench_function(format!("bind {name}"), |b| {
            b.iter(|| route::bind(black_box(&plan), &tables))
        });
    }
}

/// One parameter, in binary.
struct One([u8; 8]);

impl Params for One {
    fn get(&self, n: u16) -> Option<Param<'_>> {
        (n == 1).then_some(Param {
            format: Format::Binary,
            type_oid: 20,
            value: Some(&self.0),
        })
    }
}

fn decide(c: &mut Criterion) {
    let map = map();
    let tables = tables(&map);
    let mut group = c.benchmark_group("decide");
    let mut case = |name: &str, text: &str, params: Option<&dyn Params>| {
        let shape = shape_of(text);
        let bound = bound(text, &shape, &tables);
        let values = Values {
            text: text.as_bytes(),
            holes: &shape.holes,
            params,
        };
        let route =
            route::decide(&bound, &values, &map, None).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        assert_eq!(
            route.target,
            Target::Shard(ShardId(123_456 % 4096)),
            "{text}"
        );
        group.bench_function(name, |b| {
            b.iter(|| route::decide(black_box(&bound), &values, &map, None))
        });
    };
    for (name, text) in TEXTS {
        case(name, text, None);
    }
    case(
        "parameter",
        PARAMETERS,
        Some(&One(123_456_i64.to_be_bytes())),
    );
}

/// A statement of exactly 200 bytes, as an app sends it.
const TWO_HUNDRED: &str = "SELECT p.id, p.caption, p.created_at, u.name FROM photos p JOIN users u ON u.id = p.user_id \
                           WHERE p.user_id = 123456 AND p.caption <> 'it''s private' AND p.id < 98765432101 ORDER BY p.id \
                           DESC LIMIT 20";

/// All that routing adds to a statement: for one in the simple protocol scan, look-up, decision and splice; for an
/// execution of a prepared one the decision alone.
fn routing(c: &mut Criterion) {
    assert_eq!(TWO_HUNDRED.len(), 200);
    let mut way = Way::new(TWO_HUNDRED);
    let mut group = c.benchmark_group("routing");
    group.bench_function("a cached statement of 200 bytes", |b| {
        b.iter(|| way.route(black_box(TWO_HUNDRED.as_bytes())));
    });
    let execution = Execution::new();
    group.bench_function("parameters of a prepared statement", |b| {
        b.iter(|| execution.route(black_box(&One(123_456_i64.to_be_bytes()))));
    });
}

/// Routing the same text over and over.
struct Way {
    map: ShardMap,
    shape: Shape,
    plans: Front<Bound>,
    shared: Shared<Bound>,
    out: Vec<u8>,
}

impl Way {
    fn new(text: &str) -> Way {
        let map = map();
        let tables = tables(&map);
        let limits = Limits {
            entries: 1000,
            key_bytes: 1 << 20,
            longest_key: 64 << 10,
        };
        let (mut plans, shared) = (Front::new(1000), Shared::new(limits));
        let shape = shape_of(text);
        plans.get_or_insert_with(&shared, &shape.key, || {
            Arc::new(bound(text, &shape, &tables))
        });
        let mut way = Way {
            map,
            shape,
            plans,
            shared,
            out: Vec::with_capacity(2 * text.len()),
        };
        way.route(text.as_bytes());
        assert!(
            String::from_utf8_lossy(&way.out)
                .contains("FROM shard_0576.photos p JOIN shard_0576.users u")
        );
        way
    }

    fn route(&mut self, text: &[u8]) -> usize {
        self.shape.scan(text).expect("a text that ends");
        let missing = || unreachable!("it is there");
        let bound = self
            .plans
            .get_or_insert_with(&self.shared, &self.shape.key, missing);
        let values = Values {
            text,
            holes: &self.shape.holes,
            params: None,
        };
        let route = route::decide(&bound, &values, &self.map, None).expect("a route");
        let Target::Shard(shard) = route.target else {
            panic!("{route:?}")
        };
        self.out.clear();
        let schema = self.map.schema(shard);
        rewrite::splice(text, &self.shape.holes, &bound.edits, schema, &mut self.out);
        usize::from(self.map.owner(shard).0) + self.out.len()
    }
}

/// Executing the same prepared statement over and over.
struct Execution {
    map: ShardMap,
    shape: Shape,
    bound: Bound,
}

impl Execution {
    fn new() -> Execution {
        let map = map();
        let shape = shape_of(PARAMETERS);
        let bound = bound(PARAMETERS, &shape, &tables(&map));
        Execution { map, shape, bound }
    }

    fn route(&self, params: &One) -> u16 {
        let values = Values {
            text: PARAMETERS.as_bytes(),
            holes: &self.shape.holes,
            params: Some(params),
        };
        let route = route::decide(&self.bound, &values, &self.map, None).expect("a route");
        match route.target {
            Target::Shard(shard) => self.map.owner(shard).0,
            _ => panic!("{route:?}"),
        }
    }
}

fn splice(c: &mut Criterion) {
    let map = map();
    let tables = tables(&map);
    let mut group = c.benchmark_group("splice");
    for (name, text) in TEXTS {
        let shape = shape_of(text);
        let bound = bound(text, &shape, &tables);
        let mut out = Vec::with_capacity(2 * text.len());
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                rewrite::splice(
                    black_box(text.as_bytes()),
                    &shape.holes,
                    &bound.edits,
                    map.schema(ShardId(42)),
                    &mut out,
                );
            });
        });
    }
}

/// What the relay does with a server's answer: from header to header, up to the end.
fn header_walk(c: &mut Criterion) {
    let mut group = c.benchmark_group("header walk");
    for rows in [1, 100] {
        let mut answer = Vec::new();
        backend::row_description(&mut answer, &[("id", 20), ("caption", 25)]);
        for _ in 0..rows {
            backend::data_row(
                &mut answer,
                &[
                    Some(b"123456".as_slice()),
                    Some(b"a caption of a photo".as_slice()),
                ],
            );
        }
        backend::command_complete(&mut answer, &format!("SELECT {rows}"));
        backend::ready(&mut answer, b'I');
        group.throughput(Throughput::Bytes(answer.len() as u64));
        group.bench_function(format!("{rows} rows"), |b| {
            b.iter(|| {
                let mut rest = black_box(answer.as_slice());
                let mut frames = 0;
                while let Ok(Some(header)) = frame::header(rest) {
                    rest = &rest[header.len..];
                    frames += 1;
                }
                assert_eq!(frames, rows + 3);
            });
        });
    }
}

criterion_group!(
    benches,
    shape_scan,
    look_up,
    cold_plan,
    decide,
    routing,
    splice,
    header_walk
);
criterion_main!(benches);
