//! The differential test: random statements mean the same through presplit, over few and many shards and hosts, as on one
//! plain Postgres that holds all rows, or are refused with a code of our own and a hint. Never something else.
//!
//! What is made depends on the seed alone. A difference names the epoch (a run of statements from fresh rows) in which
//! it showed, and how to run only that again. Environment: `DIFFERENTIAL_STATEMENTS`, `DIFFERENTIAL_SEED`,
//! `DIFFERENTIAL_LANE` (such as `16x2`: shards and hosts), `DIFFERENTIAL_EPOCH`, `DIFFERENTIAL_LOOK`, `DIFFERENTIAL_TRACE`.

mod compare;
mod found;
mod generator;
mod lane;
mod levels;
mod message;
mod reads;
mod report;
mod runner;
mod styles;
mod tables;
mod values;
mod writes;

use std::sync::Mutex;

use crate::support::Cluster;

use self::lane::{Lane, Split};
use self::report::Tally;
use self::runner::Job;

const fn split(shards: u32, hosts: usize) -> Split {
    Split {
        shards,
        hosts,
        function: "modulo",
    }
}

/// The slow ones first, so that none is left alone at the end.
const LANES: [Split; 11] = [
    split(64, 3),
    split(64, 2),
    split(64, 1),
    split(16, 3),
    split(16, 2),
    split(16, 1),
    Split {
        shards: 16,
        hosts: 2,
        function: "hash",
    },
    split(3, 3),
    split(3, 2),
    split(3, 1),
    split(1, 1),
];

fn variable(name: &str) -> Option<String> {
    std::env::var(format!("DIFFERENTIAL_{name}")).ok()
}

fn number(name: &str) -> Option<usize> {
    variable(name).map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("DIFFERENTIAL_{name}={text} is no number"))
    })
}

/// Runs the job in all of these lanes, some at a time, and says how much was answered.
fn run(lanes: &[Split], job: &Job) -> Tally {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let clusters: Vec<Cluster> = (0..lanes.iter().map(|l| l.hosts).max().unwrap())
        .map(|_| Cluster::new())
        .collect();
    // A lane keeps its number, which decides the ways that statements are sent.
    let numbered = |lane: &Split| (LANES.iter().position(|l| l == lane).unwrap(), *lane);
    let next = Mutex::new(lanes.iter().map(numbered));
    let total = Mutex::new((Tally::default(), Tally::default()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let taken = next.lock().unwrap().next();
                    let Some((number, split)) = taken else { return };
                    let mut lane = runtime.block_on(Lane::new(&clusters, split));
                    let tally = runner::run(&mut lane, number, job);
                    eprintln!("{:>9}: {}", split.to_string(), tally.line());
                    let (all, many) = &mut *total.lock().unwrap();
                    all.add(&tally);
                    if split.shards > 1 {
                        many.add(&tally);
                    }
                }
            });
        }
    });
    let (all, many) = total.into_inner().unwrap();
    eprintln!("{:>9}: {}", "total", all.line());
    eprintln!(
        "of those with several shards:\n{}",
        many.refusals(number("SHAPES").unwrap_or(25))
    );
    all
}

fn assert_equal(tally: &Tally) {
    let differences = &tally.differences;
    assert!(
        differences.is_empty(),
        "{} differences\n\n{}",
        differences.len(),
        differences.join("\n\n")
    );
}

#[test]
fn some_random_statements_mean_the_same() {
    let job = Job {
        seed: 20_261_122,
        statements: 1200,
        epoch: None,
        look_often: false,
        trace: false,
    };
    let lanes = [split(64, 2), split(16, 3), split(3, 1), split(1, 1)];
    assert_equal(&run(&lanes, &job));
}

#[test]
#[ignore = "takes minutes: make differential"]
fn many_random_statements_mean_the_same() {
    let job = Job {
        seed: number("SEED").map_or(1, |seed| seed as u64),
        statements: number("STATEMENTS").unwrap_or(20_000),
        epoch: number("EPOCH"),
        look_often: variable("LOOK").is_some(),
        trace: variable("TRACE").is_some(),
    };
    let wanted = variable("LANE");
    let lanes: Vec<Split> = LANES
        .into_iter()
        .filter(|lane| wanted.as_ref().is_none_or(|w| *w == lane.to_string()))
        .collect();
    assert!(!lanes.is_empty(), "no lane is called {wanted:?}");
    assert_equal(&run(&lanes, &job));
}
