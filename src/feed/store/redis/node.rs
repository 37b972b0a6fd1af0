//! One Redis: its connections, made when they are needed and anew when they break, and a time limit for every call.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, RedisError, RedisResult, Value};
use redis::{ConnectionAddr, ConnectionInfo, FromRedisValue, ServerErrorKind};
use tokio::sync::Semaphore;

use super::breaker::Breaker;
use super::scripts::Scripts;
use crate::feed::store::StoreFault;

/// So many bulk calls are on their way to a node at a time: what waits behind them on the connection is still in time.
const BULK_CALLS: usize = 32;

/// Nobody waits for a bulk call: it may take so many times the limit. On a node that has too much to do, work that is given up and done
/// again would only grow.
const BULK_PATIENCE: u32 = 20;

/// So often scripts are loaded for one call.
const LOADS: usize = 3;

/// Which start of a server it is: another one after each restart. In front of all that we write.
pub(super) type Run = [u8; 8];

/// Which connection a call takes: a large push does not hold up a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Quick,
    Bulk,
}

pub(super) struct Node {
    name: String,
    client: Client,
    limit: Duration,
    scripts: Arc<Scripts>,
    quick: Line,
    bulk: Line,
    bulk_calls: Semaphore,
    breaker: Breaker,
    /// By the partition, where each has its own.
    epochs: Mutex<HashMap<Option<u8>, Epoch>>,
    /// It is one of a cluster, which wants to know when a call fails.
    cluster: Option<Arc<AtomicBool>>,
}

/// The state of a node between two losses of all its data, as far as this process knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Epoch {
    pub(super) value: Vec<u8>,
    /// It had begun by then.
    pub(super) since: Instant,
}

/// A connection, while there is one.
#[derive(Default)]
struct Line {
    link: Mutex<Option<Arc<Link>>>,
    /// Held by the one who connects.
    connecting: tokio::sync::Mutex<()>,
}

struct Link {
    connection: MultiplexedConnection,
    run: Run,
}

impl Node {
    pub(super) fn new(
        name: String,
        connection: ConnectionInfo,
        limit: Duration,
        scripts: Arc<Scripts>,
    ) -> RedisResult<Node> {
        Ok(Node {
            name,
            client: Client::open(connection)?,
            limit,
            scripts,
            quick: Line::default(),
            bulk: Line::default(),
            bulk_calls: Semaphore::new(BULK_CALLS),
            breaker: Breaker::new(),
            epochs: Mutex::default(),
            cluster: None,
        })
    }

    /// As one of a cluster, which is told by this when a call fails.
    pub(super) fn of_cluster(mut self, failed: Arc<AtomicBool>) -> Node {
        self.cluster = Some(failed);
        self
    }

    /// By which name it is connected to.
    pub(super) fn host(&self) -> &str {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, _) => host,
            _ => "127.0.0.1",
        }
    }

    /// Sends what `command` makes for the server's run, and waits for the answer. It may be sent twice, or come to the server long after
    /// the limit, and must allow for it.
    pub(super) async fn call<T: FromRedisValue>(
        &self,
        lane: Lane,
        command: impl Fn(&Run) -> Cmd,
    ) -> Result<T, StoreFault> {
        Ok(self.call_of_run(lane, command).await?.0)
    }

    /// As [`Node::call`]; says also which run answered.
    pub(super) async fn call_of_run<T: FromRedisValue>(
        &self,
        lane: Lane,
        command: impl Fn(&Run) -> Cmd,
    ) -> Result<(T, Run), StoreFault> {
        let answer = self.limited(lane, command).await;
        if let (Err(_), Some(failed)) = (&answer, &self.cluster) {
            failed.store(true, Ordering::Relaxed);
        }
        answer
    }

    async fn limited<T: FromRedisValue>(
        &self,
        lane: Lane,
        command: impl Fn(&Run) -> Cmd,
    ) -> Result<(T, Run), StoreFault> {
        let _turn = match lane {
            Lane::Quick => None,
            Lane::Bulk => self.bulk_calls.acquire().await.ok(),
        };
        let Some(permit) = self.breaker.admit() else {
            return Err(self.failed("it was too late several times; it is asked again in a second"));
        };
        let limit = match lane {
            Lane::Quick => self.limit,
            Lane::Bulk => self.limit * BULK_PATIENCE,
        };
        match tokio::time::timeout(limit, self.attempt(lane, &command)).await {
            Ok(Ok((answer, run))) => {
                permit.answered();
                let answer = redis::from_redis_value(answer).map_err(|why| self.failed(why))?;
                Ok((answer, run))
            }
            Ok(Err(fault)) => {
                if fault.is_unrecoverable_error() {
                    permit.failed();
                } else {
                    permit.answered();
                }
                Err(match is_full(&fault) {
                    true => StoreFault::Full {
                        node: self.name.clone(),
                        why: fault.to_string(),
                    },
                    false => self.failed(fault),
                })
            }
            Err(_) => {
                // A peer that is gone without a word is known only by this. The probe gets a new connection.
                if permit.failed() {
                    self.quick.cut();
                    self.bulk.cut();
                }
                Err(StoreFault::Late {
                    node: self.name.clone(),
                    limit,
                })
            }
        }
    }

    /// Goes on over a new connection where the present one turns out to be closed, as it is after each restart of the server.
    async fn attempt(
        &self,
        lane: Lane,
        command: &impl Fn(&Run) -> Cmd,
    ) -> RedisResult<(Value, Run)> {
        let line = match lane {
            Lane::Quick => &self.quick,
            Lane::Bulk => &self.bulk,
        };
        let (link, fresh) = self.link(line).await?;
        match self.send(&link, command).await {
            Err(fault) if fault.is_unrecoverable_error() => {
                line.discard(&link);
                if fresh {
                    return Err(fault);
                }
                let (link, _) = self.link(line).await?;
                let answer = self.send(&link, command).await;
                if answer
                    .as_ref()
                    .is_err_and(RedisError::is_unrecoverable_error)
                {
                    line.discard(&link);
                }
                answer
            }
            answer => answer,
        }
    }

    async fn send(&self, link: &Link, command: &impl Fn(&Run) -> Cmd) -> RedisResult<(Value, Run)> {
        let mut connection = link.connection.clone();
        let command = command(&link.run);
        let is_unknown =
            |fault: &RedisError| fault.kind() == ErrorKind::Server(ServerErrorKind::NoScript);
        let mut answer = command.query_async(&mut connection).await;
        // They may be forgotten again before they are called.
        for _ in 0..LOADS {
            if !answer.as_ref().is_err_and(is_unknown) {
                break;
            }
            self.scripts.load().exec_async(&mut connection).await?;
            answer = command.query_async(&mut connection).await;
        }
        Ok((answer?, link.run))
    }

    /// The connection, and whether it was made just now.
    async fn link(&self, line: &Line) -> RedisResult<(Arc<Link>, bool)> {
        if let Some(link) = line.link().clone() {
            return Ok((link, false));
        }
        let _one = line.connecting.lock().await;
        if let Some(link) = line.link().clone() {
            return Ok((link, false));
        }
        let link = Arc::new(self.connect().await?);
        *line.link() = Some(link.clone());
        Ok((link, true))
    }

    async fn connect(&self) -> RedisResult<Link> {
        // The limits of time are those of the call.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(1024);
        let client = &self.client;
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let mut hello = self.scripts.load();
        hello.cmd("INFO");
        let (info,): (String,) = hello.query_async(&mut connection).await?;
        let run = run_in(&info, self.cluster.is_some())
            .ok_or((ErrorKind::UnexpectedReturnType, "INFO says no run_id"))?;
        Ok(Link { connection, run })
    }

    /// The epoch, if this process has seen it.
    pub(super) fn epoch(&self, partition: Option<u8>) -> Option<Epoch> {
        self.lock_epochs().get(&partition).cloned()
    }

    /// Notes the epoch that the node has said just now.
    pub(super) fn saw_epoch(&self, partition: Option<u8>, value: &[u8]) {
        let mut known = self.lock_epochs();
        if known.get(&partition).is_none_or(|k| k.value != value) {
            let epoch = Epoch {
                value: value.to_vec(),
                since: Instant::now(),
            };
            known.insert(partition, epoch);
        }
    }

    fn lock_epochs(&self) -> MutexGuard<'_, HashMap<Option<u8>, Epoch>> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn failed(&self, why: impl fmt::Display) -> StoreFault {
        StoreFault::Failed {
            node: self.name.clone(),
            why: why.to_string(),
        }
    }
}

