//! `[feed.redis]`: the nodes and which of them has what, or a cluster that knows it itself.

use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use toml::de::DeValue;

use crate::feed::FEED_MOST;
use crate::feed::store::PARTITIONS;
use crate::shardmap::{At, Entry, Section, nearest};

/// `[feed.redis]`.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `[feed.redis.nodes]`, in the order of the file; none with a cluster.
    pub nodes: Vec<RedisNode>,
    /// Some nodes of a Redis Cluster, which says itself who has what; none with `nodes`.
    pub cluster: Vec<ConnectionInfo>,
    /// `[feed.redis.partitions]`: the node of each, by its number in `nodes`.
    pub partitions: Box<[u16; PARTITIONS]>,
    /// The longest that a call may take.
    pub limit: Duration,
    /// The most ids of a feed.
    pub feed_most: usize,
}

/// A line of `[feed.redis.nodes]`: `r1 = "redis://10.0.0.7:6379"`, or `r1 = { url = "..", replicas = [".."] }`.
#[derive(Clone, Debug)]
pub struct RedisNode {
    /// For messages and metrics.
    pub name: String,
    /// Where it is, and how to log in.
    pub connection: ConnectionInfo,
    /// Its replicas: they are read while they are in step with it.
    pub replicas: Vec<ConnectionInfo>,
}

pub(super) const LIMIT: Duration = Duration::from_millis(100);

impl RedisConfig {
    /// All partitions on one node.
    pub fn one(name: &str, connection: ConnectionInfo) -> RedisConfig {
        RedisConfig {
            nodes: vec![RedisNode {
                name: name.to_owned(),
                connection,
                replicas: Vec::new(),
            }],
            cluster: Vec::new(),
            partitions: Box::new([0; PARTITIONS]),
            limit: LIMIT,
            feed_most: FEED_MOST,
        }
    }

    /// `None` only after a fault.
    pub(super) fn read(mut section: Section<'_, '_>) -> Option<RedisConfig> {
        let limit = section.duration("limit", LIMIT);
        if let Some(entry) = section.find("cluster") {
            let cluster = cluster(&mut section, entry);
            for other in ["nodes", "partitions"] {
                if let Some(entry) = section.find(other) {
                    let mend = "take it out, or `cluster`: a cluster says itself who has what";
                    section.bad(entry, "stands beside cluster", mend);
                }
            }
            section.finish();
            return Some(RedisConfig {
                nodes: Vec::new(),
                cluster: cluster?,
                partitions: Box::new([0; PARTITIONS]),
                limit,
                feed_most: FEED_MOST,
            });
        }
        section.need(
            "nodes",
            "[feed.redis.nodes] with r1 = \"redis://127.0.0.1:6379\"",
        );
        let mut written = section.section("nodes");
        let mut nodes = Vec::new();
        let mut names = Vec::new();
        for entry in written.entries() {
            names.push(entry.key.to_owned());
            nodes.extend(node(&mut written, entry));
        }
        if names.is_empty() && section.find("nodes").is_some() {
            let at = section.at;
            section.faults.add(
                at,
                "[feed.redis.nodes]",
                "names no node",
                "add r1 = \"redis://127.0.0.1:6379\"",
            );
        }
        let written = section.find("partitions").is_some();
        let partitions = match written || names.len() > 1 {
            true => partitions(section.section("partitions"), &names),
            // There is only one way to map them to one node.
            false => Some([0; PARTITIONS]),
        };
        section.finish();
        let whole = nodes.len() == names.len() && !nodes.is_empty();
        Some(RedisConfig {
            nodes: whole.then_some(nodes)?,
            cluster: Vec::new(),
            partitions: Box::new(partitions?),
            limit,
            feed_most: FEED_MOST,
        })
    }
}

fn node<'t>(section: &mut Section<'_, 't>, entry: Entry<'t>) -> Option<RedisNode> {
    let name = entry.key.to_owned();
    if !matches!(entry.value.get_ref(), DeValue::Table(_)) {
        return Some(RedisNode {
            name,
            connection: connection(section, entry)?,
            replicas: Vec::new(),
        });
    }
    let mut section = section.enter(entry);
    let url = section.need("url", "url = \"redis://127.0.0.1:6379\"");
    let primary = url.and_then(|url| connection(&mut section, url));
    let mut replicas = Some(Vec::new());
    if let Some(list) = section.find("replicas") {
        let items = section.array(list, "a list of urls");
        let read = items.into_iter().map(|url| connection(&mut section, url));
        replicas = read.collect();
    }
    section.finish();
    Some(RedisNode {
        name,
        connection: primary?,
        replicas: replicas?,
    })
}

