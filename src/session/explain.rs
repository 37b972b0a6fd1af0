//! `EXPLAIN (ROUTE) statement`: says where a statement would go and why, without running it.

use std::ops::Range;

use super::Session;
use super::block::Acted;
use super::errors::Fault;
use super::execute::Args;
use super::prepare::{PARSE, bad_hint};
use crate::route::{self, Params};
use crate::sql::control::{self, Control};
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
        let query = &text[query.clone()];
        let explain = |text: &str, params: Option<&dyn Params>| match route::explain(
            text, tables, &self.map, &PARSE, params, hint,
        ) {
            Ok(explanation) => explanation.lines(&self.map),
            Err(refusal) => refusal.lines(),
        };
        // Of an EXECUTE, what it runs.
        let mut of_query = Shape::default();
        let _ = of_query.scan(query.as_bytes());
        let lines = match control::parse(query.as_bytes(), &of_query) {
            Some(Control::Execute { name, .. }) => {
                let statement = self.known_statement(name.as_bytes())?;
                let call = control::call(query.as_bytes(), &of_query);
                let types: Vec<u32> = match statement.described.load_full() {
                    Some(described) => described.parameters().collect(),
                    None => statement.types.to_vec(),
                };
                let args = call.map(|call| call.args).unwrap_or_default();
                let args = Args {
                    args: &args,
                    types: &types,
                };
                explain(&String::from_utf8_lossy(&statement.text), Some(&args))
            }
            _ => explain(query, None),
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
