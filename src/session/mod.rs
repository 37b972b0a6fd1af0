//! One client's conversation: reads its messages, decides, forwards, relays. All control flow of a session starts here;
//! the other files of this folder are what it calls.

mod batch;
mod bind;
mod block;
mod bring;
mod buffers;
mod cancel;
mod checks;
mod clients;
mod commit;
mod constraints;
mod context;
mod control;
mod copies;
mod copy;
mod date_style;
mod ddl;
mod ddl_block;
mod ddl_lanes;
mod describe;
mod ends;
mod errors;
mod execute;
mod explain;
mod extended;
mod failed;
mod function_call;
mod gather;
mod keys;
mod lanes;
mod links;
mod login;
mod merge;
mod parameters;
mod parse;
mod pins;
mod portals;
mod portions;
mod prepare;
mod prepareds;
mod queries;
mod reading;
mod refresh;
mod relay;
mod replies;
mod set;
mod set_config;
mod share;
mod simple;
mod sql_prepare;
mod syntax;
mod temporary;
mod writers;
mod writes;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

pub use cancel::{CancelKeys, CancelSlot, InUse};
pub use clients::{Activity, ClientInfo, Clients, Database, Order};
pub use context::{CacheCounts, Context, Schema, WorkerContext};
pub use keys::Keys;
pub(crate) use login::admit;
pub use login::{Welcomes, serve};

use batch::Batch;
use block::{Block, Owner};
use ends::{Client, Link};
use errors::Fault;
use pins::Pins;
use portions::Holding;
use prepareds::Prepareds;
use reading::Reading;
use relay::{Relayed, Seen};
use replies::Replies;
use share::Riding;
use temporary::Temporary;

use crate::pool::{HostPools, Settings};
use crate::shardmap::ShardMap;
use crate::sql::hint::Hint;
use crate::wire::error::ErrorFields;
use crate::wire::frame::{self, Header};
use crate::wire::frontend;

/// A client that has logged in.
pub(crate) struct Session {
    context: Arc<Context>,
    worker: Arc<WorkerContext>,
    client: Client,
    info: Arc<ClientInfo>,
    cancel: Arc<CancelSlot>,
    /// The role that we are at the hosts, if not the one in their urls, and its password.
    role: Option<(String, Option<String>)>,
    /// The map that the present transaction (or the next one) goes by, and its hosts' pools.
    map: Arc<ShardMap>,
    /// [`MapHandle::swaps`](crate::shardmap::MapHandle::swaps) when that was last compared with the one in force.
    map_swaps: Option<u64>,
    pools: HostPools,
    /// Server connections lent to this session: at most one per host.
    links: Vec<Link>,
    /// The link that `replies` is about.
    active: usize,
    replies: Replies,
    /// Inside a transaction block; `None` outside, also inside the implicit transaction of a message.
    block: Option<Box<Block>>,
    batch: Batch,
    /// The statement that is under way on a shared server connection.
    riding: Option<Riding>,
    /// The next statement goes over a server connection of its own.
    rides_not: bool,
    /// The COMMIT that ends the block is under way, or waits for the Sync that is next in the inbox.
    commits: bool,
    statements: Prepareds,
    /// The rows that a gather is writing for the client are held for it.
    holding: Option<Holding>,
    /// What the client has set, and what it asked for at startup (RESET goes back to that).
    settings: Settings,
    startup: Settings,
    /// [`Session::reading`] of these settings.
    reading: (Settings, Arc<Reading>),
    /// What it has in server processes beyond its transactions.
    pins: Pins,
    temporary: Option<Box<Temporary>>,
    /// `SET presplit.key`, `SET presplit.shard`.
    hint: Option<Hint>,
    /// Bytes of a message that is too long to be held: they are swallowed as they come.
    swallow: usize,
}

/// Whether the session goes on.
type Go = bool;

/// What a wait came to.
#[derive(PartialEq, Eq)]
enum Waited {
    /// The client has said something.
    Bytes,
    /// The client is gone.
    End,
    /// The server waits for CopyData.
    CopyIn,
    /// A parked server connection has said something, which is passed on.
    Heard,
    /// There is another map.
    Map,
}

