//! A block that has failed on one host lets go of its locks on the others, too: on one Postgres they are all free with the
//! error, whenever the client says ROLLBACK.

use super::Session;
use super::block::quoted;

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

    /// What the block has done there is undone, as it is where the error was: back to the last savepoint, or to the
    /// beginning. All that the client can do next goes back at least as far.
    pub(super) async fn let_go(&mut self) {
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
            .filter(|i| self.links[*i].conn.is_some() && self.links[*i].status == b'T');
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
