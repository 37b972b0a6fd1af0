//! Errors as the client sees them: SQLSTATEs and the fields of ErrorResponse and NoticeResponse.

use std::borrow::Cow;
use std::fmt;

use super::frame;

/// Five characters that programs act on. Names as in Postgres' src/backend/utils/errcodes.txt; SRxxx and SMxxx are ours.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(pub [u8; 5]);

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl SqlState {
            $($(#[$doc])* pub const $name: SqlState = SqlState(*$code);)*
            #[cfg(test)]
            const ALL: &[SqlState] = &[$(SqlState::$name),*];
        }
    };
}

states! {
    /// A warning or notice without a better code.
    WARNING = b"01000";
    /// 00000: what a notice of severity NOTICE carries.
    SUCCESSFUL_COMPLETION = b"00000";
    /// No connection to a host could be made.
    CANNOT_CONNECT = b"08001";
    /// A host turned us down.
    CONNECTION_REJECTED = b"08004";
    /// A server connection broke.
    CONNECTION_FAILURE = b"08006";
    /// The connection was lost while a transaction was being ended.
    TRANSACTION_RESOLUTION_UNKNOWN = b"08007";
    /// The peer broke the protocol.
    PROTOCOL_VIOLATION = b"08P01";
    /// Not supported.
    FEATURE_NOT_SUPPORTED = b"0A000";
    /// A value of the wrong kind.
    INVALID_PARAMETER_VALUE = b"22023";
    /// Bytes that are no text.
    CHARACTER_NOT_IN_REPERTOIRE = b"22021";
    /// Text that is no value of the type.
    INVALID_TEXT_REPRESENTATION = b"22P02";
    /// COPY data that is not written as it should be.
    BAD_COPY_FILE_FORMAT = b"22P04";
    /// BEGIN inside a transaction.
    ACTIVE_TRANSACTION = b"25001";
    /// COMMIT, SAVEPOINT ... outside one.
    NO_ACTIVE_TRANSACTION = b"25P01";
    /// The transaction failed and waits for its end.
    IN_FAILED_TRANSACTION = b"25P02";
    /// The session waited too long inside a transaction.
    IDLE_IN_TRANSACTION_TIMEOUT = b"25P03";
    /// No prepared statement of this name.
    INVALID_STATEMENT_NAME = b"26000";
    /// Who are you?
    INVALID_AUTHORIZATION = b"28000";
    /// Wrong password, or no such user.
    INVALID_PASSWORD = b"28P01";
    /// No portal of this name.
    INVALID_CURSOR_NAME = b"34000";
    /// A cursor or portal that is at work.
    INVALID_CURSOR_STATE = b"24000";
    /// No such database.
    INVALID_CATALOG_NAME = b"3D000";
    /// No such savepoint.
    INVALID_SAVEPOINT = b"3B001";
    /// The transaction was rolled back: try again.
    TRANSACTION_ROLLBACK = b"40000";
    /// Serialization failure: try again.
    SERIALIZATION_FAILURE = b"40001";
    /// Two or more wait for each other: one of them was refused. Try again.
    DEADLOCK_DETECTED = b"40P01";
    /// The text is no SQL.
    SYNTAX_ERROR = b"42601";
    /// Not allowed.
    INSUFFICIENT_PRIVILEGE = b"42501";
    /// No such column.
    UNDEFINED_COLUMN = b"42703";
    /// No such setting or other object.
    UNDEFINED_OBJECT = b"42704";
    /// No such parameter.
    UNDEFINED_PARAMETER = b"42P02";
    /// No such table.
    UNDEFINED_TABLE = b"42P01";
    /// A portal of this name is there.
    DUPLICATE_CURSOR = b"42P03";
    /// A prepared statement of this name is there.
    DUPLICATE_STATEMENT = b"42P05";
    /// Memory.
    OUT_OF_MEMORY = b"53200";
    /// All server connections, or all client places, are taken.
    TOO_MANY_CONNECTIONS = b"53300";
    /// A limit of ours, not of a peer.
    CONFIGURATION_LIMIT = b"53400";
    /// The file of settings can't be used.
    CONFIG_FILE_ERROR = b"F0000";
    /// More than a limit allows.
    PROGRAM_LIMIT_EXCEEDED = b"54000";
    /// Not now.
    OBJECT_NOT_IN_PREREQUISITE_STATE = b"55000";
    /// Canceled by the user or a timeout.
    QUERY_CANCELED = b"57014";
    /// We are shutting down.
    ADMIN_SHUTDOWN = b"57P01";
    /// Not ready yet, or not any more.
    CANNOT_CONNECT_NOW = b"57P03";
    /// The session was idle for too long.
    IDLE_SESSION_TIMEOUT = b"57P05";
    /// A fault of ours.
    INTERNAL_ERROR = b"XX000";

    /// The statement names no shard key.
    NO_SHARD_KEY = b"SR001";
    /// The statement concerns more than one shard where only one can be.
    MORE_THAN_ONE_SHARD = b"SR002";
    /// The table is unknown or has no key column.
    TABLE_WITHOUT_KEY = b"SR003";
    /// The answers of several shards can't be merged exactly.
    NOT_MERGEABLE = b"SR004";
    /// The statement would change the shard key.
    CHANGES_KEY = b"SR005";
    /// The statement can't be read, and no hint says where it goes.
    UNREADABLE = b"SR006";
    /// The key's value can't be used.
    UNUSABLE_KEY = b"SR007";
    /// The shard has moved to another host.
    SHARD_MOVED = b"SM001";
    /// The shard is just being brought here.
    SHARD_IMPORTING = b"SM002";
}

