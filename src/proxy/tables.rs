//! Keeps the app's tables known: reads the hosts' catalogs at the start, after a change of the map, and when a statement
//! names a table that is not known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::catalog::{self, HostSource, Snapshot};
use crate::ops::connect;
use crate::route::Tables;
use crate::session::{Context, Schema};
use crate::shardmap::{HostId, Keyspace, ShardMap, TableRule};

/// After a look that failed, the next one.
const RETRY: Duration = Duration::from_secs(1);
/// Two looks that statements ask for are at least this far apart.
const APART: Duration = Duration::from_secs(1);
/// The longest that a look may take.
const LOOK: Duration = Duration::from_secs(20);

/// The first look, so that the first client finds the tables known. However it ends, clients are served: those of hosts
/// that are up as soon as one of them could be read.
pub(super) async fn first(context: &Context) -> Keeper {
    let mut known = Known::default();
    let complete = look(context, &mut known).await;
    context.refresh.done();
    Keeper { known, complete }
}

/// What a look leaves for the next.
pub(super) struct Keeper {
    known: Known,
    complete: bool,
}

/// Goes on looking until `end`.
pub(super) async fn keep(context: Arc<Context>, keeper: Keeper, end: CancellationToken) {
    let mut maps = context.map.subscribe();
    let Keeper {
        mut known,
        mut complete,
    } = keeper;
    let mut last = Instant::now();
    loop {
        let retry = async {
            match complete {
                true => std::future::pending().await,
                false => tokio::time::sleep(RETRY).await,
            }
        };
        tokio::select! {
            () = end.cancelled() => return,
            changed = maps.changed() => if changed.is_err() { return },
            () = context.refresh.asked.notified() => {
                if last.elapsed() < APART {
                    context.refresh.done();
                    continue;
                }
            }
            () = context.refresh.now.notified() => {}
            () = retry => {}
        }
        complete = look(&context, &mut known).await;
        last = Instant::now();
        context.refresh.done();
    }
}

/// What the tables in force were made from.
#[derive(Default)]
struct Known {
    snapshot: Option<Snapshot>,
    rules: Option<(Keyspace, BTreeMap<String, TableRule>, String)>,
    said: Vec<String>,
}

/// One look at all hosts. `true`: every host could be read. The tables are replaced only if something is different, so
/// that a change of the map, or a look that finds nothing new, costs no plan.
async fn look(context: &Context, known: &mut Known) -> bool {
    let forced = context.refresh.begin();
    let complete = look_at(context, known, forced).await;
    context.refresh.end();
    complete
}

async fn look_at(context: &Context, known: &mut Known, forced: bool) -> bool {
    let map = context.map.current();
    let (mut snapshot, mut said) = match tokio::time::timeout(LOOK, read(&map)).await {
        Ok(read) => read,
        Err(_) => (
            Snapshot::default(),
            vec![format!("reading the catalogs took longer than {LOOK:?}")],
        ),
    };
    let complete = said.is_empty();
    if !complete && let Some(old) = &known.snapshot {
        keep_what_is_down(&map, &mut snapshot, old);
    }
    if snapshot.sharded.is_empty() && snapshot.public.is_empty() && !complete {
        say(context, known, said);
        return false;
    }
    let (tables, faults) = Tables::new(&map, &snapshot);
    said.extend(faults);
    say(context, known, said);
    let session_host = map.host(map.session_host()).name.clone();
    let rules = Some((map.keyspace.clone(), map.tables.clone(), session_host));
    if forced || known.rules != rules || known.snapshot.as_ref() != Some(&snapshot) {
        tracing::info!(sharded = snapshot.sharded.len(), "the tables are known");
        context
            .schema
            .store(Arc::new(Schema::new(&map, Some(tables), snapshot.clone())));
        known.rules = rules;
        known.snapshot = Some(snapshot);
    }
    complete
}

/// Logs what is wrong, once for as long as it stays the same.
fn say(context: &Context, known: &mut Known, said: Vec<String>) {
    if known.said != said {
        for line in &said {
            tracing::warn!("{line}");
        }
        context.refresh.set_faults(&said);
        known.said = said;
    }
}

/// A host that can't be read now has the tables that it had.
fn keep_what_is_down(map: &ShardMap, snapshot: &mut Snapshot, old: &Snapshot) {
    for host in &map.hosts {
        if !snapshot.public.contains_key(&host.name)
            && let Some(public) = old.public.get(&host.name)
        {
            let name = &host.name;
            snapshot.public.insert(name.clone(), public.clone());
            keep_one(name, &mut snapshot.public_sequences, &old.public_sequences);
            keep_one(name, &mut snapshot.public_types, &old.public_types);
            keep_one(name, &mut snapshot.public_others, &old.public_others);
            keep_one(name, &mut snapshot.databases, &old.databases);
        }
    }
    if snapshot.sharded.is_empty() {
        snapshot.sharded = old.sharded.clone();
        snapshot.sharded_sequences = old.sharded_sequences.clone();
        snapshot.sharded_others = old.sharded_others.clone();
        snapshot.sharded_types = old.sharded_types.clone();
    }
    if snapshot.functions.builtin.is_empty() {
        snapshot.functions = old.functions.clone();
    }
}

fn keep_one<T: Clone>(host: &str, now: &mut BTreeMap<String, T>, old: &BTreeMap<String, T>) {
    if let Some(old) = old.get(host) {
        now.insert(host.to_owned(), old.clone());
    }
}

async fn read(map: &ShardMap) -> (Snapshot, Vec<String>) {
    let sources: Vec<_> = map
        .hosts
        .iter()
        .map(|host| HostSource {
            name: host.name.clone(),
            config: connect::config(&host.url, "presplit catalog"),
        })
        .collect();
    catalog::read(&sources, &templates(map)).await
}

/// The template shard, then the lowest shard of each other host: any of them will do while the first one's host is down.
fn templates(map: &ShardMap) -> Vec<(String, String)> {
    let template = map.template();
    let others = (0..map.hosts.len())
        .filter_map(|h| map.shards_of(HostId(h as u16)).next())
        .filter(|s| *s != template);
    let named = |shard| {
        (
            map.host(map.owner(shard)).name.clone(),
            map.keyspace.schema.name(shard),
        )
    };
    std::iter::once(template).chain(others).map(named).collect()
}
