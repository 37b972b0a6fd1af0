//! One statement that writes to several shards: its parts in one pipeline to one host, so that they are one transaction;
//! the tags added up, the rows of RETURNING in the order of one Postgres.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Session;
use super::context::{Prepared, Routed, Statement};
use super::errors::Fault;
use super::extended::server_name;
use super::links::Need;
use super::prepare::{Parts, Write};
use super::replies::{Made, Pass, Reply};
use crate::route::{Split, Values};
use crate::shardmap::HostId;
use crate::sql::shape::Shape;
use crate::wire::backend;
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::frontend::{self, Bind, Kind, Param};

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
enum Speaks {
    /// It sent a Query: it is to be told of the columns, and statements are not kept.
    Simple,
    Extended,
}

impl Session {
    /// A text of the simple protocol. `true`: it failed and the client has its error. What follows the rows,
    /// CommandComplete included, is written; ReadyForQuery is the caller's.
    pub(super) async fn write_text_parts(
        &mut self,
        prepared: &Arc<Prepared>,
        text: &[u8],
        write: Write,
    ) -> Result<bool, Fault> {
        let mut shape = Shape::default();
        // It was scanned before.
        let _ = shape.scan(text);
        let statement =
            Statement::unnamed(self.context.next_statement_id(), text, &shape, prepared);
        let writing = Writing {
            statement: Arc::new(statement),
            bind: PLAIN_BIND.into(),
            write,
        };
        let host = self.writer_of(&writing.write)?;
        let i = self.link(self.need(host, &writing.write, 0)).await?;
        self.push_check(i, &writing);
        match self.push_parts(host, &writing, Speaks::Simple).await {
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
        if let Some(tag) = self.replies.take_total().filter(|_| !error) {
            backend::command_complete(&mut self.client.outbox, &tag);
        }
        Ok(error)
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
        let host = self.writer_of(&writing.write)?;
        let i = self.link(self.need(host, &writing.write, 0)).await?;
        match writing.write.what {
            Parts::Each(_) => {
                let first = writing.write.shard(0);
                self.server_statement(i, &writing.statement, Some(first))?;
            }
            Parts::Rows(_) => self.push_check(i, writing),
        }
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
        let host = self.writer_of(&writing.write)?;
        self.push_parts(host, writing, Speaks::Extended).await?;
        self.replies.push(Reply::Made(Made::Total));
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
        let host = self.writer_of(&writing.write)?;
        let i = self.link(self.need(host, &writing.write, 0)).await?;
        let shard = writing.write.shard(0);
        let n = self.server_statement(i, &writing.statement, Some(shard))?;
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

    fn writer_of(&self, write: &Write) -> Result<HostId, Fault> {
        if let Parts::Each(shards) = &write.what {
            self.limit_scatter(shards.len())?;
        }
        self.writers((0..write.len()).map(|part| write.shard(part)))
    }

    fn need(&self, host: HostId, write: &Write, part: usize) -> Need {
        Need {
            host,
            statement: None,
            path: Need::path(write.names, Some(write.shard(part))),
            writes: true,
        }
    }

    /// Has the server read the whole text, unless it has before.
    fn push_check(&mut self, i: usize, writing: &Writing) {
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
        let shard = writing.write.shard(0);
        let mut text = Vec::with_capacity(statement.text.len() + 64);
        if let Ok(routed) = writing.routed() {
            self.write_text(&mut text, routed, &writing.values(), Some(shard));
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
            shard: Some(shard),
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
            Parts::Each(_) => &[],
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
                self.push_parse(i, &text, &[]);
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
