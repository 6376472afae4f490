//! The cluster's private certificate authority and the identities it issues.
//!
//! Made without asking anyone: ECDSA P-256 keys unless Ed25519 is asked for, one self-signed root
//! per cluster, one leaf per node or client and nothing between. The root's key is only needed to
//! issue; an endpoint works with an [`Identity`] alone. Nothing here speaks TLS (`tls.rs`) or judges
//! a peer (`peer.rs`).
//! Source: RFC 5280; which names mean what is in `peer.rs`.

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType,
};
use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;

use crate::peer::{CLIENT_SUFFIX, NODE_SERVER_NAME, NODE_SUFFIX, is_client_name, parse_node_id};
use crate::{PeerIdentity, Role};

/// How long a cluster's root is valid: ten years.
pub const CA_VALIDITY: Duration = Duration::from_secs(3_650 * DAY_SECS);

/// How long a node's certificate is valid: two years, renewed by issuing it again.
pub const NODE_VALIDITY: Duration = Duration::from_secs(730 * DAY_SECS);

/// How long a client's certificate is valid: one year, renewed by issuing it again.
pub const CLIENT_VALIDITY: Duration = Duration::from_secs(365 * DAY_SECS);

/// How long the certificate of a signer is valid, which hands certificates out to nodes that join.
pub(crate) const SIGNER_VALIDITY: Duration = Duration::from_secs(7 * DAY_SECS);

/// A cluster's root certificate and its secret key. Whoever holds it decides who is a member.
#[derive(Clone)]
pub struct ClusterCa {
    /// The root certificate.
    pub cert_pem: String,
    /// Its key, PKCS#8.
    pub key_pem: String,
}

impl ClusterCa {
    /// Makes the root of a new cluster. `cluster_id_hex` (1 to 64 hexadecimal digits) is put into
    /// its name, for people; nothing is decided by it.
    pub fn create(cluster_id_hex: &str) -> Result<Self, PkiError> {
        Self::create_with(cluster_id_hex, KeyPair::generate()?)
    }

    /// As [`ClusterCa::create`] with Ed25519 keys, also for all it issues. Their signatures have
    /// one length, so the handshakes of two runs are of the same size.
    pub fn create_ed25519(cluster_id_hex: &str) -> Result<Self, PkiError> {
        Self::create_with(cluster_id_hex, KeyPair::generate_for(&PKCS_ED25519)?)
    }

