//! All hosts of a map: which of them can take part in transactions over several, and which of them decides one.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;

use super::host::{Greeting, Host, Part};
use super::login::{Ended, Login};
use crate::shardmap::ShardMap;
use crate::twophase::{Home, InDoubt, Name, Outlook, Readiness};

/// The hosts of one map.
pub struct Hosts {
    /// In the order of the map, which is by name.
    pub all: Vec<Arc<Host>>,
    pub(super) logins: Vec<Login>,
    /// Of each.
    pools: Vec<u32>,
}

impl Hosts {
    /// The hosts of a map. Those that are as they were in `before` keep their connections.
    pub fn of(map: &ShardMap, before: Option<&Hosts>) -> Hosts {
        let old = |name: &str| before?.all.iter().find(|host| host.name == name);
        let host = |host: &crate::shardmap::Host| match old(&host.name) {
            Some(old) if old.url == host.url => old.clone(),
            _ => Arc::new(Host::new(&host.name, &host.url)),
        };
        Hosts {
            all: map.hosts.iter().map(host).collect(),
            logins: Login::all(map),
            pools: map.hosts.iter().map(|host| host.pool).collect(),
        }
    }

    /// Connects to all that are not connected, side by side.
    pub async fn connect(&self, makes: bool) {
        join_all(self.all.iter().map(|host| host.connect(makes))).await;
    }

    /// The most server connections of this proxy to a host, and so the most that it prepares there at once.
    pub fn pool(&self, host: &Host) -> u32 {
        let mut all = self.all.iter().zip(&self.pools);
        all.find(|(other, _)| other.name == host.name)
            .map_or(1, |(_, pool)| *pool)
    }

    /// Whether a host can take part in transactions over several.
    pub fn readiness(&self, host: &Host) -> Readiness {
        if let Some(why) = host.fault() {
            return Readiness::Unknown(why);
        }
        let Some(greeting) = host.greeting() else {
            return Readiness::Unknown("it has not been asked yet".to_owned());
        };
        let unable = |why: String, mend: String| Readiness::Unable { why, mend };
        if greeting.standby {
            return unable(
                "it is a standby, which takes no writes".to_owned(),
                "promote it, or give the primary's url in [hosts]".to_owned(),
            );
        }
        if greeting.max_prepared == 0 {
            return unable(
                "its max_prepared_transactions is 0".to_owned(),
                format!(
                    "set max_prepared_transactions = {} in its postgresql.conf (its pool, times the number of proxies) and \
                     restart it",
                    self.pool(host)
                ),
            );
        }
        if let Some(lack) = greeting.table {
            return unable(lack.why, lack.mend);
        }
        match self.twin(host, &greeting) {
            Some(mend) => unable(mend.0, mend.1),
            None => Readiness::Ready(greeting.home),
        }
    }

    /// Ends a prepared transaction as a person says.
    pub async fn end(&self, host: &Host, left: &InDoubt, commit: bool) -> Result<(), String> {
        let ended = host.end(&left.name, left.owner.as_deref(), commit, &self.logins);
        match ended.await? {
            Ended::Done => Ok(()),
            Ended::Gone => Err("somebody else has just ended it".to_owned()),
            Ended::Busy => Err("somebody else is at it".to_owned()),
        }
    }

    /// Whether an earlier host of the map is the same, so that both can't take part in one transaction.
    ///
    /// * The same database twice: both parts would wait for the lock that marks the transaction, each for the other.
    /// * Two databases of one cluster: a name can be prepared only once in a cluster. With two hosts that never happens,
    ///   for one of them decides and is not prepared.
    ///
    /// Copies of a cluster have its system identifier too, and are hosts like any other: their servers were started at
    /// different times.
    fn twin(&self, host: &Host, greeting: &Greeting) -> Option<(String, String)> {
        let earlier = self.all.iter().take_while(|other| other.name != host.name);
        for other in earlier {
            let Some(known) = other.greeting() else {
                continue;
            };
            if known.home.system != greeting.home.system || known.started != greeting.started {
                continue;
            }
            if known.home == greeting.home {
                return Some((
                    format!("it is the same database as host {}", other.name),
                    "give both hosts' shards to one of them in [map], and take the other out of [hosts]".to_owned(),
                ));
            }
            if self.all.len() > 2 {
                return Some((
                    format!(
                        "it is a database of the same cluster as host {}, where a transaction can't be prepared twice",
                        other.name
                    ),
                    "one database of each cluster in [hosts]".to_owned(),
                ));
            }
        }
        None
    }

    /// What will become of transactions of one decision host.
    pub(super) async fn group(
        &self,
        home: Home,
        word: &str,
        names: Vec<Name>,
    ) -> Vec<(Name, Outlook)> {
        let deciders = self.deciders(home, word);
        if deciders.is_empty() {
            let unknown = |name| (name, Outlook::HostUnknown);
            return names.into_iter().map(unknown).collect();
        }
        let asked = deciders.iter().map(|host| parts(host, home, &names));
        let answers = join_all(asked).await;
        let outlook = |name: Name| {
            let outlook = together(&name, &answers);
            (name, outlook)
        };
        names.into_iter().map(outlook).collect()
    }

    /// The hosts that may be the decision host. Mostly it is the one whose database the name tells. But
    /// * copies of a cluster have the same identifiers, so it may be several;
    /// * of a host that was never reached we don't know what it is. It is asked too if the name tells its name, or if no
    ///   other of the right database does. (It might be a copy that was given another name; not one whose name some
    ///   other host of the right database has.)
    ///
    /// None: no host of the map is it.
    fn deciders(&self, home: Home, word: &str) -> Vec<Arc<Host>> {
        let is_named = |host: &Arc<Host>| Name::word(&host.name) == word;
        let (right, others): (Vec<_>, Vec<_>) = self
            .all
            .iter()
            .cloned()
            .partition(|host| host.home() == Some(home));
        let sure = right.iter().any(is_named);
        let mut deciders = right;
        for host in others {
            if host.home().is_none() && (is_named(&host) || !sure) {
                deciders.push(host);
            }
        }
        deciders
    }
}

async fn parts(host: &Host, home: Home, names: &[Name]) -> Result<HashMap<Name, Part>, String> {
    let said = |why: &str| format!("host {}: {why}", host.name);
    let parts = host.parts(names).await;
    let parts = parts.map_err(|trouble| said(&trouble.words()))?;
    // It was asked because nobody knew what it is. What it said is not wrong, and says nothing.
    match host.home() == Some(home) {
        true => Ok(parts),
        false => Err(said(
            "it has just been reached, and decides other transactions",
        )),
    }
}

/// What several deciders say together.
fn together(name: &Name, answers: &[Result<HashMap<Name, Part>, String>]) -> Outlook {
    let part = |answer: &HashMap<Name, Part>| answer.get(name).copied().unwrap_or(Part::Open);
    let parts = || answers.iter().filter_map(|a| a.as_ref().ok().map(part));
    if parts().any(|part| part == Part::Committed) {
        return Outlook::Commits;
    }
    if let Some(why) = answers.iter().find_map(|answer| answer.as_ref().err()) {
        return Outlook::HostDown(why.clone());
    }
    match parts().all(|part| part == Part::Ended) {
        true => Outlook::RollsBack,
        false => Outlook::Open,
    }
}