/// What became of a message at once.
enum Now {
    /// It is dealt with, or has failed.
    Done(Result<(), Fault>),
    /// It is sent; its answer up to ReadyForQuery is to be relayed.
    Relay,
    /// It needs something to be waited for; nothing has been done about it yet.
    Slowly,
}

impl Session {
    /// Runs until the client leaves, breaks the protocol or is told to go.
    pub(crate) async fn run(mut self) {
        loop {
            let step = match self.next_frame() {
                Ok(Some(header)) => match self.message_now(header) {
                    Now::Done(done) => {
                        self.client.consume(header.len);
                        done.map(|()| true)
                    }
                    Now::Relay => self.relay_message(header).await,
                    // Boxed, as it is large: the usual message does not pay for moving its future about.
                    Now::Slowly => Box::pin(self.message(header)).await,
                },
                Ok(None) => self.wait().await,
                Err(fault) => Err(fault),
            };
            let go = match step {
                Ok(go) => go,
                Err(fault) => {
                    self.fail(fault).await
                        && match self.check_pins() {
                            Ok(()) => true,
                            Err(fault) => self.fail(fault).await,
                        }
                }
            };
            if !go {
                break;
            }
        }
        // A block that is still open is rolled back by closing its connections; see `Link::drop`.
        self.links.clear();
        self.retire_pins();
    }

    /// The next whole message, if it has come.
    fn next_frame(&mut self) -> Result<Option<Header>, Fault> {
        if self.swallow > 0 {
            let n = self.swallow.min(self.client.pending().len());
            self.client.consume(n);
            self.swallow -= n;
            if self.swallow > 0 {
                return Ok(None);
            }
        }
        let pending = self.client.pending();
        let Some(header) =
            frame::frontend_header(pending).map_err(|e| Fault::violation(e.to_string()))?
        else {
            return Ok(None);
        };
        if pending.len() >= header.len {
            return Ok(Some(header));
        }
        let most = self.map.proxy.limits.frame_held_bytes;
        if header.tag == b'd' && (!self.replies.are_asked() || self.batch.skipping()) {
            // The rest of a COPY that has failed, which is ignored however long it is.
            self.swallow = header.len;
            return self.next_frame();
        }
        if header.len > most {
            return Err(self.too_long(header, most));
        }
        Ok(None)
    }

    /// A message that would have to be held and is longer than the limit: it is answered with an error as if it had come.
    fn too_long(&mut self, header: Header, most: usize) -> Fault {
        let pending = self.client.pending().len();
        self.client.consume(pending);
        self.swallow = header.len - pending;
        self.batch.now = header.tag;
        Fault::limit(
            &format!("a message of {} bytes", header.len),
            "frame_held_bytes",
            most as u64,
        )
    }

    /// Deals with a message without waiting for anything, where that is possible. Nearly all messages go this way.
    fn message_now(&mut self, header: Header) -> Now {
        self.batch.now = header.tag;
        // What an earlier message has gathered waits for no more than this one's answer.
        self.client.hold_until_reply();
        match header.tag {
            b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'F' if self.batch.skipping() => {
                Now::Done(Ok(()))
            }
            b'Q' | b'P' | b'B' | b'D' if self.must_read_tables_for(header.tag) => Now::Slowly,
            b'Q' => self.query_now(header.len),
            b'S' => self.sync_now(header.len),
            b'P' => self.parse_now(header.len),
            b'B' => self.bind_now(header.len),
            b'D' => self.describe_now(header.len),
            b'E' => self.execute_now(header.len),
            _ => Now::Slowly,
        }
    }

    /// Relays what a Query or Sync, which has just been sent, is answered with, up to its ReadyForQuery.
    async fn relay_message(&mut self, header: Header) -> Result<Go, Fault> {
        // The client waits for this: nothing is gathered any more.
        self.client.hold_until_reply();
        let mut relayed = self.relay().await;
        if self.commits {
            relayed = self.has_committed(relayed);
        }
        if self.riding.is_some() {
            if relayed.is_err() && self.is_displaced() {
                return Box::pin(self.ride_not(header)).await;
            }
            self.has_ridden();
        }
        self.client.consume(header.len);
        let error = relayed?;
        if header.tag == b'S' {
            self.end_of_batch(error);
        }
        if !self.settle_now() {
            Box::pin(self.release_links()).await;
        }
        Ok(true)
    }

