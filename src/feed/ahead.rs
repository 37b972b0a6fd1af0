//! Feeds built ahead of their reading, or dropped and built anew: of users that are named, of those who were active lately.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};

use super::UserId;
use super::db::{Db, Fault, column, jitter};
use super::read::{ReadFault, Reader, StoreState};
use super::stars::first_id;
use super::store::Span;

/// Users of a shard that are asked for at a time.
const USERS: usize = 1000;

/// So often a feed is tried again, the first time after this pause, which is doubled each time.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(100);

/// What to do with a user's feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Build it if it is not there.
    Warm,
    /// Drop it, then build it.
    Anew,
    /// The same if it is there; otherwise its next reader builds it.
    AnewIfThere,
}

/// How many feeds were dealt with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Built.
    pub built: u64,
    /// Left as they were.
    pub left: u64,
}

/// It can't go on. What was done stays done, and all may be done again.
#[derive(Debug, thiserror::Error)]
pub enum AheadFault {
    /// Postgres could not say.
    #[error("Postgres: {0}")]
    Db(#[from] Fault),
    /// The store could not be asked.
    #[error("the store: {0}")]
    Store(String),
}

impl AheadFault {
    fn may_pass(&self) -> bool {
        match self {
            AheadFault::Db(fault) => fault.is_unavailable(),
            AheadFault::Store(_) => true,
        }
    }
}

impl From<ReadFault> for AheadFault {
    fn from(fault: ReadFault) -> AheadFault {
        match fault {
            ReadFault::Db(fault) => AheadFault::Db(fault),
            fault => AheadFault::Store(fault.to_string()),
        }
    }
}

impl Reader {
    /// Does it for these users, so many side by side; ends with the first fault.
    ///
    /// # Errors
    /// Which user's feed could not be built, and why.
    pub async fn ahead(
        &self,
        users: &[UserId],
        aim: Aim,
        side_by_side: usize,
    ) -> Result<Done, (UserId, AheadFault)> {
        let built = stream::iter(users).map(|user| async move {
            let mut pause = PAUSE;
            loop {
                match self.ahead_of(*user, aim).await {
                    // A busy store is late now and then.
                    Err(fault) if fault.may_pass() && pause < PAUSE * (1 << TRIES) => {
                        tokio::time::sleep(jitter(pause)).await;
                        pause *= 2;
                    }
                    built => return built.map_err(|fault| (*user, fault)),
                }
            }
        });
        let mut built = std::pin::pin!(built.buffer_unordered(side_by_side.max(1)));
        let mut done = Done::default();
        while let Some(built) = built.next().await {
            match built? {
                true => done.built += 1,
                false => done.left += 1,
            }
        }
        Ok(done)
    }

    /// `true`: it was built.
    async fn ahead_of(&self, user: UserId, aim: Aim) -> Result<bool, AheadFault> {
        let store = |fault: super::store::StoreFault| AheadFault::Store(fault.to_string());
        if aim != Aim::Anew {
            let there = self.store.read(user, Span::Newest, 1).await;
            let there = there.map_err(store)?.is_some();
            if there == (aim == Aim::Warm) {
                return Ok(false);
            }
        }
        if aim != Aim::Warm {
            self.store.drop_feeds(&[user]).await.map_err(store)?;
        }
        let mut state = StoreState::default();
        let built = self.build(user, Span::Newest, 1, &mut state).await?;
        if built.is_none() || state.down {
            return Err(AheadFault::Store("it failed or came too late".to_owned()));
        }
        Ok(true)
    }
}

/// Goes through the users who have posted or changed an edge lately, one shard after the other.
#[derive(Debug)]
pub struct Active {
    db: Db,
    since_ms: u64,
    shards: u32,
    shard: u32,
    after: UserId,
}

impl Active {
    /// Those since then, in milliseconds of Unix time, from the first one on.
    ///
    /// # Errors
    /// Any [`Fault`].
    pub async fn new(db: Db, since_ms: u64) -> Result<Active, Fault> {
        let shards = db.shards().await?;
        Ok(Active {
            db,
            since_ms,
            shards,
            shard: 0,
            after: UserId::MIN,
        })
    }

    /// Some more, none twice; none at all at the end.
    ///
    /// # Errors
    /// Any [`Fault`].
    pub async fn next(&mut self) -> Result<Vec<UserId>, Fault> {
        while self.shard < self.shards {
            let rows = self.db.unprepared(&self.statement()).await?;
            let users: Vec<UserId> = column(&rows)?;
            match users.last() {
                Some(last) if users.len() >= USERS => self.after = *last,
                _ => {
                    self.shard += 1;
                    self.after = UserId::MIN;
                }
            }
            if !users.is_empty() {
                return Ok(users);
            }
        }
        Ok(Vec::new())
    }

    fn statement(&self) -> String {
        let (shard, after, posted) = (self.shard, self.after, first_id(self.since_ms));
        let changed = i64::try_from(self.since_ms).unwrap_or(i64::MAX);
        format!(
            "/* presplit: shard={shard} */ \
             (SELECT user_id FROM follow_out WHERE user_id > '{after}'::bigint AND changed_at >= to_timestamp({changed} / 1000.0)) UNION \
             (SELECT user_id FROM media WHERE user_id > '{after}'::bigint AND id >= {posted} AND deleted_at IS NULL) \
             ORDER BY user_id LIMIT {USERS}"
        )
    }
}
