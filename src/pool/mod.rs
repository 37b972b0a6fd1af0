//! Server connections.

pub mod server;
