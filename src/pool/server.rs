//! A server connection's beginning: connect to a host, authenticate, learn its settings; and cancel requests.

use std::io;

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};

use crate::shardmap::{HostAddr, HostUrl};
use crate::wire::backend::{Authentication, ErrorView, ParameterStatus};
use crate::wire::body::DecodeFault;
use crate::wire::error::SqlState;
use crate::wire::frontend;
use crate::wire::stream::{ReadFault, Stream};

/// Longest stated length of a message during login. Postgres' longest by far are its errors.
const MAX_MESSAGE: u32 = 65_536;
/// Most messages during login; Postgres sends about 20.
const MAX_MESSAGES: usize = 1_000;

/// A database on a host, and as whom to connect.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Name or address; a directory with the host's Unix socket when it starts with `/`.
    pub host: String,
    /// TCP port, also part of the Unix socket's name.
    pub port: u16,
    /// The user.
    pub user: String,
    /// The password, if one may be asked for.
    pub password: Option<String>,
    /// The database.
    pub dbname: String,
}

impl From<&HostUrl> for Target {
    fn from(url: &HostUrl) -> Target {
        Target {
            host: match &url.host {
                HostAddr::Tcp(host) => host.clone(),
                HostAddr::Unix(dir) => dir.to_string_lossy().into_owned(),
            },
            port: url.port,
            user: url.user.clone(),
            password: url.password.as_ref().map(|p| p.expose().to_owned()),
            dbname: url.dbname.clone(),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}@{}:{}/{}",
            self.user, self.host, self.port, self.dbname
        )
    }
}

/// A server connection that is ready for queries, nothing unread.
#[derive(Debug)]
pub struct Login {
    /// The socket.
    pub stream: Stream,
    /// BackendKeyData: opaque, for [`cancel`]. Empty if the host sent none (then it can't cancel).
    pub key: Vec<u8>,
    /// ParameterStatus, in the order sent; the last of a name counts.
    pub parameters: Vec<(String, String)>,
    /// Process id at the host: the first 4 bytes of `key`; 0 without one.
    pub pid: i32,
}

/// Why there is no server connection. Texts begin with the host and end with what would mend it, where we know.
#[derive(Debug, Error)]
pub enum ConnectFault {
    /// No connection, or it broke during login.
    #[error("{at}: {what}: {source}")]
    Io {
        /// host:port.
        at: String,
        /// What was tried.
        what: &'static str,
        /// What came of it.
        source: io::Error,
    },
    /// Postgres refused, in its own words.
    #[error("{at}: {severity}: {message} ({code})")]
    Refused {
        /// host:port.
        at: String,
        /// FATAL, as a rule.
        severity: String,
        /// SQLSTATE: 28P01 wrong password, 3D000 no such database, 53300 too many connections, 57P03 starting up ...
        code: SqlState,
        /// Primary message.
        message: String,
        /// DETAIL, if there is one.
        detail: Option<String>,
        /// HINT, if there is one.
        hint: Option<String>,
    },
    /// It wants a password, or a way of login, that we don't have or don't allow.
    #[error("{at}: {why}")]
    Auth {
        /// host:port.
        at: String,
        /// What it wants and what would mend it.
        why: String,
    },
    /// It does not speak as Postgres does.
    #[error("{at}: {why}: is that a Postgres server?")]
    Protocol {
        /// host:port.
        at: String,
        /// What it did.
        why: String,
    },
}

impl ConnectFault {
    /// Opening the connection took longer than `limit`.
    pub fn timed_out(target: &Target, limit: std::time::Duration) -> ConnectFault {
        let source = io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {limit:?}"));
        ConnectFault::Io {
            at: target.to_string(),
            what: "connect",
            source,
        }
    }

    /// Whether the host as a whole takes no one just now, so that another try at once is of no use.
    pub fn is_host_down(&self) -> bool {
        match self {
            ConnectFault::Io { .. } => true,
            ConnectFault::Refused { code, .. } => *code == SqlState::CANNOT_CONNECT_NOW,
            _ => false,
        }
    }

