//! The feed service as one process: its parts put together, run until it is to stop.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, Opts};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::alone::{Alone, Maps};
use super::api::{self, App, Connections, Shared};
use super::db::{Db, DbSettings};
use super::fanout::{Done, WorkSettings, Workers};
use super::hook::{self, HookConfig};
use super::keep::Keeper;
use super::metrics::Metrics;
use super::outbox::Wake;
use super::read::Reader;
use super::shed::{Shed, UNDER_WAY};
use super::slow::{SlowConfig, SlowLog};
use super::stars::{StarSettings, Stars};
use super::statsd::{Statsd, StatsdConfig};
use super::store::Store;
use super::verify::{self, Sampler, Verifier};
use crate::shardmap::Secret;

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Answers calls; the workers are other processes.
    Api,
    /// Works off the outbox; answers health and metrics alone.
    Worker,
    /// Both.
    All,
}

/// What a process needs to begin.
#[derive(Debug)]
pub struct Settings {
    /// What it does.
    pub role: Role,
    /// Where it answers. Port 0: any free one.
    pub listen: SocketAddr,
    /// How many may be connected, and for how long.
    pub connections: Connections,
    /// Who may call; must not be empty but on loopback.
    pub tokens: Vec<Secret>,
    /// Where Postgres is, as a rule the proxy.
    pub db: DbSettings,
    /// Feeds and cached objects.
    pub store: Arc<dyn Store>,
    /// How its workers work.
    pub work: WorkSettings,
    /// When an author becomes a star.
    pub stars: StarSettings,
    /// Whom to tell of what is written.
    pub hook: Option<HookConfig>,
    /// Whom else to tell what is counted, and what of single requests to keep.
    pub watch: Watch,
}

impl Settings {
    /// All of it in one process, on any free port of loopback, nothing else said.
    pub fn new(url: String, store: Arc<dyn Store>) -> Settings {
        Settings {
            role: Role::All,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            connections: Connections::default(),
            tokens: Vec::new(),
            db: DbSettings {
                url,
                ..DbSettings::default()
            },
            store,
            work: WorkSettings::default(),
            stars: StarSettings::default(),
            hook: None,
            watch: Watch::default(),
        }
    }
}

/// What is watched beside `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Counters, gauges and times by UDP.
    pub statsd: Option<StatsdConfig>,
    /// Requests that take too long, in a file.
    pub slow: Option<SlowConfig>,
}

/// A process that listens.
#[derive(Debug)]
pub struct Service {
    listener: TcpListener,
    connections: Connections,
    app: App,
    role: Role,
    // They end when it is dropped.
    _workers: Option<Workers>,
    _tasks: JoinSet<()>,
}

