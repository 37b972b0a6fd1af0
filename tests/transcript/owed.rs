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

/// The messages that are not answered yet.
#[derive(Default)]
pub struct Owed {
    queue: VecDeque<Kind>,
    /// An error came: all is ignored up to Sync.
    skipping: bool,
    /// The message at the front waits for CopyData.
    copying: bool,
}

impl Owed {
    pub fn sent(&mut self, message: &Message) {
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
        self.queue.push_back(kind);
        self.drop_unanswered();
    }

    /// A backend message has come.
    pub fn got(&mut self, tag: u8) {
        let Some(front) = self.queue.front().copied() else {
            return;
        };
        match (tag, front) {
            (b'E', Kind::Query) => self.copying = false,
            (b'E', _) => {
                if self.copying {
                    // The rest of the data is not of interest any more; which of it was read before, nobody knows.
                    let rest = |k: &Kind| matches!(k, Kind::CopyData | Kind::CopyEnd | Kind::Flush);
                    self.queue.pop_front();
                    while self.queue.front().is_some_and(rest) {
                        self.queue.pop_front();
                    }
                    self.queue.push_front(Kind::Flush);
                    self.copying = false;
                }
                if self.queue.pop_front() != Some(Kind::Sync) {
                    self.skipping = true;
                } else {
                    // An error at commit: ReadyForQuery follows.
                    self.queue.push_front(Kind::Sync);
                }
            }
            (b'G', Kind::Query | Kind::Execute) => {
                self.copying = true;
                // Ignored while data is waited for.
                while matches!(self.queue.get(1), Some(Kind::Sync | Kind::Flush)) {
                    self.queue.remove(1);
                }
            }
            (b'C', Kind::Query | Kind::Execute) if self.copying => {
                self.copying = false;
                let end = self.queue.iter().position(|k| *k == Kind::CopyEnd);
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
            true => self.queue.iter().skip(1).all(|k| *k == Kind::CopyData),
            false => self.queue.is_empty(),
        }
    }

    fn drop_unanswered(&mut self) {
        while let (Some(front), false) = (self.queue.front(), self.copying) {
            match front {
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
