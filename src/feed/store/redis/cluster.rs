//! Redis Cluster: the cluster itself says which node has which slot, and so which partition, as a partition's number is the hash tag of all
//! its keys. It is asked when it is first needed and again when a call fails; what fails meanwhile is as with a node that is away.
//!
//! A node that takes over after a failover, or to which slots are moved, believes nothing that it got of the one before: the run in front of
//! everything is another's (see `common.lua`). Lists and objects are made anew then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{ConnectionAddr, ConnectionInfo, RedisResult, Value, cmd};

use super::keys::PARTITIONS;
use super::node::{Lane, Node, Run};
use super::scripts::Scripts;
use crate::feed::store::StoreFault;

/// How often it is asked at most.
const AGAIN: Duration = Duration::from_millis(200);
/// Who has not spoken with it for so long may have missed two failovers: connections are made anew, so that their runs are right.
const IDLE: Duration = Duration::from_secs(5);
/// Slots of every cluster.
const SLOTS: u16 = 16384;

#[derive(Debug)]
pub(super) struct Cluster {
    seeds: Vec<Arc<Node>>,
    maker: Maker,
    known: Mutex<Known>,
    /// Held by the one who asks; when it was last asked.
    asking: tokio::sync::Mutex<Option<Instant>>,
}

/// Makes nodes.
struct Maker {
    /// How to log in.
    like: ConnectionInfo,
    limit: Duration,
    scripts: Arc<Scripts>,
    /// A call has failed: who has what is to be asked again.
    failed: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Known {
    used: Instant,
    /// The node of each partition.
    owners: Option<Arc<Owners>>,
}

#[derive(Debug)]
struct Owners {
    nodes: HashMap<(String, u16), Arc<Node>>,
    of_partition: Vec<Option<Arc<Node>>>,
}

impl std::fmt::Debug for Maker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maker").finish_non_exhaustive()
    }
}

impl Maker {
    fn node(&self, host: &str, port: u16) -> RedisResult<Node> {
        let at = ConnectionAddr::Tcp(host.to_owned(), port);
        let connection = self.like.clone().set_addr(at);
        let name = format!("{host}:{port}");
        let (limit, scripts) = (self.limit, self.scripts.clone());
        Node::new(name, connection, limit, scripts).map(|n| n.of_cluster(self.failed.clone()))
    }
}

impl Cluster {
    /// Connects to nothing yet. `seeds`: some of its nodes, at least one.
    pub(super) fn new(
        seeds: &[ConnectionInfo],
        limit: Duration,
        scripts: Arc<Scripts>,
    ) -> Result<Cluster, StoreFault> {
        let Some(like) = seeds.first().cloned() else {
            return Err(failed("no node of it is named"));
        };
        let failed_flag = Arc::new(AtomicBool::new(false));
        let nodes = seeds.iter().map(|seed| {
            let name = seed.addr().to_string();
            let node = Node::new(name, seed.clone(), limit, scripts.clone());
            node.map(|n| Arc::new(n.of_cluster(failed_flag.clone())))
                .map_err(failed)
        });
        Ok(Cluster {
            seeds: nodes.collect::<Result<_, _>>()?,
            maker: Maker {
                like,
                limit,
                scripts,
                failed: failed_flag,
            },
            known: Mutex::new(Known {
                used: Instant::now(),
                owners: None,
            }),
            asking: tokio::sync::Mutex::new(None),
        })
    }

    /// The node that has this partition.
    pub(super) async fn node(&self, partition: u8) -> Result<Arc<Node>, StoreFault> {
        let owners = self.owners().await?;
        let owner = owners.of_partition.get(usize::from(partition)).cloned();
        owner
            .flatten()
            .ok_or_else(|| failed(format!("no node has partition {partition}")))
    }

    /// All that have any partition, by their addresses.
    pub(super) async fn nodes(&self) -> Result<Vec<Arc<Node>>, StoreFault> {
        let owners = self.owners().await?;
        let mut nodes: Vec<_> = owners.nodes.iter().collect();
        nodes.sort_by_key(|(at, _)| *at);
        Ok(nodes.into_iter().map(|(_, node)| node.clone()).collect())
    }

