//! Notices that the map's file was changed and reloads it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use super::MapHandle;

/// An editor makes several events of one save; the file is read this long after the last.
const QUIET: Duration = Duration::from_millis(100);
/// A directory that is never quiet must not put off the reload for ever.
const MOST_QUIET: Duration = Duration::from_secs(1);
/// How often to look at the file itself: for file systems that report nothing, links into other directories, and a
/// directory that was replaced as a whole.
const POLL: Duration = Duration::from_secs(2);

/// Reloads the map whenever its file changes, until `stop`. Watches the file's *directory*, because editors and
/// Kubernetes' ConfigMaps do not write into a file but put another in its place. Returns at once for a map without a file.
pub async fn watch_file(handle: MapHandle, stop: CancellationToken) {
    let Some(path) = handle.path().map(Path::to_owned) else {
        return;
    };
    let changes = Arc::new(Changes::default());
    // Held until the end: dropping it ends the watch.
    let _watcher = match watch_directory(&path, changes.clone()) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "can't watch the directory of {}; looking every {POLL:?}", path.display());
            None
        }
    };
    let mut poll = interval_at(Instant::now() + POLL, POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Print::of(&path);
    // What was written between the load at the start and the watch.
    reload(&handle).await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = changes.quiet() => {}
            _ = poll.tick() => {}
        }
        // Taken before the file is read, so that a change during the reading is seen the next time.
        let named = changes.named.swap(false, Ordering::AcqRel);
        let now = Print::of(&path);
        // An event that names the file counts even if the print is the same: two writes of one length can have one mtime.
        if named || now != seen {
            seen = now;
            reload(&handle).await;
        }
    }
}

/// Off the event loop: sessions go on while the file is read.
async fn reload(handle: &MapHandle) {
    let handle = handle.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || handle.reload()).await {
        tracing::error!(%error, "reading the shard map failed");
    }
}

/// What the watcher's thread tells the task.
#[derive(Default)]
struct Changes {
    /// Something in the directory changed.
    any: Notify,
    /// Something changed whose name is the file's.
    named: AtomicBool,
}

impl Changes {
    /// Waits for a change and then until there has been none for a while.
    async fn quiet(&self) {
        self.any.notified().await;
        let end = Instant::now() + MOST_QUIET;
        while Instant::now() < end && timeout(QUIET, self.any.notified()).await.is_ok() {}
    }
}

