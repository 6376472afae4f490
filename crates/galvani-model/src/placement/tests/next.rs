//! Laws of the layout after another one, over drawn changes, and the layouts of the design.

use super::oracle::{fewest_of_all_tables, has_a_cheaper_cycle};
use super::{CLUSTER, compute, equal, fullest_zone, loads, members, partitions};
use crate::ids::{ClusterId, NodeId, Shard};
use crate::placement::layout::{problem_of, shares};
use crate::placement::spread::Spread;
use crate::placement::{Layout, LayoutError, LayoutRecord, Member, Moves};
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
use proptest::test_runner::{Config, TestCaseError};
use std::collections::{BTreeMap, BTreeSet};

/// What becomes of the nodes: (zone, weight) before and after, `None` where it is not there.
type Fate = (Option<(u8, u32)>, Option<(u8, u32)>);
type Fates = Vec<Fate>;

/// Partitions, copies, fates of at most `nodes` nodes in at most `zones` zones.
fn drawn_changes(bits: u32, nodes: usize, zones: u8) -> impl Strategy<Value = (u16, u8, Fates)> {
    let node = move || (0..zones, prop::sample::select(vec![1u32, 50, 100, 100, 100, 250, 1000]));
    let fate = (node(), node(), 0u8..10).prop_map(|(old, new, fate)| match fate {
        0 => (None, Some(new)),
        1 => (Some(old), None),
        2 => (Some(old), Some((old.0, new.1))),
        3 => (Some(old), Some((new.0, old.1))),
        _ => (Some(old), Some(old)),
    });
    let fates = prop::collection::vec(fate, 1..nodes);
    (0..bits, 1u8..=4, fates).prop_map(|(bits, n, fates)| (1 << bits, n, fates))
}

/// The same layout with any other table: uneven, zones together. Stored tables may be such.
fn scrambled(layout: Layout, seed: Option<u64>) -> Layout {
    let Some(seed) = seed else { return layout };
    let mut spread = Spread::of(ClusterId(seed.into()));
    let mut record = layout.record().clone();
    let mut nodes: Vec<u16> = (0..record.members.len() as u16).collect();
    for row in record.owners.chunks_mut(usize::from(record.n)) {
        spread.shuffle(&mut nodes);
        row.copy_from_slice(&nodes[..row.len()]);
    }
    Layout::try_from(record).expect("distinct members")
}

/// Both sides of drawn fates, or `None` where either cannot be.
fn both(
    q: u16,
    n: u8,
    fates: &Fates,
    seed: Option<u64>,
) -> Result<Option<(Layout, Layout)>, TestCaseError> {
    let all =
        members(&fates.iter().map(|fate| fate.0.or(fate.1).expect("one")).collect::<Vec<_>>());
    let side = |pick: fn(&Fate) -> Option<(u8, u32)>| {
        let there = all.iter().zip(fates).filter_map(move |(member, fate)| {
            let (zone, weight) = pick(fate)?;
            let member = member.clone().with_weight(weight).expect("valid");
            Some(member.with_zone(format!("z{zone}")).expect("valid"))
        });
        there.collect::<Vec<Member>>()
    };
    let refused = |error: &LayoutError| {
        matches!(
            error,
            LayoutError::NoMembers
                | LayoutError::TooFewNodes { .. }
                | LayoutError::ZonesTooSmall { .. }
        )
    };
    let now = match Layout::compute(CLUSTER, 7, q, n, side(|fate| fate.0)) {
        Ok(now) => now,
        Err(error) if refused(&error) => return Ok(None),
        Err(error) => return Err(TestCaseError::fail(error.to_string())),
    };
    let now = scrambled(now, seed);
    let after = side(|fate| fate.1);
    let fresh = Layout::compute(CLUSTER, 8, q, n, after.clone());
    match (now.next(after), fresh) {
        (Ok(next), Ok(_)) => Ok(Some((now, next))),
        (Err(error), Err(other)) if error == other && refused(&error) => Ok(None),
        (next, fresh) => Err(TestCaseError::fail(format!("{next:?} but {fresh:?}"))),
    }
}

fn owners(layout: &Layout) -> Vec<Vec<NodeId>> {
    let n = layout.n();
    partitions(layout).map(|p| layout.owners(Shard { partition: p, n }).to_vec()).collect()
}

