//! A plan meets the catalog: which tables are sharded, what their keys equal, where schemas go into the text.

use smallvec::SmallVec;

use crate::sql::copy::Options;
use crate::sql::plan::{Call, CopyEnd, LevelId, Plan, Source, TableRef, Unreadable, Verb, Wrap};
use crate::sql::rewrite::Edit;

use super::columns::Scope;
use super::copies::{self, Reference};
use super::functions;
use super::keys::Keys;
use super::known::Knowledge;
use super::needs::{Needs, named_on_a_host, needs};
use super::refusal::{Code, Refusal};
use super::rules::{Bound, Names, Reach, Rule, SessionState, Sharded};
use super::spread::Spread;
use super::tables::{Table, TableKind, Tables};
use super::{copy, ddl, gather, reach, utility, views, words};

/// Looks a plan's names up. Total: what can't be routed becomes a bound statement that [`super::decide()`] refuses.
pub fn bind(plan: &Plan, tables: &Tables) -> Bound {
    let rule = match &plan.verb {
        Verb::Empty => Rule::Any,
        Verb::Utility(verb) => utility::rule(verb),
        Verb::CopyFrom | Verb::CopyTo => copy::rule(plan, tables),
        Verb::Select | Verb::Write => return query(plan, tables),
    };
    let (rule, edits) = match (rule, &plan.copy, &plan.ddl) {
        (rule, Some(copied), _) => {
            let edit = qualify(&copied.table, tables);
            (rule, edit.into_iter().collect())
        }
        (Rule::Refuse { hintable: true, .. }, None, Some(ddl)) => ddl::bind(ddl, plan, tables),
        (rule, ..) => (rule, Vec::new()),
    };
    let temporary = match &rule {
        Rule::Temporary => true,
        Rule::Host { table, .. } => tables.is_temporary(table),
        _ => false,
    };
    Bound {
        session_state: match temporary && plan.copy.is_none() {
            true => SessionState::Temporary,
            false => SessionState::Same,
        },
        temporary,
        edits,
        per_text: plan.per_text,
        repeatable: false,
        writes: !matches!(plan.verb, Verb::Empty | Verb::CopyTo),
        unread: matches!(&plan.verb, Verb::Utility(verb) if !utility::begins_a_command(verb)),
        returns_rows: matches!(&plan.verb, Verb::Utility(verb) if verb == "EXPLAIN"),
        names: if plan.copy.is_some() {
            Names::Qualified
        } else {
            Names::SearchPath
        },
        copy_out: copy_out(plan),
        rule,
        key_type: tables.key_type(),
    }
}

/// Whether a temporary table of the session is among what a query names.
fn names_temporary(plan: &Plan, tables: &Tables) -> bool {
    let mut sources = plan.levels.iter().flat_map(|level| &level.items);
    sources.any(|item| match &item.source {
        Source::Table(table) => tables.is_temporary(&table.name),
        _ => false,
    })
}

/// How the data of a COPY TO STDOUT is written.
fn copy_out(plan: &Plan) -> Option<Box<Options>> {
    let out = plan.verb == Verb::CopyTo || plan.wrap == Wrap::CopyOut;
    let options = plan.copy_options.as_ref().ok().filter(|_| out);
    options.cloned().map(Box::new)
}

/// Binds a text that has no plan. If no word of it names anything of ours it can do no harm: the template shard's
/// Postgres answers it, with its own syntax error if it is one. Else it goes by a hint or not at all.
pub fn bind_unreadable(text: &Unreadable, tables: &Tables) -> Bound {
    let ours = text.words.iter().find(|word| tables.knows(word));
    let of_session = |word: &&String| {
        matches!(word.as_str(), "temp" | "temporary" | "pg_temp")
            || functions::of_session_host(word, tables).is_some()
    };
    let rule = match (text.words.iter().find(of_session), ours) {
        // It would leave something on a connection that others get, or miss what others have.
        (Some(word), _) => Rule::Refuse {
            refusal: words::unreadable(word, &text.why),
            hintable: false,
        },
        (None, None) => Rule::Template,
        (None, Some(word)) => Rule::Refuse {
            refusal: words::unreadable(word, &text.why),
            hintable: true,
        },
    };
    let states = text.words.iter().map(|word| functions::session_state(word));
    Bound {
        session_state: states.max().unwrap_or_default(),
        temporary: false,
        edits: Vec::new(),
        per_text: false,
        repeatable: false,
        writes: true,
        unread: true,
        returns_rows: true,
        names: Names::SearchPath,
        copy_out: None,
        rule,
        key_type: tables.key_type(),
    }
}

