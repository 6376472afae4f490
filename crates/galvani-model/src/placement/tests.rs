//! Laws of layouts over drawn clusters, and the cases that earlier designs got wrong.

mod changes;
mod next;
mod oracle;

use super::targets::{Problem, targets};
use super::{Layout, LayoutError, LayoutRecord, Member};
use crate::ids::{ClusterId, NodeId, Partition, Shard};
use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
use std::collections::{BTreeMap, BTreeSet};

const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978);

/// One member for each (zone, weight), with ids that do not follow the order given.
fn members(nodes: &[(u8, u32)]) -> Vec<Member> {
    let member = |(index, &(zone, weight)): (usize, &(u8, u32))| {
        let id =
            NodeId((index as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        let lanes = (1..=3)
            .map(|lane| ([10, 0, (index >> 8) as u8, index as u8], 7400 + lane).into())
            .collect();
        Member::new(id, format!("n{index}"), format!("z{zone}"), weight, lanes).expect("valid")
    };
    nodes.iter().enumerate().map(member).collect()
}

fn compute(partitions: u16, n: u8, nodes: &[(u8, u32)]) -> Result<Layout, LayoutError> {
    Layout::compute(CLUSTER, 1, partitions, n, members(nodes))
}

fn equal(zones: u8, per_zone: u8) -> Vec<(u8, u32)> {
    (0..zones).flat_map(|zone| (0..per_zone).map(move |_| (zone, 100))).collect()
}

fn partitions(layout: &Layout) -> impl Iterator<Item = Partition> + use<> {
    (0..layout.partitions()).map(Partition)
}

/// How often each node stands at one of the first `n` places.
fn loads(layout: &Layout, n: u8) -> BTreeMap<NodeId, usize> {
    let mut loads: BTreeMap<NodeId, usize> =
        layout.members().iter().map(|member| (member.id(), 0)).collect();
    for partition in partitions(layout) {
        for node in layout.owners(Shard { partition, n }) {
            *loads.get_mut(&node).expect("owners are members") += 1;
        }
    }
    loads
}

fn zone_of(layout: &Layout, node: NodeId) -> &str {
    layout.member(node).expect("owners are members").zone()
}

/// The greatest number of `nodes` in one zone.
fn fullest_zone(layout: &Layout, nodes: &[NodeId]) -> usize {
    let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
    nodes.iter().for_each(|&node| *zones.entry(zone_of(layout, node)).or_default() += 1);
    zones.values().copied().max().unwrap_or(0)
}

fn gap(loads: &BTreeMap<NodeId, usize>) -> usize {
    let max = loads.values().max().expect("a layout has nodes");
    max - loads.values().min().expect("a layout has nodes")
}

/// Drawn clusters: partitions, copies, (zone, weight) of each node.
fn drawn() -> impl Strategy<Value = (u16, u8, Vec<(u8, u32)>)> {
    let node = (0u8..5, prop::sample::select(vec![1u32, 50, 100, 100, 100, 250, 1000]));
    let nodes = prop::collection::vec(node, 1..14);
    (0u32..8, nodes).prop_flat_map(|(bits, nodes)| {
        let most = nodes.len().min(7) as u8;
        (Just(1u16 << bits), 1..=most, Just(nodes))
    })
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(400))]

    #[test]
    fn a_layout_of_any_members_keeps_its_promises((q, n, nodes) in drawn()) {
        let zones: BTreeSet<u8> = nodes.iter().map(|node| node.0).collect();
        let layout = match compute(q, n, &nodes) {
            Ok(layout) => layout,
            Err(LayoutError::ZonesTooSmall { room, .. }) => {
                prop_assert!(zones.len() < usize::from(n) && room < usize::from(n));
                return Ok(());
            }
            Err(other) => return Err(proptest::test_runner::TestCaseError::fail(other.to_string())),
        };
        prop_assert_eq!(layout.record().check(), Ok(()));
        let all: BTreeSet<NodeId> = layout.members().iter().map(Member::id).collect();
        let per_zone =
            if zones.len() >= usize::from(n) { 1 } else { usize::from(n).div_ceil(zones.len()) };
        for partition in partitions(&layout) {
            let owners = layout.owners(Shard { partition, n });
            prop_assert_eq!(owners.iter().collect::<BTreeSet<_>>().len(), usize::from(n));
            prop_assert!(fullest_zone(&layout, &owners) <= per_zone);
            let list: Vec<NodeId> = layout.preference(partition).collect();
            prop_assert_eq!(&list[..usize::from(n)], &owners[..]);
            prop_assert_eq!(list.len(), all.len());
            prop_assert_eq!(&list.iter().copied().collect::<BTreeSet<_>>(), &all);
            // No fallback's zone may come again while a zone with nodes left came less often.
            let mut used: BTreeMap<&str, usize> = BTreeMap::new();
            for (place, &node) in list.iter().enumerate() {
                let times = |node| used.get(zone_of(&layout, node)).copied().unwrap_or(0);
                let least = list[place..].iter().map(|&node| times(node)).min();
                prop_assert!(place < usize::from(n) || Some(times(node)) == least);
                *used.entry(zone_of(&layout, node)).or_default() += 1;
            }
        }
        let again = compute(q, n, &nodes).expect("it was computed before");
        prop_assert_eq!(again.id(), layout.id());
        prop_assert!(again == layout);
    }

    #[test]
    fn every_node_is_within_one_slot_of_its_exact_share((q, n, nodes) in drawn()) {
        let problem = Problem {
            partitions: q.into(),
            n: n.into(),
            zone_of: nodes.iter().map(|node| node.0.into()).collect(),
            weights: nodes.iter().map(|node| node.1.into()).collect(),
            zones: 5,
        };
        // Zones nobody is in make too many zones; number only those in use.
        let used: Vec<usize> = problem.zone_of.iter().copied().collect::<BTreeSet<_>>()
            .into_iter().collect();
        let number = |zone: &usize| used.binary_search(zone).expect("in use");
        let problem = Problem {
            zone_of: problem.zone_of.iter().map(number).collect(),
            zones: used.len(),
            ..problem
        };
        let Ok(slots) = targets(&problem, &vec![0; nodes.len()]) else { return Ok(()) };
        prop_assert_eq!(slots.iter().sum::<usize>(), usize::from(q) * usize::from(n));
        for (node, exact) in shares_by_bisection(&problem).into_iter().enumerate() {
            prop_assert!((slots[node] as f64 - exact).abs() < 1.0 + 1e-6, "{:?} {}", slots, exact);
        }
        if let Ok(layout) = compute(q, n, &nodes) {
            let loads = loads(&layout, n);
            for (member, slots) in members(&nodes).iter().zip(slots) {
                // The layout numbers nodes by id: ties may round the other way.
                prop_assert!(loads[&member.id()].abs_diff(slots) <= 1);
            }
        }
    }

    #[test]
    fn hostile_records_are_refused_or_valid_and_never_panic(
        (q, n, nodes) in drawn(),
        owners in prop::collection::vec(0u16..20, 0..40),
        at in any::<prop::sample::Index>(),
        (bad_q, bad_n, swap) in (any::<u16>(), any::<u8>(), any::<bool>()),
    ) {
        let Ok(layout) = compute(q, n, &nodes) else { return Ok(()) };
        let good = layout.record().clone();
        let mut touched = good.clone();
        let cell = at.index(touched.owners.len());
        touched.owners[cell] = owners.first().copied().unwrap_or(u16::MAX);
        let mut swapped = good.clone();
        let last = swapped.members.len() - 1;
        if swap { swapped.members.swap(0, last) } else { swapped.members.truncate(last) }
        let records = [
            touched,
            swapped,
            LayoutRecord { partitions: bad_q, ..good.clone() },
            LayoutRecord { n: bad_n, ..good.clone() },
            LayoutRecord { owners, ..good.clone() },
        ];
        for record in records {
            let checked = record.check();
            match Layout::try_from(record.clone()) {
                Ok(other) => {
                    prop_assert_eq!(other.id() == layout.id(), record == good);
                    prop_assert_eq!(other.preference(Partition(0)).len(), record.members.len());
                }
                Err(error) => prop_assert_eq!(Err(error), checked),
            }
        }
    }
}

