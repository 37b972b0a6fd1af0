//! The transcript test: the same random streams of frontend messages go to one plain Postgres and to presplit in front of one
//! host, and what comes back is the same, message by message and byte by byte ([`compare`] says what is left out).
//!
//! What is made depends on the seed and the stream's number alone. Environment: `TRANSCRIPT_STREAMS`, `TRANSCRIPT_SEED`,
//! `TRANSCRIPT_ONLY` (the number of one stream), `TRANSCRIPT_SHOWN` (it ends after so many differences).

mod client;
mod compare;
mod ends;
mod found;
mod found_several;
mod generator;
mod lanes;
mod message;
mod owed;
mod several;
mod shrink;
mod texts;

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use self::client::{Answer, Manner, converse};
use self::lanes::Lanes;
use self::message::Message;

/// In `make test`.
const STREAMS: u64 = 300;
/// Of those with statements prepared by SQL.
const PREPARED: u64 = 140;
/// Of those with temporary tables, LISTEN, advisory locks and cursors WITH HOLD.
const PINNED: u64 = 140;
/// Of those about users of several hosts.
const SPREAD: u64 = 140;
/// Of each other kind over several hosts.
const OTHERS: u64 = 30;
/// Of those that change tables: they take their time.
const TABLES: u64 = 5;
/// The lanes with one and two server connections per host.
const TIGHT: [usize; 2] = [3, 1];
/// So many differences are shown; `TRANSCRIPT_SHOWN` says otherwise.
const SHOWN: u64 = 8;

/// Other streams are in the way of one so often at most.
const AGAIN: usize = 5;

