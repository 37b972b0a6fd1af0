//! One host's part of provisioning: what stands in its `public`, then its shards, several side by side.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use futures_util::future::join_all;
use tokio_postgres::{Client, Config};

use super::Options;
use super::lesson::{Lesson, NEXT_ID, Step};
use super::objects::{self, Objects};
use super::progress::{Bar, Progress};
use super::report::{Failure, HostReport};
use super::schema_file::Statement;
use crate::ops::connect::{config, connect, said};
use crate::ops::recovery::make_table;
use crate::shardmap::{HostId, ShardId, ShardMap};

/// Advisory locks: one run at a time on a host, and a run waits for what a killed one still has under way. The letters
/// `prov`, and 1 or 2.
const LOCK: i32 = 0x7072_6f76;
/// A server process keeps what it learns of every table that it touches; after this many shards it is given up for a new one.
const SHARDS_PER_CONNECTION: usize = 64;

/// Notices ("does not exist, skipping") are noise.
const QUIET: &str = "SET client_min_messages = warning";

const SHARD_TABLE: &str = "CREATE SCHEMA IF NOT EXISTS presplit;
CREATE TABLE IF NOT EXISTS presplit.shard (shard int PRIMARY KEY, epoch bigint NOT NULL, state text NOT NULL, peer text)";

/// A host that was reached, and what it holds of shards.
pub(super) struct Host {
    pub(super) id: HostId,
    name: String,
    config: Config,
    /// Holds the lock of the run as long as it lives.
    pub(super) client: Client,
    /// The shards that are open here by `presplit.shard`.
    open: HashSet<u32>,
}

/// Connects to a host, makes sure that no other run is at work there, and reads which shards are open.
pub(super) async fn open(map: &ShardMap, id: HostId, dry_run: bool) -> Result<Host, String> {
    let host = map.host(id);
    let config = config(&host.url, "presplit provision");
    let client = connect(&config)
        .await
        .map_err(|why| format!("host {}: {why}", host.name))?;
    let open = read_open(&client, dry_run)
        .await
        .map_err(|why| format!("host {}: {why}", host.name))?;
    Ok(Host {
        id,
        name: host.name.clone(),
        config,
        client,
        open,
    })
}

async fn read_open(client: &Client, dry_run: bool) -> Result<HashSet<u32>, String> {
    let query = |e: tokio_postgres::Error| said(&e);
    client.batch_execute(QUIET).await.map_err(query)?;
    if !dry_run {
        // One that has just ended may hold it until the host sees its connection closed.
        client
            .batch_execute("SET lock_timeout = '5s'")
            .await
            .map_err(query)?;
        let locked = client
            .execute("SELECT pg_advisory_lock($1, 1)", &[&LOCK])
            .await;
        if let Err(fault) = locked {
            if fault.code() != Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE) {
                return Err(said(&fault));
            }
            return Err("another presplit provision is at work here; let it end".to_owned());
        }
        client
            .batch_execute("RESET lock_timeout")
            .await
            .map_err(query)?;
        // Transactions of a run that was killed may still be ending.
        client
            .batch_execute(&format!(
                "SELECT pg_advisory_lock({LOCK}, 2); SELECT pg_advisory_unlock({LOCK}, 2)"
            ))
            .await
            .map_err(query)?;
    }
    let there = client
        .query_one("SELECT to_regclass('presplit.shard') IS NOT NULL", &[])
        .await
        .map_err(query)?;
    if !there.get::<_, bool>(0) {
        return Ok(HashSet::new());
    }
    let rows = client
        .query("SELECT shard FROM presplit.shard WHERE state = 'open'", &[])
        .await
        .map_err(query)?;
    Ok(rows.iter().map(|row| row.get::<_, i32>(0) as u32).collect())
}

/// A shard that is open on one host must not be made on another: an empty one would hide its rows.
pub(super) fn check_owners(map: &ShardMap, hosts: &[Host]) -> Result<(), Vec<String>> {
    let mut faults = Vec::new();
    for host in hosts {
        let mut strays: Vec<u32> = host
            .open
            .iter()
            .copied()
            .filter(|s| *s < map.shards() && map.owner(ShardId(*s)) != host.id)
            .collect();
        strays.sort_unstable();
        if let Some(first) = strays.first() {
            let owner = &map.host(map.owner(ShardId(*first))).name;
            faults.push(format!(
                "{} of the map's shards are open on host {} while the map gives them to another (shard {first} to {owner}): \
                 provisioning them there would hide their rows; give them back to {} in [map]",
                strays.len(),
                host.name,
                host.name,
            ));
        }
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults)
    }
}

