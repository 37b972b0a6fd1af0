//! Texts that are an earlier one but for their numbers and strings are known by comparing the bytes in between, which costs a
//! fraction of a scan and a look-up by the key.
//!
//! Why that finds what [`Shape::scan`] would find: the scan goes from left to right and never looks back. Where an earlier text
//! had a hole and this one has the same bytes before it, the scan would come to the same place in the same state, and see the
//! same kind of hole begin, for it begins with the same byte class (a digit, or a quote). Where the hole ends is found in this
//! text by the same code; behind it the bytes are the same again.

use std::sync::Arc;

use super::{Hole, HoleKind, Quoting, Shape, number_end, string_end};

/// Bytes by which texts are told apart at first. A hole among them would make each text another.
const BEGINNING: usize = 16;
/// Sets of earlier texts, and how many each holds.
const SETS: usize = 128;
const WAYS: usize = 4;
/// Longer keys are not kept.
const LONGEST: usize = 2048;

/// Earlier texts and what is known of their shapes.
pub struct Earlier<V> {
    sets: Vec<Vec<Text<V>>>,
    /// How many could have been kept.
    offered: u32,
}

struct Text<V> {
    /// Its [`Shape::key`].
    key: Box<[u8]>,
    /// Where in the key the holes are.
    holes: Box<[u32]>,
    value: Arc<V>,
}

impl<V> Default for Earlier<V> {
    fn default() -> Self {
        Earlier {
            sets: Vec::new(),
            offered: 0,
        }
    }
}

impl<V> Earlier<V> {
    /// The value of the earlier text that this one is like, which then is in `shape` but for its key. `None`: there is none.
    pub fn find(&mut self, text: &[u8], shape: &mut Shape) -> Option<Arc<V>> {
        let set = self.sets.get_mut(set_of(text))?;
        let at = set
            .iter()
            .position(|earlier| earlier.is_like(text, shape))?;
        if at > 0 {
            set.swap(at, at - 1);
        }
        set.get(at.saturating_sub(1)).map(|text| text.value.clone())
    }

    /// Keeps what was worked out for the text whose whole shape this is.
    pub fn keep(&mut self, text: &[u8], shape: &Shape, value: &Arc<V>) {
        if !is_plain(text, shape) || shape.key.len() > LONGEST {
            return;
        }
        if self.sets.is_empty() {
            self.sets.resize_with(SETS, Vec::new);
        }
        self.offered = self.offered.wrapping_add(1);
        let Some(set) = self.sets.get_mut(set_of(text)) else {
            return;
        };
        // Of more texts than there is room for each would drive out another: now and then is enough.
        if set.len() >= WAYS && !self.offered.is_multiple_of(8) {
            return;
        }
        set.truncate(WAYS - 1);
        let mut cut = 0;
        let holes = shape.holes.iter().map(|hole| {
            let at = hole.start - cut;
            // One byte stands for it.
            cut += hole.end - hole.start - 1;
            at
        });
        set.push(Text {
            holes: holes.collect(),
            key: shape.key.as_slice().into(),
            value: value.clone(),
        });
    }
}

/// Whether all that the shape leaves out, and all that the scan has to tell of it, is what [`Text::is_like`] knows of.
fn is_plain(text: &[u8], shape: &Shape) -> bool {
    let beginning = text.len().min(BEGINNING);
    let mut holes = shape.holes.iter();
    !shape.opaque
        && !shape.hinted
        && shape.semicolons.is_empty()
        && holes.all(|hole| {
            let first = text[hole.start as usize];
            hole.start as usize >= beginning
                && match hole.kind {
                    HoleKind::Number => first.is_ascii_digit(),
                    HoleKind::String => first == b'\'',
                    _ => false,
                }
        })
}

