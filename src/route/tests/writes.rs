//! Statements that write: rows of INSERT, the key in SET, several shards.

use super::*;

#[test]
fn inserts() {
    check(&[
        (
            "INSERT INTO photos (user_id, caption) VALUES (5, 'x') RETURNING id",
            "5",
        ),
        ("INSERT INTO photos VALUES (5120, 5, 'x')", "5"),
        ("INSERT INTO photos VALUES (DEFAULT, 5, 'x')", "5"),
        ("INSERT INTO photos (user_id) VALUES (5), (21)", "5"),
        (
            "INSERT INTO photos (user_id) VALUES (5), (6)",
            "rows 5:[0] 6:[1]",
        ),
        ("INSERT INTO photos (caption) VALUES ('x')", "SR001"),
        ("INSERT INTO photos (id) VALUES (5120)", "SR001"),
        ("INSERT INTO photos VALUES (5120)", "SR001"),
        ("INSERT INTO photos DEFAULT VALUES", "SR001"),
        ("INSERT INTO photos (user_id) VALUES (DEFAULT)", "SR001"),
        ("INSERT INTO photos (user_id) VALUES (abs(5))", "SR001"),
        ("INSERT INTO photos (user_id) VALUES ((SELECT 5))", "SR001"),
        (
            "INSERT INTO users (name) VALUES ('x') RETURNING id",
            "make 1 by Sequence",
        ),
        // An id that carries another shard could not be found again.
        ("INSERT INTO photos (id, user_id) VALUES (1, 5)", "SR002"),
        (
            "INSERT INTO photos (id, user_id) VALUES (next_id(), 5)",
            "5 path",
        ),
        (
            "INSERT INTO photos (id, user_id) VALUES ((SELECT 1), 5)",
            "SR002",
        ),
        (
            "INSERT INTO photos (id, user_id) VALUES (nextval('photos_id_seq'), 5)",
            "5",
        ),
        (
            "INSERT INTO photos (user_id) SELECT user_id FROM photos WHERE user_id = 5",
            "5",
        ),
        (
            "INSERT INTO photos_archive SELECT * FROM photos WHERE user_id = 5",
            "5",
        ),
        ("INSERT INTO photos_archive SELECT * FROM photos", "SR001"),
        (
            "INSERT INTO photos (user_id) SELECT id FROM photos WHERE user_id = 5",
            "SR001",
        ),
        (
            "INSERT INTO photos (user_id) SELECT 5 FROM users WHERE id = 5",
            "5",
        ),
        (
            "INSERT INTO photos (user_id) SELECT v.a::bigint FROM (VALUES ('5', 1)) AS v(a, n) ORDER BY n",
            "5",
        ),
        (
            "INSERT INTO photos (caption, user_id) SELECT (ROW('x', 6)).*, 5",
            "SR001",
        ),
        (
            "INSERT INTO photos (user_id) SELECT 5 FROM users WHERE id = 6",
            "SR002",
        ),
        (
            "INSERT INTO photos (user_id) SELECT p.user_id FROM users u LEFT JOIN photos p ON p.user_id = 5 WHERE u.id = 5",
            "5",
        ),
        (
            "INSERT INTO follows (source_id) SELECT p.user_id FROM users u LEFT JOIN photos p ON p.user_id = 5 WHERE u.id = 5",
            "SR001",
        ),
        (
            "INSERT INTO likes SELECT 5, id FROM photos WHERE user_id = 5 ON CONFLICT DO NOTHING",
            "5",
        ),
        (
            "INSERT INTO photos (user_id, caption) VALUES (5, 'x') ON CONFLICT (id) DO UPDATE SET caption = excluded.caption",
            "5",
        ),
        (
            "INSERT INTO photos (user_id) VALUES (5) ON CONFLICT (user_id) WHERE caption IS NULL DO UPDATE SET user_id = excluded.user_id",
            "5",
        ),
        (
            "INSERT INTO photos (user_id) VALUES (5) ON CONFLICT (id) DO UPDATE SET user_id = photos.user_id",
            "5",
        ),
        (
            "INSERT INTO photos (user_id) VALUES (5) ON CONFLICT (id) DO UPDATE SET user_id = 6",
            "SR005",
        ),
        (
            "INSERT INTO photos (user_id) VALUES (5) ON CONFLICT (id) DO UPDATE SET user_id = excluded.id",
            "SR005",
        ),
        (
            "INSERT INTO photos AS p (user_id) OVERRIDING SYSTEM VALUE VALUES (5) RETURNING p.*, (xmax = 0) AS inserted",
            "5",
        ),
        ("INSERT INTO invoices (user_id) VALUES (5)", "host b"),
        (
            "INSERT INTO invoices (user_id) SELECT user_id FROM photos WHERE user_id = 8",
            "8",
        ),
        (
            "INSERT INTO invoices (user_id) SELECT user_id FROM photos WHERE user_id = 5",
            "SR002",
        ),
        ("INSERT INTO countries VALUES ('de')", "every host"),
        (
            "INSERT INTO countries VALUES (now()::text) ON CONFLICT (code) DO UPDATE SET name = random()",
            "every host",
        ),
        (
            "UPDATE countries SET name = 'x' WHERE code IN (SELECT 'a')",
            "every host",
        ),
        ("UPDATE countries SET name = now()", "SR002"),
        (
            "DELETE FROM countries WHERE code = (SELECT 'a' LIMIT 1)",
            "SR002",
        ),
        ("DELETE FROM countries USING countries d", "SR002"),
        (
            "WITH c AS (DELETE FROM countries RETURNING *) SELECT * FROM c",
            "SR002",
        ),
        ("INSERT INTO devices (uuid) VALUES ('x')", "SR007"),
    ]);
}

