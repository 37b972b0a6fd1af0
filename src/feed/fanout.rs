//! The workers: take rows of the outbox and do what they say. A post reaches the followers a page at a time, by key range from the
//! author's own shard; how far it has come is kept in the row, so that whoever is killed leaves the rest to the next.
//!
//! * Lanes: a row that has taken some pages gives its place to the others and goes on in the slow lane; edges have one of their own.
//! * A row that fails waits longer each time and is set aside in the end; the others go on. While store or Postgres are away no row
//!   is to blame, and all wait.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::db::{Db, Fault, column, jitter};
use super::depth::Depth;
use super::edges::{self, Unsettled};
use super::gate::Gate;
use super::keep::KeepSettings;
use super::lag::{Class, Lag};
use super::outbox::{self, Events, Kind, Task, Wake};
use super::stars::Stars;
use super::store::{Pushed, Store, StoreFault};
use super::{MediaId, UserId};

/// How the workers of a process work.
#[derive(Clone, Copy, Debug)]
pub struct WorkSettings {
    /// Rows worked on side by side in the fast lane.
    pub fast: usize,
    /// Rows worked on side by side in the slow lane, and in that of the edges.
    pub slow: usize,
    /// Followers of a page.
    pub page: usize,
    /// A row goes to the slow lane when it has taken so many pages.
    pub fast_pages: usize,
    /// How long a row is taken for at a time.
    pub lease: Duration,
    /// How often, about, it is looked for rows that nobody was woken for.
    pub sweep: Duration,
    /// Rows looked for at a time.
    pub sweep_rows: usize,
    /// The first pause of a row that failed; doubled each time, up to 5 minutes.
    pub back_off: Duration,
    /// A row is set aside when it has failed so often.
    pub attempts: i32,
    /// A row that was set aside is given another attempt after this.
    pub revive: Duration,
    /// How often stars are looked at again.
    pub review: Duration,
    /// New rows are for the webhook, too.
    pub hook: Events,
    /// What is done beside.
    pub keep: KeepSettings,
}

/// The longest pause between two attempts of a row.
const BACK_OFF_MOST: Duration = Duration::from_secs(300);
/// Rows that may wait for a place in a lane beside the fast one, for each of its places.
const SLOW_WAIT: usize = 64;

impl Default for WorkSettings {
    fn default() -> WorkSettings {
        WorkSettings {
            fast: 16,
            slow: 4,
            page: 5000,
            fast_pages: 2,
            lease: super::post::LEASE,
            sweep: Duration::from_secs(2),
            sweep_rows: 500,
            back_off: Duration::from_secs(1),
            attempts: 20,
            revive: Duration::from_secs(3600),
            review: Duration::from_secs(60),
            hook: Events::default(),
            keep: KeepSettings::default(),
        }
    }
}

impl WorkSettings {
    /// How long a row is left alone that has failed so often.
    pub(super) fn pause(&self, attempts: i32) -> Duration {
        let doubled = 1u32.checked_shl(u32::try_from(attempts).unwrap_or(0));
        let pause = self.back_off.saturating_mul(doubled.unwrap_or(u32::MAX));
        pause.min(BACK_OFF_MOST)
    }
}

/// What the workers have done since they began, for metrics and tests.
#[derive(Debug, Default)]
pub struct Done {
    /// Rows that are finished.
    pub rows: std::sync::atomic::AtomicU64,
    /// Deliveries that were new, were there already, went to feeds that are not there.
    pub pushed: std::sync::Mutex<Pushed>,
    /// Attempts that failed.
    pub failed: std::sync::atomic::AtomicU64,
    /// Rows set aside.
    pub dead: std::sync::atomic::AtomicU64,
    /// How long posts took to reach all.
    pub lag: Lag,
    /// What waits.
    pub depth: Depth,
}

/// The workers of this process. They end when this is dropped, wherever they are: what they had taken is taken by others when the
/// lease has run out.
#[derive(Debug)]
pub struct Workers {
    wake: Wake,
    done: Arc<Done>,
    _tasks: JoinSet<()>,
}

impl Workers {
    /// Starts them. `db` is better not the one that answers calls, so that neither waits for the other's connections.
    #[must_use]
    pub fn start(
        db: Db,
        store: Arc<dyn Store>,
        stars: Arc<Stars>,
        settings: WorkSettings,
    ) -> Workers {
        let (send, woken) = mpsc::channel(settings.fast.max(1) * 8);
        let work = Arc::new(Work {
            db,
            store,
            stars,
            settings,
            done: Arc::default(),
            slow: Side::new(settings.slow.max(1)),
            edges: Side::new(settings.slow.max(1)),
            postgres: Gate::default(),
            lists: Gate::default(),
        });
        let done = work.done.clone();
        let wake = Wake::new(send.clone(), settings.lease, settings.hook);
        let mut tasks = JoinSet::new();
        tasks.spawn(work.clone().serve(woken));
        if work.store.is_shared() {
            tasks.spawn(super::woken::run(work.clone(), send.clone()));
        }
        tasks.spawn(super::sweep::run(work, send));
        Workers {
            wake,
            done,
            _tasks: tasks,
        }
    }

