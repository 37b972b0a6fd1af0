//! What a schema file does, learnt by running it in a transaction that is rolled back: the objects that each statement
//! makes, and what is to be mended after it. So Postgres itself does the naming, and a faulty file changes nothing.

use std::collections::HashMap;

use tokio_postgres::Client;

use super::next_id;
use super::objects::{self, Objects, telling};
use super::schema_file::Statement;
use crate::ops::connect::said;
use crate::shardmap::{Function, ShardId, ShardMap};

/// The schema that the file is tried in. Never committed.
const SCRATCH: &str = "presplit_trial";
/// Stands for a shard's schema in the texts of a [`Lesson`]: no SQL holds this character.
const SCHEMA: &str = "\u{1}";

/// What one statement does.
#[derive(Debug, Default)]
pub(super) struct Effect {
    /// The objects by which its work is recognised. Empty: it leaves none (`COMMENT`, `GRANT`, `SET DEFAULT` ...).
    pub(super) objects: Vec<String>,
    /// The statement without which this one is not to be run: that which makes what it is about.
    pub(super) maker: Option<usize>,
    /// To be run right after it in a shard.
    after: String,
    /// To be run at a shard's end if this statement was run.
    finish: String,
}

/// What the whole file does. As long as the file has statements.
#[derive(Debug)]
pub(super) struct Lesson {
    effects: Vec<Effect>,
}

impl Lesson {
    /// Runs all statements on a host and rolls back. `Err` holds every fault that could be found.
    pub(super) async fn learn(
        client: &Client,
        map: &ShardMap,
        statements: &[Statement],
    ) -> Result<Lesson, Vec<String>> {
        client
            .batch_execute("BEGIN")
            .await
            .map_err(|e| vec![said(&e)])?;
        let lesson = Trial {
            client,
            map,
            statements,
            effects: Vec::new(),
        }
        .run()
        .await;
        // Whatever the outcome; a connection that is lost rolls back too.
        let _ = client.batch_execute("ROLLBACK").await;
        lesson
    }

    /// The effect of statement number `i`.
    pub(super) fn effect(&self, i: usize) -> &Effect {
        &self.effects[i]
    }

    /// The names of tables, views and sequences that a shard will hold.
    pub(super) fn shard_relations<'l>(
        &'l self,
        statements: &'l [Statement],
    ) -> impl Iterator<Item = &'l str> {
        let sharded = self
            .effects
            .iter()
            .zip(statements)
            .filter(|(_, s)| s.place.shards);
        sharded
            .flat_map(|(effect, _)| &effect.objects)
            .filter_map(|object| {
                object
                    .strip_prefix("relation ")
                    .or_else(|| object.strip_prefix("sequence "))
            })
    }

    /// Everything by which the statements' work in a shard is recognised, and `next_id()` itself.
    pub(super) fn telling_objects(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .effects
            .iter()
            .flat_map(|effect| effect.objects.clone())
            .collect();
        all.push(NEXT_ID.to_owned());
        all
    }

    /// The statements to run in a place that holds `there`, out of those that belong to it: true where it is to be run.
    /// What was there stays as it is.
    pub(super) fn missing(&self, belongs: impl Fn(usize) -> bool, there: &Objects) -> Vec<bool> {
        (0..self.effects.len())
            .map(|i| belongs(i) && self.is_missing(i, there))
            .collect()
    }

    fn is_missing(&self, i: usize, there: &Objects) -> bool {
        let effect = &self.effects[i];
        match effect.maker {
            // What it is about is never again about something: a chain of makers ends at one that makes objects.
            Some(maker) if effect.objects.is_empty() => self.is_missing(maker, there),
            _ => !effect.objects.iter().all(|object| there.contains(object)),
        }
    }

    /// One text that makes a shard, or completes it: the marked statements in order, in a transaction.
    pub(super) fn shard_script(
        &self,
        statements: &[Statement],
        run: &[bool],
        schema: &str,
        shard: ShardId,
        with_next_id: bool,
    ) -> String {
        let mut text = format!(
            "BEGIN;\nCREATE SCHEMA IF NOT EXISTS {schema};\nSET LOCAL search_path = {schema}, public;\n"
        );
        if with_next_id {
            text.push_str(&next_id::ddl(schema, shard));
        }
        for step in self.shard_steps(statements, run, schema) {
            text.push_str(&step.sql);
            // The statement may end in a line comment.
            text.push_str("\n;\n");
        }
        text.push_str(&format!(
            "INSERT INTO presplit.shard (shard, epoch, state) VALUES ({shard}, 1, 'open') ON CONFLICT (shard) DO NOTHING;\nCOMMIT"
        ));
        text
    }

    /// The statements of [`Lesson::shard_script`] one by one.
    pub(super) fn shard_steps<'l>(
        &'l self,
        statements: &'l [Statement],
        run: &'l [bool],
        schema: &'l str,
    ) -> impl Iterator<Item = Step> {
        let marked = || {
            self.effects
                .iter()
                .zip(statements)
                .zip(run)
                .filter(|(_, run)| **run)
                .map(|(pair, _)| pair)
        };
        let own = marked().flat_map(move |(effect, statement)| {
            [
                Step::new(statement, statement.text.clone()),
                Step::new(statement, effect.after.replace(SCHEMA, schema)),
            ]
        });
        let finish =
            marked().map(|(effect, statement)| Step::new(statement, effect.finish.clone()));
        own.chain(finish).filter(|step| !step.sql.is_empty())
    }
}

