//! gram.y's `TransactionStmt`, and the transaction modes that `SET` shares with it.

use super::reader::Reader;
use super::{BeginOptions, Control, Isolation};

pub(super) fn begin(r: &mut Reader) -> Option<Control> {
    opt_transaction(r);
    modes(r).map(Control::Begin)
}

pub(super) fn start(r: &mut Reader) -> Option<Control> {
    r.word("transaction")
        .then(|| modes(r).map(Control::Begin))?
}

pub(super) fn commit(r: &mut Reader) -> Option<Control> {
    if r.word("prepared") {
        return r.sconst().map(Control::CommitPrepared);
    }
    end(r)
}

pub(super) fn end(r: &mut Reader) -> Option<Control> {
    opt_transaction(r);
    chain(r).map(|chain| Control::Commit { chain })
}

pub(super) fn rollback(r: &mut Reader) -> Option<Control> {
    if r.word("prepared") {
        return r.sconst().map(Control::RollbackPrepared);
    }
    opt_transaction(r);
    if r.word("to") {
        return savepoint_name(r).map(Control::RollbackTo);
    }
    chain(r).map(|chain| Control::Rollback { chain })
}

pub(super) fn abort(r: &mut Reader) -> Option<Control> {
    opt_transaction(r);
    chain(r).map(|chain| Control::Rollback { chain })
}

pub(super) fn release(r: &mut Reader) -> Option<Control> {
    savepoint_name(r).map(Control::Release)
}

/// `SAVEPOINT name` or `name`, which may be `savepoint`.
fn savepoint_name(r: &mut Reader) -> Option<String> {
    let keyword = |r: &mut Reader| r.word("savepoint").then(|| r.col_id())?;
    r.whole(keyword).or_else(|| r.col_id())
}

fn opt_transaction(r: &mut Reader) {
    r.one_of(&["work", "transaction"]);
}

/// `opt_transaction_chain`.
fn chain(r: &mut Reader) -> Option<bool> {
    if !r.word("and") {
        return Some(false);
    }
    let no = r.word("no");
    r.word("chain").then_some(!no)
}

/// `transaction_mode_list_or_empty`: commas between them are optional.
pub(super) fn modes(r: &mut Reader) -> Option<BeginOptions> {
    let mut options = BeginOptions::default();
    let mut comma = false;
    while mode(r, &mut options)? {
        comma = r.punct(b',');
    }
    (!comma).then_some(options)
}

/// One mode; `Some(false)` if none comes next.
fn mode(r: &mut Reader, options: &mut BeginOptions) -> Option<bool> {
    if r.word("isolation") {
        options.isolation = Some(isolation(r)?);
    } else if r.word("read") {
        options.read_only = Some(r.one_of(&["write", "only"])? == 1);
    } else if r.word("deferrable") {
        options.deferrable = Some(true);
    } else if r.words(&["not", "deferrable"]) {
        options.deferrable = Some(false);
    } else {
        return Some(false);
    }
    Some(true)
}

fn isolation(r: &mut Reader) -> Option<Isolation> {
    if !r.word("level") {
        return None;
    }
    if r.word("serializable") {
        return Some(Isolation::Serializable);
    }
    if r.words(&["repeatable", "read"]) {
        return Some(Isolation::RepeatableRead);
    }
    if !r.word("read") {
        return None;
    }
    match r.one_of(&["committed", "uncommitted"])? {
        0 => Some(Isolation::ReadCommitted),
        _ => Some(Isolation::ReadUncommitted),
    }
}
