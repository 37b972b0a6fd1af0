//! What the feed service reads of `shardmap.toml`: the section `[feed]`, which the shard map itself passes over. Every fault is said
//! at once, each with its place and its mend, as of the map.

mod redis;

use std::net::SocketAddr;

use toml::de::DeTable;

use super::api::Connections;
use super::hook::HookConfig;
use super::slow::SlowConfig;
use super::stars::StarSettings;
use super::statsd::StatsdConfig;
use super::store::MemoryLimits;
use crate::shardmap::{Entry, Fault, Faults, Secret, Section};

pub use self::redis::{RedisConfig, RedisNode};

/// `[feed]`.
#[derive(Clone, Debug)]
pub struct FeedConfig {
    /// Where to answer HTTP.
    pub listen: Option<SocketAddr>,
    /// How many callers may be connected, and for how long.
    pub connections: Connections,
    /// Who calls must show one of them; none: anyone may call.
    pub tokens: Vec<Secret>,
    /// Where feeds and cached objects are.
    pub store: StoreConfig,
    /// Whom to tell of what is written.
    pub hook: Option<HookConfig>,
    /// Whom to tell what is counted.
    pub statsd: Option<StatsdConfig>,
    /// Where requests that take too long are kept.
    pub slow: Option<SlowConfig>,
    /// `[feed.stars]`
    pub stars: StarSettings,
}

/// Which store, and how.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    /// Without a `[feed.redis]`: in this process, within the limits of `[feed.memory]`.
    Memory(MemoryLimits),
    /// `[feed.redis]`.
    Redis(RedisConfig),
}

/// Reads the `[feed]` of a file with this name and text; `env` gives the value of `${VAR}`. A file without one means the defaults.
pub fn parse(
    file: &str,
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<FeedConfig, Vec<Fault>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut faults = Faults::new(file, text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        faults.add(
            at,
            "",
            format!("is no TOML: {}", error.message()),
            "mend this line; the rest is read once the file is TOML",
        );
    }
    if !errors.is_empty() {
        return Err(faults.into_sorted());
    }
    let mut top = Section::top(table.get_ref(), &mut faults, env);
    let config = FeedConfig::read(top.section("feed"));
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(faults.into_sorted()),
    }
}

impl FeedConfig {
    /// `None` only after a fault.
    fn read(mut section: Section<'_, '_>) -> Option<FeedConfig> {
        let listen = section.address("listen");
        let connections = Connections::read(&mut section);
        let tokens = match section.find("tokens") {
            Some(list) => {
                let items = section.array(list, "a list of strings");
                let tokens = items.into_iter().filter_map(|e| token(&mut section, e));
                tokens.collect()
            }
            None => Vec::new(),
        };
        let memory = memory(section.section("memory"));
        let store = match section.find("redis") {
            Some(entry) => RedisConfig::read(section.enter(entry)).map(StoreConfig::Redis),
            None => Some(StoreConfig::Memory(memory)),
        };
        let hook = HookConfig::read(section.section("hook"));
        let statsd = StatsdConfig::read(section.section("statsd"));
        let slow = SlowConfig::read(section.section("slow"));
        let stars = stars(section.section("stars"));
        section.finish();
        Some(FeedConfig {
            listen: listen.map(|a| a.value),
            connections,
            tokens,
            store: store?,
            hook,
            statsd,
            slow,
            stars,
        })
    }
}

fn token<'t>(section: &mut Section<'_, 't>, entry: Entry<'t>) -> Option<Secret> {
    let token = section.string(entry)?.value;
    // What an Authorization header can carry (RFC 6750); an empty variable would let anyone in.
    let sound = token.bytes().all(|b| b.is_ascii_graphic());
    if token.is_empty() || !sound {
        section.bad(
            entry,
            "is empty, or has what no Authorization header can carry",
            "write letters, digits and punctuation without blanks",
        );
        return None;
    }
    Some(Secret::new(token))
}

