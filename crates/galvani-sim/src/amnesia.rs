//! A node that has forgotten some of its own dots while its origin is still in use: who can know.
//!
//! A volume that is rolled back to a clean stop carries the mark and the fingerprint of that stop:
//! only what peers and clients say can show that the counter went back. Peers that know are asked
//! at the start (rule 3); whoever names a lost dot later must be heard, whatever the message
//! (rule 4). Where nobody who can speak knows, a dot is used twice and no program could have
//! noticed: such a run ends there. Source: algorithms 2.2.

use crate::client::NewWrite;
use crate::mutant::Mutant;
use crate::node::{Node, state_in};
use crate::packet::{Event, LaneAt};
use crate::store::Deaf;
use crate::world::{World, at, context_key};
use bytes::Bytes;
use galvani_model::ids::{Origin, Shard};
use galvani_model::key::Key;
use galvani_model::request::{Quorum, ReadOptions, WriteOptions};
use galvani_model::store::{OwnOrigin, Store};
use galvani_model::version::{Context, Dot, DotSet, Kind};
use galvani_protocol::Input;
use galvani_storage::engine::MemoryEngine;
use galvani_wire::Message;
use std::collections::BTreeSet;

/// How long a probe waits for its answer.
const PROBE_TIMEOUT_MS: u32 = 400;
/// Probes after a volume was rolled back.
pub(crate) const PROBES: u32 = 8;

/// What a rolled-back node has forgotten of one shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forgotten {
    /// The origin whose counter went back.
    pub(crate) origin: Origin,
    /// Whether another owner's disk, or a hint, named a lost dot then, and no disk lost anything since.
    pub(crate) known: bool,
    /// Whether a message has named a lost dot since.
    pub(crate) told: bool,
}

/// A message that names more of a vnode's own dots than it has minted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence {
    shard: Shard,
    own: OwnOrigin,
    path: Path,
}

/// What kind of message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// A record that a coordinator or a repair brings.
    Record,
    /// The dots a reader says it has.
    Digest,
    /// What a client has seen.
    Context,
    /// A record in the answer to a read.
    Answer,
}

impl World {
    /// What an input proves to a lane before it handles it.
    pub(crate) fn evidence(&mut self, to: LaneAt, input: &Input) -> Option<Evidence> {
        if self.nodes[to.node].rolled_back.is_empty() || self.comes_too_late(to.node, input) {
            return None;
        }
        let names = self.names(to.node, input)?;
        let store = self.nodes[to.node].lanes[to.lane].store.inner();
        let own = store.replica(names.shard).ok()?.own?;
        let named = names.dots.iter().filter(|dot| dot.origin == own.origin);
        let named = named.map(|dot| dot.counter).max().unwrap_or_default();
        let ahead = named.max(names.past.max_counter(own.origin)) > own.counter;
        ahead.then_some(Evidence { shard: names.shard, own, path: names.path })
    }

    /// Whether a peer's request has waited for longer than its asker does: it is dropped unread, as if it had
    /// been lost on the way.
    fn comes_too_late(&self, node: usize, input: &Input) -> bool {
        let (arrived, timeout_ms) = match input {
            Input::Request { arrived, message: Message::Replicate(asked), .. } => {
                (*arrived, asked.timeout_ms)
            }
            Input::Request { arrived, message: Message::Fetch(asked), .. } => {
                (*arrived, asked.timeout_ms)
            }
            _ => return false,
        };
        let waited_ms = self.now_of(node).micros.saturating_sub(arrived) / 1_000;
        timeout_ms != 0 && waited_ms >= u64::from(timeout_ms)
    }

