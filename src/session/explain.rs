//! `EXPLAIN (ROUTE) statement`: says where a statement would go and why, without running it.

use std::ops::Range;

use super::Session;
use super::block::Acted;
use super::errors::Fault;
use super::prepare::{PARSE, bad_hint};
use crate::route;
use crate::sql::hint;
use crate::sql::shape::Shape;
use crate::wire::backend;

/// The name of the only column of the answer: Postgres' own for EXPLAIN.
pub(super) const COLUMN: &str = "QUERY PLAN";

impl Session {
    /// The answer to `EXPLAIN (ROUTE)` of the statement at `query`. A refusal is an answer too, not an error.
    pub(super) fn explain_route(&self, text: &str, query: &Range<usize>) -> Result<Acted, Fault> {
        let schema = self.schema();
        let Some(tables) = &schema.tables else {
            return Err(Self::no_tables());
        };
        // A hint may stand before EXPLAIN or behind the statement.
        let mut shape = Shape::default();
        let _ = shape.scan(text.as_bytes());
        let own = hint::find(text.as_bytes(), &shape).map_err(bad_hint)?;
        let hint = own.as_ref().or(self.standing_hint());
        let lines =
            match route::explain(&text[query.clone()], tables, &self.map, &PARSE, None, hint) {
                Ok(explanation) => explanation.lines(&self.map),
                Err(refusal) => refusal.lines(),
            };
        let mut out = Vec::new();
        backend::row_description(&mut out, &[(COLUMN, 25)]);
        for line in &lines {
            backend::data_row(&mut out, &[Some(line.as_bytes())]);
        }
        backend::command_complete(&mut out, "EXPLAIN");
        Ok(Acted::Answered(out))
    }
}
