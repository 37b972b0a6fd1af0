//! Key values: one table bound by one, by parameters of all types, and values that can be none.

use super::*;

#[test]
fn one_table_one_key() {
    check(&[
        ("SELECT * FROM photos WHERE user_id = 5", "5"),
        ("select * from PHOTOS where USER_ID=21;", "5"),
        ("SELECT * FROM photos WHERE 5 = user_id", "5"),
        (
            "SELECT * FROM photos p WHERE p.user_id = 5 AND caption = 'x'",
            "5",
        ),
        (
            "SELECT * FROM photos AS p WHERE (p.caption = 'x' OR id > 3) AND ((p.user_id = 5))",
            "5",
        ),
        (
            "SELECT photos.* FROM photos WHERE photos.user_id = -1",
            "15",
        ),
        ("SELECT * FROM photos WHERE user_id=-1", "15"),
        ("SELECT * FROM photos WHERE user_id = - 1::bigint", "15"),
        ("SELECT * FROM photos WHERE user_id = '5'", "5"),
        ("SELECT * FROM photos WHERE user_id = ' 5 '::bigint", "5"),
        ("SELECT * FROM photos WHERE user_id = bigint '5'", "5"),
        (
            "SELECT * FROM photos WHERE user_id = CAST('5' AS pg_catalog.int8)",
            "5",
        ),
        ("SELECT * FROM photos WHERE user_id = 5.0", "5"),
        ("SELECT * FROM photos WHERE user_id = 0x15", "5"),
        ("SELECT * FROM photos WHERE user_id = 1_000", "8"),
        ("SELECT * FROM photos WHERE user_id = E'\\x35'", "5"),
        ("SELECT * FROM photos WHERE user_id = $$5$$", "5"),
        (
            "SELECT * FROM photos WHERE user_id IS NOT DISTINCT FROM 5",
            "5",
        ),
        ("SELECT * FROM photos WHERE (user_id = 5) IS TRUE", "5"),
        ("SELECT * FROM photos WHERE user_id IN (5)", "5"),
        ("SELECT * FROM photos WHERE user_id IN (5, 21)", "5"),
        ("SELECT * FROM photos WHERE user_id = ANY('{5,21}')", "5"),
        (
            "SELECT * FROM photos WHERE user_id = 5 OR user_id = 21",
            "5",
        ),
        (
            "SELECT * FROM photos WHERE user_id::bigint = 5 AND id = ANY(VALUES (1), (2))",
            "5",
        ),
        (
            "SELECT (p).id, (photos(p)).*, p.* FROM photos p WHERE user_id = 5",
            "5 path",
        ),
        ("SELECT * FROM photos WHERE (user_id, id) = (5, 1)", "5"),
        (
            "SELECT * FROM photos WHERE (user_id, id) IN ((5, 1), (21, 2)) ORDER BY id",
            "5",
        ),
        ("SELECT count(*) FROM photos WHERE user_id = 5", "5"),
        ("SELECT * FROM ONLY photos WHERE user_id = 5", "5"),
        ("SELECT * FROM ONLY (photos) WHERE user_id = 5", "5"),
        (
            "SELECT * FROM photos WHERE user_id = 5 FOR NO KEY UPDATE OF photos SKIP LOCKED",
            "5",
        ),
        (
            "SELECT * FROM photos WHERE user_id = /* not 6 */ 5 -- or 7",
            "5",
        ),
        ("SELECT * FROM photos WHERE id = 5120", "5"),
        ("SELECT * FROM photos WHERE id = 5120 AND user_id = 21", "5"),
        (
            "SELECT * FROM \"photos\" \"p\" WHERE \"p\".\"user_id\" = 5",
            "5",
        ),
        (
            "SELECT * FROM \"Album\" WHERE user_id = 5 AND \"Title\" = 'x'",
            "5",
        ),
        (
            "SELECT * FROM accounts WHERE name = 'bob' AND n = 1",
            "SR007",
        ),
        ("UPDATE photos SET caption = 'x' WHERE user_id = 5", "5"),
        (
            "UPDATE photos AS p SET tags[1] = 'x', caption = DEFAULT WHERE p.user_id = 5 RETURNING id",
            "5",
        ),
        (
            "UPDATE ONLY photos SET (caption, like_count) = ('x', 1) WHERE user_id = 5",
            "5",
        ),
        (
            "DELETE FROM photos WHERE user_id = 5 AND id = ANY(ARRAY[1,2])",
            "5",
        ),
        ("SELECT * FROM photo_view WHERE user_id = 5", "5"),
        (
            "SELECT user_id FROM photos GROUP BY user_id HAVING user_id = 5",
            "all",
        ),
    ]);
}

