//! Laws of the values: joins are commutative, associative, idempotent and monotone, absence is
//! neutral, clocks agree with a naive set, tokens come back, and hostile bytes never panic.

use galvani_model::bucket::ConflictPolicy;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{NodeId, Origin, RequestId};
use galvani_model::key::Key;
use galvani_model::version::{
    Context, ContextError, ContextKey, Dot, DotSet, Kind, Object, PartitionClock, Range, ReadJoin,
    RecordHead, object_digest, value_hash,
};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};
use std::collections::BTreeSet;

type Naive = BTreeSet<(u128, u64)>;

fn dots() -> impl Strategy<Value = Vec<Dot>> {
    vec((0u128..3, 1u64..12).prop_map(|(o, n)| Dot::new(Origin(o), n)), 0..16)
}

/// Writes of a history: origin, request id, whether it saw all before it.
fn picks(most: usize) -> impl Strategy<Value = Vec<(usize, u64, bool)>> {
    vec((0usize..3, 1u64..4, any::<bool>()), 1..most)
}

fn naive(dots: &[Dot]) -> Naive {
    dots.iter().map(|dot| (dot.origin.0, dot.counter)).collect()
}

fn clock(dots: &[Dot]) -> PartitionClock {
    let mut clock = PartitionClock::new();
    for &dot in dots {
        clock.insert(dot);
    }
    clock
}

fn all_dots() -> impl Iterator<Item = Dot> {
    (0u128..4).flat_map(|o| (1u64..14).map(move |n| Dot::new(Origin(o), n)))
}

fn key(name: &str) -> Key {
    Key::new("default".parse().expect("a name"), name.to_owned()).expect("a key")
}

