//! One statement asked of several shards: hosts in parallel, the shards of a host pipelined on one server connection,
//! the rows passed on one shard after the other. Only for statements of which that is the whole answer.

use std::future::poll_fn;
use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;

use super::Session;
use super::bring::Bring;
use super::context::Prepared;
use super::errors::Fault;
use super::links::Need;
use super::merge::Asked;
use super::parameters::pass_status;
use super::portals::Several;
use super::prepareds::BindParams;
use super::replies::{Pass, Reply};
use crate::route::SessionState;
use crate::route::{self, Bound, Recipe, Values};
use crate::shardmap::{HostId, ShardId};
use crate::sql::control::BeginOptions;
use crate::sql::shape::Shape;
use crate::wire::backend::{self, CommandComplete, ErrorView};
use crate::wire::frame;
use crate::wire::frontend::{self, Bind, Kind};

/// Shards asked in one write; more of them only after their answers, so that memory stays bounded.
const WINDOW: usize = 256;
/// Of the first write: so few that the first rows are on their way at once.
const FIRST: usize = 4;
/// Bytes for the client gathered before they are written.
pub(super) const ENOUGH: usize = 32 * 1024;

/// The shards of one host that are asked.
pub(super) type Shards = (HostId, Vec<ShardId>);

/// What has come together so far.
#[derive(Default)]
struct Gathered {
    /// The rows' description has gone out (or is not due).
    described: bool,
    rows: u64,
    /// A shard failed; its error has gone out.
    failed: bool,
}

/// How many shards are asked in one write, `from` of them having been asked before.
fn window(from: usize) -> usize {
    if from == 0 { FIRST } else { WINDOW }
}

impl Session {
    /// A Query for several shards. `true`: a shard failed and the client has its error. ReadyForQuery is the caller's.
    pub(super) async fn gather_simple(
        &mut self,
        bound: &Bound,
        text: &Range<usize>,
        shards: &[ShardId],
    ) -> Result<bool, Fault> {
        let text = self.client.inbox[text.clone()].to_vec();
        let mut shape = Shape::default();
        // It was scanned before.
        let _ = shape.scan(&text);
        let values = Values {
            text: &text,
            holes: &shape.holes,
            params: None,
        };
        self.gather_text(bound, &values, shards).await
    }

    /// The same for any text.
    pub(super) async fn gather_text(
        &mut self,
        bound: &Bound,
        values: &Values<'_>,
        shards: &[ShardId],
    ) -> Result<bool, Fault> {
        if let Some(options) = &bound.copy_out {
            return self.copy_out(bound, options, values, shards).await;
        }
        let recipe = route::recipe(bound, values)?;
        let hosts = self.enlist_hosts(shards).await?;
        if recipe != Recipe::Concat {
            let asked = Asked {
                bound,
                values: *values,
                types: &[],
                bind: None,
            };
            return self.merge(&asked, recipe, &hosts, true).await;
        }
        let gathered = self.gather_queries(bound, values, &hosts).await;
        self.finish_kept_unless(gathered.as_ref().is_ok_and(|g| !g.failed))
            .await;
        self.end_gather(gathered, true)
    }

    async fn gather_queries(
        &mut self,
        bound: &Bound,
        values: &Values<'_>,
        hosts: &[Shards],
    ) -> Result<Gathered, Fault> {
        let mut gathered = Gathered::default();
        let mut begun = vec![0; hosts.len()];
        for (n, (host, shards)) in hosts.iter().enumerate() {
            let i = self.gather_link(*host).await?;
            begun[n] = self.ask(i, bound, values, shards, 0);
        }
        self.replies.clear();
        for (n, (host, shards)) in hosts.iter().enumerate() {
            let i = self.gather_link(*host).await?;
            let mut answered = 0;
            while answered < shards.len() && !gathered.failed {
                let asked = begun[n] - answered;
                self.take_answers(i, asked, &mut gathered).await?;
                answered = begun[n];
                if answered < shards.len() {
                    begun[n] = self.ask(i, bound, values, shards, answered);
                }
            }
        }
        Ok(gathered)
    }

