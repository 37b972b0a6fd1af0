//! Parse: a statement is made, and confirmed by the server that the message after it leads to. Every statement, named or not,
//! runs as a server-side statement of (text, parameter types, shard) kept on the server connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::block::aborted;
use super::bring::Bring;
use super::context::{Passed, Prepared, Statement};
use super::errors::Fault;
use super::links::Need;
use super::prepare::Way;
use super::prepareds::server_name;
use super::replies::{Made, Pass, Reply};
use super::{Now, Session};

use crate::pool::{NO_SHARD, StatementKey};
use crate::route::{SessionState, Values};
use crate::shardmap::ShardId;
use crate::sql::control::Control;
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::frame;
use crate::wire::frontend::{self, Kind};

impl Session {
    /// Bytes of the body of the message of `len` bytes at the front of the inbox.
    pub(super) fn body(&self, len: usize) -> &[u8] {
        &self.client.inbox[self.client.read + frame::HEADER..self.client.read + len]
    }

    /// Parse, where no earlier one is to be confirmed first.
    pub(super) fn parse_now(&mut self, len: usize) -> Now {
        if self.batch.unparsed.is_some() {
            return Now::Slowly;
        }
        match self.parse(len) {
            Err(Fault::Statement(fields))
                if fields.code == SqlState::DUPLICATE_STATEMENT
                    || fields.code == SqlState::IN_FAILED_TRANSACTION =>
            {
                Now::Slowly
            }
            done => Now::Done(done),
        }
    }

    /// Parse. That the name is there already is told last: what else is wrong about the statement comes first. And that its
    /// text can't be read comes before all.
    pub(super) async fn parse_slowly(&mut self, len: usize) -> Result<(), Fault> {
        let parsed = self.parse(len);
        if let Err(Fault::Statement(fields)) = &parsed
            && fields.code == SqlState::IN_FAILED_TRANSACTION
        {
            let text = frontend::Parse::decode(self.body(len))?.query.to_vec();
            return Err(Box::pin(self.syntax_fault(&text, aborted())).await);
        }
        if let Err(Fault::Statement(fields)) = &parsed
            && fields.code == SqlState::DUPLICATE_STATEMENT
        {
            let reading = self.reading();
            let parse = frontend::Parse::decode(self.body(len))?;
            let statement = self.intern(parse.query, parse.types.iter(), reading)?;
            if !matches!(self.way_to_describe(&statement), Ok(None)) {
                self.parse_somewhere(&statement).await?;
                self.settle_replies().await?;
            }
        }
        parsed
    }

    /// Parse. Answered once a server has confirmed it; the next message says which.
    pub(super) fn parse(&mut self, len: usize) -> Result<(), Fault> {
        self.begin_message();
        let reading = self.reading();
        let parse = frontend::Parse::decode(self.body(len))?;
        let name: Box<[u8]> = parse.name.into();
        let statement = self.intern(parse.query, parse.types.iter(), reading);
        if name.is_empty() {
            // Whatever becomes of the new one.
            self.note_statement(&name);
            self.statements.remove(&name);
        }
        let statement = statement?;
        if !matches!(*statement.prepared, Prepared::Empty) {
            self.check_parse(&statement)?;
        }
        self.check_statement_is_new(&name)?;
        let routed = matches!(*statement.prepared, Prepared::Query(_) | Prepared::Pass(_));
        if matches!(*statement.prepared, Prepared::Query(_)) {
            self.note_snapshot();
        }
        if !name.is_empty() {
            self.note_statement(&name);
        }
        if routed && !statement.accepted.load(Ordering::Relaxed) {
            self.batch.unparsed = Some(statement.clone());
        } else {
            self.confirm_statement();
            if self.batch.limited {
                self.push_empty_parse();
            }
            self.replies.push(Reply::Made(Made::ParseComplete));
        }
        self.statements.put(&name, statement);
        Ok(())
    }

    /// A Parse that we answer ourselves lets the server see what a portal has written that was not run to its end
    /// (postgres.c, CommandCounterIncrement).
    fn push_empty_parse(&mut self) {
        if let Some(link) = self.links.get_mut(self.active).filter(|link| link.unsynced) {
            frontend::parse(&mut link.outbox, b"", b"", std::iter::empty());
            self.replies.push(Reply::One(Pass::Keep));
        }
    }

    /// What Postgres would say of a name, and the limit.
    pub(super) fn check_statement_is_new(&self, name: &[u8]) -> Result<(), Fault> {
        if name.is_empty() {
            return Ok(());
        }
        if self.statements.named.contains_key(name) {
            let message = format!(
                "prepared statement \"{}\" already exists",
                String::from_utf8_lossy(name)
            );
            return Err(Fault::statement(ErrorFields::error(
                SqlState::DUPLICATE_STATEMENT,
                message,
            )));
        }
        let most = self.map.proxy.limits.statements_per_session;
        if self.statements.named.len() >= most as usize {
            return Err(Fault::limit(
                &format!("{} prepared statements", self.statements.named.len() + 1),
                "statements_per_session",
                u64::from(most),
            ));
        }
        Ok(())
    }

