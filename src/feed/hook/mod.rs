//! The webhook: tells another service of posts, deletions and changes of edges, each at least once, whatever is killed. It goes through
//! the outbox by itself, behind nobody and in nobody's way; in which order an author's events arrive is not promised.
//!
//! * Told is what was answered with 2xx. 410: this event is not wanted, and never said again.
//! * Another 4xx that is about the event (not about who asks, where or how often) is the event's fault: it is said again, later each
//!   time, and after [`WorkSettings::attempts`] of them once in [`WorkSettings::revive`], so that it comes when the other side is mended.
//! * Anything else is the other side's fault: then one event after another feels whether it is back, less and less often, and all others
//!   wait. But an event that fails again after others were told is at fault itself.

mod client;
mod event;
mod rows;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::http::HeaderValue;
use futures_util::{StreamExt, stream};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};
use tokio::task::JoinSet;

use self::client::{Answer, Client, Target};
use self::rows::{Due, Row};
use super::UserId;
use super::apart::{self, Apart};
use super::db::{Db, Fault, jitter};
use super::fanout::WorkSettings;
use super::outbox::Events;
use crate::shardmap::{Secret, Section};

/// The header with the signature.
pub const SIGNATURE: &str = "presplit-signature";
/// Rows looked for at a time.
const ROWS: usize = 500;
/// The longest that a webhook that is away is left alone, and if it asks for that.
const AWAY_MOST: Duration = Duration::from_secs(5);
const ASKED_MOST: Duration = Duration::from_secs(60);
/// Events that are remembered to have failed.
const SUSPECTS: usize = 10_000;

/// `[feed.hook]`.
#[derive(Clone, Debug)]
pub struct HookConfig {
    target: Target,
    secret: Secret,
    /// What it is told of.
    pub events: Events,
    timeout: Duration,
    at_once: usize,
    ca: Option<PathBuf>,
}

impl HookConfig {
    /// `None`: there is no such section, or it has a fault.
    pub(super) fn read(mut section: Section<'_, '_>) -> Option<HookConfig> {
        let url = section.need("url", "url = \"https://search.example/hooks/feed\"");
        let target = url.and_then(|entry| {
            let url = section.string(entry)?.value;
            Target::read(&url)
                .map_err(|what| {
                    section.bad(entry, what, "write as \"https://HOST:PORT/PATH\"");
                })
                .ok()
        });
        let secret = section.need("secret", "secret = \"${FEED_HOOK_SECRET}\"");
        let secret = secret.and_then(|entry| {
            let secret = section.string(entry)?.value;
            if secret.is_empty() {
                let mend = "write a long random string that the webhook knows, too";
                section.bad(entry, "is empty, so anyone could sign", mend);
                return None;
            }
            Some(Secret::new(secret))
        });
        let mut events = Events::all(true);
        if let Some(list) = section.find("events") {
            events = Events::default();
            for entry in section.array(list, "a list of strings") {
                match section.string(entry).as_ref().map(|s| s.value.as_str()) {
                    Some("post") => events.post = true,
                    Some("delete") => events.delete = true,
                    Some("edge") => events.edge = true,
                    Some(other) => {
                        let what = format!("there are no events {other:?}");
                        section.bad(entry, what, "write \"post\", \"delete\" or \"edge\"");
                    }
                    None => {}
                }
            }
        }
        let timeout = section.duration("timeout", Duration::from_secs(5));
        let at_once = section.count("at_once", 1..=1000, 8);
        let ca = section.find("ca");
        let ca = ca.and_then(|entry| Some(PathBuf::from(section.string(entry)?.value)));
        section.finish();
        Some(HookConfig {
            target: target?,
            secret: secret?,
            events,
            timeout,
            at_once: at_once as usize,
            ca,
        })
    }

    /// For as long as an event is another process' at most, if that is killed.
    fn lease(&self) -> Duration {
        2 * self.timeout + Duration::from_secs(1)
    }
}

/// What was told, for metrics.
struct Counts {
    events: IntCounterVec,
    lag: Histogram,
}

impl Counts {
    fn new(registry: &Registry) -> Result<Counts, prometheus::Error> {
        let events = Opts::new(
            "presplit_feed_hook_events_total",
            "Events said to the webhook, by outcome: told, unwanted (410), failed (an attempt), dead (set aside for a while)",
        );
        let lag = HistogramOpts::new(
            "presplit_feed_hook_lag_seconds",
            "From a write to when the webhook had heard of it",
        );
        let counts = Counts {
            events: IntCounterVec::new(events, &["outcome"])?,
            lag: Histogram::with_opts(lag.buckets(vec![
                0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0,
            ]))?,
        };
        registry.register(Box::new(counts.events.clone()))?;
        registry.register(Box::new(counts.lag.clone()))?;
        Ok(counts)
    }
}

