//! Frames: the 5-byte header that every message but the first has, its limits, and the one place that writes lengths.

use thiserror::Error;

/// Bytes of a frame's tag and length field.
pub const HEADER: usize = 5;

/// Longest stated length of a frontend message that carries no data of unbounded size
/// (`PQ_SMALL_MESSAGE_LIMIT`, src/include/libpq/libpq.h).
pub const SMALL_LIMIT: u32 = 10_000;

/// Longest stated length of the others (`PQ_LARGE_MESSAGE_LIMIT` = `MaxAllocSize - 1`).
pub const LARGE_LIMIT: u32 = 0x3fff_fffe;

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The message type.
    pub tag: u8,
    /// Bytes of the whole frame, tag and length field included: at least [`HEADER`].
    pub len: usize,
}

impl Header {
    /// Bytes behind the header.
    #[inline]
    pub fn body_len(&self) -> usize {
        self.len - HEADER
    }
}

/// A header after which the byte stream has no meaning any more: the connection must end.
/// Postgres logs all but the tag without telling the client (src/backend/libpq/pqcomm.c, `pq_getmessage`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameFault {
    /// The stated length does not even cover its own field, or is negative.
    #[error("invalid message length")]
    Length {
        /// The message type.
        tag: u8,
        /// The length field as sent.
        stated: u32,
    },
    /// Longer than this type of message may be.
    #[error("invalid message length")]
    TooLong {
        /// The message type.
        tag: u8,
        /// The length field as sent.
        stated: u32,
        /// The most that it may be.
        limit: u32,
    },
    /// No frontend message has this type.
    #[error("invalid frontend message type {0}")]
    Tag(u8),
}

/// The header at the start of `buf`; `None` if fewer than 5 bytes are there. The frame itself need not be complete.
#[inline]
pub fn header(buf: &[u8]) -> Result<Option<Header>, FrameFault> {
    let Some(&[tag, a, b, c, d]) = buf.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let stated = u32::from_be_bytes([a, b, c, d]);
    if stated.wrapping_sub(4) > i32::MAX as u32 - 4 {
        return Err(FrameFault::Length { tag, stated });
    }
    Ok(Some(Header {
        tag,
        len: stated as usize + 1,
    }))
}

/// The longest stated length of a frontend message after authentication; `None` for a type that doesn't exist
/// (src/backend/tcop/postgres.c, `SocketBackend`).
#[inline]
pub fn frontend_limit(tag: u8) -> Option<u32> {
    match tag {
        b'Q' | b'F' | b'B' | b'P' | b'd' => Some(LARGE_LIMIT),
        b'C' | b'D' | b'E' | b'H' | b'S' | b'X' | b'c' | b'f' => Some(SMALL_LIMIT),
        _ => None,
    }
}

/// Whether a client may send this type after authentication.
#[inline]
pub fn frontend_tag_known(tag: u8) -> bool {
    frontend_limit(tag).is_some()
}

/// [`header`] for what a client sends after authentication: its type must exist and its length fit the type.
#[inline]
pub fn frontend_header(buf: &[u8]) -> Result<Option<Header>, FrameFault> {
    // The type is judged first, as Postgres does: garbage ought to be called garbage, not too long.
    let Some(&tag) = buf.first() else {
        return Ok(None);
    };
    let limit = frontend_limit(tag).ok_or(FrameFault::Tag(tag))?;
    let Some(header) = header(buf)? else {
        return Ok(None);
    };
    // A header's length is at most i32::MAX + 1, so that it fits a u32.
    let stated = (header.len - 1) as u32;
    if stated > limit {
        return Err(FrameFault::TooLong { tag, stated, limit });
    }
    Ok(Some(header))
}

/// Appends a frame: `body` appends what follows the header, the length is filled in afterwards.
#[inline]
pub fn put(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    put_untagged(out, body);
}

/// [`put`] for the packets without a tag that a connection begins with.
#[inline]
pub fn put_untagged(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    // Nobody accepts a length above i32::MAX, so that one too large ends the connection and can't be misread.
    let len = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

/// Appends a string and its NUL. `text` must hold no NUL: the receiver would take what follows for the next field.
#[inline]
pub fn put_cstr(out: &mut Vec<u8>, text: &[u8]) {
    debug_assert!(!text.contains(&0), "NUL inside a string");
    out.extend_from_slice(text);
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_five_bytes() {
        for n in 0..5 {
            assert_eq!(header(&b"Q\0\0\0\x04"[..n]), Ok(None));
        }
        assert_eq!(
            header(b"S\0\0\0\x04"),
            Ok(Some(Header { tag: b'S', len: 5 }))
        );
        assert_eq!(
            header(b"Q\0\0\x01\x00rest").unwrap().unwrap().body_len(),
            252
        );
    }

    #[test]
    fn refuses_lengths_that_no_frame_has() {
        for stated in [0, 1, 2, 3, 0x8000_0000, u32::MAX] {
            let mut buf = vec![b'D'];
            buf.extend_from_slice(&stated.to_be_bytes());
            assert_eq!(header(&buf), Err(FrameFault::Length { tag: b'D', stated }));
        }
        let longest = [b'D', 0x7f, 0xff, 0xff, 0xff];
        assert_eq!(header(&longest).unwrap().unwrap().len, 0x8000_0000);
    }

    #[test]
    fn frontend_limits_depend_on_the_type() {
        let of = |tag: u8, stated: u32| {
            let mut buf = vec![tag];
            buf.extend_from_slice(&stated.to_be_bytes());
            frontend_header(&buf)
        };
        assert!(of(b'S', 4).is_ok() && of(b'E', SMALL_LIMIT).is_ok());
        assert_eq!(
            of(b'E', SMALL_LIMIT + 1),
            Err(FrameFault::TooLong {
                tag: b'E',
                stated: 10_001,
                limit: 10_000
            })
        );
        assert!(of(b'Q', SMALL_LIMIT + 1).is_ok() && of(b'Q', LARGE_LIMIT).is_ok());
        assert!(of(b'Q', LARGE_LIMIT + 1).is_err());
        assert_eq!(of(b'Z', 4), Err(FrameFault::Tag(b'Z')));
        // Known from its first byte on, and never from a password message after authentication.
        assert_eq!(frontend_header(b"G"), Err(FrameFault::Tag(b'G')));
        assert_eq!(
            frontend_header(b"p\0\0\0\x05\0"),
            Err(FrameFault::Tag(b'p'))
        );
        assert_eq!(frontend_header(b""), Ok(None));
    }

    #[test]
    fn lengths_are_filled_in() {
        let mut out = vec![9];
        put(&mut out, b'Q', |out| put_cstr(out, b"x"));
        put_untagged(&mut out, |_| ());
        assert_eq!(out, b"\x09Q\0\0\0\x06x\0\0\0\0\x04");
    }
}
