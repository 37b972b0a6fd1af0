//! Writes to reference tables: the lowest host first, the others once it has answered, so that two writers wait for each
//! other there and not crosswise. Every host says which rows it has written, and if they are not the same, all of it fails.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use super::Session;
use super::errors::Fault;
use super::lanes::{Job, Lane};
use super::writes::{Parsed, Speaks, Writing};
use crate::route::{Copies, How};
use crate::shardmap::HostId;
use crate::sql::token::tokens;
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::frontend::{self, Bind, Param};
use crate::wire::{backend, frame};

/// Parameters of one statement of ours. The protocol counts them with 16 bits.
const MOST_PARAMS: usize = 32_000;

/// Rows of any order, told from others: how many there are, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rows {
    count: u64,
    sum: [u64; 2],
}

/// The columns of a DataRow message.
fn columns(row: &[u8]) -> Vec<Option<&[u8]>> {
    let mut columns = Vec::new();
    let mut rest = row.get(frame::HEADER + 2..).unwrap_or_default();
    while let Some((len, behind)) = rest.split_first_chunk::<4>() {
        let len = usize::try_from(i32::from_be_bytes(*len)).ok();
        let Some((value, behind)) = behind.split_at_checked(len.unwrap_or(0)) else {
            break;
        };
        columns.push(len.map(|_| value));
        rest = behind;
    }
    columns
}

/// The messages of a run of messages.
fn messages(mut run: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let header = frame::header(run).ok().flatten()?;
        let (message, rest) = run.split_at_checked(header.len)?;
        run = rest;
        Some(message)
    })
}

/// The rows that a lane's host gave.
fn rows_of(lane: &Lane) -> impl Iterator<Item = Vec<Option<&[u8]>>> {
    lane.rows
        .iter()
        .flat_map(|(_, rows)| messages(rows))
        .map(columns)
}

/// What is left of a RowDescription with the first `most` of its columns.
fn first_columns(description: &[u8], most: usize) -> Vec<u8> {
    let mut at = frame::HEADER + 2;
    for _ in 0..most {
        let name = description[at.min(description.len())..]
            .iter()
            .position(|b| *b == 0);
        at += name.unwrap_or_default() + 19;
    }
    let kept = description.get(frame::HEADER + 2..at).unwrap_or_default();
    let mut out = Vec::new();
    frame::put(&mut out, b'T', |out| {
        out.extend_from_slice(&(most as u16).to_be_bytes());
        out.extend_from_slice(kept);
    });
    out
}

