//! Names of things: clusters, nodes, origins, request ids, partitions, lanes.
//!
//! All 128-bit ids come from the operating system's generator at the edge (never from host names
//! or addresses: two vnodes of one preference list must never share an actor) and are only carried
//! here. Next to read: `version/dot.rs`.

use core::fmt;
use core::str::FromStr;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not an id: it must be exactly 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected 32 hexadecimal digits")]
pub struct ParseIdError;

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl $name {
            /// The id as 16 bytes, most significant first: byte order is numeric order.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }

            /// The id that `bytes` spell, most significant first.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(u128::from_be_bytes(bytes))
            }

            /// The first 12 hexadecimal digits, enough for people to tell ids apart.
            pub fn short(self) -> String {
                format!("{:012x}", self.0 >> 80)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(ParseIdError);
                }
                u128::from_str_radix(text, 16).map(Self).map_err(|_| ParseIdError)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.to_bytes())
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(Id128Visitor).map(Self)
                } else {
                    deserializer.deserialize_bytes(Id128Visitor).map(Self)
                }
            }
        }
    };
}

id128! {
    /// One cluster, for its whole life. Made once when the cluster is created.
    ClusterId
}
id128! {
    /// One node, for the life of its data directory.
    NodeId
}
id128! {
    /// One process that runs a node, from its start to its end.
    BootId
}
id128! {
    /// One incarnation of one vnode: the actor of a dot. Never used again once its counter is in doubt.
    Origin
}
id128! {
    /// One logical write, chosen by the client; every retry of that write carries the same one.
    RequestId
}
id128! {
    /// The content of one logical write, request id included: its retries share it, and nothing else does.
    WriteId
}
id128! {
    /// The content of a layout: equal layouts have equal ids.
    LayoutId
}

/// Accepts 32 hex digits or exactly 16 bytes, and nothing else.
struct Id128Visitor;

impl Visitor<'_> for Id128Visitor {
    type Value = u128;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a 128-bit id")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u128, E> {
        NodeId::from_str(text).map(|id| id.0).map_err(E::custom)
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<u128, E> {
        let bytes: [u8; 16] =
            bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &"16 bytes"))?;
        Ok(u128::from_be_bytes(bytes))
    }
}

/// A fixed slice of hash space: the top bits of a key's hash. Fixed for the cluster's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition(pub u16);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

/// All keys of one partition whose buckets keep `n` copies: the unit that has one set of owners,
/// one partition clock, one log and one digest. (Two buckets with different `n` have different
/// owners, so their writes cannot share a clock: "S of every owner" must mean one owner set.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Shard {
    /// The slice of hash space.
    pub partition: Partition,
    /// How many owners each key in it has, 1..=[`crate::limits::N_MAX`].
    pub n: u8,
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.n)
    }
}

/// One core's event loop of one node, with its own endpoint and its own partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaneIndex(pub u16);

impl LaneIndex {
    /// The lane that serves `partition` on a node with `lanes` lanes (at least 1).
    pub fn of(partition: Partition, lanes: u16) -> LaneIndex {
        assert!(lanes > 0, "a node has at least one lane");
        LaneIndex(partition.0 % lanes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse_to_themselves() {
        let id = NodeId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short(), "0123456789ab");
        assert_eq!(NodeId::from_bytes(id.to_bytes()), id);
    }

    #[test]
    fn texts_that_are_no_ids_are_refused() {
        for text in ["", "12", &"g".repeat(32), &"0".repeat(33), "+1234567890123456789012345678901"]
        {
            assert_eq!(text.parse::<NodeId>(), Err(ParseIdError), "{text:?}");
        }
    }
}
