//! What breaks, when, and for how long: drawn from the seed.
//!
//! Faults of processes and links may overlap. A disk is lost, an older copy of it put back, or a byte
//! of it flipped, only of one node at a time (`nemesis/disks.rs`): before it, all owners have come to
//! agree, and after it they do again (`settle.rs`). So a write is lost for good reason only if that
//! node alone had acked it. One node has a disk that can be full, which loses nothing.

mod disks;

use crate::chaos::ledger::Loss;
use crate::chaos::settle::settle;
use crate::chaos::workers::Field;
use crate::chaos::{Settings, Violation, What};
use crate::cluster::Cluster;
use crate::small_disk::SmallDisk;
use crate::wait::at_most;
use crate::{Ran, processes};
use galvani_client::Client;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL, and a start later.
    Kill,
    /// SIGSTOP, and SIGCONT later.
    Pause,
    /// Two groups do not hear each other.
    Cut,
    /// One group does not hear the other.
    OneWay,
    /// What a node sends is late.
    Slow,
    /// Part of what a node sends and hears is lost.
    Lossy,
    /// SIGKILL, and the data directory is gone.
    Wipe,
    /// An older copy of the data directory in its place.
    Older,
    /// A byte of a data file is flipped while its node is down.
    Flip,
    /// A disk without room, and room later.
    Full,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 10] = [
        Fault::Kill,
        Fault::Pause,
        Fault::Cut,
        Fault::OneWay,
        Fault::Slow,
        Fault::Lossy,
        Fault::Wipe,
        Fault::Older,
        Fault::Flip,
        Fault::Full,
    ];

    fn loses_data(self) -> bool {
        matches!(self, Fault::Wipe | Fault::Older | Fault::Flip)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Fault::Kill => "kill",
            Fault::Pause => "pause",
            Fault::Cut => "cut",
            Fault::OneWay => "one-way",
            Fault::Slow => "slow",
            Fault::Lossy => "lossy",
            Fault::Wipe => "wipe",
            Fault::Older => "older",
            Fault::Flip => "flip",
            Fault::Full => "full-disk",
        })
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(word: &str) -> Result<Fault, String> {
        let found = Fault::ALL.into_iter().find(|fault| fault.to_string() == word);
        found.ok_or_else(|| {
            let all: Vec<String> = Fault::ALL.iter().map(ToString::to_string).collect();
            format!("{word} is no fault: {}", all.join(","))
        })
    }
}

/// Breaks one cluster.
pub struct Nemesis<'a> {
    cluster: &'a Cluster,
    client: &'a Client,
    field: &'a Arc<Field>,
    rng: StdRng,
    began: Instant,
    beat: Option<Duration>,
    first: VecDeque<Fault>,
    soft: Vec<Fault>,
    hard: Vec<Fault>,
    /// The disk that can be full, and whose it is.
    small: Option<(&'a str, &'a SmallDisk)>,
    is_full: bool,
    /// How often each fault was set.
    pub done: BTreeMap<Fault, u64>,
    /// How often a node with a flipped byte said that it is to be filled anew, and was.
    pub filled_anew: u64,
    /// How long owners took to agree after each loss.
    pub agreed: Vec<Duration>,
}

