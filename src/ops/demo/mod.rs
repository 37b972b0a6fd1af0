//! `presplit demo`: two private Postgres clusters as hosts `a` and `b` with eight shards, the tables of a small app and of the
//! feed service, and a little data. Starts the hosts; the caller runs the proxy in front of them, then [`feed`] with its page.

mod data;
pub mod feed;
mod page;

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::feed::{SCHEMA as FEED_SCHEMA, TABLES as FEED_TABLES};
use crate::ops::cluster::{Programs, Server};
use crate::ops::provision;
use crate::shardmap::{ShardMap, render_faults};

/// The demo app's tables; also what the tests' shards hold.
pub const SCHEMA: &str = include_str!("schema.sql");

/// The map is the example that stands at the top of the repository, with the demo's ports.
const EXAMPLE_MAP: &str = include_str!("../../../shardmap.toml");

/// A file in the demo's directory that says whose it is, and that is locked while a demo runs there.
const MARKER: &str = ".presplit-demo";
/// A demo that ended a moment ago may still hold its ports.
const PORT_PATIENCE: Duration = Duration::from_secs(3);

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where map, logs and data go. Made if it is missing; emptied of an earlier demo's.
    pub dir: PathBuf,
    /// The proxy's port on 127.0.0.1. HTTP takes the next one, the hosts take those 9 and 10 above, the feed service that 48 above.
    pub port: u16,
}

impl Options {
    fn http_port(&self) -> u16 {
        self.port + 1
    }

    fn host_ports(&self) -> [u16; 2] {
        [self.port + 9, self.port + 10]
    }

    fn proxy_url(&self) -> String {
        format!("postgres://app@127.0.0.1:{}/app", self.port)
    }

    /// From the proxy's usual port it is as far to the feed service's, so that its documents' examples fit.
    fn feed_port(&self) -> u16 {
        self.port + 48
    }
}

/// Running hosts with data. They stop when this is dropped, and when this process ends, however it ends.
#[derive(Debug)]
pub struct Demo {
    options: Options,
    servers: Vec<Server>,
    /// Locked.
    _marker: File,
}

impl Demo {
    /// Starts both hosts afresh, provisions them and loads the data. `say` is told each step before it begins.
    pub async fn start(options: Options, mut say: impl FnMut(&str)) -> Result<Demo, String> {
        if options.port == 0 || options.port > u16::MAX - 48 {
            return Err(format!(
                "--port {} can't be: N, N+1, N+9, N+10 and N+48 must be ports",
                options.port
            ));
        }
        let programs = Programs::find()?;
        let marker = claim(&options.dir)?;
        check_ports(&options)?;
        let data = data_dir(&programs, &options)?;
        let mut servers = Vec::new();
        for (name, port) in ["a", "b"].into_iter().zip(options.host_ports()) {
            say(&format!(
                "starting a private Postgres as host {name} on 127.0.0.1:{port}"
            ));
            let dir = data.join(name);
            programs.make_dir(&dir)?;
            programs.initdb(&dir)?;
            servers.push(programs.start(
                &dir,
                port,
                &["shared_buffers=32MB", "max_prepared_transactions=50"],
            )?);
        }
        let demo = Demo {
            options,
            servers,
            _marker: marker,
        };
        let map_file = demo.map_file();
        fs::write(&map_file, map_text(&demo.options))
            .map_err(|e| format!("{}: {e}", map_file.display()))?;
        let map = ShardMap::load(&map_file)
            .map_err(|faults| render_faults(&map_file.display().to_string(), &faults))?;
        say("making the tables in 8 shards, 4 on each host, and loading a little data");
        let schema = format!("{SCHEMA}\n{FEED_SCHEMA}");
        let report = provision::run(&map, &schema, provision::Options::default())
            .await
            .map_err(|faults| faults.join("\n"))?;
        if !report.is_complete() {
            return Err(report.to_string());
        }
        data::load(&map).await?;
        Ok(demo)
    }

