//! One write on several hosts: a lane for each host, whose messages are sent ahead of their answers. Nothing of it goes to
//! the client before all hosts are done: rows are held, as Postgres itself holds those of RETURNING.

use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::task::Poll;

use super::Session;
use super::ends::{Link, poll_link};
use super::errors::Fault;
use super::links::Need;
use super::parameters::pass_status;
use super::relay::{Verdict, error_back, judge};
use super::replies::{Pass, Replies, Reply};
use super::writes::{Parsed, Speaks, Writing};
use crate::shardmap::HostId;
use crate::wire::backend::{CommandComplete, ErrorView};
use crate::wire::error::ErrorFields;
use crate::wire::{frame, frontend};

/// Bytes for one host that are written ahead.
const WINDOW: usize = 256 * 1024;

/// One host's share of a write.
pub(super) struct Lane {
    /// Its place in `Session::links`.
    pub(super) link: usize,
    /// What its host is yet to answer.
    replies: Replies,
    /// Numbers of the parts, in the order in which they run.
    parts: Vec<usize>,
    /// How many of them have been sent, and answered.
    sent: usize,
    answered: usize,
    synced: bool,
    /// The rows that parts gave: whole DataRow messages. None, if there are too many.
    pub(super) rows: Vec<(usize, Vec<u8>)>,
    /// Their bytes, and how many of them may be held.
    held: usize,
    most: usize,
    /// RowDescription.
    pub(super) columns: Vec<u8>,
    /// The command's tag without its number.
    pub(super) command: Box<str>,
    /// Rows by the commands' tags.
    pub(super) count: u64,
    /// The whole statement is being read, before the parts.
    checking: bool,
    /// The ErrorResponse, and how many parts of the whole statement come before what it is about.
    refused: Option<(usize, Vec<u8>)>,
    end: Option<End>,
}

enum End {
    /// ReadyForQuery has come.
    Ready,
    Lost(Fault),
}

