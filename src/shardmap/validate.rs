//! From what is written to what is meant: everything is compared with everything else, and every fault found in one pass.

use std::collections::HashMap;

use toml::de::DeTable;

use super::config::{Config, HostConfig, TableConfig, UserConfig};
use super::fault::{Fault, Faults};
use super::key::Function;
use super::map::{Host, Keyspace, Kind, Password, Places, TableRule, User};
use super::nearest::nearest;
use super::ranges::owners;
use super::schema::{self, SchemaPattern};
use super::section::{At, Env};
use super::{HostId, ShardId, ShardMap};

/// Reads `text`. A file that is no TOML has only that as its faults: what else it says can't be known.
pub(super) fn map(file: &str, text: &str, env: Env<'_>) -> Result<ShardMap, Vec<Fault>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut faults = Faults::new(file, text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        let what = format!("is no TOML: {}", error.message());
        faults.add(
            at,
            "",
            what,
            "mend this line; the rest is read once the file is TOML",
        );
    }
    if !errors.is_empty() {
        return Err(faults.into_sorted());
    }
    let config = Config::read(table.get_ref(), &mut faults, env);
    let map = mean(config, &mut faults);
    match map {
        Some(map) if faults.is_empty() => Ok(map),
        _ => Err(faults.into_sorted()),
    }
}

/// `None` only after a fault.
fn mean(config: Config, faults: &mut Faults<'_>) -> Option<ShardMap> {
    let Config {
        version,
        keyspace,
        hosts_at,
        hosts: mut host_configs,
        map_at,
        map,
        tables,
        users,
        proxy,
    } = config;
    host_configs.sort_by(|a, b| a.name.value.cmp(&b.name.value));
    check_hosts(&host_configs, hosts_at, faults);
    let names: Vec<String> = host_configs.iter().map(|h| h.name.value.clone()).collect();
    let shards = keyspace.shards.as_ref().map(|n| n.value);
    for (key, host) in [
        ("[keyspace] key_host", &keyspace.key_host),
        ("[keyspace] session_host", &keyspace.session_host),
    ] {
        let Some(host) = host.as_ref().filter(|h| !names.contains(&h.value)) else {
            continue;
        };
        faults.add(
            host.at,
            key,
            format!("names host {:?}, which is not there", host.value),
            format!("write one of {}", names.join(", ")),
        );
    }
    let owners = owners(&map, map_at, shards, &names, faults);
    let tables = tables
        .into_iter()
        .map(|t| (t.name.value.clone(), table(t, &names, faults)))
        .collect();
    let mut proxy_settings = proxy.settings;
    for user in &users {
        check_user(user, &proxy_settings, faults);
    }
    if proxy_settings.limits.statement_text_bytes > proxy_settings.limits.frame_held_bytes {
        faults.add(
            proxy.statement_text_at,
            "[proxy.limits] statement_text_bytes",
            "is more than frame_held_bytes, so that a statement this long could not be held",
            format!(
                "write at most {}, or raise frame_held_bytes",
                proxy_settings.limits.frame_held_bytes
            ),
        );
    }
    if proxy_settings.http == Some(proxy_settings.listen) && proxy_settings.listen.port() != 0 {
        faults.add(
            proxy.http_at,
            "[proxy] http",
            "is the same address as listen",
            "write another port",
        );
    }
    let user_places = users
        .iter()
        .map(|u| (u.name.value.clone(), faults.place(u.name.at)));
    let places = Places {
        users: user_places.collect(),
        file: faults.file().into(),
        version: faults.place(version.as_ref().map_or(0, |v| v.at)),
        shards: faults.place(keyspace.shards.as_ref().map_or(keyspace.at, |v| v.at)),
        function: faults.place(keyspace.function.as_ref().map_or(keyspace.at, |v| v.at)),
        schema: faults.place(keyspace.schema.as_ref().map_or(keyspace.at, |v| v.at)),
    };
    let (schema, schemas) = schemas(keyspace.schema, shards.unwrap_or(1), faults);

    // From here on nothing can be wrong that has not been said.
    if !faults.is_empty() {
        return None;
    }
    let hosts: Vec<Host> = host_configs.into_iter().map(host).collect::<Option<_>>()?;
    let owners = owners?;
    if proxy_settings.database.is_empty() {
        proxy_settings.database = hosts[usize::from(owners.first()?.0)].url.dbname.clone();
    }
    Some(ShardMap {
        version: version?.value,
        keyspace: Keyspace {
            shards: shards?,
            key: keyspace.key,
            function: keyspace.function.map_or(Function::Modulo, |f| f.value),
            schema,
            key_host: keyspace.key_host.map(|host| host.value),
            key_block: keyspace.key_block,
            session_host: keyspace.session_host.map(|host| host.value),
        },
        hosts,
        tables,
        users: users.into_iter().map(user).collect::<Option<_>>()?,
        proxy: proxy_settings,
        owners,
        schemas,
        places,
    })
}

