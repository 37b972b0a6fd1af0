//! Which replies are still owed to the client, in order: for each message sent to a server, whether its reply is passed
//! on or kept from the client (we sent the message ourselves), and the replies that we make up in between.

use std::collections::VecDeque;
use std::sync::Arc;

use super::context::{Described, Statement};
use crate::pool::StatementKey;
use crate::shardmap::ShardId;
use crate::wire::backend::{self, CommandComplete};

/// What a message sent to a server will be answered with, and what to do with the answer.
pub(crate) enum Reply {
    /// Query: anything up to ReadyForQuery.
    Query(Pass),
    /// Query of our own that sets what the client's statement, already sent, relies on: an error ends the connection.
    Bring,
    /// Parse, Bind and Execute of a statement of our own that the client's relies on, likewise; then perhaps a Close.
    Ours { closes: bool },
    /// Query, of which the client gets all but ReadyForQuery: more follows.
    Part,
    /// Parse: ParseComplete.
    Parse {
        pass: Pass,
        /// The name that the statement has on the server connection.
        name: u32,
        statement: Arc<Statement>,
        /// Whose schema was written into the text.
        shard: Option<ShardId>,
    },
    /// Bind, Close, or a Parse of our own: BindComplete, CloseComplete, ParseComplete.
    One(Pass),
    /// Describe: (ParameterDescription,) RowDescription or NoData.
    Describe(Pass),
    /// Describe of a statement: the same, and what comes is noted on the statement.
    Description(Box<Description>),
    /// Execute: rows, then CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute(Pass),
    /// Execute of a part of a statement: its rows are passed on, its CommandComplete is added to the others'.
    Share {
        /// The most rows that it was asked for; 0: all.
        asked: u32,
    },
    /// Sync: ReadyForQuery.
    Sync(Pass),
    /// Not sent to a server: these bytes are the answer.
    Made(Made),
}

/// See [`Reply::Description`].
pub(crate) struct Description {
    pub(crate) pass: Pass,
    pub(crate) statement: Arc<Statement>,
    /// What it is on the server connection.
    pub(crate) key: StatementKey,
    /// The ParameterDescription, once it has come.
    pub(crate) parameters: Vec<u8>,
    /// What the client was told. Anything else is an error.
    pub(crate) told: Option<Arc<Described>>,
}

impl Description {
    /// Of which all is right.
    pub(crate) fn of(pass: Pass, statement: &Arc<Statement>, key: StatementKey) -> Reply {
        Reply::Description(Box::new(Description {
            pass,
            statement: statement.clone(),
            key,
            parameters: Vec::new(),
            told: None,
        }))
    }
}

/// An answer of our own.
pub(crate) enum Made {
    ParseComplete,
    BindComplete,
    CloseComplete,
    NoData,
    /// CommandComplete with this tag.
    Tag(&'static str),
    /// The CommandComplete that the [`Reply::Share`]s before it add up to.
    Total,
    /// What is known of the statement's parameters and columns.
    Described(Arc<Described>),
    /// Any other whole messages.
    Bytes(Box<[u8]>),
}

/// What to do with a server's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// The client asked: it gets the answer.
    On,
    /// We asked: the client never hears of it. Errors are passed on all the same.
    Keep,
}

/// The replies owed on the active server connection, oldest first.
#[derive(Default)]
pub(crate) struct Replies {
    queue: VecDeque<Reply>,
    /// How many of them a server is to send.
    asked: usize,
    /// How many there have been, ever: the next one's number.
    pushed: u64,
    /// How many of those in the queue were put in front of others and have no number of their own.
    in_front: usize,
    /// What the shares answered so far come to.
    total: Option<Total>,
}

/// What the parts of a statement have done together.
struct Total {
    /// The command's tag without its number.
    command: Box<str>,
    rows: u64,
}

impl Replies {
    /// The statement of the Bind at the front is parsed anew, after the Sync that ends what it was sent in: three replies that
    /// come before its own, and so many of [`Reply::Ours`].
    pub(crate) fn put_in_front(&mut self, parse: Reply, ours: usize) {
        for _ in 0..ours {
            self.queue.push_front(Reply::Ours { closes: false });
        }
        self.queue.push_front(parse);
        self.queue.push_front(Reply::One(Pass::Keep));
        self.queue.push_front(Reply::Sync(Pass::Keep));
        self.asked += 3 + ours;
        self.in_front += 3 + ours;
    }

    pub(crate) fn push(&mut self, reply: Reply) {
        self.asked += usize::from(!matches!(reply, Reply::Made(_)));
        self.pushed += 1;
        self.queue.push_back(reply);
    }

    /// Whether a Sync is among what the replies are to.
    pub(crate) fn has_sync(&self) -> bool {
        self.queue
            .iter()
            .any(|reply| matches!(reply, Reply::Sync(_)))
    }

    /// The number of the reply that is pushed next.
    pub(crate) fn next_number(&self) -> u64 {
        self.pushed
    }

