//! Rows that other processes tell of by way of the store they share: what an api process has posted need not wait until a worker next
//! looks for rows that are due. What is lost on this way is found by that look.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::UserId;
use super::fanout::Work;
use super::outbox::{Due, Task};
use super::sweep;

/// How often the store is asked, about: one short call.
const EVERY: Duration = Duration::from_millis(50);
/// How often while it does not answer.
const AWAY: Duration = Duration::from_secs(1);
/// Rows heard of at a time.
const ROWS: usize = 64;

/// Until the workers end.
pub(super) async fn run(work: Arc<Work>, workers: mpsc::Sender<Task>) {
    while !workers.is_closed() {
        let pause = match work.store.woken(ROWS).await {
            Ok(rows) => {
                let full = rows.len() >= ROWS;
                // Waits while the workers have enough to do: another process may have less.
                if sweep::take(&work, by_user(rows), &workers).await.is_none() {
                    return;
                }
                if full { Duration::ZERO } else { EVERY }
            }
            Err(fault) => {
                tracing::debug!("nothing is heard of rows of other processes: {fault}");
                AWAY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

fn by_user(rows: Vec<(UserId, i64)>) -> Vec<Due> {
    let mut users: HashMap<UserId, Vec<i64>> = HashMap::new();
    for (user, row) in rows {
        users.entry(user).or_default().push(row);
    }
    let due = |(user, rows)| Due {
        user,
        rows,
        since: Duration::ZERO,
    };
    users.into_iter().map(due).collect()
}
