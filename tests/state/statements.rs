//! What the clients of the state test say.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::support::raw::{b, ds, e, p, s};

/// Settings and values for them, as SET takes them.
const SETTINGS: &[(&str, &[&str])] = &[
    (
        "TimeZone",
        &[
            "'UTC'",
            "'Europe/Vienna'",
            "\"America/Lima\"",
            "'Asia/Tokyo'",
            "-3",
        ],
    ),
    (
        "DateStyle",
        &[
            "ISO, DMY",
            "SQL",
            "German",
            "'ISO'",
            "MDY",
            "Postgres, DMY",
            "DMY",
            "YMD",
            "'ISO, MDY'",
            "SQL, European",
        ],
    ),
    (
        "IntervalStyle",
        &["postgres", "sql_standard", "iso_8601", "'postgres_verbose'"],
    ),
    ("application_name", &["'alpha'", "beta", "'ga''mma'", "''"]),
    ("statement_timeout", &["'61s'", "62000", "0", "'2min'"]),
    ("lock_timeout", &["'31s'", "0"]),
    (
        "search_path",
        &[
            "s1, public",
            "\"$user\", public",
            "public, s1",
            "'s2', 'public'",
        ],
    ),
    ("extra_float_digits", &["0", "1", "3", "-5"]),
    ("bytea_output", &["hex", "'escape'"]),
    ("work_mem", &["'5MB'", "'6MB'", "8192"]),
    ("client_encoding", &["'UTF8'", "'LATIN1'"]),
    ("role", &["state_1", "state_2", "none"]),
    ("myapp.uid", &["'u1'", "'u2'", "'it''s'", "u3"]),
    ("client_min_messages", &["warning", "notice", "'error'"]),
    ("default_transaction_read_only", &["on", "off"]),
    ("default_transaction_deferrable", &["on", "off"]),
    ("row_security", &["on", "off"]),
    ("backslash_quote", &["on", "off", "safe_encoding"]),
];

/// As startup packets, `options` and set_config take them.
const PLAIN: &[(&str, &[&str])] = &[
    (
        "TimeZone",
        &["UTC", "Europe/Vienna", "America/Lima", "Asia/Tokyo"],
    ),
    ("DateStyle", &["ISO, DMY", "SQL", "German", "ISO", "DMY"]),
    ("IntervalStyle", &["postgres", "iso_8601"]),
    ("application_name", &["one", "two words", "it's"]),
    ("statement_timeout", &["63s", "64000"]),
    ("search_path", &["s1, public", "s2,public", "public"]),
    ("extra_float_digits", &["2", "-3"]),
    ("bytea_output", &["escape"]),
    ("work_mem", &["7MB"]),
    ("client_encoding", &["UTF8"]),
    ("role", &["state_1", "state_2"]),
    ("myapp.uid", &["u4", "it's"]),
    ("default_transaction_read_only", &["on"]),
];

/// The startup packet of client `n`.
pub(super) fn startup(rng: &mut StdRng, n: usize) -> Vec<(&'static str, String)> {
    let mut startup = Vec::new();
    if rng.random_bool(0.5) {
        startup.push(("application_name", format!("client {n}")));
    }
    let mut options = Vec::new();
    for (name, values) in PLAIN.iter().filter(|(name, _)| *name != "role") {
        if rng.random_bool(0.15) {
            let value = values.choose(rng).unwrap();
            match rng.random_bool(0.5) || name.contains('.') {
                true => options.push(format!("-c {name}={}", value.replace(' ', "\\ "))),
                false => startup.push((*name, (*value).to_owned())),
            }
        }
    }
    if !options.is_empty() {
        let at = rng.random_range(0..=startup.len());
        startup.insert(at, ("options", options.join(" ")));
    }
    // A name may be there twice: the later counts.
    startup.dedup_by_key(|(name, _)| *name);
    startup
}

