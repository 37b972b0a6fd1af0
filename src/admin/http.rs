//! HTTP for monitoring: `/metrics`, `/healthz`, `/readyz`, and `/`, which says what is where.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{TEXT_FORMAT, TextEncoder};
use tokio_util::sync::CancellationToken;

use super::show::{self, HostState};
use super::{metrics, serving};
use crate::session::Context;
use crate::shardmap::{HostId, LastLoad};

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    context: Arc<Context>,
    /// The proxy takes no more clients.
    stop: CancellationToken,
}

/// Serves until `end`. From `stop` on the proxy is not ready any more.
pub async fn serve_http(
    context: Arc<Context>,
    listener: TcpListener,
    stop: CancellationToken,
    end: CancellationToken,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(fault) => {
            tracing::error!("no metrics and health: {fault}");
            return;
        }
    };
    let router = Router::new()
        .route("/", get(front))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .with_state(Shared { context, stop });
    let served = axum::serve(listener, router).with_graceful_shutdown(end.cancelled_owned());
    if let Err(fault) = served.await {
        tracing::error!("metrics and health ended: {fault}");
    }
}

fn text(status: StatusCode, text: impl Into<String>) -> Response {
    let mut text = text.into();
    text.push('\n');
    (status, text).into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let encoded = metrics::gather(&shared.context)
        .and_then(|families| TextEncoder::new().encode_to_string(&families));
    match encoded {
        Ok(metrics) => ([(CONTENT_TYPE, TEXT_FORMAT)], metrics).into_response(),
        Err(fault) => text(StatusCode::INTERNAL_SERVER_ERROR, fault.to_string()),
    }
}

/// 200 once the app's tables are known; they stay known while hosts come and go.
async fn health(State(shared): State<Shared>) -> Response {
    match serving(&shared.context) {
        Ok(()) => text(StatusCode::OK, "ok"),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

/// As health, but not while the proxy drains: for whoever spreads clients over several proxies.
async fn ready(State(shared): State<Shared>) -> Response {
    if shared.stop.is_cancelled() {
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            "draining: the proxy is shutting down",
        );
    }
    health(State(shared)).await
}

async fn front(State(shared): State<Shared>) -> Response {
    text(StatusCode::OK, front_page(&shared.context).trim_end())
}

fn front_page(context: &Context) -> String {
    let map = context.map.current();
    let mut page = format!("presplit {}\n\n", env!("CARGO_PKG_VERSION"));
    // Writing to a String can't fail.
    let mut line = |what: &str, value: String| {
        let _ = writeln!(page, "{what:<10} {value}");
    };
    line(
        "app",
        format!("{}, database {}", map.proxy.listen, map.proxy.database),
    );
    line(
        "console",
        format!(
            "psql -h {} -p {} -d presplit -c 'SHOW HELP'",
            map.proxy.listen.ip(),
            map.proxy.listen.port()
        ),
    );
    line("/metrics", "counters and gauges for Prometheus".to_owned());
    line(
        "/healthz",
        serving(context).map_or_else(|why| why, |()| "ok".to_owned()),
    );
    line(
        "/readyz",
        "the same, but not while the proxy drains".to_owned(),
    );
    let load = match context.map.last_load() {
        LastLoad::Good => "the file is good".to_owned(),
        LastLoad::Bad { faults, since } => format!(
            "the file can't be used since {}: {} faults, SHOW MAP has them",
            show::utc(since),
            faults.len()
        ),
    };
    line(
        "map",
        format!("version {}, {} shards; {load}", map.version, map.shards()),
    );
    line("clients", context.clients.len().to_string());
    for (n, host) in map.hosts.iter().enumerate() {
        let HostState { state, fault } = show::host_state(context, &host.name);
        let shards = map.shards_of(HostId(n as u16)).count();
        let fault = fault.map_or_else(String::new, |(fault, _)| format!(": {fault}"));
        line(
            &format!("host {}", host.name),
            format!("{}, {shards} shards, {state}{fault}", host.url),
        );
    }
    page
}
