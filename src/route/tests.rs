//! Statements and where they go, over the demo schema: 16 shards by modulo, 0-7 on host a, 8-15 on host b.

use std::collections::{BTreeMap, HashSet};

use crate::catalog::{self, Collation, Functions, Snapshot};
use crate::shardmap::ShardMap;
use crate::sql::hint::{self, Hint};
use crate::sql::parse::{self, Limits};
use crate::sql::rewrite::splice;
use crate::sql::shape::Shape;

use super::*;

mod forms;
mod reach;
mod same_shape;

const MAP: &str = r#"
version = 1
[keyspace]
shards = 16
key = "user_id"
function = "modulo"
schema = "shard_{:04}"
[hosts.a]
url = "postgres://app@127.0.0.1:5432/app"
[hosts.b]
url = "postgres://app@127.0.0.1:5433/app"
[map]
"0-7" = "a"
"8-15" = "b"
[tables]
users = { key = "id" }
photos = { ids = ["id"] }
follows = { key = "source_id" }
accounts = { key = "name" }
devices = { key = "uuid" }
auth_user = { key = "id" }
Photo = { key = "userId", ids = ["id"] }
Like = { key = "userId" }
countries = { kind = "reference" }
invoices = { host = "b" }
rates = { host = "a" }
"#;

const INT4: u32 = 23;
const INT8: u32 = 20;
const TEXT: u32 = 25;
const UUID: u32 = 2950;
const TIMESTAMP: u32 = 1114;
const FLOAT8: u32 = 701;

fn table(name: &str, relkind: char, columns: &[(&str, u32)]) -> (String, catalog::Table) {
    let column = |(name, oid): &(&str, u32)| catalog::Column {
        name: (*name).to_owned(),
        type_oid: *oid,
        has_default: *name == "id",
        not_null: *name == "user_id",
        generated: false,
        default: (*name == "id").then(|| "next_id()".to_owned()),
        collation: match *oid {
            TEXT => Collation::Database,
            _ => Collation::None,
        },
    };
    let columns = columns.iter().map(column).collect();
    (
        name.to_owned(),
        catalog::Table {
            name: name.to_owned(),
            relkind,
            columns,
            definition: None,
        },
    )
}

fn view(name: &str, definition: &str, columns: &[(&str, u32)]) -> (String, catalog::Table) {
    let (name, mut view) = table(name, 'v', columns);
    view.definition = Some(definition.to_owned());
    (name, view)
}

