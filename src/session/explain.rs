//! `EXPLAIN (ROUTE) statement`: says where a statement would go and why, without running it.

use super::Session;
use super::block::Acted;
use super::context::Prepared;
use super::errors::Fault;
use super::prepare::Way;
use crate::route::{self, Values};
use crate::sql::hint;
use crate::sql::shape::Shape;
use crate::wire::backend;

/// The name of the only column of the answer: Postgres' own for EXPLAIN.
pub(super) const COLUMN: &str = "QUERY PLAN";

impl Session {
    /// The answer to `EXPLAIN (ROUTE)` of this statement. A refusal is the answer too, not an error.
    pub(super) fn explain_route(&self, text: &[u8]) -> Result<Acted, Fault> {
        let lines = match self.explain_lines(text) {
            Ok(lines) => lines,
            Err(Fault::Statement(fields)) => {
                let mut lines = vec![format!("Refused: {} {}", fields.code.as_str(), fields.message)];
                lines.extend(fields.detail.iter().map(|d| format!("Detail: {d}")));
                lines.extend(fields.hint.iter().map(|h| format!("Hint: {h}")));
                lines
            }
            Err(fault) => return Err(fault),
        };
        let mut out = Vec::new();
        backend::row_description(&mut out, &[(COLUMN, 25)]);
        for line in &lines {
            backend::data_row(&mut out, &[Some(line.as_bytes())]);
        }
        backend::command_complete(&mut out, "EXPLAIN");
        Ok(Acted::Answered(out))
    }

    fn explain_lines(&self, text: &[u8]) -> Result<Vec<String>, Fault> {
        let read = self.read(text)?;
        let Prepared::Query(bound) = &*read.prepared else {
            return Ok(vec!["Route: the session acts on it itself, or any host answers it".to_owned()]);
        };
        let mut shape = Shape::default();
        // It was scanned before.
        let _ = shape.scan(text);
        let own = hint::find(text, &shape).ok().flatten();
        let values = Values { text, holes: &shape.holes, params: None };
        let reason = route::why(bound, &values, &self.map, own.as_ref().or(self.standing_hint()));
        let mut lines = Vec::new();
        match read.way {
            Some(Way::One { host, shard, path }) => {
                if let Some(shard) = shard {
                    lines.push(format!("Shard: {shard} (schema {})", self.map.schema(shard)));
                }
                lines.push(format!("Host: {} ({})", self.map.host(host).name, self.map.host(host).url));
                if let Some(path) = path {
                    lines.push(format!("Search path: {}, public", self.map.schema(path)));
                }
                let message = &read.message;
                let sent = message.get(crate::wire::frame::HEADER..message.len().saturating_sub(1)).unwrap_or_default();
                lines.push(format!("Sent: {}", String::from_utf8_lossy(sent)));
            }
            Some(Way::Several(shards)) => {
                let hosts: std::collections::BTreeSet<_> = shards.iter().map(|s| &self.map.host(self.map.owner(*s)).name).collect();
                let names: Vec<_> = hosts.into_iter().map(String::as_str).collect();
                lines.push(format!("Shards: {} on {} hosts ({}), rows one shard after the other", shards.len(), names.len(), names.join(", ")));
            }
            None => {}
        }
        lines.push(format!("Reason: {reason}"));
        Ok(lines)
    }
}
