//! What is signed, what answers mean, whom TLS trusts. With a receiver: `tests/webhook.rs`.

use super::{Failure, WebhookSink, pause_asked_for, signature, signing_key, verdict};
use crate::outgoing::Outgoing;
use crate::settings::{Secret, Settings};
use crate::sink::{Sent, Sink};
use hyper::StatusCode;
use hyper::header::{HeaderMap, RETRY_AFTER};
use rustls::RootCertStore;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

#[test]
fn the_signature_is_that_of_standard_webhooks() {
    // The example of the specification.
    let secret = Secret::new(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let key = signing_key(&secret).unwrap();
    let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
    assert_eq!(
        signature(&key, id, 1_614_265_330, body),
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    );
    assert!(signing_key(&Secret::new(b"whsec_?").unwrap()).unwrap_err().contains("base64"));
}

#[test]
fn answers_mean_what_they_say() {
    let minute = Some(Duration::from_secs(60));
    let of = |status, pause| verdict(StatusCode::from_u16(status).unwrap(), pause, "no");
    assert_eq!(of(204, None), None);
    for status in [408, 425, 500, 502, 503, 504] {
        assert!(matches!(of(status, None), Some(Failure::Passing { .. })), "{status}");
        assert!(matches!(of(status, minute), Some(Failure::Down { pause, .. }) if pause == minute));
    }
    assert!(matches!(of(429, None), Some(Failure::Down { .. })));
    for status in [400, 409, 413, 422] {
        assert!(matches!(of(status, None), Some(Failure::Refused { .. })), "{status}");
    }
    for status in [301, 401, 403, 404, 410] {
        assert!(matches!(of(status, None), Some(Failure::Unusable { .. })), "{status}");
    }
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = UNIX_EPOCH + Duration::from_secs(784_111_777 - 30);
    let asked = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        pause_asked_for(&headers, now)
    };
    assert_eq!(asked("120"), Some(Duration::from_secs(120)));
    assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(30)));
    assert_eq!(asked("Fri, 06 Nov 1992 08:49:37 GMT"), Some(Duration::ZERO));
    assert_eq!(asked("soon"), None);
}

#[tokio::test]
async fn a_server_is_trusted_only_with_its_certificate() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (certificate, key) = (made.cert.der().clone(), made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.try_into().unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut text = Vec::new();
            while !text.ends_with(b"{}") && stream.read_buf(&mut text).await.unwrap() > 0 {}
            let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    let url = format!("https://localhost:{port}/in").parse().unwrap();
    let mut trusted = RootCertStore::empty();
    trusted.add(certificate).unwrap();
    let event = [Outgoing::new("e".into(), "t".into(), "k".into(), "{}".into())];
    for (roots, right) in [(RootCertStore::empty(), false), (trusted, true)] {
        let sink = WebhookSink::trusting(&url, &Settings::default(), roots).unwrap();
        match sink.send(&event).await {
            sent if right => assert_eq!(sent, Sent::one(false)),
            Sent { failure: Some(Failure::Down { why, .. }), .. } => {
                assert!(why.contains("certificate"), "{why}");
            }
            sent => panic!("{sent:?}"),
        }
    }
}
