//! A client of the bank: transfers between random accounts in each way that an app may choose, and what it may believe of
//! them afterwards.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{ACCOUNTS, Bank, Fate, Trace, Transfer};
use crate::support::raw::{b, e, p, pbe, q, s};
use crate::support::texts;
use crate::support::wire::{Part, Wire};

/// Accounts in any order, so that two transfers may wait for each other.
const DEADLOCKS: bool = true;
/// Statements that write on several hosts by themselves.
const WIDE: bool = true;

/// Runs until the bank is over.
pub fn run(bank: &Bank, n: usize, seed: u64) {
    let rng = StdRng::seed_from_u64(seed);
    match n % 4 {
        3 => super::driver::run(bank, n, rng),
        _ => plain(bank, n, rng),
    }
}

fn plain(bank: &Bank, n: usize, mut rng: StdRng) {
    let mut proxy = n;
    while let Some((addr, wire)) = connect(bank, &mut proxy) {
        let mut client = Client {
            bank,
            rng: &mut rng,
            wire,
            addr,
            cancels: n.is_multiple_of(4),
            named: HashMap::new(),
            prepared: 0,
            last: String::new(),
        };
        while !bank.is_over() && client.transfer().is_ok() {}
    }
}

/// To the next proxy that takes it. `None`: the bank is over.
fn connect(bank: &Bank, proxy: &mut usize) -> Option<(SocketAddr, Wire)> {
    let began = Instant::now();
    while !bank.is_over() {
        *proxy += 1;
        let addr = bank.addr(*proxy);
        match Wire::try_connect(addr, "app") {
            Ok(wire) => return Some((addr, wire)),
            Err(why) if began.elapsed() > Duration::from_secs(30) => {
                bank.fault(format!("can't connect for 30 s: {why}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    None
}

/// Two or three accounts, and what each gets.
pub fn legs(rng: &mut StdRng) -> Vec<(i64, i64)> {
    let mut users: Vec<i64> = Vec::new();
    let n = if rng.random_bool(0.8) { 2 } else { 3 };
    while users.len() < n {
        let user = rng.random_range(0..ACCOUNTS);
        if !users.contains(&user) {
            users.push(user);
        }
    }
    if !DEADLOCKS {
        users.sort();
    }
    let mut legs: Vec<(i64, i64)> = users
        .iter()
        .map(|u| (*u, rng.random_range(1..100)))
        .collect();
    legs[0].1 = -legs[1..].iter().map(|leg| leg.1).sum::<i64>();
    legs
}

/// What an error means for a transfer that was being committed when it came, or a fault if no client should meet it.
pub fn judge(bank: &Bank, code: &str, message: &str, committing: bool, cancels: bool) -> Fate {
    bank.count(&format!(
        "{} {code}",
        if committing { "COMMIT:" } else { "error" }
    ));
    let sensible = match code {
        // A deadlock, or a wait too long to be none; a transaction that could not be prepared.
        "40P01" | "55P03" | "40001" | "40000" => true,
        // Servers that go away or are not there.
        "57P01" | "57P02" | "57P03" | "08000" | "08001" | "08003" | "08006" => true,
        "08007" => committing,
        // No free server connection within the limit.
        "53300" => true,
        // What the savepoint would bring back is lost with a host.
        "25P02" => message.contains("ROLLBACK TO SAVEPOINT"),
        "57014" => cancels,
        _ => false,
    };
    if !sensible {
        bank.fault(format!(
            "a client met {code} {message}, committing: {committing}"
        ));
    }
    match code {
        _ if !committing => Fate::Absent,
        _ if is_lost(code) => Fate::Unknown,
        _ => Fate::Absent,
    }
}

fn is_lost(code: &str) -> bool {
    code.starts_with("08") || code.starts_with("57P")
}

/// The connection is of no use any more.
pub struct Lost;

/// Why a transfer went no further.
enum Stop {
    Lost,
    /// An error was answered; in a block the rest is skipped.
    Refused(Fate),
}

#[derive(Clone, Copy, Debug)]
enum Style {
    Simple,
    Extended,
    /// Of named statements, which live as long as the connection.
    Prepared,
}

/// How a transaction is written.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// A statement for each account and entry.
    Plain,
    /// One for all accounts and one for all entries.
    Wide,
    /// Some of it is taken back.
    Savepoint,
    /// A statement fails, which is taken back.
    Failure,
}

struct Client<'a> {
    bank: &'a Bank,
    rng: &'a mut StdRng,
    wire: Wire,
    addr: SocketAddr,
    cancels: bool,
    /// The statements that were prepared on this connection, and by which name.
    named: HashMap<String, String>,
    /// How many there were, those of failed messages too.
    prepared: u32,
    /// What was sent last.
    last: String,
}

impl Client<'_> {
    /// One transfer from beginning to end, with what is known of it written down.
    fn transfer(&mut self) -> Result<(), Lost> {
        let (id, legs) = (self.bank.id(), legs(self.rng));
        let style = [Style::Simple, Style::Extended, Style::Prepared][self.rng.random_range(0..3)];
        let mut transfer = Transfer {
            trace: Trace::Transfers,
            legs,
            fate: Fate::Unknown,
            how: format!("{style:?}"),
        };
        let done = match self.rng.random_range(if WIDE { 0 } else { 2 }..10) {
            0 => self.tip(style, id, &mut transfer),
            1 => self.note(style, id, &mut transfer),
            _ => self.block(style, id, &mut transfer),
        };
        let trace = transfer.trace;
        let (user, fate) = (transfer.legs.last().unwrap().0, transfer.fate);
        self.bank.transfers.lock().unwrap().insert(id, transfer);
        done?;
        if fate == Fate::There && trace == Trace::Transfers && self.rng.random_bool(0.3) {
            self.read_back(user, id)?;
        }
        Ok(())
    }

    /// By itself, one statement for all accounts.
    fn tip(&mut self, style: Style, id: i64, transfer: &mut Transfer) -> Result<(), Lost> {
        transfer.trace = Trace::Tips;
        transfer.how += " tip";
        let cases: Vec<String> = transfer
            .legs
            .iter()
            .map(|(u, a)| format!("WHEN {u} THEN {a}"))
            .collect();
        let sql = format!(
            "UPDATE accounts SET tips = tips || {id}::bigint, tip = tip + CASE user_id {} END WHERE user_id IN ({})",
            cases.join(" "),
            users(&transfer.legs)
        );
        self.alone(style, &sql, transfer)
    }

    fn note(&mut self, style: Style, id: i64, transfer: &mut Transfer) -> Result<(), Lost> {
        transfer.trace = Trace::Notes;
        transfer.how += " note";
        let rows: Vec<String> = transfer
            .legs
            .iter()
            .map(|(u, _)| format!("({u}, {id})"))
            .collect();
        let sql = format!("INSERT INTO notes (user_id, id) VALUES {}", rows.join(", "));
        self.alone(style, &sql, transfer)
    }

    fn alone(&mut self, style: Style, sql: &str, transfer: &mut Transfer) -> Result<(), Lost> {
        let message = match style {
            Style::Simple => q(sql),
            _ => [pbe(sql, &[]), s()].concat(),
        };
        let expected = transfer.legs.len();
        let answer = self.answer(&message, true);
        self.end(answer, transfer, |tag| {
            tag == format!("UPDATE {expected}") || tag == format!("INSERT 0 {expected}")
        })
    }

    /// A transaction: begun, and then committed, rolled back or left.
    fn block(&mut self, style: Style, id: i64, transfer: &mut Transfer) -> Result<(), Lost> {
        let shape = [
            Shape::Plain,
            Shape::Plain,
            if WIDE { Shape::Wide } else { Shape::Plain },
            Shape::Savepoint,
            Shape::Failure,
        ][self.rng.random_range(0..5)];
        transfer.how += &format!(" {shape:?}");
        // Until COMMIT is sent nothing can be there.
        transfer.fate = Fate::Absent;
        let legs = transfer.legs.clone();
        match self.body(style, shape, id, &legs) {
            Ok(()) => {}
            Err(Stop::Lost) => return Err(Lost),
            Err(Stop::Refused(_)) => {
                transfer.how += ", a statement was refused";
                return self.give_up();
            }
        }
        match self.rng.random_range(0..100) {
            0..82 => {
                let message = match style {
                    Style::Simple => q("COMMIT"),
                    _ => [pbe("COMMIT", &[]), s()].concat(),
                };
                let answer = self.answer(&message, true);
                self.end(answer, transfer, |tag| tag == "COMMIT")
            }
            82..90 => {
                transfer.how += ", rolled back";
                self.give_up()
            }
            // Goes away without a word.
            90..93 => {
                self.bank.count("clients left a transaction");
                Err(Lost)
            }
            93..96 => {
                transfer.fate = Fate::Unknown;
                transfer.how += ", the client left at COMMIT";
                let _ = self.wire.send(&q("COMMIT"));
                self.bank.count("clients left at COMMIT");
                Err(Lost)
            }
            _ => self.commit_and_cancel(transfer),
        }
    }

    fn body(
        &mut self,
        style: Style,
        shape: Shape,
        id: i64,
        legs: &[(i64, i64)],
    ) -> Result<(), Stop> {
        self.say(Style::Simple, "BEGIN", &[])?;
        match shape {
            Shape::Plain => self.plainly(style, id, legs),
            Shape::Wide => self.widely(style, id, legs),
            Shape::Savepoint => {
                let (first, rest) = legs.split_at(1);
                self.plainly(style, id, first)?;
                self.say(Style::Simple, "SAVEPOINT here", &[])?;
                let wrong: Vec<(i64, i64)> =
                    rest.iter().map(|(u, a)| (*u, a + 1_000_000)).collect();
                self.plainly(style, id, &wrong)?;
                self.say(Style::Simple, "ROLLBACK TO SAVEPOINT here", &[])?;
                if self.rng.random_bool(0.5) {
                    self.say(Style::Simple, "RELEASE SAVEPOINT here", &[])?;
                }
                self.plainly(style, id, rest)
            }
            Shape::Failure => {
                self.plainly(style, id, &legs[..1])?;
                self.say(Style::Simple, "SAVEPOINT here", &[])?;
                // The entry of the first account stands already, whichever host the last is on.
                self.plainly(style, id, &legs[1..])?;
                let sql = "INSERT INTO transfers (user_id, id, amount) VALUES ($1, $2, 0)";
                self.fail(sql, &[legs[0].0, id])?;
                self.say(Style::Simple, "ROLLBACK TO SAVEPOINT here", &[])?;
                self.plainly(style, id, &legs[1..])
            }
        }
    }

    fn plainly(&mut self, style: Style, id: i64, legs: &[(i64, i64)]) -> Result<(), Stop> {
        for (user, amount) in legs {
            self.say(
                style,
                "UPDATE accounts SET balance = balance + $1 WHERE user_id = $2",
                &[*amount, *user],
            )?;
            self.say(
                style,
                "INSERT INTO transfers (user_id, id, amount) VALUES ($1, $2, $3)",
                &[*user, id, *amount],
            )?;
        }
        Ok(())
    }

    fn widely(&mut self, style: Style, id: i64, legs: &[(i64, i64)]) -> Result<(), Stop> {
        let cases: Vec<String> = legs
            .iter()
            .map(|(u, a)| format!("WHEN {u} THEN {a}"))
            .collect();
        let rows: Vec<String> = legs
            .iter()
            .map(|(u, a)| format!("({u}, {id}, {a})"))
            .collect();
        let update = format!(
            "UPDATE accounts SET balance = balance + CASE user_id {} END WHERE user_id IN ({})",
            cases.join(" "),
            users(legs)
        );
        let insert = format!(
            "INSERT INTO transfers (user_id, id, amount) VALUES {}",
            rows.join(", ")
        );
        let style = match style {
            Style::Prepared => Style::Extended,
            other => other,
        };
        self.say(style, &update, &[])?;
        self.say(style, &insert, &[])
    }

    /// A statement of a transaction, with parameters.
    fn say(&mut self, style: Style, sql: &str, values: &[i64]) -> Result<(), Stop> {
        let message = self.message(style, sql, values);
        self.last = format!("{style:?} {sql} {values:?}");
        self.answer(&message, false).map(drop)
    }

    /// One that must fail with a duplicate key.
    fn fail(&mut self, sql: &str, values: &[i64]) -> Result<(), Stop> {
        let message = self.message(Style::Simple, sql, values);
        let answer = self.wire.ask(&message);
        match &answer {
            Ok(parts) => match error(parts) {
                Some(("23505", _)) => Ok(()),
                Some((code, message)) => Err(Stop::Refused(judge(
                    self.bank,
                    code,
                    message,
                    false,
                    self.cancels,
                ))),
                None => {
                    self.bank
                        .fault(format!("{sql} {values:?} did not fail: {parts:?}"));
                    Err(Stop::Lost)
                }
            },
            Err(why) => Err(self.lost(why)),
        }
    }

    fn message(&mut self, style: Style, sql: &str, values: &[i64]) -> Vec<u8> {
        let texts: Vec<String> = values.iter().map(i64::to_string).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        match style {
            Style::Simple => {
                let put = |sql: String, (n, value): (usize, &&str)| {
                    sql.replace(&format!("${}", n + 1), value)
                };
                q(&texts.iter().enumerate().fold(sql.to_owned(), put))
            }
            Style::Extended => [pbe(sql, &texts), s()].concat(),
            Style::Prepared => {
                let mut message = Vec::new();
                if !self.named.contains_key(sql) {
                    let next = format!("s{}", self.prepared);
                    self.prepared += 1;
                    message = p(&next, sql);
                    self.named.insert(sql.to_owned(), next);
                }
                [message, b("", &self.named[sql], &texts), e("", 0), s()].concat()
            }
        }
    }

    fn answer(&mut self, message: &[u8], committing: bool) -> Result<Vec<Part>, Stop> {
        let answer = self.wire.ask(message);
        self.judged(answer, committing)
    }

    fn judged(
        &mut self,
        answer: Result<Vec<Part>, String>,
        committing: bool,
    ) -> Result<Vec<Part>, Stop> {
        let parts = answer.map_err(|why| self.lost(&why))?;
        match error(&parts) {
            None => Ok(parts),
            Some((code, message)) => {
                // A Parse that was skipped with its message has prepared nothing.
                self.named.clear();
                if committing && parts.last() != Some(&Part::Ready('I')) {
                    self.bank
                        .fault(format!("COMMIT left a transaction: {parts:?}"));
                }
                let message = format!("{message} after {}", self.last);
                Err(Stop::Refused(judge(
                    self.bank,
                    code,
                    &message,
                    committing,
                    self.cancels,
                )))
            }
        }
    }

    fn lost(&self, why: &str) -> Stop {
        self.bank.count("connections lost");
        if why.starts_with("no answer") && !why.contains("reset") {
            self.bank
                .fault(format!("a client hangs after {}: {why}", self.last));
        }
        Stop::Lost
    }

    /// What the last answer says of the transfer.
    fn end(
        &mut self,
        answer: Result<Vec<Part>, Stop>,
        transfer: &mut Transfer,
        done: impl Fn(&str) -> bool,
    ) -> Result<(), Lost> {
        transfer.how += &match &answer {
            Ok(parts) => format!(", {parts:?}"),
            Err(Stop::Refused(fate)) => format!(", refused: {fate:?}"),
            Err(Stop::Lost) => ", the connection was lost".to_owned(),
        };
        match answer {
            Ok(parts) => {
                let tag = parts.iter().find_map(|part| match part {
                    Part::Tag(tag) => Some(tag.as_str()),
                    _ => None,
                });
                if !tag.is_some_and(done) || parts.last() != Some(&Part::Ready('I')) {
                    self.bank
                        .fault(format!("{} is no answer to it", transfer.how));
                }
                transfer.fate = Fate::There;
                Ok(())
            }
            Err(Stop::Refused(fate)) => {
                transfer.fate = fate;
                Ok(())
            }
            Err(Stop::Lost) => {
                transfer.fate = Fate::Unknown;
                Err(Lost)
            }
        }
    }

    /// ROLLBACK; or COMMIT of what has failed, which is the same.
    fn give_up(&mut self) -> Result<(), Lost> {
        match self.wire.ask(&q("ROLLBACK")) {
            Ok(parts) if parts.contains(&Part::Tag("ROLLBACK".to_owned())) => Ok(()),
            // A host that was lost has rolled back too.
            Ok(parts)
                if error(&parts).is_some_and(|(code, _)| is_lost(code))
                    && parts.last() == Some(&Part::Ready('I')) =>
            {
                self.bank.count("ROLLBACK: the host was lost");
                Ok(())
            }
            Ok(parts) => {
                self.bank
                    .fault(format!("{parts:?} is no answer to ROLLBACK"));
                Err(Lost)
            }
            Err(why) => {
                self.lost(&why);
                Err(Lost)
            }
        }
    }

    fn commit_and_cancel(&mut self, transfer: &mut Transfer) -> Result<(), Lost> {
        if !self.cancels {
            return self.give_up();
        }
        transfer.fate = Fate::Unknown;
        transfer.how += ", cancelled at COMMIT";
        if self.wire.send(&q("COMMIT")).is_err() {
            return Err(Lost);
        }
        std::thread::sleep(Duration::from_micros(self.rng.random_range(0..4000)));
        if let Ok(mut stream) = TcpStream::connect(self.addr) {
            let _ = std::io::Write::write_all(&mut stream, &self.wire.cancel_request());
            // The server closes when it has passed it on, so that it can't hit what comes next.
            let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
            let _ = std::io::Read::read(&mut stream, &mut [0]);
        }
        self.bank.count("cancels at COMMIT");
        let answer = self.wire.receive();
        let answer = self.judged(answer, true);
        self.end(answer, transfer, |tag| tag == "COMMIT")
    }

    /// What was acknowledged is seen.
    fn read_back(&mut self, user: i64, id: i64) -> Result<(), Lost> {
        let sql = format!("SELECT count(*) FROM transfers WHERE user_id = {user} AND id = {id}");
        match self.answer(&q(&sql), false) {
            Ok(parts) if texts(&parts) == [["1"]] => Ok(()),
            Ok(parts) => {
                self.bank.fault(format!(
                    "transfer {id} was acknowledged, then {sql}: {parts:?}"
                ));
                Err(Lost)
            }
            Err(Stop::Refused(_)) => Ok(()),
            Err(Stop::Lost) => Err(Lost),
        }
    }
}

fn users(legs: &[(i64, i64)]) -> String {
    let users: Vec<String> = legs.iter().map(|(user, _)| user.to_string()).collect();
    users.join(", ")
}

fn error(parts: &[Part]) -> Option<(&str, &str)> {
    parts.iter().find_map(|part| match part {
        Part::Error { code, message, .. } => Some((code.as_str(), message.as_str())),
        _ => None,
    })
}
