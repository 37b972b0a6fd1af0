//! The safety net of the workers: looks now and then, over all shards by one read, for rows that are due and that nobody was woken
//! for, and takes them for the workers of this process. Also what is to be done seldom: rows set aside, stars.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use super::apart::{self, Apart};
use super::db::{Fault, jitter};
use super::fanout::Work;
use super::outbox::{self, Due, Task};

/// Rows are counted at one look in so many.
const COUNT_EVERY: u32 = 5;
/// Users whose rows are taken side by side.
const SIDE_BY_SIDE: usize = 4;

/// Until the workers end.
pub(super) async fn run(work: Arc<Work>, workers: mpsc::Sender<Task>) {
    let mut seldom = Seldom {
        revive: Instant::now(),
        review: Instant::now(),
        count: None,
    };
    let mut apart = Apart::default();
    loop {
        let more = match look(&work, &workers, &mut apart).await {
            Ok(more) => more,
            Err(fault) => {
                tracing::warn!("can't look for rows that are due: {fault}");
                tokio::time::sleep(work.postgres.fault()).await;
                false
            }
        };
        if !apart.is_late() {
            seldom.see_to(&work).await;
        }
        if !more {
            tokio::time::sleep(jitter(work.settings.sweep)).await;
        }
        if workers.is_closed() {
            return;
        }
    }
}

/// `true`: there are more.
async fn look(work: &Work, workers: &mpsc::Sender<Task>, apart: &mut Apart) -> Result<bool, Fault> {
    let rows = work.settings.sweep_rows.max(1);
    let (found, more) = apart.due(&work.db, outbox::DUE, rows).await?;
    let users = outbox::read_due(&found)?;
    let overdue = users.iter().map(|d| d.since).max().unwrap_or_default();
    work.stars.set_backlog(overdue);
    work.done.depth.overdue(overdue);
    let taken = take(work, users, workers).await.unwrap_or_default();
    // What can't be taken may be in front of what can.
    if !apart.is_on() && (taken.late || taken.failed && more) {
        apart.begin();
        return Ok(true);
    }
    // If all that was found is beyond our reach, looking at once again would only spin.
    Ok(more && taken.some)
}

/// What became of rows that were to be taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    /// Some were taken.
    some: bool,
    /// Some can't be taken at present.
    failed: bool,
    /// A host did not answer in time; of the others not all were asked for.
    late: bool,
}

/// Takes those of these rows that are due, for the workers of this process. `None`: the workers have ended.
pub(super) async fn take(
    work: &Work,
    users: Vec<Due>,
    workers: &mpsc::Sender<Task>,
) -> Option<Taken> {
    let mut some = false;
    let (failed, late) = (&AtomicBool::new(false), &AtomicBool::new(false));
    let claims = stream::iter(users).map(|due| async move {
        // Each further one might take as long.
        if late.load(Relaxed) {
            return Vec::new();
        }
        let began = Instant::now();
        let claimed = outbox::claim(&work.db, &due, work.settings.lease).await;
        // Its host may be away, and the others' not.
        claimed.unwrap_or_else(|fault| {
            tracing::debug!("rows of {}: {fault}", due.user);
            failed.store(true, Relaxed);
            late.fetch_or(began.elapsed() >= apart::WITHIN, Relaxed);
            Vec::new()
        })
    });
    let mut claims = std::pin::pin!(claims.buffered(SIDE_BY_SIDE));
    while let Some(tasks) = claims.next().await {
        some |= !tasks.is_empty();
        for task in tasks {
            // Waits while the workers have enough to do.
            workers.send(task).await.ok()?;
        }
    }
    Some(Taken {
        some,
        failed: failed.load(Relaxed),
        late: late.load(Relaxed),
    })
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
