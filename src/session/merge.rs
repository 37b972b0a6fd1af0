//! A read over several shards whose answer is more than their rows one after the other: sorted rows are merged, parts
//! (of groups, of DISTINCT) are put together by a last statement. Hosts work in parallel; the shards of a host are
//! asked in UNION ALLs of a few, pipelined on one server connection.

mod last;
mod rows;

use last::refused_text;

use super::Session;
use super::ends::Link;
use super::errors::Fault;
use super::gather::Shards;
use crate::route::{Bound, ByteOrder, Piece, Recipe, Sorted, TextKey, Values, write_part};
use crate::shardmap::ShardId;
use crate::sql::rewrite;
use crate::wire::backend::{self, ErrorView};
use crate::wire::body::{Body, DecodeFault};
use crate::wire::frame;
use crate::wire::frontend::{self, Bind, Kind};

/// Shards in one UNION ALL. More of them cost the planner more than they save (measured: bench/README.md).
const ARMS: usize = 16;
/// Up to so many rows an answer is sorted here; a longer one is streamed from hosts that sort all of theirs.
const HELD_ROWS: u64 = 10_000;

/// What is asked, as the client wrote it.
pub(super) struct Asked<'a> {
    pub(super) bound: &'a Bound,
    pub(super) values: Values<'a>,
    /// Types that Parse stated.
    pub(super) types: &'a [u32],
    /// The Bind message; `None` for the simple protocol.
    pub(super) bind: Option<Bind<'a>>,
}

/// What the statement is, as a server tells it.
struct Described {
    params: Vec<u32>,
    /// The RowDescription message.
    message: Vec<u8>,
    columns: Vec<u32>,
}

/// What the shards of a host are asked.
struct Arms<'a> {
    /// For each shard.
    part: &'a [Piece],
    /// Behind the UNION ALL of several.
    tail: &'a str,
    /// The most shards in one statement.
    most: usize,
    /// Types of the parameters.
    params: &'a [u32],
    /// Formats of the columns.
    results: &'a [i16],
}

/// A message that says that a server failed the statement: the client has it.
struct Failed;

/// Of each step: its result, or the client has the server's error.
type Step<T> = Result<Result<T, Failed>, Fault>;

impl Asked<'_> {
    /// The format code in which the client wants column `n`.
    fn result_format(&self, n: usize) -> i16 {
        let Some(bind) = &self.bind else { return 0 };
        let mut formats = bind.result_formats();
        match formats.len() {
            0 => 0,
            1 => formats.next().unwrap_or(0),
            _ => formats.nth(n).unwrap_or(0),
        }
    }

    /// Bind of the unnamed statement with the client's parameters, more of our own in binary, and these result formats.
    fn write_bind(&self, more: &[Vec<u8>], results: &[i16], out: &mut Vec<u8>) {
        let mut rest = Vec::new();
        let (formats, values): (Vec<i16>, Vec<Option<&[u8]>>) = match &self.bind {
            Some(bind) => bind.params().unzip(),
            None => (Vec::new(), Vec::new()),
        };
        let count = (formats.len() + more.len()) as u16;
        rest.extend(count.to_be_bytes());
        rest.extend(formats.iter().flat_map(|f| f.to_be_bytes()));
        rest.extend(more.iter().flat_map(|_| 1i16.to_be_bytes()));
        rest.extend(count.to_be_bytes());
        for value in values.into_iter().chain(more.iter().map(|v| Some(&v[..]))) {
            match value {
                None => rest.extend((-1i32).to_be_bytes()),
                Some(bytes) => {
                    rest.extend((bytes.len() as u32).to_be_bytes());
                    rest.extend_from_slice(bytes);
                }
            }
        }
        rest.extend((results.len() as u16).to_be_bytes());
        rest.extend(results.iter().flat_map(|f| f.to_be_bytes()));
        frontend::bind_renamed(out, b"", b"", &rest);
    }
}

impl Session {
    /// Asks several shards by a recipe. `true`: it failed and the client has the error. With `describe` the client gets
    /// the RowDescription too. CommandComplete is written, ReadyForQuery is the caller's.
    pub(super) async fn merge(
        &mut self,
        asked: &Asked<'_>,
        recipe: Recipe,
        hosts: &[Shards],
        describe: bool,
    ) -> Result<bool, Fault> {
        match Box::pin(self.merge_steps(asked, recipe, hosts, describe)).await {
            Ok(Ok(rows)) => {
                backend::command_complete(&mut self.client.outbox, &format!("SELECT {rows}"));
                Ok(false)
            }
            Ok(Err(Failed)) => {
                self.finish_kept_unless(false).await;
                self.fail_gather();
                if !describe {
                    self.batch.refused();
                }
                Ok(true)
            }
            Err(fault) => {
                self.finish_kept_unless(false).await;
                self.fail_gather();
                match fault {
                    Fault::Server(fields) => Err(Fault::Statement(fields)),
                    fault => Err(fault),
                }
            }
        }
    }