    /// The way from this process' writes to its workers.
    #[must_use]
    pub fn wake(&self) -> Wake {
        self.wake.clone()
    }

    /// What they have done.
    #[must_use]
    pub fn done(&self) -> Arc<Done> {
        self.done.clone()
    }
}

/// What all workers of a process share.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) db: Db,
    pub(super) store: Arc<dyn Store>,
    pub(super) stars: Arc<Stars>,
    pub(super) settings: WorkSettings,
    pub(super) done: Arc<Done>,
    slow: Side,
    /// Edges have a lane of their own: each needs its target's host, and posts don't wait behind those whose host does not answer.
    edges: Side,
    pub(super) postgres: Gate,
    lists: Gate,
}

/// Why work on a row ended early.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error(transparent)]
    Db(#[from] Fault),
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// Another has it.
    #[error("the lease ran out")]
    Lost,
    /// The lane that it needs has enough.
    #[error("its lane is full")]
    Full,
}

impl From<Unsettled> for Stop {
    fn from(unsettled: Unsettled) -> Stop {
        match unsettled {
            Unsettled::Db(fault) => Stop::Db(fault),
            Unsettled::Store(fault) => Stop::Store(fault),
        }
    }
}

impl Work {
    /// Works on what comes, as many rows at once as the fast lane has places.
    async fn serve(self: Arc<Self>, mut woken: mpsc::Receiver<Task>) {
        let fast = Arc::new(Semaphore::new(self.settings.fast.max(1)));
        let mut rows = JoinSet::new();
        loop {
            while rows.try_join_next().is_some() {}
            let Ok(place) = fast.clone().acquire_owned().await else {
                return;
            };
            let Some(task) = woken.recv().await else {
                return;
            };
            rows.spawn(self.clone().carry_out(task, place));
        }
    }

    /// One row, whatever becomes of it.
    async fn carry_out(self: Arc<Self>, mut task: Task, place: OwnedSemaphorePermit) {
        let attempt = AssertUnwindSafe(self.attempt(&mut task, place))
            .catch_unwind()
            .await;
        let (why, to_blame, pause) = match attempt {
            Ok(Ok(())) => {
                self.done
                    .rows
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                return;
            }
            Ok(Err(Stop::Lost)) => return,
            Ok(Err(Stop::Full)) => (
                "its lane is full".to_owned(),
                false,
                self.settings.lease / 4,
            ),
            Ok(Err(Stop::Db(fault))) if fault.is_unavailable() => {
                (fault.to_string(), false, self.postgres.fault())
            }
            Ok(Err(Stop::Store(fault))) => (fault.to_string(), false, self.lists.fault()),
            Ok(Err(stop)) => (stop.to_string(), true, Duration::ZERO),
            Err(_) => ("the worker panicked".to_owned(), true, Duration::ZERO),
        };
        let pause = match to_blame {
            true => jitter(self.settings.pause(task.attempts)),
            false => jitter(pause.max(self.settings.back_off)),
        };
        tracing::warn!(
            "outbox row {} of {} ({:?} {}): {why}; again in {pause:?}",
            task.id,
            task.user,
            task.kind,
            task.object
        );
        self.done
            .failed
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match outbox::fail(
            &self.db,
            &task,
            &why,
            to_blame,
            pause,
            self.settings.attempts,
        )
        .await
        {
            Ok(true) => {
                self.done
                    .dead
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tracing::error!(
                    "outbox row {} of {} is set aside: {why}",
                    task.id,
                    task.user
                );
            }
            Ok(false) => {}
            // Then the lease has to run out.
            Err(fault) => tracing::debug!("outbox row {}: {fault}", task.id),
        }
    }

    async fn attempt(&self, task: &mut Task, place: OwnedSemaphorePermit) -> Result<(), Stop> {
        match task.kind {
            Kind::Post => {
                let class = self.fan_out(task, Lane::Fast(place)).await?;
                self.done.lag.reached_all(class, task.object);
            }
            Kind::Delete => {
                self.lists.open().await;
                self.store.tombstone(task.object).await?;
                self.lists.worked();
            }
            Kind::Edge => {
                let fast = Lane::Fast(place);
                let _place = self.side_lane(task, fast, &self.edges).await?;
                self.lists.open().await;
                edges::settle(&self.db, &*self.store, task.user, task.object, task.cut).await?;
                self.lists.worked();
            }
        }
        outbox::finish(&self.db, task).await?;
        self.postgres.worked();
        Ok(())
    }

