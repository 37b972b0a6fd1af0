//! What operators and their tools ask: health, metrics, the shed level, the description of the API.

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use prometheus::{TEXT_FORMAT, TextEncoder};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};

use super::App;
use super::problem::{Code, Problem};
use super::types::Json;
use crate::feed::shed::LEVEL_MOST;

/// Whether the proxy can be asked; one host that is away does not count. The store is not needed for anything but speed.
#[utoipa::path(get, path = "/healthz", tag = "service", security(()),
    responses((status = 200, body = String, content_type = "text/plain"), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn health(State(app): State<App>) -> Result<&'static str, Problem> {
    if app.stop.is_cancelled() {
        return Err(Problem::new(
            Code::Overloaded,
            "the service is shutting down",
            "ask another",
        ));
    }
    app.health.ping().await?;
    Ok("ok\n")
}

/// Counters for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "service", security(()),
    responses((status = 200, body = String, content_type = "text/plain"), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    app.metrics.shed_level(app.shed.level());
    let text = TextEncoder::new().encode_to_string(&app.metrics.registry.gather());
    let text =
        text.map_err(|e| Problem::new(Code::Internal, e.to_string(), "say so to the makers"))?;
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response())
}

/// How short pages are for load.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Shedding {
    /// 0: as long as asked for; each further level halves them.
    #[schema(maximum = 3)]
    level: u8,
    /// The level follows the load.
    automatic: bool,
}

/// How short pages are to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetShedding {
    /// From now on this level; none: it follows the load.
    #[schema(maximum = 3)]
    level: Option<u8>,
}

/// How short pages are for load.
#[utoipa::path(get, path = "/v1/shed", tag = "service",
    responses((status = 200, body = Shedding), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn shed(State(app): State<App>) -> axum::Json<Shedding> {
    axum::Json(Shedding {
        level: app.shed.level(),
        automatic: !app.shed.is_by_hand(),
    })
}

/// Sets it by hand, for this process.
#[utoipa::path(put, path = "/v1/shed", tag = "service", request_body = SetShedding,
    responses((status = 200, body = Shedding), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn set_shed(
    State(app): State<App>,
    Json(body): Json<SetShedding>,
) -> Result<axum::Json<Shedding>, Problem> {
    if let Some(level) = body.level.filter(|l| *l > LEVEL_MOST) {
        return Err(Problem::bad(format!(
            "level is {level}: it may be 0 to {LEVEL_MOST}"
        )));
    }
    app.shed.set(body.level);
    Ok(shed(State(app)).await)
}

/// The icon that browsers ask for.
#[utoipa::path(get, path = "/favicon.ico", tag = "service", security(()),
    responses((status = 200, body = String, content_type = "image/svg+xml")))]
pub(super) async fn favicon() -> Response {
    const ICON: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#264653"/><path d="M3 5h10M3 8h7M3 11h4" stroke="#fff" stroke-width="1.6" stroke-linecap="round"/></svg>"##;
    (
        [
            (CONTENT_TYPE, "image/svg+xml"),
            (CACHE_CONTROL, "public, max-age=86400"),
        ],
        ICON,
    )
        .into_response()
}

/// This API as OpenAPI 3.1.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "service", security(()),
    responses((status = 200, body = Object)))]
pub(super) async fn openapi() -> Response {
    let text = super::openapi::Api::openapi().to_json().unwrap_or_default();
    (
        [
            (CONTENT_TYPE, "application/json"),
            (CACHE_CONTROL, "public, max-age=3600"),
        ],
        text,
    )
        .into_response()
}
