//! From an identity and a configuration to what the QUIC library wants.
//!
//! TLS 1.3 only, both sides present certificates of the cluster's root, no resumption and no 0-RTT:
//! a resumed session would skip the check of a renewed or narrowed certificate, and early data
//! could be replayed. Never falls back to anything weaker.
//! Source: RFC 9001; which names are asked for is in `peer.rs`.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig,
    TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use rustls::client::Resumption;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, crypto};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::endpoint::BindError;
use crate::pki::Identity;
use crate::windows::WINDOW_MIN;
use crate::{ALPN, Class, Config, DownReason, PeerIdentity, TransportKeys};

/// An identity taken apart and checked.
pub(crate) struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    /// Who the certificate names.
    pub(crate) own: PeerIdentity,
}

impl Credentials {
    pub(crate) fn parse(identity: &Identity) -> Result<Self, BindError> {
        let mut roots = RootCertStore::empty();
        for ca in certificates(&identity.ca_pem)? {
            roots.add(ca).map_err(BindError::Tls)?;
        }
        let chain = certificates(&identity.cert_pem)?;
        let leaf = chain.first().ok_or(BindError::BadPem)?;
        Ok(Credentials {
            own: PeerIdentity::from_certificate(leaf).map_err(BindError::Identity)?,
            key: PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())
                .map_err(|_| BindError::BadPem)?,
            chain,
            roots: Arc::new(roots),
        })
    }

    /// What dialing needs.
    pub(crate) fn client(&self, config: &Config) -> Result<ClientConfig, BindError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(BindError::Tls)?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(BindError::Tls)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.resumption = Resumption::disabled();
        tls.enable_early_data = false;
        let quic = QuicClientConfig::try_from(tls).map_err(|_| BindError::NoCipherSuite)?;
        let mut client = ClientConfig::new(Arc::new(quic));
        client.transport_config(Arc::new(transport(config, 0)?));
        Ok(client)
    }

    /// What accepting needs.
    pub(crate) fn server(&self, config: &Config) -> Result<ServerConfig, BindError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone())
                .build()
                .map_err(|_| BindError::BadPem)?;
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(BindError::Tls)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(BindError::Tls)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.max_early_data_size = 0;
        tls.send_tls13_tickets = 0;
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        let quic = QuicServerConfig::try_from(tls).map_err(|_| BindError::NoCipherSuite)?;
        let mut server = ServerConfig::with_crypto(Arc::new(quic));
        let mut transport = transport(config, Class::COUNT as u32)?;
        // Until it is known whose link it is.
        transport.send_window(u64::from(WINDOW_MIN)).receive_window(VarInt::from_u32(WINDOW_MIN));
        server
            .transport_config(Arc::new(transport))
            .max_incoming(config.handshakes_max)
            .incoming_buffer_size(INCOMING_BYTES)
            .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
        Ok(server)
    }
}

/// The endpoint's own settings: kept keys, so that peers notice a restart, and datagram size.
pub(crate) fn endpoint(keys: &TransportKeys, config: &Config) -> Result<EndpointConfig, BindError> {
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &keys.reset_key);
    let cid_key = keys.cid_key;
    let mut endpoint = EndpointConfig::new(Arc::new(reset_key));
    endpoint
        .rng_seed(config.network.quic_seed())
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(cid_key)))
        .min_reset_interval(RESET_INTERVAL)
        .max_udp_payload_size(config.mtu_upper_bound.bytes().max(DATAGRAM_BYTES_MIN))
        .map_err(|_| BindError::OutOfBounds { field: "mtu_upper_bound" })?;
    Ok(endpoint)
}

/// Connection settings; `streams` is how many the peer may open.
fn transport(config: &Config, streams: u32) -> Result<TransportConfig, BindError> {
    let idle = IdleTimeout::try_from(config.idle_timeout)
        .map_err(|_| BindError::OutOfBounds { field: "idle_timeout" })?;
    let window = config.stream_window;
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(config.mtu_upper_bound.bytes());
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(config.keep_alive))
        .stream_receive_window(VarInt::from_u32(window.min(1 << 30)))
        .receive_window(VarInt::from_u32(config.receive_window()))
        .send_window(config.send_window)
        .initial_rtt(config.initial_rtt)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .enable_segmentation_offload(config.mtu_upper_bound.fits_segmented_send())
        .mtu_discovery_config(Some(mtu));
    Ok(transport)
}

/// Who the peer of an established connection is.
pub(crate) fn peer_of(connection: &Connection) -> Result<PeerIdentity, DownReason> {
    connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
        .and_then(|chain| PeerIdentity::from_certificate(chain.first()?).ok())
        .ok_or(DownReason::BadIdentity)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, BindError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| BindError::BadPem)
}

/// Bytes of datagrams that wait on one link in each direction; the oldest are dropped first.
const DATAGRAM_BUFFER_BYTES: usize = 64 << 10;

/// Bytes kept of one connection attempt before it is accepted or refused: a few first datagrams.
const INCOMING_BYTES: u64 = 16 << 10;

/// Bytes kept of all such attempts together.
const INCOMING_BYTES_TOTAL: u64 = 4 << 20;

/// Least time between two stateless resets. The library's 20 ms would take seconds to tell a few
/// hundred links that their node restarted; a reset is never larger than what provoked it.
const RESET_INTERVAL: Duration = Duration::from_millis(1);

/// Datagram size every endpoint takes, so that both sides may differ in `mtu_upper_bound`.
const DATAGRAM_BYTES_MIN: u16 = 1_472;
