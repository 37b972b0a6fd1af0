//! What waits in the outbox, over all shards: how many rows, and how old the oldest is. Counted now and then by the workers' sweep.

use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, IntGaugeVec, Opts};

use super::db::{Db, Fault, value};

/// Where a row can be. A row may be in one of the lanes and wait for the webhook at the same time.
const STATES: [&str; 5] = ["fast", "slow", "dead", "hook", "hook_dead"];

/// What the sweep has found, as Prometheus wants it.
#[derive(Debug)]
pub struct Depth {
    /// Always there: the names are good.
    gauges: Option<Gauges>,
}

#[derive(Clone, Debug)]
struct Gauges {
    rows: IntGaugeVec,
    oldest: GaugeVec,
    overdue: Gauge,
}

impl Default for Depth {
    fn default() -> Depth {
        Depth {
            gauges: Gauges::new().ok(),
        }
    }
}

impl Gauges {
    fn new() -> Result<Gauges, prometheus::Error> {
        Ok(Gauges {
            rows: IntGaugeVec::new(
                Opts::new(
                    "presplit_feed_outbox_depth",
                    "Rows of the outbox over all shards: fast and slow (the lane that works on them), dead (set aside), hook (the webhook is to hear of them), hook_dead (it has refused them too often). Not there while a host is away",
                ),
                &["state"],
            )?,
            oldest: GaugeVec::new(
                Opts::new(
                    "presplit_feed_outbox_oldest_seconds",
                    "The age of the oldest of these rows, 0 if there is none",
                ),
                &["state"],
            )?,
            overdue: Gauge::new(
                "presplit_feed_outbox_overdue_seconds",
                "For how long the row that has been due for the longest has waited for a worker",
            )?,
        })
    }

    fn all(&self) -> [&dyn Collector; 3] {
        [&self.rows, &self.oldest, &self.overdue]
    }
}

/// One row of the answer: for each state how many, and the age of the oldest in seconds.
const COUNT: &str = "SELECT \
     count(*) FILTER (WHERE dead_at IS NULL AND due_at < 'infinity' AND done_to IS NULL), \
     max(extract(epoch FROM now() - created_at)::float8) FILTER (WHERE dead_at IS NULL AND due_at < 'infinity' AND done_to IS NULL), \
     count(*) FILTER (WHERE dead_at IS NULL AND due_at < 'infinity' AND done_to IS NOT NULL), \
     max(extract(epoch FROM now() - created_at)::float8) FILTER (WHERE dead_at IS NULL AND due_at < 'infinity' AND done_to IS NOT NULL), \
     count(*) FILTER (WHERE dead_at IS NOT NULL), \
     max(extract(epoch FROM now() - created_at)::float8) FILTER (WHERE dead_at IS NOT NULL), \
     count(*) FILTER (WHERE hook_at IS NOT NULL AND hook_tries < $1), \
     max(extract(epoch FROM now() - created_at)::float8) FILTER (WHERE hook_at IS NOT NULL AND hook_tries < $1), \
     count(*) FILTER (WHERE hook_at IS NOT NULL AND hook_tries >= $1), \
     max(extract(epoch FROM now() - created_at)::float8) FILTER (WHERE hook_at IS NOT NULL AND hook_tries >= $1) \
     FROM outbox";

impl Depth {
    /// Counts anew; what can't be counted is not shown.
    pub(super) async fn count(&self, db: &Db, attempts: i32) -> Result<(), Fault> {
        let Some(gauges) = &self.gauges else {
            return Ok(());
        };
        let found = self.found(db, attempts).await;
        if found.is_err() {
            gauges.rows.reset();
            gauges.oldest.reset();
        }
        for (state, (rows, oldest)) in STATES.iter().zip(found?) {
            gauges.rows.with_label_values(&[state]).set(rows);
            gauges.oldest.with_label_values(&[state]).set(oldest);
        }
        Ok(())
    }

    async fn found(&self, db: &Db, attempts: i32) -> Result<Vec<(i64, f64)>, Fault> {
        let row = db.ask_one(COUNT, &[&attempts]).await?;
        let Some(row) = row else {
            return Ok(Vec::new());
        };
        (0..STATES.len())
            .map(|n| {
                let oldest: Option<f64> = value(&row, 2 * n + 1)?;
                Ok((value(&row, 2 * n)?, oldest.unwrap_or(0.0).max(0.0)))
            })
            .collect()
    }

    /// The row that has been due for the longest has been so for this long.
    pub(super) fn overdue(&self, since: Duration) {
        if let Some(gauges) = &self.gauges {
            gauges.overdue.set(since.as_secs_f64());
        }
    }

    /// What a registry gathers.
    pub(super) fn collector(&self) -> Box<dyn Collector> {
        Box::new(Depth {
            gauges: self.gauges.clone(),
        })
    }
}

impl Collector for Depth {
    fn desc(&self) -> Vec<&Desc> {
        let all = self.gauges.iter().flat_map(Gauges::all);
        all.flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let all = self.gauges.iter().flat_map(Gauges::all);
        all.flat_map(Collector::collect).collect()
    }
}
