//! The sequences from which the proxy makes keys for rows that are inserted without one.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use tokio_postgres::Client;

use super::host::Host;
use crate::ops::connect::said;
use crate::shardmap::{Function, HostId, ShardMap};

/// Shards that are looked at in one query.
const AT_ONCE: usize = 128;

/// The sequence that counts the keys of a table, as it is named in a statement.
pub fn key_sequence(table: &str) -> String {
    format!("presplit.{}", quote(&format!("key_{table}")))
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Makes the sequences that are missing, above all keys that there are. For tables of the shards whose key column takes
/// its values from a sequence or from `next_id()`, unless the key itself carries the shard.
pub(super) async fn make(map: &ShardMap, hosts: &[Host]) -> Result<(), String> {
    if map.keyspace.function == Function::Embedded {
        return Ok(());
    }
    let client_of = |id: HostId| hosts.iter().find(|host| host.id == id).map(|h| &h.client);
    let (Some(template), Some(counter)) = (
        client_of(map.owner(map.template())),
        client_of(map.key_host()),
    ) else {
        return Ok(());
    };
    let failed = |e: tokio_postgres::Error| format!("making the sequences of keys: {}", said(&e));
    for (table, key) in counted(map, template).await.map_err(failed)? {
        let sequence = key_sequence(&table);
        let there = counter
            .query_one("SELECT to_regclass($1) IS NOT NULL", &[&sequence])
            .await
            .map_err(failed)?;
        if there.get(0) {
            continue;
        }
        let highest = hosts.iter().map(|host| highest(map, host, &table, &key));
        let highest = try_join_all(highest).await.map_err(failed)?;
        let start = highest.into_iter().flatten().max().unwrap_or(0).max(0) + 1;
        let sql = format!("CREATE SEQUENCE IF NOT EXISTS {sequence} START {start}");
        counter.batch_execute(&sql).await.map_err(failed)?;
    }
    Ok(())
}

/// The tables of the template shard whose keys are to be counted, and their key columns.
async fn counted(
    map: &ShardMap,
    client: &Client,
) -> Result<BTreeMap<String, String>, tokio_postgres::Error> {
    let schema = map.keyspace.schema.name(map.template());
    let rows = client
        .query(
            "SELECT c.relname::text, a.attname::text
             FROM pg_catalog.pg_attribute a
             JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
             WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
               AND a.atttypid IN (20, 21, 23) AND a.attgenerated = ''
               AND (a.attidentity = 'd' OR pg_catalog.pg_get_expr(d.adbin, d.adrelid) ~ '^nextval\\(|next_id\\(\\)$')",
            &[&schema],
        )
        .await?;
    let is_key = |table: &str, column: &str| {
        let own = map.tables.get(table).and_then(|rule| rule.key.as_deref());
        own.unwrap_or(&map.keyspace.key) == column
    };
    let named = rows.iter().map(|row| (row.get(0), row.get(1)));
    Ok(named
        .filter(|(table, column): &(String, String)| is_key(table, column))
        .collect())
}

/// The highest key of a table on one host.
async fn highest(
    map: &ShardMap,
    host: &Host,
    table: &str,
    key: &str,
) -> Result<Option<i64>, tokio_postgres::Error> {
    let shards: Vec<_> = map.shards_of(host.id).collect();
    let mut highest = None;
    for shards in shards.chunks(AT_ONCE) {
        let of_shard = |shard: &_| {
            format!(
                "SELECT max({})::int8 AS key FROM {}.{}",
                quote(key),
                map.schema(*shard),
                quote(table)
            )
        };
        let each: Vec<_> = shards.iter().map(of_shard).collect();
        let sql = format!("SELECT max(key) FROM ({}) k", each.join(" UNION ALL "));
        let row = host.client.query_one(&sql, &[]).await?;
        highest = highest.max(row.get::<_, Option<i64>>(0));
    }
    Ok(highest)
}
