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
use super::stream::{ReadFault, Stream};

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
    ask(stream, out, user, &mut body).await?;
    let initial =
        SaslInitialResponse::decode(&body).map_err(|fault| violation(fault.to_string()))?;
    if initial.mechanism != MECHANISM.as_bytes() {
        return Err(violation(
            "client selected an invalid SASL authentication mechanism",
        ));
    }
    // A client may choose the mechanism first and wait to be asked (RFC 4422, section 3).
    let mut later = Vec::new();
    let client_first = match initial.response {
        Some(response) => response,
        None => {
            backend::auth_sasl_continue(out, b"");
            ask(stream, out, user, &mut later).await?;
            &later
        }
    };
    let (server_first, exchange) = ScramServerAuth::new()
        .on_client_first_message_with_secret(scram_text(client_first)?, secret)
        .map_err(|_| violation("malformed SCRAM message"))?;

    backend::auth_sasl_continue(out, server_first.as_bytes());
    ask(stream, out, user, &mut body).await?;
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

/// Sends what is in `out` and reads one SASLInitialResponse or SASLResponse.
async fn ask(
    stream: &mut Stream,
    out: &mut Vec<u8>,
    user: &str,
    body: &mut Vec<u8>,
) -> Result<(), HandshakeFault> {
    stream.write_all(out).await?;
    out.clear();
    match stream.read_frame(MAX_MESSAGE, body).await {
        Ok(b'p') => Ok(()),
        // It leaves instead, as psql does to ask for a password: no fault.
        Ok(b'X') => Err(HandshakeFault::Closed),
        Ok(tag) => Err(violation(format!(
            "expected SASL response, got message type {tag}"
        ))),
        Err(ReadFault::Frame(_)) => Err(wrong_password(user)),
        Err(fault) => Err(fault.into()),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use postgres_protocol::password::scram_sha_256;
    use tokio::net::TcpListener;

    use super::*;
    use crate::wire::frontend;
    use crate::wire::startup::{Opening, open};

    #[test]
    fn verifiers_are_read_whole_or_refused() {
        let good = scram_sha_256(b"secret");
        let read: Verifier = good.parse().unwrap();
        assert_eq!((read.iterations, read.salt.len()), (4096, 16));
        assert_eq!(format!("{read:?}"), "Verifier(..)");
        for bad in [
            "",
            "secret",
            "md5d41d8cd98f00b204e9800998ecf8427e",
            "SCRAM-SHA-256$",
            &good.replace("4096", "0"),
            &good.replace("4096", "-1"),
            &good.replace("4096", "99999999999"),
            &good.replace("SCRAM-SHA-256$", "SCRAM-SHA-1$"),
            &good[..good.len() - 4],
            &good[..good.len() - 1],
            &good.replacen(':', "", 1),
        ] {
            assert_eq!(bad.parse::<Verifier>(), Err(VerifierFault), "{bad}");
        }
    }

    #[test]
    fn made_up_salts_look_real() {
        let mock = Mock::new();
        let salt = |mock: &Mock, user| mock.verifier(user).salt;
        assert_eq!(salt(&mock, "anna").len(), SALT);
        assert_eq!(salt(&mock, "anna"), salt(&mock, "anna"));
        assert_ne!(salt(&mock, "anna"), salt(&mock, "bert"));
        assert_ne!(salt(&mock, "anna"), salt(&Mock::new(), "anna"));
        assert_ne!(
            mock.verifier("anna").stored_key,
            mock.verifier("anna").stored_key
        );
    }

    /// One connection of ours: user `app` with password `s3cret`, nobody else.
    async fn serve(listener: &TcpListener, mock: &Mock) -> Result<(), HandshakeFault> {
        let verifier: Verifier = scram_sha_256(b"s3cret").parse().unwrap();
        let mut stream = Stream::tcp(listener.accept().await.unwrap().0).unwrap();
        let mut out = Vec::new();
        let Opening::Startup(params) = open(&mut stream).await? else {
            panic!("a cancel request");
        };
        let user = params.user()?;
        let known = (user == "app").then_some(&verifier);
        let done = scram(&mut stream, &mut out, user, known, mock).await;
        match &done {
            Ok(()) => {
                backend::auth_ok(&mut out);
                backend::ready(&mut out, b'I');
            }
            Err(fault) => fault.write(&mut out),
        }
        stream.write_all(&out).await?;
        // Read to the end, so that closing does not reset what the client has yet to read.
        while stream.read_exact(&mut [0]).await.is_ok() {}
        done
    }

    async fn log_in(
        user: &str,
        password: &str,
    ) -> (Result<(), String>, Result<(), HandshakeFault>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move { serve(&listener, &Mock::new()).await });
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(port)
            .user(user)
            .password(password);
        let client = config.connect(tokio_postgres::NoTls).await;
        let client = client.map(drop).map_err(|fault| {
            let fault = fault.as_db_error().expect("an ErrorResponse");
            format!("{} {}", fault.code().code(), fault.message())
        });
        (client, server.await.unwrap())
    }

    #[tokio::test]
    async fn the_right_password_and_no_other() {
        let (client, server) = log_in("app", "s3cret").await;
        assert_eq!(client, Ok(()));
        assert!(server.is_ok());
        // A wrong password and an unknown user, with any password, can't be told apart.
        for (user, password) in [
            ("app", "S3cret"),
            ("app", ""),
            ("root", "s3cret"),
            ("root", "x"),
        ] {
            let (client, server) = log_in(user, password).await;
            let expected = format!("28P01 password authentication failed for user \"{user}\"");
            if password.is_empty() {
                // tokio-postgres takes an empty password for one.
                assert!(client.is_err(), "{client:?}");
            } else {
                assert_eq!(client, Err(expected));
            }
            assert!(matches!(server, Err(HandshakeFault::Refused(_))));
        }
    }

    #[tokio::test]
    async fn psql_logs_in() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move { serve(&listener, &Mock::new()).await });
        let asked = tokio::process::Command::new("psql")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port.to_string(),
                "-U",
                "app",
                "-w",
                "-d",
                "app",
            ])
            .env("PGPASSWORD", "s3cret")
            .stdin(std::process::Stdio::null())
            .output()
            .await
            .unwrap();
        assert!(asked.status.success(), "{asked:?}");
        server.await.unwrap().unwrap();
    }

    /// Drives the exchange by hand: `answer` makes the client's next frame from the body of ours.
    async fn by_hand(mut answer: impl FnMut(usize, &[u8]) -> Option<Vec<u8>>) -> HandshakeFault {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let (mut ours, mut theirs) = (Stream::unix(ours), Stream::unix(theirs));
        let verifier: Verifier = scram_sha_256(b"s3cret").parse().unwrap();
        let mock = Arc::new(Mock::new());
        let server = tokio::spawn(async move {
            let mut out = Vec::new();
            scram(&mut ours, &mut out, "app", Some(&verifier), &mock).await
        });
        let mut body = Vec::new();
        for step in 0.. {
            if theirs.read_frame(10_000, &mut body).await.is_err() {
                break;
            }
            let Some(frame) = answer(step, &body) else {
                break;
            };
            theirs.write_all(&frame).await.unwrap();
        }
        drop(theirs);
        server.await.unwrap().expect_err("no login by hand")
    }

    fn code(fault: &HandshakeFault) -> &str {
        match fault {
            HandshakeFault::Refused(fields) => fields.code.as_str(),
            HandshakeFault::Closed => "closed",
            _ => "other",
        }
    }

    fn initial(mechanism: &str, response: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        frontend::sasl_initial_response(&mut out, mechanism, response);
        Some(out)
    }

    #[tokio::test]
    async fn what_a_stranger_may_send_instead() {
        let cases: &[(&str, Option<Vec<u8>>)] = &[
            ("closed", None),
            ("closed", Some(b"X\0\0\0\x04".to_vec())),
            ("08P01", Some(b"Q\0\0\0\x06x\0".to_vec())),
            ("08P01", Some(b"p\0\0\0\x04".to_vec())),
            ("08P01", Some(b"p\0\0\0\x09s3cre".to_vec())),
            ("08P01", initial("SCRAM-SHA-256-PLUS", b"n,,n=,r=abc")),
            ("08P01", initial("SCRAM-SHA-256", b"")),
            ("08P01", initial("SCRAM-SHA-256", b"n,,n=,r=a\0c")),
            ("08P01", initial("SCRAM-SHA-256", b"n,,n=,r=a\xff")),
            ("08P01", initial("SCRAM-SHA-256", b"x,,n=,r=abc")),
            ("08P01", initial("SCRAM-SHA-256", b"p=tls-unique,,n=,r=abc")),
            ("28P01", Some(b"p\0\0\x04\x01".to_vec())),
            ("28P01", Some(b"p\xff\xff\xff\xff".to_vec())),
            ("28P01", Some(b"p\0\0\0\0".to_vec())),
        ];
        for (expected, frame) in cases {
            let fault = by_hand(|_, _| frame.clone()).await;
            assert_eq!(&code(&fault), expected, "{frame:?} {fault}");
        }
    }

    #[tokio::test]
    async fn a_final_message_that_lies_is_a_wrong_password() {
        for garble in 0..5 {
            let mut client = ScramSha256::new(b"s3cret", ChannelBinding::unsupported());
            let fault = by_hand(|step, body| {
                if step == 0 {
                    return initial("SCRAM-SHA-256", client.message());
                }
                client.update(&body[4..]).unwrap();
                let proof = String::from_utf8(client.message().to_vec()).unwrap();
                let proof = match garble {
                    0 => proof.replacen(",r=", ",r=x", 1),      // another nonce
                    1 => proof.replacen("c=biws", "c=eSws", 1), // another channel binding
                    2 => proof[..proof.len() - 4].to_owned(),   // a short proof
                    3 => proof.replacen(",p=", ",a=x,p=", 1), // text that the proof does not cover
                    _ => "p=".to_owned(),
                };
                let mut out = Vec::new();
                frontend::sasl_response(&mut out, proof.as_bytes());
                Some(out)
            })
            .await;
            assert_eq!(code(&fault), "28P01", "{garble} {fault}");
        }
    }

    /// The first answer may be left out of the first message; the exchange then goes on as usual.
    #[tokio::test]
    async fn an_initial_response_may_come_later() {
        let mut client = ScramSha256::new(b"wrong", ChannelBinding::unsupported());
        let fault = by_hand(|step, body| {
            let mut out = Vec::new();
            match step {
                0 => return Some(b"p\0\0\0\x16SCRAM-SHA-256\0\xff\xff\xff\xff".to_vec()),
                1 => {
                    assert_eq!(body, [0, 0, 0, 11]);
                    frontend::sasl_response(&mut out, client.message());
                }
                _ => {
                    client.update(&body[4..]).unwrap();
                    frontend::sasl_response(&mut out, client.message());
                }
            }
            Some(out)
        })
        .await;
        assert_eq!(code(&fault), "28P01", "{fault}");
    }
}
