//! The first packets of a connection: encryption requests, cancel requests, the startup message and its negotiation
//! (src/backend/tcop/backend_startup.c, `ProcessStartupPacket`).

use thiserror::Error;

use super::backend;
use super::body::Body;
use super::error::{ErrorFields, SqlState};
use super::stream::{ReadFault, Stream};

/// Protocol version 3.0 as on the wire.
pub const PROTOCOL_3_0: u32 = 0x0003_0000;
/// The newest version that we speak: cancel keys of up to 256 bytes.
pub const PROTOCOL_LATEST: u32 = 0x0003_0002;
/// In place of a version: please cancel (`CANCEL_REQUEST_CODE`, src/include/libpq/pqcomm.h).
pub const CANCEL_REQUEST: u32 = 80_877_102;
/// In place of a version: TLS, please (`NEGOTIATE_SSL_CODE`).
pub const SSL_REQUEST: u32 = 80_877_103;
/// In place of a version: GSSAPI encryption, please (`NEGOTIATE_GSS_CODE`).
pub const GSSENC_REQUEST: u32 = 80_877_104;

/// Most bytes of a first packet, its length field left out (`MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_PACKET: u32 = 10_000;
/// Most bytes of a cancel key's secret part (`MAX_CANCEL_KEY_LENGTH`).
const MAX_CANCEL_SECRET: usize = 256;

/// A first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// The client introduces itself.
    Startup(StartupParams),
    /// It asks for TLS.
    Ssl,
    /// It asks for GSSAPI encryption.
    GssEnc,
    /// It wants a query of another session canceled, and nothing else.
    Cancel {
        /// Opaque; the body of the BackendKeyData that it was given.
        key: Vec<u8>,
    },
}

/// What the client says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartupParams {
    /// Minor version that is spoken from here on: the client's, or our latest if that is lower. 2 and above: cancel
    /// keys may be longer than 8 bytes.
    pub minor: u16,
    /// Minor version that the client asked for.
    pub asked_minor: u16,
    /// All parameters but the protocol options, in the order sent. Of equal names the last counts.
    pub params: Vec<(String, String)>,
    /// Names of the protocol options (`_pq_.*`), none of which we know.
    pub unknown: Vec<String>,
}

/// A handshake that can't go on. The connection ends in any case.
#[derive(Debug, Error)]
pub enum HandshakeFault {
    /// The client left before it said anything, or instead of answering: nothing to log loudly.
    #[error("the client closed the connection")]
    Closed,
    /// What it sent is no Postgres protocol at all. Like Postgres we close without an answer.
    #[error("{0}")]
    Garbage(&'static str),
    /// The client is to be told, then the connection closed.
    #[error("{0}")]
    Refused(Box<ErrorFields>),
    /// The socket failed.
    #[error(transparent)]
    Io(std::io::Error),
}

impl HandshakeFault {
    fn refuse(code: SqlState, message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        ErrorFields::fatal(code, message).into()
    }

    /// Appends what the client is to be told, if anything.
    pub fn write(&self, out: &mut Vec<u8>) {
        if let HandshakeFault::Refused(fields) = self {
            fields.write(out);
        }
    }
}

impl From<ErrorFields> for HandshakeFault {
    fn from(fields: ErrorFields) -> Self {
        HandshakeFault::Refused(Box::new(fields))
    }
}

impl From<std::io::Error> for HandshakeFault {
    fn from(fault: std::io::Error) -> Self {
        HandshakeFault::Io(fault)
    }
}

impl From<ReadFault> for HandshakeFault {
    fn from(fault: ReadFault) -> Self {
        match fault {
            ReadFault::Closed => HandshakeFault::Closed,
            ReadFault::Cut => HandshakeFault::Garbage("incomplete message"),
            ReadFault::Frame(_) => HandshakeFault::Garbage("invalid message length"),
            ReadFault::Io(fault) => HandshakeFault::Io(fault),
        }
    }
}

/// How a connection opens, encryption requests dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A session.
    Startup(StartupParams),
    /// A cancel request; nothing is ever answered.
    Cancel {
        /// Opaque; the body of the BackendKeyData that the session was given.
        key: Vec<u8>,
    },
}

