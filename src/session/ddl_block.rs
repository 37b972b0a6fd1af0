//! DDL inside a block: until it is committed only the block's own server connections see what it has made, so the catalog is
//! read through those.

use std::sync::Arc;

use super::Session;
use super::block::{Block, quoted};
use super::commit::Ended;
use super::context::Schema;
use super::errors::Fault;
use crate::catalog::{Row, SchemaPart, Snapshot, questions};
use crate::route::Tables;
use crate::wire::backend::ErrorView;
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::{frame, frontend};

/// The tables as an open block sees them.
#[derive(Default)]
pub(super) enum BlockTables {
    /// As everybody.
    #[default]
    Same,
    /// The block has changed them; what they are now is not read yet.
    Changed,
    /// The block has changed them to these.
    Own(Arc<Schema>),
}

impl Block {
    /// Whether it has changed tables.
    pub(super) fn has_changed_tables(&self) -> bool {
        !matches!(self.tables, BlockTables::Same)
    }
}

impl Session {
    /// The tables that the next statement is read by.
    pub(super) fn schema(&self) -> Arc<Schema> {
        match self.block.as_ref().map(|block| &block.tables) {
            Some(BlockTables::Own(schema)) => schema.clone(),
            _ => self.context.schema.load_full(),
        }
    }

    /// The open block has changed tables (or gone back to how they were at a savepoint).
    pub(super) fn block_tables_changed(&mut self) {
        if let Some(block) = &mut self.block {
            block.tables = BlockTables::Changed;
        }
    }

    /// The open block's tables must be read before the next statement is.
    pub(super) fn must_read_tables(&self) -> bool {
        let block = self.block.as_ref();
        block.is_some_and(|b| !b.failed && matches!(b.tables, BlockTables::Changed))
    }

    /// Reads the tables as the open block sees them: on each host that it has written on.
    pub(super) async fn read_block_tables(&mut self) -> Result<(), Fault> {
        self.settle_replies().await?;
        let mut snapshot = Snapshot::clone(&self.context.schema.load().snapshot);
        let template = self.map.template();
        for i in 0..self.links.len() {
            let host = self.links[i].host;
            let block = self.block.as_ref();
            if !block.is_some_and(|block| block.writers.contains(host)) {
                continue;
            }
            let name = self.map.host(host).name.clone();
            snapshot.set_public(&name, self.read_schema(i, "public").await?);
            if self.map.owner(template) == host {
                let schema = self.map.keyspace.schema.name(template);
                snapshot.set_template(&name, self.read_schema(i, &schema).await?);
            }
        }
        let (tables, _) = Tables::new(&self.map, &snapshot);
        let schema = Arc::new(Schema::new(&self.map, Some(tables), snapshot));
        if let Some(block) = &mut self.block {
            block.tables = BlockTables::Own(schema);
        }
        Ok(())
    }

    /// A block that may have changed tables is over. If it is committed, the tables are read before the client hears of it:
    /// its next statement may name what was made.
    pub(super) async fn renew_tables(&self, changed: bool, ended: &Result<Ended, Fault>) {
        match ended {
            Ok(Ended::Committed) if changed => self.context.refresh.renew().await,
            Err(_) if changed => self.context.refresh.renew_soon(),
            _ => {}
        }
    }

    async fn read_schema(&mut self, i: usize, schema: &str) -> Result<SchemaPart, Fault> {
        let path = format!("SET search_path TO {}, public", quoted(schema));
        let text = format!("{path};\n{}", questions(schema, false).join(";\n"));
        frontend::query(&mut self.links[i].outbox, text.as_bytes());
        self.links[i].unsynced = false;
        // The first is that of SET.
        let mut answers: Vec<Vec<Row>> = vec![Vec::new()];
        let mut refused = None;
        loop {
            let (tag, len) = self.next_message(i).await?;
            self.have(i, len).await?;
            let link = &mut self.links[i];
            let body = &link.unread()[frame::HEADER..len];
            match tag {
                b'D' => {
                    let row = row(body);
                    answers.last_mut().expect("never empty").push(row);
                }
                b'C' => answers.push(Vec::new()),
                b'E' => {
                    let view = ErrorView::decode(body);
                    let said = view.ok().map(|view| {
                        let text = |f| String::from_utf8_lossy(view.get(f).unwrap_or_default());
                        ErrorFields::error(
                            view.code().unwrap_or(SqlState::INTERNAL_ERROR),
                            text(b'M').into_owned(),
                        )
                    });
                    refused = said;
                }
                b'Z' => {
                    link.status = body.first().copied().unwrap_or(b'E');
                    link.take(len);
                    break;
                }
                _ => {}
            }
            link.take(len);
        }
        let link = &mut self.links[i];
        link.settings_touched = true;
        if let Some(conn) = &mut link.conn {
            conn.doubt(["search_path".to_owned()]);
        }
        match refused {
            Some(fields) => Err(Fault::statement(fields)),
            None => Ok(SchemaPart::of(answers.split_off(1))),
        }
    }
}

/// The values of a DataRow in text format. One that is cut short ends early.
pub(super) fn row(body: &[u8]) -> Row {
    let mut values = Vec::new();
    let mut rest = body.get(2..).unwrap_or_default();
    while let Some((len, behind)) = rest.split_first_chunk::<4>() {
        let len = i32::from_be_bytes(*len);
        if len < 0 {
            values.push(None);
            rest = behind;
            continue;
        }
        let Some(value) = behind.get(..len as usize) else {
            break;
        };
        values.push(Some(String::from_utf8_lossy(value).into_owned()));
        rest = &behind[len as usize..];
    }
    values
}

#[cfg(test)]
mod tests {
    #[test]
    fn rows_of_text() {
        let body = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0";
        let own = |text: &str| Some(text.to_owned());
        assert_eq!(super::row(body), [own("ab"), None, own("")]);
        assert_eq!(super::row(b"\0\x01\0\0\0\x09ab"), []);
        assert!(super::row(b"").is_empty());
    }
}
