//! Topics: what events of applications are about.
//!
//! A topic needs no making: a write names it, and consumers that ask for it get the event. It decides
//! nothing about where anything is stored.

use crate::limits::BUCKET_NAME_BYTES_MAX;
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Deserializer, Serialize};
use std::sync::Arc;

/// A topic's name: 1..=64 of `a-z A-Z 0-9 . _ - /`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Topic(Arc<str>);

/// Why a text is not a topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a topic: 1 to {BUCKET_NAME_BYTES_MAX} of a-z A-Z 0-9 . _ - /")]
pub struct TopicError {
    /// The text that was refused.
    pub name: String,
}

impl Topic {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Topic {
    type Err = TopicError;
    fn from_str(name: &str) -> Result<Self, TopicError> {
        let may = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
        match (1..=BUCKET_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(may) {
            true => Ok(Topic(name.into())),
            false => Err(TopicError { name: name.chars().take(80).collect() }),
        }
    }
}

impl<'de> Deserialize<'de> for Topic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Topic;

    #[test]
    fn only_short_plain_names_are_topics() {
        for name in ["orders", "a/b.c-d_E9"] {
            assert_eq!(name.parse::<Topic>().map(|it| it.to_string()), Ok(name.to_owned()));
        }
        for name in ["", "a b", "a*", &"x".repeat(65)] {
            assert!(name.parse::<Topic>().is_err(), "{name:?}");
        }
    }
}
