//! Backend messages: writers for what we say to a client, and views of the few of Postgres' messages that we look into.
//! Views take the body of one exact frame (no header). Rows are never looked into here.

use super::body::{Body, DecodeFault};
use super::error::{ErrorFields, SqlState};
use super::frame::{put, put_cstr};

/// Appends AuthenticationOk.
pub fn auth_ok(out: &mut Vec<u8>) {
    put(out, b'R', |out| out.extend_from_slice(&[0; 4]));
}

/// Appends AuthenticationSASL with the mechanisms on offer.
pub fn auth_sasl(out: &mut Vec<u8>, mechanisms: &[&str]) {
    put(out, b'R', |out| {
        out.extend_from_slice(&10u32.to_be_bytes());
        for mechanism in mechanisms {
            put_cstr(out, mechanism.as_bytes());
        }
        out.push(0);
    });
}

/// Appends AuthenticationSASLContinue.
pub fn auth_sasl_continue(out: &mut Vec<u8>, data: &[u8]) {
    put(out, b'R', |out| {
        out.extend_from_slice(&11u32.to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// Appends AuthenticationSASLFinal.
pub fn auth_sasl_final(out: &mut Vec<u8>, data: &[u8]) {
    put(out, b'R', |out| {
        out.extend_from_slice(&12u32.to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// Appends NegotiateProtocolVersion: the newest version that we speak and the options that we don't know.
pub fn negotiate_protocol_version(out: &mut Vec<u8>, version: u32, unknown: &[String]) {
    put(out, b'v', |out| {
        out.extend_from_slice(&version.to_be_bytes());
        // Bounded by the length of a startup packet.
        out.extend_from_slice(&(unknown.len() as u32).to_be_bytes());
        for option in unknown {
            put_cstr(out, option.as_bytes());
        }
    });
}

/// Appends ParameterStatus.
pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    put(out, b'S', |out| {
        put_cstr(out, name.as_bytes());
        put_cstr(out, value.as_bytes());
    });
}

/// Appends BackendKeyData; `key` is opaque: a process id of 4 bytes, then a secret of 4 (up to 256 since protocol 3.2).
pub fn backend_key_data(out: &mut Vec<u8>, key: &[u8]) {
    put(out, b'K', |out| out.extend_from_slice(key));
}

/// Appends ReadyForQuery; `status` is `I` idle, `T` in a transaction, `E` in a failed one.
pub fn ready(out: &mut Vec<u8>, status: u8) {
    put(out, b'Z', |out| out.push(status));
}

/// Appends CommandComplete.
pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    put(out, b'C', |out| put_cstr(out, tag.as_bytes()));
}

/// Appends ParseComplete.
pub fn parse_complete(out: &mut Vec<u8>) {
    put(out, b'1', |_| ());
}

/// Appends BindComplete.
pub fn bind_complete(out: &mut Vec<u8>) {
    put(out, b'2', |_| ());
}

/// Appends CloseComplete.
pub fn close_complete(out: &mut Vec<u8>) {
    put(out, b'3', |_| ());
}

/// Appends NoData.
pub fn no_data(out: &mut Vec<u8>) {
    put(out, b'n', |_| ());
}

/// Appends PortalSuspended.
pub fn portal_suspended(out: &mut Vec<u8>) {
    put(out, b's', |_| ());
}

/// Appends EmptyQueryResponse.
pub fn empty_query(out: &mut Vec<u8>) {
    put(out, b'I', |_| ());
}

/// Appends ParameterDescription. At most 65,535 types.
pub fn parameter_description(out: &mut Vec<u8>, types: &[u32]) {
    let count = u16::try_from(types.len()).unwrap_or(u16::MAX);
    put(out, b't', |out| {
        out.extend_from_slice(&count.to_be_bytes());
        for oid in &types[..usize::from(count)] {
            out.extend_from_slice(&oid.to_be_bytes());
        }
    });
}

/// Appends RowDescription for columns of ours, in text format and of no table: name and `pg_type.oid`.
pub fn row_description(out: &mut Vec<u8>, columns: &[(&str, u32)]) {
    row_description_in(out, columns, |_| 0);
}

/// [`row_description`] in a portal's formats, by column: 0 text, 1 binary.
pub fn row_description_in(
    out: &mut Vec<u8>,
    columns: &[(&str, u32)],
    format: impl Fn(usize) -> i16,
) {
    put(out, b'T', |out| {
        out.extend_from_slice(&(columns.len() as u16).to_be_bytes());
        for (n, &(name, oid)) in columns.iter().enumerate() {
            put_cstr(out, name.as_bytes());
            out.extend_from_slice(&[0; 6]); // table OID, column number
            out.extend_from_slice(&oid.to_be_bytes());
            out.extend_from_slice(&type_len(oid).to_be_bytes());
            out.extend_from_slice(&(-1i32).to_be_bytes()); // no type modifier
            out.extend_from_slice(&format(n).to_be_bytes());
        }
    });
}

/// `pg_type.typlen` of the types that we answer in.
fn type_len(oid: u32) -> i16 {
    match oid {
        16 | 18 => 1,                // bool, "char"
        21 => 2,                     // int2
        23 | 26 | 700 => 4,          // int4, oid, float4
        20 | 701 | 1114 | 1184 => 8, // int8, float8, timestamp, timestamptz
        19 => 64,                    // name
        _ => -1,
    }
}

/// Appends DataRow; `None` is NULL.
pub fn data_row(out: &mut Vec<u8>, values: &[Option<&[u8]>]) {
    put(out, b'D', |out| {
        out.extend_from_slice(&(values.len() as u16).to_be_bytes());
        for value in values {
            let Some(value) = value else {
                out.extend_from_slice(&(-1i32).to_be_bytes());
                continue;
            };
            out.extend_from_slice(&(value.len() as u32).to_be_bytes());
            out.extend_from_slice(value);
        }
    });
}

/// A request for authentication, seen from the client's side (`AUTH_REQ_*`, src/include/libpq/protocol.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// Done.
    Ok,
    /// The password itself.
    CleartextPassword,
    /// md5 of password and user, with this salt.
    Md5Password([u8; 4]),
    /// One of these mechanisms, each with its NUL.
    Sasl(&'a [u8]),
    /// The mechanism's next message.
    SaslContinue(&'a [u8]),
    /// The mechanism's last message.
    SaslFinal(&'a [u8]),
    /// A method that we don't speak (Kerberos, GSSAPI, SSPI ...), by number.
    Other(u32),
}

impl<'a> Authentication<'a> {
    /// Reads a body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeFault> {
        let mut body = Body(body);
        Ok(match body.u32()? {
            0 => Authentication::Ok,
            3 => Authentication::CleartextPassword,
            5 => Authentication::Md5Password(body.array()?),
            10 => Authentication::Sasl(body.0),
            11 => Authentication::SaslContinue(body.0),
            12 => Authentication::SaslFinal(body.0),
            other => Authentication::Other(other),
        })
    }
}

/// ErrorResponse or NoticeResponse: fields of a byte and a string each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorView<'a> {
    /// Checked: fields, then the closing NUL, nothing behind.
    body: &'a [u8],
}

impl<'a> ErrorView<'a> {
    /// Whether the server ends the connection with it.
    pub fn is_fatal(&self) -> bool {
        let severity = self.get(b'V').or(self.get(b'S'));
        severity.is_some_and(|s| s == b"FATAL" || s == b"PANIC")
    }

    /// As an error of ours: what identifies it, and its texts.
    pub fn to_fields(&self) -> ErrorFields {
        let text = |field| {
            self.get(field)
                .map(|t| String::from_utf8_lossy(t).into_owned())
        };
        let code = self.code().unwrap_or(SqlState::INTERNAL_ERROR);
        let mut fields = ErrorFields::error(code, text(b'M').unwrap_or_default());
        fields.detail = text(b'D').map(Into::into);
        fields.hint = text(b'H').map(Into::into);
        fields.position = text(b'P').and_then(|p| p.parse().ok());
        fields
    }

    /// Reads a body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeFault> {
        let mut rest = Body(body);
        while rest.byte()? != 0 {
            rest.cstr()?;
        }
        rest.end()?;
        Ok(ErrorView { body })
    }

    /// All fields in the order sent.
    pub fn fields(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut rest = Body(self.body);
        // `decode` has walked the same bytes; the closing NUL ends it.
        std::iter::from_fn(move || match rest.byte() {
            Ok(0) | Err(_) => None,
            Ok(field) => Some((field, rest.cstr().ok()?)),
        })
    }

    /// The first field of this type: `C` SQLSTATE, `M` message, `V` severity, `P` position ...
    pub fn get(&self, field: u8) -> Option<&'a [u8]> {
        self.fields().find(|(f, _)| *f == field).map(|(_, v)| v)
    }

    /// SQLSTATE.
    pub fn code(&self) -> Option<super::error::SqlState> {
        super::error::SqlState::from_field(self.get(b'C')?)
    }

    /// Appends the message under `tag` (`E` or `N`) with the text of every `field` replaced, all else as it was.
    pub fn with_field_replaced(&self, out: &mut Vec<u8>, tag: u8, field: u8, text: &[u8]) {
        put(out, tag, |out| {
            for (f, old) in self.fields() {
                out.push(f);
                put_cstr(out, if f == field { text } else { old });
            }
            out.push(0);
        });
    }

    /// The message under `tag` without the fields of this type.
    pub fn without_field(&self, out: &mut Vec<u8>, tag: u8, field: u8) {
        put(out, tag, |out| {
            for (f, text) in self.fields().filter(|(f, _)| *f != field) {
                out.push(f);
                put_cstr(out, text);
            }
            out.push(0);
        });
    }
}

/// CommandComplete: what was done, and to how many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandComplete<'a> {
    /// For example `INSERT 0 1`, without its NUL.
    pub tag: &'a [u8],
}

impl<'a> CommandComplete<'a> {
    /// Reads a body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeFault> {
        let mut body = Body(body);
        let tag = body.cstr()?;
        body.end()?;
        Ok(CommandComplete { tag })
    }

    /// The number of rows that ends the tag, if there is one.
    pub fn rows(&self) -> Option<u64> {
        let last = self.tag.rsplit(|b| *b == b' ').next()?;
        std::str::from_utf8(last).ok()?.parse().ok()
    }

    /// The tag without its number of rows: `INSERT 0`, `SELECT`, `CREATE TABLE`.
    pub fn command(&self) -> &'a [u8] {
        let last = self.tag.iter().rposition(|b| *b == b' ');
        match last {
            Some(at) if self.rows().is_some() => &self.tag[..at],
            _ => self.tag,
        }
    }
}

/// ParameterStatus: a setting's value at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterStatus<'a> {
    /// The setting.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> ParameterStatus<'a> {
    /// Reads a body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeFault> {
        let mut body = Body(body);
        let name = body.cstr()?;
        let value = body.cstr()?;
        body.end()?;
        Ok(ParameterStatus { name, value })
    }
}

