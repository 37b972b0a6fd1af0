//! What a page is, and how it is gathered: windows of ids, read from one end, that several sources fill together.

use std::collections::BTreeMap;

use super::clock::now_ms;
use super::objects::Object;
use super::stars::first_id;
use super::store::{Ids, Span};
use super::{FEED_AGE_MS, FEED_MOST, MediaId};

/// The media of a page if nobody says how many.
pub const PAGE: usize = 100;

/// The most media of a page.
pub const PAGE_MOST: usize = 200;

/// Where a page came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The feed as the store has it.
    List,
    /// The store had no feed: it was built from Postgres for this page.
    Built,
    /// The store could not be asked: Postgres alone.
    Degraded,
    /// Not a feed: Postgres by design.
    Postgres,
}

impl Source {
    /// As headers and metrics say it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Source::List => "list",
            Source::Built => "built",
            Source::Degraded => "degraded",
            Source::Postgres => "postgres",
        }
    }
}

/// A page, newest first.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its media.
    pub media: Vec<Object>,
    /// There are more in the direction that was asked for.
    pub more: bool,
    /// Where it came from.
    pub source: Source,
}

/// The lowest id that a feed may show now.
pub(super) fn horizon() -> MediaId {
    first_id(now_ms().saturating_sub(FEED_AGE_MS))
}

/// A run of ids, read from one end.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// The lowest id in it.
    pub(super) low: MediaId,
    /// The id above its highest.
    pub(super) high: MediaId,
    /// It is read from the newest to the oldest.
    pub(super) older: bool,
    /// There is nothing behind it.
    pub(super) last: bool,
}

impl Window {
    /// All that the span asks for.
    pub(super) fn all(span: Span, horizon: MediaId) -> Window {
        let (low, high, older) = match span {
            Span::Newest => (horizon, MediaId::MAX, true),
            Span::Before(id) => (horizon, id, true),
            Span::After(id) => (id.saturating_add(1).max(horizon), MediaId::MAX, false),
        };
        Window {
            low,
            high,
            older,
            last: true,
        }
    }

    /// What these ids of a feed cover: up to the last of them, if there are more behind it.
    pub(super) fn of(span: Span, ids: &Ids, horizon: MediaId) -> Window {
        let mut window = Window::all(span, horizon);
        if ids.more {
            match window.older {
                true => window.end_at(ids.ids.last()),
                false => window.end_at(ids.ids.first()),
            }
        }
        window
    }

    /// Of what is asked for from the oldest on, that of which the feed says nothing because it is older than its end.
    pub(super) fn below(span: Span, ids: &Ids, horizon: MediaId) -> Option<Window> {
        let mut window = Window::all(span, horizon);
        window.high = ids.trimmed.saturating_add(1);
        window.last = false;
        (!window.older && window.low < window.high).then_some(window)
    }

    /// If there are more than `most` ids, nothing is known of what is behind them.
    pub(super) fn shrink(&mut self, ids: &[MediaId], most: usize) {
        if ids.len() > most {
            match self.older {
                true => self.end_at(ids.iter().min()),
                false => self.end_at(ids.iter().max()),
            }
        }
    }

    fn end_at(&mut self, id: Option<&MediaId>) {
        let Some(id) = id else { return };
        match self.older {
            true if *id > self.low => self.low = *id,
            false if *id < self.high => self.high = id.saturating_add(1),
            _ => return,
        }
        self.last = false;
    }

    pub(super) fn covers(&self, id: MediaId) -> bool {
        self.low <= id && id < self.high
    }

    pub(super) fn order(&self) -> &'static str {
        if self.older { "DESC" } else { "ASC" }
    }
}

/// What a page has so far, in the order in which it is read.
pub(super) struct Gathered {
    media: Vec<Object>,
    most: usize,
    older: bool,
    at: Span,
}

impl Gathered {
    pub(super) fn new(span: Span, most: usize) -> Gathered {
        Gathered {
            media: Vec::with_capacity(most),
            most,
            older: !matches!(span, Span::After(_)),
            at: span,
        }
    }

    pub(super) fn take(&mut self, objects: BTreeMap<MediaId, Object>, window: &Window) {
        match self.older {
            true => {
                self.media.extend(objects.into_values().rev());
                self.at = Span::Before(window.low);
            }
            false => {
                self.media.extend(objects.into_values());
                self.at = Span::After(window.high - 1);
            }
        }
    }

    /// More than there is room for: the page is full, and there is more.
    pub(super) fn is_over(&self) -> bool {
        self.media.len() > self.most
    }

    pub(super) fn at(&self) -> Span {
        self.at
    }

    pub(super) fn into_page(mut self, source: Source) -> Page {
        let more = self.is_over();
        self.media.truncate(self.most);
        if !self.older {
            self.media.reverse();
        }
        Page {
            media: self.media,
            more,
            source,
        }
    }

