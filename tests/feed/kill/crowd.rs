//! Feeds of the crowd, evenly all over it, so that a push to very many, wherever it is cut off, is cut off among feeds that are there. They are built as the service builds them: begun, then Postgres is read, then completed.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use presplit::feed::store::{RedisStore, Store};
use presplit::feed::{FEED_MOST, MediaId, UserId};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tokio_postgres::NoTls;

use super::clients::Book;
use super::world::{BIG, CROWD, SHARDS};

/// Feeds at most.
const FEEDS: i64 = 20_000;
/// Feeds that are built together.
const BLOCK: usize = 500;

pub struct Crowd {
    pub store: RedisStore,
    /// Of [`BIG`]'s host, past the proxy.
    config: tokio_postgres::Config,
    users: Vec<UserId>,
}

impl Crowd {
    pub fn new(store: RedisStore, config: tokio_postgres::Config, crowd: i64) -> Crowd {
        let apart = (crowd - 1) as usize / FEEDS as usize + 1;
        let users = (CROWD..CROWD + crowd).step_by(apart).collect();
        Crowd {
            store,
            config,
            users,
        }
    }

    /// Builds block after block, until it is over. What fails is built the next time.
    pub async fn build(&self, book: &Book, mut rng: StdRng) {
        let mut blocks: Vec<&[UserId]> = self.users.chunks(BLOCK).collect();
        while !book.is_over() {
            blocks.shuffle(&mut rng);
            for block in &blocks {
                if book.is_over() {
                    return;
                }
                let what = match self.block(block).await {
                    Some(n) if n > 0 => "crowd's block built",
                    Some(_) => "crowd's block there",
                    None => "crowd's block not built",
                };
                book.count(what);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// How many of the block were absent. `None`: it can't be built now.
    async fn block(&self, users: &[UserId]) -> Option<usize> {
        let begin = |user| async move {
            if self
                .store
                .dump(user)
                .await
                .ok()?
                .is_some_and(|d| d.complete)
            {
                return None;
            }
            Some((user, self.store.begin(user).await.ok()?))
        };
        let begun: Vec<_> = stream::iter(users.iter().copied())
            .map(begin)
            .buffered(50)
            .filter_map(std::future::ready)
            .collect()
            .await;
        if begun.is_empty() {
            return Some(0);
        }
        let (client, connection) = self.config.connect(NoTls).await.ok()?;
        tokio::spawn(connection);
        let schema = BIG % i64::from(SHARDS);
        let sql = format!(
            "SELECT id FROM shard_{schema:04}.media WHERE user_id = {BIG} AND deleted_at IS NULL ORDER BY id DESC LIMIT {FEED_MOST}"
        );
        let rows = client.query(&sql, &[]).await.ok()?;
        let ids: Vec<MediaId> = rows.iter().map(|row| row.get(0)).collect();
        let n = begun.len();
        let ids = &ids;
        let complete = |(user, building)| async move {
            // Another may have it, or Redis may have lost it.
            let _ = self.store.complete(user, &building, ids).await;
        };
        stream::iter(begun)
            .map(complete)
            .buffered(50)
            .for_each(std::future::ready)
            .await;
        Some(n)
    }

    /// Those that are there must be what [`BIG`] has posted: how many are, and what is wrong.
    pub async fn compare(&self, expected: &[MediaId]) -> (usize, Vec<String>) {
        let expected = &expected[..expected.len().min(FEED_MOST)];
        let (mut there, mut faults) = (0, Vec::new());
        let mut dumps = stream::iter(&self.users)
            .map(|user| async move { (user, self.store.dump(*user).await.unwrap()) })
            .buffered(50);
        while let Some((user, dump)) = dumps.next().await {
            let Some(dump) = dump.filter(|d| d.complete) else {
                continue;
            };
            there += 1;
            if dump.ids != expected {
                let lacks = expected.iter().filter(|id| !dump.ids.contains(id));
                faults.push(format!(
                    "feed {user} has {} of {}, without {:?}",
                    dump.ids.len(),
                    expected.len(),
                    lacks.collect::<Vec<_>>()
                ));
            }
        }
        (there, faults)
    }
}
