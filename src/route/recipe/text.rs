//! Texts being put together of pieces.

use super::Piece;
use crate::sql::select::Span;

/// How many rows are wanted.
pub(super) struct Limits {
    pub(super) limit: Option<u64>,
    pub(super) offset: u64,
}

impl Limits {
    pub(super) fn are_none(&self) -> bool {
        self.limit.is_none() && self.offset == 0
    }

    /// The rows that each shard must give, for any of them may be the first.
    pub(super) fn for_each(&self) -> String {
        match self.limit.map(|limit| limit.saturating_add(self.offset)) {
            Some(rows) if rows <= i64::MAX as u64 => format!(" LIMIT {rows}"),
            _ => String::new(),
        }
    }

    pub(super) fn last(&self) -> String {
        let mut text = String::new();
        if let Some(limit) = self.limit {
            text.push_str(&format!(" LIMIT {limit}"));
        }
        if self.offset > 0 {
            text.push_str(&format!(" OFFSET {}", self.offset));
        }
        text
    }
}

/// What the columns that are sorted by are called in what each shard is asked.
pub(super) const KEY: &str = "presplit_key";

/// A text being put together.
#[derive(Default)]
pub(super) struct Text(pub(super) Vec<Piece>);

impl Text {
    pub(super) fn own(&mut self, words: &str) -> &mut Self {
        if !words.is_empty() {
            self.0.push(Piece::Own(words.to_owned()));
        }
        self
    }

    pub(super) fn copy(&mut self, span: &Option<Span>) -> &mut Self {
        if let Some(span) = span.filter(|span| span.from != span.to) {
            self.0.push(Piece::Copy(span));
            self.0.push(Piece::Own(" ".to_owned()));
        }
        self
    }

    pub(super) fn piece(&mut self, piece: Piece) -> &mut Self {
        self.0.push(piece);
        self
    }

    pub(super) fn list(
        &mut self,
        head: &str,
        items: impl Iterator<Item = Vec<Piece>>,
    ) -> &mut Self {
        for (n, item) in items.enumerate() {
            self.own(if n == 0 { head } else { ", " });
            self.0.extend(item);
        }
        self
    }

    pub(super) fn order_by(&mut self, orders: Vec<(Piece, bool, bool)>) -> &mut Self {
        let orders = orders.into_iter();
        self.order_by_pieces(orders.map(|(by, d, n)| (vec![by], d, n)).collect())
    }

    pub(super) fn order_by_pieces(&mut self, orders: Vec<(Vec<Piece>, bool, bool)>) -> &mut Self {
        let items = orders.into_iter().map(|(mut by, desc, nulls_first)| {
            by.push(Piece::Own(direction(desc, nulls_first).to_owned()));
            by
        });
        self.list(" ORDER BY ", items)
    }
}

pub(super) fn direction(desc: bool, nulls_first: bool) -> &'static str {
    match (desc, nulls_first) {
        (false, false) => " ASC NULLS LAST",
        (false, true) => " ASC NULLS FIRST",
        (true, false) => " DESC NULLS LAST",
        (true, true) => " DESC NULLS FIRST",
    }
}
