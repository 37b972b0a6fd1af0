//! The extended protocol: statements, portals, and the batch between two Syncs. Every statement, named or not, runs as a
//! server-side statement of (text, parameter types, shard) kept on the server connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::block::{Acted, aborted};
use super::bring::Bring;
use super::context::{Passed, Prepared, Statement};
use super::control::declared_cursor;
use super::describe::Told;
use super::ends::Again;
use super::errors::Fault;
use super::execute::Ran;
use super::links::Need;
use super::portions::Rows;
use super::prepare::{Way, bad_hint};
use super::replies::{Description, Made, Pass, Reply};
use super::set_config::{SetConfig, read_set_config};
use super::simple::bring_for;
use super::writes::{Writing, spent};
use super::{Now, Session};
use foldhash::quality::RandomState;

use crate::pool::{NO_SHARD, StatementKey};
use crate::route::{Format, Param, Params, SessionState, Values};
use crate::shardmap::{HostId, ShardId};
use crate::sql::control::Control;
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::frontend::{self, Bind, Kind};
use crate::wire::{backend, frame};

/// The client's statements and portals.
#[derive(Default)]
pub(super) struct Prepareds {
    named: HashMap<Box<[u8]>, Arc<Statement>, RandomState>,
    unnamed: Option<Arc<Statement>>,
    /// See [`super::describe`].
    pub(super) told: HashMap<Box<[u8]>, Told, RandomState>,
    pub(super) unnamed_told: Option<Told>,
    portals: HashMap<Box<[u8]>, Portal, RandomState>,
    unnamed_portal: Option<Portal>,
}

/// A portal.
pub(super) enum Portal {
    /// It is on the server connection of this host.
    On {
        host: HostId,
        /// It gives rows.
        rows: bool,
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

impl Prepareds {
    pub(super) fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        if name.is_empty() {
            self.unnamed.as_ref()
        } else {
            self.named.get(name)
        }
    }

    /// A new statement.
    pub(super) fn put(&mut self, name: &[u8], statement: Arc<Statement>) {
        self.untell(name);
        self.replace(name, statement);
    }

    /// The same statement for other tables or settings.
    fn replace(&mut self, name: &[u8], statement: Arc<Statement>) {
        if name.is_empty() {
            self.unnamed = Some(statement);
        } else {
            self.named.insert(name.into(), statement);
        }
    }

    /// Forgets a statement; `false` if there is none of this name.
    pub(super) fn remove(&mut self, name: &[u8]) -> bool {
        self.untell(name);
        if name.is_empty() {
            self.unnamed.take().is_some()
        } else {
            self.named.remove(name).is_some()
        }
    }

    fn portal(&self, name: &[u8]) -> Option<&Portal> {
        if name.is_empty() {
            self.unnamed_portal.as_ref()
        } else {
            self.portals.get(name)
        }
    }

    pub(super) fn portal_mut(&mut self, name: &[u8]) -> Option<&mut Portal> {
        if name.is_empty() {
            self.unnamed_portal.as_mut()
        } else {
            self.portals.get_mut(name)
        }
    }

    /// Bytes of rows that portals hold.
    pub(super) fn held_bytes(&self) -> usize {
        let portals = self.portals.values().chain(&self.unnamed_portal);
        let bytes = portals.map(|portal| match portal {
            Portal::Held(_, rows) => rows.bytes(),
            _ => 0,
        });
        bytes.sum()
    }

    pub(super) fn put_portal(&mut self, name: &[u8], portal: Portal) {
        if name.is_empty() {
            self.unnamed_portal = Some(portal);
        } else {
            self.portals.insert(name.into(), portal);
        }
    }

    /// A Query takes the place of the unnamed statement.
    pub(super) fn forget_unnamed(&mut self) {
        self.unnamed = None;
    }

    /// And, once it has been run, of the unnamed portal.
    pub(super) fn forget_unnamed_portal(&mut self) {
        self.unnamed_portal = None;
    }

    pub(super) fn has_portals(&self) -> bool {
        self.unnamed_portal.is_some() || !self.portals.is_empty()
    }

    /// A transaction ends: so do its portals.
    pub(super) fn close_portals(&mut self) {
        self.unnamed_portal = None;
        if !self.portals.is_empty() {
            self.portals.clear();
        }
    }

    pub(super) fn clear_statements(&mut self) {
        self.named.clear();
        self.told.clear();
    }

    pub(super) fn clear(&mut self) {
        *self = Prepareds::default();
    }
}

/// The parameters of a Bind, with the types that Parse stated.
pub(super) struct BindParams<'a> {
    bind: Bind<'a>,
    types: &'a [u32],
    /// All of them, if they are many: to find one in the message takes a walk over those before it.
    all: Vec<frontend::Param<'a>>,
}

