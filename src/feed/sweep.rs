//! The safety net of the workers: looks now and then, over all shards by one read, for rows that are due and that nobody was woken
//! for, and takes them for the workers of this process. Also what is to be done seldom: rows set aside, stars.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use super::db::{Fault, jitter};
use super::fanout::Work;
use super::outbox::{self, Due, Task};

/// Rows of a shard looked for at least when each is asked for itself.
const OF_SHARD: usize = 16;
/// Rows are counted at one look in so many.
const COUNT_EVERY: u32 = 5;
/// Users whose rows are taken, and shards that are asked, side by side.
const SIDE_BY_SIDE: usize = 4;

/// Until the workers end.
pub(super) async fn run(work: Arc<Work>, workers: mpsc::Sender<Task>) {
    let mut seldom = Seldom {
        revive: Instant::now(),
        review: Instant::now(),
        count: None,
    };
    loop {
        let more = match look(&work, &workers).await {
            Ok(more) => more,
            Err(fault) => {
                tracing::warn!("can't look for rows that are due: {fault}");
                tokio::time::sleep(work.postgres.fault()).await;
                false
            }
        };
        seldom.see_to(&work).await;
        if !more {
            tokio::time::sleep(jitter(work.settings.sweep)).await;
        }
        if workers.is_closed() {
            return;
        }
    }
}

/// `true`: there are more.
async fn look(work: &Work, workers: &mpsc::Sender<Task>) -> Result<bool, Fault> {
    let rows = work.settings.sweep_rows.max(1);
    let (users, more) = match outbox::due(&work.db, rows).await {
        Err(fault) if fault.is_unavailable() => by_shard(work, rows, fault).await?,
        found => found?,
    };
    let overdue = users.iter().map(|d| d.since).max().unwrap_or_default();
    work.stars.set_backlog(overdue);
    work.done.depth.overdue(overdue);
    // If all that was found is beyond our reach, looking at once again would only spin.
    let took = take(work, users, workers).await.unwrap_or(false);
    Ok(more && took)
}

/// Takes those of these rows that are due, for the workers of this process: whether there were any. `None`: the workers have ended.
pub(super) async fn take(
    work: &Work,
    users: Vec<Due>,
    workers: &mpsc::Sender<Task>,
) -> Option<bool> {
    let mut took = false;
    let claims = stream::iter(users).map(|due| async move {
        let claimed = outbox::claim(&work.db, &due, work.settings.lease).await;
        // Its host may be away, and the others' not.
        claimed.unwrap_or_else(|fault| {
            tracing::debug!("rows of {}: {fault}", due.user);
            Vec::new()
        })
    });
    let mut claims = std::pin::pin!(claims.buffered(SIDE_BY_SIDE));
    while let Some(tasks) = claims.next().await {
        took |= !tasks.is_empty();
        for task in tasks {
            // Waits while the workers have enough to do.
            workers.send(task).await.ok()?;
        }
    }
    Some(took)
}

/// When one host is away the read over all fails: then each shard is asked for itself, and those that answer do.
async fn by_shard(work: &Work, rows: usize, fault: Fault) -> Result<(Vec<Due>, bool), Fault> {
    let shards = work.shards().await.map_err(|_| fault.clone())?;
    let each = rows.div_ceil(shards.max(1) as usize).max(OF_SHARD);
    let found: Vec<_> = stream::iter(0..shards)
        .map(|shard| outbox::due_in_shard(&work.db, shard, each))
        .buffer_unordered(SIDE_BY_SIDE)
        .collect()
        .await;
    if found.iter().all(Result::is_err) {
        return Err(fault);
    }
    let mut users = Vec::new();
    let mut more = false;
    for (some, full) in found.into_iter().flatten() {
        users.extend(some);
        more |= full;
    }
    users.sort_by_key(|d| std::cmp::Reverse(d.since));
    Ok((users, more))
}

/// When what was last done.
struct Seldom {
    revive: Instant,
    review: Instant,
    count: Option<Instant>,
}

impl Seldom {
    async fn see_to(&mut self, work: &Work) {
        let settings = &work.settings;
        if self.revive.elapsed() >= settings.revive / 10 + Duration::from_millis(1) {
            self.revive = Instant::now();
            match outbox::revive(&work.db, settings.revive, settings.attempts).await {
                Ok(0) => {}
                Ok(n) => tracing::warn!("{n} outbox rows that were set aside get another attempt"),
                Err(fault) => tracing::debug!("rows set aside: {fault}"),
            }
        }
        if self
            .count
            .is_none_or(|c| c.elapsed() >= COUNT_EVERY * settings.sweep)
        {
            self.count = Some(Instant::now());
            if let Err(fault) = work.done.depth.count(&work.db, settings.attempts).await {
                tracing::debug!("the outbox can't be counted: {fault}");
            }
        }
        if self.review.elapsed() >= settings.review {
            self.review = Instant::now();
            if let Err(fault) = work.stars.review().await {
                tracing::debug!("stars: {fault}");
            }
        }
    }
}
