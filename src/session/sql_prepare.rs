//! `PREPARE` as SQL: a server reads it as a whole, under a name of ours, and says which parameters and columns it has. From
//! then on it is a statement like those that drivers prepare.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::Session;
use super::block::{Acted, tag};
use super::context::{Described, FIRST_NORMAL_OID, Prepared, Statement};
use super::ends::{SentPiece, SentText, char_count};
use super::errors::Fault;
use super::execute::NO_TYPES;
use super::links::Need;
use super::prepare::Way;
use super::replies::{Description, Pass, Reply};
use crate::pool::NO_SHARD;
use crate::route::Values;
use crate::shardmap::ShardId;
use crate::sql::control::Control;
use crate::sql::hint;
use crate::sql::shape::Shape;
use crate::wire::frontend::{self, Kind};

/// The name that a statement has on a server connection while it is looked at. No client's statement is ever named so there.
const PREPARE: &[u8] = b"presplit_prepare";

impl Session {
    /// `PREPARE`: a server reads it as a whole and says which parameters and columns it has.
    pub(super) async fn prepare_sql(
        &mut self,
        control: &Control,
        text: &[u8],
        before: u32,
    ) -> Result<Acted, Fault> {
        let Control::Prepare {
            name,
            at,
            types,
            body,
        } = control
        else {
            return Err(Fault::violation("no PREPARE"));
        };
        let reading = self.reading();
        let of_body = &text[body.clone()];
        let mut shape = Shape::default();
        // A hint must not be passed over.
        let _ = shape.scan(&text[..body.start]);
        if hint::find(&text[..body.start], &shape).map_or(true, |hint| hint.is_some()) {
            return Err(Fault::unsupported(
                "a hint in front of the statement that PREPARE is of",
                "Put the hint into the statement, behind AS.",
            ));
        }
        let mut untyped = self.intern(of_body, NO_TYPES.iter().copied(), reading.clone())?;
        let way = match self.way_to_prepare(&untyped) {
            Err(fault) if self.wants_refresh(&fault) => {
                self.refresh_tables().await;
                untyped = self.intern(of_body, NO_TYPES.iter().copied(), reading.clone())?;
                self.way_to_prepare(&untyped)?
            }
            Err(fault) if Self::is_unreadable(&fault) => {
                return Err(Box::pin(self.syntax_fault(text, fault)).await);
            }
            other => other?,
        };
        let Way::One { host, shard, path } = way else {
            return Err(Self::no_tables());
        };
        let spans = (at.clone(), body.clone());
        let sent = self.text_to_prepare(&untyped, text, before, &spans, shard);
        let i = self
            .link(Need {
                path,
                ..Need::plain(host)
            })
            .await?;
        let Some(described) = self.try_prepare(i, &untyped, sent).await? else {
            return Ok(Acted::Passed);
        };
        let mut known = Vec::new();
        for (n, oid) in described.parameters().enumerate() {
            if oid >= FIRST_NORMAL_OID && n < *types {
                return Err(Fault::unsupported(
                    format!(
                        "PREPARE with the type of ${} is not supported: a type of your own has another number on every host",
                        n + 1
                    ),
                    "Leave the types out, or cast the parameter where it stands in the statement.",
                ));
            }
            // The server finds it out anew wherever it is parsed.
            known.push(if oid < FIRST_NORMAL_OID { oid } else { 0 });
        }
        self.check_statement_is_new(name.as_bytes())?;
        let statement = self.intern(of_body, known.into_iter(), reading)?;
        statement.accepted.store(true, Ordering::Relaxed);
        statement.described.store(Some(described));
        self.statements.put(name.as_bytes(), statement);
        Ok(tag("PREPARE"))
    }

    fn way_to_prepare(&self, statement: &Statement) -> Result<Way, Fault> {
        self.check_parse(statement)?;
        let way = self.way_to_describe(statement)?;
        way.ok_or_else(Self::no_tables)
    }

    /// The client's PREPARE under our name, with the shard's schema in its body, and how it was made.
    fn text_to_prepare(
        &self,
        statement: &Statement,
        text: &[u8],
        before: u32,
        (name, body): &(Range<usize>, Range<usize>),
        shard: Option<ShardId>,
    ) -> (Vec<u8>, SentText) {
        let mut sent = text[..name.start].to_vec();
        let mut pieces = SmallVec::new();
        let mut piece = |from: &[u8], text: &Range<usize>, shard| {
            pieces.push(SentPiece {
                from: char_count(from),
                len: u32::MAX / 2,
                text: text.clone(),
                prepared: statement.prepared.clone(),
                shard,
            });
        };
        piece(b"", &(0..text.len()), None);
        sent.extend_from_slice(PREPARE);
        piece(&sent, &(name.end..text.len()), None);
        sent.extend_from_slice(&text[name.end..body.start]);
        piece(&sent, body, shard);
        match (&*statement.prepared, shard) {
            (Prepared::Query(bound), Some(_)) => {
                let values = Values {
                    text: &statement.text,
                    holes: &statement.holes,
                    params: None,
                };
                self.write_text(&mut sent, bound, &values, shard);
            }
            _ => sent.extend_from_slice(&statement.text),
        }
        sent.extend_from_slice(&text[body.end..]);
        let made = SentText {
            text: text.into(),
            before,
            pieces,
        };
        (sent, made)
    }

    /// Has a server prepare, describe and forget a statement. `None`: it was refused, and the client has the error.
    async fn try_prepare(
        &mut self,
        i: usize,
        like: &Statement,
        (sent, made): (Vec<u8>, SentText),
    ) -> Result<Option<Arc<Described>>, Fault> {
        self.settle_replies().await?;
        let looked_at = Arc::new(Statement::unnamed(
            self.context.next_statement_id(),
            &like.text,
            &Shape::default(),
            &like.prepared,
        ));
        let link = &mut self.links[i];
        let outbox = &mut link.outbox;
        // One may be left if an earlier look was cut off.
        frontend::close(outbox, Kind::Statement, PREPARE);
        frontend::parse(outbox, b"", &sent, NO_TYPES.iter().copied());
        frontend::bind_renamed(outbox, b"", b"", &[0; 6]);
        frontend::execute(outbox, b"", 0);
        frontend::describe(outbox, Kind::Statement, PREPARE);
        frontend::close(outbox, Kind::Statement, PREPARE);
        for _ in 0..3 {
            self.replies.push(Reply::One(Pass::Keep));
        }
        self.replies.push(Reply::Execute(Pass::Keep));
        let key = (looked_at.id, NO_SHARD);
        let description = Description::of(Pass::Keep, &looked_at, key);
        self.replies.push(description);
        self.replies.push(Reply::One(Pass::Keep));
        link.sent_text = Some(Box::new(made));
        if self.finish_aside(i).await? {
            return Ok(None);
        }
        Ok(looked_at.described.load_full())
    }
}
