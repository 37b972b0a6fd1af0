//! What goes over HTTP as JSON: ids as strings of digits, since many readers of JSON have no 64-bit integers; and how the parts of a
//! call are read, with problem details for those that can't be.

use std::fmt;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::{IntoParams, ToSchema};

use super::problem::{Code, Problem};
use crate::feed::store::Span;

/// A user's or a media's id: digits in a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, examples("2912948298470817793"))]
pub struct Id(pub i64);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        struct Digits;
        impl Visitor<'_> for Digits {
            type Value = Id;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id: a string of digits, of 64 bits")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Id, E> {
                // One id has one spelling.
                let id = text.parse().ok().filter(|id: &i64| id.to_string() == text);
                id.map(Id)
                    .ok_or_else(|| E::custom(format!("{text:?} is no id: digits, of 64 bits")))
            }
        }
        deserializer.deserialize_str(Digits)
    }
}

/// One media.
#[derive(Debug, Serialize, ToSchema)]
pub struct Media {
    /// Sorts by time.
    pub id: Id,
    /// Who made it.
    pub user_id: Id,
    /// What was posted.
    #[schema(value_type = Value)]
    pub body: serde_json::Value,
    /// When it was posted.
    #[schema(format = DateTime)]
    pub created_at: String,
}

/// A page of media, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct MediaPage {
    /// The media.
    pub media: Vec<Media>,
    /// `before` of the page that is next older; none if there is none.
    pub older: Option<Id>,
    /// `after` of the page that is next newer, now or later; none if nothing was found at all.
    pub newer: Option<Id>,
}

/// Which page of media.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// How many media: 100 if not said, at most 200.
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<usize>,
    /// Only media older than this one: `older` of a page.
    #[param(value_type = Option<String>)]
    pub before: Option<Id>,
    /// Only media newer than this one, those next to it: `newer` of a page.
    #[param(value_type = Option<String>)]
    pub after: Option<Id>,
}

impl PageQuery {
    /// The span and the length.
    pub(super) fn span(&self, default: usize, most: usize) -> Result<(Span, usize), Problem> {
        let limit = self.limit.unwrap_or(default);
        if limit == 0 || limit > most {
            return Err(Problem::bad(format!(
                "limit is {limit}: it may be 1 to {most}"
            )));
        }
        match (self.before, self.after) {
            (None, None) => Ok((Span::Newest, limit)),
            (Some(id), None) => Ok((Span::Before(id.0), limit)),
            (None, Some(id)) => Ok((Span::After(id.0), limit)),
            (Some(_), Some(_)) => Err(Problem::bad("before and after can't be said both")),
        }
    }
}

/// On whose behalf something is read.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ViewerQuery {
    /// Who wants to see it; nobody is the public.
    #[param(value_type = Option<String>)]
    pub viewer: Option<Id>,
}

/// A page of users.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UserPage {
    /// In the order of their ids.
    pub users: Vec<Other>,
    /// `after` of the next page; none if there is none.
    pub next: Option<Id>,
}

/// One of a page of users.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Other {
    /// Who.
    pub user_id: Id,
    /// The posts are not shown (of those whom one follows).
    pub muted: bool,
}

/// Which page of users.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UsersQuery {
    /// How many users: 100 if not said, at most 1000.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
    /// Only users behind this one: `next` of a page.
    #[param(value_type = Option<String>)]
    pub after: Option<Id>,
}

/// The body of a call, as JSON.
pub(super) struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Json<T>, Problem> {
        let kind = request.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|k| k.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(Problem::new(
                Code::UnsupportedMediaType,
                format!("the body is said to be {kind:?}"),
                "say Content-Type: application/json",
            ));
        }
        let body = Bytes::from_request(request, state)
            .await
            .map_err(too_large)?;
        let json = serde_json::from_slice(&body);
        json.map(Json)
            .map_err(|e| Problem::bad(format!("the body: {e}")))
    }
}

fn too_large(rejection: BytesRejection) -> Problem {
    if rejection.status() == Code::BodyTooLarge.status() {
        return Problem::new(
            Code::BodyTooLarge,
            format!("the body is larger than {} bytes", super::BODY_MOST),
            "keep pictures and long texts elsewhere, and post what finds them",
        );
    }
    Problem::bad(format!("the body can't be read: {}", rejection.body_text()))
}

