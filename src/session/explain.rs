//! `EXPLAIN (ROUTE) statement`: says where a statement would go and why, without running it.

use super::Session;
use super::block::Acted;
use super::errors::Fault;
use super::prepare::PARSE;
use crate::route;
use crate::wire::backend;

/// The name of the only column of the answer: Postgres' own for EXPLAIN.
pub(super) const COLUMN: &str = "QUERY PLAN";

impl Session {
    /// The answer to `EXPLAIN (ROUTE)` of this statement. A refusal is an answer too, not an error.
    pub(super) fn explain_route(&self, text: &[u8]) -> Result<Acted, Fault> {
        let schema = self.context.schema.load();
        let Some(tables) = &schema.tables else { return Err(Self::no_tables()) };
        let text = String::from_utf8_lossy(text);
        let lines = match route::explain(&text, tables, &self.map, &PARSE, None, self.standing_hint()) {
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
