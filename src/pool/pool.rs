//! The pool of one (host, server user): at most `limit` connections, newest idle one first, waiters served in order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::conn::{ServerConn, Worker};
use super::crosswise::{Crosswise, Kept};
use super::limits::{CheckoutFault, PoolCounts, PoolLimits};
use super::server::{self, Target};
use super::settings::Settings;
use super::shared::{STARVED, SharedConns};
use super::statements::StatementKey;
use crate::shardmap::HostUrl;
use crate::wire::stream::Stream;

/// The pool of one (host, server user).
pub struct Pool {
    /// The host's name in the map.
    pub host: String,
    /// Where it is.
    pub url: HostUrl,
    target: Target,
    /// Lent connections that their sessions keep beyond a transaction.
    pinned: AtomicUsize,
    crosswise: Arc<Crosswise>,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) limits: PoolLimits,
    /// Connections in `idle`, lent out, shared, or being opened.
    pub(super) open: usize,
    pub(super) shared: SharedConns,
    /// Last in, first out: the newest has the warmest server process.
    #[expect(
        clippy::vec_box,
        reason = "a connection is lent and taken back by moving one pointer"
    )]
    pub(super) idle: Vec<Box<ServerConn>>,
    /// First come, first served. Who leaves closes his channel first.
    waiters: VecDeque<Waiter>,
    /// The host refused us a moment ago: others need not each find that out by waiting.
    down: Option<Down>,
    /// The last login's fault and when; none since a login went well.
    last_fault: Option<(Arc<server::ConnectFault>, Instant)>,
    /// The map no longer has this pool: connections are closed as they come back.
    pub(super) retired: bool,
    /// The time, as of the last [`Pool::tidy`]: a release does not look at the clock.
    pub(super) clock: Instant,
    /// Connections opened before this have lived long enough.
    oldest: Option<Instant>,
    pub(super) checkouts: u64,
    opened: u64,
    failed: u64,
}

struct Waiter {
    since: Instant,
    gift: oneshot::Sender<Gift>,
}

/// What a waiter is woken with.
enum Gift {
    /// A connection.
    Conn(Box<ServerConn>),
    /// The right to open one (`open` counts it already).
    Slot,
}

/// What a checkout gets at first.
enum Turn {
    Conn(Box<ServerConn>),
    /// A slot, counted already.
    Open,
    /// A place in the queue.
    Wait(oneshot::Receiver<Gift>),
}

struct Down {
    fault: Arc<server::ConnectFault>,
    until: Instant,
}

/// After a failed login, others fail at once with the same fault for this long.
const DOWN_FOR: Duration = Duration::from_millis(500);

/// What a session asks a pool for.
pub struct Checkout<'a> {
    /// The asking session's event loop.
    pub worker: Worker,
    /// The settings that it will need.
    pub settings: &'a Settings,
    /// The server-side statement that it will run, if it is one.
    pub statement: Option<StatementKey>,
}

impl Pool {
    /// An empty pool. Connections are opened when they are needed.
    pub fn new(
        host: String,
        url: HostUrl,
        limits: PoolLimits,
        crosswise: Arc<Crosswise>,
    ) -> Arc<Pool> {
        let state = State {
            limits,
            open: 0,
            shared: SharedConns::default(),
            idle: Vec::new(),
            waiters: VecDeque::new(),
            down: None,
            last_fault: None,
            retired: false,
            clock: Instant::now(),
            oldest: None,
            checkouts: 0,
            opened: 0,
            failed: 0,
        };
        let target = Target::from(&url);
        Arc::new(Pool {
            host,
            url,
            target,
            pinned: AtomicUsize::new(0),
            crosswise,
            state: Mutex::new(state),
        })
    }

