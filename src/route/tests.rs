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
mod joins;
mod key_values;
mod kinds;
mod levels;
mod reach;
mod same_shape;
mod texts;
mod writes;

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
            volatile: set(&[]),
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