#[test]
fn setting_the_key() {
    check(&[
        ("UPDATE photos SET user_id = 6 WHERE user_id = 5", "SR005"),
        (
            "UPDATE photos SET user_id = 5, caption = 'x' WHERE user_id = 5",
            "5",
        ),
        (
            "UPDATE photos SET user_id = 5, caption = 'x' WHERE id = 5120",
            "5",
        ),
        ("UPDATE photos SET user_id = user_id WHERE id = 5120", "5"),
        (
            "UPDATE photos SET user_id = user_id + 1 WHERE user_id = 5",
            "SR005",
        ),
        (
            "UPDATE photos SET user_id = DEFAULT WHERE user_id = 5",
            "SR005",
        ),
        (
            "UPDATE photos SET (user_id, caption) = (5, 'x') WHERE user_id = 5",
            "5",
        ),
        (
            "UPDATE photos SET (user_id, caption) = (SELECT 5, 'x') WHERE user_id = 5",
            "SR005",
        ),
        ("UPDATE photos SET id = 1 WHERE user_id = 5", "SR005"),
        ("UPDATE photos SET id = 5121 WHERE user_id = 5", "5"),
        (
            "UPDATE photos p SET user_id = u.id FROM users u WHERE u.id = 5 AND p.user_id = 5",
            "5",
        ),
        (
            "UPDATE photos p SET user_id = u.id FROM users u WHERE u.name = 'x' AND u.id = p.user_id AND p.user_id = 5",
            "5",
        ),
        ("UPDATE follows SET target_id = 9 WHERE source_id = 5", "5"),
        (
            "UPDATE photos p SET caption = u.name FROM users u WHERE u.id = p.user_id AND u.id = 5",
            "5",
        ),
        (
            "DELETE FROM photos p USING users u WHERE u.id = p.user_id AND u.id = 5",
            "5",
        ),
        ("DELETE FROM photos p USING users u WHERE u.id = 5", "SR001"),
    ]);
}

#[test]
fn inserts_in_parts() {
    let world = world();
    let given = Given((1..=9).map(|n| text(&n.to_string())).collect());
    let cases: &[(&str, &[&str])] = &[
        (
            "INSERT INTO photos (user_id, caption) VALUES (1, 'a'), (2, ')'), /* x */ (1, $$c$$) -- end\n RETURNING id;",
            &[
                "INSERT INTO s1.photos (user_id, caption) VALUES (1, 'a'), (1, $$c$$) -- end\n RETURNING id;",
                "INSERT INTO s2.photos (user_id, caption) VALUES (2, ')') -- end\n RETURNING id;",
            ],
        ),
        (
            "INSERT INTO public.photos (caption, user_id) VALUES ($3, $1), ($4 || $3, $2) ON CONFLICT (id) DO UPDATE SET caption = $5",
            &[
                "INSERT INTO s1.photos (caption, user_id) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET caption = $3 [3, 1, 5]",
                "INSERT INTO s2.photos (caption, user_id) VALUES ($1 || $2, $3) ON CONFLICT (id) DO UPDATE SET caption = $4 [4, 3, 2, 5]",
            ],
        ),
        (
            "INSERT INTO photos (user_id) VALUES (1), (2), (1) ON CONFLICT DO NOTHING RETURNING id",
            &[
                "INSERT INTO s1.photos (user_id) VALUES (1) ON CONFLICT DO NOTHING RETURNING id",
                "INSERT INTO s2.photos (user_id) VALUES (2) ON CONFLICT DO NOTHING RETURNING id",
                "INSERT INTO s1.photos (user_id) VALUES (1) ON CONFLICT DO NOTHING RETURNING id",
            ],
        ),
        (
            "INSERT INTO users (name) VALUES ($1), ($2)",
            &[
                "INSERT INTO s4.users (name, \"id\") VALUES ($1, 100) [1]",
                "INSERT INTO s5.users (name, \"id\") VALUES ($1, 101) [2]",
            ],
        ),
        (
            "INSERT INTO users (name, id) VALUES ('a', DEFAULT), ('b', 7), ('c', default)",
            &[
                "INSERT INTO s4.users (name, id) VALUES ('a', 100)",
                "INSERT INTO s7.users (name, id) VALUES ('b', 7)",
                "INSERT INTO s5.users (name, id) VALUES ('c', 101)",
            ],
        ),
        (
            "INSERT INTO users (name) OVERRIDING SYSTEM VALUE VALUES ('a')",
            &["INSERT INTO s4.users (name, \"id\") OVERRIDING SYSTEM VALUE VALUES ('a', 100)"],
        ),
        (
            "INSERT INTO users DEFAULT VALUES RETURNING id",
            &["INSERT INTO s4.users (\"id\") VALUES (100) RETURNING id"],
        ),
    ];
    for (sql, expected) in cases {
        let found = world.parts(sql, Some(&given));
        let schema = |shard: &str| world.map.schema(ShardId(shard.parse().unwrap())).to_owned();
        let expected: Vec<String> = expected
            .iter()
            .map(|text| {
                let (before, rest) = text.split_once(" s").unwrap();
                let (shard, rest) = rest.split_once('.').unwrap();
                format!("{before} {}.{rest}", schema(shard))
            })
            .collect();
        assert_eq!(found, expected, "{sql}");
    }
}

