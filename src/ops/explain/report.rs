//! How well an app's statements can be routed: where each goes, counted by how often it runs, and what is refused and why.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::LIMITS;
use super::entries::Entry;
use crate::route::{self, Bound, Format, Outlook, Param, Params, Refusal, Tables, Values};
use crate::shardmap::ShardMap;
use crate::sql::control::{self, Control};
use crate::sql::hint;
use crate::sql::parse;
use crate::sql::shape::Shape;

/// Shapes whose plans are kept.
const KEPT: usize = 100_000;

/// What becomes of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It goes to hosts.
    Routed(Outlook),
    /// The session answers it itself, or keeps it with the connection that it has: BEGIN, SET, FETCH ...
    Session,
    /// It is refused.
    Refused,
}

impl Outcome {
    /// All, as a report lists them, with their names in JSON and in words.
    pub const ALL: [(Outcome, &'static str, &'static str); 10] = [
        (Outcome::Routed(Outlook::OneShard), "one_shard", "one shard"),
        (
            Outcome::Routed(Outlook::SeveralShards),
            "several_shards",
            "several shards",
        ),
        (
            Outcome::Routed(Outlook::AllShards),
            "all_shards",
            "all shards",
        ),
        (Outcome::Routed(Outlook::AnyHost), "any_host", "any host"),
        (
            Outcome::Routed(Outlook::Unsharded),
            "unsharded",
            "unsharded tables",
        ),
        (
            Outcome::Routed(Outlook::Catalog),
            "catalog",
            "catalog tables",
        ),
        (
            Outcome::Routed(Outlook::EveryHost),
            "every_host",
            "reference tables, every host",
        ),
        (
            Outcome::Routed(Outlook::Everywhere),
            "ddl",
            "DDL, everywhere",
        ),
        (Outcome::Session, "session", "the session itself"),
        (Outcome::Refused, "refused", "refused"),
    ];
}

/// How many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Statements, each as often as it is run.
    pub statements: u64,
    /// Distinct shapes among them.
    pub shapes: u64,
}

/// A shape that is refused with one code, as it is the first time.
#[derive(Clone, Debug)]
pub struct Offender {
    /// Why, and what to do.
    pub refusal: Refusal,
    /// How often it is run.
    pub statements: u64,
    /// Where it stands first: the line, and the text there.
    pub line: usize,
    /// The text.
    pub sql: String,
}

/// What there is to say of a file.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// All statements.
    pub total: Count,
    /// What becomes of them; only what there is.
    pub kinds: BTreeMap<Outcome, Count>,
    /// Those refused, by SQLSTATE.
    pub codes: BTreeMap<&'static str, Count>,
    /// The refused shapes, most frequent first.
    pub offenders: Vec<Offender>,
}

/// Reads all statements and says what would become of them.
pub fn report(map: &ShardMap, tables: &Tables, entries: &[Entry]) -> Report {
    let mut reporter = Reporter {
        map,
        tables,
        shape: Shape::default(),
        known: HashMap::new(),
        seen: HashSet::new(),
        offenders: HashMap::new(),
        report: Report::default(),
    };
    for entry in entries {
        reporter.entry(entry);
    }
    reporter.done()
}

struct Reporter<'a> {
    map: &'a ShardMap,
    tables: &'a Tables,
    shape: Shape,
    known: HashMap<Vec<u8>, Arc<Bound>>,
    /// What was counted of each shape. A number, for a shape is long and may be of several kinds.
    seen: HashSet<(u64, Option<Seen>)>,
    offenders: HashMap<(u64, &'static str), usize>,
    report: Report,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Seen {
    Outcome(Outcome),
    Code(&'static str),
}

/// The values that a log gives.
struct Logged<'e>(&'e [Option<String>]);

impl Params for Logged<'_> {
    fn get(&self, n: u16) -> Option<Param<'_>> {
        let value = self.0.get(usize::from(n).checked_sub(1)?)?;
        Some(Param {
            format: Format::Text,
            type_oid: 0,
            value: value.as_ref().map(String::as_bytes),
        })
    }
}

