//! Ending a prepared transaction in the role that may: COMMIT PREPARED is for its owner and for superusers.

use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};

use super::host::LIMIT;
use crate::ops::connect::{connect, said};
use crate::shardmap::{Secret, ShardMap};

/// A role of the map's `[users]` as which the proxy logs in at hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub(super) user: String,
    pub(super) password: Option<Secret>,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It is done.
    Done,
    /// It is not there any more: somebody else has done it.
    Gone,
    /// Somebody else is at it.
    Busy,
}

impl Login {
    /// The roles of a map besides those in its hosts' urls.
    pub(super) fn all(map: &ShardMap) -> Vec<Login> {
        let mut all: Vec<Login> = Vec::new();
        for user in map.users.values() {
            let Some(name) = &user.server_user else {
                continue;
            };
            if !all.iter().any(|login| login.user == *name) {
                all.push(Login {
                    user: name.clone(),
                    password: user.server_password.clone(),
                });
            }
        }
        all
    }

    fn of(&self, config: &Config) -> Config {
        let mut config = config.clone();
        config.user(&self.user);
        if let Some(password) = &self.password {
            config.password(password.expose());
        }
        config
    }
}

/// Runs COMMIT PREPARED or ROLLBACK PREPARED in the present role. `Err`: Postgres' words, or that it did not answer.
pub(super) async fn end(client: &Client, sql: &str) -> Result<Ended, tokio_postgres::Error> {
    let Err(fault) = client.batch_execute(sql).await else {
        return Ok(Ended::Done);
    };
    match fault.code() {
        Some(&SqlState::UNDEFINED_OBJECT) => Ok(Ended::Gone),
        Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => Ok(Ended::Busy),
        _ => Err(fault),
    }
}

/// Does it as `owner`, which is not the control connection's role: over a connection of its own, so that no role has to be
/// given back. It logs in as the url's role, and if that may not become `owner`, as each role of the map's `[users]`.
pub(super) async fn end_as(
    owner: &str,
    config: &Config,
    logins: &[Login],
    sql: &str,
) -> Result<Ended, String> {
    let own = config.get_user().unwrap_or_default();
    let mut why = format!(
        "it is owned by role {owner}: GRANT \"{owner}\" TO \"{own}\" lets the proxy end it, or end it as \"{owner}\""
    );
    let mut logins: Vec<&Login> = logins.iter().collect();
    logins.sort_by_key(|login| login.user != owner);
    let others = logins.iter().map(|login| login.of(config));
    for config in std::iter::once(config.clone()).chain(others) {
        let tried = timeout(LIMIT, try_as(owner, &config, sql)).await;
        match tried {
            Ok(Ok(ended)) => return Ok(ended),
            Ok(Err(fault)) => {
                let user = config.get_user().unwrap_or_default();
                why.push_str(&format!("; as {user}: {fault}"));
            }
            Err(_) => return Err(format!("no answer within {LIMIT:?}")),
        }
    }
    Err(why)
}

async fn try_as(owner: &str, config: &Config, sql: &str) -> Result<Ended, String> {
    let client = connect(config).await?;
    let role = format!("SET ROLE \"{}\"", owner.replace('"', "\"\""));
    let short = |fault: tokio_postgres::Error| said(&fault).replace('\n', ";");
    client.batch_execute(&role).await.map_err(short)?;
    end(&client, sql).await.map_err(short)
}
