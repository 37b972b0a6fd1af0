//! Rows on their way to the shards of a host: held by shard, sent as one COPY per shard after the other, since a
//! server connection has but one at a time. Rows of a shard keep their order.

use std::collections::VecDeque;

use super::context::Lines;
use super::data::Raw;
use crate::shardmap::{HostId, ShardId, ShardMap};
use crate::sql::copy::Row;
use crate::wire::frontend;

/// Bytes of data in one message to the server.
const PIECE: usize = 128 * 1024;
/// What the present COPY's own rows come to before they are sent on at once.
const ENOUGH: usize = 64 * 1024;
/// What may wait beyond that for a server that has not yet taken what was sent.
const AHEAD: usize = 256 * 1024;
/// What is held for each shard on average: with a quarter of it, rows take a third longer, for a server has so many more COPYs.
const SHARE: usize = 256 * 1024;
/// What a run of lines takes.
const RUN: usize = 16;

/// Rows of one shard that are held.
#[derive(Default)]
struct Held {
    data: Vec<u8>,
    lines: Lines,
    /// What they count for.
    bytes: usize,
}

/// A COPY on the server that is not known to be done.
#[derive(Default)]
pub(super) struct Segment {
    pub(super) lines: Lines,
    /// What every COPY's data begins with has been sent.
    headed: bool,
}

/// What is sent to a host.
pub(super) struct Feed {
    pub(super) host: HostId,
    /// Its place in `Session::links`.
    pub(super) link: usize,
    /// Rows go to it; else it was only asked what it makes of the statement.
    pub(super) chosen: bool,
    /// Rows of its COPYs that are done.
    pub(super) rows: u64,
    /// ReadyForQuery has come.
    pub(super) ready: bool,
    /// By shard: where in `held` its rows are, counted from 1; 0: it has got none.
    places: Vec<u32>,
    held: Vec<(ShardId, Held)>,
    /// Where the last row went.
    last: usize,
    /// What is held in all.
    pub(super) bytes: usize,
    /// The shard whose COPY is open on the server.
    pub(super) open: Option<ShardId>,
    /// COPYs without an answer yet, oldest first; the last is the open one.
    pub(super) segments: VecDeque<Segment>,
    /// The rest of what is being sent.
    sending: Vec<u8>,
    sent: usize,
    /// What every COPY's data begins with: the line of column names, or the head of binary data; and its lines.
    head: Vec<u8>,
    head_row: Option<Row>,
}

/// Whether rows may wait for more of their shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// While no more than this many bytes are held.
    Below(usize),
    /// No: all goes out.
    None,
}

impl Feed {
    /// For `host`, on which the COPY of `open` has been begun.
    pub(super) fn new(host: HostId, link: usize, open: ShardId) -> Feed {
        Feed {
            host,
            link,
            chosen: false,
            rows: 0,
            ready: false,
            places: Vec::new(),
            held: Vec::new(),
            last: 0,
            bytes: 0,
            open: Some(open),
            segments: VecDeque::from([Segment::default()]),
            sending: Vec::new(),
            sent: 0,
            head: Vec::new(),
            head_row: None,
        }
    }

    fn set_head(&mut self, head: &[u8], row: Option<Row>) {
        self.head = head.to_vec();
        self.head_row = row;
    }

    /// Whether rows of this shard have come before. The next row is then one of it.
    #[inline]
    fn turn_to(&mut self, shard: ShardId) -> bool {
        if self.is_at(shard) {
            return true;
        }
        match self.place(shard) {
            Some(at) => {
                self.last = at;
                true
            }
            None => false,
        }
    }

    /// Where in `held` this shard's rows are.
    #[inline]
    fn place(&self, shard: ShardId) -> Option<usize> {
        let place = *self.places.get(shard.0 as usize)?;
        (place as usize).checked_sub(1)
    }

