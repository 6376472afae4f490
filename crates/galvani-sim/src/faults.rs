//! The nemesis: which fault hits whom, when, and for how long.
//!
//! Only what it did to a disk may be subtracted from what the oracles demand, so every loss is
//! weighed by what is really gone afterwards (`disk_changed`). Next to read: `quiet.rs`.

use crate::amnesia::PROBES;
use crate::mutant::Mutant;
use crate::node::{Life, SavedDisk};
use crate::packet::Event;
use crate::world::World;
use galvani_protocol::Input;
use galvani_storage::engine::{CrashKeep, Engine, FailKind};
use std::collections::BTreeSet;

/// How many of 1000 commits in doubt leave an engine that does not open at once.
const FAILED_REOPENS: u64 = 300;
/// How often in a row an engine is poisoned: after the second time it rests before it is opened.
const POISONED_TIMES: usize = 3;

/// A fault the nemesis may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Cut,
    Isolate,
    Pause,
    Crash,
    CrashMidTick,
    Power,
    Wipe,
    Backup,
    Restore,
    CleanStop,
    DiskFull,
    FailedCommit,
    DoubtfulCommit,
    ClockJump,
    Rollback,
    Damage,
    FailedSync,
}

impl World {
    /// The next fault, and when the one after it comes.
    pub(crate) fn nemesis(&mut self) {
        if self.calm {
            return;
        }
        let choices = self.fault_choices();
        if !choices.is_empty() {
            let fault = self.dice.faults.pick(&choices);
            self.inflict(fault);
        }
        let pace = self.profile.fault_pace;
        let wait = self.dice.faults.between(pace / 4, pace * 2);
        self.queue.push(self.now + wait, Event::Nemesis);
    }

    fn fault_choices(&self) -> Vec<Fault> {
        let on = self.profile.faults;
        let all = [
            (on.cut, Fault::Cut),
            (on.cut, Fault::Isolate),
            (on.pause, Fault::Pause),
            (on.crash, Fault::Crash),
            (on.crash_mid_tick, Fault::CrashMidTick),
            (on.power, Fault::Power),
            (on.wipe, Fault::Wipe),
            (on.restore, Fault::Backup),
            (on.restore, Fault::Restore),
            (on.clean_stop, Fault::CleanStop),
            (on.disk_full, Fault::DiskFull),
            (on.failed_commits, Fault::FailedCommit),
            (on.doubtful_commits, Fault::DoubtfulCommit),
            (on.clock_jumps, Fault::ClockJump),
            (on.rollback, Fault::Rollback),
            (on.rollback, Fault::Rollback),
            (on.rollback, Fault::Rollback),
            (on.rollback, Fault::CleanStop),
            (on.damage, Fault::Damage),
            (on.failed_syncs, Fault::FailedSync),
        ];
        all.into_iter().filter(|(on, _)| *on).map(|(_, fault)| fault).collect()
    }

