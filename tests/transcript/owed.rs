//! Which answers are still owed for what was sent, by the protocol chapter: so that a client knows when to wait no longer,
//! also where no Sync has been sent.

use std::collections::VecDeque;

use super::message::Message;

/// What a message means to the order of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Query,
    /// Parse, Bind, Close: one message.
    One,
    /// Describe: ends with RowDescription or NoData.
    Describe,
    Execute,
    Sync,
    Flush,
    CopyData,
    CopyEnd,
}

/// A message that was sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    kind: Kind,
    /// Its number.
    at: usize,
}

/// The messages that are not answered yet.
#[derive(Default)]
pub struct Owed {
    queue: VecDeque<Sent>,
    /// How many have been sent.
    sent: usize,
    /// An error came: all is ignored up to Sync.
    skipping: bool,
    /// The message at the front waits for CopyData.
    copying: bool,
}

impl Owed {
    pub fn sent(&mut self, message: &Message) {
        let at = self.sent;
        self.sent += 1;
        let kind = match message {
            Message::Query(_) | Message::FunctionCall(..) => Kind::Query,
            Message::Parse { .. }
            | Message::Bind { .. }
            | Message::CloseStatement(_)
            | Message::ClosePortal(_) => Kind::One,
            Message::DescribeStatement(_) | Message::DescribePortal(_) => Kind::Describe,
            Message::Execute(..) => Kind::Execute,
            Message::Sync => Kind::Sync,
            Message::Flush => Kind::Flush,
            Message::CopyData(_) => Kind::CopyData,
            Message::CopyDone | Message::CopyFail(_) => Kind::CopyEnd,
            Message::Pause | Message::Cancel | Message::CancelNothing => return,
        };
        self.queue.push_back(Sent { kind, at });
        self.drop_unanswered();
    }

    /// The number of the message that is answered next.
    pub fn front(&self) -> Option<usize> {
        self.queue.front().map(|sent| sent.at)
    }

    /// A backend message has come.
    pub fn got(&mut self, tag: u8) {
        let Some(Sent { kind: front, at }) = self.queue.front().copied() else {
            return;
        };
        let of = |kind| Sent { kind, at };
        match (tag, front) {
            (b'E', Kind::Query) => self.copying = false,
            (b'E', _) => {
                if self.copying {
                    // The rest of the data is not of interest any more; which of it was read before, nobody knows.
                    let rest =
                        |s: &Sent| matches!(s.kind, Kind::CopyData | Kind::CopyEnd | Kind::Flush);
                    self.queue.pop_front();
                    while self.queue.front().is_some_and(rest) {
                        self.queue.pop_front();
                    }
                    self.queue.push_front(of(Kind::Flush));
                    self.copying = false;
                }
                if self.queue.pop_front().map(|s| s.kind) != Some(Kind::Sync) {
                    self.skipping = true;
                } else {
                    // An error at commit: ReadyForQuery follows.
                    self.queue.push_front(of(Kind::Sync));
                }
            }
            (b'G', Kind::Query | Kind::Execute) => {
                self.copying = true;
                // Ignored while data is waited for.
                while matches!(
                    self.queue.get(1).map(|s| s.kind),
                    Some(Kind::Sync | Kind::Flush)
                ) {
                    self.queue.remove(1);
                }
            }
            (b'C', Kind::Query | Kind::Execute) if self.copying => {
                self.copying = false;
                let end = self.queue.iter().position(|s| s.kind == Kind::CopyEnd);
                self.queue.drain(1..end.map_or(1, |end| end + 1));
                if front == Kind::Execute {
                    self.queue.pop_front();
                }
            }
            (b'Z', Kind::Query | Kind::Sync)
            | (b'1' | b'2' | b'3', Kind::One)
            | (b'T' | b'n', Kind::Describe)
            | (b'C' | b's' | b'I', Kind::Execute) => {
                self.queue.pop_front();
            }
            _ => {}
        }
        self.drop_unanswered();
    }

    /// Whether nothing more comes before more is sent (if what must be answered at once is: a Flush or Sync was last).
    pub fn settled(&self) -> bool {
        match self.copying {
            true => self.queue.iter().skip(1).all(|s| s.kind == Kind::CopyData),
            false => self.queue.is_empty(),
        }
    }

    fn drop_unanswered(&mut self) {
        while let (Some(front), false) = (self.queue.front(), self.copying) {
            match front.kind {
                Kind::Sync => {
                    self.skipping = false;
                    return;
                }
                Kind::Flush | Kind::CopyData | Kind::CopyEnd => {}
                _ if self.skipping => {}
                _ => return,
            }
            self.queue.pop_front();
        }
    }
}
