//! DDL: one statement run in the schema of every shard (or in `public` of every host), hosts side by side, the shards of a
//! host pipelined. It is part of the client's block, or of one of ours that ends with the message or the batch: committed
//! everywhere or nowhere (`super::commit`).

use std::ops::Range;
use std::sync::Arc;

use super::Session;
use super::block::{Owner, quoted};
use super::context::{Prepared, Statement};
use super::ddl_lanes::{Lane, Step, What};
use super::errors::Fault;
use super::links::Need;
use super::prepare::PARSE;
use crate::route::{Bound, Place, Work};
use crate::shardmap::HostId;
use crate::sql::ddl::Run;
use crate::sql::parse;
use crate::sql::shape::Shape;
use crate::wire::backend;
use crate::wire::error::{ErrorFields, Severity, SqlState};

/// A statement of DDL.
pub(super) struct Item {
    pub(super) text: Vec<u8>,
    pub(super) shape: Shape,
    pub(super) prepared: Arc<Prepared>,
    /// Where it begins in the client's message, in characters.
    pub(super) from: u32,
}

impl Item {
    pub(super) fn new(text: &[u8], prepared: Arc<Prepared>, from: u32) -> Item {
        let mut shape = Shape::default();
        // It was scanned before.
        let _ = shape.scan(text);
        Item {
            text: text.to_vec(),
            shape,
            prepared,
            from,
        }
    }

    pub(super) fn bound(&self) -> Option<&Bound> {
        match &*self.prepared {
            Prepared::Query(routed) => Some(&routed.bound),
            _ => None,
        }
    }

    pub(super) fn work(&self) -> Option<&Work> {
        self.bound()?.work()
    }
}

impl Session {
    /// A Query that is one statement of DDL. `ReadyForQuery` is the caller's.
    pub(super) async fn ddl_simple(
        &mut self,
        text: &Range<usize>,
        prepared: Arc<Prepared>,
    ) -> Result<(), Fault> {
        let text = self.client.inbox[text.clone()].to_vec();
        let prepared = self.look_anew(&text, prepared).await?;
        let tag = self.run_ddl(&Item::new(&text, prepared, 0)).await?;
        if !self.end_message(false).await? {
            backend::command_complete(&mut self.client.outbox, &tag);
        }
        Ok(())
    }

    /// Execute of a portal that is DDL. Outside of a client's block it is committed at the Sync.
    pub(super) async fn ddl_extended(&mut self, statement: &Statement) -> Result<(), Fault> {
        self.settle_replies().await?;
        let prepared = self
            .look_anew(&statement.text, statement.prepared.clone())
            .await?;
        let tag = self
            .run_ddl(&Item::new(&statement.text, prepared, 0))
            .await?;
        backend::command_complete(&mut self.client.outbox, &tag);
        if self.block.is_none() {
            self.release_links().await;
        }
        Ok(())
    }

    /// Whether one of a text's statements makes, changes or drops what others of it may be about.
    pub(super) fn changes_tables(whole: &[u8], pieces: &[Range<usize>]) -> bool {
        let changes = |piece: &Range<usize>| {
            let text = &whole[piece.clone()];
            let mut shape = Shape::default();
            mentions_ddl(text)
                && shape.scan(text).is_ok()
                && std::str::from_utf8(text)
                    .ok()
                    .and_then(|text| parse::plan(text, &shape, &PARSE).ok())
                    .is_some_and(|plan| {
                        let changes = plan.ddl.as_ref().is_some_and(|ddl| ddl.changes_catalog());
                        changes || plan.is_temporary()
                    })
        };
        pieces.iter().any(changes)
    }

    /// The catalog may have been changed past this proxy: DDL, which is rare, looks at it first.
    async fn look_anew(
        &mut self,
        text: &[u8],
        prepared: Arc<Prepared>,
    ) -> Result<Arc<Prepared>, Fault> {
        if self.block.is_some() {
            return Ok(prepared);
        }
        self.context.refresh.look().await;
        Ok(self.read(text)?.prepared)
    }

