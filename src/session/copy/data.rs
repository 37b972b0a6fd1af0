//! The client's COPY data between its coming and its being given to the shards.

use std::sync::Arc;

use super::feed::Feeds;
use crate::route::{CopyIn, Refusal, RowFault, RowReader};
use crate::shardmap::{HostId, ShardId, ShardMap};
use crate::sql::copy::{Format, Header, LineFault, NoHead, Row, Splitter, Step};
use crate::wire::error::{ErrorFields, SqlState};

/// Data that has come and is not cut into rows yet.
#[derive(Default)]
pub(super) struct Data {
    bytes: Vec<u8>,
    /// Up to here it is.
    at: usize,
    /// What of the present CopyData has yet to come.
    pub(super) coming: usize,
    /// The client has said that all is there.
    pub(super) whole: bool,
    /// The end marker has come: what follows does not count.
    ended: bool,
    /// Lines cut.
    pub(super) lines: u64,
    /// The line of column names, or the head of binary data, has been seen.
    headed: bool,
    /// A row that was found and has not been given to the feed yet.
    found: Option<Row>,
}

/// What cuts it.
pub(super) struct Cutter {
    pub(super) splitter: Splitter,
    pub(super) map: Arc<ShardMap>,
    pub(super) only: Option<ShardId>,
    /// Text keys must be ASCII.
    pub(super) ascii: bool,
    /// The most bytes held.
    pub(super) most: usize,
}

/// Where cutting stopped.
pub(super) enum Cut {
    /// More must come.
    More,
    /// There are no more rows.
    End,
    /// As much is held as may be.
    Full,
    /// The next row goes to this host, and is the first to go there.
    Host(HostId),
    Bad(Bad),
}

/// What can't be taken.
pub(super) struct Bad {
    pub(super) fields: Box<ErrorFields>,
    /// The server is to be asked first, about all rows before and then about this.
    pub(super) raw: Option<Raw>,
}

/// Bytes that no shard can be told of, and the row that they are, as far as they are one.
pub(super) struct Raw {
    pub(super) bytes: Vec<u8>,
    pub(super) row: Row,
}

impl Raw {
    fn broken(bytes: &[u8]) -> Raw {
        Raw {
            bytes: bytes.to_vec(),
            row: Row {
                len: bytes.len(),
                body: bytes.len(),
                lines: 1,
                lines_if_first: 1,
            },
        }
    }
}

impl Bad {
    pub(super) fn refusal(refusal: Refusal) -> Bad {
        Bad {
            fields: Box::new(refusal.into()),
            raw: None,
        }
    }
}

impl Data {
    /// More of it. Nothing is kept of what does not count.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        if !self.ended {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Gives rows to the feeds.
    pub(super) fn cut(&mut self, cutter: &mut Cutter, copy: &CopyIn, feeds: &mut Feeds) -> Cut {
        let cut = loop {
            if let Some(cut) = self.cut_one(cutter, copy, feeds) {
                break cut;
            }
        };
        self.bytes.drain(..self.at);
        self.at = 0;
        cut
    }

    /// One row; why there is none, if there is none.
    #[inline]
    fn cut_one(&mut self, cutter: &mut Cutter, copy: &CopyIn, feeds: &mut Feeds) -> Option<Cut> {
        if let Some(row) = self.found.take() {
            return self.place(row, cutter, copy, feeds);
        }
        if self.ended {
            self.at = self.bytes.len();
            return Some(if self.whole { Cut::End } else { Cut::More });
        }
        let rest = &self.bytes[self.at..];
        if !self.headed && copy.options.format == Format::Binary {
            return self.cut_head(cutter, copy, feeds);
        }
        match cutter.splitter.next(rest, self.whole) {
            Step::Row(row) if row.len > cutter.most => {
                Some(Cut::Bad(self.too_long(cutter.most, copy)))
            }
            Step::Row(row) if !self.headed && copy.options.header != Header::No => {
                feeds.set_head(&rest[..row.len], Some(row));
                self.headed = true;
                self.pass(row);
                None
            }
            Step::Row(row) => self.place(row, cutter, copy, feeds),
            Step::More if rest.len() > cutter.most => {
                Some(Cut::Bad(self.too_long(cutter.most, copy)))
            }
            Step::More if !self.whole => Some(Cut::More),
            Step::End => {
                self.ended = true;
                None
            }
            Step::Bad(fault) => Some(Cut::Bad(self.line_fault(fault, copy))),
            Step::More | Step::Broken => Some(Cut::Bad(self.broken(copy))),
        }
    }