impl Service {
    /// Takes the port and starts the workers; Postgres is connected to when it is first needed.
    ///
    /// # Errors
    /// What is wrong with the settings, or why the port can't be had.
    pub async fn start(settings: Settings, stop: CancellationToken) -> Result<Service, String> {
        let Settings {
            role,
            listen,
            connections,
            tokens,
            mut db,
            store,
            mut work,
            stars,
            hook,
            watch,
        } = settings;
        if let Some(hook) = &hook {
            work.hook = hook.events;
            db.tells_edges = hook.events.edge;
        }
        if tokens.is_empty() && !listen.ip().is_loopback() {
            return Err(format!(
                "{listen} can be reached from elsewhere and [feed] has no tokens: write tokens = [\"${{FEED_TOKEN}}\"], or listen on 127.0.0.1"
            ));
        }
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|e| format!("can't listen on {listen}: {e}"))?;
        let failed = |e: &dyn std::fmt::Display| e.to_string();
        let calls = Db::new(&db).map_err(|e| failed(&e))?;
        let health = Db::new(&DbSettings {
            connections: 1,
            wait: HEALTHY_WITHIN,
            statement: HEALTHY_WITHIN,
            ..db.clone()
        });
        let health = health.map_err(|e| failed(&e))?;
        let metrics = Arc::new(Metrics::new().map_err(|e| failed(&e))?);
        let mut tasks = JoinSet::new();
        let statsd = match &watch.statsd {
            None => None,
            Some(config) => {
                let statsd = Statsd::start(config, metrics.registry.clone(), &mut tasks).await;
                Some(statsd.map_err(|e| format!("[feed.statsd]: {e}"))?)
            }
        };
        if let Some(statsd) = &statsd {
            metrics.tell(statsd.clone());
        }
        if let Some(config) = &watch.slow {
            let log = SlowLog::start(config);
            metrics.keep_slow(log.map_err(|e| format!("{}: {e}", config.file.display()))?);
        }
        if store.is_shared() {
            let maps = Maps::new(store.clone(), &metrics.registry);
            tasks.spawn(maps.map_err(|e| failed(&e))?.run());
        }
        let workers = match role {
            Role::Api => None,
            Role::Worker | Role::All => {
                // Connections of their own, so that no call waits for a worker's.
                let own = Db::new(&db).map_err(|e| failed(&e))?;
                let stars = Arc::new(Stars::new(own.clone(), stars));
                if let Some(hook) = hook {
                    hook::start(hook, own.clone(), work, &metrics.registry, &mut tasks)?;
                }
                let keeper = Keeper::new(own.clone(), store.clone(), work.keep, &metrics.registry);
                tasks.spawn(keeper.map_err(|e| failed(&e))?.run());
                if !store.is_shared() {
                    let alone = Alone::new(calls.clone(), &metrics.registry);
                    tasks.spawn(alone.map_err(|e| failed(&e))?.run());
                }
                let workers = Workers::start(own, store.clone(), stars, work);
                let done = workers.done();
                if let Some(statsd) = statsd {
                    done.lag.tell(statsd);
                }
                let sampler = Sampler::new(Verifier::new(calls.clone(), store.clone()));
                let sampler = sampler.map_err(|e| failed(&e))?;
                let counted: [Box<dyn Collector>; 4] = [
                    Box::new(sampler.seen()),
                    Box::new(done.lag.clone()),
                    done.depth.collector(),
                    Box::new(WorkersDone::new(done).map_err(|e| failed(&e))?),
                ];
                for counted in counted {
                    metrics.registry.register(counted).map_err(|e| failed(&e))?;
                }
                tasks.spawn(sampler.run(verify::EVERY));
                Some(workers)
            }
        };
        let wake = workers
            .as_ref()
            .map_or_else(|| Wake::nobody(work.hook), Workers::wake);
        let reader = Reader::new(calls.clone(), store.clone(), metrics.clone());
        let app = App::new(Shared {
            db: calls,
            health,
            store,
            reader,
            wake,
            metrics,
            shed: Shed::new(UNDER_WAY),
            tokens,
            stop,
        });
        Ok(Service {
            listener,
            connections,
            app,
            role,
            _workers: workers,
            _tasks: tasks,
        })
    }

    /// Where it answers.
    ///
    /// # Errors
    /// The listener is gone.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What its calls share, for whoever is in the same process.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Answers until it is to stop; calls under way come to their end, rows that workers have taken go to others when their leases
    /// run out.
    pub async fn run(self) {
        self.run_beside(Router::new()).await;
    }

    /// As [`Service::run`], with other routes beside the API's.
    pub async fn run_beside(self, others: Router) {
        let router = match self.role {
            Role::Worker => api::open_router(self.app.clone()),
            Role::Api | Role::All => api::router(self.app.clone()),
        };
        let router = router.merge(others);
        api::serve(router, &self.app, self.listener, self.connections, DRAIN).await;
    }
}

/// How long Postgres may take to say that it is there.
const HEALTHY_WITHIN: Duration = Duration::from_secs(2);

/// How long calls under way may go on once the service is to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// What the workers count, as Prometheus wants it.
struct WorkersDone {
    done: Arc<Done>,
    rows: Opts,
    deliveries: Opts,
    descs: Vec<Desc>,
}

impl WorkersDone {
    fn new(done: Arc<Done>) -> Result<WorkersDone, prometheus::Error> {
        let rows = Opts::new(
            "presplit_feed_outbox_rows_total",
            "Rows of the outbox that workers of this process were done with, by outcome: done, failed (an attempt), dead (set aside)",
        );
        let deliveries = Opts::new(
            "presplit_feed_deliveries_total",
            "Pushes of media to feeds, by outcome: new, duplicate, absent",
        );
        let mut descs = Vec::new();
        for opts in [&rows, &deliveries] {
            let family = IntCounterVec::new(opts.clone(), &["outcome"])?;
            descs.extend(family.desc().into_iter().cloned());
        }
        Ok(WorkersDone {
            done,
            rows,
            deliveries,
            descs,
        })
    }
}

impl Collector for WorkersDone {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        use std::sync::atomic::Ordering::Relaxed;
        let pushed = *self
            .done
            .pushed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let rows = [
            ("done", self.done.rows.load(Relaxed)),
            ("failed", self.done.failed.load(Relaxed)),
            ("dead", self.done.dead.load(Relaxed)),
        ];
        let deliveries = [
            ("new", pushed.new),
            ("duplicate", pushed.duplicate),
            ("absent", pushed.absent),
        ];
        let mut families = Vec::new();
        for (opts, values) in [(&self.rows, rows), (&self.deliveries, deliveries)] {
            // The names were good when this was made.
            let Ok(counters) = IntCounterVec::new(opts.clone(), &["outcome"]) else {
                continue;
            };
            for (outcome, value) in values {
                counters.with_label_values(&[outcome]).inc_by(value);
            }
            families.extend(counters.collect());
        }
        families
    }
}