    #[inline]
    fn is_at(&self, shard: ShardId) -> bool {
        self.held.get(self.last).is_some_and(|(s, _)| *s == shard)
    }

    /// The first row of this shard is to come.
    fn add(&mut self, shard: ShardId) {
        self.last = self.held.len();
        self.held.push((shard, Held::default()));
        let shard = shard.0 as usize;
        if self.places.len() <= shard {
            self.places.resize(shard + 1, 0);
        }
        self.places[shard] = self.held.len() as u32;
    }

    /// A row, of the shard last turned to.
    #[inline]
    fn push(&mut self, bytes: &[u8], line: u64, row: &Row) {
        let Some((_, held)) = self.held.get_mut(self.last) else {
            return;
        };
        let before = held.bytes;
        held.data.extend_from_slice(bytes);
        held.bytes += bytes.len();
        if held.lines.push(line, row) {
            held.bytes += RUN;
        }
        self.bytes += held.bytes - before;
    }

    /// Writes the next piece for the server, if one is due. The COPY of which shard must be begun in front of it, if
    /// not the open one's: `begin` writes that.
    pub(super) fn write(
        &mut self,
        outbox: &mut Vec<u8>,
        hold: Hold,
        mut begin: impl FnMut(&mut Vec<u8>, ShardId),
    ) -> bool {
        if self.sent == self.sending.len() {
            let Some(next) = self.due(hold) else {
                return false;
            };
            let shard = self.held[next].0;
            let goes_on = self.open == Some(shard);
            if !goes_on {
                self.close(outbox);
                begin(outbox, shard);
                self.open = Some(shard);
                self.segments.push_back(Segment::default());
            }
            self.write_head(outbox);
            let mut held = std::mem::take(&mut self.held[next].1);
            self.bytes = self.bytes - held.bytes + held.data.len();
            if let Some(segment) = self.segments.back_mut() {
                segment.lines.append(&held.lines);
            }
            std::mem::swap(&mut self.sending, &mut held.data);
            self.sent = 0;
            if goes_on {
                // Its next rows take the room of those before.
                held.data.clear();
                self.held[next].1.data = held.data;
            }
        }
        let end = self.sending.len().min(self.sent + PIECE);
        frontend::copy_data(outbox, &self.sending[self.sent..end]);
        self.bytes -= end - self.sent;
        self.sent = end;
        if end == self.sending.len() {
            self.sending.clear();
            self.sent = 0;
        }
        true
    }

    /// Which shard's rows are sent next.
    fn due(&self, hold: Hold) -> Option<usize> {
        let open = self.open.and_then(|open| self.place(open));
        let most = match hold {
            Hold::Below(most) => most,
            Hold::None => 0,
        };
        let enough = if hold == Hold::None { 1 } else { ENOUGH };
        if let Some(open) = open
            && self.held[open].1.data.len() >= enough
        {
            return Some(open);
        }
        if self.bytes <= most {
            return None;
        }
        // The largest, so that as few COPYs as possible are begun.
        let sizes = self.held.iter().enumerate();
        let largest = sizes.max_by_key(|(_, (_, held))| held.data.len())?;
        (!largest.1.1.data.is_empty()).then_some(largest.0)
    }

    fn write_head(&mut self, outbox: &mut Vec<u8>) {
        if let Some(segment) = self.segments.back_mut()
            && !std::mem::replace(&mut segment.headed, true)
            && !self.head.is_empty()
        {
            frontend::copy_data(outbox, &self.head);
            if let Some(row) = &self.head_row {
                segment.lines.push(1, row);
            }
        }
    }

    /// Writes what no shard can be told of into the open COPY.
    pub(super) fn write_odd(&mut self, outbox: &mut Vec<u8>, raw: &Raw, line: u64) {
        self.write_head(outbox);
        for piece in raw.bytes.chunks(PIECE) {
            frontend::copy_data(outbox, piece);
        }
        if let Some(segment) = self.segments.back_mut() {
            let mut lines = Lines::default();
            lines.push(line, &raw.row);
            segment.lines.append(&lines);
        }
    }

