//! What is known of functions by name. Names of Postgres' own are taken from the catalog snapshot; here stand those
//! that the grammar has without a catalog entry, and the properties that bear on where a statement may run.

use super::rules::SessionState;
use super::tables::Tables;
use crate::sql::plan::{Call, Item, Plan, Source};

/// Calls that are grammar, not catalog.
fn is_grammar(name: &str) -> bool {
    matches!(
        name,
        "coalesce"
            | "nullif"
            | "greatest"
            | "least"
            | "row"
            | "array"
            | "rows_from"
            | "grouping"
            | "current_timestamp"
            | "current_time"
            | "localtime"
            | "localtimestamp"
            | "current_date"
            | "json_object"
            | "json_array"
            | "json_exists"
            | "json_value"
            | "json_query"
            | "json_scalar"
            | "json_serialize"
            | "json"
            | "normalize"
            | "treat"
            | "xmlconcat"
            | "xmlelement"
            | "xmlattributes"
            | "xmlnamespaces"
            | "xmltable"
            | "json_table"
            | "xmlforest"
            | "xmlparse"
            | "xmlpi"
            | "xmlroot"
            | "xmlserialize"
            | "xmlexists"
            | "merge_action"
            | "unnest"
            | "left"
            | "right"
            | "char"
            | "bit"
            | "time"
            | "timestamp"
            | "interval"
            | "values"
            | "btrim"
            | "substring"
            | "position"
            | "overlay"
            | "extract"
    )
}

/// It belongs to Postgres or an extension: it touches no table of the app. Those of [`of_session_host`] run on one host alone.
pub(super) fn is_builtin(name: &str, tables: &Tables) -> bool {
    name.starts_with("pg_")
        || is_grammar(name)
        || is_aggregate(name)
        || tables.functions().builtin.contains(name)
}

/// It gives one value (or set) for each row by itself: no aggregate. Those of the app might be anything.
pub(super) fn is_plain(name: &str, tables: &Tables) -> bool {
    is_builtin(name, tables) && !is_aggregate(name)
}

/// Aggregates of pg_aggregate.dat, and those of the grammar.
pub(super) fn is_aggregate(name: &str) -> bool {
    matches!(
        name,
        "array_agg"
            | "avg"
            | "bit_and"
            | "bit_or"
            | "bit_xor"
            | "bool_and"
            | "bool_or"
            | "count"
            | "every"
            | "json_agg"
            | "json_agg_strict"
            | "jsonb_agg"
            | "jsonb_agg_strict"
            | "json_object_agg"
            | "json_object_agg_strict"
            | "json_object_agg_unique"
            | "json_object_agg_unique_strict"
            | "jsonb_object_agg"
            | "jsonb_object_agg_strict"
            | "jsonb_object_agg_unique"
            | "jsonb_object_agg_unique_strict"
            | "json_arrayagg"
            | "json_objectagg"
            | "max"
            | "min"
            | "range_agg"
            | "range_intersect_agg"
            | "string_agg"
            | "sum"
            | "xmlagg"
            | "any_value"
            | "corr"
            | "covar_pop"
            | "covar_samp"
            | "regr_avgx"
            | "regr_avgy"
            | "regr_count"
            | "regr_intercept"
            | "regr_r2"
            | "regr_slope"
            | "regr_sxx"
            | "regr_sxy"
            | "regr_syy"
            | "stddev"
            | "stddev_pop"
            | "stddev_samp"
            | "variance"
            | "var_pop"
            | "var_samp"
            | "mode"
            | "percentile_cont"
            | "percentile_disc"
            | "rank"
            | "dense_rank"
            | "percent_rank"
            | "cume_dist"
            | "grouping"
    )
}

