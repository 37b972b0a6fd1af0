//! From a statement's text to what the session does about it: shape, look-up, plan on a miss; then the decision for one
//! execution. No waiting in here.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwapOption;

use super::Session;
use super::buffers;
use super::context::{Passed, Prepared, Routed, Schema, Scratch, Statement};
use super::errors::Fault;
use super::links::Need;
use super::reading::Reading;
use super::share::Slow;
use crate::route::{self, Bound, Names, Refusal, Route, SessionState, Target, Values};
use crate::shardmap::{HostId, ShardId};
use crate::sql::control::{self, Control};
use crate::sql::hint::{self, Hint};
use crate::sql::parse;
use crate::sql::plan::Unreadable;
use crate::sql::shape::{Hole, Shape};
use crate::sql::token::{Token, TokenKind, ident_value, tokens};
use crate::wire::error::{ErrorFields, SqlState};

/// What the parser may spend on one text, once per shape.
pub(super) const PARSE: parse::Limits = parse::Limits {
    text: 1 << 20,
    tokens: 100_000,
    depth: 100,
};

/// Where one execution goes.
pub(super) enum Way {
    /// One server connection.
    One {
        host: HostId,
        /// Whose schema is written into the text; `None`: the text goes as it is.
        shard: Option<ShardId>,
        /// Whose search_path the connection must have.
        path: Option<ShardId>,
    },
    /// DDL: all the places that its plan says.
    Everywhere,
    /// Several shards, whose rows one after the other are the answer.
    Several(Vec<ShardId>),
    /// The rows that the client sends, each to its own shard, or all to this one.
    Data(Option<ShardId>),
    /// Several shards that are written to.
    Write(Box<Write>),
    /// Keys must be made before it is known.
    Make(Box<route::Make>),
}

/// What is written to several shards.
pub(super) struct Write {
    pub(super) what: Parts,
    pub(super) names: Names,
}

/// The parts of a write.
pub(super) enum Parts {
    /// The same text to each.
    Each(Vec<ShardId>),
    /// Each gets its rows.
    Rows(route::Split),
    /// Every host: a reference table is written.
    EveryHost,
}

impl Write {
    /// How many parts there are.
    pub(super) fn len(&self) -> usize {
        match &self.what {
            Parts::Each(shards) => shards.len(),
            Parts::Rows(split) => split.parts.len(),
            Parts::EveryHost => 0,
        }
    }

    /// The shard of each part, if the parts are of shards.
    pub(super) fn shard(&self, part: usize) -> ShardId {
        match &self.what {
            Parts::Each(shards) => shards[part],
            Parts::Rows(split) => split.parts[part].shard,
            Parts::EveryHost => ShardId(0),
        }
    }
}

/// A statement read in the simple protocol.
pub(super) struct Read {
    pub(super) prepared: Arc<Prepared>,
    /// Where it goes, if it is routed.
    pub(super) way: Option<Way>,
    /// The Query message to send, if it goes one way.
    pub(super) message: Vec<u8>,
}

impl Session {
    /// Reads a text of the simple protocol and decides.
    pub(super) fn read(&self, text: &[u8]) -> Result<Read, Fault> {
        let mut scratch = self
            .worker
            .scratch
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let scratch = &mut *scratch;
        let schema = self.schema_at_hand(scratch);
        let prepared = self.look_up(scratch, &schema, text)?;
        let bound = match &*prepared {
            Prepared::Query(bound) => bound,
            Prepared::Pass(passed) => {
                let mut message = Vec::new();
                crate::wire::frontend::query(&mut message, text);
                let way = Some(self.pass_way(passed));
                return Ok(Read {
                    prepared,
                    way,
                    message,
                });
            }
            _ => {
                return Ok(Read {
                    prepared,
                    way: None,
                    message: Vec::new(),
                });
            }
        };
        let values = Values {
            text,
            holes: &scratch.shape.holes,
            params: None,
        };
        let hint = self.hint_of(text, &scratch.shape)?;
        let way = self.decide(bound, &values, hint.as_ref())?;
        let mut message = Vec::new();
        if let Way::One { shard, .. } = &way {
            buffers::lend(&mut message);
            self.write_query(&mut message, bound, &values, *shard);
        }
        Ok(Read {
            prepared,
            way: Some(way),
            message,
        })
    }

    /// A Query message with the shard's schema written into the text.
    pub(super) fn write_query(
        &self,
        out: &mut Vec<u8>,
        bound: &Bound,
        values: &Values<'_>,
        shard: Option<ShardId>,
    ) {
        crate::wire::frame::put(out, b'Q', |out| {
            self.write_text(out, bound, values, shard);
            out.push(0);
        });
    }

