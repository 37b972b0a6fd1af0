//! A statement that we can't read may be one that Postgres can't read either: then its own syntax error is the better
//! answer.

use super::Session;
use super::errors::Fault;
use super::links::Need;
use super::prepare::Way;
use crate::wire::backend::ErrorView;
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::{frame, frontend};

/// What a server says of a text.
pub(super) enum Found {
    /// It has no syntax error.
    Nothing,
    Error(ErrorFields),
    /// It has an error, if of another kind none that concerns the client; the server ignores all up to the next Sync.
    EndOfBatch(Option<ErrorFields>),
}

impl Session {
    /// Whether a statement failed because it can't be read.
    pub(super) fn is_unreadable(fault: &Fault) -> bool {
        matches!(fault, Fault::Statement(fields) if fields.code == SqlState::UNREADABLE)
    }

    /// The fault that an unreadable text is answered with: Postgres' syntax error if it has one, else ours. Has the text
    /// parsed, never run, by a server.
    pub(super) async fn syntax_fault(&mut self, text: &[u8], ours: Fault) -> Fault {
        // It may be a Parse in front of the message at hand that is read now.
        let of_query = self.batch.now == b'Q' && self.batch.unparsed.is_none();
        let found = match self.syntax_error(text).await {
            Ok(found) => found,
            Err(fault) => return fault,
        };
        if !matches!(found, Found::Nothing) {
            // If its Parse is yet to be confirmed, it never was one.
            self.batch.unparsed = None;
            self.confirm_statement();
            self.undo_statements(self.replies.next_number());
        }
        match (found, ours) {
            (Found::Error(theirs), _) => Fault::statement(theirs),
            // Nothing is skipped behind a Query: its transaction, of which the batch before it is part, ends with it.
            (Found::EndOfBatch(theirs), Fault::Statement(ours)) if of_query => {
                Fault::statement(theirs.unwrap_or(*ours))
            }
            (Found::EndOfBatch(theirs), Fault::Statement(ours)) => {
                let fields = theirs.unwrap_or(*ours);
                self.context.stats.refused(fields.code);
                fields.write(&mut self.client.outbox);
                if let Some(block) = &mut self.block {
                    block.failed = true;
                }
                self.batch.server_refused();
                Fault::Skipped
            }
            (_, ours) => self.check_failed().err().unwrap_or(ours),
        }
    }

    /// Whether a server finds a syntax error in a text, which is one statement. If it does, its transaction has failed.
    pub(super) async fn syntax_error(&mut self, text: &[u8]) -> Result<Found, Fault> {
        let lost = self.block.as_ref().is_some_and(|b| b.lost);
        let (Way::One { host, .. }, false) = (self.template_way(), lost) else {
            return Ok(Found::Nothing);
        };
        let failed = self.block.as_ref().is_some_and(|b| b.failed);
        let i = match failed && !self.links.is_empty() {
            false => self.link(Need::plain(host)).await?,
            // It takes nothing else, no settings in front of it either.
            true => {
                let known = self.links.iter().position(|link| link.host == host);
                known.unwrap_or(0)
            }
        };
        // What is owed is owed by the link that was active.
        self.settle_replies().await?;
        self.active = i;
        // A Sync would end the implicit transaction of the batch.
        let in_batch = self.links[i].unsynced;
        let outbox = &mut self.links[i].outbox;
        frontend::parse(outbox, b"", text, std::iter::empty());
        match in_batch {
            true => frontend::flush(outbox),
            false => frontend::sync(outbox),
        }
        let mut error = None;
        loop {
            let (tag, len) = self.next_message(i).await?;
            self.have(i, len).await?;
            if tag == b'E'
                && let Ok(view) = ErrorView::decode(&self.links[i].unread()[frame::HEADER..len])
                && view.code() == Some(SqlState::SYNTAX_ERROR)
                // That the text is one of several statements is none.
                && view.get(b'R') != Some(b"exec_parse_message")
            {
                error = Some(fields(&view));
            }
            let status = self.links[i].unread()[..len].last().copied();
            let status = status.unwrap_or(b'E');
            self.skip_message(i, len).await?;
            if tag == b'E' {
                // What was set in front of it is undone.
                self.links[i].refused = true;
                self.client.undo();
            }
            match tag {
                b'Z' => {
                    let before = std::mem::replace(&mut self.links[i].status, status);
                    self.links[i].is_ready(before);
                    return Ok(error.map_or(Found::Nothing, Found::Error));
                }
                b'1' if in_batch => return Ok(Found::Nothing),
                b'E' if in_batch => return Ok(Found::EndOfBatch(error)),
                _ => {}
            }
        }
    }
}

fn fields(view: &ErrorView<'_>) -> ErrorFields {
    let text = |field| {
        view.get(field)
            .map(|t| String::from_utf8_lossy(t).into_owned())
    };
    let mut fields = ErrorFields::error(SqlState::SYNTAX_ERROR, text(b'M').unwrap_or_default());
    if let Some(position) = text(b'P').and_then(|p| p.parse().ok()) {
        fields = fields.position(position);
    }
    fields
}
