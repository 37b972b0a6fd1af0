//! What goes on between two Syncs of the extended protocol: outside a block an implicit transaction. If it fails, nothing
//! of it stays: not on any host, not among the client's statements, not in its settings.

use std::sync::Arc;

use super::context::Statement;
use super::errors::Fault;
use super::parameters::Reported;
use super::relay::{self, Seen};
use super::replies::{Pass, Reply};
use super::{Now, Session};
use crate::pool::Settings;
use crate::shardmap::HostId;
use crate::sql::control::BeginOptions;
use crate::sql::hint::Hint;
use crate::wire::error::SqlState;
use crate::wire::frontend;

/// What is going on between two Syncs.
#[derive(Default)]
pub(super) struct Batch {
    /// The message being dealt with; 0: none.
    pub(super) now: u8,
    skip: Skip,
    /// To Postgres the transaction has a snapshot, by a Parse that has looked at tables or by what the session has acted on.
    pub(super) parsed: bool,
    /// Something has been executed in it, and its transaction is not over.
    pub(super) executed: bool,
    /// The message has several statements.
    pub(super) of_several: bool,
    /// A portal was executed for some of its rows.
    pub(super) limited: bool,
    /// It has made, changed or dropped a temporary table outside of a block: what follows is read in one, of ours.
    pub(super) tables_changed: bool,
    /// The host that the implicit transaction has written on.
    pub(super) writer: Option<HostId>,
    /// A Parse that no server has confirmed: the message after it says which server shall.
    pub(super) unparsed: Option<Arc<Statement>>,
    /// Statements made and closed, as long as an error may yet undo that.
    changes: Vec<Change>,
    /// The session as it was before the first change of its settings by the implicit transaction.
    before: Option<Box<Before>>,
    /// What SET TRANSACTION has said of the implicit transaction.
    pub(super) options: BeginOptions,
    /// What SET LOCAL has in force in the implicit transaction of a batch.
    pub(super) locals: Settings,
    /// A setting was changed, in a block or not: the client may have to be told.
    pub(super) has_set: bool,
}

/// What comes back when an implicit transaction is undone.
pub(super) struct Before {
    pub(super) settings: Settings,
    pub(super) hint: Option<Hint>,
    /// What the client had been told.
    pub(super) told: Reported,
}

/// A statement that was made or closed.
struct Change {
    /// The number of the reply that says so; `None`: it is not owed yet (an unconfirmed Parse).
    reply: Option<u64>,
    name: Box<[u8]>,
    /// What had the name before.
    before: Option<Arc<Statement>>,
}

/// Whether messages are ignored until Sync, as after any error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Skip {
    #[default]
    No,
    /// The active server refused something: it ignores all until Sync too, and Sync rolls back.
    Server,
    /// We refused something: the servers have not heard of it.
    Ours,
}

impl Batch {
    /// A new batch, at this message.
    pub(super) fn at(now: u8) -> Batch {
        Batch {
            now,
            ..Batch::default()
        }
    }

    /// A Query goes on with its transaction.
    pub(super) fn becomes_query(&mut self) {
        *self = Batch {
            before: self.before.take(),
            locals: std::mem::take(&mut self.locals),
            options: self.options,
            has_set: self.has_set,
            executed: self.executed,
            parsed: self.parsed,
            tables_changed: self.tables_changed,
            writer: self.writer,
            ..Batch::at(b'Q')
        };
    }

    /// As a new one. What is empty is left as it is.
    fn renew(&mut self) {
        let Batch {
            now,
            skip,
            parsed,
            executed,
            of_several,
            limited,
            tables_changed,
            writer,
            unparsed,
            changes,
            before,
            options,
            locals,
            has_set,
        } = self;
        (*now, *skip, *writer) = (0, Skip::No, None);
        (*parsed, *executed, *limited, *has_set) = (false, false, false, false);
        (*tables_changed, *of_several) = (false, false);
        *options = BeginOptions::default();
        (*unparsed, *before) = (None, None);
        changes.clear();
        if changes.capacity() > FEW {
            // The next batch needs no memory of its own, but for this.
            *changes = Vec::new();
        }
        if !locals.is_empty() {
            *locals = Settings::default();
        }
    }

    /// Whether it has done nothing but parse statements.
    pub(super) fn is_fresh(&self) -> bool {
        !self.skipping()
            && !self.executed
            && !self.limited
            && !self.tables_changed
            && !self.has_set
            && self.writer.is_none()
            && self.unparsed.is_none()
            && self.before.is_none()
            && self.locals.is_empty()
            && self.options == BeginOptions::default()
    }

