//! Hosts at work side by side: each lane sends its steps, some ahead of their answers, and reads what comes back.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::Session;
use super::ddl::Item;
use super::ends::poll_fill;
use super::errors::Fault;
use crate::shardmap::{HostId, ShardId};
use crate::wire::backend::{CommandComplete, ErrorView, ParameterStatus};
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::{frame, frontend};

/// Steps sent ahead of their answers: enough to keep a host busy, few enough to stop soon after a failure.
const WINDOW: usize = 64;
/// How often a client hears how far a long run is.
const PROGRESS: Duration = Duration::from_secs(5);

/// One host's part.
pub(super) struct Lane {
    pub(super) host: HostId,
    /// Its place in `Session::links`.
    pub(super) link: usize,
    pub(super) steps: Vec<Step>,
    sent: usize,
    answered: usize,
    /// Steps under way at once.
    pub(super) window: usize,
    pub(super) failure: Option<Failure>,
    /// The connection is gone.
    pub(super) lost: bool,
    /// Locks that the steps so far will hold, as far as is known.
    locks: u64,
}

/// What went wrong first.
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) fields: ErrorFields,
}

/// One Query.
#[derive(Clone)]
pub(super) struct Step {
    /// The statement that it belongs to.
    pub(super) item: usize,
    /// The shard; `None`: `public`.
    pub(super) shard: Option<ShardId>,
    pub(super) what: What,
    /// It is the first of its statement: its answer is passed on.
    pub(super) first: bool,
}

/// What a step does.
#[derive(Clone)]
pub(super) enum What {
    /// Any text.
    Text(String),
    /// Sets the search_path until the transaction ends.
    LocalPath,
    /// Sets the search_path.
    Path,
    /// The statement itself.
    Main,
    /// What belongs behind it, by number.
    After(usize),
    /// Asks for the locks held, after the first of so many shards.
    Probe(usize),
}

impl Step {
    /// A step that belongs to no statement.
    pub(super) fn of(what: What) -> Step {
        Step {
            item: usize::MAX,
            shard: None,
            what,
            first: false,
        }
    }
}

impl Lane {
    pub(super) fn new(host: HostId, link: usize) -> Lane {
        Lane {
            host,
            link,
            steps: Vec::new(),
            sent: 0,
            answered: 0,
            window: WINDOW,
            failure: None,
            lost: false,
            locks: 0,
        }
    }

    /// Forgets the steps so far, and what went wrong with them unless the connection did.
    pub(super) fn restart(&mut self) {
        self.steps.clear();
        (self.sent, self.answered) = (0, 0);
        if !self.lost {
            self.failure = None;
        }
    }

    pub(super) fn failed_step(&self) -> Option<&Step> {
        self.failure.as_ref().map(|failure| &failure.step)
    }

    /// The shards in which the statement itself has succeeded.
    pub(super) fn done_shards(&self) -> impl Iterator<Item = u32> {
        let failed = self.failed_step().and_then(|step| step.shard);
        let done = self.steps[..self.answered]
            .iter()
            .filter(|step| matches!(step.what, What::Main));
        done.filter_map(|step| step.shard)
            .filter(move |shard| Some(*shard) != failed)
            .map(|shard| shard.0)
    }

    fn fail(&mut self, fields: ErrorFields) {
        let step = self.steps.get(self.answered).cloned();
        self.failure.get_or_insert(Failure {
            step: step.unwrap_or_else(|| Step::of(What::Main)),
            fields,
        });
    }

    fn lose(&mut self, fault: Fault) {
        self.lost = true;
        self.answered = self.sent;
        let fields = match fault {
            Fault::Server(fields) | Fault::Statement(fields) | Fault::Fatal(fields) => *fields,
            _ => ErrorFields::error(SqlState::CONNECTION_FAILURE, "the connection is lost"),
        };
        self.fail(fields);
    }

    /// The answer to a probe: the locks held now, and those that there can be.
    fn probed(&mut self, row: &[Option<u64>], shards: usize) {
        let (Some(Some(held)), Some(Some(most))) = (row.first(), row.get(1)) else {
            return;
        };
        let each = held.saturating_sub(self.locks);
        self.locks += each * shards as u64;
        if self.locks > *most && self.failure.is_none() {
            let fields = ErrorFields::error(
                SqlState::CONFIGURATION_LIMIT,
                format!("the transaction would hold {} locks, and the host has room for {most}", self.locks),
            )
            .hint(format!(
                "Raise max_locks_per_transaction on every host so that times (max_connections + max_prepared_transactions) it is more than {}, and restart them; or send fewer statements in one message.",
                self.locks
            ));
            self.fail(fields);
        }
    }
}

