//! The rows of the outbox that the webhook has yet to hear of. A row is taken by pushing `hook_at` into the future (a lease), as workers
//! do with `due_at`: whoever dies leaves it to the next, and neither of both waits for the other.

use std::time::{Duration, SystemTime};

use crate::feed::UserId;
use crate::feed::db::{Db, Fault, value};
use crate::feed::outbox::{Kind, in_short};

/// The place of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) user: UserId,
    pub(super) id: i64,
}

/// A row that this process has taken.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) user: UserId,
    pub(super) id: i64,
    pub(super) kind: Kind,
    pub(super) object: i64,
    /// How often the webhook did not take it.
    pub(super) tries: i32,
    /// Until when it is ours, exactly as the row has it.
    lease: SystemTime,
    /// When it was written, as the API gives times.
    pub(super) created_at: String,
    /// How long ago that is.
    pub(super) age: Duration,
}

/// The rows that wait, for [`crate::feed::apart::Apart::due`] and [`read_due`].
pub(super) const DUE: &str =
    "SELECT user_id, id FROM outbox WHERE hook_at <= now() ORDER BY hook_at";

pub(super) fn read_due(rows: &[tokio_postgres::Row]) -> Result<Vec<Due>, Fault> {
    let due = rows.iter().map(|row| {
        Ok(Due {
            user: value(row, 0)?,
            id: value(row, 1)?,
        })
    });
    due.collect()
}

/// Takes the row, unless another has it, or has told of it.
pub(super) async fn claim(db: &Db, due: Due, lease: Duration) -> Result<Option<Row>, Fault> {
    const SQL: &str = "UPDATE outbox SET hook_at = now() + $3::float8 * interval '1 second' \
         WHERE user_id = $1 AND id = $2 AND hook_at <= now() \
         RETURNING kind, object, hook_tries, hook_at, \
         to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), extract(epoch FROM now() - created_at)::float8";
    // Sent once: what was taken and not heard of is free again when the lease has run out.
    let rows = db
        .once(SQL, &[&due.user, &due.id, &lease.as_secs_f64()])
        .await?;
    let row = rows.first().map(|row| {
        let age: f64 = value(row, 5)?;
        Ok(Row {
            user: due.user,
            id: due.id,
            kind: Kind::read(value(row, 0)?)?,
            object: value(row, 1)?,
            tries: value(row, 2)?,
            lease: value(row, 3)?,
            created_at: value(row, 4)?,
            age: Duration::from_secs_f64(age.max(0.0)),
        })
    });
    row.transpose()
}

/// What is to be said of the row's object beside its id, as JSON: of a post its body, of an edge what it is now.
pub(super) async fn of_object(db: &Db, row: &Row) -> Result<Option<String>, Fault> {
    const POST: &str =
        "SELECT body::text FROM media WHERE user_id = $1 AND id = $2 AND deleted_at IS NULL";
    const EDGE: &str = "SELECT status FROM follow_out WHERE user_id = $1 AND target = $2";
    let sql = match row.kind {
        Kind::Post => POST,
        Kind::Edge => EDGE,
        Kind::Delete => return Ok(None),
    };
    let said = db.ask_one(sql, &[&row.user, &row.object]).await?;
    said.map(|said| value(&said, 0)).transpose()
}

/// The webhook has heard of it (or never will): if all else is done, too, the row goes.
pub(super) async fn told(db: &Db, row: &Row) -> Result<(), Fault> {
    const TAKE: &str = "DELETE FROM outbox WHERE user_id = $1 AND id = $2 AND hook_at = $3 AND due_at = 'infinity' RETURNING id";
    const LEAVE: &str = "UPDATE outbox SET hook_at = NULL WHERE user_id = $1 AND id = $2 AND hook_at = $3 AND due_at < 'infinity' RETURNING id";
    // The third time for a row that a worker was done with between the first two.
    for sql in [TAKE, LEAVE, TAKE] {
        if !db
            .ask(sql, &[&row.user, &row.id, &row.lease])
            .await?
            .is_empty()
        {
            break;
        }
    }
    Ok(())
}

/// The webhook did not take it: again in `pause`. If the row is to blame that counts.
pub(super) async fn again(
    db: &Db,
    row: &Row,
    why: &str,
    to_blame: bool,
    pause: Duration,
) -> Result<(), Fault> {
    const SQL: &str = "UPDATE outbox SET hook_tries = hook_tries + $4, hook_error = $5, \
         hook_at = now() + $6::float8 * interval '1 second' WHERE user_id = $1 AND id = $2 AND hook_at = $3";
    let (why, one) = (in_short(why), i32::from(to_blame));
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] = [
        &row.user,
        &row.id,
        &row.lease,
        &one,
        &why,
        &pause.as_secs_f64(),
    ];
    db.once(SQL, &values).await.map(drop)
}
