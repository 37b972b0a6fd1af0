//! `presplit doctor`: says of every host of a map whether it can take part in transactions over several, and of every prepared
//! transaction what will become of it and why; ends what is certain (`--resolve`), or what a person has found out.

mod by_hand;
mod report;

use std::collections::HashSet;
use std::fmt::Write;
use std::time::Duration;

use futures_util::future::join_all;

pub use by_hand::end_by_hand;
use report::{ago, at_host};

use super::recovery::{Found, Host, Hosts, Look, Rows, pass, rows_of, sweep};
use crate::shardmap::{CrossHost, ShardMap};
use crate::twophase::{Board, InDoubt, Outlook, Readiness};

/// A transaction that is open for less is taken for one that is under way.
const UNDER_WAY: Duration = Duration::from_secs(10);

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// In words, for a person.
    pub text: String,
    /// How many things there are to do.
    pub to_do: usize,
}

impl Report {
    fn line(&mut self, line: impl AsRef<str>) {
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "{}", line.as_ref());
    }

    fn must(&mut self, what: &str, mend: &str) {
        self.to_do += 1;
        self.line(format!("  TO DO: {what}"));
        self.line(format!("         {mend}"));
    }
}

/// Looks at all hosts. If it `resolves`, ends what is certain first, by the same rules as a proxy that runs.
pub async fn run(map: &ShardMap, resolves: bool) -> Report {
    let hosts = Hosts::of(map, None);
    hosts.connect(false).await;
    // Of no proxy: nothing is live on it, nothing is owed.
    let board = Board::new();
    let none = HashSet::new();
    let looks = hosts.all.iter().map(async |host| match host.fault() {
        Some(why) => Err(why),
        None => pass(&hosts, host, &board, &none, resolves).await,
    });
    let looks = join_all(looks).await;
    let rows = rows_of(&hosts).await;
    let mut report = Report::default();
    for (n, (host, look)) in hosts.all.iter().zip(&looks).enumerate() {
        let rows = rows.as_ref().ok().and_then(|rows| rows.get(n));
        self::host(&mut report, map, &hosts, host, look, rows).await;
    }
    if let Err(why) = rows {
        report.line(format!(
            "decision rows could not be compared with what is prepared: {why}"
        ));
    } else if resolves && let Ok(swept @ 1..) = sweep(&hosts).await {
        report.line(format!("deleted {swept} decision rows of no more use"));
    }
    match report.to_do {
        0 => report.line("all well"),
        1 => report.line("one thing to do, see above"),
        n => report.line(format!("{n} things to do, see above")),
    }
    report
}

/// One host's part of the report.
async fn host(
    report: &mut Report,
    map: &ShardMap,
    hosts: &Hosts,
    host: &Host,
    look: &Result<Look, String>,
    rows: Option<&Rows>,
) {
    let Some(greeting) = host.greeting().filter(|_| host.fault().is_none()) else {
        report.line(format!("host {}: {}", host.name, host.url));
        let why = host.fault().unwrap_or_default().replace('\n', " ");
        return report.must(
            &format!("it can't be reached: {why}"),
            "start it, or mend its url in [hosts]",
        );
    };
    report.line(format!(
        "host {}: {}: PostgreSQL {}, database {} as role {}",
        host.name, host.url, greeting.version, greeting.home, greeting.role
    ));
    let pool = hosts.pool(host);
    let max = greeting.max_prepared;
    let matters = map.hosts.len() > 1 && map.proxy.cross_host == CrossHost::TwoPhase;
    match hosts.readiness(host) {
        Readiness::Ready(_) => report.line(format!(
            "  can take part in transactions over several hosts: max_prepared_transactions is {max}, presplit.decision is there"
        )),
        Readiness::Unable { why, mend } if matters => {
            report.must(&format!("it can't take part in transactions over several hosts: {why}"), &mend);
        }
        Readiness::Unable { why, .. } | Readiness::Unknown(why) => report.line(format!(
            "  can't take part in transactions over several hosts, which this map does not need: {why}"
        )),
    }
    if (1..i64::from(pool)).contains(&i64::from(max)) {
        report.line(format!(
            "  note: the pool of this map is {pool}; with that many commits at once {max} is too few and some fail with 53200. \
             Set it to the pools of all proxies added up"
        ));
    }
    match look {
        Err(why) => report.must("it could not be asked what is prepared there", why),
        Ok(look) => transactions(report, hosts, look).await,
    }
    if let Some(rows) = rows {
        self::rows(report, rows);
    }
}

