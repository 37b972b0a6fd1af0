//! What can go wrong in a session, and the one place where it becomes an error message for the client.

use std::io;

use crate::pool::CheckoutFault;
use crate::route::{Code, Refusal};
use crate::shardmap::KeyFault;
use crate::wire::backend::ErrorView;
use crate::wire::body::DecodeFault;
use crate::wire::error::{ErrorFields, SqlState};

/// Why a step of the session did not succeed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The client is gone or cannot be written to: the session ends without a word.
    Client(io::Error),
    /// The client gets this and the session ends.
    Fatal(Box<ErrorFields>),
    /// The statement fails; nothing of it was sent to a server.
    Statement(Box<ErrorFields>),
    /// The active server connection is lost, and with it the transaction on it.
    Server(Box<ErrorFields>),
    /// An earlier message of the batch turned out to have failed: this one is skipped, like all up to the Sync.
    Skipped,
}

/// What Postgres says of it (src/backend/utils/cache/plancache.c).
const CHANGED: &str = "cached plan must not change result type";

impl Fault {
    pub(crate) fn client(e: io::Error) -> Fault {
        Fault::Client(e)
    }

    /// A statement fails with this code, message and hint.
    pub(crate) fn statement(fields: ErrorFields) -> Fault {
        Fault::Statement(Box::new(fields))
    }

    /// The session ends with this.
    pub(crate) fn fatal(fields: ErrorFields) -> Fault {
        Fault::Fatal(Box::new(fields))
    }

    /// The server connection broke while replies were owed: whether the statement took effect is not known.
    pub(crate) fn lost(host: &str, cause: Option<io::Error>) -> Fault {
        let cause = cause.map_or_else(|| "it closed the connection".to_owned(), |e| e.to_string());
        Fault::Server(Box::new(
            ErrorFields::error(SqlState::CONNECTION_FAILURE, format!("lost the connection to host {host:?} during the statement: {cause}"))
                .detail("Whether the statement took effect is not known; an open transaction on that host is rolled back.")
                .hint("Connect again is not needed: statements for other hosts go on, and those for this one will once it is back."),
        ))
    }

    /// A statement's columns are others than the client was told, because a table was changed past the proxy.
    pub(crate) fn changed(host: &str) -> Fault {
        Fault::Server(Box::new(
            ErrorFields::error(SqlState::FEATURE_NOT_SUPPORTED, CHANGED)
                .detail(format!("The server connection to host {host:?} is given up: whether the statement took effect is not known."))
                .hint("Prepare the statement anew."),
        ))
    }

    /// The same, found out before anything is sent.
    pub(crate) fn changed_before() -> Fault {
        Fault::statement(ErrorFields::error(SqlState::FEATURE_NOT_SUPPORTED, CHANGED))
    }

    /// The server said something that the protocol has no place for.
    pub(crate) fn protocol(host: &str, tag: u8) -> Fault {
        Fault::Server(Box::new(ErrorFields::error(
            SqlState::PROTOCOL_VIOLATION,
            format!(
                "host {host:?} sent message {:?} where the protocol has no place for it",
                char::from(tag)
            ),
        )))
    }

    /// The server ended the connection with a FATAL error; the client's session goes on, so for it it is an ERROR.
    pub(crate) fn ended(host: &str, view: &ErrorView<'_>) -> Fault {
        let text = |field| {
            view.get(field)
                .map(|t| String::from_utf8_lossy(t).into_owned())
        };
        let code = view.code().unwrap_or(SqlState::CONNECTION_FAILURE);
        let message = text(b'M').unwrap_or_default();
        Fault::Server(Box::new(
            ErrorFields::error(code, format!("host {host:?} ended the server connection: {message}"))
                .detail("An open transaction on that host is rolled back.")
                .hint("Run the transaction again: the proxy opens a new server connection when the host takes one."),
        ))
    }

