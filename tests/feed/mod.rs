//! The feed service.

mod ahead;
mod api;
mod bounds;
mod cluster;
mod command;
mod graph;
mod hook;
pub mod http;
mod keep;
mod kill;
mod maps;
mod model;
mod place;
mod random_reading;
mod reading;
mod replicas;
mod service;
mod sick;
mod store;
mod undone;
mod verify;
mod watch;
mod woken;
mod workers;
mod write;