    pub(super) fn skipping(&self) -> bool {
        self.skip != Skip::No
    }

    pub(super) fn server_refused(&mut self) {
        self.skip = Skip::Server;
        self.unparsed = None;
    }

    pub(super) fn refused(&mut self) {
        if self.skip == Skip::No {
            self.skip = Skip::Ours;
        }
        self.unparsed = None;
    }

    /// Whether what was just done of a Query was refused. A Query ends with it, so nothing is skipped.
    pub(super) fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.skip) != Skip::No
    }

    /// The session before the implicit transaction, if that has changed its settings.
    pub(super) fn before(&self) -> Option<&Before> {
        self.before.as_deref()
    }

    /// The session before the implicit transaction, which becomes a block.
    pub(super) fn take_before(&mut self) -> Option<Box<Before>> {
        self.before.take()
    }
}

impl Session {
    /// As [`Session::drain_replies`], for a message that can't be dealt with before the replies to earlier ones are
    /// there. If they tell of an error, it is skipped.
    pub(super) async fn settle_replies(&mut self) -> Result<(), Fault> {
        self.drain_replies().await?;
        if self.batch.skipping() {
            Err(Fault::Skipped)
        } else {
            Ok(())
        }
    }

    /// Takes to heart what was seen while replies were passed on.
    pub(super) fn note_seen(&mut self, seen: &mut Seen) {
        if let Some(failed_at) = seen.failed_at.take() {
            self.undo_statements(failed_at);
        }
        if std::mem::take(&mut seen.stale) {
            // The tables are read again, and with that all statements are made anew.
            self.context.refresh.renew_soon();
        }
        if std::mem::take(&mut seen.until_sync) {
            self.batch.server_refused();
        }
    }

    /// The statement of this name is about to be made or closed.
    pub(super) fn note_statement(&mut self, name: &[u8]) {
        if self.replies.is_empty() && self.batch.unparsed.is_none() {
            // All that was changed before is confirmed.
            self.batch.changes.clear();
        }
        let before = self.statements.get(name).cloned();
        self.batch.changes.push(Change {
            reply: None,
            name: name.into(),
            before,
        });
    }

    /// The reply that is pushed next confirms the latest change.
    pub(super) fn confirm_statement(&mut self) {
        let number = self.replies.next_number();
        if let Some(change) = self.batch.changes.last_mut() {
            change.reply.get_or_insert(number);
        }
    }

    /// The reply of this number and all behind it never came: what they would have confirmed was never done. But a Parse of
    /// the unnamed statement that fails has removed the one before.
    pub(super) fn undo_statements(&mut self, failed_at: u64) {
        self.statements.portals.undo(failed_at);
        for change in std::mem::take(&mut self.batch.changes).into_iter().rev() {
            if change.reply.is_none_or(|reply| reply >= failed_at) {
                let removed = change.name.is_empty() && change.reply == Some(failed_at);
                match change.before.filter(|_| !removed) {
                    Some(before) => self.statements.put(&change.name, before),
                    None => drop(self.statements.remove(&change.name)),
                }
            }
        }
    }

    /// The settings or the hint are about to be changed.
    pub(super) fn remember_settings(&mut self) {
        if self.block.is_none() && self.batch.before.is_none() {
            self.batch.before = Some(Box::new(self.as_before()));
        }
    }

    /// What is to come back if what begins now is undone.
    pub(super) fn as_before(&self) -> Before {
        Before {
            settings: self.settings.clone(),
            hint: self.hint.clone(),
            told: self.told_so_far(),
        }
    }

    /// The implicit transaction is over.
    pub(super) fn end_implicit(&mut self, committed: bool) {
        self.batch.writer = None;
        // What is there now is read when its connection is given back.
        self.batch.tables_changed = false;
        self.batch.options = BeginOptions::default();
        if !self.batch.locals.is_empty() {
            self.batch.locals = Settings::default();
        }
        self.batch.has_set &= committed;
        let before = self.batch.before.take();
        if let Some(before) = before.filter(|_| !committed && self.block.is_none()) {
            self.client.back_to(&before.told);
            (self.settings, self.hint) = (before.settings, before.hint);
        }
    }

