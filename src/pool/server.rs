//! A server connection's beginning: connect to a host, authenticate, learn its settings; and cancel requests.

use std::io;

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};

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
        Stream::Unix(_) => true,
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

/// Asks the host to cancel what the server connection with this key is doing. Returns when the host has passed it on;
/// whether there was anything to cancel is not known. The caller bounds the time.
pub async fn cancel(target: &Target, key: &[u8]) -> io::Result<()> {
    let mut stream = dial(target).await?;
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
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use tokio::net::TcpListener;

    use super::*;
    use crate::wire::auth::{Mock, Verifier, scram as check_password};
    use crate::wire::backend;
    use crate::wire::startup::{Opening, open};

    const HBA: &str = "
        local all scram_user scram-sha-256
        host all scram_user 127.0.0.1/32 scram-sha-256
        host all md5_user 127.0.0.1/32 md5
        host all clear_user 127.0.0.1/32 password
        host all barred 127.0.0.1/32 reject
        local all all trust
        host all all 127.0.0.1/32 trust
    ";

    /// A Postgres of our own, in a temporary directory, stopped when dropped.
    struct Cluster {
        dir: tempfile::TempDir,
        port: u16,
    }

    impl Cluster {
        fn start() -> Cluster {
            let dir = tempfile::tempdir().unwrap();
            let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = probe.local_addr().unwrap().port();
            drop(probe);
            let cluster = Cluster { dir, port };
            if root() {
                let path = cluster.dir.path();
                assert!(
                    Command::new("chown")
                        .arg("postgres")
                        .arg(path)
                        .status()
                        .unwrap()
                        .success()
                );
            }
            let data = cluster.data();
            cluster.run(
                "initdb",
                &["-D", &data, "-U", "postgres", "-A", "trust", "--no-sync"],
            );
            std::fs::write(cluster.dir.path().join("data/pg_hba.conf"), HBA).unwrap();
            let socket = cluster.dir.path().display();
            let options =
                format!("-p {port} -k {socket} -c listen_addresses=127.0.0.1 -c fsync=off");
            let log = format!("{data}.log");
            cluster.run(
                "pg_ctl",
                &["-D", &data, "-l", &log, "-o", &options, "-w", "start"],
            );
            cluster
        }

        fn data(&self) -> String {
            self.dir.path().join("data").display().to_string()
        }

        /// Postgres refuses to run as root.
        fn run(&self, program: &str, args: &[&str]) {
            let program = programs().join(program);
            let mut command = match root() {
                true => Command::new("runuser"),
                false => Command::new(&program),
            };
            if root() {
                command.args(["-u", "postgres", "--"]).arg(&program);
            }
            let done = command
                .args(args)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            assert!(done.unwrap().success(), "{program:?} {args:?}");
        }

        async fn superuser(&self) -> tokio_postgres::Client {
            let mut config = tokio_postgres::Config::new();
            config.host("127.0.0.1").port(self.port).user("postgres");
            let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client
        }

        fn target(&self, user: &str, password: Option<&str>) -> Target {
            Target {
                host: "127.0.0.1".to_owned(),
                port: self.port,
                user: user.to_owned(),
                password: password.map(str::to_owned),
                dbname: "postgres".to_owned(),
            }
        }
    }

    impl Drop for Cluster {
        fn drop(&mut self) {
            self.run(
                "pg_ctl",
                &["-D", &self.data(), "-m", "immediate", "-w", "stop"],
            );
        }
    }

    fn root() -> bool {
        std::fs::metadata("/proc/self")
            .is_ok_and(|of| std::os::unix::fs::MetadataExt::uid(&of) == 0)
    }

    /// The newest Postgres as Debian lays it out, or whichever is on the PATH.
    fn programs() -> PathBuf {
        let versions = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten();
        let newest = versions.flatten().map(|version| version.path().join("bin"));
        newest.max().unwrap_or_else(|| Path::new("").to_owned())
    }

    /// A query's DataRow values of one column, and the status at its end.
    async fn ask(login: &mut Login, text: &str) -> Result<String, String> {
        let mut out = Vec::new();
        frontend::query(&mut out, text.as_bytes());
        login.stream.write_all(&out).await.unwrap();
        let (mut body, mut answer) = (Vec::new(), Ok(String::new()));
        loop {
            match login.stream.read_frame(100_000, &mut body).await.unwrap() {
                b'D' => answer = Ok(String::from_utf8(body[6..].to_vec()).unwrap()),
                b'E' => {
                    let code = ErrorView::decode(&body).unwrap().code().unwrap();
                    answer = Err(code.to_string());
                }
                b'Z' => return answer,
                _ => {}
            }
        }
    }

    fn refusal(fault: Result<Login, ConnectFault>) -> (String, String) {
        let fault = fault.expect_err("no login");
        match &fault {
            ConnectFault::Refused { code, .. } => (code.to_string(), fault.to_string()),
            ConnectFault::Auth { .. } => ("auth".to_owned(), fault.to_string()),
            ConnectFault::Io { .. } => ("io".to_owned(), fault.to_string()),
            ConnectFault::Protocol { .. } => ("protocol".to_owned(), fault.to_string()),
        }
    }

    #[tokio::test]
    async fn a_real_postgres() {
        let cluster = Cluster::start();
        let admin = cluster.superuser().await;
        admin
            .batch_execute(
                "CREATE ROLE trusted LOGIN;
                 CREATE ROLE barred LOGIN;
                 CREATE ROLE scram_user LOGIN PASSWORD 'pass w\u{f6}rd';
                 CREATE ROLE clear_user LOGIN PASSWORD 'clear';
                 SET password_encryption = 'md5';
                 CREATE ROLE md5_user LOGIN PASSWORD 'md5 pass'",
            )
            .await
            .unwrap();
        logins(&cluster).await;
        refusals(&cluster).await;
        cancels(&cluster).await;
        verifiers(&admin).await;
    }

    async fn logins(cluster: &Cluster) {
        for (user, password) in [
            ("trusted", None),
            ("trusted", Some("not asked for")),
            ("scram_user", Some("pass w\u{f6}rd")),
            ("clear_user", Some("clear")),
            ("md5_user", Some("md5 pass")),
        ] {
            let target = cluster.target(user, password);
            let mut login = connect(&target, &[("application_name", "presplit")])
                .await
                .unwrap();
            assert_eq!(ask(&mut login, "SELECT current_user").await.unwrap(), user);
            let pid = ask(&mut login, "SELECT pg_backend_pid()").await.unwrap();
            assert_eq!(pid, login.pid.to_string());
            assert_eq!(login.key.len(), 8);
            let reported = |name: &str| {
                let mut found = login.parameters.iter().filter(|(n, _)| n == name);
                found.next().map(|(_, v)| v.clone())
            };
            assert_eq!(reported("application_name").unwrap(), "presplit");
            assert_eq!(reported("standard_conforming_strings").unwrap(), "on");
        }
        let mut target = cluster.target("scram_user", Some("pass w\u{f6}rd"));
        target.host = cluster.dir.path().display().to_string();
        let mut login = connect(&target, &[]).await.unwrap();
        assert_eq!(
            ask(&mut login, "SELECT inet_client_addr() IS NULL")
                .await
                .unwrap(),
            "t"
        );
    }

    async fn refusals(cluster: &Cluster) {
        let asked = |user: &'static str, password| {
            let target = cluster.target(user, password);
            async move { refusal(connect(&target, &[]).await) }
        };
        let at = format!("127.0.0.1:{}: ", cluster.port);
        let (code, text) = asked("scram_user", Some("wrong")).await;
        assert_eq!(code, "28P01");
        assert_eq!(
            text,
            format!("{at}FATAL: password authentication failed for user \"scram_user\" (28P01)")
        );
        assert_eq!(asked("md5_user", Some("wrong")).await.0, "28P01");
        assert_eq!(asked("clear_user", Some("wrong")).await.0, "28P01");
        assert_eq!(asked("barred", None).await.0, "28000");
        assert_eq!(asked("no such role", None).await.0, "28000");
        for user in ["scram_user", "md5_user", "clear_user"] {
            let (kind, text) = asked(user, None).await;
            assert_eq!(kind, "auth");
            assert!(text.contains("add it to the host's url"), "{text}");
        }
        let mut target = cluster.target("trusted", None);
        target.dbname = "nowhere".to_owned();
        assert_eq!(refusal(connect(&target, &[]).await).0, "3D000");
        target.dbname = "postgres\0user\0postgres".to_owned();
        assert_eq!(refusal(connect(&target, &[]).await).0, "auth");
        let target = cluster.target("trusted", None);
        assert_eq!(
            refusal(connect(&target, &[("no_such", "x")]).await).0,
            "42704"
        );
        let mut target = cluster.target("trusted", None);
        target.host = "/nowhere".to_owned();
        let (kind, text) = refusal(connect(&target, &[]).await);
        assert_eq!(kind, "io");
        assert!(
            text.starts_with(&format!("/nowhere:{}: connect: ", cluster.port)),
            "{text}"
        );
    }

    async fn cancels(cluster: &Cluster) {
        let target = cluster.target("trusted", None);
        let mut login = connect(&target, &[]).await.unwrap();
        let key = login.key.clone();
        let mut watcher = connect(&target, &[]).await.unwrap();
        let pid = login.pid;
        let begun = Instant::now();
        let sleep = ask(&mut login, "SELECT pg_sleep(60)");
        let stop = async {
            let state = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'"
            );
            while ask(&mut watcher, &state).await.unwrap() != "1" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cancel(&target, &key).await.unwrap();
        };
        let (slept, ()) = tokio::join!(sleep, stop);
        assert_eq!(slept, Err("57014".to_owned()));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    /// Our own server side takes the verifier that this Postgres made.
    async fn verifiers(admin: &tokio_postgres::Client) {
        let sql = "SELECT rolpassword FROM pg_authid WHERE rolname = 'scram_user'";
        let stored: String = admin.query_one(sql, &[]).await.unwrap().get(0);
        let verifier: Verifier = stored.parse().unwrap();
        for (password, fits) in [("pass w\u{f6}rd", true), ("pass word", false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = Target {
                host: "127.0.0.1".to_owned(),
                port: listener.local_addr().unwrap().port(),
                user: "scram_user".to_owned(),
                password: Some(password.to_owned()),
                dbname: "x".to_owned(),
            };
            let (login, ()) = tokio::join!(connect(&target, &[]), serve(listener, &verifier));
            match login {
                Ok(login) => assert!(fits && login.key == b"pid.a longer secret"),
                Err(fault) => assert!(!fits && fault.to_string().ends_with("(28P01)"), "{fault}"),
            }
        }
    }

    async fn serve(listener: TcpListener, verifier: &Verifier) {
        let mut stream = Stream::tcp(listener.accept().await.unwrap().0).unwrap();
        let mut out = Vec::new();
        let Ok(Opening::Startup(params)) = open(&mut stream).await else {
            panic!("no startup")
        };
        let user = params.user().unwrap();
        match check_password(&mut stream, &mut out, user, Some(verifier), &Mock::new()).await {
            Ok(()) => {
                backend::auth_ok(&mut out);
                backend::backend_key_data(&mut out, b"pid.a longer secret");
                backend::ready(&mut out, b'I');
            }
            Err(fault) => fault.write(&mut out),
        }
        stream.write_all(&out).await.unwrap();
    }

    /// What answers is no Postgres, or an odd one.
    #[tokio::test]
    async fn strangers() {
        let notices = b"N\0\0\0\x05\0".repeat(MAX_MESSAGES);
        let statuses = [
            &b"R\0\0\0\x08\0\0\0\0"[..],
            &b"S\0\0\0\x08a\0b\0".repeat(MAX_MESSAGES),
        ]
        .concat();
        let cases: &[(&str, &str, &[u8])] = &[
            ("io", "closed the connection", b""),
            (
                "protocol",
                "invalid message length",
                b"HTTP/1.1 400 Bad Request\r\n\r\n",
            ),
            ("protocol", "invalid message length", b"R\xff\xff\xff\xff"),
            ("protocol", "insufficient data", b"R\0\0\0\x06\0\0"),
            ("protocol", "message type 90", b"Z\0\0\0\x05I"),
            ("protocol", "out of order", b"R\0\0\0\x08\0\0\0\x0b"),
            ("auth", "method 7", b"R\0\0\0\x08\0\0\0\x07"),
            (
                "auth",
                "only the SASL mechanisms OTHER;",
                b"R\0\0\0\x0f\0\0\0\x0aOTHER\0\0",
            ),
            ("protocol", "no data left", b"E\0\0\0\x07Mx\0"),
            ("08004", "x", b"E\0\0\0\x08Mx\0\0"),
            ("io", "in the middle", b"R\0\0\0\x08\0\0\0\0Z\0\0"),
            (
                "protocol",
                "message type 68",
                b"R\0\0\0\x08\0\0\0\0D\0\0\0\x04",
            ),
            ("protocol", "notices without end", &notices),
            ("protocol", "login without end", &statuses),
        ];
        for (kind, text, bytes) in cases {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = Target {
                host: "127.0.0.1".to_owned(),
                port: listener.local_addr().unwrap().port(),
                user: "u".to_owned(),
                password: Some("p".to_owned()),
                dbname: "d".to_owned(),
            };
            let stranger = async {
                let mut stream = Stream::tcp(listener.accept().await.unwrap().0).unwrap();
                open(&mut stream).await.unwrap();
                let _ = stream.write_all(bytes).await;
            };
            let (login, ()) = tokio::join!(connect(&target, &[]), stranger);
            let (is, says) = refusal(login);
            assert_eq!(&is, kind, "{says}");
            assert!(says.contains(text), "{says}");
        }
    }

    #[test]
    fn passwords_do_not_show() {
        let target = Target {
            host: "h".to_owned(),
            port: 5432,
            user: "u".to_owned(),
            password: Some("secret".to_owned()),
            dbname: "d".to_owned(),
        };
        assert_eq!(format!("{target:?} {target}"), "u@h:5432/d h:5432");
    }
}
