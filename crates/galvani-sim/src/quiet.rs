//! The end of a run: faults and clients stop, and the cluster must come to rest and agree.
//!
//! Where anti-entropy runs, it alone must bring agreement, before anything is read. Where it does
//! not: first read repair (two rounds of reads that ask all replicas), then an exchange of the logs
//! by the simulator. Where hints are the only way of repair, they must have done their part before
//! that. Each ends within bounded virtual time and is followed by checks.
//! Next to read: `oracles/same.rs`, `oracles/kept.rs`.

use crate::node::{Life, Node};
use crate::oracles::{alive, buried, digest, hinted, kept, same};
use crate::packet::{LaneAt, Route};
use crate::profile::{Bucket, TTL_MS_LONGEST};
use crate::promised::State;
use crate::world::World;
use galvani_model::ids::{NodeId, Shard};
use galvani_model::request::{Quorum, ReadOptions};
use galvani_model::store::{HintFigures, Store};
use galvani_protocol::Input;
use galvani_storage::engine::{CrashKeep, Engine};
use galvani_wire::Message;
use galvani_wire::message::Replicate;
use std::collections::BTreeSet;

/// Ticks without work after the last fault: more than a store waits before it tries a disk again.
const IDLE_TICKS: u64 = 20;
/// How often a disk is to be tried then: more than the longest rest of an engine.
const DISK_TRIES: u32 = 40;
/// Virtual time in which nodes connect and operations of the time of faults end, in microseconds.
const CALM_MICROS: u64 = 10_000_000;
/// Virtual time in which a cluster without faults must be idle, in microseconds.
const REST_MICROS: u64 = 60_000_000;

impl World {
    /// Ends all faults and demands rest, agreement, and every acked write.
    pub(crate) fn finish(&mut self) {
        self.calm_down();
        // A hint for a node that does not know the bucket yet waits until it does.
        self.run_until(self.now + CALM_MICROS);
        self.finish_buckets();
        self.mend_damage();
        self.check_hints();
        self.come_to_rest("after the faults");
        self.check_liveness();
        self.outlive_values();
        self.check_replicas();
        if self.has_anti_entropy() {
            // Everything must have spread by itself: nothing is read before this.
            self.come_to_rest("after anti-entropy");
            self.check_layouts();
            self.check_replicas();
            self.check_agreement(true);
        }
        if !self.profile.hints_alone {
            for round in 0..2 {
                self.read_all(round);
                self.come_to_rest("after a round of reads");
            }
            self.check_agreement(false);
        }
        self.exchange_logs();
        self.come_to_rest("after the exchange of logs");
        self.check_replicas();
        self.check_agreement(true);
        if !self.is_over() {
            for write in 0..self.history.writes.len() {
                if let Err(why) = kept::check(self, write) {
                    self.violate("no_acked_write_lost", why);
                }
            }
        }
        self.read_all(2);
        self.come_to_rest("after the last reads");
        self.finish_feed();
    }

    /// Faults end: links heal, disks have space, every node runs.
    pub(crate) fn calm_down(&mut self) {
        if self.is_over() {
            return;
        }
        self.calm = true;
        self.trace.note(self.now, &[17], || "faults end".into());
        self.net.calm();
        self.set_speeds_right();
        self.send_held();
        for node in 0..self.nodes.len() {
            self.nodes[node].disk.memory().set_full(false);
            if self.nodes[node].disk.is_lost() && !self.nodes[node].is_down() {
                // It would have ended once its commit is over: no other disk is put under its feet.
                self.crash(node, "fault.crash");
            }
            // No change of contents: it forgets the failures that were ordered and not yet met.
            self.nodes[node].disk.memory().crash(CrashKeep::Committed);
            self.nodes[node].dies_mid_tick = false;
            self.nodes[node].forgets_next_mint = false;
            if !self.nodes[node].damaged.is_empty() && !self.has_anti_entropy() {
                self.crash(node, "fault.damage_taken_out");
                self.empty_damaged_shards(node);
            }
            let boot = self.nodes[node].boot;
            self.resume(node, boot);
            if self.nodes[node].life == Life::Stopping {
                // Let it stop; it is started below or by its own event.
                self.stopped(node, boot, self.now);
            }
            if self.nodes[node].is_down() {
                self.start_node(node);
            }
        }
        self.let_ticks_pass();
    }

    /// A store that found its disk full, or could not open it, asks again only now and then; a real node
    /// goes on and does.
    fn let_ticks_pass(&mut self) {
        for slot in self.nodes.iter_mut().flat_map(|node| &mut node.lanes) {
            for _ in 0..DISK_TRIES {
                slot.store.inner().try_disk_again();
            }
        }
        for tick in 0..IDLE_TICKS {
            for node in 0..self.nodes.len() {
                for lane in 0..self.nodes[node].lanes.len() {
                    self.push_input(LaneAt { node, lane }, Input::Wake);
                }
            }
            self.run_until(self.now + 1_000 + tick % 2);
        }
    }

