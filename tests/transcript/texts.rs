//! The statements that streams are made of. `{k}` stands for the stream's user, `{j}` for another one of its own, who is in
//! another shard of the same host.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// The letters that stand for users, in the order of a stream's.
const USERS: [&str; 5] = ["{k}", "{j}", "{i}", "{h}", "{o}"];

/// The text about these users.
pub fn fill(sql: &str, users: &[i64]) -> String {
    let filled =
        |sql: String, (letter, user): (&&str, &i64)| sql.replace(*letter, &user.to_string());
    USERS.iter().zip(users).fold(sql.to_owned(), filled)
}

/// A parameter's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A user: bigint.
    Key,
    /// A small integer: int4.
    Int,
    /// A word: text.
    Word,
    /// The code of a country: text.
    Code,
    Bool,
}

/// A statement.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    pub sql: &'static str,
    pub params: &'static [Place],
    /// How many columns its rows have.
    pub columns: usize,
}

pub const fn t(sql: &'static str, params: &'static [Place], columns: usize) -> Text {
    Text {
        sql,
        params,
        columns,
    }
}

use Place::{Bool, Code, Int, Key, Word};

/// What reads.
pub const READS: &[Text] = &[
    t(
        "SELECT id, n, note FROM items WHERE user_id = {k} ORDER BY id",
        &[],
        3,
    ),
    t(
        "SELECT id, note FROM items WHERE user_id = {j} ORDER BY id",
        &[],
        2,
    ),
    t(
        "SELECT id, n, note FROM items WHERE user_id = $1 ORDER BY id",
        &[Key],
        3,
    ),
    t(
        "SELECT n FROM items WHERE user_id = $1 AND id = $2",
        &[Key, Int],
        1,
    ),
    t(
        "SELECT n, $3::text, id FROM items WHERE id > $1 AND user_id = $2 ORDER BY id",
        &[Int, Key, Word],
        3,
    ),
    t(
        "SELECT count(*), sum(n), max(note) FROM items WHERE user_id = $1",
        &[Key],
        3,
    ),
    t(
        "SELECT i.id, u.name FROM items i JOIN users u ON u.id = i.user_id WHERE u.id = $1 ORDER BY 1",
        &[Key],
        2,
    ),
    t("SELECT * FROM users WHERE id = {k}", &[], 2),
    t(
        "SELECT id FROM items WHERE user_id = {k} ORDER BY id FOR UPDATE",
        &[],
        1,
    ),
    t(
        "WITH x AS (SELECT id FROM items WHERE user_id = {k}) SELECT count(*) FROM x",
        &[],
        1,
    ),
    t(
        "SELECT i.id, c.name FROM items i, countries c WHERE i.user_id = $1 AND c.code = $2 ORDER BY 1",
        &[Key, Code],
        2,
    ),
    t("SELECT name FROM countries WHERE code = $1", &[Code], 1),
    t(
        "SELECT * FROM countries WHERE code IN ('at', 'de') ORDER BY code",
        &[],
        2,
    ),
    t(
        "SELECT user_id, id FROM items WHERE user_id = {k} AND note = $1 ORDER BY id",
        &[Word],
        2,
    ),
    t(
        "SELECT id, note FROM items WHERE user_id = {k} AND id = ANY('{1,3}') ORDER BY id DESC LIMIT 1",
        &[],
        2,
    ),
];

/// What needs no table.
pub const BARE: &[Text] = &[
    t("SELECT 1", &[], 1),
    t("SELECT 1 AS a, 'x'::text AS b, NULL AS c", &[], 3),
    t("SELECT $1::int + 1", &[Int], 1),
    t("SELECT $1 || '!' AS word", &[Word], 1),
    t("SELECT $1", &[Word], 1),
    t("SELECT $2::text, $1::boolean", &[Bool, Word], 2),
    t("SELECT g FROM generate_series(1, 5) g", &[], 1),
    t(
        "SELECT g, repeat('x', g) FROM generate_series($1::int, 7) g",
        &[Int],
        2,
    ),
    t("SELECT repeat('long', 5000)", &[], 1),
    t("VALUES (1, 'a'), (2, 'b'), (3, NULL)", &[], 2),
    t(
        "SELECT date '2026-01-02', timestamptz '2026-01-02 03:04:05+00', interval '1 day 2 hours'",
        &[],
        3,
    ),
    t(
        "SELECT '\\xdead'::bytea, 1.5::float8 / 3, 1.10::numeric",
        &[],
        3,
    ),
    t(
        "SELECT current_setting('work_mem'), current_setting('application_name')",
        &[],
        2,
    ),
    t("SELECT current_user, session_user", &[], 2),
    t("SELECT 'gr\u{fc}\u{df}e', 'a\\b'", &[], 2),
    t("SELECT", &[], 0),
    t("", &[], 0),
    t(";", &[], 0),
    t("-- nothing", &[], 0),
];

