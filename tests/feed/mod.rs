//! The feed service.

mod ahead;
mod api;
mod command;
mod graph;
mod http;
mod model;
mod place;
mod random_reading;
mod reading;
mod service;
mod store;
mod workers;
mod write;
