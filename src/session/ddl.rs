//! DDL: one statement run in the schema of every shard (or in `public` of every host), hosts in parallel, the shards of a
//! host pipelined in one transaction. Only when all have succeeded it is committed everywhere.

use std::ops::Range;
use std::sync::Arc;

use super::Session;
use super::block::quoted;
use super::context::{Prepared, Routed, Statement};
use super::ddl_lanes::{Lane, Step, What};
use super::errors::Fault;
use super::links::Need;
use super::prepare::PARSE;
use super::relay::char_count;
use crate::route::{self, Bound, Place, Tables, Values, Work};
use crate::shardmap::{HostId, ShardId};
use crate::sql::control::{self, BeginOptions, Control};
use crate::sql::ddl::Run;
use crate::sql::hint;
use crate::sql::parse;
use crate::sql::plan::Plan;
use crate::sql::shape::Shape;
use crate::wire::backend;
use crate::wire::error::{ErrorFields, Severity, SqlState};

/// Two sessions that run DDL on several hosts take turns: Postgres sees no deadlock that goes over two hosts. The letters
/// `ddl`.
const TURN: i64 = 0x0064_646c;
/// The longest that DDL on several hosts waits for a lock, unless the session has set `lock_timeout`: longer, and it may be
/// a deadlock that goes over two hosts.
const LOCK_TIMEOUT: &str = "10s";

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

    fn run(&self) -> Run {
        self.work().map_or(Run::Together, |work| work.run)
    }
}

impl Session {
    /// A Query that is one statement of DDL.
    pub(super) async fn ddl_simple(
        &mut self,
        text: &Range<usize>,
        prepared: Arc<Prepared>,
    ) -> Result<(), Fault> {
        let text = self.client.inbox[text.clone()].to_vec();
        let prepared = self.look_anew(&text, prepared).await?;
        let items = [Item::new(&text, prepared, 0)];
        self.run_ddl(&items, Wrap::Bare).await
    }

    /// Execute of a portal that is DDL. It is committed at once, not at the Sync.
    pub(super) async fn ddl_extended(&mut self, statement: &Statement) -> Result<(), Fault> {
        self.settle_replies().await?;
        if self.block.is_none() && self.batch.writer.is_some() {
            return Err(Fault::unsupported(
                "DDL of all shards cannot follow a write in one pipeline",
                "Send a Sync between them.",
            ));
        }
        for i in 0..self.links.len() {
            if self.block.is_none() && self.links[i].unsynced {
                self.sync_link(i).await?;
            }
        }
        let prepared = self
            .look_anew(&statement.text, statement.prepared.clone())
            .await?;
        let items = [Item::new(&statement.text, prepared, 0)];
        self.run_ddl(&items, Wrap::Bare).await?;
        if self.block.is_none() {
            self.release_links().await;
        }
        Ok(())
    }

    /// The statements of a text that is DDL alone (BEGIN in front and COMMIT at its end left out): all or nothing. `None`:
    /// it is not. What one statement makes is known to the next.
    pub(super) async fn ddl_text(
        &mut self,
        whole: &[u8],
        pieces: &[Range<usize>],
    ) -> Result<Option<DdlText>, Fault> {
        if self.block.is_some() {
            return Ok(None);
        }
        let (mut tags, mut inner) = ((None, None), pieces);
        if let [first, middle @ .., last] = pieces
            && let (Some(begin), Some(commit)) =
                (begins(&whole[first.clone()]), commits(&whole[last.clone()]))
        {
            (tags, inner) = ((Some(begin), Some(commit)), middle);
        }
        let is_ddl = |piece: &Range<usize>| {
            let first = whole[piece.clone()].trim_ascii_start();
            !first.is_empty() && self.is_ddl(&whole[piece.clone()])
        };
        if inner.is_empty() || !inner.iter().all(is_ddl) {
            return Ok(None);
        }
        self.context.refresh.look().await;
        let schema = self.schema();
        let Some(mut tables) = schema.tables.clone() else {
            return Err(Self::no_tables());
        };
        let mut items = Vec::new();
        for piece in inner {
            let text = &whole[piece.clone()];
            let from = char_count(&whole[..piece.start]);
            let Some(bound) = bind_ddl(text, &mut tables) else {
                return Ok(None);
            };
            if bound.work().is_none() {
                // A refusal, or for one host: as any other text.
                let values = Values {
                    text,
                    holes: &[],
                    params: None,
                };
                self.decide(&bound, &values, None)?;
                return Ok(None);
            }
            let routed = Routed {
                bound,
                sets_config: false,
                notifies: false,
            };
            items.push(Item::new(text, Arc::new(Prepared::Query(routed)), from));
        }
        Ok(Some(DdlText {
            begin: tags.0,
            items,
            commit: tags.1,
        }))
    }