    /// Whether more is to be written now.
    pub(super) fn is_due(&self, hold: Hold) -> bool {
        self.is_sending() || self.due(hold).is_some()
    }

    /// Whether the server is so far behind that the client has to wait for it.
    fn is_ahead(&self, hold: Hold) -> bool {
        matches!(hold, Hold::Below(most) if self.bytes > most + AHEAD)
    }

    /// Whether what is being sent has gone only in part.
    pub(super) fn is_sending(&self) -> bool {
        self.sent < self.sending.len()
    }

    /// Ends the open COPY.
    pub(super) fn close(&mut self, outbox: &mut Vec<u8>) {
        if let Some(open) = self.open.take() {
            if let Some(at) = self.place(open) {
                // Shards whose turn is over hold no room that they do not need.
                self.held[at].1.data.shrink_to_fit();
            }
            // Also without rows: the server is to see whether the head is right.
            self.write_head(outbox);
            frontend::copy_done(outbox);
        }
    }

    /// The server has done its oldest COPY.
    pub(super) fn done(&mut self) {
        self.segments.pop_front();
    }
}

/// The feeds of all hosts that rows go to.
pub(super) struct Feeds {
    /// At least one. In the order in which their hosts were found to be needed.
    pub(super) all: Vec<Feed>,
    /// Every row goes to all of them.
    pub(super) mirror: bool,
    /// The one that the last row went to.
    last: usize,
    head: Vec<u8>,
    head_row: Option<Row>,
}

impl Feeds {
    pub(super) fn new(first: Feed) -> Feeds {
        Feeds {
            all: vec![first],
            mirror: false,
            last: 0,
            head: Vec::new(),
            head_row: None,
        }
    }

    pub(super) fn first(&mut self) -> &mut Feed {
        &mut self.all[0]
    }

    pub(super) fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// What every COPY's data begins with, and its lines.
    pub(super) fn set_head(&mut self, head: &[u8], row: Option<Row>) {
        (self.head, self.head_row) = (head.to_vec(), row);
        for feed in &mut self.all {
            feed.set_head(head, row);
        }
    }

    /// One host more.
    pub(super) fn add(&mut self, mut feed: Feed) {
        feed.set_head(&self.head, self.head_row);
        self.all.push(feed);
    }

    /// Another host than that of the first feed, which has got no rows.
    pub(super) fn replace(&mut self, feed: Feed) {
        self.all.clear();
        self.add(feed);
    }

    /// The next row is one of this shard. `false`: its host is still to be asked for.
    #[inline]
    pub(super) fn turn_to(&mut self, shard: ShardId, map: &ShardMap) -> bool {
        if self.all[self.last.min(self.all.len() - 1)].is_at(shard) {
            return true;
        }
        if self.mirror {
            self.all.iter_mut().for_each(|feed| {
                if !feed.turn_to(shard) {
                    feed.add(shard);
                }
            });
            return true;
        }
        let host = map.owner(shard);
        let Some(at) = self.all.iter().position(|f| f.chosen && f.host == host) else {
            return false;
        };
        self.last = at;
        if !self.all[at].turn_to(shard) {
            self.all[at].add(shard);
        }
        true
    }

    /// A row, of the shard last turned to.
    #[inline]
    pub(super) fn push(&mut self, bytes: &[u8], line: u64, row: &Row) {
        match self.mirror {
            true => self.all.iter_mut().for_each(|f| f.push(bytes, line, row)),
            false => self.all[self.last].push(bytes, line, row),
        }
    }

