//! The outbox: rows that say what is to be done behind a write. A row is taken by pushing `due_at` into the future (a lease, renewed
//! as the work goes on), so that whoever dies leaves it to the next.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio_postgres::Row as PgRow;

use super::UserId;
use super::db::{Db, Fault, value};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A media is to reach the followers' feeds.
    Post,
    /// A media is gone.
    Delete,
    /// An edge is to be settled.
    Edge,
}

impl Kind {
    /// As the table and the webhook have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Post => "post",
            Kind::Delete => "delete",
            Kind::Edge => "edge",
        }
    }

    /// Of the table's word.
    pub(super) fn read(word: &str) -> Result<Kind, Fault> {
        [Kind::Post, Kind::Delete, Kind::Edge]
            .into_iter()
            .find(|k| k.name() == word)
            .ok_or_else(|| Fault::Wrong(format!("an outbox row of kind {word:?}")))
    }
}

/// The kinds of rows that the webhook is to hear of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Posts.
    pub post: bool,
    /// Deletions.
    pub delete: bool,
    /// Changes of edges.
    pub edge: bool,
}

impl Events {
    /// All, or none.
    #[must_use]
    pub fn all(all: bool) -> Events {
        Events {
            post: all,
            delete: all,
            edge: all,
        }
    }
}

/// A row that this process has taken.
#[derive(Clone, Debug)]
pub struct Task {
    /// The row's id.
    pub id: i64,
    /// Whose shard it is on.
    pub user: UserId,
    /// What is to be done.
    pub kind: Kind,
    /// The media id, or the edge's target.
    pub object: i64,
    /// The edge blocks, or did: an edge back that is older than this `rev` is to end.
    pub cut: Option<i64>,
    /// The last follower who has it.
    pub done_to: Option<UserId>,
    /// Attempts that failed since it last got on.
    pub attempts: i32,
    /// Until when it is ours, exactly as the row has it: who has taken it since has changed that.
    pub lease: SystemTime,
}

impl Task {
    fn read(row: &PgRow, user: UserId) -> Result<Task, Fault> {
        Ok(Task {
            id: value(row, 0)?,
            user,
            kind: Kind::read(value(row, 1)?)?,
            object: value(row, 2)?,
            done_to: value(row, 3)?,
            attempts: value(row, 4)?,
            lease: value(row, 5)?,
            cut: value(row, 6)?,
        })
    }
}

/// The way from a write to the workers of the same process: no one has to look for the row.
#[derive(Clone, Debug)]
pub struct Wake {
    workers: Option<mpsc::Sender<Task>>,
    lease: Duration,
    hook: Events,
}

impl Wake {
    /// There are no workers in this process: those of others find the row when they next look. `hook`: new rows of all kinds are
    /// for the webhook, too.
    #[must_use]
    pub fn none(hook: bool) -> Wake {
        Wake::nobody(Events::all(hook))
    }

    /// As [`Wake::none`], with the kinds.
    #[must_use]
    pub fn nobody(hook: Events) -> Wake {
        Wake {
            workers: None,
            lease: Duration::ZERO,
            hook,
        }
    }

    pub(super) fn new(workers: mpsc::Sender<Task>, lease: Duration, hook: Events) -> Wake {
        Wake {
            workers: Some(workers),
            lease,
            hook,
        }
    }

    /// Which new rows are for the webhook, too.
    pub(super) fn hook(&self) -> Events {
        self.hook
    }

    /// A place for a row that is about to be written, and how long it will be leased for. None if the workers have enough to do:
    /// then the row is written as due, for whoever is free first.
    pub(super) fn reserve(&self) -> (Option<mpsc::Permit<'_, Task>>, f64) {
        match self.workers.as_ref().and_then(|w| w.try_reserve().ok()) {
            Some(place) => (Some(place), self.lease.as_secs_f64()),
            None => (None, 0.0),
        }
    }
}

/// Rows of one user that are due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) user: UserId,
    pub(super) rows: Vec<i64>,
    /// How long the oldest has been due.
    pub(super) since: Duration,
}

/// The rows that are due, for [`super::apart::Apart::due`] and [`read_due`].
pub(super) const DUE: &str = "SELECT user_id, id, extract(epoch FROM now() - due_at)::float8 AS since FROM outbox \
     WHERE due_at <= now() AND dead_at IS NULL ORDER BY due_at";

/// Users in the order of their oldest rows; each user's come oldest first.
pub(super) fn read_due(rows: &[PgRow]) -> Result<Vec<Due>, Fault> {
    let mut places = HashMap::new();
    let mut found: Vec<Due> = Vec::new();
    for row in rows {
        let (user, id, since): (UserId, i64, f64) =
            (value(row, 0)?, value(row, 1)?, value(row, 2)?);
        let place = *places.entry(user).or_insert(found.len());
        match found.get_mut(place) {
            Some(due) => due.rows.push(id),
            None => found.push(Due {
                user,
                rows: vec![id],
                since: Duration::from_secs_f64(since.max(0.0)),
            }),
        }
    }
    found.sort_by_key(|due| Reverse(due.since));
    Ok(found)
}