/// The water level found by bisection in floating point: another way to the same shares.
fn shares_by_bisection(problem: &Problem) -> Vec<f64> {
    let q = problem.partitions as f64;
    let zone_cap = q * problem.per_zone() as f64;
    let level = |total: f64, amount: &dyn Fn(f64) -> f64| {
        let (mut low, mut high) = (0.0, 2.0 * q);
        for _ in 0..200 {
            let middle = (low + high) / 2.0;
            if amount(middle) < total { low = middle } else { high = middle }
        }
        high
    };
    let of = |node: usize, level: f64| (problem.weights[node] as f64 * level).min(q);
    let zones = problem.zone_nodes();
    let poured = |zone: &[usize], level: f64| zone.iter().map(|&n| of(n, level)).sum::<f64>();
    let all = |level: f64| zones.iter().map(|z| poured(z, level).min(zone_cap)).sum::<f64>();
    let global = level(q * problem.n as f64, &all);
    let mut shares = vec![0.0; problem.weights.len()];
    for zone in &zones {
        let own = if poured(zone, global) > zone_cap {
            level(zone_cap, &|level| poured(zone, level))
        } else {
            global
        };
        zone.iter().for_each(|&node| shares[node] = of(node, own));
    }
    shares
}

#[test]
fn equal_nodes_own_equally_at_every_place() {
    for (q, n, zones, per_zone) in [
        (64, 3, 3, 1),
        (64, 3, 3, 2),
        (256, 3, 3, 4),
        (256, 3, 5, 2),
        (256, 3, 1, 5),
        (1024, 3, 4, 5),
        (256, 5, 7, 1),
        (256, 7, 1, 9),
        (16, 1, 1, 3),
        (4, 3, 1, 20),
    ] {
        let layout = compute(q, n, &equal(zones, per_zone)).expect("feasible");
        assert!(gap(&loads(&layout, n)) <= 1, "Q={q} n={n} {zones}x{per_zone}");
        assert!(gap(&loads(&layout, 1)) <= 1, "first owners: Q={q} n={n} {zones}x{per_zone}");
        for fewer in 2..n {
            assert!(
                gap(&loads(&layout, fewer)) <= usize::from(fewer),
                "first {fewer}: Q={q} n={n}"
            );
        }
    }
}

