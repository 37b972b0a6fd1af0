//! RELOAD: what it says, and what SHOW MAP remembers of it.

use super::{HTTP, console, get, http_address, map_items, psql, simple, text, wait_for};
use crate::support::{Hosts, Proxy};

#[tokio::test]
async fn reload_says_what_is_different_or_what_is_wrong_and_show_map_remembers() {
    let hosts = Hosts::bare(2, 8);
    hosts.write_map(&hosts.map_text(1, HTTP));
    // Through a link out of another directory, which is looked at every two seconds: RELOAD comes first.
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("linked.toml");
    std::os::unix::fs::symlink(hosts.map_file(), &link).unwrap();
    let proxy = Proxy::serve(&link, &[]);
    let http = http_address(&proxy);
    let client = console(&proxy).await;

    let mut version = 1;
    let said = wait_for("a reload before the watch's", || {
        version += 1;
        let text = hosts.map_text(version, HTTP);
        let (to, from) = ("\"0-3\" = \"b\"", "\"0-3\" = \"a\"");
        let text = if version % 2 == 0 {
            text.replace(from, to)
        } else {
            text
        };
        hosts.write_map(&text);
        let said = text_of_reload(&proxy);
        said.contains("4 shards 0-3: ").then_some(said)
    });
    assert!(
        said.contains(&format!("NOTICE:  version {} -> {version}", version - 1)),
        "{said}"
    );
    let items = map_items(&client).await;
    assert_eq!(items["version"], version.to_string());

    let good = hosts.map_text(version, HTTP);
    hosts.write_map(
        &good
            .replace("\"4-7\" = \"b\"", "\"4-6\" = \"c\"")
            .replace("pool = 10", "pol = 10"),
    );
    let error = client.simple_query("RELOAD").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "F0000");
    let detail = error.detail().unwrap();
    assert!(detail.lines().count() >= 3, "all faults at once: {detail}");
    for line in detail.lines() {
        let place = line
            .split("linked.toml:")
            .nth(1)
            .unwrap_or_else(|| panic!("no place: {line}"));
        let (row, rest) = place.split_once(':').unwrap();
        assert!(
            row.parse::<u32>().unwrap() > 0 && rest.as_bytes()[0].is_ascii_digit(),
            "{line}"
        );
    }
    assert!(detail.contains("unknown host"), "{detail}");
    assert!(
        error
            .hint()
            .unwrap()
            .contains(&format!("Version {version} stays in force"))
    );

    let rows = simple(&client, "SHOW MAP").await;
    let item = |name: &str| {
        let of_name = rows.iter().filter(|row| row[0].as_deref() == Some(name));
        of_name
            .map(|row| row[1].clone().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        item("load"),
        [format!("bad: version {version} stays in force")]
    );
    assert!(item("bad since")[0].ends_with(" UTC"));
    assert_eq!(item("fault").join("\n"), detail);
    let run = if version % 2 == 0 { "0-7" } else { "4-7" };
    assert_eq!(item(run), ["b"], "the map in force is shown");
    let metrics = get(http, "/metrics").1;
    assert!(metrics.contains("\npresplit_map_good 0\n"), "{metrics}");
    assert!(!metrics.contains("presplit_map_loads_total{result=\"bad\"} 0\n"));

    hosts.write_map(
        &hosts
            .map_text(version + 1, HTTP)
            .replace("\"4-7\" = \"b\"", "\"4-7\" = \"a\""),
    );
    client.simple_query("RELOAD").await.unwrap();
    let items = map_items(&client).await;
    assert_eq!((items["load"].as_str(), items.get("fault")), ("good", None));
    assert_eq!(items["version"], (version + 1).to_string());
    assert!(get(http, "/metrics").1.contains("\npresplit_map_good 1\n"));
}

fn text_of_reload(proxy: &Proxy) -> String {
    let reload = psql(proxy, &["-c", "RELOAD"]);
    assert!(reload.status.success(), "{reload:?}");
    text(&reload.stderr)
}
