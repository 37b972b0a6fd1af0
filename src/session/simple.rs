//! The simple protocol: one Query message, one or several statements, one ReadyForQuery.

mod several;

use std::ops::Range;
use std::slice;
use std::sync::Arc;

use smallvec::SmallVec;

use super::block::{Acted, aborted};
use super::buffers;
use super::context::Prepared;
use super::control::{declared_cursor, in_block};
use super::ddl::Item;
use super::ends::{SentPiece, char_count};
use super::errors::Fault;
use super::execute::Ran;
use super::links::Need;
use super::prepare::{Read, Way};
use super::replies::{Pass, Reply};
use super::set_config::set_config_in;
use super::syntax::Found;
use super::{Now, Session};
use crate::route::{SessionState, Values};
use crate::shardmap::{HostId, ShardId};
use crate::sql::control::{BeginOptions, Control, Discard};
use crate::sql::shape::Shape;
use crate::wire::backend::CommandComplete;
use crate::wire::error::SqlState;
use crate::wire::{backend, frame, frontend};

impl Session {
    /// A Query of one statement for one host with an idle server connection: sent at once.
    pub(super) fn query_now(&mut self, len: usize) -> Now {
        match self.send_query(len) {
            Ok(now) => now,
            Err(fault) if self.wants_refresh(&fault) || Self::is_unreadable(&fault) => Now::Slowly,
            Err(Fault::Statement(fields)) if fields.code == SqlState::IN_FAILED_TRANSACTION => {
                Now::Slowly
            }
            Err(fault) => Now::Done(Err(fault)),
        }
    }

    fn send_query(&mut self, len: usize) -> Result<Now, Fault> {
        if self.is_batch_open() {
            return Ok(Now::Slowly);
        }
        self.follow_map();
        let text = self.query_text(len)?;
        self.statements.forget_unnamed();
        let Read {
            prepared,
            way,
            message,
        } = self.read(&self.client.inbox[text.clone()])?;
        let (host, shard, path) = match (&*prepared, way) {
            (Prepared::Query(_) | Prepared::Pass(_), Some(Way::One { host, shard, path })) => {
                (host, shard, path)
            }
            (Prepared::Control(control), _) => {
                let now = self.query_control_now(control, text);
                return Ok(now.unwrap_or(Now::Slowly));
            }
            _ => return Ok(Now::Slowly),
        };
        if prepared.sets_config() {
            return Ok(Now::Slowly);
        }
        self.check_failed()?;
        let need = Need {
            rides: self.query_rides(&prepared, shard, path, len),
            ..Need::of(&prepared, host, path)
        };
        let Some(i) = self.link_now(&need)? else {
            return Ok(Now::Slowly);
        };
        let reply = Reply::Query(Pass::On);
        self.push_query(i, &text, shard, prepared, message, reply);
        Ok(Now::Relay)
    }

    /// Sends a Query whose link is ready.
    fn push_query(
        &mut self,
        i: usize,
        text: &Range<usize>,
        shard: Option<ShardId>,
        prepared: Arc<Prepared>,
        mut message: Vec<u8>,
        reply: Reply,
    ) {
        self.context.stats.routed();
        let link = &mut self.links[i];
        link.unsynced = false;
        link.sent_pieces.clear();
        if shard.is_some() {
            let text = 0..text.len();
            link.sent_pieces.push(SentPiece {
                from: 0,
                len: u32::MAX - 1,
                text,
                prepared,
                shard,
            });
        }
        if link.outbox.capacity() == 0 {
            link.outbox = message;
        } else {
            link.outbox.extend_from_slice(&message);
            message.clear();
            buffers::take_back(&mut message);
        }
        self.replies.push(reply);
        if self.block.is_some() {
            let host = link.host;
            self.note_cursor(declared_cursor(&self.client.inbox[text.clone()]), host);
        }
    }