#[test]
fn what_is_no_binding() {
    check(&[
        // Reads of one table go to all shards, writes nowhere.
        ("SELECT * FROM photos", "all"),
        ("SELECT * FROM photos WHERE NOT user_id = 5", "all"),
        (
            "SELECT * FROM photos WHERE NOT (user_id = 5 AND id = 1)",
            "all",
        ),
        (
            "SELECT * FROM photos WHERE user_id = 5 OR caption = 'x'",
            "all",
        ),
        (
            "SELECT * FROM photos WHERE user_id = 5 OR user_id > 7",
            "all",
        ),
        ("SELECT * FROM photos WHERE user_id <> 5", "all"),
        ("SELECT * FROM photos WHERE user_id != ALL ('{5}')", "all"),
        ("SELECT * FROM photos WHERE user_id = ALL ('{5}')", "all"),
        ("SELECT * FROM photos WHERE user_id > ANY ('{5}')", "all"),
        ("SELECT * FROM photos WHERE user_id NOT IN (5)", "all"),
        ("SELECT * FROM photos WHERE user_id BETWEEN 5 AND 5", "all"),
        (
            "SELECT * FROM photos WHERE user_id IS DISTINCT FROM 5",
            "all",
        ),
        ("SELECT * FROM photos WHERE user_id = 5 IS NOT TRUE", "all"),
        ("SELECT * FROM photos WHERE user_id = 5 + 1", "all"),
        ("SELECT * FROM photos WHERE user_id + 1 = 5", "all"),
        ("SELECT * FROM photos WHERE user_id = length('x')", "all"),
        ("SELECT * FROM photos WHERE score = 5", "all"),
        (
            "SELECT * FROM photos WHERE caption = '5' AND like_count IN (SELECT 5)",
            "all",
        ),
        ("SELECT * FROM photos WHERE id IN (SELECT 5120 + 1)", "all"),
        ("SELECT * FROM photos WHERE id IN (SELECT 5120)", "5"),
        ("SELECT user_id = 5 FROM photos", "all"),
        ("SELECT CASE WHEN user_id = 5 THEN 1 END FROM photos", "all"),
        ("SELECT * FROM photos WHERE (user_id = 5) = (id = 1)", "all"),
        (
            "SELECT * FROM photos WHERE COALESCE(user_id = 5, true)",
            "all",
        ),
        (
            "SELECT * FROM photos WHERE user_id = 5 IS DISTINCT FROM true",
            "all",
        ),
        (
            "SELECT * FROM photos WHERE caption IS DISTINCT FROM 'x' OR user_id = 5",
            "all",
        ),
        (
            "SELECT * FROM photos WHERE user_id = 5 AND caption IS DISTINCT FROM 'x' OR id = 1",
            "all",
        ),
        (
            "SELECT * FROM photos WHERE user_id OPERATOR(pg_catalog.=) 5",
            "all",
        ),
        ("SELECT * FROM photos WHERE user_id =@ 5", "all"),
        (
            "SELECT * FROM photos WHERE user_id = 5 -- 6\n OR true",
            "all",
        ),
        ("UPDATE photos SET caption = 'x'", "SR001"),
        (
            "UPDATE photos SET caption = 'x' WHERE caption = '5'",
            "SR001",
        ),
        ("DELETE FROM photos WHERE like_count = 5", "SR001"),
        ("DELETE FROM photos WHERE user_id IN (1, 2)", "each of 1,2"),
        ("DELETE FROM photos WHERE user_id IN (1, 17)", "1"),
        ("SELECT * FROM keyless WHERE x = 5", "SR003"),
    ]);
}

#[test]
fn unusable_keys() {
    check(&[
        ("SELECT * FROM photos WHERE user_id = NULL", "0"),
        ("SELECT * FROM photos WHERE user_id = NULL::bigint", "0"),
        ("SELECT * FROM photos WHERE user_id = 5.5", "SR007"),
        ("SELECT * FROM photos WHERE user_id = '5.0'", "SR007"),
        ("SELECT * FROM photos WHERE user_id = 'x'", "SR007"),
        (
            "SELECT * FROM photos WHERE user_id = 99999999999999999999",
            "SR007",
        ),
        ("SELECT * FROM photos WHERE user_id = 40000::int2", "SR007"),
        ("SELECT * FROM photos WHERE user_id = B'101'", "SR007"),
        ("SELECT * FROM photos WHERE user_id IN (NULL)", "0"),
        ("SELECT * FROM photos WHERE user_id IN (NULL, NULL)", "0"),
        ("SELECT * FROM photos WHERE user_id IN (NULL, 5)", "5"),
        ("SELECT * FROM photos WHERE user_id = ANY('{}')", "0"),
        (
            "SELECT * FROM photos WHERE user_id = ANY('{5,NULL}'::bigint[])",
            "5",
        ),
        ("SELECT * FROM photos WHERE user_id = ANY('5')", "SR007"),
        ("SELECT * FROM photos WHERE id = -7", "0"),
        ("INSERT INTO photos (user_id) VALUES (NULL)", "SR007"),
        ("INSERT INTO photos (user_id) VALUES (5.5)", "SR007"),
        ("SELECT * FROM photos WHERE user_id = $1", "SR007"),
    ]);
}

