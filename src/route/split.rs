//! An INSERT of rows of several shards: which rows go where, in what order the answers come, and the text for each shard.

use std::collections::HashMap;
use std::ops::Range;

use crate::shardmap::{ShardId, ShardMap};
use crate::sql::plan::OnConflict;
use crate::sql::rewrite;

use super::decide::check_rows;
use super::refusal::Refusal;
use super::rules::{Bound, KeyConst, MadeAt, Reach, Rows, Rule, Sharded};
use super::{Values, value, words};

/// The parts of an INSERT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// What is run, one after the other.
    pub parts: Vec<Part>,
    /// If the answers take turns: from which part the next rows come, and how many. Empty: part after part.
    pub turns: Vec<(u32, u32)>,
    /// Keys that were made, for the rows that give none.
    pub keys: Vec<i64>,
}

/// Rows of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The shard.
    pub shard: ShardId,
    /// The rows, in order.
    pub rows: Vec<u32>,
}

/// The shard of each row.
pub(super) fn shards(
    rows: &Rows,
    sharded: &Sharded,
    values: &Values<'_>,
    map: &ShardMap,
    made: &[i64],
) -> Result<Vec<ShardId>, Refusal> {
    let mut made = made.iter();
    let shard = |key: &Option<KeyConst>| {
        let shard = match key {
            Some(key) => value::shard(key, rows.carries, values, map),
            None => value::shard_of_made(made.next().copied(), map),
        };
        shard.map_err(|fault| words::bad_value(&rows.table, &rows.column, fault))
    };
    let shards = rows.keys.iter().map(shard).collect::<Result<Vec<_>, _>>()?;
    check_rows(sharded, values, map, &shards)?;
    Ok(shards)
}

/// The parts for rows of these shards. Each row of a shard is inserted by the same statement wherever the answer's order
/// can be kept so: then rows may refer to each other as in the whole.
pub(super) fn split(rows: &Rows, shards: &[ShardId]) -> Result<Split, Refusal> {
    let (parts, turns) = group(shards);
    // The rows of each shard stand together, or nobody sees the order.
    if !rows.returning || turns.len() == parts.len() {
        return Ok(Split {
            parts,
            turns: Vec::new(),
            keys: Vec::new(),
        });
    }
    match rows.text.conflict {
        // Each row is answered with one.
        OnConflict::Fail | OnConflict::Update => Ok(Split {
            parts,
            turns,
            keys: Vec::new(),
        }),
        OnConflict::Nothing => Ok(Split {
            parts: runs(shards),
            turns: Vec::new(),
            keys: Vec::new(),
        }),
        OnConflict::UpdateSome => Err(words::order_of_rows()),
    }
}

/// By shard, in the order of their first rows; and the runs of rows of one part.
fn group(shards: &[ShardId]) -> (Vec<Part>, Vec<(u32, u32)>) {
    let mut parts: Vec<Part> = Vec::new();
    let mut of_shard = HashMap::new();
    let mut turns: Vec<(u32, u32)> = Vec::new();
    for (row, shard) in shards.iter().enumerate() {
        let part = *of_shard.entry(*shard).or_insert_with(|| {
            parts.push(Part {
                shard: *shard,
                rows: Vec::new(),
            });
            parts.len() - 1
        });
        parts[part].rows.push(row as u32);
        match turns.last_mut() {
            Some((last, n)) if *last == part as u32 => *n += 1,
            _ => turns.push((part as u32, 1)),
        }
    }
    (parts, turns)
}

/// Rows of one shard that follow each other.
fn runs(shards: &[ShardId]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (row, shard) in shards.iter().enumerate() {
        match parts.last_mut() {
            Some(part) if part.shard == *shard => part.rows.push(row as u32),
            _ => parts.push(Part {
                shard: *shard,
                rows: vec![row as u32],
            }),
        }
    }
    parts
}

impl Bound {
    fn rows(&self) -> Option<&Rows> {
        match &self.rule {
            Rule::Sharded(sharded) => match &sharded.reach {
                Reach::Rows(rows) => Some(rows),
                Reach::OneShard | Reach::Each => None,
            },
            _ => None,
        }
    }

    /// What an INSERT of rows does about rows that are there.
    pub fn on_conflict(&self) -> Option<OnConflict> {
        self.rows().map(|rows| rows.text.conflict)
    }

    /// The highest parameter of an INSERT of rows.
    pub fn highest_param(&self) -> u16 {
        let params = self.rows().map(|rows| &rows.text.params[..]);
        params
            .unwrap_or_default()
            .iter()
            .map(|(_, n)| *n)
            .max()
            .unwrap_or(0)
    }

