//! The statements that the session acts on itself.

use super::Session;
use super::block::{Acted, aborted, tag};
use super::context::Passed;
use super::errors::Fault;
use super::links::Need;
use super::pins::Has;
use super::prepare::Way;
use crate::route::SessionState;
use crate::shardmap::HostId;
use crate::sql::control::{self, Control, Discard};
use crate::sql::shape::Shape;
use crate::wire::error::{ErrorFields, SqlState};

impl Session {
    /// Carries a control statement out.
    pub(super) async fn act(&mut self, control: &Control, text: &str) -> Result<Acted, Fault> {
        match control {
            Control::Begin(options) => self.begin(options, text).await,
            Control::Commit { chain } => self.end(true, *chain, text).await,
            Control::Rollback { chain } => self.end(false, *chain, text).await,
            Control::RollbackTo(name) => self.rollback_to(name, text).await,
            _ => {
                if self.block.as_ref().is_some_and(|b| b.failed) {
                    return Err(aborted());
                }
                self.act_in_good_order(control, text).await
            }
        }
    }

    /// Those that a failed block refuses.
    async fn act_in_good_order(&mut self, control: &Control, text: &str) -> Result<Acted, Fault> {
        match control {
            Control::Savepoint(name) => self.savepoint(name, text).await,
            Control::Release(name) => self.release(name, text).await,
            Control::Set { name, value, local } => self.set(name, value, *local, text).await,
            Control::Reset(name) => self.reset(name.as_deref(), text).await,
            Control::Show(name) if name.starts_with("presplit.") => self.show_own(name),
            Control::SetTransaction(options) => self.set_transaction(options, text).await,
            Control::SetSessionCharacteristics(options) => {
                self.set_characteristics(options, text).await
            }
            Control::SetConstraints { names, deferred } => {
                self.set_constraints(names, *deferred, text).await
            }
            Control::Discard(what) => {
                self.note_snapshot();
                self.discard(*what, text).await
            }
            Control::Listen(_) => self.run_on_session_host(text, SessionState::Takes).await,
            Control::Deallocate(name) => {
                self.note_snapshot();
                self.deallocate(name.as_deref())
            }
            Control::ClosePortal(name) => {
                self.note_snapshot();
                self.close_cursor(name.as_deref(), text).await
            }
            Control::Unlisten(_) => match self.hosts_that(Has::listens).is_empty() {
                true => Ok(tag("UNLISTEN")),
                false => self.run_on_session_host(text, SessionState::Gives).await,
            },
            Control::ExplainRoute { query } => self.explain_route(text, query),
            other => Err(unsupported(other)),
        }
    }

    /// CLOSE goes where the cursor is.
    async fn close_cursor(&mut self, name: Option<&str>, text: &str) -> Result<Acted, Fault> {
        let gives = |host| Need {
            state: SessionState::Gives,
            ..Need::plain(host)
        };
        let Some(name) = name else {
            for host in self.hosts_that(Has::cursors) {
                self.link(gives(host)).await?;
            }
            return self.run_on_all(text, "CLOSE CURSOR ALL").await;
        };
        if let Some(host) = Self::host_of(&self.pass_way(&Passed::Cursor(name.to_owned()))) {
            let i = self.link(gives(host)).await?;
            self.run_on(i, text).await?;
        }
        Ok(Acted::Passed)
    }

    /// Runs a statement about what the session has in its server process on the session host.
    async fn run_on_session_host(
        &mut self,
        text: &str,
        state: SessionState,
    ) -> Result<Acted, Fault> {
        let need = Need {
            // What it does is done when the host commits, which may not come second then.
            writes: true,
            unpreparable: true,
            state,
            ..Need::plain(self.map.session_host())
        };
        let i = self.link(need).await?;
        self.run_on(i, text).await?;
        Ok(Acted::Passed)
    }

    /// Remembers the host of a cursor that the statement declared, if it did.
    pub(super) fn note_cursor(&mut self, name: Option<String>, host: HostId) {
        if let (Some(name), Some(block)) = (name, &mut self.block) {
            block.cursors.insert(name, host);
        }
    }

    async fn discard(&mut self, what: Discard, text: &str) -> Result<Acted, Fault> {
        match what {
            Discard::All => {
                if self.block.is_some() && !self.in_message_block() {
                    return Err(in_block("DISCARD ALL"));
                }
                let discarded = self.discard_all().await?;
                self.drop_pins().await;
                Ok(discarded)
            }
            // What these throw away is never kept from one transaction to the next.
            Discard::Plans => Ok(tag("DISCARD PLANS")),
            Discard::Sequences => Ok(tag("DISCARD SEQUENCES")),
            Discard::Temp if self.hosts_that(Has::temporary).is_empty() => Ok(tag("DISCARD TEMP")),
            Discard::Temp => {
                self.run_on_session_host(text, SessionState::Temporary)
                    .await
            }
        }
    }

    fn deallocate(&mut self, name: Option<&str>) -> Result<Acted, Fault> {
        match name {
            None => {
                self.statements.clear_statements();
                Ok(tag("DEALLOCATE ALL"))
            }
            Some(name) if self.statements.remove(name.as_bytes()) => Ok(tag("DEALLOCATE")),
            Some(name) => Err(Fault::statement(ErrorFields::error(
                SqlState::INVALID_STATEMENT_NAME,
                format!("prepared statement \"{name}\" does not exist"),
            ))),
        }
    }

    /// Whether a way leads to one host, and which.
    pub(super) fn host_of(way: &Way) -> Option<HostId> {
        match way {
            Way::One { host, .. } => Some(*host),
            Way::Several(_) | Way::Data(_) | Way::Everywhere | Way::Write(_) | Way::Make(_) => None,
        }
    }
}

/// A transaction block, also the implicit one of several statements, is no place for it.
pub(super) fn in_block(what: &str) -> Fault {
    Fault::statement(ErrorFields::error(
        SqlState::ACTIVE_TRANSACTION,
        format!("{what} cannot run inside a transaction block"),
    ))
}

/// The cursor that a text declares.
pub(super) fn declared_cursor(text: &[u8]) -> Option<String> {
    if !text
        .trim_ascii_start()
        .get(..7)?
        .eq_ignore_ascii_case(b"declare")
    {
        return None;
    }
    let mut shape = Shape::default();
    shape.scan(text).ok()?;
    match control::parse(text, &shape)? {
        Control::Declare { name, .. } => Some(name),
        _ => None,
    }
}

/// Why a statement is refused, and what to do instead.
fn unsupported(control: &Control) -> Fault {
    let (what, hint) = control.refused().unwrap_or((
        "this statement is not for an app's connection",
        "Connect to the database \"presplit\" for the proxy's own commands.",
    ));
    Fault::unsupported(what, hint)
}
