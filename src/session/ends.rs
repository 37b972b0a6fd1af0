//! The two ends of a session: its client, and the server connections that are lent to it.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use smallvec::SmallVec;

use super::buffers;
use super::cancel::CancelSlot;
use super::context::{Prepared, Statement};
use super::errors::Fault;
use super::parameters::Reported;
use super::pins::Pin;
use super::replies::{Made, Pass};
use crate::pool::{Pool, ServerConn};
use crate::shardmap::{HostId, ShardId, ShardMap};
use crate::sql::shape::Shape;
use crate::wire::stream::Stream;

/// The most that is read from a server at once, while reads fill the buffer.
pub(super) const READ_MOST: usize = 64 * 1024;
/// Less room than this is not worth a read.
const ROOM: usize = buffers::SIZE / 4;

/// The client's side of a session.
pub(crate) struct Client {
    pub(crate) stream: Stream,
    /// Bytes from the client; those before `read` are dealt with.
    pub(crate) inbox: Vec<u8>,
    pub(crate) read: usize,
    /// Bytes for the client; those before `sent` are gone.
    pub(crate) outbox: Vec<u8>,
    sent: usize,
    /// What the client was last told of each reported parameter.
    pub(crate) reported: Reported,
    /// What it is to be told in front of the next ReadyForQuery.
    pub(super) news: Vec<(String, String)>,
    /// In a block: what it had been told where an error goes back to.
    pub(super) told_before: Option<Reported>,
    /// The block has failed. What a server says now is of before the block, perhaps of another session.
    pub(super) undone: bool,
    /// What `outbox` holds may wait for what the server says next, so that both go out in one write.
    pub(super) hold: Hold,
}

/// Whether bytes for the client may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// They are written before anything is waited for.
    No,
    /// Only replies of our own are there, and a server owes the next ones. Postgres, too, would send them together.
    UntilReply,
    /// The caller adds to them and writes them out.
    ForCaller,
}

/// An enlisted server connection: lent to this session.
pub(crate) struct Link {
    pub(crate) host: HostId,
    pub(crate) pool: Arc<Pool>,
    /// The map under which the host was chosen.
    pub(crate) map: Arc<ShardMap>,
    /// What was done to the text of the Query under way, to map error positions back; empty if nothing was.
    pub(crate) sent_pieces: SmallVec<[SentPiece; 1]>,
    /// `None` only once it went back to its pool or was lost.
    pub(crate) conn: Option<Box<ServerConn>>,
    /// Bytes for the server; those before `sent` are gone.
    pub(crate) outbox: Vec<u8>,
    sent: usize,
    /// How far `conn.inbox` is dealt with.
    pub(super) walked: usize,
    pub(super) middle: Middle,
    /// Messages were sent that no Sync has followed yet.
    pub(crate) unsynced: bool,
    /// Statements were described on it and nothing else was done: nothing that a client reads comes of its snapshot.
    pub(crate) only_described: bool,
    /// Transaction status of the last ReadyForQuery: I, T or E.
    pub(crate) status: u8,
    /// Where in the outbox the statements begin that bring settings about, ahead of anything else of the transaction; how
    /// many they are, and where they end.
    pub(crate) brought: Option<(usize, usize, usize)>,
    /// An error was said in the transaction.
    pub(crate) refused: bool,
    /// A text was sent that may itself have ended the transaction and begun others: what became of settings that were changed in
    /// it is not known.
    pub(super) ends_itself: bool,
    /// A text of the client's that was sent otherwise than as its Query, as long as nothing else is under way.
    pub(crate) sent_text: Option<Box<SentText>>,
    /// What can be sent anew if its first Bind finds that the tables have changed.
    pub(crate) again: Option<Again>,
    /// The session does not give it back; see `pins.rs`.
    pub(super) pin: Option<Box<Pin>>,
    /// What the session has in its server process may have changed.
    pub(super) suspect: bool,
    /// The session's: what we have cancelled ourselves is not told as a cancel.
    pub(crate) cancel: Option<Arc<CancelSlot>>,
}

