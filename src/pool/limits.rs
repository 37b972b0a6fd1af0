//! What bounds a pool, what a checkout fails by, and what is counted.

use std::sync::Arc;
use std::time::Duration;

use super::server;

/// What bounds a pool.
#[derive(Clone, Debug)]
pub struct PoolLimits {
    /// The most connections to the host, whatever the clients do.
    pub connections: usize,
    /// The longest that a checkout waits.
    pub wait: Duration,
    /// The longest that opening a connection may take.
    pub connect: Duration,
    /// Connections for each event loop that carry short reads of many clients at a time.
    pub shared: usize,
    /// Server-side statements held per connection.
    pub statements: usize,
    /// An idle connection is closed after this.
    pub idle: Duration,
    /// Any connection is closed on its next release after this.
    pub lifetime: Duration,
}

/// Why no connection could be had.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutFault {
    /// The host does not let us in.
    #[error("{0}")]
    Connect(Arc<server::ConnectFault>),
    /// All connections were busy for longer than the limit.
    #[error("all {connections} server connections were busy for {waited:?}")]
    Busy {
        /// The pool's limit.
        connections: usize,
        /// How long the checkout waited.
        waited: Duration,
    },
    /// It waits for what sessions keep that wait for what it keeps.
    #[error("all {connections} server connections are kept by sessions that cannot go on either")]
    Crosswise {
        /// The pool's limit.
        connections: usize,
        /// The hosts of what the session keeps.
        kept: Vec<String>,
    },
}

/// Counts for `SHOW POOLS` and metrics, with PgBouncer's words.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolCounts {
    /// Checkouts that wait.
    pub cl_waiting: usize,
    /// Connections lent out or being opened.
    pub sv_active: usize,
    /// Those of the lent ones that their sessions keep beyond a transaction.
    pub sv_pinned: usize,
    /// Those of the lent ones that carry short reads of many clients at a time.
    pub sv_shared: usize,
    /// Idle connections.
    pub sv_idle: usize,
    /// How long the first waiter has waited.
    pub maxwait: Duration,
    /// Checkouts since the start.
    pub checkouts: u64,
    /// Connections opened since the start.
    pub opened: u64,
    /// Logins that failed since the start.
    pub failed: u64,
    /// Statements that shared connections have answered since the start.
    pub shared: u64,
    /// Statements that had to wait on a shared connection and were run elsewhere, since the start.
    pub displaced: u64,
}
