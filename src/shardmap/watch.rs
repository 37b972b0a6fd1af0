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
    handle.reload();
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
            handle.reload();
        }
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
