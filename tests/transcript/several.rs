//! The transcript test over three hosts: streams about users of all of them, answered as by one Postgres, after which all tables have the
//! same rows. What presplit refuses is an error like any other: one Postgres gets the stream with an error in the refused message's place.
//! Where connections are few, sessions may wait for each other's crosswise; one gets 40P01 then, and its stream is run again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::client::{Answer, HANG, Manner, converse, converse_in_turn};
use super::lanes::Lanes;
use super::message::Message;
use super::{AGAIN, Make, compare, generator, shrink};
use crate::support::Raw;
use crate::support::raw::q;

/// So many streams run at once where each finds a server connection.
const AT_ONCE: usize = 4;

/// Streams of one kind on one lane.
pub struct Part {
    pub make: Make,
    pub lane: usize,
    pub numbers: std::ops::Range<u64>,
}

/// How often each refusal came.
type Refusals = BTreeMap<String, usize>;

/// What a stream came to.
struct Run {
    postgres: Vec<Answer>,
    presplit: Vec<Answer>,
    /// The rows of one Postgres, and those of all hosts.
    rows: [Vec<String>; 2],
    refused: Vec<String>,
}

/// One that runs streams, one after the other, each about the same users.
struct Job {
    make: Make,
    lane: usize,
    plain: SocketAddr,
    proxy: SocketAddr,
    users: [i64; 5],
    /// Connections past the proxy: to the one Postgres, and to each host with the schemas there.
    direct: Raw,
    hosts: Vec<(Raw, Vec<String>)>,
    /// A stream has left a table of its own somewhere.
    table_left: bool,
    /// What was sent last.
    last: Vec<Message>,
}

/// What has come of streams.
#[derive(Default)]
struct Found {
    faults: Mutex<Vec<String>>,
    refusals: Mutex<Refusals>,
    done: AtomicU64,
    /// Streams that were never run without others in their way.
    crossed: AtomicU64,
}

