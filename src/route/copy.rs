//! COPY: which shard a row of its data belongs to, and whether a COPY may be of several shards.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::catalog::Column;
use crate::shardmap::{KeyType, KeyValue, ShardId, ShardMap};
use crate::sql::copy::{Field, Options, Splitter};
use crate::sql::plan::{CopyEnd, CopyTable, Plan, Verb};
use crate::sql::rewrite::Pos;

use super::bind::{Class, classify};
use super::copies::{Means, Reference};
use super::refusal::Refusal;
use super::rules::{Carries, Reach, Rule, Sharded};
use super::tables::{Table, TableKind, Tables};
use super::value::{self, Fault, oid};
use super::words;

/// A COPY FROM STDIN of a sharded table: each row goes to its own shard. Or of a reference table.
#[derive(Clone, Debug)]
pub struct CopyIn {
    /// The table.
    pub table: String,
    /// How the data is written.
    pub options: Options,
    /// The columns of the data, in order.
    pub columns: Vec<String>,
    /// The text names no columns: this list is to be put here, so that the server reads the columns that we read.
    pub list: Option<(Pos, String)>,
    /// It is a reference table, with these columns: all rows go to every host.
    whole: Option<Vec<String>>,
    /// The shard whose schema the text names.
    pub(super) fixed: Option<ShardId>,
    /// Numbers of the columns that are looked at, rising.
    wanted: SmallVec<[usize; 2]>,
    /// What each of them says.
    roles: SmallVec<[Role; 2]>,
    /// Which of them decides; the others must agree.
    decides: usize,
}

/// What a column of the data says of the row's shard.
#[derive(Clone, Debug)]
struct Role {
    column: String,
    carries: Carries,
    type_oid: u32,
    /// FORCE_NOT_NULL: the null marker is a value.
    never_null: bool,
    /// FORCE_NULL: the null marker is null also in quotes.
    quoted_null: bool,
}

/// How values of the data are to be read.
#[derive(Clone, Copy, Debug)]
pub struct RowReader<'a> {
    /// The map.
    pub map: &'a ShardMap,
    /// Finds the fields.
    pub splitter: &'a Splitter,
    /// Rows of other shards are refused.
    pub only: Option<ShardId>,
    /// The data is in another encoding than UTF-8: a text key must be ASCII.
    pub ascii: bool,
    /// The data is binary.
    pub binary: bool,
}

/// A row that goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFault {
    /// Why.
    pub refusal: Refusal,
    /// The column and its value that are to blame.
    pub at: Option<(String, Option<String>)>,
    /// The server may refuse the row, too, and then says better why.
    pub ask: bool,
}

impl CopyIn {
    /// A value of a row as it is shown to people; `None`: it is null.
    fn value(&self, at: usize, row: &[u8], reader: &RowReader<'_>) -> Option<String> {
        let mut shown = None;
        reader
            .splitter
            .fields(row, &self.wanted[at..=at], &mut |_, field| {
                if let (Field::Value(value), false) = (field, reader.binary) {
                    shown = Some(value::shown(&value));
                }
            });
        shown
    }

    /// All rows go to every host.
    pub fn is_everywhere(&self) -> bool {
        self.whole.is_some()
    }

    /// A query that says what is in the table, so that hosts can be compared.
    pub fn fingerprint(&self) -> String {
        let columns = self
            .whole
            .iter()
            .flatten()
            .map(|name| format!("t.{}", quoted(name)));
        let row = format!("ROW({})", columns.collect::<Vec<_>>().join(", "));
        format!(
            "SELECT pg_catalog.count(*), pg_catalog.sum(('x' || pg_catalog.substr(pg_catalog.md5({row}::text), 1, 15))::bit(60)::bigint) FROM public.{} t",
            quoted(&self.table)
        )
    }

    /// What keeps other writers away from the table.
    pub fn lock(&self) -> String {
        let table = quoted(&self.table);
        format!("LOCK TABLE public.{table} IN SHARE ROW EXCLUSIVE MODE")
    }

    /// Why data of this encoding, or written by these options, is not split.
    pub fn unsplittable(&self, encoding: &str) -> Refusal {
        let why = format!("how its data is written (encoding {encoding}) can't be followed");
        words::unreadable(&self.table, &why)
    }

    /// What decides, in words.
    pub(super) fn describe(&self) -> String {
        match self.fixed {
            Some(fixed) => format!("schema of shard {} in the statement", fixed.0),
            None => format!(
                "{}.{} of each row (column {} of the data)",
                self.table,
                self.roles[self.decides].column,
                self.wanted[self.decides] + 1
            ),
        }
    }

