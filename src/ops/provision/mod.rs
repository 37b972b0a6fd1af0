//! `presplit provision`: makes the shards' schemas and the app's tables on every host, from one SQL file.

pub mod schema_file;
