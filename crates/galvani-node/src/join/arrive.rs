//! What a node with a token does: makes a key, asks, and writes the directory that it starts from.
//!
//! The key is written before it is asked about, so a node whose answer was lost asks again with the
//! same key and gets the same place. The configuration is written last: a directory that has one has
//! arrived. Data of an earlier node is never taken along. Next to read: `invites.rs`.

use super::token::JoinToken;
use super::{Answer, Question, Refusal, SCHEMA, Welcome, hex, now_s};
use crate::config::NodeConfig;
use galvani_transport::pki::{Identity, PkiError, write_secret};
use galvani_transport::{AskError, NodeKey, PeerIdentity, ask};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why a node did not arrive. Unless it says otherwise the token is as good as before.
#[derive(Debug, thiserror::Error)]
pub enum ArriveError {
    /// There is data in the directory, and no configuration that says whose.
    #[error("{path} holds data of an earlier node")]
    OldData {
        /// The data directory.
        path: PathBuf,
    },
    /// The token's time is over; nobody was asked.
    #[error("the token for {name} expired {ago_s} s ago")]
    Expired {
        /// Who was invited.
        name: String,
        /// Since when, in seconds.
        ago_s: u64,
    },
    /// Nobody at the token's addresses answered.
    #[error("nobody who invites answers: {}", asked.join("; "))]
    NoAnswer {
        /// Each address, and why.
        asked: Vec<String>,
    },
    /// Whoever listens there is of another cluster: it was told nothing.
    #[error("{address} is not of the token's cluster {cluster}: its root is another one")]
    OtherCluster {
        /// The address.
        address: SocketAddr,
        /// The token's cluster.
        cluster: String,
    },
    /// Whoever invites refuses.
    #[error("{address} refuses: {refusal}")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// Why.
        refusal: Refusal,
    },
    /// The answer is not what was asked for; nothing of it was kept.
    #[error("{address} answered with something else: {what}")]
    Nonsense {
        /// The address.
        address: SocketAddr,
        /// What is wrong.
        what: String,
    },
    /// The key cannot be made or read.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Where the configuration of a node that has arrived in `dir` is.
pub fn config_in(dir: &Path) -> PathBuf {
    dir.join("galvani.toml")
}

/// Makes `dir` the directory of the node that the token invites; its configuration file. A directory
/// that has one is left as it is: `Ok(None)`.
pub async fn arrive(token: &JoinToken, dir: &Path) -> Result<Option<PathBuf>, ArriveError> {
    let config = config_in(dir);
    if config.exists() {
        return Ok(None);
    }
    let data = dir.join("data");
    if fs::read_dir(&data).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(ArriveError::OldData { path: data });
    }
    if now_s() >= token.expires_s {
        let ago_s = now_s() - token.expires_s;
        return Err(ArriveError::Expired { name: token.name.clone(), ago_s });
    }
    let identity = dir.join("identity");
    let key = key_in(&identity)?;
    let question = Question {
        schema: SCHEMA.to_owned(),
        secret: hex(&token.secret),
        public_key: hex(&key.public()),
    };
    let question = serde_json::to_vec(&question).expect("our own types encode to JSON");
    let (address, answer) = ask_any(token, &question).await?;
    let nonsense = |what: String| ArriveError::Nonsense { address, what };
    let welcome = match serde_json::from_slice(&answer) {
        Ok(Answer::Welcome(welcome)) => welcome,
        Ok(Answer::Refused(refusal)) => return Err(ArriveError::Refused { address, refusal }),
        Err(error) => return Err(nonsense(error.to_string())),
    };
    write(token, &welcome, &key, dir).map_err(|error| match error {
        Unfit::What(what) => nonsense(what),
        Unfit::Io(path, source) => ArriveError::Io { path, source },
        Unfit::Pki(error) => error.into(),
    })?;
    Ok(Some(config))
}

/// The key that is kept there, or a new one that is from now on.
fn key_in(identity: &Path) -> Result<NodeKey, ArriveError> {
    let path = identity.join("key.pem");
    let io = |source| ArriveError::Io { path: path.clone(), source };
    fs::create_dir_all(identity).map_err(io)?;
    match fs::read_to_string(&path) {
        Ok(pem) => Ok(NodeKey::from_pem(&pem)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = NodeKey::generate()?;
            write_secret(&path, key.pem().as_bytes()).map_err(io)?;
            Ok(key)
        }
        Err(error) => Err(io(error)),
    }
}

/// The first answer of the token's addresses.
async fn ask_any(token: &JoinToken, question: &[u8]) -> Result<(SocketAddr, Vec<u8>), ArriveError> {
    let mut asked = Vec::new();
    for address in &token.addresses {
        match ask(*address, token.root, question).await {
            Ok(answer) => return Ok((*address, answer)),
            Err(AskError::OtherRoot) => {
                let cluster = token.cluster.to_string();
                return Err(ArriveError::OtherCluster { address: *address, cluster });
            }
            Err(error) => asked.push(format!("{address}: {error}")),
        }
    }
    Err(ArriveError::NoAnswer { asked })
}

/// Why a welcome is not written down.
enum Unfit {
    What(String),
    Io(PathBuf, io::Error),
    Pki(PkiError),
}

/// Checks that the welcome is the one that was asked for, and writes it, the configuration last.
fn write(token: &JoinToken, welcome: &Welcome, key: &NodeKey, dir: &Path) -> Result<(), Unfit> {
    let other = |what: &str| Unfit::What(what.to_owned());
    let identity = Identity {
        ca_pem: welcome.ca_pem.clone(),
        cert_pem: welcome.cert_pem.clone(),
        key_pem: key.pem(),
    };
    if identity.ca_fingerprint().map_err(Unfit::Pki)? != token.root {
        return Err(other("the root is not that of the token"));
    }
    if welcome.cluster.layout.cluster() != token.cluster {
        return Err(other("the cluster file is of another cluster"));
    }
    if !matches!(identity.peer_identity().map_err(Unfit::Pki)?, PeerIdentity::Node { .. }) {
        return Err(other("the certificate is no node's"));
    }
    let config: NodeConfig =
        toml::from_str(&welcome.config).map_err(|error| Unfit::What(error.to_string()))?;
    if config.node.name != token.name {
        return Err(other("the configuration is another node's"));
    }
    let at = dir.join("identity");
    identity.save(&at).map_err(Unfit::Pki)?;
    let file = dir.join("cluster.json");
    welcome.cluster.save(&file).map_err(|error| Unfit::What(error.to_string()))?;
    let path = config_in(dir);
    write_secret(&path, welcome.config.as_bytes()).map_err(|source| Unfit::Io(path, source))
}
