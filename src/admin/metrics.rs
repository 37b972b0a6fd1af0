//! All metrics at one moment: what is counted as it happens, and beside it what is asked for now.

use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, GaugeVec, Opts, Registry};

use crate::session::{Activity, Context, Database};
use crate::shardmap::{HostId, LastLoad};
use crate::twophase::Readiness;

/// Everything, sorted by name.
///
/// # Errors
/// Never with these names and labels; Prometheus checks them at run time.
pub(super) fn gather(context: &Context) -> Result<Vec<MetricFamily>, prometheus::Error> {
    let now = Now(Registry::new());
    map(context, &now)?;
    pools(context, &now)?;
    clients(context, &now)?;
    transactions(context, &now)?;
    caches(context, &now)?;
    now.gauge(
        "presplit_build_info",
        "1; the label tells the version",
        &["version"],
        [(vec![env!("CARGO_PKG_VERSION").into()], 1.0)],
    )?;
    let mut families = context.stats.registry.gather();
    families.extend(now.0.gather());
    families.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(families)
}

/// Metrics that live for one look.
struct Now(Registry);

/// Values of the labels, and the value.
type Sample = (Vec<String>, f64);

impl Now {
    fn gauge(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        samples: impl IntoIterator<Item = Sample>,
    ) -> Result<(), prometheus::Error> {
        let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
        for (values, value) in samples {
            gauges.get_metric_with_label_values(&values)?.set(value);
        }
        self.0.register(Box::new(gauges))
    }

    fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        samples: impl IntoIterator<Item = Sample>,
    ) -> Result<(), prometheus::Error> {
        let counters = CounterVec::new(Opts::new(name, help), labels)?;
        for (values, value) in samples {
            counters
                .get_metric_with_label_values(&values)?
                .inc_by(value);
        }
        self.0.register(Box::new(counters))
    }
}

fn map(context: &Context, now: &Now) -> Result<(), prometheus::Error> {
    let map = context.map.current();
    let counts = context.map.counts();
    let (good, since) = match context.map.last_load() {
        LastLoad::Good => (1.0, None),
        LastLoad::Bad { since, .. } => (0.0, Some(since)),
    };
    let since = since.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    now.gauge(
        "presplit_map_version",
        "Version of the shard map in force",
        &[],
        [(vec![], map.version as f64)],
    )?;
    now.gauge(
        "presplit_map_good",
        "1: shardmap.toml says what is in force; 0: it can't be used, the map before it is in force",
        &[],
        [(vec![], good)],
    )?;
    now.gauge(
        "presplit_map_bad_since_seconds",
        "Unix time since when shardmap.toml can't be used; 0 if it can",
        &[],
        [(vec![], since.map_or(0.0, |since| since.as_secs_f64()))],
    )?;
    now.counter(
        "presplit_map_loads_total",
        "Loads of shardmap.toml, by how they went",
        &["result"],
        [
            (vec!["good".into()], counts.good as f64),
            (vec!["bad".into()], counts.bad as f64),
        ],
    )?;
    let hosts = map.hosts.iter().enumerate();
    now.gauge(
        "presplit_shards",
        "Logical shards that a host owns under the map in force",
        &["host"],
        hosts.map(|(n, host)| {
            let owned = map.shards_of(HostId(n as u16)).count();
            (vec![host.name.clone()], owned as f64)
        }),
    )?;
    now.gauge(
        "presplit_tables",
        "Tables of the app that are known; 0: no statement can be served yet",
        &[],
        [(
            vec![],
            context
                .schema
                .load()
                .tables
                .as_ref()
                .map_or(0, |t| t.list().len()) as f64,
        )],
    )?;
    now.gauge(
        "presplit_catalog_faults",
        "Faults of the last look at the hosts' catalogs; SHOW TABLES has them in words",
        &[],
        [(vec![], context.refresh.faults().len() as f64)],
    )
}

