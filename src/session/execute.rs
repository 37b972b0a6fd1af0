//! Prepared statements by SQL: `EXECUTE`, and `EXPLAIN` of it. They share their names with those of the protocol, as in Postgres,
//! and the server-side statement of (text, types, shard), too: on one host the client's own `EXECUTE` runs it, so that
//! Postgres gives the arguments their types. On several shards the arguments are bound as text.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Session;
use super::block::Acted;
use super::context::{Described, Prepared, Statement};
use super::ends::{SentPiece, SentText, char_count};
use super::errors::Fault;
use super::extended::{gives_rows, no_parameters};
use super::links::Need;
use super::portals::{Portal, Several};
use super::prepare::{Way, bad_hint};
use super::prepareds::{BindNames, server_name};
use super::replies::{Description, Pass, Reply};
use super::set_config::{SetConfig, read_set_config};
use super::writes::Writing;
use crate::pool::NO_SHARD;
use crate::route::{Format, Param, Params, Values};
use crate::shardmap::ShardId;
use crate::sql::control::{self, Argument, Control};
use crate::sql::hint;
use crate::sql::shape::Shape;
use crate::wire::backend;
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::frontend::{self, Bind};

/// No types are stated.
pub(super) const NO_TYPES: [u32; 0] = [];

/// What a statement that the session acts on came to.
pub(super) enum Ran {
    Acted(Acted),
    /// A write to several shards: its tag is told once it is committed. `None`: it failed and the client has its error.
    Written(Option<String>),
}

/// An EXECUTE of which it is known where it goes.
struct Call {
    statement: Arc<Statement>,
    way: Way,
    set: Vec<SetConfig>,
    /// The Bind message from behind its names; `None`: not all arguments are plain.
    bind: Option<Box<[u8]>>,
    /// The bytes of the statement's name in the text.
    name: Range<usize>,
}

/// The arguments of an EXECUTE as parameters. Those of which the value is not certain are not there.
pub(super) struct Args<'a> {
    pub(super) args: &'a [Argument<'a>],
    pub(super) types: &'a [u32],
}

impl Params for Args<'_> {
    fn get(&self, n: u16) -> Option<Param<'_>> {
        let n = usize::from(n).checked_sub(1)?;
        let type_oid = *self.types.get(n)?;
        Some(Param {
            format: Format::Text,
            type_oid,
            value: self.args.get(n)?.text_for(type_oid)?,
        })
    }
}

impl Args<'_> {
    /// The Bind message from behind its names, for results in these formats.
    fn bind(&self, results: &[i16]) -> Option<Box<[u8]>> {
        let values = self.args.iter().zip(self.types);
        let values: Option<Vec<_>> = values
            .map(|(arg, of)| Some((0, arg.text_for(*of)?)))
            .collect();
        let mut message = Vec::new();
        frontend::bind(&mut message, b"", b"", &values?, results.iter().copied());
        Some(message.split_off(crate::wire::frame::HEADER + 2).into())
    }
}

impl Session {
    /// Carries out a statement that the session acts on. `before`: characters of the client's message before the text.
    pub(super) async fn act_on(
        &mut self,
        control: &Control,
        text: &[u8],
        before: u32,
    ) -> Result<Ran, Fault> {
        match control {
            Control::Prepare { .. } => {
                self.check_failed()?;
                Box::pin(self.prepare_sql(control, text, before))
                    .await
                    .map(Ran::Acted)
            }
            Control::Execute { name, explain } => {
                self.check_failed()?;
                Box::pin(self.execute_sql(name, *explain, text, before)).await
            }
            // Made of ASCII words and names; a name in another encoding than UTF-8 would be changed, and so not be found,
            // rather than be taken for another's.
            _ => {
                let text = String::from_utf8_lossy(text);
                self.act(control, &text).await.map(Ran::Acted)
            }
        }
    }