    /// The text with the shard's schema written into it.
    pub(super) fn write_text(
        &self,
        out: &mut Vec<u8>,
        bound: &Bound,
        values: &Values<'_>,
        shard: Option<ShardId>,
    ) {
        match shard {
            Some(shard) => crate::sql::rewrite::splice(
                values.text,
                values.holes,
                &bound.edits,
                self.map.schema(shard),
                out,
            ),
            None => out.extend_from_slice(values.text),
        }
    }

    /// The plan of a text, by its shape, or by the whole text where its meaning hangs on the value of a literal.
    /// Leaves the text's shape in `scratch`.
    fn look_up(
        &self,
        scratch: &mut Scratch,
        schema: &Arc<Schema>,
        text: &[u8],
    ) -> Result<Arc<Prepared>, Fault> {
        let most = self.map.proxy.limits.statement_text_bytes;
        if text.len() > most {
            return Err(Fault::limit(
                &format!("a statement of {} bytes", text.len()),
                "statement_text_bytes",
                most as u64,
            ));
        }
        scratch.follow(schema);
        let Scratch {
            shape,
            key,
            earlier,
            plans,
            ..
        } = scratch;
        if let Some(prepared) = earlier.find(text, shape) {
            return Ok(prepared);
        }
        if shape.scan(text).is_err() || shape.opaque {
            // Postgres will say what is wrong with it, if it is; a text of this kind is not worth keeping.
            return Ok(Arc::new(self.make(text, shape, schema, true)));
        }
        let prepared = plans.get_or_insert_with(&schema.plans, &shape.key, || {
            Arc::new(self.make(text, shape, schema, false))
        });
        if !matches!(*prepared, Prepared::ByText) {
            earlier.keep(text, shape, &prepared);
            return Ok(prepared);
        }
        key.clear();
        // No shape begins with NUL, since no text holds one.
        key.push(0);
        key.extend_from_slice(text);
        Ok(plans.get_or_insert_with(&schema.plans, key, || {
            Arc::new(self.make(text, shape, schema, true))
        }))
    }

    /// Works out what to do about a text. `by_text`: the result is kept for this very text only.
    fn make(&self, text: &[u8], shape: &Shape, schema: &Schema, by_text: bool) -> Prepared {
        let pieces: Vec<_> = shape.pieces(text).collect();
        match pieces.len() {
            0 => return Prepared::Empty,
            1 => {}
            // Pieces are ranges of bytes, which move with the literals' lengths.
            _ if by_text => return Prepared::Several(pieces),
            _ => return Prepared::ByText,
        }
        if let Some(control) = control::parse(text, shape) {
            return match control {
                Control::Declare { .. } | Control::Lock => {
                    self.make_query(text, shape, schema, by_text)
                }
                control if control.depends_on_literals() && !by_text => Prepared::ByText,
                Control::Show(name) if !name.starts_with("presplit.") => {
                    Prepared::Pass(Passed::Any)
                }
                Control::Fetch { cursor, .. } => Prepared::Pass(Passed::Cursor(cursor)),
                Control::Notify => Prepared::Pass(Passed::Notify),
                control => Prepared::Control(control),
            };
        }
        if !by_text && control::hangs_on_literals(text, shape) {
            return Prepared::ByText;
        }
        self.make_query(text, shape, schema, by_text)
    }

    fn make_query(&self, text: &[u8], shape: &Shape, schema: &Schema, by_text: bool) -> Prepared {
        let Some(tables) = &schema.tables else {
            return Prepared::NoTables;
        };
        let planned = match std::str::from_utf8(text) {
            Ok(text) => parse::plan(text, shape, &PARSE),
            // Only a client whose encoding is not UTF-8 sends such a text.
            Err(_) => Err(Unreadable {
                why: "its text is not UTF-8".to_owned(),
                words: tokens(text, &shape.holes)
                    .map(|t| ident_value(text, t.span).into_owned())
                    .collect(),
            }),
        };
        let bound = match planned {
            Ok(plan) => route::bind(&plan, tables),
            Err(unreadable) => route::bind_unreadable(&unreadable, tables),
        };
        if bound.per_text && !by_text {
            return Prepared::ByText;
        }
        let has = |word| tokens(text, &shape.holes).any(|t| t.is_word(text, word));
        let hold = hold_of_declare(text, shape);
        Prepared::Query(Routed {
            bound,
            sets_config: has("set_config"),
            notifies: has("pg_notify"),
            shares: tokens(text, &shape.holes)
                .next()
                .is_some_and(|first| shares_transaction(text, &first)),
            holds: hold == Some(true),
            declares: hold == Some(false),
            slow: Slow::default(),
        })
    }

