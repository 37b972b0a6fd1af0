//! Replicas of a node: reads go to them, but only to one that is known to have all that its primary had a moment ago.
//!
//! Beside its reads a process writes a beat to the primary now and then and looks for it on the replicas. What a replica says is then at
//! least as new as the last beat that was found on it: older than [`STALE_MOST`], and the primary is asked instead. So a replica that is
//! cut off, or a primary that is away, makes nothing stale; and nothing beats where nobody reads.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::cmd;

use super::keys;
use super::node::{Lane, Node, Run};
use crate::feed::store::StoreFault;

/// The oldest that the state may be that a replica shows. Below the second within which a deletion is seen by all.
pub(super) const STALE_MOST: Duration = Duration::from_millis(700);
/// How often it is looked.
const BEAT_EVERY: Duration = Duration::from_millis(100);
/// Beats that may still be found.
const BEATS: usize = 16;
/// How long the primary keeps a beat, in seconds.
const BEAT_LIFE: u64 = 60;

#[derive(Debug)]
pub(super) struct Replicas {
    primary: Arc<Node>,
    nodes: Vec<Node>,
    /// Where this process beats.
    key: Vec<u8>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The number of the last beat, and when it was begun.
    last: (u64, Option<Instant>),
    under_way: bool,
    /// Those that the primary has taken: number, run of the primary, when it was sent.
    sent: VecDeque<(u64, Run, Instant)>,
    /// Of each replica, the newest of these that was found on it.
    found: Vec<Option<(Run, Instant)>>,
}

impl Replicas {
    pub(super) fn new(primary: Arc<Node>, nodes: Vec<Node>) -> Arc<Replicas> {
        let state = State {
            last: (0, None),
            under_way: false,
            sent: VecDeque::new(),
            found: vec![None; nodes.len()],
        };
        Arc::new(Replicas {
            primary,
            nodes,
            key: keys::beat(rand::random()),
            state: Mutex::new(state),
        })
    }

    /// The replica that is to be read for this id, and the run that it is to be read for. None: the primary is.
    pub(super) fn in_step(self: &Arc<Self>, id: i64) -> Option<(&Node, Run)> {
        if self.nodes.is_empty() {
            return None;
        }
        self.beat_if_due();
        // The same for a user at all times, so that its pages do not go back and forth in time.
        let number = usize::from(keys::partition(id)) / 7 % self.nodes.len();
        let state = self.state();
        let (run, sent) = state.found.get(number).copied().flatten()?;
        let newest = state.sent.back().is_some_and(|(_, r, _)| *r == run);
        drop(state);
        (newest && sent.elapsed() < STALE_MOST).then(|| (&self.nodes[number], run))
    }

    fn beat_if_due(self: &Arc<Self>) {
        let mut state = self.state();
        let due = state.last.1.is_none_or(|at| at.elapsed() >= BEAT_EVERY);
        if state.under_way || !due {
            return;
        }
        let sent_at = Instant::now();
        state.under_way = true;
        state.last = (state.last.0 + 1, Some(sent_at));
        let number = state.last.0;
        drop(state);
        let beat = UnderWay(self.clone());
        tokio::spawn(async move {
            if let Err(fault) = beat.0.beat(number, sent_at).await {
                tracing::debug!("replicas are not looked at: {fault}");
            }
        });
    }

    async fn beat(&self, number: u64, sent_at: Instant) -> Result<(), StoreFault> {
        let set = |run: &Run| {
            let mut set = cmd("SET");
            set.arg(&self.key)
                .arg([*run, number.to_be_bytes()].concat());
            set.arg("EX").arg(BEAT_LIFE);
            set
        };
        let ((), run) = self.primary.call_of_run(Lane::Quick, set).await?;
        {
            let mut state = self.state();
            state.sent.push_back((number, run, sent_at));
            if state.sent.len() > BEATS {
                state.sent.pop_front();
            }
        }
        let looks = self
            .nodes
            .iter()
            .enumerate()
            .map(|(replica, node)| async move {
                let get = |_: &Run| {
                    let mut get = cmd("GET");
                    get.arg(&self.key);
                    get
                };
                // One that hangs does not keep the others out of step.
                let value = node.call::<Option<Vec<u8>>>(Lane::Quick, get);
                let value = tokio::time::timeout(BEAT_EVERY, value).await;
                match value {
                    Ok(Ok(Some(value))) => self.saw(replica, &value),
                    Ok(Ok(None)) => {}
                    Err(_) => tracing::debug!("a replica is late"),
                    Ok(Err(fault)) => tracing::debug!("a replica: {fault}"),
                }
            });
        futures_util::future::join_all(looks).await;
        Ok(())
    }

    /// This replica has this beat.
    fn saw(&self, replica: usize, value: &[u8]) {
        let Some((run, number)) = value.split_first_chunk::<8>() else {
            return;
        };
        let Ok(number) = number.try_into().map(u64::from_be_bytes) else {
            return;
        };
        let mut state = self.state();
        let sent = state.sent.iter().find(|(n, r, _)| *n == number && r == run);
        let sent = sent.map(|(_, run, at)| (*run, *at));
        if let (Some(sent), Some(found)) = (sent, state.found.get_mut(replica)) {
            *found = Some(sent);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A beat that is under way, however it ends.
struct UnderWay(Arc<Replicas>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.state().under_way = false;
    }
}
