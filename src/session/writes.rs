//! One statement that writes to several shards. All on one host: its parts in one pipeline, so that they are one
//! transaction. On several hosts: a lane for each, in a block. The tags are added up, the rows of RETURNING given in the
//! order of one Postgres.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::Session;
use super::bring::Bring;
use super::context::{Prepared, Routed, Statement};
use super::errors::Fault;
use super::lanes::{Job, Lane};
use super::links::Need;
use super::prepare::{Parts, Write};
use super::prepareds::server_name;
use super::replies::{Made, Pass, Reply};
use crate::route::SessionState;
use crate::route::{Split, Values};
use crate::shardmap::{HostId, ShardId};
use crate::sql::plan::OnConflict;
use crate::sql::shape::Shape;
use crate::sql::token::{Token, tokens};
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::frontend::{self, Bind, Kind, Param};
use crate::wire::{backend, frame};

/// Bytes for the server that are gathered before its answers are waited for.
const WINDOW: usize = 256 * 1024;
/// The number of a statement that no server connection keeps.
const NOT_KEPT: u32 = u32::MAX;
/// A Bind without parameters, all results as text, behind two empty names.
const PLAIN_BIND: &[u8] = &[0; 8];

/// A write to several shards that is bound.
pub(super) struct Writing {
    pub(super) statement: Arc<Statement>,
    /// The body of the Bind message, without its names.
    pub(super) bind: Box<[u8]>,
    pub(super) write: Write,
}

impl Writing {
    fn routed(&self) -> Result<&Routed, Fault> {
        match &*self.statement.prepared {
            Prepared::Query(routed) => Ok(routed),
            _ => Err(Fault::violation("a write that is no query")),
        }
    }

    pub(super) fn returns_rows(&self) -> bool {
        self.routed().is_ok_and(|routed| routed.returns_rows)
    }

    /// What Postgres says when it is run again after it has given all rows of RETURNING.
    pub(super) fn tag_of_none(&self) -> Option<&'static str> {
        let tags = [
            ("insert", "INSERT 0 0"),
            ("update", "UPDATE 0"),
            ("delete", "DELETE 0"),
        ];
        let (text, holes) = (&self.statement.text, &self.statement.holes);
        let of = |token: Token| tags.iter().find(|(word, _)| token.is_word(text, word));
        let tag = tokens(text, holes).find_map(of)?.1;
        self.returns_rows().then_some(tag)
    }

    /// Its parts may wait for others' locks on rows that are there: the hosts must take their turns.
    fn locks_rows(&self) -> bool {
        match self.write.what {
            Parts::Each(_) | Parts::EveryHost => true,
            Parts::Rows(_) => {
                self.routed().ok().and_then(|routed| routed.on_conflict()) != Some(OnConflict::Fail)
            }
        }
    }

    /// The types that Parse stated for these parameters.
    fn types_of(&self, params: &[u16]) -> Vec<u32> {
        let stated = &self.statement.types;
        let of = |n: &u16| stated.get(usize::from(*n) - 1).copied().unwrap_or(0);
        match stated.is_empty() {
            true => Vec::new(),
            false => params.iter().map(of).collect(),
        }
    }

    /// The statement's text and its literals.
    fn values(&self) -> Values<'_> {
        Values {
            text: &self.statement.text,
            holes: &self.statement.holes,
            params: None,
        }
    }
}

/// Whether the client knows the protocol of the pipeline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// It sent a Query: it is to be told of the columns, and statements are not kept.
    Simple,
    Extended,
}

/// A text of our own that is sent by Parse, Bind and Execute.
pub(super) struct Parsed {
    pub(super) text: Vec<u8>,
    pub(super) types: Vec<u32>,
    /// The body of the Bind message, without its names.
    pub(super) bind: Vec<u8>,
    /// The description of its columns is wanted.
    pub(super) describe: bool,
}

impl Session {
    /// A text of the simple protocol. `None`: it failed and the client has its error. What comes before CommandComplete
    /// is written; that, with this tag, and ReadyForQuery are the caller's.
    pub(super) async fn write_text_parts(
        &mut self,
        prepared: &Arc<Prepared>,
        text: &[u8],
        write: Write,
    ) -> Result<Option<String>, Fault> {
        let mut shape = Shape::default();
        // It was scanned before.
        let _ = shape.scan(text);
        let statement =
            Statement::unnamed(self.context.next_statement_id(), text, &shape, prepared);
        self.write_parts(&Writing {
            statement: Arc::new(statement),
            bind: PLAIN_BIND.into(),
            write,
        })
        .await
    }