/// What became of an event that was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Told,
    /// Never to be said again.
    Unwanted,
    /// This one is not taken.
    Refused,
    /// Nothing is taken.
    Away,
}

impl Outcome {
    fn of(status: u16) -> Outcome {
        match status {
            200..=299 => Outcome::Told,
            410 => Outcome::Unwanted,
            // Who asks, where, how, how often: about none of the events.
            401 | 403 | 404 | 405 | 407 | 408 | 421 | 425 | 429 => Outcome::Away,
            400..=499 => Outcome::Refused,
            _ => Outcome::Away,
        }
    }
}

/// One look at what is due.
#[derive(Debug, Default)]
struct Look {
    /// Events that were told.
    told: AtomicU64,
    /// The other side is not there: the others need not be said.
    away: AtomicBool,
    /// For how long it wants to be left alone, in seconds.
    leave: AtomicU64,
    /// Rows that were taken.
    taken: AtomicU64,
    /// There are rows that can't be taken at present.
    failed: AtomicBool,
    /// A host did not answer in time: the others need not be taken now.
    late: AtomicBool,
}

struct Relay {
    db: Db,
    client: Client,
    config: HookConfig,
    work: WorkSettings,
    counts: Counts,
    /// Events that were told, ever.
    told: AtomicU64,
    suspects: Mutex<HashMap<(UserId, i64), Suspect>>,
}

/// An event that failed as if the other side were away.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    times: i32,
    /// How many were told by then.
    told: u64,
}

/// Begins to tell, as long as `tasks` are there. `db` is better not the one that answers calls.
///
/// # Errors
/// What is wrong with the certificates that are to be trusted.
pub fn start(
    config: HookConfig,
    db: Db,
    work: WorkSettings,
    registry: &Registry,
    tasks: &mut JoinSet<()>,
) -> Result<(), String> {
    let client = Client::new(&config.target, config.ca.as_deref(), config.timeout);
    let relay = Relay {
        client: client.map_err(|e| format!("[feed.hook]: {e}"))?,
        counts: Counts::new(registry).map_err(|e| e.to_string())?,
        db,
        config,
        work,
        told: AtomicU64::new(0),
        suspects: Mutex::default(),
    };
    tasks.spawn(Arc::new(relay).run());
    Ok(())
}

impl Relay {
    async fn run(self: Arc<Self>) {
        // Looks behind one another for which nobody was there.
        let mut away = 0u32;
        let mut apart = Apart::default();
        loop {
            let look = Look::default();
            let more = self.look(&look, away > 0, &mut apart).await;
            let more = more.unwrap_or_else(|fault| {
                tracing::warn!("can't look for events that the webhook is to hear of: {fault}");
                false
            });
            if look.away.into_inner() {
                away = away.saturating_add(1);
                let doubled = self.work.back_off.saturating_mul(1 << away.min(10));
                let asked = Duration::from_secs(look.leave.into_inner());
                let pause = doubled.min(AWAY_MOST).max(asked.min(ASKED_MOST));
                tokio::time::sleep(jitter(pause)).await;
                continue;
            }
            if look.told.into_inner() > 0 {
                away = 0;
            }
            // What can't be taken may be in front of what can.
            let (failed, late) = (look.failed.into_inner(), look.late.into_inner());
            if !apart.is_on() && (late || failed && more) {
                apart.begin();
                continue;
            }
            // If all that was found is others' by now, looking at once again would only spin.
            if !more || look.taken.into_inner() == 0 {
                tokio::time::sleep(jitter(self.work.sweep)).await;
            }
        }
    }

    /// `true`: there is more. `cautious`: the first one alone shows whether the others are to be said.
    async fn look(&self, look: &Look, cautious: bool, apart: &mut Apart) -> Result<bool, Fault> {
        let (found, more) = apart.due(&self.db, rows::DUE, ROWS).await?;
        let mut due = rows::read_due(&found)?.into_iter();
        while cautious && look.told.load(Ordering::Relaxed) == 0 {
            let Some(first) = due.next() else {
                return Ok(false);
            };
            self.tell(first, look).await;
        }
        stream::iter(due)
            .for_each_concurrent(self.config.at_once, |due| self.tell(due, look))
            .await;
        Ok(more)
    }

    /// One row, whatever becomes of it.
    async fn tell(&self, due: Due, look: &Look) {
        if look.away.load(Ordering::Relaxed) || look.late.load(Ordering::Relaxed) {
            return;
        }
        if let Err(fault) = self.try_tell(due, look).await {
            // Then its lease has to run out.
            tracing::debug!("outbox row {} of {}: {fault}", due.id, due.user);
        }
    }

