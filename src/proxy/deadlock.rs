//! Ends deadlocks over several hosts, and waits for locks in transactions over several hosts that last too long.
//!
//! Each proxy ends only what its own sessions wait for. Which side of a deadlock gives way is the same for all that see it
//! (`ops::deadlock` says how it is found and why it is one).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::ops::deadlock::{self, PATIENCE, Parts, Wait, Watch};
use crate::pool::{Crossing, Kept, Locked, stuck};
use crate::session::{Context, InUse};
use crate::shardmap::Host;
use crate::twophase::Name;
use crate::wire::error::{ErrorFields, SqlState};

/// Between two looks.
const ROUND: Duration = Duration::from_secs(1);

/// A transaction of ours over several hosts.
struct Ours {
    /// What the server processes of one transaction have in common.
    key: i64,
    /// The key with which its session is cancelled.
    cancel_key: Arc<[u8]>,
    /// Its hosts' names and the server processes there.
    parts: Vec<(String, i32)>,
    /// Its client's number and its name, if it has one.
    name: Option<(u64, Name)>,
}

/// Those that have lasted for so long. One that has written on one host at most has no name that others would see: it is known here alone,
/// and gives way before those that have one, so that nobody else need know.
fn ours(context: &Context) -> Vec<Ours> {
    let several = context.cancel_keys.on_several(PATIENCE);
    let parts = |used: &InUse| {
        let parts = used.parts.iter();
        parts
            .map(|(pool, pid)| (pool.host.clone(), *pid))
            .collect::<Vec<_>>()
    };
    let all = context.two_phase.live();
    let live = all
        .iter()
        .filter(|live| live.since.elapsed() >= PATIENCE)
        .map(|live| {
            let used = several.iter().find(|used| *live.cancel_key == *used.key);
            Ours {
                key: live.name.key(),
                cancel_key: live.cancel_key.clone(),
                parts: [live.parts.clone(), used.map(parts).unwrap_or_default()].concat(),
                name: Some((live.client, live.name.clone())),
            }
        });
    let has_name = |used: &&InUse| all.iter().any(|live| *live.cancel_key == *used.key);
    let unnamed = several.iter().filter(|used| !has_name(used)).zip(1..);
    let unnamed = unnamed.map(|(used, n)| Ours {
        key: i64::MAX - n,
        cancel_key: used.key.clone().into(),
        parts: parts(used),
        name: None,
    });
    live.chain(unnamed).collect()
}

/// Runs until `end`. No host is asked anything while no transaction over several hosts has lasted for a second.
pub(super) async fn run(context: Arc<Context>, end: CancellationToken) {
    let mut watch = Watch::default();
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(ROUND) => {}
        }
        let live = ours(&context);
        let crossing = context.pools.crosswise().waiting(PATIENCE);
        if live.is_empty() && crossing.is_empty() {
            watch.rest();
            continue;
        }
        let look = async {
            round(&context, &mut watch, &live).await;
            end_crosswise(&context, &mut watch, crossing).await;
        };
        tokio::select! {
            () = end.cancelled() => return,
            () = look => {}
        }
    }
}

/// Our transaction that this wait is part of.
fn of<'l>(live: &'l [Ours], wait: &Wait) -> Option<&'l Ours> {
    let is_part = |(host, pid): &(String, i32)| (host, *pid) == (&wait.host, wait.pid);
    live.iter().find(|live| live.parts.iter().any(is_part))
}

/// Ends what goes in a circle through locks and through connections that are waited for: of those who wait for connections the youngest gets none.
async fn end_crosswise(context: &Context, watch: &mut Watch, crossing: Vec<Crossing>) {
    let Some(youngest) = stuck_now(context, watch, crossing).await.pop() else {
        return;
    };
    let again = context.pools.crosswise().waiting(PATIENCE);
    let again = stuck_now(context, watch, again).await;
    if again.iter().any(|crossing| crossing.is(&youngest)) {
        youngest.end();
        context.stats.deadlock_ended();
    }
}

/// Which of them can't go on, as the locks are now.
async fn stuck_now(context: &Context, watch: &mut Watch, crossing: Vec<Crossing>) -> Vec<Crossing> {
    if crossing.is_empty() {
        return crossing;
    }
    let map = context.map.current();
    let all: Vec<&Host> = map.hosts.iter().collect();
    let waits = watch.look(&all, &Parts::new()).await;
    let locked = context.cancel_keys.all_in_use().into_iter();
    let locked = locked.filter_map(|used| {
        let has = |wait: &&Wait| {
            let mut parts = used.parts.iter();
            parts.any(|(pool, pid)| pool.host == wait.host && *pid == wait.pid)
        };
        let own: Vec<&Wait> = waits.iter().filter(has).collect();
        let keeps = used.parts.iter().cloned();
        (!own.is_empty()).then(|| Locked {
            keeps: keeps.map(|(pool, pid)| Kept { pool, pid }).collect(),
            waits_for: Box::new(move |host, pid| {
                let mut own = own.iter().filter(|wait| wait.host == host);
                own.any(|wait| wait.blockers.iter().any(|blocker| blocker.pid == pid))
            }),
        })
    });
    stuck(&crossing, &locked.collect::<Vec<_>>())
}

async fn round(context: &Context, watch: &mut Watch, live: &[Ours]) {
    let map = context.map.current();
    let concerned = |host: &&Host| {
        let mut parts = live.iter().flat_map(|live| &live.parts);
        parts.any(|(name, _)| *name == host.name)
    };
    // A deadlock that we could end has a wait of ours, so this is all there is to do as a rule.
    let (near, far): (Vec<&Host>, Vec<&Host>) = map.hosts.iter().partition(concerned);
    let parts = live.iter().flat_map(|live| {
        let key = live.key;
        live.parts.iter().map(move |part| (part.clone(), key))
    });
    let parts: Parts = parts.collect();
    let mut waits = watch.look(&near, &parts).await;
    if !waits.iter().any(|wait| of(live, wait).is_some()) {
        return;
    }
    waits.extend(watch.look(&far, &parts).await);
    let mut found = deadlock::find(&waits);
    found.retain(|deadlock| of(live, deadlock.wait()).is_some());
    if !found.is_empty() {
        let all: Vec<&Host> = map.hosts.iter().collect();
        let later = watch.look(&all, &parts).await;
        for deadlock in found.iter().filter(|deadlock| deadlock.holds(&later)) {
            if let Some(live) = of(live, deadlock.wait()) {
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
        let named = of(live, wait).filter(|live| live.name.is_some());
        if let Some(live) = named.filter(|_| !deadlocked)
            && end(context, live, wait, too_long(limit, wait)).await
        {
            context.stats.long_wait_ended();
        }
    }
}

/// Ends the wait: its statement fails with `error`. `false`: it could not be ended.
async fn end(context: &Context, live: &Ours, wait: &Wait, error: ErrorFields) -> bool {
    let detail = error.detail.as_deref().unwrap_or_default();
    let words = format!("{}: {}", error.message, detail.replace('\n', " "));
    let (keys, key) = (&context.cancel_keys, &live.cancel_key);
    let ended = keys.end_wait(key, &wait.host, wait.pid, error).await;
    if ended {
        match &live.name {
            Some((client, name)) => tracing::warn!(client, %name, "{words}"),
            None => tracing::warn!("{words}"),
        }
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