#[test]
fn two_zones_hold_copies_evenly_and_the_first_two_are_apart() {
    let layout = compute(256, 3, &equal(2, 3)).expect("feasible");
    assert!(gap(&loads(&layout, 3)) <= 1);
    for partition in partitions(&layout) {
        assert_eq!(fullest_zone(&layout, &layout.owners(Shard { partition, n: 3 })), 2);
        assert_eq!(fullest_zone(&layout, &layout.owners(Shard { partition, n: 2 })), 1);
    }
}

#[test]
fn weights_are_respected_exactly() {
    let nodes = [(1, 400), (1, 200), (2, 300), (2, 300), (3, 100), (3, 500)];
    let layout = compute(256, 3, &nodes).expect("feasible");
    // Three zones for three copies: each zone holds every partition once, shared by weight.
    let exact = [170.67, 85.33, 128.0, 128.0, 42.67, 213.33];
    let loads = loads(&layout, 3);
    for (member, exact) in members(&nodes).iter().zip(exact) {
        assert!((loads[&member.id()] as f64 - exact).abs() < 1.0, "{}", member.name());
    }
}

#[test]
fn every_node_shares_partitions_with_every_possible_peer() {
    for (zones, per_zone, possible) in [(3, 4, 8), (1, 12, 11), (6, 2, 10)] {
        let layout = compute(256, 3, &equal(zones, per_zone)).expect("feasible");
        let mut peers: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
        for partition in partitions(&layout) {
            let owners = layout.owners(Shard { partition, n: 3 });
            for &node in &owners {
                let others = owners.iter().copied().filter(|other| *other != node);
                peers.entry(node).or_default().extend(others);
            }
        }
        assert!(peers.values().all(|peers| peers.len() == possible), "{zones}x{per_zone}");
    }
}

#[test]
fn first_fallbacks_are_spread_over_all_nodes() {
    let layout = compute(256, 3, &equal(1, 10)).expect("feasible");
    let mut first: BTreeMap<NodeId, usize> = BTreeMap::new();
    for partition in partitions(&layout) {
        let shard = Shard { partition, n: 3 };
        *first.entry(layout.fallbacks(shard).next().expect("seven are left")).or_default() += 1;
    }
    assert_eq!(first.len(), 10);
    assert!(first.values().all(|count| (8..=50).contains(count)), "{first:?}");
}

#[test]
fn buckets_with_more_copies_take_the_first_of_the_preference_list() {
    let layout = compute(64, 3, &equal(6, 1)).expect("feasible");
    for partition in partitions(&layout) {
        let shard = Shard { partition, n: 5 };
        let list: Vec<NodeId> = layout.preference(partition).collect();
        assert_eq!(layout.owners(shard)[..], list[..5]);
        assert_eq!(layout.fallbacks(shard).collect::<Vec<_>>(), list[5..]);
        assert!(layout.is_owner(list[4], shard) && !layout.is_owner(list[5], shard));
    }
    let n_owned: usize = layout.members().iter().map(|m| layout.owned(m.id(), 5).count()).sum();
    assert_eq!(n_owned, 64 * 5);
}

#[test]
fn shards_that_do_not_exist_have_no_owners() {
    let layout = compute(64, 3, &equal(3, 1)).expect("feasible");
    let stranger = NodeId(7);
    for shard in [(64, 3), (u16::MAX, 3), (0, 0), (0, 4), (0, u8::MAX)]
        .map(|(partition, n)| Shard { partition: Partition(partition), n })
    {
        assert!(!layout.contains(shard) && layout.owners(shard).is_empty(), "{shard}");
        assert_eq!(layout.fallbacks(shard).len(), 0);
        assert_eq!(layout.first_owner(shard), None);
    }
    assert_eq!(layout.preference(Partition(64)).len(), 0);
    assert_eq!(layout.lane_address(stranger, Partition(0)), None);
}