    /// Runs a statement of DDL in all its places. Its tag; the caller passes it on.
    pub(super) async fn run_ddl(&mut self, item: &Item) -> Result<String, Fault> {
        self.check_failed()?;
        let Some(work) = item.work() else {
            // Looked at anew, it is no DDL for all places: the tables have changed just now.
            return Err(Fault::statement(
                ErrorFields::error(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "the tables have changed while the statement was read",
                )
                .hint("Run it again."),
            ));
        };
        let in_transaction = self.block.is_some() || self.batch.writer.is_some();
        self.check_block(item, work, in_transaction)?;
        for notice in &work.notices {
            self.notice(notice);
        }
        let mut tag = None;
        let alone = work.run != Run::Together && !in_transaction;
        let done = match alone {
            true => self.ddl_one_by_one(item, work, &mut tag).await,
            false => self.ddl_together(item, work, &mut tag).await,
        };
        self.drop_lost_links();
        done?;
        match work.changes_catalog {
            true if alone => self.context.refresh.renew().await,
            true => self.block_tables_changed(),
            false => {}
        }
        Ok(tag.unwrap_or_default())
    }

    /// Takes out the links whose connection was lost on the way.
    fn drop_lost_links(&mut self) {
        let before = self.links.len();
        self.links.retain(|link| link.conn.is_some());
        if self.links.len() < before {
            self.active = 0;
            self.context.stats.server_lost();
            if let Some(block) = &mut self.block {
                block.failed = true;
                block.lost = true;
            }
        }
    }

    pub(super) fn notice(&mut self, text: &str) {
        ErrorFields::new(
            Severity::Notice,
            SqlState::SUCCESSFUL_COMPLETION,
            text.to_owned(),
        )
        .write(&mut self.client.outbox);
    }

    /// What Postgres says of statements that need a block, or bear none.
    fn check_block(&self, item: &Item, work: &Work, in_transaction: bool) -> Result<(), Fault> {
        if work.needs_block && !self.is_block_to_postgres() {
            return Err(Fault::statement(ErrorFields::error(
                SqlState::NO_ACTIVE_TRANSACTION,
                "LOCK TABLE can only be used in transaction blocks",
            )));
        }
        if work.run == Run::Alone && in_transaction {
            let message = format!(
                "{} cannot run inside a transaction block",
                alone(&item.text)
            );
            return Err(Fault::statement(ErrorFields::error(
                SqlState::ACTIVE_TRANSACTION,
                message,
            )));
        }
        Ok(())
    }

    /// The hosts on which something is to be run, lowest first.
    fn ddl_hosts(&self, work: &Work) -> Result<Vec<HostId>, Fault> {
        let all = (0..self.map.hosts.len()).map(|h| HostId(h as u16));
        let hosts: Vec<HostId> = all
            .filter(|host| match &work.place {
                Place::Shards => self.map.shards_of(*host).next().is_some(),
                Place::Hosts => true,
                Place::Host(name) => self.map.host_named(name) == Some(*host),
            })
            .collect();
        if hosts.is_empty() {
            return Err(Fault::statement(
                ErrorFields::error(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "no host of the map has a part in this",
                )
                .hint("Mend [tables] in shardmap.toml: it names a host that is not there."),
            ));
        }
        Ok(hosts)
    }

    /// Checks out the hosts, in the order of their ids, and makes a lane for each.
    async fn ddl_lanes(
        &mut self,
        hosts: &[HostId],
        work: &Work,
        writes: bool,
    ) -> Result<Vec<Lane>, Fault> {
        let mut lanes = Vec::new();
        for host in hosts {
            let need = Need {
                writes,
                ..Need::plain(*host)
            };
            let link = self.link(need).await?;
            // BEGIN and settings are dealt with first: the lanes read their answers themselves.
            self.settle_replies().await?;
            let places = match work.place {
                Place::Shards => self.map.shards_of(*host).map(Some).collect(),
                _ => vec![None],
            };
            let mut lane = Lane::new(*host, link, places);
            lane.tells = lanes.is_empty();
            lanes.push(lane);
        }
        Ok(lanes)
    }

    /// In the open block, or in one of ours that is opened for it: each host's part of the transaction.
    async fn ddl_together(
        &mut self,
        item: &Item,
        work: &Work,
        tag: &mut Option<String>,
    ) -> Result<(), Fault> {
        let hosts = self.ddl_hosts(work)?;
        self.check_hosts(&hosts).await?;
        self.open_message_block().await?;
        let mut lanes = self.ddl_lanes(&hosts, work, true).await?;
        // Two sessions whose statements are in each other's way meet in the first place of the first host, before they
        // have anything on another: what Postgres sees there decides, and no deadlock goes over two hosts.
        lanes[0].push_place(0, work.after.len(), true);
        let mut driven = self.drive(&mut lanes[..1], item, tag).await;
        if driven.is_ok() && lanes[0].failure.is_none() {
            for (n, lane) in lanes.iter_mut().enumerate() {
                for place in usize::from(n == 0)..lane.places.len() {
                    lane.push_place(place, work.after.len(), place == 0);
                }
            }
            driven = self.drive(&mut lanes, item, tag).await;
        }
        self.doubt_path(&lanes);
        driven?;
        let all = self
            .block
            .as_ref()
            .is_some_and(|b| b.owner == Owner::Message);
        let undone = if all {
            " Nothing was changed anywhere."
        } else {
            ""
        };
        match self.ddl_failure(&lanes, item, undone) {
            None => Ok(()),
            Some(fields) => Err(Fault::statement(fields)),
        }
    }

