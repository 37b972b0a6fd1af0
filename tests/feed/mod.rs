//! The feed service.

mod api;
mod graph;
mod http;
mod model;
mod place;
mod reading;
mod service;
mod store;
mod workers;
mod write;
