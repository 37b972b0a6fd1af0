//! Where a host listens and as whom we log in there: `postgres://user@host:port/dbname`, without TLS yet.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::nearest::nearest;
use super::section::{Env, Wrong, expand};

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

/// What may stand after the `?`, for the nearest name.
const PARAMETERS: [&str; 8] = [
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "application_name",
    "options",
];

/// What `Display` percent-encodes: all but what RFC 3986 calls unreserved.
const RESERVED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A URL while it is read: each part may come from before or after the `?`.
#[derive(Default)]
struct Parts {
    host: Option<String>,
    port: Option<String>,
    user: Option<String>,
    password: Option<String>,
    dbname: Option<String>,
    params: Vec<(String, String)>,
}

impl HostUrl {
    /// Reads `postgres://user:password@host:port/dbname?name=value`. A `${VAR}` inside stands for a piece of one part and is
    /// taken as it is, so that a password in it needs no percent-encoding; a `${VAR}` that is all of `text` is a URL itself.
    /// Says all that is wrong, and never repeats a part that may hold a password.
    pub(super) fn parse(text: &str, env: Env<'_>) -> Result<HostUrl, Vec<Wrong>> {
        let whole = text
            .strip_prefix("${")
            .and_then(|rest| rest.strip_suffix('}'));
        if whole.is_some_and(|name| !name.contains(['$', '{', '}'])) {
            let text = expand(text, env, |s| Ok(s.into())).map_err(|wrong| vec![wrong])?;
            return HostUrl::parse_parts(&text, &percent_decoded);
        }
        HostUrl::parse_parts(text, &|part| expand(part, env, percent_decoded))
    }