proptest! {
    #![proptest_config(Config::with_cases(400))]

    #[test]
    fn the_next_layout_keeps_every_promise(
        (q, n, fates) in drawn_changes(7, 14, 5),
        seed in any::<Option<u64>>(),
    ) {
        let Some((now, next)) = both(q, n, &fates, seed)? else { return Ok(()) };
        prop_assert_eq!(next.record().check(), Ok(()));
        prop_assert_eq!((next.version(), next.cluster()), (8, CLUSTER));
        // Exactly the shares, and those within a slot of the ones of a layout from nothing.
        let problem = problem_of(q, n, next.members());
        let loads_now = loads(&now, n);
        let held: Vec<usize> = next.members().iter()
            .map(|m| loads_now.get(&m.id()).copied().unwrap_or(0)).collect();
        let exact = shares(&problem, &held).expect("it was computed");
        let fresh = shares(&problem, &vec![0; held.len()]).expect("it was computed");
        for ((member, exact), fresh) in next.members().iter().zip(exact).zip(fresh) {
            prop_assert_eq!(loads(&next, n)[&member.id()], exact);
            prop_assert!(exact.abs_diff(fresh) <= 1);
        }
        for (before, after) in owners(&now).iter().zip(owners(&next)) {
            prop_assert_eq!(after.iter().collect::<BTreeSet<_>>().len(), usize::from(n));
            prop_assert!(fullest_zone(&next, &after) <= problem.per_zone());
            // Who stays keeps its place.
            for (place, node) in before.iter().enumerate() {
                prop_assert!(!after.contains(node) || after[place] == *node);
            }
        }
        let moves = now.moves(&next);
        prop_assert!(moves.apart && moves.moved >= moves.lower_bound);
        check_moves(&now, &next, &moves)?;
        // The same again, and once more nothing.
        let mut backwards = next.members().to_vec();
        backwards.reverse();
        prop_assert_eq!(&now.next(backwards).expect("it was computed"), &next);
        let still = next.next(next.members().to_vec()).expect("it was computed");
        prop_assert_eq!(&still.record().owners, &next.record().owners);
    }

    #[test]
    fn no_exchange_of_owners_would_move_less(
        (q, n, fates) in drawn_changes(6, 12, 5),
        seed in any::<Option<u64>>(),
    ) {
        let Some((now, next)) = both(q, n, &fates, seed)? else { return Ok(()) };
        prop_assert!(!has_a_cheaper_cycle(&now, &next));
    }

    #[test]
    fn no_other_table_moves_less(
        (q, n, fates) in drawn_changes(4, 6, 3),
        seed in any::<Option<u64>>(),
    ) {
        let Some((now, next)) = both(q, n.min(3), &fates, seed)? else { return Ok(()) };
        prop_assert_eq!(now.moves(&next).moved, fewest_of_all_tables(&now, &next));
    }
}

/// The counts of [`Moves`] against the two tables.
fn check_moves(now: &Layout, next: &Layout, moves: &Moves) -> Result<(), TestCaseError> {
    let (before, after) = (loads(now, now.n()), loads(next, next.n()));
    for node in &moves.nodes {
        let id = node.member.id();
        prop_assert_eq!(node.before, before.get(&id).copied().unwrap_or(0));
        prop_assert_eq!(node.after, after.get(&id).copied().unwrap_or(0));
        prop_assert_eq!(node.before + node.incoming, node.after + node.outgoing);
    }
    prop_assert_eq!(moves.nodes.iter().map(|node| node.incoming).sum::<usize>(), moves.moved);
    let mut rebuilt: Vec<BTreeSet<NodeId>> =
        owners(now).into_iter().map(|row| row.into_iter().collect()).collect();
    for change in &moves.partitions {
        let set = &mut rebuilt[usize::from(change.partition.0)];
        change.outgoing.iter().for_each(|node| assert!(set.remove(node)));
        change.incoming.iter().for_each(|node| assert!(set.insert(*node)));
    }
    let wanted: Vec<BTreeSet<NodeId>> =
        owners(next).into_iter().map(|row| row.into_iter().collect()).collect();
    prop_assert_eq!(rebuilt, wanted);
    Ok(())
}

