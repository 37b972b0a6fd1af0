//! Writes a schema into a statement: bytes are spliced at identifier positions, SQL is never regenerated.

use super::shape::Hole;

/// A place in any text of one shape: `offset` bytes after the end of the hole before it.
/// Texts of one shape have the same bytes between holes, so one `Pos` serves them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos {
    /// How many holes lie before this place.
    pub hole: u32,
    /// Bytes after the end of hole `hole - 1` (after the start of the text when `hole` is 0).
    pub offset: u32,
}

impl Pos {
    /// The place of byte `at` of a text with these holes. `at` must not lie inside a hole.
    pub fn of(at: usize, holes: &[Hole]) -> Pos {
        let hole = holes.partition_point(|h| h.end as usize <= at);
        let base = if hole == 0 { 0 } else { holes[hole - 1].end as usize };
        Pos { hole: hole as u32, offset: (at - base) as u32 }
    }

    /// The byte offset of this place in a text with these holes.
    pub fn at(self, holes: &[Hole]) -> usize {
        let base = if self.hole == 0 { 0 } else { holes[self.hole as usize - 1].end as usize };
        base + self.offset as usize
    }
}

/// One change to the text. A plan's edits are sorted by place and do not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Insert `schema.` here (in front of an unqualified relation name).
    Qualify(Pos),
    /// Replace `len` bytes here (an identifier such as `public`, quotes included) by the schema.
    Replace(Pos, u32),
    /// Insert `schema.` inside the string literal that is hole number `.0`, right after its opening quote
    /// (`'photos'::regclass`, `nextval('photos_id_seq')`).
    IntoString(u32),
}
