//! The newest media of many authors. Each shard is asked for those of its own authors: asked for authors of all shards at once, a
//! server takes each of them for one of its own, expects many more rows than there are, and walks through all its media to find them.

use std::collections::HashMap;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::{OnceCell, Semaphore};

use super::db::{Db, Fault, column, value};
use super::objects::{COLUMNS, Object};
use super::page::Window;
use super::read::{ReadFault, Reader};
use super::{MediaId, UserId};
use crate::shardmap::{Function, KeyValue, ShardId, id};

/// Shards that one page asks side by side.
const SIDE_BY_SIDE: usize = 8;
/// Such statements of all pages at once: the others' need connections, too.
const AT_ONCE: usize = 12;
/// So often it is asked again when media are deleted meanwhile.
const TRIES: usize = 5;
/// Users whose shards are asked for to see how users are placed.
const SAMPLES: u16 = 8;

/// How users are placed on shards, as far as can be seen from outside. The proxy routes each statement by the users that stand in it, so
/// that a wrong guess costs time and nothing else.
#[derive(Debug)]
pub(super) struct Placing {
    seen: OnceCell<Seen>,
    turns: Semaphore,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    One,
    By(Function, u32),
    Unknown,
}

impl Default for Placing {
    fn default() -> Placing {
        Placing {
            seen: OnceCell::new(),
            turns: Semaphore::new(AT_ONCE),
        }
    }
}

impl Placing {
    /// Users of one shard together; all together if it can't be seen where they are.
    pub(super) async fn groups(
        &self,
        db: &Db,
        users: &[UserId],
    ) -> Result<Vec<Vec<UserId>>, Fault> {
        Ok(groups(self.seen(db).await?, users))
    }

    async fn seen(&self, db: &Db) -> Result<Seen, Fault> {
        self.seen.get_or_try_init(|| look(db)).await.copied()
    }
}

/// Compares where some users are with where each function would have them.
async fn look(db: &Db) -> Result<Seen, Fault> {
    let shards = db.shards().await?;
    if shards == 1 {
        return Ok(Seen::One);
    }
    let mut left = vec![Function::Modulo, Function::Hash, Function::Embedded];
    for user in samples(shards) {
        match db.shard_of(user).await {
            Ok(shard) => left.retain(|f| place(*f, user, shards) == shard),
            // A user that the function has no shard for.
            Err(Fault::Wrong(_)) => left.clear(),
            Err(fault) => return Err(fault),
        }
    }
    Ok(match left[..] {
        [function] => Seen::By(function, shards),
        _ => Seen::Unknown,
    })
}

/// Ids, so that they have a shard under every function, whose remainders are not their shards.
fn samples(shards: u32) -> impl Iterator<Item = UserId> {
    (0..SAMPLES).filter_map(move |n| {
        id::make(id::Parts {
            unix_ms: id::EPOCH_MS + 1 + u64::from(n),
            shard: ShardId(u32::from(n) * 7 % shards),
            sequence: n * 37 + 5,
        })
    })
}

fn place(function: Function, user: UserId, shards: u32) -> Option<u32> {
    let shard = function.shard(&KeyValue::Int(user), shards);
    shard.ok().map(|shard| shard.0)
}

/// Authors of one shard together.
fn groups(seen: Seen, authors: &[UserId]) -> Vec<Vec<UserId>> {
    let mut groups: HashMap<Option<u32>, Vec<UserId>> = HashMap::new();
    for author in authors {
        let shard = match seen {
            Seen::By(function, shards) => place(function, *author, shards),
            Seen::One | Seen::Unknown => None,
        };
        groups.entry(shard).or_default().push(*author);
    }
    groups.into_values().collect()
}

