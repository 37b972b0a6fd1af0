//! All pools of the proxy, and which of them a map's hosts mean for one server user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::crosswise::Crosswise;
use super::limits::PoolLimits;
use super::pool::Pool;
use crate::shardmap::{Host, HostId, HostUrl, Secret, ShardMap};

/// The pools of one server user under one map, by [`HostId`].
#[derive(Clone)]
pub struct HostPools(Arc<[Arc<Pool>]>);

impl HostPools {
    /// The pool of a host of the map that this was made for.
    pub fn of(&self, host: HostId) -> &Arc<Pool> {
        &self.0[host.0 as usize]
    }
}

/// A pool's identity: a reload keeps the pools of all (host, user) whose address did not change.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    host: String,
    user: Option<String>,
}

/// All pools.
#[derive(Default)]
pub struct Pools {
    all: Mutex<HashMap<Key, Arc<Pool>>>,
    crosswise: Arc<Crosswise>,
}

impl Pools {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Pool>>> {
        self.all
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The pools of the map's hosts for a server user (`None`: the user in each host's url) and its password.
    /// Makes those that are not there yet.
    pub fn for_map(&self, map: &ShardMap, user: Option<&str>, password: Option<&str>) -> HostPools {
        let mut all = self.lock();
        let pools = map.hosts.iter().map(|host| {
            let url = url_for(host, user, password);
            let key = Key {
                host: host.name.clone(),
                user: user.map(str::to_owned),
            };
            match all.get(&key) {
                Some(pool) if pool.url == url => pool.clone(),
                _ => {
                    let (limits, crosswise) = (limits(map, host), self.crosswise.clone());
                    let pool = Pool::new(host.name.clone(), url, limits, crosswise);
                    if let Some(old) = all.insert(key, pool.clone()) {
                        old.retire();
                    }
                    pool
                }
            }
        });
        HostPools(pools.collect())
    }

    /// A new map is in force: new limits, and pools of hosts that are gone are retired.
    pub fn follow(&self, map: &ShardMap) {
        self.lock().retain(
            |key, pool| match map.hosts.iter().find(|h| h.name == key.host) {
                Some(host) => {
                    pool.set_limits(limits(map, host));
                    true
                }
                None => {
                    pool.retire();
                    false
                }
            },
        );
    }

    /// The sessions that keep server connections while they wait for others.
    pub fn crosswise(&self) -> &Crosswise {
        &self.crosswise
    }

    /// Every pool, sorted by host.
    pub fn list(&self) -> Vec<Arc<Pool>> {
        let mut list: Vec<_> = self.lock().values().cloned().collect();
        list.sort_by(|a, b| (&a.host, &a.url.user).cmp(&(&b.host, &b.url.user)));
        list
    }
}

fn limits(map: &ShardMap, host: &Host) -> PoolLimits {
    let (limits, timeouts) = (&map.proxy.limits, &map.proxy.timeouts);
    PoolLimits {
        connections: host.pool as usize,
        wait: timeouts.checkout_wait,
        connect: timeouts.connect,
        shared: map.proxy.shared_connections as usize,
        statements: limits.statement_cache_per_connection as usize,
        idle: timeouts.server_idle,
        lifetime: timeouts.server_lifetime,
    }
}

fn url_for(host: &Host, user: Option<&str>, password: Option<&str>) -> HostUrl {
    let mut url = host.url.clone();
    if let Some(user) = user {
        url.user = user.to_owned();
        url.password = password.map(Secret::new);
    }
    url
}
