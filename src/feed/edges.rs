//! The statements that change edges: the truth on the source's shard, with counter and outbox row; the mirror on the target's, with
//! its counter. Each counts by what it has changed itself, so that counters are right whatever runs side by side.

use std::collections::HashMap;

use tokio_postgres::Row;

use super::UserId;
use super::clock::since_1970;
use super::db::{Db, Fault, column, jitter, value};
use super::graph::{Outcome, Status};
use super::outbox;
use super::store::Store;

/// A call that lost against another as often as this gives up.
const TRIES: u32 = 8;
/// When a worker settles an edge if the call that changed it did not.
const SETTLE_AFTER_S: f64 = 10.0;

/// From which statuses a call may turn an edge; `none`: there is no row.
pub(super) const FROM_FOLLOW: &[&str] = &["none", "gone", "requested"];
pub(super) const FROM_ASK: &[&str] = &["none", "gone"];
pub(super) const FROM_REQUEST: &[&str] = &["requested"];
pub(super) const FROM_UNFOLLOW: &[&str] = &["following", "requested"];
pub(super) const FROM_BLOCK: &[&str] = &["none", "gone", "requested", "following"];
pub(super) const FROM_UNBLOCK: &[&str] = &["blocking"];
/// A cut leaves a row of a new `rev` in any case: who turns the edge to following at the same moment, not knowing of the block yet,
/// meets it and looks again.
const FROM_CUT: &[&str] = &["none", "gone", "requested", "following"];

/// What an edge is, and which change of it that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) status: Status,
    pub(super) rev: i64,
}

impl Edge {
    /// Of a row that has the status here, and `rev` behind it.
    pub(super) fn read(row: &Row, at: usize) -> Result<Edge, Fault> {
        Ok(Edge {
            status: Status::read(value(row, at)?)?,
            rev: value(row, at + 1)?,
        })
    }
}

/// What became of an edge that was to be turned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turned {
    pub(super) target: UserId,
    /// What it is now: as wanted, by this call or since before. `None`: it can't be turned from what it is.
    pub(super) edge: Option<Edge>,
    /// The row that says that it is to be settled; `None`: it was so before.
    pub(super) outbox: Option<i64>,
    /// As the row has it: see [`outbox::Task`].
    pub(super) cut: Option<i64>,
    /// It can't because one of both blocks the other.
    pub(super) blocked: bool,
}

/// Whether it matters that the target blocks the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heed {
    Blocks,
    Nothing,
}

/// `old` is locked, so newer than the statement's snapshot if another has changed it meanwhile: then nothing is done, and the caller
/// looks again with all that the other has seen. `cut` is the `rev` of the block, also when that is undone: the other side may not have
/// heard of it.
const TURN: &str = "\
WITH want AS (SELECT w.target, w.status FROM unnest($2::bigint[], $3::text[]) AS w (target, status)), \
blocks AS (SELECT source FROM follow_in WHERE user_id = $1 AND source = ANY ($2::bigint[]) AND status = 'blocking' AND $6::boolean), \
old AS (SELECT target, status, rev FROM follow_out WHERE user_id = $1 AND target = ANY ($2::bigint[]) ORDER BY target FOR UPDATE), \
u AS (UPDATE follow_out AS f SET status = want.status, rev = greatest(old.rev + 1, $5), changed_at = now(), \
        muted = f.muted AND old.status IN ('following', 'requested') \
      FROM old, want WHERE f.user_id = $1 AND f.target = old.target AND want.target = old.target \
        AND old.status = ANY ($4::text[]) AND old.rev < $9 AND old.target NOT IN (SELECT source FROM blocks) \
        AND old.rev = (SELECT s.rev FROM follow_out AS s WHERE s.user_id = $1 AND s.target = old.target) \
      RETURNING f.target, f.rev, f.status, old.status AS was, \
        CASE WHEN f.status = 'blocking' THEN f.rev WHEN old.status = 'blocking' THEN old.rev END AS cut), \
i AS (INSERT INTO follow_out (user_id, target, status, rev) SELECT $1, want.target, want.status, $5 FROM want \
      WHERE 'none' = ANY ($4::text[]) AND want.target NOT IN (SELECT source FROM blocks) \
        AND want.target NOT IN (SELECT old.target FROM old) ORDER BY want.target \
      ON CONFLICT (user_id, target) DO NOTHING RETURNING target, rev, status, CASE WHEN status = 'blocking' THEN rev END AS cut), \
w AS (SELECT target, rev, status, was, cut FROM u UNION ALL SELECT target, rev, status, 'none', cut FROM i), \
c AS (INSERT INTO counters (user_id, name, value) \
      SELECT $1, 'following', d.n FROM (SELECT sum((status = 'following')::int - (was = 'following')::int) AS n FROM w) AS d WHERE d.n <> 0 \
      ON CONFLICT (user_id, name, slot) DO UPDATE SET value = counters.value + excluded.value), \
o AS (INSERT INTO outbox (user_id, kind, object, rev, cut, due_at, hook_at) \
      SELECT $1, 'edge', w.target, w.rev, w.cut, now() + $7::float8 * interval '1 second', CASE WHEN $8::boolean THEN now() END FROM w RETURNING id, object) \
SELECT want.target, old.status, old.rev, w.status, w.rev, o.id, b.source IS NOT NULL, w.cut FROM want \
LEFT JOIN old ON old.target = want.target LEFT JOIN w ON w.target = want.target \
LEFT JOIN o ON o.object = want.target LEFT JOIN blocks AS b ON b.source = want.target";

