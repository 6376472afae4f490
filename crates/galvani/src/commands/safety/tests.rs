//! Cases of what can be lost: nodes away, cut off, behind, damaged.

use super::{Flaw, Safety, Seen, Sight};
use galvani_client::NodeId;

/// Nodes 1 to `nodes`, all of which answer and reach each other.
fn sight(nodes: u128) -> Sight {
    Sight((1..=nodes).map(|node| (NodeId(node), Seen::default())).collect())
}

/// `from` cannot reach `to`.
fn cut(sight: &mut Sight, from: u128, to: &[u128]) {
    let seen = sight.0.get_mut(&NodeId(from)).expect("a node that answers");
    seen.down.extend(to.iter().copied().map(NodeId));
}

fn flaw(sight: &mut Sight, node: u128, flaw: Flaw) {
    sight.0.get_mut(&NodeId(node)).expect("a node that answers").flaw = Some(flaw);
}

/// Four nodes, three copies, all sets of owners; or three nodes with one set.
fn counted(nodes: u128, sight: &Sight) -> Safety {
    let sets: Vec<Vec<NodeId>> = match nodes {
        4 => vec![vec![1, 2, 3], vec![2, 3, 4], vec![3, 4, 1], vec![4, 1, 2]],
        _ => vec![(1..=nodes).collect()],
    }
    .into_iter()
    .map(|set| set.into_iter().map(NodeId).collect())
    .collect();
    let mut safety = Safety::counted([3, 2, 2], sets.into_iter(), sight);
    let flawed = sight.0.iter().filter_map(|(id, seen)| Some((format!("n{}", id.0), seen.flaw?)));
    safety.flawed = flawed.collect();
    safety
}

fn figures(safety: &Safety) -> [usize; 3] {
    [safety.whole, safety.degraded, safety.lost]
}

#[test]
fn all_well_and_one_away() {
    let mut four = sight(4);
    let safety = counted(4, &four);
    assert_eq!(safety.words(), "any 1 node at r=2 w=2");
    assert_eq!(figures(&safety), [4, 0, 0]);
    four.0.remove(&NodeId(4));
    let safety = counted(4, &four);
    assert_eq!(safety.words(), "NOTHING more at r=2 w=2");
    assert_eq!(figures(&safety), [1, 3, 0]);
    four.0.remove(&NodeId(3));
    let safety = counted(4, &four);
    assert_eq!(safety.words(), "r=2 w=2 fails now for 50 % of partitions");
    assert_eq!(safety.lost(), 2);
}

#[test]
fn two_lost_disks_of_four_leave_one_copy() {
    let mut four = sight(4);
    flaw(&mut four, 1, Flaw::Lacks);
    flaw(&mut four, 2, Flaw::Lacks);
    let safety = counted(4, &four);
    assert_eq!(safety.words(), "NOTHING more at r=2 w=2 while n1 n2 lack something");
    assert_eq!(
        (safety.nodes(), figures(&safety)),
        (0, [4, 0, 0]),
        "all answer and reach each other"
    );
}

#[test]
fn one_that_lacks_something_or_is_damaged_is_no_copy() {
    let mut four = sight(4);
    flaw(&mut four, 2, Flaw::Lacks);
    let safety = counted(4, &four);
    assert_eq!(safety.words(), "NOTHING more at r=2 w=2 while n2 lacks something");
    assert_eq!(safety.flawed().collect::<Vec<_>>(), ["n2"]);
    flaw(&mut four, 4, Flaw::Damaged);
    let words = counted(4, &four).words();
    assert_eq!(words, "NOTHING more at r=2 w=2 while n2 lacks something and n4 has damage");
}

#[test]
fn a_node_that_answers_and_is_cut_off_is_not_counted() {
    for nodes in [3, 4] {
        let mut cluster = sight(nodes);
        let others: Vec<u128> = (2..=nodes).collect();
        cut(&mut cluster, 1, &others);
        for other in others {
            cut(&mut cluster, other, &[1]);
        }
        let safety = counted(nodes, &cluster);
        assert_eq!(safety.words(), "NOTHING more at r=2 w=2", "{nodes} nodes");
        assert_eq!(safety.lost(), 0);
        assert!(safety.degraded > 0, "{safety:?}");
        assert!(cluster.is_alone(NodeId(1)) && !cluster.is_alone(NodeId(2)));
    }
}

#[test]
fn one_way_is_enough_for_a_cut() {
    // Only the others say it, and only the node itself says it.
    let mut heard = sight(3);
    cut(&mut heard, 2, &[1]);
    cut(&mut heard, 3, &[1]);
    let mut deaf = sight(3);
    cut(&mut deaf, 1, &[2, 3]);
    for cluster in [heard, deaf] {
        let safety = counted(3, &cluster);
        assert_eq!(safety.words(), "NOTHING more at r=2 w=2");
        assert_eq!(figures(&safety), [0, 1, 0]);
        assert!(cluster.is_alone(NodeId(1)));
    }
}

#[test]
fn one_lost_link_leaves_nothing_to_spare() {
    // n3 reaches both: r and w are met. Without it, n1 and n2 are of no use to each other.
    let mut three = sight(3);
    cut(&mut three, 1, &[2]);
    let safety = counted(3, &three);
    assert_eq!(safety.words(), "NOTHING more at r=2 w=2");
    assert_eq!(figures(&safety), [0, 1, 0]);
}

#[test]
fn all_cut_from_each_other_meet_nothing() {
    let mut three = sight(3);
    cut(&mut three, 1, &[2, 3]);
    cut(&mut three, 2, &[3]);
    assert_eq!(counted(3, &three).words(), "r=2 w=2 fails now for 100 % of partitions");
}

#[test]
fn while_owners_change_writes_need_the_old_ones_and_the_new_ones() {
    let mut four = sight(4);
    four.0.remove(&NodeId(4));
    let of = |set: [u128; 3]| {
        let owners = set.map(NodeId).to_vec();
        Safety::counted([3, 2, 2], std::iter::once(owners), &four)
    };
    let (old, new) = (of([1, 2, 3]), of([2, 3, 4]));
    assert_eq!((old.words().as_str(), figures(&old)), ("any 1 node at r=2 w=2", [1, 0, 0]));
    for both in [old.clone().worse(new.clone()), new.worse(old)] {
        assert_eq!((both.words().as_str(), figures(&both)), ("NOTHING more at r=2 w=2", [0, 1, 0]));
    }
}