/// So many parameters are walked over.
const FEW: usize = 16;

impl<'a> BindParams<'a> {
    pub(super) fn new(bind: Bind<'a>, types: &'a [u32]) -> BindParams<'a> {
        let all = match bind.param_count() {
            0..=FEW => Vec::new(),
            _ => bind.params().collect(),
        };
        BindParams { bind, types, all }
    }
}

impl Params for BindParams<'_> {
    fn get(&self, n: u16) -> Option<Param<'_>> {
        let n = usize::from(n).checked_sub(1)?;
        let (format, value) = match self.all.is_empty() {
            true => self.bind.param(n)?,
            false => *self.all.get(n)?,
        };
        let format = if format == 1 {
            Format::Binary
        } else {
            Format::Text
        };
        Some(Param {
            format,
            type_oid: self.types.get(n).copied().unwrap_or(0),
            value,
        })
    }
}

/// Where the parts of a Bind message lie in the inbox.
pub(super) struct BindNames {
    pub(super) portal: std::ops::Range<usize>,
    pub(super) statement: std::ops::Range<usize>,
    /// All behind the two names.
    pub(super) rest: std::ops::Range<usize>,
}

/// A server-side statement's name, without allocating.
pub(super) fn server_name(n: u32, buf: &mut [u8; 12]) -> &[u8] {
    // Ten digits always fit.
    let (mut at, mut rest) = (buf.len(), n);
    loop {
        at -= 1;
        buf[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    at -= 1;
    buf[at] = b'p';
    &buf[at..]
}

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
    fn parse(&mut self, len: usize) -> Result<(), Fault> {
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
        self.batch.parsed |= matches!(*statement.prepared, Prepared::Query(_));
        if !name.is_empty() {
            self.note_statement(&name);
        }
        if routed && !statement.accepted.load(Ordering::Relaxed) {
            self.batch.unparsed = Some(statement.clone());
        } else {
            self.confirm_statement();
            self.replies.push(Reply::Made(Made::ParseComplete));
        }
        self.statements.put(&name, statement);
        Ok(())
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
    fn begin_message(&mut self) {
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
        let schema = self.schema();
        let fits = statement.reading.fits(&reading);
        if std::ptr::eq(statement.schema.as_ptr(), Arc::as_ptr(&schema)) && fits {
            return Ok(statement.clone());
        }
        let old = statement.clone();
        let reading = match fits {
            true => old.reading.clone(),
            false => old.reading.go_on(&reading),
        };
        let new = self.intern(&old.text, old.types.iter().copied(), reading)?;
        self.check_parse(&new)?;
        self.statements.replace(name, new.clone());
        self.hold_to(name, &old);
        if let Some(unparsed) = &mut self.batch.unparsed
            && Arc::ptr_eq(unparsed, &old)
        {
            *unparsed = new.clone();
        }
        Ok(new)
    }

    /// Bind of a statement for one host with an idle server connection.
    pub(super) fn bind_now(&mut self, len: usize) -> Now {
        match self.try_bind(len) {
            Ok(true) => Now::Done(Ok(())),
            Ok(false) => Now::Slowly,
            Err(fault) if self.wants_refresh(&fault) || Self::is_unreadable(&fault) => Now::Slowly,
            Err(fault) => Now::Done(Err(fault)),
        }
    }

    /// `false`: that needs more than can be done at once.
    fn try_bind(&mut self, len: usize) -> Result<bool, Fault> {
        self.begin_message();
        let names = self.bind_names(len)?;
        let statement = self.bind_statement(&names)?;
        if self
            .batch
            .unparsed
            .as_ref()
            .is_some_and(|unparsed| !Arc::ptr_eq(unparsed, &statement))
        {
            return Ok(false);
        }
        self.check_bind(&statement, len)?;
        self.check_parse(&statement)?;
        if self.statements.has_told() {
            let name = &self.client.inbox[names.statement.clone()];
            if self.statements.must_describe(name, &statement) {
                return Ok(false);
            }
            self.statements.check_told(name, &statement)?;
        }
        let (Some(Way::One { host, shard, path }), set) = self.bind_way(&statement, len)? else {
            return Ok(false);
        };
        let key = (statement.id, shard.map_or(NO_SHARD, |s| s.0));
        let need = Need {
            host,
            statement: Some(key),
            path,
            writes: statement.prepared.writes(),
            bring: bring_for(&statement.prepared),
            state: statement.prepared.session_state(),
            unpreparable: statement.prepared.is_unpreparable(),
        };
        let Some(i) = self.link_now(&need)? else {
            return Ok(false);
        };
        self.send_bind(i, &statement, shard, names, set)?;
        Ok(true)
    }

    /// Bind: the values say which shard.
    pub(super) async fn bind(&mut self, len: usize) -> Result<(), Fault> {
        let names = self.bind_names(len)?;
        let statement = self.bind_statement(&names)?;
        self.settle_unparsed_other_than(&statement).await?;
        self.check_bind(&statement, len)?;
        self.check_parse(&statement)?;
        if let Prepared::Control(Control::Execute { .. }) = &*statement.prepared {
            return Box::pin(self.bind_call(&statement, names, len)).await;
        }
        let told = self.client.inbox[names.statement.clone()].to_vec();
        if self.statements.must_describe(&told, &statement) {
            self.describe_before(&told, &statement).await?;
        }
        self.statements.check_told(&told, &statement)?;
        let (way, set) = match self.bind_way(&statement, len) {
            Err(fault) if self.wants_refresh(&fault) => {
                self.refresh_tables().await;
                let statement = self.bind_statement(&names)?;
                self.bind_way(&statement, len)?
            }
            Err(fault) if Self::is_unreadable(&fault) => {
                return Err(Box::pin(self.syntax_fault(&statement.text, fault)).await);
            }
            other => other?,
        };
        // Made anew if the tables have changed meanwhile.
        let statement = self.bind_statement(&names)?;
        let way = match way {
            Some(Way::Make(make)) => {
                let params = BindParams::new(Bind::decode(self.body(len))?, &statement.types);
                let values = Values {
                    text: &statement.text,
                    holes: &statement.holes,
                    params: Some(&params),
                };
                Some(Box::pin(self.way_of_made(&make, &statement.prepared, &values)).await?)
            }
            way => way,
        };
        let portal = match way {
            Some(Way::One { host, shard, path }) => {
                let key = (statement.id, shard.map_or(NO_SHARD, |s| s.0));
                let writes = statement.prepared.writes();
                let state = statement.prepared.session_state();
                let unpreparable = statement.prepared.is_unpreparable();
                let i = self
                    .link(Need {
                        host,
                        statement: Some(key),
                        path,
                        writes,
                        bring: bring_for(&statement.prepared),
                        state,
                        unpreparable,
                    })
                    .await?;
                return self.send_bind(i, &statement, shard, names, set);
            }
            None | Some(Way::Make(_) | Way::Everywhere) => {
                let bind = Bind::decode(self.body(len))?;
                no_parameters(&bind)?;
                Portal::Own(statement)
            }
            Some(Way::Data(only)) => {
                self.settle_unparsed().await?;
                no_parameters(&Bind::decode(self.body(len))?)?;
                Portal::Data(statement, only)
            }
            Some(Way::Write(write)) => {
                let bind = [b"\0\0", &self.client.inbox[names.rest.clone()]]
                    .concat()
                    .into();
                let writing = Writing {
                    statement,
                    bind,
                    write: *write,
                };
                self.bind_write(&writing).await?;
                Portal::Write(Arc::new(writing))
            }
            Some(Way::Several(shards)) => {
                if self.statements.is_told(&told) && statement.described.load().is_none() {
                    self.describe_before(&told, &statement).await?;
                }
                let bind = self.client.inbox[names.rest.clone()].into();
                Portal::Several(Arc::new(Several {
                    statement,
                    bind,
                    shards,
                }))
            }
        };
        self.put_own_portal(names, portal)
    }

    /// A portal that only we know is bound.
    pub(super) fn put_own_portal(&mut self, names: BindNames, portal: Portal) -> Result<(), Fault> {
        self.confirm_unparsed_blindly();
        self.check_portal_is_new(&self.client.inbox[names.portal.clone()])?;
        self.limit_portals()?;
        let name: Box<[u8]> = self.client.inbox[names.portal].into();
        self.statements.put_portal(&name, portal);
        self.replies.push(Reply::Made(Made::BindComplete));
        Ok(())
    }

    /// Sends the Bind under the name that the statement has on the link.
    fn send_bind(
        &mut self,
        i: usize,
        statement: &Arc<Statement>,
        shard: Option<ShardId>,
        names: BindNames,
        set: Vec<SetConfig>,
    ) -> Result<(), Fault> {
        if !names.portal.is_empty()
            && let Some(
                Portal::Own(_)
                | Portal::Ran(_)
                | Portal::Several(_)
                | Portal::Held(..)
                | Portal::Write(_)
                | Portal::Written(_)
                | Portal::Data(..),
            ) = self
                .statements
                .portal(&self.client.inbox[names.portal.clone()])
        {
            self.check_portal_is_new(&self.client.inbox[names.portal.clone()])?;
        }
        self.context.stats.routed();
        let told = match self.statements.has_told() {
            true => self
                .statements
                .told(&self.client.inbox[names.statement.clone()]),
            false => None,
        };
        let first = self.block.is_none() && told.is_none() && names.statement.is_empty();
        let first = first && (0..self.links.len()).all(|n| n == i || !self.links[n].unsynced);
        let end = self.links[i].outbox.len();
        let from = match self.links[i].brought {
            Some((from, ours, last)) if last == end => Some((from, ours)),
            _ => (!self.links[i].unsynced).then_some((end, 0)),
        };
        let n = self.server_statement(i, statement, shard)?;
        let key = (statement.id, shard.map_or(NO_SHARD, |s| s.0));
        self.push_comparison(i, n, told, statement, key)?;
        let BindNames { portal, rest, .. } = names;
        let host = {
            let link = &mut self.links[i];
            // Nothing but what brings settings about is in front of it.
            let known = link.outbox.len() == end;
            if let Some((from, ours)) = from.filter(|_| first && known) {
                link.again = Some(Again {
                    statement: statement.clone(),
                    shard,
                    name: n,
                    reply: self.replies.next_number(),
                    from,
                    ours,
                    written: Vec::new(),
                });
            }
            let inbox = &self.client.inbox;
            frontend::bind_renamed(
                &mut link.outbox,
                &inbox[portal.clone()],
                server_name(n, &mut [0; 12]),
                &inbox[rest],
            );
            link.unsynced = true;
            link.host
        };
        self.replies.push(Reply::One(Pass::On));
        if self.block.is_some() {
            self.note_cursor(declared_cursor(&statement.text), host);
        }
        let rows = gives_rows(statement);
        if portal.is_empty() {
            self.statements.unnamed_portal = Some(Portal::On { host, rows, set });
            return Ok(());
        }
        self.limit_portals()?;
        let name: Box<[u8]> = self.client.inbox[portal].into();
        self.statements
            .put_portal(&name, Portal::On { host, rows, set });
        Ok(())
    }

    /// Where the parts of the Bind at the front of the inbox lie.
    fn bind_names(&self, len: usize) -> Result<BindNames, Fault> {
        let start = self.client.read + frame::HEADER;
        let bind = Bind::decode(self.body(len))?;
        let (p, s) = (bind.portal.len(), bind.statement.len());
        Ok(BindNames {
            portal: start..start + p,
            statement: start + p + 1..start + p + 1 + s,
            rest: start + p + s + 2..self.client.read + len,
        })
    }

    /// What Postgres looks at first in a Bind, once it knows the statement.
    fn check_bind(&self, statement: &Statement, len: usize) -> Result<(), Fault> {
        let bind = Bind::decode(self.body(len))?;
        let params = bind.param_count();
        let message = match (bind.unfit_formats(), statement.param_count) {
            (Some(formats), _) => {
                format!("bind message has {formats} parameter formats but {params} parameters")
            }
            (None, Some(needed)) if needed != params => format!(
                "bind message supplies {params} parameters, but prepared statement \"{}\" requires {needed}",
                String::from_utf8_lossy(bind.statement)
            ),
            _ => return Ok(()),
        };
        Err(Fault::statement(ErrorFields::error(
            SqlState::PROTOCOL_VIOLATION,
            message,
        )))
    }

    fn bind_statement(&mut self, names: &BindNames) -> Result<Arc<Statement>, Fault> {
        if names.statement.is_empty() {
            return self.statement(b"");
        }
        // Looked up by the bytes in the inbox; copied only if the statement has to be made anew.
        let reading = self.reading();
        let schema = self.schema();
        let known = self
            .statements
            .get(&self.client.inbox[names.statement.clone()]);
        if let Some(known) = known
            && std::ptr::eq(known.schema.as_ptr(), Arc::as_ptr(&schema))
            && known.reading.fits(&reading)
        {
            return Ok(known.clone());
        }
        let name = self.client.inbox[names.statement.clone()].to_vec();
        self.statement(&name)
    }

    /// What a server would say of a portal that only we know.
    pub(super) fn check_portal_is_new(&self, name: &[u8]) -> Result<(), Fault> {
        if name.is_empty() || !self.statements.portals.contains_key(name) {
            return Ok(());
        }
        let message = format!(
            "cursor \"{}\" already exists",
            String::from_utf8_lossy(name)
        );
        Err(Fault::statement(ErrorFields::error(
            SqlState::DUPLICATE_CURSOR,
            message,
        )))
    }

    pub(super) fn limit_portals(&self) -> Result<(), Fault> {
        let most = self.map.proxy.limits.portals_per_session;
        if self.statements.portals.len() >= most as usize {
            let what = format!("{} portals", self.statements.portals.len() + 1);
            return Err(Fault::limit(&what, "portals_per_session", u64::from(most)));
        }
        Ok(())
    }

    /// Where the Bind at the front of the inbox goes; `None`: the session itself acts.
    fn bind_way(
        &self,
        statement: &Statement,
        len: usize,
    ) -> Result<(Option<Way>, Vec<SetConfig>), Fault> {
        let bound = match &*statement.prepared {
            Prepared::Query(bound) => bound,
            Prepared::Pass(passed) => {
                return Ok((Some(self.pass_way(passed)), Vec::new()));
            }
            _ => return Ok((None, Vec::new())),
        };
        let params = BindParams::new(Bind::decode(self.body(len))?, &statement.types);
        let values = Values {
            text: &statement.text,
            holes: &statement.holes,
            params: Some(&params),
        };
        let own = match &statement.hint {
            Ok(own) => own.as_ref(),
            Err(fault) => return Err(bad_hint(fault.clone())),
        };
        let way = self.decide(bound, &values, own.or(self.standing_hint()))?;
        let set = match bound.sets_config {
            true => read_set_config(&statement.text, &statement.holes, Some(&params))?,
            false => Vec::new(),
        };
        self.check_default(&set)?;
        Ok((Some(way), set))
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

    fn push_server_parse(
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
    fn forget_server_statement(&mut self, i: usize, key: StatementKey) -> Result<(), Fault> {
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
    async fn settle_unparsed_other_than(
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
        self.parse_somewhere(&statement).await?;
        Ok(())
    }

    /// Parses a statement on some shard; its number there.
    pub(super) async fn parse_somewhere(
        &mut self,
        statement: &Arc<Statement>,
    ) -> Result<(usize, u32, StatementKey), Fault> {
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

    /// Describe of a portal on the active server connection.
    pub(super) fn describe_now(&mut self, len: usize) -> Now {
        let start = self.client.read + frame::HEADER;
        let describe =
            match frontend::Describe::decode(&self.client.inbox[start..self.client.read + len]) {
                Ok(describe) => describe,
                Err(fault) => return Now::Done(Err(fault.into())),
            };
        if describe.kind == Kind::Statement && self.batch.unparsed.is_none() {
            let name = describe.name.to_vec();
            return match self.describe_statement_now(&name) {
                Ok(true) => Now::Done(Ok(())),
                Ok(false) => Now::Slowly,
                Err(fault) => Now::Done(Err(fault)),
            };
        }
        match (
            describe.kind,
            self.statements.portal(describe.name),
            self.links.get_mut(self.active),
        ) {
            // The reply to Parse comes first.
            _ if self.batch.unparsed.is_some() => Now::Slowly,
            (Kind::Portal, Some(Portal::On { host, .. }), Some(link))
                if link.host == *host && !self.block.as_ref().is_some_and(|b| b.failed) =>
            {
                frontend::describe(&mut link.outbox, Kind::Portal, describe.name);
                link.unsynced = true;
                self.replies.push(Reply::Describe(Pass::On));
                Now::Done(Ok(()))
            }
            _ => Now::Slowly,
        }
    }

    fn describe_statement_now(&mut self, name: &[u8]) -> Result<bool, Fault> {
        self.begin_message();
        let statement = self.statement(name)?;
        if gives_rows(&statement) {
            self.check_failed()?;
        }
        self.describe_known(name, &statement)
    }

    /// Describe.
    pub(super) async fn describe(&mut self, len: usize) -> Result<(), Fault> {
        self.begin_message();
        let describe = frontend::Describe::decode(self.body(len))?;
        let (kind, name) = (describe.kind, describe.name.to_vec());
        match kind {
            Kind::Statement => {
                let statement = self.statement(&name)?;
                self.settle_unparsed_other_than(&statement).await?;
                if gives_rows(&statement) {
                    self.check_failed()?;
                }
                if let Prepared::Control(Control::Execute { .. }) = &*statement.prepared {
                    let mut made = Vec::new();
                    backend::parameter_description(&mut made, &[]);
                    made.extend(Box::pin(self.describe_call(&statement)).await?);
                    self.replies.push(Reply::Made(Made::Bytes(made.into())));
                    return Ok(());
                }
                if let Some(columns) = own_columns(&statement) {
                    self.confirm_unparsed_blindly();
                    let mut made = Vec::new();
                    backend::parameter_description(&mut made, &[]);
                    describe_own(&mut made, columns);
                    self.replies.push(Reply::Made(Made::Bytes(made.into())));
                    return Ok(());
                }
                if self.statements.is_told(&name) && statement.described.load().is_none() {
                    self.describe_before(&name, &statement).await?;
                }
                if self.describe_known(&name, &statement)? {
                    return Ok(());
                }
                let (i, n, key) = self.parse_somewhere(&statement).await?;
                match *statement.prepared {
                    Prepared::Query(_) => {
                        let description = Description::of(Pass::On, &statement, key);
                        self.push_description(i, n, description);
                        self.statements.tell(&name, Told::Asked(statement));
                    }
                    // The columns of FETCH are its cursor's.
                    _ => self.push_description(i, n, Reply::Describe(Pass::On)),
                }
            }
            Kind::Portal => {
                self.settle_unparsed().await?;
                self.describe_portal(&name).await?;
            }
        }
        Ok(())
    }

    async fn describe_portal(&mut self, name: &[u8]) -> Result<(), Fault> {
        let host = match self.statements.portal(name) {
            // A cursor is a portal too.
            None => self.cursor_host(name).ok_or_else(|| no_portal(name))?,
            Some(Portal::On { rows, .. })
                if self.block.as_ref().is_some_and(|block| block.failed) =>
            {
                if *rows {
                    return Err(aborted());
                }
                let mut made = Vec::new();
                backend::no_data(&mut made);
                self.replies.push(Reply::Made(Made::Bytes(made.into())));
                return Ok(());
            }
            Some(Portal::On { host, .. }) => *host,
            Some(Portal::Own(statement))
                if matches!(
                    *statement.prepared,
                    Prepared::Control(Control::Execute { .. })
                ) =>
            {
                let statement = statement.clone();
                let made = Box::pin(self.describe_call(&statement)).await?;
                self.replies.push(Reply::Made(Made::Bytes(made.into())));
                return Ok(());
            }
            Some(Portal::Own(statement) | Portal::Ran(statement)) => {
                let mut made = Vec::new();
                describe_own(&mut made, own_columns(statement).unwrap_or_default());
                self.replies.push(Reply::Made(Made::Bytes(made.into())));
                return Ok(());
            }
            Some(Portal::Data(..)) => {
                let mut made = Vec::new();
                backend::no_data(&mut made);
                self.replies.push(Reply::Made(Made::Bytes(made.into())));
                return Ok(());
            }
            Some(Portal::Several(several) | Portal::Held(several, _)) => {
                let several = several.clone();
                return Box::pin(self.describe_several(&several)).await;
            }
            Some(Portal::Write(writing) | Portal::Written(writing)) => {
                let writing = writing.clone();
                return Box::pin(self.describe_write(&writing)).await;
            }
        };
        let i = self.link_of_portal(host, name).await?;
        let link = &mut self.links[i];
        frontend::describe(&mut link.outbox, Kind::Portal, name);
        link.unsynced = true;
        self.replies.push(Reply::Describe(Pass::On));
        Ok(())
    }

    /// The host of a cursor: of the open block, or WITH HOLD.
    fn cursor_host(&self, name: &[u8]) -> Option<HostId> {
        let name = std::str::from_utf8(name).ok()?;
        let block = self.block.as_ref();
        let of_block = block.and_then(|block| block.cursors.get(name).copied());
        of_block.or_else(|| self.held_cursor(name))
    }

    fn is_held_cursor(&self, name: &[u8]) -> bool {
        std::str::from_utf8(name).is_ok_and(|name| self.held_cursor(name).is_some())
    }

    /// The link that a portal lives on.
    async fn link_of_portal(&mut self, host: HostId, name: &[u8]) -> Result<usize, Fault> {
        let Some(i) = self.links.iter().position(|l| l.host == host) else {
            // A cursor WITH HOLD is on a connection that the session keeps.
            return match self.is_held_cursor(name) {
                true => self.link(Need::plain(host)).await,
                false => Err(no_portal(name)),
            };
        };
        if i != self.active {
            self.settle_replies().await?;
            self.active = i;
        }
        Ok(i)
    }

    /// Execute of a portal on the active server connection.
    pub(super) fn execute_now(&mut self, len: usize) -> Now {
        let start = self.client.read + frame::HEADER;
        let execute =
            match frontend::Execute::decode(&self.client.inbox[start..self.client.read + len]) {
                Ok(execute) => execute,
                Err(fault) => return Now::Done(Err(fault.into())),
            };
        match (
            self.statements.portal(execute.portal),
            self.links.get_mut(self.active),
        ) {
            _ if self.batch.unparsed.is_some() => Now::Slowly,
            (Some(Portal::On { .. }), _) if self.block.as_ref().is_some_and(|b| b.failed) => {
                Now::Slowly
            }
            (Some(Portal::On { host, set, .. }), Some(link))
                if link.host == *host && set.is_empty() =>
            {
                frontend::execute(&mut link.outbox, execute.portal, execute.max_rows);
                link.unsynced = true;
                self.replies.push(Reply::Execute(Pass::On));
                self.batch.executed = true;
                Now::Done(Ok(()))
            }
            _ => Now::Slowly,
        }
    }

    /// Execute.
    pub(super) async fn execute(&mut self, len: usize) -> Result<(), Fault> {
        let execute = frontend::Execute::decode(self.body(len))?;
        let (max_rows, name) = (execute.max_rows, execute.portal.to_vec());
        self.settle_unparsed().await?;
        let ends = matches!(
            self.statements.portal(&name),
            Some(Portal::Own(statement)) if matches!(
                &*statement.prepared,
                Prepared::Control(Control::Commit { .. } | Control::Rollback { .. })
            )
        );
        self.execute_slowly(&name, max_rows).await?;
        self.batch.executed = !ends;
        Ok(())
    }

    async fn execute_slowly(&mut self, name: &[u8], max_rows: i32) -> Result<(), Fault> {
        let own = match self.statements.portal(name) {
            None => {
                let host = self.cursor_host(name).ok_or_else(|| no_portal(name))?;
                self.check_failed()?;
                let i = self.link_of_portal(host, name).await?;
                let link = &mut self.links[i];
                frontend::execute(&mut link.outbox, name, max_rows);
                link.unsynced = true;
                self.replies.push(Reply::Execute(Pass::On));
                return Ok(());
            }
            Some(Portal::On { host, rows, set }) => {
                let (host, rows, sets) = (*host, *rows, !set.is_empty());
                self.check_failed()?;
                if sets {
                    self.remember_settings();
                }
                let i = self.link_of_portal(host, name).await?;
                let link = &mut self.links[i];
                frontend::execute(&mut link.outbox, name, max_rows);
                link.unsynced = true;
                self.replies.push(Reply::Execute(Pass::On));
                let set = match name {
                    b"" => self.statements.unnamed_portal.take(),
                    name => self.statements.portals.remove(name),
                };
                let Some(Portal::On { set, .. }) = set else {
                    return Ok(());
                };
                self.statements.put_portal(
                    name,
                    Portal::On {
                        host,
                        rows,
                        set: Vec::new(),
                    },
                );
                if !set.is_empty() {
                    self.settle_replies().await?;
                    self.note_set_config(set).await?;
                }
                return Ok(());
            }
            Some(Portal::Data(statement, only)) => {
                let (statement, only) = (statement.clone(), *only);
                self.settle_replies().await?;
                let copied = Box::pin(self.copy_rows_of_portal(&statement, only)).await;
                self.has_run(name);
                return copied;
            }
            Some(Portal::Several(several)) => {
                let several = several.clone();
                return Box::pin(self.execute_several(&several, name, max_rows)).await;
            }
            Some(Portal::Held(..)) => return self.execute_held(name, max_rows).await,
            Some(Portal::Write(writing)) => {
                let writing = writing.clone();
                // What is written must not be written twice.
                self.statements
                    .put_portal(name, Portal::Written(writing.clone()));
                return Box::pin(self.execute_write(&writing, max_rows)).await;
            }
            Some(Portal::Written(_)) => return Err(spent(name)),
            Some(Portal::Ran(_)) => {
                self.settle_replies().await?;
                self.check_failed()?;
                return Err(cannot_run(name));
            }
            Some(Portal::Own(statement)) => statement.clone(),
        };
        match &*own.prepared {
            Prepared::Empty => self
                .replies
                .push(Reply::Made(Made::Bytes(Box::from(&b"I\0\0\0\x04"[..])))),
            Prepared::Control(control) => {
                self.settle_replies().await?;
                if matches!(control, Control::ClosePortal(Some(own)) if own.as_bytes() == name) {
                    self.check_failed()?;
                    return Err(active_portal(name));
                }
                match Box::pin(self.act_on(control, &own.text, 0)).await? {
                    Ran::Acted(Acted::Answered(bytes)) => {
                        let bytes = without_row_description(&bytes);
                        self.replies.push(Reply::Made(Made::Bytes(bytes.into())));
                    }
                    Ran::Acted(Acted::Passed) | Ran::Written(_) => {}
                }
                if !matches!(control, Control::Show(_) | Control::ExplainRoute { .. }) {
                    self.has_run(name);
                }
            }
            Prepared::Query(bound) if bound.work().is_some() => {
                Box::pin(self.ddl_extended(&own)).await?;
                self.has_run(name);
            }
            _ => return Err(no_portal(name)),
        }
        Ok(())
    }

    /// The portal, if its transaction is not over, has done all that it can.
    fn has_run(&mut self, name: &[u8]) {
        if let Some(portal) = self.statements.portal_mut(name)
            && let Portal::Own(statement) | Portal::Data(statement, _) = portal
        {
            *portal = Portal::Ran(statement.clone());
        }
    }

    /// Close.
    pub(super) async fn close(&mut self, len: usize) -> Result<(), Fault> {
        self.settle_unparsed().await?;
        let close = frontend::Close::decode(self.body(len))?;
        let (kind, name) = (close.kind, close.name.to_vec());
        match kind {
            // The server keeps its statement: it is as good for the next client.
            Kind::Statement => {
                self.note_statement(&name);
                self.confirm_statement();
                self.statements.remove(&name);
            }
            Kind::Portal => {
                let portal = if name.is_empty() {
                    self.statements.unnamed_portal.take()
                } else {
                    self.statements.portals.remove(&*name)
                };
                let host = match portal {
                    Some(Portal::On { host, .. }) => Some(host),
                    Some(_) => None,
                    None => self.cursor_host(&name),
                };
                let held = self.is_held_cursor(&name);
                if let Some(host) = host
                    && (held || self.links.iter().any(|l| l.host == host))
                {
                    let i = self.link_of_portal(host, &name).await?;
                    let link = &mut self.links[i];
                    link.suspect |= held;
                    frontend::close(&mut link.outbox, Kind::Portal, &name);
                    link.unsynced = true;
                    self.replies.push(Reply::One(Pass::On));
                    return Ok(());
                }
            }
        }
        self.replies.push(Reply::Made(Made::CloseComplete));
        Ok(())
    }
}

/// Whether an answer to the statement has rows.
pub(super) fn gives_rows(statement: &Statement) -> bool {
    match &*statement.prepared {
        Prepared::Query(bound) => bound.returns_rows,
        Prepared::Pass(passed) => !matches!(passed, Passed::Notify),
        Prepared::Control(control) => {
            matches!(control, Control::Show(_) | Control::ExplainRoute { .. })
        }
        _ => false,
    }
}

/// The statements that the session acts on itself have no parameters.
pub(super) fn no_parameters(bind: &Bind<'_>) -> Result<(), Fault> {
    match bind.param_count() {
        0 => Ok(()),
        n => {
            let name = String::from_utf8_lossy(bind.statement);
            let message = format!(
                "bind message supplies {n} parameters, but prepared statement \"{name}\" requires 0"
            );
            Err(Fault::statement(ErrorFields::error(
                SqlState::PROTOCOL_VIOLATION,
                message,
            )))
        }
    }
}

fn no_portal(name: &[u8]) -> Fault {
    let message = format!(
        "portal \"{}\" does not exist",
        String::from_utf8_lossy(name)
    );
    Fault::statement(ErrorFields::error(SqlState::INVALID_CURSOR_NAME, message))
}

fn cannot_run(name: &[u8]) -> Fault {
    let message = format!("portal \"{}\" cannot be run", String::from_utf8_lossy(name));
    Fault::statement(ErrorFields::error(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        message,
    ))
}

fn active_portal(name: &[u8]) -> Fault {
    let message = format!(
        "cannot drop active portal \"{}\"",
        String::from_utf8_lossy(name)
    );
    Fault::statement(ErrorFields::error(SqlState::INVALID_CURSOR_STATE, message))
}

/// The columns of what the session answers itself; `None` if a server answers.
fn own_columns(statement: &Statement) -> Option<Vec<String>> {
    match &*statement.prepared {
        Prepared::Control(Control::ExplainRoute { .. }) => {
            Some(vec![super::explain::COLUMN.to_owned()])
        }
        Prepared::Control(Control::Show(name)) => Some(vec![name.clone()]),
        Prepared::Control(_) | Prepared::Empty => Some(Vec::new()),
        _ => None,
    }
}

fn describe_own(out: &mut Vec<u8>, columns: Vec<String>) {
    if columns.is_empty() {
        backend::no_data(out);
        return;
    }
    let columns: Vec<_> = columns.iter().map(|c| (c.as_str(), 25)).collect();
    backend::row_description(out, &columns);
}

/// An answer of the simple protocol as one to Execute.
fn without_row_description(messages: &[u8]) -> &[u8] {
    match frame::header(messages) {
        Ok(Some(header)) if header.tag == b'T' => &messages[header.len.min(messages.len())..],
        _ => messages,
    }
}
