//! Enlisting hosts: which server connections the session has, what must be sent before the first statement on one, and
//! giving them back.

use std::future::poll_fn;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Session;
use super::bring::{Bring, push_step};
use super::buffers;
use super::context::Prepared;
use super::ends::Link;
use super::errors::Fault;
use super::relay::{self, Relayed, Run, Seen};
use super::replies::{Pass, Reply};
use crate::pool::{Checkout, Kept, Pool, ServerConn, StatementKey};
use crate::route::{Names, SessionState};
use crate::shardmap::{HostId, PoolMode, ShardId};
use crate::sql::control::BeginOptions;
use crate::twophase;
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::frontend;

/// The name under which `BEGIN` is prepared on a server connection.
const BEGIN: &[u8] = b"presplit_begin";

/// What a statement needs of the server connection that it runs on.
pub(super) struct Need {
    pub(super) host: HostId,
    /// The server-side statement that it will run.
    pub(super) statement: Option<StatementKey>,
    /// The shard whose schema names must resolve in, if they can't all be qualified.
    pub(super) path: Option<ShardId>,
    /// It may change data.
    pub(super) writes: bool,
    /// How settings are brought about for it outside of a block.
    pub(super) bring: Bring,
    /// What it does to what the session has in the server process.
    pub(super) state: SessionState,
    /// The transaction's part on the host can't be prepared after it (xact.c, `PrepareTransaction`).
    pub(super) unpreparable: bool,
    /// It may go over a shared connection.
    pub(super) rides: bool,
}

impl Need {
    /// Any statement on `host`.
    pub(super) fn plain(host: HostId) -> Need {
        Need {
            host,
            statement: None,
            path: None,
            writes: false,
            bring: Bring::Before,
            state: SessionState::Same,
            unpreparable: false,
            rides: false,
        }
    }

    /// A statement on `host` that may stand in a transaction that something else began.
    pub(super) fn along(host: HostId) -> Need {
        Need {
            bring: Bring::Along,
            ..Need::plain(host)
        }
    }

    /// One text of the client's on `host`.
    pub(super) fn of(prepared: &Prepared, host: HostId, path: Option<ShardId>) -> Need {
        Need {
            path,
            writes: prepared.writes(),
            bring: match prepared.shares_transaction() {
                true => Bring::Along,
                false => Bring::Before,
            },
            state: prepared.session_state(),
            unpreparable: prepared.is_unpreparable(),
            ..Need::plain(host)
        }
    }

    /// The shard whose search_path is needed under `names`.
    pub(super) fn path(names: Names, shard: Option<ShardId>) -> Option<ShardId> {
        match names {
            Names::SearchPath => shard,
            Names::Qualified => None,
        }
    }
}

impl Session {
    /// The link to the host, ready for the statement: checked out if need be, BEGIN, savepoints and settings in front.
    /// Replies owed by another link have been passed on when this returns.
    pub(super) async fn link(&mut self, need: Need) -> Result<usize, Fault> {
        if let Some(i) = self.link_now(&need)? {
            return Ok(i);
        }
        Box::pin(self.link_slowly(need)).await
    }

    /// [`Session::link`] where nothing has to be waited for; `None` where something has.
    pub(super) fn link_now(&mut self, need: &Need) -> Result<Option<usize>, Fault> {
        self.check_snapshot(need.host)?;
        if need.writes && self.widens(need.host) || self.must_decide(need) {
            return Ok(None);
        }
        let i = match self.links.iter().position(|l| l.host == need.host) {
            Some(i) if i == self.active || !self.replies.are_asked() => i,
            None if !self.replies.are_asked() && !self.spreads_options() => {
                let pool = self.pools.of(need.host);
                if !self.context.two_phase.is_settled(&pool.host) {
                    return Ok(None);
                }
                self.check_pins()?;
                if self.is_parked(need.host) {
                    self.link_parked(need)
                } else {
                    let wish = Checkout {
                        worker: self.worker.id,
                        settings: &self.settings,
                        statement: need.statement,
                    };
                    let shared = need.rides.then(|| pool.checkout_shared(&wish)).flatten();
                    let Some(conn) = shared.or_else(|| pool.checkout_idle(&wish)) else {
                        return Ok(None);
                    };
                    let pool = pool.clone();
                    self.add_link(need.host, pool, conn, need.statement.is_some())
                }
            }
            _ => return Ok(None),
        };
        self.active = i;
        self.make_ready(i, need)?;
        Ok(Some(i))
    }

