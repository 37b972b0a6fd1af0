//! `presplit feed warm` and `presplit feed rebuild`: feeds in Redis built before anyone asks for them, or anew.

use std::io::BufRead;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use presplit::feed::UserId;
use presplit::feed::ahead::{Aim, Done, Users, Whose};
use presplit::feed::config::StoreConfig;
use presplit::feed::db::{Db, DbSettings};
use presplit::feed::metrics::Metrics;
use presplit::feed::read::Reader;
use presplit::feed::store::RedisStore;

/// How long a call of the store may take: nobody waits for the page.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is said how far it is.
const SAID: Duration = Duration::from_secs(10);

#[derive(Args)]
struct Place {
    /// Where the feed's tables are, as a rule the proxy. Without it: the environment's DATABASE_URL, else the proxy's usual place.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// The file whose [feed.redis] says where feeds are. Without it: shardmap.toml.
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// Feeds built side by side.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    at_once: u16,
}

#[derive(Args)]
pub(super) struct Warm {
    #[command(flatten)]
    place: Place,
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
    place: Place,
    /// The feed of this user; may be given several times.
    #[arg(long, value_name = "ID", allow_negative_numbers = true)]
    user: Vec<UserId>,
    /// All feeds that are there. One that is not is built when it is next read.
    #[arg(long, conflicts_with = "user", required_unless_present = "user")]
    all: bool,
}

/// Builds feeds that are not there yet.
pub(super) fn warm(args: &Warm) -> Result<(), String> {
    let days = Duration::from_secs(u64::from(args.days) * 24 * 3600);
    let since = SystemTime::now() - days;
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = u64::try_from(since.as_millis()).unwrap_or(0);
    let from = match args.stdin {
        true => From::These(ids(std::io::stdin().lock())?),
        false => From::Postgres(Whose::ActiveSince(since)),
    };
    run(&args.place, from, Aim::Warm)
}

/// Drops feeds and builds them.
pub(super) fn rebuild(args: &Rebuild) -> Result<(), String> {
    match args.all {
        true => run(&args.place, From::Postgres(Whose::All), Aim::AnewIfThere),
        false => run(&args.place, From::These(args.user.clone()), Aim::Anew),
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

/// Where users are told of.
enum From {
    These(Vec<UserId>),
    Postgres(Whose),
}

fn run(place: &Place, from: From, aim: Aim) -> Result<(), String> {
    super::log_to_stderr();
    let at_once = usize::from(place.at_once);
    let StoreConfig::Redis(redis) = super::feed::config(place.map.as_deref())?.store else {
        return Err("the map has no [feed.redis]: feeds are in the memory of the process that serves them, which alone can build them, and does when they are read".to_owned());
    };
    let mut settings = DbSettings {
        connections: at_once + 1,
        ..DbSettings::default()
    };
    let url = place.database_url.clone();
    if let Some(url) = url.or_else(|| std::env::var("DATABASE_URL").ok()) {
        settings.url = url;
    }
    let db = Db::new(&settings).map_err(|e| e.to_string())?;
    let store = Arc::new(RedisStore::new(&redis).map_err(|e| e.to_string())?);
    let metrics = Arc::new(Metrics::new().map_err(|e| e.to_string())?);
    let reader = Reader::new(db.clone(), store, metrics).patience(PATIENCE);
    let runtime =
        tokio::runtime::Runtime::new().map_err(|e| format!("can't start the runtime: {e}"))?;
    runtime.block_on(async {
        let (mut sum, began, mut said) = (Done::default(), Instant::now(), Instant::now());
        let mut users = match from {
            From::These(users) => {
                sum = some(&reader, &users, aim, at_once, sum).await?;
                None
            }
            From::Postgres(whose) => {
                Some(Users::new(db, whose).await.map_err(|e| cut_off(&e, sum))?)
            }
        };
        while let Some(users) = &mut users {
            let these = users.next().await.map_err(|e| cut_off(&e, sum))?;
            if these.is_empty() {
                break;
            }
            sum = some(&reader, &these, aim, at_once, sum).await?;
            if said.elapsed() >= SAID {
                said = Instant::now();
                tracing::info!("{}", words(sum));
            }
        }
        let took = began.elapsed().as_secs_f64();
        println!("{}, in {took:.1} s", words(sum));
        Ok(())
    })
}

async fn some(
    reader: &Reader,
    users: &[UserId],
    aim: Aim,
    at_once: usize,
    sum: Done,
) -> Result<Done, String> {
    let done = reader.ahead(users, aim, at_once).await;
    let done =
        done.map_err(|(user, fault)| cut_off(&format!("the feed of user {user}: {fault}"), sum))?;
    Ok(Done {
        built: sum.built + done.built,
        left: sum.left + done.left,
    })
}

fn cut_off(why: &dyn std::fmt::Display, sum: Done) -> String {
    format!(
        "{why}\nbefore that at least {}; it may be done again",
        words(sum)
    )
}

fn words(sum: Done) -> String {
    format!("{} feeds built, {} left as they were", sum.built, sum.left)
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
