//! Clients: what they ask, whom, with which context, and what they do when it fails.
//!
//! A client reads, writes blind, writes after what it read (sometimes long ago), deletes, merges,
//! lists and asks for the impossible; after silence or failure it may try the same logical write
//! again through another coordinator. Next to read: `hear.rs`, `oracles/`.

use crate::history::{Call, Purpose, Read, Write, value_of};
use crate::mutant::Mutant;
use crate::oracles::buried;
use crate::packet::{Event, LaneAt, Packet};
use crate::profile::TTL_MS_LONGEST;
use crate::tamper;
use crate::world::{World, context_key};
use bytes::Bytes;
use galvani_model::hlc::Hlc;
use galvani_model::ids::RequestId;
use galvani_model::limits::TTL_MS_MIN;
use galvani_model::request::{Quorum, ReadOptions, WriteOptions};
use galvani_model::version::{Context, DotSet, Kind};
use galvani_wire::Message;
use galvani_wire::message::{CreateBucket, Explain, Get, List, Put};
use std::collections::BTreeMap;

/// Contexts a client keeps of one key; the older ones are what it writes with when it is late.
const CONTEXTS_KEPT: usize = 3;
/// Calls of one logical write.
const TRIES_MAX: usize = 4;
/// How long a client waits beyond a request's own deadline, in microseconds.
pub(crate) const SLACK_MICROS: u64 = 700_000;

/// One client.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Contexts it has read, by key, newest last.
    pub(crate) contexts: BTreeMap<usize, Vec<Bytes>>,
    /// Milliseconds its wall clock is ahead of the world's.
    wall_ahead_ms: i64,
    last_hlc: Hlc,
    /// Does not wait for an answer before it asks again.
    open: bool,
}

impl Client {
    pub(crate) fn new(wall_ahead_ms: i64, open: bool) -> Client {
        let contexts = BTreeMap::new();
        Client { contexts, wall_ahead_ms, last_hlc: Hlc::default(), open }
    }

    pub(crate) fn keep_context(&mut self, key: usize, token: Bytes) {
        let kept = self.contexts.entry(key).or_default();
        kept.push(token);
        if kept.len() > CONTEXTS_KEPT {
            kept.remove(0);
        }
    }
}

/// What distinguishes one write from another before it is sent.
pub(crate) struct NewWrite {
    pub(crate) key: usize,
    pub(crate) kind: Kind,
    pub(crate) context: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) options: WriteOptions,
    pub(crate) timeout_ms: u32,
    pub(crate) impossible: bool,
}

impl World {
    /// A client's next operation, and when the one after it comes if it does not wait.
    pub(crate) fn client_next(&mut self, client: usize) {
        if self.calm || self.operations_left == 0 {
            return;
        }
        self.operations_left -= 1;
        self.coverage.add("operations", 1);
        let key = self.dice.clients.index(self.keys.len());
        match self.dice.clients.below(100) {
            0..40 => {
                let then_write = self.dice.clients.chance(300);
                self.random_read(client, key, then_write);
            }
            40..82 => self.random_write(client, key, Kind::Put),
            82..91 => self.random_write(client, key, Kind::Delete),
            91..94 => self.list_some(client, key),
            94..96 => self.explain_one(client, key),
            _ => self.ask_the_impossible(client, key),
        }
        if self.clients[client].open {
            self.go_on(client);
        }
    }

    /// A client thinks, then goes on.
    pub(crate) fn go_on(&mut self, client: usize) {
        let wait = self.dice.clients.between(1, self.profile.think_max.max(1));
        self.queue.push(self.now + wait, Event::ClientNext { client });
    }

    /// A client that waits for answers goes on after this one.
    pub(crate) fn after_answer(&mut self, client: usize) {
        if !self.clients[client].open {
            self.go_on(client);
        }
    }