    /// A panic while the lock is held cannot leave the state half-changed (no foreign code runs under it), so a
    /// poisoned lock is as good as a clean one.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Lends a connection. By preference one that holds the statement, then one with the same settings, of the same
    /// event loop, newest first; opens one if none is idle and the limit allows; else waits its turn.
    /// Dropping the future gives up the place in the queue and loses no connection.
    /// `keeps`: what the session has of this pool and of others meanwhile.
    pub async fn checkout(
        self: &Arc<Pool>,
        wish: Checkout<'_>,
        keeps: &[Kept],
    ) -> Result<Box<ServerConn>, CheckoutFault> {
        let (turn, limits) = self.turn(&wish);
        let place = match turn {
            Turn::Conn(conn) => return Ok(conn),
            Turn::Open => return self.open(wish.worker, &limits).await,
            Turn::Wait(place) => place,
        };
        let mut place = Place {
            pool: self,
            place,
            is_served: false,
        };
        let crosswise = || CheckoutFault::Crosswise {
            connections: limits.connections,
            kept: keeps.iter().map(|kept| kept.pool.host.clone()).collect(),
        };
        let gift = match keeps.is_empty() {
            true => tokio::time::timeout(limits.wait, &mut place.place).await,
            false => {
                let Some(crossing) = self.crosswise.enter(self, keeps) else {
                    return Err(crosswise());
                };
                tokio::select! {
                    biased;
                    gift = tokio::time::timeout(limits.wait, &mut place.place) => gift,
                    () = crossing.ended() => return Err(crosswise()),
                }
            }
        };
        place.is_served = matches!(gift, Ok(Ok(_)));
        match gift {
            Ok(Ok(Gift::Conn(conn))) => Ok(conn),
            Ok(Ok(Gift::Slot)) => self.open(wish.worker, &limits).await,
            // The sender goes only with the pool's state, which `self` keeps alive; an expired wait is the other case.
            Ok(Err(_)) | Err(_) => Err(CheckoutFault::Busy {
                connections: limits.connections,
                waited: limits.wait,
            }),
        }
    }

    /// Whether nothing would be left of the pool but for so many connections that are kept, nor could be opened.
    pub(super) fn is_spent_by(&self, kept: usize) -> bool {
        let state = self.lock();
        state.open >= state.limits.connections && kept >= state.open
    }

    /// Lends a connection if one is idle and nobody waits; see [`Pool::checkout`].
    pub fn checkout_idle(&self, wish: &Checkout<'_>) -> Option<Box<ServerConn>> {
        let mut state = self.lock();
        if !state.waiters.is_empty() {
            return None;
        }
        let conn = state.take_idle(wish)?;
        state.checkouts += 1;
        Some(conn)
    }

    /// What a checkout gets now.
    fn turn(&self, wish: &Checkout<'_>) -> (Turn, PoolLimits) {
        let mut state = self.lock();
        state.checkouts += 1;
        if state.waiters.is_empty() {
            if let Some(conn) = state.take_idle(wish) {
                return (Turn::Conn(conn), state.limits.clone());
            }
            if state.open < state.limits.connections {
                state.open += 1;
                return (Turn::Open, state.limits.clone());
            }
        }
        let (gift, place) = oneshot::channel();
        state.waiters.push_back(Waiter {
            since: Instant::now(),
            gift,
        });
        (Turn::Wait(place), state.limits.clone())
    }

    /// Opens a connection in a slot that `open` counts already.
    pub(super) async fn open(
        self: &Arc<Pool>,
        worker: Worker,
        limits: &PoolLimits,
    ) -> Result<Box<ServerConn>, CheckoutFault> {
        let slot = Slot { pool: Some(self) };
        if let Some(fault) = self.lock().recent_fault() {
            return Err(CheckoutFault::Connect(fault));
        }
        let extra: Vec<_> = self
            .url
            .params
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        let login =
            match tokio::time::timeout(limits.connect, server::connect(&self.target, &extra)).await
            {
                Ok(login) => login,
                Err(_) => Err(server::ConnectFault::timed_out(
                    &self.target,
                    limits.connect,
                )),
            };
        match login {
            Ok(login) => {
                slot.filled();
                let mut state = self.lock();
                state.opened += 1;
                state.down = None;
                state.last_fault = None;
                Ok(Box::new(ServerConn::new(login, limits.statements, worker)))
            }
            Err(fault) => {
                let fault = Arc::new(fault);
                let mut state = self.lock();
                state.failed += 1;
                state.last_fault = Some((fault.clone(), Instant::now()));
                if fault.is_host_down() {
                    state.down = Some(Down {
                        fault: fault.clone(),
                        until: Instant::now() + DOWN_FOR,
                    });
                }
                drop(state);
                Err(CheckoutFault::Connect(fault))
            }
        }
    }