    async fn owners(&self) -> Result<Arc<Owners>, StoreFault> {
        let idle = {
            let mut known = self.known();
            let idle = known.used.elapsed() >= IDLE;
            known.used = Instant::now();
            match &known.owners {
                Some(owners) if !idle && !self.maker.failed.load(Ordering::Relaxed) => {
                    return Ok(owners.clone());
                }
                _ => idle,
            }
        };
        let mut asked = self.asking.lock().await;
        let before = self.known().owners.clone();
        if let Some(before) = &before
            && asked.is_some_and(|at| at.elapsed() < AGAIN)
        {
            return Ok(before.clone());
        }
        *asked = Some(Instant::now());
        self.maker.failed.store(false, Ordering::Relaxed);
        match self.ask(before.as_deref(), idle).await {
            Ok(owners) => {
                let owners = Arc::new(owners);
                self.known().owners = Some(owners.clone());
                Ok(owners)
            }
            Err(fault) => {
                self.maker.failed.store(true, Ordering::Relaxed);
                before.ok_or(fault)
            }
        }
    }

    /// Asks one node after the other until one answers.
    async fn ask(&self, before: Option<&Owners>, anew: bool) -> Result<Owners, StoreFault> {
        let known = before.into_iter().flat_map(|b| b.nodes.values());
        let mut last = failed("no node of it is known");
        for node in known.chain(&self.seeds) {
            let slots = |_: &Run| {
                let mut slots = cmd("CLUSTER");
                slots.arg("SLOTS");
                slots
            };
            let said = node.call::<Value>(Lane::Quick, slots).await;
            let owners = said.and_then(|said| {
                let kept = before.filter(|_| !anew);
                self.read(&said, node.host(), kept)
                    .ok_or_else(|| node.failed("CLUSTER SLOTS says what is not understood"))
            });
            match owners {
                Ok(owners) => return Ok(owners),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    /// What CLUSTER SLOTS says: `[[first, last, [host, port, ..], replicas ..], ..]`. Nodes that were known stay as they are.
    fn read(&self, said: &Value, asked: &str, before: Option<&Owners>) -> Option<Owners> {
        let mut owners = Owners {
            nodes: HashMap::new(),
            of_partition: vec![None; PARTITIONS],
        };
        for range in array(said)? {
            let [first, last, primary, ..] = array(range)? else {
                return None;
            };
            let (Value::Int(first), Value::Int(last)) = (first, last) else {
                return None;
            };
            let [host, Value::Int(port), ..] = array(primary)? else {
                return None;
            };
            let host = match host {
                Value::BulkString(host) => std::str::from_utf8(host).ok()?,
                Value::SimpleString(host) => host,
                _ => "",
            };
            // It does not know by which name it is known.
            let host = if host.is_empty() { asked } else { host };
            let at = (host.to_owned(), u16::try_from(*port).ok()?);
            let node = match owners
                .nodes
                .get(&at)
                .or(before.and_then(|b| b.nodes.get(&at)))
            {
                Some(node) => node.clone(),
                None => Arc::new(self.maker.node(&at.0, at.1).ok()?),
            };
            owners.nodes.insert(at, node.clone());
            for (partition, owner) in owners.of_partition.iter_mut().enumerate() {
                if (*first..=*last).contains(&i64::from(slot(partition))) {
                    *owner = Some(node.clone());
                }
            }
        }
        Some(owners)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn array(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

fn failed(why: impl std::fmt::Display) -> StoreFault {
    StoreFault::Failed {
        node: "the cluster".to_owned(),
        why: why.to_string(),
    }
}

/// The slot of all keys with this partition's number in braces: CRC16 (XMODEM) of its digits.
fn slot(partition: usize) -> u16 {
    let crc = partition.to_string().bytes().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => crc << 1 ^ 0x1021,
        })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As CLUSTER KEYSLOT says.
    #[test]
    fn slots_are_redis_own() {
        assert_eq!([0, 17, 255].map(slot), [13907, 12304, 14163]);
    }
}
