//! Deadlocks over several hosts: what waits for what on each host, and the circles that no host can see by itself.
//!
//! A transaction over several hosts holds the advisory lock [`Name::key`](crate::twophase::Name::key) on each of them, so
//! every proxy sees which server processes are one transaction, whoever began it. Within a host a process waits for others
//! (`pg_blocking_pids`), with a key or without: a plain transaction may stand between two of ours.
//!
//! The hosts are not asked at one moment, so a circle of one look may never have been. [`Deadlock::holds`] is asked of a
//! second look, begun when the first had ended: a wait that is in both with the same beginning and the same process in its
//! way has lasted all the time between them. Waits in a circle that last at one moment are a deadlock, as each needs all
//! that are in its way to end.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::connect::{config, connect, said};
use crate::shardmap::{Host, HostUrl};
use crate::twophase::KEY_CLASS;

/// A wait is looked at once it has lasted this long, as with Postgres' `deadlock_timeout`: those within one host are ended
/// by then.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// The longest that a host may take. One that takes longer is left out of the look.
const LIMIT: Duration = Duration::from_secs(3);

const SETTINGS: &str = "SET statement_timeout = '3s'; SET search_path = pg_catalog";

/// A server process that waits for a lock.
#[derive(Clone, Debug, PartialEq)]
pub struct Wait {
    /// The host's name in the map.
    pub host: String,
    /// The process; of a parallel query its leader.
    pub pid: i32,
    /// The transaction over several hosts that it is a part of.
    pub key: Option<i64>,
    /// When the wait began, by the host's clock: it tells one wait of a process from the next.
    pub since: i64,
    /// How long that is ago.
    pub waited: Duration,
    /// What for, in Postgres' words.
    pub lock: String,
    /// Who is in its way.
    pub blockers: Vec<Blocker>,
}

/// Who is in a wait's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// The process; 0: a prepared transaction.
    pub pid: i32,
    /// The transaction over several hosts that it is a part of.
    pub key: Option<i64>,
}

/// A circle of waits over several hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct Deadlock {
    /// The key of the transaction that is to give way: of all in the circle the greatest, so that all proxies choose the
    /// same.
    pub victim: i64,
    /// From the victim's wait on, each with who is in its way and waits next. The last one's is the victim again.
    pub circle: Vec<(Wait, Blocker)>,
}

/// The keys of our own transactions by host and server process. We know them also where a rollback to a savepoint has
/// taken the lock away.
pub type Parts = HashMap<(String, i32), i64>;

/// Connections for looking, kept from look to look.
#[derive(Default)]
pub struct Watch {
    held: HashMap<String, (HostUrl, Client)>,
}

impl Watch {
    /// All waits on these hosts that have lasted for [`PATIENCE`]. A host that does not answer has none.
    pub async fn look(&mut self, hosts: &[&Host], ours: &Parts) -> Vec<Wait> {
        let asked = hosts.iter().map(|host| {
            let held = self.held.remove(&host.name);
            let held = held.filter(|(url, client)| *url == host.url && !client.is_closed());
            ask(host, held.map(|(_, client)| client))
        });
        let asked: Vec<_> = asked.collect();
        let mut all = Vec::new();
        for (host, answer) in hosts.iter().zip(join_all(asked).await) {
            match answer {
                Ok((client, waits)) => {
                    let held = (host.url.clone(), client);
                    self.held.insert(host.name.clone(), held);
                    all.extend(waits);
                }
                Err(why) => {
                    tracing::debug!(host = host.name, "not looked at for deadlocks: {why}");
                }
            }
        }
        all.iter_mut().for_each(|wait| wait.know(ours));
        all
    }

    /// Closes all connections: there is nothing to look for.
    pub fn rest(&mut self) {
        self.held.clear();
    }
}

async fn ask(host: &Host, held: Option<Client>) -> Result<(Client, Vec<Wait>), String> {
    let asking = async {
        let client = match held {
            Some(client) => client,
            None => {
                let client = connect(&config(&host.url, "presplit deadlock")).await?;
                let set = client.batch_execute(SETTINGS).await;
                set.map_err(|e| said(&e))?;
                client
            }
        };
        let waits = waits(&host.name, &client).await;
        Ok((client, waits.map_err(|e| said(&e))?))
    };
    match timeout(LIMIT, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {LIMIT:?}")),
    }
}

