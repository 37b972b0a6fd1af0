//! Cancel keys: which session a CancelRequest means, and which server connection that session is using just then.
//!
//! A key is opaque to clients. Its bytes:
//!
//! ```text
//!  0     bit 7: 0, so that the process number that clients make of bytes 0-3 is positive
//!        bit 6: 1 in a request that another proxy has passed on; 0 in what clients are given
//!        bits 5-0: random
//!  1     the number of the proxy that gave it (`[proxy] id`); 0: it has none
//!  2, 3  random
//!  4 ..  random: 4 bytes up to protocol 3.1, 32 from 3.2 on, as in Postgres
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use crate::pool::{Pool, server};
use crate::shardmap::ProxySettings;
use crate::wire::backend::ErrorView;
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::frame;

/// The longest that a host, or another proxy, may take to hear of a cancel.
const LIMIT: Duration = Duration::from_secs(5);

/// Bytes of secret behind the process number: 4 up to protocol 3.1, 32 from 3.2 on.
const SECRET: usize = 4;
const LONG_SECRET: usize = 32;
/// The bit of byte 0 that says that a request was passed on.
const PASSED_ON: u8 = 0x40;
/// Cancel requests that are passed on to other proxies at the same time; more wait.
const MOST_PASSED_ON: usize = 64;

/// All sessions' cancel keys.
pub struct CancelKeys {
    slots: Mutex<HashMap<Vec<u8>, Arc<CancelSlot>>>,
    /// How many sessions are on several hosts.
    spread: Arc<AtomicUsize>,
    passing_on: Semaphore,
}

/// A session's key, and the server processes that it uses.
#[derive(Clone)]
pub struct InUse {
    /// The key.
    pub key: Vec<u8>,
    /// Hosts' names and server processes there.
    pub parts: Vec<(Arc<Pool>, i32)>,
}

impl Default for CancelKeys {
    fn default() -> Self {
        CancelKeys {
            slots: Mutex::default(),
            spread: Arc::default(),
            passing_on: Semaphore::new(MOST_PASSED_ON),
        }
    }
}

/// What a cancel of one session would hit now.
pub struct CancelSlot {
    /// The session's key.
    key: Vec<u8>,
    state: Mutex<State>,
    sent: Notify,
    spread: Arc<AtomicUsize>,
}

/// A server connection, by its key.
type Target = (Arc<Pool>, Arc<[u8]>);

#[derive(Default)]
struct State {
    targets: Vec<Target>,
    /// What it keeps beside them, idle: locks of the session may be there.
    parked: Vec<Target>,
    /// Since when it is on several hosts.
    spread: Option<Instant>,
    /// What it has on each of them lasts until it ends its transaction.
    keeps: bool,
    /// Cancel requests on their way to a server. The session keeps its server connection until they have arrived, so
    /// that no cancel hits the next session's query.
    under_way: usize,
    /// One of them may still arrive, whenever: the server connections must not be used again.
    late: bool,
    /// What we have cancelled ourselves.
    ended: Option<EndedWait>,
}

/// A wait that we have ended, by a cancel that the client did not ask for.
struct EndedWait {
    /// The key of the server connection.
    key: Arc<[u8]>,
    /// What the client gets in place of "canceled".
    error: ErrorFields,
}

