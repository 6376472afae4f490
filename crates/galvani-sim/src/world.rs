//! The world of one seed: nodes, network, clients, time; and the loop that lets it go on.
//!
//! Time is virtual and jumps from event to event. The world routes events and holds no policy:
//! lanes are driven in `drive.rs`, faults are ordered in `faults.rs`, clients act in `client.rs`,
//! and the end of a run is in `quiet.rs`.

use crate::client::Client;
use crate::clocks::LANES_BEGIN_MICROS;
use crate::consumer::Consumers;
use crate::history::{History, KeyInfo};
use crate::layouts::Layouts;
use crate::ledger::Ledger;
use crate::mutant::Mutant;
use crate::net::Net;
use crate::node::{Boot, Life, Node};
use crate::packet::{ConnId, Event, LaneAt, Packet, Route};
use crate::profile::Profile;
use crate::promised::Promises;
use crate::queue::Queue;
use crate::report::{Coverage, Violation};
use crate::rng::Rng;
use crate::store::Policies;
use crate::trace::Trace;
use galvani_model::bucket::BucketName;
use galvani_model::ids::{ClusterId, NodeId};
use galvani_model::key::Key;
use galvani_model::placement::{Layout, LayoutState, Member};
use galvani_model::version::{ContextKey, Dot};
use galvani_protocol::{Input, Now, Topology};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The randomness of a world, by who draws.
pub(crate) struct Dice {
    pub(crate) net: Rng,
    /// What becomes of datagrams, so that they leave the other draws as they are.
    pub(crate) datagrams: Rng,
    pub(crate) nodes: Rng,
    pub(crate) faults: Rng,
    pub(crate) clients: Rng,
    /// Which writes expire and when, so that they leave the other draws as they are.
    pub(crate) expiry: Rng,
    /// Which clocks are wrong by far, likewise.
    pub(crate) clocks: Rng,
    /// Which commits are slow, likewise.
    pub(crate) disks: Rng,
    /// Whose links are slow, likewise.
    pub(crate) lags: Rng,
    /// Who is asked again in a storm of retries, likewise.
    pub(crate) storms: Rng,
    /// Behind which effect of a tick a node dies, likewise.
    pub(crate) deaths: Rng,
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) profile: Profile,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) now: u64,
    pub(crate) queue: Queue<Event>,
    pub(crate) dice: Dice,
    /// The latest state of the layout that any node has adopted.
    pub(crate) layout: Arc<LayoutState>,
    pub(crate) layouts: Layouts,
    pub(crate) nodes: Vec<Node>,
    pub(crate) by_id: BTreeMap<NodeId, usize>,
    pub(crate) net: Net,
    pub(crate) routes: BTreeMap<u64, Route>,
    pub(crate) last_route: u64,
    pub(crate) policies: Policies,
    pub(crate) keys: Vec<KeyInfo>,
    pub(crate) key_index: BTreeMap<Key, usize>,
    pub(crate) clients: Vec<Client>,
    pub(crate) consumers: Consumers,
    pub(crate) operations_left: usize,
    pub(crate) history: History,
    pub(crate) ledger: Ledger,
    /// What stand-ins have said they hold.
    pub(crate) promises: Promises,
    /// Answers kept for a script, by call.
    pub(crate) answers: BTreeMap<usize, galvani_wire::Message>,
    pub(crate) trace: Trace,
    pub(crate) coverage: Coverage,
    pub(crate) violation: Option<Violation>,
    /// Whether the run ends here because what was done to it cannot be borne by any program.
    pub(crate) ended: bool,
    /// Whether a row was taken away that no checksum misses.
    pub(crate) planted: bool,
    /// Records whose rows vanished from some log without a trace.
    pub(crate) vanished: BTreeSet<Dot>,
    /// When a cut was last taken back.
    pub(crate) healed_at: u64,
    /// How often a node's links have become slow.
    pub(crate) lags: u64,
    /// Whether messages sent now are on their way for very long.
    pub(crate) dragged: bool,
    /// The date of the node whose effects leave now, when it made them, in milliseconds since 1970.
    pub(crate) said_ms: u64,
    /// Whether faults and clients have stopped.
    pub(crate) calm: bool,
}

