//! Recovery in the proxy: a task for each host keeps a control connection, tells the board what the host can do, and looks for
//! transactions that nobody ends. `ops::recovery` does the work and says why it is right.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::ops::recovery::{self, Host, Hosts};
use crate::session::Context;
use crate::shardmap::CrossHost;
use crate::twophase::Readiness;

/// After an attempt to connect that failed, the next one.
const RETRY: Duration = Duration::from_secs(1);
/// Between two looks at a host while something is in doubt or owed there, and between two questions to one that can't take
/// part whether it can by now.
const SOON: Duration = Duration::from_secs(2);
/// Between two looks at a host where nothing is in doubt. What another proxy leaves when it is killed waits that long.
const QUIET: Duration = Duration::from_secs(5);
/// After a reason to look, looks go on at the shorter interval for so long: a PREPARE that a session has given up may be
/// carried out when the host gets to it.
const WATCHFUL: Duration = Duration::from_secs(15);
/// Two looks at a host are at least this far apart, however many sessions wait.
const APART: Duration = Duration::from_millis(50);
/// Between two deletions of rows that are of no more use.
const TIDY: Duration = Duration::from_secs(1);
/// Between two sweeps of rows that others have left. The first is not before all hosts could be reached.
const SWEEP: Duration = Duration::from_secs(10);

/// What the tasks share.
struct Shared {
    context: Arc<Context>,
    hosts: ArcSwap<Hosts>,
    /// Counts the reasons to look at all hosts at once.
    kicks: watch::Sender<u64>,
}

/// Runs until `end`.
pub(super) async fn run(context: Arc<Context>, end: CancellationToken) {
    // The value at the start is not seen: a swap before this is a change.
    let mut maps = context.map.subscribe();
    let shared = Arc::new(Shared {
        hosts: ArcSwap::from_pointee(Hosts::of(&context.map.load(), None)),
        kicks: watch::Sender::default(),
        context,
    });
    let end = end.child_token();
    let _guard = end.clone().drop_guard();
    let mut tasks = HashMap::new();
    shared.follow(&mut tasks, &end);
    tokio::spawn(tidy(shared.clone(), end.clone()));
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            changed = maps.changed() => {
                if changed.is_err() {
                    return;
                }
                let map = shared.context.map.load();
                let hosts = Hosts::of(&map, Some(&shared.hosts.load()));
                shared.hosts.store(Arc::new(hosts));
                shared.follow(&mut tasks, &end);
                shared.kick();
            }
            () = shared.context.two_phase.hurry.notified() => shared.kick(),
        }
    }
}

/// By host name: the host, and what ends its task.
type Tasks = HashMap<String, (Arc<Host>, CancellationToken)>;

impl Shared {
    fn kick(&self) {
        self.kicks.send_modify(|n| *n += 1);
    }

    /// Ends the tasks of hosts that have left the map or lead elsewhere, and starts those of new ones.
    fn follow(self: &Arc<Shared>, tasks: &mut Tasks, end: &CancellationToken) {
        let hosts = self.hosts.load_full();
        tasks.retain(|_, (old, end)| {
            let stays = hosts.all.iter().any(|host| Arc::ptr_eq(host, old));
            if !stays {
                end.cancel();
            }
            stays
        });
        let all: Vec<&str> = hosts.all.iter().map(|host| host.name.as_str()).collect();
        let same: Vec<&str> = tasks.keys().map(String::as_str).collect();
        // Before the new tasks' first looks, which settle what is owed.
        self.context.two_phase.follow(&all, &same);
        for host in &hosts.all {
            tasks.entry(host.name.clone()).or_insert_with(|| {
                let end = end.child_token();
                tokio::spawn(keep(self.clone(), host.clone(), end.clone()));
                (host.clone(), end)
            });
        }
    }

    /// Tells the board what all hosts can do: of two that are one, what one can do hangs on the other.
    fn tell(&self) {
        let hosts = self.hosts.load();
        for host in &hosts.all {
            let readiness = hosts.readiness(host);
            self.context.two_phase.set_readiness(&host.name, readiness);
        }
    }

