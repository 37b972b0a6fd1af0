//! The virtual database `presplit`: `SHOW ...`, `RELOAD`.

use std::sync::Arc;
use std::time::Duration;

use crate::session::Context;
use crate::wire::startup::StartupParams;
use crate::wire::stream::Stream;

/// Serves one operator's connection.
pub async fn serve_console(_context: Arc<Context>, _stream: Stream, _params: StartupParams, _limit: Duration) {}
