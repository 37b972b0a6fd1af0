//! A cursor over the body of one exact frame, with the checks and the words of src/backend/libpq/pqformat.c.

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
    /// Formats must be none, one for all, or one for each.
    #[error("bind message has {formats} parameter formats but {params} parameters")]
    BindFormats {
        /// Number of format codes.
        formats: u16,
        /// Number of parameters.
        params: u16,
    },
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
        let nul = self.0.iter().position(|&b| b == 0);
        let nul = nul.ok_or(DecodeFault::NoNul)?;
        let (text, rest) = self.0.split_at(nul);
        self.0 = &rest[1..];
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