    /// Before anything is done: whether what is done on these hosts can be committed on all or on none.
    async fn check_hosts(&self, hosts: &[HostId]) -> Result<(), Fault> {
        let others = hosts
            .iter()
            .filter(|host| self.first_writer() != Some(**host));
        if self.first_writer().is_none() && hosts.len() < 2 {
            return Ok(());
        }
        for host in others {
            let Err(mut fault) = self.check_two_phase(*host).await else {
                continue;
            };
            if let Fault::Statement(fields) = &mut fault
                && fields.code == SqlState::MORE_THAN_ONE_SHARD
                && hosts.len() > 1
            {
                fields.message = format!(
                    "DDL on {} hosts needs two-phase commit: it must be on all of them or on none",
                    hosts.len()
                )
                .into();
            }
            return Err(fault);
        }
        Ok(())
    }

    /// The search_path is that of some shard now.
    fn doubt_path(&mut self, lanes: &[Lane]) {
        for lane in lanes {
            if let Some(link) = self.links.get_mut(lane.link) {
                link.unsynced = false;
                if let Some(conn) = &mut link.conn {
                    conn.doubt(["search_path".to_owned()]);
                }
            }
        }
    }

    /// Outside of any transaction: in each host one shard after the other, so that each is either done or not.
    async fn ddl_one_by_one(
        &mut self,
        item: &Item,
        work: &Work,
        tag: &mut Option<String>,
    ) -> Result<(), Fault> {
        for i in 0..self.links.len() {
            if self.links[i].unsynced {
                self.sync_link(i).await?;
            }
        }
        let hosts = self.ddl_hosts(work)?;
        let mut lanes = self.ddl_lanes(&hosts, work, false).await?;
        for lane in &mut lanes {
            lane.window = 2;
            for place in 0..lane.places.len() {
                lane.push_place(place, work.after.len(), false);
            }
        }
        let driven = self.drive(&mut lanes, item, tag).await;
        self.doubt_path(&lanes);
        driven?;
        let Some(mut fields) = self.ddl_failure(&lanes, item, "") else {
            return Ok(());
        };
        let mut done: Vec<u32> = lanes.iter().flat_map(Lane::done_shards).collect();
        done.sort_unstable();
        let all = self.map.shards() as usize;
        let detail = fields.detail.take().unwrap_or_default();
        fields.detail = Some(
            format!(
                "{detail} Done in {} of {all} places{}.",
                done.len(),
                match done.is_empty() {
                    true => String::new(),
                    false => format!(" (shards {})", runs(&done)),
                }
            )
            .into(),
        );
        fields.hint = Some(self.again(&lanes, work).into());
        if work.changes_catalog {
            self.context.refresh.renew().await;
        }
        Err(Fault::statement(fields))
    }

    /// How a statement that was not done everywhere is run again.
    fn again(&self, lanes: &[Lane], work: &Work) -> String {
        let failed = lanes.iter().find_map(Lane::failed_step);
        match (work.index.as_ref(), failed.and_then(|step| step.shard)) {
            (Some(index), Some(shard)) => format!(
                "What was begun there may be left as an invalid index: /* presplit: shard={} */ DROP INDEX IF EXISTS {}. Then run the statement again with IF NOT EXISTS, which leaves alone what is there.",
                shard.0,
                quoted(index)
            ),
            _ => "Run it again when the cause is mended: with IF NOT EXISTS or IF EXISTS what is done already is left alone.".to_owned(),
        }
    }