    /// Whether a text is DDL without a hint.
    fn is_ddl(&self, text: &[u8]) -> bool {
        let mut shape = Shape::default();
        let hinted = shape.scan(text).is_err()
            || self.standing_hint().is_some()
            || !matches!(hint::find(text, &shape), Ok(None));
        !hinted && plan_ddl(text, &shape).is_some()
    }

    /// Runs a text of DDL; its answer but for ReadyForQuery is in the client's outbox.
    pub(super) async fn run_ddl_text(&mut self, text: DdlText) -> Result<(), Fault> {
        if let Some(tag) = text.begin {
            backend::command_complete(&mut self.client.outbox, tag);
        }
        let wrap = match text.begin {
            Some(_) => Wrap::Block,
            None => Wrap::Bare,
        };
        self.run_ddl(&text.items, wrap).await?;
        if let Some(tag) = text.commit {
            backend::command_complete(&mut self.client.outbox, tag);
        }
        if self.block.is_none() {
            self.release_links().await;
        }
        Ok(())
    }

    /// The catalog may have been changed past this proxy: DDL, which is rare, looks at it first.
    pub(super) async fn look_anew(
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

    /// Runs statements of DDL, all or nothing where they can be run in a transaction. The answer, without ReadyForQuery, is
    /// in the client's outbox.
    pub(super) async fn run_ddl(&mut self, items: &[Item], wrap: Wrap) -> Result<(), Fault> {
        self.check_failed()?;
        let works: Vec<&Work> = items.iter().filter_map(Item::work).collect();
        if works.len() < items.len() {
            // Looked at anew, it is no DDL for all places: the tables have changed just now.
            return Err(Fault::statement(
                ErrorFields::error(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "the tables have changed while the statement was read",
                )
                .hint("Run it again."),
            ));
        }
        self.check_block(items, wrap)?;
        for notice in works.iter().flat_map(|work| &work.notices) {
            self.notice(notice);
        }
        let mut tags = vec![None; items.len()];
        let done = match (&self.block, items) {
            (Some(_), _) => self.ddl_in_block(items, &mut tags).await,
            (None, [item]) if wrap == Wrap::Bare && item.run() != Run::Together => {
                self.ddl_one_by_one(item, &mut tags).await
            }
            (None, _) => self.ddl_together(items, &mut tags).await,
        };
        self.drop_lost_links();
        done?;
        if works.iter().any(|work| work.changes_catalog) {
            match &mut self.block {
                Some(_) => self.block_tables_changed(),
                None => self.context.refresh.renew().await,
            }
        }
        for tag in tags.into_iter().flatten() {
            backend::command_complete(&mut self.client.outbox, &tag);
        }
        Ok(())
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
    fn check_block(&self, items: &[Item], wrap: Wrap) -> Result<(), Fault> {
        let in_block = self.block.is_some() || wrap == Wrap::Block;
        for item in items {
            let needs = item.work().is_some_and(|work| work.needs_block);
            if needs && !in_block && items.len() == 1 {
                return Err(Fault::statement(ErrorFields::error(
                    SqlState::NO_ACTIVE_TRANSACTION,
                    "LOCK TABLE can only be used in transaction blocks",
                )));
            }
            if item.run() == Run::Alone && (in_block || items.len() > 1) {
                let text = String::from_utf8_lossy(&item.text);
                let words: Vec<&str> = text.split_whitespace().take(2).collect();
                let message = format!(
                    "{} cannot run inside a transaction block",
                    words.join(" ").to_uppercase()
                );
                return Err(Fault::statement(ErrorFields::error(
                    SqlState::ACTIVE_TRANSACTION,
                    message,
                )));
            }
        }
        Ok(())
    }

    /// The hosts on which something is to be run, lowest first.
    fn ddl_hosts(&self, items: &[Item]) -> Vec<HostId> {
        let all = (0..self.map.hosts.len()).map(|h| HostId(h as u16));
        all.filter(|host| items.iter().any(|item| self.has_part(*host, item)))
            .collect()
    }

    fn has_part(&self, host: HostId, item: &Item) -> bool {
        match item.work().map(|work| &work.place) {
            Some(Place::Shards) => self.map.shards_of(host).next().is_some(),
            Some(Place::Hosts) => true,
            Some(Place::Host(name)) => self.map.host_named(name) == Some(host),
            None => false,
        }
    }

    /// The schemas of a host in which a statement is run; `None`: `public`.
    fn ddl_shards(&self, host: HostId, item: &Item) -> Vec<Option<ShardId>> {
        match item.work().map(|work| &work.place) {
            Some(Place::Shards) => self.map.shards_of(host).map(Some).collect(),
            _ if self.has_part(host, item) => vec![None],
            _ => Vec::new(),
        }
    }

    /// Checks out all hosts, in the order of their ids, and makes a lane for each.
    async fn ddl_lanes(&mut self, items: &[Item], writes: bool) -> Result<Vec<Lane>, Fault> {
        let hosts = self.ddl_hosts(items);
        if let (Some(_), [_, _, ..]) = (&self.block, &hosts[..]) {
            return Err(Fault::statement(
                ErrorFields::error(
                    SqlState::MORE_THAN_ONE_SHARD,
                    format!("DDL of {} hosts in one transaction block is not supported yet", hosts.len()),
                )
                .detail("Committing on two hosts one after the other could lose one half.")
                .hint("Send it outside of a block, several statements in one message if they belong together: that is committed on all hosts or on none. In Django: atomic = False in the migration; in Rails: disable_ddl_transaction!."),
            ));
        }
        let mut lanes = Vec::new();
        for host in hosts {
            let need = Need {
                writes,
                ..Need::plain(host)
            };
            let link = self.link(need).await?;
            // BEGIN and settings are dealt with first: the lanes read their answers themselves.
            self.settle_replies().await?;
            lanes.push(Lane::new(host, link));
        }
        if lanes.is_empty() {
            return Err(Fault::statement(
                ErrorFields::error(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "no host of the map has a part in this",
                )
                .hint("Mend [tables] in shardmap.toml: it names a host that is not there."),
            ));
        }
        Ok(lanes)
    }

    /// The steps of all statements, in order, each in all places of the lane's host.
    fn push_steps(&self, lanes: &mut [Lane], items: &[Item], path: &What, probe: bool) {
        let mut begun = vec![false; items.len()];
        for lane in lanes {
            for (n, item) in items.iter().enumerate() {
                let after = item.work().map_or(0, |work| work.after.len());
                let shards = self.ddl_shards(lane.host, item);
                for (at, shard) in shards.iter().enumerate() {
                    let first = !std::mem::replace(&mut begun[n], true);
                    let step = |what| Step {
                        item: n,
                        shard: *shard,
                        what,
                        first,
                    };
                    lane.steps.push(step(path.clone()));
                    lane.steps.push(step(What::Main));
                    lane.steps
                        .extend((0..after).map(|after| step(What::After(after))));
                    if probe && at == 0 && shards.len() > 1 {
                        lane.steps.push(step(What::Probe(shards.len())));
                    }
                }
            }
        }
    }

    /// In the client's block: its own transaction, which is on one host.
    async fn ddl_in_block(
        &mut self,
        items: &[Item],
        tags: &mut [Option<String>],
    ) -> Result<(), Fault> {
        let mut lanes = self.ddl_lanes(items, true).await?;
        self.push_steps(&mut lanes, items, &What::Path, true);
        let driven = self.drive(&mut lanes, items, tags).await;
        self.doubt_path(&lanes);
        driven?;
        match self.ddl_failure(&lanes, items) {
            None => Ok(()),
            Some(fields) => Err(Fault::statement(fields)),
        }
    }

    /// The search_path is that of some shard now.
    fn doubt_path(&mut self, lanes: &[Lane]) {
        let in_block = self.block.is_some();
        for lane in lanes {
            if let Some(link) = self.links.get_mut(lane.link) {
                link.unsynced = false;
                link.settings_touched |= in_block;
                if let Some(conn) = &mut link.conn {
                    conn.doubt(["search_path".to_owned()]);
                }
            }
        }
    }

    /// A transaction on each host; all are committed, or none.
    async fn ddl_together(
        &mut self,
        items: &[Item],
        tags: &mut [Option<String>],
    ) -> Result<(), Fault> {
        let mut lanes = self.ddl_lanes(items, false).await?;
        let several = lanes.len() > 1;
        let own_timeout = self.settings.get("lock_timeout").is_some();
        for n in 0..lanes.len() {
            let lane = &mut lanes[n..=n];
            lane[0].steps.push(Step::of(What::Text("BEGIN".to_owned())));
            if several {
                if !own_timeout {
                    let set = format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'");
                    lane[0].steps.push(Step::of(What::Text(set)));
                }
                let turn = format!("SELECT pg_catalog.pg_advisory_xact_lock({TURN})");
                lane[0].steps.push(Step::of(What::Text(turn)));
            }
            self.drive(lane, items, tags).await?;
        }
        if lanes.iter().all(|lane| lane.failure.is_none()) {
            self.push_steps(&mut lanes, items, &What::LocalPath, true);
            self.drive(&mut lanes, items, tags).await?;
        }
        if let Some(fields) = self.ddl_failure(&lanes, items) {
            self.end_lanes(&mut lanes, "ROLLBACK", tags).await?;
            return Err(Fault::statement(fields));
        }
        self.commit_everywhere(&mut lanes, tags).await
    }

    /// The one place where the transactions of several hosts are committed. Each has done all that it was to do; what can
    /// still go wrong is that a host is lost just now.
    async fn commit_everywhere(
        &mut self,
        lanes: &mut [Lane],
        tags: &mut [Option<String>],
    ) -> Result<(), Fault> {
        self.end_lanes(lanes, "COMMIT", tags).await?;
        let named = |lanes: &[&Lane]| {
            let names = lanes.iter().map(|lane| {
                let name = &self.map.host(lane.host).name;
                match &lane.failure {
                    Some(failure) => format!("{name} ({})", failure.fields.message),
                    None => name.clone(),
                }
            });
            names.collect::<Vec<_>>().join(", ")
        };
        let (failed, done): (Vec<&Lane>, Vec<&Lane>) =
            lanes.iter().partition(|lane| lane.failure.is_some());
        if failed.is_empty() {
            return Ok(());
        }
        let has = match done.is_empty() {
            true => "No host is known to have it".to_owned(),
            false => format!("Committed on {}", named(&done)),
        };
        let fields = ErrorFields::error(
            SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
            "the DDL is not committed on all hosts",
        )
        .detail(format!("{has}; not known to be committed on {}.", named(&failed)))
        .hint("Once all hosts are up, look whether those have it. If not, run it again with IF NOT EXISTS (IF EXISTS to drop), which leaves alone what is there.");
        // What is known of the tables is what the hosts say now.
        self.context.refresh.renew().await;
        Err(Fault::statement(fields))
    }

    /// Ends the transactions of all lanes that are not lost.
    async fn end_lanes(
        &mut self,
        lanes: &mut [Lane],
        how: &str,
        tags: &mut [Option<String>],
    ) -> Result<(), Fault> {
        for lane in lanes.iter_mut() {
            lane.restart();
            if !lane.lost {
                lane.steps.push(Step::of(What::Text(how.to_owned())));
            }
        }
        self.drive(lanes, &[], tags).await
    }

    /// Outside of any transaction: in each host one shard after the other, so that each is either done or not.
    async fn ddl_one_by_one(
        &mut self,
        item: &Item,
        tags: &mut [Option<String>],
    ) -> Result<(), Fault> {
        let items = std::slice::from_ref(item);
        let mut lanes = self.ddl_lanes(items, false).await?;
        self.push_steps(&mut lanes, items, &What::Path, false);
        for lane in &mut lanes {
            lane.window = 2;
        }
        let driven = self.drive(&mut lanes, items, tags).await;
        self.doubt_path(&lanes);
        driven?;
        let Some(mut fields) = self.ddl_failure(&lanes, items) else {
            return Ok(());
        };
        let mut done: Vec<u32> = lanes.iter().flat_map(Lane::done_shards).collect();
        done.sort_unstable();
        let all = self.map.shards() as usize;
        fields.detail = Some(
            format!(
                "{} Done in {} of {all} places{}.",
                self.ddl_place(&lanes).unwrap_or_default(),
                done.len(),
                match done.is_empty() {
                    true => String::new(),
                    false => format!(" (shards {})", runs(&done)),
                }
            )
            .into(),
        );
        fields.hint = Some(self.again(&lanes, item).into());
        if item.work().is_some_and(|work| work.changes_catalog) {
            self.context.refresh.renew().await;
        }
        Err(Fault::statement(fields))
    }

    /// How a statement that was not done everywhere is run again.
    fn again(&self, lanes: &[Lane], item: &Item) -> String {
        let failed = lanes.iter().find_map(Lane::failed_step);
        let index = item.work().and_then(|work| work.index.as_ref());
        match (index, failed.and_then(|step| step.shard)) {
            (Some(index), Some(shard)) => format!(
                "What was begun there may be left as an invalid index: /* presplit: shard={} */ DROP INDEX IF EXISTS {}. Then run the statement again with IF NOT EXISTS, which leaves alone what is there.",
                shard.0,
                quoted(index)
            ),
            _ => "Run it again when the cause is mended: with IF NOT EXISTS or IF EXISTS what is done already is left alone.".to_owned(),
        }
    }

    /// The first error, with the place that it comes from.
    fn ddl_failure(&self, lanes: &[Lane], items: &[Item]) -> Option<ErrorFields> {
        let lane = lanes.iter().find(|lane| lane.failure.is_some())?;
        let failure = lane.failure.as_ref()?;
        let mut fields = failure.fields.clone();
        let place = self.ddl_place(lanes)?;
        fields.detail = Some(match &fields.detail {
            Some(detail) => format!("{detail} {place}").into(),
            None => place.into(),
        });
        if let (Some(position), Some(item)) = (fields.position, items.get(failure.step.item)) {
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

    /// The shard and host of the first error, in words.
    fn ddl_place(&self, lanes: &[Lane]) -> Option<String> {
        let lane = lanes.iter().find(|lane| lane.failure.is_some())?;
        let host = &self.map.host(lane.host).name;
        let nothing = match lane.window {
            2 => "",
            _ if self.block.is_some() => "",
            _ => " Nothing was changed anywhere.",
        };
        Some(match lane.failed_step().and_then(|step| step.shard) {
            Some(shard) => format!(
                "In shard {} (schema {}) on host {host}.{nothing}",
                shard.0,
                self.map.schema(shard)
            ),
            None => format!("On host {host}.{nothing}"),
        })
    }

    /// The bytes of a step.
    pub(super) fn step_text(&self, items: &[Item], step: &Step) -> Vec<u8> {
        let item = items.get(step.item);
        let set = |local: &str| {
            let public = match item.and_then(Item::work) {
                Some(work) if work.unknown => "",
                _ => ", public",
            };
            match step.shard {
                Some(shard) => format!(
                    "SET {local}search_path TO {}{public}",
                    self.map.schema(shard)
                ),
                None => format!("SET {local}search_path TO public"),
            }
        };
        match &step.what {
            What::Text(text) => text.clone().into_bytes(),
            What::LocalPath => set("LOCAL ").into_bytes(),
            What::Path => set("").into_bytes(),
            What::Main => {
                let mut text = Vec::new();
                if let Some((item, bound)) = item.and_then(|item| Some((item, item.bound()?))) {
                    let values = crate::route::Values {
                        text: &item.text,
                        holes: &item.shape.holes,
                        params: None,
                    };
                    self.write_text(&mut text, bound, &values, step.shard);
                }
                text
            }
            What::After(n) => {
                let after = item.and_then(Item::work).and_then(|work| work.after.get(*n));
                match (after, step.shard) {
                    (Some(after), Some(shard)) => after
                        .sql(self.map.schema(shard), &self.map.keyspace.schema.name(shard))
                        .into_bytes(),
                    _ => Vec::new(),
                }
            }
            // Catalog tables are locked once, however many shards there are.
            What::Probe(_) => b"SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid() AND relation >= 16384),
  pg_catalog.current_setting('max_locks_per_transaction')::pg_catalog.int8
  * (pg_catalog.current_setting('max_connections')::pg_catalog.int8 + pg_catalog.current_setting('max_prepared_transactions')::pg_catalog.int8)".to_vec(),
        }
    }
}

/// What stands around the statements of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrap {
    /// Nothing.
    Bare,
    /// BEGIN and COMMIT.
    Block,
}

/// A text of DDL alone.
pub(super) struct DdlText {
    /// The answer to BEGIN in front of it.
    begin: Option<&'static str>,
    items: Vec<Item>,
    /// The answer to COMMIT at its end.
    commit: Option<&'static str>,
}

fn control_of(text: &[u8]) -> Option<Control> {
    let mut shape = Shape::default();
    shape.scan(text).ok()?;
    control::parse(text, &shape)
}

fn begins(text: &[u8]) -> Option<&'static str> {
    let start = text
        .trim_ascii_start()
        .get(..5)?
        .eq_ignore_ascii_case(b"start");
    match control_of(text)? {
        Control::Begin(options) if options == BeginOptions::default() => {
            Some(if start { "START TRANSACTION" } else { "BEGIN" })
        }
        _ => None,
    }
}

fn commits(text: &[u8]) -> Option<&'static str> {
    matches!(control_of(text)?, Control::Commit { chain: false }).then_some("COMMIT")
}

fn plan_ddl(text: &[u8], shape: &Shape) -> Option<Plan> {
    let text = std::str::from_utf8(text).ok()?;
    let plan = parse::plan(text, shape, &PARSE).ok()?;
    plan.ddl.is_some().then_some(plan)
}

/// Binds a statement of DDL; what it makes is among the tables afterwards.
fn bind_ddl(text: &[u8], tables: &mut Tables) -> Option<Bound> {
    let mut shape = Shape::default();
    shape.scan(text).ok()?;
    let plan = plan_ddl(text, &shape)?;
    let bound = route::bind(&plan, tables);
    if let (Some(ddl), Some(work)) = (&plan.ddl, bound.work()) {
        tables.learn(ddl, &work.place);
    }
    Some(bound)
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
}
