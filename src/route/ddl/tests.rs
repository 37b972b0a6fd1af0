//! Statements of DDL, and where they are run.

use super::super::tests::{in_words, world};
use super::*;
use crate::route::{self, Target, Values, decide};
use crate::sql::parse::{self, Limits};
use crate::sql::rewrite::splice;
use crate::sql::shape::Shape;

/// Where a statement goes; for all shards, with the text for shard 3 and what comes behind it.
fn told(sql: &str) -> String {
    let world = world();
    let mut shape = Shape::default();
    shape.scan(sql.as_bytes()).unwrap();
    let plan = parse::plan(sql, &shape, &Limits::default()).unwrap();
    let bound = route::bind(&plan, &world.tables);
    let values = Values {
        text: sql.as_bytes(),
        holes: &shape.holes,
        params: None,
    };
    let route = decide(&bound, &values, &world.map, None);
    let (Ok(Target::Everywhere), Some(work)) = (route.as_ref().map(|r| &r.target), bound.work())
    else {
        return in_words(route);
    };
    let mut text = Vec::new();
    let schema = match work.place {
        Place::Shards => "S",
        _ => return format!("{:?}", work.place),
    };
    splice(
        sql.as_bytes(),
        &shape.holes,
        &bound.edits,
        schema,
        &mut text,
    );
    let mut text = String::from_utf8(text).unwrap();
    if work.unknown {
        text.push_str(" -- unknown");
    }
    text
}

#[test]
fn each_goes_where_its_object_is() {
    let cases = [
        (
            "ALTER TABLE public.photos ADD x int REFERENCES public.users (id)",
            "ALTER TABLE S.photos ADD x int REFERENCES S.users (id)",
        ),
        (
            "ALTER TABLE \"Photo\" ADD x int",
            "ALTER TABLE S.\"Photo\" ADD x int",
        ),
        (
            "CREATE TABLE new (user_id int)",
            "CREATE TABLE S.new (user_id int)",
        ),
        (
            "CREATE TABLE public.new (LIKE public.photos)",
            "CREATE TABLE S.new (LIKE S.photos)",
        ),
        (
            "CREATE TABLE \"Like\" (x int)",
            "CREATE TABLE S.\"Like\" (x int)",
        ),
        ("CREATE TABLE new (x int)", "SR003"),
        ("CREATE TABLE rates (x int)", "Host(\"a\")"),
        ("CREATE TABLE countries (x int)", "Hosts"),
        (
            "CREATE TABLE auth_user (x int)",
            "CREATE TABLE S.auth_user (x int)",
        ),
        (
            "CREATE INDEX i ON photos (id)",
            "CREATE INDEX i ON S.photos (id)",
        ),
        (
            "CREATE INDEX i ON new (id)",
            "CREATE INDEX i ON new (id) -- unknown",
        ),
        ("CREATE INDEX i ON invoices (id)", "Host(\"b\")"),
        (
            "DROP TABLE IF EXISTS new",
            "DROP TABLE IF EXISTS new -- unknown",
        ),
        ("DROP TABLE photos, users", "DROP TABLE S.photos, S.users"),
        ("DROP TABLE photos, invoices", "SR002"),
        (
            "DROP SEQUENCE photos_id_seq",
            "DROP SEQUENCE S.photos_id_seq",
        ),
        (
            "CREATE VIEW v AS SELECT * FROM photos, countries",
            "CREATE VIEW S.v AS SELECT * FROM photos, countries",
        ),
        (
            "CREATE VIEW v AS SELECT * FROM public.photos",
            "CREATE VIEW S.v AS SELECT * FROM S.photos",
        ),
        ("CREATE VIEW v AS SELECT * FROM invoices", "Host(\"b\")"),
        ("CREATE VIEW v AS SELECT * FROM countries", "Hosts"),
        ("CREATE VIEW v AS SELECT * FROM photos, invoices", "SR002"),
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE FUNCTION S.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        ),
        (
            "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "Hosts",
        ),
        ("DROP FUNCTION app_report()", "Hosts"),
        ("CREATE EXTENSION hstore", "Hosts"),
        ("GRANT SELECT ON invoices TO x", "Host(\"b\")"),
        ("TRUNCATE countries", "Hosts"),
        ("VACUUM invoices", "host b"),
        (
            "CREATE TABLE new (user_id int REFERENCES countries (code))",
            "CREATE TABLE S.new (user_id int REFERENCES countries (code))",
        ),
        (
            "CREATE TABLE new (user_id int REFERENCES invoices (id))",
            "SR002",
        ),
        (
            "ALTER TABLE countries ADD u int REFERENCES users (id)",
            "SR002",
        ),
        ("ALTER TABLE photos DROP user_id", "SR005"),
        (
            "ALTER TABLE users ALTER id SET DATA TYPE int",
            "ALTER TABLE S.users ALTER id SET DATA TYPE int",
        ),
        ("ALTER TABLE users ALTER id TYPE uuid USING x", "SR005"),
        ("CREATE TABLE shard_0001.new (user_id int)", "SR003"),
    ];
    for (sql, expected) in cases {
        assert_eq!(told(sql), expected, "{sql}");
    }
}

#[test]
fn what_is_run_behind_is_safe_from_names() {
    let after = After::Ids {
        table: "it's".to_owned(),
        columns: vec![("$presplit$".to_owned(), true)],
    };
    let sql = after.sql("S", "S");
    assert!(
        sql.starts_with("DO $ppresplit$ ") && sql.contains("('S.\"it''s\"', '$presplit$')"),
        "{sql}"
    );
}