    /// Whether anything is left over that a Sync would settle.
    pub(super) fn is_batch_open(&self) -> bool {
        self.batch.skipping()
            || self.batch.unparsed.is_some()
            || self.batch.executed
            || self.batch.parsed
            || !self.replies.is_empty()
            || self.links.iter().any(|l| l.unsynced)
            || self.in_message_block()
            || self.block.is_none() && !self.statements.portals.is_empty()
    }

    /// Sync of a batch that one server connection has seen.
    pub(super) fn sync_now(&mut self, len: usize) -> Now {
        if let Err(fault) = frontend::no_body(self.body(len)) {
            return Now::Done(Err(fault.into()));
        }
        if self.batch.has_set
            || self.in_message_block()
            || self.batch.skip == Skip::Ours
            || self.batch.unparsed.is_some()
            || self.block.as_ref().is_some_and(|block| block.failed)
        {
            return Now::Slowly;
        }
        if self.links.is_empty() && !self.batch.skipping() {
            relay::write_made(&mut self.client, &mut self.replies);
            self.reset_batch(false);
            self.ready();
            return Now::Done(Ok(()));
        }
        let one = self.links.len() == 1 && self.active == 0 && self.links[0].unsynced;
        if !one {
            return Now::Slowly;
        }
        frontend::sync(&mut self.links[0].outbox);
        self.replies.push(Reply::Sync(Pass::On));
        Now::Relay
    }

    /// The Sync of the active server connection has been answered; `error`: with an error first.
    pub(super) fn end_of_batch(&mut self, error: bool) {
        if let Some(link) = self.links.get_mut(self.active) {
            link.unsynced = false;
        }
        self.reset_batch(error);
    }

    fn reset_batch(&mut self, error: bool) {
        self.end_implicit(!error && !self.batch.skipping());
        self.batch.renew();
        match self.block.is_some() {
            true => self.statements.portals.all_confirmed(),
            false => self.statements.portals.clear(),
        }
    }

    /// Sync: the batch is over, and so is the implicit transaction outside a block.
    pub(super) async fn sync(&mut self, len: usize) -> Result<(), Fault> {
        frontend::no_body(self.body(len))?;
        match self.settle_unparsed().await {
            Err(Fault::Skipped) => {}
            settled => settled?,
        }
        if self.in_message_block() {
            return Box::pin(self.sync_message_block()).await;
        }
        if self.links.iter().filter(|l| l.unsynced).count() > 1 {
            // What one host says decides for all of them.
            self.drain_replies().await?;
        }
        if self.batch.skipping() && self.block.is_none() {
            self.undo_batch().await;
        }
        let active = self.links.get(self.active).is_some_and(|l| l.unsynced);
        let error = Box::pin(self.sync_others()).await?;
        // One that has let go is in a transaction that has not failed, and so may one be where nothing has.
        let well = self.active_status() == b'T';
        let block = self.block.as_deref();
        let failed_elsewhere = block.is_some_and(|block| block.let_go || block.failed && well);
        if active && self.batch.skip != Skip::Ours && !failed_elsewhere {
            // What the client is to be told comes in front of its ReadyForQuery.
            let own = self.batch.has_set;
            let link = &mut self.links[self.active];
            frontend::sync(&mut link.outbox);
            let pass = if own { Pass::Keep } else { Pass::On };
            self.replies.push(Reply::Sync(pass));
            if own {
                self.client.hold_for_caller();
            }
            let error = self.relay().await? || error;
            if own && !error && !self.batch.skipping() {
                self.gather_news();
            }
            self.end_of_batch(error);
            self.settle().await;
            if own {
                self.ready();
                self.client.flush().await.map_err(Fault::client)?;
            }
            return Ok(());
        }
        if active {
            // A failed block: the server hears of the end of the batch, the client of the failure.
            self.sync_link(self.active).await?;
        }
        relay::write_made(&mut self.client, &mut self.replies);
        if !error && !self.batch.skipping() {
            self.gather_news();
        }
        self.reset_batch(error);
        if self.block.is_none() {
            self.release_links().await;
        }
        self.let_go_of_one().await;
        self.ready();
        self.client.flush().await.map_err(Fault::client)
    }

    /// Sync of a batch that has written on several hosts.
    async fn sync_message_block(&mut self) -> Result<(), Fault> {
        self.drain_replies().await?;
        self.client.hold_for_caller();
        let told = self.batch.skipping();
        let error = match self.end_message(false).await {
            Ok(error) => error,
            Err(fault @ (Fault::Statement(_) | Fault::Server(_))) if told => {
                tracing::debug!("beside an error that the client has been told of: {fault:?}");
                true
            }
            Err(fault) => return Err(fault),
        };
        self.reset_batch(error);
        self.release_links().await;
        self.ready();
        self.client.flush().await.map_err(Fault::client)
    }

