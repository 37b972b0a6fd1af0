//! `[map]`: from ranges of shards to the owner of each.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::HostId;
use super::config::RangeConfig;
use super::fault::Faults;
use super::section::At;
use super::validate::find_host;

/// The owner of each shard. `None` after a fault.
pub(super) fn owners(
    map: &[RangeConfig],
    map_at: usize,
    shards: Option<u32>,
    hosts: &[String],
    faults: &mut Faults<'_>,
) -> Option<Box<[HostId]>> {
    // Which line of [map] a shard was first given by.
    let mut given: Vec<Option<usize>> = vec![None; shards.unwrap_or(0) as usize];
    let mut line_owners = Vec::new();
    for (line, RangeConfig { range, host }) in map.iter().enumerate() {
        let key = format!("[map] {:?}", range.value);
        // A host of the wrong type has been said; its shards count as given, as do those of an unknown one.
        line_owners.push(
            host.as_ref()
                .and_then(|host| find_host(host, &key, hosts, faults)),
        );
        let Some(written) = parse_range(range, &key, faults) else {
            continue;
        };
        let Some(shards) = shards else { continue };
        if *written.end() >= shards {
            let what = format!(
                "names shard {}, but shards = {shards} makes them 0-{}",
                written.end(),
                shards - 1
            );
            faults.add(
                range.at,
                &key,
                what,
                format!("end the range at {} or below", shards - 1),
            );
        }
        let mut twice: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for shard in *written.start()..=(*written.end()).min(shards - 1) {
            match &mut given[shard as usize] {
                Some(first) => twice.entry(*first).or_default().push(shard),
                free => *free = Some(line),
            }
        }
        for (first, shards) in twice {
            let what = format!(
                "{} already in {:?} on line {}",
                are(&shards),
                map[first].range.value,
                { faults.place(map[first].range.at).line }
            );
            faults.add(
                range.at,
                &key,
                what,
                "give each shard to one host: shorten one of the two ranges",
            );
        }
    }
    let without: Vec<u32> = (0..)
        .zip(&given)
        .filter(|(_, line)| line.is_none())
        .map(|(shard, _)| shard)
        .collect();
    // A [map] that is not there has been said to be missing.
    let missing = map.is_empty() && map_at == 0;
    if !without.is_empty() && !missing {
        let mend = format!(
            "add {:?} = \"{}\", or lengthen a range",
            runs(&without),
            hosts.first().map_or("a", |h| h)
        );
        faults.add(
            map_at,
            "[map]",
            format!("{} without an owner", are(&without)),
            mend,
        );
    }
    given.into_iter().map(|line| line_owners[line?]).collect()
}

/// `0-2047` or `7`. A reversed range is a fault, and read as if it were not, so that its shards count as given.
fn parse_range(
    range: &At<String>,
    key: &str,
    faults: &mut Faults<'_>,
) -> Option<RangeInclusive<u32>> {
    let number = |text: &str| {
        let text = text.trim();
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse::<u32>().ok())
            .flatten()
    };
    let (first, last) = range
        .value
        .split_once('-')
        .unwrap_or((&range.value, &range.value));
    let (Some(first), Some(last)) = (number(first), number(last)) else {
        faults.add(
            range.at,
            key,
            "is no range of shards",
            "write \"FIRST-LAST\" such as \"0-2047\", or one shard as \"7\"",
        );
        return None;
    };
    if first > last {
        faults.add(
            range.at,
            key,
            "is reversed",
            format!("write \"{last}-{first}\""),
        );
    }
    Some(first.min(last)..=first.max(last))
}

/// `0-3, 7` for sorted shards; after the eighth run only how many more there are.
pub(super) fn runs(shards: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for shard in shards {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *shard => *last = *shard,
            _ => runs.push((*shard, *shard)),
        }
    }
    let shown = runs
        .iter()
        .take(8)
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if runs.len() > 8 {
        text += &format!(" and {} more ranges", runs.len() - 8);
    }
    text
}

