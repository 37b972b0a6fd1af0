//! The feed service.

mod api;
mod cluster;
mod command;
mod graph;
mod hook;
mod http;
mod model;
mod place;
mod random_reading;
mod reading;
mod replicas;
mod service;
mod store;
mod watch;
mod workers;
mod write;