    /// After a failure: connections that have answered all they were asked stay, the others are closed.
    fn fail_gather(&mut self) {
        let whole = |link: &Link| !link.unsynced && link.unread().is_empty();
        self.links
            .iter_mut()
            .filter(|link| !whole(link))
            .for_each(Link::discard);
        self.drop_failed();
    }

    async fn merge_steps(
        &mut self,
        asked: &Asked<'_>,
        recipe: Recipe,
        hosts: &[Shards],
        describe: bool,
    ) -> Step<u64> {
        self.replies.clear();
        let (Some((_, shards)), Some(link)) =
            (hosts.first(), self.asked_links(hosts).first().copied())
        else {
            return Ok(Ok(0));
        };
        let first = shards[0];
        let schema = self.map.schema(first).to_owned();
        let mut text = Vec::new();
        rewrite::splice(
            asked.values.text,
            asked.values.holes,
            &asked.bound.edits,
            &schema,
            &mut text,
        );
        let Ok(whole) = self
            .describe_text(link, &text, asked.types, Some((asked, &schema)))
            .await?
        else {
            return Ok(Err(Failed));
        };
        let part = match &recipe {
            Recipe::Sorted(sorted) => &sorted.part,
            Recipe::Final(last) => &last.part,
            Recipe::Concat => {
                return Err(Fault::unsupported(
                    "nothing to merge",
                    "Report this as a fault of the proxy.",
                ));
            }
        };
        text.clear();
        write_part(part, &asked.values, &asked.bound.edits, &schema, &mut text);
        let Ok(parts) = self.describe_text(link, &text, &whole.params, None).await? else {
            return Ok(Err(Failed));
        };
        if describe {
            self.client.outbox.extend_from_slice(&whole.message);
        }
        match recipe {
            Recipe::Sorted(sorted) => match self.orders(&sorted, &whole, &parts) {
                Some(orders) => {
                    self.merge_sorted(asked, &sorted, &orders, &whole, hosts)
                        .await
                }
                None => {
                    let last = sorted.sorted_last(whole.columns.len());
                    self.put_together(asked, &last, &whole, &parts, hosts).await
                }
            },
            Recipe::Final(last) => self.put_together(asked, &last, &whole, &parts, hosts).await,
            Recipe::Concat => Ok(Ok(0)),
        }
    }

