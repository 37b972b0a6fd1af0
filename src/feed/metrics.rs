//! Counters of the feed service, in the Prometheus registry that its `/metrics` prints.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use super::page::Source;
use super::slow::SlowLog;
use super::statsd::Statsd;

/// All counters of one process. Workers register their own beside them, in the same registry.
pub struct Metrics {
    /// What `/metrics` gathers from.
    pub registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    reads: IntCounterVec,
    objects: IntCounterVec,
    builds: IntCounterVec,
    build_seconds: Histogram,
    store_faults: IntCounterVec,
    posts: IntCounter,
    shed: IntCounter,
    connections_refused: IntCounter,
    shed_level: IntGauge,
    statsd: OnceLock<Statsd>,
    slow: OnceLock<SlowLog>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// From half a millisecond to 10 seconds.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

impl Metrics {
    /// Counters at 0 in a registry of their own.
    ///
    /// # Errors
    /// Never with these names; Prometheus checks them at run time.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let labelled = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "presplit_feed_request_seconds",
                "How long HTTP requests took, by operation",
            )
            .buckets(SECONDS.to_vec()),
            &["operation"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let build_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "presplit_feed_build_seconds",
                "How long it took to build an absent feed from Postgres",
            )
            .buckets(SECONDS.to_vec()),
        )?;
        registry.register(Box::new(build_seconds.clone()))?;
        let shed_level = IntGauge::new(
            "presplit_feed_shed_level",
            "How much shorter pages are for load: 0 not at all, each further level halves them",
        )?;
        registry.register(Box::new(shed_level.clone()))?;
        Ok(Metrics {
            seconds,
            build_seconds,
            shed_level,
            requests: labelled(
                "presplit_feed_requests_total",
                "HTTP requests, by operation and status",
                &["operation", "status"],
            )?,
            reads: labelled(
                "presplit_feed_reads_total",
                "Pages read, by timeline and by where they came from",
                &["timeline", "source"],
            )?,
            objects: labelled(
                "presplit_feed_objects_total",
                "Objects looked up for pages, by where they were: store, flight (another request's statement), postgres, gone",
                &["tier"],
            )?,
            builds: labelled(
                "presplit_feed_builds_total",
                "Absent feeds built from Postgres, by outcome: complete, superseded (another's, or dropped meanwhile), failed",
                &["outcome"],
            )?,
            store_faults: labelled(
                "presplit_feed_store_faults_total",
                "Calls of the store that failed or came too late, by call",
                &["call"],
            )?,
            posts: counter("presplit_feed_posts_total", "Media posted")?,
            shed: counter(
                "presplit_feed_shed_total",
                "Requests turned away because too many were under way",
            )?,
            connections_refused: counter(
                "presplit_feed_connections_refused_total",
                "Connections closed at once because there were too many",
            )?,
            statsd: OnceLock::new(),
            slow: OnceLock::new(),
            registry,
        })
    }

    /// From now on statsd hears of all times, too.
    pub(super) fn tell(&self, statsd: Statsd) {
        drop(self.statsd.set(statsd));
    }

    /// From now on requests that take too long are kept here.
    pub(super) fn keep_slow(&self, slow: SlowLog) {
        drop(self.slow.set(slow));
    }

    /// Where requests that take too long are kept, if they are.
    pub(super) fn slow(&self) -> Option<&SlowLog> {
        self.slow.get()
    }

    /// A request was answered.
    pub fn request(&self, operation: &str, status: u16, took: Duration) {
        self.requests
            .with_label_values(&[operation, &status.to_string()])
            .inc();
        self.seconds
            .with_label_values(&[operation])
            .observe(took.as_secs_f64());
        if let Some(statsd) = self.statsd.get() {
            statsd.timing("request", &[("operation", operation)], took);
        }
    }

    /// A page was made.
    pub fn read(&self, timeline: &str, source: Source) {
        self.reads
            .with_label_values(&[timeline, source.name()])
            .inc();
    }

    /// Objects were found in this tier.
    pub fn objects(&self, tier: &str, count: usize) {
        self.objects.with_label_values(&[tier]).inc_by(count as u64);
    }

    /// A build ended.
    pub fn build(&self, outcome: &str, took: Duration) {
        self.builds.with_label_values(&[outcome]).inc();
        self.build_seconds.observe(took.as_secs_f64());
        if let Some(statsd) = self.statsd.get() {
            statsd.timing("build", &[("outcome", outcome)], took);
        }
    }

    /// The store could not do it.
    pub fn store_fault(&self, call: &str) {
        self.store_faults.with_label_values(&[call]).inc();
    }

    /// A media was posted.
    pub fn post(&self) {
        self.posts.inc();
    }

    /// A request was turned away.
    pub fn turned_away(&self) {
        self.shed.inc();
    }

    /// A connection was closed at once.
    pub(super) fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// The shed level is this now.
    pub fn shed_level(&self, level: u8) {
        self.shed_level.set(level.into());
    }
}
