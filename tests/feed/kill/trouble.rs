//! What befalls the processes: they are killed with -9 and started again, some are frozen for a while, Redis is emptied.

use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::clients::Book;
use super::world::{Beside, HOSTS, WORKERS, Way, World};

#[derive(Clone, Copy, Debug)]
enum Kind {
    ApiKilled,
    WorkerKilled,
    WorkersKilled,
    RedisKilled,
    HostKilled,
    ProxyKilled,
    HostAndWorkerKilled,
    HostAndApiKilled,
    RedisAndApiKilled,
    RedisEmptied,
    RedisFrozen,
    HostFrozen,
    ApiFrozen,
    /// For longer than its leases: another goes on with its rows, and then it wakes up.
    WorkerFrozen,
    ReplicaKilled,
    ReplicaFrozen,
    HookStopped,
}
use Kind::*;

/// Redis seldom, and what it loses only in the first half: the longer feeds live, the more there is to be wrong with them.
const DECK: [Kind; 17] = [
    ApiKilled,
    ApiKilled,
    WorkerKilled,
    WorkerKilled,
    WorkerKilled,
    WorkersKilled,
    RedisKilled,
    HostKilled,
    HostKilled,
    ProxyKilled,
    HostAndWorkerKilled,
    RedisAndApiKilled,
    RedisEmptied,
    RedisFrozen,
    HostFrozen,
    ApiFrozen,
    WorkerFrozen,
];

/// Where there are a replica and a webhook, too.
const DECK_BESIDE: [Kind; 4] = [ReplicaKilled, ReplicaFrozen, HookStopped, HookStopped];

/// Where one process is all of it.
const DECK_TOGETHER: [Kind; 7] = [
    ApiKilled,
    ApiKilled,
    ApiKilled,
    HostKilled,
    HostFrozen,
    ProxyKilled,
    HostAndApiKilled,
];

/// Longer than the lease of a row.
const PAST_LEASE: Duration = Duration::from_secs(17);

/// For so long, or until the book says stop; all is up again behind it.
pub fn make(world: &mut World, book: &Book, time: Duration, rng: &mut StdRng) {
    let began = Instant::now();
    let mut deck = Vec::new();
    let mut frozen: Option<(usize, Instant)> = None;
    loop {
        pause(rng, 200..1800);
        let is_over = began.elapsed() >= time || book.is_over();
        if let Some((worker, _)) = frozen.take_if(|(_, at)| is_over || at.elapsed() > PAST_LEASE) {
            world.thaw_worker(worker);
        }
        if is_over {
            return;
        }
        if deck.is_empty() {
            deck = match world.way {
                Way::Apart => DECK.to_vec(),
                Way::Together => DECK_TOGETHER.to_vec(),
            };
            if world.beside.is_some() {
                deck.extend([DECK_BESIDE; 2].concat());
            }
            deck.shuffle(rng);
        }
        let kind = deck.pop().unwrap();
        if matches!(kind, RedisKilled | RedisAndApiKilled | RedisEmptied)
            && began.elapsed() > time / 2
        {
            continue;
        }
        book.count(&format!("x {kind:?}"));
        match kind {
            WorkerFrozen if frozen.is_none() => {
                let worker = rng.random_range(0..WORKERS);
                world.freeze_worker(worker);
                frozen = Some((worker, Instant::now()));
            }
            WorkerFrozen => {}
            kind => befall(kind, world, rng),
        }
    }
}

fn pause(rng: &mut StdRng, ms: std::ops::Range<u64>) {
    std::thread::sleep(Duration::from_millis(rng.random_range(ms)));
}

/// What is killed and frozen, and comes again.
#[derive(Clone, Copy, Debug)]
enum Part {
    Api(usize),
    Worker(usize),
    Redis,
    Host(usize),
    Proxy,
}
use Part::*;

fn befall(kind: Kind, world: &mut World, rng: &mut StdRng) {
    let (api, worker, host) = (
        rng.random_range(0..world.apis()),
        rng.random_range(0..WORKERS),
        rng.random_range(0..HOSTS),
    );
    let mut killed = |parts: &[Part]| kill(parts, world, rng);
    match kind {
        ApiKilled => killed(&[Api(api)]),
        WorkerKilled => killed(&[Worker(worker)]),
        WorkersKilled => killed(&std::array::from_fn::<_, WORKERS, _>(Worker)),
        RedisKilled => killed(&[Redis]),
        HostKilled => killed(&[Host(host)]),
        ProxyKilled => killed(&[Proxy]),
        HostAndWorkerKilled => killed(&[Host(host), Worker(worker)]),
        HostAndApiKilled => killed(&[Host(host), Api(api)]),
        RedisAndApiKilled => killed(&[Redis, Api(api)]),
        RedisEmptied => world.redis.ask(&["FLUSHALL"]),
        RedisFrozen => {
            world.redis.freeze();
            pause(rng, 300..3000);
            world.redis.thaw();
        }
        HostFrozen => {
            world.hosts.clusters[host].freeze();
            pause(rng, 300..3000);
            world.hosts.clusters[host].thaw();
        }
        ApiFrozen => {
            world.signal_api(api, "STOP");
            pause(rng, 300..3000);
            world.signal_api(api, "CONT");
        }
        ReplicaKilled | ReplicaFrozen | HookStopped => {
            if let Some(beside) = &mut world.beside {
                befall_beside(kind, beside, rng);
            }
        }
        // In the loop above.
        WorkerFrozen => {}
    }
}

/// All of them, and starts the last one first.
fn kill(parts: &[Part], world: &mut World, rng: &mut StdRng) {
    for part in parts {
        match *part {
            Api(n) => world.kill_api(n),
            Worker(n) => world.kill_worker(n),
            Redis => world.redis.kill(),
            Host(n) => world.hosts.clusters[n].kill(),
            Proxy => world.kill_proxy(),
        }
    }
    for part in parts.iter().rev() {
        pause(rng, 0..800);
        match *part {
            Api(n) => world.start_api(n),
            Worker(n) => world.start_worker(n),
            Redis => world.redis.start(),
            Host(n) => world.hosts.clusters[n].start(),
            Proxy => world.start_proxy(),
        }
    }
}

fn befall_beside(kind: Kind, beside: &mut Beside, rng: &mut StdRng) {
    match kind {
        ReplicaKilled => {
            beside.replica.kill();
            pause(rng, 0..800);
            beside.replica.start();
        }
        ReplicaFrozen => {
            beside.replica.freeze();
            pause(rng, 300..3000);
            beside.replica.thaw();
        }
        _ => {
            beside.hook.stop();
            pause(rng, 300..3000);
            beside.hook.restart();
        }
    }
}
