//! One host as recovery sees it: a control connection that is kept while it works, and what the host said of itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use tokio_util::sync::CancellationToken;

use super::login::{self, Ended, Login};
use super::table::{self, Lack};
use crate::ops::connect::{config, said};
use crate::shardmap::HostUrl;
use crate::twophase::{self, Home, Name};

/// The longest that a host may take for one step. One that takes longer counts as down: the connection is given up.
pub const LIMIT: Duration = Duration::from_secs(3);
/// Names that are asked for in one message: each takes a place in the host's table of locks.
const AT_ONCE: usize = 200;

/// Whatever the role's defaults are: control statements write, wait for no lock, and find the names that they mean. COMMIT
/// PREPARED that waits for a standby must not be cut off by a timeout, for it would then be seen before the standby has it.
const SETTINGS: &str = "SET default_transaction_read_only = off; SET statement_timeout = 0; \
    SET lock_timeout = '2s'; SET search_path = pg_catalog; SET client_min_messages = warning";

const GREET: &str = "SELECT current_setting('server_version'), current_setting('max_prepared_transactions')::int4, \
    pg_is_in_recovery(), (SELECT system_identifier FROM pg_control_system()), \
    (SELECT oid FROM pg_database WHERE datname = current_database()), pg_postmaster_start_time()::text, current_user::text";

const PREPARED: &str = "SELECT gid, owner::text, extract(epoch FROM clock_timestamp() - prepared)::float8 \
    FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared";

/// A host of the map.
pub struct Host {
    /// Its name in the map.
    pub name: String,
    /// The primary.
    pub url: HostUrl,
    /// Held for one step at a time, so that no two interleave.
    link: tokio::sync::Mutex<Option<Link>>,
    known: Mutex<Known>,
}

struct Known {
    /// What it said last; it may be down by now.
    greeting: Option<Greeting>,
    /// Why it is not connected; `None`: it is.
    fault: Option<String>,
    gone: CancellationToken,
}

/// What a host says of itself when it is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// As `server_version` has it.
    pub version: String,
    /// `max_prepared_transactions`
    pub max_prepared: i32,
    /// It is a standby.
    pub standby: bool,
    /// Which database it is.
    pub home: Home,
    /// When its server was started, which tells two names of one server from copies of one.
    pub started: String,
    /// The role of the control connection.
    pub role: String,
    /// What the decision table lacks.
    pub table: Option<Lack>,
}

/// A prepared transaction of a host's database, ours or not.
#[derive(Clone, Debug)]
pub struct Found {
    /// As it is.
    pub gid: String,
    /// If it is ours.
    pub name: Option<Name>,
    /// The role that prepared it, if it is still there.
    pub owner: Option<String>,
    /// When it was prepared: its age by the host's clock, from now.
    pub since: Instant,
}

/// How it stands with a transaction on its decision host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Its row is there.
    Committed,
    /// It has ended, and there is no row.
    Ended,
    /// It has not ended.
    Open,
}

/// Why a step came to nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// There is no connection, or there is none any more.
    Lost(String),
    /// Postgres says.
    Said(tokio_postgres::Error),
}

impl Trouble {
    pub(super) fn words(&self) -> String {
        match self {
            Trouble::Lost(why) => why.clone(),
            Trouble::Said(fault) => said(fault),
        }
    }
}

