//! The temporary tables of a session: known to it alone, so that it reads its statements by tables of its own.

use std::sync::Arc;

use super::Session;
use super::context::Schema;
use super::ddl_block::BlockTables;
use super::errors::Fault;
use crate::catalog::SchemaPart;

/// A session's temporary tables.
pub(super) struct Temporary {
    tables: SchemaPart,
    /// The tables of everybody, and those with these.
    schemas: Option<(Arc<Schema>, Arc<Schema>)>,
}

impl Temporary {
    pub(super) fn new(tables: SchemaPart) -> Box<Temporary> {
        Box::new(Temporary {
            tables,
            schemas: None,
        })
    }
}

impl Session {
    /// The tables with the session's temporary ones, if it has some.
    pub(super) fn own_schema(&self) -> Option<&Arc<Schema>> {
        let temporary = self.temporary.as_ref()?;
        temporary.schemas.as_ref().map(|(_, own)| own)
    }

    /// Whether the tables of everybody have changed since [`Session::own_schema`] was made.
    pub(super) fn is_own_schema_stale(&self) -> bool {
        self.temporary.as_ref().is_some_and(|temporary| {
            let current = self.context.schema.load();
            let made = temporary.schemas.as_ref();
            made.is_none_or(|(base, _)| !Arc::ptr_eq(base, &current))
        })
    }

    /// Makes [`Session::own_schema`].
    pub(super) fn make_own_schema(&mut self) {
        let Some(temporary) = &mut self.temporary else {
            return;
        };
        let base = self.context.schema.load_full();
        let tables = base.tables.as_ref();
        let tables = tables.map(|tables| tables.with_temporary(temporary.tables.tables.values()));
        let own = Schema::new(&self.map, tables, base.snapshot.clone());
        temporary.schemas = Some((base, own.into_own()));
    }

    /// What makes, changes or drops a temporary table is run: they must be read before the next statement is.
    pub(super) fn temporary_changes(&mut self) {
        match &mut self.block {
            Some(block) => block.tables = BlockTables::Changed,
            // The transaction of a Query ends with it.
            None => self.batch.tables_changed |= self.batch.now != b'Q',
        }
    }

    /// The temporary tables as the open block sees them: on the link that may have changed them, else as they were.
    pub(super) async fn block_temporary(&mut self) -> Result<Option<SchemaPart>, Fault> {
        let changed = self.links.iter().position(|link| link.suspect);
        let Some(i) = changed else {
            return Ok(self.temporary.as_ref().map(|t| t.tables.clone()));
        };
        let schema = "SELECT nspname FROM pg_catalog.pg_namespace WHERE oid = pg_catalog.pg_my_temp_schema()";
        let answers = self.rows_of(i, schema).await?;
        match answers.into_iter().flatten().flatten().flatten().next() {
            Some(schema) => Ok(Some(self.read_schema(i, &schema).await?)),
            None => Ok(None),
        }
    }
}
