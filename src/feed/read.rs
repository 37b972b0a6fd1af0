//! The home timeline: a feed, the reader's own media and stars' media, merged. What a feed holds is a candidate: a page shows an
//! author only if the reader's edge says so now, and a media only if it is there.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::build::Builds;
use super::db::{Db, Fault};
use super::metrics::Metrics;
use super::newest::Placing;
use super::objects::{Flights, Object};
use super::page::{Gathered, Page, Source, Window, cut, horizon};
use super::profile::Public;
use super::pulled::Pulled;
use super::shown::Shown;
use super::slow::waiting;
use super::store::{Ids, Span, Store, StoreFault};
use super::{MediaId, UserId};

/// How long a call of the store may take before the page is made without it.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// No page could be made.
#[derive(Debug, thiserror::Error)]
pub enum ReadFault {
    /// Postgres could not say.
    #[error(transparent)]
    Db(#[from] Fault),
    /// The viewer may not see it, or it is not there.
    #[error("not found")]
    NotFound,
    /// The author's account is private, and the viewer is no follower.
    #[error("user {0} is private")]
    Private(UserId),
}

/// What is known of the store within one request: after one fault it is not asked again.
#[derive(Debug, Default)]
pub(super) struct StoreState {
    pub(super) down: bool,
}

/// Reads pages, from any number of tasks.
#[derive(Debug)]
pub struct Reader {
    pub(super) db: Db,
    pub(super) store: Arc<dyn Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) flights: Flights,
    pub(super) builds: Builds,
    pub(super) public: Public,
    pub(super) pulled: Pulled,
    pub(super) placing: Placing,
    patience: Duration,
}

/// Where the ids of a feed come from, page by page.
pub(super) enum List {
    /// The store; with what it has said to the first question.
    Store(Option<Ids>),
    /// Ids built for this request, newest first.
    Built(Vec<MediaId>),
}

impl Reader {
    /// Over these.
    #[must_use]
    pub fn new(db: Db, store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Reader {
        Reader {
            db,
            store,
            metrics,
            flights: Flights::default(),
            builds: Builds::default(),
            public: Public::default(),
            pulled: Pulled::default(),
            placing: Placing::default(),
            patience: PATIENCE,
        }
    }

    /// Waits so long for the store.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Reader {
        self.patience = patience;
        self
    }

    /// Keeps the `newest` media of each star for so long.
    #[must_use]
    pub fn keep_stars(mut self, kept_for: Duration, newest: usize) -> Reader {
        self.pulled = Pulled::new(kept_for, newest);
        self
    }

    /// The home timeline of a user: at most `most` media.
    ///
    /// # Errors
    /// If Postgres can't be asked. Whatever the store does is none.
    pub async fn home(&self, reader: UserId, span: Span, most: usize) -> Result<Page, ReadFault> {
        let page = self.home_page(reader, span, most).await?;
        self.metrics.read("home", page.source);
        Ok(page)
    }

    async fn home_page(&self, reader: UserId, span: Span, most: usize) -> Result<Page, ReadFault> {
        let mut store = StoreState::default();
        let horizon = horizon();
        // Some more than the page has room for: what is dropped need not cost another round.
        let chunk = most + most / 8 + 8;
        let first = self.ask(&mut store, "read", self.store.read(reader, span, chunk));
        let (mut list, mut source) = match first.await {
            None => return self.postgres_alone(reader, span, most).await,
            Some(Some(ids)) => (List::Store(Some(ids)), Source::List),
            Some(None) => match self.build(reader, span, chunk, &mut store).await? {
                None => return self.postgres_alone(reader, span, most).await,
                Some(list @ List::Store(_)) => (list, Source::List),
                Some(list @ List::Built(_)) => (list, Source::Built),
            },
        };
        let mut page = Gathered::new(span, most);
        let mut at = span;
        loop {
            let ids = match &mut list {
                List::Built(ids) => cut(ids, at, chunk),
                List::Store(known) => match known.take() {
                    Some(ids) => ids,
                    None => match self
                        .ask(&mut store, "read", self.store.read(reader, at, chunk))
                        .await
                    {
                        Some(Some(ids)) => ids,
                        None => return self.postgres_alone(reader, span, most).await,
                        // Dropped between two rounds.
                        Some(None) => match self.build(reader, at, chunk, &mut store).await? {
                            None => return self.postgres_alone(reader, span, most).await,
                            Some(new) => {
                                list = new;
                                source = Source::Built;
                                continue;
                            }
                        },
                    },
                },
            };
            if let Some(window) = Window::below(at, &ids, horizon) {
                self.below(reader, window, most, &mut page).await?;
                source = Source::Postgres;
                if page.is_over() {
                    break;
                }
                at = page.at();
                continue;
            }
            let done = self
                .round(reader, at, ids, horizon, chunk, &mut store, &mut page)
                .await?;
            if done || page.is_over() {
                break;
            }
            at = page.at();
        }
        if store.down {
            source = Source::Degraded;
        }
        Ok(page.into_page(source))
    }

