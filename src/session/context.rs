//! What all sessions of a proxy share: the map, the tables, the caches, the pools, the counters.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};

use super::cancel::CancelKeys;
use super::clients::Clients;
use super::reading::Reading;
use super::refresh::Refresh;
use super::share::Slow;
use crate::catalog::Snapshot;
use crate::pool::{Pools, Worker};
use crate::route::{Bound, SessionState, Tables};
use crate::shardmap::{MapHandle, ShardMap};
use crate::sql::cache::{self, Front, Shared};
use crate::sql::control::Control;
use crate::sql::hint::{Hint, HintFault};
use crate::sql::rewrite;
use crate::sql::shape::{Earlier, Hole, Shape};
use crate::stats::Stats;
use crate::twophase::{Board, Seam};
use crate::wire::auth::Mock;
use crate::wire::frame;

/// Shared by all sessions of one proxy.
pub struct Context {
    /// The shard map in force.
    pub map: MapHandle,
    /// The app's tables and all that was worked out from them.
    pub schema: CurrentSchema,
    /// Server connections.
    pub pools: Pools,
    /// Counters.
    pub stats: Stats,
    /// Who is connected.
    pub clients: Clients,
    /// Which session a cancel key belongs to.
    pub cancel_keys: CancelKeys,
    /// What a server reports at login under given settings.
    pub welcomes: super::login::Welcomes,
    /// Keys for rows that are inserted without one.
    pub keys: super::keys::Keys,
    /// Transactions over several hosts.
    pub two_phase: Arc<Board>,
    /// Where tests stop a commit on several hosts.
    pub seam: Seam,
    /// Asks the catalog reader for a new look (a statement names a table that we don't know).
    pub refresh: Refresh,
    pub(crate) mock: Mock,
    statement_ids: AtomicU64,
}

impl Context {
    /// A context for a proxy with this map; the tables are not known yet.
    pub fn new(map: MapHandle, stats: Stats, seam: Seam) -> Arc<Context> {
        let schema = Schema::new(&map.current(), None, Snapshot::default());
        Arc::new(Context {
            map,
            schema: CurrentSchema::new(schema),
            pools: Pools::default(),
            stats,
            clients: Clients::default(),
            cancel_keys: CancelKeys::default(),
            welcomes: Default::default(),
            keys: Default::default(),
            two_phase: Board::new(),
            seam,
            refresh: Refresh::default(),
            mock: Mock::new(),
            statement_ids: AtomicU64::new(1),
        })
    }

    pub(crate) fn next_statement_id(&self) -> u64 {
        self.statement_ids.fetch_add(1, Ordering::Relaxed)
    }
}

/// The schema in force.
pub struct CurrentSchema {
    schema: ArcSwap<Schema>,
    /// Where it is: to see that it is the same still, nobody need take hold of it.
    at: AtomicUsize,
}

impl CurrentSchema {
    fn new(schema: Schema) -> CurrentSchema {
        let schema = Arc::new(schema);
        CurrentSchema {
            at: AtomicUsize::new(place(Arc::as_ptr(&schema))),
            schema: ArcSwap::new(schema),
        }
    }

    /// Puts another in force. By one task at a time.
    pub fn store(&self, schema: Arc<Schema>) {
        let at = place(Arc::as_ptr(&schema));
        self.schema.store(schema);
        self.at.store(at, Ordering::Release);
    }

    /// To look at and let go.
    pub fn load(&self) -> Guard<Arc<Schema>> {
        self.schema.load()
    }

    /// To keep for a while.
    pub fn load_full(&self) -> Arc<Schema> {
        self.schema.load_full()
    }

    /// Its [`place`].
    pub(crate) fn place(&self) -> usize {
        self.at.load(Ordering::Acquire)
    }
}

/// Where a schema is. No other is there as long as somebody holds it, were it by a `Weak`.
pub(crate) fn place(schema: *const Schema) -> usize {
    schema.addr()
}

