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
    /// Protocol 1 or 2: told in its own format, then closed.
    #[error("unsupported frontend protocol {}.{}", .0 >> 16, .0 & 0xffff)]
    TooOld(u32),
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
        match self {
            HandshakeFault::Refused(fields) => fields.write(out),
            // Before protocol 3 an error was one string, without a length.
            HandshakeFault::TooOld(version) => {
                let text = format!("EFATAL:  {}\n\0", unsupported_text(*version));
                out.extend_from_slice(text.as_bytes());
            }
            HandshakeFault::Closed | HandshakeFault::Garbage(_) | HandshakeFault::Io(_) => {}
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
    // Looked for before the answer: what comes after it is the client's next packet.
    let early = stream.try_read(&mut [0]);
    stream.write_all(b"N").await?;
    match early {
        Err(fault) if fault.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
        Err(fault) => Err(fault.into()),
        Ok(0) => Err(HandshakeFault::Closed),
        Ok(_) => Err(unencrypted_data(request).into()),
    }
}

fn unencrypted_data(request: &str) -> ErrorFields {
    let message = format!("received unencrypted data after {request}");
    ErrorFields::fatal(SqlState::PROTOCOL_VIOLATION, message).detail(
        "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
    )
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
    if version >> 16 < 3 {
        return HandshakeFault::TooOld(version);
    }
    HandshakeFault::refuse(SqlState::FEATURE_NOT_SUPPORTED, unsupported_text(version))
}