    /// A server refused a setting of the startup packet: so does Postgres, and ends the connection.
    pub(crate) fn refused_setting(view: &ErrorView<'_>) -> Fault {
        let text = |field| {
            view.get(field)
                .map(|t| String::from_utf8_lossy(t).into_owned())
        };
        let code = view.code().unwrap_or(SqlState::INVALID_PARAMETER_VALUE);
        Fault::fatal(ErrorFields::fatal(code, text(b'M').unwrap_or_default()))
    }

    /// No server connection could be had.
    pub(crate) fn checkout(host: &str, fault: CheckoutFault) -> Fault {
        let fields = match fault {
            CheckoutFault::Busy { connections, waited } => ErrorFields::error(
                SqlState::TOO_MANY_CONNECTIONS,
                format!("no server connection to host {host:?}: all {connections} were busy for {waited:?}"),
            )
            .hint(format!("Raise `pool` of [hosts.{host}] or `checkout_wait`, or look for long transactions in SHOW CLIENTS.")),
            CheckoutFault::Crosswise { connections, kept } => ErrorFields::error(SqlState::DEADLOCK_DETECTED, "deadlock detected")
                .detail(format!(
                    "The session keeps server connections of {} and waits for one of host {host:?}. All {connections} there are kept by sessions that wait in the same way, or for locks of such.",
                    kept.iter().map(|host| format!("host {host:?}")).collect::<Vec<_>>().join(", ")
                ))
                .hint(format!("Run the transaction again. Raise `pool` of [hosts.{host}]: there must be room for the transactions over several hosts that run at once.")),
            CheckoutFault::Connect(fault) => ErrorFields::error(fault.sqlstate(), format!("host {host:?} cannot be reached: {fault}"))
                .hint("Other hosts' statements go on; this host's do so by themselves once it takes connections again."),
        };
        Fault::statement(fields)
    }

    /// The client broke the protocol: as Postgres does, the session ends.
    pub(crate) fn violation(message: impl Into<String>) -> Fault {
        Fault::fatal(ErrorFields::fatal(
            SqlState::PROTOCOL_VIOLATION,
            message.into(),
        ))
    }

    /// A limit of `[proxy.limits]` was reached.
    pub(crate) fn limit(what: &str, setting: &str, limit: u64) -> Fault {
        Fault::statement(
            ErrorFields::error(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("{what}, more than the limit of {limit}"),
            )
            .hint(format!("The setting is {setting} in [proxy.limits].")),
        )
    }

    /// What presplit does not do (yet), with what to do instead.
    pub(crate) fn unsupported(what: impl Into<String>, hint: impl Into<String>) -> Fault {
        Fault::statement(
            ErrorFields::error(SqlState::FEATURE_NOT_SUPPORTED, what.into()).hint(hint.into()),
        )
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault::statement(refusal.into())
    }
}

impl From<Refusal> for ErrorFields {
    fn from(refusal: Refusal) -> ErrorFields {
        let fields = ErrorFields::error(sqlstate(refusal.code), refusal.message).hint(refusal.hint);
        match refusal.detail {
            Some(detail) => fields.detail(detail),
            None => fields,
        }
    }
}

/// The code's five characters as the wire has them.
fn sqlstate(code: Code) -> SqlState {
    SqlState::from_field(code.sqlstate().as_bytes()).unwrap_or(SqlState::INTERNAL_ERROR)
}

impl From<KeyFault> for Fault {
    fn from(fault: KeyFault) -> Fault {
        Fault::statement(
            ErrorFields::error(SqlState::UNUSABLE_KEY, fault.to_string())
                .hint("Give the key as a value of the key column's type."),
        )
    }
}

/// A message that does not hold what its kind should: as with Postgres, the message fails and the session goes on.
impl From<DecodeFault> for Fault {
    fn from(fault: DecodeFault) -> Fault {
        Fault::statement(fault.into())
    }
}