fn memory(mut section: Section<'_, '_>) -> MemoryLimits {
    let d = MemoryLimits::default();
    let object_bytes = usize::try_from(d.object_bytes).unwrap_or(usize::MAX);
    let limits = MemoryLimits {
        feed_bytes: section.bytes("feed_bytes", 1 << 20..=1 << 40, d.feed_bytes),
        object_bytes: section.bytes("object_bytes", 1 << 20..=1 << 40, object_bytes) as u64,
        feed_most: d.feed_most,
    };
    section.finish();
    limits
}

fn stars(mut section: Section<'_, '_>) -> StarSettings {
    let stars = StarSettings {
        threshold: section.count("followers", 1..=u32::MAX, 100_000).into(),
        lowest: section.count("lowest", 1..=u32::MAX, 10_000).into(),
        ..StarSettings::default()
    };
    section.finish();
    stars
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::redis::LIMIT;
    use super::*;
    use crate::feed::store::PARTITIONS;

    fn read(text: &str) -> Result<FeedConfig, Vec<String>> {
        let env = |name: &str| (name == "PW").then(|| "sesam".to_owned());
        parse("f", text, &env).map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    fn redis(text: &str) -> RedisConfig {
        match read(text).expect("good").store {
            StoreConfig::Redis(config) => config,
            StoreConfig::Memory(_) => panic!("no [feed.redis] in {text}"),
        }
    }

    const GOOD: &str = r#"version = 1
[feed.redis]
limit = "50ms"
[feed.redis.nodes]
r1 = "redis://:${PW}@10.0.0.7:6379/2"
r2 = "redis://10.0.0.8"
[feed.redis.partitions]
"0-127" = "r1"
"128-255" = "r2"
"#;

    #[test]
    fn nothing_written_means_the_store_in_this_process() {
        for text in ["", "version = 1", "[feed]", "[feed.memory]"] {
            let StoreConfig::Memory(limits) = read(text).expect("good").store else {
                panic!("{text}");
            };
            assert_eq!(limits, MemoryLimits::default());
        }
        let StoreConfig::Memory(limits) = read("[feed.memory]\nfeed_bytes = \"2MB\"")
            .expect("good")
            .store
        else {
            panic!("no [feed.redis]");
        };
        assert_eq!(limits.feed_bytes, 2 << 20);
    }

    /// The example that people copy.
    #[test]
    fn the_example_shows_what_holds_without_it() {
        let example = include_str!("../../shardmap.toml");
        let from = example.find("[feed]").expect("[feed]");
        let read = |text: &str| parse("shardmap.toml", text, &|_| Some("x".into())).expect("good");
        let StoreConfig::Memory(limits) = read(example).store else {
            panic!("Redis is an example only");
        };
        assert_eq!(limits, MemoryLimits::default());
        let shown = example[from..].replace("\n#", "\n").replace("\n [", "\n[");
        let shown: Vec<&str> = shown
            .lines()
            .filter(|line| line.starts_with('[') || line.contains(" = "))
            .collect();
        let config = read(&shown.join("\n"));
        assert_eq!(
            config.listen,
            Some(SocketAddr::from(([127, 0, 0, 1], 6480)))
        );
        assert_eq!(config.connections, Connections::default());
        let (shown_stars, stars) = (config.stars, StarSettings::default());
        assert_eq!(
            (shown_stars.threshold, shown_stars.lowest),
            (stars.threshold, stars.lowest)
        );
        let StoreConfig::Redis(redis) = config.store else {
            panic!("[feed.redis] is shown: {shown:#?}");
        };
        assert_eq!(redis.limit, LIMIT);
        assert_eq!((redis.nodes.len(), redis.partitions[255]), (2, 1));
        let bare = |section: &str, needs: &str| read(&format!("[feed.{section}]\n{needs}"));
        let statsd = bare("statsd", "address = \"127.0.0.1:8125\"").statsd;
        assert_eq!((config.statsd.is_some(), &config.statsd), (true, &statsd));
        let slow = bare("slow", "file = \"/var/log/presplit/slow.jsonl\"").slow;
        assert_eq!((config.slow.is_some(), &config.slow), (true, &slow));
        let hook = "url = \"https://search.example/hooks/feed\"\nsecret = \"x\"";
        let (shown, bare) = (config.hook, bare("hook", hook).hook);
        assert!(shown.is_some());
        // The file of certificates is an example only.
        let without_ca = |hook| format!("{hook:?}").split(" ca: ").next().map(str::to_owned);
        assert_eq!(without_ca(shown), without_ca(bare));
    }

    #[test]
    #[rustfmt::skip]
    fn what_is_watched_and_told_is_read() {
        let good = "[feed.hook]\nurl = \"http://10.0.0.9/x\"\nsecret = \"${PW}\"\nevents = [\"post\"]\n\
            [feed.statsd]\naddress = \"localhost:8125\"\nsample = 10\nlabels = \"tags\"\n[feed.slow]\nfile = \"slow.jsonl\"\n";
        let config = read(good).expect("good");
        assert!(!format!("{:?}", config.hook).contains("sesam"));
        let events = config.hook.expect("[feed.hook]").events;
        assert_eq!((events.post, events.delete, events.edge), (true, false, false));
        let statsd = config.statsd.expect("[feed.statsd]");
        assert_eq!((statsd.sample, statsd.tags), (10, true));
        let cases: &[(&str, &str, &[&str])] = &[
            ("http://10.0.0.9/x", "10.0.0.9/x", &["f:2:7: [feed.hook] url: is no url -- write as "]),
            ("http://", "ftp://", &["f:2:7: [feed.hook] url: is neither"]),
            ("secret = \"${PW}\"\n", "", &["f:1:7: [feed.hook] secret: is missing -- add secret = "]),
            ("\"${PW}\"", "\"\"", &["f:3:10: [feed.hook] secret: is empty, so anyone could sign"]),
            ("[\"post\"]", "[\"posts\"]", &["f:4:11: [feed.hook] events: there are no events \"posts\" -- write \"post\""]),
            ("localhost:8125", "localhost", &["f:6:11: [feed.statsd] address: \"localhost\" is no address"]),
            ("sample = 10", "sample = 0", &["f:7:10: [feed.statsd] sample: 0 is out of range"]),
            ("\"tags\"", "\"tag\"", &["f:8:10: [feed.statsd] labels: is no way to write labels"]),
            ("file = \"slow.jsonl\"", "files = \"x\"", &["f:9:7: [feed.slow] file: is missing", "f:10:1: [feed.slow] files: unknown key -- did you mean file?"]),
        ];
        for (from, to, wanted) in cases {
            assert_eq!(good.matches(from).count(), 1, "{from} must stand once");
            let found = read(&good.replace(from, to)).expect_err(to);
            let agree = found.len() == wanted.len() && found.iter().zip(*wanted).all(|(f, w)| f.starts_with(w));
            assert!(agree, "{to}\n found: {found:#?}\nwanted: {wanted:#?}");
        }
    }

    #[test]
    fn tokens_stay_unseen() {
        let config = read("[feed]\ntokens = [\"${PW}\"]").expect("good");
        assert_eq!(config.tokens[0].expose(), "sesam");
        assert!(!format!("{config:?}").contains("sesam"));
        let found = read("[feed]\ntokens = [\"\", \"a b\"]").expect_err("bad");
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn nodes_and_partitions_are_read() {
        let config = redis(GOOD);
        assert_eq!(config.limit, Duration::from_millis(50));
        assert_eq!(config.partitions[..128], [0; 128]);
        assert_eq!(config.partitions[128..], [1; 128]);
        let names: Vec<&str> = config.nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["r1", "r2"]);
        let first = &config.nodes[0].connection;
        assert_eq!(first.redis_settings().password(), Some("sesam"));
        assert_eq!(first.redis_settings().db(), 2);
        assert!(first.tcp_settings().nodelay());
        assert!(!format!("{config:?}").contains("sesam"));
        let with = redis(&GOOD.replace(
            "\"redis://10.0.0.8\"",
            "{ url = \"redis://10.0.0.8\", replicas = [\"redis://:${PW}@10.0.1.8\", \"redis://10.0.2.8\"] }",
        ));
        assert_eq!(
            (with.nodes[0].replicas.len(), with.nodes[1].replicas.len()),
            (0, 2)
        );
        let first = &with.nodes[1].replicas[0];
        assert_eq!(first.redis_settings().password(), Some("sesam"));
        let of_cluster = redis("[feed.redis]\ncluster = [\"redis://a\", \"redis://b:7000\"]");
        assert_eq!((of_cluster.cluster.len(), of_cluster.nodes.len()), (2, 0));
        // One node needs no map.
        let one = redis("[feed.redis.nodes]\nr1 = \"redis://10.0.0.7\"");
        assert_eq!((one.limit, *one.partitions), (LIMIT, [0; PARTITIONS]));
    }

    #[test]
    #[rustfmt::skip]
    fn every_fault_is_said_with_its_place() {
        let cases: &[(&str, &str, &[&str])] = &[
            ("\"0-127\" = \"r1\"", "\"0-126\" = \"r1\"", &["f:7:13: [feed.redis.partitions]: partition 127 is without a node"]),
            ("\"0-127\" = \"r1\"", "\"0-128\" = \"r1\"", &["f:9:1: [feed.redis.partitions] \"128-255\": partition 128 is in an earlier line already"]),
            ("\"0-127\" = \"r1\"", "\"0-127\" = \"r3\"", &["f:8:11: [feed.redis.partitions] \"0-127\": unknown node \"r3\" -- name one of r1, r2"]),
            ("\"128-255\"", "\"128-256\"", &["f:9:1: [feed.redis.partitions] \"128-256\": is no range of partitions"]),
            ("\"128-255\"", "x", &["f:9:1: [feed.redis.partitions] x: is no range of partitions"]),
            ("redis://10.0.0.8", "rediss://10.0.0.8", &["f:6:6: [feed.redis.nodes] r2: "]),
            ("redis://10.0.0.8", "http://10.0.0.8", &["f:6:6: [feed.redis.nodes] r2: is no url of a Redis"]),
            ("\"redis://10.0.0.8\"", "{ url = \"redis://a\", replicas = [\"b\"] }", &["f:6:39: [feed.redis.nodes.r2] replicas: is no url of a Redis"]),
            ("\"redis://10.0.0.8\"", "{ urls = \"redis://a\" }", &["f:6:1: [feed.redis.nodes.r2] url: is missing", "f:6:8: [feed.redis.nodes.r2] urls: unknown key -- did you mean url?"]),
            ("${PW}", "${NO}", &["f:5:6: [feed.redis.nodes] r1: the environment variable NO is not set"]),
            ("limit = \"50ms\"", "limit = \"0ms\"\nlimits = 5", &["f:3:9: [feed.redis] limit: \"0ms\" is no duration", "f:4:1: [feed.redis] limits: unknown key -- did you mean limit?"]),
            ("version = 1", "feed.redi = 1", &["f:1:6: [feed] redi: unknown key"]),
        ];
        for (from, to, wanted) in cases {
            assert_eq!(GOOD.matches(from).count(), 1, "{from} must stand once");
            let found = read(&GOOD.replace(from, to)).expect_err(to);
            let agree = found.len() == wanted.len() && found.iter().zip(*wanted).all(|(f, w)| f.starts_with(w));
            assert!(agree, "{to}\n found: {found:#?}\nwanted: {wanted:#?}");
        }
        let both = GOOD.replace("limit = ", "cluster = [\"redis://a/1\"]\nlimit = ");
        let found = read(&both).expect_err("both").join("\n");
        for wanted in ["cluster: is nothing that a cluster has", "nodes: stands beside cluster", "partitions: stands beside cluster"] {
            assert!(found.contains(wanted), "{wanted}: {found}");
        }
        assert!(read("[feed.redis]\ncluster = []").expect_err("none")[0].contains("names no node"));
        let found = read("[feed.redis]\n[feed.redis.nodes]\n").expect_err("no node");
        assert!(found[0].starts_with("f:"), "{found:?}");
        assert!(read("[feed.redis]").expect_err("no nodes")[0].contains("nodes: is missing"));
        assert!(read("feed = 1").expect_err("no table")[0].contains("is of type integer"));
    }
}
