//! What is written in `shardmap.toml`: each thing with its place, read but not yet compared with the others.

use std::collections::BTreeMap;

use toml::de::DeTable;

use super::key::Function;
use super::map::{Kind, MAX_SHARDS, Password};
use super::schema::SchemaPattern;
use super::section::{At, Entry, Env, Section, identifier};
use super::settings::{
    CrossHost, CrossHostSnapshots, Limits, Peer, Pinning, PoolMode, ProxySettings, Timeouts,
};
use super::url::{HostUrl, Secret};
use super::{fault::Faults, verifier};

/// The whole file. What is `None` was not written, or was wrong and has been said to be.
pub(super) struct Config {
    pub(super) version: Option<At<u64>>,
    pub(super) keyspace: KeyspaceConfig,
    /// Where `[hosts]` or its first host stands.
    pub(super) hosts_at: usize,
    pub(super) hosts: Vec<HostConfig>,
    /// Where `[map]` stands.
    pub(super) map_at: usize,
    pub(super) map: Vec<RangeConfig>,
    pub(super) tables: Vec<TableConfig>,
    pub(super) users: Vec<UserConfig>,
    pub(super) proxy: ProxyConfig,
}

/// `[keyspace]`.
pub(super) struct KeyspaceConfig {
    pub(super) at: usize,
    pub(super) shards: Option<At<u32>>,
    pub(super) key: String,
    pub(super) function: Option<At<Function>>,
    pub(super) schema: Option<At<SchemaPattern>>,
    pub(super) key_host: Option<At<String>>,
    pub(super) key_block: u32,
    pub(super) session_host: Option<At<String>>,
}

/// `[hosts.NAME]`.
pub(super) struct HostConfig {
    pub(super) name: At<String>,
    pub(super) url: Option<At<HostUrl>>,
    pub(super) replicas: Vec<At<HostUrl>>,
    pub(super) pool: u32,
}

/// A line of `[map]`: `"0-2047" = "a"`.
pub(super) struct RangeConfig {
    pub(super) range: At<String>,
    pub(super) host: Option<At<String>>,
}

/// A line of `[tables]`.
pub(super) struct TableConfig {
    pub(super) name: At<String>,
    pub(super) key: Option<At<String>>,
    pub(super) ids: Vec<At<String>>,
    pub(super) kind: Option<At<Kind>>,
    pub(super) host: Option<At<String>>,
}

/// `[users.NAME]`.
pub(super) struct UserConfig {
    pub(super) name: At<String>,
    /// `None`: written, but wrong.
    pub(super) password: Option<Password>,
    pub(super) server_user: Option<At<String>>,
    pub(super) server_password: Option<At<Secret>>,
}

/// `[proxy]`: nothing in it means anything else than what is written, so it is read into its settings at once.
pub(super) struct ProxyConfig {
    pub(super) settings: ProxySettings,
    pub(super) http_at: usize,
    pub(super) statement_text_at: usize,
}

impl Config {
    /// Reads every key; faults are noted and reading goes on.
    pub(super) fn read<'t>(
        table: &'t DeTable<'t>,
        faults: &mut Faults<'t>,
        env: Env<'_>,
    ) -> Config {
        let mut top = Section::top(table, faults, env);
        let version = top
            .need("version", "version = 1")
            .and_then(|e| top.integer(e, 1..=u64::MAX));
        for (section, example) in [
            ("keyspace", "a [keyspace] with shards = 4096"),
            ("hosts", "a [hosts.a] with its url"),
            ("map", "a [map] with \"0-4095\" = \"a\""),
        ] {
            top.need(section, example);
        }
        let keyspace = KeyspaceConfig::read(top.section("keyspace"));
        let mut hosts = top.section("hosts");
        let (hosts_at, hosts) = (hosts.at, each(&mut hosts, HostConfig::read));
        let mut map = top.section("map");
        let (map_at, map) = (
            map.at,
            map.entries()
                .into_iter()
                .map(|e| RangeConfig::read(&mut map, e))
                .collect(),
        );
        let tables = each(&mut top.section("tables"), TableConfig::read);
        let users = each(&mut top.section("users"), UserConfig::read);
        let proxy = ProxyConfig::read(top.section("proxy"));
        // That of the feed service, which reads it by itself.
        let _ = top.section("feed");
        top.finish();
        Config {
            version,
            keyspace,
            hosts_at,
            hosts,
            map_at,
            map,
            tables,
            users,
            proxy,
        }
    }
}

