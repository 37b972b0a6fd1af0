//! The wire: frames, messages of both sides, startup, client authentication and the socket under them.
//! Protocol 3.0 and 3.2 as in the "Frontend/Backend Protocol" chapter of Postgres' documentation.

pub mod auth;
pub mod backend;
pub mod body;
pub mod error;
pub mod frame;
pub mod frontend;
pub mod options;
pub mod shared;
pub mod startup;
pub mod stream;