/// The layouts of `docs/proof.md`: partitions, n, zones, nodes in each; then what a joining node in
/// zone 0 moves, and what the first node moves when it leaves (`None`: its zone would be empty).
const LAYOUTS: [(u16, u8, u8, u8, usize, Option<usize>); 8] = [
    (64, 3, 3, 1, 32, None),
    (64, 3, 3, 2, 21, Some(32)),
    (256, 3, 3, 2, 85, Some(128)),
    (256, 3, 3, 4, 51, Some(64)),
    (256, 3, 5, 2, 69, Some(77)),
    (256, 3, 1, 5, 128, Some(154)),
    (256, 3, 2, 3, 109, Some(128)),
    (1024, 3, 4, 5, 146, Some(154)),
];

#[test]
fn joins_and_leaves_reach_the_lower_bound_in_the_layouts_of_the_design() {
    for (q, n, zones, per_zone, join_moves, leave_moves) in LAYOUTS {
        let nodes = equal(zones, per_zone);
        let now = compute(q, n, &nodes).expect("feasible");
        let title = format!("Q={q} n={n} zones={zones}x{per_zone}");
        let mut more = nodes.clone();
        more.push((0, 100));
        let joined = now.next(members(&more)).expect("feasible");
        let moves = now.moves(&joined);
        println!("{title}: join moved {} bound {}", moves.moved, moves.lower_bound);
        assert_eq!(moves.moved, moves.lower_bound, "{title} join");
        assert!(moves.moved.abs_diff(join_moves) <= 1, "{title} join moved {}", moves.moved);
        // Who left is the node that owns most: the design's owned 154 of 153..=154, for one.
        let loads = loads(&now, n);
        let all = members(&nodes);
        let first = all.iter().filter(|m| m.zone() == "z0").max_by_key(|m| loads[&m.id()]);
        let leaver = first.expect("zone 0 has nodes").id();
        let stay: Vec<Member> = all.iter().filter(|m| m.id() != leaver).cloned().collect();
        let left = now.next(stay);
        match leave_moves {
            None => assert_eq!(left, Err(LayoutError::TooFewNodes { nodes: 2, n: 3 })),
            Some(expected) => {
                let left = left.expect("feasible");
                let moves = now.moves(&left);
                println!("{title}: leave moved {} bound {}", moves.moved, moves.lower_bound);
                assert_eq!((moves.moved, moves.lower_bound), (expected, expected), "{title}");
            }
        }
    }
}

#[test]
fn first_places_stay_even_through_joins_and_leaves() {
    // Places of owners that stay are given: what can be chosen is who takes whose place.
    for (q, zones, per_zone) in [(256, 3, 4), (256, 5, 2), (256, 1, 5), (1024, 4, 5)] {
        let mut nodes = equal(zones, per_zone);
        let mut layout = compute(q, 3, &nodes).expect("feasible");
        for round in 0..4 {
            nodes.push((round % zones, 100));
            layout = layout.next(members(&nodes)).expect("feasible");
            assert!(first_places_off(&layout) < 1.5, "Q={q} {zones}x{per_zone} join {round}");
        }
        let mut all = members(&nodes);
        for round in 0..4 {
            all.remove(1);
            layout = layout.next(all.clone()).expect("feasible");
            assert!(first_places_off(&layout) < 1.5, "Q={q} {zones}x{per_zone} leave {round}");
        }
    }
}

/// How far at most a node's first places are from a third of what it owns.
fn first_places_off(layout: &Layout) -> f64 {
    let (first, all) = (loads(layout, 1), loads(layout, 3));
    let off = |(id, first): (&NodeId, &usize)| (*first as f64 - all[id] as f64 / 3.0).abs();
    first.iter().map(off).fold(0.0, f64::max)
}

#[test]
fn what_moves_is_spread_over_the_partitions() {
    // Three nodes join twelve: a fifth of 768 replicas moves, no partition loses two owners.
    let now = compute(256, 3, &equal(1, 12)).expect("feasible");
    let next = now.next(members(&equal(1, 15))).expect("feasible");
    let moves = now.moves(&next);
    assert_eq!((moves.moved, moves.partitions.len()), (153, 153));
    // The same where zones are kept apart, and first places have to be evened out.
    let now = compute(256, 3, &equal(5, 2)).expect("feasible");
    let mut more = equal(5, 2);
    more.extend([(0, 100), (1, 100)]);
    let moves = now.moves(&now.next(members(&more)).expect("feasible"));
    assert!(moves.moved == 128 && moves.partitions.len() > 115, "{}", moves.partitions.len());
}

