//! What tests are made of: real Postgres clusters, hosts with provisioned shards, a real proxy process, clients.
//!
//! Everything waits for conditions, never for time, and stops when dropped. What a static holds is never dropped, so each server also ends with this process.

mod cluster;
mod hosts;
mod proxy;
pub mod raw;
mod redis;
mod relay;
mod several;
pub mod wire;

pub use self::redis::Redis;
pub use cluster::Cluster;
pub use hosts::Hosts;
pub use proxy::Proxy;
pub use raw::Raw;
pub use relay::Relay;
pub use several::{Seam, Several, Way, texts};

use tokio_postgres::types::FromSql;
use tokio_postgres::{Client, NoTls};

/// Connects, and drives the connection in the background until the client is dropped.
pub async fn connect(config: &tokio_postgres::Config) -> Client {
    let (client, connection) = config
        .connect(NoTls)
        .await
        .unwrap_or_else(|e| panic!("can't connect with {config:?}: {e:?}"));
    tokio::spawn(connection);
    client
}

/// The first value of each row of an answer, in their order.
pub async fn column<T: for<'a> FromSql<'a>>(client: &Client, sql: &str) -> Vec<T> {
    let rows = client.query(sql, &[]).await;
    let rows = rows.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// Waits until `holds`, asking again and again. Panics if it never does.
pub async fn wait_until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let began = std::time::Instant::now();
    while !holds().await {
        assert!(
            began.elapsed() < std::time::Duration::from_secs(30),
            "waited in vain until {what}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
