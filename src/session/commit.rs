//! Transactions that write on several hosts: how they become such, and how they are committed, on all hosts or on none
//! (`crate::twophase` says what must hold).

use std::time::Duration;

use super::Session;
use super::block::Owner;
use super::errors::Fault;
use super::links::Need;
use super::queries::Answer;
use super::writers::TwoPhase;
use crate::shardmap::{CrossHost, CrossHostSnapshots, HostId};
use crate::sql::control::BeginOptions;
use crate::twophase::{self, Home, Name, Place, Readiness};
use crate::wire::error::{ErrorFields, SqlState};

/// How a transaction ended.
pub(super) enum Ended {
    Committed,
    /// It was rolled back on all hosts; the client has the error.
    RolledBack,
}

impl Session {
    /// The hosts that the transaction has written on, if it is one of several hosts or may become one.
    pub(super) fn first_writer(&self) -> Option<HostId> {
        match &self.block {
            Some(block) => block.writers.first(),
            None => self.batch.writer,
        }
    }

    /// Whether a write on this host makes the transaction one of several hosts, or of one more.
    pub(super) fn widens(&self, host: HostId) -> bool {
        if self.is_read_only() {
            return false;
        }
        match &self.block {
            Some(block) => block.writers.first().is_some() && !block.writers.contains(host),
            None => self.batch.writer.is_some_and(|writer| writer != host),
        }
    }

    /// The transaction writes on this host.
    pub(super) fn note_writer(&mut self, host: HostId) {
        if self.is_read_only() {
            return;
        }
        match &mut self.block {
            Some(block) => block.writers.add(host),
            None => drop(self.batch.writer.get_or_insert(host)),
        }
    }

    /// After this the transaction's part on the host can't be prepared.
    pub(super) fn note_unpreparable(&mut self, need: &Need) {
        if let Some(block) = &mut self.block
            && need.unpreparable
        {
            block.writers.unpreparable.get_or_insert(need.host);
        }
    }

    /// Whether the host must become the decision host in place of another.
    pub(super) fn must_decide(&self, need: &Need) -> bool {
        let Some(block) = &self.block else {
            return false;
        };
        let (writers, host) = (&block.writers, need.host);
        need.writes
            && (need.unpreparable || writers.unpreparable == Some(host))
            && writers.decision().is_some_and(|decision| decision != host)
    }

    /// Two hosts are two snapshots: refused where one was asked for.
    pub(super) fn check_snapshot(&self, host: HostId) -> Result<(), Fault> {
        if self.links.is_empty() {
            return Ok(());
        }
        let one = match &self.block {
            Some(block) => block.one_snapshot(),
            None => self.implicit_of_one_snapshot(),
        };
        let mut seen = self.links.iter().filter(|l| !l.only_described).peekable();
        if !one
            || seen.peek().is_none()
            || seen.any(|l| l.host == host)
            || self.map.proxy.cross_host_snapshots == CrossHostSnapshots::Separate
        {
            return Ok(());
        }
        Err(Fault::statement(
            ErrorFields::error(
                SqlState::MORE_THAN_ONE_SHARD,
                "a REPEATABLE READ or SERIALIZABLE transaction cannot use a second host: two hosts are two snapshots",
            )
            .hint("Use READ COMMITTED, or one transaction per host; or accept separate snapshots by cross_host_snapshots = \"separate\" in [proxy]."),
        ))
    }

    /// Makes ready for a write on a host beside those written on already. Nothing is owed on any link.
    pub(super) async fn widen(&mut self, host: HostId) -> Result<(), Fault> {
        let homes = self.check_writers(&[host]).await?;
        self.open_message_block().await?;
        self.begin_two_phase(host, homes).await
    }

    /// Makes ready for writes on all of these hosts, of which the next statement needs each: what a host must hear before
    /// the statement travels in front of it. Nothing is owed on any link.
    pub(super) async fn widen_to(&mut self, hosts: &[HostId]) -> Result<(), Fault> {
        let homes = self.check_writers(hosts).await?;
        self.open_message_block().await?;
        let block = self.block.as_ref();
        let unpreparable = block.and_then(|block| block.writers.unpreparable);
        let decision = hosts.iter().find(|host| Some(**host) == unpreparable);
        if let Some(host) = decision.or(hosts.first()) {
            self.begin_two_phase(*host, homes).await?;
        }
        if let Some(block) = &mut self.block {
            hosts.iter().for_each(|host| block.writers.add(*host));
        }
        Ok(())
    }

