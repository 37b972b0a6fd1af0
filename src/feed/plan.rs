//! What a load takes, by arithmetic over measured figures: bytes of Redis, deliveries a second, cores of each kind of process.

use serde::Deserialize;

use super::FEED_MOST;

/// Seconds of the time that a feed reaches back.
const FEED_SECONDS: f64 = super::FEED_AGE_MS as f64 / 1000.0;
/// What Redis keeps of an entry: eight bytes and a list's two. The rest of what was measured is the feed's: key, mark, the time it lives to.
const ENTRY_BYTES: f64 = 10.0;
/// How busy a core may be at the peak: above this answers wait for each other.
const BUSY: f64 = 0.6;
/// How full a node's memory may be: the allocator and the buffers of clients need the rest.
const FULL: f64 = 0.7;

/// What is expected, at the peak.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Users with an account.
    pub users: f64,
    /// The part of them who read their feed at least once in 30 days, 0 to 1: they have one in Redis.
    pub active: f64,
    /// Whom a user follows on average. So many followers has the average user, too.
    pub follows: f64,
    /// Posts a second.
    pub posts: f64,
    /// Home pages read a second.
    pub reads: f64,
    /// The part of the reads that find no feed, 0 to 1.
    pub cold: f64,
    /// Media that are read within an hour, and so cached.
    pub objects: f64,
    /// Memory of a Redis node.
    pub node_bytes: f64,
    /// Cores of a machine that runs workers and API.
    pub cores: f64,
}

/// CPU time in microseconds for each of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Cpu {
    /// Of `presplit feed`.
    pub service: f64,
    /// Of Redis.
    pub redis: f64,
    /// Of all Postgres hosts.
    pub postgres: f64,
    /// Of the proxy.
    pub proxy: f64,
}

impl Cpu {
    fn times(self, n: f64) -> Cpu {
        Cpu {
            service: self.service * n,
            redis: self.redis * n,
            postgres: self.postgres * n,
            proxy: self.proxy * n,
        }
    }

    fn plus(self, other: Cpu) -> Cpu {
        Cpu {
            service: self.service + other.service,
            redis: self.redis + other.redis,
            postgres: self.postgres + other.postgres,
            proxy: self.proxy + other.proxy,
        }
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Where and when.
    pub source: String,
    /// Bytes of Redis for an entry of a full feed, with all that belongs to the feed.
    pub entry_bytes: f64,
    /// A cached media.
    pub object_bytes: f64,
    /// A delivery to a feed that is there, with its part of reading the followers.
    pub delivery: Cpu,
    /// A post, but for its deliveries.
    pub post: Cpu,
    /// A home page of 100 media whose feed is there.
    pub warm: Cpu,
    /// One whose feed is not.
    pub cold: Cpu,
}

impl Figures {
    /// Those of bench/README.md.
    #[must_use]
    pub fn measured() -> Figures {
        Figures {
            source: "bench/README.md, bench/feed.py of 2026-11-22 on 2 cores of an AMD EPYC"
                .to_owned(),
            entry_bytes: 10.5,
            object_bytes: 440.0,
            delivery: Cpu {
                service: 0.5,
                redis: 3.6,
                postgres: 0.5,
                proxy: 0.1,
            },
            post: Cpu {
                service: 110.0,
                redis: 35.0,
                postgres: 385.0,
                proxy: 65.0,
            },
            warm: Cpu {
                service: 185.0,
                redis: 105.0,
                postgres: 355.0,
                proxy: 45.0,
            },
            cold: Cpu {
                service: 1400.0,
                redis: 560.0,
                postgres: 8100.0,
                proxy: 830.0,
            },
        }
    }

    /// Those that `bench/feed.py --json FILE` has written.
    ///
    /// # Errors
    /// What is missing in it.
    pub fn of_run(file: &str, text: &str) -> Result<Figures, String> {
        let run: Run = serde_json::from_str(text)
            .map_err(|e| format!("{file}: is no run of bench/feed.py with all its parts: {e}"))?;
        Ok(Figures {
            source: format!("{file}: {} on {}", run.date, run.machine),
            entry_bytes: run.redis_bytes.all_per_entry,
            object_bytes: run.redis_bytes.per_object,
            delivery: run.deliver.cpu_us,
            post: run.post.cpu_us,
            warm: run.home_ms.warm_cpu_us,
            cold: run.home_ms.cold_cpu_us,
        })
    }
}

/// What is read of a run's JSON.
#[derive(Deserialize)]
struct Run {
    date: String,
    machine: String,
    redis_bytes: RedisBytes,
    deliver: Part,
    post: Part,
    home_ms: Home,
}

#[derive(Deserialize)]
struct RedisBytes {
    all_per_entry: f64,
    per_object: f64,
}

#[derive(Deserialize)]
struct Part {
    cpu_us: Cpu,
}

#[derive(Deserialize)]
struct Home {
    warm_cpu_us: Cpu,
    cold_cpu_us: Cpu,
}

/// What it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Need {
    /// Entries of the average feed.
    pub entries: f64,
    /// Feeds in Redis.
    pub feeds: f64,
    /// Bytes of feeds in Redis.
    pub feed_bytes: f64,
    /// Bytes of cached media in Redis.
    pub object_bytes: f64,
    /// Pushes a second, to feeds that are there.
    pub deliveries: f64,
    /// Busy cores of each kind of process.
    pub cores: Cpu,
    /// Redis nodes, and whether memory or CPU asks for so many.
    pub nodes: f64,
    /// Memory asks for so many nodes.
    pub nodes_by_memory: f64,
    /// CPU asks for so many nodes; a node uses one core.
    pub nodes_by_cpu: f64,
    /// Machines for `presplit feed`.
    pub machines: f64,
    /// Event loops of the proxy (`[proxy] workers`), over all proxies.
    pub loops: f64,
}

