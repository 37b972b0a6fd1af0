//! A Postgres cluster for tests, copied from a template that is made once in a run.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use presplit::ops::cluster::{Programs, Server, free_port};
use tokio_postgres::Client;

/// Tests may lose data, and are not to wait for the disk.
const SETTINGS: [&str; 7] = [
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "shared_buffers=32MB",
    "max_connections=200",
    "autovacuum=off",
    "max_prepared_transactions=100",
];

/// A real Postgres with superuser and database `app`, no password, on 127.0.0.1 and on a unix socket.
pub struct Cluster {
    programs: Programs,
    dir: PathBuf,
    port: u16,
    settings: Vec<String>,
    server: Option<Server>,
}

impl Cluster {
    pub fn new() -> Cluster {
        Cluster::with(&[])
    }

    /// With further settings, each `name=value`; they beat those that all test clusters have.
    pub fn with(settings: &[&str]) -> Cluster {
        Cluster::copy(template(), settings)
    }

    /// Copies of one cluster have one system identifier. Of these each `number` has another, as hosts mostly do.
    pub fn numbered(number: usize, settings: &[&str]) -> Cluster {
        static TEMPLATES: [OnceLock<PathBuf>; 3] = [const { OnceLock::new() }; 3];
        let template = TEMPLATES[number].get_or_init(|| {
            let dir = template().with_file_name(format!("template-{number}"));
            make(&dir);
            dir
        });
        Cluster::copy(template, settings)
    }

    /// A hot standby that follows this cluster.
    pub fn standby(&self) -> Cluster {
        let dir = next_dir();
        self.programs.make_dir(&dir).unwrap();
        let mut backup = self
            .programs
            .command(self.programs.bin().join("pg_basebackup"));
        let port = self.port.to_string();
        backup.args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "app",
            "-c",
            "fast",
            "-R",
            "-D",
        ]);
        assert!(backup.arg(&dir).status().unwrap().success());
        Cluster::start_in(dir, self.settings.clone())
    }

    fn copy(template: &Path, settings: &[&str]) -> Cluster {
        let dir = next_dir();
        let copied = Command::new("cp")
            .arg("-a")
            .arg(template)
            .arg(&dir)
            .status()
            .unwrap();
        assert!(
            copied.success(),
            "cp -a {} {}",
            template.display(),
            dir.display()
        );
        let settings = SETTINGS
            .iter()
            .chain(settings)
            .map(|s| (*s).to_owned())
            .collect();
        Cluster::start_in(dir, settings)
    }

    fn start_in(dir: PathBuf, settings: Vec<String>) -> Cluster {
        let mut cluster = Cluster {
            programs: Programs::find().unwrap(),
            dir,
            port: 0,
            settings,
            server: None,
        };
        // Another process can take the port between our look and the server's bind.
        let mut fault = String::new();
        for _ in 0..5 {
            cluster.port = free_port().unwrap();
            match cluster.try_start() {
                Ok(()) => return cluster,
                Err(why) => fault = why,
            }
        }
        panic!("{fault}");
    }

    /// The port on 127.0.0.1; the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Where the unix socket is (`host=` of libpq).
    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    /// `postgres://app@127.0.0.1:PORT/app`
    pub fn url(&self) -> String {
        format!("postgres://app@127.0.0.1:{}/app", self.port)
    }

    pub fn config(&self) -> tokio_postgres::Config {
        self.url().parse().unwrap()
    }

    /// A direct connection, past the proxy.
    pub async fn client(&self) -> Client {
        super::connect(&self.config()).await
    }

    /// A further setting, from the next start on.
    pub fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// Stops the server as an operator would. No-op when it is down.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().unwrap();
        }
    }

    /// Takes the server away as a crash would. No-op when it is down.
    pub fn crash(&mut self) {
        if let Some(server) = self.server.take() {
            server.crash().unwrap();
        }
    }

    /// Kills every process of the server with -9: no word to its clients. No-op when it is down.
    pub fn kill(&mut self) {
        let Some(server) = self.server.take() else {
            return;
        };
        let postmaster = server.pid().expect("it runs");
        let all = stopped(postmaster);
        send("-KILL", &all);
        // One that lingers would still write beside the next server's processes.
        while all[1..].iter().any(|pid| runs(*pid)) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let _ = fs::remove_file(self.dir.join("postmaster.pid"));
        server.crash().unwrap();
    }

    /// Stops every process of the server where it is: connections stay and nothing answers. No-op when it is down.
    pub fn freeze(&self) {
        if let Some(postmaster) = self.server.as_ref().and_then(Server::pid) {
            stopped(postmaster);
        }
    }

    /// Ends [`Cluster::freeze`].
    pub fn thaw(&self) {
        if let Some(postmaster) = self.server.as_ref().and_then(Server::pid) {
            let mut all = stopped(postmaster);
            all.reverse();
            send("-CONT", &all);
        }
    }

    /// Starts the server again, on the same port with the same data.
    pub fn start(&mut self) {
        self.try_start().unwrap();
    }

    fn try_start(&mut self) -> Result<(), String> {
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        self.server = Some(self.programs.start(&self.dir, self.port, &settings)?);
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.thaw();
        self.stop();
        let _ = fs::remove_dir_all(&self.dir);
        let _ = fs::remove_file(self.dir.with_extension("log"));
    }
}