    /// The SQLSTATE that a client is given.
    pub fn sqlstate(&self) -> SqlState {
        match self {
            ConnectFault::Refused { code, .. } => *code,
            _ => SqlState::CANNOT_CONNECT,
        }
    }
}

/// Why a step of the login failed; [`connect`] adds the place.
enum Step {
    Io(&'static str, io::Error),
    Refused(Vec<u8>),
    Auth(String),
    Protocol(String),
}

impl From<ReadFault> for Step {
    fn from(fault: ReadFault) -> Self {
        match fault {
            ReadFault::Io(fault) => Step::Io("read", fault),
            ReadFault::Closed | ReadFault::Cut => {
                let fault = io::Error::new(io::ErrorKind::UnexpectedEof, fault.to_string());
                Step::Io("login", fault)
            }
            ReadFault::Frame(fault) => Step::Protocol(fault.to_string()),
        }
    }
}

impl From<DecodeFault> for Step {
    fn from(fault: DecodeFault) -> Self {
        Step::Protocol(fault.to_string())
    }
}

/// Connects and logs in: trust, password (clear text only where nobody can listen), md5, SCRAM-SHA-256.
/// `extra` are further startup parameters, such as `application_name`. The caller bounds the time.
pub async fn connect(target: &Target, extra: &[(&str, &str)]) -> Result<Login, ConnectFault> {
    match login(target, extra).await {
        Ok(login) => Ok(login),
        Err(step) => Err(at(target, step)),
    }
}

fn at(target: &Target, step: Step) -> ConnectFault {
    let at = target.to_string();
    match step {
        Step::Io(what, source) => ConnectFault::Io { at, what, source },
        Step::Auth(why) => ConnectFault::Auth { at, why },
        Step::Protocol(why) => ConnectFault::Protocol { at, why },
        Step::Refused(body) => match ErrorView::decode(&body) {
            Ok(view) => refused(at, view),
            Err(fault) => ConnectFault::Protocol {
                at,
                why: fault.to_string(),
            },
        },
    }
}

fn refused(at: String, view: ErrorView<'_>) -> ConnectFault {
    let text = |field| Some(String::from_utf8_lossy(view.get(field)?).into_owned());
    ConnectFault::Refused {
        at,
        severity: text(b'V').or_else(|| text(b'S')).unwrap_or_default(),
        code: view.code().unwrap_or(SqlState::CONNECTION_REJECTED),
        message: text(b'M').unwrap_or_default(),
        detail: text(b'D'),
        hint: text(b'H'),
    }
}

async fn login(target: &Target, extra: &[(&str, &str)]) -> Result<Login, Step> {
    let packet = startup_packet(target, extra)?;
    let mut stream = dial(target).await.map_err(|e| Step::Io("connect", e))?;
    write(&mut stream, &packet).await?;
    authenticate(&mut stream, target).await?;
    settle(stream).await
}

fn startup_packet(target: &Target, extra: &[(&str, &str)]) -> Result<Vec<u8>, Step> {
    let mut params = vec![("user", target.user.as_str()), ("database", &target.dbname)];
    params.extend_from_slice(extra);
    // A NUL, as from %00 in an URL, would end the value and make the rest the next parameter.
    if params
        .iter()
        .any(|(n, v)| n.contains('\0') || v.contains('\0'))
    {
        return Err(Step::Auth(
            "a startup parameter holds a zero byte: take it out".to_owned(),
        ));
    }
    let mut packet = Vec::new();
    frontend::startup(&mut packet, &params);
    Ok(packet)
}

async fn dial(target: &Target) -> io::Result<Stream> {
    if target.host.starts_with('/') {
        let path = format!("{}/.s.PGSQL.{}", target.host, target.port);
        return UnixStream::connect(path).await.map(Stream::unix);
    }
    Stream::tcp(TcpStream::connect((target.host.as_str(), target.port)).await?)
}

async fn write(stream: &mut Stream, bytes: &[u8]) -> Result<(), Step> {
    let written = stream.write_all(bytes).await;
    written.map_err(|fault| Step::Io("write", fault))
}

/// The next message that matters: an error ends the login, notices are passed over.
async fn read(stream: &mut Stream, body: &mut Vec<u8>) -> Result<u8, Step> {
    for _ in 0..MAX_MESSAGES {
        match stream.read_frame(MAX_MESSAGE, body).await? {
            b'E' => return Err(Step::Refused(std::mem::take(body))),
            b'N' => {}
            tag => return Ok(tag),
        }
    }
    Err(Step::Protocol("it sends notices without end".to_owned()))
}

/// Answers what the host asks until AuthenticationOk.
async fn authenticate(stream: &mut Stream, target: &Target) -> Result<(), Step> {
    let mut body = Vec::new();
    let mut out = Vec::new();
    let request = read_auth(stream, &mut body).await?;
    let password = |method: &str| {
        target.password.as_deref().ok_or_else(|| {
            Step::Auth(format!(
                "the host asks user \"{}\" for a password ({method}), and the shard map has none: add it to the host's url",
                target.user
            ))
        })
    };
    match request {
        Authentication::Ok => return Ok(()),
        Authentication::Sasl(mechanisms) => {
            offers_scram(mechanisms)?;
            let password = password("SCRAM-SHA-256")?.to_owned();
            scram(stream, password).await?;
        }
        Authentication::Md5Password(salt) => {
            let password = password("md5")?;
            let hash = md5_hash(target.user.as_bytes(), password.as_bytes(), salt);
            frontend::password(&mut out, hash.as_bytes());
        }
        Authentication::CleartextPassword => {
            let password = password("clear text")?;
            if !private(stream) {
                return Err(Step::Auth(
                    "the host asks for the password in clear text over an unencrypted connection: \
                     set the method to scram-sha-256 in its pg_hba.conf"
                        .to_owned(),
                ));
            }
            no_nul(password)?;
            frontend::password(&mut out, password.as_bytes());
        }
        other => return Err(unsupported(other)),
    }
    write(stream, &out).await?;
    match read_auth(stream, &mut body).await? {
        Authentication::Ok => Ok(()),
        other => Err(unsupported(other)),
    }
}

async fn read_auth<'b>(
    stream: &mut Stream,
    body: &'b mut Vec<u8>,
) -> Result<Authentication<'b>, Step> {
    match read(stream, body).await? {
        b'R' => Ok(Authentication::decode(body)?),
        tag => Err(Step::Protocol(format!(
            "message type {tag} where an authentication request was expected"
        ))),
    }
}

