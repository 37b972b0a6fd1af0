//! Query levels: subqueries and common table expressions.

use super::*;

#[test]
fn subqueries() {
    check(&[
        (
            "SELECT * FROM (SELECT * FROM photos) p WHERE p.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM (SELECT id, user_id AS u FROM photos) p WHERE p.u = 5",
            "5",
        ),
        (
            "SELECT * FROM (SELECT id AS user_id FROM photos) p WHERE p.user_id = 5120",
            "5",
        ),
        (
            "SELECT * FROM (SELECT * FROM photos LIMIT 5) p WHERE p.user_id = 5",
            "SR004",
        ),
        (
            "SELECT * FROM (SELECT DISTINCT ON (caption) * FROM photos) p WHERE p.user_id = 5",
            "SR004",
        ),
        (
            "SELECT * FROM (SELECT user_id, row_number() OVER () FROM photos) p WHERE p.user_id = 5",
            "SR004",
        ),
        (
            "SELECT * FROM (SELECT * FROM photos WHERE user_id = 5 LIMIT 5) p",
            "5",
        ),
        (
            "SELECT * FROM (SELECT * FROM photos WHERE user_id = 5) p JOIN users u ON u.id = p.user_id",
            "5",
        ),
        (
            "SELECT * FROM (SELECT max(user_id) AS user_id FROM photos) p JOIN users u ON u.id = p.user_id WHERE u.id = 5",
            "SR001",
        ),
        (
            "SELECT * FROM (SELECT * FROM photos UNION ALL SELECT * FROM photos_archive) p WHERE p.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM (SELECT * FROM photos UNION ALL SELECT * FROM photos_archive LIMIT 1) p WHERE p.user_id = 5",
            "SR004",
        ),
        (
            "SELECT * FROM photos WHERE user_id = 5 UNION ALL SELECT * FROM photos_archive WHERE user_id = 5",
            "5",
        ),
        (
            "SELECT id FROM photos WHERE user_id = 5 UNION SELECT id FROM photos",
            "SR001",
        ),
        (
            "SELECT id FROM photos WHERE user_id = 5 EXCEPT SELECT id FROM photos WHERE user_id = 6",
            "SR002",
        ),
        (
            "SELECT * FROM users WHERE id = 5 AND EXISTS (SELECT 1 FROM photos WHERE photos.user_id = users.id)",
            "5",
        ),
        (
            "SELECT * FROM users u WHERE id = 5 AND NOT EXISTS (SELECT 1 FROM photos p WHERE p.user_id = u.id)",
            "5",
        ),
        (
            "SELECT * FROM users u WHERE id = 5 AND EXISTS (SELECT 1 FROM photos p WHERE p.caption = u.name)",
            "SR001",
        ),
        (
            "SELECT * FROM users u WHERE EXISTS (SELECT 1 FROM photos p WHERE p.user_id = u.id)",
            "all",
        ),
        (
            "SELECT * FROM users u WHERE EXISTS (SELECT 1 FROM photos p WHERE p.caption = u.name)",
            "SR004",
        ),
        (
            "SELECT u.*, (SELECT count(*) FROM photos p WHERE p.user_id = u.id) FROM users u WHERE u.id = 5",
            "5",
        ),
        (
            "SELECT u.*, (SELECT count(*) FROM photos p WHERE p.user_id = u.id) FROM users u",
            "all",
        ),
        ("SELECT u.*, (SELECT max(u.id)) FROM users u", "SR004"),
        (
            "SELECT * FROM users WHERE id IN (SELECT user_id FROM photos WHERE user_id = 5)",
            "5",
        ),
        (
            "SELECT * FROM users WHERE id = 5 AND id IN (SELECT user_id FROM photos)",
            "5",
        ),
        (
            "SELECT * FROM users WHERE id IN (SELECT user_id FROM photos)",
            "all",
        ),
        (
            "SELECT * FROM users WHERE id IN (SELECT user_id FROM photos LIMIT 3)",
            "SR004",
        ),
        (
            "SELECT * FROM users WHERE id = 5 AND id IN (SELECT user_id FROM photos LIMIT 3)",
            "SR001",
        ),
        (
            "SELECT * FROM users WHERE id = 5 AND id NOT IN (SELECT user_id FROM photos)",
            "SR001",
        ),
        ("SELECT * FROM users WHERE id = (SELECT 5)", "5"),
        (
            "SELECT * FROM users WHERE id = (SELECT user_id FROM photos WHERE user_id = 5 LIMIT 1)",
            "5",
        ),
        (
            "SELECT * FROM photos WHERE user_id = 5 AND id = (SELECT max(id) FROM photos WHERE user_id = 5)",
            "5",
        ),
        (
            "SELECT * FROM photos WHERE user_id = 5 AND id = (SELECT max(id) FROM photos)",
            "SR001",
        ),
        (
            "SELECT ARRAY(SELECT id FROM photos WHERE user_id = 5), 1",
            "5",
        ),
        (
            "SELECT (SELECT id FROM photos WHERE user_id = 5), (SELECT id FROM likes WHERE user_id = 6)",
            "SR002",
        ),
        (
            "SELECT * FROM photos p JOIN LATERAL (SELECT * FROM likes l WHERE l.user_id = p.user_id LIMIT 3) x ON true WHERE p.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos p, LATERAL (SELECT * FROM likes l WHERE l.photo_id = p.id) x WHERE p.user_id = 5",
            "SR001",
        ),
        // Not LATERAL: p is not seen inside.
        (
            "SELECT * FROM photos p, (SELECT * FROM likes l WHERE l.user_id = p.user_id) x WHERE p.user_id = 5",
            "SR001",
        ),
        (
            "SELECT * FROM (VALUES (5)) v(id) JOIN photos ON photos.user_id = v.id",
            "5",
        ),
        (
            "SELECT * FROM (VALUES (5), (21)) v(id) JOIN photos ON photos.user_id = v.id",
            "5",
        ),
        (
            "SELECT * FROM (VALUES (5), (6)) v(id) JOIN photos ON photos.user_id = v.id",
            "5,6",
        ),
        (
            "SELECT * FROM users u WHERE u.id = 5 AND (SELECT count(*) FROM (SELECT * FROM photos p WHERE p.user_id = u.id) d) > 1",
            "5",
        ),
        (
            "SELECT 1 WHERE EXISTS (SELECT FROM photos WHERE user_id = 5)",
            "5",
        ),
        // The name is found in the inner query first.
        (
            "SELECT * FROM follows f WHERE f.source_id = 5 AND EXISTS (SELECT 1 FROM photos WHERE source_id = user_id)",
            "5",
        ),
        (
            "SELECT * FROM likes l WHERE l.user_id = 5 AND EXISTS (SELECT 1 FROM photos WHERE user_id = user_id)",
            "SR001",
        ),
        // An ON condition sees its own join only: x may be of the outer query.
        (
            "SELECT * FROM photos c WHERE c.user_id = 6 AND EXISTS (SELECT 1 FROM users a JOIN users b ON a.id = c.user_id AND b.id = a.id, likes c WHERE c.user_id = 5)",
            "SR001",
        ),
    ]);
}

