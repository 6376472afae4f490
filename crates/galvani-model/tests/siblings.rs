//! How many values a key has after which writes: V1, V2, V3 and A1 of `docs/cases.md` as laws of the values,
//! for any order of arrival and any replica that is read. The same with real lanes: `galvani-sim`.

use galvani_model::bucket::ConflictPolicy;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{NodeId, Origin, RequestId};
use galvani_model::key::Key;
use galvani_model::version::{
    Dot, DotSet, Kind, Object, ReadJoin, RecordHead, object_digest, value_hash,
};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};
use std::collections::BTreeSet;

const POLICY: ConflictPolicy = ConflictPolicy::Siblings;
const REPLICAS: usize = 3;

fn key(name: &str) -> Key {
    Key::new("default".parse().expect("a name"), name.to_owned()).expect("a key")
}

/// A put that replaces `past`, or a delete.
fn head(dot: Dot, past: DotSet, kind: Kind) -> RecordHead {
    let rid = dot.origin.0 << 64 | u128::from(dot.counter);
    RecordHead {
        dot,
        key: key("k"),
        past,
        hlc: Hlc(dot.counter),
        rid: RequestId(rid),
        author: NodeId(dot.origin.0),
        kind,
        value_len: 0,
        value_hash: value_hash(kind, &[]),
        expires_ms: 0,
        supersedes: Default::default(),
        concurrent: Default::default(),
        emits: Vec::new(),
    }
}

fn apply_all<'a>(heads: impl IntoIterator<Item = &'a RecordHead>) -> Object {
    let mut object = Object::absent();
    for head in heads {
        object.apply(head, false, POLICY);
    }
    object
}

/// What a reader of all these replicas is shown.
fn read(replicas: &[Object]) -> Object {
    let mut join = ReadJoin::new();
    for object in replicas {
        join.add(object, &object.seen());
    }
    join.object(POLICY)
}

/// Coordinator of a write; who else has it at once, a bit each; where the next read goes.
fn steps(most: usize) -> impl Strategy<Value = Vec<(usize, u8, usize)>> {
    vec((0..REPLICAS, any::<u8>(), 0..REPLICAS), 1..most)
}

/// A dot of each write of a history, whose counters are by origin.
fn next_dot(counters: &mut [u64], origin: usize) -> Dot {
    counters[origin] += 1;
    Dot::new(Origin(origin as u128 + 1), counters[origin])
}

proptest! {
    #[test]
    fn blind_concurrent_same_coord(writes in 1u64..12, turn in any::<usize>(), cut in any::<usize>()) {
        let dots: Vec<Dot> = (1..=writes).map(|counter| Dot::new(Origin(1), counter)).collect();
        let heads: Vec<_> = dots.iter().map(|&dot| head(dot, DotSet::new(), Kind::Put)).collect();
        let turn = turn % heads.len();
        let turned = apply_all(heads[turn..].iter().rev().chain(&heads[..turn]));
        prop_assert_eq!(turned.dots().to_vec(), dots.clone(), "none replaces another");
        // Nor do they where each replica has some of them, and some are on both.
        let cut = cut % (heads.len() + 1);
        let parts = [apply_all(&heads[..cut]), apply_all(&heads[cut.saturating_sub(1)..])];
        prop_assert_eq!(read(&parts).dots().to_vec(), dots);
    }

    /// One client that writes after all it has read and written, through any coordinator, while the
    /// other replicas miss any of it.
    #[test]
    fn rmw_chain(steps in steps(60)) {
        let mut replicas = vec![Object::absent(); REPLICAS];
        let (mut counters, mut context) = ([0; REPLICAS], DotSet::new());
        for (coordinator, also, from) in steps {
            context.union(&replicas[from].seen());
            let dot = next_dot(&mut counters, coordinator);
            let write = head(dot, context.clone(), Kind::Put);
            for (at, replica) in replicas.iter_mut().enumerate() {
                if at == coordinator || also >> at & 1 == 1 {
                    replica.apply(&write, false, POLICY);
                    prop_assert_eq!(replica.dots().to_vec(), vec![dot], "it replaces all before it");
                }
            }
            context.insert(dot);
            prop_assert_eq!(read(&replicas).dots().to_vec(), vec![dot]);
        }
    }

    /// Clients whose contexts are as stale as they like, except that each knows its own last write.
    #[test]
    fn pingpong_stale_ctx(
        clients in 2usize..5,
        steps in vec((any::<usize>(), any::<bool>(), 0..REPLICAS), 1..80),
    ) {
        let mut replicas = vec![Object::absent(); REPLICAS];
        let (mut counters, mut contexts) = ([0; REPLICAS], vec![DotSet::new(); clients]);
        for (turn, reads, at) in steps {
            let context = &mut contexts[turn % clients];
            if reads {
                context.union(&read(&replicas).seen());
                continue;
            }
            let dot = next_dot(&mut counters, at);
            let write = head(dot, context.clone(), Kind::Put);
            context.insert(dot);
            for replica in &mut replicas {
                replica.apply(&write, false, POLICY);
            }
            let siblings = read(&replicas).versions().len();
            prop_assert!(siblings <= clients, "{siblings} siblings of {clients} clients");
        }
    }

    /// Digests are equal where the values are, and only there, whatever tombstones are kept beside them.
    #[test]
    fn merkle_false_equality(
        picks in vec((0usize..3, any::<bool>(), any::<bool>()), 1..12),
        one in any::<u16>(),
        two in any::<u16>(),
    ) {
        let (mut counters, mut all, mut heads) = ([0; 3], DotSet::new(), Vec::new());
        for (origin, sees, deletes) in picks {
            let dot = next_dot(&mut counters, origin);
            let past = if sees { all.clone() } else { DotSet::new() };
            heads.push(head(dot, past, if deletes { Kind::Delete } else { Kind::Put }));
            all.insert(dot);
        }
        let part = |mask: u16| {
            apply_all(heads.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1).map(|(_, it)| it))
        };
        let values = |object: &Object| -> BTreeSet<Dot> {
            let lasting = object.versions().iter().filter(|version| version.is_lasting());
            lasting.flat_map(|version| version.dots.iter().copied()).collect()
        };
        let (one, two) = (part(one), part(two));
        let digest = |object: &Object| object_digest(&key("k"), object);
        prop_assert_eq!(digest(&one) == digest(&two), values(&one) == values(&two));
        let elsewhere = object_digest(&key("l"), &one) == digest(&one);
        prop_assert_eq!(elsewhere, values(&one).is_empty(), "the key is part of it");
        // One object's part is replaced by another's without a look at anything else.
        let mut sum = digest(&one);
        sum.replace(digest(&one), digest(&two));
        prop_assert_eq!(sum, digest(&two));
    }
}