/// A look at the settings: at what they are called, or at what they do. Outside of tables, or on any of the hosts.
pub(super) fn look(rng: &mut StdRng) -> String {
    let user = rng.random_range(0..16);
    let (columns, sql) = match rng.random_range(0..10) {
        0..=3 => {
            let names = SETTINGS.iter().map(|(name, _)| name);
            let shown = names.map(|name| format!("coalesce(current_setting('{name}', true), '')"));
            (shown.collect::<Vec<_>>().join(", "), None)
        }
        4..=6 => (
            "'01/02/03'::date, '2024-07-01 12:00+00'::timestamptz, '1 day 02:03'::interval, 1/3.0::float8, '\\x0041ff'::bytea, current_user, session_user, WHO, coalesce(current_setting('myapp.uid', true), ''), current_setting('transaction_read_only'), current_setting('transaction_isolation')".to_owned(),
            None,
        ),
        7 => {
            let (name, _) = SETTINGS.iter().filter(|(n, _)| !n.contains('.')).collect::<Vec<_>>()[rng.random_range(0..SETTINGS.len() - 1)];
            (String::new(), Some(format!("SHOW {name}")))
        }
        // Statistics stay the same for a transaction of Postgres, unless they are cleared.
        8 => (String::new(), Some("SELECT application_name, pg_stat_clear_snapshot() FROM pg_stat_activity WHERE pid = pg_backend_pid()".to_owned())),
        // Its name is looked up by the search_path, on a host that of a shard.
        _ => (String::new(), Some("SELECT 'public.who'::regproc, current_setting('search_path'), name FROM users WHERE id = 3".to_owned())),
    };
    sql.unwrap_or_else(|| match rng.random_bool(0.6) {
        true => format!(
            "SELECT {}, name FROM users WHERE id = {user}",
            columns.replace("WHO", "who()")
        ),
        false => format!("SELECT {}", columns.replace("WHO", "'-'")),
    })
}

/// What a client says next.
pub(super) enum Said {
    /// One statement, in any protocol.
    Sql(String),
    /// A Query of several statements.
    Query(String),
    /// A pipeline.
    Batch(Vec<String>),
    /// These bytes.
    Frames(String, Vec<u8>),
}

/// What a client has said that it may come back to.
#[derive(Default)]
pub(super) struct Talk {
    savepoints: Vec<String>,
    /// Statements prepared by name.
    prepared: usize,
}

fn set(rng: &mut StdRng, how: &str) -> String {
    let (name, values) = SETTINGS.choose(rng).unwrap();
    let value = values.choose(rng).unwrap();
    let to = ["TO", "="].choose(rng).unwrap();
    let behind = ["", ";", " -- so", " /* so */ ;"].choose(rng).unwrap();
    match (*name, rng.random_range(0..6)) {
        ("TimeZone", 0) => format!("SET {how} TIME ZONE INTERVAL '+02:00' HOUR TO MINUTE"),
        ("TimeZone", 1) => format!("SET {how} TIME ZONE {value}"),
        ("role", 0..=2) if how.is_empty() => format!("SET ROLE {value}"),
        ("client_encoding", 0) => format!("SET {how} NAMES {value}"),
        (_, 0) => format!("SET {how} {name} {to} DEFAULT{behind}"),
        (_, 1) if !name.contains('.') => format!("SET {how} {name} FROM CURRENT{behind}"),
        _ => format!("SET {how} {name} {to} {value}{behind}"),
    }
}

fn set_config(rng: &mut StdRng, local: bool) -> String {
    let (name, values) = PLAIN.choose(rng).unwrap();
    let value = values.choose(rng).unwrap().replace('\'', "''");
    match rng.random_range(0..8) {
        1 => format!("SELECT pg_catalog.set_config('{name}', '{value}'::text, '{local}') AS x;"),
        2 => {
            let (other, values) = PLAIN.choose(rng).unwrap();
            let other_value = values.choose(rng).unwrap().replace('\'', "''");
            format!(
                "SELECT set_config('{name}', '{value}', {local}), set_config('{other}', '{other_value}', {local})"
            )
        }
        _ => format!("SELECT set_config('{name}', '{value}', {local})"),
    }
}

