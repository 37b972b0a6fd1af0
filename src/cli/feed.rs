//! `presplit feed`: the feed service, its SQL, and what is asked about its feeds.

mod ahead;
mod plan;
mod verify;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use presplit::feed::config::{self, FeedConfig, StoreConfig};
use presplit::feed::db::DbSettings;
use presplit::feed::fanout::WorkSettings;
use presplit::feed::service::{Role, Service, Settings, Watch};
use presplit::feed::store::{self, Store};
use presplit::feed::{SCHEMA, TABLES};
use presplit::shardmap::{Kind, ShardMap, render_faults};
use tokio_util::sync::CancellationToken;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Feed {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand)]
enum What {
    /// Prints the SQL of the feed's tables and what to write into the map.
    Schema,
    /// Builds the feeds of users who were active lately, before they are read: after Redis has lost them.
    Warm(ahead::Warm),
    /// Drops feeds and builds them from Postgres.
    Rebuild(ahead::Rebuild),
    /// Says what a load will take: bytes of Redis, deliveries a second, processes.
    Plan(plan::Plan),
    /// Compares the feeds that the store has with what Postgres says they must be. Exit code 1 if any differs.
    Verify(verify::Verify),
}

/// Where everything is.
#[derive(Args)]
struct Place {
    /// Where the feed's tables are, as a rule the proxy. Without it: the environment's DATABASE_URL, else the proxy's usual place.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// The file whose [feed] says how. Without it: shardmap.toml if there is one.
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
}

impl Place {
    fn db(&self) -> DbSettings {
        let mut db = DbSettings::default();
        let said = self.database_url.clone();
        if let Some(url) = said.or_else(|| std::env::var("DATABASE_URL").ok()) {
            db.url = url;
        }
        db
    }
}

#[derive(Args)]
struct Run {
    /// What this process does. Several processes need [feed.redis] in the map; without it feeds are in the one process.
    #[arg(long, value_enum, default_value_t = RoleName::All)]
    role: RoleName,
    #[command(flatten)]
    place: Place,
    /// Where to answer HTTP; beats the map's [feed] listen.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
}

#[derive(Clone, Copy, ValueEnum)]
enum RoleName {
    Api,
    Worker,
    All,
}

/// Does what the flags say.
pub(crate) fn feed(args: Feed) -> Result<(), String> {
    match args.what {
        None => serve(args.run),
        Some(What::Schema) => {
            println!("{SCHEMA}\n-- In the map:\n-- [tables]");
            for line in TABLES.lines() {
                println!("-- {line}");
            }
            Ok(())
        }
        Some(What::Warm(args)) => ahead::warm(&args),
        Some(What::Rebuild(args)) => ahead::rebuild(&args),
        Some(What::Plan(args)) => plan::plan(&args),
        Some(What::Verify(args)) => verify::verify(&args),
    }
}

fn serve(run: Run) -> Result<(), String> {
    super::log_to_stderr();
    let role = match run.role {
        RoleName::Api => Role::Api,
        RoleName::Worker => Role::Worker,
        RoleName::All => Role::All,
    };
    let db = run.place.db();
    let config = config(run.place.map.as_deref())?;
    let in_memory = matches!(config.store, StoreConfig::Memory(_));
    if in_memory && role != Role::All {
        return Err("--role api and --role worker are for several processes, which share their feeds in Redis: add [feed.redis] to the map, or run --role all".to_owned());
    }
    let store = store::open(&config.store).map_err(|e| e.to_string())?;
    let listen = run.listen.or(config.listen);
    let settings = Settings {
        role,
        listen: listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 6480))),
        connections: config.connections,
        tokens: config.tokens,
        db,
        store,
        work: WorkSettings::default(),
        hook: config.hook,
        watch: Watch {
            statsd: config.statsd,
            slow: config.slow,
        },
        stars: config.stars,
    };
    let runtime =
        tokio::runtime::Runtime::new().map_err(|e| format!("can't start the runtime: {e}"))?;
    let stop = CancellationToken::new();
    runtime.block_on(async {
        let service = Service::start(settings, stop.clone()).await?;
        let address = service.address().map_err(|e| e.to_string())?;
        println!("listening on {address}, feed API at http://{address}/v1");
        tokio::spawn(super::stop_on_signals(stop));
        service.run().await;
        Ok(())
    })
}

/// The `[feed]` of the map's file; the defaults where nobody names a file and none is there.
fn config(path: Option<&Path>) -> Result<FeedConfig, String> {
    let usual = Path::new("shardmap.toml");
    let name = path.unwrap_or(usual).display().to_string();
    let text = match path {
        None if !usual.exists() => String::new(),
        path => {
            std::fs::read_to_string(path.unwrap_or(usual)).map_err(|e| format!("{name}: {e}"))?
        }
    };
    config::parse(&name, &text, &|name| std::env::var(name).ok()).map_err(|faults| {
        format!(
            "{name}: its [feed] can't be used\n{}",
            render_faults(&name, &faults)
        )
    })
}

/// The store, for a command that nobody waits for as for a page: it gives up later.
fn patient_store(config: &mut StoreConfig) -> Result<Arc<dyn Store>, String> {
    if let StoreConfig::Redis(redis) = config {
        redis.limit = redis.limit.max(Duration::from_secs(5));
    }
    store::open(config).map_err(|e| e.to_string())
}

/// The app's tables and the feed's, for `provision --feed`.
pub(crate) fn with_schema(map: &ShardMap, path: &Path, app: String) -> Result<String, String> {
    let is_ids = map.tables.get("media").is_some_and(|t| t.ids == ["id"]);
    let is_reference = map
        .tables
        .get("stars")
        .is_some_and(|t| t.kind == Some(Kind::Reference));
    if map.keyspace.key != "user_id" || !is_ids || !is_reference {
        return Err(format!(
            "{}: the feed's tables are not in it as they must be: the key is user_id, and [tables] has\n{TABLES}",
            path.display()
        ));
    }
    // The last statement of a file need not have its semicolon.
    let end = if app.trim_end().ends_with(';') || app.trim().is_empty() {
        ""
    } else {
        ";"
    };
    Ok(format!("{app}\n{end}\n{SCHEMA}"))
}
