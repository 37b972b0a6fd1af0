//! The feed service.

mod ahead;
mod api;
mod cluster;
mod command;
mod graph;
mod hook;
pub mod http;
mod keep;
mod kill;
mod model;
mod place;
mod random_reading;
mod reading;
mod replicas;
mod service;
mod sick;
mod store;
mod verify;
mod watch;
mod woken;
mod workers;
mod write;
