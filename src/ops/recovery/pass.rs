//! A look at one host: what is prepared there of ours, what will become of it, and ending what can be ended.

use std::collections::{HashMap, HashSet};

use futures_util::future::join_all;

use super::host::{Found, Host};
use super::hosts::Hosts;
use super::login::Ended;
use crate::twophase::{Board, Home, InDoubt, Name, Outlook};

/// What a look has found and done.
#[derive(Default)]
pub struct Look {
    /// What is left.
    pub in_doubt: Vec<InDoubt>,
    /// Prepared transactions of others, which are never touched.
    pub foreign: Vec<Found>,
    /// What was committed.
    pub committed: Vec<Name>,
    /// What was rolled back.
    pub rolled_back: Vec<Name>,
}

/// Looks at a host, and ends what can be ended if it `acts`. What sessions of this proxy are at work on is left to them.
/// `owed`: what the host owed before, see [`Board::owed`]. What is owed later may not have been prepared yet when it answers.
pub async fn pass(
    hosts: &Hosts,
    host: &Host,
    board: &Board,
    owed: &HashSet<Name>,
    acts: bool,
) -> Result<Look, String> {
    let found = host.prepared().await.map_err(|trouble| trouble.words())?;
    let there: HashSet<&Name> = found
        .iter()
        .filter_map(|found| found.name.as_ref())
        .collect();
    // The view shows a transaction until all others see its changes (FinishPreparedTransaction in twophase.c).
    board.settle(&host.name, owed.iter().filter(|name| !there.contains(name)));

    let mut look = Look::default();
    let mut groups: HashMap<(Home, String), Vec<(Found, Name)>> = HashMap::new();
    let mut decided = Vec::new();
    for found in found {
        match found.name.clone() {
            None => look.foreign.push(found),
            // Clients know that it is committed.
            Some(name) if owed.contains(&name) => decided.push((found, name)),
            Some(name) if board.is_live(&name) => {}
            Some(name) => {
                let group = groups.entry((name.home, name.host.clone())).or_default();
                group.push((found, name));
            }
        }
    }
    let turn = Turn {
        hosts,
        host,
        board,
        acts,
    };
    let groups = groups
        .into_iter()
        .map(|((home, word), group)| turn.group(home, word, group));
    // A decision host that does not answer keeps its own transactions waiting, and no others.
    let (decided, groups) = futures_util::join!(turn.decided(decided), join_all(groups));
    for part in groups.into_iter().chain([decided]) {
        look.in_doubt.extend(part.in_doubt);
        look.committed.extend(part.committed);
        look.rolled_back.extend(part.rolled_back);
    }
    look.in_doubt.sort_by_key(|left| left.since);
    Ok(look)
}

struct Turn<'t> {
    hosts: &'t Hosts,
    host: &'t Host,
    board: &'t Board,
    acts: bool,
}

impl Turn<'_> {
    /// Those of one decision host.
    async fn group(&self, home: Home, word: String, group: Vec<(Found, Name)>) -> Look {
        let names = group.iter().map(|(_, name)| name.clone()).collect();
        let outlooks: HashMap<Name, Outlook> = self
            .hosts
            .group(home, &word, names)
            .await
            .into_iter()
            .collect();
        let mut look = Look::default();
        for (found, name) in group {
            let outlook = outlooks.get(&name).cloned().unwrap_or(Outlook::Open);
            self.end(found, name, outlook, &mut look).await;
        }
        look
    }

    async fn decided(&self, decided: Vec<(Found, Name)>) -> Look {
        let mut look = Look::default();
        for (found, name) in decided {
            self.end(found, name, Outlook::Commits, &mut look).await;
        }
        look
    }

    /// Ends one, if it is known how and if it is to be done.
    async fn end(&self, found: Found, name: Name, mut outlook: Outlook, look: &mut Look) {
        let certain = matches!(outlook, Outlook::Commits | Outlook::RollsBack);
        if self.acts && certain {
            let commit = outlook == Outlook::Commits;
            let owner = found.owner.as_deref();
            match self
                .host
                .end(&name, owner, commit, &self.hosts.logins)
                .await
            {
                Ok(Ended::Busy) => {}
                Ok(ended) => {
                    self.board.settle(&self.host.name, [&name]);
                    match (ended, commit) {
                        (Ended::Done, true) => look.committed.push(name),
                        (Ended::Done, false) => look.rolled_back.push(name),
                        _ => {}
                    }
                    return;
                }
                Err(why) => {
                    let ends = if commit { "committed" } else { "rolled back" };
                    outlook = Outlook::Stuck(format!("it is to be {ends}: {why}"));
                }
            }
        }
        look.in_doubt.push(InDoubt {
            host: self.host.name.clone(),
            name,
            since: found.since,
            owner: found.owner,
            outlook,
        });
    }
}
