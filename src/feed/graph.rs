//! Who follows whom: changes of edges in the order that keeps feeds right, and what is asked about them, from Postgres alone.
//!
//! A change is committed on its source's shard (`follow_out`, with an outbox row) and then *settled*: the mirror on the target's
//! shard, the cut of the other direction when it is a block, the reader's list dropped. What can't be settled now is settled by a
//! worker, from the outbox row.

use futures_util::{StreamExt, stream};

use super::UserId;
use super::db::{Db, Fault, value};
use super::edges::{self, Heed, Turned};
use super::slow::waiting;
use super::store::Store;

/// The most targets of one [`follow_all`].
pub const FOLLOW_ALL_MOST: usize = 1000;
/// The most others of one [`relations`].
pub const RELATIONS_MOST: usize = 500;
/// The most edges of a page.
pub const EDGES_MOST: usize = 1000;
/// Mirrors written side by side by one call.
const SIDE_BY_SIDE: usize = 8;

/// What an edge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Source sees target's posts.
    Following,
    /// Source would like to; target is private.
    Requested,
    /// Source does not want to see target, nor to be seen.
    Blocking,
    /// There is none, or none any more.
    Gone,
}

impl Status {
    /// As the tables have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Following => "following",
            Status::Requested => "requested",
            Status::Blocking => "blocking",
            Status::Gone => "gone",
        }
    }

    /// Of the tables' word.
    ///
    /// # Errors
    /// It is none of them.
    pub fn read(word: &str) -> Result<Status, Fault> {
        [
            Status::Following,
            Status::Requested,
            Status::Blocking,
            Status::Gone,
        ]
        .into_iter()
        .find(|s| s.as_str() == word)
        .ok_or_else(|| Fault::Wrong(format!("an edge's status can't be {word:?}")))
    }
}

/// What became of a call that changes an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is so now, on both sides.
    Now(Status),
    /// It is committed and holds on the source's next read; the other side will follow (202).
    ToCome(Status),
    /// One of both blocks the other: nothing was changed.
    Blocked,
    /// What the call wants to change is not there (no request to accept, nobody to mute): nothing was changed.
    Nothing,
}

/// `source` follows `target` from now on, or asks to if target is private. Repeating it changes nothing.
///
/// # Errors
/// Any [`Fault`]; it may be repeated.
pub async fn follow(
    db: &Db,
    store: &dyn Store,
    source: UserId,
    target: UserId,
) -> Result<Outcome, Fault> {
    let outcome = follow_all(db, store, source, &[target])
        .await?
        .into_iter()
        .next();
    Ok(outcome.map_or(Outcome::Nothing, |(_, outcome)| outcome))
}

/// [`follow`] of up to [`FOLLOW_ALL_MOST`] targets: what became of each, in order of their ids, each once. Nobody can follow himself.
///
/// # Errors
/// Any [`Fault`]; it may be repeated. More than [`FOLLOW_ALL_MOST`] are wrong.
pub async fn follow_all(
    db: &Db,
    store: &dyn Store,
    source: UserId,
    targets: &[UserId],
) -> Result<Vec<(UserId, Outcome)>, Fault> {
    if targets.len() > FOLLOW_ALL_MOST {
        return Err(Fault::Wrong(format!(
            "more than {FOLLOW_ALL_MOST} to follow at once"
        )));
    }
    let mut targets = targets.to_vec();
    targets.sort_unstable();
    targets.dedup();
    targets.retain(|t| *t != source);
    let private: Vec<UserId> = edges::private(db, &targets).await?;
    let want: Vec<(UserId, Status)> = targets
        .iter()
        .map(|t| {
            (
                *t,
                if private.binary_search(t).is_ok() {
                    Status::Requested
                } else {
                    Status::Following
                },
            )
        })
        .collect();
    // A request becomes more when target is not private any more, and stays one when it is.
    let (open, asked): (Vec<_>, Vec<_>) =
        want.into_iter().partition(|(_, s)| *s == Status::Following);
    let mut turned = edges::turn(db, source, &open, edges::FROM_FOLLOW, Heed::Blocks).await?;
    turned.extend(edges::turn(db, source, &asked, edges::FROM_ASK, Heed::Blocks).await?);
    turned.sort_unstable_by_key(|t| t.target);
    finish(db, store, source, &turned).await
}

/// `source` does not follow `target` any more, nor asks to. Holds on the next read.
///
/// # Errors
/// Any [`Fault`]; it may be repeated.
pub async fn unfollow(
    db: &Db,
    store: &dyn Store,
    source: UserId,
    target: UserId,
) -> Result<Outcome, Fault> {
    one(
        db,
        store,
        source,
        target,
        Status::Gone,
        edges::FROM_UNFOLLOW,
    )
    .await
}

