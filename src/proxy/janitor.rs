//! All periodic work in one place: idle server connections, clients that are idle for too long, a new map's pools.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::session::{Activity, Context, Order};

/// How often the janitor looks.
const ROUND: Duration = Duration::from_secs(1);

/// Runs until `end`.
pub(super) async fn run(context: Arc<Context>, end: CancellationToken) {
    let mut maps = context.map.subscribe();
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            changed = maps.changed() => {
                if changed.is_ok() {
                    context.pools.follow(&context.map.load());
                    // Those that listen wait for their server connection as for their client, under the map that was.
                    context.clients.list().iter().for_each(|client| client.wake());
                }
            }
            () = tokio::time::sleep(ROUND) => {
                for pool in context.pools.list() {
                    pool.tidy();
                }
                end_idle_clients(&context);
            }
        }
    }
}

fn end_idle_clients(context: &Context) {
    let timeouts = context.map.load().proxy.timeouts.clone();
    let over =
        |limit: Option<Duration>, ms: u64| limit.is_some_and(|l| u128::from(ms) >= l.as_millis());
    // Looked at also without limits: that tells SHOW CLIENTS since when.
    for client in context.clients.list() {
        match client.activity() {
            (Activity::Idle, ms) if over(timeouts.idle_client, ms) => {
                client.order(Order::IdleTimeout)
            }
            (Activity::InTransaction, ms) if over(timeouts.idle_transaction, ms) => {
                client.order(Order::TransactionTimeout)
            }
            _ => {}
        }
    }
}
