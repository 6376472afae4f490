//! The driver of one lane: drain what arrived, handle each, one commit, release the effects.
//!
//! One thread, one endpoint, one current-thread runtime. Frames of a tick leave in one write per
//! stream; what a tick changed is one batch; an effect never leaves before its batch is as durable
//! as promised (INV-2). No policy lives here. Next to read: `galvani-protocol/src/lane.rs`.

use crate::client_rates::ClientRates;
use crate::clock::Clock;
use crate::config::DurabilityMode;
use crate::faults;
use crate::figures::{self, LaneFigures};
use crate::links::{Links, Who};
use crate::permission::{Permission, permission};
use crate::repair::{self, LaneRepair};
use crate::shared::{Control, Shared};
use costs::PageCosts;
use galvani_model::ids::{LaneIndex, NodeId};
use galvani_model::placement::Member;
use galvani_model::store::{Store, StoreError};
use galvani_protocol::{Effect, Input, Lane, Now, PeerLane, Standing};
use galvani_storage::NodeStore;
use galvani_storage::engine::Engine;
use galvani_transport::{Class, CloseCode, Event, LaneEndpoint, LinkId, PeerIdentity, SendError};
use galvani_wire::Message;
use galvani_wire::codec::{Frame, HEADER_BYTES_MAX, HeaderTooLong, encode};
use galvani_wire::failure::{AppliedOutcome, Failure, ReplicaError};
use galvani_wire::message::Failed;
use galvani_wire::view::{Counters, DAMAGED_NAMED_MAX};
use refusals::{is_bucket_ask, unsendable, without_bucket};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use twins::Twins;

/// How often a lane publishes its figures, in microseconds.
const PUBLISH_MICROS: u64 = 200_000;

/// How often a lane that has something to do looks after its disk, in microseconds; an idle one each second.
const TEND_MICROS: u64 = 200_000;
/// Bytes a tick may stage, or hold back in answers, before it is committed and the next one begins: bounds
/// the batch, its memory and the journal's torn tail after a crash.
const TICK_BYTES_MAX: usize = 32 << 20;
/// Request rows one sweep looks at: five sweeps a second see a million rows in half an hour, at
/// a cost far below that of one request.
const SWEEP_ROWS: usize = 100;
/// How long a stopping lane finishes what is under way, in microseconds.
const DRAIN_MICROS: u64 = 5_000_000;
/// How long a stopping lane waits for its last answers to be taken.
const FLUSH: Duration = Duration::from_secs(1);
/// Close code: a frame that is no message of this protocol.
const MALFORMED: CloseCode = CloseCode::application(0);
/// Close code: a message that this certificate may not send.
const NOT_PERMITTED: CloseCode = CloseCode::application(1);
/// The id of a request whose answer nobody waits for.
const NOBODY: u64 = 0;

/// One lane with everything it drives.
pub(crate) struct LaneLoop<E: Engine> {
    pub(crate) me: PeerLane,
    /// How this node is reached, as a member or otherwise.
    pub(crate) member: Member,
    /// When it last told that it is no member, in its microseconds.
    pub(crate) announced_at: u64,
    pub(crate) lane: Lane,
    pub(crate) store: NodeStore<E>,
    pub(crate) endpoint: LaneEndpoint,
    pub(crate) links: Links,
    pub(crate) rates: ClientRates,
    pub(crate) shared: Arc<Shared<E>>,
    pub(crate) clock: Clock,
    pub(crate) durability: DurabilityMode,
    pub(crate) control: UnboundedReceiver<Control>,
    pub(crate) published_at: u64,
    /// When it last looked after its disk. Not `published_at`: who asks for figures often would put it off.
    pub(crate) tended_at: u64,
    pub(crate) repair: LaneRepair,
    pub(crate) twins: Twins,
    pub(crate) costs: PageCosts,
}

