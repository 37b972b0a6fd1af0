//! Stars' media for pages: the newest of each star are read from its shard once for all readers within half a second, as all of
//! its followers ask for the same. What is older comes from Postgres for whoever asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio::sync::Mutex as Turn;

use super::UserId;
use super::db::Fault;
use super::objects::{COLUMNS, Object};
use super::page::{PAGE_MOST, Window, horizon};
use super::read::{ReadFault, Reader};

/// How old the newest media of a star may be when they are shown. A deletion is to be seen within a second.
const KEPT_FOR: Duration = Duration::from_millis(500);
/// So many of each star: the largest page, and what is read beyond it.
const NEWEST: usize = PAGE_MOST + PAGE_MOST / 4;
/// Beyond so many stars those that nobody has asked for lately are let go.
const STARS: usize = 1000;

/// The newest media of stars, as they were read last.
#[derive(Debug)]
pub(super) struct Pulled {
    kept_for: Duration,
    newest: usize,
    stars: Mutex<HashMap<UserId, Arc<Turn<Known>>>>,
}

/// What is known of a star; who reads it anew holds the turn.
#[derive(Debug, Default)]
enum Known {
    #[default]
    Nothing,
    Media(Newest),
    /// Reading that began then failed: so it did for all who were waiting for it.
    Fault(Instant, Fault),
}

/// The newest media of a star at a time.
#[derive(Clone, Debug)]
struct Newest {
    read_at: Instant,
    /// Newest first.
    media: Arc<[Object]>,
    /// There are no older ones that a page may show.
    all: bool,
}

impl Default for Pulled {
    fn default() -> Pulled {
        Pulled::new(KEPT_FOR, NEWEST)
    }
}

impl Pulled {
    /// Keeps so many of each star for so long.
    pub(super) fn new(kept_for: Duration, newest: usize) -> Pulled {
        Pulled {
            kept_for,
            newest: newest.max(1),
            stars: Mutex::default(),
        }
    }

    fn of(&self, star: UserId) -> Arc<Turn<Known>> {
        let mut stars = self.stars.lock().unwrap_or_else(PoisonError::into_inner);
        if stars.len() >= STARS {
            // One whose turn is taken is being read just now.
            stars.retain(|_, known| known.try_lock().is_ok_and(|k| k.is_fresh(self.kept_for)));
        }
        stars.entry(star).or_default().clone()
    }
}

impl Known {
    fn is_fresh(&self, kept_for: Duration) -> bool {
        matches!(self, Known::Media(newest) if newest.read_at.elapsed() < kept_for)
    }
}

impl Newest {
    /// The window's media, if they are here: in the window's order at least as many as are asked for, one more if there are.
    fn within(&self, window: &Window, most: usize) -> Option<impl Iterator<Item = &Object>> {
        let reaches = self.all || self.media.last().is_some_and(|o| o.id <= window.low);
        let found = || self.media.iter().filter(|o| window.covers(o.id));
        (reaches || (window.older && found().count() > most)).then(found)
    }
}

impl Reader {
    /// The stars' media within a window, in its order: one more than `most` if there are.
    pub(super) async fn pulled(
        &self,
        stars: &[UserId],
        window: &Window,
        most: usize,
    ) -> Result<Vec<Object>, ReadFault> {
        let lists = try_join_all(stars.iter().map(|star| self.newest_of(*star))).await?;
        let mut media = Vec::new();
        let mut deep = Vec::new();
        for (star, newest) in stars.iter().zip(&lists) {
            match newest.within(window, most) {
                Some(found) => media.extend(found.cloned()),
                None => deep.push(*star),
            }
        }
        if !deep.is_empty() {
            media.extend(self.media_of(&deep, window, most).await?);
        }
        media.sort_unstable_by(|a, b| match window.older {
            true => b.id.cmp(&a.id),
            false => a.id.cmp(&b.id),
        });
        media.truncate(most + 1);
        Ok(media)
    }

    async fn newest_of(&self, star: UserId) -> Result<Newest, ReadFault> {
        let came = Instant::now();
        let known = self.pulled.of(star);
        let mut known = known.lock().await;
        match &*known {
            // Reading it anew may have taken longer than it is kept: it is as new as this call all the same.
            Known::Media(newest)
                if newest.read_at >= came || known.is_fresh(self.pulled.kept_for) =>
            {
                return Ok(newest.clone());
            }
            Known::Fault(began, fault) if *began >= came => return Err(fault.clone().into()),
            _ => {}
        }
        let text = format!(
            "SELECT {COLUMNS} FROM media WHERE user_id = $1 AND id >= $2 AND deleted_at IS NULL ORDER BY id DESC LIMIT $3"
        );
        let read_at = Instant::now();
        let limit = self.pulled.newest as i64;
        let rows = self.db.ask(&text, &[&star, &horizon(), &limit]).await;
        let media: Arc<[Object]> = match rows.and_then(|rows| Object::from_rows(&rows)) {
            Ok(media) => media,
            Err(fault) => {
                *known = Known::Fault(read_at, fault.clone());
                return Err(fault.into());
            }
        };
        let newest = Newest {
            read_at,
            all: media.len() < self.pulled.newest,
            media,
        };
        *known = Known::Media(newest.clone());
        Ok(newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::store::Span;

    #[test]
    fn what_is_kept_answers_only_for_windows_that_it_covers() {
        let newest = |all| Newest {
            read_at: Instant::now(),
            media: [9, 7, 5].map(|id| Object::new(id, 1, "{}", "")).into(),
            all,
        };
        let ids = |newest: Newest, span, horizon, most| {
            let window = Window::all(span, horizon);
            let found = newest.within(&window, most);
            found.map(|found| found.map(|o| o.id).collect::<Vec<_>>())
        };
        // Older ones are not known of: the page has to end above them, or to be full before.
        assert_eq!(ids(newest(false), Span::Newest, 5, 9), Some(vec![9, 7, 5]));
        assert_eq!(ids(newest(false), Span::Newest, 4, 3), None);
        assert_eq!(ids(newest(false), Span::Newest, 4, 2), Some(vec![9, 7, 5]));
        assert_eq!(ids(newest(false), Span::Before(9), 4, 2), None);
        assert_eq!(ids(newest(false), Span::Before(9), 4, 1), Some(vec![7, 5]));
        // The other way round the oldest are wanted first.
        assert_eq!(ids(newest(false), Span::After(3), 0, 1), None);
        assert_eq!(ids(newest(false), Span::After(5), 0, 1), Some(vec![9, 7]));
        assert_eq!(ids(newest(true), Span::After(3), 0, 9), Some(vec![9, 7, 5]));
        assert_eq!(ids(newest(true), Span::Newest, 0, 9), Some(vec![9, 7, 5]));
    }
}