    async fn link_slowly(&mut self, need: Need) -> Result<usize, Fault> {
        self.settle_replies().await?;
        if need.writes && self.widens(need.host) || self.must_decide(&need) {
            self.note_unpreparable(&need);
            self.widen(need.host).await?;
        }
        let i = match self.links.iter().position(|l| l.host == need.host) {
            Some(i) => i,
            None => {
                if self.spreads_options() {
                    self.batch_becomes_block().await?;
                }
                let pool = self.pools.of(need.host).clone();
                self.check_settled(&pool).await?;
                self.check_pins()?;
                if self.is_parked(need.host) {
                    self.link_parked(&need)
                } else {
                    let wish = Checkout {
                        worker: self.worker.id,
                        settings: &self.settings,
                        statement: need.statement,
                    };
                    let conn = pool
                        .checkout(wish, &self.kept())
                        .await
                        .map_err(|fault| Fault::checkout(&pool.host, fault))?;
                    self.add_link(need.host, pool, conn, need.statement.is_some())
                }
            }
        };
        self.active = i;
        self.make_ready(i, &need)?;
        Ok(i)
    }

    /// The server connections that the session has, in transactions or pinned.
    fn kept(&self) -> Vec<Kept> {
        let links = self.links.iter().chain(self.parked());
        let kept = links.filter_map(|link| {
            let (pool, pid) = (link.pool.clone(), link.conn.as_ref()?.pid);
            Some(Kept { pool, pid })
        });
        kept.collect()
    }

    /// Whether the implicit transaction, which is to go to another host, too, has been told by SET TRANSACTION what it is: as a block it says
    /// that to each host.
    fn spreads_options(&self) -> bool {
        !self.links.is_empty()
            && self.block.is_none()
            && self.batch.options != BeginOptions::default()
    }

    /// Nobody looks at a host before it has carried out what clients were told is committed.
    async fn check_settled(&self, pool: &Pool) -> Result<(), Fault> {
        let wait = self.map.proxy.timeouts.checkout_wait;
        if self.context.two_phase.settled(&pool.host, wait).await {
            return Ok(());
        }
        Err(Fault::statement(
            ErrorFields::error(
                SqlState::CANNOT_CONNECT_NOW,
                format!(
                    "host {:?} has yet to carry out a transaction that is committed on all its hosts",
                    pool.host
                ),
            )
            .detail("Until then it would show rows as they were before.")
            .hint("Try again; SHOW TRANSACTIONS in the database \"presplit\" says what it waits for."),
        ))
    }

    fn make_ready(&mut self, i: usize, need: &Need) -> Result<(), Fault> {
        self.note_state(i, need.state)?;
        self.note_unpreparable(need);
        self.bring_settings(i, need.path, need.bring)?;
        self.links[i].only_described = false;
        if need.writes {
            self.note_writer(need.host);
        }
        Ok(())
    }

    /// The hosts of shards that a statement writes to, lowest first: all statements go to their hosts in this order, so
    /// that two of them seldom wait for each other crosswise.
    pub(super) fn writers(&self, shards: impl Iterator<Item = ShardId>) -> SmallVec<[HostId; 2]> {
        let mut hosts: SmallVec<[HostId; 2]> = SmallVec::new();
        for shard in shards {
            let host = self.map.owner(shard);
            if let Err(at) = hosts.binary_search(&host) {
                hosts.insert(at, host);
            }
        }
        if hosts.is_empty() {
            hosts.push(self.map.owner(self.map.template()));
        }
        hosts
    }

