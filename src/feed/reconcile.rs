//! Compares edges with their mirrors, a slice at a time, and mends the mirrors: the truth is `follow_out`. What is found was lost by
//! hand, by a restored backup or by a fault of ours; what is only under way is mended by whoever is faster, which does no harm.

use std::collections::HashMap;
use std::sync::Arc;

use super::UserId;
use super::db::{Db, Fault, value};
use super::edges::{self, Edge, Unsettled};
use super::graph::Status;
use super::store::Store;

/// Which table a round goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walk {
    /// Edges: is each mirrored?
    Truth,
    /// Mirrors: has each an edge?
    Mirrors,
}

/// What a slice found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Rows compared.
    pub compared: usize,
    /// Mirrors mended.
    pub mended: usize,
    /// With this slice a round over all edges and all mirrors has ended.
    pub round: bool,
}

/// Goes round and round.
#[derive(Debug)]
pub struct Reconciler {
    db: Db,
    store: Arc<dyn Store>,
    rows: usize,
    shards: Option<u32>,
    walk: Walk,
    shard: u32,
    /// Behind this row of the shard.
    after: (i64, i64),
    /// Those who follow by a mirror that was mended: their feeds lack what was pushed without it.
    lacking: Vec<UserId>,
}

impl Reconciler {
    /// Compares so many rows a slice.
    #[must_use]
    pub fn new(db: Db, store: Arc<dyn Store>, rows: usize) -> Reconciler {
        Reconciler {
            db,
            store,
            rows: rows.max(1),
            shards: None,
            walk: Walk::Truth,
            shard: 0,
            after: (i64::MIN, i64::MIN),
            lacking: Vec::new(),
        }
    }

    /// The next slice: one shard's rows, and what they are to be compared with.
    ///
    /// # Errors
    /// What Postgres or the store could not do; the slice is done again by the next call.
    pub async fn slice(&mut self) -> Result<Slice, Unsettled> {
        let shards = match self.shards {
            Some(shards) => shards,
            None => *self.shards.insert(self.db.shards().await?),
        };
        let (columns, table) = match self.walk {
            Walk::Truth => ("user_id, target", "follow_out"),
            Walk::Mirrors => ("user_id, source", "follow_in"),
        };
        let sql = format!(
            "/* presplit: shard={} */ SELECT {columns}, status, rev FROM {table} WHERE ({columns}) > ('{}'::bigint, '{}'::bigint) ORDER BY {columns} LIMIT {}",
            self.shard, self.after.0, self.after.1, self.rows
        );
        let mut found = Vec::new();
        for row in self.db.unprepared(&sql).await? {
            found.push(((value(&row, 0)?, value(&row, 1)?), Edge::read(&row, 2)?));
        }
        let mended = match self.walk {
            Walk::Truth => self.truth(&found).await?,
            Walk::Mirrors => self.mirrors(&found).await?,
        };
        self.store.drop_feeds(&self.lacking).await?;
        self.lacking.clear();
        let mut slice = Slice {
            compared: found.len(),
            mended,
            round: false,
        };
        match found.last() {
            Some((last, _)) if found.len() >= self.rows => self.after = *last,
            _ => {
                self.after = (i64::MIN, i64::MIN);
                self.shard += 1;
            }
        }
        if self.shard >= shards {
            slice.round = self.walk == Walk::Mirrors;
            (self.shard, self.shards) = (0, None);
            self.walk = if slice.round {
                Walk::Truth
            } else {
                Walk::Mirrors
            };
        }
        Ok(slice)
    }

    /// Edges, each `(source, target)`: their mirrors are read behind them, so that what is missing is missing.
    async fn truth(&mut self, edges: &[((UserId, UserId), Edge)]) -> Result<usize, Fault> {
        const SQL: &str = "SELECT source, user_id, status, rev FROM follow_in WHERE user_id = ANY ($1::bigint[]) AND source = ANY ($2::bigint[])";
        let (sources, targets): (Vec<_>, Vec<_>) = edges.iter().map(|(e, _)| *e).unzip();
        let mirrors = self.others(SQL, targets, sources).await?;
        let mut mended = 0;
        for ((source, target), edge) in edges {
            let mirror = mirrors.get(&(*source, *target)).copied();
            mended += usize::from(self.mend(*source, *target, Some(*edge), mirror).await?);
        }
        Ok(mended)
    }

    /// Mirrors, each `(target, source)`: the edges are read behind them, so each is at least as new as its mirror.
    async fn mirrors(&mut self, mirrors: &[((UserId, UserId), Edge)]) -> Result<usize, Fault> {
        const SQL: &str = "SELECT user_id, target, status, rev FROM follow_out WHERE user_id = ANY ($1::bigint[]) AND target = ANY ($2::bigint[])";
        let (targets, sources): (Vec<_>, Vec<_>) = mirrors.iter().map(|(m, _)| *m).unzip();
        let edges = self.others(SQL, sources, targets).await?;
        let mut mended = 0;
        for ((target, source), mirror) in mirrors {
            let edge = edges.get(&(*source, *target)).copied();
            mended += usize::from(self.mend(*source, *target, edge, Some(*mirror)).await?);
        }
        Ok(mended)
    }

    /// By `(source, target)`.
    async fn others(
        &self,
        sql: &str,
        mut keys: Vec<i64>,
        mut others: Vec<i64>,
    ) -> Result<HashMap<(UserId, UserId), Edge>, Fault> {
        let mut found = HashMap::new();
        for list in [&mut keys, &mut others] {
            list.sort_unstable();
            list.dedup();
        }
        if keys.is_empty() {
            return Ok(found);
        }
        for row in self.db.ask(sql, &[&keys, &others]).await? {
            found.insert((value(&row, 0)?, value(&row, 1)?), Edge::read(&row, 2)?);
        }
        Ok(found)
    }

    /// Makes the mirror say what the edge says, if it does not.
    async fn mend(
        &mut self,
        source: UserId,
        target: UserId,
        edge: Option<Edge>,
        mirror: Option<Edge>,
    ) -> Result<bool, Fault> {
        let edge = match (edge, mirror) {
            (Some(edge), Some(mirror)) if edge == mirror => return Ok(false),
            (Some(edge), None) => edge,
            (Some(edge), Some(mirror)) if edge.rev > mirror.rev => edge,
            // A mirror takes nothing that is not newer: so the truth becomes newer, as it is.
            (_, Some(mirror)) => match edges::raise(&self.db, source, target, mirror.rev).await? {
                Some(edge) => edge,
                // Changed meanwhile: whoever did that writes the mirror.
                None => return Ok(false),
            },
            (None, None) => return Ok(false),
        };
        edges::mirror(&self.db, source, target, edge).await?;
        if edge.status == Status::Following {
            self.lacking.push(source);
        }
        tracing::info!(
            "the mirror of edge {source} -> {target} is mended: {}",
            edge.status.as_str()
        );
        Ok(true)
    }
}