    /// The statement of the extended protocol with this text and these parameter types, read by these settings, interned.
    pub(super) fn intern(
        &self,
        text: &[u8],
        types: impl ExactSizeIterator<Item = u32>,
        reading: Arc<Reading>,
    ) -> Result<Arc<Statement>, Fault> {
        let mut scratch = self
            .worker
            .scratch
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let scratch = &mut *scratch;
        let schema = self.schema_at_hand(scratch);
        scratch.follow(&schema);
        let types: Box<[u32]> = types.collect();
        let mut key = std::mem::take(&mut scratch.key);
        key.clear();
        key.extend((types.len() as u16).to_be_bytes());
        key.extend(types.iter().flat_map(|t| t.to_be_bytes()));
        key.extend((reading.key.len() as u32).to_be_bytes());
        key.extend_from_slice(&reading.key);
        key.extend_from_slice(text);
        let known = scratch.statements.get(&key);
        let statement = match known {
            Some(statement) => Ok(statement),
            None => self.intern_new(scratch, &schema, &key, text, types, reading),
        };
        scratch.key = key;
        statement
    }

    fn intern_new(
        &self,
        scratch: &mut Scratch,
        schema: &Arc<Schema>,
        key: &[u8],
        text: &[u8],
        types: Box<[u32]>,
        reading: Arc<Reading>,
    ) -> Result<Arc<Statement>, Fault> {
        let mut own_key = std::mem::take(&mut scratch.key);
        let prepared = self.look_up(scratch, schema, text);
        std::mem::swap(&mut own_key, &mut scratch.key);
        let prepared = prepared?;
        let Scratch {
            shape, statements, ..
        } = scratch;
        Ok(statements.get_or_insert_with(&schema.statements, key, || {
            Arc::new(Statement {
                id: self.context.next_statement_id(),
                text: text.into(),
                param_count: param_count(text, &shape.holes, types.len()),
                types,
                holes: shape.holes.as_slice().into(),
                hint: hint::find(text, shape),
                prepared,
                reading,
                schema: Arc::downgrade(schema),
                accepted: AtomicBool::new(false),
                described: ArcSwapOption::empty(),
            })
        }))
    }

    /// The hint in force for a text: its own, else that of the block, else the session's.
    fn hint_of(&self, text: &[u8], shape: &Shape) -> Result<Option<Hint>, Fault> {
        if !shape.hinted {
            return Ok(self.standing_hint().cloned());
        }
        let own = hint::find(text, shape).map_err(bad_hint)?;
        Ok(own.or_else(|| self.standing_hint().cloned()))
    }

    /// `SET [LOCAL] presplit.key` or `presplit.shard`.
    pub(super) fn standing_hint(&self) -> Option<&Hint> {
        match self.block.as_ref().and_then(|b| b.local_hint.as_ref()) {
            Some(local) => local.as_ref(),
            None => self.hint.as_ref(),
        }
    }

    /// Where an execution of a bound statement with these values goes.
    pub(super) fn decide(
        &self,
        bound: &Bound,
        values: &Values<'_>,
        hint: Option<&Hint>,
    ) -> Result<Way, Refusal> {
        let mut route = route::decide(bound, values, &self.map, hint)?;
        if let Target::Make(make) = &route.target
            && make.maker == route::Maker::Shard
        {
            route = route::made_by_shard(bound, values, &self.map, self.shard_for_new())?;
        }
        let Route { target, names } = route.sendable()?;
        Ok(self.way(target, names))
    }

    pub(super) fn way(&self, target: Target, names: Names) -> Way {
        match target {
            Target::Shard(shard) => Way::One {
                host: self.map.owner(shard),
                shard: Some(shard),
                path: Need::path(names, Some(shard)),
            },
            Target::Shards(shards) => Way::Several(shards.to_vec()),
            Target::Data(only) => Way::Data(only),
            Target::Each(shards) => Way::Write(Box::new(Write {
                what: Parts::Each(shards.to_vec()),
                names,
            })),
            Target::EveryHost => Way::Write(Box::new(Write {
                what: Parts::EveryHost,
                names,
            })),
            Target::Make(make) => Way::Make(make),
            Target::Rows(split) => Way::Write(Box::new(Write {
                what: Parts::Rows(*split),
                names,
            })),
            Target::Host(host) => Way::One {
                host,
                shard: None,
                path: None,
            },
            Target::Any => Way::One {
                host: self.any_host(),
                shard: None,
                path: None,
            },
            Target::Template => self.template_way(),
            Target::Everywhere => Way::Everywhere,
        }
    }

