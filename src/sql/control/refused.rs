//! What can't be done under transaction pooling: a session gives its server connection back after each transaction.

use super::Control;
use crate::sql::shape::Hole;
use crate::sql::token::{ident_value, tokens};

/// Advisory locks that a session holds until it gives them back. Under transaction pooling they would be held by a server
/// connection that the next transaction does not have. (pg_advisory_unlock_all does no harm, and drivers send it.)
const SESSION_LOCKS: &[&str] = &[
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "pg_advisory_unlock",
    "pg_advisory_unlock_shared",
];

/// The function in a text that takes or gives back a lock of the session.
pub fn session_lock(text: &[u8], holes: &[Hole]) -> Option<String> {
    let mut words = tokens(text, holes);
    let lock = words.find(|t| SESSION_LOCKS.iter().any(|name| t.is_word(text, name)))?;
    Some(ident_value(text, lock.span).into_owned())
}

/// Why such a function is refused, and what to do instead.
pub fn no_session_lock(function: &str) -> (String, &'static str) {
    let what = format!(
        "{function} is not supported under transaction pooling: the lock would stay with a server connection"
    );
    let hint = "Take pg_advisory_xact_lock inside a transaction. In Rails set advisory_locks: false for migrations.";
    (what, hint)
}

impl Control {
    /// Why the statement is refused, and what to do instead; `None`: it is not.
    pub fn refused(&self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Control::Declare { hold: true, .. } => (
                "cursors WITH HOLD are not supported: they would outlive the transaction that owns the server connection",
                "Declare the cursor inside a transaction without WITH HOLD; in Django set DISABLE_SERVER_SIDE_CURSORS.",
            ),
            Control::Listen(_) => (
                "LISTEN is not supported under transaction pooling: the server connection is another one in the next transaction",
                "Connect directly to one host for LISTEN.",
            ),
            Control::PrepareTransaction(_)
            | Control::CommitPrepared(_)
            | Control::RollbackPrepared(_) => (
                "two-phase commit by the client is not supported",
                "Connect directly to the host, or use one transaction per user.",
            ),
            Control::SetTransactionSnapshot(_) => (
                "SET TRANSACTION SNAPSHOT is not supported: a snapshot belongs to one host",
                "Connect directly to the host.",
            ),
            _ => return None,
        })
    }
}
