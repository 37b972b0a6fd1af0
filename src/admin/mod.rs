//! What an operator sees of a running proxy: the virtual database `presplit` and HTTP for metrics and health.

mod console;
mod http;

pub use console::serve_console;
pub use http::serve_http;

/// The database whose statements are the proxy's own commands.
pub const DATABASE: &str = "presplit";
