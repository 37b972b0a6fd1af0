//! COPY of sharded tables: the same data goes to one Postgres and through the proxy; answers and rows must be the same,
//! each row in its own shard.

mod input;
mod output;
mod random;
mod refused;

use std::net::SocketAddr;

use presplit::ops::demo::SCHEMA;
use tokio::sync::OnceCell;

use crate::support::raw::{difference, frame, or_panic};
use crate::support::{Cluster, Hosts, Proxy, Raw, column};

const SHARDS: u32 = 8;

/// More tables, in every shard and in the one Postgres.
const TABLES: &str = "
CREATE TABLE notes (before text, user_id bigint NOT NULL, n int, after text);
CREATE TABLE made (twice bigint GENERATED ALWAYS AS (n * 2) STORED, n int, user_id bigint);
CREATE TABLE small (user_id smallint PRIMARY KEY, \"odd name\" text);
";

struct Twins {
    one: Hosts,
    two: Hosts,
    plain: Cluster,
}

async fn provisioned(hosts: usize) -> Hosts {
    let hosts = Hosts::provisioned(hosts, SHARDS).await;
    for shard in 0..SHARDS {
        let client = hosts.client(hosts.owner(shard)).await;
        let sql = format!("SET search_path TO shard_{shard:04}; {TABLES}");
        client.batch_execute(&sql).await.unwrap();
    }
    hosts
}

async fn twins() -> &'static Twins {
    static TWINS: OnceCell<Twins> = OnceCell::const_new();
    TWINS
        .get_or_init(|| async {
            let plain = Cluster::new();
            let direct = plain.client().await;
            direct.batch_execute(SCHEMA).await.unwrap();
            direct.batch_execute(TABLES).await.unwrap();
            Twins {
                one: provisioned(1).await,
                two: provisioned(2).await,
                plain,
            }
        })
        .await
}

impl Twins {
    fn plain(&self) -> SocketAddr {
        self.plain.addr()
    }
}

/// Tests that write the same tables wait for each other.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Every row of a table, sorted, as text; past the proxy. Panics if one is in a shard that is not its own.
async fn rows_of(hosts: &Hosts, table: &str) -> Vec<String> {
    let mut rows = Vec::new();
    for i in 0..hosts.clusters.len() {
        let of_shard = |shard: u32| {
            format!(
                "SELECT t::text, mod(mod(user_id, {SHARDS}) + {SHARDS}, {SHARDS})::int, {shard}::int FROM shard_{shard:04}.{table} t"
            )
        };
        let shards = (0..SHARDS).filter(|shard| hosts.owner(*shard) == i);
        let sql: Vec<String> = shards.map(of_shard).collect();
        let client = hosts.client(i).await;
        for row in client.query(&sql.join(" UNION ALL "), &[]).await.unwrap() {
            let (text, own, shard): (String, i32, i32) = (row.get(0), row.get(1), row.get(2));
            assert_eq!(own, shard, "{text}");
            rows.push(text);
        }
    }
    rows.sort();
    rows
}

async fn rows_of_plain(plain: &Cluster, table: &str) -> Vec<String> {
    let sql = format!("SELECT t::text FROM {table} t");
    let mut rows = column(&plain.client().await, &sql).await;
    rows.sort();
    rows
}

async fn empty(twins: &Twins, table: &str) {
    let truncate = format!("DELETE FROM {table}");
    twins
        .plain
        .client()
        .await
        .batch_execute(&truncate)
        .await
        .unwrap();
    for hosts in [&twins.one, &twins.two] {
        for i in 0..hosts.clusters.len() {
            let shards = (0..SHARDS).filter(|shard| hosts.owner(*shard) == i);
            let sql: Vec<String> = shards
                .map(|shard| format!("DELETE FROM shard_{shard:04}.{table};"))
                .collect();
            hosts
                .client(i)
                .await
                .batch_execute(&sql.concat())
                .await
                .unwrap();
        }
    }
}

fn cd(data: &[u8]) -> Vec<u8> {
    frame(b'd', data)
}

fn cut(data: &[u8], pieces: usize) -> Vec<u8> {
    let size = data.len().div_ceil(pieces).max(1);
    data.chunks(size).map(cd).collect::<Vec<_>>().concat()
}

fn converse(addr: SocketAddr, bytes: &[u8], ready: usize) -> Vec<String> {
    or_panic(|| {
        let mut raw = Raw::connect(addr);
        raw.show_context = true;
        raw.ask(bytes, ready)
    })
}

/// The answers to both must be the same, and then the rows of `table`, which is empty before and behind.
async fn compare(
    table: &str,
    name: &str,
    bytes: &[u8],
    ready: usize,
    (hosts, proxy): (&Hosts, &Proxy),
    faults: &mut Vec<String>,
) {
    let twins = twins().await;
    let (expected, got) = (
        converse(twins.plain(), bytes, ready),
        converse(proxy.addr(), bytes, ready),
    );
    faults.extend(difference(name, &expected, &got));
    let copied = |line: &String| line.starts_with("C COPY ") && line != "C COPY 0";
    if !expected.iter().chain(&got).any(copied) {
        return;
    }
    let (expected, got) = (
        rows_of_plain(&twins.plain, table).await,
        rows_of(hosts, table).await,
    );
    faults.extend(difference(&format!("rows of {name}"), &expected, &got));
    empty(twins, table).await;
}

/// One conversation with the proxy alone.
fn talk(proxy: &Proxy, bytes: &[u8], ready: usize) -> String {
    converse(proxy.addr(), bytes, ready).join("\n")
}