    /// Asks the host to cancel what the connection with this key is doing; returns when the host has passed that on.
    pub async fn cancel(&self, key: &[u8]) -> std::io::Result<()> {
        match self.cancel_key(key) {
            Some(key) => server::cancel(&self.target, &key).await,
            None => Ok(()),
        }
    }

    /// Takes a connection back. It must be outside a transaction with no reply outstanding.
    pub fn release(&self, mut conn: Box<ServerConn>) {
        if matches!(conn.stream, Stream::Seat(_)) {
            return self.release_shared(conn);
        }
        let mut state = self.lock();
        conn.released = state.clock.max(conn.opened);
        let expired = state.oldest.is_some_and(|oldest| conn.opened < oldest);
        if state.retired || expired || state.open > state.limits.connections {
            drop(state);
            self.discard(conn);
            return;
        }
        let mut gift = Gift::Conn(conn);
        while let Some(waiter) = state.waiters.pop_front() {
            match waiter.gift.send(gift) {
                Ok(()) => return,
                Err(returned) => gift = returned,
            }
        }
        if let Gift::Conn(conn) = gift {
            state.idle.push(conn);
        }
    }

    /// Closes a lent connection: its state on the server is not known or it is broken.
    pub fn discard(&self, conn: Box<ServerConn>) {
        let shared = matches!(conn.stream, Stream::Seat(_));
        drop(conn);
        if !shared {
            self.free_slot();
        }
    }

    /// Takes back a connection that a session has had for itself: what it has left there is thrown away first. It must be
    /// outside a transaction with no reply outstanding.
    pub async fn renew(&self, mut conn: Box<ServerConn>) {
        let (limits, discard) = (self.lock().limits.clone(), "DISCARD ALL");
        let renewed = server::run_alone(&mut conn, discard);
        match tokio::time::timeout(limits.connect, renewed).await {
            Ok(Ok(())) => {
                conn.forget_all(limits.statements);
                self.release(conn);
            }
            _ => self.discard(conn),
        }
    }

    /// One connection more is kept by its session.
    pub fn pin(&self) {
        self.pinned.fetch_add(1, Ordering::Relaxed);
    }