/// Runs these streams, a few at once.
pub async fn run(seed: u64, parts: Vec<Part>, shown: usize) {
    let lanes = Lanes::several().await;
    let found = Found::default();
    tokio::task::block_in_place(|| {
        for part in &parts {
            let began = std::time::Instant::now();
            let before = found.done.load(Ordering::Relaxed);
            run_part(&lanes, seed, part, shown, &found);
            println!(
                "{} streams over several hosts ({}) in {:.1?}",
                found.done.load(Ordering::Relaxed) - before,
                Lanes::name(part.lane),
                began.elapsed(),
            );
        }
    });
    let (done, faults) = (found.done.into_inner(), found.faults.into_inner().unwrap());
    println!(
        "{done} streams, {} of them differ, {} were in each other's way; refused: {:#?}",
        faults.len(),
        found.crossed.into_inner(),
        found.refusals.into_inner().unwrap()
    );
    for part in &parts {
        let log = lanes.proxy(part.lane).log();
        assert!(!log.contains("panicked"), "{log}");
        assert!(!log.contains("not what it should be"), "{log}");
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    assert!(done > 0, "no stream ran");
    for host in 0..lanes.hosts.clusters.len() {
        let left = "SELECT count(*) FROM pg_prepared_xacts";
        let client = lanes.hosts.client(host).await;
        let left: i64 = client.query_one(left, &[]).await.unwrap().get(0);
        assert_eq!(left, 0, "transactions are left prepared");
    }
}

fn run_part(lanes: &Lanes, seed: u64, part: &Part, shown: usize, found: &Found) {
    let next = AtomicU64::new(part.numbers.start);
    let at_once = match Lanes::is_tight(part.lane) {
        true => Lanes::streams().nth(part.lane).unwrap().1,
        false => AT_ONCE,
    };
    std::thread::scope(|scope| {
        for slot in 0..at_once {
            let next = &next;
            scope.spawn(move || {
                let mut job = Job::new(lanes, part, slot as i64);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let enough = found.faults.lock().unwrap().len() >= shown;
                    if enough || !part.numbers.contains(&number) {
                        return;
                    }
                    if let Some(fault) = job.fault(seed, number, found) {
                        found.faults.lock().unwrap().push(fault);
                    }
                    found.done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
}

/// Streams that once differed.
pub async fn run_found(streams: Vec<(&'static str, Vec<Message>)>) {
    let lanes = Lanes::several().await;
    let part = Part {
        make: generator::spread,
        lane: 0,
        numbers: 0..0,
    };
    let mut job = Job::new(&lanes, &part, 0);
    let manner = Manner {
        startup: Vec::new(),
        cut: None,
        hang: HANG,
    };
    let mut faults = Vec::new();
    tokio::task::block_in_place(|| {
        for (what, messages) in streams {
            let messages: Vec<_> = messages.into_iter().map(|m| m.about(&job.users)).collect();
            if let Some(told) = job.both(&manner, &messages).difference() {
                faults.push(format!("{what}:\n{told}"));
            }
        }
    });
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

impl Job {
    fn new(lanes: &Lanes, part: &Part, slot: i64) -> Job {
        let first = 12 * (1000 + 3 * slot);
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let schemas = |host| {
            let shards = (0..lanes.hosts.shards).filter(|s| lanes.hosts.owner(*s) == host);
            shards.map(|shard| format!("shard_{shard:04}")).collect()
        };
        let patient = |addr| {
            let mut raw = Raw::connect(addr);
            raw.query("SET lock_timeout = '8s'");
            raw
        };
        let host = |(at, cluster): (usize, &crate::support::Cluster)| {
            (patient(loopback(cluster.port())), schemas(at))
        };
        Job {
            make: part.make,
            lane: part.lane,
            plain: lanes.plain(),
            proxy: lanes.proxy(part.lane).addr(),
            users: [first + 1, first + 17, first + 33, first + 2, first + 18],
            direct: patient(lanes.plain()),
            hosts: lanes.hosts.clusters.iter().enumerate().map(host).collect(),
            table_left: false,
            last: Vec::new(),
        }
    }

    /// What is different about a stream, if anything is.
    fn fault(&mut self, seed: u64, number: u64, found: &Found) -> Option<String> {
        let stream = (self.make)(seed, number, &self.users);
        let mut run = self.both(&stream.manner, &stream.messages);
        for _ in 0..AGAIN {
            if !self.is_beaten(&run) {
                break;
            }
            run = self.both(&stream.manner, &stream.messages);
        }
        if self.is_beaten(&run) {
            found.crossed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        for refusal in &run.refused {
            let mut refusals = found.refusals.lock().unwrap();
            *refusals.entry(refusal.clone()).or_default() += 1;
        }
        let mut told = run.difference()?;
        if run.ends() {
            told += &self.open_transactions();
            // What it has left may be in the way of what comes next.
            let sent: Vec<_> = stream.messages.iter().map(Message::show).collect();
            println!(
                "stream {number} of seed {seed} ({})\n  {}\n{told}",
                Lanes::name(self.lane),
                sent.join("\n  ")
            );
        }
        let quick = Manner {
            hang: Duration::from_secs(3),
            ..stream.manner.clone()
        };
        let ends = run.ends();
        let shrunk = shrink::shrink(&stream.messages, |messages| {
            let run = self.both(&quick, messages);
            run.ends() == ends && !self.is_beaten(&run) && run.difference().is_some()
        });
        let alone = self.both(&quick, &shrunk).difference();
        let (messages, told) = match alone {
            Some(alone) if ends => (shrunk, format!("{alone}\n  at first:\n{told}")),
            Some(alone) => (shrunk, alone),
            None => (stream.messages, format!("  (not again)\n{told}")),
        };
        let sent: Vec<_> = messages.iter().map(Message::show).collect();
        Some(format!(
            "stream {number} of seed {seed} ({}; {:?})\n  {}\n{told}",
            Lanes::name(self.lane),
            stream.manner,
            sent.join("\n  ")
        ))
    }

    /// Whether other streams were in its way.
    fn is_beaten(&self, run: &Run) -> bool {
        let crossed = |answer: &Answer| compare::is_error(answer, "40P01");
        compare::is_beaten(&run.postgres)
            || compare::is_beaten(&run.presplit)
            || Lanes::is_tight(self.lane) && run.presplit.iter().any(crossed)
    }

    /// What is under way on the hosts, or left there: where presplit hangs, something may be in its way.
    fn open_transactions(&mut self) -> String {
        let sql = "SELECT 'prepared ' || gid FROM pg_prepared_xacts UNION ALL \
            SELECT concat_ws(' ', pid, state, wait_event, now() - xact_start, pg_blocking_pids(pid), query) \
            FROM pg_stat_activity WHERE state <> 'idle'";
        let mut told = String::new();
        for (raw, schemas) in &mut self.hosts {
            let lines = raw.query(sql).join("\n    ");
            told += &format!("\n  on the host of {}:\n    {lines}", schemas[0]);
        }
        told
    }

    fn both(&mut self, manner: &Manner, messages: &[Message]) -> Run {
        self.begin();
        self.last = messages.to_vec();
        let whole = [messages, &generator::ending()].concat();
        let (presplit, of) = converse_in_turn(self.proxy, manner, &whole);
        let postgres = converse(self.plain, manner, &with_errors(&whole, &presplit, &of));
        Run {
            rows: self.rows(),
            refused: presplit.iter().filter_map(refusal).collect(),
            postgres,
            presplit,
        }
    }

    /// The users' rows as each stream finds them.
    fn begin(&mut self) {
        if std::mem::take(&mut self.table_left) {
            let drop = q(&format!("DROP TABLE IF EXISTS d{}", self.users[0]));
            for addr in [self.plain, self.proxy] {
                let answer = Raw::connect(addr).ask(&drop, 1);
                let failed = answer.iter().any(|line| line.starts_with('E'));
                assert!(!failed, "{answer:?}");
            }
        }
        let list = self.users.map(|user| user.to_string()).join(", ");
        let with_rows = &self.users[..4];
        let country = format!("DELETE FROM countries WHERE code = 'c{}'", self.users[0]);
        let clear = |schema: &str| {
            format!(
                "; DELETE FROM {schema}.items WHERE user_id IN ({list}); DELETE FROM {schema}.users WHERE id IN ({list})"
            )
        };
        let fill = |schema: &str, user: &i64| {
            format!(
                "; INSERT INTO {schema}.users VALUES ({user}, 'u{}'); \
                 INSERT INTO {schema}.items SELECT {user}, g, g * 10, 'note ' || g FROM generate_series(1, 5) g",
                user % 12
            )
        };
        let mut sql = country.clone() + &clear("public");
        sql.extend(with_rows.iter().map(|user| fill("public", user)));
        self.direct.send(&q(&sql));
        for (raw, schemas) in &mut self.hosts {
            let mut sql = country.clone();
            sql.extend(schemas.iter().map(|schema| clear(schema)));
            for user in with_rows {
                let schema = format!("shard_{:04}", user % 12);
                if schemas.contains(&schema) {
                    sql += &fill(&schema, user);
                }
            }
            raw.send(&q(&sql));
        }
        let all = self.hosts.iter_mut().map(|(raw, _)| raw);
        let all = all.chain([&mut self.direct]);
        let answers: Vec<_> = all.flat_map(|raw| raw.until_ready(1)).collect();
        if answers.iter().any(|line| line.starts_with('E')) {
            let sent: Vec<_> = self.last.iter().map(Message::show).collect();
            panic!(
                "what is left is in the way: {answers:?}{}\n  behind:\n  {}",
                self.open_transactions(),
                sent.join("\n  ")
            );
        }
    }

    /// A question for the columns and rows of the stream's own table.
    fn table(user: i64, schema: &str) -> String {
        let table = format!("{schema}.d{user}");
        format!(
            "SELECT concat_ws(' ', 'each has', string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)) \
             FROM pg_attribute WHERE attrelid = to_regclass('{table}') AND attnum > 0 AND NOT attisdropped \
             HAVING count(*) > 0 UNION ALL \
             SELECT 'own ' || row FROM regexp_split_to_table(CASE WHEN to_regclass('{table}') IS NOT NULL THEN \
             query_to_xml('SELECT * FROM {table}', true, false, '')::text END, '</?row>') row WHERE row LIKE '%<user_id>%'"
        )
    }

    /// The rows of one Postgres, and those of all hosts: each says in which shard it is, or on which host.
    fn rows(&mut self) -> [Vec<String>; 2] {
        let list = self.users.map(|user| user.to_string()).join(", ");
        let of = |schema: &str, shard: [&str; 2]| {
            format!(
                "SELECT concat_ws(' ', {}, 'item', user_id, id, n, note) FROM {schema}.items WHERE user_id IN ({list}) UNION ALL \
                 SELECT concat_ws(' ', {}, 'user', id, name) FROM {schema}.users WHERE id IN ({list})",
                shard[0], shard[1]
            )
        };
        let country = |host: usize| {
            format!(
                "SELECT concat_ws(' ', 'host {host}', code, name) FROM countries WHERE code = 'c{}'",
                self.users[0]
            )
        };
        let own = Job::table(self.users[0], "public");
        let user = self.users[0];
        let mut sql = vec![of("public", ["user_id % 12", "id % 12"]), own];
        sql.extend((0..self.hosts.len()).map(country));
        self.direct.send(&q(&sql.join(" UNION ALL ")));
        for (host, (raw, schemas)) in self.hosts.iter_mut().enumerate() {
            let mut sql = vec![country(host)];
            sql.extend(schemas.iter().map(|schema| {
                let shard: u32 = schema[6..].parse().unwrap();
                let shard = format!("'{shard}'");
                let own = Job::table(user, schema);
                [of(schema, [&shard, &shard]), own].join(" UNION ALL ")
            }));
            raw.send(&q(&sql.join(" UNION ALL ")));
        }
        let row = |line: String| line.strip_prefix("D ").map(str::to_owned);
        let mut plain: Vec<_> = self
            .direct
            .until_ready(1)
            .into_iter()
            .filter_map(row)
            .collect();
        let answers = self
            .hosts
            .iter_mut()
            .flat_map(|(raw, _)| raw.until_ready(1));
        let mut spread: Vec<_> = answers.filter_map(row).collect();
        // What is each shard's is compared as often.
        let each = plain.iter().filter(|row| row.starts_with("each "));
        let each: Vec<_> = each.flat_map(|row| vec![row.clone(); 11]).collect();
        plain.extend(each);
        let all = plain.iter().chain(&spread);
        self.table_left = all.into_iter().any(|row| row.starts_with("each "));
        plain.sort();
        spread.sort();
        [plain, spread]
    }
}

/// The stream with an error in place of each message that presplit has refused.
fn with_errors(messages: &[Message], answers: &[Answer], of: &[Option<usize>]) -> Vec<Message> {
    let mut replaced: Vec<_> = messages.iter().map(|m| vec![m.clone()]).collect();
    let wrong = || Message::Parse {
        name: "refused".to_owned(),
        sql: "SELEC".to_owned(),
        types: Vec::new(),
    };
    for (i, answer) in answers.iter().enumerate() {
        let (Some(_), Some(Some(at))) = (refusal(answer), of.get(i)) else {
            continue;
        };
        let before = (0..i).filter(|n| of[*n] == Some(*at));
        let tags: Vec<u8> = before.filter_map(|n| tag(&answers[n])).collect();
        let ends = |m: &Message| matches!(m, Message::CopyDone | Message::CopyFail(_));
        if tags.contains(&b'G') {
            // It was the data.
            if let Some(end) = messages[*at..].iter().position(ends) {
                replaced[at + end] = vec![Message::CopyFail("refused".to_owned())];
            }
            continue;
        }
        replaced[*at] = match &messages[*at] {
            Message::Query(sql) => {
                let done = tags.iter().filter(|tag| b"CI".contains(tag)).count();
                let done = sql.split("; ").take(done).chain(["SELECT 1/0"]);
                vec![Message::Query(done.collect::<Vec<_>>().join("; "))]
            }
            Message::Sync => vec![wrong(), Message::Sync],
            _ => vec![wrong()],
        };
    }
    replaced.concat()
}

fn tag(answer: &Answer) -> Option<u8> {
    match answer {
        Answer::Message(tag, _) => Some(*tag),
        Answer::End(_) => None,
    }
}

fn is_of_class(answer: &Answer, class: &str) -> bool {
    let code = format!("\0C{class}").into_bytes();
    matches!(answer, Answer::Message(b'E', body) if body.windows(code.len()).any(|w| w == code))
}

/// The words of a refusal: an error with a code of presplit's own, or that says that it is not supported.
fn refusal(answer: &Answer) -> Option<String> {
    let Answer::Message(b'E', body) = answer else {
        return None;
    };
    let fields: Vec<_> = body.split(|b| *b == 0).collect();
    let of = |name: u8| fields.iter().find(|f| f.first() == Some(&name));
    let code = String::from_utf8_lossy(&of(b'C')?[1..]).into_owned();
    let said = String::from_utf8_lossy(&of(b'M')?[1..]).into_owned();
    let ours = code.starts_with("SR") || code.starts_with("SM") || code == "0A000";
    ours.then(|| format!("{code} {said}"))
}

/// What is compared of the answers: beside what [`compare::same`] leaves out,
/// * rows and their descriptions in front of an error: how far hosts come before one fails differs;
/// * DETAIL, CONTEXT and position of errors: which row fails first differs, and in which part of a statement.
fn in_order(answers: &[Answer]) -> Vec<Answer> {
    let mut kept: Vec<Answer> = Vec::new();
    for answer in compare::in_order(answers) {
        if tag(&answer) == Some(b'E') {
            // Found when the transaction is committed, as what is deferred.
            let late = compare::is_error(&answer, "25006");
            let of = if late { &b"CTDGHdcN"[..] } else { b"TDGHdcN" };
            let said = |a: &Answer| tag(a).is_some_and(|tag| of.contains(&tag));
            while kept.last().is_some_and(said) {
                kept.pop();
            }
        }
        kept.push(match answer {
            Answer::Message(b'E', body) => {
                let fields = body.split(|b| *b == 0);
                let kept = fields.filter(|f| !f.first().is_some_and(|n| b"DWPpqH".contains(n)));
                Answer::Message(b'E', kept.collect::<Vec<_>>().join(&0))
            }
            answer => answer,
        });
    }
    kept
}

/// Where Postgres says that a cursor exists, it may be one on another host.
fn is_about_cursor(postgres: &Answer) -> bool {
    compare::is_error(postgres, "42P03")
}

/// Whether the answers differ here in a way that is known, and may do so from here on:
/// * cursors ([`is_about_cursor`]);
/// * a notification that Postgres keeps behind COMMIT AND CHAIN, until the session does not listen any more;
/// * a COMMIT that is refused has ended its transaction, the error in its place has not;
/// * a Parse is not looked at by a server if its Bind is refused, and a statement over several shards and its values when it is executed.
fn is_known(postgres: &[Answer], presplit: &[Answer], at: usize) -> bool {
    if at == postgres.len() {
        return presplit[at..].iter().all(|b| tag(b) == Some(b'A'));
    }
    let (Some(a), Some(b)) = (postgres.get(at), presplit.get(at)) else {
        return false;
    };
    let behind = presplit[at..].iter().take(3);
    let bound = behind.take_while(|b| tag(b).is_some_and(|tag| b"12E".contains(&tag)));
    let late = presplit[at..].iter().take_while(|b| tag(b) != Some(b'Z'));
    let late = late.filter(|b| !tag(b).is_some_and(|tag| b"12nTt".contains(&tag)));
    let mut late = late.filter(|b| !compare::alike(a, b)).peekable();
    let parsed = tag(b).is_some_and(|tag| b"12".contains(&tag));
    let mut before = presplit[..at].iter().rev();
    let refused = before.next().and_then(refusal);
    let commit = refused.is_some_and(|said| said.contains("cannot PREPARE"));
    is_about_cursor(a)
        || tag(a) == Some(b'Z') && tag(b) == Some(b'Z') && commit
        || tag(a) == Some(b'E') && parsed && late.peek().is_none()
        || compare::is_error(a, "08P01") && tag(b) == Some(b'2')
        || tag(a) == Some(b'E') && bound.filter_map(refusal).next().is_some()
}

/// Two errors about rows: of those of a COPY on several hosts, not always the first is told.
fn are_of_rows(postgres: &Answer, presplit: &Answer) -> bool {
    let classes = ["22", "23", "57014"];
    let of_rows = |answer: &Answer| classes.iter().any(|class| is_of_class(answer, class));
    of_rows(postgres) && of_rows(presplit)
}

impl Run {
    /// Whether presplit has ended the conversation.
    fn ends(&self) -> bool {
        matches!(self.presplit.last(), Some(Answer::End(_)))
    }

    /// What differs, for a person.
    fn difference(&self) -> Option<String> {
        if let Some(Answer::End(why)) = self.postgres.last() {
            return Some(format!("  Postgres itself: {why}"));
        }
        let [postgres, presplit] = [&self.postgres, &self.presplit].map(|all| in_order(all));
        let differ = |i: &usize| match (postgres.get(*i), presplit.get(*i)) {
            (Some(a), Some(b)) => {
                let refused = tag(a) == Some(b'E') && refusal(b).is_some();
                // Of a failed block that has lost a host, nobody reads what is wrong.
                let lost = compare::is_error(a, "42601") && compare::is_error(b, "25P02");
                !refused && !lost && !compare::alike(a, b) && !are_of_rows(a, b)
            }
            _ => true,
        };
        let cursors = |all: &[Answer]| all.iter().filter(|a| is_about_cursor(a)).count();
        if cursors(&postgres) > cursors(&presplit) {
            return None;
        }
        let at = (0..postgres.len().max(presplit.len())).find(differ);
        if at.is_some_and(|at| is_known(&postgres, &presplit, at)) {
            return None;
        }
        let Some(at) = at else {
            let [plain, spread] = &self.rows;
            let of_one = |these: &[String], those: &[String]| {
                let these = these.iter().filter(|row| !those.contains(row));
                these.map(|row| format!("\n    {row}")).collect::<String>()
            };
            return (plain != spread).then(|| {
                format!(
                    "  same answers, but rows only of postgres:{}\n  only of presplit:{}",
                    of_one(plain, spread),
                    of_one(spread, plain)
                )
            });
        };
        let show = |answers: &[Answer], from: usize, to: usize| {
            let part = &answers[from.min(answers.len())..to.min(answers.len())];
            let lines: Vec<_> = part.iter().map(compare::show).collect();
            lines.join("\n    ")
        };
        let from = at.saturating_sub(5);
        Some(format!(
            "  same up to:\n    {}\n  postgres:\n    {}\n  presplit:\n    {}",
            show(&postgres, from, at),
            show(&postgres, at, at + 4),
            show(&presplit, at, at + 4)
        ))
    }
}
