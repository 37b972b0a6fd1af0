//! The server's side of a shared connection: what the seats ask goes out, what comes is dealt out to them.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::{Instant, Sleep};

use super::{Phase, Shared, State, register};
use crate::wire::frame;
use crate::wire::stream::Stream;

/// What has had to wait behind one and the same answer for longer than this, and at most twice as long, is displaced.
pub(super) const PATIENCE: Duration = Duration::from_millis(25);

/// The most that is read at once.
pub(super) const READ_MOST: usize = 64 * 1024;

/// The server's side.
#[derive(Default)]
struct Carrier {
    /// What is being written, of which `sent` bytes are.
    writing: Vec<u8>,
    sent: usize,
    /// What was read and not delivered: less than a header.
    inbox: Vec<u8>,
    /// Bytes of the message in the middle of which the last read ended.
    rest: usize,
    /// That message is ReadyForQuery.
    ready: bool,
    /// The timer runs; so much was answered when it was set.
    ticks: bool,
    seen: u64,
}

impl Carrier {
    /// Ready when the connection is over.
    fn poll(&mut self, shared: &Shared, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let reads = {
                let mut state = shared.lock();
                if state.phase == Phase::Gone
                    || state.phase == Phase::Ending
                        && state.order.is_empty()
                        && state.out.is_empty()
                        && state.holder.is_none()
                {
                    return Poll::Ready(());
                }
                if self.sent == self.writing.len() && !state.out.is_empty() {
                    self.writing.clear();
                    self.sent = 0;
                    std::mem::swap(&mut self.writing, &mut state.out);
                }
                register(&mut state.carrier, cx);
                !state.full
            };
            let mut moved = false;
            if self.sent < self.writing.len() {
                match stream.poll_write(cx, &self.writing[self.sent..]) {
                    Poll::Ready(Ok(n @ 1..)) => (self.sent, moved) = (self.sent + n, true),
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            if reads {
                if self.inbox.capacity() < READ_MOST {
                    self.inbox.reserve_exact(READ_MOST - self.inbox.len());
                }
                match stream.poll_read(cx, &mut self.inbox) {
                    Poll::Ready(Ok(1..)) => {
                        moved = true;
                        if !self.deliver(&mut shared.lock()) {
                            return Poll::Ready(());
                        }
                    }
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            if !moved {
                return Poll::Pending;
            }
        }
    }

    /// Gives what was read to the seats. `false`: it is nobody's, or no message.
    fn deliver(&mut self, state: &mut State) -> bool {
        let bytes = &self.inbox[..];
        let mut answered: SmallVec<[usize; 16]> = SmallVec::new();
        let (mut start, mut at) = (0, 0);
        loop {
            let n = self.rest.min(bytes.len() - at);
            (at, self.rest) = (at + n, self.rest - n);
            if self.rest > 0 {
                break;
            }
            if std::mem::take(&mut self.ready) {
                answered.extend(state.order.front().map(|asked| asked.seat));
                if !state.deliver(&bytes[start..at], true) {
                    return false;
                }
                start = at;
            }
            match frame::header(&bytes[at..]) {
                Ok(Some(header)) => {
                    self.rest = header.len;
                    self.ready = header.tag == b'Z';
                }
                Ok(None) => break,
                Err(_) => return false,
            }
        }
        if start < at && !state.deliver(&bytes[start..at], false) {
            return false;
        }
        self.inbox.drain(..at);
        if !answered.is_empty() {
            state.have_taken(&answered);
        }
        true
    }
}

impl Shared {
    /// Moves bytes between the server and the seats until the connection is lost, or ended by [`Shared::end`] and all answered.
    pub async fn carry(&self, mut stream: Stream) {
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        let mut carrier = Carrier::default();
        poll_fn(|cx| match carrier.poll(self, &mut stream, cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.poll_patience(&mut carrier, timer.as_mut(), cx),
        })
        .await;
        self.lock().lose();
    }

    /// While anything is under way: displaces what waits too long. Never ready.
    fn poll_patience(
        &self,
        carrier: &mut Carrier,
        mut timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            if !carrier.ticks {
                let state = self.lock();
                if state.order.is_empty() && state.held_back.is_empty() {
                    return Poll::Pending;
                }
                (carrier.ticks, carrier.seen) = (true, state.answered);
                timer.as_mut().reset(Instant::now() + PATIENCE);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            carrier.ticks = false;
            let mut state = self.lock();
            if state.answered == carrier.seen {
                state.is_stuck();
            }
        }
    }
}
