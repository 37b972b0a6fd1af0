//! A transaction block as the client sees it. `BEGIN` is answered at once and sent in front of the first statement on
//! each host, so the block may be on no host, on one, or on several.

mod end;
mod now;
mod options;
mod run;
mod savepoints;

pub(super) use self::end::commit_unknown;

use std::borrow::Cow;
use std::collections::HashMap;

use super::batch::Before;
use super::checks::is_on;
use super::ddl_block::BlockTables;
use super::ends::Link;
use super::errors::Fault;
use super::links::Need;
use super::parameters::Reported;
use super::replies::{Made, Pass, Reply};
use super::writers::Writers;
use super::{Now, Session};
use crate::pool::Settings;
use crate::shardmap::HostId;
use crate::sql::control::{BeginOptions, Isolation};
use crate::sql::hint::Hint;
use crate::wire::backend;
use crate::wire::error::{ErrorFields, Severity, SqlState};
use crate::wire::frontend;

/// The name under which `COMMIT` is prepared on a server connection.
const COMMIT: &[u8] = b"presplit_commit";

/// An open transaction block.
pub(super) struct Block {
    pub(super) owner: Owner,
    /// The client's options, from BEGIN and from SET TRANSACTION before any savepoint. (A SET TRANSACTION of its own would
    /// come too late on a host enlisted later: the mark has a snapshot.)
    begin: BeginOptions,
    /// The options that are in force.
    options: BeginOptions,
    /// Those of the transaction that it is chained to. No error undoes them.
    inherited: BeginOptions,
    /// A statement failed: nothing but its end (or ROLLBACK TO) is accepted.
    pub(super) failed: bool,
    /// It has failed, and holds no locks any more that it would not hold on one Postgres.
    pub(super) let_go: bool,
    /// A server connection of it is gone: ROLLBACK TO can't bring back what was done there.
    pub(super) lost: bool,
    /// The hosts that it has written on.
    pub(super) writers: Writers,
    /// Savepoints that are alive, oldest first.
    pub(super) savepoints: Vec<Savepoint>,
    /// `SET`, `SET LOCAL` and `SET TRANSACTION` statements and savepoints so far, in order: a host enlisted later gets them
    /// too.
    replay: Vec<Replayed>,
    /// What SET LOCAL has in force: the statements by the names of the settings.
    pub(super) locals: Settings,
    /// Cursors and the hosts that they are on.
    pub(super) cursors: HashMap<String, HostId>,
    /// The session before it.
    pub(super) before: Box<Before>,
    /// The tables as it sees them.
    pub(super) tables: BlockTables,
    /// To Postgres it has a snapshot, by what no server has seen of it perhaps: its isolation level is fixed.
    snapshot: bool,
    /// It has changed tables other than temporary ones.
    pub(super) changed_for_all: bool,
    /// `SET LOCAL presplit.key`; it may also have been set to nothing.
    pub(super) local_hint: Option<Option<Hint>>,
}

/// Who ends a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The client, by COMMIT or ROLLBACK.
    Client,
    /// We, at the end of the message (or batch) that writes on several hosts. The client knows nothing of it.
    Message,
}

/// What a savepoint brings back.
pub(super) struct Savepoint {
    pub(super) name: String,
    settings: Settings,
    hint: Option<Hint>,
    told: Reported,
    local_hint: Option<Option<Hint>>,
    locals: Settings,
    options: BeginOptions,
    replay: usize,
    /// Of the portals; see [`super::portals`].
    portals: u64,
}

enum Replayed {
    Savepoint(String),
    Set(String),
}

