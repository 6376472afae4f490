//! The driver of a lane, as the node's lane loop has it: drain, handle, one commit, effects.
//!
//! What was committed goes into the ledger before any effect leaves. Messages are looked at on
//! their way out, and changed where a mutant says so. Next to read: `noted.rs`, `oracles/`.

use crate::history::CallEnd;
use crate::mutant::Mutant;
use crate::net::Fate;
use crate::oracles::{ack, bounded, expiry, spins, still};
use crate::packet::{AskRef, ConnId, Event, LaneAt, Packet, Route};
use crate::slow::Handled;
use crate::store::{Deaf, Staged};
use crate::tamper;
use crate::world::{World, at};
use bytes::{Bytes, BytesMut};
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::ids::NodeId;
use galvani_model::store::StoreError;
use galvani_protocol::{ASKS_PER_OP, Effect, Input, PeerLane, ReplyTo};
use galvani_wire::failure::{Failure, ReplicaError};
use galvani_wire::{Frame, Message, encode};

/// Inputs a lane takes in one tick.
const INPUTS_PER_TICK: usize = 64;

/// Between two looks whether a disk takes writes again, in the lane's microseconds.
const DISK_AGAIN_MICROS: u64 = 200_000;

impl World {
    /// One tick of one lane.
    pub(crate) fn tick(&mut self, to: LaneAt, boot: u64) {
        let node = &self.nodes[to.node];
        if node.boot != boot || !node.is_awake() {
            return;
        }
        let now = self.now_of(to.node);
        let slot = &mut self.nodes[to.node].lanes[to.lane];
        if slot.tick_at.is_none_or(|due| due > self.now) {
            return;
        }
        slot.tick_at = None;
        if slot.writing.is_some() {
            return;
        }
        self.nodes[to.node].minted = false;
        let slot = &mut self.nodes[to.node].lanes[to.lane];
        let count = slot.inbox.len().min(INPUTS_PER_TICK);
        for _ in 0..count {
            let slot = &mut self.nodes[to.node].lanes[to.lane];
            let input = slot.inbox.pop_front().expect("counted above");
            self.show(to, input);
        }
        let slot = &mut self.nodes[to.node].lanes[to.lane];
        if slot.lane.next_deadline().is_some_and(|due| due <= now.micros) {
            slot.lane.handle(Input::Wake, now, &mut slot.store);
        }
        self.try_disk_again(to, now.micros);
        self.forget_requests(to);
        let handled = Handled { count, unix_ms: self.clock_ms(to.node), committed: None };
        self.said_ms = handled.unix_ms;
        if let Some(handled) = self.unless_slow(to, handled) {
            self.end_tick(to, handled);
        }
    }

    /// As the node's loop does now and then.
    fn try_disk_again(&mut self, to: LaneAt, now: u64) {
        let slot = &mut self.nodes[to.node].lanes[to.lane];
        if now >= slot.disk_tried_at + DISK_AGAIN_MICROS {
            slot.disk_tried_at = now;
            slot.store.inner().try_disk_again();
        }
    }

    /// The rest of a tick: its commit, if that is still to come, and its effects.
    pub(crate) fn end_tick(&mut self, to: LaneAt, handled: Handled) {
        let Handled { count, unix_ms, committed } = handled;
        self.said_ms = unix_ms;
        let effects = if self.mutant == Some(Mutant::EffectsFirst) {
            // The effects leave whatever becomes of the commit, and the machine may die before it.
            let dies = self.dice.faults.chance(30);
            let slot = &mut self.nodes[to.node].lanes[to.lane];
            let effects = slot.lane.end_tick(Ok(()));
            if dies {
                self.release(to, effects);
                self.crash(to.node, "crash between effects and commit");
                return;
            }
            let _ = self.commit(to, None);
            effects
        } else {
            let committed = committed.unwrap_or_else(|| self.commit_tick(to));
            if self.nodes[to.node].dies_mid_tick && committed.is_ok() {
                self.coverage.add("fault.crash_mid_tick", 1);
                if self.profile.among_effects {
                    self.release_some(to);
                }
                self.crash(to.node, "crash between commit and effects");
                return;
            }
            self.nodes[to.node].lanes[to.lane].lane.end_tick(committed)
        };
        let numbers = [5, to.node as u64, to.lane as u64, count as u64, effects.len() as u64];
        let shown = effects.len();
        self.trace.note(self.now, &numbers, || {
            format!("{} handles {count} inputs, {shown} effects", at(to))
        });
        if self.ended {
            return;
        }
        if let Err(why) = bounded::check(self, to) {
            self.violate("bounded_queues", why);
        }
        let spins = count == 0 && spins::is_spin(self, to);
        if let Some(slot) = self.nodes[to.node].lanes.get_mut(to.lane) {
            slot.spins = if spins { slot.spins + 1 } else { 0 };
        }
        if let Err(why) = spins::check(self, to) {
            self.violate("lanes_rest", why);
        }
        let node = &self.nodes[to.node];
        let rolls_back = node.forgets_next_mint && node.minted && self.would_forget(to.node);
        self.dragged = rolls_back;
        self.release(to, effects);
        self.dragged = false;
        if rolls_back {
            self.roll_back(to.node);
            return;
        }
        if self.nodes[to.node].lanes[to.lane].store.inner().is_lost() {
            // The node ends without a mark; whether the machine goes with it is the dice's.
            self.coverage.add("disk.lost_sync", 1);
            if self.dice.faults.chance(500) {
                self.lose_power(to.node);
            } else {
                self.crash(to.node, "fault.crash");
            }
            self.start_later(to.node);
            return;
        }
        self.next_tick(to);
    }

