//! The extended protocol of the virtual database: statements without parameters, portals, and rows in either format.

use std::collections::HashMap;

use super::command::Command;
use super::show::{Cell, Row, columns};
use crate::wire::backend;
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::frontend::{Bind, Close, Describe, Kind, Parse};

/// The most statements that one connection may hold.
const STATEMENTS: usize = 100;
/// The most portals: each may hold the rows of the largest table.
const PORTALS: usize = 16;

/// What a connection has prepared.
#[derive(Default)]
pub(super) struct Prepared {
    statements: HashMap<Vec<u8>, Command>,
    portals: HashMap<Vec<u8>, Portal>,
}

/// A command on its way.
pub(super) struct Portal {
    pub(super) command: Command,
    formats: Formats,
    /// The rows that are still to be sent; `None`: not executed yet.
    pub(super) rest: Option<std::vec::IntoIter<Row>>,
}

/// The formats of result columns: none (all text), one for all, or one for each; 0 text, 1 binary.
#[derive(Clone, Debug, Default)]
pub(super) struct Formats(Vec<i16>);

impl Formats {
    fn of(&self, column: usize) -> i16 {
        match self.0.as_slice() {
            [] => 0,
            [all] => *all,
            each => each.get(column).copied().unwrap_or(0),
        }
    }
}

impl Prepared {
    /// Parse.
    pub(super) fn parse(&mut self, parse: &Parse<'_>) -> Result<(), ErrorFields> {
        let mut commands = Command::split(parse.query);
        let command = Command::parse(commands.next().unwrap_or_default())?;
        if commands.next().is_some() {
            return Err(ErrorFields::error(
                SqlState::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            ));
        }
        if !parse.name.is_empty() {
            if self.statements.contains_key(parse.name) {
                let name = String::from_utf8_lossy(parse.name);
                return Err(ErrorFields::error(
                    SqlState::DUPLICATE_STATEMENT,
                    format!("prepared statement \"{name}\" already exists"),
                ));
            }
            if self.statements.len() >= STATEMENTS {
                return Err(too_many("prepared statements", STATEMENTS));
            }
        }
        self.statements.insert(parse.name.to_vec(), command);
        Ok(())
    }

    /// Bind.
    pub(super) fn bind(&mut self, bind: &Bind<'_>) -> Result<(), ErrorFields> {
        let command = self.statement(bind.statement)?;
        if bind.param_count() > 0 {
            return Err(ErrorFields::error(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {} parameters, but commands of the proxy take none",
                    bind.param_count()
                ),
            ));
        }
        let formats: Vec<i16> = bind.result_formats().collect();
        if let Some(other) = formats.iter().find(|f| ![0, 1].contains(*f)) {
            return Err(ErrorFields::error(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("unsupported format code: {other}"),
            ));
        }
        let width = columns_of(command).map_or(0, <[_]>::len);
        if formats.len() > 1 && formats.len() != width {
            return Err(ErrorFields::error(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message has {} result formats but query has {width} columns",
                    formats.len()
                ),
            ));
        }
        if !bind.portal.is_empty() && self.portals.contains_key(bind.portal) {
            let name = String::from_utf8_lossy(bind.portal);
            return Err(ErrorFields::error(
                SqlState::DUPLICATE_CURSOR,
                format!("cursor \"{name}\" already exists"),
            ));
        }
        if self.portals.len() >= PORTALS && !self.portals.contains_key(bind.portal) {
            return Err(too_many("portals", PORTALS));
        }
        let formats = Formats(formats);
        let portal = Portal {
            command,
            formats,
            rest: None,
        };
        self.portals.insert(bind.portal.to_vec(), portal);
        Ok(())
    }

    /// Describe: appends the answer.
    pub(super) fn describe(
        &mut self,
        describe: &Describe<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ErrorFields> {
        let (command, formats) = match describe.kind {
            Kind::Statement => {
                let command = self.statement(describe.name)?;
                backend::parameter_description(out, &[]);
                (command, Formats::default())
            }
            Kind::Portal => {
                let portal = self.portal(describe.name)?;
                (portal.command, portal.formats.clone())
            }
        };
        match columns_of(command) {
            Some(columns) => backend::row_description_in(out, columns, |n| formats.of(n)),
            None => backend::no_data(out),
        }
        Ok(())
    }

    /// Close: what isn't there is no error.
    pub(super) fn close(&mut self, close: &Close<'_>) {
        match close.kind {
            Kind::Statement => drop(self.statements.remove(close.name)),
            Kind::Portal => drop(self.portals.remove(close.name)),
        }
    }

    /// A transaction ends: its portals do.
    pub(super) fn end_portals(&mut self) {
        self.portals.clear();
    }

    fn statement(&self, name: &[u8]) -> Result<Command, ErrorFields> {
        self.statements.get(name).copied().ok_or_else(|| {
            let text = match name.is_empty() {
                true => "unnamed prepared statement does not exist".to_owned(),
                false => format!(
                    "prepared statement \"{}\" does not exist",
                    String::from_utf8_lossy(name)
                ),
            };
            ErrorFields::error(SqlState::INVALID_STATEMENT_NAME, text)
        })
    }

    /// The portal of this name.
    pub(super) fn portal(&mut self, name: &[u8]) -> Result<&mut Portal, ErrorFields> {
        self.portals.get_mut(name).ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            ErrorFields::error(
                SqlState::INVALID_CURSOR_NAME,
                format!("portal \"{name}\" does not exist"),
            )
        })
    }
}

