//! `SAVEPOINT`, `RELEASE` and `ROLLBACK TO` on all hosts of a block, and what a rollback to one brings back.

use super::*;

impl Session {
    /// `SAVEPOINT`, on all hosts enlisted.
    pub(in crate::session) async fn savepoint(
        &mut self,
        name: &str,
        text: &str,
    ) -> Result<Acted, Fault> {
        match self.client_block() {
            None => return Err(outside("SAVEPOINT")),
            Some(block) if block.failed => return Err(aborted()),
            Some(_) => {}
        }
        let acted = self.run_on_all(text, "SAVEPOINT").await?;
        let (settings, hint) = (self.settings.clone(), self.hint.clone());
        let told = self.told_so_far();
        if let Some(block) = &mut self.block
            && !block.failed
        {
            block.replay.push(Replayed::Savepoint(name.to_owned()));
            let (replay, local_hint, locals) = (
                block.replay.len(),
                block.local_hint.clone(),
                block.locals.clone(),
            );
            block.savepoints.push(Savepoint {
                name: name.to_owned(),
                settings,
                hint,
                told,
                local_hint,
                locals,
                options: block.options,
                replay,
                portals: self.statements.portals.mark(),
            });
            self.note_told();
        }
        Ok(acted)
    }

    /// `RELEASE`, on all hosts enlisted.
    pub(in crate::session) async fn release(
        &mut self,
        name: &str,
        text: &str,
    ) -> Result<Acted, Fault> {
        let Some(block) = self.client_block() else {
            return Err(outside("RELEASE SAVEPOINT"));
        };
        if block.failed {
            return Err(aborted());
        }
        let Some(at) = block.savepoint(name) else {
            return Err(no_savepoint(name));
        };
        let acted = self.run_on_all(text, "RELEASE").await?;
        if let Some(block) = &mut self.block {
            // What was set since stays set, so it stays in the replay; only the savepoints themselves go.
            let gone: Vec<String> = block.savepoints.drain(at..).map(|s| s.name).collect();
            for name in gone.iter().rev() {
                let last = block
                    .replay
                    .iter()
                    .rposition(|r| matches!(r, Replayed::Savepoint(n) if n == name));
                last.map(|i| block.replay.remove(i));
            }
        }
        self.note_told();
        Ok(acted)
    }

    /// `ROLLBACK TO`, on all hosts enlisted.
    pub(in crate::session) async fn rollback_to(
        &mut self,
        name: &str,
        text: &str,
    ) -> Result<Acted, Fault> {
        let Some(block) = self.client_block() else {
            return Err(outside("ROLLBACK TO SAVEPOINT"));
        };
        let Some(at) = block.savepoint(name) else {
            return Err(no_savepoint(name));
        };
        if block.lost {
            return Err(aborted());
        }
        let acted = self.run_on_all(text, "ROLLBACK").await?;
        let now = self.settings.clone();
        let Some(block) = &mut self.block else {
            return Ok(acted);
        };
        let savepoint = &block.savepoints[at];
        let (settings, hint) = (savepoint.settings.clone(), savepoint.hint.clone());
        let replay = savepoint.replay;
        let has_set = block.has_sets();
        self.statements.portals.back_to(savepoint.portals);
        block.local_hint = savepoint.local_hint.clone();
        block.options = savepoint.options;
        let locals = std::mem::replace(&mut block.locals, savepoint.locals.clone());
        block.replay.truncate(replay);
        block.savepoints.truncate(at + 1);
        block.writers.rolled_back_to(at);
        block.failed = false;
        block.let_go = false;
        if !matches!(block.tables, BlockTables::Same) {
            block.tables = BlockTables::Changed;
        }
        // What was set when on which connection, and what of it is undone, is not worked out: all of it is set anew.
        for link in &mut self.links {
            if let Some(conn) = link.conn.as_mut()
                && (has_set || conn.has_uncommitted())
            {
                let all = [conn.settings(), &now, &settings, &locals].map(|s| {
                    s.iter()
                        .map(|(name, _)| name.to_owned())
                        .collect::<Vec<_>>()
                });
                conn.doubt(all.concat());
                conn.doubt(["search_path".to_owned()]);
            }
        }
        self.settings = settings;
        self.hint = hint;
        self.note_told();
        self.batch.has_set = true;
        Ok(acted)
    }
}

fn no_savepoint(name: &str) -> Fault {
    Fault::statement(ErrorFields::error(
        SqlState::INVALID_SAVEPOINT,
        format!("savepoint \"{name}\" does not exist"),
    ))
}