/// Reads first packets until one opens the connection. TLS and GSSAPI encryption are declined, each once.
/// No byte behind the last packet is taken from the socket. The caller bounds the time.
pub async fn open(stream: &mut Stream) -> Result<Opening, HandshakeFault> {
    let (mut ssl_done, mut gss_done) = (false, false);
    let mut packet = Vec::new();
    loop {
        read_packet(stream, &mut packet).await?;
        match first(&packet)? {
            First::Startup(params) => return Ok(Opening::Startup(params)),
            First::Cancel { key } => return Ok(Opening::Cancel { key }),
            // Once TLS is there, it is begun here, and GSSAPI may be asked for only if it was declined.
            First::Ssl if !ssl_done => {
                ssl_done = true;
                decline(stream, "SSL request").await?;
            }
            First::GssEnc if !gss_done => {
                gss_done = true;
                decline(stream, "GSSAPI encryption request").await?;
            }
            First::Ssl => return Err(unsupported_version(SSL_REQUEST)),
            First::GssEnc => return Err(unsupported_version(GSSENC_REQUEST)),
        }
    }
}

/// One packet: a length that covers itself, then a version or code and what belongs to it.
async fn read_packet(stream: &mut Stream, packet: &mut Vec<u8>) -> Result<(), HandshakeFault> {
    let mut len = [0; 4];
    match stream.read_exact(&mut len).await {
        Err(ReadFault::Cut) => return Err(HandshakeFault::Garbage("incomplete startup packet")),
        other => other?,
    }
    let len = u32::from_be_bytes(len).wrapping_sub(4);
    if !(4..=MAX_PACKET).contains(&len) {
        return Err(HandshakeFault::Garbage("invalid length of startup packet"));
    }
    match stream.read_rest(len, packet).await {
        Err(ReadFault::Cut) => Err(HandshakeFault::Garbage("incomplete startup packet")),
        other => Ok(other?),
    }
}

/// Answers `N`. Bytes that came in plain text together with the request could have been put there by somebody in
/// between, so they are a fault, whatever the answer (CVE-2021-23214).
async fn decline(stream: &mut Stream, request: &str) -> Result<(), HandshakeFault> {
    match stream.try_read(&mut [0]) {
        Ok(0) => return Err(HandshakeFault::Closed),
        Ok(_) => {
            let message = format!("received unencrypted data after {request}");
            return Err(ErrorFields::fatal(SqlState::PROTOCOL_VIOLATION, message)
                .detail(
                    "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
                )
                .into());
        }
        Err(fault) if fault.kind() == std::io::ErrorKind::WouldBlock => {}
        Err(fault) => return Err(fault.into()),
    }
    Ok(stream.write_all(b"N").await?)
}

/// Reads one first packet, its length field left out.
pub fn first(packet: &[u8]) -> Result<First, HandshakeFault> {
    let mut body = Body(packet);
    let Ok(version) = body.u32() else {
        return Err(HandshakeFault::Garbage("invalid length of startup packet"));
    };
    match version {
        CANCEL_REQUEST => cancel_key(body.0),
        SSL_REQUEST if body.0.is_empty() => Ok(First::Ssl),
        GSSENC_REQUEST if body.0.is_empty() => Ok(First::GssEnc),
        SSL_REQUEST | GSSENC_REQUEST => {
            Err(HandshakeFault::Garbage("invalid length of startup packet"))
        }
        _ if version >> 16 == 3 => startup_params(version as u16, body.0).map(First::Startup),
        _ => Err(unsupported_version(version)),
    }
}

