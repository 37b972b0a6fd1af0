//! What a call gets that can't be done: problem details (RFC 9457) with a code that stays the same and a word on what to do.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::feed::db::Fault;
use crate::feed::read::ReadFault;

/// Why a call was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Something in the call can't be read, or is not allowed.
    BadRequest,
    /// No token, or none that is known.
    Unauthorized,
    /// The author is private, and the viewer does not follow.
    Private,
    /// One of both users blocks the other.
    Blocked,
    /// It is not there, or not for this viewer.
    NotFound,
    /// There is no such path.
    NoSuchRoute,
    /// The path does not know this method.
    MethodNotAllowed,
    /// What the call wants to change is not there.
    NothingToChange,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The body is not said to be JSON.
    UnsupportedMediaType,
    /// The Idempotency-Key was used for another body.
    IdempotencyMismatch,
    /// More requests are under way than there is room for.
    Overloaded,
    /// Postgres can't be asked at present.
    PostgresUnavailable,
    /// The store can't be asked at present, and what is asked is about it.
    StoreUnavailable,
    /// It took too long.
    Timeout,
    /// A fault of the service.
    Internal,
}

impl Code {
    fn facts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Code::BadRequest => (
                "bad_request",
                StatusCode::BAD_REQUEST,
                "The call can't be read",
            ),
            Code::Unauthorized => (
                "unauthorized",
                StatusCode::UNAUTHORIZED,
                "A token is needed",
            ),
            Code::Private => ("private", StatusCode::FORBIDDEN, "The account is private"),
            Code::Blocked => (
                "blocked",
                StatusCode::CONFLICT,
                "One of both users blocks the other",
            ),
            Code::NotFound => ("not_found", StatusCode::NOT_FOUND, "It is not there"),
            Code::NoSuchRoute => (
                "no_such_route",
                StatusCode::NOT_FOUND,
                "There is no such path",
            ),
            Code::MethodNotAllowed => (
                "method_not_allowed",
                StatusCode::METHOD_NOT_ALLOWED,
                "The path does not know this method",
            ),
            Code::NothingToChange => (
                "nothing_to_change",
                StatusCode::NOT_FOUND,
                "There is nothing to change",
            ),
            Code::BodyTooLarge => (
                "body_too_large",
                StatusCode::PAYLOAD_TOO_LARGE,
                "The body is too large",
            ),
            Code::UnsupportedMediaType => (
                "unsupported_media_type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body must be JSON",
            ),
            Code::IdempotencyMismatch => (
                "idempotency_mismatch",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The Idempotency-Key belongs to another body",
            ),
            Code::Overloaded => (
                "overloaded",
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many requests are under way",
            ),
            Code::StoreUnavailable => (
                "store_unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "The store can't be asked at present",
            ),
            Code::PostgresUnavailable => (
                "postgres_unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "Postgres can't be asked at present",
            ),
            Code::Timeout => (
                "timeout",
                StatusCode::SERVICE_UNAVAILABLE,
                "It took too long",
            ),
            Code::Internal => (
                "internal",
                StatusCode::INTERNAL_SERVER_ERROR,
                "A fault of the service",
            ),
        }
    }

    /// As it stands in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.facts().0
    }

    /// The HTTP status of such an answer.
    #[must_use]
    pub fn status(self) -> StatusCode {
        self.facts().1
    }
}

/// Problem details, as they are answered.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:presplit:feed:` and the code.
    r#type: String,
    /// What the code means.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// Stays the same from version to version.
    code: Code,
    /// What is wrong with this call.
    detail: String,
    /// What to do.
    hint: &'static str,
}

impl Problem {
    /// A problem of this kind.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>, hint: &'static str) -> Problem {
        let (name, status, title) = code.facts();
        Problem {
            r#type: format!("urn:presplit:feed:{name}"),
            title,
            status: status.as_u16(),
            code,
            detail: detail.into(),
            hint,
        }
    }

    /// As it is answered.
    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Something in the call can't be read.
    #[must_use]
    pub fn bad(detail: impl Into<String>) -> Problem {
        let hint = "mend the call; /v1/openapi.json says what it may hold. Repeating it as it is does not help";
        Problem::new(Code::BadRequest, detail, hint)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let body = self.to_json();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        match self.code {
            Code::Unauthorized => {
                drop(headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
            }
            _ if status == StatusCode::SERVICE_UNAVAILABLE => {
                drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("1")))
            }
            _ => {}
        }
        response
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Problem {
        match fault {
            Fault::Unavailable { why, maybe: true } => Problem::new(
                Code::PostgresUnavailable,
                why,
                "it may have been carried out all the same: repeat the call; a post with the same Idempotency-Key is made once",
            ),
            Fault::Unavailable { why, maybe: false } => Problem::new(
                Code::PostgresUnavailable,
                why,
                "nothing was done: repeat the call in a moment",
            ),
            Fault::Retry(why) => Problem::new(
                Code::PostgresUnavailable,
                why,
                "it lost against others: repeat the call in a moment",
            ),
            Fault::Value(why) => Problem::new(
                Code::BadRequest,
                why,
                "Postgres cannot store the value: text without \\u0000, numbers within their range",
            ),
            Fault::Conflict(why) | Fault::Wrong(why) => {
                tracing::error!("a statement of the service failed: {why}");
                Problem::new(
                    Code::Internal,
                    why,
                    "have a look at the log of the service, and whether the feed's tables are provisioned",
                )
            }
        }
    }
}

impl From<ReadFault> for Problem {
    fn from(fault: ReadFault) -> Problem {
        match fault {
            ReadFault::Db(fault) => fault.into(),
            ReadFault::NotFound => Problem::new(
                Code::NotFound,
                "there is no such media or user for this viewer",
                "it may have been deleted, or one of both blocks the other: don't show it",
            ),
            ReadFault::Private(author) => Problem::new(
                Code::Private,
                format!("user {author} is private, and the viewer is no follower"),
                "say viewer=<user id> of a follower, or have the viewer ask to follow",
            ),
        }
    }
}
