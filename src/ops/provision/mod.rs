//! `presplit provision`: makes the shards' schemas and the app's tables on every host, from one SQL file.
//!
//! 1. Read and place the file's statements.
//! 2. Reach every host, and see that no shard is open on another host than the map says.
//! 3. Run the file once in a transaction that is rolled back, to learn what each statement makes.
//! 4. On all hosts at once: what belongs to `public`, then the shards, each in one transaction, several side by side.
//! 5. Make the sequences from which keys are made.
//!
//! Until step 4 nothing is changed. What is there already stays as it is, so a run can be repeated and goes on where
//! another was cut off.

mod host;
mod keys;
mod lesson;
mod next_id;
mod objects;
mod progress;
mod report;
pub mod schema_file;

use futures_util::future::{join_all, try_join_all};

pub use keys::key_sequence;
pub use report::{Failure, HostReport, Report};

use crate::shardmap::{HostId, ShardMap};
use host::Work;
use lesson::Lesson;
use progress::Progress;

/// How a run is done.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Shards made side by side on each host, each over a connection of its own. At least 1.
    pub jobs: usize,
    /// Say what would be done, and change nothing.
    pub dry_run: bool,
    /// Show progress on standard error.
    pub progress: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            jobs: 4,
            dry_run: false,
            progress: false,
        }
    }
}

/// Provisions all hosts of the map with the tables of `sql`. `Err` holds the faults for which nothing was begun, a line
/// or more each; what went wrong on a host later stands in its report.
pub async fn run(map: &ShardMap, sql: &str, options: Options) -> Result<Report, Vec<String>> {
    let statements = schema_file::read(sql, &map.tables)?;
    let ids = (0..map.hosts.len() as u16).map(HostId);
    let opened = join_all(ids.map(|id| host::open(map, id, options.dry_run))).await;
    let (mut hosts, mut faults) = (Vec::new(), Vec::new());
    for result in opened {
        match result {
            Ok(host) => hosts.push(host),
            Err(why) => faults.push(why),
        }
    }
    if !faults.is_empty() {
        faults.push("nothing was changed: all hosts must be reached, lest a shard be made that is open elsewhere".to_owned());
        return Err(faults);
    }
    host::check_owners(map, &hosts)?;
    let first = hosts
        .first()
        .ok_or_else(|| vec!["the map has no host".to_owned()])?;
    let lesson = Lesson::learn(&first.client, map, &statements).await?;
    try_join_all(
        hosts
            .iter()
            .map(|host| host.check_names(&lesson, &statements)),
    )
    .await?;

    let progress = Progress::new(options.progress);
    let work = Work {
        map,
        statements: &statements,
        lesson: &lesson,
        options,
    };
    let reports = join_all(hosts.iter().map(|host| work.host(host, &progress))).await;
    let report = Report {
        dry_run: options.dry_run,
        hosts: reports,
    };
    if !options.dry_run && report.is_complete() {
        keys::make(map, &hosts).await.map_err(|why| vec![why])?;
    }
    Ok(report)
}
