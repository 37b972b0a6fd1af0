//! The description of the API, made of the handlers and their types.

use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{graph, media, pages, service, verify};

/// All of the API.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "presplit feed",
        description = "Posts fan out to every follower's feed. Ids are strings of digits. What can't be done is answered with problem details (RFC 9457) whose `code` stays the same.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    paths(
        media::post, media::get, media::delete,
        pages::home, pages::profile, pages::public,
        graph::follow, graph::unfollow, graph::accept, graph::decline, graph::block, graph::unblock, graph::mute, graph::unmute,
        graph::follow_all, graph::following, graph::followers, graph::requests, graph::blocked, graph::relations, graph::counts,
        graph::state, graph::set_state,
        verify::verify, service::health, service::metrics, service::shed, service::set_shed, service::favicon, service::openapi,
    ),
    modifiers(&Tokens),
    security(("token" = []))
)]
pub struct Api;

struct Tokens;

impl Modify for Tokens {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        api.components
            .get_or_insert_default()
            .add_security_scheme("token", token);
    }
}