/// The postmaster and all its children, after SIGSTOP.
fn stopped(postmaster: u32) -> Vec<u32> {
    // It first, so that it starts no more of them.
    send("-STOP", &[postmaster]);
    let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
    let all: Vec<u32> = [postmaster].into_iter().chain(children).collect();
    send("-STOP", &all[1..]);
    all
}

/// Whether the process is there and no zombie.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

/// A process that has ended meanwhile is as good as one that got it.
fn send(signal: &str, pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    let sent = Command::new("kill")
        .arg(signal)
        .args(pids.iter().map(u32::to_string))
        .stderr(Stdio::null())
        .status();
    drop(sent);
}

/// A directory for a cluster, beside the template.
fn next_dir() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    template().with_file_name(format!("c{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// The data directory that all clusters of this run are copied from. It stands in a directory of this run alone.
fn template() -> &'static Path {
    static RUN: OnceLock<(PathBuf, Child)> = OnceLock::new();
    let (template, _) = RUN.get_or_init(|| {
        let run_dir = base().join(format!("presplit-test-{}", std::process::id()));
        let sweeper = sweep_when_we_end(&run_dir);
        let template = run_dir.join("template");
        make(&template);
        (template, sweeper)
    });
    template
}

/// In memory where there is room for it: hundreds of clusters are copied in a run, and files of a disk are most of what that costs.
fn base() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let df = Command::new("df").args(["-Pk"]).arg(memory).output();
    let said = df.map(|df| String::from_utf8_lossy(&df.stdout).into_owned());
    // Of the second line: file system, blocks, used, available.
    let free = said.ok().and_then(|said| {
        let line = said.lines().nth(1)?;
        line.split_whitespace().nth(3)?.parse::<u64>().ok()
    });
    match free {
        Some(kib) if kib >= 6 << 20 => memory.to_owned(),
        _ => std::env::temp_dir(),
    }
}

fn make(dir: &Path) {
    let programs = Programs::find().unwrap();
    programs.make_dir(dir).unwrap();
    programs.initdb(dir).unwrap();
}

/// Clusters in statics are never dropped: a small shell waits for the end of this process (its standard input closes),
/// then for the servers to stop, and removes the directory.
fn sweep_when_we_end(dir: &Path) -> Child {
    let script = r#"cat >/dev/null
for i in $(seq 300); do ls "$1"/*/postmaster.pid >/dev/null 2>&1 || break; sleep 0.1; done
rm -rf "$1""#;
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script, "sweeper"])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().unwrap()
}
