//! A Redis of a test's own: on a free port of 127.0.0.1, without persistence, ended by its PID when it is dropped and when this
//! process ends.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use presplit::feed::config::RedisConfig;
use presplit::ops::cluster::free_port;
use redis::{ConnectionLike as _, FromRedisValue, IntoConnectionInfo as _};

pub struct Redis {
    port: u16,
    dir: tempfile::TempDir,
    settings: Vec<String>,
    server: Option<Running>,
}

struct Running {
    server: Child,
    /// Kills the server when its standard input closes: when this process ends, whatever ends it.
    watcher: Child,
}

impl Redis {
    pub fn new() -> Redis {
        Redis::with(&[])
    }

    /// With further settings, as on the command line: `["--maxmemory", "10mb"]`.
    pub fn with(settings: &[&str]) -> Redis {
        let mut redis = Redis {
            port: 0,
            dir: tempfile::tempdir().unwrap(),
            settings: settings.iter().map(|s| (*s).to_owned()).collect(),
            server: None,
        };
        // Another process can take the port between our look and the server's bind.
        for _ in 0..5 {
            redis.port = free_port().unwrap();
            if redis.try_start() {
                return redis;
            }
        }
        panic!("redis-server does not start");
    }

    /// The same after a restart.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// The same after a restart, too.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A store that has only this node, with time enough for a loaded machine.
    pub fn config(&self) -> RedisConfig {
        let connection = self.url().into_connection_info().unwrap();
        let tcp = connection.tcp_settings().clone().set_nodelay(true);
        let mut config = RedisConfig::one("r1", connection.set_tcp_settings(tcp));
        config.limit = Duration::from_secs(20);
        config
    }

    /// Asks the server directly.
    pub fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let client = redis::Client::open(self.url()).unwrap();
        command
            .query(&mut client.get_connection().unwrap())
            .unwrap()
    }

    /// As [`Redis::ask`], whatever it says.
    pub fn tell(&self, words: &[&str]) {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let client = redis::Client::open(self.url()).unwrap();
        let _: redis::RedisResult<()> = command.query(&mut client.get_connection().unwrap());
    }

    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("it runs").server.id()
    }

    /// Nothing is answered any more, connections stay.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Ends [`Redis::freeze`].
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// `kill -9`. No-op when it is down.
    pub fn kill(&mut self) {
        let Some(mut running) = self.server.take() else {
            return;
        };
        // It first: once the server is waited for, its number may be another process'.
        running.watcher.kill().unwrap();
        running.watcher.wait().unwrap();
        running.server.kill().unwrap();
        running.server.wait().unwrap();
    }

    /// Starts it again, on the same port.
    pub fn start(&mut self) {
        assert!(self.try_start(), "redis-server does not start again");
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    fn try_start(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(self.dir.path())
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let mut server = command
            .spawn()
            .expect("redis-server is there (`make test` installs it)");
        let watcher = Command::new("/bin/sh")
            .args(["-c", "cat >/dev/null; kill -9 $1", "watcher"])
            .arg(server.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while server.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(30) {
            if self.answers(server.id()) {
                self.server = Some(Running { server, watcher });
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.server = Some(Running { server, watcher });
        self.kill();
        false
    }

    /// And it is this one that answers.
    fn answers(&self, pid: u32) -> bool {
        if TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            return false;
        }
        let Ok(client) = redis::Client::open(self.url()) else {
            return false;
        };
        let Ok(mut connection) = client.get_connection() else {
            return false;
        };
        let info: Result<String, _> = redis::cmd("INFO").query(&mut connection);
        let ours = format!("process_id:{pid}\r\n");
        connection.check_connection()
            && info.is_ok_and(|info| info.contains(&ours) && info.contains("\nloading:0\r\n"))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