/// Turns edges of one source, each target once, if they are what `from` allows. One statement on the source's shard.
pub(super) async fn turn(
    db: &Db,
    source: UserId,
    want: &[(UserId, Status)],
    from: &[&str],
    heed: Heed,
) -> Result<Vec<Turned>, Fault> {
    turn_older(db, source, want, from, i64::MAX, heed).await
}

/// [`turn`] of edges that have been what they are since before this `rev`.
async fn turn_older(
    db: &Db,
    source: UserId,
    want: &[(UserId, Status)],
    from: &[&str],
    than: i64,
    heed: Heed,
) -> Result<Vec<Turned>, Fault> {
    let mut left: HashMap<UserId, Status> = want.iter().copied().collect();
    let mut done = Vec::with_capacity(want.len());
    for tried in 0..TRIES {
        if left.is_empty() {
            return Ok(done);
        }
        if tried > 0 {
            tokio::time::sleep(jitter(std::time::Duration::from_millis(1 << tried))).await;
        }
        let (targets, to): (Vec<UserId>, Vec<&str>) =
            left.iter().map(|(t, s)| (*t, s.as_str())).unzip();
        let heeds = heed == Heed::Blocks;
        let rows = db
            .ask(
                TURN,
                &[
                    &source,
                    &targets,
                    &to,
                    &from,
                    &now_us(),
                    &heeds,
                    &SETTLE_AFTER_S,
                    &db.tells_edges(),
                    &than,
                ],
            )
            .await?;
        for row in &rows {
            let target = value(row, 0)?;
            let wanted = left.get(&target).copied().unwrap_or(Status::Gone);
            if let Some(turned) = read(row, target, wanted, from, than)? {
                left.remove(&target);
                done.push(turned);
            }
        }
    }
    Err(Fault::Retry(format!(
        "edges of {source} are changed by others at the same time"
    )))
}

