//! Stars: authors with so many followers that their posts are pulled when a feed is read instead of being pushed to each of them.
//!
//! A star is a row (`pull_from`, `pull_to`): its media with `pull_from <= id < pull_to` are pulled. What must hold is that a media is
//! pushed or pulled, or both (readers drop what comes twice), never neither:
//!
//! * A boundary is an id some seconds ahead ([`AHEAD`]) of the clock when it is set, so that every process knows it before the first id
//!   behind it is made. Clocks of hosts and of this machine may differ by less than that.
//! * A worker leaves a media to the readers only if it has known the row for a while ([`KNOWN`]), so whoever reads now knows it, too,
//!   even if the row's commit took long.
//! * A commit that took long may have let workers pass over media behind `pull_to`. So readers pull a little more than the row says:
//!   [`SLACK_MS`] on both sides, what comes twice being dropped.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::clock::now_ms;
use super::db::{Db, Fault, value};
use super::{FEED_AGE_MS, MediaId, UserId};
use crate::shardmap::{ShardId, id};

/// How far ahead a boundary is set.
pub const AHEAD: Duration = Duration::from_secs(5);
/// How old what a process knows of the table may be.
pub const CACHED: Duration = Duration::from_secs(1);
/// How long a worker must have known a row before it leaves media to the readers.
const KNOWN: Duration = Duration::from_secs(2);
/// By how much readers pull more than the row says, on both sides, in milliseconds of the ids' time.
pub const SLACK_MS: u64 = 60_000;
/// Followers counted by one statement.
const COUNTED: usize = 200;

/// Who becomes a star.
#[derive(Clone, Copy, Debug)]
pub struct StarSettings {
    /// From so many followers on posts are pulled.
    pub threshold: u64,
    /// Under backlog the threshold is halved again and again, but not below this.
    pub lowest: u64,
    /// The threshold is halved when the oldest row has been due for so long, and once more with each doubling of it.
    pub backlog: Duration,
}

impl Default for StarSettings {
    fn default() -> StarSettings {
        StarSettings {
            threshold: 100_000,
            lowest: 10_000,
            backlog: Duration::from_secs(30),
        }
    }
}

