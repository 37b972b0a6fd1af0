//! The map in force and its replacement while the proxy runs: load, validate, compare, print the difference, swap.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::{Fault, ShardMap};

/// A shard map is text for people; a file beyond this is a mistake and not read.
const MAX_FILE_BYTES: u64 = 4 << 20;

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
    /// How often it was replaced.
    swaps: AtomicU64,
    /// Where the proxy has listened since its start, whatever later maps say.
    listen: SocketAddr,
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
        let listen = map.proxy.listen;
        let (swapped, _) = watch::channel(map.version);
        let state = State {
            last: LastLoad::Good,
            counts: LoadCounts { good: 1, bad: 0 },
            logged: None,
            hasher: RandomState::new(),
        };
        MapHandle(Arc::new(Shared {
            map: ArcSwap::from_pointee(map),
            swaps: AtomicU64::new(0),
            listen,
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

    /// How often it was replaced: who knows the number of its map need not look at the map. To be read before the map.
    pub fn swaps(&self) -> u64 {
        self.0.swaps.load(Ordering::Acquire)
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

    /// Reads the file again and puts what it means in force, or says why not. A bad file changes nothing. Blocks for as
    /// long as that takes (milliseconds); on an event loop, call it by `spawn_blocking`.
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
            let mut refused = map.check_against(&running);
            if refused.is_empty() {
                refused = map.trusting(self.0.listen);
            }
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
                self.0.swaps.fetch_add(1, Ordering::Release);
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

    /// Whether this content has not just been logged. The faults too: they change with the running map and the
    /// environment.
    fn is_news(&mut self, text: &str, faults: &[Fault]) -> bool {
        let content = self.hasher.hash_one((text, faults));
        self.logged.replace(content) != Some(content)
    }

    fn refuse(&mut self, text: &str, faults: &[Fault]) {
        self.counts.bad += 1;
        if self.is_news(text, faults) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"version = 1
[keyspace]
shards = 4
[hosts.a]
url = "postgres://app@h:1/app"
[hosts.b]
url = "postgres://app@h:2/app"
[map]
"0-3" = "a"
"#;

    struct File {
        directory: tempfile::TempDir,
        path: PathBuf,
        handle: MapHandle,
    }

    impl File {
        fn new() -> File {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("shardmap.toml");
            std::fs::write(&path, GOOD).expect("write");
            let handle = MapHandle::open(&path).expect("good");
            File {
                directory,
                path,
                handle,
            }
        }

        /// As editors do: another file takes the name.
        fn replace(&self, text: &str) {
            let other = self.directory.path().join("shardmap.toml.new");
            std::fs::write(&other, text).expect("write");
            std::fs::rename(other, &self.path).expect("rename");
        }
    }

    fn moved(version: u64) -> String {
        GOOD.replace("version = 1", &format!("version = {version}"))
            .replace("\"0-3\" = \"a\"", "\"0-3\" = \"b\"")
    }

    #[test]
    fn a_changed_file_is_put_in_force_and_heard_of() {
        let file = File::new();
        let kept = file.handle.current();
        let heard = file.handle.subscribe();
        let clone = file.handle.clone();
        assert_eq!(file.handle.reload(), ReloadOutcome::Unchanged);
        assert!(!heard.has_changed().expect("open"));
        file.replace(&moved(2));
        let difference = vec![
            "version 1 -> 2".to_owned(),
            "4 shards 0-3: a -> b".to_owned(),
        ];
        assert_eq!(file.handle.reload(), ReloadOutcome::Changed { difference });
        assert!(heard.has_changed().expect("open"));
        assert_eq!(*heard.borrow(), 2);
        assert_eq!(clone.load().version, 2);
        // A transaction keeps the map that it began with.
        assert_eq!(kept.version, 1);
        assert_eq!(file.handle.counts(), LoadCounts { good: 3, bad: 0 });
    }

    #[test]
    fn a_bad_file_changes_nothing_until_it_is_mended() {
        let file = File::new();
        let heard = file.handle.subscribe();
        file.replace(&GOOD.replace("shards = 4", "shards = 5"));
        let ReloadOutcome::Refused(faults) = file.handle.reload() else {
            panic!("shard 4 has no owner")
        };
        assert_eq!((faults.len(), faults[0].line, faults[0].column), (1, 8, 2));
        assert_eq!(faults[0].file, file.path.display().to_string());
        let LastLoad::Bad {
            faults: shown,
            since,
        } = file.handle.last_load()
        else {
            panic!("bad")
        };
        assert_eq!(shown, faults);

        // Bad in another way: bad since the same time, and now with those faults.
        file.replace("version = ");
        assert!(matches!(file.handle.reload(), ReloadOutcome::Refused(_)));
        let LastLoad::Bad {
            faults: shown,
            since: still,
        } = file.handle.last_load()
        else {
            panic!("bad")
        };
        assert!(shown != faults && still == since);

        // What a running proxy can't do is refused as what is wrong in itself.
        file.replace(&moved(1));
        let ReloadOutcome::Refused(faults) = file.handle.reload() else {
            panic!("the version must go up")
        };
        assert_eq!(faults[0].key, "version");
        std::fs::remove_file(&file.path).expect("remove");
        let ReloadOutcome::Refused(faults) = file.handle.reload() else {
            panic!("no file")
        };
        assert!(faults[0].what.starts_with("can't be read"), "{}", faults[0]);
        assert_eq!(file.handle.load().version, 1);
        assert!(!heard.has_changed().expect("open"));
        assert_eq!(file.handle.counts(), LoadCounts { good: 1, bad: 4 });

        file.replace(GOOD);
        assert_eq!(file.handle.reload(), ReloadOutcome::Unchanged);
        assert_eq!(file.handle.last_load(), LastLoad::Good);
        file.replace(&moved(2));
        assert!(matches!(
            file.handle.reload(),
            ReloadOutcome::Changed { .. }
        ));
    }

    #[test]
    fn one_bad_content_is_logged_once() {
        let file = File::new();
        let mut state = file.handle.state();
        let faults = |what: &str| {
            vec![Fault {
                file: "f".into(),
                line: 1,
                column: 1,
                key: "".into(),
                what: what.into(),
                mend: "".into(),
            }]
        };
        assert!(state.is_news("text", &faults("x")));
        assert!(!state.is_news("text", &faults("x")));
        assert!(state.is_news("text", &faults("y")));
        assert!(state.is_news("other text", &faults("y")));
        state.accept();
        assert!(state.is_news("other text", &faults("y")));
    }

    #[test]
    fn files_that_are_no_text_are_refused() {
        let file = File::new();
        std::fs::write(&file.path, b"version = 1 # \xff").expect("write");
        assert_eq!(
            read(&file.path).expect_err("no UTF-8").what,
            "is not UTF-8 (byte 14)"
        );
        let big = std::fs::File::create(&file.path).expect("create");
        big.set_len(MAX_FILE_BYTES + 1).expect("sparse");
        assert!(
            read(&file.path)
                .expect_err("too big")
                .what
                .contains("more than a shard map may have")
        );
        assert!(
            read(file.directory.path())
                .expect_err("a directory")
                .what
                .starts_with("can't be read")
        );
    }

    /// Two reloads must not do what one may not: first `listen` on loopback, then a user without password.
    #[test]
    fn where_the_proxy_listens_since_its_start_counts() {
        let file = File::new();
        let open = format!("{GOOD}[proxy]\nlisten = \"0.0.0.0:6432\"\n");
        std::fs::write(&file.path, &open).expect("write");
        let handle = MapHandle::open(&file.path).expect("good");
        file.replace(GOOD);
        assert!(matches!(handle.reload(), ReloadOutcome::Changed { .. }));
        file.replace(&format!("{GOOD}[users.app]\n"));
        let ReloadOutcome::Refused(faults) = handle.reload() else {
            panic!("open to all")
        };
        assert_eq!((faults.len(), faults[0].line), (1, 10), "{faults:?}");
    }

    #[test]
    fn a_map_without_a_file_stays() {
        let handle = MapHandle::fixed(ShardMap::parse(GOOD, &|_| None).expect("good"));
        assert_eq!(handle.reload(), ReloadOutcome::Unchanged);
        assert_eq!((handle.path(), handle.load().version), (None, 1));
    }

    /// Readers see one whole map or the other while reloads go on, and versions only go up.
    #[test]
    fn readers_never_see_half_a_map() {
        let file = File::new();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut last, mut looks) = (0, 0_u64);
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let map = file.handle.load();
                    let owner = map.host(map.owner(super::super::ShardId(3))).name.as_str();
                    assert_eq!(
                        owner,
                        if map.version.is_multiple_of(2) {
                            "b"
                        } else {
                            "a"
                        }
                    );
                    assert!(map.version >= last);
                    last = map.version;
                    looks += 1;
                }
                looks
            });
            for version in 2..=50 {
                let text = if u64::is_multiple_of(version, 2) {
                    moved(version)
                } else {
                    GOOD.replace("version = 1", &format!("version = {version}"))
                };
                file.replace(&text);
                assert!(matches!(
                    file.handle.reload(),
                    ReloadOutcome::Changed { .. }
                ));
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(reader.join().expect("reader") > 0);
        });
    }
}
