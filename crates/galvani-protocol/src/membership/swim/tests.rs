//! Small clusters in a loop of virtual time: who is down for whom, and when.

use super::super::codec::{Alias, Members};
use super::{Outcome, Standing, Swim};
use crate::effect::Now;
use bytes::Bytes;
use foca::{Codec, Header, Member, Message, State};
use galvani_model::ids::NodeId;
use std::collections::{BTreeMap, BTreeSet};

const STEP: u64 = 1_000;
const SECOND: u64 = 1_000_000;

/// Nodes that hear each other within a millisecond, unless they are deaf.
struct Cluster {
    nodes: Vec<Swim>,
    unix_ms: Vec<u64>,
    /// Nodes that stand still: their datagrams wait.
    still: BTreeSet<usize>,
    /// Ordered pairs whose datagrams are lost.
    cut: BTreeSet<(usize, usize)>,
    inbox: BTreeMap<usize, Vec<(usize, Bytes)>>,
    changes: Vec<(u64, usize, NodeId, bool)>,
    now: u64,
}

fn id(node: usize) -> NodeId {
    NodeId(node as u128 + 1)
}

fn swim(node: usize, of: usize, seed: u64) -> Swim {
    Swim::new(id(node), (0..of).map(id).collect(), seed)
}

impl Cluster {
    fn new(size: usize, seed: u64) -> Cluster {
        let nodes = (0..size).map(|node| swim(node, size, seed * 100 + node as u64)).collect();
        let mut cluster = Cluster {
            nodes,
            unix_ms: vec![1_000_000; size],
            still: BTreeSet::new(),
            cut: BTreeSet::new(),
            inbox: BTreeMap::new(),
            changes: Vec::new(),
            now: 0,
        };
        cluster.run(2 * SECOND);
        cluster.changes.clear();
        cluster
    }

    fn run(&mut self, micros: u64) {
        let end = self.now + micros;
        while self.now < end {
            self.now += STEP;
            for node in 0..self.nodes.len() {
                if self.still.contains(&node) {
                    continue;
                }
                let now = Now { micros: self.now, unix_ms: self.unix_ms[node] + self.now / 1_000 };
                let mut out = Outcome::default();
                for (from, bytes) in self.inbox.remove(&node).unwrap_or_default() {
                    // A datagram for an earlier life is none of our business.
                    let _ = self.nodes[node].on_datagram(id(from), &bytes, now, &mut out);
                }
                self.nodes[node].poll(now, &mut out);
                for (to, bytes) in out.sends {
                    let to = to.0 as usize - 1;
                    if !self.cut.contains(&(node, to)) {
                        self.inbox.entry(to).or_default().push((node, bytes));
                    }
                }
                let changes = out.changes.into_iter();
                self.changes.extend(changes.map(|(who, alive)| (self.now, node, who, alive)));
            }
        }
    }

    fn standing(&self, of: usize, seen_by: usize) -> Standing {
        self.nodes[seen_by].standing(id(of))
    }

    fn all_alive(&self) -> bool {
        let size = self.nodes.len();
        (0..size).all(|by| (0..size).all(|of| self.standing(of, by) == Standing::Alive))
    }
}

#[test]
fn a_dead_node_is_down_for_all_within_two_seconds() {
    for size in [2, 3, 5, 7] {
        for seed in 0..20 {
            let mut cluster = Cluster::new(size, seed);
            cluster.run(seed * 37_000);
            assert!(cluster.all_alive() && cluster.changes.is_empty(), "{:?}", cluster.changes);
            cluster.still.insert(0);
            // Of more than three nodes the first to notice tells the others.
            cluster.run(if size <= 3 { 1_900_000 } else { 2_500_000 });
            for by in 1..size {
                assert_eq!(cluster.standing(0, by), Standing::Down, "size {size} seed {seed}");
            }
            assert!(cluster.changes.iter().all(|change| change.2 == id(0)), "only the dead one");
        }
    }
}

#[test]
fn half_a_second_of_stillness_is_refuted() {
    for seed in 0..40 {
        let mut cluster = Cluster::new(3, seed);
        cluster.run(seed * 17_000);
        cluster.still.insert(0);
        cluster.run(500_000);
        cluster.still.clear();
        cluster.run(3 * SECOND);
        assert_eq!(cluster.changes, vec![], "seed {seed}");
        assert!(cluster.all_alive());
    }
}

#[test]
fn a_paused_node_comes_back_and_blames_nobody() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, seed);
        cluster.still.insert(0);
        cluster.run(10 * SECOND);
        cluster.still.clear();
        cluster.run(2 * SECOND);
        assert!(cluster.all_alive(), "seed {seed}: {:?}", cluster.changes);
        let blamed = cluster.changes.iter().any(|&(_, by, _, alive)| by == 0 && !alive);
        assert!(!blamed, "seed {seed}: {:?}", cluster.changes);
    }
}

/// As over a change of the layout, which begins with nobody heard yet. Found by seed 36,942 of `sim`.
#[test]
fn one_that_stood_still_before_it_heard_anybody_blames_nobody() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(3, seed);
        cluster.cut = [(1, 0), (2, 0)].into();
        cluster.nodes[0] = swim(0, 3, seed * 100 + 77);
        cluster.unix_ms[0] += 1_000;
        cluster.run(SECOND);
        cluster.still.insert(0);
        cluster.run(10 * SECOND);
        cluster.changes.clear();
        cluster.still.clear();
        cluster.cut.clear();
        cluster.run(2 * SECOND);
        let blamed = cluster.changes.iter().any(|&(_, by, _, alive)| by == 0 && !alive);
        assert!(!blamed, "seed {seed}: {:?}", cluster.changes);
        assert!(cluster.all_alive(), "seed {seed}");
    }
}

