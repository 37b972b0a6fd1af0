//! What is done with a text: edits, outlooks, reasons; and texts of ORMs, mutilated, deep and long ones.

use super::*;

#[test]
fn schema_is_written_into_the_text() {
    let world = world();
    for (sql, expected) in [
        (
            "SELECT photos.id FROM photos WHERE photos.user_id = 5",
            "SELECT photos.id FROM shard_0005.photos WHERE photos.user_id = 5",
        ),
        (
            "SELECT \"public\".\"photos\".\"id\" FROM \"public\".\"photos\" WHERE \"public\".\"photos\".\"user_id\" = 5",
            "SELECT shard_0005.\"photos\".\"id\" FROM shard_0005.\"photos\" WHERE shard_0005.\"photos\".\"user_id\" = 5",
        ),
        (
            "SELECT public.photos.* FROM public.photos WHERE user_id=5",
            "SELECT shard_0005.photos.* FROM shard_0005.photos WHERE user_id=5",
        ),
        (
            "WITH likes AS (SELECT * FROM likes WHERE user_id = '5') SELECT * FROM likes JOIN countries ON true",
            "WITH likes AS (SELECT * FROM shard_0005.likes WHERE user_id = '5') SELECT * FROM likes JOIN countries ON true",
        ),
        (
            "INSERT INTO photos(id,user_id) VALUES (nextval('photos_id_seq'::regclass), 5)",
            "INSERT INTO shard_0005.photos(id,user_id) VALUES (nextval('shard_0005.photos_id_seq'::regclass), 5)",
        ),
        (
            "SELECT * FROM \"Album\" /* photos */ WHERE user_id = 5 FOR UPDATE OF \"Album\"",
            "SELECT * FROM shard_0005.\"Album\" /* photos */ WHERE user_id = 5 FOR UPDATE OF \"Album\"",
        ),
        (
            "SELECT * FROM shard_0005.photos p, likes WHERE likes.user_id = 5",
            "SELECT * FROM shard_0005.photos p, shard_0005.likes WHERE likes.user_id = 5",
        ),
        ("TABLE shard_0005.photos", "TABLE shard_0005.photos"),
        (
            "EXPLAIN TABLE photos /* presplit: key=5 */",
            "EXPLAIN TABLE shard_0005.photos /* presplit: key=5 */",
        ),
        (
            "SELECT '\u{e4}\u{f6}', \"\u{fc}\" FROM photos \"\u{fc}\"\r\n\tJOIN likes USING (user_id) WHERE user_id = 5",
            "SELECT '\u{e4}\u{f6}', \"\u{fc}\" FROM shard_0005.photos \"\u{fc}\"\r\n\tJOIN shard_0005.likes USING (user_id) WHERE user_id = 5",
        ),
    ] {
        assert_eq!(world.rewritten(sql), expected);
    }
}

/// The same edits serve every text of the shape.
#[test]
fn edits_are_of_the_shape() {
    let world = world();
    let one = "SELECT 'a' FROM photos WHERE user_id = 5 AND caption = 'x'";
    let other =
        "SELECT 'something longer' FROM photos WHERE user_id = 1234567 AND caption = E'\\''";
    let other = other.replace("E'\\''", "'y'''");
    let (bound, shape) = world.bound(one);
    let (again, shape_again) = world.bound(&other);
    assert_eq!(shape.key, shape_again.key);
    assert_eq!(bound.edits, again.edits);
    let route = world.decided(&bound, &shape_again, &other, None, None);
    assert_eq!(in_words(route), "7");
    let mut out = Vec::new();
    splice(
        other.as_bytes(),
        &shape_again.holes,
        &bound.edits,
        "s",
        &mut out,
    );
    assert_eq!(
        String::from_utf8_lossy(&out),
        "SELECT 'something longer' FROM s.photos WHERE user_id = 1234567 AND caption = 'y'''"
    );
}

