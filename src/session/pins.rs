//! What a session has in one server process beyond its transactions: channels that it listens on, session advisory locks,
//! temporary tables, cursors WITH HOLD. While it has any of them it keeps ("pins") the server connection: between
//! transactions that is parked here rather than given back. What there is, is asked of the server, once a transaction has
//! ended that may have changed it; so a lock that is given back frees the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use super::Session;
use super::ends::{Link, poll_fill};
use super::errors::Fault;
use super::parameters::pass_status;
use super::temporary::Temporary;
use crate::pool::{Pool, ServerConn};
use crate::route::SessionState;
use crate::shardmap::{HostId, Pinning, PoolMode, ShardMap};
use crate::wire::backend::ErrorView;
use crate::wire::error::{ErrorFields, Severity, SqlState};
use crate::wire::{frame, frontend};

/// What a session has in a server process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Has {
    listens: bool,
    locks: bool,
    temporary: bool,
    /// Cursors WITH HOLD, by name.
    cursors: Vec<String>,
}

impl Has {
    pub(super) fn listens(&self) -> bool {
        self.listens
    }

    pub(super) fn temporary(&self) -> bool {
        self.temporary
    }

    pub(super) fn cursors(&self) -> bool {
        !self.cursors.is_empty()
    }

    fn any(&self) -> bool {
        *self != Has::default()
    }

    /// In words, for SHOW CLIENTS and for errors.
    fn words(&self) -> String {
        let cursors = !self.cursors.is_empty();
        let all = [
            (self.listens, "channels"),
            (self.locks, "advisory locks"),
            (self.temporary, "temporary tables"),
            (cursors, "cursors"),
        ];
        let words = all.iter().filter(|(has, _)| *has).map(|(_, word)| *word);
        words.collect::<Vec<_>>().join(", ")
    }
}

/// A server connection that the session does not give back.
pub(crate) struct Pin {
    pub(super) has: Has,
    pool: Arc<Pool>,
    lost: Arc<AtomicBool>,
}

impl Pin {
    fn new(pool: &Arc<Pool>, lost: &Arc<AtomicBool>) -> Pin {
        pool.pin();
        Pin {
            has: Has::default(),
            pool: pool.clone(),
            lost: lost.clone(),
        }
    }

    /// The connection is gone, and with it what the session had there.
    pub(super) fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pool.unpin();
    }
}

/// The session's pins.
#[derive(Default)]
pub(super) struct Pins {
    /// The server connections that it keeps, while it is in no transaction there.
    parked: Vec<Link>,
    /// One of them was lost: the session can't go on. `None`: there never was one.
    lost: Option<Arc<AtomicBool>>,
    /// A change of the map has taken the place of what it has: why the session can't go on.
    ousted: Option<String>,
}

impl Pins {
    fn lost(&mut self) -> &Arc<AtomicBool> {
        self.lost.get_or_insert_default()
    }

    fn are_lost(&self) -> bool {
        let lost = self.lost.as_ref();
        lost.is_some_and(|lost| lost.load(Ordering::Relaxed))
    }
}

/// What there is in the server process: channels, locks, the schema of temporary tables if there are any, cursors.
const LOOK: &str = "BEGIN; SET LOCAL statement_timeout = 0; SELECT EXISTS (SELECT FROM pg_catalog.pg_listening_channels()), \
     EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()), \
     (SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.oid = pg_catalog.pg_my_temp_schema() \
     AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid)); \
     SELECT name FROM pg_catalog.pg_cursors WHERE is_holdable; COMMIT";

/// How often a server is asked that: a cancel meant for the client's statement may hit the question.
const LOOKS: usize = 3;

