//! The feed service.

mod api;
mod command;
mod graph;
mod hook;
pub mod http;
mod kill;
mod model;
mod place;
mod random_reading;
mod reading;
mod service;
mod store;
mod verify;
mod watch;
mod woken;
mod workers;
mod write;
