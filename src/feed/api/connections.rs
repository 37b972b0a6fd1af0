//! The connections of callers: so many at once, each kept for so long without a request, and let go when the service is to stop.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::App;
use super::problem::{Code, Problem};
use crate::shardmap::Section;

/// How many there may be, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// At once; one more is closed behind a 503.
    pub most: usize,
    /// Until the head of a request is there, from when the connection was made or the request before was answered.
    pub idle: Duration,
}

impl Default for Connections {
    fn default() -> Connections {
        Connections {
            most: 10_000,
            idle: Duration::from_secs(60),
        }
    }
}

impl Connections {
    /// Of `[feed]`.
    pub(in crate::feed) fn read(section: &mut Section<'_, '_>) -> Connections {
        let usual = Connections::default();
        let most = u32::try_from(usual.most).unwrap_or(u32::MAX);
        Connections {
            most: section.count("connections", 1..=1_000_000, most) as usize,
            idle: section.duration("idle", usual.idle),
        }
    }
}

/// After a connection could not be taken for a reason that others will meet, too: no file descriptors are left.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until the app is to stop, then lets calls under way come to their end for a while. What is wrong with one connection ends that
/// one.
pub async fn serve(
    router: Router,
    app: &App,
    listener: TcpListener,
    connections: Connections,
    drain: Duration,
) {
    let mut http = Builder::new();
    http.timer(TokioTimer::new());
    http.header_read_timeout(connections.idle);
    let room = Arc::new(Semaphore::new(connections.most));
    let stop = &app.stop;
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        while open.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(fault) => {
                tracing::warn!("a connection could not be taken: {fault}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            app.metrics.connection_refused();
            refuse(&stream, connections.most);
            continue;
        };
        // An answer is written at once: its last part is not to wait until the client has confirmed the ones before.
        if let Err(fault) = stream.set_nodelay(true) {
            tracing::debug!("TCP_NODELAY: {fault}");
        }
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let stop = stop.clone();
        open.spawn(async move {
            let _place = place;
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(fault) = ended {
                tracing::debug!("a caller's connection: {fault}");
            }
        });
    }
    drop(listener);
    let ended = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, ended).await.is_err() {
        tracing::warn!("calls were still under way {drain:?} after the service was to stop");
    }
}

/// As well as it can be said to one whose request is not waited for.
fn refuse(stream: &TcpStream, most: usize) {
    let detail = format!("there are {most} connections already");
    let hint = "use connections for more than one call, or allow for more: [feed] connections";
    let body = Problem::new(Code::Overloaded, detail, hint).to_json();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n",
        body.len()
    );
    // There is room for it in a new connection's buffer, or the other side is gone.
    let _ = stream.try_write(&[head.as_bytes(), &body].concat());
}