impl Session {
    /// Before a statement of this kind runs on link `i`.
    pub(super) fn note_state(&mut self, i: usize, state: SessionState) -> Result<(), Fault> {
        match state {
            SessionState::Same => return Ok(()),
            SessionState::Gives if self.links[i].pin.is_none() => return Ok(()),
            SessionState::Gives => {}
            _ if self.map.proxy.pool_mode == PoolMode::Session => {}
            SessionState::Takes | SessionState::Temporary => self.check_pin(i)?,
        }
        self.links[i].suspect = true;
        // What is bound changes nothing before it is executed.
        if state == SessionState::Temporary && self.batch.now != b'B' {
            self.temporary_changes();
        }
        Ok(())
    }

    /// Whether the session may keep what it is about to have.
    fn check_pin(&self, i: usize) -> Result<(), Fault> {
        let link = &self.links[i];
        if link.pin.is_some() {
            return Ok(());
        }
        if self.map.proxy.pinning == Pinning::Refuse {
            return Err(Fault::unsupported(
                "this would stay in one server process beyond the transaction, and pinning = \"refuse\" in [proxy]",
                "Take pg_advisory_xact_lock in place of pg_advisory_lock, an ordinary table in place of a temporary one, a cursor without WITH HOLD; connect directly to a host for LISTEN; or set pinning = \"allow\".",
            ));
        }
        let (pinned, all) = link.pool.pinned();
        if pinned > 0 && pinned + 1 >= all {
            return Err(Fault::statement(
                ErrorFields::error(
                    SqlState::TOO_MANY_CONNECTIONS,
                    format!(
                        "{pinned} of {all} server connections of host {:?} are pinned by sessions with locks, temporary tables, channels or cursors of their own",
                        link.pool.host
                    ),
                )
                .hint("One is left for all others. SHOW CLIENTS in the database \"presplit\" says who has what; raise pool of this host."),
            ));
        }
        Ok(())
    }

    /// The server connection of this host that the session keeps, out of its parking place.
    pub(super) fn unpark(
        &mut self,
        host: HostId,
    ) -> Option<(Arc<Pool>, Box<ServerConn>, Box<Pin>)> {
        let at = self.pins.parked.iter().position(|l| l.host == host)?;
        let mut link = self.pins.parked.remove(at);
        let mut conn = link.conn.take()?;
        // What has come meanwhile and is not passed on yet stands at its front.
        conn.inbox.drain(..link.walked);
        Some((link.pool.clone(), conn, link.pin.take()?))
    }

    /// Whether there is one; see [`Session::unpark`].
    pub(super) fn is_parked(&self, host: HostId) -> bool {
        self.pins.parked.iter().any(|link| link.host == host)
    }

    /// The server connections that it keeps, while it is in no transaction there.
    pub(super) fn parked(&self) -> impl Iterator<Item = &Link> {
        self.pins.parked.iter()
    }

    /// A host where the session keeps a server connection.
    pub(super) fn pinned_host(&self) -> Option<HostId> {
        self.pins.parked.first().map(|link| link.host)
    }

    /// The host of a cursor WITH HOLD.
    pub(super) fn held_cursor(&self, name: &str) -> Option<HostId> {
        let links = self.pins.parked.iter().chain(&self.links);
        let mut pinned = links.filter_map(|link| Some((link.host, link.pin.as_ref()?)));
        let has = |pin: &Pin| pin.has.cursors.iter().any(|cursor| cursor == name);
        pinned.find(|(_, pin)| has(pin)).map(|(host, _)| host)
    }

    /// The hosts where the session has something in a server process that `has` tells, or may have by now.
    pub(super) fn hosts_that(&self, has: impl Fn(&Has) -> bool) -> Vec<HostId> {
        let links = self.pins.parked.iter().chain(&self.links);
        let may = |link: &&Link| link.suspect || link.pin.as_ref().is_some_and(|pin| has(&pin.has));
        links.filter(may).map(|link| link.host).collect()
    }

