//! Postgres as the feed service sees it: any connection string (as a rule the proxy's), a pool, statements prepared once a
//! connection, a time limit on each, and faults that say what to do.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{
    ClientWrapper, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row};

use super::UserId;
use super::slow::waiting;

/// A statement that takes longer gives its place among [`DbSettings::connections`] to another: behind a host that hangs those of the others
/// don't wait.
const PROMPT: Duration = Duration::from_secs(1);
/// Connections of such statements at most, beside the others.
const LATE: usize = 200;
/// How often a statement that may be repeated is tried.
const TRIES: u32 = 4;

/// Where Postgres is, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct DbSettings {
    /// `postgres://user@host:port/db`
    pub url: String,
    /// Connections at most, but for those of statements that take longer than a second.
    pub connections: usize,
    /// How long a call waits for a free connection, and for a new one to be made.
    pub wait: Duration,
    /// How long a statement may take.
    pub statement: Duration,
    /// The webhook is to hear of edges that are changed.
    pub tells_edges: bool,
}

impl Default for DbSettings {
    fn default() -> DbSettings {
        DbSettings {
            url: "postgres://app@127.0.0.1:6432/app".to_owned(),
            connections: 24,
            wait: Duration::from_secs(3),
            statement: Duration::from_secs(10),
            tells_edges: false,
        }
    }
}

/// Why a statement failed, by what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing was done (deadlock, serialization): do it again.
    #[error("{0}")]
    Retry(String),
    /// It can't be asked at present: wait. The statement may have been carried out all the same if `maybe`.
    #[error("{why}")]
    Unavailable {
        /// What happened.
        why: String,
        /// Nobody knows whether it was carried out.
        maybe: bool,
    },
    /// It contradicts what is there (class 23).
    #[error("{0}")]
    Conflict(String),
    /// A value that can't be stored (class 22), such as text that is no JSON to Postgres: whoever gave it is to be told.
    #[error("{0}")]
    Value(String),
    /// It is wrong: repeating does not help.
    #[error("{0}")]
    Wrong(String),
}

impl Fault {
    fn of(error: &tokio_postgres::Error) -> Fault {
        let why = words(error);
        let Some(code) = error.code().map(|c| c.code()) else {
            // Not from the server: the connection is gone, or a value could not be sent or read.
            let lost = error.is_closed()
                || std::error::Error::source(error).is_some_and(|e| e.is::<std::io::Error>());
            return if lost {
                Fault::Unavailable { why, maybe: true }
            } else {
                Fault::Wrong(why)
            };
        };
        match code {
            "40003" | "08007" => Fault::Unavailable { why, maybe: true },
            "55P03" => Fault::Retry(why),
            // The server process was told to end, or fell: it may have been behind its commit.
            "57P01" | "57P02" | "57P05" => Fault::Unavailable { why, maybe: true },
            "25006" | "57014" | "57P03" => Fault::Unavailable { why, maybe: false },
            _ => match code.get(..2) {
                Some("40") => Fault::Retry(why),
                Some("08") => Fault::Unavailable { why, maybe: true },
                Some("53") => Fault::Unavailable { why, maybe: false },
                Some("22") => Fault::Value(why),
                Some("23") => Fault::Conflict(why),
                _ => Fault::Wrong(why),
            },
        }
    }

    /// Of what was not sent yet, or is not carried out by being sent.
    fn unsent(self) -> Fault {
        match self {
            Fault::Unavailable { why, .. } => Fault::Unavailable { why, maybe: false },
            fault => fault,
        }
    }

    /// Postgres is not there: whoever works through many rows waits, and no row is to blame.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Fault::Unavailable { .. } | Fault::Retry(_))
    }
}

/// What the server said, or what the driver knows.
fn words(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(db), _) => format!("{} ({})", db.message(), db.code().code()),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

/// A pool of connections.
#[derive(Clone)]
pub struct Db {
    pool: Pool,
    places: Arc<Semaphore>,
    wait: Duration,
    statement: Duration,
    tells_edges: bool,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db")
            .field("pool", &self.pool.status())
            .finish_non_exhaustive()
    }
}

/// A lock that is held as long as this is there and its connection lives.
pub(super) struct Lock(ClientWrapper);

impl Lock {
    pub(super) fn is_lost(&self) -> bool {
        self.0.is_closed()
    }
}

