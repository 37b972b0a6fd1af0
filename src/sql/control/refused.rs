//! What can't be done over several hosts, or not yet.

use super::Control;

impl Control {
    /// Why the statement is refused, and what to do instead; `None`: it is not.
    pub fn refused(&self) -> Option<(&'static str, &'static str)> {
        Some(match self {
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
