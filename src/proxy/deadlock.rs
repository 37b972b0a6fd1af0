//! Ends deadlocks over several hosts, and waits for locks in transactions over several hosts that last too long.
//!
//! Each proxy ends only what its own sessions wait for. Which side of a deadlock gives way is the same for all that see it
//! (`ops::deadlock` says how it is found and why it is one).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::ops::deadlock::{self, PATIENCE, Parts, Wait, Watch};
use crate::session::Context;
use crate::shardmap::Host;
use crate::twophase::Live;
use crate::wire::error::{ErrorFields, SqlState};

/// Between two looks.
const ROUND: Duration = Duration::from_secs(1);

/// Runs until `end`. No host is asked anything while no transaction over several hosts has lasted for a second.
pub(super) async fn run(context: Arc<Context>, end: CancellationToken) {
    let mut watch = Watch::default();
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(ROUND) => {}
        }
        let mut live = context.two_phase.live();
        live.retain(|live| live.since.elapsed() >= PATIENCE);
        if live.is_empty() {
            watch.rest();
            continue;
        }
        tokio::select! {
            () = end.cancelled() => return,
            () = round(&context, &mut watch, &live) => {}
        }
    }
}

/// Our transaction that this wait is part of.
fn ours<'l>(live: &'l [Live], wait: &Wait) -> Option<&'l Live> {
    let is_part = |(host, pid): &(String, i32)| (host, *pid) == (&wait.host, wait.pid);
    live.iter().find(|live| live.parts.iter().any(is_part))
}

async fn round(context: &Context, watch: &mut Watch, live: &[Live]) {
    let map = context.map.current();
    let concerned = |host: &&Host| {
        let mut parts = live.iter().flat_map(|live| &live.parts);
        parts.any(|(name, _)| *name == host.name)
    };
    // A deadlock that we could end has a wait of ours, so this is all there is to do as a rule.
    let (near, far): (Vec<&Host>, Vec<&Host>) = map.hosts.iter().partition(concerned);
    let parts = live.iter().flat_map(|live| {
        let key = live.name.key();
        live.parts.iter().map(move |part| (part.clone(), key))
    });
    let parts: Parts = parts.collect();
    let mut waits = watch.look(&near, &parts).await;
    if !waits.iter().any(|wait| ours(live, wait).is_some()) {
        return;
    }
    waits.extend(watch.look(&far, &parts).await);
    let mut found = deadlock::find(&waits);
    found.retain(|deadlock| ours(live, deadlock.wait()).is_some());
    if !found.is_empty() {
        let all: Vec<&Host> = map.hosts.iter().collect();
        let later = watch.look(&all, &parts).await;
        for deadlock in found.iter().filter(|deadlock| deadlock.holds(&later)) {
            if let Some(live) = ours(live, deadlock.wait()) {
                let error = detected(deadlock.detail());
                if end(context, live, deadlock.wait(), error).await {
                    context.stats.deadlock_ended();
                }
            }
        }
    }
    let Some(limit) = map.proxy.timeouts.cross_host_lock else {
        return;
    };
    for wait in waits.iter().filter(|wait| wait.waited >= limit) {
        let deadlocked = found.iter().any(|deadlock| deadlock.wait() == wait);
        if let Some(live) = ours(live, wait).filter(|_| !deadlocked)
            && end(context, live, wait, too_long(limit, wait)).await
        {
            context.stats.long_wait_ended();
        }
    }
}

/// Ends the wait: its statement fails with `error`. `false`: it could not be ended.
async fn end(context: &Context, live: &Live, wait: &Wait, error: ErrorFields) -> bool {
    let name = &live.name;
    let detail = error.detail.as_deref().unwrap_or_default();
    let words = format!("{}: {}", error.message, detail.replace('\n', " "));
    let (keys, key) = (&context.cancel_keys, &live.cancel_key);
    let ended = keys.end_wait(key, &wait.host, wait.pid, error).await;
    if ended {
        tracing::warn!(client = live.client, %name, "{words}");
    }
    ended
}

fn detected(detail: String) -> ErrorFields {
    ErrorFields::error(SqlState::DEADLOCK_DETECTED, "deadlock detected")
        .detail(detail)
        .hint("Run the transaction again. SHOW TRANSACTIONS in the database \"presplit\" lists the transactions over several hosts.")
}

fn too_long(limit: Duration, wait: &Wait) -> ErrorFields {
    ErrorFields::error(
        SqlState::DEADLOCK_DETECTED,
        format!("a transaction over several hosts has waited for a lock for more than {limit:?}: it may be a deadlock"),
    )
    .detail(wait.detail())
    .hint("Run the transaction again. The limit is cross_host_lock in [proxy.timeouts].")
}
