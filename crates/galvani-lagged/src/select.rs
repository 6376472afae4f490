//! Which writes, and which keys, somebody speaks of.
//!
//! A [`Selector`] names writes by who and when; a [`Selection`] names keys. Both are plain values that
//! travel over the control socket and stand in reports. Next to read: `as_of.rs`, `restore/`.

use crate::text::Blob;
use galvani_model::bucket::BucketName;
use galvani_model::ids::{NodeId, RequestId};
use galvani_model::key::Key;
use galvani_model::version::{Dot, Kind, RecordHead};
use serde::{Deserialize, Serialize};

/// Names writes. What is said must all hold; of a list, one entry. One that says nothing names none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selector {
    /// The nodes that minted them.
    pub authors: Vec<NodeId>,
    /// Their request ids.
    pub requests: Vec<RequestId>,
    /// Their names.
    pub dots: Vec<Dot>,
    /// Issued at or after this moment, in milliseconds since 1970.
    pub from_ms: Option<u64>,
    /// Issued at or before this moment, in milliseconds since 1970.
    pub until_ms: Option<u64>,
    /// Deletions only.
    pub deletes: bool,
}

impl Selector {
    /// Whether it names the write of this record.
    pub fn names(&self, head: &RecordHead) -> bool {
        let ms = head.hlc.unix_ms();
        self.says_anything()
            && (self.authors.is_empty() || self.authors.contains(&head.author))
            && (self.requests.is_empty() || self.requests.contains(&head.rid))
            && (self.dots.is_empty() || self.dots.contains(&head.dot))
            && self.from_ms.is_none_or(|from| ms >= from)
            && self.until_ms.is_none_or(|until| ms <= until)
            && (!self.deletes || head.kind == Kind::Delete)
    }

    fn says_anything(&self) -> bool {
        *self != Selector::default()
    }
}

/// Names keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Selection {
    /// One key.
    Key {
        /// Its bucket.
        bucket: BucketName,
        /// Its bytes.
        key: Blob,
    },
    /// The keys of a bucket that start with something; all of them, where that is empty.
    Prefix {
        /// The bucket.
        bucket: BucketName,
        /// What they start with.
        prefix: Blob,
    },
}

impl Selection {
    /// Whether it names `key`.
    pub fn holds(&self, key: &Key) -> bool {
        match self {
            Selection::Key { bucket, key: bytes } => {
                key.bucket() == bucket && *key.bytes() == bytes.0
            }
            Selection::Prefix { bucket, prefix } => {
                key.bucket() == bucket && key.bytes().starts_with(&prefix.0)
            }
        }
    }
}
