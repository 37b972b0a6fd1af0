//! How long a post takes to be seen: from the media's id, which says when it was made, to the last push of it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec};

use super::MediaId;
use super::clock::since_1970;
use super::statsd::Statsd;
use crate::shardmap::id;

/// How a post reached its followers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// All of them within one page.
    Small,
    /// Page by page.
    Large,
    /// Pulled when feeds are read: there was nothing to push but to the author itself.
    Star,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Class::Small => "small",
            Class::Large => "large",
            Class::Star => "star",
        }
    }
}

/// From 5 ms to 10 minutes.
const SECONDS: [f64; 15] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0,
];

/// The times of all posts that workers of this process were done with, by class.
#[derive(Clone, Debug)]
pub struct Lag {
    /// Always there: the names are good.
    seconds: Option<HistogramVec>,
    statsd: Arc<OnceLock<Statsd>>,
}

impl Default for Lag {
    fn default() -> Lag {
        let opts = HistogramOpts::new(
            "presplit_feed_lag_seconds",
            "From post to its last push, by the author's class: small (its followers are one page), large (more), star (pulled, not pushed)",
        );
        Lag {
            seconds: HistogramVec::new(opts.buckets(SECONDS.to_vec()), &["class"]).ok(),
            statsd: Arc::default(),
        }
    }
}

impl Lag {
    /// From now on statsd hears of each time, too.
    pub(super) fn tell(&self, statsd: Statsd) {
        drop(self.statsd.set(statsd));
    }

    /// This media has just been pushed to the last of its followers. The clocks are those of the author's host and of this machine.
    pub(super) fn reached_all(&self, class: Class, media: MediaId) {
        let made = id::split(media).map(|parts| Duration::from_millis(parts.unix_ms));
        let took = made.map_or(Duration::ZERO, |made| since_1970().saturating_sub(made));
        if let Some(seconds) = &self.seconds {
            seconds
                .with_label_values(&[class.name()])
                .observe(took.as_secs_f64());
        }
        if let Some(statsd) = self.statsd.get() {
            statsd.timing("lag", &[("class", class.name())], took);
        }
    }
}

impl Collector for Lag {
    fn desc(&self) -> Vec<&Desc> {
        self.seconds.iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.seconds.iter().flat_map(Collector::collect).collect()
    }
}
