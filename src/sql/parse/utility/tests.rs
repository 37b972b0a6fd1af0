//! Statements of DDL, and what is read out of them.

use super::*;
use crate::sql::parse::{Limits, plan};
use crate::sql::shape::Shape;

fn ddl(text: &str) -> Option<Box<Ddl>> {
    let mut shape = Shape::default();
    shape.scan(text.as_bytes()).unwrap();
    plan(text, &shape, &Limits::default()).unwrap().ddl
}

fn objects(text: &str) -> String {
    let Some(ddl) = ddl(text) else {
        return "-".to_owned();
    };
    let shown = |table: &TableRef| match &table.schema {
        Some((schema, _)) => format!("{schema}.{}", table.name),
        None => table.name.clone(),
    };
    let mut all = vec![format!("{:?} {:?}", ddl.act, ddl.kind)];
    all.extend(ddl.objects.iter().map(shown));
    all.extend(
        ddl.refers
            .iter()
            .map(|(tie, table)| format!("{tie:?}:{}", shown(table))),
    );
    if ddl.run != Run::Together {
        all.push(format!("{:?}", ddl.run));
    }
    all.join(" ")
}

#[test]
fn objects_and_ties() {
    let cases = [
        (
            "CREATE TABLE IF NOT EXISTS public.\"Photo\" (id int, u int REFERENCES users (id), FOREIGN KEY (a) REFERENCES public.b)",
            "Create Table public.Photo References:users References:public.b",
        ),
        (
            "CREATE TABLE p PARTITION OF q FOR VALUES IN (1)",
            "Create Table p Same:q",
        ),
        (
            "CREATE TABLE p (LIKE q INCLUDING ALL, x int) INHERITS (r, s)",
            "Create Table p Same:q Same:r Same:s",
        ),
        ("CREATE TABLE p AS SELECT 1", "CreateAs Table p"),
        (
            "CREATE UNLOGGED TABLE p (a, b) AS SELECT 1, 2",
            "CreateAs Table p",
        ),
        (
            "CREATE TABLE p (a int GENERATED ALWAYS AS (1) STORED) WITH (fillfactor = 70)",
            "Create Table p",
        ),
        ("CREATE TABLE p OF t", "-"),
        (
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON ONLY s.t USING btree (a)",
            "Create Table s.t Alone",
        ),
        ("CREATE INDEX ON t (a)", "Create Table t"),
        ("CREATE OR REPLACE VIEW v AS SELECT 1", "Create View v"),
        (
            "CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT 1",
            "Create View v",
        ),
        (
            "CREATE SEQUENCE s START 5 OWNED BY t.c",
            "Create Sequence s Same:t",
        ),
        (
            "CREATE OR REPLACE FUNCTION f(a int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "Create Routine f",
        ),
        (
            "CREATE CONSTRAINT TRIGGER x AFTER INSERT OR UPDATE OF a ON t FROM u FOR EACH ROW EXECUTE FUNCTION f()",
            "Create Table t",
        ),
        (
            "CREATE RULE r AS ON INSERT TO t DO NOTHING",
            "Create Table t",
        ),
        ("CREATE TYPE mood AS ENUM ('a')", "Create Type mood"),
        (
            "CREATE EXTENSION IF NOT EXISTS hstore",
            "Create Type hstore",
        ),
        ("CREATE SCHEMA x", "-"),
        (
            "ALTER TABLE IF EXISTS ONLY t ADD CONSTRAINT c FOREIGN KEY (a, b) REFERENCES u (x, y), ATTACH PARTITION p DEFAULT",
            "Alter Table t Same:p References:u",
        ),
        ("ALTER TABLE t SET SCHEMA x", "-"),
        ("ALTER TABLE ALL IN TABLESPACE a SET TABLESPACE b", "-"),
        ("ALTER INDEX i RENAME TO j", "Alter Index i"),
        (
            "ALTER SEQUENCE s OWNED BY public.t.c",
            "Alter Sequence s Same:public.t",
        ),
        ("ALTER TRIGGER x ON t RENAME TO y", "Alter Table t"),
        ("ALTER TYPE mood ADD VALUE 'b'", "Alter Type mood"),
        ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO x", "-"),
        (
            "DROP TABLE IF EXISTS a, public.b CASCADE",
            "Drop Table a public.b",
        ),
        ("DROP INDEX CONCURRENTLY i", "Drop Index i Alone"),
        ("DROP FUNCTION f(int, text), g", "Drop Routine f g"),
        ("DROP TRIGGER x ON t", "Drop Table t"),
        ("DROP MATERIALIZED VIEW v", "Drop View v"),
        ("DROP OWNED BY x", "-"),
        ("COMMENT ON COLUMN public.t.c IS 'x'", "Say Table public.t"),
        ("COMMENT ON CONSTRAINT c ON t IS 'x'", "Say Table t"),
        ("COMMENT ON INDEX i IS 'x'", "Say Index i"),
        ("GRANT SELECT (a), UPDATE ON t, u TO x", "Say Table t u"),
        ("REVOKE ALL ON FUNCTION f(int) FROM x", "Say Routine f"),
        ("GRANT USAGE ON SCHEMA public TO x", "-"),
        ("GRANT a TO b", "-"),
        (
            "TRUNCATE TABLE ONLY a *, b RESTART IDENTITY CASCADE",
            "Truncate Table a b",
        ),
        (
            "VACUUM (FULL, ANALYZE) a (x), b",
            "Maintain Table a b Alone",
        ),
        ("VACUUM", "-"),
        ("ANALYZE VERBOSE a", "Maintain Table a Each"),
        ("CLUSTER a USING i", "Maintain Table a"),
        ("CLUSTER i ON a", "Maintain Table a"),
        ("REINDEX (CONCURRENTLY) TABLE a", "Maintain Table a Alone"),
        ("REINDEX INDEX CONCURRENTLY i", "Maintain Index i Alone"),
        ("REINDEX DATABASE d", "-"),
        (
            "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
            "Maintain View v",
        ),
        ("LOCK TABLE ONLY a, b IN SHARE MODE", "Lock Table a b"),
        ("CREATE", "-"),
        ("CREATE TABLE", "-"),
        ("CREATE TABLE (", "-"),
        ("ALTER TABLE t RENAME", "-"),
        ("DROP TABLE a,", "-"),
    ];
    for (text, expected) in cases {
        assert_eq!(objects(text), expected, "{text}");
    }
}

