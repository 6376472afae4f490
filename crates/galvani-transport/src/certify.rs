//! Certificates for keys that are made elsewhere, and for the signer who hands them out.
//!
//! A node that joins makes its key itself ([`NodeKey`]) and sends the public half; the key never
//! leaves its host. Who the certificate names is decided by whoever signs, not by who asks.
//! Next to read: `signing.rs`, `pki.rs`.

use std::net::IpAddr;

use rcgen::{
    ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
};

use crate::PeerIdentity;
use crate::pki::{ClusterCa, Identity, NODE_VALIDITY, PkiError, SIGNER_VALIDITY};
use crate::signing::SIGNER_SERVER_NAME;

/// The key of a node that has no certificate yet: ECDSA P-256.
pub struct NodeKey {
    pair: KeyPair,
}

impl NodeKey {
    /// Makes one.
    pub fn generate() -> Result<NodeKey, PkiError> {
        Ok(NodeKey { pair: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)? })
    }

    /// Reads one that was kept.
    pub fn from_pem(pem: &str) -> Result<NodeKey, PkiError> {
        let pair = KeyPair::from_pem(pem)?;
        match pair.algorithm() == &PKCS_ECDSA_P256_SHA256 {
            true => Ok(NodeKey { pair }),
            false => Err(PkiError::PublicKey),
        }
    }

    /// The key, PKCS#8: for its own host only.
    pub fn pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// The public half: 65 bytes, an uncompressed point.
    pub fn public(&self) -> Vec<u8> {
        self.pair.der_bytes().to_vec()
    }
}

impl ClusterCa {
    /// Issues the certificate (PEM) of a node whose key is elsewhere; `public` as
    /// [`NodeKey::public`] says. Names and life as of [`ClusterCa::issue_node`].
    pub fn certify_node(
        &self,
        node_id_hex: &str,
        ips: &[IpAddr],
        public: &[u8],
    ) -> Result<String, PkiError> {
        if public.len() != POINT_BYTES || public[0] != UNCOMPRESSED {
            return Err(PkiError::PublicKey);
        }
        let params = ClusterCa::node_params(node_id_hex, ips, NODE_VALIDITY)?;
        self.sign(params, &Point(public.to_vec()))
    }

    /// Issues a new identity, with a new key, for whom `identity` names: the same node, or the same client
    /// with the same role. It believes this root, and those whose certificates are in `trusted`.
    pub fn renew(&self, identity: &Identity, trusted: &[String]) -> Result<Identity, PkiError> {
        let mut renewed = match identity.peer_identity()? {
            PeerIdentity::Node { id } => {
                let digits: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
                self.issue_node(&digits, &[])?
            }
            PeerIdentity::Client { name, role } => self.issue_client(&name, role)?,
        };
        for root in trusted.iter().filter(|root| **root != self.cert_pem) {
            renewed.ca_pem.push_str(root);
        }
        Ok(renewed)
    }

    /// A new root for the same cluster, to follow this one.
    pub fn successor(&self) -> Result<ClusterCa, PkiError> {
        ClusterCa::create(&self.cluster_id_hex()?)
    }

    /// Issues what a signer shows: no node's and no client's, for a few days.
    pub(crate) fn issue_signer(&self) -> Result<Identity, PkiError> {
        let mut params = ClusterCa::plain_params("galvani signer", SIGNER_VALIDITY);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = vec![crate::pki::dns_name(SIGNER_SERVER_NAME.to_owned())?];
        self.issue(params)
    }
}

/// A public key on P-256.
struct Point(Vec<u8>);

impl PublicKeyData for Point {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// Bytes of an uncompressed point, and the first of them (SEC 1, section 2.3.3).
const POINT_BYTES: usize = 65;
const UNCOMPRESSED: u8 = 4;
