//! The timelines: home, profile, public.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use super::problem::Problem;
use super::types::{Id, InPath, InQuery, MediaPage, PageQuery};
use super::{App, SHED};
use crate::feed::page::{PAGE, PAGE_MOST, Page};
use crate::feed::store::Span;

/// The header that says where a page came from: list, built, degraded or postgres.
pub const SOURCE: &str = "presplit-source";

/// What others than the reader may see may be kept by caches, for as long as a delete may take to be seen.
const PUBLIC: HeaderValue = HeaderValue::from_static("public, max-age=1");
/// The same where a token is asked for: a cache that many share may not give it to those who have none (RFC 9111, 3.5).
const GUARDED: HeaderValue = HeaderValue::from_static("private, max-age=1");
pub(super) const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-store");

/// How long an answer may be kept that is for everybody, or for this viewer.
pub(super) fn cached(app: &App, viewer: Option<i64>) -> HeaderValue {
    match viewer {
        Some(_) => PRIVATE,
        None if app.tokens.is_empty() => PUBLIC,
        None => GUARDED,
    }
}

/// The home timeline of a user.
///
/// What its followees and the user itself have posted, as the edges say now.
#[utoipa::path(get, path = "/v1/users/{user}/home", tag = "timelines",
    params(("user" = String, Path, description = "Whose home"), PageQuery),
    responses((status = 200, body = MediaPage, headers(
        ("presplit-source" = String, description = "list: the feed as it was kept; built: it was built for this page; degraded: the store could not be asked"),
        ("presplit-shed" = u8, description = "0; each further level halves the page for load"))),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn home(
    State(app): State<App>,
    InPath(Id(user)): InPath<Id>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Response, Problem> {
    let (span, limit) = query.span(PAGE, PAGE_MOST)?;
    let (most, level) = app.shed.page(limit);
    let page = app.reader.home(user, span, most).await?;
    Ok(answer(&page, span, PRIVATE, level))
}

/// Which page of an author's media.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ProfileQuery {
    /// How many media: 100 if not said, at most 200.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Only media older than this one: `older` of a page.
    #[param(value_type = Option<String>)]
    before: Option<Id>,
    /// Only media newer than this one, those next to it: `newer` of a page.
    #[param(value_type = Option<String>)]
    after: Option<Id>,
    /// Who wants to see it; nobody is the public.
    #[param(value_type = Option<String>)]
    viewer: Option<Id>,
}

/// What a user has posted.
#[utoipa::path(get, path = "/v1/users/{user}/media", tag = "timelines",
    params(("user" = String, Path, description = "The author"), ProfileQuery),
    responses((status = 200, body = MediaPage), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn profile(
    State(app): State<App>,
    InPath(Id(user)): InPath<Id>,
    InQuery(query): InQuery<ProfileQuery>,
) -> Result<Response, Problem> {
    let ProfileQuery {
        limit,
        before,
        after,
        viewer,
    } = query;
    let page = PageQuery {
        limit,
        before,
        after,
    };
    let (span, limit) = page.span(PAGE, PAGE_MOST)?;
    let viewer = viewer.map(|v| v.0);
    let (most, level) = app.shed.page(limit);
    let page = app.reader.profile(user, viewer, span, most).await?;
    Ok(answer(&page, span, cached(&app, viewer), level))
}

/// The newest media of all users who are not private.
#[utoipa::path(get, path = "/v1/public", tag = "timelines", params(PageQuery),
    responses((status = 200, body = MediaPage), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn public(
    State(app): State<App>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Response, Problem> {
    let (span, limit) = query.span(PAGE, PAGE_MOST)?;
    let (most, level) = app.shed.page(limit);
    let page = app.reader.public(span, most).await?;
    Ok(answer(&page, span, cached(&app, None), level))
}

/// A [`MediaPage`], of objects that are JSON already.
fn answer(page: &Page, span: Span, cache: HeaderValue, level: u8) -> Response {
    let (first, last) = (
        page.media.first().map(|o| o.id),
        page.media.last().map(|o| o.id),
    );
    let (older, newer) = match span {
        Span::After(id) => (last, Some(first.unwrap_or(id))),
        Span::Newest => (last.filter(|_| page.more), first),
        // Nothing older than this: what is newer begins just above.
        Span::Before(id) => (
            last.filter(|_| page.more),
            Some(first.unwrap_or(id.saturating_sub(1))),
        ),
    };
    let size: usize = page.media.iter().map(|o| o.json.len() + 1).sum();
    let mut body = Vec::with_capacity(size + 96);
    body.extend_from_slice(b"{\"media\":[");
    for (n, object) in page.media.iter().enumerate() {
        if n > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&object.json);
    }
    let cursor = |id: Option<i64>| id.map_or("null".to_owned(), |id| format!("\"{id}\""));
    body.extend_from_slice(
        format!(
            "],\"older\":{},\"newer\":{}}}",
            cursor(older),
            cursor(newer)
        )
        .as_bytes(),
    );
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, cache);
    headers.insert(SOURCE, HeaderValue::from_static(page.source.name()));
    headers.insert(SHED, HeaderValue::from(u16::from(level)));
    response
}
