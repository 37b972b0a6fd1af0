//! Whether processes that run side by side get into each other's way. Feeds in a process' memory are known to no other: of several such
//! processes on one database each lacks what the others' workers push. Each holds an advisory lock while it runs; who does not get it says
//! so. And of processes that share nodes of Redis each must map partitions to them as the others do.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntGauge, Registry};

use super::db::{Db, Fault, Lock};
use super::store::Store;

/// The lock's key: "feed", in letters.
const KEY: i64 = 0x6665_6564;
/// How often it is looked.
const EVERY: Duration = Duration::from_secs(5);

/// Looks whether another process has another map of the nodes of Redis, until it is dropped.
pub(super) struct Maps {
    store: Arc<dyn Store>,
    differ: IntGauge,
}

impl Maps {
    /// Says it in this registry.
    pub(super) fn new(
        store: Arc<dyn Store>,
        registry: &Registry,
    ) -> Result<Maps, prometheus::Error> {
        let differ = IntGauge::new(
            "presplit_feed_maps_differ",
            "1: another process has another map of the nodes of Redis, and both show feeds that lack posts",
        )?;
        registry.register(Box::new(differ.clone()))?;
        Ok(Maps { store, differ })
    }

    pub(super) async fn run(self) {
        let mut said = false;
        loop {
            match self.store.maps().await {
                Ok(maps) => {
                    let differ = maps > 1;
                    if differ && !said {
                        tracing::error!(
                            "processes have {maps} different maps of the nodes of Redis: feeds lack posts. Start all of them with one [feed.redis.nodes] and one [feed.redis.partitions]"
                        );
                    }
                    said = differ;
                    self.differ.set(i64::from(differ));
                }
                Err(fault) => tracing::debug!("nobody knows which maps there are: {fault}"),
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// Looks whether another process has feeds in its memory, until it is dropped.
pub(super) struct Alone {
    db: Db,
    others: IntGauge,
    lock: Option<Lock>,
}

impl Alone {
    /// Says it in this registry.
    pub(super) fn new(db: Db, registry: &Registry) -> Result<Alone, prometheus::Error> {
        let others = IntGauge::new(
            "presplit_feed_not_alone",
            "1: another process has feeds of this database in its memory, too, and both lack posts",
        )?;
        registry.register(Box::new(others.clone()))?;
        Ok(Alone {
            db,
            others,
            lock: None,
        })
    }

    pub(super) async fn run(mut self) {
        let mut said = false;
        loop {
            match self.look().await {
                Ok(alone) => {
                    if !alone && !said {
                        tracing::warn!(
                            "another process of presplit feed has feeds of this database in its memory: each lacks what the other pushes. Stop one of them, or write [feed.redis]"
                        );
                    }
                    said = !alone;
                    self.others.set(i64::from(!alone));
                }
                Err(fault) => {
                    tracing::debug!("nobody knows whether this process is alone: {fault}")
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn look(&mut self) -> Result<bool, Fault> {
        if self.lock.as_ref().is_none_or(Lock::is_lost) {
            self.lock = self.db.lock(KEY).await?;
        }
        Ok(self.lock.is_some())
    }
}