    /// Of media that come in the order of the window, one more than `most` if there are.
    pub(super) fn page_of(
        media: Vec<Object>,
        most: usize,
        window: &Window,
        source: Source,
    ) -> Page {
        let page = Gathered {
            media,
            most,
            older: window.older,
            at: Span::Newest,
        };
        page.into_page(source)
    }
}

/// What [`Store::read`] would say of these ids, newest first.
pub(super) fn cut(ids: &[MediaId], span: Span, most: usize) -> Ids {
    let (from, to) = match span {
        Span::Newest => (0, ids.len()),
        Span::Before(id) => (ids.partition_point(|i| *i >= id), ids.len()),
        Span::After(id) => (0, ids.partition_point(|i| *i > id)),
    };
    let all = &ids[from..to];
    let more = all.len() > most;
    let some = match span {
        Span::After(_) => &all[all.len().saturating_sub(most)..],
        _ => &all[..all.len().min(most)],
    };
    // As a feed's: what was built is the newest of all, up to the most that a feed holds.
    let trimmed = match ids.last() {
        Some(oldest) if ids.len() >= FEED_MOST => oldest.saturating_sub(1),
        _ => MediaId::MIN,
    };
    Ids {
        ids: some.to_vec(),
        more,
        trimmed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[MediaId], more: bool) -> Ids {
        Ids {
            ids: ids.to_vec(),
            more,
            trimmed: MediaId::MIN,
        }
    }

    fn range(w: &Window) -> (MediaId, MediaId, bool) {
        (w.low, w.high, w.last)
    }

    #[test]
    fn a_window_reaches_as_far_as_all_of_its_sources() {
        let mut w = Window::of(Span::Before(50), &ids(&[40, 30], true), 10);
        assert_eq!(range(&w), (30, 50, false));
        w.shrink(&[49, 45], 2);
        assert_eq!(range(&w), (30, 50, false));
        w.shrink(&[49, 45, 42], 2);
        assert_eq!(range(&w), (42, 50, false));
        let w = Window::of(Span::Newest, &ids(&[40, 30], false), 10);
        assert_eq!(range(&w), (10, MediaId::MAX, true));
        // What is too old is not reached, so nothing is behind.
        let w = Window::of(Span::Before(50), &ids(&[40, 5], true), 10);
        assert_eq!(range(&w), (10, 50, true));
        let mut w = Window::of(Span::After(20), &ids(&[40, 30], true), 10);
        assert_eq!(range(&w), (21, 41, false));
        w.shrink(&[22, 23], 1);
        assert_eq!(range(&w), (21, 24, false));
        let w = Window::of(Span::After(MediaId::MAX), &ids(&[], false), 10);
        assert!(!w.covers(MediaId::MAX));
    }

    #[test]
    fn below_its_end_a_feed_says_nothing() {
        let trimmed = Ids {
            trimmed: 25,
            ..ids(&[40, 30], false)
        };
        let below = |span, horizon| Window::below(span, &trimmed, horizon).map(|w| range(&w));
        assert_eq!(below(Span::After(20), 10), Some((21, 26, false)));
        assert_eq!(below(Span::After(3), 10), Some((10, 26, false)));
        assert_eq!(below(Span::After(25), 10), None);
        assert_eq!(below(Span::After(20), 26), None);
        assert_eq!(below(Span::Before(20), 10), None);
        let whole = ids(&[40, 30], false);
        assert!(Window::below(Span::After(0), &whole, 0).is_none());
    }

    #[test]
    fn ids_are_cut_as_the_store_cuts_them() {
        let all = [9, 7, 5, 3];
        assert_eq!(cut(&all, Span::Newest, 2), ids(&[9, 7], true));
        assert_eq!(cut(&all, Span::Newest, 4), ids(&all, false));
        assert_eq!(cut(&all, Span::Before(7), 9), ids(&[5, 3], false));
        assert_eq!(cut(&all, Span::Before(8), 1), ids(&[7], true));
        assert_eq!(cut(&all, Span::After(3), 2), ids(&[7, 5], true));
        assert_eq!(cut(&all, Span::After(4), 9), ids(&[9, 7, 5], false));
        assert_eq!(cut(&all, Span::After(9), 9), ids(&[], false));
    }

    #[test]
    fn a_page_is_newest_first_in_both_directions() {
        let objects = |ids: &[MediaId]| {
            let objects = ids.iter().map(|id| (*id, Object::new(*id, 1, "{}", "")));
            objects.collect::<BTreeMap<_, _>>()
        };
        let seen = |page: &Page| page.media.iter().map(|o| o.id).collect::<Vec<_>>();
        for (span, first, second, want) in [
            (Span::Newest, [8, 9], [6, 7], [9, 8, 7]),
            (Span::After(1), [2, 3], [4, 5], [4, 3, 2]),
        ] {
            let window = Window::all(span, 0);
            let mut page = Gathered::new(span, 3);
            page.take(objects(&first), &window);
            assert!(!page.is_over());
            page.take(objects(&second), &window);
            assert!(page.is_over());
            let page = page.into_page(Source::List);
            assert_eq!((seen(&page), page.more), (want.to_vec(), true));
        }
    }
}
