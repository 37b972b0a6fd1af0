//! The store in Redis: users and objects are hashed to 256 partitions, and these mapped to nodes, or by a cluster to its own. Whatever a node loses is only
//! absent then; of what it brings along from before a restart nothing is believed (see `common.lua`).
//!
//! Writes go to a node itself, reads to a replica that is in step, if there is one (see `replicas.rs`).

mod breaker;
mod cluster;
mod keys;
mod node;
mod places;
mod replicas;
mod scripts;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use redis::{ConnectionInfo, cmd};
use sha2::{Digest as _, Sha256};

pub(crate) use keys::PARTITIONS;

use self::cluster::Cluster;
use self::node::{Lane, Node, Run};
use self::places::{Place, Places};
use self::replicas::Replicas;
use self::scripts::{Scripts, call};
use super::{
    Building, Cached, Dump, FEED_LIFE, Ids, MAPS_LIFE, OBJECT_LIFE, PUT_WITHIN, Pushed, Span,
    Store, StoreFault, TOMBSTONE_LIFE, Walk,
};
use crate::feed::config::RedisConfig;
use crate::feed::{MediaId, UserId};

/// Feeds in one call of the script: for some 300 us the node does nothing else.
const FEEDS_PER_CALL: usize = 100;

/// Objects in one call: each may be as large as the largest body of a post.
const OBJECTS_PER_CALL: usize = 32;

/// Calls for objects that one page has on their way at a time.
const OBJECT_CALLS_AHEAD: usize = 4;

/// Calls of one push that are on their way to a node at a time.
const CALLS_AHEAD: usize = 16;

/// Rows that workers have yet to hear of: so many at most, and for so many seconds. They look for them in any case.
const WOKEN_MOST: usize = 10_000;
const WOKEN_LIFE: u64 = 10;

/// What follows the run in the value of an object, and of a tombstone.
const OBJECT: u8 = b'O';
const TOMBSTONE: u8 = b'T';

/// Feeds and objects in one or more Redis nodes.
pub struct RedisStore {
    places: Places,
    scripts: Arc<Scripts>,
    map: u64,
    feed_most: usize,
}

impl RedisStore {
    /// Connects to nothing yet: a node that is down is so at the first call.
    pub fn new(config: &RedisConfig) -> Result<RedisStore, StoreFault> {
        let scripts = Arc::new(Scripts::new());
        let made = |name: String, connection: &ConnectionInfo| {
            let made = Node::new(
                name.clone(),
                connection.clone(),
                config.limit,
                scripts.clone(),
            );
            made.map_err(|why| StoreFault::Failed {
                node: name,
                why: why.to_string(),
            })
        };
        let mut places = Vec::with_capacity(config.nodes.len());
        for node in &config.nodes {
            let primary = Arc::new(made(node.name.clone(), &node.connection)?);
            let of_it = node.replicas.iter().enumerate();
            let of_it = of_it.map(|(n, at)| made(format!("{} replica {}", node.name, n + 1), at));
            let of_it: Vec<Node> = of_it.collect::<Result<_, _>>()?;
            let replicas = match of_it.is_empty() {
                true => None,
                false => Some(Replicas::new(primary.clone(), of_it)),
            };
            places.push(Place {
                node: primary,
                replicas,
                partition: None,
            });
        }
        let places = match config.cluster.is_empty() {
            true => Places::Written(places, config.partitions.clone()),
            false => {
                let cluster = Cluster::new(&config.cluster, config.limit, scripts.clone())?;
                Places::Cluster(Box::new(cluster))
            }
        };
        Ok(RedisStore {
            places,
            scripts,
            map: number_of(config),
            feed_most: config.feed_most,
        })
    }