    fn create_with(cluster_id_hex: &str, key: KeyPair) -> Result<Self, PkiError> {
        if !is_cluster_id(cluster_id_hex.as_bytes()) {
            return Err(PkiError::ClusterId);
        }
        let params = ca_params(cluster_id_hex);
        let certificate = params.self_signed(&key)?;
        Ok(ClusterCa { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Issues a node's identity. `node_id_hex` is 32 lower-case hexadecimal digits; `ips` are put
    /// in for tools that verify addresses, the cluster itself verifies [`NODE_SERVER_NAME`].
    pub fn issue_node(&self, node_id_hex: &str, ips: &[IpAddr]) -> Result<Identity, PkiError> {
        self.issue_node_for(node_id_hex, ips, NODE_VALIDITY)
    }

    /// As [`ClusterCa::issue_node`], valid for `life` from now on.
    pub fn issue_node_for(
        &self,
        node_id_hex: &str,
        ips: &[IpAddr],
        life: Duration,
    ) -> Result<Identity, PkiError> {
        self.issue(Self::node_params(node_id_hex, ips, life)?)
    }

    /// Names and life of a node's certificate.
    pub(crate) fn node_params(
        node_id_hex: &str,
        ips: &[IpAddr],
        life: Duration,
    ) -> Result<CertificateParams, PkiError> {
        parse_node_id(node_id_hex).ok_or(PkiError::NodeId)?;
        let mut params = leaf_params(&format!("galvani node {node_id_hex}"), life);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![
            dns_name(NODE_SERVER_NAME.to_owned())?,
            dns_name(format!("{node_id_hex}{NODE_SUFFIX}"))?,
        ];
        let addresses = ips.iter().map(|ip| SanType::IpAddress(*ip));
        params.subject_alt_names.extend(addresses);
        Ok(params)
    }

    /// Parameters of a certificate that names nobody yet.
    pub(crate) fn plain_params(common_name: &str, validity: Duration) -> CertificateParams {
        leaf_params(common_name, validity)
    }

    /// Issues a client's identity. `name` is 1 to 63 of `a-z`, `0-9` and, inside, `-`.
    pub fn issue_client(&self, name: &str, role: Role) -> Result<Identity, PkiError> {
        if !is_client_name(name) {
            return Err(PkiError::ClientName);
        }
        let mut params = leaf_params(&format!("galvani client {name}"), CLIENT_VALIDITY);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![dns_name(format!("{name}.{role}{CLIENT_SUFFIX}"))?];
        self.issue(params)
    }

    /// The id the cluster was created with, read from the root's name.
    pub fn cluster_id_hex(&self) -> Result<String, PkiError> {
        cluster_id_of(&self.cert_pem)
    }

    /// SHA-256 of the root certificate (DER), which a join token carries.
    pub fn fingerprint(&self) -> Result<[u8; 32], PkiError> {
        fingerprint(&self.cert_pem)
    }

    /// Writes `ca.pem` and `ca-key.pem` (mode 0600) into `dir`, which must exist.
    pub fn save(&self, dir: &Path) -> Result<(), PkiError> {
        write_at(dir, CA_FILE, |path| write_public(path, self.cert_pem.as_bytes()))?;
        write_at(dir, CA_KEY_FILE, |path| write_secret(path, self.key_pem.as_bytes()))
    }

    /// Reads what [`ClusterCa::save`] wrote.
    pub fn load(dir: &Path) -> Result<Self, PkiError> {
        Ok(ClusterCa { cert_pem: read_at(dir, CA_FILE)?, key_pem: read_at(dir, CA_KEY_FILE)? })
    }

    pub(crate) fn issue(&self, params: CertificateParams) -> Result<Identity, PkiError> {
        let key = KeyPair::generate_for(KeyPair::from_pem(&self.key_pem)?.algorithm())?;
        let cert_pem = self.sign(params, &key)?;
        Ok(Identity { ca_pem: self.cert_pem.clone(), cert_pem, key_pem: key.serialize_pem() })
    }

    /// The certificate (PEM) of a key.
    pub(crate) fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<String, PkiError> {
        let root_key = KeyPair::from_pem(&self.key_pem)?;
        let issuer = Issuer::new(ca_params(&self.cluster_id_hex()?), root_key);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        Ok(params.signed_by(key, &issuer)?.pem())
    }
}

impl fmt::Debug for ClusterCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterCa(..)")
    }
}

/// What one node or client proves itself with, and the root it believes others by.
#[derive(Clone)]
pub struct Identity {
    /// The cluster's root certificate.
    pub ca_pem: String,
    /// The certificate of this node or client.
    pub cert_pem: String,
    /// Its key, PKCS#8.
    pub key_pem: String,
}

impl Identity {
    /// Writes `ca.pem`, `cert.pem` and `key.pem` (mode 0600) into `dir`, which must exist.
    pub fn save(&self, dir: &Path) -> Result<(), PkiError> {
        write_at(dir, CA_FILE, |path| write_public(path, self.ca_pem.as_bytes()))?;
        write_at(dir, CERT_FILE, |path| write_public(path, self.cert_pem.as_bytes()))?;
        write_at(dir, KEY_FILE, |path| write_secret(path, self.key_pem.as_bytes()))
    }

    /// Reads what [`Identity::save`] wrote. The contents are checked when an endpoint is bound.
    pub fn load(dir: &Path) -> Result<Self, PkiError> {
        Ok(Identity {
            ca_pem: read_at(dir, CA_FILE)?,
            cert_pem: read_at(dir, CERT_FILE)?,
            key_pem: read_at(dir, KEY_FILE)?,
        })
    }

