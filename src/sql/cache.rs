//! The plan cache: a front per worker (no lock, no atomic) before one shared by all. Keys are whole shapes, compared
//! in full. Nothing is invalidated: when the catalog changes the owner drops both and begins anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, Weighter};

/// How much a [`Shared`] may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At most about this many entries.
    pub entries: usize,
    /// At most about this many bytes of keys.
    pub key_bytes: u64,
    /// Keys longer than this are not kept.
    pub longest_key: usize,
}

/// What a cache has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Look-ups that found their key.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Entries given up for others.
    pub evictions: u64,
    /// Keys too long to be kept.
    pub bypassed: u64,
}

impl Counters {
    /// The sum of both, for the counters of several workers.
    pub fn plus(self, other: Counters) -> Counters {
        Counters {
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            evictions: self.evictions + other.evictions,
            bypassed: self.bypassed + other.bypassed,
        }
    }
}

/// The cache that all workers share.
pub struct Shared<V> {
    plans: Cache<Box<[u8]>, Arc<V>, Weight, DefaultHashBuilder, CountEvictions>,
    longest_key: usize,
    evictions: Arc<AtomicU64>,
    hits: AtomicU64,
    misses: AtomicU64,
    bypassed: AtomicU64,
}

/// An entry weighs its key's bytes, and at least its share of them, so that one sum keeps both limits.
#[derive(Clone)]
struct Weight {
    least: u64,
}

impl<V> Weighter<Box<[u8]>, V> for Weight {
    fn weight(&self, key: &Box<[u8]>, _: &V) -> u64 {
        self.least.max(key.len() as u64)
    }
}

#[derive(Clone)]
struct CountEvictions(Arc<AtomicU64>);

impl<K, V> Lifecycle<K, V> for CountEvictions {
    type RequestState = ();