    async fn push_to(
        &self,
        place: &Place,
        id: MediaId,
        feeds: &[UserId],
        places: &[usize],
    ) -> Result<Pushed, StoreFault> {
        // A post waits for its author's own feed.
        let lane = match feeds {
            [_] => Lane::Quick,
            _ => Lane::Bulk,
        };
        let calls = places.chunks(FEEDS_PER_CALL).map(|places| async move {
            let keys: Vec<_> = places.iter().map(|p| keys::feed(feeds[*p])).collect();
            let push = |run: &Run| {
                let mut call = call(&self.scripts.push, &keys);
                call.arg(run).arg(&keys::encode(id)).arg(self.feed_most);
                call
            };
            let full = match place.node.call(lane, push).await {
                Ok((new, duplicate, absent)) => {
                    return Ok(Pushed {
                        new,
                        duplicate,
                        absent,
                    });
                }
                Err(full @ StoreFault::Full { .. }) => full,
                Err(fault) => return Err(fault),
            };
            // It lets go of what it has. If it does not even do that the push has failed.
            let dropped = unlink(&place.node, lane, &keys).await;
            dropped.map_err(|_| full)?;
            Ok(Pushed {
                absent: places.len() as u64,
                ..Pushed::default()
            })
        });
        // Collected: a lazy iterator of futures that borrow is more than the compiler can follow here.
        stream::iter(calls.collect::<Vec<_>>())
            .buffer_unordered(CALLS_AHEAD)
            .try_fold(Pushed::default(), async |a, b| Ok(a.plus(b)))
            .await
    }

    async fn objects_of(
        &self,
        place: &Place,
        ids: &[MediaId],
        places: &[usize],
    ) -> Result<Vec<Cached>, StoreFault> {
        let node = &place.node;
        let get = |_: &Run| {
            let mut get = cmd("MGET");
            get.arg(keys::epoch(place.partition));
            for place in places {
                get.arg(keys::object(ids[*place]));
            }
            get
        };
        // Who asks for a single one may be the author, for whom it is gone at once when it is deleted.
        if let [first, _, ..] = places
            && let Some((replica, run)) = in_step(place, ids[*first])
            && let Ok(values) = replica.call::<Vec<Option<Vec<u8>>>>(Lane::Quick, get).await
            && let Some((Some(epoch), values)) = values.split_first()
            && values.len() == places.len()
            // Else nothing could be cached: the node itself says what the epoch is.
            && node.epoch(place.partition).is_some_and(|known| known.value == *epoch)
        {
            return Ok(values.iter().map(|v| cached(v.clone(), &run)).collect());
        }
        let (values, run): (Vec<Option<Vec<u8>>>, Run) = node.call_of_run(Lane::Quick, get).await?;
        let mut values = values.into_iter();
        match values.next().flatten() {
            Some(epoch) if epoch.starts_with(&run) => node.saw_epoch(place.partition, &epoch),
            // Only the caching of what is read next depends on it.
            _ => drop(self.begin_epoch(place).await),
        }
        let found: Vec<Cached> = values.map(|value| cached(value, &run)).collect();
        if found.len() != places.len() {
            return Err(node.failed("MGET said another number of values than asked for"));
        }
        Ok(found)
    }

    async fn begin_epoch(&self, place: &Place) -> Result<(), StoreFault> {
        let new: [u8; 8] = rand::random();
        let begin = |run: &Run| {
            let mut call = call(&self.scripts.epoch, &[keys::epoch(place.partition)]);
            call.arg(run).arg([*run, new].concat());
            call
        };
        let epoch: Vec<u8> = place.node.call(Lane::Quick, begin).await?;
        place.node.saw_epoch(place.partition, &epoch);
        Ok(())
    }