impl CancelKeys {
    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Arc<CancelSlot>>> {
        self.slots
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Registers a session under a new key, for a client that speaks this minor version of the protocol.
    pub(crate) fn register(&self, minor: u16, id: Option<u8>) -> Arc<CancelSlot> {
        let secret = if minor >= 2 { LONG_SECRET } else { SECRET };
        let mut keys = self.lock();
        loop {
            let mut key = vec![0u8; 4 + secret];
            // A generator that nobody can foresee.
            rand::Rng::fill(&mut rand::rng(), &mut key[..]);
            key[0] &= PASSED_ON - 1;
            key[1] = id.unwrap_or(0);
            if key[..4] != [0; 4] && !keys.contains_key(&key) {
                let slot = CancelSlot {
                    key: key.clone(),
                    state: Mutex::default(),
                    sent: Notify::new(),
                    spread: self.spread.clone(),
                };
                let slot = Arc::new(slot);
                keys.insert(key, slot.clone());
                return slot;
            }
        }
    }

    /// The sessions that have been in a transaction on several hosts for so long.
    pub fn on_several(&self, patience: Duration) -> Vec<InUse> {
        if self.spread.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let lasts = |state: &State| {
            let since = state.spread.filter(|_| state.keeps);
            since.is_some_and(|since| since.elapsed() >= patience)
        };
        self.in_use(lasts)
    }

    /// All sessions that use server connections.
    pub fn all_in_use(&self) -> Vec<InUse> {
        self.in_use(|state| !state.targets.is_empty())
    }

    fn in_use(&self, is_meant: impl Fn(&State) -> bool) -> Vec<InUse> {
        let slots = self.lock();
        let used = slots.iter().filter_map(|(key, slot)| {
            let state = slot.lock();
            let part = |(pool, key): &Target| {
                let pid = key.first_chunk().map(|pid| i32::from_be_bytes(*pid));
                pid.map(|pid| (pool.clone(), pid))
            };
            is_meant(&state).then(|| InUse {
                key: key.clone(),
                parts: state
                    .targets
                    .iter()
                    .chain(&state.parked)
                    .filter_map(part)
                    .collect(),
            })
        });
        used.collect()
    }

    /// A CancelRequest. One whose key another proxy has given is passed on to it, once. All others are ignored, as
    /// Postgres does.
    pub async fn request(&self, mut key: Vec<u8>, proxy: &ProxySettings) {
        let Some([first, id]) = key.first_chunk::<2>().copied() else {
            return;
        };
        key[0] = first & !PASSED_ON;
        // Nobody passes on what has been passed on, so that it can't go round in circles.
        if self.cancel(&key).await || first & PASSED_ON != 0 || proxy.id == Some(id) {
            return;
        }
        let Some(peer) = proxy.peers.get(&id) else {
            return;
        };
        key[0] |= PASSED_ON;
        let passed_on = timeout(LIMIT, async {
            let _place = self.passing_on.acquire().await;
            server::cancel_at(&peer.host, peer.port, &key).await
        });
        let fault = match passed_on.await {
            Ok(Ok(())) => return,
            Ok(Err(e)) => e.to_string(),
            Err(_) => format!("no answer within {LIMIT:?}"),
        };
        tracing::warn!(id, %peer, "a cancel request could not be passed on: {fault}");
    }

    /// Passes a cancel on to the server connections that the key's session is using. `false`: there is no such session.
    async fn cancel(&self, key: &[u8]) -> bool {
        let Some(slot) = self.lock().get(key).cloned() else {
            return false;
        };
        let targets = {
            let mut state = slot.lock();
            state.under_way += 1;
            // Whatever is cancelled now, the client has asked for it.
            state.ended = None;
            state.targets.clone()
        };
        let _landed = Landed(&slot);
        for (pool, key) in targets {
            slot.deliver(&pool, &key).await;
        }
        true
    }

    /// Ends what server process `pid` of `host` does for the key's session: its statement fails with `error`. `false`: it
    /// does nothing for that session, a cancel is on its way already, or the host could not be told.
    pub async fn end_wait(&self, key: &[u8], host: &str, pid: i32, error: ErrorFields) -> bool {
        let Some(slot) = self.lock().get(key).cloned() else {
            return false;
        };
        let (pool, key) = {
            let mut state = slot.lock();
            let is_meant =
                |(pool, key): &&Target| pool.host == host && key.starts_with(&pid.to_be_bytes());
            let Some((pool, key)) = state.targets.iter().find(is_meant).cloned() else {
                return false;
            };
            if state.under_way > 0 || state.ended.is_some() {
                return false;
            }
            state.under_way += 1;
            state.ended = Some(EndedWait {
                key: key.clone(),
                error,
            });
            (pool, key)
        };
        let _landed = Landed(&slot);
        slot.deliver(&pool, &key).await
    }
}

/// Counts a cancel as arrived, however its task ended.
struct Landed<'a>(&'a CancelSlot);

impl Drop for Landed<'_> {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
        self.0.sent.notify_waiters();
    }
}

