//! `presplit explain --file`: reports on files as people have them, with no database anywhere.

use std::process::{Command, Output};

use serde_json::{Value, json};

const QUERIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/queries/");

fn explain(file: &str, more: &[&str]) -> Output {
    let root = env!("CARGO_MANIFEST_DIR");
    Command::new(env!("CARGO_BIN_EXE_presplit"))
        .args(["explain", "--map", &format!("{root}/shardmap.toml")])
        .args(["--schema", &format!("{root}/src/ops/demo/schema.sql")])
        .args(["--file", file])
        .args(more)
        .output()
        .unwrap()
}

fn report(file: &str, more: &[&str]) -> Value {
    let mut args = vec!["--json"];
    args.extend(more);
    let output = explain(&format!("{QUERIES}{file}"), &args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*error), (Some(0), ""));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Statements by what becomes of them, where there are any.
fn counts(report: &Value, of: &str) -> Value {
    let some = |(name, count): (&String, &Value)| {
        let n = count["statements"].as_u64().filter(|n| *n > 0)?;
        Some((name.clone(), json!(n)))
    };
    report[of]
        .as_object()
        .unwrap()
        .iter()
        .filter_map(some)
        .collect()
}

#[test]
fn a_file_of_sql() {
    let report = report("app.sql", &[]);
    assert_eq!(report["version"], 1);
    assert_eq!(report["format"], "sql");
    assert_eq!(
        (&report["statements"], &report["shapes"]),
        (&json!(20), &json!(18))
    );
    let routes = json!({
        "one_shard": 6, "several_shards": 2, "all_shards": 1, "unsharded": 2, "catalog": 1, "every_host": 1, "session": 3, "refused": 4
    });
    assert_eq!(counts(&report, "routes"), routes);
    let codes = json!({"SR001": 3, "SR003": 1});
    assert_eq!(counts(&report, "codes"), codes);
    // The most frequent first, then as they stand in the file.
    let lines: Vec<_> = report["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["line"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, [16, 18, 27]);
    let first = &report["refused"][0];
    assert_eq!(first["statements"], 2);
    assert_eq!(first["code"], "SR001");
    assert_eq!(first["sql"], "UPDATE photos SET caption = 'x' WHERE id > 7");
    assert!(
        first["hint"]
            .as_str()
            .unwrap()
            .starts_with("Add photos.user_id = ")
    );
}

/// The same statements as Postgres 15 wrote them down in three ways.
#[test]
fn logs_and_statistics_agree() {
    let routes = json!({
        "one_shard": 5, "several_shards": 1, "all_shards": 1, "any_host": 2, "unsharded": 2, "session": 6, "refused": 1
    });
    for (file, format) in [
        ("postgresql.log", "log"),
        ("postgresql.csv", "csvlog"),
        ("statements.csv", "pg_stat_statements"),
    ] {
        for args in [&[][..], &["--format", format][..]] {
            let report = report(file, args);
            assert_eq!(report["format"], format);
            assert_eq!(counts(&report, "routes"), routes, "{file}");
            assert_eq!(counts(&report, "codes"), json!({"SR001": 1}), "{file}");
            assert_eq!(
                (&report["statements"], &report["shapes"]),
                (&json!(18), &json!(14)),
                "{file}"
            );
        }
    }
}

#[test]
fn text_and_exit_codes() {
    let file = format!("{QUERIES}app.sql");
    let output = explain(&file, &[]);
    assert_eq!(output.status.code(), Some(0), "a report is no failure");
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "app.sql (sql): 20 statements of 18 shapes",
        "one shard                     6   30.0 %       5 shapes",
        "refused                       4   20.0 %       3 shapes",
        "SR001 x 2, line 16: no shard key",
        "Hint: Add photos.user_id = ...",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let output = explain(&file, &["--fail-on-refused"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error, "presplit: 4 statements would be refused\n");
    let output = explain("/nosuch.sql", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nosuch.sql: No such file"));
    let output = explain(&file, &["--format", "pg_stat_statements"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no column \"query\""));
}