impl<'a> Nemesis<'a> {
    /// One that sets the faults of `settings`; a full disk only if there is a `small` one.
    pub fn new(
        cluster: &'a Cluster,
        client: &'a Client,
        field: &'a Arc<Field>,
        settings: &Settings,
        small: Option<(&'a str, &'a SmallDisk)>,
    ) -> Nemesis<'a> {
        let can = |fault: &&Fault| **fault != Fault::Full || small.is_some();
        let (hard, soft) = settings.faults.iter().filter(can).partition(|fault| fault.loses_data());
        Nemesis {
            cluster,
            client,
            field,
            rng: StdRng::seed_from_u64(settings.seed),
            began: Instant::now(),
            beat: settings.beat,
            first: settings.first.iter().filter(can).copied().collect(),
            soft,
            hard,
            small,
            is_full: false,
            done: BTreeMap::new(),
            filled_anew: 0,
            agreed: Vec::new(),
        }
    }

    /// Breaks things for `time`, or until something is wrong; then mends all.
    pub fn run(&mut self, time: Duration) {
        let mut since_loss = 0;
        let goes_on = |one: &Self| one.began.elapsed() < time || !one.first.is_empty();
        while goes_on(self) && self.field.is_clean() {
            let began = Instant::now();
            let fault = match self.first.pop_front() {
                Some(fault) => Some(fault),
                None => {
                    // Few losses: each makes all clients wait until all owners agree.
                    let due = since_loss >= self.rng.random_range(3..8);
                    let loss = self.hard.choose(&mut self.rng).copied();
                    loss.filter(|_| due || self.soft.is_empty())
                }
            };
            match fault {
                Some(loss) if loss.loses_data() => {
                    since_loss = 0;
                    self.lose(loss);
                }
                fault => {
                    since_loss += 1;
                    self.round(fault);
                }
            }
            let quiet = self.rng.random_range(200..2_000);
            self.pause(
                self.beat.map_or(quiet, |beat| millis(beat.saturating_sub(began.elapsed()))),
            );
        }
        self.mend();
    }

    /// One fault, this one or any, often a second beside it, and their end.
    fn round(&mut self, first: Option<Fault>) {
        let Some(first) = first.or_else(|| self.soft.choose(&mut self.rng).copied()) else {
            return;
        };
        let victim = self.set(first, None);
        let longest = self.beat.map_or(6_000, |beat| millis(beat / 2).max(201));
        let hold: u64 = self.rng.random_range(200..longest);
        self.pause(if first == Fault::Full { hold.max(FULL_MS) } else { hold });
        if self.beat.is_none()
            && self.rng.random_bool(0.4)
            && let Some(second) = self.soft.choose(&mut self.rng).copied()
        {
            self.set(second, victim.as_deref());
            let hold = self.rng.random_range(200..3_000);
            self.pause(hold);
        }
        self.mend();
    }

    /// Sets one fault; the node it takes away, if it takes one.
    fn set(&mut self, fault: Fault, spare: Option<&str>) -> Option<String> {
        let mut names = self.names();
        // Links can be set only between nodes that run.
        names.retain(|name| Some(name.as_str()) != spare);
        if names.len() < 2 {
            return None;
        }
        let victim = names[self.rng.random_range(0..names.len())].clone();
        let alone = self.rng.random_range(1..names.len());
        let (left, right) = names.split_at(alone);
        let groups = format!("{}|{}", left.join(","), right.join(","));
        let amount = self.rng.random_range(1..=10);
        let victim = match (fault, self.small) {
            (Fault::Full, Some((owner, _))) if Some(owner) != spare => owner.to_owned(),
            (Fault::Full, _) => return None,
            (_, _) => victim,
        };
        self.say(&format!(
            "{fault} {}",
            match fault {
                Fault::Cut | Fault::OneWay => &groups,
                _ => &victim,
            }
        ));
        *self.done.entry(fault).or_default() += 1;
        match fault {
            Fault::Kill => self.cluster.kill_process(&victim),
            Fault::Pause => drop(processes::signal(&self.cluster.home(&victim), Signal::STOP)),
            Fault::Cut => self.link(&["dev", "cut", &groups]),
            Fault::OneWay => self.link(&["dev", "cut", &groups, "--one-way"]),
            Fault::Slow => {
                let delay = format!("{}ms±{}", amount * 30, amount * 10);
                self.link(&["dev", "slow", &victim, &delay]);
            }
            Fault::Lossy => {
                let share = format!("{}%", amount * 4);
                self.link(&["dev", "lossy", &victim, &share]);
            }
            Fault::Full => self.fill_disk(),
            Fault::Wipe | Fault::Older | Fault::Flip => return None,
        }
        matches!(fault, Fault::Kill | Fault::Pause | Fault::Full).then_some(victim)
    }

    /// Mends all, lets every request end, waits until all owners agree, and goes on.
    fn agree(&mut self, loses: Option<Loss>) {
        self.mend();
        let field = self.field.clone();
        let _closed = self.cluster.block_on(field.gate.write());
        let keys = field.ledger.take_touched();
        match settle(self.cluster, self.client, &field, keys) {
            Ok(took) => {
                self.say(&format!("all owners agree after {took:.1?}"));
                self.agreed.push(took);
            }
            Err(violations) => violations.into_iter().for_each(|one| field.blame(one)),
        }
        field.ledger.begin_epoch(loses);
    }

    /// Every node runs and has room, and no link is broken.
    fn mend(&mut self) {
        self.empty_disk();
        for name in self.names() {
            processes::signal(&self.cluster.home(&name), Signal::CONT);
        }
        for name in self.names() {
            if processes::of_node(&self.cluster.home(&name)).is_empty() {
                self.start(&name);
            }
        }
        self.link(&["dev", "heal"]);
    }

    /// Starts a node; it may be unable to reach others, and then the command says so.
    fn start(&self, name: &str) {
        let ran = self.cluster.run(&["dev", "start", name]);
        if processes::of_node(&self.cluster.home(name)).is_empty() {
            self.blame(format!("{name} does not start: {ran}"));
        }
    }

    /// A node did what none may do.
    fn blame(&self, detail: String) {
        self.field.blame(Violation::new(What::NodeFailed, "", None).detail(detail));
    }

    fn link(&self, words: &[&str]) {
        let Ran { code, stderr, .. } = self.cluster.run(words);
        if code != Some(0) {
            self.say(&format!("{}: {stderr}", words.join(" ")));
        }
    }

    /// Lets the clients go on.
    fn pause(&self, ms: u64) {
        at_most(Duration::from_millis(ms), || !self.field.is_clean());
    }

    fn names(&self) -> Vec<String> {
        self.cluster.nodes().iter().map(|node| node.name.clone()).collect()
    }

    fn say(&self, what: &str) {
        println!("{:7.1} s  {what}", self.began.elapsed().as_secs_f64());
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How long a disk is full at least, in milliseconds: until writes have met it.
const FULL_MS: u64 = 2_000;
