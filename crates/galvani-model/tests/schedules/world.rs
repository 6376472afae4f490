//! Three replicas of one shard, two keys, and a scheduler with one seed.
//!
//! Replicas are the real `Object`, `PartitionClock`, `DotSet` and `RecordHead`; only the store is
//! replaced by maps. The oracles look from the client's side: a write that a client saw before it
//! wrote under that context may go, nothing else may; what went stays gone; replicas that took in
//! the same writes are equal.

use galvani_model::bucket::ConflictPolicy;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{NodeId, Origin, RequestId, WriteId};
use galvani_model::key::Key;
use galvani_model::version::{
    Digest, Dot, DotSet, Kind, Object, PartitionClock, Range, RecordHead, Version, object_digest,
    value_hash,
};
use std::collections::{BTreeMap, BTreeSet};

const REPLICAS: usize = 3;
const KEYS: usize = 2;
const STEPS: usize = 120;

/// The rules that must hold; switched off one at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guards {
    /// Contexts name exactly the dots seen, not everything below the highest.
    pub(crate) exact_contexts: bool,
    /// Compression asks the answering replica's clock.
    pub(crate) compress_asks_clock: bool,
    /// A dot in the clock is never applied again.
    pub(crate) apply_asks_clock: bool,
    /// A retry joins the write it repeats.
    pub(crate) alias_rule: bool,
    /// A coordinator that has seen the request mints nothing.
    pub(crate) coordinator_knows_request: bool,
    /// A counter in doubt starts a new origin.
    pub(crate) new_incarnation: bool,
    /// The date of a write is a function of the request.
    pub(crate) date_by_request: bool,
    /// A tombstone is collected only when every replica has taken in all that it replaced.
    pub(crate) collect_asks_past: bool,
    /// ... and the tombstone itself.
    pub(crate) collect_asks_all: bool,
    /// Compression of what an author has seen asks whether that is all the key holds.
    pub(crate) author_saw_all: bool,
}

impl Default for Guards {
    fn default() -> Guards {
        Guards {
            exact_contexts: true,
            compress_asks_clock: true,
            apply_asks_clock: true,
            alias_rule: true,
            coordinator_knows_request: true,
            new_incarnation: true,
            date_by_request: true,
            collect_asks_past: true,
            collect_asks_all: true,
            author_saw_all: true,
        }
    }
}

/// What a schedule may do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Setup {
    pub(crate) policy: ConflictPolicy,
    pub(crate) retries: bool,
    pub(crate) rollback: bool,
    pub(crate) collect: bool,
    pub(crate) guards: Guards,
}

/// What an oracle found.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "read through Debug when a schedule fails")]
pub(crate) enum Broken {
    Diverged { key: usize },
    UnequalDigests,
    Lost { write: u64 },
    CameBack { write: u64 },
    ShownTwice { write: u64 },
    CounterNotDense { replica: usize },
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

#[derive(Clone, Default)]
struct Replica {
    incarnation: u64,
    counter: u64,
    clock: PartitionClock,
    log: BTreeMap<Dot, RecordHead>,
    objects: BTreeMap<Key, Object>,
    requests: BTreeSet<WriteId>,
    digest: Digest,
}

impl Replica {
    fn origin(&self, index: usize) -> Origin {
        Origin((index as u128 + 1) << 64 | u128::from(self.incarnation))
    }

    fn object(&self, key: &Key) -> Object {
        self.objects.get(key).cloned().unwrap_or_default()
    }

    fn apply(&mut self, head: &RecordHead, setup: &Setup) {
        if self.clock.contains(head.dot) && setup.guards.apply_asks_clock {
            return;
        }
        self.clock.insert(head.dot);
        self.log.insert(head.dot, head.clone());
        let retry = !self.requests.insert(head.write_id()) && setup.guards.alias_rule;
        let mut object = self.object(&head.key);
        let before = object_digest(&head.key, &object);
        object.apply(head, retry, setup.policy);
        self.digest.replace(before, object_digest(&head.key, &object));
        self.objects.insert(head.key.clone(), object);
    }

