//! What a request may ask for: quorum words and numbers, strictness, deadline.
//!
//! `one`, `majority` (also `quorum`) and `all` work beside numbers, everywhere. A number of zero or
//! above n is refused before anything is written; see [`Quorum::resolve`]. So is a time to live out
//! of bounds; see [`check_ttl`].

use crate::limits::{TTL_MS_MAX, TTL_MS_MIN};
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many of n replicas must answer. People write words or numbers; on the wire and on disk it is
/// one small number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quorum {
    /// One.
    One,
    /// More than half of n.
    Majority,
    /// All n.
    All,
    /// Exactly this many.
    Exactly(u8),
}

impl Quorum {
    /// The number this means for `n` replicas, or `None` if it can never be met (0, or above n).
    pub fn resolve(self, n: u8) -> Option<u8> {
        let need = match self {
            Quorum::One => 1,
            Quorum::Majority => n / 2 + 1,
            Quorum::All => n,
            Quorum::Exactly(count) => count,
        };
        (1..=n).contains(&need).then_some(need)
    }
}

impl From<u8> for Quorum {
    fn from(count: u8) -> Quorum {
        Quorum::Exactly(count)
    }
}

/// The compact form of the words: numbers no quorum can have.
const CODE_ONE: u8 = 201;
const CODE_MAJORITY: u8 = 202;
const CODE_ALL: u8 = 203;

impl Serialize for Quorum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        serializer.serialize_u8(match self {
            Quorum::One => CODE_ONE,
            Quorum::Majority => CODE_MAJORITY,
            Quorum::All => CODE_ALL,
            Quorum::Exactly(count) => *count,
        })
    }
}

impl<'de> Deserialize<'de> for Quorum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            return text.parse().map_err(serde::de::Error::custom);
        }
        Ok(match u8::deserialize(deserializer)? {
            CODE_ONE => Quorum::One,
            CODE_MAJORITY => Quorum::Majority,
            CODE_ALL => Quorum::All,
            count => Quorum::Exactly(count),
        })
    }
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quorum::One => f.write_str("one"),
            Quorum::Majority => f.write_str("majority"),
            Quorum::All => f.write_str("all"),
            Quorum::Exactly(count) => write!(f, "{count}"),
        }
    }
}

/// Why a text is not a quorum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a quorum: say a number from 1 to 7, one, majority or all")]
pub struct ParseQuorumError {
    /// The text that was refused.
    pub text: String,
}

impl FromStr for Quorum {
    type Err = ParseQuorumError;
    fn from_str(text: &str) -> Result<Self, ParseQuorumError> {
        match text {
            "one" => Ok(Quorum::One),
            "majority" | "quorum" => Ok(Quorum::Majority),
            "all" => Ok(Quorum::All),
            _ => match text.parse::<u8>() {
                Ok(count @ 1..=crate::limits::N_MAX) => Ok(Quorum::Exactly(count)),
                Ok(_) | Err(_) => Err(ParseQuorumError { text: text.chars().take(40).collect() }),
            },
        }
    }
}

/// What one read may choose. `None` inherits the bucket's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadOptions {
    /// Narrows the quorum to the first n of the preference list; at most the bucket's n.
    pub n: Option<u8>,
    /// Answers needed.
    pub r: Option<Quorum>,
    /// Of those, how many must come from owners.
    pub pr: Option<Quorum>,
    /// Owners only, no stand-ins.
    pub strict: bool,
    /// Answer only once r replicas hold what is returned, so that with r a majority no later read
    /// shows anything older (Attiya, Bar-Noy, Dolev 1995: the read's second phase).
    pub blocking_repair: bool,
}

/// What one write may choose. `None` inherits the bucket's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteOptions {
    /// Narrows the quorum to the first n of the preference list; at most the bucket's n. The data
    /// still ends on all of the bucket's owners.
    pub n: Option<u8>,
    /// Acks needed.
    pub w: Option<Quorum>,
    /// Of those, how many must come from owners.
    pub pw: Option<Quorum>,
    /// Of those, how many must be from replicas that fsynced first.
    pub dw: Option<Quorum>,
    /// Owners only, no stand-ins.
    pub strict: bool,
    /// How long the value lives from the client's time on, in milliseconds; 0: for ever.
    pub ttl_ms: Option<u64>,
}

/// A time to live that no write may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a ttl of {ttl_ms} ms is not between {TTL_MS_MIN} and {TTL_MS_MAX} ms (ten years)")]
pub struct TtlError {
    /// What was asked.
    pub ttl_ms: u64,
}

/// Whether a write may live so long, in milliseconds; 0 is for ever.
pub fn check_ttl(ttl_ms: u64) -> Result<(), TtlError> {
    if ttl_ms == 0 || (TTL_MS_MIN..=TTL_MS_MAX).contains(&ttl_ms) {
        Ok(())
    } else {
        Err(TtlError { ttl_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_mean_what_they_say() {
        for n in 1..=7u8 {
            assert_eq!(Quorum::One.resolve(n), Some(1));
            assert_eq!(Quorum::Majority.resolve(n), Some(n / 2 + 1));
            assert_eq!(Quorum::All.resolve(n), Some(n));
            assert_eq!(Quorum::Exactly(0).resolve(n), None);
            assert_eq!(Quorum::Exactly(n + 1).resolve(n), None);
        }
        assert_eq!("quorum".parse(), Ok(Quorum::Majority));
        for text in ["0", "8", "300", "-1", "two", ""] {
            assert!(text.parse::<Quorum>().is_err(), "{text}");
        }
    }
}