    /// Whether it may change data.
    pub(super) fn may_write(&self, control: &Control) -> bool {
        match control {
            Control::Execute { name, .. } => {
                let known = self.statements.get(name.as_bytes());
                known.is_none_or(|statement| statement.prepared.writes())
            }
            _ => false,
        }
    }

    /// Ends messages of our own on a link, all of whose replies are waited for. `true`: the server has refused something,
    /// and the client has the error.
    pub(super) async fn finish_aside(&mut self, i: usize) -> Result<bool, Fault> {
        // In the middle of an implicit transaction a Sync would end it.
        let implicit = self.batch.now != b'Q' && self.block.is_none();
        let outbox = &mut self.links[i].outbox;
        if implicit {
            frontend::flush(outbox);
        } else {
            frontend::sync(outbox);
            self.replies.push(Reply::Sync(Pass::Keep));
        }
        // An answer of ours goes out with what follows.
        self.client.hold_for_caller();
        let relayed = self.relay().await;
        if let Some(link) = self.links.get_mut(i) {
            link.sent_text = None;
            link.unsynced = implicit;
        }
        let error = relayed?;
        if error {
            self.failed_by_server();
        }
        Ok(error)
    }

    /// The client has been passed a server's error, of what is no message of its own to that server.
    fn failed_by_server(&mut self) {
        self.batch.refused();
        if let Some(block) = &mut self.block {
            block.failed = true;
        }
    }

    /// What a server says of a statement. `None`: it has refused it, and the client has the error.
    pub(super) async fn description(
        &mut self,
        statement: &Arc<Statement>,
    ) -> Result<Option<Arc<Described>>, Fault> {
        if let Some(known) = statement.described.load_full() {
            return Ok(Some(known));
        }
        self.settle_replies().await?;
        let (i, n, key) = self.parse_somewhere(statement).await?;
        self.push_description(i, n, Description::of(Pass::Keep, statement, key));
        if self.finish_aside(i).await? {
            return Ok(None);
        }
        if self.block.is_none() && self.links.iter().all(|link| !link.unsynced) {
            self.release_links().await;
        }
        Ok(statement.described.load_full())
    }

    /// Finds out where an EXECUTE goes. `None`: a server has refused the statement, and the client has the error.
    async fn call(
        &mut self,
        name: &str,
        text: &[u8],
        results: &[i16],
    ) -> Result<Option<Call>, Fault> {
        let statement = self.statement(name.as_bytes())?;
        self.check_parse(&statement)?;
        let Prepared::Query(bound) = &*statement.prepared else {
            return Err(Fault::unsupported(
                format!("EXECUTE of \"{name}\" is not supported: it is no query"),
                "Send the statement itself.",
            ));
        };
        let mut shape = Shape::default();
        // It was scanned before.
        let _ = shape.scan(text);
        let Some(call) = control::call(text, &shape) else {
            return Err(Fault::violation("no EXECUTE"));
        };
        if let Some(function) = &call.calls {
            return Err(Fault::unsupported(
                format!(
                    "EXECUTE with {function} in an argument is not supported: it may mean something else on another host"
                ),
                "Get the value by a SELECT first, and give it as a literal.",
            ));
        }
        let Some(described) = self.description(&statement).await? else {
            return Ok(None);
        };
        self.statements.check_told(name.as_bytes(), &statement)?;
        let types: Vec<u32> = described.parameters().collect();
        // As Postgres: where there are no parameters, arguments are not looked at.
        if types.len() != call.args.len() && !types.is_empty() {
            return Err(wrong_number(name, types.len(), call.args.len()));
        }
        let args = Args {
            args: &call.args,
            types: &types,
        };
        let values = Values {
            text: &statement.text,
            holes: &statement.holes,
            params: Some(&args),
        };
        let own = hint::find(text, &shape).map_err(bad_hint)?;
        let of_statement = statement.hint.clone().map_err(bad_hint)?;
        let hint = own.as_ref().or(of_statement.as_ref());
        let hint = hint.or(self.standing_hint());
        let way = self.decide(bound, &values, hint).map_err(Fault::from);
        let way = way.map_err(|fault| of_argument(fault, &args))?;
        let way = match way {
            Way::Make(make) => {
                Box::pin(self.way_of_made(&make, &statement.prepared, &values)).await?
            }
            way => way,
        };
        let set = match bound.sets_config {
            true => read_set_config(&statement.text, &statement.holes, Some(&args))?,
            false => Vec::new(),
        };
        Ok(Some(Call {
            way,
            set,
            bind: args.bind(results),
            name: call.name,
            statement: statement.clone(),
        }))
    }