    fn cut_head(&mut self, cutter: &Cutter, copy: &CopyIn, feeds: &mut Feeds) -> Option<Cut> {
        let rest = &self.bytes[self.at..];
        match cutter.splitter.head(rest) {
            Ok(Some(len)) => {
                feeds.set_head(&rest[..len], None);
                self.headed = true;
                self.at += len;
                None
            }
            Ok(None) if rest.len() > cutter.most => {
                Some(Cut::Bad(self.too_long(cutter.most, copy)))
            }
            Ok(None) if !self.whole => Some(Cut::More),
            Ok(None) | Err(NoHead) => Some(Cut::Bad(self.broken(copy))),
        }
    }

    #[inline]
    fn pass(&mut self, row: Row) {
        self.at += row.len;
        self.lines += row.lines;
    }

    /// Gives a row to its host's feed.
    #[inline]
    fn place(
        &mut self,
        row: Row,
        cutter: &Cutter,
        copy: &CopyIn,
        feeds: &mut Feeds,
    ) -> Option<Cut> {
        let bytes = &self.bytes[self.at..self.at + row.len];
        let reader = RowReader {
            map: &cutter.map,
            splitter: &cutter.splitter,
            only: cutter.only,
            ascii: cutter.ascii,
            binary: copy.options.format == Format::Binary,
        };
        let shard = match copy.shard(&bytes[..row.body], &reader) {
            Ok(shard) => shard,
            Err(fault) => return Some(Cut::Bad(self.row_fault(*fault, bytes, row, copy))),
        };
        if !feeds.turn_to(shard, &cutter.map) {
            self.found = Some(row);
            return Some(Cut::Host(cutter.map.owner(shard)));
        }
        feeds.push(bytes, self.lines + 1, &row);
        self.pass(row);
        (feeds.bytes() > cutter.most).then_some(Cut::Full)
    }

    fn at_line(&self, copy: &CopyIn) -> String {
        format!("COPY {}, line {}", copy.table, self.lines + 1)
    }

    fn row_fault(&self, fault: RowFault, bytes: &[u8], row: Row, copy: &CopyIn) -> Bad {
        let line = self.at_line(copy);
        let context = match fault.at {
            Some((column, Some(value))) => format!("{line}, column {column}: \"{value}\""),
            Some((column, None)) if copy.options.format == Format::Binary => {
                format!("{line}, column {column}")
            }
            Some((column, None)) => format!("{line}, column {column}: null input"),
            None => line,
        };
        let fields = ErrorFields::from(fault.refusal).context(context);
        Bad {
            fields: Box::new(fields),
            raw: fault.ask.then(|| Raw {
                bytes: bytes.to_vec(),
                row,
            }),
        }
    }

    fn line_fault(&self, fault: LineFault, copy: &CopyIn) -> Bad {
        let mut fields = ErrorFields::error(SqlState::BAD_COPY_FILE_FORMAT, fault.message())
            .context(self.at_line(copy));
        if let Some(hint) = fault.hint() {
            fields = fields.hint(hint);
        }
        Bad {
            fields: Box::new(fields),
            raw: Some(Raw::broken(&[])),
        }
    }

    fn broken(&self, copy: &CopyIn) -> Bad {
        let fields = ErrorFields::error(
            SqlState::BAD_COPY_FILE_FORMAT,
            "the COPY data can't be cut into rows",
        );
        Bad {
            fields: Box::new(fields.context(self.at_line(copy))),
            raw: Some(Raw::broken(&self.bytes[self.at..])),
        }
    }

    fn too_long(&self, most: usize, copy: &CopyIn) -> Bad {
        let fields = ErrorFields::error(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("a row of COPY is longer than the limit of {most} bytes"),
        );
        let fields = fields
            .hint("The setting is copy_held_bytes in [proxy.limits].")
            .context(self.at_line(copy));
        Bad {
            fields: Box::new(fields),
            raw: None,
        }
    }
}
