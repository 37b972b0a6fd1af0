//! Statsd: what the registry counts, told by UDP every few seconds as differences, and each time as it is taken (or one in so many).
//! Nothing waits for it: what does not go out at once is lost.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use prometheus::Registry;
use prometheus::proto::{LabelPair, MetricType};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::shardmap::Section;

/// What fits into a packet on any network.
const PACKET: usize = 1432;
/// Times that wait to be sent.
const WAITING: usize = 4096;
/// How long a time waits for others to go with it.
const GATHER: Duration = Duration::from_millis(200);

/// `[feed.statsd]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsdConfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// In front of every name.
    pub prefix: String,
    /// How often counters and gauges are told.
    pub every: Duration,
    /// One time in so many is told.
    pub sample: u32,
    /// Labels as tags (DogStatsD), not as parts of the name.
    pub tags: bool,
}

impl StatsdConfig {
    /// `None`: there is no such section, or it has a fault.
    pub(super) fn read(mut section: Section<'_, '_>) -> Option<StatsdConfig> {
        section.need("address", "address = \"127.0.0.1:8125\"");
        let address = section.address("address");
        let mut prefix = "presplit.feed".to_owned();
        if let Some(entry) = section.find("prefix")
            && let Some(written) = section.string(entry)
        {
            let sound = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            if !written.value.bytes().all(sound) {
                let mend = "write letters, digits, dots, _ and -, such as \"presplit.feed\"";
                section.bad(entry, "has what no statsd name can have", mend);
            }
            prefix = written.value;
        }
        let every = section.duration("every", Duration::from_secs(5));
        let sample = section.count("sample", 1..=1_000_000, 1);
        let mut tags = false;
        if let Some(entry) = section.find("labels")
            && let Some(written) = section.string(entry)
        {
            match written.value.as_str() {
                "name" => {}
                "tags" => tags = true,
                _ => section.bad(
                    entry,
                    "is no way to write labels",
                    "write \"name\" (requests.home.200) or \"tags\" (as DogStatsD has them)",
                ),
            }
        }
        section.finish();
        Some(StatsdConfig {
            address: address?.value,
            prefix,
            every,
            sample,
            tags,
        })
    }
}

/// The way to statsd, from any number of tasks.
#[derive(Clone, Debug)]
pub struct Statsd {
    lines: mpsc::Sender<String>,
    names: Names,
    sample: u32,
}

/// How names are written.
#[derive(Clone, Debug)]
struct Names {
    prefix: String,
    tags: bool,
}

impl Statsd {
    /// Begins to tell what this registry counts, as long as `tasks` are there.
    ///
    /// # Errors
    /// There is no socket to be had.
    pub async fn start(
        config: &StatsdConfig,
        registry: Registry,
        tasks: &mut JoinSet<()>,
    ) -> std::io::Result<Statsd> {
        let any: SocketAddr = match config.address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(config.address).await?;
        let (lines, waiting) = mpsc::channel(WAITING);
        let names = Names {
            prefix: match config.prefix.trim_end_matches('.') {
                "" => String::new(),
                prefix => format!("{prefix}."),
            },
            tags: config.tags,
        };
        let teller = Teller {
            out: Packets {
                socket,
                packet: Vec::with_capacity(PACKET),
            },
            registry,
            names: names.clone(),
            told: HashMap::new(),
        };
        tasks.spawn(teller.run(waiting, config.every));
        Ok(Statsd {
            lines,
            names,
            sample: config.sample,
        })
    }

    /// Something took so long. Told of one in so many.
    pub fn timing(&self, name: &str, labels: &[(&str, &str)], took: Duration) {
        if self.sample > 1 && rand::random_range(0..self.sample) > 0 {
            return;
        }
        let ms = took.as_secs_f64() * 1000.0;
        let kind = match self.sample {
            1 => "ms".to_owned(),
            n => format!("ms|@{}", 1.0 / f64::from(n)),
        };
        let line = self
            .names
            .line(name, labels.iter().copied(), &format!("{ms:.3}"), &kind);
        // Full: it is lost, as any packet may be.
        drop(self.lines.try_send(line));
    }
}

impl Names {
    fn line<'a>(
        &self,
        name: &str,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        value: &str,
        kind: &str,
    ) -> String {
        let mut line = format!("{}{name}", self.prefix);
        let mut tags = String::new();
        for (label, value) in labels {
            if self.tags {
                tags.push_str(if tags.is_empty() { "|#" } else { "," });
                tags.push_str(label);
                tags.push(':');
            } else {
                line.push('.');
            }
            let into = if self.tags { &mut tags } else { &mut line };
            let sound = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            into.extend(value.chars().map(|c| if sound(c) { c } else { '_' }));
        }
        line.push_str(&format!(":{value}|{kind}{tags}"));
        line
    }
}

/// Lines that go out together.
struct Packets {
    socket: UdpSocket,
    packet: Vec<u8>,
}

impl Packets {
    fn add(&mut self, line: &str) {
        if !self.packet.is_empty() && self.packet.len() + 1 + line.len() > PACKET {
            self.flush();
        }
        if !self.packet.is_empty() {
            self.packet.push(b'\n');
        }
        self.packet.extend_from_slice(line.as_bytes());
    }

    /// Nobody there, or no room: then it is lost.
    fn flush(&mut self) {
        if !self.packet.is_empty() {
            drop(self.socket.try_send(&self.packet));
            self.packet.clear();
        }
    }
}

/// The task that tells.
struct Teller {
    out: Packets,
    registry: Registry,
    names: Names,
    /// What was told last of each counter, by its name.
    told: HashMap<String, f64>,
}

impl Teller {
    async fn run(mut self, mut lines: mpsc::Receiver<String>, every: Duration) {
        let mut counts = tokio::time::interval(every);
        let mut gather = tokio::time::interval(GATHER);
        for interval in [&mut counts, &mut gather] {
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                line = lines.recv() => match line {
                    Some(line) => self.out.add(&line),
                    None => return,
                },
                _ = counts.tick() => self.tell_counts(),
                _ = gather.tick() => self.out.flush(),
            }
        }
    }

    fn tell_counts(&mut self) {
        for family in self.registry.gather() {
            let name = family.name();
            let name = name.strip_prefix("presplit_feed_").unwrap_or(name);
            let name = name.strip_suffix("_total").unwrap_or(name);
            for metric in family.get_metric() {
                let labels = || metric.get_label().iter().map(label);
                match family.get_field_type() {
                    MetricType::COUNTER => {
                        let value = metric.get_counter().get_value();
                        let key = self.names.line(name, labels(), "", "");
                        let before = self.told.insert(key, value).unwrap_or(0.0);
                        if value > before {
                            let more = (value - before).to_string();
                            self.out.add(&self.names.line(name, labels(), &more, "c"));
                        }
                    }
                    MetricType::GAUGE => {
                        let value = metric.get_gauge().get_value().to_string();
                        self.out.add(&self.names.line(name, labels(), &value, "g"));
                    }
                    // Each of their times is told by itself.
                    _ => {}
                }
            }
        }
        self.out.flush();
    }
}

fn label(pair: &LabelPair) -> (&str, &str) {
    (pair.name(), pair.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_statsd_or_its_dialect_reads_it() {
        let line = |tags| {
            let names = Names {
                prefix: "a.".into(),
                tags,
            };
            let labels = [("operation", "home page"), ("status", "200")];
            names.line("requests", labels.into_iter(), "3", "c")
        };
        assert_eq!(line(false), "a.requests.home_page.200:3|c");
        assert_eq!(line(true), "a.requests:3|c|#operation:home_page,status:200");
    }
}
