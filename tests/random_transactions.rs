//! Random transactions over three hosts: message by message what one Postgres answers, and after each of them the same
//! rows everywhere. A failure shows the shortest conversation found that still fails.
//!
//! More: `RANDOM_TRANSACTIONS=5000 [RANDOM_SEED=7] cargo test --test tests random_transactions`.

use tokio_postgres::Client;

use crate::support::raw::{self, Raw};
use crate::transactions::{SHARDS, Twins};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }
}

/// What a client sends before it waits for ReadyForQuery.
#[derive(Clone, Debug)]
enum Message {
    /// One Query.
    Query(Vec<String>),
    /// Parse, Bind, Execute of each statement, then a Sync.
    Batch(Vec<Step>),
}

#[derive(Clone, Debug)]
enum Step {
    Run(String),
    /// At most one row, then the rest.
    InParts(String),
    Flush,
    /// A Query before the Sync.
    Query(String),
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Message::Query(pieces) => raw::q(&pieces.join("; ")),
            Message::Batch(steps) => {
                let steps = steps.iter().enumerate().map(|(i, step)| match step {
                    Step::Run(text) => raw::pbe(text, &[]),
                    Step::InParts(text) => {
                        let portal = format!("p{i}");
                        [
                            raw::p("", text),
                            raw::b(&portal, "", &[]),
                            raw::e(&portal, 1),
                            raw::e(&portal, 0),
                        ]
                        .concat()
                    }
                    Step::Flush => raw::h(),
                    Step::Query(text) => raw::q(text),
                });
                steps.chain([raw::s()]).flatten().collect()
            }
        }
    }
}

fn user(random: &mut Random) -> u64 {
    9000 + random.below(u64::from(SHARDS) * 2)
}

fn statement(random: &mut Random) -> String {
    let (id, n) = (user(random), random.below(1000));
    match random.below(100) {
        0..24 => format!("INSERT INTO users (id, name) VALUES ({id}, 'n{n}')"),
        24..28 => {
            let other = user(random);
            format!("INSERT INTO users (id, name) VALUES ({id}, 'm{n}'), ({other}, 'm{n}')")
        }
        28..30 => {
            let other = user(random);
            format!("UPDATE users SET name = 'b{n}' WHERE id IN ({id}, {other})")
        }
        30..38 => format!("UPDATE users SET name = 'u{n}' WHERE id = {id}"),
        38..42 => format!("DELETE FROM users WHERE id = {id}"),
        // Unique only among rows of one shard, and only when the transaction ends.
        42..50 => {
            let target = id % u64::from(SHARDS) + u64::from(SHARDS) * random.below(3);
            format!("INSERT INTO follows (source_id, target_id) VALUES ({id}, {target})")
        }
        50..56 => format!("SELECT id, name FROM users WHERE id = {id}"),
        56..60 => "SELECT id, name FROM users ORDER BY id".to_owned(),
        60..61 => format!("SELECT id, 1 / (id - {id}) AS q FROM users ORDER BY id"),
        61..64 => format!("UPDATE users SET name = (1 / (id - {id}))::text WHERE id = {id}"),
        64..65 => "SELECT nope".to_owned(),
        65..72 => format!("SAVEPOINT {}", random.of(&["s", "t"])),
        72..78 => format!("ROLLBACK TO {}", random.of(&["s", "t"])),
        78..81 => format!("RELEASE {}", random.of(&["s", "t"])),
        81..85 => format!("SET application_name = 'a{n}'"),
        85..88 => format!("SET LOCAL application_name = 'l{n}'"),
        88..90 => format!(
            "SELECT set_config('application_name', 'c{n}', {})",
            random.of(&["true", "false"])
        ),
        90..91 => "RESET application_name".to_owned(),
        91..95 => "SHOW application_name".to_owned(),
        95..97 => random
            .of(&[
                "SET work_mem = '1GB'",
                "SET LOCAL work_mem = '5MB'",
                "SET work_mem = 'no'",
            ])
            .to_owned(),
        97..98 => "SHOW work_mem".to_owned(),
        98..99 => format!(
            "SET TRANSACTION {}",
            random.of(&["READ ONLY", "READ WRITE", "ISOLATION LEVEL READ COMMITTED"])
        ),
        _ => format!(
            "SET CONSTRAINTS ALL {}",
            random.of(&["IMMEDIATE", "DEFERRED"])
        ),
    }
}

