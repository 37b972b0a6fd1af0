//! Counters of a proxy, in the Prometheus registry that `/metrics` and `SHOW STATS` print.
//!
//! Only what is counted as it happens: what can be asked for (pools, clients, the map) is put beside it when somebody
//! looks. There is no histogram of latencies: two looks at the clock and an observation cost some 80 ns a statement,
//! and `pg_stat_statements` on the hosts has the times of the statements themselves.

use std::fmt;

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// All counters. On the path of a statement each is one atomic add: no label is looked up there.
pub struct Stats {
    /// What `/metrics` gathers from.
    pub registry: Registry,
    to_one: IntCounter,
    to_several: IntCounter,
    scattered_shards: IntCounter,
    refused: IntCounterVec,
    server_errors: IntCounter,
    servers_lost: IntCounter,
    cross_host_committed: IntCounter,
    cross_host_rolled_back: IntCounter,
    cross_host_unknown: IntCounter,
    logins: IntCounter,
    logins_refused: IntCounter,
    deadlocks_ended: IntCounter,
    long_waits_ended: IntCounter,
    recovered_committed: IntCounter,
    recovered_rolled_back: IntCounter,
}

impl Stats {
    /// Counters at 0 in a registry of their own.
    ///
    /// # Errors
    /// Never with these names; Prometheus checks them at run time.
    pub fn new() -> Result<Stats, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let labelled = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let statements = labelled(
            "presplit_statements_total",
            "Statements sent to hosts, by whether one shard (or host) or several answer",
            "shards",
        )?;
        let cross_host = labelled(
            "presplit_cross_host_transactions_total",
            "COMMITs of transactions that wrote on several hosts, by what the client was told",
            "outcome",
        )?;
        let recovered = labelled(
            "presplit_recovered_total",
            "Prepared transactions that recovery has ended on a host, by how",
            "outcome",
        )?;
        let waits_ended = labelled(
            "presplit_cross_host_waits_ended_total",
            "Waits for locks in transactions over several hosts that were ended with 40P01, by why: deadlock, or longer than cross_host_lock",
            "why",
        )?;
        Ok(Stats {
            deadlocks_ended: waits_ended.with_label_values(&["deadlock"]),
            long_waits_ended: waits_ended.with_label_values(&["cross_host_lock"]),
            recovered_committed: recovered.with_label_values(&["committed"]),
            recovered_rolled_back: recovered.with_label_values(&["rolled_back"]),
            cross_host_committed: cross_host.with_label_values(&["committed"]),
            cross_host_rolled_back: cross_host.with_label_values(&["rolled_back"]),
            cross_host_unknown: cross_host.with_label_values(&["unknown"]),
            to_one: statements.with_label_values(&["one"]),
            to_several: statements.with_label_values(&["several"]),
            scattered_shards: counter(
                "presplit_scattered_shards_total",
                "Shards that statements for several shards were sent to",
            )?,
            refused: labelled(
                "presplit_refused_total",
                "Statements that the proxy answered with an error of its own, by SQLSTATE",
                "code",
            )?,
            server_errors: counter(
                "presplit_server_errors_total",
                "Statements that a host answered with an error",
            )?,
            servers_lost: counter(
                "presplit_servers_lost_total",
                "Server connections lost while replies were owed",
            )?,
            logins: counter("presplit_logins_total", "Clients that logged in")?,
            logins_refused: counter(
                "presplit_logins_refused_total",
                "Clients that were turned away: wrong password, unknown database, too many, too slow, no host",
            )?,
            registry,
        })
    }

    pub(crate) fn routed(&self) {
        self.to_one.inc();
    }

    pub(crate) fn scattered(&self, shards: usize) {
        self.to_several.inc();
        self.scattered_shards.inc_by(shards as u64);
    }

    /// Looks a label up: for errors only, which are rare or cost more elsewhere.
    pub(crate) fn refused(&self, code: impl fmt::Display) {
        self.refused.with_label_values(&[&code.to_string()]).inc();
    }

    pub(crate) fn server_error(&self) {
        self.server_errors.inc();
    }

    pub(crate) fn server_lost(&self) {
        self.servers_lost.inc();
    }

    pub(crate) fn cross_host_committed(&self) {
        self.cross_host_committed.inc();
    }

    pub(crate) fn cross_host_rolled_back(&self) {
        self.cross_host_rolled_back.inc();
    }

    pub(crate) fn cross_host_unknown(&self) {
        self.cross_host_unknown.inc();
    }

    pub(crate) fn logged_in(&self) {
        self.logins.inc();
    }

    pub(crate) fn login_refused(&self) {
        self.logins_refused.inc();
    }

    pub(crate) fn deadlock_ended(&self) {
        self.deadlocks_ended.inc();
    }

    pub(crate) fn long_wait_ended(&self) {
        self.long_waits_ended.inc();
    }

    pub(crate) fn recovered_committed(&self) {
        self.recovered_committed.inc();
    }

    pub(crate) fn recovered_rolled_back(&self) {
        self.recovered_rolled_back.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_shows_in_the_registry() {
        let stats = Stats::new().unwrap();
        stats.routed();
        stats.scattered(7);
        stats.scattered(1);
        stats.refused("SR001");
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&stats.registry.gather())
            .unwrap();
        for line in [
            "presplit_statements_total{shards=\"one\"} 1",
            "presplit_statements_total{shards=\"several\"} 2",
            "presplit_scattered_shards_total 8",
            "presplit_refused_total{code=\"SR001\"} 1",
            "presplit_logins_total 0",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
    }
}
