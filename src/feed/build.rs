//! An absent feed is built in the request that reads it: the store begins the feed, so that pushes reach it, then Postgres is read,
//! then both are merged. A post that is committed after the read of Postgres is pushed after the beginning: none is lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Mutex as Turn;

use super::page::{Window, horizon};
use super::read::{List, ReadFault, Reader, StoreState};
use super::slow::waiting;
use super::store::Span;
use super::{FEED_MOST, MediaId, UserId};

/// Whose feeds are being built in this process: one build of a feed at once.
#[derive(Debug, Default)]
pub(super) struct Builds {
    turns: Mutex<HashMap<UserId, Arc<Turn<()>>>>,
}

/// A user's place among those who build its feed; the last one to leave clears it away.
struct Place<'a> {
    builds: &'a Builds,
    user: UserId,
    turn: Arc<Turn<()>>,
}

impl Builds {
    fn place(&self, user: UserId) -> Place<'_> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Place {
            builds: self,
            user,
            turn: turns.entry(user).or_default().clone(),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut turns = self
            .builds
            .turns
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Ours and the map's: places are only taken under this lock.
        if Arc::strong_count(&self.turn) <= 2 {
            turns.remove(&self.user);
        }
    }
}

impl Reader {
    /// The feed of a user whose feed was absent. `None`: the store could not be asked.
    pub(super) async fn build(
        &self,
        user: UserId,
        span: Span,
        most: usize,
        store: &mut StoreState,
    ) -> Result<Option<List>, ReadFault> {
        let _built = waiting("build", "the feed that the store does not have");
        let place = self.builds.place(user);
        let _turn = place.turn.lock().await;
        // Whoever had the turn before us may have built it.
        match self
            .ask(store, "read", self.store.read(user, span, most))
            .await
        {
            None => return Ok(None),
            Some(Some(ids)) => return Ok(Some(List::Store(Some(ids)))),
            Some(None) => {}
        }
        let began = Instant::now();
        let Some(building) = self.ask(store, "begin", self.store.begin(user)).await else {
            return Ok(None);
        };
        let ids = match self.newest_of_followees(user).await {
            Ok(ids) => ids,
            Err(fault) => {
                self.metrics.build("failed", began.elapsed());
                return Err(fault);
            }
        };
        let completed = self.store.complete(user, &building, &ids);
        let outcome = match self.ask(store, "complete", completed).await {
            Some(true) => "complete",
            // It was dropped, or another process builds it too. What we have read is as new as this request.
            Some(false) => "superseded",
            None => "failed",
        };
        self.metrics.build(outcome, began.elapsed());
        Ok(Some(List::Built(ids)))
    }

    /// What a feed is made of: the newest ids of all followees and of the user itself, newest first. Muted ones too, as they are
    /// pushed as well.
    async fn newest_of_followees(&self, user: UserId) -> Result<Vec<MediaId>, ReadFault> {
        let mut authors = self.followees(user).await?;
        authors.push(user);
        let window = Window::all(Span::Newest, horizon());
        self.ids_of(&authors, &window, FEED_MOST).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_is_cleared_away_by_the_last_who_leaves() {
        let builds = Builds::default();
        let (first, second) = (builds.place(1), builds.place(1));
        let turn = first.turn.lock().await;
        assert!(second.turn.try_lock().is_err());
        drop(turn);
        drop(first);
        assert_eq!(builds.turns.lock().unwrap().len(), 1);
        drop(second);
        assert!(builds.turns.lock().unwrap().is_empty());
    }
}
