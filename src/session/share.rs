//! Short reads over shared server connections (`[proxy] shared_connections`): which statements may go over one, and what
//! becomes of one that had to wait behind another client's for too long. It is run anew, on a connection of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::context::{Prepared, Statement};
use super::errors::Fault;
use super::{Go, Session};
use crate::shardmap::{PoolMode, ShardId};
use crate::wire::frame::{self, Header};
use crate::wire::frontend::Execute;
use crate::wire::shared::Took;
use crate::wire::stream::Stream;

/// A longer request goes over a connection of its own.
const REQUEST_MOST: usize = 8 * 1024;
/// For so many seconds a statement that others had to wait for goes over connections of its own.
const SLOW_FOR: u64 = 60;

/// An execution that takes long counts as much as so many that do not; a statement that has so many more of them is slow.
const LONG_COUNTS: u32 = 16;
const LONG_MOST: u32 = 5 * LONG_COUNTS;

/// A statement that is under way on a shared connection, and what is needed to send it anew.
pub(super) struct Riding {
    what: Rides,
    /// Where its first message begins in the client's inbox.
    from: usize,
    /// The number of the reply to that.
    reply: u64,
}

enum Rides {
    Query(Arc<Prepared>),
    Statement(Arc<Statement>),
}

impl Rides {
    fn prepared(&self) -> &Prepared {
        match self {
            Rides::Query(prepared) => prepared,
            Rides::Statement(statement) => &statement.prepared,
        }
    }
}

/// Whether a statement is one that others would have to wait for.
#[derive(Debug, Default)]
pub(crate) struct Slow {
    /// When it was last found to be. Seconds since 1970; 0: never.
    since: AtomicU64,
    /// How many executions of late took long, more or less: see [`Slow::note`].
    score: AtomicU32,
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |now| now.as_secs())
}

impl Slow {
    fn is(&self) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        since > 0 && now().saturating_sub(since) < SLOW_FOR
    }

    /// It was executed. One that others had to wait for too long is slow at once, others if more than about one execution in
    /// [`LONG_COUNTS`] takes long: now and then one does on any busy machine.
    fn note(&self, took: Took) {
        let score = self.score.load(Ordering::Relaxed);
        let score = match took {
            Took::Short if score == 0 => return,
            Took::Short => score - 1,
            Took::Long => score + LONG_COUNTS,
            Took::TooLong => LONG_MOST,
        };
        if score >= LONG_MOST {
            self.since.store(now(), Ordering::Relaxed);
        }
        self.score.store(score % LONG_MOST, Ordering::Relaxed);
    }
}

impl Prepared {
    /// Whether it may go over a shared connection: on one shard, its text as it is and nothing of its session's needed but
    /// settings, and done again without harm.
    fn may_ride(&self, shard: Option<ShardId>, path: Option<ShardId>) -> bool {
        match self {
            Prepared::Query(routed) => {
                routed.repeatable
                    && shard.is_some()
                    && path.is_none()
                    && !routed.sets_config
                    && !routed.notifies
                    && !routed.holds
                    && !routed.temporary
                    && !routed.slow.is()
            }
            _ => false,
        }
    }
}

impl Session {
    /// Whether statements of the session may go over shared connections just now.
    fn may_ride(&mut self) -> bool {
        self.map.proxy.shared_connections > 0
            && self.map.proxy.pool_mode == PoolMode::Transaction
            && self.block.is_none()
            && self.links.is_empty()
            && self.temporary.is_none()
            && self.pinned_host().is_none()
            && !std::mem::take(&mut self.rides_not)
    }

    /// Whether the Query of `len` bytes at the front of the inbox may.
    pub(super) fn query_rides(
        &mut self,
        prepared: &Arc<Prepared>,
        shard: Option<ShardId>,
        path: Option<ShardId>,
        len: usize,
    ) -> bool {
        let rides = self.may_ride() && len <= REQUEST_MOST && prepared.may_ride(shard, path);
        self.riding = rides.then(|| self.riding(Rides::Query(prepared.clone())));
        rides
    }

    /// Whether what begins with the Bind of `len` bytes at the front of the inbox may: all of it up to its Sync is there, and it
    /// is nothing but one statement that is run to its end.
    pub(super) fn batch_rides(
        &mut self,
        statement: &Arc<Statement>,
        shard: Option<ShardId>,
        path: Option<ShardId>,
        len: usize,
    ) -> bool {
        let rides = self.may_ride()
            && statement.prepared.may_ride(shard, path)
            && self.batch.is_fresh()
            && !self.replies.are_asked()
            && is_one_statement(self.client.pending(), len);
        self.riding = rides.then(|| self.riding(Rides::Statement(statement.clone())));
        rides
    }

    fn riding(&self, what: Rides) -> Riding {
        Riding {
            what,
            from: self.client.read,
            reply: self.replies.next_number(),
        }
    }