/// The first Bind of a batch, of a statement that the client has just parsed and the server long ago: to Postgres it is
/// new, so "cached plan must not change result type" is our own doing.
pub(crate) struct Again {
    pub(crate) statement: Arc<Statement>,
    pub(crate) shard: Option<ShardId>,
    /// The number of the statement on the server connection.
    pub(crate) name: u32,
    /// The number of the reply to the Bind.
    pub(crate) reply: u64,
    /// Where the Bind, and what brings settings about for it, begins in what is written in one go.
    pub(crate) from: usize,
    /// How many statements bring settings about.
    pub(crate) ours: usize,
    /// What was written, once it is.
    pub(crate) written: Vec<u8>,
}

/// A statement of a Query as it was sent.
pub(crate) struct SentPiece {
    /// Where it begins in what was sent, in characters.
    pub(crate) from: u32,
    /// How many characters were sent.
    pub(crate) len: u32,
    /// Its bytes in the client's text.
    pub(crate) text: Range<usize>,
    pub(crate) prepared: Arc<Prepared>,
    /// Whose schema was written in.
    pub(crate) shard: Option<ShardId>,
}

/// A text that was sent with other names in it than the client's.
pub(crate) struct SentText {
    pub(crate) text: Box<[u8]>,
    /// Characters of the client's message before the text.
    pub(crate) before: u32,
    /// Its pieces by the bytes of the text, with what was sent for each.
    pub(crate) pieces: SmallVec<[SentPiece; 1]>,
}

impl SentText {
    /// Where character `position` (counted from 1) of what was sent stands in the client's message.
    pub(crate) fn original_position<'m>(
        &self,
        position: u32,
        schema: impl Fn(ShardId) -> &'m str,
    ) -> Option<u32> {
        let inside = |p: &&SentPiece| position > p.from && position <= p.from + p.len + 1;
        let piece = self.pieces.iter().rev().find(inside)?;
        let before = self.before + char_count(self.text.get(..piece.text.start)?);
        let inside = position - piece.from;
        let Some(shard) = piece.shard else {
            return Some(before + inside);
        };
        let text = self.text.get(piece.text.clone())?;
        let mut shape = Shape::default();
        shape.scan(text).ok()?;
        let holes = &shape.holes;
        let original = piece
            .prepared
            .original_position(inside, text, holes, schema(shard));
        Some(before + original)
    }
}

/// Characters of a text, as Postgres counts them in UTF-8.
pub(crate) fn char_count(text: &[u8]) -> u32 {
    text.iter().filter(|b| **b & 0xC0 != 0x80).count() as u32
}

/// A message of which the rest has yet to come.
pub(super) struct Middle {
    pub(super) rest: usize,
    pub(super) pass: Pass,
    /// A ReadyForQuery has come behind which nothing is owed.
    pub(super) ready: bool,
}

impl Client {
    pub(crate) fn new(stream: Stream) -> Client {
        Client {
            stream,
            inbox: Vec::new(),
            read: 0,
            outbox: Vec::new(),
            sent: 0,
            reported: Arc::default(),
            news: Vec::new(),
            told_before: None,
            undone: false,
            hold: Hold::No,
        }
    }

