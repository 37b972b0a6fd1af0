//! Ending a transaction by hand whose decision host is in no map any more: what a person has found out is done on all hosts where
//! it is prepared.

use std::collections::HashSet;

use super::Report;
use crate::ops::recovery::{Hosts, pass};
use crate::shardmap::ShardMap;
use crate::twophase::{Board, InDoubt, Name, Outlook};

/// Commits (or rolls back) a transaction on all hosts of the map where it is prepared.
///
/// # Errors
/// What forbids it: it ends by itself, it may yet be decided, a host can't be asked, or nobody has it. Then nothing was done.
pub async fn end_by_hand(map: &ShardMap, name: &str, commit: bool) -> Result<Report, String> {
    let name: Name = name.parse().map_err(|()| {
        format!("{name:?} is not the name of a transaction of presplit: presplit doctor lists them")
    })?;
    let hosts = Hosts::of(map, None);
    hosts.connect(false).await;
    let found = prepared_of(&hosts, &name).await?;
    if found.is_empty() {
        return Err(format!(
            "nothing was done: {name} is prepared on no host of the map"
        ));
    }
    for left in &found {
        if left.outlook != Outlook::HostUnknown {
            return Err(format!(
                "nothing was done: on host {} {name} is {}, and that is not for a person to say: {}. To do: {}",
                left.host,
                left.outlook.state(),
                left.outlook.why(&name),
                left.outlook.mend()
            ));
        }
    }
    if !commit {
        no_row(&hosts, &name).await?;
    }
    let mut report = Report::default();
    for left in found {
        let Some(host) = hosts.all.iter().find(|host| host.name == left.host) else {
            continue;
        };
        let word = if commit { "committed" } else { "rolled back" };
        match hosts.end(host, &left, commit).await {
            Ok(()) => report.line(format!("host {}: {word} {name}", host.name)),
            Err(why) => {
                let failed = format!("host {}: {name} could not be {word}: {why}", host.name);
                report.must(&failed, "mend that and run the same again");
            }
        }
    }
    Ok(report)
}

/// Where it is prepared. Every host must answer: one that does not may have it, too, or its decision.
async fn prepared_of(hosts: &Hosts, name: &Name) -> Result<Vec<InDoubt>, String> {
    let (board, none) = (Board::new(), HashSet::new());
    let mut found = Vec::new();
    for host in &hosts.all {
        let look = pass(hosts, host, &board, &none, false).await;
        let look = look.map_err(|why| {
            format!(
                "nothing was done: host {} can't be asked, and all must be: {why}",
                host.name
            )
        })?;
        found.extend(look.in_doubt.into_iter().filter(|left| left.name == *name));
    }
    Ok(found)
}

/// A row of it, wherever it was copied to, proves that it is committed.
async fn no_row(hosts: &Hosts, name: &Name) -> Result<(), String> {
    for host in &hosts.all {
        if host.has_row(name).await? {
            return Err(format!(
                "nothing was done: host {} has its decision row, so that it is committed: presplit doctor --commit {name}",
                host.name
            ));
        }
    }
    Ok(())
}
