//! `SET TRANSACTION` and the options of `BEGIN`: in time or too late, on one host or on all.

use super::*;

impl Session {
    /// The open block has these options from now on.
    pub(in crate::session) async fn set_options(
        &mut self,
        options: &BeginOptions,
        text: &str,
        command: &str,
    ) -> Result<Acted, Fault> {
        self.check_in_time(options)?;
        if options.one_snapshot() && self.links.len() > 1 {
            return Err(Fault::unsupported(
                "this transaction is on several hosts already: they cannot share one snapshot",
                "Say the isolation level in BEGIN.",
            ));
        }
        let in_savepoint = self
            .block
            .as_ref()
            .is_some_and(|b| !b.savepoints.is_empty());
        if in_savepoint && self.links.is_empty() && *options != BeginOptions::default() {
            // Some may no longer be said: Postgres knows which.
            self.link(Need::plain(self.any_host())).await?;
        }
        let several = self.block.as_ref().is_some_and(|b| b.writers.are_several());
        if options.read_only == Some(true) && several {
            return Err(Fault::unsupported(
                "a transaction that has written on several hosts cannot become READ ONLY: its commit writes a row",
                "Leave it out, or COMMIT first.",
            ));
        }
        let acted = match *options == BeginOptions::default() {
            true => tag(command),
            false => self.run_on_all(text, command).await?,
        };
        if let Some(block) = &mut self.block
            && !block.failed
            && *options != BeginOptions::default()
        {
            block.options = block.options.and_then(options);
            match block.savepoints.is_empty() {
                true => block.begin = block.options,
                // A rollback to a savepoint undoes it on hosts enlisted later, too.
                false => block.push_set(text.to_owned()),
            }
        }
        Ok(acted)
    }

    /// To Postgres the transaction has a snapshot from here on.
    pub(in crate::session) fn note_snapshot(&mut self) {
        match &mut self.block {
            Some(block) => block.snapshot = true,
            None => self.batch.parsed = true,
        }
    }

    /// [`Session::check_in_time`] outside of a block, where SET TRANSACTION is warned of first.
    pub(in crate::session) async fn check_implicit_in_time(
        &mut self,
        options: &BeginOptions,
    ) -> Result<(), Fault> {
        let Err(late) = self.check_in_time(options) else {
            return Ok(());
        };
        self.warn_of_no_block("SET TRANSACTION").await?;
        Err(late)
    }

    /// What a transaction may no longer be told once it has a snapshot (variable.c). That it is what it is may be said again.
    pub(in crate::session) fn check_in_time(&self, options: &BeginOptions) -> Result<(), Fault> {
        let (late, inside, now) = match &self.block {
            Some(block) => (block.snapshot, !block.savepoints.is_empty(), block.options),
            None => (
                self.batch.parsed,
                false,
                with_defaults(self.batch.options, self.settings_at_begin()),
            ),
        };
        let level = now.isolation.unwrap_or(Isolation::ReadCommitted);
        let level_changes = options.isolation.is_some_and(|other| other != level);
        let opens = options.read_only == Some(false) && now.read_only == Some(true);
        let what = if level_changes && late {
            "SET TRANSACTION ISOLATION LEVEL must be called before any query"
        } else if level_changes && inside && !self.links.is_empty() {
            // It is refused either way, and by which a server knows: not every snapshot is noted here.
            return Ok(());
        } else if level_changes && inside {
            "SET TRANSACTION ISOLATION LEVEL must not be called in a subtransaction"
        } else if opens && inside {
            "cannot set transaction read-write mode inside a read-only transaction"
        } else if opens && late {
            "transaction read-write mode must be set before any query"
        } else if options.deferrable.is_some() && inside {
            "SET TRANSACTION [NOT] DEFERRABLE cannot be called within a subtransaction"
        } else if options.deferrable.is_some() && late {
            "SET TRANSACTION [NOT] DEFERRABLE must be called before any query"
        } else {
            return Ok(());
        };
        Err(Fault::statement(ErrorFields::error(
            SqlState::ACTIVE_TRANSACTION,
            what,
        )))
    }
}
