//! The COPY statement as it goes to each shard, and where in the client's text an error of it stands.

use crate::route::{Bound, CopyIn, Values};
use crate::shardmap::{ShardId, ShardMap};
use crate::sql::rewrite::{position_back, splice};
use crate::wire::backend::ErrorView;
use crate::wire::{frame, frontend};

/// A COPY statement.
#[derive(Clone, Copy)]
pub(in crate::session) struct Statement<'a> {
    pub(in crate::session) bound: &'a Bound,
    pub(in crate::session) copy: &'a CopyIn,
    pub(in crate::session) values: Values<'a>,
    /// Rows of other shards are refused.
    pub(in crate::session) only: Option<ShardId>,
    /// It came in a Query: what is done of it is settled with it.
    pub(in crate::session) simple: bool,
}

impl Statement<'_> {
    /// The statement for a shard.
    pub(super) fn write(&self, map: &ShardMap, shard: ShardId, out: &mut Vec<u8>) {
        let Values { text, holes, .. } = self.values;
        let end = self
            .copy
            .list
            .as_ref()
            .map_or(text.len(), |(at, _)| at.at(holes));
        splice(
            &text[..end],
            holes,
            &self.bound.edits,
            map.schema(shard),
            out,
        );
        if let Some((_, list)) = &self.copy.list {
            out.extend_from_slice(list.as_bytes());
        }
        out.extend_from_slice(&text[end..]);
    }

    /// Begins the COPY of a shard.
    pub(super) fn begin(&self, map: &ShardMap, shard: ShardId, outbox: &mut Vec<u8>) {
        let mut text = Vec::with_capacity(self.values.text.len() + 64);
        self.write(map, shard, &mut text);
        frontend::parse(outbox, b"", &text, std::iter::empty());
        frontend::bind_renamed(outbox, b"", b"", &[0; 6]);
        frontend::execute(outbox, b"", 0);
    }

    /// An error of the statement itself, its position that of the client's text.
    pub(super) fn position_back(&self, map: &ShardMap, shard: ShardId, error: &[u8]) -> Vec<u8> {
        let body = &error[frame::HEADER.min(error.len())..];
        let Ok(view) = ErrorView::decode(body) else {
            return error.to_vec();
        };
        let position = view
            .get(b'P')
            .and_then(|p| std::str::from_utf8(p).ok()?.parse::<u32>().ok());
        let Some(position) = position else {
            return error.to_vec();
        };
        let Values { text, holes, .. } = self.values;
        let chars = |text: &[u8]| text.iter().filter(|b| **b & 0xc0 != 0x80).count() as u32;
        let mut before = Vec::new();
        let list = self.copy.list.as_ref().map_or(0, |(at, list)| {
            splice(
                &text[..at.at(holes)],
                holes,
                &self.bound.edits,
                map.schema(shard),
                &mut before,
            );
            chars(list.as_bytes())
        });
        let position = match position > chars(&before) {
            true => position.saturating_sub(list).max(chars(&before)),
            false => position,
        };
        let position = position_back(position, text, holes, &self.bound.edits, map.schema(shard));
        let mut out = Vec::new();
        view.with_field_replaced(&mut out, b'E', b'P', position.to_string().as_bytes());
        out
    }
}
