//! Where a host listens and as whom we log in there: `postgres://user@host:port/dbname`, without TLS yet.

use std::fmt;
use std::path::PathBuf;

/// A password or another string that must not show in logs. `Debug` prints `***`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Secret {
        Secret(secret.into())
    }

    /// The secret itself, for the authentication exchange only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a Postgres listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostAddr {
    /// A host name or IP address (IPv6 without brackets), reached by TCP.
    Tcp(String),
    /// The directory that holds the socket `.s.PGSQL.<port>`.
    Unix(PathBuf),
}

/// One Postgres: where it is, the role that we log in as, the database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostUrl {
    /// TCP host or socket directory.
    pub host: HostAddr,
    /// TCP port, or the number in the socket's name.
    pub port: u16,
    /// The role that we log in as, unless the client's entry in `[users]` names another.
    pub user: String,
    /// That role's password. `None`: the host must not ask for one.
    pub password: Option<Secret>,
    /// The database.
    pub dbname: String,
    /// Sent in our startup message, in this order: `application_name`, `options`.
    pub params: Vec<(String, String)>,
}
