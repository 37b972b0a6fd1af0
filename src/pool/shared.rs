//! The pool's connections that carry short reads of many clients at a time (`[proxy] shared_connections`): so many for each
//! event loop, opened when they are first wanted, each at the settings of the session that wanted it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::conn::{ServerConn, Worker};
use super::limits::PoolLimits;
use super::pool::{Checkout, Pool, State};
use super::server;
use super::settings::Settings;
use crate::wire::shared::{Alone, Shared};
use crate::wire::stream::Stream;

/// Requests on one connection at once. A statement that waits is behind at most so many short ones.
const MOST_REQUESTS: usize = 16;
/// Seats ever made on one connection.
const MOST_SEATS: usize = 32;
/// One that nobody has used for so long makes room for one at other settings.
const UNUSED: Duration = Duration::from_secs(5);
/// If somebody has waited for a connection for so long, a shared one that is not in use makes room.
pub(super) const STARVED: Duration = Duration::from_millis(500);
/// After that none is opened for so long, and after one could not be opened for so long.
const REST: Duration = Duration::from_secs(10);
const REST_AFTER_FAULT: Duration = Duration::from_secs(1);

/// What there is of shared connections, and what they have done.
#[derive(Default)]
pub(super) struct SharedConns {
    open: Vec<SharedConn>,
    opening: usize,
    /// None is opened before this.
    rests_until: Option<Instant>,
    /// Requests that were answered and displaced by those that have ended.
    answered: u64,
    displaced: u64,
}

struct SharedConn {
    shared: Arc<Shared>,
    /// A seat that is never lent: the others are made like it.
    first: ServerConn,
    #[expect(
        clippy::vec_box,
        reason = "a seat is lent and taken back by moving one pointer"
    )]
    idle: Vec<Box<ServerConn>>,
    made: usize,
    /// What was answered when the pool was last tidied, and since when it is that.
    seen: (u64, Instant),
}

impl SharedConns {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.open.len() + self.opening
    }

    /// Requests answered and displaced so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        let counts = self.open.iter().map(|conn| conn.shared.counts());
        counts.fold((self.answered, self.displaced), |sum, of| {
            (sum.0 + of.0, sum.1 + of.1)
        })
    }

    /// All end once they have answered.
    pub(super) fn end(&self) {
        self.open.iter().for_each(|conn| conn.shared.end());
    }

    /// One at other settings ends, if nobody has used it for a while.
    fn make_room(&self, now: Instant) {
        let unused = |conn: &&SharedConn| {
            let (answered, since) = conn.seen;
            now.saturating_duration_since(since) > UNUSED && conn.shared.counts().0 == answered
        };
        if let Some(conn) = self.open.iter().find(unused) {
            conn.shared.end();
        }
    }

    /// Ends those that have lived long enough, that nobody has used for long, or that are more than there may be by now.
    /// `starved`: others wait for a connection. Called about once a second.
    pub(super) fn tidy(&mut self, now: Instant, limits: &PoolLimits, mut starved: bool) {
        let mut kept: SmallVec<[Worker; 8]> = SmallVec::new();
        for conn in &mut self.open {
            if conn.shared.is_ending() {
                continue;
            }
            let (answered, _) = conn.shared.counts();
            if answered != conn.seen.0 {
                conn.seen = (answered, now);
            }
            let idle = now.saturating_duration_since(conn.seen.1);
            let lived = now.saturating_duration_since(conn.first.opened);
            let worker = conn.first.worker;
            let of_worker = kept.iter().filter(|of| **of == worker).count();
            let too_many = of_worker >= limits.shared || kept.len() + 1 >= limits.connections;
            let makes_room = starved && !idle.is_zero();
            if idle >= limits.idle || lived >= limits.lifetime || too_many || makes_room {
                conn.shared.end();
            } else {
                kept.push(worker);
            }
            if makes_room {
                starved = false;
                self.rests_until = Some(now + REST);
            }
        }
    }

    fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| Instant::now() < until)
    }
}

impl SharedConn {
    /// A seat that is free, by preference one that holds the statement. Another statement goes to the one that holds most, so
    /// that what makes room for it is what was not used for long.
    fn seat(&mut self, wish: &Checkout<'_>, limits: &PoolLimits) -> Option<Box<ServerConn>> {
        if self.idle.is_empty() {
            if self.made == MOST_SEATS {
                return None;
            }
            self.made += 1;
            let conn = self.first.beside(&self.shared, limits.statements);
            return Some(Box::new(conn));
        }
        let best = match &wish.statement {
            None => self.idle.len() - 1,
            Some(key) => {
                let held = |conn: &ServerConn| conn.statements.contains(key);
                let most = |at: &usize| self.idle[*at].statements.len();
                let holds = self.idle.iter().rposition(|conn| held(conn));
                holds.or_else(|| (0..self.idle.len()).max_by_key(most))?
            }
        };
        Some(self.idle.swap_remove(best))
    }
}