proptest! {
    #[test]
    fn a_dot_set_is_its_naive_set(a in dots(), b in dots()) {
        let (x, y) = (DotSet::from_iter(a.clone()), DotSet::from_iter(b.clone()));
        for dot in all_dots() {
            let inside = naive(&a).contains(&(dot.origin.0, dot.counter));
            prop_assert_eq!(x.contains(dot), inside);
        }
        prop_assert_eq!(x == y, naive(&a) == naive(&b), "the form is canonical");
        prop_assert_eq!(x.includes(&y), naive(&a).is_superset(&naive(&b)));
        let mut union = x.clone();
        union.union(&y);
        let both: Vec<Dot> = a.iter().chain(&b).copied().collect();
        prop_assert_eq!(union, DotSet::from_iter(both));
    }

    #[test]
    fn union_of_dot_sets_is_a_join(a in dots(), b in dots(), c in dots()) {
        let [a, b, c] = [a, b, c].map(DotSet::from_iter);
        let join = |x: &DotSet, y: &DotSet| { let mut z = x.clone(); z.union(y); z };
        prop_assert_eq!(join(&a, &b), join(&b, &a));
        prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
        prop_assert_eq!(join(&a, &a), a.clone());
        prop_assert_eq!(join(&a, &DotSet::new()), a.clone());
        prop_assert!(join(&a, &b).includes(&a));
    }

    /// Compression claims a dot only if the answering replica has taken it in.
    #[test]
    fn hole_in_origin_is_not_claimed_by_context(a in dots(), s in dots()) {
        let before = DotSet::from_iter(a);
        let mut after = before.clone();
        after.compress(&clock(&s));
        for dot in all_dots() {
            if before.contains(dot) {
                prop_assert!(after.contains(dot), "nothing is dropped");
            } else if after.contains(dot) {
                prop_assert!(clock(&s).contains(dot), "{dot} was claimed but never taken in");
            }
        }
    }

    #[test]
    fn a_clock_is_its_naive_set(
        a in dots(), b in dots(), o in 0u128..3, first in 1u64..8, more in 0u64..5,
    ) {
        let mut ours = clock(&a);
        let theirs = clock(&b);
        let missing: Vec<Dot> = ours
            .missing_from(&theirs)
            .into_iter()
            .flat_map(|range| (range.first..=range.last).map(move |n| Dot::new(range.origin, n)))
            .collect();
        let expected: Naive = naive(&b).difference(&naive(&a)).copied().collect();
        prop_assert_eq!(naive(&missing), expected);
        let common: PartitionClock = ours.common_with(&theirs).into_iter().collect();
        for dot in all_dots() {
            prop_assert_eq!(common.contains(dot), ours.contains(dot) && theirs.contains(dot));
        }
        prop_assert_eq!(ours.len(), naive(&a).len() as u64);
        let range = Range { origin: Origin(o), first, last: first + more };
        ours.insert_range(range);
        let mut grown = naive(&a);
        grown.extend((first..=first + more).map(|n| (o, n)));
        for dot in all_dots() {
            prop_assert_eq!(ours.contains(dot), grown.contains(&(dot.origin.0, dot.counter)));
        }
        let rebuilt: Vec<Dot> = all_dots().filter(|&dot| ours.contains(dot)).collect();
        prop_assert_eq!(clock(&rebuilt), ours.clone(), "the form is canonical");
        for origin in (0u128..4).map(Origin) {
            let mut reach = 0;
            while grown.contains(&(origin.0, reach + 1)) { reach += 1; }
            prop_assert_eq!(ours.contiguous_after(origin, 0), reach);
        }
    }

    #[test]
    fn union_of_clocks_is_a_join(a in dots(), b in dots(), c in dots()) {
        let [a, b, c] = [a, b, c].map(|dots| clock(&dots));
        let join = |x: &PartitionClock, y: &PartitionClock| { let mut z = x.clone(); z.union(y); z };
        prop_assert_eq!(join(&a, &b), join(&b, &a));
        prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
        prop_assert_eq!(join(&a, &a), a.clone());
        prop_assert!(join(&a, &b).missing_from(&a).is_empty(), "monotone");
    }

    #[test]
    fn foreign_context_opens_for_its_key_and_cluster_only(
        a in dots(), hlc in any::<u64>(), at in any::<usize>(), bit in 0u8..8,
    ) {
        let secret = ContextKey([7; 16]);
        let context = Context { seen: DotSet::from_iter(a), hlc: Hlc(hlc) };
        let token = context.seal(&key("k"), &secret);
        prop_assert_eq!(Context::open(&token, &key("k"), &secret), Ok(context.clone()));
        prop_assert_eq!(Context::open(&token, &key("l"), &secret), Err(ContextError::OtherKey));
        let foreign = ContextKey([8; 16]);
        prop_assert_eq!(Context::open(&token, &key("k"), &foreign), Err(ContextError::Forged));
        let mut altered = token.clone();
        let at = at % altered.len();
        altered[at] ^= 1 << bit;
        prop_assert_eq!(Context::open(&altered, &key("k"), &secret), Err(ContextError::Forged));
        prop_assert_eq!(Context::open(&token[..at], &key("k"), &secret), Err(ContextError::Forged));
    }

    #[test]
    fn foreign_context_of_random_bytes_is_none(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(Context::open(&bytes, &key("k"), &ContextKey([7; 16])).is_err());
    }

    /// What replicas answer may be heard in any order and more than once.
    #[test]
    fn reading_is_a_join(picks in picks(12), order in vec(0usize..3, 0..6)) {
        let objects = history(&picks);
        for policy in [ConflictPolicy::Siblings, ConflictPolicy::Lww] {
            let heard = |order: &[usize]| {
                let mut join = ReadJoin::new();
                for &at in order {
                    join.add(&objects[at], &objects[at].seen());
                }
                join
            };
            let plain = heard(&[0, 1, 2]);
            let mut shuffled = order.clone();
            shuffled.extend([2, 0, 1]);
            prop_assert_eq!(heard(&shuffled).object(policy), plain.object(policy));
            prop_assert_eq!(heard(&shuffled).seen().clone(), plain.seen().clone());
            let mut with_absent = plain.clone();
            with_absent.add(&Object::absent(), &DotSet::new());
            prop_assert_eq!(with_absent, plain);
        }
    }

    /// Applying the same records in any order gives the same object and the same digest.
    #[test]
    fn records_commute(picks in picks(10), seed in any::<u64>(), lww in any::<bool>()) {
        let policy = if lww { ConflictPolicy::Lww } else { ConflictPolicy::Siblings };
        let heads = writes(&picks);
        let forward = apply_all(&heads, policy);
        let other = apply_all(&shuffled(&heads, seed), policy);
        prop_assert_eq!(forward.dots(), other.dots());
        prop_assert_eq!(object_digest(&key("k"), &forward), object_digest(&key("k"), &other));
    }

    /// So they do where a past names a write and not what that one replaced, as a context does that
    /// was made after a tombstone was collected: all that is replaced through others is replaced.
    #[test]
    fn records_commute_where_pasts_are_not_closed(
        sees in vec(any::<u8>(), 1..8),
        seed in any::<u64>(),
    ) {
        let dots: Vec<Dot> = (1..=8).map(|counter| Dot::new(Origin(1), counter)).collect();
        let picks: Vec<_> = (0..sees.len() as u64).map(|rid| (1, rid, false)).collect();
        let mut heads = writes(&picks);
        for (at, head) in heads.iter_mut().enumerate() {
            let named = dots[..at].iter().filter(|dot| sees[at] >> (dot.counter - 1) & 1 == 1);
            head.past = named.copied().collect();
        }
        let replaced: DotSet = heads.iter().flat_map(|head| dots_of(&head.past)).collect();
        let live: Vec<Dot> =
            heads.iter().map(|head| head.dot).filter(|&dot| !replaced.contains(dot)).collect();
        let object = apply_all(&shuffled(&heads, seed), ConflictPolicy::Siblings);
        prop_assert_eq!(object.dots().to_vec(), live);
    }
}

