//! Peers of a lane that come and go: links, and what the nodes say of each other.
//!
//! A link is evidence for this lane, liveness for all. Whoever comes back is asked and shown what it
//! may have missed; of whoever goes nothing more is expected. No data moves for it. Next to read:
//! `membership/swim.rs`, `sync/mod.rs`.

use super::{Lane, LaneConfig};
use crate::effect::{Effect, Now, PeerLane};
use crate::feed;
use crate::known::KnownOp;
use crate::layout;
use crate::membership::swim::{Outcome, Swim};
use crate::ops::Heard;
use crate::sync;
use crate::table::Op;
use crate::topology::Topology;
use galvani_model::ids::{LaneIndex, NodeId};
use galvani_model::store::Store;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Lane {
    /// A link is the best evidence: whoever has a new one is alive for this lane.
    pub(super) fn on_peer_up(&mut self, peer: PeerLane, now: Now, store: &mut dyn Store) {
        // Its other lanes are met again, too: nothing else will say that they are back.
        self.on_liveness(peer.node, true, now, store);
        self.up.insert(peer);
        self.scores.on_link(peer);
        if peer.lane == LaneIndex(0) {
            self.with_swim(now, store, |swim, out| swim.on_link_up(peer.node, now, out));
        }
        self.meet(peer, now, store);
    }

    /// Asks and shows a peer that can be reached whatever it may have missed.
    fn meet(&mut self, peer: PeerLane, now: Now, store: &mut dyn Store) {
        self.ask_known(peer, now, store);
        let shared = sync::shared(&self.topology, self.config.lane, peer);
        self.sync.peer_up(peer, shared, now);
        self.layout.doubt_peer(peer, now);
        self.handoff.peer_up(peer, now);
        self.reaper.peer_up(peer, now);
    }

    fn ask_known(&mut self, peer: PeerLane, now: Now, store: &mut dyn Store) {
        // A storage error leaves the origins unconfirmed: the next mint renews them, safely.
        let questions = self.with(now, store, |ctx, _| KnownOp::questions(ctx, peer));
        for asked in questions.unwrap_or_default() {
            let op = self.table.next_id();
            let known = self.with(now, store, |ctx, _| KnownOp::start(ctx, op, peer, asked));
            self.table.insert(op, Op::Known(known));
        }
    }

    /// Compares everything again: records of a bucket that was unknown here were passed over.
    pub(super) fn share_anew(&mut self, now: Now) {
        // One that is held for down is shown everything when it is alive again.
        for &peer in self.up.iter().filter(|peer| !self.down.contains(&peer.node)) {
            let shared = sync::shared(&self.topology, self.config.lane, peer);
            self.sync.share(peer, shared, now);
        }
        self.handoff.ask_all(now);
        self.reaper.survey_again(now);
    }

    /// Buckets or layout have changed.
    pub(super) fn on_topology(&mut self, topology: Arc<Topology>, now: Now, store: &mut dyn Store) {
        if topology.epoch() < self.topology.epoch() {
            return;
        }
        let before = core::mem::replace(&mut self.topology, topology);
        let changed = before.epoch() != self.topology.epoch();
        if changed {
            let members = |topology: &Topology| -> BTreeSet<NodeId> {
                topology.layout().members().map(|member| member.id()).collect()
            };
            let now_members = members(&self.topology);
            if members(&before) != now_members {
                // Who is down is found out anew, and nobody says of one that it is up again. A lane that
                // has heard of the members before this one may have heard of this one's verdict since.
                let me = self.topology.node;
                self.origins.know_members(now_members.iter().copied().filter(|&node| node != me));
                let tells = self.swim.is_some();
                self.swim = lives_with(&self.config, &self.topology);
                for node in self.down.clone() {
                    if tells {
                        self.effects.push(Effect::Liveness { node, alive: true });
                    }
                    self.on_liveness(node, true, now, store);
                }
            }
            self.sync.on_layout(&self.topology, self.config.lane);
            for peer in self.up.clone() {
                self.ask_known(peer, now, store);
            }
        }
        self.feed.on_topology();
        self.share_anew(now);
        self.with(now, store, |ctx, _| {
            layout::on_topology(ctx);
            if changed {
                feed::on_layout(ctx);
            }
        });
    }

    pub(super) fn on_peer_down(&mut self, peer: PeerLane, now: Now, store: &mut dyn Store) {
        self.up.remove(&peer);
        self.scores.on_link(peer);
        self.layout.steward.peer_down(peer);
        self.part(peer, now, store);
    }

    /// Expects nothing more of a peer.
    fn part(&mut self, peer: PeerLane, now: Now, store: &mut dyn Store) {
        for id in self.table.asks_of(peer, &self.topology) {
            self.on_heard(id, Heard::Silence, now, store);
        }
        self.sync.peer_down(peer);
        self.layout.doubt_peer(peer, now);
        self.handoff.peer_down(peer);
        self.reaper.peer_down(peer, now);
    }

    pub(super) fn on_datagram(
        &mut self,
        from: PeerLane,
        bytes: &[u8],
        now: Now,
        store: &mut dyn Store,
    ) {
        let mut dropped = self.swim.is_none();
        self.with_swim(now, store, |swim, out| {
            dropped = swim.on_datagram(from.node, bytes, now, out).is_err();
        });
        self.counters.datagrams_dropped += u64::from(dropped);
    }

    /// A node is held for down, or is alive again. Its links stay: what is sent may still arrive.
    pub(super) fn on_liveness(
        &mut self,
        node: NodeId,
        alive: bool,
        now: Now,
        store: &mut dyn Store,
    ) {
        let changed = if alive { self.down.remove(&node) } else { self.down.insert(node) };
        if !changed {
            return;
        }
        let lanes: Vec<PeerLane> =
            self.up.iter().filter(|peer| peer.node == node).copied().collect();
        for peer in lanes {
            match alive {
                true => self.meet(peer, now, store),
                false => self.part(peer, now, store),
            }
        }
    }

    /// Lets the node's part in liveness do something, and sees to what comes of it.
    pub(super) fn with_swim(
        &mut self,
        now: Now,
        store: &mut dyn Store,
        f: impl FnOnce(&mut Swim, &mut Outcome),
    ) {
        let Some(swim) = &mut self.swim else { return };
        let mut out = Outcome::default();
        f(swim, &mut out);
        for (node, bytes) in out.sends {
            let to = PeerLane { node, lane: LaneIndex(0) };
            if self.up.contains(&to) {
                self.effects.push(Effect::Datagram { to, bytes });
            }
        }
        for (node, alive) in out.changes {
            self.counters.members_lost += u64::from(!alive);
            self.effects.push(Effect::Liveness { node, alive });
            self.on_liveness(node, alive, now, store);
        }
    }
}

/// The node's part in liveness, on the lane that plays it.
pub(super) fn lives_with(config: &LaneConfig, topology: &Topology) -> Option<Swim> {
    let members: BTreeSet<NodeId> = topology.layout().members().map(|member| member.id()).collect();
    let belongs = members.contains(&topology.node);
    let plays = belongs && config.lane == LaneIndex(0) && members.len() > 1;
    plays.then(|| Swim::new(topology.node, members, (config.boot >> 32) as u64))
}