/// The state that a ReadyForQuery tells: `I`, `T` or `E`; anything else is a fault.
pub fn ready_status(body: &[u8]) -> Result<u8, DecodeFault> {
    let mut body = Body(body);
    let status = body.byte()?;
    body.end()?;
    match status {
        b'I' | b'T' | b'E' => Ok(status),
        _ => Err(DecodeFault::Trailing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::error::{ErrorFields, SqlState};

    fn wrote(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn exact_bytes() {
        let cases: &[(Vec<u8>, &[u8])] = &[
            (wrote(auth_ok), b"R\0\0\0\x08\0\0\0\0"),
            (wrote(|o| auth_sasl(o, &["A", "B"])), b"R\0\0\0\x0d\0\0\0\x0aA\0B\0\0"),
            (wrote(|o| auth_sasl_continue(o, b"x")), b"R\0\0\0\x09\0\0\0\x0bx"),
            (wrote(|o| auth_sasl_final(o, b"x")), b"R\0\0\0\x09\0\0\0\x0cx"),
            (
                wrote(|o| negotiate_protocol_version(o, 0x30002, &["_pq_.a".to_owned()])),
                b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.a\0",
            ),
            (wrote(|o| parameter_status(o, "TimeZone", "UTC")), b"S\0\0\0\x11TimeZone\0UTC\0"),
            (
                wrote(|o| backend_key_data(o, b"\0\0\0\x01long secret")),
                b"K\0\0\0\x13\0\0\0\x01long secret",
            ),
            (wrote(|o| ready(o, b'T')), b"Z\0\0\0\x05T"),
            (wrote(|o| command_complete(o, "SET")), b"C\0\0\0\x08SET\0"),
            (wrote(parse_complete), b"1\0\0\0\x04"),
            (wrote(bind_complete), b"2\0\0\0\x04"),
            (wrote(close_complete), b"3\0\0\0\x04"),
            (wrote(no_data), b"n\0\0\0\x04"),
            (wrote(portal_suspended), b"s\0\0\0\x04"),
            (wrote(empty_query), b"I\0\0\0\x04"),
            (wrote(|o| parameter_description(o, &[23])), b"t\0\0\0\x0a\0\x01\0\0\0\x17"),
            (
                wrote(|o| row_description(o, &[("a", 25), ("n", 23)])),
                b"T\0\0\0\x2e\0\x02a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0n\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0",
            ),
            (
                wrote(|o| data_row(o, &[Some(b"hi"), None, Some(b"")])),
                b"D\0\0\0\x14\0\x03\0\0\0\x02hi\xff\xff\xff\xff\0\0\0\0",
            ),
        ];
        for (written, expected) in cases {
            assert_eq!(written, expected);
        }
    }

    #[test]
    fn authentication_requests() {
        use Authentication::*;
        let cases: &[(&[u8], Result<Authentication<'_>, DecodeFault>)] = &[
            (b"\0\0\0\0", Result::Ok(Ok)),
            (b"\0\0\0\x03", Result::Ok(CleartextPassword)),
            (b"\0\0\0\x05salt", Result::Ok(Md5Password(*b"salt"))),
            (b"\0\0\0\x05sal", Err(DecodeFault::Short)),
            (b"\0\0\0\x0aA\0\0", Result::Ok(Sasl(b"A\0\0"))),
            (b"\0\0\0\x07", Result::Ok(Other(7))),
            (b"\0\0\0", Err(DecodeFault::Short)),
        ];
        for (body, expected) in cases {
            assert_eq!(&Authentication::decode(body), expected, "{body:?}");
        }
    }

    #[test]
    fn errors_are_looked_into_and_their_position_moved() {
        let body = b"SFEHLER\0VERROR\0C42703\0Mcolumn \xff\0P12\0Fx.c\0\0";
        let view = ErrorView::decode(body).unwrap();
        assert_eq!(view.code(), Some(SqlState::UNDEFINED_COLUMN));
        assert_eq!(view.get(b'M'), Some(&b"column \xff"[..]));
        assert_eq!(view.get(b'P'), Some(&b"12"[..]));
        assert_eq!(view.get(b'H'), None);
        assert_eq!(view.fields().count(), 6);

        let moved = wrote(|o| view.with_field_replaced(o, b'E', b'P', b"3"));
        assert_eq!(
            &moved[5..],
            b"SFEHLER\0VERROR\0C42703\0Mcolumn \xff\0P3\0Fx.c\0\0"
        );
        assert_eq!(moved[..5], [b'E', 0, 0, 0, (moved.len() - 1) as u8]);
        // One that has no such field stays as it is.
        let same = wrote(|o| view.with_field_replaced(o, b'E', b'H', b"hint"));
        assert_eq!(&same[5..], body);

        let ours = wrote(|o| ErrorFields::fatal(SqlState::ADMIN_SHUTDOWN, "bye").write(o));
        assert_eq!(
            ErrorView::decode(&ours[5..]).unwrap().code(),
            Some(SqlState::ADMIN_SHUTDOWN)
        );

        assert_eq!(ErrorView::decode(b""), Err(DecodeFault::NoData));
        assert_eq!(ErrorView::decode(b"Mx"), Err(DecodeFault::NoNul));
        assert_eq!(ErrorView::decode(b"Mx\0"), Err(DecodeFault::NoData));
        assert_eq!(ErrorView::decode(b"Mx\0\0\0"), Err(DecodeFault::Trailing));
        assert_eq!(ErrorView::decode(b"\0").unwrap().fields().count(), 0);
    }

    #[test]
    fn command_tags() {
        for (tag, rows, command) in [
            (&b"INSERT 0 5\0"[..], Some(5), &b"INSERT 0"[..]),
            (b"SELECT 18446744073709551615\0", Some(u64::MAX), b"SELECT"),
            (b"CREATE TABLE\0", None, b"CREATE TABLE"),
            (b"BEGIN\0", None, b"BEGIN"),
            (b"\0", None, b""),
        ] {
            let view = CommandComplete::decode(tag).unwrap();
            assert_eq!((view.rows(), view.command()), (rows, command));
        }
        assert_eq!(
            CommandComplete::decode(b"SELECT 1"),
            Err(DecodeFault::NoNul)
        );
    }

    #[test]
    fn small_views() {
        let status = ParameterStatus::decode(b"a\0b\0").unwrap();
        assert_eq!((status.name, status.value), (&b"a"[..], &b"b"[..]));
        assert!(ParameterStatus::decode(b"a\0b").is_err());
        assert_eq!(ready_status(b"I"), Ok(b'I'));
        for bad in [&b""[..], b"X", b"II"] {
            assert!(ready_status(bad).is_err());
        }
    }
}