fn dots_of(past: &DotSet) -> Vec<Dot> {
    (1..=8).map(|counter| Dot::new(Origin(1), counter)).filter(|&dot| past.contains(dot)).collect()
}

fn shuffled(heads: &[RecordHead], seed: u64) -> Vec<RecordHead> {
    let mut shuffled = heads.to_vec();
    let mut state = seed | 1;
    for at in (1..shuffled.len()).rev() {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        shuffled.swap(at, (state >> 33) as usize % (at + 1));
    }
    shuffled
}

/// A closed history of writes through three origins: each `(origin, rid, sees)` mints the origin's
/// next dot, blind or after everything written so far. Equal rids with equal contexts are retries.
fn writes(picks: &[(usize, u64, bool)]) -> Vec<RecordHead> {
    let mut counters = [0u64; 3];
    let mut all = DotSet::new();
    let mut latest = Hlc(0);
    let mut heads: Vec<RecordHead> = Vec::new();
    for &(origin, rid, sees) in picks {
        counters[origin] += 1;
        let dot = Dot::new(Origin(origin as u128), counters[origin]);
        let earlier = heads.iter().find(|head| head.rid == RequestId(u128::from(rid)));
        let (past, hlc) = match earlier {
            Some(head) => (head.past.clone(), head.hlc),
            None if sees => (all.clone(), Hlc(latest.0 + 1)),
            None => (DotSet::new(), Hlc(rid * 3)),
        };
        latest = latest.max(hlc);
        all.insert(dot);
        heads.push(RecordHead {
            dot,
            key: key("k"),
            past,
            hlc,
            rid: RequestId(u128::from(rid)),
            author: NodeId(0),
            kind: Kind::Put,
            value_len: 0,
            value_hash: value_hash(Kind::Put, &[]),
            expires_ms: if rid % 3 == 0 { 5 } else { 0 },
            supersedes: Default::default(),
            concurrent: Default::default(),
            emits: Vec::new(),
        });
    }
    heads
}

fn apply_all(heads: &[RecordHead], policy: ConflictPolicy) -> Object {
    let mut object = Object::absent();
    let mut known = BTreeSet::new();
    for head in heads {
        let retry = !known.insert(head.write_id());
        object.apply(head, retry, policy);
    }
    object
}

/// Three replicas of which each has taken in part of one history.
fn history(picks: &[(usize, u64, bool)]) -> [Object; 3] {
    let heads = writes(picks);
    [0, 1, 2].map(|replica| {
        let part: Vec<RecordHead> = heads
            .iter()
            .enumerate()
            .filter(|(at, _)| at % 3 != replica)
            .map(|(_, h)| h.clone())
            .collect();
        apply_all(&part, ConflictPolicy::Siblings)
    })
}
