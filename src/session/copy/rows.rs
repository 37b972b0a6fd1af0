//! COPY FROM STDIN of a sharded table: the client's data is cut into rows, and each goes to its own shard, all in one
//! transaction, in a block if the shards are on several hosts. What can't be done fails the whole COPY, and nothing of it
//! stays.

mod ending;
mod statement;

pub(in crate::session) use statement::Statement;

use super::super::Session;
use super::super::checks::{encoding_name, keeps_ascii};
use super::super::context::{self, Prepared};
use super::super::errors::Fault;
use super::super::links::Need;
use super::data::{Bad, Cut, Cutter, Data};
use super::feed::{Feed, Feeds, Hold};
use super::pass::unexpected;
use super::server::{Heard, Until};
use crate::route::{Bound, Refusal, Values};
use crate::shardmap::{HostId, ShardId};
use crate::sql::copy::{Format, Splitter};
use crate::sql::shape::Shape;
use crate::wire::backend;
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::{frame, frontend};

/// How the data came to its end.
enum End {
    /// All of it has been read.
    Whole,
    /// The client gave up: its CopyFail.
    Fail(Vec<u8>),
    /// The server refused something.
    Refused,
    /// We refuse it.
    Bad(Bad),
}

impl Session {
    /// A COPY of a Query.
    pub(in crate::session) async fn copy_rows_of_text(
        &mut self,
        bound: &Bound,
        text: &[u8],
        only: Option<ShardId>,
    ) -> Result<Option<String>, Fault> {
        let mut shape = Shape::default();
        // It was scanned before.
        let _ = shape.scan(text);
        let values = Values {
            text,
            holes: &shape.holes,
            params: None,
        };
        let Some(copy) = bound.copy_in() else {
            return Ok(None);
        };
        self.copy_rows(Statement {
            bound,
            copy,
            values,
            only,
            simple: true,
        })
        .await
    }

    /// A COPY of a portal.
    pub(in crate::session) async fn copy_rows_of_portal(
        &mut self,
        statement: &context::Statement,
        only: Option<ShardId>,
    ) -> Result<(), Fault> {
        let Prepared::Query(bound) = &*statement.prepared else {
            return Ok(());
        };
        let Some(copy) = bound.copy_in() else {
            return Ok(());
        };
        let values = Values {
            text: &statement.text,
            holes: &statement.holes,
            params: None,
        };
        let done = self
            .copy_rows(Statement {
                bound,
                copy,
                values,
                only,
                simple: false,
            })
            .await?;
        if let Some(tag) = done {
            backend::command_complete(&mut self.client.outbox, &tag);
        }
        Ok(())
    }

    /// Runs the COPY whose message lies at the front of the inbox; its tag. `None`: it failed, and the client has the error.
    /// CommandComplete and ReadyForQuery are the caller's.
    async fn copy_rows(&mut self, statement: Statement<'_>) -> Result<Option<String>, Fault> {
        // What follows the message is the data; the message itself is consumed by the caller.
        let len = frame::header(self.client.pending())
            .ok()
            .flatten()
            .map_or(0, |h| h.len);
        let message = self.client.pending()[..len].to_vec();
        self.client.consume(len);
        let mut data = Data::default();
        let done = self.copy_rows_with(statement, &mut data).await;
        // The rest of the data is ignored as it comes, like Postgres does after an error.
        self.swallow += data.coming;
        self.client
            .inbox
            .splice(self.client.read..self.client.read, message);
        done
    }

    async fn copy_rows_with(
        &mut self,
        statement: Statement<'_>,
        data: &mut Data,
    ) -> Result<Option<String>, Fault> {
        let (feed, fresh) = self.probe(&statement).await?;
        let mut feeds = Feeds::new(feed);
        let done = self.feed_rows(&statement, data, &mut feeds, fresh).await;
        match done {
            Err(Fault::Server(fields)) if feeds.are_several() => {
                // The others wait for data that does not come.
                for feed in &feeds.all {
                    self.links[feed.link].discard();
                }
                self.drop_lost();
                if let Some(block) = &mut self.block {
                    (block.failed, block.lost) = (true, true);
                }
                self.context.stats.server_lost();
                Err(Fault::Statement(fields))
            }
            done => done,
        }
    }

