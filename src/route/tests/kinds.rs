//! Reads over shards, tables that are not sharded, other statements, hints.

use super::*;

#[test]
fn merges() {
    check(&[
        (
            "MERGE INTO photos t USING (SELECT 5 AS u, 'x' AS c) s ON t.user_id = s.u WHEN MATCHED THEN UPDATE SET caption = s.c WHEN NOT MATCHED THEN INSERT (user_id, caption) VALUES (s.u, s.c)",
            "5",
        ),
        (
            "MERGE INTO photos t USING (SELECT 5 AS u) s ON t.user_id = s.u WHEN NOT MATCHED THEN INSERT (user_id) VALUES (6)",
            "SR002",
        ),
        (
            "MERGE INTO photos t USING (SELECT 5 AS u) s ON t.user_id = s.u WHEN NOT MATCHED THEN INSERT (caption) VALUES ('x')",
            "SR001",
        ),
        (
            "MERGE INTO photos t USING users s ON t.user_id = 5 AND s.id = 5 WHEN MATCHED THEN DO NOTHING",
            "5",
        ),
        (
            "MERGE INTO photos t USING (SELECT 5 AS u) s ON t.user_id = s.u WHEN NOT MATCHED BY SOURCE THEN DELETE",
            "SR001",
        ),
        (
            "MERGE INTO photos t USING (SELECT 5 AS u) s ON t.user_id = s.u WHEN MATCHED THEN UPDATE SET user_id = 6",
            "SR005",
        ),
    ]);
}

#[test]
fn spread() {
    check(&[
        (
            "SELECT id, caption FROM photos WHERE user_id IN (1, 2, 17)",
            "1,2",
        ),
        (
            "SELECT id FROM photos WHERE user_id = 1 OR (user_id = 2 AND caption = 'x')",
            "1,2",
        ),
        (
            "SELECT * FROM photos WHERE user_id IN (1, 2) ORDER BY id",
            "1,2",
        ),
        (
            "SELECT * FROM photos WHERE user_id IN (1, 17) ORDER BY id LIMIT 3",
            "1",
        ),
        ("SELECT count(*) FROM photos", "all"),
        ("SELECT DISTINCT caption FROM photos", "all"),
        ("SELECT caption FROM photos GROUP BY caption", "all"),
        ("SELECT * FROM photos LIMIT 5", "all"),
        ("SELECT * FROM photos FETCH FIRST 5 ROWS WITH TIES", "SR004"),
        ("SELECT * FROM photos OFFSET 1", "all"),
        ("SELECT * FROM photos FOR UPDATE", "SR001"),
        (
            "SELECT row_number() OVER (ORDER BY id) FROM photos",
            "SR004",
        ),
        ("SELECT random() FROM photos", "SR004"),
        ("SELECT * FROM photos TABLESAMPLE SYSTEM (10)", "SR004"),
        ("SELECT photo_count(user_id) FROM photos", "SR001"),
        ("SELECT lower(caption), now() FROM photos", "all"),
        ("SELECT unknown_function(caption) FROM photos", "SR001"),
        (
            "SELECT * FROM users u JOIN photos p ON p.user_id = u.id",
            "all",
        ),
        (
            "SELECT * FROM users u LEFT JOIN photos p ON p.user_id = u.id",
            "all",
        ),
        (
            "SELECT * FROM users u LEFT JOIN photos p ON p.user_id = u.id WHERE u.id IN (1, 2)",
            "1,2",
        ),
        (
            "SELECT * FROM users u JOIN photos p ON p.caption = u.name",
            "SR004",
        ),
        ("SELECT * FROM users u, photos p", "SR004"),
        // Equality that an outer join does not enforce ties nothing.
        (
            "SELECT * FROM users u CROSS JOIN photos p LEFT JOIN likes l ON u.id = p.user_id AND l.user_id = u.id",
            "SR004",
        ),
        (
            "SELECT * FROM users u, photos p WHERE NOT EXISTS (SELECT 1 FROM countries WHERE u.id = p.user_id)",
            "SR004",
        ),
        (
            "SELECT * FROM users u LEFT JOIN countries c ON c.code = u.country",
            "all",
        ),
        (
            "SELECT * FROM countries c LEFT JOIN users u ON c.code = u.country",
            "SR004",
        ),
        (
            "SELECT * FROM countries c RIGHT JOIN users u ON c.code = u.country",
            "all",
        ),
        (
            "SELECT * FROM countries c FULL JOIN users u ON c.code = u.country",
            "SR004",
        ),
        (
            "SELECT * FROM countries c JOIN users u ON c.code = u.country",
            "all",
        ),
        (
            "SELECT * FROM countries c WHERE EXISTS (SELECT 1 FROM users u WHERE u.country = c.code)",
            "SR004",
        ),
        ("SELECT * FROM photos, pg_class", "SR004"),
        ("EXPLAIN SELECT * FROM photos", "SR004"),
        (
            "EXPLAIN SELECT * FROM photos WHERE user_id IN (1, 2)",
            "SR004",
        ),
        ("COPY (SELECT * FROM photos) TO STDOUT", "all"),
        ("COPY (SELECT * FROM photos ORDER BY id) TO STDOUT", "SR004"),
        ("COPY (SELECT * FROM photos) TO STDOUT (on_magic)", "SR004"),
        ("COPY (SELECT * FROM photos) TO '/tmp/x'", "0A000"),
        ("DECLARE c CURSOR FOR SELECT * FROM photos", "SR004"),
    ]);
}