    fn on_evict(&self, _: &mut (), _: K, _: V) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl<V> Shared<V> {
    /// An empty cache.
    pub fn new(limits: Limits) -> Self {
        let entries = limits.entries.max(1);
        let evictions = Arc::new(AtomicU64::new(0));
        let weight = Weight {
            least: (limits.key_bytes / entries as u64).max(1),
        };
        let count = CountEvictions(evictions.clone());
        Shared {
            plans: Cache::with(
                entries,
                limits.key_bytes.max(1),
                weight,
                DefaultHashBuilder::default(),
                count,
            ),
            longest_key: limits.longest_key,
            evictions,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            bypassed: AtomicU64::new(0),
        }
    }

    /// The value of `key`, made and kept if it isn't there. Two workers that miss at once both make it: no lock is held meanwhile.
    pub fn get_or_insert_with(&self, key: &[u8], make: impl FnOnce() -> Arc<V>) -> Arc<V> {
        if key.len() > self.longest_key {
            self.bypassed.fetch_add(1, Ordering::Relaxed);
            return make();
        }
        if let Some(value) = self.plans.get(key) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return value;
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let value = make();
        self.plans.insert(key.into(), value.clone());
        value
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.plans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    /// What it has done.
    pub fn counters(&self) -> Counters {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Counters {
            hits: read(&self.hits),
            misses: read(&self.misses),
            evictions: read(&self.evictions),
            bypassed: read(&self.bypassed),
        }
    }
}

/// One worker's own cache: a hash map whose full half is swept when it is full.
pub struct Front<V> {
    plans: HashMap<Box<[u8]>, Slot<V>, foldhash::fast::RandomState>,
    entries: usize,
    counters: Counters,
}

struct Slot<V> {
    value: Arc<V>,
    /// Looked up since the last sweep.
    used: bool,
}

impl<V> Front<V> {
    /// An empty cache of at most `entries` (at least 1); memory is taken as it fills.
    pub fn new(entries: usize) -> Self {
        Front {
            plans: HashMap::default(),
            entries: entries.max(1),
            counters: Counters::default(),
        }
    }

    /// The value of `key`, if this worker has it.
    pub fn get(&mut self, key: &[u8]) -> Option<Arc<V>> {
        let Some(slot) = self.plans.get_mut(key) else {
            self.counters.misses += 1;
            return None;
        };
        self.counters.hits += 1;
        slot.used = true;
        Some(slot.value.clone())
    }

    /// The value of `key` from here, else from `shared`, else made. A key longer than `shared` keeps isn't kept here either.
    pub fn get_or_insert_with(
        &mut self,
        shared: &Shared<V>,
        key: &[u8],
        make: impl FnOnce() -> Arc<V>,
    ) -> Arc<V> {
        if key.len() > shared.longest_key {
            return shared.get_or_insert_with(key, make);
        }
        if let Some(value) = self.get(key) {
            return value;
        }
        let value = shared.get_or_insert_with(key, make);
        if self.plans.len() >= self.entries {
            self.sweep();
        }
        self.plans.insert(
            key.into(),
            Slot {
                value: value.clone(),
                used: false,
            },
        );
        value
    }

    /// Keeps what was looked up again since the last sweep; if that is more than half, nothing.
    fn sweep(&mut self) {
        let before = self.plans.len();
        self.plans.retain(|_, slot| std::mem::take(&mut slot.used));
        if self.plans.len() > self.entries / 2 {
            self.plans.clear();
        }
        self.counters.evictions += (before - self.plans.len()) as u64;
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.plans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    /// What it has done.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(entries: usize) -> Limits {
        Limits {
            entries,
            key_bytes: 1 << 20,
            longest_key: 1000,
        }
    }

    #[test]
    fn a_value_is_made_once_and_found_by_every_worker() {
        let shared = Shared::new(limits(100));
        let (mut a, mut b) = (Front::new(10), Front::new(10));
        assert!(a.get(b"k").is_none());
        let made = a.get_or_insert_with(&shared, b"k", || Arc::new(1));
        assert!(Arc::ptr_eq(
            &made,
            &a.get_or_insert_with(&shared, b"k", || unreachable!())
        ));
        assert!(Arc::ptr_eq(
            &made,
            &b.get_or_insert_with(&shared, b"k", || unreachable!())
        ));
        assert_eq!(*b.get_or_insert_with(&shared, b"K", || Arc::new(2)), 2);
        assert_eq!(
            a.counters(),
            Counters {
                hits: 1,
                misses: 2,
                ..Counters::default()
            }
        );
        assert_eq!(
            shared.counters(),
            Counters {
                hits: 1,
                misses: 2,
                ..Counters::default()
            }
        );
    }

    #[test]
    fn a_front_stays_within_its_entries_and_keeps_what_is_used() {
        let shared = Shared::new(limits(100_000));
        let mut front = Front::new(64);
        for n in 0..10_000u32 {
            front.get_or_insert_with(&shared, b"hot", || Arc::new(n));
            front.get_or_insert_with(&shared, &n.to_le_bytes(), || Arc::new(n));
            assert!(front.len() <= 64);
        }
        assert_eq!(front.get(b"hot").as_deref(), Some(&0));
        assert_eq!(
            front.counters().misses,
            10_001,
            "the hot key was never lost"
        );
        assert_eq!(front.counters().evictions, 10_001 - front.len() as u64);
    }

    #[test]
    fn a_front_whose_every_entry_is_used_still_takes_new_ones() {
        let shared = Shared::new(limits(1000));
        let mut front = Front::new(4);
        for n in 0..100u8 {
            front.get_or_insert_with(&shared, &[n], || Arc::new(n));
            assert_eq!(front.get(&[n]).as_deref(), Some(&n));
            assert!(front.len() <= 4);
        }
    }

    #[test]
    fn the_shared_cache_stays_within_both_limits() {
        let wide = Limits {
            entries: 1000,
            key_bytes: 1_000_000,
            longest_key: 100_000,
        };
        let shared = Shared::new(wide);
        for n in 0..10_000u32 {
            shared.get_or_insert_with(&n.to_le_bytes(), || Arc::new(()));
        }
        assert!(shared.len() <= 1000, "{}", shared.len());
        assert!(shared.len() > 500, "{}", shared.len());
        assert!(shared.counters().evictions >= 9000);
        let shared = Shared::new(wide);
        for n in 0..1000u32 {
            let mut key = vec![b'x'; 10_000];
            key.extend(n.to_le_bytes());
            shared.get_or_insert_with(&key, || Arc::new(()));
        }
        assert!(
            (50..=100).contains(&shared.len()),
            "{} long keys",
            shared.len()
        );
    }

    #[test]
    fn a_long_key_is_not_kept() {
        let shared = Shared::new(Limits {
            entries: 10,
            key_bytes: 1000,
            longest_key: 3,
        });
        let mut front = Front::new(10);
        for n in 0..2 {
            assert_eq!(
                *front.get_or_insert_with(&shared, b"long", || Arc::new(n)),
                n
            );
        }
        assert!(front.is_empty() && shared.is_empty());
        assert_eq!(shared.counters().bypassed, 2);
        assert_eq!(
            *front.get_or_insert_with(&shared, b"sho", || Arc::new(7)),
            7
        );
        assert_eq!(front.get(b"sho").as_deref(), Some(&7));
    }

    #[test]
    fn both_may_cross_threads() {
        fn check<T: Send + Sync>() {}
        check::<Shared<String>>();
        check::<Front<String>>();
    }
}