#[test]
fn columns_and_changes() {
    let made = ddl("CREATE TABLE t (id bigserial PRIMARY KEY, \"N\" numeric(10, 2) DEFAULT 1, n pg_catalog.int8 GENERATED BY DEFAULT AS IDENTITY, \
         CONSTRAINT c CHECK (a > 0), m double precision, g int GENERATED ALWAYS AS (1) STORED)").unwrap();
    let shown: Vec<_> = made
        .columns
        .iter()
        .map(|c| format!("{}:{}:{}", c.name, c.type_name, c.counts))
        .collect();
    assert_eq!(
        shown,
        [
            "id:bigserial:true",
            "N:numeric:false",
            "n:int8:true",
            "m:double:false",
            "g:int:false"
        ]
    );
    let altered = ddl("ALTER TABLE t DROP a, DROP COLUMN IF EXISTS b, DROP CONSTRAINT c, RENAME d TO e, ALTER f TYPE text USING f::text, \
         ADD COLUMN IF NOT EXISTS g serial, ALTER COLUMN h ADD GENERATED ALWAYS AS IDENTITY, ADD CONSTRAINT i UNIQUE (x, y)").unwrap();
    let own = str::to_owned;
    assert_eq!(
        altered.changes,
        [
            Change::Drop(own("a")),
            Change::Drop(own("b")),
            Change::Rename(own("d"), own("e")),
            Change::Type(own("f"), own("text")),
        ]
    );
    let added: Vec<_> = altered.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(added, ["g", "h"]);
    let renamed = ddl("ALTER TABLE t RENAME TO u").unwrap();
    assert_eq!(renamed.changes, [Change::RenameTo(own("u"))]);
}

#[test]
fn names_with_public_in_front() {
    let view =
        ddl("CREATE VIEW v AS SELECT public.photos.id, x.public FROM public.photos, x.public.y")
            .unwrap();
    let names: Vec<_> = view.schemas.iter().map(|s| s.table.as_str()).collect();
    assert_eq!(names, ["photos", "photos"]);
}
