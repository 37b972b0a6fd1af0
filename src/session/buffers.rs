//! Buffers that an event loop lends to whoever is reading just then: an idle session or server connection holds none.

use std::cell::RefCell;

/// What a buffer has room for at first.
pub(crate) const SIZE: usize = 16 * 1024;
/// A buffer that has grown beyond this is given up rather than kept.
const MOST: usize = 64 * 1024;
/// Buffers kept at hand.
const KEPT: usize = 128;

thread_local! {
    /// An event loop is a thread, and no session leaves its own: no lock is needed.
    static AT_HAND: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Gives `buffer` room if it has none.
#[inline]
pub(crate) fn lend(buffer: &mut Vec<u8>) {
    if buffer.capacity() == 0 {
        let kept = AT_HAND.with_borrow_mut(Vec::pop);
        *buffer = kept.unwrap_or_else(|| Vec::with_capacity(SIZE));
    }
}

/// Takes an empty buffer's room back; one that holds something keeps it.
#[inline]
pub(crate) fn take_back(buffer: &mut Vec<u8>) {
    if !buffer.is_empty() || buffer.capacity() == 0 {
        return;
    }
    let buffer = std::mem::take(buffer);
    if (SIZE..=MOST).contains(&buffer.capacity()) {
        AT_HAND.with_borrow_mut(|kept| {
            if kept.len() < KEPT {
                kept.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lends_room_and_takes_back_only_what_is_empty() {
        let at_hand = || AT_HAND.with_borrow(Vec::len);
        let mut one = Vec::new();
        lend(&mut one);
        assert!(one.capacity() >= SIZE);
        one.push(1);
        take_back(&mut one);
        assert_eq!(one, [1], "it holds something");
        one.clear();
        take_back(&mut one);
        assert_eq!((one.capacity(), at_hand()), (0, 1));
        let mut huge = Vec::with_capacity(MOST + 1);
        take_back(&mut huge);
        assert_eq!(at_hand(), 1, "too large to keep");
    }
}
