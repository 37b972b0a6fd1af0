//! What sessions and recovery of one proxy tell each other: which hosts can take part, which transactions are under way,
//! which are decided and not yet carried out everywhere.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};

use super::name::{Home, Name, ProxyId};

/// The board of one proxy.
pub struct Board {
    /// This proxy's part of its transactions' names.
    pub id: ProxyId,
    next: AtomicU64,
    state: Mutex<State>,
    /// Hosts that owe something: each statement asks, and is not to take the lock for it.
    owing: AtomicUsize,
    /// Counts changes of what hosts can do and of what is owed on them.
    changes: watch::Sender<u64>,
    /// Recovery has something to do.
    pub hurry: Notify,
}

#[derive(Default)]
struct State {
    hosts: HashMap<String, Readiness>,
    live: BTreeMap<u64, Live>,
    owed: HashMap<String, HashSet<Name>>,
    done: Vec<Name>,
    /// By the host that they are prepared on.
    in_doubt: BTreeMap<String, Vec<InDoubt>>,
}

/// Whether a host can take part in a transaction over several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It has not been reached yet; why not.
    Unknown(String),
    /// It can.
    Ready(Home),
    /// It can't: why, and what would mend it.
    Unable {
        /// What it lacks.
        why: String,
        /// What would mend it.
        mend: String,
    },
}

/// A transaction over several hosts whose session is at work on it.
#[derive(Clone, Debug)]
pub struct Live {
    /// Its name.
    pub name: Name,
    /// The number of its client.
    pub client: u64,
    /// The key with which its session is cancelled.
    pub cancel_key: Arc<[u8]>,
    /// When it became one of several hosts.
    pub since: Instant,
    /// Its hosts' names and the server processes there.
    pub parts: Vec<(String, i32)>,
    /// How far its commit is.
    pub step: &'static str,
}

/// A prepared transaction of ours that was found on a host.
#[derive(Clone, Debug, PartialEq)]
pub struct InDoubt {
    /// The host that it is prepared on.
    pub host: String,
    /// Its name.
    pub name: Name,
    /// When it was prepared: its age by the host's clock, from the moment of the look.
    pub since: Instant,
    /// The role that prepared it, if it is still there.
    pub owner: Option<String>,
    /// What will become of it.
    pub outlook: Outlook,
}

/// What will become of a prepared transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It is decided, and is to be committed.
    Commits,
    /// Its decision host's part has ended without a decision: it is to be rolled back.
    RollsBack,
    /// Its decision host's part is still open: its proxy may yet decide.
    Open,
    /// Its decision host can't be asked: which, and why.
    HostDown(String),
    /// No host of the map is its decision host.
    HostUnknown,
    /// It is known how it ends, but it could not be ended: why.
    Stuck(String),
}

impl Outlook {
    /// In a word or two.
    pub fn state(&self) -> &'static str {
        match self {
            Outlook::Commits => "to be committed",
            Outlook::RollsBack => "to be rolled back",
            Outlook::Open => "open",
            Outlook::HostDown(_) => "decision host down",
            Outlook::HostUnknown => "decision host unknown",
            Outlook::Stuck(_) => "stuck",
        }
    }

    /// Why, for people. `name`: of the transaction.
    pub fn why(&self, name: &Name) -> String {
        let host = &name.host;
        match self {
            Outlook::Commits => format!("its decision stands on host {host}"),
            Outlook::RollsBack => {
                format!(
                    "its part on host {host} ended without a decision, and there can be none any more"
                )
            }
            Outlook::Open => {
                format!("its part on host {host} has not ended, so that its proxy may yet decide")
            }
            Outlook::HostDown(why) => {
                format!(
                    "its decision is on a host that can't be asked: {}",
                    why.replace('\n', " ")
                )
            }
            Outlook::HostUnknown => format!(
                "its decision is in database OID {} of the cluster with system identifier {}, then called host {host}: \
                 no host of the map is that",
                name.home.database, name.home.system
            ),
            Outlook::Stuck(why) => why.replace('\n', " "),
        }
    }

    /// What is to be done, for people.
    pub fn mend(&self) -> &'static str {
        match self {
            Outlook::Commits | Outlook::RollsBack => {
                "nothing: a proxy that runs does it within seconds"
            }
            Outlook::Open => {
                "nothing while its proxy is at work; if that is gone for good, presplit doctor names the server process to end"
            }
            Outlook::HostDown(_) => "bring that host back; until then this one's locks stay",
            Outlook::HostUnknown => {
                "name that database under [hosts], it needs no shards; if it is lost, presplit doctor says how to end it by hand"
            }
            Outlook::Stuck(_) => "mend what Postgres says; the proxy tries again every few seconds",
        }
    }
}