/// `cluster = ["redis://10.0.0.7:6379", ..]`. `None` after a fault.
fn cluster<'t>(section: &mut Section<'_, 't>, entry: Entry<'t>) -> Option<Vec<ConnectionInfo>> {
    let mut seeds = Some(Vec::new());
    let items = section.array(entry, "a list of urls");
    if items.is_empty() {
        let mend = "name some of its nodes, such as [\"redis://10.0.0.7:6379\"]";
        section.bad(entry, "names no node", mend);
    }
    for item in items {
        let seed = connection(section, item);
        if let Some(seed) = &seed
            && (seed.redis_settings().db() != 0 || !matches!(seed.addr(), ConnectionAddr::Tcp(..)))
        {
            let mend = "write as \"redis://:PASSWORD@10.0.0.7:6379\"";
            section.bad(item, "is nothing that a cluster has", mend);
        }
        seeds = seeds.zip(seed).map(|(mut seeds, seed)| {
            seeds.push(seed);
            seeds
        });
    }
    seeds
}

fn connection<'t>(section: &mut Section<'_, 't>, entry: Entry<'t>) -> Option<ConnectionInfo> {
    let url = section.string(entry)?.value;
    // What the parser says of a url may hold its password.
    let connection = match url.as_str().into_connection_info() {
        Ok(connection) => connection,
        Err(_) => {
            section.bad(
                entry,
                "is no url of a Redis",
                "write as \"redis://:PASSWORD@10.0.0.7:6379/0\" or \"unix:///run/redis/redis.sock\"; percent-encode what is special in a password",
            );
            return None;
        }
    };
    if matches!(connection.addr(), ConnectionAddr::TcpTls { .. }) {
        section.bad(
            entry,
            "asks for TLS, which is not there yet",
            "write redis:// and use a network that is safe, or a tunnel",
        );
        return None;
    }
    let tcp = connection.tcp_settings().clone().set_nodelay(true);
    Some(connection.set_tcp_settings(tcp))
}

/// The node of each partition. `None` after a fault.
fn partitions(mut section: Section<'_, '_>, names: &[String]) -> Option<[u16; PARTITIONS]> {
    let mut owners = [None; PARTITIONS];
    let mut sound = true;
    for entry in section.entries() {
        let owner = owner(&mut section, entry, names);
        let range = range(&mut section, entry);
        sound &= owner.is_some() && range.is_some();
        // Those of a line with a fault count as given, so that the fault is said once.
        for slot in range.into_iter().flatten() {
            if owners[slot].replace(owner.unwrap_or(0)).is_some() {
                sound = false;
                section.faults.add(
                    entry.key_at,
                    section.key(entry.key),
                    format!("partition {slot} is in an earlier line already"),
                    "give each partition to one node: shorten one of the two ranges",
                );
                break;
            }
        }
    }
    let mut whole = [0; PARTITIONS];
    for (number, (owner, whole)) in owners.into_iter().zip(&mut whole).enumerate() {
        let Some(owner) = owner else {
            // Those of a line that can't be read are without an owner, too.
            if sound {
                let example = names.first().map_or("r1", String::as_str);
                let name = "[feed.redis.partitions]";
                section.faults.add(
                    section.at,
                    name,
                    format!("partition {number} is without a node"),
                    format!(
                        "there are 0-{}; write such as \"0-127\" = {example:?}",
                        PARTITIONS - 1
                    ),
                );
            }
            return None;
        };
        *whole = owner;
    }
    sound.then_some(whole)
}

fn owner<'t>(section: &mut Section<'_, 't>, entry: Entry<'t>, names: &[String]) -> Option<u16> {
    let At { value: name, .. } = section.string(entry)?;
    let found = names.iter().position(|known| *known == name);
    if found.is_none() {
        let mend = match nearest(&name, names.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("name one of {}", names.join(", ")),
        };
        section.bad(entry, format!("unknown node {name:?}"), mend);
    }
    found.and_then(|number| u16::try_from(number).ok())
}

/// `0-127` or `7`.
fn range<'t>(
    section: &mut Section<'_, 't>,
    entry: Entry<'t>,
) -> Option<std::ops::RangeInclusive<usize>> {
    let number = |text: &str| {
        let digits = text.trim();
        let plain = digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse::<usize>().ok()).flatten()
    };
    let (first, last) = entry.key.split_once('-').unwrap_or((entry.key, entry.key));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last && last < PARTITIONS => Some(first..=last),
        _ => {
            section.faults.add(
                entry.key_at,
                section.key(entry.key),
                "is no range of partitions",
                format!(
                    "write \"FIRST-LAST\" within 0-{}, such as \"0-127\"",
                    PARTITIONS - 1
                ),
            );
            None
        }
    }
}
