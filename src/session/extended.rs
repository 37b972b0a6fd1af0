//! The extended protocol's Describe, Execute and Close.

use super::block::{Acted, aborted};
use super::context::{Passed, Prepared, Statement};
use super::describe::Told;
use super::ends::Link;
use super::errors::Fault;
use super::execute::Ran;
use super::links::Need;
use super::portals::Portal;
use super::replies::{Description, Made, Pass, Reply};
use super::writes::spent;
use super::{Now, Session};

use crate::shardmap::HostId;
use crate::sql::control::{Control, Discard};
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::frontend::{self, Bind, Kind};
use crate::wire::{backend, frame};

impl Session {
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
            (Kind::Portal, Some(Portal::Own(statement)), _)
                if is_own(statement)
                    && own_columns(statement).is_some_and(|all| all.is_empty()) =>
            {
                self.replies.push(Reply::Made(Made::NoData));
                Now::Done(Ok(()))
            }
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

    pub(super) fn describe_statement_now(&mut self, name: &[u8]) -> Result<bool, Fault> {
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

    pub(super) async fn describe_portal(&mut self, name: &[u8]) -> Result<(), Fault> {
        let host = match self.statements.portal(name) {
            // A cursor is a portal too.
            None => {
                let host = self.cursor_host(name).or_else(|| self.host_of_failed(name));
                host.ok_or_else(|| no_portal(name))?
            }
            Some(Portal::On { host, rows, .. }) if self.must_answer_for(*host) => {
                if *rows {
                    return Err(aborted());
                }
                self.replies.push(Reply::Made(Made::NoData));
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
                let columns = own_columns(statement).unwrap_or_default();
                if !columns.is_empty() {
                    self.check_failed()?;
                }
                let mut made = Vec::new();
                describe_own(&mut made, columns);
                self.replies.push(Reply::Made(Made::Bytes(made.into())));
                return Ok(());
            }
            Some(Portal::Data(..)) => {
                self.replies.push(Reply::Made(Made::NoData));
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
    pub(super) fn cursor_host(&self, name: &[u8]) -> Option<HostId> {
        let name = std::str::from_utf8(name).ok()?;
        let block = self.block.as_ref();
        let of_block = block.and_then(|block| block.cursors.get(name).copied());
        of_block.or_else(|| self.held_cursor(name))
    }

    /// A Query that has failed may have left its portal behind, which has no name: the host knows.
    fn host_of_failed(&self, name: &[u8]) -> Option<HostId> {
        let failed = self.block.as_ref().is_some_and(|block| block.failed);
        let link = self
            .links
            .get(self.active)
            .filter(|_| name.is_empty() && failed);
        link.filter(|link| link.status == b'E')
            .map(|link| link.host)
    }

    pub(super) fn is_held_cursor(&self, name: &[u8]) -> bool {
        std::str::from_utf8(name).is_ok_and(|name| self.held_cursor(name).is_some())
    }

    /// The link that a portal lives on.
    pub(super) async fn link_of_portal(
        &mut self,
        host: HostId,
        name: &[u8],
    ) -> Result<usize, Fault> {
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
            (Some(Portal::Own(statement)), _) => {
                let (statement, name) = (statement.clone(), start..start + execute.portal.len());
                let Prepared::Control(control) = &*statement.prepared else {
                    return Now::Slowly;
                };
                match self.execute_control_now(control, &statement.text, name, len) {
                    true => Now::Done(Ok(())),
                    false => Now::Slowly,
                }
            }
            (
                Some(Portal::On {
                    host,
                    set,
                    declares,
                    changes_temporary,
                    ..
                }),
                Some(link),
            ) if link.host == *host && set.is_empty() && !declares => {
                let changes_temporary = *changes_temporary;
                frontend::execute(&mut link.outbox, execute.portal, execute.max_rows);
                link.unsynced = true;
                self.replies.push(Reply::Execute(Pass::On));
                self.batch.executed = true;
                self.batch.limited |= execute.max_rows > 0;
                if changes_temporary {
                    self.temporary_changes();
                }
                Now::Done(Ok(()))
            }
            _ => Now::Slowly,
        }
    }

    /// Whether the block has failed and the host does not know of it: we say what it would say of its portals.
    fn must_answer_for(&self, host: HostId) -> bool {
        let knows = |link: &Link| link.host == host && link.status == b'E';
        self.block.as_ref().is_some_and(|block| block.failed) && !self.links.iter().any(knows)
    }

    /// Execute.
    pub(super) async fn execute(&mut self, len: usize) -> Result<(), Fault> {
        let execute = frontend::Execute::decode(self.body(len))?;
        let (max_rows, name) = (execute.max_rows, execute.portal.to_vec());
        self.settle_unparsed().await?;
        let executed = match self.statements.portal(&name) {
            Some(Portal::Own(statement)) => match &*statement.prepared {
                Prepared::Control(
                    Control::Commit { .. }
                    | Control::Rollback { .. }
                    | Control::Discard(Discard::All),
                ) => false,
                // Nothing is executed.
                Prepared::Empty => self.batch.executed,
                _ => true,
            },
            _ => true,
        };
        let changes_temporary = matches!(
            self.statements.portal(&name),
            Some(Portal::On {
                changes_temporary: true,
                ..
            })
        );
        self.execute_slowly(&name, max_rows).await?;
        if changes_temporary {
            self.temporary_changes();
        }
        self.batch.executed = executed;
        self.batch.limited |= max_rows > 0;
        Ok(())
    }

    pub(super) async fn execute_slowly(&mut self, name: &[u8], max_rows: i32) -> Result<(), Fault> {
        let own = match self.statements.portal(name) {
            None => {
                let host = self.cursor_host(name).or_else(|| self.host_of_failed(name));
                let host = host.ok_or_else(|| no_portal(name))?;
                if self.must_answer_for(host) {
                    return Err(aborted());
                }
                let i = self.link_of_portal(host, name).await?;
                let link = &mut self.links[i];
                frontend::execute(&mut link.outbox, name, max_rows);
                link.unsynced = true;
                self.replies.push(Reply::Execute(Pass::On));
                return Ok(());
            }
            Some(Portal::On {
                host,
                set,
                declares,
                ..
            }) => {
                let (host, sets, declares) = (*host, !set.is_empty(), *declares);
                if declares {
                    self.refuse_in_ours("DECLARE CURSOR")?;
                }
                if self.must_answer_for(host) {
                    return Err(aborted());
                }
                if sets {
                    self.remember_settings();
                }
                let i = self.link_of_portal(host, name).await?;
                let link = &mut self.links[i];
                frontend::execute(&mut link.outbox, name, max_rows);
                link.unsynced = true;
                self.replies.push(Reply::Execute(Pass::On));
                let Some(Portal::On { set, .. }) = self.statements.portals.get_mut(name) else {
                    return Ok(());
                };
                let set = std::mem::take(set);
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
                if let Some(portal) = self.statements.portals.get_mut(name) {
                    *portal = Portal::Written(writing.clone());
                }
                return Box::pin(self.execute_write(&writing, max_rows)).await;
            }
            Some(Portal::Written(writing)) => {
                let tag = writing.tag_of_none();
                self.settle_replies().await?;
                self.check_failed()?;
                let tag = tag.ok_or_else(|| spent(name))?;
                backend::command_complete(&mut self.client.outbox, tag);
                return Ok(());
            }
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
                if !self.statements.portals.is_of_failed(name) {
                    // What was bound before the failure can't even end the block.
                    self.check_failed()?;
                }
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
    pub(super) fn has_run(&mut self, name: &[u8]) {
        if let Some(portal) = self.statements.portals.get_mut(name)
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
                let host = match self.statements.portal(&name) {
                    Some(Portal::On { host, .. }) => Some(*host),
                    Some(_) => None,
                    None => self.cursor_host(&name),
                };
                let held = self.is_held_cursor(&name);
                if let Some(host) = host
                    && (held || self.links.iter().any(|l| l.host == host))
                {
                    let i = self.link_of_portal(host, &name).await?;
                    self.close_portal(&name);
                    let link = &mut self.links[i];
                    link.suspect |= held;
                    frontend::close(&mut link.outbox, Kind::Portal, &name);
                    link.unsynced = true;
                    self.replies.push(Reply::One(Pass::On));
                    return Ok(());
                }
                self.close_portal(&name);
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

/// Whether the session itself acts on it, without anything to be found out first.
pub(super) fn is_own(statement: &Statement) -> bool {
    match &*statement.prepared {
        Prepared::Control(control) => !matches!(control, Control::Execute { .. }),
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