#[test]
fn parameters() {
    let world = world();
    let sql = "SELECT * FROM photos WHERE user_id = $1";
    assert_eq!(world.to_with(sql, vec![text("5")]), "5");
    assert_eq!(world.to_with(sql, vec![int8(21)]), "5");
    assert_eq!(world.to_with(sql, vec![int8(-1)]), "15");
    let typed = |oid: u32, bytes: &[u8]| vec![(Format::Binary, oid, Some(bytes.to_vec()))];
    assert_eq!(world.to_with(sql, typed(INT4, &21i32.to_be_bytes())), "5");
    assert_eq!(world.to_with(sql, typed(21, &21i16.to_be_bytes())), "5");
    assert_eq!(world.to_with(sql, typed(TEXT, b"21")), "5");
    assert_eq!(
        world.to_with(sql, typed(FLOAT8, &5f64.to_be_bytes())),
        "SR007"
    );
    assert_eq!(world.to_with(sql, typed(0, b"abc")), "SR007");
    assert_eq!(
        world.to_with(sql, vec![(Format::Text, FLOAT8, Some(b"5".to_vec()))]),
        "SR007"
    );
    assert_eq!(world.to_with(sql, vec![(Format::Binary, 0, None)]), "0");
    assert_eq!(world.to_with(sql, vec![]), "SR007");
    assert_eq!(
        world.to_with(
            "SELECT * FROM photos WHERE user_id = $2 LIMIT $1",
            vec![int8(1), int8(5)]
        ),
        "5"
    );
    assert_eq!(
        world.to_with(
            "SELECT * FROM photos WHERE user_id = $1::text::bigint",
            vec![text("5")]
        ),
        "5"
    );
    assert_eq!(
        world.to_with(
            "SELECT * FROM photos WHERE user_id = ANY($1::bigint[])",
            vec![text("{5,21}")]
        ),
        "5"
    );
    assert_eq!(
        world.to_with(
            "SELECT * FROM photos WHERE user_id = ANY($1)",
            vec![text("{5,6}")]
        ),
        "5,6"
    );
    assert_eq!(
        world.to_with(
            "SELECT * FROM photos WHERE user_id IN ($1, $2)",
            vec![int8(5), int8(6)]
        ),
        "5,6"
    );
    let both = "INSERT INTO photos (user_id, caption) VALUES ($1, $2) RETURNING id";
    assert_eq!(world.to_with(both, vec![int8(5), text("x")]), "5");
    let accounts = "SELECT * FROM devices WHERE uuid = $1";
    assert_eq!(world.to_with(accounts, vec![text("not a uuid")]), "SR007");
}

/// A parameter without a stated type gets the type of its first use; eight bytes may be a float's.
#[test]
fn parameters_of_unsure_type() {
    let world = world();
    let twice = "SELECT * FROM photos WHERE score = $1 AND user_id = $1";
    assert_eq!(world.to_with(twice, vec![int8(5)]), "SR007");
    assert_eq!(world.to_with(twice, vec![text("5")]), "5");
    assert_eq!(
        world.to_with(twice, vec![text("9007199254740993")]),
        "SR007"
    );
    let declared = vec![(Format::Binary, INT8, Some(5i64.to_be_bytes().to_vec()))];
    assert_eq!(world.to_with(twice, declared), "5");
    let same = "SELECT * FROM photos p JOIN likes l ON l.user_id = $1 WHERE p.user_id = $1";
    assert_eq!(world.to_with(same, vec![int8(5)]), "5");
    let cast = "SELECT $1::text FROM photos WHERE user_id = $1::bigint";
    assert_eq!(
        world.to_with(cast, vec![(Format::Binary, 0, Some(b"42".to_vec()))]),
        "SR007"
    );
    let output = "SELECT $1 FROM photos WHERE user_id = $1";
    assert_eq!(world.to_with(output, vec![int8(5)]), "SR007");
    let sent = "UPDATE photos SET user_id = $1 WHERE user_id = $1 AND id IN ($2, $3)";
    assert_eq!(world.to_with(sent, vec![int8(5), int8(1), int8(2)]), "5");
}