impl Line {
    fn link(&self) -> MutexGuard<'_, Option<Arc<Link>>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another one may have put a new connection there meanwhile.
    fn discard(&self, broken: &Arc<Link>) {
        let mut link = self.link();
        if link.as_ref().is_some_and(|link| Arc::ptr_eq(link, broken)) {
            *link = None;
        }
    }

    fn cut(&self) {
        *self.link() = None;
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name)
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}

/// The first half of `run_id:` in what INFO says: 40 hexadecimal digits. In a cluster a node can cease to be a primary and become one
/// again without a restart: `master_replid:` is another one then.
fn run_in(info: &str, in_cluster: bool) -> Option<Run> {
    let half = |name: &str| {
        let id = info.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(id.trim().get(..16)?, 16).ok()
    };
    let reign = if in_cluster {
        half("master_replid:")?
    } else {
        0
    };
    Some((half("run_id:")? ^ reign).to_be_bytes())
}

/// Whether the server has no room. Before Redis 7 a script that could not write said so within an error of its own.
fn is_full(fault: &RedisError) -> bool {
    let said = |detail: &str| detail.contains("-OOM command not allowed");
    fault.code() == Some("OOM") || fault.detail().is_some_and(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_without_room_is_full() {
        let full = |said: &str| {
            let line = format!("-{said}\r\n");
            let value = redis::parse_redis_value(line.as_bytes()).unwrap();
            is_full(&value.extract_error().unwrap_err())
        };
        assert!(full(
            "OOM command not allowed when used memory > 'maxmemory'."
        ));
        assert!(full(
            "ERR Error running script (call to f_ab): @user_script:3: @user_script: 3: -OOM command not allowed when used memory > 'maxmemory'."
        ));
        assert!(!full(
            "ERR Error running script (call to f_ab): @user_script:3: oom"
        ));
        assert!(!full("CLUSTERDOWN The cluster is down"));
    }

    #[test]
    fn the_run_is_read_from_info() {
        let info = "# Server\r\nredis_version:7.0.15\r\nrun_id:00ff11ee22dd33cc44bb55aa6699778800ff11ee\r\ntcp_port:1\r\n";
        let run = [0x00, 0xff, 0x11, 0xee, 0x22, 0xdd, 0x33, 0xcc];
        assert_eq!(run_in(info, false), Some(run));
        assert_eq!(run_in(info, true), None);
        let both = format!("{info}master_replid:00ff11ee22dd33cd44bb55aa6699778800ff11ee\r\n");
        assert_eq!(run_in(&both, true), Some([0, 0, 0, 0, 0, 0, 0, 1]));
        assert_eq!(run_in("run_id:12\r\n", false), None);
        assert_eq!(run_in("run_id:zzzzzzzzzzzzzzzzzzzz\r\n", false), None);
        assert_eq!(run_in("", false), None);
    }
}
