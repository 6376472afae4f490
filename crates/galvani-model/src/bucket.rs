//! Buckets: named groups of keys that share n, default quorums and a conflict policy.
//!
//! `n` and the policy are fixed when the bucket is made: changing `n` moves data and is an
//! operation of its own. Bucket `default` always exists.

use crate::limits::{BUCKET_NAME_BYTES_MAX, N_MAX, VALUE_BYTES_DEFAULT, VALUE_BYTES_MAX};
use crate::request::{Quorum, TtlError, check_ttl};
use core::cmp::Ordering;
use core::fmt;
use core::str::FromStr;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

/// A bucket's name: 1..=64 of `a-z 0-9 . _ -`, starting with a letter or digit.
///
/// The bucket that always exists takes no memory of its own: most keys are in it, and each that comes
/// off the wire or the disk names its bucket.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BucketName(Option<Arc<str>>);

/// The bucket that always exists.
const DEFAULT: &str = "default";

/// Why a text is not a bucket name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not a bucket name: 1 to {BUCKET_NAME_BYTES_MAX} of a-z 0-9 . _ - starting with a letter or digit"
)]
pub struct BucketNameError {
    /// The text that was refused.
    pub name: String,
}

impl BucketName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or(DEFAULT)
    }

    /// The bucket that always exists.
    pub fn default_bucket() -> BucketName {
        BucketName(None)
    }
}

impl Ord for BucketName {
    fn cmp(&self, other: &BucketName) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for BucketName {
    fn partial_cmp(&self, other: &BucketName) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for BucketName {
    type Err = BucketNameError;
    fn from_str(name: &str) -> Result<Self, BucketNameError> {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let ok = (1..=BUCKET_NAME_BYTES_MAX).contains(&name.len())
            && word(name.as_bytes()[0])
            && name.bytes().all(|b| word(b) || matches!(b, b'.' | b'_' | b'-'));
        if ok {
            Ok(BucketName((name != DEFAULT).then(|| name.into())))
        } else {
            let name = name.chars().take(80).collect();
            Err(BucketNameError { name })
        }
    }
}

impl<'de> Deserialize<'de> for BucketName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

/// Reads a name where it stands, without a text of its own.
struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = BucketName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bucket name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<BucketName, E> {
        name.parse().map_err(E::custom)
    }
}

impl Serialize for BucketName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BucketName({self})")
    }
}

/// What becomes of concurrent writes to one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConflictPolicy {
    /// All are kept, until a write that saw them replaces them.
    #[default]
    Siblings,
    /// The greatest (hybrid clock, dot) wins; the others are dropped and counted.
    Lww,
}

/// What the change feed shows of a bucket's writes. The log behind it is kept either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedMode {
    /// Nothing.
    Off,
    /// That a key was written, and by which write.
    Keys,
    /// The same, with the new value.
    #[default]
    New,
    /// The same, with the values it replaced where it was minted, as long as the log has them.
    NewAndOld,
}

/// What a bucket promises. `n`, `policy` and `ttl_ms` never change after creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketProps {
    /// Copies of each key, 1..=[`N_MAX`].
    pub n: u8,
    /// Answers a read needs unless the request says otherwise. Default: majority.
    pub r: Quorum,
    /// Acks a write needs unless the request says otherwise. Default: majority.
    pub w: Quorum,
    /// What becomes of concurrent writes.
    pub policy: ConflictPolicy,
    /// Largest value in bytes, 1..=[`VALUE_BYTES_MAX`].
    pub value_bytes_max: u32,
    /// How long a value lives unless its write says otherwise, in milliseconds; 0: for ever. Every
    /// coordinator derives the same expiry from it, because it never changes.
    #[serde(default)]
    pub ttl_ms: u64,
    /// What the change feed shows of its writes.
    #[serde(default)]
    pub feed: FeedMode,
}

/// Why properties cannot be a bucket's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BucketPropsError {
    /// n is not 1..=[`N_MAX`].
    #[error("n={n} is not between 1 and {N_MAX}")]
    Copies {
        /// What was asked.
        n: u8,
    },
    /// The default r or w can never be met with this n.
    #[error("the default {what}={asked} asks for more than n={n} copies")]
    Quorum {
        /// `r` or `w`.
        what: &'static str,
        /// What was asked.
        asked: Quorum,
        /// The bucket's n.
        n: u8,
    },
    /// The value limit is zero or above [`VALUE_BYTES_MAX`].
    #[error("the value limit of {bytes} bytes is not between 1 and {VALUE_BYTES_MAX}")]
    ValueLimit {
        /// What was asked.
        bytes: u32,
    },
    /// The time to live is neither 0 nor within its bounds.
    #[error(transparent)]
    Ttl(#[from] TtlError),
}

impl BucketProps {
    /// The properties of a bucket that keeps `n` copies and leaves the rest at the defaults.
    pub fn with_copies(n: u8) -> BucketProps {
        BucketProps {
            n,
            r: Quorum::Majority,
            w: Quorum::Majority,
            policy: ConflictPolicy::Siblings,
            value_bytes_max: VALUE_BYTES_DEFAULT as u32,
            ttl_ms: 0,
            feed: FeedMode::default(),
        }
    }

    /// Whether these properties can hold together.
    pub fn check(&self) -> Result<(), BucketPropsError> {
        if !(1..=N_MAX).contains(&self.n) {
            return Err(BucketPropsError::Copies { n: self.n });
        }
        for (what, asked) in [("r", self.r), ("w", self.w)] {
            if asked.resolve(self.n).is_none() {
                return Err(BucketPropsError::Quorum { what, asked, n: self.n });
            }
        }
        if self.value_bytes_max == 0 || self.value_bytes_max as usize > VALUE_BYTES_MAX {
            return Err(BucketPropsError::ValueLimit { bytes: self.value_bytes_max });
        }
        check_ttl(self.ttl_ms)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::BucketName;
    use serde::Deserialize;
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};

    fn name(text: &str) -> BucketName {
        text.parse().expect("a name")
    }

    #[test]
    fn the_default_bucket_is_one_name_however_it_came() {
        let text: StrDeserializer<'_, Error> = "default".into_deserializer();
        let read = BucketName::deserialize(text).expect("a name");
        assert_eq!([read, name("default")], [(); 2].map(|()| BucketName::default_bucket()));
        assert_eq!(BucketName::default_bucket().to_string(), "default");
        assert!(name("a") < name("default") && name("default") < name("e"));
        assert!(name("defaul") < name("default") && name("default") < name("default1"));
        let bad: StrDeserializer<'_, Error> = "No".into_deserializer();
        assert!(BucketName::deserialize(bad).is_err());
    }
}