/// What writes.
pub const WRITES: &[Text] = &[
    t(
        "INSERT INTO items (user_id, id, n, note) VALUES ({k}, 9, 1, 'nine')",
        &[],
        0,
    ),
    t(
        "INSERT INTO items (user_id, id, n, note) VALUES ($1, $2, $3, $4) RETURNING id, note",
        &[Key, Int, Int, Word],
        2,
    ),
    t(
        "INSERT INTO items (user_id, id, n) VALUES ($1, $2, $3) ON CONFLICT (user_id, id) DO UPDATE SET n = items.n + 1 RETURNING n",
        &[Key, Int, Int],
        1,
    ),
    t(
        "INSERT INTO items (user_id, id, n) VALUES ({k}, 20, 1), ({k}, 21, 2), ({k}, 22, 3) ON CONFLICT DO NOTHING",
        &[],
        0,
    ),
    t(
        "INSERT INTO items (id, user_id, n, note) SELECT id + 30, user_id, n, 'copied' FROM items WHERE user_id = {k} AND id < 30 ON CONFLICT DO NOTHING",
        &[],
        0,
    ),
    t("UPDATE items SET n = n + 1 WHERE user_id = {k}", &[], 0),
    t(
        "UPDATE items SET note = $3 WHERE user_id = $1 AND id = $2 RETURNING id, n, note",
        &[Key, Int, Word],
        3,
    ),
    t(
        "UPDATE items SET note = 'loud' WHERE user_id = {k} AND id < 3",
        &[],
        0,
    ),
    t("UPDATE users SET name = $2 WHERE id = $1", &[Key, Word], 0),
    t(
        "DELETE FROM items WHERE user_id = $1 AND id = $2",
        &[Key, Int],
        0,
    ),
    t(
        "DELETE FROM items WHERE user_id = {k} AND id > 5 RETURNING user_id",
        &[],
        1,
    ),
    t("DELETE FROM users WHERE id = {j}", &[], 0),
    t("INSERT INTO users (id, name) VALUES ({j}, 'again')", &[], 0),
    t(
        "UPDATE items SET n = 5000 WHERE user_id = {k} AND id = 1",
        &[],
        0,
    ),
];

/// What fails, at once or in the middle of its rows.
pub const FAILS: &[Text] = &[
    t("SELEC 1", &[], 0),
    t("SELECT 1 FROM items WHERE user_id = {k} AND", &[], 0),
    t("SELECT 1/0", &[], 1),
    t(
        "SELECT 100 / (id - 3) FROM items WHERE user_id = {k} ORDER BY id",
        &[],
        1,
    ),
    t(
        "SELECT n / $2 FROM items WHERE user_id = $1 ORDER BY id",
        &[Key, Int],
        1,
    ),
    t("SELECT nosuch FROM items WHERE user_id = {k}", &[], 1),
    t("SELECT id, nosuch FROM items WHERE user_id = $1", &[Key], 2),
    t("SELECT nosuch(1) /* presplit: key={k} */", &[], 1),
    t("SELECT 'x'::int", &[], 1),
    t("SELECT $1::int, 5 / $2::int", &[Word, Int], 2),
    t(
        "INSERT INTO items (user_id, id, n) VALUES ({k}, 1, 1)",
        &[],
        0,
    ),
    t(
        "INSERT INTO items (user_id, id, nosuch) VALUES ({k}, 1, 1)",
        &[],
        0,
    ),
    t(
        "INSERT INTO items (user_id, id, n) VALUES ($1, NULL, $2)",
        &[Key, Int],
        0,
    ),
    t("UPDATE items SET nosuch = 1 WHERE user_id = {k}", &[], 0),
    t("SELECT g / (g - 3) FROM generate_series(1, 5) g", &[], 1),
];

/// What says something beside its answer.
pub const NOTICES: &[Text] = &[
    t("SELECT speak('notice') /* presplit: key={k} */", &[], 1),
    t(
        "SELECT speak('warning'), speak($1) /* presplit: key={k} */",
        &[Word],
        2,
    ),
    t("SELECT speak('exception') /* presplit: key={k} */", &[], 1),
    t(
        "UPDATE items SET note = 'loud' WHERE user_id = $1",
        &[Key],
        0,
    ),
    t(
        "SELECT speak(note) FROM items WHERE user_id = {k} ORDER BY id",
        &[],
        1,
    ),
];