fn unsupported(request: Authentication<'_>) -> Step {
    match request {
        Authentication::Other(method) => Step::Auth(format!(
            "the host asks for authentication method {method}, which is not supported: \
             set the method to scram-sha-256 in its pg_hba.conf"
        )),
        _ => Step::Protocol("authentication messages out of order".to_owned()),
    }
}

fn no_nul(password: &str) -> Result<(), Step> {
    if password.contains('\0') {
        return Err(Step::Auth(
            "the password holds a zero byte, which Postgres does not allow".to_owned(),
        ));
    }
    Ok(())
}

/// Whether what we send stays on this machine.
fn private(stream: &Stream) -> bool {
    match stream {
        Stream::Unix(_) | Stream::Seat(_) => true,
        Stream::Tcp(socket) => socket
            .peer_addr()
            .is_ok_and(|addr| addr.ip().to_canonical().is_loopback()),
    }
}

fn offers_scram(mechanisms: &[u8]) -> Result<(), Step> {
    let mut names = mechanisms.split(|b| *b == 0);
    if names.any(|name| name == SCRAM_SHA_256.as_bytes()) {
        return Ok(());
    }
    let names = String::from_utf8_lossy(mechanisms).replace('\0', " ");
    Err(Step::Auth(format!(
        "the host offers only the SASL mechanisms {}; SCRAM-SHA-256 is needed",
        names.trim_end()
    )))
}

