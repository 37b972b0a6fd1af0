//! The map in force and its replacement while the proxy runs: load, validate, compare, print the difference, swap.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::{Fault, ShardMap};

/// A shard map is text for people; a file beyond this is a mistake and not read.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// How the last load of the file went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastLoad {
    /// The file says what is in force.
    Good,
    /// The file says something that can't be used; the map before it is still in force.
    Bad {
        /// What is wrong, as of the last try.
        faults: Vec<Fault>,
        /// Since when the file has been bad, whatever its faults were in the meantime.
        since: SystemTime,
    },
}

/// How many loads went well and how many did not, since the start. Loads that found nothing new count as good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadCounts {
    /// Unchanged or changed.
    pub good: u64,
    /// Refused.
    pub bad: u64,
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// The file means what is already in force.
    Unchanged,
    /// A new map is in force.
    Changed {
        /// What is different, in a DBA's words; see [`ShardMap::difference`].
        difference: Vec<String>,
    },
    /// The file can't be used; nothing changed.
    Refused(Vec<Fault>),
}

/// The map in force. Cheap to clone: all clones share it.
#[derive(Clone, Debug)]
pub struct MapHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    map: ArcSwap<ShardMap>,
    /// `None`: made by [`MapHandle::fixed`].
    path: Option<PathBuf>,
    /// Held through a reload, so that two can't overtake each other. A `std` mutex: never held across an await.
    state: Mutex<State>,
    /// The version of the map in force, sent after each swap.
    swapped: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    last: LastLoad,
    counts: LoadCounts,
    /// Hash of the content that was last logged as bad, so that one content is logged once.
    logged: Option<u64>,
    hasher: RandomState,
}

impl MapHandle {
    /// Loads `path`, the file that later reloads read again.
    pub fn open(path: &Path) -> Result<MapHandle, Vec<Fault>> {
        Ok(MapHandle::new(ShardMap::load(path)?, Some(path.to_owned())))
    }

    /// A map without a file: a reload finds it unchanged.
    pub fn fixed(map: ShardMap) -> MapHandle {
        MapHandle::new(map, None)
    }

    fn new(map: ShardMap, path: Option<PathBuf>) -> MapHandle {
        let (swapped, _) = watch::channel(map.version);
        let state = State {
            last: LastLoad::Good,
            counts: LoadCounts { good: 1, bad: 0 },
            logged: None,
            hasher: RandomState::new(),
        };
        MapHandle(Arc::new(Shared {
            map: ArcSwap::from_pointee(map),
            path,
            state: Mutex::new(state),
            swapped,
        }))
    }

    /// The map in force, to keep for as long as a transaction needs it.
    pub fn current(&self) -> Arc<ShardMap> {
        self.0.map.load_full()
    }

    /// The map in force, to look at and let go: a few nanoseconds, no reference count. Not to be held across an await.
    pub fn load(&self) -> Guard<Arc<ShardMap>> {
        self.0.map.load()
    }

    /// The file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// How the last load went, for `SHOW MAP` and the metrics.
    pub fn last_load(&self) -> LastLoad {
        self.state().last.clone()
    }

    /// How many loads went well and how many did not.
    pub fn counts(&self) -> LoadCounts {
        self.state().counts
    }

    /// Wakes whoever waits on it after each swap. Its value is the new map's version, which a change outside `[map]`
    /// leaves as it was; read the map itself by [`MapHandle::load`].
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.swapped.subscribe()
    }

    /// Reads the file again and puts what it means in force, or says why not. A bad file changes nothing.
    pub fn reload(&self) -> ReloadOutcome {
        let Some(path) = &self.0.path else {
            return ReloadOutcome::Unchanged;
        };
        let mut state = self.state();
        let running = self.current();
        // 1. load and validate, 2. compare with what runs: shards, function, schema, version.
        let text = read(path);
        let read = text.clone().map_err(|fault| vec![fault]).and_then(|text| {
            let file = path.display().to_string();
            let map = super::validate::map(&file, &text, &|name| std::env::var(name).ok())?;
            let refused = map.check_against(&running);
            if refused.is_empty() {
                Ok(map)
            } else {
                Err(refused)
            }
        });
        match read {
            Err(faults) => {
                state.refuse(text.as_deref().unwrap_or_default(), &faults);
                ReloadOutcome::Refused(faults)
            }
            Ok(map) => {
                state.accept();
                if map == *running {
                    return ReloadOutcome::Unchanged;
                }
                // 3. print the difference, 4. swap, 5. tell those who wait.
                let difference = map.difference(&running);
                let version = map.version;
                for line in &difference {
                    tracing::info!(version, "shard map: {line}");
                }
                self.0.map.store(Arc::new(map));
                self.0.swapped.send_replace(version);
                ReloadOutcome::Changed { difference }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock half changed, so a poisoned state is still whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn accept(&mut self) {
        self.counts.good += 1;
        self.logged = None;
        if self.last != LastLoad::Good {
            tracing::info!("shard map: the file is good again");
            self.last = LastLoad::Good;
        }
    }

    fn refuse(&mut self, text: &str, faults: &[Fault]) {
        self.counts.bad += 1;
        // The faults too: they change with the running map and the environment.
        let content = self.hasher.hash_one((text, faults));
        if self.logged.replace(content) != Some(content) {
            for fault in faults {
                tracing::error!("shard map not loaded, the one in force stays: {fault}");
            }
        }
        let since = match self.last {
            LastLoad::Bad { since, .. } => since,
            LastLoad::Good => SystemTime::now(),
        };
        self.last = LastLoad::Bad {
            faults: faults.to_vec(),
            since,
        };
    }
}

/// The file's text. The fault says why it can't be read.
pub(super) fn read(path: &Path) -> Result<String, Fault> {
    let fault = |what: String, mend: &str| Fault {
        file: path.display().to_string(),
        line: 0,
        column: 0,
        key: String::new(),
        what,
        mend: mend.into(),
    };
    let length = std::fs::metadata(path).map_err(|e| {
        fault(
            format!("can't be read: {e}"),
            "check the path and the file's mode",
        )
    })?;
    if length.len() > MAX_FILE_BYTES {
        let what = format!(
            "has {} bytes, more than a shard map may have ({MAX_FILE_BYTES})",
            length.len()
        );
        return Err(fault(what, "check that this is the right file"));
    }
    let bytes = std::fs::read(path).map_err(|e| {
        fault(
            format!("can't be read: {e}"),
            "check the path and the file's mode",
        )
    })?;
    String::from_utf8(bytes).map_err(|e| {
        fault(
            format!("is not UTF-8 (byte {})", e.utf8_error().valid_up_to()),
            "save it as UTF-8",
        )
    })
}
