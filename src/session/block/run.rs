//! Statements that the session runs on the links that it has: for the client to see, or quietly.

use super::*;

impl Session {
    /// Runs a statement that concerns the block on every host enlisted; with none, the answer is our own.
    pub(in crate::session) async fn run_on_all(
        &mut self,
        text: &str,
        command: &str,
    ) -> Result<Acted, Fault> {
        if self.links.is_empty() {
            return Ok(tag(command));
        }
        if self.block.is_none() {
            self.run_on(self.active, text).await?;
            return Ok(Acted::Passed);
        }
        self.run_everywhere(self.active, text).await?;
        Ok(Acted::Passed)
    }

    /// Runs a statement on link `i`, for the client to see, and if it is right on the others. `false`: it was refused.
    pub(in crate::session) async fn run_everywhere(
        &mut self,
        i: usize,
        text: &str,
    ) -> Result<bool, Fault> {
        self.drain_replies().await?;
        if !self.run_on(i, text).await? {
            return Ok(false);
        }
        for other in 0..self.links.len() {
            if other != i {
                self.run_quietly(other, text).await?;
            }
        }
        Ok(true)
    }

    /// Runs one statement's text as it is on one link and passes its answer (or an error) on, without ReadyForQuery.
    /// `false`: the server refused it.
    pub(in crate::session) async fn run_on(&mut self, i: usize, text: &str) -> Result<bool, Fault> {
        self.run_with(i, text, Pass::On, &[]).await
    }

    /// [`Session::run_on`]; with [`Pass::Keep`] of the answer only an error is passed on; with statements of ours right
    /// behind it.
    pub(in crate::session) async fn run_with(
        &mut self,
        i: usize,
        text: &str,
        pass: Pass,
        behind: &[String],
    ) -> Result<bool, Fault> {
        if i != self.active {
            self.drain_replies().await?;
            self.active = i;
        }
        if self.batch.now == b'Q'
            && self.block.is_none()
            && self.links[i].unsynced
            && behind.is_empty()
        {
            return self.run_at_end(i, text, pass).await;
        }
        self.push_run(i, text, pass);
        self.push_ours(i, behind);
        Ok(!self.finish_aside(i).await?)
    }

    /// One statement's text for one link, to be run as it is; of its answer the client gets what `pass` says.
    pub(super) fn push_run(&mut self, i: usize, text: &str, pass: Pass) {
        self.overwrite_unnamed(i);
        let Link { outbox, conn, .. } = &mut self.links[i];
        let name = match (text, conn) {
            ("COMMIT", Some(conn)) => {
                if !std::mem::replace(&mut conn.commit_prepared, true) {
                    frontend::parse(outbox, COMMIT, b"COMMIT", std::iter::empty());
                    self.replies.push(Reply::One(Pass::Keep));
                }
                COMMIT
            }
            _ => {
                frontend::parse(outbox, b"", text.as_bytes(), std::iter::empty());
                self.replies.push(Reply::One(Pass::Keep));
                b""
            }
        };
        frontend::bind_renamed(outbox, b"", name, &[0; 6]);
        frontend::execute(outbox, b"", 0);
        self.replies.push(Reply::One(Pass::Keep));
        self.replies.push(Reply::Execute(pass));
    }

    /// [`Session::run_with`] of a Query that ends the batch before it: as in Postgres the transaction is committed, which may fail,
    /// before its CommandComplete.
    pub(super) async fn run_at_end(
        &mut self,
        i: usize,
        text: &str,
        pass: Pass,
    ) -> Result<bool, Fault> {
        frontend::query(&mut self.links[i].outbox, text.as_bytes());
        self.replies.push(match pass {
            Pass::On => Reply::Part,
            Pass::Keep => Reply::Query(Pass::Keep),
        });
        self.client.hold_for_caller();
        let error = self.relay().await?;
        if error {
            self.batch.refused();
        }
        self.links[i].unsynced = false;
        Ok(!error)
    }

    /// Runs a statement on a link without a word to the client. An error makes the block fail.
    pub(in crate::session) async fn run_quietly(
        &mut self,
        i: usize,
        text: &str,
    ) -> Result<(), Fault> {
        let before = self.active;
        self.active = i;
        // What was set is undone, though no error says so.
        self.links[i].refused |= text.starts_with("ROLLBACK");
        frontend::query(&mut self.links[i].outbox, text.as_bytes());
        self.replies.push(Reply::Query(Pass::Keep));
        match self.relay().await {
            Ok(_) => {
                self.active = before;
                Ok(())
            }
            Err(fault) => {
                // Its answer never comes, and nobody may wait for it. It is this link that is lost.
                self.replies.clear();
                Err(fault)
            }
        }
    }
}
