//! One media: post, get, delete.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::pages::cached;
use super::problem::{Code, Problem};
use super::types::{Id, InPath, InQuery, Json, Media, ViewerQuery, no_vast_number, no_zero};
use crate::feed::post::{self, Deleted};
use crate::feed::slow;

/// The longest Idempotency-Key.
const KEY_MOST: usize = 255;

/// A media to be posted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewMedia {
    /// The author.
    user_id: Id,
    /// Whatever the app wants to see again, as JSON.
    #[schema(value_type = Value)]
    body: Box<RawValue>,
}

/// A media that was posted.
#[derive(Serialize, ToSchema)]
pub(super) struct Posted {
    /// Its id.
    id: Id,
    /// The author.
    user_id: Id,
}

/// Posts a media.
///
/// 201: it is durable, its author sees it on the next read, and it will reach every follower.
#[utoipa::path(post, path = "/v1/media", tag = "media", request_body = NewMedia,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key of the same author posts once, however often the call is repeated")),
    responses((status = 201, body = Posted, headers(("location" = String, description = "Where the media is"))),
        (status = 200, body = Posted, description = "An earlier call of this key has posted it"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn post(
    State(app): State<App>,
    headers: HeaderMap,
    Json(new): Json<NewMedia>,
) -> Result<Response, Problem> {
    let body = new.body.get();
    serde_json::from_str(body)
        .and_then(|value| no_zero(&value))
        .and_then(|()| no_vast_number(body))
        .map_err(|e| Problem::bad(format!("body: {e}")))?;
    let key = key(&headers)?;
    let author = new.user_id.0;
    slow::of_user(author);
    let posted = post::post(&app.db, &*app.store, &app.wake, author, body, key).await?;
    if posted.fresh {
        app.metrics.post();
    } else if !is_body_of(&app, author, posted.id, body).await? {
        return Err(Problem::new(
            Code::IdempotencyMismatch,
            format!(
                "media {} of user {author} was posted by this key, with another body",
                posted.id
            ),
            "take a new key for each media",
        ));
    }
    let status = match posted.fresh {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    let location = HeaderValue::from_str(&format!("/v1/media/{}", posted.id));
    let location = location
        .map_err(|e| Problem::new(Code::Internal, e.to_string(), "say so to the makers"))?;
    let posted = Posted {
        id: Id(posted.id),
        user_id: new.user_id,
    };
    Ok((status, [(LOCATION, location)], axum::Json(posted)).into_response())
}

fn key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return match headers.contains_key("idempotency-key") {
            true => Err(Problem::bad("Idempotency-Key is there twice")),
            false => Ok(None),
        };
    };
    match key.to_str() {
        Ok(key) if (1..=KEY_MOST).contains(&key.len()) => Ok(Some(key)),
        _ => Err(Problem::bad(format!(
            "Idempotency-Key: 1 to {KEY_MOST} printable ASCII characters"
        ))),
    }
}

async fn is_body_of(app: &App, author: i64, id: i64, body: &str) -> Result<bool, Problem> {
    const SQL: &str =
        "SELECT 1 FROM media WHERE user_id = $1 AND id = $2 AND body = $3::text::jsonb";
    Ok(app.db.ask_one(SQL, &[&author, &id, &body]).await?.is_some())
}

/// One media.
#[utoipa::path(get, path = "/v1/media/{id}", tag = "media", params(("id" = String, Path, description = "Which"), ViewerQuery),
    responses((status = 200, body = Media), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(app): State<App>,
    InPath(Id(id)): InPath<Id>,
    InQuery(query): InQuery<ViewerQuery>,
) -> Result<Response, Problem> {
    let viewer = query.viewer.map(|v| v.0);
    let object = app.reader.media(id, viewer).await?;
    let mut response = Response::new(Body::from(object.json));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, cached(&app, viewer));
    Ok(response)
}

/// Whose media it is.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuthorQuery {
    /// The author: nobody else's media is deleted.
    #[param(value_type = String)]
    user_id: Id,
}

/// Deletes a media.
///
/// From when this returns nobody is shown it any more, within a second.
#[utoipa::path(delete, path = "/v1/media/{id}", tag = "media", params(("id" = String, Path, description = "Which"), AuthorQuery),
    responses((status = 204, description = "It is gone"),
        (status = 202, description = "It is gone; those who have just read it may see it until the store can be told"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(app): State<App>,
    InPath(Id(id)): InPath<Id>,
    InQuery(query): InQuery<AuthorQuery>,
) -> Result<StatusCode, Problem> {
    let author = query.user_id.0;
    slow::of_user(author);
    match post::delete(&app.db, &*app.store, &app.wake, author, id).await? {
        Deleted::Now => Ok(StatusCode::NO_CONTENT),
        Deleted::ToCome => Ok(StatusCode::ACCEPTED),
        Deleted::Nothing => Err(Problem::new(
            Code::NotFound,
            format!("user {author} has no media {id}"),
            "it was deleted before, or is another's: nothing is left to do",
        )),
    }
}
