//! Logins at a real Postgres, and at strangers.

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
        let options = format!("-p {port} -k {socket} -c listen_addresses=127.0.0.1 -c fsync=off");
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
    std::fs::metadata("/proc/self").is_ok_and(|of| std::os::unix::fs::MetadataExt::uid(&of) == 0)
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