#[test]
fn roundings_stay_where_they_are() {
    // 256 · 3 slots over seven nodes: 109.7 each, so two of them have one less.
    let problem = problem_of(256, 3, &members(&[(0, 100); 7]));
    let held = [110, 110, 109, 109, 110, 110, 110];
    assert_eq!(shares(&problem, &held), Ok(held.to_vec()));
    assert_eq!(shares(&problem, &[0; 7]), Ok(vec![110, 110, 110, 110, 110, 109, 109]));
}

#[test]
fn every_node_still_shares_partitions_with_every_possible_peer() {
    for (zones, per_zone) in [(3, 3), (1, 9), (5, 2)] {
        let mut nodes = equal(zones, per_zone);
        let mut layout = compute(256, 3, &nodes).expect("feasible");
        for round in 0..zones.max(3) {
            nodes.push((round % zones, 100));
            layout = layout.next(members(&nodes)).expect("feasible");
        }
        let all = layout.members().len();
        let mut peers: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
        for owners in owners(&layout) {
            for &node in &owners {
                peers.entry(node).or_default().extend(owners.iter().filter(|o| **o != node));
            }
        }
        for member in layout.members() {
            let others = layout.members().iter().filter(|m| m.zone() != member.zone());
            let possible = if zones >= 3 { others.count() } else { all - 1 };
            assert_eq!(peers[&member.id()].len(), possible, "{zones}x{per_zone}");
        }
        // Nor do two nodes share far more than others do: less than twice the mean of all pairs.
        let pairs: usize = peers.values().map(BTreeSet::len).sum::<usize>() / 2;
        let together = |a: NodeId, b: NodeId| {
            owners(&layout).iter().filter(|row| row.contains(&a) && row.contains(&b)).count()
        };
        for (&node, peers) in &peers {
            assert!(peers.iter().all(|&peer| together(node, peer) * pairs < 2 * 256 * 3));
        }
    }
}

#[test]
fn addresses_and_names_move_nothing() {
    let now = compute(64, 3, &equal(3, 2)).expect("feasible");
    let moved = now.members().iter().map(|m| {
        let lanes = vec![([10, 9, 9, 9], 1000 + (m.id().0 % 60_000) as u16).into()];
        Member::new(m.id(), format!("x{}", m.name()), m.zone(), m.weight(), lanes).expect("valid")
    });
    let next = now.next(moved.collect()).expect("feasible");
    assert_eq!(next.record().owners, now.record().owners);
    assert_eq!((next.version(), now.moves(&next).moved), (2, 0));
    assert_ne!(next.id(), now.id());
}

#[test]
fn a_reweighed_node_moves_the_difference_and_back_again() {
    let now = compute(256, 3, &equal(4, 3)).expect("feasible");
    let mut heavier = now.members().to_vec();
    heavier[5] = heavier[5].clone().with_weight(200).expect("valid");
    let next = now.next(heavier).expect("feasible");
    let moves = now.moves(&next);
    assert_eq!((moves.moved, moves.lower_bound), (54, 54));
    let back = next.next(now.members().to_vec()).expect("feasible");
    assert_eq!(next.moves(&back).moved, next.moves(&back).lower_bound);
    assert_eq!(loads(&back, 3), loads(&now, 3));
}

#[test]
fn a_node_that_changes_zone_moves_no_more_than_zones_forbid() {
    // Three zones for three copies: all it owned beside owners of its new zone must leave.
    let nodes = [(0, 100), (0, 100), (1, 100), (1, 100), (2, 100), (2, 100), (2, 100)];
    let now = compute(256, 3, &nodes).expect("feasible");
    let mut after = nodes;
    after[6].0 = 1;
    let next = now.next(members(&after)).expect("feasible");
    let moves = now.moves(&next);
    assert!(moves.apart && moves.moved >= moves.lower_bound && moves.lower_bound >= 85);
    assert!(!has_a_cheaper_cycle(&now, &next));
}

