//! Real drivers, unmodified: each program of `tests/drivers` goes through the steps of `steps.txt` against one plain Postgres,
//! which proves the program, and then, with a password, through the proxy over two hosts. Afterwards the hosts are asked, past
//! the proxy, where the rows are, and they must be those that the program left in the plain Postgres.
//!
//! `make drivers` installs and runs all of them. In `make test` one that is not installed is skipped, and that is said.

mod in_process;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use presplit::ops::demo::SCHEMA;
use presplit::ops::provision::{self, Options};
use tokio_postgres::Client;

use crate::support::{Cluster, Hosts, Proxy, column};

const SHARDS: u32 = 8;
const THINGS: &str = include_str!("drivers/things.sql");
const STEPS: &str = include_str!("drivers/steps.txt");
const PASSWORD: &str = "geheim-42";

/// The programs, as `tests/drivers/run.sh` knows them, and those that `make test` can't do without.
const PROGRAMS: [(&str, bool); 18] = [
    ("psql", true),
    ("libpq", false),
    ("psycopg3", true),
    ("psycopg2", true),
    ("asyncpg", true),
    ("sqlalchemy", true),
    ("django", true),
    ("node-postgres", true),
    ("postgres.js", true),
    ("tokio-postgres", true),
    ("sqlx", false),
    ("diesel", false),
    ("pgjdbc", false),
    ("pgx", false),
    ("lib-pq", false),
    ("ruby-pg", true),
    ("activerecord", true),
    ("php-pdo", false),
];
/// What a program exits with if its driver is not installed.
const NOT_HERE: i32 = 77;

/// Where the drivers are: made by `tests/drivers/setup.sh`, which does nothing when they are there.
pub fn drivers() -> &'static Path {
    static DRIVERS: OnceLock<PathBuf> = OnceLock::new();
    DRIVERS.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let drivers = root.join("target/drivers");
        let made = Command::new(root.join("tests/drivers/setup.sh"))
            .arg(&drivers)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "tests/drivers/setup.sh:\n{}{}",
            String::from_utf8_lossy(&made.stdout),
            String::from_utf8_lossy(&made.stderr)
        );
        drivers
    })
}

/// What a program said of its steps.
#[derive(Default)]
struct Said {
    version: String,
    passed: usize,
    none: Vec<String>,
    /// One that was not said counts as failed.
    failed: Vec<String>,
    seconds: f64,
}

impl Said {
    fn read(out: &str, took: Duration) -> Said {
        let mut said = Said {
            seconds: took.as_secs_f64(),
            ..Said::default()
        };
        let mut steps: Vec<&str> = STEPS
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|step| *step != "#")
            .collect();
        for line in out.lines() {
            let (how, rest) = line.split_once(' ').unwrap_or((line, ""));
            if how == "version" {
                rest.clone_into(&mut said.version);
                continue;
            }
            let step = rest.split([':', ' ']).next().unwrap_or("");
            match how {
                "ok" => said.passed += 1,
                "none" => said.none.push(rest.to_owned()),
                "fail" => said.failed.push(rest.to_owned()),
                _ => continue,
            }
            match steps.iter().position(|s| *s == step) {
                Some(i) => drop(steps.remove(i)),
                None if step == "also" => {}
                None => said
                    .failed
                    .push(format!("{step}: no step of this name is left")),
            }
        }
        said.failed
            .extend(steps.iter().map(|step| format!("{step}: not said")));
        said
    }
}

/// How a program went.
enum Run {
    /// Its driver is not installed: why.
    NotHere(String),
    Wrong(Said, String),
    Right(Said),
}