/// Transactions.
pub const BLOCKS: &[&str] = &[
    "BEGIN",
    "BEGIN",
    "START TRANSACTION",
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "BEGIN READ ONLY",
    "BEGIN ISOLATION LEVEL SERIALIZABLE, READ WRITE, DEFERRABLE",
];
pub const ENDS: &[&str] = &[
    "COMMIT",
    "COMMIT",
    "END",
    "ROLLBACK",
    "ROLLBACK",
    "ABORT",
    "COMMIT AND CHAIN",
    "ROLLBACK AND CHAIN",
    "COMMIT WORK",
];
pub const IN_BLOCKS: &[&str] = &[
    "SAVEPOINT a",
    "SAVEPOINT b",
    "SAVEPOINT a",
    "RELEASE a",
    "RELEASE SAVEPOINT b",
    "ROLLBACK TO a",
    "ROLLBACK TO SAVEPOINT b",
    "ROLLBACK TO nosuch",
    "SET TRANSACTION READ ONLY",
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "SHOW transaction_isolation",
    "SHOW transaction_read_only",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "SET CONSTRAINTS ALL DEFERRED",
];

/// Settings. Some are reported to the client, some can't be, some are none. Left out is what presplit refuses:
/// `standard_conforming_strings = off`, a default isolation above READ COMMITTED, SESSION AUTHORIZATION.
pub const SETTINGS: &[&str] = &[
    "SET work_mem = '7MB'",
    "SET work_mem TO 8192",
    "SET LOCAL work_mem = '9MB'",
    "SHOW work_mem",
    "RESET work_mem",
    "SET work_mem = 'x'",
    "SET work_mem TO DEFAULT",
    "SELECT set_config('work_mem', '10MB', false)",
    "SELECT set_config('work_mem', '11MB', true)",
    "SELECT set_config('application_name', 'mine', false)",
    "SET application_name = 'me'",
    "SET LOCAL application_name = 'local me'",
    "SHOW application_name",
    "RESET application_name",
    "SET TimeZone = 'Europe/Vienna'",
    "SET TIME ZONE 'UTC'",
    "SET LOCAL TIME ZONE 'America/New_York'",
    "SHOW TimeZone",
    "SHOW TIME ZONE",
    "SET DateStyle = 'German'",
    "SET DateStyle TO SQL, DMY",
    "SHOW DateStyle",
    "SET IntervalStyle = 'iso_8601'",
    "SET bytea_output = 'escape'",
    "SET extra_float_digits = -10",
    "SET app.user = '42'",
    "SET LOCAL app.user = '43'",
    "SHOW app.user",
    "SELECT current_setting('app.user', true)",
    "RESET app.user",
    "SET nosuch = 1",
    "SHOW nosuch",
    "RESET ALL",
    "SET client_min_messages = 'error'",
    "SET client_min_messages = 'warning'",
    "RESET client_min_messages",
    "SET standard_conforming_strings = on",
    "SET client_encoding = 'LATIN1'",
    "SET client_encoding TO 'UTF8'",
    "SET default_transaction_read_only = on",
    "SET default_transaction_read_only = off",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SET search_path = public, pg_catalog",
    "SHOW search_path",
    "SET statement_timeout = '5min'",
    "SHOW statement_timeout",
    "SET ROLE other",
    "SET ROLE NONE",
    "RESET ROLE",
    "SHOW server_version",
    "SHOW is_superuser",
    "RESET SESSION AUTHORIZATION",
];

/// What ends the session's state, or part of it. Left out is CLOSE ALL: of a SET TRANSACTION ISOLATION LEVEL behind it Postgres
/// says that it comes too late, as CLOSE has a snapshot, too.
pub const DISCARDS: &[&str] = &[
    "DISCARD ALL",
    "DISCARD PLANS",
    "DISCARD SEQUENCES",
    "DISCARD TEMP",
    "DEALLOCATE ALL",
    "DEALLOCATE a",
    "DEALLOCATE PREPARE b",
    "DEALLOCATE nosuch",
    "UNLISTEN *",
];

