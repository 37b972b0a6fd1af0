//! DDL inside a block: until it is committed only the block's own server connections see what it has made, so the catalog is
//! read through those.

use std::sync::Arc;

use super::Session;
use super::block::{Block, quoted};
use super::commit::Ended;
use super::context::{Prepared, Schema, Scratch, Statement, place};
use super::errors::Fault;
use crate::catalog::{SchemaPart, Snapshot, questions};
use crate::route::Tables;
use crate::sql::control;
use crate::sql::shape::Shape;
use crate::wire::frame;

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
    /// Whether it has changed tables that others see once it is committed.
    pub(super) fn has_changed_tables(&self) -> bool {
        self.changed_for_all
    }
}

impl Session {
    /// The tables that the next statement is read by.
    pub(super) fn schema(&self) -> Arc<Schema> {
        match self.schema_of_its_own() {
            Some(own) => own.clone(),
            None => self.context.schema.load_full(),
        }
    }

    /// [`Session::schema`], as a rule the one that the event loop has used last.
    pub(super) fn schema_at_hand(&self, scratch: &Scratch) -> Arc<Schema> {
        match (self.schema_of_its_own(), &scratch.schema) {
            (Some(own), _) => own.clone(),
            (None, Some(last)) if place(Arc::as_ptr(last)) == self.context.schema.place() => {
                last.clone()
            }
            (None, _) => self.context.schema.load_full(),
        }
    }

    /// Whether the statement was prepared for [`Session::schema`].
    pub(super) fn is_of_schema(&self, statement: &Statement) -> bool {
        let now = match self.schema_of_its_own() {
            Some(own) => place(Arc::as_ptr(own)),
            None => self.context.schema.place(),
        };
        place(statement.schema.as_ptr()) == now
    }

    /// The tables that the next statement is read by, if they are not everybody's.
    fn schema_of_its_own(&self) -> Option<&Arc<Schema>> {
        match self.block.as_ref().map(|block| &block.tables) {
            Some(BlockTables::Own(schema)) => Some(schema),
            _ => self.own_schema(),
        }
    }

    /// The open block has changed tables (or gone back to how they were at a savepoint).
    pub(super) fn block_tables_changed(&mut self) {
        if let Some(block) = &mut self.block {
            block.tables = BlockTables::Changed;
            block.changed_for_all = true;
        }
    }

    /// The open block's tables must be read before the next statement is.
    pub(super) fn must_read_tables(&self) -> bool {
        match self
            .block
            .as_ref()
            .map(|block| (block.failed, &block.tables))
        {
            Some((failed, BlockTables::Changed)) => !failed,
            Some((_, BlockTables::Own(_))) => false,
            None if self.batch.tables_changed => true,
            _ => self.temporary.is_some() && self.is_own_schema_stale(),
        }
    }

    /// The same for the message at hand. A portal is what it is; the unnamed one would not outlive the reading.
    pub(super) fn must_read_tables_for(&self, tag: u8) -> bool {
        let kind = self.client.inbox.get(self.client.read + frame::HEADER);
        self.must_read_tables()
            && !(tag == b'D' && kind == Some(&b'P'))
            && !(self.block.is_none() && self.goes_by_no_table(tag).unwrap_or(false))
    }

    /// The message is of a statement that is the same whatever tables there are. Outside of a block Postgres treats some otherwise than
    /// within, and to read the tables takes one.
    fn goes_by_no_table(&self, tag: u8) -> Option<bool> {
        let from = self.client.read + frame::HEADER;
        let mut strings = self.client.inbox.get(from..)?.split(|byte| *byte == 0);
        let name = match tag {
            // Of a statement; that of a portal is not asked for.
            b'D' => strings.next()?.get(1..)?,
            b'B' => strings.nth(1)?,
            _ => {
                let text = strings.nth(usize::from(tag == b'P'))?;
                let mut shape = Shape::default();
                shape.scan(text).ok()?;
                return Some(!control::parse(text, &shape)?.goes_by_tables());
            }
        };
        let statement = self.statements.get(name)?;
        match &*statement.prepared {
            Prepared::Control(control) => Some(!control.goes_by_tables()),
            _ => None,
        }
    }

    /// Reads the tables as the open block sees them: on each host that it has written on.
    pub(super) async fn read_block_tables(&mut self) -> Result<(), Fault> {
        if self.block.is_none() && self.batch.tables_changed {
            self.settle_unparsed().await?;
            self.settle_replies().await?;
            self.batch_becomes_block().await?;
        }
        let changed = |block: &Block| !matches!(block.tables, BlockTables::Same);
        if !self.block.as_deref().is_some_and(changed) {
            self.make_own_schema();
            return Ok(());
        }
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
        let (mut tables, _) = Tables::new(&self.map, &snapshot);
        if let Some(temporary) = self.block_temporary().await? {
            tables = tables.with_temporary(temporary.tables.values());
        }
        let schema = Schema::new(&self.map, Some(tables), snapshot).into_own();
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

    pub(super) async fn read_schema(
        &mut self,
        i: usize,
        schema: &str,
    ) -> Result<SchemaPart, Fault> {
        let path = format!("SET search_path TO {}, public", quoted(schema));
        let text = format!("{path};\n{}", questions(schema, false).join(";\n"));
        let answers = self.rows_of(i, &text).await;
        let link = &mut self.links[i];
        if let Some(conn) = &mut link.conn {
            conn.doubt(["search_path".to_owned()]);
        }
        // The first is that of SET.
        Ok(SchemaPart::of(answers?.split_off(1)))
    }
}
