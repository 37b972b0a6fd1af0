//! Fetches the keys that sessions give to rows without one: from sequences on the host that counts them.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::ops::connect;
use crate::ops::provision::key_sequence;
use crate::session::Context;
use crate::shardmap::{HostUrl, ShardMap};

/// The longest that keys may take to come.
const FETCH: Duration = Duration::from_secs(4);

/// Fetches what sessions ask for, until `end`.
pub(super) async fn run(context: Arc<Context>, end: CancellationToken) {
    let mut held = None;
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = context.keys.asked.notified() => {}
        }
        let map = context.map.current();
        for (table, wanted) in context.keys.wanted() {
            let count = wanted.max(map.keyspace.key_block as usize);
            let fetched = tokio::time::timeout(FETCH, fetch(&map, &mut held, &table, count));
            let keys = fetched.await.unwrap_or_else(|_| {
                held = None;
                Err(format!(
                    "the host that counts keys did not answer within {FETCH:?}"
                ))
            });
            if let Err(why) = &keys {
                tracing::warn!(table, "no keys could be made: {why}");
            }
            context.keys.put(&table, keys);
        }
    }
}

/// The connection of the last time, and where it leads.
type Held = Option<(HostUrl, Client)>;

async fn fetch(
    map: &ShardMap,
    held: &mut Held,
    table: &str,
    count: usize,
) -> Result<Vec<i64>, String> {
    let host = map.host(map.key_host());
    let client = match held {
        Some((url, client)) if *url == host.url && !client.is_closed() => client,
        _ => {
            let client = connect::connect(&connect::config(&host.url, "presplit keys"))
                .await
                .map_err(|why| format!("host {}: {why}", host.name))?;
            &mut held.insert((host.url.clone(), client)).1
        }
    };
    // Each value is asked for by itself: whatever the sequence's increment is, it is nobody else's.
    let sql = "SELECT pg_catalog.nextval($1::text::pg_catalog.regclass) FROM pg_catalog.generate_series(1, $2::int8)";
    let rows = client
        .query(sql, &[&key_sequence(table), &(count as i64)])
        .await
        .map_err(|e| format!("host {}: {}", host.name, connect::said(&e)))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
