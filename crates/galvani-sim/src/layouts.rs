//! Changes of the layout: who asks for which, and what all nodes must agree on.
//!
//! Somebody asks some member for another layout, now and then two members at once, or for an end of the
//! change under way; all else is the lanes' own doing. Each epoch has one state, whoever adopts it.
//! Next to read: `faults.rs`, which breaks what goes on meanwhile; `oracles/overlap.rs`.

use crate::history::Purpose;
use crate::node::{Life, Node};
use crate::packet::{Event, LaneAt};
use crate::rng::Rng;
use crate::world::{World, member};
use galvani_model::ids::Shard;
use galvani_model::placement::{Layout, LayoutState, Member, Pace};
use galvani_model::version::Dot;
use galvani_protocol::Input;
use galvani_wire::Message;
use galvani_wire::layout::{ChangeLayout, Wish};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How long an administrator waits, in milliseconds.
const TIMEOUT_MS: u32 = 1_500;

/// What was decided in a run.
pub(crate) struct Layouts {
    dice: Rng,
    /// For faults at the borders of epochs only.
    borders: Rng,
    /// The state of each epoch that some node has adopted.
    pub(crate) states: BTreeMap<u64, Arc<LayoutState>>,
}

impl Layouts {
    pub(crate) fn new(seed: u64, founding: Arc<LayoutState>) -> Layouts {
        let (dice, borders) = (Rng::new(seed, 8), Rng::new(seed, 9));
        Layouts { dice, borders, states: BTreeMap::from([(1, founding)]) }
    }

    /// The state that every cluster file names.
    pub(crate) fn founding(&self) -> Arc<LayoutState> {
        self.states[&1].clone()
    }

    /// Whether anything was ever decided.
    pub(crate) fn have_changed(&self) -> bool {
        self.states.len() > 1
    }
}

impl World {
    /// A node writes down what the cluster has decided on.
    pub(crate) fn adopt_layout(&mut self, node: usize, state: Arc<LayoutState>) {
        let epoch = state.epoch();
        self.trace.note(self.now, &[21, node as u64, epoch], || {
            let phase = state.transition().map(|change| change.phase);
            let members = state.members().count();
            format!("n{node} adopts epoch {epoch} ({phase:?}, {members} members)")
        });
        let known = self.layouts.states.entry(epoch).or_insert_with(|| state.clone());
        if *known != state {
            let what = format!("n{node} adopts another state as epoch {epoch} than others did");
            return self.violate("one_layout_an_epoch", what);
        }
        if self.nodes[node].layout.epoch() >= epoch {
            return;
        }
        self.coverage.add("layout.adopted", 1);
        self.nodes[node].layout = state.clone();
        if self.layout.epoch() < epoch {
            match state.transition() {
                Some(_) => self.coverage.add("layout.phases", 1),
                None => self.coverage.add("layout.changed", 1),
            }
            self.layout = state;
            for key in 0..self.keys.len() {
                let owners = self.layout.owners(self.keys[key].shard);
                self.keys[key].owners = owners.iter().map(|id| self.by_id[id]).collect();
            }
        }
        self.renew_topology(node);
        if self.aims_at_borders() && self.layouts.borders.chance(250) {
            let wait = self.layouts.borders.pick(&[1, 1_000, 30_000]);
            let boot = self.nodes[node].boot;
            self.queue.push(self.now + wait, Event::Border { node, boot });
        }
    }

    /// Lets every lane of a node know what the node has written down: as the real node, in the order
    /// in which it was.
    pub(crate) fn renew_topology(&mut self, node: usize) {
        let topology = self.next_topology_of(node);
        for lane in 0..self.nodes[node].lanes.len() {
            let (at, boot) = (LaneAt { node, lane }, self.nodes[node].boot);
            let wait = self.adoption_delay();
            let slot = &mut self.nodes[node].lanes[lane];
            slot.told.push_back(topology.clone());
            match wait {
                0 if slot.told.len() == 1 => self.adopt_next(at, boot),
                wait => self.queue.push(self.now + wait, Event::Adopt { at, boot }),
            }
        }
    }

    /// A lane hears the next of what it was told.
    pub(crate) fn adopt_next(&mut self, at: LaneAt, boot: u64) {
        let now = self.now_of(at.node);
        let node = &mut self.nodes[at.node];
        if node.boot != boot {
            return;
        }
        let Some(slot) = node.lanes.get_mut(at.lane) else { return };
        if slot.writing.is_some() {
            self.queue.push(self.now + 1_000, Event::Adopt { at, boot });
            return;
        }
        let Some(topology) = slot.told.pop_front() else { return };
        slot.lane.handle(Input::Topology(topology), now, &mut slot.store);
        self.schedule_tick(at, self.now + 1);
    }