    /// A statement that was under way on a shared connection has come to its end.
    pub(super) fn has_ridden(&mut self) {
        let Some(riding) = self.riding.take() else {
            return;
        };
        if let Some(Stream::Seat(seat)) = self.active_stream()
            && let Prepared::Query(routed) = riding.what.prepared()
        {
            routed.slow.note(seat.begin_anew());
        }
    }

    fn active_stream(&self) -> Option<&Stream> {
        let link = self.links.get(self.active)?;
        Some(&link.conn.as_ref()?.stream)
    }

    /// Whether the statement under way is to be sent anew.
    pub(super) fn is_displaced(&self) -> bool {
        self.riding.is_some()
            && matches!(self.active_stream(), Some(Stream::Seat(seat)) if seat.is_displaced())
    }

    /// Sends the statement under way anew, over a connection of its own: the client has got nothing of its answer yet.
    /// `header`: of the message that it was sent with.
    pub(super) async fn ride_not(&mut self, header: Header) -> Result<Go, Fault> {
        if self.cancel.leave().is_none() {
            self.cancel.landed().await;
            if !self.is_displaced() {
                // The cancel has come in time: that is the answer.
                return Box::pin(self.relay_message(header)).await;
            }
            self.cancel.leave();
        }
        let Some(riding) = self.riding.take() else {
            return Ok(true);
        };
        let parsed = self.replies.cut(riding.reply);
        let mut link = self.links.remove(self.active);
        self.active = 0;
        if let Some(mut conn) = link.conn.take() {
            parsed.iter().for_each(|name| conn.statements.doubt(*name));
            if let Stream::Seat(seat) = &conn.stream {
                seat.begin_anew();
            }
            link.pool.release(conn);
        }
        if header.tag == b'Q' {
            return self.message(header).await;
        }
        self.rides_not = true;
        self.statements.portals.forget_unnamed();
        (self.batch.executed, self.batch.now) = (false, 0);
        self.client.read = riding.from;
        Ok(true)
    }
}

/// Whether it is Bind, perhaps Describe, Execute of all rows, all of the portal without a name, and Sync. `len`: of the Bind.
fn is_one_statement(pending: &[u8], len: usize) -> bool {
    if pending.len() > REQUEST_MOST || pending.get(frame::HEADER) != Some(&0) {
        return false;
    }
    let mut rest = pending.get(len..).unwrap_or_default();
    let mut next = || {
        let header = frame::header(rest).ok().flatten()?;
        let (message, behind) = rest.split_at_checked(header.len)?;
        rest = behind;
        Some((header.tag, &message[frame::HEADER..]))
    };
    let mut message = next();
    if let Some((b'D', body)) = message {
        if body != b"P\0" {
            return false;
        }
        message = next();
    }
    let Some((b'E', body)) = message else {
        return false;
    };
    let whole = |execute: Execute<'_>| execute.portal.is_empty() && execute.max_rows == 0;
    Execute::decode(body).is_ok_and(whole) && matches!(next(), Some((b'S', []))) && rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frontend::{self, Kind};

    fn batch(portal: &[u8], describes: bool, rows: i32) -> (Vec<u8>, usize) {
        let mut out = Vec::new();
        frontend::bind(&mut out, portal, b"s", &[(0, Some(b"1"))], [0].into_iter());
        let len = out.len();
        if describes {
            frontend::describe(&mut out, Kind::Portal, portal);
        }
        frontend::execute(&mut out, portal, rows);
        frontend::sync(&mut out);
        (out, len)
    }

    #[test]
    fn a_statement_is_slow_that_often_takes_long() {
        let run = |longs: &[u32]| {
            let slow = Slow::default();
            for (n, long) in (0..1000).zip(longs.iter().cycle()) {
                slow.note(if n % long == 0 {
                    Took::Long
                } else {
                    Took::Short
                });
            }
            slow.is()
        };
        assert!(run(&[1]) && run(&[2]) && run(&[10]));
        assert!(!run(&[20]) && !run(&[100]));
        let slow = Slow::default();
        slow.note(Took::TooLong);
        assert!(slow.is());
    }

    #[test]
    fn a_batch_is_one_statement_or_is_not() {
        for describes in [true, false] {
            let (out, len) = batch(b"", describes, 0);
            assert!(is_one_statement(&out, len));
            for end in 0..out.len() {
                assert!(!is_one_statement(&out[..end], len), "{end} bytes");
            }
            assert!(!is_one_statement(&[&out[..], b"S\0\0\0\x04"].concat(), len));
            let (out, len) = batch(b"p", describes, 0);
            assert!(!is_one_statement(&out, len), "a portal with a name");
            let (out, len) = batch(b"", describes, 1);
            assert!(!is_one_statement(&out, len), "some of the rows");
        }
    }
}