/// A transaction's place among those under way. It leaves when this is dropped.
pub struct Ticket {
    board: Arc<Board>,
    name: Name,
}

impl Board {
    /// A board of a proxy that starts now.
    pub fn new() -> Arc<Board> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Arc::new(Board {
            id: ProxyId {
                proxy: rand::random(),
                epoch: since.unwrap_or_default().as_secs() as u32,
            },
            next: AtomicU64::new(1),
            state: Mutex::default(),
            owing: AtomicUsize::new(0),
            changes: watch::Sender::default(),
            hurry: Notify::new(),
        })
    }

    /// No foreign code runs under the lock, so a poisoned one is as good as a clean one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n += 1);
    }

    /// Notes what was found out about a host.
    pub fn set_readiness(&self, host: &str, readiness: Readiness) {
        let before = self.lock().hosts.insert(host.to_owned(), readiness.clone());
        if before.as_ref() != Some(&readiness) {
            self.changed();
        }
    }

    /// What is known of a host.
    pub fn readiness(&self, host: &str) -> Readiness {
        let state = self.lock();
        let known = state.hosts.get(host).cloned();
        known.unwrap_or_else(|| Readiness::Unknown("it has not been asked yet".to_owned()))
    }

    /// What is known of a host; waits up to `limit` for its first answer.
    pub async fn readiness_within(&self, host: &str, limit: Duration) -> Readiness {
        let known = || match self.readiness(host) {
            Readiness::Unknown(_) => None,
            known => Some(known),
        };
        self.hurry_unless(known().is_some());
        self.wait_for(limit, || known().is_some()).await;
        self.readiness(host)
    }

    fn hurry_unless(&self, done: bool) {
        if !done {
            self.hurry.notify_one();
        }
    }

    async fn wait_for(&self, limit: Duration, mut done: impl FnMut() -> bool) -> bool {
        let mut changes = self.changes.subscribe();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                if done() || changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(limit, waiting).await.is_ok()
    }

    /// A transaction becomes one over several hosts, with its decision in the database `home` of `host`.
    pub fn begin(
        self: &Arc<Board>,
        host: &str,
        home: Home,
        client: u64,
        cancel_key: &[u8],
    ) -> Ticket {
        let name = Name {
            home,
            proxy: self.id,
            number: self.next.fetch_add(1, Ordering::Relaxed),
            host: Name::word(host),
        };
        let live = Live {
            name: name.clone(),
            client,
            cancel_key: cancel_key.into(),
            since: Instant::now(),
            parts: Vec::new(),
            step: "open",
        };
        self.lock().live.insert(name.number, live);
        Ticket {
            board: self.clone(),
            name,
        }
    }

    /// Transactions over several hosts whose sessions are at work on them.
    pub fn live(&self) -> Vec<Live> {
        self.lock().live.values().cloned().collect()
    }

    /// Whether a session of this proxy is at work on the transaction.
    pub fn is_live(&self, name: &Name) -> bool {
        name.proxy == self.id && self.lock().live.contains_key(&name.number)
    }

    /// The client knows that the transaction is committed, and the host has yet to carry it out: nobody may look at the
    /// host before that is done.
    pub fn owe(&self, host: &str, name: &Name) {
        let mut state = self.lock();
        state
            .owed
            .entry(host.to_owned())
            .or_default()
            .insert(name.clone());
        self.count_owing(&state);
        drop(state);
        self.hurry.notify_one();
    }

    /// `owed` has changed.
    fn count_owing(&self, state: &State) {
        self.owing.store(state.owed.len(), Ordering::Release);
    }

    /// What a host has yet to carry out.
    pub fn owed(&self, host: &str) -> HashSet<Name> {
        self.lock().owed.get(host).cloned().unwrap_or_default()
    }

    /// The host has carried these out.
    pub fn settle<'n>(&self, host: &str, names: impl IntoIterator<Item = &'n Name>) {
        let mut state = self.lock();
        let Some(owed) = state.owed.get_mut(host) else {
            return;
        };
        for name in names {
            owed.remove(name);
        }
        if owed.is_empty() {
            state.owed.remove(host);
        }
        self.count_owing(&state);
        drop(state);
        self.changed();
    }

    /// Whether a host has carried out all that clients were told is committed.
    pub fn is_settled(&self, host: &str) -> bool {
        self.owing.load(Ordering::Acquire) == 0 || !self.lock().owed.contains_key(host)
    }

    /// Waits up to `limit` until a host [`Board::is_settled`]; `false`: it is not.
    pub async fn settled(&self, host: &str, limit: Duration) -> bool {
        self.hurry_unless(self.is_settled(host));
        self.wait_for(limit, || self.is_settled(host)).await
    }

    /// Whether nothing waits for a host to carry something out.
    pub fn is_all_settled(&self) -> bool {
        self.lock().owed.is_empty()
    }

    /// A decision has been carried out on all hosts but those that [`Board::owe`] it: its row is of no more use, once
    /// they have settled it.
    pub fn forget(&self, name: &Name) {
        self.lock().done.push(name.clone());
    }

    /// Takes the names whose rows are of no more use. Those that could not be deleted are given back by [`Board::forget`].
    pub fn take_done(&self) -> Vec<Name> {
        let mut state = self.lock();
        let (keep, done) = std::mem::take(&mut state.done)
            .into_iter()
            .partition(|name| state.owed.values().any(|owed| owed.contains(name)));
        state.done = keep;
        done
    }

    /// The map in force has the hosts `all`, of which `same` lead where they led before. What is known of others is
    /// dropped. What others owe is owed by all: any may be the same database under another name, and one that is not
    /// settles it with its next look.
    pub fn follow(&self, all: &[&str], same: &[&str]) {
        let mut state = self.lock();
        let stays = |host: &String| same.contains(&host.as_str());
        state.hosts.retain(|host, _| stays(host));
        state.in_doubt.retain(|host, _| stays(host));
        let (owed, moved): (HashMap<_, _>, HashMap<_, _>) = std::mem::take(&mut state.owed)
            .into_iter()
            .partition(|(host, _)| stays(host));
        state.owed = owed;
        let moved: HashSet<Name> = moved.into_values().flatten().collect();
        if !moved.is_empty() {
            for host in all {
                let owed = state.owed.entry((*host).to_owned()).or_default();
                owed.extend(moved.iter().cloned());
            }
        }
        self.count_owing(&state);
        drop(state);
        self.changed();
        if !moved.is_empty() {
            self.hurry.notify_one();
        }
    }

    /// Whether a host that is not among these owes something.
    pub fn owed_besides(&self, hosts: &[&str]) -> bool {
        let state = self.lock();
        state
            .owed
            .keys()
            .any(|host| !hosts.contains(&host.as_str()))
    }

    /// Notes what the last look at a host has found.
    pub fn set_in_doubt(&self, host: &str, found: Vec<InDoubt>) {
        let mut state = self.lock();
        match found.is_empty() {
            true => state.in_doubt.remove(host),
            false => state.in_doubt.insert(host.to_owned(), found),
        };
    }

    /// What the last look at each host has found, by host.
    pub fn in_doubt(&self) -> Vec<InDoubt> {
        self.lock().in_doubt.values().flatten().cloned().collect()
    }
}