/// A connection. When it is dropped it is closed, even if the server never answers what it was asked.
struct Link {
    client: Arc<Client>,
    driver: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Host {
    pub(super) fn new(name: &str, url: &HostUrl) -> Host {
        Host {
            name: name.to_owned(),
            url: url.clone(),
            link: tokio::sync::Mutex::new(None),
            known: Mutex::new(Known {
                greeting: None,
                fault: Some("it has not been asked yet".to_owned()),
                gone: CancellationToken::new(),
            }),
        }
    }

    /// No foreign code runs under the lock, so a poisoned one is as good as a clean one.
    fn known(&self) -> MutexGuard<'_, Known> {
        let known = self.known.lock();
        known.unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What it said when it was connected last.
    pub fn greeting(&self) -> Option<Greeting> {
        self.known().greeting.clone()
    }

    /// Its database, as far as it was ever reached.
    pub fn home(&self) -> Option<Home> {
        self.known().greeting.as_ref().map(|greeting| greeting.home)
    }

    /// Why it is not connected.
    pub fn fault(&self) -> Option<String> {
        self.known().fault.clone()
    }

    /// Waits until the connection ends.
    pub async fn gone(&self) {
        let gone = self.known().gone.clone();
        gone.cancelled().await;
    }

    /// Connects if it is not connected, asks what the host is, and makes the decision table if it `makes` and it isn't there.
    pub async fn connect(&self, makes: bool) -> Result<Greeting, String> {
        let Ok(mut held) = timeout(LIMIT, self.link.lock()).await else {
            return Err(late());
        };
        if held.as_ref().is_none_or(|link| link.client.is_closed()) {
            *held = None;
            let gone = CancellationToken::new();
            match timeout(LIMIT, self.open(gone.clone())).await {
                Ok(Ok(link)) => *held = Some(link),
                Ok(Err(why)) => return Err(self.lose(&mut held, why)),
                Err(_) => return Err(self.lose(&mut held, late())),
            }
            self.known().gone = gone;
        }
        let Some(client) = held.as_ref().map(|link| link.client.clone()) else {
            return Err(late());
        };
        match timeout(LIMIT, greet(&client, makes)).await {
            Ok(Ok(greeting)) => {
                let mut known = self.known();
                known.greeting = Some(greeting.clone());
                known.fault = None;
                Ok(greeting)
            }
            Ok(Err(fault)) => Err(self.lose(&mut held, said(&fault))),
            Err(_) => Err(self.lose(&mut held, late())),
        }
    }

    async fn open(&self, gone: CancellationToken) -> Result<Link, String> {
        let mut config = config(&self.url, "presplit recovery");
        config.connect_timeout(LIMIT);
        let (client, connection) = config.connect(NoTls).await.map_err(|e| said(&e))?;
        let driver = tokio::spawn(async move {
            let _guard = gone.drop_guard();
            // Why it ended is told to whoever asks next.
            let _ = connection.await;
        });
        Ok(Link {
            client: Arc::new(client),
            driver,
        })
    }

    fn lose(&self, held: &mut Option<Link>, why: String) -> String {
        *held = None;
        self.known().fault = Some(why.clone());
        why
    }

    /// One step over the connection. One that takes too long, or that ends the connection, is the last.
    async fn step<T, F>(&self, work: impl FnOnce(Arc<Client>) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>>,
    {
        let Ok(mut held) = timeout(LIMIT, self.link.lock()).await else {
            return Err(Trouble::Lost(late()));
        };
        let Some(client) = held.as_ref().map(|link| link.client.clone()) else {
            return Err(Trouble::Lost(self.fault().unwrap_or_else(late)));
        };
        match timeout(LIMIT, work(client.clone())).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(fault)) if fault.as_db_error().is_some() && !client.is_closed() => {
                Err(Trouble::Said(fault))
            }
            Ok(Err(fault)) => Err(Trouble::Lost(self.lose(&mut held, said(&fault)))),
            Err(_) => Err(Trouble::Lost(self.lose(&mut held, late()))),
        }
    }

    /// A standby shows no prepared transaction, and its rows may be old.
    fn not_a_standby(&self) -> Result<(), Trouble> {
        match self.greeting().is_some_and(|greeting| greeting.standby) {
            true => Err(Trouble::Lost(
                self.fault().unwrap_or_else(|| "it is a standby".to_owned()),
            )),
            false => Ok(()),
        }
    }

    /// All prepared transactions of its database, oldest first.
    pub(super) async fn prepared(&self) -> Result<Vec<Found>, Trouble> {
        self.not_a_standby()?;
        let rows = self.step(|client| async move { client.query(PREPARED, &[]).await });
        let now = Instant::now();
        let found = |row: &tokio_postgres::Row| {
            let gid: String = row.get(0);
            // A clock that was set back makes it negative.
            let age = Duration::try_from_secs_f64(row.get(2)).unwrap_or_default();
            Found {
                name: gid.parse().ok(),
                gid,
                owner: row.get(1),
                since: now.checked_sub(age).unwrap_or(now),
            }
        };
        Ok(rows.await?.iter().map(found).collect())
    }

