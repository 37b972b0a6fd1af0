//! What a query's calls, types and strings that name objects need of the server connection, and of the shard.

use crate::sql::plan::Plan;
use crate::sql::rewrite::Edit;

use super::refusal::Refusal;
use super::tables::Tables;
use super::{functions, words};

/// What the calls, types and literals of a query need.
#[derive(Default)]
pub(super) struct Needs {
    /// A function of the shards' schemas: its name.
    pub(super) shard_function: Option<String>,
    /// A function of `public`, or one that is not known.
    pub(super) other_function: Option<String>,
    /// A sequence or table of the shards in a string, and the function that it is given to.
    pub(super) object: Option<(String, String)>,
    /// A sequence that is not of the shards: which host's is meant is not known.
    pub(super) sequence: Option<(String, String)>,
    /// Something looks into the catalog.
    pub(super) catalog: bool,
    pub(super) search_path: bool,
    pub(super) refused: Option<Refusal>,
}

pub(super) fn needs(plan: &Plan, tables: &Tables, edits: &mut Vec<Edit>) -> Needs {
    let mut needs = Needs::default();
    for call in &plan.calls {
        let functions = tables.functions();
        match call.schema.as_deref() {
            Some("pg_catalog" | "information_schema") => {}
            None if functions.sharded.contains(&call.name) => {
                needs.shard_function = Some(call.name.clone());
                needs.search_path = true;
            }
            _ if functions::is_builtin(&call.name, tables) => {}
            None | Some("public") => {
                needs.other_function = Some(call.name.clone());
                needs.search_path = true;
            }
            Some(schema) => {
                needs
                    .refused
                    .get_or_insert(words::function_schema(schema, &call.name));
            }
        }
        needs.catalog |= functions::reads_catalog(&call.name);
        if functions::reads_unseen(&call.name) {
            needs.refused.get_or_insert(words::reads_unseen(&call.name));
        }
    }
    for named in plan
        .types
        .iter()
        .filter(|t| !functions::is_builtin_type(&t.name))
    {
        let of_shards = tables.is_sharded_type(&named.name);
        match &named.schema {
            None if of_shards => edits.push(Edit::Qualify(named.place.pos)),
            Some((schema, place)) if of_shards && schema == "public" => {
                edits.push(Edit::Replace(place.pos, place.len));
            }
            None if !tables.is_public_type(&named.name) => needs.search_path = true,
            _ => continue,
        }
        // Any shard has it, and the answer is the same in all.
        needs.catalog |= of_shards;
    }
    for object in &plan.objects {
        needs.catalog |= !functions::takes_sequence(&object.to);
        match (&object.parts[..], object.hole) {
            ([name], Some(hole)) if tables.is_sharded(name) => {
                edits.push(Edit::IntoString(hole));
                needs.object = Some((object.to.clone(), name.clone()));
            }
            ([schema, name], Some(_)) if schema == "public" && tables.is_sharded(name) => {
                needs.refused.get_or_insert(words::public_object(name));
            }
            (_, None) => {
                needs.search_path = true;
                if functions::takes_sequence(&object.to) {
                    needs.object = Some((object.to.clone(), "a sequence".to_owned()));
                }
            }
            (parts, _) if tables.host_of_object(parts).is_some() => {}
            (parts, _) if functions::takes_sequence(&object.to) => {
                needs.sequence = Some((object.to.clone(), parts.join(".")));
            }
            _ => {}
        }
    }
    needs
}

/// Unsharded tables, and sequences of one host alone, that strings name: host and name.
pub(super) fn named_on_a_host<'t>(plan: &Plan, tables: &'t Tables) -> Vec<(&'t str, &'t str)> {
    let objects = plan.objects.iter().filter(|object| object.hole.is_some());
    objects
        .filter_map(|object| tables.host_of_object(&object.parts))
        .collect()
}