fn are(shards: &[u32]) -> String {
    match shards {
        [one] => format!("shard {one} is"),
        many => format!("shards {} are", runs(many)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shardmap::validate;

    const GOOD: &str = r#"version = 1
[keyspace]
shards = 8
[hosts.a]
url = "postgres://app@h:1/app"
[hosts.b]
url = "postgres://app@h:2/app"
[map]
"0-3" = "a"
"4-7" = "b"
"#;

    /// The faults of GOOD with `from` replaced by `to`.
    fn with(from: &str, to: &str) -> Vec<String> {
        assert_eq!(GOOD.matches(from).count(), 1, "{from} must stand once");
        let faults = validate::map("f", &GOOD.replace(from, to), &|_| None).err();
        faults
            .unwrap_or_default()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    #[rustfmt::skip]
    fn every_shard_has_one_owner_or_it_is_said() {
        let cases: &[(&str, &str, &[&str])] = &[
            ("\"0-3\" = \"a\"", "\"0-2\" = \"a\"", &["f:8:2: [map]: shard 3 is without an owner -- add \"3\" = \"a\", or lengthen a range"]),
            ("\"0-3\" = \"a\"", "\"1\" = \"a\"", &["f:8:2: [map]: shards 0, 2-3 are without an owner"]),
            ("\"4-7\" = \"b\"", "\"2-7\" = \"b\"", &["f:10:1: [map] \"2-7\": shards 2-3 are already in \"0-3\" on line 9"]),
            ("\"4-7\" = \"b\"", "\"4-7\" = \"b\"\n5 = \"b\"", &["f:11:1: [map] \"5\": shard 5 is already in \"4-7\" on line 10"]),
            ("\"4-7\" = \"b\"", "\"4-8\" = \"b\"", &["f:10:1: [map] \"4-8\": names shard 8, but shards = 8 makes them 0-7 -- end the range at 7"]),
            ("\"4-7\" = \"b\"", "\"4-4294967295\" = \"b\"", &["f:10:1: [map] \"4-4294967295\": names shard 4294967295"]),
            ("\"4-7\" = \"b\"", "\"7-4\" = \"b\"", &["f:10:1: [map] \"7-4\": is reversed -- write \"4-7\""]),
            ("\"4-7\" = \"b\"", "\"4-7\" = \"c\"", &["f:10:9: [map] \"4-7\": unknown host \"c\" -- name one of a, b, or add [hosts.c]"]),
            ("\"4-7\" = \"b\"", "\"4-7\" = \"b\"\nx = \"b\"", &["f:11:1: [map] \"x\": is no range of shards"]),
            ("\"4-7\" = \"b\"", "\"4-7\" = \"b\"\n\"4294967296\" = \"b\"", &["f:11:1: [map] \"4294967296\": is no range of shards"]),
            ("\"4-7\" = \"b\"", "\"4-7\" = \"b\"\n\"-1\" = \"b\"", &["f:11:1: [map] \"-1\": is no range of shards"]),
            ("shards = 8", "shards = 6", &["f:10:1: [map] \"4-7\": names shard 7"]),
        ];
        for (from, to, wanted) in cases {
            let found = with(from, to);
            let agree = found.len() == wanted.len() && found.iter().zip(*wanted).all(|(f, w)| f.starts_with(w));
            assert!(agree, "{to}\n found: {found:#?}\nwanted: {wanted:#?}");
        }
        assert_eq!(with("\"4-7\" = \"b\"", "\" 4 - 7 \" = \"b\""), [""; 0]);
    }

    #[test]
    fn runs_are_merged_and_cut() {
        assert_eq!(runs(&[]), "");
        assert_eq!(runs(&[3]), "3");
        assert_eq!(runs(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
        let even: Vec<u32> = (0..40).step_by(2).collect();
        assert_eq!(runs(&even), "0, 2, 4, 6, 8, 10, 12, 14 and 12 more ranges");
    }
}