impl Host {
    /// A name that is in the shards and in `public` would fall through to the wrong table silently.
    pub(super) async fn check_names(
        &self,
        lesson: &Lesson,
        statements: &[Statement],
    ) -> Result<(), Vec<String>> {
        let public = objects::of_schema(&self.client, "public")
            .await
            .map_err(|e| vec![format!("host {}: {}", self.name, said(&e))])?;
        let clash = |name: &&str| {
            public.contains(&format!("relation {name}"))
                || public.contains(&format!("sequence {name}"))
        };
        let mut names: Vec<&str> = lesson.shard_relations(statements).filter(clash).collect();
        names.sort_unstable();
        if names.is_empty() {
            return Ok(());
        }
        Err(vec![format!(
            "host {}: {} would be in every shard and is in public too: a statement could reach the wrong one; \
             move or drop it in public, or list it in [tables] if it is a reference table or stands on one host",
            self.name,
            names.join(", ")
        )])
    }
}

/// What is to be done on every host.
pub(super) struct Work<'w> {
    pub(super) map: &'w ShardMap,
    pub(super) statements: &'w [Statement],
    pub(super) lesson: &'w Lesson,
    pub(super) options: Options,
}

/// A shard that lacks something.
struct Job {
    shard: ShardId,
    /// By statement: to be run.
    run: Vec<bool>,
    with_next_id: bool,
    /// Its schema held nothing of the file.
    new: bool,
}

