//! `presplit feed warm` and `presplit feed rebuild`: feeds in Redis built before anyone asks for them, or anew.

use std::io::BufRead;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use presplit::feed::UserId;
use presplit::feed::ahead::{Active, Aim, Done};
use presplit::feed::clock::now_ms;
use presplit::feed::config::StoreConfig;
use presplit::feed::db::{Db, DbSettings};
use presplit::feed::metrics::Metrics;
use presplit::feed::read::Reader;
use presplit::feed::store::Walk;

use super::Place;

/// How long a call of the store may take: nobody waits for the page.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is said how far it is.
const SAID: Duration = Duration::from_secs(10);

/// Where, and how fast.
#[derive(Args)]
struct How {
    #[command(flatten)]
    place: Place,
    /// Feeds built side by side.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    at_once: u16,
}

#[derive(Args)]
pub(super) struct Warm {
    #[command(flatten)]
    how: How,
    /// Feeds of those who have posted, followed or unfollowed within so many days.
    #[arg(long, value_name = "N", default_value_t = 7)]
    days: u32,
    /// Instead: of the users whose ids stand in standard input, one a line.
    #[arg(long, conflicts_with = "days")]
    stdin: bool,
}

#[derive(Args)]
pub(super) struct Rebuild {
    #[command(flatten)]
    how: How,
    /// The feed of this user; may be given several times.
    #[arg(long, value_name = "ID", allow_negative_numbers = true)]
    user: Vec<UserId>,
    /// All feeds that are there. One that is not is built when it is next read.
    #[arg(long, conflicts_with = "user", required_unless_present = "user")]
    all: bool,
}

/// Builds feeds that are not there yet.
pub(super) fn warm(args: &Warm) -> Result<(), String> {
    let since = now_ms().saturating_sub(u64::from(args.days) * 24 * 3600 * 1000);
    let from = match args.stdin {
        true => From::These(ids(std::io::stdin().lock())?),
        false => From::ActiveSince(since),
    };
    run(&args.how, from, Aim::Warm)
}

/// Drops feeds and builds them.
pub(super) fn rebuild(args: &Rebuild) -> Result<(), String> {
    match args.all {
        true => run(&args.how, From::Store, Aim::AnewIfThere),
        false => run(&args.how, From::These(args.user.clone()), Aim::Anew),
    }
}

/// One id a line; blank lines are passed over.
fn ids(input: impl BufRead) -> Result<Vec<UserId>, String> {
    let mut ids = Vec::new();
    for (n, line) in input.lines().enumerate() {
        let line = line.map_err(|e| format!("standard input: {e}"))?;
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let id = line.parse();
        ids.push(
            id.map_err(|_| format!("standard input, line {}: {line:?} is no user id", n + 1))?,
        );
    }
    Ok(ids)
}

/// Whose feeds.
enum From {
    These(Vec<UserId>),
    /// Of those who have posted or changed an edge since, in milliseconds of Unix time.
    ActiveSince(u64),
    /// All that the store has.
    Store,
}

fn run(how: &How, from: From, aim: Aim) -> Result<(), String> {
    super::super::log_to_stderr();
    let mut config = super::config(how.place.map.as_deref())?;
    if let StoreConfig::Memory(_) = config.store {
        return Err("the map has no [feed.redis]: feeds are in the memory of the process that serves them, which alone can build them, and does when they are read".to_owned());
    }
    let at_once = usize::from(how.at_once);
    let settings = DbSettings {
        connections: at_once + 1,
        ..how.place.db()
    };
    let db = Db::new(&settings).map_err(|e| e.to_string())?;
    let store = super::patient_store(&mut config.store)?;
    let metrics = Arc::new(Metrics::new().map_err(|e| e.to_string())?);
    let reader = Reader::new(db.clone(), store.clone(), metrics).patience(PATIENCE);
    let runtime =
        tokio::runtime::Runtime::new().map_err(|e| format!("can't start the runtime: {e}"))?;
    runtime.block_on(async {
        let mut work = Work {
            reader,
            aim,
            at_once,
            sum: Done::default(),
            began: Instant::now(),
            said: Instant::now(),
        };
        match from {
            From::These(users) => work.some(&users).await?,
            From::ActiveSince(since) => {
                let mut users = Active::new(db, since).await.map_err(|e| work.cut_off(&e))?;
                loop {
                    let some = users.next().await.map_err(|e| work.cut_off(&e))?;
                    if some.is_empty() {
                        break;
                    }
                    work.some(&some).await?;
                }
            }
            From::Store => {
                let mut next = Some(Walk::default());
                while let Some(at) = next {
                    let (some, behind) = store.walk(at).await.map_err(|e| work.cut_off(&e))?;
                    work.some(&some).await?;
                    next = behind;
                }
            }
        }
        let took = work.began.elapsed().as_secs_f64();
        println!("{}, in {took:.1} s", work.words());
        Ok(())
    })
}

/// What is done so far.
struct Work {
    reader: Reader,
    aim: Aim,
    at_once: usize,
    sum: Done,
    began: Instant,
    said: Instant,
}

impl Work {
    async fn some(&mut self, users: &[UserId]) -> Result<(), String> {
        let done = self.reader.ahead(users, self.aim, self.at_once).await;
        let done = done
            .map_err(|(user, fault)| self.cut_off(&format!("the feed of user {user}: {fault}")))?;
        self.sum.built += done.built;
        self.sum.left += done.left;
        if self.said.elapsed() >= SAID {
            self.said = Instant::now();
            tracing::info!("{}", self.words());
        }
        Ok(())
    }

    fn cut_off(&self, why: &dyn std::fmt::Display) -> String {
        format!(
            "{why}\nbefore that at least {}; it may be done again",
            self.words()
        )
    }

    fn words(&self) -> String {
        format!(
            "{} feeds built, {} left as they were",
            self.sum.built, self.sum.left
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stand_one_a_line() {
        assert_eq!(ids(&b"1\n\n -2 \r\n3"[..]), Ok(vec![1, -2, 3]));
        assert_eq!(
            ids(&b"1\nx"[..]),
            Err("standard input, line 2: \"x\" is no user id".to_owned())
        );
    }
}