/// Cursors; the names are those of portals, too.
pub const CURSORS: &[&str] = &[
    "DECLARE c CURSOR FOR SELECT id, note FROM items WHERE user_id = {k} ORDER BY id",
    "DECLARE x SCROLL CURSOR FOR SELECT id FROM items WHERE user_id = {j} ORDER BY id",
    "DECLARE c CURSOR FOR SELECT g FROM generate_series(1, 9) g",
    "DECLARE c BINARY CURSOR FOR SELECT id FROM items WHERE user_id = {k} ORDER BY id",
    "DECLARE c CURSOR FOR SELECT 1 / (id - 3) FROM items WHERE user_id = {k} ORDER BY id",
    "FETCH 2 FROM c",
    "FETCH c",
    "FETCH ALL FROM c",
    "FETCH NEXT IN c",
    "FETCH PRIOR FROM x",
    "FETCH BACKWARD 1 FROM x",
    "FETCH ABSOLUTE 2 FROM x",
    "FETCH FIRST FROM c",
    "MOVE 1 FROM c",
    "MOVE ALL IN x",
    "FETCH 1 FROM nosuch",
    "CLOSE c",
    "CLOSE x",
    "CLOSE nosuch",
];

/// COPY, both ways.
pub const COPY_IN: &[&str] = &[
    "COPY items (user_id, id, n, note) FROM STDIN /* presplit: key={k} */",
    "COPY items (user_id, id, n, note) FROM STDIN (FORMAT csv) /* presplit: key={k} */",
    "COPY items (user_id, id, n, note) FROM STDIN",
    "COPY items (user_id, nosuch) FROM STDIN",
];
pub const COPY_OUT: &[&str] = &[
    "COPY (SELECT id, n, note FROM items WHERE user_id = {k} ORDER BY id) TO STDOUT",
    "COPY (SELECT id, note FROM items WHERE user_id = {k} ORDER BY id) TO STDOUT (FORMAT csv, HEADER)",
    "COPY (SELECT id FROM items WHERE user_id = {k} ORDER BY id) TO STDOUT (FORMAT binary)",
    "COPY (SELECT 1 / (id - 3) FROM items WHERE user_id = {k} ORDER BY id) TO STDOUT",
    "COPY (SELECT g FROM generate_series(1, 3) g) TO STDOUT",
];

/// What takes until it is cancelled.
pub const LONG: &str = "SELECT slow() /* presplit: key={k} */";

impl Place {
    /// The type that a driver states for it.
    pub fn oid(self) -> u32 {
        match self {
            Place::Key => 20,
            Place::Int => 23,
            Place::Word | Place::Code => 25,
            Place::Bool => 16,
        }
    }

    /// Its type as PREPARE has it.
    pub fn type_name(self) -> &'static str {
        match self {
            Place::Key => "bigint",
            Place::Int => "int",
            Place::Word | Place::Code => "text",
            Place::Bool => "boolean",
        }
    }

    /// A value as it is written in SQL.
    pub fn literal(self, rng: &mut StdRng, users: &[i64]) -> String {
        let text = String::from_utf8(self.value(rng, users).0).unwrap();
        let quoted = format!("'{}'", text.replace('\'', "''"));
        let number = matches!(self, Place::Key | Place::Int);
        match rng.random_range(0..8) {
            0 if self != Place::Key => "NULL".to_owned(),
            1 | 2 => quoted,
            3 => format!("{quoted}::{}", self.type_name()),
            4 if self == Place::Int => format!("{text} + 1"),
            5 if self == Place::Word => format!("{quoted} || '!'"),
            _ if self == Place::Bool => (text == "t").to_string(),
            _ if number => text,
            _ => quoted,
        }
    }

    /// A value, as text and in binary (of the type that [`Place::oid`] names).
    pub fn value(self, rng: &mut StdRng, users: &[i64]) -> (Vec<u8>, Vec<u8>) {
        match self {
            Place::Key => {
                let key = match users {
                    [user, other] => [*user, *other][usize::from(rng.random_ratio(1, 4))],
                    _ => *users.choose(rng).unwrap(),
                };
                (key.to_string().into_bytes(), key.to_be_bytes().to_vec())
            }
            Place::Int => {
                let n = rng.random_range(0..7i32);
                (n.to_string().into_bytes(), n.to_be_bytes().to_vec())
            }
            Place::Word => {
                let words = ["loud", "x", "", "gr\u{fc}n", "warning", "it's", "a\tb"];
                let word = words.choose(rng).unwrap();
                (word.as_bytes().to_vec(), word.as_bytes().to_vec())
            }
            Place::Code => {
                let code = *["at", "de", "xx"].choose(rng).unwrap();
                (code.as_bytes().to_vec(), code.as_bytes().to_vec())
            }
            Place::Bool => {
                let yes = rng.random_bool(0.5);
                ((if yes { "t" } else { "f" }).into(), vec![u8::from(yes)])
            }
        }
    }
}