#[test]
fn a_restarted_node_is_accepted_at_once_even_with_a_clock_set_back() {
    for back_ms in [0, 3_600_000] {
        let mut cluster = Cluster::new(3, 1);
        cluster.unix_ms = vec![10_000_000; 3];
        cluster.nodes[0] = swim(0, 3, 77);
        cluster.unix_ms[0] = 10_000_000 - back_ms;
        cluster.run(SECOND);
        cluster.nodes[0] = swim(0, 3, 78);
        cluster.unix_ms[0] = 1_000 + 10_000_000 - 2 * back_ms;
        cluster.run(SECOND);
        cluster.changes.clear();
        cluster.run(5 * SECOND);
        assert!(cluster.all_alive(), "{back_ms}");
        assert_eq!(cluster.changes, vec![], "{back_ms}");
    }
}

#[test]
fn a_node_that_died_before_another_started_is_down_for_that_one_too() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(3, seed);
        cluster.still.insert(2);
        cluster.run(3 * SECOND);
        cluster.nodes[0] = swim(0, 3, seed * 100 + 77);
        cluster.unix_ms[0] += 1_000;
        cluster.changes.clear();
        cluster.run(4 * SECOND);
        assert_eq!(cluster.standing(1, 0), Standing::Alive);
        assert_eq!(cluster.standing(2, 0), Standing::Alive, "it may be about to be heard");
        cluster.run(3 * SECOND);
        assert_eq!(cluster.standing(2, 0), Standing::Down, "seed {seed}");
        let told = cluster.changes.iter().filter(|change| (change.1, change.2) == (0, id(2)));
        assert_eq!(told.map(|change| change.3).collect::<Vec<_>>(), [false], "once");
        cluster.still.clear();
        cluster.run(3 * SECOND);
        assert!(cluster.all_alive(), "seed {seed}");
    }
}

#[test]
fn nodes_that_all_believed_to_be_alone_find_each_other_again() {
    let mut cluster = Cluster::new(3, 3);
    cluster.cut = (0..3).flat_map(|a| (0..3).map(move |b| (a, b))).collect();
    cluster.run(10 * SECOND);
    assert_eq!(cluster.standing(0, 1), Standing::Down);
    cluster.cut.clear();
    cluster.run(3 * SECOND);
    assert!(cluster.all_alive(), "{:?}", cluster.changes);
}

#[test]
fn a_node_cut_from_one_other_is_alive_by_the_word_of_a_third() {
    let mut cluster = Cluster::new(3, 4);
    cluster.cut = [(0, 1), (1, 0)].into();
    cluster.run(20 * SECOND);
    assert_eq!(cluster.changes, vec![]);
}

/// As when whoever raised the suspicion restarted before it was over: it is no news any more, and
/// nobody counts it down. Found by seed 22 of `memnet`.
#[test]
fn a_suspicion_whose_raiser_is_gone_is_told_to_the_suspect() {
    let mut cluster = Cluster::new(3, 1);
    let now = Now { micros: cluster.now, unix_ms: 1_000_000 };
    let suspect = *cluster.nodes[2].foca.as_ref().expect("it runs").identity();
    let suspicion = Member::new(suspect, 0, State::Suspect);
    let heard = cluster.nodes[1].drive(now, &mut Outcome::default(), |foca, runtime| {
        foca.apply_many([suspicion].into_iter(), false, runtime)
    });
    heard.expect("taken in");
    assert_eq!(cluster.standing(2, 1), Standing::Suspect);
    cluster.run(4 * SECOND);
    assert!(cluster.all_alive());
    assert_eq!(cluster.changes, vec![], "it never was down");
}

#[test]
fn nobody_speaks_for_another_and_strangers_are_dropped() {
    let mut node = swim(0, 3, 1);
    let (now, mut out) = (Now { micros: 1, unix_ms: 5 }, Outcome::default());
    let alias = |node| Alias { node, life: 1 };
    let ping = |src: NodeId, dst: NodeId| {
        let mut bytes = Vec::new();
        let message = Message::Announce;
        let header = Header { src: alias(src), src_incarnation: 0, dst: alias(dst), message };
        Members { known: BTreeSet::new() }.encode_header(&header, &mut bytes).expect("room");
        bytes
    };
    let mut say = |from, bytes: Vec<u8>| {
        let taken = node.on_datagram(from, &bytes, now, &mut out).is_ok();
        (taken, core::mem::take(&mut out.changes))
    };
    assert_eq!(say(id(1), ping(id(2), id(0))), (false, vec![]), "in another's name");
    assert_eq!(say(id(9), ping(id(9), id(0))), (false, vec![]), "a stranger");
    assert_eq!(say(id(1), ping(id(1), id(2))), (false, vec![]), "for another");
    assert_eq!(say(id(1), vec![1, 2, 3]), (false, vec![]), "cut short");
    assert_eq!(say(id(1), ping(id(1), id(0))), (true, vec![(id(1), true)]));
}