/// One row for each wait and who is in its way. `waitstart` is there from Postgres 14 on. Of a prepared transaction only the
/// wait for its end (for a row of it) says which one it is.
fn question() -> String {
    format!(
        "WITH parts AS MATERIALIZED (
  SELECT pid, virtualtransaction AS vxid, classid::int8 << 32 | objid::int8 AS key FROM pg_locks
  WHERE locktype = 'advisory' AND objsubid = 1 AND mode = 'ExclusiveLock' AND granted
    AND classid::int8 >> 16 = {KEY_CLASS}),
waits AS MATERIALIZED (
  SELECT coalesce(a.leader_pid, l.pid) AS pid, l.transactionid AS xid, pg_blocking_pids(l.pid) AS blockers,
    coalesce((to_jsonb(l) ->> 'waitstart')::timestamptz, a.query_start) AS since,
    l.mode || ' on ' || CASE l.locktype WHEN 'transactionid' THEN 'transaction ' || l.transactionid
      WHEN 'relation' THEN 'relation ' || l.relation::regclass
      WHEN 'tuple' THEN 'tuple (' || l.page || ',' || l.tuple || ') of relation ' || l.relation::regclass
      ELSE l.locktype END AS lock
  FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid WHERE NOT l.granted AND l.pid IS NOT NULL
  AND clock_timestamp() - coalesce((to_jsonb(l) ->> 'waitstart')::timestamptz, a.query_start) >= $1 * interval '1s')
SELECT DISTINCT w.pid, (extract(epoch FROM w.since) * 1000000)::int8,
  extract(epoch FROM clock_timestamp() - w.since)::float8, w.lock,
  (SELECT max(key) FROM parts WHERE parts.pid = w.pid), b.pid,
  CASE WHEN b.pid <> 0 THEN (SELECT max(key) FROM parts WHERE parts.pid = b.pid)
  ELSE (SELECT max(key) FROM parts JOIN pg_locks h ON h.virtualtransaction = parts.vxid
    WHERE parts.pid IS NULL AND h.pid IS NULL AND h.granted AND h.locktype = 'transactionid' AND h.transactionid = w.xid) END
FROM waits w, unnest(w.blockers) AS b (pid)"
    )
}

async fn waits(host: &str, client: &Client) -> Result<Vec<Wait>, tokio_postgres::Error> {
    let rows = client
        .query(&question(), &[&PATIENCE.as_secs_f64()])
        .await?;
    let mut all: Vec<Wait> = Vec::new();
    for row in rows {
        let (pid, since) = (row.get(0), row.get(1));
        let blocker = Blocker {
            pid: row.get(5),
            key: row.get(6),
        };
        let same = |wait: &&mut Wait| (wait.pid, wait.since) == (pid, since);
        match all.iter_mut().find(same) {
            Some(wait) => wait.blockers.push(blocker),
            None => all.push(Wait {
                host: host.to_owned(),
                pid,
                key: row.get(4),
                since,
                waited: Duration::try_from_secs_f64(row.get(2)).unwrap_or_default(),
                lock: row.get(3),
                blockers: vec![blocker],
            }),
        }
    }
    Ok(all)
}

/// Who waits, or is waited for: a transaction over several hosts, or a process of one host.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Node<'w> {
    Transaction(i64),
    Process(&'w str, i32),
}

impl<'w> Node<'w> {
    fn of(host: &'w str, pid: i32, key: Option<i64>) -> Node<'w> {
        match key {
            Some(key) => Node::Transaction(key),
            None => Node::Process(host, pid),
        }
    }
}

type Edge<'w> = (&'w Wait, Blocker);

impl Wait {
    fn know(&mut self, ours: &Parts) {
        let key = |pid| ours.get(&(self.host.clone(), pid)).copied();
        self.key = self.key.or(key(self.pid));
        for blocker in &mut self.blockers {
            blocker.key = blocker.key.or(key(blocker.pid));
        }
    }

    fn node(&self) -> Node<'_> {
        Node::of(&self.host, self.pid, self.key)
    }

    fn edges(&self) -> impl Iterator<Item = Edge<'_>> {
        self.blockers.iter().map(move |blocker| (self, *blocker))
    }

    fn target(&self, blocker: Blocker) -> Node<'_> {
        Node::of(&self.host, blocker.pid, blocker.key)
    }
}

/// The deadlocks among these waits that no host sees by itself. What their victims have in their way or are in the way of
/// is not looked at again.
pub fn find(waits: &[Wait]) -> Vec<Deadlock> {
    let mut out: HashMap<Node<'_>, Vec<Edge<'_>>> = HashMap::new();
    for wait in waits {
        out.entry(wait.node()).or_default().extend(wait.edges());
    }
    let keys: BTreeSet<i64> = waits.iter().filter_map(|wait| wait.key).collect();
    let mut found: Vec<Deadlock> = Vec::new();
    // The greatest that is part of a circle is the greatest of that circle.
    for victim in keys.into_iter().rev() {
        let start = Node::Transaction(victim);
        if let Some(circle) = circle(&out, start)
            && !within_one_host(&circle)
        {
            out.remove(&start);
            let circle = circle.iter().map(|(wait, b)| ((*wait).clone(), *b));
            found.push(Deadlock {
                victim,
                circle: circle.collect(),
            });
        }
    }
    found
}