    async fn try_tell(&self, due: Due, look: &Look) -> Result<(), Fault> {
        let taken_at = Instant::now();
        let claimed = rows::claim(&self.db, due, self.config.lease()).await;
        let Some(row) = claimed.inspect_err(|_| {
            look.failed.store(true, Ordering::Relaxed);
            let late = taken_at.elapsed() >= apart::WITHIN;
            look.late.fetch_or(late, Ordering::Relaxed);
        })?
        else {
            return Ok(());
        };
        look.taken.fetch_add(1, Ordering::Relaxed);
        let said = rows::of_object(&self.db, &row).await?;
        if taken_at.elapsed() + self.config.timeout >= self.config.lease() {
            return Ok(());
        }
        let answer = self.say(&row, said).await;
        let (outcome, why) = match &answer {
            Ok(answer) => (
                Outcome::of(answer.status),
                format!("it said {}", answer.status),
            ),
            Err(why) => (Outcome::Away, why.clone()),
        };
        let (outcome, times) = match outcome {
            Outcome::Away => self.suspect(&row),
            outcome => (outcome, row.tries),
        };
        let count = |outcome: &str| self.counts.events.with_label_values(&[outcome]).inc();
        match outcome {
            Outcome::Told => {
                look.told.fetch_add(1, Ordering::Relaxed);
                self.told.fetch_add(1, Ordering::Relaxed);
                self.suspects().remove(&(row.user, row.id));
                count("told");
                self.counts
                    .lag
                    .observe((row.age + taken_at.elapsed()).as_secs_f64());
                return rows::told(&self.db, &row).await;
            }
            Outcome::Unwanted => {
                count("unwanted");
                tracing::info!("the webhook does not want event {} of {}", row.id, row.user);
                return rows::told(&self.db, &row).await;
            }
            Outcome::Refused | Outcome::Away => count("failed"),
        }
        if outcome == Outcome::Away {
            look.away.store(true, Ordering::Relaxed);
            let leave = answer.ok().and_then(|a| a.retry_after).unwrap_or_default();
            look.leave.fetch_max(leave.as_secs(), Ordering::Relaxed);
        }
        let to_blame = outcome == Outcome::Refused;
        let dead = to_blame && row.tries + 1 >= self.work.attempts;
        let pause = if dead {
            self.work.revive
        } else {
            self.work.pause(times)
        };
        let pause = jitter(pause);
        let (id, user, kind) = (row.id, row.user, row.kind.name());
        if dead {
            count("dead");
            tracing::error!(
                "webhook: event {id} of {user} ({kind}) is set aside: {why}; again in {pause:?}"
            );
        } else {
            tracing::warn!("webhook: event {id} of {user} ({kind}): {why}; again in {pause:?}");
        }
        rows::again(&self.db, &row, &why, to_blame, pause).await
    }

    /// Whether the other side is away, or only this event can't be told; and how often the event has failed.
    fn suspect(&self, row: &Row) -> (Outcome, i32) {
        let told = self.told.load(Ordering::Relaxed);
        let mut suspects = self.suspects();
        if suspects.len() >= SUSPECTS {
            suspects.clear();
        }
        let before = suspects.get(&(row.user, row.id)).copied();
        let times = before.map_or(row.tries, |b| b.times.saturating_add(1));
        suspects.insert((row.user, row.id), Suspect { times, told });
        match before {
            Some(before) if told > before.told => (Outcome::Refused, times),
            _ => (Outcome::Away, times),
        }
    }

    fn suspects(&self) -> MutexGuard<'_, HashMap<(UserId, i64), Suspect>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn say(&self, row: &Row, said: Option<String>) -> Result<Answer, String> {
        let body = event::body(row, said);
        let signature = event::signature(&self.config.secret, SystemTime::now(), &body);
        let signature = signature.and_then(|s| HeaderValue::from_str(&s).ok());
        let signature = signature.ok_or("it can't be signed")?;
        let headers = [
            (SIGNATURE, signature),
            ("presplit-event", HeaderValue::from_static(row.kind.name())),
        ];
        self.client.post(&headers, &body).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_fault_it_is_is_in_the_status() {
        let of = |statuses: &[u16]| statuses.iter().map(|s| Outcome::of(*s)).collect::<Vec<_>>();
        assert_eq!(of(&[200, 201, 204]), [Outcome::Told; 3]);
        assert_eq!(of(&[410]), [Outcome::Unwanted]);
        assert_eq!(of(&[400, 409, 413, 422]), [Outcome::Refused; 4]);
        assert_eq!(of(&[301, 401, 403, 404, 429, 500, 503]), [Outcome::Away; 7]);
    }
}