/// The tables of one look at the catalog under one `[tables]`, with the plans made from it. When either changes, all of
/// it is replaced at once; a change of `[map]` leaves it alone.
pub struct Schema {
    /// `None` until a host could be read.
    pub tables: Option<Tables>,
    /// What they were made from.
    pub(crate) snapshot: Snapshot,
    pub(crate) plans: Shared<Prepared>,
    pub(crate) statements: Shared<Statement>,
    /// It is one session's alone: its block has changed tables, or it has temporary ones.
    own: bool,
}

impl Schema {
    /// A schema with empty caches.
    pub fn new(map: &ShardMap, tables: Option<Tables>, snapshot: Snapshot) -> Schema {
        let limits = &map.proxy.limits;
        let limits = || cache::Limits {
            entries: limits.plan_cache as usize,
            key_bytes: u64::from(limits.plan_cache) * KEY_BYTES,
            longest_key: LONGEST_KEY,
        };
        Schema {
            tables,
            snapshot,
            plans: Shared::new(limits()),
            statements: Shared::new(limits()),
            own: false,
        }
    }

    /// It serves one session alone.
    pub(crate) fn into_own(self) -> Arc<Schema> {
        Arc::new(Schema { own: true, ..self })
    }
}

/// What the caches of a [`Schema`] hold and have done, the caches in front of them left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheCounts {
    /// Entries now.
    pub entries: usize,
    /// Since the schema was made.
    pub counters: cache::Counters,
}

impl Schema {
    /// The cache of plans, by statement shape.
    pub fn plan_counts(&self) -> CacheCounts {
        CacheCounts {
            entries: self.plans.len(),
            counters: self.plans.counters(),
        }
    }

    /// The cache of the extended protocol's statements, by text and parameter types.
    pub fn statement_counts(&self) -> CacheCounts {
        CacheCounts {
            entries: self.statements.len(),
            counters: self.statements.counters(),
        }
    }
}

/// What the texts of a plan cache may take on average.
const KEY_BYTES: u64 = 2048;
/// A longer text is planned anew each time: it is seldom seen twice.
const LONGEST_KEY: usize = 64 * 1024;

/// What the session does about a statement, worked out once per shape.
pub(crate) enum Prepared {
    /// The session itself acts.
    Control(Control),
    /// It is routed.
    Query(Routed),
    /// It goes as it is to one host.
    Pass(Passed),
    /// Nothing but blanks and comments.
    Empty,
    /// Several statements in one text, at these bytes.
    Several(Vec<Range<usize>>),
    /// No host's catalog has been read yet.
    NoTables,
    /// Depends on the values of its literals: look it up under its full text.
    ByText,
}

/// Which host a statement goes to that is passed as it is.
pub(crate) enum Passed {
    Any,
    /// Where this cursor is.
    Cursor(String),
    /// NOTIFY: its part of the transaction can't be prepared.
    Notify,
}

/// A statement of the extended protocol: text, parameter types, settings by which it is read. Interned, so that its number names it on every
/// server connection.
pub(crate) struct Statement {
    pub(crate) id: u64,
    pub(crate) text: Box<[u8]>,
    pub(crate) types: Box<[u32]>,
    /// How many parameters it has, if that is seen in the text: `$1` in a part that Postgres reads later is none yet.
    pub(crate) param_count: Option<usize>,
    pub(crate) holes: Box<[Hole]>,
    pub(crate) hint: Result<Option<Hint>, HintFault>,
    pub(crate) prepared: Arc<Prepared>,
    /// The settings by which its text is read.
    pub(crate) reading: Arc<Reading>,
    /// The tables that it was prepared for.
    pub(crate) schema: Weak<Schema>,
    /// Some server has parsed it: a later ParseComplete may be made up.
    pub(crate) accepted: AtomicBool,
    /// What some server has said of its parameters and columns.
    pub(crate) described: ArcSwapOption<Described>,
}

/// What a server says of a statement's parameters and columns.
#[derive(Debug)]
pub(crate) struct Described {
    /// ParameterDescription, then RowDescription or NoData, as they came.
    messages: Box<[u8]>,
    /// The length of the first.
    split: usize,
    same_everywhere: bool,
}

