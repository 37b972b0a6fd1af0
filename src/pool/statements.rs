//! Which server-side statements a server connection holds: a capped cache of (statement, shard) with the clock algorithm.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use hashbrown::HashMap;

/// What one server-side statement stands for: a statement's number (text and parameter types) and the shard whose
/// schema is written into it (`u32::MAX` where no schema is).
pub type StatementKey = (u64, u32);

/// The shard part of a [`StatementKey`] whose text names no shard.
pub const NO_SHARD: u32 = u32::MAX;

struct Held {
    name: u32,
    used: bool,
    described: bool,
}

/// The statements of one server connection. Names are `presplit_<n>`; a name is never given twice on one connection,
/// so that a reply which comes late cannot be taken for another statement's.
pub struct Statements {
    held: HashMap<StatementKey, Held, foldhash::fast::RandomState>,
    clock: VecDeque<StatementKey>,
    /// Names of which it is not known whether the server has a statement by them.
    doubtful: Vec<u32>,
    all: Arc<All>,
    cap: usize,
}

/// What several caches of one connection have in common.
#[derive(Default)]
struct All {
    /// The next name.
    next: AtomicU32,
    /// How many statements all of them hold on the server.
    held: AtomicUsize,
}

/// What to do for a statement that the server connection does not hold yet.
pub struct Added {
    /// Parse it under this name.
    pub name: u32,
    /// Close this one first: the cache is full.
    pub evicted: Option<u32>,
}

impl Statements {
    /// An empty cache that holds at most `cap` statements (at least 1).
    pub fn new(cap: usize) -> Statements {
        Statements::of(Arc::default(), cap)
    }

    /// An empty cache of the same connection: no name is given twice by both, and they hold at most `cap` statements together
    /// (but one each).
    pub(super) fn beside(&self, cap: usize) -> Statements {
        Statements::of(self.all.clone(), cap)
    }

    fn of(all: Arc<All>, cap: usize) -> Statements {
        Statements {
            held: HashMap::default(),
            clock: VecDeque::new(),
            doubtful: Vec::new(),
            all,
            cap: cap.max(1),
        }
    }

    /// The name under which this connection holds the statement; marks it as used.
    pub fn get(&mut self, key: StatementKey) -> Option<u32> {
        let held = self.held.get_mut(&key)?;
        held.used = true;
        Some(held.name)
    }

    /// Whether this connection holds the statement. Does not count as a use.
    pub fn contains(&self, key: &StatementKey) -> bool {
        self.held.contains_key(key)
    }

    /// Whether the server has said what the statement's columns are: they stay so on this connection, or it refuses to run it.
    pub fn is_described(&self, key: &StatementKey) -> bool {
        self.held.get(key).is_some_and(|held| held.described)
    }

    /// It has said so.
    pub fn note_described(&mut self, key: &StatementKey) {
        if let Some(held) = self.held.get_mut(key) {
            held.described = true;
        }
    }

    /// Notes that the statement is being parsed on this connection. `key` must not be held.
    pub fn add(&mut self, key: StatementKey) -> Added {
        let evicted = self.doubtful.pop().or_else(|| {
            let full = self.all.held.load(Ordering::Relaxed) >= self.cap;
            full.then(|| self.evict()).flatten()
        });
        self.freed(usize::from(evicted.is_some()));
        self.all.held.fetch_add(1, Ordering::Relaxed);
        let name = self.all.next.fetch_add(1, Ordering::Relaxed);
        let held = Held {
            name,
            used: false,
            described: false,
        };
        self.held.insert(key, held);
        self.clock.push_back(key);
        Added { name, evicted }
    }

    /// Forgets a statement whose Parse the server refused.
    pub fn forget(&mut self, name: u32) {
        let removed = self.remove(name);
        self.freed(usize::from(removed));
    }