    /// `EXECUTE` in the simple protocol.
    async fn execute_sql(
        &mut self,
        name: &str,
        explain: bool,
        text: &[u8],
        before: u32,
    ) -> Result<Ran, Fault> {
        let Some(call) = self.call(name, text, &[]).await? else {
            return Ok(Ran::Acted(Acted::Passed));
        };
        match call.way {
            Way::One { .. } => {
                self.execute_on_one(call, text, before).await?;
                Ok(Ran::Acted(Acted::Passed))
            }
            _ if explain => Err(no_explain()),
            Way::Several(shards) => {
                let several = Several {
                    statement: call.statement,
                    bind: call.bind.ok_or_else(not_plain)?,
                    shards,
                };
                self.context.stats.scattered(several.shards.len());
                let hosts = self.enlist_hosts(&several.shards).await?;
                if Box::pin(self.gather_portal(&several, &hosts, true)).await? {
                    self.failed_by_server();
                }
                Ok(Ran::Acted(Acted::Passed))
            }
            Way::Write(write) => {
                let bind = call.bind.ok_or_else(not_plain)?;
                let writing = Writing {
                    statement: call.statement,
                    bind: [b"\0\0", &bind[..]].concat().into(),
                    write: *write,
                };
                Box::pin(self.write_parts(&writing)).await.map(Ran::Written)
            }
            Way::Everywhere | Way::Data(_) | Way::Make(_) => Err(Self::no_tables()),
        }
    }

    /// Sends the client's EXECUTE to its host.
    async fn execute_on_one(&mut self, call: Call, text: &[u8], before: u32) -> Result<(), Fault> {
        let Way::One { host, shard, path } = call.way else {
            return Ok(());
        };
        let statement = &call.statement;
        let need = need(statement, host, shard, path);
        let key = need.statement;
        let i = self.link(need).await?;
        self.settle_replies().await?;
        let known = key.and_then(|key| self.links[i].conn.as_mut()?.statements.get(key));
        let n = match known {
            Some(n) => n,
            // If it were refused in front of a Query, the Query would be ignored.
            None => {
                let n = self.server_statement(i, statement, shard)?;
                if self.finish_aside(i).await? {
                    return Ok(());
                }
                n
            }
        };
        self.context.stats.routed();
        let (sent, from) = renamed(text, &call.name, n);
        let link = &mut self.links[i];
        link.sent_text = Some(sent_call(text, before, &call.name, from, statement));
        frontend::query(&mut link.outbox, &sent);
        // ReadyForQuery is the caller's.
        self.replies.push(Reply::Part);
        self.client.hold_for_caller();
        let relayed = self.relay().await;
        if let Some(link) = self.links.get_mut(i) {
            link.sent_text = None;
        }
        match relayed? {
            true => self.failed_by_server(),
            false => self.note_set_config(call.set).await?,
        }
        Ok(())
    }

