//! The cluster file: what every node of a cluster must agree on before they meet.
//!
//! Made once by `provision`, the same on every node, JSON so that people can read it. It holds the
//! secret that contexts are sealed with, so it is as private as a key. Next to read: `provision.rs`.

use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::placement::Layout;
use galvani_model::version::ContextKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Schema of the file this build writes and reads.
const SCHEMA: &str = "galvani.cluster/1";
/// Largest cluster file that is read, in bytes: a full layout of 1024 nodes fits many times.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What every node of a cluster must agree on before they meet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    schema: String,
    /// The cluster's name, for people.
    pub name: String,
    /// Properties of bucket `default`.
    pub default_bucket: BucketProps,
    /// The secret that contexts are sealed with, 32 hexadecimal digits.
    context_key: String,
    /// Who owns what, and where each lane listens.
    pub layout: Arc<Layout>,
}

/// Why a cluster file cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterFileError {
    /// The file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what this build writes.
    #[error("{path}: {why}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with line and column where known.
        why: String,
    },
}

impl ClusterFile {
    /// The file of a cluster.
    pub fn new(
        name: &str,
        default_bucket: BucketProps,
        context_key: &ContextKey,
        layout: Arc<Layout>,
    ) -> ClusterFile {
        let context_key = context_key.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let (schema, name) = (SCHEMA.to_owned(), name.to_owned());
        ClusterFile { schema, name, default_bucket, context_key, layout }
    }

    /// Reads and checks a cluster file.
    pub fn load(path: &Path) -> Result<ClusterFile, ClusterFileError> {
        let io = |source| ClusterFileError::Io { path: path.to_owned(), source };
        let malformed = |why: String| ClusterFileError::Malformed { path: path.to_owned(), why };
        let bytes = fs::metadata(path).map_err(io)?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(malformed(format!("{bytes} bytes are over {FILE_BYTES_MAX}")));
        }
        let text = fs::read_to_string(path).map_err(io)?;
        let file: ClusterFile =
            serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        if file.schema != SCHEMA {
            return Err(malformed(format!("schema {:?} is not {SCHEMA:?}", file.schema)));
        }
        file.default_bucket.check().map_err(|error| malformed(error.to_string()))?;
        if parse_key(&file.context_key).is_none() {
            return Err(malformed("context_key is not 32 hexadecimal digits".into()));
        }
        Ok(file)
    }

    /// Writes the file, readable by its owner only.
    pub fn save(&self, path: &Path) -> Result<(), ClusterFileError> {
        let io = |source| ClusterFileError::Io { path: path.to_owned(), source };
        let text = serde_json::to_string(self).expect("our own types encode to JSON");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(path).map_err(io)?;
        file.write_all(text.as_bytes()).map_err(io)?;
        file.sync_all().map_err(io)
    }

    /// The secret that contexts are sealed with.
    pub fn context_key(&self) -> ContextKey {
        parse_key(&self.context_key).expect("checked when the file was loaded or made")
    }

    /// The buckets that exist from the start.
    pub fn buckets(&self) -> BTreeMap<BucketName, BucketProps> {
        BTreeMap::from([(BucketName::default_bucket(), self.default_bucket.clone())])
    }
}

fn parse_key(text: &str) -> Option<ContextKey> {
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(|number| ContextKey(number.to_be_bytes()))
}