    /// Connects, or asks the host again what it is. `false`: it can't be reached.
    async fn greet(&self, host: &Host) -> bool {
        // With "refuse" nothing is written to hosts, and what was begun before still ends.
        let makes = self.context.map.load().proxy.cross_host == CrossHost::TwoPhase;
        let was_down = host.fault().is_some();
        let reached = host.connect(makes).await;
        self.tell();
        match &reached {
            // Others may wait for what it has decided.
            Ok(_) if was_down => self.kick(),
            Ok(_) => {}
            Err(why) => {
                tracing::debug!(host = host.name, "not reached for recovery: {why}");
            }
        }
        reached.is_ok()
    }

    /// One look. `true`: there is something to do soon.
    async fn look(&self, host: &Arc<Host>) -> bool {
        let board = &self.context.two_phase;
        // In this order: what is owed is asked of the host that has this name at that time, or not at all.
        let owed = board.owed(&host.name);
        let hosts = self.hosts.load_full();
        if !hosts.all.iter().any(|other| Arc::ptr_eq(other, host)) {
            return false;
        }
        let look = match recovery::pass(&hosts, host, board, &owed, true).await {
            Ok(look) => look,
            Err(why) => {
                tracing::debug!(host = host.name, "recovery could not look: {why}");
                return true;
            }
        };
        for name in &look.committed {
            tracing::info!(host = host.name, transaction = %name, "recovery: committed, as it was decided");
            self.context.stats.recovered_committed();
        }
        if !look.committed.is_empty() {
            // There may be DDL in it, and the tables have been read before.
            self.context.refresh.renew_soon();
        }
        for name in &look.rolled_back {
            tracing::info!(host = host.name, transaction = %name, "recovery: rolled back, its proxy had not decided");
            self.context.stats.recovered_rolled_back();
        }
        let soon = !look.in_doubt.is_empty() || !board.is_settled(&host.name);
        board.set_in_doubt(&host.name, look.in_doubt);
        soon
    }
}

/// Keeps one host's connection and looks again and again, until `end`.
async fn keep(shared: Arc<Shared>, host: Arc<Host>, end: CancellationToken) {
    let mut kicks = shared.kicks.subscribe();
    let mut greeted: Option<Instant> = None;
    let mut watchful = Instant::now();
    while !end.is_cancelled() {
        let hosts = shared.hosts.load_full();
        let unable = matches!(hosts.readiness(&host), Readiness::Unable { .. });
        let ask = greeted.is_none_or(|at| unable && at.elapsed() >= SOON);
        if ask || host.fault().is_some() {
            if !shared.greet(&host).await {
                greeted = None;
                tokio::select! {
                    () = end.cancelled() => return,
                    () = sleep(RETRY) => continue,
                }
            }
            greeted = Some(Instant::now());
            watchful = Instant::now() + WATCHFUL;
        }
        kicks.borrow_and_update();
        let soon = shared.look(&host).await || unable || Instant::now() < watchful;
        let looked = Instant::now();
        tokio::select! {
            () = end.cancelled() => return,
            () = host.gone() => greeted = None,
            _ = kicks.changed() => watchful = Instant::now() + WATCHFUL,
            () = sleep(if soon { SOON } else { QUIET }) => {}
        }
        if let Some(rest) = APART.checked_sub(looked.elapsed()) {
            sleep(rest).await;
        }
    }
}

/// Deletes rows that are of no more use, until `end`.
async fn tidy(shared: Arc<Shared>, end: CancellationToken) {
    let mut sweep_at = Instant::now() + SWEEP / 2;
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = sleep(TIDY) => {}
        }
        let hosts = shared.hosts.load_full();
        let board = &shared.context.two_phase;
        recovery::delete_done(&hosts, board).await;
        let names: Vec<&str> = hosts.all.iter().map(|host| host.name.as_str()).collect();
        if board.owed_besides(&names) {
            // A session with the map before has just told of a host that has left.
            board.follow(&names, &names);
        }
        if Instant::now() >= sweep_at {
            match recovery::sweep(&hosts).await {
                Ok(0) => {}
                Ok(rows) => tracing::debug!(rows, "swept decision rows of no more use"),
                Err(why) => tracing::debug!("decision rows were not swept: {why}"),
            }
            sweep_at = Instant::now() + SWEEP;
        }
    }
}
