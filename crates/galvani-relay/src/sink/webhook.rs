//! A web server that is sent each event as a POST.
//!
//! Signed after Standard Webhooks 1.0 (`webhook-id`, `webhook-timestamp`, `webhook-signature`), so that
//! receivers can use its libraries, and with `Idempotency-Key`. Redirections are not followed: the
//! receiver is the one that was named.

use crate::outgoing::Outgoing;
use crate::settings::{Secret, Settings};
use crate::sink::{Failure, Sent, Sink};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use ring::hmac;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::timeout;
use url::Url;

/// A web server.
pub(crate) struct WebhookSink {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: hyper::Uri,
    key: Option<hmac::Key>,
}

impl WebhookSink {
    /// A server whose certificate the system trusts, if it is asked over TLS.
    pub(crate) fn new(url: &Url, settings: &Settings) -> Result<WebhookSink, String> {
        // The system's certificates are read only where they are needed.
        let roots = match url.scheme() {
            "https" => roots_of_system()?,
            _ => RootCertStore::empty(),
        };
        WebhookSink::trusting(url, settings, roots)
    }

    fn trusting(
        url: &Url,
        settings: &Settings,
        roots: RootCertStore,
    ) -> Result<WebhookSink, String> {
        let uri = url.as_str().parse().map_err(|e| format!("not an address: {e}"))?;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(settings.attempt_timeout));
        let tls = tls_config(roots)?;
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(builder.enable_http1().wrap_connector(http));
        let key = settings.secret.as_ref().map(signing_key).transpose()?;
        Ok(WebhookSink { client, uri, key })
    }

    fn request(&self, event: &Outgoing, now: SystemTime) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::new(Full::new(event.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        let mut set = |name: &str, value: &str| -> Result<(), String> {
            let fault = |e: &dyn std::fmt::Display| format!("cannot be header {name}: {e}");
            let name_made: HeaderName = name.parse().map_err(|e| fault(&e))?;
            let value: HeaderValue = value.parse().map_err(|e| fault(&e))?;
            headers.insert(name_made, value);
            Ok(())
        };
        for (name, value) in &event.attributes {
            set(&format!("galvani-{name}"), value)?;
        }
        set("content-type", "application/json")?;
        set("user-agent", concat!("galvani/", env!("CARGO_PKG_VERSION")))?;
        set("idempotency-key", &event.id)?;
        set("galvani-topic", &event.subject)?;
        let at = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        set("webhook-id", &event.id)?;
        set("webhook-timestamp", &at.to_string())?;
        if let Some(key) = &self.key {
            set("webhook-signature", &signature(key, &event.id, at, &event.body))?;
        }
        Ok(request)
    }
}

impl Sink for WebhookSink {
    async fn send(&self, events: &[Outgoing]) -> Sent {
        let request = match self.request(&events[0], SystemTime::now()) {
            Ok(request) => request,
            Err(why) => return Sent::failed(Failure::refused(why)),
        };
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(e) => {
                let why = with_causes(&e);
                return Sent::failed(match e.is_connect() {
                    true => Failure::down(why),
                    false => Failure::passing(why),
                });
            }
        };
        let status = response.status();
        let asked = pause_asked_for(response.headers(), SystemTime::now());
        let text = text_of(response).await;
        match verdict(status, asked, &text) {
            None => Sent::one(false),
            Some(failure) => Sent::failed(failure),
        }
    }
}

/// What an answer means; `None`: it has the event.
fn verdict(status: StatusCode, pause: Option<Duration>, text: &str) -> Option<Failure> {
    if status.is_success() {
        return None;
    }
    let why = match text.is_empty() {
        true => format!("it answered {status}"),
        false => format!("it answered {status}: {text}"),
    };
    Some(match status.as_u16() {
        429 => Failure::Down { why, pause },
        408 | 425 | 500..=599 if pause.is_some() => Failure::Down { why, pause },
        408 | 425 | 500..=599 => Failure::Passing { why },
        300..=399 => {
            Failure::unusable(format!("{why}; redirections are not followed: name the end"))
        }
        // These are about who asks and where, not about what is sent.
        401 | 403 | 404 | 405 | 407 | 410 => Failure::Unusable { why },
        _ => Failure::Refused { why },
    })
}

/// What `Retry-After` says: seconds, or a date.
fn pause_asked_for(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(SystemTime::from(date.timestamp()).duration_since(now).unwrap_or_default())
}

/// The start of an answer's text, on one line. Reading it to its end keeps the connection for the next
/// event; an answer that is long or slow is not worth that.
async fn text_of(response: Response<Incoming>) -> String {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let Ok(Ok(body)) = timeout(ANSWER_WAIT, body.collect()).await else {
        return String::new();
    };
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
}

const ANSWER_BYTES_MAX: usize = 16 * 1024;
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// An error with what caused it: hyper's own text says only where it happened.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Secrets of Standard Webhooks begin with `whsec_` and are base64; others are taken as they are.
fn signing_key(secret: &Secret) -> Result<hmac::Key, String> {
    let bytes = match secret.bytes().strip_prefix(b"whsec_") {
        Some(encoded) => STANDARD
            .decode(encoded)
            .map_err(|e| format!("the secret after whsec_ is no base64: {e}"))?,
        None => secret.bytes().to_vec(),
    };
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

fn signature(key: &hmac::Key, id: &str, at: u64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(format!("{id}.{at}.").as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

fn roots_of_system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        false => Ok(roots),
        true => {
            Err("this system has no certificates to trust: install ca-certificates, or name a \
                     file in SSL_CERT_FILE"
                .into())
        }
    }
}

fn tls_config(roots: RootCertStore) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS: {e}"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests;