    /// Whether the transaction can write on all of these hosts, too: which databases these and its first one are.
    pub(super) async fn check_writers(
        &self,
        hosts: &[HostId],
    ) -> Result<Vec<(HostId, Home)>, Fault> {
        let mut homes = Vec::new();
        for host in self.first_writer().into_iter().chain(hosts.iter().copied()) {
            homes.push((host, self.check_two_phase(host).await?));
        }
        Ok(homes)
    }

    /// Not all hosts of [`Session::widen_to`] could be had: those without a link have not been written on.
    pub(super) fn forget_unlinked_writers(&mut self) {
        let links = &self.links;
        let linked = |host: &HostId| links.iter().any(|link| link.host == *host);
        if let Some(block) = &mut self.block {
            block.writers.hosts.retain(|host| linked(host));
        }
    }

    /// Gives the transaction a name, unless it has one. `decision`: the host whose part says how it ends, if nothing speaks
    /// for another.
    async fn begin_two_phase(
        &mut self,
        decision: HostId,
        homes: Vec<(HostId, Home)>,
    ) -> Result<(), Fault> {
        let Some(block) = &mut self.block else {
            return Ok(());
        };
        block.writers.know(homes);
        let before = block.writers.decision();
        // One that is only read on is not prepared.
        let writes = |host: &HostId| *host == decision || block.writers.contains(*host);
        let unpreparable = block.writers.unpreparable.filter(writes);
        let decision = unpreparable.unwrap_or(decision);
        let linked = |host: HostId| self.links.iter().any(|link| link.host == host);
        if before.is_some_and(|b| linked(b) && (b == decision || unpreparable.is_none())) {
            return Ok(());
        }
        // Also if the decision host could not be enlisted, and a rollback to a savepoint has mended that.
        // A link made from now on is marked first of all, so that no savepoint can take the mark away.
        let depth = match self.links.iter().any(|link| link.host == decision) {
            true => block.savepoints.len(),
            false => 0,
        };
        let home = self.check_two_phase(decision).await?;
        let ticket = self.context.two_phase.begin(
            &self.map.host(decision).name,
            home,
            self.info.id,
            self.cancel.key(),
        );
        let mark = twophase::mark(ticket.name());
        for link in &self.links {
            if let Some(conn) = &link.conn {
                ticket.enlist(&link.pool.host, conn.pid);
            }
        }
        if let Some(block) = &mut self.block {
            block.writers.two_phase = Some(TwoPhase {
                ticket,
                decision,
                depth,
                marked: true,
            });
        }
        self.query_all_links(&mark).await
    }

    /// One statement on every link, of which the client hears nothing unless it fails.
    pub(super) async fn query_all_links(&mut self, text: &str) -> Result<(), Fault> {
        let asks = (0..self.links.len()).map(|i| (i, text.to_owned()));
        let answers = self.query_links(asks.collect(), None).await;
        for answer in answers {
            if let Some(fault) = answer.into_fault() {
                self.drop_lost();
                return Err(fault);
            }
        }
        Ok(())
    }

    /// Whether a host can take part in a transaction over several: which database it is. It is waited for if that is not
    /// known yet.
    pub(super) async fn check_two_phase(&self, host: HostId) -> Result<Home, Fault> {
        let name = &self.map.host(host).name;
        let refused = |why: String, mend: &str| {
            let message = match self.first_writer() {
                Some(_) => {
                    "the transaction has written on one host and cannot write on another too"
                }
                None => "the statement cannot write on several hosts",
            };
            Err(Fault::statement(
                ErrorFields::error(SqlState::MORE_THAN_ONE_SHARD, message)
                    .detail(why)
                    .hint(mend.to_owned()),
            ))
        };
        if self.map.proxy.cross_host == CrossHost::Refuse {
            let why =
                format!("cross_host is \"refuse\", and this would be a write on host {name:?}.");
            return refused(
                why,
                "Use one transaction per user, move the shards of both users to one host, or set cross_host = \"2pc\" in [proxy].",
            );
        }
        let wait = self.map.proxy.timeouts.connect;
        match self.context.two_phase.readiness_within(name, wait).await {
            Readiness::Ready(home) => Ok(home),
            Readiness::Unable { why, mend } => refused(format!("On host {name:?} {why}."), &mend),
            Readiness::Unknown(why) => Err(Fault::statement(
                ErrorFields::error(
                    SqlState::CANNOT_CONNECT_NOW,
                    format!("host {name:?} cannot take part in a transaction over several hosts just now"),
                )
                .detail(why)
                .hint("Try again once the host is up; SHOW HOSTS in the database \"presplit\" says which is not."),
            )),
        }
    }