    fn context(&self, key: &Key, guards: &Guards) -> (DotSet, Hlc) {
        let object = self.object(key);
        let mut seen = object.seen();
        if !guards.exact_contexts || !guards.compress_asks_clock {
            // Both mistakes claim every dot below the highest.
            let highest: Vec<(Origin, u64)> =
                seen.iter().map(|(origin, _, _)| (origin, seen.max_counter(origin))).collect();
            for (origin, counter) in highest {
                if guards.exact_contexts {
                    let mut all = PartitionClock::new();
                    all.insert_range(Range { origin, first: 1, last: counter });
                    seen.compress(&all);
                } else {
                    seen.insert_through(origin, counter);
                }
            }
        }
        seen.compress(&self.clock);
        (seen, object.hlc())
    }

    /// Loses the newest one or two of its own writes, as after a power cut.
    fn roll_back(&mut self, index: usize, back: u64, setup: &Setup) -> Vec<Dot> {
        let origin = self.origin(index);
        let keep = self.counter.saturating_sub(back);
        let lost: Vec<Dot> = (keep + 1..=self.counter).map(|n| Dot::new(origin, n)).collect();
        let kept: Vec<RecordHead> =
            self.log.values().filter(|head| !lost.contains(&head.dot)).cloned().collect();
        let incarnation = self.incarnation;
        *self = Replica { incarnation, counter: keep, ..Replica::default() };
        for head in kept {
            self.apply(&head, setup);
        }
        if setup.guards.new_incarnation {
            self.incarnation += 1;
            self.counter = 0;
        }
        lost
    }
}

/// One logical write as its client knows it.
#[derive(Clone)]
struct Write {
    key: Key,
    kind: Kind,
    past: DotSet,
    hlc: Hlc,
    /// Logical writes its client had seen.
    saw: BTreeSet<u64>,
    holders: BTreeSet<usize>,
}

struct World {
    setup: Setup,
    rng: Rng,
    replicas: Vec<Replica>,
    net: Vec<(usize, RecordHead)>,
    writes: BTreeMap<u64, Write>,
    contexts: Vec<(Key, DotSet, Hlc, BTreeSet<u64>)>,
    time: u64,
}

/// Runs one schedule; what broke, if anything did.
pub(crate) fn run(seed: u64, setup: Setup) -> Option<Broken> {
    let replicas = vec![Replica::default(); REPLICAS];
    let (net, writes, contexts) = (Vec::new(), BTreeMap::new(), Vec::new());
    let mut world = World { setup, rng: Rng(seed), replicas, net, writes, contexts, time: 0 };
    for _ in 0..STEPS {
        world.step();
    }
    world.heal();
    world.judge()
}

impl World {
    fn step(&mut self) {
        self.time += 1 + self.rng.next() % 3;
        match self.rng.below(100) {
            0..30 => self.read(),
            30..60 => self.write(),
            60..90 if !self.net.is_empty() => self.deliver(),
            60..95 => self.exchange(),
            95..98 if self.setup.rollback => self.power_cut(),
            _ if self.setup.collect => self.collect(),
            _ => self.exchange(),
        }
    }

    fn key(&mut self) -> Key {
        let name = format!("k{}", self.rng.below(KEYS));
        Key::new("default".parse().expect("a name"), name).expect("a key")
    }

    fn read(&mut self) {
        let (at, key) = (self.rng.below(REPLICAS), self.key());
        let replica = &self.replicas[at];
        let (seen, hlc) = replica.context(&key, &self.setup.guards);
        let shown = shown(&replica.object(&key), &replica.log);
        self.keep((key, seen, hlc, shown));
    }

    /// A client keeps a context for a later write.
    fn keep(&mut self, context: (Key, DotSet, Hlc, BTreeSet<u64>)) {
        self.contexts.push(context);
        if self.contexts.len() > 6 {
            self.contexts.remove(0);
        }
    }

    /// A replica that has taken a write in tells its author what it has seen.
    fn answer(&mut self, at: usize, id: u64, head: &RecordHead) {
        let replica = &self.replicas[at];
        let mut seen = replica.object(&head.key).seen_by_author(head, &replica.clock);
        if !self.setup.guards.author_saw_all {
            seen.compress(&replica.clock);
        }
        let mut saw = self.writes[&id].saw.clone();
        saw.insert(id);
        self.keep((head.key.clone(), seen, head.hlc, saw));
    }

