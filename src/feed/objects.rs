//! Media as they are cached and answered: the author in front, the JSON behind, so that a page is put together without reading any
//! of it. What the store does not have comes from Postgres by one statement, each id by one flight in this process.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::watch;
use tokio_postgres::Row;

use super::db::{Fault, value};
use super::read::{ReadFault, Reader, StoreState};
use super::store::Cached;
use super::{MediaId, UserId};

/// The columns of media that an object is made of, in the order that [`Object::from_row`] reads them.
pub(super) const COLUMNS: &str = "id, user_id, body::text AS body, \
     to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') AS created";

/// One media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its id.
    pub id: MediaId,
    /// Who made it.
    pub author: UserId,
    /// As the API gives it: `{"id": "..", "user_id": "..", "body": .., "created_at": ".."}`.
    pub json: Bytes,
}

impl Object {
    /// `body` is JSON; `created_at` a time as text.
    #[must_use]
    pub fn new(id: MediaId, author: UserId, body: &str, created_at: &str) -> Object {
        let json = format!(
            "{{\"id\":\"{id}\",\"user_id\":\"{author}\",\"body\":{body},\"created_at\":\"{created_at}\"}}"
        );
        Object {
            id,
            author,
            json: Bytes::from(json),
        }
    }

    /// Of a row with [`COLUMNS`].
    fn from_row(row: &Row) -> Result<Object, Fault> {
        Ok(Object::new(
            value(row, 0)?,
            value(row, 1)?,
            value(row, 2)?,
            value(row, 3)?,
        ))
    }

    /// Of rows with [`COLUMNS`], in their order.
    pub(super) fn from_rows<T: FromIterator<Object>>(rows: &[Row]) -> Result<T, Fault> {
        rows.iter().map(Object::from_row).collect()
    }

    /// As the store keeps it: 8 bytes of author, then the JSON.
    #[must_use]
    pub fn to_cache(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(8 + self.json.len());
        bytes.put_i64(self.author);
        bytes.put_slice(&self.json);
        bytes.freeze()
    }

    /// `None`: it is none of ours, as good as absent.
    #[must_use]
    pub fn from_cache(id: MediaId, cached: &Bytes) -> Option<Object> {
        let (author, _) = cached.split_first_chunk::<8>()?;
        Some(Object {
            id,
            author: UserId::from_be_bytes(*author),
            json: cached.slice(8..),
        })
    }
}

/// What one statement of Postgres brought to all who waited for it.
type Landed = Arc<HashMap<MediaId, Object>>;

/// Ids that are being asked of Postgres just now.
#[derive(Debug, Default)]
pub(super) struct Flights {
    aloft: Mutex<HashMap<MediaId, watch::Receiver<Option<Landed>>>>,
}

/// Ids of one flight; however it ends, nobody waits for it any more.
struct Flight<'a> {
    flights: &'a Flights,
    ids: Vec<MediaId>,
    landed: watch::Sender<Option<Landed>>,
    watcher: watch::Receiver<Option<Landed>>,
}

impl Flights {
    /// Takes those ids that nobody is asking for; the others are waited for.
    fn board(&self, wanted: &[MediaId]) -> (Flight<'_>, Vec<watch::Receiver<Option<Landed>>>) {
        let mut aloft = self.aloft.lock().unwrap_or_else(PoisonError::into_inner);
        let (landed, watcher) = watch::channel(None);
        let mut ids = Vec::new();
        let mut others: Vec<watch::Receiver<Option<Landed>>> = Vec::new();
        for id in wanted {
            match aloft.get(id) {
                Some(other) if others.iter().any(|o| o.same_channel(other)) => {}
                Some(other) => others.push(other.clone()),
                None => {
                    aloft.insert(*id, watcher.clone());
                    ids.push(*id);
                }
            }
        }
        let flight = Flight {
            flights: self,
            ids,
            landed,
            watcher,
        };
        (flight, others)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut aloft = self
            .flights
            .aloft
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for id in &self.ids {
            // Another flight may have it, if this one flew alone.
            if aloft.get(id).is_some_and(|w| w.same_channel(&self.watcher)) {
                aloft.remove(id);
            }
        }
    }
}

