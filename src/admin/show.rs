//! What the SHOW commands show.

use std::time::SystemTime;

use super::command::{COMMANDS, View};
use super::metrics;
use crate::route::TableKind;
use crate::session::{Activity, Context, Database};
use crate::shardmap::{FIXED_AT_START, HostId, LastLoad, ProxySettings, ShardId, ShardMap};
use crate::twophase::Readiness;
use crate::wire::error::{ErrorFields, Severity, SqlState};

/// `pg_type.oid` of the types that we answer in.
pub(super) const INT8: u32 = 20;
pub(super) const TEXT: u32 = 25;
pub(super) const FLOAT8: u32 = 701;

/// One value. Its type is that of its column, or it is NULL.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    Int(i64),
    Float(f64),
    Text(String),
}

/// One row, as long as [`columns`].
pub(super) type Row = Vec<Cell>;

/// Rows, and what is to be said beside them.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) rows: Vec<Row>,
    pub(super) notices: Vec<ErrorFields>,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(text)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Null, Into::into)
    }
}

/// A count of ours or milliseconds: never near the end of an i64.
fn int(n: impl TryInto<i64>) -> Cell {
    Cell::Int(n.try_into().unwrap_or(i64::MAX))
}

/// The columns of a view: name and type.
pub(super) fn columns(view: View) -> &'static [(&'static str, u32)] {
    match view {
        View::Help => &[("command", TEXT), ("shows", TEXT)],
        View::Version => &[("version", TEXT)],
        View::Map => &[("item", TEXT), ("value", TEXT)],
        View::Shards => &[("shard", INT8), ("schema", TEXT), ("host", TEXT)],
        View::Hosts => &[
            ("name", TEXT),
            ("url", TEXT),
            ("pool", INT8),
            ("shards", INT8),
            ("state", TEXT),
            ("fault", TEXT),
            ("fault_ms_ago", INT8),
            ("two_phase", TEXT),
        ],
        View::Pools => &[
            ("host", TEXT),
            ("user", TEXT),
            ("cl_waiting", INT8),
            ("sv_active", INT8),
            ("sv_idle", INT8),
            ("maxwait_ms", INT8),
            ("checkouts", INT8),
            ("opened", INT8),
            ("failed", INT8),
            ("sv_pinned", INT8),
            ("sv_shared", INT8),
            ("shared", INT8),
            ("displaced", INT8),
        ],
        View::Clients => &[
            ("id", INT8),
            ("database", TEXT),
            ("user", TEXT),
            ("peer", TEXT),
            ("application", TEXT),
            ("state", TEXT),
            ("state_ms", INT8),
            ("since_ms", INT8),
            ("pinned", TEXT),
        ],
        View::Transactions => &[
            ("transaction", TEXT),
            ("hosts", TEXT),
            ("client", INT8),
            ("state", TEXT),
            ("age_ms", INT8),
            ("why", TEXT),
            ("to_do", TEXT),
        ],
        View::Tables => &[
            ("name", TEXT),
            ("kind", TEXT),
            ("key", TEXT),
            ("ids", TEXT),
            ("host", TEXT),
        ],
        View::Stats => &[("name", TEXT), ("labels", TEXT), ("value", FLOAT8)],
        View::Plans => &[
            ("cache", TEXT),
            ("entries", INT8),
            ("hits", INT8),
            ("misses", INT8),
            ("evictions", INT8),
            ("bypassed", INT8),
        ],
        View::Config => &[
            ("name", TEXT),
            ("value", TEXT),
            ("default", TEXT),
            ("takes_effect", TEXT),
        ],
    }
}

/// The rows of a view at this moment.
pub(super) fn show(context: &Context, view: View) -> Shown {
    let map = context.map.current();
    let rows = match view {
        View::Help => COMMANDS
            .iter()
            .map(|(name, _, what)| vec![(*name).into(), (*what).into()])
            .collect(),
        View::Version => vec![vec![concat!("presplit ", env!("CARGO_PKG_VERSION")).into()]],
        View::Map => self::map(context, &map),
        View::Shards => shards(&map),
        View::Hosts => hosts(context, &map),
        View::Pools => pools(context),
        View::Clients => clients(context),
        View::Transactions => transactions(context),
        View::Tables => return tables(context),
        View::Stats => return stats(context),
        View::Plans => plans(context),
        View::Config => config(&map),
    };
    Shown {
        rows,
        notices: Vec::new(),
    }
}

