//! A peer that holds a good certificate and does not keep to the protocol: plain QUIC streams
//! without the transport's own rules.

use std::net::SocketAddr;
use std::sync::Arc;

use galvani_transport::pki::Identity;
use galvani_transport::{ALPN, CloseCode, NODE_SERVER_NAME};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, ConnectionError, Endpoint, SendStream};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::common::ANY_PORT;

/// Connects with the identity's certificate and opens nothing.
pub(crate) async fn connect(identity: &Identity, server: SocketAddr) -> Connection {
    try_connect(identity, server, ALPN).await.expect("connected")
}

/// Connects again and again with what a client keeps for a resumption that sends data at once; the
/// same endpoint and what it keeps are used for all.
pub(crate) fn resuming(identity: &Identity) -> (Endpoint, quinn::ClientConfig) {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("tls 1.3")
        .with_root_certificates(roots(identity))
        .with_client_auth_cert(vec![certificate(&identity.cert_pem)], key(identity))
        .expect("certificate");
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_early_data = true;
    let config = QuicClientConfig::try_from(tls).expect("cipher suites");
    let endpoint = Endpoint::client(ANY_PORT).expect("endpoint");
    (endpoint, quinn::ClientConfig::new(Arc::new(config)))
}

/// As `connect` with any protocol name; gives back how the handshake ended.
pub(crate) async fn try_connect(
    identity: &Identity,
    server: SocketAddr,
    alpn: &[u8],
) -> Result<Connection, ConnectionError> {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("tls 1.3")
        .with_root_certificates(roots(identity))
        .with_client_auth_cert(vec![certificate(&identity.cert_pem)], key(identity))
        .expect("certificate");
    tls.alpn_protocols = vec![alpn.to_vec()];
    let config = QuicClientConfig::try_from(tls).expect("cipher suites");
    let endpoint = Endpoint::client(ANY_PORT).expect("endpoint");
    endpoint
        .connect_with(quinn::ClientConfig::new(Arc::new(config)), server, NODE_SERVER_NAME)
        .expect("valid address")
        .await
}

/// A server that shows the identity's certificate, whatever it was issued for.
pub(crate) fn serve_as(identity: &Identity, alpn: &[u8]) -> Endpoint {
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("tls 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certificate(&identity.cert_pem)], key(identity))
        .expect("certificate");
    tls.alpn_protocols = vec![alpn.to_vec()];
    let config = QuicServerConfig::try_from(tls).expect("cipher suites");
    let config = quinn::ServerConfig::with_crypto(Arc::new(config));
    let endpoint = Endpoint::server(config, ANY_PORT).expect("endpoint");
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            // The refusal is the dialer's; what this side sees of it does not matter.
            let _ = incoming.await;
        }
    });
    endpoint
}

/// Opens a bidirectional stream and sends `bytes` on it.
pub(crate) async fn open(connection: &Connection, bytes: &[u8]) -> SendStream {
    let (mut send, recv) = connection.open_bi().await.expect("stream");
    // Dropping the receiving half would stop it; these peers just never look.
    std::mem::forget(recv);
    send.write_all(bytes).await.expect("sent");
    send
}

/// The code the other side closes the connection with.
pub(crate) async fn close_code(connection: &Connection) -> CloseCode {
    match connection.closed().await {
        ConnectionError::ApplicationClosed(close) => {
            let number = u32::try_from(close.error_code.into_inner()).expect("small code");
            CloseCode::from_number(number)
        }
        other => panic!("{other:?}"),
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(identity: &Identity) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&identity.ca_pem)).expect("root");
    roots
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("certificate")
}

fn key(identity: &Identity) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).expect("key")
}
