//! A statement that we can't read may be one that Postgres can't read either: then its own syntax error is the better
//! answer.

use super::Session;
use super::errors::Fault;
use super::links::Need;
use super::prepare::Way;
use crate::wire::backend::ErrorView;
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::{frame, frontend};

impl Session {
    /// Whether a statement failed because it can't be read.
    pub(super) fn is_unreadable(fault: &Fault) -> bool {
        matches!(fault, Fault::Statement(fields) if fields.code == SqlState::UNREADABLE)
    }

    /// The fault that an unreadable text is answered with: Postgres' syntax error if it has one, else ours. Has the text
    /// parsed, never run, by a server.
    pub(super) async fn syntax_fault(&mut self, text: &[u8], ours: Fault) -> Fault {
        match self.syntax_error(text).await {
            Ok(Some(theirs)) => {
                // If its Parse is yet to be confirmed, it never was one.
                self.batch.unparsed = None;
                self.undo_statements(self.replies.next_number());
                Fault::statement(theirs)
            }
            Ok(None) => ours,
            Err(fault) => fault,
        }
    }

    async fn syntax_error(&mut self, text: &[u8]) -> Result<Option<ErrorFields>, Fault> {
        let failed = self.block.as_ref().is_some_and(|b| b.failed);
        let (Way::One { host, .. }, false) = (self.template_way(), failed) else {
            return Ok(None);
        };
        if self.links.iter().any(|l| l.unsynced) {
            // A Sync would end the implicit transaction of the batch.
            return Ok(None);
        }
        let i = self.link(Need::plain(host)).await?;
        self.drain_replies().await?;
        let outbox = &mut self.links[i].outbox;
        frontend::parse(outbox, b"", text, std::iter::empty());
        frontend::sync(outbox);
        let mut error = None;
        loop {
            let (tag, len) = self.next_message(i).await?;
            self.have(i, len).await?;
            if tag == b'E'
                && let Ok(view) = ErrorView::decode(&self.links[i].unread()[frame::HEADER..len])
                && view.code() == Some(SqlState::SYNTAX_ERROR)
            {
                error = Some(fields(&view));
            }
            self.skip_message(i, len).await?;
            if tag == b'Z' {
                return Ok(error);
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
