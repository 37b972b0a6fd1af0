//! Keys that are reached through views, groups and arrays, and those that can't be keys.

use super::*;

#[test]
fn a_key_whose_equal_values_differ_in_bytes_is_refused() {
    let map = ShardMap::parse(MAP, &|_| None).expect("a good map");
    let mut snapshot = snapshot();
    let host = catalog::Database {
        nondeterministic: true,
        ..catalog::Database::default()
    };
    snapshot.databases.insert("a".to_owned(), host);
    let column = |snapshot: &mut Snapshot, table: &str, column: usize| {
        let table = snapshot.sharded.get_mut(table).expect("a table");
        table.columns[column].collation = Collation::Nondeterministic;
    };
    column(&mut snapshot, "devices", 1);
    let joined = "SELECT * FROM accounts a JOIN devices d ON a.name = d.name WHERE d.name = 'bob'";
    let (tables, faults) = Tables::new(&map, &snapshot);
    assert_eq!(faults.len(), 1, "{faults:?}");
    let world = World { map, tables };
    let to = |sql: &str| in_words(world.route(sql, None));
    assert_ne!(to("SELECT * FROM accounts WHERE name = 'bob'"), "SR003");
    assert_eq!(to(joined), "SR004");

    column(&mut snapshot, "accounts", 0);
    let (tables, faults) = Tables::new(&world.map, &snapshot);
    assert!(faults[0].contains("not deterministic"), "{faults:?}");
    let world = World {
        map: world.map,
        tables,
    };
    let refused = world
        .route("SELECT * FROM accounts WHERE name = 'bob'", None)
        .expect_err("a refusal");
    assert_eq!(refused.code.sqlstate(), "SR003");
    assert!(
        refused.message.contains("not deterministic"),
        "{}",
        refused.message
    );
}

#[test]
fn views() {
    check(&[
        // As good as a table: rows of one shard each, with their key.
        ("SELECT * FROM photo_view WHERE user_id = 5", "5"),
        ("SELECT * FROM photo_view WHERE id = 5120", "5"),
        ("SELECT * FROM photo_view", "all"),
        ("SELECT * FROM photo_view ORDER BY id LIMIT 3", "all"),
        (
            "SELECT v.id FROM public.photo_view v WHERE v.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM photo_view v JOIN users u ON u.id = v.user_id WHERE u.id = 5",
            "5",
        ),
        ("UPDATE photo_view SET id = id WHERE user_id = 5", "5"),
        ("INSERT INTO photo_view (user_id) VALUES (5)", "5"),
        ("DELETE FROM photo_view", "SR001"),
        ("SELECT name FROM captions WHERE user_id = 5", "5"),
        ("SELECT caption FROM captions", "all"),
        ("SELECT user_id FROM fans WHERE fan = 5", "5"),
        // A column called like the key need not be one.
        ("SELECT fan FROM fans WHERE user_id = 5", "all"),
        ("SELECT * FROM admirers WHERE user_id = 5", "all"),
        ("INSERT INTO admirers (user_id) VALUES (5)", "SR003"),
        // Read as the query that it is.
        ("SELECT n FROM totals WHERE user_id = 5", "5"),
        ("SELECT n FROM totals t WHERE t.user_id IN (5, 21)", "5"),
        (
            "SELECT totals.n, u.name FROM users u LEFT JOIN totals ON totals.user_id = u.id WHERE u.id = 5",
            "5",
        ),
        ("SELECT user_id, n FROM totals", "all"),
        ("SELECT b FROM totals AS t (a, b) WHERE a = 5", "5"),
        ("SELECT * FROM newest WHERE user_id = 5", "SR004"),
        ("SELECT * FROM of_five", "all"),
        ("SELECT * FROM of_five, photos WHERE user_id = 5", "SR001"),
        ("SELECT name FROM names", "template"),
        (
            "SELECT n.name FROM names n, photos p WHERE p.user_id = 5 AND p.caption = n.name",
            "5",
        ),
        ("SELECT * FROM odd WHERE user_id = 5", "SR003"),
        ("/* presplit: key=5 */ SELECT * FROM odd", "5 path"),
    ]);
    let world = world();
    assert_eq!(
        world.rewritten("SELECT totals.n FROM totals WHERE totals.user_id = 5"),
        "SELECT totals.n FROM shard_0005.totals WHERE totals.user_id = 5"
    );
}

#[test]
fn a_condition_on_what_is_grouped_by_reaches_the_table() {
    check(&[
        (
            "SELECT x.c FROM (SELECT user_id, count(*) AS c FROM photos GROUP BY user_id) x WHERE x.user_id = 5",
            "5",
        ),
        (
            "SELECT x.c FROM (SELECT p.user_id AS u, caption, max(id) AS c FROM photos p GROUP BY caption, p.user_id HAVING count(*) > 1) x WHERE x.u = 5",
            "5",
        ),
        (
            "SELECT * FROM (SELECT DISTINCT user_id, caption FROM photos) x WHERE user_id = 5",
            "5",
        ),
        (
            "SELECT x.c FROM (SELECT caption, max(user_id) AS c FROM photos GROUP BY caption) x WHERE x.c = 5",
            "SR004",
        ),
        (
            "SELECT x.c FROM (SELECT user_id, count(*) AS c FROM photos GROUP BY ROLLUP (user_id)) x WHERE x.user_id = 5",
            "SR004",
        ),
        (
            "SELECT x.c FROM (SELECT user_id, count(*) AS c FROM photos GROUP BY user_id LIMIT 3) x WHERE x.user_id = 5",
            "SR004",
        ),
        (
            "SELECT * FROM (SELECT DISTINCT ON (caption) caption, user_id FROM photos) x WHERE user_id = 5",
            "SR004",
        ),
        (
            "SELECT * FROM (SELECT user_id FROM photos HAVING count(*) > 0) x WHERE user_id = 5",
            "SR004",
        ),
    ]);
}

#[test]
fn rows_of_arrays() {
    check(&[
        (
            "INSERT INTO photos (user_id, caption) SELECT * FROM UNNEST(('{5,21}')::bigint[], ('{a,b}')::text[])",
            "5",
        ),
        (
            "INSERT INTO photos (user_id, caption) SELECT u, c FROM unnest(ARRAY[5, 21], '{a,b}'::text[]) AS x(u, c)",
            "5",
        ),
        (
            "INSERT INTO photos (user_id) SELECT * FROM unnest('{5,6}'::bigint[])",
            "SR002",
        ),
        // A null may stand where another array is longer.
        (
            "INSERT INTO follows (source_id, target_id) SELECT * FROM unnest('{5}'::bigint[], '{1,2}'::bigint[])",
            "SR001",
        ),
        (
            "SELECT * FROM photos JOIN unnest('{5,21}'::bigint[]) AS k(id) ON k.id = photos.user_id",
            "5",
        ),
        (
            "SELECT * FROM photos p, unnest('{5}'::bigint[]) k WHERE k = p.user_id",
            "5",
        ),
        (
            "SELECT * FROM photos p, unnest('{5}'::bigint[]) WITH ORDINALITY AS k(u, n) WHERE k.u = p.user_id",
            "all",
        ),
        (
            "SELECT * FROM photos p LEFT JOIN unnest('{5}'::bigint[]) k ON k = p.user_id",
            "all",
        ),
        (
            "SELECT * FROM photos p WHERE user_id = 5 AND id IN (SELECT unnest FROM unnest('{1}'::bigint[]))",
            "5",
        ),
    ]);
}