    /// A media to all followers of its author, and to the author.
    async fn fan_out(&self, task: &mut Task, mut lane: Lane) -> Result<Class, Stop> {
        let (author, media) = (task.user, task.object);
        if self.stars.pulled(author, media).await? {
            self.push(media, &[author]).await?;
            return Ok(Class::Star);
        }
        if task.done_to.is_some() {
            lane = self.side_lane(task, lane, &self.slow).await?;
        }
        let mut page = self.followers(author, task.done_to).await?;
        if task.done_to.is_none() {
            page.feeds.push(author);
        }
        let mut pages = 0;
        // The page before is done up to here, and the row says less yet.
        let (mut done, mut reached, mut considered) = (None, 0, false);
        loop {
            // While a page is pushed the next one is read and the one before is noted: only pushes wait for each other.
            let next = async {
                match page.more_behind {
                    Some(last) => self.followers(author, Some(last)).await.map(Some),
                    None => Ok(None),
                }
            };
            let noted = self.note(task, done);
            let (pushed, next, noted) = tokio::join!(self.push(media, &page.feeds), next, noted);
            noted?;
            pushed?;
            reached += page.feeds.len() as u64;
            if !considered && reached >= self.stars.threshold() {
                considered = true;
                self.consider(author).await;
            }
            let Some(next) = next? else {
                return Ok(match pages == 0 && task.done_to.is_none() {
                    true => Class::Small,
                    false => Class::Large,
                });
            };
            done = page.more_behind;
            page = next;
            pages += 1;
            if pages >= self.settings.fast_pages && matches!(lane, Lane::Fast(_)) {
                // It may have to wait for long.
                self.note(task, done.take()).await?;
                if !considered {
                    considered = true;
                    self.consider(author).await;
                }
                lane = self.side_lane(task, lane, &self.slow).await?;
            }
        }
    }

    /// The next post of an author with so many followers may go another way.
    async fn consider(&self, author: UserId) {
        if let Err(fault) = self.stars.consider(author).await {
            tracing::debug!("author {author}: {fault}");
        }
    }

    /// Leaves the fast lane's place to another row and waits for one in this lane, without losing the row.
    async fn side_lane(&self, task: &mut Task, lane: Lane, to: &Side) -> Result<Lane, Stop> {
        let waits = to.waiting.clone().try_acquire_owned();
        let _waits = waits.map_err(|_| Stop::Full)?;
        drop(lane);
        let place = to.places.clone().acquire_owned();
        tokio::pin!(place);
        loop {
            tokio::select! {
                place = &mut place => return place.map(Lane::Side).map_err(|_| Stop::Full),
                () = tokio::time::sleep(self.settings.lease / 3) => {}
            }
            let done_to = task.done_to;
            if !outbox::renew(&self.db, task, done_to, self.settings.lease).await? {
                return Err(Stop::Lost);
            }
        }
    }

    /// Writes into the row how far it is done, if that is new.
    async fn note(&self, task: &mut Task, done: Option<UserId>) -> Result<(), Stop> {
        if done.is_none() || outbox::renew(&self.db, task, done, self.settings.lease).await? {
            return Ok(());
        }
        Err(Stop::Lost)
    }

    /// A page of followers, in order, behind the one who had it last.
    async fn followers(&self, author: UserId, after: Option<UserId>) -> Result<Followers, Stop> {
        const SQL: &str = "SELECT source FROM follow_in WHERE user_id = $1 AND status = 'following' AND source > $2 ORDER BY source LIMIT $3";
        let most = i64::try_from(self.settings.page.max(1)).unwrap_or(i64::MAX);
        let after = after.unwrap_or(UserId::MIN);
        let feeds: Vec<UserId> = column(&self.db.ask(SQL, &[&author, &after, &most]).await?)?;
        let full = feeds.len() >= self.settings.page.max(1);
        Ok(Followers {
            more_behind: feeds.last().copied().filter(|_| full),
            feeds,
        })
    }

    /// If it fails that is never for the row: feeds that are there and can't take it are dropped by the store.
    async fn push(&self, media: MediaId, feeds: &[UserId]) -> Result<(), Stop> {
        self.lists.open().await;
        let pushed = self.store.push(media, feeds).await?;
        self.lists.worked();
        if let Ok(mut sum) = self.done.pushed.lock() {
            sum.new += pushed.new;
            sum.duplicate += pushed.duplicate;
            sum.absent += pushed.absent;
        }
        Ok(())
    }
}

/// A page of followers.
#[derive(Debug)]
struct Followers {
    feeds: Vec<UserId>,
    /// The last of them, if there may be more.
    more_behind: Option<UserId>,
}

/// A place in one of the lanes, held as long as the row is worked on.
#[derive(Debug)]
enum Lane {
    Fast(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit),
    Side(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit),
}

/// A lane beside the fast one.
#[derive(Debug)]
struct Side {
    places: Arc<Semaphore>,
    /// Rows that may wait for a place.
    waiting: Arc<Semaphore>,
}

impl Side {
    fn new(places: usize) -> Side {
        Side {
            places: Arc::new(Semaphore::new(places)),
            waiting: Arc::new(Semaphore::new(places * SLOW_WAIT)),
        }
    }
}