/// Takes those of these rows that are due still and that nobody else is about to take. By their ids: looking for a user's rows
/// among all that are due would take longer the more are due.
pub(super) async fn claim(db: &Db, due: &Due, lease: Duration) -> Result<Vec<Task>, Fault> {
    const SQL: &str = "UPDATE outbox SET due_at = now() + $2::float8 * interval '1 second' WHERE user_id = $1 AND id IN \
         (SELECT id FROM outbox WHERE user_id = $1 AND id = ANY ($3::bigint[]) AND due_at <= now() AND dead_at IS NULL FOR UPDATE SKIP LOCKED) \
         RETURNING id, kind, object, done_to, attempts, due_at, cut";
    // Sent once: what was taken and not heard of is free again when the lease has run out.
    let rows = db
        .once(SQL, &[&due.user, &lease.as_secs_f64(), &due.rows])
        .await?;
    rows.iter().map(|row| Task::read(row, due.user)).collect()
}

/// Keeps the row for as long again, with how far the work has come. `false`: it is another's now.
pub(super) async fn renew(
    db: &Db,
    task: &mut Task,
    done_to: Option<UserId>,
    lease: Duration,
) -> Result<bool, Fault> {
    const SQL: &str = "UPDATE outbox SET due_at = now() + $4::float8 * interval '1 second', done_to = $5, \
         attempts = CASE WHEN done_to IS DISTINCT FROM $5 THEN 0 ELSE attempts END \
         WHERE user_id = $1 AND id = $2 AND due_at = $3 RETURNING due_at, attempts";
    let row = db
        .once(
            SQL,
            &[
                &task.user,
                &task.id,
                &task.lease,
                &lease.as_secs_f64(),
                &done_to,
            ],
        )
        .await?;
    let Some(row) = row.first() else {
        return Ok(false);
    };
    (task.lease, task.attempts, task.done_to) = (value(row, 0)?, value(row, 1)?, done_to);
    Ok(true)
}

/// All is done.
pub(super) async fn finish(db: &Db, task: &Task) -> Result<(), Fault> {
    finish_all(db, task.user, &[task.id]).await
}

/// All is done for these rows of one user. What the webhook has yet to hear of stays, never due again for anyone else.
pub(super) async fn finish_all(db: &Db, user: UserId, rows: &[i64]) -> Result<(), Fault> {
    const TAKE: &str = "DELETE FROM outbox WHERE user_id = $1 AND id = ANY ($2::bigint[]) AND hook_at IS NULL RETURNING id";
    const LEAVE: &str = "UPDATE outbox SET due_at = 'infinity' WHERE user_id = $1 AND id = ANY ($2::bigint[]) AND hook_at IS NOT NULL RETURNING id";
    let mut left = rows.to_vec();
    // The third time for a row that the webhook has heard of between the first two.
    for sql in [TAKE, LEAVE, TAKE] {
        for row in db.ask(sql, &[&user, &left]).await? {
            let id: i64 = value(&row, 0)?;
            left.retain(|l| *l != id);
        }
        if left.is_empty() {
            break;
        }
    }
    Ok(())
}

/// It did not work: again in `pause`. If the row is to blame it counts as an attempt, and after `most` of them it is set aside.
pub(super) async fn fail(
    db: &Db,
    task: &Task,
    why: &str,
    to_blame: bool,
    pause: Duration,
    most: i32,
) -> Result<bool, Fault> {
    const SQL: &str = "UPDATE outbox SET attempts = attempts + $4, error = $5, due_at = now() + $6::float8 * interval '1 second', \
         dead_at = CASE WHEN attempts + $4 >= $7 THEN now() END \
         WHERE user_id = $1 AND id = $2 AND due_at = $3 RETURNING dead_at IS NOT NULL";
    let one = i32::from(to_blame);
    let why = in_short(why);
    let row = db
        .once(
            SQL,
            &[
                &task.user,
                &task.id,
                &task.lease,
                &one,
                &why,
                &pause.as_secs_f64(),
                &most,
            ],
        )
        .await?;
    row.first().map_or(Ok(false), |row| value(row, 0))
}

/// A fault as a row keeps it.
pub(super) fn in_short(why: &str) -> String {
    why.chars().filter(|c| *c != '\0').take(500).collect()
}

/// Gives one more attempt to rows that were set aside longer ago than this: what was broken may be mended. How many.
pub(super) async fn revive(db: &Db, after: Duration, most: i32) -> Result<usize, Fault> {
    const FIND: &str = "SELECT user_id, id FROM outbox WHERE dead_at < now() - $1::float8 * interval '1 second' ORDER BY id LIMIT 100";
    const SQL: &str = "UPDATE outbox SET dead_at = NULL, attempts = $3, due_at = now() WHERE user_id = $1 AND id = $2 AND dead_at IS NOT NULL";
    let rows = db.ask(FIND, &[&after.as_secs_f64()]).await?;
    for row in &rows {
        db.ask(
            SQL,
            &[&value::<i64>(row, 0)?, &value::<i64>(row, 1)?, &(most - 1)],
        )
        .await?;
    }
    Ok(rows.len())
}