impl<E: Engine> LaneLoop<E> {
    /// Runs until it is told to stop and nothing is under way, or the drain time is over.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        let mut events = Vec::new();
        let mut stop_by = None;
        loop {
            let now = self.clock.now();
            let redial = self.links.dial_due(&self.endpoint, now.micros);
            let wake = self.next_wake(redial, stop_by);
            let sleep = tokio::time::sleep_until(self.clock.at(wake));
            let control = tokio::select! {
                biased;
                control = self.control.recv() => control,
                _ = self.endpoint.recv_batch(&mut events) => None,
                () = sleep => None,
            };
            let now = self.clock.now();
            match control {
                Some(Control::Topology(topology)) => {
                    self.meet(&topology, now);
                    self.lane.handle(Input::Topology(topology), now, &mut self.store);
                }
                Some(Control::Applicants) => self.meet(&self.shared.topology(), now),
                // Lane 0 is told what it said: hearing it again changes nothing.
                Some(Control::Liveness { node, alive }) => {
                    self.lane.handle(Input::Liveness { node, alive }, now, &mut self.store);
                }
                Some(Control::WentBack(name)) => {
                    self.lane.handle(Input::WentBack(name), now, &mut self.store);
                }
                Some(Control::TwinServed(name)) => {
                    self.lane.handle(Input::TwinServed(name), now, &mut self.store);
                }
                Some(Control::Repair { asked, partition }) => {
                    self.lane.handle(Input::Verify(partition), now, &mut self.store);
                    self.repair.on_asked(asked, self.lane.repair(), &self.counters());
                    self.publish_now(now);
                }
                Some(Control::Stop) => {
                    stop_by = Some(now.micros + DRAIN_MICROS);
                    self.twins.stop();
                    self.lane.handle(Input::Stop, now, &mut self.store);
                }
                None => {}
            }
            self.on_events(&mut events, now);
            self.announce(now);
            self.look_for_twins(now);
            self.lane.handle(Input::Wake, now, &mut self.store);
            self.end_tick(now);
            self.tend(now);
            self.publish(now);
            if self.store.is_lost() {
                let what = "a sync failed, and what it lost is not known".to_owned();
                return Err(StoreError::Failed { what });
            }
            if stop_by.is_some_and(|by| self.lane.inflight() == 0 || now.micros >= by) {
                break;
            }
        }
        self.endpoint.shutdown(FLUSH).await;
        self.publish_now(self.clock.now());
        self.store.close()
    }

    fn next_wake(&self, redial: Option<u64>, stop_by: Option<u64>) -> u64 {
        // A node that is no member tells so at least as often.
        let publish = self.published_at + PUBLISH_MICROS * 5;
        let others = [self.lane.next_deadline(), redial, stop_by];
        others.into_iter().flatten().fold(publish, u64::min)
    }

    /// Handles what arrived; a tick that has staged enough ends, and the next one begins.
    fn on_events(&mut self, events: &mut Vec<Event>, now: Now) {
        for event in events.drain(..) {
            self.on_event(event, now);
            if self.store.staged_bytes() + self.lane.held_back() > TICK_BYTES_MAX {
                self.end_tick(now);
            }
        }
    }

    fn on_event(&mut self, event: Event, now: Now) {
        match event {
            Event::LinkUp { link, peer, .. } => {
                if let Some(peer) = self.links.on_up(link, peer) {
                    tracing::info!(event = "peer_up", node = %peer.node, lane = peer.lane.0);
                    self.lane.handle(Input::PeerUp(peer), now, &mut self.store);
                    self.greet(link, peer, now);
                    self.tell_buckets(link, peer);
                }
            }
            Event::LinkDown { link, reason, .. } => {
                self.twins.forget(link);
                if reason.is_distrust()
                    && let Some(peer) = self.links.take_refusal(link)
                {
                    let lane = peer.lane.0;
                    tracing::warn!(event = "peer_refused", node = %peer.node, lane, reason = %reason);
                }
                if let Some(peer) = self.links.on_down(link, now.micros) {
                    let lane = peer.lane.0;
                    tracing::info!(event = "peer_down", node = %peer.node, lane, reason = %reason);
                    self.lane.handle(Input::PeerDown(peer), now, &mut self.store);
                }
            }
            Event::Datagram { link, payload } => {
                if let Some(from) = self.links.sender(link) {
                    let datagram = Input::Datagram { from, bytes: payload };
                    self.lane.handle(datagram, now, &mut self.store);
                }
            }
            Event::Frame { link, class, arrived, payload } => {
                let size = payload.len();
                if !self.may_decode(link, &payload) {
                    return;
                }
                match Frame::decode(payload) {
                    Ok(frame) => {
                        let arrived = self.clock.micros_at(arrived);
                        self.on_frame(link, class, arrived, frame, now);
                    }
                    Err(error) => {
                        tracing::warn!(event = "malformed_frame", size, error = %error);
                        self.endpoint.close(link, MALFORMED, "malformed frame");
                    }
                }
            }
        }
    }

    /// Tells a node of the buckets that were made while the cluster ran: it may have lost its disk.
    /// Nobody waits for the answer; one that it knows already changes nothing.
    fn tell_buckets(&self, link: LinkId, peer: PeerLane) {
        if self.me.lane != LaneIndex(0) || peer.lane != LaneIndex(0) || peer.node == self.me.node {
            return;
        }
        for bucket in self.shared.buckets_made() {
            let message = Message::DefineBucket(bucket);
            let sent = self.send(link, class_of(&message), NOBODY, false, &message);
            if let Err(error) = sent {
                // The next link brings them.
                tracing::warn!(event = "buckets_not_told", node = %peer.node, error = %error);
                return;
            }
        }
    }

    /// Whether a frame is worth decoding: its link is still wanted, and clients send requests only.
    fn may_decode(&mut self, link: LinkId, payload: &[u8]) -> bool {
        match self.links.who(link) {
            None => false,
            Some(Who::Accepted(PeerIdentity::Client { .. }))
                if !Frame::is_client_request(payload) =>
            {
                self.refuse_link(link, "not for this certificate");
                false
            }
            Some(Who::Accepted(_) | Who::Dialed(_)) => true,
        }
    }

    /// Closes a link and hears nothing more of it, not even what has arrived already.
    fn refuse_link(&mut self, link: LinkId, why: &str) {
        tracing::warn!(event = "message_not_permitted", why);
        self.endpoint.close(link, NOT_PERMITTED, why);
        self.links.forget_accepted(link);
    }

    fn on_frame(&mut self, link: LinkId, class: Class, arrived: u64, frame: Frame, now: Now) {
        let Frame { id, forwarded, message } = frame;
        let identity = match self.links.who(link) {
            None => return,
            Some(&Who::Dialed(peer)) => {
                match message {
                    Message::Twin(twin) => self.on_twin(link, peer, twin, now),
                    message => self.handle(Input::Reply { id, message }, now),
                }
                return;
            }
            Some(Who::Accepted(identity)) => identity,
        };
        let from = Links::reply_to(link, class, id);
        match permission(identity, forwarded, &message) {
            Permission::Granted => {}
            Permission::Denied => {
                let (failure, applied) = (Failure::NotPermitted, AppliedOutcome::No);
                let failed = Failed { failure, applied, answers: Vec::new() };
                let _ = self.send(link, class, id, false, &Message::Failed(failed));
                return;
            }
            Permission::Hostile => {
                self.refuse_link(link, "not for this certificate");
                return;
            }
        }
        if let Err(retry_after_ms) = self.rates.take(identity, &message, now.micros) {
            let (failure, applied) = (Failure::RateLimited { retry_after_ms }, AppliedOutcome::No);
            let failed = Failed { failure, applied, answers: Vec::new() };
            let _ = self.send(link, class, id, false, &Message::Failed(failed));
            return;
        }
        match &message {
            Message::Status => {
                self.publish_now(now);
                let status = figures::status(&self.shared, &self.clock, self.durability);
                let status = Message::StatusIs(Box::new(status));
                let _ = self.send(link, class, id, false, &status);
                return;
            }
            Message::Repair(repair) => {
                if repair.start {
                    self.shared.ask_repair(repair.partition);
                }
                self.publish_now(now);
                let state = Message::RepairState(Box::new(repair::state(&self.shared)));
                let _ = self.send(link, class, id, false, &state);
                return;
            }
            Message::SetFaults(wanted) => {
                let answer = faults::answer(&self.shared, wanted);
                let _ = self.send(link, class, id, false, &answer);
                return;
            }
            Message::Greet(greeting) => {
                if let Some(node) = identity.node_id() {
                    self.on_greet(link, NodeId::from_bytes(node), greeting.clone());
                }
                return;
            }
            Message::Announce(member) => {
                if identity.node_id() == Some(member.id().to_bytes()) {
                    self.shared.note_applicant(Member::clone(member), now.micros);
                }
                let _ = self.send(link, class, id, false, &Message::Noted);
                return;
            }
            Message::DefineBucket(bucket) if self.shared.contradicts(bucket) => {
                // Nobody waits for the answer that says so.
                let name = &bucket.name;
                tracing::error!(event = "bucket_conflict", bucket = %name, by = ?identity);
            }
            _ => {}
        }
        self.handle(Input::Request { from, forwarded, arrived, message }, now);
    }

    /// Lets the lane handle a message, and notes what that took if it is a page.
    fn handle(&mut self, input: Input, now: Now) {
        if !costs::is_page(&input) {
            self.lane.handle(input, now, &mut self.store);
            return;
        }
        let (began, staged) = (self.clock.uptime(), self.store.staged_bytes());
        let synced = self.lane.wants_fsync(true);
        self.lane.handle(input, now, &mut self.store);
        let took = self.clock.uptime().saturating_sub(began);
        let staged = self.store.staged_bytes().saturating_sub(staged);
        let syncs = !synced && self.lane.wants_fsync(true);
        self.costs.add(took.as_micros() as u64, staged, syncs);
    }

    /// Commits what the tick staged and lets its effects out. What cannot be sent is told to the
    /// lane at once, in a further small tick.
    fn end_tick(&mut self, now: Now) {
        loop {
            let fsync = self.lane.wants_fsync(self.store.has_staged());
            let began = self.costs.any().then(|| (self.clock.uptime(), self.store.staged_bytes()));
            let committed = self.store.commit(fsync);
            if let Some((began, staged)) = began {
                let took = self.clock.uptime().saturating_sub(began);
                let micros = self.costs.settle(took.as_micros() as u64, staged);
                self.lane.paid_for_pages(micros, self.clock.now());
            }
            let effects = self.lane.end_tick(committed);
            if effects.is_empty() {
                return;
            }
            let mut defined = self.define_buckets(&effects).into_iter();
            let mut lost_bucket = None;
            for effect in effects {
                if matches!(effect, Effect::DefineBucket { .. }) {
                    // Of an earlier one that is lost the answers that follow speak already.
                    let lost = defined.next().and_then(Result::err);
                    lost_bucket = lost_bucket.or(lost.map(|error| error.to_string()));
                    continue;
                }
                match &lost_bucket {
                    None => self.release(effect, now),
                    // Nobody else may learn of it either.
                    Some(_) if is_bucket_ask(&effect) => self.undelivered(effect, now),
                    Some(why) => {
                        let effect = without_bucket(effect, why);
                        self.release(effect, now);
                    }
                }
            }
        }
    }

    fn undelivered(&mut self, effect: Effect, now: Now) {
        if let Effect::Ask { id, .. } = effect {
            self.lane.handle(Input::Undelivered { id }, now, &mut self.store);
        }
    }

    /// Writes down all buckets that a tick has heard of, together: a node that lost its disk hears
    /// of thousands at once. What became of each, in their order.
    fn define_buckets(&self, effects: &[Effect]) -> Vec<Result<(), StoreError>> {
        let new = effects.iter().filter_map(|effect| match effect {
            Effect::DefineBucket { name, props } => Some((name.clone(), props.clone())),
            _ => None,
        });
        let new: Vec<_> = new.collect();
        if new.is_empty() {
            return Vec::new();
        }
        let defined = self.shared.define_buckets(&new);
        for ((name, _), outcome) in new.iter().zip(&defined) {
            match outcome {
                Ok(()) => tracing::info!(event = "bucket_defined", bucket = %name),
                Err(error) => {
                    tracing::error!(event = "bucket_lost", bucket = %name, error = %error);
                }
            }
        }
        defined
    }

    fn release(&mut self, effect: Effect, now: Now) {
        match effect {
            Effect::Ask { to, id, forwarded, message } => {
                let class = class_of(&message);
                let link = self.links.to(to);
                let sent = link.map(|link| self.send(link, class, id, forwarded, &message));
                if sent != Some(Ok(())) {
                    self.lane.handle(Input::Undelivered { id }, now, &mut self.store);
                }
            }
            Effect::Answer { to, op: _, message } => {
                // Whoever asked may be gone: then nobody needs the answer.
                let Some((link, class)) = self.links.answer_to(to) else { return };
                // The refusal is small; if even that cannot be sent, the asker's deadline speaks.
                match self.send(link, class, to.id, false, &message) {
                    Ok(()) | Err(SendError::Closed | SendError::ClassNotOpen) => {}
                    Err(SendError::TooLarge { .. }) => {
                        let why = ReplicaError::AnswerTooLarge;
                        let _ = self.send(link, class, to.id, false, &unsendable(message, why));
                    }
                    Err(SendError::Full) => {
                        let why = ReplicaError::Overloaded;
                        let _ = self.send(link, class, to.id, false, &unsendable(message, why));
                    }
                }
            }
            Effect::Datagram { to, bytes } => {
                if let Some(link) = self.links.to(to) {
                    self.endpoint.send_datagram(link, bytes);
                }
            }
            Effect::Liveness { node, alive } => {
                tracing::info!(event = "liveness", node = %node, alive);
                self.shared.tell_all(&Control::Liveness { node, alive });
            }
            Effect::WentBack(name) => repair::on_went_back(&self.shared, name),
            Effect::Adopt(state) => {
                let (epoch, version) = (state.epoch(), state.current().version());
                match self.shared.adopt_layout(state) {
                    Ok(()) => tracing::info!(event = "layout", epoch, version),
                    // It is asked for again, by whoever hears of it next.
                    Err(error) => {
                        tracing::error!(event = "layout_not_kept", epoch, error = %error);
                    }
                }
            }
            Effect::Unequal { peer, shard, mended } => repair::log_unequal(peer, shard, mended),
            // All of the tick were written down together.
            Effect::DefineBucket { .. } => {}
        }
    }

    fn send(
        &self,
        link: LinkId,
        class: Class,
        id: u64,
        forwarded: bool,
        message: &Message,
    ) -> Result<(), SendError> {
        let mut encoded = Ok(());
        let write = |out: &mut _| encoded = encode(id, forwarded, message, out);
        let sent = self.endpoint.send_with(link, class, write).and_then(|()| {
            let max = HEADER_BYTES_MAX;
            encoded.map_err(|HeaderTooLong { bytes }| SendError::TooLarge { bytes, max })
        });
        if let Err(error) = &sent {
            tracing::debug!(event = "not_sent", kind = message.name(), error = %error);
        }
        sent
    }

    /// Looks after the disk now and then: a shut engine or a full disk may do again.
    fn tend(&mut self, now: Now) {
        if now.micros >= self.tended_at + TEND_MICROS {
            self.tended_at = now.micros;
            self.sweep(now);
            self.store.try_disk_again();
        }
    }

    fn publish(&mut self, now: Now) {
        if now.micros >= self.published_at + PUBLISH_MICROS {
            self.publish_now(now);
        }
    }

    /// Stages the removal of request rows past their retention; the next tick commits it.
    fn sweep(&mut self, now: Now) {
        if let Err(error) = self.store.forget_requests(now.unix_ms, SWEEP_ROWS) {
            tracing::warn!(event = "sweep_failed", error = %error);
        }
    }

    /// What the lane and its store have counted.
    fn counters(&self) -> Counters {
        let mut counters = self.lane.counters().clone();
        counters.rate_limited = self.rates.refused();
        counters.quarantined = self.store.quarantined();
        counters.rows_mended = self.store.mended();
        counters.rows_damaged = self.store.damaged().len() as u64;
        counters
    }

    fn publish_now(&mut self, now: Now) {
        self.published_at = now.micros;
        let (linked, mut peers_down) = self.links.nodes();
        let standing = |node: &NodeId| self.lane.standing(*node);
        let (lost, peers_up): (Vec<NodeId>, Vec<NodeId>) =
            linked.into_iter().partition(|node| standing(node) == Standing::Down);
        peers_down.extend(lost);
        let suspect = |node: &&NodeId| standing(node) == Standing::Suspect;
        let peers_suspect = peers_up.iter().filter(suspect).copied().collect();
        let mut peers_silent: Vec<NodeId> =
            self.lane.peers_silent().map(|peer| peer.node).collect();
        peers_silent.dedup();
        let counters = self.counters();
        let inflight = self.lane.inflight() as u32;
        let shards_behind = self.lane.shards_behind() as u32;
        let hints = self.store.hint_figures().clone();
        let network = self.endpoint.counters();
        let figures = LaneFigures {
            repair: self.repair.figures(self.lane.repair(), &counters),
            damaged: self.store.damaged().iter().take(DAMAGED_NAMED_MAX).cloned().collect(),
            counters,
            inflight,
            engine_fails: self.store.fails_again(),
            bytes_in: network.bytes_in,
            bytes_out: network.bytes_out,
            shards_behind,
            layout_epoch: self.lane.layout_epoch(),
            shards_copying: self.lane.shards_copying() as u32,
            shards_leaving: self.lane.shards_leaving() as u32,
            copying: self.lane.copying(),
            refilling: self.lane.refilling(),
            tombstones: self.store.tombstones_waiting(),
            expiring: self.store.expiring_waiting(),
            collection_waits: self.lane.collection_waits(),
            feed_keep_ms: self.lane.feed_keep_ms(),
            trim_waits: self.lane.trim_waits().into_iter().collect(),
            hints,
            peers_up,
            peers_down,
            peers_suspect,
            peers_silent,
            runs_twice: self.twins.running_twice(),
            unequal: repair::unequal(&self.lane).take(DAMAGED_NAMED_MAX).collect(),
            unequal_all: self.lane.unequal().count() as u32,
        };
        self.shared.publish(self.me.lane.0 as usize, figures);
    }
}

/// The stream class a request to a peer travels on.
fn class_of(message: &Message) -> Class {
    match message {
        Message::Replicate(replicate) if replicate.timeout_ms == 0 => Class::Background,
        Message::AskKnown(_)
        | Message::DefineBucket(_)
        | Message::Compare(_)
        | Message::Pull(_)
        | Message::AskSlice(_)
        | Message::PullHints(_)
        | Message::HintsWait(_)
        | Message::AskClocks(_)
        | Message::FindHints(_) => Class::Background,
        Message::Hint(hint) if hint.record.timeout_ms == 0 => Class::Background,
        Message::Put(_) | Message::Get(_) | Message::List(_) | Message::Explain(_) => Class::Client,
        _ => Class::Replication,
    }
}

mod applicant;
pub(crate) mod costs;
mod refusals;
pub(crate) mod twins;

#[cfg(test)]
mod tests;