    /// Bind of an EXECUTE.
    pub(super) async fn bind_call(
        &mut self,
        own: &Arc<Statement>,
        names: BindNames,
        len: usize,
    ) -> Result<(), Fault> {
        let Prepared::Control(Control::Execute { name, explain }) = &*own.prepared else {
            return Err(Fault::violation("no EXECUTE"));
        };
        let bind = Bind::decode(self.body(len))?;
        no_parameters(&bind)?;
        let results: Vec<i16> = bind.result_formats().collect();
        if self.statements.get(name.as_bytes()).is_none() {
            // Said when it is run.
            return self.put_own_portal(names, Portal::Own(own.clone()));
        }
        let call = match self.call(name, &own.text, &results).await {
            // Said when it is run, too.
            Err(fault) if is_wrong_number(&fault) || is_unusable_key(&fault) => {
                return self.put_own_portal(names, Portal::Own(own.clone()));
            }
            other => other?.ok_or(Fault::Skipped)?,
        };
        let statement = call.statement;
        match call.way {
            Way::One { host, shard, path } => {
                self.check_portal_is_new(&self.client.inbox[names.portal.clone()])?;
                self.limit_portals()?;
                let i = self.link(need(&statement, host, shard, path)).await?;
                self.context.stats.routed();
                let n = self.server_statement(i, &statement, shard)?;
                let (sent, from) = renamed(&own.text, &call.name, n);
                let portal: Box<[u8]> = self.client.inbox[names.portal].into();
                let link = &mut self.links[i];
                frontend::parse(&mut link.outbox, b"", &sent, NO_TYPES.iter().copied());
                link.unsynced = true;
                self.replies.push(Reply::One(Pass::Keep));
                if from > char_count(&own.text[..call.name.end]) {
                    // What the server says of it is about another place.
                    self.links[i].sent_text =
                        Some(sent_call(&own.text, 0, &call.name, from, &statement));
                    let settled = self.settle_replies().await;
                    self.links[i].sent_text = None;
                    settled?;
                }
                let link = &mut self.links[i];
                let rest = &self.client.inbox[names.rest];
                frontend::bind_renamed(&mut link.outbox, &portal, b"", rest);
                link.unsynced = true;
                let bound = Portal::On {
                    host,
                    rows: gives_rows(&statement),
                    declares: false,
                    // What can be prepared by SQL makes none.
                    changes_temporary: false,
                    set: call.set,
                };
                self.put_portal(&portal, bound);
                self.replies.push(Reply::One(Pass::On));
                Ok(())
            }
            _ if *explain => Err(no_explain()),
            Way::Several(shards) => {
                let several = Several {
                    statement,
                    bind: call.bind.ok_or_else(not_plain)?,
                    shards,
                };
                self.put_own_portal(names, Portal::Several(Arc::new(several)))
            }
            Way::Write(write) => {
                let bind = call.bind.ok_or_else(not_plain)?;
                let writing = Writing {
                    statement,
                    bind: [b"\0\0", &bind[..]].concat().into(),
                    write: *write,
                };
                Box::pin(self.bind_write(&writing)).await?;
                self.put_own_portal(names, Portal::Write(Arc::new(writing)))
            }
            Way::Everywhere | Way::Data(_) | Way::Make(_) => Err(Self::no_tables()),
        }
    }

    /// The columns of an EXECUTE: those of what it runs.
    pub(super) async fn describe_call(&mut self, own: &Arc<Statement>) -> Result<Vec<u8>, Fault> {
        let mut made = Vec::new();
        let Prepared::Control(Control::Execute { name, explain }) = &*own.prepared else {
            return Ok(made);
        };
        if *explain {
            // json or xml if that is asked for, which is read as text all the same.
            backend::row_description(&mut made, &[(super::explain::COLUMN, 25)]);
            return Ok(made);
        }
        if self.statements.get(name.as_bytes()).is_none() {
            backend::no_data(&mut made);
            return Ok(made);
        }
        let statement = self.statement(name.as_bytes())?;
        match self.description(&statement).await? {
            Some(described) => {
                if described.columns().first() == Some(&b'T') {
                    self.check_failed()?;
                }
                made.extend_from_slice(described.columns());
            }
            None => return Err(Fault::Skipped),
        }
        Ok(made)
    }
}

