//! Server connections: opened, kept, lent to one session at a time and taken back.

mod conn;
mod crosswise;
mod limits;
#[allow(clippy::module_inception)]
mod pool;
mod pools;
pub mod server;
mod settings;
mod shared;
mod statements;

pub use conn::{ServerConn, Worker};
pub use crosswise::{Crossing, Crosswise, InTheWay, Kept, Locked, stuck};
pub use limits::{CheckoutFault, PoolCounts, PoolLimits};
pub use pool::{Checkout, Pool};
pub use pools::{HostPools, Pools};
pub use settings::{Set, Settings, literal, quote_dotted, reset, set_config, takes_snapshot};
pub use statements::{Added, NO_SHARD, StatementKey, Statements};