async fn transactions(report: &mut Report, hosts: &Hosts, look: &Look) {
    for name in &look.committed {
        report.line(format!("  committed now, as it was decided: {name}"));
    }
    for name in &look.rolled_back {
        report.line(format!("  rolled back now, as it was not decided: {name}"));
    }
    for left in &look.in_doubt {
        in_doubt(report, hosts, left).await;
    }
    for Found {
        gid, owner, since, ..
    } in &look.foreign
    {
        let owner = owner.as_deref().unwrap_or("a role that is gone");
        report.line(format!(
            "  prepared by others, never touched by presplit: {gid:?}, {} ago by {owner}",
            ago(since.elapsed())
        ));
    }
}

async fn in_doubt(report: &mut Report, hosts: &Hosts, left: &InDoubt) {
    let (name, age) = (&left.name, left.since.elapsed());
    let owner = left.owner.as_deref().unwrap_or("a role that is gone");
    let what = format!(
        "{name}, prepared {} ago by {owner}: {}",
        ago(age),
        left.outlook.state()
    );
    let why = left.outlook.why(name);
    let mend = match &left.outlook {
        Outlook::Open if age < UNDER_WAY => {
            return report.line(format!("  under way: {what}: {why}"));
        }
        Outlook::Commits | Outlook::RollsBack => format!(
            "{}; without one: presplit doctor --resolve",
            left.outlook.mend()
        ),
        Outlook::Open => holders(hosts, left).await,
        Outlook::HostUnknown => format!(
            "{}.\n         By hand, in that database: SELECT pg_try_advisory_xact_lock_shared({}); f: it is open, wait. t: SELECT 1 FROM \
             presplit.decision\n         WHERE name = '{}'; a row: presplit doctor --commit NAME; none: presplit doctor --rollback NAME",
            left.outlook.mend(),
            name.key(),
            name.to_string().replace('\'', "''")
        ),
        _ => left.outlook.mend().to_owned(),
    };
    report.must(&what, &format!("{why}\n         {mend}"));
}

/// Who keeps a transaction open, and how it is ended.
async fn holders(hosts: &Hosts, left: &InDoubt) -> String {
    let deciders = hosts
        .all
        .iter()
        .filter(|host| host.home() == Some(left.name.home));
    for host in deciders {
        if let Some((pid, words)) = host.holders(&left.name).await.first() {
            return format!(
                "server process {pid} on {} is its part ({words}). If its proxy is gone for good: SELECT pg_terminate_backend({pid}) \
                 there; it then ends as it is decided",
                at_host(host)
            );
        }
    }
    "it has ended by now; look again".to_owned()
}

fn rows(report: &mut Report, rows: &Rows) {
    if !rows.needed.is_empty() {
        report.line(format!(
            "  decision rows that are needed: {}",
            rows.needed.len()
        ));
    }
    if !rows.spent.is_empty() {
        report.line(format!(
            "  decision rows of no more use: {}, which a proxy that runs deletes within seconds",
            rows.spent.len()
        ));
    }
    for (name, why) in rows.unsure.iter().take(20) {
        report.line(format!(
            "  decision row that is kept, for it may be needed: {name}: {why}"
        ));
    }
    if rows.unsure.len() > 20 {
        report.line(format!("  and {} more such rows", rows.unsure.len() - 20));
    }
}
