//! Preference lists: the owners of a partition, then all other nodes as fallbacks.
//!
//! Fallbacks come zone by zone: the zone that stands least often in the list so far comes next,
//! so a zone that is not covered yet goes first. Among equals a hash of partition and node
//! decides, weighted, so the fallbacks of one node's partitions are spread over all others. Buckets
//! with more copies than the layout take owners from here: this order is part of the data format,
//! pinned by a golden test. Source: weighted rendezvous hashing (Thaler, Ravishankar 1998).

use super::targets::Problem;
use crate::ids::NodeId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The full lists, one row of all nodes for each partition; `owners` has rows of n.
pub(super) fn lists(problem: &Problem, ids: &[NodeId], owners: &[u16], seed: u64) -> Vec<u16> {
    let mut lists = Vec::with_capacity(problem.partitions * ids.len());
    let mut fallbacks: Vec<Fallback> = Vec::with_capacity(ids.len());
    let mut zone_used = vec![0u16; problem.zones];
    for (partition, owners) in owners.chunks_exact(problem.n).enumerate() {
        zone_used.fill(0);
        for &node in owners {
            zone_used[problem.zone_of[usize::from(node)]] += 1;
        }
        fallbacks.clear();
        for node in (0..ids.len() as u16).filter(|node| !owners.contains(node)) {
            let index = usize::from(node);
            let score = score(seed, partition as u16, ids[index], problem.weights[index]);
            fallbacks.push(Fallback { level: 0, score, node });
        }
        fallbacks.sort_unstable();
        for fallback in &mut fallbacks {
            let used = &mut zone_used[problem.zone_of[usize::from(fallback.node)]];
            fallback.level = *used;
            *used += 1;
        }
        fallbacks.sort_unstable();
        lists.extend_from_slice(owners);
        lists.extend(fallbacks.iter().map(|fallback| fallback.node));
    }
    lists
}

/// Sorted by how often the zone came before, then score, then node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Fallback {
    level: u16,
    score: u64,
    node: u16,
}

/// Least for the node to ask first; a node of twice the weight is first twice as often.
fn score(seed: u64, partition: u16, id: NodeId, weight: u64) -> u64 {
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&id.to_bytes());
    bytes[16..].copy_from_slice(&partition.to_be_bytes());
    (u64::from(rarity(xxh3_64_with_seed(&bytes, seed))) << 32) / weight
}

/// `-log2(hash / 2^64)` with 24 bits behind the point: exponentially distributed for a uniform
/// hash. By integers alone, since floating-point logarithms differ between machines.
fn rarity(hash: u64) -> u32 {
    let hash = hash | 1;
    let zeros = hash.leading_zeros();
    let mut mantissa = hash << zeros;
    let mut fraction = 0u32;
    for _ in 0..24 {
        let square = u128::from(mantissa) * u128::from(mantissa);
        let doubled = (square >> 127) as u32;
        mantissa = (square >> (63 + doubled)) as u64;
        fraction = fraction << 1 | doubled;
    }
    ((zeros + 1) << 24) - fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rarity_is_the_logarithm() {
        for hash in [1, 3, 1 << 20, 0x1234_5678_9abc_def0, u64::MAX, 1 << 63] {
            let exact = 64.0 - (hash as f64).log2();
            let ours = f64::from(rarity(hash)) / f64::from(1 << 24);
            assert!((exact - ours).abs() < 1e-5, "{hash:x}: {exact} {ours}");
        }
    }
}
