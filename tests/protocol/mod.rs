//! The wire, frame by frame: each script is sent to one Postgres and through the proxy, and the replies must be the same,
//! in the same order, down to command tags, error positions and transaction status.

mod batches;
mod blocks;
mod copies;
mod pipelines;
mod portals;
mod settings;
mod statements;

use std::net::SocketAddr;

use tokio::sync::OnceCell;

use crate::support::raw::{difference, or_panic};
use crate::support::{Cluster, Hosts, Proxy, Raw};

/// Hosts of 8 shards, and one Postgres with the same rows. User 1 and 9 are of shard 1 on host a, user 5 of shard 5 on b.
pub struct Twins {
    pub hosts: Hosts,
    plain: Cluster,
}

pub async fn twins() -> &'static Twins {
    static TWINS: OnceCell<Twins> = OnceCell::const_new();
    TWINS
        .get_or_init(|| async {
            let hosts = Hosts::provisioned(2, 8).await;
            let plain = Cluster::new();
            let direct = plain.client().await;
            direct.batch_execute(presplit::ops::demo::SCHEMA).await.unwrap();
            let countries = "INSERT INTO countries (code, name) VALUES ('at', 'Austria')";
            direct.batch_execute(countries).await.unwrap();
            for i in 0..2 {
                hosts.client(i).await.batch_execute(countries).await.unwrap();
            }
            let proxy = Proxy::start(&hosts);
            let through = proxy.client().await;
            for user in [1i64, 5, 9] {
                for n in 1..=3 {
                    let id = (n << 23) | ((user % 8) << 10) | user;
                    let sql = format!("INSERT INTO photos (id, user_id, caption) VALUES ({id}, {user}, 'u{user}p{n}')");
                    direct.batch_execute(&sql).await.unwrap();
                    through.batch_execute(&sql).await.unwrap();
                }
            }
            Twins { hosts, plain }
        })
        .await
}

impl Twins {
    fn plain(&self) -> SocketAddr {
        self.plain.addr()
    }
}

/// What is sent at once, and how many ReadyForQuery answer it.
pub type Step = (Vec<u8>, usize);

pub type Script = (&'static str, Vec<Step>);

pub fn step(frames: &[Vec<u8>], ready: usize) -> Step {
    (frames.concat(), ready)
}

fn converse(addr: SocketAddr, steps: &[Step]) -> Vec<String> {
    or_panic(|| {
        let mut raw = Raw::connect(addr);
        let mut lines = Vec::new();
        for (bytes, ready) in steps {
            lines.extend(raw.ask(bytes, *ready));
        }
        raw.assert_silent();
        lines.into_iter().map(anonymous).collect()
    })
}

/// The one message of Postgres in which a server-side statement's own name is seen.
fn anonymous(line: String) -> String {
    match (
        line.find("but prepared statement \""),
        line.find("\" requires"),
    ) {
        (Some(from), Some(to)) => format!("{}{}", &line[..from], &line[to..]),
        _ => line,
    }
}

static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Runs all scripts on both, and shows every difference.
pub async fn compare(scripts: Vec<Script>, proxy: &Proxy) {
    // Scripts of other tests write the same rows.
    let _turn = TURN.lock().await;
    let plain = twins().await.plain();
    let mut faults = Vec::new();
    for (name, steps) in &scripts {
        let (expected, got) = (converse(plain, steps), converse(proxy.addr(), steps));
        faults.extend(difference(name, &expected, &got));
    }
    assert!(
        faults.is_empty(),
        "{} of {} scripts differ\n{}",
        faults.len(),
        scripts.len(),
        faults.join("\n")
    );
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
}

const ONE: &str = "SELECT caption FROM photos WHERE user_id = 1 ORDER BY caption";

const BY_KEY: &str = "SELECT caption FROM photos WHERE user_id = $1 ORDER BY caption";

const SOME: &str = "SELECT user_id, caption FROM photos WHERE user_id IN (1, 5) ORDER BY caption";

const ALL: &str = "SELECT caption FROM photos WHERE user_id IN (1, 5)";

const NONE: &str = "SELECT count(*) FROM photos WHERE user_id = 1 AND caption = 'written'";

const WRITE: &str = "INSERT INTO photos (user_id, caption) VALUES (1, 'written')";

const CLEAN: &str = "DELETE FROM photos WHERE user_id = 1 AND caption = 'written'";

const FAILS: &str = "SELECT 1 / (user_id - 1) FROM photos WHERE user_id = 1";