    fn inflict(&mut self, fault: Fault) {
        let up = self.nodes_that(Life::Up);
        if up.is_empty() {
            return;
        }
        let node = self.dice.faults.pick(&up);
        match fault {
            Fault::Cut => self.cut_some(),
            Fault::Isolate => self.isolate(node),
            Fault::Pause => self.pause(node),
            Fault::Crash => {
                self.crash(node, "fault.crash");
                self.start_later(node);
            }
            Fault::CrashMidTick => self.nodes[node].dies_mid_tick = true,
            Fault::Power => {
                self.lose_power(node);
                self.start_later(node);
            }
            // A majority of voters that forget what they voted is not borne: it is always the same.
            Fault::Wipe if self.profile.changes.is_some() && node != 0 => {
                self.crash(node, "fault.crash");
                self.start_later(node);
            }
            Fault::Wipe => {
                self.crash(node, "fault.wipe");
                self.put_back(node, &SavedDisk::default());
                self.start_later(node);
            }
            Fault::Backup => {
                self.coverage.add("fault.backup", 1);
                self.nodes[node].backup = Some(self.nodes[node].save());
            }
            Fault::Restore => {
                if let Some(copy) = self.nodes[node].backup.take() {
                    self.crash(node, "fault.restore");
                    self.put_back(node, &copy);
                    self.start_later(node);
                } else if let Some(copy) = self.nodes[node].clean_copy.take() {
                    self.crash(node, "fault.restore");
                    self.put_back(node, &copy);
                    // The copy carries the mark of the stop it was made after.
                    self.nodes[node].clean = true;
                    self.start_later(node);
                }
            }
            Fault::Rollback => self.roll_a_volume_back(&up),
            Fault::Damage => self.damage_row(node),
            Fault::FailedSync => {
                self.coverage.add("fault.failed_sync", 1);
                self.nodes[node].disk.memory().fail_next_sync();
            }
            Fault::CleanStop => self.stop(node),
            Fault::DiskFull => {
                self.coverage.add("fault.disk_full", 1);
                self.nodes[node].disk.memory().set_full(true);
                let wait = self.dice.faults.between(10_000, 800_000);
                self.queue.push(self.now + wait, Event::DiskFree { node });
            }
            Fault::FailedCommit => {
                self.coverage.add("fault.failed_commit", 1);
                let kinds = [FailKind::Full, FailKind::IoLost, FailKind::Poisoned];
                let kind = self.dice.faults.pick(&kinds);
                let mut times = 1;
                if kind == FailKind::Poisoned {
                    self.coverage.add("fault.poisoned_engine", 1);
                    times = POISONED_TIMES;
                }
                self.nodes[node].disk.memory().fail_next_commits(vec![kind; times]);
            }
            Fault::DoubtfulCommit => {
                self.coverage.add("fault.doubtful_commit", 1);
                self.nodes[node].disk.memory().fail_next_commits([FailKind::IoKept]);
                if self.dice.disks.chance(FAILED_REOPENS) {
                    self.coverage.add("fault.failed_reopen", 1);
                    self.nodes[node].disk.fail_next_reopen();
                }
            }
            Fault::ClockJump => {
                self.coverage.add("fault.clock_jump", 1);
                let jumps = [-3_600_000, -60_000, -1_000, 1_000, 60_000, 3_600_000, 0];
                let before = self.nodes[node].wall_ahead_ms;
                self.nodes[node].set_from = Some((self.now, before));
                self.nodes[node].wall_ahead_ms = self.dice.faults.pick(&jumps);
            }
        }
    }

    /// The volume under a node goes back to its last clean stop, and nothing on it shows that: at
    /// once if it forgets something by it, else as soon as it has minted.
    fn roll_a_volume_back(&mut self, up: &[usize]) {
        let copied = |&node: &usize| self.nodes[node].clean_copy.is_some();
        let copied: Vec<usize> = up.iter().copied().filter(copied).collect();
        if copied.is_empty() {
            return;
        }
        let node = self.dice.faults.pick(&copied);
        if self.would_forget(node) {
            self.roll_back(node);
        } else {
            self.nodes[node].forgets_next_mint = true;
        }
    }

    /// Rolls a node's volume back to its last clean stop.
    pub(crate) fn roll_back(&mut self, node: usize) {
        let copy = self.nodes[node].clean_copy.clone().expect("only nodes that have one");
        self.crash(node, "fault.rollback");
        self.put_back(node, &copy);
        (self.nodes[node].clean, self.nodes[node].copied) = (true, false);
        // By what others know of it only, and not always.
        self.nodes[node].lost_unnoticed_at = Some(self.now);
        self.note_forgotten(node);
        self.queue.push(self.now + 30_000, Event::Probe { node, left: PROBES });
        let wait = self.dice.faults.pick(&[500, 5_000, 100_000]);
        let wait = self.dice.faults.between(1, wait);
        self.queue.push(self.now + wait, Event::Start { node });
    }

    pub(crate) fn start_later(&mut self, node: usize) {
        let wait = self.dice.faults.pick(&[2_000, 100_000, 600_000, 2_000_000]);
        let wait = self.dice.faults.between(1, wait);
        self.queue.push(self.now + wait, Event::Start { node });
    }

    /// Ends a node's process; every committed batch stays.
    pub(crate) fn crash(&mut self, node: usize, why: &'static str) {
        let now = self.now;
        self.coverage.add(if why.starts_with("fault.") { why } else { "fault.crash" }, 1);
        self.trace.note(now, &[8, node as u64], || format!("node {node}: {why}"));
        self.nodes[node].end();
        self.nodes[node].disturbed_at = now;
        self.nodes[node].disk.memory().crash(CrashKeep::Committed);
        self.break_connections(node);
        if why.starts_with("crash between") {
            self.start_later(node);
        }
    }