impl Described {
    pub(crate) fn new(parameters: &[u8], columns: &[u8]) -> Described {
        let mut described = Described {
            messages: [parameters, columns].concat().into(),
            split: parameters.len(),
            same_everywhere: false,
        };
        let of_column = |(_, shape): (&[u8], &[u8])| {
            shape
                .first_chunk()
                .map_or(0, |oid| u32::from_be_bytes(*oid))
        };
        let own = |oid: u32| oid >= FIRST_NORMAL_OID;
        let owned = described.parameters().any(own) || described.shapes().map(of_column).any(own);
        described.same_everywhere = !owned;
        described
    }

    pub(crate) fn messages(&self) -> &[u8] {
        &self.messages
    }

    /// RowDescription or NoData.
    pub(crate) fn columns(&self) -> &[u8] {
        &self.messages[self.split..]
    }

    /// The types of the parameters.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = u32> {
        let oids = self.messages[..self.split].get(frame::HEADER + 2..);
        let (oids, _) = oids.unwrap_or_default().as_chunks::<4>();
        oids.iter().map(|oid| u32::from_be_bytes(*oid))
    }

    /// The columns without the tables that they are of, which have other numbers in every shard: names, types, type
    /// modifiers.
    fn shapes(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.columns().get(frame::HEADER + 2..).unwrap_or_default();
        std::iter::from_fn(move || {
            let name = rest.iter().position(|b| *b == 0)?;
            let column = rest.get(..name + 19)?;
            rest = &rest[name + 19..];
            Some((&column[..name], &column[name + 7..]))
        })
    }

    /// Whether its numbers of types mean the same on every host: those of Postgres itself do.
    pub(crate) fn is_same_everywhere(&self) -> bool {
        self.same_everywhere
    }

    /// Whether a client that was told one may be answered by the other.
    pub(crate) fn is_like(&self, other: &Described) -> bool {
        self.parameters().eq(other.parameters())
            && self.columns().first() == other.columns().first()
            && self.shapes().eq(other.shapes())
    }
}

/// Objects of Postgres itself have numbers below (`FirstNormalObjectId`, src/include/access/transam.h).
pub(crate) const FIRST_NORMAL_OID: u32 = 16_384;

impl Statement {
    /// Of a Query: known by no name, and not kept.
    pub(crate) fn unnamed(
        id: u64,
        text: &[u8],
        shape: &Shape,
        prepared: &Arc<Prepared>,
    ) -> Statement {
        Statement {
            id,
            text: text.into(),
            types: Box::default(),
            param_count: None,
            holes: shape.holes.as_slice().into(),
            hint: Ok(None),
            prepared: prepared.clone(),
            reading: Arc::default(),
            schema: Weak::new(),
            accepted: AtomicBool::new(false),
            described: ArcSwapOption::empty(),
        }
    }
}

/// What the sessions of one event loop share, so that the hot path meets no other core's cache lines.
pub struct WorkerContext {
    /// Which event loop.
    pub id: Worker,
    pub(crate) scratch: Mutex<Scratch>,
}

/// Reused from statement to statement.
pub(crate) struct Scratch {
    pub(crate) shape: Shape,
    pub(crate) key: Vec<u8>,
    /// Texts of late, and what the schema's plan of each is.
    pub(crate) earlier: Earlier<Prepared>,
    /// The schema that the caches in front belong to.
    pub(crate) schema: Option<Arc<Schema>>,
    pub(crate) plans: Front<Prepared>,
    pub(crate) statements: Front<Statement>,
    /// What was at hand before: of everybody's schema, and of one session's own.
    aside: [Option<Aside>; 2],
}

/// The caches in front of a schema that others are in use of just now.
struct Aside {
    schema: Arc<Schema>,
    earlier: Earlier<Prepared>,
    plans: Front<Prepared>,
    statements: Front<Statement>,
}

impl WorkerContext {
    /// For event loop `id`.
    pub fn new(id: u16) -> Arc<WorkerContext> {
        let scratch = Scratch {
            shape: Shape::default(),
            key: Vec::new(),
            earlier: Earlier::default(),
            schema: None,
            plans: Front::new(FRONT_ENTRIES),
            statements: Front::new(FRONT_ENTRIES),
            aside: [None, None],
        };
        Arc::new(WorkerContext {
            id: Worker(id),
            scratch: Mutex::new(scratch),
        })
    }
}

