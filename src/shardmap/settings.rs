//! `[proxy]`: what the proxy itself is told. Every setting has a default that is right for most.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// All of `[proxy]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxySettings {
    /// Where clients connect. Default `127.0.0.1:6432`. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where metrics, health and the dashboard are served. Default: nowhere.
    pub http: Option<SocketAddr>,
    /// The database that clients ask for; any other name is refused. Default: the `dbname` of the host that owns the
    /// template shard.
    pub database: String,
    /// Event loops, each on its own thread. Default 1; a session stays on one.
    pub workers: u32,
    /// How long a server connection stays with a session. Default `transaction`.
    pub pool_mode: PoolMode,
    /// Connections to each host, for each event loop, over which short reads of many clients travel several at a time. Default
    /// 0: each statement has a server connection to itself.
    pub shared_connections: u32,
    /// Whether a session may keep a server connection for what lives in it. Default `allow`.
    pub pinning: Pinning,
    /// What becomes of a transaction that writes on a second host. Default `2pc`.
    pub cross_host: CrossHost,
    /// What becomes of a REPEATABLE READ or SERIALIZABLE transaction that needs a second host. Default `refuse`.
    pub cross_host_snapshots: CrossHostSnapshots,
    /// This proxy's number among those behind one address, 1 to 255. Default: none, it is the only one.
    pub id: Option<u8>,
    /// `[proxy.peers]`: where the others are by their numbers, for cancel requests that come to the wrong one.
    pub peers: BTreeMap<u8, Peer>,
    /// `[proxy.limits]`.
    pub limits: Limits,
    /// `[proxy.timeouts]`.
    pub timeouts: Timeouts,
}

/// Where a proxy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// A name or an address.
    pub host: String,
    /// The port that it listens on.
    pub port: u16,
}

impl Peer {
    /// `HOST:PORT`, or `[IPV6]:PORT`.
    pub(super) fn parse(text: &str) -> Option<Peer> {
        let (host, port) = text.rsplit_once(':')?;
        let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = match inner {
            Some(inner) => inner,
            // What is left of an address without brackets could be read in two ways.
            None if host.contains(':') => return None,
            None => host,
        };
        let port = port.parse().ok().filter(|port| *port > 0)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:%".contains(&b);
        (!host.is_empty() && host.bytes().all(plain)).then(|| Peer {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// `[proxy] pool_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// For a transaction; longer only if it is pinned (see [`Pinning`]).
    Transaction,
    /// From the first statement on its host until the client leaves.
    Session,
}

/// `[proxy] pinning`: what becomes of LISTEN, session advisory locks, temporary tables and cursors WITH HOLD, which live in
/// one server process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinning {
    /// The session keeps its server connection for as long as it has any of them.
    Allow,
    /// They are refused (0A000).
    Refuse,
}

/// `[proxy] cross_host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrossHost {
    /// It is committed on all hosts or on none, by two-phase commit.
    TwoPhase,
    /// The second write is refused (SR002).
    Refuse,
}

/// `[proxy] cross_host_snapshots`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrossHostSnapshots {
    /// The second host is refused (SR002): two hosts are two snapshots.
    Refuse,
    /// It has a snapshot on each host, taken one after the other.
    Separate,
}

