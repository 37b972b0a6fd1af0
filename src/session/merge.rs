//! A read over several shards whose answer is more than their rows one after the other: sorted rows are merged, parts
//! (of groups, of DISTINCT) are put together by a last statement. Hosts work in parallel; the shards of a host are
//! asked in UNION ALLs of a few, pipelined on one server connection.

use tokio_postgres::types::{Kind as TypeKind, Type};

use super::Session;
use super::errors::Fault;
use super::gather::Shards;
use crate::route::{Bound, ByteOrder, Final, Piece, Recipe, Sorted, TextKey, Values, write_part};
use crate::shardmap::ShardId;
use crate::sql::rewrite;
use crate::wire::backend::{self, ErrorView};
use crate::wire::body::{Body, DecodeFault};
use crate::wire::error::{ErrorFields, SqlState};
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
                self.fail_gather();
                if !describe {
                    self.batch.refused();
                }
                Ok(true)
            }
            Err(fault) => {
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
        let whole = |link: &super::ends::Link| !link.unsynced && link.unread().is_empty();
        let lost = !self.links.iter().all(whole);
        for link in &mut self.links {
            if !whole(link) {
                link.discard();
            }
        }
        self.links.retain(|link| link.conn.is_some());
        self.replies.clear();
        self.active = 0;
        if lost {
            self.cancel.clear();
        }
        if let Some(block) = &mut self.block {
            block.failed = true;
            block.lost |= lost;
        }
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

    /// The next row that a link has for us; `None`: it has said all.
    async fn next_row(&mut self, i: usize) -> Step<Option<Vec<u8>>> {
        let mut failed = false;
        loop {
            let (tag, len) = self.next_message(i).await?;
            if tag == b'D' && !failed {
                let most = self.map.proxy.limits.gather_bytes;
                if len > most {
                    return Err(Fault::limit(
                        &format!("a row of {len} bytes"),
                        "gather_bytes",
                        most as u64,
                    ));
                }
                self.have(i, len).await?;
                let row = self.links[i].unread()[frame::HEADER..len].to_vec();
                self.links[i].take(len);
                return Ok(Ok(Some(row)));
            }
            if matches!(tag, b'E' | b'N' | b'Z') {
                self.have(i, len).await?;
            }
            match tag {
                b'E' if !failed => {
                    let body = self.links[i].unread()[frame::HEADER..len].to_vec();
                    self.pass_error(&body, None);
                    failed = true;
                }
                b'N' => {
                    let message = self.links[i].unread()[..len].to_vec();
                    self.client.outbox.extend_from_slice(&message);
                }
                _ => {}
            }
            self.skip_message(i, len).await?;
            if tag == b'Z' {
                self.links[i].unsynced = false;
                return Ok(if failed { Err(Failed) } else { Ok(None) });
            }
        }
    }

    /// Reads what the links still have to say, so that they can be used again.
    async fn settle_links(&mut self, hosts: &[Shards]) -> Result<(), Fault> {
        for i in self.asked_links(hosts) {
            // Another server's error would come after the one that the client has.
            while self.links[i].unsynced {
                let (tag, len) = self.next_message(i).await?;
                if tag == b'Z' {
                    self.have(i, len).await?;
                    self.links[i].unsynced = false;
                }
                self.skip_message(i, len).await?;
            }
        }
        Ok(())
    }

    fn asked_links(&self, hosts: &[Shards]) -> Vec<usize> {
        let asked = |(host, _): &Shards| self.links.iter().position(|l| l.host == *host);
        hosts.iter().filter_map(asked).collect()
    }

    async fn give(&mut self, row: &[u8], outputs: Option<usize>) -> Result<(), Fault> {
        let row = match outputs {
            None => row,
            Some(n) => &row[..row_start(row, n).unwrap_or(row.len())],
        };
        let out = &mut self.client.outbox;
        out.push(b'D');
        out.extend(((row.len() + 4) as u32).to_be_bytes());
        let from = out.len();
        out.extend_from_slice(row);
        if let (Some(n), Some(count)) = (outputs, out.get_mut(from..from + 2)) {
            count.copy_from_slice(&(n as u16).to_be_bytes());
        }
        self.pass_gathered().await
    }

    /// LIMIT without an order: the rows that come first.
    async fn take_any(&mut self, sorted: &Sorted, hosts: &[Shards]) -> Step<u64> {
        let (mut passed, mut given) = (0, 0);
        for i in self.asked_links(hosts) {
            loop {
                match self.next_row(i).await? {
                    Err(Failed) => {
                        self.settle_links(hosts).await?;
                        return Ok(Err(Failed));
                    }
                    Ok(None) => break,
                    Ok(Some(_)) if sorted.limit.is_some_and(|most| given >= most) => {}
                    Ok(Some(_)) if passed < sorted.offset => passed += 1,
                    Ok(Some(row)) => {
                        given += 1;
                        self.give(&row, None).await?;
                    }
                }
            }
        }
        Ok(Ok(given))
    }

    /// The first rows of all, held and sorted here.
    async fn take_first(
        &mut self,
        sorted: &Sorted,
        orders: &[ByteOrder],
        outputs: usize,
        hosts: &[Shards],
    ) -> Step<u64> {
        let needed = usize::try_from(sorted.needed().unwrap_or(0)).unwrap_or(usize::MAX);
        let mut rows: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        for i in self.asked_links(hosts) {
            loop {
                match self.next_row(i).await? {
                    Err(Failed) => {
                        self.settle_links(hosts).await?;
                        return Ok(Err(Failed));
                    }
                    Ok(None) => break,
                    Ok(Some(row)) => {
                        bytes += row.len();
                        rows.push((sort_key(&row, outputs, sorted, orders), row));
                    }
                }
                let many = rows.len() > 2 * needed + 1000;
                if many || bytes > self.map.proxy.limits.gather_bytes {
                    rows.sort_by(|a, b| a.0.cmp(&b.0));
                    rows.truncate(needed);
                    bytes = rows.iter().map(|(_, row)| row.len()).sum();
                    self.check_held(bytes)?;
                }
            }
        }
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows.truncate(needed);
        let offset = usize::try_from(sorted.offset).unwrap_or(usize::MAX);
        let rows = rows.get(offset..).unwrap_or_default();
        for (_, row) in rows {
            self.give(row, Some(outputs)).await?;
        }
        Ok(Ok(rows.len() as u64))
    }

    fn check_held(&self, bytes: usize) -> Result<(), Fault> {
        let most = self.map.proxy.limits.gather_bytes;
        if bytes > most {
            return Err(Fault::limit(
                &format!("the rows of several shards that must be held at once take {bytes} bytes"),
                "gather_bytes",
                most as u64,
            ));
        }
        Ok(())
    }

    /// All rows, merged from hosts that have sorted theirs: one row of each is held.
    async fn take_merged(
        &mut self,
        sorted: &Sorted,
        orders: &[ByteOrder],
        outputs: usize,
        hosts: &[Shards],
    ) -> Step<u64> {
        let links = self.asked_links(hosts);
        let mut heads: Vec<Option<(Vec<u8>, Vec<u8>)>> = vec![None; links.len()];
        for (n, i) in links.iter().enumerate() {
            match self.next_head(*i, sorted, orders, outputs).await? {
                Ok(head) => heads[n] = head,
                Err(Failed) => return self.stop(hosts).await,
            }
        }
        let (mut passed, mut given) = (0, 0);
        while sorted.limit.is_none_or(|most| given < most) {
            let least = (0..heads.len()).filter(|n| heads[*n].is_some());
            let key = |n: &usize| heads[*n].as_ref().map(|(key, _)| key.clone());
            let Some(n) = least.min_by_key(key) else {
                break;
            };
            let next = self.next_head(links[n], sorted, orders, outputs).await?;
            let Ok(next) = next else {
                return self.stop(hosts).await;
            };
            let Some((_, row)) = std::mem::replace(&mut heads[n], next) else {
                break;
            };
            if passed < sorted.offset {
                passed += 1;
                continue;
            }
            given += 1;
            self.give(&row, Some(outputs)).await?;
        }
        self.settle_links(hosts).await?;
        Ok(Ok(given))
    }

    async fn next_head(
        &mut self,
        i: usize,
        sorted: &Sorted,
        orders: &[ByteOrder],
        outputs: usize,
    ) -> Step<Option<(Vec<u8>, Vec<u8>)>> {
        if !self.links[i].unsynced {
            return Ok(Ok(None));
        }
        let row = match self.next_row(i).await? {
            Ok(row) => row,
            Err(Failed) => return Ok(Err(Failed)),
        };
        Ok(Ok(
            row.map(|row| (sort_key(&row, outputs, sorted, orders), row))
        ))
    }

    /// A server failed while others may have much to say: their connections are closed rather than read to the end.
    async fn stop(&mut self, _: &[Shards]) -> Step<u64> {
        Ok(Err(Failed))
    }

    /// Collects the parts of all shards and has one server make the answer of them.
    async fn put_together(
        &mut self,
        asked: &Asked<'_>,
        last: &Final,
        whole: &Described,
        parts: &Described,
        hosts: &[Shards],
    ) -> Step<u64> {
        let arrays = parts.columns.iter().map(|oid| array_of(*oid));
        let arrays: Vec<u32> = arrays.collect::<Option<_>>().ok_or_else(|| {
            let column = parts.columns.iter().find(|oid| array_of(**oid).is_none());
            let name = column
                .and_then(|oid| Type::from_oid(*oid))
                .map_or("of the app".to_owned(), |t| t.name().to_owned());
            cannot(format!("values of type {name} can't be put together"))
        })?;
        let by_bytes = self.texts_by_bytes();
        let text = last_text(
            last,
            &asked.values,
            &parts.columns,
            whole.params.len(),
            by_bytes,
        )?;
        for (host, shards) in hosts {
            let Some(i) = self.links.iter().position(|l| l.host == *host) else {
                continue;
            };
            let arms = Arms {
                part: &last.part,
                tail: "",
                most: ARMS,
                params: &whole.params,
                results: &[1],
            };
            self.ask_arms(i, asked, &arms, shards);
        }
        let mut columns = vec![Column::default(); parts.columns.len()];
        let (mut rows, mut bytes) = (0u32, 0);
        for i in self.asked_links(hosts) {
            loop {
                match self.next_row(i).await? {
                    Err(Failed) => {
                        self.settle_links(hosts).await?;
                        return Ok(Err(Failed));
                    }
                    Ok(None) => break,
                    Ok(Some(row)) => {
                        rows += 1;
                        bytes += row.len();
                        let most = self.map.proxy.limits.gather_rows;
                        if rows > most {
                            return Err(Fault::limit(
                                &format!("{rows} rows of several shards that must be held at once"),
                                "gather_rows",
                                u64::from(most),
                            ));
                        }
                        self.check_held(bytes)?;
                        let mut body = Body(&row);
                        body.u16()?;
                        for column in &mut columns {
                            column.push(body.value()?);
                        }
                    }
                }
            }
        }
        let values: Vec<Vec<u8>> = columns
            .iter()
            .zip(&parts.columns)
            .map(|(column, oid)| column.array(*oid))
            .collect();
        let Some(first) = self.asked_links(hosts).first().copied() else {
            return Ok(Ok(0));
        };
        self.run_last(first, asked, &text, &arrays, &values, whole)
            .await
    }

    async fn run_last(
        &mut self,
        i: usize,
        asked: &Asked<'_>,
        text: &str,
        arrays: &[u32],
        values: &[Vec<u8>],
        whole: &Described,
    ) -> Step<u64> {
        let results: Vec<i16> = (0..whole.columns.len())
            .map(|n| asked.result_format(n))
            .collect();
        let types = whole.params.iter().chain(arrays).copied();
        let types: Vec<u32> = types.collect();
        let link = &mut self.links[i];
        frontend::parse(
            &mut link.outbox,
            b"",
            text.as_bytes(),
            types.iter().copied(),
        );
        frontend::describe(&mut link.outbox, Kind::Statement, b"");
        asked.write_bind(values, &results, &mut link.outbox);
        frontend::execute(&mut link.outbox, b"", 0);
        frontend::sync(&mut link.outbox);
        link.unsynced = true;
        loop {
            let (tag, len) = self.next_message(i).await?;
            if tag == b'T' {
                self.have(i, len).await?;
                let types = column_types(&self.links[i].unread()[frame::HEADER..len])?;
                if types != whole.columns {
                    return Err(cannot(
                        "the columns made of the parts have other types than the statement's"
                            .to_owned(),
                    ));
                }
                self.skip_message(i, len).await?;
                break;
            }
            if tag == b'E' {
                break;
            }
            self.skip_message(i, len).await?;
        }
        let mut given = 0;
        loop {
            match self.next_row(i).await? {
                Err(Failed) => return Ok(Err(Failed)),
                Ok(None) => return Ok(Ok(given)),
                Ok(Some(row)) => {
                    given += 1;
                    self.give(&row, None).await?;
                }
            }
        }
    }
}