    fn write(&mut self) {
        if self.setup.retries && !self.writes.is_empty() && self.rng.chance(25) {
            let ids: Vec<u64> = self.writes.keys().copied().collect();
            let id = ids[self.rng.below(ids.len())];
            self.coordinate(id);
            return;
        }
        let key = self.key();
        let known: Vec<_> = self.contexts.iter().filter(|known| known.0 == key).cloned().collect();
        let (past, seen_hlc, saw) = match known.is_empty() || self.rng.chance(30) {
            true => (DotSet::new(), Hlc(0), BTreeSet::new()),
            false => {
                let (_, past, hlc, saw) = known[self.rng.below(known.len())].clone();
                (past, hlc, saw)
            }
        };
        let kind = if self.rng.chance(25) { Kind::Delete } else { Kind::Put };
        let hlc = Hlc::from_unix_ms(self.time).max(Hlc(seen_hlc.0 + 1));
        let id = self.writes.len() as u64 + 1;
        let write = Write { key, kind, past, hlc, saw, holders: BTreeSet::new() };
        self.writes.insert(id, write);
        self.coordinate(id);
    }

    /// One try of a logical write through some replica.
    fn coordinate(&mut self, id: u64) {
        let at = self.rng.below(REPLICAS);
        let write = self.writes[&id].clone();
        let hlc = match self.setup.guards.date_by_request {
            true => write.hlc,
            false => write.hlc.max(Hlc::from_unix_ms(self.time)),
        };
        let value = id.to_le_bytes();
        let mut head = RecordHead {
            dot: Dot::new(Origin(0), 0),
            key: write.key,
            past: write.past,
            hlc,
            rid: RequestId(u128::from(id)),
            author: NodeId(at as u128),
            kind: write.kind,
            value_len: 8,
            value_hash: value_hash(write.kind, &value),
            expires_ms: 0,
            supersedes: Default::default(),
            concurrent: Default::default(),
            emits: Vec::new(),
        };
        let replica = &mut self.replicas[at];
        if self.setup.guards.coordinator_knows_request
            && self.setup.guards.alias_rule
            && replica.requests.contains(&head.write_id())
        {
            return;
        }
        replica.counter += 1;
        head.dot = Dot::new(replica.origin(at), replica.counter);
        replica.apply(&head, &self.setup);
        self.hold(id, at);
        self.answer(at, id, &head);
        for other in (0..REPLICAS).filter(|&other| other != at) {
            self.net.push((other, head.clone()));
            if self.rng.chance(20) {
                self.net.push((other, head.clone()));
            }
        }
    }

    fn hold(&mut self, id: u64, at: usize) {
        if let Some(write) = self.writes.get_mut(&id) {
            write.holders.insert(at);
        }
    }

    fn deliver(&mut self) {
        let at = self.rng.below(self.net.len());
        let (to, head) = match self.rng.chance(85) {
            true => self.net.swap_remove(at),
            false => self.net[at].clone(),
        };
        if self.rng.chance(12) {
            return;
        }
        self.replicas[to].apply(&head, &self.setup);
        self.hold(head.rid.0 as u64, to);
    }

    /// One replica pulls what another has and it lacks.
    fn exchange(&mut self) {
        let from = self.rng.below(REPLICAS);
        let to = (from + 1 + self.rng.below(REPLICAS - 1)) % REPLICAS;
        self.pull(from, to);
    }

    fn pull(&mut self, from: usize, to: usize) {
        let missing = self.replicas[to].clock.missing_from(&self.replicas[from].clock);
        let dots = missing.into_iter().flat_map(|range| {
            (range.first..=range.last).map(move |counter| Dot::new(range.origin, counter))
        });
        for dot in dots.collect::<Vec<_>>() {
            let head = self.replicas[from].log[&dot].clone();
            self.replicas[to].apply(&head, &self.setup);
            self.hold(head.rid.0 as u64, to);
        }
    }

