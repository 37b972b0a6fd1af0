//! Timelines that are no feeds and come from Postgres alone: an author's own media, and the newest of all; and who may see whose.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::db::Fault;
use super::objects::{COLUMNS, Object};
use super::page::{Gathered, PAGE_MOST, Page, Source, Window};
use super::read::{ReadFault, Reader, StoreState};
use super::store::Span;
use super::{MediaId, UserId};

/// How old the newest public media may be when they are shown: all shards are asked for them, so once for all readers.
const PUBLIC_FOR: Duration = Duration::from_millis(500);

/// The newest public media, as they were read last, newest first; one reader at a time asks for newer ones.
#[derive(Debug, Default)]
pub(super) struct Public {
    newest: Mutex<Option<Reading>>,
}

/// What a reading of Postgres that began then has said.
type Reading = (Instant, Result<Arc<[Object]>, Fault>);

impl Reader {
    /// An author's own media. `viewer`: on whose behalf; nobody's is the public.
    ///
    /// # Errors
    /// If the viewer may not see the author, or Postgres can't be asked.
    pub async fn profile(
        &self,
        author: UserId,
        viewer: Option<UserId>,
        span: Span,
        most: usize,
    ) -> Result<Page, ReadFault> {
        self.may_see(author, viewer).await?;
        let window = Window::all(span, 0);
        let media = self.media_of(&[author], &window, most).await?;
        self.metrics.read("profile", Source::Postgres);
        Ok(Gathered::page_of(media, most, &window, Source::Postgres))
    }

    /// The newest media of all authors who are not private.
    ///
    /// # Errors
    /// If Postgres can't be asked.
    pub async fn public(&self, span: Span, most: usize) -> Result<Page, ReadFault> {
        let window = Window::all(span, 0);
        let media = match span {
            Span::Newest => {
                let newest = self.newest_public().await?;
                newest.iter().take(most + 1).cloned().collect()
            }
            _ => self.public_media(&window, most).await?,
        };
        self.metrics.read("public", Source::Postgres);
        Ok(Gathered::page_of(media, most, &window, Source::Postgres))
    }

    async fn newest_public(&self) -> Result<Arc<[Object]>, ReadFault> {
        // Whoever finds them too old keeps the others waiting until it has newer ones.
        let came = Instant::now();
        let mut newest = self.public.newest.lock().await;
        match &*newest {
            // It may have taken longer than it is kept, or failed: so it did for all who were waiting for it.
            Some((began, said)) if *began >= came => return Ok(said.clone()?),
            Some((began, Ok(media))) if began.elapsed() < PUBLIC_FOR => return Ok(media.clone()),
            _ => {}
        }
        let began = Instant::now();
        let window = Window::all(Span::Newest, 0);
        let said = self.public_media(&window, PAGE_MOST).await;
        let said = said.map(Arc::<[Object]>::from);
        *newest = Some((began, said.clone()));
        Ok(said?)
    }

    async fn public_media(&self, window: &Window, most: usize) -> Result<Vec<Object>, Fault> {
        let text = format!(
            "SELECT {COLUMNS} FROM media m WHERE m.id >= $1 AND m.id < $2 AND m.deleted_at IS NULL AND NOT EXISTS \
             (SELECT FROM user_state u WHERE u.user_id = m.user_id AND u.private) ORDER BY id {} LIMIT $3",
            window.order()
        );
        let limit = most as i64 + 1;
        let rows = self
            .db
            .ask(&text, &[&window.low, &window.high, &limit])
            .await?;
        Object::from_rows(&rows)
    }

    /// One media, on behalf of a viewer.
    ///
    /// # Errors
    /// If it is not there, the viewer may not see it, or Postgres can't be asked.
    pub async fn media(&self, id: MediaId, viewer: Option<UserId>) -> Result<Object, ReadFault> {
        let mut store = StoreState::default();
        let object = self.objects(&[id], &mut store).await?.remove(&id);
        let object = object.ok_or(ReadFault::NotFound)?;
        self.may_see(object.author, viewer).await?;
        // What the author has deleted it does not see again, whatever caches hold.
        const THERE: &str =
            "SELECT 1 FROM media WHERE user_id = $1 AND id = $2 AND deleted_at IS NULL";
        let own = viewer == Some(object.author);
        if own
            && self
                .db
                .ask_one(THERE, &[&object.author, &id])
                .await?
                .is_none()
        {
            return Err(ReadFault::NotFound);
        }
        Ok(object)
    }

    /// A private author is seen by itself and its followers; nobody sees whom it blocks, or who blocks it.
    async fn may_see(&self, author: UserId, viewer: Option<UserId>) -> Result<(), ReadFault> {
        if viewer == Some(author) {
            return Ok(());
        }
        let of_author = "SELECT 'private' AS what FROM user_state WHERE user_id = $1 AND private \
             UNION ALL SELECT status FROM follow_out WHERE user_id = $1 AND target = $2 AND status = 'blocking'";
        let of_viewer = "SELECT status AS what FROM follow_out WHERE user_id = $1 AND target = $2";
        let (author_says, viewer_says) = tokio::try_join!(
            async { self.db.ask(of_author, &[&author, &viewer]).await },
            async {
                match viewer {
                    Some(viewer) => self.db.ask(of_viewer, &[&viewer, &author]).await,
                    None => Ok(Vec::new()),
                }
            }
        )?;
        let says = |rows: &[tokio_postgres::Row], what: &str| {
            rows.iter()
                .any(|row| row.try_get::<_, &str>(0).is_ok_and(|w| w == what))
        };
        if says(&author_says, "blocking") || says(&viewer_says, "blocking") {
            return Err(ReadFault::NotFound);
        }
        match says(&author_says, "private") && !says(&viewer_says, "following") {
            true => Err(ReadFault::Private(author)),
            false => Ok(()),
        }
    }
}
