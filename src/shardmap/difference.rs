//! What is different between two maps: refused outright, or said in a DBA's words.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::fault::Place;
use super::ranges::runs;
use super::{Fault, Host, Password, ShardId, ShardMap, TableRule, User};

/// Settings that are read once, when the proxy starts.
pub const FIXED_AT_START: [&str; 4] = ["listen", "http", "workers", "limits.plan_cache"];

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
        faults.extend(self.trusting(running.proxy.listen));
        faults
    }

    /// The users without password, faults all, if the proxy really listens on an address that is open to other machines:
    /// a new `listen` takes effect at the next start only, new users at once.
    pub(super) fn trusting(&self, listen: SocketAddr) -> Vec<Fault> {
        let trusted = self
            .users
            .iter()
            .filter(|(_, user)| user.password == Password::Trust);
        let fault = |(name, _): (&String, &User)| {
            let Place { line, column } = self.places.users.get(name).copied().unwrap_or_default();
            Fault {
                file: self.places.file.clone(),
                line,
                column,
                key: format!("[users.{name}]"),
                what: format!(
                    "has no password, and the running proxy listens on {listen}, open to other machines"
                ),
                mend:
                    "add password = \"SCRAM-SHA-256$...\", or restart the proxy with the new listen"
                        .into(),
            }
        };
        if listen.ip().is_loopback() {
            Vec::new()
        } else {
            trusted.map(fault).collect()
        }
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
        let session_hosts = [old, self].map(|map| map.host(map.session_host()).name.as_str());
        if let [from, to] = session_hosts
            && from != to
        {
            lines.push(format!(
                "session_host: {from} -> {to} (sessions that hold locks, listen or have temporary tables on {from} are ended)"
            ));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"version = 3
[keyspace]
shards = 16
[hosts.a]
url = "postgres://app:old@h:1/app"
[hosts.b]
url = "postgres://app@h:2/app"
[map]
"0-7" = "a"
"8-15" = "b"
[tables]
users = { key = "id" }
[users.app]
"#;

    fn parse(toml: &str) -> ShardMap {
        ShardMap::parse(toml, &|_| None)
            .unwrap_or_else(|faults| panic!("{}", crate::shardmap::render_faults("", &faults)))
    }

    /// OLD with each change made.
    fn new(changes: &[(&str, &str)]) -> ShardMap {
        parse(&changes.iter().fold(OLD.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        }))
    }

    fn refused(changes: &[(&str, &str)]) -> Vec<String> {
        new(changes)
            .check_against(&parse(OLD))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn difference(changes: &[(&str, &str)]) -> Vec<String> {
        new(changes).difference(&parse(OLD))
    }

    const MOVED: [(&str, &str); 2] = [
        ("\"0-7\" = \"a\"", "\"0-4\" = \"a\""),
        ("\"8-15\"", "\"5-15\""),
    ];

    #[test]
    fn the_same_map_differs_in_nothing() {
        assert_eq!(refused(&[]), [""; 0]);
        assert_eq!(difference(&[]), [""; 0]);
        assert_eq!(
            difference(&[("version = 3", "# a comment\nversion = 3")]),
            [""; 0]
        );
    }

    #[test]
    fn what_would_lose_rows_is_refused_with_its_place() {
        let found = refused(&[
            (
                "shards = 16",
                "shards = 17\nfunction = \"hash\"\nschema = \"s{}\"",
            ),
            ("8-15", "8-16"),
        ]);
        assert_eq!(found.len(), 3, "{found:#?}");
        let begin = [
            "shardmap.toml:3:10: [keyspace] shards: was 16 and is now 17: the rows",
            "shardmap.toml:4:12: [keyspace] function: was \"modulo\" and is now \"hash\"",
            "shardmap.toml:5:10: [keyspace] schema: was \"shard_{:04}\" and is now \"s{}\"",
        ];
        assert!(
            found.iter().zip(begin).all(|(f, b)| f.starts_with(b)),
            "{found:#?}"
        );
        // Not written is as good as written with the default.
        assert_eq!(
            refused(&[("shards = 16", "shards = 16\nfunction = \"modulo\"")]),
            [""; 0]
        );
        let gone =
            parse(OLD).check_against(&new(&[("shards = 16", "shards = 16\nfunction = \"hash\"")]));
        assert_eq!((gone.len(), gone[0].line, gone[0].column), (1, 2, 2));
    }

    #[test]
    fn a_move_needs_a_higher_version() {
        assert_eq!(
            refused(&MOVED),
            [
                "shardmap.toml:1:11: version: is 3, the running map has 3, although shards change their host \
                -- write version = 4"
            ]
        );
        let lower = refused(&[("version = 3", "version = 2")]);
        assert_eq!(
            lower,
            [
                "shardmap.toml:1:11: version: is 2, the running map has 3, and a version never goes back \
                -- write version = 4"
            ]
        );
        let [first, second] = MOVED;
        assert_eq!(
            refused(&[first, second, ("version = 3", "version = 4")]),
            [""; 0]
        );
        // Cutting the same ranges otherwise moves nothing.
        assert_eq!(
            refused(&[("\"0-7\" = \"a\"", "\"0-3\" = \"a\"\n\"4-7\" = \"a\"")]),
            [""; 0]
        );
        assert_eq!(refused(&[("h:1", "h:9")]), [""; 0]);
    }

    #[test]
    fn a_difference_is_in_a_dbas_words() {
        assert_eq!(difference(&MOVED), ["3 shards 5-7: a -> b"]);
        assert_eq!(
            difference(&[
                ("version = 3", "version = 4"),
                ("[hosts.b]", "[hosts.c]"),
                ("\"0-7\" = \"a\"", "0 = \"c\"\n\"1-7\" = \"a\""),
                ("\"8-15\" = \"b\"", "\"8-15\" = \"a\""),
            ]),
            [
                "version 3 -> 4",
                "1 shard 0: a -> c",
                "8 shards 8-15: b -> a",
                "host c added",
                "host b removed"
            ]
        );
        assert_eq!(
            difference(&[
                (
                    "postgres://app:old@h:1/app",
                    "postgres://app:new@h:7/app?options=-cx"
                ),
                (
                    "h:2/app\"",
                    "h:2/app\"\nreplicas = [\"postgres://app:x@r/app\"]\npool = 40"
                ),
            ]),
            [
                "url of a: postgres://app@h:1/app -> postgres://app@h:7/app",
                "password of host a changed",
                "connection parameters of host a changed",
                "replicas of b: none -> postgres://app@r:5432/app",
                "pool of b: 20 -> 40",
            ]
        );
        assert_eq!(
            difference(&[
                (
                    "users = { key = \"id\" }",
                    "users = { ids = [\"id\"] }\ncountries = { kind = \"reference\" }"
                ),
                (
                    "[users.app]",
                    "[users.app]\nserver_user = \"web\"\n[users.eve]"
                ),
            ]),
            [
                "table countries added",
                "key of table users: id -> default",
                "ids of table users: none -> id",
                "user eve added",
                "server role of user app: the url's -> web",
            ]
        );
        assert_eq!(
            difference(&[
                ("shards = 16", "shards = 16\nkey = \"account_id\""),
                (
                    "[users.app]",
                    "[users.app]\n[proxy]\nworkers = 2\n[proxy.timeouts]\nconnect = \"1500ms\""
                ),
            ]),
            [
                "key: user_id -> account_id",
                "workers: 1 -> 2 (takes effect at the next start)",
                "timeouts.connect: 5s -> 1500ms",
            ]
        );
    }

    #[test]
    fn a_new_listen_does_not_yet_protect_a_user_without_password() {
        let verifier = format!("SCRAM-SHA-256$4096:AAAA${0}:{0}", "A".repeat(43) + "=");
        let user =
            format!("[users.app]\npassword = \"{verifier}\"\n[proxy]\nlisten = \"0.0.0.0:6432\"");
        let open = new(&[("[users.app]", &user)]);
        let found: Vec<String> = parse(OLD)
            .check_against(&open)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with(
                "shardmap.toml:13:8: [users.app]: has no password, and the running proxy listens on 0.0.0.0:6432"
            ),
            "{found:?}"
        );
        assert_eq!(open.check_against(&parse(OLD)), []);
    }

    /// A map that means something else must have a difference to show.
    #[test]
    fn whatever_differs_is_said() {
        for change in [
            (
                "[users.app]",
                "[users.app]\n[proxy]\nhttp = \"127.0.0.1:1\"",
            ),
            ("[users.app]", "[users.app]\n[proxy]\ndatabase = \"x\""),
            (
                "[users.app]",
                "[users.app]\n[proxy.timeouts]\nidle_client = \"1h\"",
            ),
            (
                "[users.app]",
                "[users.app]\nserver_user = \"u\"\nserver_password = \"p\"",
            ),
            (
                "users = { key = \"id\" }",
                "users = { kind = \"reference\" }",
            ),
            ("users = { key = \"id\" }", "users = { host = \"a\" }"),
            ("users = { key = \"id\" }", ""),
            (":old@", ":new@"),
            ("h:2", "g:2"),
        ] {
            assert!(
                new(&[change]) != parse(OLD) && !difference(&[change]).is_empty(),
                "{change:?}"
            );
        }
    }
}
