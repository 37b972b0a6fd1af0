//! Finds out which hosts can take part in transactions over several hosts.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::ops::connect;
use crate::session::Context;
use crate::twophase::{self, Home, Readiness};

pub(super) async fn run(context: Arc<Context>, end: CancellationToken) {
    loop {
        for host in &context.map.current().hosts {
            let config = connect::config(&host.url, "presplit recovery");
            let readiness = match connect::connect(&config).await {
                Ok(client) => {
                    let _ = client.batch_execute(twophase::TABLE).await;
                    let row = client.query_one("SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()) FROM pg_control_system()", &[]).await;
                    match row {
                        Ok(row) => Readiness::Ready(Home {
                            system: row.get::<_, i64>(0) as u64,
                            database: row.get::<_, u32>(1),
                        }),
                        Err(e) => Readiness::Unknown(e.to_string()),
                    }
                }
                Err(why) => Readiness::Unknown(why),
            };
            context.two_phase.set_readiness(&host.name, readiness);
        }
        tokio::select! {
            () = end.cancelled() => return,
            () = context.two_phase.hurry.notified() => {}
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
        }
    }
}