/// The arithmetic. Authors whose posts are pulled make deliveries fewer and reads dearer; they are counted as pushed.
#[must_use]
pub fn need(load: &Load, figures: &Figures) -> Need {
    let posts_of_a_feed = load.posts / load.users.max(1.0) * load.follows * FEED_SECONDS;
    let entries = posts_of_a_feed.min(FEED_MOST as f64);
    let feeds = load.users * load.active;
    let deliveries = load.posts * load.follows * load.active;
    let beside = (figures.entry_bytes - ENTRY_BYTES).max(0.0) * FEED_MOST as f64;
    let feed_bytes = feeds * (entries * ENTRY_BYTES + beside);
    let object_bytes = load.objects * figures.object_bytes;
    let cpu = figures
        .delivery
        .times(deliveries)
        .plus(figures.post.times(load.posts))
        .plus(figures.warm.times(load.reads * (1.0 - load.cold)))
        .plus(figures.cold.times(load.reads * load.cold));
    let cores = cpu.times(1e-6);
    let whole = |n: f64| n.ceil().max(1.0);
    let nodes_by_memory = whole((feed_bytes + object_bytes) / (load.node_bytes * FULL));
    let nodes_by_cpu = whole(cores.redis / BUSY);
    Need {
        entries,
        feeds,
        feed_bytes,
        object_bytes,
        deliveries,
        cores,
        nodes: nodes_by_memory.max(nodes_by_cpu),
        nodes_by_memory,
        nodes_by_cpu,
        machines: whole(cores.service / (load.cores * BUSY)),
        loops: whole(cores.proxy / BUSY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_takes_what_its_parts_take() {
        let one = |service, redis| Cpu {
            service,
            redis,
            postgres: 1.0,
            proxy: 0.5,
        };
        let figures = Figures {
            source: String::new(),
            entry_bytes: 10.5,
            object_bytes: 500.0,
            delivery: one(2.0, 4.0),
            post: one(100.0, 0.0),
            warm: one(1000.0, 100.0),
            cold: one(10_000.0, 200.0),
        };
        let load = Load {
            users: 1e6,
            active: 0.5,
            follows: 100.0,
            posts: 1000.0,
            reads: 2000.0,
            cold: 0.01,
            objects: 1e6,
            node_bytes: 4e9,
            cores: 4.0,
        };
        let need = need(&load, &figures);
        // More than 800 posts in 30 days.
        assert_eq!((need.entries, need.feeds), (800.0, 500_000.0));
        assert_eq!(need.feed_bytes, 500_000.0 * 8400.0);
        assert_eq!(need.object_bytes, 5e8);
        assert_eq!(need.deliveries, 50_000.0);
        // 0.1 for deliveries, 0.1 for posts, 1.98 and 0.2 for reads.
        assert!((need.cores.service - 2.38).abs() < 1e-9, "{need:?}");
        assert!((need.cores.redis - (0.2 + 0.198 + 0.004)).abs() < 1e-9);
        assert_eq!((need.nodes_by_memory, need.nodes_by_cpu), (2.0, 1.0));
        assert_eq!((need.nodes, need.machines, need.loops), (2.0, 1.0, 1.0));
        // Few posts: feeds are not full.
        let need = super::need(&Load { posts: 1.0, ..load }, &figures);
        assert!((need.entries - 259.2).abs() < 1e-9, "{need:?}");
    }

    #[test]
    fn the_figures_of_a_run_are_read() {
        let cpu = "{\"service\": 1, \"redis\": 2, \"postgres\": 3, \"proxy\": 4}";
        let text = format!(
            "{{\"date\": \"D\", \"machine\": \"M\", \"more\": 1, \"redis_bytes\": {{\"all_per_entry\": 10.5, \"per_object\": 400}}, \
             \"deliver\": {{\"cpu_us\": {cpu}}}, \"post\": {{\"cpu_us\": {cpu}}}, \"home_ms\": {{\"warm_cpu_us\": {cpu}, \"cold_cpu_us\": {cpu}}}}}"
        );
        let figures = Figures::of_run("f", &text).unwrap();
        assert_eq!(
            (figures.source.as_str(), figures.delivery.proxy),
            ("f: D on M", 4.0)
        );
        let fault = Figures::of_run("f", "{\"date\": \"D\"}").unwrap_err();
        assert!(
            fault.contains("f: ") && fault.contains("machine"),
            "{fault}"
        );
    }
}
