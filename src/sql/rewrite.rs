//! Writes a schema into a statement: bytes are spliced at identifier positions, SQL is never regenerated.

use std::ops::Range;

use super::select::Span;
use super::shape::{Hole, HoleKind, dollar_tag_end, is_ident_cont};

/// A place in any text of one shape: `offset` bytes after the end of the hole before it.
/// Texts of one shape have the same bytes between holes, so one `Pos` serves them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
struct Change {
    at: usize,
    cut: usize,
    /// A space goes before the schema: `FROM"photos"` must not become `FROMs1."photos"`.
    space: bool,
    dot: bool,
    /// Bytes of the schema to be doubled.
    double: &'static [u8],
}

impl Change {
    fn of(edit: Edit, text: &[u8], holes: &[Hole]) -> Change {
        match edit {
            Edit::Qualify(pos) => Change::name(pos.at(holes), 0, true, text),
            Edit::Replace(pos, len) => Change::name(pos.at(holes), len as usize, false, text),
            Edit::IntoString(hole) => Change::string(&holes[hole as usize], text),
        }
    }

    fn name(at: usize, cut: usize, dot: bool, text: &[u8]) -> Change {
        let space = at > 0 && is_ident_cont(text[at - 1]);
        Change {
            at,
            cut,
            space,
            dot,
            double: b"",
        }
    }

    fn string(hole: &Hole, text: &[u8]) -> Change {
        let start = hole.start as usize;
        let (at, double): (usize, &[u8]) = match hole.kind {
            // Nothing can be escaped here: see what `splice` asks of the schema.
            HoleKind::DollarString => (dollar_tag_end(text, start).unwrap_or(start), b""),
            HoleKind::String => (after_quote(text, start), b"'"),
            _ => (after_quote(text, start), b"'\\"),
        };
        Change {
            at,
            cut: 0,
            space: false,
            dot: true,
            double,
        }
    }

    fn inserted_len(&self, schema: &str) -> usize {
        let doubled = match self.double {
            [] => 0,
            double => schema.bytes().filter(|b| double.contains(b)).count(),
        };
        usize::from(self.space) + schema.len() + doubled + usize::from(self.dot)
    }