fn need(
    statement: &Statement,
    host: crate::shardmap::HostId,
    shard: Option<ShardId>,
    path: Option<ShardId>,
) -> Need {
    Need {
        statement: Some((statement.id, shard.map_or(NO_SHARD, |s| s.0))),
        ..Need::of(&statement.prepared, host, path)
    }
}

/// The text with the name of server-side statement `n`, and the characters up to the end of that. A shorter name is filled up
/// with blanks, so that positions in errors stay right.
fn renamed(text: &[u8], name: &Range<usize>, n: u32) -> (Vec<u8>, u32) {
    let mut sent = text[..name.start].to_vec();
    sent.extend_from_slice(server_name(n, &mut [0; 12]));
    let wanted = char_count(&text[..name.end]);
    let missing = wanted.saturating_sub(char_count(&sent));
    sent.extend(std::iter::repeat_n(b' ', missing as usize));
    let from = char_count(&sent);
    sent.extend_from_slice(&text[name.end..]);
    (sent, from)
}

/// An EXECUTE as it was sent, where all behind the statement's name begins `from` so many characters on.
fn sent_call(
    text: &[u8],
    before: u32,
    name: &Range<usize>,
    from: u32,
    statement: &Statement,
) -> Box<SentText> {
    let piece = |from, text| SentPiece {
        from,
        len: u32::MAX / 2,
        text,
        prepared: statement.prepared.clone(),
        shard: None,
    };
    let pieces = [piece(0, 0..text.len()), piece(from, name.end..text.len())];
    Box::new(SentText {
        text: text.into(),
        before,
        pieces: SmallVec::from_iter(pieces),
    })
}

/// What Postgres says (src/backend/commands/prepare.c, `EvaluateParams`).
fn wrong_number(name: &str, expected: usize, got: usize) -> Fault {
    let message = format!("wrong number of parameters for prepared statement \"{name}\"");
    Fault::statement(
        ErrorFields::error(SqlState::SYNTAX_ERROR, message)
            .detail(format!("Expected {expected} parameters but got {got}.")),
    )
}

fn is_wrong_number(fault: &Fault) -> bool {
    matches!(fault, Fault::Statement(fields) if fields.code == SqlState::SYNTAX_ERROR)
}

fn is_unusable_key(fault: &Fault) -> bool {
    matches!(fault, Fault::Statement(fields) if fields.code == SqlState::UNUSABLE_KEY)
}

/// A key that can't be used may be an argument that can't be read.
fn of_argument(fault: Fault, args: &Args<'_>) -> Fault {
    let is_key = is_unusable_key(&fault);
    let mut read = args.args.iter().zip(args.types);
    let Some(n) = read
        .position(|(arg, of)| arg.text_for(*of).is_none())
        .filter(|_| is_key)
    else {
        return fault;
    };
    let message = format!(
        "the shard key of EXECUTE can't be told: argument {} is no plain value of the parameter's type",
        n + 1
    );
    Fault::statement(
        ErrorFields::error(SqlState::UNUSABLE_KEY, message)
            .hint("Give the key as a literal: EXECUTE name(42)."),
    )
}

fn not_plain() -> Fault {
    Fault::statement(
        ErrorFields::error(
            SqlState::UNUSABLE_KEY,
            "an argument of EXECUTE for several shards is no plain value of the parameter's type",
        )
        .hint("Give the arguments as literals of the parameters' types, or the key of one shard."),
    )
}

fn no_explain() -> Fault {
    Fault::statement(
        ErrorFields::error(
            SqlState::NOT_MERGEABLE,
            "EXPLAIN EXECUTE of a statement for several shards",
        )
        .hint("Give it the key of one shard; EXPLAIN (ROUTE) of the statement itself says where it goes."),
    )
}
