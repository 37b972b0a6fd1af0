//! The statements that a session acts on itself: transactions, settings, prepared statements, cursors, notifications.
//! Read by Postgres' grammar (gram.y); what isn't exactly of it is no control statement, so that Postgres reports the error.

mod call;
mod reader;
mod refused;
mod setting;
mod statement;
mod transaction;

use std::ops::Range;

pub use self::call::{Argument, Call, call};
use self::reader::Reader;
use super::shape::{Hole, HoleKind, Shape};

/// A control statement. Names are folded or unquoted; ranges are bytes of the text it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// `BEGIN`, `START TRANSACTION`.
    Begin(BeginOptions),
    /// `COMMIT`, `END`.
    Commit {
        /// `AND CHAIN`.
        chain: bool,
    },
    /// `ROLLBACK`, `ABORT`.
    Rollback {
        /// `AND CHAIN`.
        chain: bool,
    },
    /// `SAVEPOINT name`.
    Savepoint(String),
    /// `RELEASE [SAVEPOINT] name`.
    Release(String),
    /// `ROLLBACK TO [SAVEPOINT] name`.
    RollbackTo(String),
    /// `PREPARE TRANSACTION 'id'`.
    PrepareTransaction(String),
    /// `COMMIT PREPARED 'id'`.
    CommitPrepared(String),
    /// `ROLLBACK PREPARED 'id'`.
    RollbackPrepared(String),
    /// `SET [SESSION | LOCAL] name ...` and the spellings of their own (`TIME ZONE`, `NAMES`, `ROLE`, `SCHEMA` ...).
    Set {
        /// Lower case, as setting names have no case: `timezone`, `client_encoding`, `presplit.key`.
        name: String,
        /// What it is set to.
        value: SetValue,
        /// `SET LOCAL`.
        local: bool,
    },
    /// `SET TRANSACTION ...`: of the present transaction.
    SetTransaction(BeginOptions),
    /// `SET TRANSACTION SNAPSHOT 'id'`.
    SetTransactionSnapshot(String),
    /// `SET SESSION CHARACTERISTICS AS TRANSACTION ...`: of all transactions to come.
    SetSessionCharacteristics(BeginOptions),
    /// `SET CONSTRAINTS ...`.
    SetConstraints {
        /// The constraints' names without schemas; none: `ALL`.
        names: Vec<String>,
        /// `DEFERRED`, not `IMMEDIATE`.
        deferred: bool,
    },
    /// `RESET name`, or `RESET ALL` (`None`).
    Reset(Option<String>),
    /// `SHOW name`; `SHOW ALL` is `all`.
    Show(String),
    /// `DISCARD ...`.
    Discard(Discard),
    /// `PREPARE name (types) AS statement`.
    Prepare {
        /// The prepared statement's name.
        name: String,
        /// The bytes of the name.
        at: Range<usize>,
        /// How many types stand between the parentheses. Not read further.
        types: usize,
        /// The statement.
        body: Range<usize>,
    },
    /// `EXECUTE name (arguments)`, which [`call`] reads further, or `EXPLAIN` of it.
    Execute {
        /// The prepared statement's name.
        name: String,
        /// With `EXPLAIN` before it.
        explain: bool,
    },
    /// `DEALLOCATE name`, or `DEALLOCATE ALL` (`None`).
    Deallocate(Option<String>),
    /// `DECLARE name CURSOR FOR query`.
    Declare {
        /// The cursor's name.
        name: String,
        /// `WITH HOLD`.
        hold: bool,
        /// The query.
        query: Range<usize>,
    },
    /// `FETCH`, `MOVE`.
    Fetch {
        /// The cursor's name.
        cursor: String,
        /// `MOVE`.
        is_move: bool,
    },
    /// `CLOSE name`, or `CLOSE ALL` (`None`).
    ClosePortal(Option<String>),
    /// `LISTEN channel`.
    Listen(String),
    /// `UNLISTEN channel`, or `UNLISTEN *` (`None`).
    Unlisten(Option<String>),
    /// `NOTIFY channel`, with or without payload.
    Notify,
    /// `LOCK TABLE ...`.
    Lock,
    /// `EXPLAIN (ROUTE) statement`, ours.
    ExplainRoute {
        /// The statement.
        query: Range<usize>,
    },
    /// `RELOAD`, ours; Postgres has no such statement.
    Reload,
}

/// `transaction_mode_list`; what isn't named is `None`, of what is named twice the last counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BeginOptions {
    /// `ISOLATION LEVEL`.
    pub isolation: Option<Isolation>,
    /// `READ ONLY`, `READ WRITE`.
    pub read_only: Option<bool>,
    /// `[NOT] DEFERRABLE`.
    pub deferrable: Option<bool>,
}

impl BeginOptions {
    /// The statement that begins a transaction with these.
    pub fn begin(&self) -> String {
        let isolation = self.isolation.map(|isolation| match isolation {
            Isolation::ReadUncommitted => " ISOLATION LEVEL READ UNCOMMITTED",
            Isolation::ReadCommitted => " ISOLATION LEVEL READ COMMITTED",
            Isolation::RepeatableRead => " ISOLATION LEVEL REPEATABLE READ",
            Isolation::Serializable => " ISOLATION LEVEL SERIALIZABLE",
        });
        let pick = |value: Option<bool>, yes, no| value.map(|value| if value { yes } else { no });
        let read_only = pick(self.read_only, " READ ONLY", " READ WRITE");
        let deferrable = pick(self.deferrable, " DEFERRABLE", " NOT DEFERRABLE");
        let modes = [isolation, read_only, deferrable].map(Option::unwrap_or_default);
        format!("BEGIN{}", modes.concat())
    }

