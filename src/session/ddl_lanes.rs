//! Hosts at work side by side: each lane sends its steps, some ahead of their answers, and reads what comes back.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::Session;
use super::ddl::Item;
use super::ends::poll_link;
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
    /// The schemas in which the statement is run; `None`: `public`.
    pub(super) places: Vec<Option<ShardId>>,
    /// The client hears what the first place of this one says.
    pub(super) tells: bool,
    pub(super) steps: Vec<Step>,
    sent: usize,
    answered: usize,
    /// Steps under way at once.
    pub(super) window: usize,
    pub(super) failure: Option<Failure>,
    /// The connection is gone.
    pub(super) lost: bool,
    /// The locks that the transaction held before the statement.
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
    /// The shard; `None`: `public`.
    pub(super) shard: Option<ShardId>,
    pub(super) what: What,
}

/// What a step does.
#[derive(Clone)]
pub(super) enum What {
    /// Sets the search_path.
    Path,
    /// The statement itself.
    Main,
    /// What belongs behind it, by number.
    After(usize),
    /// Asks for the locks held: before the statement, or after the first of so many places.
    CountLocks(Option<usize>),
}

impl Step {
    /// A step that belongs to no shard.
    pub(super) fn of(what: What) -> Step {
        Step { shard: None, what }
    }
}

impl Lane {
    pub(super) fn new(host: HostId, link: usize, places: Vec<Option<ShardId>>) -> Lane {
        Lane {
            host,
            link,
            places,
            tells: false,
            steps: Vec::new(),
            sent: 0,
            answered: 0,
            window: WINDOW,
            failure: None,
            lost: false,
            locks: 0,
        }
    }

    /// The steps of the statement in one place, with `after` statements behind it. `count`: the locks that it takes are
    /// counted, to see whether there is room for those of all places.
    pub(super) fn push_place(&mut self, place: usize, after: usize, count: bool) {
        let count = count && self.places.len() > 1;
        if count {
            self.steps.push(Step::of(What::CountLocks(None)));
        }
        let shard = self.places[place];
        let step = |what| Step { shard, what };
        self.steps.extend([step(What::Path), step(What::Main)]);
        self.steps.extend((0..after).map(|n| step(What::After(n))));
        if count {
            let all = self.places.len();
            self.steps.push(Step::of(What::CountLocks(Some(all))));
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

    /// The locks held now: by this transaction, by all, and those that there is room for.
    fn counted(&mut self, row: &[Option<u64>], places: Option<usize>) {
        let [Some(own), Some(all), Some(most)] = *row else {
            return;
        };
        let Some(places) = places else {
            self.locks = own;
            return;
        };
        let each = own.saturating_sub(self.locks);
        let needed = each * (places as u64 - 1) + all;
        if needed > most && self.failure.is_none() {
            let fields = ErrorFields::error(
                SqlState::CONFIGURATION_LIMIT,
                format!("{needed} locks would be held, and the host has room for {most}"),
            )
            .detail(format!("The statement takes {each} in each of {places} schemas, and the transaction keeps them until it ends."))
            .hint(format!(
                "Raise max_locks_per_transaction on every host so that times (max_connections + max_prepared_transactions) it is more than {needed}, and restart them; or do less in one transaction.",
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
        item: &Item,
        tag: &mut Option<String>,
    ) -> Result<(), Fault> {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS, PROGRESS);
        loop {
            let stop = lanes.iter().any(|lane| lane.failure.is_some());
            for lane in lanes.iter_mut().filter(|_| !stop) {
                self.send_steps(lane, item);
            }
            for lane in lanes.iter_mut() {
                self.take_lane_answers(lane, tag);
            }
            let stop = lanes.iter().any(|lane| lane.failure.is_some());
            let under_way = lanes.iter().any(|lane| lane.answered < lane.sent);
            let to_send = lanes.iter().any(|lane| lane.sent < lane.steps.len());
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

    fn send_steps(&mut self, lane: &mut Lane, item: &Item) {
        while lane.sent < lane.steps.len() && lane.sent - lane.answered < lane.window {
            let text = self.step_text(item, &lane.steps[lane.sent]);
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
                match poll_link(cx, link) {
                    Poll::Pending => continue,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(cause)) => {
                        lane.lose(Fault::lost(&link.pool.host, cause));
                        link.discard();
                    }
                }
                some = true;
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
    fn take_lane_answers(&mut self, lane: &mut Lane, tag: &mut Option<String>) {
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
            self.take_answer(lane, &message, tag);
        }
    }

    fn take_answer(&mut self, lane: &mut Lane, message: &[u8], tag: &mut Option<String>) {
        let link = &mut self.links[lane.link];
        let body = &message[frame::HEADER..];
        let what = lane.steps.get(lane.answered).map(|step| &step.what);
        let first = lane.tells && tag.is_none() && matches!(what, Some(What::Main));
        match message[0] {
            b'Z' => {
                link.status = body.first().copied().unwrap_or(b'E');
                lane.answered += 1;
            }
            b'C' if first => {
                if let Ok(complete) = CommandComplete::decode(body) {
                    *tag = Some(String::from_utf8_lossy(complete.tag).into_owned());
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
                if let Some(What::CountLocks(places)) = what {
                    let places = *places;
                    lane.counted(&numbers(body), places);
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
    super::queries::row(body)
        .into_iter()
        .map(|value| value.and_then(|text| text.parse().ok()))
        .collect()
}