    /// Bytes that came and are not dealt with.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.inbox[self.read..]
    }

    /// Marks `n` more bytes as dealt with; frees the buffer when nothing is left.
    pub(crate) fn consume(&mut self, n: usize) {
        self.read += n;
        if self.read == self.inbox.len() {
            self.inbox.clear();
            self.read = 0;
        }
    }

    /// Gives the buffers back while nothing is in them.
    pub(crate) fn rest(&mut self) {
        buffers::take_back(&mut self.inbox);
        buffers::take_back(&mut self.outbox);
    }

    /// Adds a reply of our own.
    pub(super) fn make(&mut self, made: &Made) {
        if self.outbox.is_empty() && self.hold == Hold::No {
            self.hold = Hold::UntilReply;
        }
        buffers::lend(&mut self.outbox);
        made.write(&mut self.outbox);
    }

    /// From here on what comes for the client is gathered until the next [`Client::flush`].
    pub(crate) fn hold_for_caller(&mut self) {
        self.hold = Hold::ForCaller;
    }

    /// What was gathered goes out with what a server says next.
    pub(crate) fn hold_until_reply(&mut self) {
        if self.hold == Hold::ForCaller {
            self.hold = Hold::UntilReply;
        }
    }

    /// Writes out what may not wait; see [`Hold`].
    pub(super) fn poll_flush_unless_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hold == Hold::No || self.outbox.len() > READ_MOST {
            return self.poll_flush(cx);
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.hold = Hold::No;
        flush(&mut self.stream, &mut self.outbox, &mut self.sent, cx)
    }

    /// Writes out what is owed.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Reads what has come; `Ok(0)` is the end. No buffer is held until something is there.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.stream.may_read() {
            ready!(self.stream.poll_read_ready(cx))?;
        }
        buffers::lend(&mut self.inbox);
        if self.inbox.capacity() - self.inbox.len() < ROOM {
            self.inbox.drain(..self.read);
            self.read = 0;
            if self.inbox.capacity() - self.inbox.len() < ROOM {
                self.inbox.reserve(self.inbox.len());
            }
        }
        let read = self.stream.poll_read(cx, &mut self.inbox);
        if let Poll::Ready(Ok(_)) = read
            && self.inbox.len() == self.inbox.capacity()
            && self.inbox.len() < READ_MOST
        {
            // There is more: COPY data, as a rule.
            self.inbox.reserve_exact(READ_MOST - self.inbox.len());
        }
        read
    }
}

impl Link {
    pub(crate) fn new(
        host: HostId,
        map: Arc<ShardMap>,
        pool: Arc<Pool>,
        conn: Box<ServerConn>,
    ) -> Link {
        Link {
            host,
            pool,
            map,
            sent_pieces: SmallVec::new(),
            conn: Some(conn),
            outbox: Vec::new(),
            sent: 0,
            walked: 0,
            middle: Middle {
                rest: 0,
                pass: Pass::Keep,
                ready: false,
            },
            unsynced: false,
            only_described: false,
            status: b'I',
            brought: None,
            refused: false,
            ends_itself: false,
            sent_text: None,
            again: None,
            pin: None,
            suspect: false,
            cancel: None,
        }
    }

    /// The connection. A link without one has been taken out of the session's list; see [`Link::conn`].
    pub(crate) fn conn(&mut self) -> Result<&mut ServerConn, Fault> {
        match &mut self.conn {
            Some(conn) => Ok(conn),
            None => Err(Fault::lost(&self.pool.host, None)),
        }
    }

    /// What has come from the server and is not dealt with.
    pub(crate) fn unread(&self) -> &[u8] {
        self.conn
            .as_ref()
            .map_or(&[], |conn| &conn.inbox[self.walked..])
    }

    /// Marks `n` more bytes as dealt with.
    pub(crate) fn take(&mut self, n: usize) {
        // Whoever takes it: what it undoes is not known to stand. (In the middle of a message it is a byte like others.)
        self.refused |= self.unread().first() == Some(&b'E');
        self.walked += n;
    }

    /// A whole message of the server as the client is to hear it; see [`CancelSlot::reword`].
    pub(crate) fn reword(&self, message: Vec<u8>) -> Vec<u8> {
        if message.first() != Some(&b'E') {
            return message;
        }
        let (Some(cancel), Some(conn)) = (&self.cancel, &self.conn) else {
            return message;
        };
        cancel.reword(&conn.key, &message).unwrap_or(message)
    }

