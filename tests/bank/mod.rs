//! The bank: clients transfer between accounts of several hosts while proxies, hosts, server processes and connections are
//! killed, cut and frozen. Afterwards each account has what its entries say, each transfer stands on all its accounts or on
//! none, each acknowledged one stands, none that was refused, and nothing is left locked.

mod client;
mod driver;
mod trouble;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::support::wire::{Part, Wire};
use crate::support::{Proxy, Several, Way, texts};

const HOSTS: usize = 3;
const SHARDS: i64 = 48;
const ACCOUNTS: i64 = 1000;
const CLIENTS: usize = 32;
/// What each account has at first.
const START: i64 = 1000;
/// After the last restart all accounts must be free within this.
const LOCKS_FREE: Duration = Duration::from_secs(10);
/// A proxy that was started has swept all decisions within this.
const SWEPT: Duration = Duration::from_secs(20);

/// `tips` and `tip` are changed by statements that go to several hosts by themselves, `notes` by such INSERTs.
const SCHEMA: &str = "
CREATE TABLE accounts (user_id bigint PRIMARY KEY, balance bigint NOT NULL, tip bigint NOT NULL DEFAULT 0, tips bigint[] NOT NULL DEFAULT '{}');
CREATE TABLE transfers (user_id bigint NOT NULL, id bigint NOT NULL, amount bigint NOT NULL, PRIMARY KEY (user_id, id));
CREATE TABLE notes (user_id bigint NOT NULL, id bigint NOT NULL, PRIMARY KEY (user_id, id));
";
const PROXY: &str = "[proxy.timeouts]\ncross_host_step = \"2s\"\ncross_host_lock = \"3s\"\ncheckout_wait = \"5s\"\nconnect = \"2s\"";

/// What is known of a transfer when its client is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The client was told that it is there.
    There,
    /// The client was told that it isn't, or gave it up.
    Absent,
    /// The client can't know.
    Unknown,
}

/// Where its traces are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trace {
    Transfers,
    Notes,
    Tips,
}

#[derive(Clone, Debug)]
struct Transfer {
    trace: Trace,
    /// What each account gets; the sum is 0.
    legs: Vec<(i64, i64)>,
    fate: Fate,
    /// How it was made, and what the client heard last.
    how: String,
}

/// What all clients share.
struct Bank {
    /// Where the proxies listen now.
    addrs: Mutex<Vec<SocketAddr>>,
    stop: AtomicBool,
    next: AtomicU64,
    transfers: Mutex<HashMap<i64, Transfer>>,
    faults: Mutex<Vec<String>>,
    counts: Mutex<BTreeMap<String, u64>>,
    /// What befell when.
    events: Mutex<Vec<(Instant, String)>>,
}

impl Bank {
    fn fault(&self, what: String) {
        self.faults.lock().unwrap().push(what);
        self.stop.store(true, Ordering::Relaxed);
    }

    fn count(&self, what: &str) {
        let mut counts = self.counts.lock().unwrap();
        *counts.entry(what.to_owned()).or_default() += 1;
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn id(&self) -> i64 {
        self.next.fetch_add(1, Ordering::Relaxed) as i64
    }

    fn addr(&self, n: usize) -> SocketAddr {
        let addrs = self.addrs.lock().unwrap();
        addrs[n % addrs.len()]
    }
}

/// The proxies: the first finds the hosts through relays, the other directly, and by other names.
struct Proxies {
    running: Vec<Proxy>,
    maps: Vec<std::path::PathBuf>,
    /// What those said that are gone.
    logs: String,
}

impl Proxies {
    fn start(several: &Several) -> Proxies {
        let maps = vec![
            several.write_map("one", 0, Way::Relayed, PROXY),
            several.write_map("other", 7, Way::Direct, PROXY),
        ];
        let running = maps.iter().map(|map| Proxy::serve(map, &[])).collect();
        let logs = String::new();
        Proxies {
            running,
            maps,
            logs,
        }
    }

