//! COPY TO STDOUT of several shards: their data one after the other, with what is said once for all of it said once.

use super::super::Session;
use super::super::context::Prepared;
use super::super::errors::Fault;
use super::super::links::Need;
use super::super::portals::Several;
use crate::route::{Bound, Values};
use crate::shardmap::ShardId;
use crate::sql::copy::{Format, Header, Options};
use crate::wire::backend::{self, CommandComplete};
use crate::wire::{frame, frontend};

/// Shards asked in one write.
const WINDOW: usize = 64;
/// What binary data begins with, as servers write it: signature, flags, length of the extension.
const HEAD: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What ends binary data.
const TRAILER: [u8; 2] = [0xff, 0xff];

/// What has come together so far.
struct Gathered {
    /// Rows by the servers' tags.
    rows: u64,
    /// How many have begun to answer.
    shards: usize,
    /// The head of binary data has gone out, with the first row.
    headed: bool,
    /// What is left out of the data of all shards but the first.
    head: Head,
}

/// What each shard's data begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Head {
    Nothing,
    /// A line of column names: a message of its own.
    Line,
    /// The head of binary data: the first bytes of the first message.
    Binary,
}

impl Gathered {
    fn new(options: &Options) -> Gathered {
        let head = match (options.format, options.header) {
            (Format::Binary, _) => Head::Binary,
            (_, Header::No) => Head::Nothing,
            _ => Head::Line,
        };
        Gathered {
            rows: 0,
            shards: 0,
            headed: false,
            head,
        }
    }

    /// Another shard begins. `true`: the first.
    fn next_shard(&mut self) -> bool {
        self.shards += 1;
        self.shards == 1
    }
}

impl Session {
    /// The same of a portal. `false`: it is no COPY.
    pub(in crate::session) async fn copy_out_of_portal(
        &mut self,
        several: &Several,
    ) -> Result<bool, Fault> {
        let Prepared::Query(bound) = &*several.statement.prepared else {
            return Ok(false);
        };
        let Some(options) = &bound.copy_out else {
            return Ok(false);
        };
        let (text, holes) = (&several.statement.text, &several.statement.holes);
        let values = Values {
            text,
            holes,
            params: None,
        };
        if self
            .copy_out(bound, options, &values, &several.shards)
            .await?
        {
            self.batch.refused();
        }
        Ok(true)
    }

    /// A COPY TO STDOUT for several shards. `true`: a shard failed, and the client has its error.
    pub(in crate::session) async fn copy_out(
        &mut self,
        bound: &Bound,
        options: &Options,
        values: &Values<'_>,
        shards: &[ShardId],
    ) -> Result<bool, Fault> {
        let hosts = self.enlist_hosts(shards).await?;
        let mut gathered = Gathered::new(options);
        for (host, of_host) in hosts {
            let i = self.link(Need::plain(host)).await?;
            for window in of_host.chunks(WINDOW) {
                self.ask_copies(i, bound, values, window);
                if self.pass_copies(i, &mut gathered).await? {
                    if let Some(block) = &mut self.block {
                        block.failed = true;
                    }
                    return Ok(true);
                }
            }
        }
        let out = &mut self.client.outbox;
        match (gathered.head, gathered.headed) {
            (Head::Binary, true) => frontend::copy_data(out, &TRAILER),
            (Head::Binary, false) => frontend::copy_data(out, &[&HEAD[..], &TRAILER].concat()),
            _ => {}
        }
        frontend::copy_done(out);
        backend::command_complete(out, &format!("COPY {}", gathered.rows));
        Ok(false)
    }

    /// Asks some shards of one host. An error of one keeps the others from being asked.
    fn ask_copies(&mut self, i: usize, bound: &Bound, values: &Values<'_>, shards: &[ShardId]) {
        self.overwrite_unnamed(i);
        let mut outbox = std::mem::take(&mut self.links[i].outbox);
        let mut text = Vec::new();
        for shard in shards {
            text.clear();
            self.write_text(&mut text, bound, values, Some(*shard));
            frontend::parse(&mut outbox, b"", &text, std::iter::empty());
            frontend::bind_renamed(&mut outbox, b"", b"", &[0; 6]);
            frontend::execute(&mut outbox, b"", 0);
        }
        frontend::sync(&mut outbox);
        self.links[i].outbox = outbox;
        self.links[i].unsynced = true;
    }

    /// Passes on what the shards asked answer. `true`: one of them with an error.
    async fn pass_copies(&mut self, i: usize, gathered: &mut Gathered) -> Result<bool, Fault> {
        let (mut at, mut error) = (0, false);
        loop {
            let (tag, len) = self.next_message(i).await?;
            match tag {
                b'd' => {
                    at += self.pass_data_of(i, len, at, gathered).await?;
                    continue;
                }
                b'H' => {
                    at = 0;
                    if gathered.next_shard() {
                        self.pass_message(i, len).await?;
                        continue;
                    }
                }
                b'N' | b'A' => {
                    self.pass_message(i, len).await?;
                    continue;
                }
                b'C' => {
                    self.have(i, len).await?;
                    let body = &self.links[i].unread()[frame::HEADER..len];
                    let rows = CommandComplete::decode(body).ok().and_then(|c| c.rows());
                    gathered.rows += rows.unwrap_or(0);
                }
                b'E' => {
                    self.pass_message(i, len).await?;
                    self.client.undo();
                    error = true;
                    continue;
                }
                _ => {}
            }
            if tag == b'Z' {
                self.have(i, len).await?;
                self.links[i].unsynced = false;
            }
            self.skip_message(i, len).await?;
            if tag == b'Z' {
                return Ok(error);
            }
        }
    }

    /// Passes on the CopyData message of `len` bytes that is number `at` of its shard, but for what has been said, and maybe
    /// some behind it; how many.
    async fn pass_data_of(
        &mut self,
        i: usize,
        len: usize,
        at: usize,
        gathered: &mut Gathered,
    ) -> Result<usize, Fault> {
        if gathered.head != Head::Binary && (at > 0 || gathered.head == Head::Nothing) {
            return self.pass_run(i, len).await;
        }
        self.pass_first_of(i, len, at, gathered).await?;
        Ok(1)
    }

    /// One message, which may be what has been said.
    async fn pass_first_of(
        &mut self,
        i: usize,
        len: usize,
        at: usize,
        gathered: &mut Gathered,
    ) -> Result<(), Fault> {
        let body = len - frame::HEADER;
        match gathered.head {
            Head::Line if at == 0 && gathered.shards > 1 => return self.skip_message(i, len).await,
            Head::Binary if at == 0 => {}
            Head::Binary if body == TRAILER.len() => {
                self.have(i, len).await?;
                if self.links[i].unread()[frame::HEADER..len] == TRAILER {
                    return self.skip_message(i, len).await;
                }
                return self.pass_message(i, len).await;
            }
            _ => return self.pass_message(i, len).await,
        }
        // The head, and either a row or the trailer.
        let head = frame::HEADER + HEAD.len();
        self.have(i, len.min(head + TRAILER.len())).await?;
        if len <= head || self.links[i].unread()[head..head + TRAILER.len()] == TRAILER {
            return self.skip_message(i, len).await;
        }
        if !std::mem::replace(&mut gathered.headed, true) {
            return self.pass_message(i, len).await;
        }
        self.links[i].take(head);
        self.client.outbox.push(b'd');
        let stated = (body - HEAD.len() + 4) as u32;
        self.client.outbox.extend_from_slice(&stated.to_be_bytes());
        self.pass_message(i, len - head).await
    }
}