    /// The number of the reply at the front.
    pub(crate) fn front_number(&self) -> u64 {
        self.pushed - (self.queue.len() - self.in_front) as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether a server owes any of them. If none does, another server's may follow.
    pub(crate) fn are_asked(&self) -> bool {
        self.asked > 0
    }

    pub(crate) fn front(&self) -> Option<&Reply> {
        self.queue.front()
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut Reply> {
        self.queue.front_mut()
    }

    /// Drops the oldest, of which the answer needs no more than that.
    #[inline]
    pub(crate) fn answered(&mut self) {
        match self.queue.front() {
            None | Some(Reply::Made(_)) => drop(self.pop()),
            Some(_) => {
                self.in_front = self.in_front.saturating_sub(1);
                self.asked -= 1;
                self.queue.pop_front();
            }
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Reply> {
        let reply = self.queue.pop_front()?;
        self.in_front = self.in_front.saturating_sub(1);
        self.asked -= usize::from(!matches!(reply, Reply::Made(_)));
        match reply {
            Reply::Made(Made::Total) => {
                let mut bytes = Vec::new();
                if let Some(tag) = self.take_total() {
                    backend::command_complete(&mut bytes, &tag);
                }
                Some(Reply::Made(Made::Bytes(bytes.into())))
            }
            reply => Some(reply),
        }
    }

    /// Adds what a CommandComplete says of a share; `None`: it has given all rows that it was asked for, and has more.
    pub(crate) fn add_share(&mut self, complete: Option<&CommandComplete<'_>>, asked: u32) {
        let rows = match complete {
            Some(complete) => complete.rows().unwrap_or(0),
            None => u64::from(asked),
        };
        let total = self.total.get_or_insert_with(|| Total {
            command: "".into(),
            rows: 0,
        });
        total.rows += rows;
        if let Some(complete) = complete
            && total.command.is_empty()
        {
            total.command = String::from_utf8_lossy(complete.command()).into();
        }
    }

    /// The tag that the shares add up to.
    pub(crate) fn take_total(&mut self) -> Option<String> {
        let total = self.total.take()?;
        Some(format!("{} {}", total.command, total.rows))
    }

    /// What was pushed from number `from` on was never asked: the statements that it would have parsed, by their names.
    pub(crate) fn cut(&mut self, from: u64) -> Vec<u32> {
        let kept = match self.in_front {
            0 => from.saturating_sub(self.front_number()) as usize,
            _ => 0,
        };
        let mut parsed = Vec::new();
        for reply in self.queue.drain(kept.min(self.queue.len())..) {
            self.asked -= usize::from(!matches!(reply, Reply::Made(_)));
            if let Reply::Parse { name, .. } = reply {
                parsed.push(name);
            }
        }
        (self.pushed, self.in_front, self.total) = (from, 0, None);
        parsed
    }

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.asked = 0;
        self.in_front = 0;
        self.total = None;
    }

    /// The server answered with an error: it answers nothing more until the next Sync (or the end of the Query), so
    /// whatever stands before that is dropped, made-up replies too. Returns whether a Sync or Query was found; if not,
    /// the client has not sent its Sync yet.
    pub(crate) fn drop_until_sync(&mut self, dropped: &mut dyn FnMut(&Reply)) -> bool {
        self.total = None;
        while let Some(reply) = self.queue.front() {
            if matches!(
                reply,
                Reply::Query(_) | Reply::Bring | Reply::Part | Reply::Sync(_)
            ) {
                return true;
            }
            dropped(reply);
            self.pop();
        }
        false
    }
}

impl Made {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Made::ParseComplete => out.extend_from_slice(b"1\0\0\0\x04"),
            Made::BindComplete => out.extend_from_slice(b"2\0\0\0\x04"),
            Made::CloseComplete => out.extend_from_slice(b"3\0\0\0\x04"),
            Made::NoData => backend::no_data(out),
            Made::Tag(tag) => backend::command_complete(out, tag),
            // Made of bytes when it is taken out of the queue.
            Made::Total => {}
            Made::Described(described) => out.extend_from_slice(described.messages()),
            Made::Bytes(bytes) => out.extend_from_slice(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_drops_all_up_to_the_sync_and_not_beyond() {
        let mut r = Replies::default();
        r.push(Reply::One(Pass::On));
        r.push(Reply::Made(Made::ParseComplete));
        r.push(Reply::Execute(Pass::On));
        r.push(Reply::Sync(Pass::On));
        r.push(Reply::Execute(Pass::On));
        let mut n = 0;
        assert!(r.drop_until_sync(&mut |_| n += 1));
        assert_eq!(n, 3);
        assert!(matches!(r.front(), Some(Reply::Sync(Pass::On))));
        r.pop();
        assert!(!r.drop_until_sync(&mut |_| {}), "no Sync sent yet");
        assert!(r.is_empty());
    }
}
