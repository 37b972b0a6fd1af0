//! Writes to reference tables, which must leave the very same rows on every host: which statements can, and how.

use std::ops::Range;
use std::sync::Arc;

use crate::sql::plan::{Body, Gives, Level, Output, Plan, Source, Wrap};
use crate::sql::rewrite::Pos;
use crate::sql::shape::{Hole, HoleKind};

use super::bind::Parts;
use super::copy::CopyIn;
use super::needs::Needs;
use super::refusal::Refusal;
use super::tables::Table;
use super::{functions, words};

/// A reference table that is written, and how it can be where there are several hosts.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub(super) table: String,
    pub(super) means: Means,
}

#[derive(Clone, Debug)]
pub(super) enum Means {
    /// It can't.
    Refused(Refusal),
    Statement(Arc<Copies>),
    /// COPY FROM: all hosts get the data.
    Data(Arc<CopyIn>),
}

/// INSERT, UPDATE or DELETE of a reference table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copies {
    /// The table.
    pub table: String,
    /// Its columns, in order.
    pub columns: Vec<CopiedColumn>,
    /// What is done.
    pub how: How,
    /// How many columns the statement returns by itself.
    pub returns: usize,
    /// ON CONFLICT ... DO UPDATE, up to DO: where it stands.
    conflict: Option<Range<Pos>>,
    /// What the statement calls the table.
    called: String,
    returning: bool,
}

/// A column of a reference table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedColumn {
    /// Its name.
    pub name: String,
    /// Its value is worked out from other columns and never given.
    pub generated: bool,
    /// It can't be set: GENERATED ALWAYS AS IDENTITY.
    pub always: bool,
}

/// How all hosts come by the same rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The statement runs on the lowest host; the others get the rows that it has inserted there, or changed by ON CONFLICT.
    Rows,
    /// The statement runs on every host, and must have changed the same rows.
    Same,
}

impl Copies {
    /// The statement with all columns of the rows that it writes behind those that it returns by itself.
    pub fn returning_all(&self, text: &[u8], holes: &[Hole]) -> Vec<u8> {
        let mut out = text[..end_of(text, holes)].to_vec();
        out.extend_from_slice(if self.returning {
            b", "
        } else {
            b" RETURNING "
        });
        let called = quoted(&self.called);
        let columns = self
            .columns
            .iter()
            .map(|c| format!("{called}.{}", quoted(&c.name)));
        out.extend_from_slice(columns.collect::<Vec<_>>().join(", ").as_bytes());
        out
    }

    /// The columns that are given when a row is inserted, by their numbers.
    pub fn given(&self) -> Vec<usize> {
        let given = |at: &usize| !self.columns[*at].generated;
        (0..self.columns.len()).filter(given).collect()
    }

    /// An INSERT of so many rows, every value a parameter; rows that are there become these.
    pub fn insert(&self, rows: usize, text: &[u8], holes: &[Hole]) -> Vec<u8> {
        let given = self.given();
        let name = |at: &usize| quoted(&self.columns[*at].name);
        let names: Vec<String> = given.iter().map(name).collect();
        let row = |n: usize| {
            let values = (0..given.len()).map(|at| format!("${}", n * given.len() + at + 1));
            format!("({})", values.collect::<Vec<_>>().join(", "))
        };
        let rows: Vec<String> = (0..rows).map(row).collect();
        let all = self.columns.iter().map(|column| quoted(&column.name));
        let mut out = format!(
            "INSERT INTO public.{} ({}) OVERRIDING SYSTEM VALUE VALUES {} ",
            quoted(&self.table),
            names.join(", "),
            rows.join(", "),
        )
        .into_bytes();
        if let Some(conflict) = &self.conflict {
            out.extend_from_slice(&text[conflict.start.at(holes)..conflict.end.at(holes)]);
            let set = |at: &usize| {
                let name = quoted(&self.columns[*at].name);
                format!("{name} = EXCLUDED.{name}")
            };
            let sets = given
                .iter()
                .filter(|at| !self.columns[**at].always)
                .map(set);
            let sets = sets.collect::<Vec<_>>().join(", ");
            out.extend_from_slice(format!("\nDO UPDATE SET {sets} ").as_bytes());
        }
        let all = all.collect::<Vec<_>>().join(", ");
        out.extend_from_slice(format!("RETURNING {all}").as_bytes());
        out
    }
}