    /// The shard that a row, without its line end, belongs to.
    pub fn shard(&self, row: &[u8], reader: &RowReader<'_>) -> Result<ShardId, Box<RowFault>> {
        if self.whole.is_some() {
            return Ok(reader.map.template());
        }
        if let ([role], None) = (&self.roles[..], reader.only) {
            // The usual case, and its usual end. If it has none, what follows finds the words for it.
            let mut found = None;
            let mut read = |_, field: Field<'_>| found = role.shard(&field, reader).ok();
            reader.splitter.fields(row, &self.wanted, &mut read);
            if let Some(shard) = found {
                return Ok(shard);
            }
        }
        let mut shards: SmallVec<[Result<ShardId, Fault>; 2]> = SmallVec::new();
        reader.splitter.fields(row, &self.wanted, &mut |_, field| {
            let role = &self.roles[shards.len()];
            shards.push(role.shard(&field, reader));
        });
        let fault = |at: usize, refusal, ask| {
            let at = Some((self.roles[at].column.clone(), self.value(at, row, reader)));
            Box::new(RowFault { refusal, at, ask })
        };
        let name = |at: usize| (self.table.as_str(), self.roles[at].column.as_str());
        let shard = match &shards[self.decides] {
            Ok(shard) => *shard,
            Err(why) => {
                let (table, column) = name(self.decides);
                let refusal = match why {
                    Fault::Null => words::copied_null(table, column),
                    why => words::bad_value(table, column, why.clone()),
                };
                return Err(fault(self.decides, refusal, true));
            }
        };
        for (at, other) in shards.iter().enumerate() {
            let (table, column) = name(at);
            match other {
                Ok(other) if *other == shard => {}
                Ok(other) => {
                    let refusal = words::foreign_value(table, column, other.0, shard.0);
                    return Err(fault(at, refusal, false));
                }
                // None, or one that is to be made.
                Err(Fault::Null) => {}
                Err(why) => {
                    return Err(fault(
                        at,
                        words::bad_value(table, column, why.clone()),
                        true,
                    ));
                }
            }
        }
        match reader.only {
            Some(only) if only != shard => {
                let (table, column) = name(self.decides);
                let refusal = words::row_of_another_shard(table, column, shard.0, only.0);
                Err(fault(self.decides, refusal, false))
            }
            _ => Ok(shard),
        }
    }
}

impl Role {
    fn shard(&self, field: &Field<'_>, reader: &RowReader<'_>) -> Result<ShardId, Fault> {
        let null = reader.splitter.null();
        let value = match field {
            Field::Value(value) if self.quoted_null && **value == *null => return Err(Fault::Null),
            Field::Value(value) => value,
            Field::Null if self.never_null => null,
            Field::Null | Field::Missing => return Err(Fault::Null),
        };
        let key_type = self.carries.key_type();
        let shard = |value: KeyValue<'_>| value::shard_of(&value, self.carries, reader.map);
        match (key_type, reader.binary) {
            (KeyType::Int, true) => shard(KeyValue::Int(self.int(value)?)),
            (KeyType::Uuid, true) => match value.try_into() {
                Ok(uuid) => shard(KeyValue::Uuid(uuid)),
                Err(_) => Err(Fault::Unusable("a uuid has 16 bytes".to_owned())),
            },
            (KeyType::Text, _) => {
                self.check_text(value, reader.ascii)?;
                value::from_text(value, &[], key_type, shard)
            }
            (_, false) => value::from_text(value, &[], key_type, shard),
        }
    }

    /// An integer as the column's own type is sent.
    fn int(&self, value: &[u8]) -> Result<i64, Fault> {
        let len = match self.type_oid {
            oid::INT2 => 2,
            oid::INT4 => 4,
            _ => 8,
        };
        let int = Some(value).filter(|v| v.len() == len).and_then(value::int);
        int.ok_or_else(|| Fault::Unusable(format!("{} bytes are no integer of {len}", value.len())))
    }

    /// What is stored must be what we have read.
    fn check_text(&self, value: &[u8], ascii: bool) -> Result<(), Fault> {
        if ascii && !value.is_ascii() {
            return Err(Fault::Unusable(
                "it is not ASCII, and the data is not in UTF-8".to_owned(),
            ));
        }
        if self.type_oid == oid::VARCHAR && value.last() == Some(&b' ') {
            return Err(Fault::Unusable(
                "a varchar may lose the blanks at its end".to_owned(),
            ));
        }
        Ok(())
    }
}

/// What decides about a COPY of a table.
pub(super) fn rule(plan: &Plan, tables: &Tables) -> Rule {
    let Some(copied) = &plan.copy else {
        return Rule::Template;
    };
    let class = classify(&copied.table, tables);
    if !matches!(class, Class::Unsharded(..)) && plan.copy_end != CopyEnd::Client {
        return refuse(words::server_file(plan.copy_end), false);
    }
    let from = plan.verb == Verb::CopyFrom;
    match class {
        Class::Unsharded(table, host) => Rule::Host {
            host: host.to_owned(),
            table: table.name.clone(),
        },
        Class::Reference(_) if !from => Rule::Any,
        Class::Reference(table) => Rule::Reference(Box::new(Reference {
            table: table.name.clone(),
            means: match copy_everywhere(plan, copied, table, tables) {
                Ok(copy) => Means::Data(Arc::new(copy)),
                Err(refusal) => Means::Refused(refusal),
            },
        })),
        Class::Catalog => Rule::Template,
        Class::Sharded(table) if from => copy_in(plan, copied, table, None, tables),
        Class::Fixed(table, shard) if from => copy_in(plan, copied, table, Some(shard), tables),
        Class::Sharded(table) => copy_out(plan, table),
        Class::Fixed(_, shard) => Rule::Sharded(Box::new(Sharded::fixed(shard))),
        Class::Refused(refusal) => refuse(refusal, true),
    }
}

