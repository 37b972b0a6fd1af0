//! A client's portals: what there is under which name, since when, and what of that an error or a rollback undoes.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::quality::RandomState;

use super::Session;
use super::context::Statement;
use super::portions::Rows;
use super::set_config::SetConfig;
use super::writes::Writing;
use crate::shardmap::{HostId, ShardId};

/// A portal.
pub(super) enum Portal {
    /// It is on the server connection of this host.
    On {
        host: HostId,
        /// It gives rows.
        rows: bool,
        /// It declares a cursor.
        declares: bool,
        /// It makes, changes or drops a temporary table.
        changes_temporary: bool,
        set: Vec<SetConfig>,
    },
    /// The session itself acts.
    Own(Arc<Statement>),
    /// It has done so.
    Ran(Arc<Statement>),
    /// It is to be asked of several shards.
    Several(Arc<Several>),
    /// They have been asked; these rows the client has not fetched yet.
    Held(Arc<Several>, Rows),
    /// A COPY whose rows go to their own shards, or all to this one.
    Data(Arc<Statement>, Option<ShardId>),
    /// It writes to several shards.
    Write(Arc<Writing>),
    /// It has done so.
    Written(Arc<Writing>),
}

/// What the several shards are asked.
pub(super) struct Several {
    pub(super) statement: Arc<Statement>,
    /// The Bind message from behind its names.
    pub(super) bind: Box<[u8]>,
    pub(super) shards: Vec<ShardId>,
}

/// All portals of a client.
#[derive(Default)]
pub(super) struct Portals {
    named: HashMap<Box<[u8]>, Bound, RandomState>,
    unnamed: Option<Bound>,
    /// How many have been bound, ever.
    bound: u64,
    /// Those bound and closed in a block behind messages that may have failed.
    changes: Vec<Change>,
}

struct Bound {
    portal: Portal,
    /// How many had been bound by then.
    since: u64,
    /// In a failed block: so it may run there.
    in_failed: bool,
}

/// A portal that was bound or closed.
struct Change {
    /// The number of the reply that says so.
    reply: u64,
    name: Box<[u8]>,
    /// What had the name before.
    before: Option<Bound>,
}

impl Portals {
    pub(super) fn get(&self, name: &[u8]) -> Option<&Portal> {
        self.bound(name).map(|bound| &bound.portal)
    }

    fn bound(&self, name: &[u8]) -> Option<&Bound> {
        match name.is_empty() {
            true => self.unnamed.as_ref(),
            false => self.named.get(name),
        }
    }

    /// Of which the state changes.
    pub(super) fn get_mut(&mut self, name: &[u8]) -> Option<&mut Portal> {
        let bound = match name.is_empty() {
            true => self.unnamed.as_mut(),
            false => self.named.get_mut(name),
        };
        bound.map(|bound| &mut bound.portal)
    }

    pub(super) fn has_name(&self, name: &[u8]) -> bool {
        !name.is_empty() && self.named.contains_key(name)
    }

    /// Whether there are portals of other names on server connections.
    pub(super) fn has_others(&self, name: &[u8]) -> bool {
        let on_server = |bound: &Bound| matches!(bound.portal, Portal::On { .. });
        let mut named = self.named.iter();
        named.any(|(known, bound)| **known != *name && on_server(bound))
    }

    /// Whether a failed block runs it, if it ends the block.
    pub(super) fn is_of_failed(&self, name: &[u8]) -> bool {
        self.bound(name).is_some_and(|bound| bound.in_failed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unnamed.is_none() && self.named.is_empty()
    }

    /// How many have names.
    pub(super) fn len(&self) -> usize {
        self.named.len()
    }

    /// Bytes of rows that portals hold.
    pub(super) fn held_bytes(&self) -> usize {
        let portals = self.named.values().chain(&self.unnamed);
        let bytes = portals.map(|bound| match &bound.portal {
            Portal::Held(_, rows) => rows.bytes(),
            _ => 0,
        });
        bytes.sum()
    }

    /// A new one; `reply` says so, if earlier replies may yet be errors.
    fn put(&mut self, name: &[u8], portal: Portal, in_failed: bool, reply: Option<u64>) {
        self.bound += 1;
        let bound = Bound {
            portal,
            since: self.bound,
            in_failed,
        };
        self.replace(name, Some(bound), reply);
    }

    fn replace(&mut self, name: &[u8], bound: Option<Bound>, reply: Option<u64>) {
        let before = match (name.is_empty(), bound) {
            (true, bound) => std::mem::replace(&mut self.unnamed, bound),
            (false, Some(bound)) => self.named.insert(name.into(), bound),
            (false, None) => self.named.remove(name),
        };
        match reply {
            Some(reply) => self.changes.push(Change {
                reply,
                name: name.into(),
                before,
            }),
            None => self.all_confirmed(),
        }
    }

    /// No error is to come that could undo what was bound and closed so far.
    pub(super) fn all_confirmed(&mut self) {
        if !self.changes.is_empty() {
            self.changes.clear();
        }
    }

    /// The reply of this number is an error, so those behind it never come. (If it is the one to a Bind, the server knows what
    /// has become of its portal.)
    pub(super) fn undo(&mut self, failed_at: u64) {
        for change in std::mem::take(&mut self.changes).into_iter().rev() {
            if change.reply > failed_at {
                self.replace(&change.name, change.before, None);
            }
        }
    }

    /// Once a Query has been run, there is no unnamed one.
    pub(super) fn forget_unnamed(&mut self) {
        self.unnamed = None;
    }

    /// A savepoint is made: what [`Portals::back_to`] needs.
    pub(super) fn mark(&self) -> u64 {
        self.bound
    }

    /// Rolled back to a savepoint: those bound since it was made are gone.
    pub(super) fn back_to(&mut self, mark: u64) {
        self.unnamed.take_if(|bound| bound.since > mark);
        self.named.retain(|_, bound| bound.since <= mark);
        self.changes.clear();
    }

    /// A transaction ends: so do its portals.
    pub(super) fn clear(&mut self) {
        self.unnamed = None;
        if !self.named.is_empty() {
            self.named.clear();
        }
        self.all_confirmed();
    }
}

impl Session {
    /// A portal is bound: the reply that is pushed next says so.
    pub(super) fn put_portal(&mut self, name: &[u8], portal: Portal) {
        let failed = self.block.as_ref().is_some_and(|block| block.failed);
        let reply = self.portal_reply();
        self.statements.portals.put(name, portal, failed, reply);
    }

    /// A portal is closed: the reply that is pushed next says so.
    pub(super) fn close_portal(&mut self, name: &[u8]) {
        let reply = self.portal_reply();
        self.statements.portals.replace(name, None, reply);
    }

    /// A portal of ours takes the place of the client's unnamed one on a link: that is gone, rather than that ours is taken for it.
    pub(super) fn overwrite_unnamed(&mut self, i: usize) {
        let there = self.statements.portal(b"");
        if matches!(there, Some(Portal::On { host, .. }) if *host == self.links[i].host) {
            self.statements.portals.forget_unnamed();
        }
    }

    /// The number of the reply that is pushed next, if an error may come before it that undoes it. (Outside of a block it takes
    /// all portals with it.)
    fn portal_reply(&self) -> Option<u64> {
        (self.block.is_some() && !self.replies.is_empty()).then(|| self.replies.next_number())
    }
}
