//! `presplit feed plan`: what a load will take.

use std::path::PathBuf;

use clap::Args;
use presplit::feed::plan::{Figures, Load, Need, need};

/// Numbers at the peak of a day; k, M and G are thousands, millions and so on.
#[derive(Args)]
pub(super) struct Plan {
    /// Users with an account.
    #[arg(long, value_parser = number)]
    users: f64,
    /// Whom a user follows on average.
    #[arg(long, value_parser = number)]
    follows: f64,
    /// Posts a second.
    #[arg(long, value_parser = number)]
    posts: f64,
    /// Home pages read a second.
    #[arg(long, value_parser = number)]
    reads: f64,
    /// How many in a hundred users read their feed within 30 days: those have one in Redis.
    #[arg(long, value_name = "PERCENT", default_value_t = 50.0, value_parser = percent)]
    active: f64,
    /// How many in a hundred reads find no feed, as after 30 days or a new edge.
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0, value_parser = percent)]
    cold: f64,
    /// Media read within an hour, which are cached. Without it: those of a day.
    #[arg(long, value_parser = number)]
    objects: Option<f64>,
    /// Memory of a Redis node, in GB.
    #[arg(long, value_name = "GB", default_value_t = 16.0, value_parser = number)]
    node_memory: f64,
    /// Cores of a machine that runs `presplit feed`.
    #[arg(long, default_value_t = 4.0, value_parser = number)]
    cores: f64,
    /// What `python3 bench/feed.py --json FILE` has measured on your machines, instead of bench/README.md's figures.
    #[arg(long, value_name = "FILE")]
    figures: Option<PathBuf>,
}

/// Prints it.
pub(super) fn plan(args: &Plan) -> Result<(), String> {
    let figures = match &args.figures {
        None => Figures::measured(),
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|e| format!("{name}: {e}"))?;
            Figures::of_run(&name, &text)?
        }
    };
    let load = Load {
        users: args.users,
        active: args.active / 100.0,
        follows: args.follows,
        posts: args.posts,
        reads: args.reads,
        cold: args.cold / 100.0,
        objects: args.objects.unwrap_or(args.posts * 24.0 * 3600.0),
        node_bytes: args.node_memory * 1e9,
        cores: args.cores,
    };
    print!("{}", words(&load, &figures, &need(&load, &figures)));
    Ok(())
}

fn words(load: &Load, f: &Figures, n: &Need) -> String {
    let gb = |bytes: f64| format!("{:.1} GB", bytes / 1e9);
    let lines = [
        (
            "Feeds in Redis",
            format!(
                "{} of {:.0} entries, {} ({} bytes an entry)",
                short(n.feeds),
                n.entries,
                gb(n.feed_bytes),
                f.entry_bytes
            ),
        ),
        (
            "Media cached",
            format!(
                "{}, {} ({:.0} bytes each)",
                short(load.objects),
                gb(n.object_bytes),
                f.object_bytes
            ),
        ),
        (
            "Deliveries a second",
            format!(
                "{} (posts x follows x active); to feeds that are not there another {}",
                short(n.deliveries),
                short(load.posts * load.follows - n.deliveries)
            ),
        ),
        (
            "Redis nodes",
            format!(
                "{:.0}: {:.0} by memory, {:.0} by CPU ({:.2} cores busy, each node has one)",
                n.nodes, n.nodes_by_memory, n.nodes_by_cpu, n.cores.redis
            ),
        ),
        (
            "Machines for presplit feed",
            format!(
                "{:.0} of {:.0} cores ({:.2} cores busy), and one more that may fail",
                n.machines, load.cores, n.cores.service
            ),
        ),
        (
            "Proxy",
            format!(
                "{:.0} event loops ([proxy] workers; {:.2} cores busy)",
                n.loops, n.cores.proxy
            ),
        ),
        (
            "Postgres hosts",
            format!("{:.2} cores busy with it, over all hosts", n.cores.postgres),
        ),
    ];
    let mut text: String = lines
        .iter()
        .map(|(what, is)| format!("{what:27} {is}\n"))
        .collect();
    let cpu = |c: &presplit::feed::plan::Cpu| {
        format!(
            "{:.1} / {:.1} / {:.1} / {:.1}",
            c.service, c.redis, c.postgres, c.proxy
        )
    };
    text += &format!(
        "\nFrom {}.\nCPU in us, service / Redis / Postgres / proxy: a delivery {}, a post {}, a page {}, a page whose feed has to be built {}.\n\
         Cores are counted as full at 60 %, memory at 70 %. Posts of authors with very many followers are pulled, not pushed; they are counted as pushed here.\n",
        f.source,
        cpu(&f.delivery),
        cpu(&f.post),
        cpu(&f.warm),
        cpu(&f.cold)
    );
    text
}

/// `30M`
fn short(n: f64) -> String {
    match n {
        n if n >= 1e9 => format!("{:.1}G", n / 1e9),
        n if n >= 1e6 => format!("{:.1}M", n / 1e6),
        n if n >= 1e4 => format!("{:.0}k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// `30M`, `1.5k`, `200`.
fn number(text: &str) -> Result<f64, String> {
    let units = [("k", 1e3), ("M", 1e6), ("G", 1e9), ("", 1.0)];
    units
        .iter()
        .find_map(|(unit, by)| Some(text.strip_suffix(unit)?.trim().parse::<f64>().ok()? * by))
        .filter(|n| n.is_finite() && *n > 0.0)
        .ok_or_else(|| "write a number above 0 such as 200, 1.5k or 30M".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    let n = text.trim_end_matches('%').parse::<f64>();
    n.ok()
        .filter(|n| (0.0..=100.0).contains(n))
        .ok_or_else(|| "write 0 to 100".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units() {
        assert_eq!(number("30M"), Ok(30e6));
        assert_eq!(number("1.5k"), Ok(1500.0));
        assert_eq!(number("200"), Ok(200.0));
        for bad in ["", "k", "-1", "0", "inf", "1Q"] {
            assert!(number(bad).is_err(), "{bad}");
        }
        assert_eq!(percent("50%"), Ok(50.0));
        assert!(percent("101").is_err());
    }
}
