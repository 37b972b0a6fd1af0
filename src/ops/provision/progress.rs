//! Progress on standard error: a bar per host at a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Plain lines per host, at most.
const LINES: u64 = 10;

/// Where progress goes.
pub(super) enum Progress {
    Silent,
    Bars(MultiProgress),
    Lines,
}

/// One host's progress.
pub(super) enum Bar {
    Silent,
    Drawn(ProgressBar),
    Lines {
        host: String,
        all: u64,
        done: AtomicU64,
    },
}

impl Progress {
    pub(super) fn new(show: bool) -> Progress {
        match (show, std::io::stderr().is_terminal()) {
            (false, _) => Progress::Silent,
            (true, true) => Progress::Bars(MultiProgress::new()),
            (true, false) => Progress::Lines,
        }
    }

    pub(super) fn host(&self, name: &str, all: u64) -> Bar {
        match self {
            Progress::Bars(bars) => {
                let style = ProgressStyle::with_template(
                    "host {prefix:8} {bar:40} {pos}/{len} shards, {elapsed}, {eta} to go",
                );
                let bar = bars.add(ProgressBar::new(all).with_prefix(name.to_owned()));
                // The template is a constant; were it wrong, the default would do.
                Bar::Drawn(
                    style
                        .map(|style| bar.clone().with_style(style))
                        .unwrap_or(bar),
                )
            }
            Progress::Lines if all > 0 => Bar::Lines {
                host: name.to_owned(),
                all,
                done: AtomicU64::new(0),
            },
            _ => Bar::Silent,
        }
    }
}

impl Bar {
    pub(super) fn advance(&self) {
        match self {
            Bar::Silent => {}
            Bar::Drawn(bar) => bar.inc(1),
            Bar::Lines { host, all, done } => {
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                if done * LINES / all != (done - 1) * LINES / all {
                    eprintln!("host {host}: {done} of {all} shards");
                }
            }
        }
    }

    pub(super) fn finish(&self) {
        if let Bar::Drawn(bar) = self {
            bar.finish();
        }
    }
}