impl Ticket {
    /// The transaction's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// A server process of a host takes part.
    pub fn enlist(&self, host: &str, pid: i32) {
        self.update(|live| live.parts.push((host.to_owned(), pid)));
    }

    /// How far the commit is.
    pub fn step(&self, step: &'static str) {
        self.update(|live| live.step = step);
    }

    fn update(&self, change: impl FnOnce(&mut Live)) {
        if let Some(live) = self.board.lock().live.get_mut(&self.name.number) {
            change(live);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.board.lock().live.remove(&self.name.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Home = Home {
        system: 1,
        database: 5,
    };

    #[tokio::test(start_paused = true)]
    async fn a_host_that_owes_is_waited_for() {
        let board = Board::new();
        let ticket = board.begin("a", HOME, 3, b"key");
        let name = ticket.name().clone();
        assert!(board.is_live(&name));
        drop(ticket);
        assert!(!board.is_live(&name));
        let wait = Duration::from_secs(1);
        assert!(board.settled("b", wait).await);
        board.owe("b", &name);
        assert!(!board.settled("b", wait).await);
        assert!(board.settled("a", wait).await);
        let settling = board.clone();
        let settle = async move {
            tokio::time::sleep(wait / 2).await;
            settling.settle("b", &HashSet::from([name]));
        };
        let (settled, ()) = tokio::join!(board.settled("b", wait), settle);
        assert!(settled);
    }

    #[test]
    fn a_row_is_kept_while_a_host_owes_what_it_decides() {
        let board = Board::new();
        let name = board.begin("a", HOME, 3, b"key").name().clone();
        board.owe("b", &name);
        board.forget(&name);
        assert!(board.take_done().is_empty());
        board.settle("b", [&name]);
        assert_eq!(board.take_done(), [name]);
        assert!(board.take_done().is_empty());
    }

    #[test]
    fn what_a_host_owes_that_leaves_the_map_is_owed_by_all() {
        let board = Board::new();
        board.set_readiness("a", Readiness::Ready(HOME));
        board.set_readiness("b", Readiness::Ready(HOME));
        let name = board.begin("a", HOME, 3, b"key").name().clone();
        board.owe("b", &name);
        assert!(board.owed_besides(&["a", "c"]));
        board.follow(&["a", "c"], &["a"]);
        assert!(!board.owed_besides(&["a", "c"]));
        assert!(!board.is_settled("a") && !board.is_settled("c") && board.is_settled("b"));
        assert_eq!(board.readiness("a"), Readiness::Ready(HOME));
        assert!(matches!(board.readiness("b"), Readiness::Unknown(_)));
        board.settle("a", [&name]);
        board.settle("c", [&name]);
        assert!(board.is_all_settled());
    }

    #[test]
    fn a_name_is_found_again_as_it_is_written() {
        let board = Board::new();
        let ticket = board.begin(&"long".repeat(50), HOME, 3, b"key");
        let written = ticket.name().to_string();
        assert_eq!(written.parse().as_ref(), Ok(ticket.name()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_of_a_host_is_waited_for() {
        let board = Board::new();
        let wait = Duration::from_secs(1);
        let known = board.readiness_within("a", wait).await;
        assert!(matches!(known, Readiness::Unknown(_)));
        let answering = board.clone();
        let answer = async move {
            tokio::time::sleep(wait / 2).await;
            answering.set_readiness("a", Readiness::Ready(HOME));
        };
        let (known, ()) = tokio::join!(board.readiness_within("a", wait), answer);
        assert_eq!(known, Readiness::Ready(HOME));
    }
}