fn bound(random: &mut Random) -> String {
    let all = [
        "BEGIN",
        "BEGIN",
        "START TRANSACTION",
        "BEGIN READ ONLY",
        "COMMIT",
        "COMMIT",
        "COMMIT",
        "END",
        "ROLLBACK",
        "ABORT",
        "COMMIT AND CHAIN",
        "ROLLBACK AND CHAIN",
    ];
    random.of(&all).to_owned()
}

fn piece(random: &mut Random, bounds: u64) -> String {
    match random.one_in(bounds) {
        true => bound(random),
        false => loop {
            let statement = statement(random);
            // These warn if they are not in a block of the client's.
            if !statement.starts_with("SET TRANSACTION") && !statement.starts_with("SET CONSTR") {
                return statement;
            }
        },
    }
}

fn conversation(random: &mut Random) -> Vec<Message> {
    let mut all = Vec::new();
    for _ in 0..2 + random.below(3) {
        if !random.one_in(4) {
            all.push(Message::Query(vec![
                random
                    .of(&["BEGIN", "BEGIN", "BEGIN READ WRITE"])
                    .to_owned(),
            ]));
        }
        for _ in 0..1 + random.below(6) {
            all.push(match random.below(10) {
                0..6 => Message::Query(vec![statement(random)]),
                6..8 => {
                    Message::Query((0..2 + random.below(3)).map(|_| piece(random, 5)).collect())
                }
                _ => {
                    let mut steps = Vec::new();
                    for _ in 0..1 + random.below(4) {
                        steps.push(match random.below(12) {
                            0 => Step::Flush,
                            1 => Step::InParts("SELECT id, name FROM users ORDER BY id".to_owned()),
                            // One that does not fail: what comes before it is committed.
                            2 => Step::Query("SELECT id, name FROM users ORDER BY id".to_owned()),
                            _ => Step::Run(piece(random, 8)),
                        });
                    }
                    Message::Batch(steps)
                }
            });
        }
        all.push(Message::Query(vec![bound(random)]));
    }
    all
}

/// The twins and connections to look at their rows.
struct Stage {
    twins: Twins,
    hosts: Vec<Client>,
    plain: Client,
    refusals: usize,
}

impl Stage {
    async fn new() -> Stage {
        let twins = Twins::new("").await;
        let mut hosts = Vec::new();
        for i in 0..3 {
            hosts.push(twins.hosts.client(i).await);
        }
        let plain = twins.plain.client().await;
        Stage {
            twins,
            hosts,
            plain,
            refusals: 0,
        }
    }

    fn shards(&self, host: usize) -> impl Iterator<Item = u32> {
        (0..SHARDS).filter(move |shard| self.twins.hosts.owner(*shard) == host)
    }

    async fn clear(&self) {
        for (i, client) in self.hosts.iter().enumerate() {
            let texts = self.shards(i).map(|shard| {
                format!("DELETE FROM shard_{shard:04}.users; DELETE FROM shard_{shard:04}.follows;")
            });
            client
                .batch_execute(&texts.collect::<String>())
                .await
                .unwrap();
        }
        let texts = "DELETE FROM users; DELETE FROM follows";
        self.plain.batch_execute(texts).await.unwrap();
    }

    async fn rows(&self) -> [Vec<String>; 2] {
        let of = |schema: &str| {
            format!(
                "SELECT 'user ' || id || ' ' || name FROM {schema}.users UNION ALL
                 SELECT 'follow ' || source_id || ' ' || target_id FROM {schema}.follows"
            )
        };
        let mut found = [Vec::new(), Vec::new()];
        for (i, client) in self.hosts.iter().enumerate() {
            let texts: Vec<String> = self
                .shards(i)
                .map(|s| of(&format!("shard_{s:04}")))
                .collect();
            let rows = client.query(&texts.join(" UNION ALL "), &[]).await.unwrap();
            found[0].extend(rows.iter().map(|row| row.get::<_, String>(0)));
        }
        let rows = self.plain.query(&of("public"), &[]).await.unwrap();
        found[1].extend(rows.iter().map(|row| row.get::<_, String>(0)));
        found.iter_mut().for_each(|rows| rows.sort());
        found
    }