    /// To where the cursor is, or to any host. A cursor that is not known goes anywhere, so that Postgres says so.
    pub(super) fn pass_way(&self, passed: &Passed) -> Way {
        let block = self.block.as_ref();
        let known = match passed {
            Passed::Any => None,
            Passed::Cursor(name) => block
                .and_then(|block| block.cursors.get(name).copied())
                .or_else(|| self.held_cursor(name)),
            Passed::Notify => Some(self.map.session_host()),
        };
        Way::One {
            host: known.unwrap_or_else(|| self.any_host()),
            shard: None,
            path: None,
        }
    }

    /// Catalog queries: the template shard, or the lowest shard of the transaction's host if the template's has no part in it.
    pub(super) fn template_way(&self) -> Way {
        let home = self.map.owner(self.map.template());
        let host = match self.links.iter().any(|link| link.host == home) {
            true => home,
            false => self.any_host(),
        };
        let lowest = self.map.shards_of(host).next();
        let shard = lowest.unwrap_or_else(|| self.map.template());
        Way::One {
            host: self.map.owner(shard),
            shard: None,
            path: Some(shard),
        }
    }

    /// Any shard that a statement can be parsed on, to tell its parameters and columns: they are the same on all.
    /// `None`: no server has to do with it.
    pub(super) fn way_to_describe(&self, statement: &Statement) -> Result<Option<Way>, Fault> {
        let bound = match &*statement.prepared {
            Prepared::Query(bound) => bound,
            Prepared::Pass(passed) => return Ok(Some(self.pass_way(passed))),
            _ => return Ok(None),
        };
        let hinted = self.standing_hint().is_some() || matches!(statement.hint, Ok(Some(_)));
        let host = self.any_host();
        let shard = self
            .map
            .shards_of(host)
            .next()
            .unwrap_or_else(|| self.map.template());
        let Route { target, names } = route::anywhere(bound, &self.map, shard, hinted)?;
        let way = self.way(target, names);
        Ok(Some(match way {
            Way::Several(shards) => Way::One {
                host: self.map.owner(shard),
                shard: shards.first().copied(),
                path: None,
            },
            way => way,
        }))
    }

    /// The error while no host's catalog has been read yet.
    pub(super) fn no_tables() -> Fault {
        Fault::statement(
            ErrorFields::error(SqlState::CANNOT_CONNECT_NOW, "the tables are not known yet: no host's catalog could be read")
                .hint("The proxy tries again every second; SHOW HOSTS in the database \"presplit\" says which host is down and why."),
        )
    }
}

impl Routed {
    /// Whether its session keeps something of it beyond its transaction. (Of what the transaction locks it must have none locked.)
    pub(super) fn takes(&self) -> bool {
        self.holds || self.session_state == SessionState::Takes
    }
}

impl Prepared {
    /// Whether it declares a cursor that ends with its transaction.
    pub(super) fn declares(&self) -> bool {
        matches!(self, Prepared::Query(routed) if routed.declares)
    }
}

/// Of a DECLARE, whether it is WITH HOLD.
fn hold_of_declare(text: &[u8], shape: &Shape) -> Option<bool> {
    match control::parse(text, shape)? {
        Control::Declare { hold, .. } => Some(hold),
        _ => None,
    }
}

/// A hint that can't be read is never ignored: it might have meant another shard.
pub(super) fn bad_hint(fault: hint::HintFault) -> Fault {
    Fault::statement(
        ErrorFields::error(SqlState::SYNTAX_ERROR, fault.to_string())
            .hint("Write /* presplit: key=42 */, /* presplit: shard=7 */ or /* presplit: all */."),
    )
}

/// Whether a statement that begins with this word may stand in a transaction that something else began, and can't end it.
fn shares_transaction(text: &[u8], first: &Token) -> bool {
    const WORDS: [&str; 11] = [
        "select", "insert", "update", "delete", "with", "values", "table", "merge", "copy",
        "declare", "lock",
    ];
    first.is_punct(text, b'(') || WORDS.iter().any(|word| first.is_word(text, word))
}

/// Statements in which Postgres looks for parameters when it parses them.
const ANALYZED: [&str; 8] = [
    "select", "insert", "update", "delete", "merge", "values", "with", "table",
];

/// How many parameters Postgres takes a text to have for which so many types are stated, as far as that is certain.
fn param_count(text: &[u8], holes: &[Hole], stated: usize) -> Option<usize> {
    let number = |t: Token| {
        std::str::from_utf8(text.get(t.span.start + 1..t.span.end)?)
            .ok()?
            .parse()
            .ok()
    };
    let named = tokens(text, holes)
        .filter(|t| t.kind == TokenKind::Param)
        .filter_map(number)
        .max();
    let first = tokens(text, holes).next();
    match (named, first) {
        (None, _) => Some(stated),
        (Some(named), Some(first)) if ANALYZED.iter().any(|word| first.is_word(text, word)) => {
            Some(stated.max(named))
        }
        _ => None,
    }
}