fn cannot(what: String) -> Fault {
    Fault::statement(
        ErrorFields::error(
            SqlState::NOT_MERGEABLE,
            format!("the rows of several shards can't be merged exactly: {what}"),
        )
        .hint(
            "Ask one shard at a time: put the key into the statement, or /* presplit: shard=N */.",
        ),
    )
}

fn own_collation() -> Fault {
    cannot("texts with a collation of their own are compared".to_owned())
}

fn refused_text(error: &[u8]) -> Fault {
    let view = ErrorView::decode(error).ok();
    let message = view.as_ref().and_then(|view| view.get(b'M'));
    cannot(String::from_utf8_lossy(message.unwrap_or_default()).into_owned())
}

/// The text of the last statement: the parts are parameters behind those of the client.
fn last_text(
    last: &Final,
    values: &Values<'_>,
    types: &[u32],
    params: usize,
    by_bytes: bool,
) -> Result<String, Fault> {
    let mut columns = last.texts.iter().zip(types);
    if columns.any(|(text, oid)| *text == TextKey::Loose && is_text(*oid)) {
        return Err(own_collation());
    }
    let mut text = String::new();
    for piece in &last.last {
        match piece {
            Piece::Own(words) => text.push_str(words),
            // No table is named there, so there is no schema to be put in.
            Piece::Copy(span) => {
                text.push_str(&String::from_utf8_lossy(span.of(values.text, values.holes)))
            }
            Piece::Column(n) => text.push_str(&format!("c{}", n + 1)),
            Piece::Compared(n) => text.push_str(&compared(*n, last, types, by_bytes)?),
            Piece::TypeOf(n) => text.push_str(&type_name(types[*n])),
            Piece::Mean(sum, count) => text.push_str(&mean(*sum, *count, types)?),
            Piece::Columns => {
                let names: Vec<String> = (1..=types.len()).map(|n| format!("c{n}")).collect();
                text.push_str(&names.join(", "));
            }
            Piece::Parts => {
                let names: Vec<String> = (1..=types.len()).map(|n| format!("c{n}")).collect();
                let arrays: Vec<String> = (1..=types.len())
                    .map(|n| format!("${}", params + n))
                    .collect();
                text.push_str(&format!(
                    " FROM unnest({}) AS parts({})",
                    arrays.join(", "),
                    names.join(", ")
                ));
            }
        }
    }
    Ok(text)
}