/// The edit that puts the shard's schema before a table's name, or in place of `public`.
fn qualify(table: &TableRef, tables: &Tables) -> Option<Edit> {
    match (classify(table, tables), &table.schema) {
        (Class::Sharded(_), None) => Some(Edit::Qualify(table.place.pos)),
        (Class::Sharded(_), Some((_, place))) => Some(Edit::Replace(place.pos, place.len)),
        _ => None,
    }
}

/// What a table is.
pub(super) enum Class<'t> {
    Sharded(&'t Table),
    /// A sharded table with the schema of this very shard before it.
    Fixed(&'t Table, crate::shardmap::ShardId),
    Reference(&'t Table),
    Unsharded(&'t Table, &'t str),
    Catalog,
    Refused(Refusal),
}

pub(super) fn classify<'t>(table: &TableRef, tables: &'t Tables) -> Class<'t> {
    let of_ours = |ours: &'t Table| match &ours.kind {
        TableKind::Sharded { .. } => Class::Sharded(ours),
        TableKind::Reference => Class::Reference(ours),
        TableKind::Unsharded { host } => Class::Unsharded(ours, host),
        TableKind::Unlisted => Class::Refused(words::unlisted(&ours.name)),
    };
    let schema = table.schema.as_ref().map(|(schema, _)| schema.as_str());
    match (schema, tables.get(&table.name)) {
        (Some("pg_catalog" | "information_schema"), _) => Class::Catalog,
        (None | Some("pg_temp"), Some(ours)) if ours.temporary => of_ours(ours),
        (Some(schema), Some(ours)) if ours.temporary => {
            Class::Refused(words::hidden(schema, &table.name))
        }
        (None | Some("public"), Some(ours)) => of_ours(ours),
        (None, None) if table.name.starts_with("pg_") => Class::Catalog,
        (None | Some("public"), None) => Class::Refused(words::unknown(&table.name)),
        (Some(schema), ours) => match (tables.shard_of_schema(schema), ours) {
            (
                Some(shard),
                Some(
                    ours @ Table {
                        kind: TableKind::Sharded { .. },
                        ..
                    },
                ),
            ) => Class::Fixed(ours, shard),
            _ => Class::Refused(words::other_schema(schema, &table.name)),
        },
    }
}

/// What takes part in a query.
#[derive(Default)]
pub(super) struct Parts<'t> {
    /// Sharded tables that must be bound: level and item.
    pub(super) sharded: Vec<(LevelId, usize, &'t Table)>,
    /// Sharded tables whose shard the text names.
    pub(super) fixed: Vec<(LevelId, usize, &'t Table, crate::shardmap::ShardId)>,
    /// Host and name.
    pub(super) unsharded: Vec<(&'t str, &'t str)>,
    reference: bool,
    /// A reference table that is written.
    reference_written: Option<String>,
    pub(super) catalog: bool,
    refused: Option<Refusal>,
}

impl Parts<'_> {
    pub(super) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }
}

pub(super) fn parts<'t>(plan: &Plan, tables: &'t Tables) -> Parts<'t> {
    let mut parts = Parts::default();
    for (level, of) in plan.levels.iter().enumerate() {
        for (at, item) in of.items.iter().enumerate() {
            let Source::Table(table) = &item.source else {
                continue;
            };
            match classify(table, tables) {
                Class::Sharded(table) => parts.sharded.push((level, at, table)),
                Class::Fixed(table, shard) => parts.fixed.push((level, at, table, shard)),
                Class::Unsharded(table, host) => parts.unsharded.push((host, &table.name)),
                Class::Reference(table) if at == 0 && of.writes() => {
                    parts.reference_written.get_or_insert(table.name.clone());
                }
                Class::Reference(_) => parts.reference = true,
                Class::Catalog => parts.catalog = true,
                Class::Refused(refusal) => drop(parts.refused.get_or_insert(refusal)),
            }
        }
    }
    parts
}

