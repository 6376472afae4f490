//! A key and the bucket it lives in: the name of one object.
//!
//! Parsed at the edge; inside, a [`Key`] is already within its bounds.

use crate::bucket::BucketName;
use crate::limits::KEY_BYTES_MAX;
use bytes::Bytes;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Why bytes are not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A key has at least one byte.
    #[error("a key has at least one byte")]
    Empty,
    /// The key is longer than [`KEY_BYTES_MAX`].
    #[error("the key has {bytes} bytes, the limit is {KEY_BYTES_MAX}")]
    TooLong {
        /// Length asked for.
        bytes: usize,
    },
}

/// The name of one object: bucket and key bytes (1..=[`KEY_BYTES_MAX`]).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    bucket: BucketName,
    bytes: Bytes,
}

impl Key {
    /// The key `bytes` of `bucket`, or why it cannot be one.
    pub fn new(bucket: BucketName, bytes: impl Into<Bytes>) -> Result<Key, KeyError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(KeyError::Empty),
            1..=KEY_BYTES_MAX => Ok(Key { bucket, bytes }),
            len => Err(KeyError::TooLong { bytes: len }),
        }
    }

    /// The bucket it lives in.
    pub fn bucket(&self) -> &BucketName {
        &self.bucket
    }

    /// The key's own bytes, without the bucket.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether the bounds hold; a key that came off the wire or the disk is asked once.
    pub fn check(&self) -> Result<(), KeyError> {
        Key::new(self.bucket.clone(), self.bytes.clone()).map(|_| ())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.bucket, String::from_utf8_lossy(&self.bytes))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}