/// Plans that an event loop keeps at hand; the shared cache behind it holds `plan_cache` of them.
const FRONT_ENTRIES: usize = 4096;

impl Scratch {
    /// Makes the caches in front those of `schema`.
    pub(crate) fn follow(&mut self, schema: &Arc<Schema>) {
        if self.schema.as_ref().is_none_or(|s| !Arc::ptr_eq(s, schema)) {
            self.change_to(schema);
        }
    }

    /// A session with tables of its own does not take away what is at hand for all others.
    fn change_to(&mut self, schema: &Arc<Schema>) {
        let found = self.aside[usize::from(schema.own)].take_if(|a| Arc::ptr_eq(&a.schema, schema));
        let found = found.unwrap_or_else(|| Aside {
            schema: schema.clone(),
            earlier: Earlier::default(),
            plans: Front::new(FRONT_ENTRIES),
            statements: Front::new(FRONT_ENTRIES),
        });
        let earlier = std::mem::replace(&mut self.earlier, found.earlier);
        let plans = std::mem::replace(&mut self.plans, found.plans);
        let statements = std::mem::replace(&mut self.statements, found.statements);
        if let Some(schema) = self.schema.replace(found.schema) {
            let place = usize::from(schema.own);
            self.aside[place] = Some(Aside {
                schema,
                earlier,
                plans,
                statements,
            });
        }
    }
}

/// A statement that is routed.
pub(crate) struct Routed {
    pub(crate) bound: Bound,
    /// It calls `set_config`: the session's settings change with it.
    pub(crate) sets_config: bool,
    /// It calls `pg_notify`.
    pub(crate) notifies: bool,
    /// It may stand in a transaction that something else began, and can't end it.
    pub(crate) shares: bool,
    /// It declares a cursor: WITH HOLD, or one that ends with its transaction.
    pub(crate) holds: bool,
    pub(crate) declares: bool,
    /// Whether others' statements had to wait for it.
    pub(crate) slow: Slow,
}

impl std::ops::Deref for Routed {
    type Target = Bound;

    fn deref(&self) -> &Bound {
        &self.bound
    }
}

impl Prepared {
    /// Whether it may change data.
    pub(crate) fn writes(&self) -> bool {
        match self {
            Prepared::Query(bound) => bound.writes || bound.notifies,
            Prepared::Pass(passed) => matches!(passed, Passed::Notify),
            _ => false,
        }
    }

    /// Whether the transaction's part on its host can't be prepared after it (xact.c, `PrepareTransaction`).
    pub(crate) fn is_unpreparable(&self) -> bool {
        match self {
            Prepared::Query(bound) => bound.notifies || bound.temporary || bound.takes(),
            Prepared::Pass(passed) => matches!(passed, Passed::Notify),
            _ => false,
        }
    }

    /// Whether settings may be brought about in the transaction of the statement itself. (A VACUUM can't be in one that
    /// something else began, a CALL may end it.)
    pub(crate) fn shares_transaction(&self) -> bool {
        match self {
            Prepared::Query(routed) => routed.shares,
            Prepared::Pass(_) => true,
            _ => false,
        }
    }

    /// What it does to what its session has in the server process.
    pub(crate) fn session_state(&self) -> SessionState {
        match self {
            Prepared::Query(bound) if bound.holds => SessionState::Takes,
            Prepared::Query(bound) => bound.session_state,
            _ => SessionState::Same,
        }
    }

    /// Whether it calls `set_config`, and nothing else.
    pub(crate) fn sets_config(&self) -> bool {
        matches!(self, Prepared::Query(bound) if bound.sets_config)
    }

    /// Where character `position` (counted from 1) of the text as sent to the server stands in the client's text.
    pub(crate) fn original_position(
        &self,
        position: u32,
        text: &[u8],
        holes: &[Hole],
        schema: &str,
    ) -> u32 {
        match self {
            Prepared::Query(bound) => {
                rewrite::position_back(position, text, holes, &bound.edits, schema)
            }
            _ => position,
        }
    }
}