/// Types that have a collation.
fn is_text(oid: u32) -> bool {
    matches!(oid, 25 | 1043 | 1042)
}

fn compared(n: usize, last: &Final, types: &[u32], by_bytes: bool) -> Result<String, Fault> {
    let key = last.texts.get(n).copied().unwrap_or(TextKey::Default);
    match key {
        TextKey::Bytes if is_text(types[n]) && !by_bytes => {
            Ok(format!("(c{} COLLATE pg_catalog.\"C\")", n + 1))
        }
        TextKey::Either if is_text(types[n]) && !by_bytes => Err(own_collation()),
        TextKey::Other | TextKey::Loose if is_text(types[n]) => Err(own_collation()),
        _ => Ok(format!("c{}", n + 1)),
    }
}

fn type_name(oid: u32) -> String {
    match Type::from_oid(oid) {
        Some(known) => format!("pg_catalog.\"{}\"", known.name()),
        None => "pg_catalog.text".to_owned(),
    }
}

/// avg() of partial sums, as Postgres divides them: whole numbers and numeric as numeric, float8 as float8.
fn mean(sum: usize, count: usize, types: &[u32]) -> Result<String, Fault> {
    let divided = |of: &str| {
        format!(
            "(CAST(sum(c{}) AS pg_catalog.{of}) / nullif(CAST(sum(c{}) AS pg_catalog.{of}), 0))",
            sum + 1,
            count + 1
        )
    };
    match types[sum] {
        20 | 1700 => Ok(divided("numeric")),
        701 => Ok(divided("float8")),
        _ => Err(cannot("avg() of this type".to_owned())),
    }
}