/// Reads a section whose keys are names and whose values are tables.
fn each<'t, T>(
    section: &mut Section<'_, 't>,
    read: impl Fn(At<String>, Section<'_, 't>) -> T,
) -> Vec<T> {
    let mut all = Vec::new();
    for entry in section.entries() {
        let name = At {
            at: entry.key_at,
            value: entry.key.to_owned(),
        };
        if let Err((what, mend)) = identifier(&name.value) {
            section.faults.add(
                name.at,
                section.key(entry.key),
                format!("the name {what}"),
                mend,
            );
        }
        all.push(read(name, section.enter(entry)));
    }
    all
}

impl KeyspaceConfig {
    fn read(mut section: Section<'_, '_>) -> KeyspaceConfig {
        let shards = section
            .need("shards", "shards = 4096")
            .and_then(|e| section.integer(e, 1..=u64::from(MAX_SHARDS)))
            // In range, so it fits.
            .map(|n| At {
                at: n.at,
                value: n.value as u32,
            });
        let key = section.find("key").and_then(|e| section.identifier(e));
        let function = section.find("function").and_then(|e| {
            let choices = [
                ("modulo", Function::Modulo),
                ("hash", Function::Hash),
                ("embedded", Function::Embedded),
            ];
            choice(&mut section, e, &choices)
        });
        let schema = section
            .find("schema")
            .and_then(|e| pattern(&mut section, e));
        let key_host = section.find("key_host").and_then(|e| section.identifier(e));
        let session_host = section
            .find("session_host")
            .and_then(|e| section.identifier(e));
        let key_block = section.count("key_block", 0..=10_000, 100);
        let at = section.at;
        section.finish();
        KeyspaceConfig {
            key_host,
            key_block,
            session_host,
            at,
            shards,
            key: key.map_or("user_id".into(), |k| k.value),
            function,
            schema,
        }
    }
}

impl HostConfig {
    fn read(name: At<String>, mut section: Section<'_, '_>) -> HostConfig {
        let example = "url = \"postgres://app@10.0.0.1:5432/app\"";
        let url = section
            .need("url", example)
            .and_then(|e| host_url(&mut section, e));
        let replicas = match section.find("replicas") {
            Some(list) => {
                let items = section.array(list, "a list of urls");
                items
                    .into_iter()
                    .filter_map(|e| host_url(&mut section, e))
                    .collect()
            }
            None => Vec::new(),
        };
        let pool = section.count("pool", 1..=10_000, 20);
        section.finish();
        HostConfig {
            name,
            url,
            replicas,
            pool,
        }
    }
}

impl RangeConfig {
    fn read<'t>(section: &mut Section<'_, 't>, entry: Entry<'t>) -> RangeConfig {
        let range = At {
            at: entry.key_at,
            value: entry.key.to_owned(),
        };
        RangeConfig {
            range,
            host: section.string(entry),
        }
    }
}

impl TableConfig {
    fn read(name: At<String>, mut section: Section<'_, '_>) -> TableConfig {
        let key = section.find("key").and_then(|e| section.identifier(e));
        let ids = match section.find("ids") {
            Some(list) => {
                let items = section.array(list, "a list of column names");
                items
                    .into_iter()
                    .filter_map(|e| section.identifier(e))
                    .collect()
            }
            None => Vec::new(),
        };
        let kinds = [
            ("sharded", Kind::Sharded),
            ("reference", Kind::Reference),
            ("unsharded", Kind::Unsharded),
        ];
        let kind = section
            .find("kind")
            .and_then(|e| choice(&mut section, e, &kinds));
        let host = section.find("host").and_then(|e| section.string(e));
        section.finish();
        TableConfig {
            name,
            key,
            ids,
            kind,
            host,
        }
    }
}

impl UserConfig {
    fn read(name: At<String>, mut section: Section<'_, '_>) -> UserConfig {
        let password = match section.find("password") {
            None => Some(Password::Trust),
            Some(entry) => {
                section
                    .string(entry)
                    .and_then(|text| match verifier::check(&text.value) {
                        Ok(()) => Some(Password::Scram(text.value)),
                        Err((what, mend)) => {
                            section.bad(entry, what, mend);
                            None
                        }
                    })
            }
        };
        let server_user = section
            .find("server_user")
            .and_then(|e| section.identifier(e));
        let server_password = section
            .find("server_password")
            .and_then(|e| section.string(e));
        let server_password = server_password.map(|p| At {
            at: p.at,
            value: Secret::new(p.value),
        });
        section.finish();
        UserConfig {
            name,
            password,
            server_user,
            server_password,
        }
    }
}

