//! What servers say while rows are fed to them, and waiting for them and for the client at once.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::super::Session;
use super::super::ends::{READ_MOST, poll_fill};
use super::super::errors::Fault;
use super::context::write_back;
use super::feed::{Feed, Feeds};
use crate::wire::backend::{CommandComplete, ErrorView, ParameterStatus};
use crate::wire::error::SqlState;
use crate::wire::frame;

/// What has been heard.
#[derive(Default)]
pub(super) struct Heard {
    /// The first CopyInResponse.
    pub(super) response: Option<Vec<u8>>,
    /// The ErrorResponse, its line put right.
    pub(super) error: Option<Vec<u8>>,
    /// The line of the client's data that an error is in, if not the one that the server counts.
    pub(super) at_line: Option<u64>,
    /// The line at which the client gave up (CopyFail): where the error about that is.
    pub(super) given_up: Option<u64>,
    /// Of a host that gets no rows: what it says concerns nobody.
    pub(super) leaving: bool,
}

/// What is waited for. An error of the server always ends the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// CopyInResponse.
    Response,
    /// All that was written has gone to some server.
    Written,
    /// The client says more, or all that was written has gone to some server.
    Client,
    /// Every COPY has been answered.
    Done,
    /// ReadyForQuery of all.
    Ready,
}

impl Session {
    /// Waits, meanwhile writing to the servers and hearing what they say. `true`: the client has said more.
    pub(super) async fn feed_until(
        &mut self,
        until: Until,
        feeds: &mut Feeds,
        heard: &mut Heard,
        table: &str,
    ) -> Result<bool, Fault> {
        poll_fn(|cx| self.poll_feeds(cx, until, feeds, heard, table)).await
    }

    fn poll_feeds(
        &mut self,
        cx: &mut Context<'_>,
        until: Until,
        feeds: &mut Feeds,
        heard: &mut Heard,
        table: &str,
    ) -> Poll<Result<bool, Fault>> {
        let (mut freed, mut full) = (false, false);
        for feed in &feeds.all {
            // If this one is lost, it is the active link that is.
            self.active = feed.link;
            let link = &mut self.links[feed.link];
            let had_something = !link.outbox.is_empty();
            if let Poll::Ready(Err(e)) = link.poll_flush(cx) {
                return Poll::Ready(Err(Fault::lost(&link.pool.host, Some(e))));
            }
            freed |= had_something && link.outbox.is_empty();
            full |= !link.outbox.is_empty();
        }
        for feed in &mut feeds.all {
            self.active = feed.link;
            if self.poll_feed(cx, until, feed, heard, table)?.is_pending() {
                return Poll::Pending;
            }
            if heard.error.is_some() && until != Until::Ready {
                return Poll::Ready(Ok(false));
            }
        }
        let mut all = feeds.all.iter();
        match until {
            Until::Response if heard.response.is_some() => Poll::Ready(Ok(false)),
            Until::Written if freed || !full => Poll::Ready(Ok(false)),
            Until::Done if all.all(|feed| feed.segments.is_empty()) => Poll::Ready(Ok(false)),
            Until::Ready if all.all(|feed| feed.ready) => Poll::Ready(Ok(false)),
            Until::Client if freed => Poll::Ready(Ok(false)),
            Until::Client => match self.client.poll_fill(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(0)) => {
                    Poll::Ready(Err(Fault::client(std::io::ErrorKind::UnexpectedEof.into())))
                }
                Poll::Ready(Ok(_)) => Poll::Ready(Ok(true)),
                Poll::Ready(Err(e)) => Poll::Ready(Err(Fault::client(e))),
            },
            _ => Poll::Pending,
        }
    }

    /// Hears what one server has said. `Pending`: the client must take it first.
    fn poll_feed(
        &mut self,
        cx: &mut Context<'_>,
        until: Until,
        feed: &mut Feed,
        heard: &mut Heard,
        table: &str,
    ) -> Result<Poll<()>, Fault> {
        loop {
            self.hear(feed, heard, table)?;
            let flushed = self.client.poll_flush(cx).map_err(Fault::client)?;
            if heard.error.is_some() && until != Until::Ready || feed.ready {
                return Ok(Poll::Ready(()));
            }
            if flushed.is_pending() && self.client.outbox.len() > READ_MOST {
                // Back-pressure: the client does not take what the server says.
                return Ok(Poll::Pending);
            }
            let link = &mut self.links[feed.link];
            match poll_fill(cx, link) {
                Poll::Pending => return Ok(Poll::Ready(())),
                Poll::Ready(Ok(0)) => return Err(Fault::lost(&link.pool.host, None)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(e)) => return Err(Fault::lost(&link.pool.host, Some(e))),
            }
        }
    }

    /// Deals with the whole messages that have come from the server.
    fn hear(&mut self, feed: &mut Feed, heard: &mut Heard, table: &str) -> Result<(), Fault> {
        let (client, link) = (&mut self.client, &mut self.links[feed.link]);
        loop {
            let header = match frame::header(link.unread()) {
                Ok(Some(header)) if link.unread().len() >= header.len => header,
                Ok(_) => return Ok(()),
                Err(_) => return Err(Fault::protocol(&link.pool.host, 0)),
            };
            let message = link.reword(link.unread()[..header.len].to_vec());
            link.take(header.len);
            let body = &message[frame::HEADER..];
            let line = |at: u64| {
                let sent = feed.segments.front().map(|segment| segment.lines.back(at));
                heard.at_line.or(sent).unwrap_or(at)
            };
            match header.tag {
                b'1' | b'2' | b'3' => {}
                b'G' => drop(heard.response.get_or_insert(message)),
                b'C' => {
                    let rows = CommandComplete::decode(body).ok().and_then(|c| c.rows());
                    feed.rows += rows.unwrap_or(0);
                    feed.done();
                }
                b'N' => match ErrorView::decode(body) {
                    Ok(view) => write_back(&mut client.outbox, &message, &view, table, line),
                    Err(_) => return Err(Fault::protocol(&link.pool.host, b'N')),
                },
                b'A' => client.outbox.extend_from_slice(&message),
                b'S' => {
                    let Ok(status) = ParameterStatus::decode(body) else {
                        return Err(Fault::protocol(&link.pool.host, b'S'));
                    };
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let (name, value) = (text(status.name), text(status.value));
                    link.conn()?.report(&name, &value);
                    if !heard.leaving {
                        client.report(&name, &value);
                    }
                }
                b'E' => {
                    let Ok(view) = ErrorView::decode(body) else {
                        return Err(Fault::protocol(&link.pool.host, b'E'));
                    };
                    let severity = view.get(b'V').or(view.get(b'S'));
                    if severity.is_some_and(|s| s == b"FATAL" || s == b"PANIC") {
                        return Err(Fault::ended(&link.pool.host, &view));
                    }
                    let mut error = Vec::new();
                    let given_up = heard.given_up;
                    let given_up =
                        given_up.filter(|_| view.code() == Some(SqlState::QUERY_CANCELED));
                    let line = |at| given_up.unwrap_or_else(|| line(at));
                    write_back(&mut error, &message, &view, table, line);
                    heard.error.get_or_insert(error);
                    link.refused = true;
                    if !heard.leaving {
                        client.undo();
                    }
                    // All up to the Sync is skipped.
                    (feed.open, heard.at_line) = (None, None);
                    feed.segments.clear();
                }
                b'Z' => {
                    let before = link.status;
                    link.status = body.first().copied().unwrap_or(b'E');
                    link.is_ready(before);
                    feed.ready = true;
                }
                tag => return Err(Fault::protocol(&link.pool.host, tag)),
            }
        }
    }
}
