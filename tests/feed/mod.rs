//! The feed service.

mod api;
mod http;
mod model;
mod place;
mod reading;
mod store;