    fn random_read(&mut self, client: usize, key: usize, then_write: bool) {
        let dice = &mut self.dice.clients;
        let n = self.keys[key].props.n;
        let narrowed = dice.chance(100).then(|| dice.between(1, u64::from(n)) as u8);
        let of = narrowed.unwrap_or(n);
        let r = dice.chance(500).then(|| Quorum::Exactly(dice.between(1, u64::from(of)) as u8));
        let strict = dice.chance(200);
        // Decided by the read's number, so that a seed's other draws stay what they are.
        let blocks = self.history.reads.len().is_multiple_of(5);
        let blocking_repair = blocks && !self.profile.hints_alone;
        let options = ReadOptions { n: narrowed, r, pr: None, strict, blocking_repair };
        let timeout_ms = dice.pick(&[100, 400, 1_500]);
        let to = self.random_coordinator(key);
        self.read(Some(client), key, options, timeout_ms, to, then_write, false);
    }

    /// Reads a key through a lane. Returns the read's number.
    #[allow(clippy::too_many_arguments)] // One call's worth of plain choices.
    pub(crate) fn read(
        &mut self,
        client: Option<usize>,
        key: usize,
        options: ReadOptions,
        timeout_ms: u32,
        to: LaneAt,
        then_write: bool,
        last: bool,
    ) -> usize {
        let number = self.history.reads.len();
        let started = self.now;
        let (epoch, met_unaware) = (self.settled_epoch(), buried::is_unaware(self, key));
        let answered = false;
        let read = Read { key, options, started, epoch, met_unaware, then_write, last, answered };
        self.history.reads.push(read);
        self.coverage.add("reads", 1);
        let key = self.keys[key].key.clone();
        let skips = self.mutant == Some(Mutant::SkipsConfirming);
        let blocking_repair = options.blocking_repair && !skips;
        let options = ReadOptions { blocking_repair, ..options };
        let message = Message::Get(Get { key, options, timeout_ms });
        self.call(client, Purpose::Read(number), to, message, timeout_ms);
        number
    }

    fn random_write(&mut self, client: usize, key: usize, kind: Kind) {
        let known = self.clients[client].contexts.get(&key).cloned().unwrap_or_default();
        let dice = &mut self.dice.clients;
        let context = match (known.len(), dice.below(100)) {
            (0, _) | (_, 0..25) => None,
            (count, 25..85) => Some(known[count - 1].clone()),
            (count, _) => Some(known[dice.index(count)].clone()),
        };
        self.write_with(client, key, kind, context);
    }

    /// Writes a key with a context, random quorums, through some coordinator.
    pub(crate) fn write_with(
        &mut self,
        client: usize,
        key: usize,
        kind: Kind,
        context: Option<Bytes>,
    ) {
        let n = self.keys[key].props.n;
        let ttl_ms = self.draw_ttl(kind);
        let dice = &mut self.dice.clients;
        let narrowed = dice.chance(100).then(|| dice.between(1, u64::from(n)) as u8);
        let of = u64::from(narrowed.unwrap_or(n));
        let strict = dice.chance(200);
        let mut some =
            |chance| dice.chance(chance).then(|| Quorum::Exactly(dice.between(1, of) as u8));
        let options =
            WriteOptions { n: narrowed, w: some(400), pw: some(80), dw: some(150), strict, ttl_ms };
        let timeout_ms = dice.pick(&[100, 400, 1_500]);
        let timeout_ms = self.stormy_timeout(timeout_ms);
        let impossible = false;
        let new = NewWrite { key, kind, context, value: None, options, timeout_ms, impossible };
        let number = self.new_write(client, new);
        let to = self.random_coordinator(key);
        self.send_write(Some(client), number, to);
        self.hurry_soon(number);
    }

    /// The time to live that a write asks for, if it asks for one; 0 overrides the bucket's.
    fn draw_ttl(&mut self, kind: Kind) -> Option<u64> {
        let dice = &mut self.dice.expiry;
        if kind == Kind::Delete || !dice.chance(self.profile.expiring) {
            return None;
        }
        self.coverage.add("writes.with_ttl", 1);
        Some(if dice.chance(100) { 0 } else { dice.between(TTL_MS_MIN, TTL_MS_LONGEST) })
    }

