//! A client of the leak test: reads, writes, faults, cancels, vanishes, and checks all that it is told.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;

use super::{Fate, ROWS, SHARDS, Shared, USERS, numbers};
use crate::support::raw::{b, cs, e, p, pbe, q, s};
use crate::support::wire::{Part, Wire};

pub struct Client<'a> {
    pub shared: &'a Shared,
    pub rng: StdRng,
    pub wire: Wire,
    /// Whether it ever cancels: of the others nothing may be cancelled.
    pub cancels: bool,
}

/// The connection is of no use any more.
struct Lost;

/// The error in an answer.
fn error(parts: &[Part]) -> Option<(&str, &str)> {
    parts.iter().find_map(|part| match part {
        Part::Error { code, message, .. } => Some((code.as_str(), message.as_str())),
        _ => None,
    })
}

/// The host went away while it was at it: what it had done by then is not known.
fn leaves_open(code: &str) -> bool {
    code.starts_with("08") || code.starts_with("57P")
}

impl Client<'_> {
    pub fn run(&mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let done = match self.rng.random_range(0..100) {
                0..25 => self.read_own(),
                25..33 => self.read_several(),
                33..36 => self.read_everywhere(),
                36..38 => self.read_merged(),
                38..55 => self.write(),
                55..73 => self.transaction(),
                73..80 => self.fail(),
                80..86 => self.pipeline(),
                86..91 if self.cancels => self.cancel(),
                91..96 => self.vanish(),
                _ => self.prepared(),
            };
            if done.is_err() {
                self.connect_again();
            }
        }
    }

    fn connect_again(&mut self) {
        let began = Instant::now();
        while !self.shared.stop.load(Ordering::Relaxed) {
            match Wire::try_connect(self.shared.addr, "app") {
                Ok(wire) => {
                    self.wire = wire;
                    return;
                }
                Err(why) if began.elapsed() > Duration::from_secs(30) => {
                    return self.shared.fault(format!("can't connect for 30 s: {why}"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn user(&mut self) -> i64 {
        self.rng.random_range(0..USERS)
    }

    fn token(&self) -> u64 {
        self.shared.next_token.fetch_add(1, Ordering::Relaxed)
    }

    fn settle(&self, user: i64, token: u64, fate: Fate) {
        self.shared
            .tokens
            .lock()
            .unwrap()
            .insert(token, (user, fate));
    }

    /// Sends and reads the answer. No answer at all within the limit is a fault; a lost connection is not.
    fn ask(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Part>, Lost> {
        let answer = self.wire.ask(bytes);
        self.judge(what, answer)
    }

    fn judge(
        &mut self,
        what: &'static str,
        answer: Result<Vec<Part>, String>,
    ) -> Result<Vec<Part>, Lost> {
        match answer {
            Ok(parts) => {
                self.shared.count(what);
                match error(&parts) {
                    None => {}
                    Some(("57014", _)) if self.cancels => self.shared.count("cancelled"),
                    Some(("22012" | "25P02" | "23505", _)) => {
                        self.shared.count("errors as asked for")
                    }
                    Some((code, _)) if leaves_open(code) || code == "53300" => {
                        self.shared.count("errors of lost hosts")
                    }
                    Some((code, message)) => self.shared.fault(format!("{what}: {code} {message}")),
                }
                Ok(parts)
            }
            Err(why) => {
                self.shared.count("connections lost");
                if why.starts_with("no answer") && !why.contains("reset") {
                    self.shared.fault(format!("{what}: {why}"));
                }
                Err(Lost)
            }
        }
    }

    /// Of these users, all of them, and nothing else: the rows of `marked` with these numbers `n`.
    fn check(&self, what: &str, parts: &[Part], users: &[i64], of_each: i64) {
        let mut seen: HashMap<i64, i64> = HashMap::new();
        for part in parts {
            let Part::Row(row) = part else { continue };
            let values = numbers(&row[..2]);
            let (user, shard) = (values[0], values[1]);
            if !users.contains(&user) || shard != user % SHARDS {
                self.shared.fault(format!(
                    "{what} of {users:?}: got a row of user {user}, shard {shard}"
                ));
            }
            *seen.entry(user).or_default() += 1;
        }
        if error(parts).is_some() {
            return;
        }
        for user in users {
            let got = seen.get(user).copied().unwrap_or_default();
            if got != of_each {
                self.shared.fault(format!(
                    "{what} of {users:?}: {got} rows of user {user}, not {of_each}: {parts:?}"
                ));
            }
        }
    }

    fn read_own(&mut self) -> Result<(), Lost> {
        let user = self.user();
        let message = match self.rng.random_bool(0.5) {
            true => q(&format!(
                "SELECT user_id, shard, filler FROM marked WHERE user_id = {user}"
            )),
            false => [
                pbe(
                    "SELECT user_id, shard, n FROM marked WHERE user_id = $1",
                    &[&user.to_string()],
                ),
                s(),
            ]
            .concat(),
        };
        let parts = self.ask("reads", &message)?;
        self.check("a read", &parts, &[user], ROWS);
        Ok(())
    }

    fn read_several(&mut self) -> Result<(), Lost> {
        let mut users: Vec<i64> = (0..self.rng.random_range(2..5))
            .map(|_| self.user())
            .collect();
        users.sort();
        users.dedup();
        let list: Vec<String> = users.iter().map(i64::to_string).collect();
        let message = match self.rng.random_bool(0.5) {
            true => q(&format!(
                "SELECT user_id, shard, n FROM marked WHERE user_id IN ({})",
                list.join(", ")
            )),
            false => {
                let array = format!("{{{}}}", list.join(","));
                [
                    pbe(
                        "SELECT user_id, shard, n FROM marked WHERE user_id = ANY ($1)",
                        &[&array],
                    ),
                    s(),
                ]
                .concat()
            }
        };
        let parts = self.ask("reads of several", &message)?;
        self.check("a read", &parts, &users, ROWS);
        Ok(())
    }

    fn read_everywhere(&mut self) -> Result<(), Lost> {
        let n = self.rng.random_range(0..ROWS);
        let parts = self.ask(
            "reads of all shards",
            &q(&format!("SELECT user_id, shard FROM marked WHERE n = {n}")),
        )?;
        self.check("a scatter", &parts, &(0..USERS).collect::<Vec<_>>(), 1);
        Ok(())
    }

    /// Sorted rows and sums of all shards, now and then in the midst of a transaction or behind an error.
    fn read_merged(&mut self) -> Result<(), Lost> {
        let in_block = self.rng.random_bool(0.3);
        if in_block {
            self.ask("begins", &q("BEGIN"))?;
        }
        let (n, most) = (
            self.rng.random_range(0..ROWS),
            self.rng.random_range(1..USERS),
        );
        let (sql, first) = match self.rng.random_range(0..4) {
            0 => (
                format!(
                    "SELECT user_id, shard, filler FROM marked WHERE n = {n} ORDER BY user_id LIMIT {most}"
                ),
                most,
            ),
            1 => (
                format!("SELECT user_id, shard, filler FROM marked WHERE n = {n} ORDER BY user_id"),
                USERS,
            ),
            2 => (
                format!(
                    "SELECT user_id, min(shard) FROM marked WHERE n = {n} GROUP BY user_id, filler ORDER BY user_id LIMIT {most}"
                ),
                most,
            ),
            _ => (
                format!(
                    "SELECT user_id, shard, 1 / (user_id - {most}) FROM marked WHERE n = {n} ORDER BY user_id"
                ),
                USERS,
            ),
        };
        let message = match self.rng.random_bool(0.5) {
            true => q(&sql),
            false => [pbe(&sql, &[]), s()].concat(),
        };
        let parts = self.ask("reads merged", &message)?;
        self.check("a merged read", &parts, &(0..first).collect::<Vec<_>>(), 1);
        let user_of = |part: &Part| match part {
            Part::Row(row) => Some(numbers(&row[..1])[0]),
            _ => None,
        };
        let users: Vec<i64> = parts.iter().filter_map(user_of).collect();
        if !users.is_sorted() {
            self.shared.fault(format!("{sql}: not sorted: {users:?}"));
        }
        let parts = self.ask(
            "sums",
            &q("SELECT count(*), sum(user_id), max(shard) FROM marked"),
        )?;
        for part in &parts {
            let Part::Row(row) = part else { continue };
            let sums = [USERS * ROWS, USERS * (USERS - 1) / 2 * ROWS, SHARDS - 1];
            if numbers(row) != sums {
                self.shared
                    .fault(format!("sums of all are {sums:?}, not {:?}", numbers(row)));
            }
        }
        if in_block {
            self.ask("rollbacks", &q("ROLLBACK"))?;
        }
        Ok(())
    }

    fn insert(&mut self, user: i64, token: u64) -> Vec<u8> {
        match self.rng.random_bool(0.5) {
            true => q(&format!(
                "INSERT INTO tokens (user_id, token) VALUES ({user}, {token})"
            )),
            false => [
                pbe(
                    "INSERT INTO tokens (user_id, token) VALUES ($1, $2)",
                    &[&user.to_string(), &token.to_string()],
                ),
                s(),
            ]
            .concat(),
        }
    }

    fn write(&mut self) -> Result<(), Lost> {
        let (user, token) = (self.user(), self.token());
        let message = self.insert(user, token);
        let answer = self.ask("writes", &message);
        self.settle_by(user, token, &answer);
        answer.map(|_| ())
    }

    /// What the answer to a write by itself says of its token.
    fn settle_by(&self, user: i64, token: u64, answer: &Result<Vec<Part>, Lost>) {
        let fate = match answer {
            Err(Lost) => Fate::Unknown,
            Ok(parts) => match error(parts) {
                None => Fate::There,
                Some((code, _)) if leaves_open(code) => Fate::Unknown,
                Some(_) => Fate::Absent,
            },
        };
        self.settle(user, token, fate);
    }

    /// Writes and reads of one user; committed, rolled back, or left.
    fn transaction(&mut self) -> Result<(), Lost> {
        let user = self.user();
        let mut tokens = Vec::new();
        let answer = self.in_transaction(user, &mut tokens);
        let fate = match &answer {
            Ok(fate) | Err((fate, Lost)) => *fate,
        };
        for token in tokens {
            self.settle(user, token, fate);
        }
        answer.map(|_| ()).map_err(|(_, lost)| lost)
    }

    fn in_transaction(&mut self, user: i64, tokens: &mut Vec<u64>) -> Result<Fate, (Fate, Lost)> {
        let gone = |lost| (Fate::Absent, lost);
        self.ask("begins", &q("BEGIN")).map_err(gone)?;
        for _ in 0..self.rng.random_range(1..4) {
            match self.rng.random_range(0..10) {
                0..6 => {
                    let token = self.token();
                    tokens.push(token);
                    let message = self.insert(user, token);
                    self.ask("writes in transactions", &message).map_err(gone)?;
                }
                6..9 => {
                    let message = q(&format!(
                        "SELECT user_id, shard FROM marked WHERE user_id = {user}"
                    ));
                    let parts = self.ask("reads in transactions", &message).map_err(gone)?;
                    self.check("a read in a transaction", &parts, &[user], ROWS);
                }
                _ => drop(
                    self.ask("faults in transactions", &q("SELECT 1 / 0"))
                        .map_err(gone)?,
                ),
            }
        }
        match self.rng.random_range(0..10) {
            0..7 => {
                let parts = self
                    .ask("commits", &q("COMMIT"))
                    .map_err(|lost| (Fate::Unknown, lost))?;
                Ok(match (error(&parts), parts.first()) {
                    (None, Some(Part::Tag(tag))) if tag == "COMMIT" => Fate::There,
                    (None, _) => Fate::Absent,
                    (Some((code, _)), _) if leaves_open(code) => Fate::Unknown,
                    (Some(_), _) => Fate::Absent,
                })
            }
            7..9 => {
                self.ask("rollbacks", &q("ROLLBACK")).map_err(gone)?;
                Ok(Fate::Absent)
            }
            // Goes away without a word.
            _ => Err((Fate::Absent, Lost)),
        }
    }

    fn fail(&mut self) -> Result<(), Lost> {
        let (user, token) = (self.user(), self.token());
        let sql = match self.rng.random_bool(0.5) {
            true => format!("INSERT INTO tokens (user_id, token) VALUES ({user}, {token} / 0)"),
            false => format!(
                "WITH t AS (INSERT INTO tokens (user_id, token) VALUES ({user}, {token}) RETURNING token) \
                 INSERT INTO marked (user_id, shard, n, filler) VALUES ({user}, 0, 0, 'no')"
            ),
        };
        let answer = self.ask("faults", &q(&sql));
        if let Ok(parts) = &answer
            && error(parts).is_none()
        {
            self.shared.fault(format!("{sql}: no error: {parts:?}"));
        }
        self.settle(user, token, Fate::Absent);
        answer.map(|_| ())
    }

    /// Several batches in one write: a write, a read, and a write that an error in its batch takes back.
    fn pipeline(&mut self) -> Result<(), Lost> {
        let (one, two, three) = (self.user(), self.user(), self.user());
        let (kept, undone) = (self.token(), self.token());
        let insert = "INSERT INTO tokens (user_id, token) VALUES ($1, $2)";
        let message = [
            pbe(insert, &[&one.to_string(), &kept.to_string()]),
            s(),
            pbe(
                "SELECT user_id, shard FROM marked WHERE user_id = $1",
                &[&two.to_string()],
            ),
            s(),
            pbe(insert, &[&three.to_string(), &undone.to_string()]),
            pbe(
                "SELECT 1 / $1::int FROM marked WHERE user_id = $2",
                &["0", &three.to_string()],
            ),
            s(),
        ]
        .concat();
        self.settle(one, kept, Fate::Unknown);
        self.settle(three, undone, Fate::Absent);
        let first = self.ask("writes in pipelines", &message);
        self.settle_by(one, kept, &first);
        first?;
        let second = self.wire.receive();
        let second = self.judge("reads in pipelines", second)?;
        self.check("a read in a pipeline", &second, &[two], ROWS);
        let third = self.wire.receive();
        let third = self.judge("faults in pipelines", third)?;
        if error(&third).is_none() {
            self.shared
                .fault(format!("no error from 1 / 0 in a pipeline: {third:?}"));
        }
        Ok(())
    }

    /// A slow write, cancelled.
    fn cancel(&mut self) -> Result<(), Lost> {
        let (user, token) = (self.user(), self.token());
        let sql = format!(
            "INSERT INTO tokens (user_id, token) SELECT {user}, {token} FROM pg_sleep(0.{:02})",
            self.rng.random_range(0..60)
        );
        self.settle(user, token, Fate::Unknown);
        let sent = self.wire.send(&q(&sql));
        if sent.is_err() {
            return Err(Lost);
        }
        std::thread::sleep(Duration::from_millis(self.rng.random_range(0..30)));
        if let Ok(mut stream) = TcpStream::connect(self.shared.addr) {
            let _ = std::io::Write::write_all(&mut stream, &self.wire.cancel_request());
            // The server closes when it has passed it on, so that it can't hit what comes next.
            let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
            let _ = std::io::Read::read(&mut stream, &mut [0]);
        }
        let answer = self.wire.receive();
        let answer = self.judge("cancels", answer);
        self.settle_by(user, token, &answer);
        answer.map(|_| ())
    }

    /// Sends and goes away, in the middle of a message at times.
    fn vanish(&mut self) -> Result<(), Lost> {
        let (user, token) = (self.user(), self.token());
        let message = match self.rng.random_range(0..3) {
            0 => q(
                "SELECT a.user_id, a.shard, b.filler FROM marked a JOIN marked b ON b.user_id = a.user_id",
            ),
            1 => [q("BEGIN"), self.insert(user, token)].concat(),
            _ => self.insert(user, token),
        };
        let cut = match self.rng.random_bool(0.3) {
            true => self.rng.random_range(0..message.len()),
            false => message.len(),
        };
        // A cut message is none; a whole one may have run.
        let whole = cut == message.len() && !message.starts_with(&q("BEGIN"));
        self.settle(
            user,
            token,
            if whole { Fate::Unknown } else { Fate::Absent },
        );
        let _ = self.wire.send(&message[..cut]);
        self.shared.count("clients vanished");
        Err(Lost)
    }

    /// A named statement for several users in turn.
    fn prepared(&mut self) -> Result<(), Lost> {
        let mut message = [
            cs("mine"),
            p(
                "mine",
                "SELECT user_id, shard, n FROM marked WHERE user_id = $1",
            ),
        ]
        .concat();
        let users: Vec<i64> = (0..3).map(|_| self.user()).collect();
        for user in &users {
            message.extend(b("", "mine", &[&user.to_string()]));
            message.extend(e("", 0));
            message.extend(s());
        }
        let first = self.ask("reads prepared", &message)?;
        self.check("a prepared read", &first, &users[..1], ROWS);
        for user in &users[1..] {
            let next = self.wire.receive();
            match self.judge("reads prepared", next)? {
                // The Parse was lost with its host.
                parts if error(&first).is_some() => drop(parts),
                parts => self.check("a prepared read", &parts, &[*user], ROWS),
            }
        }
        Ok(())
    }
}