impl Work<'_> {
    /// Does one host's part; what goes wrong stands in the report.
    pub(super) async fn host(&self, host: &Host, progress: &Progress) -> HostReport {
        let mut report = HostReport::new(&host.name);
        if let Err(failure) = self.steps(host, progress, &mut report).await {
            report.failures.push(failure);
        }
        report
    }

    async fn steps(
        &self,
        host: &Host,
        progress: &Progress,
        report: &mut HostReport,
    ) -> Result<(), Failure> {
        let reading = |e: tokio_postgres::Error| Failure::of("reading the catalog", &e);
        let public = objects::of_schema(&host.client, "public")
            .await
            .map_err(reading)?;
        let run = self
            .lesson
            .missing(|i| self.statements[i].place.public_of(&host.name), &public);
        for (i, statement) in self
            .statements
            .iter()
            .enumerate()
            .filter(|(_, s)| s.place.public_of(&host.name))
        {
            if run[i] {
                report.public_made.push(statement.label.clone());
            } else if !self.lesson.effect(i).objects.is_empty() {
                report.public_there.push(statement.label.clone());
            }
        }
        if !self.options.dry_run {
            let made = self.make_public(host, &run).await;
            made.inspect_err(|_| report.public_made.clear())?;
        }
        let jobs = self.jobs(host, report).await.map_err(reading)?;
        if self.options.dry_run {
            for job in &jobs {
                report.count(job.new);
            }
            return Ok(());
        }
        let bar = progress.host(&host.name, jobs.len() as u64);
        self.make_shards(host, jobs, report, &bar).await;
        bar.finish();
        // The shards' commits did not wait for the disk; this one does, and so all before it are safe when it returns.
        let flush = "SET synchronous_commit = on; UPDATE presplit.shard SET epoch = epoch WHERE shard = (SELECT min(shard) FROM presplit.shard)";
        if report.shards_made + report.shards_completed > 0 {
            host.client
                .batch_execute(flush)
                .await
                .map_err(|e| Failure::of("flushing", &e))?;
        }
        Ok(())
    }

    async fn make_public(&self, host: &Host, run: &[bool]) -> Result<(), Failure> {
        let making = |e: tokio_postgres::Error| Failure::of("making presplit.decision", &e);
        if let Some(lack) = make_table(&host.client).await.map_err(making)? {
            return Err(Failure {
                place: "making presplit.decision".to_owned(),
                sql: String::new(),
                error: format!("{}\nto mend it: {}", lack.why, lack.mend),
            });
        }
        let begin = format!("BEGIN; SET LOCAL search_path = public; {SHARD_TABLE}");
        host.client
            .batch_execute(&begin)
            .await
            .map_err(|e| Failure::of("making presplit.shard", &e))?;
        for (statement, _) in self.statements.iter().zip(run).filter(|(_, run)| **run) {
            if let Err(error) = host.client.batch_execute(&statement.text).await {
                let _ = host.client.batch_execute("ROLLBACK").await;
                return Err(Failure::of_statement(
                    "public",
                    statement.line,
                    &statement.text,
                    &error,
                ));
            }
        }
        host.client
            .batch_execute("COMMIT")
            .await
            .map_err(|e| Failure::of("public", &e))
    }

    /// The host's shards that lack something; those that lack nothing are counted in the report.
    async fn jobs(
        &self,
        host: &Host,
        report: &mut HostReport,
    ) -> Result<Vec<Job>, tokio_postgres::Error> {
        let shards: Vec<ShardId> = self.map.shards_of(host.id).collect();
        let schemas: Vec<String> = shards
            .iter()
            .map(|s| self.map.keyspace.schema.name(*s))
            .collect();
        let telling = self.lesson.telling_objects();
        let found = objects::of_schemas(&host.client, &schemas, Some(&telling)).await?;
        let nothing = Objects::new();
        let mut known: HashMap<Vec<&String>, Vec<bool>> = HashMap::new();
        let mut jobs = Vec::new();
        for (shard, schema) in shards.into_iter().zip(&schemas) {
            let there = found.get(schema).unwrap_or(&nothing);
            // Nearly all shards hold the same: the same question is answered once.
            let mut key: Vec<&String> = there.iter().collect();
            key.sort_unstable();
            let run = known
                .entry(key)
                .or_insert_with(|| {
                    self.lesson
                        .missing(|i| self.statements[i].place.shards, there)
                })
                .clone();
            let with_next_id = !there.contains(NEXT_ID);
            if with_next_id || run.contains(&true) || !host.open.contains(&shard.0) {
                jobs.push(Job {
                    shard,
                    run,
                    with_next_id,
                    new: there.is_empty(),
                });
            } else {
                report.shards_there += 1;
            }
        }
        Ok(jobs)
    }

    async fn make_shards(&self, host: &Host, jobs: Vec<Job>, report: &mut HostReport, bar: &Bar) {
        let state = Mutex::new((jobs.into_iter(), report));
        let worker = || async {
            let mut client = None;
            for done in 0.. {
                // After the first failure no shard is begun: the next ones would most likely fail alike.
                let next = {
                    let mut state = state.lock().unwrap_or_else(|e| e.into_inner());
                    if state.1.failures.is_empty() {
                        state.0.next()
                    } else {
                        None
                    }
                };
                let Some(job) = next else { break };
                let made = self
                    .make_shard(host, &mut client, &job, done % SHARDS_PER_CONNECTION == 0)
                    .await;
                let mut state = state.lock().unwrap_or_else(|e| e.into_inner());
                match made {
                    Ok(()) => state.1.count(job.new),
                    Err(failure) => {
                        state.1.failures.push(failure);
                        state.1.shards_not_tried = state.0.len();
                    }
                }
                bar.advance();
            }
        };
        join_all((0..self.options.jobs.max(1)).map(|_| worker())).await;
    }

    async fn make_shard(
        &self,
        host: &Host,
        client: &mut Option<Client>,
        job: &Job,
        fresh: bool,
    ) -> Result<(), Failure> {
        let name = self.map.keyspace.schema.name(job.shard);
        if fresh {
            *client = None;
        }
        let client = match client {
            Some(client) => client,
            None => {
                client.insert(
                    worker_connection(&host.config)
                        .await
                        .map_err(|why| Failure {
                            place: name.clone(),
                            sql: String::new(),
                            error: why,
                        })?,
                )
            }
        };
        let schema = self.map.schema(job.shard);
        let script = self.lesson.shard_script(
            self.statements,
            &job.run,
            schema,
            job.shard,
            job.with_next_id,
        );
        let Err(error) = client.batch_execute(&script).await else {
            return Ok(());
        };
        let _ = client.batch_execute("ROLLBACK").await;
        Err(self
            .find_failure(client, job, schema, &name)
            .await
            .unwrap_or_else(|| Failure::of(&name, &error)))
    }

    /// Runs a failed shard's statements one by one to name the one that fails; rolled back in any case.
    async fn find_failure(
        &self,
        client: &Client,
        job: &Job,
        schema: &str,
        name: &str,
    ) -> Option<Failure> {
        let begin = self
            .lesson
            .shard_script(&[], &[], schema, job.shard, job.with_next_id);
        client
            .batch_execute(begin.trim_end_matches("COMMIT"))
            .await
            .ok()?;
        let mut failure = None;
        for Step { line, sql, .. } in self.lesson.shard_steps(self.statements, &job.run, schema) {
            if let Err(error) = client.batch_execute(&sql).await {
                failure = Some(Failure::of_statement(name, line, &sql, &error));
                break;
            }
        }
        let _ = client.batch_execute("ROLLBACK").await;
        failure
    }
}

async fn worker_connection(config: &Config) -> Result<Client, String> {
    let client = connect(config).await?;
    // Shared, for the life of the connection: a later run waits for it.
    let setup =
        format!("{QUIET}; SET synchronous_commit = off; SELECT pg_advisory_lock_shared({LOCK}, 2)");
    client.batch_execute(&setup).await.map_err(|e| said(&e))?;
    Ok(client)
}
