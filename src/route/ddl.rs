//! DDL meets the catalog: whether it is about the shards' tables, reference tables or those of one host, and so where it
//! is run. What would tie tables of different places together, or change a key, is refused.

use crate::sql::ddl::{Act, Change, Ddl, ObjectKind, Run, Tie, quote, take_next_id};
use crate::sql::plan::{Plan, TableRef};
use crate::sql::rewrite::Edit;

use super::bind::sort;
use super::ddl_words as words;
use super::refusal::Refusal;
use super::rules::Rule;
use super::tables::{TableKind, Tables};

/// A statement that is run in several places, and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Where.
    pub place: Place,
    /// How.
    pub run: Run,
    /// Names, columns or types may be others afterwards.
    pub changes_catalog: bool,
    /// It takes locks that a transaction must hold: outside of one it makes no sense.
    pub needs_block: bool,
    /// What the client is told.
    pub notices: Vec<String>,
    /// What is run behind it in each place.
    pub after: Vec<After>,
    /// Nothing that it is about is known: it must not find by chance what stands in `public`.
    pub unknown: bool,
    /// The index that it makes, for the report of a failure.
    pub index: Option<String>,
}

/// The places where a statement is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the schema of each shard.
    Shards,
    /// In `public` of each host.
    Hosts,
    /// In `public` of this host.
    Host(String),
}

/// What is run behind a statement in each place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// These columns (name, and whether it must be made a bigint) take their values from `next_id()`.
    Ids {
        /// The table.
        table: String,
        /// Its columns.
        columns: Vec<(String, bool)>,
    },
    /// The routines of this name find their own shard's tables whatever search_path they are called under.
    SearchPath(String),
}

impl After {
    /// The text for a shard: its schema as it stands in a statement, and its bare name.
    pub fn sql(&self, schema: &str, bare: &str) -> String {
        match self {
            After::Ids { table, columns } => {
                let table = format!("{schema}.{}", quote(table));
                let columns: Vec<String> = columns
                    .iter()
                    .map(|(column, widen)| ids(&table, column, *widen))
                    .collect();
                columns.join(";\n")
            }
            After::SearchPath(name) => do_block(&format!(
                "DECLARE f pg_catalog.regprocedure; BEGIN
FOR f IN SELECT p.oid::pg_catalog.regprocedure FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname = {} AND p.proname = {} AND p.prokind <> 'a'
    AND NOT EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) setting WHERE setting LIKE 'search\\_path=%')
LOOP EXECUTE pg_catalog.format('ALTER ROUTINE %s SET search_path = %s, public', f, {}); END LOOP;
END",
                literal(bare),
                literal(name),
                literal(schema),
            )),
        }
    }
}

/// One column takes its values from `next_id()`, and the sequence that it had is gone.
fn ids(table: &str, column: &str, widen: bool) -> String {
    let quoted = quote(column);
    let widen = match widen {
        true => format!("ALTER TABLE {table} ALTER COLUMN {quoted} SET DATA TYPE bigint;\n"),
        false => String::new(),
    };
    do_block(&format!(
        "DECLARE s text := pg_catalog.pg_get_serial_sequence({}, {}); BEGIN
{};
{widen}IF s IS NOT NULL THEN EXECUTE 'DROP SEQUENCE IF EXISTS ' || s; END IF;
END",
        literal(table),
        literal(column),
        take_next_id(table, &quoted),
    ))
}

/// A block of PL/pgSQL in dollar quotes that nothing in it can end.
fn do_block(body: &str) -> String {
    let mut tag = "$presplit$".to_owned();
    while body.contains(&tag) {
        tag.insert(1, 'p');
    }
    format!("DO {tag} {body} {tag}")
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Home {
    Shards,
    Reference,
    Host(String),
    Unlisted,
    Unknown,
}

/// What a statement of DDL comes to, and where the shard's schema goes into its text.
pub(super) fn bind(ddl: &Ddl, plan: &Plan, tables: &Tables) -> (Rule, Vec<Edit>) {
    let binder = Binder { ddl, plan, tables };
    // It would make one for all, which the session could not name.
    let made = matches!(ddl.act, Act::Create | Act::CreateAs)
        && matches!(ddl.kind, ObjectKind::Table | ObjectKind::View);
    let hidden = ddl.objects.iter().find(|o| tables.is_temporary(&o.name));
    if let (true, Some(object)) = (made, hidden) {
        let rule = Rule::Refuse {
            refusal: super::words::hidden("public", &object.name),
            hintable: false,
        };
        return (rule, Vec::new());
    }
    match binder.work() {
        Ok(work) => {
            let edits = match work.place {
                Place::Shards => binder.edits(),
                _ => Vec::new(),
            };
            (binder.rule(work), edits)
        }
        Err(refusal) => {
            let rule = Rule::Refuse {
                refusal,
                hintable: true,
            };
            (rule, binder.edits())
        }
    }
}

struct Binder<'b> {
    ddl: &'b Ddl,
    plan: &'b Plan,
    tables: &'b Tables,
}

