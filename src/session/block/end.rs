//! `COMMIT` and `ROLLBACK` of a block, on the hosts that it is on, and what becomes of the session with it.

use super::*;
use crate::session::commit::Ended;

impl Session {
    /// `COMMIT`, `END`, `ROLLBACK`, `ABORT`.
    pub(in crate::session) async fn end(
        &mut self,
        commit: bool,
        chain: bool,
        text: &str,
    ) -> Result<Acted, Fault> {
        let command = if commit { "COMMIT" } else { "ROLLBACK" };
        if self.block.is_none() && self.links.iter().filter(|l| l.unsynced).count() > 1 {
            // What the batch has done on several hosts ends on all of them alike.
            self.settle_replies().await?;
            self.batch_becomes_block().await?;
        }
        let Some(block) = &self.block else {
            if chain {
                return Err(outside(&format!("{command} AND CHAIN")));
            }
            self.statements.portals.clear();
            self.batch.parsed = false;
            // It ends the implicit transaction of the batch, which is on one host.
            if let Some(i) = self.links.iter().position(|l| l.unsynced) {
                // Before its ReadyForQuery says that all went well.
                self.links[i].refused |= !commit;
                let done = self.run_on(i, text).await?;
                if let Some(link) = self.links.get_mut(i) {
                    link.transaction_over(commit && done);
                }
                self.end_implicit(commit && done);
                return Ok(Acted::Passed);
            }
            // What was set in front of it in the same message.
            self.end_implicit(commit);
            let mut out = Vec::new();
            self.warn(no_transaction(), &mut out);
            backend::command_complete(&mut out, command);
            return Ok(Acted::Answered(out));
        };
        let commit = commit && !block.failed;
        if block.owner == Owner::Message {
            if chain {
                return Err(outside(&format!("{command} AND CHAIN")));
            }
            // As after a COMMIT outside of a block: what there is of an implicit transaction ends.
            let mut out = Vec::new();
            self.warn(no_transaction(), &mut out);
            self.client.outbox.append(&mut out);
        }
        let Some(block) = &self.block else {
            return Ok(tag(command));
        };
        let changed = block.has_changed_tables();
        let chained = self.chained_options(commit);
        if self.links.is_empty() {
            self.close_block(commit);
            if chain {
                self.open_chained(chained);
            }
            return Ok(tag(if commit { "COMMIT" } else { "ROLLBACK" }));
        }
        let verb = if commit { "COMMIT" } else { "ROLLBACK" };
        if commit && block.writers.are_several() {
            return Box::pin(self.end_several(chain)).await;
        }
        // The writing host first: the others have nothing to lose.
        let writer = block.writers.first();
        let first = self
            .links
            .iter()
            .position(|l| Some(l.host) == writer)
            .unwrap_or(0);
        self.drain_replies().await?;
        self.active = first;
        let committed = match self.run_on(first, verb).await {
            Ok(done) => done,
            Err(fault) => {
                self.lost_at_end(commit);
                return Err(commit_unknown(fault, commit));
            }
        };
        let others: Vec<_> = (0..self.links.len()).filter(|i| *i != first).collect();
        for i in others {
            // They have read only: whatever becomes of them changes nothing that the client was told.
            if self
                .run_quietly(i, if committed { verb } else { "ROLLBACK" })
                .await
                .is_err()
            {
                self.links[i].discard();
            }
        }
        self.links.retain(|l| l.conn.is_some());
        self.close_block(commit && committed);
        if changed && commit && committed {
            // Before the client hears of it: its next statement may name what was made.
            self.context.refresh.renew().await;
        }
        self.release_links().await;
        if chain && committed {
            self.open_chained(chained);
        }
        Ok(Acted::Passed)
    }

    /// COMMIT of a block that has written on several hosts.
    async fn end_several(&mut self, chain: bool) -> Result<Acted, Fault> {
        self.drain_replies().await?;
        let Some(block) = &self.block else {
            return Ok(tag("COMMIT"));
        };
        let changed = block.has_changed_tables();
        let chained = self.chained_options(true);
        self.client.hold_for_caller();
        let ended = self.commit_all().await;
        let committed = matches!(ended, Ok(Ended::Committed));
        self.close_block(committed);
        self.release_links().await;
        self.renew_tables(changed, &ended).await;
        ended?;
        if !committed {
            self.batch.refused();
            return Ok(Acted::Passed);
        }
        if chain {
            self.open_chained(chained);
        }
        Ok(tag("COMMIT"))
    }

    /// The connection was lost while the block ended: nothing of the block is left.
    pub(super) fn lost_at_end(&mut self, commit: bool) {
        self.drop_active();
        for link in &mut self.links {
            link.discard();
        }
        self.links.clear();
        self.close_block(commit);
    }

    /// The block is over.
    pub(in crate::session) fn close_block(&mut self, committed: bool) {
        let Some(block) = self.block.take() else {
            return;
        };
        for link in &mut self.links {
            link.transaction_over(committed);
        }
        if committed && block.has_changed_tables() {
            self.context.refresh.renew_soon();
        }
        if committed {
            // The client may have been told of what held in the block only.
            self.batch.has_set |= !block.locals.is_empty();
            self.gather_news();
        } else {
            self.client.back_to(&block.before.told);
            self.settings = block.before.settings;
            self.hint = block.before.hint;
            self.batch.has_set = false;
        }
        self.note_told();
        self.batch.writer = None;
        self.batch.parsed = false;
        self.statements.portals.clear();
    }
}

/// A connection lost during COMMIT: it may have been carried out.
pub(in crate::session) fn commit_unknown(fault: Fault, commit: bool) -> Fault {
    match fault {
        Fault::Server(fields) if commit => Fault::Statement(Box::new(
            ErrorFields { code: SqlState::TRANSACTION_RESOLUTION_UNKNOWN, ..*fields }
                .detail("The connection was lost during COMMIT: whether the transaction was committed is not known."),
        )),
        Fault::Server(fields) => Fault::Statement(fields),
        other => other,
    }
}

fn no_transaction() -> ErrorFields {
    ErrorFields::new(
        Severity::Warning,
        SqlState::NO_ACTIVE_TRANSACTION,
        "there is no transaction in progress",
    )
}
