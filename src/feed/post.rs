//! Post and delete: one statement on the author's shard each, which writes the media, what is to be done behind it, and the count.

use std::time::{Duration, SystemTime};

use super::db::{Db, Fault, value};
use super::outbox::{Kind, Task, Wake};
use super::slow::waiting;
use super::store::{Store, StoreFault};
use super::{MediaId, UserId};

/// A media that was posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// Its id.
    pub id: MediaId,
    /// This call made it; otherwise an earlier one of the same key did.
    pub fresh: bool,
    /// It was deleted since.
    pub deleted: bool,
}

const POST: &str = "\
WITH m AS (INSERT INTO media (user_id, body, idem_key) VALUES ($1, $2::text::jsonb, $3) \
           ON CONFLICT (user_id, idem_key) DO NOTHING RETURNING id), \
o AS (INSERT INTO outbox (user_id, kind, object, due_at, hook_at) \
      SELECT $1, 'post', m.id, now() + $4::float8 * interval '1 second', CASE WHEN $5::boolean THEN now() END FROM m RETURNING id, due_at), \
c AS (INSERT INTO counters (user_id, name, value) SELECT $1, 'posts', 1 FROM m \
      ON CONFLICT (user_id, name, slot) DO UPDATE SET value = counters.value + excluded.value) \
SELECT m.id, o.id, o.due_at FROM m, o";

/// Posts: when this returns, the media is durable, will reach every follower, and is in the author's own feed. The same `key` gives
/// the same media, posted once. `body` is JSON.
///
/// # Errors
/// Any [`Fault`]. With a key the call may be repeated; without one nobody knows whether it was posted if the fault is
/// [`Fault::Unavailable`] with `maybe`.
pub async fn post(
    db: &Db,
    store: &dyn Store,
    wake: &Wake,
    author: UserId,
    body: &str,
    key: Option<&str>,
) -> Result<Posted, Fault> {
    let (place, lease) = wake.reserve();
    let hook = wake.hook().post;
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&author, &body, &key, &lease, &hook];
    let rows = match key {
        Some(_) => db.ask(POST, &values).await?,
        None => db.once(POST, &values).await?,
    };
    let Some(row) = rows.first() else {
        let posted = earlier(db, author, key).await?;
        if !posted.deleted {
            // The earlier one may have been a try of this very call whose answer was lost.
            own_feed(store, author, posted.id).await;
        }
        return Ok(posted);
    };
    let id = value(row, 0)?;
    let outbox = value(row, 1)?;
    match place {
        Some(place) => {
            place.send(task(author, Kind::Post, id, outbox, value(row, 2)?));
            own_feed(store, author, id).await;
        }
        None => drop(tokio::join!(
            own_feed(store, author, id),
            others(store, author, outbox)
        )),
    }
    Ok(Posted {
        id,
        fresh: true,
        deleted: false,
    })
}

/// The media that an earlier call of this key has made: the unique index let this one wait for it.
async fn earlier(db: &Db, author: UserId, key: Option<&str>) -> Result<Posted, Fault> {
    const SQL: &str =
        "SELECT id, deleted_at IS NOT NULL FROM media WHERE user_id = $1 AND idem_key = $2";
    match db.ask_one(SQL, &[&author, &key]).await? {
        Some(row) => Ok(Posted {
            id: value(&row, 0)?,
            fresh: false,
            deleted: value(&row, 1)?,
        }),
        None => Err(Fault::Retry(
            "the media of this key was taken away meanwhile".to_owned(),
        )),
    }
}

/// So that the author sees it on the next read. If the store is away there is no feed to read either, and the worker pushes it, too.
async fn own_feed(store: &dyn Store, author: UserId, id: MediaId) {
    let _pushed = waiting("store", "push");
    if let Err(fault) = store.push(id, &[author]).await {
        tracing::debug!("media {id} is not in feed {author} yet: {fault}");
    }
}

/// Tells the workers of other processes, which find the row by themselves in a second or two.
async fn others(store: &dyn Store, author: UserId, row: i64) {
    if let Err(fault) = store.wake(author, row).await {
        tracing::debug!("no worker hears of outbox row {row} of {author}: {fault}");
    }
}

fn task(user: UserId, kind: Kind, object: i64, id: i64, lease: SystemTime) -> Task {
    Task {
        id,
        user,
        kind,
        object,
        cut: None,
        done_to: None,
        attempts: 0,
        lease,
    }
}

const DELETE: &str = "\
WITH m AS (UPDATE media SET deleted_at = now() WHERE user_id = $1 AND id = $2 AND deleted_at IS NULL RETURNING id), \
o AS (INSERT INTO outbox (user_id, kind, object, due_at, hook_at) \
      SELECT $1, 'delete', m.id, now() + $3::float8 * interval '1 second', CASE WHEN $4::boolean THEN now() END FROM m RETURNING id, due_at), \
c AS (INSERT INTO counters (user_id, name, value) SELECT $1, 'posts', -1 FROM m \
      ON CONFLICT (user_id, name, slot) DO UPDATE SET value = counters.value + excluded.value) \
SELECT o.id, o.due_at FROM m, o";

/// What became of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone, and nobody is shown it any more.
    Now,
    /// It is gone, but the store could not be told yet: a worker will.
    ToCome,
    /// The author has no such media.
    Nothing,
}

/// Deletes one media of the author: one write and a tombstone, whatever feeds it is in.
///
/// # Errors
/// Any [`Fault`]; it may be repeated.
pub async fn delete(
    db: &Db,
    store: &dyn Store,
    wake: &Wake,
    author: UserId,
    id: MediaId,
) -> Result<Deleted, Fault> {
    // The media's shard must be the author's, which the id says too: another's is none of the author's.
    let (place, lease) = wake.reserve();
    let rows = db
        .ask(DELETE, &[&author, &id, &lease, &wake.hook().delete])
        .await?;
    let Some(row) = rows.first() else {
        return again(db, store, author, id).await;
    };
    let tombstone = waiting("store", "tombstone");
    let done = store.tombstone(id).await;
    drop(tombstone);
    // The worker does it once more, which is cheap, and takes the row away.
    if let Some(place) = place {
        place.send(task(
            author,
            Kind::Delete,
            id,
            value(row, 0)?,
            value(row, 1)?,
        ));
    }
    Ok(told(id, done))
}

/// Nothing to delete: it was deleted before, maybe by a try of this very call whose answer was lost, or it was never there.
async fn again(db: &Db, store: &dyn Store, author: UserId, id: MediaId) -> Result<Deleted, Fault> {
    const SQL: &str =
        "SELECT id FROM media WHERE user_id = $1 AND id = $2 AND deleted_at IS NOT NULL";
    match db.ask_one(SQL, &[&author, &id]).await? {
        Some(_) => Ok(told(id, store.tombstone(id).await)),
        None => Ok(Deleted::Nothing),
    }
}

fn told(id: MediaId, done: Result<(), StoreFault>) -> Deleted {
    match done {
        Ok(()) => Deleted::Now,
        Err(fault) => {
            tracing::warn!("media {id} has no tombstone yet: {fault}");
            Deleted::ToCome
        }
    }
}

/// How long a write's own row waits for the worker of the same process by default.
pub const LEASE: Duration = Duration::from_secs(15);