    /// Writes the statement for the next shards of a host into its outbox; how many shards have been asked by then.
    fn ask(
        &mut self,
        i: usize,
        bound: &Bound,
        values: &Values<'_>,
        shards: &[ShardId],
        from: usize,
    ) -> usize {
        let to = shards.len().min(from + window(from));
        let mut outbox = std::mem::take(&mut self.links[i].outbox);
        for shard in &shards[from..to] {
            self.write_query(&mut outbox, bound, values, Some(*shard));
        }
        self.links[i].outbox = outbox;
        to
    }

    /// Checks out all hosts of the shards, in the order of their ids: two sessions that need the same hosts then never
    /// wait for each other.
    pub(super) async fn enlist_hosts(&mut self, shards: &[ShardId]) -> Result<Vec<Shards>, Fault> {
        self.limit_scatter(shards.len())?;
        let mut hosts: Vec<Shards> = Vec::new();
        for shard in shards {
            let host = self.map.owner(*shard);
            match hosts.iter_mut().find(|(h, _)| *h == host) {
                Some((_, of_host)) => of_host.push(*shard),
                None => hosts.push((host, vec![*shard])),
            }
        }
        hosts.sort_by_key(|(host, _)| *host);
        for (host, _) in &hosts {
            self.link(Need::plain(*host)).await?;
            // BEGIN and settings are dealt with before the statement: the gather reads its answers itself.
            self.drain_replies().await?;
        }
        Ok(hosts)
    }

    pub(super) fn limit_scatter(&self, shards: usize) -> Result<(), Fault> {
        let most = self.map.proxy.limits.scatter_shards;
        if shards > most as usize {
            return Err(Fault::limit(
                &format!("a statement for {shards} shards"),
                "scatter_shards",
                u64::from(most),
            ));
        }
        Ok(())
    }

    async fn gather_link(&mut self, host: HostId) -> Result<usize, Fault> {
        self.link(Need::plain(host)).await
    }

    /// Reads until `asked` ReadyForQuery have come, passing rows on.
    async fn take_answers(
        &mut self,
        i: usize,
        asked: usize,
        gathered: &mut Gathered,
    ) -> Result<(), Fault> {
        let mut left = asked;
        while left > 0 {
            let (tag, len) = self.next_message(i).await?;
            match tag {
                b'Z' => {
                    self.have(i, len).await?;
                    left -= 1;
                }
                b'T' if gathered.described => {}
                b'T' => {
                    gathered.described = true;
                    self.pass_message(i, len).await?;
                    continue;
                }
                b'D' if !gathered.failed => {
                    self.pass_run(i, len).await?;
                    continue;
                }
                b'N' => {
                    self.pass_message(i, len).await?;
                    continue;
                }
                b'C' => gathered.rows += self.tag_rows(i, len).await?,
                b'E' if !gathered.failed => {
                    gathered.failed = true;
                    self.client.undo();
                    self.pass_message(i, len).await?;
                    return Ok(());
                }
                _ => {}
            }
            self.skip_message(i, len).await?;
        }
        Ok(())
    }

    /// The rows that a CommandComplete speaks of.
    async fn tag_rows(&mut self, i: usize, len: usize) -> Result<u64, Fault> {
        self.have(i, len).await?;
        let bytes = self.links[i].unread();
        let rows = CommandComplete::decode(&bytes[frame::HEADER..len])
            .ok()
            .and_then(|c| c.rows());
        Ok(rows.unwrap_or(0))
    }