/// A statement that fails: on a shard, on any host, or before it comes to any.
fn wrong(rng: &mut StdRng) -> String {
    let user = rng.random_range(0..16);
    match rng.random_range(0..5) {
        0 => format!("SELECT 1 / (id - {user}) FROM users WHERE id = {user}"),
        1 => "SELECT 1/0".to_owned(),
        2 => "SET TimeZone TO 'Nowhere/At all'".to_owned(),
        3 => "SET work_mem TO 'much'".to_owned(),
        _ => "SELEC 1".to_owned(),
    }
}

impl Talk {
    pub(super) fn next(
        &mut self,
        rng: &mut StdRng,
        status: char,
        may_begin: bool,
        several: bool,
    ) -> Said {
        if status == 'I' {
            self.savepoints.clear();
        }
        match status {
            'E' => self.failed(rng),
            'T' => self.inside(rng),
            _ => self.outside(rng, may_begin, several),
        }
    }

    fn failed(&mut self, rng: &mut StdRng) -> Said {
        Said::Sql(match rng.random_range(0..6) {
            0 => "SHOW TimeZone".to_owned(),
            1 => set(rng, ""),
            2 => "COMMIT".to_owned(),
            3 if !self.savepoints.is_empty() => self.rollback_to(rng),
            4 if !self.savepoints.is_empty() => self.rollback_to(rng),
            _ => "ROLLBACK".to_owned(),
        })
    }

    fn rollback_to(&mut self, rng: &mut StdRng) -> String {
        let at = rng.random_range(0..self.savepoints.len());
        self.savepoints.truncate(at + 1);
        format!("ROLLBACK TO {}", self.savepoints[at])
    }

    fn inside(&mut self, rng: &mut StdRng) -> Said {
        Said::Sql(match rng.random_range(0..24) {
            0..=4 => set(rng, ""),
            5..=8 => set(rng, "LOCAL"),
            9 => set_config(rng, false),
            10 | 11 => set_config(rng, true),
            12 => reset(rng),
            13 | 14 => {
                let name = format!("sp{}", self.savepoints.len());
                self.savepoints.push(name.clone());
                format!("SAVEPOINT {name}")
            }
            15 | 16 if !self.savepoints.is_empty() => self.rollback_to(rng),
            17 if !self.savepoints.is_empty() => {
                let at = rng.random_range(0..self.savepoints.len());
                let name = self.savepoints[at].clone();
                self.savepoints.truncate(at);
                format!("RELEASE {name}")
            }
            18 => wrong(rng),
            19 => return self.prepared(rng),
            20 => {
                self.savepoints.clear();
                ["COMMIT AND CHAIN", "ROLLBACK AND CHAIN"]
                    .choose(rng)
                    .unwrap()
                    .to_string()
            }
            21 => "ROLLBACK".to_owned(),
            22 => return Said::Batch(vec![set(rng, "LOCAL"), set(rng, ""), look(rng)]),
            _ => "COMMIT".to_owned(),
        })
    }