    async fn feed_rows(
        &mut self,
        statement: &Statement<'_>,
        data: &mut Data,
        feeds: &mut Feeds,
        fresh: bool,
    ) -> Result<Option<String>, Fault> {
        let mut heard = Heard::default();
        let table = &*statement.copy.table;
        self.feed_until(Until::Response, feeds, &mut heard, table)
            .await?;
        let response = heard.response.clone().unwrap_or_default();
        self.client.outbox.extend_from_slice(&response);
        if let Some(error) = heard.error.take() {
            let shard = self.first_shard(feeds.first().host, statement.only);
            heard.error = Some(statement.position_back(&self.map, shard, &error));
            return self.copy_failed(statement, feeds, heard, None).await;
        }
        if statement.copy.is_everywhere() {
            self.mirror(statement, feeds).await?;
        }
        let end = match self.splitter(statement) {
            Ok(mut cutter) => {
                let taken = self.take_rows(statement, &mut cutter, data, feeds, &mut heard, fresh);
                taken.await?
            }
            Err(refusal) => End::Bad(Bad::refusal(refusal)),
        };
        match end {
            End::Whole => self.finish_rows(statement, feeds, heard).await,
            End::Refused => self.copy_failed(statement, feeds, heard, None).await,
            End::Fail(message) => {
                // What is wrong about the rows before it is said first.
                self.send(statement, feeds, &mut heard, Hold::None).await?;
                if heard.error.is_none() {
                    heard.given_up = Some(data.lines + 1);
                    let i = self.begin_again(statement, feeds);
                    self.links[i].outbox.extend_from_slice(&message);
                    self.feed_until(Until::Done, feeds, &mut heard, table)
                        .await?;
                }
                self.copy_failed(statement, feeds, heard, None).await
            }
            End::Bad(bad) => {
                self.refuse_rows(statement, feeds, heard, bad, data.lines + 1)
                    .await
            }
        }
    }

    /// Begins the COPY on some shard: the server checks the statement before the client sends any data.
    /// `true`: the host was enlisted for it.
    async fn probe(&mut self, statement: &Statement<'_>) -> Result<(Feed, bool), Fault> {
        if statement.copy.is_everywhere() {
            let host = self.lock_everywhere(statement).await?;
            return Ok((self.begin_on(statement, host, true).await?, false));
        }
        let writer = self.first_writer();
        let host = match (statement.only, writer) {
            (Some(only), _) => self.map.owner(only),
            (None, Some(writer)) => writer,
            (None, None) => self.any_host_with_shards(),
        };
        let fresh = self.links.iter().all(|link| link.host != host);
        // What the session keeps there is not given up with a block because the rows are for others.
        let fresh = fresh && (self.block.is_none() || !self.is_parked(host));
        let feed = self
            .begin_on(statement, host, statement.only.is_some())
            .await?;
        Ok((feed, fresh))
    }

    /// Enlists all hosts for the COPY of a reference table and keeps other writers away from it, lowest host first: that.
    async fn lock_everywhere(&mut self, statement: &Statement<'_>) -> Result<HostId, Fault> {
        let hosts = self.all_hosts();
        self.settle_replies().await?;
        self.widen_to(&hosts).await?;
        for host in &hosts {
            let need = Need {
                writes: true,
                ..Need::plain(*host)
            };
            let i = self.link(need).await?;
            self.drain_replies().await?;
            let lock = self.query_link(i, &statement.copy.lock()).await;
            if let Some(fault) = lock.into_fault() {
                self.drop_lost();
                return Err(fault);
            }
        }
        Ok(hosts[0])
    }

    /// All rows go to all hosts.
    async fn mirror(&mut self, statement: &Statement<'_>, feeds: &mut Feeds) -> Result<(), Fault> {
        feeds.mirror = true;
        feeds.first().chosen = true;
        for host in self.all_hosts().split_off(1) {
            let feed = self.begin_on(statement, host, true).await?;
            feeds.add(feed);
        }
        Ok(())
    }

    /// The host of the transaction, if it owns a shard, else that of the template.
    fn any_host_with_shards(&self) -> HostId {
        let host = self.any_host();
        match self.map.shards_of(host).next() {
            Some(_) => host,
            None => self.map.owner(self.map.template()),
        }
    }

    fn first_shard(&self, host: HostId, only: Option<ShardId>) -> ShardId {
        only.or_else(|| self.map.shards_of(host).next())
            .unwrap_or_else(|| self.map.template())
    }

    async fn begin_on(
        &mut self,
        statement: &Statement<'_>,
        host: HostId,
        writes: bool,
    ) -> Result<Feed, Fault> {
        self.link(Need {
            writes,
            ..Need::plain(host)
        })
        .await?;
        // BEGIN and settings are dealt with first: what the COPY is answered is read here.
        self.drain_replies().await?;
        let shard = self.first_shard(host, statement.only);
        let link = &mut self.links[self.active];
        statement.begin(&self.map, shard, &mut link.outbox);
        frontend::flush(&mut link.outbox);
        link.unsynced = true;
        Ok(Feed::new(host, self.active, shard))
    }

