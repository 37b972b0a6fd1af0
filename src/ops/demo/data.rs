//! A little data for the demo, written to the hosts directly: each user's rows into the user's shard.

use crate::ops::connect::{config, connect, said};
use crate::shardmap::{KeyValue, ShardMap};
use tokio_postgres::Client;

const COUNTRIES: &str = "INSERT INTO public.countries (code, name) VALUES
    ('at', 'Austria'), ('br', 'Brazil'), ('jp', 'Japan'), ('ke', 'Kenya'), ('us', 'United States')";

pub(super) const NAMES: [&str; 24] = [
    "ada", "bao", "cem", "dora", "emil", "fay", "gil", "hana", "igor", "june", "kofi", "lena",
    "milo", "nora", "otto", "pia", "quin", "rosa", "sven", "tara", "uma", "vito", "wren", "yuri",
];

/// Fills hosts that were just provisioned with the demo's tables.
pub(super) async fn load(map: &ShardMap) -> Result<(), String> {
    let mut clients = Vec::new();
    for host in &map.hosts {
        let client = connect(&config(&host.url, "presplit demo")).await?;
        client
            .batch_execute(COUNTRIES)
            .await
            .map_err(|e| said(&e))?;
        clients.push(client);
    }
    let mut photos = Vec::new();
    for user in users() {
        let (client, schema) = place(map, &clients, user)?;
        photos.extend(
            make_user(client, schema, user)
                .await
                .map_err(|e| said(&e))?,
        );
    }
    for user in users() {
        let (client, schema) = place(map, &clients, user)?;
        // Each follows three others and likes what they show.
        let mut sql = String::new();
        for step in [1, 5, 9] {
            let other = 1 + (user - 1 + step) % NAMES.len() as i64;
            sql.push_str(&format!(
                "INSERT INTO {schema}.follows (source_id, target_id) VALUES ({user}, {other});"
            ));
            for (_, photo) in photos.iter().filter(|(owner, _)| *owner == other) {
                sql.push_str(&format!(
                    "INSERT INTO {schema}.likes (user_id, photo_id) VALUES ({user}, {photo});"
                ));
            }
        }
        client.batch_execute(&sql).await.map_err(|e| said(&e))?;
    }
    let billing = map
        .tables
        .get("invoices")
        .and_then(|rule| map.host_named(rule.host.as_deref()?));
    if let Some(host) = billing {
        let sql = "INSERT INTO public.invoices (user_id, cents) SELECT u, 500 + 37 * u FROM generate_series(1, 24) u WHERE u % 3 = 0";
        clients[usize::from(host.0)]
            .batch_execute(sql)
            .await
            .map_err(|e| said(&e))?;
    }
    Ok(())
}

fn users() -> impl Iterator<Item = i64> {
    1..=NAMES.len() as i64
}

fn place<'m>(
    map: &'m ShardMap,
    clients: &'m [Client],
    user: i64,
) -> Result<(&'m Client, &'m str), String> {
    let shard = map
        .shard_of_key(&KeyValue::Int(user))
        .map_err(|fault| format!("user {user}: {fault:?}"))?;
    Ok((&clients[usize::from(map.owner(shard).0)], map.schema(shard)))
}

/// One user with two photos; returns these as (user, photo id).
async fn make_user(
    client: &Client,
    schema: &str,
    user: i64,
) -> Result<Vec<(i64, i64)>, tokio_postgres::Error> {
    let name = NAMES[(user - 1) as usize];
    client
        .batch_execute(&format!(
            "INSERT INTO {schema}.users (id, name, country)
             VALUES ({user}, '{name}', (ARRAY['at', 'br', 'jp', 'ke', 'us'])[1 + {user} % 5])"
        ))
        .await?;
    let insert = format!(
        "INSERT INTO {schema}.photos (user_id, caption) VALUES ({user}, '{name} at the sea'), ({user}, '{name} at home') RETURNING id"
    );
    Ok(client
        .query(&insert, &[])
        .await?
        .iter()
        .map(|row| (user, row.get(0)))
        .collect())
}