impl Reader {
    /// The ids of these authors' media within a window, in its order and from its beginning, at most so many.
    pub(super) async fn ids_of(
        &self,
        authors: &[UserId],
        window: &Window,
        most: usize,
    ) -> Result<Vec<MediaId>, ReadFault> {
        // Sorted by what no index is sorted by: an author's media are found by the author, however few a server expects.
        let text = format!(
            "SELECT array_agg(id) FROM (SELECT id FROM media WHERE user_id = ANY($1) AND id >= $2 AND id < $3 AND deleted_at IS NULL \
             ORDER BY id + 0 {} LIMIT $4) AS m",
            window.order()
        );
        let limit = i64::try_from(most).unwrap_or(i64::MAX);
        let seen = self.placing.seen(&self.db).await?;
        if seen == Seen::Unknown {
            return self.ids_of_any(authors, window, limit).await;
        }
        let asked = groups(seen, authors).into_iter().map(|authors| {
            let text = &text;
            async move {
                let _turn = self.placing.turns.acquire().await;
                let rows = self
                    .db
                    .ask(text, &[&authors, &window.low, &window.high, &limit])
                    .await?;
                let ids = rows
                    .first()
                    .map(|row| value::<Option<Vec<MediaId>>>(row, 0));
                Ok::<_, Fault>(ids.transpose()?.flatten().unwrap_or_default())
            }
        });
        let asked = stream::iter(asked.collect::<Vec<_>>()).buffer_unordered(SIDE_BY_SIDE);
        let mut ids = match asked.try_concat().await {
            // They are of several shards after all.
            Err(Fault::Wrong(_)) => return self.ids_of_any(authors, window, limit).await,
            ids => ids?,
        };
        ids.sort_unstable_by(|a, b| match window.older {
            true => b.cmp(a),
            false => a.cmp(b),
        });
        ids.truncate(most);
        Ok(ids)
    }

    /// The same by one statement, wherever the authors are.
    async fn ids_of_any(
        &self,
        authors: &[UserId],
        window: &Window,
        limit: i64,
    ) -> Result<Vec<MediaId>, ReadFault> {
        // user_id is there for whoever reads the log of a host.
        let text = format!(
            "SELECT id, user_id FROM media WHERE user_id = ANY($1) AND id >= $2 AND id < $3 AND deleted_at IS NULL ORDER BY id {} LIMIT $4",
            window.order()
        );
        let rows = self
            .db
            .ask(&text, &[&authors, &window.low, &window.high, &limit])
            .await?;
        Ok(column(&rows)?)
    }

    /// The media of these authors within a window, in its order: one more than `most`, so that the caller knows of more.
    pub(super) async fn media_of(
        &self,
        authors: &[UserId],
        window: &Window,
        most: usize,
    ) -> Result<Vec<Object>, ReadFault> {
        if let [author] = authors {
            return self.media_of_one(*author, window, most).await;
        }
        for _ in 0..TRIES {
            let ids = self.ids_of(authors, window, most + 1).await?;
            if ids.is_empty() {
                return Ok(Vec::new());
            }
            let mut rows = self.rows_of(&ids).await?;
            // With fewer than there are the page would end too early.
            if ids.len() <= most || rows.len() == ids.len() {
                return Ok(ids.iter().filter_map(|id| rows.remove(id)).collect());
            }
        }
        Err(Fault::Retry("media are deleted all the time".to_owned()).into())
    }

    async fn media_of_one(
        &self,
        author: UserId,
        window: &Window,
        most: usize,
    ) -> Result<Vec<Object>, ReadFault> {
        let text = format!(
            "SELECT {COLUMNS} FROM media WHERE user_id = $1 AND id >= $2 AND id < $3 AND deleted_at IS NULL \
             ORDER BY id {} LIMIT $4",
            window.order()
        );
        let limit = most as i64 + 1;
        let rows = self
            .db
            .ask(&text, &[&author, &window.low, &window.high, &limit])
            .await?;
        Ok(Object::from_rows(&rows)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_tell_the_functions_apart() {
        for shards in [2, 3, 8, 64, 4096, 8192] {
            let of = |f| samples(shards).map(move |user| place(f, user, shards));
            let placed = [Function::Modulo, Function::Hash, Function::Embedded].map(|f| {
                assert!(of(f).all(|shard| shard.is_some()));
                of(f).collect::<Vec<_>>()
            });
            assert_eq!(placed[0].len(), usize::from(SAMPLES));
            for (a, b) in [(0, 1), (0, 2), (1, 2)] {
                assert_ne!(placed[a], placed[b], "{shards} shards");
            }
        }
    }

    #[test]
    fn authors_of_a_shard_are_asked_for_together() {
        let sizes = |seen, authors: &[UserId]| {
            let mut sizes: Vec<_> = groups(seen, authors).iter().map(Vec::len).collect();
            sizes.sort_unstable();
            sizes
        };
        let by = Seen::By(Function::Modulo, 4);
        assert_eq!(sizes(by, &[1, 5, 2, -3, 9]), [1, 4]);
        assert_eq!(sizes(Seen::One, &[1, 5, 2]), [3]);
        assert!(groups(by, &[]).is_empty());
    }
}