/// Runs one program to its end.
async fn run(program: &str, first: i64, url: &str) -> Run {
    if program == "tokio-postgres" {
        let said = in_process::run(first, &url.parse().unwrap()).await;
        return match said.failed.is_empty() {
            true => Run::Right(said),
            false => Run::Wrong(said, String::new()),
        };
    }
    let began = Instant::now();
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/run.sh");
    let mut command = tokio::process::Command::new(run);
    command
        .arg(program)
        .env("DATABASE_URL", url)
        .env("FIRST", first.to_string())
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let limit = Duration::from_secs(120);
    let Ok(output) = tokio::time::timeout(limit, command.output()).await else {
        let said = Said::read("", began.elapsed());
        return Run::Wrong(said, format!("it did not end within {limit:?}"));
    };
    let output = output.unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if output.status.code() == Some(NOT_HERE) {
        return Run::NotHere(err.trim().to_owned());
    }
    let said = Said::read(&out, began.elapsed());
    match output.status.success() && said.failed.is_empty() {
        true => Run::Right(said),
        false => Run::Wrong(said, format!("{}\n{out}{err}", output.status)),
    }
}

/// One Postgres with the same tables.
async fn plain() -> Cluster {
    let cluster = Cluster::new();
    let client = cluster.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    client.batch_execute(THINGS).await.unwrap();
    client.batch_execute(GERMANY).await.unwrap();
    cluster
}

const GERMANY: &str = "INSERT INTO countries (code, name) VALUES ('de', 'Germany')";

/// Two hosts of four shards; who comes to the proxy needs the password.
async fn hosts() -> Hosts {
    let hosts = Hosts::bare(2, SHARDS);
    for i in 0..2 {
        let client = hosts.client(i).await;
        client
            .batch_execute(&format!(
                "SET password_encryption = 'scram-sha-256'; CREATE ROLE tmp PASSWORD '{PASSWORD}'"
            ))
            .await
            .unwrap();
    }
    let client = hosts.client(0).await;
    let verifier = "SELECT rolpassword FROM pg_authid WHERE rolname = 'tmp'";
    let verifier: String = client.query_one(verifier, &[]).await.unwrap().get(0);
    let map = hosts.map_text(1, "").replace(
        "[users.app]\n",
        &format!("\"*\" = {{ host = \"a\" }}\n[users.app]\npassword = \"{verifier}\"\n"),
    );
    hosts.write_map(&map);
    let report = provision::run(
        &hosts.map(),
        &format!("{SCHEMA}{THINGS}"),
        Options::default(),
    )
    .await
    .unwrap_or_else(|e| panic!("{e:#?}"));
    assert!(report.is_complete(), "{report}");
    for i in 0..2 {
        hosts.client(i).await.batch_execute(GERMANY).await.unwrap();
    }
    hosts
}

/// The rows of users `first..first + 1000` in one schema, without what each server makes itself.
async fn rows_in(client: &Client, schema: &str, first: i64) -> Vec<String> {
    let last = first + 999;
    let sql = format!(
        "SELECT 'user ' || (to_jsonb(u) - 'created_at')::text FROM {schema}.users u WHERE id BETWEEN {first} AND {last}
         UNION ALL SELECT 'photo ' || (to_jsonb(p) - 'created_at' - 'id')::text FROM {schema}.photos p WHERE user_id BETWEEN {first} AND {last}
         UNION ALL SELECT 'thing ' || to_jsonb(t)::text FROM {schema}.things t WHERE user_id BETWEEN {first} AND {last}"
    );
    let mut rows = column(client, &sql).await;
    rows.sort();
    rows
}

/// Looks at the tables on the hosts: each row is in the schema of its user's shard, on the host that owns the shard, an id carries
/// the shard that it is in, and all together are those that the program left in one Postgres.
async fn in_place(hosts: &Hosts, first: i64, left: &[String]) -> Result<(), String> {
    let mut found = Vec::new();
    for shard in 0..hosts.shards {
        let client = hosts.client(hosts.owner(shard)).await;
        let (schema, shards) = (format!("shard_{shard:04}"), hosts.shards);
        let foreign = format!(
            "SELECT (SELECT count(*) FROM {schema}.users WHERE id % {shards} <> {shard})
                  + (SELECT count(*) FROM {schema}.things WHERE user_id % {shards} <> {shard})
                  + (SELECT count(*) FROM {schema}.photos WHERE user_id % {shards} <> {shard} OR (id >> 10) & 8191 <> {shard})"
        );
        let foreign: i64 = client.query_one(&foreign, &[]).await.unwrap().get(0);
        let here = rows_in(&client, &schema, first).await;
        if foreign != 0 {
            return Err(format!("{foreign} rows of other shards in {schema}"));
        }
        if !here.iter().any(|row| row.starts_with("user ")) {
            return Err(format!("nothing in {schema}: the program did not reach it"));
        }
        found.extend(here);
    }
    found.sort();
    if found != left {
        let only = |of: &[String], not: &[String]| -> Vec<String> {
            of.iter().filter(|r| !not.contains(r)).cloned().collect()
        };
        return Err(format!(
            "it leaves something else than in one Postgres ({} rows, not {}): {:?} instead of {:?}",
            found.len(),
            left.len(),
            only(&found, left),
            only(left, &found)
        ));
    }
    Ok(())
}