    /// A Query message of `len` bytes at the front of the inbox.
    pub(super) async fn query(&mut self, len: usize) -> Result<(), Fault> {
        self.follow_map();
        let text = self.query_text(len)?;
        if self.is_batch_open() && !Box::pin(self.query_in_batch(&text)).await? {
            self.ready();
            return self.client.flush().await.map_err(Fault::client);
        }
        self.statements.forget_unnamed();
        let read = match self.read_query(&text).await {
            Err(fault) if Self::is_unreadable(&fault) => {
                let text = self.client.inbox[text].to_vec();
                return Err(Box::pin(self.syntax_fault(&text, fault)).await);
            }
            other => other?,
        };
        if let Err(aborted) = self.check_failed()
            && !self.may_end_block(&text, &read.prepared)
        {
            // That it can't be read is said first.
            let text = self.client.inbox[text].to_vec();
            return Err(Box::pin(self.syntax_fault(&text, aborted)).await);
        }
        if self.in_message_block()
            && matches!(&*read.prepared, Prepared::Query(_) | Prepared::Pass(_))
        {
            // What a batch has done is to be committed with it.
            let whole = 0..text.len();
            Box::pin(self.several(&text, slice::from_ref(&whole))).await?;
            return self.client.flush().await.map_err(Fault::client);
        }
        let way = match read.way {
            Some(Way::Make(make)) => {
                self.check_failed()?;
                let text = self.client.inbox[text.clone()].to_vec();
                Some(Box::pin(self.way_of_text(&make, &read.prepared, &text)).await?)
            }
            way => way,
        };
        match (&*read.prepared, way) {
            (
                prepared @ (Prepared::Query(_) | Prepared::Pass(_)),
                Some(Way::One { host, shard, path }),
            ) => {
                self.check_failed()?;
                let set = self.set_config_of(prepared, &text)?;
                let i = self.link(Need::of(prepared, host, path)).await?;
                let (sets, prepared) = (!set.is_empty(), read.prepared.clone());
                if sets {
                    self.remember_settings();
                }
                let reply = if sets {
                    Reply::Part
                } else {
                    Reply::Query(Pass::On)
                };
                self.push_query(i, &text, shard, prepared, read.message, reply);
                let error = self.relay().await?;
                match error {
                    true => self.end_implicit(false),
                    false => {
                        self.note_set_config(set).await?;
                        self.gather_news();
                    }
                }
                self.settle().await;
                if sets {
                    self.ready();
                }
            }
            (Prepared::Query(_), Some(Way::Everywhere)) => {
                Box::pin(self.ddl_simple(&text, read.prepared.clone())).await?;
                if self.block.is_none() {
                    self.release_links().await;
                }
                self.ready();
            }
            (Prepared::Query(bound), Some(Way::Several(shards))) => {
                self.check_failed()?;
                self.context.stats.scattered(shards.len());
                let error = Box::pin(self.gather_simple(bound, &text, &shards)).await?;
                if error && let Some(block) = &mut self.block {
                    block.failed = true;
                }
                self.ready();
                if self.block.is_none() {
                    self.release_links().await;
                }
            }
            (Prepared::Query(bound), Some(Way::Data(only))) => {
                self.check_failed()?;
                let text = self.client.inbox[text].to_vec();
                let done = Box::pin(self.copy_rows_of_text(bound, &text, only)).await?;
                Box::pin(self.end_write(done)).await?;
            }
            (Prepared::Query(_), Some(Way::Write(write))) => {
                self.check_failed()?;
                let text = self.client.inbox[text].to_vec();
                let writing = self.write_text_parts(&read.prepared, &text, *write);
                let done = Box::pin(writing).await?;
                Box::pin(self.end_write(done)).await?;
            }
            (Prepared::Query(_) | Prepared::Pass(_), _) => {}
            (Prepared::Control(control), _) => {
                let text = self.client.inbox[text].to_vec();
                match Box::pin(self.act_on(control, &text, 0)).await? {
                    Ran::Acted(acted) => self.answer(acted).await?,
                    Ran::Written(done) => Box::pin(self.end_write(done)).await?,
                }
            }
            (Prepared::Empty, _) => {
                self.client.outbox.extend_from_slice(b"I\0\0\0\x04");
                self.ready();
            }
            (Prepared::Several(pieces), _) => Box::pin(self.several(&text, pieces)).await?,
            (Prepared::NoTables, _) => return Err(Self::no_tables()),
            (Prepared::ByText, _) => {}
        }
        self.client.flush().await.map_err(Fault::client)
    }

    /// Reads the text of a Query. What may only be about a table that is new is read again, with the tables that there are by then.
    async fn read_query(&mut self, text: &Range<usize>) -> Result<Read, Fault> {
        let read = self.read(&self.client.inbox[text.clone()]);
        if !matches!(&read, Err(fault) if self.wants_refresh(fault)) {
            return read;
        }
        Box::pin(self.refresh_tables()).await;
        self.read(&self.client.inbox[text.clone()])
    }

    /// Whether a failed block takes it: it, or the first of several statements, may be the block's end.
    fn may_end_block(&self, text: &Range<usize>, prepared: &Prepared) -> bool {
        match prepared {
            Prepared::Control(control) => matches!(
                control,
                Control::Commit { .. } | Control::Rollback { .. } | Control::RollbackTo(_)
            ),
            Prepared::Several(pieces) => {
                let whole = &self.client.inbox[text.clone()];
                let first = pieces
                    .first()
                    .and_then(|piece| self.read(&whole[piece.clone()]).ok());
                first.is_some_and(|first| {
                    !matches!(&*first.prepared, Prepared::Several(_))
                        && self.may_end_block(text, &first.prepared)
                })
            }
            // Of these nothing is run.
            Prepared::Empty => true,
            _ => false,
        }
    }

