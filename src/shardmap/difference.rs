//! What is different between two maps: refused outright, or said in a DBA's words.

use std::collections::BTreeMap;

use super::fault::Place;
use super::validate::runs;
use super::{Fault, Host, ShardId, ShardMap, TableRule, User};

/// Settings that are read once, when the proxy starts.
const FIXED_AT_START: [&str; 4] = ["listen", "http", "workers", "limits.plan_cache"];

impl ShardMap {
    /// The changes from `running` to this map that a running proxy can't make: those that would put keys on other shards,
    /// and a version that does not go with `[map]`.
    pub fn check_against(&self, running: &ShardMap) -> Vec<Fault> {
        let (new, old) = (&self.keyspace, &running.keyspace);
        let mut faults = Vec::new();
        let mut refuse = |place: Place, key: &str, what: String, mend: String| {
            let file = self.places.file.clone();
            let key = key.into();
            faults.push(Fault {
                file,
                line: place.line,
                column: place.column,
                key,
                what,
                mend,
            });
        };
        let fixed = [
            (
                self.places.shards,
                "shards",
                old.shards.to_string(),
                new.shards.to_string(),
            ),
            (
                self.places.function,
                "function",
                format!("{:?}", old.function.to_string()),
                format!("{:?}", new.function.to_string()),
            ),
            (
                self.places.schema,
                "schema",
                format!("{:?}", old.schema.to_string()),
                format!("{:?}", new.schema.to_string()),
            ),
        ];
        for (place, key, old, new) in fixed {
            if old != new {
                refuse(
                    place,
                    &format!("[keyspace] {key}"),
                    format!(
                        "was {old} and is now {new}: the rows that are there would no longer be found"
                    ),
                    format!(
                        "write {key} = {old} again; another {key} needs a new set of databases and a data migration"
                    ),
                );
            }
        }
        let moved = self.shards() == running.shards() && !self.moves(running).is_empty();
        if self.version < running.version || (moved && self.version == running.version) {
            let why = if moved {
                "although shards change their host"
            } else {
                "and a version never goes back"
            };
            refuse(
                self.places.version,
                "version",
                format!(
                    "is {}, the running map has {}, {why}",
                    self.version, running.version
                ),
                format!("write version = {}", running.version.saturating_add(1)),
            );
        }
        faults
    }

    /// What is different from `old`, in a DBA's words, a line each. Empty if both mean the same. Never shows a password.
    pub fn difference(&self, old: &ShardMap) -> Vec<String> {
        let mut lines = Vec::new();
        if self.version != old.version {
            lines.push(format!("version {} -> {}", old.version, self.version));
        }
        self.keyspace_difference(old, &mut lines);
        for ((from, to), shards) in self.moves(old) {
            let count = shards.len();
            let noun = if count == 1 { "shard" } else { "shards" };
            lines.push(format!("{count} {noun} {}: {from} -> {to}", runs(&shards)));
        }
        let by_name = |map: &ShardMap| {
            map.hosts
                .iter()
                .map(|h| (h.name.clone(), h.clone()))
                .collect()
        };
        let (old_hosts, new_hosts): (BTreeMap<_, Host>, BTreeMap<_, Host>) =
            (by_name(old), by_name(self));
        named(&mut lines, "host", &old_hosts, &new_hosts, host_difference);
        named(
            &mut lines,
            "table",
            &old.tables,
            &self.tables,
            table_difference,
        );
        named(&mut lines, "user", &old.users, &self.users, user_difference);
        for ((name, old), (_, new)) in old.proxy.list().into_iter().zip(self.proxy.list()) {
            if old != new {
                let when = if FIXED_AT_START.contains(&name) {
                    " (takes effect at the next start)"
                } else {
                    ""
                };
                lines.push(format!("{name}: {old} -> {new}{when}"));
            }
        }
        lines
    }

