//! What the workers do beside all else, a little at a time and without an end: mirrors are compared with their edges and mended, and what
//! nobody can see any more is taken away, which is media that were deleted and edges that are gone, both long ago.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounter, Registry};

use super::UserId;
use super::db::{Db, Fault, jitter, value};
use super::reconcile::Reconciler;
use super::store::Store;

/// Rows of a slice of mirrors.
const SLICE: usize = 1000;
/// Rows taken away at a time.
const SWEPT: usize = 200;

/// How it is done.
#[derive(Clone, Copy, Debug)]
pub struct KeepSettings {
    /// The pause between two steps.
    pub pause: Duration,
    /// For how long media that were deleted and edges that are gone stay.
    pub retain: Duration,
}

impl Default for KeepSettings {
    fn default() -> KeepSettings {
        KeepSettings {
            pause: Duration::from_secs(2),
            retain: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// What was done, for metrics.
#[derive(Clone, Debug)]
struct Counts {
    compared: IntCounter,
    mended: IntCounter,
    swept: IntCounter,
}

impl Counts {
    fn new(registry: &Registry) -> Result<Counts, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Counts {
            compared: counter(
                "presplit_feed_mirrors_compared_total",
                "Edges and mirrors of edges that were compared",
            )?,
            mended: counter(
                "presplit_feed_mirrors_mended_total",
                "Mirrors that did not say what their edges say",
            )?,
            swept: counter(
                "presplit_feed_swept_total",
                "Deleted media and edges that are gone, taken away after their time",
            )?,
        })
    }
}

/// Keeps order until it is dropped.
#[derive(Debug)]
pub struct Keeper {
    db: Db,
    settings: KeepSettings,
    counts: Counts,
    mirrors: Reconciler,
    /// The next shard to be swept.
    shard: u32,
}

impl Keeper {
    /// Counts in this registry.
    ///
    /// # Errors
    /// The registry has such counters already.
    pub fn new(
        db: Db,
        store: Arc<dyn Store>,
        settings: KeepSettings,
        registry: &Registry,
    ) -> Result<Keeper, prometheus::Error> {
        Ok(Keeper {
            mirrors: Reconciler::new(db.clone(), store, SLICE),
            counts: Counts::new(registry)?,
            db,
            settings,
            shard: 0,
        })
    }

    /// Goes round and round.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(jitter(self.settings.pause)).await;
            match self.mirrors.slice().await {
                Ok(slice) => {
                    self.counts.compared.inc_by(slice.compared as u64);
                    self.counts.mended.inc_by(slice.mended as u64);
                }
                Err(fault) => tracing::debug!("mirrors are not compared: {fault}"),
            }
            if let Err(fault) = self.sweep().await {
                tracing::debug!("nothing is swept: {fault}");
            }
        }
    }

    /// One shard, or a part of it if there is much. A shard that can't be asked is left for the next round.
    async fn sweep(&mut self) -> Result<(), Fault> {
        let shards = self.db.shards().await?;
        let shard = self.shard % shards.max(1);
        self.shard = shard + 1;
        let media = self.media(shard).await?;
        let edges = self.edges(shard).await?;
        self.counts.swept.inc_by((media + edges.1) as u64);
        if media >= SWEPT || edges.0 >= SWEPT && edges.1 > 0 {
            self.shard = shard;
        }
        Ok(())
    }

    /// Media that were deleted long ago: no list and no cache has them, or shows them.
    async fn media(&self, shard: u32) -> Result<usize, Fault> {
        let sql = format!(
            "/* presplit: shard={shard} */ DELETE FROM media WHERE id IN \
             (SELECT id FROM media WHERE deleted_at < now() - {} * interval '1 second' LIMIT {SWEPT}) RETURNING id",
            self.settings.retain.as_secs_f64()
        );
        Ok(self.db.unprepared(&sql).await?.len())
    }

    /// Edges that have been gone for long, and their mirrors: how many were found, and taken away. The mirror goes first, and the edge only
    /// if there is none any more: a mirror without an edge would be mended by making one.
    async fn edges(&self, shard: u32) -> Result<(usize, usize), Fault> {
        const MIRROR: &str = "WITH d AS (DELETE FROM follow_in WHERE user_id = $1 AND source = $2 AND status = 'gone' AND rev <= $3) \
             SELECT count(*) FROM follow_in WHERE user_id = $1 AND source = $2 AND NOT (status = 'gone' AND rev <= $3)";
        // Turned again since, it has another rev.
        const EDGE: &str = "DELETE FROM follow_out WHERE user_id = $1 AND target = $2 AND status = 'gone' AND rev = $3";
        let sql = format!(
            "/* presplit: shard={shard} */ SELECT user_id, target, rev FROM follow_out \
             WHERE status = 'gone' AND changed_at < now() - {} * interval '1 second' LIMIT {SWEPT}",
            self.settings.retain.as_secs_f64()
        );
        let gone = self.db.unprepared(&sql).await?;
        let mut taken = 0;
        for row in &gone {
            let (source, target): (UserId, UserId) = (value(row, 0)?, value(row, 1)?);
            let rev: i64 = value(row, 2)?;
            let left = self.db.ask_one(MIRROR, &[&target, &source, &rev]).await?;
            let left: i64 = left.map_or(Ok(0), |row| value(&row, 0))?;
            if left == 0 {
                self.db.ask(EDGE, &[&source, &target, &rev]).await?;
                taken += 1;
            }
        }
        Ok((gone.len(), taken))
    }
}