    fn aims_at_borders(&self) -> bool {
        !self.calm && self.profile.changes.is_some_and(|changes| changes.borders)
    }

    /// How long a lane goes on by the epoch before, in microseconds: as one that has much to do.
    pub(crate) fn adoption_delay(&mut self) -> u64 {
        if !self.aims_at_borders() || !self.layouts.borders.chance(200) {
            return 0;
        }
        let longest = self.layouts.borders.pick(&[5_000, 100_000, 1_500_000]);
        self.layouts.borders.between(1, longest)
    }

    /// A node has just gone to the next epoch: it, or another one that may not have, is stopped for so
    /// long that others may be two phases on, dies, or is cut off.
    pub(crate) fn at_border(&mut self, node: usize, boot: u64) {
        let up = self.nodes_that(Life::Up);
        if !self.aims_at_borders() || self.nodes[node].boot != boot || !up.contains(&node) {
            return;
        }
        self.coverage.add("fault.at_border", 1);
        let dice = &mut self.layouts.borders;
        let longest = dice.pick(&[100_000, 1_000_000, 6_000_000]);
        let (wait, other) = (dice.between(1_000, longest), dice.pick(&up));
        match dice.below(6) {
            0 => self.pause_for(node, wait),
            1 | 2 => self.pause_for(other, wait),
            3 => {
                self.crash(node, "fault.crash");
                self.queue.push(self.now + wait, Event::Start { node });
            }
            4 => {
                self.crash(other, "fault.crash");
                self.queue.push(self.now + wait, Event::Start { node: other });
            }
            _ => {
                let others = (0..self.nodes.len()).filter(|at| *at != node);
                let pairs: Vec<_> = others.flat_map(|at| [(node, at), (at, node)]).collect();
                self.cut_links(&pairs);
                self.queue.push(self.now + wait, Event::Heal { pairs });
            }
        }
    }

    /// Somebody asks for another layout, or two do.
    pub(crate) fn change_layout(&mut self, left: u32) {
        if self.calm {
            return;
        }
        let askers = if self.layouts.dice.chance(250) { 2 } else { 1 };
        for _ in 0..askers {
            self.ask_for_layout();
        }
        if left > 1 {
            let pace = self.profile.changes.map_or(1_000_000, |changes| changes.pace);
            let wait = self.layouts.dice.between(pace / 2, pace * 2);
            self.queue.push(self.now + wait, Event::ChangeLayout { left: left - 1 });
        }
    }

    fn ask_for_layout(&mut self) {
        let is_member = |node: &usize| {
            let node = &self.nodes[*node];
            !node.is_down() && node.layout.current().member(node.id).is_some()
        };
        let members: Vec<usize> = (0..self.nodes.len()).filter(is_member).collect();
        if members.is_empty() {
            return;
        }
        let node = self.layouts.dice.pick(&members);
        let state = self.nodes[node].layout.clone();
        let wish = match state.transition() {
            Some(change) if self.layouts.dice.chance(300) => Wish::Abort { begun: change.begun },
            _ => {
                let next = Arc::new(self.another_layout(&state));
                Wish::Begin { next, after: state.epoch(), pace: Pace::default() }
            }
        };
        self.coverage.add("layout.asked_for", 1);
        let message =
            Message::ChangeLayout(Box::new(ChangeLayout { wish, timeout_ms: TIMEOUT_MS }));
        self.call(None, Purpose::Other, LaneAt { node, lane: 0 }, message, TIMEOUT_MS);
    }

    /// Some nodes come, or go, or both.
    fn another_layout(&mut self, state: &LayoutState) -> Layout {
        let current = state.current();
        let least = self.profile.buckets.iter().map(|bucket| usize::from(bucket.props.n)).max();
        let least = least.unwrap_or(1).max(usize::from(current.n()));
        let mut members: BTreeSet<usize> =
            current.members().iter().map(|member| self.by_id[&member.id()]).collect();
        for _ in 0..self.layouts.dice.between(1, 3) {
            let node = self.layouts.dice.index(self.nodes.len());
            if !members.insert(node) && members.len() > least {
                members.remove(&node);
            }
        }
        let members: Vec<Member> =
            members.into_iter().map(|node| member(&self.profile, node)).collect();
        // Now and then one that moves about everything.
        let (version, partitions) = (current.version() + 1, current.partitions());
        let another = match self.layouts.dice.chance(300) {
            true => {
                let cluster = current.cluster();
                Layout::compute(cluster, version, partitions, current.n(), members)
            }
            false => current.next(members),
        };
        another.expect("there are as many nodes as any bucket has copies")
    }