    /// Has the first link's server read a text: the types of its parameters and columns.
    async fn describe_text(
        &mut self,
        i: usize,
        text: &[u8],
        types: &[u32],
        original: Option<(&Asked<'_>, &str)>,
    ) -> Step<Described> {
        let link = &mut self.links[i];
        frontend::parse(&mut link.outbox, b"", text, types.iter().copied());
        frontend::describe(&mut link.outbox, Kind::Statement, b"");
        frontend::sync(&mut link.outbox);
        link.unsynced = true;
        let mut described = Described {
            params: Vec::new(),
            message: Vec::new(),
            columns: Vec::new(),
        };
        let mut failed = false;
        let mut refused = None;
        loop {
            let (tag, len) = self.next_message(i).await?;
            self.have(i, len).await?;
            let message = self.links[i].unread()[..len].to_vec();
            let body = &message[frame::HEADER..];
            match tag {
                b't' => described.params = oids(body)?,
                b'T' => {
                    described.columns = column_types(body)?;
                    described.message = message.clone();
                }
                // What is wrong with a text of our own is no fault of the client's.
                b'E' if original.is_none() => refused = Some(refused_text(body)),
                b'E' => {
                    self.pass_error(body, original);
                    failed = true;
                }
                _ => {}
            }
            self.skip_message(i, len).await?;
            if tag == b'Z' {
                self.links[i].unsynced = false;
                if let Some(refused) = refused {
                    return Err(refused);
                }
                return Ok(if failed { Err(Failed) } else { Ok(described) });
            }
        }
    }

    /// Passes a server's error on; its position, if it is one of the client's own text.
    fn pass_error(&mut self, body: &[u8], original: Option<(&Asked<'_>, &str)>) {
        let Ok(view) = ErrorView::decode(body) else {
            return;
        };
        let position = original.and_then(|(asked, schema)| {
            let position = std::str::from_utf8(view.get(b'P')?).ok()?.parse().ok()?;
            let Values { text, holes, .. } = asked.values;
            Some(rewrite::position_back(
                position,
                text,
                holes,
                &asked.bound.edits,
                schema,
            ))
        });
        let out = &mut self.client.outbox;
        match (position, view.get(b'P')) {
            (Some(position), _) => {
                view.with_field_replaced(out, b'E', b'P', position.to_string().as_bytes())
            }
            (None, Some(_)) => view.without_field(out, b'E', b'P'),
            (None, None) => {
                out.push(b'E');
                out.extend(((body.len() + 4) as u32).to_be_bytes());
                out.extend_from_slice(body);
            }
        }
    }

    fn texts_by_bytes(&self) -> bool {
        let schema = self.context.schema.load();
        schema
            .tables
            .as_ref()
            .is_some_and(|tables| tables.texts_by_bytes())
    }

    /// How the keys sort as bytes; `None`: some do not.
    fn orders(
        &self,
        sorted: &Sorted,
        whole: &Described,
        parts: &Described,
    ) -> Option<Vec<ByteOrder>> {
        let types = parts.columns.get(whole.columns.len()..)?;
        let by_bytes = self.texts_by_bytes();
        let keys = sorted.keys.iter().zip(types);
        keys.map(|(key, oid)| {
            let by_bytes = match key.text {
                TextKey::Bytes => true,
                TextKey::Default | TextKey::Either => by_bytes,
                TextKey::Other | TextKey::Loose => false,
            };
            ByteOrder::of(*oid, by_bytes)
        })
        .collect()
    }

    /// Writes the statements for the shards of a host into its link's outbox, closed by one Sync.
    fn ask_arms(&mut self, i: usize, asked: &Asked<'_>, arms: &Arms<'_>, shards: &[ShardId]) {
        let Arms {
            part,
            tail,
            most,
            params,
            results,
        } = *arms;
        self.overwrite_unnamed(i);
        let mut text = Vec::new();
        for shards in shards.chunks(most) {
            text.clear();
            if let [shard] = shards {
                let schema = self.map.schema(*shard);
                write_part(part, &asked.values, &asked.bound.edits, schema, &mut text);
            } else {
                for (n, shard) in shards.iter().enumerate() {
                    text.extend_from_slice(if n == 0 { b"(" } else { b") UNION ALL (" });
                    let schema = self.map.schema(*shard);
                    write_part(part, &asked.values, &asked.bound.edits, schema, &mut text);
                }
                text.push(b')');
                text.extend_from_slice(tail.as_bytes());
            }
            let out = &mut self.links[i].outbox;
            frontend::parse(out, b"", &text, params.iter().copied());
            asked.write_bind(&[], results, out);
            frontend::execute(out, b"", 0);
        }
        let link = &mut self.links[i];
        frontend::sync(&mut link.outbox);
        link.unsynced = true;
    }

    async fn merge_sorted(
        &mut self,
        asked: &Asked<'_>,
        sorted: &Sorted,
        orders: &[ByteOrder],
        whole: &Described,
        hosts: &[Shards],
    ) -> Step<u64> {
        let mut results: Vec<i16> = (0..whole.columns.len())
            .map(|n| asked.result_format(n))
            .collect();
        results.extend(orders.iter().map(|_| 1i16));
        let needed = sorted.needed();
        let mut tail = sorted.order(whole.columns.len());
        if let Some(needed) = needed.filter(|n| *n <= i64::MAX as u64) {
            tail.push_str(&format!(" LIMIT {needed}"));
        }
        let held = needed.is_some_and(|n| n <= HELD_ROWS);
        for (host, shards) in hosts {
            let Some(i) = self.links.iter().position(|l| l.host == *host) else {
                continue;
            };
            // A stream must come sorted from one statement; without keys any rows will do.
            let arms = if held || sorted.keys.is_empty() {
                ARMS
            } else {
                shards.len()
            };
            let arms = Arms {
                part: &sorted.part,
                tail: &tail,
                most: arms,
                params: &whole.params,
                results: &results,
            };
            self.ask_arms(i, asked, &arms, shards);
        }
        let outputs = whole.columns.len();
        if sorted.keys.is_empty() {
            return self.take_any(sorted, hosts).await;
        }
        if held {
            self.take_first(sorted, orders, outputs, hosts).await
        } else {
            self.take_merged(sorted, orders, outputs, hosts).await
        }
    }
}

/// The types of a ParameterDescription.
fn oids(body: &[u8]) -> Result<Vec<u32>, DecodeFault> {
    let mut body = Body(body);
    let count = body.u16()?;
    (0..count).map(|_| body.u32()).collect()
}

/// The types of the columns of a RowDescription.
fn column_types(body: &[u8]) -> Result<Vec<u32>, DecodeFault> {
    let mut body = Body(body);
    let count = body.u16()?;
    let mut types = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        body.cstr()?;
        body.bytes(6)?;
        types.push(body.u32()?);
        body.bytes(8)?;
    }
    Ok(types)
}
