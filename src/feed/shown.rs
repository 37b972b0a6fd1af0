//! What the reader's own shard says at the time of a read: whom it follows now, which of them are stars, which media are its own.

use std::collections::HashSet;

use super::db::{column, value};
use super::page::Window;
use super::read::{ReadFault, Reader};
use super::stars::Star;
use super::{MediaId, UserId};

/// The answer to one statement on the reader's shard.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Those of the authors asked for that are followed and not muted.
    pub(super) follows: HashSet<UserId>,
    /// All followees, not muted, that are stars.
    pub(super) stars: Vec<(UserId, Star)>,
    /// The reader's own media within the window, one more than asked for if there are.
    pub(super) own: Vec<MediaId>,
}

const FOLLOWS: i32 = 0;
const STAR: i32 = 1;
const OWN: i32 = 2;

impl Reader {
    /// One statement, so one moment and one way to the reader's shard.
    pub(super) async fn shown(
        &self,
        reader: UserId,
        authors: &[UserId],
        window: &Window,
        most: usize,
    ) -> Result<Shown, ReadFault> {
        let text = format!(
            "SELECT {FOLLOWS} AS what, f.target AS id, 0::bigint AS pull_from, NULL::bigint AS pull_to FROM follow_out f \
             WHERE f.user_id = $1 AND f.target = ANY($2) AND f.status = 'following' AND NOT f.muted \
             UNION ALL \
             SELECT {STAR}, f.target, s.pull_from, s.pull_to FROM follow_out f JOIN stars s ON s.author = f.target \
             WHERE f.user_id = $1 AND f.status = 'following' AND NOT f.muted \
             UNION ALL \
             (SELECT {OWN}, m.id, 0, NULL FROM media m \
             WHERE m.user_id = $1 AND m.id >= $3 AND m.id < $4 AND m.deleted_at IS NULL ORDER BY m.id {} LIMIT $5)",
            window.order()
        );
        let limit = most as i64 + 1;
        let rows = self
            .db
            .ask(
                &text,
                &[&reader, &authors, &window.low, &window.high, &limit],
            )
            .await?;
        let mut shown = Shown::default();
        for row in &rows {
            let id: i64 = value(row, 1)?;
            match value(row, 0)? {
                FOLLOWS => drop(shown.follows.insert(id)),
                STAR => {
                    let (pull_from, pull_to) = (value(row, 2)?, value(row, 3)?);
                    shown.stars.push((id, Star { pull_from, pull_to }));
                }
                _ => shown.own.push(id),
            }
        }
        Ok(shown)
    }

    /// All whom the reader follows, muted or not: what a feed is built of.
    pub(super) async fn followees(&self, reader: UserId) -> Result<Vec<UserId>, ReadFault> {
        let text = "SELECT target FROM follow_out WHERE user_id = $1 AND status = 'following'";
        self.users(text, reader).await
    }

    /// All whom the reader follows and has not muted.
    pub(super) async fn shown_followees(&self, reader: UserId) -> Result<Vec<UserId>, ReadFault> {
        let text = "SELECT target FROM follow_out WHERE user_id = $1 AND status = 'following' AND NOT muted";
        self.users(text, reader).await
    }

    async fn users(&self, text: &str, user: UserId) -> Result<Vec<UserId>, ReadFault> {
        Ok(column(&self.db.ask(text, &[&user]).await?)?)
    }
}