impl ProxyConfig {
    fn read(mut section: Section<'_, '_>) -> ProxyConfig {
        let defaults = ProxySettings::default();
        let listen = section.address("listen");
        let http = section.address("http");
        let database = section.find("database").and_then(|e| section.identifier(e));
        let workers = section.count("workers", 1..=256, defaults.workers);
        let pool_mode = section.find("pool_mode").and_then(|e| {
            let choices = [
                ("transaction", PoolMode::Transaction),
                ("session", PoolMode::Session),
            ];
            choice(&mut section, e, &choices)
        });
        let shared_connections =
            section.count("shared_connections", 0..=64, defaults.shared_connections);
        let pinning = section.find("pinning").and_then(|e| {
            let choices = [("allow", Pinning::Allow), ("refuse", Pinning::Refuse)];
            choice(&mut section, e, &choices)
        });
        let cross_host = section.find("cross_host").and_then(|e| {
            let choices = [("2pc", CrossHost::TwoPhase), ("refuse", CrossHost::Refuse)];
            choice(&mut section, e, &choices)
        });
        let cross_host_snapshots = section.find("cross_host_snapshots").and_then(|e| {
            let choices = [
                ("refuse", CrossHostSnapshots::Refuse),
                ("separate", CrossHostSnapshots::Separate),
            ];
            choice(&mut section, e, &choices)
        });
        let id = section.find("id").and_then(|e| proxy_id(&mut section, e));
        let peers = peers(section.section("peers"), id.is_some());
        let (limits, statement_text_at) = limits(section.section("limits"));
        let timeouts = timeouts(section.section("timeouts"));
        let http_at = http.as_ref().map_or(section.at, |a| a.at);
        section.finish();
        let settings = ProxySettings {
            listen: listen.map_or(defaults.listen, |a| a.value),
            http: http.map(|a| a.value),
            database: database.map_or(defaults.database, |d| d.value),
            workers,
            pool_mode: pool_mode.map_or(defaults.pool_mode, |c| c.value),
            shared_connections,
            pinning: pinning.map_or(defaults.pinning, |c| c.value),
            cross_host: cross_host.map_or(defaults.cross_host, |c| c.value),
            cross_host_snapshots: cross_host_snapshots
                .map_or(defaults.cross_host_snapshots, |c| c.value),
            id,
            peers,
            limits,
            timeouts,
        };
        ProxyConfig {
            settings,
            http_at,
            statement_text_at,
        }
    }
}

/// A proxy's number; several proxies may share one file, so that it may come from the environment.
fn proxy_id<'t>(section: &mut Section<'_, 't>, entry: Entry<'t>) -> Option<u8> {
    let mend = "write a number from 1 to 255, another one for each proxy";
    if entry.value.get_ref().as_str().is_none() {
        return section
            .integer(entry, 1..=255)
            .and_then(|id| u8::try_from(id.value).ok());
    }
    let text = section.string(entry)?;
    let id = text.value.trim().parse().ok().filter(|id| *id > 0);
    if id.is_none() {
        section.bad(
            entry,
            format!("{:?} is no number of a proxy", text.value),
            mend,
        );
    }
    id
}

fn peers(mut section: Section<'_, '_>, has_id: bool) -> BTreeMap<u8, Peer> {
    let mut peers = BTreeMap::new();
    for entry in section.entries() {
        let Ok(id @ 1..) = entry.key.parse::<u8>() else {
            section.bad(
                entry,
                "is no number of a proxy",
                "write a number from 1 to 255 before the =",
            );
            continue;
        };
        let Some(text) = section.string(entry) else {
            continue;
        };
        match Peer::parse(&text.value) {
            Some(peer) => drop(peers.insert(id, peer)),
            None => section.bad(
                entry,
                format!("{:?} is no address", text.value),
                "write HOST:PORT, such as \"10.0.0.2:6432\"",
            ),
        }
        if !has_id {
            section.bad(
                entry,
                "is of no use without a number of this proxy itself",
                "add id = 1 to [proxy], another number for each proxy",
            );
        }
    }
    peers
}