    /// These, where `later` does not say otherwise.
    pub fn and_then(&self, later: &BeginOptions) -> BeginOptions {
        BeginOptions {
            isolation: later.isolation.or(self.isolation),
            read_only: later.read_only.or(self.read_only),
            deferrable: later.deferrable.or(self.deferrable),
        }
    }

    /// REPEATABLE READ or SERIALIZABLE.
    pub fn one_snapshot(&self) -> bool {
        self.isolation >= Some(Isolation::RepeatableRead)
    }
}

/// `iso_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    /// The same as read committed, to Postgres.
    ReadUncommitted,
    /// A snapshot a statement.
    ReadCommitted,
    /// A snapshot a transaction.
    RepeatableRead,
    /// As if one after the other.
    Serializable,
}

/// What follows `DISCARD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// All session state.
    All,
    /// Cached plans.
    Plans,
    /// Sequence state.
    Sequences,
    /// Temporary tables (`TEMP`, `TEMPORARY`).
    Temp,
}

/// What a setting is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetValue {
    /// `DEFAULT`, `TIME ZONE LOCAL`, `NAMES` alone.
    Default,
    /// `FROM CURRENT`: the value that it has.
    Current,
    /// One value or several: `SET name TO <raw>` says it again.
    List {
        /// At least one.
        items: Vec<SetItem>,
        /// The values as they were written.
        raw: Range<usize>,
    },
    /// `TIME ZONE INTERVAL ...`: only `SET TIME ZONE <raw>` says it again.
    Interval {
        /// The interval as it was written, with the word `INTERVAL`.
        raw: Range<usize>,
    },
}

impl SetValue {
    /// The value, if it is a single one.
    pub fn single(&self) -> Option<&str> {
        match self {
            SetValue::List { items, .. } => match items.as_slice() {
                [item] => Some(item.as_str()),
                _ => None,
            },
            _ => None,
        }
    }
}

/// One value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetItem {
    /// A word, folded to lower case (keywords too: `on`, `true`), or a quoted identifier's value.
    Ident(String),
    /// A string's value.
    Text(String),
    /// A number as written, with its sign.
    Number(String),
}

impl SetItem {
    /// The value as Postgres takes it.
    pub fn as_str(&self) -> &str {
        match self {
            SetItem::Ident(text) | SetItem::Text(text) | SetItem::Number(text) => text,
        }
    }
}

impl Control {
    /// Another text of the same shape may be another `Control`: this one holds the value of a literal, or byte ranges,
    /// which move with the literals' lengths. Such a value may only be kept by the whole text.
    pub fn depends_on_literals(&self) -> bool {
        match self {
            Control::PrepareTransaction(_)
            | Control::CommitPrepared(_)
            | Control::RollbackPrepared(_)
            | Control::SetTransactionSnapshot(_)
            | Control::SetTransaction(_)
            | Control::Prepare { .. }
            | Control::Declare { .. }
            | Control::ExplainRoute { .. } => true,
            Control::Set { value, .. } => {
                matches!(value, SetValue::List { .. } | SetValue::Interval { .. })
            }
            _ => false,
        }
    }

    /// What it does outside of a block depends on the tables that there are. (A cursor without `HOLD` can't be declared there.)
    pub fn goes_by_tables(&self) -> bool {
        matches!(
            self,
            Control::Prepare { .. }
                | Control::Execute { .. }
                | Control::Declare { hold: true, .. }
                | Control::Lock
                | Control::ExplainRoute { .. }
        )
    }
}

/// Whether a text in which [`parse`] finds no control statement might be one with other literals. That it is none may
/// only be kept by the whole text then.
pub fn hangs_on_literals(text: &[u8], shape: &Shape) -> bool {
    const KEYWORDS: [&str; 4] = ["set", "prepare", "commit", "rollback"];
    let literal = |hole: &Hole| hole.kind != HoleKind::Comment;
    Reader::new(text, shape).one_of(&KEYWORDS).is_some() && shape.holes.iter().any(literal)
}

/// The control statement that `text` is, `shape` being its shape: one statement, semicolons around it allowed. `None` for all else.
pub fn parse(text: &[u8], shape: &Shape) -> Option<Control> {
    let mut reader = Reader::new(text, shape);
    let first = reader.first_word()?;
    let mut keyword = [0u8; 10];
    let keyword = keyword.get_mut(..first.len())?;
    keyword.copy_from_slice(first);
    keyword.make_ascii_lowercase();
    let r = &mut reader;
    let control = match &*keyword {
        b"begin" => transaction::begin(r),
        b"start" => transaction::start(r),
        b"commit" => transaction::commit(r),
        b"end" => transaction::end(r),
        b"rollback" => transaction::rollback(r),
        b"abort" => transaction::abort(r),
        b"savepoint" => r.col_id().map(Control::Savepoint),
        b"release" => transaction::release(r),
        b"set" => setting::set(r),
        b"reset" => setting::reset(r),
        b"show" => setting::show(r),
        b"discard" => setting::discard(r),
        b"prepare" => statement::prepare(r),
        b"execute" => statement::execute(r),
        b"deallocate" => statement::deallocate(r),
        b"declare" => statement::declare(r),
        b"fetch" => statement::fetch(r, false),
        b"move" => statement::fetch(r, true),
        b"close" => statement::close(r),
        b"listen" => r.col_id().map(Control::Listen),
        b"unlisten" => statement::unlisten(r),
        b"notify" => statement::notify(r),
        b"lock" => statement::lock(r),
        b"explain" => statement::explain(r),
        b"reload" => Some(Control::Reload),
        _ => None,
    }?;
    reader.at_end().then_some(control)
}

#[cfg(test)]
mod tests;
