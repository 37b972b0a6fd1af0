//! Buffers that an event loop lends to whoever is reading just then: an idle session or server connection holds none.

use std::sync::Mutex;

/// What a buffer has room for at first.
pub(crate) const SIZE: usize = 16 * 1024;
/// A buffer that has grown beyond this is given up rather than kept.
const MOST: usize = 64 * 1024;
/// Buffers kept at hand.
const KEPT: usize = 128;

/// The buffers of one event loop.
#[derive(Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Gives `buffer` room if it has none.
    pub(crate) fn lend(&self, buffer: &mut Vec<u8>) {
        if buffer.capacity() == 0 {
            *buffer = self
                .lock()
                .pop()
                .unwrap_or_else(|| Vec::with_capacity(SIZE));
        }
    }

    /// Takes an empty buffer's room back; one that holds something keeps it.
    pub(crate) fn take_back(&self, buffer: &mut Vec<u8>) {
        if !buffer.is_empty() || buffer.capacity() == 0 {
            return;
        }
        let buffer = std::mem::take(buffer);
        if (SIZE..=MOST).contains(&buffer.capacity()) {
            let mut kept = self.lock();
            if kept.len() < KEPT {
                kept.push(buffer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lends_room_and_takes_back_only_what_is_empty() {
        let buffers = Buffers::default();
        let mut one = Vec::new();
        buffers.lend(&mut one);
        assert!(one.capacity() >= SIZE);
        one.push(1);
        buffers.take_back(&mut one);
        assert_eq!(one, [1], "it holds something");
        one.clear();
        buffers.take_back(&mut one);
        assert_eq!((one.capacity(), buffers.lock().len()), (0, 1));
        let mut huge = Vec::with_capacity(MOST + 1);
        buffers.take_back(&mut huge);
        assert_eq!(buffers.lock().len(), 1, "too large to keep");
    }
}