/// What a row of [`TURN`] says; `None`: another was faster.
fn read(
    row: &Row,
    target: UserId,
    wanted: Status,
    from: &[&str],
    than: i64,
) -> Result<Option<Turned>, Fault> {
    let edge = |status: Option<&str>, rev: Option<i64>| match (status, rev) {
        (Some(status), Some(rev)) => Status::read(status).map(|status| Some(Edge { status, rev })),
        _ => Ok(None),
    };
    let (was, is) = (
        edge(value(row, 1)?, value(row, 2)?)?,
        edge(value(row, 3)?, value(row, 4)?)?,
    );
    let (blocked, cut) = (value(row, 6)?, value(row, 7)?);
    let turned = |edge, outbox, blocked| {
        Ok(Some(Turned {
            target,
            edge,
            outbox,
            cut,
            blocked,
        }))
    };
    if is.is_some() {
        return turned(is, value(row, 5)?, false);
    }
    if blocked {
        return turned(None, None, true);
    }
    let may = from.contains(&was.map_or("none", |e| e.status.as_str()))
        && was.is_none_or(|e| e.rev < than);
    match was {
        Some(old) if old.status == wanted && !may => turned(Some(old), None, false),
        // One that follows already need not ask.
        Some(old) if old.status == Status::Following && wanted == Status::Requested => {
            turned(Some(old), None, false)
        }
        _ if may => Ok(None),
        old => turned(
            None,
            None,
            old.is_some_and(|e| e.status == Status::Blocking),
        ),
    }
}

/// A number that goes up with time, for edges that are new; one that is there goes up in any case.
fn now_us() -> i64 {
    i64::try_from(since_1970().as_micros()).unwrap_or(i64::MAX)
}

/// `old` is locked and so the newest, whatever the snapshot says; the update meets the same row. A target with very many followers
/// counts in several rows.
const MIRROR: &str = "\
WITH old AS (SELECT status, rev FROM follow_in WHERE user_id = $1 AND source = $2 FOR UPDATE), \
u AS (UPDATE follow_in AS f SET status = $3::text, rev = $4 FROM old \
      WHERE f.user_id = $1 AND f.source = $2 AND old.rev < $4 RETURNING old.status AS was), \
i AS (INSERT INTO follow_in (user_id, source, status, rev) SELECT $1, $2, $3::text, $4 WHERE NOT EXISTS (SELECT 1 FROM old) \
      ON CONFLICT (user_id, source) DO NOTHING RETURNING 'none' AS was), \
d AS (SELECT ($3::text = 'following')::int - (was = 'following')::int AS n FROM (SELECT was FROM u UNION ALL SELECT was FROM i) AS w), \
c AS (INSERT INTO counters (user_id, name, slot, value) \
      SELECT $1, 'followers', CASE WHEN (SELECT s.value FROM counters AS s WHERE s.user_id = $1 AND s.name = 'followers' AND s.slot = 0) > 1000 \
        THEN $5::smallint ELSE 0::smallint END, d.n FROM d WHERE d.n <> 0 \
      ON CONFLICT (user_id, name, slot) DO UPDATE SET value = counters.value + excluded.value) \
SELECT (SELECT rev FROM old), (SELECT count(*) FROM d)";

/// Writes the mirror of an edge on the target's shard, unless a newer one is there.
pub(super) async fn mirror(
    db: &Db,
    source: UserId,
    target: UserId,
    edge: Edge,
) -> Result<(), Fault> {
    let slot = 1 + source.rem_euclid(16) as i16;
    for tried in 0..TRIES {
        if tried > 0 {
            tokio::time::sleep(jitter(std::time::Duration::from_millis(1 << tried))).await;
        }
        let row = db
            .ask_one(
                MIRROR,
                &[&target, &source, &edge.status.as_str(), &edge.rev, &slot],
            )
            .await?;
        let Some(row) = row else { continue };
        // There was none, and yet none could be made: another made it.
        if value::<Option<i64>>(&row, 0)?.is_some() || value::<i64>(&row, 1)? > 0 {
            return Ok(());
        }
    }
    Err(Fault::Retry(format!(
        "the mirror of {source} -> {target} is written by others at the same time"
    )))
}