    /// The node's machine loses power: some of what was not synced is gone.
    pub(crate) fn lose_power(&mut self, node: usize) {
        self.crash(node, "fault.power");
        let unsynced = self.nodes[node].disk.memory().unsynced();
        let kept = self.dice.faults.below(unsynced as u64 + 1) as usize;
        self.nodes[node].disk.memory().crash(CrashKeep::Synced { unsynced: kept });
        self.nodes[node].unsynced.clear();
        if kept < unsynced {
            self.coverage.add("fault.power_lost_batches", (unsynced - kept) as u64);
            self.disk_changed(node);
            self.nodes[node].lost_unnoticed_at = Some(self.now);
        }
    }

    /// A node that is down gets other contents of its disk.
    pub(crate) fn put_back(&mut self, node: usize, copy: &SavedDisk) {
        self.nodes[node].disk.memory().restore(&copy.rows);
        if self.profile.changes.is_some() {
            // What it knew of the layout is gone with the disk.
            self.nodes[node].layout = self.layouts.founding();
        }
        self.nodes[node].unsynced.clear();
        (self.nodes[node].clean, self.nodes[node].copied) = (false, true);
        self.nodes[node].damaged.clone_from(&copy.damaged);
        self.nodes[node].rolled_back.clear();
        self.disk_changed(node);
    }

    /// Takes a node off the holders of every acked write that its disk has lost.
    pub(crate) fn disk_changed(&mut self, node: usize) {
        self.doubt_witnesses(node);
        self.doubt_promises(node);
        self.nodes[node].lost_data_at = Some(self.now);
        for write in &mut self.history.writes {
            if write.holders.contains(&node) || write.handed.contains(&node) {
                let shard = self.keys[write.key].shard;
                if !self.nodes[node].holds(shard, &write.dots) {
                    write.holders.remove(&node);
                    write.handed.remove(&node);
                }
            }
        }
        for read in &mut self.history.confirmed {
            let key = &self.keys[read.key];
            if !self.nodes[node].shows(key.shard, &key.key, &read.dots) {
                read.holders.remove(&node);
            }
        }
    }

    fn break_connections(&mut self, node: usize) {
        for conn in self.net.ids() {
            if !self.net.conn(conn).up {
                continue;
            }
            if conn.asker.node == node {
                self.net.orphan(conn);
            } else if conn.server.node == node {
                let epoch = self.net.conn(conn).epoch;
                let wait = self.dice.net.between(1_000, 600_000);
                self.queue.push(self.now + wait, Event::Detect { conn, epoch });
            }
        }
    }

    /// The node stops taking requests, finishes what is under way, syncs and ends.
    pub(crate) fn stop(&mut self, node: usize) {
        self.coverage.add("fault.clean_stop", 1);
        self.trace.note(self.now, &[9, node as u64], || format!("node {node} is asked to stop"));
        self.nodes[node].life = Life::Stopping;
        self.nodes[node].disturbed_at = self.now;
        for lane in 0..self.nodes[node].lanes.len() {
            self.push_input(crate::packet::LaneAt { node, lane }, Input::Stop);
        }
        let (boot, until) = (self.nodes[node].boot, self.now + 2_500_000);
        self.queue.push(self.now + 5_000, Event::Stopped { node, boot, until });
    }

    /// Ends a stopping node as soon as its operations are over, or when its time is up.
    pub(crate) fn stopped(&mut self, node: usize, boot: u64, until: u64) {
        let stopping = &self.nodes[node];
        if stopping.boot != boot || stopping.life != Life::Stopping {
            return;
        }
        let writing = stopping.lanes.iter().any(|slot| slot.writing.is_some());
        let idle =
            |slot: &crate::node::LaneSlot| slot.inbox.is_empty() && slot.lane.inflight() == 0;
        if writing || self.now < until && !stopping.lanes.iter().all(idle) {
            self.queue.push(self.now + 5_000, Event::Stopped { node, boot, until });
            return;
        }
        let stopping = &mut self.nodes[node];
        let mut closed = true;
        for slot in &mut stopping.lanes {
            closed &= slot.store.inner().close().is_ok();
        }
        let synced = closed && stopping.disk.sync().is_ok();
        self.trace.note(self.now, &[10, node as u64], || format!("node {node} has stopped"));
        let stopping = &mut self.nodes[node];
        stopping.end();
        stopping.disturbed_at = self.now;
        if synced {
            stopping.unsynced.clear();
        }
        stopping.clean = synced;
        stopping.copied = false;
        if synced {
            stopping.clean_copy = Some(stopping.save());
        }
        stopping.disk.memory().crash(CrashKeep::Committed);
        self.break_connections(node);
        if self.profile.clients > 0 {
            self.start_later(node);
        }
    }