    /// The epoch that every lane of every member goes by, if it is one and no change: of those, too, that
    /// are members by what they know themselves, and serve by it.
    ///
    /// Epochs only grow, but for a disk that was emptied; an owner with such a disk answers no read before
    /// it has all again. So what is the same at two moments was so all the time between.
    pub(crate) fn settled_epoch(&self) -> Option<u64> {
        let epoch = self.layout.epoch();
        let goes_by_it = |node: &Node| {
            let told = node.lanes.iter().all(|slot| slot.told.is_empty());
            let knows_itself = node.layout.member(node.id).is_some();
            let is_member = self.layout.member(node.id).is_some() || knows_itself;
            !is_member || (node.layout.epoch() == epoch && told)
        };
        let settled = self.layout.transition().is_none() && self.nodes.iter().all(goes_by_it);
        settled.then_some(epoch)
    }

    /// Whether owners were the same since what `since` was the settled epoch of.
    pub(crate) fn owners_stood(&self, since: Option<u64>) -> bool {
        !self.layouts.have_changed() || (since.is_some() && since == self.settled_epoch())
    }

    /// Rows of a shard are gone from a node for good: what it held of acked writes is with others.
    pub(crate) fn note_emptied(&mut self, node: usize, shard: Shard) {
        self.coverage.add("layout.shards_emptied", 1);
        for number in 0..self.history.writes.len() {
            let write = &self.history.writes[number];
            let held = write.holders.contains(&node) || write.handed.contains(&node);
            if !held || self.keys[write.key].shard != shard {
                continue;
            }
            if self.nodes[node].holds(shard, &write.dots) {
                continue;
            }
            let has = |other: &usize| {
                let at = &self.nodes[*other];
                let (clock, unsynced) = (at.clock_on_disk(shard), &at.unsynced);
                let kept = |dot: &Dot| clock.contains(*dot) && !unsynced.contains(&(shard, *dot));
                *other != node && write.dots.iter().any(kept)
            };
            let heir = (0..self.nodes.len()).find(has);
            let lost = self.nodes.iter().any(|node| node.lost_data_at.is_some());
            if heir.is_none() && !lost {
                let what = format!("n{node} gave up {shard}, and nobody else has write {number}");
                return self.violate("gives_up_what_others_have", what);
            }
            let write = &mut self.history.writes[number];
            write.holders.remove(&node);
            write.handed.remove(&node);
            write.handed.extend(heir);
        }
        for read in &mut self.history.confirmed {
            let key = &self.keys[read.key];
            if key.shard == shard && !self.nodes[node].shows(shard, &key.key, &read.dots) {
                read.holders.remove(&node);
            }
        }
    }

    /// Owner sets of a shard that quorums may have gone by lately.
    pub(crate) fn recent_owners(&self, shard: Shard) -> Vec<Vec<usize>> {
        let mut recent: Vec<&Arc<LayoutState>> = self.layouts.states.values().rev().collect();
        // An epoch that is over without a change has the owners of the one before it.
        recent.dedup_by(|before, later| before.again() == ***later);
        let recent = recent.into_iter().take(4);
        let layouts = recent.flat_map(|state| {
            let next = state.transition().map(|change| change.next.clone());
            [Some(state.current().clone()), next]
        });
        let of = |layout: Arc<Layout>| {
            layout.owners(shard).iter().map(|id| self.by_id[id]).collect::<Vec<usize>>()
        };
        layouts.flatten().map(of).collect()
    }

    /// When all is at rest, every member goes by the last state, no change is under way, and nobody
    /// holds what others own.
    pub(crate) fn check_layouts(&mut self) {
        if self.is_over() || !self.layouts.have_changed() {
            return;
        }
        let epoch = self.layout.epoch();
        if self.layout.transition().is_some() {
            return self.violate("layout_settles", format!("epoch {epoch} is still a change"));
        }
        for node in 0..self.nodes.len() {
            let known = &self.nodes[node];
            if self.layout.member(known.id).is_some() && known.layout.epoch() != epoch {
                let at = known.layout.epoch();
                let what = format!("n{node} is at epoch {at}, the cluster at {epoch}");
                return self.violate("layout_settles", what);
            }
            let left: usize = known.lanes.iter().map(|slot| slot.lane.shards_leaving()).sum();
            if left > 0 {
                let what = format!("n{node} still holds {left} shards that others own");
                return self.violate("layout_settles", what);
            }
        }
    }
}