/// A Bind without its names.
fn bind(params: &[Param<'_>], results: &[i16]) -> Vec<u8> {
    let mut message = Vec::new();
    frontend::bind(&mut message, b"", b"", params, results.iter().copied());
    message.split_off(frame::HEADER + 2)
}

impl Session {
    pub(super) fn all_hosts(&self) -> Vec<HostId> {
        (0..self.map.hosts.len())
            .map(|host| HostId(host as u16))
            .collect()
    }

    /// Runs a write to a reference table, nothing being owed. `None`: it failed and the client has its error; else its rows
    /// are written, and this is its tag.
    pub(super) async fn write_copies(
        &mut self,
        writing: &Writing,
        copies: &Arc<Copies>,
        speaks: Speaks,
    ) -> Result<Option<String>, Fault> {
        let statement = &writing.statement;
        if copies.how == How::Same {
            refuse_system_columns(copies, &statement.text, &statement.holes)?;
        }
        let hosts = self.all_hosts();
        self.widen_to(&hosts).await?;
        let mut lowest = self.enlist_lanes(&hosts[..1]).await?;
        if speaks == Speaks::Simple {
            let i = lowest[0].link;
            self.in_lane(&mut lowest[0], |session| {
                session.push_check(i, writing, None)
            });
        }
        let whole = whole(writing, copies, speaks)?;
        lowest[0].set_parts(vec![0]);
        self.run_lanes(&mut lowest, &Job::Texts(std::slice::from_ref(&whole)))
            .await;
        if !self.lanes_done(&mut lowest)? {
            return Ok(None);
        }
        if rows_of(&lowest[0]).count() as u64 != lowest[0].count {
            let host = &self.map.host(hosts[0]).name;
            return Err(Fault::statement(untold(&copies.table, host)));
        }
        let texts = match copies.how {
            How::Same => vec![Parsed {
                describe: false,
                ..whole
            }],
            How::Rows => inserts(writing, copies, &lowest[0]),
        };
        if texts.is_empty() {
            self.forget_unlinked_writers();
        } else {
            self.copy_to(&hosts, copies, &lowest[0], &texts).await?;
        }
        self.give_returned(copies, &lowest[0], speaks);
        Ok(Some(format!("{} {}", lowest[0].command, lowest[0].count)))
    }

    /// Has the other hosts do what the lowest has done.
    async fn copy_to(
        &mut self,
        hosts: &[HostId],
        copies: &Copies,
        lowest: &Lane,
        texts: &[Parsed],
    ) -> Result<(), Fault> {
        let mut others = self.enlist_lanes(&hosts[1..]).await?;
        for lane in &mut others {
            lane.set_parts((0..texts.len()).collect());
        }
        self.run_lanes(&mut others, &Job::Texts(texts)).await;
        let keys = [RandomState::new(), RandomState::new()];
        let rows = |lane: &Lane, skip: usize| {
            let mut all = Rows::default();
            for row in rows_of(lane) {
                all.count += 1;
                let row = row.get(skip..).unwrap_or_default();
                for (sum, key) in all.sum.iter_mut().zip(&keys) {
                    *sum = sum.wrapping_add(key.hash_one(row));
                }
            }
            all
        };
        let wanted = rows(lowest, copies.returns);
        let own = match copies.how {
            How::Rows => 0,
            How::Same => copies.returns,
        };
        for (lane, host) in others.iter().zip(&hosts[1..]) {
            let name = |host: HostId| self.map.host(host).name.as_str();
            let between = (name(hosts[0]), name(*host));
            if let Some(fields) = lane.refusal() {
                return Err(Fault::statement(refused_copy(copies, between, fields)));
            }
            let found = rows(lane, own);
            if lane.is_done() && found != wanted {
                let counts = (wanted.count, found.count);
                return Err(Fault::statement(differ(&copies.table, between, counts)));
            }
        }
        self.lanes_done(&mut others).map(drop)
    }

    /// Gives the client what the statement returns by itself.
    fn give_returned(&mut self, copies: &Copies, lowest: &Lane, speaks: Speaks) {
        if copies.returns == 0 {
            return;
        }
        let out = &mut self.client.outbox;
        if speaks == Speaks::Simple {
            out.extend_from_slice(&first_columns(&lowest.columns, copies.returns));
        }
        for row in rows_of(lowest) {
            backend::data_row(out, &row[..copies.returns.min(row.len())]);
        }
    }

    /// After a COPY FROM: every host must hold the same rows now.
    pub(super) async fn compare_copies(&mut self, table: &str, query: &str) -> Result<(), Fault> {
        let hosts = self.all_hosts();
        let asked = Parsed {
            text: query.into(),
            types: Vec::new(),
            bind: bind(&[], &[]),
            describe: false,
        };
        let mut lanes = self.enlist_lanes(&hosts).await?;
        for lane in &mut lanes {
            lane.set_parts(vec![0]);
        }
        self.run_lanes(&mut lanes, &Job::Texts(&[asked])).await;
        if let Some(fields) = lanes.iter().find_map(Lane::refusal) {
            return Err(Fault::statement(fields));
        }
        self.lanes_done(&mut lanes)?;
        let of = |lane: &Lane| lane.rows.first().map(|(_, row)| row.clone());
        let count = |lane: &Lane| {
            let row = rows_of(lane).next()?;
            std::str::from_utf8(row.first().copied()??)
                .ok()?
                .parse()
                .ok()
        };
        for (lane, host) in lanes.iter().zip(&hosts).skip(1) {
            if of(lane) != of(&lanes[0]) {
                let name = |host: HostId| self.map.host(host).name.as_str();
                let counts = (count(&lanes[0]).unwrap_or(0), count(lane).unwrap_or(0));
                let between = (name(hosts[0]), name(*host));
                return Err(Fault::statement(differ(table, between, counts)));
            }
        }
        Ok(())
    }
}

/// The client's statement with all columns of the rows that it writes; those as text, whatever the client wants.
fn whole(writing: &Writing, copies: &Copies, speaks: Speaks) -> Result<Parsed, Fault> {
    let statement = &writing.statement;
    let given = Bind::decode(&writing.bind)?;
    let params: Vec<Param<'_>> = given.params().collect();
    let formats: Vec<i16> = given.result_formats().collect();
    let results = match formats[..] {
        [] => Vec::new(),
        [all] => [vec![all; copies.returns], vec![0; copies.columns.len()]].concat(),
        _ => [formats, vec![0; copies.columns.len()]].concat(),
    };
    Ok(Parsed {
        text: copies.returning_all(&statement.text, &statement.holes),
        types: statement.types.to_vec(),
        bind: bind(&params, &results),
        describe: speaks == Speaks::Simple && copies.returns > 0,
    })
}

/// What inserts the rows that a host has inserted into another.
fn inserts(writing: &Writing, copies: &Copies, from: &Lane) -> Vec<Parsed> {
    let statement = &writing.statement;
    let given = copies.given();
    let rows: Vec<_> = rows_of(from).collect();
    let insert = |rows: &[Vec<Option<&[u8]>>]| {
        let values = rows.iter().flat_map(|row| {
            let of_row = |at: &usize| row.get(copies.returns + at).copied().flatten();
            given.iter().map(move |at| (0, of_row(at)))
        });
        let params: Vec<Param<'_>> = values.collect();
        Parsed {
            text: copies.insert(rows.len(), &statement.text, &statement.holes),
            types: Vec::new(),
            bind: bind(&params, &[]),
            describe: false,
        }
    };
    rows.chunks((MOST_PARAMS / given.len()).max(1))
        .map(insert)
        .collect()
}

/// Where a row lies is not the same on two hosts.
fn refuse_system_columns(
    copies: &Copies,
    text: &[u8],
    holes: &[crate::sql::shape::Hole],
) -> Result<(), Fault> {
    const OF_THE_SYSTEM: [&str; 6] = ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];
    let named = |column: &&&str| tokens(text, holes).any(|token| token.is_word(text, column));
    let Some(column) = OF_THE_SYSTEM.iter().find(named) else {
        return Ok(());
    };
    let message = format!(
        "reference table {} must get the same rows on all hosts, but {column} differs from host to host",
        copies.table
    );
    Err(Fault::statement(
        ErrorFields::error(SqlState::MORE_THAN_ONE_SHARD, message)
            .hint("Name the rows by their keys."),
    ))
}

