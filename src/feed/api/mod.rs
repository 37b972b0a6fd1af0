//! The feed service over HTTP: JSON under `/v1`, problem details for what can't be done, an OpenAPI description that is tested against
//! the routes, bearer tokens, limits.

mod connections;
mod graph;
mod media;
mod openapi;
mod pages;
pub mod problem;
mod service;
mod types;
mod verify;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{ALLOW, AUTHORIZATION};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use tokio_util::sync::CancellationToken;

use super::db::Db;
use super::metrics::Metrics;
use super::outbox::Wake;
use super::read::Reader;
use super::shed::Shed;
use super::slow::Ended;
use super::store::Store;
use crate::shardmap::Secret;
use problem::{Code, Problem};

pub use connections::{Connections, serve};
pub use openapi::Api;
pub use pages::SOURCE;
pub use types::{Id, Media, MediaPage};

/// The largest body of a call, in bytes.
pub const BODY_MOST: usize = 256 * 1024;
/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The header that says how much shorter pages are for load.
pub const SHED: &str = "presplit-shed";

/// What the handlers share.
#[derive(Clone, Debug)]
pub struct App(Arc<Shared>);

/// What an [`App`] is made of.
#[derive(Debug)]
pub struct Shared {
    /// Postgres.
    pub db: Db,
    /// Postgres for those who ask whether it is there: they don't wait for the calls' connections.
    pub health: Db,
    /// Feeds and cached objects.
    pub store: Arc<dyn Store>,
    /// Reads pages from both.
    pub reader: Reader,
    /// How posts reach the workers of this process.
    pub wake: Wake,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What load does to pages.
    pub shed: Shed,
    /// Who may call. None: whoever can reach the listener, which then is on loopback.
    pub tokens: Vec<Secret>,
    /// The service is to stop.
    pub stop: CancellationToken,
}

impl App {
    /// Of these parts.
    #[must_use]
    pub fn new(shared: Shared) -> App {
        App(Arc::new(shared))
    }
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// A route: its method, its path, the name that metrics give it, who answers.
type Route = (Method, &'static str, &'static str, MethodRouter<App>);

/// All of them. Whoever adds one says so in `openapi.rs`, too.
fn routes() -> Vec<Route> {
    use Method as M;
    vec![
        (M::POST, "/v1/media", "post", post(media::post)),
        (M::GET, "/v1/media/{id}", "get", get(media::get)),
        (M::DELETE, "/v1/media/{id}", "delete", delete(media::delete)),
        (M::GET, "/v1/users/{user}/home", "home", get(pages::home)),
        (
            M::GET,
            "/v1/users/{user}/media",
            "profile",
            get(pages::profile),
        ),
        (M::GET, "/v1/public", "public", get(pages::public)),
        (
            M::PUT,
            "/v1/users/{user}/following/{target}",
            "follow",
            put(graph::follow),
        ),
        (
            M::DELETE,
            "/v1/users/{user}/following/{target}",
            "unfollow",
            delete(graph::unfollow),
        ),
        (
            M::PUT,
            "/v1/users/{user}/requests/{source}",
            "accept",
            put(graph::accept),
        ),
        (
            M::DELETE,
            "/v1/users/{user}/requests/{source}",
            "decline",
            delete(graph::decline),
        ),
        (
            M::PUT,
            "/v1/users/{user}/blocked/{target}",
            "block",
            put(graph::block),
        ),
        (
            M::DELETE,
            "/v1/users/{user}/blocked/{target}",
            "unblock",
            delete(graph::unblock),
        ),
        (
            M::PUT,
            "/v1/users/{user}/muted/{target}",
            "mute",
            put(graph::mute),
        ),
        (
            M::DELETE,
            "/v1/users/{user}/muted/{target}",
            "unmute",
            delete(graph::unmute),
        ),
        (
            M::POST,
            "/v1/users/{user}/follow_all",
            "follow_all",
            post(graph::follow_all),
        ),
        (
            M::GET,
            "/v1/users/{user}/following",
            "following",
            get(graph::following),
        ),
        (
            M::GET,
            "/v1/users/{user}/followers",
            "followers",
            get(graph::followers),
        ),
        (
            M::GET,
            "/v1/users/{user}/requests",
            "requests",
            get(graph::requests),
        ),
        (
            M::GET,
            "/v1/users/{user}/blocked",
            "blocked",
            get(graph::blocked),
        ),
        (
            M::POST,
            "/v1/users/{user}/relations",
            "relations",
            post(graph::relations),
        ),
        (
            M::GET,
            "/v1/users/{user}/counts",
            "counts",
            get(graph::counts),
        ),
        (M::GET, "/v1/users/{user}/state", "state", get(graph::state)),
        (
            M::PUT,
            "/v1/users/{user}/state",
            "set_state",
            put(graph::set_state),
        ),
        (M::POST, "/v1/verify", "verify", post(verify::verify)),
        (M::GET, "/v1/shed", "shed", get(service::shed)),
        (M::PUT, "/v1/shed", "set_shed", put(service::set_shed)),
    ]
}

/// Those that anybody may ask, and that are answered however many others are under way.
fn open_routes() -> Vec<Route> {
    vec![
        (Method::GET, "/healthz", "health", get(service::health)),
        (Method::GET, "/metrics", "metrics", get(service::metrics)),
        (
            Method::GET,
            "/favicon.ico",
            "favicon",
            get(service::favicon),
        ),
        (
            Method::GET,
            "/v1/openapi.json",
            "openapi",
            get(service::openapi),
        ),
    ]
}

/// The whole API.
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    for (_, path, name, answers) in routes() {
        let call = Call {
            app: app.clone(),
            name,
        };
        router = router.route(
            path,
            answers.layer(middleware::from_fn_with_state(call, watch)),
        );
    }
    finished(router, app)
}