    /// The first error, with the place that it comes from and what became of the rest.
    fn ddl_failure(&self, lanes: &[Lane], item: &Item, undone: &str) -> Option<ErrorFields> {
        let lane = lanes.iter().find(|lane| lane.failure.is_some())?;
        let failure = lane.failure.as_ref()?;
        let mut fields = failure.fields.clone();
        let host = &self.map.host(lane.host).name;
        let place = match failure.step.shard {
            Some(shard) => format!(
                "In shard {} (schema {}) on host {host}.{undone}",
                shard.0,
                self.map.schema(shard)
            ),
            None => format!("On host {host}.{undone}"),
        };
        fields.detail = Some(match &fields.detail {
            Some(detail) => format!("{detail} {place}").into(),
            None => place.into(),
        });
        if let Some(position) = fields.position {
            fields.position = match &failure.step.what {
                What::Main => Some(item.from + self.position_back(item, &failure.step, position)),
                _ => None,
            };
        }
        Some(fields)
    }

    fn position_back(&self, item: &Item, step: &Step, position: u32) -> u32 {
        match step.shard {
            Some(shard) => item.prepared.original_position(
                position,
                &item.text,
                &item.shape.holes,
                self.map.schema(shard),
            ),
            None => position,
        }
    }

    /// The bytes of a step.
    pub(super) fn step_text(&self, item: &Item, step: &Step) -> Vec<u8> {
        let work = item.work();
        match (&step.what, step.shard) {
            (What::Path, Some(shard)) => {
                // What is not known must not be found by chance.
                let public = match work.is_some_and(|work| work.unknown) {
                    true => "",
                    false => ", public",
                };
                format!("SET search_path TO {}{public}", self.map.schema(shard)).into_bytes()
            }
            (What::Path, None) => b"SET search_path TO public".to_vec(),
            (What::Main, shard) => {
                let mut text = Vec::new();
                if let Some(bound) = item.bound() {
                    let values = crate::route::Values {
                        text: &item.text,
                        holes: &item.shape.holes,
                        params: None,
                    };
                    self.write_text(&mut text, bound, &values, shard);
                }
                text
            }
            (What::After(n), shard) => match (work.and_then(|work| work.after.get(*n)), shard) {
                (Some(after), Some(shard)) => after
                    .sql(
                        self.map.schema(shard),
                        &self.map.keyspace.schema.name(shard),
                    )
                    .into_bytes(),
                _ => Vec::new(),
            },
            (What::CountLocks(_), _) => LOCKS.as_bytes().to_vec(),
        }
    }
}

/// The locks that this transaction holds, those of all, and those that there is room for
/// (<https://www.postgresql.org/docs/current/runtime-config-locks.html>). A prepared transaction keeps its own.
const LOCKS: &str = "SELECT pg_catalog.count(*) FILTER (WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()), pg_catalog.count(*),
  pg_catalog.current_setting('max_locks_per_transaction')::pg_catalog.int8
  OPERATOR(pg_catalog.*) (pg_catalog.current_setting('max_connections')::pg_catalog.int8 OPERATOR(pg_catalog.+) pg_catalog.current_setting('max_prepared_transactions')::pg_catalog.int8)
  FROM pg_catalog.pg_locks WHERE NOT fastpath";

/// What Postgres calls a statement that can be in no transaction, by its first word.
fn alone(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let first = text.split_whitespace().next().unwrap_or_default();
    match first.to_ascii_uppercase() {
        word if word == "CREATE" || word == "DROP" => format!("{word} INDEX CONCURRENTLY"),
        word if word == "REINDEX" => format!("{word} CONCURRENTLY"),
        word => word,
    }
}

/// Whether DDL may stand in the text: most that is sent in one message with others has none, and is not read for it.
fn mentions_ddl(text: &[u8]) -> bool {
    let is = |window: &[u8], word: &[u8]| {
        window
            .get(..word.len())
            .is_some_and(|window| window.eq_ignore_ascii_case(word))
    };
    (0..text.len()).any(|at| {
        let window = &text[at..];
        is(window, b"create") || is(window, b"temp") || is(window, b"alter") || is(window, b"drop")
    })
}

/// Numbers as runs: `0-3, 7`.
fn runs(numbers: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for n in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *n => *last = *n,
            _ => runs.push((*n, *n)),
        }
    }
    let shown = runs.iter().map(|(from, to)| match from == to {
        true => from.to_string(),
        false => format!("{from}-{to}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_as_runs() {
        assert_eq!(super::runs(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
    }

    #[test]
    fn what_may_be_ddl() {
        assert!(super::mentions_ddl(b"-- x\n CREATE TABLE t (a int)"));
        assert!(super::mentions_ddl(b"drop"));
        assert!(!super::mentions_ddl(b"INSERT INTO t VALUES (1)"));
    }
}
