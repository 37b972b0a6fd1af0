//! The binary format: a head, rows of counted fields, a trailer.

use std::borrow::Cow;

use super::{Field, NoHead, Row, Step};

/// What binary data begins with (`BinarySignature`).
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Signature, flags, length of the extension.
const HEAD: usize = SIGNATURE.len() + 8;

/// Cuts binary data. See `ReceiveCopyBinaryHeader` and `NextCopyFrom`.
#[derive(Debug, Default)]
pub(super) struct Binary {
    /// Fields and bytes of the row at the front that are walked over already.
    fields: usize,
    at: usize,
}

impl Binary {
    pub(super) fn next(&mut self, data: &[u8], whole: bool) -> Step {
        let Some(count) = data.first_chunk::<2>() else {
            return match (whole, data.len()) {
                (false, _) => Step::More,
                (true, 0) => Step::End,
                (true, _) => Step::Broken,
            };
        };
        let count = match i16::from_be_bytes(*count) {
            -1 => return trailer(&data[2..], whole),
            count => match usize::try_from(count) {
                Ok(count) => count,
                Err(_) => return Step::Broken,
            },
        };
        self.at = self.at.max(2);
        while self.fields < count {
            let Some(size) = data.get(self.at..).and_then(|rest| rest.first_chunk::<4>()) else {
                return incomplete(whole);
            };
            let size = match i32::from_be_bytes(*size) {
                -1 => 0,
                size => match usize::try_from(size) {
                    Ok(size) => size,
                    Err(_) => return Step::Broken,
                },
            };
            if data.len() - self.at - 4 < size {
                return incomplete(whole);
            }
            self.at += 4 + size;
            self.fields += 1;
        }
        let len = self.at;
        (self.at, self.fields) = (0, 0);
        Step::Row(Row {
            len,
            body: len,
            lines: 1,
            lines_if_first: 1,
        })
    }
}

/// Bytes of the head.
pub(super) fn head(data: &[u8]) -> Result<Option<usize>, NoHead> {
    let signature = data.len().min(SIGNATURE.len());
    if data[..signature] != SIGNATURE[..signature] {
        return Err(NoHead);
    }
    let Some((_, [flags @ .., a, b, c, d])) = data.get(..HEAD).map(|h| h.split_at(SIGNATURE.len()))
    else {
        return Ok(None);
    };
    let extension = i32::from_be_bytes([*a, *b, *c, *d]);
    // No flag has a meaning any more.
    match (usize::try_from(extension), flags) {
        (Ok(extension), [0, 0, ..]) => Ok(Some(HEAD + extension).filter(|len| *len <= data.len())),
        _ => Err(NoHead),
    }
}

/// Nothing may follow the trailer.
fn trailer(rest: &[u8], whole: bool) -> Step {
    match (rest, whole) {
        ([], true) => Step::End,
        ([], false) => Step::More,
        _ => Step::Broken,
    }
}

fn incomplete(whole: bool) -> Step {
    match whole {
        true => Step::Broken,
        false => Step::More,
    }
}

/// The fields of a row.
pub(super) fn fields<'r>(row: &'r [u8], wanted: &[usize], found: &mut dyn FnMut(usize, Field<'r>)) {
    let mut rest = row.get(2..).unwrap_or_default();
    let mut number = 0;
    for &want in wanted {
        loop {
            let Some((size, after)) = rest.split_first_chunk::<4>() else {
                found(want, Field::Missing);
                break;
            };
            let size = i32::from_be_bytes(*size);
            let value = after
                .get(..usize::try_from(size).unwrap_or(0))
                .unwrap_or_default();
            if number == want {
                found(
                    want,
                    match size {
                        -1 => Field::Null,
                        _ => Field::Value(Cow::Borrowed(value)),
                    },
                );
                break;
            }
            rest = &after[value.len()..];
            number += 1;
        }
    }
}
