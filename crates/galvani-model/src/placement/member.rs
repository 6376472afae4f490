//! One node as a layout knows it: name, zone, weight and where its lanes listen.
//!
//! A [`Member`] is valid from birth: the constructor and the decoder check the same bounds. The
//! addresses are values here, nothing is ever dialled. They are part of a layout's content and
//! never of what placement depends on.

use crate::ids::{LaneIndex, NodeId, Partition};
use crate::limits::LANES_MAX;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

/// Weight of a node that takes the same share as its peers.
pub const WEIGHT_NORMAL: u32 = 100;
/// Largest weight: ten normal nodes' share.
pub const WEIGHT_MAX: u32 = 1000;
/// Longest node or zone name in bytes: they are printed in every table.
const NAME_BYTES_MAX: usize = 32;

/// A node of a layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Record", into = "Record")]
pub struct Member {
    id: NodeId,
    name: String,
    zone: String,
    weight: u32,
    lanes: Vec<SocketAddr>,
}

/// Why a node cannot be a member of any layout. Nothing was changed; mend the named field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// The name is not 1..=32 of `a-z 0-9 -`.
    #[error("{name:?} is not a node name: 1 to {NAME_BYTES_MAX} of a-z 0-9 -")]
    Name {
        /// The text that was refused, cut short.
        name: String,
    },
    /// The zone is not 1..=32 of `a-z 0-9 -`.
    #[error("{zone:?} is not a zone name: 1 to {NAME_BYTES_MAX} of a-z 0-9 -")]
    Zone {
        /// The text that was refused, cut short.
        zone: String,
    },
    /// The weight is not 1..=[`WEIGHT_MAX`].
    #[error("weight {weight} is not between 1 and {WEIGHT_MAX} ({WEIGHT_NORMAL} is normal)")]
    Weight {
        /// What was asked.
        weight: u32,
    },
    /// A node has 1..=[`LANES_MAX`] lanes.
    #[error("{lanes} lane addresses are not between 1 and {LANES_MAX}")]
    LaneCount {
        /// How many addresses were given.
        lanes: usize,
    },
    /// Nobody could dial this address: no port, no host, multicast, or bound to one host's
    /// interface numbers (a scope id or flow label).
    #[error("{address} is not an address that other nodes can reach")]
    Address {
        /// The address that was refused.
        address: SocketAddr,
    },
}

impl Member {
    /// The member with these properties; `weight` is 1..=[`WEIGHT_MAX`], `lanes` has one address
    /// for each lane, in lane order.
    pub fn new(
        id: NodeId,
        name: impl Into<String>,
        zone: impl Into<String>,
        weight: u32,
        lanes: Vec<SocketAddr>,
    ) -> Result<Member, MemberError> {
        let (name, zone) = (name.into(), zone.into());
        if !is_word(&name) {
            return Err(MemberError::Name { name: shortened(&name) });
        }
        if !is_word(&zone) {
            return Err(MemberError::Zone { zone: shortened(&zone) });
        }
        if !(1..=WEIGHT_MAX).contains(&weight) {
            return Err(MemberError::Weight { weight });
        }
        if !(1..=usize::from(LANES_MAX)).contains(&lanes.len()) {
            return Err(MemberError::LaneCount { lanes: lanes.len() });
        }
        if let Some(&address) = lanes.iter().find(|address| !is_reachable(address)) {
            return Err(MemberError::Address { address });
        }
        Ok(Member { id, name, zone, weight, lanes })
    }

    /// The same node with another weight, 1..=[`WEIGHT_MAX`].
    pub fn with_weight(self, weight: u32) -> Result<Member, MemberError> {
        Member::new(self.id, self.name, self.zone, weight, self.lanes)
    }

    /// The same node in another zone.
    pub fn with_zone(self, zone: impl Into<String>) -> Result<Member, MemberError> {
        Member::new(self.id, self.name, zone, self.weight, self.lanes)
    }

    /// The node.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// What people call it; unique in a layout.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The zone that fails as one.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// Its share of the data relative to others, 1..=[`WEIGHT_MAX`].
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Where each lane listens, in lane order; never empty.
    pub fn lanes(&self) -> &[SocketAddr] {
        &self.lanes
    }

    /// How many lanes it has, 1..=[`LANES_MAX`].
    pub fn lane_count(&self) -> u16 {
        self.lanes.len() as u16
    }

    /// The lane that serves `partition`.
    pub fn lane_of(&self, partition: Partition) -> LaneIndex {
        LaneIndex::of(partition, self.lane_count())
    }

    /// Where that lane listens.
    pub fn lane_address(&self, partition: Partition) -> SocketAddr {
        self.lanes[usize::from(self.lane_of(partition).0)]
    }
}

/// The stored shape of a member, before it is checked.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Member")]
struct Record {
    id: NodeId,
    name: String,
    zone: String,
    weight: u32,
    lanes: Vec<SocketAddr>,
}

impl TryFrom<Record> for Member {
    type Error = MemberError;
    fn try_from(record: Record) -> Result<Member, MemberError> {
        Member::new(record.id, record.name, record.zone, record.weight, record.lanes)
    }
}

impl From<Member> for Record {
    fn from(member: Member) -> Record {
        let Member { id, name, zone, weight, lanes } = member;
        Record { id, name, zone, weight, lanes }
    }
}

fn is_word(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Scope ids and flow labels mean nothing on another host, and the compact encoding drops them.
fn is_reachable(address: &SocketAddr) -> bool {
    let local = match address {
        SocketAddr::V4(_) => false,
        SocketAddr::V6(v6) => v6.scope_id() != 0 || v6.flowinfo() != 0,
    };
    let ip = address.ip().to_canonical();
    !local && address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, zone: &str, weight: u32, lanes: &[&str]) -> Result<Member, MemberError> {
        let lanes = lanes.iter().map(|a| a.parse().expect("a literal address")).collect();
        Member::new(NodeId(1), name, zone, weight, lanes)
    }

    #[test]
    fn fields_out_of_bounds_are_refused_by_name() {
        let ok = ["127.0.0.1:7401"];
        assert!(member("n-1", "z1", 100, &ok).is_ok());
        let long = "a".repeat(33);
        for name in ["", "N1", "n_1", "né", long.as_str()] {
            assert!(matches!(member(name, "z", 1, &ok), Err(MemberError::Name { .. })), "{name}");
            assert!(matches!(member("n", name, 1, &ok), Err(MemberError::Zone { .. })), "{name}");
        }
        for weight in [0, 1001, u32::MAX] {
            assert_eq!(member("n", "z", weight, &ok), Err(MemberError::Weight { weight }));
        }
        assert_eq!(member("n", "z", 1, &[]), Err(MemberError::LaneCount { lanes: 0 }));
        let many = vec!["10.0.0.1:1"; 65];
        assert_eq!(member("n", "z", 1, &many), Err(MemberError::LaneCount { lanes: 65 }));
        for address in
            ["127.0.0.1:0", "0.0.0.0:7401", "[::]:7401", "224.0.0.1:7401", "[fe80::1%3]:7401"]
        {
            assert!(
                matches!(member("n", "z", 1, &[address]), Err(MemberError::Address { .. })),
                "{address}"
            );
        }
    }

    #[test]
    fn a_partition_is_served_by_one_lane() {
        let two = member("n", "z", 1, &["10.0.0.1:1", "10.0.0.1:2"]).expect("valid");
        assert_eq!(two.lane_of(Partition(5)), LaneIndex(1));
        assert_eq!(two.lane_address(Partition(5)).port(), 2);
        assert_eq!(two.lane_address(Partition(4)).port(), 1);
    }
}
