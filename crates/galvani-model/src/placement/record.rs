//! The stored shape of a layout, its complete check, and its content id.
//!
//! A [`LayoutRecord`] is what peers and disks hand us: it may say anything. Only a record that
//! passes [`LayoutRecord::check`] becomes a [`Layout`](super::Layout); the decoder does it by
//! itself. Balance and zones are not checked: an uneven table is valid, a contradictory one not.

use super::member::Member;
use crate::ids::{ClusterId, LayoutId, NodeId};
use crate::limits::{N_MAX, NODES_MAX, PARTITIONS_MAX};
use core::net::{IpAddr, SocketAddr};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use xxhash_rust::xxh3::xxh3_128;

/// A layout as it is stored and sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutRecord {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Grows by one with every change.
    pub version: u64,
    /// Partitions Q: a power of two, 1..=[`PARTITIONS_MAX`].
    pub partitions: u16,
    /// Copies the table is balanced for, 1..=[`N_MAX`].
    pub n: u8,
    /// All nodes, in the order of their ids, 1..=[`NODES_MAX`].
    pub members: Vec<Member>,
    /// For each partition n indexes into `members`, first owner first; row after row.
    pub owners: Vec<u16>,
}

/// Why there can be no such layout. Nothing was changed; mend the named part and ask again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A layout has at least one node.
    #[error("a layout needs at least one node")]
    NoMembers,
    /// More than [`NODES_MAX`] nodes.
    #[error("{nodes} nodes are more than the limit of {NODES_MAX}")]
    TooManyMembers {
        /// How many were given.
        nodes: usize,
    },
    /// Not a power of two within [`PARTITIONS_MAX`].
    #[error("{partitions} partitions are not a power of two between 1 and {PARTITIONS_MAX}")]
    Partitions {
        /// What was asked.
        partitions: u16,
    },
    /// n is not 1..=[`N_MAX`].
    #[error("n={n} is not between 1 and {N_MAX}")]
    Copies {
        /// What was asked.
        n: u8,
    },
    /// n copies need n nodes.
    #[error("n={n} copies need {n} nodes, there are {nodes}")]
    TooFewNodes {
        /// How many there are.
        nodes: usize,
        /// Copies asked for.
        n: u8,
    },
    /// With at most `per_zone` copies of a partition in each zone, only `room` fit: add nodes to
    /// the small zones, or ask for fewer copies.
    #[error(
        "{zones} zones with at most {per_zone} copies of a partition each have room for {room} \
         of n={n} copies: a zone has too few nodes"
    )]
    ZonesTooSmall {
        /// How many zones there are.
        zones: usize,
        /// Most copies of one partition in one zone.
        per_zone: usize,
        /// Copies that fit.
        room: usize,
        /// Copies asked for.
        n: u8,
    },
    /// The version is the last there can be: nothing can follow.
    #[error("no layout can follow version {version}")]
    LastVersion {
        /// The version there is.
        version: u64,
    },
    /// Two members have one id.
    #[error("node {id} is listed twice")]
    DuplicateId {
        /// The id.
        id: NodeId,
    },
    /// Two members have one name.
    #[error("two nodes are named {name}")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// Two lanes listen on one address.
    #[error("two lanes have the address {address}")]
    DuplicateAddress {
        /// The address.
        address: SocketAddr,
    },
    /// The members of a record are not in the order of their ids.
    #[error("node {id} is out of order")]
    Unsorted {
        /// The first id that is smaller than the one before.
        id: NodeId,
    },
    /// The owner table does not have n entries for each partition.
    #[error("the owner table has {entries} entries, {expected} are needed")]
    TableLength {
        /// Entries found.
        entries: usize,
        /// Partitions times n.
        expected: usize,
    },
    /// An owner is not one of the members.
    #[error("partition {partition} names node {index} of {nodes}")]
    OwnerIndex {
        /// The partition.
        partition: u16,
        /// The index found.
        index: u16,
        /// How many members there are.
        nodes: usize,
    },
    /// A node owns a partition twice.
    #[error("partition {partition} names node {index} twice")]
    OwnerTwice {
        /// The partition.
        partition: u16,
        /// The index found twice.
        index: u16,
    },
}