fn check_hosts(hosts: &[HostConfig], hosts_at: usize, faults: &mut Faults<'_>) {
    if hosts.len() > usize::from(u16::MAX) {
        faults.add(
            hosts_at,
            "[hosts]",
            format!("has {} hosts", hosts.len()),
            format!("at most {} are possible", u16::MAX),
        );
        return;
    }
    let mut seen = HashMap::new();
    let mut in_file: Vec<&HostConfig> = hosts.iter().collect();
    in_file.sort_by_key(|h| h.name.at);
    for host in in_file {
        let title = format!("[hosts.{}]", host.name.value);
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if !host.name.value.bytes().all(plain) {
            faults.add(
                host.name.at,
                &title,
                "the name has odd characters",
                "use letters, digits, _, - and . only",
            );
        }
        let replicas = host.replicas.iter().map(|url| ("replicas", url));
        for (key, url) in host.url.iter().map(|url| ("url", url)).chain(replicas) {
            let key = format!("{title} {key}");
            if let Some(other) = seen.insert(url.value.place(), key.clone()) {
                let mend = "each Postgres stands in the file once; give this one its own address, port or database";
                faults.add(
                    url.at,
                    key,
                    format!("is the same database as {other}"),
                    mend,
                );
            }
        }
    }
}

/// `None` after the fault that its URL has.
fn host(config: HostConfig) -> Option<Host> {
    Some(Host {
        name: config.name.value,
        url: config.url?.value,
        replicas: config.replicas.into_iter().map(|url| url.value).collect(),
        pool: config.pool,
    })
}

/// The host of this name; if there is none, that is a fault of `key`.
pub(super) fn find_host(
    host: &At<String>,
    key: &str,
    hosts: &[String],
    faults: &mut Faults<'_>,
) -> Option<HostId> {
    // At most u16::MAX hosts, or a fault.
    let found = hosts
        .binary_search(&host.value)
        .ok()
        .map(|i| HostId(i as u16));
    if found.is_none() {
        let mend = match nearest(&host.value, hosts.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean {meant}? Else add [hosts.{}]", host.value),
            None if hosts.is_empty() || hosts.len() > 8 => format!("add [hosts.{}]", host.value),
            None => format!(
                "name one of {}, or add [hosts.{}]",
                hosts.join(", "),
                host.value
            ),
        };
        faults.add(host.at, key, format!("unknown host {:?}", host.value), mend);
    }
    found
}

