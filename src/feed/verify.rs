//! Whether a feed, as the store has it, is what Postgres says it must be: asked by hand (`presplit feed verify`, `/v1/verify`), and by
//! every worker all the time, a feed at random every few seconds.
//!
//! What is under way is no difference: a post or an edge whose outbox row is still there, a star's post. Nor is what a feed holds beyond
//! what it must, as long as a row explains it: it is a candidate only, and readers drop what they may not show. So that nothing is
//! taken for a difference that was only fast, Postgres is asked first what must be there, then the store, then Postgres again for the
//! rest.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounterVec, Opts};
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use super::db::{Db, Fault, column, jitter, value};
use super::newest::Placing;
use super::page::horizon;
use super::stars::Star;
use super::store::{Dump, Store, StoreFault, Walk};
use super::{FEED_MOST, MediaId, UserId};

/// A worker looks at one feed as often as this, about.
pub const EVERY: Duration = Duration::from_secs(5);
/// Steps of the walk at most until a feed is found: where the store holds much else.
const STEPS: usize = 20;
/// Ids of a difference that are said.
const SAID: usize = 20;

/// What became of a look at one feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is none, or it is being built.
    Absent,
    /// It is as it must be.
    Equal,
    /// It is not.
    Differs(Difference),
}

impl Verdict {
    /// As metrics and answers say it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Absent => "absent",
            Verdict::Equal => "equal",
            Verdict::Differs(_) => "differs",
        }
    }
}

/// What is wrong with a feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Must be in it and are not, newest first.
    pub missing: Vec<MediaId>,
    /// Are in it, and no row says why.
    pub surplus: Vec<MediaId>,
    /// Stand where they must not: twice, or in front of a newer one.
    pub misplaced: Vec<MediaId>,
    /// It is longer than a feed may be.
    pub too_long: bool,
}

impl Difference {
    fn is_none(&self) -> bool {
        *self == Difference::default()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (what, ids) in [
            ("missing", &self.missing),
            ("surplus", &self.surplus),
            ("out of order", &self.misplaced),
        ] {
            if ids.is_empty() {
                continue;
            }
            let sign = if first { "" } else { "; " };
            write!(f, "{sign}{} {what}:", ids.len())?;
            for id in ids.iter().take(SAID) {
                write!(f, " {id}")?;
            }
            if ids.len() > SAID {
                f.write_str(" ...")?;
            }
            first = false;
        }
        if self.too_long {
            let sign = if first { "" } else { "; " };
            write!(f, "{sign}more than {FEED_MOST} ids")?;
        }
        Ok(())
    }
}

