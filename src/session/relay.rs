//! The hot path: passes a server's replies on to the client. Headers are walked, rows are neither decoded nor copied;
//! what one read brings goes out in one write.

mod judge;
mod position;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use super::context::{Described, Prepared};
use super::ends::{Client, Hold, Link, Middle, SentPiece, char_count, poll_fill, write_all};
use super::errors::Fault;
use super::parameters::pass_status;
use super::prepareds::server_name;
use super::replies::{Made, Pass, Replies, Reply};
use crate::pool::ServerConn;
use crate::sql::rewrite;
use crate::sql::shape::Shape;
use crate::wire::backend::{CommandComplete, ErrorView, ParameterStatus};
use crate::wire::frame;
use crate::wire::frontend::{self, Kind};

use judge::skip_rows;
pub(super) use judge::{Verdict, judge};
pub(super) use position::error_back;

/// A message that we must see whole before passing it on (errors, parameter changes). Errors quote values, however long,
/// and more than once.
const WHOLE_MOST: usize = 64 * 1024 * 1024;

/// How a relay came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relayed {
    /// Every reply owed has been passed on.
    Done,
    /// The server waits for CopyData from the client.
    CopyIn,
}

/// What was seen on the way.
#[derive(Default)]
pub(crate) struct Seen {
    /// An ErrorResponse was passed on.
    pub(crate) error: bool,
    /// An ErrorResponse came although no Sync has been sent: the server ignores all until one comes.
    pub(crate) until_sync: bool,
    /// A statement's columns are others than when the server parsed it: the tables have changed.
    pub(crate) stale: bool,
    /// The number of the first reply that never came because of an error.
    pub(crate) failed_at: Option<u64>,
}

/// Where a relay stands.
#[derive(Default)]
pub(crate) struct Run {
    /// What of the server's bytes is on its way to the client: a range of the connection's inbox.
    sent: usize,
    end: usize,
    /// All that has come is dealt with: the server is to say more.
    reads: bool,
}

/// Sends what the link's outbox holds and passes replies on until none is owed (or the server waits for CopyData). A function
/// to be polled, for the future of an `async fn` would be moved about for every message.
pub(crate) fn poll_replies(
    cx: &mut Context<'_>,
    client: &mut Client,
    link: &mut Link,
    replies: &mut Replies,
    seen: &mut Seen,
    run: &mut Run,
) -> Poll<Result<Relayed, Fault>> {
    loop {
        ready!(poll_run(cx, client, link, run)).map_err(Fault::client)?;
        let step = match run.reads {
            true => Step::Read,
            false => digest(client, link, replies, seen)?,
        };
        match step {
            Step::Run(start, end) => (run.sent, run.end) = (start, end),
            Step::Read => {
                run.reads = true;
                let flushed = client.poll_flush_unless_held(cx).map_err(Fault::client)?;
                // A server that does not read may be waiting for us to read: reading goes on whether or not all is sent.
                let _ = link
                    .poll_flush(cx)
                    .map_err(|e| Fault::lost(&link.pool.host, Some(e)))?;
                ready!(flushed);
                let read = ready!(poll_fill(cx, link));
                if read.map_err(|e| Fault::lost(&link.pool.host, Some(e)))? == 0 {
                    return Poll::Ready(Err(Fault::lost(&link.pool.host, None)));
                }
                run.reads = false;
            }
            // What is left in the outbox goes out before the client is next waited for.
            Step::CopyIn => return Poll::Ready(Ok(Relayed::CopyIn)),
            Step::Done => return Poll::Ready(Ok(Relayed::Done)),
        }
    }
}

/// Writes a run of the server's bytes straight to the client, unless something is to go out before it or behind it.
fn poll_run(
    cx: &mut Context<'_>,
    client: &mut Client,
    link: &mut Link,
    run: &mut Run,
) -> Poll<io::Result<()>> {
    let Some(conn) = link.conn.as_ref().filter(|_| run.end > 0) else {
        return Poll::Ready(Ok(()));
    };
    if !client.outbox.is_empty() || client.hold == Hold::ForCaller {
        client
            .outbox
            .extend_from_slice(&conn.inbox[run.sent..run.end]);
        if client.hold == Hold::UntilReply {
            client.hold = Hold::No;
        }
    } else {
        let (stream, bytes) = (&mut client.stream, &conn.inbox[..run.end]);
        ready!(write_all(stream, bytes, &mut run.sent, cx))?;
    }
    link.walked = run.end;
    *run = Run::default();
    Poll::Ready(Ok(()))
}