    /// Work to be done before the first message of a batch.
    pub(super) fn begin_message(&mut self) {
        if self.links.is_empty() && self.replies.is_empty() {
            self.follow_map();
        }
    }

    pub(super) fn confirm_unparsed_blindly(&mut self) {
        if self.batch.unparsed.take().is_some() {
            self.confirm_statement();
            self.replies.push(Reply::Made(Made::ParseComplete));
        }
    }

    /// What Postgres would refuse at Parse.
    pub(super) fn check_parse(&self, statement: &Statement) -> Result<(), Fault> {
        let ends = matches!(
            &*statement.prepared,
            Prepared::Control(
                Control::Commit { .. } | Control::Rollback { .. } | Control::RollbackTo(_)
            )
        );
        if self.block.as_ref().is_some_and(|b| b.failed) && !ends {
            return Err(aborted());
        }
        Self::check_text_of(statement)
    }

    /// The same outside of a failed block.
    fn check_text_of(statement: &Statement) -> Result<(), Fault> {
        match &*statement.prepared {
            Prepared::Several(_) => Err(Fault::statement(ErrorFields::error(
                SqlState::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            ))),
            Prepared::NoTables => Err(Self::no_tables()),
            _ => Ok(()),
        }
    }

    /// The statement of this name as it was last read.
    pub(super) fn known_statement(&self, name: &[u8]) -> Result<&Arc<Statement>, Fault> {
        self.statements.get(name).ok_or_else(|| {
            let message = if name.is_empty() {
                "unnamed prepared statement does not exist".to_owned()
            } else {
                format!(
                    "prepared statement \"{}\" does not exist",
                    String::from_utf8_lossy(name)
                )
            };
            Fault::statement(ErrorFields::error(
                SqlState::INVALID_STATEMENT_NAME,
                message,
            ))
        })
    }

    /// The statement of a Bind or Describe, made anew if the tables, or the settings by which it is read, have changed since.
    pub(super) fn statement(&mut self, name: &[u8]) -> Result<Arc<Statement>, Fault> {
        let reading = self.reading();
        let statement = self.known_statement(name)?;
        let fits = statement.reading.fits(&reading);
        if self.is_of_schema(statement) && fits {
            return Ok(statement.clone());
        }
        let old = statement.clone();
        let reading = match fits {
            true => old.reading.clone(),
            false => old.reading.go_on(&reading),
        };
        let new = self.intern(&old.text, old.types.iter().copied(), reading)?;
        Self::check_text_of(&new)?;
        self.statements.replace(name, new.clone());
        self.hold_to(name, &old);
        if let Some(unparsed) = &mut self.batch.unparsed
            && Arc::ptr_eq(unparsed, &old)
        {
            *unparsed = new.clone();
        }
        Ok(new)
    }

    /// Whether the statement's Parse waits to be confirmed; from here on it does not.
    pub(super) fn take_unparsed(&mut self, statement: &Arc<Statement>) -> bool {
        let unparsed = &mut self.batch.unparsed;
        unparsed
            .take_if(|unparsed| Arc::ptr_eq(unparsed, statement))
            .is_some()
    }

    /// The number of the server-side statement on a link, parsed there in the same write if it is not there yet.
    /// If the client waits for its ParseComplete, this is where it comes from.
    pub(super) fn server_statement(
        &mut self,
        i: usize,
        statement: &Arc<Statement>,
        shard: Option<ShardId>,
    ) -> Result<u32, Fault> {
        let waits = self.take_unparsed(statement);
        let key = (statement.id, shard.map_or(NO_SHARD, |s| s.0));
        if matches!(&*statement.prepared, Prepared::Pass(Passed::Cursor(_))) {
            // Its columns are those of the cursor that has the name now. And Postgres (15 to 17) crashes as a whole when it
            // describes a FETCH that was parsed while there was a cursor that is gone.
            self.forget_server_statement(i, key)?;
        }
        if let Some(n) = self.links[i].conn()?.statements.get(key) {
            if waits {
                self.confirm_statement();
                self.replies.push(Reply::Made(Made::ParseComplete));
            }
            return Ok(n);
        }
        let added = self.links[i].conn()?.statements.add(key);
        let mut buf = [0; 12];
        if let Some(old) = added.evicted {
            frontend::close(
                &mut self.links[i].outbox,
                Kind::Statement,
                server_name(old, &mut buf),
            );
            self.replies.push(Reply::One(Pass::Keep));
        }
        self.read_as_then(i, statement, |session| {
            session.push_server_parse(i, statement, shard, added.name, waits);
        });
        Ok(added.name)
    }