fn query(plan: &Plan, tables: &Tables) -> Bound {
    let mut edits = Vec::new();
    let with_views = views::expand(plan, tables);
    let mut parts = parts(&with_views, tables);
    parts.unsharded.extend(named_on_a_host(plan, tables));
    let of_session_host = |call: &Call| functions::of_session_host(&call.name, tables);
    let made = plan.temporary.then_some("a temporary table");
    let calls = with_views.calls.iter().filter_map(of_session_host);
    let host = tables.session_host();
    parts
        .unsharded
        .extend(calls.chain(made).map(|what| (host, what)));
    let needs = needs(&with_views, tables, &mut edits);
    // A view of the shards that reads none of their tables is found in any of them.
    parts.catalog |= parts.sharded.is_empty() && with_views.levels.len() > plan.levels.len();
    for table in plan.levels.iter().flat_map(|level| &level.items) {
        if let Source::Table(table) = &table.source {
            edits.extend(qualify(table, tables));
        }
    }
    for named in &plan.schemas {
        if named.schema == "public" && tables.is_sharded(&named.table) {
            edits.push(Edit::Replace(named.place.pos, named.place.len));
        }
    }
    sort(&mut edits);
    let writes = plan
        .levels
        .iter()
        .any(|level| level.writes() || level.features.locking)
        || needs.shard_function.is_some()
        || needs.other_function.is_some()
        || with_views
            .calls
            .iter()
            .any(|call| functions::writes(&call.name));
    let writes = writes || plan.temporary;
    let root = plan.root.map(|root| &plan.levels[root]);
    let returns_rows = match plan.wrap {
        Wrap::Explain => true,
        Wrap::Cursor | Wrap::CopyOut => false,
        Wrap::Bare if plan.temporary => false,
        Wrap::Bare => root.is_some_and(|root| !root.writes() || !root.outputs.is_empty()),
    };
    let names = if needs.search_path {
        Names::SearchPath
    } else {
        Names::Qualified
    };
    let mut rule = rule(&with_views, tables, parts, needs, writes);
    if plan.copy_end != CopyEnd::Client && !matches!(rule, Rule::Host { .. } | Rule::Refuse { .. })
    {
        rule = Rule::Refuse {
            refusal: words::server_file(plan.copy_end),
            hintable: false,
        };
    }
    let per_text = plan.per_text;
    let states = with_views
        .calls
        .iter()
        .map(|call| functions::session_state(&call.name));
    let made = plan.temporary.then_some(SessionState::Temporary);
    Bound {
        unread: false,
        session_state: states.chain(made).max().unwrap_or_default(),
        temporary: plan.temporary || names_temporary(plan, tables),
        edits,
        per_text,
        repeatable: !writes
            && plan.verb == Verb::Select
            && plan.wrap == Wrap::Bare
            && returns_rows
            && !with_views
                .calls
                .iter()
                .any(|call| functions::is_volatile(&call.name)),
        writes,
        returns_rows,
        names,
        copy_out: copy_out(plan),
        rule,
        key_type: tables.key_type(),
    }
}

/// By place; what two of them would do to the same place is done once.
pub(super) fn sort(edits: &mut Vec<Edit>) {
    // A literal lies where its hole is: after all places that count it out, before those that count it in.
    let place = |edit: &Edit| match edit {
        Edit::Qualify(pos) | Edit::Replace(pos, _) => (pos.hole, 0, pos.offset),
        Edit::IntoString(hole) => (*hole, 1, 0),
    };
    edits.sort_by_key(place);
    edits.dedup_by_key(|edit| place(edit));
}

fn rule(plan: &Plan, tables: &Tables, parts: Parts<'_>, needs: Needs, writes: bool) -> Rule {
    let refuse = |refusal| Rule::Refuse {
        refusal,
        hintable: true,
    };
    if let Some(word) = plan.words.iter().find(|word| tables.knows_relation(word)) {
        return refuse(words::unreadable(
            word,
            "its place in the statement is not understood",
        ));
    }
    if let Some(refusal) = parts.refused {
        let hintable = refusal.code == Code::UnknownTable;
        return Rule::Refuse { refusal, hintable };
    }
    if let Some(refusal) = needs.refused {
        return refuse(refusal);
    }
    if let Some(call) = plan
        .calls
        .iter()
        .find(|call| matches!(call.name.as_str(), "currval" | "lastval"))
    {
        return refuse(words::last_value(&call.name));
    }
    if let Some(host) = parts.unsharded.first().map(|(host, _)| *host)
        && let Some(other) = parts.unsharded.iter().find(|(other, _)| *other != host)
    {
        return Rule::Refuse {
            refusal: words::two_hosts(parts.unsharded[0], *other),
            hintable: false,
        };
    }
    if let Some(table) = &parts.reference_written {
        let alone =
            parts.sharded.is_empty() && parts.fixed.is_empty() && parts.unsharded.is_empty();
        if alone && needs.object.is_none() && needs.shard_function.is_none() {
            let means = match tables.get(table) {
                Some(written) => copies::means(plan, written, &parts, &needs),
                None => return refuse(words::unknown(table)),
            };
            let table = table.clone();
            return Rule::Reference(Box::new(Reference { table, means }));
        }
        return Rule::Refuse {
            refusal: words::reference_written_among(table),
            hintable: false,
        };
    }
    if parts.sharded.is_empty() && parts.fixed.is_empty() {
        return rule_without_shards(&parts, needs);
    }
    if let Some((_, name)) = &needs.sequence {
        return refuse(words::unknown_sequence(name));
    }
    sharded(plan, tables, &parts, &needs, writes)
}

