//! Counters of a proxy, in the Prometheus registry that `/metrics` prints.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use std::fmt;

/// All counters. Cheap to count with: one atomic add.
pub struct Stats {
    /// What `/metrics` gathers from.
    pub registry: Registry,
    routed: IntCounter,
    scattered: IntCounter,
    scattered_shards: IntCounter,
    refused: IntCounterVec,
    server_errors: IntCounter,
    servers_lost: IntCounter,
    logins_refused: IntCounter,
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
        let refused = IntCounterVec::new(Opts::new("presplit_refused_total", "Statements that the proxy refused, by SQLSTATE"), &["code"])?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Stats {
            routed: counter("presplit_statements_total", "Statements sent to one shard or host")?,
            scattered: counter("presplit_scattered_total", "Statements sent to several shards")?,
            scattered_shards: counter("presplit_scattered_shards_total", "Shards that those went to")?,
            refused,
            server_errors: counter("presplit_server_errors_total", "Statements that Postgres answered with an error")?,
            servers_lost: counter("presplit_servers_lost_total", "Server connections lost during a statement")?,
            logins_refused: counter("presplit_logins_refused_total", "Clients that could not log in")?,
            registry,
        })
    }

    pub(crate) fn routed(&self) {
        self.routed.inc();
    }

    pub(crate) fn scattered(&self, shards: usize) {
        self.scattered.inc();
        self.scattered_shards.inc_by(shards as u64);
    }

    pub(crate) fn refused(&self, code: impl fmt::Display) {
        self.refused.with_label_values(&[&code.to_string()]).inc();
    }

    pub(crate) fn server_error(&self) {
        self.server_errors.inc();
    }

    pub(crate) fn server_lost(&self) {
        self.servers_lost.inc();
    }

    pub(crate) fn login_refused(&self) {
        self.logins_refused.inc();
    }
}