    /// Deals with one whole message; its bytes stay in the inbox until it is dealt with.
    async fn message(&mut self, header: Header) -> Result<Go, Fault> {
        self.batch.now = header.tag;
        let done = self.dispatch(header).await;
        self.client.consume(header.len);
        done
    }

    async fn dispatch(&mut self, header: Header) -> Result<Go, Fault> {
        match header.tag {
            b'X' => return Ok(false),
            // Postgres, too, ignores these outside COPY: the rest of a COPY that has failed.
            b'd' | b'c' | b'f' if !self.replies.are_asked() || self.batch.skipping() => {}
            // The COPY that they belong to may not have been asked for its answer yet.
            b'd' | b'c' | b'f' => self.drain_replies().await?,
            b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'F' if self.batch.skipping() => {}
            b'Q' | b'P' | b'B' | b'D' if self.must_read_tables_for(header.tag) => {
                Box::pin(self.read_block_tables()).await?;
                return Box::pin(self.dispatch(header)).await;
            }
            b'Q' => {
                self.query(header.len).await?;
                if self.block.is_none() {
                    // Those of a batch that it has ended.
                    self.statements.portals.clear();
                }
                (self.batch.executed, self.batch.parsed) = (false, false);
            }
            b'S' => self.sync(header.len).await?,
            b'P' => {
                self.settle_unparsed().await?;
                self.parse_slowly(header.len).await?;
            }
            b'B' => self.bind(header.len).await?,
            b'D' => self.describe(header.len).await?,
            b'E' => self.execute(header.len).await?,
            b'C' => self.close(header.len).await?,
            b'H' => self.flush().await?,
            b'F' => Box::pin(self.function_call(header.len)).await?,
            tag => {
                return Err(Fault::violation(format!(
                    "invalid frontend message type {tag}"
                )));
            }
        }
        Ok(true)
    }

    /// Waits for the client to say more, passing on what the server says meanwhile. Holds no buffer while nothing comes.
    async fn wait(&mut self) -> Result<Go, Fault> {
        self.check_pins()?;
        if self.links.len() > 1 && self.client.pending().is_empty() && self.replies.is_empty() {
            self.cancel.at_rest();
            if self.holds_on() {
                self.client.flush().await.map_err(Fault::client)?;
                Box::pin(self.let_go()).await;
            }
        }
        if self.replies.is_empty() && !self.client.outbox.is_empty() {
            // Or it would not be seen to be idle.
            let _ = poll_fn(|cx| Poll::Ready(self.client.poll_flush(cx))).await;
        }
        if self.client.pending().is_empty()
            && self.replies.is_empty()
            && self.client.outbox.is_empty()
        {
            self.client.rest();
            self.info.set(if self.links.is_empty() {
                Activity::Idle
            } else {
                Activity::InTransaction
            });
        }
        self.write_many_made();
        let listening = self.is_listening() && self.replies.is_empty();
        let mut seen = Seen::default();
        let waited = poll_fn(|cx| {
            if listening {
                self.info.listen(cx);
            }
            if let Some(fault) = self.is_told_to_go() {
                return Poll::Ready(Err(fault));
            }
            let waited = self.poll_waited(cx, listening, &mut seen);
            if waited.is_pending() && !listening {
                // Only now, as most waits end with the first look or with the client's bytes.
                self.info.listen(cx);
                if let Some(fault) = self.is_told_to_go() {
                    return Poll::Ready(Err(fault));
                }
            }
            waited
        })
        .await;
        self.note_seen(&mut seen);
        let waited = waited?;
        match waited {
            Waited::Heard => {
                self.pass_parked()?;
                return Ok(true);
            }
            Waited::Map => {
                self.follow_map();
                self.check_pins()?;
                return Ok(true);
            }
            _ => {}
        }
        self.info.set(Activity::Active);
        if waited == Waited::CopyIn {
            self.batch.now = 0;
            Box::pin(self.copy_in()).await?;
        }
        Ok(waited != Waited::End)
    }