    /// The node does nothing for a while; what arrives waits.
    fn pause(&mut self, node: usize) {
        let longest = self.dice.faults.pick(&[50_000, 500_000, 3_000_000]);
        let wait = self.dice.faults.between(1_000, longest);
        self.pause_for(node, wait);
    }

    pub(crate) fn pause_for(&mut self, node: usize, wait: u64) {
        self.coverage.add("fault.pause", 1);
        self.trace.note(self.now, &[11, node as u64], || format!("node {node} is paused"));
        self.nodes[node].life = Life::Paused;
        self.nodes[node].disturbed_at = self.now;
        let boot = self.nodes[node].boot;
        self.queue.push(self.now + wait, Event::Resume { node, boot });
        for conn in self.net.ids() {
            if conn.server.node == node && conn.asker.node != node && self.net.conn(conn).up {
                let epoch = self.net.conn(conn).epoch;
                let wait = self.dice.net.between(300_000, 2_000_000);
                self.queue.push(self.now + wait, Event::Detect { conn, epoch });
            }
        }
    }

    /// A paused node goes on.
    pub(crate) fn resume(&mut self, node: usize, boot: u64) {
        if self.nodes[node].boot != boot || self.nodes[node].life != Life::Paused {
            return;
        }
        self.trace.note(self.now, &[12, node as u64], || format!("node {node} goes on"));
        let since = self.nodes[node].disturbed_at;
        if self.mutant == Some(Mutant::AgesInSilence) {
            self.live_through(node, since);
        }
        self.nodes[node].life = Life::Up;
        self.nodes[node].stood_still = Some((since, self.now));
        self.nodes[node].disturbed_at = self.now;
        for lane in 0..self.nodes[node].lanes.len() {
            self.nodes[node].lanes[lane].tick_at = None;
            self.schedule_tick(crate::packet::LaneAt { node, lane }, self.now + 1);
        }
    }

    fn cut_some(&mut self) {
        let count = self.nodes.len();
        let from = self.dice.faults.index(count);
        let to = (from + 1 + self.dice.faults.index(count - 1)) % count;
        let mut pairs = vec![(from, to)];
        if self.dice.faults.chance(500) {
            pairs.push((to, from));
        }
        self.coverage.add("fault.cut", 1);
        self.coverage.add("fault.one_way", u64::from(pairs.len() == 1));
        self.cut(pairs);
    }

    fn isolate(&mut self, node: usize) {
        // One side of a split: the node alone, or with others.
        let mut side = BTreeSet::from([node]);
        for other in 0..self.nodes.len() {
            if self.dice.faults.chance(250) {
                side.insert(other);
            }
        }
        let one_way = self.dice.faults.chance(250);
        let mut pairs = Vec::new();
        for &inside in &side {
            for outside in (0..self.nodes.len()).filter(|node| !side.contains(node)) {
                pairs.push((inside, outside));
                if !one_way {
                    pairs.push((outside, inside));
                }
            }
        }
        self.coverage.add("fault.split", 1);
        self.coverage.add("fault.one_way", u64::from(one_way));
        self.cut(pairs);
    }

    fn cut(&mut self, pairs: Vec<(usize, usize)>) {
        let longest = self.dice.faults.pick(&[100_000, 1_000_000, 4_000_000]);
        let wait = self.dice.faults.between(10_000, longest);
        self.cut_links(&pairs);
        self.queue.push(self.now + wait, Event::Heal { pairs });
    }

    /// Messages of these ordered pairs no longer get through; connections find out later.
    pub(crate) fn cut_links(&mut self, pairs: &[(usize, usize)]) {
        self.trace.note(self.now, &[13, pairs.len() as u64], || format!("cut {pairs:?}"));
        for &(from, to) in pairs {
            self.net.cut(from, to);
            for conn in self.net.between(&BTreeSet::from([from, to])) {
                let epoch = self.net.conn(conn).epoch;
                let wait = self.dice.net.between(200_000, 1_500_000);
                self.queue.push(self.now + wait, Event::Detect { conn, epoch });
            }
        }
    }

    /// Messages of these ordered pairs get through again.
    pub(crate) fn heal(&mut self, pairs: &[(usize, usize)]) {
        if self.calm {
            return;
        }
        self.trace.note(self.now, &[14, pairs.len() as u64], || format!("heal {pairs:?}"));
        for &(from, to) in pairs {
            self.net.heal(from, to);
        }
        self.healed_at = self.now;
        self.send_held();
    }
}