/// The array type whose elements are of a type, if it is one of Postgres' own.
fn array_of(element: u32) -> Option<u32> {
    if matches!(Type::from_oid(element)?.kind(), TypeKind::Array(_)) {
        return None;
    }
    // Types of Postgres' catalog have OIDs below this (access/transam.h, FirstGenbkiObjectId). `int2vector` and
    // `oidvector` have elements too, but are no arrays of their types.
    (1..10_000u32).find(|oid| {
        Type::from_oid(*oid).is_some_and(|array| {
            array.name().starts_with('_')
                && matches!(array.kind(), TypeKind::Array(of) if of.oid() == element)
        })
    })
}

/// The values of a column, as the elements of an array in binary form (arrayfuncs.c, array_send).
#[derive(Clone, Default)]
struct Column {
    count: u32,
    nulls: bool,
    elements: Vec<u8>,
}

impl Column {
    fn push(&mut self, value: Option<&[u8]>) {
        self.count += 1;
        match value {
            None => {
                self.nulls = true;
                self.elements.extend((-1i32).to_be_bytes());
            }
            Some(bytes) => {
                self.elements.extend((bytes.len() as u32).to_be_bytes());
                self.elements.extend_from_slice(bytes);
            }
        }
    }

    fn array(&self, element: u32) -> Vec<u8> {
        let dimensions = u32::from(self.count > 0);
        let mut bytes = Vec::with_capacity(20 + self.elements.len());
        for word in [dimensions, u32::from(self.nulls), element] {
            bytes.extend(word.to_be_bytes());
        }
        if self.count > 0 {
            bytes.extend(self.count.to_be_bytes());
            bytes.extend(1u32.to_be_bytes());
            bytes.extend_from_slice(&self.elements);
        }
        bytes
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

/// Where column `n` of a DataRow's body begins.
fn row_start(row: &[u8], n: usize) -> Option<usize> {
    let mut body = Body(row);
    body.u16().ok()?;
    for _ in 0..n {
        body.value().ok()?;
    }
    Some(row.len() - body.0.len())
}

/// The sort keys of a row, which stand behind its outputs, as bytes that compare as Postgres compares them.
fn sort_key(row: &[u8], outputs: usize, sorted: &Sorted, orders: &[ByteOrder]) -> Vec<u8> {
    let mut key = Vec::with_capacity(16);
    let mut body = Body(&row[row_start(row, outputs).unwrap_or(row.len())..]);
    for (by, order) in sorted.keys.iter().zip(orders) {
        match body.value().ok().flatten() {
            None => key.push(u8::from(!by.nulls_first)),
            Some(value) => {
                key.push(u8::from(by.nulls_first));
                let from = key.len();
                order.write(value, &mut key);
                if by.desc {
                    key[from..].iter_mut().for_each(|byte| *byte = !*byte);
                }
            }
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_array_type_of_a_type() {
        let of = |element: Type| array_of(element.oid());
        assert_eq!(of(Type::INT2), Some(Type::INT2_ARRAY.oid()));
        assert_eq!(of(Type::OID), Some(Type::OID_ARRAY.oid()));
        assert_eq!(of(Type::TEXT), Some(Type::TEXT_ARRAY.oid()));
        assert_eq!(of(Type::TEXT_ARRAY), None);
    }
}
