//! What clients are told of a statement's parameters and columns. Once a server has said it, it is known, and Describe of the
//! statement needs no server any more. The tables may have been changed since, past the proxy too; so what a client was told
//! is compared with what each server connection says before it runs the statement for that client.

use std::sync::Arc;

use super::Session;
use super::block::aborted;
use super::context::{Described, Statement};
use super::errors::Fault;
use super::prepareds::{Prepareds, server_name};
use super::replies::{Description, Made, Pass, Reply};
use crate::pool::StatementKey;
use crate::wire::frontend::{self, Kind};

/// What the client was told of one of its statements.
pub(super) enum Told {
    Known(Arc<Described>),
    /// What a server says of it just now.
    Asked(Arc<Statement>),
}

impl Told {
    /// `None`: nothing that can be held against what another host says.
    fn known(&self) -> Option<Arc<Described>> {
        let known = match self {
            Told::Known(described) => Some(described.clone()),
            Told::Asked(statement) => statement.described.load_full(),
        };
        known.filter(|described| described.is_same_everywhere())
    }
}

impl Prepareds {
    /// What the client was told of the statement of this name, or would hold it to.
    pub(super) fn told(&mut self, name: &[u8]) -> Option<Arc<Described>> {
        let told = self.told_mut(name)?;
        let known = told.known()?;
        if let Told::Asked(_) = told {
            *told = Told::Known(known.clone());
        }
        Some(known)
    }

    /// Whether the client was told anything of any statement.
    pub(super) fn has_told(&self) -> bool {
        self.unnamed_told.is_some() || !self.told.is_empty()
    }

    /// Whether it was told anything of this one.
    pub(super) fn is_told(&self, name: &[u8]) -> bool {
        match name.is_empty() {
            true => self.unnamed_told.is_some(),
            false => !self.told.is_empty() && self.told.contains_key(name),
        }
    }

    fn told_mut(&mut self, name: &[u8]) -> Option<&mut Told> {
        match name.is_empty() {
            true => self.unnamed_told.as_mut(),
            false if self.told.is_empty() => None,
            false => self.told.get_mut(name),
        }
    }

    pub(super) fn tell(&mut self, name: &[u8], told: Told) {
        match name.is_empty() {
            true => self.unnamed_told = Some(told),
            false => drop(self.told.insert(name.into(), told)),
        }
    }

    pub(super) fn untell(&mut self, name: &[u8]) {
        match name.is_empty() {
            true => self.unnamed_told = None,
            false if self.told.is_empty() => {}
            false => drop(self.told.remove(name)),
        }
    }

    /// Refuses a statement of which it is known that it is not what the client was told.
    pub(super) fn check_told(&mut self, name: &[u8], statement: &Statement) -> Result<(), Fault> {
        if !self.is_told(name) {
            return Ok(());
        }
        let (Some(told), Some(known)) = (self.told(name), statement.described.load_full()) else {
            return Ok(());
        };
        if Arc::ptr_eq(&told, &known) {
            return Ok(());
        }
        if !told.is_like(&known) {
            return Err(Fault::changed_before());
        }
        self.tell(name, Told::Known(known));
        Ok(())
    }

    /// Whether a statement must be described before it runs: it can't be undone once it turns out that it is not what the
    /// client was told.
    pub(super) fn must_describe(&self, name: &[u8], statement: &Statement) -> bool {
        self.is_told(name) && statement.prepared.writes() && statement.described.load().is_none()
    }
}

impl Session {
    /// A statement was made anew for changed tables or settings. To Postgres it is the old one still.
    pub(super) fn hold_to(&mut self, name: &[u8], old: &Arc<Statement>) {
        let told = self.statements.told(name);
        if let Some(told) = told.or_else(|| Told::Asked(old.clone()).known()) {
            self.statements.tell(name, Told::Known(told));
        }
    }

    /// Has a server describe it, and compares.
    pub(super) async fn describe_before(
        &mut self,
        name: &[u8],
        statement: &Arc<Statement>,
    ) -> Result<(), Fault> {
        match Box::pin(self.description(statement)).await? {
            Some(_) => self.statements.check_told(name, statement),
            None => Err(Fault::Skipped),
        }
    }

    /// Answers Describe of a statement if a server has said before what it is. `false`: none has.
    pub(super) fn describe_known(
        &mut self,
        name: &[u8],
        statement: &Arc<Statement>,
    ) -> Result<bool, Fault> {
        let failed = self.block.as_ref().is_some_and(|b| b.failed);
        let known = statement.described.load_full();
        let Some(known) = known.filter(|known| known.is_same_everywhere()) else {
            return Ok(false);
        };
        // As Postgres: only what gives no rows is described in a failed block.
        if failed && known.columns().first() == Some(&b'T') {
            return Err(aborted());
        }
        self.statements.check_told(name, statement)?;
        self.confirm_unparsed_blindly();
        self.statements.tell(name, Told::Known(known.clone()));
        self.replies.push(Reply::Made(Made::Described(known)));
        Ok(true)
    }

    /// Asks a link what server-side statement `n` is.
    pub(super) fn push_description(&mut self, i: usize, n: u32, description: Reply) {
        let link = &mut self.links[i];
        let name = &mut [0; 12];
        frontend::describe(&mut link.outbox, Kind::Statement, server_name(n, name));
        link.unsynced = true;
        self.replies.push(description);
    }

    /// In front of the first Bind of a statement on a server connection: it must be what the client was told.
    pub(super) fn push_comparison(
        &mut self,
        i: usize,
        n: u32,
        told: Option<Arc<Described>>,
        statement: &Arc<Statement>,
        key: StatementKey,
    ) -> Result<(), Fault> {
        if told.is_none() || self.links[i].conn()?.statements.is_described(&key) {
            return Ok(());
        }
        let description = Description {
            pass: Pass::Keep,
            statement: statement.clone(),
            key,
            parameters: Vec::new(),
            told,
        };
        self.push_description(i, n, Reply::Description(Box::new(description)));
        Ok(())
    }
}