fn snapshot() -> Snapshot {
    let photos = [
        ("id", INT8),
        ("user_id", INT8),
        ("caption", TEXT),
        ("created_at", TIMESTAMP),
        ("tags", 1009),
        ("data", 3802),
        ("like_count", INT4),
        ("score", FLOAT8),
    ];
    let sharded = BTreeMap::from([
        table(
            "users",
            'r',
            &[
                ("id", INT8),
                ("name", TEXT),
                ("email", TEXT),
                ("country", TEXT),
            ],
        ),
        table("photos", 'r', &photos),
        table("photos_archive", 'r', &photos),
        table(
            "Album",
            'r',
            &[("id", INT8), ("user_id", INT4), ("Title", TEXT)],
        ),
        table(
            "follows",
            'r',
            &[
                ("source_id", INT8),
                ("target_id", INT8),
                ("created_at", TIMESTAMP),
            ],
        ),
        table(
            "likes",
            'r',
            &[
                ("user_id", INT8),
                ("photo_id", INT8),
                ("created_at", TIMESTAMP),
            ],
        ),
        table("accounts", 'r', &[("name", TEXT), ("n", INT8)]),
        table("devices", 'r', &[("uuid", UUID), ("name", TEXT)]),
        table("keyless", 'r', &[("x", INT8)]),
        table("auth_user", 'r', &[("id", INT8), ("password", TEXT)]),
        table("app_photo", 'r', &photos),
        table("app_like", 'r', &[("user_id", INT8), ("photo_id", INT8)]),
        table(
            "comments",
            'r',
            &[
                ("id", INT8),
                ("user_id", INT8),
                ("photo_id", INT8),
                ("parent_id", INT8),
            ],
        ),
        table(
            "Photo",
            'r',
            &[
                ("id", INT8),
                ("userId", INT8),
                ("caption", TEXT),
                ("likes", INT8),
            ],
        ),
        table(
            "Like",
            'r',
            &[("id", INT8), ("userId", INT8), ("photoId", INT8)],
        ),
        view(
            "photo_view",
            "SELECT id, user_id FROM photos WHERE caption <> 'x'::text;",
            &[("id", INT8), ("user_id", INT8)],
        ),
        view(
            "captions",
            " SELECT v.user_id, p.caption, u.name FROM photo_view v JOIN photos p ON p.id = v.id AND p.user_id = v.user_id LEFT JOIN users u ON u.id = p.user_id;",
            &[("user_id", INT8), ("caption", TEXT), ("name", TEXT)],
        ),
        view(
            "fans",
            "SELECT target_id AS user_id, source_id AS fan FROM follows",
            &[("user_id", INT8), ("fan", INT8)],
        ),
        view(
            "admirers",
            "SELECT target_id AS user_id FROM follows",
            &[("user_id", INT8)],
        ),
        view(
            "totals",
            "SELECT user_id, count(*) AS n FROM photos GROUP BY user_id",
            &[("user_id", INT8), ("n", INT8)],
        ),
        view(
            "newest",
            "SELECT id, user_id FROM photos ORDER BY id DESC LIMIT 10",
            &[("id", INT8), ("user_id", INT8)],
        ),
        view(
            "of_five",
            "SELECT caption FROM photos WHERE user_id = 5",
            &[("caption", TEXT)],
        ),
        view("names", "SELECT name FROM countries", &[("name", TEXT)]),
        view("odd", "SELECT 1 = ANY OF (2)", &[("user_id", INT8)]),
    ]);
    let on = |tables: Vec<(String, catalog::Table)>| tables.into_iter().collect::<BTreeMap<_, _>>();
    let countries = || table("countries", 'r', &[("code", TEXT), ("name", TEXT)]);
    let public = BTreeMap::from([
        (
            "a".to_owned(),
            on(vec![
                countries(),
                table("rates", 'r', &[("code", TEXT)]),
                table("lost", 'r', &[("x", INT8)]),
            ]),
        ),
        (
            "b".to_owned(),
            on(vec![
                countries(),
                table(
                    "invoices",
                    'r',
                    &[("id", INT8), ("user_id", INT8), ("amount", 1700)],
                ),
            ]),
        ),
    ]);
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|n| (*n).to_owned())
            .collect::<HashSet<_>>()
    };
    Snapshot {
        sharded,
        sharded_sequences: set(&["photos_id_seq"]),
        public,
        functions: Functions {
            builtin: set(&[
                "now",
                "lower",
                "upper",
                "count",
                "sum",
                "max",
                "min",
                "random",
                "generate_series",
                "unnest",
                "nextval",
                "jsonb_build_object",
                "length",
                "version",
                "pg_sleep",
                "format_type",
                "to_regclass",
                "current_schema",
                "row_number",
                "abs",
                "row_to_json",
                "json_agg",
                "date_trunc",
                "set_config",
                "current_schemas",
                "col_description",
                "lag",
                "jsonb_path_query",
                "jsonb_to_recordset",
            ]),
            sharded: set(&["next_id", "photo_count"]),
            public: set(&["app_report"]),
        },
        ..Snapshot::default()
    }
}

pub(super) struct World {
    pub(super) map: ShardMap,
    pub(super) tables: Tables,
}

