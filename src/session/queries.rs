//! Statements of our own on several server connections side by side: one Query each, of which the client hears nothing
//! but notices and changed parameters.

use std::fmt;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::Session;
use super::ends::{Link, poll_link};
use super::errors::Fault;
use super::parameters::pass_status;
use crate::catalog::Row;
use crate::wire::backend::{CommandComplete, ErrorView};
use crate::wire::error::SqlState;
use crate::wire::{frame, frontend};

/// What a host says to a Query.
pub(super) enum Answer {
    /// It is done; the tag of its last command.
    Done(Box<str>),
    /// It is refused: the ErrorResponse message.
    Refused(Box<[u8]>),
    /// The connection is gone, or there was no answer in time: [`Link::conn`] is `None` now.
    Lost(Fault),
}

impl Answer {
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Answer::Done(_))
    }

    pub(super) fn is_refused_with(&self, code: SqlState) -> bool {
        let Answer::Refused(error) = self else {
            return false;
        };
        ErrorView::decode(&error[frame::HEADER..]).is_ok_and(|view| view.code() == Some(code))
    }

    /// As the fault of the statement that it was asked for.
    pub(super) fn into_fault(self) -> Option<Fault> {
        match self {
            Answer::Done(_) => None,
            Answer::Lost(Fault::Server(fields)) => Some(Fault::Statement(fields)),
            Answer::Lost(fault) => Some(fault),
            Answer::Refused(error) => Some(match ErrorView::decode(&error[frame::HEADER..]) {
                Ok(view) => Fault::Statement(Box::new(view.to_fields())),
                Err(fault) => Fault::from(fault),
            }),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Done(tag) => f.write_str(tag),
            Answer::Refused(error) => match ErrorView::decode(&error[frame::HEADER..]) {
                Ok(view) => {
                    let message = view.get(b'M').unwrap_or_default();
                    f.write_str(&String::from_utf8_lossy(message))
                }
                Err(fault) => fault.fmt(f),
            },
            Answer::Lost(Fault::Server(fields) | Fault::Statement(fields)) => {
                f.write_str(&fields.message)
            }
            Answer::Lost(fault) => write!(f, "{fault:?}"),
        }
    }
}

/// A Query under way.
struct Asked {
    link: usize,
    tag: Box<str>,
    refused: Option<Box<[u8]>>,
    answer: Option<Answer>,
}

impl Session {
    /// One Query on one link; see [`Session::ask`].
    pub(super) async fn query_link(&mut self, i: usize, text: &str) -> Answer {
        let mut answers = self.query_links(vec![(i, text.to_owned())], None).await;
        answers
            .pop()
            .unwrap_or_else(|| Answer::Lost(Fault::lost("", None)))
    }

    /// Sends each text on its link and waits for all answers, which come in the order of `asks`. Nothing else is owed on
    /// these links. A host that does not answer within `limit` is as good as lost.
    pub(super) async fn query_links(
        &mut self,
        asks: Vec<(usize, String)>,
        limit: Option<Duration>,
    ) -> Vec<Answer> {
        let mut asked: Vec<Asked> = Vec::with_capacity(asks.len());
        for (link, text) in asks {
            frontend::query(&mut self.links[link].outbox, text.as_bytes());
            asked.push(Asked {
                link,
                tag: "".into(),
                refused: None,
                answer: None,
            });
        }
        let answering = self.query_answers(&mut asked);
        match limit {
            Some(limit) => drop(tokio::time::timeout(limit, answering).await),
            None => answering.await,
        }
        let answers = asked.into_iter().map(|one| {
            one.answer.unwrap_or_else(|| {
                let link = &mut self.links[one.link];
                link.discard();
                let waited = format!("no answer in {:?}", limit.unwrap_or_default());
                let cause = std::io::Error::new(std::io::ErrorKind::TimedOut, waited);
                Answer::Lost(Fault::lost(&link.pool.host, Some(cause)))
            })
        });
        answers.collect()
    }

