//! Keeps callers from waiting for a node that does not answer: after a few late answers calls fail at once for a while, then one is
//! let through to see.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many failures behind one another open it.
const FAILURES: u32 = 3;

/// How long it stays open.
const OPEN_FOR: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug)]
enum State {
    /// Calls go through.
    Closed { failures: u32 },
    /// Calls fail at once until then; from then on one is let through, the probe.
    Open { until: Instant },
    /// A probe is on its way; all others fail at once.
    Probing,
}

/// One call that was let through. Dropped without a verdict, it says nothing about the node.
#[derive(Debug)]
pub(super) struct Permit<'b> {
    breaker: &'b Breaker,
    probe: bool,
}

impl Breaker {
    pub(super) fn new() -> Breaker {
        Breaker(Mutex::new(State::Closed { failures: 0 }))
    }

    /// `None`: fail at once.
    pub(super) fn admit(&self) -> Option<Permit<'_>> {
        let mut state = self.state();
        let probe = match *state {
            State::Closed { .. } => false,
            State::Open { until } if Instant::now() >= until => {
                *state = State::Probing;
                true
            }
            State::Open { .. } | State::Probing => return None,
        };
        Some(Permit {
            breaker: self,
            probe,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// The node answered.
    pub(super) fn answered(mut self) {
        self.probe = false;
        *self.breaker.state() = State::Closed { failures: 0 };
    }

    /// It did not, or not in time. `true`: that opened the breaker.
    pub(super) fn failed(mut self) -> bool {
        let open = State::Open {
            until: Instant::now() + OPEN_FOR,
        };
        let mut state = self.breaker.state();
        match &mut *state {
            _ if std::mem::take(&mut self.probe) => *state = open,
            State::Closed { failures } => {
                *failures += 1;
                if *failures < FAILURES {
                    return false;
                }
                *state = open;
            }
            // Let through before it opened.
            State::Open { .. } | State::Probing => return false,
        }
        true
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probe {
            // Whoever comes next is the probe.
            *self.breaker.state() = State::Open {
                until: Instant::now(),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_some_failures_and_lets_one_probe_through() {
        let breaker = Breaker::new();
        let permit = || breaker.admit().expect("closed");
        assert!(!permit().failed());
        assert!(!permit().failed());
        permit().answered();
        let late = [permit(), permit(), permit(), permit()];
        assert_eq!(late.map(Permit::failed), [false, false, true, false]);
        assert!(breaker.admit().is_none());

        *breaker.state() = State::Open {
            until: Instant::now(),
        };
        let probe = permit();
        assert!(breaker.admit().is_none());
        drop(probe);
        let probe = permit();
        assert!(breaker.admit().is_none());
        assert!(probe.failed());
        assert!(breaker.admit().is_none());

        *breaker.state() = State::Open {
            until: Instant::now(),
        };
        permit().answered();
        assert!(!permit().failed());
    }
}