    /// A Query comes without a Sync before it: it is part of the same transaction, as in Postgres. `false`: that has ended with an error.
    async fn query_in_batch(&mut self, text: &Range<usize>) -> Result<bool, Fault> {
        self.settle_unparsed().await?;
        self.settle_replies().await?;
        let read = self.read_query(text).await;
        let implicit = self.block.is_none() && self.links.iter().any(|link| link.unsynced);
        let goes_on = match (&self.links[..], read) {
            (_, Ok(Read { prepared, .. })) if matches!(&*prepared, Prepared::Empty) => false,
            // On several hosts it is a block of ours already, in which an error undoes all. A server that is in the middle of a batch
            // would ignore the Query behind an error.
            _ if self.in_message_block() => {
                let active = self.active;
                for i in 0..self.links.len() {
                    if self.links[i].unsynced {
                        self.sync_link(i).await?;
                    }
                }
                self.active = active;
                true
            }
            _ if !implicit => false,
            (_, Err(_)) => {
                // It fails, and with it the whole of its transaction.
                self.undo_batch().await;
                self.end_implicit(false);
                true
            }
            ([_], Ok(Read { prepared, way, .. })) => {
                match (&*prepared, way) {
                    (Prepared::Query(_) | Prepared::Pass(_), Some(Way::One { host, .. }))
                        if host == self.links[0].host => {}
                    (
                        Prepared::Query(_)
                        | Prepared::Pass(_)
                        | Prepared::Several(_)
                        | Prepared::Control(Control::Execute { .. } | Control::Prepare { .. }),
                        _,
                    ) => self.batch_becomes_block().await?,
                    _ => {}
                }
                true
            }
            // It may have read on one host and written on another: they end together.
            (_, Ok(_)) => {
                self.batch_becomes_block().await?;
                true
            }
        };
        match goes_on {
            true => self.batch.becomes_query(),
            false if self.end_batch().await? => return Ok(false),
            false => {}
        }
        self.client.hold_until_reply();
        Ok(true)
    }

    /// What a batch has done so far on one host is part of what comes behind it without a Sync: we end both together.
    pub(super) async fn batch_becomes_block(&mut self) -> Result<(), Fault> {
        self.open_message_block().await?;
        for link in &mut self.links {
            link.unsynced = false;
        }
        Ok(())
    }

    /// The end of a Query that was one write: as in Postgres, its CommandComplete comes once it is committed. `None`: it has
    /// failed.
    async fn end_write(&mut self, done: Option<String>) -> Result<(), Fault> {
        if let (None, Some(block)) = (&done, &mut self.block) {
            block.failed = true;
        }
        self.client.hold_for_caller();
        self.end_query(done.is_none(), done).await
    }

    /// The end of a Query. Its last tag, if that has not been told, is told once what it speaks of is committed.
    async fn end_query(&mut self, failed: bool, tag: Option<String>) -> Result<(), Fault> {
        let failed = self.end_message(failed).await?;
        self.note_run();
        if let Some(tag) = tag.filter(|_| !failed) {
            backend::command_complete(&mut self.client.outbox, &tag);
        }
        if self.block.is_none() {
            self.release_links().await;
        }
        self.ready();
        Ok(())
    }

    /// Adds what is missing of the answer to a Query that the session acted on itself.
    async fn answer(&mut self, acted: Acted) -> Result<(), Fault> {
        let mut error = self.batch.take_refused();
        let active = self.active;
        for i in 0..self.links.len() {
            if self.links[i].unsynced {
                // The batch that the message is part of.
                error |= self.sync_link(i).await?;
            }
        }
        // What it was done on is where the news is.
        self.active = active;
        if self.in_message_block() {
            error = self.end_message(error).await?;
        } else {
            if !error {
                self.gather_news();
            }
            self.end_implicit(!error);
        }
        self.note_run();
        if let (Acted::Answered(bytes), false) = (acted, error) {
            self.client.outbox.extend_from_slice(&bytes);
        }
        if self.block.is_none() {
            self.release_links().await;
        }
        self.ready();
        Ok(())
    }

    /// A failed block takes nothing but its end.
    pub(super) fn check_failed(&self) -> Result<(), Fault> {
        match &self.block {
            Some(block) if block.failed => Err(aborted()),
            _ => Ok(()),
        }
    }

    /// After a ReadyForQuery of a server was passed on: the session's block is what the server's is.
    pub(super) async fn settle(&mut self) {
        if !self.settle_now() {
            self.release_links().await;
        }
    }

    /// If it was a Query that was run, there is no unnamed portal any more.
    fn note_run(&mut self) {
        if self.batch.now == b'Q' && self.check_failed().is_ok() {
            self.statements.portals.forget_unnamed();
        }
    }

    /// [`Session::settle`]; `false`: the server connections are still to be released, with a wait.
    pub(super) fn settle_now(&mut self) -> bool {
        let status = self.active_status();
        match (&mut self.block, status) {
            (None, b'I') => {}
            (None, status) => {
                self.open_block(BeginOptions::default());
                if let Some(block) = &mut self.block {
                    block.failed = status == b'E';
                }
            }
            (Some(_), b'I') => {
                // By what it was ended is not known: nor what became of its settings.
                self.links.iter_mut().for_each(|link| link.doubt_settings());
                self.close_block(true);
            }
            // What failed by an error of ours the server knows nothing of.
            (Some(block), status) => block.failed |= status == b'E',
        }
        if self.block.is_some() {
            self.note_run();
            return true;
        }
        self.end_implicit(true);
        self.release_now()
    }
}