/// `target` lets `source` follow, who has asked to.
///
/// # Errors
/// Any [`Fault`]; it may be repeated.
pub async fn accept(
    db: &Db,
    store: &dyn Store,
    target: UserId,
    source: UserId,
) -> Result<Outcome, Fault> {
    one(
        db,
        store,
        source,
        target,
        Status::Following,
        edges::FROM_REQUEST,
    )
    .await
}

/// `target` does not let `source` follow, who has asked to.
///
/// # Errors
/// Any [`Fault`]; it may be repeated.
pub async fn decline(
    db: &Db,
    store: &dyn Store,
    target: UserId,
    source: UserId,
) -> Result<Outcome, Fault> {
    one(db, store, source, target, Status::Gone, edges::FROM_REQUEST).await
}

/// `source` blocks `target`: neither follows the other any more, nor can.
///
/// # Errors
/// Any [`Fault`]; it may be repeated.
pub async fn block(
    db: &Db,
    store: &dyn Store,
    source: UserId,
    target: UserId,
) -> Result<Outcome, Fault> {
    one(
        db,
        store,
        source,
        target,
        Status::Blocking,
        edges::FROM_BLOCK,
    )
    .await
}

/// `source` does not block `target` any more. What was before does not come back.
///
/// # Errors
/// Any [`Fault`]; it may be repeated.
pub async fn unblock(
    db: &Db,
    store: &dyn Store,
    source: UserId,
    target: UserId,
) -> Result<Outcome, Fault> {
    one(db, store, source, target, Status::Gone, edges::FROM_UNBLOCK).await
}

/// `source` goes on following `target` without seeing the posts, or sees them again. Holds on the next read.
///
/// # Errors
/// Any [`Fault`]; it may be repeated.
pub async fn mute(db: &Db, source: UserId, target: UserId, muted: bool) -> Result<Outcome, Fault> {
    edges::mute(db, source, target, muted).await
}

/// Whether who wants to follow `user` has to ask. Requests that wait stay requests.
///
/// # Errors
/// Any [`Fault`]; it may be repeated.
pub async fn set_private(db: &Db, user: UserId, private: bool) -> Result<(), Fault> {
    const SQL: &str = "INSERT INTO user_state (user_id, private) VALUES ($1, $2) \
         ON CONFLICT (user_id) DO UPDATE SET private = excluded.private, changed_at = now()";
    db.ask(SQL, &[&user, &private]).await.map(drop)
}

async fn one(
    db: &Db,
    store: &dyn Store,
    source: UserId,
    target: UserId,
    to: Status,
    from: &[&str],
) -> Result<Outcome, Fault> {
    let turned = edges::turn(db, source, &[(target, to)], from, Heed::Nothing).await?;
    let outcome = finish(db, store, source, &turned).await?.into_iter().next();
    Ok(outcome.map_or(Outcome::Nothing, |(_, outcome)| outcome))
}

/// Settles what was turned, and takes its outbox rows away. Those that are not settled keep theirs.
async fn finish(
    db: &Db,
    store: &dyn Store,
    source: UserId,
    turned: &[Turned],
) -> Result<Vec<(UserId, Outcome)>, Fault> {
    let mirrored: Vec<bool> = stream::iter(turned.iter().copied())
        .map(|t| async move {
            let Some(edge) = t.edge else { return true };
            let written = edges::mirror_and_cut(db, source, t.target, edge, t.cut).await;
            if let Err(fault) = &written {
                tracing::warn!(
                    "edge {source} -> {}: the other side is to come: {fault}",
                    t.target
                );
            }
            written.is_ok()
        })
        .buffered(SIDE_BY_SIDE)
        .collect()
        .await;
    let begins = |t: &Turned| t.edge.is_some_and(|e| e.status == Status::Following);
    let dropped = match turned.iter().any(begins) {
        true => {
            let _dropped = waiting("store", "drop_feeds");
            let dropped = store.drop_feeds(&[source]).await;
            dropped
                .inspect_err(|f| tracing::warn!("feed {source} is to be dropped: {f}"))
                .is_ok()
        }
        false => true,
    };
    let settled = |t: &Turned, mirrored: bool| mirrored && (dropped || !begins(t));
    let rows: Vec<i64> = turned
        .iter()
        .zip(&mirrored)
        .filter(|(t, m)| settled(t, **m))
        .filter_map(|(t, _)| t.outbox)
        .collect();
    // What stays is settled once more by a worker, for nothing.
    if let Err(fault) = edges::settled(db, source, &rows).await {
        tracing::debug!("outbox rows of {source} stay: {fault}");
    }
    Ok(turned
        .iter()
        .zip(mirrored)
        .map(|(t, mirrored)| {
            let outcome = match t.edge {
                Some(edge) if settled(t, mirrored) => Outcome::Now(edge.status),
                Some(edge) => Outcome::ToCome(edge.status),
                None if t.blocked => Outcome::Blocked,
                None => Outcome::Nothing,
            };
            (t.target, outcome)
        })
        .collect())
}