pub(super) fn world() -> World {
    let map = ShardMap::parse(MAP, &|_| None).expect("a good map");
    let (tables, faults) = Tables::new(&map, &snapshot());
    let keyless = "sharded table keyless: no key column user_id; name its key in [tables] keyless = { key = \"...\" }";
    assert_eq!(faults, [keyless]);
    World { map, tables }
}

/// Parameters of a test.
struct Given(Vec<(Format, u32, Option<Vec<u8>>)>);

impl Params for Given {
    fn get(&self, n: u16) -> Option<Param<'_>> {
        let (format, type_oid, value) = self.0.get(usize::from(n).checked_sub(1)?)?;
        Some(Param {
            format: *format,
            type_oid: *type_oid,
            value: value.as_deref(),
        })
    }
}

fn text(value: &str) -> (Format, u32, Option<Vec<u8>>) {
    (Format::Text, 0, Some(value.as_bytes().to_vec()))
}

fn int8(value: i64) -> (Format, u32, Option<Vec<u8>>) {
    (Format::Binary, 0, Some(value.to_be_bytes().to_vec()))
}

impl World {
    fn bound(&self, sql: &str) -> (Bound, Shape) {
        let mut shape = Shape::default();
        shape.scan(sql.as_bytes()).expect("a shape");
        let bound = match parse::plan(sql, &shape, &Limits::default()) {
            Ok(plan) => bind(&plan, &self.tables),
            Err(unreadable) => bind_unreadable(&unreadable, &self.tables),
        };
        (bound, shape)
    }

    fn route(&self, sql: &str, params: Option<&Given>) -> Result<Route, Refusal> {
        let (bound, shape) = self.bound(sql);
        let hint = hint::find(sql.as_bytes(), &shape).expect("a hint");
        self.decided(&bound, &shape, sql, params, hint.as_ref())
    }

    fn decided(
        &self,
        bound: &Bound,
        shape: &Shape,
        sql: &str,
        params: Option<&Given>,
        hint: Option<&Hint>,
    ) -> Result<Route, Refusal> {
        let params = params.map(|p| p as &dyn Params);
        let values = Values {
            text: sql.as_bytes(),
            holes: &shape.holes,
            params,
        };
        let route = decide(bound, &values, &self.map, hint);
        assert!(!why(bound, &values, &self.map, hint).is_empty());
        route
    }

    fn to_with(&self, sql: &str, params: Vec<(Format, u32, Option<Vec<u8>>)>) -> String {
        in_words(self.route(sql, Some(&Given(params))))
    }

    /// The texts that the parts of an INSERT go with, each with the parameters that it keeps; keys that are to be made
    /// are counted from 100.
    fn parts(&self, sql: &str, params: Option<&Given>) -> Vec<String> {
        let (bound, shape) = self.bound(sql);
        let values = Values {
            text: sql.as_bytes(),
            holes: &shape.holes,
            params: params.map(|p| p as &dyn Params),
        };
        let mut route = decide(&bound, &values, &self.map, None);
        if let Ok(Target::Make(make)) = route.as_ref().map(|route| &route.target) {
            let keys: Vec<i64> = (100..).take(make.keys).collect();
            route = super::with_keys(&bound, &values, &self.map, &keys);
        }
        let split = match route.map(|route| route.target) {
            Ok(Target::Rows(split)) => split,
            other => panic!("{sql}: {other:?}"),
        };
        let part = |part: usize| {
            let mut out = Vec::new();
            let schema = self.map.schema(split.parts[part].shard);
            let kept = bound.write_part(&values, schema, &split, part, &mut out);
            let text = String::from_utf8(out).unwrap();
            if kept.is_empty() {
                text
            } else {
                format!("{text} {kept:?}")
            }
        };
        (0..split.parts.len()).map(part).collect()
    }