    /// Takes in a link that is given up at the end of a transaction. `late`: a cancel may hit it yet.
    pub(super) fn park_or_release(&mut self, mut link: Link, late: bool) {
        if link.pin.is_none() && self.map.proxy.pool_mode == PoolMode::Session {
            link.pin = Some(Box::new(Pin::new(&link.pool, self.pins.lost())));
        }
        // A late cancel hits nobody but the session that asked for it.
        match (link.pin.is_some(), late) {
            (true, _) if link.park() => self.pins.parked.push(link),
            (false, false) => link.release(),
            _ => link.discard(),
        }
    }

    /// What is parked may hold locks that others wait for.
    pub(super) fn tell_parked(&self) {
        let key = |link: &Link| Some((link.pool.clone(), link.conn.as_ref()?.key.clone()));
        self.cancel.park(self.pins.parked.iter().filter_map(key));
    }

    /// Asks the links that may have changed what the session has there. Their transactions have ended.
    pub(super) async fn look_at_suspects(&mut self) {
        for i in 0..self.links.len() {
            let link = &mut self.links[i];
            if !std::mem::take(&mut link.suspect) || !link.is_idle() {
                continue;
            }
            if let Err(fault) = Box::pin(self.look_again_at(i)).await {
                tracing::warn!(
                    client = self.info.id,
                    "what a session has on host {:?} could not be asked: {fault:?}",
                    self.links[i].pool.host
                );
                // It goes with the connection, whatever it was.
                self.pins.lost().store(true, Ordering::Relaxed);
                self.links[i].discard();
            }
        }
        self.show_pins();
    }

    async fn look_again_at(&mut self, i: usize) -> Result<(), Fault> {
        for _ in 1..LOOKS {
            match self.look_at(i).await {
                Err(Fault::Statement(_)) => {}
                looked => return looked,
            }
            if self.links[i].status != b'I' {
                self.rows_of(i, "ROLLBACK").await?;
            }
        }
        self.look_at(i).await
    }

    async fn look_at(&mut self, i: usize) -> Result<(), Fault> {
        // Behind those of BEGIN and SET.
        let mut answers = self.rows_of(i, LOOK).await?.into_iter().skip(2);
        let mut found = answers.next().unwrap_or_default().into_iter().flatten();
        let mut next = || found.next().flatten();
        let is_true = |value: Option<String>| value.as_deref() == Some("t");
        let (listens, locks, schema) = (is_true(next()), is_true(next()), next());
        let cursors = answers.next().unwrap_or_default().into_iter().flatten();
        let has = Has {
            listens,
            locks,
            temporary: schema.is_some(),
            cursors: cursors.flatten().collect(),
        };
        let temporary = match &schema {
            Some(schema) => Some(self.read_schema(i, schema).await?),
            None => None,
        };
        let link = &mut self.links[i];
        let had = link.pin.as_ref().is_some_and(|pin| pin.has.temporary);
        if had || temporary.is_some() {
            self.temporary = temporary.map(Temporary::new);
        }
        let link = &mut self.links[i];
        if !has.any() && self.map.proxy.pool_mode == PoolMode::Transaction {
            link.pin = None;
            return Ok(());
        }
        let lost = self.pins.lost();
        let pin = link
            .pin
            .get_or_insert_with(|| Box::new(Pin::new(&link.pool, lost)));
        pin.has = has;
        Ok(())
    }

    /// Unless all went well: links that the session has to keep are brought to where nothing is outstanding on them, so that they
    /// need not be closed.
    pub(super) async fn finish_kept_unless(&mut self, well: bool) {
        if well {
            return;
        }
        let limit = self.map.proxy.timeouts.connect;
        for i in 0..self.links.len() {
            if !self.keeps_link(&self.links[i]) || self.links[i].conn.is_none() {
                continue;
            }
            let finished = tokio::time::timeout(limit, self.finish(i)).await;
            if !matches!(finished, Ok(Ok(()))) {
                self.links[i].discard();
            }
        }
    }

