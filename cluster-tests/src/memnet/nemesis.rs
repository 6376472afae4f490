//! What breaks in a run in memory: hosts, links and the network's weather, one thing after another.
//!
//! Each fault lasts a while and ends by itself; several may hold at once. What comes when follows
//! from the seed. At the end all of it is mended.

use crate::memnet::Plant;
use crate::memnet::nodes::{Nodes, client_ip};
use crate::memnet::wire::{Weather, Wire};
use galvani_node::config::DurabilityMode;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Kinds of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A node crashes and comes back.
    Crash,
    /// All nodes lose power at once.
    Blackout,
    /// A node is stopped in peace and started again.
    Restart,
    /// A node stands still, for less or more than it takes to be noticed.
    Pause,
    /// Nothing passes between two hosts.
    Cut,
    /// Something passes one way only.
    OneWay,
    /// Nothing passes between one node and the others.
    Isolate,
    /// A link between two nodes comes and goes every 200 ms.
    Flap,
    /// Loss, duplicates and reordering.
    Weather,
}

impl Fault {
    const ALL: [Fault; 9] = [
        Fault::Crash,
        Fault::Blackout,
        Fault::Restart,
        Fault::Pause,
        Fault::Cut,
        Fault::OneWay,
        Fault::Isolate,
        Fault::Flap,
        Fault::Weather,
    ];
}

/// What breaks things.
pub struct Nemesis<'a> {
    nodes: &'a mut Nodes,
    wire: &'a Arc<Wire>,
    clients: u8,
    durability: DurabilityMode,
    plant: Option<Plant>,
    rng: StdRng,
    began: Instant,
    /// Of this run: not every run has every kind.
    kinds: Vec<Fault>,
    holding: Vec<Holding>,
    /// How often each was done.
    pub done: BTreeMap<Fault, u32>,
    /// What was done when, for people.
    pub log: Vec<String>,
}

/// A fault that holds.
struct Holding {
    until: Instant,
    mend: Mend,
}

#[derive(Clone, Debug)]
enum Mend {
    Begin(Vec<usize>),
    GoOn(usize),
    Join(Vec<(IpAddr, IpAddr)>),
    Flap { pair: [IpAddr; 2], left: u32 },
    Fair,
}