fn pools(context: &Context, now: &Now) -> Result<(), prometheus::Error> {
    let pools: Vec<_> = context
        .pools
        .list()
        .into_iter()
        .map(|pool| {
            let labels = vec![pool.host.clone(), pool.url.user.clone()];
            (labels, pool.counts(), pool.last_fault().is_some())
        })
        .collect();
    let labels = ["host", "user"];
    let gauge = |name: &str, help: &str, value: &dyn Fn(&crate::pool::PoolCounts) -> f64| {
        let samples = pools
            .iter()
            .map(|(labels, counts, _)| (labels.clone(), value(counts)));
        now.gauge(name, help, &labels, samples)
    };
    let counter = |name: &str, help: &str, value: &dyn Fn(&crate::pool::PoolCounts) -> u64| {
        let samples = pools
            .iter()
            .map(|(labels, counts, _)| (labels.clone(), value(counts) as f64));
        now.counter(name, help, &labels, samples)
    };
    gauge(
        "presplit_pool_cl_waiting",
        "Checkouts that wait for a server connection",
        &|c| c.cl_waiting as f64,
    )?;
    gauge(
        "presplit_pool_sv_active",
        "Server connections lent to a client or being opened",
        &|c| c.sv_active as f64,
    )?;
    gauge(
        "presplit_pool_sv_pinned",
        "Server connections that clients keep beyond a transaction, for locks, channels, temporary tables and cursors",
        &|c| c.sv_pinned as f64,
    )?;
    gauge(
        "presplit_pool_sv_shared",
        "Server connections that carry short reads of many clients at a time",
        &|c| c.sv_shared as f64,
    )?;
    gauge("presplit_pool_sv_idle", "Idle server connections", &|c| {
        c.sv_idle as f64
    })?;
    gauge(
        "presplit_pool_maxwait_seconds",
        "How long the first of those that wait has waited",
        &|c| c.maxwait.as_secs_f64(),
    )?;
    counter(
        "presplit_pool_checkouts_total",
        "Server connections asked for",
        &|c| c.checkouts,
    )?;
    counter(
        "presplit_pool_opened_total",
        "Server connections opened",
        &|c| c.opened,
    )?;
    counter(
        "presplit_pool_failed_total",
        "Logins at the host that failed",
        &|c| c.failed,
    )?;
    counter(
        "presplit_pool_shared_total",
        "Statements answered over shared server connections",
        &|c| c.shared,
    )?;
    counter(
        "presplit_pool_displaced_total",
        "Statements that waited too long on a shared server connection and were run elsewhere",
        &|c| c.displaced,
    )?;
    now.gauge(
        "presplit_pool_down",
        "1: the last login at the host failed",
        &labels,
        pools
            .iter()
            .map(|(labels, _, down)| (labels.clone(), f64::from(u8::from(*down)))),
    )
}

fn clients(context: &Context, now: &Now) -> Result<(), prometheus::Error> {
    let clients = context.clients.list();
    let mut samples = Vec::new();
    for (database, name) in [(Database::App, "app"), (Database::Console, "console")] {
        for activity in [Activity::Idle, Activity::InTransaction, Activity::Active] {
            let same = clients
                .iter()
                .filter(|c| c.database == database && c.activity().0 == activity)
                .count();
            let state = super::show::state(activity).to_owned();
            samples.push((vec![name.to_owned(), state], same as f64));
        }
    }
    now.gauge(
        "presplit_clients",
        "Clients logged in, by what they are doing",
        &["database", "state"],
        samples,
    )
}

fn transactions(context: &Context, now: &Now) -> Result<(), prometheus::Error> {
    let map = context.map.current();
    let board = &context.two_phase;
    let in_doubt = board.in_doubt();
    let ages = |host: &str| -> Vec<f64> {
        let on_host = in_doubt.iter().filter(|left| left.host == host);
        on_host
            .map(|left| left.since.elapsed().as_secs_f64())
            .collect()
    };
    let of_hosts = |value: &dyn Fn(&str) -> f64| -> Vec<Sample> {
        let hosts = map.hosts.iter();
        hosts
            .map(|host| (vec![host.name.clone()], value(&host.name)))
            .collect()
    };
    now.gauge(
        "presplit_transactions_under_way",
        "Transactions over several hosts that clients are at work on",
        &[],
        [(vec![], board.live().len() as f64)],
    )?;
    now.gauge(
        "presplit_transactions_in_doubt",
        "Prepared transactions of any presplit that were found on a host and not ended; SHOW TRANSACTIONS has them in words",
        &["host"],
        of_hosts(&|host| ages(host).len() as f64),
    )?;
    now.gauge(
        "presplit_transactions_in_doubt_oldest_seconds",
        "How long ago the oldest of them was prepared; 0: there is none",
        &["host"],
        of_hosts(&|host| ages(host).into_iter().fold(0.0, f64::max)),
    )?;
    now.gauge(
        "presplit_two_phase_ready",
        "1: the host can take part in transactions over several; 0: it can't, or has not been reached; SHOW HOSTS says why",
        &["host"],
        of_hosts(&|host| f64::from(u8::from(matches!(board.readiness(host), Readiness::Ready(_))))),
    )
}

fn caches(context: &Context, now: &Now) -> Result<(), prometheus::Error> {
    let schema = context.schema.load();
    let caches = [
        ("plans", schema.plan_counts()),
        ("statements", schema.statement_counts()),
    ];
    let label = |name: &str| vec![name.to_owned()];
    now.gauge(
        "presplit_plan_cache_entries",
        "Entries of the caches that all workers share",
        &["cache"],
        caches
            .iter()
            .map(|(name, c)| (label(name), c.entries as f64)),
    )?;
    let counter = |what: &str, help: &str, value: &dyn Fn(&crate::sql::cache::Counters) -> u64| {
        let name = format!("presplit_plan_cache_{what}_total");
        let samples = caches
            .iter()
            .map(|(name, c)| (label(name), value(&c.counters) as f64));
        now.counter(&name, help, &["cache"], samples)
    };
    counter(
        "hits",
        "Look-ups that a worker's own cache could not answer and the shared one could; from 0 when the tables change",
        &|c| c.hits,
    )?;
    counter(
        "misses",
        "Look-ups that found nothing: a plan was made",
        &|c| c.misses,
    )?;
    counter("evictions", "Entries given up for others", &|c| c.evictions)?;
    counter(
        "bypassed",
        "Texts too long to be kept: planned anew each time",
        &|c| c.bypassed,
    )
}