impl SqlState {
    /// The five characters.
    pub fn as_str(&self) -> &str {
        // Our constants are ASCII; a foreign one that isn't shows as unknown.
        std::str::from_utf8(&self.0).unwrap_or("?????")
    }

    /// From the `C` field of an ErrorResponse.
    pub fn from_field(field: &[u8]) -> Option<SqlState> {
        field.try_into().ok().map(SqlState)
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an error or notice means for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The connection ends.
    Fatal,
    /// Nothing failed, but have a look.
    Warning,
    /// For information.
    Notice,
}

impl Severity {
    /// As in the `S` and `V` fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
            Severity::Warning => "WARNING",
            Severity::Notice => "NOTICE",
        }
    }
}

/// An error or notice of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorFields {
    /// What it means for the connection.
    pub severity: Severity,
    /// For programs.
    pub code: SqlState,
    /// One line, no full stop, lower case first, as Postgres' style guide has it.
    pub message: Cow<'static, str>,
    /// More of what is known.
    pub detail: Option<Cow<'static, str>>,
    /// What would mend it.
    pub hint: Option<Cow<'static, str>>,
    /// Where in the client's text, in characters, counted from 1.
    pub position: Option<u32>,
    /// What was being done.
    pub context: Option<Cow<'static, str>>,
}

impl ErrorFields {
    /// With this severity and no optional field.
    pub fn new(severity: Severity, code: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        ErrorFields {
            severity,
            code,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            context: None,
        }
    }

    /// The statement failed.
    pub fn error(code: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    /// The connection ends.
    pub fn fatal(code: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Severity::Fatal, code, message)
    }

    /// Adds the DETAIL line.
    pub fn detail(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(text.into());
        self
    }

    /// Adds the HINT line.
    pub fn hint(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(text.into());
        self
    }

    /// Adds the place in the client's text, in characters, counted from 1.
    pub fn position(mut self, characters: u32) -> Self {
        self.position = Some(characters);
        self
    }

    /// Adds the CONTEXT lines.
    pub fn context(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.context = Some(text.into());
        self
    }

    /// Appends it as ErrorResponse, or as NoticeResponse if nothing failed.
    pub fn write(&self, out: &mut Vec<u8>) {
        let tag = match self.severity {
            Severity::Error | Severity::Fatal => b'E',
            Severity::Warning | Severity::Notice => b'N',
        };
        frame::put(out, tag, |out| {
            put_field(out, b'S', self.severity.as_str());
            put_field(out, b'V', self.severity.as_str());
            put_field(out, b'C', self.code.as_str());
            put_field(out, b'M', &self.message);
            if let Some(detail) = &self.detail {
                put_field(out, b'D', detail);
            }
            if let Some(hint) = &self.hint {
                put_field(out, b'H', hint);
            }
            if let Some(position) = self.position {
                put_field(out, b'P', &position.to_string());
            }
            if let Some(context) = &self.context {
                put_field(out, b'W', context);
            }
            out.push(0);
        });
    }
}

impl fmt::Display for ErrorFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = self.severity.as_str();
        write!(f, "{severity}: {} ({})", self.message, self.code)
    }
}

impl std::error::Error for ErrorFields {}

/// Texts may quote what a stranger sent: a NUL would end the field early, so it becomes a space.
fn put_field(out: &mut Vec<u8>, field: u8, text: &str) {
    out.push(field);
    out.extend(text.bytes().map(|b| if b == 0 { b' ' } else { b }));
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_bytes() {
        let mut out = Vec::new();
        ErrorFields::error(SqlState::NO_SHARD_KEY, "no key")
            .detail("d")
            .hint("h")
            .position(12)
            .write(&mut out);
        let expected = b"E\0\0\0\x33SERROR\0VERROR\0CSR001\0Mno key\0Dd\0Hh\0P12\0\0";
        let mut expected = expected.to_vec();
        expected[4] = (expected.len() - 1) as u8;
        assert_eq!(out, expected);
    }

    #[test]
    fn notices_have_their_own_tag_and_nul_can_not_split_a_field() {
        let mut out = Vec::new();
        ErrorFields::new(Severity::Warning, SqlState::WARNING, "a\0Cx").write(&mut out);
        assert_eq!(out[0], b'N');
        assert_eq!(&out[5..], b"SWARNING\0VWARNING\0C01000\0Ma Cx\0\0");
    }

    #[test]
    fn codes_are_unique_and_printable() {
        for (i, a) in SqlState::ALL.iter().enumerate() {
            assert!(a.0.iter().all(u8::is_ascii_alphanumeric), "{a}");
            assert!(!SqlState::ALL[i + 1..].contains(a), "{a} twice");
        }
        assert_eq!(
            SqlState::from_field(b"57P01"),
            Some(SqlState::ADMIN_SHUTDOWN)
        );
        assert_eq!(SqlState::from_field(b"57P0"), None);
    }
}
