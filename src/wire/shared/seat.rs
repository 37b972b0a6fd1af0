//! A client's seat on a shared connection, which is used as a socket would be.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::carrier::READ_MOST;
use super::{Displaced, Phase, SeatState, Shared, Took, register};

/// A seat on a shared connection.
#[derive(Debug)]
pub struct Seat {
    pub(super) shared: Arc<Shared>,
    pub(super) id: usize,
}

impl Seat {
    /// Its number on its connection.
    pub fn id(&self) -> usize {
        self.id
    }

    /// The connection.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Whether its request was displaced.
    pub fn is_displaced(&self) -> bool {
        self.shared.lock().seats[self.id].displaced
    }

    /// Makes it ready for another request. Says how long the last one took.
    pub fn begin_anew(&self) -> Took {
        let seat = &mut self.shared.lock().seats[self.id];
        seat.displaced = false;
        match seat.inbox.capacity() > READ_MOST {
            true => seat.inbox = Vec::new(),
            false => seat.inbox.clear(),
        }
        std::mem::take(&mut seat.took)
    }

    pub(in crate::wire) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.shared.lock();
        let seat = &mut state.seats[self.id];
        let n = seat.inbox.len();
        if n == 0 {
            return match Self::end(seat) {
                Some(end) => Poll::Ready(end),
                None => {
                    register(&mut seat.waker, cx);
                    Poll::Pending
                }
            };
        }
        if buf.is_empty() {
            std::mem::swap(buf, &mut seat.inbox);
        } else {
            buf.extend_from_slice(&seat.inbox);
        }
        seat.inbox.clear();
        state.taken();
        Poll::Ready(Ok(n))
    }

    fn end(seat: &SeatState) -> Option<io::Result<usize>> {
        if seat.displaced {
            return Some(Err(io::Error::other(Displaced)));
        }
        seat.lost.then_some(Ok(0))
    }

    pub(in crate::wire) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.shared.lock();
        let seat = &mut state.seats[self.id];
        let n = seat.inbox.len().min(buf.len());
        if n == 0 {
            return Self::end(seat).unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()));
        }
        buf[..n].copy_from_slice(&seat.inbox[..n]);
        seat.inbox.drain(..n);
        state.taken();
        Ok(n)
    }

    pub(in crate::wire) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.shared.lock();
        if let Some(Err(fault)) = Self::end(&state.seats[self.id]) {
            return Err(fault);
        }
        if state.phase == Phase::Gone {
            if state.holder == Some(self.id) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            // It has not been sent to anybody.
            state.seats[self.id].displaced = true;
            return Err(io::Error::other(Displaced));
        }
        state.send(self.id, bytes);
        Ok(bytes.len())
    }

    pub(in crate::wire) fn may_read(&self) -> bool {
        let state = self.shared.lock();
        let seat = &state.seats[self.id];
        !seat.inbox.is_empty() || seat.displaced || seat.lost
    }

    pub(in crate::wire) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        let seat = &mut state.seats[self.id];
        if !seat.inbox.is_empty() || seat.displaced || seat.lost {
            return Poll::Ready(Ok(()));
        }
        register(&mut seat.waker, cx);
        Poll::Pending
    }
}

impl Drop for Seat {
    /// Its answer, if one is to come, is thrown away. What was prepared over it stays on the server: the connection ends soon.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let holds = state.holder == Some(self.id);
        state.seats[self.id].inbox = Vec::new();
        state.forget(self.id);
        state.taken();
        state.end();
        if holds {
            // No Sync will come.
            state.lose();
        }
    }
}
