//! An INSERT of rows of several shards: which rows go where, in what order the answers come, and the text for each shard.

use std::collections::HashMap;
use std::ops::Range;

use crate::shardmap::{ShardId, ShardMap};
use crate::sql::plan::{InsertText, OnConflict};
use crate::sql::rewrite;

use super::decide::check_rows;
use super::refusal::Refusal;
use super::rules::{Bound, Reach, Rows, Rule, Sharded};
use super::{Values, value, words};

/// The parts of an INSERT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// What is run, one after the other.
    pub parts: Vec<Part>,
    /// If the answers take turns: from which part the next rows come, and how many. Empty: part after part.
    pub turns: Vec<(u32, u32)>,
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
) -> Result<Vec<ShardId>, Refusal> {
    let shard = |key| {
        value::shard(key, rows.carries, values, map)
            .map_err(|fault| words::bad_value(&rows.table, &rows.column, fault))
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
        });
    }
    match rows.text.conflict {
        // Each row is answered with one.
        OnConflict::Fail | OnConflict::Update => Ok(Split { parts, turns }),
        OnConflict::Nothing => Ok(Split {
            parts: runs(shards),
            turns: Vec::new(),
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

    /// Appends the INSERT for some of the rows, with the schema written in and the parameters that are left numbered
    /// anew. Which they were is what is returned.
    pub fn write_part(
        &self,
        values: &Values<'_>,
        schema: &str,
        part: &Part,
        out: &mut Vec<u8>,
    ) -> Vec<u16> {
        let Some(Rows { text, .. }) = self.rows() else {
            return Vec::new();
        };
        let mut writer = Writer {
            bound: self,
            values,
            schema,
            text,
            params: Vec::new(),
            numbers: HashMap::new(),
            out,
        };
        writer.write(&part.rows);
        writer.params
    }
}

struct Writer<'a> {
    bound: &'a Bound,
    values: &'a Values<'a>,
    schema: &'a str,
    text: &'a InsertText,
    /// The parameters that were written, in their new order.
    params: Vec<u16>,
    /// Their new numbers.
    numbers: HashMap<u16, usize>,
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    fn row(&self, row: usize) -> Range<usize> {
        let holes = self.values.holes;
        let row = &self.text.rows[row];
        row.start.at(holes)..row.end.at(holes)
    }

    fn write(&mut self, rows: &[u32]) {
        let (first, last) = (self.row(0), self.row(self.text.rows.len() - 1));
        self.copy(0..first.start);
        for (n, row) in rows.iter().enumerate() {
            if n > 0 {
                self.out.extend_from_slice(b", ");
            }
            self.copy(self.row(*row as usize));
        }
        self.copy(last.end..self.values.text.len());
    }

    /// Copies a range of the text.
    fn copy(&mut self, range: Range<usize>) {
        let holes = self.values.holes;
        let params = &self.text.params;
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
