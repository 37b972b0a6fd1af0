//! Flags and subcommands, and what they print. Exit code 0: done; 1: it could not be done, or a check failed; 2: bad flags.

mod demo;
mod feed;

use std::io::{IsTerminal, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use presplit::ops::{doctor, explain, health, provision};
use presplit::proxy::Proxy;
use presplit::route::Tables;
use presplit::shardmap::{Fault, MapHandle, ShardMap, render_faults};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A shard-aware PostgreSQL proxy: one Postgres to the app, many behind it.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Validates a shard map, and says what it changes against another. Exit code 1 if it can't be used.
    Check(Check),
    /// Runs the proxy until SIGTERM or Ctrl-C.
    Serve(Serve),
    /// Says where a statement would go and why, without running it. Exit code 1 if it would be refused. With --file, how
    /// many of a file's statements can be routed, and what the others need.
    Explain(Explain),
    /// Makes the shards' schemas and the app's tables on every host, from one SQL file. Can be repeated.
    Provision(Provision),
    /// Says whether the hosts can take part in transactions over several, and what will become of prepared transactions that
    /// nobody ends. Exit code 1 if there is something to do.
    Doctor(Doctor),
    /// Asks a running proxy whether it serves. Exit code 1 if not.
    Health(Health),
    /// Runs the feed service until SIGTERM or Ctrl-C: posts over HTTP, feeds of all followers. `feed schema` prints its tables.
    Feed(feed::Feed),
    /// Starts two private Postgres clusters with a small app's tables, the proxy in front, and the feed service with a page to try
    /// it on. Ctrl-C stops all of it.
    Demo(demo::DemoArgs),
}

/// The shard map to work with.
#[derive(Args)]
struct MapFile {
    /// The shard map.
    #[arg(long = "map", value_name = "FILE", default_value = "shardmap.toml")]
    path: PathBuf,
}

#[derive(Args)]
struct Check {
    /// The shard map.
    #[arg(value_name = "FILE", default_value = "shardmap.toml")]
    path: PathBuf,
    /// The map that is in force now: say the difference, and refuse what a running proxy would refuse.
    #[arg(long, value_name = "OLD")]
    against: Option<PathBuf>,
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    map: MapFile,
}

