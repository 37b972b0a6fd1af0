//! What the webhook is told: an event as JSON, and the signature by which it knows that it comes from us.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

use super::rows::Row;
use crate::feed::outbox::Kind;
use crate::shardmap::Secret;

/// The id is the user's with the row's, whose numbers each shard counts by itself.
/// `{"id": "..", "kind": "post", "user": "..", "object": "..", "created_at": "..", ..}`. `said` is what [`super::rows::of_object`] gave.
pub(super) fn body(row: &Row, said: Option<String>) -> Bytes {
    let mut event = json!({
        "id": format!("{}-{}", row.user, row.id), "kind": row.kind.name(), "user": row.user.to_string(), "object": row.object.to_string(),
        "created_at": row.created_at,
    });
    match row.kind {
        Kind::Edge => event["status"] = said.into(),
        Kind::Delete => {}
        // The body is JSON as the app wrote it, numbers and all: it is not read.
        Kind::Post => {
            let mut text = event.to_string();
            text.pop();
            let body = said.as_deref().unwrap_or("null");
            let _ = write!(text, ",\"deleted\":{},\"body\":{body}}}", said.is_none());
            return Bytes::from(text);
        }
    }
    Bytes::from(event.to_string())
}

/// `t=SECONDS,v1=HEX`: HMAC-SHA256 over `SECONDS.BODY`, so that an old event can't be said again with a new time.
pub(super) fn signature(secret: &Secret, now: SystemTime, body: &[u8]) -> Option<String> {
    let t = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).ok()?;
    mac.update(t.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    let mut said = format!("t={t},v1=");
    for byte in mac.finalize().into_bytes() {
        let _ = write!(said, "{byte:02x}");
    }
    Some(said)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// As `printf '%s' '1700000000.{"a":1}' | openssl dgst -sha256 -hmac sesam` says.
    #[test]
    fn the_signature_is_what_others_compute() {
        let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let said = signature(&Secret::new("sesam"), at, b"{\"a\":1}").unwrap();
        assert_eq!(
            said,
            "t=1700000000,v1=6c1452696d86d47f64c82bf4ce8153fb6dfb49807d9f1d90c3a1b7fab9790b7f"
        );
    }
}