/// The first id that can be made at this time.
#[must_use]
pub fn first_id(unix_ms: u64) -> MediaId {
    let unix_ms = unix_ms.max(id::EPOCH_MS);
    id::make(id::Parts {
        unix_ms,
        shard: ShardId(0),
        sequence: 0,
    })
    .unwrap_or(MediaId::MAX)
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Star {
    /// Media from here on are pulled.
    pub pull_from: MediaId,
    /// Media from here on are pushed again.
    pub pull_to: Option<MediaId>,
}

impl Star {
    /// Readers may have to pull some of these media. A worker may have gone by a boundary that was written late, so both reach further
    /// than the row says.
    pub(super) fn may_pull(&self, media: Range<MediaId>) -> bool {
        let slack = (SLACK_MS as i64) << (id::SHARD_BITS + id::SEQUENCE_BITS);
        let to = |to: MediaId| media.start < to.saturating_add(slack);
        self.pull_from.saturating_sub(slack) < media.end && self.pull_to.is_none_or(to)
    }

    fn pulls(&self, media: MediaId) -> bool {
        self.pull_from <= media && self.pull_to.is_none_or(|to| media < to)
    }
}

/// The table as it was a moment ago.
#[derive(Debug)]
struct Table {
    /// Each with when this process first saw it so.
    stars: HashMap<UserId, (Star, Instant)>,
    /// Nothing that was committed before this is missing.
    read_at: Instant,
}

/// The table of stars as workers use it.
#[derive(Debug)]
pub struct Stars {
    db: Db,
    settings: StarSettings,
    table: Mutex<Option<Arc<Table>>>,
    /// How long the oldest row has been due, in milliseconds.
    backlog: AtomicU64,
}

impl Stars {
    /// Reads nothing yet.
    #[must_use]
    pub fn new(db: Db, settings: StarSettings) -> Stars {
        Stars {
            db,
            settings,
            table: Mutex::new(None),
            backlog: AtomicU64::new(0),
        }
    }

    /// The table, at most [`CACHED`] old. Who comes while it is read waits for that reading.
    async fn table(&self) -> Result<Arc<Table>, Fault> {
        let mut known = self.table.lock().await;
        if let Some(table) = known.as_ref().filter(|t| t.read_at.elapsed() < CACHED) {
            return Ok(table.clone());
        }
        let read_at = Instant::now();
        let mut stars = HashMap::new();
        for row in self
            .db
            .ask("SELECT author, pull_from, pull_to FROM stars", &[])
            .await?
        {
            let star = Star {
                pull_from: value(&row, 1)?,
                pull_to: value(&row, 2)?,
            };
            let author = value(&row, 0)?;
            let before = known
                .as_ref()
                .and_then(|t| t.stars.get(&author))
                .filter(|(s, _)| *s == star);
            stars.insert(author, (star, before.map_or(read_at, |(_, since)| *since)));
        }
        let table = Arc::new(Table { stars, read_at });
        *known = Some(table.clone());
        Ok(table)
    }

    /// A worker need not push this media: all readers pull it.
    ///
    /// # Errors
    /// Any [`Fault`] of reading the table.
    pub async fn pulled(&self, author: UserId, media: MediaId) -> Result<bool, Fault> {
        let table = self.table().await?;
        Ok(table
            .stars
            .get(&author)
            .is_some_and(|(star, since)| star.pulls(media) && since.elapsed() >= KNOWN))
    }

    /// How long the oldest row has been due.
    pub fn set_backlog(&self, oldest: Duration) {
        self.backlog.store(
            u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    /// How long the oldest row had been due when it was last looked for.
    #[must_use]
    pub fn backlog(&self) -> Duration {
        Duration::from_millis(self.backlog.load(Ordering::Relaxed))
    }

    /// From how many followers on an author is a star at present.
    #[must_use]
    pub fn threshold(&self) -> u64 {
        let settings = &self.settings;
        let unit = u64::try_from(settings.backlog.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let times = self.backlog.load(Ordering::Relaxed) / unit;
        let halvings = u64::BITS - times.leading_zeros();
        let lowered = settings.threshold.checked_shr(halvings).unwrap_or(0);
        lowered.max(settings.lowest.min(settings.threshold))
    }

    /// Makes the author a star from a few seconds on if there are followers enough. `true`: it is one.
    ///
    /// # Errors
    /// Any [`Fault`].
    pub async fn consider(&self, author: UserId) -> Result<bool, Fault> {
        if self
            .table()
            .await?
            .stars
            .get(&author)
            .is_some_and(|(s, _)| s.pull_to.is_none())
        {
            return Ok(true);
        }
        let followers = self
            .followers(&[author])
            .await?
            .get(&author)
            .copied()
            .unwrap_or(0);
        if followers < self.threshold() {
            return Ok(false);
        }
        // One that was a star before keeps where that began: what was pushed in between is pulled, too, and dropped as coming twice.
        const SQL: &str = "INSERT INTO stars (author, pull_from, pull_to) VALUES ($1, $2, NULL) \
             ON CONFLICT (author) DO UPDATE SET pull_to = NULL WHERE stars.pull_to IS NOT NULL";
        let from = first_id(now_ms() + AHEAD.as_millis() as u64);
        self.db.ask(SQL, &[&author, &from]).await?;
        tracing::info!(
            "author {author} has {followers} followers: posts are pulled from id {from} on"
        );
        Ok(true)
    }

    /// Lets those whose followers are by far not enough any more be pushed again, a few seconds from now, and forgets those of whom no
    /// media can be in a feed any more. How many were let go.
    ///
    /// # Errors
    /// Any [`Fault`].
    pub async fn review(&self) -> Result<usize, Fault> {
        const BACK: &str = "UPDATE stars SET pull_to = $2 WHERE author = $1 AND pull_to IS NULL";
        const FORGET: &str = "DELETE FROM stars WHERE pull_to < $1";
        let table = self.table().await?;
        let stars: Vec<UserId> = table
            .stars
            .iter()
            .filter(|(_, (s, _))| s.pull_to.is_none())
            .map(|(a, _)| *a)
            .collect();
        // Not at the same number as the way in, so that no author goes to and fro.
        let enough = self.threshold() / 5 * 4;
        let mut back = 0;
        for some in stars.chunks(COUNTED) {
            let followers = self.followers(some).await?;
            for author in some
                .iter()
                .filter(|a| followers.get(a).copied().unwrap_or(0) < enough)
            {
                let to = first_id(now_ms() + AHEAD.as_millis() as u64);
                self.db.ask(BACK, &[author, &to]).await?;
                tracing::info!("author {author}: posts are pushed again from id {to} on");
                back += 1;
            }
        }
        let old = first_id(now_ms().saturating_sub(FEED_AGE_MS + SLACK_MS));
        if table
            .stars
            .values()
            .any(|(s, _)| s.pull_to.is_some_and(|to| to < old))
        {
            self.db.ask(FORGET, &[&old]).await?;
        }
        Ok(back)
    }

    async fn followers(&self, authors: &[UserId]) -> Result<HashMap<UserId, u64>, Fault> {
        const SQL: &str = "SELECT user_id, sum(value)::bigint FROM counters \
             WHERE user_id = ANY ($1::bigint[]) AND name = 'followers' GROUP BY user_id";
        let rows = self.db.ask(SQL, &[&authors]).await?;
        rows.iter()
            .map(|row| {
                Ok((
                    value(row, 0)?,
                    u64::try_from(value::<i64>(row, 1)?).unwrap_or(0),
                ))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::db::DbSettings;

    #[tokio::test]
    async fn the_threshold_drops_with_the_age_of_the_oldest_row_and_comes_back() {
        let db = Db::new(&DbSettings::default()).unwrap();
        let stars = Stars::new(db, StarSettings::default());
        let at = |s: u64| {
            stars.set_backlog(Duration::from_secs(s));
            stars.threshold()
        };
        assert_eq!(
            [0, 29, 30, 59, 60, 119, 120, 240].map(at),
            [
                100_000, 100_000, 50_000, 50_000, 25_000, 25_000, 12_500, 10_000
            ]
        );
        assert_eq!(at(u64::MAX / 1000), 10_000);
        assert_eq!(at(0), 100_000);
    }

    #[test]
    fn a_boundary_is_below_all_ids_of_its_millisecond_and_above_all_before() {
        let ms = 1_767_323_045_678;
        let of = |unix_ms, shard, sequence| {
            id::make(id::Parts {
                unix_ms,
                shard: ShardId(shard),
                sequence,
            })
            .unwrap()
        };
        assert!(of(ms - 1, 8191, 1023) < first_id(ms) && first_id(ms) <= of(ms, 0, 0));
        let star = Star {
            pull_from: first_id(ms),
            pull_to: Some(first_id(ms + 1)),
        };
        assert!(
            star.pulls(of(ms, 8191, 1023))
                && !star.pulls(of(ms + 1, 0, 0))
                && !star.pulls(of(ms - 1, 0, 0))
        );
    }
}