    /// Lets a lane handle one input, and checks what it makes of proofs that it has forgotten.
    fn show(&mut self, to: LaneAt, input: Input) {
        let now = self.now_of(to.node);
        let evidence = self.evidence(to, &input);
        let deaf = self.deaf_to(evidence.as_ref());
        let slot = &mut self.nodes[to.node].lanes[to.lane];
        slot.store.deaf = deaf;
        slot.lane.handle(input, now, &mut slot.store);
        slot.store.deaf = Deaf::No;
        if let Some(evidence) = evidence {
            self.heed(to, evidence);
        }
    }

    fn next_tick(&mut self, to: LaneAt) {
        let Some(slot) = self.nodes[to.node].lanes.get(to.lane) else { return };
        if !slot.inbox.is_empty() {
            self.schedule_tick(to, self.now + 1);
        } else if let Some(due) = slot.lane.next_deadline() {
            let due = self.nodes[to.node].clock.when_it_shows(due).max(self.now + 1);
            self.schedule_tick(to, due);
        }
    }

    /// Commits what the tick staged, as its lane wants it.
    pub(crate) fn commit_tick(&mut self, to: LaneAt) -> Result<(), StoreError> {
        let slot = &mut self.nodes[to.node].lanes[to.lane];
        let fsync = slot.lane.wants_fsync(slot.store.inner().has_staged());
        self.commit(to, Some(fsync))
    }

    /// Commits what the tick staged and notes what is on the disk now.
    fn commit(&mut self, to: LaneAt, fsync: Option<bool>) -> Result<(), StoreError> {
        let node = &mut self.nodes[to.node];
        let slot = &mut node.lanes[to.lane];
        let (staged, vanished) = slot.store.take_tick();
        let hints = slot.store.take_hints();
        let collected = slot.store.take_collected();
        let trimmed = slot.store.take_trimmed();
        let emptied = slot.store.take_emptied();
        let committed =
            slot.store.commit(fsync.unwrap_or(self.profile.always_fsync), !staged.is_empty());
        if let Some(why) = vanished.into_iter().next() {
            self.violate("vanish", format!("{}: {why}", at(to)));
        }
        match &committed {
            Ok(()) => {
                self.note_committed(to, &staged);
                self.note_hints(to.node, &hints);
                self.note_collected(to.node, &collected);
                self.note_trimmed(to.node, &trimmed);
                for shard in emptied {
                    self.note_emptied(to.node, shard);
                }
            }
            Err(error) => {
                self.coverage.add("disk.commit_failed", 1);
                let text = error.to_string();
                self.trace.note(self.now, &[6], || format!("{} commit failed: {text}", at(to)));
                // In doubt means that the disk may have it all the same: all of the tick, or nothing.
                let nothing_else = staged.is_empty();
                let kept: Vec<Staged> = staged
                    .into_iter()
                    .filter(|s| self.nodes[to.node].has_record(s.shard, s.record.head.dot))
                    .collect();
                let there = nothing_else || !kept.is_empty();
                if !kept.is_empty() {
                    self.coverage.add("disk.failed_commit_kept", 1);
                    self.note_committed(to, &kept);
                }
                let mut hints = hints;
                let there_now = self.nodes[to.node].all_hints_on_disk();
                hints.held.retain(|hint| there_now.contains(hint));
                hints.released.retain(|hint| !there_now.contains(hint));
                self.note_hints(to.node, &hints);
                if there && matches!(error, StoreError::InDoubt { .. }) {
                    self.note_collected(to.node, &collected);
                }
            }
        }
        let node = &mut self.nodes[to.node];
        if node.disk.memory().unsynced() == 0 {
            node.unsynced.clear();
        }
        committed
    }

