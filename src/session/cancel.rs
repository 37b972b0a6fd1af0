//! Cancel keys: which session a CancelRequest means, and which server connection that session is using just then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::pool::Pool;

/// All sessions' cancel keys. A key is opaque bytes (since protocol 3.2 more than 8 of them).
#[derive(Default)]
pub struct CancelKeys(Mutex<HashMap<Vec<u8>, Arc<CancelSlot>>>);

/// What a cancel of one session would hit now.
pub struct CancelSlot {
    /// The session's key.
    key: Vec<u8>,
    state: Mutex<State>,
    sent: Notify,
}

#[derive(Default)]
struct State {
    targets: Vec<(Arc<Pool>, Arc<[u8]>)>,
    /// Cancel requests on their way to a server. The session keeps its server connection until they have arrived, so
    /// that no cancel hits the next session's query.
    under_way: usize,
}

impl CancelKeys {
    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Arc<CancelSlot>>> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Registers a session under a new random key of `4 + secret` bytes, the first four a positive process number.
    pub(crate) fn register(&self, secret: usize) -> Arc<CancelSlot> {
        let mut keys = self.lock();
        loop {
            let mut key = vec![0u8; 4 + secret];
            rand::Rng::fill(&mut rand::rng(), &mut key[..]);
            key[0] &= 0x7f;
            if key[..4] != [0; 4] && !keys.contains_key(&key) {
                let slot = CancelSlot {
                    key: key.clone(),
                    state: Mutex::default(),
                    sent: Notify::new(),
                };
                let slot = Arc::new(slot);
                keys.insert(key, slot.clone());
                return slot;
            }
        }
    }

    /// Passes a cancel on to the server connections that the key's session is using. An unknown key is ignored, as
    /// Postgres does.
    pub async fn cancel(&self, key: &[u8]) {
        let Some(slot) = self.lock().get(key).cloned() else {
            return;
        };
        let targets = {
            let mut state = slot.lock();
            state.under_way += 1;
            state.targets.clone()
        };
        let _landed = Landed(&slot);
        for (pool, key) in targets {
            if let Err(e) = pool.cancel(&key).await {
                tracing::warn!(
                    host = pool.host,
                    "a cancel request could not be delivered: {e}"
                );
            }
        }
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

    /// The key, for BackendKeyData.
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The session ends: its key means nothing any more.
    pub(crate) fn forget(&self, keys: &CancelKeys) {
        keys.lock().remove(&self.key);
    }

    /// The session now uses this server connection.
    pub(crate) fn enlist(&self, pool: &Arc<Pool>, key: &Arc<[u8]>) {
        self.lock().targets.push((pool.clone(), key.clone()));
    }

    /// The session uses no server connection any more. `false`: a cancel is on its way, wait for [`Self::landed`] first.
    pub(crate) fn clear(&self) -> bool {
        let mut state = self.lock();
        state.targets.clear();
        state.under_way == 0
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