impl Reader {
    /// The objects of these ids that there are. An id that is not in the answer is deleted, or never was.
    pub(super) async fn objects(
        &self,
        ids: &[MediaId],
        store: &mut StoreState,
    ) -> Result<HashMap<MediaId, Object>, ReadFault> {
        let mut found = HashMap::with_capacity(ids.len());
        if ids.is_empty() {
            return Ok(found);
        }
        let mut missing = Vec::new();
        match self.ask(store, "objects", self.store.objects(ids)).await {
            Some(cached) if cached.len() == ids.len() => {
                for (id, cached) in ids.iter().zip(&cached) {
                    match cached {
                        Cached::Object(bytes) => match Object::from_cache(*id, bytes) {
                            Some(object) => drop(found.insert(*id, object)),
                            None => missing.push(*id),
                        },
                        Cached::Tombstone => {}
                        Cached::Absent => missing.push(*id),
                    }
                }
            }
            _ => missing.extend_from_slice(ids),
        }
        self.metrics.objects("store", found.len());
        if !missing.is_empty() {
            self.fetch(&missing, store, &mut found).await?;
        }
        Ok(found)
    }

    /// From Postgres, by way of other requests' statements where they ask for the same.
    async fn fetch(
        &self,
        missing: &[MediaId],
        store: &StoreState,
        found: &mut HashMap<MediaId, Object>,
    ) -> Result<(), ReadFault> {
        let mut left = missing.to_vec();
        // Whoever was waited for may have gone away: then what it had is ours to ask. Only once: the second time we wait for nobody.
        for alone in [false, true] {
            let (flight, others) = match alone {
                false => self.flights.board(&left),
                true => self.flights_alone(&left),
            };
            if !flight.ids.is_empty() {
                let read_at = Instant::now();
                let rows = self.rows_of(&flight.ids).await?;
                self.metrics.objects("postgres", rows.len());
                self.metrics.objects("gone", flight.ids.len() - rows.len());
                let cache: Vec<_> = rows.values().map(|o| (o.id, o.to_cache())).collect();
                let landed = Arc::new(rows);
                flight.landed.send_replace(Some(landed.clone()));
                for (id, object) in landed.iter() {
                    found.insert(*id, object.clone());
                }
                if !cache.is_empty() && !store.down {
                    let store = self.store.clone();
                    self.behind("put_objects", async move {
                        store.put_objects(&cache, read_at).await
                    });
                }
            }
            let mut answered: HashSet<MediaId> = flight.ids.iter().copied().collect();
            drop(flight);
            let mut lost = false;
            for mut other in others {
                let landed = match other.wait_for(Option::is_some).await {
                    Ok(landed) => landed.clone(),
                    Err(_) => None,
                };
                let Some(landed) = landed else {
                    lost = true;
                    continue;
                };
                for id in &left {
                    if let Some(object) = landed.get(id) {
                        found.insert(*id, object.clone());
                        answered.insert(*id);
                        self.metrics.objects("flight", 1);
                    }
                }
            }
            if !lost {
                break;
            }
            left.retain(|id| !answered.contains(id));
        }
        Ok(())
    }

    /// A flight that nobody else waits for.
    fn flights_alone(&self, ids: &[MediaId]) -> (Flight<'_>, Vec<watch::Receiver<Option<Landed>>>) {
        let (mut flight, _) = self.flights.board(&[]);
        flight.ids = ids.to_vec();
        (flight, Vec::new())
    }

    /// The rows that are not deleted. The ids carry their shards: one statement, of which each shard gets its part.
    pub(super) async fn rows_of(
        &self,
        ids: &[MediaId],
    ) -> Result<HashMap<MediaId, Object>, ReadFault> {
        let text = format!("SELECT {COLUMNS} FROM media WHERE id = ANY($1) AND deleted_at IS NULL");
        let rows = self.db.ask(&text, &[&ids]).await?;
        let objects: Vec<Object> = Object::from_rows(&rows)?;
        Ok(objects.into_iter().map(|o| (o.id, o)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_comes_back_from_the_cache_as_it_went() {
        let object = Object::new(7, -3, "{\"a\": 1}", "2026-01-01T00:00:00.000Z");
        assert_eq!(Object::from_cache(7, &object.to_cache()), Some(object));
        assert_eq!(Object::from_cache(7, &Bytes::from_static(b"short")), None);
    }

    #[test]
    fn an_id_has_one_flight() {
        let flights = Flights::default();
        let (first, others) = flights.board(&[1, 2]);
        assert_eq!((first.ids.as_slice(), others.len()), (&[1, 2][..], 0));
        let (second, others) = flights.board(&[2, 3, 1]);
        assert_eq!((second.ids.as_slice(), others.len()), (&[3][..], 1));
        drop(first);
        let (third, others) = flights.board(&[1, 3]);
        assert_eq!((third.ids.as_slice(), others.len()), (&[1][..], 1));
        drop((second, third));
        assert!(flights.aloft.lock().unwrap().is_empty());
    }
}