#[test]
fn common_table_expressions() {
    check(&[
        (
            "WITH p AS (SELECT * FROM photos WHERE user_id = 5) SELECT * FROM p",
            "5",
        ),
        (
            "WITH p AS (SELECT * FROM photos) SELECT * FROM p WHERE user_id = 5",
            "5",
        ),
        (
            "WITH p AS (SELECT * FROM photos) SELECT * FROM p a, p b WHERE a.user_id = 5 AND b.user_id = 5",
            "SR004",
        ),
        (
            "WITH photos AS (SELECT 5 AS user_id) SELECT * FROM photos",
            "any",
        ),
        (
            "WITH photos AS (SELECT * FROM photos WHERE user_id = 5) SELECT * FROM photos",
            "5",
        ),
        (
            "WITH photos AS (SELECT 1 AS x) SELECT * FROM public.photos WHERE user_id = 5",
            "5",
        ),
        (
            "WITH p(a, b) AS (SELECT id, user_id FROM photos) SELECT * FROM p WHERE b = 5",
            "5",
        ),
        (
            "WITH a AS (SELECT 5 AS id), b AS (SELECT photos.* FROM photos, a WHERE user_id = a.id) SELECT * FROM b",
            "5",
        ),
        (
            "WITH p AS MATERIALIZED (SELECT * FROM photos WHERE user_id = 5) SELECT (SELECT count(*) FROM p), * FROM p",
            "5",
        ),
        (
            "WITH d AS (DELETE FROM photos WHERE user_id = 5 RETURNING *) INSERT INTO photos_archive SELECT * FROM d",
            "5",
        ),
        (
            "WITH d AS (DELETE FROM photos WHERE user_id = 5 RETURNING id) SELECT * FROM d",
            "5",
        ),
        (
            "WITH d AS (DELETE FROM photos RETURNING *) SELECT * FROM d WHERE user_id = 5",
            "SR001",
        ),
        (
            "WITH d AS (DELETE FROM photos WHERE user_id = 5 RETURNING *), i AS (INSERT INTO likes (user_id, photo_id) SELECT user_id, id FROM d) SELECT 1",
            "5",
        ),
        (
            "WITH d AS (SELECT 1) UPDATE photos SET caption = 'x' WHERE user_id = 5",
            "5",
        ),
        (
            "WITH RECURSIVE t AS (SELECT id, user_id FROM photos WHERE user_id = 5 UNION ALL SELECT p.id, p.user_id FROM photos p JOIN t ON t.id = p.like_count WHERE p.user_id = 5) SELECT * FROM t",
            "5",
        ),
        (
            "WITH RECURSIVE t AS (SELECT id, user_id FROM photos WHERE user_id = 5 UNION ALL SELECT p.id, p.user_id FROM photos p JOIN t ON t.id = p.like_count) SELECT * FROM t",
            "SR001",
        ),
        (
            "WITH RECURSIVE t AS (SELECT * FROM t) SELECT * FROM t, photos WHERE photos.user_id = t.user_id",
            "SR004",
        ),
        (
            "WITH p AS (UPDATE photos SET caption = 'x' WHERE user_id = 5 RETURNING user_id) SELECT * FROM likes JOIN p USING (user_id)",
            "5",
        ),
    ]);
}