    /// Enlists a server connection that was checked out.
    fn add_link(
        &mut self,
        host: HostId,
        pool: Arc<Pool>,
        conn: Box<ServerConn>,
        extended: bool,
    ) -> usize {
        let keeps = self.block.is_some() || self.links.iter().any(|link| link.unsynced);
        self.cancel.enlist(&pool, &conn.key, keeps);
        let mut link = Link::new(host, self.map.clone(), pool, conn);
        link.cancel = Some(self.cancel.clone());
        if extended || self.block.is_some() {
            // Several small messages are to come. A Query brings a buffer of its own.
            buffers::lend(&mut link.outbox);
        }
        if self.block.is_some() {
            // Settings first: what is set inside the block would be undone by its rollback.
            let plain = self.block.as_ref().is_some_and(|b| b.begin() == "BEGIN");
            self.bring_before_begin(&mut link, plain);
            self.push_begin(&mut link);
            if self.block.as_ref().is_some_and(|b| b.has_sets())
                && let Some(conn) = &mut link.conn
            {
                // What the block has set was replayed.
                conn.change(self.settings.clone());
            }
        }
        self.links.push(link);
        self.links.len() - 1
    }

    /// The link to a host where the session keeps a server connection.
    fn link_parked(&mut self, need: &Need) -> usize {
        let Some((pool, conn, pin)) = self.unpark(need.host) else {
            // It was there a moment ago.
            return self.links.len();
        };
        let i = self.add_link(need.host, pool, conn, need.statement.is_some());
        self.links[i].pin = Some(pin);
        i
    }

    /// `BEGIN` and what the block has seen so far, in front of the first statement on this link.
    fn push_begin(&mut self, link: &mut Link) {
        let Some(block) = &self.block else { return };
        // Known from now on, whatever comes of its first statement.
        link.status = b'T';
        let begin = block.begin();
        if begin == "BEGIN" {
            if let Some(conn) = &mut link.conn
                && !conn.begin_prepared
            {
                frontend::parse(&mut link.outbox, BEGIN, b"BEGIN", std::iter::empty());
                self.replies.push(Reply::One(Pass::Keep));
                conn.begin_prepared = true;
            }
            frontend::bind_renamed(&mut link.outbox, b"", BEGIN, &[0; 6]);
            frontend::execute(&mut link.outbox, b"", 0);
            self.replies.push(Reply::One(Pass::Keep));
            self.replies.push(Reply::Execute(Pass::Keep));
        } else {
            push_step(&mut link.outbox, &begin, b"");
            self.replies.push(Reply::Ours { closes: false });
        }
        if let Some(name) = block.writers.name() {
            frontend::query(&mut link.outbox, twophase::mark(name).as_bytes());
            self.replies.push(Reply::Query(Pass::Keep));
            if let Some(conn) = &link.conn {
                block.writers.enlist(&link.pool.host, conn.pid);
            }
        }
        for text in block.replay() {
            push_step(&mut link.outbox, &text, b"");
            self.replies.push(Reply::Ours { closes: false });
        }
    }

    /// Outside any transaction: goes by the map that is in force now.
    pub(super) fn follow_map(&mut self) {
        if self.block.is_some() || !self.links.is_empty() {
            return;
        }
        let swaps = Some(self.context.map.swaps());
        if self.map_swaps == swaps {
            return;
        }
        self.map_swaps = swaps;
        let current = self.context.map.load();
        if !std::sync::Arc::ptr_eq(&current, &self.map) {
            let current = current.clone();
            self.pins_follow(&current);
            self.map = current;
            self.pools = super::login::pools_for(&self.context, &self.map, self.role.as_ref());
        }
    }

    /// Whether the map that the session goes by is in force still.
    pub(super) fn is_map_current(&self) -> bool {
        Arc::ptr_eq(&self.context.map.load(), &self.map)
    }

    /// Whether a refusal may be due to a table that was made after the catalog was last read.
    pub(super) fn wants_refresh(&self, fault: &Fault) -> bool {
        matches!(fault, Fault::Statement(fields) if fields.code == SqlState::TABLE_WITHOUT_KEY)
            && self.block.as_ref().is_none_or(|b| !b.failed)
    }

    /// Has the catalog read again, if that was not done a moment ago, and waits for it.
    pub(super) async fn refresh_tables(&mut self) {
        self.context.refresh.ask().await;
    }

