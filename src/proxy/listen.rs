//! Sockets: listening, accepting within the limit of clients, the opening of each connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::Gate;
use crate::admin;
use crate::session::{self, Context, WorkerContext};
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::startup::{self, Opening};
use crate::wire::stream::Stream;

/// Connections that the kernel may hold before they are accepted.
const BACKLOG: i32 = 1024;

/// Places beyond the limit of clients for operators, so that they can see why it is reached.
const RESERVED: usize = 10;

/// A listening socket. `shared`: several event loops listen on the address, and the kernel spreads clients over them.
pub(super) fn listener(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let taken = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}"));
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into()).map_err(taken)?;
    socket.listen(BACKLOG).map_err(taken)?;
    Ok(socket.into())
}

/// Accepts clients on one event loop until the gate stops, then keeps the loop running until `end`.
pub(super) async fn accept(
    context: Arc<Context>,
    worker: Arc<WorkerContext>,
    listener: std::net::TcpListener,
    gate: Arc<Gate>,
    end: CancellationToken,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(e) => {
            tracing::error!("cannot accept clients: {e}");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            () = gate.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                gate.clients.fetch_add(1, Ordering::Relaxed);
                let counted = Counted(gate.clone());
                tokio::spawn(client(context.clone(), worker.clone(), socket, counted));
            }
            // Out of file descriptors, as a rule: those in use must be given back first.
            Err(e) => {
                tracing::warn!("cannot accept a client: {e}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    end.cancelled().await;
}

/// A client that counts towards the limit.
struct Counted(Arc<Gate>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection, from its first packet to its end.
async fn client(
    context: Arc<Context>,
    worker: Arc<WorkerContext>,
    socket: TcpStream,
    counted: Counted,
) {
    let Ok(mut stream) = Stream::tcp(socket) else {
        return;
    };
    let (limit, most) = {
        let map = context.map.load();
        (
            map.proxy.timeouts.handshake,
            map.proxy.limits.clients as usize,
        )
    };
    let params = match tokio::time::timeout(limit, startup::open(&mut stream)).await {
        Ok(Ok(Opening::Startup(params))) => params,
        Ok(Ok(Opening::Cancel { key })) => {
            let map = context.map.current();
            context.cancel_keys.request(key, &map.proxy).await;
            return;
        }
        Ok(Err(fault)) => {
            let mut out = Vec::new();
            fault.write(&mut out);
            let _ = stream.write_all(&out).await;
            return;
        }
        Err(_) => return,
    };
    let console = params.database() == Some(admin::DATABASE);
    let most = if console { most + RESERVED } else { most };
    if counted.0.clients.load(Ordering::Relaxed) > most {
        context.stats.login_refused();
        let mut out = Vec::new();
        ErrorFields::fatal(
            SqlState::TOO_MANY_CONNECTIONS,
            "sorry, too many clients already",
        )
        .hint("The limit is `clients` in [proxy.limits].")
        .write(&mut out);
        let _ = stream.write_all(&out).await;
        return;
    }
    // Boxed: a connection that is only being opened does not take the room of a session.
    if console {
        Box::pin(admin::serve_console(context, stream, params, limit)).await;
    } else {
        Box::pin(session::serve(context, worker, stream, params, limit)).await;
    }
}