impl LayoutRecord {
    /// Whether everything in the record holds together. Takes time in proportion to its size.
    pub fn check(&self) -> Result<(), LayoutError> {
        check_frame(self.partitions, self.n, &self.members)?;
        let n = usize::from(self.n);
        let expected = usize::from(self.partitions) * n;
        if self.owners.len() != expected {
            return Err(LayoutError::TableLength { entries: self.owners.len(), expected });
        }
        for (partition, owners) in self.owners.chunks_exact(n).enumerate() {
            let partition = partition as u16;
            for (place, &index) in owners.iter().enumerate() {
                let nodes = self.members.len();
                if usize::from(index) >= nodes {
                    return Err(LayoutError::OwnerIndex { partition, index, nodes });
                }
                if owners[..place].contains(&index) {
                    return Err(LayoutError::OwnerTwice { partition, index });
                }
            }
        }
        Ok(())
    }

    /// The content id: XXH3-128 (seed 0) over the canonical encoding. In it, all numbers are
    /// big-endian and of fixed width: the bytes `galvani-layout-1`; cluster (16); version (8);
    /// partitions (2); n (1); member count (2); for each member id (16), name and zone (a length
    /// byte, then the text), weight (4), lane count (2), for each lane 4 or 6, its IP address (4
    /// or 16) and port (2); then the owner table (2 each).
    pub fn content_id(&self) -> LayoutId {
        let mut bytes = Vec::with_capacity(64 + self.members.len() * 128 + self.owners.len() * 2);
        bytes.extend_from_slice(b"galvani-layout-1");
        bytes.extend_from_slice(&self.cluster.to_bytes());
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes.extend_from_slice(&self.partitions.to_be_bytes());
        bytes.push(self.n);
        bytes.extend_from_slice(&(self.members.len() as u16).to_be_bytes());
        for member in &self.members {
            bytes.extend_from_slice(&member.id().to_bytes());
            for text in [member.name(), member.zone()] {
                bytes.push(text.len() as u8);
                bytes.extend_from_slice(text.as_bytes());
            }
            bytes.extend_from_slice(&member.weight().to_be_bytes());
            bytes.extend_from_slice(&member.lane_count().to_be_bytes());
            for lane in member.lanes() {
                push_address(&mut bytes, lane);
            }
        }
        for owner in &self.owners {
            bytes.extend_from_slice(&owner.to_be_bytes());
        }
        LayoutId(xxh3_128(&bytes))
    }
}

/// Checks all but the owner table.
pub(super) fn check_frame(partitions: u16, n: u8, members: &[Member]) -> Result<(), LayoutError> {
    let nodes = members.len();
    if nodes == 0 {
        return Err(LayoutError::NoMembers);
    }
    if nodes > NODES_MAX {
        return Err(LayoutError::TooManyMembers { nodes });
    }
    if !partitions.is_power_of_two() || partitions > PARTITIONS_MAX {
        return Err(LayoutError::Partitions { partitions });
    }
    if !(1..=N_MAX).contains(&n) {
        return Err(LayoutError::Copies { n });
    }
    if nodes < usize::from(n) {
        return Err(LayoutError::TooFewNodes { nodes, n });
    }
    for pair in members.windows(2) {
        let (before, id) = (pair[0].id(), pair[1].id());
        if before == id {
            return Err(LayoutError::DuplicateId { id });
        }
        if before > id {
            return Err(LayoutError::Unsorted { id });
        }
    }
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for member in members {
        if !names.insert(member.name()) {
            return Err(LayoutError::DuplicateName { name: member.name().into() });
        }
        for &address in member.lanes() {
            // ::ffff:10.0.0.1 and 10.0.0.1 are one place.
            if !addresses.insert((address.ip().to_canonical(), address.port())) {
                return Err(LayoutError::DuplicateAddress { address });
            }
        }
    }
    Ok(())
}

fn push_address(bytes: &mut Vec<u8>, address: &SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes.push(4);
            bytes.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(6);
            bytes.extend_from_slice(&ip.octets());
        }
    }
    bytes.extend_from_slice(&address.port().to_be_bytes());
}