impl Reporter<'_> {
    fn entry(&mut self, entry: &Entry) {
        let text = &entry.text;
        let mut shape = Shape::default();
        if shape.scan(text.as_bytes()).is_err() {
            // Postgres refuses it, as a whole.
            return self.statement(text, entry);
        }
        for piece in shape.pieces(text.as_bytes()) {
            self.statement(&text[piece], entry);
        }
    }

    fn statement(&mut self, sql: &str, entry: &Entry) {
        let mut shape = std::mem::take(&mut self.shape);
        let key = match shape.scan(sql.as_bytes()) {
            Ok(()) => shape.key.clone(),
            Err(_) => sql.as_bytes().to_vec(),
        };
        let outcome = self.outcome(sql, &shape, &key, entry);
        self.shape = shape;
        self.count(sql, &key, entry, outcome);
    }

    fn outcome(
        &mut self,
        sql: &str,
        shape: &Shape,
        key: &[u8],
        entry: &Entry,
    ) -> Result<Outcome, Refusal> {
        if let Some(control) = control::parse(sql.as_bytes(), shape) {
            if let Some((what, hint)) = control.refused() {
                return Err(Refusal::not_supported(what, hint));
            }
            if !matches!(control, Control::Declare { .. } | Control::Lock) {
                return Ok(Outcome::Session);
            }
        }
        let hint = hint::find(sql.as_bytes(), shape).map_err(|fault| Refusal::bad_hint(&fault))?;
        let params = Logged(&entry.params);
        let values = Values {
            text: sql.as_bytes(),
            holes: &shape.holes,
            params: Some(&params),
        };
        let bound = self.bound(sql, shape, key);
        let outlook = route::outlook(&bound, &values, true, self.map, hint.as_ref());
        match outlook {
            Err(refusal) if entry.normalized && refusal.code == route::Code::Unreadable => {
                self.as_constants(sql, shape).unwrap_or(Err(refusal))
            }
            outlook => outlook,
        }
        .map(Outcome::Routed)
    }

    /// `pg_stat_statements` writes `interval $1`, which is none of SQL. With a constant there it is; its value stays unknown.
    fn as_constants(&self, sql: &str, shape: &Shape) -> Option<Result<Outlook, Refusal>> {
        use crate::sql::token::{TokenKind, tokens};
        let mut text = String::with_capacity(sql.len() + 16);
        let mut at = 0;
        for param in tokens(sql.as_bytes(), &shape.holes).filter(|t| t.kind == TokenKind::Param) {
            text.extend([&sql[at..param.span.start], "'1'"]);
            at = param.span.end;
        }
        text.push_str(&sql[at..]);
        let mut shape = Shape::default();
        shape.scan(text.as_bytes()).ok()?;
        let plan = parse::plan(&text, &shape, &LIMITS).ok()?;
        let bound = route::bind(&plan, self.tables);
        let values = Values {
            text: text.as_bytes(),
            holes: &shape.holes,
            params: None,
        };
        Some(route::outlook(&bound, &values, false, self.map, None))
    }

    fn bound(&mut self, sql: &str, shape: &Shape, key: &[u8]) -> Arc<Bound> {
        if let Some(bound) = self.known.get(key) {
            return bound.clone();
        }
        let bound = match parse::plan(sql, shape, &LIMITS) {
            Ok(plan) => route::bind(&plan, self.tables),
            Err(unreadable) => route::bind_unreadable(&unreadable, self.tables),
        };
        let bound = Arc::new(bound);
        if !bound.per_text && !shape.opaque {
            if self.known.len() >= KEPT {
                self.known.clear();
            }
            self.known.insert(key.to_vec(), bound.clone());
        }
        bound
    }

    fn count(&mut self, sql: &str, key: &[u8], entry: &Entry, outcome: Result<Outcome, Refusal>) {
        let shape = digest(key);
        let kind = *outcome.as_ref().unwrap_or(&Outcome::Refused);
        let calls = entry.calls;
        self.report
            .total
            .add(calls, self.seen.insert((shape, None)));
        let new = self.seen.insert((shape, Some(Seen::Outcome(kind))));
        self.report.kinds.entry(kind).or_default().add(calls, new);
        let Err(refusal) = outcome else { return };
        let code = refusal.code.sqlstate();
        let new = self.seen.insert((shape, Some(Seen::Code(code))));
        self.report.codes.entry(code).or_default().add(calls, new);
        let offenders = &mut self.report.offenders;
        let place = self
            .offenders
            .entry((shape, code))
            .or_insert(offenders.len());
        if *place == offenders.len() {
            offenders.push(Offender {
                refusal,
                statements: 0,
                line: entry.line,
                sql: sql.to_owned(),
            });
        }
        offenders[*place].statements += calls;
    }

    fn done(mut self) -> Report {
        let order = |o: &Offender| (std::cmp::Reverse(o.statements), o.line);
        self.report.offenders.sort_by_key(order);
        self.report
    }
}

impl Count {
    fn add(&mut self, statements: u64, new_shape: bool) {
        self.statements += statements;
        self.shapes += u64::from(new_shape);
    }
}

impl Report {
    /// How many are of this kind.
    pub fn count(&self, kind: Outcome) -> Count {
        self.kinds.get(&kind).copied().unwrap_or_default()
    }

    /// This many of all statements, in percent.
    pub fn share(&self, count: Count) -> f64 {
        100.0 * count.statements as f64 / (self.total.statements.max(1)) as f64
    }
}

/// A number for a shape, whatever its white space and comments (whose mark in a key is the byte 6).
fn digest(key: &[u8]) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    let blank = |b: &u8| b.is_ascii_whitespace() || *b == 6;
    for word in key.split(blank).filter(|word| !word.is_empty()) {
        word.hash(&mut hasher);
    }
    hasher.finish()
}