    /// The implicit transaction failed on one host, or was refused by us: what hosts have done of it and not yet
    /// committed is rolled back. (The host that refused does so by itself at Sync.)
    pub(super) async fn undo_batch(&mut self) {
        let refuser = (self.batch.skip == Skip::Server).then_some(self.active);
        let active = self.links.get(self.active).map(|l| l.host);
        for i in (0..self.links.len()).filter(|i| Some(*i) != refuser) {
            if !self.links[i].unsynced {
                continue;
            }
            // Outside a block this is a warning, which nobody sees, and a rollback (xact.c, UserAbortTransactionBlock).
            match self.run_quietly(i, "ROLLBACK").await {
                Ok(()) => self.links[i].unsynced = false,
                Err(_) => self.links[i].discard(),
            }
        }
        self.links.retain(|link| link.conn.is_some());
        self.active = self
            .links
            .iter()
            .position(|l| Some(l.host) == active)
            .unwrap_or(0);
    }

    /// Tells the links other than the active one of the end of the batch. `true`: one of them answered with an error.
    async fn sync_others(&mut self) -> Result<bool, Fault> {
        let others: Vec<usize> = (0..self.links.len())
            .filter(|i| *i != self.active && self.links[*i].unsynced)
            .collect();
        if others.is_empty() {
            return Ok(false);
        }
        self.drain_replies().await?;
        let (active, mut error) = (self.active, false);
        for i in others {
            error |= self.sync_link(i).await?;
        }
        self.active = active;
        Ok(error)
    }

    /// A Sync of which the client sees nothing but an error (`true`).
    pub(super) async fn sync_link(&mut self, i: usize) -> Result<bool, Fault> {
        self.active = i;
        frontend::sync(&mut self.links[i].outbox);
        self.replies.push(Reply::Sync(Pass::Keep));
        let error = self.relay().await?;
        if let Some(link) = self.links.get_mut(i) {
            link.unsynced = false;
        }
        Ok(error)
    }

    /// A Query comes before the Sync: the batch ends as if there were one, but for its ReadyForQuery. `true`: with an error, which is the
    /// answer to the Query, too.
    pub(super) async fn end_batch(&mut self) -> Result<bool, Fault> {
        self.settle_unparsed().await?;
        self.settle_replies().await?;
        let mut error = false;
        if self.in_message_block() {
            error = self.end_message(false).await?;
        }
        for i in 0..self.links.len() {
            if self.links[i].unsynced {
                error |= self.sync_link(i).await?;
            }
        }
        let (executed, parsed) = (self.batch.executed, self.batch.parsed);
        self.reset_batch(error);
        (self.batch.executed, self.batch.parsed) = (executed, parsed);
        self.batch.now = b'Q';
        if self.block.is_none() {
            self.release_links().await;
        }
        Ok(error)
    }

    /// Flush: all that has been asked is to be answered now.
    pub(super) async fn flush(&mut self) -> Result<(), Fault> {
        match self.settle_unparsed().await {
            Err(Fault::Skipped) => {}
            settled => settled?,
        }
        if !self.replies.is_empty() {
            self.drain_replies().await?;
        }
        self.client.flush().await.map_err(Fault::client)
    }

    /// Replies of our own are not hoarded for a client that never sends a Sync.
    pub(super) fn write_many_made(&mut self) {
        if self.replies.len() >= MANY && !self.replies.are_asked() {
            relay::write_made(&mut self.client, &mut self.replies);
        }
    }

    /// A refusal comes behind the reply to a Parse that waits to be confirmed, which may be an error of its own.
    pub(super) async fn settle_before_refusal(&mut self, code: SqlState) {
        if self.batch.skipping() || self.batch.unparsed.is_none() {
            return;
        }
        // If it is itself refused, ours is the better error: a server could only say that it does not find the names.
        let refused = code.as_str().starts_with("SR") || code == SqlState::FEATURE_NOT_SUPPORTED;
        // And a block that has lost a host parses nothing any more.
        let lost = self.block.as_ref().is_some_and(|block| block.lost);
        if refused || lost || self.settle_unparsed().await.is_err() {
            self.confirm_unparsed_blindly();
        }
    }
}

/// Memory for so many changes is kept from batch to batch.
const FEW: usize = 4;
/// Replies of our own that may wait.
const MANY: usize = 1000;