impl Binder<'_> {
    fn rule(&self, work: Work) -> Rule {
        match &work.place {
            // As any statement for one host: what it says on the way is passed on as it comes.
            Place::Host(host)
                if matches!(self.ddl.act, Act::Truncate | Act::Maintain | Act::Lock)
                    || self.tables.is_temporary(self.name()) =>
            {
                Rule::Host {
                    host: host.clone(),
                    table: self.name().to_owned(),
                }
            }
            _ => Rule::Ddl(Box::new(work)),
        }
    }

    fn name(&self) -> &str {
        self.ddl.objects.first().map_or("", |object| &object.name)
    }

    fn work(&self) -> Result<Work, Refusal> {
        for object in &self.ddl.objects {
            self.check_schema(object)?;
        }
        let mut notices = Vec::new();
        let there = self.home()?;
        let home = match &there {
            Home::Unknown => self.home_of_new(&mut notices)?,
            _ => there.clone(),
        };
        let makes = self.ddl.act == Act::Create && self.ddl.index.is_none();
        self.check_ties(&home)?;
        let place = match home {
            Home::Shards | Home::Unknown => Place::Shards,
            Home::Reference => Place::Hosts,
            Home::Host(host) => Place::Host(host),
            Home::Unlisted => return Err(super::words::unlisted(self.name())),
        };
        let mut after = Vec::new();
        if place == Place::Shards {
            self.check_key()?;
            after = self.after(&mut notices);
        }
        Ok(Work {
            place,
            run: self.ddl.run,
            changes_catalog: self.ddl.changes_catalog(),
            needs_block: self.ddl.act == Act::Lock,
            notices,
            after,
            unknown: there == Home::Unknown && !(makes && self.is_the_object_new()),
            index: self.ddl.index.clone(),
        })
    }

    /// Other schemas than `public` are not the app's.
    fn check_schema(&self, object: &TableRef) -> Result<(), Refusal> {
        match &object.schema {
            None => Ok(()),
            Some((schema, _)) if schema == "public" => Ok(()),
            Some((schema, _)) => Err(words::other_schema(schema, &object.name)),
        }
    }

    /// Where the objects are that are there already.
    fn home(&self) -> Result<Home, Refusal> {
        let mut found: Option<(Home, &str)> = None;
        for object in &self.ddl.objects {
            let home = self.home_of(self.ddl.kind, &object.name);
            match &found {
                _ if home == Home::Unknown => {}
                None => found = Some((home, &object.name)),
                Some((other, _)) if *other == home => {}
                Some((other, name)) => {
                    return Err(words::mixed(
                        (name, &in_words(other)),
                        (&object.name, &in_words(&home)),
                    ));
                }
            }
        }
        Ok(found.map_or(Home::Unknown, |(home, _)| home))
    }

    fn home_of(&self, kind: ObjectKind, name: &str) -> Home {
        match kind {
            ObjectKind::Table | ObjectKind::View => self.home_of_table(name),
            ObjectKind::Index | ObjectKind::Sequence => self.home_of_other(name),
            ObjectKind::Routine => match self.tables.functions() {
                functions if functions.sharded.contains(name) => Home::Shards,
                functions if functions.public.contains(name) => Home::Reference,
                _ => Home::Unknown,
            },
            ObjectKind::Type => Home::Reference,
        }
    }

    fn home_of_table(&self, name: &str) -> Home {
        match self.tables.get(name).map(|table| &table.kind) {
            Some(TableKind::Sharded { .. }) => Home::Shards,
            Some(TableKind::Reference) => Home::Reference,
            Some(TableKind::Unsharded { host }) => Home::Host(host.clone()),
            Some(TableKind::Unlisted) => Home::Unlisted,
            None => self.home_of_other(name),
        }
    }

    /// An index or a sequence is where its table is; a sequence without one where it stands.
    fn home_of_other(&self, name: &str) -> Home {
        if self.tables.is_sharded(name) || self.tables.other_in_shards(name) {
            return Home::Shards;
        }
        let hosts = self.tables.others_in_public(name);
        let table = hosts
            .iter()
            .find_map(|(_, other)| other.table.as_deref())
            .filter(|table| *table != name);
        match (table, &hosts[..]) {
            (Some(table), _) => self.home_of_table(table),
            (None, []) => Home::Unknown,
            (None, [(host, _)]) => Home::Host((*host).to_owned()),
            (None, _) => Home::Reference,
        }
    }

    /// Where what is not there yet (or is not known, and then Postgres says so) is to be.
    fn home_of_new(&self, notices: &mut Vec<String>) -> Result<Home, Refusal> {
        let name = self.name();
        if self.ddl.act == Act::CreateAs {
            return Err(words::create_as(name));
        }
        if self.ddl.act != Act::Create {
            return Ok(Home::Unknown);
        }
        match self.ddl.kind {
            ObjectKind::Table if self.makes_table() => self.home_of_new_table(notices),
            ObjectKind::View => self.home_of_view(),
            ObjectKind::Sequence => Ok(self.home_of_sequence(notices)),
            ObjectKind::Routine if self.is_in_public() => Ok(Home::Reference),
            _ => Ok(Home::Unknown),
        }
    }

    /// CREATE makes the object itself, rather than something on a table (an index, a trigger).
    fn is_the_object_new(&self) -> bool {
        self.ddl.kind != ObjectKind::Table || self.makes_table()
    }

    /// It is CREATE TABLE, not CREATE INDEX or TRIGGER.
    fn makes_table(&self) -> bool {
        matches!(&self.plan.verb, crate::sql::plan::Verb::Utility(verb) if verb == "CREATE TABLE")
    }

    fn is_in_public(&self) -> bool {
        let first = self.ddl.objects.first();
        first.is_some_and(|object| object.schema.is_some())
    }

    /// By its own line in `[tables]`, else by the table that it is tied to, else by its columns, else by the line `"*"`.
    fn home_of_new_table(&self, notices: &mut Vec<String>) -> Result<Home, Refusal> {
        let name = self.name();
        if let Some(home) = self.tables.rule(name).and_then(home_by_rule) {
            return Ok(home);
        }
        let tied = self.ddl.refers.iter().filter(|(tie, _)| *tie == Tie::Same);
        if let Some((_, table)) = tied.into_iter().next() {
            return match self.home_of_table(&table.name) {
                Home::Unknown => Err(super::words::unknown(&table.name)),
                home => Ok(home),
            };
        }
        let key = self.tables.key_of(name);
        if self.ddl.columns.iter().any(|column| column.name == key) {
            return Ok(Home::Shards);
        }
        if self.tables.rule(name).is_some() {
            return Err(words::listed_without_key(name, key));
        }
        let home = self.tables.rule("*").and_then(home_by_rule);
        let home = home.ok_or_else(|| words::no_kind(name, key, self.tables.a_host()))?;
        notices.push(format!(
            "table \"{name}\" has no column \"{key}\": it is made {} ([tables] \"*\")",
            in_words(&home)
        ));
        Ok(home)
    }

    /// A view is where the tables are that its query names.
    fn home_of_view(&self) -> Result<Home, Refusal> {
        let mut found: Option<(Home, &str)> = None;
        for word in self.plan.words.iter().filter(|word| *word != self.name()) {
            let home = match self.home_of_table(word) {
                home @ (Home::Shards | Home::Reference | Home::Host(_)) => home,
                Home::Unlisted => return Err(super::words::unlisted(word)),
                Home::Unknown => continue,
            };
            found = match found {
                None => Some((home, word)),
                // Every host has the reference tables.
                Some((Home::Reference, _)) => Some((home, word)),
                Some(other) if home == Home::Reference || home == other.0 => Some(other),
                Some((other, name)) => {
                    return Err(words::mixed(
                        (name, &in_words(&other)),
                        (word, &in_words(&home)),
                    ));
                }
            };
        }
        Ok(found.map_or(Home::Shards, |(home, _)| home))
    }

    fn home_of_sequence(&self, notices: &mut Vec<String>) -> Home {
        let name = self.name();
        if let Some((_, table)) = self.ddl.refers.first() {
            return self.home_of_table(&table.name);
        }
        if let Some(home) = self.tables.rule(name).and_then(home_by_rule) {
            return home;
        }
        notices.push(format!(
            "sequence \"{name}\" is made in every shard, and each counts by itself: its values repeat from shard to shard, those of next_id() never do"
        ));
        Home::Shards
    }

    /// What a table references, or is part of, must be where the table is.
    fn check_ties(&self, home: &Home) -> Result<(), Refusal> {
        for (tie, table) in &self.ddl.refers {
            self.check_schema(table)?;
            let other = self.home_of_table(&table.name);
            let fits = match (tie, home, &other) {
                _ if table.name == self.name() => true,
                // Postgres says that there is none.
                (_, _, Home::Unknown) | (_, Home::Unknown, _) => true,
                (Tie::References, Home::Shards | Home::Host(_), Home::Reference) => true,
                _ => *home == other,
            };
            if !fits {
                return Err(words::tied(
                    (self.name(), &in_words(home)),
                    (&table.name, &in_words(&other)),
                    *tie,
                ));
            }
        }
        Ok(())
    }

    /// The rows of a sharded table lie by their key: it must stay what it is.
    fn check_key(&self) -> Result<(), Refusal> {
        let name = self.name();
        let Some(TableKind::Sharded { key: Some(key), .. }) =
            self.tables.get(name).map(|table| &table.kind)
        else {
            return Ok(());
        };
        for change in &self.ddl.changes {
            match change {
                Change::Drop(column) if *column == key.name => {
                    return Err(words::drops_key(name, column));
                }
                Change::Rename(column, to) if *column == key.name => {
                    return Err(words::renames_key(name, column, to));
                }
                Change::Type(column, type_name)
                    if *column == key.name && !same_family(key.key_type, type_name) =>
                {
                    return Err(words::retypes_key(name, column, type_name));
                }
                Change::RenameTo(to) if self.tables.knows_relation(to) => {
                    return Err(words::name_taken(to));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn after(&self, notices: &mut Vec<String>) -> Vec<After> {
        let ddl = self.ddl;
        let name = self.name();
        if ddl.act == Act::Create && ddl.kind == ObjectKind::Routine {
            return vec![After::SearchPath(name.to_owned())];
        }
        // IF NOT EXISTS of a table that is there changes nothing.
        if ddl.act == Act::Create && self.tables.get(name).is_some() {
            return Vec::new();
        }
        let key = self.tables.key_of(name);
        let mut columns = Vec::new();
        for column in ddl.columns.iter().filter(|c| c.counts && c.name != key) {
            let big = matches!(
                column.type_name.as_str(),
                "bigserial" | "serial8" | "bigint" | "int8"
            );
            let widened = if big { "" } else { ", and so is a bigint" };
            let listed = self
                .tables
                .rule(name)
                .is_some_and(|rule| rule.ids.contains(&column.name));
            let hint = match listed {
                true => String::new(),
                false => format!(
                    "; list it ([tables] {name} = {{ ids = [\"{}\"] }}) and a condition on it alone finds the shard",
                    column.name
                ),
            };
            notices.push(format!(
                "{name}.{} takes its values from next_id(), so that they are unique in all shards{widened}{hint}",
                column.name
            ));
            columns.push((column.name.clone(), !big));
        }
        match columns.is_empty() {
            true => Vec::new(),
            false => vec![After::Ids {
                table: name.to_owned(),
                columns,
            }],
        }
    }

    /// The shard's schema in front of the objects, and in place of `public` before what is in the shards.
    fn edits(&self) -> Vec<Edit> {
        let ddl = self.ddl;
        let new =
            ddl.act == Act::Create && ddl.kind != ObjectKind::Type && self.is_the_object_new();
        let ours = |name: &str| {
            self.home_of(ddl.kind, name) == Home::Shards || self.home_of_table(name) == Home::Shards
        };
        let mut edits = Vec::new();
        for object in &ddl.objects {
            let named =
                ours(&object.name) || new && self.home_of_table(&object.name) == Home::Unknown;
            match &object.schema {
                _ if !named => {}
                None => edits.push(Edit::Qualify(object.place.pos)),
                Some((_, place)) => edits.push(Edit::Replace(place.pos, place.len)),
            }
        }
        for named in &ddl.schemas {
            if ours(&named.table) {
                edits.push(Edit::Replace(named.place.pos, named.place.len));
            }
        }
        sort(&mut edits);
        edits
    }
}

fn home_by_rule(rule: &crate::shardmap::TableRule) -> Option<Home> {
    use crate::shardmap::Kind;
    match (rule.kind, &rule.host) {
        (Some(Kind::Reference), _) => Some(Home::Reference),
        (_, Some(host)) => Some(Home::Host(host.clone())),
        // The key column is still looked for.
        _ => None,
    }
}

fn in_words(home: &Home) -> String {
    match home {
        Home::Shards => "in the shards".to_owned(),
        Home::Reference => "on every host".to_owned(),
        Home::Host(host) => format!("on host {host}"),
        Home::Unlisted => "in public, and not listed in [tables]".to_owned(),
        Home::Unknown => "not there yet".to_owned(),
    }
}

/// Whether a key's values mean the same shard in a type (by the first word of its name).
fn same_family(key: crate::shardmap::KeyType, type_name: &str) -> bool {
    use crate::shardmap::KeyType;
    match key {
        KeyType::Int => matches!(
            type_name,
            "bigint" | "int8" | "integer" | "int" | "int4" | "smallint" | "int2"
        ),
        KeyType::Text => matches!(type_name, "text" | "varchar"),
        KeyType::Uuid => type_name == "uuid",
    }
}

#[cfg(test)]
mod tests;