    /// A new logical write; nothing is sent yet.
    pub(crate) fn new_write(&mut self, client: usize, new: NewWrite) -> usize {
        let number = self.history.writes.len();
        let rid = RequestId(self.dice.clients.bits128());
        let who = &mut self.clients[client];
        let wall_ms =
            (1_790_000_000_000 + self.now / 1000).saturating_add_signed(who.wall_ahead_ms);
        let issued = who.last_hlc.tick(Hlc::default(), wall_ms);
        who.last_hlc = issued;
        let NewWrite { key, kind, context, value, options, timeout_ms, impossible } = new;
        let opened = context.as_ref().map(|token| {
            Context::open(token, &self.keys[key].key, &context_key())
                .map_or_else(|_| DotSet::new(), |context| context.seen)
        });
        let ttl_ms = options.ttl_ms.unwrap_or(self.keys[key].props.ttl_ms);
        let expires_ms = match kind {
            Kind::Put if ttl_ms > 0 => issued.unix_ms() + ttl_ms,
            Kind::Put | Kind::Delete | Kind::Emit => 0,
        };
        let value = match kind {
            Kind::Put => value.unwrap_or_else(|| value_of(self.seed, key, number)),
            Kind::Delete | Kind::Emit => Bytes::new(),
        };
        self.history.by_rid.insert(rid, number);
        let epoch = self.settled_epoch();
        self.history.writes.push(Write {
            key,
            kind,
            rid,
            issued,
            expires_ms,
            context,
            past: opened.unwrap_or_default(),
            value,
            options,
            timeout_ms,
            impossible,
            calls: Vec::new(),
            epoch,
            dots: Default::default(),
            holders: Default::default(),
            owned_by: Default::default(),
            first_ack: None,
            held_by: 0,
            handed: Default::default(),
            acked_at: None,
        });
        self.coverage.add("writes", 1);
        number
    }

    /// Sends a logical write, the first time or again, through a lane. Returns the call.
    pub(crate) fn send_write(&mut self, client: Option<usize>, number: usize, to: LaneAt) -> usize {
        let fresh_rid = self.mutant == Some(Mutant::NewWritePerRetry);
        if fresh_rid && !self.history.writes[number].calls.is_empty() {
            let rid = RequestId(self.dice.clients.bits128());
            self.history.writes[number].rid = rid;
            self.history.by_rid.insert(rid, number);
        }
        let write = &self.history.writes[number];
        let message = Message::Put(Put {
            key: self.keys[write.key].key.clone(),
            kind: write.kind,
            rid: write.rid,
            issued: write.issued,
            retry: !write.calls.is_empty(),
            context: write.context.clone(),
            options: tamper::options(self.mutant, write.options),
            timeout_ms: write.timeout_ms,
            value: write.value.clone(),
            emits: Vec::new(),
        });
        let timeout_ms = write.timeout_ms;
        let call = self.call(client, Purpose::Write(number), to, message, timeout_ms);
        self.history.writes[number].calls.push(call);
        call
    }

    /// After a call of a write that was not answered as done: perhaps once more, elsewhere.
    pub(crate) fn maybe_retry(&mut self, client: usize, number: usize) -> bool {
        let tries = self.history.writes[number].calls.len();
        if self.calm || self.by_script() || tries >= TRIES_MAX || !self.dice.clients.chance(700) {
            return false;
        }
        self.coverage.add("writes.retried", 1);
        let to = self.random_coordinator(self.history.writes[number].key);
        self.send_write(Some(client), number, to);
        true
    }

    /// Mostly an owner's right lane, sometimes any lane of any node.
    fn random_coordinator(&mut self, key: usize) -> LaneAt {
        let info = &self.keys[key];
        let dice = &mut self.dice.clients;
        if dice.chance(150) {
            let node = dice.index(self.nodes.len());
            return LaneAt { node, lane: dice.index(usize::from(self.profile.lanes)) };
        }
        let node = if dice.chance(600) { info.owners[0] } else { dice.pick(&info.owners) };
        self.lane_of(node, key)
    }

    /// The lane of a node that serves a key.
    pub(crate) fn lane_of(&self, node: usize, key: usize) -> LaneAt {
        let partition = self.keys[key].shard.partition;
        LaneAt { node, lane: usize::from(partition.0 % self.profile.lanes) }
    }

