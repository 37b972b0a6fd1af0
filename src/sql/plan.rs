//! What a statement says: plain data, no shard number, no connection. Made by [`super::parse`], used by `route`.
