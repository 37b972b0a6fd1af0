//! The migrations of Django, Alembic and Rails, unmodified programs, from no tables at all to the demo's over two hosts and 16
//! shards. One that fails on its way leaves nothing anywhere.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use presplit::ops::provision::{self, Options};
use tokio_postgres::Client;

use crate::support::{Cluster, Hosts, Proxy, Seam, column, wait_until};

const SHARDS: u32 = 16;

/// What the map says of the apps' tables beside the demo's.
const TABLES: &str = "\"*\" = { host = \"a\" }
hearts = { key = \"user_id\" }
auth_user_groups = { host = \"a\" }
auth_user_user_permissions = { host = \"a\" }
";

/// All relations with their columns, constraints and indexes, and the number of rows of the tables that the programs write.
const CATALOG: &str = "
SELECT n.nspname || '.' || c.relname || ' ' || c.relkind::text || ' '
  || coalesce((SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull || ' '
       || coalesce(pg_get_expr(d.adbin, d.adrelid), ''), ', ' ORDER BY a.attnum) FROM pg_attribute a
       LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '') || ' '
  || coalesce((SELECT string_agg(conname || ' ' || pg_get_constraintdef(x.oid), ', ' ORDER BY conname) FROM pg_constraint x
       WHERE x.conrelid = c.oid), '') || ' '
  || coalesce((SELECT pg_get_indexdef(indexrelid) || indisvalid FROM pg_index WHERE indexrelid = c.oid), '')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (n.nspname = 'public' OR n.nspname LIKE 'shard\\_%') AND c.relname <> 'presplit_next_id' ORDER BY 1";

/// What is there on all hosts: relations, and the rows of all tables.
async fn everything(hosts: &Hosts) -> Vec<String> {
    let mut found = Vec::new();
    for i in 0..hosts.clusters.len() {
        let client = hosts.client(i).await;
        for line in column::<String>(&client, CATALOG).await {
            let (name, rest) = line.split_once(' ').unwrap();
            if rest.starts_with("r ") {
                let sql = format!(
                    "SELECT coalesce(string_agg(t::text, ' ' ORDER BY t::text), '') FROM {name} t"
                );
                let rows: String = client.query_one(&sql, &[]).await.unwrap().get(0);
                found.push(format!("{i} {name}: {rows}"));
            }
            found.push(format!("{i} {line}"));
        }
        let left = client
            .query_one("SELECT count(*) FROM pg_prepared_xacts", &[])
            .await
            .unwrap();
        assert_eq!(
            left.get::<_, i64>(0),
            0,
            "prepared transactions on host {i}"
        );
    }
    found
}

/// What every shard has: the same, or it panics.
fn of_shards(everything: &[String]) -> Vec<String> {
    let of = |shard: u32| -> Vec<String> {
        let schema = format!("shard_{shard:04}");
        let lines = everything.iter().filter(|line| {
            line.split_once(' ')
                .is_some_and(|(_, line)| line.starts_with(&schema))
        });
        let lines = lines.filter(|line| !line.contains(": "));
        lines.map(|line| line[2..].replace(&schema, "S")).collect()
    };
    let first = of(0);
    for shard in 1..SHARDS {
        assert_eq!(of(shard), first, "shard {shard}");
    }
    first
}

/// Hosts with shards in which there is no table yet.
async fn empty() -> Hosts {
    let hosts = Hosts::bare(2, SHARDS);
    hosts.write_map(
        &hosts
            .map_text(1, "")
            .replace("[tables]\n", &format!("[tables]\n{TABLES}")),
    );
    let report = provision::run(&hosts.map(), "", Options::default())
        .await
        .unwrap_or_else(|e| panic!("{e:#?}"));
    assert!(report.is_complete(), "{report}");
    hosts
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers")
}

/// How a program is called.
struct Tool {
    /// The interpreter and what stands before the program's own words.
    program: Vec<PathBuf>,
    dir: PathBuf,
}

impl Tool {
    fn python(dir: &str, program: &[&str]) -> Tool {
        let python = crate::drivers::drivers().join("venv/bin/python");
        Tool {
            program: std::iter::once(python)
                .chain(program.iter().map(PathBuf::from))
                .collect(),
            dir: sources().join(dir),
        }
    }

    fn ruby(dir: &str, program: &str) -> Tool {
        crate::drivers::drivers();
        Tool {
            program: vec!["ruby".into(), program.into()],
            dir: sources().join(dir),
        }
    }

    async fn output(&self, url: &str, words: &str) -> Output {
        tokio::process::Command::new(&self.program[0])
            .args(&self.program[1..])
            .args(words.split_whitespace())
            .current_dir(&self.dir)
            .env("DATABASE_URL", url)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .kill_on_drop(true)
            .output()
            .await
            .unwrap()
    }

    async fn run(&self, url: &str, words: &str) {
        let output = self.output(url, words).await;
        assert!(
            output.status.success(),
            "{:?} {words}: {}\n{}{}",
            self.program,
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Runs what must fail; what it says.
    async fn fail(&self, url: &str, words: &str) -> String {
        let output = self.output(url, words).await;
        assert!(!output.status.success(), "{words} did not fail");
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    }
}

/// What a tool does, in its own words.
struct Plan {
    tool: Tool,
    /// To the tables of all migrations, in steps.
    up: &'static [&'static str],
    /// Fails on its last operation.
    broken_second: &'static str,
    /// Fails in the one shard in which a user has two photos of one title.
    broken_shard: &'static str,
    /// Back to no tables.
    down: &'static str,
    /// Tables of the program's own on host a, which stay.
    own: &'static [&'static str],
}

async fn run(client: &Client, sql: &str) {
    client
        .batch_execute(sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
}

/// The same on one Postgres, which proves the program, and on the hosts.
async fn prove(plan: Plan) {
    let plain = Cluster::new();
    for step in plan.up {
        plan.tool.run(&plain.url(), step).await;
    }
    plan.tool.fail(&plain.url(), plan.broken_second).await;
    plan.tool.run(&plain.url(), plan.down).await;
    drop(plain);

    let hosts = empty().await;
    let mut proxy = Proxy::start(&hosts);
    proxy.wait_log(0, &["the tables are known"]);
    let url = proxy.url();
    let before = everything(&hosts).await;
    assert_eq!(of_shards(&before), Vec::<String>::new());
    for step in plan.up {
        plan.tool.run(&url, step).await;
        of_shards(&everything(&hosts).await);
    }
    let there = everything(&hosts).await;
    for part in [
        "0 shard_0000.users r",
        "1 shard_0015.photos r",
        "1 public.countries r",
        "1 public.invoices r",
    ] {
        assert!(
            there.iter().any(|line| line.starts_with(part)),
            "no {part} in {there:#?}"
        );
    }
    assert!(
        !there
            .iter()
            .any(|line| line.starts_with("0 public.invoices"))
    );
    // Each of the 32 users that a migration has made is in its own shard.
    for shard in 0..SHARDS {
        let client = hosts.client(hosts.owner(shard)).await;
        let sql = format!(
            "SELECT count(*), count(*) FILTER (WHERE id % {SHARDS} = {shard}) FROM shard_{shard:04}.users"
        );
        let row = client.query_one(&sql, &[]).await.unwrap();
        assert_eq!(
            (row.get::<_, i64>(0), row.get::<_, i64>(1)),
            (2, 2),
            "shard {shard}"
        );
    }
    let said = plan.tool.fail(&url, plan.broken_second).await;
    assert!(said.contains("no_such_type"), "{said}");
    assert_eq!(everything(&hosts).await, there);

    let client = proxy.client().await;
    run(
        &client,
        "UPDATE photos SET title = 'twice' WHERE user_id = 13",
    )
    .await;
    run(&hosts.client(1).await, "INSERT INTO shard_0013.photos SELECT (jsonb_populate_record(p, '{\"id\": 1}')).* FROM shard_0013.photos p WHERE user_id = 13").await;
    let there = everything(&hosts).await;
    let said = plan.tool.fail(&url, plan.broken_shard).await;
    assert!(
        said.contains("shard 13 (schema shard_0013) on host b"),
        "{said}"
    );
    assert_eq!(everything(&hosts).await, there);
    run(
        &hosts.client(1).await,
        "DELETE FROM shard_0013.photos WHERE id = 1",
    )
    .await;
    plan.tool.run(&url, plan.down).await;
    let after = everything(&hosts).await;
    let after: Vec<_> = after
        .iter()
        .filter(|line| {
            !plan
                .own
                .iter()
                .any(|own| line.starts_with(&format!("0 public.{own}")))
        })
        .collect();
    assert_eq!(after, before.iter().collect::<Vec<_>>());
    assert!(proxy.stop().success());
}

#[tokio::test]
async fn django() {
    prove(Plan {
        tool: Tool::python("django", &["manage.py"]),
        up: &[
            "migrate demo 0001",
            "migrate demo",
            "makemigrations demo --check",
        ],
        broken_second: "migrate broken_second",
        broken_shard: "migrate broken_shard",
        down: "migrate demo zero",
        own: &["django_", "auth_"],
    })
    .await;
}

#[tokio::test]
async fn alembic() {
    prove(Plan {
        tool: Tool::python("alembic", &["-m", "alembic"]),
        up: &[
            "upgrade 0001",
            "upgrade head",
            "downgrade 0002",
            "upgrade 0003",
        ],
        broken_second: "-c broken.ini upgrade second",
        broken_shard: "-c broken.ini upgrade shard",
        down: "downgrade base",
        own: &["alembic_version"],
    })
    .await;
}

#[tokio::test]
async fn rails() {
    prove(Plan {
        tool: Tool::ruby("rails", "migrate.rb"),
        up: &["to 1", "to 3", "to 2", "to 3"],
        broken_second: "up 4",
        broken_shard: "up 5",
        down: "to 0",
        own: &["schema_migrations", "ar_internal_metadata"],
    })
    .await;
}

/// Alembic runs all migrations in one transaction. A host is lost while it is committed, at this step.
async fn struck(step: &str, victim: usize) -> (Output, Vec<String>, Vec<String>) {
    let tool = Tool::python("alembic", &["-m", "alembic"]);
    let mut hosts = empty().await;
    let seam = Seam::new();
    let proxy = Proxy::with_seam(&hosts.map_file(), &seam);
    let (client, url) = (proxy.client().await, proxy.url());
    let before = everything(&hosts).await;
    tool.run(&url, "upgrade 0001").await;
    // A program that has begun reads what is there before it writes: only its own commit is to be stopped.
    let started = everything(&hosts).await;
    assert_ne!(started, before);
    seam.stop_at(step);
    let migrating = tokio::spawn(async move { tool.output(&url, "upgrade head").await });
    wait_until("it commits", || async {
        assert!(!migrating.is_finished());
        seam.is_reached(step, Duration::from_millis(10))
    })
    .await;
    hosts.clusters[victim].kill();
    seam.open();
    let output = migrating.await.unwrap();
    hosts.clusters[victim].start();
    drop(client);
    for i in 0..2 {
        let client = hosts.client(i).await;
        wait_until("nothing is prepared", || async {
            let sql = "SELECT count(*) FROM pg_prepared_xacts";
            client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
    }
    let after = everything(&hosts).await;
    (output, started, after)
}

#[tokio::test]
async fn a_host_lost_while_a_migration_is_committed() {
    // b decides: nothing of it stays anywhere.
    let (output, before, after) = struck("prepared", 1).await;
    assert!(!output.status.success());
    assert_eq!(after, before);
    // It is decided: a has it, too, once it is back.
    let (output, _, after) = struck("decided", 0).await;
    assert!(output.status.success(), "{output:?}");
    for part in ["0 shard_0000.hearts r", "1 shard_0015.hearts r"] {
        assert!(
            after.iter().any(|line| line.starts_with(part)),
            "{after:#?}"
        );
    }
    of_shards(&after);
    assert!(after.contains(&"0 public.alembic_version: (0003)".to_owned()));
}
