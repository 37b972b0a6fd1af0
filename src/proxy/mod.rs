//! A running proxy: listens, accepts, hands each client to a session, keeps map, tables and pools up to date, and drains
//! when it is told to stop.

mod deadlock;
mod janitor;
mod keys;
mod listen;
mod recovery;
mod tables;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::session::{Context, Order, WorkerContext};
use crate::shardmap::{self, MapHandle};
use crate::stats::Stats;
use crate::twophase::Seam;

/// A proxy that has taken its ports and serves nobody yet.
pub struct Proxy {
    context: Arc<Context>,
    listeners: Vec<std::net::TcpListener>,
    http: Option<std::net::TcpListener>,
    address: SocketAddr,
}

/// Shared by the event loops of one proxy.
pub(crate) struct Gate {
    /// No more clients are accepted.
    stop: CancellationToken,
    /// Sessions and handshakes under way, of all event loops.
    clients: AtomicUsize,
}

impl Proxy {
    /// Takes the ports that the map names.
    ///
    /// # Errors
    /// A port that is taken or an address that is not this machine's; the error says which.
    pub fn bind(map: MapHandle) -> io::Result<Proxy> {
        let current = map.current();
        let workers = current.proxy.workers.max(1) as usize;
        let mut listeners = vec![listen::listener(current.proxy.listen, workers > 1)?];
        let address = listeners[0].local_addr()?;
        while listeners.len() < workers {
            listeners.push(listen::listener(address, true)?);
        }
        let http = current
            .proxy
            .http
            .map(|addr| listen::listener(addr, false))
            .transpose()?;
        let stats = Stats::new().map_err(io::Error::other)?;
        Ok(Proxy {
            context: Context::new(map, stats, seam()),
            listeners,
            http,
            address,
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics and health are served, if anywhere.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|l| l.local_addr().ok())
    }

    /// What its sessions share.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Serves until `stop`, then drains: idle clients are told to go at once, transactions may end within
    /// `drain_grace`. The present runtime does the chores; each event loop for clients has a thread of its own.
    ///
    /// # Errors
    /// An event loop that can't be started.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let context = self.context;
        let gate = Arc::new(Gate {
            stop: stop.clone(),
            clients: AtomicUsize::new(0),
        });
        let end = CancellationToken::new();
        let chores = TaskTracker::new();
        chores.spawn(shardmap::watch_file(context.map.clone(), end.clone()));
        let keeper = tables::first(&context).await;
        chores.spawn(tables::keep(context.clone(), keeper, end.clone()));
        chores.spawn(keys::run(context.clone(), end.clone()));
        chores.spawn(recovery::run(context.clone(), end.clone()));
        chores.spawn(deadlock::run(context.clone(), end.clone()));
        chores.spawn(janitor::run(context.clone(), end.clone()));
        if let Some(http) = self.http {
            chores.spawn(crate::admin::serve_http(
                context.clone(),
                http,
                stop.clone(),
                end.clone(),
            ));
        }
        let mut threads = Vec::new();
        for (n, listener) in self.listeners.into_iter().enumerate() {
            let (context, gate, end) = (context.clone(), gate.clone(), end.clone());
            let worker = WorkerContext::new(n as u16);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let thread = std::thread::Builder::new()
                .name(format!("worker-{n}"))
                .spawn(move || {
                    runtime.block_on(listen::accept(context, worker, listener, gate, end));
                    // Sessions that outlived the grace are cut here.
                    runtime.shutdown_timeout(Duration::from_millis(100));
                })?;
            threads.push(thread);
        }
        stop.cancelled().await;
        drain(&context, &gate).await;
        end.cancel();
        chores.close();
        // A chore that hangs on a host that does not answer must not keep the process.
        let _ = tokio::time::timeout(Duration::from_secs(1), chores.wait()).await;
        for thread in threads {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        Ok(())
    }
}

/// Tests name a directory in `PRESPLIT_SEAM`.
#[cfg(debug_assertions)]
fn seam() -> Seam {
    Seam::at(std::env::var_os("PRESPLIT_SEAM").map(Into::into))
}

#[cfg(not(debug_assertions))]
fn seam() -> Seam {
    Seam::default()
}

/// Tells all clients to go when they are outside a transaction, and waits until they are gone or the grace is over.
async fn drain(context: &Context, gate: &Gate) {
    let grace = context.map.current().proxy.timeouts.drain_grace;
    let waiting = async {
        while gate.clients.load(Ordering::Relaxed) > 0 {
            for client in context.clients.list() {
                client.order(Order::Drain);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tracing::info!(
        clients = context.clients.len(),
        ?grace,
        "draining: no new clients; open transactions may end"
    );
    if tokio::time::timeout(grace, waiting).await.is_err() {
        tracing::warn!(
            clients = context.clients.len(),
            "the drain grace is over: the rest is cut"
        );
    }
}