#[test]
fn other_tables_and_none() {
    check(&[
        ("", "any"),
        (" -- nothing\n", "any"),
        ("SELECT 1", "any"),
        ("SELECT", "template"),
        ("SELECT now(), version()", "any"),
        ("VALUES (1), (2)", "any"),
        ("SELECT * FROM countries", "any"),
        ("TABLE countries", "any"),
        ("SELECT * FROM generate_series(1, 3) g", "any"),
        (
            "SELECT * FROM countries c JOIN invoices i ON true",
            "host b",
        ),
        ("SELECT * FROM invoices", "host b"),
        (
            "SELECT * FROM public.invoices WHERE user_id = 5 FOR UPDATE",
            "host b",
        ),
        ("UPDATE rates SET code = 'x'", "host a"),
        ("SELECT * FROM pg_class", "template"),
        (
            "SELECT * FROM pg_catalog.pg_class WHERE relname = 'photos'",
            "template",
        ),
        ("SELECT * FROM information_schema.tables", "template"),
        ("SELECT 'photos'::regclass::oid", "template"),
        ("SELECT to_regclass('photos')", "template"),
        ("SELECT current_schema()", "template"),
        ("SELECT nextval('photos_id_seq')", "SR001"),
        ("SELECT nextval('photos_id_seq'::regclass)", "SR001"),
        ("SELECT nextval($1)", "SR001"),
        ("SELECT nextval('other_seq')", "SR001"),
        (
            "INSERT INTO photos (user_id, like_count) VALUES (5, nextval('other_seq'))",
            "SR003",
        ),
        (
            "INSERT INTO invoices (id) VALUES (nextval('invoices_id_seq'))",
            "host b",
        ),
        ("SELECT photo_count(5)", "SR001"),
        ("SELECT app_report()", "SR003"),
        ("SELECT * FROM app_report()", "SR003"),
        (
            "SELECT app_report() FROM photos WHERE user_id = 5",
            "5 path",
        ),
        (
            "SELECT photo_count(user_id) FROM photos WHERE user_id = 5",
            "5 path",
        ),
        ("SELECT 'sad'::mood FROM photos WHERE user_id = 5", "5 path"),
        ("SELECT x::photos FROM photos x WHERE user_id = 5", "5"),
    ]);
}

