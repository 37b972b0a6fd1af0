//! Brings server connections to the session's settings: in the same write as the statement that needs them, and in the
//! same transaction, so that the server answers them together.

use super::Session;
use super::errors::Fault;
use super::replies::{Replies, Reply};
use crate::pool::{ServerConn, Settings, takes_snapshot};
use crate::shardmap::ShardId;
use crate::wire::frontend::{self, Kind};

/// In which transaction settings are brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bring {
    /// In that of the statement: nothing more is written nor answered than without.
    Along,
    /// In one of their own: the statement can't be in one that something else began, or may end it.
    Before,
}

impl Session {
    /// Brings the link's connection to the session's settings, with the shard's search_path where names need it.
    pub(super) fn bring_settings(
        &mut self,
        i: usize,
        path: Option<ShardId>,
        bring: Bring,
    ) -> Result<(), Fault> {
        let link = &mut self.links[i];
        let with_path;
        let wanted = match path {
            None => &self.settings,
            Some(shard) => {
                let set = format!("SET search_path TO {}, public", self.map.schema(shard));
                with_path = self.settings.with("search_path", set);
                &with_path
            }
        };
        let block = self.block.as_ref();
        let Some(conn) = &mut link.conn else {
            return Err(Fault::lost(&link.pool.host, None));
        };
        let first = block.is_none() && !link.unsynced;
        // What the batch has set until its end.
        let late = Some(&self.batch.locals).filter(|locals| first && !locals.is_empty());
        if conn.unsure.is_empty() && conn.settings.same(wanted) && late.is_none() {
            return Ok(());
        }
        let mut sets = conn.settings.difference(wanted, &conn.unsure);
        if first && (bring == Bring::Before || for_the_next(&sets)) {
            push_settings(&mut link.outbox, &mut self.replies, conn, wanted);
            link.begins_here();
            sets = Vec::new();
        } else if let Some(block) = block {
            // SET beats an earlier SET LOCAL, which must be in force again behind it.
            let changed = conn.settings.changed_names(wanted);
            let changed = changed
                .iter()
                .chain(&conn.unsure)
                .filter(|name| path.is_none() || *name != "search_path");
            for name in changed {
                let local = block.locals.get(name);
                sets.extend(local.iter().flat_map(|set| set.local_steps(name)));
            }
        }
        let late = late.iter().flat_map(|locals| locals.iter());
        sets.extend(late.flat_map(|(name, set)| set.local_steps(name)));
        if sets.is_empty() {
            return Ok(());
        }
        if let Some(conn) = &mut link.conn {
            conn.unsure.clear();
            conn.settings = wanted.clone();
        }
        link.settings_touched = true;
        let from = link.outbox.len();
        link.unsynced |= self.block.is_none();
        self.push_ours(i, &sets);
        let link = &mut self.links[i];
        link.brought = first.then_some((from, sets.len(), link.outbox.len()));
        Ok(())
    }

    /// Brings a newly enlisted link to the settings that were in force before the open block, which begins behind them.
    pub(super) fn bring_before_begin(&mut self, link: &mut super::ends::Link, plain_begin: bool) {
        let outside = self.settings_outside_block();
        let Some(conn) = &mut link.conn else { return };
        let sets = conn.settings.difference(&outside, &conn.unsure);
        let snapshot = sets.iter().any(|sql| takes_snapshot(sql));
        if for_the_next(&sets) || snapshot && !plain_begin {
            push_settings(&mut link.outbox, &mut self.replies, conn, &outside);
            link.begins_here();
            return;
        }
        for sql in &sets {
            push_step(&mut link.outbox, sql, b"");
            self.replies.push(Reply::Ours { closes: false });
        }
        conn.unsure.clear();
        conn.settings = outside;
    }

    /// The settings that would be in force if the open block were rolled back.
    fn settings_outside_block(&self) -> Settings {
        self.block
            .as_ref()
            .map_or_else(|| self.settings.clone(), |b| b.before.settings.clone())
    }
}

/// Whether one of them holds from the next transaction on.
fn for_the_next(sets: &[String]) -> bool {
    sets.iter().any(|sql| sql.contains("default_transaction_"))
}

/// One Query that brings a connection to `wanted`.
pub(super) fn push_settings(
    outbox: &mut Vec<u8>,
    replies: &mut Replies,
    conn: &mut ServerConn,
    wanted: &Settings,
) {
    let sets = conn.settings.difference(wanted, &conn.unsure);
    if !sets.is_empty() {
        frontend::query(outbox, sets.join(";").as_bytes());
        replies.push(Reply::Bring);
    }
    conn.unsure.clear();
    conn.settings = wanted.clone();
}

/// One statement of ours that is answered by [`Reply::Ours`].
pub(super) fn push_step(outbox: &mut Vec<u8>, sql: &str, portal: &[u8]) {
    frontend::parse(outbox, b"", sql.as_bytes(), std::iter::empty());
    frontend::bind_renamed(outbox, portal, b"", &[0; 6]);
    frontend::execute(outbox, portal, 0);
    if !portal.is_empty() {
        frontend::close(outbox, Kind::Portal, portal);
    }
}
