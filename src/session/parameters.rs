//! What the client is told of its settings (ParameterStatus). Postgres tells of a change once, in front of ReadyForQuery, and
//! nothing of what was undone before that. The values that a server connection had for another session, before and after a
//! transaction of this one, are none of its business.

use std::sync::Arc;

use super::Session;
use super::ends::{Client, Link};
use crate::wire::backend::{self, ParameterStatus};
use crate::wire::frame;

/// Parameters and their values, in the order that a server reports them.
pub(super) type Reported = Arc<Vec<(String, String)>>;

impl Client {
    /// What the client was last told of a parameter.
    pub(super) fn told(&self, name: &str) -> Option<&str> {
        let told = self.reported.iter().find(|(known, _)| known == name);
        told.map(|(_, value)| value.as_str())
    }

    /// A server says what a parameter is now: the client hears of it with its next ReadyForQuery, if it still holds then.
    pub(crate) fn report(&mut self, name: &str, value: &str) {
        if self.undone {
            return;
        }
        self.news.retain(|(known, _)| known != name);
        if self.told(name) == Some(value) {
            return;
        }
        self.news.push((name.to_owned(), value.to_owned()));
    }

    /// Whether the client is to hear of parameters before its next ReadyForQuery.
    pub(super) fn has_reports(&self) -> bool {
        !self.news.is_empty()
    }

    /// The block has failed: with the error, Postgres undoes what was set since the last savepoint, and says so.
    pub(super) fn undo(&mut self) {
        if let Some(told) = self.told_before.clone().filter(|_| !self.undone) {
            self.back_to(&told);
            self.undone = true;
        }
    }

    /// A transaction was undone before which this was what the client had been told.
    pub(super) fn back_to(&mut self, told: &Reported) {
        self.undone = false;
        self.news.clear();
        if Arc::ptr_eq(told, &self.reported) {
            return;
        }
        for (name, value) in told.iter() {
            self.report(name, value);
        }
    }

    /// A ReadyForQuery is next: says of the parameters what the client does not know yet.
    pub(super) fn write_reports(&mut self) {
        for (name, value) in std::mem::take(&mut self.news) {
            match self.reported.iter().position(|(n, _)| *n == name) {
                Some(i) if self.reported[i].1 == value => continue,
                Some(i) => Arc::make_mut(&mut self.reported)[i].1.clone_from(&value),
                None => Arc::make_mut(&mut self.reported).push((name.clone(), value.clone())),
            }
            backend::parameter_status(&mut self.outbox, &name, &value);
        }
    }
}

impl Session {
    /// What the session has set is done where it is just now: whatever the client does not know of it is news. (The server
    /// itself may have nothing to say: it may have said that last, to another session.)
    pub(super) fn gather_news(&mut self) {
        if !std::mem::take(&mut self.batch.has_set) {
            return;
        }
        let link = self.links.get(self.link_up_to_date());
        if let Some(conn) = link.and_then(|link| link.conn.as_ref()) {
            for (name, value) in &conn.parameters {
                self.client.report(name, value);
            }
        }
    }

    /// A link that knows all that the session has set; if there is none, the active one.
    fn link_up_to_date(&self) -> usize {
        let knows = |i: &usize| {
            let conn = self.links.get(*i).and_then(|link| link.conn.as_ref());
            conn.is_some_and(|conn| conn.settings().same(&self.settings))
        };
        let mut links = std::iter::once(self.active).chain(0..self.links.len());
        links.find(knows).unwrap_or(self.active)
    }

    /// What the client will have been told when all that is done so far is.
    pub(super) fn told_so_far(&self) -> Reported {
        let mut told = self.client.reported.clone();
        if !self.batch.has_set && self.client.news.is_empty() {
            return told;
        }
        let link = match self.batch.has_set {
            true => self.links.get(self.link_up_to_date()),
            false => None,
        };
        let there = link.and_then(|link| link.conn.as_ref());
        let there = there.iter().flat_map(|conn| conn.parameters.iter());
        for (name, value) in there.chain(&self.client.news) {
            let known = told.iter().position(|(known, _)| known == name);
            match known {
                Some(i) if told[i].1 == *value => {}
                Some(i) => Arc::make_mut(&mut told)[i].1.clone_from(value),
                None => Arc::make_mut(&mut told).push((name.clone(), value.clone())),
            }
        }
        told
    }

    /// The block, or its last savepoint, is another: so is what an error goes back to.
    pub(super) fn note_told(&mut self) {
        self.client.undone = false;
        self.client.told_before = self.block.as_ref().map(|block| block.told().clone());
    }

    /// Appends a ReadyForQuery of our own, and the news in front of it.
    pub(super) fn ready(&mut self) {
        if self.block.as_ref().is_some_and(|block| block.failed) {
            self.client.undo();
        }
        self.client.write_reports();
        let status = self.status();
        backend::ready(&mut self.client.outbox, status);
    }
}

/// Notes a ParameterStatus message, and tells the client if it says something new. `false`: it is none.
pub(super) fn pass_status(client: &mut Client, link: &mut Link, message: &[u8]) -> bool {
    let Ok(status) = ParameterStatus::decode(&message[frame::HEADER..]) else {
        return false;
    };
    if let (Ok(name), Ok(value)) = (
        std::str::from_utf8(status.name),
        std::str::from_utf8(status.value),
    ) {
        if let Some(conn) = &mut link.conn {
            conn.report(name, value);
        }
        client.report(name, value);
    }
    true
}
