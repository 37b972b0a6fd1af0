//! The demo's page: three files in the binary, and where people and posts live by the map in force. What the page shows of feeds it
//! asks the feed service's own API for.

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};

use super::Options;
use super::data::NAMES;
use super::feed::PEOPLE;
use crate::feed::api::Id;
use crate::feed::api::problem::Problem;
use crate::shardmap::{KeyValue, MapHandle, ShardId, ShardMap, id};

/// Nothing but what this server gives, no inline script or style: text of users can't become either.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);
/// The most ids of one call.
const IDS_MOST: usize = 200;

/// What the answers are made of.
#[derive(Clone)]
struct Known {
    map: MapHandle,
    proxy: String,
}

/// The page's own routes.
pub(super) fn router(map: MapHandle, options: &Options) -> Router {
    let known = Known {
        map,
        proxy: options.proxy_url(),
    };
    let file = |kind: &'static str, text: &'static str| {
        get(move || async move { ([(CONTENT_TYPE, kind)], text) })
    };
    Router::new()
        .route(
            "/",
            file("text/html; charset=utf-8", include_str!("page/page.html")),
        )
        .route(
            "/demo/page.css",
            file("text/css; charset=utf-8", include_str!("page/page.css")),
        )
        .route(
            "/demo/page.js",
            file(
                "text/javascript; charset=utf-8",
                include_str!("page/page.js"),
            ),
        )
        .route("/demo/people", get(people))
        .route("/demo/media", get(media))
        .layer(middleware::from_fn(with_headers))
        .with_state(known)
}

async fn with_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // The next demo may have another page.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Who there is, and the map as it is now.
#[derive(Serialize)]
struct People {
    people: Vec<Person>,
    shards: u32,
    /// Their names.
    hosts: Vec<String>,
    /// How clients connect.
    proxy: String,
    proxy_metrics: Option<String>,
}

#[derive(Serialize)]
struct Person {
    user_id: Id,
    name: &'static str,
    #[serde(flatten)]
    place: Place,
}

/// Where a row is.
#[derive(Serialize)]
struct Place {
    shard: u32,
    schema: String,
    host: String,
    /// How clients connect to the host. Without a password, though a map may have one.
    url: String,
}

async fn people(State(known): State<Known>) -> Response {
    let map = known.map.current();
    let people = (1..=PEOPLE).zip(NAMES).filter_map(|(user, name)| {
        // The demo's keys are integers, which every map of it takes.
        let shard = map.shard_of_key(&KeyValue::Int(user)).ok()?;
        Some(Person {
            user_id: Id(user),
            name,
            place: place(&map, shard),
        })
    });
    let answer = People {
        people: people.collect(),
        shards: map.shards(),
        hosts: map.hosts.iter().map(|host| host.name.clone()).collect(),
        proxy: known.proxy,
        proxy_metrics: map.proxy.http.map(|at| format!("http://{at}/metrics")),
    };
    axum::Json(answer).into_response()
}

/// Which ids to take apart: `ids=1,2,3`.
#[derive(Deserialize)]
struct MediaQuery {
    ids: String,
}

/// What ids say.
#[derive(Serialize)]
struct MediaPlaces {
    media: Vec<MediaPlace>,
}

#[derive(Serialize)]
struct MediaPlace {
    id: Id,
    unix_ms: u64,
    sequence: u16,
    /// Of time, shard and sequence.
    bits: [String; 3],
    #[serde(flatten)]
    place: Place,
}

async fn media(
    State(known): State<Known>,
    query: Result<Query<MediaQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(MediaQuery { ids }) = query.map_err(|e| Problem::bad(e.body_text()))?;
    let map = known.map.current();
    let ids: Vec<&str> = ids.split(',').collect();
    if ids.len() > IDS_MOST {
        let detail = format!("{} ids: {IDS_MOST} may be in one call", ids.len());
        return Err(Problem::bad(detail));
    }
    let media: Result<Vec<MediaPlace>, Problem> = ids
        .into_iter()
        .map(|text| {
            let of_map = |id: &i64| map.shard_of_id(*id).is_some();
            let id = text.parse().ok().filter(of_map);
            let parts = id.and_then(|id| Some((id, id::split(id)?)));
            let Some((id, parts)) = parts else {
                return Err(Problem::bad(format!(
                    "{text:?} is no id of the map's {} shards",
                    map.shards()
                )));
            };
            Ok(MediaPlace {
                id: Id(id),
                unix_ms: parts.unix_ms,
                sequence: parts.sequence,
                bits: bits(id),
                place: place(&map, parts.shard),
            })
        })
        .collect();
    Ok(axum::Json(MediaPlaces { media: media? }).into_response())
}

/// The bits of an id: its time's, its shard's, its sequence's.
fn bits(id: i64) -> [String; 3] {
    let all = format!("{id:064b}");
    let (rest, sequence) = all.split_at(64 - id::SEQUENCE_BITS as usize);
    let (time, shard) = rest.split_at(rest.len() - id::SHARD_BITS as usize);
    [time, shard, sequence].map(str::to_owned)
}

fn place(map: &ShardMap, shard: ShardId) -> Place {
    let host = map.host(map.owner(shard));
    Place {
        shard: shard.0,
        schema: map.schema(shard).to_owned(),
        host: host.name.clone(),
        url: host.url.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ids_bits_are_its_parts() {
        let parts = id::Parts {
            unix_ms: 1_767_323_045_678,
            shard: ShardId(5),
            sequence: 3,
        };
        let [time, shard, sequence] = bits(id::make(parts).unwrap());
        let read = |bits: &str| u64::from_str_radix(bits, 2).unwrap();
        assert_eq!((time.len(), shard.len(), sequence.len()), (41, 13, 10));
        assert_eq!(read(&time) + id::EPOCH_MS, parts.unix_ms);
        assert_eq!((read(&shard), read(&sequence)), (5, 3));
    }
}
