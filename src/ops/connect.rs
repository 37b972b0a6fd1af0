//! From a host's url in the shard map to a connection of the control side (tokio-postgres, without TLS).

use std::time::Duration;

use tokio_postgres::{Client, Config, NoTls};

use crate::shardmap::{HostAddr, HostUrl};

/// How long an operation waits for a host to answer before it is called unreachable.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The url as tokio-postgres wants it. What the url's own parameters say is kept.
pub fn config(url: &HostUrl, application_name: &str) -> Config {
    let mut config = Config::new();
    match &url.host {
        HostAddr::Tcp(host) => config.host(host),
        HostAddr::Unix(dir) => config.host_path(dir),
    };
    config.port(url.port).user(&url.user).dbname(&url.dbname);
    config
        .application_name(application_name)
        .connect_timeout(CONNECT_LIMIT);
    if let Some(password) = &url.password {
        config.password(password.expose());
    }
    for (name, value) in &url.params {
        match name.as_str() {
            "application_name" => config.application_name(value),
            "options" => config.options(value),
            _ => &mut config,
        };
    }
    config
}

/// Connects; the connection is driven in the background until the client is dropped. The error says the cause.
pub async fn connect(config: &Config) -> Result<Client, String> {
    let (client, connection) = config.connect(NoTls).await.map_err(|e| said(&e))?;
    tokio::spawn(connection);
    Ok(client)
}

/// Postgres' own words with the SQLSTATE, or the error with its cause: `tokio_postgres::Error` alone says only "db error".
pub fn said(error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else {
        return match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
    };
    let mut said = format!("{} ({})", db.message(), db.code().code());
    for (word, text) in [
        ("detail", db.detail()),
        ("hint", db.hint()),
        ("where", db.where_()),
    ] {
        if let Some(text) = text {
            said.push_str(&format!("\n  {word}: {text}"));
        }
    }
    said
}