    /// What has been done outside of a client's block becomes a block of ours, which ends with the message or the batch.
    pub(super) async fn open_message_block(&mut self) -> Result<(), Fault> {
        if self.block.is_some() {
            return Ok(());
        }
        self.query_all_links("BEGIN").await?;
        self.open_block(BeginOptions::default());
        if let Some(block) = &mut self.block {
            block.owner = Owner::Message;
        }
        Ok(())
    }

    /// Whether a block of ours is open.
    pub(super) fn in_message_block(&self) -> bool {
        self.block
            .as_ref()
            .is_some_and(|block| block.owner == Owner::Message)
    }

    /// The end of a message (or of a batch) outside of a client's block. What it has done on several hosts is committed on
    /// all of them, or undone. `true`: it has failed, and the client has the error.
    pub(super) async fn end_message(&mut self, error: bool) -> Result<bool, Fault> {
        let Some(block) = self.block.as_ref().filter(|b| b.owner == Owner::Message) else {
            self.end_implicit(!error);
            return Ok(error);
        };
        let error = error || block.failed || self.batch.skipping();
        let changed = block.has_changed_tables();
        let ended = match error {
            true => {
                self.roll_back_all().await;
                Ok(Ended::RolledBack)
            }
            false => self.commit_all().await,
        };
        let committed = matches!(ended, Ok(Ended::Committed));
        self.close_block(committed);
        self.end_implicit(committed);
        self.renew_tables(changed, &ended).await;
        ended.map(|_| !committed)
    }

    /// Commits the open block, whatever hosts it is on. The caller closes it.
    pub(super) async fn commit_all(&mut self) -> Result<Ended, Fault> {
        let writers = self.block.as_mut().map(|block| &mut block.writers);
        let several = writers.filter(|writers| writers.are_several());
        let ended = match several.map(|writers| writers.two_phase.take()) {
            None => self.commit_one_writer().await,
            Some(Some(two)) => self.commit_in_two_phases(two).await,
            Some(None) => {
                // Nobody is noted as a second writer before there is a name. If it were, half could be committed.
                self.roll_back_all().await;
                Err(Fault::statement(ErrorFields::error(
                    SqlState::INTERNAL_ERROR,
                    "a transaction on several hosts has no name; it is rolled back on all",
                )))
            }
        };
        self.drop_lost();
        ended
    }

    /// The links of the writing hosts other than `but`, and the links of hosts that were only read.
    fn parts(&self, but: Option<HostId>) -> (Vec<usize>, Vec<usize>) {
        let wrote = |i: &usize| {
            let block = self.block.as_ref();
            block.is_some_and(|b| b.writers.contains(self.links[*i].host))
        };
        (0..self.links.len())
            .filter(|i| Some(self.links[*i].host) != but)
            .partition(wrote)
    }

    /// At most one host was written on: it goes first, and the others have nothing to lose.
    async fn commit_one_writer(&mut self) -> Result<Ended, Fault> {
        let (writers, readers) = self.parts(None);
        for i in &writers {
            match self.query_link(*i, "COMMIT").await {
                Answer::Done(tag) if &*tag == "COMMIT" => {}
                Answer::Lost(fault) => {
                    self.roll_back_all().await;
                    return Err(super::block::commit_unknown(fault, true));
                }
                answer => {
                    self.pass_refusal(answer);
                    self.roll_back_all().await;
                    return Ok(Ended::RolledBack);
                }
            }
        }
        let asks = readers.iter().map(|i| (*i, "COMMIT".to_owned())).collect();
        self.query_links(asks, Some(self.step_limit())).await;
        Ok(Ended::Committed)
    }

    pub(super) fn step_limit(&self) -> Duration {
        self.map.proxy.timeouts.cross_host_step
    }