    /// The text as it goes to its shard.
    fn rewritten(&self, sql: &str) -> String {
        let (bound, shape) = self.bound(sql);
        let route = self
            .route(sql, None)
            .unwrap_or_else(|refusal| panic!("{sql}: {refusal}"));
        let Target::Shard(shard) = route.target else {
            panic!("{sql}: {route:?}")
        };
        let mut out = Vec::new();
        splice(
            sql.as_bytes(),
            &shape.holes,
            &bound.edits,
            self.map.schema(shard),
            &mut out,
        );
        String::from_utf8(out).expect("UTF-8")
    }
}

/// The target in words: `5`, `1,2`, `all`, `host b`, `any`, `template`, or the code of a refusal.
pub(super) fn in_words(route: Result<Route, Refusal>) -> String {
    let route = match route {
        Ok(route) => route,
        Err(refusal) => {
            assert!(!refusal.hint.is_empty(), "{refusal}");
            return refusal.code.sqlstate().to_owned();
        }
    };
    let path = if route.names == Names::SearchPath
        && !matches!(route.target, Target::Template | Target::Everywhere)
    {
        " path"
    } else {
        ""
    };
    let to = match route.target {
        Target::Shard(shard) => shard.to_string(),
        Target::Shards(shards) if shards.len() == 16 => "all".to_owned(),
        Target::Shards(shards) => shards
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(","),
        Target::Each(shards) if shards.len() == 16 => "each of all".to_owned(),
        Target::Each(shards) => {
            let shards: Vec<_> = shards.iter().map(ToString::to_string).collect();
            format!("each of {}", shards.join(","))
        }
        Target::Make(make) => format!("make {} by {:?}", make.keys, make.maker),
        Target::Rows(split) => {
            let parts = split.parts.iter();
            let parts: Vec<_> = parts.map(|p| format!("{}:{:?}", p.shard, p.rows)).collect();
            let turns: Vec<_> = split
                .turns
                .iter()
                .map(|(p, n)| format!(" {p}x{n}"))
                .collect();
            format!("rows {}{}", parts.join(" "), turns.concat())
        }
        Target::Host(host) => format!("host {}", ["a", "b"][usize::from(host.0)]),
        Target::Any => "any".to_owned(),
        Target::Everywhere => "everywhere".to_owned(),
        Target::EveryHost => "every host".to_owned(),
        Target::Template => "template".to_owned(),
        Target::Data(None) => "rows".to_owned(),
        Target::Data(Some(only)) => format!("rows {only}"),
    };
    format!("{to}{path}")
}