/// `[proxy.limits]`: the most of everything that a client could make us hold. Bytes may be written as `"64kB"`, `"1MB"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients connected at once; one more gets 53300. Default 10,000.
    pub clients: u32,
    /// A startup message, bytes. Postgres' `MAX_STARTUP_PACKET_LENGTH`. Default 10,000.
    pub startup_packet_bytes: usize,
    /// A message before authentication is done, bytes. Postgres' `PG_MAX_SASL_MESSAGE_LENGTH`. Default 1,024.
    pub auth_message_bytes: usize,
    /// A message that must be held as a whole to be understood, bytes. A bigger one is streamed where its route is known
    /// from elsewhere and refused (54000) otherwise. Default 4 MB. At the worst each client holds one.
    pub frame_held_bytes: usize,
    /// A statement's text, bytes; a longer one is refused (54000). At most `frame_held_bytes`. Default 1 MB.
    pub statement_text_bytes: usize,
    /// Named prepared statements that one session may hold; one more is refused (53400). Default 5,000.
    pub statements_per_session: u32,
    /// Open portals that one session may hold; one more is refused (53400). Default 1,000.
    pub portals_per_session: u32,
    /// Plans kept, by statement shape, of all sessions together. Default 10,000.
    pub plan_cache: u32,
    /// Statements kept prepared on one server connection; the least recently used goes. A statement takes about 17 kB of
    /// the server's memory. Default 500.
    pub statement_cache_per_connection: u32,
    /// Rows that a gather may hold at once; beyond, the query is refused (54000). Default 100,000.
    pub gather_rows: u32,
    /// Bytes of rows that a gather may hold at once; beyond, the query is refused (54000). Default 32 MB.
    pub gather_bytes: usize,
    /// Rows of one COPY that may be held while they wait for others of their shard, bytes; a longer row is refused
    /// (54000). Default 16 MB.
    pub copy_held_bytes: usize,
    /// Shards that one statement may be sent to; beyond, it is refused (SR001). Default 8,192: all of them.
    pub scatter_shards: u32,
}

/// `[proxy.timeouts]`, written as `"250ms"`, `"5s"`, `"10min"`, `"1h"`, and `"off"` where `None` is possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the end of authentication. Default 10 s.
    pub handshake: Duration,
    /// To open a server connection and log in. Default 5 s.
    pub connect: Duration,
    /// To wait for a free server connection; then 53300. Default 10 s.
    pub checkout_wait: Duration,
    /// A client outside any transaction that says nothing is disconnected (57P05). Default off.
    pub idle_client: Option<Duration>,
    /// A client that says nothing inside a transaction, where it keeps a server connection from others, is disconnected
    /// (25P03). Default off.
    pub idle_transaction: Option<Duration>,
    /// An idle server connection is closed after this. Default 10 min.
    pub server_idle: Duration,
    /// A server connection is closed at the first release after this. Default 1 h.
    pub server_lifetime: Duration,
    /// A step of a commit on several hosts. Before the decision all is rolled back then; after it recovery takes over.
    /// Default 10 s.
    pub cross_host_step: Duration,
    /// A statement of a transaction on several hosts that waits for a lock is refused (40P01) after this: no single host
    /// sees a deadlock that goes over two. Those that we see are ended sooner. Default 30 s.
    pub cross_host_lock: Option<Duration>,
    /// On SIGTERM, how long transactions may go on before they are cut. Default 30 s.
    pub drain_grace: Duration,
}

impl Default for ProxySettings {
    fn default() -> Self {
        ProxySettings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 6432)),
            http: None,
            database: String::new(),
            workers: 1,
            pool_mode: PoolMode::Transaction,
            shared_connections: 0,
            pinning: Pinning::Allow,
            cross_host: CrossHost::TwoPhase,
            cross_host_snapshots: CrossHostSnapshots::Refuse,
            id: None,
            peers: BTreeMap::new(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            clients: 10_000,
            startup_packet_bytes: 10_000,
            auth_message_bytes: 1024,
            frame_held_bytes: 4 << 20,
            statement_text_bytes: 1 << 20,
            statements_per_session: 5000,
            portals_per_session: 1000,
            plan_cache: 10_000,
            statement_cache_per_connection: 500,
            gather_rows: 100_000,
            gather_bytes: 32 << 20,
            copy_held_bytes: 16 << 20,
            scatter_shards: 8192,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            handshake: Duration::from_secs(10),
            connect: Duration::from_secs(5),
            checkout_wait: Duration::from_secs(10),
            idle_client: None,
            idle_transaction: None,
            server_idle: Duration::from_secs(600),
            server_lifetime: Duration::from_secs(3600),
            cross_host_step: Duration::from_secs(10),
            cross_host_lock: Some(Duration::from_secs(30)),
            drain_grace: Duration::from_secs(30),
        }
    }
}