impl World {
    /// The world of a seed before its first instant.
    pub(crate) fn new(seed: u64, profile: Profile, mutant: Option<Mutant>, keep: usize) -> World {
        let layout = Arc::new(LayoutState::founding(Arc::new(layout_of(&profile))));
        let policies = profile.buckets.iter().map(|b| (b.name.clone(), b.props.policy)).collect();
        let early = profile.buckets.iter().filter(|bucket| !bucket.late);
        let early: BTreeMap<_, _> = early.map(|b| (b.name.clone(), b.props.clone())).collect();
        let ids: Vec<NodeId> = (0..profile.hosts()).map(node_id).collect();
        // Where layouts stay, no node asks whether it voted in an earlier life.
        let voter = profile.changes.is_none();
        let new = |&id| Node::new(id, early.clone(), layout.clone(), voter, mutant);
        let mut nodes: Vec<Node> = ids.iter().map(new).collect();
        nodes.iter_mut().for_each(|node| node.notes_birth = profile.notes_births);
        let dice = Dice {
            net: Rng::new(seed, 2),
            datagrams: Rng::new(seed, 6),
            nodes: Rng::new(seed, 3),
            faults: Rng::new(seed, 4),
            clients: Rng::new(seed, 5),
            expiry: Rng::new(seed, 7),
            clocks: Rng::new(seed, 10),
            disks: Rng::new(seed, 11),
            deaths: Rng::new(seed, 12),
            lags: Rng::new(seed, 13),
            storms: Rng::new(seed, 14),
        };
        World {
            seed,
            net: Net::new(&profile),
            operations_left: profile.operations,
            profile,
            mutant,
            now: 0,
            queue: Queue::new(),
            dice,
            layouts: Layouts::new(seed, layout.clone()),
            layout,
            nodes,
            by_id: ids.into_iter().enumerate().map(|(at, id)| (id, at)).collect(),
            routes: BTreeMap::new(),
            last_route: 0,
            policies: Arc::new(policies),
            keys: Vec::new(),
            key_index: BTreeMap::new(),
            clients: Vec::new(),
            consumers: Consumers::new(seed),
            history: History::default(),
            ledger: Ledger::default(),
            promises: Promises::new(),
            answers: BTreeMap::new(),
            trace: Trace::new(keep),
            coverage: Coverage::default(),
            violation: None,
            ended: false,
            planted: false,
            vanished: BTreeSet::new(),
            healed_at: 0,
            lags: 0,
            dragged: false,
            said_ms: 0,
            calm: false,
        }
    }

    /// Handles everything due at or before `limit`, until an oracle is broken.
    pub(crate) fn run_until(&mut self, limit: u64) {
        while !self.is_over() {
            let Some((micros, event)) = self.queue.pop_until(limit) else { break };
            self.now = micros;
            self.handle(event);
        }
        self.now = self.now.max(limit);
    }

