//! What a message of a server means as an answer to what was sent to it.

use super::super::replies::{Pass, Reply};
use crate::wire::frame;

/// Walks over whole messages that are passed on and change nothing: rows, above all.
#[inline]
pub(super) fn skip_rows(inbox: &[u8], mut at: usize, owed: &Reply) -> usize {
    let query = match owed {
        Reply::Query(Pass::On) | Reply::Part => true,
        Reply::Execute(Pass::On) | Reply::Share { .. } => false,
        _ => return at,
    };
    while let Some(&[tag, a, b, c, d]) = inbox.get(at..at + frame::HEADER) {
        let plain = match tag {
            b'D' | b'd' => true,
            b'T' | b'C' => query,
            _ => false,
        };
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if !plain || len < 4 || inbox.len() - at < len + 1 {
            return at;
        }
        at += len + 1;
    }
    at
}

pub(in crate::session) enum Verdict {
    /// Part of the present answer.
    Pass(Pass),
    /// The end of the present answer.
    Answers(Pass),
    /// ReadyForQuery: the end of the present answer.
    Ready(Pass),
    /// It must be looked into.
    Look,
    /// It has no place here.
    Unexpected,
}

fn pass_of(owed: &Reply) -> Pass {
    match owed {
        Reply::Query(p)
        | Reply::One(p)
        | Reply::Describe(p)
        | Reply::Execute(p)
        | Reply::Sync(p) => *p,
        Reply::Parse { pass, .. } => *pass,
        Reply::Description(description) => description.pass,
        Reply::Bring | Reply::Ours { .. } => Pass::Keep,
        Reply::Part | Reply::Share { .. } | Reply::Made(_) => Pass::On,
    }
}

/// What a message means as (part of) the answer to what was sent (protocol chapter 55.7).
pub(in crate::session) fn judge(tag: u8, owed: &Reply) -> Verdict {
    let pass = pass_of(owed);
    match (tag, owed) {
        (b'E' | b'S' | b'G', _) => Verdict::Look,
        (b'N', _) => Verdict::Pass(pass),
        // Whatever is under way: it is for the client.
        (b'A', _) => Verdict::Pass(Pass::On),
        (b'Z', Reply::Query(_) | Reply::Bring | Reply::Sync(_)) => Verdict::Ready(pass),
        (b'Z', Reply::Part) => Verdict::Ready(Pass::Keep),
        (_, Reply::Query(_) | Reply::Bring | Reply::Part) => Verdict::Pass(pass),
        (b'1' | b'2' | b'D', Reply::Ours { .. }) => Verdict::Pass(pass),
        (b'C', Reply::Ours { closes: true }) => Verdict::Pass(pass),
        (b'C', Reply::Ours { closes: false }) => Verdict::Answers(pass),
        (b'3', Reply::Ours { closes: true }) => Verdict::Answers(pass),
        (b'1', Reply::Parse { .. }) => Verdict::Answers(pass),
        (b'1' | b'2' | b'3', Reply::One(_)) => Verdict::Answers(pass),
        (b't' | b'T' | b'n', Reply::Description(_)) => Verdict::Look,
        (b't', Reply::Describe(_)) => Verdict::Pass(pass),
        (b'T' | b'n', Reply::Describe(_)) => Verdict::Answers(pass),
        (b'C' | b's' | b'I', Reply::Execute(_)) => Verdict::Answers(pass),
        (b'D' | b'd' | b'H' | b'c', Reply::Execute(_)) => Verdict::Pass(pass),
        (b'C' | b's', Reply::Share { .. }) => Verdict::Look,
        (b'D', Reply::Share { .. }) => Verdict::Pass(pass),
        _ => Verdict::Unexpected,
    }
}