fn limits(mut section: Section<'_, '_>) -> (Limits, usize) {
    let d = Limits::default();
    let statement_text_at = section
        .find("statement_text_bytes")
        .map_or(section.at, |e| e.at());
    let limits = Limits {
        clients: section.count("clients", 1..=1_000_000, d.clients),
        startup_packet_bytes: section.bytes(
            "startup_packet_bytes",
            512..=1 << 20,
            d.startup_packet_bytes,
        ),
        auth_message_bytes: section.bytes(
            "auth_message_bytes",
            512..=1 << 20,
            d.auth_message_bytes,
        ),
        frame_held_bytes: section.bytes("frame_held_bytes", 16 << 10..=1 << 30, d.frame_held_bytes),
        statement_text_bytes: section.bytes(
            "statement_text_bytes",
            1 << 10..=1 << 30,
            d.statement_text_bytes,
        ),
        statements_per_session: section.count(
            "statements_per_session",
            1..=1_000_000,
            d.statements_per_session,
        ),
        portals_per_session: section.count(
            "portals_per_session",
            1..=1_000_000,
            d.portals_per_session,
        ),
        plan_cache: section.count("plan_cache", 16..=10_000_000, d.plan_cache),
        statement_cache_per_connection: section.count(
            "statement_cache_per_connection",
            1..=100_000,
            d.statement_cache_per_connection,
        ),
        gather_rows: section.count("gather_rows", 1..=1_000_000_000, d.gather_rows),
        gather_bytes: section.bytes("gather_bytes", 64 << 10..=1 << 30, d.gather_bytes),
        copy_held_bytes: section.bytes("copy_held_bytes", 64 << 10..=1 << 30, d.copy_held_bytes),
        scatter_shards: section.count("scatter_shards", 1..=MAX_SHARDS, d.scatter_shards),
    };
    section.finish();
    (limits, statement_text_at)
}

fn timeouts(mut section: Section<'_, '_>) -> Timeouts {
    let d = Timeouts::default();
    let timeouts = Timeouts {
        handshake: section.duration("handshake", d.handshake),
        connect: section.duration("connect", d.connect),
        checkout_wait: section.duration("checkout_wait", d.checkout_wait),
        idle_client: section.duration_or_off("idle_client", d.idle_client),
        idle_transaction: section.duration_or_off("idle_transaction", d.idle_transaction),
        server_idle: section.duration("server_idle", d.server_idle),
        server_lifetime: section.duration("server_lifetime", d.server_lifetime),
        cross_host_step: section.duration("cross_host_step", d.cross_host_step),
        cross_host_lock: section.duration_or_off("cross_host_lock", d.cross_host_lock),
        drain_grace: section.duration("drain_grace", d.drain_grace),
    };
    section.finish();
    timeouts
}

fn choice<'t, T: Copy>(
    section: &mut Section<'_, 't>,
    entry: Entry<'t>,
    choices: &[(&str, T)],
) -> Option<At<T>> {
    let text = section.string(entry)?;
    let found = choices.iter().find(|(name, _)| *name == text.value);
    if found.is_none() {
        let names: Vec<String> = choices
            .iter()
            .map(|(name, _)| format!("{name:?}"))
            .collect();
        section.bad(
            entry,
            format!("{:?} is not known", text.value),
            format!("write one of {}", names.join(", ")),
        );
    }
    found.map(|(_, value)| At {
        at: text.at,
        value: *value,
    })
}

fn pattern<'t>(section: &mut Section<'_, 't>, entry: Entry<'t>) -> Option<At<SchemaPattern>> {
    let text = section.string(entry)?;
    match SchemaPattern::parse(&text.value) {
        Ok(value) => Some(At { at: text.at, value }),
        Err(what) => {
            section.bad(entry, what, "write as \"shard_{:04}\"");
            None
        }
    }
}

fn host_url<'t>(section: &mut Section<'_, 't>, entry: Entry<'t>) -> Option<At<HostUrl>> {
    let text = section.raw(entry, "a url in quotes")?;
    match HostUrl::parse(text, section.env) {
        Ok(value) => Some(At {
            at: entry.at(),
            value,
        }),
        Err(wrongs) => {
            for (what, mend) in wrongs {
                section.bad(entry, what, mend);
            }
            None
        }
    }
}