    /// The same of any statement and parameters.
    pub(super) async fn write_parts(&mut self, writing: &Writing) -> Result<Option<String>, Fault> {
        let hosts = self.writers_of(&writing.write)?;
        let [host] = hosts[..] else {
            self.settle_replies().await?;
            return self.write_on_hosts(&hosts, writing, Speaks::Simple).await;
        };
        let i = self.link(self.need(host, &writing.write, 0)).await?;
        self.push_check(i, writing, Some(writing.write.shard(0)));
        match self.push_parts(host, writing, Speaks::Simple).await {
            Ok(()) | Err(Fault::Skipped) => {}
            Err(fault) => return Err(fault),
        }
        let i = self.active;
        frontend::sync(&mut self.links[i].outbox);
        self.replies.push(Reply::Sync(Pass::Keep));
        let error = self.relay().await? | self.batch.take_refused();
        if let Some(link) = self.links.get_mut(i) {
            link.unsynced = false;
        }
        Ok(self.replies.take_total().filter(|_| !error))
    }

    /// Runs a write on several hosts, of which nothing is owed. `None`: it failed and the client has its error; else its
    /// rows are written, and this is its tag.
    async fn write_on_hosts(
        &mut self,
        hosts: &[HostId],
        writing: &Writing,
        speaks: Speaks,
    ) -> Result<Option<String>, Fault> {
        if let Parts::EveryHost = writing.write.what {
            let Some(copies) = writing.routed()?.copies().cloned() else {
                return Err(Self::no_tables());
            };
            return self.write_copies(writing, &copies, speaks).await;
        }
        self.context.stats.scattered(writing.write.len());
        self.widen_to(hosts).await?;
        let mut lanes = self.enlist_lanes(hosts).await?;
        for (lane, host) in lanes.iter_mut().zip(hosts) {
            let of_host = |part: &usize| self.map.owner(writing.write.shard(*part)) == *host;
            lane.set_parts((0..writing.write.len()).filter(of_host).collect());
        }
        if speaks == Speaks::Simple {
            let shard = Some(self.first_on(hosts[0], &writing.write));
            let i = lanes[0].link;
            lanes[0].check_first();
            self.in_lane(&mut lanes[0], |session| {
                session.push_check(i, writing, shard)
            });
        }
        let job = Job::Shards(writing, speaks);
        // Side by side, two such statements could take the same rows' locks in different orders on two hosts, which no
        // host would find.
        // The rows of an UPDATE or DELETE have no order.
        let ordered = match writing.write.what {
            Parts::Rows(_) => usize::MAX,
            Parts::Each(_) | Parts::EveryHost => 0,
        };
        match writing.locks_rows() {
            true => {
                for at in 0..lanes.len() {
                    if let Some(part) = lanes[..at].iter().filter_map(Lane::failed_at).min() {
                        lanes[at].stop_at(part.min(ordered));
                    }
                    self.run_lanes(&mut lanes[at..=at], &job).await;
                }
            }
            false => self.run_lanes(&mut lanes, &job).await,
        }
        if !self.lanes_done(&mut lanes)? {
            return Ok(None);
        }
        if speaks == Speaks::Simple {
            let columns = lanes.iter().find(|lane| !lane.columns.is_empty());
            let columns = columns.map_or(&[][..], |lane| &lane.columns);
            self.client.outbox.extend_from_slice(columns);
        }
        self.give_rows(&lanes, &writing.write);
        let count: u64 = lanes.iter().map(|lane| lane.count).sum();
        Ok(Some(format!("{} {count}", lanes[0].command)))
    }

    /// The rows of all parts, in the order of one Postgres.
    fn give_rows(&mut self, lanes: &[Lane], write: &Write) {
        let mut of_part = vec![&[][..]; write.len()];
        for (part, rows) in lanes.iter().flat_map(|lane| &lane.rows) {
            of_part[*part] = rows;
        }
        let out = &mut self.client.outbox;
        if let Parts::Rows(Split { turns, .. }) = &write.what {
            for (part, rows) in turns {
                let left = &mut of_part[*part as usize];
                for _ in 0..*rows {
                    let Ok(Some(header)) = frame::header(left) else {
                        break;
                    };
                    let (row, rest) = left.split_at(header.len.min(left.len()));
                    out.extend_from_slice(row);
                    *left = rest;
                }
            }
        }
        of_part.iter().for_each(|rows| out.extend_from_slice(rows));
    }