    fn outside(&mut self, rng: &mut StdRng, may_begin: bool, several: bool) -> Said {
        Said::Sql(match rng.random_range(0..30) {
            0..=7 => set(rng, ""),
            8 => set(rng, "SESSION"),
            9 => set(rng, "LOCAL"),
            10 | 11 => set_config(rng, false),
            12 => set_config(rng, true),
            13 => reset(rng),
            14 => wrong(rng),
            15 => return self.prepared(rng),
            // Undone with what they stand with, or not.
            16 => return Said::Batch(vec![set(rng, ""), wrong(rng)]),
            17 => return Said::Batch(vec![wrong(rng), set(rng, "")]),
            18 => {
                return Said::Batch(vec![
                    set(rng, ""),
                    look(rng),
                    set(rng, ""),
                    set_config(rng, false),
                ]);
            }
            19 => return Said::Batch(vec![set(rng, "LOCAL"), look(rng), set(rng, "")]),
            20 => {
                return Said::Query(format!(
                    "{}; {}",
                    plain(&set(rng, "")),
                    plain(&set(rng, ""))
                ));
            }
            21 => return Said::Query(format!("{}; SELECT 1/0", plain(&set(rng, "")))),
            22 => {
                return Said::Query(format!(
                    "{}; {}; {}",
                    look(rng),
                    plain(&set(rng, "")),
                    look(rng)
                ));
            }
            23 => {
                return Said::Query(format!(
                    "BEGIN; {}; {}; ROLLBACK; {}",
                    look(rng),
                    plain(&set(rng, "LOCAL")),
                    look(rng)
                ));
            }
            24 => {
                return Said::Query(format!(
                    "BEGIN; {}; {}; COMMIT",
                    plain(&set(rng, "")),
                    plain(&set(rng, "LOCAL"))
                ));
            }
            25 => {
                let options = [
                    "READ ONLY",
                    "READ WRITE",
                    "ISOLATION LEVEL READ COMMITTED, DEFERRABLE",
                ];
                format!(
                    "SET SESSION CHARACTERISTICS AS TRANSACTION {}",
                    options.choose(rng).unwrap()
                )
            }
            _ if may_begin => {
                let isolation = match several {
                    true => "READ COMMITTED",
                    false => ["REPEATABLE READ", "SERIALIZABLE"].choose(rng).unwrap(),
                };
                match rng.random_range(0..6) {
                    0 => format!("BEGIN ISOLATION LEVEL {isolation}"),
                    1 => "START TRANSACTION READ ONLY".to_owned(),
                    2 => {
                        return Said::Batch(vec![
                            set(rng, ""),
                            "BEGIN".to_owned(),
                            set(rng, "LOCAL"),
                        ]);
                    }
                    3 => return Said::Batch(vec![look(rng), "BEGIN".to_owned(), look(rng)]),
                    _ => "BEGIN".to_owned(),
                }
            }
            _ => reset(rng),
        })
    }

    /// A statement is prepared under the settings of now, and run under those of later.
    fn prepared(&mut self, rng: &mut StdRng) -> Said {
        if self.prepared < 3 || rng.random_bool(0.2) {
            let name = format!("s{}", self.prepared);
            self.prepared += 1;
            let sql = match rng.random_bool(0.7) {
                true => "SELECT '01/02/03'::date, current_setting('DateStyle'), '02.03.2004'::timestamp".to_owned(),
                false => "SELECT '01/02/03'::date, '02/03/04 05:06'::timestamptz, name FROM users WHERE id = 7".to_owned(),
            };
            let frames = [p(&name, &sql), ds(&name), s()].concat();
            return Said::Frames(format!("prepare {name}: {sql}"), frames);
        }
        let name = format!("s{}", rng.random_range(0..self.prepared));
        let frames = [b("", &name, &[]), e("", 0), s()].concat();
        Said::Frames(format!("run {name}"), frames)
    }
}

/// As part of a message of several: without what ends a statement or comments on it.
fn plain(sql: &str) -> String {
    // The transaction of the message has begun.
    if sql.contains("default_transaction_") {
        let local = if sql.starts_with("SET LOCAL") {
            "LOCAL"
        } else {
            ""
        };
        return format!("SET {local} work_mem TO '9MB'");
    }
    let sql = sql.split(" -- ").next().unwrap();
    sql.trim_end_matches(';').to_owned()
}

fn reset(rng: &mut StdRng) -> String {
    match rng.random_range(0..6) {
        0 => "RESET ALL".to_owned(),
        1 => "DISCARD ALL".to_owned(),
        _ => format!("RESET {}", SETTINGS.choose(rng).unwrap().0),
    }
}
