//! A cursor over the body of one exact frame, with the checks and the words of src/backend/libpq/pqformat.c.

use memchr::memchr;
use thiserror::Error;

use super::error::{ErrorFields, SqlState};

/// A body that does not hold what its type promises. The frame's end is known, so the connection can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeFault {
    /// A byte was expected at the end.
    #[error("no data left in message")]
    NoData,
    /// Fewer bytes than a number or a length needs.
    #[error("insufficient data left in message")]
    Short,
    /// A string without its NUL.
    #[error("invalid string in message")]
    NoNul,
    /// Bytes behind the last field.
    #[error("invalid message format")]
    Trailing,
    /// Describe of neither a statement nor a portal.
    #[error("invalid DESCRIBE message subtype {0}")]
    DescribeKind(u8),
    /// Close of neither a statement nor a portal.
    #[error("invalid CLOSE message subtype {0}")]
    CloseKind(u8),
}

impl From<DecodeFault> for ErrorFields {
    fn from(fault: DecodeFault) -> Self {
        ErrorFields::error(SqlState::PROTOCOL_VIOLATION, fault.to_string())
    }
}

/// What is left of a body.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a>(pub &'a [u8]);

impl<'a> Body<'a> {
    /// One byte.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, DecodeFault> {
        let (&first, rest) = self.0.split_first().ok_or(DecodeFault::NoData)?;
        self.0 = rest;
        Ok(first)
    }

    /// A big-endian 16-bit number. Counts are unsigned: up to 65,535 parameters.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, DecodeFault> {
        self.array().map(u16::from_be_bytes)
    }

    /// A big-endian 32-bit number.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, DecodeFault> {
        self.array().map(u32::from_be_bytes)
    }

    /// A big-endian 32-bit number with a sign.
    #[inline]
    pub fn i32(&mut self) -> Result<i32, DecodeFault> {
        self.array().map(i32::from_be_bytes)
    }

    /// The next `N` bytes, copied.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeFault> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeFault::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    /// The next `n` bytes.
    #[inline]
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], DecodeFault> {
        let (first, rest) = self.0.split_at_checked(n).ok_or(DecodeFault::Short)?;
        self.0 = rest;
        Ok(first)
    }

    /// A value behind its 32-bit length; -1 is NULL, other negative lengths are faults.
    #[inline]
    pub fn value(&mut self) -> Result<Option<&'a [u8]>, DecodeFault> {
        match self.i32()? {
            -1 => Ok(None),
            n => {
                let n = usize::try_from(n).map_err(|_| DecodeFault::Short)?;
                self.bytes(n).map(Some)
            }
        }
    }

    /// A string up to its NUL, which is taken but not returned.
    #[inline]
    pub fn cstr(&mut self) -> Result<&'a [u8], DecodeFault> {
        // Names are empty more often than not.
        let end = match self.0.first() {
            Some(0) => 0,
            _ => memchr(0, self.0).ok_or(DecodeFault::NoNul)?,
        };
        let text = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Ok(text)
    }

    /// Nothing may be left.
    #[inline]
    pub fn end(self) -> Result<(), DecodeFault> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DecodeFault::Trailing)
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::wire::backend::{Authentication, CommandComplete, ErrorView, ParameterStatus};
    use crate::wire::error::Severity;
    use crate::wire::frame::{frontend_header, header};
    use crate::wire::frontend::{self, Bind, Close, CopyFail, Describe, Execute, Parse, Query};

    /// If `frame` is whole and decodes, it must come out again byte for byte: nothing was overlooked and nothing
    /// read beyond its end. Whether it decoded.
    fn round_trip(frame: &[u8]) -> bool {
        let Ok(Some(head)) = header(frame) else {
            return false;
        };
        if head.len > frame.len() {
            return false;
        }
        // What follows in the buffer must not be looked at: the body ends where the header says.
        let frame = &frame[..head.len];
        let Some(again) = encode_again(head.tag, &frame[5..]) else {
            return false;
        };
        assert_eq!(again, frame);
        true
    }

    fn encode_again(tag: u8, body: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match tag {
            b'Q' => frontend::query(&mut out, Query::decode(body).ok()?.text),
            b'P' => {
                let view = Parse::decode(body).ok()?;
                frontend::parse(&mut out, view.name, view.query, view.types.iter());
            }
            b'B' => {
                let view = Bind::decode(body).ok()?;
                assert_eq!(view.params().count(), view.param_count());
                let held: usize = view.params().filter_map(|(_, v)| Some(v?.len())).sum();
                assert!(held <= view.rest.len() && view.result_formats().len() <= view.rest.len());
                assert_eq!(view.param(view.param_count()), None);
                frontend::bind_renamed(&mut out, view.portal, view.statement, view.rest);
            }
            b'D' => {
                let view = Describe::decode(body).ok()?;
                frontend::describe(&mut out, view.kind, view.name);
            }
            b'C' => {
                let view = Close::decode(body).ok()?;
                frontend::close(&mut out, view.kind, view.name);
            }
            b'E' => {
                let view = Execute::decode(body).ok()?;
                frontend::execute(&mut out, view.portal, view.max_rows);
            }
            b'f' => frontend::copy_fail(&mut out, CopyFail::decode(body).ok()?.reason),
            b'N' => ErrorView::decode(body)
                .ok()?
                .with_field_replaced(&mut out, b'N', 0, b""),
            _ => return None,
        }
        Some(out)
    }

    fn seeds() -> Vec<Vec<u8>> {
        let mut seeds = vec![Vec::new(); 9];
        frontend::query(&mut seeds[0], b"SELECT * FROM photos WHERE user_id = 42");
        frontend::parse(&mut seeds[1], b"s1", b"SELECT $1, $2", [23, 25, 0]);
        let rest = b"\0\x02\0\0\0\x01\0\x02\0\0\0\x0242\xff\xff\xff\xff\0\x01\0\x01";
        frontend::bind_renamed(&mut seeds[2], b"p", b"s1", rest);
        frontend::describe(&mut seeds[3], frontend::Kind::Portal, b"p");
        frontend::close(&mut seeds[4], frontend::Kind::Statement, b"s1");
        frontend::execute(&mut seeds[5], b"p", 7);
        frontend::copy_fail(&mut seeds[6], b"enough");
        ErrorFields::new(Severity::Notice, SqlState::SUCCESSFUL_COMPLETION, "hello")
            .write(&mut seeds[7]);
        frontend::bind_renamed(&mut seeds[8], b"", b"", b"\0\0\0\0\0\0");
        seeds
    }

    /// Overwrites, cuts, doubles or lengthens; now and then mends the length, so that the body is reached.
    fn mutate(random: &mut StdRng, frame: &mut Vec<u8>) {
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..frame.len());
            match random.random_range(0..6) {
                0 | 1 => frame[at] = random.random(),
                2 => frame[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)],
                3 => frame.truncate(at.max(5)),
                4 => frame.insert(at, random.random()),
                _ => {
                    let end = random.random_range(at..=frame.len());
                    let copy = frame[at..end].to_vec();
                    frame.splice(at..at, copy);
                }
            }
        }
        if frame.len() >= 5 && random.random_bool(0.8) {
            let len = (frame.len() - 1) as u32;
            frame[1..5].copy_from_slice(&len.to_be_bytes());
        }
    }

    #[test]
    fn frames_that_lie_do_no_harm() {
        let mut random = StdRng::seed_from_u64(42);
        let seeds = seeds();
        for seed in &seeds {
            assert!(round_trip(seed), "{seed:?}");
        }
        let mut decoded = 0;
        for _ in 0..100_000 {
            let mut frame = seeds[random.random_range(0..seeds.len())].clone();
            mutate(&mut random, &mut frame);
            decoded += usize::from(round_trip(&frame));
            let _ = frontend_header(&frame);
            // The views that have no writer: they must only survive.
            let body = &frame[frame.len().min(5)..];
            let _ = Authentication::decode(body);
            let _ = ParameterStatus::decode(body);
            let _ = CommandComplete::decode(body).map(|view| (view.rows(), view.command().len()));
            let _ = frontend::SaslInitialResponse::decode(body);
            let _ = frontend::FunctionCall::decode(body);
        }
        // Neither all nor none: the inputs reach both sides of every check.
        assert!((10_000..90_000).contains(&decoded), "{decoded}");
    }

    #[test]
    fn faults_are_protocol_violations_in_postgres_words() {
        let fields = ErrorFields::from(DecodeFault::Short);
        assert_eq!(
            fields.to_string(),
            "ERROR: insufficient data left in message (08P01)"
        );
    }
}