/// Passes on whatever replies are there already, without waiting for more. `Ready(0)` is the end of the stream.
pub(crate) fn poll_relay(
    cx: &mut Context<'_>,
    client: &mut Client,
    link: &mut Link,
    replies: &mut Replies,
    seen: &mut Seen,
) -> Poll<Result<Relayed, Fault>> {
    loop {
        match digest(client, link, replies, seen)? {
            Step::Run(start, end) => {
                if let Some(conn) = &link.conn {
                    client.outbox.extend_from_slice(&conn.inbox[start..end]);
                }
                link.walked = end;
            }
            Step::Read => {
                let flushed = client.poll_flush(cx).map_err(Fault::client)?;
                let _ = link
                    .poll_flush(cx)
                    .map_err(|e| Fault::lost(&link.pool.host, Some(e)))?;
                // Back-pressure: nothing more is read from the server while the client does not take what it has.
                ready!(flushed);
                if ready!(poll_fill(cx, link)).map_err(|e| Fault::lost(&link.pool.host, Some(e)))?
                    == 0
                {
                    return Poll::Ready(Err(Fault::lost(&link.pool.host, None)));
                }
            }
            Step::CopyIn => return Poll::Ready(Ok(Relayed::CopyIn)),
            Step::Done => {
                let _ = client.poll_flush(cx).map_err(Fault::client)?;
                let _ = link
                    .poll_flush(cx)
                    .map_err(|e| Fault::lost(&link.pool.host, Some(e)))?;
                return Poll::Ready(Ok(Relayed::Done));
            }
        }
    }
}

/// What to do next about the bytes that have come from the server.
enum Step {
    /// Pass these on (a range of the connection's inbox).
    Run(usize, usize),
    /// Nothing more can be done with what has come.
    Read,
    /// The last reply owed is dealt with.
    Done,
    /// The server sent CopyInResponse (already dealt with).
    CopyIn,
}

/// Walks the headers of what has come. Ends a run where something must be left out or put in between.
fn digest(
    client: &mut Client,
    link: &mut Link,
    replies: &mut Replies,
    seen: &mut Seen,
) -> Result<Step, Fault> {
    loop {
        let Some(conn) = &mut link.conn else {
            return Err(Fault::lost(&link.pool.host, None));
        };
        let start = link.walked;
        let mut at = start;
        // The rest of a long message first.
        if link.middle.rest > 0 {
            let n = link.middle.rest.min(conn.inbox.len() - at);
            if n == 0 {
                return Ok(Step::Read);
            }
            link.middle.rest -= n;
            at += n;
            if link.middle.pass == Pass::Keep {
                link.walked = at;
                continue;
            }
        }
        let (news, before) = (client.has_reports(), link.status);
        let walked = walk(
            conn,
            &mut link.middle,
            &mut link.status,
            replies,
            (start, at),
            news,
        )?;
        if std::mem::take(&mut link.middle.ready) {
            link.is_ready(before);
        }
        match walked {
            Walked::Step(step) => return Ok(step),
            Walked::Report => client.write_reports(),
            Walked::Unexpected(tag) => return Err(Fault::protocol(&link.pool.host, tag)),
            Walked::Kept(end) => link.walked = end,
            Walked::Made(made) => client.make(&made),
            Walked::Look(end) => {
                let unread = link.unread();
                let message = unread[..end - start].to_vec();
                link.walked = end;
                let message = link.reword(message);
                if look(client, link, replies, seen, &message)? {
                    return Ok(Step::CopyIn);
                }
            }
        }
    }
}

/// Where a walk over headers stopped.
enum Walked {
    /// The caller has something to do.
    Step(Step),
    /// Nothing to pass on; the message up to here is left out.
    Kept(usize),
    /// Nothing to pass on; before the ReadyForQuery that is next the client hears of parameters.
    Report,
    /// Nothing to pass on; this reply of our own is due.
    Made(Made),
    /// Nothing to pass on; the whole message up to here must be looked into.
    Look(usize),
    /// A message that has no place here.
    Unexpected(u8),
}