    async fn commit_in_two_phases(&mut self, two: TwoPhase) -> Result<Ended, Fault> {
        let name = two.ticket.name().clone();
        let (others, readers) = self.parts(Some(two.decision));
        let decision = self.links.iter().position(|l| l.host == two.decision);
        let written = self.block.as_ref().map_or(0, |b| b.writers.hosts.len());
        let Some(decision) = decision.filter(|_| others.len() + 1 == written) else {
            // What was lost on the way has made the block fail, so this is never so. If it were, half would be committed.
            self.roll_back_all().await;
            return Err(rolled_back(Fault::lost(&name.host, None)));
        };
        self.context.seam.reach("before-prepare").await;
        two.ticket.step("preparing");
        if let Err(failed) = self.prepare(&name, decision, &others, two.marked).await {
            self.context.seam.reach("rolling-back").await;
            self.undo(&name, &others, &failed.prepared).await;
            self.context.stats.cross_host_rolled_back();
            return match failed.answer {
                Answer::Lost(fault) => Err(rolled_back(fault)),
                answer => {
                    self.pass_refusal(answer);
                    Ok(Ended::RolledBack)
                }
            };
        }
        self.context.seam.reach("prepared").await;
        two.ticket.step("deciding");
        let places = self.block.iter().flat_map(|b| &b.writers.homes);
        let places: Vec<_> = places.filter(|(host, _)| *host != two.decision).collect();
        let hosts = places.iter().map(|(host, home)| Place {
            host: &self.map.host(*host).name,
            home: *home,
        });
        let decide = twophase::decide(&name, hosts);
        self.context.seam.reach("deciding").await;
        match self.query_link(decision, &decide).await {
            Answer::Done(tag) if &*tag == "COMMIT" => {}
            Answer::Lost(fault) => {
                // It may be committed or not: whoever asks the decision host when it is back finds out.
                for link in &mut self.links {
                    link.discard();
                }
                self.context.two_phase.hurry.notify_one();
                self.context.stats.cross_host_unknown();
                return Err(undecided(fault));
            }
            answer => {
                self.context.seam.reach("rolling-back").await;
                self.undo(&name, &others, &others).await;
                self.context.stats.cross_host_rolled_back();
                self.pass_refusal(answer);
                return Ok(Ended::RolledBack);
            }
        }
        two.ticket.step("committing");
        self.context.seam.reach("decided").await;
        self.carry_out(&name, &others, &readers).await;
        self.context.seam.reach("committed").await;
        self.context.stats.cross_host_committed();
        Ok(Ended::Committed)
    }

    /// The first phase, on all hosts but that of the decision.
    async fn prepare(
        &mut self,
        name: &Name,
        decision: usize,
        others: &[usize],
        marked: bool,
    ) -> Result<(), NotPrepared> {
        if !marked {
            // A rollback to a savepoint took the mark away. It must stand before anything is prepared.
            match self.query_link(decision, &twophase::mark(name)).await {
                Answer::Done(_) => {}
                answer => {
                    return Err(NotPrepared {
                        prepared: Vec::new(),
                        answer,
                    });
                }
            }
        }
        let prepare = twophase::prepare(name);
        let asks = others.iter().map(|i| (*i, prepare.clone())).collect();
        let answers = self.query_links(asks, Some(self.step_limit())).await;
        let mut prepared = Vec::new();
        let mut failed = None;
        for (i, answer) in others.iter().zip(answers) {
            match answer {
                Answer::Done(tag) if &*tag == "PREPARE TRANSACTION" => prepared.push(*i),
                answer => drop(failed.get_or_insert(answer)),
            }
        }
        match failed {
            None => Ok(()),
            Some(answer) => Err(NotPrepared { prepared, answer }),
        }
    }

    /// Before a decision: rolls back what is prepared and what is still open. What can't be reached, recovery does.
    async fn undo(&mut self, name: &Name, others: &[usize], prepared: &[usize]) {
        let undo = twophase::rollback_prepared(name);
        let mut asks: Vec<_> = prepared.iter().map(|i| (*i, undo.clone())).collect();
        let open = |i: &usize| self.links[*i].status != b'I';
        let open = (0..self.links.len()).filter(open);
        asks.extend(open.map(|i| (i, "ROLLBACK".to_owned())));
        asks.retain(|(i, _)| self.links[*i].conn.is_some());
        let answers = self.query_links(asks, Some(self.step_limit())).await;
        if prepared.len() < others.len() || !answers.iter().all(Answer::is_done) {
            self.context.two_phase.hurry.notify_one();
        }
    }

