//! How sessions ask for the catalog to be read, and hear of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// How sessions ask the catalog reader for a new look and hear of its end.
#[derive(Default)]
pub struct Refresh {
    /// Somebody asks.
    pub asked: Notify,
    /// Somebody needs a look that begins after he asked.
    pub now: Notify,
    looks: watch::Sender<Looks>,
    /// What was made from the tables is to be made anew, even if they look the same.
    forced: AtomicBool,
    /// What the last look found wrong.
    said: Mutex<Vec<String>>,
}

/// How many looks there have been.
#[derive(Clone, Copy, Debug, Default)]
struct Looks {
    begun: u64,
    /// The number of the last one that has ended.
    ended: u64,
    /// Answers to [`Refresh::ask`], looks that were refused too.
    answers: u64,
}

/// The longest that DDL waits for the catalog to be read: longer than any look takes.
const NEW_LOOK_WAIT: Duration = Duration::from_secs(25);

/// The longest that a statement waits for the catalog to be read.
const LOOK_WAIT: Duration = Duration::from_secs(2);

impl Refresh {
    /// Asks for a new look and waits until it is there. The reader looks at most once a second; a session that has just
    /// been told "no such table" by a fresh look is told so again at once, see [`Refresh::done`].
    pub(crate) async fn ask(&self) {
        let mut looks = self.looks.subscribe();
        let answers = looks.borrow_and_update().answers;
        self.asked.notify_one();
        // Too late is as good as unchanged: the statement is refused as it would have been.
        let answered = looks.wait_for(|looks| looks.answers > answers);
        let _ = tokio::time::timeout(LOOK_WAIT, answered).await;
    }

    /// Waits for a look that begins now. If none comes to an end, the tables stay as they are known.
    pub(crate) async fn look(&self) {
        let mut looks = self.looks.subscribe();
        let wanted = looks.borrow_and_update().begun + 1;
        self.now.notify_one();
        let ended = looks.wait_for(|looks| looks.ended >= wanted);
        let _ = tokio::time::timeout(NEW_LOOK_WAIT, ended).await;
    }

    /// As [`Refresh::look`], and all that was made from the tables before is not used any more.
    pub(crate) async fn renew(&self) {
        self.forced.store(true, Ordering::Relaxed);
        self.look().await;
    }

    /// Has all that was made from the tables made anew, some time soon.
    pub(crate) fn renew_soon(&self) {
        self.forced.store(true, Ordering::Relaxed);
        self.asked.notify_one();
    }

    /// A look begins. `true`: the tables are to be replaced whatever it finds.
    pub fn begin(&self) -> bool {
        self.looks.send_modify(|looks| looks.begun += 1);
        self.forced.swap(false, Ordering::Relaxed)
    }

    /// The look that began last is done.
    pub fn end(&self) {
        self.looks.send_modify(|looks| looks.ended = looks.begun);
    }

    /// What the last look at the catalogs found wrong, in words: hosts that could not be read, tables that can't be used.
    pub fn faults(&self) -> Vec<String> {
        self.said
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    /// Notes what a look found wrong.
    pub fn set_faults(&self, faults: &[String]) {
        *self
            .said
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = faults.to_vec();
    }

    /// A look is done, or was refused because the last one is fresh.
    pub fn done(&self) {
        self.looks.send_modify(|looks| looks.answers += 1);
    }
}