/// Its answer differs from call to call or from server to server, or it has an effect: it must not run on several
/// shards for one statement (pg_proc.dat, `provolatile => 'v'`, and stable functions that tell of one server).
pub(super) fn is_volatile(name: &str) -> bool {
    matches!(
        name,
        "random"
            | "random_normal"
            | "setseed"
            | "gen_random_uuid"
            | "uuidv4"
            | "uuidv7"
            | "uuid_generate_v1"
            | "uuid_generate_v1mc"
            | "uuid_generate_v4"
            | "gen_random_bytes"
            | "gen_salt"
            | "clock_timestamp"
            | "timeofday"
            | "nextval"
            | "setval"
            | "currval"
            | "lastval"
            | "set_config"
            | "txid_current"
            | "inet_server_addr"
            | "inet_server_port"
            | "current_database"
            | "version"
            | "dblink"
            | "dblink_exec"
            | "loread"
            | "lowrite"
            | "query_to_xml"
            | "table_to_xml"
            | "cursor_to_xml"
            | "ts_stat"
            | "ts_rewrite"
            | "current_query"
            | "current_schema"
            | "current_schemas"
            | "normal_rand"
    ) || name.starts_with("lo_")
        || name.starts_with("txid_")
        || name.starts_with("brin_")
        || name.starts_with("gin_")
        || name.ends_with("_to_xml")
        || name.ends_with("_to_xmlschema")
        || (name.starts_with("pg_") && !is_harmless_pg(name))
}

/// Called twice it does no more than once: it belongs to Postgres or an extension and is not volatile, and none of the app's has
/// its name.
pub(super) fn is_repeatable(call: &Call, tables: &Tables) -> bool {
    let (name, known) = (&call.name, tables.functions());
    matches!(call.schema.as_deref(), None | Some("pg_catalog"))
        && is_builtin(name, tables)
        && !is_volatile(name)
        && ![&known.volatile, &known.sharded, &known.public]
            .iter()
            .any(|names| names.contains(name))
}

/// Whether all that a SELECT calls is known, and so. `plan`: with its views written out.
pub(super) fn are_repeatable(plan: &Plan, tables: &Tables) -> bool {
    let is_view = |item: &Item| match &item.source {
        Source::Table(table) => tables.get(&table.name).is_some_and(|table| table.view),
        _ => false,
    };
    !tables.has_hidden_calls()
        && plan.calls.iter().all(|call| is_repeatable(call, tables))
        && !plan.levels.iter().flat_map(|of| &of.items).any(is_view)
}

fn is_harmless_pg(name: &str) -> bool {
    matches!(
        name,
        "pg_typeof" | "pg_column_size" | "pg_size_pretty" | "pg_size_bytes" | "pg_client_encoding"
    )
}

/// What it works on belongs to no table and is each host's own, so that all sessions must meet on the same host: advisory
/// locks, channels, large objects. What it is of these.
pub(super) fn of_session_host(name: &str, tables: &Tables) -> Option<&'static str> {
    let large_object = name.starts_with("lo_") || matches!(name, "loread" | "lowrite");
    if name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_") {
        Some("an advisory lock")
    } else if matches!(name, "pg_notify" | "pg_listening_channels") {
        Some("a channel")
    } else if large_object && tables.functions().builtin.contains(name) {
        Some("a large object")
    } else {
        None
    }
}

/// What a statement does to what a session has in its server process.
pub(super) fn session_state(name: &str) -> SessionState {
    match name {
        "pg_advisory_lock"
        | "pg_advisory_lock_shared"
        | "pg_try_advisory_lock"
        | "pg_try_advisory_lock_shared" => SessionState::Takes,
        "pg_advisory_unlock" | "pg_advisory_unlock_shared" | "pg_advisory_unlock_all" => {
            SessionState::Gives
        }
        _ => SessionState::Same,
    }
}

/// It gives another value on another host, or at another moment.
pub(super) fn is_of_the_moment(name: &str) -> bool {
    const OF_THE_CLOCK: &[&str] = &[
        "now",
        "age",
        "current_timestamp",
        "current_time",
        "current_date",
        "localtime",
        "localtimestamp",
        "transaction_timestamp",
        "statement_timestamp",
    ];
    is_volatile(name) || OF_THE_CLOCK.contains(&name)
}