    /// The last word: CommandComplete, or after a failure the end of all connections that may still be answering.
    fn end_gather(
        &mut self,
        gathered: Result<Gathered, Fault>,
        simple: bool,
    ) -> Result<bool, Fault> {
        if let Ok(Gathered {
            failed: false,
            rows,
            ..
        }) = gathered
        {
            backend::command_complete(&mut self.client.outbox, &format!("SELECT {rows}"));
            return Ok(false);
        }
        let cut = gathered.is_err()
            && self.holding.is_none()
            && self.links.get(self.active).is_some_and(|l| l.in_message());
        for i in 0..self.links.len() {
            if !self.keeps_link(&self.links[i]) {
                self.links[i].discard();
            }
        }
        self.drop_failed();
        match gathered {
            // The client is in the middle of a row that will never end.
            Err(Fault::Server(fields)) if cut => Err(Fault::Client(std::io::Error::other(
                fields.message.into_owned(),
            ))),
            Err(Fault::Server(fields)) => Err(Fault::Statement(fields)),
            Err(fault) => Err(fault),
            Ok(_) => {
                if !simple {
                    self.batch.refused();
                }
                Ok(true)
            }
        }
    }

    /// Behind a failure on several hosts: nothing is owed any more, and links that were discarded are gone.
    pub(super) fn drop_failed(&mut self) {
        self.replies.clear();
        self.drop_lost();
        if let Some(block) = &mut self.block {
            block.failed = true;
        }
    }

    /// Describe of a portal for several shards: the columns are those of the first.
    pub(super) async fn describe_several(&mut self, several: &Arc<Several>) -> Result<(), Fault> {
        let Some(shard) = several.shards.first().copied() else {
            return Ok(());
        };
        let host = self.map.owner(shard);
        let i = self
            .link(Need {
                rides: false,
                host,
                statement: Some((several.statement.id, shard.0)),
                path: None,
                writes: false,
                bring: Bring::Along,
                state: SessionState::Same,
                unpreparable: false,
            })
            .await?;
        let n = self.server_statement(i, &several.statement, Some(shard))?;
        self.overwrite_unnamed(i);
        let link = &mut self.links[i];
        frontend::bind_renamed(
            &mut link.outbox,
            b"",
            super::prepareds::server_name(n, &mut [0; 12]),
            &several.bind,
        );
        frontend::describe(&mut link.outbox, Kind::Portal, b"");
        link.unsynced = true;
        self.replies.push(Reply::One(Pass::Keep));
        self.replies.push(Reply::Describe(Pass::On));
        Ok(())
    }

    /// Execute of a portal for several shards that has not been executed yet.
    pub(super) async fn execute_several(
        &mut self,
        several: &Arc<Several>,
        name: &[u8],
        max_rows: i32,
    ) -> Result<(), Fault> {
        self.check_runs()?;
        self.settle_replies().await?;
        if self.block.is_none() && self.is_one_transaction_with_others(name) {
            self.batch_becomes_block().await?;
        }
        self.context.stats.scattered(several.shards.len());
        // As in Postgres, a COPY knows no row limit.
        if self.copy_out_of_portal(several).await? {
            return Ok(());
        }
        let hosts = self.enlist_hosts(&several.shards).await?;
        self.execute_first(several, &hosts, name, max_rows).await
    }

    /// Whether the batch must not end behind the portal, which the Syncs of a gather would do: they would commit a write, close other portals,
    /// take a second snapshot, and what follows would not be what SET TRANSACTION has said, or would be by defaults that are set for the next one.
    fn is_one_transaction_with_others(&self, portal: &[u8]) -> bool {
        self.batch.writer.is_some()
            || self.batch.options != BeginOptions::default()
            || self.batch.executed && self.implicit_of_one_snapshot()
            || self.has_set_for_the_next()
            || self.statements.portals.has_others(portal)
    }