fn table(config: TableConfig, hosts: &[String], faults: &mut Faults<'_>) -> TableRule {
    let TableConfig {
        name,
        key,
        ids,
        kind,
        host,
    } = config;
    let title = format!("[tables] {}", name.value);
    if let Some((schema, table)) = name.value.split_once('.') {
        let mend = if table.is_empty() || schema.is_empty() {
            "write the table's name".into()
        } else {
            format!("write {table}")
        };
        faults.add(name.at, &title, "names a schema too", mend);
    }
    let implied = match (&key, ids.first(), &host) {
        (Some(at), _, _) | (None, Some(at), _) => Some((Kind::Sharded, at.at)),
        (None, None, Some(host)) => Some((Kind::Unsharded, host.at)),
        (None, None, None) => None,
    };
    if let (Some(host), Some((Kind::Sharded, _))) = (&host, implied) {
        let mend = "remove host if its rows are split, else remove key and ids";
        faults.add(host.at, &title, "has both a host and a key or ids", mend);
    } else if let (Some(kind), Some((implied, at))) = (&kind, implied)
        && kind.value != implied
    {
        let what = format!("is {}, yet has what only {implied} tables have", kind.value);
        faults.add(
            at,
            &title,
            what,
            format!("remove it, or write kind = \"{implied}\""),
        );
    }
    let means = kind
        .as_ref()
        .map(|k| k.value)
        .or(implied.map(|(kind, _)| kind));
    if let (Some(kind), None, true) = (&kind, &host, means == Some(Kind::Unsharded)) {
        faults.add(
            kind.at,
            &title,
            "is unsharded, yet no host is said to have it",
            "add host = \"...\"",
        );
    }
    if name.value == "*" && means == Some(Kind::Sharded) {
        let mend =
            "\"*\" is for the tables of public that are not listed; list sharded tables by name";
        faults.add(name.at, &title, "can't be sharded", mend);
    }
    if let Some(host) = &host {
        find_host(host, &title, hosts, faults);
    }
    for (i, id) in ids.iter().enumerate() {
        if ids[..i].iter().any(|other| other.value == id.value) {
            faults.add(
                id.at,
                &title,
                format!("ids has {:?} twice", id.value),
                "remove one",
            );
        }
    }
    TableRule {
        key: key.map(|k| k.value),
        ids: ids.into_iter().map(|id| id.value).collect(),
        kind: means,
        host: host.map(|h| h.value),
    }
}

fn check_user(user: &UserConfig, proxy: &super::ProxySettings, faults: &mut Faults<'_>) {
    let title = format!("[users.{}]", user.name.value);
    if user.password == Some(Password::Trust) && !proxy.listen.ip().is_loopback() {
        faults.add(
            user.name.at,
            &title,
            format!(
                "has no password, and listen = {:?} is open to other machines",
                proxy.listen.to_string()
            ),
            "add password = \"SCRAM-SHA-256$...\", or listen on 127.0.0.1",
        );
    }
    if let (Some(password), None) = (&user.server_password, &user.server_user) {
        let mend = "add server_user, or put the password of the url's own user into the url";
        faults.add(
            password.at,
            format!("{title} server_password"),
            "has no server_user",
            mend,
        );
    }
}

/// `None` after the fault that its password has.
fn user(config: UserConfig) -> Option<(String, User)> {
    let user = User {
        password: config.password?,
        server_user: config.server_user.map(|u| u.value),
        server_password: config.server_password.map(|p| p.value),
    };
    Some((config.name.value, user))
}

/// The pattern and every shard's schema as it stands in a statement.
fn schemas(
    written: Option<At<SchemaPattern>>,
    shards: u32,
    faults: &mut Faults<'_>,
) -> (SchemaPattern, Box<[Box<str>]>) {
    let (at, pattern) = match written {
        Some(At { at, value }) => (at, value),
        None => (0, SchemaPattern::default()),
    };
    let longest = pattern.name(ShardId(shards - 1));
    if longest.len() > schema::MAX_IDENTIFIER {
        let what = format!(
            "makes names of {} bytes; Postgres cuts them at {}",
            longest.len(),
            schema::MAX_IDENTIFIER
        );
        faults.add(at, "[keyspace] schema", what, "shorten it");
    }
    let all = (0..shards)
        .map(|s| schema::quoted(&pattern.name(ShardId(s))).into())
        .collect();
    (pattern, all)
}

#[cfg(test)]
mod tests;
