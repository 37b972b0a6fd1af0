//! Who is connected and what each session is doing: for SHOW CLIENTS, for metrics, and to end a session from outside.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use futures_util::task::AtomicWaker;

use crate::wire::error::{ErrorFields, SqlState};

/// All sessions.
#[derive(Default)]
pub struct Clients {
    all: Mutex<BTreeMap<u64, Arc<ClientInfo>>>,
    next: AtomicU64,
}

/// What a session shows of itself, and the order that it is given.
pub struct ClientInfo {
    /// Number of the session, counted up from 1.
    pub id: u64,
    /// What it asked for.
    pub database: Database,
    /// Who logged in.
    pub user: String,
    /// From where.
    pub peer: String,
    /// `application_name` at startup.
    pub application: String,
    /// Since when.
    pub since: Instant,
    /// The activity, and above its two bits how often it has changed. Who looks finds out when: the session does not look
    /// at the clock for that.
    activity: AtomicU32,
    seen: Mutex<(u32, Instant)>,
    order: AtomicU8,
    /// What the session has in server processes of its own, in words.
    pinned: Mutex<String>,
    waker: AtomicWaker,
}

/// Which database a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// The app's.
    App,
    /// The proxy's own commands.
    Console,
}

/// What a session is doing. PgBouncer's words where it has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Activity {
    /// Waits for its client, outside a transaction.
    Idle = 0,
    /// Waits for its client, inside a transaction.
    InTransaction = 1,
    /// A statement is under way.
    Active = 2,
}

/// What a session is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub enum Order {
    /// Go on.
    Run = 0,
    /// End as soon as no transaction is open: the proxy is shutting down.
    Drain = 1,
    /// End now: it was idle for too long outside a transaction.
    IdleTimeout = 2,
    /// End now: it was idle for too long inside a transaction.
    TransactionTimeout = 3,
}

impl Order {
    /// What a client that is told to go hears.
    pub(crate) fn farewell(self) -> ErrorFields {
        match self {
            Order::IdleTimeout => ErrorFields::fatal(
                SqlState::IDLE_SESSION_TIMEOUT,
                "terminating connection due to idle-session timeout",
            )
            .hint("The limit is idle_client in [proxy.timeouts]."),
            Order::TransactionTimeout => ErrorFields::fatal(
                SqlState::IDLE_IN_TRANSACTION_TIMEOUT,
                "terminating connection due to idle-in-transaction timeout",
            )
            .hint("The limit is idle_transaction in [proxy.timeouts]."),
            Order::Run | Order::Drain => ErrorFields::fatal(
                SqlState::ADMIN_SHUTDOWN,
                "terminating connection: the proxy is shutting down",
            ),
        }
    }
}

impl Clients {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<ClientInfo>>> {
        self.all
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Adds a session.
    pub(crate) fn add(
        &self,
        database: Database,
        user: &str,
        peer: String,
        application: &str,
    ) -> Arc<ClientInfo> {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let info = Arc::new(ClientInfo {
            id,
            database,
            user: user.to_owned(),
            peer,
            application: application.to_owned(),
            since: Instant::now(),
            activity: AtomicU32::new(Activity::Idle as u32),
            seen: Mutex::new((0, Instant::now())),
            order: AtomicU8::new(Order::Run as u8),
            pinned: Mutex::default(),
            waker: AtomicWaker::new(),
        });
        self.lock().insert(id, info.clone());
        info
    }

    /// Removes a session.
    pub(crate) fn remove(&self, info: &ClientInfo) {
        self.lock().remove(&info.id);
    }

    /// All sessions, oldest first.
    pub fn list(&self) -> Vec<Arc<ClientInfo>> {
        self.lock().values().cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ClientInfo {
    /// What it is doing and for how many milliseconds at least: since the first look that found it so. The proxy looks every
    /// second.
    pub fn activity(&self) -> (Activity, u64) {
        let mut seen = self
            .seen
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let now = self.activity.load(Ordering::Relaxed);
        if seen.0 != now {
            *seen = (now, Instant::now());
        }
        let activity = match now & 3 {
            0 => Activity::Idle,
            1 => Activity::InTransaction,
            _ => Activity::Active,
        };
        (activity, seen.1.elapsed().as_millis() as u64)
    }

    /// Notes a change of activity. Only the session itself does so.
    pub(crate) fn set(&self, activity: Activity) {
        let changes = (self.activity.load(Ordering::Relaxed) & !3).wrapping_add(4);
        self.activity
            .store(changes | activity as u32, Ordering::Relaxed);
    }

    /// What the session has in server processes that it keeps beyond its transactions; empty: nothing.
    pub fn pinned(&self) -> String {
        let pinned = self.pinned.lock();
        pinned
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    pub(crate) fn set_pinned(&self, words: String) {
        let pinned = self.pinned.lock();
        *pinned.unwrap_or_else(|poisoned| poisoned.into_inner()) = words;
    }

    /// Has the session look at what has changed around it, if it waits for its client.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Tells the session to do something; it hears of it when it next waits for its client.
    pub fn order(&self, order: Order) {
        self.order.store(order as u8, Ordering::Relaxed);
        self.waker.wake();
    }

    /// The order in force; `cx` is woken when it changes.
    pub(crate) fn poll_order(&self, cx: &mut std::task::Context<'_>) -> Order {
        self.listen(cx);
        self.told()
    }

    /// Has `cx` woken by what comes from now on: to be followed by a look at what has come before.
    pub(crate) fn listen(&self, cx: &mut std::task::Context<'_>) {
        self.waker.register(cx.waker());
    }

    /// The order in force.
    pub(crate) fn told(&self) -> Order {
        match self.order.load(Ordering::Relaxed) {
            0 => Order::Run,
            1 => Order::Drain,
            2 => Order::IdleTimeout,
            _ => Order::TransactionTimeout,
        }
    }
}