#[test]
fn outlooks_without_values() {
    let world = world();
    let of = |sql: &str, params: Option<&Given>| {
        let (bound, shape) = world.bound(sql);
        let values = Values {
            text: sql.as_bytes(),
            holes: &shape.holes,
            params: params.map(|p| p as &dyn Params),
        };
        let hint = hint::find(sql.as_bytes(), &shape).expect("a hint");
        match outlook(&bound, &values, true, &world.map, hint.as_ref()) {
            Ok(outlook) => format!("{outlook:?}"),
            Err(refusal) => refusal.code.sqlstate().to_owned(),
        }
    };
    for (sql, expected) in [
        ("SELECT * FROM photos WHERE user_id = $1", "OneShard"),
        (
            "SELECT * FROM photos WHERE user_id = 5 AND id = $1",
            "OneShard",
        ),
        (
            "SELECT * FROM photos WHERE user_id IN ($1, $2)",
            "SeveralShards",
        ),
        (
            "SELECT * FROM photos WHERE user_id IN (1, 2)",
            "SeveralShards",
        ),
        ("SELECT * FROM photos WHERE user_id IN (1, 17)", "OneShard"),
        (
            "SELECT * FROM photos WHERE user_id = ANY($1)",
            "SeveralShards",
        ),
        (
            "INSERT INTO photos (user_id, caption) VALUES ($1, $2)",
            "OneShard",
        ),
        (
            "INSERT INTO photos (id, user_id) VALUES ($1, $2)",
            "OneShard",
        ),
        (
            "INSERT INTO photos (user_id) VALUES ($1), ($2)",
            "SeveralShards",
        ),
        ("UPDATE photos SET caption = $1 WHERE id > $2", "SR001"),
        (
            "/* presplit: key=5 */ SELECT * FROM photos WHERE user_id = $1",
            "OneShard",
        ),
        ("SELECT * FROM photos WHERE caption = $1", "AllShards"),
        ("SELECT id FROM photos ORDER BY id LIMIT $1", "AllShards"),
        (
            "SELECT id FROM photos WHERE user_id IN ($1, $2) ORDER BY id LIMIT $3 OFFSET $4",
            "SeveralShards",
        ),
        ("SELECT caption::mood FROM photos", "SR004"),
        ("SELECT * FROM countries WHERE code = $1", "AnyHost"),
        ("SELECT * FROM invoices WHERE id = $1", "Unsharded"),
        ("SELECT * FROM pg_class WHERE relname = $1", "Catalog"),
    ] {
        assert_eq!(of(sql, None), expected, "{sql}");
    }
    let given = Given(vec![text("x")]);
    assert_eq!(
        of("SELECT * FROM photos WHERE user_id = $1", Some(&given)),
        "SR007"
    );
}

#[test]
fn what_a_statement_does() {
    let world = world();
    let bound = |sql: &str| world.bound(sql).0;
    assert!(bound("SELECT * FROM photos").returns_rows);
    assert!(!bound("SELECT * FROM photos").writes);
    assert!(bound("SELECT * FROM photos FOR SHARE").writes);
    assert!(bound("SELECT nextval('x')").writes);
    assert!(bound("SELECT app_report()").writes);
    let delete = bound("DELETE FROM photos WHERE user_id = 5");
    assert!(delete.writes && !delete.returns_rows && !delete.per_text);
    assert!(bound("DELETE FROM photos WHERE user_id = 5 RETURNING id").returns_rows);
    assert!(bound("WITH d AS (DELETE FROM photos) SELECT 1").writes);
    assert!(bound("SELECT 'photos'::regclass").per_text);
    assert!(bound("SELECT nextval('photos_id_seq')").per_text);
}

#[test]
fn reasons() {
    let world = world();
    let why_of = |sql: &str, params: Option<&Given>| {
        let (bound, shape) = world.bound(sql);
        let params = params.map(|p| p as &dyn Params);
        let values = Values {
            text: sql.as_bytes(),
            holes: &shape.holes,
            params,
        };
        why(&bound, &values, &world.map, None)
    };
    let given = Given(vec![int8(42)]);
    assert_eq!(
        why_of("SELECT * FROM photos WHERE user_id = $1", Some(&given)),
        "photos.user_id = $1 (42) -> modulo of 42 by 16 -> shard 10 -> host b"
    );
    assert_eq!(
        why_of("SELECT * FROM photos WHERE id = 5120", None),
        "photos.id = 5120 -> shard bits of the id 5120 -> shard 5 -> host a"
    );
    assert_eq!(
        why_of("SELECT * FROM photos", None),
        "no key: all shards -> 16 shards"
    );
    assert!(
        why_of("DELETE FROM photos", None)
            .starts_with("SR001: no shard key: nothing says what photos.user_id equals")
    );
}