    async fn put_to(
        &self,
        place: &Place,
        objects: &[(MediaId, Bytes)],
        places: &[usize],
        read_at: Instant,
    ) -> Result<(), StoreFault> {
        let epoch = place.node.epoch(place.partition);
        let Some(epoch) = epoch.filter(|epoch| epoch.since <= read_at) else {
            return Ok(());
        };
        for places in places.chunks(OBJECTS_PER_CALL) {
            if read_at.elapsed() >= PUT_WITHIN {
                break;
            }
            let mut keys = vec![keys::epoch(place.partition)];
            keys.extend(places.iter().map(|p| keys::object(objects[*p].0)));
            let put = |run: &Run| {
                let mut call = call(&self.scripts.put, &keys);
                call.arg(run).arg(&epoch.value).arg(OBJECT_LIFE.as_secs());
                for place in places {
                    call.arg([run.as_slice(), &[OBJECT], &objects[*place].1].concat());
                }
                call
            };
            let _put: u64 = place.node.call(Lane::Quick, put).await?;
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Store for RedisStore {
    async fn push(&self, id: MediaId, feeds: &[UserId]) -> Result<Pushed, StoreFault> {
        let by_place = self.places.by_place(feeds.iter().copied()).await?;
        let pushes = by_place
            .iter()
            .map(|(place, places)| self.push_to(place, id, feeds, places));
        // All go on to their ends, so that what waits for one node is done on the others.
        let done = join_all(pushes.collect::<Vec<_>>()).await;
        done.into_iter()
            .try_fold(Pushed::default(), |a, b| Ok(a.plus(b?)))
    }

    async fn read(&self, feed: UserId, span: Span, most: usize) -> Result<Option<Ids>, StoreFault> {
        let (way, id) = match span {
            Span::Newest => ("N", 0),
            Span::Before(id) => ("B", id),
            Span::After(id) => ("A", id),
        };
        let keys = [keys::feed(feed)];
        let read = |script, run: &Run| {
            let mut call = call(script, &keys);
            call.arg(run).arg(way).arg(&keys::encode(id));
            call.arg(most.min(self.feed_most)).arg(FEED_LIFE.as_secs());
            call.arg(self.feed_most);
            call
        };
        // What it does not have its primary may have.
        let place = self.places.of(feed).await?;
        if let Some((replica, run)) = in_step(&place, feed) {
            let read = |_: &Run| read(&self.scripts.read_replica, &run);
            if let Ok(Some(found)) = replica.call(Lane::Quick, read).await {
                return ids_in(replica, found).map(Some);
            }
        }
        let node = &*place.node;
        let read = |run: &Run| read(&self.scripts.read, run);
        let found: Option<Found> = node.call(Lane::Quick, read).await?;
        found.map(|found| ids_in(node, found)).transpose()
    }

    async fn begin(&self, feed: UserId) -> Result<Building, StoreFault> {
        let token: u64 = rand::random();
        let keys = [keys::feed(feed)];
        let begin = |run: &Run| {
            let mut call = call(&self.scripts.begin, &keys);
            call.arg(run).arg(&token.to_be_bytes());
            call.arg(&keys::encode(MediaId::MIN))
                .arg(FEED_LIFE.as_secs());
            call
        };
        let node = self.places.of(feed).await?.node;
        let token: Vec<u8> = node.call(Lane::Quick, begin).await?;
        let token = token
            .try_into()
            .map_err(|_| node.failed("a feed's mark is none"))?;
        Ok(Building {
            token: u64::from_be_bytes(token),
        })
    }

    async fn complete(
        &self,
        feed: UserId,
        building: &Building,
        ids: &[MediaId],
    ) -> Result<bool, StoreFault> {
        let mut ids = ids.to_vec();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.dedup();
        ids.truncate(self.feed_most);
        let given: Vec<u8> = ids.iter().flat_map(|id| keys::encode(*id)).collect();
        let keys = [keys::feed(feed)];
        let complete = |run: &Run| {
            let mut call = call(&self.scripts.complete, &keys);
            call.arg(run).arg(&building.token.to_be_bytes());
            call.arg(self.feed_most)
                .arg(FEED_LIFE.as_secs())
                .arg(&given);
            call
        };
        let done: u8 = self
            .places
            .of(feed)
            .await?
            .node
            .call(Lane::Quick, complete)
            .await?;
        Ok(done == 1)
    }

    async fn drop_feeds(&self, feeds: &[UserId]) -> Result<(), StoreFault> {
        let by_place = self.places.by_place(feeds.iter().copied()).await?;
        let drops = by_place.iter().map(|(place, places)| async move {
            for places in places.chunks(FEEDS_PER_CALL) {
                let keys: Vec<_> = places.iter().map(|p| keys::feed(feeds[*p])).collect();
                unlink(&place.node, Lane::Quick, &keys).await?;
            }
            Ok(())
        });
        join_all(drops.collect::<Vec<_>>())
            .await
            .into_iter()
            .collect()
    }

    async fn remove(&self, feed: UserId, ids: &[MediaId]) -> Result<(), StoreFault> {
        let keys = [keys::feed(feed)];
        for ids in ids.chunks(FEEDS_PER_CALL) {
            let remove = |run: &Run| {
                let mut call = call(&self.scripts.remove, &keys);
                call.arg(run).arg(self.feed_most);
                for id in ids {
                    call.arg(&keys::encode(*id));
                }
                call
            };
            let _removed: u64 = self
                .places
                .of(feed)
                .await?
                .node
                .call(Lane::Quick, remove)
                .await?;
        }
        Ok(())
    }

    async fn objects(&self, ids: &[MediaId]) -> Result<Vec<Cached>, StoreFault> {
        let by_place = self.places.by_place(ids.iter().copied()).await?;
        let gets = by_place.iter().map(|(place, places)| async move {
            let some = places.chunks(OBJECTS_PER_CALL);
            let calls = some.map(|places| self.objects_of(place, ids, places));
            let calls = stream::iter(calls.collect::<Vec<_>>()).buffered(OBJECT_CALLS_AHEAD);
            calls.try_collect::<Vec<_>>().await
        });
        let answers = join_all(gets.collect::<Vec<_>>()).await;
        let mut found = vec![Cached::Absent; ids.len()];
        for ((_, places), answer) in by_place.iter().zip(answers) {
            for (place, cached) in places.iter().zip(answer?.into_iter().flatten()) {
                found[*place] = cached;
            }
        }
        Ok(found)
    }

    async fn put_objects(
        &self,
        objects: &[(MediaId, Bytes)],
        read_at: Instant,
    ) -> Result<(), StoreFault> {
        let by_place = self
            .places
            .by_place(objects.iter().map(|(id, _)| *id))
            .await?;
        let puts = by_place
            .iter()
            .map(|(place, places)| self.put_to(place, objects, places, read_at));
        join_all(puts.collect::<Vec<_>>())
            .await
            .into_iter()
            .collect()
    }

    async fn tombstone(&self, id: MediaId) -> Result<(), StoreFault> {
        let set = |run: &Run| {
            let mut set = cmd("SET");
            set.arg(keys::object(id))
                .arg([run.as_slice(), &[TOMBSTONE]].concat());
            set.arg("EX").arg(TOMBSTONE_LIFE.as_secs());
            set
        };
        let place = self.places.of(id).await?;
        match place.node.call(Lane::Quick, set).await {
            // Without the epoch nobody can put what was read before: see `put.lua`. The next epoch begins behind the deletion.
            Err(full @ StoreFault::Full { .. }) => {
                let gone = [keys::object(id), keys::epoch(place.partition)];
                let unlinked = unlink(&place.node, Lane::Quick, &gone).await;
                unlinked.map_err(|_| full)
            }
            answer => answer,
        }
    }

    async fn dump(&self, feed: UserId) -> Result<Option<Dump>, StoreFault> {
        let node = self.places.of(feed).await?.node;
        let range = |_: &Run| {
            let mut range = cmd("LRANGE");
            range.arg(keys::feed(feed)).arg(0).arg(-1);
            range
        };
        let (all, run): (Vec<Vec<u8>>, Run) = node.call_of_run(Lane::Quick, range).await?;
        let Some((mark, ids)) = all.split_first() else {
            return Ok(None);
        };
        let no_feed = || node.failed("a feed holds what is no id");
        let (state, mark) = mark.split_first().ok_or_else(no_feed)?;
        if !mark.starts_with(&run) {
            return Ok(None);
        }
        let from = mark.get(16..).and_then(keys::decode);
        let from = from.and_then(|from| from.first().copied());
        let mut from = from.ok_or_else(no_feed)?;
        let ids = keys::decode(&ids.concat()).ok_or_else(no_feed)?;
        if ids.len() >= self.feed_most {
            from = ids.last().map_or(from, |oldest| from.max(*oldest));
        }
        Ok(Some(Dump {
            complete: *state == b'C',
            ids,
            trimmed: from.saturating_sub(1),
        }))
    }

    async fn walk(&self, from: Walk) -> Result<(Vec<UserId>, Option<Walk>), StoreFault> {
        let nodes = self.places.nodes().await?;
        let Some(node) = nodes.get(from.part) else {
            return Ok((Vec::new(), None));
        };
        let scan = |_: &Run| {
            let mut scan = cmd("SCAN");
            scan.arg(from.at).arg("MATCH").arg(keys::FEEDS);
            scan.arg("COUNT").arg(FEEDS_PER_CALL);
            scan
        };
        let (at, found): (u64, Vec<Vec<u8>>) = node.call(Lane::Quick, scan).await?;
        let part = from.part + usize::from(at == 0);
        let users = found.iter().filter_map(|key| keys::user_of(key));
        let next = (part < nodes.len()).then_some(Walk { part, at });
        Ok((users.collect(), next))
    }

    async fn wake(&self, user: UserId, row: i64) -> Result<(), StoreFault> {
        let row = [keys::encode(user), keys::encode(row)].concat();
        let wake = |run: &Run| {
            let mut call = call(&self.scripts.wake, &[keys::woken()]);
            call.arg(run).arg(&row).arg(WOKEN_MOST).arg(WOKEN_LIFE);
            call
        };
        let node = self.places.of(keys::WOKEN).await?.node;
        node.call(Lane::Quick, wake).await
    }

    async fn maps(&self) -> Result<u64, StoreFault> {
        let Places::Written(places, _) = &self.places else {
            return Ok(1);
        };
        let say = |run: &Run| {
            let mut call = call(&self.scripts.maps, &[keys::maps()]);
            call.arg(run)
                .arg(&self.map.to_be_bytes())
                .arg(MAPS_LIFE.as_secs());
            call
        };
        // One that is away says nothing of it, and takes nothing either.
        let said = places
            .iter()
            .map(|place| place.node.call::<u64>(Lane::Quick, say));
        let said = join_all(said.collect::<Vec<_>>()).await;
        Ok(said.into_iter().flatten().max().unwrap_or(1))
    }

    async fn woken(&self, most: usize) -> Result<Vec<(UserId, i64)>, StoreFault> {
        let pop = |_: &Run| {
            let mut pop = cmd("LPOP");
            pop.arg(keys::woken()).arg(most);
            pop
        };
        let node = self.places.of(keys::WOKEN).await?.node;
        let rows: Option<Vec<Vec<u8>>> = node.call(Lane::Quick, pop).await?;
        let row = |row: Vec<u8>| match keys::decode(&row).as_deref() {
            Some([user, row]) => Ok((*user, *row)),
            _ => Err(node.failed("a row that a worker is to hear of is none")),
        };
        rows.unwrap_or_default().into_iter().map(row).collect()
    }
}

/// A map of partitions as a number. By the nodes' names: their addresses may be written in several ways.
fn number_of(config: &RedisConfig) -> u64 {
    let mut map = Sha256::new();
    for node in config.partitions.iter() {
        let name = config.nodes.get(usize::from(*node));
        map.update(name.map_or("", |node| node.name.as_str()));
        map.update([0]);
    }
    let map = map.finalize();
    map.first_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

async fn unlink(node: &Node, lane: Lane, keys: &[Vec<u8>]) -> Result<(), StoreFault> {
    let unlink = |_: &Run| {
        let mut unlink = cmd("UNLINK");
        unlink.arg(keys);
        unlink
    };
    let _unlinked: u64 = node.call(lane, unlink).await?;
    Ok(())
}

/// The replica that is to be read for this id.
fn in_step(place: &Place, id: i64) -> Option<(&Node, Run)> {
    place.replicas.as_ref()?.in_step(id)
}

/// What read.lua says: more, ids, the id of which older ones it says nothing.
type Found = (u8, Vec<u8>, Vec<u8>);

/// What the script for reading says of a feed that is there.
fn ids_in(node: &Node, (more, ids, from): Found) -> Result<Ids, StoreFault> {
    let no_id = || node.failed("a feed holds what is no id");
    let ids = keys::decode(&ids).ok_or_else(no_id)?;
    let from = keys::decode(&from).filter(|from| from.len() == 1);
    let from = from.ok_or_else(no_id)?[0];
    Ok(Ids {
        ids,
        more: more != 0,
        trimmed: from.saturating_sub(1),
    })
}

/// What the value of an object's key means to the run that said it.
fn cached(value: Option<Vec<u8>>, run: &Run) -> Cached {
    let value = value.map(Bytes::from);
    let Some(value) = value.filter(|value| value.starts_with(run)) else {
        return Cached::Absent;
    };
    match value.get(run.len()) {
        Some(&OBJECT) => Cached::Object(value.slice(run.len() + 1..)),
        Some(&TOMBSTONE) => Cached::Tombstone,
        _ => Cached::Absent,
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}