    /// Bind of a statement for several shards: the host has it read as a whole, so that what is wrong with it is said
    /// of the whole.
    pub(super) async fn bind_write(&mut self, writing: &Writing) -> Result<(), Fault> {
        let bind = Bind::decode(&writing.bind)?;
        let routed = writing.routed()?;
        let wanted = usize::from(routed.highest_param()).max(writing.statement.types.len());
        if let Parts::Rows(_) = writing.write.what
            && wanted != bind.param_count()
        {
            let message = format!(
                "bind message supplies {} parameters, but prepared statement \"\" requires {wanted}",
                bind.param_count()
            );
            return Err(Fault::statement(ErrorFields::error(
                SqlState::PROTOCOL_VIOLATION,
                message,
            )));
        }
        let hosts = self.writers_of(&writing.write)?;
        if hosts.len() > 1 {
            self.settle_replies().await?;
            self.check_writers(&hosts).await?;
            self.open_message_block().await?;
        }
        let shard = self.first_on(hosts[0], &writing.write);
        let need = self.need_of(hosts[0], &writing.write, shard);
        let i = self.link(need).await?;
        match writing.write.what {
            Parts::Each(_) => drop(self.server_statement(i, &writing.statement, Some(shard))?),
            Parts::Rows(_) => self.push_check(i, writing, Some(shard)),
            Parts::EveryHost => self.push_check(i, writing, None),
        }
        // Maybe nothing but its BEGIN has been sent.
        let link = &mut self.links[i];
        link.unsynced |= !link.outbox.is_empty();
        Ok(())
    }

    /// Execute.
    pub(super) async fn execute_write(
        &mut self,
        writing: &Writing,
        max_rows: i32,
    ) -> Result<(), Fault> {
        if max_rows > 0 && writing.returns_rows() {
            return Err(Fault::unsupported(
                "the rows of a write to several shards cannot be read in parts",
                "Ask for all rows at once (fetch size 0), or write to one user's rows.",
            ));
        }
        let hosts = self.writers_of(&writing.write)?;
        if let [host] = hosts[..] {
            self.push_parts(host, writing, Speaks::Extended).await?;
            self.replies.push(Reply::Made(Made::Total));
            return Ok(());
        }
        self.settle_replies().await?;
        self.check_runs()?;
        match self
            .write_on_hosts(&hosts, writing, Speaks::Extended)
            .await?
        {
            Some(tag) => backend::command_complete(&mut self.client.outbox, &tag),
            None => self.batch.refused(),
        }
        Ok(())
    }

    /// Describe: the columns are those of the whole.
    pub(super) async fn describe_write(&mut self, writing: &Writing) -> Result<(), Fault> {
        if !writing.returns_rows() {
            let mut made = Vec::new();
            backend::no_data(&mut made);
            self.replies.push(Reply::Made(Made::Bytes(made.into())));
            return Ok(());
        }
        let host = self.writers_of(&writing.write)?[0];
        let shard = self.first_on(host, &writing.write);
        let i = self.link(self.need_of(host, &writing.write, shard)).await?;
        let of = match writing.write.what {
            Parts::EveryHost => None,
            _ => Some(shard),
        };
        let n = self.server_statement(i, &writing.statement, of)?;
        let portal = portal_name(0);
        let link = &mut self.links[i];
        let statement = &mut [0; 12];
        let rest = &writing.bind[2..];
        frontend::bind_renamed(&mut link.outbox, &portal, server_name(n, statement), rest);
        frontend::describe(&mut link.outbox, Kind::Portal, &portal);
        frontend::close(&mut link.outbox, Kind::Portal, &portal);
        link.unsynced = true;
        self.replies.push(Reply::One(Pass::Keep));
        self.replies.push(Reply::Describe(Pass::On));
        self.replies.push(Reply::One(Pass::Keep));
        Ok(())
    }

    /// The hosts that are written on, lowest first; one or more.
    fn writers_of(&self, write: &Write) -> Result<SmallVec<[HostId; 2]>, Fault> {
        if let Parts::Each(shards) = &write.what {
            self.limit_scatter(shards.len())?;
        }
        if let Parts::EveryHost = write.what {
            return Ok(self.all_hosts().into());
        }
        Ok(self.writers((0..write.len()).map(|part| write.shard(part))))
    }

