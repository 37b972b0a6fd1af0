//! What an operator sees of a running proxy: the virtual database `presplit` and HTTP for metrics and health.

mod command;
mod console;
mod http;
mod metrics;
mod portal;
mod show;

pub use console::serve_console;
pub use http::serve_http;

/// The database whose statements are the proxy's own commands.
pub const DATABASE: &str = "presplit";

/// Whether statements can be served: `Err` says why not.
fn serving(context: &crate::session::Context) -> Result<(), String> {
    if context.schema.load().tables.is_some() {
        return Ok(());
    }
    let faults = context.refresh.faults();
    let why = match faults.is_empty() {
        true => "the hosts' catalogs are being read".to_owned(),
        false => faults.join("\n"),
    };
    Err(format!("the app's tables are not known yet: {why}"))
}