impl Block {
    /// What begins it on a host.
    pub(super) fn begin(&self) -> Cow<'static, str> {
        match self.begin == BeginOptions::default() {
            true => "BEGIN".into(),
            false => self.begin.begin().into(),
        }
    }

    /// It must not see two hosts' snapshots.
    pub(super) fn one_snapshot(&self) -> bool {
        self.options.one_snapshot()
    }

    /// What a transaction is begun with that is chained to it. An error outside of savepoints has undone what was set.
    fn chained(&self, commit: bool) -> BeginOptions {
        match self.savepoints.first() {
            // One after the other they are rolled back.
            Some(first) if !commit => first.options,
            None if self.failed => self.inherited,
            _ => self.options,
        }
    }

    /// The statements that bring a newly enlisted host to where the block is.
    pub(super) fn replay(&self) -> impl Iterator<Item = String> {
        self.replay.iter().map(|r| match r {
            Replayed::Savepoint(name) => format!("SAVEPOINT {}", quoted(name)),
            Replayed::Set(text) => text.clone(),
        })
    }

    /// Notes a statement that sets something on every host of the block, those to come too.
    pub(super) fn push_set(&mut self, text: String) {
        self.replay.push(Replayed::Set(text));
    }

    /// Whether such statements have been noted.
    pub(super) fn has_sets(&self) -> bool {
        self.replay.iter().any(|r| matches!(r, Replayed::Set(_)))
    }

    /// What the client had been told where an error goes back to.
    pub(super) fn told(&self) -> &Reported {
        let savepoint = self.savepoints.last();
        savepoint.map_or(&self.before.told, |savepoint| &savepoint.told)
    }

    fn savepoint(&self, name: &str) -> Option<usize> {
        self.savepoints.iter().rposition(|s| s.name == name)
    }
}

/// What a statement that the session acts on by itself came to.
pub(super) enum Acted {
    /// These messages are the answer, without ReadyForQuery.
    Answered(Vec<u8>),
    /// A server has answered and the answer has been passed on, without ReadyForQuery.
    Passed,
}

/// An answer that is a command tag only.
pub(super) fn tag(tag: &str) -> Acted {
    let mut out = Vec::new();
    backend::command_complete(&mut out, tag);
    Acted::Answered(out)
}

/// The tag of a statement that begins a transaction.
fn begin_command(text: &[u8]) -> &'static str {
    match text.trim_ascii_start().get(..5) {
        Some(word) if word.eq_ignore_ascii_case(b"start") => "START TRANSACTION",
        _ => "BEGIN",
    }
}

/// An identifier in quotes.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The error of every statement in a failed block (src/backend/tcop/postgres.c).
pub(super) fn aborted() -> Fault {
    Fault::statement(ErrorFields::error(
        SqlState::IN_FAILED_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    ))
}

fn outside(what: &str) -> Fault {
    Fault::statement(ErrorFields::error(
        SqlState::NO_ACTIVE_TRANSACTION,
        only_in_blocks(what),
    ))
}

fn only_in_blocks(what: &str) -> String {
    format!("{what} can only be used in transaction blocks")
}

const READ_ONLY: &str = "default_transaction_read_only";
const DEFERRABLE: &str = "default_transaction_deferrable";

/// Whether a setting is set to on.
fn is_set_on(settings: &Settings, name: &str) -> bool {
    settings.get(name).is_some_and(|set| {
        let value = set.sql.rsplit(" TO ").next().unwrap_or_default();
        is_on(value.trim_matches('\''))
    })
}

/// REPEATABLE READ or SERIALIZABLE, if that is set as the default.
fn isolation_in(settings: &Settings) -> Option<Isolation> {
    let set = settings.get("default_transaction_isolation")?;
    let sql = set.sql.to_ascii_lowercase();
    let has = |level| sql.contains(level);
    has("serializable")
        .then_some(Isolation::Serializable)
        .or(has("repeatable").then_some(Isolation::RepeatableRead))
}

/// With what a transaction is by the session's default if its BEGIN says nothing, where that matters to us: of a single
/// snapshot, read only.
fn with_defaults(options: BeginOptions, settings: &Settings) -> BeginOptions {
    let on = |name| is_set_on(settings, name).then_some(true);
    BeginOptions {
        isolation: options.isolation.or(isolation_in(settings)),
        read_only: options.read_only.or(on(READ_ONLY)),
        deferrable: options.deferrable.or(on(DEFERRABLE)),
    }
}