    /// Who the certificate names.
    pub fn peer_identity(&self) -> Result<PeerIdentity, PkiError> {
        let leaf = CertificateDer::from_pem_slice(self.cert_pem.as_bytes())
            .map_err(|_| PkiError::BadPem)?;
        PeerIdentity::from_certificate(&leaf).map_err(|_| PkiError::BadPem)
    }

    /// Until when the certificate is good, in seconds since 1970, if that can be read.
    pub fn expires_s(&self) -> Option<u64> {
        let leaf = CertificateDer::from_pem_slice(self.cert_pem.as_bytes()).ok()?;
        crate::expiry::expires_s(&leaf)
    }

    /// The id of the cluster that the root was created for, as [`ClusterCa::cluster_id_hex`].
    pub fn cluster_id_hex(&self) -> Result<String, PkiError> {
        cluster_id_of(&self.ca_pem)
    }

    /// SHA-256 of the root certificate (DER), as [`ClusterCa::fingerprint`].
    pub fn ca_fingerprint(&self) -> Result<[u8; 32], PkiError> {
        fingerprint(&self.ca_pem)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.peer_identity())
    }
}

/// Why a certificate was not issued, written or read. What was on disk before is still there.
#[derive(Debug, Error)]
pub enum PkiError {
    /// The cluster id is not 1 to 64 hexadecimal digits.
    #[error("cluster id is not 1 to 64 hexadecimal digits")]
    ClusterId,
    /// The node id is not 32 lower-case hexadecimal digits.
    #[error("node id is not 32 lower-case hexadecimal digits")]
    NodeId,
    /// The client name is not a lower-case DNS label.
    #[error("client name is not 1 to 63 of a-z, 0-9 and inner hyphens")]
    ClientName,
    /// A public key is not an uncompressed point of P-256.
    #[error("the public key is not one of ecdsa p-256")]
    PublicKey,
    /// A certificate is not PEM, or its names are not a node's or a client's.
    #[error("certificate is not readable")]
    BadPem,
    /// The certificate library refused; most likely the root's files are damaged.
    #[error("certificate not made")]
    Certificate(#[from] rcgen::Error),
    /// A file cannot be read or written.
    #[error("{}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Writes `bytes` to `path` whole or not at all, readable by the owner only.
pub fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(path, bytes, 0o600)
}

fn write_public(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(path, bytes, 0o644)
}

/// Temporary file beside the target, flushed, renamed, directory flushed: a crash leaves the old
/// file or the new one, and a secret is never readable by others, not even for a moment.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    use std::io::Write;
    let temporary = path.with_extension("tmp");
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(dir) if cfg!(unix) => fs::File::open(dir)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}

fn write_at(
    dir: &Path,
    name: &str,
    write: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), PkiError> {
    let path = dir.join(name);
    write(&path).map_err(|source| PkiError::Io { path, source })
}

fn read_at(dir: &Path, name: &str) -> Result<String, PkiError> {
    let path = dir.join(name);
    fs::read_to_string(&path).map_err(|source| PkiError::Io { path, source })
}

fn cluster_id_of(ca_pem: &str) -> Result<String, PkiError> {
    let der = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|_| PkiError::BadPem)?;
    let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|_| PkiError::BadPem)?;
    // The name is DER with one attribute, whose text is its last bytes.
    let name = anchor.subject.as_ref();
    let prefix = CA_NAME_PREFIX.as_bytes();
    let at =
        name.windows(prefix.len()).rposition(|window| window == prefix).ok_or(PkiError::BadPem)?;
    let id = &name[at + prefix.len()..];
    match is_cluster_id(id) {
        true => Ok(id.iter().map(|byte| char::from(*byte)).collect()),
        false => Err(PkiError::BadPem),
    }
}

