//! `BEGIN` and `COMMIT` where nothing has to be waited for but the server's answer, as for nearly every transaction.

use super::*;
use crate::sql::control::Control;

/// The Sync that ends a batch, as it stands behind the last of its other messages.
const SYNC: &[u8] = b"S\0\0\0\x04";

impl Session {
    /// [`Session::begin`] outside of everything. `false`: nothing has been done, and more is to be considered.
    fn begin_now(&mut self, options: &BeginOptions) -> bool {
        if self.block.is_some()
            || !self.links.is_empty()
            || self.batch.has_set
            || self.check_in_time(options).is_err()
        {
            return false;
        }
        self.open_block(*options);
        true
    }

    /// Sends the COMMIT of a block that is on one host, without its ReadyForQuery being asked for; the rest is
    /// [`Session::has_committed`]. `false`: nothing has been done, and more is to be considered.
    fn commit_now(&mut self) -> bool {
        let (Some(block), [link]) = (&self.block, &self.links[..]) else {
            return false;
        };
        let plain = block.owner == Owner::Client
            && !block.failed
            && !block.lost
            && !block.let_go
            && !block.writers.are_several()
            && !block.has_changed_tables();
        // Of what is set or set back the client hears before its ReadyForQuery.
        let same = block.locals.is_empty()
            && !self.batch.has_set
            && block.before.settings.same(&self.settings);
        let at_rest = link.conn.is_some() && !link.unsynced && !self.replies.are_asked();
        if !plain || !same || !at_rest || self.batch.unparsed.is_some() {
            return false;
        }
        self.active = 0;
        self.push_run(0, "COMMIT", Pass::On);
        self.links[0].unsynced = true;
        self.commits = true;
        true
    }

    /// A COMMIT that was sent by [`Session::commit_now`] has been answered, up to its ReadyForQuery; `Ok(true)`: with an error.
    pub(in crate::session) fn has_committed(
        &mut self,
        relayed: Result<bool, Fault>,
    ) -> Result<bool, Fault> {
        self.commits = false;
        match relayed {
            Ok(error) => {
                self.close_block(!error);
                Ok(error)
            }
            Err(fault) => {
                self.lost_at_end(true);
                Err(commit_unknown(fault, true))
            }
        }
    }

    /// A Query that is nothing but this statement, outside of any batch. `None`: nothing has been done about it.
    pub(in crate::session) fn query_control_now(
        &mut self,
        control: &Control,
        text: std::ops::Range<usize>,
    ) -> Option<Now> {
        match control {
            Control::Begin(options) if self.begin_now(options) => {
                self.end_implicit(true);
                let tag = begin_command(&self.client.inbox[text]);
                self.client.make(&Made::Tag(tag));
                self.ready();
                Some(Now::Done(Ok(())))
            }
            Control::Commit { chain: false } if self.commit_now() => {
                frontend::sync(&mut self.links[0].outbox);
                self.replies.push(Reply::Sync(Pass::On));
                Some(Now::Relay)
            }
            _ => None,
        }
    }

    /// Execute, of `len` bytes at the front of the inbox, of a portal that is this statement. `portal`: where its name is. `false`: nothing has been done
    /// about it.
    pub(in crate::session) fn execute_control_now(
        &mut self,
        control: &Control,
        text: &[u8],
        portal: std::ops::Range<usize>,
        len: usize,
    ) -> bool {
        match control {
            Control::Begin(options) if self.begin_now(options) => {
                let tag = Made::Tag(begin_command(text));
                self.replies.push(Reply::Made(tag));
                let portal = self.client.inbox[portal].to_owned();
                self.has_run(&portal);
                self.batch.executed = true;
                true
            }
            // What else stands in the batch behind it is of another transaction.
            Control::Commit { chain: false } if self.client.pending().get(len..) == Some(SYNC) => {
                let sent = self.commit_now();
                self.batch.executed &= !sent;
                sent
            }
            _ => false,
        }
    }
}