    /// Shards with another owner than in `old`, lowest first, by the names of the old and the new one.
    fn moves<'m>(&'m self, old: &'m ShardMap) -> BTreeMap<(&'m str, &'m str), Vec<u32>> {
        let mut moves: BTreeMap<_, Vec<u32>> = BTreeMap::new();
        for shard in 0..self.shards().min(old.shards()) {
            let owner = |map: &'m ShardMap| map.host(map.owner(ShardId(shard))).name.as_str();
            let (from, to) = (owner(old), owner(self));
            if from != to {
                moves.entry((from, to)).or_default().push(shard);
            }
        }
        moves
    }

    fn keyspace_difference(&self, old: &ShardMap, lines: &mut Vec<String>) {
        let (new, old) = (&self.keyspace, &old.keyspace);
        for (name, old, new) in [
            ("shards", old.shards.to_string(), new.shards.to_string()),
            (
                "function",
                old.function.to_string(),
                new.function.to_string(),
            ),
            ("schema", old.schema.to_string(), new.schema.to_string()),
            ("key", old.key.clone(), new.key.clone()),
        ] {
            if old != new {
                lines.push(format!("{name}: {old} -> {new}"));
            }
        }
    }
}

/// What came, what went, and what differs within what stayed.
fn named<T: PartialEq>(
    lines: &mut Vec<String>,
    what: &str,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    difference: fn(&str, &T, &T) -> Vec<String>,
) {
    lines.extend(
        new.keys()
            .filter(|name| !old.contains_key(*name))
            .map(|name| format!("{what} {name} added")),
    );
    lines.extend(
        old.keys()
            .filter(|name| !new.contains_key(*name))
            .map(|name| format!("{what} {name} removed")),
    );
    for (name, new) in new {
        if let Some(old) = old.get(name) {
            lines.extend(difference(name, old, new));
        }
    }
}

fn host_difference(name: &str, old: &Host, new: &Host) -> Vec<String> {
    let mut lines = Vec::new();
    if old.url.to_string() != new.url.to_string() {
        lines.push(format!("url of {name}: {} -> {}", old.url, new.url));
    }
    if old.url.password != new.url.password {
        lines.push(format!("password of host {name} changed"));
    }
    if old.url.params != new.url.params {
        lines.push(format!("connection parameters of host {name} changed"));
    }
    if old.replicas != new.replicas {
        let list = |host: &Host| match host.replicas.as_slice() {
            [] => "none".to_owned(),
            urls => urls
                .iter()
                .map(|url| url.to_string())
                .collect::<Vec<_>>()
                .join(", "),
        };
        lines.push(format!(
            "replicas of {name}: {} -> {}",
            list(old),
            list(new)
        ));
    }
    if old.pool != new.pool {
        lines.push(format!("pool of {name}: {} -> {}", old.pool, new.pool));
    }
    lines
}

fn table_difference(name: &str, old: &TableRule, new: &TableRule) -> Vec<String> {
    let kind = |rule: &TableRule| {
        rule.kind
            .map_or("by the catalog".to_owned(), |kind| kind.to_string())
    };
    let text = |value: &Option<String>| value.clone().unwrap_or("none".into());
    let ids = |rule: &TableRule| {
        if rule.ids.is_empty() {
            "none".into()
        } else {
            rule.ids.join(", ")
        }
    };
    [
        ("kind", kind(old), kind(new)),
        (
            "key",
            old.key.clone().unwrap_or("default".into()),
            new.key.clone().unwrap_or("default".into()),
        ),
        ("ids", ids(old), ids(new)),
        ("host", text(&old.host), text(&new.host)),
    ]
    .into_iter()
    .filter(|(_, old, new)| old != new)
    .map(|(what, old, new)| format!("{what} of table {name}: {old} -> {new}"))
    .collect()
}

fn user_difference(name: &str, old: &User, new: &User) -> Vec<String> {
    let mut lines = Vec::new();
    if old.password != new.password {
        lines.push(format!(
            "password of user {name}: {:?} -> {:?}",
            old.password, new.password
        ));
    }
    if old.server_user != new.server_user {
        let text = |user: &User| user.server_user.clone().unwrap_or("the url's".into());
        lines.push(format!(
            "server role of user {name}: {} -> {}",
            text(old),
            text(new)
        ));
    }
    if old.server_password != new.server_password {
        lines.push(format!("server password of user {name} changed"));
    }
    lines
}
