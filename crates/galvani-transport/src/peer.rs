//! Who is at the other end of a link, read from its verified certificate.
//!
//! TLS has already checked the chain and the key usage when this is asked; here only the names
//! count. A certificate is a node's or a client's, never both and never something in between: any
//! further or malformed name makes it nobody's. Names are made in `pki.rs`.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;
use thiserror::Error;
use webpki::EndEntityCert;

/// DNS name every node certificate carries and every dialing side asks for.
pub const NODE_SERVER_NAME: &str = "node.galvani";

/// The peer of a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerIdentity {
    /// A node of the cluster.
    Node {
        /// Its 128-bit id, most significant byte first.
        id: [u8; 16],
    },
    /// A client.
    Client {
        /// Its name, a DNS label.
        name: String,
        /// What it may do.
        role: Role,
    },
}

/// What a client's certificate lets it do. The transport only carries this upwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Everything, cluster changes included.
    Admin,
    /// Reads and writes of data.
    ReadWrite,
    /// Reads of data.
    ReadOnly,
}

impl Role {
    /// The word for the role in certificate names, configuration and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::ReadWrite => "read-write",
            Role::ReadOnly => "read-only",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = PeerIdentityError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "admin" => Ok(Role::Admin),
            "read-write" => Ok(Role::ReadWrite),
            "read-only" => Ok(Role::ReadOnly),
            _ => Err(PeerIdentityError::UnknownName),
        }
    }
}

impl PeerIdentity {
    /// The peer a certificate names. The caller has verified the certificate's chain.
    pub fn from_certificate(leaf: &CertificateDer<'_>) -> Result<Self, PeerIdentityError> {
        let certificate =
            EndEntityCert::try_from(leaf).map_err(|_| PeerIdentityError::Unreadable)?;
        Self::from_names(certificate.valid_dns_names())
    }

    /// The peer a certificate's DNS names stand for.
    fn from_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self, PeerIdentityError> {
        let mut common_node_name = false;
        let mut found: Option<PeerIdentity> = None;
        for name in names {
            if name == NODE_SERVER_NAME {
                common_node_name = true;
                continue;
            }
            let peer = parse_name(name)?;
            if found.replace(peer).is_some() {
                return Err(PeerIdentityError::Ambiguous);
            }
        }
        match (found, common_node_name) {
            (Some(peer @ PeerIdentity::Node { .. }), true)
            | (Some(peer @ PeerIdentity::Client { .. }), false) => Ok(peer),
            (Some(PeerIdentity::Node { .. }), false)
            | (Some(PeerIdentity::Client { .. }), true) => Err(PeerIdentityError::Ambiguous),
            (None, true | false) => Err(PeerIdentityError::UnknownName),
        }
    }

    /// Whether this is a node.
    pub const fn is_node(&self) -> bool {
        match self {
            PeerIdentity::Node { .. } => true,
            PeerIdentity::Client { .. } => false,
        }
    }

    /// The node's id, if this is a node.
    pub const fn node_id(&self) -> Option<[u8; 16]> {
        match self {
            PeerIdentity::Node { id } => Some(*id),
            PeerIdentity::Client { .. } => None,
        }
    }
}

/// Why a certificate names no peer. The link is closed; another certificate is the only cure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PeerIdentityError {
    /// The certificate is not a readable X.509 certificate.
    #[error("certificate is not readable")]
    Unreadable,
    /// A name is neither a node's nor a client's, or there is none.
    #[error("certificate names neither node nor client")]
    UnknownName,
    /// The names stand for more than one peer, or a node's are not complete.
    #[error("certificate names are ambiguous")]
    Ambiguous,
}

/// Suffix of the name that carries a client's name and role.
pub(crate) const CLIENT_SUFFIX: &str = ".client.galvani";

/// Suffix of the name that carries a node's id.
pub(crate) const NODE_SUFFIX: &str = ".node.galvani";

/// A client name is one DNS label in lower case: it must survive a certificate unchanged.
pub(crate) fn is_client_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| plain(*b) || *b == b'-')
        && bytes.first().copied().is_some_and(plain)
        && bytes.last().copied().is_some_and(plain)
}

/// A node id from its 32 lower-case hexadecimal digits.
pub(crate) fn parse_node_id(digits: &str) -> Option<[u8; 16]> {
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if digits.len() != 32 || !digits.bytes().all(lower) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes)
}

fn parse_name(name: &str) -> Result<PeerIdentity, PeerIdentityError> {
    if let Some(digits) = name.strip_suffix(NODE_SUFFIX) {
        let id = parse_node_id(digits).ok_or(PeerIdentityError::UnknownName)?;
        return Ok(PeerIdentity::Node { id });
    }
    let (client, role) = name
        .strip_suffix(CLIENT_SUFFIX)
        .and_then(|rest| rest.split_once('.'))
        .ok_or(PeerIdentityError::UnknownName)?;
    if !is_client_name(client) {
        return Err(PeerIdentityError::UnknownName);
    }
    Ok(PeerIdentity::Client { name: client.to_owned(), role: role.parse()? })
}

#[cfg(test)]
mod tests {
    use super::{PeerIdentity, PeerIdentityError, Role};

    const NODE: &str = "0123456789abcdef0123456789abcdef.node.galvani";

    fn peer(names: &[&str]) -> Result<PeerIdentity, PeerIdentityError> {
        PeerIdentity::from_names(names.iter().copied())
    }

    #[test]
    fn a_node_needs_both_its_names() {
        let id = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128.to_be_bytes();
        assert_eq!(peer(&["node.galvani", NODE]), Ok(PeerIdentity::Node { id }));
        assert_eq!(peer(&[NODE]), Err(PeerIdentityError::Ambiguous));
        assert_eq!(peer(&["node.galvani"]), Err(PeerIdentityError::UnknownName));
    }

    #[test]
    fn a_client_has_a_name_and_a_role() {
        for role in [Role::Admin, Role::ReadWrite, Role::ReadOnly] {
            let expected = PeerIdentity::Client { name: "shop-1".to_owned(), role };
            let name = format!("shop-1.{role}.client.galvani");
            assert_eq!(peer(&[&name]), Ok(expected));
        }
    }

    #[test]
    fn a_client_never_passes_as_a_node() {
        let client = "a.admin.client.galvani";
        for names in [
            vec![client, NODE],
            vec![client, "node.galvani"],
            vec!["node.galvani", NODE, client],
            vec![client, "b.admin.client.galvani"],
        ] {
            assert_eq!(peer(&names), Err(PeerIdentityError::Ambiguous), "{names:?}");
        }
    }

    #[test]
    fn malformed_names_are_nobody() {
        for name in [
            "",
            "galvani",
            "xyz.node.galvani",
            "0123456789ABCDEF0123456789ABCDEF.node.galvani",
            "+123456789abcdef0123456789abcdef.node.galvani",
            "a.root.client.galvani",
            "a.b.admin.client.galvani",
            "-a.admin.client.galvani",
            "A.admin.client.galvani",
            "admin.client.galvani",
            "evil.example",
        ] {
            assert_eq!(peer(&[name]), Err(PeerIdentityError::UnknownName), "{name}");
        }
    }
}