    /// Appends the INSERT of one part of a split, with the schema written in and the parameters that are left numbered
    /// anew. Which they were is what is returned.
    pub fn write_part(
        &self,
        values: &Values<'_>,
        schema: &str,
        split: &Split,
        part: usize,
        out: &mut Vec<u8>,
    ) -> Vec<u16> {
        let Some(of) = self.rows() else {
            return Vec::new();
        };
        let mut writer = Writer {
            bound: self,
            values,
            schema,
            of,
            keys: made_keys(of, &split.keys),
            params: Vec::new(),
            numbers: HashMap::new(),
            out,
        };
        writer.write(&split.parts[part].rows);
        writer.params
    }
}

/// The keys that were made, row by row.
fn made_keys(of: &Rows, keys: &[i64]) -> Vec<Option<i64>> {
    if keys.is_empty() {
        return Vec::new();
    }
    let mut keys = keys.iter();
    let made = |key: &Option<KeyConst>| match key {
        Some(_) => None,
        None => keys.next().copied(),
    };
    of.keys.iter().map(made).collect()
}

struct Writer<'a> {
    bound: &'a Bound,
    values: &'a Values<'a>,
    schema: &'a str,
    of: &'a Rows,
    /// The key that was made for each row; none at all: none was.
    keys: Vec<Option<i64>>,
    /// The parameters that were written, in their new order.
    params: Vec<u16>,
    /// Their new numbers.
    numbers: HashMap<u16, usize>,
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    fn row(&self, row: usize) -> Range<usize> {
        let holes = self.values.holes;
        let row = &self.of.text.rows[row];
        row.start.at(holes)..row.end.at(holes)
    }

    fn write(&mut self, rows: &[u32]) {
        let (holes, text) = (self.values.holes, &self.of.text);
        let end = self.values.text.len();
        let mut from = 0;
        if !self.keys.is_empty() {
            from = self.column();
        }
        if let Some(default) = &text.default_values {
            self.copy(from..default.start.at(holes));
            self.out.extend_from_slice(b"VALUES (");
            self.key(0);
            self.out.push(b')');
            return self.copy(default.end.at(holes)..end);
        }
        let (first, last) = (self.row(0), self.row(text.rows.len() - 1));
        self.copy(from..first.start);
        for (n, row) in rows.iter().enumerate() {
            if n > 0 {
                self.out.extend_from_slice(b", ");
            }
            self.write_row(*row as usize);
        }
        self.copy(last.end..end);
    }

    /// Names the key column, if it is not; how much of the text is copied by then.
    fn column(&mut self) -> usize {
        let end = self.of.text.columns_end.at(self.values.holes);
        let name = format!("\"{}\"", self.of.column.replace('"', "\"\""));
        let added = match self.of.made_at {
            MadeAt::Column(_) => return 0,
            MadeAt::End => format!(", {name}"),
            MadeAt::Whole => format!(" ({name})"),
        };
        self.copy(0..end);
        self.out.extend_from_slice(added.as_bytes());
        end
    }

    /// The key that was made for a row.
    fn key(&mut self, row: usize) {
        if let Some(Some(key)) = self.keys.get(row) {
            self.out.extend_from_slice(key.to_string().as_bytes());
        }
    }

    fn write_row(&mut self, row: usize) {
        let range = self.row(row);
        if self.keys.get(row).copied().flatten().is_none() {
            return self.copy(range);
        }
        let MadeAt::Column(column) = self.of.made_at else {
            self.copy(range.start..range.end - 1);
            self.out.extend_from_slice(b", ");
            self.key(row);
            return self.out.push(b')');
        };
        let holes = self.values.holes;
        let defaults = &self.of.text.defaults;
        let at = defaults.binary_search_by_key(&(row as u32, column), |(r, c, _)| (*r, *c));
        let Ok(at) = at else {
            return self.copy(range);
        };
        let place = defaults[at].2;
        let start = place.pos.at(holes);
        self.copy(range.start..start);
        self.key(row);
        self.copy(start + place.len as usize..range.end);
    }

    /// Copies a range of the text.
    fn copy(&mut self, range: Range<usize>) {
        let holes = self.values.holes;
        let params = &self.of.text.params[..];
        let first = params.partition_point(|(place, _)| place.pos.at(holes) < range.start);
        let mut from = range.start;
        for (place, param) in &params[first..] {
            let at = place.pos.at(holes);
            if at >= range.end {
                break;
            }
            self.splice(from..at);
            let params = &mut self.params;
            let number = *self.numbers.entry(*param).or_insert_with(|| {
                params.push(*param);
                params.len()
            });
            self.out.extend_from_slice(format!("${number}").as_bytes());
            from = at + place.len as usize;
        }
        self.splice(from..range.end);
    }

    fn splice(&mut self, range: Range<usize>) {
        let Values { text, holes, .. } = self.values;
        rewrite::splice_range(text, holes, &self.bound.edits, self.schema, range, self.out);
    }
}
