//! The HTTP client of the webhook: one address, connections that are kept, a limit of time for each call.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use axum::http::{HeaderValue, Request, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Where systems keep the certificates that they trust.
const SYSTEM_CAS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// What is read of an answer's body, so that the connection can be used again.
const BODY_MOST: usize = 64 * 1024;
/// How long it is waited for.
const BODY_WITHIN: Duration = Duration::from_millis(500);

/// Where the webhook is, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    tls: bool,
    /// As in the Host header.
    authority: String,
    host: String,
    port: u16,
    path: String,
}

impl Target {
    /// Of an http or https url; the error says what is wrong with another.
    pub(super) fn read(url: &str) -> Result<Target, &'static str> {
        let uri: Uri = url.parse().map_err(|_| "is no url")?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("is neither an http nor an https url"),
        };
        let authority = uri.authority().ok_or("names no host")?;
        if authority.as_str().contains('@') {
            return Err("has a password, which is not made use of");
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err("names no host");
        }
        Ok(Target {
            tls,
            authority: authority.as_str().to_owned(),
            host,
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
        })
    }
}

/// What the webhook answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// How long it wants to be left alone.
    pub(super) retry_after: Option<Duration>,
}

type Sender = SendRequest<Full<Bytes>>;

/// Calls one address, from any number of tasks.
pub(super) struct Client {
    target: Target,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
    idle: Mutex<Vec<Sender>>,
}

impl Client {
    /// Connects to nothing yet.
    pub(super) fn new(
        target: &Target,
        ca: Option<&Path>,
        timeout: Duration,
    ) -> Result<Client, String> {
        let tls = match target.tls {
            false => None,
            true => {
                let name = ServerName::try_from(target.host.clone());
                let name = name.map_err(|e| format!("{}: {e}", target.host))?;
                Some((TlsConnector::from(Arc::new(trusting(ca)?)), name))
            }
        };
        Ok(Client {
            target: target.clone(),
            tls,
            timeout,
            idle: Mutex::default(),
        })
    }

    /// Posts JSON with these headers; the error says why there is no answer.
    pub(super) async fn post(
        &self,
        headers: &[(&'static str, HeaderValue)],
        body: &Bytes,
    ) -> Result<Answer, String> {
        let answer = tokio::time::timeout(self.timeout, self.attempt(headers, body)).await;
        answer.unwrap_or_else(|_| Err(format!("no answer within {:?}", self.timeout)))
    }

    async fn attempt(
        &self,
        headers: &[(&'static str, HeaderValue)],
        body: &Bytes,
    ) -> Result<Answer, String> {
        // A connection that was kept may turn out to be closed, as it is after each restart of the other side.
        if let Some(kept) = self.take()
            && let Ok(answer) = self.send(kept, headers, body).await
        {
            return Ok(answer);
        }
        let fresh = self.connect().await?;
        self.send(fresh, headers, body).await
    }

    fn take(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(SendRequest::is_ready)
    }

    fn keep(&self, sender: Sender) {
        if !sender.is_closed() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(sender);
        }
    }

    /// Keeps the connection for the next one if it can be used again.
    async fn send(
        &self,
        mut sender: Sender,
        headers: &[(&'static str, HeaderValue)],
        body: &Bytes,
    ) -> Result<Answer, String> {
        let mut request = Request::post(&self.target.path)
            .header(HOST, &self.target.authority)
            .header(CONTENT_TYPE, "application/json")
            .header(
                USER_AGENT,
                concat!("presplit-feed/", env!("CARGO_PKG_VERSION")),
            );
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body.clone())).map_err(why)?;
        sender.ready().await.map_err(why)?;
        let response = sender.send_request(request).await.map_err(why)?;
        let (head, body) = response.into_parts();
        let retry_after = head.headers.get(RETRY_AFTER);
        let retry_after = retry_after
            .and_then(|r| r.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        // The answer is in its status. Behind a body that does not end the connection is of no use.
        let rest = Limited::new(body, BODY_MOST).collect();
        if matches!(tokio::time::timeout(BODY_WITHIN, rest).await, Ok(Ok(_))) {
            self.keep(sender);
        }
        Ok(Answer {
            status: head.status.as_u16(),
            retry_after,
        })
    }

    async fn connect(&self) -> Result<Sender, String> {
        let at = (self.target.host.as_str(), self.target.port);
        let stream = TcpStream::connect(at).await.map_err(why)?;
        stream.set_nodelay(true).map_err(why)?;
        match &self.tls {
            None => handshake(stream).await,
            Some((tls, name)) => {
                let stream = tls.connect(name.clone(), stream).await.map_err(why)?;
                handshake(stream).await
            }
        }
    }
}

/// HTTP over this stream. The task ends with the connection, which ends when its sender is dropped.
async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Sender, String> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(why)?;
    tokio::spawn(async move {
        if let Err(fault) = connection.await {
            tracing::debug!("the webhook's connection: {fault}");
        }
    });
    Ok(sender)
}

/// A fault with what is behind it.
fn why(fault: impl std::error::Error) -> String {
    let mut said = fault.to_string();
    let mut source = fault.source();
    while let Some(deeper) = source {
        said.push_str(&format!(": {deeper}"));
        source = deeper.source();
    }
    said
}

/// TLS that believes these certificates, else the system's.
fn trusting(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let system = || SYSTEM_CAS.iter().map(Path::new).find(|p| p.exists());
    let file = ca.or_else(system).ok_or(
        "no certificates were found where systems keep them: write [feed.hook] ca = \"FILE.pem\"",
    )?;
    let bad = |e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| bad(&e))? {
        let certificate = certificate.map_err(|e| bad(&e))?;
        let added = roots.add(certificate);
        // A system's bundle may have one that is too old to be read; the others are good.
        if let (Err(fault), Some(_)) = (added, ca) {
            return Err(bad(&fault));
        }
    }
    if roots.is_empty() {
        return Err(bad(&"it holds no certificate"));
    }
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_http_url() {
        let good = Target::read("https://a.example:8443/hooks?x=1").unwrap();
        let parts = (good.tls, good.host.as_str(), good.port, good.path.as_str());
        assert_eq!(parts, (true, "a.example", 8443, "/hooks?x=1"));
        let bare = Target::read("http://[::1]").unwrap();
        assert_eq!(
            (bare.host.as_str(), bare.port, bare.path.as_str()),
            ("::1", 80, "/")
        );
        for bad in [
            "",
            "/hooks",
            "a.example",
            "ftp://a/",
            "http:///x",
            "http://u:p@a/",
        ] {
            assert!(Target::read(bad).is_err(), "{bad}");
        }
    }
}