    /// The shard map, for the proxy and for the person who edits it.
    pub fn map_file(&self) -> PathBuf {
        self.options.dir.join("shardmap.toml")
    }

    /// What to type next.
    pub fn what_next(&self) -> String {
        let [a, b] = self.options.host_ports();
        let (port, http, map) = (self.options.port, self.options.http_port(), self.map_file());
        let feed = self.options.feed_port();
        let map = fs::canonicalize(&map).unwrap_or(map);
        format!(
            "
The demo runs. Ctrl-C here stops all of it.

    in a browser    http://127.0.0.1:{feed}/             post, follow, watch feeds arrive
    in a terminal   psql postgres://app@127.0.0.1:{port}/app

    your app  ->  presplit 127.0.0.1:{port}  ->  host a 127.0.0.1:{a}  shards 0-3
                                           ->  host b 127.0.0.1:{b}  shards 4-7, table invoices

In psql:

    INSERT INTO photos (user_id, caption) VALUES (42, 'x') RETURNING id;
    SELECT * FROM photos WHERE user_id = 42;
    EXPLAIN (ROUTE) SELECT * FROM photos WHERE user_id = 42;
    \\d photos

42 % 8 is 2, so the row is in shard 2 on host a. Past the proxy:

    psql postgres://app@127.0.0.1:{a}/app -c 'SELECT * FROM shard_0002.photos WHERE user_id = 42'

Edit the map while it runs: each save is read at once, and what it changes, or what is wrong with it, is said below.
Try  #pool = 20  ->  pool = 5  under [hosts.a], then  \"0-3\" = \"c\" :

    {map}

Health and metrics: http://127.0.0.1:{http}/healthz; of the feed service: http://127.0.0.1:{feed}/healthz
",
            map = map.display()
        )
    }

    /// Stops both hosts in good order and removes their data. The map stays.
    pub fn stop(self) -> Result<(), String> {
        let faults: Vec<String> = self
            .servers
            .into_iter()
            .filter_map(|server| server.stop().err())
            .collect();
        if faults.is_empty() {
            clear(&self.options.dir)
        } else {
            Err(faults.join("\n"))
        }
    }
}

/// Takes the directory for this demo, and clears away what an earlier one left.
fn claim(dir: &Path) -> Result<File, String> {
    let told = |e: std::io::Error| format!("{}: {e}", dir.display());
    fs::create_dir_all(dir).map_err(told)?;
    let marker = dir.join(MARKER);
    let empty = fs::read_dir(dir).map_err(told)?.next().is_none();
    if !empty && !marker.exists() {
        return Err(format!(
            "{} is not empty and no demo's: name another directory (--dir)",
            dir.display()
        ));
    }
    let file = File::create(&marker).map_err(told)?;
    if file.try_lock().is_err() {
        return Err(format!(
            "a demo runs in {} already: stop it, or name another directory and port (--dir, --port)",
            dir.display()
        ));
    }
    clear(dir)?;
    Ok(file)
}

/// Removes the hosts' data, wherever [`data_dir`] put it.
fn clear(dir: &Path) -> Result<(), String> {
    for old in [dir.join("hosts"), fallback_data_dir(dir)] {
        if old.exists() {
            fs::remove_dir_all(&old).map_err(|e| format!("{}: {e}", old.display()))?;
        }
    }
    Ok(())
}

