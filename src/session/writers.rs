//! What a transaction knows of the hosts that it has written on, and from the second on how it will be committed.

use smallvec::SmallVec;

use crate::shardmap::HostId;
use crate::twophase::{Home, Name, Ticket};

/// The hosts that a transaction has written on.
#[derive(Default)]
pub(super) struct Writers {
    /// In the order of their first writes.
    pub(super) hosts: SmallVec<[HostId; 2]>,
    /// What was done here can't be prepared (NOTIFY, temporary tables ...): if several hosts are written on, this must be the decision host.
    pub(super) unpreparable: Option<HostId>,
    /// From the second host on.
    pub(super) two_phase: Option<TwoPhase>,
    /// Which database each is, from the second on.
    pub(super) homes: SmallVec<[(HostId, Home); 2]>,
}

/// A transaction that has written on several hosts.
pub(super) struct TwoPhase {
    pub(super) ticket: Ticket,
    pub(super) decision: HostId,
    /// How many savepoints stood when the decision host's part was marked; the mark goes with a rollback to one of them.
    pub(super) depth: usize,
    pub(super) marked: bool,
}

impl Writers {
    /// With the host that was written on so far.
    pub(super) fn of(host: Option<HostId>) -> Writers {
        Writers {
            hosts: host.into_iter().collect(),
            ..Writers::default()
        }
    }

    /// The host that was written on first.
    pub(super) fn first(&self) -> Option<HostId> {
        self.hosts.first().copied()
    }

    pub(super) fn contains(&self, host: HostId) -> bool {
        self.hosts.contains(&host)
    }

    pub(super) fn are_several(&self) -> bool {
        self.hosts.len() > 1
    }

    pub(super) fn add(&mut self, host: HostId) {
        if !self.contains(host) {
            self.hosts.push(host);
        }
    }

    pub(super) fn know(&mut self, homes: Vec<(HostId, Home)>) {
        for home in homes {
            if !self.homes.contains(&home) {
                self.homes.push(home);
            }
        }
    }

    /// The transaction's name, once it has one.
    pub(super) fn name(&self) -> Option<&Name> {
        self.two_phase.as_ref().map(|two| two.ticket.name())
    }

    /// Whose part of the transaction says how it ends.
    pub(super) fn decision(&self) -> Option<HostId> {
        self.two_phase.as_ref().map(|two| two.decision)
    }

    /// A server process takes part.
    pub(super) fn enlist(&self, host: &str, pid: i32) {
        if let Some(two) = &self.two_phase {
            two.ticket.enlist(host, pid);
        }
    }

    /// A rollback to the savepoint that `before` others stand below.
    pub(super) fn rolled_back_to(&mut self, before: usize) {
        if let Some(two) = &mut self.two_phase {
            two.marked &= two.depth <= before;
        }
    }
}