/// It changes something when it is called.
pub(super) fn writes(name: &str) -> bool {
    matches!(
        name,
        "nextval"
            | "setval"
            | "lo_creat"
            | "lo_create"
            | "lo_import"
            | "lo_unlink"
            | "lo_put"
            | "lo_from_bytea"
            | "lo_truncate"
            | "lo_truncate64"
            | "lowrite"
            | "dblink"
            | "dblink_exec"
    )
}

/// It looks into the catalog, so it is asked where the app's tables are: `pg_table_is_visible`, `current_schema`.
pub(super) fn reads_catalog(name: &str) -> bool {
    matches!(
        name,
        "current_schema"
            | "current_schemas"
            | "to_regclass"
            | "to_regtype"
            | "to_regproc"
            | "to_regprocedure"
            | "format_type"
            | "obj_description"
            | "col_description"
            | "has_table_privilege"
            | "has_column_privilege"
            | "has_any_column_privilege"
            | "has_sequence_privilege"
            | "has_function_privilege"
            | "has_schema_privilege"
            | "has_type_privilege"
    ) || (name.starts_with("pg_get_")
        || name.ends_with("_is_visible")
        || name.ends_with("_size") && name.starts_with("pg_"))
        && !is_harmless_pg(name)
}

/// It reads tables that are named in a string, or in none: all rows of them, on whatever shard it runs.
pub(super) fn reads_unseen(name: &str) -> bool {
    const OF_XML: [&str; 4] = [
        "table_to_xml",
        "query_to_xml",
        "schema_to_xml",
        "database_to_xml",
    ];
    name == "ts_stat" || OF_XML.iter().any(|prefix| name.starts_with(prefix))
}

/// It works on a sequence: alone, it does not say of which shard.
pub(super) fn takes_sequence(name: &str) -> bool {
    matches!(
        name,
        "nextval" | "currval" | "setval" | "pg_sequence_last_value"
    )
}

/// Types that are found without a search path. Others may be the app's, in the shard's schema.
pub(super) fn is_builtin_type(name: &str) -> bool {
    let name = name.strip_prefix('_').unwrap_or(name);
    matches!(
        name,
        "int2"
            | "int4"
            | "int8"
            | "smallint"
            | "int"
            | "integer"
            | "bigint"
            | "numeric"
            | "decimal"
            | "dec"
            | "float"
            | "float4"
            | "float8"
            | "real"
            | "double"
            | "money"
            | "text"
            | "varchar"
            | "bpchar"
            | "char"
            | "character"
            | "nchar"
            | "name"
            | "bytea"
            | "bool"
            | "boolean"
            | "date"
            | "time"
            | "timetz"
            | "timestamp"
            | "timestamptz"
            | "interval"
            | "uuid"
            | "json"
            | "jsonb"
            | "jsonpath"
            | "xml"
            | "bit"
            | "varbit"
            | "inet"
            | "cidr"
            | "macaddr"
            | "macaddr8"
            | "point"
            | "line"
            | "lseg"
            | "box"
            | "path"
            | "polygon"
            | "circle"
            | "tsvector"
            | "tsquery"
            | "oid"
            | "xid"
            | "xid8"
            | "cid"
            | "tid"
            | "pg_lsn"
            | "pg_snapshot"
            | "txid_snapshot"
            | "int4range"
            | "int8range"
            | "numrange"
            | "tsrange"
            | "tstzrange"
            | "daterange"
            | "int4multirange"
            | "int8multirange"
            | "nummultirange"
            | "tsmultirange"
            | "tstzmultirange"
            | "datemultirange"
            | "record"
            | "regclass"
            | "regtype"
            | "regproc"
            | "regprocedure"
            | "regoper"
            | "regoperator"
            | "regrole"
            | "regnamespace"
            | "regconfig"
            | "regdictionary"
            | "regcollation"
            | "refcursor"
            | "aclitem"
            | "oidvector"
            | "int2vector"
            | "void"
            | "unknown"
            | "pg_node_tree"
            | "serial"
            | "bigserial"
            | "gtsvector"
            | "anyarray"
    )
}