    /// One step of a page: the media of all sources within the window that these ids of the feed cover. True if nothing is left.
    #[expect(clippy::too_many_arguments, reason = "one caller")]
    async fn round(
        &self,
        reader: UserId,
        at: Span,
        ids: Ids,
        horizon: MediaId,
        chunk: usize,
        store: &mut StoreState,
        page: &mut Gathered,
    ) -> Result<bool, ReadFault> {
        let mut window = Window::of(at, &ids, horizon);
        let mut objects = self.objects(&ids.ids, store).await?;
        let dropped: Vec<MediaId> = ids
            .ids
            .iter()
            .copied()
            .filter(|id| !objects.contains_key(id) || *id < horizon)
            .collect();
        let authors: HashSet<UserId> = objects.values().map(|o| o.author).collect();
        let authors: Vec<UserId> = authors.into_iter().collect();
        let Shown {
            follows,
            stars,
            own,
        } = self.shown(reader, &authors, &window, chunk).await?;
        window.shrink(&own, chunk);
        // The reader's own are as its shard says, whatever lists and caches hold.
        let own: HashSet<MediaId> = own.into_iter().collect();
        objects.retain(|id, o| match o.author == reader {
            true => own.contains(id),
            false => follows.contains(&o.author),
        });
        let unseen: Vec<MediaId> = own
            .iter()
            .copied()
            .filter(|id| !objects.contains_key(id) && window.covers(*id))
            .collect();
        objects.extend(self.objects(&unseen, store).await?);
        let stars: Vec<UserId> = stars
            .iter()
            .filter(|(_, star)| star.may_pull(window.low..window.high))
            .map(|(author, _)| *author)
            .collect();
        if !stars.is_empty() {
            let pulled = self.pulled(&stars, &window, chunk).await?;
            let pulled_ids: Vec<MediaId> = pulled.iter().map(|o| o.id).collect();
            window.shrink(&pulled_ids, chunk);
            objects.extend(pulled.into_iter().map(|o| (o.id, o)));
        }
        let mut objects: BTreeMap<MediaId, Object> = objects
            .into_iter()
            .filter(|(id, _)| window.covers(*id))
            .collect();
        // Behind what was trimmed there would be gaps.
        let list_ends_above = |oldest| ids.ids.last().is_none_or(|last| oldest < last);
        if window.older && !ids.more && objects.keys().next().is_some_and(list_ends_above) {
            objects.retain(|id, _| *id > ids.trimmed);
            window.last |= window.low <= ids.trimmed;
        }
        page.take(objects, &window);
        if !dropped.is_empty() && !store.down {
            let store = self.store.clone();
            self.behind(
                "remove",
                async move { store.remove(reader, &dropped).await },
            );
        }
        Ok(window.last)
    }

    /// What the feed says nothing of, being older than its end.
    async fn below(
        &self,
        reader: UserId,
        mut window: Window,
        most: usize,
        page: &mut Gathered,
    ) -> Result<(), ReadFault> {
        let media = self.shown_media(reader, &window, most).await?;
        let ids: Vec<MediaId> = media.iter().map(|o| o.id).collect();
        window.shrink(&ids, most);
        page.take(media.into_iter().map(|o| (o.id, o)).collect(), &window);
        Ok(())
    }

    /// A home page made of the edges and media in Postgres, without the store.
    async fn postgres_alone(
        &self,
        reader: UserId,
        span: Span,
        most: usize,
    ) -> Result<Page, ReadFault> {
        let window = Window::all(span, horizon());
        let media = self.shown_media(reader, &window, most).await?;
        Ok(Gathered::page_of(media, most, &window, Source::Degraded))
    }

    /// What edges and media say of a window of a home, in its order: one more than `most` if there are.
    async fn shown_media(
        &self,
        reader: UserId,
        window: &Window,
        most: usize,
    ) -> Result<Vec<Object>, ReadFault> {
        let mut authors = self.shown_followees(reader).await?;
        authors.push(reader);
        self.media_of(&authors, window, most).await
    }

    /// Asks the store, if it has answered so far. `None`: it could not, or came too late.
    pub(super) async fn ask<T>(
        &self,
        state: &mut StoreState,
        call: &'static str,
        answer: impl Future<Output = Result<T, StoreFault>>,
    ) -> Option<T> {
        if state.down {
            return None;
        }
        let _answer = waiting("store", call);
        let why = match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(fault)) => fault.to_string(),
            Err(_) => format!("no answer within {:?}", self.patience),
        };
        tracing::warn!(call, "the store could not be asked: {why}");
        self.metrics.store_fault(call);
        state.down = true;
        None
    }

    /// Tells the store something that no page waits for.
    pub(super) fn behind(
        &self,
        call: &'static str,
        told: impl Future<Output = Result<(), StoreFault>> + Send + 'static,
    ) {
        let (metrics, patience) = (self.metrics.clone(), self.patience);
        tokio::spawn(async move {
            if !matches!(tokio::time::timeout(patience, told).await, Ok(Ok(()))) {
                metrics.store_fault(call);
            }
        });
    }
}
