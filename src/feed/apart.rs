//! Looking for rows shard by shard, for a while, where one read over all shards is of no use: a host is away or does not answer, or
//! its rows can be read and not be taken, and stand in front of all others.

use std::collections::HashSet;
use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio_postgres::Row;

use super::db::{Db, Fault};

/// How long it is looked so before one read over all is tried again.
const FOR: Duration = Duration::from_secs(60);
/// How long a shard may take.
pub(super) const WITHIN: Duration = Duration::from_secs(2);
/// Rows of a shard asked for at least.
const OF_SHARD: usize = 16;
/// Shards that are asked side by side.
const SIDE_BY_SIDE: usize = 4;

/// How it is looked at present.
#[derive(Debug, Default)]
pub(super) struct Apart {
    until: Option<Instant>,
    shards: Option<u32>,
    /// Shards that did not answer in time: they are left alone until then.
    late: HashSet<u32>,
}

impl Apart {
    pub(super) fn begin(&mut self) {
        self.until = Some(Instant::now() + FOR);
        self.late.clear();
    }

    pub(super) fn is_on(&self) -> bool {
        self.until.is_some_and(|until| until > Instant::now())
    }

    /// A host does not answer: whatever is to be read from all shards is better left for later.
    pub(super) fn is_late(&self) -> bool {
        self.is_on() && !self.late.is_empty()
    }

    /// The rows of a statement without a LIMIT that says first what has been due for the longest, and whether there may be more than
    /// these. By one read over all shards, or of each for itself while that is of no use.
    pub(super) async fn due(
        &mut self,
        db: &Db,
        sql: &str,
        most: usize,
    ) -> Result<(Vec<Row>, bool), Fault> {
        if self.is_on() {
            return self.by_shard(db, sql, most).await;
        }
        match db.ask(&format!("{sql} LIMIT {most}"), &[]).await {
            Err(fault) if fault.is_unavailable() => {
                self.begin();
                self.by_shard(db, sql, most).await.map_err(|_| fault)
            }
            rows => rows.map(|rows| {
                let more = rows.len() >= most;
                (rows, more)
            }),
        }
    }

    async fn by_shard(
        &mut self,
        db: &Db,
        sql: &str,
        most: usize,
    ) -> Result<(Vec<Row>, bool), Fault> {
        let shards = match self.shards {
            Some(shards) => shards,
            None => *self.shards.insert(db.shards().await?),
        };
        let each = most.div_ceil(shards.max(1) as usize).max(OF_SHARD);
        // As many texts as shards, so not one of them is kept as prepared.
        let ask = |shard| async move {
            let sql = format!("/* presplit: shard={shard} */ {sql} LIMIT {each}");
            db.unprepared_within(&sql, WITHIN).await
        };
        let found = self.ask(shards, ask).await?;
        let more = found.iter().any(|rows| rows.len() >= each);
        Ok((found.into_iter().flatten().collect(), more))
    }

    /// Asks each shard for itself: what those say that answer.
    async fn ask<T, F>(&mut self, shards: u32, ask: impl Fn(u32) -> F) -> Result<Vec<T>, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let asked: Vec<u32> = (0..shards).filter(|s| !self.late.contains(s)).collect();
        let answers = asked.into_iter().map(|shard| {
            let answer = ask(shard);
            async move {
                let began = Instant::now();
                (shard, answer.await, began.elapsed() >= WITHIN)
            }
        });
        let answers: Vec<_> = stream::iter(answers.collect::<Vec<_>>())
            .buffer_unordered(SIDE_BY_SIDE)
            .collect()
            .await;
        let mut found = Vec::new();
        let mut last = None;
        for (shard, answer, late) in answers {
            match answer {
                Ok(some) => found.push(some),
                Err(fault) => {
                    if late {
                        self.late.insert(shard);
                    }
                    last = Some(fault);
                }
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        // Nothing is known of any: at the next time all are asked.
        self.until = None;
        Err(last.unwrap_or_else(|| Fault::Unavailable {
            why: "no shard answers".to_owned(),
            maybe: false,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_late_is_left_alone_for_a_while() {
        let mut apart = Apart::default();
        assert!(!apart.is_on());
        apart.begin();
        let none = || Fault::Wrong("none".to_owned());
        let ask = |shard| async move { if shard == 1 { Err(none()) } else { Ok(shard) } };
        let mut found = apart.ask(3, ask).await.unwrap();
        found.sort_unstable();
        assert_eq!((found, apart.is_late()), (vec![0, 2], false));
        apart.late.insert(0);
        assert!(apart.is_late());
        assert_eq!(apart.ask(3, ask).await.unwrap(), [2]);
        assert_eq!(apart.ask(2, ask).await, Err(none()));
        assert!(!apart.is_on());
    }
}