/// Walks from `at`; `start..at` is to be passed on already. `news`: the client is to hear of parameters.
fn walk(
    conn: &ServerConn,
    middle: &mut Middle,
    status: &mut u8,
    replies: &mut Replies,
    (start, mut at): (usize, usize),
    news: bool,
) -> Result<Walked, Fault> {
    // Whatever interrupts a run is dealt with on the next call, when the run is out.
    let run_or = |at: usize, other: Walked| {
        if at > start {
            Walked::Step(Step::Run(start, at))
        } else {
            other
        }
    };
    loop {
        let owed = match replies.front() {
            None => return Ok(run_or(at, Walked::Step(Step::Done))),
            Some(Reply::Made(_)) if at > start => return Ok(Walked::Step(Step::Run(start, at))),
            Some(Reply::Made(_)) => match replies.pop() {
                Some(Reply::Made(made)) => return Ok(Walked::Made(made)),
                _ => continue,
            },
            Some(owed) => owed,
        };
        at = skip_rows(&conn.inbox, at, owed);
        let bytes = &conn.inbox[at..];
        let header = match frame::header(bytes) {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(run_or(at, Walked::Step(Step::Read))),
            Err(_) => return Ok(run_or(at, Walked::Unexpected(bytes[0]))),
        };
        let verdict = judge(header.tag, owed);
        if matches!(verdict, Verdict::Look | Verdict::Ready(_)) && bytes.len() < header.len {
            if header.len > WHOLE_MOST {
                return Ok(run_or(at, Walked::Unexpected(header.tag)));
            }
            return Ok(run_or(at, Walked::Step(Step::Read)));
        }
        let pass = match verdict {
            Verdict::Look => return Ok(run_or(at, Walked::Look(at + header.len))),
            Verdict::Unexpected => return Ok(run_or(at, Walked::Unexpected(header.tag))),
            Verdict::Ready(Pass::On) if news => return Ok(run_or(at, Walked::Report)),
            Verdict::Pass(pass) | Verdict::Answers(pass) | Verdict::Ready(pass) => pass,
        };
        if pass == Pass::Keep && at > start {
            return Ok(Walked::Step(Step::Run(start, at)));
        }
        match verdict {
            Verdict::Ready(_) => {
                *status = bytes.get(5).copied().unwrap_or(b'E');
                replies.answered();
                middle.ready = !replies.are_asked();
            }
            Verdict::Answers(_) => {
                if let Some(Reply::Parse { statement, .. }) = replies.front() {
                    statement.accepted.store(true, Ordering::Relaxed);
                }
                replies.answered();
            }
            _ => {}
        }
        let here = header.len.min(bytes.len());
        middle.rest = header.len - here;
        middle.pass = pass;
        at += here;
        if pass == Pass::Keep {
            return Ok(Walked::Kept(at));
        }
        if middle.rest > 0 {
            return Ok(Walked::Step(Step::Run(start, at)));
        }
    }
}

/// Deals with a whole message of which the content matters. `true`: the server now waits for CopyData.
fn look(
    client: &mut Client,
    link: &mut Link,
    replies: &mut Replies,
    seen: &mut Seen,
    message: &[u8],
) -> Result<bool, Fault> {
    let body = &message[frame::HEADER..];
    match message[0] {
        b'S' => drop(pass_status(client, link, message)),
        b'G' => {
            client.outbox.extend_from_slice(message);
            return Ok(true);
        }
        b't' | b'T' | b'n' => describe(client, link, replies, seen, message)?,
        tag @ (b'C' | b's') => {
            if let Some(Reply::Share { asked }) = replies.pop() {
                let complete = (tag == b'C').then(|| CommandComplete::decode(body).ok());
                replies.add_share(complete.flatten().as_ref(), asked);
            }
        }
        _ => {
            let Ok(view) = ErrorView::decode(body) else {
                return Err(Fault::protocol(&link.pool.host, message[0]));
            };
            if view.is_fatal() {
                return Err(Fault::ended(&link.pool.host, &view));
            }
            if let Some(Reply::Query(Pass::Keep) | Reply::Bring | Reply::Ours { .. }) =
                replies.front()
            {
                // The settings that the client's statement, already sent, relies on could not be brought about.
                return Err(Fault::ended(&link.pool.host, &view));
            }
            let stale = view.get(b'R') == Some(b"RevalidateCachedQuery");
            seen.stale |= stale;
            if stale && run_anew(link, replies) {
                return Ok(false);
            }
            link.refused = true;
            seen.error = true;
            seen.failed_at.get_or_insert(replies.front_number());
            let error = error_back(client, link, replies.front(), &view, message);
            client.outbox.extend_from_slice(&error);
            client.undo();
            let mut refused = Vec::new();
            let synced = replies.drop_until_sync(&mut |reply| {
                if let Reply::Parse { name, .. } = reply {
                    refused.push(*name);
                }
            });
            seen.until_sync = !synced;
            if let Some(conn) = &mut link.conn {
                for name in refused {
                    conn.statements.forget(name);
                }
            }
        }
    }
    Ok(false)
}