/// Where the statement itself ends, without what may stand behind it.
fn end_of(text: &[u8], holes: &[Hole]) -> usize {
    let mut end = text.len();
    loop {
        let blank = |b: &u8| b.is_ascii_whitespace() || *b == b';' || *b == 0x0b;
        let trimmed = text[..end]
            .iter()
            .rposition(|b| !blank(b))
            .map_or(0, |at| at + 1);
        // Blanks and semicolons may also be the end of a comment.
        let comment = |hole: &&Hole| {
            let inside = (hole.start as usize) < trimmed && trimmed <= hole.end as usize;
            hole.kind == HoleKind::Comment && inside
        };
        match holes.iter().find(comment) {
            Some(hole) => end = hole.start as usize,
            None => return trimmed,
        }
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// How a statement that writes a reference table, and no other kind, does so where there are several hosts.
pub(super) fn means(plan: &Plan, table: &Table, parts: &Parts<'_>, needs: &Needs) -> Means {
    match find(plan, table, parts, needs) {
        Ok(copies) => Means::Statement(Arc::new(copies)),
        Err((why, hint)) => Means::Refused(words::reference_differs(&table.name, &why, hint)),
    }
}

const ALONE: &str =
    "Write it in an INSERT, UPDATE or DELETE of its own, with values that are given.";
const GIVE: &str = "Work the value out beforehand and give it in the statement.";
const READ: &str = "Read the rows beforehand, and give their keys and values in the statement.";

fn find(
    plan: &Plan,
    table: &Table,
    parts: &Parts<'_>,
    needs: &Needs,
) -> Result<Copies, (String, &'static str)> {
    let no = |why: &str, hint| Err((why.to_owned(), hint));
    let Some(root) = plan.root.filter(|_| plan.wrap == Wrap::Bare) else {
        return no("EXPLAIN and cursors are of one host", ALONE);
    };
    let level = &plan.levels[root];
    let writers = plan.levels.iter().filter(|level| level.writes());
    let Some(Source::Table(target)) = level.items.first().map(|item| &item.source) else {
        return no("it is not written by the statement itself", ALONE);
    };
    if !level.writes() || writers.count() > 1 || target.name != table.name {
        return no("it is not written by the statement itself", ALONE);
    }
    if table.view {
        return no("what its view writes to is not known", ALONE);
    }
    if parts.catalog || needs.catalog {
        return no("catalogs differ from host to host", READ);
    }
    if let Some(function) = &needs.other_function {
        return Err((format!("{function}() might do anything"), GIVE));
    }
    let excluded = level
        .items
        .iter()
        .any(|item| item.source == Source::Excluded);
    let conflict = updated_on_conflict(plan).filter(|_| excluded);
    let how = match level.body {
        Body::Insert { .. } if !excluded || conflict.is_some() => How::Rows,
        Body::Insert { .. } | Body::Update(_) | Body::Delete => How::Same,
        _ => return no("MERGE does not tell which rows it has written", ALONE),
    };
    if how == How::Same {
        let call = plan
            .calls
            .iter()
            .find(|call| functions::is_of_the_moment(&call.name));
        if let Some(call) = call {
            return Err((
                format!("{}() gives another value on each host", call.name),
                GIVE,
            ));
        }
        if level.items.len() > 1 + usize::from(excluded) {
            return no("which rows of several are taken may differ", READ);
        }
        if plan.levels.iter().any(picks) {
            return no("which rows of a subquery are taken may differ", READ);
        }
    }
    let width = |output: &Output| match output {
        Output::Term(..) => 1,
        Output::Star(_) => table.columns.len(),
    };
    let columns = table.columns.iter().map(|column| CopiedColumn {
        name: column.name.clone(),
        generated: column.generated,
        always: column.default.as_deref() == Some("GENERATED ALWAYS AS IDENTITY"),
    });
    let copies = Copies {
        table: table.name.clone(),
        columns: columns.collect(),
        how,
        conflict,
        returns: level.outputs.iter().map(width).sum(),
        called: level.items[0]
            .alias
            .as_ref()
            .unwrap_or(&target.name)
            .clone(),
        returning: !level.outputs.is_empty(),
    };
    match copies.given().is_empty() {
        true => no("it has no columns", ALONE),
        false => Ok(copies),
    }
}

/// What stands before DO UPDATE, if it can be repeated as it is.
fn updated_on_conflict(plan: &Plan) -> Option<Range<Pos>> {
    let insert = plan.insert.as_deref()?;
    let target = insert.conflict_target.clone()?;
    let key = |pos: &Pos| (pos.hole, pos.offset);
    let among = key(&target.start)..key(&target.end);
    let mut params = insert.params.iter();
    (!params.any(|(place, _)| among.contains(&key(&place.pos)))).then_some(target)
}

/// Which rows a level takes hangs on more than what they hold.
fn picks(level: &Level) -> bool {
    let of = &level.features;
    of.limit || of.sample || of.window || level.gives == Gives::Other
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::shape::Shape;

    #[test]
    fn what_stands_behind_a_statement_is_left_out() {
        for (text, end) in [
            ("DELETE FROM t", "DELETE FROM t"),
            ("DELETE FROM t ; ", "DELETE FROM t"),
            ("DELETE FROM t -- all\n", "DELETE FROM t"),
            ("DELETE FROM t -- all", "DELETE FROM t"),
            ("DELETE FROM t -- all; ", "DELETE FROM t"),
            ("DELETE FROM t; -- all;; \n -- b", "DELETE FROM t"),
            ("DELETE FROM t /* a */ /* b */; -- c", "DELETE FROM t"),
            (
                "DELETE FROM t WHERE a = '/* x */'",
                "DELETE FROM t WHERE a = '/* x */'",
            ),
        ] {
            let mut shape = Shape::default();
            shape.scan(text.as_bytes()).unwrap();
            assert_eq!(
                &text[..end_of(text.as_bytes(), &shape.holes)],
                end,
                "{text}"
            );
        }
    }
}
