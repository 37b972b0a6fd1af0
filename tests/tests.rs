//! All integration tests: one binary, so that it links once and its tests share their Postgres clusters.

// Nothing here is exported; `pub` between its modules is enough.
#![allow(unreachable_pub)]

mod admin;
mod auth;
mod bank;
mod behind_batches;
mod cancel;
mod catalog;
mod commit_steps;
mod copies;
mod copy;
mod crosswise;
mod ddl;
mod ddl_blocks;
mod deadlock;
mod demo;
mod describe;
mod differential;
mod drivers;
mod execute;
mod explain;
mod feed;
mod function_call;
mod hostile;
mod keys;
mod large;
mod layers;
mod leak;
mod lifecycle;
mod lost;
mod migrations;
mod orm;
mod page;
mod pins;
mod protocol;
mod provision;
mod psql;
mod random_transactions;
mod recovery;
mod refusals;
mod routing;
mod sessions;
mod settings;
mod shared;
mod state;
// Parts of it wait for the tests that need them.
#[allow(dead_code, unused_imports)]
mod support;
mod syntax;
mod transactions;
mod transcript;
mod writes;