/// Health, metrics and the description: what a process that answers no calls has.
pub fn open_router(app: App) -> Router {
    finished(Router::new(), app)
}

fn finished(mut router: Router<App>, app: App) -> Router {
    for (_, path, _, answers) in open_routes() {
        router = router.route(path, answers);
    }
    router
        .method_not_allowed_fallback(wrong_method)
        .fallback(no_route)
        .layer(middleware::from_fn(allowed_methods))
        .layer(DefaultBodyLimit::max(BODY_MOST))
        .with_state(app)
}

/// A route as its watch knows it.
#[derive(Clone)]
struct Call {
    app: App,
    name: &'static str,
}

/// Around every call of the API: what is kept of those that took too long.
async fn watch(State(call): State<Call>, request: Request, next: Next) -> Response {
    let (app, operation) = (call.app.clone(), call.name);
    let Some(slow) = app.metrics.slow() else {
        return answer(call, request, next).await;
    };
    let uri = request.uri().clone();
    let ended = |response: &Response| Ended {
        operation,
        path: uri.path().to_owned(),
        status: response.status().as_u16(),
        shed: app.shed.level(),
    };
    slow.watched(answer(call, request, next), ended).await
}

/// Who calls, whether there is room, how long it takes.
async fn answer(call: Call, request: Request, next: Next) -> Response {
    let Call { app, name } = call;
    let began = Instant::now();
    let level = app.shed.level();
    app.metrics.shed_level(level);
    let mut response = match admitted(&app, &request) {
        Err(problem) => problem.into_response(),
        Ok(()) => match app.shed.begin() {
            None => {
                app.metrics.turned_away();
                let detail = "more requests are under way than there is room for";
                Problem::new(
                    Code::Overloaded,
                    detail,
                    "nothing was done: repeat it in a moment",
                )
                .into_response()
            }
            Some(_under_way) => match tokio::time::timeout(PATIENCE, next.run(request)).await {
                Ok(response) => response,
                Err(_) => {
                    let detail = format!("no answer within {PATIENCE:?}");
                    let hint = "it may have been carried out all the same: repeat the call; a post with the same Idempotency-Key is made once";
                    Problem::new(Code::Timeout, detail, hint).into_response()
                }
            },
        },
    };
    // A page has said itself which level it is for: it may have been another one by then.
    let shed = response.headers_mut().entry(HeaderName::from_static(SHED));
    shed.or_insert(HeaderValue::from(u16::from(level)));
    // So that the last one of many tells that it is over.
    app.metrics.shed_level(app.shed.level());
    app.metrics
        .request(name, response.status().as_u16(), began.elapsed());
    response
}