/// What the parts are.
pub(super) enum Job<'a> {
    /// Those of a write to several shards.
    Shards(&'a Writing, Speaks),
    /// Texts of our own, by number.
    Texts(&'a [Parsed]),
}

impl Lane {
    fn new(link: usize, replies: Replies, most: usize) -> Lane {
        Lane {
            link,
            replies,
            parts: Vec::new(),
            sent: 0,
            answered: 0,
            synced: false,
            rows: Vec::new(),
            held: 0,
            most,
            columns: Vec::new(),
            command: "".into(),
            count: 0,
            checking: false,
            refused: None,
            end: None,
        }
    }

    /// What it is to do.
    pub(super) fn set_parts(&mut self, parts: Vec<usize>) {
        self.parts = parts;
    }

    pub(super) fn is_done(&self) -> bool {
        self.refused.is_none() && matches!(self.end, Some(End::Ready))
    }

    fn lose(&mut self, fault: Fault, link: &mut Link) {
        link.discard();
        self.end = Some(End::Lost(fault));
    }

    /// What its host refused it with.
    pub(super) fn refusal(&self) -> Option<ErrorFields> {
        let view = ErrorView::decode(self.refused.as_ref()?.1.get(frame::HEADER..)?);
        view.ok().map(|view| view.to_fields())
    }

    /// Of what has not been sent, only the parts before this one are sent.
    pub(super) fn stop_at(&mut self, part: usize) {
        let keep = self.parts.partition_point(|of_lane| *of_lane < part);
        self.parts.truncate(keep.max(self.sent));
    }

    /// Before which part it failed; a lane that is lost comes first.
    pub(super) fn failed_at(&self) -> Option<usize> {
        match (&self.end, &self.refused) {
            (Some(End::Lost(_)), _) => Some(0),
            (_, refused) => refused.as_ref().map(|(at, _)| *at),
        }
    }

    /// The whole statement is read first.
    pub(super) fn check_first(&mut self) {
        self.checking = true;
    }

    fn add_row(&mut self, row: &[u8]) {
        self.held += row.len();
        if self.held > self.most {
            return self.rows.clear();
        }
        let part = self.parts.get(self.answered).copied().unwrap_or_default();
        match self.rows.last_mut() {
            Some((last, rows)) if *last == part => rows.extend_from_slice(row),
            _ => self.rows.push((part, row.to_vec())),
        }
    }
}

impl Session {
    /// Enlists all of these hosts, lowest first. Whatever a host must hear before the statement waits in its outbox.
    pub(super) async fn enlist_lanes(&mut self, hosts: &[HostId]) -> Result<Vec<Lane>, Fault> {
        let own = std::mem::take(&mut self.replies);
        let mut lanes = Vec::with_capacity(hosts.len());
        let mut enlisted = Ok(());
        for host in hosts {
            let need = Need {
                writes: true,
                ..Need::plain(*host)
            };
            match self.link(need).await {
                Ok(link) => {
                    let most = self.map.proxy.limits.gather_bytes;
                    lanes.push(Lane::new(link, std::mem::take(&mut self.replies), most));
                }
                Err(fault) => {
                    enlisted = Err(fault);
                    break;
                }
            }
        }
        self.replies = own;
        if let Err(fault) = enlisted {
            self.run_lanes(&mut lanes, &Job::Texts(&[])).await;
            self.forget_unlinked_writers();
            return Err(fault);
        }
        Ok(lanes)
    }

    /// Does something that writes to a lane's link and notes what it will be answered.
    pub(super) fn in_lane<T>(
        &mut self,
        lane: &mut Lane,
        push: impl FnOnce(&mut Session) -> T,
    ) -> T {
        std::mem::swap(&mut self.replies, &mut lane.replies);
        let pushed = push(self);
        std::mem::swap(&mut self.replies, &mut lane.replies);
        pushed
    }

    /// Runs lanes side by side until each of their hosts is ready for more.
    pub(super) async fn run_lanes(&mut self, lanes: &mut [Lane], job: &Job<'_>) {
        loop {
            for lane in lanes.iter_mut().filter(|lane| lane.end.is_none()) {
                self.hear_lane(lane);
                self.fill_lane(lane, job);
            }
            // Postgres takes the rows in their order: of several errors the one of the first part counts.
            if let Some(part) = lanes.iter().filter_map(Lane::failed_at).min() {
                lanes.iter_mut().for_each(|lane| lane.stop_at(part));
            }
            if lanes.iter().all(|lane| lane.end.is_some()) {
                return;
            }
            self.lanes_stir(lanes).await;
        }
    }

    /// Waits until some host has said something, or takes more.
    async fn lanes_stir(&mut self, lanes: &mut [Lane]) {
        let links = &mut self.links;
        poll_fn(|cx| {
            let mut some = false;
            for lane in lanes.iter_mut().filter(|lane| lane.end.is_none()) {
                let link = &mut links[lane.link];
                let full = !link.outbox.is_empty();
                let polled = poll_link(cx, link);
                some |= full && link.outbox.is_empty() && !lane.synced;
                match polled {
                    Poll::Pending => continue,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(cause)) => {
                        lane.lose(Fault::lost(&link.pool.host, cause), link);
                    }
                }
                some = true;
            }
            match some {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Writes the next parts for a lane's host.
    fn fill_lane(&mut self, lane: &mut Lane, job: &Job<'_>) {
        while lane.end.is_none() && self.links[lane.link].outbox.len() < WINDOW {
            let Some(part) = lane.parts.get(lane.sent).copied() else {
                if !std::mem::replace(&mut lane.synced, true) {
                    frontend::sync(&mut self.links[lane.link].outbox);
                    lane.replies.push(Reply::Sync(Pass::Keep));
                }
                return;
            };
            lane.sent += 1;
            let i = lane.link;
            let pushed = self.in_lane(lane, |session| match job {
                Job::Shards(writing, speaks) => session.push_part(i, writing, part, *speaks),
                Job::Texts(texts) => {
                    session.push_parsed(i, &texts[part]);
                    Ok(())
                }
            });
            if let Err(fault) = pushed {
                lane.lose(fault, &mut self.links[i]);
            }
        }
    }

    /// Deals with the whole messages that have come.
    fn hear_lane(&mut self, lane: &mut Lane) {
        while lane.end.is_none() {
            let link = &self.links[lane.link];
            let len = match frame::header(link.unread()) {
                Ok(Some(header)) if link.unread().len() >= header.len => header.len,
                Ok(_) => return,
                Err(_) => {
                    let link = &mut self.links[lane.link];
                    return lane.lose(Fault::protocol(&link.pool.host, 0), link);
                }
            };
            let message = link.unread()[..len].to_vec();
            self.links[lane.link].take(len);
            self.hear_message(lane, &message);
        }
    }

    fn hear_message(&mut self, lane: &mut Lane, message: &[u8]) {
        let link = &mut self.links[lane.link];
        let (tag, body) = (message[0], &message[frame::HEADER..]);
        let Some(owed) = lane.replies.front() else {
            // The server was told to go while it had nothing to do. A warning may come before that.
            if tag == b'N' {
                return;
            }
            let fault = match ErrorView::decode(body) {
                Ok(view) if tag == b'E' => Fault::ended(&link.pool.host, &view),
                _ => Fault::protocol(&link.pool.host, tag),
            };
            return lane.lose(fault, link);
        };
        match judge(tag, owed) {
            // What the block has said elsewhere already.
            Verdict::Pass(_) if is_setting(owed) => {}
            Verdict::Pass(_) if matches!(tag, b'N' | b'A') => {
                self.client.outbox.extend_from_slice(message);
            }
            Verdict::Pass(Pass::Keep) => {}
            Verdict::Pass(Pass::On) => lane.add_row(message),
            Verdict::Answers(pass) => {
                if tag == b'T' && pass == Pass::On {
                    lane.columns = message.to_vec();
                }
                if let Some(Reply::Parse { statement, .. }) = lane.replies.pop() {
                    lane.checking = false;
                    statement.accepted.store(true, Ordering::Relaxed);
                }
            }
            Verdict::Ready(_) => {
                link.status = body.first().copied().unwrap_or(b'E');
                lane.replies.pop();
                if lane.synced && lane.replies.is_empty() {
                    link.unsynced = false;
                    lane.end = Some(End::Ready);
                }
            }
            Verdict::Look => self.look_in_lane(lane, message),
            Verdict::Unexpected => lane.lose(Fault::protocol(&link.pool.host, tag), link),
        }
    }

    /// A message of which the content matters.
    fn look_in_lane(&mut self, lane: &mut Lane, message: &[u8]) {
        let link = &mut self.links[lane.link];
        let body = &message[frame::HEADER..];
        match message[0] {
            b'S' => {
                if !pass_status(&mut self.client, link, message) {
                    lane.lose(Fault::protocol(&link.pool.host, b'S'), link);
                }
            }
            b'C' => {
                lane.replies.pop();
                lane.answered += 1;
                if let Ok(complete) = CommandComplete::decode(body) {
                    lane.count += complete.rows().unwrap_or(0);
                    lane.command = String::from_utf8_lossy(complete.command()).into();
                }
            }
            b'E' => {
                let Ok(view) = ErrorView::decode(body) else {
                    return lane.lose(Fault::protocol(&link.pool.host, b'E'), link);
                };
                let setting = lane.replies.front().is_some_and(is_setting);
                if view.is_fatal() || setting {
                    return lane.lose(Fault::ended(&link.pool.host, &view), link);
                }
                let error = error_back(&self.client, link, lane.replies.front(), &view, message);
                let part = lane.parts.get(lane.answered).copied();
                let at = part.filter(|_| !lane.checking).unwrap_or(0);
                lane.refused.get_or_insert((at, error));
                self.client.undo();
                let mut refused = Vec::new();
                lane.replies.drop_until_sync(&mut |reply| {
                    if let Reply::Parse { name, .. } = reply {
                        refused.push(*name);
                    }
                });
                if let Some(conn) = &mut link.conn {
                    refused
                        .iter()
                        .for_each(|name| conn.statements.forget(*name));
                }
                lane.stop_at(0);
            }
            tag => lane.lose(Fault::protocol(&link.pool.host, tag), link),
        }
    }

    /// What the lanes have come to. `Ok(true)`: all of them are done; `false`: one was refused, and the client has the
    /// error of the first such.
    pub(super) fn lanes_done(&mut self, lanes: &mut [Lane]) -> Result<bool, Fault> {
        let most = self.map.proxy.limits.gather_bytes;
        let held: usize = lanes.iter().map(|lane| lane.held).sum();
        let lost = lanes.iter().any(|l| matches!(l.end, Some(End::Lost(_))));
        let failed = lanes.iter_mut().filter(|lane| !lane.is_done());
        let Some(failed) = failed.min_by_key(|lane| lane.failed_at()) else {
            return match held > most {
                true => Err(Fault::limit(
                    &format!("the rows that a write on several hosts returns take {held} bytes"),
                    "gather_bytes",
                    most as u64,
                )),
                false => Ok(true),
            };
        };
        if let Some(block) = &mut self.block {
            block.failed = true;
            block.lost |= lost;
        }
        if lost {
            self.drop_lost();
        }
        if let Some(End::Lost(fault)) = failed.end.take() {
            self.context.stats.server_lost();
            return Err(match fault {
                Fault::Server(fields) => Fault::Statement(fields),
                fault => fault,
            });
        }
        self.context.stats.server_error();
        let (_, error) = failed.refused.take().unwrap_or_default();
        self.client.outbox.extend_from_slice(&error);
        Ok(false)
    }
}

/// Whether it is the reply to something of ours that what follows relies on.
fn is_setting(owed: &Reply) -> bool {
    matches!(
        owed,
        Reply::Query(Pass::Keep) | Reply::Bring | Reply::Ours { .. }
    )
}
