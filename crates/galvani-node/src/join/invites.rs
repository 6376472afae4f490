//! What was promised to nodes that are to join, and the answers to those who come.
//!
//! Each invitation is a file in `invites/` beside the root's key, named after a hash of its secret; the
//! secret itself is in the token only. An invitation is good for one key: that it is used is on the
//! disk before the certificate leaves, and the same key is answered again, since an answer may be
//! lost. Next to read: `arrive.rs`.

use super::token::JoinToken;
use super::{Answer, Question, Refusal, SCHEMA, Welcome, hex, now_s, unhex};
use crate::cluster_file::ClusterFile;
use crate::config::NodeConfig;
use crate::provision::{JoinSpec, ProvisionError, joiner};
use galvani_model::ids::NodeId;
use galvani_model::placement::Member;
use galvani_transport::pki::{ClusterCa, sha256, write_secret};
use galvani_transport::{SignerError, SigningEndpoint};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The invitations kept beside a root's key.
#[derive(Debug)]
pub struct Invites {
    ca: ClusterCa,
    dir: PathBuf,
    cluster: ClusterFile,
}

/// One invitation as its file has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Invite {
    schema: String,
    /// SHA-256 of the secret, hexadecimal.
    secret_sha256: String,
    id: NodeId,
    expires_s: u64,
    config: NodeConfig,
    used: Option<Used>,
}

/// Which key was certified, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Used {
    key_sha256: String,
    at_s: u64,
}

impl Invites {
    /// Those beside the root in `spec.ca`.
    pub fn of(spec: &JoinSpec<'_>) -> Result<Invites, ProvisionError> {
        let ca = ClusterCa::load(spec.ca)?;
        let dir = spec.ca.join("invites");
        fs::create_dir_all(&dir).map_err(|source| io_at(&dir, source))?;
        Ok(Invites { ca, dir, cluster: spec.cluster.clone() })
    }

    /// Listens at `at` for nodes that come. Must be called inside a tokio runtime.
    pub fn listen(&self, at: SocketAddr) -> Result<SigningEndpoint, SignerError> {
        SigningEndpoint::bind(at, &self.ca)
    }

    /// Invites a node for `life`. The token says that whoever signs listens at `addresses`.
    pub fn invite(
        &self,
        spec: &JoinSpec<'_>,
        life: Duration,
        addresses: &[SocketAddr],
    ) -> Result<(Member, JoinToken), ProvisionError> {
        let (_, member, config) = joiner(spec)?;
        let secret: [u8; 16] = rand::random();
        let expires_s = now_s() + life.as_secs();
        let invite = Invite {
            schema: FILE_SCHEMA.to_owned(),
            secret_sha256: hex(&sha256(&secret)),
            id: member.id(),
            expires_s,
            config,
            used: None,
        };
        self.keep(&invite)?;
        let token = JoinToken {
            cluster: self.cluster.layout.cluster(),
            root: self.ca.fingerprint()?,
            secret,
            expires_s,
            name: member.name().to_owned(),
            addresses: addresses.to_vec(),
        };
        Ok((member, token))
    }

    /// The answer to a question, and who was let in by it.
    pub fn answer(&self, question: &[u8]) -> (Vec<u8>, Result<String, Refusal>) {
        let answered = self.welcome(question);
        let told = answered.as_ref().map(|(name, _)| name.clone()).map_err(Clone::clone);
        let answer = match answered {
            Ok((_, welcome)) => Answer::Welcome(Box::new(welcome)),
            Err(refusal) => Answer::Refused(refusal),
        };
        (serde_json::to_vec(&answer).expect("our own types encode to JSON"), told)
    }

    fn welcome(&self, question: &[u8]) -> Result<(String, Welcome), Refusal> {
        let malformed = |what: String| Refusal::Malformed { what };
        let question: Question =
            serde_json::from_slice(question).map_err(|error| malformed(error.to_string()))?;
        if question.schema != SCHEMA {
            return Err(malformed(format!("schema {:?}", question.schema)));
        }
        let key = unhex(&question.public_key).ok_or_else(|| malformed("public_key".to_owned()))?;
        let secret = unhex(&question.secret).ok_or_else(|| malformed("secret".to_owned()))?;
        let mut invite = self.find(&secret).ok_or(Refusal::Unknown)?;
        let (now, key_sha256) = (now_s(), hex(&sha256(&key)));
        if let Some(used) = &invite.used
            && used.key_sha256 != key_sha256
        {
            return Err(Refusal::Used { ago_s: now.saturating_sub(used.at_s) });
        }
        if now >= invite.expires_s {
            return Err(Refusal::Expired { ago_s: now - invite.expires_s });
        }
        let failed = |what: String| Refusal::Failed { what };
        let join = invite.config.join.as_ref();
        let ips: BTreeSet<_> =
            join.iter().flat_map(|join| &join.lanes).map(SocketAddr::ip).collect();
        let ips: Vec<_> = ips.into_iter().collect();
        let certified = self.ca.certify_node(&invite.id.to_string(), &ips, &key);
        let cert_pem = certified.map_err(|error| failed(error.to_string()))?;
        invite.used.get_or_insert(Used { key_sha256, at_s: now });
        self.keep(&invite).map_err(|error| failed(error.to_string()))?;
        let config = toml::to_string(&invite.config).map_err(|error| failed(error.to_string()))?;
        let (ca_pem, cluster) = (self.ca.cert_pem.clone(), self.cluster.clone());
        Ok((invite.config.node.name, Welcome { cert_pem, ca_pem, cluster, config }))
    }

    /// The invitation with this secret. A file that cannot be read is none.
    fn find(&self, secret: &[u8]) -> Option<Invite> {
        let hash = hex(&sha256(secret));
        let text = fs::read_to_string(self.path(&hash)).ok()?;
        let invite: Invite = serde_json::from_str(&text).ok()?;
        // The hash is in the name and in the file: a guess at either says nothing of the secret.
        (invite.schema == FILE_SCHEMA && invite.secret_sha256 == hash).then_some(invite)
    }

    fn keep(&self, invite: &Invite) -> Result<(), ProvisionError> {
        let path = self.path(&invite.secret_sha256);
        let text = serde_json::to_string(invite).expect("our own types encode to JSON");
        write_secret(&path, text.as_bytes()).map_err(|source| io_at(&path, source))
    }

    fn path(&self, hash: &str) -> PathBuf {
        self.dir.join(format!("{}.json", &hash[..16]))
    }
}

fn io_at(path: &Path, source: io::Error) -> ProvisionError {
    ProvisionError::Io { path: path.to_owned(), source }
}

const FILE_SCHEMA: &str = "galvani.invite/1";

#[cfg(test)]
mod tests;