impl Pool {
    /// Lends a seat on a shared connection that is at the settings wished for. `None`: there is none just now; perhaps there
    /// soon will be.
    pub fn checkout_shared(self: &Arc<Pool>, wish: &Checkout<'_>) -> Option<Box<ServerConn>> {
        let mut state = self.lock();
        let state = &mut *state;
        if state.limits.shared == 0 || state.retired {
            return None;
        }
        let mut least: Option<(usize, usize)> = None;
        let mut of_worker = state.shared.opening;
        for (at, conn) in state.shared.open.iter().enumerate() {
            of_worker += usize::from(conn.first.worker == wish.worker);
            if conn.first.worker != wish.worker || !conn.first.is_at(wish.settings) {
                continue;
            }
            if let Some(load) = conn.shared.load()
                && load < MOST_REQUESTS
                && least.is_none_or(|(least, _)| load < least)
            {
                least = Some((load, at));
            }
        }
        if least.is_none_or(|(load, _)| load > 0) {
            if of_worker < state.limits.shared {
                self.open_another(state, wish);
            } else if least.is_none() {
                state.shared.make_room(state.clock);
            }
        }
        let (_, at) = least?;
        let conn = state.shared.open[at].seat(wish, &state.limits)?;
        state.checkouts += 1;
        Some(conn)
    }

    /// Opens a shared connection beside what goes on, if the pool's limit leaves one to those that are not shared.
    fn open_another(self: &Arc<Pool>, state: &mut State, wish: &Checkout<'_>) {
        if state.shared.len() + 1 >= state.limits.connections
            || state.shared.rests()
            || state.recent_fault().is_some()
        {
            return;
        }
        let limit = state.limits.connections;
        if state.idle.len() + limit.saturating_sub(state.open) < 2 {
            // What asks now is to find one for itself.
            return;
        }
        if state.open >= limit {
            // The place of one that is idle, the one that has been for longest.
            state.idle.remove(0);
            state.open -= 1;
        }
        state.open += 1;
        state.shared.opening += 1;
        let opening = Opening {
            pool: self.clone(),
            opens: true,
        };
        let (worker, settings) = (wish.worker, wish.settings.clone());
        tokio::spawn(opening.open(worker, settings, state.limits.clone()));
    }

    /// Takes a seat on a shared connection back.
    pub(super) fn release_shared(&self, mut conn: Box<ServerConn>) {
        let Stream::Seat(seat) = &conn.stream else {
            return;
        };
        conn.inbox = Vec::new();
        let mut state = self.lock();
        let of = |of: &&mut SharedConn| Arc::ptr_eq(&of.shared, seat.shared());
        if let Some(of) = state.shared.open.iter_mut().find(of) {
            of.idle.push(conn);
        }
    }

    /// What a cancel by this key is to be sent with, if it is to be sent: the key of a seat on a shared connection is the
    /// connection's and the number of the seat.
    pub(super) fn cancel_key(&self, key: &[u8]) -> Option<Arc<[u8]>> {
        let found = self.lock().shared.open.iter().find_map(|conn| {
            let seat = key.strip_prefix(&*conn.first.key)?;
            let seat = u32::from_be_bytes(seat.try_into().ok()?);
            Some((conn.shared.clone(), conn.first.key.clone(), seat as usize))
        });
        match found {
            None => Some(key.into()),
            Some((shared, key, seat)) => (shared.alone(seat) == Alone::Next).then_some(key),
        }
    }
}

/// A shared connection that is being opened, in a slot that `open` counts already.
struct Opening {
    pool: Arc<Pool>,
    opens: bool,
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.opens {
            let shared = &mut self.pool.lock().shared;
            shared.opening -= 1;
            shared.rests_until = Some(Instant::now() + REST_AFTER_FAULT);
        }
    }
}

/// A shared connection that is there: taken from the pool's list when it ends, however that comes about.
struct Listed {
    pool: Arc<Pool>,
    shared: Arc<Shared>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        let at = |conn: &SharedConn| Arc::ptr_eq(&conn.shared, &self.shared);
        let ended = state.shared.open.iter().position(at);
        let ended = ended.map(|at| state.shared.open.swap_remove(at));
        let (answered, displaced) = self.shared.counts();
        state.shared.answered += answered;
        state.shared.displaced += displaced;
        drop(state);
        // Its seats are dropped without the pool's lock.
        drop(ended);
        self.pool.free_slot();
    }
}

impl Opening {
    /// Opens it, brings it to the settings and carries requests until it ends.
    async fn open(mut self, worker: Worker, settings: Settings, limits: PoolLimits) {
        let pool = self.pool.clone();
        let Ok(mut conn) = pool.open(worker, &limits).await else {
            // The sessions find out for themselves, and say so.
            return;
        };
        for step in conn.steps_to(&settings) {
            let run = server::run_alone(&mut conn, &step);
            if !matches!(tokio::time::timeout(limits.connect, run).await, Ok(Ok(()))) {
                return pool.discard(conn);
            }
        }
        conn.brought_to(settings);
        conn.committed();
        if conn.is_set_unknown().is_some() {
            return pool.discard(conn);
        }
        let (shared, seen) = (Shared::new(), (0, Instant::now()));
        let mut first = conn.beside(&shared, limits.statements);
        first.key = conn.key.clone();
        let listed = Listed {
            pool: pool.clone(),
            shared: shared.clone(),
        };
        {
            let mut state = pool.lock();
            state.shared.opening -= 1;
            self.opens = false;
            if state.retired {
                shared.end();
            }
            state.shared.open.push(SharedConn {
                shared: shared.clone(),
                first,
                idle: Vec::new(),
                made: 1,
                seen,
            });
        }
        shared.carry(conn.stream).await;
        drop(listed);
    }
}
