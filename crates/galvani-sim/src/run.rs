//! One seed from its first instant to its verdict: populate, let clients and faults go on, finish.
//!
//! The only place that turns a panic of the code under test into a violation. Next to read:
//! `quiet.rs`, which ends a run.

use crate::client::Client;
use crate::history::KeyInfo;
use crate::mutant::Mutant;
use crate::packet::Event;
use crate::profile::Profile;
use crate::report::{Outcome, Violation};
use crate::world::World;
use bytes::Bytes;
use galvani_model::key::Key;
use galvani_wire::view::Counters;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How to run a seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// The planted bug, if any.
    pub mutant: Option<Mutant>,
    /// How many of the last events are kept as text.
    pub keep_lines: usize,
}

/// Runs one seed. A panic of the code under test is a violation like any other.
pub fn run_seed(seed: u64, options: RunOptions) -> Outcome {
    let profile = Profile::draw(seed);
    let shown = profile.to_string();
    let mut world = World::new(seed, profile, options.mutant, options.keep_lines);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        world.populate();
        world.run_workload();
        world.finish();
    }));
    if let Err(payload) = ended {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let details = text.unwrap_or_else(|| "a panic without a message".into());
        let at_micros = world.now;
        world.violation = Some(Violation { oracle: "no_panic", details, at_micros });
    }
    world.outcome(shown)
}

impl World {
    /// Draws keys and clients, and starts everything.
    fn populate(&mut self) {
        for number in 0..self.profile.keys {
            let bucket = self.dice.clients.index(self.profile.buckets.len());
            let bucket = self.profile.buckets[bucket].clone();
            let name = Bytes::from(format!("k{number}"));
            let key = Key::new(bucket.name, name).expect("short and not empty");
            self.add_key(key, bucket.props);
        }
        for node in 0..self.nodes.len() {
            self.start_node(node);
        }
        for number in 0..self.profile.clients {
            let skews = [0, 0, 0, 0, -500, 2_000, -3_600_000, 500_000, 500_000, 900_000];
            let ahead = self.dice.clients.pick(&skews);
            let open = self.dice.clients.chance(250);
            self.clients.push(Client::new(ahead, open));
            let wait = self.dice.clients.between(10_000, 60_000);
            self.queue.push(wait, Event::ClientNext { client: number });
        }
        for (bucket, drawn) in self.profile.buckets.iter().enumerate() {
            if drawn.late {
                let wait = self.dice.clients.between(20_000, 600_000);
                self.queue.push(wait, Event::MakeBucket { bucket });
            }
        }
        self.begin_to_follow();
        if let Some(changes) = self.profile.changes {
            let left = changes.count;
            self.queue.push(changes.pace, Event::ChangeLayout { left });
        }
        self.queue.push(self.profile.fault_pace.min(200_000), Event::Nemesis);
        if let Some(slow) = self.profile.slow_peers {
            self.queue.push(slow.pace, Event::Lag);
        }
        if let Some(clocks) = self.profile.clocks {
            self.queue.push(clocks.pace, Event::Clocks);
        }
    }

    /// Makes a key known to the oracles.
    pub(crate) fn add_key(&mut self, key: Key, props: galvani_model::bucket::BucketProps) -> usize {
        let shard = self.layout.current().shard_of(&key, props.n);
        let owners = self.layout.owners(shard).iter().map(|id| self.by_id[id]).collect();
        self.key_index.insert(key.clone(), self.keys.len());
        self.keys.push(KeyInfo { key, shard, owners, props });
        self.keys.len() - 1
    }

    /// Clients and faults go on until all operations are started and answered, or time is up.
    fn run_workload(&mut self) {
        let step = 100_000;
        while !self.is_over() && self.now < self.profile.run_micros {
            self.run_until(self.now + step);
            let open = self.history.calls.iter().any(|call| call.end.is_none());
            if self.operations_left == 0 && !open {
                break;
            }
        }
    }

    /// Whether a script drives this world, not clients of its own.
    pub(crate) fn by_script(&self) -> bool {
        self.profile.clients == 0
    }

    /// Figures of every lane that lives.
    pub(crate) fn counters(&self) -> Counters {
        let mut all = Counters::default();
        for slot in self.nodes.iter().flat_map(|node| &node.lanes) {
            all.add(slot.lane.counters());
        }
        all
    }

    fn outcome(mut self, profile: String) -> Outcome {
        let unequal = self.counters().digests_unequal;
        let mut all = Counters::default();
        self.nodes.iter().for_each(|node| all.add(&node.counters()));
        let quarantined = self.nodes.iter_mut().map(|node| node.rows_quarantined()).sum();
        let counted = [
            ("lane.retries_recognised", all.retries_recognised),
            ("lane.lww_discarded", all.lww_discarded),
            ("lane.incarnations_noticed", all.incarnations),
            ("lane.duplicates", all.duplicates),
            ("lane.expired", all.expired),
            ("lane.repairs_sent", all.repairs_sent),
            ("lane.repairs_skipped", all.repairs_skipped),
            ("lane.turned_away", all.turned_away),
            ("lane.breakers_opened", all.breakers_opened),
            ("lane.members_lost", all.members_lost),
            ("lane.shards_compared", all.shards_compared),
            ("lane.shards_differing", all.shards_differing),
            ("lane.records_pulled", all.records_pulled),
            ("lane.hints_held", all.hints_held),
            ("lane.hints_delivered", all.hints_delivered),
            ("lane.hints_received", all.hints_received),
            ("lane.rows_quarantined", quarantined),
            ("lane.readopted", all.readopted),
            ("lane.digests_corrected", all.digests_corrected),
        ];
        for (name, count) in counted {
            self.coverage.add(name, count);
        }
        if unequal > 0 && !self.planted && self.violation.is_none() {
            let details = format!("{} comparisons found equal clocks and unequal digests", unequal);
            let at_micros = self.now;
            self.violation =
                Some(Violation { oracle: "equal_clock_equal_digest", details, at_micros });
        }
        self.coverage.add("seeds", 1);
        self.coverage.add("node.starts", self.nodes.iter().map(|node| node.boot).sum());
        self.trace.mix(self.ledger.len() as u64);
        Outcome {
            seed: self.seed,
            violation: self.violation,
            coverage: self.coverage,
            trace_hash: self.trace.hash(),
            events: self.trace.events(),
            micros: self.now,
            lines: self.trace.lines(),
            profile,
        }
    }
}