#[test]
fn writes_that_reach_several_shards() {
    check(&[
        (
            "UPDATE photos SET caption = 'x' WHERE user_id IN (1, 2)",
            "each of 1,2",
        ),
        (
            "UPDATE photos SET caption = 'x' WHERE user_id = 1 OR user_id = 17",
            "1",
        ),
        ("UPDATE photos SET caption = 'x'", "SR001"),
        (
            "UPDATE photos SET user_id = 1 WHERE user_id IN (1, 2)",
            "SR005",
        ),
        (
            "DELETE FROM likes l USING photos p WHERE p.user_id = l.user_id AND l.user_id IN (1, 2)",
            "each of 1,2",
        ),
        (
            "DELETE FROM likes l USING photos p WHERE p.user_id IN (1, 2) AND l.user_id IN (1, 2)",
            "SR002",
        ),
        (
            "DELETE FROM likes WHERE user_id IN (1, 2) AND EXISTS (SELECT FROM photos p WHERE p.user_id = likes.user_id LIMIT 1)",
            "each of 1,2",
        ),
        (
            "DELETE FROM likes WHERE user_id IN (1, 2) AND photo_id = (SELECT max(id) FROM photos WHERE user_id IN (1, 2))",
            "SR002",
        ),
        (
            "WITH d AS (DELETE FROM likes WHERE user_id IN (1, 2) RETURNING *) SELECT * FROM d",
            "SR002",
        ),
        (
            "INSERT INTO photos (user_id) VALUES (1), (2) RETURNING id",
            "rows 1:[0] 2:[1]",
        ),
        (
            "INSERT INTO photos (user_id) VALUES (1), (2), (1) RETURNING id",
            "rows 1:[0, 2] 2:[1] 0x1 1x1 0x1",
        ),
        (
            "INSERT INTO photos (user_id) VALUES (1), (2), (1)",
            "rows 1:[0, 2] 2:[1]",
        ),
        ("INSERT INTO photos (user_id) VALUES (1), (17)", "1"),
        ("INSERT INTO photos (user_id) VALUES (1), (NULL)", "SR007"),
        (
            "INSERT INTO photos (user_id) VALUES (1), (2) ON CONFLICT (id) DO UPDATE SET user_id = 1",
            "SR005",
        ),
        (
            "INSERT INTO photos (user_id) SELECT * FROM (VALUES (1), (2)) v",
            "SR002",
        ),
        (
            "WITH x AS (SELECT 1) INSERT INTO photos (user_id) VALUES (1), (2)",
            "SR002",
        ),
        (
            "INSERT INTO photos (user_id) VALUES (1), (2) LIMIT 1",
            "SR002",
        ),
        ("INSERT INTO users (name) SELECT 'x'", "SR001"),
        ("/* presplit: all */ DELETE FROM likes", "each of all"),
        (
            "/* presplit: all */ INSERT INTO photos (user_id) VALUES (1), (2)",
            "SR004",
        ),
        (
            "/* presplit: shard=1 */ INSERT INTO photos (user_id) VALUES (1), (2)",
            "SR002",
        ),
        (
            "/* presplit: shard=1 */ INSERT INTO users (name) VALUES ('x')",
            "SR001",
        ),
    ]);
}
