//! The feed service.

mod api;
mod command;
mod graph;
mod hook;
pub mod http;
mod model;
mod place;
mod random_reading;
mod reading;
mod service;
mod store;
mod watch;
mod workers;
mod write;