/// Whom a page of edges lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Those whom the user follows.
    Following,
    /// Those who follow the user.
    Followers,
    /// Those who ask to follow the user.
    Requests,
    /// Those whom the user blocks.
    Blocked,
}

/// One of the other users of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    /// Who.
    pub user: UserId,
    /// The user has muted them ([`Side::Following`] only).
    pub muted: bool,
}

/// A page of edges in the order of the others' ids, behind `after`.
///
/// # Errors
/// Any [`Fault`].
pub async fn others(
    db: &Db,
    user: UserId,
    side: Side,
    after: Option<UserId>,
    most: usize,
) -> Result<Vec<Other>, Fault> {
    let sql = match side {
        Side::Following => {
            "SELECT target, muted FROM follow_out WHERE user_id = $1 AND status = 'following' AND target > $2 ORDER BY target LIMIT $3"
        }
        Side::Blocked => {
            "SELECT target, false FROM follow_out WHERE user_id = $1 AND status = 'blocking' AND target > $2 ORDER BY target LIMIT $3"
        }
        Side::Followers => {
            "SELECT source, false FROM follow_in WHERE user_id = $1 AND status = 'following' AND source > $2 ORDER BY source LIMIT $3"
        }
        Side::Requests => {
            "SELECT source, false FROM follow_in WHERE user_id = $1 AND status = 'requested' AND source > $2 ORDER BY source LIMIT $3"
        }
    };
    let most = i64::try_from(most.min(EDGES_MOST)).unwrap_or(1);
    let after = after.unwrap_or(UserId::MIN);
    let rows = db.ask(sql, &[&user, &after, &most]).await?;
    rows.iter()
        .map(|row| {
            Ok(Other {
                user: value(row, 0)?,
                muted: value(row, 1)?,
            })
        })
        .collect()
}

/// How the user stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The other.
    pub other: UserId,
    /// The user's edge to the other.
    pub out: Status,
    /// The user has muted the other.
    pub muted: bool,
    /// The other's edge to the user.
    pub back: Status,
}

/// How `user` stands to each of these, in their order: do I follow X, does X follow me. One statement on the user's shard.
///
/// # Errors
/// Any [`Fault`]. More than [`RELATIONS_MOST`] are wrong.
pub async fn relations(db: &Db, user: UserId, others: &[UserId]) -> Result<Vec<Relation>, Fault> {
    if others.len() > RELATIONS_MOST {
        return Err(Fault::Wrong(format!(
            "more than {RELATIONS_MOST} relations at once"
        )));
    }
    const SQL: &str = "SELECT target, status, muted, true FROM follow_out WHERE user_id = $1 AND target = ANY ($2::bigint[]) \
         UNION ALL SELECT source, status, false, false FROM follow_in WHERE user_id = $1 AND source = ANY ($2::bigint[])";
    let mut found: std::collections::HashMap<UserId, Relation> = std::collections::HashMap::new();
    let none = |other| Relation {
        other,
        out: Status::Gone,
        muted: false,
        back: Status::Gone,
    };
    for row in db.ask(SQL, &[&user, &others]).await? {
        let (other, status) = (value(&row, 0)?, Status::read(value(&row, 1)?)?);
        let relation = found.entry(other).or_insert_with(|| none(other));
        if value(&row, 3)? {
            (relation.out, relation.muted) = (status, value(&row, 2)?);
        } else {
            relation.back = status;
        }
    }
    Ok(others
        .iter()
        .map(|o| found.get(o).copied().unwrap_or_else(|| none(*o)))
        .collect())
}

/// How many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Media that are not deleted.
    pub posts: i64,
    /// Who follow the user.
    pub followers: i64,
    /// Whom the user follows.
    pub following: i64,
}

/// The counts of these users, in their order.
///
/// # Errors
/// Any [`Fault`].
pub async fn counts(db: &Db, users: &[UserId]) -> Result<Vec<Counts>, Fault> {
    const SQL: &str = "SELECT user_id, name, sum(value)::bigint FROM counters WHERE user_id = ANY ($1::bigint[]) GROUP BY user_id, name";
    let mut found: std::collections::HashMap<UserId, Counts> = std::collections::HashMap::new();
    if !users.is_empty() {
        for row in db.ask(SQL, &[&users]).await? {
            let counts = found.entry(value(&row, 0)?).or_default();
            match value::<&str>(&row, 1)? {
                "posts" => counts.posts = value(&row, 2)?,
                "followers" => counts.followers = value(&row, 2)?,
                "following" => counts.following = value(&row, 2)?,
                _ => {}
            }
        }
    }
    Ok(users
        .iter()
        .map(|u| found.get(u).copied().unwrap_or_default())
        .collect())
}
