//! Bind: the values say which shard a statement goes to.

use std::sync::Arc;

use super::context::{Prepared, Statement};
use super::control::declared_cursor;
use super::ends::Again;
use super::errors::Fault;
use super::extended::{gives_rows, is_own, no_parameters};
use super::links::Need;
use super::portals::{Portal, Several};
use super::prepare::{Way, bad_hint};
use super::prepareds::{BindNames, BindParams, server_name};
use super::replies::{Made, Pass, Reply};
use super::set_config::{SetConfig, read_set_config};
use super::writes::Writing;
use super::{Now, Session};

use crate::pool::NO_SHARD;
use crate::route::{SessionState, Values};
use crate::shardmap::ShardId;
use crate::sql::control::Control;
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::frame;
use crate::wire::frontend::{self, Bind};

impl Session {
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
    pub(super) fn try_bind(&mut self, len: usize) -> Result<bool, Fault> {
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
        self.check_bind(&statement, &names)?;
        self.check_parse(&statement)?;
        if self.statements.has_told() {
            let name = &self.client.inbox[names.statement.clone()];
            if self.statements.must_describe(name, &statement) {
                return Ok(false);
            }
            self.statements.check_told(name, &statement)?;
        }
        let (host, shard, path, set) = match self.bind_way(&statement, len)? {
            (Some(Way::One { host, shard, path }), set) => (host, shard, path, set),
            (None, _) if is_own(&statement) => {
                no_parameters(&Bind::decode(self.body(len))?)?;
                self.put_own_portal(names, Portal::Own(statement))?;
                return Ok(true);
            }
            _ => return Ok(false),
        };
        let key = (statement.id, shard.map_or(NO_SHARD, |s| s.0));
        let need = Need {
            statement: Some(key),
            rides: self.batch_rides(&statement, shard, path, len),
            ..Need::of(&statement.prepared, host, path)
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
        self.check_bind(&statement, &names)?;
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
                let need = Need {
                    statement: Some(key),
                    ..Need::of(&statement.prepared, host, path)
                };
                let i = self.link(need).await?;
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
        self.put_portal(&name, portal);
        self.replies.push(Reply::Made(Made::BindComplete));
        Ok(())
    }

    /// Sends the Bind under the name that the statement has on the link.
    pub(super) fn send_bind(
        &mut self,
        i: usize,
        statement: &Arc<Statement>,
        shard: Option<ShardId>,
        names: BindNames,
        set: Vec<SetConfig>,
    ) -> Result<(), Fault> {
        if !names.portal.is_empty() {
            let name = &self.client.inbox[names.portal.clone()];
            let host = self.links[i].host;
            let there = self.statements.portal(name);
            if !matches!(there, Some(Portal::On { host: on, .. }) if *on == host) {
                // The server does not know of it.
                self.check_portal_is_new(name)?;
            }
            self.limit_portals()?;
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
        let bound = Portal::On {
            host,
            rows: gives_rows(statement),
            declares: statement.prepared.declares(),
            changes_temporary: statement.prepared.session_state() == SessionState::Temporary,
            set,
        };
        match portal.is_empty() {
            true => self.put_portal(b"", bound),
            false => {
                let name: Box<[u8]> = self.client.inbox[portal].into();
                self.put_portal(&name, bound);
            }
        }
        self.replies.push(Reply::One(Pass::On));
        if self.block.is_some() {
            self.note_cursor(declared_cursor(&statement.text), host);
        }
        Ok(())
    }

    /// Where the parts of the Bind at the front of the inbox lie.
    pub(super) fn bind_names(&self, len: usize) -> Result<BindNames, Fault> {
        let start = self.client.read + frame::HEADER;
        let bind = Bind::decode(self.body(len))?;
        let (p, s) = (bind.portal.len(), bind.statement.len());
        Ok(BindNames {
            portal: start..start + p,
            statement: start + p + 1..start + p + 1 + s,
            rest: start + p + s + 2..self.client.read + len,
            params: bind.param_count(),
            unfit_formats: bind.unfit_formats(),
        })
    }

    /// What Postgres looks at first in a Bind, once it knows the statement.
    pub(super) fn check_bind(&self, statement: &Statement, bind: &BindNames) -> Result<(), Fault> {
        let params = bind.params;
        let message = match (bind.unfit_formats, statement.param_count) {
            (Some(formats), _) => {
                format!("bind message has {formats} parameter formats but {params} parameters")
            }
            (None, Some(needed)) if needed != params => format!(
                "bind message supplies {params} parameters, but prepared statement \"{}\" requires {needed}",
                String::from_utf8_lossy(&self.client.inbox[bind.statement.clone()])
            ),
            _ => return Ok(()),
        };
        Err(Fault::statement(ErrorFields::error(
            SqlState::PROTOCOL_VIOLATION,
            message,
        )))
    }

    pub(super) fn bind_statement(&mut self, names: &BindNames) -> Result<Arc<Statement>, Fault> {
        if names.statement.is_empty() {
            return self.statement(b"");
        }
        // Looked up by the bytes in the inbox; copied only if the statement has to be made anew.
        let reading = self.reading();
        let known = self
            .statements
            .get(&self.client.inbox[names.statement.clone()]);
        if let Some(known) = known
            && self.is_of_schema(known)
            && known.reading.fits(&reading)
        {
            return Ok(known.clone());
        }
        let name = self.client.inbox[names.statement.clone()].to_vec();
        self.statement(&name)
    }

    /// What a server would say of a portal that only we know.
    pub(super) fn check_portal_is_new(&self, name: &[u8]) -> Result<(), Fault> {
        if !self.statements.portals.has_name(name) {
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
    pub(super) fn bind_way(
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
}
