//! A TCP relay between a proxy and a host, whose connections can be cut and frozen while both ends live.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// What becomes of connections and of their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Bytes go through.
    Open,
    /// Nothing goes through, and nobody is told.
    Frozen,
    /// New connections are closed at once.
    Shut,
}

#[derive(Clone, Copy, Debug)]
struct State {
    mode: Mode,
    /// Connections of an earlier age are cut.
    age: u64,
}

/// Listens on a port of 127.0.0.1 and passes all on to another.
pub struct Relay {
    port: u16,
    state: Arc<watch::Sender<State>>,
    packets: Arc<AtomicU64>,
    /// Ends the thread when it is dropped.
    _stop: oneshot::Sender<()>,
}

impl Relay {
    pub fn to(port: u16) -> Relay {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let open = State {
            mode: Mode::Open,
            age: 0,
        };
        let state = Arc::new(watch::Sender::new(open));
        let (stop, stopped) = oneshot::channel::<()>();
        let states = state.clone();
        let packets = Arc::new(AtomicU64::new(0));
        let counted = packets.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    _ = accept(listener, target, states, counted) => {}
                }
            });
        });
        Relay {
            port,
            state,
            packets,
            _stop: stop,
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What was sent to the host so far, in reads of the relay.
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Cuts all connections; new ones go through.
    pub fn cut(&self) {
        self.set(Mode::Open, 1);
    }

    /// Cuts all connections and takes no new ones.
    pub fn shut(&self) {
        self.set(Mode::Shut, 1);
    }

    /// Nothing goes through any more, and nobody is told.
    pub fn freeze(&self) {
        self.set(Mode::Frozen, 0);
    }

    /// All goes through again, also what was held.
    pub fn open(&self) {
        self.set(Mode::Open, 0);
    }

    fn set(&self, mode: Mode, ages: u64) {
        self.state.send_modify(|state| {
            state.mode = mode;
            state.age += ages;
        });
    }
}

async fn accept(
    listener: std::net::TcpListener,
    target: SocketAddr,
    state: Arc<watch::Sender<State>>,
    packets: Arc<AtomicU64>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((near, _)) = listener.accept().await else {
            continue;
        };
        if state.borrow().mode == Mode::Shut {
            continue;
        }
        tokio::spawn(connection(near, target, state.subscribe(), packets.clone()));
    }
}

/// One connection, until an end closes it or it is cut.
async fn connection(
    near: TcpStream,
    target: SocketAddr,
    mut state: watch::Receiver<State>,
    packets: Arc<AtomicU64>,
) {
    let age = state.borrow().age;
    let gate = state.clone();
    let pass = async {
        passable(&mut gate.clone()).await;
        let far = TcpStream::connect(target).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        let answers = AtomicU64::new(0);
        tokio::try_join!(
            pump(near_in, far_out, gate.clone(), &packets),
            pump(far_in, near_out, gate.clone(), &answers)
        )?;
        io::Result::Ok(())
    };
    tokio::select! {
        _ = state.wait_for(|state| state.age != age) => {}
        _ = pass => {}
    }
}

/// One direction. The end of one closes both, as the end of a server process does.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    packets: &AtomicU64,
) -> io::Result<()> {
    let mut buf = vec![0; 65536];
    loop {
        let n = from.read(&mut buf).await?;
        passable(&mut state).await;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        packets.fetch_add(1, Ordering::Relaxed);
        to.write_all(&buf[..n]).await?;
    }
}

async fn passable(state: &mut watch::Receiver<State>) {
    let _ = state.wait_for(|state| state.mode != Mode::Frozen).await;
}
