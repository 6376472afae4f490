//! Which member of a group works on which shard: rendezvous hashing with bounded load.
//!
//! A function of the members and the shards alone, so all members that know of the same ones agree
//! and nobody steals. It reads nothing and decides nothing about when a shard changes hands (see
//! `driver.rs`). Source: Thaler and Ravishankar 1998; bounded loads after Mirrokni et al. 2018.

use galvani_model::ids::Shard;
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The member of a group, by the id it chose.
pub(crate) type MemberId = u128;

/// The shards of each member: all of them, each once. No member has more than [`load_max`]. Empty if
/// there are no members.
pub(crate) fn assign(
    shards: &BTreeSet<Shard>,
    members: &BTreeSet<MemberId>,
) -> BTreeMap<MemberId, BTreeSet<Shard>> {
    let mut assigned: BTreeMap<MemberId, BTreeSet<Shard>> =
        members.iter().map(|member| (*member, BTreeSet::new())).collect();
    if members.is_empty() {
        return assigned;
    }
    let most = load_max(shards.len(), members.len());
    // Whoever comes late finds its best member full: that must not always hit the same partitions.
    let mut order: Vec<Shard> = shards.iter().copied().collect();
    order.sort_by_key(|shard| (weight(0, *shard), *shard));
    for shard in order {
        let free = assigned.iter().filter(|(_, has)| has.len() < most);
        let best = free.map(|(member, _)| *member).max_by_key(|it| (weight(*it, shard), *it));
        // The members together may have more than there are shards, so one has room.
        let best = best.expect("most times members is at least the number of shards");
        assigned.entry(best).or_default().insert(shard);
    }
    assigned
}

/// Most shards of one member: its share, and an eighth more so that few change hands when a member
/// comes or goes.
pub(crate) fn load_max(shards: usize, members: usize) -> usize {
    let share = shards.div_ceil(members.max(1));
    share + share / 8
}

/// How much a member wants a shard.
fn weight(member: MemberId, shard: Shard) -> u64 {
    let mut bytes = [0; 19];
    bytes[..16].copy_from_slice(&member.to_le_bytes());
    bytes[16..18].copy_from_slice(&shard.partition.0.to_le_bytes());
    bytes[18] = shard.n;
    xxh3_64_with_seed(&bytes, ASSIGN_SEED)
}

/// Separates weights from every other use of the hash.
const ASSIGN_SEED: u64 = 0x6761_6c76_6772_7031; // "galvgrp1"

#[cfg(test)]
mod tests {
    use super::{assign, load_max};
    use galvani_model::ids::{Partition, Shard};
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
    use std::collections::{BTreeMap, BTreeSet};

    fn shards(count: u16) -> BTreeSet<Shard> {
        (0..count).map(|at| Shard { partition: Partition(at), n: 3 }).collect()
    }

    fn owners(assigned: &BTreeMap<u128, BTreeSet<Shard>>) -> BTreeMap<Shard, u128> {
        let each = |(member, has): (&u128, &BTreeSet<Shard>)| {
            let member = *member;
            has.iter().map(move |shard| (*shard, member)).collect::<Vec<_>>()
        };
        assigned.iter().flat_map(each).collect()
    }

    proptest! {
        #[test]
        fn every_shard_has_one_member_and_no_member_too_many(
            count in 0u16..300,
            members in prop::collection::btree_set(any::<u128>(), 1..12),
        ) {
            let all = shards(count);
            let assigned = assign(&all, &members);
            prop_assert_eq!(owners(&assigned).into_keys().collect::<BTreeSet<_>>(), all.clone());
            prop_assert_eq!(assigned.values().map(BTreeSet::len).sum::<usize>(), all.len());
            let most = load_max(all.len(), members.len());
            prop_assert!(assigned.values().all(|has| has.len() <= most));
            prop_assert_eq!(assign(&all, &members), assigned);
        }

        #[test]
        fn few_shards_change_hands_when_a_member_goes(
            members in prop::collection::btree_set(any::<u128>(), 3..10),
        ) {
            let all = shards(256);
            let before = owners(&assign(&all, &members));
            let mut fewer = members.clone();
            let gone = fewer.pop_first();
            let after = owners(&assign(&all, &fewer));
            let kept = |shard: &&Shard| Some(before[*shard]) != gone;
            let moved = all.iter().filter(kept).filter(|it| before[*it] != after[*it]).count();
            // With `hash % members` it would be most of them.
            prop_assert!(moved <= all.len() / 4, "{moved} of {} moved for nothing", all.len());
        }
    }

    #[test]
    fn without_members_nothing_is_assigned() {
        assert!(assign(&shards(4), &BTreeSet::new()).is_empty());
    }
}
