//! Why a statement is not run: a stable code, and a hint that would make it work.

use std::fmt;

/// The SQLSTATE of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// SR001: no shard key.
    NoKey,
    /// SR002: more than one shard.
    ManyShards,
    /// SR003: a table is not known, or has no key.
    UnknownTable,
    /// SR004: the shards' answers can't be merged exactly.
    NotMergeable,
    /// SR005: the key would change.
    ChangesKey,
    /// SR006: the statement can't be read.
    Unreadable,
    /// SR007: the key's value can't be used.
    BadKey,
    /// 0A000: a feature that is not supported.
    NotSupported,
}

impl Code {
    /// The five characters.
    pub fn sqlstate(self) -> &'static str {
        match self {
            Code::NoKey => "SR001",
            Code::ManyShards => "SR002",
            Code::UnknownTable => "SR003",
            Code::NotMergeable => "SR004",
            Code::ChangesKey => "SR005",
            Code::Unreadable => "SR006",
            Code::BadKey => "SR007",
            Code::NotSupported => "0A000",
        }
    }
}

/// A statement that is not run. The three texts are for fields M, D and H of an ErrorResponse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its code.
    pub code: Code,
    /// What is wrong, in one line.
    pub message: String,
    /// More of it.
    pub detail: Option<String>,
    /// What to do.
    pub hint: String,
}

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal {
            code,
            message: message.into(),
            detail: None,
            hint: hint.into(),
        }
    }

    pub(super) fn detail(mut self, detail: impl Into<String>) -> Refusal {
        self.detail = Some(detail.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.sqlstate(), self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        write!(f, " -- {}", self.hint)
    }
}

impl std::error::Error for Refusal {}
