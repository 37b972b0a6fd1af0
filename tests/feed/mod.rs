//! The feed service.

mod api;
mod http;
mod place;
mod reading;