fn refuse(refusal: Refusal, hintable: bool) -> Rule {
    Rule::Refuse { refusal, hintable }
}

/// All shards, one after the other.
fn copy_out(plan: &Plan, table: &Table) -> Rule {
    let unbound = words::copy(&table.name);
    let unreadable = |why: &String| words::unreadable(&table.name, why);
    Rule::Sharded(Box::new(Sharded {
        bindings: SmallVec::new(),
        checks: Vec::new(),
        fixed: None,
        beside: None,
        spread: None,
        reach: Reach::OneShard,
        one_shard_only: plan.copy_options.as_ref().err().map(unreadable),
        unbound: Some(plan.copy_options.as_ref().err().map_or(unbound, unreadable)),
    }))
}

/// All rows on every host.
fn copy_everywhere(
    plan: &Plan,
    copied: &CopyTable,
    table: &Table,
    tables: &Tables,
) -> Result<CopyIn, Refusal> {
    let options = plan.copy_options.as_ref();
    let options = options.map_err(|why| words::unreadable(&table.name, why))?;
    let other = |word: &&String| tables.knows(word) && **word != table.name;
    if let Some(word) = copied.filter.iter().find(other) {
        return Err(words::unreadable(word, "it stands in the WHERE of a COPY"));
    }
    let columns = match &copied.columns {
        Some(columns) => columns.clone(),
        None => table.copied_columns().map(str::to_owned).collect(),
    };
    let made = |column: &&Column| column.has_default && !column.generated;
    let mut left_out = table.columns.iter().filter(|c| !columns.contains(&c.name));
    if let Some(column) = left_out.find(made) {
        let why = format!("each host would make values of {} by itself", column.name);
        return Err(words::reference_differs(
            &table.name,
            &why,
            "Name all columns in the COPY and give their values in the data.",
        ));
    }
    Ok(CopyIn {
        table: table.name.clone(),
        options: options.clone(),
        list: (copied.columns.is_none() && !columns.is_empty())
            .then(|| (copied.name_end, list(&columns))),
        whole: Some(table.columns.iter().map(|c| c.name.clone()).collect()),
        columns,
        fixed: None,
        wanted: SmallVec::new(),
        roles: SmallVec::new(),
        decides: 0,
    })
}

fn copy_in(
    plan: &Plan,
    copied: &CopyTable,
    table: &Table,
    fixed: Option<ShardId>,
    tables: &Tables,
) -> Rule {
    let options = match &plan.copy_options {
        Ok(options) => options,
        Err(why) => return refuse(words::unreadable(&table.name, why), true),
    };
    let other = |word: &&String| tables.knows(word) && **word != table.name;
    if let Some(word) = copied.filter.iter().find(other) {
        return refuse(
            words::unreadable(word, "it stands in the WHERE of a COPY"),
            true,
        );
    }
    let columns = match &copied.columns {
        Some(columns) => columns.clone(),
        None => table.copied_columns().map(str::to_owned).collect(),
    };
    let TableKind::Sharded { key, ids } = &table.kind else {
        return Rule::Template;
    };
    let key = key
        .as_ref()
        .map(|key| (&key.name, Carries::Key(key.key_type)));
    if key.is_none() && ids.is_empty() {
        return refuse(words::no_key_column(table), true);
    }
    let ids = ids.iter().map(|id| (id, Carries::Id));
    let mut found: Vec<(usize, Role)> = key
        .into_iter()
        .chain(ids)
        .filter_map(|(name, carries)| {
            let at = columns.iter().position(|column| column == name)?;
            Some((at, role(name, carries, table, options)))
        })
        .collect();
    let Some(first) = found.first().map(|(at, _)| *at) else {
        return refuse(words::copy_without_key(table), true);
    };
    found.sort_by_key(|(at, _)| *at);
    let (wanted, roles): (SmallVec<_>, SmallVec<_>) = found.into_iter().unzip();
    Rule::Data(Arc::new(CopyIn {
        table: table.name.clone(),
        whole: None,
        options: options.clone(),
        list: (copied.columns.is_none() && !columns.is_empty())
            .then(|| (copied.name_end, list(&columns))),
        columns,
        fixed,
        decides: wanted.iter().position(|at| *at == first).unwrap_or(0),
        wanted,
        roles,
    }))
}

fn role(name: &str, carries: Carries, table: &Table, options: &Options) -> Role {
    let among = |names: &[String]| names.iter().any(|n| n == "*" || n == name);
    let column = table.columns.iter().find(|column| column.name == name);
    Role {
        column: name.to_owned(),
        carries,
        type_oid: column.map_or(0, |column| column.type_oid),
        never_null: among(&options.force_not_null),
        quoted_null: among(&options.force_null),
    }
}

/// A list of columns as it is put into the text.
fn list(columns: &[String]) -> String {
    let quoted: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    format!(" ({})", quoted.join(", "))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
