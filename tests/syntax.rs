//! Statements in every form of Postgres' manual: none is unreadable, and those that are answered are answered as by one
//! Postgres.

use crate::routing::sameness::{Sameness, Twins, same_or_refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_form_of_the_manual_is_read() {
    let twins = Twins::new().await;
    let list = include_str!("fixtures/syntax.sql");
    let Sameness { equal, refused } = same_or_refused(&twins, list).await;
    let unreadable: Vec<_> = refused.iter().filter(|r| r.contains("CSR006")).collect();
    // Where the letters of an identifier follow from the string after it.
    let known = |r: &&&String| r.contains("FROM users WHERE \"id\" = 3");
    assert!(unreadable.iter().all(|r| known(&r)), "{unreadable:#?}");
    assert!(equal > 250, "{equal} equal");
}

/// Views that are as good as tables and others, types, and names in quotes.
const MORE: &str = r#"
CREATE VIEW captions AS SELECT id, user_id, caption FROM photos WHERE caption <> '';
CREATE VIEW named AS SELECT c.user_id AS owner, c.caption, u.name FROM captions c LEFT JOIN users u ON u.id = c.user_id;
CREATE VIEW fans AS SELECT target_id AS user_id, source_id AS fan FROM follows;
CREATE VIEW admirers AS SELECT target_id AS user_id FROM follows;
CREATE VIEW totals AS SELECT user_id, count(*) AS n FROM photos GROUP BY user_id;
CREATE MATERIALIZED VIEW kept AS SELECT user_id, count(*) AS n FROM photos GROUP BY user_id;
CREATE VIEW of_five AS SELECT user_id, n FROM totals WHERE user_id = 5;
CREATE VIEW both_kinds AS SELECT user_id, caption FROM photos UNION ALL SELECT user_id, photo_id::text FROM likes;
CREATE VIEW names AS SELECT code, name FROM countries;
CREATE VIEW simple_likes AS SELECT user_id, photo_id FROM likes;
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE pair AS (a int, b text);
CREATE TABLE "Mixed Case" ("User Id" bigint NOT NULL, "select" text);
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_types_and_names_in_quotes() {
    let rules = "\"Mixed Case\" = { key = \"User Id\" }\n";
    let place = "DO $$ BEGIN CREATE TYPE public.place AS ENUM ('sad', 'home'); EXCEPTION WHEN duplicate_object THEN END $$;";
    let twins = Twins::with(&format!("{place}{MORE}"), rules).await;
    let list = include_str!("fixtures/views.sql");
    let Sameness { equal, refused } = same_or_refused(&twins, list).await;
    assert!(equal > 60, "{equal} equal");
    assert!(
        refused.iter().all(|r| !r.contains("CSR006")),
        "{refused:#?}"
    );
}