    /// Where hints are the only way of repair, they must have done what stand-ins promised.
    fn check_hints(&mut self) {
        if !self.profile.hints_alone || self.is_over() {
            return;
        }
        self.drain(self.now + REST_MICROS);
        if self.is_over() {
            return;
        }
        let given = self.promises.values().filter(|state| **state == State::Given).count();
        self.coverage.add("hints_alone.given", given as u64);
        if let Err(why) = hinted::check(self) {
            self.violate("hints_alone_deliver", why);
        }
    }

    /// Lets what expires expire and be collected.
    fn outlive_values(&mut self) {
        if self.profile.expiring > 0 && !self.is_over() {
            let margin_ms = u64::from(self.profile.limits.expiry_margin_ms);
            let wait_ms = TTL_MS_LONGEST + margin_ms + buried::NOTICED_MS;
            self.run_until(self.now + wait_ms * 1000);
            self.come_to_rest("after values expired");
        }
    }

    /// Whoever was suspected, rightly or not, is trusted again.
    fn check_liveness(&mut self) {
        if self.is_over() {
            return;
        }
        if let Err(why) = alive::check(self) {
            self.violate("liveness_recovers", why);
        }
    }

    /// Runs until nothing is left to happen, within bounded virtual time.
    pub(crate) fn come_to_rest(&mut self, when: &str) {
        if self.is_over() {
            return;
        }
        let idle = self.drain(self.now + REST_MICROS);
        if self.is_over() {
            return;
        }
        if !idle {
            let restless = self.restless();
            self.violate("comes_to_rest", format!("events go on and on {when}: {restless}"));
        }
        for node in 0..self.nodes.len() {
            for (lane, slot) in self.nodes[node].lanes.iter().enumerate() {
                let left = slot.lane.inflight();
                if left > 0 {
                    let what = format!("n{node}.{lane} has {left} operations left {when}");
                    self.violate("no_operation_leaks", what);
                    return;
                }
            }
        }
        let waiting = self.history.calls.iter().position(|call| call.end.is_none());
        if let Some(call) = waiting {
            self.violate("answered_in_time", format!("call {call} is open {when}"));
        }
    }

    /// The lanes that have something to do yet, whom they hold hints for, and from whom they differ.
    fn restless(&self) -> String {
        let mut found = Vec::new();
        for (node, known) in self.nodes.iter().enumerate() {
            for (lane, slot) in
                known.lanes.iter().enumerate().filter(|(_, it)| !it.lane.is_settled())
            {
                let count =
                    |(id, it): (&NodeId, &HintFigures)| (self.by_id.get(id).copied(), it.count);
                let hinted: Vec<_> = slot.store.hint_figures().iter().map(count).collect();
                let rows = known.all_hints_on_disk().len();
                let mut text =
                    format!("n{node}.{lane} counts hints for {hinted:?}, its node has {rows}");
                for (peer, shard) in slot.lane.unequal() {
                    let peer = self.by_id.get(&peer.node);
                    text.push_str(&format!(", differs in {shard} from {peer:?}"));
                }
                found.push(text);
            }
        }
        found.join(", ")
    }

    /// Finishes buckets that were made on some nodes only, by making them again.
    fn finish_buckets(&mut self) {
        if self.layout.transition().is_some() {
            // Buckets are not made while the layout changes.
            self.come_to_rest("after a change of the layout");
        }
        for bucket in 0..self.profile.buckets.len() {
            let name = &self.profile.buckets[bucket].name;
            let knows = |node: &Node| node.buckets.contains_key(name);
            let knowing = self.members().filter(|node| knows(node)).count();
            if (1..self.members().count()).contains(&knowing) && !self.is_over() {
                self.coverage.add("buckets.half_made", 1);
                self.ask_for_bucket(bucket);
                self.come_to_rest("after a bucket was finished");
                let name = &self.profile.buckets[bucket].name;
                if !self.members().all(|node| node.buckets.contains_key(name)) {
                    self.violate("convergence", format!("bucket {name} stays half made"));
                }
            }
        }
    }