/// All ports must be free before anything is started.
fn check_ports(options: &Options) -> Result<(), String> {
    let [a, b] = options.host_ports();
    let wanted = [
        (options.port, "the proxy"),
        (options.http_port(), "the proxy's HTTP"),
        (a, "host a"),
        (b, "host b"),
        (options.feed_port(), "the feed service and its page"),
    ];
    let began = Instant::now();
    loop {
        let taken = wanted
            .iter()
            .find(|(port, _)| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_err());
        let Some((port, whom)) = taken else {
            return Ok(());
        };
        if began.elapsed() > PORT_PATIENCE {
            return Err(format!(
                "port {port} on 127.0.0.1, for {whom}, is taken. Stop what listens there, or use other ports: \
                 `presplit demo --port N` (`make demo PORT=N`) takes N, N+1, N+9, N+10 and N+48"
            ));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Where the clusters go: in the demo's directory, unless the account that must run Postgres can't get there.
fn data_dir(programs: &Programs, options: &Options) -> Result<PathBuf, String> {
    let hosts = options.dir.join("hosts");
    fs::create_dir(&hosts).map_err(|e| format!("{}: {e}", hosts.display()))?;
    let hosts = fs::canonicalize(&hosts).map_err(|e| format!("{}: {e}", hosts.display()))?;
    if programs.can_enter(&hosts) {
        return Ok(hosts);
    }
    let fallback = fallback_data_dir(&options.dir);
    fs::create_dir(&fallback).map_err(|e| format!("{}: {e}", fallback.display()))?;
    Ok(fallback)
}

/// A directory below the system's for temporary files that belongs to one demo directory.
fn fallback_data_dir(dir: &Path) -> PathBuf {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let name = dir
        .to_string_lossy()
        .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    std::env::temp_dir().join(format!("presplit-demo{name}"))
}

fn map_text(options: &Options) -> String {
    let [a, b] = options.host_ports();
    EXAMPLE_MAP
        .replace("127.0.0.1:6441", &format!("127.0.0.1:{a}"))
        .replace("127.0.0.1:6442", &format!("127.0.0.1:{b}"))
        .replace(
            "listen = \"127.0.0.1:6432\"",
            &format!("listen = \"127.0.0.1:{}\"", options.port),
        )
        .replace(
            "#http = \"127.0.0.1:6433\" ",
            &format!("http = \"127.0.0.1:{}\" ", options.http_port()),
        )
        .replace("#drain_grace = \"30s\"", "drain_grace = \"2s\"")
        .replace("\n#\"*\" ", &format!("\n{FEED_TABLES}\n#\"*\" "))
        .replace(
            "#listen = \"127.0.0.1:6480\"",
            &format!("listen = \"127.0.0.1:{}\"", options.feed_port()),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(dir: &Path) -> Options {
        Options {
            dir: dir.to_owned(),
            port: 17_000,
        }
    }

    #[test]
    fn the_example_map_takes_the_demos_ports() {
        let text = map_text(&options(Path::new(".demo")));
        let map = ShardMap::parse(&text, &|_| None).unwrap();
        assert_eq!(map.shards(), 8);
        assert_eq!(
            map.hosts.iter().map(|h| h.url.port).collect::<Vec<_>>(),
            [17_009, 17_010]
        );
        assert_eq!(
            (map.proxy.listen.port(), map.proxy.http.map(|a| a.port())),
            (17_000, Some(17_001))
        );
        assert_eq!(map.proxy.timeouts.drain_grace, Duration::from_secs(2));
        assert!(map.tables.contains_key("media") && map.tables.contains_key("stars"));
        let feed = crate::feed::config::parse("", &text, &|_| None).unwrap();
        assert_eq!(feed.listen.map(|a| a.port()), Some(17_048));
    }

    #[test]
    fn a_directory_with_other_things_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "x").unwrap();
        assert!(claim(dir.path()).unwrap_err().contains("not empty"));
        assert!(dir.path().join("thesis.txt").exists());
    }

    #[test]
    fn two_demos_do_not_share_a_directory_and_the_second_run_finds_it_clean() {
        let dir = tempfile::tempdir().unwrap();
        let first = claim(dir.path()).unwrap();
        fs::create_dir_all(dir.path().join("hosts/a")).unwrap();
        assert!(claim(dir.path()).unwrap_err().contains("runs in"));
        drop(first);
        let _second = claim(dir.path()).unwrap();
        assert!(!dir.path().join("hosts").exists());
    }

    #[test]
    fn a_port_that_is_taken_is_named_with_the_way_out() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let said = check_ports(&Options {
            dir: PathBuf::new(),
            port: port - 9,
        })
        .unwrap_err();
        assert!(
            said.contains(&format!("port {port}")) && said.contains("--port N"),
            "{said}"
        );
    }
}
