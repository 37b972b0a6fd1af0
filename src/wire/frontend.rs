//! Frontend messages: borrowed views of what a client sent, and writers for what we send to Postgres.
//! Views take the body of one exact frame (no header) and refuse what Postgres would refuse.

use super::body::{Body, DecodeFault};
use super::frame::{put, put_cstr, put_untagged};

/// Type OIDs as they stand in a Parse message: 4 bytes each, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oids<'a>(&'a [u8]);

impl<'a> Oids<'a> {
    /// Number of OIDs.
    pub fn len(&self) -> usize {
        self.0.len() / 4
    }

    /// No type is stated.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The `n`th, from 0.
    pub fn get(&self, n: usize) -> Option<u32> {
        self.iter().nth(n)
    }

    /// All in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        let (quads, _) = self.0.as_chunks::<4>();
        quads.iter().map(|quad| u32::from_be_bytes(*quad))
    }

    /// The bytes, for keeping or comparing.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// The inverse of [`Oids::as_bytes`]; a rest of fewer than 4 bytes is left out.
    pub fn from_bytes(bytes: &'a [u8]) -> Self {
        Oids(&bytes[..bytes.len() & !3])
    }
}

/// Query: one string of SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The text, without its NUL, in the client's encoding.
    pub text: &'a [u8],
}

impl<'a> Query<'a> {
    /// Reads a body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeFault> {
        let text = only_cstr(body)?;
        Ok(Query { text })
    }
}

/// Parse: makes a prepared statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    /// Name of the statement; empty is the unnamed one.
    pub name: &'a [u8],
    /// The text, without its NUL, in the client's encoding.
    pub query: &'a [u8],
    /// Types of the parameters; may be fewer than there are parameters, 0 leaves one to Postgres.
    pub types: Oids<'a>,
}

impl<'a> Parse<'a> {
    /// Reads a body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeFault> {
        let mut body = Body(body);
        let name = body.cstr()?;
        let query = body.cstr()?;
        let count = usize::from(body.u16()?);
        let types = Oids(body.bytes(count * 4)?);
        body.end()?;
        Ok(Parse { name, query, types })
    }
}

/// Bind: makes a portal of a statement and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    /// Name of the portal; empty is the unnamed one.
    pub portal: &'a [u8],
    /// Name of the statement; empty is the unnamed one.
    pub statement: &'a [u8],
    /// All that follows the two names, so that the message can be sent under other names by copying.
    pub rest: &'a [u8],
    /// Format codes of the parameters, 2 bytes each: none, one for all, or one for each.
    formats: &'a [u8],
    /// The parameters, each behind its length. Checked: holds exactly `count` of them.
    params: &'a [u8],
    count: u16,
    /// Format codes of the result columns, 2 bytes each.
    results: &'a [u8],
}

/// A parameter: its format (0 text, 1 binary; others are for Postgres to refuse) and its bytes, `None` for NULL.
pub type Param<'a> = (i16, Option<&'a [u8]>);

impl<'a> Bind<'a> {
    /// Reads a body. Whether the statement has that many parameters isn't known here.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeFault> {
        let mut body = Body(body);
        let portal = body.cstr()?;
        let statement = body.cstr()?;
        let rest = body.0;
        let formats = codes(&mut body)?;
        let count = body.u16()?;
        let from = body.0;
        for _ in 0..count {
            body.value()?;
        }
        let params = &from[..from.len() - body.0.len()];
        let results = codes(&mut body)?;
        body.end()?;
        Ok(Bind {
            portal,
            statement,
            rest,
            formats,
            params,
            count,
            results,
        })
    }

    /// Number of the parameters' formats, if it does not fit that of the parameters.
    pub fn unfit_formats(&self) -> Option<usize> {
        let stated = self.formats.len() / 2;
        (stated > 1 && stated != self.param_count()).then_some(stated)
    }

    /// Number of parameters.
    pub fn param_count(&self) -> usize {
        usize::from(self.count)
    }

    /// The `n`th parameter, from 0. Walks from the first one: for all of them use [`Bind::params`].
    pub fn param(&self, n: usize) -> Option<Param<'a>> {
        self.params().nth(n)
    }

    /// All parameters in order.
    pub fn params(&self) -> impl Iterator<Item = Param<'a>> + use<'a> {
        let bind = *self;
        let mut body = Body(bind.params);
        // `decode` has walked the same bytes, so that `value` can't fail here.
        (0..bind.param_count()).map_while(move |n| Some((bind.format(n), body.value().ok()?)))
    }

    fn format(&self, n: usize) -> i16 {
        match self.formats.len() {
            0 => 0,
            2 => code(self.formats, 0),
            _ => code(self.formats, n),
        }
    }

    /// Format codes of the result columns: none (all text), one for all, or one for each.
    pub fn result_formats(&self) -> impl ExactSizeIterator<Item = i16> + use<'a> {
        let results = self.results;
        (0..results.len() / 2).map(move |n| code(results, n))
    }
}

