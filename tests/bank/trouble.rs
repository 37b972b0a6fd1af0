//! What befalls the bank: everything is killed, cut and frozen in turn, and mended.

use std::process::Command;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::{Bank, HOSTS, Proxies};
use crate::support::{Several, texts};

#[derive(Clone, Copy, Debug)]
enum Kind {
    ProxyKilled,
    ProxyFrozen,
    /// Its hosts lose it while it is frozen, and end what it was at.
    ProxyFrozenAndCut,
    HostKilled,
    HostCrashed,
    HostFrozen,
    HostAndProxyKilled,
    TwoHostsKilled,
    BackendsTerminated,
    BackendKilled,
    NetworkCut,
    NetworkFrozen,
    NetworkShut,
}
use Kind::*;

const KINDS: [Kind; 13] = [
    ProxyKilled,
    ProxyFrozen,
    ProxyFrozenAndCut,
    HostKilled,
    HostCrashed,
    HostFrozen,
    HostAndProxyKilled,
    TwoHostsKilled,
    BackendsTerminated,
    BackendKilled,
    NetworkCut,
    NetworkFrozen,
    NetworkShut,
];

/// Until the time is up. Returns when the last thing was mended.
pub fn make(
    several: &mut Several,
    proxies: &mut Proxies,
    bank: &Bank,
    until: Instant,
    rng: &mut StdRng,
) -> Instant {
    let mut deck = Vec::new();
    loop {
        pause(rng, 100..700);
        if Instant::now() >= until || bank.is_over() {
            return Instant::now();
        }
        if deck.is_empty() {
            deck = KINDS.to_vec();
            deck.shuffle(rng);
        }
        let kind = deck.pop().unwrap();
        bank.count(&format!("x {kind:?}"));
        befall(kind, several, proxies, bank, rng);
        if Instant::now() >= until {
            return Instant::now();
        }
    }
}

fn pause(rng: &mut StdRng, ms: std::ops::Range<u64>) {
    std::thread::sleep(Duration::from_millis(rng.random_range(ms)));
}

fn befall(kind: Kind, several: &mut Several, proxies: &mut Proxies, bank: &Bank, rng: &mut StdRng) {
    let (host, proxy) = (rng.random_range(0..HOSTS), rng.random_range(0..2));
    let down = Duration::from_millis(rng.random_range(0..500));
    let event = |what: &str| {
        let event = format!("{kind:?} of host {host} or proxy {proxy} {what}");
        bank.events.lock().unwrap().push((Instant::now(), event));
    };
    event("begins");
    match kind {
        ProxyKilled => proxies.kill(proxy, bank, down),
        ProxyFrozen => {
            proxies.running[proxy].signal("STOP");
            pause(rng, 500..3000);
            proxies.running[proxy].signal("CONT");
        }
        ProxyFrozenAndCut => {
            proxies.running[0].signal("STOP");
            pause(rng, 0..500);
            several.relays[host].cut();
            pause(rng, 500..2000);
            proxies.running[0].signal("CONT");
        }
        HostKilled => {
            several.clusters[host].kill();
            pause(rng, 0..600);
            several.clusters[host].start();
        }
        HostCrashed => {
            several.clusters[host].crash();
            pause(rng, 0..600);
            several.clusters[host].start();
        }
        HostFrozen => {
            several.clusters[host].freeze();
            pause(rng, 500..3000);
            several.clusters[host].thaw();
        }
        HostAndProxyKilled => {
            several.clusters[host].kill();
            proxies.kill(proxy, bank, down);
            several.clusters[host].start();
        }
        TwoHostsKilled => {
            let other = (host + 1) % HOSTS;
            several.clusters[host].kill();
            several.clusters[other].kill();
            pause(rng, 0..300);
            several.clusters[host].start();
            pause(rng, 0..300);
            several.clusters[other].start();
        }
        BackendsTerminated => {
            let n = rng.random_range(1..6);
            // A server that is just recovering has none.
            if let Ok(mut direct) = several.try_direct(host) {
                direct.run(&format!(
                    "SELECT pg_terminate_backend(pid) FROM ({}) x",
                    some(n)
                ));
            }
        }
        BackendKilled => {
            if let Ok(mut direct) = several.try_direct(host) {
                for row in texts(&direct.run(&some(1))) {
                    // The postmaster then restarts all others.
                    let _ = Command::new("kill").args(["-9", &row[0]]).status();
                }
            }
        }
        NetworkCut => several.relays[host].cut(),
        NetworkFrozen => {
            several.relays[host].freeze();
            pause(rng, 300..3000);
            several.relays[host].open();
        }
        NetworkShut => {
            several.relays[host].shut();
            pause(rng, 200..1000);
            several.relays[host].open();
        }
    }
    event("is over");
}

/// Some server processes that work for a proxy, those in a transaction first.
fn some(n: u32) -> String {
    format!(
        "SELECT pid FROM pg_stat_activity WHERE datname = 'app' AND backend_type = 'client backend' AND pid <> pg_backend_pid() \
         ORDER BY (state = 'idle')::int, random() LIMIT {n}"
    )
}