/// How [`objects`] names `next_id()`.
pub(super) const NEXT_ID: &str = "function next_id()";

/// A statement to run, and where it comes from.
#[derive(Debug)]
pub(super) struct Step {
    /// Its line in the file.
    pub(super) line: usize,
    /// Its text.
    pub(super) sql: String,
}

impl Step {
    fn new(statement: &Statement, sql: String) -> Step {
        Step {
            line: statement.line,
            sql,
        }
    }
}

/// A run of the file under way.
struct Trial<'t> {
    client: &'t Client,
    map: &'t ShardMap,
    statements: &'t [Statement],
    effects: Vec<Effect>,
}

impl Trial<'_> {
    async fn run(mut self) -> Result<Lesson, Vec<String>> {
        let one = |e: tokio_postgres::Error| vec![said(&e)];
        let setup = format!(
            "CREATE SCHEMA {SCRATCH}; SET LOCAL search_path = {SCRATCH}, public; {}",
            next_id::ddl(SCRATCH, ShardId(0))
        );
        self.client.batch_execute(&setup).await.map_err(one)?;
        let mut before = self.objects().await.map_err(one)?;
        for (i, statement) in self.statements.iter().enumerate() {
            self.execute(statement).await.map_err(|why| {
                vec![format!(
                    "line {}: {}: {why}",
                    statement.line, statement.label
                )]
            })?;
            let after = self.objects().await.map_err(one)?;
            let made: Objects = after.difference(&before).cloned().collect();
            let mut effect = Effect {
                objects: telling(&made),
                maker: self.maker(i),
                ..Effect::default()
            };
            if let Some(name) = &statement.extension {
                effect.objects = vec![format!("extension {name}")];
            }
            effect.after = self.search_paths(&made).await.map_err(one)?;
            self.effects.push(effect);
            before = after;
        }
        let mut faults = self.finish_ids().await.map_err(one)?;
        faults.extend(self.check_keys().await.map_err(one)?);
        match faults.is_empty() {
            true => Ok(Lesson {
                effects: self.effects,
            }),
            false => Err(faults),
        }
    }

    async fn execute(&self, statement: &Statement) -> Result<(), String> {
        if let Some(name) = &statement.extension {
            let there = self
                .client
                .query_opt(
                    "SELECT 1 FROM pg_catalog.pg_extension WHERE extname = $1::text",
                    &[name],
                )
                .await;
            if there.map_err(|e| said(&e))?.is_some() {
                return Ok(());
            }
        }
        self.client
            .batch_execute(&statement.text)
            .await
            .map_err(|e| said(&e))
    }

    async fn objects(&self) -> Result<Objects, tokio_postgres::Error> {
        objects::of_schema(self.client, SCRATCH).await
    }

    /// The statement that makes what statement `i` is about. Names are looked up among what the earlier ones made.
    fn maker(&self, i: usize) -> Option<usize> {
        let name = self.statements[i].about.as_ref()?;
        self.effects.iter().position(|effect| {
            effect.objects.iter().any(|object| {
                object
                    .split_once(' ')
                    .is_some_and(|(_, rest)| rest.split('(').next() == Some(name))
            })
        })
    }

    /// Functions find their own shard's tables whatever search_path they are called under.
    async fn search_paths(&self, made: &Objects) -> Result<String, tokio_postgres::Error> {
        if !made.iter().any(|object| object.starts_with("function ")) {
            return Ok(String::new());
        }
        let names: Vec<&str> = made
            .iter()
            .filter_map(|o| o.strip_prefix("function ")?.split('(').next())
            .collect();
        let rows = self
            .client
            .query(
                "SELECT pg_catalog.quote_ident(p.proname) || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')'
                 FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                 WHERE n.nspname = $1::text AND p.proname::text = ANY($2::text[]) AND p.prokind <> 'a'
                   AND NOT EXISTS (SELECT FROM unnest(p.proconfig) setting WHERE setting LIKE 'search\\_path=%')",
                &[&SCRATCH, &names],
            )
            .await?;
        let alters = rows.iter().map(|row| {
            format!(
                "ALTER ROUTINE {} SET search_path = {SCHEMA}, public",
                row.get::<_, &str>(0)
            )
        });
        Ok(alters.collect::<Vec<_>>().join(";\n"))
    }

    /// Columns that the map lists as `ids` (with `embedded`, keys too) and that take their values from a sequence take them from `next_id()`.
    async fn finish_ids(&mut self) -> Result<Vec<String>, tokio_postgres::Error> {
        let mut faults = Vec::new();
        for (table, rule) in &self.map.tables {
            let Some(maker) = self.maker_of_table(table) else {
                continue;
            };
            // A key that carries its shard is made as such an id is.
            let key = rule.key.as_ref().filter(|key| {
                self.map.keyspace.function == Function::Embedded && !rule.ids.contains(key)
            });
            for column in rule.ids.iter().chain(key) {
                let Some(found) = self.id_column(table, column).await? else {
                    // Of the key that is said elsewhere.
                    if key == Some(column) {
                        continue;
                    }
                    faults.push(format!(
                        "[tables] {table}: ids names {column:?}, and the table has no such column"
                    ));
                    continue;
                };
                if found.type_name != "bigint" && (key != Some(column) || found.from_sequence) {
                    faults.push(format!(
                        "{table}.{column} is {}: an id that carries its shard takes a bigint",
                        found.type_name
                    ));
                }
                if found.from_sequence {
                    self.finish_column(maker, table, column, &found).await?;
                }
            }
        }
        Ok(faults)
    }

    async fn finish_column(
        &mut self,
        maker: usize,
        table: &str,
        column: &str,
        found: &IdColumn,
    ) -> Result<(), tokio_postgres::Error> {
        let (table, column) = (quote(table), quote(column));
        let mut sql = format!(
            "ALTER TABLE {table} ALTER COLUMN {column} DROP IDENTITY IF EXISTS;\nALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT next_id()"
        );
        for sequence in &found.sequences {
            sql.push_str(&format!(";\nDROP SEQUENCE {}", quote(sequence)));
        }
        self.client.batch_execute(&sql).await?;
        let finish = &mut self.effects[maker].finish;
        if !finish.is_empty() {
            finish.push_str(";\n");
        }
        finish.push_str(&sql);
        // A sequence that is made by a statement of its own and dropped here must not be missed in a later run.
        for sequence in &found.sequences {
            let object = format!("sequence {sequence}");
            for effect in self
                .effects
                .iter_mut()
                .filter(|effect| effect.objects.contains(&object))
            {
                effect.objects.retain(|o| *o != object);
                effect.maker = Some(maker);
            }
        }
        Ok(())
    }

    async fn id_column(
        &self,
        table: &str,
        column: &str,
    ) -> Result<Option<IdColumn>, tokio_postgres::Error> {
        let row = self
            .client
            .query_opt(
                "SELECT pg_catalog.format_type(a.atttypid, NULL),
                        a.attidentity <> '' OR coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%', false),
                        ARRAY(SELECT s.relname::text FROM pg_catalog.pg_depend dep JOIN pg_catalog.pg_class s ON s.oid = dep.objid
                              WHERE dep.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND s.relkind = 'S' AND dep.deptype = 'a'
                                AND dep.refobjid = c.oid AND dep.refobjsubid = a.attnum)
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
                 LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
                 WHERE n.nspname = $1::text AND c.relname = $2::text AND a.attname = $3::text",
                &[&SCRATCH, &table, &column],
            )
            .await?;
        Ok(row.map(|row| IdColumn {
            type_name: row.get(0),
            from_sequence: row.get(1),
            sequences: row.get(2),
        }))
    }

    fn maker_of_table(&self, table: &str) -> Option<usize> {
        let object = format!("relation {table}");
        self.effects
            .iter()
            .zip(self.statements)
            .position(|(effect, s)| s.place.shards && effect.objects.contains(&object))
    }

    /// Every sharded table must have its key column: without it no statement on it can be routed.
    async fn check_keys(&self) -> Result<Vec<String>, tokio_postgres::Error> {
        let columns = self.objects().await?;
        let tables: HashMap<&str, usize> = (self.effects.iter().zip(self.statements))
            .filter(|(_, s)| s.place.shards && s.label.starts_with("table "))
            .filter_map(|(effect, s)| {
                Some((effect.objects.first()?.strip_prefix("relation ")?, s.line))
            })
            .collect();
        let mut faults = Vec::new();
        for (table, line) in tables {
            let key = self
                .map
                .tables
                .get(table)
                .and_then(|rule| rule.key.as_ref())
                .unwrap_or(&self.map.keyspace.key);
            if !columns.contains(&format!("column {table}.{key}")) {
                faults.push(format!(
                    "line {line}: table {table} has no column {key:?} to be split by: name its key in [tables] ({table} = {{ key = \"...\" }}), \
                     or that it is no sharded table ({table} = {{ kind = \"reference\" }} or {{ host = \"...\" }})"
                ));
            }
        }
        faults.sort();
        Ok(faults)
    }
}

struct IdColumn {
    type_name: String,
    /// Identity, serial, or `DEFAULT nextval(...)`.
    from_sequence: bool,
    /// Sequences that the column owns (those of an identity go with it).
    sequences: Vec<String>,
}

/// A name as it can stand in any statement.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
