//! Where a node that has no certificate yet asks for one: a QUIC endpoint of its own, beside no lane.
//!
//! The asker shows nothing but what it sends; the signer shows a certificate of the cluster's root and
//! the root itself, which the asker knows by its hash only. One connection is one question and one
//! answer, both opaque here. Strangers cost little: their address is proved before a handshake is
//! computed, few are heard at once, each for seconds, and a question is at most 4 KiB.
//! Next to read: `certify.rs`, which signs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, Incoming, SendStream, ServerConfig};
use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::endpoint::BindError;
use crate::pki::{ClusterCa, PkiError};

/// DNS name of the certificate that a signer shows; it names neither a node nor a client.
pub(crate) const SIGNER_SERVER_NAME: &str = "signer.galvani";

/// Most bytes of a question.
pub const QUESTION_BYTES_MAX: usize = 4 << 10;

/// Most bytes of an answer: a cluster file and a little more.
pub const ANSWER_BYTES_MAX: usize = 17 << 20;

/// Hears questions. Dropping it ends it.
#[derive(Debug)]
pub struct SigningEndpoint {
    endpoint: Endpoint,
    asked: mpsc::Receiver<Asked>,
}

/// A question, and the way back.
#[derive(Debug)]
pub struct Asked {
    /// Who asks.
    pub from: SocketAddr,
    /// What, as it came: at most [`QUESTION_BYTES_MAX`].
    pub question: Vec<u8>,
    send: SendStream,
    connection: Connection,
}

/// Why a signer cannot be.
#[derive(Debug, Error)]
pub enum SignerError {
    /// Its certificate is not made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// It cannot listen.
    #[error(transparent)]
    Bind(#[from] BindError),
}

impl SigningEndpoint {
    /// Listens on `addr` with a certificate of `ca`. Must be called inside a tokio runtime.
    pub fn bind(addr: SocketAddr, ca: &ClusterCa) -> Result<SigningEndpoint, SignerError> {
        let identity = ca.issue_signer()?;
        let provider = Arc::new(crypto::ring::default_provider());
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes());
        let chain = [certificate(&identity.cert_pem), certificate(&identity.ca_pem)];
        let chain: Result<Vec<_>, _> = chain.into_iter().collect();
        let chain = chain.map_err(|_| BindError::BadPem)?;
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())
            .map_err(|_| BindError::BadPem)?;
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(BindError::Tls)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(BindError::Tls)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.max_early_data_size = 0;
        tls.send_tls13_tickets = 0;
        let quic = QuicServerConfig::try_from(tls).map_err(|_| BindError::NoCipherSuite)?;
        let mut config = ServerConfig::with_crypto(Arc::new(quic));
        config.max_incoming(ASKERS_MAX).incoming_buffer_size_total(1 << 20);
        let socket = |source| BindError::Socket { addr, source };
        let endpoint = Endpoint::server(config, addr).map_err(socket)?;
        let (out, asked) = mpsc::channel(1);
        tokio::spawn(accept(endpoint.clone(), out));
        Ok(SigningEndpoint { endpoint, asked })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.endpoint.local_addr().ok()
    }

    /// The next question. Cancel safe.
    pub async fn next(&mut self) -> Option<Asked> {
        self.asked.recv().await
    }
}

impl Drop for SigningEndpoint {
    fn drop(&mut self) {
        self.endpoint.close(0_u32.into(), b"closed");
    }
}

impl Asked {
    /// Answers, and waits until that has arrived. False: it may not have.
    pub async fn answer(mut self, answer: &[u8]) -> bool {
        let deliver = async {
            self.send.write_all(answer).await.ok()?;
            self.send.finish().ok()?;
            self.send.stopped().await.ok()
        };
        let delivered = timeout(ASK_TIME, deliver).await;
        self.connection.close(0_u32.into(), b"answered");
        delivered.is_ok_and(|done| done.is_some())
    }
}

async fn accept(endpoint: Endpoint, out: mpsc::Sender<Asked>) {
    let seats = Arc::new(Semaphore::new(ASKERS_MAX));
    while let Some(incoming) = endpoint.accept().await {
        if !incoming.remote_address_validated() {
            // A sender that made its address up never comes back; it has cost one small packet.
            let _ = incoming.retry();
            continue;
        }
        let Ok(seat) = seats.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let out = out.clone();
        tokio::spawn(async move {
            let heard = timeout(ASK_TIME, hear(incoming)).await;
            if let Ok(Some(asked)) = heard {
                // Nobody takes it once the endpoint is dropped.
                let _ = out.send(asked).await;
            }
            drop(seat);
        });
    }
}