impl<'a> Nemesis<'a> {
    /// One that has done nothing yet.
    pub fn new(
        nodes: &'a mut Nodes,
        wire: &'a Arc<Wire>,
        clients: u8,
        durability: DurabilityMode,
        plant: Option<Plant>,
        seed: u64,
    ) -> Nemesis<'a> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut kinds: Vec<Fault> =
            Fault::ALL.into_iter().filter(|_| rng.random_bool(0.6)).collect();
        if kinds.is_empty() || plant.is_some() {
            kinds.extend([Fault::Crash, Fault::OneWay]);
        }
        Nemesis {
            nodes,
            wire,
            clients,
            durability,
            plant,
            rng,
            began: Instant::now(),
            kinds,
            holding: Vec::new(),
            done: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    /// Breaks things for `time`, then mends all of them.
    pub async fn run(&mut self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        let mut next = Instant::now() + self.millis(100, 1_000);
        while Instant::now() < end {
            let due = self.holding.iter().map(|holding| holding.until).min();
            let wake = due.map_or(next, |due| due.min(next)).min(end);
            // wait: virtual time, until the next fault begins or ends
            sleep_until(wake).await;
            self.mend_due(false).await;
            if let Some(index) = self.nodes.ended() {
                return Err(format!("node {} ended by itself", index + 1));
            }
            if Instant::now() >= next {
                let kind = *self.kinds.choose(&mut self.rng).expect("there is one");
                self.strike(kind).await?;
                next = Instant::now() + self.millis(100, 1_500);
            }
        }
        self.mend_due(true).await;
        for index in 0..self.nodes.len() {
            self.nodes.pause(index, false);
            if !self.nodes.runs(index) {
                self.nodes.begin(index);
            }
        }
        self.note("all mended".to_owned());
        Ok(())
    }

    async fn strike(&mut self, kind: Fault) -> Result<(), String> {
        let index = self.rng.random_range(0..self.nodes.len());
        let hosts = self.hosts();
        let other = self.pick_other(&hosts, self.nodes.ip(index));
        let ip = self.nodes.ip(index);
        let mut until = Instant::now() + self.millis(50, 4_000);
        let power = self.durability == DurabilityMode::Fsync && self.rng.random_bool(0.5);
        let mend = match kind {
            Fault::Crash => {
                self.nodes.crash(index, power).await;
                Mend::Begin(vec![index])
            }
            Fault::Blackout => {
                let all: Vec<usize> = (0..self.nodes.len()).collect();
                for &index in &all {
                    self.nodes.crash(index, power).await;
                }
                Mend::Begin(all)
            }
            Fault::Restart => {
                self.nodes.pause(index, false);
                self.nodes.stop(index).await?;
                Mend::Begin(vec![index])
            }
            Fault::Pause => {
                until = Instant::now() + self.millis(100, 8_000);
                self.nodes.pause(index, true);
                Mend::GoOn(index)
            }
            Fault::Cut => self.cut(vec![(ip, other), (other, ip)]),
            Fault::OneWay => match self.rng.random_bool(0.5) {
                true => self.cut(vec![(ip, other)]),
                false => self.cut(vec![(other, ip)]),
            },
            Fault::Isolate => {
                let others = hosts.iter().filter(|&&host| host != ip);
                let both = others.flat_map(|&host| [(ip, host), (host, ip)]);
                self.cut(both.collect())
            }
            Fault::Flap => {
                until = Instant::now() + FLAP;
                let left = self.rng.random_range(4..20);
                Mend::Flap { pair: [ip, other], left }
            }
            Fault::Weather => {
                let weather = self.weather();
                self.wire.set_weather(weather);
                self.note(format!("{weather:?}"));
                Mend::Fair
            }
        };
        *self.done.entry(kind).or_default() += 1;
        let lasts = until.duration_since(Instant::now());
        self.note(format!("{kind:?} of {ip} ({other}), {lasts:?}"));
        self.holding.push(Holding { until, mend });
        Ok(())
    }

    /// Ends what is due, or all.
    async fn mend_due(&mut self, all: bool) {
        let now = Instant::now();
        let (due, holding) = std::mem::take(&mut self.holding)
            .into_iter()
            .partition(|holding: &Holding| all || holding.until <= now);
        self.holding = holding;
        for Holding { mend, .. } in due {
            match mend {
                Mend::Begin(nodes) => {
                    for index in nodes {
                        if !self.nodes.runs(index) {
                            self.nodes.begin(index);
                        }
                    }
                }
                Mend::GoOn(index) => self.nodes.pause(index, false),
                Mend::Join(pairs) => {
                    if self.plant != Some(Plant::CutStays) {
                        pairs.into_iter().for_each(|(from, to)| self.wire.join(from, to));
                    }
                }
                Mend::Flap { pair: [one, other], left } => {
                    let parted = left % 2 == 0 && left > 0 && !all;
                    for (from, to) in [(one, other), (other, one)] {
                        match parted {
                            true => self.wire.cut(from, to),
                            false => self.wire.join(from, to),
                        }
                    }
                    if left > 0 && !all {
                        let mend = Mend::Flap { pair: [one, other], left: left - 1 };
                        self.holding.push(Holding { until: now + FLAP, mend });
                    }
                }
                Mend::Fair => self.wire.set_weather(Weather::FAIR),
            }
        }
    }

    fn cut(&mut self, pairs: Vec<(IpAddr, IpAddr)>) -> Mend {
        pairs.iter().for_each(|&(from, to)| self.wire.cut(from, to));
        Mend::Join(pairs)
    }

    fn weather(&mut self) -> Weather {
        let lost = *[0, 10, 50, 300].choose(&mut self.rng).expect("there are some");
        Weather {
            delay_ms: self.rng.random_range(1..20),
            jitter_ms: self.rng.random_range(0..40),
            lost,
            twice: *[0, 20, 200].choose(&mut self.rng).expect("there are some"),
        }
    }

    /// Nodes, then clients.
    fn hosts(&self) -> Vec<IpAddr> {
        let nodes = (0..self.nodes.len()).map(|index| self.nodes.ip(index));
        nodes.chain((0..self.clients).map(client_ip)).collect()
    }

    fn pick_other(&mut self, hosts: &[IpAddr], not: IpAddr) -> IpAddr {
        let others: Vec<IpAddr> = hosts.iter().copied().filter(|&host| host != not).collect();
        *others.choose(&mut self.rng).expect("there are several hosts")
    }

    fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(least..=most))
    }

    fn note(&mut self, what: String) {
        let at = self.began.elapsed().as_millis();
        self.log.push(format!("{at:6} ms  {what}"));
    }
}

/// How long a flapping link stays as it is.
const FLAP: Duration = Duration::from_millis(200);