/// Part of what the server says of a statement: noted, compared with what the client was told, passed on.
fn describe(
    client: &mut Client,
    link: &mut Link,
    replies: &mut Replies,
    seen: &mut Seen,
    message: &[u8],
) -> Result<(), Fault> {
    let Some(Reply::Description(description)) = replies.front_mut() else {
        return Ok(());
    };
    if description.pass == Pass::On {
        client.outbox.extend_from_slice(message);
    }
    if message[0] == b't' {
        description.parameters = message.to_vec();
        return Ok(());
    }
    let described = Described::new(&description.parameters, message);
    let known = &description.statement.described;
    let told = description.told.as_ref();
    let is_as_told = told.is_none_or(|told| told.is_like(&described));
    let is_new = known
        .load()
        .as_ref()
        .is_none_or(|known| !known.is_like(&described));
    if is_new && (is_as_told || known.load().is_none()) {
        known.store(Some(Arc::new(described)));
    }
    if !is_as_told {
        seen.stale = true;
        return Err(Fault::changed(&link.pool.host));
    }
    if let Some(conn) = &mut link.conn {
        conn.statements.note_described(&description.key);
    }
    replies.pop();
    Ok(())
}

/// The tables have changed since the server parsed the statement of the batch's first Bind, of which nothing has been
/// answered yet: it is parsed and all of it sent anew. `false`: that can't be done.
fn run_anew(link: &mut Link, replies: &mut Replies) -> bool {
    let number = replies.front_number();
    let Some(again) = link.again.take_if(|again| again.reply == number) else {
        return false;
    };
    let Prepared::Query(bound) = &*again.statement.prepared else {
        return false;
    };
    if !replies.has_sync() || again.written.len() <= again.from || !link.outbox.is_empty() {
        return false;
    }
    let (statement, mut buf) = (&again.statement, [0; 12]);
    let name = server_name(again.name, &mut buf);
    let mut text = Vec::new();
    match again.shard {
        Some(shard) => rewrite::splice(
            &statement.text,
            &statement.holes,
            &bound.edits,
            link.map.schema(shard),
            &mut text,
        ),
        None => text.extend_from_slice(&statement.text),
    }
    frontend::close(&mut link.outbox, Kind::Statement, name);
    frontend::parse(
        &mut link.outbox,
        name,
        &text,
        statement.types.iter().copied(),
    );
    link.outbox.extend_from_slice(&again.written[again.from..]);
    // Settings that were brought about in front of it are undone with it, and sent anew.
    replies.put_in_front(
        Reply::Parse {
            pass: Pass::Keep,
            name: again.name,
            statement: again.statement.clone(),
            shard: again.shard,
        },
        again.ours,
    );
    true
}

/// Made-up replies at the head of the queue can go out although no server has been asked anything.
pub(crate) fn write_made(client: &mut Client, replies: &mut Replies) {
    while let Some(Reply::Made(_)) = replies.front() {
        if let Some(Reply::Made(made)) = replies.pop() {
            client.make(&made);
        }
    }
}

/// Reads the answers to settings of ours and notes the parameters that the server reports.
pub(crate) async fn learn_parameters(link: &mut Link, replies: &mut Replies) -> Result<(), Fault> {
    loop {
        while let Ok(Some(header)) = frame::header(link.unread())
            && link.unread().len() >= header.len
        {
            let body = &link.unread()[frame::HEADER..header.len];
            match header.tag {
                b'S' => {
                    if let Ok(status) = ParameterStatus::decode(body) {
                        let (name, value) = (
                            String::from_utf8_lossy(status.name).into_owned(),
                            String::from_utf8_lossy(status.value).into_owned(),
                        );
                        if let Some(conn) = &mut link.conn {
                            conn.report(&name, &value);
                        }
                    }
                }
                b'E' => {
                    let Ok(view) = ErrorView::decode(body) else {
                        return Err(Fault::protocol(&link.pool.host, b'E'));
                    };
                    return Err(Fault::refused_setting(&view));
                }
                b'Z' => {
                    link.status = body.first().copied().unwrap_or(b'E');
                    replies.pop();
                }
                _ => {}
            }
            link.take(header.len);
            if replies.is_empty() {
                return Ok(());
            }
        }
        let read = poll_fn(|cx| {
            let _ = link.poll_flush(cx)?;
            poll_fill(cx, link)
        });
        match read.await {
            Ok(0) => return Err(Fault::lost(&link.pool.host, None)),
            Ok(_) => {}
            Err(e) => return Err(Fault::lost(&link.pool.host, Some(e))),
        }
    }
}
