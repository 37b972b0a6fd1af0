//! What a run of provisioning did, as data and in words.

use std::fmt;

use crate::ops::connect::said;

/// The most that is shown of a failing statement, in characters.
const SHOWN: usize = 300;

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Nothing was changed: `made` means "would be made".
    pub dry_run: bool,
    /// In the order of the map.
    pub hosts: Vec<HostReport>,
}

impl Report {
    /// Everything is as it should be.
    pub fn is_complete(&self) -> bool {
        self.hosts.iter().all(|host| host.failures.is_empty())
    }
}

/// One host's part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostReport {
    /// The host's name.
    pub name: String,
    /// What was made in `public`, by label.
    pub public_made: Vec<String>,
    /// What was there in `public`.
    pub public_there: Vec<String>,
    /// Shards that were made.
    pub shards_made: usize,
    /// Shards that lacked something, which they now have.
    pub shards_completed: usize,
    /// Shards that lacked nothing.
    pub shards_there: usize,
    /// Shards that were not begun because another had failed.
    pub shards_not_tried: usize,
    /// What went wrong. A shard that failed is as it was before.
    pub failures: Vec<Failure>,
}

impl HostReport {
    pub(super) fn new(name: &str) -> HostReport {
        HostReport {
            name: name.to_owned(),
            ..HostReport::default()
        }
    }

    pub(super) fn count(&mut self, new: bool) {
        match new {
            true => self.shards_made += 1,
            false => self.shards_completed += 1,
        }
    }
}

/// One thing that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The shard's schema, `public`, or what was being done.
    pub place: String,
    /// The statement, shortened; empty if it was none of the file's.
    pub sql: String,
    /// Postgres' own words.
    pub error: String,
}

impl Failure {
    pub(super) fn of(place: &str, error: &tokio_postgres::Error) -> Failure {
        Failure {
            place: place.to_owned(),
            sql: String::new(),
            error: said(error),
        }
    }

    pub(super) fn of_statement(
        place: &str,
        line: usize,
        sql: &str,
        error: &tokio_postgres::Error,
    ) -> Failure {
        let mut shown: String = sql.chars().take(SHOWN).collect();
        if shown.len() < sql.len() {
            shown.push_str(" ...");
        }
        Failure {
            place: place.to_owned(),
            sql: format!("line {line}: {shown}"),
            error: said(error),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made = if self.dry_run {
            "would be made"
        } else {
            "made"
        };
        let completed = if self.dry_run {
            "would be completed"
        } else {
            "completed"
        };
        for host in &self.hosts {
            write!(
                f,
                "host {}: shards: {} {made}, ",
                host.name, host.shards_made
            )?;
            if host.shards_completed > 0 {
                write!(f, "{} {completed}, ", host.shards_completed)?;
            }
            writeln!(f, "{} there already", host.shards_there)?;
            for (labels, word) in [
                (&host.public_made, made),
                (&host.public_there, "there already"),
            ] {
                if !labels.is_empty() {
                    writeln!(f, "  public: {} {word}", labels.join(", "))?;
                }
            }
            for failure in &host.failures {
                writeln!(
                    f,
                    "  FAILED in {}: {}",
                    failure.place,
                    failure.error.replace('\n', "\n  ")
                )?;
                if !failure.sql.is_empty() {
                    writeln!(f, "    {}", failure.sql.replace('\n', "\n    "))?;
                }
            }
            if host.shards_not_tried > 0 {
                writeln!(
                    f,
                    "  {} more shards not tried; mend the cause and run it again",
                    host.shards_not_tried
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_tells_made_there_and_failed() {
        let mut host = HostReport {
            shards_there: 2,
            shards_not_tried: 3,
            ..HostReport::new("a")
        };
        host.count(true);
        host.count(false);
        host.public_made.push("table countries".to_owned());
        host.failures.push(Failure {
            place: "shard_0007".to_owned(),
            sql: "line 4: CREATE x".to_owned(),
            error: "no (42601)".to_owned(),
        });
        let report = Report {
            dry_run: false,
            hosts: vec![host],
        };
        assert!(!report.is_complete());
        assert_eq!(
            report.to_string(),
            "host a: shards: 1 made, 1 completed, 2 there already\n  public: table countries made\n  \
             FAILED in shard_0007: no (42601)\n    line 4: CREATE x\n  3 more shards not tried; mend the cause and run it again\n"
        );
    }
}