#[derive(Args)]
struct Explain {
    #[command(flatten)]
    map: MapFile,
    /// Take the tables from this file of DDL; without it the hosts are asked.
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// A parameter's value as text: $1 first, then $2 ...
    #[arg(long = "param", value_name = "VALUE")]
    params: Vec<String>,
    /// The statement.
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    sql: Option<String>,
    /// Report on all statements of a file (- is standard input): SQL, a Postgres log, or pg_stat_statements as CSV. Exit code 0
    /// whatever they are, if --fail-on-refused is not there.
    #[arg(long, value_name = "FILE", conflicts_with = "params")]
    file: Option<PathBuf>,
    /// What the file is; without it, it is told from its beginning.
    #[arg(long, requires = "file", value_enum)]
    format: Option<FileFormat>,
    /// The report as JSON.
    #[arg(long, requires = "file")]
    json: bool,
    /// Exit code 1 if any statement would be refused.
    #[arg(long, requires = "file")]
    fail_on_refused: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum FileFormat {
    Sql,
    Log,
    Csvlog,
    #[value(name = "pg_stat_statements")]
    PgStatStatements,
}

impl From<FileFormat> for explain::FileFormat {
    fn from(format: FileFormat) -> Self {
        match format {
            FileFormat::Sql => explain::FileFormat::Sql,
            FileFormat::Log => explain::FileFormat::Log,
            FileFormat::Csvlog => explain::FileFormat::Csvlog,
            FileFormat::PgStatStatements => explain::FileFormat::PgStatStatements,
        }
    }
}

#[derive(Args)]
struct Provision {
    #[command(flatten)]
    map: MapFile,
    /// The app's tables: plain DDL without schema names.
    #[arg(long, value_name = "FILE", required_unless_present = "feed")]
    schema: Option<PathBuf>,
    /// The tables of the feed service, too (`presplit feed schema` prints them).
    #[arg(long)]
    feed: bool,
    /// Shards made side by side on each host.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Say what would be made, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
struct Doctor {
    #[command(flatten)]
    map: MapFile,
    /// End what is certain, by the same rules as a proxy that runs.
    #[arg(long)]
    resolve: bool,
    /// Commit this transaction wherever it is prepared. Only if its decision host is no host of the map.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["resolve", "rollback"])]
    commit: Option<String>,
    /// Roll this transaction back wherever it is prepared. Only if its decision host is no host of the map.
    #[arg(long, value_name = "NAME", conflicts_with = "resolve")]
    rollback: Option<String>,
}

#[derive(Args)]
struct Health {
    /// Where clients connect: whether anybody answers there as Postgres does.
    #[arg(default_value = "127.0.0.1:6432")]
    address: SocketAddr,
    /// Ask here instead: http://IP:PORT of the map's [proxy] http, with or without a path.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// Reads the flags and does what they say.
pub(crate) fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Check(args) => check(&args),
        Command::Serve(args) => serve(&args),
        Command::Explain(args) => explain(&args),
        Command::Provision(args) => provision(&args),
        Command::Doctor(args) => doctor(&args),
        Command::Health(args) => match &args.url {
            Some(url) => health::ask_url(url),
            None => {
                health::ask_port(args.address).map_err(|why| format!("{}: {why}", args.address))
            }
        },
        Command::Feed(args) => feed::feed(args),
        Command::Demo(args) => demo::demo(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("presplit: {}", why.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn load(path: &Path) -> Result<ShardMap, String> {
    ShardMap::load(path).map_err(|faults| unusable(path, &faults))
}

fn unusable(path: &Path, faults: &[Fault]) -> String {
    let faults = render_faults(&path.display().to_string(), faults);
    format!("the map can't be used\n{faults}")
}

/// One line an event on standard error; `RUST_LOG` says how much.
fn log_to_stderr() {
    // The feed's pool warns of a connection that ended ("db error") without saying why; whose statement failed by it says more.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info,deadpool.postgres=error".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // Where standard error is gone there is nobody to tell, and telling it there would panic.
        .log_internal_errors(false)
        .init();
}

fn check(args: &Check) -> Result<(), String> {
    let map = load(&args.path)?;
    println!(
        "{}: version {}, {} shards on {} hosts: good",
        args.path.display(),
        map.version,
        map.shards(),
        map.hosts.len()
    );
    let Some(old_path) = &args.against else {
        return Ok(());
    };
    let old = load(old_path)?;
    let faults = map.check_against(&old);
    if !faults.is_empty() {
        return Err(format!(
            "a proxy that runs {} would refuse it\n{}",
            old_path.display(),
            render_faults(&args.path.display().to_string(), &faults)
        ));
    }
    let difference = map.difference(&old);
    if difference.is_empty() {
        println!("nothing is different from {}", old_path.display());
    }
    for line in difference {
        println!("{line}");
    }
    Ok(())
}

fn provision(args: &Provision) -> Result<(), String> {
    let map = load(&args.map.path)?;
    let mut sql = String::new();
    let mut name = "the feed's tables".to_owned();
    if let Some(path) = &args.schema {
        name = path.display().to_string();
        sql = std::fs::read_to_string(path).map_err(|e| format!("{name}: {e}"))?;
    }
    if args.feed {
        sql = feed::with_schema(&map, &args.map.path, sql)?;
    }
    let options = provision::Options {
        jobs: args.jobs.into(),
        dry_run: args.dry_run,
        progress: true,
    };
    let began = std::time::Instant::now();
    let report = runtime()?
        .block_on(provision::run(&map, &sql, options))
        .map_err(|faults| format!("{name}: nothing was made\n{}", faults.join("\n")))?;
    print!("{report}");
    println!("took {:.1} s", began.elapsed().as_secs_f64());
    match report.is_complete() {
        true => Ok(()),
        false => Err("some of it failed, see above; what was made stays, and the next run goes on from there".to_owned()),
    }
}

fn doctor(args: &Doctor) -> Result<(), String> {
    let map = load(&args.map.path)?;
    let runtime = runtime()?;
    let report = match (&args.commit, &args.rollback) {
        (Some(name), _) => runtime.block_on(doctor::end_by_hand(&map, name, true))?,
        (_, Some(name)) => runtime.block_on(doctor::end_by_hand(&map, name, false))?,
        _ => runtime.block_on(doctor::run(&map, args.resolve)),
    };
    // Whoever reads may have had enough (`| head`).
    let _ = std::io::stdout().write_all(report.text.as_bytes());
    match report.to_do {
        0 => Ok(()),
        _ => Err("there is something to do".to_owned()),
    }
}

fn explain(args: &Explain) -> Result<(), String> {
    let map = load(&args.map.path)?;
    let (tables, faults) = match &args.schema {
        Some(path) => {
            let sql =
                std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
            explain::tables_of_file(&map, &sql)
        }
        None => runtime()?.block_on(explain::tables_of_hosts(&map)),
    };
    for fault in faults {
        eprintln!("presplit: {fault}");
    }
    if let Some(file) = &args.file {
        return explain_file(args, file, &map, &tables);
    }
    let sql = args.sql.as_deref().unwrap_or_default();
    let (lines, routed) = explain::explain(&map, &tables, sql, args.params.clone());
    for line in lines {
        println!("{line}");
    }
    match routed {
        true => Ok(()),
        false => Err("the statement would be refused".to_owned()),
    }
}

fn explain_file(
    args: &Explain,
    file: &Path,
    map: &ShardMap,
    tables: &Tables,
) -> Result<(), String> {
    let name = file.display().to_string();
    let failed = |e: std::io::Error| format!("{name}: {e}");
    let bytes = match name.as_str() {
        "-" => {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes).map_err(failed)?;
            bytes
        }
        _ => std::fs::read(file).map_err(failed)?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let format = args.format.map(Into::into);
    let format = format.unwrap_or_else(|| explain::FileFormat::of(&text));
    let entries = explain::read(&text, format).map_err(|why| format!("{name}: {why}"))?;
    let report = explain::report(map, tables, &entries);
    let out = match args.json {
        true => format!("{:#}\n", report.json(&name, format.name())),
        false => report.text(&format!("{name} ({})", format.name())),
    };
    // Whoever reads may have had enough (`| head`).
    let _ = std::io::stdout().write_all(out.as_bytes());
    match report.offenders.is_empty() || !args.fail_on_refused {
        true => Ok(()),
        false => Err(format!(
            "{} statements would be refused",
            report.count(explain::Outcome::Refused).statements
        )),
    }
}

fn serve(args: &Serve) -> Result<(), String> {
    log_to_stderr();
    let map =
        MapHandle::open(&args.map.path).map_err(|faults| unusable(&args.map.path, &faults))?;
    let proxy = Proxy::bind(map.clone()).map_err(|e| e.to_string())?;
    let current = map.current();
    if current.users.is_empty() {
        tracing::warn!("no user may log in: the map has no [users]");
    }
    tracing::info!(
        version = current.version,
        shards = current.shards(),
        hosts = current.hosts.len(),
        "presplit {}",
        env!("CARGO_PKG_VERSION")
    );
    let http = proxy
        .http_address()
        .map(|a| format!(", http on {a}"))
        .unwrap_or_default();
    println!("listening on {}{http}", proxy.address());
    let runtime = runtime()?;
    let stop = CancellationToken::new();
    runtime.spawn(follow_signals(map, stop.clone()));
    runtime.block_on(proxy.run(stop)).map_err(|e| e.to_string())
}

/// Ctrl-C, SIGTERM and the end of the terminal (SIGHUP) stop the demo or the feed service; a second one leaves at once.
async fn stop_on_signals(stop: CancellationToken) {
    let signals = (
        signal(SignalKind::hangup()),
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    let (Ok(mut hangup), Ok(mut terminate), Ok(mut interrupt)) = signals else {
        tracing::error!("signals cannot be followed");
        return;
    };
    loop {
        tokio::select! {
            _ = hangup.recv() => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stop.is_cancelled() {
            std::process::exit(1);
        }
        stop.cancel();
    }
}

/// SIGHUP reads the map again; SIGTERM and Ctrl-C drain, a second one of them leaves at once.
async fn follow_signals(map: MapHandle, stop: CancellationToken) {
    let signals = (
        signal(SignalKind::hangup()),
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    let (Ok(mut hangup), Ok(mut terminate), Ok(mut interrupt)) = signals else {
        tracing::error!("signals cannot be followed");
        return;
    };
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                let map = map.clone();
                // What came of it is logged there.
                let _ = tokio::task::spawn_blocking(move || map.reload()).await;
                continue;
            }
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stop.is_cancelled() {
            std::process::exit(1);
        }
        stop.cancel();
    }
}

/// For operations, which mostly wait: one thread is enough.
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("can't start the runtime: {e}"))
}
