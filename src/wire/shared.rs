//! One server connection that carries statements of several clients at a time: each has a [`Seat`] on it, which is read and
//! written as a connection of its own would be. Requests go out in the order in which they come, and several in one write
//! where they come together; a server answers in that order, and each seat gets what is up to its ReadyForQuery.
//!
//! What must hold: what is sent over seats leaves nothing behind on the server but prepared statements, under names that
//! no other seat uses, and may be run twice. For a request that has to wait too long behind another one is displaced:
//! its seat hears [`Displaced`], its answer is thrown away when it comes, and it is run elsewhere.

mod carrier;
mod seat;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::error::{ErrorFields, SqlState};
use super::frame;
pub use seat::Seat;

/// While so much of an answer has not been taken by its client's session, no more is read.
const HELD_MOST: usize = 256 * 1024;

/// A request that takes longer than this holds others up.
const LONG: Duration = Duration::from_millis(5);
/// Nobody is to wait for those in front for longer than this, as a rule.
const WAIT: Duration = Duration::from_millis(2);

/// Why a seat gives no answer: it has not begun to come, and the request is to be sent elsewhere.
#[derive(Clone, Copy, Debug, Error)]
#[error("the server connection is busy with another client's statement")]
pub struct Displaced;

/// What became of the wish to have a seat's request cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alone {
    /// Nothing of it is under way.
    Idle,
    /// It was not begun and will not be: its session has been told that it is cancelled.
    Answered,
    /// It is the server's next answer, and no other seat waits for one: a cancel can hit nobody else.
    Next,
}

/// How long others have had to wait for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Took {
    /// No longer than is usual here.
    #[default]
    Short,
    /// Longer: were all so, all would wait.
    Long,
    /// So long that others were displaced.
    TooLong,
}

/// The seats' side of a connection; [`Shared::carry`] is the server's.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// For the server.
    out: Vec<u8>,
    /// The ReadyForQuerys that are to come.
    order: VecDeque<Asked>,
    /// Something has come that the first of them ends.
    begun: bool,
    /// A seat that has sent something behind which there is no Sync yet: others have to wait.
    holder: Option<usize>,
    held_back: VecDeque<(usize, Vec<u8>)>,
    seats: Vec<SeatState>,
    /// Since when the first of them has been the first.
    since: Option<Instant>,
    /// How long a request has taken of late, on average.
    each: Duration,
    /// ReadyForQuerys so far.
    answered: u64,
    /// Requests that were displaced.
    displaced: u64,
    /// The seat in front does not take what there is for it.
    full: bool,
    phase: Phase,
    carrier: Option<Waker>,
}

/// An answer that is to come.
#[derive(Clone, Copy, Debug)]
struct Asked {
    seat: usize,
    /// Its session waits for it; else it is thrown away.
    wanted: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// It takes requests.
    #[default]
    Open,
    /// One takes too long: no others until it is done.
    Stuck,
    /// It ends when all that was asked is answered.
    Ending,
    /// It has ended.
    Gone,
}

/// The connection's side of a seat.
#[derive(Debug, Default)]
struct SeatState {
    /// What has come and was not taken.
    inbox: Vec<u8>,
    /// Its request was displaced and it does not know yet.
    displaced: bool,
    /// The connection is no more.
    lost: bool,
    /// How long its last request took.
    took: Took,
    waker: Option<Waker>,
}

impl Shared {
    /// A connection without seats.
    pub fn new() -> Arc<Shared> {
        Arc::new(Shared {
            state: Mutex::default(),
        })
    }

    /// Nothing that runs under the lock panics half-way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// One seat more.
    pub fn seat(self: &Arc<Shared>) -> Seat {
        let mut state = self.lock();
        state.seats.push(SeatState::default());
        Seat {
            shared: self.clone(),
            id: state.seats.len() - 1,
        }
    }

    /// How many requests are under way. `None`: another one should not be sent, as it might have to wait.
    pub fn load(&self) -> Option<usize> {
        let state = self.lock();
        let load = state.order.len();
        let waits = state.each * u32::try_from(load).unwrap_or(u32::MAX) > WAIT;
        let takes = state.phase == Phase::Open && state.holder.is_none();
        (takes && !waits).then_some(load)
    }

    /// Whether it ends or has ended.
    pub fn is_ending(&self) -> bool {
        matches!(self.lock().phase, Phase::Ending | Phase::Gone)
    }

    /// Requests answered and displaced so far.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.lock();
        (state.answered, state.displaced)
    }

    /// It takes no more requests and ends when those under way are answered.
    pub fn end(&self) {
        self.lock().end();
    }

    /// Sees to it that a cancel can hit nothing but what this seat has asked for. The connection ends after that.
    pub fn alone(&self, id: usize) -> Alone {
        let mut state = self.lock();
        let asked = |asked: &Asked| asked.seat == id && asked.wanted;
        let held_back = state.held_back.iter().any(|(seat, _)| *seat == id);
        let asks = state.order.iter().any(asked) || held_back;
        if !asks && state.holder != Some(id) && !state.seats[id].displaced {
            return Alone::Idle;
        }
        let next = match state.order.front() {
            Some(first) => asked(first),
            None => state.holder == Some(id),
        };
        if next {
            state.displace_others(Some(id));
            state.end();
            return Alone::Next;
        }
        state.forget(id);
        let seat = &mut state.seats[id];
        seat.displaced = false;
        ErrorFields::error(
            SqlState::QUERY_CANCELED,
            "canceling statement due to user request",
        )
        .write(&mut seat.inbox);
        seat.inbox.extend_from_slice(b"Z\0\0\0\x05I");
        seat.wake();
        Alone::Answered
    }
}