/// The other side of an edge: its mirror, and if it is a block, or was one when `cut` was noted, the end of the edge in the other
/// direction.
pub(super) async fn mirror_and_cut(
    db: &Db,
    source: UserId,
    target: UserId,
    edge: Edge,
    cut: Option<i64>,
) -> Result<(), Fault> {
    // The mirror first: who follows from now on sees the block. Who has followed before is cut.
    mirror(db, source, target, edge).await?;
    let (from, than) = match (edge.status, cut) {
        (Status::Blocking, _) => (FROM_CUT, i64::MAX),
        // Undone by now: who has followed since may. By the clocks of those who have written the edges, as every `rev` is.
        (_, Some(rev)) => (FROM_UNFOLLOW, rev),
        (_, None) => return Ok(()),
    };
    let gone = [(source, Status::Gone)];
    let cut = turn_older(db, target, &gone, from, than, Heed::Nothing).await?;
    for turned in &cut {
        if let Some(back) = turned.edge {
            mirror(db, target, source, back).await?;
            settled(db, target, &turned.outbox.into_iter().collect::<Vec<_>>()).await?;
        }
    }
    Ok(())
}

/// What the truth says of an edge.
pub(super) async fn standing(
    db: &Db,
    source: UserId,
    target: UserId,
) -> Result<Option<Edge>, Fault> {
    const SQL: &str = "SELECT status, rev FROM follow_out WHERE user_id = $1 AND target = $2";
    let row = db.ask_one(SQL, &[&source, &target]).await?;
    row.map(|row| Edge::read(&row, 0)).transpose()
}

/// Gives an edge, as it is, a `rev` above this one; an edge that is not there becomes one that is gone. `None`: it is above already.
pub(super) async fn raise(
    db: &Db,
    source: UserId,
    target: UserId,
    above: i64,
) -> Result<Option<Edge>, Fault> {
    const SQL: &str = "INSERT INTO follow_out AS f (user_id, target, status, rev) VALUES ($1, $2, 'gone', $3::bigint + 1) \
         ON CONFLICT (user_id, target) DO UPDATE SET rev = excluded.rev WHERE f.rev < excluded.rev RETURNING status, rev";
    let row = db.ask_one(SQL, &[&source, &target, &above]).await?;
    row.map(|row| Edge::read(&row, 0)).transpose()
}

/// Why an edge could not be settled.
#[derive(Debug, thiserror::Error)]
pub enum Unsettled {
    /// Postgres could not do it.
    #[error(transparent)]
    Db(#[from] Fault),
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] super::store::StoreFault),
}

/// All that is to be done behind a change of this edge, by the truth as it is now: a worker's work, and may be repeated.
pub(super) async fn settle(
    db: &Db,
    store: &dyn Store,
    source: UserId,
    target: UserId,
    cut: Option<i64>,
) -> Result<(), Unsettled> {
    let Some(edge) = standing(db, source, target).await? else {
        return Ok(());
    };
    mirror_and_cut(db, source, target, edge, cut).await?;
    if edge.status == Status::Following {
        store.drop_feeds(&[source]).await?;
    }
    Ok(())
}

/// These outbox rows have nothing more to say.
pub(super) async fn settled(db: &Db, source: UserId, rows: &[i64]) -> Result<(), Fault> {
    if rows.is_empty() {
        return Ok(());
    }
    outbox::finish_all(db, source, rows).await
}

/// Which of these are private, in order.
pub(super) async fn private(db: &Db, users: &[UserId]) -> Result<Vec<UserId>, Fault> {
    const SQL: &str =
        "SELECT user_id FROM user_state WHERE user_id = ANY ($1::bigint[]) AND private";
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let mut private: Vec<UserId> = column(&db.ask(SQL, &[&users]).await?)?;
    private.sort_unstable();
    Ok(private)
}

/// Muting is of the source alone: no mirror, no new `rev`.
pub(super) async fn mute(
    db: &Db,
    source: UserId,
    target: UserId,
    muted: bool,
) -> Result<Outcome, Fault> {
    const SQL: &str = "UPDATE follow_out SET muted = $3, changed_at = now() WHERE user_id = $1 AND target = $2 \
         AND status IN ('following', 'requested') RETURNING status";
    match db.ask_one(SQL, &[&source, &target, &muted]).await? {
        Some(row) => Ok(Outcome::Now(Status::read(value(&row, 0)?)?)),
        None => Ok(Outcome::Nothing),
    }
}
