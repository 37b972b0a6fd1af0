//! Forms of Postgres' grammar that the parser does not know, and what they bind.

use super::*;

#[test]
fn joins_by_name_and_nested_joins() {
    check(&[
        (
            "SELECT * FROM photos p JOIN likes l CROSS JOIN users u ON p.user_id = l.user_id AND l.user_id = u.id WHERE u.id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos p LEFT JOIN likes l CROSS JOIN users u ON p.user_id = l.user_id AND l.user_id = u.id WHERE u.id = 5",
            "all",
        ),
        (
            "SELECT * FROM photos p LEFT JOIN likes l CROSS JOIN (users u JOIN photos q ON q.user_id = u.id) ON p.user_id = l.user_id AND u.id = 5 WHERE p.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos p LEFT JOIN likes l JOIN comments c NATURAL JOIN users u ON l.user_id = c.user_id ON p.user_id = l.user_id WHERE p.user_id = 5",
            "SR001",
        ),
        (
            "SELECT * FROM photos p CROSS JOIN users u JOIN likes l USING (user_id) WHERE p.user_id = 5 AND u.id = 5",
            "5",
        ),
        (
            "SELECT j.user_id FROM photos JOIN likes USING (user_id) AS j WHERE j.user_id = 5",
            "5",
        ),
        (
            "SELECT 1 FROM photos LEFT JOIN likes USING (user_id) AS j WHERE j.user_id = 5",
            "5",
        ),
        (
            "SELECT 1 FROM photos FULL JOIN likes USING (user_id) AS j WHERE j.user_id = 5",
            "all",
        ),
        // The inner j is none of the outer query's.
        (
            "SELECT 1 FROM users j WHERE EXISTS (SELECT 1 FROM photos JOIN likes USING (user_id) AS j WHERE j.user_id = 5)",
            "SR004",
        ),
        (
            "DELETE FROM photos USING (SELECT 5 AS k) AS s WHERE photos.user_id = s.k",
            "5",
        ),
        (
            "SELECT * FROM photos p, ROWS FROM (generate_series(1, 2), unnest('{5}'::int[])) AS t(a, b) WHERE p.user_id = 5",
            "5",
        ),
        (
            "SELECT likes, rows FROM (SELECT 1 AS likes, 2 AS rows) x",
            "any",
        ),
    ]);
}

#[test]
fn recursion_with_search_and_cycle() {
    check(&[
        (
            "WITH RECURSIVE t(n) AS (SELECT parent_id FROM comments WHERE user_id = 5 UNION ALL SELECT c.parent_id FROM comments c JOIN t ON c.id = t.n AND c.user_id = 5) SEARCH DEPTH FIRST BY n SET o CYCLE n SET c USING p SELECT n, o FROM t",
            "5",
        ),
        // A column that SEARCH adds hides one of the outer query.
        (
            "SELECT * FROM photos p WHERE user_id IN (WITH RECURSIVE t(n) AS (SELECT 1) SEARCH DEPTH FIRST BY n SET user_id SELECT 5 FROM t WHERE user_id = 6)",
            "5",
        ),
        (
            "SELECT search, cycle FROM (SELECT 1 AS search, 2 AS cycle) x",
            "any",
        ),
    ]);
}

#[test]
fn calls_in_forms_of_their_own() {
    check(&[
        (
            "SELECT x.n FROM photos p, XMLTABLE('/r' PASSING p.caption COLUMNS n int PATH '@n' DEFAULT 1 NOT NULL) x WHERE p.user_id = 5",
            "5",
        ),
        (
            "SELECT 1 FROM XMLTABLE('/r' PASSING BY REF (SELECT caption FROM photos WHERE user_id = 5) COLUMNS n int) x",
            "5",
        ),
        (
            "SELECT 1 FROM photos p, XMLTABLE('/r' PASSING p.caption COLUMNS n int DEFAULT (SELECT 1 FROM users)) x WHERE p.user_id = 5",
            "SR006",
        ),
        (
            "SELECT t.a FROM photos p, JSON_TABLE(p.data, '$.x[*]' PASSING 1 AS y COLUMNS (a int PATH '$.a', NESTED PATH '$.b' COLUMNS (c text))) t WHERE p.user_id = 5",
            "5",
        ),
        (
            "SELECT JSON_OBJECT('a': id, 'b' VALUE caption ABSENT ON NULL RETURNING jsonb), JSON_ARRAY(1, 2 NULL ON NULL), JSON_VALUE(data, '$.a' RETURNING int DEFAULT 1 ON EMPTY) FROM photos WHERE user_id = 5",
            "5",
        ),
        (
            "SELECT xmlelement(name photos, xmlattributes(id AS users), (SELECT name FROM users WHERE id = 5)) FROM photos WHERE user_id = 5",
            "5",
        ),
        (
            "SELECT substring((SELECT name FROM users WHERE id = 6) from 1) FROM photos WHERE user_id = 5",
            "SR002",
        ),
        (
            "SELECT trim(leading from caption), substring(caption for 2), collation for (caption) FROM photos WHERE user_id = 5",
            "5",
        ),
        (
            "SELECT 1 FROM photos WHERE caption LIKE ANY ('{a}') AND caption NOT ILIKE ALL (ARRAY['b']) AND user_id = 5",
            "5",
        ),
        (
            "SELECT 1 FROM photos WHERE caption IS NOT NFC NORMALIZED AND user_id IN ((SELECT 5), 6)",
            "all",
        ),
    ]);
}