    /// Handles everything there is; false if that is not over at `limit`. It is over when every lane
    /// is settled: the sweeps of anti-entropy go on for ever.
    pub(crate) fn drain(&mut self, limit: u64) -> bool {
        while !self.is_over() {
            if self.is_settled() {
                return true;
            }
            let Some((micros, event)) = self.queue.pop_until(limit) else { break };
            self.now = micros;
            self.handle(event);
        }
        self.queue.is_empty()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tick { at, boot } => self.tick(at, boot),
            Event::Written { at, boot } => self.written(at, boot),
            Event::Arrive(packet) => self.arrive(*packet),
            Event::Detect { conn, epoch } => self.detect(conn, epoch),
            Event::Dial { conn, boot } => self.dial(conn, boot),
            Event::ClientNext { client } => self.client_next(client),
            Event::Patience { call } => self.out_of_patience(call),
            Event::MakeBucket { bucket } => self.make_bucket(bucket),
            Event::ConsumerNext { consumer } => self.consumer_next(consumer),
            Event::ConsumerPatience { consumer, ask } => self.consumer_gives_up(consumer, ask),
            Event::Nemesis => self.nemesis(),
            Event::Clocks => self.turn_a_clock(),
            Event::Lag => self.slow_a_peer(),
            Event::Unlag { node, number } => self.speed_up(node, number),
            Event::Hurry { write } => self.hurry(write),
            Event::ChangeLayout { left } => self.change_layout(left),
            Event::Border { node, boot } => self.at_border(node, boot),
            Event::Adopt { at, boot } => self.adopt_next(at, boot),
            Event::Heal { pairs } => self.heal(&pairs),
            Event::Resume { node, boot } => self.resume(node, boot),
            Event::Start { node } => self.start_node(node),
            Event::Stopped { node, boot, until } => self.stopped(node, boot, until),
            Event::Probe { node, left } => self.probe(node, left),
            Event::DiskFree { node } => self.nodes[node].disk.memory().set_full(false),
        }
    }

    /// Whether this run has anti-entropy.
    pub(crate) fn has_anti_entropy(&self) -> bool {
        self.profile.limits.anti_entropy_ms > 0
    }

    fn is_settled(&self) -> bool {
        // Probing goes on for ever, and settles nothing.
        let goes_on = |event: &Event| match event {
            Event::Tick { .. } => true,
            Event::Arrive(packet) => matches!(**packet, Packet::Datagram { .. }),
            _ => false,
        };
        self.queue.all(goes_on)
            && self
                .nodes
                .iter()
                .flat_map(|node| &node.lanes)
                .all(|slot| slot.is_read() && slot.lane.is_settled())
    }

    /// Starts a node that is down and lets it and its peers connect.
    pub(crate) fn start_node(&mut self, node: usize) {
        if !self.nodes[node].is_down() {
            return;
        }
        let boot = Boot {
            lanes: self.profile.lanes,
            limits: &self.profile.limits,
            always_fsync: self.profile.always_fsync,
            topology: self.topology_of(node),
            policies: &self.policies,
            mutant: self.mutant,
            began: self.nodes[node].clock.shows(self.now),
            remembers: !self.profile.faults.damage,
        };
        self.nodes[node].start(&boot, &mut self.dice.nodes);
        self.nodes[node].disturbed_at = self.now;
        let (now, boot) = (self.now, self.nodes[node].boot);
        self.trace.note(now, &[1, node as u64, boot], || format!("node {node} starts ({boot})"));
        for conn in self.net.ids() {
            if conn.asker.node == node {
                let wait = self.dice.net.between(10, 3_000);
                self.queue.push(now + wait, Event::Dial { conn, boot });
            } else if conn.server.node == node && self.net.conn(conn).up {
                // The new process does not know the connection and says so (a stateless reset).
                let epoch = self.net.conn(conn).epoch;
                let wait = self.dice.net.between(10, 20_000);
                self.queue.push(now + wait, Event::Detect { conn, epoch });
            }
        }
    }

    /// What a node knows of the cluster.
    pub(crate) fn topology_of(&self, node: usize) -> Arc<Topology> {
        let mut buckets = self.nodes[node].buckets.clone();
        if self.mutant == Some(Mutant::LastWriterWins) {
            for props in buckets.values_mut() {
                props.policy = galvani_model::bucket::ConflictPolicy::Lww;
            }
        }
        let (id, layout) = (self.nodes[node].id, self.nodes[node].layout.clone());
        Arc::new(Topology::new(id, "sim".into(), layout, buckets, context_key()))
    }

    /// The same with a later state or other buckets than its lanes know: as the real node makes it.
    pub(crate) fn next_topology_of(&mut self, node: usize) -> Arc<Topology> {
        let whole = self.topology_of(node);
        let known = self.nodes[node].topology.take().unwrap_or_else(|| whole.clone());
        let mut next = Topology::clone(&known);
        if known.epoch() < whole.epoch() {
            next = known.with_layout(whole.layout().clone());
        }
        next.buckets.clone_from(&whole.buckets);
        let next = Arc::new(next);
        self.nodes[node].topology = Some(next.clone());
        next
    }

    /// A lane tries to connect; tries again while that may still work.
    fn dial(&mut self, conn: ConnId, boot: u64) {
        let (asker, server) = (conn.asker.node, conn.server.node);
        if self.nodes[asker].boot != boot || self.nodes[asker].is_down() {
            return;
        }
        if self.net.conn(conn).up {
            return;
        }
        let cut = self.net.is_cut(asker, server) || self.net.is_cut(server, asker);
        if cut || !self.nodes[server].is_awake() || !self.nodes[asker].is_awake() {
            let wait = self.dice.net.between(20_000, 200_000);
            self.queue.push(self.now + wait, Event::Dial { conn, boot });
            return;
        }
        self.net.bring_up(conn);
        let peer = self.peer_lane(conn.server);
        self.trace
            .note(self.now, &[2], || format!("{} reaches {}", at(conn.asker), at(conn.server)));
        self.push_input(conn.asker, Input::PeerUp(peer));
    }

    /// A lane notices that a connection is dead, if it still is.
    fn detect(&mut self, conn: ConnId, epoch: u64) {
        let state = self.net.conn(conn);
        if !state.up || state.epoch != epoch {
            return;
        }
        let (asker, server) = (conn.asker.node, conn.server.node);
        let cut = self.net.is_cut(asker, server) || self.net.is_cut(server, asker);
        let restarted = self.nodes[server].disturbed_at + 1_000_000 > self.now;
        if !(cut || restarted || !self.nodes[server].is_awake()) {
            return;
        }
        self.net.take_down(conn);
        let (peer, boot) = (self.peer_lane(conn.server), self.nodes[asker].boot);
        self.trace.note(self.now, &[3], || format!("{} loses {}", at(conn.asker), at(conn.server)));
        self.coverage.add("net.peer_down", 1);
        self.push_input(conn.asker, Input::PeerDown(peer));
        let wait = self.dice.net.between(1_000, 200_000);
        self.queue.push(self.now + wait, Event::Dial { conn, boot });
    }

    /// Puts an input before a lane that lives, and sees that it is worked on.
    pub(crate) fn push_input(&mut self, to: LaneAt, input: Input) {
        let node = &mut self.nodes[to.node];
        let Some(slot) = node.lanes.get_mut(to.lane) else { return };
        slot.inbox.push_back(input);
        let wait = self.dice.net.below(200);
        self.schedule_tick(to, self.now + wait);
    }

    /// As [`World::push_input`], for what has dice of its own.
    fn push_datagram(&mut self, to: LaneAt, input: Input) {
        let Some(slot) = self.nodes[to.node].lanes.get_mut(to.lane) else { return };
        slot.inbox.push_back(input);
        let wait = self.dice.datagrams.below(200);
        self.schedule_tick(to, self.now + wait);
    }

    /// Sees that a lane works at `micros` or before.
    pub(crate) fn schedule_tick(&mut self, to: LaneAt, micros: u64) {
        let boot = self.nodes[to.node].boot;
        let Some(slot) = self.nodes[to.node].lanes.get_mut(to.lane) else { return };
        if slot.tick_at.is_none_or(|due| due > micros) {
            slot.tick_at = Some(micros);
            self.queue.push(micros, Event::Tick { at: to, boot });
        }
    }

    /// A message arrives, if whom it is for still lives.
    fn arrive(&mut self, packet: Packet) {
        match packet {
            Packet::Ask { ask, forwarded, message } => {
                let stale = self.net.is_stream() && self.net.conn(ask.conn).epoch != ask.epoch;
                if !stale && !self.nodes[ask.conn.server.node].is_down() {
                    self.take_ask(ask, forwarded, message);
                }
            }
            Packet::Reply { ask, message } => {
                let node = &self.nodes[ask.conn.asker.node];
                let stale = self.net.is_stream() && self.net.conn(ask.conn).epoch != ask.epoch;
                if !stale && !node.is_down() && node.boot == ask.asker_boot {
                    self.push_input(ask.conn.asker, Input::Reply { id: ask.id, message });
                }
            }
            Packet::Datagram { conn, epoch, bytes } => {
                let stale = self.net.conn(conn).epoch != epoch;
                if !stale && !self.nodes[conn.server.node].is_down() {
                    let from = self.peer_lane(conn.asker);
                    self.push_datagram(conn.server, Input::Datagram { from, bytes });
                }
            }
            Packet::Request { to, boot, call, message } => {
                if !self.nodes[to.node].is_down() && self.nodes[to.node].boot == boot {
                    let from = self.route(Route::Client(call));
                    let arrived = self.now_of(to.node).micros;
                    self.push_input(
                        to,
                        Input::Request { from, forwarded: false, arrived, message },
                    );
                }
            }
            Packet::Answer { call, message } => self.client_hears(call, message),
            Packet::Question { to, boot, consumer, ask, message } => {
                if !self.nodes[to.node].is_down() && self.nodes[to.node].boot == boot {
                    let from = self.route(Route::Consumer(consumer, ask));
                    let arrived = self.now_of(to.node).micros;
                    self.push_input(
                        to,
                        Input::Request { from, forwarded: false, arrived, message },
                    );
                }
            }
            Packet::Told { from, boot, consumer, ask, message } => {
                self.consumer_hears(from, boot, consumer, ask, message);
            }
        }
    }

    /// The time a node's lanes are told.
    pub(crate) fn now_of(&self, node: usize) -> Now {
        let late_ms = if self.mutant == Some(Mutant::ShowsExpired) { 60_000 } else { 0 };
        let micros = self.nodes[node].clock.shows(self.now);
        Now { micros, unix_ms: self.clock_ms(node) - late_ms }
    }

    /// A node's wall clock, in milliseconds since 1970.
    pub(crate) fn clock_ms(&self, node: usize) -> u64 {
        self.clock_if_set_ms(node, self.nodes[node].wall_ahead_ms)
    }

    /// A node's wall clock as it would be, had its date been set so far ahead.
    pub(crate) fn clock_if_set_ms(&self, node: usize, ahead_ms: i64) -> u64 {
        let elapsed = self.nodes[node].clock.shows(self.now) - LANES_BEGIN_MICROS;
        self.wall_at(elapsed).saturating_add_signed(ahead_ms)
    }

    /// A wall clock that is right, at a virtual time.
    pub(crate) fn wall_at(&self, micros: u64) -> u64 {
        EPOCH_MS + micros / 1000
    }

    /// What a wall clock that is right shows now.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.wall_at(self.now)
    }

    /// An oracle is broken; the first one counts.
    pub(crate) fn violate(&mut self, oracle: &'static str, details: String) {
        if self.violation.is_none() {
            self.trace.note(self.now, &[4], || format!("VIOLATION {oracle}: {details}"));
            self.violation = Some(Violation { oracle, details, at_micros: self.now });
        }
    }

    /// Whether nothing of this run is of interest any more.
    pub(crate) fn is_over(&self) -> bool {
        self.violation.is_some() || self.ended
    }

    /// Up, so that faults may hit it.
    pub(crate) fn nodes_that(&self, life: Life) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&node| self.nodes[node].life == life).collect()
    }
}

