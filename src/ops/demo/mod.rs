//! `presplit demo`: two private Postgres clusters as hosts, eight shards, a little data, and the proxy in front.

/// The demo app's tables; also what the tests' shards hold.
pub const SCHEMA: &str = include_str!("schema.sql");