fn fingerprint(ca_pem: &str) -> Result<[u8; 32], PkiError> {
    let der = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|_| PkiError::BadPem)?;
    let sum = digest(&SHA256, &der);
    sum.as_ref().try_into().map_err(|_| PkiError::BadPem)
}

pub(crate) fn dns_name(name: String) -> Result<SanType, PkiError> {
    Ok(SanType::DnsName(name.try_into()?))
}

fn is_cluster_id(digits: &[u8]) -> bool {
    (1..=64).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit)
}

/// Parameters of a cluster's root. Issuing needs its name and key usage only, so they are made
/// again from the cluster id.
fn ca_params(cluster_id_hex: &str) -> CertificateParams {
    let mut params = leaf_params(&format!("{CA_NAME_PREFIX}{cluster_id_hex}"), CA_VALIDITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Parameters common to all certificates: a name for people and a validity from a day ago, so
/// that machines whose clocks differ accept it at once.
fn leaf_params(common_name: &str, validity: Duration) -> CertificateParams {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + since_epoch.saturating_sub(Duration::from_secs(DAY_SECS));
    params.not_after = epoch + since_epoch + validity;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

const CA_NAME_PREFIX: &str = "galvani cluster ";
const DAY_SECS: u64 = 86_400;
const CA_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca-key.pem";
const CERT_FILE: &str = "cert.pem";
const KEY_FILE: &str = "key.pem";

#[cfg(test)]
mod tests {
    use super::{ClusterCa, Identity, PkiError};
    use crate::{PeerIdentity, Role};

    const NODE: &str = "00000000000000000000000000000007";

    #[test]
    fn issued_identities_name_who_they_were_issued_for() {
        let ca = ClusterCa::create("c0ffee").expect("made");
        let node = ca.issue_node(NODE, &["127.0.0.1".parse().expect("address")]).expect("issued");
        let id = 7_u128.to_be_bytes();
        assert_eq!(node.peer_identity().expect("readable"), PeerIdentity::Node { id });
        let client = ca.issue_client("shop", Role::ReadOnly).expect("issued");
        let expected = PeerIdentity::Client { name: "shop".to_owned(), role: Role::ReadOnly };
        assert_eq!(client.peer_identity().expect("readable"), expected);
    }

    #[test]
    fn saved_files_load_and_issue_as_before() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let ca = ClusterCa::create("c0ffee").expect("made");
        ca.save(dir.path()).expect("saved");
        let again = ClusterCa::load(dir.path()).expect("loaded");
        let node = again.issue_node(NODE, &[]).expect("issued");
        node.save(dir.path()).expect("saved");
        let loaded = Identity::load(dir.path()).expect("loaded");
        assert_eq!(again.cluster_id_hex().expect("readable"), "c0ffee");
        assert_eq!(loaded.cert_pem, node.cert_pem);
        assert_eq!(loaded.ca_fingerprint().expect("readable"), ca.fingerprint().expect("readable"));
    }

    #[cfg(unix)]
    #[test]
    fn key_files_are_readable_by_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("temporary directory");
        let ca = ClusterCa::create("c0ffee").expect("made");
        ca.save(dir.path()).expect("saved");
        let node = ca.issue_node(NODE, &[]).expect("issued");
        node.save(dir.path()).expect("saved");
        for name in ["ca-key.pem", "key.pem"] {
            let meta = std::fs::metadata(dir.path().join(name)).expect("written");
            assert_eq!(meta.permissions().mode() & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn names_that_would_not_survive_a_certificate_are_refused() {
        let ca = ClusterCa::create("c0ffee").expect("made");
        let refused = |r: Result<Identity, PkiError>| r.expect_err("refused").to_string();
        assert!(refused(ca.issue_node("7", &[])).starts_with("node id"));
        for name in ["", "A", "a.b", "-a", "a-", "a b"] {
            assert!(refused(ca.issue_client(name, Role::Admin)).starts_with("client name"));
        }
        assert!(matches!(ClusterCa::create("xyz"), Err(PkiError::ClusterId)));
    }
}
