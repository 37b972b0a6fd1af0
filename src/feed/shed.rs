//! Load shedding: the more requests are under way, the shorter the pages, and beyond a number none is begun.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// No level is higher.
pub const LEVEL_MOST: u8 = 3;
/// No page is shorter for load.
const PAGE_LEAST: usize = 10;
/// Requests that are under way at once if nothing else is said.
pub const UNDER_WAY: usize = 512;
/// In `by_hand`: the level follows the load.
const AUTOMATIC: u8 = u8::MAX;

/// The requests that are under way, and what that means for pages.
#[derive(Debug)]
pub struct Shed {
    under_way: AtomicUsize,
    most: usize,
    by_hand: AtomicU8,
}

/// A request that is under way.
#[derive(Debug)]
pub struct UnderWay<'a>(&'a Shed);

impl Shed {
    /// With room for `most` requests at once.
    #[must_use]
    pub fn new(most: usize) -> Shed {
        Shed {
            under_way: AtomicUsize::new(0),
            most: most.max(1),
            by_hand: AtomicU8::new(AUTOMATIC),
        }
    }

    /// Room for one more request. `None`: there is none.
    #[must_use]
    pub fn begin(&self) -> Option<UnderWay<'_>> {
        let before = self.under_way.fetch_add(1, Ordering::Relaxed);
        let begun = UnderWay(self);
        (before < self.most).then_some(begun)
    }

    /// 0: pages are as long as asked for; each further level halves them.
    #[must_use]
    pub fn level(&self) -> u8 {
        let by_hand = self.by_hand.load(Ordering::Relaxed);
        if by_hand != AUTOMATIC {
            return by_hand;
        }
        let full = self.under_way.load(Ordering::Relaxed) * 100 / self.most;
        match full {
            0..50 => 0,
            50..75 => 1,
            75..90 => 2,
            _ => LEVEL_MOST,
        }
    }

    /// From now on the level is this, or follows the load.
    pub fn set(&self, level: Option<u8>) {
        let level = level.map_or(AUTOMATIC, |l| l.min(LEVEL_MOST));
        self.by_hand.store(level, Ordering::Relaxed);
    }

    /// Whether the level was set by hand.
    #[must_use]
    pub fn is_by_hand(&self) -> bool {
        self.by_hand.load(Ordering::Relaxed) != AUTOMATIC
    }

    /// How long a page is that was to be this long, and the level that it is for.
    #[must_use]
    pub fn page(&self, most: usize) -> (usize, u8) {
        let level = self.level();
        ((most >> level).max(most.min(PAGE_LEAST)), level)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_get_shorter_and_in_the_end_requests_wait_outside() {
        let shed = Shed::new(4);
        let page = |shed: &Shed| (shed.level(), shed.page(100).0, shed.page(5).0);
        let first = shed.begin().unwrap();
        assert_eq!(page(&shed), (0, 100, 5));
        let second = shed.begin().unwrap();
        assert_eq!(page(&shed), (1, 50, 5));
        let third = shed.begin().unwrap();
        assert_eq!(page(&shed), (2, 25, 5));
        let fourth = shed.begin().unwrap();
        assert_eq!(page(&shed), (3, 12, 5));
        assert!(shed.begin().is_none());
        drop((second, third, fourth));
        assert_eq!(page(&shed), (0, 100, 5));
        shed.set(Some(9));
        assert_eq!((page(&shed), shed.is_by_hand()), ((3, 12, 5), true));
        shed.set(None);
        assert_eq!(page(&shed), (0, 100, 5));
        drop(first);
    }
}