    /// What is held in all.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.all.iter().map(|feed| feed.bytes).sum()
    }

    /// How long rows wait for more of their shard, if no more than `most` bytes may be held.
    pub(super) fn hold(&self, most: usize) -> Hold {
        Hold::Below((SHARE * self.shards()).min(most / 2))
    }

    /// Whether a server is so far behind that the client has to wait for it.
    pub(super) fn are_ahead(&self, hold: Hold) -> bool {
        let hold = self.share(hold);
        self.all.iter().any(|feed| feed.is_ahead(hold))
    }

    /// What each feed may hold if all together may hold so much.
    pub(super) fn share(&self, hold: Hold) -> Hold {
        match hold {
            Hold::Below(most) => Hold::Below(most / self.all.len()),
            Hold::None => Hold::None,
        }
    }

    /// How many shards have got rows.
    pub(super) fn shards(&self) -> usize {
        self.all.iter().map(|feed| feed.held.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame;

    /// What was written, message by message.
    fn said(outbox: &[u8]) -> Vec<String> {
        let (mut at, mut said) = (0, Vec::new());
        while let Ok(Some(header)) = frame::header(&outbox[at..]) {
            let body = &outbox[at + frame::HEADER..at + header.len];
            said.push(format!(
                "{}{}",
                char::from(header.tag),
                String::from_utf8_lossy(body)
            ));
            at += header.len;
        }
        said
    }

    fn written(feed: &mut Feed, hold: Hold) -> Vec<String> {
        let mut out = Vec::new();
        let begin = |out: &mut Vec<u8>, shard: ShardId| {
            frame::put(out, b'P', |out| out.extend(shard.0.to_string().bytes()));
        };
        while feed.write(&mut out, hold, begin) {}
        said(&out)
    }

    fn row(feed: &mut Feed, shard: u32, row: &str, line: u64) {
        if !feed.turn_to(ShardId(shard)) {
            feed.add(ShardId(shard));
        }
        let len = row.len();
        let of_one_line = Row {
            len,
            body: len,
            lines: 1,
            lines_if_first: 1,
        };
        feed.push(row.as_bytes(), line, &of_one_line);
    }

    #[test]
    fn rows_wait_until_too_much_is_held_and_the_largest_goes_first() {
        let mut feed = Feed::new(HostId(0), 0, ShardId(1));
        let names = Row {
            len: 6,
            body: 5,
            lines: 1,
            lines_if_first: 1,
        };
        feed.set_head(b"names\n", Some(names));
        row(&mut feed, 1, "a\n", 2);
        row(&mut feed, 2, "bbb\n", 3);
        row(&mut feed, 3, "c\n", 4);
        row(&mut feed, 2, "b\n", 5);
        assert_eq!(written(&mut feed, Hold::Below(1000)), [""; 0]);
        assert_eq!(
            written(&mut feed, Hold::Below(50)),
            ["dnames\n", "c", "P2", "dnames\n", "dbbb\nb\n"]
        );
        // What the server calls lines 2 and 3 are 3 and 5.
        let lines = &feed.segments[1].lines;
        assert_eq!([lines.back(1), lines.back(2), lines.back(3)], [1, 3, 5]);
        row(&mut feed, 2, "b2\n", 6);
        // The open one's go on without a new COPY.
        assert_eq!(
            written(&mut feed, Hold::None),
            [
                "db2\n", "c", "P3", "dnames\n", "dc\n", "c", "P1", "dnames\n", "da\n"
            ]
        );
        assert_eq!((feed.bytes, feed.segments.len()), (0, 4));
        let mut end = Vec::new();
        feed.close(&mut end);
        assert_eq!(said(&end), ["c"]);
    }

    #[test]
    fn much_of_one_shard_goes_out_in_pieces() {
        let mut feed = Feed::new(HostId(0), 0, ShardId(1));
        let long = "x".repeat(PIECE + 10);
        row(&mut feed, 1, &long, 1);
        let said = written(&mut feed, Hold::Below(1 << 30));
        let lens: Vec<usize> = said.iter().map(String::len).collect();
        assert_eq!((lens, feed.bytes), (vec![PIECE + 1, 11], 0));
    }
}