    pub(super) fn push_server_parse(
        &mut self,
        i: usize,
        statement: &Arc<Statement>,
        shard: Option<ShardId>,
        name: u32,
        waits: bool,
    ) {
        let mut buf = [0; 12];
        let types = statement.types.iter().copied();
        let link = &mut self.links[i];
        let mut outbox = std::mem::take(&mut link.outbox);
        match (&*statement.prepared, shard) {
            (Prepared::Query(bound), Some(shard)) => {
                let values = Values {
                    text: &statement.text,
                    holes: &statement.holes,
                    params: None,
                };
                let mut text = Vec::with_capacity(statement.text.len() + 16);
                self.write_text(&mut text, bound, &values, Some(shard));
                frontend::parse(&mut outbox, server_name(name, &mut buf), &text, types);
            }
            _ => frontend::parse(
                &mut outbox,
                server_name(name, &mut buf),
                &statement.text,
                types,
            ),
        }
        let link = &mut self.links[i];
        link.outbox = outbox;
        link.unsynced = true;
        let pass = if waits { Pass::On } else { Pass::Keep };
        if waits {
            self.confirm_statement();
        }
        self.replies.push(Reply::Parse {
            pass,
            name,
            statement: statement.clone(),
            shard,
        });
    }

    /// The server parses the statement anew when it is next used.
    pub(super) fn forget_server_statement(
        &mut self,
        i: usize,
        key: StatementKey,
    ) -> Result<(), Fault> {
        let Some(old) = self.links[i].conn()?.statements.get(key) else {
            return Ok(());
        };
        self.links[i].conn()?.statements.forget(old);
        let link = &mut self.links[i];
        frontend::close(
            &mut link.outbox,
            Kind::Statement,
            server_name(old, &mut [0; 12]),
        );
        link.unsynced = true;
        self.replies.push(Reply::One(Pass::Keep));
        Ok(())
    }

    /// A Parse that waits for confirmation is confirmed somewhere now, unless it is that of `statement`.
    pub(super) async fn settle_unparsed_other_than(
        &mut self,
        statement: &Arc<Statement>,
    ) -> Result<(), Fault> {
        match &self.batch.unparsed {
            Some(unparsed) if !Arc::ptr_eq(unparsed, statement) => self.settle_unparsed().await,
            _ => Ok(()),
        }
    }

    /// Has a server confirm the Parse that waits for it.
    pub(super) async fn settle_unparsed(&mut self) -> Result<(), Fault> {
        let Some(statement) = &self.batch.unparsed else {
            return Ok(());
        };
        let statement = statement.clone();
        if matches!(self.way_to_describe(&statement), Ok(None)) {
            self.confirm_unparsed_blindly();
            return Ok(());
        }
        match self.parse_somewhere(&statement).await {
            Ok(_) => Ok(()),
            Err(Fault::Statement(fields)) => self.fail_unparsed(*fields).await,
            Err(fault) => Err(fault),
        }
    }

    /// The Parse that waits to be confirmed has failed: it, not the message behind it, which is skipped as all up to the Sync.
    async fn fail_unparsed(&mut self, fields: ErrorFields) -> Result<(), Fault> {
        if self.batch.unparsed.take().is_some() {
            self.confirm_statement();
            self.undo_statements(self.replies.next_number());
        }
        let now = std::mem::replace(&mut self.batch.now, b'P');
        let refused = Box::pin(self.refuse(fields)).await;
        self.batch.now = now;
        refused?;
        Err(Fault::Skipped)
    }

    /// Parses a statement on some shard; its number there.
    pub(super) async fn parse_somewhere(
        &mut self,
        statement: &Arc<Statement>,
    ) -> Result<(usize, u32, StatementKey), Fault> {
        if self.check_failed().is_err() {
            // The servers of the block parse nothing any more.
            self.let_go_of_failed().await?;
        }
        let way = match self.way_to_describe(statement) {
            Err(fault) if Self::is_unreadable(&fault) => {
                return Err(Box::pin(self.syntax_fault(&statement.text, fault)).await);
            }
            other => other?,
        };
        let Some(Way::One { host, shard, path }) = way else {
            return Err(Self::no_tables());
        };
        let key = (statement.id, shard.map_or(NO_SHARD, |s| s.0));
        let link = self.links.iter().find(|l| l.host == host);
        let only_described = link.is_none_or(|l| l.only_described);
        let i = self
            .link(Need {
                rides: false,
                host,
                statement: Some(key),
                path,
                writes: false,
                bring: Bring::Along,
                state: SessionState::Same,
                unpreparable: false,
            })
            .await?;
        self.links[i].only_described = only_described;
        let n = self.server_statement(i, statement, shard)?;
        Ok((i, n, key))
    }
}