    /// What it is told from outside to end with.
    fn is_told_to_go(&self) -> Option<Fault> {
        match self.info.told() {
            Order::Run => None,
            Order::Drain if self.block.is_some() || !self.links.is_empty() => None,
            order => Some(Fault::fatal(order.farewell())),
        }
    }

    /// Whether the wait is over.
    fn poll_waited(
        &mut self,
        cx: &mut std::task::Context<'_>,
        listening: bool,
        seen: &mut Seen,
    ) -> Poll<Result<Waited, Fault>> {
        if let Some(link) = self.links.get_mut(self.active)
            && !self.replies.is_empty()
        {
            match relay::poll_relay(cx, &mut self.client, link, &mut self.replies, seen) {
                Poll::Ready(Ok(Relayed::CopyIn)) => return Poll::Ready(Ok(Waited::CopyIn)),
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                Poll::Ready(Ok(Relayed::Done)) | Poll::Pending => {}
            }
        } else if self
            .client
            .poll_flush(cx)
            .map_err(Fault::client)?
            .is_pending()
        {
            return Poll::Pending;
        }
        if listening {
            if !self.is_map_current() {
                return Poll::Ready(Ok(Waited::Map));
            }
            if self.poll_parked(cx).is_ready() {
                return Poll::Ready(Ok(Waited::Heard));
            }
        }
        self.client.poll_fill(cx).map(|read| match read {
            Ok(0) => Ok(Waited::End),
            Ok(_) => Ok(Waited::Bytes),
            Err(e) => Err(Fault::client(e)),
        })
    }

    /// The text of the Query message of `len` bytes at the front of the inbox.
    fn query_text(&self, len: usize) -> Result<std::ops::Range<usize>, Fault> {
        let start = self.client.read + frame::HEADER;
        let end = self.client.read + len;
        frontend::Query::decode(&self.client.inbox[start..end])?;
        Ok(start..end - 1)
    }

    /// Turns a fault into what the client hears of it.
    async fn fail(&mut self, fault: Fault) -> Go {
        match fault {
            Fault::Client(e) => {
                tracing::debug!(client = self.info.id, "client gone: {e}");
                false
            }
            Fault::Fatal(fields) => {
                fields.write(&mut self.client.outbox);
                let _ = self.client.flush().await;
                false
            }
            Fault::Skipped => true,
            Fault::Statement(fields) => match Box::pin(self.refuse(*fields)).await {
                Ok(()) => true,
                Err(fault) => Box::pin(self.fail(fault)).await,
            },
            Fault::Server(fields) => {
                let cut = self.drop_active();
                self.context.stats.server_lost();
                if cut {
                    // The client is in the middle of a message that will never end.
                    tracing::warn!(
                        client = self.info.id,
                        "closing the client: {}",
                        fields.message
                    );
                    return false;
                }
                match Box::pin(self.refuse(*fields)).await {
                    Ok(()) => true,
                    Err(fault) => Box::pin(self.fail(fault)).await,
                }
            }
        }
    }

    /// The present message fails with this error. Replies owed for earlier messages go first.
    async fn refuse(&mut self, fields: ErrorFields) -> Result<(), Fault> {
        self.context.stats.refused(fields.code);
        Box::pin(self.settle_before_refusal(fields.code)).await;
        self.drain_replies().await?;
        if !self.batch.skipping() {
            fields.write(&mut self.client.outbox);
        }
        if let Some(block) = &mut self.block {
            block.failed = true;
        }
        match self.batch.now {
            now @ (b'Q' | b'S' | b'F') => {
                Box::pin(self.end_message(true)).await?;
                self.batch = Batch::at(now);
                if self.block.is_none() {
                    self.statements.portals.clear();
                    Box::pin(self.roll_back_kept()).await;
                    self.release_links().await;
                }
                self.let_go_of_one().await;
                self.ready();
            }
            _ => self.batch.refused(),
        }
        self.client.flush().await.map_err(Fault::client)
    }

    /// The transaction status as the client knows it.
    fn status(&self) -> u8 {
        match &self.block {
            None => b'I',
            Some(block) if block.owner == Owner::Message => b'I',
            Some(block) if block.failed => b'E',
            Some(_) => b'T',
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.context.clients.remove(&self.info);
        self.cancel.forget(&self.context.cancel_keys);
    }
}