    fn write(&self, schema: &str, out: &mut Vec<u8>) {
        if self.space {
            out.push(b' ');
        }
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

/// Appends `text` with the edits applied to `out`. `schema` is an identifier as it stands in SQL (quoted if need be),
/// without a `$`, which could end a dollar string that it is put into.
/// `holes` are those of `text`, `edits` those of a plan of its shape.
pub fn splice(text: &[u8], holes: &[Hole], edits: &[Edit], schema: &str, out: &mut Vec<u8>) {
    out.reserve(text.len() + edits.len() * (schema.len() + 1));
    splice_range(text, holes, edits, schema, 0..text.len(), out);
}

/// [`splice`] of a part of the text that cuts through nothing that is changed.
pub fn splice_range(
    text: &[u8],
    holes: &[Hole],
    edits: &[Edit],
    schema: &str,
    range: Range<usize>,
    out: &mut Vec<u8>,
) {
    let first = match range.start {
        0 => 0,
        start => edits.partition_point(|edit| Change::of(*edit, text, holes).at < start),
    };
    let mut copied = range.start;
    for edit in &edits[first..] {
        let change = Change::of(*edit, text, holes);
        if change.at >= range.end {
            break;
        }
        out.extend_from_slice(&text[copied..change.at]);
        change.write(schema, out);
        copied = change.at + change.cut;
    }
    out.extend_from_slice(&text[copied..range.end]);
}

/// [`splice`] for a stretch of the text.
pub fn splice_part(
    text: &[u8],
    holes: &[Hole],
    edits: &[Edit],
    schema: &str,
    part: Span,
    out: &mut Vec<u8>,
) {
    let range = part.from.at(holes)..part.to.at(holes);
    splice_range(text, holes, edits, schema, range, out);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::shape::Shape;

    struct Case {
        text: String,
        shape: Shape,
    }

    impl Case {
        fn of(text: &str) -> Case {
            let mut shape = Shape::default();
            shape.scan(text.as_bytes()).unwrap();
            Case {
                text: text.to_string(),
                shape,
            }
        }

        /// The place before the `nth` occurrence of `needle`.
        fn pos(&self, needle: &str, nth: usize) -> Pos {
            let at = self.text.match_indices(needle).nth(nth).unwrap().0;
            let pos = Pos::of(at, &self.shape.holes);
            assert_eq!(pos.at(&self.shape.holes), at);
            pos
        }

        #[track_caller]
        fn spliced(&self, edits: &[Edit], schema: &str) -> String {
            let mut out = b">".to_vec();
            splice(
                self.text.as_bytes(),
                &self.shape.holes,
                edits,
                schema,
                &mut out,
            );
            assert_eq!(
                out.len() - 1,
                spliced_len(self.text.as_bytes(), &self.shape.holes, edits, schema)
            );
            String::from_utf8(out.split_off(1)).unwrap()
        }

        /// What stands in the original where each character of `needle` in the spliced text goes back to.
        #[track_caller]
        fn back(&self, edits: &[Edit], schema: &str, needle: &str) -> String {
            let spliced = self.spliced(edits, schema);
            let first = spliced[..spliced.find(needle).unwrap()].chars().count() as u32 + 1;
            let original: Vec<char> = self.text.chars().collect();
            (first..first + needle.chars().count() as u32)
                .map(|pos| {
                    position_back(pos, self.text.as_bytes(), &self.shape.holes, edits, schema)
                })
                .map(|pos| original[pos as usize - 1])
                .collect()
        }
    }

    #[test]
    fn one_plan_serves_every_text_of_its_shape() {
        let first = Case::of("SELECT 'x' FROM photos WHERE a = 1");
        let edits = [Edit::Qualify(first.pos("photos", 0))];
        assert_eq!(
            first.spliced(&edits, "s1"),
            "SELECT 'x' FROM s1.photos WHERE a = 1"
        );
        let other = Case::of("SELECT 'photos''s' FROM photos WHERE a = 12345");
        assert_eq!(first.shape.key, other.shape.key);
        let wanted = "SELECT 'photos''s' FROM \"S 1\".photos WHERE a = 12345";
        assert_eq!(other.spliced(&edits, "\"S 1\""), wanted);
        assert_eq!(other.spliced(&[], "s1"), other.text);
    }

    #[test]
    fn names_are_replaced() {
        let case = Case::of(r#"SELECT "public"."p"."id" FROM "public"."p""#);
        let edits = [
            Edit::Replace(case.pos("\"public\"", 0), 8),
            Edit::Replace(case.pos("\"public\"", 1), 8),
        ];
        assert_eq!(
            case.spliced(&edits, "s1"),
            r#"SELECT s1."p"."id" FROM s1."p""#
        );
        assert_eq!(
            case.spliced(&edits, "a_long_one"),
            r#"SELECT a_long_one."p"."id" FROM a_long_one."p""#
        );
    }

    #[test]
    fn a_name_glued_to_a_keyword_stays_a_name() {
        let case = Case::of(r#"SELECT*FROM"photos"JOIN"public"."likes"USING(id)"#);
        let edits = [
            Edit::Qualify(case.pos("\"photos\"", 0)),
            Edit::Replace(case.pos("\"public\"", 0), 8),
        ];
        let spliced = case.spliced(&edits, "s1");
        assert_eq!(
            spliced,
            r#"SELECT*FROM s1."photos"JOIN s1."likes"USING(id)"#
        );
        assert_eq!(
            case.back(&edits, "s1", " s1.\"photos\"JOIN"),
            "\"\"\"\"\"photos\"JOIN"
        );
    }

    #[test]
    fn schemas_go_into_strings() {
        let case = Case::of("SELECT f('a', N'b', E'c', $x$d$x$, U&'e'), 1");
        let edits: Vec<Edit> = (0..5).map(Edit::IntoString).collect();
        assert_eq!(
            case.spliced(&edits, "s1"),
            "SELECT f('s1.a', N's1.b', E's1.c', $x$s1.d$x$, U&'s1.e'), 1"
        );
        assert_eq!(
            case.spliced(&edits, r#""i't\s""#),
            r#"SELECT f('"i''t\s".a', N'"i''t\s".b', E'"i''t\\s".c', $x$"i't\s".d$x$, U&'"i''t\\s".e'), 1"#
        );
    }

    #[test]
    fn positions_go_back() {
        let case = Case::of(
            "SELECT '\u{e9}\u{e9}', f('seq') FROM photos, \"public\".likes WHERE \u{e9}x = 1",
        );
        let edits = [
            Edit::IntoString(1),
            Edit::Qualify(case.pos("photos", 0)),
            Edit::Replace(case.pos("\"public\"", 0), 8),
        ];
        for schema in ["s1", "\"sch\u{e9}ma'x\""] {
            let kept = [
                "SELECT '\u{e9}\u{e9}', f('",
                "seq') FROM ",
                "photos, ",
                ".likes WHERE \u{e9}x = 1",
            ];
            for part in kept {
                assert_eq!(case.back(&edits, schema, part), part);
            }
        }
        assert_eq!(case.back(&edits, "s1", "s1.seq"), "sssseq");
        assert_eq!(case.back(&edits, "s1", "s1.photos"), "pppphotos");
        assert_eq!(case.back(&edits, "s1", "s1.likes"), "\"\".likes");
    }

    #[test]
    fn no_position_and_one_past_the_end() {
        let case = Case::of("SELECT * FROM photos WHERE");
        let edits = [Edit::Qualify(case.pos("photos", 0))];
        let back = |pos| position_back(pos, case.text.as_bytes(), &case.shape.holes, &edits, "s1");
        assert_eq!(back(0), 0);
        let len = case.text.len() as u32;
        assert_eq!(
            back(len + 3 + 1),
            len + 1,
            "where Postgres points at the end of input"
        );
        assert_eq!(
            position_back(5, case.text.as_bytes(), &case.shape.holes, &[], "s1"),
            5
        );
    }
}
