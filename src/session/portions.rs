//! A portal over several shards that the client reads in parts (Execute with a row limit): all shards are asked at the
//! first Execute, and the rows that the client has not fetched yet are held.

use std::sync::Arc;

use super::Session;
use super::block::aborted;
use super::errors::Fault;
use super::gather::{ENOUGH, Shards};
use super::portals::{Portal, Several};
use crate::wire::{backend, frame};

/// Rows that a portal still has to give, as whole DataRow messages.
#[derive(Default)]
pub(super) struct Rows {
    messages: Vec<u8>,
    given: usize,
}

impl Rows {
    /// Takes the rows out of what a gather wrote. What else there is, errors and notices, goes into `others`; the
    /// gather's own CommandComplete speaks of all rows, and is left out.
    fn of(mut messages: Vec<u8>, others: &mut Vec<u8>) -> Rows {
        let (mut at, mut kept) = (0, 0);
        // A row that was cut off is none.
        while let Ok(Some(header)) = frame::header(&messages[at..]) {
            let end = at + header.len;
            match header.tag {
                _ if end > messages.len() => break,
                b'D' => {
                    messages.copy_within(at..end, kept);
                    kept += header.len;
                }
                b'C' => {}
                _ => others.extend_from_slice(&messages[at..end]),
            }
            at = end;
        }
        messages.truncate(kept);
        Rows { messages, given: 0 }
    }

    /// Appends the next rows, at most `most`; how many there were.
    fn give(&mut self, most: u64, out: &mut Vec<u8>) -> u64 {
        let (from, mut count) = (self.given, 0);
        while count < most
            && let Ok(Some(header)) = frame::header(&self.messages[self.given..])
        {
            self.given += header.len;
            count += 1;
        }
        out.extend_from_slice(&self.messages[from..self.given]);
        if self.given == self.messages.len() {
            *self = Rows::default();
        }
        count
    }

    pub(super) fn bytes(&self) -> usize {
        self.messages.len()
    }
}

/// While a gather works for a portal that is read in parts: nothing of it goes to the client.
pub(super) struct Holding {
    /// Where its messages begin in the client's outbox.
    from: usize,
    /// Bytes that other portals hold.
    others: usize,
}

impl Session {
    /// What a gather has for the client is written in pieces of some size, unless it is held.
    pub(super) async fn pass_gathered(&mut self) -> Result<(), Fault> {
        let len = self.client.outbox.len();
        let Some(Holding { from, others }) = self.holding else {
            return match len >= ENOUGH {
                true => self.client.flush().await.map_err(Fault::client),
                false => Ok(()),
            };
        };
        let (bytes, most) = (
            others + len.saturating_sub(from),
            self.map.proxy.limits.gather_bytes,
        );
        match bytes > most {
            true => Err(Fault::limit(
                &format!(
                    "the rows of portals over several shards that are read in parts take {bytes} bytes"
                ),
                "gather_bytes",
                most as u64,
            )),
            false => Ok(()),
        }
    }

    /// The first Execute of a portal over several shards, whose hosts are enlisted.
    pub(super) async fn execute_first(
        &mut self,
        several: &Arc<Several>,
        hosts: &[Shards],
        name: &[u8],
        max_rows: i32,
    ) -> Result<(), Fault> {
        if max_rows <= 0 {
            if !self.gather_portal(several, hosts, false).await? {
                self.hold(name, several, Rows::default());
            }
            return Ok(());
        }
        let from = self.client.outbox.len();
        let others = self.statements.portals.held_bytes();
        self.holding = Some(Holding { from, others });
        let gathered = self.gather_portal(several, hosts, false).await;
        self.holding = None;
        let out = &mut self.client.outbox;
        let rows = Rows::of(out.split_off(from.min(out.len())), out);
        if gathered? {
            return Ok(());
        }
        self.hold(name, several, rows);
        self.execute_held(name, max_rows).await
    }

    /// A portal of ours does not run in a block that has failed.
    pub(super) fn check_runs(&self) -> Result<(), Fault> {
        match &self.block {
            Some(block) if block.failed => Err(aborted()),
            _ => Ok(()),
        }
    }

    fn hold(&mut self, name: &[u8], several: &Arc<Several>, rows: Rows) {
        if let Some(portal) = self.statements.portals.get_mut(name) {
            *portal = Portal::Held(several.clone(), rows);
        }
    }

    /// An Execute after the first: the next rows. As in Postgres, the end is told by an Execute that finds fewer rows
    /// than it may give, and the tag counts those of the last Execute.
    pub(super) async fn execute_held(&mut self, name: &[u8], max_rows: i32) -> Result<(), Fault> {
        self.settle_replies().await?;
        self.check_runs()?;
        let Some(Portal::Held(_, rows)) = self.statements.portals.get_mut(name) else {
            return Ok(());
        };
        let most = match max_rows {
            ..=0 => u64::MAX,
            most => most as u64,
        };
        let out = &mut self.client.outbox;
        let given = rows.give(most, out);
        match given < most {
            true => backend::command_complete(out, &format!("SELECT {given}")),
            false => backend::portal_suspended(out),
        }
        self.pass_gathered().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: u8) -> Vec<u8> {
        vec![b'D', 0, 0, 0, 5, n]
    }

    #[test]
    fn rows_are_told_from_what_stands_between_them() {
        let notice = [b'N', 0, 0, 0, 5, 0];
        let complete = [b'C', 0, 0, 0, 5, 0];
        let cut = &row(3)[..5];
        let all = [&row(1)[..], &notice, &row(2), &complete, cut].concat();
        let mut others = Vec::new();
        let mut rows = Rows::of(all, &mut others);
        assert_eq!(others, notice);
        let mut out = Vec::new();
        assert_eq!(rows.give(1, &mut out), 1);
        assert_eq!(out, row(1));
        assert_eq!(rows.give(5, &mut out), 1);
        assert_eq!(out, [row(1), row(2)].concat());
        assert_eq!((rows.give(5, &mut out), rows.bytes()), (0, 0));
    }
}