    /// The dots that a message names, where it is one that must be heard.
    fn names(&self, node: usize, input: &Input) -> Option<Names> {
        let shard_of = |key: &Key| {
            let known = self.nodes[node].buckets.contains_key(key.bucket());
            let info = &self.keys[*self.key_index.get(key)?];
            (known && info.owners.contains(&node)).then_some(info.shard)
        };
        match input {
            Input::Request { message: Message::Replicate(replicate), .. } => {
                let shard = shard_of(&replicate.head.key)?;
                let (dots, past) = (vec![replicate.head.dot], replicate.head.past.clone());
                Some(Names { shard, dots, past, path: Path::Record })
            }
            Input::Request { message: Message::Fetch(fetch), .. } => {
                let shard = shard_of(&fetch.key)?;
                let (dots, past) = (fetch.have.clone(), DotSet::new());
                Some(Names { shard, dots, past, path: Path::Digest })
            }
            Input::Request { message: Message::Put(put), .. } => {
                let context = Context::open(put.context.as_ref()?, &put.key, &context_key());
                let (shard, past) = (shard_of(&put.key)?, context.ok()?.seen);
                Some(Names { shard, dots: Vec::new(), past, path: Path::Context })
            }
            Input::Reply { message: Message::Fetched(Ok(held)), .. } => {
                let shard = shard_of(&held.heads.first()?.key)?;
                let dots = held.heads.iter().map(|head| head.dot).collect();
                let mut past = DotSet::new();
                held.heads.iter().for_each(|head| past.union(&head.past));
                Some(Names { shard, dots, past, path: Path::Answer })
            }
            _ => None,
        }
    }

    /// Checks that a lane has drawn the conclusion from what it was shown.
    pub(crate) fn heed(&mut self, to: LaneAt, evidence: Evidence) {
        let Evidence { shard, own, path } = evidence;
        let store = self.nodes[to.node].lanes[to.lane].store.inner();
        // A store that cannot be read mints nothing either.
        let Ok(now) = store.replica(shard).map(|state| state.own) else { return };
        let kept = now.filter(|now| now.origin == own.origin);
        let Some(kept) = kept else {
            let name = match path {
                Path::Record => "amnesia.noticed_by_record",
                Path::Digest => "amnesia.noticed_by_digest",
                Path::Context => "amnesia.noticed_by_context",
                Path::Answer => "amnesia.noticed_by_answer",
            };
            self.coverage.add(name, 1);
            return;
        };
        // Refused before it was looked at, or the answer to a read that is over.
        if matches!(path, Path::Context | Path::Answer) && kept.counter == own.counter {
            return;
        }
        if let Some(forgotten) = self.nodes[to.node].rolled_back.get_mut(&shard) {
            forgotten.told = true;
        }
        // Where a guard was taken out the dot that is used twice must show it. Not of digests and records:
        // what follows, or the members' answers (rule 3), says the same a moment later.
        if matches!(self.mutant, None | Some(Mutant::IgnoresDigests | Mutant::IgnoresRecords)) {
            let what = format!("{} {shard}: {path:?} names more than {own:?}", at(to));
            self.violate("amnesia_is_noticed", what);
        }
    }

    /// How deaf a mutant makes the store while a lane handles this evidence.
    pub(crate) fn deaf_to(&self, evidence: Option<&Evidence>) -> Deaf {
        let Some(evidence) = evidence else { return Deaf::No };
        match (self.mutant, evidence.path) {
            (Some(Mutant::IgnoresRecords), Path::Record | Path::Answer) => Deaf::Always,
            (Some(Mutant::IgnoresDigests), Path::Digest) => Deaf::Always,
            // The first is rule 4; a second one would be that of a mint that cannot wait.
            (Some(Mutant::IgnoresContexts), Path::Context) => Deaf::Once,
            _ => Deaf::No,
        }
    }

    /// Notes what a node has forgotten whose volume was just rolled back: the dots that any node
    /// ever committed beyond its counters.
    pub(crate) fn note_forgotten(&mut self, node: usize) {
        self.nodes[node].rolled_back.clear();
        let disk = self.nodes[node].disk.clone();
        for (shard, now) in self.forgets(disk.memory()) {
            let origin = now.origin;
            let others = self.layout.owners(shard).into_iter().map(|id| self.by_id[&id]);
            let knows = |other: usize| {
                other != node
                    && self.nodes[other].clock_on_disk(shard).max_counter(origin) > now.counter
            };
            let hinted = |other: &Node| other.hinted_on_disk(shard, origin) > now.counter;
            let known = others.into_iter().any(knows) || self.members().any(hinted);
            let name = if known { "amnesia.known" } else { "amnesia.unknown" };
            self.coverage.add(name, 1);
            let forgotten = Forgotten { origin, known, told: false };
            self.nodes[node].rolled_back.insert(shard, forgotten);
        }
    }

