//! The feed service.

mod api;
mod command;
mod graph;
pub mod http;
mod model;
mod place;
mod random_reading;
mod reading;
mod service;
mod store;
mod workers;
mod write;