/// The SCRAM exchange up to and including the host's proof that it, too, knows the password.
async fn scram(stream: &mut Stream, password: String) -> Result<(), Step> {
    let (mut body, mut out) = (Vec::new(), Vec::new());
    let refuse = |fault: io::Error| Step::Auth(format!("SCRAM-SHA-256: {fault}"));

    let mut exchange = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    frontend::sasl_initial_response(&mut out, SCRAM_SHA_256, exchange.message());
    write(stream, &out).await?;

    let Authentication::SaslContinue(challenge) = read_auth(stream, &mut body).await? else {
        return Err(Step::Protocol("no SCRAM challenge".to_owned()));
    };
    let challenge = challenge.to_vec();
    // Thousands of rounds of HMAC: milliseconds in which this thread's sessions would stand still.
    let hashed = tokio::task::spawn_blocking(move || {
        exchange.update(&challenge)?;
        Ok(exchange)
    });
    let hashed = hashed
        .await
        .map_err(|stopped| refuse(io::Error::other(stopped)))?;
    let mut exchange = hashed.map_err(refuse)?;
    out.clear();
    frontend::sasl_response(&mut out, exchange.message());
    write(stream, &out).await?;

    let Authentication::SaslFinal(proof) = read_auth(stream, &mut body).await? else {
        return Err(Step::Protocol("no SCRAM proof".to_owned()));
    };
    exchange.finish(proof).map_err(refuse)
}

/// From AuthenticationOk to ReadyForQuery: settings and the cancel key.
async fn settle(mut stream: Stream) -> Result<Login, Step> {
    let mut body = Vec::new();
    let (mut key, mut parameters) = (Vec::new(), Vec::new());
    for _ in 0..MAX_MESSAGES {
        match read(&mut stream, &mut body).await? {
            b'S' => {
                let status = ParameterStatus::decode(&body)?;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                parameters.push((text(status.name), text(status.value)));
            }
            b'K' => key.clone_from(&body),
            b'Z' => {
                let pid = key.first_chunk().map_or(0, |pid| i32::from_be_bytes(*pid));
                return Ok(Login {
                    stream,
                    key,
                    parameters,
                    pid,
                });
            }
            tag => return Err(Step::Protocol(format!("message type {tag} during login"))),
        }
    }
    Err(Step::Protocol("a login without end".to_owned()))
}

/// Runs a Query of our own on a connection with nothing outstanding. The caller bounds the time.
pub(super) async fn run_alone(conn: &mut super::conn::ServerConn, text: &str) -> io::Result<()> {
    let mut query = Vec::new();
    frontend::query(&mut query, text.as_bytes());
    conn.stream.write_all(&query).await?;
    let (mut body, mut refused) = (Vec::new(), false);
    loop {
        let read = conn.stream.read_frame(MAX_MESSAGE, &mut body).await;
        match read.map_err(io::Error::other)? {
            b'E' => refused = true,
            b'S' => {
                let status = ParameterStatus::decode(&body).map_err(io::Error::other)?;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                conn.report(&text(status.name), &text(status.value));
            }
            b'Z' if refused || body != b"I" => return Err(io::Error::other("refused")),
            b'Z' => return Ok(()),
            _ => {}
        }
    }
}

/// Asks the host to cancel what the server connection with this key is doing. Returns when the host has passed it on;
/// whether there was anything to cancel is not known. The caller bounds the time.
pub async fn cancel(target: &Target, key: &[u8]) -> io::Result<()> {
    cancel_over(dial(target).await?, key).await
}

/// The same of any server that speaks the protocol, such as another proxy.
pub async fn cancel_at(host: &str, port: u16, key: &[u8]) -> io::Result<()> {
    cancel_over(Stream::tcp(TcpStream::connect((host, port)).await?)?, key).await
}

async fn cancel_over(mut stream: Stream, key: &[u8]) -> io::Result<()> {
    let mut packet = Vec::new();
    frontend::cancel_request(&mut packet, key);
    stream.write_all(&packet).await?;
    // The host closes when it is done. Until then a new query on that connection could be hit instead.
    match stream.read_exact(&mut [0]).await {
        Err(ReadFault::Io(fault)) if fault.kind() != io::ErrorKind::ConnectionReset => Err(fault),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