    /// What cuts the data; a refusal if it is written in a way that can't be followed.
    fn splitter(&mut self, statement: &Statement<'_>) -> Result<Cutter, Refusal> {
        let options = &statement.copy.options;
        let version = self.links[self.active].conn.as_ref().and_then(|conn| {
            let (_, version) = conn
                .parameters
                .iter()
                .find(|(name, _)| name == "server_version")?;
            version
                .split(|c: char| !c.is_ascii_digit())
                .next()?
                .parse::<u32>()
                .ok()
        });
        let encoding = self.data_encoding(statement);
        let safe = options.format == Format::Binary || keeps_ascii(&encoding);
        let splitter = Splitter::new(options, version.is_none_or(|version| version < 18));
        Ok(Cutter {
            splitter: splitter
                .filter(|_| safe)
                .ok_or_else(|| statement.copy.unsplittable(&encoding))?,
            map: self.map.clone(),
            only: statement.only,
            ascii: !matches!(&*encoding, "utf8" | "unicode" | "sqlascii"),
            most: self.map.proxy.limits.copy_held_bytes,
        })
    }

    /// The encoding of the data.
    fn data_encoding(&self, statement: &Statement<'_>) -> String {
        let set = self
            .client
            .reported
            .iter()
            .find(|(name, _)| name == "client_encoding");
        let given = statement.copy.options.encoding.as_deref();
        let name = given
            .or(set.map(|(_, value)| value.as_bytes()))
            .unwrap_or(b"utf8");
        encoding_name(name)
    }

    /// Takes rows from the client until there are no more, or something is wrong.
    async fn take_rows(
        &mut self,
        statement: &Statement<'_>,
        cutter: &mut Cutter,
        data: &mut Data,
        feeds: &mut Feeds,
        heard: &mut Heard,
        fresh: bool,
    ) -> Result<End, Fault> {
        loop {
            let fail = self.take_data(data)?;
            let hold = feeds.hold(cutter.most);
            loop {
                match data.cut(cutter, statement.copy, feeds) {
                    Cut::More => break,
                    Cut::End => return Ok(End::Whole),
                    Cut::Bad(bad) => return Ok(End::Bad(bad)),
                    Cut::Full => self.send(statement, feeds, heard, hold).await?,
                    Cut::Host(host) if !feeds.first().chosen => {
                        self.turn_feed(statement, feeds, heard, host, fresh).await?;
                    }
                    Cut::Host(host) => {
                        if let Some(bad) = self.refused_host(statement, data, feeds, host).await? {
                            return Ok(End::Bad(bad));
                        }
                        self.add_feed(statement, feeds, heard, host).await?;
                    }
                }
                if heard.error.is_some() {
                    return Ok(End::Refused);
                }
            }
            if let Some(fail) = fail {
                return Ok(End::Fail(fail));
            }
            self.write_due(statement, feeds, hold);
            let until = match feeds.are_ahead(hold) {
                true => Until::Written,
                false => Until::Client,
            };
            self.feed_until(until, feeds, heard, &statement.copy.table)
                .await?;
            if heard.error.is_some() {
                return Ok(End::Refused);
            }
        }
    }

    /// What the client has said so far; its CopyFail if that is among it.
    fn take_data(&mut self, data: &mut Data) -> Result<Option<Vec<u8>>, Fault> {
        while !data.whole {
            let here = data.coming.min(self.client.pending().len());
            data.add(&self.client.inbox[self.client.read..self.client.read + here]);
            self.client.consume(here);
            data.coming -= here;
            let pending = self.client.pending();
            let header =
                frame::frontend_header(pending).map_err(|e| Fault::violation(e.to_string()))?;
            let Some(header) = header.filter(|_| data.coming == 0) else {
                return Ok(None);
            };
            if header.tag == b'd' {
                data.coming = header.body_len();
                self.client.consume(frame::HEADER);
                continue;
            }
            if pending.len() < header.len {
                return Ok(None);
            }
            match header.tag {
                b'f' => {
                    let message = pending[..header.len].to_vec();
                    self.client.consume(header.len);
                    return Ok(Some(message));
                }
                b'c' => data.whole = true,
                // Postgres ignores them while it copies.
                b'S' | b'H' => {}
                b'X' => return Err(Fault::client(std::io::ErrorKind::UnexpectedEof.into())),
                tag => return Err(unexpected(tag)),
            }
            self.client.consume(header.len);
        }
        Ok(None)
    }

    /// The first row says which host is written on. If that is not where the COPY was begun, it is begun anew.
    async fn turn_feed(
        &mut self,
        statement: &Statement<'_>,
        feeds: &mut Feeds,
        heard: &mut Heard,
        host: HostId,
        fresh: bool,
    ) -> Result<(), Fault> {
        if host != feeds.first().host {
            self.leave(statement, feeds, heard, fresh).await?;
            if heard.error.is_some() {
                return Ok(());
            }
            let new = self.begin_on(statement, host, true).await?;
            feeds.replace(new);
        } else {
            self.note_writer(host);
        }
        feeds.first().chosen = true;
        Ok(())
    }

