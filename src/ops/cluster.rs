//! A private Postgres cluster, started and stopped by us: the hosts of the demo and of the tests.
//!
//! Postgres refuses to run as root, so a root process runs it as the account `postgres`. Each server is a child of a small
//! shell guard that reads a pipe held by us: when we stop it, or die of whatever cause, the pipe closes and the guard shuts
//! the server down. Nothing is ever searched for and killed by name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// The account that a root process runs Postgres as: the one that every package of Postgres makes.
const ACCOUNT: &str = "postgres";
/// A private cluster is young and small: no fsync while it is made, and 1 MB segments of WAL in place of 16.
const INITDB_OPTIONS: [&str; 10] = [
    "-U",
    "app",
    "-A",
    "trust",
    "-E",
    "UTF8",
    "--no-locale",
    "--no-sync",
    "--no-instructions",
    "--wal-segsize=1",
];
/// How long a server may take to start or to stop.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// `sun_path` of a unix socket address, less `/.s.PGSQL.65535` and the final zero.
const SOCKET_DIR_LIMIT: usize = 107 - 16;

/// Runs Postgres ("$@") until it ends, or until standard input closes: then a fast shutdown (SIGINT).
const GUARD: &str = r#"exec 3<&0
"$@" </dev/null & server=$!
(cat <&3 >/dev/null; kill -INT $server) 2>/dev/null & watch=$!
wait $server; status=$?
kill $watch 2>/dev/null
exit $status"#;

/// Postgres' programs on this machine, and how to run them.
#[derive(Clone, Debug)]
pub struct Programs {
    bin: PathBuf,
    /// We are root: become [`ACCOUNT`] first, by this command line.
    become_account: Vec<String>,
}

impl Programs {
    /// Finds `initdb` and `postgres`: `pg_config --bindir`, then the newest `/usr/lib/postgresql/*/bin`, then `PATH`.
    pub fn find() -> Result<Programs, String> {
        let bin = candidate_dirs()
            .into_iter()
            .find(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file())
            .ok_or("Postgres' server programs (initdb, postgres) were not found: install them (Debian: apt-get install postgresql)")?;
        let become_account = if running_as_root() {
            become_command()?
        } else {
            Vec::new()
        };
        Ok(Programs {
            bin,
            become_account,
        })
    }

    /// The directory with `initdb`, `postgres` and the rest.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// A command that runs `program` as the account that Postgres runs as.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = match self.become_account.split_first() {
            None => Command::new(program.as_ref()),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program.as_ref());
                command
            }
        };
        // Whatever directory we stand in, the account may be unable to enter it; and no PG* variable of the caller's may
        // reach a private server.
        command.current_dir("/");
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG"))
        {
            command.env_remove(name);
        }
        command
    }

    /// Makes `dir` (and its parents) as a directory of the account that Postgres runs as, closed to others.
    pub fn make_dir(&self, dir: &Path) -> Result<(), String> {
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent)
                .map_err(|e| format!("can't make {}: {e}", parent.display()))?;
        }
        fs::create_dir(dir).map_err(|e| format!("can't make {}: {e}", dir.display()))?;
        if !self.become_account.is_empty() {
            run(Command::new("chown").arg(format!("{ACCOUNT}:")).arg(dir))?;
        }
        run(self.command("chmod").arg("700").arg(dir))
            .map_err(|e| format!("the account {ACCOUNT} can't use {} (are all directories above it open to it?): {e}", dir.display()))
    }

    /// Whether the account that Postgres runs as can get into `dir`.
    pub fn can_enter(&self, dir: &Path) -> bool {
        run(self.command("test").arg("-x").arg(dir)).is_ok()
    }

    /// Makes a cluster in `dir` (which [`Programs::make_dir`] made): superuser and database `app`, trust authentication,
    /// UTF-8, C locale.
    pub fn initdb(&self, dir: &Path) -> Result<(), String> {
        run(self
            .command(self.bin.join("initdb"))
            .arg("-D")
            .arg(dir)
            .args(INITDB_OPTIONS))?;
        let mut single = self.command(self.bin.join("postgres"));
        single
            .args(["--single", "-F", "-D"])
            .arg(dir)
            .arg("postgres");
        let mut child = single
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(b"CREATE DATABASE app\n")
                .map_err(|e| e.to_string())?;
        }
        let said = child.wait_with_output().map_err(|e| e.to_string())?;
        if !said.status.success() {
            return Err(format!(
                "making the database app failed: {}",
                String::from_utf8_lossy(&said.stderr).trim()
            ));
        }
        Ok(())
    }

    /// Starts the cluster in `dir` on 127.0.0.1:`port`, and on a unix socket in `dir` if that path is short enough for
    /// one, and waits until it accepts connections. `settings` are `name=value`, as for `postgres -c`.
    pub fn start(&self, dir: &Path, port: u16, settings: &[&str]) -> Result<Server, String> {
        let log = dir.with_extension("log");
        let log_file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|e| format!("{}: {e}", log.display()))?;
        let sockets = if dir.as_os_str().len() <= SOCKET_DIR_LIMIT {
            dir.to_string_lossy()
        } else {
            "".into()
        };
        let mut command = self.command("/bin/sh");
        command
            .args(["-c", GUARD, "postgres-guard"])
            .arg(self.bin.join("postgres"))
            .arg("-D")
            .arg(dir);
        command.args([
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            &format!("port={port}"),
        ]);
        command.args(["-c", &format!("unix_socket_directories={sockets}")]);
        for setting in settings {
            command.args(["-c", setting]);
        }
        command
            .stdin(Stdio::piped())
            .stdout(clone(&log_file)?)
            .stderr(log_file);
        // A group of its own: Ctrl-C at the terminal is for us, and we stop the servers in good order.
        command.process_group(0);
        let mut guard = command
            .spawn()
            .map_err(|e| format!("can't start postgres: {e}"))?;
        let pipe = guard.stdin.take();
        let mut server = Server {
            guard,
            pipe,
            dir: dir.to_owned(),
            log,
            port,
        };
        server.wait_until_ready()?;
        Ok(server)
    }
}