/// One program against one Postgres, then through the proxy.
async fn prove(
    program: &str,
    first: i64,
    plain: &Cluster,
    hosts: &Hosts,
    proxy: &Proxy,
) -> Result<Run, String> {
    match run(program, first, &plain.url()).await {
        Run::Right(_) => {}
        Run::Wrong(said, text) => {
            let failed = said.failed;
            return Err(format!("{program} on one Postgres: {failed:#?} {text}"));
        }
        not_here => return Ok(not_here),
    }
    let left = rows_in(&plain.client().await, "public", first).await;
    let url = proxy.url().replace("app@", &format!("app:{PASSWORD}@"));
    let run = run(program, first, &url).await;
    if let Run::Right(_) = run {
        let in_place = in_place(hosts, first, &left).await;
        in_place.map_err(|why| format!("{program}: {why}"))?;
    }
    Ok(run)
}

/// `DRIVERS`: names of programs, or `all`, which then must be there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_driver_goes_through_all_steps() {
    drivers();
    let wanted = std::env::var("DRIVERS").unwrap_or_default();
    let named = |name: &str| wanted.split_whitespace().any(|w| w == name || w == "all");
    let (plain, hosts) = (plain().await, hosts().await);
    let mut proxy = Proxy::start(&hosts);
    proxy.wait_log(0, &["the tables are known"]);
    let runs = PROGRAMS
        .iter()
        .enumerate()
        .filter(|(_, (name, _))| wanted.is_empty() || named(name))
        .map(|(n, (name, needed))| {
            let (plain, hosts, proxy) = (&plain, &hosts, &proxy);
            async move {
                let first = 1000 * (n as i64 + 1);
                let run = prove(name, first, plain, hosts, proxy).await;
                (*name, *needed, run)
            }
        });
    let runs: Vec<_> = futures_util::stream::iter(runs).buffered(2).collect().await;
    let (mut table, mut faults) = (String::new(), Vec::new());
    let mut line = |text: String| table.push_str(&(text + "\n"));
    line(format!(
        "{:16}{:40}{:>7}{:>7}{:>7}{:>9}",
        "driver", "version", "passed", "failed", "none", "seconds"
    ));
    for (name, needed, run) in runs {
        let needed = needed || named(name);
        let said = match run {
            Ok(Run::NotHere(why)) => {
                line(format!("{name:16}SKIPPED, not installed: {why}"));
                if needed {
                    faults.push(format!("{name} is not installed: {why}"));
                }
                continue;
            }
            Ok(Run::Right(said)) => said,
            Ok(Run::Wrong(said, text)) => {
                faults.push(format!("{name}: {:#?}\n{text}", said.failed));
                said
            }
            Err(why) => {
                line(format!("{name:16}FAILED: {why}"));
                faults.push(why);
                continue;
            }
        };
        line(format!(
            "{name:16}{:40}{:>7}{:>7}{:>7}{:>9.1}",
            said.version,
            said.passed,
            said.failed.len(),
            said.none.len(),
            said.seconds
        ));
        for none in said.none {
            line(format!("{:16}none {none}", ""));
        }
    }
    // Past what captures the output of tests: what is skipped is to be seen.
    let _ = std::io::stderr().write_all(table.as_bytes());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(proxy.stop().success());
}
