//! Client authentication: SCRAM-SHA-256 against a verifier as it stands in `pg_authid`, without telling a stranger
//! which users there are (src/backend/libpq/auth-sasl.c, auth-scram.c).

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pgwire::api::auth::sasl::scram::{ScramSecret, ScramServerAuth, gen_salted_password};
use thiserror::Error;

use super::backend;
use super::error::{ErrorFields, SqlState};
use super::frontend::SaslInitialResponse;
use super::startup::HandshakeFault;
use super::stream::Stream;

/// The one mechanism on offer; with channel binding it would need TLS.
const MECHANISM: &str = "SCRAM-SHA-256";
/// Longest stated length of a SASL message (`PG_MAX_SASL_MESSAGE_LENGTH`).
const MAX_MESSAGE: u32 = 1024;
/// Bytes of a SHA-256.
const KEY: usize = 32;
/// Iterations and bytes of salt of a verifier that Postgres makes.
const ITERATIONS: usize = 4096;
const SALT: usize = 16;

/// A SCRAM verifier: enough to check a password, not enough to log in with. Shows no key in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: usize,
    salt: Vec<u8>,
    stored_key: [u8; KEY],
    server_key: [u8; KEY],
}

/// The text is no verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "not a SCRAM verifier: expected SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>, as in pg_authid.rolpassword"
)]
pub struct VerifierFault;

impl FromStr for Verifier {
    type Err = VerifierFault;

    fn from_str(text: &str) -> Result<Self, VerifierFault> {
        let rest = text.strip_prefix("SCRAM-SHA-256$").ok_or(VerifierFault)?;
        let (head, keys) = rest.split_once('$').ok_or(VerifierFault)?;
        let (iterations, salt) = head.split_once(':').ok_or(VerifierFault)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or(VerifierFault)?;
        let iterations: u32 = iterations.parse().map_err(|_| VerifierFault)?;
        if iterations == 0 || iterations > i32::MAX as u32 {
            return Err(VerifierFault);
        }
        Ok(Verifier {
            iterations: iterations as usize,
            salt: STANDARD.decode(salt).map_err(|_| VerifierFault)?,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }
}

fn key(text: &str) -> Result<[u8; KEY], VerifierFault> {
    let bytes = STANDARD.decode(text).map_err(|_| VerifierFault)?;
    bytes.try_into().map_err(|_| VerifierFault)
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(..)")
    }
}

impl Verifier {
    fn secret(&self) -> ScramSecret {
        ScramSecret::Verifier {
            salt: self.salt.clone(),
            iterations: self.iterations,
            stored_key: self.stored_key.to_vec(),
            server_key: self.server_key.to_vec(),
        }
    }
}

/// Makes up verifiers for users that don't exist: the salt of a name is always the same, as a real one's would be, and
/// no password fits. One for the life of the process, the same for all its connections.
pub struct Mock {
    secret: String,
}

impl fmt::Debug for Mock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mock(..)")
    }
}

impl Mock {
    /// With a fresh secret.
    #[expect(clippy::new_without_default, reason = "each is different")]
    pub fn new() -> Mock {
        Mock {
            secret: STANDARD.encode(rand::random::<[u8; KEY]>()),
        }
    }

    fn verifier(&self, user: &str) -> Verifier {
        // One round of PBKDF2 is HMAC-SHA-256 with our secret as the key.
        let mut salt = gen_salted_password(&self.secret, user.as_bytes(), 1);
        salt.truncate(SALT);
        Verifier {
            iterations: ITERATIONS,
            salt,
            // Random each time: a proof that fits would need a preimage.
            stored_key: rand::random(),
            server_key: rand::random(),
        }
    }
}

/// Checks a client's password by SCRAM-SHA-256. `verifier` is `None` for a user that doesn't exist or has no password:
/// the exchange is the same and ends in the same error as a wrong password.
///
/// `out` may hold bytes to send before; on success it holds AuthenticationSASLFinal, to be sent with AuthenticationOk.
/// The caller bounds the time.
pub async fn scram(
    stream: &mut Stream,
    out: &mut Vec<u8>,
    user: &str,
    verifier: Option<&Verifier>,
    mock: &Mock,
) -> Result<(), HandshakeFault> {
    let secret = match verifier {
        Some(verifier) => verifier.secret(),
        None => mock.verifier(user).secret(),
    };
    let mut body = Vec::new();

    backend::auth_sasl(out, &[MECHANISM]);
    send(stream, out).await?;
    read_response(stream, &mut body).await?;
    let initial =
        SaslInitialResponse::decode(&body).map_err(|fault| violation(fault.to_string()))?;
    if initial.mechanism != MECHANISM.as_bytes() {
        return Err(violation(
            "client selected an invalid SASL authentication mechanism",
        ));
    }
    let client_first = scram_text(initial.response.unwrap_or_default())?;
    let (server_first, exchange) = ScramServerAuth::new()
        .on_client_first_message_with_secret(client_first, secret)
        .map_err(|_| violation("malformed SCRAM message"))?;

    backend::auth_sasl_continue(out, server_first.as_bytes());
    send(stream, out).await?;
    read_response(stream, &mut body).await?;
    // A message that is malformed, for another nonce or with a wrong proof all end alike: nothing is to be learned.
    let server_final = exchange
        .on_client_final_message(scram_text(&body)?)
        .map_err(|_| wrong_password(user))?;
    if verifier.is_none() {
        return Err(wrong_password(user));
    }
    backend::auth_sasl_final(out, server_final.as_bytes());
    Ok(())
}

async fn send(stream: &mut Stream, out: &mut Vec<u8>) -> Result<(), HandshakeFault> {
    stream.write_all(out).await?;
    out.clear();
    Ok(())
}

/// One SASLInitialResponse or SASLResponse. A client that leaves instead (psql, to ask for a password) is no fault.
async fn read_response(stream: &mut Stream, body: &mut Vec<u8>) -> Result<(), HandshakeFault> {
    match stream.read_frame(MAX_MESSAGE, body).await? {
        b'p' => Ok(()),
        b'X' => Err(HandshakeFault::Closed),
        tag => Err(violation(format!(
            "expected SASL response, got message type {tag}"
        ))),
    }
}

/// SCRAM messages are text without NUL.
fn scram_text(message: &[u8]) -> Result<&[u8], HandshakeFault> {
    if message.is_empty() || message.contains(&0) {
        return Err(violation("malformed SCRAM message"));
    }
    Ok(message)
}

fn violation(message: impl Into<std::borrow::Cow<'static, str>>) -> HandshakeFault {
    ErrorFields::fatal(SqlState::PROTOCOL_VIOLATION, message).into()
}

fn wrong_password(user: &str) -> HandshakeFault {
    let message = format!("password authentication failed for user \"{user}\"");
    ErrorFields::fatal(SqlState::INVALID_PASSWORD, message).into()
}