/// A running cluster. Stopped when dropped, and when this process ends, however it ends.
#[derive(Debug)]
pub struct Server {
    guard: Child,
    /// Open as long as the server is to run.
    pipe: Option<ChildStdin>,
    dir: PathBuf,
    log: PathBuf,
    port: u16,
}

impl Server {
    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data directory, where the unix socket is too.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process id of the postmaster, while it runs.
    pub fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.dir.join("postmaster.pid"))
            .ok()?
            .lines()
            .next()?
            .parse()
            .ok()
    }

    /// Stops the server in good order (fast shutdown: sessions are ended, nothing committed is lost).
    pub fn stop(mut self) -> Result<(), String> {
        self.end()
    }

    /// Kills the server as a crash would: no shutdown, sessions cut off.
    pub fn crash(mut self) -> Result<(), String> {
        if let Some(pid) = self.pid() {
            run(Command::new("kill").args(["-QUIT", &pid.to_string()]))?;
        }
        self.end()
    }

    fn end(&mut self) -> Result<(), String> {
        drop(self.pipe.take());
        let began = Instant::now();
        while began.elapsed() < STOP_LIMIT {
            match self.guard.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                Ok(Some(_)) => return Ok(()),
                Err(e) => {
                    return Err(format!(
                        "waiting for postgres in {}: {e}",
                        self.dir.display()
                    ));
                }
            }
        }
        Err(format!(
            "postgres in {} did not stop within {} s",
            self.dir.display(),
            STOP_LIMIT.as_secs()
        ))
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let exited = self.guard.try_wait().map_err(|e| e.to_string())?.is_some();
            if exited || began.elapsed() > START_LIMIT {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                let tail: Vec<&str> = said.lines().rev().take(8).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                return Err(format!(
                    "postgres did not start on port {}; its log {} ends:\n{}",
                    self.port,
                    self.log.display(),
                    tail.join("\n")
                ));
            }
            // Line 8 of postmaster.pid is the postmaster's state (src/include/utils/pidfile.h). A file left by a
            // crash says "ready" too, so the pid must be that of a child of our guard.
            let pid_file = fs::read_to_string(self.dir.join("postmaster.pid")).unwrap_or_default();
            let mut lines = pid_file.lines();
            let ours = lines
                .next()
                .is_some_and(|pid| descends_from(pid, self.guard.id()));
            if ours && lines.nth(6).is_some_and(|state| state.trim() == "ready") {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nobody is left to be told; the guard goes on by itself.
        let _ = self.end();
    }
}

/// A port of 127.0.0.1 that is free at this moment.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// Whether the process `pid` is a child of `ancestor`, or that of a child (`runuser` may stand between).
fn descends_from(pid: &str, ancestor: u32) -> bool {
    let mut pid = pid.to_owned();
    for _ in 0..3 {
        // The parent is the second field after the last `)` of /proc/PID/stat.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some(parent) = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1))
        else {
            return false;
        };
        if parent == ancestor.to_string() {
            return true;
        }
        pid = parent.to_owned();
    }
    false
}

fn candidate_dirs() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    if let Ok(said) = Command::new("pg_config").arg("--bindir").output()
        && said.status.success()
    {
        dirs.push(PathBuf::from(String::from_utf8_lossy(&said.stdout).trim()));
    }
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .collect();
    versions.sort();
    dirs.extend(versions.into_iter().rev().map(|(_, bin)| bin));
    dirs.extend(
        std::env::var_os("PATH")
            .iter()
            .flat_map(std::env::split_paths),
    );
    dirs
}

fn running_as_root() -> bool {
    // The owner of /proc/self is this process' effective user.
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// `setpriv` and `runuser` exec the program in place; `su` would put a shell between.
fn become_command() -> Result<Vec<String>, String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    if !passwd
        .lines()
        .any(|line| line.split(':').next() == Some(ACCOUNT))
    {
        return Err(format!(
            "Postgres does not run as root and there is no account {ACCOUNT} to run it as"
        ));
    }
    let in_path = |name: &str| {
        std::env::var_os("PATH")
            .iter()
            .flat_map(std::env::split_paths)
            .any(|dir| dir.join(name).is_file())
    };
    let words: &[&str] = if in_path("setpriv") {
        &[
            "setpriv",
            "--reuid",
            ACCOUNT,
            "--regid",
            ACCOUNT,
            "--init-groups",
            "--",
        ]
    } else if in_path("runuser") {
        &["runuser", "-u", ACCOUNT, "--"]
    } else {
        return Err("Postgres does not run as root, and neither setpriv nor runuser (util-linux) is there to run it as another account".to_owned());
    };
    Ok(words.iter().map(|word| (*word).to_owned()).collect())
}

/// Runs a command to its end; its standard error becomes the message if it fails.
fn run(command: &mut Command) -> Result<(), String> {
    let said = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{}: {e}", command.get_program().to_string_lossy()))?;
    if said.status.success() {
        return Ok(());
    }
    Err(format!(
        "{:?} failed: {}",
        command,
        String::from_utf8_lossy(&said.stderr).trim()
    ))
}

fn clone(file: &File) -> Result<File, String> {
    file.try_clone().map_err(|e| e.to_string())
}