    /// How it stands with transactions that are decided here.
    pub(super) async fn parts(&self, names: &[Name]) -> Result<HashMap<Name, Part>, Trouble> {
        self.not_a_standby()?;
        let mut parts = HashMap::new();
        for names in names.chunks(AT_ONCE) {
            let sql = twophase::ask(names);
            let answer = self.step(|client| async move {
                let answer = client.simple_query(&sql).await;
                if answer.is_err() {
                    // The block that failed is still open.
                    client.batch_execute("ROLLBACK").await?;
                }
                answer
            });
            for message in answer.await? {
                let SimpleQueryMessage::Row(row) = message else {
                    continue;
                };
                let Some(Ok(name)) = row.get(0).map(str::parse) else {
                    continue;
                };
                let part = match row.len() {
                    1 => Part::Committed,
                    _ if row.get(1) == Some("t") => Part::Ended,
                    _ => Part::Open,
                };
                parts.insert(name, part);
            }
        }
        Ok(parts)
    }

    /// Ends a transaction that is prepared here.
    pub(super) async fn end(
        &self,
        name: &Name,
        owner: Option<&str>,
        commit: bool,
        logins: &[Login],
    ) -> Result<Ended, String> {
        let sql = match commit {
            true => twophase::commit_prepared(name),
            false => twophase::rollback_prepared(name),
        };
        let role = self.greeting().map(|greeting| greeting.role);
        if let Some(owner) = owner
            && role.as_deref() != Some(owner)
        {
            let config = config(&self.url, "presplit recovery");
            return login::end_as(owner, &config, logins, &sql).await;
        }
        let ended = self.step(|client| async move { login::end(&client, &sql).await });
        ended.await.map_err(|trouble| trouble.words())
    }

    /// The server processes that hold the lock of a transaction whose part here is open, in words.
    pub async fn holders(&self, name: &Name) -> Vec<(i32, String)> {
        let sql = "SELECT l.pid, concat_ws(', ', 'from ' || a.client_addr, a.application_name, a.state || ' for ' || \
              extract(epoch FROM clock_timestamp() - a.state_change)::int8 || ' s') \
            FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
            WHERE l.locktype = 'advisory' AND l.granted AND l.mode = 'ExclusiveLock' AND l.objsubid = 1 AND l.pid IS NOT NULL \
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
              AND l.classid::int8 = $1 AND l.objid::int8 = $2";
        let (upper, lower) = (name.key() >> 32, name.key() & 0xffff_ffff);
        let rows = self.step(|client| async move { client.query(sql, &[&upper, &lower]).await });
        let rows = rows.await.unwrap_or_default();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// The decision rows here: name and hosts, oldest first.
    pub(super) async fn rows(&self) -> Result<Vec<(String, Vec<String>)>, Trouble> {
        self.not_a_standby()?;
        let sql = "SELECT name, hosts FROM presplit.decision ORDER BY at LIMIT 10000";
        let rows = self.step(|client| async move { client.query(sql, &[]).await });
        Ok(rows
            .await?
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect())
    }

    /// Whether it has the decision row of a transaction, be it a copy.
    pub async fn has_row(&self, name: &Name) -> Result<bool, String> {
        let name = name.to_string();
        let sql = "SELECT FROM presplit.decision WHERE name = $1";
        let row = self.step(|client| async move { client.query_opt(sql, &[&name]).await });
        let said = |trouble: Trouble| format!("host {}: {}", self.name, trouble.words());
        Ok(row.await.map_err(said)?.is_some())
    }

    /// Deletes decision rows.
    pub(super) async fn delete_rows(&self, names: &[Name]) -> Result<(), Trouble> {
        let sql = twophase::delete_rows(names);
        self.step(|client| async move { client.batch_execute(&sql).await })
            .await
    }
}

async fn greet(client: &Client, makes: bool) -> Result<Greeting, tokio_postgres::Error> {
    client.batch_execute(SETTINGS).await?;
    let row = client.query_one(GREET, &[]).await?;
    let standby: bool = row.get(2);
    let table = match makes && !standby {
        true => table::make_table(client).await?,
        false => table::lack(client).await?,
    };
    Ok(Greeting {
        version: row.get(0),
        max_prepared: row.get(1),
        standby,
        home: Home {
            system: row.get::<_, i64>(3) as u64,
            database: row.get(4),
        },
        started: row.get(5),
        role: row.get(6),
        table,
    })
}

fn late() -> String {
    format!("it does not answer within {} s", LIMIT.as_secs())
}