impl Portal {
    /// Sends at most `most` of the rows that are left (0 and below: all), then says whether that was the last.
    pub(super) fn send(&mut self, most: i32, out: &mut Vec<u8>) {
        let most = usize::try_from(most).ok().filter(|n| *n > 0);
        if let Some(rest) = &mut self.rest {
            for row in rest.by_ref().take(most.unwrap_or(usize::MAX)) {
                data_row(out, &row, &self.formats);
            }
            if rest.len() > 0 {
                backend::portal_suspended(out);
                return;
            }
        }
        complete(out, self.command);
    }
}

/// The columns of a command that answers with rows.
pub(super) fn columns_of(command: Command) -> Option<&'static [(&'static str, u32)]> {
    match command {
        Command::Show(view) => Some(columns(view)),
        _ => None,
    }
}

/// Appends CommandComplete, or EmptyQueryResponse.
pub(super) fn complete(out: &mut Vec<u8>, command: Command) {
    match command {
        Command::Empty => backend::empty_query(out),
        command => backend::command_complete(out, command.tag()),
    }
}

fn too_many(what: &str, most: usize) -> ErrorFields {
    ErrorFields::error(
        SqlState::CONFIGURATION_LIMIT,
        format!("too many {what}: the console holds {most} at most"),
    )
}

/// Appends one row in these formats.
pub(super) fn data_row(out: &mut Vec<u8>, row: &Row, formats: &Formats) {
    let values: Vec<Option<Vec<u8>>> = row
        .iter()
        .enumerate()
        .map(|(n, cell)| encoded(cell, formats.of(n)))
        .collect();
    let values: Vec<Option<&[u8]>> = values.iter().map(Option::as_deref).collect();
    backend::data_row(out, &values);
}

/// Text is the same in both formats; numbers are big-endian in binary.
fn encoded(cell: &Cell, format: i16) -> Option<Vec<u8>> {
    Some(match cell {
        Cell::Null => return None,
        Cell::Text(text) => text.as_bytes().to_vec(),
        Cell::Int(n) if format == 1 => n.to_be_bytes().to_vec(),
        Cell::Int(n) => n.to_string().into_bytes(),
        Cell::Float(n) if format == 1 => n.to_be_bytes().to_vec(),
        Cell::Float(n) => n.to_string().into_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frontend::Oids;

    fn parse<'a>(name: &'a [u8], query: &'a [u8]) -> Parse<'a> {
        let types = Oids::from_bytes(b"");
        Parse { name, query, types }
    }

    fn bind(prepared: &mut Prepared, portal: &str, rest: &[u8]) -> Result<(), ErrorFields> {
        let mut body = portal.as_bytes().to_vec();
        body.extend_from_slice(b"\0\0");
        body.extend_from_slice(rest);
        prepared.bind(&Bind::decode(&body).unwrap())
    }

    #[test]
    fn statements_and_portals_are_bounded_and_named_once() {
        let mut prepared = Prepared::default();
        for n in 0..STATEMENTS {
            let name = n.to_string();
            prepared
                .parse(&parse(name.as_bytes(), b"SHOW MAP"))
                .unwrap();
        }
        let code = |result: Result<(), ErrorFields>| result.unwrap_err().code;
        let more = prepared.parse(&parse(b"x", b"SHOW MAP"));
        assert_eq!(code(more), SqlState::CONFIGURATION_LIMIT);
        let twice = prepared.parse(&parse(b"1", b"SHOW MAP"));
        assert_eq!(code(twice), SqlState::DUPLICATE_STATEMENT);
        let several = prepared.parse(&parse(b"", b"SHOW MAP; SHOW MAP"));
        assert_eq!(code(several), SqlState::SYNTAX_ERROR);
        prepared.parse(&parse(b"", b"SHOW MAP;")).unwrap();
        let plain = b"\0\0\0\0\0\0";
        for n in 0..PORTALS {
            bind(&mut prepared, &n.to_string(), plain).unwrap();
        }
        assert_eq!(
            code(bind(&mut prepared, "", plain)),
            SqlState::CONFIGURATION_LIMIT
        );
        assert_eq!(
            code(bind(&mut prepared, "1", plain)),
            SqlState::DUPLICATE_CURSOR
        );
        prepared.end_portals();
        bind(&mut prepared, "1", plain).unwrap();
        // A parameter, three formats for two columns, a format that isn't there.
        for bad in [
            &b"\0\0\0\x01\xff\xff\xff\xff\0\0"[..],
            b"\0\0\0\0\0\x03\0\0\0\0\0\0",
            b"\0\0\0\0\0\x01\0\x02",
        ] {
            assert!(bind(&mut prepared, "", bad).is_err());
        }
    }

    #[test]
    fn a_portal_gives_its_rows_in_pieces() {
        let mut prepared = Prepared::default();
        prepared.parse(&parse(b"", b"SHOW SHARDS")).unwrap();
        bind(&mut prepared, "", b"\0\0\0\0\0\x01\0\x01").unwrap();
        let portal = prepared.portal(b"").unwrap();
        let row = |n| vec![Cell::Int(n), "s".into(), Cell::Null];
        portal.rest = Some(vec![row(1), row(2)].into_iter());
        let mut out = Vec::new();
        portal.send(1, &mut out);
        let first =
            b"D\0\0\0\x1b\0\x03\0\0\0\x08\0\0\0\0\0\0\0\x01\0\0\0\x01s\xff\xff\xff\xffs\0\0\0\x04";
        assert_eq!(out, first);
        out.clear();
        portal.send(0, &mut out);
        assert!(out.ends_with(b"C\0\0\0\x09SHOW\0"));
    }
}