fn unsupported_text(version: u32) -> String {
    format!(
        "unsupported frontend protocol {}.{}: server supports 3.0 to 3.{}",
        version >> 16,
        version & 0xffff,
        PROTOCOL_LATEST & 0xffff
    )
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

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    fn packet(version: u32, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        super::super::frame::put_untagged(&mut out, |out| {
            out.extend_from_slice(&version.to_be_bytes());
            out.extend_from_slice(body);
        });
        out
    }

    fn params(version: u32, body: &[u8]) -> StartupParams {
        match first(&packet(version, body)[4..]) {
            Ok(First::Startup(params)) => params,
            other => panic!("{other:?}"),
        }
    }

    fn told(fault: &HandshakeFault) -> String {
        let mut out = Vec::new();
        fault.write(&mut out);
        // A length may be a byte that is no text.
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn parameters() {
        let p = params(
            PROTOCOL_3_0,
            b"user\0anna\0user\0bert\0application_name\0caf\xc3\xa9\x01\0options\0\0\0",
        );
        assert_eq!(p.user().unwrap(), "bert");
        assert_eq!(p.database(), Some("bert"));
        assert_eq!(p.get("application_name"), Some("caf???"));
        assert_eq!(p.get("options"), Some(""));
        assert_eq!(p.get("User"), None);
        let p = params(PROTOCOL_3_0, b"user\0a\0database\0b\0\0");
        assert_eq!(p.database(), Some("b"));
        for none in [&b"\0"[..], b"user\0\0\0", b"database\0x\0\0"] {
            let fault = params(PROTOCOL_3_0, none).user().unwrap_err();
            assert!(told(&fault).contains("C28000\0Mno PostgreSQL user name specified"));
        }
    }

    #[test]
    fn layouts_that_postgres_refuses() {
        for bad in [
            &b""[..],
            b"user\0",
            b"user\0x\0",
            b"user\0x",
            b"user\0x\0\0\0",
            b"\0x",
            b"user\0x\0database\0",
        ] {
            let fault = first(&packet(PROTOCOL_3_0, bad)[4..]).unwrap_err();
            let told = told(&fault);
            assert!(
                told.contains("SFATAL\0VFATAL\0C08P01\0Minvalid startup packet layout"),
                "{bad:?} {told}"
            );
        }
        let fault = first(&packet(PROTOCOL_3_0, b"user\0\xe9\0\0")[4..]).unwrap_err();
        assert!(told(&fault).contains("C22021\0"));
    }

    #[test]
    fn negotiation() {
        let negotiated = |version, body: &[u8]| {
            let mut out = Vec::new();
            let p = params(version, body);
            p.negotiate(&mut out);
            (p.minor, out)
        };
        for minor in 0..=2 {
            assert_eq!(
                negotiated(PROTOCOL_3_0 + minor, b"\0"),
                (minor as u16, vec![])
            );
        }
        let latest = b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0".to_vec();
        assert_eq!(negotiated(PROTOCOL_3_0 + 3, b"\0"), (2, latest.clone()));
        assert_eq!(negotiated(PROTOCOL_3_0 + 9999, b"\0"), (2, latest));
        // An option that we don't know is named back; the version stays the client's.
        let named = b"v\0\0\0\x14\0\x03\0\0\0\0\0\x01_pq_.xy\0".to_vec();
        assert_eq!(negotiated(PROTOCOL_3_0, b"_pq_.xy\x001\0\0"), (0, named));
    }

    #[test]
    fn other_protocols_are_told_in_their_own_way() {
        let refused = |version| told(&first(&packet(version, b"user\0x\0\0")[4..]).unwrap_err());
        assert_eq!(
            refused(2 << 16),
            "EFATAL:  unsupported frontend protocol 2.0: server supports 3.0 to 3.2\n\0"
        );
        let four = refused((4 << 16) + 1);
        assert!(four.starts_with("E\0\0\0"), "{four}");
        assert!(four.ends_with(
            "SFATAL\0VFATAL\0C0A000\0Munsupported frontend protocol 4.1: server supports 3.0 to 3.2\0\0"
        ));
    }

    #[test]
    fn cancel_keys_are_opaque_and_bounded() {
        for len in [8, 36, 260] {
            let key = vec![7; len];
            let read = first(&packet(CANCEL_REQUEST, &key)[4..]).unwrap();
            assert_eq!(read, First::Cancel { key });
        }
        for len in [0, 4, 7, 261] {
            let fault = first(&packet(CANCEL_REQUEST, &vec![7; len])[4..]).unwrap_err();
            assert!(matches!(fault, HandshakeFault::Garbage(_)), "{len}");
        }
    }

    #[test]
    fn replication_is_noticed() {
        for (value, wants) in [
            ("true", true),
            ("database", true),
            ("0", false),
            ("FALSE", false),
        ] {
            let body = format!("replication\0{value}\0\0");
            assert_eq!(
                params(PROTOCOL_3_0, body.as_bytes()).wants_replication(),
                wants
            );
        }
        assert!(!params(PROTOCOL_3_0, b"\0").wants_replication());
    }

    /// Sends each of `parts` after the answer to the one before; what came back, and how it ended.
    async fn handshake(parts: &[Vec<u8>]) -> (Vec<u8>, Result<Opening, HandshakeFault>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut ours, mut theirs) = (Stream::unix(ours), Stream::unix(theirs));
        let (mut answers, mut one) = (Vec::new(), [0]);
        let client = async {
            for (n, part) in parts.iter().enumerate() {
                theirs.write_all(part).await.unwrap();
                if n + 1 < parts.len() {
                    theirs.read_exact(&mut one).await.unwrap();
                    answers.extend_from_slice(&one);
                }
            }
            // Whatever else is expected, there is no more.
            theirs.shut_down_writing();
            while theirs.read_exact(&mut one).await.is_ok() {
                answers.extend_from_slice(&one);
            }
        };
        let server = async {
            let opening = open(&mut ours).await;
            drop(ours);
            opening
        };
        let ((), opening) = tokio::join!(client, server);
        (answers, opening)
    }

    #[tokio::test]
    async fn encryption_is_declined_once_each() {
        let ssl = packet(SSL_REQUEST, b"");
        let gss = packet(GSSENC_REQUEST, b"");
        let hello = packet(PROTOCOL_3_0, b"user\0x\0\0");
        let parts = [gss.clone(), ssl.clone(), hello.clone()];
        let (answers, opening) = handshake(&parts).await;
        assert_eq!(answers, b"NN");
        assert!(matches!(opening, Ok(Opening::Startup(_))));

        let (answers, opening) = handshake(&[ssl.clone(), ssl.clone()]).await;
        assert_eq!(answers, b"N");
        let fault = told(&opening.unwrap_err());
        assert!(
            fault.contains("unsupported frontend protocol 1234.5679"),
            "{fault}"
        );

        let cancel = packet(CANCEL_REQUEST, b"pid.secret");
        let (answers, opening) = handshake(&[ssl.clone(), cancel]).await;
        assert_eq!(answers, b"N");
        assert_eq!(
            opening.unwrap(),
            Opening::Cancel {
                key: b"pid.secret".to_vec()
            }
        );
    }

    #[tokio::test]
    async fn plain_text_behind_an_encryption_request_is_a_fault() {
        for request in [SSL_REQUEST, GSSENC_REQUEST] {
            let mut both = packet(request, b"");
            both.extend(packet(PROTOCOL_3_0, b"user\0x\0\0"));
            let (answers, opening) = handshake(&[both]).await;
            assert_eq!(answers, b"N");
            assert!(
                told(&opening.unwrap_err()).contains("C08P01\0Mreceived unencrypted data after")
            );
        }
    }

    #[tokio::test]
    async fn garbage_is_closed_without_a_word() {
        for bad in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01",
            b"\0\0\0\0",
            b"\0\0\0\x07abc",
            b"\xff\xff\xff\xff",
            b"\0\0\x27\x15",
            b"\0\0\0\x09\0\x03\0\0",
            b"\0\0",
        ] {
            let (answers, opening) = handshake(&[bad.to_vec()]).await;
            let fault = opening.unwrap_err();
            assert!(
                matches!(fault, HandshakeFault::Garbage(_)),
                "{bad:?} {fault}"
            );
            assert!(answers.is_empty() && told(&fault).is_empty());
        }
        let (_, opening) = handshake(&[vec![]]).await;
        assert!(matches!(opening, Err(HandshakeFault::Closed)));
    }

    #[tokio::test]
    async fn the_longest_packet_and_one_byte_more() {
        let mut body = b"user\0x\0options\0".to_vec();
        body.resize(MAX_PACKET as usize - 4 - 2, b'o');
        body.extend_from_slice(b"\0\0");
        let (_, opening) = handshake(&[packet(PROTOCOL_3_0, &body)]).await;
        assert!(matches!(opening, Ok(Opening::Startup(_))));
        body.insert(20, b'o');
        let (_, opening) = handshake(&[packet(PROTOCOL_3_0, &body)]).await;
        assert!(matches!(opening, Err(HandshakeFault::Garbage(_))));
    }

    #[test]
    fn random_packets_do_no_harm() {
        use rand::{Rng, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let seeds = [
            packet(PROTOCOL_3_0, b"user\0anna\0_pq_.a\0b\0database\0d\0\0"),
            packet(CANCEL_REQUEST, b"12345678"),
            packet(SSL_REQUEST, b""),
        ];
        for _ in 0..100_000 {
            let mut bytes = seeds[random.random_range(0..seeds.len())][4..].to_vec();
            for _ in 0..random.random_range(0..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            bytes.truncate(random.random_range(0..=bytes.len()));
            if let Ok(First::Startup(params)) = first(&bytes) {
                let held: usize = params.params.iter().map(|(n, v)| n.len() + v.len()).sum();
                assert!(held < bytes.len());
            }
        }
    }
}