    /// The first part's shard of those on a host.
    fn first_on(&self, host: HostId, write: &Write) -> ShardId {
        let mut shards = (0..write.len()).map(|part| write.shard(part));
        let of_host = shards.find(|shard| self.map.owner(*shard) == host);
        of_host.unwrap_or_else(|| write.shard(0))
    }

    fn need(&self, host: HostId, write: &Write, part: usize) -> Need {
        self.need_of(host, write, write.shard(part))
    }

    fn need_of(&self, host: HostId, write: &Write, shard: ShardId) -> Need {
        Need {
            rides: false,
            host,
            statement: None,
            path: Need::path(write.names, Some(shard)),
            writes: true,
            bring: Bring::Along,
            state: SessionState::Same,
            unpreparable: false,
        }
    }

    /// Has the server read the whole text, unless it has before.
    pub(super) fn push_check(&mut self, i: usize, writing: &Writing, shard: Option<ShardId>) {
        let statement = &writing.statement;
        let waits = self.take_unparsed(statement);
        let pass = if waits { Pass::On } else { Pass::Keep };
        if statement.accepted.load(Ordering::Relaxed) {
            if waits {
                self.confirm_statement();
                self.replies.push(Reply::Made(Made::ParseComplete));
            }
            return;
        }
        let mut text = Vec::with_capacity(statement.text.len() + 64);
        if let Ok(routed) = writing.routed() {
            self.write_text(&mut text, routed, &writing.values(), shard);
        }
        if waits {
            self.confirm_statement();
        }
        let link = &mut self.links[i];
        let types = statement.types.iter().copied();
        frontend::parse(&mut link.outbox, b"", &text, types);
        link.unsynced = true;
        self.replies.push(Reply::Parse {
            pass,
            name: NOT_KEPT,
            statement: statement.clone(),
            shard,
        });
    }

    /// Sends all parts. Where much is to be sent, answers are passed on meanwhile.
    async fn push_parts(
        &mut self,
        host: HostId,
        writing: &Writing,
        speaks: Speaks,
    ) -> Result<(), Fault> {
        self.context.stats.scattered(writing.write.len());
        let bind = Bind::decode(&writing.bind)?;
        let params: Vec<Param<'_>> = bind.params().collect();
        let turns = match &writing.write.what {
            Parts::Rows(Split { turns, .. }) => &turns[..],
            Parts::Each(_) | Parts::EveryHost => &[],
        };
        for part in 0..writing.write.len() {
            let i = self.link(self.need(host, &writing.write, part)).await?;
            let portal = portal_name(if turns.is_empty() { 0 } else { part });
            self.push_bind(i, writing, part, &portal, &params, speaks)?;
            if part == 0 && speaks == Speaks::Simple && writing.returns_rows() {
                frontend::describe(&mut self.links[i].outbox, Kind::Portal, &portal);
                self.replies.push(Reply::Describe(Pass::On));
            }
            if turns.is_empty() {
                self.push_execute(i, &portal, 0);
                self.push_close(i, &portal);
            }
            self.keep_window(i).await?;
        }
        let i = self.active;
        let mut left = vec![0u32; writing.write.len()];
        for (part, _) in turns {
            left[*part as usize] += 1;
        }
        for (part, rows) in turns {
            let left = &mut left[*part as usize];
            *left -= 1;
            let portal = portal_name(*part as usize);
            match *left {
                0 => {
                    self.push_execute(i, &portal, 0);
                    self.push_close(i, &portal);
                }
                _ => self.push_execute(i, &portal, *rows),
            }
            self.keep_window(i).await?;
        }
        Ok(())
    }

    /// One part in a lane.
    pub(super) fn push_part(
        &mut self,
        i: usize,
        writing: &Writing,
        part: usize,
        speaks: Speaks,
    ) -> Result<(), Fault> {
        let need = self.need(self.links[i].host, &writing.write, part);
        self.bring_settings(i, need.path, need.bring)?;
        let bind = Bind::decode(&writing.bind)?;
        let params: Vec<Param<'_>> = bind.params().collect();
        let portal = portal_name(0);
        self.push_bind(i, writing, part, &portal, &params, speaks)?;
        if part == 0 && speaks == Speaks::Simple && writing.returns_rows() {
            frontend::describe(&mut self.links[i].outbox, Kind::Portal, &portal);
            self.replies.push(Reply::Describe(Pass::On));
        }
        self.push_execute(i, &portal, 0);
        self.push_close(i, &portal);
        Ok(())
    }