/// A count and that many 2-byte codes; the codes.
fn codes<'a>(body: &mut Body<'a>) -> Result<&'a [u8], DecodeFault> {
    let count = usize::from(body.u16()?);
    body.bytes(count * 2)
}

fn code(codes: &[u8], n: usize) -> i16 {
    match codes.get(n * 2..n * 2 + 2) {
        Some(&[a, b]) => i16::from_be_bytes([a, b]),
        _ => 0,
    }
}

/// What a Describe or Close is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A prepared statement, `S`.
    Statement,
    /// A portal, `P`.
    Portal,
}

impl Kind {
    /// As on the wire.
    pub fn as_byte(self) -> u8 {
        match self {
            Kind::Statement => b'S',
            Kind::Portal => b'P',
        }
    }

    fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            b'S' => Some(Kind::Statement),
            b'P' => Some(Kind::Portal),
            _ => None,
        }
    }
}

/// Describe: asks for the types of a statement or the columns of a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Describe<'a> {
    /// Statement or portal.
    pub kind: Kind,
    /// Its name.
    pub name: &'a [u8],
}

impl<'a> Describe<'a> {
    /// Reads a body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeFault> {
        let (kind, name) = kind_and_name(body)?;
        let kind = Kind::from_byte(kind).ok_or(DecodeFault::DescribeKind(kind))?;
        Ok(Describe { kind, name })
    }
}

/// Close: ends a statement or portal; one that isn't there is no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'a> {
    /// Statement or portal.
    pub kind: Kind,
    /// Its name.
    pub name: &'a [u8],
}

impl<'a> Close<'a> {
    /// Reads a body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeFault> {
        let (kind, name) = kind_and_name(body)?;
        let kind = Kind::from_byte(kind).ok_or(DecodeFault::CloseKind(kind))?;
        Ok(Close { kind, name })
    }
}

fn kind_and_name(body: &[u8]) -> Result<(u8, &[u8]), DecodeFault> {
    let mut body = Body(body);
    let kind = body.byte()?;
    let name = body.cstr()?;
    body.end()?;
    Ok((kind, name))
}

/// Execute: runs a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execute<'a> {
    /// Name of the portal; empty is the unnamed one.
    pub portal: &'a [u8],
    /// The most rows to send before PortalSuspended; 0 and below: all.
    pub max_rows: i32,
}

impl<'a> Execute<'a> {
    /// Reads a body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeFault> {
        let mut body = Body(body);
        let portal = body.cstr()?;
        let max_rows = body.i32()?;
        body.end()?;
        Ok(Execute { portal, max_rows })
    }
}

/// FunctionCall: calls a function by OID. Its arguments are not looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionCall<'a> {
    /// `pg_proc.oid`.
    pub function: u32,
    /// All that follows.
    pub rest: &'a [u8],
}

impl<'a> FunctionCall<'a> {
    /// Reads a body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeFault> {
        let mut body = Body(body);
        let function = body.u32()?;
        Ok(FunctionCall {
            function,
            rest: body.0,
        })
    }
}

/// CopyFail: the client gives up its COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyFail<'a> {
    /// Why.
    pub reason: &'a [u8],
}

impl<'a> CopyFail<'a> {
    /// Reads a body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeFault> {
        let reason = only_cstr(body)?;
        Ok(CopyFail { reason })
    }
}

/// PasswordMessage: a password in clear text or as md5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordMessage<'a> {
    /// Without its NUL.
    pub password: &'a [u8],
}

impl<'a> PasswordMessage<'a> {
    /// Reads a body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeFault> {
        let password = only_cstr(body)?;
        Ok(PasswordMessage { password })
    }
}

/// SASLInitialResponse: the mechanism that the client chose and its first message. The second, SASLResponse, is a bare body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaslInitialResponse<'a> {
    /// Name of the mechanism.
    pub mechanism: &'a [u8],
    /// The mechanism's own first message, if it was sent along.
    pub response: Option<&'a [u8]>,
}

impl<'a> SaslInitialResponse<'a> {
    /// Reads a body.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeFault> {
        let mut body = Body(body);
        let mechanism = body.cstr()?;
        let response = body.value()?;
        body.end()?;
        Ok(SaslInitialResponse {
            mechanism,
            response,
        })
    }
}

/// For messages that have no body: Sync, Flush, Terminate, CopyDone.
pub fn no_body(body: &[u8]) -> Result<(), DecodeFault> {
    Body(body).end()
}

fn only_cstr(body: &[u8]) -> Result<&[u8], DecodeFault> {
    let mut body = Body(body);
    let text = body.cstr()?;
    body.end()?;
    Ok(text)
}

/// Appends Query.
pub fn query(out: &mut Vec<u8>, text: &[u8]) {
    put(out, b'Q', |out| put_cstr(out, text));
}