impl Session {
    /// `BEGIN`, `START TRANSACTION`.
    pub(super) async fn begin(
        &mut self,
        options: &BeginOptions,
        text: &str,
    ) -> Result<Acted, Fault> {
        let command = begin_command(text.as_bytes());
        if let Some(block) = &mut self.block {
            if block.failed {
                return Err(aborted());
            }
            if block.owner == Owner::Message {
                // What the batch has done so far belongs to the client's block, as in Postgres.
                if *options != BeginOptions::default() && self.links.len() <= 1 {
                    return self.begin_late(options, command).await;
                }
                if *options != BeginOptions::default() {
                    return Err(Fault::unsupported(
                        "a transaction with options cannot begin in the middle of a batch that has written on several hosts",
                        "Send a Sync first.",
                    ));
                }
                block.owner = Owner::Client;
                return Ok(tag(command));
            }
            return self.begin_inside(options, text, command).await;
        }
        self.check_in_time(options)?;
        self.open_block(*options);
        if !self.links.is_empty() {
            // In the middle of a batch or a message: what it has done so far, on all hosts, belongs to the block. Postgres
            // does the same.
            for i in (0..self.links.len())
                .filter(|i| *i != self.active)
                .collect::<Vec<_>>()
            {
                self.run_quietly(i, text).await?;
                self.links[i].unsynced = false;
            }
            let done = self.run_on(self.active, text).await?;
            if !done {
                self.block = None;
            }
            return Ok(Acted::Passed);
        }
        Ok(tag(command))
    }

    /// BEGIN with options behind what a message has done on one host: they must still be right there.
    async fn begin_late(&mut self, options: &BeginOptions, command: &str) -> Result<Acted, Fault> {
        self.check_in_time(options)?;
        self.drain_replies().await?;
        let set = options.begin().replacen("BEGIN", "SET TRANSACTION", 1);
        if !self.links.is_empty() && !self.run_with(self.active, &set, Pass::Keep, &[]).await? {
            return Ok(Acted::Passed);
        }
        if let Some(block) = &mut self.block {
            block.owner = Owner::Client;
            block.begin = *options;
            block.options = *options;
        }
        Ok(tag(command))
    }

    /// BEGIN in a block: a warning, but its options hold.
    async fn begin_inside(
        &mut self,
        options: &BeginOptions,
        text: &str,
        command: &str,
    ) -> Result<Acted, Fault> {
        let mut out = Vec::new();
        let warning = ErrorFields::new(
            Severity::Warning,
            SqlState::ACTIVE_TRANSACTION,
            "there is already a transaction in progress",
        );
        self.warn(warning, &mut out);
        if let Err(late) = self.check_in_time(options) {
            self.drain_replies().await?;
            self.client.outbox.append(&mut out);
            return Err(late);
        }
        let done = self.set_options(options, text, command).await?;
        if let Acted::Passed = done {
            return Ok(done);
        }
        backend::command_complete(&mut out, command);
        Ok(Acted::Answered(out))
    }

    /// What the transaction is begun with that is chained to the open one: it is like that, whatever the defaults are by now.
    fn chained_options(&self, commit: bool) -> BeginOptions {
        let Some(block) = &self.block else {
            return BeginOptions::default();
        };
        // An error has undone what was said since: it is as the transaction began, by the defaults of then.
        let chained = with_defaults(block.chained(commit), &block.before.settings);
        let on = |name| is_set_on(&self.settings, name).then_some(false);
        let isolation = self.default_isolation().map(|_| Isolation::ReadCommitted);
        BeginOptions {
            isolation: chained.isolation.or(isolation),
            read_only: chained.read_only.or(on(READ_ONLY)),
            deferrable: chained.deferrable.or(on(DEFERRABLE)),
        }
    }

    /// Whether Postgres refuses to write in the transaction, whatever the functions are that it calls.
    pub(super) fn is_read_only(&self) -> bool {
        match &self.block {
            Some(block) => block.options.read_only == Some(true),
            None => {
                let default = || is_set_on(self.settings_at_begin(), READ_ONLY);
                self.batch.options.read_only.unwrap_or_else(default)
            }
        }
    }

    /// What was set when the implicit transaction began: its defaults are of then. Outside of any, what is set.
    fn settings_at_begin(&self) -> &Settings {
        let before = self.batch.before();
        before.map_or(&self.settings, |before| &before.settings)
    }

    /// REPEATABLE READ or SERIALIZABLE, if the session has made that its default.
    pub(super) fn default_isolation(&self) -> Option<Isolation> {
        isolation_in(&self.settings)
    }