    /// Drops tombstones that every replica is known to be done with.
    fn collect(&mut self) {
        let clocks: Vec<PartitionClock> =
            self.replicas.iter().map(|replica| replica.clock.clone()).collect();
        let guards = self.setup.guards;
        let everywhere = |version: &Version| {
            clocks.iter().all(|clock| {
                version.dots.iter().all(|&dot| clock.contains(dot))
                    && (!guards.collect_asks_past || clock.covers(&version.past))
            })
        };
        for replica in &mut self.replicas {
            for (key, object) in &mut replica.objects {
                let before = object_digest(key, object);
                let kept = object.versions().iter().filter(|version| {
                    version.kind == Kind::Put || (guards.collect_asks_all && !everywhere(version))
                });
                *object = Object::from_versions(kept.cloned().collect(), self.setup.policy);
                replica.digest.replace(before, object_digest(key, object));
            }
        }
    }

    fn power_cut(&mut self) {
        let at = self.rng.below(REPLICAS);
        let back = 1 + self.rng.next() % 2;
        let lost = self.replicas[at].roll_back(at, back, &self.setup);
        let everywhere: Vec<&Replica> = self.replicas.iter().collect();
        for (id, write) in &mut self.writes {
            let gone = |replica: &&Replica| {
                !replica.log.values().any(|head| head.rid.0 == u128::from(*id))
            };
            write.holders.retain(|&holder| !gone(&everywhere[holder]));
        }
        drop(lost);
    }

    /// Everything in flight arrives, then replicas exchange until nothing is missing anywhere.
    fn heal(&mut self) {
        for (to, head) in core::mem::take(&mut self.net) {
            self.replicas[to].apply(&head, &self.setup);
            self.hold(head.rid.0 as u64, to);
        }
        for _ in 0..REPLICAS {
            for from in 0..REPLICAS {
                for to in (0..REPLICAS).filter(|&to| to != from) {
                    self.pull(from, to);
                }
            }
        }
        // An alias of a tombstone may hold back its collection on one replica for a while.
        if self.setup.collect {
            self.collect();
        }
    }

    fn judge(&self) -> Option<Broken> {
        let first = &self.replicas[0];
        for replica in &self.replicas {
            for (index, key) in replica.objects.keys().enumerate() {
                if replica.object(key).dots() != first.object(key).dots() {
                    return Some(Broken::Diverged { key: index });
                }
            }
            if replica.clock == first.clock && replica.digest != first.digest {
                return Some(Broken::UnequalDigests);
            }
        }
        for (index, replica) in self.replicas.iter().enumerate() {
            if replica.clock.contiguous_after(replica.origin(index), 0) < replica.counter {
                return Some(Broken::CounterNotDense { replica: index });
            }
        }
        self.judge_writes(first)
    }

    fn judge_writes(&self, replica: &Replica) -> Option<Broken> {
        let mut alive = BTreeSet::new();
        for object in replica.objects.values() {
            for version in object.versions() {
                let write = replica.log[&version.dots[0]].rid.0 as u64;
                if !alive.insert(write) {
                    return Some(Broken::ShownTwice { write });
                }
            }
        }
        let replaced: BTreeSet<u64> =
            self.writes.values().flat_map(|write| write.saw.iter().copied()).collect();
        for (&id, write) in &self.writes {
            let held = !write.holders.is_empty();
            let live = alive.contains(&id);
            let outdone = self.setup.policy == ConflictPolicy::Lww && self.is_outdone(id);
            let gone = self.setup.collect && write.kind == Kind::Delete;
            if held && !live && !replaced.contains(&id) && !outdone && !gone {
                return Some(Broken::Lost { write: id });
            }
            if live && replaced.contains(&id) && self.replacer_is_held(id) {
                return Some(Broken::CameBack { write: id });
            }
        }
        None
    }

    /// Whether a write that saw `id` is held somewhere (a power cut may have taken it).
    fn replacer_is_held(&self, id: u64) -> bool {
        self.writes.values().any(|write| write.saw.contains(&id) && !write.holders.is_empty())
    }

    /// Whether an `lww` bucket keeps a later write of the same key.
    fn is_outdone(&self, id: u64) -> bool {
        let write = &self.writes[&id];
        self.writes.iter().any(|(&other, later)| {
            other != id
                && later.key == write.key
                && later.hlc >= write.hlc
                && !later.holders.is_empty()
        })
    }
}

/// The logical writes an object shows.
fn shown(object: &Object, log: &BTreeMap<Dot, RecordHead>) -> BTreeSet<u64> {
    object.versions().iter().map(|version| log[&version.dots[0]].rid.0 as u64).collect()
}