    /// A Query that is refused ends the transaction of the messages before it, if no Sync has: links that the session keeps are rolled
    /// back, others closed.
    pub(super) async fn roll_back_kept(&mut self) {
        let all = self.map.proxy.pool_mode == PoolMode::Session;
        let kept = |link: &Link| {
            link.unsynced && link.conn.is_some() && (all || link.suspect || link.pin.is_some())
        };
        let kept: Vec<usize> = (0..self.links.len())
            .filter(|i| kept(&self.links[*i]))
            .collect();
        // That there is no block to be rolled back is not for the client.
        let quiet = "SET LOCAL client_min_messages = error; ROLLBACK";
        let asks = kept.iter().map(|i| (*i, quiet.to_owned())).collect();
        let answers = self.query_links(asks, Some(self.step_limit())).await;
        for (i, answer) in kept.into_iter().zip(answers) {
            let link = &mut self.links[i];
            link.transaction_over(false);
            if !answer.is_done() {
                link.discard();
            }
        }
    }

    /// Whether the session has to keep the link after a failure, for what is pinned or for a rollback to a savepoint.
    pub(super) fn keeps_link(&self, link: &Link) -> bool {
        let block = self.block.as_ref();
        link.pin.is_some() || block.is_some_and(|block| !block.savepoints.is_empty())
    }

    /// Skips all that a link still answers. What is asked last is answered whatever has happened before, by a message that
    /// nothing else is answered with.
    async fn finish(&mut self, i: usize) -> Result<(), Fault> {
        let link = &mut self.links[i];
        if link.in_message() {
            // The client has a part of it, and there is no way to go on.
            return Err(Fault::lost(&link.pool.host, None));
        }
        frontend::sync(&mut link.outbox);
        frontend::query(&mut link.outbox, b"");
        let rest = std::mem::take(&mut link.middle.rest);
        if rest > 0 {
            self.skip_message(i, rest).await?;
        }
        let mut last = false;
        loop {
            let (tag, len) = self.next_message(i).await?;
            if tag == b'Z' {
                self.have(i, len).await?;
                let link = &mut self.links[i];
                link.status = link.unread().get(frame::HEADER).copied().unwrap_or(b'E');
            }
            self.skip_message(i, len).await?;
            if tag == b'Z' && last {
                self.links[i].unsynced = false;
                return Ok(());
            }
            last |= tag == b'I';
        }
    }

    /// For SHOW CLIENTS.
    fn show_pins(&self) {
        let links = self.pins.parked.iter().chain(&self.links);
        let pins = links.filter_map(|link| Some((&link.pool.host, link.pin.as_ref()?)));
        let words = pins
            .filter(|(_, pin)| pin.has.any())
            .map(|(host, pin)| format!("{host}: {}", pin.has.words()));
        self.info.set_pinned(words.collect::<Vec<_>>().join("; "));
    }

    /// Gives up all that the session has in server processes. The session's own transactions have ended.
    /// The locks are free when this is over; those of a connection that is closed only once its server process has ended.
    pub(super) async fn drop_pins(&mut self) {
        // The last statement may have been on one of them.
        let (lent, rest): (Vec<Link>, Vec<Link>) =
            self.links.drain(..).partition(|link| link.pin.is_some());
        self.links.extend(rest);
        self.active = 0;
        let parked: Vec<Link> = self.pins.parked.drain(..).chain(lent).collect();
        for mut link in parked {
            link.pin = None;
            match link.conn.take() {
                Some(conn) if link.status == b'I' && !link.unsynced && link.outbox.is_empty() => {
                    link.pool.renew(conn).await;
                }
                Some(conn) => link.pool.discard(conn),
                None => {}
            }
        }
        self.temporary = None;
        self.show_pins();
        self.tell_parked();
    }

    /// The session ends: server connections that it has kept without leaving anything in them that is known of go back,
    /// once they are as new.
    pub(super) fn retire_pins(&mut self) {
        for mut link in self.pins.parked.drain(..) {
            link.pin = None;
            let pool = link.pool.clone();
            match link.conn.take() {
                Some(conn) if self.map.proxy.pool_mode == PoolMode::Session => {
                    tokio::spawn(async move { pool.renew(conn).await });
                }
                Some(conn) => pool.discard(conn),
                None => {}
            }
        }
    }

