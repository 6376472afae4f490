//! Peers that speak QUIC and do not keep to the protocol.
//!
//! Plain streams over a good TLS handshake, with any certificate and any protocol name, and
//! datagrams that are no QUIC at all. What comes back is how the node ended it.

use bytes::BytesMut;
use galvani_transport::pki::Identity;
use galvani_transport::{ALPN, Class, CloseCode, NODE_SERVER_NAME};
use galvani_wire::{Frame, Message, encode};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Connects with the certificate of `identity`, trusting the authority `ca_pem`, under the
/// protocol name `alpn`.
pub async fn connect(
    identity: &Identity,
    ca_pem: &str,
    server: SocketAddr,
    alpn: &[u8],
) -> Result<Connection, ConnectionError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate(ca_pem)).expect("a root certificate");
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate(&identity.cert_pem)], key(identity))
        .expect("key and certificate fit");
    tls.alpn_protocols = vec![alpn.to_vec()];
    let config = QuicClientConfig::try_from(tls).expect("the provider has QUIC's cipher suites");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let endpoint = Endpoint::client(any).expect("a port");
    let config = quinn::ClientConfig::new(Arc::new(config));
    endpoint.connect_with(config, server, NODE_SERVER_NAME).expect("a valid address").await
}

/// Listens at `addr` as `identity` under the protocol name `alpn`, and gets no further with anyone who
/// wants another. It counts who came.
pub fn serve_as(identity: &Identity, addr: SocketAddr, alpn: &[u8]) -> Arc<AtomicU64> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certificate(&identity.cert_pem)], key(identity))
        .expect("key and certificate fit");
    tls.alpn_protocols = vec![alpn.to_vec()];
    let config = QuicServerConfig::try_from(tls).expect("the provider has QUIC's cipher suites");
    let config = quinn::ServerConfig::with_crypto(Arc::new(config));
    let endpoint = Endpoint::server(config, addr).expect("the port is free");
    let came = Arc::new(AtomicU64::new(0));
    let count = came.clone();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            // It ends in a refusal, which is what is wanted.
            let _ = incoming.await;
        }
    });
    came
}

/// Opens a stream whose first byte names `class`.
pub async fn open(connection: &Connection, class: Class) -> (SendStream, RecvStream) {
    let (mut send, recv) = connection.open_bi().await.expect("streams are allowed");
    send.write_all(&[class.wire_id()]).await.expect("one byte fits");
    (send, recv)
}

/// A frame: its length, then `payload`.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame");
    [&length.to_le_bytes(), payload].concat()
}

/// Sends one request as the client library would, with nothing chosen by the library, and waits
/// for its answer.
pub async fn request(identity: &Identity, server: SocketAddr, message: &Message) -> Message {
    let connected = connect(identity, &identity.ca_pem, server, ALPN).await;
    let connection = connected.expect("a good certificate");
    let (mut send, mut recv) = open(&connection, Class::Client).await;
    let mut payload = BytesMut::new();
    encode(1, false, message, &mut payload).expect("a small header");
    let answer = async {
        send.write_all(&frame(&payload)).await.expect("sent");
        // The class of the stream, then a frame.
        let mut head = [0_u8; 5];
        recv.read_exact(&mut head).await.expect("answered");
        let [_, length @ ..] = head;
        let mut payload = vec![0; u32::from_le_bytes(length) as usize];
        recv.read_exact(&mut payload).await.expect("answered whole");
        payload
    };
    let answer = tokio::time::timeout(crate::wait::PATIENCE, answer).await;
    Frame::decode(answer.expect("answered in time").into()).expect("a message").message
}

/// Waits until the node closes the connection; the code it gave.
pub async fn close_code(connection: &Connection) -> CloseCode {
    let closed = tokio::time::timeout(crate::wait::PATIENCE, connection.closed()).await;
    match closed.expect("the node closes what does not keep to the protocol") {
        ConnectionError::ApplicationClosed(close) => {
            let number = u32::try_from(close.error_code.into_inner()).expect("codes are small");
            CloseCode::from_number(number)
        }
        other => panic!("not closed by the node: {other:?}"),
    }
}

/// Sends `count` datagrams of random bytes, some of which begin like QUIC packets.
pub fn send_garbage(server: SocketAddr, count: usize, seed: u64) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut bytes = [0_u8; 1_500];
    for index in 0..count {
        let length = rng.random_range(1..bytes.len());
        rng.fill_bytes(&mut bytes[..length]);
        if index % 2 == 0 && length > 6 {
            // A long header of QUIC version 1, type initial; what follows is noise.
            bytes[0] = 0xc0 | (bytes[0] & 0x0f);
            bytes[1..5].copy_from_slice(&1_u32.to_be_bytes());
            bytes[5] %= 21;
        }
        // A full socket buffer drops some: garbage that is lost is no worse.
        let _ = socket.send_to(&bytes[..length], server);
    }
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

fn key(identity: &Identity) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).expect("a key")
}