#[test]
fn two_nodes_that_change_zones_move_what_zones_forbid_to_stay() {
    // Shares stay as they are: all that moves is the second copy of a partition in one zone.
    let nodes = [(0, 100), (0, 100), (1, 100), (1, 100), (2, 100), (2, 100)];
    let now = compute(256, 3, &nodes).expect("feasible");
    let mut after = nodes;
    (after[0].0, after[2].0) = (1, 0);
    let next = now.next(members(&after)).expect("feasible");
    let moves = now.moves(&next);
    assert_eq!(moves.moved, moves.lower_bound);
    assert!(moves.apart && moves.moved > 100);
    assert_eq!(loads(&next, 3), loads(&now, 3));
}

#[test]
fn zones_that_force_a_share_are_named() {
    let nodes = [(0, 100), (0, 100), (1, 100), (1, 100), (2, 100)];
    let now = compute(64, 3, &nodes).expect("feasible");
    let moves = now.moves(&now);
    let told: Vec<(&str, usize, usize, bool)> =
        moves.forced.iter().map(|f| (f.zone.as_str(), f.nodes, f.copies, f.more)).collect();
    assert_eq!(told, [("z0", 2, 1, false), ("z1", 2, 1, false), ("z2", 1, 1, true)]);
    assert_eq!((moves.moved, moves.fullest_permille), (0, 1666));
    let even = compute(64, 3, &equal(3, 2)).expect("feasible");
    assert_eq!(even.moves(&even).forced, []);
    assert_eq!(even.moves(&even).fullest_permille, 1000);
}

#[test]
fn fallbacks_that_stay_keep_their_order_within_a_zone() {
    // Rendezvous order: in one zone a new node is only put in between; with zones taking turns the
    // order within each zone stands, while a zone with one node more comes later with the others.
    for zones in [1, 3] {
        let nodes = equal(zones, 4);
        let mut more = nodes.clone();
        more.push((0, 100));
        let now = compute(64, 3, &nodes).expect("feasible");
        let next = now.next(members(&more)).expect("feasible");
        let n = usize::from(now.n());
        for partition in partitions(&now) {
            let (before, after): (Vec<NodeId>, Vec<NodeId>) =
                (now.preference(partition).collect(), next.preference(partition).collect());
            for zone in 0..zones {
                let zone = format!("z{zone}");
                let of = |list: &[NodeId]| -> Vec<NodeId> {
                    let stays = |node: &&NodeId| {
                        before[n..].contains(node)
                            && after[n..].contains(node)
                            && next.member(**node).is_some_and(|member| member.zone() == zone)
                    };
                    list[n..].iter().filter(stays).copied().collect()
                };
                assert_eq!(of(&before), of(&after));
            }
        }
    }
}

#[test]
fn the_next_layout_is_the_same_on_every_machine() {
    // Golden: two nodes that plan must come to the same bytes, whatever they run on.
    let nodes = equal(3, 2);
    let now = compute(16, 3, &nodes).expect("feasible");
    let mut more = nodes.clone();
    more.push((1, 250));
    let next = now.next(members(&more)).expect("feasible");
    assert_eq!(next.id().to_string(), "1fb3ec4615a1e81eb190cf360aab679f");
}

#[test]
fn a_hundred_nodes_with_many_partitions_are_planned() {
    let now = compute(1024, 3, &equal(5, 20)).expect("feasible");
    let mut more = equal(5, 20);
    more.extend(equal(5, 4));
    let next = now.next(members(&more)).expect("feasible");
    let moves = now.moves(&next);
    assert_eq!(moves.moved, moves.lower_bound);
}

#[test]
fn nothing_follows_the_last_version() {
    let now = compute(4, 1, &[(0, 100), (0, 100)]).expect("feasible");
    let record = LayoutRecord { version: u64::MAX, ..now.record().clone() };
    let last = Layout::try_from(record).expect("valid");
    let refused = last.next(last.members().to_vec());
    assert_eq!(refused, Err(LayoutError::LastVersion { version: u64::MAX }));
}

#[test]
fn other_clusters_draw_other_tables() {
    let at = |cluster| {
        let now = Layout::compute(ClusterId(cluster), 1, 64, 3, members(&equal(1, 6)));
        let mut more = members(&equal(1, 7));
        more.sort_by_key(Member::id);
        now.expect("feasible").next(more).expect("feasible").record().owners.clone()
    };
    assert_ne!(at(1), at(2));
}
