//! What a consumer wants to see of the feed.
//!
//! Judged where the log is, so that what nobody asked for is not sent; a consumer is done with it all
//! the same. Next to read: `galvani-protocol/src/feed/page.rs`.

use crate::bucket::BucketName;
use crate::hlc::Hlc;
use crate::ids::NodeId;
use crate::limits::FEED_NAMES_MAX;
use crate::topic::Topic;
use crate::version::{Kind, RecordHead};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Which of an event's sides a consumer wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shows {
    /// Writes of keys, as far as their buckets show them. Events of applications are left out.
    Changes,
    /// Events of applications with one of these topics; none named: with any.
    Topics(Vec<Topic>),
    /// Every record as it is, whatever its bucket shows: for a lagged replica.
    Records,
}

/// From when on an event is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// As soon as one owner has it. The event of a write that failed may be shown, and such a write
    /// may be lost again with the disk of that owner.
    #[default]
    Any,
    /// Once most owners have it: it can vanish no more while most of them keep their disks.
    Quorum,
}

/// What is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Only keys of these buckets; none named: of any.
    pub buckets: Vec<BucketName>,
    /// Only keys that start with this.
    pub prefix: Bytes,
    /// Which side of it.
    pub shows: Shows,
    /// Whether values are wanted, where the bucket shows them.
    pub values: bool,
    /// From when on.
    pub visibility: Visibility,
    /// Only writes of this hybrid time or later.
    pub since: Option<Hlc>,
    /// Only writes that one of these nodes coordinated; none named: any.
    #[serde(default)]
    pub authors: Vec<NodeId>,
}

impl Default for Filter {
    fn default() -> Filter {
        Filter {
            buckets: Vec::new(),
            prefix: Bytes::new(),
            shows: Shows::Changes,
            values: true,
            visibility: Visibility::Any,
            since: None,
            authors: Vec::new(),
        }
    }
}

impl Filter {
    /// Whether its lists are within bounds.
    pub fn is_bounded(&self) -> bool {
        let topics = match &self.shows {
            Shows::Topics(topics) => topics.len(),
            Shows::Changes | Shows::Records => 0,
        };
        self.buckets.len().max(topics).max(self.authors.len()) <= FEED_NAMES_MAX
    }

    /// Whether a record is one that the consumer asked for; the bucket may still not show it.
    pub fn asks_for(&self, head: &RecordHead) -> bool {
        let (bucket, key) = (head.key.bucket(), head.key.bytes());
        (self.buckets.is_empty() || self.buckets.contains(bucket))
            && key.starts_with(&self.prefix)
            && self.since.is_none_or(|since| head.hlc >= since)
            && (self.authors.is_empty() || self.authors.contains(&head.author))
            && match &self.shows {
                Shows::Records => true,
                Shows::Changes => head.kind != Kind::Emit,
                Shows::Topics(topics) if topics.is_empty() => !head.emits.is_empty(),
                Shows::Topics(topics) => head.emits.iter().any(|emit| topics.contains(&emit.topic)),
            }
    }

    /// What a position belongs to: one that was reached under another filter means something else,
    /// because what was passed over then is done with. How values are shown does not count.
    pub fn fingerprint(&self) -> u64 {
        let mut bytes = Vec::new();
        let mut part = |bytes_of: &[u8]| {
            bytes.extend_from_slice(&(bytes_of.len() as u64).to_le_bytes());
            bytes.extend_from_slice(bytes_of);
        };
        let mut buckets: Vec<&str> = self.buckets.iter().map(BucketName::as_str).collect();
        buckets.sort_unstable();
        buckets.dedup();
        for bucket in buckets {
            part(bucket.as_bytes());
        }
        part(&self.prefix);
        match &self.shows {
            Shows::Changes => part(b"changes"),
            Shows::Records => part(b"records"),
            Shows::Topics(topics) => {
                part(b"topics");
                let mut topics: Vec<&str> = topics.iter().map(Topic::as_str).collect();
                topics.sort_unstable();
                topics.dedup();
                for topic in topics {
                    part(topic.as_bytes());
                }
            }
        }
        let mut authors = self.authors.clone();
        authors.sort_unstable();
        authors.dedup();
        if !authors.is_empty() {
            bytes.extend_from_slice(b"authors");
        }
        for author in authors {
            bytes.extend_from_slice(&author.0.to_le_bytes());
        }
        xxh3_64_with_seed(&bytes, FILTER_SEED)
    }
}

/// Separates fingerprints of filters from every other use of the hash.
const FILTER_SEED: u64 = 0x6761_6c76_666c_7431; // "galvflt1"