    /// Whether the implicit transaction is of one snapshot.
    pub(super) fn implicit_of_one_snapshot(&self) -> bool {
        let default = || isolation_in(self.settings_at_begin());
        let isolation = self.batch.options.isolation.or_else(default);
        isolation >= Some(Isolation::RepeatableRead)
    }

    /// A warning of our own, unless the client wants to hear of errors only.
    pub(super) fn warn(&self, warning: ErrorFields, out: &mut Vec<u8>) {
        const LEVEL: &str = "client_min_messages";
        let local = self
            .block
            .as_ref()
            .and_then(|block| block.locals.get(LEVEL));
        let set = local.or_else(|| self.settings.get(LEVEL));
        if !set.is_some_and(|set| set.sql.to_ascii_lowercase().contains("error")) {
            warning.write(out);
        }
    }

    /// Whether Postgres would take it to be in a block: what a message of several statements is, and a batch in which something has been
    /// executed, but not a Query behind that.
    pub(super) fn is_block_to_postgres(&self) -> bool {
        match (&self.block, self.batch.now) {
            (Some(block), _) if block.owner == Owner::Client => true,
            (_, b'Q') => self.batch.of_several,
            _ => false,
        }
    }

    /// In a block of ours: the warning that Postgres gives outside of one.
    pub(super) async fn warn_in_ours(&mut self, what: &str) -> Result<(), Fault> {
        if !self.in_message_block() || self.is_block_to_postgres() {
            return Ok(());
        }
        self.warn_of_no_block(what).await
    }

    /// The warning that Postgres gives where there is no block, behind the replies to what came before.
    pub(super) async fn warn_of_no_block(&mut self, what: &str) -> Result<(), Fault> {
        self.settle_replies().await?;
        let mut out = Vec::new();
        let warning = ErrorFields::new(
            Severity::Warning,
            SqlState::NO_ACTIVE_TRANSACTION,
            only_in_blocks(what),
        );
        self.warn(warning, &mut out);
        self.client.outbox.append(&mut out);
        Ok(())
    }

    /// In a block of ours: the error that Postgres gives outside of one.
    pub(super) fn refuse_in_ours(&self, what: &str) -> Result<(), Fault> {
        match self.in_message_block() && !self.is_block_to_postgres() {
            true => Err(outside(what)),
            false => Ok(()),
        }
    }

    fn open_chained(&mut self, options: BeginOptions) {
        self.open_block(options);
        if let Some(block) = &mut self.block {
            block.inherited = options;
        }
    }

    /// From here on the session is in a block.
    pub(super) fn open_block(&mut self, options: BeginOptions) {
        // What the implicit transaction has set belongs to the block, too.
        let before = self.batch.take_before();
        let before = before.unwrap_or_else(|| Box::new(self.as_before()));
        let locals = std::mem::take(&mut self.batch.locals);
        let sets = before.settings.difference(&self.settings, &[]).into_iter();
        let local = locals.iter().flat_map(|(name, set)| set.local_steps(name));
        let replay = sets.chain(local).map(Replayed::Set).collect();
        let options = std::mem::take(&mut self.batch.options).and_then(&options);
        let options = with_defaults(options, &before.settings);
        let tables = match std::mem::take(&mut self.batch.tables_changed) {
            true => BlockTables::Changed,
            false => BlockTables::Same,
        };
        self.block = Some(Box::new(Block {
            begin: options,
            options,
            inherited: BeginOptions::default(),
            failed: false,
            let_go: false,
            lost: false,
            owner: Owner::Client,
            writers: Writers::of(self.batch.writer),
            savepoints: Vec::new(),
            replay,
            locals,
            cursors: HashMap::new(),
            before,
            local_hint: None,
            tables,
            snapshot: self.batch.parsed,
            changed_for_all: false,
        }));
        if self.links.len() > 1 {
            self.cancel.keeps();
        }
        self.note_told();
    }

    /// The block that the client has begun.
    fn client_block(&self) -> Option<&Block> {
        let block = self.block.as_deref();
        block.filter(|block| block.owner == Owner::Client)
    }
}
