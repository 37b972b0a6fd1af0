//! presplit: a shard-aware PostgreSQL proxy.
//!
//! A client speaks to presplit as to one Postgres. presplit reads each statement, finds the shard key, computes the
//! logical shard, writes that shard's schema into the statement and forwards it to the host that owns the shard.
//!
//! # Floors
//!
//! Imports go down only, never up, never sideways (`tests/layers.rs` checks it):
//!
//! ```text
//!  5   main / cli                               flags, runtime, signals
//!  4   proxy                                    listen, accept, hand over
//!  3   admin                                    virtual database, HTTP
//!  2   session          ops                     one client's conversation | an operator's work
//!  1   route            pool                    where to send? (pure)     | server connections
//!  0   wire    sql    shardmap    catalog  stats    twophase    leaves that know nothing of each other
//!  -   feed                                     talks to the proxy as any client does; shares only the id layout
//! ```
//!
//! # The walk of a query
//!
//! 1. bytes arrive; a frame is found by its 5-byte header, its length checked against the limit (`wire::frame`)
//! 2. the session sees the message in its present state (`session`)
//! 3. one pass over the text gives its shape and the spans of its literals; the plan is looked up by shape and made
//!    only on a miss (`sql::shape`, `sql::cache`, `sql::parse`)
//! 4. key value -> logical shard -> host under the current map (`route::decide`)
//! 5. a server connection of that host is checked out (`pool`)
//! 6. the schema is spliced into the original bytes (`sql::rewrite`)
//! 7. the message is forwarded and the expected replies noted (`session::replies`)
//! 8. replies are relayed: headers walked, rows never decoded nor copied (`session::relay`)
//! 9. `ReadyForQuery`: idle -> release; in transaction -> keep the server connection and the map
//!
//! # What must hold
//!
//! * A plan holds no shard number and outlives every map.
//! * Routing does no I/O: (plan, values, map) -> route is a pure function.
//! * No statics: everything is built once in `proxy` and handed down, so that two proxies run in one process.

pub mod admin;
pub mod catalog;
pub mod feed;
pub mod ops;
pub mod pool;
pub mod proxy;
pub mod route;
pub mod session;
pub mod shardmap;
pub mod sql;
pub mod stats;
pub mod twophase;
pub mod wire;