/// What ORMs send: each statement with where it goes (`$n` is n). Statements that the session answers itself
/// (BEGIN, SET, FETCH ...) are refused here, for none of them gets here.
#[test]
fn statements_of_orms() {
    let world = world();
    let given = Given((1..=9).map(|n| text(&n.to_string())).collect());
    let mut wrong = Vec::new();
    for line in include_str!("../orm.tsv").lines() {
        let (expected, sql) = line.split_once('\t').expect("outcome, tab, statement");
        let sql = sql.replace("\\n", "\n");
        let route = world.route(&sql, Some(&given));
        let detail = route
            .as_ref()
            .err()
            .map(ToString::to_string)
            .unwrap_or_default();
        let found = in_words(route);
        if found != expected {
            wrong.push(format!(
                "{sql}\n    expected {expected}, found {found} {detail}"
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Statements cut up and put together at random: none panics or hangs, edits lie inside the text, and whatever has a
/// plan has the same plan with other literals.
#[test]
fn mutilated_statements() {
    use rand::{Rng, SeedableRng, rngs::StdRng};
    let mut rng = StdRng::seed_from_u64(7);
    let world = world();
    let corpus: Vec<&str> = include_str!("../orm.tsv")
        .lines()
        .filter_map(|l| Some(l.split_once('\t')?.1))
        .collect();
    let pieces = [
        "(", ")", ",", "'", "\"", ";", "--", "/*", "*/", "$1", "NOT", "ONLY", "photos", "AS", "=",
        "OR", "[", "]", ".", "::", "\u{e4}", "SELECT", "VALUES", "WITH", "1e9", "FROM", "USING",
        "ON", "NULL", "U&\"", "$$",
    ];
    for round in 0..3000 {
        let mut words: Vec<&str> = corpus[rng.random_range(0..corpus.len())]
            .split(' ')
            .collect();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..words.len().max(1)).min(words.len());
            match rng.random_range(0..4) {
                0 if at < words.len() => drop(words.remove(at)),
                1 => words.insert(at, pieces[rng.random_range(0..pieces.len())]),
                2 if at < words.len() => words.swap(at, 0),
                _ => {
                    let other: Vec<&str> = corpus[rng.random_range(0..corpus.len())]
                        .split(' ')
                        .collect();
                    let from = rng.random_range(0..other.len());
                    words.truncate(at);
                    words.extend(&other[from..]);
                }
            }
        }
        let sql = words.join(" ");
        let mut shape = Shape::default();
        if shape.scan(sql.as_bytes()).is_err() {
            continue;
        }
        let (bound, shape) = world.bound(&sql);
        let values = Values {
            text: sql.as_bytes(),
            holes: &shape.holes,
            params: None,
        };
        let _ = decide(&bound, &values, &world.map, None);
        let _ = why(&bound, &values, &world.map, Some(&Hint::Shard(1)));
        let mut out = Vec::new();
        splice(sql.as_bytes(), &shape.holes, &bound.edits, "s", &mut out);
        assert!(std::str::from_utf8(&out).is_ok(), "{round}: {sql}");
        assert!(
            bound.edits.is_sorted_by_key(|edit| match edit {
                crate::sql::rewrite::Edit::Qualify(pos)
                | crate::sql::rewrite::Edit::Replace(pos, _) => pos.at(&shape.holes),
                crate::sql::rewrite::Edit::IntoString(hole) =>
                    shape.holes[*hole as usize].start as usize,
            }),
            "{round}: {sql}"
        );
    }
}

#[test]
fn deep_and_long_statements() {
    let world = world();
    let chain = |n: usize| {
        format!(
            "SELECT * FROM photos WHERE user_id = 5 AND ({})",
            vec!["id = 1"; n].join(" OR ")
        )
    };
    assert_eq!(in_words(world.route(&chain(10_000), None)), "5");
    let ands = format!(
        "SELECT * FROM photos WHERE {} AND user_id = 5",
        vec!["id > 1"; 10_000].join(" AND ")
    );
    assert_eq!(in_words(world.route(&ands, None)), "5");
    let casts = format!(
        "SELECT 1{} FROM photos WHERE user_id = 5",
        "::int".repeat(10_000)
    );
    assert_eq!(in_words(world.route(&casts, None)), "5");
    let union = format!(
        "SELECT id FROM photos WHERE user_id = 5{}",
        " UNION ALL SELECT 1".repeat(3_000)
    );
    assert_eq!(in_words(world.route(&union, None)), "5");
    let list = format!(
        "SELECT * FROM photos WHERE user_id IN ({})",
        vec!["5"; 20_000].join(",")
    );
    assert_eq!(in_words(world.route(&list, None)), "5");
    let rows = format!(
        "INSERT INTO photos (user_id, caption) VALUES {}",
        vec!["(5, 'x')"; 5_000].join(",")
    );
    assert_eq!(in_words(world.route(&rows, None)), "5");
    for sql in [
        format!(
            "SELECT {}1{} FROM photos",
            "(".repeat(5_000),
            ")".repeat(5_000)
        ),
        format!("SELECT {}1 FROM photos", "- ".repeat(50_000)),
        format!("SELECT {} true FROM photos", "NOT ".repeat(50_000)),
        format!(
            "SELECT * FROM {}photos{}",
            "(SELECT * FROM ".repeat(2_000),
            ") x".repeat(2_000)
        ),
        chain(200_000),
    ] {
        assert_eq!(in_words(world.route(&sql, None)), "SR006", "{}", &sql[..40]);
    }
}
