//! Subjects of a NATS server, kept by a JetStream stream.
//!
//! Each event is published with its id in `Nats-Msg-Id` and counts once the stream's acknowledgement is
//! here. It uses plain requests only: the client's JetStream layer would bring much that is not needed.
//! A stream is made only where that was asked for.

use crate::outgoing::Outgoing;
use crate::settings::Settings;
use crate::sink::{Failure, Sent, Sink};
use crate::target::NatsTarget;
use async_nats::client::RequestErrorKind;
use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, HeaderMap, Request};
use bytes::Bytes;
use serde::Deserialize;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// A server with JetStream.
pub(crate) struct NatsSink {
    client: Client,
    target: NatsTarget,
    news: Arc<News>,
    stream: Mutex<Stream>,
}

/// What is known of the stream that takes the subjects.
#[derive(Default)]
struct Stream {
    /// Subjects that a stream took when it was looked for last.
    found: HashSet<String>,
    /// There was one at some time.
    ever: bool,
}

/// What the client tells besides answers.
struct News {
    /// How often it was connected.
    connections: watch::Sender<u64>,
    /// How often the connection was lost.
    losses: watch::Sender<u64>,
    last_error: parking_lot::Mutex<Option<String>>,
}

impl NatsSink {
    /// Begins to connect.
    pub(crate) async fn new(target: NatsTarget, settings: &Settings) -> Result<NatsSink, String> {
        let news = Arc::new(News {
            connections: watch::Sender::new(0),
            losses: watch::Sender::new(0),
            last_error: parking_lot::Mutex::new(None),
        });
        let listener = news.clone();
        let mut options = ConnectOptions::new()
            .name("galvani relay")
            .retry_on_initial_connect()
            .connection_timeout(settings.attempt_timeout)
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(reconnect_delay)
            .require_tls(target.tls)
            .event_callback(move |event| {
                let listener = listener.clone();
                async move { listener.note(&event) }
            });
        let secret = match &settings.secret {
            Some(secret) => Some(secret.text().ok_or("the secret is not UTF-8")?.to_owned()),
            None => None,
        };
        options = match (target.user.clone(), target.password.clone().or(secret)) {
            (Some(user), Some(password)) => options.user_and_password(user, password),
            (Some(token), None) | (None, Some(token)) => options.token(token),
            (None, None) => options,
        };
        let address = match target.host.contains(':') {
            true => format!("[{}]:{}", target.host, target.port),
            false => format!("{}:{}", target.host, target.port),
        };
        let client = options.connect(address).await.map_err(|e| e.to_string())?;
        Ok(NatsSink { client, target, news, stream: Mutex::default() })
    }

    /// Waits a little for the connection.
    async fn connected(&self) -> Result<(), Failure> {
        let mut connections = self.news.connections.subscribe();
        let wait = async {
            while self.client.connection_state() != State::Connected {
                if connections.changed().await.is_err() {
                    break;
                }
            }
        };
        let late = |_| match self.news.last_error.lock().as_ref() {
            Some(error) => Failure::down(format!("not connected: {error}")),
            None => Failure::down("not connected"),
        };
        tokio::time::timeout(CONNECT_WAIT, wait).await.map_err(late)
    }

    /// Sends a request and waits for its answer, or for the loss of the connection.
    async fn ask(
        &self,
        subject: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Bytes, Failure> {
        let mut losses = self.news.losses.subscribe();
        let mut request = Request::new().payload(body).timeout(None);
        if !headers.is_empty() {
            request = request.headers(headers);
        }
        let answer = tokio::select! {
            answer = self.client.send_request(subject.clone(), request) => answer,
            _ = losses.changed() => {
                return Err(Failure::down("the connection was lost before the answer"));
            }
        };
        answer.map(|message| message.payload).map_err(|e| match e.kind() {
            RequestErrorKind::NoResponders => Failure::down(format!("nobody answers on {subject}")),
            RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                Failure::refused(e.to_string())
            }
            RequestErrorKind::TimedOut | RequestErrorKind::Other => Failure::down(e.to_string()),
        })
    }

    /// Sees to it that a stream takes this subject. Otherwise nobody would answer, for ever.
    async fn stream_there(&self, subject: &str) -> Result<(), Failure> {
        let mut stream = self.stream.lock().await;
        if stream.found.contains(subject) {
            return Ok(());
        }
        let names = self.api("STREAM.NAMES", serde_json::json!({ "subject": subject })).await?;
        let none = names.streams.unwrap_or_default().is_empty();
        match (&self.target.create, none) {
            (_, false) => {}
            (Some(name), true) => {
                let subjects = format!("{}.>", self.target.prefix);
                let config = serde_json::json!({
                    "name": name,
                    "subjects": [subjects],
                    "storage": "file",
                    "retention": "limits",
                    "num_replicas": 1,
                    "duplicate_window": self.target.window.as_nanos() as u64,
                });
                self.api(&format!("STREAM.CREATE.{name}"), config).await?;
                tracing::info!(stream = %name, subjects, "made a stream");
            }
            // A server that starts may not know its streams yet.
            (None, true) if stream.ever => {
                return Err(Failure::down(format!("no stream takes {subject} any more")));
            }
            (None, true) => {
                let why = format!("no stream takes {subject}: make one, or write ?create=STREAM");
                return Err(Failure::unusable(why));
            }
        }
        if stream.found.len() >= SUBJECTS_MAX {
            stream.found.clear();
        }
        stream.found.insert(subject.to_owned());
        stream.ever = true;
        Ok(())
    }

