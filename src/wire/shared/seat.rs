//! A client's place on a shared connection, which is used as a socket would be.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::{Displaced, Phase, Place, Shared, Took, register};

/// A place on a shared connection.
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
        self.shared.lock().places[self.id].displaced
    }

    /// Makes it ready for another request. Says how long the last one took.
    pub fn begin_anew(&self) -> Took {
        let place = &mut self.shared.lock().places[self.id];
        place.displaced = false;
        place.inbox.clear();
        std::mem::take(&mut place.took)
    }

    pub(in crate::wire) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.shared.lock();
        let place = &mut state.places[self.id];
        let n = place.inbox.len();
        if n == 0 {
            return match Self::end(place) {
                Some(end) => Poll::Ready(end),
                None => {
                    register(&mut place.waker, cx);
                    Poll::Pending
                }
            };
        }
        if buf.is_empty() {
            std::mem::swap(buf, &mut place.inbox);
        } else {
            buf.extend_from_slice(&place.inbox);
        }
        place.inbox.clear();
        state.taken();
        Poll::Ready(Ok(n))
    }

    fn end(place: &Place) -> Option<io::Result<usize>> {
        if place.displaced {
            return Some(Err(io::Error::other(Displaced)));
        }
        place.lost.then_some(Ok(0))
    }

    pub(in crate::wire) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.shared.lock();
        let place = &mut state.places[self.id];
        let n = place.inbox.len().min(buf.len());
        if n == 0 {
            return Self::end(place).unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()));
        }
        buf[..n].copy_from_slice(&place.inbox[..n]);
        place.inbox.drain(..n);
        state.taken();
        Ok(n)
    }

    pub(in crate::wire) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.shared.lock();
        if let Some(Err(fault)) = Self::end(&state.places[self.id]) {
            return Err(fault);
        }
        if state.phase == Phase::Gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        state.send(self.id, bytes);
        Ok(bytes.len())
    }

    pub(in crate::wire) fn may_read(&self) -> bool {
        let state = self.shared.lock();
        let place = &state.places[self.id];
        !place.inbox.is_empty() || place.displaced || place.lost
    }

    pub(in crate::wire) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        let place = &mut state.places[self.id];
        if !place.inbox.is_empty() || place.displaced || place.lost {
            return Poll::Ready(Ok(()));
        }
        register(&mut place.waker, cx);
        Poll::Pending
    }
}

impl Drop for Seat {
    /// Its answer, if one is to come, is thrown away. What was prepared over it stays on the server: the connection ends soon.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let holds = state.holder == Some(self.id);
        state.places[self.id].inbox = Vec::new();
        state.forget(self.id);
        state.taken();
        state.end();
        if holds {
            // No Sync will come.
            state.lose();
        }
    }
}