    /// Passes on all replies that the active link still owes, asking it to send them now.
    pub(super) async fn drain_replies(&mut self) -> Result<(), Fault> {
        relay::write_made(&mut self.client, &mut self.replies);
        if self.replies.is_empty() {
            return Ok(());
        }
        if let Some(link) = self.links.get_mut(self.active) {
            frontend::flush(&mut link.outbox);
        }
        self.relay().await?;
        Ok(())
    }

    /// Relays until nothing is owed on the active link. `true`: the server reported an error on the way.
    pub(super) async fn relay(&mut self) -> Result<bool, Fault> {
        let mut seen = Seen::default();
        loop {
            let Some(link) = self.links.get_mut(self.active) else {
                return Ok(false);
            };
            let (client, replies, mut run) = (&mut self.client, &mut self.replies, Run::default());
            let relayed =
                poll_fn(|cx| relay::poll_replies(cx, client, link, replies, &mut seen, &mut run))
                    .await;
            self.note_seen(&mut seen);
            if seen.error {
                self.context.stats.server_error();
            }
            match relayed? {
                Relayed::Done => return Ok(seen.error),
                Relayed::CopyIn => Box::pin(self.copy_in()).await?,
            }
        }
    }

    /// Takes the active link out: its connection is lost. `true`: the client was in the middle of a message from it.
    pub(super) fn drop_active(&mut self) -> bool {
        let lost_at = self.replies.front_number();
        self.replies.clear();
        self.undo_statements(lost_at);
        self.batch.unparsed = None;
        if self.active >= self.links.len() {
            return false;
        }
        let mut link = self.links.remove(self.active);
        let cut = link.in_message();
        link.discard();
        self.active = 0;
        if let Some(block) = &mut self.block {
            block.failed = true;
            block.lost = true;
        }
        cut
    }

    /// Gives all server connections back. Each must be outside a transaction, or it is closed.
    pub(super) async fn release_links(&mut self) {
        if self.links.iter().any(|link| link.suspect) {
            self.look_at_suspects().await;
        }
        if !self.release_now() {
            self.cancel.landed().await;
            self.release_now();
        }
    }

    /// [`Session::release_links`] unless a cancel is on its way to one of them: `false`.
    pub(super) fn release_now(&mut self) -> bool {
        if self.links.is_empty() {
            return true;
        }
        if self.links.iter().any(|link| link.suspect) {
            return false;
        }
        let Some(late) = self.cancel.leave() else {
            return false;
        };
        let kept = self.map.proxy.pool_mode == PoolMode::Session
            || self.links.iter().any(|link| link.pin.is_some());
        if kept {
            for link in std::mem::take(&mut self.links) {
                self.park_or_release(link, late);
            }
        }
        if kept || self.pinned_host().is_some() {
            self.tell_parked();
        }
        for link in &mut self.links {
            match late {
                true => link.discard(),
                false => link.release(),
            }
        }
        self.links.clear();
        self.active = 0;
        true
    }

    /// The transaction status of the active server connection.
    pub(super) fn active_status(&self) -> u8 {
        self.links.get(self.active).map_or(b'I', |l| l.status)
    }

    /// A host that a statement may go to which any host can answer: the transaction's own, else the template's, else
    /// one that is up.
    pub(super) fn any_host(&self) -> HostId {
        // What it calls may be something that only the decision host's part can do (pg_notify).
        let decision = self.block.as_ref().and_then(|b| b.writers.decision());
        if let Some(link) = self.links.iter().find(|l| Some(l.host) == decision) {
            return link.host;
        }
        if let Some(link) = self.links.get(self.active) {
            return link.host;
        }
        if let Some(host) = self.pinned_host() {
            return host;
        }
        let template = self.map.owner(self.map.template());
        let up = |h: &HostId| !self.pools.of(*h).is_down();
        let hosts = (0..self.map.hosts.len()).map(|h| HostId(h as u16));
        std::iter::once(template)
            .chain(hosts)
            .find(up)
            .unwrap_or(template)
    }
}