#[test]
fn addresses_and_version_move_nothing_but_are_content() {
    let nodes = equal(3, 2);
    let layout = compute(64, 3, &nodes).expect("feasible");
    let later = Layout::compute(CLUSTER, 2, 64, 3, members(&nodes)).expect("feasible");
    let moved = members(&nodes).into_iter().map(|m| {
        let lanes = vec![([10, 9, 9, 9], 1000 + (m.id().0 % 60_000) as u16).into()];
        Member::new(m.id(), m.name(), m.zone(), m.weight(), lanes).expect("valid")
    });
    let moved = Layout::compute(CLUSTER, 1, 64, 3, moved.collect()).expect("feasible");
    for other in [&later, &moved] {
        assert_eq!(other.record().owners, layout.record().owners);
        for partition in partitions(&layout) {
            assert!(other.preference(partition).eq(layout.preference(partition)));
        }
        assert_ne!(other.id(), layout.id());
    }
    let mut backwards = members(&nodes);
    backwards.reverse();
    let backwards = Layout::compute(CLUSTER, 1, 64, 3, backwards).expect("feasible");
    assert_eq!(backwards, layout);
}

#[test]
fn members_that_contradict_each_other_are_refused() {
    let compute = |change: &dyn Fn(&mut Vec<Member>)| {
        let mut members = members(&equal(1, 3));
        change(&mut members);
        Layout::compute(CLUSTER, 1, 64, 3, members)
    };
    let with = |m: &Member, id: NodeId, name: &str, lane: &str| {
        let lanes = vec![lane.parse().expect("a literal address")];
        Member::new(id, name, m.zone(), 100, lanes).expect("valid")
    };
    assert_eq!(compute(&|m| m.clear()), Err(LayoutError::NoMembers));
    assert_eq!(compute(&|m| m.truncate(2)), Err(LayoutError::TooFewNodes { nodes: 2, n: 3 }));
    let id = members(&equal(1, 3))[0].id();
    assert_eq!(
        compute(&|m| m[1] = with(&m[1], id, "x", "10.1.1.1:1")),
        Err(LayoutError::DuplicateId { id })
    );
    assert_eq!(
        compute(&|m| m[1] = with(&m[1], NodeId(1), "n0", "10.1.1.1:1")),
        Err(LayoutError::DuplicateName { name: "n0".into() })
    );
    let mapped = "[::ffff:10.0.0.0]:7401";
    assert!(matches!(
        compute(&|m| m[1] = with(&m[1], NodeId(1), "x", mapped)),
        Err(LayoutError::DuplicateAddress { .. })
    ));
}

#[test]
fn layouts_that_cannot_be_are_refused_with_the_reason() {
    for partitions in [0, 3, 100, 8192] {
        let refused = compute(partitions, 3, &equal(3, 1));
        assert_eq!(refused, Err(LayoutError::Partitions { partitions }));
    }
    for n in [0, 8, 255] {
        assert_eq!(compute(64, n, &equal(1, 9)), Err(LayoutError::Copies { n }));
    }
    let lopsided = [(1, 100), (2, 100), (2, 100), (2, 100)];
    assert_eq!(
        compute(64, 4, &lopsided),
        Err(LayoutError::ZonesTooSmall { zones: 2, per_zone: 2, room: 3, n: 4 })
    );
    assert!(compute(64, 3, &lopsided).is_ok());
}

#[test]
fn the_order_of_fallbacks_and_the_content_id_never_change() {
    // Golden, from a stored table: buckets whose n exceeds the layout's take owners from here.
    let mut members = members(&[(0, 100), (0, 100), (1, 100), (1, 200), (2, 50)]);
    members.sort_by_key(Member::id);
    let owners = vec![0, 1, 1, 2, 2, 3, 3, 4, 4, 0, 0, 2, 1, 3, 2, 4];
    let record =
        LayoutRecord { cluster: CLUSTER, version: 9, partitions: 8, n: 2, members, owners };
    let layout = Layout::try_from(record).expect("valid");
    let index = |id: NodeId| layout.members().binary_search_by_key(&id, Member::id).expect("in");
    let rows: Vec<String> = partitions(&layout)
        .map(|p| layout.preference(p).map(|id| index(id).to_string()).collect())
        .collect();
    assert_eq!(rows.join(" "), "01234 12034 23041 34021 40123 02341 13204 24103");
    assert_eq!(layout.id().to_string(), "0bf05bbabe4e7a1b1a092b7824407200");
}