    /// Asks all shards; `describe`: the client is to be told of the columns, too. `true`: one failed and the client has its
    /// error.
    pub(super) async fn gather_portal(
        &mut self,
        several: &Several,
        hosts: &[Shards],
        describe: bool,
    ) -> Result<bool, Fault> {
        if let Prepared::Query(bound) = &*several.statement.prepared {
            let statement = &several.statement;
            let body = [&[0, 0], &several.bind[..]].concat();
            let bind = Bind::decode(&body)?;
            let params = BindParams::new(bind, &statement.types);
            let values = Values {
                text: &statement.text,
                holes: &statement.holes,
                params: Some(&params),
            };
            let recipe = route::recipe(bound, &values)?;
            if recipe != Recipe::Concat {
                let asked = Asked {
                    bound,
                    values,
                    types: &statement.types,
                    bind: Some(bind),
                };
                return self.merge(&asked, recipe, hosts, describe).await;
            }
        }
        let gathered = self.gather_portals(several, hosts, describe).await;
        self.finish_kept_unless(gathered.as_ref().is_ok_and(|g| !g.failed))
            .await;
        self.end_gather(gathered, describe)
    }

    async fn gather_portals(
        &mut self,
        several: &Several,
        hosts: &[Shards],
        mut describe: bool,
    ) -> Result<Gathered, Fault> {
        let mut gathered = Gathered {
            described: !describe,
            ..Gathered::default()
        };
        let mut begun = vec![0; hosts.len()];
        for (n, (host, shards)) in hosts.iter().enumerate() {
            let i = self.gather_link(*host).await?;
            begun[n] = self.ask_portals(i, several, shards, 0, std::mem::take(&mut describe))?;
        }
        for (n, (host, shards)) in hosts.iter().enumerate() {
            let i = self.gather_link(*host).await?;
            loop {
                // One Sync closes each window.
                self.take_answers(i, 1, &mut gathered).await?;
                self.links[i].unsynced = false;
                if gathered.failed || begun[n] == shards.len() {
                    break;
                }
                begun[n] = self.ask_portals(i, several, shards, begun[n], false)?;
            }
            if gathered.failed {
                break;
            }
        }
        Ok(gathered)
    }

    fn ask_portals(
        &mut self,
        i: usize,
        several: &Several,
        shards: &[ShardId],
        from: usize,
        mut describe: bool,
    ) -> Result<usize, Fault> {
        let to = shards.len().min(from + window(from));
        self.overwrite_unnamed(i);
        for shard in &shards[from..to] {
            let n = self.server_statement(i, &several.statement, Some(*shard))?;
            let link = &mut self.links[i];
            frontend::bind_renamed(
                &mut link.outbox,
                b"",
                super::prepareds::server_name(n, &mut [0; 12]),
                &several.bind,
            );
            if std::mem::take(&mut describe) {
                frontend::describe(&mut link.outbox, Kind::Portal, b"");
            }
            frontend::execute(&mut link.outbox, b"", 0);
        }
        frontend::sync(&mut self.links[i].outbox);
        // The gather reads the answers itself.
        self.replies.clear();
        Ok(to)
    }

    /// The header of the next message of a link. An error is there as a whole, and not the server's last word: that is a fault.
    pub(super) async fn next_message(&mut self, i: usize) -> Result<(u8, usize), Fault> {
        loop {
            let link = &self.links[i];
            match frame::header(link.unread()) {
                Ok(Some(header)) if header.tag == b'E' => {
                    self.have(i, header.len).await?;
                    let link = &mut self.links[i];
                    if link.has_ended_wait() {
                        link.reword_next(header.len);
                        continue;
                    }
                    let body = &link.unread()[frame::HEADER..header.len];
                    return match ErrorView::decode(body) {
                        Ok(view) if view.is_fatal() => Err(Fault::ended(&link.pool.host, &view)),
                        Ok(_) => Ok((header.tag, header.len)),
                        Err(_) => Err(Fault::protocol(&link.pool.host, b'E')),
                    };
                }
                Ok(Some(header)) => return Ok((header.tag, header.len)),
                Ok(None) => self.fill_link(i).await?,
                Err(_) => return Err(Fault::protocol(&link.pool.host, 0)),
            }
        }
    }