    async fn api(&self, what: &str, body: serde_json::Value) -> Result<ApiAnswer, Failure> {
        let body = Bytes::from(body.to_string());
        let answer = self.ask(format!("$JS.API.{what}"), HeaderMap::new(), body).await;
        let answer = answer.map_err(|failure| match failure {
            Failure::Down { why, pause } => {
                Failure::Down { why: format!("JetStream does not answer: {why}"), pause }
            }
            other => other,
        })?;
        let answer: ApiAnswer = serde_json::from_slice(&answer)
            .map_err(|e| Failure::unusable(format!("what answers {what} is not JetStream: {e}")))?;
        match answer.error {
            None => Ok(answer),
            Some(error) if error.code >= 500 => Err(Failure::down(error.describe())),
            Some(error) => Err(Failure::unusable(format!("{what}: {}", error.describe()))),
        }
    }

    async fn publish(&self, event: &Outgoing) -> Result<bool, Failure> {
        let subject = format!("{}.{}", self.target.prefix, subject_of(&event.subject));
        self.connected().await?;
        self.stream_there(&subject).await?;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", event.id.as_str());
        for (name, value) in &event.attributes {
            headers.insert(format!("Galvani-{name}"), value.as_str());
        }
        let answer = self.ask(subject.clone(), headers, event.body.clone()).await;
        if let Err(Failure::Down { .. }) = &answer {
            self.stream.lock().await.found.remove(&subject);
        }
        ack_of(&answer?, &subject)
    }
}

impl Sink for NatsSink {
    async fn send(&self, events: &[Outgoing]) -> Sent {
        match self.publish(&events[0]).await {
            Ok(known) => Sent::one(known),
            Err(failure) => Sent::failed(failure),
        }
    }
}

impl News {
    fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                *self.last_error.lock() = None;
                self.connections.send_modify(|count| *count += 1);
            }
            Event::Disconnected | Event::Closed => self.losses.send_modify(|count| *count += 1),
            Event::ServerError(_) | Event::ClientError(_) => {
                *self.last_error.lock() = Some(event.to_string());
            }
            Event::LameDuckMode | Event::Draining | Event::SlowConsumer(_) => {}
        }
    }
}

#[derive(Deserialize)]
struct ApiAnswer {
    error: Option<ApiError>,
    streams: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct ApiError {
    code: u16,
    description: Option<String>,
}

impl ApiError {
    fn describe(self) -> String {
        format!("{} ({})", self.description.unwrap_or_else(|| "an error".into()), self.code)
    }
}

#[derive(Deserialize)]
struct PubAck {
    error: Option<ApiError>,
    stream: Option<String>,
    #[serde(default)]
    duplicate: bool,
}

/// Reads a stream's acknowledgement. Returns whether the stream knew the id.
fn ack_of(answer: &[u8], subject: &str) -> Result<bool, Failure> {
    let other = || {
        let why = format!("what answers on {subject} is not a stream: another subject is needed");
        Failure::unusable(why)
    };
    let ack: PubAck = serde_json::from_slice(answer).map_err(|_| other())?;
    match ack.error {
        Some(error) if error.code >= 500 => Err(Failure::down(error.describe())),
        Some(error) if matches!(error.code, 401 | 403) => Err(Failure::unusable(error.describe())),
        Some(error) => Err(Failure::refused(error.describe())),
        None if ack.stream.is_none() => Err(other()),
        None => Ok(ack.duplicate),
    }
}

/// A topic or bucket as words of a subject: dots stay, what NATS gives a meaning is escaped as `%XX`.
fn subject_of(topic: &str) -> String {
    let escape = |byte: u8| format!("%{byte:02X}");
    let word = |word: &str| match word.is_empty() {
        true => escape(b'.'),
        false => word
            .bytes()
            .map(|byte| match byte.is_ascii_graphic() && !b"*>%".contains(&byte) {
                true => char::from(byte).to_string(),
                false => escape(byte),
            })
            .collect(),
    };
    topic.split('.').map(word).collect::<Vec<_>>().join(".")
}

/// The pause before connecting again: the breaker decides when to try an event, so this one is short.
fn reconnect_delay(tries: usize) -> Duration {
    let doubled = Duration::from_millis(50).saturating_mul(1 << tries.min(5));
    doubled.min(Duration::from_secs(1))
}

/// A connection that is silent for two of these is given up and made anew.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Most subjects that are known to be taken; past it all are looked up again.
const SUBJECTS_MAX: usize = 10_000;

/// How long a try waits for the connection before it counts as failed.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_and_errors_are_told_apart() {
        let of = |text: &str| ack_of(text.as_bytes(), "a.b");
        assert_eq!(of(r#"{"stream":"S","seq":1}"#), Ok(false));
        assert_eq!(of(r#"{"stream":"S","seq":1,"duplicate":true}"#), Ok(true));
        let full = r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages"}}"#;
        assert!(matches!(of(full), Err(Failure::Down { why, .. }) if why.contains("maximum")));
        let large =
            r#"{"error":{"code":400,"description":"message size exceeds maximum allowed"}}"#;
        assert!(matches!(of(large), Err(Failure::Refused { .. })));
        assert!(matches!(of("hello"), Err(Failure::Unusable { .. })));
        assert!(matches!(of("{}"), Err(Failure::Unusable { .. })), "an answer of some service");
    }

    #[test]
    fn topics_become_subjects_without_wildcards() {
        assert_eq!(subject_of("orders.paid"), "orders.paid");
        assert_eq!(subject_of("a/b c"), "a/b%20c");
        assert_eq!(subject_of("a..b"), "a.%2E.b");
        assert_eq!(subject_of("*.>"), "%2A.%3E");
        assert_eq!(subject_of(""), "%2E");
    }
}