    fn kill(&mut self, n: usize, bank: &Bank, down: Duration) {
        let other = self.running.remove(n);
        self.logs.push_str(&other.kill());
        std::thread::sleep(down);
        let again = Proxy::serve(&self.maps[n], &[]);
        self.running.insert(n, again);
        *bank.addrs.lock().unwrap() = self.addrs();
    }

    fn addrs(&self) -> Vec<SocketAddr> {
        self.running.iter().map(Proxy::addr).collect()
    }

    fn assert_sound(&self) {
        let mut logs = self.logs.clone();
        logs.extend(self.running.iter().map(Proxy::log));
        let loud: Vec<&str> = logs
            .lines()
            .filter(|line| line.contains("panicked"))
            .collect();
        assert!(loud.is_empty(), "{loud:#?}");
    }
}

fn open_accounts(several: &Several) {
    for host in 0..HOSTS {
        let mut direct = several.direct(host);
        for shard in several.shards_of(host) {
            direct.run(&format!(
                "INSERT INTO shard_{shard:04}.accounts SELECT u, {START} FROM generate_series({shard}, {}, {SHARDS}) u",
                ACCOUNTS - 1
            ));
        }
    }
}

/// Waits until each account can be locked, on all hosts at once.
fn accounts_free(several: &Several, since: Instant) -> Result<Duration, String> {
    let free = |host: usize| -> Result<(), String> {
        for shard in several.shards_of(host) {
            // A lock that is left makes it wait; so does a server that recovers.
            let sql = format!("UPDATE shard_{shard:04}.accounts SET balance = balance");
            loop {
                let answer = several.try_direct(host).and_then(|mut direct| {
                    direct.run("SET lock_timeout = '200ms'");
                    direct.ask(&crate::support::raw::q(&sql))
                });
                let done = matches!(answer.as_deref(), Ok([Part::Tag(_), Part::Ready('I')]));
                if done {
                    break;
                }
                if since.elapsed() > LOCKS_FREE {
                    return Err(format!(
                        "host {host}, shard {shard} is not free after {:?}: {answer:?}",
                        since.elapsed()
                    ));
                }
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let free = &free;
        let all: Vec<_> = (0..HOSTS)
            .map(|host| scope.spawn(move || free(host)))
            .collect();
        all.into_iter().try_for_each(|one| one.join().unwrap())
    })?;
    Ok(since.elapsed())
}

/// All that stands: balance and tip of each account, and what each transfer gave to whom.
#[derive(Default)]
struct Books {
    accounts: HashMap<i64, (i64, i64)>,
    legs: HashMap<i64, Vec<(Trace, i64, i64)>>,
}

fn books(several: &Several) -> Books {
    let mut books = Books::default();
    for host in 0..HOSTS {
        let mut direct = several.direct(host);
        for shard in several.shards_of(host) {
            let mut rows = |sql: &str| -> Vec<Vec<i64>> {
                let sql = sql.replace("{s}", &format!("shard_{shard:04}"));
                let number = |text: String| text.parse().unwrap();
                let rows = texts(&direct.run(&sql));
                rows.into_iter()
                    .map(|row| row.into_iter().map(number).collect())
                    .collect()
            };
            for row in rows("SELECT user_id, balance, tip FROM {s}.accounts") {
                assert_eq!(
                    row[0] % SHARDS,
                    shard,
                    "account {} in shard {shard}",
                    row[0]
                );
                books.accounts.insert(row[0], (row[1], row[2]));
            }
            let mut note = |trace: Trace, sql: &str| {
                for row in rows(sql) {
                    let leg = (trace, row[0], row[2]);
                    books.legs.entry(row[1]).or_default().push(leg);
                }
            };
            note(
                Trace::Transfers,
                "SELECT user_id, id, amount FROM {s}.transfers",
            );
            note(Trace::Notes, "SELECT user_id, id, 0 FROM {s}.notes");
            note(
                Trace::Tips,
                "SELECT user_id, unnest(tips), 0 FROM {s}.accounts",
            );
        }
    }
    books
}

/// The books against what the clients know.
fn audit(bank: &Bank, books: &Books) -> Vec<String> {
    let mut faults = Vec::new();
    let sum: i64 = books.accounts.values().map(|(balance, _)| balance).sum();
    let tips: i64 = books.accounts.values().map(|(_, tip)| tip).sum();
    if (books.accounts.len() as i64, sum, tips) != (ACCOUNTS, ACCOUNTS * START, 0) {
        faults.push(format!(
            "{} accounts, sum {sum}, tips {tips}",
            books.accounts.len()
        ));
    }
    let transfers = bank.transfers.lock().unwrap();
    let mut should: HashMap<i64, (i64, i64)> = HashMap::new();
    for (id, transfer) in &*transfers {
        let mut expected: Vec<_> = transfer.legs.clone();
        let mut found = books.legs.get(id).cloned().unwrap_or_default();
        for (trace, user, amount) in &mut found {
            if *trace != transfer.trace {
                faults.push(format!(
                    "transfer {id} left a trace in {trace:?}: {transfer:?}"
                ));
            }
            // Notes and tips say no amount.
            if *trace != Trace::Transfers {
                let leg = expected.iter().find(|leg| leg.0 == *user);
                *amount = leg.map_or(0, |leg| leg.1);
            }
        }
        let mut found: Vec<(i64, i64)> = found.into_iter().map(|(_, u, a)| (u, a)).collect();
        expected.sort();
        found.sort();
        let stands = !found.is_empty();
        if stands && found != expected {
            faults.push(format!(
                "transfer {id} stands in parts: {found:?} of {transfer:?}"
            ));
        }
        match transfer.fate {
            Fate::There if !stands => {
                faults.push(format!("acknowledged and lost: {id} {transfer:?}"))
            }
            Fate::Absent if stands => faults.push(format!("refused and there: {id} {transfer:?}")),
            _ => {}
        }
        if stands {
            for (user, amount) in &expected {
                let account = should.entry(*user).or_default();
                match transfer.trace {
                    Trace::Transfers => account.0 += amount,
                    Trace::Tips => account.1 += amount,
                    Trace::Notes => {}
                }
            }
        }
    }
    for id in books.legs.keys().filter(|id| !transfers.contains_key(id)) {
        faults.push(format!("transfer {id} was never made"));
    }
    for (user, (balance, tip)) in &books.accounts {
        let (moved, tipped) = should.get(user).copied().unwrap_or_default();
        if (*balance, *tip) != (START + moved, tipped) {
            faults.push(format!(
                "account {user} has {balance} and {tip}, its entries say {} and {tipped}",
                START + moved
            ));
        }
    }
    faults
}

fn tell(several: &Several, bank: &Bank) {
    let transfers = bank.transfers.lock().unwrap();
    let mut fates: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    for transfer in transfers.values() {
        let mut hosts: Vec<usize> = transfer
            .legs
            .iter()
            .map(|(user, _)| several.host_of(*user))
            .collect();
        hosts.sort();
        hosts.dedup();
        let kind = format!("on {} hosts", hosts.len());
        fates.entry(kind).or_default()[transfer.fate as usize] += 1;
    }
    for (kind, [there, absent, unknown]) in fates {
        eprintln!(
            "transfers {kind}: {there} acknowledged, {absent} refused or given up, {unknown} unknown"
        );
    }
    for (what, n) in &*bank.counts.lock().unwrap() {
        eprintln!("{n:8} {what}");
    }
}

/// What the server processes are at, and what is prepared.
const BUSY: &str = "SELECT concat_ws(' ', current_setting('port'), pid, client_port, state, wait_event, pg_blocking_pids(pid), now() - state_change, query) \
    FROM pg_stat_activity WHERE datname = 'app' AND state <> 'idle' AND pid <> pg_backend_pid() \
    UNION ALL SELECT concat_ws(' ', current_setting('port'), gid, now() - prepared) FROM pg_prepared_xacts";

/// Rounds of trouble, each with an audit behind it.
fn run(rounds: u32, time: Duration, seed: u64) {
    let mut several = Several::provisioned(HOSTS, SHARDS, SCHEMA);
    open_accounts(&several);
    let mut proxies = Proxies::start(&several);
    let bank = Bank {
        addrs: Mutex::new(proxies.addrs()),
        stop: AtomicBool::new(false),
        next: AtomicU64::new(1),
        transfers: Mutex::default(),
        faults: Mutex::default(),
        counts: Mutex::default(),
        events: Mutex::default(),
    };
    for round in 0..rounds {
        bank.stop.store(false, Ordering::Relaxed);
        let seed = seed.wrapping_mul(1000).wrapping_add(u64::from(round) * 100);
        let restarted = std::thread::scope(|scope| {
            for n in 0..CLIENTS {
                let bank = &bank;
                scope.spawn(move || client::run(bank, n, seed + n as u64));
            }
            let until = Instant::now() + time;
            let mut rng = StdRng::seed_from_u64(seed + 99);
            let restarted = trouble::make(&mut several, &mut proxies, &bank, until, &mut rng);
            bank.stop.store(true, Ordering::Relaxed);
            restarted
        });
        let faults = bank.faults.lock().unwrap().clone();
        if !faults.is_empty() {
            tell(&several, &bank);
            for line in several.everywhere(BUSY) {
                eprintln!("{line}");
            }
            for (at, event) in &*bank.events.lock().unwrap() {
                eprintln!("{:?} ago: {event}", at.elapsed());
            }
            let ss = std::process::Command::new("ss")
                .arg("-tnp")
                .output()
                .unwrap();
            eprintln!("{}", String::from_utf8_lossy(&ss.stdout));
            for addr in proxies.addrs() {
                for show in ["SHOW TRANSACTIONS", "SHOW CLIENTS", "SHOW POOLS"] {
                    for row in texts(&Wire::connect(addr, "presplit").run(show)) {
                        eprintln!("{addr} {show} {row:?}");
                    }
                }
            }
        }
        assert!(faults.is_empty(), "seed {seed}: {faults:#?}");
        proxies.assert_sound();
        let free = accounts_free(&several, restarted).unwrap();
        let parts = several
            .no_part_left(LOCKS_FREE.saturating_sub(restarted.elapsed()))
            .unwrap();
        let faults = audit(&bank, &books(&several));
        eprintln!(
            "round {round}: free {free:?} after the last restart, no part left after {parts:?} more"
        );
        if !faults.is_empty() {
            tell(&several, &bank);
            panic!(
                "{} faults, seed {seed}: {:#?}",
                faults.len(),
                &faults[..faults.len().min(10)]
            );
        }
    }
    // A proxy that has just started sweeps soon.
    proxies.kill(0, &bank, Duration::ZERO);
    several.no_decision_left(SWEPT).unwrap();
    tell(&several, &bank);
    let transfers = bank.transfers.into_inner().unwrap();
    let over_hosts = |t: &&Transfer| {
        let first = several.host_of(t.legs[0].0);
        t.legs
            .iter()
            .any(|(user, _)| several.host_of(*user) != first)
    };
    let there = |t: &&Transfer| t.fate == Fate::There;
    let n = transfers.values().filter(there).filter(over_hosts).count();
    assert!(
        n as u128 > 5 * time.as_secs() as u128 * u128::from(rounds),
        "only {n} transfers over several hosts"
    );
}

#[test]
fn no_money_is_made_or_lost_in_trouble() {
    run(1, Duration::from_secs(12), 1);
}

#[test]
#[ignore = "takes minutes: make bank"]
fn no_money_is_made_or_lost_in_much_trouble() {
    let number =
        |name: &str, usual: u64| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (seconds, round) = (number("BANK_SECONDS", 300), 20);
    let rounds = seconds.div_ceil(round).max(1) as u32;
    run(
        rounds,
        Duration::from_secs(seconds.min(round)),
        number("BANK_SEED", 2),
    );
}
