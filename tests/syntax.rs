//! Statements in every form of Postgres' manual: none is unreadable, and those that are answered are answered as by one
//! Postgres.

use crate::routing::{Sameness, Twins, same_or_refused};

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
