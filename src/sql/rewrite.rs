//! Writes a schema into a statement: bytes are spliced at identifier positions, SQL is never regenerated.

use super::shape::{Hole, HoleKind, dollar_tag_end};

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
        let base = if hole == 0 {
            0
        } else {
            holes[hole - 1].end as usize
        };
        Pos {
            hole: hole as u32,
            offset: (at - base) as u32,
        }
    }

    /// The byte offset of this place in a text with these holes.
    pub fn at(self, holes: &[Hole]) -> usize {
        let base = if self.hole == 0 {
            0
        } else {
            holes[self.hole as usize - 1].end as usize
        };
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

/// What an edit does to the bytes: `cut` bytes at `at` are left out and the schema is put there.
struct Change<'t> {
    at: usize,
    cut: usize,
    dot: bool,
    /// Bytes of the schema to be doubled.
    double: &'t [u8],
}

impl Change<'_> {
    fn of(edit: Edit, text: &[u8], holes: &[Hole]) -> Change<'static> {
        match edit {
            Edit::Qualify(pos) => Change {
                at: pos.at(holes),
                cut: 0,
                dot: true,
                double: b"",
            },
            Edit::Replace(pos, len) => Change {
                at: pos.at(holes),
                cut: len as usize,
                dot: false,
                double: b"",
            },
            Edit::IntoString(hole) => {
                let hole = &holes[hole as usize];
                let start = hole.start as usize;
                let (at, double): (usize, &[u8]) = match hole.kind {
                    // No escape exists here; a schema with a `$` in it is refused when the map is loaded.
                    HoleKind::DollarString => (dollar_tag_end(text, start).unwrap_or(start), b""),
                    HoleKind::String => (after_quote(text, start), b"'"),
                    _ => (after_quote(text, start), b"'\\"),
                };
                Change {
                    at,
                    cut: 0,
                    dot: true,
                    double,
                }
            }
        }
    }

    fn inserted_len(&self, schema: &str) -> usize {
        let doubled = match self.double {
            [] => 0,
            double => schema.bytes().filter(|b| double.contains(b)).count(),
        };
        schema.len() + doubled + usize::from(self.dot)
    }

    fn write(&self, schema: &str, out: &mut Vec<u8>) {
        match self.double {
            [] => out.extend_from_slice(schema.as_bytes()),
            double => {
                for b in schema.bytes() {
                    if double.contains(&b) {
                        out.push(b);
                    }
                    out.push(b);
                }
            }
        }
        if self.dot {
            out.push(b'.');
        }
    }
}

fn after_quote(text: &[u8], start: usize) -> usize {
    let quote = text[start..].iter().position(|b| *b == b'\'');
    start + quote.map_or(0, |q| q + 1)
}

/// Appends `text` with the edits applied to `out`. `schema` is an identifier as it stands in SQL (quoted if need be).
/// `holes` are those of `text`, `edits` those of a plan of its shape.
pub fn splice(text: &[u8], holes: &[Hole], edits: &[Edit], schema: &str, out: &mut Vec<u8>) {
    out.reserve(text.len() + edits.len() * (schema.len() + 1));
    let mut copied = 0;
    for edit in edits {
        let change = Change::of(*edit, text, holes);
        out.extend_from_slice(&text[copied..change.at]);
        change.write(schema, out);
        copied = change.at + change.cut;
    }
    out.extend_from_slice(&text[copied..]);
}

/// How many bytes [`splice`] appends.
pub fn spliced_len(text: &[u8], holes: &[Hole], edits: &[Edit], schema: &str) -> usize {
    edits.iter().fold(text.len(), |len, edit| {
        let change = Change::of(*edit, text, holes);
        len + change.inserted_len(schema) - change.cut
    })
}

/// Maps the position of an error in the spliced text back to the original: both are counted in characters from 1, as
/// in field `P` of an ErrorResponse. A position inside the schema maps to where it was put; 0 (none) stays 0.
pub fn position_back(
    rewritten_char_pos: u32,
    text: &[u8],
    holes: &[Hole],
    edits: &[Edit],
    schema: &str,
) -> u32 {
    let Some(mut wanted) = (rewritten_char_pos as usize).checked_sub(1) else {
        return 0;
    };
    // `original` characters lie before byte `copied`; `wanted` more are to be walked in the spliced text.
    let (mut original, mut copied) = (0, 0);
    for edit in edits {
        let change = Change::of(*edit, text, holes);
        let kept = chars(&text[copied..change.at]);
        if wanted < kept {
            break;
        }
        original += kept;
        wanted -= kept;
        let inserted = chars(schema.as_bytes()) + change.inserted_len(schema) - schema.len();
        if wanted < inserted {
            wanted = 0;
            break;
        }
        wanted -= inserted;
        copied = change.at + change.cut;
        original += chars(&text[change.at..copied]);
    }
    (original + wanted + 1) as u32
}

/// Characters of UTF-8: bytes that do not continue one.
fn chars(text: &[u8]) -> usize {
    text.iter().filter(|b| **b & 0xc0 != 0x80).count()
}