    /// Whether the server has parsed this one will not be known: it is closed before another is added. (To close one that is
    /// not there is no error: protocol chapter, "Extended Query".)
    pub fn doubt(&mut self, name: u32) {
        if self.remove(name) {
            self.doubtful.push(name);
        }
    }

    fn remove(&mut self, name: u32) -> bool {
        let named = |(key, held): (&StatementKey, &Held)| (held.name == name).then_some(*key);
        let Some(key) = self.held.iter().find_map(named) else {
            return false;
        };
        self.held.remove(&key);
        self.clock.retain(|k| *k != key);
        true
    }

    /// So many fewer are on the server.
    fn freed(&self, count: usize) {
        self.all.held.fetch_sub(count, Ordering::Relaxed);
    }

    /// Forgets all (after `DISCARD ALL` or `DEALLOCATE ALL` on the server).
    pub fn clear(&mut self) {
        self.freed(self.held.len() + self.doubtful.len());
        self.held.clear();
        self.clock.clear();
        self.doubtful.clear();
    }

    /// How many statements are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Takes out the first in the clock that was not used since the hand last passed it.
    fn evict(&mut self) -> Option<u32> {
        loop {
            let key = self.clock.pop_front()?;
            match self.held.get_mut(&key) {
                Some(held) if held.used => {
                    held.used = false;
                    self.clock.push_back(key);
                }
                Some(_) => return self.held.remove(&key).map(|h| h.name),
                None => {}
            }
        }
    }
}

impl Drop for Statements {
    fn drop(&mut self) {
        self.freed(self.held.len() + self.doubtful.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_at_most_its_cap_and_spares_what_is_used() {
        let mut s = Statements::new(2);
        assert_eq!(s.add((1, 0)).name, 0);
        assert_eq!(s.add((2, 0)).name, 1);
        assert_eq!(s.get((1, 0)), Some(0));
        let third = s.add((3, 0));
        assert_eq!(
            (third.name, third.evicted),
            (2, Some(1)),
            "statement 1 was used, so 2 goes"
        );
        assert!(s.contains(&(1, 0)) && !s.contains(&(2, 0)));
        assert_eq!(s.len(), 2);
    }

    #[test]
    fn shards_and_statements_are_kept_apart() {
        let mut s = Statements::new(10);
        s.add((1, 0));
        assert_eq!(s.get((1, 1)), None);
        assert_eq!(s.get((2, 0)), None);
    }

    #[test]
    fn a_refused_parse_is_forgotten_and_its_name_not_given_again() {
        let mut s = Statements::new(10);
        let a = s.add((1, 0)).name;
        s.forget(a);
        assert!(s.is_empty());
        assert_ne!(s.add((1, 0)).name, a);
    }

    #[test]
    fn caches_of_one_connection_hold_no_more_than_one_would() {
        let first = Statements::new(4);
        let (mut a, mut b) = (first.beside(4), first.beside(4));
        let names: Vec<u32> = (0..3).map(|n| a.add((n, 0)).name).collect();
        assert_eq!(b.add((0, 0)).evicted, None);
        assert_eq!(a.add((3, 0)).evicted, Some(names[0]), "four are held");
        assert_eq!(b.add((1, 0)).evicted, Some(3), "its own");
        drop(a);
        assert_eq!(b.add((2, 0)).evicted, None);
        let mut c = first.beside(1);
        assert_eq!(c.add((0, 0)).evicted, None, "one each");
        assert_eq!((b.len(), c.len()), (2, 1));
    }

    #[test]
    fn what_may_not_be_there_is_closed_before_another_is_added() {
        let mut s = Statements::new(2);
        let (doubtful, other) = (s.add((1, 0)).name, s.add((2, 0)).name);
        s.doubt(doubtful);
        assert!(!s.contains(&(1, 0)));
        assert_eq!(s.add((1, 0)).evicted, Some(doubtful));
        assert_eq!(s.add((3, 0)).evicted, Some(other), "it is full again");
    }
}