fn cancel_key(key: &[u8]) -> Result<First, HandshakeFault> {
    // A process id of 4 bytes and a secret of at least as many.
    if !(8..=4 + MAX_CANCEL_SECRET).contains(&key.len()) {
        return Err(HandshakeFault::Garbage(
            "invalid length of cancel request packet",
        ));
    }
    Ok(First::Cancel { key: key.to_vec() })
}

fn unsupported_version(version: u32) -> HandshakeFault {
    let (major, minor) = (version >> 16, version & 0xffff);
    let message = format!(
        "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{}",
        PROTOCOL_LATEST & 0xffff
    );
    HandshakeFault::refuse(SqlState::FEATURE_NOT_SUPPORTED, message)
}

/// Pairs of strings, then one NUL as the very last byte.
fn startup_params(asked_minor: u16, pairs: &[u8]) -> Result<StartupParams, HandshakeFault> {
    let layout = || {
        HandshakeFault::refuse(
            SqlState::PROTOCOL_VIOLATION,
            "invalid startup packet layout: expected terminator as last byte",
        )
    };
    let mut startup = StartupParams {
        minor: asked_minor.min(PROTOCOL_LATEST as u16),
        asked_minor,
        ..StartupParams::default()
    };
    let mut body = Body(pairs);
    loop {
        let name = body.cstr().map_err(|_| layout())?;
        if name.is_empty() {
            break;
        }
        let value = body.cstr().map_err(|_| layout())?;
        let name = text(name, "name of a startup parameter")?;
        if name.starts_with("_pq_.") {
            startup.unknown.push(name);
        } else if name == "application_name" {
            startup.params.push((name, ascii(value)));
        } else {
            let value = text(value, &name)?;
            startup.params.push((name, value));
        }
    }
    body.end().map_err(|_| layout())?;
    Ok(startup)
}

/// Names of users and databases are compared with those of the shard map, which is UTF-8.
fn text(bytes: &[u8], what: &str) -> Result<String, HandshakeFault> {
    let text = std::str::from_utf8(bytes).map_err(|_| {
        HandshakeFault::refuse(
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            format!("invalid byte sequence for encoding \"UTF8\" in startup packet: {what}"),
        )
    })?;
    Ok(text.to_owned())
}

/// An application's name is for show, and Postgres shows only its ASCII (`pg_clean_ascii`).
fn ascii(bytes: &[u8]) -> String {
    let shown = |b: &u8| {
        if (32..127).contains(b) {
            char::from(*b)
        } else {
            '?'
        }
    };
    bytes.iter().map(shown).collect()
}

impl StartupParams {
    /// The last value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut params = self.params.iter().rev();
        params.find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The user; Postgres refuses a connection without one.
    pub fn user(&self) -> Result<&str, HandshakeFault> {
        self.get("user").filter(|u| !u.is_empty()).ok_or_else(|| {
            HandshakeFault::refuse(
                SqlState::INVALID_AUTHORIZATION,
                "no PostgreSQL user name specified in startup packet",
            )
        })
    }

    /// The database; when none is named it is that of the user's name.
    pub fn database(&self) -> Option<&str> {
        let named = self.get("database").filter(|d| !d.is_empty());
        named.or_else(|| self.get("user"))
    }

    /// Whether it wants to be a replication client, which we can't be for it.
    pub fn wants_replication(&self) -> bool {
        let value = self.get("replication").unwrap_or("false");
        !["false", "off", "no", "0", "f", "n"].contains(&value.to_ascii_lowercase().as_str())
    }

    /// Appends the NegotiateProtocolVersion that is due, if the client asked for more than we speak. Goes out before
    /// the first authentication message.
    pub fn negotiate(&self, out: &mut Vec<u8>) {
        if self.asked_minor > self.minor || !self.unknown.is_empty() {
            let version = PROTOCOL_3_0 | u32::from(self.minor);
            backend::negotiate_protocol_version(out, version, &self.unknown);
        }
    }
}