fn map(context: &Context, map: &ShardMap) -> Vec<Row> {
    let mut rows: Vec<Row> = vec![vec!["version".into(), map.version.to_string().into()]];
    let mut add = |item: &str, value: String| rows.push(vec![item.into(), value.into()]);
    if let Some(path) = context.map.path() {
        add("file", path.display().to_string());
    }
    match context.map.last_load() {
        LastLoad::Good => add("load", "good".to_owned()),
        LastLoad::Bad { faults, since } => {
            add(
                "load",
                format!("bad: version {} stays in force", map.version),
            );
            add("bad since", utc(since));
            for fault in faults {
                add("fault", fault.to_string());
            }
        }
    }
    for (first, last, host) in runs(map) {
        let range = match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        rows.push(vec![range.into(), map.host(host).name.as_str().into()]);
    }
    rows
}

/// Runs of shards with the same owner: first, last, owner.
fn runs(map: &ShardMap) -> Vec<(u32, u32, HostId)> {
    let mut runs: Vec<(u32, u32, HostId)> = Vec::new();
    for shard in 0..map.shards() {
        let owner = map.owner(ShardId(shard));
        match runs.last_mut() {
            Some((_, last, of)) if *of == owner => *last = shard,
            _ => runs.push((shard, shard, owner)),
        }
    }
    runs
}

fn shards(map: &ShardMap) -> Vec<Row> {
    let row = |shard| {
        let host = map.host(map.owner(ShardId(shard)));
        let schema = map.keyspace.schema.name(ShardId(shard));
        vec![int(shard), schema.into(), host.name.as_str().into()]
    };
    (0..map.shards()).map(row).collect()
}

/// How a host looks to us.
pub(super) struct HostState {
    /// `up`: a server connection is open; `down`: the last login failed; `unused`: neither, so that nothing is known.
    pub(super) state: &'static str,
    /// Why the last login failed, and how many milliseconds ago.
    pub(super) fault: Option<(String, u128)>,
}

/// How the host of this name looks, from all its pools.
pub(super) fn host_state(context: &Context, name: &str) -> HostState {
    let pools = context.pools.list();
    let of_host = || pools.iter().filter(|pool| pool.host == name);
    // Of several users' pools the newest fault counts.
    let fault = of_host()
        .filter_map(|pool| pool.last_fault())
        .min_by_key(|(_, ago)| *ago);
    let counts = of_host().map(|pool| pool.counts());
    let open: usize = counts.map(|c| c.sv_idle + c.sv_active).sum();
    let state = match (&fault, open) {
        (Some(_), _) => "down",
        (None, 0) => "unused",
        (None, _) => "up",
    };
    let fault = fault.map(|(fault, ago)| (fault.to_string(), ago.as_millis()));
    HostState { state, fault }
}

fn hosts(context: &Context, map: &ShardMap) -> Vec<Row> {
    let row = |(n, host): (usize, &crate::shardmap::Host)| {
        let HostState { state, fault } = host_state(context, &host.name);
        let (fault, ago) = fault.map_or((Cell::Null, Cell::Null), |(fault, ago)| {
            (fault.into(), int(ago))
        });
        vec![
            host.name.as_str().into(),
            host.url.to_string().into(),
            int(host.pool),
            int(map.shards_of(HostId(n as u16)).count()),
            state.into(),
            fault,
            ago,
            two_phase(&context.two_phase.readiness(&host.name)).into(),
        ]
    };
    map.hosts.iter().enumerate().map(row).collect()
}

/// Whether a host can take part in transactions over several.
fn two_phase(readiness: &Readiness) -> String {
    match readiness {
        Readiness::Ready(_) => "ready".to_owned(),
        Readiness::Unknown(why) => format!("not reached: {why}"),
        Readiness::Unable { why, mend } => format!("no: {why}; to mend it: {mend}"),
    }
}

