//! Says where a statement would go and why, without running it: `EXPLAIN (ROUTE)` and `presplit explain`.

use std::collections::BTreeSet;

use crate::shardmap::{ShardId, ShardMap};
use crate::sql::hint::{self, Hint};
use crate::sql::parse;
use crate::sql::rewrite;
use crate::sql::shape::Shape;

use super::{
    Bound, Names, Params, Recipe, Refusal, Tables, Target, Values, bind, bind_unreadable, decide,
    recipe, why,
};

/// Where a statement goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Where to.
    pub target: Target,
    /// What must hold of the search_path.
    pub names: Names,
    /// The text as it is sent; of several shards, to the first.
    pub sent: String,
    /// Why, in words.
    pub reason: String,
    /// The places of DDL.
    places: String,
    /// How the answers of several shards become one.
    pub merged: &'static str,
}

/// Explains one statement. `standing` is the hint that the session has set.
///
/// # Errors
/// The refusal that the statement would be answered with. A hint that can't be read is one, too.
pub fn explain(
    text: &str,
    tables: &Tables,
    map: &ShardMap,
    limits: &parse::Limits,
    params: Option<&dyn Params>,
    standing: Option<&Hint>,
) -> Result<Explanation, Refusal> {
    let mut shape = Shape::default();
    // A text without a shape is one that Postgres refuses; it is routed as any that can't be read.
    let _ = shape.scan(text.as_bytes());
    let bound = match parse::plan(text, &shape, limits) {
        Ok(plan) => bind(&plan, tables),
        Err(unreadable) => bind_unreadable(&unreadable, tables),
    };
    let own = hint::find(text.as_bytes(), &shape).map_err(|fault| Refusal::bad_hint(&fault))?;
    let hint = own.as_ref().or(standing);
    let values = Values {
        text: text.as_bytes(),
        holes: &shape.holes,
        params,
    };
    let route = decide(&bound, &values, map, hint)?;
    let reason = why(&bound, &values, map, hint);
    let first = match &route.target {
        Target::Shard(shard) => Some(*shard),
        Target::Shards(shards) | Target::Each(shards) => shards.first().copied(),
        Target::Rows(split) => split.parts.first().map(|part| part.shard),
        Target::Data(only) => Some(only.unwrap_or_else(|| map.template())),
        Target::Everywhere => Some(map.template()),
        _ => None,
    };
    let mut sent = Vec::new();
    match first {
        Some(shard) => rewrite::splice(
            values.text,
            values.holes,
            &bound.edits,
            map.schema(shard),
            &mut sent,
        ),
        None => sent.extend_from_slice(values.text),
    }
    Ok(Explanation {
        target: route.target,
        names: route.names,
        sent: String::from_utf8_lossy(&sent).into_owned(),
        reason,
        places: super::reason::places(&bound, map),
        merged: merged(&bound, &values)?,
    })
}

fn merged(bound: &Bound, values: &Values<'_>) -> Result<&'static str, Refusal> {
    Ok(match recipe(bound, values)? {
        Recipe::Concat => "their rows one after the other",
        Recipe::Sorted(sorted) if sorted.keys.is_empty() => "the first of their rows",
        Recipe::Sorted(_) => "their sorted rows merged",
        Recipe::Final(_) => "their parts put together by a last statement",
    })
}

impl Explanation {
    /// The explanation in lines, for people.
    pub fn lines(&self, map: &ShardMap) -> Vec<String> {
        let host_of = |shard: ShardId| map.host(map.owner(shard));
        let mut lines = match &self.target {
            Target::Shard(shard) => vec![
                format!("Shard: {shard} (schema {})", map.schema(*shard)),
                format!("Host: {} ({})", host_of(*shard).name, host_of(*shard).url),
            ],
            Target::Shards(shards) => {
                let hosts: BTreeSet<_> = shards.iter().map(|s| host_of(*s).name.as_str()).collect();
                let names: Vec<_> = hosts.into_iter().collect();
                vec![
                    format!("Shards: {}, {}", shards.len(), self.merged),
                    format!("Hosts: {}", names.join(", ")),
                ]
            }
            Target::EveryHost => vec!["Host: every one, with the same rows".to_owned()],
            Target::Data(None) => vec!["Shards: that of each row".to_owned()],
            Target::Data(Some(only)) => vec![
                format!(
                    "Shard: {only} (schema {}); rows of others are refused",
                    map.schema(*only)
                ),
                format!("Host: {} ({})", host_of(*only).name, host_of(*only).url),
            ],
            Target::Each(shards) => {
                vec![format!("Shards: {}, each by the same text", shards.len())]
            }
            Target::Make(make) => vec![format!(
                "Shard: that of the key, which is made when it runs ({} keys)",
                make.keys
            )],
            Target::Rows(split) => vec![format!(
                "Shards: the rows in {} parts, each to its shard",
                split.parts.len()
            )],
            Target::Host(host) => vec![format!(
                "Host: {} ({})",
                map.host(*host).name,
                map.host(*host).url
            )],
            Target::Everywhere => vec![format!("Places: {}", self.places)],
            Target::Any => vec!["Host: any; in a transaction, the one that it is on".to_owned()],
            Target::Template => {
                let template = map.template();
                vec![format!(
                    "Host: {} (shard {template}, with its search_path, stands for all)",
                    host_of(template).name
                )]
            }
        };
        if let (Names::SearchPath, Target::Shard(shard)) = (self.names, &self.target) {
            lines.push(format!("Search path: {}, public", map.schema(*shard)));
        }
        lines.push(format!("Sent: {}", self.sent));
        lines.push(format!("Reason: {}", self.reason));
        lines
    }
}

impl Refusal {
    /// A statement that no proxy of this kind can run.
    pub fn not_supported(what: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal::new(super::Code::NotSupported, what, hint)
    }

    /// A hint that can't be read: it might have meant another shard.
    pub fn bad_hint(fault: &hint::HintFault) -> Refusal {
        Refusal {
            code: super::Code::Unreadable,
            message: fault.to_string(),
            detail: None,
            hint: "Write /* presplit: key=42 */, /* presplit: shard=7 */ or /* presplit: all */."
                .to_owned(),
        }
    }

    /// The refusal in lines, for people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "Refused: {} {}",
            self.code.sqlstate(),
            self.message
        )];
        lines.extend(self.detail.iter().map(|d| format!("Detail: {d}")));
        lines.push(format!("Hint: {}", self.hint));
        lines
    }
}
