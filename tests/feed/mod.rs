//! The feed service.

mod graph;
mod service;
mod workers;
mod write;