fn pools(context: &Context) -> Vec<Row> {
    let row = |pool: &std::sync::Arc<crate::pool::Pool>| {
        let counts = pool.counts();
        vec![
            pool.host.as_str().into(),
            pool.url.user.as_str().into(),
            int(counts.cl_waiting),
            int(counts.sv_active),
            int(counts.sv_idle),
            int(counts.maxwait.as_millis()),
            int(counts.checkouts),
            int(counts.opened),
            int(counts.failed),
            int(counts.sv_pinned),
            int(counts.sv_shared),
            int(counts.shared),
            int(counts.displaced),
        ]
    };
    context.pools.list().iter().map(row).collect()
}

/// `pg_stat_activity`'s words.
pub(super) fn state(activity: Activity) -> &'static str {
    match activity {
        Activity::Idle => "idle",
        Activity::InTransaction => "idle in transaction",
        Activity::Active => "active",
    }
}

fn clients(context: &Context) -> Vec<Row> {
    let map = context.map.current();
    let row = |client: &std::sync::Arc<crate::session::ClientInfo>| {
        let (activity, ms) = client.activity();
        let database = match client.database {
            Database::App => map.proxy.database.as_str(),
            Database::Console => super::DATABASE,
        };
        vec![
            int(client.id),
            database.into(),
            client.user.as_str().into(),
            client.peer.as_str().into(),
            client.application.as_str().into(),
            state(activity).into(),
            int(ms),
            int(client.since.elapsed().as_millis()),
            client.pinned().into(),
        ]
    };
    context.clients.list().iter().map(row).collect()
}

fn transactions(context: &Context) -> Vec<Row> {
    let board = &context.two_phase;
    let live = board.live().into_iter().map(|live| {
        let hosts: Vec<&str> = live.parts.iter().map(|(host, _)| host.as_str()).collect();
        vec![
            live.name.to_string().into(),
            hosts.join(", ").into(),
            int(live.client),
            live.step.into(),
            int(live.since.elapsed().as_millis()),
            "its client is at work on it".into(),
            "nothing".into(),
        ]
    });
    let in_doubt = board.in_doubt().into_iter().map(|left| {
        vec![
            left.name.to_string().into(),
            left.host.into(),
            Cell::Null,
            left.outlook.state().into(),
            int(left.since.elapsed().as_millis()),
            left.outlook.why(&left.name).into(),
            left.outlook.mend().into(),
        ]
    });
    live.chain(in_doubt).collect()
}

fn tables(context: &Context) -> Shown {
    let warning = |text: String| ErrorFields::new(Severity::Warning, SqlState::WARNING, text);
    let mut shown = Shown::default();
    let schema = context.schema.load();
    let Some(tables) = &schema.tables else {
        let why = super::serving(context).err().unwrap_or_default();
        shown.notices.push(warning(why));
        return shown;
    };
    let faults = context.refresh.faults().into_iter();
    shown.notices.extend(faults.map(warning));
    for table in tables.list() {
        let (kind, key, ids, host) = match &table.kind {
            TableKind::Sharded { key, ids } => {
                let key = key.as_ref().map(|key| key.name.as_str());
                ("sharded", key, ids.join(", "), None)
            }
            TableKind::Reference => ("reference", None, String::new(), None),
            TableKind::Unsharded { host } => {
                ("unsharded", None, String::new(), Some(host.as_str()))
            }
            TableKind::Unlisted => ("unlisted", None, String::new(), None),
        };
        let ids = Some(ids).filter(|ids| !ids.is_empty());
        shown.rows.push(vec![
            table.name.as_str().into(),
            kind.into(),
            key.into(),
            ids.into(),
            host.into(),
        ]);
    }
    shown
}

fn stats(context: &Context) -> Shown {
    let mut shown = Shown::default();
    match metrics::gather(context) {
        Err(fault) => {
            let text = format!("the metrics can't be gathered: {fault}");
            let fields = ErrorFields::new(Severity::Warning, SqlState::INTERNAL_ERROR, text);
            shown.notices.push(fields);
        }
        Ok(families) => {
            for family in families {
                for metric in family.get_metric() {
                    let label =
                        |l: &prometheus::proto::LabelPair| format!("{}={}", l.name(), l.value());
                    let labels: Vec<String> = metric.get_label().iter().map(label).collect();
                    let value = match family.get_field_type() {
                        prometheus::proto::MetricType::COUNTER => metric.get_counter().get_value(),
                        // There are no other types than these two.
                        _ => metric.get_gauge().get_value(),
                    };
                    shown.rows.push(vec![
                        family.name().into(),
                        labels.join(", ").into(),
                        Cell::Float(value),
                    ]);
                }
            }
        }
    }
    shown
}