fn set_of(text: &[u8]) -> usize {
    let hash = match text.first_chunk::<BEGINNING>() {
        Some(beginning) => {
            let all = u128::from_ne_bytes(*beginning);
            (all as u64).rotate_left(23) ^ (all >> 64) as u64
        }
        None => text.iter().fold(0, |hash, b| {
            (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
        }),
    };
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize % SETS
}

impl<V> Text<V> {
    fn is_like(&self, text: &[u8], shape: &mut Shape) -> bool {
        shape.holes.clear();
        let (mut at, mut from) = (0, 0);
        for hole in &self.holes {
            let to = *hole as usize;
            let same = &self.key[from..to];
            let Some(bytes) = text.get(at..at + same.len()) else {
                return false;
            };
            if bytes != same {
                return false;
            }
            at += same.len();
            let (end, kind) = match (self.key[to], text.get(at)) {
                (1, Some(b'0'..=b'9')) => (Some(number_end(text, at)), HoleKind::Number),
                (2, Some(b'\'')) => {
                    let mut hinted = false;
                    let end = string_end(text, at, Quoting::Doubled, &mut hinted);
                    (end.filter(|_| !hinted), HoleKind::String)
                }
                _ => return false,
            };
            let Some(end) = end else { return false };
            shape.holes.push(Hole {
                start: at as u32,
                end: end as u32,
                kind,
            });
            (at, from) = (end, to + 1);
        }
        if text[at..] != self.key[from..] {
            return false;
        }
        shape.key.clear();
        shape.semicolons.clear();
        (shape.opaque, shape.hinted) = (false, false);
        true
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Whatever the texts are: one that is found to be like an earlier one has its shape.
    #[test]
    fn a_text_like_an_earlier_one_has_its_shape() {
        const PIECES: [&str; 37] = [
            " ",
            " ",
            "a",
            "e",
            "n",
            "x",
            "u&",
            "5",
            "12",
            "0x1f",
            "1e3",
            ".",
            "..",
            ".5",
            "'",
            "''",
            "'b'",
            "E'\\''",
            "--",
            "\n",
            "/*",
            "*/",
            "$",
            "$1",
            "$a$",
            "\"",
            "-",
            "/",
            "(",
            ")",
            ",",
            ";",
            "=",
            "1_000",
            "'\n'",
            "'-- presplit: key=1\n'",
            "\u{1}",
        ];
        let mut random = StdRng::seed_from_u64(7);
        let (mut found, mut kept) = (0, 0);
        for _ in 0..2_000 {
            let mut earlier = Earlier::default();
            let words: Vec<&str> = (0..random.random_range(1..12))
                .map(|_| PIECES[random.random_range(0..PIECES.len())])
                .collect();
            for _ in 0..30 {
                let mut words = words.clone();
                for word in &mut words {
                    if random.random_ratio(1, 5) {
                        *word = PIECES[random.random_range(0..PIECES.len())];
                    }
                }
                let begin = ["SELECT something ", ""][random.random_range(0..2)];
                let text = format!("{begin}{}", words.concat()).into_bytes();
                let (mut whole, mut again) = (Shape::default(), Shape::default());
                let scanned = whole.scan(&text);
                if let Some(key) = earlier.find(&text, &mut again) {
                    assert_eq!(scanned, Ok(()), "{}", String::from_utf8_lossy(&text));
                    assert_eq!(*key, whole.key, "{}", String::from_utf8_lossy(&text));
                    assert_eq!(again.holes, whole.holes);
                    assert_eq!(again.semicolons, whole.semicolons);
                    assert_eq!((again.opaque, again.hinted), (whole.opaque, whole.hinted));
                    found += 1;
                } else if scanned.is_ok() {
                    earlier.keep(&text, &whole, &Arc::new(whole.key.clone()));
                    kept += 1;
                }
            }
        }
        assert!(found > 500 && kept > 500, "{found} found, {kept} kept");
    }

    #[test]
    fn the_usual_text_is_found_again() {
        let mut earlier = Earlier::default();
        let mut shape = Shape::default();
        let text = |n: u32, name: &str| {
            format!("SELECT balance FROM accounts WHERE id = {n} AND name = '{name}'")
        };
        shape.scan(text(1, "a").as_bytes()).unwrap();
        earlier.keep(text(1, "a").as_bytes(), &shape, &Arc::new(7));
        for (n, name) in [(1, "a"), (4_000_000, "it''s"), (0, "")] {
            let text = text(n, name);
            assert_eq!(
                earlier.find(text.as_bytes(), &mut shape).as_deref(),
                Some(&7)
            );
            let holes: Vec<&str> = shape
                .holes
                .iter()
                .map(|h| &text[h.start as usize..h.end as usize])
                .collect();
            assert_eq!(holes, [n.to_string(), format!("'{name}'")]);
        }
        for other in [
            "SELECT balance FROM accounts WHERE id = 1 AND name = 'a' ",
            "SELECT balance FROM accounts WHERE id = $1",
        ] {
            assert!(
                earlier.find(other.as_bytes(), &mut shape).is_none(),
                "{other}"
            );
        }
    }
}