impl Session {
    /// Runs the lanes' steps until all are answered, or one has failed and nothing is under way any more.
    pub(super) async fn drive(
        &mut self,
        lanes: &mut [Lane],
        items: &[Item],
        tags: &mut [Option<String>],
    ) -> Result<(), Fault> {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS, PROGRESS);
        loop {
            let stop = lanes.iter().any(|lane| lane.failure.is_some()) && !items.is_empty();
            for lane in lanes.iter_mut().filter(|lane| !lane.lost && !stop) {
                self.send_steps(lane, items);
            }
            for lane in lanes.iter_mut() {
                self.take_lane_answers(lane, tags);
            }
            let stop = stop || lanes.iter().any(|lane| lane.failure.is_some()) && !items.is_empty();
            let under_way = lanes.iter().any(|lane| lane.answered < lane.sent);
            let to_send = lanes
                .iter()
                .any(|lane| !lane.lost && lane.sent < lane.steps.len());
            if !under_way && (stop || !to_send) {
                return Ok(());
            }
            if !under_way {
                continue;
            }
            if self.await_lanes(lanes, &mut ticks).await {
                self.tell_progress(lanes).await?;
            }
        }
    }

    fn send_steps(&mut self, lane: &mut Lane, items: &[Item]) {
        while lane.sent < lane.steps.len() && lane.sent - lane.answered < lane.window {
            let text = self.step_text(items, &lane.steps[lane.sent]);
            frontend::query(&mut self.links[lane.link].outbox, &text);
            lane.sent += 1;
        }
    }

    /// Waits until something has come from a host; `true`: time to say how far it is.
    async fn await_lanes(&mut self, lanes: &mut [Lane], ticks: &mut tokio::time::Interval) -> bool {
        let links = &mut self.links;
        poll_fn(|cx| {
            let mut some = false;
            for lane in lanes.iter_mut().filter(|lane| lane.answered < lane.sent) {
                let link = &mut links[lane.link];
                let flushed = link.poll_flush(cx);
                let lost = match (flushed, poll_fill(cx, link)) {
                    (Poll::Ready(Err(e)), _) | (_, Poll::Ready(Err(e))) => Some(Some(e)),
                    (_, Poll::Ready(Ok(0))) => Some(None),
                    (_, Poll::Ready(Ok(_))) => {
                        some = true;
                        None
                    }
                    (_, Poll::Pending) => None,
                };
                if let Some(cause) = lost {
                    lane.lose(Fault::lost(&link.pool.host, cause));
                    link.discard();
                    some = true;
                }
            }
            match (some, ticks.poll_tick(cx)) {
                (true, _) => Poll::Ready(false),
                (false, Poll::Ready(_)) => Poll::Ready(true),
                (false, Poll::Pending) => Poll::Pending,
            }
        })
        .await
    }

    async fn tell_progress(&mut self, lanes: &[Lane]) -> Result<(), Fault> {
        let main = |steps: &[Step]| {
            steps
                .iter()
                .filter(|step| matches!(step.what, What::Main))
                .count()
        };
        let done: usize = lanes.iter().map(|l| main(&l.steps[..l.answered])).sum();
        let all: usize = lanes.iter().map(|l| main(&l.steps)).sum();
        if all > 1 {
            self.notice(&format!("{done} of {all} done"));
        }
        self.client.flush().await.map_err(Fault::client)
    }

    /// Deals with the whole messages that have come.
    fn take_lane_answers(&mut self, lane: &mut Lane, tags: &mut [Option<String>]) {
        while !lane.lost {
            let link = &mut self.links[lane.link];
            let len = match frame::header(link.unread()) {
                Ok(Some(header)) if link.unread().len() >= header.len => header.len,
                Ok(_) => return,
                Err(_) => {
                    lane.lose(Fault::protocol(&link.pool.host, 0));
                    link.discard();
                    return;
                }
            };
            let message = link.reword(link.unread()[..len].to_vec());
            link.take(len);
            self.take_answer(lane, &message, tags);
        }
    }

    fn take_answer(&mut self, lane: &mut Lane, message: &[u8], tags: &mut [Option<String>]) {
        let link = &mut self.links[lane.link];
        let body = &message[frame::HEADER..];
        let step = lane.steps.get(lane.answered);
        let first = step.is_some_and(|step| step.first && matches!(step.what, What::Main));
        match message[0] {
            b'Z' => {
                link.status = body.first().copied().unwrap_or(b'E');
                lane.answered += 1;
            }
            b'C' if first => {
                let tag = CommandComplete::decode(body).ok();
                let tag = tag.map(|tag| String::from_utf8_lossy(tag.tag).into_owned());
                if let (Some(step), Some(tag)) = (step, tag)
                    && let Some(place) = tags.get_mut(step.item)
                {
                    place.get_or_insert(tag);
                }
            }
            b'N' if first => self.client.outbox.extend_from_slice(message),
            b'A' => self.client.outbox.extend_from_slice(message),
            b'S' => {
                if let (Ok(status), Some(conn)) = (ParameterStatus::decode(body), &mut link.conn) {
                    conn.report(
                        &String::from_utf8_lossy(status.name),
                        &String::from_utf8_lossy(status.value),
                    );
                }
            }
            b'D' => {
                if let Some(Step {
                    what: What::Probe(shards),
                    ..
                }) = step
                {
                    let shards = *shards;
                    lane.probed(&numbers(body), shards);
                }
            }
            b'E' => match ErrorView::decode(body) {
                Ok(view) if !view.is_fatal() => {
                    self.context.stats.server_error();
                    lane.fail(view.to_fields());
                }
                Ok(view) => {
                    lane.lose(Fault::ended(&link.pool.host, &view));
                    link.discard();
                }
                Err(_) => {
                    lane.lose(Fault::protocol(&link.pool.host, b'E'));
                    link.discard();
                }
            },
            _ => {}
        }
    }
}

/// The values of a DataRow that are numbers.
fn numbers(body: &[u8]) -> Vec<Option<u64>> {
    super::ddl_block::row(body)
        .into_iter()
        .map(|value| value.and_then(|text| text.parse().ok()))
        .collect()
}
