//! Keys that the proxy makes for rows that are inserted without one: taken in blocks from a sequence on one host, which is
//! asked by the proxy, and kept at hand for all sessions. No two proxies get the same, and some are never used.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::Session;
use super::context::Prepared;
use super::errors::Fault;
use super::prepare::Way;
use crate::route::{self, Make, Values};
use crate::shardmap::{CrossHost, HostId, KeyValue, ShardId};
use crate::sql::shape::Shape;
use crate::wire::error::{ErrorFields, SqlState};

/// The longest that a statement waits for keys.
const WAIT: Duration = Duration::from_secs(5);
/// How often more keys are asked for because those at hand lead to the wrong host. Each time there are more of them.
const ATTEMPTS: u32 = 9;
/// The most keys of a table that are asked for at once.
const MOST: usize = 16_384;

/// Keys at hand, by table.
#[derive(Default)]
pub struct Keys {
    stock: Mutex<HashMap<String, VecDeque<i64>>>,
    wanted: Mutex<BTreeMap<String, usize>>,
    faults: Mutex<HashMap<String, String>>,
    /// Somebody wants keys.
    pub asked: Notify,
    answers: watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Keys {
    /// The tables for which keys are wanted, and how many; from now on they are not.
    pub fn wanted(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut lock(&self.wanted))
    }

    /// Keys of a table, or why there are none.
    pub fn put(&self, table: &str, keys: Result<Vec<i64>, String>) {
        match keys {
            Ok(keys) => {
                lock(&self.faults).remove(table);
                let mut stock = lock(&self.stock);
                stock.entry(table.to_owned()).or_default().extend(keys);
            }
            Err(why) => drop(lock(&self.faults).insert(table.to_owned(), why)),
        }
        self.answers.send_modify(|n| *n += 1);
    }

    fn ask(&self, table: &str, keys: usize) {
        let mut wanted = lock(&self.wanted);
        let most = wanted.entry(table.to_owned()).or_default();
        *most = (*most).max(keys.min(MOST));
        self.asked.notify_one();
    }

    /// Takes `n` keys: see [`From`]. Asks for more when few are left, so that nobody waits for them.
    fn take(
        &self,
        table: &str,
        n: usize,
        block: usize,
        from: From,
        host_of: impl Fn(i64) -> Option<HostId>,
    ) -> Option<Vec<i64>> {
        let mut stock = lock(&self.stock);
        let keys = stock.get_mut(table)?;
        if from == From::Anywhere {
            let taken = (keys.len() >= n).then(|| keys.drain(..n).collect());
            if keys.len() < block / 4 {
                self.ask(table, block);
            }
            return taken;
        }
        let mut by_host: HashMap<HostId, Vec<usize>> = HashMap::new();
        let mut found = None;
        for (at, key) in keys.iter().enumerate() {
            let fits = |host: &HostId| from == From::OneHost || from == From::Host(*host);
            let Some(host) = host_of(*key).filter(fits) else {
                continue;
            };
            let of_host = by_host.entry(host).or_default();
            of_host.push(at);
            if of_host.len() == n {
                found = Some(std::mem::take(of_host));
                break;
            }
        }
        let found = found?;
        let taken = found.iter().map(|at| keys[*at]).collect();
        for at in found.iter().rev() {
            keys.remove(*at);
        }
        if keys.len() < block / 4 {
            self.ask(table, block);
        }
        Some(taken)
    }
}

/// Where keys may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// To this host.
    Host(HostId),
    /// All to the host of the first for which there are enough.
    OneHost,
    Anywhere,
}

impl Session {
    /// The shard of a row that makes its own key: any, so that in the long run all get as many.
    pub(super) fn shard_for_new(&self) -> ShardId {
        let map = &self.map;
        let Some(host) = self.first_writer() else {
            return ShardId(rand::random_range(0..map.shards()));
        };
        let count = map.shards_of(host).count();
        let nth = rand::random_range(0..count.max(1));
        let any = || ShardId(rand::random_range(0..map.shards()));
        map.shards_of(host).nth(nth).unwrap_or_else(any)
    }

