//! A real `presplit serve` process in front of hosts.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::{Hosts, Seam};

/// How long a test waits for something that is to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The process, its port, and all that it has said. Killed when dropped.
pub struct Proxy {
    child: Child,
    listen: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Proxy {
    /// In front of these hosts, with their map file as it is.
    pub fn start(hosts: &Hosts) -> Proxy {
        Proxy::serve(&hosts.map_file(), &[])
    }

    /// With any map file and further flags. Waits until it says that it is listening.
    pub fn serve(map_file: &Path, flags: &[&str]) -> Proxy {
        let mut command = Command::new(env!("CARGO_BIN_EXE_presplit"));
        command.arg("serve").arg("--map").arg(map_file).args(flags);
        Proxy::spawn(command)
    }

    /// One that can be stopped between the steps of a commit over several hosts.
    pub fn with_seam(map_file: &Path, seam: &Seam) -> Proxy {
        let mut command = Command::new(env!("CARGO_BIN_EXE_presplit"));
        command.arg("serve").arg("--map").arg(map_file);
        command.env("PRESPLIT_SEAM", seam.dir());
        Proxy::spawn(command)
    }

    fn spawn(mut command: Command) -> Proxy {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        follow(child.stdout.take().unwrap(), log.clone());
        follow(child.stderr.take().unwrap(), log.clone());
        let mut proxy = Proxy {
            child,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            log,
        };
        proxy.listen = proxy.wait_for("it listens", |log| {
            let (_, rest) = log.split_once("listening on ")?;
            let end = rest
                .find(|c: char| c.is_whitespace() || c == ',')
                .unwrap_or(rest.len());
            rest[..end].parse().ok()
        });
        proxy
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.listen
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `postgres://app@127.0.0.1:PORT/app`
    pub fn url(&self) -> String {
        format!("postgres://app@{}/app", self.listen)
    }

    pub fn config(&self) -> tokio_postgres::Config {
        self.url().parse().unwrap()
    }

    /// A connection through the proxy.
    pub async fn client(&self) -> Client {
        super::connect(&self.config()).await
    }

    /// All that it has said so far, standard output and standard error together.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// How long the log is now: what is said later begins here.
    pub fn log_mark(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// Waits until something said after `mark` holds all of `words`, and returns what was said after `mark`.
    pub fn wait_log(&mut self, mark: usize, words: &[&str]) -> String {
        self.wait_for(&format!("it says {words:?}"), |log| {
            let new = log.get(mark..)?;
            words
                .iter()
                .all(|word| new.contains(word))
                .then(|| new.to_owned())
        })
    }

    /// SIGHUP: read the map file again.
    pub fn reload(&self) {
        self.signal("HUP");
    }

    /// SIGTERM: drain and end. Returns how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Kills it with -9 and returns all that it has said.
    pub fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.log()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "it did not stop; it said:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .unwrap();
        assert!(
            sent.success(),
            "the proxy is gone; it said:\n{}",
            self.log()
        );
    }

    fn wait_for<T>(&mut self, what: &str, found: impl Fn(&str) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(value) = found(&self.log.lock().unwrap()) {
                return value;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && began.elapsed() < PATIENCE,
                "waited until {what}; ended: {ended:?}; it said:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- the proxy said:\n{}----", self.log());
        }
    }
}

/// Appends all lines of a pipe to the log, until it closes.
fn follow(pipe: impl Read + Send + 'static, log: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
}