/// They would read the rows of one shard, or of none, and give them for all.
#[test]
fn functions_that_read_unseen_tables() {
    check(&[
        ("SELECT table_to_xml('photos', true, false, '')", "SR006"),
        (
            "SELECT query_to_xml('SELECT * FROM photos', true, false, '') FROM users WHERE id = 5",
            "SR006",
        ),
        (
            "SELECT pg_catalog.query_to_xml_and_xmlschema($1, true, false, '')",
            "SR006",
        ),
        (
            "SELECT * FROM photos, ts_stat('SELECT x FROM photos') WHERE user_id = 5",
            "SR006",
        ),
        (
            "/* presplit: shard=5 */ SELECT table_to_xml('photos', true, false, '')",
            "5 path",
        ),
        (
            "SELECT xmlparse(content caption) FROM photos WHERE user_id = 5",
            "5",
        ),
    ]);
}

#[test]
fn utilities() {
    check(&[
        ("CREATE TABLE photos (id int)", "everywhere"),
        ("ALTER TABLE photos ADD COLUMN x int", "everywhere"),
        ("DROP TABLE photos", "everywhere"),
        ("TRUNCATE photos", "everywhere"),
        ("TRUNCATE invoices", "host b"),
        ("LOCK TABLE photos IN SHARE MODE", "everywhere"),
        ("VACUUM", "SR001"),
        ("VACUUM invoices", "host b"),
        ("VACUUM invoices, rates", "SR002"),
        ("CREATE TEMP TABLE t AS SELECT 1", "host a"),
        ("CREATE TEMPORARY TABLE t (x int)", "0 path"),
        ("DO $$ BEGIN END $$", "SR001"),
        ("CALL p(1)", "SR001"),
        ("PREPARE q AS SELECT 1", "SR006"),
        ("SELECT * INTO x FROM photos WHERE user_id = 5", "SR001"),
        ("SELECT 1 INTO TEMP x", "0A000"),
        (
            "WITH a AS (SELECT 1) SELECT * INTO TEMPORARY TABLE x FROM a",
            "0A000",
        ),
        ("EXPLAIN ANALYZE SELECT 1 AS into INTO x", "SR001"),
        ("COPY photos TO STDOUT", "all"),
        ("COPY photos (id) TO STDOUT (FORMAT csv, HEADER)", "all"),
        ("COPY photos TO STDOUT (FORMAT other)", "SR006"),
        ("COPY photos TO PROGRAM 'x'", "0A000"),
        ("COPY photos (id, user_id) FROM STDIN", "rows"),
        ("COPY photos FROM STDIN", "rows"),
        ("COPY public.photos FROM STDOUT", "rows"),
        ("COPY BINARY photos FROM STDIN", "rows"),
        (
            "COPY photos FROM STDIN WITH CSV HEADER QUOTE AS '|' FORCE NOT NULL caption, tags",
            "rows",
        ),
        ("COPY photos FROM STDIN DELIMITERS ';' WITH NULL ''", "rows"),
        (
            "COPY photos FROM STDIN (FORMAT 'csv', HEADER match, DELIMITER ';', FORCE_NULL (caption), FREEZE 1)",
            "rows",
        ),
        ("COPY photos FROM STDIN WHERE user_id > 5", "rows"),
        (
            "COPY photos FROM STDIN (FORMAT csv) WHERE photos.user_id > 5",
            "rows",
        ),
        ("COPY photos FROM STDIN WHERE next_id() > 5", "SR006"),
        ("COPY photos FROM STDIN (FORMAT xml)", "SR006"),
        ("COPY photos FROM STDIN (ON_ERROR ignore)", "SR006"),
        ("COPY photos FROM '/tmp/x'", "0A000"),
        ("COPY photos FROM PROGRAM 'cat'", "0A000"),
        // The id carries the shard, too.
        ("COPY photos (id, caption) FROM STDIN", "rows"),
        ("COPY photos (caption) FROM STDIN", "SR001"),
        ("COPY likes (photo_id) FROM STDIN", "SR001"),
        ("COPY keyless FROM STDIN", "SR003"),
        ("COPY shard_0003.photos FROM STDIN", "rows 3"),
        ("COPY invoices FROM STDIN", "host b"),
        ("COPY countries TO STDOUT", "any"),
        ("COPY countries FROM STDIN", "rows"),
        ("COPY shard_0003.photos TO STDOUT", "3"),
        (
            "COPY (SELECT * FROM photos WHERE user_id = 5) TO STDOUT WITH CSV HEADER",
            "5",
        ),
        (
            "EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM photos WHERE user_id = 5",
            "5",
        ),
        (
            "EXPLAIN ANALYZE VERBOSE UPDATE photos SET caption = 'x' WHERE user_id = 5",
            "5",
        ),
        (
            "DECLARE photos NO SCROLL CURSOR WITH HOLD FOR SELECT * FROM photos WHERE user_id = 5",
            "5",
        ),
        ("SELEC * FROM photos", "template"),
        ("SELECT * FROM photos WHERE (", "SR006"),
        ("SELECT * FROM nothing WHERE (", "template"),
        ("SELECT 1; SELECT * FROM photos", "SR006"),
        ("SELECT U&\"d\\0061t\" UESCAPE '!' FROM photos", "SR006"),
    ]);
}