    /// The rows of a Query of ours on one link, of each of its statements.
    pub(super) async fn rows_of(&mut self, i: usize, text: &str) -> Result<Vec<Vec<Row>>, Fault> {
        frontend::query(&mut self.links[i].outbox, text.as_bytes());
        self.links[i].unsynced = false;
        let mut answers: Vec<Vec<Row>> = Vec::new();
        let mut rows = Vec::new();
        let mut refused = None;
        loop {
            let (tag, len) = self.next_message(i).await?;
            self.have(i, len).await?;
            let link = &mut self.links[i];
            let message = link.unread()[..len].to_vec();
            link.take(len);
            let body = &message[frame::HEADER..];
            match tag {
                b'D' => rows.push(row(body)),
                b'C' => answers.push(std::mem::take(&mut rows)),
                b'E' => {
                    refused = Some(ErrorView::decode(body)?.to_fields());
                }
                b'N' | b'A' => self.client.outbox.extend_from_slice(&message),
                b'S' => drop(pass_status(&mut self.client, link, &message)),
                b'Z' => {
                    link.status = body.first().copied().unwrap_or(b'E');
                    break;
                }
                _ => {}
            }
        }
        match refused {
            Some(fields) => Err(Fault::statement(fields)),
            None => Ok(answers),
        }
    }

    async fn query_answers(&mut self, asked: &mut [Asked]) {
        while asked.iter().any(|one| one.answer.is_none()) {
            let links = &mut self.links;
            poll_fn(|cx| {
                let mut some = false;
                for one in asked.iter_mut().filter(|one| one.answer.is_none()) {
                    let link = &mut links[one.link];
                    match poll_link(cx, link) {
                        Poll::Pending => continue,
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(cause)) => {
                            one.lose(Fault::lost(&link.pool.host, cause), link);
                        }
                    }
                    some = true;
                }
                match some {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
            for one in asked.iter_mut() {
                self.take_query_answers(one);
            }
        }
    }

    /// Deals with the whole messages that have come.
    fn take_query_answers(&mut self, one: &mut Asked) {
        while one.answer.is_none() {
            let link = &mut self.links[one.link];
            let len = match frame::header(link.unread()) {
                Ok(Some(header)) if link.unread().len() >= header.len => header.len,
                Ok(_) => return,
                Err(_) => return one.lose(Fault::protocol(&link.pool.host, 0), link),
            };
            let message = link.reword(link.unread()[..len].to_vec());
            link.take(len);
            let body = &message[frame::HEADER..];
            match message[0] {
                b'Z' => {
                    link.status = body.first().copied().unwrap_or(b'E');
                    link.unsynced = false;
                    one.answer = Some(match one.refused.take() {
                        Some(error) => Answer::Refused(error),
                        None => Answer::Done(std::mem::take(&mut one.tag)),
                    });
                }
                b'C' => {
                    if let Ok(complete) = CommandComplete::decode(body) {
                        one.tag = String::from_utf8_lossy(complete.tag).into();
                    }
                }
                b'E' => match ErrorView::decode(body) {
                    Ok(view) if view.is_fatal() => {
                        one.lose(Fault::ended(&link.pool.host, &view), link);
                    }
                    Ok(_) => one.refused = Some(message.into()),
                    Err(_) => one.lose(Fault::protocol(&link.pool.host, b'E'), link),
                },
                b'N' | b'A' => self.client.outbox.extend_from_slice(&message),
                b'S' => drop(pass_status(&mut self.client, link, &message)),
                _ => {}
            }
        }
    }
}

/// The values of a DataRow in text format. One that is cut short ends early.
pub(super) fn row(body: &[u8]) -> Row {
    let mut values = Vec::new();
    let mut rest = body.get(2..).unwrap_or_default();
    while let Some((len, behind)) = rest.split_first_chunk::<4>() {
        let len = i32::from_be_bytes(*len);
        if len < 0 {
            values.push(None);
            rest = behind;
            continue;
        }
        let Some(value) = behind.get(..len as usize) else {
            break;
        };
        values.push(Some(String::from_utf8_lossy(value).into_owned()));
        rest = &behind[len as usize..];
    }
    values
}

impl Asked {
    fn lose(&mut self, fault: Fault, link: &mut Link) {
        link.discard();
        self.answer = Some(Answer::Lost(fault));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn rows_of_text() {
        let body = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0";
        let own = |text: &str| Some(text.to_owned());
        assert_eq!(super::row(body), [own("ab"), None, own("")]);
        assert_eq!(super::row(b"\0\x01\0\0\0\x09ab"), []);
        assert!(super::row(b"").is_empty());
    }
}