/// A lane's name in traces.
pub(crate) fn at(lane: LaneAt) -> String {
    format!("n{}.{}", lane.node, lane.lane)
}

/// The id of the node at a position.
pub(crate) fn node_id(position: usize) -> NodeId {
    NodeId((position as u128 + 1) << 80)
}

pub(crate) fn context_key() -> ContextKey {
    ContextKey(*b"simulated secret")
}

fn layout_of(profile: &Profile) -> Layout {
    let members = (0..profile.nodes).map(|node| member(profile, node)).collect();
    let default = profile.buckets.iter().find(|b| b.name == BucketName::default_bucket());
    let n = default.map_or(3, |bucket| bucket.props.n);
    Layout::compute(ClusterId(7), 1, profile.partitions, n, members)
        .expect("no bucket has more copies than there are nodes")
}

/// A node as a member.
pub(crate) fn member(profile: &Profile, node: usize) -> Member {
    let port = |lane: u16| 7400 + node as u16 * 64 + lane;
    let address = |lane| core::net::SocketAddr::from(([127, 0, 0, 1], port(lane)));
    let lanes = (0..profile.lanes).map(address).collect();
    Member::new(node_id(node), format!("n{node}"), "z", 100, lanes)
        .expect("names, weights and addresses are within bounds")
}

/// Where virtual time starts: some day in 2026.
const EPOCH_MS: u64 = 1_790_000_000_000;