fn rule_without_shards(parts: &Parts<'_>, needs: Needs) -> Rule {
    let refuse = |refusal| Rule::Refuse {
        refusal,
        hintable: true,
    };
    if let Some((to, name)) = &needs.object
        && functions::takes_sequence(to)
    {
        return refuse(words::sequence_alone(to, name));
    }
    if let Some(function) = &needs.shard_function {
        return refuse(words::function_alone(function));
    }
    if let Some((host, table)) = parts.unsharded.first() {
        return Rule::Host {
            host: (*host).to_owned(),
            table: (*table).to_owned(),
        };
    }
    if let Some((to, name)) = &needs.sequence {
        return refuse(words::sequence_alone(to, name));
    }
    if let Some(function) = &needs.other_function {
        return refuse(words::unknown_function_alone(function));
    }
    if parts.catalog || needs.catalog {
        Rule::Template
    } else {
        Rule::Any
    }
}

fn sharded(plan: &Plan, tables: &Tables, parts: &Parts<'_>, needs: &Needs, writes: bool) -> Rule {
    let scope = Scope::new(plan, tables);
    let knowledge = Knowledge::find(&scope);
    let keys = Keys::new(&scope, &knowledge);
    let mut found = Sharded {
        bindings: SmallVec::new(),
        checks: Vec::new(),
        fixed: None,
        beside: parts
            .unsharded
            .first()
            .map(|(host, table)| ((*host).to_owned(), (*table).to_owned())),
        one_shard_only: None,
        spread: None,
        unbound: None,
        reach: Reach::OneShard,
    };
    for (level, item, table, shard) in &parts.fixed {
        if found.fixed.is_some_and(|other| other != *shard) {
            return Rule::Refuse {
                refusal: words::two_schemas(),
                hintable: false,
            };
        }
        found.fixed = Some(*shard);
        if let Ok(Some(binding)) = keys.binding(*level, *item, table) {
            found.push(binding);
        }
    }
    let mut open = Vec::new();
    for (level, item, table) in &parts.sharded {
        match keys.binding(*level, *item, table) {
            Ok(Some(binding)) => found.push(binding),
            Ok(None) if found.fixed.is_some() => {}
            Ok(None) => open.push((*level, *item, *table)),
            Err(refusal) => match reach::find(&keys, parts, None) {
                // The key is left to the database.
                Ok(Reach::Rows(rows)) if rows.to_make() > 0 && found.fixed.is_none() => {}
                _ => {
                    return Rule::Refuse {
                        refusal,
                        hintable: true,
                    };
                }
            },
        }
    }
    let unbound = keys.untied(&parts.sharded, open).first().copied();
    match keys.checks(tables) {
        Ok(checks) => found.checks = checks,
        Err(refusal) => {
            return Rule::Refuse {
                refusal,
                hintable: false,
            };
        }
    }
    let app_function = needs
        .shard_function
        .as_ref()
        .or(needs.other_function.as_ref());
    let mut reason = gather::reason(&scope, &knowledge, parts, app_function, writes);
    if plan.verb == Verb::Write && found.fixed.is_none() {
        match reach::find(&keys, parts, app_function) {
            Ok(reach) => found.reach = reach,
            Err(why) => reason = Some(why),
        }
    }
    if let Some((level, item, table)) = unbound {
        let some_bound = !found.bindings.is_empty() || found.fixed.is_some();
        found.unbound = Some(words::unbound(
            plan,
            level,
            item,
            table,
            writes,
            some_bound,
            reason.as_deref(),
        ));
    }
    let select = plan.select.as_ref().filter(|_| plan.wrap != Wrap::CopyOut);
    if let (None, Some(root), Some(select)) = (&reason, plan.root, select) {
        found.spread = Some(Box::new(Spread::new(&scope, root, select)));
    }
    found.one_shard_only = reason.map(|reason| words::not_mergeable(&reason, writes));
    Rule::Sharded(Box::new(found))
}
