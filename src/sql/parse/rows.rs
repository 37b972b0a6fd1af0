//! Where the rows of an `INSERT ... VALUES` stand: found by tokens, so that rows can be cut out of the text byte by byte.

use std::ops::Range;

use super::cut::{Raw, RawKind};
use super::terms::param_number;
use crate::sql::plan::{Body, InsertText, OnConflict, Place, Plan, Source};
use crate::sql::rewrite::Pos;
use crate::sql::shape::Hole;

/// Where things stand, if the statement is an INSERT of given rows (or of DEFAULT VALUES) and nothing stands before it.
/// What the tokens say must agree with the plan that was read from them.
pub(super) fn insert_text(
    text: &[u8],
    holes: &[Hole],
    raws: &[Raw],
    plan: &Plan,
) -> Option<InsertText> {
    let root = &plan.levels[plan.root?];
    let Body::Insert {
        source, columns, ..
    } = &root.body
    else {
        return None;
    };
    let tokens = Tokens { text, holes, raws };
    if !tokens.is_word(0, "insert") {
        return None;
    }
    let values = tokens.values()?;
    let columns_end = tokens.columns_end(values.start, columns.is_some())?;
    let mut found = InsertText {
        rows: Vec::new(),
        default_values: None,
        columns_end,
        defaults: Vec::new(),
        params: tokens.params()?,
        conflict: OnConflict::Fail,
        conflict_target: None,
    };
    let mut at = values.end;
    match source {
        None if values.len() == 2 => {
            found.default_values = Some(tokens.pos(values.start)..tokens.end_pos(values.end - 1));
        }
        Some(source) if values.len() == 1 => {
            let Body::Values(rows) = &plan.levels[*source].body else {
                return None;
            };
            for (n, row) in rows.iter().enumerate() {
                if n > 0 {
                    tokens.is_punct(at, b',').then_some(())?;
                    at += 1;
                }
                let (end, cells) = tokens.row(at, n, &mut found.defaults)?;
                if cells != row.len() {
                    return None;
                }
                found.rows.push(tokens.pos(at)..tokens.end_pos(end));
                at = end + 1;
            }
        }
        _ => return None,
    }
    (found.conflict, found.conflict_target) = tokens.conflict(at)?;
    let excluded = root
        .items
        .iter()
        .any(|item| item.source == Source::Excluded);
    let updates = matches!(found.conflict, OnConflict::Update | OnConflict::UpdateSome);
    (updates == excluded).then_some(found)
}

struct Tokens<'t> {
    text: &'t [u8],
    holes: &'t [Hole],
    raws: &'t [Raw],
}

impl Tokens<'_> {
    fn is_word(&self, at: usize, word: &str) -> bool {
        matches!(self.raws.get(at), Some(Raw { kind: RawKind::Word(w), .. }) if w == word)
    }

    fn is_punct(&self, at: usize, byte: u8) -> bool {
        let punct = |raw: &Raw| raw.kind == RawKind::Punct && self.text[raw.start] == byte;
        self.raws.get(at).is_some_and(punct)
    }

    /// How much deeper in brackets it is behind this token.
    fn deepens(&self, at: usize) -> i32 {
        let of = |bytes: &[u8]| bytes.iter().any(|b| self.is_punct(at, *b));
        i32::from(of(b"([")) - i32::from(of(b")]"))
    }

    /// Tokens outside brackets, from `from` on.
    fn outside(&self, from: usize) -> impl Iterator<Item = usize> + use<'_> {
        let mut depth = 0;
        (from..self.raws.len()).filter(move |at| {
            let before = depth;
            depth += self.deepens(*at);
            before == 0 && depth == 0
        })
    }

    fn pos(&self, at: usize) -> Pos {
        Pos::of(self.raws[at].start, self.holes)
    }

    fn end_pos(&self, at: usize) -> Pos {
        Pos::of(self.raws[at].end, self.holes)
    }

    fn place(&self, at: usize) -> Place {
        let raw = &self.raws[at];
        Place {
            pos: self.pos(at),
            len: (raw.end - raw.start) as u32,
        }
    }

    /// The tokens VALUES or DEFAULT VALUES.
    fn values(&self) -> Option<Range<usize>> {
        let at = self.outside(0).find(|at| self.is_word(*at, "values"))?;
        let first = if self.is_word(at - 1, "default") {
            at - 1
        } else {
            at
        };
        Some(first..at + 1)
    }

    /// Behind the column list there may be OVERRIDING SYSTEM (or USER) VALUE.
    fn columns_end(&self, values: usize, named: bool) -> Option<Pos> {
        let mut last = values.checked_sub(1)?;
        if self.is_word(last, "value") && self.is_word(last.checked_sub(2)?, "overriding") {
            // With USER a key that is given would not be the one that is stored.
            if !self.is_word(last - 1, "system") {
                return None;
            }
            last = last.checked_sub(3)?;
        }
        match (self.is_punct(last, b')'), named) {
            (true, true) => Some(self.pos(last)),
            (false, false) => Some(self.end_pos(last)),
            _ => None,
        }
    }

    /// The row that opens at this token: its closing token, and how many cells it has.
    fn row(
        &self,
        open: usize,
        row: usize,
        defaults: &mut Vec<(u32, u32, Place)>,
    ) -> Option<(usize, usize)> {
        if !self.is_punct(open, b'(') {
            return None;
        }
        let (mut depth, mut cell, mut begins) = (1, 0, open + 1);
        for at in open + 1..self.raws.len() {
            depth += self.deepens(at);
            if depth == 0 || depth == 1 && self.is_punct(at, b',') {
                if at == begins + 1 && self.is_word(begins, "default") {
                    defaults.push((row as u32, cell, self.place(begins)));
                }
                cell += 1;
                begins = at + 1;
            }
            if depth == 0 {
                return Some((at, cell as usize));
            }
        }
        None
    }

    /// What stands behind the rows says of conflicts.
    fn conflict(&self, from: usize) -> Option<(OnConflict, Option<Range<Pos>>)> {
        if !self.is_word(from, "on") {
            return Some((OnConflict::Fail, None));
        }
        let action = self.outside(from).find(|at| {
            self.is_word(*at, "do")
                && !self.is_punct(*at - 1, b'.')
                && (self.is_word(at + 1, "nothing") || self.is_word(at + 1, "update"))
        })?;
        let target = Some(self.pos(from)..self.pos(action));
        if self.is_word(action + 1, "nothing") {
            return Some((OnConflict::Nothing, target));
        }
        let some = self.outside(action).any(|at| self.is_word(at, "where"));
        Some(match some {
            true => (OnConflict::UpdateSome, target),
            false => (OnConflict::Update, target),
        })
    }

    fn params(&self) -> Option<Vec<(Place, u16)>> {
        let param = |at: usize| {
            let raw = &self.raws[at];
            let text = std::str::from_utf8(&self.text[raw.start..raw.end]).ok()?;
            Some((self.place(at), param_number(text)?))
        };
        let params = (0..self.raws.len()).filter(|at| self.raws[*at].kind == RawKind::Param);
        params.map(param).collect()
    }
}