#[test]
fn alternatives_and_arms() {
    check(&[
        (
            "SELECT * FROM users u, photos p WHERE (u.id = 5 AND p.user_id = u.id) OR (u.id = 21 AND p.user_id = u.id AND p.id > 0)",
            "5",
        ),
        (
            "SELECT * FROM users u, photos p WHERE (u.id = 5 AND p.user_id = u.id) OR (u.id = 21 AND p.id = 1)",
            "SR001",
        ),
        (
            "SELECT * FROM photos WHERE user_id IN (SELECT 5 UNION SELECT 21)",
            "5",
        ),
        (
            "SELECT * FROM photos JOIN (SELECT 5 AS k UNION ALL VALUES (21), (37)) x ON k = user_id",
            "5",
        ),
        (
            "SELECT * FROM (SELECT user_id FROM photos WHERE user_id = 5 UNION ALL SELECT id FROM users) x WHERE user_id = 5",
            "5",
        ),
        (
            "INSERT INTO photos (user_id) SELECT 5 UNION ALL SELECT 21",
            "5",
        ),
        (
            "INSERT INTO photos (user_id) SELECT 5 UNION ALL SELECT NULL",
            "SR007",
        ),
        (
            "MERGE INTO users u USING likes l ON u.id = l.user_id AND l.user_id = 5 WHEN MATCHED THEN UPDATE SET name = 'x'",
            "5",
        ),
        (
            "MERGE INTO users u USING likes l ON u.id = l.user_id AND l.user_id = 5 WHEN NOT MATCHED THEN INSERT (id) VALUES (5)",
            "SR001",
        ),
    ]);
}

#[test]
fn nothing_equals_null() {
    check(&[
        ("SELECT count(*) FROM photos WHERE user_id = NULL", "0"),
        ("UPDATE photos SET caption = 'x' WHERE user_id = NULL", "0"),
        ("SELECT * FROM photos WHERE user_id = ANY (NULL)", "0"),
        ("SELECT * FROM photos WHERE user_id IN (NULL, 5)", "5"),
        ("SELECT * FROM photos WHERE user_id NOT IN (NULL, 5)", "all"),
        (
            "SELECT * FROM photos WHERE user_id IS NOT DISTINCT FROM NULL",
            "all",
        ),
        (
            "SELECT * FROM photos p JOIN users u ON u.id = 5 WHERE p.user_id = NULL",
            "5",
        ),
        ("INSERT INTO photos (user_id) VALUES (NULL)", "SR007"),
        ("INSERT INTO photos (user_id) VALUES (5), (NULL)", "SR007"),
        (
            "UPDATE photos SET user_id = NULL WHERE user_id = 5",
            "SR007",
        ),
    ]);
}

#[test]
fn names_in_strings_and_types() {
    check(&[
        ("SELECT 'photos'::regclass", "template"),
        (
            "SELECT 'invoices'::regclass, pg_get_serial_sequence('public.invoices', 'id')",
            "host b",
        ),
        ("SELECT 'invoices'::regclass, 'rates'::regclass", "SR002"),
        ("SELECT NULL::photos", "template"),
        (
            "SELECT (NULL::public.photos).caption FROM users WHERE id = 5",
            "5",
        ),
        ("SELECT ARRAY[]::photos[] FROM users WHERE id = 5", "5"),
        ("SELECT 'x'::unknown_type FROM users WHERE id = 5", "5 path"),
        ("SELECT lastval()", "0A000"),
        (
            "SELECT currval('photos_id_seq') FROM photos WHERE user_id = 5",
            "0A000",
        ),
        (
            "CREATE OR REPLACE TEMPORARY VIEW photos AS SELECT 1",
            "0A000",
        ),
        ("CREATE TABLE pg_temp.photos (a int)", "0A000"),
        ("SELECT 1 AS a INTO pg_temp.photos", "0A000"),
    ]);
    let world = world();
    assert_eq!(
        world.rewritten(
            "SELECT NULL::photos, (x::public.users).id, '{}'::\"Photo\"[] FROM users x WHERE id = 5"
        ),
        "SELECT NULL::shard_0005.photos, (x::shard_0005.users).id, '{}'::shard_0005.\"Photo\"[] FROM shard_0005.users x WHERE id = 5"
    );
}