/// The parts of a call's path.
pub(super) struct InPath<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<InPath<T>, Problem> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(value)| InPath(value))
            .map_err(|e| Problem::bad(format!("the path: {}", e.body_text())))
    }
}

/// What stands behind the `?` of a call.
pub(super) struct InQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for InQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<InQuery<T>, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|Query(value)| InQuery(value))
            .map_err(|e| Problem::bad(format!("the query: {}", e.body_text())))
    }
}

/// A list of at most `most` ids.
pub(super) fn at_most(what: &str, ids: &[Id], most: usize) -> Result<Vec<i64>, Problem> {
    if ids.len() > most {
        let detail = format!("{} {what}: {most} may be in one call", ids.len());
        return Err(Problem::bad(detail));
    }
    Ok(ids.iter().map(|id| id.0).collect())
}

/// Whether jsonb can hold it: Postgres has no character 0.
pub(super) fn no_zero(value: &serde_json::Value) -> Result<(), serde_json::Error> {
    use serde_json::Value;
    let text = |text: &str| match text.contains('\0') {
        true => Err(serde_json::Error::custom("\\u0000 can't be stored")),
        false => Ok(()),
    };
    match value {
        Value::String(s) => text(s),
        Value::Array(values) => values.iter().try_for_each(no_zero),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            text(name)?;
            no_zero(value)
        }),
        _ => Ok(()),
    }
}

/// The largest exponent of a number: Postgres writes 1e9999 out in all its digits, so that few bytes of a body could become many.
const EXPONENT_MOST: usize = 40;

/// Whether all numbers of this JSON text can be stored in about as many bytes as they are written in.
pub(super) fn no_vast_number(json: &str) -> Result<(), serde_json::Error> {
    let bytes = json.as_bytes();
    let (mut at, mut quoted) = (0, false);
    while let Some(byte) = bytes.get(at) {
        at += match (quoted, byte) {
            (true, b'\\') => 2,
            (_, b'"') => {
                quoted = !quoted;
                1
            }
            // Behind a digit: not that of true or false.
            (false, b'e' | b'E') if at > 0 && bytes[at - 1].is_ascii_digit() => {
                let exponent = json[at + 1..].trim_start_matches(['+', '-']);
                let digits = exponent.bytes().take_while(u8::is_ascii_digit).count();
                let value = exponent[..digits].trim_start_matches('0');
                if value.len() > 2 || value.parse().unwrap_or(0) > EXPONENT_MOST {
                    return Err(serde_json::Error::custom(format!(
                        "a number has an exponent above {EXPONENT_MOST}: write it as a string"
                    )));
                }
                1
            }
            _ => 1,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_string_with_one_spelling() {
        let read = |text: &str| serde_json::from_str::<Id>(text).ok();
        assert_eq!(read("\"9223372036854775807\""), Some(Id(i64::MAX)));
        assert_eq!(read("\"-3\""), Some(Id(-3)));
        for wrong in [
            "7",
            "\"\"",
            "\"07\"",
            "\"+7\"",
            "\" 7\"",
            "\"9223372036854775808\"",
            "\"x\"",
            "null",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(serde_json::to_string(&Id(7)).unwrap(), "\"7\"");
    }

    #[test]
    fn numbers_that_would_be_written_out_in_many_digits_are_found() {
        for good in [
            "1e40",
            "[true, false, null, -1.5E-040, 0.1]",
            "{\"e9999\": \"1e9999\", \"a\\\\\\\"1e9999\": 2}",
            "[12345678901234567890]",
        ] {
            assert!(serde_json::from_str::<serde_json::Value>(good).is_ok());
            assert!(no_vast_number(good).is_ok(), "{good}");
        }
        for bad in ["1e41", "[0, 1e-16383]", "{\"a\\\\\": 1E+100}", "1e00099"] {
            assert!(no_vast_number(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_jsonb_cannot_hold_is_found_wherever_it_stands() {
        let held = |text: &str| no_zero(&serde_json::from_str(text).unwrap()).is_ok();
        assert!(held("{\"a\": [1, \"\\\\u0000\"]}"));
        for wrong in [
            "\"\\u0000\"",
            "{\"a\": [{\"b\": \"x\\u0000\"}]}",
            "{\"\\u0000\": 1}",
        ] {
            assert!(!held(wrong), "{wrong}");
        }
    }
}
