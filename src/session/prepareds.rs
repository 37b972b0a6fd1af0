//! What a client has prepared, and how the messages that name them are read.

use std::collections::HashMap;
use std::sync::Arc;

use super::context::Statement;
use super::describe::Told;
use super::portals::{Portal, Portals};
use foldhash::quality::RandomState;

use crate::route::{Format, Param, Params};
use crate::wire::frontend::{self, Bind};

/// The client's statements and portals.
#[derive(Default)]
pub(super) struct Prepareds {
    pub(super) named: HashMap<Box<[u8]>, Arc<Statement>, RandomState>,
    pub(super) unnamed: Option<Arc<Statement>>,
    /// See [`super::describe`].
    pub(super) told: HashMap<Box<[u8]>, Told, RandomState>,
    pub(super) unnamed_told: Option<Told>,
    pub(super) portals: Portals,
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
        self.portals.get(name)
    }

    /// A Query takes the place of the unnamed statement.
    pub(super) fn forget_unnamed(&mut self) {
        self.unnamed = None;
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