/// It could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Unseen {
    /// Postgres could not say.
    #[error(transparent)]
    Db(#[from] Fault),
    /// The store could not say.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// Looks at feeds.
#[derive(Clone, Debug)]
pub struct Verifier {
    db: Db,
    store: Arc<dyn Store>,
    placing: Arc<Placing>,
}

/// A media that a feed is made of.
struct Made {
    id: MediaId,
    author: UserId,
    /// Its outbox row is still there.
    under_way: bool,
}

impl Verifier {
    /// Over these.
    #[must_use]
    pub fn new(db: Db, store: Arc<dyn Store>) -> Verifier {
        Verifier {
            db,
            store,
            placing: Arc::default(),
        }
    }

    /// Looks at one feed.
    ///
    /// # Errors
    /// Postgres or the store can't be asked.
    pub async fn look(&self, user: UserId) -> Result<Verdict, Unseen> {
        // The order matters, see above.
        let made = self.made_of(user).await?;
        let Some(feed) = self.store.dump(user).await?.filter(|feed| feed.complete) else {
            return Ok(Verdict::Absent);
        };
        let held: HashSet<MediaId> = feed.ids.iter().copied().collect();
        let lacks = |m: &&Made| !m.under_way && m.id > feed.trimmed && !held.contains(&m.id);
        let lacking: Vec<&Made> = made.iter().filter(lacks).collect();
        let stars = self.stars_of(&lacking, user).await?;
        let pulled = |m: &Made| {
            stars
                .get(&m.author)
                .is_some_and(|s| s.may_pull(m.id..m.id.saturating_add(1)))
        };
        let known: HashSet<MediaId> = made.iter().map(|m| m.id).collect();
        // What is older than any feed shows may have no rows any more.
        let oldest = horizon();
        let others = feed.ids.iter().copied();
        let others = others.filter(|id| !known.contains(id) && *id >= oldest);
        let difference = Difference {
            missing: lacking
                .iter()
                .filter(|m| !pulled(m))
                .map(|m| m.id)
                .collect(),
            surplus: self.unexplained(user, others.collect()).await?,
            misplaced: misplaced(&feed),
            too_long: feed.ids.len() > FEED_MOST,
        };
        Ok(match difference.is_none() {
            true => Verdict::Equal,
            false => Verdict::Differs(difference),
        })
    }

    /// Whose feeds the store has, in order.
    ///
    /// # Errors
    /// The store can't be asked.
    pub async fn all(&self) -> Result<Vec<UserId>, StoreFault> {
        let mut users = Vec::new();
        let mut at = Some(Walk::default());
        while let Some(from) = at {
            let (some, next) = self.store.walk(from).await?;
            users.extend(some);
            at = next;
        }
        users.sort_unstable();
        users.dedup();
        Ok(users)
    }

    /// At most so many of [`Verifier::all`], at random.
    ///
    /// # Errors
    /// The store can't be asked.
    pub async fn sample(&self, most: usize) -> Result<Vec<UserId>, StoreFault> {
        let mut users = self.all().await?;
        let (some, _) = users.partial_shuffle(&mut rand::rng(), most);
        Ok(some.to_vec())
    }

    /// Rows of the outbox that are still to be worked off, and those that are set aside.
    ///
    /// # Errors
    /// Postgres can't be asked.
    pub async fn under_way(&self) -> Result<(i64, i64), Fault> {
        const SQL: &str = "SELECT count(*), count(dead_at) FROM outbox WHERE due_at < 'infinity'";
        match self.db.ask_one(SQL, &[]).await? {
            Some(row) => Ok((value(&row, 0)?, value(&row, 1)?)),
            None => Ok((0, 0)),
        }
    }

    /// What a feed that is built now would be made of, newest first.
    async fn made_of(&self, user: UserId) -> Result<Vec<Made>, Fault> {
        // An edge that is not settled yet will drop the feed.
        const FOLLOWEES: &str = "SELECT f.target FROM follow_out f \
             LEFT JOIN outbox o ON o.user_id = f.user_id AND o.kind = 'edge' AND o.object = f.target AND o.due_at < 'infinity' \
             WHERE f.user_id = $1 AND f.status = 'following' AND o.id IS NULL";
        const MADE: &str = "SELECT m.id, m.user_id, o.id IS NOT NULL FROM media m \
             LEFT JOIN outbox o ON o.user_id = m.user_id AND o.kind = 'post' AND o.object = m.id AND o.due_at < 'infinity' \
             WHERE m.user_id = ANY ($1::bigint[]) AND m.id >= $2 AND m.deleted_at IS NULL \
             ORDER BY m.id DESC LIMIT $3";
        let mut authors = self.users(FOLLOWEES, &[&user]).await?;
        authors.push(user);
        let most = i64::try_from(FEED_MOST).unwrap_or(i64::MAX);
        let mut made = Vec::new();
        // One shard after the other: nobody waits for it.
        for authors in self.placing.groups(&self.db, &authors).await? {
            let rows = self.db.ask(MADE, &[&authors, &horizon(), &most]).await?;
            for row in &rows {
                made.push(Made {
                    id: value(row, 0)?,
                    author: value(row, 1)?,
                    under_way: value(row, 2)?,
                });
            }
        }
        made.sort_unstable_by_key(|m| std::cmp::Reverse(m.id));
        made.truncate(FEED_MOST);
        Ok(made)
    }

    /// Of the authors of what is lacking, those whose media may be pulled. Nobody pulls its own.
    async fn stars_of(
        &self,
        lacking: &[&Made],
        user: UserId,
    ) -> Result<HashMap<UserId, Star>, Fault> {
        const SQL: &str =
            "SELECT author, pull_from, pull_to FROM stars WHERE author = ANY ($1::bigint[])";
        let authors: HashSet<UserId> = lacking.iter().map(|m| m.author).collect();
        let authors: Vec<UserId> = authors.into_iter().filter(|a| *a != user).collect();
        if authors.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = self.db.ask(SQL, &[&authors]).await?;
        let star = |row| {
            let (pull_from, pull_to) = (value(row, 1)?, value(row, 2)?);
            Ok((value(row, 0)?, Star { pull_from, pull_to }))
        };
        rows.iter().map(star).collect()
    }

    /// Those of these ids of a feed that are no media (deleted ones are), or of whom its user has never had to do with.
    async fn unexplained(&self, user: UserId, ids: Vec<MediaId>) -> Result<Vec<MediaId>, Fault> {
        const MEDIA: &str = "SELECT id, user_id FROM media WHERE id = ANY ($1::bigint[])";
        const EDGES: &str =
            "SELECT target FROM follow_out WHERE user_id = $1 AND target = ANY ($2::bigint[])";
        if ids.is_empty() {
            return Ok(ids);
        }
        let rows = self.db.ask(MEDIA, &[&ids]).await?;
        let authors = rows
            .iter()
            .map(|row| Ok((value(row, 0)?, value(row, 1)?)))
            .collect::<Result<HashMap<MediaId, UserId>, Fault>>()?;
        let mut asked: Vec<UserId> = authors.values().copied().collect();
        asked.sort_unstable();
        asked.dedup();
        let mut fine: HashSet<UserId> = HashSet::from([user]);
        fine.extend(self.users(EDGES, &[&user, &asked]).await?);
        let is_fine = |id: &MediaId| authors.get(id).is_some_and(|author| fine.contains(author));
        Ok(ids.into_iter().filter(|id| !is_fine(id)).collect())
    }

    async fn users(&self, sql: &str, values: super::db::Values<'_>) -> Result<Vec<UserId>, Fault> {
        column(&self.db.ask(sql, values).await?)
    }
}

/// Ids that don't stand below the one in front of them.
fn misplaced(feed: &Dump) -> Vec<MediaId> {
    let pairs = feed.ids.windows(2).filter(|pair| pair[0] <= pair[1]);
    pairs.map(|pair| pair[1]).collect()
}

/// Looks at one feed after the other for as long as the process lives.
#[derive(Debug)]
pub struct Sampler {
    verifier: Verifier,
    seen: IntCounterVec,
    at: Walk,
}

impl Sampler {
    /// Has looked at none.
    ///
    /// # Errors
    /// Never with this name; Prometheus checks it at run time.
    pub fn new(verifier: Verifier) -> Result<Sampler, prometheus::Error> {
        let opts = Opts::new(
            "presplit_feed_verified_total",
            "Feeds looked at by workers of this process, at random, by outcome: equal (as Postgres says), differs, absent (meanwhile)",
        );
        let seen = IntCounterVec::new(opts, &["outcome"])?;
        for outcome in ["equal", "differs", "absent"] {
            seen.with_label_values(&[outcome]);
        }
        Ok(Sampler {
            verifier,
            seen,
            at: Walk::default(),
        })
    }

    /// What it has seen.
    #[must_use]
    pub fn seen(&self) -> IntCounterVec {
        self.seen.clone()
    }

    /// Until the task ends.
    pub async fn run(mut self, every: Duration) {
        loop {
            tokio::time::sleep(jitter(every)).await;
            if let Err(fault) = self.sample().await {
                tracing::debug!("no feed could be verified: {fault}");
            }
        }
    }

    async fn sample(&mut self) -> Result<(), Unseen> {
        for _ in 0..STEPS {
            let (users, next) = self.verifier.store.walk(self.at).await?;
            self.at = next.unwrap_or_default();
            let Some(user) = users.choose(&mut rand::rng()).copied() else {
                continue;
            };
            let verdict = self.verifier.look(user).await?;
            self.seen.with_label_values(&[verdict.name()]).inc();
            if let Verdict::Differs(difference) = verdict {
                tracing::error!(
                    "feed {user} is not what it should be: {difference}. It is dropped, and built anew when it is next read"
                );
                self.verifier.store.drop_feeds(&[user]).await?;
            }
            break;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_says_what_and_how_many() {
        let difference = Difference {
            missing: (0..25).collect(),
            misplaced: vec![7],
            too_long: true,
            ..Difference::default()
        };
        assert_eq!(
            difference.to_string(),
            "25 missing: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 ...; 1 out of order: 7; more than 800 ids"
        );
        assert_eq!(Difference::default().to_string(), "");
    }

    #[test]
    fn an_id_that_comes_twice_or_late_is_misplaced() {
        let feed = |ids: &[MediaId]| Dump {
            complete: true,
            ids: ids.to_vec(),
            trimmed: MediaId::MIN,
        };
        assert_eq!(misplaced(&feed(&[9, 9, 5, 7, 3])), [9, 7]);
        assert!(misplaced(&feed(&[9, 5])).is_empty());
        assert!(misplaced(&feed(&[])).is_empty());
    }
}
