//! A text of several statements: sent as it is where all of it goes to one host, else one statement after the other.

use super::super::bring::Bring;
use super::*;

impl Session {
    /// A text of several statements. All on one host: it goes there as one Query, so that Postgres itself applies its
    /// rules for such texts. Else one after the other, in one transaction where Postgres would have one.
    pub(super) async fn several(
        &mut self,
        text: &Range<usize>,
        pieces: &[Range<usize>],
    ) -> Result<(), Fault> {
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
                        rides: false,
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
            Found::Error(error) | Found::EndOfBatch(Some(error)) => Err(Fault::statement(error)),
            Found::Nothing | Found::EndOfBatch(None) => Ok(()),
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
    pub(super) async fn one_by_one(
        &mut self,
        whole: &[u8],
        pieces: &[Range<usize>],
        writes: bool,
    ) -> Result<(), Fault> {
        self.batch.of_several = pieces.len() > 1;
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
                    if prepared.declares() {
                        self.refuse_in_ours("DECLARE CURSOR")?;
                    }
                    let i = self.link(Need::of(prepared, host, path)).await?;
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
        self.end_query(failed, done).await
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