    /// Why the session can't go on.
    pub(super) fn check_pins(&self) -> Result<(), Fault> {
        let lost = "a server connection that this session kept for its channels, locks, temporary tables or cursors is lost";
        let (code, why) = match &self.pins.ousted {
            Some(why) => (SqlState::ADMIN_SHUTDOWN, why.as_str()),
            None if self.pins.are_lost() => (SqlState::CONNECTION_FAILURE, lost),
            None => return Ok(()),
        };
        Err(Fault::fatal(
            ErrorFields::fatal(code, format!("terminating connection: {why}"))
                .hint("Connect again, and make them anew."),
        ))
    }

    /// The map is about to be replaced by `map`. What the session has must be where other sessions will look for it.
    pub(super) fn pins_follow(&mut self, map: &ShardMap) {
        if self.pins.parked.is_empty() {
            return;
        }
        let name = |map: &ShardMap| map.host(map.session_host()).name.clone();
        let (old, new) = (name(&self.map), name(map));
        let pools = super::login::pools_for(&self.context, map, self.role.as_ref());
        for link in &mut self.pins.parked {
            let host = self.map.host(link.host).name.clone();
            let at = map
                .host_named(&host)
                .filter(|at| Arc::ptr_eq(pools.of(*at), &link.pool));
            let shared = |has: &Has| has.listens || has.locks || has.temporary;
            let shared = link.pin.as_ref().is_some_and(|pin| shared(&pin.has));
            match at {
                Some(_) if shared && old != new && host == old => {
                    self.pins.ousted = Some(format!("the session host is {new:?} now"));
                }
                Some(at) => link.host = at,
                None => {
                    self.pins.ousted = Some(format!(
                        "host {host:?} has left the shard map or is another database now"
                    ));
                }
            }
        }
    }

    /// Reads what the parked connections say unasked. `Ready`: something was read.
    pub(super) fn poll_parked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut some = false;
        for link in &mut self.pins.parked {
            let Some(conn) = &link.conn else { continue };
            // No buffer is held while nothing comes.
            if conn.stream.poll_read_ready(cx).is_pending() {
                continue;
            }
            match poll_fill(cx, link) {
                Poll::Pending => {}
                Poll::Ready(Ok(n)) if n > 0 => some = true,
                Poll::Ready(_) => {
                    link.discard();
                    some = true;
                }
            }
        }
        match some {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Passes on what [`Session::poll_parked`] has read: notifications, notices, changed parameters.
    pub(super) fn pass_parked(&mut self) -> Result<(), Fault> {
        for link in &mut self.pins.parked {
            while let Ok(Some(header)) = frame::header(link.unread())
                && link.unread().len() >= header.len
            {
                let message = link.unread()[..header.len].to_vec();
                link.take(header.len);
                match header.tag {
                    b'A' | b'N' => self.client.outbox.extend_from_slice(&message),
                    b'S' => drop(pass_status(&mut self.client, link, &message)),
                    b'E' => {
                        let farewell = ErrorView::decode(&message[frame::HEADER..]);
                        link.discard();
                        if let Ok(farewell) = farewell {
                            let mut fields = farewell.to_fields();
                            fields.severity = Severity::Fatal;
                            return Err(Fault::fatal(fields));
                        }
                    }
                    _ => link.discard(),
                }
            }
            if link.conn.is_some() && link.unread().is_empty() {
                link.rest();
            }
        }
        self.pins.parked.retain(|link| link.conn.is_some());
        self.check_pins()
    }

    /// Whether the parked connections are to be listened to: in a transaction Postgres says nothing unasked.
    pub(super) fn is_listening(&self) -> bool {
        !self.pins.parked.is_empty() && self.block.is_none() && self.links.is_empty()
    }
}