    fn parse_parts(
        text: &str,
        decode: &dyn Fn(&str) -> Result<String, Wrong>,
    ) -> Result<HostUrl, Vec<Wrong>> {
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"));
        let Some(rest) = rest else {
            return Err(vec![wrong("is no postgres:// url", EXAMPLE)]);
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = split_port(place);
        let before = [
            ("host", host),
            ("port", port),
            ("user", user),
            ("password", password),
            ("dbname", dbname),
        ];
        let after = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut parts = Parts::default();
        let mut wrongs = Vec::new();
        for (name, value) in before
            .into_iter()
            .chain(after)
            .filter(|(_, value)| !value.is_empty())
        {
            let outcome = decode(value).and_then(|value| parts.set(name, value));
            wrongs.extend(outcome.err());
        }
        if wrongs.is_empty() {
            parts.finish()
        } else {
            Err(wrongs)
        }
    }
}

impl Parts {
    fn set(&mut self, name: &str, value: String) -> Result<(), Wrong> {
        if value.contains('\0') {
            return Err(wrong(&format!("has a NUL byte in its {name}"), "remove it"));
        }
        match name {
            "host" => self.host = Some(value),
            "port" => self.port = Some(value),
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "dbname" => self.dbname = Some(value),
            "application_name" | "options" => self.params.push((name.into(), value)),
            "sslmode" if matches!(value.as_str(), "disable" | "allow" | "prefer") => {}
            _ if name.starts_with("ssl") => {
                return Err(wrong(
                    &format!("asks for TLS ({name}), which the proxy can't speak to hosts yet"),
                    "remove it or write sslmode=disable, and keep the way to the host private",
                ));
            }
            "connect_timeout" => {
                return Err(wrong(
                    "has connect_timeout",
                    "set [proxy.timeouts] connect, which holds for all hosts",
                ));
            }
            _ => {
                let mend = match nearest(name, PARAMETERS) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!("the parameters are {}", PARAMETERS.join(", ")),
                };
                return Err((format!("has the unknown parameter {name:?}"), mend));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<HostUrl, Vec<Wrong>> {
        let mut wrongs = Vec::new();
        let mut need = |part: Option<String>, name: &str| {
            if part.is_none() {
                wrongs.push(wrong(&format!("names no {name}"), EXAMPLE));
            }
            part.unwrap_or_default()
        };
        let (host, user, dbname) = (
            need(self.host, "host"),
            need(self.user, "user"),
            need(self.dbname, "database"),
        );
        let port = match self.port.as_deref().unwrap_or("5432").parse::<u16>() {
            Ok(port) if port > 0 => port,
            // What stands there may be a piece of a password with an unescaped @ or /.
            _ => {
                wrongs.push(wrong(
                    "has a port that is no number from 1 to 65535",
                    "write the port as a number, and @ : / ? inside a password as %40 %3A %2F %3F",
                ));
                0
            }
        };
        if host.contains(',') {
            wrongs.push(wrong(
                "names several hosts",
                "name the primary only; replicas have their own key",
            ));
        }
        if !wrongs.is_empty() {
            return Err(wrongs);
        }
        let host = if host.starts_with('/') {
            HostAddr::Unix(host.into())
        } else {
            HostAddr::Tcp(host)
        };
        let password = self.password.map(Secret);
        Ok(HostUrl {
            host,
            port,
            user,
            password,
            dbname,
            params: self.params,
        })
    }
}

impl HostUrl {
    /// What makes two urls the same database: the login may differ.
    pub(super) fn place(&self) -> (&HostAddr, u16, &str) {
        (&self.host, self.port, &self.dbname)
    }
}

/// Without the password.
impl fmt::Display for HostUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@", encoded(&self.user))?;
        match &self.host {
            HostAddr::Unix(directory) => write!(f, "{}", encoded(&directory.to_string_lossy()))?,
            HostAddr::Tcp(host) if host.contains(':') => write!(f, "[{host}]")?,
            HostAddr::Tcp(host) => f.write_str(host)?,
        }
        write!(f, ":{}/{}", self.port, encoded(&self.dbname))
    }
}

fn encoded(part: &str) -> impl fmt::Display {
    utf8_percent_encode(part, &RESERVED)
}

const EXAMPLE: &str = "write postgres://USER@HOST:PORT/DATABASE, or for a socket postgres://USER@%2Frun%2Fpostgresql:PORT/DATABASE";

fn wrong(what: &str, mend: &str) -> Wrong {
    (what.into(), mend.into())
}

/// `host:port`, `[v6]:port`; an absent port is empty. An IPv6 address without brackets is left whole as the port's fault.
fn split_port(place: &str) -> (&str, &str) {
    if let Some((host, after)) = place.strip_prefix('[').and_then(|p| p.split_once(']')) {
        return (host, after.strip_prefix(':').unwrap_or(after));
    }
    place.split_once(':').unwrap_or((place, ""))
}

fn percent_decoded(text: &str) -> Result<String, Wrong> {
    let bad_escape = text.split('%').skip(1).any(|after| {
        let hex = after.as_bytes().get(..2);
        !hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    });
    if bad_escape {
        return Err(wrong(
            "has a % that is not followed by two hexadecimal digits",
            "write %25 for a % itself",
        ));
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| {
        wrong(
            "is not UTF-8 once its %XX are decoded",
            "encode it from UTF-8",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "PW" => Some("p@ss/w%rd?:".into()),
            "HOST" => Some("10.0.0.7".into()),
            "URL" => Some("postgres://app:p%40ss@db:6000/app".into()),
            _ => None,
        }
    }

    fn parse(text: &str) -> Result<HostUrl, Vec<Wrong>> {
        HostUrl::parse(text, &env)
    }

    #[test]
    fn reads_every_part() {
        let url = parse("postgresql://app:s%3Acret@db.example:6441/my%20db?application_name=x&options=-c%20a=b&sslmode=disable")
            .expect("good");
        assert_eq!(url.host, HostAddr::Tcp("db.example".into()));
        assert_eq!(
            (url.port, url.user.as_str(), url.dbname.as_str()),
            (6441, "app", "my db")
        );
        assert_eq!(url.password, Some(Secret::new("s:cret")));
        let params = [
            ("application_name".to_owned(), "x".to_owned()),
            ("options".to_owned(), "-c a=b".to_owned()),
        ];
        assert_eq!(url.params, params);
        assert_eq!(parse("postgres://u@h/d").expect("good").port, 5432);
        assert_eq!(parse("postgres://u@h/d").expect("good").password, None);
    }

    #[test]
    fn reads_sockets_and_ipv6() {
        let socket = parse("postgres://app@%2Frun%2Fpg:6441/app").expect("good");
        assert_eq!(socket.host, HostAddr::Unix("/run/pg".into()));
        assert_eq!(
            parse("postgres:///app?host=/run/pg&port=6441&user=app").expect("good"),
            socket
        );
        assert_eq!(socket.to_string(), "postgres://app@%2Frun%2Fpg:6441/app");
        let v6 = parse("postgres://app@[::1]:6441/app").expect("good");
        assert_eq!(
            (v6.host.clone(), v6.port),
            (HostAddr::Tcp("::1".into()), 6441)
        );
        assert_eq!(v6.to_string(), "postgres://app@[::1]:6441/app");
        assert_eq!(parse("postgres://app@[::1]/app").expect("good").port, 5432);
    }

    #[test]
    fn a_variable_is_taken_as_it_is() {
        let url = parse("postgres://app:${PW}@${HOST}:5432/app").expect("good");
        assert_eq!(url.password, Some(Secret::new("p@ss/w%rd?:")));
        assert_eq!(url.host, HostAddr::Tcp("10.0.0.7".into()));
        // As a whole it is a url, decoded as one.
        let url = parse("${URL}").expect("good");
        assert_eq!((url.password, url.port), (Some(Secret::new("p@ss")), 6000));
    }

    #[test]
    fn never_shows_the_password() {
        let url = parse("postgres://app:hunter2@h:5432/app").expect("good");
        assert_eq!(url.to_string(), "postgres://app@h:5432/app");
        assert!(!format!("{url:?}").contains("hunter2"));
        // A password with characters that should have been encoded ends up in every other part.
        for bad in [
            "postgres://app:hunter2/x@h:5432/app",
            "postgres://app:hunter2?x@h:5432/app",
            "postgres:/app:hunter2@h/app",
            "postgres://app:hunter2%@h/app",
        ] {
            let said = format!("{:?}", parse(bad).expect_err(bad));
            assert!(!said.contains("hunter2"), "{bad}: {said}");
        }
    }

    #[test]
    fn says_all_that_is_wrong() {
        let says = |text: &str| {
            parse(text)
                .expect_err(text)
                .into_iter()
                .map(|(what, _)| what)
                .collect::<Vec<_>>()
        };
        assert_eq!(says("mysql://u@h/d"), ["is no postgres:// url"]);
        assert_eq!(
            says("postgres://"),
            ["names no host", "names no user", "names no database"]
        );
        assert_eq!(
            says("postgres://u@h:x/d"),
            ["has a port that is no number from 1 to 65535"]
        );
        assert_eq!(
            says("postgres://u@h:0/d"),
            ["has a port that is no number from 1 to 65535"]
        );
        assert_eq!(
            says("postgres://u@h:65536/d"),
            ["has a port that is no number from 1 to 65535"]
        );
        assert_eq!(says("postgres://u@::1:5432/d").len(), 2);
        assert_eq!(says("postgres://u@a,b/d"), ["names several hosts"]);
        assert_eq!(says("postgres://u@h%00/d"), ["has a NUL byte in its host"]);
        assert_eq!(
            says("postgres://u@h/%ff"),
            ["is not UTF-8 once its %XX are decoded"]
        );
        assert_eq!(
            says("postgres://u:${NO}@h/${NEITHER}?hots=x"),
            [
                "the environment variable NO is not set",
                "the environment variable NEITHER is not set",
                "has the unknown parameter \"hots\""
            ]
        );
        for tls in [
            "sslmode=require",
            "sslmode=verify-full",
            "sslrootcert=/ca.pem",
        ] {
            let what = says(&format!("postgres://u@h/d?{tls}"));
            assert!(what[0].starts_with("asks for TLS"), "{what:?}");
        }
        let (_, mend) = &parse("postgres://u@h/d?hots=x").expect_err("unknown")[0];
        assert_eq!(mend, "did you mean host?");
    }
}
