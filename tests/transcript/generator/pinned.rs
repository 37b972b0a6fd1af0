//! Phrases about what lies in a session's server process: temporary tables, LISTEN, advisory locks, cursors WITH HOLD. `{n}` is the
//! stream's number, so that no stream meets what another has left for a moment.

use rand::Rng;

use super::Maker;

/// Temporary tables. Where there is none, `t` is a table of all.
const TABLES: &[&str] = &[
    "CREATE TEMP TABLE t (a int, b text)",
    "CREATE TEMP TABLE t (a int, b text)",
    "CREATE TEMPORARY TABLE IF NOT EXISTS t (a int PRIMARY KEY, b text)",
    "CREATE TEMP TABLE t (a int, b text) ON COMMIT DROP",
    "CREATE TEMP TABLE t (a int, b text) ON COMMIT DELETE ROWS",
    "CREATE TEMP TABLE t AS SELECT id AS a, note AS b FROM items WHERE user_id = {k} ORDER BY id",
    "INSERT INTO t VALUES (1, 'x'), (2, 'y')",
    "INSERT INTO t (a, b) SELECT g, repeat('g', g) FROM generate_series(1, 3) g",
    "SELECT a, b FROM t ORDER BY a, b",
    "SELECT count(*) FROM t",
    "SELECT t.a, i.note FROM t JOIN items i ON i.id = t.a WHERE i.user_id = {k} ORDER BY 1, 2",
    "UPDATE t SET b = 'z' WHERE a = 1",
    "DELETE FROM t WHERE a = 2 RETURNING a",
    "SELECT 1 / (a - 1) FROM t ORDER BY a",
    "COPY (SELECT a, b FROM t ORDER BY a, b) TO STDOUT",
    "DISCARD TEMP",
];

/// Channels.
const CHANNELS: &[&str] = &[
    "LISTEN ch{n}",
    "LISTEN ch{n}",
    "LISTEN \"Ch {n}\"",
    "UNLISTEN ch{n}",
    "UNLISTEN *",
    "NOTIFY ch{n}",
    "NOTIFY ch{n}, 'said'",
    "NOTIFY \"Ch {n}\", 'it''s'",
    "SELECT pg_notify('ch{n}', 'by function')",
];

/// Advisory locks of a session and of a transaction.
const LOCKS: &[&str] = &[
    "SELECT pg_advisory_lock({n})",
    "SELECT pg_advisory_lock(7, {n})",
    "SELECT pg_advisory_lock_shared({n})",
    "SELECT pg_try_advisory_lock({n})",
    "SELECT pg_advisory_xact_lock({n})",
    "SELECT pg_advisory_unlock({n})",
    "SELECT pg_advisory_unlock(7, {n})",
    "SELECT pg_advisory_unlock_shared({n})",
    "SELECT pg_advisory_unlock_all()",
];

/// Cursors that outlive their transaction.
const HELD: &[&str] = &[
    "DECLARE h CURSOR WITH HOLD FOR SELECT id, note FROM items WHERE user_id = {k} ORDER BY id",
    "DECLARE h CURSOR WITH HOLD FOR SELECT g FROM generate_series(1, 9) g",
    "DECLARE h SCROLL CURSOR WITH HOLD FOR SELECT id FROM items WHERE user_id = {j} ORDER BY id",
    "FETCH 2 FROM h",
    "FETCH h",
    "FETCH ALL FROM h",
    "MOVE 1 FROM h",
    "CLOSE h",
    "DISCARD ALL",
];

impl Maker {
    /// Statements about one kind of state, alone or in a block, with others in between.
    pub(super) fn pinned(&mut self) {
        let texts = [TABLES, CHANNELS, LOCKS, HELD][self.rng.random_range(0..4)];
        let in_block = self.rng.random_ratio(1, 3);
        if in_block {
            self.run("BEGIN");
        }
        for _ in 0..self.rng.random_range(2..9) {
            match self.rng.random_range(0..10) {
                0 => self.simple(),
                1 => self.settings(),
                2 => self.batch(),
                _ => {
                    let sql = self.pick(texts);
                    self.run(sql);
                }
            }
        }
        self.sync();
        if in_block {
            let end = self.pick(super::ENDS);
            self.run(end);
            self.sync();
        }
    }
}