    /// Clients come back to a node whose volume was rolled back: first with what they have seen and to
    /// those who may know, at last with a write that needs a new dot.
    pub(crate) fn probe(&mut self, node: usize, left: u32) {
        if self.calm || left == 0 {
            return;
        }
        let wait = self.dice.clients.between(10_000, 120_000);
        self.queue.push(self.now + wait, Event::Probe { node, left: left - 1 });
        let forgotten: Vec<(Shard, Forgotten)> =
            self.nodes[node].rolled_back.iter().map(|(shard, f)| (*shard, *f)).collect();
        if forgotten.is_empty() || !self.nodes[node].is_awake() {
            return;
        }
        let (shard, Forgotten { origin, .. }) = self.dice.clients.pick(&forgotten);
        let keys: Vec<usize> =
            (0..self.keys.len()).filter(|&key| self.keys[key].shard == shard).collect();
        let key = self.dice.clients.pick(&keys);
        let minted = self.nodes[node].state_on_disk(shard).clock.max_counter(origin);
        let context = keys.iter().find_map(|&key| self.context_beyond(key, origin, minted));
        match context {
            Some((key, context)) => self.probe_write(node, key, Some(context)),
            None if left > 2 => {
                let owner = self.dice.clients.index(self.keys[key].owners.len());
                let to = self.lane_of(self.keys[key].owners[owner], key);
                let options = ReadOptions { r: Some(Quorum::One), ..ReadOptions::default() };
                self.read(None, key, options, PROBE_TIMEOUT_MS, to, false, false);
            }
            None => self.probe_write(node, key, None),
        }
    }

    /// What a client has seen of a key that names more than `minted` dots of an origin.
    fn context_beyond(&self, key: usize, origin: Origin, minted: u64) -> Option<(usize, Bytes)> {
        let of = &self.keys[key].key;
        let kept = self.clients.iter().filter_map(|client| client.contexts.get(&key)).flatten();
        let beyond = |token: &&Bytes| {
            let context = Context::open(token, of, &context_key());
            context.is_ok_and(|context| context.seen.max_counter(origin) > minted)
        };
        kept.into_iter().find(beyond).map(|token| (key, token.clone()))
    }

    fn probe_write(&mut self, node: usize, key: usize, context: Option<Bytes>) {
        let client = self.dice.clients.index(self.clients.len());
        let options = WriteOptions { w: Some(Quorum::One), ..WriteOptions::default() };
        let (kind, value, impossible) = (Kind::Put, None, false);
        let timeout_ms = PROBE_TIMEOUT_MS;
        let new = NewWrite { key, kind, context, value, options, timeout_ms, impossible };
        let write = self.new_write(client, new);
        let to = self.lane_of(node, key);
        self.send_write(None, write, to);
    }

    /// Whether a node would forget a dot if its volume were rolled back now.
    pub(crate) fn would_forget(&self, node: usize) -> bool {
        let copy = self.nodes[node].clean_copy.as_ref();
        copy.is_some_and(|copy| !self.forgets(&copy.rows).is_empty())
    }

    /// The actors on a disk that minted more than it knows of.
    fn forgets(&self, disk: &MemoryEngine) -> Vec<(Shard, OwnOrigin)> {
        let shards: BTreeSet<Shard> = self.keys.iter().map(|info| info.shard).collect();
        let forgets = |shard| {
            let own = state_in(disk, shard)?.own?;
            (self.ledger.max_counter(own.origin) > own.counter).then_some((shard, own))
        };
        shards.into_iter().filter_map(forgets).collect()
    }

    /// A disk has lost something: what it could have said of others' dots may be gone.
    pub(crate) fn doubt_witnesses(&mut self, lost: usize) {
        for (node, other) in self.nodes.iter_mut().enumerate() {
            if node != lost {
                other.rolled_back.values_mut().for_each(|forgotten| forgotten.known = false);
            }
        }
    }

    /// Whether a dot that a node has just minted twice was one that nobody could tell it of.
    pub(crate) fn is_unknowable(&self, node: usize, shard: Shard, dot: Dot) -> bool {
        let forgotten = self.nodes[node].rolled_back.get(&shard);
        forgotten.is_some_and(|f| f.origin == dot.origin && !f.known && !f.told)
    }
}

/// The dots a message names of one shard.
struct Names {
    shard: Shard,
    dots: Vec<Dot>,
    past: DotSet,
    path: Path,
}
