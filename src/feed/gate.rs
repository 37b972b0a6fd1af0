//! A gate in front of a store or of Postgres: while it fails those who need it wait, longer each time, instead of asking again and
//! again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The first wait after a fault.
const FIRST: Duration = Duration::from_millis(50);
/// The longest.
const MOST: Duration = Duration::from_secs(5);

/// What is known of how it goes.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Faults since it last worked.
    faults: u32,
    /// Nobody passes before.
    closed_to: Option<Instant>,
}

impl Gate {
    /// Waits until it may be tried. Who has waited may, even if another who tried a moment before has closed it again: nobody
    /// waits behind others for ever.
    pub(super) async fn open(&self) {
        if let Some(to) = self.with(|s| s.closed_to.filter(|to| *to > Instant::now())) {
            tokio::time::sleep_until(to.into()).await;
        }
    }

    /// It worked.
    pub(super) fn worked(&self) {
        self.with(|s| *s = State::default());
    }

    /// It failed: how long to leave it alone. Those who were under way when it was closed say nothing new.
    pub(super) fn fault(&self) -> Duration {
        self.with(|s| {
            let now = Instant::now();
            if let Some(left) = s.closed_to.and_then(|to| to.checked_duration_since(now)) {
                return left;
            }
            let pause = FIRST.saturating_mul(1 << s.faults.min(10)).min(MOST);
            s.faults = s.faults.saturating_add(1);
            s.closed_to = Some(now + pause);
            pause
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_outage_counts_once_however_many_meet_it() {
        let gate = Gate::default();
        gate.open().await;
        assert_eq!(gate.fault(), FIRST);
        for _ in 0..20 {
            assert!(gate.fault() <= FIRST);
        }
        gate.open().await;
        assert_eq!(gate.fault(), FIRST * 2);
        gate.worked();
        gate.open().await;
        assert_eq!(gate.fault(), FIRST);
    }
}