const MEND: &str = "Compare the table on these hosts and make it the same; if it is, give the values in the statement rather than have each host work them out.";

/// The hosts have written different rows.
fn differ(table: &str, (one, other): (&str, &str), (at_one, at_other): (u64, u64)) -> ErrorFields {
    let message = format!(
        "reference table {table} would not be the same on all hosts: host {one:?} and host {other:?} have different rows"
    );
    let detail = match at_one == at_other {
        true => format!("Both have {at_one} rows here, with different values."),
        false => format!("Host {one:?} has {at_one} rows here, host {other:?} {at_other}."),
    };
    ErrorFields::error(SqlState::MORE_THAN_ONE_SHARD, message)
        .detail(detail)
        .hint(MEND)
}

/// Rules may make another statement of it.
fn untold(table: &str, host: &str) -> ErrorFields {
    let message =
        format!("host {host:?} does not tell which rows of reference table {table} it has written");
    ErrorFields::error(SqlState::MORE_THAN_ONE_SHARD, message)
        .hint("Drop the rules of the table, or write it on each host directly.")
}

/// A host does not take what the lowest has taken.
fn refused_copy(copies: &Copies, (one, other): (&str, &str), fields: ErrorFields) -> ErrorFields {
    let message = format!(
        "host {other:?} refuses for reference table {} what host {one:?} has taken: {}",
        copies.table, fields.message
    );
    let refused = ErrorFields::error(fields.code, message).hint(MEND);
    match fields.detail {
        Some(detail) => refused.detail(detail),
        None => refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_descriptions_are_cut() {
        let mut out = Vec::new();
        backend::row_description(&mut out, &[("id", 23), ("name", 25), ("x", 25)]);
        let mut two = Vec::new();
        backend::row_description(&mut two, &[("id", 23), ("name", 25)]);
        assert_eq!(first_columns(&out, 2), two);
        let mut row = Vec::new();
        backend::data_row(&mut row, &[Some(b"a"), None, Some(b"")]);
        assert_eq!(columns(&row), [Some(&b"a"[..]), None, Some(b"")]);
        assert_eq!(columns(&row[..row.len() - 2]).len(), 2);
        let twice = [&row[..], &row].concat();
        assert_eq!(messages(&twice).count(), 2);
    }
}