#[test]
fn hints() {
    check(&[
        (
            "/* presplit: key=5 */ SELECT * FROM photos ORDER BY id",
            "5",
        ),
        ("/* presplit: shard=5 */ SELECT count(*) FROM photos", "5"),
        (
            "/* presplit: shard=5 */ SELECT * FROM photos WHERE user_id = 21",
            "5",
        ),
        (
            "/* presplit: shard=5 */ SELECT * FROM photos WHERE user_id = 6",
            "SR002",
        ),
        (
            "/* presplit: shard=5 */ SELECT * FROM photos WHERE user_id IN (5, 6)",
            "SR002",
        ),
        ("/* presplit: shard=16 */ SELECT * FROM photos", "SR007"),
        ("/* presplit: key=x */ SELECT * FROM photos", "SR007"),
        (
            "/* presplit: key=5 */ UPDATE photos SET user_id = 6",
            "SR005",
        ),
        ("/* presplit: key=5 */ UPDATE photos SET caption = 'x'", "5"),
        (
            "/* presplit: key=5 */ INSERT INTO photos (user_id) VALUES (abs(5))",
            "5 path",
        ),
        ("/* presplit: key=5 */ TRUNCATE photos", "5 path"),
        ("/* presplit: key=5 */ COPY photos FROM STDIN", "rows 5"),
        ("/* presplit: key=5 */ COPY photos TO STDOUT", "5"),
        ("/* presplit: all */ COPY photos TO STDOUT", "all"),
        ("/* presplit: all */ COPY photos FROM STDIN", "SR004"),
        (
            "/* presplit: shard=5 */ COPY shard_0003.photos FROM STDIN",
            "SR002",
        ),
        (
            "/* presplit: key=5 */ SELECT * FROM photos WHERE (",
            "5 path",
        ),
        ("/* presplit: key=5 */ SELECT * FROM invoices", "host b"),
        ("/* presplit: key=5 */ SELECT 1", "5"),
        (
            "/* presplit: key=5 */ SELECT nextval('photos_id_seq')",
            "5 path",
        ),
        ("/* presplit: key=5 */ SELECT * FROM pg_class", "5 path"),
        (
            "/* presplit: key=5 */ CREATE TEMP TABLE x (y int)",
            "0 path",
        ),
        ("/* presplit: all */ SELECT * FROM photos", "all"),
        ("/* presplit: all */ SELECT count(*) FROM photos", "all"),
        (
            "/* presplit: all */ UPDATE photos SET caption = 'x'",
            "each of all",
        ),
        ("/* presplit: all */ SELECT 1", "SR004"),
    ]);
}