fn watch_directory(path: &Path, changes: Arc<Changes>) -> notify::Result<RecommendedWatcher> {
    let name = path.file_name().map(ToOwned::to_owned);
    let directory = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let named = match &event {
            Ok(event) if is_reading(&event.kind) => return,
            Ok(event) => event.paths.iter().any(|p| p.file_name() == name.as_deref()),
            // Events may have been lost.
            Err(_) => true,
        };
        changes.named.fetch_or(named, Ordering::AcqRel);
        changes.any.notify_one();
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Our own reading makes events too.
fn is_reading(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}

/// What tells one content of a file from another without reading it, links followed. `None`: can't be looked at.
#[derive(PartialEq)]
struct Print(Option<(u64, u64, u64, i64, i64)>);

impl Print {
    fn of(path: &Path) -> Print {
        let print =
            std::fs::metadata(path).map(|m| (m.dev(), m.ino(), m.len(), m.mtime(), m.mtime_nsec()));
        Print(print.ok())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::shardmap::LastLoad;

    fn text(version: u64) -> String {
        format!(
            "version = {version}\n[keyspace]\nshards = 1\n[hosts.a]\nurl = \"postgres://app@h:1/app\"\n[map]\n0 = \"a\"\n"
        )
    }

    struct Watched {
        directory: tempfile::TempDir,
        path: PathBuf,
        handle: MapHandle,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    impl Watched {
        /// Returns once the file is watched, so that what a test does next is seen by watching.
        async fn new(place: impl FnOnce(&Path) -> PathBuf) -> Watched {
            let directory = tempfile::tempdir().expect("a directory");
            let path = place(directory.path());
            let handle = MapHandle::open(&path).expect("good");
            let stop = CancellationToken::new();
            let task = tokio::spawn(watch_file(handle.clone(), stop.clone()));
            let watched = Watched {
                directory,
                path,
                handle,
                stop,
                task,
            };
            // The load at the start and the one when the watch began.
            watched
                .until("watching", |handle| handle.counts().good == 2)
                .await;
            watched
        }

        async fn file() -> Watched {
            Watched::new(|directory| {
                let path = directory.join("shardmap.toml");
                std::fs::write(&path, text(1)).expect("write");
                path
            })
            .await
        }

        async fn until(&self, what: &str, holds: impl Fn(&MapHandle) -> bool) {
            let waiting = async {
                while !holds(&self.handle) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let long = Duration::from_secs(20);
            timeout(long, waiting)
                .await
                .unwrap_or_else(|_| panic!("{what}: not within {long:?}"));
        }

        async fn version(&self, version: u64) {
            self.until(&format!("version {version}"), |handle| {
                handle.load().version == version
            })
            .await;
        }

        async fn end(self) {
            self.stop.cancel();
            self.task.await.expect("ends");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_or_written_is_read() {
        let watched = Watched::file().await;
        // As editors do.
        let other = watched.directory.path().join(".shardmap.toml.swp");
        std::fs::write(&other, text(2)).expect("write");
        std::fs::rename(&other, &watched.path).expect("rename");
        watched.version(2).await;
        // In place, with the same length.
        std::fs::write(&watched.path, text(3)).expect("write");
        watched.version(3).await;
        // Removed and made again.
        std::fs::remove_file(&watched.path).expect("remove");
        watched
            .until("gone", |handle| handle.last_load() != LastLoad::Good)
            .await;
        std::fs::write(&watched.path, text(4)).expect("write");
        watched.version(4).await;
        watched.end().await;
    }

    #[tokio::test]
    async fn a_bad_file_is_shown_and_then_mended() {
        let watched = Watched::file().await;
        std::fs::write(&watched.path, "version = 2\n").expect("write");
        watched
            .until("bad", |handle| {
                matches!(handle.last_load(), LastLoad::Bad { .. })
            })
            .await;
        assert_eq!(watched.handle.load().version, 1);
        std::fs::write(&watched.path, text(2)).expect("write");
        watched.version(2).await;
        assert_eq!(watched.handle.last_load(), LastLoad::Good);
        watched.end().await;
    }

    /// As Kubernetes mounts a ConfigMap: the file is a link through `..data`, which is renamed to another directory.
    #[tokio::test]
    async fn a_configmap_is_followed() {
        let watched = Watched::new(|directory| {
            std::fs::create_dir(directory.join("..1")).expect("mkdir");
            std::fs::write(directory.join("..1/shardmap.toml"), text(1)).expect("write");
            std::os::unix::fs::symlink("..1", directory.join("..data")).expect("link");
            std::os::unix::fs::symlink("..data/shardmap.toml", directory.join("shardmap.toml"))
                .expect("link");
            directory.join("shardmap.toml")
        })
        .await;
        let directory = watched.directory.path();
        std::fs::create_dir(directory.join("..2")).expect("mkdir");
        std::fs::write(directory.join("..2/shardmap.toml"), text(2)).expect("write");
        std::os::unix::fs::symlink("..2", directory.join("..data_tmp")).expect("link");
        std::fs::rename(directory.join("..data_tmp"), directory.join("..data")).expect("rename");
        watched.version(2).await;
        watched.end().await;
    }

    /// A link into a directory that is not watched: only the poll sees it.
    #[tokio::test]
    async fn the_poll_sees_what_the_watch_can_not() {
        let elsewhere = tempfile::tempdir().expect("a directory");
        let real = elsewhere.path().join("real.toml");
        std::fs::write(&real, text(1)).expect("write");
        let watched = Watched::new(|directory| {
            std::os::unix::fs::symlink(&real, directory.join("shardmap.toml")).expect("link");
            directory.join("shardmap.toml")
        })
        .await;
        let other = elsewhere.path().join("other.toml");
        std::fs::write(&other, text(22)).expect("write");
        std::fs::rename(&other, &real).expect("rename");
        watched.version(22).await;
        watched.end().await;
    }

    /// Our own reading and what happens to other files must not make us read again and again.
    #[tokio::test]
    async fn other_files_and_our_own_reading_are_not_changes() {
        let watched = Watched::file().await;
        for i in 0..5 {
            std::fs::write(watched.directory.path().join("other.toml"), format!("{i}"))
                .expect("write");
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        assert_eq!(watched.handle.counts().good, 2);
        std::fs::write(&watched.path, text(2)).expect("write");
        watched.version(2).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(watched.handle.counts().good, 3);
        watched.end().await;
    }

    #[tokio::test]
    async fn a_map_without_a_file_is_not_watched() {
        let map = crate::shardmap::ShardMap::parse(&text(1), &|_| None).expect("good");
        watch_file(MapHandle::fixed(map), CancellationToken::new()).await;
    }
}
