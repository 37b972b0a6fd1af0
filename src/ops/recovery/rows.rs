//! Decision rows that are of no more use.

use std::collections::{HashMap, HashSet};

use futures_util::future::join_all;

use super::host::{Host, Trouble};
use super::hosts::Hosts;
use crate::twophase::{Board, Home, Name, Place};

/// Rows that are deleted by one statement.
const AT_ONCE: usize = 1000;

/// Deletes the rows of transactions that sessions of this proxy have carried out on all hosts.
pub async fn delete_done(hosts: &Hosts, board: &Board) {
    let mut of: HashMap<Home, Vec<Name>> = HashMap::new();
    for name in board.take_done() {
        of.entry(name.home).or_default().push(name);
    }
    let deleting = of.into_iter().map(async |(home, names)| {
        let is_it = |host: &&std::sync::Arc<Host>| host.home() == Some(home);
        // Copies of a cluster look alike; the row is on one of them.
        let deciders = hosts.all.iter().filter(is_it);
        let deleted = join_all(deciders.map(|host| delete(host, &names))).await;
        // With none left in the map the rows stay where they are.
        if deleted.contains(&false) {
            names.iter().for_each(|name| board.forget(name));
        }
    });
    join_all(deleting).await;
}

async fn delete(host: &Host, names: &[Name]) -> bool {
    for names in names.chunks(AT_ONCE) {
        if let Err(trouble) = host.delete_rows(names).await {
            tracing::debug!(host = host.name, "decision rows stay: {}", trouble.words());
            return false;
        }
    }
    true
}

/// The rows of a host.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Of no more use.
    pub spent: Vec<Name>,
    /// Something is prepared that they decide.
    pub needed: Vec<Name>,
    /// It is not certain: why, for each.
    pub unsure: Vec<(String, String)>,
}

/// The rows of all hosts, in their order, or the host that could not be asked and why.
///
/// A row is of no more use once no database has a prepared transaction of its name, and then for ever: each PREPARE was
/// answered before the row was written, so the set of databases where it is prepared only shrinks from there. That holds
/// for rows of proxies that are at work, too, and no clock is asked. To be certain of it,
/// 1. the row is read *before* hosts are asked what is prepared on them;
/// 2. every host of the map is asked, and answers;
/// 3. the row tells by identifiers in which databases it was prepared, and all of them are hosts of the map. By names alone
///    a host that has left the map, or has its name from another, would go unasked.
///
/// Where that is not so, the row stays: rows are small.
pub async fn rows_of(hosts: &Hosts) -> Result<Vec<Rows>, String> {
    let said = |host: &Host, trouble: Trouble| format!("host {}: {}", host.name, trouble.words());
    let all = &hosts.all;
    let read = join_all(all.iter().map(|host| host.rows())).await;
    if read
        .iter()
        .all(|rows| matches!(rows, Ok(rows) if rows.is_empty()))
    {
        return Ok(vec![Rows::default(); all.len()]);
    }
    let asked = join_all(all.iter().map(|host| host.prepared())).await;
    let mut prepared: HashSet<String> = HashSet::new();
    for (host, found) in all.iter().zip(asked) {
        let found = found.map_err(|trouble| said(host, trouble))?;
        prepared.extend(found.into_iter().map(|found| found.gid));
    }
    let homes: HashSet<Home> = all.iter().filter_map(|host| host.home()).collect();
    let mut of_all = Vec::new();
    for (host, rows) in all.iter().zip(read) {
        let mut of_host = Rows::default();
        for (text, places) in rows.map_err(|trouble| said(host, trouble))? {
            let sure = match text.parse::<Name>() {
                Ok(name) => is_sure(&name, &places, host, &homes).map(|()| name),
                Err(()) => Err("its name is not one of ours".to_owned()),
            };
            match sure {
                Ok(name) if prepared.contains(&text) => of_host.needed.push(name),
                Ok(name) => of_host.spent.push(name),
                Err(why) => of_host.unsure.push((text, why)),
            }
        }
        of_all.push(of_host);
    }
    Ok(of_all)
}

fn is_sure(
    name: &Name,
    places: &[String],
    host: &Host,
    homes: &HashSet<Home>,
) -> Result<(), String> {
    if host.home() != Some(name.home) {
        return Err("it was written in another database and copied here".to_owned());
    }
    for place in places {
        match Place::parse(place) {
            None => {
                return Err(format!(
                    "it names host {place} without saying which database that was"
                ));
            }
            Some(place) if !homes.contains(&place.home) => {
                return Err(format!(
                    "host {}, where it was prepared, is not in the map",
                    place.host
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Deletes the rows of all hosts that are of no more use, and says how many they were. Nothing if a host can't be asked.
pub async fn sweep(hosts: &Hosts) -> Result<usize, String> {
    let rows = rows_of(hosts).await?;
    let mut swept = 0;
    for (host, rows) in hosts.all.iter().zip(rows) {
        if !rows.spent.is_empty() && delete(host, &rows.spent).await {
            swept += rows.spent.len();
        }
    }
    Ok(swept)
}
