//! A block that has failed on one host lets go of its locks on the others, too: on one Postgres they are all free with the
//! error, whenever the client says ROLLBACK.

use super::Session;
use super::block::{aborted, quoted};
use super::errors::Fault;

impl Session {
    /// Whether a failed block still holds locks on hosts where nothing has failed, and they can be let go now.
    pub(super) fn holds_on(&self) -> bool {
        self.block.as_ref().is_some_and(|b| b.failed && !b.let_go)
            && !self.batch.skipping()
            && self.links.iter().any(|link| link.status == b'T')
    }

    /// With one host that is done before the client hears of the failure, as by Postgres itself; several are not waited for.
    pub(super) async fn let_go_of_one(&mut self) {
        if self.links.len() == 1 && self.holds_on() {
            Box::pin(self.let_go()).await;
        }
    }

    /// Lets go of the hosts that know of the failure, too: in another transaction they answer what they would not in a failed one.
    /// None of their portals is left.
    pub(super) async fn let_go_of_failed(&mut self) -> Result<(), Fault> {
        self.settle_replies().await?;
        let let_go = self.block.as_ref().is_some_and(|block| block.let_go);
        if !let_go || self.links.iter().any(|link| link.status == b'E') {
            Box::pin(self.let_go_where(b"TE")).await;
            for link in &mut self.links {
                link.doubt_settings();
            }
        }
        match self.block.as_ref().is_some_and(|block| block.lost) {
            true => Err(aborted()),
            false => Ok(()),
        }
    }

    pub(super) async fn let_go(&mut self) {
        self.let_go_where(b"T").await;
    }

    /// What the block has done there is undone, as it is where the error was: back to the last savepoint, or to the
    /// beginning. All that the client can do next goes back at least as far.
    async fn let_go_where(&mut self, status: &[u8]) {
        let Some(block) = &mut self.block else { return };
        block.let_go = true;
        let undo = match block.savepoints.last() {
            Some(savepoint) => format!("ROLLBACK TO SAVEPOINT {}", quoted(&savepoint.name)),
            None => "ROLLBACK AND CHAIN".to_owned(),
        };
        for i in 0..self.links.len() {
            // The end of a COPY is not followed by a Sync on a host that got none of the rows.
            if self.links[i].unsynced && self.sync_link(i).await.is_err() {
                self.replies.clear();
                self.links[i].discard();
            }
        }
        let open = (0..self.links.len())
            .filter(|i| self.links[*i].conn.is_some() && status.contains(&self.links[*i].status));
        let asks = open.map(|i| (i, undo.clone())).collect();
        let limit = self.map.proxy.timeouts.cross_host_step;
        self.query_links(asks, Some(limit)).await;
        if self.links.iter().any(|link| link.conn.is_none()) {
            self.drop_lost();
            if let Some(block) = &mut self.block {
                block.lost = true;
            }
        }
    }
}