    /// A text of our own in a lane.
    pub(super) fn push_parsed(&mut self, i: usize, parsed: &Parsed) {
        self.push_parse(i, &parsed.text, &parsed.types);
        let portal = portal_name(0);
        let outbox = &mut self.links[i].outbox;
        frontend::bind_renamed(outbox, &portal, b"", &parsed.bind);
        self.replies.push(Reply::One(Pass::Keep));
        if parsed.describe {
            frontend::describe(&mut self.links[i].outbox, Kind::Portal, &portal);
            self.replies.push(Reply::Describe(Pass::On));
        }
        self.push_execute(i, &portal, 0);
        self.push_close(i, &portal);
    }

    async fn keep_window(&mut self, i: usize) -> Result<(), Fault> {
        if self.links[i].outbox.len() < WINDOW {
            return Ok(());
        }
        self.settle_replies().await
    }

    fn push_bind(
        &mut self,
        i: usize,
        writing: &Writing,
        part: usize,
        portal: &[u8],
        params: &[Param<'_>],
        speaks: Speaks,
    ) -> Result<(), Fault> {
        let shard = writing.write.shard(part);
        let routed = writing.routed()?;
        match (&writing.write.what, speaks) {
            (Parts::Each(_), Speaks::Extended) => {
                let n = self.server_statement(i, &writing.statement, Some(shard))?;
                let name = &mut [0; 12];
                let name = server_name(n, name);
                let outbox = &mut self.links[i].outbox;
                frontend::bind_renamed(outbox, portal, name, &writing.bind[2..]);
            }
            (Parts::Each(_), Speaks::Simple) => {
                let mut text = Vec::with_capacity(writing.statement.text.len() + 64);
                self.write_text(&mut text, routed, &writing.values(), Some(shard));
                let types = writing.statement.types.iter().copied();
                frontend::parse(&mut self.links[i].outbox, b"", &text, types);
                self.replies.push(Reply::Parse {
                    pass: Pass::Keep,
                    name: NOT_KEPT,
                    statement: writing.statement.clone(),
                    shard: Some(shard),
                });
                let outbox = &mut self.links[i].outbox;
                frontend::bind_renamed(outbox, portal, b"", &writing.bind[2..]);
            }
            (Parts::Rows(split), _) => {
                let schema = self.map.schema(shard);
                let mut text = Vec::with_capacity(writing.statement.text.len() / 2);
                let kept = routed.write_part(&writing.values(), schema, split, part, &mut text);
                let types = writing.types_of(&kept);
                self.push_parse(i, &text, &types);
                let params = kept
                    .iter()
                    .filter_map(|n| params.get(usize::from(*n) - 1).copied());
                let params: Vec<_> = params.collect();
                let bind = Bind::decode(&writing.bind)?;
                let outbox = &mut self.links[i].outbox;
                frontend::bind(outbox, portal, b"", &params, bind.result_formats());
            }
            // Texts of its own are sent for it.
            (Parts::EveryHost, _) => return Ok(()),
        }
        self.links[i].unsynced = true;
        self.replies.push(Reply::One(Pass::Keep));
        Ok(())
    }

    fn push_parse(&mut self, i: usize, text: &[u8], types: &[u32]) {
        let link = &mut self.links[i];
        frontend::parse(&mut link.outbox, b"", text, types.iter().copied());
        link.unsynced = true;
        self.replies.push(Reply::One(Pass::Keep));
    }

    fn push_execute(&mut self, i: usize, portal: &[u8], asked: u32) {
        frontend::execute(&mut self.links[i].outbox, portal, asked as i32);
        self.replies.push(Reply::Share { asked });
    }

    fn push_close(&mut self, i: usize, portal: &[u8]) {
        frontend::close(&mut self.links[i].outbox, Kind::Portal, portal);
        self.replies.push(Reply::One(Pass::Keep));
    }
}

/// What Postgres says of a portal that has been run and gives no rows.
pub(super) fn spent(portal: &[u8]) -> Fault {
    let message = format!(
        "portal \"{}\" cannot be run",
        String::from_utf8_lossy(portal)
    );
    Fault::statement(ErrorFields::error(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        message,
    ))
}

/// The portals of ours on the server connection: other names than those of clients.
fn portal_name(part: usize) -> Vec<u8> {
    format!("presplit_part_{part}").into_bytes()
}
