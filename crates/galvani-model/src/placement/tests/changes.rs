//! Requests for changes: what comes of each, and what is refused.

use super::{compute, equal, loads, members, partitions};
use crate::ids::{NodeId, Shard};
use crate::placement::{Change, Layout, LayoutError, Member, MemberError, PlanError};

fn three_by_two() -> Layout {
    compute(64, 3, &equal(3, 2)).expect("feasible")
}

/// A node that is not in [`three_by_two`].
fn stranger(name: &str, zone: &str, weight: u32) -> Member {
    let lanes = vec!["10.7.7.7:7401".parse().expect("a literal address")];
    Member::new(NodeId(0x77), name, zone, weight, lanes).expect("valid")
}

#[test]
fn a_node_in_the_place_of_another_gets_its_rows_and_places() {
    let now = three_by_two();
    let old = now.member_named("n3").expect("there").clone();
    let new = stranger("n3", old.zone(), old.weight());
    let next = now.changed(&[Change::Replace { old: old.id(), new }]).expect("possible");
    for partition in partitions(&now) {
        let shard = Shard { partition, n: 3 };
        let expected: Vec<NodeId> = now
            .owners(shard)
            .iter()
            .map(|&node| if node == old.id() { NodeId(0x77) } else { node })
            .collect();
        assert_eq!(next.owners(shard)[..], expected[..]);
    }
    let moves = now.moves(&next);
    let owned = loads(&now, 3)[&old.id()];
    assert_eq!((moves.moved, moves.lower_bound), (owned, owned));
    assert_eq!((next.version(), moves.nodes.len()), (2, 7));
}

#[test]
fn a_replacement_must_be_like_the_node_it_replaces() {
    let now = three_by_two();
    let old = now.member_named("n3").expect("there").id();
    for new in [stranger("x", "z2", 100), stranger("x", "z1", 200)] {
        let refused = now.changed(&[Change::Replace { old, new }]);
        let unlike = PlanError::Unlike { name: "x".into(), zone: "z1".into(), weight: 100 };
        assert_eq!(refused, Err(unlike));
    }
}

#[test]
fn several_changes_are_made_at_once() {
    let now = three_by_two();
    let id = |name: &str| now.member_named(name).expect("there").id();
    let next = now
        .changed(&[
            Change::Replace { old: id("n0"), new: stranger("x", "z0", 100) },
            Change::Reweigh(id("n1"), 300),
        ])
        .expect("possible");
    assert_eq!(next.version(), 2);
    assert!(next.member(id("n0")).is_none());
    let loads = loads(&next, 3);
    assert_eq!((loads[&NodeId(0x77)], loads[&id("n1")]), (16, 48));
    // All that the new node owns moves, and what the other gained.
    assert_eq!(now.moves(&next).moved, 32);
    let added = now.changed(&[Change::Add(stranger("x", "z0", 100))]).expect("possible");
    assert_eq!(
        added,
        now.next([members(&equal(3, 2)), vec![stranger("x", "z0", 100)]].concat())
            .expect("possible")
    );
    let zoned = now.changed(&[Change::Zone(id("n1"), "z1".into())]).expect("possible");
    assert_eq!(zoned.member(id("n1")).map(Member::zone), Some("z1"));
}

#[test]
fn impossible_requests_are_refused_with_the_reason() {
    let now = three_by_two();
    let id = |name: &str| now.member_named(name).expect("there").id();
    let (n0, nobody) = (id("n0"), NodeId(5));
    let refused = |changes: &[Change]| now.changed(changes).expect_err("not possible");
    for change in [
        Change::Remove(nobody),
        Change::Reweigh(nobody, 5),
        Change::Zone(nobody, "a".into()),
        Change::Replace { old: nobody, new: stranger("x", "z0", 100) },
    ] {
        assert_eq!(refused(&[change]), PlanError::UnknownNode { node: nobody });
    }
    let member = now.member(n0).expect("there").clone();
    let already = PlanError::AlreadyMember { node: n0, name: "n0".into() };
    assert_eq!(refused(&[Change::Add(member)]), already);
    let twice = PlanError::NamedTwice { node: n0 };
    assert_eq!(refused(&[Change::Reweigh(n0, 5), Change::Remove(n0)]), twice);
    let name = LayoutError::DuplicateName { name: "n0".into() };
    assert_eq!(refused(&[Change::Add(stranger("n0", "z0", 1))]), PlanError::Layout(name));
    let weight = PlanError::Member(MemberError::Weight { weight: 0 });
    assert_eq!(refused(&[Change::Reweigh(n0, 0)]), weight);
    assert_eq!(refused(&[]), PlanError::NothingChanges);
    assert_eq!(refused(&[Change::Reweigh(n0, 100)]), PlanError::NothingChanges);
    assert_eq!(refused(&[Change::Zone(n0, "z0".into())]), PlanError::NothingChanges);
    let all_but_two: Vec<Change> =
        ["n0", "n1", "n2", "n3"].iter().map(|name| Change::Remove(id(name))).collect();
    let few = PlanError::Layout(LayoutError::TooFewNodes { nodes: 2, n: 3 });
    assert_eq!(refused(&all_but_two), few);
    // Two zones, at most two copies in each: one node cannot hold two.
    let lopsided = [Change::Remove(id("n0")), Change::Zone(id("n1"), "z1".into())];
    assert!(now.changed(&lopsided).is_ok());
    let four = compute(64, 4, &equal(2, 2)).expect("feasible");
    let small = four.changed(&[Change::Zone(four.members()[0].id(), "z9".into())]);
    assert!(small.is_ok(), "three zones with at most two copies each: {small:?}");
    let five = compute(64, 4, &[(0, 100), (0, 100), (1, 100), (1, 100), (1, 100)]);
    let five = five.expect("feasible");
    let leaver = five.members().iter().find(|m| m.zone() == "z0").expect("there").id();
    let small = LayoutError::ZonesTooSmall { zones: 2, per_zone: 2, room: 3, n: 4 };
    assert_eq!(five.changed(&[Change::Remove(leaver)]), Err(PlanError::Layout(small)));
}
