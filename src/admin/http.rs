//! HTTP: `/metrics`, `/healthz`.

use std::net::TcpListener;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::session::Context;

/// Serves until `end`.
pub async fn serve_http(_context: Arc<Context>, _listener: TcpListener, end: CancellationToken) {
    end.cancelled().await;
}