    /// Lets the first of a committed tick's effects out, none to all: behind the last of them the node dies.
    fn release_some(&mut self, from: LaneAt) {
        let mut effects = self.nodes[from.node].lanes[from.lane].lane.end_tick(Ok(()));
        let left = self.dice.deaths.below(effects.len() as u64 + 1) as usize;
        if (1..effects.len()).contains(&left) {
            self.coverage.add("fault.crash_among_effects", 1);
        }
        effects.truncate(left);
        self.release(from, effects);
    }

    /// Lets effects out.
    fn release(&mut self, from: LaneAt, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Ask { to, id, forwarded, message } => {
                    self.ask(from, to, id, forwarded, message);
                }
                Effect::Answer { to, op: _, message } => self.answer(from, to, message),
                Effect::Datagram { to, bytes } => self.send_datagram(from, to, bytes),
                Effect::Liveness { node, alive } => self.tell_liveness(from, node, alive),
                Effect::WentBack(name) => self.tell_others(from, &Input::WentBack(name)),
                Effect::DefineBucket { name, props } => self.define_bucket(from.node, name, props),
                Effect::Adopt(state) => self.adopt_layout(from.node, state),
                Effect::Unequal { .. } => {}
            }
        }
    }

    fn send_datagram(&mut self, from: LaneAt, to: PeerLane, bytes: Bytes) {
        let (Some(&node), lane) = (self.by_id.get(&to.node), usize::from(to.lane.0)) else {
            self.violate("routing", format!("{} speaks to a node that is no member", at(from)));
            return;
        };
        let conn = ConnId { asker: from, server: LaneAt { node, lane } };
        let state = self.net.conn(conn);
        let silenced = tamper::datagram(self.mutant, &bytes);
        if !state.up || silenced {
            return;
        }
        let epoch = state.epoch;
        self.coverage.add("net.datagrams", 1);
        for micros in self.net.datagram(from.node, node, self.now, &mut self.dice.datagrams) {
            let packet = Packet::Datagram { conn, epoch, bytes: bytes.clone() };
            self.queue.push(micros, Event::Arrive(Box::new(packet)));
        }
    }

    /// Lane 0 tells the other lanes of its node; lanes of one process lose nothing.
    fn tell_liveness(&mut self, from: LaneAt, node: NodeId, alive: bool) {
        if alive && self.mutant == Some(Mutant::KeepsDown) {
            return;
        }
        self.coverage.add(if alive { "liveness.alive" } else { "liveness.down" }, 1);
        let (who, peer) = (at(from), self.by_id.get(&node).copied().unwrap_or(usize::MAX));
        let numbers = [18, from.node as u64, peer as u64, u64::from(alive)];
        self.trace.note(self.now, &numbers, || {
            format!("{who}: n{peer} is {}", if alive { "alive" } else { "down" })
        });
        if !alive && let Err(why) = still::check(self, from.node, peer) {
            self.violate("stillness_accuses_nobody", why);
        }
        self.tell_others(from, &Input::Liveness { node, alive });
    }

    fn tell_others(&mut self, from: LaneAt, input: &Input) {
        for lane in 0..self.nodes[from.node].lanes.len() {
            if lane != from.lane {
                let to = LaneAt { node: from.node, lane };
                self.push_input(to, input.clone());
            }
        }
    }

    fn ask(&mut self, from: LaneAt, to: PeerLane, id: u64, forwarded: bool, message: Message) {
        let (Some(&node), lane) = (self.by_id.get(&to.node), usize::from(to.lane.0)) else {
            self.violate("routing", format!("{} asks a node that is no member", at(from)));
            return;
        };
        let conn = ConnId { asker: from, server: LaneAt { node, lane } };
        let asker_boot = self.nodes[from.node].boot;
        let epoch = self.net.conn(conn).epoch;
        if !self.net.conn(conn).up {
            self.coverage.add("net.undelivered", 1);
            self.push_input(from, Input::Undelivered { id });
            return;
        }
        if let Message::Hint(hint) = &message {
            self.coverage.add("hints.sent", 1);
            self.check_in_flight(&hint.record.head, from);
        }
        if let Message::Supply(supply) = &message {
            self.coverage.add("supplies.sent", 1);
            for head in &supply.heads {
                self.check_in_flight(head, from);
            }
        }
        if let Message::Replicate(replicate) = &message {
            self.coverage.add(if id < ASKS_PER_OP { "repairs.sent" } else { "replicates.sent" }, 1);
            self.count_repair(from, id);
            self.check_in_flight(&replicate.head, from);
        }
        let Some(message) = tamper::ask(self.mutant, id, message) else {
            return;
        };
        if let Some(reply) = tamper::instead(self.mutant, id, &message) {
            self.push_input(from, Input::Reply { id, message: reply });
            return;
        }
        let ask = AskRef { conn, epoch, asker_boot, id };
        self.note_message(from, conn.server, &message);
        let message = self.through_codec(id, forwarded, message);
        // A client's request sent on runs once: connections never repeat it.
        let mut fate = self.net.fate(conn, true, !forwarded, self.now, &mut self.dice.net);
        if let (true, Fate::Arrives(times)) = (self.dragged, &mut fate) {
            // On its way for so long that its sender is back before it arrives.
            let longer = self.dice.net.between(20_000, 400_000);
            times.iter_mut().for_each(|micros| *micros += longer);
        }
        self.dispatch(fate, conn, Packet::Ask { ask, forwarded, message });
    }

    /// What no operation waits for is a repair of a read, or where the layout changes what is moved.
    fn count_repair(&mut self, from: LaneAt, id: u64) {
        if id >= ASKS_PER_OP || self.profile.changes.is_some() {
            return;
        }
        if let Some(slot) = self.nodes[from.node].lanes.get_mut(from.lane) {
            slot.repairs += 1;
        }
        if let Err(why) = bounded::repairs(self, from) {
            self.violate("bounded_repairs", why);
        }
    }

    fn answer(&mut self, from: LaneAt, to: ReplyTo, message: Message) {
        let Some(route) = self.routes.remove(&to.link) else {
            let what = format!("{} answers twice with {}", at(from), message.name());
            self.violate("answered_once", what);
            return;
        };
        if let Message::PutDone(done) = &message {
            let found = ack::check(self, done);
            if let Err(why) = found {
                self.violate("durable_at_ack", why);
            }
        }
        if let Message::GetDone(done) = &message
            && let Err(why) = expiry::shown(self, from, done)
        {
            self.violate("shown_until_its_end", why);
        }
        if let Message::Pulled(Ok(pulled)) = &message {
            for head in &pulled.heads {
                self.check_in_flight(head, from);
            }
        }
        if says_damaged(&message) {
            self.coverage.add("damage.answered", 1);
        }
        let message = tamper::answer(self.mutant, message);
        let message = tamper::clocks(self.mutant, &self.ledger, message);
        let message = match self.layout.transition() {
            Some(_) => tamper::on_layouts(self.mutant, message),
            None => message,
        };
        match route {
            Route::Nobody => {}
            Route::Consumer(consumer, ask) => self.tell_consumer(from, consumer, ask, message),
            Route::Client(call) => {
                let message = self.through_codec(to.id, false, message);
                let wait = self.dice.net.between(20, self.profile.delay_max);
                self.queue.push(
                    self.now + wait,
                    Event::Arrive(Box::new(Packet::Answer { call, message })),
                );
            }
            Route::Peer(ask) => {
                self.note_message(from, ask.conn.asker, &message);
                let message = self.through_codec(to.id, false, message);
                let state = self.net.conn(ask.conn);
                if self.net.is_stream() && (!state.up || state.epoch != ask.epoch) {
                    return;
                }
                if let Some(id) = tamper::second_ack(self.mutant, ask.id, &message) {
                    let message = message.clone();
                    let ask = AskRef { id, ..ask };
                    self.queue.push(
                        self.now + 1,
                        Event::Arrive(Box::new(Packet::Reply { ask, message })),
                    );
                }
                let fate = self.net.fate(ask.conn, false, true, self.now, &mut self.dice.net);
                self.dispatch(fate, ask.conn, Packet::Reply { ask, message });
            }
        }
    }

    fn dispatch(&mut self, fate: Fate, conn: ConnId, packet: Packet) {
        match fate {
            Fate::Held => {
                self.coverage.add("net.held", 1);
                self.net.hold(conn, packet);
            }
            Fate::Arrives(times) => {
                match times.len() {
                    0 => self.coverage.add("net.lost", 1),
                    1 => {}
                    _ => self.coverage.add("net.doubled", 1),
                }
                for micros in times {
                    self.queue.push(micros, Event::Arrive(Box::new(packet.clone())));
                }
            }
        }
    }

    /// Sends what a cut held back.
    pub(crate) fn send_held(&mut self) {
        for packet in self.net.release() {
            let (conn, to_server) = match &packet {
                Packet::Ask { ask, .. } => (ask.conn, true),
                Packet::Reply { ask, .. } => (ask.conn, false),
                Packet::Request { .. }
                | Packet::Question { .. }
                | Packet::Told { .. }
                | Packet::Answer { .. }
                | Packet::Datagram { .. } => {
                    continue;
                }
            };
            let fate = self.net.fate(conn, to_server, false, self.now, &mut self.dice.net);
            self.dispatch(fate, conn, packet);
        }
    }

    /// A message from a peer reaches a lane.
    pub(crate) fn take_ask(&mut self, ask: AskRef, forwarded: bool, message: Message) {
        let from = self.route(Route::Peer(ask));
        let arrived = self.now_of(ask.conn.server.node).micros;
        self.push_input(ask.conn.server, Input::Request { from, forwarded, arrived, message });
    }

    /// A new place for an answer to go.
    pub(crate) fn route(&mut self, route: Route) -> ReplyTo {
        self.last_route += 1;
        self.routes.insert(self.last_route, route);
        ReplyTo { link: self.last_route, id: self.last_route }
    }

    pub(crate) fn peer_lane(&self, to: LaneAt) -> PeerLane {
        let lane = galvani_model::ids::LaneIndex(to.lane as u16);
        PeerLane { node: self.nodes[to.node].id, lane }
    }

    fn define_bucket(&mut self, node: usize, name: BucketName, props: BucketProps) {
        let now_ms = self.clock_ms(node);
        self.nodes[node].heard_of.entry(name.clone()).or_insert(now_ms);
        self.nodes[node].buckets.entry(name).or_insert(props);
        self.renew_topology(node);
    }

    fn check_in_flight(&mut self, head: &galvani_model::version::RecordHead, from: LaneAt) {
        let known = self.ledger.entry(head.dot).map(|entry| entry.record.head == *head);
        let effects_first = self.mutant == Some(Mutant::EffectsFirst);
        match known {
            Some(true) => {}
            Some(false) => {
                let what = format!("{} sends another record as {}", at(from), head.dot);
                self.violate("one_dot_one_record", what);
            }
            None if effects_first => {}
            None => {
                let what = format!("{} sends {}, which no node has committed", at(from), head.dot);
                self.violate("commit_before_send", what);
            }
        }
    }

    fn note_message(&mut self, from: LaneAt, to: LaneAt, message: &Message) {
        let numbers = [7, u64::from(message.kind()), from.node as u64, to.node as u64];
        self.trace.note(self.now, &numbers, || {
            let mut text = format!("{message:?}");
            text.truncate(text.floor_char_boundary(220));
            format!("{} -> {}: {text}", at(from), at(to))
        });
    }

    /// Encodes and decodes a message, in seeds that draw it so.
    pub(crate) fn through_codec(&mut self, id: u64, forwarded: bool, message: Message) -> Message {
        if !self.profile.codec {
            return message;
        }
        let mut bytes = BytesMut::new();
        encode(id, forwarded, &message, &mut bytes).expect("a small header");
        self.coverage.add("codec.frames", 1);
        match Frame::decode(bytes.freeze()) {
            Ok(frame) if frame.message == message && frame.id == id => frame.message,
            Ok(frame) => {
                self.violate("codec", format!("{message:?} came out as {:?}", frame.message));
                message
            }
            Err(error) => {
                self.violate("codec", format!("{message:?}: {error}"));
                message
            }
        }
    }

    /// How a call ended, for coverage.
    pub(crate) fn count_end(&mut self, end: CallEnd) {
        let name = match end {
            CallEnd::Silence => "writes.silence",
            CallEnd::Done => "writes.acked",
            CallEnd::No => "writes.answered_no",
            CallEnd::Maybe => "writes.answered_maybe",
        };
        self.coverage.add(name, 1);
    }
}

/// Whether an answer says that its replica's rows are damaged.
fn says_damaged(message: &Message) -> bool {
    match message {
        Message::Fetched(Err(error)) | Message::FetchedPage(Err(error)) => {
            *error == ReplicaError::Damaged
        }
        Message::Replicated(replicated) => replicated.result == Err(ReplicaError::Damaged),
        Message::Failed(failed) => failed.failure == Failure::Coordinator(ReplicaError::Damaged),
        _ => false,
    }
}