/// Appends Parse. At most 65,535 types.
pub fn parse<T>(out: &mut Vec<u8>, name: &[u8], query: &[u8], types: T)
where
    T: IntoIterator<Item = u32, IntoIter: ExactSizeIterator>,
{
    let types = types.into_iter();
    let count = u16::try_from(types.len()).unwrap_or(u16::MAX);
    put(out, b'P', |out| {
        put_cstr(out, name);
        put_cstr(out, query);
        out.extend_from_slice(&count.to_be_bytes());
        for oid in types.take(usize::from(count)) {
            out.extend_from_slice(&oid.to_be_bytes());
        }
    });
}

/// Appends a Bind whose `rest` is that of a client's ([`Bind::rest`]), under our names.
pub fn bind_renamed(out: &mut Vec<u8>, portal: &[u8], statement: &[u8], rest: &[u8]) {
    put(out, b'B', |out| {
        put_cstr(out, portal);
        put_cstr(out, statement);
        out.extend_from_slice(rest);
    });
}

/// Appends a Bind of these parameters; `results` are the format codes of the result columns.
pub fn bind<'a>(
    out: &mut Vec<u8>,
    portal: &[u8],
    statement: &[u8],
    params: &[Param<'a>],
    results: impl ExactSizeIterator<Item = i16>,
) {
    // Both came as 16-bit counts.
    let count = (params.len() as u16).to_be_bytes();
    put(out, b'B', |out| {
        put_cstr(out, portal);
        put_cstr(out, statement);
        out.extend_from_slice(&count);
        out.extend(params.iter().flat_map(|(format, _)| format.to_be_bytes()));
        out.extend_from_slice(&count);
        for (_, value) in params {
            let len = value.map_or(-1, |value| value.len() as i32);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(value.unwrap_or_default());
        }
        out.extend_from_slice(&(results.len() as u16).to_be_bytes());
        out.extend(results.flat_map(i16::to_be_bytes));
    });
}

/// Appends Describe.
pub fn describe(out: &mut Vec<u8>, kind: Kind, name: &[u8]) {
    put(out, b'D', |out| {
        out.push(kind.as_byte());
        put_cstr(out, name);
    });
}

/// Appends Execute; `max_rows` 0: all.
pub fn execute(out: &mut Vec<u8>, portal: &[u8], max_rows: i32) {
    put(out, b'E', |out| {
        put_cstr(out, portal);
        out.extend_from_slice(&max_rows.to_be_bytes());
    });
}

/// Appends Close.
pub fn close(out: &mut Vec<u8>, kind: Kind, name: &[u8]) {
    put(out, b'C', |out| {
        out.push(kind.as_byte());
        put_cstr(out, name);
    });
}

/// Appends Sync.
pub fn sync(out: &mut Vec<u8>) {
    put(out, b'S', |_| ());
}

/// Appends Flush.
pub fn flush(out: &mut Vec<u8>) {
    put(out, b'H', |_| ());
}

/// Appends Terminate.
pub fn terminate(out: &mut Vec<u8>) {
    put(out, b'X', |_| ());
}

/// Appends CopyData.
pub fn copy_data(out: &mut Vec<u8>, data: &[u8]) {
    put(out, b'd', |out| out.extend_from_slice(data));
}

/// Appends CopyDone.
pub fn copy_done(out: &mut Vec<u8>) {
    put(out, b'c', |_| ());
}

/// Appends CopyFail.
pub fn copy_fail(out: &mut Vec<u8>, reason: &[u8]) {
    put(out, b'f', |out| put_cstr(out, reason));
}

/// Appends a StartupMessage of protocol 3.0. Names and values must hold no NUL, names must not be empty.
pub fn startup(out: &mut Vec<u8>, params: &[(&str, &str)]) {
    put_untagged(out, |out| {
        out.extend_from_slice(&super::startup::PROTOCOL_3_0.to_be_bytes());
        for (name, value) in params {
            put_cstr(out, name.as_bytes());
            put_cstr(out, value.as_bytes());
        }
        out.push(0);
    });
}

/// Appends a CancelRequest; `key` is the body of the BackendKeyData in question, process id included.
pub fn cancel_request(out: &mut Vec<u8>, key: &[u8]) {
    put_untagged(out, |out| {
        out.extend_from_slice(&super::startup::CANCEL_REQUEST.to_be_bytes());
        out.extend_from_slice(key);
    });
}

/// Appends PasswordMessage.
pub fn password(out: &mut Vec<u8>, password: &[u8]) {
    put(out, b'p', |out| put_cstr(out, password));
}

/// Appends SASLInitialResponse.
pub fn sasl_initial_response(out: &mut Vec<u8>, mechanism: &str, response: &[u8]) {
    put(out, b'p', |out| {
        put_cstr(out, mechanism.as_bytes());
        // Our first messages have a few dozen bytes.
        out.extend_from_slice(&(response.len() as u32).to_be_bytes());
        out.extend_from_slice(response);
    });
}

/// Appends SASLResponse.
pub fn sasl_response(out: &mut Vec<u8>, response: &[u8]) {
    put(out, b'p', |out| out.extend_from_slice(response));
}

#[cfg(test)]
mod tests;