fn admitted(app: &App, request: &Request) -> Result<(), Problem> {
    if app.tokens.is_empty() {
        return Ok(());
    }
    let said = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|a| a.to_str().ok());
    let token = said
        .and_then(|s| s.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = token else {
        let detail = "the call has no token";
        return Err(Problem::new(
            Code::Unauthorized,
            detail,
            "say Authorization: Bearer TOKEN, with one of the map's [feed] tokens",
        ));
    };
    // All of them are compared, so that the time says nothing of which one was close.
    let known = app.tokens.iter().fold(false, |known, t| {
        known | same(t.expose().as_bytes(), token.trim().as_bytes())
    });
    match known {
        true => Ok(()),
        false => Err(Problem::new(
            Code::Unauthorized,
            "the token is not known",
            "it must be one of the map's [feed] tokens",
        )),
    }
}

/// In a time that depends on the lengths alone.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b));
    std::hint::black_box(differ) == 0 && a.len() == b.len()
}

async fn no_route(request: Request) -> Problem {
    let detail = format!("there is no {}", request.uri().path());
    Problem::new(
        Code::NoSuchRoute,
        detail,
        "/v1/openapi.json lists all paths",
    )
}

async fn wrong_method(request: Request) -> Problem {
    let detail = format!(
        "{} does not know {}",
        request.uri().path(),
        request.method()
    );
    Problem::new(
        Code::MethodNotAllowed,
        detail,
        "the Allow header lists the methods of this path",
    )
}

/// axum says which methods a path knows on answers of its own alone; here it goes to all that say 405.
async fn allowed_methods(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED
        && !response.headers().contains_key(ALLOW)
    {
        let methods: Vec<String> = routes()
            .iter()
            .chain(&open_routes())
            .filter(|(_, template, ..)| matches(template, &path))
            .map(|(method, ..)| method.to_string())
            .collect();
        if let Ok(methods) = HeaderValue::from_str(&methods.join(", ")) {
            response.headers_mut().insert(ALLOW, methods);
        }
    }
    response
}

fn matches(template: &str, path: &str) -> bool {
    template.split('/').count() == path.split('/').count()
        && template
            .split('/')
            .zip(path.split('/'))
            .all(|(t, p)| t.starts_with('{') || t == p)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use utoipa::OpenApi;

    use super::*;

    #[test]
    fn every_route_is_described_and_every_description_is_a_route() {
        let api = serde_json::to_value(Api::openapi()).unwrap();
        assert!(api["openapi"].as_str().unwrap().starts_with("3.1"));
        let mut described = BTreeSet::new();
        for (path, item) in api["paths"].as_object().unwrap() {
            for method in item
                .as_object()
                .unwrap()
                .keys()
                .filter(|k| *k != "parameters")
            {
                described.insert((method.to_uppercase(), path.clone()));
            }
        }
        let routed: BTreeSet<_> = routes()
            .iter()
            .chain(&open_routes())
            .map(|(method, path, ..)| (method.to_string(), (*path).to_owned()))
            .collect();
        assert_eq!(described, routed);
    }

    #[test]
    fn tokens_are_compared_whole() {
        assert!(same(b"abc", b"abc"));
        for other in ["", "ab", "abd", "abcd", "bbc"] {
            assert!(!same(b"abc", other.as_bytes()), "{other}");
        }
    }
}