    /// Whether an error may have to be reworded.
    pub(crate) fn has_ended_wait(&self) -> bool {
        let (Some(cancel), Some(conn)) = (&self.cancel, &self.conn) else {
            return false;
        };
        cancel.has_ended(&conn.key)
    }

    /// Rewords the whole message of `len` bytes that is next.
    pub(crate) fn reword_next(&mut self, len: usize) {
        let message = self.reword(self.unread()[..len].to_vec());
        let range = self.walked..self.walked + len;
        if let Some(conn) = &mut self.conn {
            conn.inbox.splice(range, message);
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(conn) = &mut self.conn else {
            return Poll::Ready(Ok(()));
        };
        if !self.outbox.is_empty() && self.again.is_some() {
            ready!(write_all(
                &mut conn.stream,
                &self.outbox,
                &mut self.sent,
                cx
            ))?;
            self.sent = 0;
            match &mut self.again {
                Some(again) if again.written.is_empty() && self.outbox.len() <= READ_MOST => {
                    std::mem::swap(&mut again.written, &mut self.outbox);
                }
                // In more than one go: not the whole of it is kept.
                _ => self.again = None,
            }
            self.outbox.clear();
        }
        if self.outbox.is_empty() {
            return Poll::Ready(Ok(()));
        }
        ready!(flush(
            &mut conn.stream,
            &mut self.outbox,
            &mut self.sent,
            cx
        ))?;
        if self.status == b'I' {
            // As a rule nothing more is sent before the server has answered, and others can use the room meanwhile.
            buffers::take_back(&mut self.outbox);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether a message was passed on in part: the client cannot be told of an error before the rest.
    pub(crate) fn in_message(&self) -> bool {
        self.middle.rest > 0 && self.middle.pass == Pass::On
    }

    /// Notes that a message was passed on but for its last `rest` bytes.
    pub(crate) fn pass_rest(&mut self, rest: usize) {
        self.middle.rest = rest;
        self.middle.pass = Pass::On;
    }

    /// The transaction has ended: what was set in it stays, or is undone.
    pub(crate) fn transaction_over(&mut self, committed: bool) {
        if let Some(conn) = &mut self.conn {
            match committed {
                true => conn.committed(),
                false => conn.undone(),
            }
        }
        self.refused = false;
    }

    /// ReadyForQuery has come behind which nothing is owed; `before` it the status was this. Of a block the session knows how it ends.
    pub(in crate::session) fn is_ready(&mut self, before: u8) {
        self.unsynced = false;
        self.brought = None;
        if before != b'I' || self.status != b'I' {
            return;
        }
        let ends_itself = std::mem::take(&mut self.ends_itself);
        self.transaction_over(!self.refused && !ends_itself);
    }

    /// Takes the connection out for good. It is not idle on the server, or not known to be.
    pub(crate) fn discard(&mut self) {
        if let Some(pin) = self.pin.take() {
            pin.lose();
        }
        if let Some(conn) = self.conn.take() {
            self.pool.discard(conn);
        }
    }

    /// Whether it is outside a transaction with nothing outstanding.
    pub(super) fn is_idle(&self) -> bool {
        let whole = self.outbox.is_empty() && self.middle.rest == 0 && !self.unsynced;
        self.conn.is_some() && self.status == b'I' && whole
    }

    /// Gives the buffers back. Nothing is unread.
    pub(super) fn rest(&mut self) {
        if let Some(conn) = &mut self.conn {
            conn.inbox.clear();
            self.walked = 0;
            buffers::take_back(&mut conn.inbox);
        }
        buffers::take_back(&mut self.outbox);
    }

    /// Makes it ready to be kept beside the session's transactions; what is unread (notifications) stays. `false`: it can't be.
    pub(super) fn park(&mut self) -> bool {
        self.drop_again();
        self.doubt_settings();
        if !self.is_idle() {
            return false;
        }
        if self.unread().is_empty() {
            self.rest();
        }
        true
    }

    /// If nobody has said what became of settings that were changed, they are not known.
    pub(super) fn doubt_settings(&mut self) {
        if let Some(conn) = &mut self.conn {
            conn.undone();
        }
    }

    /// Nothing is sent anew any more.
    fn drop_again(&mut self) {
        if let Some(again) = self.again.take()
            && self.outbox.is_empty()
        {
            self.outbox = again.written;
            self.outbox.clear();
        }
    }

    /// Gives the connection back to its pool if it is outside a transaction with nothing outstanding; else closes it.
    pub(crate) fn release(&mut self) {
        self.drop_again();
        self.doubt_settings();
        let idle = self.is_idle();
        if let Some(mut conn) = self.conn.take() {
            if !idle || self.walked < conn.inbox.len() {
                return self.pool.discard(conn);
            }
            if let Some(name) = conn.is_set_unknown() {
                tracing::warn!(
                    host = self.pool.host,
                    "closing a server connection: its {name} is not what it should be"
                );
                return self.pool.discard(conn);
            }
            conn.inbox.clear();
            buffers::take_back(&mut conn.inbox);
            buffers::take_back(&mut self.outbox);
            self.pool.release(conn);
        }
    }
}

impl Drop for Link {
    /// A session that ends in the middle of anything must not leave its connection lent out for ever. A server process
    /// whose client is gone rolls its transaction back.
    fn drop(&mut self) {
        self.discard();
    }
}

fn flush(
    stream: &mut Stream,
    outbox: &mut Vec<u8>,
    sent: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    ready!(write_all(stream, outbox, sent, cx))?;
    outbox.clear();
    *sent = 0;
    if outbox.capacity() > READ_MOST {
        *outbox = Vec::new();
    }
    Poll::Ready(Ok(()))
}

/// Writes what of `bytes` is not `sent` yet.
pub(super) fn write_all(
    stream: &mut Stream,
    bytes: &[u8],
    sent: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while *sent < bytes.len() {
        let n = ready!(stream.poll_write(cx, &bytes[*sent..]))?;
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        *sent += n;
    }
    Poll::Ready(Ok(()))
}

/// Sends what is to be sent and reads what has come. `Ready(Ok)`: something has; `Ready(Err)`: the connection is lost, by this
/// cause or by its end.
pub(crate) fn poll_link(
    cx: &mut Context<'_>,
    link: &mut Link,
) -> Poll<Result<(), Option<io::Error>>> {
    if let Poll::Ready(Err(e)) = link.poll_flush(cx) {
        return Poll::Ready(Err(Some(e)));
    }
    poll_fill(cx, link).map(|read| match read {
        Ok(0) => Err(None),
        Ok(_) => Ok(()),
        Err(e) => Err(Some(e)),
    })
}

/// Reads from the server into the link's inbox; `Ready(0)` is the end.
pub(crate) fn poll_fill(cx: &mut Context<'_>, link: &mut Link) -> Poll<io::Result<usize>> {
    let Some(conn) = &mut link.conn else {
        return Poll::Ready(Ok(0));
    };
    // No buffer is held until something is there: the next one to read finds it in the processor's caches.
    if !conn.stream.may_read() {
        ready!(conn.stream.poll_read_ready(cx))?;
    }
    if link.walked == conn.inbox.len() {
        conn.inbox.clear();
        link.walked = 0;
    } else if link.walked > 0 {
        conn.inbox.drain(..link.walked);
        link.walked = 0;
    }
    buffers::lend(&mut conn.inbox);
    if conn.inbox.capacity() - conn.inbox.len() < ROOM {
        conn.inbox.reserve(READ_MOST.max(conn.inbox.len()));
    }
    let read = conn.stream.poll_read(cx, &mut conn.inbox);
    if let Poll::Ready(Ok(n)) = read
        && n == conn.inbox.capacity()
        && n < READ_MOST
    {
        conn.inbox.reserve(READ_MOST);
    }
    read
}
