//! The simple protocol: one Query message, one or several statements, one ReadyForQuery.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::block::{Acted, aborted};
use super::bring::Bring;
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
            Ok(true) => Now::Relay,
            Ok(false) => Now::Slowly,
            Err(fault) if self.wants_refresh(&fault) || Self::is_unreadable(&fault) => Now::Slowly,
            Err(Fault::Statement(fields)) if fields.code == SqlState::IN_FAILED_TRANSACTION => {
                Now::Slowly
            }
            Err(fault) => Now::Done(Err(fault)),
        }
    }

    /// `false`: that needs more than can be done at once.
    fn send_query(&mut self, len: usize) -> Result<bool, Fault> {
        if self.is_batch_open() {
            return Ok(false);
        }
        self.follow_map();
        let text = self.query_text(len)?;
        self.statements.forget_unnamed();
        let Read {
            prepared,
            way,
            message,
        } = self.read(&self.client.inbox[text.clone()])?;
        let (Prepared::Query(_) | Prepared::Pass(_), Some(Way::One { host, shard, path })) =
            (&*prepared, way)
        else {
            return Ok(false);
        };
        if prepared.sets_config() {
            return Ok(false);
        }
        self.check_failed()?;
        let need = Need {
            host,
            statement: None,
            path,
            writes: prepared.writes(),
            bring: bring_for(&prepared),
            state: prepared.session_state(),
            unpreparable: prepared.is_unpreparable(),
        };
        let Some(i) = self.link_now(&need)? else {
            return Ok(false);
        };
        let reply = Reply::Query(Pass::On);
        self.push_query(i, &text, shard, prepared, message, reply);
        Ok(true)
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
        if self.is_batch_open() {
            Box::pin(self.query_in_batch(&text)).await?;
        }
        self.statements.forget_unnamed();
        let read = match self.read(&self.client.inbox[text.clone()]) {
            Err(fault) if self.wants_refresh(&fault) => {
                Box::pin(self.refresh_tables()).await;
                self.read(&self.client.inbox[text.clone()])?
            }
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
                let (writes, state) = (prepared.writes(), prepared.session_state());
                let unpreparable = prepared.is_unpreparable();
                let set = self.set_config_of(prepared, &text)?;
                let i = self
                    .link(Need {
                        host,
                        statement: None,
                        path,
                        writes,
                        bring: bring_for(prepared),
                        state,
                        unpreparable,
                    })
                    .await?;
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

    /// A Query comes without a Sync before it. If it goes on where the batch is, it is part of the same transaction, as in
    /// Postgres; else the batch ends.
    async fn query_in_batch(&mut self, text: &Range<usize>) -> Result<(), Fault> {
        self.settle_unparsed().await?;
        self.settle_replies().await?;
        let goes_on = match &self.links[..] {
            [link] if link.unsynced && self.block.is_none() => {
                match self.read(&self.client.inbox[text.clone()]) {
                    Ok(Read { prepared, way, .. }) => match (&*prepared, way) {
                        (
                            Prepared::Several(_)
                            | Prepared::Control(Control::Execute { .. } | Control::Prepare { .. }),
                            _,
                        ) => {
                            self.batch_becomes_block().await?;
                            true
                        }
                        (Prepared::Control(_), _) => true,
                        (_, Some(Way::One { host, .. })) => host == link.host,
                        _ => false,
                    },
                    Err(_) => {
                        // It fails, and with it the whole of its transaction.
                        self.run_quietly(0, "ROLLBACK").await?;
                        self.links[0].unsynced = false;
                        self.end_implicit(false);
                        true
                    }
                }
            }
            _ => false,
        };
        match goes_on {
            true => self.batch.becomes_query(),
            false => self.end_batch().await?,
        }
        self.client.hold_until_reply();
        Ok(())
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
        let failed = self.end_message(done.is_none()).await?;
        if let Some(tag) = done.filter(|_| !failed) {
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
        for i in 0..self.links.len() {
            if self.links[i].unsynced {
                // The batch that the message is part of.
                error |= self.sync_link(i).await?;
            }
        }
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

    /// A text of several statements. All on one host: it goes there as one Query, so that Postgres itself applies its
    /// rules for such texts. Else one after the other, in one transaction where Postgres would have one.
    async fn several(&mut self, text: &Range<usize>, pieces: &[Range<usize>]) -> Result<(), Fault> {
        let whole = self.client.inbox[text.clone()].to_vec();
        if Self::changes_tables(&whole, pieces) {
            // What one statement makes, the next may be about: each is read when its turn has come.
            if self.block.is_none() {
                self.context.refresh.look().await;
            }
            return Box::pin(self.one_by_one(&whole, pieces, true)).await;
        }
        let mut plan = Pieces::default();
        for piece in pieces {
            let from = char_count(&plan.message);
            let read = match self.read(&whole[piece.clone()]) {
                Err(fault) if Self::is_unreadable(&fault) => {
                    return Err(Box::pin(self.syntax_fault(&whole, fault)).await);
                }
                read => read?,
            };
            let shard = read.way.as_ref().and_then(|way| {
                if let Way::One { shard, .. } = way {
                    *shard
                } else {
                    None
                }
            });
            let prepared = read.prepared.clone();
            self.add_piece(&mut plan, &whole[piece.clone()], read)?;
            let len = char_count(&plan.message) - from;
            if matches!(&*prepared, Prepared::Query(bound) if bound.unread) {
                plan.unread.push(piece.clone());
            }
            plan.sent.push(SentPiece {
                from,
                len,
                text: piece.clone(),
                prepared,
                shard,
            });
            plan.message.push(b';');
        }
        match plan.host {
            Some(host) if plan.alone == 0 && !plan.mixed && !self.in_message_block() => {
                let only_end = self.block.as_ref().is_some_and(|b| b.failed);
                if only_end {
                    return Err(aborted());
                }
                let i = self
                    .link(Need {
                        host,
                        statement: None,
                        path: plan.path,
                        writes: plan.writes,
                        bring: match plan.apart {
                            true => Bring::Before,
                            false => Bring::Along,
                        },
                        state: plan.state,
                        unpreparable: plan.unpreparable,
                    })
                    .await?;
                let link = &mut self.links[i];
                link.sent_pieces = plan.sent;
                link.ends_itself |= plan.apart;
                frontend::query(&mut link.outbox, &plan.message);
                self.replies.push(Reply::Query(Pass::On));
                let error = self.relay().await?;
                if error && self.active_status() == b'I' && self.block.is_some() {
                    self.close_block(false);
                }
                self.settle().await;
                for piece in pieces {
                    self.note_cursor(declared_cursor(&whole[piece.clone()]), host);
                }
                Ok(())
            }
            _ => {
                for piece in &plan.unread {
                    self.check_piece(&whole, piece).await?;
                }
                self.one_by_one(&whole, pieces, plan.writes || plan.whole)
                    .await
            }
        }
    }

    /// A syntax error in one statement of a text comes before anything is run. (What could be read has none.)
    async fn check_piece(&mut self, whole: &[u8], piece: &Range<usize>) -> Result<(), Fault> {
        let mut text = vec![b' '; char_count(&whole[..piece.start]) as usize];
        text.extend_from_slice(&whole[piece.start..(piece.end + 1).min(whole.len())]);
        match Box::pin(self.syntax_error(&text)).await? {
            Found::Error(error) => Err(Fault::statement(error)),
            _ => Ok(()),
        }
    }

    /// Reads one statement of a text of several.
    fn add_piece(&self, plan: &mut Pieces, piece: &[u8], read: Read) -> Result<(), Fault> {
        match (&*read.prepared, read.way) {
            (
                prepared @ (Prepared::Query(_) | Prepared::Pass(_)),
                Some(Way::One { host, path, .. }),
            ) => {
                // A cursor lives as long as the transaction: the message is one.
                plan.whole |= declared_cursor(piece).is_some();
                // SHOW search_path is not to tell of that of another statement's shard.
                plan.shows |= matches!(prepared, Prepared::Pass(_));
                plan.paths |= path.is_some();
                plan.mixed |= plan.shows && plan.paths;
                plan.mixed |= plan.host.is_some_and(|h| h != host)
                    || plan.path.is_some_and(|p| Some(p) != path);
                plan.host = Some(host);
                plan.path = path;
                plan.alone += usize::from(prepared.sets_config());
                plan.writes |= prepared.writes();
                plan.apart |= !prepared.shares_transaction();
                plan.unpreparable |= prepared.is_unpreparable();
                plan.state = plan.state.max(prepared.session_state());
                // Without tag, length and NUL.
                plan.message
                    .extend_from_slice(&read.message[frame::HEADER..read.message.len() - 1]);
            }
            (Prepared::Query(bound), _) => {
                plan.mixed = true;
                plan.writes |= bound.writes;
            }
            // What holds for the transaction holds for the message.
            (
                Prepared::Control(
                    Control::Set { local: true, .. }
                    | Control::SetTransaction(_)
                    | Control::SetConstraints { .. },
                ),
                _,
            ) => {
                plan.alone += 1;
                plan.whole = true;
            }
            // What else tells of a block (options, savepoints) must be seen here: other hosts of the block get it, too.
            (
                Prepared::Control(
                    control @ (Control::Begin(_)
                    | Control::Commit { .. }
                    | Control::Rollback { .. }),
                ),
                _,
            ) if self.block.is_none() => {
                let plain = match control {
                    Control::Begin(options) => *options == BeginOptions::default(),
                    _ => true,
                };
                plan.alone += usize::from(!plain);
                plan.whole = true;
                // What is brought about must outlive the end of a transaction.
                plan.apart = true;
                plan.message.extend_from_slice(piece);
            }
            (Prepared::NoTables, _) => return Err(Self::no_tables()),
            (Prepared::Control(control), _) => {
                plan.alone += 1;
                plan.writes |= self.may_write(control);
            }
            _ => {}
        }
        Ok(())
    }

    /// Runs the statements of a text one after the other; the first error ends it. `writes`: those outside of the client's
    /// blocks are one transaction, up to the end of the message or to a COMMIT or ROLLBACK in it.
    async fn one_by_one(
        &mut self,
        whole: &[u8],
        pieces: &[Range<usize>],
        writes: bool,
    ) -> Result<(), Fault> {
        let mut failed = false;
        // The tag of the latest statement, if it has not been told.
        let mut done: Option<String> = None;
        for piece in pieces {
            if let Some(tag) = done.take() {
                backend::command_complete(&mut self.client.outbox, &tag);
            }
            let text = &whole[piece.clone()];
            if self.must_read_tables() {
                Box::pin(self.read_block_tables()).await?;
            }
            let read = self.read(text)?;
            if writes && !matches!(&*read.prepared, Prepared::Control(Control::Begin(_))) {
                self.open_message_block().await?;
            }
            let mut error = false;
            let way = match read.way {
                Some(Way::Make(make)) => {
                    self.check_failed()?;
                    Some(Box::pin(self.way_of_text(&make, &read.prepared, text)).await?)
                }
                way => way,
            };
            match (&*read.prepared, way) {
                (
                    prepared @ (Prepared::Query(_) | Prepared::Pass(_)),
                    Some(Way::One { host, shard, path }),
                ) => {
                    self.check_failed()?;
                    let i = self
                        .link(Need {
                            host,
                            statement: None,
                            path,
                            writes: prepared.writes(),
                            bring: bring_for(prepared),
                            state: prepared.session_state(),
                            unpreparable: prepared.is_unpreparable(),
                        })
                        .await?;
                    let set = match prepared.sets_config() {
                        true => set_config_in(text)?,
                        false => Vec::new(),
                    };
                    self.check_default(&set)?;
                    if !set.is_empty() {
                        self.remember_settings();
                    }
                    let sent = SentPiece {
                        from: 0,
                        len: u32::MAX - 1,
                        text: piece.clone(),
                        prepared: read.prepared.clone(),
                        shard,
                    };
                    self.links[i].sent_pieces = SmallVec::from_iter([sent]);
                    self.links[i].outbox.extend_from_slice(&read.message);
                    // Its ReadyForQuery is not the client's: more statements follow.
                    self.replies.push(Reply::Part);
                    self.client.hold_until_reply();
                    error = self.relay().await?;
                    self.note_cursor(declared_cursor(text), host);
                    if !error {
                        self.note_set_config(set).await?;
                        self.batch.has_set |= prepared.sets_config();
                    }
                }
                (Prepared::Query(_), Some(Way::Everywhere)) => {
                    let from = char_count(&whole[..piece.start]);
                    let item = Item::new(text, read.prepared.clone(), from);
                    let tag = Box::pin(self.run_ddl(&item)).await?;
                    backend::command_complete(&mut self.client.outbox, &tag);
                }
                (Prepared::Query(bound), Some(Way::Several(shards))) => {
                    self.check_failed()?;
                    let mut shape = Shape::default();
                    let _ = shape.scan(text);
                    let values = Values {
                        text,
                        holes: &shape.holes,
                        params: None,
                    };
                    error = self.gather_text(bound, &values, &shards).await?;
                }
                (Prepared::Query(bound), Some(Way::Data(only))) => {
                    self.check_failed()?;
                    done = Box::pin(self.copy_rows_of_text(bound, text, only)).await?;
                    error = done.is_none();
                }
                (Prepared::Query(_), Some(Way::Write(write))) => {
                    self.check_failed()?;
                    let writing = self.write_text_parts(&read.prepared, text, *write);
                    done = Box::pin(writing).await?;
                    error = done.is_none();
                }
                (Prepared::Control(Control::Discard(Discard::All)), _) => {
                    self.check_failed()?;
                    return Err(in_block("DISCARD ALL"));
                }
                (Prepared::Control(control), _) => {
                    let before = char_count(&whole[..piece.start]);
                    match Box::pin(self.act_on(control, text, before)).await? {
                        Ran::Acted(acted) => {
                            error = self.batch.take_refused();
                            if let Acted::Answered(bytes) = acted {
                                match lone_tag(&bytes) {
                                    Some(tag) if !error => done = Some(tag),
                                    _ => self.client.outbox.extend_from_slice(&bytes),
                                }
                            }
                        }
                        Ran::Written(tag) => {
                            done = tag;
                            error = done.is_none();
                        }
                    }
                }
                (Prepared::NoTables, _) => return Err(Self::no_tables()),
                _ => {}
            }
            if error {
                if let Some(block) = &mut self.block {
                    block.failed = true;
                }
                failed = true;
                break;
            }
        }
        if !failed && !self.in_message_block() {
            self.gather_news();
        }
        let failed = self.end_message(failed).await?;
        if let Some(tag) = done.filter(|_| !failed) {
            backend::command_complete(&mut self.client.outbox, &tag);
        }
        if self.block.is_none() {
            self.release_links().await;
        }
        self.ready();
        Ok(())
    }
}

/// How settings are brought about for a statement.
pub(super) fn bring_for(prepared: &Prepared) -> Bring {
    match prepared.shares_transaction() {
        true => Bring::Along,
        false => Bring::Before,
    }
}

/// The tag of an answer that is a CommandComplete alone: it is told once what it ends is committed.
fn lone_tag(answer: &[u8]) -> Option<String> {
    let header = frame::header(answer).ok()??;
    let is_lone = header.tag == b'C' && header.len == answer.len();
    let complete = CommandComplete::decode(&answer[frame::HEADER..]).ok();
    let tag = complete.filter(|_| is_lone)?.tag;
    Some(String::from_utf8_lossy(tag).into_owned())
}

/// What a text of several statements comes to.
#[derive(Default)]
struct Pieces {
    /// The statements with the schemas written in.
    message: Vec<u8>,
    /// The host that all go to so far.
    host: Option<HostId>,
    path: Option<ShardId>,
    /// They don't all go to one host.
    mixed: bool,
    /// How many the session itself acts on.
    alone: usize,
    writes: bool,
    /// One of them can't share a transaction with settings.
    apart: bool,
    /// Some show what is set, some need the search_path of their shard.
    shows: bool,
    paths: bool,
    /// It must be one transaction though it writes nothing.
    whole: bool,
    /// Those of which nothing could be read.
    unread: SmallVec<[Range<usize>; 1]>,
    unpreparable: bool,
    state: SessionState,
    /// How the message was made.
    sent: SmallVec<[SentPiece; 1]>,
}