    /// Waits until `len` bytes are there.
    pub(super) async fn have(&mut self, i: usize, len: usize) -> Result<(), Fault> {
        while self.links[i].unread().len() < len {
            self.fill_link(i).await?;
        }
        Ok(())
    }

    /// Passes a message of `len` bytes on, however long it is.
    pub(super) async fn pass_message(&mut self, i: usize, len: usize) -> Result<(), Fault> {
        let mut rest = len;
        while rest > 0 {
            let bytes = self.links[i].unread();
            let n = rest.min(bytes.len());
            self.client.outbox.extend_from_slice(&bytes[..n]);
            self.links[i].take(n);
            rest -= n;
            self.links[i].pass_rest(rest);
            self.pass_gathered().await?;
            if rest > 0 {
                self.fill_link(i).await?;
            }
        }
        Ok(())
    }

    /// [`Session::pass_message`], and with it all whole messages of its type that have come behind it; how many.
    pub(super) async fn pass_run(&mut self, i: usize, len: usize) -> Result<usize, Fault> {
        let bytes = self.links[i].unread();
        if bytes.len() < len {
            self.pass_message(i, len).await?;
            return Ok(1);
        }
        let (mut end, mut count) = (len, 1);
        while let Ok(Some(next)) = frame::header(&bytes[end..])
            && next.tag == bytes[0]
            && bytes.len() - end >= next.len
        {
            end += next.len;
            count += 1;
        }
        self.client.outbox.extend_from_slice(&bytes[..end]);
        self.links[i].take(end);
        self.pass_gathered().await?;
        Ok(count)
    }

    pub(super) async fn skip_message(&mut self, i: usize, len: usize) -> Result<(), Fault> {
        if self.links[i].unread().first() == Some(&b'S') {
            // Of settings that were brought about or undone.
            self.have(i, len).await?;
            let message = self.links[i].unread()[..len].to_vec();
            pass_status(&mut self.client, &mut self.links[i], &message);
        }
        let mut rest = len;
        loop {
            let n = rest.min(self.links[i].unread().len());
            if rest == len && n >= 6 && self.links[i].unread()[0] == b'Z' {
                self.links[i].status = self.links[i].unread()[5];
            }
            self.links[i].take(n);
            rest -= n;
            if rest == 0 {
                return Ok(());
            }
            self.fill_link(i).await?;
        }
    }

    /// Reads from a link while every link's outbox goes out. Before it waits, the client gets what there is for it,
    /// unless it is held.
    async fn fill_link(&mut self, i: usize) -> Result<(), Fault> {
        if !self.client.outbox.is_empty() && self.holding.is_none() {
            let link = &mut self.links[i];
            let come = poll_fn(|cx| {
                let sent = link.poll_flush(cx);
                Poll::Ready(match (sent, super::ends::poll_fill(cx, link)) {
                    (_, Poll::Ready(Ok(n))) => n > 0,
                    _ => false,
                })
            });
            if come.await {
                self.active = i;
                return Ok(());
            }
            self.client.flush().await.map_err(Fault::client)?;
        }
        self.active = i;
        let links = &mut self.links;
        poll_fn(|cx| {
            for link in links.iter_mut() {
                if let Poll::Ready(Err(e)) = link.poll_flush(cx) {
                    return Poll::Ready(Err(Fault::lost(&link.pool.host, Some(e))));
                }
            }
            let link = &mut links[i];
            match super::ends::poll_fill(cx, link) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(0)) => Poll::Ready(Err(Fault::lost(&link.pool.host, None))),
                Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
                Poll::Ready(Err(e)) => Poll::Ready(Err(Fault::lost(&link.pool.host, Some(e)))),
            }
        })
        .await
    }
}