impl CancelSlot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Has the host cancel what the server connection is doing. `false`: it is not known whether the host has heard.
    async fn deliver(&self, pool: &Pool, key: &[u8]) -> bool {
        let fault = match timeout(LIMIT, pool.cancel(key)).await {
            Ok(Ok(())) => return true,
            Ok(Err(e)) => e.to_string(),
            Err(_) => format!("no answer within {LIMIT:?}"),
        };
        self.lock().late = true;
        tracing::warn!(
            host = pool.host,
            "a cancel request could not be delivered: {fault}"
        );
        false
    }

    /// The key, for BackendKeyData.
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The session ends: its key means nothing any more.
    pub(crate) fn forget(&self, keys: &CancelKeys) {
        self.end_spread(&mut self.lock());
        keys.lock().remove(&self.key);
    }

    /// The session now uses this server connection. `keeps`: it is in a transaction, so that what it has on other hosts lasts.
    pub(crate) fn enlist(&self, pool: &Arc<Pool>, key: &Arc<[u8]>, keeps: bool) {
        let mut state = self.lock();
        state.parked.retain(|(_, parked)| parked != key);
        state.targets.push((pool.clone(), key.clone()));
        state.keeps |= keeps || !state.parked.is_empty();
        if state.spread.is_none() && state.targets.len() + state.parked.len() > 1 {
            state.spread = Some(Instant::now());
            self.spread.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The session uses none of its server connections just now, and keeps these.
    pub(crate) fn park(&self, kept: impl Iterator<Item = (Arc<Pool>, Arc<[u8]>)>) {
        self.lock().parked = kept.collect();
    }

    /// The session is in a transaction from here on.
    pub(crate) fn keeps(&self) {
        self.lock().keeps = true;
    }

    /// The session uses only those of its server connections any more that have these keys.
    pub(crate) fn retain(&self, keys: &[&Arc<[u8]>]) {
        let mut state = self.lock();
        state.targets.retain(|(_, key)| keys.contains(&key));
        if state.targets.len() + state.parked.len() < 2 {
            self.end_spread(&mut state);
        }
    }

    fn end_spread(&self, state: &mut State) {
        if state.spread.take().is_some() {
            self.spread.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// As [`Self::retain`] none; whether a cancel may still hit the server connections that the session has used so far. `None`: one is
    /// on its way.
    pub(crate) fn leave(&self) -> Option<bool> {
        let mut state = self.lock();
        state.targets.clear();
        state.ended = None;
        state.keeps = false;
        self.end_spread(&mut state);
        (state.under_way == 0).then(|| std::mem::take(&mut state.late))
    }

    /// The session is at rest: a wait that we wanted to end had ended before.
    pub(crate) fn at_rest(&self) {
        let mut state = self.lock();
        if state.under_way == 0 {
            state.ended = None;
        }
    }

    /// Whether an error of the server connection with this key may have to be reworded.
    pub(crate) fn has_ended(&self, key: &[u8]) -> bool {
        let state = self.lock();
        state.ended.as_ref().is_some_and(|ended| *ended.key == *key)
    }

    /// The ErrorResponse that the client gets in place of this one, if it says that a wait that we have ended is canceled.
    pub(crate) fn reword(&self, key: &[u8], error: &[u8]) -> Option<Vec<u8>> {
        let mut state = self.lock();
        let ended = state.ended.take_if(|ended| *ended.key == *key)?;
        let view = ErrorView::decode(error.get(frame::HEADER..)?).ok()?;
        if view.is_fatal() || view.code() != Some(SqlState::QUERY_CANCELED) {
            return None;
        }
        let mut fields = ended.error;
        let context = view.get(b'W').map(String::from_utf8_lossy);
        fields.context = context.map(|context| context.into_owned().into());
        let mut out = Vec::new();
        fields.write(&mut out);
        Some(out)
    }

    /// Waits until no cancel is on its way.
    pub(crate) async fn landed(&self) {
        loop {
            let sent = self.sent.notified();
            if self.lock().under_way == 0 {
                return;
            }
            sent.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_layout() {
        let keys = CancelKeys::default();
        for (minor, id) in [
            (0, None),
            (2, Some(1)),
            (0, Some(255)),
            (1, Some(7)),
            (3, None),
        ] {
            let slots: Vec<_> = (0..100).map(|_| keys.register(minor, id)).collect();
            for slot in &slots {
                let key = slot.key();
                assert_eq!(key.len(), if minor >= 2 { 36 } else { 8 });
                assert_eq!((key[0] & 0xc0, key[1]), (0, id.unwrap_or(0)));
            }
            // Every other bit is random.
            for at in (0..slots[0].key().len()).filter(|at| *at != 1) {
                let ones = slots.iter().fold(0, |bits, slot| bits | slot.key()[at]);
                let all = slots.iter().fold(0xff, |bits, slot| bits & slot.key()[at]);
                assert_eq!(
                    (ones, all),
                    (if at == 0 { 0x3f } else { 0xff }, 0),
                    "byte {at}"
                );
            }
        }
    }
}