/// The values of a statement.
pub type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Db {
    /// Connects when it is first needed.
    ///
    /// # Errors
    /// The connection string can't be read.
    pub fn new(settings: &DbSettings) -> Result<Db, Fault> {
        let mut config: tokio_postgres::Config =
            settings.url.parse().map_err(|e: tokio_postgres::Error| {
                Fault::Wrong(format!("the connection string: {}", words(&e)))
            })?;
        if config.get_application_name().is_none() {
            config.application_name("presplit feed");
        }
        config.connect_timeout(settings.wait);
        let manager = Manager::from_config(
            config,
            NoTls,
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(settings.connections.max(1) + LATE)
            .wait_timeout(Some(settings.wait))
            .create_timeout(Some(settings.wait))
            .recycle_timeout(Some(settings.wait))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| Fault::Wrong(e.to_string()))?;
        Ok(Db {
            pool,
            places: Arc::new(Semaphore::new(settings.connections.max(1))),
            wait: settings.wait,
            statement: settings.statement,
            tells_edges: settings.tells_edges,
        })
    }

    /// The webhook is to hear of edges that are changed by way of this.
    pub(super) fn tells_edges(&self) -> bool {
        self.tells_edges
    }

    /// One statement, sent at most once.
    ///
    /// # Errors
    /// Any [`Fault`].
    pub async fn once(&self, sql: &str, values: Values<'_>) -> Result<Vec<Row>, Fault> {
        let connection = waiting("connection", "");
        let (client, place) = self.client().await?;
        drop(connection);
        let _statement = waiting("postgres", sql);
        let work = async {
            let statement = client.prepare_cached(sql).await;
            let statement = statement.map_err(|e| Fault::of(&e).unsent())?;
            let rows = client.query(&statement, values).await;
            rows.map_err(|e| Fault::of(&e))
        };
        let mut work = Box::pin(work);
        let prompt = self.statement.min(PROMPT);
        if let Ok(answer) = tokio::time::timeout(prompt, work.as_mut()).await {
            return answer;
        }
        drop(place);
        match tokio::time::timeout(self.statement - prompt, work).await {
            Ok(answer) => {
                // Another has been made in its place.
                drop(Object::take(client));
                answer
            }
            Err(_) => Err(self.give_up(client, self.statement)),
        }
    }

    /// A connection, and the place that it takes.
    async fn client(&self) -> Result<(Object, OwnedSemaphorePermit), Fault> {
        let place = self.places.clone().acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout(self.wait, place).await else {
            return Err(Fault::Unavailable {
                why: format!("no connection was free within {:?}", self.wait),
                maybe: false,
            });
        };
        let client = self.pool.get().await.map_err(|e| match e {
            PoolError::Backend(e) => Fault::of(&e).unsent(),
            e => Fault::Unavailable {
                why: e.to_string(),
                maybe: false,
            },
        })?;
        Ok((client, place))
    }

    /// No answer came in time, and nobody knows what became of the statement. The connection is in the middle of it: it is not for the
    /// next one, and the server need not go on.
    fn give_up(&self, client: Object, limit: Duration) -> Fault {
        let cancel = client.cancel_token();
        drop(Object::take(client));
        tokio::spawn(tokio::time::timeout(self.statement, async move {
            cancel.cancel_query(NoTls).await
        }));
        Fault::Unavailable {
            why: format!("no answer within {limit:?}"),
            maybe: true,
        }
    }

    /// One statement that may be carried out twice without harm: repeated at once when it lost against another, or lost its
    /// connection. A loss that took its time is not: a host that does not answer would hold up several times as long whoever waits.
    ///
    /// # Errors
    /// Any [`Fault`], the last one.
    pub async fn ask(&self, sql: &str, values: Values<'_>) -> Result<Vec<Row>, Fault> {
        let began = Instant::now();
        let mut tried = 1;
        loop {
            let answer = self.once(sql, values).await;
            let again = match &answer {
                Err(Fault::Retry(_)) => true,
                Err(Fault::Unavailable { maybe: true, .. }) => {
                    began.elapsed() < self.statement / TRIES
                }
                _ => false,
            };
            if !again || tried >= TRIES {
                return answer;
            }
            tokio::time::sleep(jitter(Duration::from_millis(5 << tried))).await;
            tried += 1;
        }
    }

    /// The one row of a statement that may be repeated, if there is one.
    ///
    /// # Errors
    /// Any [`Fault`].
    pub async fn ask_one(&self, sql: &str, values: Values<'_>) -> Result<Option<Row>, Fault> {
        Ok(self.ask(sql, values).await?.into_iter().next())
    }

    /// One statement without values whose text is not worth keeping; may be repeated.
    ///
    /// # Errors
    /// Any [`Fault`].
    pub async fn unprepared(&self, sql: &str) -> Result<Vec<Row>, Fault> {
        self.unprepared_within(sql, self.statement).await
    }

    /// [`Db::unprepared`] with a limit of its own.
    pub(super) async fn unprepared_within(
        &self,
        sql: &str,
        limit: Duration,
    ) -> Result<Vec<Row>, Fault> {
        let (client, _place) = self.client().await?;
        match tokio::time::timeout(limit, client.query_typed(sql, &[])).await {
            Ok(answer) => answer.map_err(|e| Fault::of(&e)),
            Err(_) => Err(self.give_up(client, limit)),
        }
    }

    /// Whether the proxy, or Postgres, answers: with what a proxy says by itself, so that one host of many that is away does not
    /// count.
    ///
    /// # Errors
    /// Any [`Fault`].
    pub async fn ping(&self) -> Result<(), Fault> {
        let (client, _place) = self.client().await?;
        let asked = async {
            client.batch_execute("BEGIN").await?;
            client.batch_execute("ROLLBACK").await
        };
        match tokio::time::timeout(self.statement, asked).await {
            Ok(answer) => answer.map_err(|e| Fault::of(&e)),
            Err(_) => Err(self.give_up(client, self.statement)),
        }
    }

    /// An advisory lock of the session, on a connection of its own that is none of the pool's any more. `None`: another has it.
    ///
    /// # Errors
    /// Any [`Fault`].
    pub(super) async fn lock(&self, key: i64) -> Result<Option<Lock>, Fault> {
        let (client, _place) = self.client().await?;
        let sql = format!("SELECT pg_try_advisory_lock({key})");
        let answer = tokio::time::timeout(self.statement, client.query_typed(&sql, &[])).await;
        let Ok(rows) = answer else {
            return Err(self.give_up(client, self.statement));
        };
        let client = Object::take(client);
        let rows = rows.map_err(|e| Fault::of(&e))?;
        let held = rows.first().map_or(Ok(false), |row| value(row, 0))?;
        Ok(held.then_some(Lock(client)))
    }

    /// How many shards the proxy has; 1 where there is none.
    ///
    /// # Errors
    /// Any [`Fault`].
    pub async fn shards(&self) -> Result<u32, Fault> {
        let shards = self.route("SELECT id FROM outbox", "Shards: ").await?;
        Ok(shards.unwrap_or(1))
    }

    /// The shard of a user; `None` where there is no proxy, or only one shard.
    ///
    /// # Errors
    /// Any [`Fault`].
    pub async fn shard_of(&self, user: UserId) -> Result<Option<u32>, Fault> {
        let sql = format!("SELECT id FROM outbox WHERE user_id = '{user}'::bigint");
        self.route(&sql, "Shard: ").await
    }

    /// The number behind this word in what the proxy says of a statement's way.
    async fn route(&self, sql: &str, word: &str) -> Result<Option<u32>, Fault> {
        let (client, _place) = self.client().await?;
        let sql = format!("EXPLAIN (ROUTE) {sql}");
        let said = match tokio::time::timeout(self.statement, client.simple_query(&sql)).await {
            Ok(Ok(said)) => said,
            Err(_) => return Err(self.give_up(client, self.statement)),
            Ok(Err(e)) => {
                return match (Fault::of(&e), e.code()) {
                    // One Postgres does not know the word.
                    (Fault::Wrong(_), Some(&SqlState::SYNTAX_ERROR)) => Ok(None),
                    (fault, _) => Err(fault),
                };
            }
        };
        for message in said {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
                let rest = (0..row.len())
                    .filter_map(|i| row.get(i))
                    .find_map(|line| line.trim().strip_prefix(word));
                if let Some(rest) = rest {
                    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                    let number = digits.parse();
                    return number
                        .map(Some)
                        .map_err(|_| Fault::Wrong(format!("a number was expected: {word}{rest}")));
                }
            }
        }
        Ok(None)
    }
}

/// A value of a row by its position.
///
/// # Errors
/// The statement and the code behind it don't fit.
pub fn value<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    at: usize,
) -> Result<T, Fault> {
    row.try_get(at).map_err(|e| Fault::Wrong(words(&e)))
}

/// The first value of each row.
pub(super) fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
    rows: &'a [Row],
) -> Result<Vec<T>, Fault> {
    rows.iter().map(|row| value(row, 0)).collect()
}

/// Between half and all of it, so that many that wait don't come back together.
#[must_use]
pub fn jitter(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.5..=1.0))
}