async fn hear(incoming: Incoming) -> Option<Asked> {
    let from = incoming.remote_address();
    let connection = incoming.await.ok()?;
    let (send, mut recv) = connection.accept_bi().await.ok()?;
    let question = recv.read_to_end(QUESTION_BYTES_MAX).await.ok()?;
    Some(Asked { from, question, send, connection })
}

/// Why a question got no answer. Whether it was heard is not known, except where it says so.
#[derive(Debug, Error)]
pub enum AskError {
    /// Nobody answers there: nothing was sent.
    #[error("no answer: {detail}")]
    NoAnswer {
        /// What the QUIC library says.
        detail: String,
    },
    /// Whoever answers there has another root: nothing was sent.
    #[error("whoever answers there is not of the cluster: its root is another one")]
    OtherRoot,
    /// The connection ended before there was an answer.
    #[error("cut off before it answered: {detail}")]
    CutOff {
        /// What the QUIC library says.
        detail: String,
    },
}

/// Asks the signer at `addr`, which must be of the root whose certificate (DER) has this SHA-256.
pub async fn ask(addr: SocketAddr, root: [u8; 32], question: &[u8]) -> Result<Vec<u8>, AskError> {
    let no_answer = |detail: String| AskError::NoAnswer { detail };
    let other = Arc::new(AtomicBool::new(false));
    let config = asking(root, other.clone()).map_err(|error| no_answer(error.to_string()))?;
    let any: SocketAddr = match addr {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let endpoint = Endpoint::client(any).map_err(|error| no_answer(error.to_string()))?;
    let connecting = endpoint
        .connect_with(config, addr, SIGNER_SERVER_NAME)
        .map_err(|error| no_answer(error.to_string()))?;
    let connection = match timeout(ASK_TIME, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(_)) if other.load(Ordering::Relaxed) => return Err(AskError::OtherRoot),
        Ok(Err(error)) => return Err(no_answer(error.to_string())),
        Err(_) => return Err(no_answer(format!("udp, within {} s", ASK_TIME.as_secs()))),
    };
    let cut_off = |detail: String| AskError::CutOff { detail };
    let exchange = async {
        let (mut send, mut recv) =
            connection.open_bi().await.map_err(|error| cut_off(error.to_string()))?;
        send.write_all(question).await.map_err(|error| cut_off(error.to_string()))?;
        send.finish().map_err(|error| cut_off(error.to_string()))?;
        let answer = recv.read_to_end(ANSWER_BYTES_MAX).await;
        answer.map_err(|error| cut_off(error.to_string()))
    };
    let answered = timeout(ANSWER_TIME, exchange).await;
    connection.close(0_u32.into(), b"heard");
    // The closing packet leaves, or the signer waits for it in vain, for seconds.
    let _ = timeout(Duration::from_millis(200), endpoint.wait_idle()).await;
    answered.unwrap_or_else(|_| Err(cut_off("it took too long".to_owned())))
}

fn asking(root: [u8; 32], other: Arc<AtomicBool>) -> Result<ClientConfig, BindError> {
    let provider = Arc::new(crypto::ring::default_provider());
    let verifier = ByHash { root, other, provider: provider.clone() };
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(BindError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_early_data = false;
    let quic = QuicClientConfig::try_from(tls).map_err(|_| BindError::NoCipherSuite)?;
    Ok(ClientConfig::new(Arc::new(quic)))
}

/// Believes a certificate that is signed by the root with this hash, for the signer's name.
#[derive(Debug)]
struct ByHash {
    root: [u8; 32],
    /// Set when the chain has no such root.
    other: Arc<AtomicBool>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByHash {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_root = |one: &&CertificateDer<'_>| digest(&SHA256, one).as_ref() == self.root;
        let Some(root) = intermediates.iter().find(is_root) else {
            self.other.store(true, Ordering::Relaxed);
            return Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let provider = self.provider.clone();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier =
            verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC has TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The protocol of a question; its number goes up with the form of what is asked and answered.
const ALPN: &[u8] = b"galvani-join/1";
/// Strangers that are heard at once.
const ASKERS_MAX: usize = 16;
/// Time to connect and to be asked.
const ASK_TIME: Duration = Duration::from_secs(5);
/// Time to be answered: a cluster file over a slow network.
const ANSWER_TIME: Duration = Duration::from_secs(30);