/// Makes the stream of a seed and a number.
type Make = fn(u64, u64, &[i64]) -> generator::Stream;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(format!("TRANSCRIPT_{name}")).ok()?;
    Some(value.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_streams_are_answered_as_by_postgres() {
    run(generator::stream, 1, 0..STREAMS, Pressure::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_streams_of_prepared_statements_are_answered_as_by_postgres() {
    let streams = variable("PREPARED").unwrap_or(PREPARED);
    run(
        generator::prepared,
        variable("SEED").unwrap_or(1),
        0..streams,
        Pressure::None,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make transcript"]
async fn many_random_streams_are_answered_as_by_postgres() {
    let seed = variable("SEED").unwrap_or(1);
    run(generator::stream, seed, numbers(10_000), Pressure::All).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make transcript"]
async fn many_random_streams_of_prepared_statements_are_answered_as_by_postgres() {
    let seed = variable("SEED").unwrap_or(1);
    run(generator::prepared, seed, numbers(2000), Pressure::All).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_streams_of_pinned_sessions_are_answered_as_by_postgres() {
    // Where connections are few, presplit pins none of the last.
    let seed = variable("SEED").unwrap_or(1);
    run(generator::pinned, seed, 0..PINNED, Pressure::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make transcript"]
async fn many_random_streams_of_pinned_sessions_are_answered_as_by_postgres() {
    let seed = variable("SEED").unwrap_or(1);
    run(generator::pinned, seed, numbers(4000), Pressure::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_streams_over_several_hosts_are_answered_as_by_postgres() {
    let parts = [
        (0, generator::spread as Make, SPREAD),
        (0, generator::spread_pinned, OTHERS),
        (0, generator::spread_tables, TABLES),
        (0, generator::spread_prepared, OTHERS),
        (TIGHT[0], generator::spread, OTHERS),
        (TIGHT[1], generator::spread, OTHERS),
    ];
    let parts = parts.map(|(lane, make, count)| several::Part {
        make,
        lane,
        numbers: 0..count,
    });
    let seed = variable("SEED").unwrap_or(1);
    several::run(seed, parts.into(), SHOWN as usize).await;
}

/// Many streams of one kind over several hosts, on these lanes.
async fn many(make: Make, lanes: &[usize], count: u64) {
    let lanes = lanes.iter();
    let only = variable("LANE").map(|lane| lane as usize);
    let lanes = lanes.filter(|lane| only.is_none_or(|only| only == **lane));
    let parts = lanes.map(|lane| several::Part {
        make,
        lane: *lane,
        numbers: numbers(count),
    });
    let shown = variable("SHOWN").unwrap_or(SHOWN) as usize;
    several::run(variable("SEED").unwrap_or(1), parts.collect(), shown).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make transcript"]
async fn many_random_streams_over_several_hosts_are_answered_as_by_postgres() {
    many(generator::spread, &[0], 10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make transcript"]
async fn many_random_streams_over_several_hosts_with_few_connections_are() {
    many(generator::spread, &TIGHT, 1500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make transcript"]
async fn many_random_streams_over_several_hosts_of_pinned_sessions_are() {
    many(generator::spread_pinned, &[0], 3000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make transcript"]
async fn many_random_streams_over_several_hosts_of_prepared_statements_are() {
    many(generator::spread_prepared, &[0], 3000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make transcript"]
async fn many_random_streams_over_several_hosts_that_change_tables_are() {
    many(generator::spread_tables, &[0], 2000).await;
}

/// The numbers of the streams to be run.
fn numbers(count: u64) -> std::ops::Range<u64> {
    match variable("ONLY") {
        Some(only) => only..only + 1,
        None => 0..variable("STREAMS").unwrap_or(count),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_once_differed_do_not() {
    let lanes = Lanes::new().await;
    let job = Job::new(&lanes, 3, 0);
    let manner = Manner {
        startup: vec![("application_name", "mine"), ("DateStyle", "SQL, DMY")],
        cut: None,
        hang: client::HANG,
    };
    let mut faults = Vec::new();
    for (what, messages) in found::streams().into_iter().chain(ends::streams()) {
        let messages: Vec<_> = messages.into_iter().map(|m| m.about(&job.users)).collect();
        let (postgres, presplit) = job.both(&manner, &messages);
        if compare::difference(&postgres, &presplit).is_some() {
            faults.push(format!("{what}:\n{}", told(&postgres, &presplit)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_over_several_hosts_that_once_differed_do_not() {
    several::run_found(found_several::streams()).await;
}

/// Streams of two tests would be about the same users.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// On which lanes streams run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pressure {
    /// Those where each session finds a server connection. On the others some streams differ still, now and then: a
    /// ParameterStatus too many, what another stream's settings have left of a transaction's characteristics.
    None,
    All,
}

/// Runs these streams: each on the lane that its number says, a few at once.
async fn run(make: Make, seed: u64, numbers: std::ops::Range<u64>, pressure: Pressure) {
    let _turn = TURN.lock().await;
    let lanes = Lanes::new().await;
    let faults = Mutex::new(Vec::new());
    let done = AtomicU64::new(0);
    let began = std::time::Instant::now();
    let most = variable("SHOWN").unwrap_or(SHOWN) as usize;
    let count = Lanes::count() as u64;
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let mut slot = 0;
            for (lane, streams) in Lanes::streams() {
                let first = numbers.start.next_multiple_of(count) + lane as u64;
                let first = if first >= numbers.start + count {
                    first - count
                } else {
                    first
                };
                let next = std::sync::Arc::new(AtomicU64::new(first));
                for _ in 0..streams {
                    slot += 1;
                    let (next, lanes, faults, done) = (next.clone(), &lanes, &faults, &done);
                    let (numbers, job) = (numbers.clone(), Job::new(lanes, lane, slot));
                    scope.spawn(move || {
                        loop {
                            let number = next.fetch_add(count, Ordering::Relaxed);
                            if !numbers.contains(&number) || faults.lock().unwrap().len() >= most {
                                return;
                            }
                            if pressure == Pressure::None && Lanes::is_tight(lane) {
                                return;
                            }
                            if variable("LANE").is_some_and(|only| only != lane as u64) {
                                return;
                            }
                            if let Some(fault) = job.fault(make, seed, number) {
                                faults.lock().unwrap().push(fault);
                            }
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            }
        });
    });
    let (done, faults) = (done.into_inner(), faults.into_inner().unwrap());
    println!(
        "{done} streams, {} of them differ, in {:.1?}",
        faults.len(),
        began.elapsed()
    );
    for lane in 0..Lanes::count() {
        let log = lanes.proxy(lane).log();
        assert!(!log.contains("panicked"), "{log}");
        assert!(!log.contains("not what it should be"), "{log}");
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    assert!(done > 0, "no stream ran");
}

/// One that runs streams, one after the other, each about the same two users.
struct Job {
    plain: SocketAddr,
    proxy: SocketAddr,
    lane: usize,
    users: [i64; 2],
}

impl Job {
    fn new(lanes: &Lanes, lane: usize, slot: i64) -> Job {
        let user = 8 * (1000 + slot) + 1;
        Job {
            plain: lanes.plain(),
            proxy: lanes.proxy(lane).addr(),
            lane,
            users: [user, user + 1],
        }
    }

    /// What is different about a stream, if anything is.
    fn fault(&self, make: Make, seed: u64, number: u64) -> Option<String> {
        let stream = make(seed, number, &self.users);
        let (mut postgres, mut presplit) = self.both(&stream.manner, &stream.messages);
        for _ in 0..AGAIN {
            if !compare::is_beaten(&postgres) && !compare::is_beaten(&presplit) {
                break;
            }
            (postgres, presplit) = self.both(&stream.manner, &stream.messages);
        }
        if let Some(Answer::End(why)) = postgres.last() {
            let sent: Vec<_> = stream.messages.iter().map(Message::show).collect();
            return Some(format!(
                "stream {number}: Postgres itself: {why}\n  {}",
                sent.join("\n  ")
            ));
        }
        compare::difference(&postgres, &presplit)?;
        let first = told(&postgres, &presplit);
        let quick = Manner {
            hang: std::time::Duration::from_secs(3),
            ..stream.manner.clone()
        };
        let ends = |answers: &[Answer]| matches!(answers.last(), Some(Answer::End(_)));
        let hangs = ends(&presplit);
        let differs = |messages: &[Message]| {
            let (postgres, presplit) = self.both(&quick, messages);
            !ends(&postgres)
                && ends(&presplit) == hangs
                && compare::difference(&postgres, &presplit).is_some()
        };
        let shrunk = shrink::shrink(&stream.messages, differs);
        let (postgres, presplit) = self.both(&quick, &shrunk);
        let alone = compare::difference(&postgres, &presplit);
        let (messages, told) = match alone {
            Some(_) if !shrunk.is_empty() => (shrunk, told(&postgres, &presplit)),
            _ => (
                stream.messages,
                format!("  (not again: it takes what other streams do at the same time)\n{first}"),
            ),
        };
        let sent: Vec<_> = messages.iter().map(Message::show).collect();
        Some(format!(
            "stream {number} of seed {seed} ({}; {:?})\n  {}\n{}",
            Lanes::name(self.lane),
            stream.manner,
            sent.join("\n  "),
            told
        ))
    }

    fn both(&self, manner: &Manner, messages: &[Message]) -> (Vec<Answer>, Vec<Answer>) {
        let whole = [&self.beginning(), messages, &generator::ending()].concat();
        let postgres = converse(self.plain, manner, &whole);
        (postgres, converse(self.proxy, manner, &whole))
    }

    /// The users' rows as each stream finds them.
    fn beginning(&self) -> Vec<Message> {
        let mut messages = Vec::new();
        for user in self.users {
            messages.push(Message::Query(format!(
                "DELETE FROM items WHERE user_id = {user}; DELETE FROM users WHERE id = {user}; \
                 INSERT INTO users VALUES ({user}, 'u{}'); \
                 INSERT INTO items SELECT {user}, g, g * 10, 'note ' || g FROM generate_series(1, 5) g /* presplit: key={user} */",
                user % 8
            )));
        }
        messages.push(Message::Pause);
        messages
    }
}

/// Both answers around the first difference.
fn told(postgres: &[Answer], presplit: &[Answer]) -> String {
    let Some(at) = compare::difference(postgres, presplit) else {
        return String::new();
    };
    let show = |answers: &[Answer], from: usize, to: usize| {
        let part = &answers[from.min(answers.len())..to.min(answers.len())];
        let lines: Vec<_> = part.iter().map(compare::show).collect();
        lines.join("\n    ")
    };
    let end = match presplit.last() {
        Some(Answer::End(why)) => {
            let last = show(
                presplit,
                presplit.len().saturating_sub(4),
                presplit.len() - 1,
            );
            format!("\n  at the end:\n    {last}\n  {why}")
        }
        _ => String::new(),
    };
    format!(
        "  same up to:\n    {}\n  postgres:\n    {}\n  presplit:\n    {}{end}",
        show(postgres, at.saturating_sub(5), at),
        show(postgres, at, at + 4),
        show(presplit, at, at + 4)
    )
}