/// A shortest way from `start` back to it.
fn circle<'w>(out: &HashMap<Node<'w>, Vec<Edge<'w>>>, start: Node<'w>) -> Option<Vec<Edge<'w>>> {
    let mut ways: VecDeque<Vec<Edge<'w>>> = VecDeque::from([Vec::new()]);
    let mut seen = HashSet::new();
    while let Some(way) = ways.pop_front() {
        let here = way.last().map_or(start, |(wait, b)| wait.target(*b));
        for (wait, blocker) in out.get(&here).into_iter().flatten() {
            let next = wait.target(*blocker);
            let mut longer = way.clone();
            longer.push((*wait, *blocker));
            if next == start {
                return Some(longer);
            }
            if seen.insert(next) {
                ways.push_back(longer);
            }
        }
    }
    None
}

/// Whether each process in the way is the one that waits next: then its host sees the circle and ends it.
fn within_one_host(circle: &[Edge<'_>]) -> bool {
    let next = circle.iter().cycle().skip(1);
    circle
        .iter()
        .zip(next)
        .all(|((wait, blocker), (next, _))| (&wait.host, blocker.pid) == (&next.host, next.pid))
}

impl Deadlock {
    /// The victim's wait.
    pub fn wait(&self) -> &Wait {
        &self.circle[0].0
    }

    /// Whether all of it is still so in a later look.
    pub fn holds(&self, later: &[Wait]) -> bool {
        self.circle.iter().all(|(wait, blocker)| {
            later.iter().any(|now| {
                (&now.host, now.pid, now.since, now.key)
                    == (&wait.host, wait.pid, wait.since, wait.key)
                    && now.blockers.contains(blocker)
            })
        })
    }

    /// Who waits for whom, in Postgres' words.
    pub fn detail(&self) -> String {
        let mut lines = Vec::new();
        let next = self.circle.iter().cycle().skip(1);
        for ((wait, blocker), (next, _)) in self.circle.iter().zip(next) {
            lines.push(wait.line(*blocker));
            if (&wait.host, blocker.pid) != (&next.host, next.pid) {
                lines.push(format!(
                    "{} on host {:?} and process {} on host {:?} are parts of one transaction.",
                    capital(&blocker.words()),
                    wait.host,
                    next.pid,
                    next.host
                ));
            }
        }
        lines.join("\n")
    }
}

impl Wait {
    /// What it waits for and who is in its way, in Postgres' words.
    pub fn detail(&self) -> String {
        let lines = self.blockers.iter().map(|blocker| self.line(*blocker));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn line(&self, blocker: Blocker) -> String {
        format!(
            "Process {} on host {:?} waits for {}; blocked by {}.",
            self.pid,
            self.host,
            self.lock,
            blocker.words()
        )
    }
}

impl Blocker {
    fn words(&self) -> String {
        match self.pid {
            0 => "a prepared transaction".to_owned(),
            pid => format!("process {pid}"),
        }
    }
}

fn capital(words: &str) -> String {
    let (first, rest) = words.split_at(1);
    first.to_uppercase() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `pid` of `host` waits for those in its way. Keys are below 100.
    fn wait(host: &str, (pid, key): (i32, i64), blockers: &[(i32, i64)]) -> Wait {
        let key_of = |key: i64| (key > 0).then_some(key);
        let blockers = blockers.iter().map(|(pid, key)| Blocker {
            pid: *pid,
            key: key_of(*key),
        });
        Wait {
            host: host.to_owned(),
            pid,
            key: key_of(key),
            since: i64::from(pid),
            waited: PATIENCE,
            lock: "ShareLock on transaction 7".to_owned(),
            blockers: blockers.collect(),
        }
    }

    fn victims(waits: &[Wait]) -> Vec<(i64, usize)> {
        let found = find(waits);
        assert!(found.iter().all(|deadlock| deadlock.holds(waits)));
        found
            .iter()
            .map(|deadlock| (deadlock.victim, deadlock.circle.len()))
            .collect()
    }

    #[test]
    fn two_transactions_in_opposite_order() {
        let a = wait("a", (10, 1), &[(11, 2)]);
        let b = wait("b", (21, 2), &[(20, 1)]);
        assert_eq!(victims(&[a.clone(), b.clone()]), [(2, 2)]);
        assert_eq!(victims(&[b.clone(), a.clone()]), [(2, 2)]);
        assert_eq!(victims(std::slice::from_ref(&a)), []);
        let found = &find(&[a, b])[0];
        assert_eq!((&*found.wait().host, found.wait().pid), ("b", 21));
        assert_eq!(
            found.detail(),
            "Process 21 on host \"b\" waits for ShareLock on transaction 7; blocked by process 20.\n\
             Process 20 on host \"b\" and process 10 on host \"a\" are parts of one transaction.\n\
             Process 10 on host \"a\" waits for ShareLock on transaction 7; blocked by process 11.\n\
             Process 11 on host \"a\" and process 21 on host \"b\" are parts of one transaction."
        );
    }

    #[test]
    fn a_ring_and_who_waits_for_it() {
        let mut ring = vec![
            wait("a", (10, 1), &[(12, 0), (11, 2)]),
            wait("b", (21, 2), &[(22, 3)]),
            wait("c", (32, 3), &[(30, 1)]),
            // These wait for the ring, and are no part of it.
            wait("a", (19, 9), &[(10, 1)]),
            wait("b", (28, 8), &[(29, 9)]),
        ];
        assert_eq!(victims(&ring), [(3, 3)]);
        ring.remove(1);
        assert_eq!(victims(&ring), []);
    }

    #[test]
    fn through_a_transaction_of_one_host() {
        let waits = [
            wait("a", (10, 1), &[(15, 0)]),
            wait("a", (15, 0), &[(11, 2)]),
            wait("b", (21, 2), &[(20, 1)]),
        ];
        assert_eq!(victims(&waits), [(2, 3)]);
        // The same number on another host is another process.
        let mut others = waits.clone();
        others[1].host = "b".to_owned();
        assert_eq!(victims(&others), []);
    }

    #[test]
    fn a_circle_of_one_host_is_its_own() {
        let waits = [
            wait("a", (10, 1), &[(11, 2)]),
            wait("a", (11, 2), &[(10, 1)]),
        ];
        assert_eq!(victims(&waits), []);
        let plain = [
            wait("a", (10, 0), &[(11, 0)]),
            wait("a", (11, 0), &[(10, 0)]),
        ];
        assert_eq!(victims(&plain), []);
    }

    #[test]
    fn through_a_prepared_part() {
        // 2 is prepared on a and waits in its PREPARE on b.
        let waits = [
            wait("a", (10, 1), &[(0, 2)]),
            wait("b", (21, 2), &[(20, 1)]),
        ];
        assert_eq!(victims(&waits), [(2, 2)]);
        // One that is not ours is nobody's part.
        assert_eq!(victims(&[wait("a", (10, 1), &[(0, 0)])]), []);
    }

    #[test]
    fn what_we_know_of_our_own() {
        let mut waits = [
            wait("a", (10, 0), &[(11, 2)]),
            wait("b", (21, 2), &[(20, 0)]),
        ];
        assert_eq!(victims(&waits), []);
        let part = |host: &str, pid| ((host.to_owned(), pid), 1);
        let ours = Parts::from([part("a", 10), part("b", 20), part("b", 11)]);
        waits.iter_mut().for_each(|wait| wait.know(&ours));
        assert_eq!(victims(&waits), [(2, 2)]);
    }

    #[test]
    fn two_deadlocks_have_two_victims() {
        let waits = [
            wait("a", (10, 1), &[(11, 2)]),
            wait("b", (21, 2), &[(20, 1)]),
            wait("a", (13, 3), &[(14, 4)]),
            wait("b", (24, 4), &[(23, 3)]),
            // Through 4, which gives way.
            wait("c", (33, 3), &[(34, 4)]),
        ];
        assert_eq!(victims(&waits), [(4, 2), (2, 2)]);
        // 1 with 2, and 1 with 3: ending 3 does not help 2.
        let shared = [
            wait("a", (10, 1), &[(11, 2), (12, 3)]),
            wait("b", (21, 2), &[(20, 1)]),
            wait("b", (22, 3), &[(20, 1)]),
        ];
        assert_eq!(victims(&shared), [(3, 2), (2, 2)]);
    }

    #[test]
    fn a_wait_that_began_anew_is_another() {
        let waits = [
            wait("a", (10, 1), &[(11, 2)]),
            wait("b", (21, 2), &[(20, 1)]),
        ];
        let found = &find(&waits)[0];
        let mut later = waits.clone();
        later[1].waited *= 2;
        later[1].blockers.push(Blocker { pid: 5, key: None });
        assert!(found.holds(&later));
        later[1].since += 1;
        assert!(!found.holds(&later));
        later[1] = waits[1].clone();
        later[1].blockers[0].pid = 6;
        assert!(!found.holds(&later));
        assert!(!found.holds(&waits[..1]));
    }
}
