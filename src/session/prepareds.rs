//! What a client has prepared: its statements and portals, and how the messages that name them are read.

use std::collections::HashMap;
use std::sync::Arc;

use super::context::Statement;
use super::describe::Told;
use super::portions::Rows;
use super::set_config::SetConfig;
use super::writes::Writing;
use foldhash::quality::RandomState;

use crate::route::{Format, Param, Params};
use crate::shardmap::{HostId, ShardId};
use crate::wire::frontend::{self, Bind};

/// The client's statements and portals.
#[derive(Default)]
pub(super) struct Prepareds {
    pub(super) named: HashMap<Box<[u8]>, Arc<Statement>, RandomState>,
    pub(super) unnamed: Option<Arc<Statement>>,
    /// See [`super::describe`].
    pub(super) told: HashMap<Box<[u8]>, Told, RandomState>,
    pub(super) unnamed_told: Option<Told>,
    pub(super) portals: HashMap<Box<[u8]>, Portal, RandomState>,
    pub(super) unnamed_portal: Option<Portal>,
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
    pub(super) fn replace(&mut self, name: &[u8], statement: Arc<Statement>) {
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

    pub(super) fn portal(&self, name: &[u8]) -> Option<&Portal> {
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

    pub(super) fn drop_portal(&mut self, name: &[u8]) {
        if name.is_empty() {
            self.unnamed_portal = None;
        } else {
            self.portals.remove(name);
        }
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
    /// How many parameters there are, and how many formats of them are stated if that does not fit.
    pub(super) params: usize,
    pub(super) unfit_formats: Option<usize>,
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
