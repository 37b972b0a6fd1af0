//! Statements as object-relational mappers send them: each that is answered is answered as by one Postgres.

use crate::routing::sameness::{Twins, is_refusal};
use crate::support::raw::{self, Raw};

/// The tables that they name, beside the demo's.
const TABLES: &str = r#"
ALTER TABLE photos ADD updated_at timestamptz, ADD tags text[], ADD data jsonb DEFAULT '{}', ADD like_count int DEFAULT 0,
    ADD deleted boolean, ADD deleted_at timestamptz, ADD version bigint DEFAULT 1, ADD x int, ADD y int, ADD z int;
CREATE TABLE auth_user (id bigint PRIMARY KEY, password text);
CREATE TABLE app_photo (id bigserial, user_id bigint NOT NULL, caption text, created_at timestamptz, data jsonb,
    like_count int DEFAULT 0, is_private boolean, UNIQUE (user_id));
CREATE TABLE app_like (id bigserial, user_id bigint NOT NULL, photo_id bigint);
CREATE TABLE comments (id bigserial, user_id bigint NOT NULL, photo_id bigint, parent_id bigint);
CREATE TABLE photos_archive (LIKE photos);
CREATE TABLE "Photo" (id bigserial PRIMARY KEY, "userId" bigint NOT NULL, caption text, likes bigint DEFAULT 0);
CREATE TABLE "Like" (id bigserial, "userId" bigint NOT NULL, "photoId" bigint);
INSERT INTO auth_user SELECT u, 'p' || u FROM generate_series(0, 15) u WHERE MINE(u);
INSERT INTO app_photo (id, user_id, caption, created_at, data, is_private)
    SELECT 100 + u, u, 'c' || u, '2024-01-15', '{"a":1,"k":2}', u % 2 = 0 FROM generate_series(0, 15) u WHERE MINE(u);
INSERT INTO app_like (id, user_id, photo_id) SELECT 200 + u, u, 100 + u FROM generate_series(0, 15) u WHERE MINE(u);
INSERT INTO comments SELECT 300 + u, u, 100 + u FROM generate_series(0, 15) u WHERE MINE(u);
INSERT INTO "Photo" (id, "userId", caption) SELECT (u << 23) | (u % 8 << 10), u, 'c' || u FROM generate_series(0, 15) u WHERE MINE(u);
INSERT INTO "Like" SELECT 400 + u, u, (u << 23) | (u % 8 << 10) FROM generate_series(0, 15) u WHERE MINE(u);
"#;

const RULES: &str = r#"auth_user = { key = "id" }
Photo = { key = "userId", ids = ["id"] }
Like = { key = "userId" }
"#;

/// Of which the rows follow from the server, the time or the sequence: only that they are answered alike is compared.
const OWN: &[&str] = &[
    "explain",
    "now()",
    "random",
    "pg_",
    "nextval",
    "version()",
    "current_",
    "localtime",
    "tablesample",
    "returning",
    "reset all",
    "discard all",
];

fn essence(sql: &str, answer: &[String]) -> Vec<String> {
    let loose = OWN.iter().any(|own| sql.to_lowercase().contains(own));
    let mut rows: Vec<String> = Vec::new();
    let mut rest = Vec::new();
    let fails = answer.iter().any(|l| l.starts_with("E "));
    for line in answer {
        // Whether it fails when it is parsed or when it runs is not compared.
        if fails && matches!(line.as_str(), "1" | "2") {
            continue;
        }
        let error = line
            .strip_prefix("E ")
            .and_then(|e| e.split(" | ").find_map(|f| f.strip_prefix('C')));
        match error {
            Some(code) => rest.push(format!("E {code}")),
            // What only several shards have to say.
            None if line.starts_with("N ") && line.contains("is made in every shard") => {}
            None if line.starts_with("D ") && loose => rows.push("D".to_owned()),
            None if line.starts_with("D ") => rows.push(line.clone()),
            None if line.starts_with("d ") => rows.push(line.clone()),
            None if loose && line.starts_with("T ") => {}
            None if loose && sql.to_lowercase().starts_with("explain") => {}
            None => rest.push(line.clone()),
        }
    }
    // The order of a window is not that of the rows.
    let lower = sql.to_lowercase();
    if !lower.contains("order by") || lower.contains(" over ") {
        rows.sort();
    }
    if loose {
        rows.dedup();
    }
    rest.extend(rows);
    rest
}

/// How many parameters a statement has.
fn params(sql: &str) -> usize {
    (1..20)
        .rev()
        .find(|n| sql.contains(&format!("${n}")))
        .unwrap_or(0)
}

fn bytes(sql: &str, extended: bool) -> Vec<u8> {
    match extended {
        false => raw::q(sql),
        true => [raw::pbde(sql, &vec!["1"; params(sql)]), raw::s()].concat(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_of_orms_are_answered_as_by_one_postgres() {
    let twins = Twins::with(TABLES, RULES).await;
    let plain = twins.plain.addr();
    let (mut equal, mut errors, mut refused, mut different) = (0, 0, Vec::new(), Vec::new());
    for extended in [false, true] {
        let (mut through, mut direct) = (Raw::connect(twins.proxy.addr()), Raw::connect(plain));
        for line in include_str!("../src/route/orm.tsv").lines() {
            let sql = line.split_once('\t').unwrap().1.replace("\\n", "\n");
            if !extended && params(&sql) > 0 {
                continue;
            }
            // Each by itself: nothing of it stays.
            for raw in [&mut through, &mut direct] {
                raw.query("BEGIN");
            }
            let bytes = bytes(&sql, extended);
            let answer = through.ask(&bytes, 1);
            if is_refusal(&answer) {
                refused.push(format!(
                    "{sql}\n      {}",
                    answer.iter().find(|l| l.starts_with("E ")).unwrap()
                ));
            } else {
                let expected = direct.ask(&bytes, 1);
                let (answer, expected) = (essence(&sql, &answer), essence(&sql, &expected));
                if answer == expected {
                    equal += 1;
                    let error = answer.iter().any(|l| l.starts_with("E "));
                    errors += usize::from(error);
                    if error {
                        println!("error: {sql}\n    {answer:?}");
                    }
                } else {
                    different.push(format!("extended: {extended}: {sql}\n   presplit: {answer:?}\n   postgres: {expected:?}"));
                }
            }
            for raw in [&mut through, &mut direct] {
                raw.query("ROLLBACK");
            }
        }
    }
    println!(
        "{equal} equal ({errors} of them errors), {} refused",
        refused.len()
    );
    println!("refused:\n  {}", refused.join("\n  "));
    assert!(different.is_empty(), "\n{}", different.join("\n"));
    assert!(equal > 150, "{equal} equal");
}