fn check(cases: &[(&str, &str)]) {
    let world = world();
    let mut wrong = Vec::new();
    for (sql, expected) in cases {
        let route = world.route(sql, None);
        let detail = route
            .as_ref()
            .err()
            .map(ToString::to_string)
            .unwrap_or_default();
        let found = in_words(route);
        if found != *expected {
            wrong.push(format!(
                "{sql}\n    expected {expected}, found {found} {detail}"
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

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

#[test]
fn joins() {
    check(&[
        (
            "SELECT * FROM photos p JOIN users u ON u.id = p.user_id WHERE u.id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos p JOIN users u ON u.id = p.user_id WHERE p.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos p, users u WHERE u.id = p.user_id AND u.id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos JOIN likes USING (user_id) WHERE user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos p JOIN likes l USING (user_id) WHERE l.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos p JOIN likes l ON l.user_id = p.user_id AND p.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos p JOIN likes l ON l.photo_id = p.id WHERE p.user_id = 5 AND l.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos p JOIN likes l ON l.photo_id = p.id WHERE p.user_id = 5 AND l.user_id = 21",
            "5",
        ),
        (
            "SELECT * FROM photos p JOIN likes l ON l.photo_id = p.id WHERE p.user_id = 5 AND l.user_id = 6",
            "SR002",
        ),
        (
            "SELECT * FROM photos p JOIN likes l ON l.photo_id = p.id WHERE p.user_id = 5",
            "SR001",
        ),
        (
            "SELECT * FROM likes l JOIN photos p ON p.id = l.photo_id WHERE p.id = 5120 AND l.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM likes l JOIN photos p ON p.id = l.photo_id WHERE l.photo_id = 5120 AND l.user_id = 5",
            "5",
        ),
        // Outer joins: a condition on the side that is filled with nulls binds that side, not the other.
        (
            "SELECT * FROM users u LEFT JOIN photos p ON p.user_id = u.id WHERE u.id = 5",
            "5",
        ),
        (
            "SELECT * FROM users u LEFT JOIN photos p ON p.user_id = u.id AND p.user_id = 5",
            "all",
        ),
        (
            "SELECT * FROM users u LEFT JOIN photos p ON p.user_id = 5 AND u.id = 5",
            "SR001",
        ),
        (
            "SELECT * FROM users u LEFT JOIN photos p ON u.id = 5 AND p.user_id = u.id",
            "all",
        ),
        (
            "SELECT * FROM users u RIGHT JOIN photos p ON p.user_id = u.id WHERE p.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM users u RIGHT JOIN photos p ON p.user_id = u.id AND u.id = 5",
            "all",
        ),
        (
            "SELECT * FROM users u FULL JOIN photos p ON p.user_id = u.id AND u.id = 5 AND p.user_id = 5",
            "SR004",
        ),
        (
            "SELECT * FROM users u FULL JOIN photos p ON p.user_id = u.id WHERE u.id = 5 AND p.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM users u LEFT JOIN photos p ON true WHERE u.id = 5",
            "SR001",
        ),
        (
            "SELECT * FROM users u LEFT JOIN photos p USING (id) WHERE u.id = 5",
            "SR002",
        ),
        (
            "SELECT * FROM (SELECT 1 AS one) x LEFT JOIN (photos p JOIN users u ON u.id = p.user_id AND u.id = 5) ON true",
            "5",
        ),
        (
            "SELECT * FROM photos p LEFT JOIN likes l ON l.user_id = p.user_id LEFT JOIN users u ON u.id = l.user_id WHERE p.user_id = 5",
            "5",
        ),
        // The key need not be known where an id is: what is joined by key is in the same shard.
        (
            "SELECT count(*) FROM photos p LEFT JOIN users u ON u.id = p.user_id WHERE p.id = 5120",
            "5",
        ),
        (
            "SELECT count(*) FROM photos p JOIN users u ON u.id = p.user_id JOIN likes l ON l.user_id = u.id WHERE p.id = 5120",
            "5",
        ),
        (
            "SELECT count(*) FROM users u JOIN (SELECT user_id AS u FROM photos WHERE id = 5120 LIMIT 1) p ON u.id = p.u",
            "5",
        ),
        (
            "SELECT count(*) FROM photos p JOIN (SELECT * FROM users LIMIT 1) u ON u.id = p.user_id WHERE p.id = 5120",
            "SR001",
        ),
        (
            "SELECT count(*) FROM photos p LEFT JOIN users u ON u.id = p.user_id WHERE u.id IN (SELECT user_id FROM likes) AND p.id = 5120",
            "5",
        ),
        (
            "SELECT count(*) FROM photos p LEFT JOIN users u ON u.name = p.caption WHERE p.id = 5120",
            "SR001",
        ),
        (
            "SELECT count(*) FROM users u LEFT JOIN photos p ON u.id = p.user_id AND p.id = 5120",
            "all",
        ),
        (
            "UPDATE users SET name = 'x' FROM photos p WHERE p.id = 5120 AND p.user_id = users.id",
            "5",
        ),
        // A merged column of a join that adds rows is not that of its left side.
        (
            "SELECT * FROM (SELECT * FROM photos WHERE user_id = 5) a RIGHT JOIN likes b USING (user_id) JOIN \"Album\" c USING (user_id)",
            "SR001",
        ),
        (
            "SELECT * FROM photos NATURAL JOIN \"Album\" WHERE photos.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos p JOIN countries c ON c.code = p.caption WHERE p.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM countries c LEFT JOIN users u ON u.country = c.code AND u.id = 5",
            "5",
        ),
        (
            "SELECT * FROM users u JOIN invoices i ON i.user_id = u.id WHERE u.id = 8",
            "8",
        ),
        (
            "SELECT * FROM users u JOIN invoices i ON i.user_id = u.id WHERE u.id = 5",
            "SR002",
        ),
        (
            "SELECT * FROM users u JOIN invoices i ON i.user_id = u.id",
            "SR004",
        ),
        (
            "SELECT * FROM invoices i JOIN rates r ON r.code = 'x'",
            "SR002",
        ),
        (
            "SELECT * FROM photos p CROSS JOIN follows f WHERE p.user_id = 5 AND f.source_id = p.user_id",
            "5",
        ),
    ]);
}

#[test]
fn names_and_aliases() {
    check(&[
        // The alias is a table's name: the key is that of the table behind it.
        (
            "SELECT * FROM follows photos WHERE photos.source_id = 5",
            "5",
        ),
        (
            "SELECT * FROM follows photos WHERE photos.target_id = 5",
            "all",
        ),
        (
            "SELECT * FROM follows photos WHERE photos.user_id = 5",
            "all",
        ),
        ("SELECT * FROM photos p WHERE photos.user_id = 5", "all"),
        ("SELECT * FROM photos \"P\" WHERE p.user_id = 5", "all"),
        ("SELECT * FROM photos WHERE \"User_ID\" = 5", "all"),
        ("SELECT * FROM photos AS p(a, b) WHERE p.b = 5", "5"),
        (
            "SELECT * FROM photos AS p(user_id, b) WHERE p.user_id = 5120",
            "5",
        ),
        ("SELECT * FROM photos AS p(user_id, b) WHERE p.b = 5", "5"),
        ("SELECT user_id AS x FROM photos WHERE x = 5", "all"),
        ("SELECT 5 AS user_id FROM photos", "all"),
        ("SELECT * FROM photos, likes WHERE user_id = 5", "SR004"),
        (
            "SELECT * FROM photos \"photos\" WHERE \"photos\".user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos semi JOIN likes final ON semi.user_id = final.user_id WHERE final.user_id = 5",
            "5",
        ),
        ("SELECT * FROM photos sample WHERE sample.user_id = 5", "5"),
        (
            "SELECT p.user_id qualify FROM photos p WHERE p.user_id = 5",
            "5",
        ),
        ("SELECT top.id FROM photos top WHERE top.user_id = 5", "5"),
        ("SELECT * FROM ph\u{f6}tos WHERE user_id = 5", "SR003"),
        ("SELECT * FROM nowhere WHERE user_id = 5", "SR003"),
        ("SELECT * FROM lost", "SR003"),
        ("SELECT * FROM other.photos WHERE user_id = 5", "SR003"),
        ("SELECT * FROM a.b.photos WHERE user_id = 5", "SR006"),
        ("SELECT * FROM public.photos WHERE user_id = 5", "5"),
        (
            "SELECT public.photos.id FROM public.photos WHERE public.photos.user_id = 5",
            "5",
        ),
        ("SELECT * FROM shard_0003.photos", "3"),
        ("SELECT * FROM shard_0003.photos WHERE user_id = 19", "3"),
        ("SELECT * FROM shard_0003.photos WHERE user_id = 5", "SR002"),
        (
            "SELECT * FROM shard_0003.photos, shard_0004.photos p",
            "SR002",
        ),
        ("SELECT * FROM shard_0016.photos", "SR003"),
        ("SELECT * FROM shard_0003.nowhere", "SR003"),
        (
            "UPDATE shard_0003.photos SET caption = 'x' WHERE id = 3072",
            "3",
        ),
    ]);
}

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
    for line in include_str!("orm.tsv").lines() {
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
    let corpus: Vec<&str> = include_str!("orm.tsv")
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