    /// Nodes that are members by the last state of the layout.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| self.layout.member(node.id).is_some())
    }

    /// White-box checks of every replica at rest.
    fn check_replicas(&mut self) {
        for shard in self.shards() {
            if self.is_over() {
                return;
            }
            if let Err(why) = digest::equal_clocks(self, shard) {
                self.violate("equal_clock_equal_digest", why);
            }
            let owners: Vec<usize> =
                self.layout.owners(shard).iter().map(|id| self.by_id[id]).collect();
            for node in owners {
                if let Err(why) = digest::adds_up(self, node, shard) {
                    self.violate("rows_add_up", why);
                }
            }
        }
    }

    fn check_agreement(&mut self, exact: bool) {
        if self.is_over() {
            return;
        }
        for key in 0..self.keys.len() {
            if let Err(why) = same::check(self, key, exact) {
                self.violate("convergence", why);
                return;
            }
        }
        if !exact {
            return;
        }
        if self.has_anti_entropy() {
            for key in 0..self.keys.len() {
                if let Err(why) = buried::all_gone(self, key) {
                    self.violate("tombstones_gone", why);
                    return;
                }
            }
        }
        for shard in self.shards() {
            let owners = self.layout.owners(shard);
            let clocks: Vec<_> =
                owners.iter().map(|id| self.nodes[self.by_id[id]].clock_on_disk(shard)).collect();
            if clocks.windows(2).any(|pair| pair[0] != pair[1]) {
                self.violate("convergence", format!("{shard}: clocks differ: {clocks:?}"));
            }
        }
    }

    /// The shards that hold a key of the run.
    pub(crate) fn shards(&self) -> BTreeSet<Shard> {
        self.keys.iter().map(|info| info.shard).collect()
    }

    /// Reads every key that its bucket's nodes know, asking all replicas, through one owner.
    fn read_all(&mut self, round: usize) {
        if self.is_over() {
            return;
        }
        let options = ReadOptions { r: Some(Quorum::All), ..ReadOptions::default() };
        for key in 0..self.keys.len() {
            let owners = &self.keys[key].owners;
            let node = owners[round % owners.len()];
            let bucket = self.keys[key].key.bucket().clone();
            let known = |node: &usize| {
                self.nodes[*node].buckets.contains_key(&bucket) && !self.waits_for_a_bucket(*node)
            };
            if !self.keys[key].owners.iter().all(known) {
                continue;
            }
            let to = self.lane_of(node, key);
            loop {
                let (before, found_out) = (self.now, self.incarnations());
                let read = self.read(None, key, options, 5_000, to, false, round >= 2);
                // One after the other: lanes with a small limit refuse what comes at once.
                self.come_to_rest("after a read of all replicas");
                if self.is_over() {
                    return;
                }
                if self.history.reads[read].answered {
                    break;
                }
                // It may be what tells an owner that its disk went back: then it is filled first.
                if self.incarnations() == found_out {
                    let ms = (self.now - before) / 1000;
                    let what = format!("read {read} of all replicas failed after {ms} ms at rest");
                    self.violate("convergence", what);
                    return;
                }
            }
        }
    }

    /// Whether a node that lost its disk cannot be filled, because it does not know a bucket that others do:
    /// real nodes tell each other when they are linked.
    fn waits_for_a_bucket(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        let knows = |bucket: &Bucket| node.buckets.contains_key(&bucket.name);
        let lacks = node.lanes.iter().any(|slot| slot.lane.refilling().left > 0);
        lacks && !self.profile.buckets.iter().all(knows)
    }

    /// How often lanes that are alive have found out that their disk went back.
    fn incarnations(&self) -> u64 {
        let lanes = self.nodes.iter().flat_map(|node| &node.lanes);
        lanes.map(|slot| slot.lane.counters().incarnations).sum()
    }

    /// Sends every owner the records it lacks, as anti-entropy does, in random order.
    fn exchange_logs(&mut self) {
        if self.is_over() {
            return;
        }
        let mut sent = Vec::new();
        for shard in self.shards() {
            let owners: Vec<usize> =
                self.layout.owners(shard).iter().map(|id| self.by_id[id]).collect();
            let clocks: Vec<_> =
                owners.iter().map(|&node| self.nodes[node].clock_on_disk(shard)).collect();
            for (from, &donor) in owners.iter().enumerate() {
                for (to, &receiver) in owners.iter().enumerate() {
                    for range in clocks[to].missing_from(&clocks[from]) {
                        for counter in range.first..=range.last {
                            let dot = galvani_model::version::Dot::new(range.origin, counter);
                            sent.push((shard, donor, receiver, dot));
                        }
                    }
                }
            }
        }
        self.dice.nodes.shuffle(&mut sent);
        self.coverage.add("exchange.records", sent.len() as u64);
        if self.has_anti_entropy() && !sent.is_empty() {
            self.violate("convergence", "clocks differ after anti-entropy".into());
            return;
        }
        for (shard, donor, receiver, dot) in sent {
            let lane = usize::from(shard.partition.0 % self.profile.lanes);
            let store = self.nodes[donor].lanes[lane].store.inner();
            match store.record(shard, dot) {
                Ok(Some(record)) => {
                    let (head, value) = (record.head, record.value);
                    let replicate = Replicate {
                        shard,
                        head,
                        fsync: false,
                        epoch: self.layout.epoch(),
                        timeout_ms: 0,
                        value,
                    };
                    let from = self.route(Route::Nobody);
                    let message = Message::Replicate(replicate);
                    let to = LaneAt { node: receiver, lane };
                    let arrived = self.now_of(receiver).micros;
                    self.push_input(
                        to,
                        Input::Request { from, forwarded: false, arrived, message },
                    );
                }
                Ok(None) | Err(_) => {
                    let what = format!("node {donor} has {dot} in its clock and no record of it");
                    self.violate("rows_add_up", what);
                    return;
                }
            }
        }
    }
}