    /// Plays one conversation from empty tables. What differs is the error.
    async fn play(&mut self, messages: &[Message]) -> Result<(), String> {
        self.clear().await;
        let (mut ours, mut plain) = self.twins.clients();
        let mut failed = false;
        for (i, message) in messages.iter().enumerate() {
            let (found, expected) = (ask(&mut ours, message), ask(&mut plain, message));
            let told = |what: &str| {
                format!(
                    "{what} of message {i}, {message:?}\nours:  {found:#?}\nplain: {expected:#?}"
                )
            };
            if found != expected && !is_known(&found, &expected) {
                if is_refusal(&found, &expected) {
                    self.refusals += 1;
                    return Ok(());
                }
                return Err(told("the answer"));
            }
            let at_rest = expected.last().is_some_and(|last| last == "Z I");
            let name = "application_name";
            // After an error or a ROLLBACK in a message, we may tell it later.
            failed |= expected.iter().any(|line| line == "C ROLLBACK");
            failed |= expected.iter().any(|line| line.starts_with('E'));
            if at_rest && !failed && ours.parameter(name) != plain.parameter(name) {
                let names = (ours.parameter(name), plain.parameter(name));
                return Err(told(&format!("{names:?}, the {name} told,")));
            }
            if at_rest {
                let [ours, plain] = self.rows().await;
                if ours != plain {
                    return Err(told(&format!(
                        "the rows {ours:#?} for {plain:#?}, after the answer"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Leaves out what need not be there for a failure.
    async fn shorten(
        &mut self,
        mut messages: Vec<Message>,
        mut why: String,
    ) -> (Vec<Message>, String) {
        let mut i = 0;
        while i < messages.len() {
            let mut shorter = vec![{
                let mut without = messages.clone();
                without.remove(i);
                without
            }];
            let parts = match &messages[i] {
                Message::Query(pieces) => pieces.len(),
                Message::Batch(steps) => steps.len(),
            };
            for part in 0..if parts > 1 { parts } else { 0 } {
                let mut without = messages.clone();
                match &mut without[i] {
                    Message::Query(pieces) => drop(pieces.remove(part)),
                    Message::Batch(steps) => drop(steps.remove(part)),
                }
                shorter.push(without);
            }
            let mut found = false;
            for candidate in shorter {
                if let Err(still) = self.play(&candidate).await {
                    (messages, why, found) = (candidate, still, true);
                    break;
                }
            }
            i += usize::from(!found);
        }
        (messages, why)
    }
}

/// Sends a message, and an empty Query behind it, whose answer shows where the answer to the message ends.
fn ask(client: &mut Raw, message: &Message) -> Vec<String> {
    client.send(&message.bytes());
    client.send(&raw::q(""));
    let mut lines = client.until(|line| line == "I");
    lines.pop();
    // In a batch that has written on several hosts, SET LOCAL and SET CONSTRAINTS do not warn.
    lines.retain(|line| {
        !(line.starts_with("N V") && line.contains("can only be used in transaction blocks"))
    });
    let end = client.until_ready(1);
    assert_eq!(lines.last(), end.last(), "{message:?}");
    lines
}

/// What is known to differ: the tag of the last statement of a message is there although the COMMIT at the message's end fails.
fn is_known(ours: &[String], plain: &[String]) -> bool {
    (1..ours.len()).any(|i| {
        let without = [&ours[..i - 1], &ours[i..]].concat();
        ours[i].starts_with('E') && ours[i - 1].starts_with('C') && without == plain
    })
}

/// What presplit says it does not do.
fn is_refusal(ours: &[String], plain: &[String]) -> bool {
    let refused = |lines: &[String]| lines.iter().any(|line| line.contains("C0A000"));
    refused(ours) && !refused(plain)
}

#[tokio::test(flavor = "multi_thread")]
async fn random_transactions_are_as_on_one_postgres() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |value| value.parse().unwrap())
    };
    let (count, seed) = (number("RANDOM_TRANSACTIONS", 60), number("RANDOM_SEED", 1));
    let mut stage = Stage::new().await;
    let mut failures = Vec::new();
    for n in seed..seed + count {
        let messages = conversation(&mut Random(n));
        if let Err(why) = stage.play(&messages).await {
            let (messages, why) = stage.shorten(messages, why).await;
            failures.push(format!("RANDOM_SEED={n}: {messages:?}\n{why}"));
        }
        if failures.len() > 4 {
            break;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(
        stage.refusals as u64 <= count / 3,
        "{} refusals",
        stage.refusals
    );
    stage.twins.assert_clean().await;
}