fn plans(context: &Context) -> Vec<Row> {
    let schema = context.schema.load();
    let caches = [
        ("plans", schema.plan_counts()),
        ("statements", schema.statement_counts()),
    ];
    let row = |(name, cache): (&str, crate::session::CacheCounts)| {
        let counters = cache.counters;
        vec![
            name.into(),
            int(cache.entries),
            int(counters.hits),
            int(counters.misses),
            int(counters.evictions),
            int(counters.bypassed),
        ]
    };
    caches.into_iter().map(row).collect()
}

fn config(map: &ShardMap) -> Vec<Row> {
    let defaults = ProxySettings::default().list();
    let row = |((name, value), (_, default)): ((&str, String), (&str, String))| {
        let default = match name {
            "database" => map.host(map.owner(map.template())).url.dbname.clone(),
            _ => default,
        };
        let when = match FIXED_AT_START.contains(&name) {
            true => "at the next start",
            false => "at once",
        };
        vec![name.into(), value.into(), default.into(), when.into()]
    };
    map.proxy
        .list()
        .into_iter()
        .zip(defaults)
        .map(row)
        .collect()
}

/// `2015-01-31 23:59:59 UTC`.
pub(super) fn utc(at: SystemTime) -> String {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Howard Hinnant's civil_from_days: years that begin in March, eras of 400 of them, all numbers positive here.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::shardmap::MapHandle;
    use crate::stats::Stats;

    fn context(map: &str) -> std::sync::Arc<Context> {
        let map = ShardMap::parse(map, &|_| None).unwrap();
        Context::new(
            MapHandle::fixed(map),
            Stats::new().unwrap(),
            Default::default(),
        )
    }

    const MAP: &str = "version = 7\n[keyspace]\nshards = 6\n[hosts.a]\nurl = \"postgres://app:secret@h:1/app\"\n\
        [hosts.b]\nurl = \"postgres://app@h:2/app\"\n[map]\n\"0-2\" = \"a\"\n3 = \"b\"\n\"4-5\" = \"a\"\n";

    #[test]
    fn rows_are_as_wide_as_their_columns_and_of_their_types() {
        let context = context(MAP);
        for (name, command, _) in COMMANDS {
            let super::super::command::Command::Show(view) = command else {
                continue;
            };
            let columns = columns(view);
            for row in show(&context, view).rows {
                assert_eq!(row.len(), columns.len(), "{name}");
                for (cell, (column, oid)) in row.iter().zip(columns) {
                    let fits = match cell {
                        Cell::Null => true,
                        Cell::Int(_) => *oid == INT8,
                        Cell::Float(_) => *oid == FLOAT8,
                        Cell::Text(text) => *oid == TEXT && !text.contains("secret"),
                    };
                    assert!(fits, "{name} {column} {cell:?}");
                }
            }
        }
    }

    #[test]
    fn the_map_is_shown_in_runs() {
        let rows = show(&context(MAP), View::Map).rows;
        let rows: Vec<String> = rows
            .iter()
            .map(|row| match &row[..] {
                [Cell::Text(item), Cell::Text(value)] => format!("{item}: {value}"),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            rows,
            ["version: 7", "load: good", "0-2: a", "3: b", "4-5: a"]
        );
    }

    #[test]
    fn before_the_tables_are_known_it_is_said() {
        let context = context(MAP);
        context.refresh.set_faults(&["host a is down".to_owned()]);
        let shown = show(&context, View::Tables);
        assert!(shown.rows.is_empty());
        assert!(shown.notices[0].message.contains("host a is down"));
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |seconds| utc(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        // From date -u -d @N.
        assert_eq!(at(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(at(1_420_070_399), "2014-12-31 23:59:59 UTC");
        assert_eq!(at(1_709_251_199), "2024-02-29 23:59:59 UTC");
        assert_eq!(at(4_107_542_400), "2100-03-01 00:00:00 UTC");
    }
}
