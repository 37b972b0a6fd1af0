//! Sessions that keep server connections while they wait for others. Where each of them keeps what the next one waits for, none
//! can go on, and no host sees it: one has to give way.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::pool::Pool;

/// A server connection that a waiting session keeps.
#[derive(Clone)]
pub struct Kept {
    /// Its pool.
    pub pool: Arc<Pool>,
    /// The server process.
    pub pid: i32,
}

/// A session that keeps server connections and waits for another one.
#[derive(Clone)]
pub struct Crossing {
    number: u64,
    wants: Arc<Pool>,
    /// What it keeps.
    pub keeps: Vec<Kept>,
    since: Instant,
    end: Arc<Notify>,
}

/// Whether a process of a host, by the host's name, is in somebody's way.
pub type InTheWay<'l> = Box<dyn Fn(&str, i32) -> bool + 'l>;

/// A session that waits for a lock: what it keeps, and whether one of these processes is in its way.
pub struct Locked<'l> {
    /// What it keeps.
    pub keeps: Vec<Kept>,
    /// Who is in its way.
    pub waits_for: InTheWay<'l>,
}

/// All of one proxy.
#[derive(Default)]
pub struct Crosswise {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    all: Vec<Crossing>,
}

impl Crosswise {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A session begins to wait. `None`: with that none of some sessions could ever go on.
    pub(super) fn enter<'c>(&'c self, wants: &Arc<Pool>, keeps: &[Kept]) -> Option<Place<'c>> {
        let mut state = self.lock();
        state.next += 1;
        let crossing = Crossing {
            number: state.next,
            wants: wants.clone(),
            keeps: keeps.to_vec(),
            since: Instant::now(),
            end: Arc::default(),
        };
        state.all.push(crossing.clone());
        let stuck = stuck(&state.all, &[]);
        if stuck.iter().any(|other| other.number == crossing.number) {
            state.all.pop();
            return None;
        }
        Some(Place {
            all: self,
            crossing,
        })
    }

    /// Those who have waited for so long.
    pub fn waiting(&self, patience: Duration) -> Vec<Crossing> {
        let state = self.lock();
        let all = state.all.iter();
        all.filter(|crossing| crossing.since.elapsed() >= patience)
            .cloned()
            .collect()
    }
}

impl Crossing {
    /// Ends the wait: it is one of a deadlock.
    pub fn end(&self) {
        self.end.notify_one();
    }

    /// Whether the other is the same wait.
    pub fn is(&self, other: &Crossing) -> bool {
        self.number == other.number
    }

    /// Whether it keeps this process of a host.
    pub fn has(&self, host: &str, pid: i32) -> bool {
        self.keeps.iter().any(|kept| kept.is(host, pid))
    }
}

impl Kept {
    fn is(&self, host: &str, pid: i32) -> bool {
        self.pool.host == host && self.pid == pid
    }
}

/// The waits that can't end by themselves: all that a pool could ever give back is kept by sessions that wait in this way, too, or wait for
/// locks of such. The youngest is last.
pub fn stuck(all: &[Crossing], locked: &[Locked<'_>]) -> Vec<Crossing> {
    let mut crossing: Vec<&Crossing> = all.iter().collect();
    let mut locked: Vec<&Locked<'_>> = locked.iter().collect();
    loop {
        let before = (crossing.len(), locked.len());
        let kept = |pool: &Arc<Pool>| {
            let keeps = crossing.iter().map(|c| &c.keeps);
            let keeps = keeps.chain(locked.iter().map(|l| &l.keeps)).flatten();
            keeps.filter(|kept| Arc::ptr_eq(&kept.pool, pool)).count()
        };
        let stay = |c: &&Crossing| c.wants.is_spent_by(kept(&c.wants));
        let next: Vec<_> = crossing.iter().copied().filter(stay).collect();
        let blocks = |l: &&Locked<'_>| {
            let keeps = crossing.iter().map(|c| &c.keeps);
            let mut keeps = keeps.chain(locked.iter().map(|l| &l.keeps)).flatten();
            keeps.any(|kept| (l.waits_for)(&kept.pool.host, kept.pid))
        };
        locked = locked.iter().copied().filter(blocks).collect();
        crossing = next;
        if (crossing.len(), locked.len()) == before {
            return crossing.into_iter().cloned().collect();
        }
    }
}

/// A session's place among those that wait; it leaves when this is dropped.
pub(super) struct Place<'c> {
    all: &'c Crosswise,
    crossing: Crossing,
}

impl Place<'_> {
    /// Somebody has ended the wait.
    pub(super) async fn ended(&self) {
        self.crossing.end.notified().await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.all.lock();
        let number = self.crossing.number;
        state.all.retain(|crossing| crossing.number != number);
    }
}