impl ProxySettings {
    /// Every setting by its key below `[proxy]` and its value as it could be written there, in the order of the file's
    /// example: for `SHOW CONFIG` and for the difference between two maps.
    pub fn list(&self) -> Vec<(&'static str, String)> {
        let ProxySettings {
            listen,
            http,
            database,
            workers,
            pool_mode,
            shared_connections,
            pinning,
            cross_host,
            cross_host_snapshots,
            id,
            peers,
            limits: l,
            timeouts: t,
        } = self;
        vec![
            ("listen", listen.to_string()),
            ("http", http.map_or("off".into(), |http| http.to_string())),
            ("database", database.clone()),
            ("workers", workers.to_string()),
            (
                "pool_mode",
                match pool_mode {
                    PoolMode::Transaction => "transaction".into(),
                    PoolMode::Session => "session".into(),
                },
            ),
            ("shared_connections", shared_connections.to_string()),
            (
                "pinning",
                match pinning {
                    Pinning::Allow => "allow".into(),
                    Pinning::Refuse => "refuse".into(),
                },
            ),
            (
                "cross_host",
                match cross_host {
                    CrossHost::TwoPhase => "2pc".into(),
                    CrossHost::Refuse => "refuse".into(),
                },
            ),
            (
                "cross_host_snapshots",
                match cross_host_snapshots {
                    CrossHostSnapshots::Refuse => "refuse".into(),
                    CrossHostSnapshots::Separate => "separate".into(),
                },
            ),
            ("id", id.map_or("none".into(), |id| id.to_string())),
            ("peers", listed(peers)),
            ("limits.clients", l.clients.to_string()),
            (
                "limits.startup_packet_bytes",
                l.startup_packet_bytes.to_string(),
            ),
            (
                "limits.auth_message_bytes",
                l.auth_message_bytes.to_string(),
            ),
            ("limits.frame_held_bytes", l.frame_held_bytes.to_string()),
            (
                "limits.statement_text_bytes",
                l.statement_text_bytes.to_string(),
            ),
            (
                "limits.statements_per_session",
                l.statements_per_session.to_string(),
            ),
            (
                "limits.portals_per_session",
                l.portals_per_session.to_string(),
            ),
            ("limits.plan_cache", l.plan_cache.to_string()),
            (
                "limits.statement_cache_per_connection",
                l.statement_cache_per_connection.to_string(),
            ),
            ("limits.gather_rows", l.gather_rows.to_string()),
            ("limits.gather_bytes", l.gather_bytes.to_string()),
            ("limits.copy_held_bytes", l.copy_held_bytes.to_string()),
            ("limits.scatter_shards", l.scatter_shards.to_string()),
            ("timeouts.handshake", duration(t.handshake)),
            ("timeouts.connect", duration(t.connect)),
            ("timeouts.checkout_wait", duration(t.checkout_wait)),
            (
                "timeouts.idle_client",
                t.idle_client.map_or("off".into(), duration),
            ),
            (
                "timeouts.idle_transaction",
                t.idle_transaction.map_or("off".into(), duration),
            ),
            ("timeouts.server_idle", duration(t.server_idle)),
            ("timeouts.server_lifetime", duration(t.server_lifetime)),
            ("timeouts.cross_host_step", duration(t.cross_host_step)),
            (
                "timeouts.cross_host_lock",
                t.cross_host_lock.map_or("off".into(), duration),
            ),
            ("timeouts.drain_grace", duration(t.drain_grace)),
        ]
    }
}

fn listed(peers: &BTreeMap<u8, Peer>) -> String {
    if peers.is_empty() {
        return "none".to_owned();
    }
    let one = |(id, peer): (&u8, &Peer)| format!("{id} = \"{peer}\"");
    peers.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// As it could be written in the file, in the largest unit that divides it.
fn duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}min", ms / 60_000),
        _ if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}