    /// Sends a request to a lane; a node that is down never gets it.
    pub(crate) fn call(
        &mut self,
        client: Option<usize>,
        purpose: Purpose,
        to: LaneAt,
        message: Message,
        timeout_ms: u32,
    ) -> usize {
        let call = self.history.calls.len();
        let (node, started) = (to.node, self.now);
        self.history.calls.push(Call { client, purpose, node, started, end: None });
        let name = message.name();
        self.trace.note(self.now, &[15, call as u64, node as u64], || {
            let mut text = format!("{purpose:?} {message:?}");
            text.truncate(text.floor_char_boundary(260));
            format!("call {call} to {}: {name} {text}", crate::world::at(to))
        });
        let message = self.through_codec(call as u64, false, message);
        let boot = self.nodes[node].boot;
        let wait = self.dice.net.between(20, self.profile.delay_max);
        let packet = Packet::Request { to, boot, call, message };
        self.queue.push(self.now + wait, Event::Arrive(Box::new(packet)));
        let by_its_clock = (u64::from(timeout_ms) * 1000 + SLACK_MICROS) * self.slowest();
        let patience = by_its_clock + 2 * self.profile.delay_max + self.slow_micros();
        self.queue.push(self.now + patience, Event::Patience { call });
        call
    }

    fn list_some(&mut self, client: usize, key: usize) {
        let bucket = self.keys[key].key.bucket().clone();
        let dice = &mut self.dice.clients;
        let list = List {
            bucket,
            partition: self.keys[key].shard.partition,
            prefix: Bytes::new(),
            after: dice.chance(300).then(|| Bytes::from_static(b"k3")),
            limit: dice.pick(&[1, 2, 100]),
            options: ReadOptions::default(),
            timeout_ms: 400,
        };
        let to = self.random_coordinator(key);
        self.call(Some(client), Purpose::Other, to, Message::List(list), 400);
    }

    fn explain_one(&mut self, client: usize, key: usize) {
        let explain = Explain { key: self.keys[key].key.clone(), hints: false, timeout_ms: 400 };
        let to = self.random_coordinator(key);
        self.call(Some(client), Purpose::Other, to, Message::Explain(explain), 400);
    }

    /// Makes a bucket through the node where buckets are made.
    pub(crate) fn make_bucket(&mut self, bucket: usize) {
        if self.calm {
            return;
        }
        self.ask_for_bucket(bucket);
        // Making it again finishes what was half made.
        self.queue.push(self.now + 1_500_000, Event::MakeBucket { bucket });
    }

    /// Asks for a bucket at the node where buckets are made.
    pub(crate) fn ask_for_bucket(&mut self, bucket: usize) {
        let made = &self.profile.buckets[bucket];
        let (name, props) = (made.name.clone(), made.props.clone());
        let message = Message::CreateBucket(CreateBucket { name, props, timeout_ms: 500 });
        let home = self.layout.current().members().first().map_or(0, |it| self.by_id[&it.id()]);
        let to = LaneAt { node: home, lane: 0 };
        self.call(None, Purpose::Other, to, message, 500);
        self.coverage.add("buckets.asked_for", 1);
    }

    fn ask_the_impossible(&mut self, client: usize, key: usize) {
        self.coverage.add("writes.impossible", 1);
        let n = self.keys[key].props.n;
        let mut options = WriteOptions::default();
        let (mut context, mut value) = (None, None);
        let other = self.clients[client].contexts.iter().find(|(of, _)| **of != key);
        let foreign = other.and_then(|(_, tokens)| tokens.last().cloned());
        match (self.dice.clients.below(6), foreign) {
            (0, _) => options.w = Some(Quorum::Exactly(n + 1)),
            (1, _) => options.n = Some(n + 1),
            (2, _) => value = Some(Bytes::from(vec![b'x'; (1 << 20) + 1])),
            (3, _) => options.w = Some(Quorum::Exactly(0)),
            (4, Some(token)) => context = Some(token),
            (5, Some(token)) => {
                let mut forged = token.to_vec();
                let at = self.dice.clients.index(forged.len());
                forged[at] ^= 1 << self.dice.clients.below(8);
                context = Some(forged.into());
            }
            (_, _) => context = Some(Bytes::from_static(b"no context at all")),
        }
        let (kind, timeout_ms) = (Kind::Put, 400);
        let new = NewWrite { key, kind, context, value, options, timeout_ms, impossible: true };
        let number = self.new_write(client, new);
        let to = self.random_coordinator(key);
        self.send_write(Some(client), number, to);
    }
}
