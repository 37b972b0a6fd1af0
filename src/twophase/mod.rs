//! Two-phase commit: how prepared transactions are named, the statements that Postgres is sent, and the board on which
//! sessions and recovery tell each other of transactions.
//!
//! A transaction that has written on several hosts is committed so. One of them is its *decision host*. (1) On all others
//! `PREPARE TRANSACTION`. (2) On the decision host a row in `presplit.decision` and `COMMIT`, in one message: with that the
//! transaction is committed. (3) On all others `COMMIT PREPARED`. (4) Some time later the row is deleted.
//!
//! What must hold:
//! * From before the first `PREPARE` until it ends, the decision host's own part holds the advisory lock
//!   [`Name::key`]. So whoever gets that lock there knows that the part has ended, and then the row says how: committed
//!   if it is there, else rolled back for ever. No clock and no lease is asked.
//! * The row is deleted only when no host has a prepared transaction of that name any more.
//! * Only transactions of our names, in a host's own database, are ever touched.

use std::fmt;

mod board;
mod name;
mod seam;

pub use board::{Board, InDoubt, Live, Outlook, Readiness, Ticket};
pub use name::{Home, KEY_CLASS, Name, Place, ProxyId};
pub use seam::Seam;

/// Makes the decision table. Sessions write to it in whatever role they have taken; none but its owner may read it.
/// `at` is for people. To be run in the app's database of each host.
pub const TABLE: &str = "CREATE SCHEMA IF NOT EXISTS presplit;
CREATE TABLE IF NOT EXISTS presplit.decision (
  name text PRIMARY KEY, hosts text[] NOT NULL, at timestamptz NOT NULL DEFAULT pg_catalog.now());
GRANT USAGE ON SCHEMA presplit TO PUBLIC;
GRANT INSERT ON presplit.decision TO PUBLIC";

/// Takes the lock of the transaction until it ends. On the decision host that is what recovery goes by; on the others
/// it shows which server processes are one transaction. Only we use keys of this kind.
///
/// If the proxy's machine is gone without a word, the host is to notice within a minute rather than after the two hours
/// of TCP's defaults: until then its part is open, and what is prepared elsewhere holds its locks.
pub fn mark(name: &Name) -> String {
    let keepalives = [("idle", 30), ("interval", 10), ("count", 3)].map(|(what, value)| {
        format!(", pg_catalog.set_config('tcp_keepalives_{what}', '{value}', true)")
    });
    format!(
        "SELECT pg_catalog.pg_advisory_xact_lock({}){}",
        name.key(),
        keepalives.concat()
    )
}

/// The first phase.
pub fn prepare(name: &Name) -> String {
    format!("PREPARE TRANSACTION {}", name.literal())
}

/// The decision: its row and COMMIT, which must be on disk when it is answered, whatever the session has set.
/// `hosts`: where the transaction is prepared, each a [`Place`]: a row that a killed proxy has left is swept only if all
/// of them are known. A bare name is for people; such a row stays.
pub fn decide(name: &Name, hosts: impl Iterator<Item = impl fmt::Display>) -> String {
    let hosts: Vec<String> = hosts.map(|host| literal(&host.to_string())).collect();
    format!(
        "INSERT INTO presplit.decision (name, hosts) SELECT {}, ARRAY[{}]::pg_catalog.text[] \
         WHERE CASE WHEN pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off' \
         THEN pg_catalog.set_config('synchronous_commit', 'on', true) ELSE '' END IS NOT NULL; COMMIT",
        name.literal(),
        hosts.join(", ")
    )
}

/// The second phase where the decision row is there.
pub fn commit_prepared(name: &Name) -> String {
    format!("COMMIT PREPARED {}", name.literal())
}

/// The second phase where it is not and will not be.
pub fn rollback_prepared(name: &Name) -> String {
    format!("ROLLBACK PREPARED {}", name.literal())
}

/// Asks what may be the decision host, in one message and one transaction, how it stands with these. Of each first a row
/// `name, ended`: whether no part is open here that may decide; then a row `name` of each that is committed.
///
/// * The lock is taken shared: two recoveries don't take each other for the transaction, and the transaction, which
///   takes it for itself alone, is told from both.
/// * READ COMMITTED, whatever the role's default is: the second statement's snapshot must be taken once the locks are
///   there. Postgres gives locks back after it has made a commit visible, so the snapshot shows what ended before.
/// * Only the database that the name tells can say so, whatever the connection was believed to lead to; and a standby
///   can't, for it has locks of its own.
/// * Of copies of one cluster several are asked. One on which the transaction is prepared is not its decision host, and it
///   is the prepared part that holds the lock there.
pub fn ask(names: &[Name]) -> String {
    let asked: Vec<String> = names
        .iter()
        .map(|name| {
            let Home { system, database } = name.home;
            let (name, key, system) = (name.literal(), name.key(), system as i64);
            format!("({name}, {key}::int8, '{system}'::int8, {database}::oid)")
        })
        .collect();
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL search_path = pg_catalog; \
         SELECT name, CASE WHEN pg_is_in_recovery() THEN false \
         WHEN system <> (SELECT system_identifier FROM pg_control_system()) THEN false \
         WHEN database <> (SELECT oid FROM pg_database WHERE datname = current_database()) THEN false \
         WHEN pg_try_advisory_xact_lock_shared(key) THEN true \
         ELSE EXISTS (SELECT FROM pg_prepared_xacts p WHERE p.gid = name AND p.database = current_database()) \
         END AS ended FROM (VALUES {}) AS asked (name, key, system, database); \
         SELECT name FROM presplit.decision WHERE name = ANY ({}); COMMIT",
        asked.join(", "),
        array(names)
    )
}

/// Deletes rows that are of no more use, on the decision host. A crash may bring them back, which does no harm.
pub fn delete_rows(names: &[Name]) -> String {
    format!(
        "SET LOCAL synchronous_commit = off; \
         DELETE FROM presplit.decision WHERE name OPERATOR(pg_catalog.=) ANY ({})",
        array(names)
    )
}

fn array(names: &[Name]) -> String {
    let names: Vec<String> = names.iter().map(Name::literal).collect();
    format!("ARRAY[{}]::pg_catalog.text[]", names.join(", "))
}

/// A string constant under `standard_conforming_strings` on or off: what could mean something else under one is left out.
fn literal(text: &str) -> String {
    let safe: String = text.chars().filter(|c| is_safe(*c)).collect();
    format!("'{}'", safe.replace('\'', "''"))
}

fn is_safe(c: char) -> bool {
    !c.is_control() && c != '\\'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements() {
        let name: Name = "presplit:1f.5:2a-3b:7:it's".parse().unwrap();
        assert_eq!(
            prepare(&name),
            "PREPARE TRANSACTION 'presplit:1f.5:2a-3b:7:it''s'"
        );
        assert_eq!(
            commit_prepared(&name),
            "COMMIT PREPARED 'presplit:1f.5:2a-3b:7:it''s'"
        );
        let decide = decide(&name, ["a", "b'"].into_iter());
        assert!(decide.contains("ARRAY['a', 'b''']"), "{decide}");
        assert!(decide.ends_with("; COMMIT"), "{decide}");
        assert_eq!(literal("a\\'b\0"), "'a''b'");
        let asked = ask(&[name]);
        assert!(
            asked.contains("ARRAY['presplit:1f.5:2a-3b:7:it''s']::pg_catalog.text[]"),
            "{asked}"
        );
    }
}
