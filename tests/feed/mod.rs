//! The feed service.

mod model;
mod store;
