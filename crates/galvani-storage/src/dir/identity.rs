//! The identity file and the clean-stop mark: JSON for people, a checksum against tearing.
//!
//! Both are one line of JSON, a line break, and the CRC-32C of that line in hexadecimal. The
//! format number is read before anything else, so that a newer file is refused as newer and not
//! as damaged. Next to read: `mod.rs`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use galvani_model::ids::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;
use super::{DirError, DirIdentity, DirStep, FORMAT_VERSION};

pub(super) struct IdentityFile {
    pub(super) identity: DirIdentity,
    pub(super) fingerprint: Fingerprint,
}

pub(super) struct CleanMark {
    pub(super) identity: DirIdentity,
    pub(super) fingerprint: Fingerprint,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: u32,
    cluster: ClusterId,
    node: NodeId,
    fingerprint: Fingerprint,
}

impl IdentityFile {
    pub(super) fn new(identity: DirIdentity, fingerprint: Fingerprint) -> IdentityFile {
        IdentityFile { identity, fingerprint }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self.identity, &self.fingerprint)
    }

    /// Reads the identity at `path`.
    pub(super) fn read(path: &Path) -> Result<IdentityFile, DirError> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
            .map_err(|error| DirError::io(DirStep::Read, &error))?;
        let content = parse(&bytes)?;
        let identity = DirIdentity { cluster: content.cluster, node: content.node };
        Ok(IdentityFile { identity, fingerprint: content.fingerprint })
    }
}

impl CleanMark {
    pub(super) fn new(identity: DirIdentity, fingerprint: Fingerprint) -> CleanMark {
        CleanMark { identity, fingerprint }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self.identity, &self.fingerprint)
    }

    /// The mark that `bytes` spell; a damaged one is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<CleanMark> {
        let content = parse(bytes).ok()?;
        let identity = DirIdentity { cluster: content.cluster, node: content.node };
        Some(CleanMark { identity, fingerprint: content.fingerprint })
    }
}

fn to_bytes(identity: DirIdentity, fingerprint: &Fingerprint) -> Vec<u8> {
    let content = Content {
        format: FORMAT_VERSION,
        cluster: identity.cluster,
        node: identity.node,
        fingerprint: fingerprint.clone(),
    };
    let line = serde_json::to_string(&content).expect("ids, numbers and texts are JSON");
    format!("{line}\n{:08x}\n", crc32c::crc32c(line.as_bytes())).into_bytes()
}

fn parse(bytes: &[u8]) -> Result<Content, DirError> {
    let damaged = |what: &str| DirError::Damaged { what: what.to_owned() };
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
    let (line, rest) = text.split_once('\n').ok_or_else(|| damaged("it is cut short"))?;
    let sum = u32::from_str_radix(rest.trim_end(), 16).ok();
    if sum != Some(crc32c::crc32c(line.as_bytes())) {
        return Err(damaged("its checksum is wrong"));
    }
    let FormatOnly { format } =
        serde_json::from_str(line).map_err(|error| damaged(&error.to_string()))?;
    if format > FORMAT_VERSION {
        return Err(DirError::NewerFormat { found: format, supported: FORMAT_VERSION });
    }
    if format < FORMAT_VERSION {
        return Err(DirError::OlderFormat { found: format, supported: FORMAT_VERSION });
    }
    serde_json::from_str(line).map_err(|error| damaged(&error.to_string()))
}

/// Many times what an identity takes.
const FILE_BYTES_MAX: u64 = 16 * 1024;