    /// After the decision: the second phase. A host that does not carry it out now owes it; recovery sees to that, and
    /// nobody looks at the host before.
    async fn carry_out(&mut self, name: &Name, others: &[usize], readers: &[usize]) {
        let commit = twophase::commit_prepared(name);
        let asks = others.iter().map(|i| (*i, commit.clone()));
        let asks = asks.chain(readers.iter().map(|i| (*i, "COMMIT".to_owned())));
        let answers = self
            .query_links(asks.collect(), Some(self.step_limit()))
            .await;
        for (i, answer) in others.iter().zip(answers) {
            // Recovery, too, may have done it: then there is nothing left of that name.
            if !answer.is_done() && !answer.is_refused_with(SqlState::UNDEFINED_OBJECT) {
                let host = self.links[*i].pool.host.clone();
                tracing::warn!(host, %name, "COMMIT PREPARED is left to recovery: {answer}");
                self.context.two_phase.owe(&host, name);
            }
        }
        // What is owed keeps the row.
        self.context.two_phase.forget(name);
    }

    /// Ends the open block on all hosts without its writes. A connection on which that fails is closed, which does it too.
    pub(super) async fn roll_back_all(&mut self) {
        for i in 0..self.links.len() {
            // After an error the server takes nothing but a Sync.
            let synced = !self.links[i].unsynced || self.links[i].conn.is_none();
            if !synced && self.sync_link(i).await.is_err() {
                self.replies.clear();
                if let Some(link) = self.links.get_mut(i) {
                    link.discard();
                }
            }
        }
        let open = |i: &usize| self.links[*i].status != b'I' && self.links[*i].conn.is_some();
        let asks = (0..self.links.len()).filter(open);
        let asks = asks.map(|i| (i, "ROLLBACK".to_owned())).collect();
        self.query_links(asks, Some(self.step_limit())).await;
        self.drop_lost();
    }

    /// Gives the client a server's refusal.
    fn pass_refusal(&mut self, answer: Answer) {
        match answer {
            Answer::Refused(error) => {
                self.context.stats.server_error();
                self.client.outbox.extend_from_slice(&error);
            }
            answer => ErrorFields::error(
                SqlState::TRANSACTION_ROLLBACK,
                format!("the transaction was rolled back: a host answered {answer}"),
            )
            .write(&mut self.client.outbox),
        }
    }

    /// Takes out the links whose connection is gone. An open block has lost what was done there.
    pub(super) fn drop_lost(&mut self) {
        let before = self.links.len();
        self.links.retain(|link| link.conn.is_some());
        self.active = 0;
        if self.links.len() == before {
            return;
        }
        self.forget_lost();
        if let Some(block) = &mut self.block {
            block.failed = true;
            block.lost = true;
        }
    }

    /// Links were taken out: a cancel is for those that are left.
    pub(super) fn forget_lost(&self) {
        let conns = self.links.iter().filter_map(|link| link.conn.as_ref());
        let keys: Vec<_> = conns.map(|conn| &conn.key).collect();
        self.cancel.retain(&keys);
    }
}

/// Why not all hosts are prepared, and which are.
struct NotPrepared {
    prepared: Vec<usize>,
    answer: Answer,
}

/// A host was lost before the decision.
fn rolled_back(fault: Fault) -> Fault {
    let Fault::Server(fields) = fault else {
        return fault;
    };
    Fault::statement(
        ErrorFields::error(
            SqlState::TRANSACTION_ROLLBACK,
            format!(
                "the transaction is rolled back on all hosts: {}",
                fields.message
            ),
        )
        .detail("The host was lost before the transaction was committed anywhere.")
        .hint("Run the transaction again."),
    )
}

/// The decision host was lost while it decided.
fn undecided(fault: Fault) -> Fault {
    let Fault::Server(fields) = fault else {
        return fault;
    };
    Fault::statement(
        ErrorFields::error(SqlState::TRANSACTION_RESOLUTION_UNKNOWN, fields.message)
            .detail("The connection was lost during COMMIT: whether the transaction is committed is not known. It is so on all its hosts or on none, as will show when this one is back.")
            .hint("SHOW TRANSACTIONS in the database \"presplit\" lists what is not settled yet."),
    )
}