impl State {
    /// Takes a request of a seat. Others' wait while one has not sent its Sync.
    fn send(&mut self, seat: usize, bytes: &[u8]) {
        if self.holder.is_some_and(|holder| holder != seat) {
            self.held_back.push_back((seat, bytes.to_vec()));
        } else {
            self.push(seat, bytes);
        }
        while self.holder.is_none()
            && let Some((seat, bytes)) = self.held_back.pop_front()
        {
            self.push(seat, &bytes);
        }
        wake(&mut self.carrier);
    }

    fn push(&mut self, seat: usize, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        let (mut rest, mut ends) = (bytes, false);
        while let Ok(Some(header)) = frame::header(rest) {
            ends = matches!(header.tag, b'Q' | b'S' | b'F');
            if ends {
                if self.order.is_empty() {
                    self.since = Some(Instant::now());
                }
                self.order.push_back(Asked { seat, wanted: true });
            }
            rest = rest.get(header.len..).unwrap_or_default();
        }
        self.holder = (!ends).then_some(seat);
    }

    /// Requests of these seats have just been answered, all that have been since the clock was last looked at.
    fn have_taken(&mut self, seats: &[usize]) {
        let now = Instant::now();
        let since = self.since.replace(now).unwrap_or(now);
        let each = now.saturating_duration_since(since) / seats.len().max(1) as u32;
        // One that takes for ever says little of the others.
        self.each = (15 * self.each + each.min(LONG)) / 16;
        if each > LONG {
            for seat in seats {
                let took = &mut self.seats[*seat].took;
                if *took == Took::Short {
                    *took = Took::Long;
                }
            }
        }
    }

    /// What the server has sent; up to the end of a ReadyForQuery, if `ready`. `false`: nobody has asked for it.
    fn deliver(&mut self, bytes: &[u8], ready: bool) -> bool {
        let holder = self.holder.map(|seat| Asked { seat, wanted: true });
        let Some(asked) = self.order.front().copied().or(holder) else {
            return false;
        };
        self.begun = !ready;
        if asked.wanted {
            let seat = &mut self.seats[asked.seat];
            seat.inbox.extend_from_slice(bytes);
            seat.wake();
            // What is whole is in nobody's way.
            self.full = !ready && seat.inbox.len() > HELD_MOST;
        }
        if ready {
            self.order.pop_front();
            self.answered += 1;
            if self.phase == Phase::Stuck {
                self.phase = Phase::Open;
            }
        }
        true
    }

    /// One and the same answer was waited for all the time.
    fn is_stuck(&mut self) {
        let front = match self.order.front() {
            // What the seat has asked for since then waits as others do.
            Some(asked) if !asked.wanted => None,
            Some(asked) => Some(asked.seat),
            None => self.holder,
        };
        let others = |asked: &Asked| Some(asked.seat) != front && asked.wanted;
        if !self.order.iter().any(others) && self.held_back.is_empty() {
            return;
        }
        if let Some(front) = front {
            self.seats[front].took = Took::TooLong;
        }
        self.displace_others(front);
        if self.phase == Phase::Open {
            self.phase = Phase::Stuck;
        }
    }

    /// The requests of all seats but this one are to be sent elsewhere, unless their answer has begun to come.
    fn displace_others(&mut self, but: Option<usize>) {
        let begun = usize::from(self.begun);
        let displaced: Vec<usize> = self
            .order
            .iter()
            .skip(begun)
            .filter(|asked| asked.wanted)
            .map(|asked| asked.seat)
            .chain(self.held_back.iter().map(|(seat, _)| *seat))
            .filter(|seat| Some(*seat) != but && Some(*seat) != self.holder)
            .collect();
        for seat in displaced {
            self.forget(seat);
            self.seats[seat].displaced = true;
            self.seats[seat].wake();
            self.displaced += 1;
        }
    }

    /// What a seat has asked for is not wanted any more.
    fn forget(&mut self, seat: usize) {
        self.held_back.retain(|(of, _)| *of != seat);
        for asked in self.order.iter_mut().filter(|asked| asked.seat == seat) {
            asked.wanted = false;
        }
    }

    fn end(&mut self) {
        if self.phase != Phase::Gone {
            self.phase = Phase::Ending;
        }
        wake(&mut self.carrier);
    }

    /// The connection is no more.
    fn lose(&mut self) {
        self.displace_others(None);
        self.phase = Phase::Gone;
        self.order.clear();
        for seat in &mut self.seats {
            seat.lost = true;
            seat.wake();
        }
        wake(&mut self.carrier);
    }

    /// A seat has taken what there was for it.
    fn taken(&mut self) {
        if std::mem::take(&mut self.full) {
            wake(&mut self.carrier);
        }
    }
}

impl SeatState {
    fn wake(&mut self) {
        wake(&mut self.waker);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn register(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        waker => *waker = Some(cx.waker().clone()),
    }
}