    /// One connection fewer is.
    pub fn unpin(&self) {
        self.pinned.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many connections sessions keep, and the most that there may be open.
    pub fn pinned(&self) -> (usize, usize) {
        let state = self.lock();
        let limit = state.limits.connections.saturating_sub(state.shared.len());
        (self.pinned.load(Ordering::Relaxed), limit)
    }

    /// One connection fewer is open: the next waiter may open one.
    pub(super) fn free_slot(&self) {
        let mut state = self.lock();
        state.open -= 1;
        state.pass_on_slots();
    }

    /// Changes the limits; waiters profit at once from a higher one, a lower one takes effect as connections come back.
    pub fn set_limits(&self, limits: PoolLimits) {
        let mut state = self.lock();
        state.limits = limits;
        state.pass_on_slots();
    }

    /// The map no longer names this pool: idle connections close now, lent ones on their release.
    pub fn retire(&self) {
        let mut state = self.lock();
        state.retired = true;
        state.shared.end();
        let idle = std::mem::take(&mut state.idle);
        state.open -= idle.len();
        state.pass_on_slots();
    }

    /// Closes idle connections that the server has left or that nobody has used for long. Called now and then.
    pub fn tidy(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        state.clock = now;
        state.oldest = now.checked_sub(state.limits.lifetime);
        let (idle_for, lifetime) = (state.limits.idle, state.limits.lifetime);
        let limits = state.limits.clone();
        let starved = |first: &Waiter| now.saturating_duration_since(first.since) > STARVED;
        let starved = state.waiters.front().is_some_and(starved);
        state.shared.tidy(now, &limits, starved);
        let before = state.idle.len();
        state.idle.retain(|conn| {
            conn.is_quiet()
                && now.duration_since(conn.released) < idle_for
                && now.duration_since(conn.opened) < lifetime
        });
        let closed = before - state.idle.len();
        state.open -= closed;
        state.pass_on_slots();
    }

    /// The counts now.
    pub fn counts(&self) -> PoolCounts {
        let state = self.lock();
        let (shared, displaced) = state.shared.counts();
        PoolCounts {
            cl_waiting: state.waiters.len(),
            sv_active: state.open - state.idle.len(),
            sv_idle: state.idle.len(),
            sv_shared: state.shared.len(),
            sv_pinned: self.pinned.load(Ordering::Relaxed),
            maxwait: state
                .waiters
                .front()
                .map(|w| w.since.elapsed())
                .unwrap_or_default(),
            checkouts: state.checkouts,
            opened: state.opened,
            failed: state.failed,
            shared,
            displaced,
        }
    }

    /// Why the last login failed, and how long ago that was; `None` if it went well or there was none.
    pub fn last_fault(&self) -> Option<(Arc<server::ConnectFault>, Duration)> {
        let state = self.lock();
        state
            .last_fault
            .as_ref()
            .map(|(fault, at)| (fault.clone(), at.elapsed()))
    }

    /// Whether the host refused a login a moment ago.
    pub fn is_down(&self) -> bool {
        self.lock().recent_fault().is_some()
    }
}

impl State {
    pub(super) fn recent_fault(&self) -> Option<Arc<server::ConnectFault>> {
        let down = self.down.as_ref()?;
        (Instant::now() < down.until).then(|| down.fault.clone())
    }

    /// The best idle connection, leaving out and closing those that the server has left.
    fn take_idle(&mut self, wish: &Checkout<'_>) -> Option<Box<ServerConn>> {
        while !self.idle.is_empty() {
            let best = self.best_idle(wish);
            let conn = self.idle.remove(best);
            if conn.is_quiet() {
                return Some(conn);
            }
            self.open -= 1;
        }
        None
    }

    /// The index of the best idle connection; the newest wins among equals.
    fn best_idle(&self, wish: &Checkout<'_>) -> usize {
        let newest = self.idle.len() - 1;
        let mut best = (0, newest);
        for (i, conn) in self.idle.iter().enumerate().rev() {
            let mut score = 0;
            if conn.worker == wish.worker {
                score += 4;
            }
            if conn.is_at(wish.settings) {
                score += 2;
            }
            match wish.statement {
                Some(key) if conn.statements.contains(&key) => score += 1,
                Some(_) => {}
                None => score += 1,
            }
            if score > best.0 {
                best = (score, i);
                if score == 7 {
                    break;
                }
            }
        }
        best.1
    }

    /// Lets waiters open connections while the limit allows.
    fn pass_on_slots(&mut self) {
        while self.open < self.limits.connections {
            let Some(waiter) = self.waiters.pop_front() else {
                return;
            };
            if waiter.gift.send(Gift::Slot).is_ok() {
                self.open += 1;
            }
        }
    }
}

/// A waiter's side of the queue. If the waiter leaves after a gift was sent, the gift goes back to the pool.
struct Place<'a> {
    pool: &'a Arc<Pool>,
    place: oneshot::Receiver<Gift>,
    is_served: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.is_served {
            return;
        }
        self.place.close();
        match self.place.try_recv() {
            Ok(Gift::Conn(conn)) => self.pool.release(conn),
            Ok(Gift::Slot) => self.pool.free_slot(),
            Err(_) => {
                let left = |waiter: &Waiter| !waiter.gift.is_closed();
                self.pool.lock().waiters.retain(left);
            }
        }
    }
}

/// A counted place for a connection that is being opened; frees itself unless filled.
struct Slot<'a> {
    pool: Option<&'a Arc<Pool>>,
}

impl Slot<'_> {
    fn filled(mut self) {
        self.pool = None;
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(pool) = self.pool {
            pool.free_slot();
        }
    }
}