    /// Has the keys of an INSERT made, and says where its rows go with them.
    pub(super) async fn way_of_made(
        &self,
        make: &Make,
        prepared: &Prepared,
        values: &Values<'_>,
    ) -> Result<Way, Fault> {
        let Prepared::Query(bound) = prepared else {
            return Err(Self::no_tables());
        };
        let keys = self.keys_for(make).await?;
        let route = route::with_keys(bound, values, &self.map, &keys)?;
        Ok(self.way(route.target, route.names))
    }

    /// [`Session::way_of_made`] for a text of the simple protocol.
    pub(super) async fn way_of_text(
        &self,
        make: &Make,
        prepared: &Prepared,
        text: &[u8],
    ) -> Result<Way, Fault> {
        let mut shape = Shape::default();
        // It was scanned before.
        let _ = shape.scan(text);
        let values = Values {
            text,
            holes: &shape.holes,
            params: None,
        };
        self.way_of_made(make, prepared, &values).await
    }

    async fn keys_for(&self, make: &Make) -> Result<Vec<i64>, Fault> {
        let block = self.map.keyspace.key_block as usize;
        if block == 0 {
            return Err(none(make, "key_block in [keyspace] is 0"));
        }
        let keys = &self.context.keys;
        let map = &self.map;
        let host_of = |key| Some(map.owner(map.shard_of_key(&KeyValue::Int(key)).ok()?));
        let from = self.first_writer().map_or(From::OneHost, From::Host);
        let take = |from| keys.take(&make.table, make.keys, block, from, host_of);
        // The transaction's own host is the cheapest, and one host is cheaper than several.
        let several = self.map.proxy.cross_host == CrossHost::TwoPhase;
        let others = [From::OneHost, From::Anywhere];
        let others = &others[..if several { 2 } else { 0 }];
        for attempt in 0..ATTEMPTS {
            let mut answers = keys.answers.subscribe();
            // At first there may be none at hand at all.
            let others = others.iter().filter(|_| attempt > 0);
            if let Some(taken) = take(from).or_else(|| others.copied().find_map(take)) {
                return Ok(taken);
            }
            keys.ask(&make.table, make.keys.max(block << attempt));
            let answer = tokio::time::timeout(WAIT, async {
                // Another table's keys may come first.
                loop {
                    let _ = answers.changed().await;
                    if !lock(&keys.wanted).contains_key(&make.table) {
                        return;
                    }
                }
            });
            if answer.await.is_err() {
                return Err(none(make, &format!("none came within {WAIT:?}")));
            }
            if let Some(why) = lock(&keys.faults).get(&make.table) {
                return Err(none(make, why));
            }
        }
        match take(from).or_else(|| others.iter().copied().find_map(take)) {
            Some(taken) => Ok(taken),
            None => Err(none(
                make,
                "too few of the next ones lead to the transaction's host",
            )),
        }
    }
}

fn none(make: &Make, why: &str) -> Fault {
    let Make { table, keys, .. } = make;
    let message = format!(
        "no shard key: the INSERT leaves {keys} keys of {table} to the database, and they could not be made"
    );
    Fault::statement(
        ErrorFields::error(SqlState::NO_SHARD_KEY, message)
            .detail(why.to_owned())
            .hint(format!(
                "Run presplit provision, which makes the sequence presplit.\"key_{table}\" on the host that counts keys; or give the key in the INSERT."
            )),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_of_one_host_or_any_and_given_once() {
        let keys = Keys::default();
        let host_of = |key: i64| Some(HostId((key % 2) as u16));
        assert_eq!(keys.take("t", 1, 8, From::OneHost, host_of), None);
        keys.put("t", Ok((1..=6).collect()));
        let take = |n, from| keys.take("t", n, 8, from, host_of);
        assert_eq!(take(2, From::OneHost), Some(vec![1, 3]));
        assert_eq!(take(1, From::Host(HostId(0))), Some(vec![2]));
        assert_eq!(take(2, From::Host(HostId(1))), None);
        assert_eq!(take(2, From::Anywhere), Some(vec![4, 5]));
        assert_eq!(take(2, From::Anywhere), None);
        assert_eq!(take(1, From::OneHost), Some(vec![6]));
        assert_eq!(take(1, From::OneHost), None);
        assert_eq!(keys.wanted(), BTreeMap::from([("t".to_owned(), 8)]));
    }
}