    /// Ends the COPY on a host that gets no rows, as if it had not been begun.
    async fn leave(
        &mut self,
        statement: &Statement<'_>,
        feeds: &mut Feeds,
        heard: &mut Heard,
        fresh: bool,
    ) -> Result<(), Fault> {
        let table = &statement.copy.table;
        if !fresh {
            return self.end_feeds(statement, feeds, heard).await;
        }
        let outbox = &mut self.links[feeds.first().link].outbox;
        frontend::copy_fail(outbox, b"another host is meant");
        frontend::sync(outbox);
        heard.leaving = true;
        self.feed_until(Until::Ready, feeds, heard, table).await?;
        (heard.error, heard.leaving) = (None, false);
        if self.block.is_some() {
            // The block on it has failed; it has not taken part in anything.
            let mut link = self.links.remove(feeds.first().link);
            link.discard();
            self.active = 0;
        }
        Ok(())
    }

    /// Why no rows can go to one host more, if they can't.
    async fn refused_host(
        &self,
        statement: &Statement<'_>,
        data: &Data,
        feeds: &mut Feeds,
        host: HostId,
    ) -> Result<Option<Bad>, Fault> {
        let first = feeds.first().host;
        let refused = self
            .check_writers(&[first, host])
            .await
            .and_then(|_| self.check_snapshot(host));
        let fields = match refused {
            Ok(()) => return Ok(None),
            Err(Fault::Statement(fields)) => fields,
            Err(fault) => return Err(fault),
        };
        let (first, host) = (&self.map.host(first).name, &self.map.host(host).name);
        let mut fields = fields.context(format!(
            "COPY {}, line {}",
            statement.copy.table,
            data.lines + 1
        ));
        if fields.code == SqlState::MORE_THAN_ONE_SHARD {
            fields.message = format!(
                "the rows of the COPY are of shards on host {first:?} and on host {host:?}"
            )
            .into();
        }
        Ok(Some(Bad {
            fields: Box::new(fields),
            raw: None,
        }))
    }

    /// Rows for one host more: from here on all of it is in a block, which can't begin in the middle of a COPY.
    async fn add_feed(
        &mut self,
        statement: &Statement<'_>,
        feeds: &mut Feeds,
        heard: &mut Heard,
        host: HostId,
    ) -> Result<(), Fault> {
        for at in 0..feeds.all.len() {
            while feeds.all[at].is_sending() {
                self.write_due(statement, feeds, Hold::Below(usize::MAX));
                self.feed_until(Until::Written, feeds, heard, &statement.copy.table)
                    .await?;
                if heard.error.is_some() {
                    return Ok(());
                }
            }
        }
        self.end_feeds(statement, feeds, heard).await?;
        if heard.error.is_some() {
            return Ok(());
        }
        let mut feed = self.begin_on(statement, host, true).await?;
        feed.chosen = true;
        feeds.add(feed);
        Ok(())
    }

    /// Writes the next piece for each server for which one is due and the one before has gone. `true`: more is due.
    fn write_due(&mut self, statement: &Statement<'_>, feeds: &mut Feeds, hold: Hold) -> bool {
        let (hold, mut more) = (feeds.share(hold), false);
        for feed in &mut feeds.all {
            let link = &mut self.links[feed.link];
            if link.outbox.is_empty() {
                let begin = |out: &mut Vec<u8>, shard| statement.begin(&self.map, shard, out);
                feed.write(&mut link.outbox, hold, begin);
            }
            more |= feed.is_due(hold);
        }
        more
    }

    /// Sends until no more is held than may be, unless a server refuses something.
    async fn send(
        &mut self,
        statement: &Statement<'_>,
        feeds: &mut Feeds,
        heard: &mut Heard,
        hold: Hold,
    ) -> Result<(), Fault> {
        while heard.error.is_none() && self.write_due(statement, feeds, hold) {
            self.feed_until(Until::Written, feeds, heard, &statement.copy.table)
                .await?;
        }
        Ok(())
    }

    /// A COPY is open on the first host again, if it is not; its link.
    fn begin_again(&mut self, statement: &Statement<'_>, feeds: &mut Feeds) -> usize {
        let feed = feeds.first();
        let shard = self.first_shard(feed.host, statement.only);
        if feed.open.is_none() {
            statement.begin(&self.map, shard, &mut self.links[feed.link].outbox);
            feed.segments.push_back(Default::default());
        }
        feed.link
    }
}
