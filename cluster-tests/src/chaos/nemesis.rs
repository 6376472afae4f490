//! What breaks, when, and for how long: drawn from the seed.
//!
//! Faults of processes and links may overlap. A disk is lost, or an older copy of it put back, only
//! of one node at a time: before it, all owners have come to agree, and after it they do again
//! (`settle.rs`). So a write is lost for good reason only if that node alone had acked it.

use crate::chaos::settle::settle;
use crate::chaos::workers::Field;
use crate::cluster::Cluster;
use crate::wait::{at_most, until};
use crate::{Ran, processes};
use galvani_client::Client;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Command;
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
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 8] = [
        Fault::Kill,
        Fault::Pause,
        Fault::Cut,
        Fault::OneWay,
        Fault::Slow,
        Fault::Lossy,
        Fault::Wipe,
        Fault::Older,
    ];

    fn loses_data(self) -> bool {
        matches!(self, Fault::Wipe | Fault::Older)
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
    soft: Vec<Fault>,
    hard: Vec<Fault>,
    /// How often each fault was set.
    pub done: BTreeMap<Fault, u64>,
    /// How long owners took to agree after each loss.
    pub agreed: Vec<Duration>,
}

impl<'a> Nemesis<'a> {
    /// One that sets these faults.
    pub fn new(
        cluster: &'a Cluster,
        client: &'a Client,
        field: &'a Arc<Field>,
        faults: &[Fault],
        seed: u64,
    ) -> Nemesis<'a> {
        let (hard, soft) = faults.iter().partition(|fault| fault.loses_data());
        Nemesis {
            cluster,
            client,
            field,
            rng: StdRng::seed_from_u64(seed),
            began: Instant::now(),
            soft,
            hard,
            done: BTreeMap::new(),
            agreed: Vec::new(),
        }
    }

    /// Breaks things for `time`, or until something is wrong; then mends all.
    pub fn run(&mut self, time: Duration) {
        let mut since_loss = 0;
        while self.began.elapsed() < time && self.field.is_clean() {
            // Few losses: each makes all clients wait until all owners agree.
            let due = since_loss >= self.rng.random_range(3..8);
            match self.hard.choose(&mut self.rng).copied() {
                Some(loss) if due || self.soft.is_empty() => {
                    since_loss = 0;
                    self.lose(loss);
                }
                Some(_) | None => {
                    since_loss += 1;
                    self.round();
                }
            }
            let quiet = self.rng.random_range(200..2_000);
            self.pause(quiet);
        }
        self.mend();
    }

    /// One fault, often a second beside it, and their end.
    fn round(&mut self) {
        let Some(first) = self.soft.choose(&mut self.rng).copied() else { return };
        let victim = self.set(first, None);
        let hold = self.rng.random_range(200..6_000);
        self.pause(hold);
        if self.rng.random_bool(0.4)
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
        self.say(&format!(
            "{fault} {}",
            match fault {
                Fault::Cut | Fault::OneWay => &groups,
                _ => &victim,
            }
        ));
        *self.done.entry(fault).or_default() += 1;
        match fault {
            Fault::Kill => self.kill(&victim),
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
            Fault::Wipe | Fault::Older => return None,
        }
        matches!(fault, Fault::Kill | Fault::Pause).then_some(victim)
    }

    /// One node loses data, others are hurt while it is filled again, and all agree at the end.
    fn lose(&mut self, fault: Fault) {
        let names = self.names();
        let place = self.rng.random_range(0..names.len());
        let victim = names[place].clone();
        self.agree(Some(u8::try_from(place).expect("few nodes")));
        if !self.field.is_clean() {
            return;
        }
        self.say(&format!("{fault} {victim}"));
        *self.done.entry(fault).or_default() += 1;
        let data = self.cluster.home(&victim).join("data");
        let work = self.rng.random_range(200..2_500);
        match fault {
            Fault::Older => {
                let copy = self.cluster.scratch().join("older");
                self.kill(&victim);
                copy_dir(&data, &copy);
                self.start(&victim);
                self.pause(work);
                self.kill(&victim);
                remove(&data);
                std::fs::rename(&copy, &data).expect("both are in the test's own directory");
            }
            _ => {
                self.pause(work);
                self.kill(&victim);
                remove(&data);
            }
        }
        let away = self.rng.random_range(0..1_500);
        self.pause(away);
        self.start(&victim);
        if self.rng.random_bool(0.6) {
            // While it is being filled.
            self.round();
        }
        self.agree(None);
    }

    /// Mends all, lets every request end, waits until all owners agree, and goes on.
    fn agree(&mut self, loses: Option<u8>) {
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

    /// Every node runs, and no link is broken.
    fn mend(&self) {
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

    fn kill(&self, name: &str) {
        let home = self.cluster.home(name);
        processes::signal(&home, Signal::KILL);
        until(&format!("{name} to be gone"), || match processes::of_node(&home).as_slice() {
            [] => Ok(()),
            left => Err(left.to_vec()),
        });
    }

    /// Starts a node; it may be unable to reach others, and then the command says so.
    fn start(&self, name: &str) {
        let ran = self.cluster.run(&["dev", "start", name]);
        if processes::of_node(&self.cluster.home(name)).is_empty() {
            let what = crate::chaos::What::NodeFailed;
            let violation = crate::chaos::Violation::new(what, "", None);
            self.field.blame(violation.detail(format!("{name} does not start: {ran}")));
        }
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

fn remove(dir: &Path) {
    std::fs::remove_dir_all(dir).expect("its node is down");
}

fn copy_dir(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "{} cannot be copied", from.display());
}
